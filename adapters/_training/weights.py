"""What is trained of a network, all of its weights or LoRA weights, and how it is saved."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import save
from torch import nn

from adapters._backbone import PACKAGED
from adapters._checkpoint import CONFIG, WEIGHTS
from adapters._network import Network, save_whole
from adapters._trainable import (
    fork_seed,
    set_training,
    share_weights,
    unfreeze,
)
from bench.errors import UsageError
from bench.files import write_atomic

_TARGETS = {
    "llama": ("q_proj", "v_proj", "o_proj", "up_proj", "gate_proj", "down_proj"),
    "opt": ("q_proj", "v_proj", "out_proj", "fc1", "fc2"),
    "bert": ("query", "value", "dense"),
    "roberta": ("query", "value", "dense"),
    "mpnet": ("q", "v", "o", "dense"),
    "modernbert": ("Wqkv", "Wo", "Wi"),
    "bart": ("q_proj", "v_proj", "out_proj", "fc1", "fc2"),
    "t5": ("q", "v", "o", "wi", "wi_0", "wi_1", "wo"),
}
"""Linear layers of each architecture that get LoRA weights; Llama's are LLM2Comp's choice."""

_NORM = re.compile(r"norm|\bln_f\b")
"""In the names of norms; ``ln_f`` is the last one of GPT-2."""

_LIKE = {"mistral": "llama", "qwen2": "llama", "qwen3": "llama"}


@dataclass(frozen=True)
class Lora:
    """Plain low-rank adaptation.

    Attributes:
        rank: Of the change of each weight.
        alpha: The change is scaled by alpha / rank.
        dropout: Of the inputs in training; 0 by default, since a budget is less than an epoch and
            drawing the masks takes a quarter of the time on a CPU.
        last_layers: How many layers, counted from the last, get LoRA weights; 0 for all.

    Source:
        Rank, alpha and targets: LLM2Comp's released configuration (not on k); its dropout is 0.05.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    last_layers: int = 0

    def attach(self, network: Network, *, seed: int) -> Network:
        """Return the network with new float32 LoRA weights, which alone are trained.

        The given network stays as it is.

        Raises:
            UsageError: The architecture is not supported, or has fewer layers.
        """
        out = share_weights(network)
        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=lora_targets(out.model, self.last_layers),
        )
        with fork_seed(seed, network.device):
            inject_adapter_in_model(config, out.model)
        for name, weight in out.model.named_parameters():
            weight.requires_grad_("lora_" in name)
            if "lora_" in name:
                weight.data = weight.data.float()
        for module in out.model.modules():
            if isinstance(module, LoraLayer):  # autocast gives the dtype without a float32 copy
                module.cast_input_dtype_enabled = False
        return set_training(out)

    def save(self, network: Network, folder: Path, base: str) -> None:
        """Write the LoRA weights, in bfloat16, and their configuration.

        Args:
            network: What ``attach`` gave.
            folder: Where to.
            base: Source of the backbone, for ``base_model_name_or_path``; a folder's absolute path
                is written.
        """
        state = {}
        for name, tensor in get_peft_model_state_dict(network.model).items():
            weight = tensor.detach().to("cpu", torch.bfloat16).contiguous()
            state[f"base_model.model.{name}"] = weight
        config = {
            "peft_type": "LORA",
            "base_model_name_or_path": absolute_source(base),
            "r": self.rank,
            "lora_alpha": self.alpha,
            "lora_dropout": self.dropout,
            "target_modules": lora_targets(network.model, self.last_layers),
            "bias": "none",
            "inference_mode": True,
        }
        write_atomic(folder / WEIGHTS, save(state, metadata={"format": "pt"}))
        write_atomic(folder / CONFIG, json.dumps(config, indent=1) + "\n")


def make_trainable(network: Network, *, lora: bool, seed: int) -> Network:
    """Return the network with new LoRA weights, or a copy of which all weights are trained."""
    return Lora().attach(network, seed=seed) if lora else unfreeze(network)


def save_trained(network: Network, folder: Path, base: str, *, lora: bool) -> None:
    """Write what was trained of a network of ``make_trainable``; arguments as for ``Lora.save``."""
    if lora:
        Lora().save(network, folder, base)
    else:
        save_whole(network, folder)


def absolute_source(source: str) -> str:
    """Return a backbone's source as it is found from any directory: of a folder, its full path."""
    path = Path(source).expanduser()
    return str(path.absolute()) if source != PACKAGED and path.is_dir() else source


def trainable_weights(network: Network) -> dict[str, nn.Parameter]:
    """Return what is trained of a network, by name."""
    named = network.model.named_parameters()
    return {name: weight for name, weight in named if weight.requires_grad}


def lora_targets(model: nn.Module, last_layers: int = 0) -> str:
    """Return the pattern of the linear layers that get LoRA weights; none is part of a head.

    Args:
        model: The model.
        last_layers: How many layers, counted from the last; 0 for all.

    Raises:
        UsageError: The architecture is not supported, or has fewer layers.
    """
    kind = str(model.config.model_type)  # type: ignore[union-attr]  # every model has a config
    names = _TARGETS.get(_LIKE.get(kind, kind))
    if names is None:
        known = ", ".join(sorted({*_TARGETS, *_LIKE}))
        raise UsageError(
            f"expected a backbone of one of {known} for LoRA weights, got {kind!r}: "
            "name another, or train all weights with lora=false where the recipe has it"
        )
    return rf"{_layer_pattern(model, last_layers)}\.(.*\.)?({'|'.join(names)})"


def freeze_all_but(network: Network, last_layers: int) -> None:
    """Freeze all weights of a network but those of its last layers and of the norm after them.

    Raises:
        UsageError: It has fewer layers, or no list of them.
    """
    trained = re.compile(rf"{_layer_pattern(network.model, last_layers)}\.")
    below = re.compile(rf"(.*\.)?{re.escape(name_of_layers(network.model))}\.|.*embed")
    for name, weight in network.model.named_parameters():
        after = bool(_NORM.search(name.lower())) and not below.match(name)
        weight.requires_grad_(bool(trained.match(name)) or after)


def name_of_layers(model: nn.Module) -> str:
    """Return the name, in the model without its head, of the list of its layers.

    Raises:
        UsageError: It has no such list: layers may share their weights, as in ALBERT.
    """
    count = int(model.config.num_hidden_layers)  # type: ignore[union-attr, arg-type]
    for name, module in model.base_model.named_modules():  # type: ignore[union-attr]
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return str(name)
    raise UsageError(
        f"expected a backbone with a list of its {count} layers, got {type(model).__name__}: "
        "set last_layers=0, or name another backbone"
    )


def _layer_pattern(model: nn.Module, last_layers: int) -> str:
    """Return the pattern of the names of the last layers; of all with 0."""
    if not last_layers:
        return r"(.*\.)?layers?\.\d+"
    count = int(model.config.num_hidden_layers)  # type: ignore[union-attr, arg-type]
    if last_layers > count:
        raise UsageError(
            f"expected at most the {count} layers of the backbone, got last_layers={last_layers}"
        )
    numbers = map(str, range(count - last_layers, count))
    return rf"(.*\.)?{re.escape(name_of_layers(model))}\.({'|'.join(numbers)})"
