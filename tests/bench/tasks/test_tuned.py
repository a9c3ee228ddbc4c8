"""Few-shot protocols that train the network or start a tagger: requests and scores."""

import dataclasses

import numpy as np
import pytest

from bench.encoder import (
    QuestionEncoder,
    QuestionVectors,
    TokenEncoder,
)
from bench.errors import UsageError
from bench.tasks import load_task
from bench.tasks.linear import classify_towards
from bench.tasks.ner import Tagged
from bench.tasks.paraphrase import SEEDS
from bench.tasks.tuned import (
    StartedNER,
    TunableEncoder,
    TunableQuestionEncoder,
    TunedFewShot,
)
from tests.bench.tasks.test_paraphrase import _pairs as pairs

TYPES = ("person", "location")
NAMES = {"person": ("Anna", "Ben", "Carl"), "location": ("Rome", "Oslo", "Lima")}


def sentences(n=40, seed=0):
    """Sentences in which one name stands among words that are none."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        kind = TYPES[i % 2]
        words = [str(word) for word in rng.choice([f"w{k}" for k in range(20)], 4)]
        at = int(rng.integers(5))
        words.insert(at, str(rng.choice(NAMES[kind])))
        rows.append(
            {"tokens": words, "ner_tags": [f"B-{kind}" if k == at else "O" for k in range(5)]}
        )
    return rows


def task(**changes):
    few = tuple(Tagged("org/few", f"few_{i}") for i in range(2))
    return dataclasses.replace(
        StartedNER("toy", test=Tagged("org/tags"), train=few, shots=None), **changes
    )


@pytest.fixture
def written(write):
    write("org/tags", "test", sentences())
    for i in range(2):
        write("org/few", f"few_{i}", sentences(10, seed=1 + i))


@pytest.fixture
def few_pairs(write):
    rows = pairs(140)
    write("org/pairs", "test", rows[:96])
    for k, seed in enumerate(SEEDS):
        write(f"org/few/16-{seed}", "train", rows[96 + k :][:32])


@pytest.mark.parametrize("initial", ["question", "standard"])
@pytest.mark.parametrize("epochs", [0, 3])
def test_names_are_found_frozen_and_trained_from_questions_and_from_nothing(
    initial, epochs, written, encoder
):
    scores = task(initial=initial, epochs=epochs).evaluate(encoder, seed=0)
    assert len(scores["f1"].repeats) == 2
    assert scores["f1"].mean > 0.8


def test_a_tagger_that_starts_from_questions_asks_one_for_each_tag(written, make_encoder):
    asked, started = [], []

    class Asked(make_encoder):
        def encode_questions(self, questions):
            asked.extend(questions)
            found = super().encode_questions(questions)
            ends = np.random.default_rng(0).normal(size=found.end.shape).astype(np.float32)
            return QuestionVectors(found.start, ends)

        def tune_classes(self, marked, *, classes, start, epochs, seed):
            started.append((classes, start, epochs, seed, marked[0]))
            return super().tune_classes(
                marked, classes=classes, start=start, epochs=epochs, seed=seed
            )

    task(epochs=200).evaluate(Asked(), seed=0)
    assert asked == [
        " What is a location ?",
        " Who is a person ?",
        " What is a generic object ?",
    ]  # of B-location, B-person and O
    assert [(classes, epochs, seed) for classes, _, epochs, seed, _ in started] == [
        (3, 200, 0),
        (3, 200, 1),
    ]
    starts = make_encoder().encode_questions(asked).start
    np.testing.assert_allclose(
        started[0][1], starts / np.linalg.norm(starts, axis=1, keepdims=True), rtol=1e-5
    )
    marked = started[0][4]
    assert [marked.text[a:b] for a, b in marked.spans] == marked.text.split()
    assert marked.text == " " + " ".join(marked.text.split())
    asked.clear()
    task(epochs=0).evaluate(Asked(), seed=0)
    assert asked[0] == "What is a location ?"


def test_needs_and_read_out_say_what_is_trained_and_what_it_starts_from():
    found = {
        (t.readout, t.needs)
        for t in (task(initial=i, epochs=e) for i in ("question", "standard") for e in (0, 9))
    }
    assert found == {
        ("tokens", TokenEncoder),
        ("tokens from questions", QuestionEncoder),
        ("tuned", TunableEncoder),
        ("tuned from questions", TunableQuestionEncoder),
    }


def test_pairs_are_scored_by_a_network_trained_on_each_split(few_pairs, encoder):
    scores = TunedFewShot("toy", data="org/pairs", train="org/few").evaluate(encoder, seed=0)
    assert len(scores["f1"].repeats) == 5
    assert scores["f1"].mean > 0.9


@pytest.mark.parametrize(
    ("leaking", "earlier"), [(False, [0, 0, 0, 0, 0]), (True, [0, 1, 2, 3, 4])]
)
def test_splits_begin_anew_or_go_on_from_split_to_split_as_the_released_code_does(
    few_pairs, encoder, leaking, earlier
):
    seen = []

    class Noting(type(encoder)):
        def tune_pairs(self, sets, **how):
            seen.append([list(some) for some, _ in sets])
            return super().tune_pairs(sets, **how)

    TunedFewShot("toy", data="org/pairs", train="org/few", leaking=leaking).evaluate(
        Noting(), seed=0
    )
    own = [sets[-1] for sets in seen]
    assert own[0] != own[1]
    assert [sets[:-1] for sets in seen] == [own[:count] for count in earlier]


def test_weights_drawn_to_nothing_are_an_ordinary_logistic_regression():
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    x, test = (rng.normal(size=(n, 6)).astype(np.float32) for n in (60, 200))
    y = (x[:, 0] + x[:, 1] > 0).astype(np.int64) + (x[:, 2] > 0.5)
    seen, asked = (
        20 * v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x - x.mean(0), test - x.mean(0))
    )
    expected = (
        LogisticRegression(C=1.0, fit_intercept=False, max_iter=5000).fit(seen, y).predict(asked)
    )
    found = classify_towards(x, y, test, np.zeros((3, 6), np.float32))
    assert (found == expected).mean() > 0.99  # two optimisers, which may part on a tie


def test_a_class_that_was_never_seen_is_found_where_its_question_points():
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.normal(size=(16, 16)))[0][:3].astype(np.float32)
    y = rng.integers(3, size=200)
    x = (directions[y] + 0.05 * rng.normal(size=(200, 16))).astype(np.float32)
    few = np.flatnonzero(y != 2)[:20]
    assert (classify_towards(x[few], y[few], x[y == 2], directions) == 2).mean() > 0.9
    assert (
        classify_towards(x[few], y[few], x[y == 2], np.zeros_like(directions)) == 2
    ).mean() < 0.9


def test_a_layer_of_a_network_that_is_trained_is_refused():
    with pytest.raises(UsageError, match="leave the layer out"):
        load_task("wnut17-tuned-question@20")
    assert load_task("wnut17-start-question@20").readout == "tokens@20 from questions"
