"""Means over few trainings: intervals, false positives, power and superiority in simulations.

Scores are simulated as sums of normal effects: of the training, of the example on a method, and of
both together. All runs of a simulation are computed at once.
"""

import numpy as np
import pytest
from scipy.stats import t

from bench import stats
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

RUNS, EXAMPLES = 2000, 40
FREE = (-np.inf, np.inf)

# The standard deviation of a rate of 0.05 over 2,000 runs is 0.5 %; four of them are allowed.
RATE = 0.02


def draw(rng, k, *, training, item, both, spread=1.0):
    """Contributions of the examples to the score of each training: (runs, examples, k).

    The standard deviations are those of the mean over examples; ``training`` is that of a score.
    """
    noise = rng.normal(size=(RUNS, EXAMPLES, k)) * both * np.sqrt(EXAMPLES)
    own = rng.normal(size=(RUNS, EXAMPLES, 1)) * item * np.sqrt(EXAMPLES)
    return 0.5 + own + noise + rng.normal(size=(RUNS, 1, k)) * training * spread


def compare(*sides):
    """The difference of the mean scores of one or two methods, and its two variances."""
    means = [side.mean(axis=2) for side in sides]  # over trainings: (runs, examples)
    contributions = means[0] - (means[1] if len(sides) > 1 else 0.5)
    shared = contributions.var(axis=1) / (EXAMPLES - 1)
    for side in sides:
        centred = side - side.mean(axis=1, keepdims=True)
        covariance = np.einsum("rek,rel->rkl", centred, centred) / (EXAMPLES * (EXAMPLES - 1))
        shared = shared - interaction(covariance) / side.shape[2]
    parts = [
        of_means([Trainings.of(side.mean(axis=1)) for side in sides]),
        Part.sum([(np.maximum(shared, 0.0), EXAMPLES - 1)]),
    ]
    return contributions.mean(axis=1), parts


def misses(values, parts, truth=0.0):
    """The rate at which intervals do not hold the truth."""
    low, high = intervals(values, parts, FREE)
    return np.mean((low > truth) | (high < truth))


SIZES = {
    "trainings differ most": {"training": 0.03, "item": 0.002, "both": 0.002},
    "trainings and examples differ alike": {"training": 0.02, "item": 0.015, "both": 0.01},
    "trainings differ by their answers alone": {"training": 0.0, "item": 0.01, "both": 0.02},
}


@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("other", ["untrained", "alike", "steady"])
def test_intervals_cover_at_their_nominal_rate_and_luck_of_a_training_is_no_difference(
    k, sizes, other
):
    """Two methods are equally good, so that an interval without 0 is a false positive."""
    rng = np.random.default_rng(k)
    sides = [draw(rng, k, **sizes)]
    if other != "untrained":
        sides.append(draw(rng, k, **sizes, spread=0.3 if other == "steady" else 1.0))
    values, parts = compare(*sides)
    positive = misses(values, parts)
    # Welch's degrees of freedom alone miss 6 % where one of three trainings each hardly varies.
    assert positive < 0.05 + RATE + (0.01 if other == "steady" else 0.0)
    if sizes["training"] == 0.03:
        if other == "untrained":
            assert positive > 0.05 - RATE  # Student's t test, so neither are they too wide
        assert misses(values, parts[1:]) > 0.3  # what test examples alone would have told apart


def test_p_values_are_below_alpha_where_the_interval_leaves_out_0():
    values, parts = compare(draw(np.random.default_rng(0), 3, training=0.02, item=0.01, both=0.01))
    low, high = intervals(values, parts, FREE)
    p = p_values(values, parts)
    assert ((p < 0.05) == ((low > 0) | (high < 0))).all()
    freedom, size = np.array([1.0, 2.0, 40.0, 1e4]), np.array([[0.0], [2.5], [8.0]])
    one = [Part(np.ones(4), freedom)]
    assert p_values(size * np.ones(4), one) == pytest.approx(2 * t.sf(size, freedom))


def test_resampling_two_trainings_covers_half_of_the_time_which_is_why_it_is_not_done():
    scores = np.random.default_rng(0).normal(size=(RUNS, 2))
    # Of two trainings a quarter of the resamples is one of them alone: the interval is their range.
    inside = (scores.min(axis=1) < 0) & (scores.max(axis=1) > 0)
    assert inside.mean() == pytest.approx(0.5, abs=0.05)
    assert misses(scores.mean(axis=1), [of_means([Trainings.of(scores)])]) == pytest.approx(
        0.05, abs=RATE
    )


