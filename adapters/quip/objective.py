"""QuIP's three objectives: the generator's, the teacher's, and the encoder's.

Jia, Lewis, Zettlemoyer (Findings of ACL 2022), sections 2 and 3, in the order of training:

1. Generator: - log p(answer, separator, question | passage), the mean over tokens.
2. Teacher, a cross-encoder with two heads over the tokens of the passage:
   - log p_start(first | c, q) - log p_end(last | c, q), the mean over questions.
3. Encoder: - sum_i T_start(i) log p_start(i | c, q) - sum_i T_end(i) log p_end(i | c, q), with
   p_start(i | c, q) = softmax_i(r(c)_i . f_start(q)) and T the teacher's largest probabilities;
   the mean over questions. All questions of a passage are in one batch and share its encoding.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from adapters._batching import pad, pad_batch
from adapters._head import head_of
from adapters._network import Network
from adapters._sharing import shared_states
from adapters._training.budget import TokenCounts, micro_batches
from adapters._training.loop import split_batch
from adapters.quip.data import TokenizedPassage

TOP = 8
"""Tokens of the teacher's start and end distributions that are kept (section 3)."""

_CUTS = 4
"""Forward passes for the sequences of a micro-batch that cannot be packed, sorted by length."""


class GeneratorRow(NamedTuple):
    """A passage as the generator reads it, and what it learns to write after it.

    Attributes:
        prompt: Token ids of the passage.
        outputs: Token ids of answers with their questions; several share the computation of the
            prompt.
    """

    prompt: list[int]
    outputs: list[list[int]]

    @property
    def terms(self) -> int:
        """Number of predicted tokens."""
        return sum(map(len, self.outputs))

    @property
    def tokens(self) -> int:
        """Number of tokens that go through the network."""
        return len(self.prompt) + self.terms


class TeacherRow(NamedTuple):
    """A question and its passage in one sequence.

    Attributes:
        ids: Token ids of question, line break and passage.
        begin: Position of the passage's first token.
        answer: First and last token of the answer in the passage; None if it is unknown.
    """

    ids: list[int]
    begin: int
    answer: tuple[int, int] | None

    @property
    def terms(self) -> int:
        """Number of questions."""
        return 1

    @property
    def tokens(self) -> int:
        """Number of tokens that go through the network."""
        return len(self.ids)


class AnswerLabels(NamedTuple):
    """Where the answers to questions start and end.

    Attributes:
        tokens: int64 (m, 2, k), tokens of the passage.
        probabilities: float32 (m, 2, k), those of each token; 0 fills up.
    """

    tokens: NDArray[np.int64]
    probabilities: NDArray[np.float32]


class EncoderRow(NamedTuple):
    """A passage and all of its questions.

    Attributes:
        passage: Token ids of the passage.
        questions: Token ids of each question.
        labels: Where their answers are.
        text: The text and the questions, for the 8-grams that were trained on.
    """

    passage: list[int]
    questions: list[list[int]]
    labels: AnswerLabels
    text: str

    @property
    def terms(self) -> int:
        """Number of questions."""
        return len(self.questions)

    @property
    def tokens(self) -> int:
        """Number of tokens that go through the network."""
        return len(self.passage) + sum(map(len, self.questions))


RowT = TypeVar("RowT", GeneratorRow, TeacherRow, EncoderRow)


@dataclass(frozen=True, eq=False)
class CrossEntropy(ABC, Generic[RowT]):
    """A cross-entropy, the mean over the terms of a batch: predicted tokens or questions.

    Attributes:
        network: What is trained.
        heads: Start and end head; a generator has none.
        rows: The examples.
        positions: Most tokens of a micro-batch.
    """

    network: Network
    heads: Sequence[nn.Module]
    rows: Sequence[RowT]
    positions: int

    @abstractmethod
    def sum_terms(self, rows: Sequence[RowT]) -> Tensor:
        """Return the sum over the terms of some rows."""

    def parts(self, batch: Sequence[int]) -> list[tuple[list[RowT], int]]:
        """Return micro-batches, each with the number of terms of the whole batch."""
        rows = [self.rows[i] for i in batch]
        terms = sum(row.terms for row in rows)
        chosen = split_batch([row.tokens for row in rows], self.positions)
        return [([rows[k] for k in some], terms) for some in chosen]

    def loss(self, part: tuple[list[RowT], int]) -> tuple[Tensor, TokenCounts]:
        """Return the micro-batch's share of the batch's loss."""
        rows, terms = part
        return self.sum_terms(rows) / terms, TokenCounts(trained=sum(row.tokens for row in rows))


