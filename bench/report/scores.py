"""Tables of scores: family means, every task, every score of a family. Scores are shown x 100."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from bench import stats
from bench.report import notes
from bench.report.cells import Column, named
from bench.report.pairs import METHOD, Pairs
from bench.report.table import MISSING, Entry, Mark, Table, score, warned, word
from bench.task import APART

_BEST = "Bold is best; † is a tie with it: the 95 % interval of the paired difference holds 0."


def overview(
    pairs: Pairs,
    labels: Sequence[str] | None = None,
    name: str = "families",
    title: str = "Family means",
) -> Table:
    """Return the family means, encoder by family, the mean over families and the mean rank.

    Args:
        pairs: The comparisons.
        labels: The encoders to show, which are ranked and marked among themselves; all of them by default.
        name: The table's name.
        title: Its headline.
    """
    cells = pairs.cells
    shown = cells.encoders if labels is None else list(labels)
    columns = [
        [word(named(cells, label)) for label in shown],
        [word(cells.card(label).get("backbone")) for label in shown],
    ]
    for family, found in pairs.by_family.items():
        columns.append(_family_entries(pairs, family, found, shown))
    columns.append(_entries(pairs, pairs.overall, cells.common, shown, lambda _: "lacks a family"))
    columns.append(_rank_entries(pairs, shown))
    about = (
        f"Main scores x 100, mean of each family's tasks; ± is the standard deviation of that mean over repeats. {_BEST} {METHOD}. "
        "The chances of several tasks are added as if independent: of tasks on the same texts the interval is too narrow."
    )
    return Table(
        name,
        title,
        ("encoder", "backbone", *pairs.by_family, "mean of families", "mean rank"),
        tuple(zip(*columns, strict=True)),
        words=frozenset({"encoder", "backbone"}),
        about=about,
        notes=pairs.notes if labels is None else notes.of(cells, shown),
    )


def _family_entries(
    pairs: Pairs, family: str, found: stats.Sampled, shown: Sequence[str]
) -> list[Entry]:
    cells = pairs.cells

    def text(label: str) -> str:
        mean = cells.family(label, family)
        return score(*mean) if mean else "{} of {} tasks".format(*cells.have(label, family))

    return _entries(
        pairs,
        found,
        cells.common_of(family),
        shown,
        lambda label: "{} of {} tasks".format(*cells.have(label, family)),
        text,
    )


def _entries(
    pairs: Pairs,
    found: stats.Sampled,
    columns: Sequence[Column],
    shown: Sequence[str],
    why: Callable[[str], str],
    text: Callable[[str], str] | None = None,
) -> list[Entry]:
    """Return the entries of encoders for one number, with interval, marks of the best and of ties, and warnings.

    Args:
        pairs: The comparisons.
        found: The number for all encoders.
        columns: The tasks behind it, for warnings.
        shown: The encoders to show.
        why: Says why an encoder has no number.
        text: Says how a number is printed; x 100 with one digit by default.
    """
    warnings = {label: pairs.cells.overlapping(label, columns) for label in shown}
    numbers = [pairs.number[label] for label in shown]
    means, bounds = found.scores[numbers], pairs.bounds(found)
    marks = _marks(found, numbers, [not warnings[label] for label in shown])
    entries = []
    for label, i, mean, mark in zip(shown, numbers, means.tolist(), marks, strict=True):
        if np.isnan(mean):
            entries.append(
                Entry(MISSING if text is None else text(label), mark="missing", note=why(label))
            )
            continue
        key = pairs.cells.results[label, columns[0]][0].spec.key if len(columns) == 1 else ""
        printed = score(mean) if text is None else text(label)
        entries.append(warned(Entry(printed, mean, bounds[i], mark, key=key), warnings[label]))
    return entries


def _marks(found: stats.Sampled, numbers: Sequence[int], fair: Sequence[bool]) -> list[Mark]:
    """Return for each encoder whether it is best among the fair ones, or tied with the best; equal when printed is equally good."""
    scores = np.where(fair, found.scores[list(numbers)], np.nan)
    marks: list[Mark] = [""] * len(numbers)
    if np.isfinite(scores).sum() < 2:
        return marks
    best = int(np.nanargmax(scores))
    others = np.array(numbers)
    gap = stats.differences(found, np.full(len(numbers), numbers[best]), others)
    for i, value in enumerate(scores.tolist()):
        if np.isnan(value):
            continue
        if score(value) == score(scores[best]):
            marks[i] = "best"
        elif gap.low[i] <= 0 <= gap.high[i]:
            marks[i] = "tie"
    return marks


def _rank_entries(pairs: Pairs, shown: Sequence[str]) -> list[Entry]:
    labels, scores = pairs.ranked
    among = [label for label in labels if label in set(shown)]
    found = (
        dict(
            zip(
                among,
                stats.mean_ranks(scores[:, [labels.index(a) for a in among]]).tolist(),
                strict=True,
            )
        )
        if among
        else {}
    )
    warnings = {label: pairs.cells.overlapping(label, pairs.cells.common) for label in found}
    fair = [rank for label, rank in found.items() if not warnings[label]]
    best = min(fair) if len(fair) > 1 else None
    return [
        warned(Entry(f"{rank:.2f}", rank, mark="best" if rank == best else ""), warnings[label])
        if (rank := found.get(label)) is not None
        else Entry(MISSING, mark="missing", note="lacks a task that most encoders have")
        for label in shown
    ]


def by_task(pairs: Pairs) -> Table:
    """Return the main score of every task, task by encoder."""
    cells = pairs.cells
    rows = []
    for column in cells.compared:

        def text(label: str, column: Column = column) -> str:
            found = cells.score(label, column)
            return score(found.mean, found.spread) if found else MISSING

        why = partial(cells.absence, column=column)
        entries = _entries(pairs, pairs.by_column[column], [column], cells.encoders, why, text)
        counts = sorted(
            {len(s.repeats) for label in cells.encoders if (s := cells.score(label, column))}
        )
        repeats = " to ".join(str(n) for n in sorted({counts[0], counts[-1]}))
        rows.append(
            (
                word(column.family),
                word(cells.title(column)),
                word(column.metric),
                Entry(repeats, float(counts[-1])),
                *entries,
            )
        )
    return Table(
        "by-task",
        "Every task",
        ("family", "task", "metric", "repeats", *(named(cells, label) for label in cells.encoders)),
        tuple(rows),
        words=frozenset({"family", "task", "metric"}),
        about=f"Main scores x 100; ± is the sample standard deviation over repeats. {_BEST} {METHOD}.",
        notes=pairs.notes,
    )


def by_score(
    pairs: Pairs,
    family: str,
    title: str,
    about: str,
    *,
    first: Sequence[str] = (),
    scale: float = 100,
    digits: int = 1,
) -> Table:
    """Return every score of a family's tasks, score by encoder; no rows where there is no such task.

    Args:
        pairs: The comparisons.
        family: The family.
        title: The table's headline.
        about: What its scores mean.
        first: Names of scores to put first, after the main one.
        scale: What scores are multiplied with when printed.
        digits: Decimals printed.
    """
    cells = pairs.cells
    rows = []
    for column in (c for c in cells.columns if c.family == family):
        results = [r for label in cells.encoders for r in cells.results.get((label, column), ())]
        names = sorted(
            {name for r in results for name in r.scores},
            key=lambda n: (n != column.metric, n not in first, n),
        )
        for name in names:
            found = pairs.sampled(column, name)

            def text(label: str, found: stats.Sampled = found) -> str:
                value = found.scores[pairs.number[label]]
                return MISSING if np.isnan(value) else f"{scale * value:z.{digits}f}"

            def why(label: str, column: Column = column) -> str:
                return (
                    "has no such score"
                    if (label, column) in cells.results
                    else cells.absence(label, column)
                )

            entries = _entries(pairs, found, [column], cells.encoders, why, text)
            if family in APART:  # what is best is not known of a diagnostic
                entries = [
                    replace(e, mark=e.mark if e.mark in {"missing", "warning"} else "")
                    for e in entries
                ]
            rows.append((word(cells.title(column)), word(name.replace("_", " ")), *entries))
    labels = tuple(named(cells, label) for label in cells.encoders)
    scaled = f" Shown x {scale:g}." if scale != 1 else ""
    return Table(
        family,
        title,
        ("task", "score", *labels),
        tuple(rows),
        words=frozenset({"task", "score"}),
        about=f"{about}{scaled} {METHOD}.",
        notes=pairs.notes,
    )