@pytest.mark.parametrize("k", [2, 3, 5])
def test_a_detectable_difference_is_found_with_its_power(k):
    rng, spread = np.random.default_rng(k), 0.02
    known = Part(np.array(spread**2 / k), np.array(k - 1.0))
    scores = float(detectable([known])) + rng.normal(0, spread, (RUNS, k))
    found = misses(scores.mean(axis=1), [of_means([Trainings.of(scores)])])
    assert found == pytest.approx(0.8, abs=0.036)  # four standard deviations


def test_superiority_is_the_rate_at_which_fresh_trainings_win():
    rng = np.random.default_rng(0)
    gap = rng.uniform(-0.2, 0.2, (20 * RUNS, 1))  # of pairs of methods: nothing is known before
    first, second = gap + rng.normal(0, 0.02, (20 * RUNS, 4)), rng.normal(0, 0.02, (20 * RUNS, 4))
    known = [Trainings.of(side[:, :3]) for side in (first, second)]
    gaps = first[:, :3].mean(axis=1) - second[:, :3].mean(axis=1)
    told = superiority(gaps, of_means(known, fresh=True))
    won = first[:, 3] > second[:, 3]
    for low, high in ((0.0, 0.2), (0.2, 0.4), (0.4, 0.6), (0.6, 0.8), (0.8, 1.0)):
        inside = (low <= told) & (told < high)
        # Welch's degrees of freedom are a little too few, which pulls the middle towards 0.5.
        assert won[inside].mean() == pytest.approx(told[inside].mean(), abs=0.05)


def test_a_variance_in_common_makes_narrower_intervals_where_methods_vary_alike():
    scores = np.random.default_rng(0).normal(size=(RUNS, 6, 3))
    own = [Trainings.of(scores[:, i]) for i in range(6)]
    common = [Trainings(3, *pool(own))] * 2
    gaps = scores[:, 0].mean(axis=1) - scores[:, 1].mean(axis=1)
    parts = [of_means(common, pooled=True)]
    assert parts[0].freedom == 12
    assert misses(gaps, parts) == pytest.approx(0.05, abs=RATE)
    assert np.median(detectable(parts)) < 0.8 * np.median(detectable([of_means(own[:2])]))


def test_an_interval_stays_in_the_range_of_its_metric():
    parts = [of_means([Trainings.of(np.array([[0.97, 0.99]]))])]
    low, high = intervals(np.array([0.98]), parts, (0.0, 1.0))
    assert 0 < low[0] < 0.98 < high[0] < 1


def test_nothing_is_known_where_nothing_varies():
    for parts in ([Part.sum([])], [of_means([Trainings.of(np.full((1, 2), 0.5))])]):
        ends = intervals(np.array([0.5]), parts, FREE)
        assert np.isnan([*ends, p_values(np.array([0.5]), parts)]).all()
        assert np.isnan(detectable(parts)).all()


# ---- tasks that share examples


def shared_mean(rng, overlap, n=60):
    """The mean of two tasks, the second of which has ``overlap`` of the examples of the first."""
    easy = rng.normal(size=(2 * n, 2))
    both = [easy[:n], easy[n - overlap : 2 * n - overlap]]
    names = np.arange(2 * n, dtype=np.uint64)
    ids = [names[:n], names[n - overlap : 2 * n - overlap]]
    noise = 0.3 * rng.normal(size=(2, n, 2))
    each = [
        stats.sampled((v + e).mean(axis=0), v + e, ids=own, draws=200, seed=i)
        for i, (v, e, own) in enumerate(zip(both, noise, ids, strict=True))
    ]
    return each, stats.mean_of(each)


@pytest.mark.parametrize("overlap", [0, 30, 60])
def test_examples_that_tasks_share_are_resampled_together(overlap):
    rng = np.random.default_rng(overlap)
    found = [shared_mean(rng, overlap) for _ in range(150)]
    means = np.array([mean.scores[0] for _, mean in found])
    variances = np.array([sum(c.covariance[0, 0] for c in mean.components) for _, mean in found])
    # 300 tasks' worth of a variance: its relative standard deviation is 12 %.
    assert np.mean(variances) == pytest.approx(means.var(), rel=0.4)
    alone = np.mean([sum(e.components[0].covariance[0, 0] for e in each) for each, _ in found]) / 4
    expected = 1 + overlap / 60 / 1.09  # the noise is each task's own
    assert np.mean(variances) / alone == pytest.approx(expected, rel=0.08)
    draws = np.mean([mean.draws[0].var() for _, mean in found])
    assert draws == pytest.approx(np.mean(variances), rel=0.1)
    covered = [(mean.intervals.low[0] <= 0 <= mean.intervals.high[0]) for _, mean in found]
    assert np.mean(covered) > 0.88  # of 150 intervals at 95 %, four standard deviations less
