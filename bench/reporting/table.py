"""A table of the report: what each place shows and the number behind it. Every format prints the same entries."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import pandas as pd

Mark = Literal["", "best", "tie", "missing", "warning"]

MISSING = "—"


@dataclass(frozen=True)
class Entry:
    """One place in a table.

    Attributes:
        text: What is printed, without marks of any format.
        value: The number behind it on its own scale; None where there is none.
        interval: Lower and upper end of its interval, on the same scale; None where it is not known.
        mark: "best" of its row or column, "tie" (not significantly different from the best), "missing", or "warning".
        note: Why it is missing, or what the warning is; one line.
        key: The result's key (``RunSpec.key``) where the entry shows one result, so that a page can show its origin.
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
        rows: One entry per column each.
        words: Headings of the columns that hold words; the others are aligned as numbers.
        about: What is shown and how it was computed: one or two sentences.
        notes: What a reader must know, such as what is left out.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]
    words: frozenset[str] = frozenset()
    about: str = ""
    notes: tuple[str, ...] = ()

    @classmethod
    def of_columns(
        cls,
        name: str,
        title: str,
        columns: Sequence[tuple[str, Sequence[Entry]]],
        *,
        words: Iterable[str] = (),
        about: str = "",
        notes: Sequence[str] = (),
    ) -> Self:
        """Return a table from its columns, each a heading with one entry per row."""
        rows = zip(*(entries for _, entries in columns), strict=True)
        headings = tuple(heading for heading, _ in columns)
        return cls(name, title, headings, tuple(rows), frozenset(words), about, tuple(notes))


def word(text: object) -> Entry:
    """Return an entry of plain words; None and "" are shown as missing."""
    return Entry(str(text)) if text not in {None, ""} else Entry(MISSING, mark="missing")


def score(value: float | None, std: float | None = None) -> str:
    """Return a score x 100 with its standard deviation over repeats; a single measurement has none."""
    if value is None or pd.isna(value):
        return MISSING
    return f"{100 * value:z.1f}" + ("" if std is None or pd.isna(std) else f" ± {100 * std:.1f}")


def measure(value: float | None, *, scale: float = 1, digits: int = 0, unit: str = "") -> Entry:
    """Return a count or a measurement; what is not known is missing."""
    if value is None or pd.isna(value):
        return Entry(MISSING, mark="missing")
    return Entry(f"{scale * value:,.{digits}f}{unit}", float(value))


def warned(entry: Entry, note: str) -> Entry:
    """Return an entry marked with what is wrong with its number; unchanged where nothing is, or without a number."""
    return replace(entry, mark="warning", note=note) if note and entry.value is not None else entry
