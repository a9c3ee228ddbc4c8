"""Masked language models: the answer is what stands behind masks at the end of the prompt."""

from typing import TYPE_CHECKING, Any

from adapters import _pooling
from adapters._backbone import Network
from adapters._text import Framed
from bench.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor


def answer_masks(network: Network, masks: int) -> str:
    """Return the mask tokens that stand for the answer in the prompt of a masked language model.

    Raises:
        CheckpointError: The tokenizer knows no mask.
    """
    token = network.tokenizer.mask_token
    if token is None:
        raise CheckpointError(
            f"expected a tokenizer with a mask token, got {type(network.tokenizer).__name__} without: name a masked language model"
        )
    return str(token) * masks


def mask_positions(ids: "Tensor", network: Network, masks: int) -> "Tensor":
    """Return (b, t) with 1 at the last ``masks`` mask tokens of each row: a mask that a text holds is not one of them."""
    found: Tensor = ids == network.tokenizer.mask_token_id
    from_the_end = found.flip(1).cumsum(1).flip(1)
    return (found & (from_the_end <= masks)).long()


def pair(text: str, question: str, slot: str, network: Network) -> Framed:
    """Return text and question as the two sequences of a pair, in RoBERTa's layout and without any template."""
    return Framed(text, "", f"{network.tokenizer.sep_token}" * 2 + question + slot)


def pair_readout(
    network: Network, ids: "Tensor", mask: "Tensor", layer: int, masks: int
) -> "Tensor":
    """Return the standardised mean of what the head makes of the masks' states, float32 (b, dim).

    Each vector is freed of its own mean and divided by its own sample standard deviation.

    Source:
        Card of KomeijiForce/inbedder-roberta-large; the published numbers come from the template.
    """
    states = transformed(network, network.hidden_states(ids, mask, layer))
    vectors = _pooling.mean(states, mask_positions(ids, network, masks))
    return (vectors - vectors.mean(1, keepdim=True)) / vectors.std(1, keepdim=True)


def filled(network: Network, ids: "Tensor", mask: "Tensor", masks: int) -> "Tensor":
    """Return the likeliest token for each of the last masks of a prompt, (b, masks)."""
    states = network.hidden_states(ids, mask)[mask_positions(ids, network, masks).bool()]
    tokens: Tensor = _head(network).decoder(transformed(network, states)).argmax(-1)
    return tokens.reshape(len(ids), masks)


def transformed(network: Network, states: "Tensor") -> "Tensor":
    """Return states (..., dim) after the head's dense layer, GELU and layer norm, before its words.

    Raises:
        CheckpointError: The head is not in RoBERTa's layout.
    """
    from torch.nn.functional import gelu

    head = _head(network)
    return head.layer_norm(gelu(head.dense(states)))  # type: ignore[no-any-return]


def _head(network: Network) -> Any:  # noqa: ANN401 - a module of transformers
    head = getattr(network.model, "lm_head", None)
    if any(getattr(head, part, None) is None for part in ("dense", "layer_norm", "decoder")):
        raise CheckpointError(
            f"expected a masked language model with RoBERTa's head, got {type(network.model).__name__}: use the read-out avg-gen"
        )
    return head
