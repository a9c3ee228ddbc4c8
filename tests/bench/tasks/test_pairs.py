"""Pairs of texts: similarity, paraphrases by similarity and by few-shot classifiers."""

import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.metrics.pairwise import paired_cosine_distances

from bench.encoder import TokenStates
from bench.errors import DataError, UsageError
from bench.stats.influence import contributions
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


def measured(task, encoder, metric):
    return task.evaluate(encoder, seed=0)[metric]


def test_similarity_is_the_cosine_spearman_of_mteb_with_a_cosine_for_each_pair(write, encoder):
    rng = np.random.default_rng(0)
    rows = [row | {"score": row["score"] + rng.normal()} for row in make_pairs(300)]
    rows.append({**rows[0], "sentence1": "same words", "sentence2": "same words", "score": 9.0})
    write("org/sts", "test", rows)
    cosines = 1 - paired_cosine_distances(*(encoder.encode([r[s] for r in rows]) for s in SIDES))
    expected = spearmanr([row["score"] for row in rows], cosines).statistic
    task = STS("toy", data="org/sts")
    score, most = (measured(task, encoder, f"{name}_spearman") for name in ("cosine", "max"))
    assert score.mean == pytest.approx(expected, abs=5e-5)
    assert most.mean >= score.mean > 0.5
    assert score.examples == pytest.approx(cosines, abs=1e-6)
    assert score.examples[-1] == 1.0
    each = contributions("cosine_spearman", score.examples, score.gold)
    assert each.mean() == pytest.approx(score.mean, abs=1e-6)
    small = dataclasses.replace(task, limit=40)
    one, two = (small.evaluate(encoder, seed=s)["cosine_spearman"].examples for s in (0, 1))
    assert (len(one), one.tolist()) == (40, two.tolist())  # the same draw for every seed


def test_similarity_under_instructions_is_exactly_zero_where_they_are_ignored(write, encoder):
    rows = []
    for pair in make_pairs(30):
        texts = {side: pair[side] for side in SIDES}
        rows += [{**texts, "score": s, "instruction": f"Is it {s}?"} for s in (1, 0)]
    write("BrandonZYW/InstructSTSB", "test", rows)
    task = TASKS["instruct-stsb"]
    asked = {(row[side], row["instruction"]) for row in rows for side in SIDES}
    assert set(task.items(seed=0)) == asked
    ignored, read = (
        measured(task, each, "cosine_spearman").mean for each in (Unheeding(), encoder)
    )
    assert ignored == pytest.approx(0, abs=1e-12)  # both copies of a pair share one rank
    assert abs(read) > 0.01


def test_scores_between_the_bounds_are_left_out(write, encoder):
    write("org/pairs", "test", [*make_pairs(20), {**make_pairs(1)[0], "score": 3.0}])
    task = Paraphrase("toy", data="org/pairs", columns=(*SIDES, "score"), bounds=(2.0, 4.0))
    assert len(list(task.items(seed=0))) == 40
    assert measured(task, encoder, "auroc").examples.shape == (20,)


def test_token_states_are_read_at_the_layer_in_blocks_of_any_size(write, encoder, monkeypatch):
    write("org/pairs", "test", make_pairs())
    task, first = (BertScore("toy", data="org/pairs", layer=layer) for layer in (-1, 0))
    last = measured(task, encoder, "auroc").examples
    assert not np.allclose(last, measured(first, encoder, "auroc").examples)
    monkeypatch.setattr(partition, "_BLOCK", 100)
    # Another padding may move the last bit of a product in float32.
    assert measured(task, encoder, "auroc").examples == pytest.approx(last, abs=2e-6)


def test_the_layer_that_does_best_on_other_pairs_is_picked_and_the_pairs_of_the_test_have_no_say(
    write, encoder
):
    write("org/pairs", "test", make_pairs())
    for name, turned in (("likely", 0), ("turned", 1)):
        write(
            f"org/{name}", "dev", [row | {"label": row["label"] ^ turned} for row in make_pairs(60)]
        )
        others = ((f"org/{name}", "", "dev"),)
        task = PickedBertScore("toy", data="org/pairs", others=others, layers=(-2, -1))
        scores = task.evaluate(encoder, seed=0)
        picking = {layer: scores[f"{PICKING}{layer}"].mean for layer in (-2, -1)}
        best = max(picking, key=picking.get)
        assert scores["layer"].mean == best
        at_best = measured(BertScore("toy", data="org/pairs", layer=best), encoder, "auroc")
        np.testing.assert_array_equal(scores["auroc"].examples, at_best.examples)
    assert picking[-1] < 0.5  # of the turned pairs: those of the test are not
    with pytest.raises(UsageError, match="picks its layer"):
        dataclasses.replace(task, layer=3)


