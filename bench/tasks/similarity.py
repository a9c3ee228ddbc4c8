"""How alike two texts are: by their vectors, or by the states of their tokens (BERTScore)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.encoder import TokenStates

DECIMALS = 6
"""Similarities are rounded to this many decimals: pairs that are equal but for rounding noise must tie in a ranking."""

_PAIRS = 8  # pairs multiplied at once: little padding, and what is computed stays in the processor's cache


def unit(vectors: NDArray[Any]) -> NDArray[Any]:
    """Return the vectors (..., dim) scaled to length 1, in their dtype; vectors of zeros stay zero."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: NDArray[Any] = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    return scaled


def cosine(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the cosines (n,) of two sets of vectors (n, dim), row by row, rounded."""
    products: NDArray[np.float64] = np.einsum("nd,nd->n", unit(left.astype(np.float64)), unit(right.astype(np.float64)))
    return products.round(DECIMALS)


def bertscore(left: Sequence[TokenStates], right: Sequence[TokenStates]) -> NDArray[np.float64]:
    """Return BERTScore F of each pair of texts, rounded: float64 (n,), at most 1.

    F is the harmonic mean of two numbers: the best cosine of each left token averaged over the left, and the same for the
    right. There is no weighting by token frequency and no rescaling; F is 0 unless both numbers are positive.

    Args:
        left: Token states of the first texts; special tokens count as tokens.
        right: Token states of the second texts, one for each of the first.

    Source:
        Zhang et al., BERTScore, ICLR 2020, section 3; used for ranking paraphrases by QuIP.
    """
    scores = np.zeros(len(left))
    order = np.argsort([len(a.states) + len(b.states) for a, b in zip(left, right, strict=True)], kind="stable")
    for start in range(0, len(order), _PAIRS):
        batch = order[start : start + _PAIRS]
        scores[batch] = _bertscore([left[i].states for i in batch], [right[i].states for i in batch])
    return scores.round(DECIMALS)


def _bertscore(left: Sequence[NDArray[np.float32]], right: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
    a, a_real, a_scale = _padded(left)  # (b, s, dim), (b, s), (b, s)
    b, b_real, b_scale = _padded(right)  # (b, t, dim), (b, t), (b, t)
    cosines = a @ b.transpose(0, 2, 1)  # (b, s, t)
    cosines *= a_scale[:, :, None]
    cosines *= b_scale[:, None, :]
    cosines[~(a_real[:, :, None] & b_real[:, None, :])] = -1.0
    precision = _mean(cosines.max(axis=2, initial=-1.0), a_real)
    recall = _mean(cosines.max(axis=1, initial=-1.0), b_real)
    positive = (precision > 0) & (recall > 0)
    return np.divide(2 * precision * recall, precision + recall, out=np.zeros(len(a)), where=positive)


def _padded(states: Sequence[NDArray[np.float32]]) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float32]]:
    """Return states padded with zeros, which of them are real, and what scales each to length 1; 0 for a state of zeros."""
    lengths = np.array([len(s) for s in states])
    real = np.arange(lengths.max(initial=0)) < lengths[:, None]
    out = np.zeros((*real.shape, states[0].shape[1]), np.float32)
    for row, tokens in zip(out, states, strict=True):
        row[: len(tokens)] = tokens
    norms = np.sqrt(np.einsum("btd,btd->bt", out, out))
    return out, real, np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)


def _mean(values: NDArray[np.float32], real: NDArray[np.bool_]) -> NDArray[np.float64]:
    sums: NDArray[np.float64] = (values.astype(np.float64) * real).sum(axis=1)
    return np.asarray(sums / np.maximum(real.sum(axis=1), 1))
