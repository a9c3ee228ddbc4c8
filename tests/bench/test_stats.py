"""Statistics: bootstrap intervals and their coverage, corrections, ranks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, bootstrap

from bench import stats
from bench.stats.influence import bounds, contributions, of_ratio
from tests.bench.test_influence import MEASURED, data

# Of 200 intervals at 95 %, the share that covers has a standard deviation of 1.5 %.
NOMINAL = pytest.approx(0.95, abs=0.046)


@pytest.mark.parametrize("metric", MEASURED)
def test_the_interval_is_that_of_measuring_every_resample_again(metric):
    x, y = data(metric)
    options = {"paired": True, "vectorized": False, "n_resamples": 400, "method": "percentile"}
    ends = bootstrap((x, y), MEASURED[metric], **options, rng=0).confidence_interval
    values = contributions(metric, x, y)[:, None]
    ours = sampled(values).intervals
    # 400 and 1,000 resamples leave some 7 % of the half width to chance at either end.
    most = 0.2 * (ends.high - ends.low) / 2
    assert [ours.low[0], ours.high[0]] == pytest.approx([ends.low, ends.high], abs=most)


def sampled(values, *more, **options):
    return stats.sampled(values.mean(axis=0), values, *more, **options)


def difference(*sources, of=(0,), to=(1,)):
    """The intervals of the differences of encoders."""
    return stats.differences(sampled(*sources), np.array(of), np.array(to))


def over_examples(rng):
    """Whether each of two encoders is right, which find the same examples hard."""
    easy = rng.random(200)
    sides = [easy + 0.1 * rng.normal(size=200) < at for at in (0.7, 0.6)]
    return difference(np.stack(sides, axis=1).astype(float))


def over_repeats(n):
    """Scores of a few seeds: one that is good for one encoder is good for the other."""

    def draw(rng):
        shared = rng.normal(0, 0.05, n)
        sides = [0.6 + shared + rng.normal(0, 0.01, n), 0.5 + shared + rng.normal(0, 0.02, n)]
        return difference(np.stack(sides, axis=1))

    return draw


def over_both(rng):
    ease, luck = rng.normal(0, 0.3, (2, 200, 1)), rng.normal(0, 0.02, (2, 1, 5))
    values = np.array([0.6, 0.5])[:, None, None] + ease + luck + rng.normal(0, 0.1, (2, 200, 5))
    return difference(values.mean(axis=2).T, values.mean(axis=1).T)


def of_spearman(rng):
    gold, noise = rng.normal(size=(2, 200))
    values = contributions("spearman", gold + noise, gold)[:, None]
    return sampled(values).intervals


SPEARMAN = 6 / np.pi * np.arcsin(np.sqrt(0.5) / 2)
"""Of the normal distribution with this correlation."""


@pytest.mark.parametrize(
    ("draw", "truth"),
    [
        (over_examples, 0.1),  # to three decimals
        (over_repeats(5), 0.1),
        (over_repeats(10), 0.1),
        (over_both, 0.1),
        (of_spearman, SPEARMAN),
    ],
)
def test_intervals_cover_the_truth_at_their_nominal_rate(draw, truth):
    found = [draw(np.random.default_rng([2, i])) for i in range(200)]
    covered = [each.low[0] <= truth <= each.high[0] for each in found]
    assert np.mean(covered) == NOMINAL


def test_equal_encoders_differ_by_nothing_and_unpaired_ones_are_not_compared():
    values = np.random.default_rng(0).random((50, 2))
    sources = np.column_stack([values[:, 0], values[:, 0], values[:, 1], np.full(50, np.nan)])
    found = difference(sources, of=(0, 0, 0), to=(1, 2, 3))
    assert (found.low[0], found.value[0], found.high[0], found.p[0]) == (0, 0, 0, 1)
    assert np.isfinite([found.low[1], found.p[1]]).all()
    assert np.isnan([found.value[2], found.low[2], found.high[2], found.p[2]]).all()


def test_the_same_seed_draws_the_same_and_another_seed_something_else():
    values = np.random.default_rng(0).random((50, 3))
    first, again, other = (sampled(values, seed=seed).draws for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_a_mean_of_independent_scores_is_known_better_than_each():
    rng = np.random.default_rng(0)
    each = [sampled(values, seed=i) for i, values in enumerate(rng.normal(size=(4, 300, 2)))]
    one, mean = each[0].intervals, stats.mean_of(each).intervals
    # A mean of four has half the width; 1,000 draws leave 5 % of a width to chance.
    assert (mean.high - mean.low)[0] == pytest.approx((one.high - one.low)[0] / 2, rel=0.2)


def test_a_mean_is_known_only_where_each_score_is():
    values = np.random.default_rng(0).normal(size=(300, 2))
    one, once = sampled(values), stats.sampled(np.array([0.5, 0.6]))
    found = stats.mean_of([one, once]).intervals
    assert found.value == pytest.approx((values.mean(axis=0) + np.array([0.5, 0.6])) / 2)
    assert np.isnan([found.low, found.high]).all()


def test_a_difference_that_never_varies_is_not_taken_for_certain():
    values = np.array([[0.1, 0.7, 0.2], [0.1, 0.7, 0.3], [0.1, 0.7, 0.5]])
    found = difference(values, of=(0, 0), to=(1, 2))
    assert np.isnan([found.low[0], found.high[0], found.p[0]]).all()
    assert found.low[1] < found.value[1] < found.high[1]


def test_a_score_at_either_end_of_its_range_that_never_varies_has_no_interval():
    """Of 50 answers that are all wrong, as of those that are all right, more is not known."""
    answers = np.zeros((50, 4))
    answers[:, 1], answers[:25, 2] = 1, 1
    found = sampled(answers, bounds=(0.0, 1.0))
    assert [ends is None for ends in found.intervals.bounds()] == [True, True, False, True]
    assert np.isnan(found.intervals.p[[0, 1, 3]]).all()
    alike = stats.differences(found, np.array([0]), np.array([3]))
    assert alike.bounds() == [(0.0, 0.0)]
    assert alike.p == 1


def test_what_was_measured_once_has_no_interval():
    found = stats.sampled(np.array([0.5])).intervals
    assert np.isnan([found.low[0], found.high[0], found.p[0]]).all()


RIGHT = st.lists(
    st.lists(st.booleans(), min_size=2, max_size=2), min_size=3, max_size=40
)  # whether each of two encoders is right on each example


@settings(max_examples=40)
@given(RIGHT, st.sampled_from([(0.0, 1.0), (-1.0, 1.0)]))
def test_an_interval_lies_in_the_range_of_its_metric_and_is_the_bootstrap_s_where_that_does(
    right, bounds
):
    values = np.array(right, float) * (bounds[1] - bounds[0]) + bounds[0]
    free, bound = (sampled(values, bounds=b) for b in ((-np.inf, np.inf), bounds))
    one, other = np.array([0]), np.array([1])
    for width, plain, found in (
        (bounds, free.intervals, bound.intervals),
        (
            (bounds[0] - bounds[1], bounds[1] - bounds[0]),
            *(stats.differences(each, one, other) for each in (free, bound)),
        ),
        (bounds, *(stats.mean_of([each, each]).intervals for each in (free, bound))),
    ):
        at_end = (plain.value <= width[0]) | (plain.value >= width[1])
        known = np.isfinite(plain.low) & ~(at_end & (plain.low == plain.high))
        assert (np.isfinite(found.low) == known).all()
        assert (found.p[known] == plain.p[known]).all()
        low, value, high = found.low[known], found.value[known], found.high[known]
        assert ((width[0] <= low) & (low <= value) & (value <= high) & (high <= width[1])).all()
        inside = (width[0] <= plain.low[known]) & (plain.high[known] <= width[1])
        assert (low[inside] == plain.low[known][inside]).all()
        assert (high[inside] == plain.high[known][inside]).all()


@given(st.integers(1, 40), st.integers(0, 40))
def test_the_bounded_interval_of_a_proportion_is_wilson_s(n, k):
    share = min(k, n) / n
    z = 1.959963984540054
    ends = stats.wilson(np.array([share]), np.array([z**2 * share * (1 - share) / n]), (0.0, 1.0))
    expected = binomtest(min(k, n), n).proportion_ci(method="wilson")
    if 0 < share < 1:
        assert [ends[0][0], ends[1][0]] == pytest.approx([expected.low, expected.high])
    else:  # nothing is known of a proportion that never varied
        assert [ends[0][0], ends[1][0]] == [0, 1]


def test_an_f1_near_one_has_an_interval_below_one():
    found = of_ratio(np.array([2.0, 2, 2, 2, 2, 0]), np.array([2.0, 2, 2, 2, 2, 1]))[:, None]
    plain = sampled(found).intervals
    assert plain.value[0] == pytest.approx(10 / 11)
    assert plain.high[0] > 1.05
    at = sampled(found, bounds=bounds("f1", plain.value)).intervals
    assert 0.4 < at.low[0] < 10 / 11 < at.high[0] < 1


def test_holm_multiplies_the_smallest_most_and_never_turns_the_order():
    assert stats.holm(np.array([0.01, 0.04, 0.03, np.nan, 0.9])) == pytest.approx(
        [0.04, 0.09, 0.09, np.nan, 0.9], nan_ok=True
    )


def test_p_values_of_pairs_are_symmetric_and_corrected_over_all_scores():
    values = np.random.default_rng(0).random((50, 3)) + np.array([0, 0.05, 0.3])
    one, other = sampled(values), sampled(values[::-1] ** 2)
    p = stats.corrected_p([one, other])
    first, second = np.triu_indices(3, 1)
    alone = [stats.differences(each, first, second).p for each in (one, other)]
    assert p[:, first, second].ravel() == pytest.approx(stats.holm(np.concatenate(alone)))
    assert np.array_equal(p, p.transpose(0, 2, 1), equal_nan=True)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_corrected_p_values_keep_their_order_and_are_between_themselves_and_one(p):
    p = np.array(p)
    corrected = stats.holm(p)
    assert ((p <= corrected) & (corrected <= 1)).all()
    assert (np.diff(corrected[np.argsort(p, kind="stable")]) >= 0).all()


def test_equal_scores_share_their_rank():
    scores = np.array([[0.9, 0.5, 0.5], [0.8, 0.9, 0.1]])
    assert stats.mean_ranks(scores).tolist() == [1.5, 1.75, 2.75]


def test_friedman_needs_three_encoders_and_something_to_tell_apart():
    rng = np.random.default_rng(0)
    assert stats.friedman(rng.random((20, 3)) + np.array([0, 0.5, 1])) < 0.001
    assert np.isnan(stats.friedman(rng.random((20, 2))))
    assert np.isnan(stats.friedman(np.ones((5, 3))))
