"""FLOPs of trainings, estimated from tokens and weights.

A token takes 2 FLOPs for each weight that it is multiplied with in a forward pass, 2 more where
gradients pass back through it, and 2 more where it is trained. Embedding tables are looked up, not
multiplied with. Attention scores and output logits are not counted, nor is padding; for an
encoder-decoder the number is an upper bound, since a token passes one of its halves.
"""

import re

from torch import nn

from adapters._network import Network
from adapters._training.budget import TokenCounts

from adapters._training.weights import name_of_layers
from bench.errors import UsageError
_LAYER = re.compile(r"layers?\.(\d+)\.")


def forward_flops(network: Network) -> int:
    """Return the FLOPs of a token in a forward pass."""
    return 2 * sum(count for _, _, count in _matrices(network))


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
    for name, module in network.model.base_model.named_modules():
        if isinstance(module, nn.Embedding):
            continue
        for own, weight in module.named_parameters(recurse=False):
            if weight.ndim > 1:
                found.append((f"{name}.{own}", weight.requires_grad, weight.numel()))
    return found


def _share_passed_back(network: Network) -> float:
    """Return the share of the layers that gradients pass back through: down to a trained one."""
    lowest = network.layers
    for name, weight in network.model.base_model.named_parameters():
        if weight.requires_grad and weight.ndim > 1:
            layer = numbered.match(name)
            lowest = min(lowest, int(layer[1]) if layer else 0)
    return 1 - lowest / network.layers
    try:
        numbered = re.compile(rf"{re.escape(name_of_layers(network.model))}\.(\d+)\.")
    except UsageError:  # no part of its layers can be trained
        numbered = re.compile("(?!)")
