"""Methods over their trainings: scores, differences and ranks that hold for another training too.

Encoders that differ only in the seed of their training are one method here, with its settings, at
its budget, on its backbone. Any other encoder, such as an untrained backbone or a reference model,
is a row of its own. All functions take a ``Comparison`` (``bench.reporting.read``) and return
DataFrames; scores are not x 100.

A row is of a task, of the mean of a family's tasks, or of the mean of families: column ``over`` is
"task", "family" or "mean", and ``task`` is the title of the task, the name of the family, or
``MEAN``. Intervals cover the trainings, the repeats and the test examples. Those of ``MEAN`` also
cover other families of tasks, unless ``tasks="fixed"``.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd

from bench import stats
from bench.errors import unknown
from bench.replication import Component, detectable, estimate, superiority
from bench.reporting.comparison import MEAN, Comparison
from bench.reporting.variants import last_stage

Tasks = Literal["resampled", "fixed"]
"""Whether a mean over families stands for other families too, or for these alone."""

ONE = "1 training: intervals do not cover training"

KEY = ["method", "settings", "budget", "backbone"]
"""What makes a method of these tables; ``budget`` is missing for encoders without a training."""


@dataclass(frozen=True)
class Method:
    """A method with its settings at a budget, over its trainings.

    Attributes:
        name: The method's name; of an encoder without the card of a training, its label.
        settings: The settings in which it differs from others of its name, such as "lr=0.002".
        budget: Training tokens; None without the card of a training.
        backbone: The model that it was trained from, or that the encoder is.
        encoders: Labels of the encoders, one per training, in the order of their seeds.
        seeds: Seeds of the trainings; empty without the card of a training.
        note: What its intervals do not cover; "" for nothing.
    """

    name: str
    settings: str
    budget: int | None
    backbone: str
    encoders: tuple[str, ...]
    seeds: tuple[int, ...] = ()
    note: str = ""

    @property
    def key(self) -> dict[str, Any]:
        """The columns ``KEY`` of its rows."""
        return {
            "method": self.name,
            "settings": self.settings,
            "budget": self.budget,
            "backbone": self.backbone,
        }


def methods(c: Comparison) -> list[Method]:
    """Return the methods with their trainings, the one with the best encoder first.

    Of several trainings with one seed, such as on two machines, the first label counts.
    """
    groups: dict[str, list[str]] = {}
    for label in c.labels:
        groups.setdefault(_identity(c, label), []).append(label)
    changed = _changed_settings(c, [group[0] for group in groups.values()])
    return [_method(c, group, changed[group[0]]) for group in groups.values()]


def by_method(c: Comparison, *, tasks: Tasks = "resampled") -> pd.DataFrame:
    """Return one row per method and quantity: the mean over its trainings with an interval.

    Columns: ``KEY``; ``over``, ``task``, ``metric``; ``mean``; ``low`` and ``high``, its 95 %
    interval; ``std``, the standard deviation over trainings (NaN for one); ``trainings``, their
    number (0 for an encoder without the card of one); ``note``.
    """
    rows = []
    for quantity in _quantities(c, tasks):
        for method in methods(c):
            found = _estimate(c, quantity, method)
            row = {**method.key, **quantity.key, "mean": found.value}
            row |= {"low": found.low, "high": found.high, "std": found.std}
            rows.append(row | {"trainings": len(method.seeds), "note": found.note})
    return _frame(rows, [*KEY, *_QUANTITY, "mean", "low", "high", "std", "trainings", "note"])


def differences(c: Comparison, reference: str = "", *, tasks: Tasks = "resampled") -> pd.DataFrame:
    """Return one row per pair of methods and quantity: the difference of their means.

    Args:
        c: The results.
        reference: Each method minus this one: the name of a method, which is compared at equal
            budget and backbone, or of an encoder without the card of a training, which is compared
            with all. "" for every two methods at equal budget and backbone, and every method
            against every encoder without a training.
        tasks: Whether the mean of families stands for other families too.

    Returns:
        Columns: ``KEY`` of the first; ``reference`` and ``reference_settings``; ``over``, ``task``,
        ``metric``; ``difference``; ``low`` and ``high``, its 95 % interval; ``p``, Holm-corrected
        over the rows of the same ``over``; ``p_alone``, without correction; ``superiority``, the
        probability that a fresh training of the method scores above a fresh one of the reference
        on the same tasks and examples (NaN where neither has two trainings); ``detectable``, the
        smallest true difference that these trainings find with 80 % power at p < 0.05 without
        correction; ``trainings`` and ``reference_trainings``; ``note``.

    Raises:
        UsageError: There is no such reference.
    """
    every = methods(c)
    names = {method.name for method in every}
    if reference and reference not in names:
        raise unknown("method in these results", reference, sorted(names))
    pairs = list(_pairs(every, reference))
    rows = []
    for quantity in _quantities(c, tasks):
        for first, second in pairs:
            found = _estimate(c, quantity, first, second)
            row = {**first.key, "reference": second.name, "reference_settings": second.settings}
            row |= {**quantity.key, "difference": found.value, "low": found.low}
            row |= {"high": found.high, "p_alone": found.p, "superiority": found.superiority}
            row |= {"detectable": found.detectable, "trainings": len(first.seeds)}
            rows.append(row | {"reference_trainings": len(second.seeds), "note": found.note})
    frame = _frame(rows, [*KEY, *_PAIR])
    frame["p"] = frame.groupby("over").p_alone.transform(lambda p: stats.holm(p.to_numpy(float)))
    return frame


def ranks(c: Comparison, *, task: str = MEAN, tasks: Tasks = "resampled") -> pd.DataFrame:
    """Return the rank of each method at its budget, with an interval that covers every rank.

    The lowest rank is 1 plus the number of methods that are significantly better, the highest is
    the number of methods minus those significantly worse (Holm-corrected over all pairs of the
    budget), so that with 95 % probability all ranks of a budget are within their intervals.
    Encoders without a training are ranked at every budget of their backbone.

    Args:
        c: The results.
        task: Title of a task, name of a family, or ``MEAN``.
        tasks: Whether the mean of families stands for other families too.

    Returns:
        Columns: ``KEY``, with the ``budget`` and ``backbone`` at which it is ranked; ``mean``;
        ``rank``, 1 is best; ``low``, ``high``; ``methods``, how many are ranked; ``note``.

    Raises:
        UsageError: There is no such task.
    """
    found = {quantity.name: quantity for quantity in _quantities(c, tasks)}
    if task not in found:
        raise unknown("task, family or mean in these results", task, list(found))
    rows = []
    every = methods(c)
    for budget, backbone in dict.fromkeys((m.budget, m.backbone) for m in every if m.seeds):
        ranked = [m for m in every if _beside(m, budget, backbone)]
        place = {"budget": budget, "backbone": backbone}
        rows += [row | place for row in _ranks(c, found[task], ranked)]
    return _frame(rows, [*KEY, "mean", "rank", "low", "high", "methods", "note"])


# ---- which encoders are one method


def _identity(c: Comparison, label: str) -> str:
    """Return what the trainings of one method share; the label for an encoder without a card."""
    card = c.encoders.at[label, "training"]
    if not _is_training(card):
        return label
    shared = [card[name] for name in ("method", "recipe", "budget")]
    shared += [card.get("backbone"), last_stage(card), _encoder_settings(c, label)]
    return json.dumps(shared, sort_keys=True)


def _is_training(card: Mapping[str, Any]) -> bool:
    known = isinstance(card.get("recipe"), Mapping) and card.get("method") and card.get("budget")
    return bool(known) and isinstance(card.get("seed"), int)


def _encoder_settings(c: Comparison, label: str) -> dict[str, Any]:
    """Return the settings of an encoder other than its checkpoint."""
    first = c.of_encoder(label)[0]
    dtype = {"dtype": first.card.get("dtype")}
    return {k: v for k, v in {**first.spec.settings, **dtype}.items() if k != "checkpoint"}


def _changed_settings(c: Comparison, labels: Sequence[str]) -> dict[str, str]:
    """Return for one encoder per method the settings in which methods of one name differ."""
    every: dict[str, dict[str, str]] = {}
    for label in labels:
        card = c.encoders.at[label, "training"]
        if not _is_training(card):
            every[label] = {}
            continue
        settings = dict(card["recipe"])
        for setting, value in _encoder_settings(c, label).items():
            # Its attention, say, may be "native" whatever it was trained with.
            settings[f"encoder.{setting}" if setting in settings else setting] = value
        settings.pop("backbone", None)
        stage = last_stage(card)
        settings |= {"stage": stage} if stage else {}
        every[label] = {name: json.dumps(value) for name, value in settings.items()}
    words = {}
    for label, own in every.items():
        name = c.encoders.at[label, "training"].get("method")
        alike = [
            settings
            for other, settings in every.items()
            if c.encoders.at[other, "training"].get("method") == name
        ]
        differing = [n for n in own if len({other.get(n) for other in alike}) > 1]
        words[label] = ", ".join(f"{n}={own[n].strip(chr(34))}" for n in differing)
    return words


def _method(c: Comparison, labels: Sequence[str], settings: str) -> Method:
    first = c.encoders.loc[labels[0]]
    card = first.training
    if not _is_training(card):
        note = ONE if first.role == "method" else ""
        return Method(labels[0], "", None, first.backbone, tuple(labels), note=note)
    by_seed: dict[int, str] = {}
    for label in sorted(labels):
        by_seed.setdefault(c.encoders.at[label, "training"]["seed"], label)
    seeds = tuple(sorted(by_seed))
    return Method(
        card["method"],
        settings,
        card["budget"],
        first.base,
        tuple(by_seed[seed] for seed in seeds),
        seeds,
        ONE if len(seeds) == 1 else "",
    )


def _beside(method: Method, budget: int | None, backbone: str) -> bool:
    """Return whether a method is of a budget and backbone, or has no training."""
    return not method.seeds or (method.budget, method.backbone) == (budget, backbone)


def _pairs(every: Sequence[Method], reference: str) -> Iterator[tuple[Method, Method]]:
    """Yield the methods to compare, the reference second."""
    if reference:
        for second in [m for m in every if m.name == reference]:
            for first in every:
                if first is not second and _comparable(first, second):
                    yield first, second
        return
    for i, first in enumerate(every):
        for second in every[i + 1 :]:
            if _comparable(first, second):
                yield (first, second) if first.seeds or not second.seeds else (second, first)


def _comparable(first: Method, second: Method) -> bool:
    return not first.seeds or _beside(second, first.budget, first.backbone)


# ---- quantities and their variance


@dataclass(frozen=True)
class _Quantity:
    """A task, the mean of a family, or the mean of families."""

    over: str
    name: str
    metric: str
    found: stats.Sampled

    @property
    def key(self) -> dict[str, str]:
        return {"over": self.over, "task": self.name, "metric": self.metric}


_QUANTITY = ["over", "task", "metric"]
_PAIR = [
    "reference", "reference_settings", *_QUANTITY, "difference", "low", "high", "p", "p_alone",
    "superiority", "detectable", "trainings", "reference_trainings", "note",
]  # fmt: skip


def _quantities(c: Comparison, tasks: Tasks) -> Iterator[_Quantity]:
    for title in c.tasks.index[c.tasks.compared]:
        yield _Quantity("task", title, c.tasks.at[title, "metric"], c.by_task[title])
    for family, found in c.by_family.items():
        yield _Quantity("family", family, "", found)
    if len(c.by_family) > 1:
        overall = c.overall
        if tasks == "resampled":
            families = np.array([each.scores for each in c.by_family.values()])
            overall = stats.sampled(overall.scores, families)
        yield _Quantity("mean", MEAN, "", overall)


@dataclass(frozen=True)
class _Found:
    value: float
    low: float
    high: float
    p: float
    std: float
    superiority: float
    detectable: float
    note: str = field(default="")


def _estimate(
    c: Comparison, quantity: _Quantity, first: Method, second: Method | None = None
) -> _Found:
    """Return the mean of a method over its trainings, minus that of another one if there is one."""
    sides = [first] if second is None else [first, second]
    numbers = [np.array([c.number[label] for label in side.encoders]) for side in sides]
    scores = [quantity.found.scores[places] for places in numbers]
    signs = [1.0, -1.0]
    value = float(sum(sign * each.mean() for sign, each in zip(signs, scores, strict=False)))
    weights = np.concatenate(
        [sign / len(each) * np.ones(len(each)) for sign, each in zip(signs, scores, strict=False)]
    )
    everyone = np.concatenate(numbers)
    components = [
        Component(
            float(max(weights @ part.covariance[np.ix_(everyone, everyone)] @ weights, 0.0)),
            part.freedom,
        )
        for part in quantity.found.components
    ]
    trained = [each for each in scores if len(each) > 1]
    between = [Component(each.var(ddof=1) / len(each), len(each) - 1) for each in trained]
    fresh = [Component(each.var(ddof=1) * (1 + 1 / len(each)), len(each) - 1) for each in trained]
    every = [*components, *between]
    estimates = estimate(np.array(value), every)
    return _Found(
        value,
        float(estimates.low),
        float(estimates.high),
        float(estimates.p),
        float(scores[0].std(ddof=1)) if len(scores[0]) > 1 else float("nan"),
        float(superiority(np.array(value), fresh)) if fresh else float("nan"),
        float(detectable(every)) if every else float("nan"),
        _note(sides),
    )


def _note(sides: Iterable[Method]) -> str:
    notes = {f"{side.name}: {side.note}" for side in sides if side.note}
    return "; ".join(sorted(notes))


def _ranks(c: Comparison, quantity: _Quantity, ranked: Sequence[Method]) -> list[dict[str, Any]]:
    means = {}
    for method in ranked:
        places = [c.number[label] for label in method.encoders]
        means[method] = float(quantity.found.scores[places].mean())
    known = sorted((m for m in ranked if np.isfinite(means[m])), key=lambda m: -means[m])
    pairs = [(first, second) for i, first in enumerate(known) for second in known[i + 1 :]]
    p = stats.holm(np.array([_estimate(c, quantity, *pair).p for pair in pairs]))
    better = [pair for pair, each in zip(pairs, p, strict=True) if each < 1 - stats.LEVEL]
    rows = []
    for method in ranked:
        rank = 1 + sum(means[other] > means[method] for other in known)
        row = {**method.key, "mean": means[method], "rank": rank, "note": method.note}
        row["low"] = 1 + sum(worse is method for _, worse in better)
        row["high"] = len(known) - sum(best is method for best, _ in better)
        rows.append(row | {"methods": len(known)})
    return sorted((row for row in rows if np.isfinite(row["mean"])), key=lambda row: row["rank"])


def _frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    frame = pd.DataFrame(rows).reindex(columns=list(dict.fromkeys(columns)))
    frame["budget"] = frame.budget.astype("Int64")
    return frame
