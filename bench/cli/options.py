"""What several commands share: options, completion of names, and how an error ends a call."""

import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from bench.cli import console
from bench.errors import UsageError
from bench.process import raise_if_stopped, report_error

DTYPES = ("auto", "float32", "bfloat16", "float16")
"""What ``--dtype`` takes."""


def _encoders(incomplete: str) -> list[str]:
    from bench.registry import encoder_names

    return completed(incomplete, ["all", *encoder_names()])


def _suites(incomplete: str) -> list[str]:
    from bench.tasks import SUITES

    return completed(incomplete, SUITES)


def task_completion(incomplete: str) -> list[str]:
    """Return how a list of names of tasks may go on."""
    from bench.tasks import task_names

    return completed(incomplete, task_names())


def completed(incomplete: str, names: Iterable[str]) -> list[str]:
    """Return what a comma-separated list of names may go on as."""
    head, comma, last = incomplete.rpartition(",")
    return [f"{head}{comma}{name}" for name in names if name.startswith(last)]


def names(lists: Sequence[str]) -> tuple[str, ...]:
    """Return the names in comma-separated lists, each once.

    A comma belongs to its name in brackets, as in "MTEB(eng, v2)", and in the path of a file or folder that is there.
    """
    found = (name.strip() for each in lists for name in _split(each))
    return tuple(dict.fromkeys(name for name in found if name))


def _split(text: str) -> list[str]:
    parts, found = re.split(r",(?![^()]*\))", text), []
    while parts:
        longest = (n for n in range(len(parts), 1, -1) if _is_path(",".join(parts[:n])))
        n = next(longest, 1)
        found.append(",".join(parts[:n]))
        parts = parts[n:]
    return found


def _is_path(name: str) -> bool:
    """Return whether a name such as ``ner:FOLDER`` has a comma in its path, and there is such a file or folder."""
    head, _, path = name.strip().partition(":")
    try:
        return "," not in head and "," in path and Path(path).expanduser().exists()
    except (OSError, RuntimeError):  # too long for a path, or no such user
        return False


def computing(device: str, dtype: str, *, exact: bool = False) -> dict[str, str]:
    """Return where and in which number type encoders compute, by the names of their settings.

    Raises:
        UsageError: There is no such device or number type on any machine, or it is not exact.
    """
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", device):
        raise UsageError(f"--device takes auto, cpu, cuda, cuda:NUMBER, mps, got {device!r}")
    if dtype not in DTYPES:
        raise UsageError(f"--dtype takes {', '.join(DTYPES)}, got {dtype!r}")
    if exact and dtype not in {"auto", "float32"}:
        raise UsageError(f"--exact computes in float32, got --dtype {dtype}: leave out one of them")
    return {"device": device, "dtype": "float32" if exact else dtype}


Models = Annotated[
    list[str],
    typer.Option(
        "--model",
        "-m",
        help="Encoders, comma-separated or repeated: a name, `name:PATH_OR_ID`, `package.module:Class`, or `all`.",
        autocompletion=_encoders,
    ),
]
Suites = Annotated[
    list[str],
    typer.Option(
        "--suite",
        "-s",
        help="Suites, comma-separated or repeated; an mteb benchmark by its name too. [default: quick]",
        autocompletion=_suites,
        show_default=False,
    ),
]
Tasks = Annotated[
    list[str],
    typer.Option(
        "--task",
        "-t",
        help="Tasks, comma-separated or repeated: a name, any mteb task's too; `mrpc-bertscore@20` for another layer of token states; "
        "`ner:FOLDER`, `ner-question:FOLDER`, … for your own entities; `package.module:TASK`.",
        autocompletion=task_completion,
        show_default=False,
    ),
]
Sets = Annotated[
    list[str],
    typer.Option(
        "--set", help="Change a setting: `field=value`, or `encoder.field=value`. Repeatable."
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        envvar="BENCH_DATA",
        help="Folder of data sets and archives, looked into first.",
        exists=True,
        file_okay=False,
    ),
]
Results = Annotated[
    Path,
    typer.Option("--results", envvar="BENCH_RESULTS", help="Folder of results.", file_okay=False),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")]
Dtype = Annotated[str, typer.Option("--dtype", help="auto, float32, bfloat16, float16.")]
Exact = Annotated[
    bool,
    typer.Option(
        "--exact",
        help="The same bits every time, whatever the cache holds: float32, one text a batch. Slower.",
    ),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens, to stderr.")]


@contextmanager
def errors() -> Iterator[None]:
    """Turn an error into one line on stderr and an exit code, as ``bench.process.report_error`` does."""
    try:
        yield
    except typer.Exit:
        raise
    except Exception as error:
        raise_if_stopped()
        raise typer.Exit(report_error(error)) from error


def start(data: Path | None, *, verbose: bool, shown: bool = True) -> None:
    """Set up logging and the folder of data that the options name; where nothing is shown, only errors are logged."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[console.Notes()])
    for package in ("bench", "adapters"):
        logging.getLogger(package).setLevel(
            logging.ERROR if not shown else logging.DEBUG if verbose else logging.INFO
        )
    logging.getLogger("mteb").setLevel(
        logging.ERROR
    )  # it advises against older versions of tasks, but those are asked for by name
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if data is not None:
        os.environ["BENCH_DATA"] = str(data)
