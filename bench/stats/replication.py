"""Uncertainty of means over few trainings: variance components, each with its own t quantile.

A mean over trainings varies with the trainings, and with what all of them share: test examples,
repeats, or tasks. Resampling two or three trainings gives intervals that are far too narrow, so
each variance is estimated by its mean square. The half width of an interval is

    h^2 = t(f_1)^2 V_1 + t(f_2)^2 V_2

with the variance of the trainings and of what they share, each with Student's quantile at its
degrees of freedom, so that the interval covers at least at its nominal rate (Banerjee 1960, Sankhya
22). Within each of the two, components are added with the degrees of freedom of Welch (1947,
Biometrika 34) and Satterthwaite (1946, Biometrics Bulletin 2). One quantile for both would cover
too little with two trainings (docs/statistics.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import nctdtrinc, stdtr, stdtrit

from bench.stats import resampling

Array = NDArray[np.float64]

POWER = 0.8
"""Power at which a difference counts as detectable."""

_MOST = 1e4  # degrees of freedom of a variance that is as good as known
_SMALLEST, _HALVINGS = -46.0, 40  # natural logarithm of the smallest p-value, 1e-20; to 4e-11


@dataclass(frozen=True)
class Part:
    """One variance of some estimates.

    Attributes:
        variance: Of each estimate, (n,) or a number.
        freedom: Its degrees of freedom, likewise.
    """

    variance: Array
    freedom: Array

    @classmethod
    def sum(cls, squares: Sequence[tuple[Array | float, Array | float]]) -> Self:
        """Return the sum of independent mean squares, each with its degrees of freedom.

        Without any it is 0. The degrees of freedom are Welch's and Satterthwaite's.
        """
        variance, doubt = np.zeros(()), np.zeros(())
        for square, freedom in squares:
            variance, doubt = variance + square, doubt + np.square(square) / freedom
        with np.errstate(divide="ignore", invalid="ignore"):
            freedom = np.where(doubt > 0, variance**2 / doubt, _MOST)
        return cls(np.asarray(variance), np.asarray(np.clip(freedom, 1.0, _MOST)))


@dataclass(frozen=True)
class Trainings:
    """The trainings of one method.

    Attributes:
        count: How many there are, k.
        variance: The variance of the score of one training, (n,) or a number.
        freedom: Its degrees of freedom, k - 1 unless it is that of several methods.
    """

    count: int
    variance: Array
    freedom: float

    @classmethod
    def of(cls, scores: Array) -> Self:
        """Return the trainings with these scores, (..., k), k at least 2."""
        k = scores.shape[-1]
        return cls(k, np.asarray(scores.var(axis=-1, ddof=1)), k - 1)


def pool(methods: Sequence[Trainings]) -> tuple[Array, float]:
    """Return the variance of a training of methods that vary alike, and its degrees of freedom."""
    freedom = sum(method.freedom for method in methods)
    squares = sum((m.variance * m.freedom for m in methods), np.zeros(()))
    return np.asarray(squares / freedom), freedom


def of_means(methods: Sequence[Trainings], *, fresh: bool = False, pooled: bool = False) -> Part:
    """Return the variance that the trainings give to a mean, or to the difference of two.

    Args:
        methods: One method or two; an untrained one is left out.
        fresh: Of a fresh training, predicted from the mean, instead of the mean itself.
        pooled: Whether the methods have one variance in common, not one each.
    """
    each = [(m.variance * (1 / m.count + fresh), m.freedom) for m in methods]
    if not pooled or not each:
        return Part.sum(each)
    total = sum((variance for variance, _ in each), np.zeros(()))
    return Part(np.asarray(total), np.asarray(float(each[0][1])))


def interaction(covariance: Array) -> Array:
    """Return how far the scores of two trainings differ by the shared examples alone.

    It is the mean square of trainings times examples, as the variance of one score; the variance
    over examples of a mean over k trainings contains a k-th of it, and so does the variance between
    the trainings.

    Args:
        covariance: Of the scores of k trainings over the examples, (..., k, k).
    """
    k = covariance.shape[-1]
    own = np.trace(covariance, axis1=-2, axis2=-1)
    others = covariance.sum(axis=(-2, -1)) - own
    return np.asarray(np.maximum(own / k - others / (k * (k - 1)), 0.0))


def half_width(parts: Sequence[Part], alpha: Array | float = 1 - resampling.LEVEL) -> Array:
    """Return half the width of intervals that miss with probability alpha; NaN if nothing varies.

    Args:
        parts: The variance of the trainings and that of what they share.
        alpha: (n,) or a number.
    """
    total = np.zeros(())
    for part in parts:
        total = total + stdtrit(part.freedom, np.asarray(alpha) / 2) ** 2 * part.variance
    return np.asarray(np.sqrt(np.where(total > 0, total, np.nan)))


def intervals(
    values: Array, parts: Sequence[Part], bounds: tuple[Array | float, Array | float]
) -> tuple[Array, Array]:
    """Return the ends of 95 % intervals; one that would leave the bounds is Wilson's."""
    half = half_width(parts)
    low, high = values - half, values + half
    outside = (low < bounds[0]) | (high > bounds[1])
    if not np.any(outside):
        return low, high
    with np.errstate(invalid="ignore"):  # of rows without bounds
        wilson = resampling.wilson(values, half**2, bounds)
    return np.where(outside, wilson[0], low), np.where(outside, wilson[1], high)


def p_values(values: Array, parts: Sequence[Part]) -> Array:
    """Return for each value the alpha at which its interval ends at 0; NaN if nothing varies."""
    sizes = np.where(np.isfinite(half_width(parts)), np.abs(values), np.nan)
    low, high = np.full(sizes.shape, _SMALLEST), np.zeros(sizes.shape)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        wide = half_width(parts, np.exp(middle)) > sizes
        low, high = np.where(wide, middle, low), np.where(wide, high, middle)
    return np.where(np.isfinite(sizes), np.exp(high), np.nan)


def detectable(parts: Sequence[Part]) -> Array:
    """Return the smallest true difference that is significant with ``POWER``, at p < 0.05.

    In standard errors of a part it is the noncentrality at which Student's t exceeds its critical
    value with that probability (Bloom 1995, Evaluation Review 19); parts are added as in intervals.
    """
    total = np.zeros(())
    for part in parts:
        critical = stdtrit(part.freedom, (1 + resampling.LEVEL) / 2)
        total = total + nctdtrinc(part.freedom, 1 - POWER, critical) ** 2 * part.variance
    return np.asarray(np.sqrt(np.where(total > 0, total, np.nan)))


def superiority(difference: Array, fresh: Part) -> Array:
    """Return the probability that a fresh training of one method beats one of the other.

    Both are measured on the same test examples as the known trainings. It is the predictive
    probability of normal scores.

    Args:
        difference: Difference of the means over trainings, (n,) or a number.
        fresh: The variance of the difference of two fresh trainings, predicted from it.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(stdtr(fresh.freedom, difference / np.sqrt(fresh.variance)))
