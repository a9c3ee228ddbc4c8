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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations, product
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench import stats
from bench.errors import unknown
from bench.reporting.comparison import MEAN, Comparison
from bench.reporting.variants import last_stage
from bench.stats.replication import (
    Part,
    Trainings,
    detectable,
    interaction,
    intervals,
    of_means,
    p_values,
    pool,
    superiority,
)

Tasks = Literal["resampled", "fixed"]
"""Whether a mean over families stands for other families too, or for these alone."""

ONE = "1 training: intervals do not cover training"
ALIKE = "1 training, taken to vary as those of the other methods"
AGAIN = "several trainings with one seed count once"
UNKNOWN = "measured once on each training: intervals do not cover test examples"

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
        role: As in ``Comparison.encoders``: "method", "untrained" or "reference".
        note: What its intervals do not cover; "" for nothing.
    """

    name: str
    settings: str
    budget: int | None
    backbone: str
    encoders: tuple[str, ...]
    seeds: tuple[int, ...]
    role: str
    note: str = ""

    @property
    def label(self) -> str:
        """The name with the settings."""
        return f"{self.name} {self.settings}".strip()

    @property
    def place(self) -> tuple[int | None, str]:
        """The budget and the backbone, which methods to compare have in common."""
        return self.budget, self.backbone

    @property
    def key(self) -> dict[str, Any]:
        """The columns ``KEY`` of its rows."""
        return {
            "method": self.name,
            "settings": self.settings,
            "budget": self.budget,
            "backbone": self.backbone,
        }


def place_of(method: Method) -> tuple[str, str, int, str]:
    """Return where the rows of a method are in ``by_place``."""
    return method.name, method.settings, method.budget or 0, method.backbone


def by_place(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows by ``KEY``, with budget 0 for encoders without a training."""
    return rows.assign(budget=rows.budget.fillna(0)).set_index(KEY)


def methods(c: Comparison) -> list[Method]:
    """Return the methods with their trainings, the one with the best encoder first.

    Of several trainings with one seed, such as on two machines, the first label counts.
    """
    groups: dict[str, list[str]] = {}
    for label in c.labels:
        groups.setdefault(_identity(c, label), []).append(label)
    changed = _changed_settings(c, [group[0] for group in groups.values()])
    return [_method(c, group, changed[group[0]]) for group in groups.values()]


def by_method(c: Comparison, *, tasks: Tasks = "resampled", pooled: bool = False) -> pd.DataFrame:
    """Return one row per method and quantity: the mean over its trainings with an interval.

    Args:
        c: The results.
        tasks: Whether the mean of families stands for other families too.
        pooled: Whether the trainings of all methods at a budget are taken to vary alike. Intervals
            are narrower, and hold for a method with one training; they are too narrow for a method
            that varies more than the others (column ``std``).

    Returns:
        Columns: ``KEY``; ``over``, ``task``, ``metric``; ``mean``; ``low`` and ``high``, its 95 %
        interval; ``std``, the standard deviation over trainings (NaN for one); ``trainings``, their
        number (0 for an encoder without the card of one); ``note``.
    """
    rows, every = [], methods(c)
    for quantity in _quantities(c, every, tasks, pooled=pooled):
        for method in every:
            measured = _measure(c, quantity, method)
            row = {**method.key, **quantity.key, **measured, "mean": measured["value"]}
            rows.append(row | {"trainings": len(method.seeds)})
    columns = [*KEY, *_QUANTITY, "mean", "low", "high", "std", "trainings", "note"]
    return _frame(rows, columns, _judge(rows))


