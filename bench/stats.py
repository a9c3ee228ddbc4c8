"""How sure a difference between encoders is: paired bootstrap, correction for many comparisons, ranks.

A score over test examples is the mean of one contribution an example (``bench.influence``), so all encoders are resampled
together, by one matrix product; measuring a rank correlation again for every draw and encoder would take minutes.

Two things can vary, test examples and repeats (seeds, draws, folds); where both are known their deviations are drawn apart and
added. Intervals are percentiles of the draws, widened for small samples as t is wider than the normal distribution (after
Hesterberg 2015, The American Statistician 69(4)); one that would leave the range of its metric is Wilson's (1927), with the variance of
the score in place of a proportion's. p-values are those of a t test on the same contributions, since no share of
1,000 draws is small enough to survive a correction for many comparisons.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

DRAWS = 1000
"""Number of bootstrap draws."""

SEED = 0
"""Seed of the draws."""

LEVEL = 0.95
"""Coverage of every interval."""

_ROUNDING = 1e-6  # of draws in single precision
_BLOCK = 8_000_000  # resampled examples counted at once: 64 MB


@dataclass(frozen=True)
class Part:
    """One source of chance in the scores of m encoders.

    Attributes:
        covariance: Of the encoders' scores, (m, m); NaN for an encoder that is not paired with the others.
        freedom: Degrees of freedom it is known with.
    """

    covariance: Array
    freedom: int


@dataclass(frozen=True)
class Sampled:
    """Scores of m encoders with what is known of their chance.

    Attributes:
        scores: (m,), NaN for an encoder without one.
        draws: Deviations from the scores, (m, draws), the same resample for all encoders.
        parts: The sources of chance; none where nothing was measured more than once.
        bounds: The least and the greatest value that a score can have.
    """

    scores: Array
    draws: NDArray[np.floating]
    parts: tuple[Part, ...]
    bounds: tuple[float, float] = (-np.inf, np.inf)


@dataclass(frozen=True)
class Estimates:
    """Numbers with their intervals and p-values, arrays of one shape; NaN where nothing is known.

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


