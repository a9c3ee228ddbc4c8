"""DINO's objective: the cosine of two texts' vectors is regressed on their smoothed label.

With u and v the means of the last-layer token states of x1 and x2, and y the label, the loss of a
batch is the mean over its pairs of

    (cos(u, v) - y)^2

the CosineSimilarityLoss of sentence-transformers, as in the released code (timoschick/dino at
0e4a052).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from adapters import _pooling
from adapters._batching import pad_batch
from adapters._network import Network
from adapters._trainable import autocast
from adapters._training.budget import TokenCounts, micro_batches
from adapters._training.loop import split_batch
from adapters.dino.data import SimilarityPair

MAX_LENGTH = 128
"""Longest text in tokens."""

_POSITIONS = 512
"""Tokens of texts computed at once: fewer mean less padding, and a CPU is no faster with more."""


class TokenizedPair(NamedTuple):
    """Token ids of two texts, and their label."""

    a: list[int]
    b: list[int]
    label: float

    @property
    def length(self) -> int:
        """Tokens of both texts."""
        return len(self.a) + len(self.b)


class PairMicroBatch(NamedTuple):
    """Some pairs of a batch, and the number of pairs in the batch."""

    pairs: list[TokenizedPair]
    batch_size: int


@dataclass(frozen=True, eq=False)
class CosineRegression:
    """Mean squared error of the cosine, the mean over the pairs of a batch.

    Attributes:
        network: The student.
        pairs: All training pairs.
        positions: Tokens in memory at once, padding included.
    """

    network: Network
    pairs: Sequence[TokenizedPair]
    positions: int

    def parts(self, batch: Sequence[int]) -> list[PairMicroBatch]:
        """Split a batch into micro-batches of at most ``positions`` tokens."""
        pairs = [self.pairs[i] for i in batch]
        widths = [2 * max(len(pair.a), len(pair.b)) for pair in pairs]
        chosen = split_batch(widths, self.positions)
        return [PairMicroBatch([pairs[k] for k in part], len(pairs)) for part in chosen]

    def loss(self, part: PairMicroBatch) -> tuple[Tensor, TokenCounts]:
        """Return the share of a micro-batch in the loss of its batch, and the tokens it took."""
        y = torch.tensor([pair.label for pair in part.pairs], device=self.network.device)  # (b,)
        u, v = embed_pairs(self.network, part.pairs)  # (b, d) each
        cosine = (normalize(u, dim=-1) * normalize(v, dim=-1)).sum(-1)  # (b,)
        loss = (cosine - y).square().sum() / part.batch_size
        return loss, TokenCounts(trained=_count_tokens(part.pairs))


def tokenize_pairs(network: Network, pairs: Sequence[SimilarityPair]) -> list[TokenizedPair]:
    """Return pairs as token ids, truncated to ``MAX_LENGTH``, without pairs with an empty text."""
    if not pairs:  # of few first texts none is held out
        return []
    texts = list(dict.fromkeys(chain(*(pair[:2] for pair in pairs))))
    limit = min(MAX_LENGTH, network.max_length)
    encoded = network.tokenizer(texts, truncation=True, max_length=limit, verbose=False)
    ids = dict(zip(texts, encoded["input_ids"], strict=True))
    made = [TokenizedPair(ids[pair.text_a], ids[pair.text_b], pair.label) for pair in pairs]
    return [pair for pair in made if pair.a and pair.b]


def embed_pairs(network: Network, pairs: Sequence[TokenizedPair]) -> tuple[Tensor, Tensor]:
    """Return the mean-pooled vectors of first and of second texts, float32 (b, d) each."""
    texts = [pair.a for pair in pairs] + [pair.b for pair in pairs]
    groups = micro_batches([len(ids) for ids in texts], _POSITIONS)
    vectors = []
    for group in groups:
        ids, mask = pad_batch([texts[i] for i in group], network)
        vectors.append(_pooling.mean(network.hidden_states(ids, mask), mask))
    order = torch.tensor(list(chain(*groups)), device=network.device)
    u, v = torch.cat(vectors)[order.argsort()].chunk(2)
    return u, v


def score_pairs(network: Network, pairs: Sequence[TokenizedPair]) -> tuple[float, TokenCounts]:
    """Return Spearman's correlation of cosine and label, 0 if undefined, and the tokens it took."""
    network.model.eval()  # type: ignore[no-untyped-call]
    cosines: list[float] = []
    with torch.inference_mode(), autocast(network):
        for start in range(0, len(pairs), 256):
            u, v = embed_pairs(network, pairs[start : start + 256])
            cosines += cosine_similarity(u, v).tolist()
    network.model.train()
    labels = [pair.label for pair in pairs]
    differ = len(set(labels)) > 1 and len(set(cosines)) > 1
    score = float(spearmanr(cosines, labels).statistic) if differ else 0.0
    return score if np.isfinite(score) else 0.0, TokenCounts(inference=_count_tokens(pairs))


def _count_tokens(pairs: Sequence[TokenizedPair]) -> int:
    return sum(pair.length for pair in pairs)
