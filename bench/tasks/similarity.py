"""How alike two texts are: by their vectors, or by the states of their tokens (BERTScore)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.encoder import Similarity, TokenStates

DECIMALS = 6
"""Decimals of similarities: pairs that are equal but for rounding noise must tie in a ranking."""


def unit(vectors: NDArray[Any]) -> NDArray[Any]:
    """Return the vectors (..., dim) scaled to length 1, in their dtype; zeros stay zeros."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: NDArray[Any] = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    return scaled


def similarities(
    left: NDArray[np.float32], right: NDArray[np.float32], by: Similarity
) -> NDArray[np.float64]:
    """Return the similarity of each of n vectors (n, dim) with each of m (m, dim), (n, m).

    Cosines, or others relative to the largest, so that rounding them ties the same pairs whatever
    the lengths of the vectors.
    """
    a, b = left.astype(np.float64), right.astype(np.float64)
    if by == "cosine":
        return np.asarray(unit(a) @ unit(b).T)
    found = a @ b.T
    if by == "euclidean":
        apart = np.vecdot(a, a)[:, None] + np.vecdot(b, b) - 2 * found
        found = -np.sqrt(np.maximum(apart, 0))
    return np.asarray(found / (np.abs(found).max(initial=0) or 1))


def cosine(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the cosines (n,) of two sets of vectors (n, dim), row by row, rounded."""
    products: NDArray[np.float64] = np.einsum(
        "nd,nd->n", unit(left.astype(np.float64)), unit(right.astype(np.float64))
    )
    return products.round(DECIMALS)


def bertscore(left: Sequence[TokenStates], right: Sequence[TokenStates]) -> NDArray[np.float64]:
    """Return BERTScore F of each pair of texts, rounded: float64 (n,), at most 1.

    F is the harmonic mean of two numbers: the best cosine of each left token averaged over the
    left, and the same for the right. There is no weighting by token frequency and no rescaling; F
    is 0 unless both numbers are positive.

    Args:
        left: Token states of the first texts; special tokens count as tokens.
        right: Token states of the second texts, one for each of the first.

    Source:
        Zhang et al., BERTScore, ICLR 2020, section 3; used for ranking paraphrases by QuIP.
    """
    scores = [_bertscore(a.states, b.states) for a, b in zip(left, right, strict=True)]
    return np.array(scores, np.float64).round(DECIMALS)


def _bertscore(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    cosines = a @ b.T  # (s, t); padding pairs to one length would take longer than this
    cosines *= _scales(a)[:, None]
    cosines *= _scales(b)
    best = cosines.max(axis=1, initial=-1.0), cosines.max(axis=0, initial=-1.0)
    precision, recall = (float(each.sum(dtype=np.float64)) / max(len(each), 1) for each in best)
    return 2 * precision * recall / (precision + recall) if precision > 0 and recall > 0 else 0.0


def _scales(states: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the finite factors (t,) that scale each state (t, dim) to length 1."""
    scales: NDArray[np.float32] = 1 / np.maximum(
        np.sqrt(np.vecdot(states, states)), np.finfo(np.float32).tiny
    )
    return scales
