"""What the command line shows: notes and progress bars on stderr, tables on stdout."""

import json
import logging
import os
import textwrap
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any

from bench.process import raise_if_stopped

if TYPE_CHECKING:
    from rich import progress as rich
    from rich.console import Console
    from rich.table import Table

    from bench.forecast import Forecast
    from bench.runner import Cell
    from bench.testing import CheckOutcome

log = logging.getLogger(__name__)

_UNLIMITED = 10_000  # columns; no line is as long
_HEADING = 12  # characters of an encoder's name on one line of a heading
_WINDOW = 600.0  # seconds over which the speed of a bar is estimated: a step may take minutes
_INTERVAL = 60.0  # seconds between two log lines where no bar is drawn
_MARKS = {
    "passed": "ok  ",
    "failed": "FAIL",
    "skipped": "skip",
    "done": "done",
    "cached": "kept",
    "planned": "todo",
    "running": "busy",
}

Row = Mapping[str, Any]
"""A cell as ``Cell.row`` returns it."""


def note(text: str) -> None:
    """Print a line to stderr, above the progress bars if there are any."""
    _stderr().print(text, markup=False, highlight=False, soft_wrap=True)


class Notes(logging.Handler):
    """Prints log messages like notes, one line each.

    A message that was printed before is not repeated: what is said of a data set is the same for
    every encoder.
    """

    def __init__(self) -> None:
        super().__init__()
        self._printed: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message, and its traceback if it has one."""
        message = self.format(record)
        if message not in self._printed:
            self._printed.add(message)
            note(message)


def print_json(row: Row) -> None:
    """Print an object on one line of stdout, at once."""
    print(json.dumps(row, ensure_ascii=False), flush=True)


def count(n: int, noun: str) -> str:
    """Return a number with its noun, such as "1 cell" or "1,200 texts"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def show_cell(row: Row, *, as_json: bool) -> None:
    """Print a finished cell: as JSON to stdout, or as a note to stderr."""
    if as_json:
        print_json(row)
        return
    from bench.task import decimal

    scale = _scale(row)
    score = "" if row["score"] is None else decimal(scale * row["score"], "6.2f")
    spread = "" if row["spread"] is None else " ± " + decimal(scale * row["spread"], ".2f")
    tail = row["reason"] or f"{row['seconds']:.1f} s"
    mark = _MARKS[row["status"]]
    note(f"{mark}  {row['encoder']:<20} {row['task']:<28} {score}{spread:<8} {tail}")


def note_failures(rows: Sequence[Row], *, left: int) -> None:
    """Print to stderr which cells failed, and how many were not run because of that."""
    note_reasons(f"{count(len(rows), 'cell')} failed:", rows)
    if left:
        note(f"{count(left, 'cell')} not run: add --keep-going, or repeat the command")


def note_others(rows: Sequence[Row]) -> None:
    """Print to stderr how many cells other processes have run, and which they still run."""
    run = [row for row in rows if row["status"] == "cached" and row["reason"]]
    running = [row for row in rows if row["status"] == "running"]
    if run:
        note(f"{count(len(run), 'cell')} run by other processes meanwhile")
    if running:
        note_reasons(f"{count(len(running), 'cell')} left to other processes:", running)


def note_reasons(title: str, rows: Sequence[Row]) -> None:
    """Print to stderr why cells have no result; tasks with the same reason share a line."""
    tasks: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        tasks.setdefault((row["encoder"], row["reason"]), []).append(row["task"])
    note(title)
    for (encoder, reason), names in tasks.items():
        note(f"  {encoder} · {', '.join(names)}: {reason}")


def is_first_process() -> bool:
    """Say whether this is the only process, or the first of those that a launcher started."""
    return os.environ.get("RANK", "0") == "0"


