"""Self-debiasing: tokens that are likelier under the instructions of other labels are pushed down.

With p the distribution under a label's own instruction and p_j those under its counter-labels', all after the same text:
gap = max(0, max_j p_j - p), factor = max(exp(-decay * gap), floor), and the new distribution is proportional to p * factor.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """How a next token is drawn: debiased, then the ``top_k`` likeliest, then of these the fewest that hold ``top_p``.

    Attributes:
        decay: Of the factor with the gap; 0 leaves every distribution as it is.
        floor: Least factor.
        top_k: So many of the likeliest tokens; 0 for all.
        top_p: Least probability that the tokens to draw from hold together, of those that ``top_k`` left.

    Source:
        Defaults, and debiasing before both limits: timoschick/dino at 0e4a052.
    """

    decay: float = 100.0
    floor: float = 0.01
    top_k: int = 5
    top_p: float = 0.9


def debiased(own: "Tensor", others: "Sequence[Tensor]", decay: float, floor: float) -> "Tensor":
    """Return log-probabilities after self-debiasing, up to a constant of each row; the given ones where there are no others.

    Args:
        own: Log-probabilities under the label's own instruction (b, v).
        others: Those under each counter-label's instruction, (b, v) each.
        decay: See ``Sampling``.
        floor: See ``Sampling``.

    Source:
        timoschick/dino at 0e4a052; the paper's form is the same but for the floor.
    """
    import torch

    if not others or not decay:
        return own
    highest = others[0] if len(others) == 1 else torch.stack(list(others)).amax(0)
    gap = (highest.exp() - own.exp()).clamp_(min=0)
    return own + gap.mul_(-decay).clamp_(min=math.log(floor) if floor else -math.inf)
