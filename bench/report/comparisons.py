"""Tables of encoders against each other: ranks, wins and losses, paired differences."""

import math

import numpy as np

from bench import stats
from bench.report.cells import named
from bench.report.pairs import METHOD, Pairs, corrected, judged
from bench.report.table import MISSING, Entry, Table, measure, warned, word

MOST = 30_000
"""Differences that a table shows at most."""


def ranks(pairs: Pairs) -> Table:
    """Return mean rank, Borda points, and wins, ties and losses over all comparisons, encoder by encoder."""
    cells = pairs.cells
    labels, scores = pairs.ranked
    tasks = len(scores)
    mean = (
        dict(zip(labels, stats.mean_ranks(scores).tolist(), strict=True))
        if labels and tasks
        else {}
    )
    rows = []
    for label, counts in zip(cells.encoders, pairs.outcomes.sum(axis=1).tolist(), strict=True):
        rank = mean.get(label)
        points = None if rank is None else tasks * (len(labels) - rank)
        numbers = [
            warned(measure(rank, digits=2), cells.overlapping(label, cells.common)),
            measure(points, digits=1),
        ]
        rows.append(
            (word(named(cells, label)), *numbers, *(Entry(str(n), float(n)) for n in counts))
        )
    rows.sort(key=lambda row: np.inf if row[1].value is None else row[1].value)
    about = (
        f"Ranks over the {tasks} tasks that most encoders have, among the encoders that have all of them; a Borda point is another "
        "encoder beaten on a task, half a point one with the same score."
    )
    if len(labels) > 1 and tasks:
        p, cd = stats.friedman(scores), stats.critical_difference(len(labels), tasks)
        known = "" if np.isnan(p) else f"Friedman's test that all rank alike: p = {p:.2g}. "
        about += f" {known}Mean ranks that differ by less than {cd:.2f} are not told apart (Nemenyi, level 0.05)."
    return Table(
        "ranks",
        "Ranks",
        ("encoder", "mean rank", "Borda points", "wins", "ties", "losses"),
        tuple(rows),
        words=frozenset({"encoder"}),
        about=f"{about} Wins, ties and losses against every other encoder on every task: {judged()}.",
        notes=pairs.notes,
    )


def win_tie_loss(pairs: Pairs) -> Table:
    """Return on how many tasks each encoder wins, ties and loses against each other one."""
    cells = pairs.cells
    labels = [named(cells, label) for label in cells.encoders]
    rows = []
    for i, label in enumerate(labels):
        against = [
            Entry("") if i == j else Entry("/".join(map(str, counts)), float(counts[0] - counts[2]))
            for j, counts in enumerate(pairs.outcomes[i].tolist())
        ]
        rows.append((word(label), *against))
    about = f"Tasks won/tied/lost by the encoder of the row against that of the column. {judged()}."
    return Table(
        "win-tie-loss",
        "Wins, ties, losses",
        ("encoder", *labels),
        tuple(rows) if len(rows) > 1 else (),
        frozenset({"encoder"}),
        about,
    )


def differences(pairs: Pairs) -> Table:
    """Return the paired difference of every two encoders on every task, pair by task; of their family means where that is too much."""
    cells = pairs.cells
    labels = [named(cells, label) for label in cells.encoders]
    whole = len(pairs.partners[0]) * len(cells.compared) <= MOST
    judgement = judged() if whole else judged("every pair of encoders and every family mean")
    found = (
        {cells.title(column): pairs.by_column[column] for column in cells.compared}
        if whole
        else pairs.by_family
    )
    estimates = {title: stats.differences(one, *pairs.partners) for title, one in found.items()}
    p = corrected({title: one.p for title, one in estimates.items()})
    columns = [difference_entries(one, p[title]) for title, one in estimates.items()]
    names = [
        (word(labels[i]), word(labels[j]))
        for i, j in zip(*(side.tolist() for side in pairs.partners), strict=True)
    ]
    less = (
        ()
        if whole
        else (
            "Family means: single tasks are shown for fewer encoders or tasks, chosen by --model and --task.",
        )
    )
    return Table(
        "differences",
        "Paired differences",
        ("first", "second", *estimates),
        tuple(
            (*pair, *entries)
            for pair, entries in zip(names, zip(*columns, strict=True), strict=True)
        )
        if columns
        else (),
        words=frozenset({"first", "second"}),
        about=f"First minus second, x 100, with the 95 % interval; * is told apart. {METHOD}. {judgement}.",
        notes=(*less, *pairs.notes),
    )


def difference_entries(found: stats.Estimates, p: stats.Array) -> list[Entry]:
    """Return an entry for each difference, starred where it is more than chance."""
    numbers = (found.value, found.low.round(6), found.high.round(6), found.p, p)
    return [
        _difference(*values) for values in zip(*(array.tolist() for array in numbers), strict=True)
    ]


def _difference(value: float, low: float, high: float, p: float, corrected: float) -> Entry:
    if math.isnan(value):
        return Entry(MISSING, mark="missing", note="one of the two has no result")
    if math.isnan(p):
        return Entry(
            f"{100 * value:+z.1f}",
            value,
            note="measured once, or always the same, so nothing is known of chance",
        )
    star = "*" if corrected < 1 - stats.LEVEL else ""
    text = f"{100 * value:+z.1f} [{100 * low:z.1f}, {100 * high:z.1f}]{star}"
    return Entry(text, value, (low, high), note=f"p = {p:.2g}, corrected {corrected:.2g}")