def differences(
    c: Comparison, reference: str = "", *, tasks: Tasks = "resampled", pooled: bool = False
) -> pd.DataFrame:
    """Return one row per pair of methods and quantity: the difference of their means.

    Args:
        c: The results.
        reference: Each method minus this one: the name of a method, with or without its settings
            ("crops", "crops lr=0.002"), which is compared at equal budget and backbone, or of an
            encoder without the card of a training, which is compared at every budget. "" for every
            two methods at equal budget and backbone, and every method against every encoder
            without a training.
        tasks: As for ``by_method``.
        pooled: As for ``by_method``.

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
    names = dict.fromkeys(chain(*((method.name, method.label) for method in every)))
    if reference and reference not in names:
        raise unknown("method in these results", reference, list(names))
    pairs = list(_pairs(every, reference))
    rows = []
    for quantity in _quantities(c, every, tasks, pooled=pooled):
        for first, second in pairs:
            measured = _measure(c, quantity, first, second)
            row = {**first.key, "reference": second.name, "reference_settings": second.settings}
            row |= {**quantity.key, **measured, "difference": measured["value"]}
            row |= {"trainings": len(first.seeds), "reference_trainings": len(second.seeds)}
            rows.append(row)
    frame = _frame(rows, [*KEY, *_PAIR], _judge(rows))
    frame["p_alone"] = frame.p
    frame["p"] = frame.groupby("over").p.transform(lambda p: stats.holm(p.to_numpy(float)))
    return frame


def ranks(
    c: Comparison, *, task: str = MEAN, tasks: Tasks = "resampled", pooled: bool = False
) -> pd.DataFrame:
    """Return the rank of each method at its budget, with an interval that covers every rank.

    The lowest rank is 1 plus the number of methods that are significantly better, the highest is
    the number of methods minus those significantly worse (Holm-corrected over all pairs of the
    budget), so that with 95 % probability all ranks of a budget are within their intervals.
    Encoders without a training are ranked at every budget of their backbone.

    Args:
        c: The results.
        task: Title of a task, name of a family, or ``MEAN``.
        tasks: As for ``by_method``.
        pooled: As for ``by_method``.

    Returns:
        Columns: ``KEY``, with the ``budget`` and ``backbone`` at which it is ranked; ``mean``;
        ``rank``, 1 is best; ``low``, ``high``; ``methods``, how many are ranked; ``note``.

    Raises:
        UsageError: There is no such task.
    """
    every = methods(c)
    quantities = _quantities(c, every, tasks, pooled=pooled)
    found = {quantity.name: quantity for quantity in quantities}
    if task not in found:
        raise unknown("task, family or mean in these results", task, list(found))
    rows = []
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
    by_name: dict[str, dict[str, dict[str, str]]] = {}
    words = dict.fromkeys(labels, "")
    for label in labels:
        card = c.encoders.at[label, "training"]
        if not _is_training(card):
            continue
        settings = {**card["recipe"], "stage": last_stage(card)}
        for setting, value in _encoder_settings(c, label).items():
            # Its attention, say, may be "native" whatever it was trained with.
            settings[f"encoder.{setting}" if setting in settings else setting] = value
        plain = {k: json.dumps(v).strip('"') for k, v in settings.items() if k != "backbone"}
        by_name.setdefault(card["method"], {})[label] = plain
    for alike in by_name.values():
        for label, own in alike.items():
            differing = [n for n in own if len({each.get(n) for each in alike.values()}) > 1]
            words[label] = ", ".join(f"{name}={own[name]}" for name in differing)
    return words


def _method(c: Comparison, labels: Sequence[str], settings: str) -> Method:
    first = c.encoders.loc[labels[0]]
    card = first.training
    if not _is_training(card):
        note = ONE if first.role == "method" else ""
        return Method(labels[0], "", None, first.backbone, (labels[0],), (), first.role, note)
    by_seed: dict[int, str] = {}
    for label in sorted(labels):
        by_seed.setdefault(c.encoders.at[label, "training"]["seed"], label)
    seeds = tuple(sorted(by_seed))
    notes = [ONE] if len(seeds) == 1 else []
    notes += [AGAIN] if len(seeds) < len(labels) else []
    return Method(
        card["method"],
        settings,
        card["budget"],
        first.backbone or first.base,
        tuple(by_seed[seed] for seed in seeds),
        seeds,
        first.role,
        "; ".join(notes),
    )


def _beside(method: Method, budget: int | None, backbone: str) -> bool:
    """Return whether a method can be compared with those of a budget on a backbone.

    An untrained backbone is compared with the methods on it, a reference model with all.
    """
    if method.seeds:
        return (method.budget, method.backbone) == (budget, backbone)
    return method.role == "reference" or method.backbone in {"", backbone}


def _pairs(every: Sequence[Method], reference: str) -> Iterator[tuple[Method, Method]]:
    """Yield the methods to compare, the reference second."""
    if reference:
        seconds = [m for m in every if reference in {m.name, m.label}]
        for second, first in product(seconds, every):
            if first is not second and _comparable(first, second):
                yield first, second
        return
    for first, second in combinations(every, 2):
        if (first.seeds or second.seeds) and _comparable(first, second):
            yield (first, second) if first.seeds else (second, first)


def _comparable(first: Method, second: Method) -> bool:
    """Return whether two methods are of one budget and backbone, as far as these are known."""
    trained, other = (first, second) if first.seeds else (second, first)
    always = not trained.seeds and trained.role == "reference"
    return always or _beside(other, trained.budget, trained.backbone)


# ---- quantities and their variance


@dataclass(frozen=True)
class _Quantity:
    """A task, the mean of a family, or the mean of families.

    ``pools`` has the variance of a training by budget and backbone, with its degrees of freedom,
    where it is pooled over methods.
    """

    over: str
    name: str
    metric: str
    found: stats.Sampled
    pools: Mapping[tuple[int | None, str], tuple[stats.Array, float]]

    @property
    def key(self) -> dict[str, str]:
        return {"over": self.over, "task": self.name, "metric": self.metric}


_QUANTITY = ["over", "task", "metric"]
_PAIR = [
    "reference", "reference_settings", *_QUANTITY, "difference", "low", "high", "p", "p_alone",
    "superiority", "detectable", "trainings", "reference_trainings", "note",
]  # fmt: skip


def _quantities(
    c: Comparison, every: Sequence[Method], tasks: Tasks, *, pooled: bool
) -> Iterator[_Quantity]:
    found = [("task", title, c.by_task[title]) for title in c.tasks.index[c.tasks.compared]]
    found += [("family", family, each) for family, each in c.by_family.items()]
    if len(c.by_family) > 1:
        resampled = tasks == "resampled"
        mean = _over_families(c.overall, list(c.by_family.values())) if resampled else c.overall
        found.append(("mean", MEAN, mean))
    for over, name, each in found:
        metric = c.tasks.at[name, "metric"] if over == "task" else ""
        pools = _pools(c, every, each) if pooled else {}
        yield _Quantity(over, name, metric, each, pools)


def _pools(
    c: Comparison, every: Sequence[Method], found: stats.Sampled
) -> dict[tuple[int | None, str], tuple[stats.Array, float]]:
    """Return the variance of a training by budget and backbone, over all methods there."""
    several: dict[tuple[int | None, str], list[Trainings]] = {}
    for method in every:
        scores = found.scores[c.numbers(method.encoders)]
        if len(scores) > 1 and np.isfinite(scores).all():
            several.setdefault(method.place, []).append(Trainings.of(scores))
    return {place: pool(trainings) for place, trainings in several.items()}


def _over_families(mean: stats.Sampled, families: Sequence[stats.Sampled]) -> stats.Sampled:
    """Return the mean of families with the families as its variance component.

    Their variance has that of their repeats and examples in it, but not what examples that two
    families share add to that of the mean.
    """
    k = len(families)
    own = stats.sampled(
        mean.scores, np.array([each.scores for each in families]), bounds=mean.bounds
    )
    if not mean.components:
        return own
    parts = chain(*(each.components for each in families))
    alone = sum(part.covariance for part in parts) / k**2
    together = np.sum([part.covariance for part in mean.components], axis=0)
    shared = replace(own.components[0], covariance=(together - alone) * k / (k - 1))
    return replace(own, components=(*own.components, shared))


def _measure(
    c: Comparison, quantity: _Quantity, first: Method, second: Method | None = None
) -> dict[str, Any]:
    """Return the mean of a method over its trainings, minus that of another one if there is one.

    With its variances, which ``_judge`` turns into intervals and the rest.
    """
    sides = [first] if second is None else [first, second]
    places = [c.numbers(side.encoders) for side in sides]
    scores = [quantity.found.scores[numbers] for numbers in places]
    value = scores[0].mean() - (scores[1].mean() if second else 0.0)
    shared = quantity.found.components
    pooled, trained = _trainings(quantity, sides, scores)
    between, fresh = (of_means(trained, pooled=pooled, fresh=each) for each in (False, True))
    told = bool(trained) and len(trained) == sum(
        bool(side.seeds) or side.role == "method" for side in sides
    )
    rest = Part.sum([(_shared(part.covariance, places), part.freedom) for part in shared])
    lowest, highest = quantity.found.bounds
    return {
        "value": value,
        "variances": (float(between.variance), float(rest.variance)),
        "freedoms": (float(between.freedom), float(rest.freedom)),
        "bounds": (lowest - highest, highest - lowest) if second else (lowest, highest),
        "std": scores[0].std(ddof=1) if len(scores[0]) > 1 else np.nan,
        "superiority": float(superiority(value, fresh)) if told else np.nan,
        "note": _note(sides, known=bool(shared), pooled=pooled),
    }


def _trainings(
    quantity: _Quantity, sides: Sequence[Method], scores: Sequence[stats.Array]
) -> tuple[bool, list[Trainings]]:
    """Return whether variances are pooled, and the trainings whose variance is known."""
    pools = [quantity.pools.get(side.place) for side in sides if side.seeds]
    if pools and pools[0]:
        counts = [len(side.seeds) for side in sides if side.seeds]
        return True, [Trainings(count, *pools[0]) for count in counts]
    return False, [Trainings.of(own) for own in scores if len(own) > 1]


def _shared(covariance: stats.Array, places: Sequence[NDArray[np.int64]]) -> float:
    """Return the variance of the difference of the means of one or two groups of encoders.

    Without the part that the variance between the trainings has in it as well.
    """
    numbers = np.concatenate(places)
    weights = np.concatenate(
        [sign * np.ones(len(n)) / len(n) for sign, n in zip((1, -1), places, strict=False)]
    )
    variance = weights @ covariance[np.ix_(numbers, numbers)] @ weights
    twice = [interaction(covariance[np.ix_(n, n)]) / len(n) for n in places if len(n) > 1]
    return float(np.maximum(variance - np.sum(twice), 0.0))


def _judge(measured: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return ``low``, ``high``, ``p`` and ``detectable`` of what ``_measure`` returns, in order."""
    n = len(measured)
    values = np.array([each["value"] for each in measured], np.float64)

    def pairs(name: str) -> tuple[stats.Array, stats.Array]:
        first, second = np.array([each[name] for each in measured], np.float64).reshape(n, 2).T
        return first, second

    parts = [Part(v, f) for v, f in zip(pairs("variances"), pairs("freedoms"), strict=True)]
    low, high = intervals(values, parts, pairs("bounds"))
    p, smallest = p_values(values, parts), detectable(parts)
    return pd.DataFrame({"low": low, "high": high, "p": p, "detectable": smallest})


