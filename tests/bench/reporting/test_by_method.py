"""Methods over their trainings: which encoders are one method, and what is said about it."""

import numpy as np
import pytest

from bench.errors import UsageError
from bench.reporting import by_method as tables
from bench.reporting import trainings
from bench.reporting.comparison import MEAN, Comparison
from bench.store import Store
from tests.bench.reporting.made import result

TASKS = {f"t{i}": f"family {i}" for i in range(1, 7)}


def card(method, seed, *, budget=1000, **recipe):
    settings = {"lr": 0.1, **recipe}
    return {"method": method, "budget": budget, "seed": seed, "recipe": settings, "backbone": "B"}


def trained(rng, quality, method, seed, *, luck=0.02, **settings):
    """The results of one training on every task."""
    own = quality + luck * rng.normal()
    label = "-".join(map(str, (method, seed, *settings.values())))
    made = {"card": {"training": card(method, seed, **settings)}, "print_": label}
    return [
        result(label, task, family=family, examples=answers(rng, own), **made)
        for task, family in TASKS.items()
    ]


def answers(rng, quality, n=200):
    return (rng.random(n) < quality).astype(float)


def untrained(rng, name, quality, **more):
    return [
        result(name, task, family=family, examples=answers(rng, quality), **more)
        for task, family in TASKS.items()
    ]


@pytest.fixture(scope="module")
def compared():
    rng = np.random.default_rng(0)
    made = [each for seed in (1, 2, 3) for each in trained(rng, 0.9, "good", seed)]
    made += [each for seed in (1, 2, 3) for each in trained(rng, 0.6, "fair", seed)]
    made += [each for seed in (1, 2) for each in trained(rng, 0.6, "fair", seed, lr=0.2)]
    made += trained(rng, 0.6, "once", 1)
    made += [each for seed in (1, 2) for each in trained(rng, 0.95, "good", seed, budget=9000)]
    made += untrained(rng, "raw", 0.5, trained=False)
    made += untrained(rng, "other-raw", 0.5, trained=False, card={"backbone": "Another"})
    return Comparison.of(made)


def test_encoders_that_differ_only_in_the_seed_of_their_training_are_one_method(compared):
    found = {(m.label, m.budget): (len(m.encoders), m.seeds) for m in trainings.methods(compared)}
    assert found == {
        ("good", 9000): (2, (1, 2)),
        ("good", 1000): (3, (1, 2, 3)),
        ("fair lr=0.1", 1000): (3, (1, 2, 3)),
        ("fair lr=0.2", 1000): (2, (1, 2)),
        ("once", 1000): (1, (1,)),
        ("raw", None): (1, ()),
        ("other-raw", None): (1, ()),
    }


def test_trainings_with_one_seed_count_once():
    rng = np.random.default_rng(0)
    here, there = trained(rng, 0.8, "good", 1), trained(rng, 0.8, "good", 1)
    there = [result("copy", r.spec.task, 0.9, card=dict(r.card), family=r.family) for r in there]
    (method,) = trainings.methods(Comparison.of([*here, *there]))
    assert len(method.encoders) == 1
    assert trainings.ONE in method.note
    assert trainings.AGAIN in method.note


def test_a_method_is_the_mean_over_its_trainings(compared):
    frame = trainings.by_method(compared)
    row = frame[(frame.method == "good") & (frame.budget == 1000) & (frame.task == "t1")].iloc[0]
    scores = compared.scores.loc["t1", ["good-1", "good-2", "good-3"]]
    assert row["mean"] == pytest.approx(scores.mean())
    assert row["std"] == pytest.approx(scores.std())
    assert row.low < row["mean"] < row.high <= 1
    assert row.trainings == 3
    once = frame[(frame.method == "once") & (frame.over == "mean")].iloc[0]
    assert once.note == trainings.ONE
    assert np.isnan(once["std"])
    assert set(frame[frame.method == "raw"].note) == {""}
    assert set(frame[frame.over == "mean"].task) == {MEAN}


