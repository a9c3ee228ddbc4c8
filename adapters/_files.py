"""Reading the small files of a checkpoint: their digest, their tensors, their JSON."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from pickle import UnpicklingError  # torch.load's error; nothing is unpickled
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from bench.errors import CheckpointError
from bench.files import sha256_of


def files_digest(files: Iterable[Path]) -> str:
    """Return the sha256, in hex, of the content of files in order; names do not count."""
    total = hashlib.sha256()
    for path in files:
        total.update(bytes.fromhex(sha256_of(path)))
    return total.hexdigest()


def tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, or of a ``.pt`` file of nothing but tensors.

    Raises:
        CheckpointError: The file is missing, broken, or holds something else.
    """
    try:
        state = load_file(path) if path.suffix == ".safetensors" else load_torch(path)
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error
    values = state.values() if isinstance(state, dict) else [state]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in values):
        raise CheckpointError(
            f"expected a mapping from names to tensors in {path}, got something else: "
            "give the state dict alone"
        )
    return state


def load_torch(path: Path) -> Any:  # noqa: ANN401 - tensors in lists and mappings
    """Return what ``torch.save`` wrote, of tensors and plain values; nothing else is unpickled.

    Raises:
        CheckpointError: The file is missing, broken, or holds something else.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, UnpicklingError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"expected tensors in {path}, cannot read them ({type(error).__name__}): "
        "copy the file again"
    )


def read_json(path: Path) -> Any:  # noqa: ANN401 - any JSON value
    """Return the JSON value in a file of a checkpoint.

    Raises:
        CheckpointError: The file is missing or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"expected a JSON file at {path}, got {type(error).__name__}: "
            "the checkpoint is incomplete"
        ) from error


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file of a checkpoint.

    Raises:
        CheckpointError: The file is missing, or has no JSON object.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise CheckpointError(
            f"expected a JSON object in {path}, got {type(value).__name__}: copy the file again"
        )
    return value
