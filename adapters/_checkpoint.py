"""Folders that a recipe wrote: LoRA weights in peft's layout, their card and training 8-grams."""

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from adapters._files import files_digest, read_object
from adapters._source import content_digest
from bench.checkpoints import CARD
from bench.encoder import Card, digest
from bench.errors import CheckpointError
from bench.overlap import Ngrams

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""The two files of a folder of LoRA weights."""

_OLD_WEIGHTS = "adapter_model.bin"

_WHOLE = (
    "model.safetensors",
    "model-*-of-*.safetensors",
    "pytorch_model.bin",
    "pytorch_model-*-of-*.bin",
)
"""Names of the weights of a whole model."""

RUNS = "runs.u64"
"""File beside the weights: the hashes of the 8-grams that were trained on."""


def locate(checkpoint: str, module: str, otherwise: str) -> str:
    """Return the source of a method's ``checkpoint``: a folder, ``~`` expanded, or a hub id.

    Args:
        checkpoint: "default" for the default weights of the method, or a source.
        module: ``__file__`` of a module in the method's package.
        otherwise: The source to take where the method comes without default weights.
    """
    if checkpoint != "default":
        return os.path.expanduser(checkpoint)  # noqa: PTH111 - as a Path, a hub id would change
    folder = Path(module).parent / "checkpoint"
    return str(folder) if (folder / CARD).is_file() else otherwise


def base_of(folder: Path) -> str:
    """Return the source of the backbone that the folder's LoRA weights change.

    Raises:
        CheckpointError: The configuration is broken, names none, or leads back to the folder.
    """
    source = _base(folder)
    passed, at = {folder.resolve()}, Path(source).expanduser()
    while (at / CONFIG).is_file():
        if at.resolve() in passed:
            raise CheckpointError(
                f"{folder / CONFIG} names {source} as its base, which leads back to LoRA weights: "
                "name the backbone there"
            )
        passed.add(at.resolve())
        at = Path(_base(at)).expanduser()
    return source


def _base(folder: Path) -> str:
    config = read_object(folder / CONFIG)
    source, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(source, str) or not source:
        raise CheckpointError(
            f"expected base_model_name_or_path in {folder / CONFIG}, got {source!r}: "
            "name the backbone there"
        )
    return f"{source}@{revision}" if revision and not Path(source).is_dir() else source


def adapter_folder(folder: Path) -> Path | None:
    """Return the folder if it holds LoRA weights, also with a ``config.json`` beside; else None.

    Raises:
        CheckpointError: It also holds the weights of a whole model.
    """
    if not (folder / CONFIG).is_file():
        return None
    for name in _WHOLE:
        for path in folder.glob(name):
            raise CheckpointError(
                f"expected a whole model or LoRA weights in {folder}, got {path.name} and "
                f"{CONFIG}: move one of them away"
            )
    return folder


def adapter_weights(folder: Path) -> Path:
    """Return the file of the folder's LoRA weights.

    Raises:
        CheckpointError: There is none.
    """
    for name in (WEIGHTS, _OLD_WEIGHTS):
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(f"expected {WEIGHTS} in {folder}, got none: copy the whole folder")


def adapter_card(folder: Path, base: Card) -> Card:
    """Return the card of a backbone changed by a folder's LoRA weights.

    Raises:
        CheckpointError: A file is missing or broken.
    """
    adapter_weights(folder)
    training = read_card(folder)
    return replace(
        base,
        weights=digest({"base": base.weights, "adapter": content_digest(folder)}),
        trained=True,
        training_tokens=training.get("trained_tokens"),
        training=training,
    )


def read_card(folder: Path) -> dict[str, Any]:
    """Return the folder's card; nothing where it has none.

    Raises:
        CheckpointError: It is no JSON object, or a file differs from the one it was written with.
    """
    if not (folder / CARD).is_file():
        return {}
    card = read_object(folder / CARD)
    files = card.get("files")  # older cards name none
    if isinstance(files, dict):
        for name, wanted in files.items():
            path = folder / Path(name).name
            if not path.is_file() or recorded_digest(path) != wanted:
                raise CheckpointError(
                    f"expected {path} as its training wrote it, got other content: "
                    "copy the folder again, or delete it and train again"
                )
    return card


def recorded_digest(path: Path) -> str:
    """Return the digest that a card records of a file.

    The path of the base in ``adapter_config.json`` does not count: it changes when a checkpoint
    moves.
    """
    if path.name != CONFIG:
        return files_digest([path])
    config = read_object(path)
    config.pop("base_model_name_or_path", None)
    return digest(config)


def check_present(files: Iterable[Path]) -> None:
    """Check that no file of a checkpoint is missing.

    Raises:
        CheckpointError: One is.
    """
    for path in files:
        if not path.is_file():
            raise CheckpointError(
                f"expected {path}, it is missing: the checkpoint is incomplete, "
                "write or copy it again"
            )


def runs_of(source: str | Path) -> Ngrams | None:
    """Return the 8-grams that a source was trained on; None where it is no folder or has none.

    Raises:
        CheckpointError: The file is broken.
    """
    path = Path(source).expanduser() / RUNS
    return Ngrams.read(path) if path.is_file() else None
