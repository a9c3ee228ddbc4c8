"""What test texts share with training data: runs of words, kept as sorted hashes, so that a checkpoint can carry them."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from bench.errors import CheckpointError
from bench.files import write_atomic

NGRAM = 8
"""Words in a run; a text of fewer words is one run of its own, so it is shared only when the whole text is."""

_WORD = re.compile(r"\w+")

_FACTORS = np.array([pow(0x9E3779B97F4A7C15, i, 1 << 64) for i in range(NGRAM)], np.uint64)
"""Of the words of a run, by their place; odd, so that no bit of a word's hash is lost."""


def hash_ngrams(text: str) -> NDArray[np.uint64]:
    """Return the hashes of a text's runs of ``RUN`` words, uint64 (n,); case and punctuation do not count."""
    words = np.array([_hashed(word) for word in _WORD.findall(text.lower())], np.uint64)
    n = min(NGRAM, len(words))
    return np.lib.stride_tricks.sliding_window_view(words, n) @ _FACTORS[:n] if n else words


@lru_cache(maxsize=1 << 18)
def _hashed(word: str) -> int:
    return int.from_bytes(
        hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little"
    )


@dataclass(frozen=True, eq=False)
class Ngrams:
    """The runs of words that a body of text holds.

    Attributes:
        hashes: uint64, sorted, distinct; a run that is not among them is taken for one with probability ``len(hashes) / 2**64``.
    """

    hashes: NDArray[np.uint64]

    @classmethod
    def of(cls, texts: Iterable[str]) -> Self:
        """Collect the runs of texts."""
        return cls(np.unique(np.concatenate([np.empty(0, np.uint64), *map(hash_ngrams, texts)])))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what ``write`` wrote.

        Raises:
            CheckpointError: The file holds something else.
        """
        data = path.read_bytes()
        hashes = np.frombuffer(data, "<u8") if len(data) % 8 == 0 else np.empty(0, np.uint64)
        if len(data) % 8 or (hashes[1:] <= hashes[:-1]).any():
            raise CheckpointError(
                f"expected sorted 64-bit hashes in {path}, got {len(data)} bytes of something else: copy the file again"
            )
        return cls(hashes)

    def write(self, path: Path) -> None:
        """Write the hashes, little-endian, 8 bytes each.

        Raises:
            OSError: The file cannot be written.
        """
        write_atomic(path, self.hashes.astype("<u8").tobytes())

    def find_overlaps(self, texts: Sequence[str]) -> NDArray[np.bool_]:
        """Return bool (n,): which texts share a run with these."""
        own = [hash_ngrams(text) for text in texts]
        touched = np.zeros(len(own), np.bool_)
        owner, found = (
            np.repeat(np.arange(len(own)), [len(hashes) for hashes in own]),
            np.concatenate([*own, np.empty(0, np.uint64)]),
        )
        if len(self.hashes):
            places = np.searchsorted(self.hashes, found).clip(max=len(self.hashes) - 1)
            touched[owner[self.hashes[places] == found]] = True
        return touched
