"""Retrieval: does a question find its answer among the answers to others?

Source: 503 packaged questions about building with their answers.
A row of ``pypi/zaragoza-construction-faq``: ``question`` "How long is a building permit valid?",
``answer`` "A building permit expires under PBL 9 kap. 43 § if …".
Run: ``bench run --model all --task faq-retrieval``.
Protocol: all answers are ranked by their similarity to the question, equal ones in the order of the
rows: the cosine, but for an encoder that was made for another one. nDCG@10 with gain 1 for an
answer to a question of the same words. As in mteb's retrieval, the encoder says which sides get the
instruction. A limit draws rows, whose questions search only the answers of these rows.
"""

from dataclasses import dataclass
from typing import ClassVar, get_args

import numpy as np
from numpy.typing import NDArray

from bench.data.columns import TEXT
from bench.embeddings import CachedEncoder
from bench.encoder import Item, Side, instructed_sides, similarity_of
from bench.errors import DataError
from bench.task import NetworkTask, Score, Scores
from bench.tasks.similarity import DECIMALS, similarities

DEPTH = 10
"""Ranks that count."""

Sides = tuple[list[str], list[str], NDArray[np.bool_]]
"""Distinct questions (n), distinct answers (m), and which answers are to which question (n, m)."""


@dataclass(frozen=True, kw_only=True)
class Retrieval(NetworkTask):
    """nDCG@10 of the answers to a question, ranked by their similarity with it.

    Attributes:
        question: Column of the questions.
        answer: Column of their answers.
    """

    question: str = "question"
    answer: str = "answer"
    uses_instruction: ClassVar[bool] = True
    family: ClassVar[str] = "retrieval"
    metric: ClassVar[str] = "ndcg_at_10"

    def load(self, seed: int) -> Sides:
        """Return the questions, the answers, and which belong together.

        Raises:
            DataError: There is one answer, which every question finds.
        """
        rows = self.rows({self.question: TEXT, self.answer: TEXT})
        questions, answers = _number(rows[self.question]), _number(rows[self.answer])
        if len(answers) < 2:
            raise DataError(
                f"{self.name} needs at least two answers to choose from, got {len(answers)} in "
                f"{rows.source}; raise the limit, or check the column {self.answer!r}"
            )
        relevant = np.zeros((len(questions), len(answers)), bool)
        for question, answer in zip(rows[self.question], rows[self.answer], strict=True):
            relevant[questions[question], answers[answer]] = True
        return list(questions), list(answers), relevant

    def measure(self, encoder: CachedEncoder, *, seed: int) -> Scores:
        """Return ``ndcg_at_10``, with the value of each question as examples."""
        *texts, relevant = self.load(seed)
        vectors = []
        for side, own in zip(get_args(Side), texts, strict=True):
            asked = self.instruction if side in instructed_sides(encoder) else ""
            vectors.append(encoder.for_side(side).embed([Item(text, asked) for text in own]))
        questions, answers = vectors
        values = ndcg(similarities(questions, answers, similarity_of(encoder)), relevant)
        return {"ndcg_at_10": Score((float(values.mean()),), values.astype(np.float32))}


def _number(texts: list[str]) -> dict[str, int]:
    """Return the distinct texts, in the order in which they occur, with their places."""
    return {text: i for i, text in enumerate(dict.fromkeys(texts))}


def ndcg(similarities: NDArray[np.float64], relevant: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return nDCG@10 of each of n queries, float64 (n,).

    Args:
        similarities: Of each query with each of m documents (n, m); equal ones to six decimals are
            ranked in their order.
        relevant: Which documents have gain 1, the others having 0 (n, m); at least one a query.

    Source:
        Järvelin and Kekäläinen 2002, with the logarithm to base 2 as trec_eval has it.
    """
    discounts = 1 / np.log2(np.arange(2, DEPTH + 2))
    order = np.argsort(-similarities.round(DECIMALS), axis=1, kind="stable")[:, :DEPTH]
    gains = np.take_along_axis(relevant, order, axis=1) @ discounts[: order.shape[1]]
    most = np.minimum(relevant.sum(axis=1), DEPTH)
    return np.asarray(gains / discounts.cumsum()[most - 1])


TASKS = (
    Retrieval(
        "faq-retrieval",
        data="pypi/zaragoza-construction-faq",
        split="train",
        instruction="What does the person want to know?",
        about="503 questions about building, each of which must find its answer",
    ),
)
"""The retrieval tasks of our own, to be asked for by name."""
