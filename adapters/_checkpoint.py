"""Folders that a recipe wrote: low-rank weights in peft's layout, the card that says how they came about, and what was trained on."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from adapters._files import files_digest, read_json
from adapters._source import content_digest
from bench.encoder import Card, digest
from bench.errors import CheckpointError
from bench.overlap import Ngrams

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""The two files of a folder of low-rank weights."""

_OLD_WEIGHTS = "adapter_model.bin"

CARD, RUNS = "card.json", "runs.u64"
"""Files beside the weights: the card, and the hashes of the runs of words that were trained on."""


def located(checkpoint: str, module: str, otherwise: str) -> str:
    """Return the source that a method's ``checkpoint`` stands for: a folder, its home directory filled in, or a hub id.

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
    """Return the source of the backbone that the folder's low-rank weights change.

    Raises:
        CheckpointError: The configuration is broken, names none, or leads back to the folder.
    """
    source, passed, at = _base(folder), {folder.resolve()}, Path(_base(folder)).expanduser()
    while (at / CONFIG).is_file():
        if at.resolve() in passed:
            raise CheckpointError(
                f"{folder / CONFIG} names {source} as its base, which leads back to low-rank weights: name the backbone there"
            )
        passed.add(at.resolve())
        at = Path(_base(at)).expanduser()
    return source


def _base(folder: Path) -> str:
    config = _config(folder)
    source, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(source, str) or not source:
        raise CheckpointError(
            f"expected base_model_name_or_path in {folder / CONFIG}, got {source!r}: name the backbone there"
        )
    return f"{source}@{revision}" if revision and not Path(source).is_dir() else source


def adapter_folder(folder: Path) -> Path | None:
    """Return the folder where it holds LoRA weights, with or without a ``config.json`` of the backbone beside them; else None.

    Raises:
        CheckpointError: It also holds the weights of a whole model.
    """
    if not (folder / CONFIG).is_file():
        return None
    names = ("model.safetensors", "model-*-of-*.safetensors", "pytorch_model.bin", "pytorch_model-*-of-*.bin")  # fmt: skip
    if whole := [path for name in names for path in folder.glob(name)]:
        raise CheckpointError(
            f"expected a whole model or LoRA weights in {folder}, got {whole[0].name} and {CONFIG}: move one of them away"
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


def adapted_card(folder: Path, base: Card) -> Card:
    """Return the card of a backbone changed by a folder's low-rank weights.

    Raises:
        CheckpointError: A file is missing or broken.
    """
    adapter_weights(folder)
    training = card_of(folder)
    return replace(
        base,
        weights=digest({"base": base.weights, "adapter": content_digest(folder)}),
        trained=True,
        training_tokens=training.get("trained_tokens"),
        training=training,
    )


def card_of(folder: Path) -> dict[str, Any]:
    """Return what the folder's card says; nothing where it has none.

    Raises:
        CheckpointError: It is no JSON object.
    """
    if not (folder / CARD).is_file():
        return {}
    card = read_json(folder / CARD)
    if not isinstance(card, dict):
        raise CheckpointError(
            f"expected a JSON object in {folder / CARD}, got {type(card).__name__}: copy the file again"
        )
    files = card.get("files", {})  # older cards name none
    for name, wanted in files.items() if isinstance(files, dict) else ():
        path = folder / Path(name).name
        if not path.is_file() or recorded_digest(path) != wanted:
            raise CheckpointError(
                f"expected {path} as its training wrote it, got other content: copy the folder again"
            )
    return card


def recorded_digest(path: Path) -> str:
    """Return the digest that a card records of a file.

    The path of the base in ``adapter_config.json`` does not count: it changes when a checkpoint moves.
    """
    if path.name != CONFIG:
        return files_digest([path])
    config = _config(path.parent)
    return digest({name: config[name] for name in config if name != "base_model_name_or_path"})


def runs_of(source: str | Path) -> Ngrams | None:
    """Return the runs of words that the weights of a source were trained on; None where it is no folder or does not say.

    Raises:
        CheckpointError: The file is broken.
    """
    path = Path(source).expanduser() / RUNS
    return Ngrams.read(path) if path.is_file() else None


def _config(folder: Path) -> dict[str, Any]:
    config = read_json(folder / CONFIG)
    if not isinstance(config, dict):
        raise CheckpointError(
            f"expected a JSON object in {folder / CONFIG}, got {type(config).__name__}: copy the file again"
        )
    return config
