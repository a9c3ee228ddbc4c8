"""How often 95 % intervals of a difference of two methods over few trainings hold the truth.

Usage: python benchmarks/training_intervals.py

Simulated scores are sums of normal effects: of the training, of the test examples on a method, and
of both together; the table gives their standard deviations. Compared are

- examples: the variance over test examples alone, as for a single training;
- one quantile: the sum of both variances with Satterthwaite's degrees of freedom;
- pooled: as "ours", with one variance between trainings for both methods;
- ours: ``bench.stats.replication``, each variance with its own quantile.
"""

from itertools import product

import numpy as np
import pandas as pd

from bench.stats.replication import Part, Trainings, half_width, of_means

RUNS = 40_000
SIZES = ((1.0, 0.0, 0.0), (1.0, 0.5, 0.2), (1.0, 1.0, 1.0), (0.3, 1.0, 0.3), (0.0, 0.5, 1.0))
MANY = 1e6  # degrees of freedom of the variance over test examples


def main() -> None:
    """Print the share of intervals that hold the truth, and their half width (median)."""
    rows = []
    for k, other, sizes in product((2, 3, 5), ("none", "alike", "steady"), SIZES):
        row = {"trainings": k, "other trainings": other}
        row |= dict(zip(("training", "examples std", "both"), sizes, strict=True))
        rows.append(row | simulate(k, other, *sizes))
    print(pd.DataFrame(rows).to_markdown(index=False, floatfmt=".3g"))


def simulate(k: int, other: str, training: float, item: float, both: float) -> dict[str, str]:
    """Return coverage and half width of each procedure, for equally good methods.

    Args:
        k: Trainings of each method.
        other: "none" where the other encoder is not trained; "alike", or "steady" where its
            trainings differ by a fifth.
        training: Standard deviation of a training.
        item: That of a method's score over test examples.
        both: That of a training's own answers to the test examples.
    """
    rng = np.random.default_rng(k)
    spreads = {"none": (1.0,), "alike": (1.0, 1.0), "steady": (1.0, 0.2)}[other]
    sides = [
        rng.normal(0, s * training, (RUNS, k)) + rng.normal(0, both, (RUNS, k)) for s in spreads
    ]
    means = [side.mean(axis=1) for side in sides]
    error = means[0] - (means[1] if len(means) > 1 else 0.0) + rng.normal(0, item, RUNS)
    within = len(sides) * both**2 / k
    trainings = of_means([Trainings.of(side) for side in sides])
    pure = Part(np.array(item**2), np.array(MANY))
    with_both = Part(np.array(item**2 + within), np.array(MANY))
    pooled = Part(trainings.variance, np.array(len(sides) * (k - 1.0)))
    between = np.maximum(trainings.variance - within, 0.0)
    doubt = trainings.variance**2 / trainings.freedom + with_both.variance**2 / MANY
    whole = between + with_both.variance
    one = Part(whole, np.clip(whole**2 / doubt, 1.0, MANY))
    procedures = {
        "examples": [with_both],
        "one quantile": [one],
        "pooled": [pooled, pure],
        "ours": [trainings, pure],
    }
    found = {}
    for name, parts in procedures.items():
        half = np.broadcast_to(np.nan_to_num(half_width(parts)), RUNS)
        found[name] = f"{np.mean(np.abs(error) <= half):.3f} ({np.median(half):.1f})"
    return found


if __name__ == "__main__":
    main()
