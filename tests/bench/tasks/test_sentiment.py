"""Sentiment without examples, and probes on a few."""

import numpy as np
import pytest

from bench.encoder import QuestionVectors
from bench.errors import DataError
from bench.tasks import load_task
from bench.tasks.probe import LabelledTexts, Probe
from bench.tasks.sentiment import (
    CONTENT_FREE,
    QUESTIONS,
    ZeroShotByPrompt,
    ZeroShotByQuestions,
    best_answers,
)
from tests.bench.encoders import Words

TEST = LabelledTexts("org/mood")
MOODS = (("bad", "terrible."), ("good", "great."))
PUBLISHED = (
    ("Why is it bad?", "Why is it good?"),
    ("Why is this movie bad?", "Why is this movie good?"),
    ("Why is it terrible?", "Why is it great?"),
    ("What makes this movie bad?", "What makes this movie good?"),
    ("What is the reason this movie is bad?", "What is the reason this movie is good?"),
    ("What is the reason this movie is terrible?", "What is the reason this movie is great?"),
)


def make_reviews(n=80, seed=0, moods=MOODS):
    rng, filler, rows = np.random.default_rng(seed), [f"w{i}" for i in range(40)], []
    for i in range(n):
        words = [*rng.choice(filler, 3), *moods[i % len(moods)]]
        rows.append({"text": " ".join(rng.permutation(words)), "label": i % len(moods)})
    return rows


@pytest.fixture(autouse=True)
def reviews(write):
    write("org/mood", "test", make_reviews())
    return make_reviews()


def test_questions_and_words_without_content_are_the_published_ones():
    asked = [tuple(q.format(noun="movie") for q in pair) for pair in QUESTIONS]
    assert tuple(asked) == PUBLISHED
    assert CONTENT_FREE == ("the", "be", "to", "of", "and", "a", "in", "that", "have", "I")
    nouns = {"sst2-question": "movie", "mr-question": "movie", "cr-question": "product"}
    assert {name: load_task(name).noun for name in nouns} == nouns


def test_a_class_scores_its_best_start_and_end_less_what_it_scores_without_content(reviews):
    """This encoder prefers "good" whatever the text, which calibration takes away."""

    class Partial(Words):
        def encode_questions(self, questions):
            found = super().encode_questions(questions)
            good = np.array([["good" in q or "great" in q] for q in questions], np.float32)
            start = found.start + 2 * good * self._states(["<s>"])
            return QuestionVectors(start, found.end[:, ::-1] / 4)

    encoder = Partial()
    scores = ZeroShotByQuestions("toy", test=TEST).evaluate(encoder, seed=0)

    def best(text, question):
        (tokens,), asked = encoder.encode_tokens([text]), encoder.encode_questions([question])
        return (tokens.states @ asked.start[0]).max() + (tokens.states @ asked.end[0]).max()

    labels = np.array([row["label"] for row in reviews])
    plain, right = [], []
    for pair in PUBLISHED:
        raw = np.array([[best(row["text"], q) for q in pair] for row in reviews])
        usual = np.array([[best(word, q) for q in pair] for word in CONTENT_FREE]).mean(axis=0)
        plain.append((raw.argmax(axis=1) == labels).mean())
        right.append(((raw - usual).argmax(axis=1) == labels).mean())
    assert scores["accuracy"].repeats == pytest.approx(right)  # each pair is one
    assert scores["accuracy_5"].mean == pytest.approx(right[4])
    assert scores["accuracy_best"].mean == pytest.approx(max(right))
    assert scores["accuracy"].mean > np.mean(plain) + 0.05


def test_a_prompted_language_model_says_the_likelier_word(encoder):
    scores = ZeroShotByPrompt("toy", test=TEST, noun="product").evaluate(encoder, seed=0)
    (asked,) = encoder.told("score_words")
    assert asked["prompt"] == "\nQuestion: Is this product good or bad?\nAnswer: It is"
    assert asked["words"] == (" bad", " good")
    assert set(CONTENT_FREE) < set(asked["texts"])
    assert scores["accuracy_calibrated"].mean > 0.75
    likelier = encoder.score_words(asked["texts"][:80], prompt="", words=asked["words"])
    right = likelier.argmax(axis=1) == [0, 1] * 40
    assert scores["accuracy"].mean == pytest.approx(right.mean())


def test_a_few_texts_of_each_class_are_shown_with_the_words_that_answer_the_question(encoder):
    shown = ZeroShotByQuestions("toy", test=TEST).explain(encoder, seed=0)
    assert [sample["question"] for sample in shown] == [*PUBLISHED[4]] * 3
    for sample in shown:
        assert sample["answer"] in sample["text"]
        assert len(sample["answer"].split()) <= 5
        assert 0 < float(sample["p"]) <= 1


def test_best_answers_are_the_maxima_over_each_texts_own_tokens(encoder):
    texts = ["one", "two three four", "", "one five"]
    asked = encoder.encode_questions(["one", "three"])
    states = [tokens.states for tokens in encoder.encode_tokens(texts)]
    expected = np.stack([2 * (each @ asked.start.T).max(axis=0) for each in states])
    found = best_answers(encoder, texts, asked.start, asked.end)
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_probe_learns_from_a_few_texts_of_any_classes_under_its_instruction(write, encoder):
    for split, seed in (("test", 0), ("train", 1)):
        rows = make_reviews(90, seed, (*MOODS, ("dull",)))
        write("org/moods", split, [{**row, "kind": 3 * row["label"] + 2} for row in rows])
    test, train = (LabelledTexts("org/moods", split, label="kind") for split in ("test", "train"))
    task = Probe("toy", test=test, train=(train,), instruction="What is the mood?")
    score = task.evaluate(encoder, seed=1)["accuracy"]
    assert len(score.repeats) == 5
    assert min(score.repeats) > 0.7
    first, second = (list(task.items(seed=seed)) for seed in (1, 2))
    assert {item.instruction for item in first} == {"What is the mood?"}
    assert first != second
    write("org/moods", "train", [{"text": f"w{k}", "kind": k % 2} for k in range(20)])
    with pytest.raises(DataError):  # too few of a class
        task.evaluate(encoder, seed=0)


def test_given_training_sets_of_a_probe_are_each_used_whole(write, encoder):
    for seed in (13, 21):
        write(f"org/mood/16-{seed}", "train", make_reviews(32, seed=seed))
    train = tuple(LabelledTexts("org/mood", "train", f"16-{seed}") for seed in (13, 21))
    task = Probe("toy", test=TEST, train=train, shots=None)
    assert len(list(task.items(seed=0))) == 80 + 2 * 32
    score = task.evaluate(encoder, seed=0)["accuracy"]
    assert len(score.repeats) == 2
    assert score.examples.mean() == pytest.approx(score.mean)  # over both draws


def test_the_halves_of_a_set_cover_it_and_share_no_text(write):
    write("org/mood", "test", make_reviews(200) * 2)
    halves = [LabelledTexts("org/mood", half=half).load()[0] for half in ("train", "test")]
    assert sum(map(len, halves)) == 400
    assert not set(halves[0]) & set(halves[1])
    assert min(map(len, halves)) > 120
