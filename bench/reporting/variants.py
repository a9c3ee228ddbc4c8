"""Ablations: encoders that one method trained at one budget, and the effect of each setting."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from bench.reporting.comparison import Comparison
from bench.reporting.differences import difference_entries
from bench.reporting.names import natural
from bench.reporting.table import Table, score, word

Settings = Mapping[str, Any]
"""A training run: its recipe's settings, its seed, and its last stage if the card names one."""


@dataclass(frozen=True)
class Variants:
    """Encoders trained by one method at one budget.

    Attributes:
        method: Of all of them.
        budget: Training tokens, of all of them.
        settings: Of each, by its label. The first is the reference: the one closest to all others.
    """

    method: str
    budget: int
    settings: Mapping[str, Settings]

    @property
    def labels(self) -> list[str]:
        """The encoders, the reference first."""
        return list(self.settings)

    @property
    def changes(self) -> dict[str, str]:
        """How the settings of each differ from the reference, such as "decay 0, stage 1"."""
        words = {}
        for label in self.labels[1:]:
            changed = [f"{name} {self.settings[label].get(name)}" for name in self._changed(label)]
            words[label] = ", ".join(changed) or "the same settings"
        return {self.labels[0]: "", **words}

    @property
    def sweeps(self) -> dict[str, dict[float, str]]:
        """The label of each value, for each numeric setting with at least three values.

        Nothing else differs. The seed is excluded. Of several encoders with one value the first
        counts.
        """
        reference, *rest = self.labels
        found: dict[str, dict[float, str]] = {}
        for label in rest:
            changed = self._changed(label)
            if len(changed) != 1 or changed == ["seed"]:
                continue
            here, there = (self.settings[each].get(changed[0]) for each in (reference, label))
            if _is_number(here) and _is_number(there):
                found.setdefault(changed[0], {here: reference}).setdefault(there, label)
        return {name: dict(sorted(by.items())) for name, by in found.items() if len(by) > 2}

    def _changed(self, label: str) -> list[str]:
        """Return the settings that differ from the reference; both cards must name a stage."""
        reference, own = self.settings[self.labels[0]], self.settings[label]
        changed = _differing(reference, own)
        both = reference["stage"] and own["stage"]
        return [name for name in changed if name != "stage" or both]


def groups(c: Comparison) -> list[Variants]:
    """Return the groups of at least two encoders that one method trained at one budget."""
    found: dict[tuple[str, int], dict[str, Settings]] = {}
    for label, training in c.encoders.training.items():
        recipe, method, budget = (training.get(name) for name in ("recipe", "method", "budget"))
        if method and budget and isinstance(recipe, Mapping):
            settings = {**recipe, "seed": training.get("seed"), "stage": last_stage(training)}
            found.setdefault((str(method), int(budget)), {})[str(label)] = settings
    return [
        Variants(method, budget, _ordered(members))
        for (method, budget), members in sorted(found.items())
        if len(members) > 1
    ]


def last_stage(training: Mapping[str, Any]) -> str | None:
    """Return the last stage that a card names, by which checkpoints of one training differ."""
    stages = training.get("stages")
    if not isinstance(stages, list | tuple):
        return None
    names = [stage.get("stage") for stage in stages if isinstance(stage, Mapping)]
    return next((str(name) for name in reversed(names) if name), None)


def _ordered(settings: Mapping[str, Settings]) -> dict[str, Settings]:
    """Return the settings by label, the one closest to all others first, then in natural order."""

    def distance(label: str) -> tuple[int, list[Any]]:
        gaps = [len(_differing(settings[label], other)) for other in settings.values()]
        return sum(gaps), natural(label)

    reference = min(settings, key=distance)
    rest = sorted(settings.keys() - {reference}, key=natural)
    return {label: settings[label] for label in (reference, *rest)}


def _differing(one: Settings, other: Settings) -> list[str]:
    return [name for name in dict.fromkeys((*other, *one)) if one.get(name) != other.get(name)]


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def tables(c: Comparison) -> list[Table]:
    """Return one table per group: how each variant's scores differ from those of the reference."""
    found = groups(c)
    several = len(found) > 1
    return [
        _table(c, group, f"variants-{i}" if several else "variants")
        for i, group in enumerate(found, 1)
    ]


def _table(c: Comparison, group: Variants, name: str) -> Table:
    reference, *rest = group.labels
    scores = c.scores.loc[c.tasks.compared, group.labels].dropna()
    columns = [
        ("encoder", [word(label) for label in rest]),
        ("what is changed", [word(group.changes[label]) for label in rest]),
    ]
    rows, base = c.numbers(rest), c.number[reference]
    columns += [
        (title, difference_entries(c.by_task[title], c.p_tasks[title], rows, base, digits=c.digits))
        for title in map(str, scores.index)
    ]
    means = ", ".join(
        f"{title} {score(value, digits=c.digits)}" for title, value in scores[reference].items()
    )
    return Table.of_columns(
        name,
        f"Variants of {group.method} at {group.budget:,} training tokens",
        columns if len(scores) else [],
        words={"encoder", "what is changed"},
        about=f"Each minus {reference} ({means}), x 100, with the 95 % interval; *: significant.",
    )
