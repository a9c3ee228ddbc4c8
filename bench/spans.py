"""Extractive answers: spans of a text's words, found by start and end scores of its tokens.

Source: facebookresearch/quip at 934c724: the span with the largest p_start times p_end; exact match
and F1 as in SQuAD's evaluation.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.encoder import TokenStates

ANSWER_TOKENS, RATIONALE_TOKENS = 17, 5
"""Longest answers, and longest rationales, in tokens."""


class Marked(NamedTuple):
    """A text and words of it.

    Attributes:
        text: The text.
        spans: First character of each word, and the one after its last, int (words, 2), in order.
        classes: Class of each word (words,); empty where they are to be found.
    """

    text: str
    spans: Sequence[tuple[int, int]]
    classes: Sequence[int] = ()


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


def first_tokens(spans: NDArray[np.int32], words: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """Return the index of each word's first token (words,), -1 for a word without a token.

    Args:
        spans: Characters of each token (t, 2), empty for special tokens; a span may include the
            space before a word.
        words: Characters of each word, in order.
    """
    starts, ends = np.asarray(words, np.int64).reshape(-1, 2).T
    real = np.flatnonzero(spans[:, 1] > spans[:, 0])
    known = spans[real]
    # The first token that ends inside or after the word.
    first = np.searchsorted(known[:, 1], starts, side="right")
    has = first < len(known)
    has[has] = known[first[has], 0] < ends[has]
    out = np.full(len(starts), -1, np.int64)
    out[has] = real[first[has]]
    return out


def normalize_words(text: str) -> list[str]:
    """Return the words of SQuAD's evaluation: lower case, without punctuation and articles."""
    bare = text.lower().translate(str.maketrans("", "", string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", bare).split()


def token_f1(found: str, right: str) -> float:
    """Return the F1 of the words of two answers."""
    ours, theirs = normalize_words(found), normalize_words(right)
    if not ours or not theirs:
        return float(ours == theirs)
    return 2 * (Counter(ours) & Counter(theirs)).total() / (len(ours) + len(theirs))


def exact_match(found: str, accepted: Sequence[str]) -> float:
    """Return 1 where an answer has the words of an accepted one, else 0."""
    return float(any(normalize_words(found) == normalize_words(right) for right in accepted))


def f1(found: str, accepted: Sequence[str]) -> float:
    """Return the F1 of an answer's words and those of the nearest accepted one."""
    return max((token_f1(found, right) for right in accepted), default=0.0)


def best_span(
    start: NDArray[np.float32], end: NDArray[np.float32], longest: int
) -> tuple[int, int, float]:
    """Return first and last token and probability of the best span; ties go to the shortest.

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


def extract_span(
    text: str, spans: NDArray[np.int32], both: NDArray[np.float32], longest: int
) -> Answer:
    """Return the best words of a text; special tokens at the ends of the span add none.

    Args:
        text: The text.
        spans: Characters of each token (t, 2), empty for special tokens.
        both: Start and end probabilities (2, t).
        longest: Most tokens.
    """
    i, j, probability = best_span(both[0], both[1], longest)
    real = [span for span in spans[i : j + 1].tolist() if span[0] < span[1]]
    a, b = (real[0][0], real[-1][1]) if real else (0, 0)
    part = text[a:b]
    start = b - len(part.lstrip())
    end = a + len(part.rstrip())
    return Answer(part.strip(), start, end, probability)


def extract_answer(
    text: str,
    tokens: TokenStates,
    start: NDArray[np.float32],
    end: NDArray[np.float32],
    longest: int,
) -> Answer:
    """Return the best words of a text, with a softmax over all of its tokens.

    Args:
        text: The text.
        tokens: Its token states (t, dim).
        start: Start vector of the question (dim,).
        end: Its end vector (dim,).
        longest: Most tokens.
    """
    scores = np.stack([start, end]) @ tokens.states.T
    likely = np.exp(scores - scores.max(axis=1, keepdims=True))
    return extract_span(text, tokens.spans, likely / likely.sum(axis=1, keepdims=True), longest)
