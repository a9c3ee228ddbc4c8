"""Reading the small files of a checkpoint: their digest, their tensors, their JSON."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor


def files_digest(files: Iterable[Path]) -> str:
    """Return the sha256, in hex, of the content of files in the order given; their names do not count."""
    total = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def stamp(files: Iterable[Path]) -> tuple[tuple[int, int], ...]:
    """Return size and time of each file: a cheap key that changes when one is written anew."""
    return tuple((path.stat().st_size, path.stat().st_mtime_ns) for path in files)


def tensors(path: Path) -> "dict[str, Tensor]":
    """Return the tensors of a safetensors file, or of a ``.pt`` file that holds nothing but tensors.

    Raises:
        CheckpointError: The file is missing, broken, or holds something else.
    """
    from pickle import UnpicklingError  # torch.load's error; nothing is unpickled

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except (OSError, EOFError, RuntimeError, SafetensorError, UnpicklingError) as error:
        raise CheckpointError(
            f"expected tensors in {path}, cannot read them ({type(error).__name__}): copy the file again"
        ) from error
    if not isinstance(state, dict) or not all(
        isinstance(value, torch.Tensor) for value in state.values()
    ):
        raise CheckpointError(
            f"expected a mapping from names to tensors in {path}, got something else: give the state dict alone"
        )
    return state


def read_json(path: Path) -> Any:  # noqa: ANN401 - any JSON value
    """Return the JSON value in a file of a checkpoint.

    Raises:
        CheckpointError: The file is missing or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"expected a JSON file at {path}, got {type(error).__name__}: the checkpoint is incomplete"
        ) from error
