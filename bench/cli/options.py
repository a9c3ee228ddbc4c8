"""The options that several commands share, and what makes a function a command."""

import inspect
import logging
import os
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from functools import wraps
from io import StringIO
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.cli import console
from bench.process import raise_if_stopped, report_error


def command(
    app: typer.Typer, *examples: str, name: str | None = None, reads_data: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function a command, with examples in its help, ``--verbose`` and maybe ``--data``.

    An error ends the command with one line on stderr and an exit code. Of several processes only
    the first prints to stdout.

    Args:
        app: What the command belongs to.
        examples: Complete calls.
        name: Of the command; the function's by default.
        reads_data: Whether the command has ``--data``.
    """
    added = [_DATA, _VERBOSE] if reads_data else [_VERBOSE]

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @wraps(function)
        def call(
            *,
            verbose: bool,
            data: Path | None = None,
            **options: Any,  # noqa: ANN401 - any option
        ) -> None:
            _configure_logging(verbose=verbose)
            first = console.is_first_process()
            silence = nullcontext() if first else redirect_stdout(StringIO())
            try:
                with silence, _use_folder(data):
                    function(**options)
            except typer.Exit:
                raise
            except Exception as error:
                raise_if_stopped()
                raise typer.Exit(report_error(error)) from error

        signature = inspect.signature(function)
        parameters = [*signature.parameters.values(), *added]
        call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        shown = "\n\n".join(f"`{example}`" for example in examples)
        app.command(name, epilog=f"Examples:\n\n{shown}")(call)
        return call

    return register


def _use_folder(data: Path | None) -> AbstractContextManager[None]:
    """Return a context in which ``--data`` is searched first; without it nothing is imported."""
    if data is None:
        return nullcontext()
    from bench.data import use_folder

    return use_folder(data)


def _configure_logging(*, verbose: bool) -> None:
    """Log to stderr; of several processes, all but the first log errors only."""
    level = logging.DEBUG if verbose else logging.INFO
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[console.Notes()])
    for package in ("bench", "adapters"):
        logging.getLogger(package).setLevel(level if console.is_first_process() else logging.ERROR)
    # mteb advises against older versions of tasks, but those are chosen by name.
    logging.getLogger("mteb").setLevel(logging.ERROR)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")


def split_names(lists: Sequence[str]) -> tuple[str, ...]:
    """Return the names in comma-separated lists, each once.

    A comma in parentheses is part of its name, as in "MTEB(eng, v2)"; so is one in the path of an
    existing file or folder, and one between columns, as in "sts:pairs.csv:first=a,second=b".
    """
    names: dict[str, None] = {}
    for text in lists:
        parts = _join_columns(re.split(r",(?![^()]*\))", text))
        while parts:
            lengths = range(len(parts), 1, -1)
            n = next((n for n in lengths if _is_path(",".join(parts[:n]))), 1)
            names[",".join(parts[:n]).strip()] = None
            parts = parts[n:]
    return tuple(name for name in names if name)


def _join_columns(parts: list[str]) -> list[str]:
    """Return the parts of a list, those that name another column joined to the part before."""
    joined: list[str] = []
    for part in parts:
        follows = joined and re.search(r":\w+=[^:]*$", joined[-1])
        if follows and re.fullmatch(r"\s*\w+=[^:]*", part):
            joined[-1] += f",{part}"
        else:
            joined.append(part)
    return joined


def _is_path(name: str) -> bool:
    """Say whether a name such as ``ner:FOLDER`` has a comma in its path, and the path exists."""
    head, _, path = name.strip().partition(":")
    try:
        return "," not in head and "," in path and Path(path).expanduser().exists()
    except (OSError, RuntimeError):  # too long for a path, or no such user
        return False


def complete(list_names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Return a function that completes the last name of a comma-separated list."""

    def completion(incomplete: str) -> list[str]:
        head, comma, last = incomplete.rpartition(",")
        return [f"{head}{comma}{name}" for name in list_names() if name.startswith(last)]

    return completion


def encoder_names() -> list[str]:
    """Return what ``--model`` completes."""
    from bench.registry import encoder_names as registered

    return ["all", *registered()]


def recipe_names() -> tuple[str, ...]:
    """Return what ``bench train`` completes."""
    from bench.registry import recipe_names as registered

    return registered()


def suite_names() -> list[str]:
    """Return what ``--suite`` completes."""
    from bench.tasks import SUITES

    return list(SUITES)


def task_names() -> list[str]:
    """Return what ``--task`` completes."""
    from bench.tasks import task_names as registered

    return list(registered())


def model_option(text: str) -> Any:  # noqa: ANN401 - what typer reads
    """Return the option ``--model`` with this help."""
    completion = complete(encoder_names)
    return typer.Option("--model", "-m", help=text, autocompletion=completion, show_default=False)


def suite_option(text: str) -> Any:  # noqa: ANN401
    """Return the option ``--suite`` with this help."""
    completion = complete(suite_names)
    return typer.Option("--suite", "-s", help=text, autocompletion=completion, show_default=False)


def task_option(text: str) -> Any:  # noqa: ANN401
    """Return the option ``--task`` with this help."""
    completion = complete(task_names)
    return typer.Option("--task", "-t", help=text, autocompletion=completion, show_default=False)


Models = Annotated[
    list[str],
    model_option(
        "Encoders, comma-separated or repeated: a name, `name:PATH_OR_ID`, "
        "`package.module:Class`, `trained:FOLDER` for every checkpoint in it, or `all`; `LABEL=` "
        "before one renames it in every table. [default: all]"
    ),
]
Suites = Annotated[
    list[str],
    suite_option("Suites or mteb benchmarks, comma-separated or repeated. [default: quick]"),
]
Tasks = Annotated[
    list[str],
    task_option(
        "Tasks, comma-separated or repeated: a name, also of mteb; `mrpc-bertscore@20` for "
        "another layer of token states; `classification:FILE`, `sts:FILE`, `ner:FOLDER` and "
        "other kinds for your own data (`bench list`); `package.module:TASK`."
    ),
]
Exclude = Annotated[
    list[str],
    typer.Option(
        help="Tasks of the suites to leave out, comma-separated or repeated.",
        autocompletion=complete(task_names),
        show_default=False,
    ),
]
Sets = Annotated[
    list[str],
    typer.Option(
        "--set", help="Change a setting: `field=value` or `encoder.field=value`. Repeatable."
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        envvar="BENCH_DATA",
        help="Folder of data sets and archives, searched first.",
        exists=True,
        file_okay=False,
    ),
]
Results = Annotated[
    Path,
    typer.Option("--results", envvar="BENCH_RESULTS", help="Folder of results.", file_okay=False),
]
ResultFolders = Annotated[
    list[Path],
    typer.Option(
        "--results",
        envvar="BENCH_RESULTS",
        help="Folder of results, or an archive (`bench export archive`); repeat it to join "
        "several.",
    ),
]
Instruction = Annotated[
    str,
    typer.Option(
        help="What the embeddings are for; replaces the instruction of the tasks named by --task.",
        show_default=False,
    ),
]
Wordings = Annotated[
    int | None,
    typer.Option(
        help="Score tasks that have an instruction under this many wordings of it, 2 to 10.",
        min=2,
        max=10,
        show_default=False,
    ),
]
Limit = Annotated[int | None, typer.Option(help="At most this many test examples per task.", min=1)]
Seed = Annotated[int, typer.Option(help="Random seed.", min=0)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16, float16.")]
Exact = Annotated[
    bool,
    typer.Option(
        "--exact", help="Identical bits in every run: float32, one text per batch. Slower."
    ),
]
Workers = Annotated[
    str | None,
    typer.Option(
        metavar="N|auto",
        help="Processes that compute on Ray, each with a GPU or a share of the cores; `auto`: one "
        "for each GPU. 1 without --ray: this process, without Ray. [default: 1; with --ray: auto]",
        show_default=False,
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="Compute on the nodes of a Ray cluster; `auto`: the one on this machine.",
        show_default=False,
    ),
]
Cache = Annotated[
    bool, typer.Option("--cache/--no-cache", help="Keep embeddings on disk for later runs.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object per line on stdout.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log details to stderr.")]

_KEYWORD = inspect.Parameter.KEYWORD_ONLY
_DATA = inspect.Parameter("data", _KEYWORD, default=None, annotation=Data)
_VERBOSE = inspect.Parameter("verbose", _KEYWORD, default=False, annotation=Verbose)
