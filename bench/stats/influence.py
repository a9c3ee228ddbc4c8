"""Contributions of test examples to a score: their mean is the score, so it can be resampled.

For accuracy, whether the example is right; for ratios of counts such as F1, Spearman, AUROC and
average precision, the score plus the example's influence on it, which is the infinitesimal
jackknife (Efron 1982, section 6); for AUROC, the placements of DeLong et al. (1988).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_SIGNED = re.compile(
    "spearman|pearson|kendall|correlation|gap|delta|minus|mcc|nauc|p-mrr|_ari|_ami|silhouette"
)
_ROUNDING = 1e-6


AGREE = 1e-4
"""How well the mean of float32 contributions must match the score, or they are not used."""


def contributions(metric: str, values: NDArray[np.floating], gold: NDArray[np.floating]) -> Array:
    """Return the contribution of each test example to a score; their mean is the score.

    Args:
        metric: Name of the metric; its ending chooses the formula.
        values: (n,), the similarity of each example, or its correctness.
        gold: (n,), the gold similarity or class; empty where ``values`` is the correctness.

    Returns:
        float64 (n,), all NaN for a metric without a formula.
    """
    x = np.asarray(values, np.float64)
    if not len(gold):
        return x
    influence = _INFLUENCE.get(metric.rpartition("_")[2])
    return influence(x, np.asarray(gold, np.float64)) if influence else np.full(len(x), np.nan)


def bounds(metric: str, values: NDArray[np.floating]) -> tuple[float, float]:
    """Return the range of a score: 0 to 1, or -1 to 1 for correlations and differences.

    Args:
        metric: Name of the metric.
        values: Measured values, NaN for missing ones; with one beyond 1 there is no range.
    """
    seen = values[np.isfinite(values)]
    if (np.abs(seen) > 1 + _ROUNDING).any():
        return -np.inf, np.inf
    signed = bool(_SIGNED.search(metric.lower())) or bool((seen < -_ROUNDING).any())
    return (-1.0 if signed else 0.0), 1.0


def of_ratio(above: NDArray[np.number], below: NDArray[np.number]) -> Array:
    """Return contributions to a ratio of two sums: precision, recall or micro-averaged F1.

    Args:
        above: (n,), terms of the numerator; of F1 twice the true positives of each example.
        below: (n,), terms of the denominator, not all 0; of F1 the predicted plus the gold
            entities.

    Returns:
        float64 (n,), whose mean is the ratio.
    """
    mean = float(np.mean(below))
    ratio = float(np.mean(above)) / mean
    return np.asarray(ratio + (above - ratio * below) / mean)


@dataclass(frozen=True)
class _Order:
    """The order of n numbers.

    Attributes:
        order: The numbers' places, smallest first.
        less: How many are smaller than each one.
        most: How many are smaller or equal.
    """

    order: NDArray[np.int64]
    less: NDArray[np.int64]
    most: NDArray[np.int64]

    @classmethod
    def of(cls, x: Array) -> Self:
        order = np.argsort(x, kind="stable")
        begins = np.append(True, np.diff(x[order]) != 0)  # of runs of equal numbers
        firsts, run = np.flatnonzero(begins), np.cumsum(begins) - 1
        less, most = np.empty(len(x), np.int64), np.empty(len(x), np.int64)
        less[order], most[order] = firsts[run], np.append(firsts[1:], len(x))[run]
        return cls(order, less, most)

    def ranks(self) -> Array:
        """Return the mid-ranks as shares of n, minus a half."""
        return np.asarray((self.less + self.most) / (2 * len(self.order)) - 0.5)

    def below(self, values: NDArray[np.generic]) -> tuple[Array, Array]:
        """Return for each number the sums of ``values`` over smaller and over not larger ones."""
        sums = np.append(0.0, np.cumsum(np.asarray(values, np.float64)[self.order]))
        return sums[self.less], sums[self.most]

    def mean_above(self, values: NDArray[np.generic]) -> Array:
        """Return for each number the sum of ``values`` over larger ones, divided by n.

        Equal ones count half.
        """
        less, most = self.below(values)
        total = np.asarray(values, np.float64).sum()
        return np.asarray((total - (less + most) / 2) / len(self.order))


def _spearman(x: Array, y: Array) -> Array:
    """Spearman's rho plus each example's influence on it.

    With u and v the centred mid-ranks as shares, rho = A / sqrt(B C) where A, B, C are the means of
    u v, u u and v v. Each is a cubic form in the weights of the examples, since a rank is a sum of
    weights.
    """
    left, right = _Order.of(x), _Order.of(y)
    u, v = left.ranks(), right.ranks()
    a, b, c = (u * v).mean(), (u * u).mean(), (v * v).mean()
    if not b or not c:
        return np.zeros(len(x))
    da = u * v + left.mean_above(v) + right.mean_above(u) - 3 * a
    db = u * u + 2 * left.mean_above(u) - 3 * b
    dc = v * v + 2 * right.mean_above(v) - 3 * c
    rho = a / np.sqrt(b * c)
    return np.asarray(rho + da / np.sqrt(b * c) - rho / 2 * (db / b + dc / c))


def _auroc(x: Array, y: Array) -> Array:
    """Area under the ROC curve plus each example's influence on it."""
    right, order = y > 0, _Order.of(x)
    share = right.mean()
    if not 0 < share < 1:
        return np.full(len(x), np.nan)
    above, other = order.mean_above(right) / share, order.mean_above(~right) / (1 - share)
    placements = np.where(
        right, 1 - other, above
    )  # of the pairs with the other class: the share that is in order
    area = placements[right].mean()
    return np.asarray(area + (placements - area) / np.where(right, share, 1 - share))


def _ap(x: Array, y: Array) -> Array:
    """Average precision plus each example's influence on it; tied examples share a threshold."""
    right, order = (y > 0).astype(np.float64), _Order.of(x)
    if not right.any():
        return np.full(len(x), np.nan)
    ends = len(x) - order.less  # how many examples are at or above each one
    precision = (right.sum() - order.below(right)[0]) / ends
    score = precision[right > 0].mean()
    falls = order.below(right * precision / ends)[1]
    rises = order.below(right / ends)[1]
    return np.asarray(
        score + len(x) / right.sum() * (right * (precision - score) + right * rises - falls)
    )


_INFLUENCE: dict[str, Callable[[Array, Array], Array]] = {
    "spearman": _spearman,
    "auroc": _auroc,
    "ap": _ap,
}
