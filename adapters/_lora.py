"""LoRA weights in peft's layout, merged into a network without touching the one others share."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from adapters._checkpoint import CONFIG, adapter_weights
from adapters._files import read_json, tensors
from adapters._network import Network
from adapters._trainable import share_weights
from bench.errors import CheckpointError

_UNUSED = frozenset(
    """
    auto_mapping base_model_name_or_path eva_config exclude_modules inference_mode layers_pattern
    layers_to_transform lora_alpha lora_dropout megatron_core peft_version qalora_group_size r
    revision runtime_config target_modules task_type use_rslora
    """.split()  # noqa: SIM905 - easier to read without quotes
)
"""Fields of ``adapter_config.json`` that leave W + scale * B A as it is; ``r``, ``lora_alpha`` and
``use_rslora`` give the scale."""

_PLAIN: Mapping[str, tuple[object, ...]] = {
    "bias": ("none",),
    "init_lora_weights": (True, "eva", "gaussian"),
    "peft_type": ("LORA",),
}
"""Values, beside null, false and empty ones, with which a field leaves plain LoRA as it is; every
other initialisation may change W."""


class LoraDelta(NamedTuple):
    """What LoRA weights add to the weights of a module: scale * b @ a.

    Attributes:
        scale: A factor.
        b: float32 (out, rank).
        a: float32 (rank, in).
    """

    scale: float
    b: Tensor
    a: Tensor


def merge_lora(network: Network, folders: Sequence[Path]) -> Network:
    """Return the network with the LoRA weights of each folder added, in order: W + scale * B A.

    The sum is made in float32 and rounded once to the network's dtype. Modules that no folder
    names stay shared.

    Args:
        network: Stays as it is.
        folders: Each with ``adapter_config.json`` and ``adapter_model.safetensors``.

    Raises:
        CheckpointError: A file is missing or broken, a weight fits no module, or the folder uses
            an option beyond plain LoRA.
    """
    out = share_weights(network)
    deltas: dict[nn.Linear, list[tuple[str, Path, LoraDelta]]] = {}
    for folder in folders:
        for name, delta in read_deltas(folder).items():
            linear = _find_linear(out.model, name, folder)
            deltas.setdefault(linear, []).append((name, folder, delta))
    for linear, several in deltas.items():  # one by one: all sums of a large model take much memory
        weight = linear.weight.detach().float()
        for name, folder, delta in several:
            shape = (len(delta.b), delta.a.shape[1])
            if weight.shape != shape:
                raise CheckpointError(
                    f"expected LoRA weights of shape {tuple(weight.shape)} for {name}, "
                    f"got {shape} in {folder}: it belongs to another backbone"
                )
            weight = weight + delta.scale * (delta.b @ delta.a).to(weight.device)
        linear.weight = nn.Parameter(weight.to(linear.weight.dtype), requires_grad=False)
    return out


def read_deltas(folder: Path) -> dict[str, LoraDelta]:
    """Return what a folder of LoRA weights changes, by name of the module.

    Raises:
        CheckpointError: As ``merge_lora``.
    """
    config, state = read_json(folder / CONFIG), tensors(adapter_weights(folder))
    scale = _scale(config, folder)
    pairs: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        module, _, side = key.removesuffix(".weight").rpartition(".")
        pairs.setdefault(module.removeprefix("base_model.model."), {})[side] = tensor.float()
    deltas = {}
    for module, pair in pairs.items():
        a, b = pair.get("lora_A"), pair.get("lora_B")
        if len(pair) != 2 or a is None or b is None or b.shape[1:] != a.shape[:1]:
            raise CheckpointError(
                f"expected lora_A and lora_B of one rank for {module}, "
                f"got {sorted(pair)} in {folder}: copy it again"
            )
        deltas[module] = LoraDelta(scale, b, a)
    return deltas


def _scale(config: Mapping[str, Any], folder: Path) -> float:
    """Return the factor of B A.

    Raises:
        CheckpointError: There is none, or the folder uses an option beyond plain LoRA.
    """
    for option in sorted(config.keys() - _UNUSED):
        value = config[option]
        if value and value not in _PLAIN.get(option, ()):
            raise CheckpointError(
                f"expected plain LoRA in {folder}, got {option}={value!r}: "
                "merge it with peft and save the whole model"
            )
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or not isinstance(alpha, int | float):
        raise CheckpointError(
            f"expected numbers r and lora_alpha in {folder / CONFIG}, got {rank!r} and {alpha!r}: "
            "copy it again"
        )
    return alpha / (rank**0.5 if config.get("use_rslora") else rank)


def _find_linear(model: nn.Module, name: str, folder: Path) -> nn.Linear:
    """Return the linear layer of a name that counts from the whole model or from its trunk."""
    modules = dict(model.named_modules())
    trunk = f"{getattr(model, 'base_model_prefix', 'model')}."
    for candidate in (name, name.removeprefix(trunk), trunk + name):
        if isinstance(found := modules.get(candidate), nn.Linear):
            return found
    raise CheckpointError(
        f"expected a linear layer {name} in the backbone, got none: "
        f"{folder} belongs to another backbone"
    )