class Bar:
    """A progress callback: a bar on a terminal, elsewhere one log line a minute."""

    def __init__(self, bars: "rich.Progress", name: str = "") -> None:
        """Add a bar; its labels begin with a name."""
        self._bars, self._before = bars, f"{name}: " if name else ""
        self._bar = bars.add_task(f"{self._before}starting", total=None)
        self._last, self._logged = (0, 0), time.monotonic()

    def __call__(self, label: str, done: int, total: int) -> None:
        """Show how far something is."""
        raise_if_stopped()
        text = f"{self._before}{label}"
        # Labels may contain numbers that change, so a new stage is recognised by its counts.
        if total != self._last[1] or done < self._last[0]:
            self._bars.reset(self._bar, total=total)
        self._bars.update(self._bar, description=text, completed=done, total=total)
        self._last = done, total
        if self._bars.disable and time.monotonic() - self._logged >= _INTERVAL:
            log.info("%s: %d of %d", text, done, total)
            self._logged = time.monotonic()

    def close(self) -> None:
        """Remove the bar."""
        self._bars.remove_task(self._bar)


@contextmanager
def progress() -> "Iterator[Bar]":
    """Yield a progress callback.

    Of several processes only the first shows its progress.
    """
    with open_bars() as bars:
        yield Bar(bars)


@contextmanager
def open_bars() -> "Iterator[rich.Progress]":
    """Yield what several bars are added to, see ``Bar``."""
    from rich import progress as rich

    columns = (
        rich.TextColumn("{task.description}", markup=False),
        rich.BarColumn(),
        rich.TaskProgressColumn(),
        rich.TimeElapsedColumn(),
        rich.TextColumn("left"),
        rich.TimeRemainingColumn(),
    )
    drawn = is_first_process() and _stderr().is_terminal
    with rich.Progress(
        *columns,
        console=_stderr(),
        transient=True,
        disable=not drawn,
        speed_estimate_period=_WINDOW,
    ) as bars:
        yield bars


def print_grid(rows: Sequence[Row]) -> None:
    """Print scores, tasks by encoders, to stdout; on a narrow screen in blocks of encoders."""
    screen = open_screen(_UNLIMITED)
    unlimited = screen.options.update_width(_UNLIMITED)
    encoders = list(dict.fromkeys(row["encoder"] for row in rows))
    done = 0
    while done < len(encoders):
        for end in range(len(encoders), done, -1):
            table = _make_grid(rows, encoders[done:end], first=not done)
            if screen.measure(table, options=unlimited).maximum <= screen.width:
                break
        screen.print(table)
        done = end


def open_screen(width: int) -> "Console":
    """Return stdout as a console; a file or pipe has the given width."""
    from rich.console import Console

    screen = Console(markup=False, emoji=False)  # names are no markup
    if not screen.is_terminal:
        screen.width = width
    return screen


def _make_grid(rows: Sequence[Row], encoders: Sequence[str], *, first: bool) -> "Table":
    """Return the scores of some encoders; the first table also names the metrics."""
    from rich import box
    from rich.table import Table

    titles = _name_tasks(rows)
    unscaled = sorted({row["family"] for row in rows if _scale(row) == 1})
    title = ", ".join(["main scores x 100", *(f"{family} x 1" for family in unscaled)])
    table = Table(title=title if first else None, box=box.SIMPLE_HEAD)
    table.add_column("task", overflow="fold")
    if first:
        table.add_column("metric", style="dim", overflow="fold")
    untrained = {row["encoder"] for row in rows if row["trained"] is False}
    for encoder in encoders:
        lines = textwrap.wrap(encoder, _HEADING) + ["untrained"] * (encoder in untrained)
        table.add_column("\n".join(lines), justify="right", no_wrap=True)
    cells: dict[tuple[str, str], list[Row]] = {}
    metrics: dict[str, str] = {}
    for row in sorted(rows, key=_family_and_task):
        task = titles[row["task"], row["limit"], row["readout"]]
        cells.setdefault((row["encoder"], task), []).append(row)
        metrics[task] = row["metric"]
    for task, metric in metrics.items():
        scores = [_format_cell(cells.get((encoder, task), [])) for encoder in encoders]
        table.add_row(task, *[metric] * first, *scores)
    return table


