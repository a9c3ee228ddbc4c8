"""What a task is: one data set with one protocol, which turns an encoder's vectors into scores."""

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import KW_ONLY, dataclass, field
from itertools import chain
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bench.data import Rows, load
from bench.data.columns import TEXT, Kind
from bench.embeddings import CachedEncoder, cached
from bench.encoder import Embeddings, Encoder, Item
from bench.errors import UsageError

APART = frozenset({"diagnostics"})
"""Families that measure no quality, on scales of their own: excluded from means and comparisons."""

_BITS = 1e-9  # what rounding may add to or take from a printed number, and far below its digits

PICKING = "picking at "
"""Prefix of the names of scores on the examples that a layer is picked on; the layer follows."""


@dataclass(frozen=True)
class Score:
    """One metric, measured once or several times.

    Attributes:
        repeats: One number per seed, split or fold.
        examples: float32 (n,), the mean over the repeats of what each test example gave (a
            similarity, 1 for a right answer, or its contribution: ``bench.stats.influence``), in
            the order of the data, which pairs two encoders; empty where the metric has no such
            parts.
        gold: float32 (n,), what the examples are compared with (gold similarity, or class); empty
            where their mean is the score.
        ids: uint64 (n,), ``example_ids`` of the examples, by which tasks on the same texts know
            each other; empty where it is not known.
        wordings: One number per wording of the instruction, where there are several; their mean is
            the score.
    """

    repeats: tuple[float, ...]
    examples: NDArray[np.float32] = field(
        default_factory=lambda: np.empty(0, np.float32), compare=False
    )
    gold: NDArray[np.float32] = field(
        default_factory=lambda: np.empty(0, np.float32), compare=False
    )
    ids: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64), compare=False)
    wordings: tuple[float, ...] = ()

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


Scores = Mapping[str, Score]
"""Scores by metric name, on a scale where 1 is best, except in the families of ``APART``."""


_original: ContextVar[dict[str, Any] | None] = ContextVar("original", default=None)


@contextmanager
def record_original() -> Iterator[dict[str, Any]]:
    """Yield a mapping that is filled with what a task's own library returns meanwhile."""
    found: dict[str, Any] = {}
    token = _original.set(found)
    try:
        yield found
    finally:
        _original.reset(token)


def keep_original(found: Mapping[str, Any]) -> None:
    """Keep what a task's own library returned, as plain JSON values, with the result of the task.

    A number that is not finite is kept as None.
    """
    kept = _original.get()
    if kept is not None:
        kept.update(_finite(found))


