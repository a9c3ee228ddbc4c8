"""Networks that gradients pass through: copies to train, and the context in which they compute."""

import copy
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from adapters._network import Network

_ATTENTION = re.compile(
    r"^(?!.*(resid_|out_drop)).*(attention\.self|attn|SelfAttention|EncDecAttention)"
    r"|(^|\.)attention_dropout$"
    r"|transformer\.layer\.\d+\.attention\.dropout$"  # DistilBERT
)
"""In the names of modules that drop attention weights; those of what attention gives are others."""


def share_weights(network: Network) -> Network:
    """Return a network with modules of its own and the same weights."""
    tensors = (*network.model.parameters(), *network.model.buffers())
    shared: dict[int, Any] = {id(tensor): tensor for tensor in tensors}
    return replace(network, model=copy.deepcopy(network.model, shared))


def replace_table(network: Network, table: Tensor) -> Network:
    """Return a network with another table of input embeddings (rows, dim) and the same weights.

    The module stays of its class: those of Gemma also scale what they look up.
    """
    out = share_weights(network)
    old: Any = out.model.get_input_embeddings()
    rows = copy.deepcopy(old, {id(old.weight): nn.Parameter(table, requires_grad=False)})
    rows.num_embeddings = len(table)
    out.model.set_input_embeddings(rows)
    return out


def unfreeze(network: Network) -> Network:
    """Return a float32 copy of the network to train all weights of, input embeddings included.

    A float16 network then also computes in float32, since gradients in float16 need scaling.
    """
    dtype = "float32" if network.dtype == "float16" else network.dtype
    model: Any = copy.deepcopy(network.model)
    return set_training(replace(network, model=model.float().requires_grad_(), dtype=dtype))


def make_differentiable(network: Network) -> Network:
    """Return a frozen network with the same weights that gradients pass through."""
    return _use_eager_attention(share_weights(network))


def set_training(network: Network) -> Network:
    """Set a network to train, and return it."""
    network.model.train()
    return _use_eager_attention(network)


def _use_eager_attention(network: Network) -> Network:
    """Leave out fused attention on a CPU: its backward pass is slow there."""
    if network.device == "cpu":
        network.model.set_attn_implementation("eager")
    return network


def set_dropout(model: nn.Module, *, hidden: float, attention: float) -> None:
    """Set the dropout of hidden states and of attention weights; layers are never dropped."""
    for name, module in model.named_modules():
        dropout = attention if _ATTENTION.search(name) else hidden
        if isinstance(module, nn.Dropout):
            module.p = dropout
        numbers = {  # decoders drop by numbers, without a module
            "attention_dropout": attention,
            "attn_dropout_p": attention,
            "hidden_dropout": hidden,
            "dropout": dropout,
            "layerdrop": 0.0,
        }
        for attribute, value in numbers.items():
            if isinstance(vars(module).get(attribute), int | float):
                setattr(module, attribute, value)


@contextmanager
def fork_seed(seed: int, device: str) -> Iterator[None]:
    """Seed torch inside, and leave its random state outside as it was."""
    with torch.random.fork_rng([torch.device(device)] if device.startswith("cuda") else []):
        # torch.manual_seed would seed GPUs too
        (torch.default_generator if device == "cpu" else torch).manual_seed(seed)
        yield


def autocast(network: Network) -> Any:  # noqa: ANN401 - a context
    """Return the context in which float32 weights work with a network of another dtype."""
    if network.dtype == "float32":
        return nullcontext()
    return torch.autocast(network.device.partition(":")[0], dtype=getattr(torch, network.dtype))
