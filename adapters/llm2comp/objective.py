"""What LLM2Comp minimises in each stage, written from the paper's description.

Context c = (BOS, x_1..x_a), continuation y_1..y_n, memory m_1..m_k = Enc(c, M_1..M_k). A frozen
copy of the backbone reads BOS, m_1..m_k, y_1..y_n; q_t is its next-token distribution at m_k
(t = 0) or y_t, and p_t that of the same model reading the whole text, at x_a (t = 0) or y_t.

* KL: mean over texts of 1 / (n + 1) * sum_{t=0..n} KL(p_t || q_t), temperature 1.
* NLL: cross-entropy of y_1..y_n from m_k, y_1..y_{n-1}, mean over all tokens. RC: that of the
  context x_1..x_a itself.
* MNTP (LLM2Vec, BehnamGhader et al. 2024): cross-entropy of masked tokens, each predicted from the
  state before it, without memory.
* Contrastive stages: InfoNCE, see ``adapters/_training/contrast.py``. Unsupervised, both views are
  one text under different dropout; supervised, hard negatives are further candidates.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from adapters._head import head_of
from adapters._network import Network, embedding_table, make_bidirectional
from adapters._trainable import share_weights
from adapters._training.budget import TokenCounts
from adapters._training.contrast import Contrast
from adapters._training.loop import split_batch
from adapters._training.states import embed_ids, embed_rows, last_states, sum_in_chunks
from adapters._training.weights import Lora, trainable_weights
from adapters.llm2comp.data import Ids, Split
from adapters.llm2comp.encoder import memory_states, pool_states, random_memory
from bench.errors import UsageError

T = TypeVar("T")

OBJECTIVES = ("kl", "nll", "rc", "mntp")
"""What stage 1 can minimise."""

MASKED = 0.2
"""Fraction of the tokens that "mntp" masks, as in LLM2Vec; all of them become the mask token."""


@dataclass(frozen=True, eq=False)
class Student:
    """The encoder in training: the backbone with LoRA weights, and memory embeddings.

    Attributes:
        network: Its frozen weights are shared with the backbone, not copied.
        memory: Input embeddings of the memory tokens, float32 (k, dim).
    """

    network: Network
    memory: nn.Parameter

    def weights(self) -> dict[str, nn.Parameter]:
        """Return what is trained, by name."""
        return trainable_weights(self.network) | (
            {"memory": self.memory} if len(self.memory) else {}
        )

    def encode(self, rows: Sequence[Ids], *, memory: bool = True) -> tuple[Tensor, Tensor]:
        """Return token states (b, t, dim), padded on the right, and the mask of real ones (b, t).

        Args:
            rows: Token ids of each text, special tokens included.
            memory: Whether the memory tokens follow each text.
        """
        network, tail = self.network, self.memory if memory else self.memory[:0]
        texts = [embed_ids(network, ids) for ids in rows]
        tails = embed_rows(network, tail.to(texts[0].dtype)).expand(len(rows), -1, -1)
        inputs = [torch.cat(pair) for pair in zip(texts, tails, strict=True)]
        mask = pad_sequence(
            [torch.ones_like(text[:, 0]).long() for text in inputs], batch_first=True
        )
        needed = None if network.causal or bool(mask.all()) else mask
        return last_states(network, inputs, needed), mask

    def compress(self, rows: Sequence[Ids]) -> Tensor:
        """Return the states of the memory tokens after each text (b, k, dim)."""
        return memory_states(*self.encode(rows), len(self.memory))

    def embed(self, rows: Sequence[Ids]) -> Tensor:
        """Return the embeddings of texts before normalisation, float32 (b, dim)."""
        states, mask = self.encode(rows)
        first = torch.tensor([ids[:1] for ids in rows], device=mask.device)
        bos = self.network.tokenizer.bos_token_id
        return pool_states(states, first, mask, len(self.memory), bos)

    def contrast(
        self, rows: Sequence[Sequence[Ids]], *, temperature: float, positions: int
    ) -> Contrast:
        """Return the objective of stages 2 and 3; arguments as for ``Contrast``."""
        added = len(self.memory)
        return Contrast(self.network, self.embed, rows, temperature, positions, added)


def make_student(
    backbone: Network, k: int, attention: str, *, rank: int, seed: int, words: str = ""
) -> Student:
    """Return a student with new LoRA weights and new memory embeddings.

    Args:
        backbone: Stays as it is.
        k: Number of memory tokens.
        attention: "native" or "bidirectional".
        rank: Of the LoRA weights.
        seed: Of the LoRA weights.
        words: Initial memory; see ``initial_memory``.
    """
    memory = initial_memory(backbone, k, words).to(backbone.device, torch.float32)
    network = make_lora(rank).attach(set_attention(backbone, attention), seed=seed)
    return Student(network, nn.Parameter(memory))


def make_lora(rank: int) -> Lora:
    """Return LoRA of a rank with the paper's scale, alpha / rank = 32 / 16."""
    return Lora(rank, 2 * rank)


