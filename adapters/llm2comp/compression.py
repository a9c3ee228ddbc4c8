"""Stage 1: a context is compressed into memory vectors, from which the frozen backbone must go on as if it had read the context."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from adapters._backbone import Network
from adapters._head import head_of
from adapters._training.budget import Spent
from adapters._training.loop import shared
from adapters.llm2comp.gradients import in_portions
from adapters.llm2comp.texts import MARGIN, Passage, shuffled
from adapters.llm2comp.trainee import Trainee, last_states, padded

if TYPE_CHECKING:
    from torch import Tensor

OBJECTIVES = ("kl", "nll", "rc", "mntp")
"""What stage 1 can minimise; the last is LLM2Vec's and has no memory."""

_LOGITS = 32
"""Positions whose scores of the whole vocabulary are in memory at once."""


class Split(NamedTuple):
    """A passage split in two.

    Attributes:
        passage: Number of the passage.
        read: What the encoder reads: the context between the special tokens that the tokenizer puts around every text.
        context: Token ids that are compressed.
        continuation: Token ids that follow.
    """

    passage: int
    read: list[int]
    context: list[int]
    continuation: list[int]


class Part(NamedTuple):
    """Some splits of a batch, and what each of their positions weighs in its loss."""

    splits: list[Split]
    weights: list[float]


def splits(
    passages: Sequence[Passage],
    around: tuple[list[int], list[int]],
    *,
    positions: int,
    k: int,
    continuation: int,
    seed: int,
) -> list[Split]:
    """Return passages split at random points, as many as the positions hold; a passage comes back once all have been used.

    The point is uniform in [MARGIN, length - MARGIN].

    Args:
        passages: Each of at least 2 * MARGIN tokens.
        around: Special tokens before and after every text.
        positions: Token positions that contexts and memory take together, exceeded by less than one passage.
        k: Number of memory tokens.
        continuation: Most tokens of what follows.
        seed: Of order and points.
    """
    rng = np.random.default_rng([seed, 1])
    before, after = around
    made: list[Split] = []
    for i in shuffled(len(passages), seed):
        ids = passages[i].ids
        point = int(rng.integers(MARGIN, len(ids) - MARGIN, endpoint=True))
        read = [*before, *ids[:point], *after]
        made.append(Split(i, read, ids[:point], ids[point : point + continuation]))
        positions -= len(read) + k
        if positions < 0:
            break
    return made


@dataclass(frozen=True, eq=False)
class Compression:
    """What the frozen backbone loses when memory vectors stand for the context.

    The student reads BOS, the memory vectors as input embeddings and the target; the teacher reads BOS, the context and the
    target. Both are the backbone itself. BOS is there for both whether or not the tokenizer puts it before texts, so that the
    true embeddings of the context in place of the memory make them equal.

    Attributes:
        trainee: What gives the memory vectors.
        frozen: The backbone with its head, under its own attention.
        splits: The examples.
        objective: "kl" the divergence of the student's distribution of each next token from the teacher's, at the last memory
            vector and at every token of the continuation; "nll" the cross-entropy of the continuation; "rc" that of the context.
        positions: Token positions computed at once.

    Source:
        The released code (c22f4c4): KL is the mean over examples of the mean over positions, NLL and RC the mean over tokens.
    """

    trainee: Trainee
    frozen: Network
    splits: Sequence[Split]
    objective: str
    positions: int

    def parts(self, batch: Sequence[int]) -> list[Part]:
        """Cut a batch into portions of at most ``positions`` positions of encoder and student."""
        chosen = [self.splits[i] for i in batch]
        k = len(self.trainee.memory)
        widths = [len(split.read) + len(self._target(split)) + 2 * k for split in chosen]
        predicted = sum(len(self._target(split)) for split in chosen)
        weights = [
            1 / (len(chosen) * (len(s.continuation) + 1))
            if self.objective == "kl"
            else 1 / predicted
            for s in chosen
        ]
        return [
            Part([chosen[i] for i in part], [weights[i] for i in part])
            for part in shared(widths, self.positions)
        ]

    def loss(self, part: Part) -> "tuple[Tensor, Spent]":
        """Return the part's share of the batch's loss; only the encoder's positions count as trained."""
        import torch
        from torch.nn.functional import cross_entropy, kl_div

        contexts, targets = (
            [split.context for split in part.splits],
            [self._target(split) for split in part.splits],
        )
        memory = self.trainee.slots([split.read for split in part.splits])
        student = self.after(memory, targets)
        head = head_of(self.frozen)
        weights = torch.tensor(
            [
                w
                for w, t in zip(part.weights, targets, strict=True)
                for _ in range(len(t) + self._last)
            ]
        )
        weights = weights.to(student.device)
        k = len(self.trainee.memory)
        trained = sum(len(split.read) + k for split in part.splits)
        read = sum(len(self._start) + k + len(target) for target in targets)
        if self.objective == "kl":
            with torch.no_grad():
                teacher = self.after(None, targets, contexts)

            def loss(states: "Tensor", where: slice) -> "Tensor":
                expected, found = head(teacher[where]).log_softmax(-1), head(states).log_softmax(-1)
                return (
                    kl_div(found, expected, log_target=True, reduction="none").sum(-1)
                    @ weights[where]
                )

            read += sum(
                len(self._start) + len(a) + len(b) for a, b in zip(contexts, targets, strict=True)
            )
        else:
            wanted = torch.tensor([i for target in targets for i in target], device=student.device)

            def loss(states: "Tensor", where: slice) -> "Tensor":
                return cross_entropy(head(states), wanted[where], reduction="none") @ weights[where]

        return in_portions(loss, student, _LOGITS), Spent(trained=trained, inference=read)

    def after(
        self,
        memory: "Tensor | None",
        targets: Sequence[Sequence[int]],
        contexts: Sequence[Sequence[int]] = (),
    ) -> "Tensor":
        """Return the frozen backbone's states from which the targets' tokens are predicted, example after example (m, dim).

        Args:
            memory: What stands for the contexts, as input embeddings (b, k, dim); None for the contexts themselves.
            targets: Token ids that are predicted; under "kl" one more state each, which predicts what follows.
            contexts: Token ids of the contexts, where there is no memory.
        """
        import torch

        frozen, start = self.frozen, self._start
        read = [[0] * memory.shape[1]] * len(targets) if memory is not None else contexts
        ids, _ = padded(
            [[*start, *before, *target] for before, target in zip(read, targets, strict=True)],
            frozen,
        )
        inputs = frozen.model.get_input_embeddings()(ids)
        if memory is not None:
            inputs = torch.cat(
                [
                    inputs[:, : len(start)],
                    memory.to(inputs.dtype),
                    inputs[:, len(start) + memory.shape[1] :],
                ],
                1,
            )
        first = [len(start) + len(before) - 1 for before in read]
        places = [
            (n, at + i) for n, at in enumerate(first) for i in range(len(targets[n]) + self._last)
        ]
        texts, positions = torch.tensor(places, device=frozen.device).T
        return last_states(frozen, inputs)[texts, positions]

    @property
    def _start(self) -> list[int]:
        """The token that begins a document, for the frozen backbone; none where there is no such token."""
        start = self.frozen.tokenizer.bos_token_id
        return [] if start is None else [int(start)]

    @property
    def _last(self) -> int:
        """How many positions more than targets have a loss: what follows the target, where a teacher knows."""
        return int(self.objective == "kl")

    def _target(self, split: Split) -> list[int]:
        return split.context if self.objective == "rc" else split.continuation
