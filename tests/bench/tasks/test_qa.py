"""Questions whose answers are words of a passage."""

import numpy as np
import pytest

from bench.encoder import QuestionVectors, TokenStates
from bench.tasks.qa import ExtractiveQA

WORDS = [f"w{i}" for i in range(30)]


def rows(n=40, seed=0):
    """Passages of words; a question is one of them, which answers it."""
    rng = np.random.default_rng(seed)
    passages = [" ".join(rng.permutation(WORDS)[:12]) for _ in range(n // 2)]
    picked = [
        (passage, passage.split()[int(rng.integers(12))]) for passage in passages for _ in range(2)
    ]
    return [
        {"context": passage, "question": f"{word}?", "answers": {"text": [word, "another"]}}
        for passage, word in picked
    ]


TASK = ExtractiveQA("toy", data="org/asked")


def test_the_word_that_a_question_names_is_found(write, make_encoder):
    write("org/asked", "validation", rows())
    scores = TASK.evaluate(make_encoder(dim=256), seed=0)
    assert (
        scores["exact_match"].mean > 0.9
    )  # a word's own product is 256, others' have deviation 16; neighbours may join
    assert scores["f1"].mean >= scores["exact_match"].mean
    assert len(scores["f1"].examples) == 40
    assert scores["f1"].mean == pytest.approx(scores["f1"].examples.mean())


def test_a_passage_is_read_once_and_whole_where_the_encoder_can(write, make_encoder):
    write("org/asked", "validation", rows())
    read = []

    class Long(make_encoder):
        def encode_long(self, texts):
            read.extend(texts)
            return make_encoder(dim=self.dim).encode_tokens(texts)

    cut = TASK.evaluate(make_encoder(dim=256, cut=3), seed=0)["f1"].mean
    whole = TASK.evaluate(Long(dim=256, cut=3), seed=0)["f1"].mean
    assert len(read) == len(set(read)) == 20
    assert cut < 0.5
    assert whole > 0.9


def test_an_encoder_that_finds_nothing_scores_nothing(write, encoder):
    write("org/asked", "validation", rows())

    class Blind(type(encoder)):
        def encode_tokens(self, texts, *, layer=-1):
            found = super().encode_tokens(texts, layer=layer)
            return [
                TokenStates(np.eye(len(t.states), self.dim, dtype=np.float32) * 1e4, t.spans)
                for t in found
            ]

        def encode_questions(self, questions):
            first = np.eye(1, self.dim, dtype=np.float32).repeat(
                len(questions), axis=0
            )  # the start of every text, which is no word
            return QuestionVectors(first, first)

    assert TASK.evaluate(Blind(), seed=0)["f1"].mean == 0
