"""Overlap of test texts with training data: hashes of 8-grams of words."""

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
"""Words of an n-gram; a shorter text is one n-gram, so that only the whole text can overlap."""

UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
"""Thai and Lao, Burmese, Khmer, Japanese, Chinese: no spaces between words."""

_WORD = re.compile(rf"(?=\w)[{UNSPACED}]|[^\W{UNSPACED}]+")

_FACTORS = np.array([pow(0x9E3779B97F4A7C15, i, 1 << 64) for i in range(NGRAM)], np.uint64)
"""Factors of an n-gram's words by position; odd, so that no bit of a word's hash is lost."""


def hash_ngrams(text: str) -> NDArray[np.uint64]:
    """Return the hashes of a text's 8-grams, uint64 (n,); case and punctuation are ignored.

    Each letter of a script without spaces is a word.
    """
    words = np.array([_hash_word(word) for word in _WORD.findall(text.lower())], np.uint64)
    n = min(NGRAM, len(words))
    if not n:
        return words
    return np.lib.stride_tricks.sliding_window_view(words, n) @ _FACTORS[:n]


@lru_cache(maxsize=1 << 18)
def _hash_word(word: str) -> int:
    data = word.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


@dataclass(frozen=True, eq=False)
class Ngrams:
    """The 8-grams of a body of text.

    Attributes:
        hashes: uint64, sorted, distinct; the probability that another 8-gram has one of them is
            ``len(hashes) / 2**64``.
    """

    hashes: NDArray[np.uint64]

    @classmethod
    def of(cls, texts: Iterable[str]) -> Self:
        """Collect the 8-grams of texts."""
        return cls(np.unique(_concatenate(map(hash_ngrams, texts))))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file of ``write``.

        Raises:
            CheckpointError: The file has other content.
        """
        data = path.read_bytes()
        whole = len(data) % 8 == 0
        hashes = np.frombuffer(data if whole else b"", "<u8")
        if not whole or (hashes[1:] <= hashes[:-1]).any():
            raise CheckpointError(
                f"expected sorted 64-bit hashes in {path}, got {len(data)} other bytes: "
                "copy the file again"
            )
        return cls(hashes)

    def write(self, path: Path) -> None:
        """Write the hashes, little-endian, 8 bytes each.

        Raises:
            OSError: The file cannot be written.
        """
        write_atomic(path, self.hashes.astype("<u8").tobytes())

    def find_overlaps(self, texts: Sequence[str]) -> NDArray[np.bool_]:
        """Return bool (n,): which texts share an 8-gram with these."""
        each = [hash_ngrams(text) for text in texts]
        overlaps = np.zeros(len(each), np.bool_)
        if len(self.hashes):
            owner = np.repeat(np.arange(len(each)), [len(hashes) for hashes in each])
            hashes = _concatenate(each)
            places = np.searchsorted(self.hashes, hashes).clip(max=len(self.hashes) - 1)
            overlaps[owner[self.hashes[places] == hashes]] = True
        return overlaps


def _concatenate(hashes: Iterable[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    return np.concatenate([np.empty(0, np.uint64), *hashes])
