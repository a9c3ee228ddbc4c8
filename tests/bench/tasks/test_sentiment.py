import numpy as np
import pytest

from bench.tasks.probe import LabelledTexts
from bench.tasks.sentiment import CONTENT_FREE, QUESTIONS, ZeroShot, ZeroShotByPrompt, ZeroShotByQuestions, best_answers

TEST = LabelledTexts("org/mood")


def _reviews(n=80, seed=0):
    rng = np.random.default_rng(seed)
    filler = [f"w{i}" for i in range(40)]
    moods = (("bad", "terrible."), ("good", "great."))
    return [{"text": " ".join(rng.permutation([*rng.choice(filler, 3), *moods[i % 2]])), "label": i % 2} for i in range(n)]


def test_texts_with_a_word_of_a_label_text_are_given_that_label(write, encoder):
    write("org/mood", "test", _reviews())
    scores = ZeroShot("toy", TEST).evaluate(encoder, seed=0)
    assert scores["accuracy"].mean > 0.75
    assert scores["accuracy"].mean == pytest.approx(scores["accuracy"].examples.mean())
    assert "accuracy_uncalibrated" in scores


def test_the_plan_holds_all_that_is_encoded(write, encoder):
    write("org/mood", "test", _reviews())
    texts = [item.text for item in ZeroShot("toy", TEST, "product").items(seed=0)]
    assert set(CONTENT_FREE) < set(texts)
    assert "This product is good." in texts


def test_each_of_the_six_question_pairs_is_a_repeat(write, encoder):
    write("org/mood", "test", _reviews())
    scores = ZeroShotByQuestions("toy", TEST).evaluate(encoder, seed=0)
    assert len(scores["accuracy"].repeats) == len(QUESTIONS) == 6
    assert scores["accuracy_5"].mean == pytest.approx(scores["accuracy"].repeats[4])
    assert scores["accuracy"].mean > 0.75


def test_a_prompted_language_model_says_the_likelier_word(write, encoder):
    write("org/mood", "test", _reviews())
    asked = {}

    class Asked(type(encoder)):
        def score_words(self, texts, *, prompt, words):
            asked.update(prompt=prompt, words=words, texts=list(texts))
            return super().score_words(texts, prompt=prompt, words=words)

    scores = ZeroShotByPrompt("toy", TEST, "product").evaluate(Asked(), seed=0)
    assert asked["prompt"] == "\nQuestion: Is this product good or bad?\nAnswer: It is"
    assert asked["words"] == (" bad", " good")
    assert set(CONTENT_FREE) < set(asked["texts"])
    assert scores["accuracy_calibrated"].mean > 0.75
    likelier = encoder.score_words(asked["texts"][:80], prompt="", words=(" bad", " good")).argmax(axis=1)
    assert scores["accuracy"].mean == pytest.approx(np.mean(likelier == [0, 1] * 40))


def test_a_few_texts_of_each_class_are_shown_with_the_words_that_answer_the_question(write, encoder):
    write("org/mood", "test", _reviews())
    shown = ZeroShotByQuestions("toy", TEST).explain(encoder, seed=0)
    assert [sample["question"] for sample in shown] == [
        "What is the reason this movie is bad?",
        "What is the reason this movie is good?",
    ] * 3
    assert all(sample["answer"] in sample["text"] and len(sample["answer"].split()) <= 5 for sample in shown)
    assert all(0 < float(sample["p"]) <= 1 for sample in shown)


def test_best_answers_are_the_maxima_over_each_texts_own_tokens(encoder):
    texts = ["one", "two three four", "", "one five"]
    vectors = encoder.encode_questions(["one", "three"])
    expected = [[2 * (t.states @ v).max() for v in vectors.start] for t in encoder.encode_tokens(texts)]
    assert best_answers(encoder, texts, vectors.start, vectors.end) == pytest.approx(np.array(expected), rel=1e-5)
