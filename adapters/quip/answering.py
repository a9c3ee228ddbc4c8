"""Extractive question answering with QuIP: which words of a passage answer a question, and how often that is right.

Source: facebookresearch/quip at 934c724: the span with the largest p_start times p_end, of at most 17 tokens; for rationales 5.
Long passages are read in windows (``QuIP.encode_long``), with one softmax over the whole passage.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adapters.quip.encoder import QuIP
from bench.encoder import TokenStates
from bench.errors import UsageError

ANSWER_TOKENS, RATIONALE_TOKENS = 17, 5
"""Longest answers, and longest rationales, in tokens."""


class Answer(NamedTuple):
    """Words of a passage.

    Attributes:
        text: The words.
        start: Their first character in the passage.
        end: The character after their last.
        probability: p_start times p_end.
    """

    text: str
    start: int
    end: int
    probability: float


class Accuracy(NamedTuple):
    """How often answers are right, both in [0, 1]: the same words, and the mean overlap of words."""

    exact: float
    f1: float


def answered(encoder: QuIP, passages: Sequence[str], questions: Sequence[str], *, longest: int = ANSWER_TOKENS) -> list[Answer]:
    """Return the best answer in each passage to its question.

    Args:
        encoder: With question heads.
        passages: Texts of any length; each distinct one is encoded once.
        questions: One for each passage.
        longest: Most tokens of an answer.

    Raises:
        UsageError: There is not one question for each passage.
    """
    if len(passages) != len(questions):
        raise UsageError(f"expected a question for each passage, got {len(passages)} passages and {len(questions)} questions")
    distinct, asked = list(dict.fromkeys(passages)), list(dict.fromkeys(questions))
    states = dict(zip(distinct, encoder.encode_long(distinct), strict=True))
    vectors = encoder.encode_questions(asked)
    number = {question: i for i, question in enumerate(asked)}
    return [
        _answer(text, states[text], vectors.start[number[q]], vectors.end[number[q]], longest)
        for text, q in zip(passages, questions, strict=True)
    ]


def rationales(encoder: QuIP, texts: Sequence[str], question: str, *, longest: int = RATIONALE_TOKENS) -> list[Answer]:
    """Return the few words of each text that answer a question best, such as why a review counts as good."""
    return answered(encoder, texts, [question] * len(texts), longest=longest)


def accuracy(answers: Sequence[str], accepted: Sequence[Sequence[str]]) -> Accuracy:
    """Return how often answers are right, against the best of the accepted ones each.

    Args:
        answers: What was answered.
        accepted: Right answers to each question.

    Raises:
        UsageError: There are no answers, or not as many as lists of accepted ones.
    """
    if not answers or len(answers) != len(accepted):
        raise UsageError(f"expected accepted answers for each answer, got {len(answers)} answers and {len(accepted)} lists")
    exact = [max((words(a) == words(b) for b in some), default=False) for a, some in zip(answers, accepted, strict=True)]
    overlaps = [max((overlap(a, b) for b in some), default=0.0) for a, some in zip(answers, accepted, strict=True)]
    return Accuracy(float(np.mean(exact)), float(np.mean(overlaps)))


def words(text: str) -> list[str]:
    """Return the words that count in SQuAD's evaluation: lower case, without punctuation and articles."""
    bare = text.lower().translate(str.maketrans("", "", string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", bare).split()


def overlap(answer: str, right: str) -> float:
    """Return the F1 of the words of two answers."""
    ours, theirs = words(answer), words(right)
    if not ours or not theirs:
        return float(ours == theirs)
    return 2 * (Counter(ours) & Counter(theirs)).total() / (len(ours) + len(theirs))


def best_span(start: NDArray[np.float32], end: NDArray[np.float32], longest: int) -> tuple[int, int, float]:
    """Return the first and the last token of the best span, and its product; of equal ones the shortest, then the first.

    Args:
        start: Probability of each token to be the first (t,).
        end: Probability of each token to be the last (t,).
        longest: Most tokens of a span.
    """
    best = (0, 0, -1.0)
    for more in range(min(longest, len(start))):
        products = start[: len(start) - more] * end[more:]
        i = int(products.argmax())
        if products[i] > best[2]:
            best = (i, i + more, float(products[i]))
    return best


def spanned(text: str, spans: NDArray[np.int32], both: NDArray[np.float32], longest: int) -> Answer:
    """Return the best words of a text.

    Args:
        text: The text.
        spans: Characters of each token (t, 2).
        both: Start and end probabilities (2, t).
        longest: Most tokens.
    """
    i, j, probability = best_span(both[0], both[1], longest)
    a, b = int(spans[i, 0]), int(spans[j, 1])
    a, b = (a, b) if a < b else (0, 0)  # from or to a special token: no words
    part = text[a:b]
    return Answer(part.strip(), a + len(part) - len(part.lstrip()), a + len(part.rstrip()), probability)


def _answer(text: str, tokens: TokenStates, start: NDArray[np.float32], end: NDArray[np.float32], longest: int) -> Answer:
    scores = np.stack([start, end]) @ tokens.states.T
    likely = np.exp(scores - scores.max(axis=1, keepdims=True))
    return spanned(text, tokens.spans, likely / likely.sum(axis=1, keepdims=True), longest)
