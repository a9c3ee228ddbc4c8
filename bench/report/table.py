"""A table as the report knows it: what is shown in each place and what stands behind it. Every format is printed from this."""

from dataclasses import dataclass, replace
from typing import Literal

Mark = Literal["", "best", "tie", "missing", "warning"]

MISSING = "—"


@dataclass(frozen=True)
class Entry:
    """One place in a table.

    Attributes:
        text: What is printed, without marks of any format.
        value: The number behind it as it was measured, on its own scale; None where there is none.
        interval: Lower and upper end of its interval, on the same scale; None where there is none.
        mark: "best" of its row or column, "tie" with the best within the interval, "missing", or "warning".
        note: Why it is missing, or what the warning is; one line.
        key: The run's key (``RunSpec.key``) where the entry shows one result, so that a page can show where it comes from.
    """

    text: str
    value: float | None = None
    interval: tuple[float, float] | None = None
    mark: Mark = ""
    note: str = ""
    key: str = ""


@dataclass(frozen=True)
class Table:
    """A table of the report.

    Attributes:
        name: Stem of its files, lower case with hyphens, such as "by-task".
        title: Headline, a few words.
        columns: Headings.
        rows: One entry a column each.
        words: Headings of the columns that hold words; the others are aligned as numbers.
        about: What is shown and how it was computed, one or two sentences.
        notes: What a reader must know, such as what is left out.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]
    words: frozenset[str] = frozenset()
    about: str = ""
    notes: tuple[str, ...] = ()


def word(text: object) -> Entry:
    """Return an entry of plain words; nothing is shown as missing."""
    return Entry(str(text)) if text not in {None, ""} else Entry(MISSING, mark="missing")


def score(value: float | None, spread: float | None = None, digits: int = 1) -> str:
    """Return a score x 100 with its spread, or a dash; a single measurement has no spread."""
    if value is None:
        return MISSING
    return f"{100 * value:z.{digits}f}" + (
        "" if spread is None else f" ± {100 * spread:.{digits}f}"
    )


def measure(value: float | None, *, scale: float = 1, digits: int = 0, unit: str = "") -> Entry:
    """Return a count or measure; what is not known, or was not there to be measured, is missing."""
    return (
        Entry(MISSING, mark="missing")
        if value is None
        else Entry(f"{scale * value:,.{digits}f}{unit}", float(value))
    )


def warned(entry: Entry, note: str) -> Entry:
    """Return an entry marked with what is wrong with its number; as it is where nothing is, or where it has none."""
    return replace(entry, mark="warning", note=note) if note and entry.value is not None else entry
