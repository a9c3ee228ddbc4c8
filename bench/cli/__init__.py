"""The command line. Results go to stdout, everything else to stderr; heavy imports are made where a command needs them."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli import console
from bench.cli.data import app as data_app
from bench.cli.options import Data, Device, Dtype, Json, Models, Results, Sets, Suite, Tasks, Verbose, errors, start
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


@app.command("list", epilog="Examples: `bench list` · `bench list --json`")
def list_(as_json: Json = False) -> None:
    """Show encoders, suites and tasks, a line each."""
    from bench.registry import describe, encoder_names, expand
    from bench.tasks import SUITES, describe_suite, describe_task, task_names

    default = expand(["all"])
    rows = [{"kind": "encoder", "name": n, "about": describe(n), "default": n in default} for n in encoder_names()]
    rows += [{"kind": "suite", "name": n, "about": describe_suite(n), "default": n == "quick"} for n in SUITES]
    rows += [{"kind": "task", "name": n, "about": describe_task(n)} for n in task_names()]
    if as_json:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
        return
    for kind, note in (
        ("encoder", "* = in `--model all`"),
        ("suite", "* = default"),
        ("task", "any mteb task or benchmark works by its name too"),
    ):
        print(f"{kind}s ({note})")
        for row in rows:
            if row["kind"] == kind:
                print(f"  {'*' if row.get('default') else ' '} {row['name']:<26} {row['about']}")


@app.command(
    epilog="Examples:\n\n`bench run --model all`\n\n`bench run -m inbedder,llm2comp --task STSBenchmark --device cuda --dtype bfloat16`\n\n"
    "`bench run -m all --suite quip-paper --data DIR --limit 500 --dry-run`\n\n`bench run -m st:my/folder --suite quick --json | jq .score`"
)
def run(  # noqa: PLR0913, PLR0917 - one parameter an option
    model: Models = "all",
    suite: Suite = "",
    task: Tasks = "",
    data: Data = None,
    results: Results = Path("results"),
    seed: Annotated[str, typer.Option(help="Seeds, comma-separated.")] = "42",
    limit: Annotated[int | None, typer.Option(help="At most this many test examples a task.", min=1)] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    set_: Sets = [],  # noqa: B006 - typer copies it
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be run, encode nothing.")] = False,
    keep_going: Annotated[bool, typer.Option("--keep-going", help="Go on after a cell has failed.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Run cells again that exist already.")] = False,
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="Keep embeddings on disk for later runs.")] = True,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Run tasks on encoders; what is in the results folder already is not run again."""
    with errors():
        start(data, verbose=verbose)
        seeds = [_integer(s) for s in seed.split(",")]
        encoders = _load_encoders(model, {"device": device, "dtype": dtype}, set_)
        tasks = _load_tasks(suite, task, limit)
        from bench.store import Store

        store = Store(results)
        if dry_run:
            _dry_run(encoders, tasks, store, seeds=seeds, force=force, as_json=as_json)
            return
        cells = _run(encoders, tasks, store, seeds=seeds, keep_going=keep_going, force=force, cache=cache, as_json=as_json)
        if not as_json:
            console.print_grid([cell.row() for cell in cells])
        if any(cell.status == "failed" for cell in cells):
            console.note_failures([cell.row() for cell in cells if cell.status == "failed"])
            raise typer.Exit(1)


@app.command(epilog="Examples: `bench report` · `bench report --results DIR --out DIR` · `bench report --format csv > table.csv`")
def report(
    results: Results = Path("results"),
    out: Annotated[Path, typer.Option("--out", help="Folder for tables and figures.", file_okay=False)] = Path("reports"),
    form: Annotated[str, typer.Option("--format", help="Print the main table instead: md, csv or json.")] = "",
    verbose: Verbose = False,
) -> None:
    """Write tables and figures from the results; nothing is computed again."""
    with errors():
        start(None, verbose=verbose)
        from bench import report as reports
        from bench.store import Store

        if form:
            print(reports.table(Store(results), form), end="")
            return
        for path in reports.build(Store(results), out):
            print(path)


