"""Scores that are ratios of counts over test examples: precision, recall, F1."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bench.influence import of_ratio
from bench.task import Score

Counts = NDArray[np.number]


def f1_score(repeats: Sequence[tuple[Counts, Counts, Counts]]) -> Score:
    """Return micro-averaged F1, 0 where nothing is found or asked for.

    Args:
        repeats: For each repeat, what each test example adds: how many are right, how many are found, and how many should be.
    """
    return ratio_score([(2 * right, found + wanted) for right, found, wanted in repeats])


def ratio_score(repeats: Sequence[tuple[Counts, Counts]]) -> Score:
    """Return the ratio of two sums, 0 where the one below the line is.

    Args:
        repeats: For each repeat, what each test example (n,) adds above and below the line.
    """
    each = [of_ratio(above, below) for above, below in repeats]
    return Score(
        tuple(float(parts.mean()) for parts in each), np.mean(each, axis=0, dtype=np.float32)
    )
