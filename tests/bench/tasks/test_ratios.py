"""Ratios of counts: the numbers of the usual libraries, and each example's contribution."""

import warnings

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from bench.influence import contributions
from bench.tasks.ner import entity_scores
from bench.tasks.paraphrase import f1_scores

TAGS = st.lists(
    st.tuples(*[st.sampled_from(["O", "B-a", "I-a", "B-b", "I-b"])] * 3), min_size=1, max_size=6
)  # three sets of tags a word
SENTENCES = st.lists(TAGS, min_size=1, max_size=8)


@given(SENTENCES)
def test_entity_scores_are_seqeval_s_and_the_mean_of_what_sentences_contribute(sentences):
    from seqeval.metrics import f1_score, precision_score, recall_score

    gold, *found = (
        [[word[side] for word in sentence] for sentence in sentences] for side in range(3)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # seqeval warns where nothing is found
        expected = {
            name: [measure(gold, tags, zero_division=0) for tags in found]
            for name, measure in (
                ("f1", f1_score),
                ("precision", precision_score),
                ("recall", recall_score),
            )
        }
    assume(any(tag != "O" for tags in gold for tag in tags))  # else there is no F1
    expected["precision"] = [
        value
        for value, tags in zip(expected["precision"], found, strict=True)
        if any(tag != "O" for sentence in tags for tag in sentence)
    ]
    scores = entity_scores(gold, found)
    assert set(scores) == {name for name, repeats in expected.items() if repeats}
    for name, score in scores.items():
        assert score.repeats == pytest.approx(expected[name], abs=1e-9)
        assert len(score.examples) == len(sentences)
        assert contributions(name, score.examples, score.gold).mean() == pytest.approx(
            score.mean, abs=1e-5
        )


@given(st.lists(st.tuples(*[st.integers(0, 1)] * 3), min_size=1, max_size=30))
def test_scores_of_pairs_are_sklearn_s_and_the_mean_of_what_pairs_contribute(rows):
    gold, *found = np.array(rows).T
    assume(gold.any())  # else there is no F1
    scores = f1_scores(gold, found)
    assert scores["f1"].repeats == pytest.approx(
        [f1_score(gold, one, zero_division=0) for one in found], abs=1e-9
    )
    assert scores["accuracy"].repeats == pytest.approx(
        [accuracy_score(gold, one) for one in found], abs=1e-9
    )
    for name, score in scores.items():
        assert contributions(name, score.examples, score.gold).mean() == pytest.approx(
            score.mean, abs=1e-5
        )
