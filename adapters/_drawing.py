"""How a next token is drawn from scores."""

import torch
from torch import Tensor


def draw_tokens(scores: Tensor, uniform: Tensor, *, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Return one token (b,) a row.

    Args:
        scores: Log-probabilities, up to a constant of each row (b, v).
        uniform: Numbers in [0, 1), one a row (b,).
        top_k: Number of the likeliest tokens that are drawn from; 0 for all.
        top_p: Of these, the fewest likeliest ones that together have at least this probability.
    """
    size = scores.shape[-1]
    top = scores.topk(min(top_k or size, size), dim=-1)
    p = top.values.softmax(-1)
    p = p * (p.cumsum(-1) - p < top_p)
    heights = p.cumsum(-1)
    place = torch.searchsorted(
        heights, (uniform[:, None] * heights[:, -1:]).to(heights.dtype), right=True
    )
    # a number of nearly 1 may round up to the whole height
    place = place.clamp(max=(p > 0).sum(-1, keepdim=True) - 1)
    return top.indices.gather(-1, place)[:, 0]
