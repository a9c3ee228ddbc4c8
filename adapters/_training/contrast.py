"""The contrastive objective: InfoNCE of cosine / temperature, with gradient caching.

For n examples with first texts a_i and second texts p_i,

    L = (1 / n) * sum_i -log[exp(cos(a_i, p_i) / t) / sum_j exp(cos(a_i, p_j) / t)]

where third texts, such as hard negatives, are further candidates of every first one. A text that
is in a batch more than once is no negative of itself: candidates with the tokens of a_i or of p_i,
and the second texts of examples with the first text a_i, are left out of the sum, but for p_i.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from accelerate.utils import reduce
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize
from transformers import PreTrainedTokenizerBase

from adapters._network import Network
from adapters._text import Framed, make_prompts
from adapters._trainable import autocast, fork_seed
from adapters._training.budget import TokenCounts
from adapters._training.loop import split_batch
from adapters._training.processes import launched
from adapters._training.states import attach_gradient

Embed = Callable[[Sequence[list[int]]], Tensor]
"""From the token ids of texts to their vectors (n, dim), of any length."""


class ContrastBatch(NamedTuple):
    """A micro-batch of texts.

    Attributes:
        rows: Their token ids.
        order: Their places among all texts of the batch, view after view.
        seed: Of the dropout; None if the micro-batch is the whole batch.
        value: Its share of the loss, if known already.
        gradient: Of the loss with respect to its vectors (n, dim), if known already.
        repeated: Candidates that are left out, where it is the whole batch; see ``info_nce``.
    """

    rows: list[list[int]]
    order: list[int]
    seed: int | None = None
    value: float = 0.0
    gradient: Tensor | None = None
    repeated: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Contrast:
    """InfoNCE over all texts of a batch, as an objective of the training loop.

    A batch of several micro-batches is computed twice (gradient caching, Gao et al. 2021): once for
    the vectors, which give the gradient of each vector, and once, micro-batch by micro-batch under
    the same dropout, for the gradients of the weights. With several processes, each computes some
    micro-batches, and all vectors are candidates.

    Attributes:
        network: What is trained.
        embed: From token ids of texts to their vectors (n, dim), by the network.
        rows: Token ids of each example's texts: two views, or query, positive and negative.
        temperature: Divides the cosine.
        positions: Tokens computed at once. With dropout, it and the number of processes change
            which masks are drawn.
        added: Tokens that ``embed`` adds to each text, such as memory.
    """

    network: Network
    embed: Embed
    rows: Sequence[Sequence[list[int]]]
    temperature: float
    positions: int
    added: int = 0

    def parts(self, batch: Sequence[int]) -> list[ContrastBatch]:
        """Split a batch into micro-batches; if there are several, with the vectors' gradients."""
        examples = [self.rows[i] for i in batch]
        texts = list(chain.from_iterable(zip(*examples, strict=True)))  # view after view
        orders = split_batch([len(ids) + self.added for ids in texts], self.positions)
        parts = [ContrastBatch([texts[i] for i in order], order) for order in orders]
        repeated = find_repeated(examples).to(self.network.device)
        if len(parts) == 1:
            return [parts[0]._replace(repeated=repeated)]
        seeds = torch.randint(1 << 40, (len(parts),)).tolist()
        parts = [part._replace(seed=seed) for part, seed in zip(parts, seeds, strict=True)]
        vectors = self._embed_all(parts, len(texts)).requires_grad_()
        views = vectors.view(-1, len(batch), vectors.shape[-1])
        loss = info_nce(views, self.temperature, repeated)
        (gradient,) = torch.autograd.grad(loss, vectors)
        share = float(loss.detach()) / len(parts)
        return [part._replace(value=share, gradient=gradient[part.order]) for part in parts]

    def loss(self, part: ContrastBatch) -> tuple[Tensor, TokenCounts]:
        """Return a micro-batch's share of the loss; those of the first pass are ``repeated``."""
        tokens = sum(len(ids) + self.added for ids in part.rows)
        spent = TokenCounts(trained=tokens)
        vectors = self._embed(part)
        if part.gradient is not None:
            spent += TokenCounts(repeated=tokens)
            value = torch.tensor(part.value, device=vectors.device)
            return attach_gradient(value, vectors, part.gradient), spent
        ordered = vectors[torch.tensor(part.order, device=vectors.device).argsort()]
        views = ordered.view(len(self.rows[0]), -1, vectors.shape[-1])
        return info_nce(views, self.temperature, part.repeated), spent

    def _embed(self, part: ContrastBatch) -> Tensor:
        if part.seed is None:
            return self.embed(part.rows)
        with fork_seed(part.seed, self.network.device):
            return self.embed(part.rows)

    def _embed_all(self, parts: Sequence[ContrastBatch], count: int) -> Tensor:
        """Return the vectors of all micro-batches (count, dim), each from the process it is for."""
        network, processes = self.network, launched()
        vectors = torch.zeros(count, network.dim, device=network.device)
        with torch.no_grad(), autocast(network):
            for part in parts[processes.process_index :: processes.num_processes]:
                vectors[part.order] = self._embed(part)
        return reduce(vectors, "sum") if processes.num_processes > 1 else vectors


def info_nce(vectors: Tensor, temperature: float, repeated: Tensor | None = None) -> Tensor:
    """Return the mean cross-entropy of finding the second text of each first one by its cosine.

    Candidates are the second texts of all n examples, and the third ones where there are any.

    Args:
        vectors: (views, n, dim), of any length.
        temperature: Divides the cosine.
        repeated: True for candidates of a first text that are left out (n, (views - 1) * n).
    """
    with torch.autocast(vectors.device.type, enabled=False):
        unit = normalize(vectors.float(), dim=-1)
        scores = unit[0] @ unit[1:].flatten(0, 1).T / temperature  # (n, (views - 1) * n)
    if repeated is not None:
        scores = scores.masked_fill(repeated, -torch.inf)
    return cross_entropy(scores, torch.arange(len(scores), device=scores.device))


def find_repeated(examples: Sequence[Sequence[list[int]]]) -> Tensor:
    """Return which candidates a batch's first texts leave out, bool (n, (views - 1) * n).

    Args:
        examples: Token ids of each example's texts.
    """
    numbers: dict[tuple[int, ...], int] = {}
    texts = [[numbers.setdefault(tuple(ids), len(numbers)) for ids in row] for row in examples]
    views, n = np.asarray(texts).T, len(texts)  # (views, n)
    candidates = views[1:].ravel()
    repeated = np.equal.outer(views[0], candidates) | np.equal.outer(views[1], candidates)
    repeated[:, :n] |= np.equal.outer(views[0], views[0])
    np.fill_diagonal(repeated[:, :n], val=False)
    return torch.from_numpy(repeated)


def tokenise(
    examples: Sequence[tuple[Framed, ...]], tokenizer: PreTrainedTokenizerBase, limit: int
) -> list[tuple[list[int], ...]]:
    """Return the texts of each example as token ids, each of at most ``limit``."""
    texts = list(chain.from_iterable(examples))
    ids = [prompt.ids for prompt in make_prompts(tokenizer, texts, limit=limit)]
    width = len(examples[0]) if examples else 1
    return [tuple(ids[i : i + width]) for i in range(0, len(ids), width)]
