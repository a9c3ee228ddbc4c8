"""Extractive question answering: do token states and question vectors find the words that answer a question?

Source: SQuAD (Rajpurkar et al. 2016), as QuIP's bi-encoder is measured in table 1; XQuAD's English part is 1,190 questions of it.
A row of ``google/xquad``: ``context`` "The Panthers defense …", ``question`` "How many points …?", ``answers`` {"text": ["308"], …}.
Run: ``bench run --model quip --task xquad``.
Protocol: the span of at most 17 tokens with the largest p_start times p_end, one softmax over the passage; passages that are longer than
the encoder takes are read in windows where it offers them, else they are cut. Only encoders with question vectors can be asked, so this
says how well such an encoder was trained and counts in no mean.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import numpy as np

from bench.columns import ANSWERS, TEXT
from bench.data import Rows, load
from bench.encoder import Encoder, Item, LongTokenEncoder, QuestionEncoder, TokenStates
from bench.spans import ANSWER_TOKENS, exact_match, extract_answer, f1
from bench.task import Score, sample
from bench.tasks.partition import blocks


@dataclass(frozen=True)
class ExtractiveQA:
    """F1 and exact match of the best span.

    Attributes:
        name: Name of the task.
        data: Id of a data set with the columns context, question and answers, the latter with a list ``text`` of right answers.
        config: Its configuration.
        split: Its split.
        longest: Most tokens of an answer.
        limit: At most this many questions.
        about: One line for lists.
    """

    name: str
    data: str
    config: str = ""
    split: str = "validation"
    longest: int = ANSWER_TOKENS
    limit: int | None = None
    about: str = field(default="", compare=False)
    family: ClassVar[str] = "diagnostics"
    metric: ClassVar[str] = "f1"
    readout: ClassVar[str] = "question"
    version: ClassVar[int] = 2
    needs: ClassVar[type[Encoder]] = QuestionEncoder  # type: ignore[type-abstract]

    def items(self, *, seed: int) -> Iterable[Item]:  # noqa: ARG002 - the questions do not depend on it
        """Return nothing, since token states are not planned for; a set that cannot be had is known now all the same."""
        self._rows()
        return ()

    def evaluate(self, encoder: Encoder, *, seed: int) -> Mapping[str, Score]:  # noqa: ARG002 - nothing is random
        """Return ``f1`` and ``exact_match``, each with its value for every question as examples."""
        asked, rows = cast("QuestionEncoder", encoder), self._rows()
        vectors = asked.encode_questions(rows["question"])
        by_passage: dict[str, list[int]] = {}
        for i, passage in enumerate(rows["context"]):
            by_passage.setdefault(passage, []).append(i)
        passages, found = list(by_passage), [""] * len(rows)
        for block in blocks([len(passage) for passage in passages]):
            for k, tokens in zip(block, _states(asked, [passages[k] for k in block]), strict=True):
                for i in by_passage[passages[k]]:
                    found[i] = extract_answer(
                        passages[k], tokens, vectors.start[i], vectors.end[i], self.longest
                    ).text
        right: list[Any] = [answers["text"] for answers in rows["answers"]]
        each = {
            name: np.array([one(*pair) for pair in zip(found, right, strict=True)], np.float32)
            for name, one in _MEASURES.items()
        }
        return {
            name: Score((float(values.mean(dtype=np.float64)),), values)
            for name, values in each.items()
        }

    def _rows(self) -> Rows:
        columns = {"context": TEXT, "question": TEXT, "answers": ANSWERS}
        rows = load(self.data, self.split, config=self.config, columns=columns)
        return rows.take(sample(len(rows), self.limit))


_MEASURES = {"f1": f1, "exact_match": exact_match}


def _states(encoder: QuestionEncoder, passages: list[str]) -> list[TokenStates]:
    return (
        encoder.encode_long(passages)
        if isinstance(encoder, LongTokenEncoder)
        else encoder.encode_tokens(passages)
    )


TASKS = (
    ExtractiveQA(
        "squad",
        "rajpurkar/squad",
        about="SQuAD 1.1, 10,570 questions on Wikipedia passages; answers are spans",
    ),
    ExtractiveQA(
        "xquad",
        "google/xquad",
        "xquad.en",
        about="English part of XQuAD, 1,190 questions of SQuAD's dev set",
    ),
)
"""The question answering tasks, to be asked for by name."""