def initial_memory(backbone: Network, k: int, words: str) -> Tensor:
    """Return the input embeddings of the first k tokens of ``words``, repeated if fewer: (k, dim).

    Without words they are the random rows of an untrained encoder, whatever the seed.

    Raises:
        UsageError: The words have no token.
    """
    table = embedding_table(backbone)
    if not words:
        return random_memory(table, k)
    ids = backbone.tokenizer(words, add_special_tokens=False)["input_ids"]
    if not ids:
        raise UsageError(f"expected words of at least one token, got words={words!r}")
    return table[[ids[i % len(ids)] for i in range(k)]]


def set_attention(backbone: Network, attention: str) -> Network:
    """Return a network with the same weights under "native" or "bidirectional" attention."""
    out = share_weights(backbone)
    if attention == "bidirectional" and backbone.causal:
        make_bidirectional(out.model)
        return replace(out, causal=False)
    return out


class SplitBatch(NamedTuple):
    """A micro-batch of splits, and what the mean over the batch divides by.

    ``total`` is the number of texts for "kl", else that of predicted tokens.
    """

    splits: list[Split]
    total: int


@dataclass(frozen=True, eq=False)
class Compression:
    """Stage 1: the frozen backbone continues after the memory as after the context itself.

    BOS precedes both, whether or not the tokenizer adds it, so that the context's own embeddings in
    place of the memory give KL = 0.

    Attributes:
        student: What is trained.
        frozen: The backbone with its head, under its own attention: decoder and teacher.
        splits: The examples.
        objective: "kl", "nll" or "rc".
        positions: Tokens computed at once.

    Source:
        The released code (c22f4c4): KL is the mean over texts of the mean over tokens; NLL and RC
        are means over tokens.
    """

    student: Student
    frozen: Network
    splits: Sequence[Split]
    objective: str
    positions: int

    def parts(self, batch: Sequence[int]) -> list[SplitBatch]:
        """Split a batch into micro-batches of at most ``positions`` tokens."""
        splits = [self.splits[i] for i in batch]
        targets = [len(self._target(split)) for split in splits]
        k, total = len(self.student.memory), len(splits)
        read = [len(split.read) + k for split in splits]  # by the encoder
        widths = [a + k + b for a, b in zip(read, targets, strict=True)]
        if self.objective != "kl":
            total = sum(targets)
        batches = split_batch(widths, self.positions)
        return [SplitBatch(_select(splits, rows), total) for rows in batches]

    def loss(self, part: SplitBatch) -> tuple[Tensor, TokenCounts]:
        """Return a micro-batch's share of the loss; only tokens of the encoder count as trained."""
        read = [split.read for split in part.splits]
        targets = [self._target(split) for split in part.splits]
        student, passed = self.decode(self.student.compress(read), targets)  # (m, dim)
        inference = passed
        if self.objective == "kl":
            contexts = [embed_ids(self.frozen, split.context) for split in part.splits]
            with torch.no_grad():
                expected, more = self.decode(contexts, targets)  # (m, dim)
            inference += more
        else:
            expected = torch.tensor(list(chain.from_iterable(targets)), device=student.device)
        weights = self._weights(part).to(student.device)

        def loss(states: Tensor, rows: slice) -> Tensor:
            return self._token_losses(states, expected[rows]) @ weights[rows]

        trained = sum(len(ids) + len(self.student.memory) for ids in read)
        return sum_in_chunks(loss, student), TokenCounts(trained, inference, differentiated=passed)

    def _token_losses(self, states: Tensor, expected: Tensor) -> Tensor:
        """Return the loss of each state (m,); expected are teacher states or token ids."""
        head = head_of(self.frozen)
        logits = head(states)  # (m, vocabulary)
        if self.objective != "kl":
            return cross_entropy(logits, expected, reduction="none")
        log_q, log_p = logits.log_softmax(-1), head(expected).log_softmax(-1)
        return kl_div(log_q, log_p, log_target=True, reduction="none").sum(-1)

    def _weights(self, part: SplitBatch) -> Tensor:
        """Return the weight of each predicted token in the loss of the batch (m,)."""
        counts = [len(self._target(split)) + self._after_last for split in part.splits]
        divisors = counts if self.objective == "kl" else [1] * len(counts)
        weights = torch.tensor([1 / (part.total * divisor) for divisor in divisors])
        return weights.repeat_interleave(torch.tensor(counts))

    def decode(self, before: Iterable[Tensor], targets: Sequence[Ids]) -> tuple[Tensor, int]:
        """Return the frozen backbone's states that predict the targets, and the tokens it read.

        Args:
            before: Input embeddings of memory or of a context, (length, dim) for each text.
            targets: Token ids to predict; "kl" has one more state, which predicts what follows.

        Returns:
            The states, text after text (m, dim).
        """
        bos = self.frozen.tokenizer.bos_token_id
        start = embed_ids(self.frozen, [] if bos is None else [bos])
        inputs = [
            torch.cat([start, read.to(start.dtype), embed_ids(self.frozen, target)])
            for read, target in zip(before, targets, strict=True)
        ]
        states = last_states(self.frozen, inputs)  # (b, t, dim)
        predicting = []
        for row, ids, target in zip(states, inputs, targets, strict=True):
            end = len(ids) - 1
            predicting.append(row[end - len(target) : end + self._after_last])
        return torch.cat(predicting), sum(map(len, inputs))

    @property
    def _after_last(self) -> int:
        """How many tokens after the target have a loss: the teacher knows what follows."""
        return int(self.objective == "kl")

    def _target(self, split: Split) -> Ids:
        return split.context if self.objective == "rc" else split.continuation


