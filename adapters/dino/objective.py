"""What the encoder is trained for: the cosine of two texts' vectors is their label."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from adapters import _pooling
from adapters._backbone import Network
from adapters._training.budget import Spent, portions
from adapters._training.loop import autocast, shared
from adapters.dino.postprocess import Pair

if TYPE_CHECKING:
    from torch import Tensor

_TEMPERATURE = 0.05
_TOGETHER = 512
"""Token positions of texts that go through the network at once: fewer leave less padding, and a CPU is no faster with more."""


class TokenisedPair(NamedTuple):
    """A pair as token ids."""

    a: list[int]
    b: list[int]
    label: float

    @property
    def length(self) -> int:
        """Token positions of both texts."""
        return len(self.a) + len(self.b)


def tokenised(network: Network, pairs: Sequence[Pair], limit: int) -> list[TokenisedPair]:
    """Return pairs as token ids, texts cut at ``limit`` tokens."""
    if not pairs:  # of few first texts none is held out
        return []
    texts = list(dict.fromkeys(text for pair in pairs for text in pair[:2]))
    ids = network.tokenizer(
        texts, truncation=True, max_length=min(limit, network.max_length), verbose=False
    )["input_ids"]
    of = dict(zip(texts, ids, strict=True))
    return [
        TokenisedPair(of[pair.text_a], of[pair.text_b], pair.label)
        for pair in pairs
        if of[pair.text_a] and of[pair.text_b]
    ]


class Part(NamedTuple):
    """Some pairs of a batch, and how many the batch has."""

    rows: list[TokenisedPair]
    size: int


@dataclass(frozen=True, eq=False)
class Similarity:
    """Mean squared error of the cosine of mean-pooled vectors, the mean over the pairs of a batch.

    Attributes:
        network: What is trained.
        rows: All pairs.
        positions: Token positions in memory at once.
        contrastive: Weight of the in-batch contrastive loss: each first text of a pair with the highest label is to be nearer to
            its second text than to those of others and to those of pairs with the lowest labels. With it a batch is one part.
    """

    network: Network
    rows: Sequence[TokenisedPair]
    positions: int
    contrastive: float = 0.0

    def parts(self, batch: Sequence[int]) -> list[Part]:
        """Cut a batch into portions of at most ``positions`` positions."""
        chosen = [self.rows[i] for i in batch]
        if self.contrastive:
            return [Part(chosen, len(chosen))]
        lengths = [2 * max(len(row.a), len(row.b)) for row in chosen]
        return [
            Part([chosen[k] for k in portion], len(chosen))
            for portion in shared(lengths, self.positions)
        ]

    def loss(self, part: Part) -> "tuple[Tensor, Spent]":
        """Return the part's share of the batch's loss."""
        import torch
        from torch.nn.functional import normalize

        rows = part.rows
        vectors = normalize(
            pooled(self.network, [row.a for row in rows] + [row.b for row in rows]), dim=-1
        )
        a, b = vectors.chunk(2)
        labels = torch.tensor([row.label for row in rows], device=vectors.device)
        loss = ((a * b).sum(-1) - labels).square().sum() / part.size
        if self.contrastive:
            loss = loss + self.contrastive * contrasted(a, b, labels, rows)
        return loss, Spent(trained=sum(row.length for row in rows))


def contrasted(
    a: "Tensor", b: "Tensor", labels: "Tensor", rows: Sequence[TokenisedPair]
) -> "Tensor":
    """Return the contrastive loss of unit vectors (b, dim), the mean over the pairs with the highest label; 0 where none has it.

    Second texts of other pairs with the same first text are no negatives unless their label is low, and one that equals the own second
    text never is. Similarities are float32, whatever the network computes in.
    """
    import torch
    from torch.nn.functional import cross_entropy

    near, far = labels > 0.75, labels < 0.25
    if not bool(near.any()):
        return a.new_zeros(())
    sides = ([row.a for row in rows], [row.b for row in rows])
    same, copy = (
        torch.tensor([[x == y for y in texts] for x in texts], device=a.device) for texts in sides
    )
    own = torch.eye(len(rows), dtype=torch.bool, device=a.device)
    seen = own | (((near & ~same) | far) & ~copy)
    with torch.autocast(a.device.type, enabled=False):
        scores = (a.float() @ b.float().T / _TEMPERATURE).masked_fill(~seen, -torch.inf)
        return cross_entropy(scores[near], near.nonzero()[:, 0])


def pooled(network: Network, texts: Sequence[list[int]]) -> "Tensor":
    """Return the mean-pooled vectors of token ids, float32 (n, dim), those of similar length computed together."""
    import torch

    groups = portions([len(ids) for ids in texts], _TOGETHER)
    made = []
    for group in groups:
        width = len(texts[group[0]])
        ids = torch.tensor(
            [texts[i] + [network.pad_id] * (width - len(texts[i])) for i in group],
            device=network.device,
        )
        mask = torch.tensor(
            [[1] * len(texts[i]) + [0] * (width - len(texts[i])) for i in group],
            device=network.device,
        )
        made.append(_pooling.mean(network.hidden_states(ids, mask), mask))
    order = torch.tensor([i for group in groups for i in group], device=network.device)
    return torch.cat(made)[order.argsort()]


def agreement(network: Network, rows: Sequence[TokenisedPair]) -> tuple[float, Spent]:
    """Return Spearman's correlation of cosines with labels, and what it took; 0 where one side is constant."""
    import torch
    from scipy.stats import spearmanr

    network.model.eval()  # type: ignore[no-untyped-call]
    found: list[float] = []
    with torch.inference_mode(), autocast(network):
        for start in range(0, len(rows), 256):
            chunk = rows[start : start + 256]
            a, b = pooled(network, [row.a for row in chunk] + [row.b for row in chunk]).chunk(2)
            found += torch.nn.functional.cosine_similarity(a, b).tolist()
    network.model.train()
    score = (
        float(spearmanr(found, [row.label for row in rows]).statistic)
        if len(rows) > 1
        else float("nan")
    )
    return score if np.isfinite(score) else 0.0, Spent(inference=sum(row.length for row in rows))
