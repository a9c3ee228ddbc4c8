"""Few-shot protocols that train the network or start a tagger: requests and scores."""

import dataclasses

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from bench.encoder import QuestionEncoder, TokenEncoder
from bench.errors import UsageError
from bench.tasks import load_task
from bench.tasks.linear import classify_towards
from bench.tasks.ner import Tagged
from bench.tasks.paraphrase import SEEDS
from bench.tasks.tuned import StartedNER, TunableEncoder, TunableQuestionEncoder, TunedFewShot
from tests.bench.encoders import Ended
from tests.bench.tasks.test_pairs import make_pairs

NAMES = {"person": ("Anna", "Ben", "Carl"), "location": ("Rome", "Oslo", "Lima")}
FEW = tuple(Tagged("org/few", f"few_{i}") for i in range(2))
TASK = StartedNER("toy", test=Tagged("org/tags"), train=FEW, shots=None)


def sentences(n=40, seed=0):
    """Sentences in which one name stands among words that are none."""
    rng, rows = np.random.default_rng(seed), []
    for i in range(n):
        kind = list(NAMES)[i % 2]
        words = [str(word) for word in rng.choice([f"w{k}" for k in range(20)], 4)]
        at = int(rng.integers(5))
        words.insert(at, str(rng.choice(NAMES[kind])))
        tags = ["O"] * at + [f"B-{kind}"] + ["O"] * (4 - at)
        rows.append({"tokens": words, "ner_tags": tags})
    return rows


@pytest.fixture(autouse=True)
def written(write):
    write("org/tags", "test", sentences())
    for i in range(2):
        write("org/few", f"few_{i}", sentences(10, seed=1 + i))


@pytest.mark.parametrize(
    ("initial", "epochs", "readout", "needs"),
    [
        ("standard", 0, "tokens", TokenEncoder),
        ("question", 0, "tokens from questions", QuestionEncoder),
        ("standard", 3, "tuned", TunableEncoder),
        ("question", 3, "tuned from questions", TunableQuestionEncoder),
    ],
)
def test_names_are_found_frozen_and_trained_from_questions_and_from_nothing(
    initial, epochs, readout, needs, encoder
):
    task = dataclasses.replace(TASK, initial=initial, epochs=epochs)
    assert (task.readout, task.needs) == (readout, needs)
    score = task.evaluate(encoder, seed=0)["f1"]
    assert len(score.repeats) == 2
    assert score.mean > 0.8


def test_a_layer_is_of_a_frozen_network():
    assert load_task("wnut17-start-question@20").readout == "tokens@20 from questions"
    with pytest.raises(UsageError, match="leave the layer out"):
        load_task("wnut17-tuned-question@20")


def test_a_tagger_that_starts_from_questions_asks_one_for_each_tag():
    encoder = Ended()
    dataclasses.replace(TASK, epochs=200).evaluate(encoder, seed=0)
    asked = [q for questions in encoder.told("encode_questions") for q in questions]
    # Of B-location, B-person and O.
    assert asked == [" What is a location ?", " Who is a person ?", " What is a generic object ?"]
    started = encoder.told("tune_classes")
    assert [(how["classes"], how["epochs"], how["seed"]) for how in started] == [
        (3, 200, 0),
        (3, 200, 1),
    ]
    starts = encoder.encode_questions(asked).start
    expected = starts / np.linalg.norm(starts, axis=1, keepdims=True)
    np.testing.assert_allclose(started[0]["start"], expected, rtol=1e-5)
    first = started[0]["first"]
    assert [first.text[a:b] for a, b in first.spans] == first.text.split()
    assert first.text == " " + " ".join(first.text.split())
    frozen = Ended()
    dataclasses.replace(TASK, epochs=0).evaluate(frozen, seed=0)
    assert frozen.told("encode_questions")[0][0] == "What is a location ?"


@pytest.mark.parametrize("leaking", [False, True])
def test_splits_begin_anew_or_go_on_from_split_to_split_as_the_released_code_does(
    leaking, write, encoder
):
    rows = make_pairs(140)
    write("org/pairs", "test", rows[:96])
    for k, seed in enumerate(SEEDS):
        write(f"org/few/16-{seed}", "train", rows[96 + k :][:32])
    task = TunedFewShot("toy", data="org/pairs", train="org/few", leaking=leaking)
    score = task.evaluate(encoder, seed=0)["f1"]
    assert len(score.repeats) == 5
    assert score.mean > 0.9
    seen = encoder.told("tune_pairs")
    own = [sets[-1] for sets in seen]
    assert own[0] != own[1]
    assert [sets[:-1] for sets in seen] == [own[: k if leaking else 0] for k in range(5)]


def test_weights_drawn_to_nothing_are_an_ordinary_logistic_regression():
    rng = np.random.default_rng(0)
    x, test = (rng.normal(size=(n, 6)).astype(np.float32) for n in (60, 200))
    y = (x[:, 0] + x[:, 1] > 0).astype(np.int64) + (x[:, 2] > 0.5)
    seen, asked = x - x.mean(0), test - x.mean(0)
    seen, asked = (20 * v / np.linalg.norm(v, axis=1, keepdims=True) for v in (seen, asked))
    usual = LogisticRegression(C=1.0, fit_intercept=False, max_iter=5000).fit(seen, y)
    found = classify_towards(x, y, test, np.zeros((3, 6), np.float32))
    # Two optimisers, which may part on a tie.
    assert (found == usual.predict(asked)).mean() > 0.99


def test_a_class_that_was_never_seen_is_found_where_its_question_points():
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.normal(size=(16, 16)))[0][:3].astype(np.float32)
    y = rng.integers(3, size=200)
    x = (directions[y] + 0.05 * rng.normal(size=(200, 16))).astype(np.float32)
    few = np.flatnonzero(y != 2)[:20]
    for towards, is_found in ((directions, True), (np.zeros_like(directions), False)):
        found = classify_towards(x[few], y[few], x[y == 2], towards)
        assert ((found == 2).mean() > 0.9) == is_found
