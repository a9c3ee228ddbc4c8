import dataclasses

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from bench.errors import DataError, UsageError
from bench.influence import contributions
from bench.task import PICKING
from bench.tasks import partition
from bench.tasks.paraphrase import SEEDS, BertScore, FewShot, Paraphrase, PickedBertScore
from bench.tasks.similarity import bertscore


def _pairs(n=120):
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(80)]
    rows = []
    for i in range(n):
        a = list(rng.choice(words, 6))
        b = [*a[:4], *rng.choice(words, 2)] if i % 2 else list(rng.choice(words, 6))
        rows.append(
            {
                "sentence1": " ".join(a),
                "sentence2": " ".join(rng.permutation(b)),
                "label": i % 2,
                "score": 4.5 if i % 2 else 1.0,
            }
        )
    return rows


@pytest.mark.parametrize("kind", [Paraphrase, BertScore])
def test_pairs_that_share_their_words_rank_above_pairs_that_do_not(kind, write, encoder):
    write("org/pairs", "test", _pairs())
    scores = kind("toy", data="org/pairs").evaluate(encoder, seed=0)
    assert scores["auroc"].mean > 0.95
    assert scores["ap"].mean > 0.95
    assert scores["auroc"].examples.shape == (120,)
    made_up = contributions("auroc", scores["auroc"].examples, scores["auroc"].gold)
    assert made_up.mean() == pytest.approx(scores["auroc"].mean, abs=1e-6)


def test_another_layer_gives_other_similarities(write, encoder):
    write("org/pairs", "test", _pairs())
    last, first = (
        BertScore("toy", data="org/pairs", layer=n).evaluate(encoder, seed=0)["auroc"].examples
        for n in (-1, 0)
    )
    assert not np.allclose(last, first)


def test_the_layer_that_does_best_on_other_pairs_is_picked_and_the_pairs_of_the_test_have_no_say(
    write, encoder
):
    write("org/pairs", "test", _pairs())
    turned = [row | {"label": 1 - row["label"]} for row in _pairs(60)]
    for name, rows in (("likely", _pairs(60)), ("turned", turned)):
        write(f"org/{name}", "dev", rows)
    for name in ("likely", "turned"):
        task = PickedBertScore(
            "toy", data="org/pairs", others=((f"org/{name}", "", "dev"),), layers=(-2, -1)
        )
        scores = task.evaluate(encoder, seed=0)
        picking = {layer: scores[f"{PICKING}{layer}"].mean for layer in (-2, -1)}
        best = max(picking, key=picking.get)
        assert scores["layer"].mean == best
        at_best = BertScore("toy", data="org/pairs", layer=best).evaluate(encoder, seed=0)
        np.testing.assert_array_equal(scores["auroc"].examples, at_best["auroc"].examples)
    assert picking[-1] < 0.5  # of the turned pairs: those of the test are not
    with pytest.raises(UsageError, match="picks its layer"):
        dataclasses.replace(task, layer=3)


def test_reading_in_small_blocks_changes_nothing(write, encoder, monkeypatch):
    write("org/pairs", "test", _pairs())
    task = BertScore("toy", data="org/pairs")
    whole = task.evaluate(encoder, seed=0)["auroc"].examples
    monkeypatch.setattr(partition, "_BLOCK", 100)
    # Another padding may move the last bit of a product in float32.
    assert task.evaluate(encoder, seed=0)["auroc"].examples == pytest.approx(whole, abs=2e-6)


def test_scores_between_the_bounds_are_left_out(write, encoder):
    rows = [*_pairs(20), {"sentence1": "a", "sentence2": "b", "label": 0, "score": 3.0}]
    write("org/pairs", "test", rows)
    task = Paraphrase(
        "toy", data="org/pairs", columns=("sentence1", "sentence2", "score"), bounds=(2.0, 4.0)
    )
    assert len(list(task.items(seed=0))) == 40
    assert task.evaluate(encoder, seed=0)["auroc"].examples.shape == (20,)


