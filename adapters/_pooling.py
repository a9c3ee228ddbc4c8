"""From the states of a text's tokens to one vector.

Batches are padded on the right; sums are made in float32. In all functions ``states`` are token
states (b, t, d), and ``mask`` (b, t) is 1 at the tokens that count, 0 at padding and others.
"""

import torch
from torch import Tensor


def mean(states: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over the tokens that count, float32 (b, d)."""
    return _weighted(states, mask.float())


def without_first(ids: Tensor, mask: Tensor, bos: int | None) -> Tensor:
    """Return the mask without a beginning-of-text token at position 0, unless it is all there is.

    Args:
        ids: Token ids (b, t).
        mask: 1 at real positions, 0 at padding (b, t).
        bos: Id of that token; None where there is none.

    Source:
        LLM2Vec at 312adcf: the mean is taken over the text's own tokens.
    """
    out = mask.clone()
    if bos is not None:
        out[:, 0] *= (ids[:, 0] != bos) | (mask.sum(1) == 1)
    return out


def weighted_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Return the mean in which position i (from 1) weighs i, float32 (b, d).

    Source:
        SGPT (Muennighoff, 2022): later states of a causal model have seen more.
    """
    return _weighted(states, mask.float() * torch.arange(1, mask.shape[1] + 1, device=mask.device))


def last(states: Tensor, mask: Tensor) -> Tensor:
    """Return the state at the last real position, float32 (b, d)."""
    return last_k(states, mask, 1)


def first(states: Tensor, mask: Tensor) -> Tensor:  # noqa: ARG001 - called like the others
    """Return the state at the first position, float32 (b, d)."""
    return states[:, 0].float()


def last_k(states: Tensor, mask: Tensor, k: int) -> Tensor:
    """Return the mean over the last k real positions, such as memory tokens, float32 (b, d)."""
    rows = torch.arange(len(states), device=states.device)[:, None]
    ends = mask.sum(1, keepdim=True) - torch.arange(1, k + 1, device=mask.device)
    return states[rows, ends].float().mean(1)


def _weighted(states: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean as a product of matrices: no masked copy of the states is made."""
    with torch.autocast(states.device.type, enabled=False):  # it would round the sum in training
        return (weights[:, None] @ states.float())[:, 0] / weights.sum(1, keepdim=True)