def _note(sides: Sequence[Method], *, known: bool, pooled: bool) -> str:
    notes = [] if known else [UNKNOWN]
    for side in sides:
        note = side.note.replace(ONE, ALIKE) if pooled else side.note
        notes += [f"{side.label}: {note}" if len(sides) > 1 else note] if note else []
    return "; ".join(notes)


def _ranks(c: Comparison, quantity: _Quantity, ranked: Sequence[Method]) -> list[dict[str, Any]]:
    means = {}
    for method in ranked:
        means[method] = float(quantity.found.scores[c.numbers(method.encoders)].mean())
    known = sorted((m for m in ranked if np.isfinite(means[m])), key=lambda m: -means[m])
    pairs = list(combinations(known, 2))
    p = stats.holm(_judge([_measure(c, quantity, *pair) for pair in pairs]).p.to_numpy())
    better = [pair for pair, each in zip(pairs, p, strict=True) if each < 1 - stats.LEVEL]
    rows = []
    for method in ranked:
        rank = 1 + sum(means[other] > means[method] for other in known)
        row = {**method.key, "mean": means[method], "rank": rank, "note": method.note}
        row["low"] = 1 + sum(worse is method for _, worse in better)
        row["high"] = len(known) - sum(best is method for best, _ in better)
        rows.append(row | {"methods": len(known)})
    return sorted((row for row in rows if np.isfinite(row["mean"])), key=lambda row: row["rank"])


def _frame(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], judged: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Return rows, and what was judged of each, as a frame of these columns."""
    frame = pd.concat([pd.DataFrame(rows), judged], axis=1).reindex(columns=list(columns))
    frame["budget"] = frame.budget.astype("Int64")
    return frame