class MaskedBatch(NamedTuple):
    """A micro-batch of masked texts.

    Attributes:
        ids: Token ids of each text.
        places: Masked positions of each text.
        predicted: Masked tokens of the whole batch.
    """

    ids: list[Ids]
    places: list[list[int]]
    predicted: int


@dataclass(frozen=True, eq=False)
class MaskedPrediction:
    """Masked next-token prediction, as an objective of stage 1 and for healing a backbone.

    The task and the fraction of masked tokens are LLM2Vec's; LoRA weights, optimiser and texts are
    those of the other objectives.

    Attributes:
        student: What is trained.
        frozen: The backbone with its head.
        rows: Token ids of the texts with special tokens; the first of a text is never masked.
        positions: Tokens computed at once.
        seed: Of the masks.
    """

    student: Student
    frozen: Network
    rows: Sequence[Ids]
    positions: int
    seed: int

    def parts(self, batch: Sequence[int]) -> list[MaskedBatch]:
        """Draw the masks of a batch, equal on every process, and split it into micro-batches."""
        rng = np.random.default_rng([self.seed, *batch])
        texts = [self.rows[i] for i in batch]
        places = []
        for ids in texts:
            count = max(round(MASKED * len(ids)), 1)
            drawn = rng.permutation(len(ids) - 1)[:count]
            places.append((np.sort(drawn) + 1).tolist())
        predicted = sum(map(len, places))
        batches = split_batch(list(map(len, texts)), self.positions)
        return [
            MaskedBatch(_select(texts, rows), _select(places, rows), predicted) for rows in batches
        ]

    def loss(self, part: MaskedBatch) -> tuple[Tensor, TokenCounts]:
        """Return a micro-batch's share of the loss."""
        head, mask = head_of(self.frozen), find_mask_id(self.student.network.tokenizer)
        rows = [list(ids) for ids in part.ids]
        texts: list[int] = []
        before: list[int] = []
        hidden: Ids = []
        for n, places in enumerate(part.places):
            for i in places:
                hidden.append(rows[n][i])
                rows[n][i] = mask
                texts.append(n)
                before.append(i - 1)
        states = self.student.encode(rows, memory=False)[0][texts, before]  # (m, dim)
        expected = torch.tensor(hidden, device=states.device)

        def loss(states: Tensor, rows: slice) -> Tensor:
            return cross_entropy(head(states), expected[rows], reduction="sum") / part.predicted

        return sum_in_chunks(loss, states), TokenCounts(trained=sum(map(len, rows)))


def find_mask_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the id of the tokenizer's mask token, or that of an underscore, as in LLM2Vec."""
    if tokenizer.mask_token_id is not None:
        return int(tokenizer.mask_token_id)
    return int(tokenizer("_", add_special_tokens=False)["input_ids"][-1])


def _select(items: Sequence[T], places: Sequence[int]) -> list[T]:
    return [items[i] for i in places]
