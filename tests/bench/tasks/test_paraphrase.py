import dataclasses

import numpy as np
import pytest

from bench.encoder import Encoder, TokenEncoder
from bench.errors import DataError
from bench.influence import contributions
from bench.tasks import partition
from bench.tasks.paraphrase import BertScore, Paraphrase


def _pairs(n=120):
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(80)]
    rows = []
    for i in range(n):
        a = list(rng.choice(words, 6))
        b = [*a[:4], *rng.choice(words, 2)] if i % 2 else list(rng.choice(words, 6))
        rows.append({"sentence1": " ".join(a), "sentence2": " ".join(rng.permutation(b)), "label": i % 2, "score": 4.5 if i % 2 else 1.0})
    return rows


@pytest.mark.parametrize("kind", [Paraphrase, BertScore])
def test_pairs_that_share_their_words_rank_above_pairs_that_do_not(kind, write, encoder):
    write("org/pairs", "test", _pairs())
    scores = kind("toy", "org/pairs").evaluate(encoder, seed=0)
    assert scores["auroc"].mean > 0.95
    assert scores["ap"].mean > 0.95
    assert scores["auroc"].examples.shape == (120,)
    made_up = contributions("auroc", scores["auroc"].examples, scores["auroc"].gold)
    assert made_up.mean() == pytest.approx(scores["auroc"].mean, abs=1e-6)


def test_the_read_out_says_what_is_read_and_what_it_needs():
    vectors, tokens = Paraphrase("toy", "org/pairs"), BertScore("toy", "org/pairs")
    assert (vectors.readout, vectors.needs) == ("embedding", Encoder)
    assert (tokens.readout, tokens.needs) == ("bertscore", TokenEncoder)
    assert dataclasses.replace(tokens, layer=20).readout == "bertscore@20"


def test_another_layer_gives_other_similarities(write, encoder):
    write("org/pairs", "test", _pairs())
    last, first = (BertScore("toy", "org/pairs", layer=n).evaluate(encoder, seed=0)["auroc"].examples for n in (-1, 0))
    assert not np.allclose(last, first)


def test_reading_in_small_blocks_changes_nothing(write, encoder, monkeypatch):
    write("org/pairs", "test", _pairs())
    task = BertScore("toy", "org/pairs")
    whole = task.evaluate(encoder, seed=0)["auroc"].examples
    monkeypatch.setattr(partition, "_BLOCK", 100)
    # Another padding may move the last bit of a product in float32.
    assert task.evaluate(encoder, seed=0)["auroc"].examples == pytest.approx(whole, abs=2e-6)


def test_scores_between_the_bounds_are_left_out(write, encoder):
    rows = [*_pairs(20), {"sentence1": "a", "sentence2": "b", "label": 0, "score": 3.0}]
    write("org/pairs", "test", rows)
    task = Paraphrase("toy", "org/pairs", columns=("sentence1", "sentence2", "score"), bounds=(2.0, 4.0))
    assert len(list(task.items(seed=0))) == 40
    assert task.evaluate(encoder, seed=0)["auroc"].examples.shape == (20,)


def test_pairs_of_a_single_class_cannot_be_ranked(write, encoder):
    write("org/pairs", "test", [row for row in _pairs() if row["label"]])
    with pytest.raises(DataError):
        Paraphrase("toy", "org/pairs").evaluate(encoder, seed=0)
