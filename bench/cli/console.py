"""What the command line shows: notes and progress bars on stderr, tables on stdout."""

import json
import logging
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from bench.process import raise_if_stopped

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from bench.cache import Progress
    from bench.encoder import Encoder
    from bench.runner import Cell
    from bench.vectors import Vectors

log = logging.getLogger(__name__)

_ENDLESS = 10_000  # characters of a line that is never full
_FOLDED = 12  # characters of an encoder's name on a line of a heading
_WINDOW = 600.0  # seconds that the speed of a bar is taken from: a step may take minutes
_LOGGED = 60.0  # seconds between two lines where no bar is drawn
_MARKS = {
    "passed": "ok  ",
    "failed": "FAIL",
    "skipped": "skip",
    "done": "done",
    "cached": "kept",
    "planned": "todo",
}


def note(text: str) -> None:
    """Print a line to stderr, above the progress bars if there are any."""
    _stderr().print(text, markup=False, highlight=False, soft_wrap=True)


class Notes(logging.Handler):
    """Prints log messages like notes, on whole lines."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message, with its traceback where it has one."""
        note(self.format(record))


def counted(n: int, noun: str) -> str:
    """Return a number of things in words, such as "1 cell" or "1,200 texts"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def note_cell(row: Mapping[str, Any]) -> None:
    """Print how a cell ended, to stderr."""
    scale = _scale(row)
    score = "" if row["score"] is None else f"{scale * row['score']:6.2f}"
    spread = "" if row["spread"] is None else f" ± {scale * row['spread']:.2f}"
    tail = row["reason"] or f"{row['seconds']:.1f} s"
    note(
        f"{_MARKS[row['status']]}  {row['encoder']:<20} {row['task']:<28} {score}{spread:<8} {tail}"
    )


def note_failures(rows: Sequence[Mapping[str, Any]], *, left: int) -> None:
    """Print what failed, and how many cells were therefore not reached, to stderr."""
    note_reasons(f"{counted(len(rows), 'cell')} failed:", rows)
    if left:
        note(f"{counted(left, 'cell')} not run: add --keep-going, or repeat the command")


def note_reasons(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print why cells have no result, to stderr; tasks without one for the same reason share a line."""
    tasks: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        tasks.setdefault((row["encoder"], row["reason"]), []).append(row["task"])
    note(title)
    for (encoder, reason), names in tasks.items():
        note(f"  {encoder} · {', '.join(names)}: {reason}")


@contextmanager
def progress(*, shown: bool = True) -> "Iterator[Progress]":
    """Yield a progress callback that draws a bar with time left on a terminal, and elsewhere logs a line once a minute.

    Args:
        shown: Whether it does: of several processes only the first one shows what all of them do.
    """
    from rich.progress import (
        BarColumn,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    drawn = shown and _stderr().is_terminal
    with Bars(
        *columns,
        console=_stderr(),
        transient=True,
        disable=not drawn,
        speed_estimate_period=_WINDOW,
    ) as bars:
        bar = bars.add_task("starting", total=None)
        last, logged = (0, 0), time.monotonic()

        def show(label: str, done: int, total: int) -> None:
            nonlocal last, logged
            raise_if_stopped()
            if (
                total != last[1] or done < last[0]
            ):  # another stage: labels tell nothing, as they may hold numbers that change
                bars.reset(bar, total=total)
            bars.update(bar, description=label, completed=done, total=total)
            last = done, total
            if shown and not drawn and time.monotonic() - logged >= _LOGGED:
                log.info("%s: %d of %d", label, done, total)
                logged = time.monotonic()

        yield show


def print_grid(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print scores, task by encoder, to stdout; where the screen is narrow, in blocks of encoders, so that every number is whole."""
    from rich.console import Console

    screen = Console()
    if not screen.is_terminal:  # a file or a pipe is as wide as it has to be
        screen = Console(width=_ENDLESS)
    wide = screen.options.update_width(_ENDLESS)
    encoders = list(dict.fromkeys(row["encoder"] for row in rows))
    done = 0
    while done < len(encoders):
        for end in range(len(encoders), done, -1):
            table = _grid(rows, encoders[done:end], first=not done)
            if screen.measure(table, options=wide).maximum <= screen.width:
                break
        screen.print(table)
        done = end


def _grid(rows: Sequence[Mapping[str, Any]], encoders: Sequence[str], *, first: bool) -> "Table":
    """Return the scores of some encoders; the first table also says what is measured. A cell without a score says why in a word."""
    from rich import box
    from rich.table import Table

    tasks = {row["task"]: row for row in sorted(rows, key=lambda row: (row["family"], row["task"]))}
    apart = "".join(
        f", {family} x 1" for family in sorted({row["family"] for row in rows if _scale(row) == 1})
    )
    table = Table(title=f"main scores x 100{apart}" if first else None, box=box.SIMPLE_HEAD)
    table.add_column("task", overflow="fold")
    if first:
        table.add_column("metric", style="dim", overflow="fold")
    cells: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        cells.setdefault((row["encoder"], row["task"]), []).append(row)
    for encoder in encoders:
        untrained = any(row["trained"] is False for row in rows if row["encoder"] == encoder)
        table.add_column(
            "\n".join([*textwrap.wrap(encoder, _FOLDED), *["untrained"] * untrained]),
            justify="right",
            no_wrap=True,
        )
    for task, row in tasks.items():
        table.add_row(
            task,
            *[row["metric"]] * first,
            *(_cell(cells.get((encoder, task), [])) for encoder in encoders),
        )
    return table


def _cell(rows: Sequence[Mapping[str, Any]]) -> str:
    scores = [_scale(row) * row["score"] for row in rows if row["score"] is not None]
    return (
        f"{sum(scores) / len(scores):.1f}"
        if scores
        else "/".join(sorted({row["status"] for row in rows})) or "-"
    )


def _scale(row: Mapping[str, Any]) -> int:
    """Return what a score is multiplied with when it is shown."""
    from bench.task import APART

    return 1 if row["family"] in APART else 100


def print_plan(
    name: str,
    encoder: "Encoder",
    cells: "Sequence[Cell]",
    vectors: "Vectors",
    *,
    exact: bool,
    as_json: bool,
) -> None:
    """Print what a run would do for an encoder: every cell, and the texts it would have to encode."""
    from bench.cache import cached

    for cell in cells:
        row = {**cell.row(), "texts": len(set(cell.items))}
        if as_json:
            print(json.dumps(row, ensure_ascii=False))
        else:
            about = cell.reason or (
                f"{counted(len(set(cell.items)), 'text')} to plan for"
                if cell.items
                else "encodes as it goes"
            )
            about = "" if cell.status == "cached" else about
            print(f"{_MARKS[cell.status]}  {name:<20} {cell.task.name:<28} {about}")
    if not as_json and any(cell.status == "planned" for cell in cells):
        items = {item for cell in cells for item in cell.items}
        missing = len(cached(encoder, vectors, exact=exact).missing(items))
        print(
            f"      {name}: {counted(len(items), 'distinct item')} planned, {missing:,} of them not in the cache yet"
        )


def print_check(encoder: str, check: str, status: str, reason: str) -> None:
    """Print the outcome of one rule of the contract, to stdout."""
    print(f"{_MARKS[status]}  {encoder}  {check:<14} {reason}")


@cache
def _stderr() -> "Console":
    from rich.console import Console

    return Console(stderr=True)  # one for all, so that notes are printed above a live bar
