"""The jobs of an engine, and how a worker does them, in whichever process it is."""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from bench import data
from bench.embeddings import CachedEncoder, Cost
from bench.encoder import Batch, Encoder, Item, stream
from bench.errors import BenchError, Unavailable, UsageError, install_hint, one_line
from bench.process import peak_memory_mb, raise_if_stopped
from bench.recipe import Load, Progress
from bench.task import Scores, Task, find_fault, record_original

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Encode:
    """Wanted: the vectors of items, each once.

    Attributes:
        encoder: What encodes them; its cache lacks them.
        items: The items, in any order.
    """

    encoder: CachedEncoder
    items: Sequence[Item]


@dataclass(frozen=True, eq=False)
class Measure:
    """Wanted: the scores of a cell that needs the network itself.

    Attributes:
        encoder: The encoder behind a cache of its own counts.
        task: The task.
        seed: Its seed.
    """

    encoder: CachedEncoder
    task: Task
    seed: int


class Training(Protocol):
    """What trains a checkpoint, such as ``bench.trainings.PlannedTraining``."""

    @property
    def out(self) -> Path:
        """Folder of the checkpoint."""
        ...

    def run(self, load: Load, progress: Progress) -> Path:
        """Train, or resume, and return the folder."""
        ...


@dataclass(frozen=True, eq=False)
class Train:
    """Wanted: a checkpoint.

    Attributes:
        training: What trains it, and resumes where an earlier process has ended.
        progress: Is told how far it is, in the process that has submitted the job.
    """

    training: Training
    progress: Progress


Job = Encode | Measure | Train


@dataclass(frozen=True)
class Portion:
    """A batch of vectors of a job's items.

    Attributes:
        batch: Its positions are those in the items of the job.
        cost: What it took the worker.
        device: Where it was computed, if the engine says so.
    """

    batch: Batch
    cost: Cost
    device: str = ""


@dataclass(frozen=True)
class Measured:
    """What came out of a cell.

    Attributes:
        scores: Scores by metric name.
        samples: A few examples in words.
        texts: Counts of the texts the task asked for, see ``bench.store.result.Result``.
        cost: What encoding took.
        sources: The data sets that were read, see ``bench.data.record_sources``.
        seconds: Of the scores alone.
        original: What the task's own library returned, see ``bench.task.record_original``.
        device: Where it was computed, if the engine says so.
    """

    scores: Scores
    samples: Sequence[Mapping[str, str]]
    texts: Mapping[str, float]
    cost: Cost
    sources: Sequence[Mapping[str, Any]]
    seconds: float
    original: Mapping[str, Any]
    device: str = ""


class Failure(NamedTuple):
    """Why a job, or a cell, has no outcome.

    Attributes:
        status: "skipped" where something is not on this machine, else "failed".
        reason: One line.
        invalid: Whether the call was, see ``UsageError``.
    """

    status: Literal["skipped", "failed"]
    reason: str
    invalid: bool = False

    @classmethod
    def of(cls, error: Exception) -> "Failure":
        """Return the failure that an exception is; a signal that caused it is raised again."""
        raise_if_stopped()
        if isinstance(error, BenchError):
            skipped = isinstance(error, Unavailable)
            invalid = isinstance(error, UsageError)
            return cls("skipped" if skipped else "failed", str(error), invalid)
        if hint := install_hint(error):
            return cls("skipped", hint)
        log.debug("", exc_info=error)
        return cls("failed", one_line(error))


class Outcome(NamedTuple):
    """What an engine has of a job.

    Attributes:
        job: The job.
        value: A part of its vectors, its scores, the folder of its checkpoint, or why it has none.
        last: Whether nothing more comes of it.
    """

    job: Job
    value: Portion | Measured | Path | Failure
    last: bool


def do(job: Job) -> Iterator[Outcome]:
    """Yield the outcomes of a job, computed in this process."""
    try:
        if isinstance(job, Measure):
            yield Outcome(job, score(job.encoder, job.task, job.seed), last=True)
            return
        if isinstance(job, Train):
            job.progress("starting", 0, 0)
            yield Outcome(job, job.training.run(data.load, job.progress), last=True)
            return
        left = len(job.items)
        for portion in encode(job.encoder.inner, job.items, exact=job.encoder.exact):
            left -= len(portion.batch.positions)
            yield Outcome(job, portion, last=not left)
    except Exception as error:  # noqa: BLE001 - whatever an encoder, task or recipe raises
        yield Outcome(job, Failure.of(error), last=True)


def encode(encoder: Encoder, items: Sequence[Item], *, exact: bool) -> Iterator[Portion]:
    """Yield the vectors of items, as ``bench.encoder.stream``, with what each batch took."""
    start = time.perf_counter()
    for batch in stream(encoder, items, exact=exact):
        yield Portion(batch, Cost.of(batch, time.perf_counter() - start))
        start = time.perf_counter()


def join(portions: Iterable[Portion]) -> Portion:
    """Return several portions of the same items as one."""
    found = list(portions)
    batches, cost = [portion.batch for portion in found], Cost()
    for portion in found:
        cost.add(portion.cost)
    joined = Batch(
        np.concatenate([batch.positions for batch in batches]),
        np.concatenate([batch.vectors for batch in batches]),
        np.concatenate([batch.tokens for batch in batches]),
        np.concatenate([batch.truncated for batch in batches]),
        sum(batch.padded for batch in batches),
    )
    return Portion(joined, cost)


def score(encoder: CachedEncoder, task: Task, seed: int) -> Measured:
    """Return what a task measures on an encoder.

    Raises:
        NotCached: Vectors are missing, and the encoder does not compute.
        BenchError: It gives no scores that can be kept.
    """
    start = time.perf_counter()
    encoder.begin()
    with data.record_sources() as sources, record_original() as original:
        scores = task.evaluate(encoder, seed=seed)
        if fault := find_fault(task, scores):
            raise BenchError(fault)
        seconds = time.perf_counter() - start
        peak = max(encoder.cost.peak_memory_mb, peak_memory_mb())  # also of what is no vector
        texts = encoder.summary()
        cost = replace(encoder.cost, peak_memory_mb=peak)  # without those of the samples
        explain = getattr(task, "explain", None)
        samples = explain(encoder, seed=seed) if explain else ()
    return Measured(scores, samples, texts, cost, sources, seconds, original)