@dataclass(frozen=True, eq=False)
class GeneratorObjective(CrossEntropy[GeneratorRow]):
    """- log p(answer, separator, question | passage) of a decoder, or an encoder with a decoder."""

    def sum_terms(self, rows: Sequence[GeneratorRow]) -> Tensor:
        """Return the sum over predicted tokens."""
        logits = self._encode_decode(rows) if self.network.seq2seq else self._continue(rows)
        outputs = concatenate(row.outputs for row in rows)
        wanted = torch.tensor(concatenate(outputs), device=logits.device)
        return cross_entropy(logits.float(), wanted, reduction="sum")

    def _continue(self, rows: Sequence[GeneratorRow]) -> Tensor:
        """Return the logits (n, v) of all predicted tokens; each is predicted one token earlier."""
        sources, begin = [], 0
        for row in rows:
            begin += len(row.prompt)
            last = begin - 1
            for output in row.outputs:
                sources += [last, *range(begin, begin + len(output) - 1)]
                begin += len(output)
        groups = [[row.prompt, *row.outputs] for row in rows]
        packed = any(len(row.outputs) > 1 for row in rows)
        states = encode_groups(self.network, groups, first_segment=1 if packed else None)
        return head_of(self.network)(states[torch.tensor(sources, device=states.device)])

    def _encode_decode(self, rows: Sequence[GeneratorRow]) -> Tensor:
        """Return the same of a model whose encoder reads the passage; a row has one output."""
        network = self.network
        ids, mask = pad_batch([row.prompt for row in rows], network)
        outputs, real = pad_batch([row.outputs[0] for row in rows], network)
        before = network.model.prepare_decoder_input_ids_from_labels(outputs)  # type: ignore[operator]
        logits: Tensor = network.model(
            input_ids=ids, attention_mask=mask, decoder_input_ids=before, use_cache=False
        ).logits
        return logits[real > 0]


@dataclass(frozen=True, eq=False)
class TeacherObjective(CrossEntropy[TeacherRow]):
    """- log p_start(first | c, q) - log p_end(last | c, q) of a cross-encoder."""

    def sum_terms(self, rows: Sequence[TeacherRow]) -> Tensor:
        """Return the sum over questions."""
        start, end = score_passages(self.network, self.heads, rows)  # (b, t) each
        answers = torch.tensor([row.answer for row in rows], device=start.device)  # (b, 2)
        loss = cross_entropy(start, answers[:, 0], reduction="sum")
        return loss + cross_entropy(end, answers[:, 1], reduction="sum")


@dataclass(frozen=True, eq=False)
class EncoderObjective(CrossEntropy[EncoderRow]):
    """- sum_i T_start(i) log p_start(i | c, q) - sum_i T_end(i) log p_end(i | c, q).

    Attributes:
        packed: Whether the sequences of a row are packed, see ``adapters._sharing.shareable``.
        scale: Factor of the inner products, see ``fold_scale``.
    """

    packed: bool = False
    scale: float = 1.0

    def sum_terms(self, rows: Sequence[EncoderRow]) -> Tensor:
        """Return the sum over questions."""
        states = iter(encode_examples(self.network, rows, packed=self.packed))
        at = -1 if self.network.decoder else 0  # the token that represents a question
        passages, questions, targets, begin = [], [], [], 0
        for row in rows:
            passages.append(next(states))
            questions += [next(states)[at] for _ in row.questions]
            targets.append(row.labels.tokens + begin)
            begin += len(row.passage)
        own = np.equal.outer(  # (m, n): the tokens of a question's own passage
            np.repeat(np.arange(len(rows)), [len(row.questions) for row in rows]),
            np.repeat(np.arange(len(rows)), [len(row.passage) for row in rows]),
        )
        weights = np.concatenate([row.labels.probabilities for row in rows])
        device = questions[0].device
        other = torch.from_numpy(~own).to(device)
        tokens = torch.from_numpy(np.concatenate(targets)).to(device)  # (m, 2, k)
        probabilities = torch.from_numpy(weights).to(device)  # (m, 2, k)
        loss = torch.zeros((), device=device)
        with torch.autocast(device.type, enabled=False):
            r_c = torch.cat(passages).float()  # (n, dim)
            r_q = torch.stack(questions).float()  # (m, dim)
            for side, head in enumerate(self.heads):
                scores = self.scale * head(r_q) @ r_c.T  # (m, n)
                log_p = scores.masked_fill(other, -torch.inf).log_softmax(-1)
                loss = loss - (probabilities[:, side] * log_p.gather(1, tokens[:, side])).sum()
        return loss


