"""The budget: tokens through the trained network, without padding, the same for every method."""

import operator
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np

from bench.errors import UsageError

_WINDOW = 16
"""Batches whose examples are sorted by length together: little padding, and still random."""


@dataclass(frozen=True)
class TokenCounts:
    """Tokens that a training took.

    Attributes:
        trained: Through the network that is trained.
        inference: Through networks that are not: teachers, generators, frozen decoders.
        repeated: Through the trained network a second time, to save memory; not in the budget.
        differentiated: Those of ``inference`` whose gradients pass back through the network.
    """

    trained: int = 0
    inference: int = 0
    repeated: int = 0
    differentiated: int = 0

    def __add__(self, other: "TokenCounts") -> "TokenCounts":
        return TokenCounts(*map(operator.add, astuple(self), astuple(other)))


def batches(
    lengths: Sequence[int], *, budget: int, size: int, seed: int, stage: str = ""
) -> list[list[int]]:
    """Return batches of example numbers that spend the budget, in as many epochs as it takes.

    Examples of similar length share a batch, so that little padding is computed, and no batch has
    an example twice. Epochs and the order of the batches are shuffled.

    Args:
        lengths: Tokens of each example.
        budget: Most tokens in all batches together; less than one example of it is left over.
        size: Examples per batch; the last of an epoch may hold fewer.
        seed: Of the shuffling.
        stage: Stage of a training that has this share of its budget, for the errors.

    Raises:
        UsageError: There is no example, or the budget is less than the first one drawn.
    """
    whose = f" for {stage}" if stage else ""
    if not lengths or size < 1:
        raise UsageError(
            f"expected examples and a batch size of at least 1{whose}, "
            f"got {len(lengths)} examples and size {size}"
        )
    rng = np.random.default_rng(seed)
    made: list[list[int]] = []
    left = budget
    while left >= 0:
        order = rng.permutation(len(lengths))
        spent = np.cumsum([lengths[i] for i in order])
        epoch = order[spent <= left].tolist()
        left -= int(spent[min(len(epoch), len(order) - 1)])
        for start in range(0, len(epoch), _WINDOW * size):
            window = sorted(epoch[start : start + _WINDOW * size], key=lambda i: lengths[i])
            made += [window[k : k + size] for k in range(0, len(window), size)]
    if not made:
        raise UsageError(
            f"expected tokens for an example of up to {max(lengths)}{whose}, got {budget}: "
            "raise the budget, or this stage's share of it"
        )
    return [made[i] for i in rng.permutation(len(made))]


def micro_batches(lengths: Sequence[int], tokens: int, *, processes: int = 1) -> list[list[int]]:
    """Split a batch into micro-batches that fit into memory, longest examples first.

    Args:
        lengths: Tokens of each example of the batch.
        tokens: Most tokens of a micro-batch, padding included; a longer example is alone in one.
        processes: At least so many micro-batches, where there are as many examples.
    """
    most = max(len(lengths) // processes, 1)
    made: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        fits = made and lengths[made[-1][0]] * (len(made[-1]) + 1) <= tokens
        if fits and len(made[-1]) < most:
            made[-1].append(i)
        else:
            made.append([i])
    return made
