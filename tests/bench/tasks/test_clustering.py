import numpy as np
import pytest

from bench.tasks.clustering import Clustering, v_measures


def _topics(n=90):
    rng = np.random.default_rng(0)
    topics = [[f"{topic}{i}" for i in range(4)] for topic in ("sea", "tax", "oak")]
    return [
        {"text": " ".join(rng.permutation(topics[i % 3])), "label": "abc"[i % 3]} for i in range(n)
    ]


@pytest.mark.parametrize("algorithm", ["kmeans", "minibatch"])
def test_topics_with_words_of_their_own_are_told_apart(algorithm, write, encoder):
    rng = np.random.default_rng(1)
    rows = [{**row, "text": f"{row['text']} x{rng.integers(50)}"} for row in _topics()]
    write("org/topics", "test", rows)
    scores = Clustering("toy", data="org/topics", algorithm=algorithm).evaluate(encoder, seed=0)
    assert [len(score.repeats) for score in scores.values()] == [10, 10]
    assert all(max(score.repeats) == pytest.approx(1.0) for score in scores.values())


def test_both_algorithms_are_scored_and_the_task_says_which_is_the_main_one(write, encoder):
    rng = np.random.default_rng(3)
    write(
        "org/topics",
        "test",
        [
            {**row, "text": " ".join(f"{row['text']} x{rng.integers(9)}".split()[3:])}
            for row in _topics()
        ],
    )
    plain, batched = (
        Clustering("toy", data="org/topics", algorithm=a).evaluate(encoder, seed=0)
        for a in ("kmeans", "minibatch")
    )
    assert plain["v_measure"] == batched["v_measure_kmeans"]
    assert batched["v_measure"] == plain["v_measure_minibatch"] != plain["v_measure"]


def test_texts_that_a_labeling_says_nothing_about_are_left_out():
    vectors = np.eye(4, dtype=np.float32)[[0, 1, 0, 1, 2, 3]]
    assert v_measures(vectors, np.array([0, 1, 0, 1, -1, -1]), 3, seed=0) == pytest.approx(
        [1.0] * 3
    )


def test_rows_that_hold_lists_are_clustered_one_by_one(write, encoder):
    rng = np.random.default_rng(2)
    rows = [{**row, "text": f"{row['text']} x{rng.integers(50)}"} for row in _topics()]
    nested = [
        {"sentences": [r["text"] for r in part], "labels": [r["label"] for r in part]}
        for part in (rows[:45], rows[45:])
    ]
    write("org/nested", "test", nested)
    task = Clustering("toy", data="org/nested", text="sentences", label="labels", limit=30)
    assert len(list(task.items(seed=0))) == 60
    assert 0 < task.evaluate(encoder, seed=0)["v_measure"].mean <= 1


def test_classes_can_be_taken_together_by_their_names(write, encoder):
    rows = [{"text": row["text"], "label": "abc".index(row["label"])} for row in _topics(30)]
    write("org/topics", "test", rows, names={"label": ["a", "b", "c"]})
    task = Clustering("toy", data="org/topics", groups={"ab": "a b"})
    together = [{**row, "label": min(row["label"] // 2, 1)} for row in rows]  # 0, 0, 1
    write("org/together", "test", together)
    assert task.evaluate(encoder, seed=0) == Clustering("toy", data="org/together").evaluate(
        encoder, seed=0
    )


def test_the_instruction_goes_into_the_plan(write):
    write("org/topics", "test", _topics(4))
    items = Clustering("toy", data="org/topics", instruction="Which topic?").items(seed=0)
    assert {item.instruction for item in items} == {"Which topic?"}
