"""The file of generated texts: JSON lines in the original's format, added to batch by batch, so that a kill costs one batch.

A row has the original's three keys and no others, since its reader refuses more; all else is in the file beside it.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from adapters._backbone import Backbone
from adapters._files import read_json
from adapters.dino.generation import Generated, Wish, Writing, ready, written
from adapters.dino.postprocess import Pair
from adapters.dino.specification import Specification
from bench.encoder import digest
from bench.errors import DataError, UsageError
from bench.files import ESCAPED, write_atomic

Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Order:
    """What is to be generated.

    Attributes:
        task: What is written for each label.
        x1: First texts, all different; a task without them has one empty one.
        samples: Texts drawn for each first text and label.
        writing: How texts are written.
        model: What stands behind the generator, such as a digest of weights and number type.
        batch: First texts written at once. Rounding differs between batches, so it is part of the order.
    """

    task: Specification
    x1: Sequence[str]
    samples: int
    writing: Writing
    model: str
    batch: int = 32

    def settings(self) -> dict[str, Any]:
        """Return all that decides the file, plain JSON values."""
        task = {name: asdict(label) for name, label in self.task.labels.items()}
        decisive = {
            "task_name": self.task.task_name, "labels": task, "x1": digest(list(self.x1)), "inputs": len(self.x1),
            "samples": self.samples, "writing": asdict(self.writing), "model": self.model, "batch": self.batch,
        }  # fmt: skip
        return cast("dict[str, Any]", json.loads(json.dumps(decisive)))

    def files(self, folder: Path) -> tuple[Path, Path]:
        """Return the file of texts in a folder, and the one that says with which settings and how far it is."""
        return (
            folder / f"{self.task.task_name}-dataset.jsonl",
            folder / f"{self.task.task_name}-args.json",
        )

    def batches(self) -> list[list[Wish]]:
        """Return what is written together: first texts of similar length; the order of the batches is random, by the seed."""
        if not self.task.takes_input:
            starts = range(0, self.samples, self.batch)
            return [
                [
                    Wish("", label, k)
                    for k in range(self.samples)[s : s + self.batch]
                    for label in self.task.labels
                ]
                for s in starts
            ]
        order = sorted(range(len(self.x1)), key=lambda i: (len(self.x1[i]), i))
        groups = [order[i : i + self.batch] for i in range(0, len(order), self.batch)]
        shuffled = np.random.default_rng(self.writing.seed).permutation(len(groups))
        return [
            [
                Wish(self.x1[i], label, k)
                for i in groups[g]
                for label in self.task.labels
                for k in range(self.samples)
            ]
            for g in shuffled
        ]


@dataclass(frozen=True)
class Dataset:
    """What has been generated.

    Attributes:
        path: The file.
        batches: How many batches are in it.
        size: Its length in bytes; what is behind it was being written when a process was killed.
        positions: Token positions through the generator.
        seconds: Time spent generating.
        counts: Texts asked for, kept, and dropped by reason.
    """

    path: Path
    batches: int
    size: int
    positions: int
    seconds: float
    counts: Mapping[str, int]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows.

        Raises:
            DataError: The file ends before it should.
        """
        self.check()
        yield from map(json.loads, self.path.read_bytes()[: self.size].splitlines())

    def check(self) -> None:
        """Return when the file holds what it should.

        Raises:
            DataError: It ends before that, or is missing.
        """
        got = self.path.stat().st_size if self.path.is_file() else 0
        if got < self.size:
            raise DataError(
                f"expected {self.size} bytes in {self.path}, got {got}: delete it and its args.json, and generate again"
            )

    def summary(self) -> dict[str, Any]:
        """Return what it took and what came of it, plain JSON values."""
        return {
            "seconds": round(self.seconds, 1),
            "inference_tokens": self.positions,
            **self.counts,
        }

    def pairs(self) -> list[Pair]:
        """Return the pairs, labels as numbers."""
        return [Pair(row["text_a"], row["text_b"], float(row["label"])) for row in self.rows()]


def generator_of(backbone: Backbone) -> str:
    """Return what stands for a generator in an order: a digest of its weights and of the number type it computes in."""
    card = backbone.card()
    return digest([card.weights, card.dtype])


