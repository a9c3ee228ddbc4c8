"""Diagnostics: how many directions embeddings use, and whether memory vectors have collapsed.

Source: LLM2Comp's poster, which shows the spectrum of embeddings, their effective dimension, and
the correlation of memory vectors.
A row of ``mteb/stsbenchmark-sts``: ``sentence1`` "A girl is styling her hair.", ``sentence2`` "A
girl is brushing her hair.".
Run: ``bench run --model all --task stsb-spectrum``.
Protocol: the distinct sentences, under no instruction unless one is given; singular values around
the mean. Nothing here is better or worse by itself, so the family is excluded from means and
significance tests.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bench.data import load
from bench.data.columns import TEXT
from bench.embeddings import CachedEncoder
from bench.encoder import Embeddings, Encoder, Item
from bench.errors import DataError
from bench.task import NetworkTask, Score, Scores, sample

_REMEMBERED = 200
"""Most texts whose memory is looked at: the mean correlation is settled long before."""

DIRECTIONS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""How many of the first principal directions are looked at."""


@runtime_checkable
class MemoryEncoder(Encoder, Protocol):
    """An encoder that compresses a text into several vectors before they become one."""

    def encode_memory(self, texts: Sequence[str], *, instruction: str = "") -> NDArray[np.float32]:
        """Return the single vectors, float32 (n, k, dim)."""
        ...


@dataclass(frozen=True, kw_only=True)
class Spectrum(NetworkTask):
    """Effective dimension of the embeddings of a set of distinct sentences.

    Attributes:
        columns: Columns of sentences.
    """

    columns: tuple[str, ...] = ("sentence1", "sentence2")
    uses_instruction: ClassVar[bool] = True
    family: ClassVar[str] = "diagnostics"
    metric: ClassVar[str] = "effective_dimension"
    version: ClassVar[int] = 2

    def items(self, *, seed: int) -> list[Item]:
        """Return every distinct sentence."""
        rows = load(
            self.data, self.split, config=self.config, columns=dict.fromkeys(self.columns, TEXT)
        )
        texts = list(dict.fromkeys(chain(*(rows[column] for column in self.columns))))
        if len(texts) < 2:
            raise DataError(
                f"{self.name} needs at least two distinct sentences, got {len(texts)}; "
                f"check {rows.source}"
            )
        limit = None if self.limit is None else max(self.limit, 2)
        return [Item(texts[i], self.instruction) for i in sample(len(texts), limit)]

    def measure(self, encoder: CachedEncoder, *, seed: int) -> Scores:
        """Return ``effective_dimension``, ``share_N`` and ``memory_correlation``.

        ``share_N`` is the fraction of the variance in the first N directions; the correlation is
        there for an encoder with several memory vectors.
        """
        items = self.items(seed=seed)
        values = spectrum(encoder.embed(items))
        shares = _shares(values).cumsum()
        measured = {"effective_dimension": effective_dimension(values)}
        for n in DIRECTIONS:
            measured[f"share_{n}"] = float(shares[min(n, len(shares)) - 1])
        if isinstance(encoder.inner, MemoryEncoder):
            texts = [item.text for item in items[:_REMEMBERED]]
            memory = encoder.inner.encode_memory(texts, instruction=self.instruction)
            if memory.shape[1] > 1:
                measured["memory_correlation"] = mean_correlation(memory)
        return {name: Score((value,)) for name, value in measured.items()}


def spectrum(embeddings: Embeddings) -> NDArray[np.float64]:
    """Return the singular values of centred embeddings (n, dim), the largest first."""
    exact = embeddings.astype(np.float64)
    values = np.linalg.svd(exact - exact.mean(0), compute_uv=False)
    noise = np.finfo(np.float32).eps * np.linalg.norm(
        exact
    )  # equal embeddings differ by rounding, which spreads over all directions
    return np.where(values > noise, values, 0.0)


def effective_dimension(singular: NDArray[np.float64]) -> float:
    """Return how many directions embeddings use, 0 where they are all the same.

    It is the exponential of the entropy of the shares that the principal directions have in the
    variance.

    Args:
        singular: What ``spectrum`` returns.

    Source:
        The poster names the measure without a formula; this is the effective rank of Roy and
        Vetterli (2007), of the covariance.
    """
    shares = _shares(singular)
    used = shares[shares > 0]
    return float(np.exp(-(used * np.log(used)).sum())) if len(used) else 0.0


def mean_correlation(memory: NDArray[Any]) -> float:
    """Return the mean correlation of two different memory vectors of a text.

    Near 1 the memory has collapsed: all of its vectors say the same.

    Args:
        memory: Memory states (n, k, dim), k at least 2.
    """
    k = memory.shape[1]
    whole = memory_correlations(memory)
    return float((whole.sum() - np.trace(whole)) / (k * (k - 1)))


def memory_correlations(memory: NDArray[Any]) -> NDArray[np.float64]:
    """Return the mean correlations (k, k) of the memory vectors (n, k, dim) of texts."""
    centred = memory.astype(np.float64) - memory.mean(-1, keepdims=True, dtype=np.float64)
    unit = centred / np.maximum(
        np.linalg.norm(centred, axis=-1, keepdims=True), np.finfo(np.float64).tiny
    )
    return np.asarray((unit @ unit.transpose(0, 2, 1)).mean(0))


def _shares(singular: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of each direction in the variance; zeros where there is none."""
    variance = singular**2
    return np.asarray(variance / (variance.sum() or 1.0))


TASKS = (
    Spectrum(
        "stsb-spectrum",
        data="mteb/stsbenchmark-sts",
        about="directions that the embeddings of STS benchmark's sentences use, "
        "and whether memory vectors have collapsed",
    ),
)
"""The diagnostics, to be asked for by name."""
