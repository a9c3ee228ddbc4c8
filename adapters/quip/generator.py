"""Stage 1 of QuIP: a language model learns to write an answer and a question from a passage.

Jia, Lewis, Zettlemoyer (Findings of ACL 2022), section 3: answer, separator and question are generated from the passage. The paper's
generator is BART-large; here it is a decoder, or a model that reads with an encoder and writes with a decoder, as BART does, where
one is named.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import numpy as np

from adapters._backbone import Network
from adapters._head import head_of
from adapters._sharing import shareable
from adapters._training.budget import Spent
from adapters._training.loop import Objective, shared
from adapters.quip.passages import Passage, Question
from adapters.quip.stages import Packed, collated, states_of

if TYPE_CHECKING:
    from torch import Tensor

ASK, SEPARATOR = "\n\nAnswer:", "\nQuestion:"
"""What follows the passage, and what stands between answer and question."""

_LONGEST_ANSWER = 120  # characters: the answers of some sets are sentences, which teach to copy


class Target(NamedTuple):
    """Sequences packed into a row, with the tokens that are predicted.

    Attributes:
        row: The passage, then one or several answers with their questions.
        sources: Positions whose states predict.
        targets: Positions of the tokens they predict.
    """

    row: Packed
    sources: list[int]
    targets: list[int]

    @property
    def length(self) -> int:
        """Token positions through the network."""
        return len(self.row.ids)

    @property
    def predicted(self) -> int:
        """Tokens that are predicted."""
        return len(self.targets)


class Translated(NamedTuple):
    """What an encoder reads, and what its decoder writes."""

    read: list[int]
    written: list[int]

    @property
    def length(self) -> int:
        """Token positions through the network."""
        return len(self.read) + len(self.written)

    @property
    def predicted(self) -> int:
        """Tokens that are predicted."""
        return len(self.written)


def targets(network: Network, passages: Sequence[Passage], *, limit: int) -> list[Target]:
    """Return the training rows: the questions of a passage share its computation where the network lets them.

    Args:
        network: A decoder.
        passages: With the questions that people asked; a passage without any gives no row.
        limit: Most tokens of a passage.
    """
    tokenizer, sharing = network.tokenizer, shareable(network)
    asked = [p for p in passages if any(_short(q) for q in p.questions)]
    heads = prompt_ids(network, [p.text for p in asked], limit=limit)
    made = []
    for passage, common in zip(asked, heads, strict=True):
        texts = _asked(passage)
        own = [
            [*ids, tokenizer.eos_token_id]
            for ids in tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        ]
        made += [_target(common, own)] if sharing else [_target(common, [ids]) for ids in own]
    return made


def _asked(passage: Passage) -> list[str]:
    return [
        f" {passage.text[q.start : q.end]}{SEPARATOR} {q.text}"
        for q in passage.questions
        if _short(q)
    ]


def _short(question: Question) -> bool:
    return 0 < question.end - question.start <= _LONGEST_ANSWER


def _target(common: list[int], own: Sequence[list[int]]) -> Target:
    ids, parts = list(common), [1] * len(common)
    sources: list[int] = []
    aims: list[int] = []
    for k, tokens in enumerate(own, 2):
        sources += [len(common) - 1, *range(len(ids), len(ids) + len(tokens) - 1)]
        aims += range(len(ids), len(ids) + len(tokens))
        ids += tokens
        parts += [k if len(own) > 1 else 1] * len(tokens)
    return Target(Packed(ids, parts), sources, aims)


def prompt_ids(network: Network, texts: Sequence[str], *, limit: int) -> list[list[int]]:
    """Return the ids of passages, cut at ``limit``, with what asks a decoder for an answer and a question."""
    tokenizer = network.tokenizer
    if network.seq2seq:
        room = limit + tokenizer.num_special_tokens_to_add()
        return (
            [
                list(ids)
                for ids in tokenizer(list(texts), truncation=True, max_length=room)["input_ids"]
            ]
            if texts
            else []
        )
    ask = tokenizer(ASK, add_special_tokens=False)["input_ids"]
    encoded = (
        tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        if texts
        else []
    )
    start = (
        [tokenizer.bos_token_id]
        if tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id]
        else []
    )
    return [[*start, *ids[:limit], *ask] for ids in encoded]


RowT = TypeVar("RowT", Target, Translated)


@dataclass(frozen=True, eq=False)
class _Asking(Generic[RowT]):
    """Cross-entropy of answers and questions given their passages, the mean over the tokens of the batch."""

    network: Network
    rows: Sequence[RowT]
    positions: int

    def parts(self, batch: Sequence[int]) -> list[tuple[list[RowT], int]]:
        """Cut a batch into portions of at most ``positions`` positions, each with the number of tokens of the whole batch."""
        rows = [self.rows[i] for i in batch]
        predicted = sum(row.predicted for row in rows)
        return [
            ([rows[k] for k in some], predicted)
            for some in shared([row.length for row in rows], self.positions)
        ]


class Writing(_Asking[Target]):
    """What a decoder learns: it goes on from the passage."""

    def loss(self, part: tuple[list[Target], int]) -> "tuple[Tensor, Spent]":
        """Return the portion's share of the batch's loss."""
        import torch
        from torch.nn.functional import cross_entropy

        rows, predicted = part
        states = states_of(self.network, [row.row for row in rows])
        ends = np.cumsum([row.length for row in rows])
        begins = ends - [row.length for row in rows]
        sources = torch.from_numpy(
            np.concatenate(
                [b + np.asarray(row.sources) for b, row in zip(begins, rows, strict=True)]
            )
        )
        wanted = torch.tensor(
            [row.row.ids[k] for row in rows for k in row.targets], device=states.device
        )
        logits = head_of(self.network)(states[sources.to(states.device)])
        return cross_entropy(logits, wanted, reduction="sum") / predicted, Spent(
            trained=int(ends[-1])
        )


def translations(network: Network, passages: Sequence[Passage], *, limit: int) -> list[Translated]:
    """Return the training rows of a model with encoder and decoder; arguments as for ``targets``."""
    asked = [p for p in passages if any(_short(q) for q in p.questions)]
    heads = prompt_ids(network, [p.text for p in asked], limit=limit)
    texts = [
        (head, text.strip())
        for passage, head in zip(asked, heads, strict=True)
        for text in _asked(passage)
    ]
    if not texts:
        return []
    own = network.tokenizer(text_target=[text for _, text in texts], verbose=False)["input_ids"]
    return [Translated(head, list(ids)) for (head, _), ids in zip(texts, own, strict=True)]


class Translating(_Asking[Translated]):
    """What a model with encoder and decoder learns: the encoder reads the passage."""

    def loss(self, part: tuple[list[Translated], int]) -> "tuple[Tensor, Spent]":
        """Return the portion's share of the batch's loss."""
        import torch
        from torch.nn.functional import cross_entropy

        rows, predicted = part
        ids, mask = collated([Packed(row.read, [1] * len(row.read)) for row in rows], self.network)
        width = max(len(row.written) for row in rows)
        labels = torch.tensor(
            [row.written + [-100] * (width - len(row.written)) for row in rows], device=ids.device
        )
        before = self.network.model.prepare_decoder_input_ids_from_labels(labels)  # type: ignore[operator]
        logits = self.network.model(
            input_ids=ids, attention_mask=mask, decoder_input_ids=before, use_cache=False
        ).logits
        loss = cross_entropy(
            logits.flatten(0, 1).float(), labels.flatten(), reduction="sum", ignore_index=-100
        )
        return loss / predicted, Spent(trained=sum(row.length for row in rows))


def learning(
    network: Network, passages: Sequence[Passage], *, limit: int, positions: int
) -> tuple[list[int], Callable[[Network], Objective[Any]]]:
    """Return the lengths of the rows that a generator learns from, and their objective for the network that is trained.

    Args:
        network: A decoder, or a model with encoder and decoder.
        passages: With the questions that people asked.
        limit: Most tokens of a passage.
        positions: Token positions computed at once.
    """
    if network.seq2seq:
        pairs = translations(network, passages, limit=limit)
        return [row.length for row in pairs], lambda trained: Translating(trained, pairs, positions)
    rows = targets(network, passages, limit=limit)
    return [row.length for row in rows], lambda trained: Writing(trained, rows, positions)
