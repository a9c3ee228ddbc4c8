"""Low-rank weights in peft's layout, merged into a network without touching the one that others share."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from adapters._backbone import Network
from adapters._checkpoint import CONFIG, adapter_weights
from adapters._files import read_json, tensors
from bench.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor, nn

_UNUSED = frozenset(
    {
        "auto_mapping", "base_model_name_or_path", "eva_config", "exclude_modules", "inference_mode", "layers_pattern",
        "layers_to_transform", "lora_alpha", "lora_dropout", "megatron_core", "peft_version", "qalora_group_size", "r", "revision",
        "runtime_config", "target_modules", "task_type", "use_rslora",
    }
)  # fmt: skip
"""Fields of ``adapter_config.json`` that leave W + scale * B A as it is; ``r``, ``lora_alpha`` and ``use_rslora`` give the scale."""

_PLAIN: Mapping[str, tuple[object, ...]] = {
    "bias": ("none",),
    "init_lora_weights": (True, "eva", "gaussian"),
    "peft_type": ("LORA",),
}
"""Values beside null, false and empty ones with which a field leaves plain LoRA as it is; every other initialisation may change W."""


def sharing(network: Network) -> Network:
    """Return a network whose modules are its own and whose weights are shared with the given one."""
    shared: dict[int, Any] = {
        id(tensor): tensor for tensor in (*network.model.parameters(), *network.model.buffers())
    }
    return replace(network, model=copy.deepcopy(network.model, shared))


def merged(network: Network, folders: Sequence[Path]) -> Network:
    """Return the network with the low-rank weights of each folder added, in order: W + scale * B A.

    The sum is made in float32 and rounded once to the network's number type. Modules that no folder names stay shared.

    Args:
        network: Stays as it is.
        folders: Each with ``adapter_config.json`` and ``adapter_model.safetensors``.

    Raises:
        CheckpointError: A file is missing or broken, a weight fits no module, or the folder uses an option beyond plain LoRA.
    """
    import torch

    out = sharing(network)
    changed: dict[nn.Linear, list[tuple[str, Path, Change]]] = {}
    for folder in folders:
        for name, change in changes(folder).items():
            changed.setdefault(_linear(out.model, name, folder), []).append((name, folder, change))
    for (
        linear,
        parts,
    ) in changed.items():  # a module at a time: the sums of a large model have no place beside it
        weight = linear.weight.detach().float()
        for name, folder, change in parts:
            if weight.shape != (shape := (len(change.b), change.a.shape[1])):
                raise CheckpointError(
                    f"expected a change of shape {tuple(weight.shape)} for {name}, got {shape} in {folder}"
                )
            weight = weight + change.scale * (change.b @ change.a).to(weight.device)
        linear.weight = torch.nn.Parameter(weight.to(linear.weight.dtype), requires_grad=False)
    return out


class Change(NamedTuple):
    """What low-rank weights add to the weights of a module: scale * b @ a.

    Attributes:
        scale: A factor.
        b: float32 (out, rank).
        a: float32 (rank, in).
    """

    scale: float
    b: "Tensor"
    a: "Tensor"


def changes(folder: Path) -> dict[str, Change]:
    """Return what a folder of low-rank weights changes, by name of the module.

    Raises:
        CheckpointError: As ``merged``.
    """
    config, state = read_json(folder / CONFIG), tensors(adapter_weights(folder))
    for option in sorted(config.keys() - _UNUSED):
        value = config[option]
        if value and value not in _PLAIN.get(option, ()):
            raise CheckpointError(
                f"expected plain LoRA in {folder}, got {option}={value!r}: merge it with peft and save the whole model"
            )
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or not isinstance(alpha, int | float):
        raise CheckpointError(
            f"expected r and lora_alpha in {folder / CONFIG}, got {rank!r} and {alpha!r}"
        )
    scale = alpha / (rank**0.5 if config.get("use_rslora") else rank)
    pairs: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        module, _, side = key.removesuffix(".weight").rpartition(".")
        pairs.setdefault(module.removeprefix("base_model.model."), {})[side] = tensor.float()
    for module, pair in pairs.items():
        if (
            pair.keys() != {"lora_A", "lora_B"}
            or pair["lora_B"].shape[1:] != pair["lora_A"].shape[:1]
        ):
            raise CheckpointError(
                f"expected lora_A and lora_B of one rank for {module}, got {sorted(pair)} in {folder}"
            )
    return {module: Change(scale, pair["lora_B"], pair["lora_A"]) for module, pair in pairs.items()}


def _linear(model: "nn.Module", name: str, folder: Path) -> "nn.Linear":
    """Return the linear layer of a name, which may count from the whole language model or from its trunk."""
    from torch import nn

    modules, trunk = dict(model.named_modules()), f"{getattr(model, 'base_model_prefix', 'model')}."
    for candidate in (name, name.removeprefix(trunk), trunk + name):
        if isinstance(found := modules.get(candidate), nn.Linear):
            return found
    raise CheckpointError(
        f"expected a linear layer {name} in the backbone, got none: {folder} belongs to another backbone"
    )
