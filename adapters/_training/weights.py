"""What is trained of a network, all of its weights or low-rank changes of them, and how it is saved."""

import copy
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from adapters._backbone import PACKAGED, Network, quiet
from adapters._checkpoint import CONFIG, WEIGHTS
from adapters._lora import sharing
from bench.errors import UsageError
from bench.files import write_atomic

if TYPE_CHECKING:
    from torch import nn

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
"""Linear layers of each architecture that get low-rank weights; for Llama, LLM2Comp's choice, taken for every method."""

_LIKE = {"mistral": "llama", "qwen2": "llama", "qwen3": "llama"}


@dataclass(frozen=True)
class Lora:
    """Plain low-rank adaptation.

    Attributes:
        rank: Of the change of each weight.
        alpha: The change is scaled by alpha / rank.
        dropout: Share of the inputs that is dropped in training; none by default, since a budget is less than an epoch and
            drawing the masks takes a quarter of the time on a CPU.

    Source:
        Rank, alpha and which weights: LLM2Comp's released configuration (not on k); its dropout is 0.05.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0

    def attached(self, network: Network, *, seed: int) -> Network:
        """Return the network with new low-rank weights in float32 that alone are trained; the given one stays as it is.

        Raises:
            UsageError: The architecture is not known.
        """
        import torch
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners.lora import LoraLayer

        out = sharing(network)
        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=targets(out.model),
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            inject_adapter_in_model(config, out.model)
        for name, weight in out.model.named_parameters():
            weight.requires_grad_("lora_" in name)
            if "lora_" in name:
                weight.data = weight.data.float()
        for module in out.model.modules():
            if isinstance(module, LoraLayer):
                module.cast_input_dtype_enabled = False  # autocast gives inputs their number type, without a copy in float32 for each
        return _training(out)

    def save(self, network: Network, folder: Path, base: str) -> None:
        """Write the low-rank weights, in bfloat16, and their configuration.

        Args:
            network: What ``attached`` gave.
            folder: Where to.
            base: Source of the backbone, for ``base_model_name_or_path``; of a folder its absolute path is written.
        """
        import torch
        from peft import get_peft_model_state_dict
        from safetensors.torch import save

        state = get_peft_model_state_dict(network.model)
        prefixed = {
            f"base_model.model.{name}": tensor.detach().to("cpu", torch.bfloat16).contiguous()
            for name, tensor in state.items()
        }
        config = {
            "peft_type": "LORA", "base_model_name_or_path": anywhere(base), "r": self.rank, "lora_alpha": self.alpha,
            "lora_dropout": self.dropout, "target_modules": targets(network.model), "bias": "none", "inference_mode": True,
        }  # fmt: skip
        write_atomic(folder / WEIGHTS, save(prefixed, metadata={"format": "pt"}))
        write_atomic(folder / CONFIG, json.dumps(config, indent=1) + "\n")


def attached(network: Network, *, lora: bool, seed: int) -> Network:
    """Return the network with new low-rank weights that alone are trained, or a copy of which all weights are; it stays as it is."""
    return Lora().attached(network, seed=seed) if lora else unfrozen(network)


def save_trained(network: Network, folder: Path, base: str, *, lora: bool) -> None:
    """Write what was trained of a network that ``attached`` gave; arguments as for ``Lora.save``."""
    if lora:
        Lora().save(network, folder, base)
    else:
        save_whole(network, folder)


def anywhere(source: str) -> str:
    """Return a backbone's source as it can be found from any directory: a folder's absolute path, any other source as it is."""
    path = Path(source).expanduser()
    return str(path.absolute()) if source != PACKAGED and path.is_dir() else source


def unfrozen(network: Network) -> Network:
    """Return a copy of the network in float32 whose weights are all trained, input embeddings included.

    That of a float16 network also computes in float32, since gradients in float16 need scaling.
    """
    dtype = "float32" if network.dtype == "float16" else network.dtype
    out = replace(network, model=copy.deepcopy(network.model).float(), dtype=dtype)  # type: ignore[no-untyped-call]
    out.model.requires_grad_()
    return _training(out)


def _training(network: Network) -> Network:
    """Set a network to train."""
    network.model.train()
    return _quick_backward(network)


def differentiable(network: Network) -> Network:
    """Return a frozen network with the same weights for gradients to pass through; the given one stays as it is."""
    return _quick_backward(sharing(network))


def _quick_backward(network: Network) -> Network:
    """On a CPU leave out fused attention, whose backward pass is slow there."""
    if network.device == "cpu":
        network.model.set_attn_implementation("eager")
    return network


def set_dropout(model: "nn.Module", *, hidden: float, attention: float) -> None:
    """Set what is dropped in training: a share of the hidden states and one of the attention weights; layers are never dropped."""
    from torch import nn

    for name, module in model.named_modules():
        own = vars(module)
        share = attention if "attention.self" in name or "attn" in name else hidden
        if isinstance(module, nn.Dropout):
            module.p = share
        for word, value in {
            "attention_dropout": attention,
            "dropout": share,
            "layerdrop": 0.0,
        }.items():
            if isinstance(own.get(word), int | float):  # decoders drop by numbers, without a module
                setattr(module, word, value)


def trained(network: Network) -> "dict[str, nn.Parameter]":
    """Return what is trained of a network, by name."""
    return {
        name: weight for name, weight in network.model.named_parameters() if weight.requires_grad
    }


def save_whole(network: Network, folder: Path) -> None:
    """Write a whole model, in the number type the computation had, with its tokenizer: an ordinary folder of transformers.

    Raises:
        OSError: The folder cannot be written.
    """
    import torch

    with quiet():
        network.model.to(getattr(torch, network.dtype)).save_pretrained(folder)
    network.tokenizer.save_pretrained(folder)


def targets(model: "nn.Module") -> str:
    """Return the pattern of the linear layers that get low-rank weights: those of the layers, none of a head.

    Raises:
        UsageError: The architecture is not known.
    """
    kind = str(model.config.model_type)  # type: ignore[union-attr]  # every model of transformers has a config
    names = _TARGETS.get(_LIKE.get(kind, kind))
    if names is None:
        raise UsageError(
            f"expected a backbone of one of {', '.join(sorted({*_TARGETS, *_LIKE}))} to train, got {kind!r}"
        )
    return rf"(.*\.)?layers?\.\d+\.(.*\.)?({'|'.join(names)})"
