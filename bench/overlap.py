"""What test texts share with training data: runs of words, kept as sorted hashes, so that a checkpoint can carry them."""

import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from bench.errors import CheckpointError
from bench.files import write_whole

RUN = 8
"""Words in a run; a text of fewer words is one run of its own, so it is shared only when the whole text is."""

_WORD = re.compile(r"\w+")


def runs(text: str) -> Iterator[int]:
    """Yield the hashes of a text's runs of ``RUN`` words; case and punctuation do not count."""
    words = _WORD.findall(text.lower())
    for i in range(max(len(words) - RUN, 0) + 1 if words else 0):
        yield zlib.crc32(" ".join(words[i : i + RUN]).encode("utf-8", "surrogatepass"))


@dataclass(frozen=True, eq=False)
class Runs:
    """The runs of words that a body of text holds.

    Attributes:
        hashes: uint32, sorted, distinct; two different runs share one with probability of about ``len(hashes) / 2**32``.
    """

    hashes: NDArray[np.uint32]

    @classmethod
    def of(cls, texts: Iterable[str]) -> Self:
        """Collect the runs of texts."""
        return cls(np.unique(np.fromiter((run for text in texts for run in runs(text)), np.uint32)))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what ``write`` wrote.

        Raises:
            CheckpointError: The file holds something else.
        """
        data = path.read_bytes()
        hashes = np.frombuffer(data, "<u4") if len(data) % 4 == 0 else np.empty(0, np.uint32)
        if len(data) % 4 or (np.diff(hashes.astype(np.int64)) <= 0).any():
            raise CheckpointError(f"expected sorted 32-bit hashes in {path}, got {len(data)} bytes of something else: copy the file again")
        return cls(hashes)

    def write(self, path: Path) -> None:
        """Write the hashes, little-endian, 4 bytes each.

        Raises:
            OSError: The file cannot be written.
        """
        write_whole(path, self.hashes.astype("<u4").tobytes())

    def touch(self, texts: Sequence[str]) -> NDArray[np.bool_]:
        """Return bool (n,): which texts share a run with these."""
        own = [np.fromiter(runs(text), np.uint32) for text in texts]
        touched = np.zeros(len(own), np.bool_)
        owner, found = np.repeat(np.arange(len(own)), [len(hashes) for hashes in own]), np.concatenate([*own, np.empty(0, np.uint32)])
        if len(self.hashes):
            places = np.searchsorted(self.hashes, found).clip(max=len(self.hashes) - 1)
            touched[owner[self.hashes[places] == found]] = True
        return touched
