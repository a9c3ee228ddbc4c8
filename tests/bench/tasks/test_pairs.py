"""Pairs of texts: similarity, paraphrases by similarity and by few-shot classifiers."""

import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.metrics.pairwise import paired_cosine_distances

from bench.encoder import TokenStates
from bench.errors import DataError, UsageError
from bench.influence import contributions
from bench.task import PICKING
from bench.tasks import TASKS, partition
from bench.tasks.paraphrase import SEEDS, BertScore, FewShot, Paraphrase, PickedBertScore, f1_scores
from bench.tasks.similarity import bertscore, cosine, unit
from bench.tasks.sts import STS
from tests.bench.encoders import Unheeding, Words

SIDES = ("sentence1", "sentence2")


def make_pairs(n=120):
    """Pairs of which every other one shares four of six words."""
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(80)]
    rows = []
    for i in range(n):
        a = list(rng.choice(words, 6))
        b = [*a[:4], *rng.choice(words, 2)] if i % 2 else list(rng.choice(words, 6))
        texts = {"sentence1": " ".join(a), "sentence2": " ".join(rng.permutation(b))}
        rows.append({**texts, "label": i % 2, "score": 4.5 if i % 2 else 1.0})
    return rows


@pytest.fixture
def few(write):
    """Sixty pairs for a test, and the same 32 others for each split."""
    rows = make_pairs(100)
    write("org/pairs", "test", rows[:60])
    for seed in SEEDS:
        write(f"org/few/16-{seed}", "train", rows[60:92])
    return rows


FEW = FewShot("toy", data="org/pairs", train="org/few", layers=(0, -1))


def test_similarity_is_the_cosine_spearman_of_mteb_with_a_cosine_for_each_pair(write, encoder):
    rng = np.random.default_rng(0)
    rows = [row | {"score": row["score"] + rng.normal()} for row in make_pairs(300)]
    rows.append({**rows[0], "sentence1": "same words", "sentence2": "same words", "score": 9.0})
    write("org/sts", "test", rows)
    left, right = (encoder.encode([row[side] for row in rows]) for side in SIDES)
    cosines = 1 - paired_cosine_distances(left, right)
    expected = spearmanr([row["score"] for row in rows], cosines).statistic
    scores = STS("toy", data="org/sts").evaluate(encoder, seed=0)
    score = scores["cosine_spearman"]
    assert score.mean == pytest.approx(expected, abs=5e-5)
    assert scores["max_spearman"].mean >= score.mean > 0.5
    assert score.examples == pytest.approx(cosines, abs=1e-6)
    assert score.examples[-1] == 1.0
    each = contributions("cosine_spearman", score.examples, score.gold)
    assert each.mean() == pytest.approx(score.mean, abs=1e-6)
    small = STS("toy", data="org/sts", limit=40)
    draws = [small.evaluate(encoder, seed=s)["cosine_spearman"].examples for s in (0, 1)]
    assert len(draws[0]) == 40
    assert draws[0].tolist() == draws[1].tolist()


def test_similarity_under_instructions_is_exactly_zero_where_they_are_ignored(write, encoder):
    rows = []
    for pair in make_pairs(30):
        texts = {side: pair[side] for side in SIDES}
        rows += [{**texts, "score": s, "instruction": f"Is it {s}?"} for s in (1, 0)]
    write("BrandonZYW/InstructSTSB", "test", rows)
    task = TASKS["instruct-stsb"]
    assert task.family == "instruction"
    items = list(task.items(seed=0))
    assert items[0] == (rows[0]["sentence1"], "Is it 1?")
    assert (rows[1]["sentence2"], "Is it 0?") in items
    ignored, read = (
        task.evaluate(each, seed=0)["cosine_spearman"].mean for each in (Unheeding(), encoder)
    )
    assert ignored == pytest.approx(0, abs=1e-12)  # both copies of a pair share one rank
    assert abs(read) > 0.01


