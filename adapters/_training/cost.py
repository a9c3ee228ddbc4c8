"""FLOPs of trainings, estimated from tokens and weights.

A token takes 2 FLOPs for each weight that it is multiplied with in a forward pass, 2 more where
gradients pass back through it, and 2 more where it is trained. Embedding tables are looked up, not
multiplied with; of a mixture's experts a token is multiplied with those it is sent to, and with
weights that layers share once in each. Attention scores and output logits are not counted, nor is
padding; for an encoder-decoder the number is an upper bound, since a token passes one of its
halves.
"""

import math
import re

from torch import nn

from adapters._network import Network
from adapters._source import share_of_experts, uses_of_layers
from adapters._training.budget import TokenCounts
from adapters._training.weights import name_of_layers
from bench.encoder import Card, multiplied_weights
from bench.errors import UsageError


def forward_flops(network: Network) -> int:
    """Return the FLOPs of a token in a forward pass."""
    return 2 * sum(count for _, _, count in _matrices(network))


def forward_flops_of(card: Card) -> int | None:
    """Return the FLOPs of a token in a forward pass of an encoder; None where not known."""
    found = multiplied_weights(vars(card))
    return None if found is None else 2 * found


def count_flops(network: Network, spent: TokenCounts) -> int:
    """Return the FLOPs of the tokens of a training.

    Args:
        network: What was trained; frozen networks are taken to be of its size.
        spent: The tokens.
    """
    forward = forward_flops(network)
    trained = 2 * sum(count for _, is_trained, count in _matrices(network) if is_trained)
    backward = round(forward * _share_passed_back(network))
    total = spent.trained * (forward + backward + trained)
    return total + (spent.repeated + spent.inference + spent.differentiated) * forward


def _matrices(network: Network) -> list[tuple[str, bool, int]]:
    """Return name, whether it is trained, and size of each weight that tokens are multiplied with.

    The language-model head is not among them.
    """
    found = []
    config = network.model.config.get_text_config()

    def setting(name: str) -> object:
        return getattr(config, name, None)

    shares = {
        "experts": share_of_experts(setting),
        "albert_layer_groups": uses_of_layers(setting),
    }
    head = network.model.get_output_embeddings()  # type: ignore[no-untyped-call]
    for name, module in network.model.base_model.named_modules():
        if isinstance(module, nn.Embedding) or module is head:  # T5's is not beside its halves
            continue
        share = math.prod(shares.get(part, 1.0) for part in name.split("."))
        for own, weight in module.named_parameters(recurse=False):
            if weight.ndim > 1:
                size = round(share * weight.numel())
                found.append((f"{name}.{own}", weight.requires_grad, size))
    return found


def _share_passed_back(network: Network) -> float:
    """Return the share of the layers that gradients pass back through: down to a trained one."""
    lowest = network.layers
    try:
        numbered = re.compile(rf"{re.escape(name_of_layers(network.model))}\.(\d+)\.")
    except UsageError:  # no part of its layers can be trained
        numbered = re.compile("(?!)")
    for name, weight in network.model.base_model.named_parameters():
        if weight.requires_grad and weight.ndim > 1:
            layer = numbered.match(name)
            lowest = min(lowest, int(layer[1]) if layer else 0)
    return 1 - lowest / network.layers
