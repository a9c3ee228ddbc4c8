"""Statistics of comparisons: paired bootstrap, correction for multiple comparisons, ranks.

A score over test examples is the mean of one contribution per example
(``bench.stats.influence``), so all encoders are resampled together, by one matrix product.

There are up to two variance components: test examples and repeats (seeds, draws, folds). Where both
are known, their deviations are resampled separately and added. In a mean over tasks the examples
that several of them share are resampled together. Intervals are percentiles of the
bootstrap, widened for small samples as t is wider than the normal distribution (after Hesterberg
2015, The American Statistician 69(4)). An interval that would leave the range of its metric is
Wilson's (1927), with the variance of the score in place of that of a proportion. p-values come from
a t test on the same contributions: 1,000 resamples cannot give a p-value small enough to survive a
correction for many comparisons.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

DRAWS = 1000
"""Number of bootstrap resamples."""

SEED = 0
"""Seed of the resamples."""

LEVEL = 0.95
"""Coverage of every interval."""

_ROUNDING = 1e-6  # of resamples in single precision
_BLOCK = 8_000_000  # resampled examples counted at once: 64 MB


@dataclass(frozen=True)
class VarianceComponent:
    """One variance component of the scores of m encoders.

    Attributes:
        covariance: Of the encoders' scores, (m, m); NaN for an encoder that is not paired.
        freedom: Its degrees of freedom.
        draws: Deviations from the scores, (m, draws), one resample for all encoders.
        parts: What each example adds to the deviation of the scores, (n, m), so that ``parts.T @
            parts`` is the covariance; empty where the examples have no ids.
        ids: The examples, uint64 (n,); of several with one id the parts are added.
    """

    covariance: Array
    freedom: int
    draws: NDArray[np.float32]
    parts: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), np.float32))
    ids: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))


@dataclass(frozen=True)
class Estimates:
    """Numbers with intervals and p-values, arrays of one shape; NaN where nothing is known.

    Attributes:
        value: The estimates.
        low: Lower ends of their intervals.
        high: Upper ends.
        p: Two-sided p-values against 0.
    """

    value: Array
    low: Array
    high: Array
    p: Array

    def take(self, numbers: NDArray[np.int64]) -> "Estimates":
        """Return some of them, in this order."""
        return Estimates(*(array[numbers] for array in (self.value, self.low, self.high, self.p)))

    def bounds(self) -> list[tuple[float, float] | None]:
        """Return the ends of each interval, to six digits; None where it is not known."""
        ends = zip(self.low.round(6).tolist(), self.high.round(6).tolist(), strict=True)
        return [None if np.isnan(low) else (low, high) for low, high in ends]


@dataclass(frozen=True)
class Sampled:
    """Scores of m encoders with their bootstrap distribution.

    Attributes:
        scores: (m,), NaN for an encoder without a score.
        components: The variance components; none where nothing was measured more than once.
        bounds: The range of the metric.
    """

    scores: Array
    components: tuple[VarianceComponent, ...]
    bounds: tuple[float, float] = (-np.inf, np.inf)

    @cached_property
    def draws(self) -> NDArray[np.floating]:
        """Deviations from the scores over all components, (m, draws); (m, 1) without any."""
        nothing = np.zeros((len(self.scores), 1), np.float32)
        return np.asarray(np.sum([each.draws for each in self.components] or [nothing], axis=0))

    @cached_property
    def intervals(self) -> Estimates:
        """The scores (m,) with their intervals; p is against 0."""
        variances = [(each.covariance.diagonal(), each.freedom) for each in self.components]
        return _estimates(self.scores, self.draws, variances, self.bounds)


def sampled(
    scores: Array,
    *sources: NDArray[np.floating],
    draws: int = DRAWS,
    ids: NDArray[np.uint64] | None = None,
    seed: int = SEED,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Sampled:
    """Return the scores with their bootstrap distribution.

    Args:
        scores: (m,), one score per encoder.
        sources: (n, m) each: the contribution of every example, or every repeat, to the scores;
            their mean is the score. NaN columns are encoders that cannot be paired.
        draws: Number of resamples.
        ids: uint64 (n,), what the rows of the first source are (``Score.ids``).
        seed: Seed of the resamples; equal n and seed give equal resamples.
        bounds: The range of the metric.
    """
    components = []
    for i, source in enumerate(sources):
        n = len(source)
        constant = np.ptp(source, axis=0) == 0  # rounding is no variance
        centred = np.where(constant, 0.0, source - source.mean(axis=0))
        covariance = centred.T @ centred / (n * (n - 1))
        means = resampled_means(centred.astype(np.float32), draws, seed + i)
        component = VarianceComponent(
            covariance, n - 1, (np.sqrt(n / (n - 1)) * means).astype(np.float32)
        )
        if ids is not None and not i:
            parts = (centred / np.sqrt(n * (n - 1))).astype(np.float32)
            component = replace(component, parts=parts, ids=ids)
        components.append(component)
    return Sampled(np.asarray(scores, np.float64), tuple(components), bounds)


def resampled_means(values: NDArray[np.float32], draws: int, seed: int) -> NDArray[np.float32]:
    """Return the column means of (n, m) over ``draws`` resamples of the rows: (m, draws)."""
    n = len(values)
    rng = np.random.default_rng([seed, n])
    step = max(1, _BLOCK // n)
    blocks = []
    for start in range(0, draws, step):
        size = min(step, draws - start)
        picked = rng.integers(n, size=(size, n), dtype=np.uint16 if n <= 1 << 16 else np.uint32)
        rows = picked + n * np.arange(size, dtype=np.int64)[:, None]
        counts = np.bincount(rows.ravel(), minlength=size * n).reshape(size, n)
        # The last digits of the sums would depend on the number of threads.
        with _threads().limit(limits=1):
            blocks.append(values.T @ counts.T.astype(np.float32) / n)
    return np.concatenate(blocks, axis=1)


@cache
def _threads() -> Any:  # noqa: ANN401 - threadpoolctl is not typed
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def mean_of(each: Sequence[Sampled]) -> Sampled:
    """Return the mean of several scores of the same encoders.

    Its variance is known where that of each score is. Examples that several scores share by their
    ids are resampled together; all others are independent.
    """
    k = len(each)
    known = all(one.components for one in each)
    parts = chain(*(one.components for one in each)) if known else ()
    components = [_scale(part, 1 / k) for part in parts]
    lows, highs = zip(*(one.bounds for one in each), strict=True)
    return Sampled(
        np.mean([one.scores for one in each], axis=0),
        tuple(_join(group) for group in _sharing(components)),
        (sum(lows) / k, sum(highs) / k),
    )


def _scale(part: VarianceComponent, by: float) -> VarianceComponent:
    return replace(
        part,
        covariance=part.covariance * by**2,
        draws=part.draws * np.float32(by),
        parts=part.parts * np.float32(by),
    )


def _sharing(components: Sequence[VarianceComponent]) -> list[list[VarianceComponent]]:
    """Return the components in groups that share examples, directly or through others."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    k = len(components)
    if not k:
        return []
    ids, places = np.unique(np.concatenate([c.ids for c in components]), return_inverse=True)
    owners = np.repeat(np.arange(k), [len(c.ids) for c in components])
    edges = coo_array((np.ones(len(owners)), (owners, k + places)), shape=(k + len(ids),) * 2)
    labels = connected_components(edges, directed=False)[1][:k]
    groups: dict[int, list[VarianceComponent]] = {}
    for component, label in zip(components, labels.tolist(), strict=True):
        groups.setdefault(label, []).append(component)
    return list(groups.values())


