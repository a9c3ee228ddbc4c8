"""Masked next-token prediction: a token replaced by a mask is predicted from the state before it, under the attention of the encoder.

LLM2Vec's pretext task (BehnamGhader et al. 2024), here as one of the objectives of stage 1 and for healing a backbone whose
attention was made bidirectional. Memory tokens take no part. Of LLM2Vec it has the task and the share of masked tokens; all of these
become the mask, and low-rank weights, optimiser and texts are those of the other objectives, with which it is compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from adapters._backbone import Network
from adapters._head import head_of
from adapters._training.budget import Spent
from adapters._training.loop import shared
from adapters.llm2comp.gradients import in_portions
from adapters.llm2comp.texts import Passage, shuffled
from adapters.llm2comp.trainee import Trainee

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

RATE = 0.2
"""Share of the tokens that is masked, as in LLM2Vec."""

_LOGITS = 64


class Masked(NamedTuple):
    """Some texts of a batch.

    Attributes:
        ids: Token ids of each.
        places: Positions of each that are masked.
        predicted: Masked tokens of the whole batch.
    """

    ids: list[list[int]]
    places: list[list[int]]
    predicted: int


def taken(passages: Sequence[Passage], *, positions: int, seed: int) -> list[int]:
    """Return numbers of passages in random order, as many as the positions hold, each used once before one comes back."""
    made: list[int] = []
    for i in shuffled(len(passages), seed):
        made.append(i)
        positions -= len(passages[i].ids)
        if positions < 0:
            break
    return made


def mask_id(tokenizer: "PreTrainedTokenizerBase") -> int:
    """Return the token that stands for a masked one: the tokenizer's own, or an underscore, as in LLM2Vec."""
    if tokenizer.mask_token_id is not None:
        return int(tokenizer.mask_token_id)
    return int(tokenizer("_", add_special_tokens=False)["input_ids"][-1])


@dataclass(frozen=True, eq=False)
class Masking:
    """Cross-entropy of masked tokens, each predicted from the state before it, the mean over those of the batch.

    Attributes:
        trainee: What is trained.
        frozen: The backbone with its head.
        rows: Token ids of the texts, special tokens included; the first of a text is never masked.
        positions: Token positions computed at once.
        seed: Of what is masked.
    """

    trainee: Trainee
    frozen: Network
    rows: Sequence[list[int]]
    positions: int
    seed: int

    def parts(self, batch: Sequence[int]) -> list[Masked]:
        """Draw the masks of a batch, the same on every process, and cut it into portions."""
        rng = np.random.default_rng([self.seed, *batch])
        chosen = [self.rows[i] for i in batch]
        places = [
            (np.sort(rng.permutation(len(ids) - 1)[: max(round(RATE * len(ids)), 1)]) + 1).tolist()
            for ids in chosen
        ]
        predicted = sum(map(len, places))
        cut = shared([len(ids) for ids in chosen], self.positions)
        return [
            Masked([chosen[i] for i in part], [places[i] for i in part], predicted) for part in cut
        ]

    def loss(self, part: Masked) -> "tuple[Tensor, Spent]":
        """Return the part's share of the batch's loss."""
        import torch
        from torch.nn.functional import cross_entropy

        network = self.trainee.network
        head, mask = head_of(self.frozen), mask_id(network.tokenizer)
        hidden = [set(places) for places in part.places]
        rows = [
            [mask if i in gone else id_ for i, id_ in enumerate(ids)]
            for ids, gone in zip(part.ids, hidden, strict=True)
        ]
        where = torch.tensor(
            [(n, i - 1) for n, places in enumerate(part.places) for i in places],
            device=network.device,
        ).T
        wanted = torch.tensor(
            [ids[i] for ids, places in zip(part.ids, part.places, strict=True) for i in places],
            device=network.device,
        )
        states = self.trainee.states(rows, memory=False)[0][where[0], where[1]]

        def loss(portion: "Tensor", at: slice) -> "Tensor":
            return cross_entropy(head(portion), wanted[at], reduction="sum") / part.predicted

        return in_portions(loss, states, _LOGITS), Spent(trained=sum(map(len, part.ids)))
