"""Extractive question answering: do token states and question vectors find the answer?

Source: SQuAD (Rajpurkar et al. 2016), as QuIP's bi-encoder is measured in table 1; XQuAD's English
part is 1,190 questions of it.
A row of ``google/xquad``: ``context`` "The Panthers defense …", ``question`` "How many …?",
``answers`` {"text": ["308"], …}.
Run: ``bench run --model quip --task xquad``.
Protocol: the span of at most 17 tokens with the largest p_start times p_end, one softmax over the
passage; passages that are longer than the encoder takes are read in windows where it offers them,
else they are truncated. Only encoders with question vectors can answer, so this says how well such
an encoder was trained and is excluded from means.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bench.data import Rows
from bench.data.columns import ANSWERS, TEXT
from bench.embeddings import CachedEncoder
from bench.encoder import Encoder, QuestionEncoder
from bench.spans import ANSWER_TOKENS, exact_match, extract_answer, f1
from bench.task import NetworkTask, Score, Scores
from bench.tasks.partition import split_blocks


@dataclass(frozen=True, kw_only=True)
class ExtractiveQA(NetworkTask):
    """F1 and exact match of the best span.

    The data set has the columns context, question and answers, an object with a list ``text``.

    Attributes:
        longest: Most tokens of an answer.
    """

    split: str = "validation"
    longest: int = ANSWER_TOKENS
    family: ClassVar[str] = "diagnostics"
    metric: ClassVar[str] = "f1"
    version: ClassVar[int] = 2
    readout: ClassVar[str] = "question"
    needs: ClassVar[type[Encoder]] = QuestionEncoder  # type: ignore[type-abstract]

    def load(self, seed: int) -> Rows:
        """Return the questions with their passages."""
        return self.rows({"context": TEXT, "question": TEXT, "answers": ANSWERS})

    def measure(self, encoder: CachedEncoder, *, seed: int) -> Scores:
        """Return ``f1`` and ``exact_match``, each with its value for every question."""
        rows = self.load(seed)
        vectors = encoder.encode_questions(rows["question"])
        by_passage: dict[str, list[int]] = {}
        for i, passage in enumerate(rows["context"]):
            by_passage.setdefault(passage, []).append(i)
        passages, answers = list(by_passage), [""] * len(rows)
        for block in split_blocks([len(passage) for passage in passages]):
            some = [passages[k] for k in block]
            for passage, tokens in zip(some, encoder.encode_long(some), strict=True):
                for i in by_passage[passage]:
                    start, end = vectors.start[i], vectors.end[i]
                    best = extract_answer(passage, tokens, start, end, self.longest)
                    answers[i] = best.text
        scores = {}
        for name, measure in (("f1", f1), ("exact_match", exact_match)):
            accepted = (each["text"] for each in rows["answers"])
            pairs = zip(answers, accepted, strict=True)
            values = np.array([measure(*pair) for pair in pairs], np.float32)
            scores[name] = Score((float(values.mean(dtype=np.float64)),), values)
        return scores


TASKS = (
    ExtractiveQA(
        "squad",
        data="rajpurkar/squad",
        about="SQuAD 1.1, 10,570 questions on Wikipedia passages; answers are spans",
    ),
    ExtractiveQA(
        "xquad",
        data="google/xquad",
        config="xquad.en",
        about="English part of XQuAD, 1,190 questions of SQuAD's dev set",
    ),
)
"""The question answering tasks, to be asked for by name."""
