"""What each test example contributes to a score."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, roc_auc_score

from bench.stats.influence import bounds, contributions, of_ratio

MEASURED = {
    "cosine_spearman": lambda x, y: spearmanr(x, y).statistic,
    "auroc": lambda x, y: roc_auc_score(y, x),
    "ap": lambda x, y: average_precision_score(y, x),
}


def data(metric, n=200, seed=0):
    rng = np.random.default_rng(seed)
    gold = rng.integers(0, 11, n) / 2
    values = np.round(gold + rng.normal(0, 2, n), 1)  # with ties on both sides
    return values, gold if metric == "cosine_spearman" else (gold > 2.5).astype(float)


@pytest.mark.parametrize("metric", MEASURED)
@settings(max_examples=40)
@given(rows=st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 4)), min_size=4, max_size=40))
def test_contributions_average_to_the_score_whatever_is_tied(metric, rows):
    x, y = (np.array(side, float) for side in zip(*rows, strict=True))
    y = y if metric == "cosine_spearman" else (y > 2).astype(float)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return
    found = contributions(metric, x, y)
    assert found.mean() == pytest.approx(MEASURED[metric](x, y), abs=1e-9)


@pytest.mark.parametrize("metric", MEASURED)
def test_a_contribution_is_what_leaving_the_example_out_takes_away(metric):
    x, y = data(metric)
    n, whole, found = len(x), MEASURED[metric](x, y), contributions(metric, x, y)
    without = [MEASURED[metric](np.delete(x, i), np.delete(y, i)) for i in range(n)]
    pseudo = n * whole - (n - 1) * np.array(
        without
    )  # the jackknife, whose limit the contributions are
    assert (
        np.abs(found - pseudo).mean() < 0.02 * found.std()
    )  # they part by one n-th, more for the few at the top of a ranking


def test_rightness_is_its_own_contribution_and_an_unknown_metric_has_none():
    assert contributions("accuracy", np.array([0, 1], np.float32), np.empty(0)).tolist() == [0, 1]
    assert np.isnan(contributions("f1", np.array([0.0, 1]), np.array([0.0, 1]))).all()


def test_contributions_to_a_ratio_average_to_it_and_are_what_leaving_an_example_out_takes_away():
    rng = np.random.default_rng(0)
    below = rng.integers(0, 5, 400)
    above = rng.binomial(below, 0.3)
    found = of_ratio(above, below)
    assert found.mean() == pytest.approx(above.sum() / below.sum(), abs=1e-12)
    without = [np.delete(above, i).sum() / np.delete(below, i).sum() for i in range(400)]
    pseudo = 400 * above.sum() / below.sum() - 399 * np.array(without)
    assert np.abs(found - pseudo).max() < 0.02 * found.std()  # they part by one n-th


@pytest.mark.parametrize(
    ("metric", "values", "expected"),
    [
        ("f1", [0.5, np.nan], (0, 1)),
        ("cosine_spearman", [0.5], (-1, 1)),
        ("gap", [0.5], (-1, 1)),
        ("main_score", [-0.2, 0.1], (-1, 1)),
        ("effective_dimension", [0.5, 37.0], (-np.inf, np.inf)),
        ("harmonic_mean", [], (0, 1)),
    ],
)
def test_a_metric_has_the_range_that_its_name_and_its_values_tell(metric, values, expected):
    assert bounds(metric, np.array(values)) == expected
