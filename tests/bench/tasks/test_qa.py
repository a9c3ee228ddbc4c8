"""Questions whose answers are words of a passage."""

import numpy as np
import pytest

from bench.encoder import QuestionVectors, TokenStates
from bench.tasks.qa import ExtractiveQA
from tests.bench.encoders import Words

TASK = ExtractiveQA("toy", data="org/asked")


@pytest.fixture(autouse=True)
def passages(write):
    """Twenty passages of words; a question is one of them, which answers it."""
    rng, rows = np.random.default_rng(0), []
    for _ in range(20):
        words = list(rng.permutation([f"w{i}" for i in range(30)])[:12])
        for _ in range(2):
            word = words[int(rng.integers(12))]
            answers = {"text": [word, "another"]}
            rows.append({"context": " ".join(words), "question": f"{word}?", "answers": answers})
    write("org/asked", "validation", rows)


def test_the_word_that_a_question_names_is_found():
    scores = TASK.evaluate(Words(dim=256), seed=0)
    # A word's own product is 256, others' have deviation 16; neighbours may join.
    assert scores["exact_match"].mean > 0.9
    assert scores["f1"].mean >= scores["exact_match"].mean
    assert len(scores["f1"].examples) == 40
    assert scores["f1"].mean == pytest.approx(scores["f1"].examples.mean())


def test_a_passage_is_read_once_and_whole_where_the_encoder_can():
    read = []

    class Long(Words):
        def encode_long(self, texts):
            read.extend(texts)
            return Words(dim=self.dim).encode_tokens(texts)

    assert TASK.evaluate(Words(dim=256, cut=3), seed=0)["f1"].mean < 0.5
    assert TASK.evaluate(Long(dim=256, cut=3), seed=0)["f1"].mean > 0.9
    assert len(read) == len(set(read)) == 20


def test_an_encoder_that_finds_nothing_scores_nothing():
    class Blind(Words):
        def encode_tokens(self, texts, *, layer=-1):
            found = super().encode_tokens(texts, layer=layer)
            states = [np.eye(len(t.states), self.dim, dtype=np.float32) * 1e4 for t in found]
            return [TokenStates(s, t.spans) for s, t in zip(states, found, strict=True)]

        def encode_questions(self, questions):  # the start of every text, which is no word
            first = np.eye(1, self.dim, dtype=np.float32).repeat(len(questions), axis=0)
            return QuestionVectors(first, first)

    assert TASK.evaluate(Blind(), seed=0)["f1"].mean == 0
