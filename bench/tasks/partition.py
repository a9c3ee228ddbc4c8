"""Parts of a set of texts: two fixed halves, and blocks that fit into memory."""

import zlib
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Half = Literal["", "train", "test"]
"""Which half of a set that comes undivided; "" is all of it."""

_BLOCK = 200_000  # characters: some 50,000 tokens, whose states take 200 MB at 1,024 dimensions


def half_rows(texts: Sequence[str], half: Half) -> NDArray[np.int64]:
    """Return the row numbers of a half, by a hash of the text: equal texts are in the same."""
    if not half:
        return np.arange(len(texts))
    test = np.array(
        [zlib.crc32(text.encode("utf-8", "surrogatepass")) % 2 == 0 for text in texts], bool
    )
    return np.flatnonzero(test if half == "test" else ~test)


def split_blocks(sizes: Sequence[int]) -> list[NDArray[np.int64]]:
    """Return the numbers of the texts in consecutive blocks whose token states fit into memory.

    Args:
        sizes: Characters of each text; a longer one than a whole block gets a block of its own.
    """
    ends = np.cumsum(sizes, dtype=np.int64) // _BLOCK
    return [
        block
        for block in np.split(np.arange(len(sizes)), np.flatnonzero(np.diff(ends)) + 1)
        if len(block)
    ]
