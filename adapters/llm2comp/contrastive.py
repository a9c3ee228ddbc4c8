"""Stages 2 and 3: texts that mean the same are drawn together, others apart.

Unsupervised, the two views of a text are two passes under different dropout (SimCSE); supervised, a query has its answer and a
text that looks like one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from adapters._text import Framed, prompts
from adapters._training.budget import Spent
from adapters._training.card import Material
from adapters._training.loop import autocast, launched, seeded, shared
from adapters.llm2comp.encoder import framed
from adapters.llm2comp.gradients import carrying
from adapters.llm2comp.instructions import instruction_of
from adapters.llm2comp.trainee import Trainee
from bench.errors import DataError
from bench.recipe import Load

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


class Part(NamedTuple):
    """Some texts of a batch.

    Attributes:
        rows: Their token ids.
        order: Where each belongs among all texts of the batch, view after view.
        views: How many texts an example has.
        seed: Of the dropout; None where all of the batch is in this part.
        value: The part's share of the loss, where that is known already.
        gradient: Of the loss with respect to each vector (n, dim), where that is known already.
    """

    rows: list[list[int]]
    order: list[int]
    views: int
    seed: int | None = None
    value: float = 0.0
    gradient: "Tensor | None" = None


@dataclass(frozen=True, eq=False)
class Contrast:
    """Cross-entropy of finding an example's second text among all others of the batch, by cosine over temperature.

    The candidates of a first text are the second ones of all examples and, where there are, the third ones. A batch that does not
    fit into memory, or that several processes share, is computed twice: once for the vectors, which give the gradient of each, and
    once, portion by portion under the same dropout, for the weights' gradients. With several processes every process computes
    some portions, and all vectors are candidates.

    Attributes:
        trainee: What is trained.
        rows: The token ids of each example's texts: twice the same, or query, positive and negative.
        temperature: Divides the cosine.
        positions: Token positions computed at once; it changes nothing but which masks the dropout draws, as the number of processes does.
    """

    trainee: Trainee
    rows: Sequence[Sequence[list[int]]]
    temperature: float
    positions: int

    def parts(self, batch: Sequence[int]) -> list[Part]:
        """Cut a batch into portions, with the gradient of each vector where there are several."""
        import torch

        views, k = len(self.rows[batch[0]]), len(self.trainee.memory)
        texts = [self.rows[i][view] for view in range(views) for i in batch]
        orders = shared([len(ids) + k for ids in texts], self.positions)
        parts = [Part([texts[i] for i in order], order, views) for order in orders]
        if len(parts) == 1:
            return parts
        parts = [
            part._replace(seed=int(seed))
            for part, seed in zip(parts, torch.randint(1 << 40, (len(parts),)), strict=True)
        ]
        vectors = self._vectors(parts, len(texts)).requires_grad_()
        loss = contrast(vectors.view(views, len(batch), -1), self.temperature)
        (gradient,) = torch.autograd.grad(loss, vectors)
        return [
            part._replace(value=float(loss.detach()) / len(parts), gradient=gradient[part.order])
            for part in parts
        ]

    def loss(self, part: Part) -> "tuple[Tensor, Spent]":
        """Return the part's share of the batch's loss; the pass that caches gradients is in the seconds, not in the positions."""
        import torch

        spent = Spent(trained=sum(len(ids) + len(self.trainee.memory) for ids in part.rows))
        vectors = self._embedded(part)
        if part.gradient is not None:
            return carrying(
                torch.tensor(part.value, device=vectors.device), vectors, part.gradient
            ), spent
        ordered = vectors[torch.tensor(part.order, device=vectors.device).argsort()]
        return contrast(ordered.view(part.views, -1, vectors.shape[-1]), self.temperature), spent

    def _embedded(self, part: Part) -> "Tensor":
        if part.seed is None:
            return self.trainee.embeddings(part.rows)
        with seeded(part.seed, self.trainee.network.device):
            return self.trainee.embeddings(part.rows)

    def _vectors(self, parts: Sequence[Part], count: int) -> "Tensor":
        """Return the vectors of all parts (count, dim), each computed by the process that will train on it."""
        import torch
        from accelerate.utils import reduce

        network, processes = self.trainee.network, launched()
        vectors = torch.zeros(count, network.dim, device=network.device)
        with torch.no_grad(), autocast(network):
            for part in parts[processes.process_index :: processes.num_processes]:
                vectors[torch.tensor(part.order, device=network.device)] = self._embedded(part)
        return reduce(vectors, "sum") if processes.num_processes > 1 else vectors


def contrast(vectors: "Tensor", temperature: float) -> "Tensor":
    """Return the mean cross-entropy of finding each first text's second one among those of the batch and all third ones.

    Args:
        vectors: (views, n, dim), of any length.
        temperature: Divides the cosine.
    """
    import torch
    from torch.nn.functional import cross_entropy, normalize

    unit = normalize(vectors.float(), dim=-1)
    scores = unit[0] @ unit[1:].flatten(0, 1).T / temperature
    return cross_entropy(scores, torch.arange(len(scores), device=scores.device))


def twice(
    sentences: Sequence[str], tokenizer: "PreTrainedTokenizerBase", limit: int
) -> list[tuple[list[int], list[int]]]:
    """Return examples of two views of a sentence, at most ``limit`` positions long."""
    return [
        (prompt.ids, prompt.ids)
        for prompt in prompts(tokenizer, [Framed(text) for text in sentences], limit=limit)
    ]


class Triple(NamedTuple):
    """A query as the encoder reads it, a text that answers it, and one that does not."""

    query: Framed
    positive: str
    negative: str


def triples_of(
    files: Sequence[str], load: Load, *, corrected: bool = False
) -> tuple[list[Triple], list[Material]]:
    """Return the triples of files with columns query, positive and negative, and maybe the query's instruction.

    Without that column a file named like a set of the paper, such as ``nq.jsonl``, has that set's; any other has none.

    Args:
        files: Names of files or sets.
        load: Reads them.
        corrected: As for ``instruction_of``.

    Raises:
        Unavailable: A file is not there.
        DataError: A column is missing, or one of the three texts of a row.
    """
    made: list[Triple] = []
    material = []
    for name in files:
        table = load(name, "train", columns=("query", "positive", "negative"))
        source = Path(name).name.partition(".")[0]
        known = (instruction_of(source, line, corrected=corrected) for line in range(len(table)))
        asked = table["instruction"] if "instruction" in table.columns else known
        rows = zip(table["query"], asked, table["positive"], table["negative"], strict=True)
        for line, (query, instruction, positive, negative) in enumerate(rows, 1):
            if not all(isinstance(text, str) for text in (query, positive, negative)):
                raise DataError(
                    f"{name} line {line}: expected texts as query, positive and negative, got {(query, positive, negative)!r:.80}"
                )
            made.append(Triple(framed(query, instruction or ""), positive, negative))
        material.append(Material(name, "as its owner says", len(table), dict(table.pin)))
    return made, material


def tokenised(
    rows: Sequence[Triple], tokenizer: "PreTrainedTokenizerBase", limit: int
) -> list[tuple[list[int], ...]]:
    """Return triples as token ids, at most ``limit`` positions each."""
    texts = [
        framed
        for query, positive, negative in rows
        for framed in (query, Framed(positive), Framed(negative))
    ]
    ids = [prompt.ids for prompt in prompts(tokenizer, texts, limit=limit)]
    return [tuple(ids[i : i + 3]) for i in range(0, len(ids), 3)]