def fold_scale(heads: Sequence[nn.Module], scale: float) -> None:
    """Multiply the heads' outputs by the scale they were trained with, in place.

    The paper has no scale, and neither have the written weights. In training it keeps the scores
    of new heads with token states of large norm from being in the hundreds.
    """
    with torch.no_grad():
        for head in heads:
            for name, weight in head.named_parameters():
                if name.startswith("out_proj."):
                    weight.mul_(scale)


def make_teacher_rows(network: Network, passages: Sequence[TokenizedPassage]) -> list[TeacherRow]:
    """Return a row for each question of each passage, the passage cut to what the network takes.

    The question precedes the passage, whose tokens have then seen it in a decoder too.
    """
    newline = network.tokenizer("\n", add_special_tokens=False)["input_ids"]
    rows = []
    for passage in passages:
        for question, answer in zip(passage.questions, passage.answers, strict=True):
            ids = [*question, *newline, *passage.ids][: network.max_length]
            begin = len(question) + len(newline)
            held = answer is not None and begin + answer[1] < len(ids)
            rows.append(TeacherRow(ids, begin, answer if held else None))
    return rows


def score_passages(
    network: Network, heads: Sequence[nn.Module], rows: Sequence[TeacherRow]
) -> tuple[Tensor, Tensor]:
    """Return start and end scores of the passages' tokens, float32 (b, t) each; -inf at padding."""
    states = encode_groups(network, [[row.ids] for row in rows])
    widths = np.asarray([len(row.ids) - row.begin for row in rows])
    inside = np.concatenate([np.arange(len(row.ids)) >= row.begin for row in rows])
    real = torch.from_numpy(np.arange(widths.max()) < widths[:, None]).to(states.device)  # (b, t)
    with torch.autocast(states.device.type, enabled=False):
        states = states[torch.from_numpy(inside).to(states.device)].float()
        empty = torch.full(real.shape, -torch.inf, device=states.device)
        start, end = (empty.masked_scatter(real, head(states)[:, 0]) for head in heads)
    return start, end


def predict_answers(
    network: Network, heads: Sequence[nn.Module], rows: Sequence[TeacherRow], positions: int
) -> list[NDArray[np.float32]]:
    """Return for each row the teacher's start and end probabilities, float32 (2, t)."""
    found: list[NDArray[np.float32]] = [np.empty((2, 0), np.float32)] * len(rows)
    with torch.inference_mode():
        for some in micro_batches([row.tokens for row in rows], positions):
            scores = score_passages(network, heads, [rows[i] for i in some])
            probabilities = torch.stack(scores, 1).softmax(-1).cpu().numpy()  # (b, 2, t)
            for i, both in zip(some, probabilities, strict=True):
                found[i] = both[:, : rows[i].tokens - rows[i].begin]
    return found


def keep_largest(probabilities: NDArray[np.float32]) -> AnswerLabels:
    """Return the ``TOP`` most probable tokens (1, 2, k) of start and end probabilities (2, t)."""
    tokens = np.argsort(-probabilities, axis=1, kind="stable")[:, :TOP]
    fill = ((0, 0), (0, TOP - tokens.shape[1]))
    kept = np.pad(np.take_along_axis(probabilities, tokens, axis=1), fill)
    return AnswerLabels(np.pad(tokens, fill)[None], kept[None])


