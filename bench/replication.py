"""Uncertainty of a mean over few trainings: variance components with t quantiles.

An estimate has independent variance components, each with its degrees of freedom: the trainings of
one method, those of the other, tasks, test examples, repeats. Resampling two or three trainings
gives intervals that are too narrow, so each component is estimated, and the quantile is Student's
with the degrees of freedom of Welch (1947) and Satterthwaite (1946).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import nctdtrinc, stdtr, stdtrit

from bench import stats

Array = NDArray[np.float64]

POWER = 0.8
"""Power at which a difference counts as detectable."""

_MOST = 1e6  # degrees of freedom of a variance that is as good as known


@dataclass(frozen=True)
class Component:
    """One variance component of some estimates.

    Attributes:
        variance: Its part of the variance of each estimate, (n,) or a number.
        freedom: Its degrees of freedom, (n,) or a number.
    """

    variance: Array | float
    freedom: Array | float


def total(components: Sequence[Component]) -> Component:
    """Return the sum of independent components, with Satterthwaite's degrees of freedom.

    NaN where there is no component, or where none varies.
    """
    if not components:
        return Component(np.nan, 1.0)
    variance = np.sum([np.asarray(each.variance) for each in components], axis=0)
    terms = [np.asarray(each.variance) ** 2 / each.freedom for each in components]
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = np.clip(variance**2 / np.sum(terms, axis=0), 1.0, _MOST)
    return Component(np.where(variance > 0, variance, np.nan), freedom)


def estimate(values: Array, components: Sequence[Component]) -> stats.Estimates:
    """Return the values with 95 % intervals and two-sided p-values against 0.

    Args:
        values: The estimates, (n,) or a number.
        components: Their variance components.
    """
    whole = total(components)
    stderr = np.sqrt(whole.variance)
    half = stdtrit(whole.freedom, (1 + stats.LEVEL) / 2) * stderr
    p = 2 * stdtr(whole.freedom, -np.abs(values) / stderr)
    return stats.Estimates(np.asarray(values, np.float64), values - half, values + half, p)


def detectable(components: Sequence[Component]) -> Array:
    """Return the smallest true difference that is significant with ``POWER``, at p < 0.05.

    The difference in standard errors is the noncentrality at which Student's t exceeds its
    critical value with that probability.
    """
    whole = total(components)
    critical = stdtrit(whole.freedom, (1 + stats.LEVEL) / 2)
    return np.asarray(nctdtrinc(whole.freedom, 1 - POWER, critical) * np.sqrt(whole.variance))


def superiority(difference: Array, components: Sequence[Component]) -> Array:
    """Return the probability that a fresh training of one method beats one of the other.

    Args:
        difference: Difference of the means over trainings, (n,) or a number.
        components: Of the difference between two fresh trainings, given the means: the variance of
            a training times 1 + 1/k, of each method that is trained.
    """
    whole = total(components)
    return np.asarray(stdtr(whole.freedom, np.asarray(difference) / np.sqrt(whole.variance)))
