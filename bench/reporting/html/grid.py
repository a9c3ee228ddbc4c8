"""A table as the page shows it: headings and rows name their encoders and family for the filter."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.reporting.comparison import Comparison
from bench.reporting.table import Entry, Table

_ENCODERS = ("encoder", "first", "second")
_ASIDE = frozenset({"backbone", "family", "metric", "repeats"})
_LONG = 24  # letters; a column of longer texts gets more width
_MARKS = {"best": "b", "tie": "t", "warning": "x", "missing": "m"}
_SPOKEN = {"best": "best", "tie": "not significantly different from the best"}


@dataclass(frozen=True)
class Grid:
    """A table ready for the template.

    Attributes:
        heads: The ``text`` and ``kind`` of each column, and the ``encoder`` or ``family`` it is
            about. A kind is "w" for texts, "n" for numbers or "id" for the subject of a row, with
            "long" for long texts and "aside" for columns that a small screen leaves out.
        rows: The ``encoders`` and ``family`` each row is about, and its ``cells``.
    """

    heads: Sequence[Mapping[str, str]]
    rows: Sequence[Mapping[str, Any]]

    @property
    def aside(self) -> list[str]:
        """The headings of the columns that a small screen leaves out."""
        return [head["text"] for head in self.heads if "aside" in head["kind"]]


def grid(table: Table, c: Comparison, methods: Sequence[str] = ()) -> Grid:
    """Return a table with the kind and the subject of every row, column and cell.

    Args:
        table: The table.
        c: The results behind it.
        methods: What the rows are about, by a column "method"; encoders by default.
    """
    numbers = {title: str(i) for i, title in enumerate(methods or c.encoders.title)}
    if not methods:
        numbers |= {label: numbers[c.encoders.at[label, "title"]] for label in c.labels}
    subjects = ("method",) if methods else _ENCODERS
    family_of = {family: family for family in c.tasks.family} | dict(c.tasks.family)
    kinds = _kinds(table)
    heads = [
        {
            "text": text,
            "kind": kind,
            "encoder": numbers.get(text, ""),
            "family": family_of.get(text, ""),
        }
        for text, kind in zip(table.columns, kinds, strict=True)
    ]
    rows = []
    for row in table.rows:
        texts = [entry.text for entry in row]
        place = dict(reversed([*zip(table.columns, texts, strict=True)]))
        about = [numbers.get(place[name], "") for name in subjects if name in place]
        family = place.get("family") or family_of.get(place.get("task", ""), "")
        cells = [_cell(entry, kind) for entry, kind in zip(row, kinds, strict=True)]
        rows.append({"encoders": " ".join(filter(None, about)), "family": family, "cells": cells})
    return Grid(heads, rows)


def _kinds(table: Table) -> list[str]:
    """Return the kind of each column; the subject of a row stays visible when a table scrolls."""
    names = [name for name in ("task", "encoder", "first", "method") if name in table.columns]
    first = table.columns.index(names[0]) if names else 0
    numbers = sum(heading not in table.words for heading in table.columns)
    kinds = []
    for i, heading in enumerate(table.columns):
        kind = "n" if heading not in table.words else "id" if i == first else "w"
        if numbers > 1 and heading in _ASIDE and kind != "id":
            kind += " aside"
        longest = max((len(row[i].text) for row in table.rows), default=0)
        kinds.append(f"{kind} long" if kind.startswith("w") and longest > _LONG else kind)
    return kinds


def _cell(entry: Entry, kind: str) -> Mapping[str, str]:
    low_high = "" if entry.interval is None else "{:.6g} {:.6g}".format(*entry.interval)
    return {
        "text": entry.text,
        "kind": f"{kind} {_MARKS.get(entry.mark, '')}".strip(),
        "value": "" if entry.value is None else f"{entry.value:.10g}",
        "interval": low_high,
        "note": "; ".join(filter(None, (_SPOKEN.get(entry.mark, ""), entry.note))),
        "key": entry.key,
        "link": entry.link,
    }
