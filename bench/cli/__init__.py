"""The command line. Results go to stdout, everything else to stderr; heavy imports are made where a command needs them."""

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli import console
from bench.cli.data import app as data_app
from bench.errors import BenchError, UsageError

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


def _encoders(incomplete: str) -> list[str]:
    from bench.registry import encoder_names

    return _completed(incomplete, ["all", *encoder_names()])


def _suites(incomplete: str) -> list[str]:
    from bench.tasks import SUITES

    return _completed(incomplete, SUITES)


def _tasks(incomplete: str) -> list[str]:
    from bench.tasks import task_names

    return _completed(incomplete, task_names())


def _completed(incomplete: str, names: Any) -> list[str]:  # noqa: ANN401 - any iterable of names
    head, comma, last = incomplete.rpartition(",")
    return [f"{head}{comma}{name}" for name in names if name.startswith(last)]


Models = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="Encoders, comma-separated: a name, `name:PATH_OR_ID`, `package.module:Class`, or `all`.",
        autocompletion=_encoders,
    ),
]
Sets = Annotated[list[str], typer.Option("--set", help="Change a setting: `field=value`, or `encoder.field=value`. Repeatable.")]
Data = Annotated[
    Path | None,
    typer.Option("--data", envvar="BENCH_DATA", help="Folder of data sets and archives, looked into first.", exists=True, file_okay=False),
]
Results = Annotated[Path, typer.Option("--results", envvar="BENCH_RESULTS", help="Folder of results.", file_okay=False)]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")]
Dtype = Annotated[str, typer.Option("--dtype", help="auto, float32, bfloat16, float16.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens, to stderr.")]


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
    suite: Annotated[
        str, typer.Option("--suite", "-s", help="Suite, or an mteb benchmark by its name. [default: quick]", autocompletion=_suites)
    ] = "",
    task: Annotated[str, typer.Option("--task", "-t", help="Tasks, comma-separated; any mteb task works.", autocompletion=_tasks)] = "",
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
    with _errors():
        _start(data, verbose)
        seeds = [_integer(s) for s in seed.split(",")]
        encoders = _load_encoders(model, {"device": device, "dtype": dtype}, set_)
        tasks = _load_tasks(suite, task, limit)
        from bench.store import Store

        store = Store(results)
        if dry_run:
            _dry_run(encoders, tasks, store, seeds=seeds, force=force, as_json=as_json)
            return
        cells = _run(encoders, tasks, store, seeds=seeds, keep_going=keep_going, force=force, cache=cache, as_json=as_json)
        failed = [cell for cell in cells if cell.status == "failed"]
        if not as_json:
            console.print_grid([cell.row() for cell in cells])
        if failed:
            console.note(f"{len(failed)} cells failed:")
            for cell in failed:
                console.note(f"  {cell.encoder} · {cell.task.name}: {cell.reason}")
            raise typer.Exit(1)


@app.command(epilog="Examples: `bench report` · `bench report --results DIR --out DIR` · `bench report --format csv > table.csv`")
def report(
    results: Results = Path("results"),
    out: Annotated[Path, typer.Option("--out", help="Folder for tables and figures.", file_okay=False)] = Path("reports"),
    form: Annotated[str, typer.Option("--format", help="Print the main table instead: md, csv or json.")] = "",
    verbose: Verbose = False,
) -> None:
    """Write tables and figures from the results; nothing is computed again."""
    with _errors():
        _start(None, verbose)
        from bench import report as reports
        from bench.store import Store

        if form:
            print(reports.table(Store(results), form))
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
    with _errors():
        _start(None, verbose)
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
    with _errors():
        from bench.cli.scaffold import write_adapter

        for line in write_adapter(name, Path()):
            print(line)


@contextmanager
def _errors() -> Iterator[None]:
    """Turn our errors into one line on stderr and an exit code: 2 when the call is off, 1 otherwise."""
    try:
        yield
    except UsageError as error:
        console.note(f"error: {error}")
        raise typer.Exit(2) from error
    except BenchError as error:
        console.note(f"error: {error}")
        raise typer.Exit(1) from error
    except KeyboardInterrupt as stop:
        console.note("stopped; finished cells are kept, and the same command goes on from here")
        raise typer.Exit(130) from stop
    except BrokenPipeError as error:  # the reader, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from error


def _start(data: Path | None, verbose: bool) -> None:
    if str(Path.cwd()) not in sys.path:  # so that package.module:Class is found in the folder one works in
        sys.path.append(str(Path.cwd()))
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    for package in ("bench", "adapters"):
        logging.getLogger(package).setLevel(logging.DEBUG if verbose else logging.WARNING)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if data is not None:
        os.environ["BENCH_DATA"] = str(data)


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
    from bench.cache import Vectors

    vectors = Vectors(cache_dir() / "vectors" if disk else None, limit=int(float(os.environ.get("BENCH_CACHE_GB", "8")) * 2**30))
    try:
        yield vectors
    finally:
        vectors.close()
