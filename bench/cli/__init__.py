"""The command line: results go to stdout, everything else to stderr.

Commands parse their options, call a function of ``bench`` and print what it returns. Heavy imports
are made in the commands, so that ``--help`` and completion stay quick.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bench.cli import console
from bench.cli.card import card
from bench.cli.check import check
from bench.cli.clusters import clusters
from bench.cli.data import app as data_app
from bench.cli.export import app as export_app
from bench.cli.listing import list_
from bench.cli.options import (
    Cache,
    Device,
    Dtype,
    Exact,
    Exclude,
    Instruction,
    Json,
    Limit,
    Models,
    Ray,
    Results,
    Sets,
    Suites,
    Tasks,
    Wordings,
    Workers,
    command,
    split_names,
)
from bench.cli.report import report, study
from bench.cli.train import train
from bench.errors import UsageError

if TYPE_CHECKING:
    from bench.runner import Cell

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"encoder-recipes-bench {version('encoder-recipes-bench')}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Compare recipes that turn a language model into a text encoder."""


command(app, "bench list", "bench list inbedder", "bench list quick --json", name="list")(list_)


@command(
    app,
    "bench run --model all",
    "bench run -m inbedder,llm2comp --task STSBenchmark --device cuda --dtype bfloat16",
    "bench run -m all --suite quip-paper --data DIR --limit 500 --dry-run",
    "bench run -m all --suite quip-paper --shard 2/8 --results /shared/results",
    "bench run -m all --suite standard --exclude SciFact,ag-news --data DIR",
    "bench run -m st:my/folder --suite quick --json | jq .score",
    "bench run -m all --task classification:reviews.csv:text=review,label=stars",
    "bench run -m all --workers auto",
    reads_data=True,
)
def run(  # noqa: PLR0913, PLR0917 - one parameter an option
    model: Models = ["all"],  # noqa: B006 - typer copies lists
    suite: Suites = [],  # noqa: B006
    task: Tasks = [],  # noqa: B006
    exclude: Exclude = [],  # noqa: B006
    results: Results = Path("results"),
    seed: Annotated[list[str], typer.Option(help="Seeds, comma-separated or repeated.")] = ["42"],  # noqa: B006
    instruction: Instruction = "",
    wordings: Wordings = None,
    limit: Limit = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    set_: Sets = [],  # noqa: B006
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be run; encode nothing.")
    ] = False,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Continue after a cell has failed.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Run finished cells again.")] = False,
    exact: Exact = False,
    workers: Workers = None,
    ray: Ray = None,
    shard: Annotated[
        str,
        typer.Option(
            help="Only a fixed part of the cells, such as 2/8. Without it, processes on one "
            "results folder share all cells: each takes the next one.",
            show_default=False,
        ),
    ] = "1/1",
    wait: Annotated[
        bool,
        typer.Option(
            "--wait/--no-wait",
            help="At the end wait for cells that other processes run, and take over those of dead "
            "ones.",
        ),
    ] = True,
    cache: Cache = True,
    as_json: Json = False,
) -> None:
    """Run encoders on tasks; cells that are in the results folder are not run again.

    Several processes on one results folder share the cells.
    """
    from bench.engine import start_engine
    from bench.forecast import forecast
    from bench.registry import compute_settings, load_encoders
    from bench.runner import run as run_cells
    from bench.runner import survey_all
    from bench.shards import Shard
    from bench.store import Store
    from bench.tasks import check_names, load_tasks
    from bench.vectors import open_vectors

    seeds = list(dict.fromkeys(_parse_seed(text) for text in split_names(seed)))
    chosen = Shard.parse(shard)
    settings = compute_settings(device, dtype, exact=exact)
    task_names, suite_names = split_names(task), split_names(suite)
    check_names(task_names, suite_names)  # before the encoders' libraries are imported
    encoders = load_encoders(split_names(model), settings, set_)
    tasks = load_tasks(
        task_names,
        suite_names,
        exclude=split_names(exclude),
        limit=limit,
        instruction=instruction,
        wordings=wordings,
    )
    part = chosen.choose(encoders, tasks, seeds)
    store, vectors = Store(results), open_vectors(on_disk=cache)
    cells: list[Cell] = []
    if dry_run:
        before = list(store.results(examples=False))
        surveys = survey_all(
            encoders, tasks, store, seeds=seeds, force=force, exact=exact, trial=True, part=part
        )
        for name, planned in surveys:
            forecasts = forecast(encoders[name], planned, vectors, before, exact=exact)
            console.print_plan(name, planned, forecasts, as_json=as_json)
            cells += planned
    else:
        with start_engine(workers, ray, device) as engine, console.progress() as progress:
            for cell in run_cells(
                encoders,
                tasks,
                store,
                vectors,
                engine=engine,
                seeds=seeds,
                keep_going=keep_going,
                force=force,
                exact=exact,
                part=part,
                wait=wait,
                progress=progress,
            ):
                cells.append(cell)
                console.show_cell(cell.row(), as_json=as_json)
        if not as_json:
            console.print_grid([cell.row() for cell in cells])
        console.note_others([cell.row() for cell in cells])
    expected = sum(map(sum, part.values()))
    if not expected:
        console.note(f"no cell is in shard {shard}")
        return
    _check_cells(cells, expected=expected)


