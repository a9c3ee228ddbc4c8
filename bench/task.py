"""What a task is: one data set with one protocol, which turns an encoder into scores."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bench.encoder import Encoder, Item

APART = frozenset({"diagnostics"})
"""Families that measure something else than quality, on scales of their own: they count in no mean and no comparison."""

PICKING = "picking at "
"""What the names of scores on the examples that a layer is picked on begin with; the layer follows."""


@dataclass(frozen=True)
class Score:
    """One metric, measured once or several times.

    Attributes:
        repeats: One number per seed, split or fold.
        examples: float32 (n,), what the repeats gave for each test example on average (similarity, 1 for a right answer, or
            what it contributes to the score: ``bench.influence``), in the order of the data, so that two encoders can be
            paired; empty where the metric has no such parts.
        gold: float32 (n,), what the examples are compared with (gold similarity, or class); empty where their mean is the score.
    """

    repeats: tuple[float, ...]
    examples: NDArray[np.float32] = dataclasses.field(
        default_factory=lambda: np.empty(0, np.float32), compare=False
    )
    gold: NDArray[np.float32] = dataclasses.field(
        default_factory=lambda: np.empty(0, np.float32), compare=False
    )

    @property
    def mean(self) -> float:
        """Mean over the repeats."""
        return math.fsum(self.repeats) / len(self.repeats)

    @property
    def spread(self) -> float | None:
        """Sample standard deviation over the repeats; None for a single one."""
        return float(np.std(self.repeats, ddof=1)) if len(self.repeats) > 1 else None

    @property
    def stderr(self) -> float | None:
        """Standard error of the mean over the repeats; None for a single one."""
        return None if self.spread is None else self.spread / math.sqrt(len(self.repeats))


@runtime_checkable
class Task(Protocol):
    """Turns an encoder into scores. A frozen dataclass, like an encoder."""

    @property
    def name(self) -> str:
        """Unique; mteb's name where the task is mteb's."""
        ...

    @property
    def family(self) -> str:
        """The group it is reported under: sts, paraphrase, sentiment, ner, clustering, ..."""
        ...

    @property
    def metric(self) -> str:
        """Name of the main score among those ``evaluate`` returns."""
        ...

    @property
    def version(self) -> int:
        """Raised whenever the same vectors begin to give another score, or more is kept with it."""
        ...

    @property
    def readout(self) -> str:
        """Which vectors are read: "embedding" unless the task reads token states or questions."""
        ...

    @property
    def limit(self) -> int | None:
        """At most this many test examples, drawn with a fixed seed; None for all."""
        ...

    @property
    def needs(self) -> type[Encoder]:
        """The protocol an encoder must satisfy."""
        ...

    def evaluate(self, encoder: Encoder, *, seed: int) -> Mapping[str, Score]:
        """Return the scores by metric name, on a scale where 1 is best, but for those of APART.

        Args:
            encoder: Satisfies ``needs``.
            seed: The only source of randomness.

        Raises:
            Unavailable: The data cannot be had on this machine.
            DataError: The data is there but not as expected.
        """
        ...


@runtime_checkable
class PlannedTask(Task, Protocol):
    """A task that can say what it will have encoded, so that a run can encode the items of all its tasks at once."""

    def items(self, *, seed: int) -> Iterable[Item]:
        """Return what ``evaluate`` will ask ``encode`` for; what is left out is encoded when asked for."""
        ...


@runtime_checkable
class ExplainedTask(Task, Protocol):
    """A task that can show a few of its examples in words."""

    def explain(self, encoder: Encoder, *, seed: int) -> Sequence[Mapping[str, str]]:
        """Return a few examples, words by column, after ``evaluate``; arguments and errors are the same."""
        ...


def embedding_for(instruction: str) -> str:
    """Return what a task that reads embeddings calls its read-out: an instruction is named, since another one makes other vectors."""
    return f"embedding for {instruction!r}" if instruction else "embedding"


def sample(n: int, limit: int | None, *, seed: int = 0) -> NDArray[np.int64]:
    """Return the row numbers that ``limit`` leaves of ``n`` rows: all of them, or a fixed draw in ascending order."""
    if limit is None or limit >= n:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, limit, replace=False))
