"""Encoders that can be exported to sentence-transformers."""

from pathlib import Path
from typing import Protocol, runtime_checkable

from bench.encoder import Encoder


@runtime_checkable
class ExportableEncoder(Encoder, Protocol):
    """An encoder that says whether it can be a folder of sentence-transformers, and writes it."""

    def check_export(self) -> None:
        """Check that it can, without loading weights.

        Raises:
            UsageError: It cannot; the message says why in one line.
        """
        ...

    def export_sentence_transformers(self, folder: Path) -> None:
        """Write a folder that ``SentenceTransformer`` loads with the vectors of ``encode``.

        Raises:
            UsageError: It cannot be one, or the folder has files.
            CheckpointError: The exported model gives other vectors.
        """
        ...
