"""A table of the report: what each cell shows and the number behind it, for every format."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import pandas as pd

from bench.errors import unknown
from bench.task import decimal

Mark = Literal["", "best", "tie", "missing", "warning"]

MISSING = "—"


@dataclass(frozen=True)
class Entry:
    """One cell of a table.

    Attributes:
        text: What is printed, without the marks of any format.
        value: The number behind it, unscaled; None where there is none.
        interval: Ends of its 95 % interval, unscaled; None where it is not known.
        mark: "best" of its row or column, "tie" (not significantly different from the best),
            "missing", or "warning".
        note: Why it is missing, or what the warning is; one line.
        key: The result's key (``RunSpec.key``) where the entry shows one result.
        link: Address of a page about it.
    """

    text: str
    value: float | None = None
    interval: tuple[float, float] | None = None
    mark: Mark = ""
    note: str = ""
    key: str = ""
    link: str = ""


@dataclass(frozen=True)
class Table:
    """A table of the report.

    Attributes:
        name: Stem of its files, lower case with hyphens, such as "by-task".
        title: Headline, a few words.
        columns: Headings.
        rows: One entry per column each.
        words: Headings of text columns; the others are aligned as numbers.
        about: What is shown and how it was computed: one or two sentences.
        notes: What is special about this table, such as what is left out.
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
        columns: Sequence[tuple[str, Iterable[Entry]]],
        *,
        words: Iterable[str] = (),
        about: str = "",
        notes: Sequence[str] = (),
    ) -> Self:
        """Return a table from its columns: a heading with one entry per row each."""
        headings, entries = zip(*columns, strict=True) if columns else ((), ())
        rows = tuple(zip(*entries, strict=True))
        return cls(name, title, headings, rows, frozenset(words), about, tuple(notes))

    @classmethod
    def of_rows(
        cls,
        name: str,
        title: str,
        rows: Sequence[dict[str, Entry]],
        *,
        words: Iterable[str] = (),
        about: str = "",
    ) -> Self:
        """Return a table from its rows, which have the same keys: the headings."""
        columns = list(pd.DataFrame(rows).items())
        return cls.of_columns(name, title, columns, words=words, about=about)

    def select(self, columns: Collection[str]) -> Self:
        """Return the table with these columns only, in this order.

        Raises:
            UsageError: There is no such column.
        """
        for name in columns:
            if name not in self.columns:
                raise unknown(f"column of {self.name}", name, self.columns)
        return self.take([self.columns.index(name) for name in columns])

    def take(self, places: Sequence[int]) -> Self:
        """Return the table with the columns at these places only, in this order."""
        columns = tuple(self.columns[i] for i in places)
        rows = tuple(tuple(row[i] for i in places) for row in self.rows)
        return replace(self, columns=columns, rows=rows)


def missing(note: str = "") -> Entry:
    """Return the entry of what is not there, and why."""
    return Entry(MISSING, mark="missing", note=note)


def word(text: object, link: str = "") -> Entry:
    """Return an entry of text; None and "" are shown as missing."""
    return missing() if text in {None, ""} else Entry(str(text), link=link)


def score(value: float | None, std: float | None = None, *, digits: int = 1) -> str:
    """Return a score x 100 with its standard deviation over repeats, if any."""
    if value is None or pd.isna(value):
        return MISSING
    plus = "" if std is None or pd.isna(std) else f" ± {decimal(100 * std, f'.{digits}f')}"
    return decimal(100 * value, f"z.{digits}f") + plus


def difference(
    value: float,
    bounds: tuple[float, float] | None = None,
    *,
    significant: bool = False,
    digits: int = 1,
) -> str:
    """Return a difference of scores x 100 with its sign, its interval, and a star."""
    text = decimal(100 * value, f"+z.{digits}f")
    if bounds is not None:
        low, high = (score(end, digits=digits) for end in bounds)
        text += f" [{low}, {high}]"
    return f"{text}*" if significant else text


def measure(value: float | None, *, scale: float = 1, digits: int = 0, unit: str = "") -> Entry:
    """Return a count or a measurement; an unknown one is missing."""
    if value is None or pd.isna(value):
        return missing()
    return Entry(decimal(scale * value, f",.{digits}f") + unit, float(value))


def share(value: float | None) -> Entry:
    """Return a share in per cent; an unknown one is missing."""
    return measure(value, scale=100, digits=1, unit=" %")


def warned(entry: Entry, note: str) -> Entry:
    """Return the entry marked with a warning, if there is a note and a number."""
    return replace(entry, mark="warning", note=note) if note and entry.value is not None else entry