def _finite(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, Mapping):
        return {str(name): _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class Task:
    """One data set with one protocol, on one vector a text.

    A subclass says in ``items`` what to embed and in ``score`` how to score the vectors; class
    attributes say the rest. The data is loaded in both methods: ``bench.data`` keeps it in memory.

    Attributes:
        name: Unique; mteb's name where the task is mteb's.
        data: Id of the data set.
        config: Its configuration.
        split: Its split.
        instruction: What the embeddings are for; "" for none.
        limit: At most this many test examples, drawn with a fixed seed; None for all.
        about: One line for lists.
        apart_from: Splits of other data, each an id, a configuration and a split, whose texts are
            left out by ``rows`` and ``all_rows``; texts are equal whatever their case, spaces and
            punctuation.
    """

    name: str
    _: KW_ONLY
    data: str = ""
    config: str = ""
    split: str = "test"
    instruction: str = ""
    limit: int | None = None
    about: str = field(default="", compare=False)
    apart_from: tuple[tuple[str, str, str], ...] = ()
    uses_instruction: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse an instruction that would change nothing.

        Raises:
            UsageError: There is one, and the task has no use for it.
        """
        if self.instruction and not self.uses_instruction:
            raise UsageError(f"{self.name} takes no instruction, got {self.instruction!r}")

    @property
    def family(self) -> str:
        """The group it is reported under: sts, paraphrase, sentiment, ner, clustering, ..."""
        raise NotImplementedError

    @property
    def metric(self) -> str:
        """Name of the main score."""
        raise NotImplementedError

    @property
    def version(self) -> int:
        """Raised whenever the same vectors give another score, or more is kept with it."""
        return 1

    @property
    def readout(self) -> str:
        """Which vectors are read; an instruction is named, since another gives other vectors."""
        return f"embedding for {self.instruction!r}" if self.instruction else "embedding"

    @property
    def needs(self) -> type[Encoder]:
        """The protocol an encoder must satisfy."""
        return Encoder

    def rows(self, columns: Mapping[str, Kind]) -> Rows:
        """Return the test rows, at most ``limit``, with columns that hold what they must."""
        rows = self.all_rows(columns)
        return rows.take(sample(len(rows), self.limit))

    def all_rows(
        self, columns: Sequence[str] | Mapping[str, Kind], *, texts: Sequence[str] = ()
    ) -> Rows:
        """Return the test rows without those that have a text of ``apart_from``.

        Args:
            columns: Columns that they must have, with the kinds of their values or without.
            texts: The ones with the texts; those of the kind TEXT, or all without kinds, by
                default.
        """
        rows = load(self.data, self.split, config=self.config, columns=columns)
        if not self.apart_from:
            return rows
        known: set[str] = set()
        for id_, config, split in self.apart_from:
            known |= _plain_texts(load(id_, split, config=config).data.values())
        if isinstance(columns, Mapping):
            texts = texts or [name for name, kind in columns.items() if kind == TEXT]
        own = [rows[column] for column in texts or columns]
        kept = [
            i for i, row in enumerate(zip(*own, strict=True)) if not _plain_texts([row]) & known
        ]
        return rows.take(kept)

    def items(self, *, seed: int) -> Sequence[Item]:
        """Return what to embed: a run embeds the items of all its tasks in one pass.

        Raises:
            Unavailable: The data is not on this machine.
            DataError: The data is there but not as expected.
        """
        raise NotImplementedError

    def score(self, vectors: Embeddings, *, seed: int) -> Scores:
        """Return the scores.

        Args:
            vectors: float32 (n, dim), row i for item i.
            seed: The same as for ``items``; a task has no other source of randomness.
        """
        raise NotImplementedError

    def evaluate(self, encoder: Encoder, *, seed: int) -> Scores:
        """Return the scores of an encoder that satisfies ``needs``.

        Raises:
            Unavailable: The data is not on this machine.
            DataError: The data is there but not as expected.
            EncodingError: A vector is not finite or constant, or the vectors have no score.
        """
        return self.score(cached(encoder).embed(self.items(seed=seed)), seed=seed)

    def explain(self, encoder: Encoder, *, seed: int) -> Sequence[Mapping[str, str]]:
        """Return a few examples in words, by column, where the task can show some."""
        return ()


@dataclass(frozen=True)
class NetworkTask(Task):
    """A task that gets the encoder itself: for token states, fine-tuning, or mteb's retrieval.

    A subclass loads its data in ``load``, which a run calls before anything is embedded so that
    missing data is known early, and measures in ``measure``.
    """

    uses_instruction: ClassVar[bool] = False

    def load(self, seed: int) -> Any:  # noqa: ANN401 - whatever ``measure`` needs
        """Return the data."""
        raise NotImplementedError

    def measure(self, encoder: CachedEncoder, *, seed: int) -> Scores:
        """Return the scores; what the network is asked for besides vectors is on ``inner``."""
        raise NotImplementedError

    def items(self, *, seed: int) -> Sequence[Item]:
        """Return nothing, after the data was loaded."""
        self.load(seed)
        return ()

    def evaluate(self, encoder: Encoder, *, seed: int) -> Scores:
        """Return the scores of an encoder that satisfies ``needs``."""
        return self.measure(cached(encoder), seed=seed)


def _plain_texts(columns: Iterable[Iterable[Any]]) -> set[str]:
    """Return the texts among some values, in small letters and digits alone."""
    texts = (value for value in chain(*columns) if isinstance(value, str))
    return {"".join(filter(str.isalnum, text.lower())) for text in texts}


_PARTS = ("name", "family", "metric", "version", "readout", "limit", "needs", "evaluate")


def missing_parts(value: object) -> list[str]:
    """Return the attributes of a task that an object lacks; none for a task of any class."""
    return sorted(name for name in _PARTS if name not in dir(value))


def find_fault(task: Task, scores: Scores) -> str:
    """Return why what a task measured cannot be kept; "" where it can."""
    if task.metric not in scores:
        return f"{task.name} promises {task.metric}, its scores are {', '.join(scores)}"
    for name, score in scores.items():
        if not score.repeats or not all(map(math.isfinite, score.repeats)):
            return (
                f"{task.name}: {name} has the repeats {score.repeats}; expected at least one, "
                "all finite"
            )
        sizes = [len(values) for values in (score.examples, score.gold, score.ids) if len(values)]
        if len(set(sizes)) > 1:
            return f"{task.name}: expected examples, gold and ids of {name} alike, got {sizes}"
    return ""


def example_ids(*columns: Sequence[str]) -> NDArray[np.uint64]:
    """Return a hash of the texts of each example: uint64 (n,).

    Args:
        columns: The first text of every example, the second of every one, and so on.
    """
    joined = (
        "\0".join(texts).encode(errors="surrogatepass") for texts in zip(*columns, strict=True)
    )
    each = [hashlib.blake2b(text, digest_size=8).digest() for text in joined]
    return np.frombuffer(b"".join(each), "<u8").astype(np.uint64)


def split_vectors(vectors: NDArray[Any], sizes: Sequence[int]) -> list[NDArray[Any]]:
    """Return consecutive parts of the rows, of these sizes."""
    return np.split(vectors, np.cumsum(sizes)[:-1])


def decimal(value: float, form: str) -> str:
    """Return a number in a format such as "z.1f", with ties away from zero.

    The last bits of a mean depend on the order of its sum. They must not decide a tie, so that
    66.25 is 66.3 wherever it is printed.
    """
    return format(value + math.copysign(_BITS, value), form)


def limited(task: str, limit: int | None) -> str:
    """Return a task with its limit, without which a score would look like a published one."""
    return f"{task} (limit {limit})" if limit else task


def sample(n: int, limit: int | None, *, seed: int = 0) -> NDArray[np.int64]:
    """Return the row numbers that ``limit`` leaves of ``n`` rows: all, or a fixed sorted draw."""
    if limit is None or limit >= n:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, limit, replace=False))
