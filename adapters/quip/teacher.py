"""Stages 2 and 3 of QuIP: a cross-encoder learns to find answers, and says where those of all generated questions are.

Jia, Lewis, Zettlemoyer (Findings of ACL 2022), section 3: passage and question are read together, two 2-layer heads give start
and end, and of each distribution over the passage the eight largest probabilities are kept. The question stands before the
passage: in a decoder, tokens of the passage have then seen it.
"""

import io
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from adapters._backbone import Network
from adapters._training.budget import Spent, portions
from adapters._training.loop import Training, shared
from adapters.quip.stages import Note, Packed, states_of
from bench.errors import DataError
from bench.files import write_atomic
from bench.recipe import Progress

if TYPE_CHECKING:
    from torch import Tensor, nn

_SHARD = 512
"""Questions in a file of labels: what a kill can cost."""


class Pair(NamedTuple):
    """A question and a passage in one sequence.

    Attributes:
        ids: Question, line break, passage.
        begin: Position of the passage's first token.
        start: Where the answer starts, among the passage's tokens; -1 where that is asked.
        end: Where it ends, likewise; this token belongs to it.
    """

    ids: list[int]
    begin: int
    start: int = -1
    end: int = -1


class Labels(NamedTuple):
    """The likeliest places of answers.

    Attributes:
        places: int64 (m, 2, k): tokens of the passage where the answers start, and where they end.
        chances: float32 (m, 2, k): their probabilities, 0 where a passage has fewer than k tokens.
    """

    places: NDArray[np.int64]
    chances: NDArray[np.float32]


def pair(
    network: Network, question: list[int], passage: list[int], answer: tuple[int, int] = (-1, -1)
) -> Pair:
    """Return a question and a passage in one sequence; a passage that leaves the network no room is cut at its end."""
    ids = [*question, *network.tokenizer("\n", add_special_tokens=False)["input_ids"]]
    return Pair([*ids, *passage][: network.max_length], len(ids), *answer)


@dataclass(frozen=True, eq=False)
class Finding:
    """Cross-entropy of the answers' first and last tokens among those of their passages, the mean over the batch."""

    network: Network
    heads: "Sequence[nn.Module]"
    pairs: Sequence[Pair]
    positions: int

    def parts(self, batch: Sequence[int]) -> list[tuple[list[Pair], int]]:
        """Cut a batch into portions of at most ``positions`` positions, each with the number of examples of the batch."""
        rows = [self.pairs[i] for i in batch]
        return [
            ([rows[k] for k in some], len(rows))
            for some in shared([len(row.ids) for row in rows], self.positions)
        ]

    def loss(self, part: tuple[list[Pair], int]) -> "tuple[Tensor, Spent]":
        """Return the portion's share of the batch's loss."""
        import torch
        from torch.nn.functional import cross_entropy

        rows, whole = part
        start, end = scores(self.network, self.heads, rows)
        wanted = torch.tensor([[row.start, row.end] for row in rows], device=start.device).T
        loss = cross_entropy(start, wanted[0], reduction="sum") + cross_entropy(
            end, wanted[1], reduction="sum"
        )
        return loss / whole, Spent(trained=sum(len(row.ids) for row in rows))


def scores(
    network: Network, heads: "Sequence[nn.Module]", rows: Sequence[Pair]
) -> "tuple[Tensor, Tensor]":
    """Return start and end scores, float32 (b, t) each, of the tokens of each passage; -inf behind its last."""
    import torch

    states = states_of(network, [Packed(row.ids, [1] * len(row.ids)) for row in rows])
    widths = np.asarray([len(row.ids) - row.begin for row in rows])
    inside = np.concatenate([np.arange(len(row.ids)) >= row.begin for row in rows])
    real = torch.from_numpy(np.arange(widths.max()) < widths[:, None]).to(states.device)
    with torch.autocast(states.device.type, enabled=False):
        own = states[torch.from_numpy(inside).to(states.device)].float()
        empty = torch.full(real.shape, -torch.inf, device=states.device)
        start, end = (empty.masked_scatter(real, head(own)[:, 0]) for head in heads)
    return start, end


def predicted(
    network: Network, heads: "Sequence[nn.Module]", rows: Sequence[Pair], positions: int
) -> list[NDArray[np.float32]]:
    """Return for each row the start and end probabilities of its passage's tokens, float32 (2, t)."""
    import torch

    found: list[NDArray[np.float32]] = [np.empty((2, 0), np.float32)] * len(rows)
    with torch.inference_mode():
        for some in portions([len(row.ids) for row in rows], positions):
            both = (
                torch.stack(scores(network, heads, [rows[i] for i in some]))
                .softmax(-1)
                .cpu()
                .numpy()
            )
            for k, i in enumerate(some):
                found[i] = both[:, k, : len(rows[i].ids) - rows[i].begin]
    return found


