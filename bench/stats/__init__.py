"""Paired comparisons, contributions of test examples to a score, and means over trainings."""

from bench.stats.resampling import (
    DRAWS,
    LEVEL,
    SEED,
    Array,
    Estimates,
    Sampled,
    VarianceComponent,
    corrected_p,
    differences,
    friedman,
    holm,
    mean_of,
    mean_ranks,
    sampled,
    wilson,
)

__all__ = [
    "DRAWS",
    "LEVEL",
    "SEED",
    "Array",
    "Estimates",
    "Sampled",
    "VarianceComponent",
    "corrected_p",
    "differences",
    "friedman",
    "holm",
    "mean_of",
    "mean_ranks",
    "sampled",
    "wilson",
]