def adopt(order: Order, folder: Path, others: Iterable[Path]) -> None:
    """Copy the file that holds just this order, whole, from another folder, unless this folder has one.

    Args:
        order: What is to be generated.
        folder: Where it would be.
        others: Where it may be already.
    """
    if order.files(folder)[1].is_file():
        return
    settings, batches = order.settings(), len(order.batches())
    for other in others:
        data, args = order.files(other)
        noted = _noted(args)
        if noted and data.is_file() and noted[0] == settings and noted[1]["batches"] == batches:
            for path in (data, args):
                write_atomic(folder / path.name, path.read_bytes())
            return


def generated(order: Order, backbone: Backbone, folder: Path, report: Report) -> Dataset:
    """Generate what is not in the folder's file yet, and return the whole.

    Args:
        order: What to generate.
        backbone: A decoder with its language-model head; loaded only when there is something to generate.
        folder: Where the two files of the order lie.
        report: Told about texts.

    Raises:
        UsageError: The folder holds texts generated with other settings, or the backbone is no decoder.
        DataError: The file of texts is shorter than what has been generated, or nothing says what is in it; or a prompt leaves no
            room for the text. All prompts are looked at before the first is written to.
        OSError: It cannot be written.
    """
    data, args = order.files(folder)
    settings, plan = order.settings(), order.batches()
    done = _read(data, args, settings)
    left = plan[done.batches :]
    folder.mkdir(parents=True, exist_ok=True)
    if left:
        ready(backbone.load(), order.task, left, order.writing)
        _note(args, settings, backbone, done)  # before the file: one without a note is not ours
    with data.open("ab") as file:
        file.truncate(done.size)
        for batch in left:
            asked = sum(map(len, plan[: done.batches]))
            speed = (
                f"{done.counts.get('kept', 0) / done.seconds:.1f} texts/s"
                if done.seconds
                else "first batch"
            )
            report(f"dino: generating ({speed})", asked, sum(map(len, plan)))
            start = time.perf_counter()
            made = written(backbone.load(), order.task, batch, order.writing)
            lines = "".join(
                json.dumps(row, ensure_ascii=False) + "\n" for row in _rows(order, batch, made)
            ).encode("utf-8", ESCAPED)
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
            done = _more(done, made, len(lines), time.perf_counter() - start)
            _note(args, settings, backbone, done)
    return done


def _note(args: Path, settings: Mapping[str, Any], backbone: Backbone, done: Dataset) -> None:
    """Write with which settings a file of texts is generated, the generator's name, which decides nothing, and how far it is."""
    noted = {**settings, "generator": backbone.card().backbone, "done": _plain(done)}
    write_atomic(args, json.dumps(noted, indent=1, ensure_ascii=False) + "\n")


def _rows(order: Order, batch: Sequence[Wish], made: Generated) -> Iterator[dict[str, Any]]:
    for wish, text in zip(batch, made.written, strict=True):
        if not text.dropped:
            a, b = (wish.x1, text.text) if order.task.takes_input else (text.text, None)
            yield {"text_a": a, "text_b": b, "label": wish.label}


def _more(done: Dataset, made: Generated, size: int, seconds: float) -> Dataset:
    counts = (
        Counter(done.counts)
        + Counter(text.dropped or "kept" for text in made.written)
        + Counter(asked=len(made.written))
    )
    return Dataset(
        done.path,
        done.batches + 1,
        done.size + size,
        done.positions + made.positions,
        done.seconds + seconds,
        dict(counts),
    )


def _plain(done: Dataset) -> dict[str, Any]:
    return {name: value for name, value in asdict(done).items() if name != "path"}


def _read(data: Path, args: Path, settings: Mapping[str, Any]) -> Dataset:
    noted = _noted(args)
    if not noted:
        if data.is_file() and data.stat().st_size:
            raise DataError(
                f"expected {args.name} beside {data}, got texts of unknown settings: move them, or choose another folder"
            )
        return Dataset(data, 0, 0, 0, 0.0, {})
    kept, done = noted
    if kept != settings:
        raise UsageError(
            f"{args} belongs to texts generated with other settings: delete its folder, or choose another --out"
        )
    found = Dataset(data, **done)
    found.check()
    return found


def _noted(args: Path) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Return the settings of a file of texts and how far it is; None where there is no such note."""
    if not args.is_file():
        return None
    kept = read_json(args)
    kept.pop("generator", None)
    done = kept.pop("done", {"batches": 0})
    return kept, done
