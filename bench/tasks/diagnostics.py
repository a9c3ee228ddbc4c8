"""Diagnostics: how many directions do embeddings use, and do the vectors of a compressed text say different things?

Source: LLM2Comp's poster, which shows the spectrum of embeddings, their effective dimension, and the correlation of memory vectors.
A row of ``mteb/stsbenchmark-sts``: ``sentence1`` "A girl is styling her hair.", ``sentence2`` "A girl is brushing her hair.".
Run: ``bench run --model all --task stsb-spectrum``.
Protocol: the distinct sentences without an instruction; singular values around the mean. Nothing here is better or worse by itself, so the
family counts in no mean and no comparison.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bench.columns import TEXT
from bench.data import load
from bench.encoder import Embeddings, Encoder, Item, MemoryEncoder, gather, stream, unwrapped
from bench.errors import DataError
from bench.task import Score, sample

_REMEMBERED = 200
"""Most texts whose memory is looked at: the mean correlation is settled long before."""

DIRECTIONS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""How many of the first principal directions are looked at."""


@dataclass(frozen=True)
class Spectrum:
    """Effective dimension of the embeddings of a set of sentences.

    Attributes:
        name: Name of the task.
        data: Id of the data set.
        split: Its split.
        columns: Columns of sentences.
        limit: At most this many distinct sentences.
        about: One line for lists.
    """

    name: str
    data: str
    split: str = "test"
    columns: tuple[str, ...] = ("sentence1", "sentence2")
    limit: int | None = None
    about: str = field(default="", compare=False)
    family: ClassVar[str] = "diagnostics"
    metric: ClassVar[str] = "effective_dimension"
    readout: ClassVar[str] = "embedding"
    version: ClassVar[int] = 2
    needs: ClassVar[type[Encoder]] = Encoder  # type: ignore[type-abstract]

    def items(self, *, seed: int) -> Iterable[Item]:  # noqa: ARG002 - the sentences do not depend on it
        """Return every distinct sentence."""
        return self._items()

    def evaluate(self, encoder: Encoder, *, seed: int) -> Mapping[str, Score]:  # noqa: ARG002 - nothing is random
        """Return ``effective_dimension``, the share of the variance in the first directions, and how alike memory vectors are.

        ``share_N`` is the share of the first N directions; ``memory_correlation`` is there for an encoder with several memory vectors.
        """
        items = self._items()
        values = spectrum(gather(stream(encoder, items), len(items)))
        held = _shares(values).cumsum()
        found = {"effective_dimension": effective_dimension(values)}
        found |= {f"share_{n}": float(held[min(n, len(held)) - 1]) for n in DIRECTIONS}
        inner = unwrapped(encoder)
        if isinstance(inner, MemoryEncoder):
            memory = inner.encode_memory([item.text for item in items[:_REMEMBERED]])
            if memory.shape[1] > 1:
                found["memory_correlation"] = mean_correlation(memory)
        return {name: Score((value,)) for name, value in found.items()}

    def _items(self) -> list[Item]:
        rows = load(self.data, self.split, columns=dict.fromkeys(self.columns, TEXT))
        texts = list(dict.fromkeys(text for column in self.columns for text in rows[column]))
        if len(texts) < 2:
            raise DataError(
                f"{self.name} needs at least two distinct sentences, got {len(texts)}; look at {rows.source}"
            )
        return [
            Item(texts[i])
            for i in sample(len(texts), None if self.limit is None else max(self.limit, 2))
        ]


def spectrum(embeddings: Embeddings) -> NDArray[np.float64]:
    """Return the singular values of embeddings (n, dim) around their mean, the largest first: (min(n, dim),)."""
    exact = embeddings.astype(np.float64)
    values = np.linalg.svd(exact - exact.mean(0), compute_uv=False)
    noise = np.finfo(np.float32).eps * np.linalg.norm(
        exact
    )  # equal embeddings differ by rounding, which spreads over all directions
    return np.where(values > noise, values, 0.0)


def effective_dimension(singular: NDArray[np.float64]) -> float:
    """Return how many directions embeddings use: d where their variance is spread evenly over d, 0 where they are all one.

    It is the exponential of the entropy of the shares that the principal directions have in the variance.

    Args:
        singular: What ``spectrum`` returns.

    Source:
        The poster names the measure without a formula; this is the effective rank of Roy and Vetterli (2007), of the covariance.
    """
    shares = _shares(singular)
    used = shares[shares > 0]
    return float(np.exp(-(used * np.log(used)).sum())) if len(used) else 0.0


def mean_correlation(memory: NDArray[Any]) -> float:
    """Return the correlation of two different memory vectors of a text, the mean over pairs and texts.

    Near 1 the memory has collapsed: all of its vectors say the same.

    Args:
        memory: Memory states (n, k, dim), k at least 2.
    """
    k = memory.shape[1]
    whole = memory_correlations(memory)
    return float((whole.sum() - np.trace(whole)) / (k * (k - 1)))


def memory_correlations(memory: NDArray[Any]) -> NDArray[np.float64]:
    """Return the correlation of each two of a text's memory vectors (n, k, dim), the mean over texts: (k, k)."""
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
        "mteb/stsbenchmark-sts",
        about="directions that the embeddings of STS benchmark's sentences use, and whether memory vectors have collapsed",
    ),
)
"""The diagnostics, to be asked for by name."""
