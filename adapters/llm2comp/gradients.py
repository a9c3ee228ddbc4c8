"""Losses whose gradient is computed in portions, so that what they need is never in memory all at once."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def carrying(value: "Tensor", states: "Tensor", gradient: "Tensor") -> "Tensor":
    """Return a number that has this value and, with respect to the states, this gradient."""
    through = (states.float() * gradient.float()).sum()
    return value + through - through.detach()


def in_portions(loss: "Callable[[Tensor, slice], Tensor]", states: "Tensor", size: int) -> "Tensor":
    """Return the sum of a loss over portions of states, each portion's computation released before the next begins.

    Args:
        loss: From some of the states and where they stand to their share of the loss.
        states: (m, dim).
        size: States in a portion.
    """
    import torch

    value = torch.zeros((), device=states.device)
    gradients: list[Tensor] = []
    for start in range(0, len(states), size):
        where = slice(start, start + size)
        portion = states[where].detach().requires_grad_()
        with torch.enable_grad():
            share = loss(portion, where)
        gradients += torch.autograd.grad(share, portion)
        value = value + share.detach()
    return carrying(value, states, torch.cat(gradients))
