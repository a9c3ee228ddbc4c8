"""The command line. Results go to stdout, everything else to stderr; heavy imports are made where a command needs them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli import console
from bench.cli.clusters import clusters
from bench.cli.data import app as data_app
from bench.cli.listing import list_
from bench.cli.loading import load_encoders, vector_store
from bench.cli.options import (
    Data,
    Device,
    Dtype,
    Exact,
    Json,
    Models,
    Results,
    Sets,
    Suites,
    Tasks,
    Verbose,
    computing,
    errors,
    names,
    start,
)
from bench.cli.report import Encoders, Form, OnTasks, Tables, Wanted, show
from bench.cli.train import train
from bench.errors import UsageError

if TYPE_CHECKING:
    from bench.encoder import Encoder
    from bench.runner import Cell
    from bench.task import Task

app = typer.Typer(
    help="Compare recipes that turn a language model into a text encoder.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data_app, name="data")


app.command(
    "list", epilog="Examples: `bench list` · `bench list inbedder` · `bench list quick --json`"
)(list_)


@app.command(
    epilog="Examples:\n\n`bench run --model all`\n\n`bench run -m inbedder,llm2comp --task STSBenchmark --device cuda --dtype bfloat16`\n\n"
    "`bench run -m all --suite quip-paper --data DIR --limit 500 --dry-run`\n\n`bench run -m st:my/folder --suite quick --json | jq .score`"
)
def run(  # noqa: PLR0913, PLR0917 - one parameter an option
    model: Models = ["all"],  # noqa: B006 - typer copies lists
    suite: Suites = [],  # noqa: B006
    task: Tasks = [],  # noqa: B006
    data: Data = None,
    results: Results = Path("results"),
    seed: Annotated[list[str], typer.Option(help="Seeds, comma-separated or repeated.")] = ["42"],  # noqa: B006
    limit: Annotated[
        int | None, typer.Option(help="At most this many test examples a task.", min=1)
    ] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    set_: Sets = [],  # noqa: B006 - typer copies it
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be run, encode nothing.")
    ] = False,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Go on after a cell has failed.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Run cells again that exist already.")
    ] = False,
    exact: Exact = False,
    cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="Keep embeddings on disk for later runs.")
    ] = True,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Run tasks on encoders; what is in the results folder already is not run again."""
    with errors():
        start(data, verbose=verbose)
        seeds = [_seed(s) for s in names(seed)]
        computed = computing(device, dtype, exact=exact)
        encoders = load_encoders(names(model), computed, set_)
        tasks = _load_tasks(names(suite), names(task), limit)
        from bench.store import Store

        store = Store(results)
        if dry_run:
            cells = _dry_run(
                encoders, tasks, store, seeds=seeds, force=force, exact=exact, as_json=as_json
            )
        else:
            cells = _run(
                encoders,
                tasks,
                store,
                seeds=seeds,
                keep_going=keep_going,
                force=force,
                exact=exact,
                cache=cache,
                as_json=as_json,
            )
            if not as_json:
                console.print_grid([cell.row() for cell in cells])
        if failed := [cell.row() for cell in cells if cell.status == "failed"]:
            console.note_failures(failed, left=len(encoders) * len(tasks) * len(seeds) - len(cells))
            raise typer.Exit(1)
        if all(cell.status == "skipped" for cell in cells):
            console.note_reasons("nothing could be run:", [cell.row() for cell in cells])
            raise typer.Exit(1)