def _join(components: Sequence[VarianceComponent]) -> VarianceComponent:
    """Return the sum of components that share examples, resampled together."""
    if len(components) == 1:
        return components[0]
    ids, places = np.unique(np.concatenate([each.ids for each in components]), return_inverse=True)
    parts = np.zeros((len(ids), components[0].parts.shape[1]), np.float32)
    np.add.at(parts, places, np.concatenate([each.parts for each in components]))
    n, draws = len(ids), components[0].draws.shape[1]
    wide = parts.astype(np.float64)
    means = resampled_means(n * parts, draws, SEED)
    return VarianceComponent(wide.T @ wide, n - 1, means, parts, ids)


def differences(
    found: Sampled, rows: NDArray[np.int64], columns: NDArray[np.int64] | int
) -> Estimates:
    """Return the scores of the encoders in ``rows`` minus those of their partners in ``columns``.

    Args:
        found: The scores.
        rows: Numbers of encoders (n,).
        columns: Numbers of their partners (n,), or the one of all.
    """
    gaps = found.scores[rows] - found.scores[columns]
    widest = found.bounds[1] - found.bounds[0]
    draws = found.draws[rows] - found.draws[columns]
    return _estimates(gaps, draws, _variances(found, rows, columns), (-widest, widest))


def corrected_p(found: Sequence[Sampled]) -> Array:
    """Return the p-value of every pair of m encoders on every score, Holm-corrected over all.

    Returns:
        (scores, m, m), symmetric; NaN where a p-value is not known, and on the diagonals.
    """
    m = len(found[0].scores) if found else 0
    first, second = np.triu_indices(m, 1)
    p = [
        _test(one.scores[first] - one.scores[second], _variances(one, first, second))[1]
        for one in found
    ]
    square = np.full((len(found), m, m), np.nan)
    square[:, first, second] = holm(np.array(p).ravel()).reshape(len(found), len(first))
    square[:, second, first] = square[:, first, second]
    return square