def test_scores_between_the_bounds_are_left_out(write, encoder):
    rows = [*make_pairs(20), {"sentence1": "a", "sentence2": "b", "label": 0, "score": 3.0}]
    write("org/pairs", "test", rows)
    task = Paraphrase("toy", data="org/pairs", columns=(*SIDES, "score"), bounds=(2.0, 4.0))
    assert len(list(task.items(seed=0))) == 40
    assert task.evaluate(encoder, seed=0)["auroc"].examples.shape == (20,)


def test_token_states_are_read_at_the_layer_in_blocks_of_any_size(write, encoder, monkeypatch):
    write("org/pairs", "test", make_pairs())

    def read(layer):
        task = BertScore("toy", data="org/pairs", layer=layer)
        return task.evaluate(encoder, seed=0)["auroc"].examples

    last = read(-1)
    assert not np.allclose(last, read(0))
    monkeypatch.setattr(partition, "_BLOCK", 100)
    # Another padding may move the last bit of a product in float32.
    assert read(-1) == pytest.approx(last, abs=2e-6)


def test_the_layer_that_does_best_on_other_pairs_is_picked_and_the_pairs_of_the_test_have_no_say(
    write, encoder
):
    write("org/pairs", "test", make_pairs())
    turned = [row | {"label": 1 - row["label"]} for row in make_pairs(60)]
    for name, rows in (("likely", make_pairs(60)), ("turned", turned)):
        write(f"org/{name}", "dev", rows)
        others = ((f"org/{name}", "", "dev"),)
        task = PickedBertScore("toy", data="org/pairs", others=others, layers=(-2, -1))
        scores = task.evaluate(encoder, seed=0)
        picking = {layer: scores[f"{PICKING}{layer}"].mean for layer in (-2, -1)}
        best = max(picking, key=picking.get)
        assert scores["layer"].mean == best
        at_best = BertScore("toy", data="org/pairs", layer=best).evaluate(encoder, seed=0)
        np.testing.assert_array_equal(scores["auroc"].examples, at_best["auroc"].examples)
    assert picking[-1] < 0.5  # of the turned pairs: those of the test are not
    with pytest.raises(UsageError, match="picks its layer"):
        dataclasses.replace(task, layer=3)


def test_training_pairs_can_be_named_by_their_numbers(write, encoder, few):
    write("org/pairs", "train", [row | {"id": 1000 + i} for i, row in enumerate(few[60:92])])
    named = [{"seed": seed, "id": 1000 + i} for seed in SEEDS for i in range(32)]
    write("org/ids", "train", named)
    numbered = dataclasses.replace(FEW, train="org/ids", numbered=True)
    scores = [task.evaluate(encoder, seed=0)["f1"].repeats for task in (numbered, FEW)]
    assert scores[0] == scores[1]
    write("org/ids", "train", [*named, {"seed": 13, "id": 7}])
    with pytest.raises(DataError, match="the row 7"):
        numbered.evaluate(encoder, seed=0)


def test_layers_come_from_one_pass_where_the_encoder_gives_them(write, encoder, few):
    asked = []

    class Layered(Words):
        def layer_count(self):
            return 3

        def encode_layers(self, texts, *, layers):
            asked.append(tuple(layers))
            return [self.encode_tokens(texts, layer=layer) for layer in layers]

    one_pass, passes = (FEW.evaluate(each, seed=0)["f1"].repeats for each in (Layered(), encoder))
    assert one_pass == passes
    assert set(asked) == {(0, -1)}
    asked.clear()  # of a network with fewer layers than a task reads those are read that there are
    dataclasses.replace(FEW, layers=tuple(range(-8, 0))).evaluate(Layered(), seed=0)
    write("org/others", "dev", few)
    task = PickedBertScore("toy", data="org/pairs", others=(("org/others", "", "dev"),))
    picked = task.evaluate(Layered(), seed=0)
    assert set(asked) == {(-4, -3, -2, -1), (int(picked["layer"].mean),)}