@app.command(
    epilog="Examples:\n\n`bench report`\n\n`bench report -m quip,dino --format tex --table families`\n\n"
    "`bench report --compare OTHER_RESULTS`\n\n`bench report --published --task STSBenchmark`"
)
def report(  # noqa: PLR0913, PLR0917 - one parameter an option
    model: Encoders = [],  # noqa: B006
    task: OnTasks = [],  # noqa: B006
    results: Results = Path("results"),
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder for what is written. [default: reports]",
            file_okay=False,
            show_default=False,
        ),
    ] = None,
    form: Form = "",
    table: Tables = [],  # noqa: B006
    compare: Annotated[
        Path | None,
        typer.Option(
            "--compare",
            help="Folder of other results: print what changed since.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    published: Annotated[
        bool,
        typer.Option("--published", help="Print published numbers instead, of the tasks named."),
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Write tables, figures and a page from the results; nothing is computed again."""
    with errors():
        start(None, verbose=verbose)
        show(
            Wanted(
                results,
                names(model),
                names(task),
                names(table),
                form,
                out,
                compare,
                published=published,
            )
        )


app.command(
    epilog="Examples:\n\n`bench train inbedder --budget S`\n\n`bench train inbedder --budget 20000 --set lr=5e-4 --out try`\n\n"
    "`bench train dino --budget 100000 --vary decay=0,200 --vary smoothing=0`\n\n"
    "`accelerate launch -m bench train inbedder --budget L`"
)(train)


app.command(
    epilog="Examples:\n\n`bench clusters --texts reviews.txt`\n\n"
    "`bench clusters --texts tickets.csv --column message -i 'What does the customer want?' -i 'How does the customer feel?'`\n\n"
    "`bench clusters --texts pypi/zaragoza-construction-faq:train --k 8 --out faq`\n\n"
    "`bench clusters -m hashing --texts log.jsonl.gz --column line --limit 0 --json | jq .words`"
)(clusters)


@app.command(
    epilog="Examples: `bench check -m dino` · `bench check -m my_package.my_file:MyEncoder`"
)
def check(
    model: Models,
    device: Device = "auto",
    dtype: Dtype = "float32",
    set_: Sets = [],  # noqa: B006 - typer copies it
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Hold encoders against the contract, rule by rule."""
    with errors():
        start(None, verbose=verbose)
        from bench.testing import run_checks

        failed = 0
        for name, encoder in load_encoders(names(model), computing(device, dtype), set_).items():
            for outcome in run_checks(encoder):
                failed += outcome.status == "failed"
                if as_json:
                    print(
                        json.dumps(
                            {
                                "encoder": name,
                                "check": outcome.name,
                                "status": outcome.status,
                                "reason": outcome.reason,
                            }
                        )
                    )
                else:
                    console.print_check(name, outcome.name, outcome.status, outcome.reason)
        if failed:
            raise typer.Exit(1)


@app.command(
    epilog="Example: `bench new my_method && bench check --model adapters.my_method:MyMethod`"
)
def new(
    name: Annotated[
        str, typer.Argument(help="Name of the method, in lower case with underscores.")
    ],
) -> None:
    """Write a new adapter, adapters/NAME.py, and its entry point line; it passes `bench check` as written."""
    with errors():
        from bench.cli.scaffold import write_adapter

        for line in write_adapter(name, Path()):
            print(line)


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**32:  # as numpy and scikit-learn have it
        raise UsageError(
            f"--seed takes whole numbers from 0 to {2**32 - 1}, separated by commas, got {text!r}"
        )
    return int(text)


def _load_tasks(suites: Sequence[str], tasks: Sequence[str], limit: int | None) -> "list[Task]":
    """Return the tasks named, then those of the suites, each once."""
    from bench.tasks import load_suite, load_task

    loaded = [load_task(name, limit=limit) for name in tasks]
    for name in suites or (() if tasks else ("quick",)):
        loaded += load_suite(name, limit=limit)
    return [task for i, task in enumerate(loaded) if task not in loaded[:i]]


def _dry_run(
    encoders: "Mapping[str, Encoder]",
    tasks: "list[Task]",
    store: Any,  # noqa: ANN401
    *,
    exact: bool,
    as_json: bool,
    **options: Any,  # noqa: ANN401
) -> "list[Cell]":
    from bench.runner import survey

    found = []
    for name, encoder in encoders.items():
        cells = survey(name, encoder, tasks, store, exact=exact, trial=True, **options)
        vectors = vector_store(disk=True)
        console.print_plan(name, encoder, cells, vectors, exact=exact, as_json=as_json)
        found += cells
    return found


def _run(
    encoders: "Mapping[str, Encoder]",
    tasks: "list[Task]",
    store: Any,  # noqa: ANN401
    *,
    cache: bool,
    as_json: bool,
    **options: Any,  # noqa: ANN401
) -> "list[Cell]":
    from bench.runner import run as run_cells

    cells = []
    vectors = vector_store(disk=cache)
    with console.progress() as bars:
        for cell in run_cells(encoders, tasks, store, vectors, progress=bars, **options):
            cells.append(cell)
            if as_json:
                print(json.dumps(cell.row(), ensure_ascii=False), flush=True)
            else:
                console.note_cell(cell.row())
    return cells