def test_training_pairs_can_be_named_by_their_numbers(write, encoder, few):
    write("org/pairs", "train", [row | {"id": 1000 + i} for i, row in enumerate(few[60:92])])
    named = [{"seed": seed, "id": 1000 + i} for seed in SEEDS for i in range(32)]
    write("org/ids", "train", named)
    numbered = dataclasses.replace(FEW, train="org/ids", numbered=True)
    one, two = (measured(task, encoder, "f1").repeats for task in (numbered, FEW))
    assert one == two
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

    one_pass, passes = (measured(FEW, each, "f1").repeats for each in (Layered(), encoder))
    assert one_pass == passes
    assert set(asked) == {(0, -1)}
    # Of a network with fewer layers than a task reads those are read that there are.
    asked.clear()
    dataclasses.replace(FEW, layers=tuple(range(-8, 0))).evaluate(Layered(), seed=0)
    write("org/others", "dev", few)
    task = PickedBertScore("toy", data="org/pairs", others=(("org/others", "", "dev"),))
    picked = measured(task, Layered(), "layer").mean
    assert set(asked) == {(-4, -3, -2, -1), (int(picked),)}


def test_f1_of_frozen_features_is_that_of_the_published_classifier(encoder, few):
    """Recomputed from BERTScore F, layer by layer, with scikit-learn alone."""
    sides = [[row[side] for row in few[:92]] for side in SIDES]
    layers = [[encoder.encode_tokens(side, layer=layer) for side in sides] for layer in (0, -1)]
    x = np.stack([bertscore(*both) for both in layers], axis=1)
    y = np.array([row["label"] for row in few[:92]])
    x = (x - x[60:].mean(0)) / x[60:].std(0)
    fitted = LogisticRegression(C=1.0, solver="liblinear").fit(x[60:], y[60:])
    expected = f1_score(y[:60], fitted.predict(x[:60]))
    assert measured(FEW, encoder, "f1").repeats == pytest.approx([expected] * 5)


@settings(max_examples=40)
@given(st.lists(st.tuples(*[st.integers(0, 1)] * 3), min_size=1, max_size=30))
def test_scores_of_pairs_are_sklearn_s_and_the_mean_of_what_pairs_contribute(rows):
    gold, *found = np.array(rows).T
    assume(gold.any())  # else there is no F1
    expected = {
        "f1": [f1_score(gold, one, zero_division=0) for one in found],
        "accuracy": [accuracy_score(gold, one) for one in found],
    }
    for name, score in f1_scores(gold, found).items():
        assert score.repeats == pytest.approx(expected[name], abs=1e-9)
        each = contributions(name, score.examples, score.gold)
        assert each.mean() == pytest.approx(score.mean, abs=1e-5)


def states(values):
    return TokenStates(values, np.zeros((len(values), 2), np.int32))


def bertscore_of(a, b):
    cosines = unit(a.states.astype(np.float64)) @ unit(b.states.astype(np.float64)).T
    p, r = cosines.max(axis=1).mean(), cosines.max(axis=0).mean()
    return 2 * p * r / (p + r) if p > 0 and r > 0 else 0.0


LENGTHS = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=150)


@settings(max_examples=50)
@given(LENGTHS, st.integers(0, 99))
def test_bertscore_equals_the_formula_in_double_precision(lengths, seed):
    rng = np.random.default_rng(seed)
    left, right = (
        [states(rng.normal(size=(n, 5)).astype(np.float32)) for n in side]
        for side in zip(*lengths, strict=True)
    )
    expected = [bertscore_of(a, b) for a, b in zip(left, right, strict=True)]
    # Scores are rounded to 6 decimals; float32 products add about as much.
    assert bertscore(left, right) == pytest.approx(expected, abs=5e-6)
    assert bertscore(right, left) == pytest.approx(expected, abs=5e-6)
    assert bertscore(left, left) == pytest.approx([1.0] * len(left))


def test_opposite_and_absent_tokens_and_states_of_zeros_are_like_nothing():
    rows = np.array([[1, 2, 3], [3, -1, 0]], np.float32)
    one, opposite, empty, whole, half = map(
        states, (rows[:1], -rows[:1], rows[:0], rows, rows * [[1], [0]])
    )
    assert bertscore([one, one], [opposite, empty]).tolist() == [0.0, 0.0]
    expected = [bertscore_of(whole, half), 0.5]
    assert bertscore([whole, half], [half, half]) == pytest.approx(expected, abs=5e-6)
    assert unit(np.array([[0.0, 0.0], [3.0, 4.0]])).tolist() == [[0.0, 0.0], [0.6, 0.8]]


def test_cosines_of_equal_vectors_tie():
    vectors = np.random.default_rng(0).normal(size=(50, 384)).astype(np.float32)
    assert set(cosine(vectors, 3 * vectors)) == {1.0}