def make_certain(answers: Sequence[tuple[int, int]] | NDArray[np.int64]) -> AnswerLabels:
    """Return labels (m, 2, k) with probability 1 at the first and the last token of each answer."""
    tokens = np.zeros((len(answers), 2, TOP), np.int64)
    probabilities = np.zeros((len(answers), 2, TOP), np.float32)
    tokens[:, :, 0] = np.reshape(answers, (-1, 2))
    probabilities[:, :, 0] = 1
    return AnswerLabels(tokens, probabilities)


def label_known_answers(passages: Sequence[TokenizedPassage]) -> list[EncoderRow]:
    """Return passages with the answers that their questions came with.

    The passage's first token, if it is a special one, represents an answer that is not in the
    passage, as in the paper's "no teacher"; without one such a question is left out.
    """
    rows = []
    for passage in passages:
        first, last = passage.spans[0]
        absent = (0, 0) if first == last else None
        questions, answers = [], []
        for ids, answer in zip(passage.questions, passage.answers, strict=True):
            target = answer or absent
            if target is not None:
                questions.append(ids)
                answers.append(target)
        if questions:
            labels = make_certain(answers)
            rows.append(
                EncoderRow(passage.ids, questions, labels, "\n".join(passage.passage.texts))
            )
    return rows


def label_by_teacher(
    passages: Sequence[TokenizedPassage], labels: AnswerLabels
) -> list[EncoderRow]:
    """Return passages with labels of all their questions, in the order of the passages."""
    rows, begin = [], 0
    for passage in passages:
        end = begin + len(passage.questions)
        if begin < end:
            own = AnswerLabels(labels.tokens[begin:end], labels.probabilities[begin:end])
            rows.append(
                EncoderRow(passage.ids, passage.questions, own, "\n".join(passage.passage.texts))
            )
        begin = end
    return rows


def encode_examples(network: Network, rows: Sequence[EncoderRow], *, packed: bool) -> list[Tensor]:
    """Return the states (t, dim) of each row's passage, then of its questions, row after row.

    Args:
        network: The encoder.
        rows: What is encoded; no sequence sees another.
        packed: Whether a row is computed as one sequence, or each of its sequences alone.
    """
    groups = [[row.passage, *row.questions] for row in rows]
    sequences = concatenate(groups)
    lengths = [len(sequence) for sequence in sequences]
    if packed:
        return list(torch.split(encode_groups(network, groups, first_segment=2), lengths))
    found: list[Tensor] = [torch.empty(0)] * len(sequences)
    order = np.argsort(lengths, kind="stable")
    for cut in np.array_split(order, min(_CUTS, len(order))):
        states = encode_groups(network, [[sequences[i]] for i in cut])
        for i, own in zip(cut, torch.split(states, [lengths[i] for i in cut]), strict=True):
            found[i] = own
    return found


def encode_groups(
    network: Network, groups: Sequence[Sequence[list[int]]], *, first_segment: int | None = None
) -> Tensor:
    """Return the last-layer states (n, dim) of all tokens, one after the other, without padding.

    Args:
        network: A decoder if there are segments.
        groups: Token ids of sequences; those of a group share a row of the batch.
        first_segment: Number of a group's first segment; the next sequences count on from it. A
            segment sees itself and segment 1, see ``shared_states``. None: a group is one text.
    """
    ids, mask = pad_batch([concatenate(group) for group in groups], network)
    if first_segment is None:
        return network.hidden_states(ids, mask)[mask > 0]
    segments = []
    for group in groups:
        numbers = range(first_segment, first_segment + len(group))
        segments.append(np.repeat(numbers, [len(sequence) for sequence in group]).tolist())
    return shared_states(network, ids, pad(segments, 0, network.device))[mask > 0]


T = TypeVar("T")


def concatenate(lists: Iterable[Sequence[T]]) -> list[T]:
    """Return the elements of lists, one list after the other."""
    return list(itertools.chain.from_iterable(lists))
