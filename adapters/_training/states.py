"""States of a network that reads input embeddings, and losses over many of them."""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.utils.rnn import pad_sequence

from adapters._network import Network

_LOGITS = 32
"""Tokens whose logits of the whole vocabulary are in memory at once."""


def embed_ids(network: Network, ids: Sequence[int]) -> Tensor:
    """Return the input embeddings of token ids (t, dim)."""
    tokens = torch.tensor(ids, dtype=torch.long, device=network.device)
    return network.model.get_input_embeddings()(tokens)  # type: ignore[no-any-return]


def embed_rows(network: Network, rows: Tensor) -> Tensor:
    """Return rows of a table of input embeddings (t, dim) as the network reads them.

    Its module does to them what it does to those of tokens: that of Gemma scales them.
    """
    module = copy.copy(network.model.get_input_embeddings())
    module.padding_idx = None  # type: ignore[assignment]  # a row at this place has a gradient, too
    numbers = torch.arange(len(rows), device=rows.device)
    return functional_call(module, {"weight": rows}, numbers)  # type: ignore[no-any-return]


def last_states(network: Network, inputs: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
    """Return the states after the final norm (b, t, dim), padded on the right.

    Args:
        network: The network.
        inputs: Input embeddings of each text (length, dim).
        mask: 1 at real positions (b, t); None for a causal network, where padding changes nothing.
    """
    padded = pad_sequence(list(inputs), batch_first=True)
    out = network.model.base_model(inputs_embeds=padded, attention_mask=mask, use_cache=False)
    return out.last_hidden_state  # type: ignore[no-any-return]


def sum_in_chunks(loss: Callable[[Tensor, slice], Tensor], states: Tensor) -> Tensor:
    """Return the sum of a loss over chunks of states, each freed before the next is computed.

    Args:
        loss: From some states and their rows to their share of the loss.
        states: (m, dim).
    """
    value = torch.zeros((), device=states.device)
    gradients: list[Tensor] = []
    for start in range(0, len(states), _LOGITS):
        rows = slice(start, start + _LOGITS)
        chunk = states[rows].detach().requires_grad_()
        with torch.enable_grad():
            share = loss(chunk, rows)
        gradients += torch.autograd.grad(share, chunk)
        value = value + share.detach()
    return attach_gradient(value, states, torch.cat(gradients))


def attach_gradient(value: Tensor, states: Tensor, gradient: Tensor) -> Tensor:
    """Return a number with this value and, with respect to the states, this gradient."""
    product = (states.float() * gradient.float()).sum()
    return value + product - product.detach()