def sampled(
    scores: Array,
    *sources: NDArray[np.floating],
    draws: int = DRAWS,
    seed: int = SEED,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Sampled:
    """Return the scores with their bootstrap draws.

    Args:
        scores: (m,), one score an encoder.
        sources: (n, m) each: what every example, or every repeat, contributes to the scores; their mean is the score. NaN
            columns are encoders that cannot be paired.
        draws: Number of resamples.
        seed: Seed of the resamples; equal n and seed give equal ones.
        bounds: The least and the greatest value that a score can have.
    """
    total = np.zeros((len(scores), draws), np.float32)
    parts = []
    for i, source in enumerate(sources):
        n = len(source)
        centred = np.where(
            np.ptp(source, axis=0) == 0, 0.0, source - source.mean(axis=0)
        )  # rounding is no variance
        parts.append(Part(centred.T @ centred / (n * (n - 1)), n - 1))
        total += np.sqrt(n / (n - 1)) * resampled_means(centred.astype(np.float32), draws, seed + i)
    return Sampled(np.asarray(scores, np.float64), total, tuple(parts), bounds)


def resampled_means(values: NDArray[np.float32], draws: int, seed: int) -> NDArray[np.float32]:
    """Return the means of the columns of (n, m) over ``draws`` resamples of the rows: (m, draws)."""
    n = len(values)
    rng = np.random.default_rng([seed, n])
    step = max(1, _BLOCK // n)
    blocks = []
    for start in range(0, draws, step):
        size = min(step, draws - start)
        picked = rng.integers(n, size=(size, n), dtype=np.uint16 if n <= 1 << 16 else np.uint32)
        rows = picked + n * np.arange(size, dtype=np.int64)[:, None]
        counts = np.bincount(rows.ravel(), minlength=size * n).reshape(size, n)
        with _threads().limit(
            limits=1
        ):  # the sums, and so the last digits, would depend on the number of threads
            blocks.append(values.T @ counts.T.astype(np.float32) / n)
    return np.concatenate(blocks, axis=1)


@cache
def _threads() -> Any:  # noqa: ANN401 - threadpoolctl is not typed
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def mean_of(each: Sequence[Sampled]) -> Sampled:
    """Return the mean of several scores of the same encoders; its chance is known where that of each is.

    Their chances are added as if they were independent. Those of tasks on the same texts are not: their mean is less sure than this says.
    """
    k = len(each)
    known = all(one.parts for one in each)
    parts = (
        tuple(Part(part.covariance / k**2, part.freedom) for one in each for part in one.parts)
        if known
        else ()
    )
    return Sampled(
        np.mean([one.scores for one in each], axis=0),
        np.mean([one.draws for one in each], axis=0),
        parts,
        (sum(one.bounds[0] for one in each) / k, sum(one.bounds[1] for one in each) / k),
    )


def intervals(found: Sampled) -> Estimates:
    """Return the scores (m,) with their intervals; p is against 0."""
    return _estimates(
        found.scores,
        found.draws,
        [(part.covariance.diagonal(), part.freedom) for part in found.parts],
        found.bounds,
    )


def differences(found: Sampled, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Estimates:
    """Return the score of each encoder in ``rows`` minus that of its partner in ``columns``, with interval and p-value."""
    gaps = found.scores[rows] - found.scores[columns]
    widest = found.bounds[1] - found.bounds[0]
    return _estimates(
        gaps,
        found.draws[rows] - found.draws[columns],
        _variances(found, rows, columns),
        (-widest, widest),
    )


def p_values(found: Sampled, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Array:
    """Return the p-values of the same differences; without their intervals, which take longer."""
    return _test(found.scores[rows] - found.scores[columns], _variances(found, rows, columns))[1]


def _variances(
    found: Sampled, rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> list[tuple[Array, int]]:
    own = [(part, part.covariance.diagonal()) for part in found.parts]
    each = [(part, v[rows] + v[columns] - 2 * part.covariance[rows, columns]) for part, v in own]
    return [
        (np.maximum(variance, 0.0), part.freedom) for part, variance in each
    ]  # rounding may take it below 0


def _test(values: Array, variances: Sequence[tuple[Array, int]]) -> tuple[Array | int, Array]:
    """Return degrees of freedom, by Welch and Satterthwaite, and two-sided p-values; NaN where nothing is known.

    What never varies is known to be equal, but not known to differ.
    """
    from scipy.special import stdtr

    if not variances:
        return 1, np.full(values.shape, np.nan)
    variance = np.sum([v for v, _ in variances], axis=0)
    freedom: Array | int = variances[0][1]
    with np.errstate(divide="ignore", invalid="ignore"):
        if len(variances) > 1:
            freedom = np.where(
                variance > 0, variance**2 / np.sum([v**2 / f for v, f in variances], axis=0), 1.0
            )
        t = np.abs(values) / np.sqrt(variance)
    p = np.where(variance > 0, 2 * stdtr(freedom, -t), np.where(values == 0, 1.0, np.nan))
    return freedom, np.where(np.isfinite(variance) & np.isfinite(values), p, np.nan)


def _estimates(
    values: Array,
    deviations: NDArray[np.floating],
    variances: Sequence[tuple[Array, int]],
    bounds: tuple[float, float],
) -> Estimates:
    """Return percentile intervals, widened for the degrees of freedom; Wilson's where these leave the bounds."""
    from scipy.special import ndtri, stdtrit

    freedom, p = _test(values, variances)
    tail = (1 - LEVEL) / 2
    wider = stdtrit(freedom, tail) / ndtri(tail)
    ordered = np.sort(deviations, axis=1)
    place = int(tail * deviations.shape[1])
    low, high = values + wider * ordered[:, place], values + wider * ordered[:, -1 - place]
    outside = (low < bounds[0] - _ROUNDING) | (high > bounds[1] + _ROUNDING)
    if outside.any():
        wilson = _wilson(values, stdtrit(freedom, tail) ** 2 * sum(v for v, _ in variances), bounds)
        low, high = (np.where(outside, *ends) for ends in zip(wilson, (low, high), strict=True))
    low, high = np.clip(low, *bounds), np.clip(high, *bounds)
    return Estimates(
        values, np.where(np.isnan(p), np.nan, low), np.where(np.isnan(p), np.nan, high), p
    )


def _wilson(values: Array, squares: Array, bounds: tuple[float, float]) -> tuple[Array, Array]:
    """Return the ends of Wilson's score intervals, which lie within the bounds.

    Args:
        values: The estimates (m,).
        squares: The squared half width that each would have around its estimate (m,).
        bounds: The least and the greatest value there can be.
    """
    lowest, width = bounds[0], bounds[1] - bounds[0]
    share = np.clip((values - lowest) / width, 0.0, 1.0)
    square, variance = squares / width**2, share * (1 - share)
    with np.errstate(divide="ignore", invalid="ignore"):
        # z^2 / n, where n makes the variance of a proportion the one that was measured
        ratio = square / variance
        centre, half = share + ratio / 2, np.sqrt(square + ratio**2 / 4)
        low, high = (centre - half) / (1 + ratio), (centre + half) / (1 + ratio)
    inner = variance > 0  # at a bound itself the interval is the whole range
    return (
        lowest + width * np.where(inner, low, 0.0),
        lowest + width * np.where(inner, high, 1.0),
    )


def holm(p: Array) -> Array:
    """Return p-values corrected for their number (Holm 1979); NaN ones stay and do not count."""
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    corrected = np.full(p.shape, np.nan)
    corrected[order] = np.minimum(
        np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)), 1.0
    )
    return corrected


def mean_ranks(scores: Array) -> Array:
    """Return each encoder's mean rank over tasks (m,), 1 is best, ties share theirs.

    Args:
        scores: (tasks, m), without gaps.
    """
    from scipy.stats import rankdata

    return np.asarray(rankdata(-scores, axis=1).mean(axis=0))


def friedman(scores: Array) -> float:
    """Return the p-value of Friedman's test that all encoders rank alike; NaN for fewer than three encoders or two tasks."""
    from scipy.stats import friedmanchisquare

    tasks, m = scores.shape
    if m < 3 or tasks < 2 or (scores == scores[:, :1]).all():
        return float("nan")
    return float(friedmanchisquare(*scores.T).pvalue)


def critical_difference(m: int, tasks: int) -> float:
    """Return by how much two mean ranks of m encoders must differ over this many tasks (Nemenyi, as in Demšar 2006, level 0.05)."""
    from scipy.stats import studentized_range

    return float(
        studentized_range.ppf(LEVEL, m, np.inf) / np.sqrt(2) * np.sqrt(m * (m + 1) / (6 * tasks))
    )
