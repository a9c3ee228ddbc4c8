"""From a decoder's last token states to its logits, with what its own class does behind the head."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from adapters._backbone import Network
from bench.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

_TOLERANCE = 0.02
"""Largest difference from the class's own logits, relative to them: rounding of bfloat16 is a fifth of it."""

_HEADS: "WeakKeyDictionary[Network, Callable[[Tensor], Tensor]]" = WeakKeyDictionary()
"""Of networks that are still in use: a tuned generator must not stay in memory for its head."""


def head_of(network: Network) -> "Callable[[Tensor], Tensor]":
    """Return what gives logits, float32 (n, v), of last token states (n, dim).

    Args:
        network: A decoder with its language-model head.

    Raises:
        UsageError: It is no decoder, or its class does something behind the head that is not known here.

    Source:
        transformers: ``final_logit_softcapping`` of Gemma 2, ``logits_scaling`` of Granite, ``logit_scale`` of Cohere.
    """
    if network not in _HEADS:
        _HEADS[network] = _checked(network)
    return _HEADS[network]


def _checked(network: Network) -> "Callable[[Tensor], Tensor]":
    import torch

    kind = type(network.model).__name__
    if not network.decoder or network.seq2seq:
        raise UsageError(
            f"expected a decoder with a causal language model to predict texts with, got {kind}: name another model"
        )
    head = network.model.get_output_embeddings()  # type: ignore[no-untyped-call]
    config = network.model.config.get_text_config().to_dict()
    factor = (config.get("logit_scale") or 1) / (config.get("logits_scaling") or 1)
    cap = config.get("final_logit_softcapping")

    def logits(states: "Tensor") -> "Tensor":
        scores: Tensor = head(states.to(head.weight.dtype)).float()
        if factor != 1:
            scores = scores * factor
        return torch.tanh(scores / cap) * cap if cap else scores

    with torch.inference_mode(), _evaluating(network.model):
        ids = torch.tensor([[1, 2]], device=network.device)
        own = network.model(ids, use_cache=False).logits[:, -1].float()
        gap = logits(network.model.base_model(ids, use_cache=False).last_hidden_state[:, -1]) - own
    if not bool(gap.norm() <= _TOLERANCE * own.norm()):
        raise UsageError(
            f"expected logits of the head, scaled or capped, from {kind}, got others from its own class: name another model"
        )
    return logits


@contextmanager
def _evaluating(model: "nn.Module") -> "Iterator[None]":
    """Leave dropout out for a while."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
