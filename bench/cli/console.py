"""What the command line shows: notes and progress bars on stderr, tables on stdout."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from logging import Handler

    from rich.console import Console

    from bench.cache import Progress
    from bench.encoder import Encoder
    from bench.runner import Cell
    from bench.vectors import Vectors

_MARKS = {"passed": "ok  ", "failed": "FAIL", "skipped": "skip", "done": "done", "cached": "kept", "planned": "todo"}


def note(text: str) -> None:
    """Print a line to stderr, above the progress bars if there are any."""
    _stderr().print(text, markup=False, highlight=False, soft_wrap=True)


def log_handler() -> "Handler":
    """Return a handler that prints log messages like notes."""
    from rich.highlighter import NullHighlighter
    from rich.logging import RichHandler

    return RichHandler(console=_stderr(), show_time=False, show_level=False, show_path=False, markup=False, highlighter=NullHighlighter())


def note_cell(row: Mapping[str, Any]) -> None:
    """Print how a cell ended, to stderr."""
    score = "" if row["score"] is None else f"{100 * row['score']:6.2f}"
    spread = "" if row["spread"] is None else f" ± {100 * row['spread']:.2f}"
    tail = row["reason"] or f"{row['seconds']:.1f} s"
    note(f"{_MARKS[row['status']]}  {row['encoder']:<20} {row['task']:<28} {score}{spread:<8} {tail}")


def note_failures(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print what failed, to stderr; the tasks that failed for one reason share a line."""
    tasks: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        tasks.setdefault((row["encoder"], row["reason"]), []).append(row["task"])
    note(f"{len(rows)} cell{'s' * (len(rows) > 1)} failed:")
    for (encoder, reason), names in tasks.items():
        note(f"  {encoder} · {', '.join(names)}: {reason}")


@contextmanager
def progress() -> "Iterator[Progress]":
    """Yield a progress callback that draws a bar with time left on a terminal and stays silent elsewhere."""
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=_stderr(), transient=True, disable=not _stderr().is_terminal) as bars:
        bar = bars.add_task("starting", total=None)
        shown = ""

        def show(label: str, done: int, total: int) -> None:
            nonlocal shown
            if label != shown:
                bars.reset(bar, description=label, total=total)
                shown = label
            bars.update(bar, completed=done, total=total)

        yield show


def print_grid(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print scores, task by encoder, to stdout; a cell without one says why in a word."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    tasks = {row["task"]: row["metric"] for row in sorted(rows, key=lambda row: (row["family"], row["task"]))}
    encoders = {row["encoder"]: row["trained"] for row in sorted(rows, key=lambda row: row["trained"] is not None)}
    cells: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        cells.setdefault((row["encoder"], row["task"]), []).append(row)
    table = Table(title="main scores x 100", box=box.SIMPLE_HEAD)
    table.add_column("task", no_wrap=True)
    table.add_column("metric", style="dim", no_wrap=True)
    for encoder, trained in encoders.items():
        table.add_column(encoder + ("\nuntrained" if trained is False else ""), justify="right")
    for task, metric in tasks.items():
        table.add_row(task, metric, *(_cell(cells.get((encoder, task), [])) for encoder in encoders))
    screen = Console()
    if not screen.is_terminal:  # a file or a pipe is as wide as it has to be
        screen = Console(width=60 + 24 * len(encoders))
    screen.print(table)


def _cell(rows: Sequence[Mapping[str, Any]]) -> str:
    scores = [row["score"] for row in rows if row["score"] is not None]
    return f"{100 * sum(scores) / len(scores):.1f}" if scores else "/".join(sorted({row["status"] for row in rows})) or "-"


def print_plan(name: str, encoder: "Encoder", cells: "Sequence[Cell]", vectors: "Vectors", *, as_json: bool) -> None:
    """Print what a run would do for an encoder: every cell, and the texts it would have to encode."""
    from bench.cache import cached

    for cell in cells:
        row = {**cell.row(), "texts": len(set(cell.items))}
        if as_json:
            print(json.dumps(row, ensure_ascii=False))
        else:
            about = cell.reason or (f"{len(set(cell.items))} texts to plan for" if cell.items else "encodes as it goes")
            about = "" if cell.status == "cached" else about
            print(f"{_MARKS[cell.status]}  {name:<20} {cell.task.name:<28} {about}")
    if not as_json and any(cell.status == "planned" for cell in cells):
        items = {item for cell in cells for item in cell.items}
        missing = len(cached(encoder, vectors).missing(items))
        print(f"      {name}: {len(items)} distinct items planned, {missing} of them not in the cache yet")


def print_check(encoder: str, check: str, status: str, reason: str) -> None:
    """Print the outcome of one rule of the contract, to stdout."""
    print(f"{_MARKS[status]}  {encoder}  {check:<14} {reason}")


@cache
def _stderr() -> "Console":
    from rich.console import Console

    return Console(stderr=True)  # one for all, so that notes are printed above a live bar
