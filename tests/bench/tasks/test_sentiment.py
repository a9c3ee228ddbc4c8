import numpy as np
import pytest

from bench.encoder import QuestionVectors
from bench.tasks import load_task
from bench.tasks.probe import LabelledTexts
from bench.tasks.sentiment import (
    CONTENT_FREE,
    QUESTIONS,
    ZeroShot,
    ZeroShotByPrompt,
    ZeroShotByQuestions,
    best_answers,
)

TEST = LabelledTexts("org/mood")


def _reviews(n=80, seed=0):
    rng = np.random.default_rng(seed)
    filler = [f"w{i}" for i in range(40)]
    moods = (("bad", "terrible."), ("good", "great."))
    return [
        {"text": " ".join(rng.permutation([*rng.choice(filler, 3), *moods[i % 2]])), "label": i % 2}
        for i in range(n)
    ]


def test_texts_with_a_word_of_a_label_text_are_given_that_label(write, encoder):
    write("org/mood", "test", _reviews())
    scores = ZeroShot("toy", test=TEST).evaluate(encoder, seed=0)
    assert scores["accuracy"].mean > 0.75
    assert scores["accuracy"].mean == pytest.approx(scores["accuracy"].examples.mean())
    assert "accuracy_uncalibrated" in scores


PUBLISHED = (
    ("Why is it bad?", "Why is it good?"),
    ("Why is this movie bad?", "Why is this movie good?"),
    ("Why is it terrible?", "Why is it great?"),
    ("What makes this movie bad?", "What makes this movie good?"),
    ("What is the reason this movie is bad?", "What is the reason this movie is good?"),
    ("What is the reason this movie is terrible?", "What is the reason this movie is great?"),
)


def test_questions_and_words_without_content_are_the_published_ones():
    assert tuple(tuple(q.format(noun="movie") for q in pair) for pair in QUESTIONS) == PUBLISHED
    assert CONTENT_FREE == ("the", "be", "to", "of", "and", "a", "in", "that", "have", "I")
    assert [load_task(name).noun for name in ("sst2-question", "mr-question", "cr-question")] == [
        "movie",
        "movie",
        "product",
    ]


def test_each_of_the_six_question_pairs_is_a_repeat(write, encoder):
    write("org/mood", "test", _reviews())
    scores = ZeroShotByQuestions("toy", test=TEST).evaluate(encoder, seed=0)
    assert len(scores["accuracy"].repeats) == len(QUESTIONS) == 6
    assert scores["accuracy_5"].mean == pytest.approx(scores["accuracy"].repeats[4])
    assert scores["accuracy"].mean > 0.75


def test_a_class_scores_its_best_start_and_end_less_what_it_scores_without_content(
    write, make_encoder
):
    """This encoder prefers "good" whatever the text, which calibration takes away."""

    class Partial(make_encoder):
        def encode_questions(self, questions):
            found = super().encode_questions(questions)
            more = (
                2
                * np.array([["good" in q or "great" in q] for q in questions])
                * self._states(["<s>"])
            )
            return QuestionVectors(found.start + more.astype(np.float32), found.end[:, ::-1] / 4)

    encoder, rows = Partial(), _reviews()
    write("org/mood", "test", rows)
    scores = ZeroShotByQuestions("toy", test=TEST).evaluate(encoder, seed=0)

    def best(text, question):
        (tokens,), asked = encoder.encode_tokens([text]), encoder.encode_questions([question])
        return (tokens.states @ asked.start[0]).max() + (tokens.states @ asked.end[0]).max()

    plain, right = [], []
    for pair in PUBLISHED:
        raw = np.array([[best(row["text"], q) for q in pair] for row in rows])
        usual = np.array([[best(word, q) for q in pair] for word in CONTENT_FREE]).mean(axis=0)
        labels = np.array([row["label"] for row in rows])
        plain.append((raw.argmax(axis=1) == labels).mean())
        right.append(((raw - usual).argmax(axis=1) == labels).mean())
    assert scores["accuracy"].repeats == pytest.approx(right)
    assert scores["accuracy_5"].mean == pytest.approx(right[4])
    assert scores["accuracy_best"].mean == pytest.approx(max(right))
    assert scores["accuracy"].mean > 0.6
    assert scores["accuracy"].mean > np.mean(plain) + 0.05


def test_a_prompted_language_model_says_the_likelier_word(write, encoder):
    write("org/mood", "test", _reviews())
    asked = {}

    class Asked(type(encoder)):
        def score_words(self, texts, *, prompt, words):
            asked.update(prompt=prompt, words=words, texts=list(texts))
            return super().score_words(texts, prompt=prompt, words=words)

    scores = ZeroShotByPrompt("toy", test=TEST, noun="product").evaluate(Asked(), seed=0)
    assert asked["prompt"] == "\nQuestion: Is this product good or bad?\nAnswer: It is"
    assert asked["words"] == (" bad", " good")
    assert set(CONTENT_FREE) < set(asked["texts"])
    assert scores["accuracy_calibrated"].mean > 0.75
    likelier = encoder.score_words(asked["texts"][:80], prompt="", words=(" bad", " good")).argmax(
        axis=1
    )
    assert scores["accuracy"].mean == pytest.approx(np.mean(likelier == [0, 1] * 40))


def test_a_few_texts_of_each_class_are_shown_with_the_words_that_answer_the_question(
    write, encoder
):
    write("org/mood", "test", _reviews())
    shown = ZeroShotByQuestions("toy", test=TEST).explain(encoder, seed=0)
    assert [sample["question"] for sample in shown] == [
        "What is the reason this movie is bad?",
        "What is the reason this movie is good?",
    ] * 3
    assert all(
        sample["answer"] in sample["text"] and len(sample["answer"].split()) <= 5
        for sample in shown
    )
    assert all(0 < float(sample["p"]) <= 1 for sample in shown)


def test_best_answers_are_the_maxima_over_each_texts_own_tokens(encoder):
    texts = ["one", "two three four", "", "one five"]
    vectors = encoder.encode_questions(["one", "three"])
    expected = [
        [2 * (t.states @ v).max() for v in vectors.start] for t in encoder.encode_tokens(texts)
    ]
    assert best_answers(encoder, texts, vectors.start, vectors.end) == pytest.approx(
        np.array(expected), rel=1e-5
    )