def test_f1_of_frozen_features_is_that_of_the_published_classifier(encoder, few):
    """Recomputed from BERTScore F, layer by layer, with scikit-learn alone."""
    sides = [[row[side] for row in few[:92]] for side in SIDES]
    layers = []
    for layer in (0, -1):
        left, right = (encoder.encode_tokens(side, layer=layer) for side in sides)
        layers.append(bertscore(left, right))
    x, y = np.stack(layers, axis=1), np.array([row["label"] for row in few[:92]])
    mean, deviation = x[60:].mean(0), x[60:].std(0)
    fitted = LogisticRegression(C=1.0, solver="liblinear").fit((x[60:] - mean) / deviation, y[60:])
    expected = f1_score(y[:60], fitted.predict((x[:60] - mean) / deviation))
    assert FEW.evaluate(encoder, seed=0)["f1"].repeats == pytest.approx([expected] * 5)


@given(st.lists(st.tuples(*[st.integers(0, 1)] * 3), min_size=1, max_size=30))
def test_scores_of_pairs_are_sklearn_s_and_the_mean_of_what_pairs_contribute(rows):
    gold, *found = np.array(rows).T
    assume(gold.any())  # else there is no F1
    scores = f1_scores(gold, found)
    expected = {
        "f1": [f1_score(gold, one, zero_division=0) for one in found],
        "accuracy": [accuracy_score(gold, one) for one in found],
    }
    for name, score in scores.items():
        assert score.repeats == pytest.approx(expected[name], abs=1e-9)
        each = contributions(name, score.examples, score.gold)
        assert each.mean() == pytest.approx(score.mean, abs=1e-5)


def make_states(lengths, seed):
    rng = np.random.default_rng(seed)
    return [
        TokenStates(rng.normal(size=(n, 5)).astype(np.float32), np.zeros((n, 2), np.int32))
        for n in lengths
    ]


def bertscore_of(a, b):
    cosines = unit(a.states.astype(np.float64)) @ unit(b.states.astype(np.float64)).T
    p, r = cosines.max(axis=1).mean(), cosines.max(axis=0).mean()
    return 2 * p * r / (p + r) if p > 0 and r > 0 else 0.0


LENGTHS = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=150)


@given(LENGTHS, st.integers(0, 99))
def test_bertscore_equals_the_formula_in_double_precision(lengths, seed):
    left = make_states([a for a, _ in lengths], seed)
    right = make_states([b for _, b in lengths], seed + 100)
    expected = [bertscore_of(a, b) for a, b in zip(left, right, strict=True)]
    # Scores are rounded to 6 decimals; float32 products add about as much.
    assert bertscore(left, right) == pytest.approx(expected, abs=5e-6)


def test_bertscore_is_symmetric_one_for_equal_and_zero_for_opposite_and_absent_tokens():
    left, right = make_states([3, 7, 1], 0), make_states([4, 2, 6], 1)
    assert bertscore(left, left) == pytest.approx([1.0] * 3)
    assert bertscore(left, right) == pytest.approx(bertscore(right, left))
    states, spans = make_states([2], 0)[0].states, np.zeros((2, 2), np.int32)
    one, opposite, empty = (
        TokenStates(part, spans[: len(part)]) for part in (states[:1], -states[:1], states[:0])
    )
    assert bertscore([one, one], [opposite, empty]).tolist() == [0.0, 0.0]
    whole, half = (
        TokenStates(part, spans) for part in (states, np.stack([states[0], 0 * states[1]]))
    )  # a state of zeros is like no other
    expected = [bertscore_of(whole, half), 0.5]
    assert bertscore([whole, half], [half, half]) == pytest.approx(expected, abs=5e-6)


def test_cosines_of_equal_vectors_tie_and_a_vector_of_zeros_has_no_direction():
    vectors = np.random.default_rng(0).normal(size=(50, 384)).astype(np.float32)
    assert set(cosine(vectors, 3 * vectors)) == {1.0}
    assert unit(np.array([[0.0, 0.0], [3.0, 4.0]])).tolist() == [[0.0, 0.0], [0.6, 0.8]]
