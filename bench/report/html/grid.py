"""A table as the page shows it: every heading and row knows which encoders and family it is about, so that it can be filtered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from bench.report.cells import Cells, named
from bench.report.table import Entry, Table

_ENCODERS, _TASKS = frozenset({"encoder", "first", "second"}), frozenset({"task"})
_ASIDE = frozenset(
    {"backbone", "family", "metric", "repeats"}
)  # beside scores, the first to go where there is little room
_LONG = 24  # letters; a column of longer words is given room, or its rows would be many lines high
_MARKS: Mapping[str, str] = {"best": "b", "tie": "t", "warning": "x", "missing": "m"}
_WORDS: Mapping[str, str] = {
    "best": "best",
    "tie": "tied with the best",
    "warning": "",
    "missing": "",
}


@dataclass(frozen=True)
class Names:
    """What can be filtered by.

    Attributes:
        encoders: The encoders as tables name them, best first.
        families: The families.
        family_of: The family of each task, by its title.
    """

    encoders: tuple[str, ...]
    families: tuple[str, ...]
    family_of: Mapping[str, str]

    @classmethod
    def of(cls, cells: Cells) -> Self:
        """Collect the names of all results."""
        titles = {cells.title(column): column.family for column in cells.columns}
        return cls(
            tuple(named(cells, label) for label in cells.encoders), tuple(cells.families), titles
        )


@dataclass(frozen=True)
class Grid:
    """A table ready for the template.

    Attributes:
        heads: What each column is: its ``text``, ``kind`` and the ``encoder`` or ``family`` it is about. A kind is "w" for words, "n"
            for numbers or "id" for what a row is about, with "long" for long words and "aside" for what a small screen leaves out.
        rows: What each row is: the ``encoders`` and ``family`` it is about, and its ``cells``.
    """

    heads: Sequence[Mapping[str, str]]
    rows: Sequence[Mapping[str, Any]]

    @property
    def aside(self) -> list[str]:
        """The headings of the columns that a small screen leaves out."""
        return [head["text"] for head in self.heads if "aside" in head["kind"]]


def grid(table: Table, names: Names) -> Grid:
    """Return a table with what the page needs to know of every place."""
    numbers = {name: str(i) for i, name in enumerate(names.encoders)}
    kinds = _kinds(table)
    heads = [
        {
            "text": text,
            "kind": kind,
            "encoder": numbers.get(text, ""),
            "family": names.family_of.get(text, text if text in names.families else ""),
        }
        for text, kind in zip(table.columns, kinds, strict=True)
    ]
    about = [i for i, text in enumerate(table.columns) if text in _ENCODERS]
    place = next((i for i, text in enumerate(table.columns) if text == "family"), None)
    task = next((i for i, text in enumerate(table.columns) if text in _TASKS), None)
    rows = []
    for row in table.rows:
        found = (
            numbers.get(row[i].text) or numbers.get(f"{row[i].text} (untrained)", "") for i in about
        )
        family = (
            row[place].text
            if place is not None
            else names.family_of.get(row[task].text, "")
            if task is not None
            else ""
        )
        cells = [_cell(entry, kind) for entry, kind in zip(row, kinds, strict=True)]
        rows.append({"encoders": " ".join(filter(None, found)), "family": family, "cells": cells})
    return Grid(heads, rows)


def _kinds(table: Table) -> list[str]:
    """Return what each column is; the one a row is about stays in sight when a wide table is moved."""
    first = next(
        (
            i
            for name in ("task", "encoder", "first")
            for i, text in enumerate(table.columns)
            if text == name
        ),
        0,
    )
    kinds = [
        "id" if i == first and text in table.words else "w" if text in table.words else "n"
        for i, text in enumerate(table.columns)
    ]
    if kinds.count("n") > 2:
        kinds = [
            f"{kind} aside" if text in _ASIDE and kind != "id" else kind
            for kind, text in zip(kinds, table.columns, strict=True)
        ]
    wide = [
        max((len(row[i].text) for row in table.rows), default=0) > _LONG for i in range(len(kinds))
    ]
    return [
        f"{kind} long" if kind.startswith("w") and is_wide else kind
        for kind, is_wide in zip(kinds, wide, strict=True)
    ]


def _cell(entry: Entry, kind: str) -> Mapping[str, str]:
    said = [_WORDS.get(entry.mark, ""), entry.note]
    return {
        "text": entry.text,
        "kind": f"{kind} {_MARKS.get(entry.mark, '')}".strip(),
        "value": "" if entry.value is None else f"{entry.value:.10g}",
        "interval": "" if entry.interval is None else "{:.6g} {:.6g}".format(*entry.interval),
        "note": "; ".join(filter(None, said)),
        "key": entry.key,
    }
