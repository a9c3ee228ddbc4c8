"""What LLM2Vec-Gen minimises; all is frozen but the new tokens and two linear layers.

For a query with states h_1..h_k at the new tokens, s_i = R h_i and e = (1 / k) sum_i A s_i; y is
the model's own answer to the query, and t the teacher's vector of it:

* L_recon: mean over all answer tokens of the batch of -log p(y_j | s_1..s_k, y_1..y_(j-1)), by the
  frozen backbone, which does not read the query.
* L_align: mean over the batch and over dimensions of (e - t)^2.

No term pushes the vectors of different queries apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from adapters._head import head_of
from adapters._network import Network
from adapters._trainable import autocast
from adapters._training.budget import TokenCounts
from adapters._training.loop import split_batch
from adapters._training.states import embed_ids, embed_rows, last_states, sum_in_chunks
from adapters.llm2vec_gen.data import Sample
from adapters.llm2vec_gen.encoder import AnswerLayers

_READ = 16
"""Samples that are read at once."""


class SampleBatch(NamedTuple):
    """A micro-batch of samples.

    Attributes:
        numbers: Numbers of the samples.
        samples: The samples.
        size: Samples of the whole batch.
        tokens: Answer tokens of the whole batch.
    """

    numbers: list[int]
    samples: list[Sample]
    size: int
    tokens: int


@dataclass(frozen=True, eq=False)
class GenerativeAlignment:
    """Reconstruction of the answer and alignment with the teacher's vector of it.

    Attributes:
        frozen: The backbone with its head: encoder and decoder.
        layers: What is trained.
        samples: The training rows.
        targets: The teacher's vector of each, float32 (n, dim).
        scale: Factor of the states before R, so that R starts at the identity although states are
            much larger than input embeddings; folded into R at the end.
        reconstruction: Weight of L_recon; with 0 the decoder is not run.
        alignment: Weight of L_align.
        positions: Tokens computed at once.
    """

    frozen: Network
    layers: AnswerLayers
    samples: Sequence[Sample]
    targets: Tensor
    scale: float
    reconstruction: float
    alignment: float
    positions: int

    def lengths(self) -> list[int]:
        """Return the tokens of each sample, through encoder and decoder."""
        return [sum(self._widths(sample)) for sample in self.samples]

    def parts(self, batch: Sequence[int]) -> list[SampleBatch]:
        """Split a batch into micro-batches of at most ``positions`` tokens."""
        samples = [self.samples[i] for i in batch]
        tokens = sum(len(sample.answer) for sample in samples)
        widths = [max(self._widths(sample)) for sample in samples]
        parts = []
        for places in split_batch(widths, self.positions):
            numbers = [batch[k] for k in places]
            some = [samples[k] for k in places]
            parts.append(SampleBatch(numbers, some, len(samples), tokens))
        return parts

    def loss(self, part: SampleBatch) -> tuple[Tensor, TokenCounts]:
        """Return a micro-batch's share of the loss.

        Tokens of the decoder count as trained: gradients pass through it too.
        """
        states = self.read([sample.query for sample in part.samples])
        prompts = self.layers.soft_prompts(states * self.scale)  # (b, k, dim)
        loss = self.alignment * self.misalignment(prompts, part.numbers).sum() / part.size
        if self.reconstruction:
            answers = [sample.answer for sample in part.samples]
            loss = loss + self.reconstruction * self.surprise(prompts, answers) / part.tokens
        return loss, TokenCounts(sum(sum(self._widths(sample)) for sample in part.samples))

    def read(self, queries: Sequence[list[int]]) -> Tensor:
        """Return the states at the new tokens after each query (b, k, dim)."""
        k = len(self.layers.tokens)
        table = [embed_ids(self.frozen, query) for query in queries]
        tokens = embed_rows(self.frozen, self.layers.tokens.to(table[0].dtype))
        states = last_states(self.frozen, [torch.cat([rows, tokens]) for rows in table])
        found = []
        for row, query in zip(states, queries, strict=True):
            found.append(row[len(query) : len(query) + k])
        return torch.stack(found)

    def read_samples(self, numbers: Sequence[int]) -> Tensor:
        """Return the states at the new tokens of some samples (n, k, dim), without gradients."""
        found = []
        with torch.no_grad(), autocast(self.frozen):
            for start in range(0, len(numbers), _READ):
                some = [self.samples[i].query for i in numbers[start : start + _READ]]
                found.append(self.read(some).float())
        return torch.cat(found)

    def misalignment(self, prompts: Tensor, numbers: Sequence[int]) -> Tensor:
        """Return the mean square over dimensions of e - t for each sample (b,)."""
        vectors = self.layers.vectors(prompts).mean(1)
        return (vectors - self.targets[numbers].to(vectors.device)).square().mean(1)

    def surprise(self, prompts: Tensor, answers: Sequence[list[int]]) -> Tensor:
        """Return the sum of -log p over all tokens of the answers.

        Args:
            prompts: Soft prompts, or any input embeddings (b, k, dim).
            answers: Token ids of each answer.
        """
        k = prompts.shape[1]
        inputs = []
        for prompt, answer in zip(prompts, answers, strict=True):
            read = embed_ids(self.frozen, answer[:-1])
            inputs.append(torch.cat([prompt.to(read.dtype), read]))
        states = last_states(self.frozen, inputs)
        predicting = []
        for row, answer in zip(states, answers, strict=True):
            predicting.append(row[k - 1 : k - 1 + len(answer)])
        expected = torch.tensor(list(chain.from_iterable(answers)), device=states.device)
        head = head_of(self.frozen)

        def loss(states: Tensor, rows: slice) -> Tensor:
            return cross_entropy(head(states), expected[rows], reduction="sum")

        return sum_in_chunks(loss, torch.cat(predicting))

    def _widths(self, sample: Sample) -> tuple[int, int]:
        """Return the tokens that the encoder and the decoder read of a sample."""
        k = len(self.layers.tokens)
        decoded = k + len(sample.answer) - 1 if self.reconstruction else 0
        return len(sample.query) + k, decoded