def test_differences_are_those_of_the_means_at_one_budget_with_corrected_p_values(compared):
    frame = trainings.differences(compared, "raw")
    assert set(frame.method) == {"good", "fair", "once"}
    assert set(frame[frame.method == "good"].budget) == {1000, 9000}
    overall = frame[frame.over == "mean"].set_index(["method", "settings", "budget"])
    good, once = overall.loc["good", "", 1000], overall.loc["once", "", 1000]
    assert good.difference == pytest.approx(0.4, abs=0.1)
    assert 0 < good.low < good.difference < good.high
    assert good.p_alone <= good.p < 0.05
    assert good.superiority > 0.95
    assert 0 < good.detectable < good.difference
    assert np.isnan(once.superiority)
    assert trainings.ONE in once.note
    pairs = trainings.differences(compared)
    same = pairs[(pairs.method == "good") & (pairs.reference == "good")]
    assert same.empty  # two budgets are no pair
    against = trainings.differences(compared, "fair lr=0.2")
    assert set(against.reference_settings) == {"lr=0.2"}
    with pytest.raises(UsageError):
        trainings.differences(compared, "bad")


def test_a_mean_stands_for_other_families_unless_these_are_fixed(compared):
    wide, narrow = (
        trainings.differences(compared, "raw", tasks=tasks).query("over == 'mean'")
        for tasks in ("resampled", "fixed")
    )
    assert (wide.difference == narrow.difference).all()
    assert (wide.detectable > narrow.detectable).mean() > 0.5


def test_a_pooled_variance_narrows_intervals_and_covers_what_was_trained_once(compared):
    own, pooled = (
        trainings.differences(compared, "raw", pooled=pooled)
        .query("over == 'mean' and budget == 1000")
        .set_index(["method", "settings"])
        for pooled in (False, True)
    )
    assert (own.difference == pooled.difference).all()
    assert pooled.detectable.mean() < own.drop(index="once", level="method").detectable.mean()
    assert np.isfinite(pooled.loc["once", ""].superiority)
    assert trainings.ALIKE in pooled.loc["once", ""].note
    width = pooled.high - pooled.low
    assert width.loc["once", ""] > width.loc["good", ""]


def test_ranks_have_intervals_that_hold_methods_of_one_budget_apart(compared):
    frame = trainings.ranks(compared, tasks="fixed", pooled=True)
    small = frame[frame.budget == 1000].set_index(["method", "settings"])
    assert tuple(small.loc["good", ""][["rank", "low", "high"]]) == (1, 1, 1)
    assert (small.low <= small["rank"]).all()
    assert (small["rank"] <= small.high).all()
    assert small.loc["fair", "lr=0.1"].high - small.loc["fair", "lr=0.1"].low >= 1
    assert "other-raw" not in set(frame.method)
    assert set(frame[frame.budget == 9000].method) == {"good", "raw"}
    with pytest.raises(UsageError):
        trainings.ranks(compared, task="t9")


def test_the_table_has_a_row_per_method_and_none_where_each_was_trained_once(compared):
    table = tables.table(compared)
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert len(rows) == len(trainings.methods(compared))
    good = next(row for row in rows if row["budget"].value == 1000)
    assert good["minus raw"].text.endswith("*")
    assert good["trainings"].text == "3"
    assert good["rank"].text.startswith("1 [1, ")
    assert any(trainings.ONE in note for note in table.notes)
    rng = np.random.default_rng(0)
    assert not tables.table(Comparison.of(trained(rng, 0.8, "good", 1))).rows


def test_a_score_keeps_which_examples_it_is_of(tmp_path):
    import bench
    from bench.reporting import read

    bench.run("hashing", ["stsb", "stsb-paraphrase"], limit=40, results=tmp_path)
    found = {r.spec.task: r.main.ids for r in Store(tmp_path).results()}
    assert all(len(ids) == 40 == len(np.unique(ids)) for ids in found.values())
    shared = np.intersect1d(*found.values())
    assert 0 < len(shared) < 40
    compared = read(Store(tmp_path))
    (component,) = compared.overall.components
    assert len(component.ids) == 80 - len(shared)
    apart = sum(each.components[0].covariance[0, 0] for each in compared.by_task.values()) / 4
    assert component.covariance[0, 0] != pytest.approx(apart)
