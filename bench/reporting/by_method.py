"""The table of methods over their trainings: a row each, however often it was trained."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from bench import stats
from bench.reporting.comparison import MEAN, Comparison
from bench.reporting.table import Entry, Table, difference, measure, missing, score, word
from bench.reporting.trainings import (
    Method,
    by_method,
    by_place,
    differences,
    methods,
    place_of,
    ranks,
)

_ABOUT = (
    "Main scores x 100, mean over the trainings of a method that differ only in their seed; ± is "
    "the standard deviation over trainings. Intervals (95 %) cover trainings, repeats and test "
    f"examples; those of the {MEAN} also cover other families. "
)
_GAIN = (
    "*: significant (p < 0.05, Holm-corrected over the methods). P(better): probability that a "
    "fresh training scores above {}. Detectable: the smallest true difference that these trainings "
    "find with 80 % power. "
)
_RANK = "Ranks are at one budget, with an interval that holds for all of them at once."

Row = Any  # of a frame, as pandas' itertuples gives it


def table(c: Comparison) -> Table:
    """Return a row per method; no rows where none has several trainings."""
    every = methods(c)
    several = any(len(method.seeds) > 1 for method in every)
    columns = _columns(c, every) if several and c.common else []
    about = _ABOUT + (_GAIN.format(c.baseline) if c.baseline else "") + _RANK
    notes = [f"{method.label}: {method.note}" for method in every if method.note]
    return Table.of_columns(
        "by-method",
        "Methods over their trainings",
        columns,
        words={"method", "backbone"},
        about=about,
        notes=tuple(dict.fromkeys(notes)),
    )


def _columns(c: Comparison, every: Sequence[Method]) -> list[tuple[str, list[Entry]]]:
    columns = [
        ("method", [word(method.label) for method in every]),
        ("backbone", [word(method.backbone) for method in every]),
        ("budget", [measure(method.budget) for method in every]),
        ("trainings", [measure(len(method.seeds) or None) for method in every]),
    ]
    means = by_method(c)
    for task, rows in means[means.over != "task"].groupby("task", sort=False):
        columns.append((str(task), [_mean(c, row) for row in _rows(rows, every)]))
    if c.baseline is not None:
        gains = differences(c, c.baseline)
        own = _rows(gains[gains.task == columns[-1][0]], every)  # of the mean, or the only family
        columns.append((f"minus {c.baseline}", [_gain(c, row) for row in own]))
        columns.append(("P(better)", [measure(row.superiority, digits=2) for row in own]))
        columns.append(
            ("detectable", [measure(row.detectable, scale=100, digits=1) for row in own])
        )
    if len(c.by_family) > 1:
        columns.append(("rank", [_rank(row) for row in _rows(ranks(c), every)]))
    return columns


def _rows(found: pd.DataFrame, every: Sequence[Method]) -> list[Row]:
    """Return the row of each method; NaN where there is none."""
    places = list(map(place_of, every))
    return list(by_place(found).astype(object).reindex(places).itertuples())


def _interval(row: Row) -> tuple[float, float] | None:
    return None if pd.isna(row.low) else (row.low, row.high)


def _mean(c: Comparison, row: Row) -> Entry:
    if pd.isna(row.mean):
        return missing("lacks a task")
    return Entry(score(row.mean, row.std, digits=c.digits), row.mean, _interval(row), note=row.note)


def _gain(c: Comparison, row: Row) -> Entry:
    if pd.isna(row.difference):
        return missing()
    bounds = _interval(row)
    text = difference(row.difference, bounds, significant=row.p < 1 - stats.LEVEL, digits=c.digits)
    return Entry(text, row.difference, bounds, note=row.note)


def _rank(row: Row) -> Entry:
    if pd.isna(row.rank):
        return missing()
    return Entry(f"{row.rank} [{row.low}, {row.high}]", float(row.rank), (row.low, row.high))
