"""Stage 4 of QuIP: passages and questions go through one encoder, and a question's two vectors point at its answer.

Jia, Lewis, Zettlemoyer (Findings of ACL 2022), section 2: p(i | c, q) = softmax_i of r(c)_i times f(q), over all tokens of the
passage; the loss is the cross-entropy against the teacher's distribution. All questions of a passage are in one batch, so that it
is encoded once. The state that stands for a question is its first one in an encoder, and its last one in a decoder.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from adapters._backbone import Network
from adapters._training.budget import Spent
from adapters._training.loop import shared
from adapters.quip.passages import Passage
from adapters.quip.stages import Packed, states_of
from adapters.quip.teacher import Labels
from adapters.quip.tokens import passage_prompts, place, question_ids, spans_of

if TYPE_CHECKING:
    from torch import Tensor, nn

_CUTS = 4
"""Forward passes for the sequences of a portion where they cannot be packed: by length, so that little is padded."""


class Group(NamedTuple):
    """A passage and all that is asked of it.

    Attributes:
        passage: Its token ids.
        questions: Token ids of each question.
        labels: Where the answers are.
    """

    passage: list[int]
    questions: list[list[int]]
    labels: Labels

    @property
    def width(self) -> int:
        """Token positions of passage and questions."""
        return len(self.passage) + sum(map(len, self.questions))


class Part(NamedTuple):
    """Some groups of a batch.

    Attributes:
        units: Groups whose passages a question chooses among.
        questions: Number of questions in the whole batch.
    """

    units: list[list[Group]]
    questions: int


@dataclass(frozen=True, eq=False)
class Pointing:
    """Cross-entropy of questions against the labels of their answers' places, the mean over those of the batch.

    Attributes:
        network: What is trained.
        heads: Start and end head, from a question's state to its vector.
        groups: The examples.
        positions: Token positions computed at once.
        together: Passages among whose tokens a question chooses: 1 is its own alone.
        packed: Whether the network takes sequences packed into a row, see ``adapters._sharing.shareable``.
        last: Whether a question's last state stands for it, not its first.
        scale: What the heads' vectors are multiplied with, see ``folded``.
    """

    network: Network
    heads: "Sequence[nn.Module]"
    groups: Sequence[Group]
    positions: int
    together: int
    packed: bool
    last: bool
    scale: float = 1.0

    def parts(self, batch: Sequence[int]) -> list[Part]:
        """Cut a batch into portions of at most ``positions`` positions."""
        groups = [self.groups[i] for i in batch]
        units = [groups[i : i + self.together] for i in range(0, len(groups), self.together)]
        asked = sum(len(group.questions) for group in groups)
        chosen = shared([sum(group.width for group in unit) for unit in units], self.positions)
        return [Part([units[k] for k in some], asked) for some in chosen]

    def loss(self, part: Part) -> "tuple[Tensor, Spent]":
        """Return the portion's share of the batch's loss."""
        import torch

        groups = [group for unit in part.units for group in unit]
        states = flat_states(self.network, groups, packed=self.packed)
        layout = _Layout.of(part.units, last=self.last)
        on: Callable[[np.ndarray], Tensor] = lambda array: torch.from_numpy(array).to(states.device)  # noqa: E731
        foreign = on(layout.question_unit)[:, None] != on(layout.token_unit)
        places, chances = on(layout.places), on(layout.chances)
        total = torch.zeros((), device=states.device)
        with torch.autocast(states.device.type, enabled=False):
            tokens, asked = states[on(layout.tokens)].float(), states[on(layout.asked)].float()
            for side, head in enumerate(self.heads):
                logs = (
                    (self.scale * head(asked) @ tokens.T)
                    .masked_fill(foreign, -torch.inf)
                    .log_softmax(-1)
                )
                total = total - (chances[:, side] * logs.gather(1, places[:, side])).sum()
        return total / part.questions, Spent(trained=sum(group.width for group in groups))


class _Layout(NamedTuple):
    """Where things are in the flat states of a portion.

    Attributes:
        tokens: Positions of all passages' tokens (n,).
        token_unit: The unit of each (n,).
        asked: Position of the state that stands for each question (m,).
        question_unit: The unit of each (m,).
        places: Likeliest places among ``tokens`` (m, 2, k).
        chances: Their probabilities (m, 2, k).
    """

    tokens: np.ndarray
    token_unit: np.ndarray
    asked: np.ndarray
    question_unit: np.ndarray
    places: np.ndarray
    chances: np.ndarray

    @classmethod
    def of(cls, units: Sequence[Sequence[Group]], *, last: bool) -> "_Layout":
        tokens, token_unit, asked, question_unit, places = [], [], [], [], []
        position = token = 0
        for n, unit in enumerate(units):
            for group in unit:
                width = len(group.passage)
                tokens.append(np.arange(position, position + width))
                token_unit += [n] * width
                places.append(group.labels.places + token)
                position, token = position + width, token + width
                for question in group.questions:
                    asked.append(position + (len(question) - 1 if last else 0))
                    position += len(question)
                question_unit += [n] * len(group.questions)
        chances = np.concatenate([group.labels.chances for unit in units for group in unit])
        return cls(
            np.concatenate(tokens),
            np.asarray(token_unit),
            np.asarray(asked),
            np.asarray(question_unit),
            np.concatenate(places),
            chances,
        )


def flat_states(network: Network, groups: Sequence[Group], *, packed: bool) -> "Tensor":
    """Return the states (n, dim) of each group's passage, then of its questions, one after the other; none sees another.

    Args:
        network: The encoder.
        groups: What is encoded.
        packed: Whether a group goes through the network as one row, or each of its sequences as one.
    """
    import torch

    if packed:
        return states_of(network, [_row(group) for group in groups])
    sequences = [sequence for group in groups for sequence in (group.passage, *group.questions)]
    order = np.argsort([len(sequence) for sequence in sequences], kind="stable")
    cuts = [cut for cut in np.array_split(order, _CUTS) if len(cut)]
    states = torch.cat(
        [
            states_of(network, [Packed(sequences[i], [1] * len(sequences[i])) for i in cut])
            for cut in cuts
        ]
    )
    begins = np.cumsum([0, *(len(sequences[i]) for i in order)])[np.argsort(order, kind="stable")]
    back = np.concatenate(
        [np.arange(b, b + len(sequence)) for b, sequence in zip(begins, sequences, strict=True)]
    )
    return states[torch.from_numpy(back).to(states.device)]


def _row(group: Group) -> Packed:
    """Return the group as parts 2, 3, ...: there is no common part 1, so none sees another."""
    sequences = [group.passage, *group.questions]
    return Packed(
        [i for s in sequences for i in s], [k for k, s in enumerate(sequences, 2) for _ in s]
    )


def folded(heads: "Sequence[nn.Module]", scale: float) -> None:
    """Multiply the heads' vectors with the scale they were trained with, once and for all.

    The paper has no scale, and neither has what comes out. It is there in training, because new heads with token states whose
    norm is in the tens give scores in the hundreds, and every step of the optimiser moves them by as much.
    """
    import torch

    with torch.no_grad():
        for head in heads:
            for name, weight in head.named_parameters():
                if name.startswith("out_proj."):
                    weight.mul_(scale)


def hard(answers: Sequence[tuple[int, int]], top: int) -> Labels:
    """Return labels that put all probability on one start and one end each.

    Args:
        answers: First and last token of each answer.
        top: Places that labels have.
    """
    places, chances = (
        np.zeros((len(answers), 2, top), np.int64),
        np.zeros((len(answers), 2, top), np.float32),
    )
    if answers:
        places[:, :, 0], chances[:, :, 0] = np.asarray(answers), 1.0
    return Labels(places, chances)


def sharpened(labels: Labels) -> Labels:
    """Return the likeliest places alone, with probability 1."""
    return hard([(int(a), int(b)) for a, b in labels.places[:, :, 0]], labels.places.shape[2])


def grouped(
    network: Network, passages: Sequence[Passage], *, max_length: int, max_question: int, top: int
) -> tuple[list[Group], list[str]]:
    """Return passages with their questions and the answers these came with, and the text of each group.

    Where an answer is not in the passage, the passage's first token stands for that if it is a special one; else the question
    is left out.

    Args:
        network: Says how to tokenise.
        passages: With questions.
        max_length: Longest passage in tokens, without special ones.
        max_question: Longest question, likewise.
        top: Places that labels have.
    """
    groups, texts = [], []
    for passage, prompt in zip(
        passages, passage_prompts(network, [p.text for p in passages], max_length), strict=True
    ):
        spans = spans_of(prompt)
        nothing = (0, 0) if spans[0, 0] == spans[0, 1] else None
        found = [(q.text, place(spans, q.start, q.end) or nothing) for q in passage.questions]
        kept = [(text, where) for text, where in found if where is not None]
        if kept:
            ids = question_ids(network, [text for text, _ in kept], max_question)
            groups.append(Group(prompt.ids, ids, hard([where for _, where in kept], top)))
            texts.append(passage.whole)
    return groups, texts
