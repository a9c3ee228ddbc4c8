"""The numbers of a study: a row per method and budget, over the trainings."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, product
from typing import Any

import numpy as np
import pandas as pd

from bench import stats
from bench.checkpoints import training_seconds
from bench.reporting import trainings
from bench.reporting.comparison import MEAN, Comparison
from bench.reporting.trainings import Method, by_place, place_of

PFLOP = 1e-15
"""Scale of FLOPs in tables."""


@dataclass(frozen=True)
class Number:
    """A mean over trainings, a difference or a rank, with what is known of it; NaN where unknown.

    Attributes:
        value: The number.
        low: Lower end of its 95 % interval.
        high: Its upper end.
        p: Corrected p-value of a difference.
        note: What the interval does not cover; "" for nothing.
    """

    value: float
    low: float
    high: float
    p: float = math.nan
    note: str = ""

    @property
    def ends(self) -> tuple[float, float] | None:
        """The ends of the interval; None where it is not known."""
        return None if math.isnan(self.low) else (self.low, self.high)

    @property
    def significant(self) -> bool:
        """Whether it is a significant difference."""
        return self.p < 1 - stats.LEVEL


@dataclass(frozen=True)
class Study:
    """A grid of trainings, and the settings that were tried before it.

    Attributes:
        c: Results of the trained encoders, of the untrained backbone, and of references.
        tried: Results of trainings with other settings, on tasks for development; None without.
    """

    c: Comparison
    tried: Comparison | None = None

    @cached_property
    def mean(self) -> str:
        """What the headline is: the mean of families, or the only family there is."""
        families = list(self.c.by_family)
        return families[0] if len(families) == 1 else MEAN

    @cached_property
    def families(self) -> list[str]:
        """The mean and, where there are several, the families behind it."""
        return list(dict.fromkeys([self.mean, *self.c.by_family]))

    @cached_property
    def methods(self) -> list[Method]:
        """Methods with a training card and a score: the smallest budget first, the best of each."""
        scored = [m for m in trainings.methods(self.c) if m.seeds and self.has_mean(m)]
        return sorted(scored, key=lambda m: m.budget or 0)

    @cached_property
    def beside(self) -> list[Method]:
        """Encoders without a training, the best first: the backbone and references.

        One that lacks a task that counts, such as one without token states, has no mean.
        """
        scored = self.c.family_means.notna().any()
        without = [m for m in trainings.methods(self.c) if not m.seeds]
        return [m for m in without if scored[list(m.encoders)].all()]

    @cached_property
    def lacking(self) -> list[str]:
        """Encoders that have no mean, since they lack a task that counts."""
        return list(self.c.encoders.index[self.c.encoders["mean"].isna()])

    def has_mean(self, method: Method) -> bool:
        """Return whether every encoder of a method has all tasks that count."""
        return bool(self.c.encoders["mean"][list(method.encoders)].notna().all())

    @cached_property
    def baseline(self) -> Method | None:
        """The untrained backbone."""
        return next((m for m in self.beside if self.c.baseline in m.encoders), None)

    @cached_property
    def budgets(self) -> list[int]:
        """Training tokens, rising."""
        return sorted({method.budget for method in self.methods if method.budget})

    def at(self, budget: int) -> list[Method]:
        """Return the methods at a budget, the best mean first."""
        own = [method for method in self.methods if method.budget == budget]
        return sorted(own, key=lambda m: -self.level(m, self.mean).value)

    @cached_property
    def ordered(self) -> list[Method]:
        """The methods, the largest budget first, the best mean of each first."""
        return list(chain(*map(self.at, reversed(self.budgets))))

    def labels(self) -> Iterator[tuple[Method, str]]:
        """Yield every training: the method, and the label of the encoder."""
        for method in self.methods:
            for label in method.encoders:
                yield method, label

    @cached_property
    def curves(self) -> dict[str, list[Method]]:
        """The methods by their name, with one entry per budget: a learning curve each.

        Where several settings of one method were trained at one budget, the name has as many of its
        unusual settings as tell it apart. Settings may differ between budgets, such as how much a
        generator writes.
        """
        frame = pd.DataFrame([m.key for m in self.methods], columns=trainings.KEY)
        per_budget = frame.groupby(["method", "backbone", "budget"]).settings.nunique()
        several = per_budget[per_budget > 1].index
        backbones = frame.groupby("method").backbone.nunique() > 1
        found: dict[str, list[Method]] = {}
        for method in self.methods:
            parts = [method.name]
            if (method.name, method.backbone, method.budget) in several:
                parts.append(_distinction(method, self.methods))
            parts += [f"on {method.backbone}"] * bool(backbones[method.name])
            found.setdefault(" ".join(filter(None, parts)), []).append(method)
        last = {name: -self.level(own[-1], self.mean).value for name, own in found.items()}
        return {name: found[name] for name in sorted(found, key=last.__getitem__)}

    @cached_property
    def names(self) -> dict[Method, str]:
        """The name of the curve that each method is on; of one without a training, its own."""
        found = {method: method.name for method in self.beside}
        for name, own in self.curves.items():
            found |= dict.fromkeys(own, name)
        return found

    # ---- numbers

    @cached_property
    def _levels(self) -> pd.DataFrame:
        frame = trainings.by_method(self.c, tasks="fixed")
        return _indexed(frame)

    @cached_property
    def _gains(self) -> dict[trainings.Tasks, pd.DataFrame]:
        if self.baseline is None:
            return {}
        name = self.baseline.name
        kinds: tuple[trainings.Tasks, ...] = ("fixed", "resampled")
        return {
            tasks: _indexed(trainings.differences(self.c, name, tasks=tasks)) for tasks in kinds
        }

    @cached_property
    def _ranks(self) -> pd.DataFrame:
        return by_place(trainings.ranks(self.c, task=self.mean, tasks="fixed"))

    @cached_property
    def _pairs(self) -> dict[tuple[Any, ...], float]:
        """Corrected p-values by budget, backbone and the names and settings of two methods."""
        pairs = trainings.differences(self.c, tasks="fixed")
        found = {}
        for row in pairs[pairs.task == self.mean].itertuples():
            two = (row.method, row.settings), (row.reference, row.reference_settings)
            found[row.budget, row.backbone, frozenset(two)] = row.p
        return found

    def level(self, method: Method, over: str) -> Number:
        """Return the mean of a family, or of all, over the trainings of a method."""
        row = self._levels.loc[(*place_of(method), over)]
        return Number(row["mean"], row.low, row.high, note=row.note)

    def gain(self, method: Method, over: str, tasks: trainings.Tasks = "fixed") -> Number | None:
        """Return the difference from the backbone; None for itself and where there is none."""
        found = self._gains.get(tasks)
        place = (*place_of(method), over)
        if found is None or place not in found.index:
            return None
        row = found.loc[place]
        return Number(row.difference, row.low, row.high, row.p, row.note)

    def rank(self, method: Method) -> tuple[Number, int]:
        """Return the rank at the method's budget, and how many are ranked."""
        row = self._ranks.loc[place_of(method)]
        return Number(float(row["rank"]), row.low, row.high), int(row.methods)

    def same(self, budget: int) -> list[Method]:
        """Return the best method at a budget, and those not significantly different from it.

        Methods on another backbone are not compared with it.
        """
        best, *others = self.at(budget)
        found = [best]
        for other in others:
            if other.place != best.place:
                continue
            two = frozenset({(best.name, best.settings), (other.name, other.settings)})
            p = self._pairs.get((budget, best.backbone, two))
            if p is not None and not p < 1 - stats.LEVEL:
                found.append(other)
        return found

    # ---- wordings

    @cached_property
    def wordings(self) -> pd.DataFrame:
        """The score under each wording of an instruction, over the trainings of a method.

        Columns: ``method``; ``task``, its title; ``means``, one per wording, the first of the
        task's own; ``trainings``, the mean of each training. Methods that no wording changes, such
        as those that ignore instructions, have no row.
        """
        rows = []
        for task, method in product(self.c.common, [*self.ordered, *self.beside]):
            if any((label, task) not in self.c.cells for label in method.encoders):
                continue
            scores = np.array([self._wordings(label, task) for label in method.encoders])
            if scores.size and np.ptp(scores, axis=1).any():
                rows.append((method, task, scores.mean(axis=0), scores.mean(axis=1)))
        return pd.DataFrame(rows, columns=["method", "task", "means", "trainings"])

    def _wordings(self, label: str, task: str) -> stats.Array:
        """Return the score of an encoder under each wording, the mean over seeds; none for one."""
        each = np.array([r.main.wordings for r in self.c.cells[label, task]], np.float64)
        return np.asarray(each.mean(axis=0))

    # ---- cost

    def cards(self, method: Method) -> list[Mapping[str, Any]]:
        """Return the cards of a method's trainings."""
        return [self.c.encoders.at[label, "training"] for label in method.encoders]

    def cost(self, method: Method, what: str) -> float | None:
        """Return a number of the cards, the mean over the trainings whose cards have it, or None.

        Args:
            method: The method.
            what: "trained_tokens", "inference_tokens", "flops", or "seconds" of all stages.
        """
        each = (spent(card, what) for card in self.cards(method))
        known = [number for number in each if number is not None]
        return float(np.mean(known)) if known else None


def changes(method: Method, every: Sequence[Method]) -> str:
    """Return the settings of a method that most others of its name do not have."""
    alike = [m.settings.split(", ") for m in every if m.name == method.name]
    counts = Counter(chain(*alike))
    own = method.settings.split(", ")
    return ", ".join(setting for setting in own if 2 * counts[setting] <= len(alike))


def _distinction(method: Method, every: Sequence[Method]) -> str:
    """Return the first changes of a method that no other of its name and budget begins with."""
    place = (method.name, method.place)
    others = [m for m in every if (m.name, m.place) == place and m != method]
    taken = [changes(other, every).split(", ") for other in others]
    own = changes(method, every).split(", ")
    for k in range(1, len(own)):
        if all(other[:k] != own[:k] for other in taken):
            return ", ".join(own[:k])
    return ", ".join(own)


def spent(card: Mapping[str, Any], what: str) -> float | None:
    """Return a number of a card, as ``Study.cost`` takes it; None where it is unknown."""
    return (training_seconds(card) or None) if what == "seconds" else card.get(what)


def _indexed(frame: pd.DataFrame) -> pd.DataFrame:
    """Return rows of families and means by method and family."""
    return by_place(frame[frame.over != "task"]).set_index("task", append=True)