def test_few_shot_trains_on_each_split_and_tells_the_classes_apart(write, encoder):
    rows = _pairs(160)
    write("org/pairs", "test", rows[:96])
    for k, seed in enumerate(SEEDS):
        write(f"org/few/16-{seed}", "train", rows[96 + 8 * k :][:32] if k < 4 else rows[96:128])
    scores = FewShot("toy", data="org/pairs", train="org/few", layers=(0, -1)).evaluate(
        encoder, seed=0
    )
    assert len(scores["f1"].repeats) == 5
    assert scores["f1"].mean > 0.9
    assert scores["f1"].repeats[4] == scores["f1"].repeats[0]  # the same 32 pairs


def test_training_pairs_can_be_named_by_their_numbers(write, encoder):
    rows = _pairs(100)
    write("org/pairs", "test", rows[:60])
    write("org/pairs", "train", [row | {"id": 1000 + i} for i, row in enumerate(rows[60:92])])
    named = [{"seed": seed, "id": 1000 + i} for seed in SEEDS for i in range(32)]
    write("org/ids", "train", named)
    for seed in SEEDS:
        write(f"org/few/16-{seed}", "train", rows[60:92])
    numbered, given = (
        FewShot(
            "toy", data="org/pairs", train=source, layers=(0, -1), numbered=source == "org/ids"
        ).evaluate(encoder, seed=0)["f1"]
        for source in ("org/ids", "org/few")
    )
    assert numbered.repeats == given.repeats
    write("org/ids", "train", [*named, {"seed": 13, "id": 7}])
    with pytest.raises(DataError, match="the row 7"):
        FewShot("toy", data="org/pairs", train="org/ids", layers=(-1,), numbered=True).evaluate(
            encoder, seed=0
        )


def test_layers_come_from_one_pass_where_the_encoder_gives_them(write, encoder):
    rows = _pairs(100)
    write("org/pairs", "test", rows[:60])
    for seed in SEEDS:
        write(f"org/few/16-{seed}", "train", rows[60:92])
    asked = []

    class Layered(type(encoder)):
        def layer_count(self):
            return 3

        def encode_layers(self, texts, *, layers):
            asked.append(tuple(layers))
            return [super(Layered, self).encode_tokens(texts, layer=layer) for layer in layers]

    task = FewShot("toy", data="org/pairs", train="org/few", layers=(0, -1))
    assert (
        task.evaluate(Layered(), seed=0)["f1"].repeats
        == task.evaluate(encoder, seed=0)["f1"].repeats
    )
    assert set(asked) == {(0, -1)}
    asked.clear()  # of a network with fewer layers than a task reads those are read that there are
    dataclasses.replace(task, layers=tuple(range(-8, 0))).evaluate(Layered(), seed=0)
    write("org/others", "dev", rows)
    picked = PickedBertScore("toy", data="org/pairs", others=(("org/others", "", "dev"),)).evaluate(
        Layered(), seed=0
    )
    assert set(asked) == {(-4, -3, -2, -1), (int(picked["layer"].mean),)}


def test_f1_of_frozen_features_is_that_of_the_published_classifier(write, encoder):
    """Recomputed from BERTScore F, layer by layer, with scikit-learn alone."""
    rows = _pairs(100)
    write("org/pairs", "test", rows[:60])
    for seed in SEEDS:
        write(f"org/few/16-{seed}", "train", rows[60:92])
    sides = [[row[c] for row in rows[:92]] for c in ("sentence1", "sentence2")]
    x = np.stack(
        [bertscore(*(encoder.encode_tokens(side, layer=k) for side in sides)) for k in (0, -1)],
        axis=1,
    )
    y = np.array([row["label"] for row in rows[:92]])
    mean, deviation = x[60:].mean(0), x[60:].std(0)
    fitted = LogisticRegression(C=1.0, solver="liblinear").fit((x[60:] - mean) / deviation, y[60:])
    expected = f1_score(y[:60], fitted.predict((x[:60] - mean) / deviation))
    found = FewShot("toy", data="org/pairs", train="org/few", layers=(0, -1)).evaluate(
        encoder, seed=0
    )["f1"]
    assert found.mean == pytest.approx(expected)
