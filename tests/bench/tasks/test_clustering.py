"""Clusterings against labels."""

import numpy as np
import pytest

from bench.tasks.clustering import Clustering, v_measures


def topics(n=90, words=4):
    """Texts of three topics with words of their own, and one random word."""
    rng, rows = np.random.default_rng(0), []
    for i in range(n):
        own = [f"{'sto'[i % 3]}{k}" for k in rng.permutation(4)[:words]]
        rows.append({"text": " ".join([*own, f"x{rng.integers(9)}"]), "label": "abc"[i % 3]})
    return rows


def on(data="org/topics", **settings):
    return Clustering("toy", data=data, **settings)


def test_both_algorithms_are_scored_and_the_task_says_which_is_the_main_one(write, encoder):
    write("org/topics", "test", topics(60, words=1))
    plain, batched = (on(algorithm=a).evaluate(encoder, seed=0) for a in ("kmeans", "minibatch"))
    assert plain["v_measure"] == batched["v_measure_kmeans"]
    assert batched["v_measure"] == plain["v_measure_minibatch"] != plain["v_measure"]


def test_texts_that_a_labeling_says_nothing_about_are_left_out():
    vectors = np.eye(4, dtype=np.float32)[[0, 1, 0, 1, 2, 3]]
    found = v_measures(vectors, np.array([0, 1, 0, 1, -1, -1]), 3, seed=0)
    assert found == pytest.approx([1.0] * 3)


def test_rows_that_hold_lists_are_clustered_one_by_one(write, encoder):
    parts = [topics()[:45], topics()[45:]]
    rows = [{f"{k}s": [row[k] for row in part] for k in ("text", "label")} for part in parts]
    write("org/nested", "test", rows)
    task = on("org/nested", text="texts", label="labels", limit=30, instruction="Topic?")
    items = list(task.items(seed=0))
    assert len(items) == 60
    assert {item.instruction for item in items} == {"Topic?"}
    assert 0 < task.evaluate(encoder, seed=0)["v_measure"].mean <= 1


def test_classes_can_be_taken_together_by_their_names(write, encoder):
    rows = [{**row, "label": "abc".index(row["label"])} for row in topics(30)]
    write("org/topics", "test", rows, names={"label": ["a", "b", "c"]})
    write("org/together", "test", [{**row, "label": row["label"] // 2} for row in rows])
    together = on("org/together").evaluate(encoder, seed=0)
    assert on(groups={"ab": "a b"}).evaluate(encoder, seed=0) == together
