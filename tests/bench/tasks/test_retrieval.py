"""Retrieval against nDCG computed by hand and by scikit-learn."""

import math

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.metrics import ndcg_score

from bench.errors import DataError
from bench.tasks.retrieval import Retrieval, ndcg
from tests.bench.encoders import Plain, Unheeding, Words

PAIRS = [
    ("red apple", "apple"),
    ("green pear", "pear green"),
    ("old house", "tree"),
    ("red apple", "red"),
]


def task(**fields):
    return Retrieval("questions", data="own/pairs", **fields)


@pytest.fixture(autouse=True)
def pairs(write):
    write("own/pairs", "test", [{"question": q, "answer": a} for q, a in PAIRS])


def test_ndcg_is_that_of_scikit_learn_and_of_the_formula():
    rng = np.random.default_rng(0)
    similarities, relevant = rng.normal(size=(40, 30)), rng.random((40, 30)) < 0.1
    relevant[:, 0] |= ~relevant.any(axis=1)
    found = ndcg(similarities, relevant)
    assert found.mean() == pytest.approx(ndcg_score(relevant, similarities, k=10))
    ranks = np.argsort(-similarities[0]).tolist()
    gains = [1 / math.log2(ranks.index(i) + 2) for i in np.flatnonzero(relevant[0])]
    best = sum(1 / math.log2(rank + 2) for rank in range(len(gains)))
    counted = sum(gain for gain in gains if gain >= 1 / math.log2(11))
    assert found[0] == pytest.approx(counted / best)


def test_a_question_that_is_asked_twice_has_two_answers():
    """Of the words' sums: both halves of "red apple" first; "old house" is like no answer."""
    questions, _, relevant = task().load(0)
    assert questions == ["red apple", "green pear", "old house"]
    assert relevant.sum(axis=1).tolist() == [2, 1, 1]
    score = task().evaluate(Words(dim=4096), seed=0)["ndcg_at_10"]
    assert score.examples[:2] == pytest.approx([1.0, 1.0])
    third = score.examples[2]
    assert min(abs(third - 1 / math.log2(rank + 2)) for rank in range(4)) < 1e-6
    assert score.mean == pytest.approx(score.examples.mean())


@pytest.mark.parametrize(
    ("similarity", "metric"), [("cosine", "cosine"), ("dot", None), ("euclidean", "euclidean")]
)
def test_answers_are_ranked_by_the_similarity_of_the_encoder(similarity, metric):
    class Own(Words):
        pass

    Own.similarity = similarity
    questions, answers, relevant = task().load(0)
    vectors = [Words(dim=64).encode(texts).astype(float) for texts in (questions, answers)]
    scores = vectors[0] @ vectors[1].T if metric is None else -cdist(*vectors, metric)
    score = task().evaluate(Own(dim=64), seed=0)["ndcg_at_10"]
    np.testing.assert_allclose(score.examples, ndcg(scores, relevant), atol=1e-6)


@pytest.mark.parametrize("similarity", ["dot", "euclidean"])
def test_short_vectors_are_ranked_as_long_ones(similarity):
    class Own(Words):
        scale = 1.0

        def encode(self, texts, *, instruction=""):
            return (super().encode(texts) * self.scale).astype(np.float32)

    Own.similarity = similarity
    long = task().evaluate(Own(dim=64), seed=0)["ndcg_at_10"]
    Own.scale = 1e-5
    short = task().evaluate(Own(dim=64), seed=0)["ndcg_at_10"]
    assert short.examples.tolist() == long.examples.tolist()


def test_a_rank_after_the_tenth_counts_nothing():
    similarities = -np.arange(12.0)[None]
    assert [ndcg(similarities, np.eye(12, dtype=bool)[[i]])[0] for i in (0, 9, 10)] == [
        1.0,
        pytest.approx(1 / math.log2(11)),
        0.0,
    ]


def test_the_encoder_says_which_side_gets_the_instruction():
    encoder = Plain()
    task(instruction="What is it?").evaluate(encoder, seed=0)
    asked = {item.text: item.instruction for item in encoder.asked}
    assert (asked["old house"], asked["tree"]) == ("What is it?", "")
    same = task().evaluate(Unheeding(), seed=0)["ndcg_at_10"].mean
    assert task(instruction="?").evaluate(Unheeding(), seed=0)["ndcg_at_10"].mean == same


def test_a_single_answer_is_refused():
    with pytest.raises(DataError, match="at least two answers"):
        task(limit=1).load(0)
