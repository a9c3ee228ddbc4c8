"""Hashed character n-grams: no model. An encoder that loses to this is not using the text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bench.encoder import Embeddings, as_items
from bench.errors import UsageError


@dataclass(frozen=True)
class Hashing:
    """Hashed counts of character n-grams within words; knows no language.

    Attributes:
        dim: Numbers per vector.
        shortest: Characters of the shortest n-gram.
        longest: Characters of the longest n-gram.

    Raises:
        UsageError: There are no numbers or no n-grams of such lengths.
    """

    dim: int = 1024
    shortest: int = 2
    longest: int = 4

    version: ClassVar[int] = 1
    follows_instructions: ClassVar[bool] = False

    def __post_init__(self) -> None:  # with no numbers scikit-learn ends the process
        if self.dim < 1 or not 1 <= self.shortest <= self.longest:
            got = f"dim={self.dim}, shortest={self.shortest}, longest={self.longest}"
            raise UsageError(
                f"expected dim of at least 1 and shortest from 1 to longest, got {got}"
            )

    def encode(self, texts: Sequence[str], *, instruction: str = "") -> Embeddings:  # noqa: ARG002
        """Return float32 (n, dim) of unit length, row i for text i; the instruction is ignored."""
        from sklearn.feature_extraction.text import HashingVectorizer  # listing stays quick

        items = as_items(texts)
        if not items:
            return np.empty((0, self.dim), np.float32)
        # A mark in front gives the empty text n-grams too; surrogates cannot be hashed.
        marked = ["\x02 " + item.text.encode("utf-8", "replace").decode() for item in items]
        lengths = self.shortest, self.longest
        vectorizer = HashingVectorizer(
            n_features=self.dim, analyzer="char_wb", ngram_range=lengths, dtype=np.float32
        )
        return np.asarray(vectorizer.transform(marked).toarray(), np.float32)
