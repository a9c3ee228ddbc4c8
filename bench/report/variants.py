"""Variants of one recipe: encoders trained by one method at one budget, and what each setting that was changed adds or takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bench import stats
from bench.report.cells import Cells
from bench.report.comparisons import difference_entries
from bench.report.pairs import METHOD, Pairs, corrected, judged
from bench.report.table import Table, word


@dataclass(frozen=True)
class Variants:
    """Encoders trained by one method at one budget.

    Attributes:
        method: Of all of them.
        budget: Token positions, of all of them.
        changes: For each encoder's label how its settings differ from the first one's, such as "decay 0"; "" for the first, which is
            the one nearest to all others.
    """

    method: str
    budget: int
    changes: Mapping[str, str]

    @property
    def labels(self) -> list[str]:
        """The encoders, the first one first."""
        return list(self.changes)


def variants(cells: Cells) -> list[Variants]:
    """Return the groups of at least two encoders that one method trained at one budget with other settings."""
    groups: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
    for label in cells.encoders:
        training = cells.training(label)
        if training.get("method") and training.get("budget") and isinstance(training.get("recipe"), Mapping):
            settings = {**training["recipe"], "seed": training.get("seed")}
            groups.setdefault((str(training["method"]), int(training["budget"])), {})[label] = settings
    return [Variants(method, budget, _changes(settings)) for (method, budget), settings in sorted(groups.items()) if len(settings) > 1]


def _changes(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    def differing(one: str, other: str) -> list[str]:
        a, b = settings[one], settings[other]
        return [name for name in (*b, *(a.keys() - b.keys())) if a.get(name) != b.get(name)]

    first = min(settings, key=lambda label: (sum(len(differing(label, other)) for other in settings), label))
    rest = sorted(label for label in settings if label != first)
    told = {label: ", ".join(f"{name} {settings[label].get(name)}" for name in differing(first, label)) for label in rest}
    return {first: "", **{label: words or "the same settings" for label, words in told.items()}}


def tables(pairs: Pairs) -> list[Table]:
    """Return a table a group: how each variant's scores differ from those of the first."""
    groups = variants(pairs.cells)
    return [replace(_table(pairs, group), name=f"variants{f'-{i}' if len(groups) > 1 else ''}") for i, group in enumerate(groups, 1)]


def _table(pairs: Pairs, group: Variants) -> Table:
    cells = pairs.cells
    columns = [column for column in cells.compared if all((label, column) in cells.results for label in group.labels)]
    found = {cells.title(column): pairs.by_column[column] for column in columns}
    estimates = {title: gaps(pairs, one, group.labels) for title, one in found.items()}
    p = corrected({title: one.p for title, one in estimates.items()})
    entries = [difference_entries(one, p[title]) for title, one in estimates.items()]
    rows = [(word(label), word(group.changes[label])) for label in group.labels[1:]]
    base = group.labels[0]
    scores = ", ".join(f"{title} {100 * one.scores[pairs.number[base]]:.1f}" for title, one in found.items())
    return Table(
        "variants",
        f"Variants of {group.method} at {group.budget:,} token positions",
        ("encoder", "what is changed", *estimates),
        tuple((*row, *each) for row, each in zip(rows, zip(*entries, strict=True), strict=True)) if entries else (),
        words=frozenset({"encoder", "what is changed"}),
        about=f"Each minus {base} ({scores}), x 100, with the 95 % interval; * is told apart. {METHOD}. {judged('all of this table')}.",
    )


def gaps(pairs: Pairs, found: stats.Sampled, labels: Sequence[str]) -> stats.Estimates:
    """Return the scores of all encoders but the first minus the first one's."""
    numbers = np.array([pairs.number[label] for label in labels])
    return stats.differences(found, numbers[1:], np.full(len(numbers) - 1, numbers[0]))
