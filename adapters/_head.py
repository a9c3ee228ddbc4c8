"""From a decoder's last token states to its logits, with what its own class does after the head."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from adapters._network import Network
from bench.errors import UsageError


class LogitsOf(Protocol):
    """Computes logits, float32 (n, v), from last token states (n, dim)."""

    def __call__(self, states: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Return the logits of the vocabulary, in the head's dtype, or of some tokens in float32.

        Args:
            states: Last token states (n, dim).
            tokens: Ids (v,). Logits in half precision are rounded so that two tokens often tie.
        """
        ...


_TOLERANCE = 0.02
"""Largest relative difference from the class's own logits; bfloat16 rounds by a fifth of it."""

_PADDING = 32
"""Positions of padding after which a token is added, to see whether they change its state."""

_UNCACHED = 0.15
"""Largest relative difference of that state from the one without padding; bfloat16 rounds by a
quarter of it."""

_HEADS: WeakKeyDictionary[Network, LogitsOf] = WeakKeyDictionary()
"""Of networks that are still in use: a tuned generator must not stay in memory for its head."""


def head_of(network: Network) -> LogitsOf:
    """Return what computes logits from last token states.

    Args:
        network: A decoder with its language-model head.

    Raises:
        UsageError: It is no decoder; its class does something after the head that is not supported;
            or it cannot continue padded texts from a cache.

    Source:
        transformers: ``final_logit_softcapping`` of Gemma 2, ``logits_scaling`` of Granite,
        ``logit_scale`` of Cohere.
    """
    if network not in _HEADS:
        _HEADS[network] = _make_head(network)
    return _HEADS[network]


def _make_head(network: Network) -> LogitsOf:
    kind = type(network.model).__name__
    if not network.decoder or network.seq2seq:
        raise UsageError(
            f"expected a decoder with a causal language model to predict texts with, got {kind}: "
            "name another model"
        )
    head = network.model.get_output_embeddings()  # type: ignore[no-untyped-call]
    config = network.model.config.get_text_config().to_dict()
    factor = (config.get("logit_scale") or 1) / (config.get("logits_scaling") or 1)
    cap = config.get("final_logit_softcapping")

    def logits_of(states: Tensor, tokens: Tensor | None = None) -> Tensor:
        if tokens is None:
            logits: Tensor = head(states.to(head.weight.dtype)).float()
        else:
            bias = getattr(head, "bias", None)
            own = None if bias is None else bias[tokens].float()
            logits = linear(states.float(), head.weight[tokens].float(), own)
        if factor != 1:
            logits = logits * factor
        return torch.tanh(logits / cap) * cap if cap else logits

    with torch.inference_mode(), _evaluating(network.model):
        ids = torch.tensor([[1, 2]], device=network.device)
        own = network.model(ids, use_cache=False).logits[:, -1].float()
        states = network.model.base_model(ids, use_cache=False).last_hidden_state[:, -1]
        gap = logits_of(states) - own
    if not bool(gap.norm() <= _TOLERANCE * own.norm()):
        raise UsageError(
            f"expected logits of the head, scaled or capped, from {kind}, "
            "got others from its own class: name another model"
        )
    if network.causal and not _continues_padded(network):
        raise UsageError(
            f"expected a decoder that continues padded texts from its cache, got {kind}: "
            "name another model"
        )
    return logits_of


def _continues_padded(network: Network) -> bool:
    """Say whether a token added after padding has the state that it has without padding."""
    ids = torch.tensor([[3, 4, 3]], device=network.device)
    padded = pad(ids[:, :2], (0, _PADDING), value=network.pad_id)
    mask = torch.ones_like(padded[:, :1]).repeat(1, _PADDING + 3)
    mask[:, 2:-1] = 0
    trunk = network.model.base_model
    try:
        with torch.inference_mode(), _evaluating(network.model):
            alone = trunk(ids, use_cache=False).last_hidden_state[:, -1].float()
            begun = trunk(padded, attention_mask=mask[:, :-1], use_cache=True)
            out = trunk(
                ids[:, 2:],
                attention_mask=mask,
                position_ids=torch.full_like(ids[:, :1], 2),
                past_key_values=begun.past_key_values,
                use_cache=True,
            )
            added = out.last_hidden_state[:, -1].float()
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):
        return False
    return bool((added - alone).norm() <= _UNCACHED * alone.norm())


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Turn off dropout inside."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