@app.command(epilog="Examples: `bench check -m dino` · `bench check -m my_package.my_file:MyEncoder`")
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
        for name, encoder in _load_encoders(model, {"device": device, "dtype": dtype}, set_).items():
            for outcome in run_checks(encoder):
                failed += outcome.status == "failed"
                if as_json:
                    print(json.dumps({"encoder": name, "check": outcome.name, "status": outcome.status, "reason": outcome.reason}))
                else:
                    console.print_check(name, outcome.name, outcome.status, outcome.reason)
        if failed:
            raise typer.Exit(1)


@app.command(epilog="Example: `bench new my_method && bench check --model adapters.my_method:MyMethod`")
def new(name: Annotated[str, typer.Argument(help="Name of the method, in lower case with underscores.")]) -> None:
    """Write a new adapter, adapters/NAME.py, and its entry point line; it passes `bench check` as written."""
    with errors():
        from bench.cli.scaffold import write_adapter

        for line in write_adapter(name, Path()):
            print(line)


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise UsageError(f"--seed takes whole numbers separated by commas, got {text!r}") from error


def _load_encoders(names: str, defaults: Mapping[str, str], sets: list[str]) -> "dict[str, Encoder]":
    from bench.registry import expand, has_field, load_encoder

    encoders = {name: load_encoder(name) for name in expand([n for n in names.split(",") if n])}
    if not encoders:
        raise UsageError("--model names no encoder; give names separated by commas, or all")
    changes: dict[str, dict[str, str]] = {
        name: {field: value for field, value in defaults.items() if has_field(encoder, field)} for name, encoder in encoders.items()
    }
    for text in sets:
        target, equals, value = text.partition("=")
        owner, _, field = target.rpartition(".")
        chosen = [name for name in encoders if name == owner or (not owner and has_field(encoders[name], field))]
        if not equals or not chosen:
            raise UsageError(f"--set takes field=value with a setting of a chosen encoder, got {text!r} for {', '.join(encoders)}")
        for name in chosen:
            changes[name][field] = value
    return {name: load_encoder(name, changes[name]) for name in encoders}


def _load_tasks(suite: str, task: str, limit: int | None) -> "list[Task]":
    from bench.tasks import load_suite, load_task

    tasks = [load_task(name, limit=limit) for name in task.split(",") if name]
    if suite or not tasks:
        tasks += load_suite(suite or "quick", limit=limit)
    return tasks


def _dry_run(encoders: "Mapping[str, Encoder]", tasks: "list[Task]", store: Any, *, seeds: list[int], force: bool, as_json: bool) -> None:  # noqa: ANN401
    from bench.runner import survey

    for name, encoder in encoders.items():
        cells = survey(name, encoder, tasks, store, seeds=seeds, force=force)
        with _vectors(disk=True) as vectors:
            console.print_plan(name, encoder, cells, vectors, as_json=as_json)


def _run(encoders: "Mapping[str, Encoder]", tasks: "list[Task]", store: Any, *, cache: bool, as_json: bool, **options: Any) -> "list[Cell]":  # noqa: ANN401
    from bench.runner import run as run_cells

    cells = []
    with _vectors(disk=cache) as vectors, console.progress() as bars:
        for cell in run_cells(encoders, tasks, store, vectors, progress=bars, **options):
            cells.append(cell)
            if as_json:
                print(json.dumps(cell.row(), ensure_ascii=False), flush=True)
            else:
                console.note_cell(cell.row())
    return cells


@contextmanager
def _vectors(*, disk: bool) -> Iterator[Any]:
    from bench.assets import cache_dir
    from bench.vectors import Vectors

    size = os.environ.get("BENCH_CACHE_GB", "8")
    if not size.replace(".", "", 1).isdecimal():
        raise UsageError(f"BENCH_CACHE_GB takes a number of gigabytes, got {size!r}")
    vectors = Vectors(cache_dir() / "vectors" if disk else None, limit=int(float(size) * 2**30))
    try:
        yield vectors
    finally:
        vectors.close()
