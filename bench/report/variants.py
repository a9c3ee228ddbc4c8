"""Variants of one recipe: encoders trained by one method at one budget, and what each setting that was changed adds or takes."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

import numpy as np

from bench import stats
from bench.report.cells import Cells
from bench.report.comparisons import difference_entries
from bench.report.pairs import METHOD, Pairs, corrected, judged
from bench.report.table import Table, word

Settings = Mapping[str, Any]
"""What a training was: its recipe's settings, its seed, and the last of its stages where the card names one."""


@dataclass(frozen=True)
class Variants:
    """Encoders trained by one method at one budget.

    Attributes:
        method: Of all of them.
        budget: Token positions, of all of them.
        settings: Of each by its label. The first is the one nearest to all others, from which changes are told.
    """

    method: str
    budget: int
    settings: Mapping[str, Settings]

    @property
    def labels(self) -> list[str]:
        """The encoders, the first one first."""
        return list(self.settings)

    @property
    def changes(self) -> dict[str, str]:
        """For each label how its settings differ from the first one's, such as "decay 0, stage compression"; "" for the first."""
        first, *rest = self.labels
        words = {
            label: ", ".join(
                f"{name} {self.settings[label].get(name)}" for name in self._changed(label)
            )
            for label in rest
        }
        return {first: "", **{label: told or "the same settings" for label, told in words.items()}}

    @property
    def sweeps(self) -> dict[str, dict[float, str]]:
        """For each numeric setting with three values or more the label of each value, in order, where nothing else was changed.

        A seed is a number, but more of it means nothing. Of several encoders with one value the first counts.
        """
        first, *rest = self.labels
        found: dict[str, dict[float, str]] = {}
        for label in rest:
            name, *more = self._changed(label) or ["seed"]
            here, there = self.settings[first].get(name), self.settings[label].get(name)
            if name != "seed" and not more and _is_number(here) and _is_number(there):
                found.setdefault(name, {here: first}).setdefault(there, label)
        return {
            name: dict(sorted(labels.items())) for name, labels in found.items() if len(labels) > 2
        }

    def _changed(self, label: str) -> list[str]:
        """Return the settings that differ from the first one's; a stage that only one of the two cards names is not known to."""
        first, own = self.settings[self.labels[0]], self.settings[label]
        return [
            name
            for name in _differing(first, own)
            if name != "stage" or (first[name] and own[name])
        ]


def variants(cells: Cells) -> list[Variants]:
    """Return the groups of at least two encoders that one method trained at one budget."""
    groups: dict[tuple[str, int], dict[str, Settings]] = {}
    for label in cells.encoders:
        training = cells.training(label)
        if (
            training.get("method")
            and training.get("budget")
            and isinstance(training.get("recipe"), Mapping)
        ):
            settings = {
                **training["recipe"],
                "seed": training.get("seed"),
                "stage": _last_stage(training),
            }
            groups.setdefault((str(training["method"]), int(training["budget"])), {})[label] = (
                settings
            )
    return [
        Variants(method, budget, _ordered(found))
        for (method, budget), found in sorted(groups.items())
        if len(found) > 1
    ]


def _last_stage(training: Mapping[str, Any]) -> str | None:
    """Return the name of the last stage that a card names; checkpoints of one training's stages differ in nothing else."""
    stages = training.get("stages")
    named = (
        [stage.get("stage") for stage in stages if isinstance(stage, Mapping)]
        if isinstance(stages, list | tuple)
        else []
    )
    return next((str(name) for name in reversed(named) if name), None)


def _ordered(settings: Mapping[str, Settings]) -> dict[str, Settings]:
    """Return the settings by label, the one nearest to all others first."""
    first = min(
        settings,
        key=lambda label: (
            sum(len(_differing(settings[label], other)) for other in settings.values()),
            _natural(label),
        ),
    )
    return {
        label: settings[label]
        for label in (first, *sorted(settings.keys() - {first}, key=_natural))
    }


def _natural(label: str) -> list[Any]:
    """Return what sorts labels as people do: m2 before m16."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", label))]


def _differing(one: Settings, other: Settings) -> list[str]:
    return [name for name in dict.fromkeys((*other, *one)) if one.get(name) != other.get(name)]


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def tables(pairs: Pairs) -> list[Table]:
    """Return a table a group: how each variant's scores differ from those of the first."""
    groups = variants(pairs.cells)
    return [
        replace(_table(pairs, group), name=f"variants{f'-{i}' if len(groups) > 1 else ''}")
        for i, group in enumerate(groups, 1)
    ]


def _table(pairs: Pairs, group: Variants) -> Table:
    cells = pairs.cells
    columns = [
        column
        for column in cells.compared
        if all((label, column) in cells.results for label in group.labels)
    ]
    found = {cells.title(column): pairs.by_column[column] for column in columns}
    estimates = {title: gaps(pairs, one, group.labels) for title, one in found.items()}
    p = corrected({title: one.p for title, one in estimates.items()})
    entries = [difference_entries(one, p[title]) for title, one in estimates.items()]
    rows = [(word(label), word(group.changes[label])) for label in group.labels[1:]]
    base = group.labels[0]
    scores = ", ".join(
        f"{title} {100 * one.scores[pairs.number[base]]:.1f}" for title, one in found.items()
    )
    return Table(
        "variants",
        f"Variants of {group.method} at {group.budget:,} token positions",
        ("encoder", "what is changed", *estimates),
        tuple((*row, *each) for row, each in zip(rows, zip(*entries, strict=True), strict=True))
        if entries
        else (),
        words=frozenset({"encoder", "what is changed"}),
        about=f"Each minus {base} ({scores}), x 100, with the 95 % interval; * is told apart. {METHOD}. {judged('all of this table')}.",
    )


def gaps(pairs: Pairs, found: stats.Sampled, labels: Sequence[str]) -> stats.Estimates:
    """Return the scores of all encoders but the first minus the first one's."""
    numbers = np.array([pairs.number[label] for label in labels])
    return stats.differences(found, numbers[1:], np.full(len(numbers) - 1, numbers[0]))