def _name_tasks(rows: Sequence[Row]) -> dict[tuple[str, int | None, str], str]:
    """Return a title by task, limit and read-out, with the read-out where a task has several."""
    from bench.task import limited

    found = {(row["task"], row["limit"], row["readout"]) for row in rows}
    names = Counter((task, limit) for task, limit, _ in found)
    return {
        (task, limit, readout): limited(task, limit)
        + (f", {readout}" if names[task, limit] > 1 else "")
        for task, limit, readout in found
    }


def _family_and_task(row: Row) -> tuple[str, str]:
    return row["family"], row["task"]


def _format_cell(rows: Sequence[Row]) -> str:
    """Return the mean score over seeds; without one, the status."""
    from bench.task import decimal

    scores = [_scale(row) * row["score"] for row in rows if row["score"] is not None]
    if scores:
        return decimal(sum(scores) / len(scores), ".1f")
    return "/".join(sorted({row["status"] for row in rows})) or "-"


def _scale(row: Row) -> int:
    """Return the factor by which a score is multiplied when it is shown."""
    from bench.task import APART

    return 1 if row["family"] in APART else 100


def print_plan(
    name: str,
    cells: "Sequence[Cell]",
    forecasts: "Sequence[Forecast | None]",
    *,
    as_json: bool,
) -> None:
    """Print what a run would do for an encoder: every cell, with the texts and tokens to encode."""
    for cell, expected in zip(cells, forecasts, strict=True):
        if as_json:
            print_json({**cell.row(), **_as_fields(expected)})
            continue
        about = "" if cell.status == "cached" else cell.reason or _describe(expected)
        print(f"{_MARKS[cell.status]}  {name:<20} {cell.task.name:<28} {about}")
    known = [expected for expected in forecasts if expected is not None]
    if as_json or all(cell.status != "planned" for cell in cells):
        return
    texts = len(set(chain(*(cell.items for cell in cells))))
    new = sum(expected.new for expected in known)
    tokens = _sum([expected.tokens for expected in known])
    seconds = _sum([expected.seconds for expected in known])
    parts = [f"{count(texts, 'distinct text')} planned, {new:,} not cached"]
    parts += [f"{tokens:,} tokens"] if tokens else []
    parts += [f"about {duration(seconds)}, as fast as the largest run here"] if seconds else []
    print(f"      {name}: {'; '.join(parts)}")


def _as_fields(expected: "Forecast | None") -> dict[str, Any]:
    if expected is None:
        return {"texts": 0, "not_cached": None, "tokens": None, "expected_seconds": None}
    seconds = None if expected.seconds is None else round(expected.seconds, 1)
    return {
        "texts": expected.texts,
        "not_cached": expected.new,
        "tokens": expected.tokens,
        "expected_seconds": seconds,
    }


def _describe(expected: "Forecast | None") -> str:
    if expected is None:
        return "encodes during the task"
    tokens = f", {expected.tokens:,} tokens" if expected.tokens else ""
    return f"{count(expected.texts, 'text')} planned, {expected.new:,} to encode{tokens}"


def _sum(values: "Sequence[float | None]") -> float | None:
    """Return the sum; None where a part is not known."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def duration(seconds: float) -> str:
    """Return a time in words, such as "40 s", "12 min" or "3.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 1 else "1 s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def print_check(kind: str, name: str, outcome: "CheckOutcome", *, as_json: bool) -> None:
    """Print the outcome of one rule of the contract to stdout."""
    if as_json:
        fields = {"check": outcome.name, "status": outcome.status, "reason": outcome.reason}
        print_json({kind: name, **fields})
    else:
        print(f"{_MARKS[outcome.status]}  {name}  {outcome.name:<14} {outcome.reason}")


@cache
def _stderr() -> "Console":
    """Return the one console of stderr, so that notes are printed above a live bar."""
    from rich.console import Console

    return Console(stderr=True, emoji=False)