def _variances(
    found: Sampled, rows: NDArray[np.int64], columns: NDArray[np.int64] | int
) -> list[tuple[Array, int]]:
    variances = []
    for component in found.components:
        own = component.covariance.diagonal()
        variance = own[rows] + own[columns] - 2 * component.covariance[rows, columns]
        variances.append((np.maximum(variance, 0.0), component.freedom))  # rounding may be negative
    return variances


def _test(values: Array, variances: Sequence[tuple[Array, int]]) -> tuple[Array | int, Array]:
    """Return degrees of freedom (Welch and Satterthwaite) and two-sided p-values.

    NaN where nothing is known. Equal values that never vary have p = 1, different ones NaN.
    """
    from scipy.special import stdtr

    if not variances:
        return 1, np.full(values.shape, np.nan)
    variance = np.sum([v for v, _ in variances], axis=0)
    freedom: Array | int = variances[0][1]
    with np.errstate(divide="ignore", invalid="ignore"):
        if len(variances) > 1:
            terms = np.sum([v**2 / f for v, f in variances], axis=0)
            freedom = np.where(variance > 0, variance**2 / terms, 1.0)
        t = np.abs(values) / np.sqrt(variance)
    p = np.where(variance > 0, 2 * stdtr(freedom, -t), np.where(values == 0, 1.0, np.nan))
    return freedom, np.where(np.isfinite(variance) & np.isfinite(values), p, np.nan)


def _estimates(
    values: Array,
    deviations: NDArray[np.floating],
    variances: Sequence[tuple[Array, int]],
    bounds: tuple[float, float],
) -> Estimates:
    """Return percentile intervals, widened for few degrees of freedom; Wilson's at the bounds."""
    from scipy.special import ndtri, stdtrit

    freedom, p = _test(values, variances)
    tail = (1 - LEVEL) / 2
    wider = stdtrit(freedom, tail) / ndtri(tail)
    place = int(tail * deviations.shape[1])
    ends = [place, deviations.shape[1] - 1 - place]
    ordered = np.partition(deviations, ends, axis=1)
    low, high = (values + wider * ordered[:, end] for end in ends)
    outside = (low < bounds[0] - _ROUNDING) | (high > bounds[1] + _ROUNDING)
    if outside.any():
        squares = stdtrit(freedom, tail) ** 2 * sum(v for v, _ in variances)
        wilson_low, wilson_high = wilson(values, squares, bounds)
        low, high = np.where(outside, wilson_low, low), np.where(outside, wilson_high, high)
    low, high = np.clip(low, *bounds), np.clip(high, *bounds)
    at_end = (values <= bounds[0]) | (values >= bounds[1])
    unknown = np.isnan(p) | (at_end & (low == high))  # none is right, or all: nothing ever varied
    return Estimates(values, *(np.where(unknown, np.nan, each) for each in (low, high, p)))


def wilson(
    values: Array, squares: Array, bounds: tuple[Array | float, Array | float]
) -> tuple[Array, Array]:
    """Return the ends of Wilson's score intervals, which lie within the bounds.

    Args:
        values: The estimates (m,).
        squares: The squared half width of a symmetric interval (m,).
        bounds: The range of the metric.
    """
    lowest, width = bounds[0], bounds[1] - bounds[0]
    share = np.clip((values - lowest) / width, 0.0, 1.0)
    square, variance = squares / width**2, share * (1 - share)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = square / variance  # z^2 / n, where a proportion of n has the measured variance
        centre, half = share + ratio / 2, np.sqrt(square + ratio**2 / 4)
        low, high = (centre - half) / (1 + ratio), (centre + half) / (1 + ratio)
    inner = variance > 0  # at a bound itself the interval is the whole range
    return (
        lowest + width * np.where(inner, low, 0.0),
        lowest + width * np.where(inner, high, 1.0),
    )


def holm(p: Array) -> Array:
    """Return p-values corrected for multiple comparisons (Holm 1979); NaN ones do not count."""
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    stepped = np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1))
    corrected = np.full(p.shape, np.nan)
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected


def mean_ranks(scores: Array) -> Array:
    """Return each encoder's mean rank over tasks (m,); 1 is best, ties share theirs.

    Args:
        scores: (tasks, m), without gaps.
    """
    from scipy.stats import rankdata

    return np.asarray(rankdata(-scores, axis=1).mean(axis=0))


def friedman(scores: Array) -> float:
    """Return the p-value of Friedman's test that all encoders rank alike.

    NaN for fewer than three encoders or two tasks.

    Args:
        scores: (tasks, m), without gaps.
    """
    from scipy.stats import friedmanchisquare

    tasks, m = scores.shape
    if m < 3 or tasks < 2 or (scores == scores[:, :1]).all():
        return float("nan")
    return float(friedmanchisquare(*scores.T).pvalue)
