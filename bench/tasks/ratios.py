"""Scores that are ratios of counts over test examples: precision, recall, F1."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bench.stats.influence import of_ratio
from bench.task import Score

Counts = NDArray[np.number]


def f1_score(repeats: Sequence[tuple[Counts, Counts, Counts]]) -> Score | None:
    """Return micro-averaged F1.

    Args:
        repeats: For each repeat, what each test example adds: how many are right, how many are
            found, and how many should be.

    Returns:
        None where nothing is found or asked for in any repeat; such repeats are left out.
    """
    return ratio_score([(2 * right, found + wanted) for right, found, wanted in repeats])


def ratio_score(repeats: Sequence[tuple[Counts, Counts]]) -> Score | None:
    """Return the ratio of two sums.

    Args:
        repeats: For each repeat, what each test example (n,) adds above and below the line.

    Returns:
        None where the sum below the line is 0 in every repeat; repeats where it is are left out,
        since the ratio is not defined.
    """
    each = [of_ratio(above, below) for above, below in repeats if np.any(below)]
    if not each:
        return None
    repeated = tuple(float(parts.mean()) for parts in each)
    return Score(repeated, np.mean(each, axis=0, dtype=np.float32))