def relabelled(
    network: Network,
    heads: "Sequence[nn.Module]",
    rows: Sequence[Pair],
    folder: Path,
    training: Training,
    positions: int,
    progress: Progress,
) -> tuple[Labels, dict[str, Any]]:
    """Return the teacher's likeliest places, and what that took; go on where an earlier call was killed.

    Args:
        network: The teacher's, ready for inference.
        heads: Its heads.
        rows: What is asked.
        folder: Gets a Parquet file for every ``_SHARD`` questions, with the columns ``question``, its number among ``rows``, and
            ``places`` and ``chances``, those of starts before those of ends.
        training: Says how many places are kept (``top``).
        positions: Token positions computed at once.
        progress: Told about questions.
    """
    note, top = Note(folder / "stage.json", training), int(training.recipe["top"])
    done = note.begun()
    order = np.asarray(sorted(range(len(rows)), key=lambda i: -len(rows[i].ids)), np.int64)
    shards = [
        (folder / f"{n:05d}.parquet", order[i : i + _SHARD])
        for n, i in enumerate(range(0, len(order), _SHARD))
    ]
    for n, (path, chosen) in enumerate(shards):
        if path.is_file():
            continue
        progress("quip: relabelling", n * _SHARD, len(rows))
        begun = time.perf_counter()
        kept = [
            likeliest(both, top)
            for both in predicted(network, heads, [rows[i] for i in chosen], positions)
        ]
        took = {
            "seconds": time.perf_counter() - begun,
            "positions": sum(len(rows[i].ids) for i in chosen),
        }
        write_atomic(path, _parquet(chosen, kept, took))
    labels, took = _joined([path for path, _ in shards], len(rows), top)
    if done is None:
        note.write(questions=len(rows), **took)
    return labels, note.read() or {}


def likeliest(both: NDArray[np.float32], top: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the places and the probabilities (2, top) of the largest numbers of each row, the largest first; zeros fill up."""
    k = min(top, both.shape[1])
    places = np.argsort(-both, axis=1, kind="stable")[:, :k]
    fill = ((0, 0), (0, top - k))
    return np.pad(places, fill), np.pad(np.take_along_axis(both, places, axis=1), fill)


def _parquet(
    numbers: NDArray[np.int64],
    kept: Sequence[tuple[NDArray[Any], NDArray[Any]]],
    took: Mapping[str, float],
) -> bytes:
    """Return labels and what they took as a Parquet file."""
    import pyarrow as pa
    from pyarrow import parquet

    places = np.stack([places for places, _ in kept]).astype(np.uint16)
    chances = np.stack([chances for _, chances in kept]).astype(np.float16)
    width = places[0].size
    columns = {
        "question": pa.array(numbers.astype(np.int32)),
        "places": pa.FixedSizeListArray.from_arrays(pa.array(places.ravel()), width),
        "chances": pa.FixedSizeListArray.from_arrays(pa.array(chances.ravel()), width),
    }
    file = io.BytesIO()
    parquet.write_table(pa.table(columns, metadata={"took": json.dumps(took)}), file)
    return file.getvalue()


def _joined(paths: Sequence[Path], number: int, top: int) -> tuple[Labels, dict[str, Any]]:
    import pyarrow as pa
    from pyarrow import parquet

    labels = Labels(np.zeros((number, 2, top), np.int64), np.zeros((number, 2, top), np.float32))
    seconds, positions = 0.0, 0
    for path in paths:
        try:
            table = parquet.read_table(path)
            rows, took = (
                table["question"].to_numpy(),
                json.loads((table.schema.metadata or {})[b"took"]),
            )
            for name, whole in (("places", labels.places), ("chances", labels.chances)):
                whole[rows] = table[name].combine_chunks().flatten().to_numpy().reshape(-1, 2, top)
        except (pa.ArrowException, OSError, KeyError, IndexError, ValueError) as error:
            raise DataError(
                f"expected labels in {path}, cannot read them ({error}): delete the file"
            ) from error
        seconds, positions = seconds + took["seconds"], positions + took["positions"]
    return labels, {"positions": positions, "seconds": round(seconds, 1)}
