"""The budget: token positions through the network that is trained, padding not counted, the same for every method."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.errors import UsageError

_WINDOW = 16
"""Batches whose examples are sorted by length together: enough to leave little padding, few enough to stay random."""


@dataclass(frozen=True)
class Spent:
    """Token positions that training took.

    Attributes:
        trained: Through the network that is trained.
        inference: Through networks that are not: teachers, generators, frozen decoders.
    """

    trained: int = 0
    inference: int = 0

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(self.trained + other.trained, self.inference + other.inference)


def batches(
    lengths: Sequence[int], *, budget: int, size: int, seed: int, stage: str = ""
) -> list[list[int]]:
    """Return batches of example numbers that spend the budget, over as many shuffled epochs as it takes.

    Examples of similar length share a batch, so that little padding is computed, and no batch holds an example twice; the order of
    the batches is random.

    Args:
        lengths: Token positions of each example.
        budget: Most token positions in all batches together; less than one example of it is left over.
        size: Examples per batch; the last of an epoch may hold fewer.
        seed: Of the shuffling.
        stage: Which part of a training has this share of its budget, for the errors.

    Raises:
        UsageError: There is no example, or the budget is less than the first one drawn.
    """
    rng, whose = np.random.default_rng(seed), f" for {stage}" if stage else ""
    if not lengths or size < 1:
        raise UsageError(
            f"expected examples and a batch size of at least 1{whose}, got {len(lengths)} examples and size {size}"
        )
    made: list[list[int]] = []
    left = budget
    while left >= 0:
        epoch: list[int] = []
        for i in rng.permutation(len(lengths)):
            left -= lengths[i]
            if left < 0:
                break
            epoch.append(int(i))
        for start in range(0, len(epoch), _WINDOW * size):
            window = sorted(epoch[start : start + _WINDOW * size], key=lambda i: lengths[i])
            made += [window[k : k + size] for k in range(0, len(window), size)]
    if not made:
        raise UsageError(
            f"expected token positions for an example of up to {max(lengths)}{whose}, got {budget}: raise the budget"
            + (" or this stage's share" if stage else "")
        )
    return [made[i] for i in rng.permutation(len(made))]


def portions(lengths: Sequence[int], positions: int, *, processes: int = 1) -> list[list[int]]:
    """Cut a batch into portions that fit into memory: longest first, each at most ``positions`` positions with its padding.

    Args:
        lengths: Token positions of each example of the batch.
        positions: Positions computed at once; a single longer example is a portion of its own.
        processes: How many take turns with the portions: there are as many at least, where there are as many examples.
    """
    order, most = (
        sorted(range(len(lengths)), key=lambda i: -lengths[i]),
        max(len(lengths) // processes, 1),
    )
    made: list[list[int]] = []
    for i in order:
        if (
            made
            and len(made[-1]) < most
            and lengths[made[-1][0]] * (len(made[-1]) + 1) <= positions
        ):
            made[-1].append(i)
        else:
            made.append([i])
    return made