def _check_cells(cells: "list[Cell]", *, expected: int) -> None:
    """End with exit code 1 where a cell failed or none could be run."""
    failed = [cell.row() for cell in cells if cell.status == "failed"]
    if failed:
        console.note_failures(failed, left=expected - len(cells))
        raise typer.Exit(1)
    if all(cell.status == "skipped" for cell in cells):
        console.note_reasons("nothing could be run:", [cell.row() for cell in cells])
        raise typer.Exit(1)


def _parse_seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**32:  # the range of numpy and scikit-learn
        raise UsageError(
            f"--seed takes whole numbers from 0 to {2**32 - 1}, separated by commas, got {text!r}"
        )
    return int(text)


command(
    app,
    "bench report",
    "bench report -m quip,dino --format tex --table families",
    "bench report --compare OTHER_RESULTS",
    "bench report --results A --results B",
    "bench report --mteb CLONE --mteb-model intfloat/e5-small-v2,all-MiniLM-L12-v2",
    "bench report --published --task STSBenchmark",
)(report)

command(
    app,
    "bench study --results grid.zip",
    "bench study --results results --tried tried --out reports/study",
)(study)

command(
    app,
    "bench train inbedder --budget S",
    "bench train inbedder --budget 20000 --set lr=5e-4 --out try",
    "bench train dino --budget 100000 --vary decay=0,200 --vary smoothing=0",
    "bench train quip,dino --budget 60000,250000 --seed 0,1,2 --out grid --dry-run",
    "bench train quip,dino --budget S,L --workers auto",
    "accelerate launch -m bench train inbedder --budget L",
    reads_data=True,
)(train)

command(
    app,
    "bench clusters --texts reviews.txt",
    "bench clusters --texts tickets.csv --column message -i 'What does the customer want?'",
    "bench clusters --texts pypi/zaragoza-construction-faq:train --k 8 --out faq",
    "bench clusters -m hashing --texts log.jsonl.gz --column line --limit 0 --json | jq .words",
    reads_data=True,
)(clusters)


command(
    app,
    "bench check -m dino",
    "bench check -m my_package.my_file:MyEncoder",
    "bench check --task my_package.my_file:TASK --limit 50",
    "bench check --recipe my_package.my_file:Recipe",
    reads_data=True,
)(check)


@command(
    app,
    "bench new my_method && bench check --model my_method:MyMethod",
    "bench new my_method --recipe && bench check --recipe my_method.train:Recipe",
    "bench new my_task --task && bench check --task my_task:TASK",
)
def new(
    name: Annotated[
        str, typer.Argument(help="Name of the method or task, in lower case with underscores.")
    ],
    recipe: Annotated[
        bool, typer.Option("--recipe", help="A method with the recipe that trains it.")
    ] = False,
    task: Annotated[bool, typer.Option("--task", help="A task instead of a method.")] = False,
) -> None:
    """Write a new method or task that works as written, to start from.

    A method is a language-model encoder. Files go into the working folder; in a checkout of this
    project into its packages, with their entry points.
    """
    from bench.cli.scaffold import write_new

    if recipe and task:
        raise UsageError("expected --recipe or --task, got both")
    kind: Literal["encoder", "recipe", "task"] = "encoder"
    if recipe or task:
        kind = "recipe" if recipe else "task"
    for line in write_new(name, Path(), kind):
        print(line)


command(
    app,
    "bench card checkpoints/dino-S",
    "bench card inbedder:FOLDER --results results --out card.md",
)(card)

app.add_typer(data_app, name="data")
app.add_typer(export_app, name="export")
