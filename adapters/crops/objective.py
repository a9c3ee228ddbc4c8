"""What Crops minimises: InfoNCE of two crops' cosine, see ``adapters/_training/contrast.py``.

With a and p the means of the last-layer token states of two views of a text, and the views of the
other texts of the batch as candidates, in one direction: p is found from a.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from adapters._batching import pad_batch
from adapters._network import Network
from adapters._trainable import autocast
from adapters._training.contrast import Contrast
from adapters.crops.encoder import pool
from bench.errors import UsageError


def make_objective(
    network: Network,
    rows: Sequence[tuple[list[int], ...]],
    *,
    temperature: float,
    positions: int,
) -> Contrast:
    """Return the objective.

    Args:
        network: What is trained.
        rows: Token ids of the two views of each text.
        temperature: Divides the cosine.
        positions: Tokens computed at once.
    """

    def embed(texts: Sequence[list[int]]) -> Tensor:
        return pool(network, *pad_batch(texts, network))

    return Contrast(network, embed, rows, temperature, positions)


def check_dropout(network: Network, ids: list[int]) -> None:
    """Check that two passes of one text differ, without which dropout views have nothing to teach.

    Raises:
        UsageError: They are equal: some architectures have no dropout of hidden states.
    """
    with torch.random.fork_rng(), torch.no_grad(), autocast(network):
        a, p = pool(network, *pad_batch([ids, ids], network))
    if torch.equal(a, p):
        raise UsageError(
            "expected dropout to make two passes of a text differ, they are equal: "
            "raise dropout, name another backbone, or train with views=crops"
        )
