"""One cell of the grid: its description (RunSpec) and what came out (Result)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any, NotRequired, Required, Self, TypedDict

from bench.encoder import Card, Encoder, digest, fingerprint, settings
from bench.files import escape_surrogates, hide_home
from bench.shape import find_mismatch
from bench.task import Score, Task

SCHEMA = 1
"""Version of the results file format; raised when older readers would misread a new file."""


@dataclass(frozen=True)
class RunSpec:
    """Everything that decides the scores of one cell.

    Attributes:
        encoder: Name under which the encoder was asked for; a label, no part of the identity.
        fingerprint: Digest of the encoder's class, version, settings and weights.
        settings: The encoder's settings, to read and to make it again.
        task: Name of the task.
        task_version: Version of its protocol.
        readout: Which vectors it reads.
        seed: Seed given to the task.
        limit: At most this many test examples.
    """

    encoder: str
    fingerprint: str
    settings: Mapping[str, Any] = field(compare=False)
    task: str
    task_version: int
    readout: str
    seed: int
    limit: int | None

    @classmethod
    def of(cls, name: str, encoder: Encoder, task: Task, seed: int, *, exact: bool = False) -> Self:
        """Describe the cell of an encoder and a task.

        Args:
            name: Name of the encoder.
            encoder: The encoder.
            task: The task.
            seed: Its seed.
            exact: Whether every text is encoded in a batch of its own.
        """
        return cls(
            hide_home(escape_surrogates(name)),
            fingerprint(encoder, exact=exact),
            hide_home(settings(encoder) | ({"exact": True} if exact else {})),
            escape_surrogates(task.name),
            task.version,
            task.readout,
            seed,
            task.limit,
        )

    @cached_property
    def key(self) -> str:
        """12 hex digits of the content, the same on every machine; names do not count."""
        content = {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.name not in {"encoder", "settings"}
        }
        return digest(content)[:12]


@dataclass(frozen=True)
class Absence:
    """Why a cell has no result.

    Attributes:
        encoder: Name under which the encoder was asked for.
        family: The task's family.
        task: Name of the task.
        readout: Which vectors it reads.
        seed: Seed given to the task.
        limit: At most this many test examples.
        status: "skipped" or "failed".
        reason: One line.
    """

    encoder: str
    family: str
    task: str
    readout: str
    seed: int
    limit: int | None
    status: str
    reason: str


@dataclass(frozen=True)
class Result:
    """Scores of one cell with their cost and provenance.

    Attributes:
        spec: What was run.
        family: The task's family.
        metric: Name of the main score.
        scores: Scores by metric name.
        card: The encoder's model card, ``bench.encoder.Card`` as a mapping.
        texts: Numbers of texts: ``asked`` and ``distinct``; ``repeated_share`` of the asked texts,
            ``truncated_share`` of the distinct ones, and ``overlap_share`` with training data.
        cost: ``seconds`` of this cell; the totals of this run's encoder up to this cell:
            ``encode_seconds``, ``forward_texts``, ``tokens``, and with padding ``padded_tokens``;
            ``dimension`` of a vector; ``peak_memory_mb`` of the process.
        provenance: Time, command, commit, versions, machine, and the revision of every data set.
        samples: A few examples, text by column, if the task shows any.
        original: For a whole task of mteb ``task_result``, what mteb itself returned, and the
            ``instruction`` that replaced the task's own; empty for others.
        archive: SHA-256 (hex) of the file of per-example values; "" without one.
    """

    spec: RunSpec
    family: str
    metric: str
    scores: Mapping[str, Score]
    card: Mapping[str, Any] = field(default_factory=dict)
    texts: Mapping[str, float] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    samples: Sequence[Mapping[str, str]] = ()
    original: Mapping[str, Any] = field(default_factory=dict)
    archive: str = field(default="", compare=False)

    @property
    def main(self) -> Score:
        """The main score."""
        return self.scores[self.metric]

    def to_json(self) -> dict[str, Any]:
        """Return the results file as plain JSON values, without per-example values."""
        return {
            "schema": SCHEMA,
            "spec": asdict(self.spec),
            "family": self.family,
            "metric": self.metric,
            "scores": {
                name: {
                    "mean": s.mean,
                    "spread": s.spread,
                    "repeats": list(map(float, s.repeats)),  # also those of numpy
                    **({"wordings": list(s.wordings)} if s.wordings else {}),
                }
                for name, s in self.scores.items()
            },
            "card": dict(self.card),
            "texts": dict(self.texts),
            "cost": dict(self.cost),
            "provenance": dict(self.provenance),
            **({"samples": [dict(sample) for sample in self.samples]} if self.samples else {}),
            **({"original": dict(self.original)} if self.original else {}),
            **({"archive": self.archive} if self.archive else {}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` wrote.

        Raises:
            ValueError: A part is missing or of another type, or the numbers do not agree.
        """
        wrong = find_mismatch(data, _File) or find_mismatch(
            data["card"].get("training", {}), _Training, "card.training"
        )
        if wrong:
            raise ValueError(f"{wrong!r} is missing or of another kind")
        for name, score in data["scores"].items():
            repeats = score["repeats"]
            if not repeats or not math.isclose(
                math.fsum(repeats) / len(repeats), score["mean"], abs_tol=1e-12
            ):
                raise ValueError(f"the mean of {name!r} is not that of its repeats")
            wordings = score.get("wordings") or [score["mean"]]
            if not math.isclose(math.fsum(wordings) / len(wordings), score["mean"], abs_tol=1e-9):
                raise ValueError(f"the mean of {name!r} is not that of its wordings")
        if data["metric"] not in data["scores"]:
            raise ValueError(f"the main score {data['metric']!r} is not among the scores")
        return cls(
            spec=RunSpec(**data["spec"]),
            family=data["family"],
            metric=data["metric"],
            scores={
                name: Score(tuple(s["repeats"]), wordings=tuple(s.get("wordings", ())))
                for name, s in data["scores"].items()
            },
            card=data["card"],
            texts=data["texts"],
            cost=data["cost"],
            provenance=data["provenance"],
            samples=data.get("samples", ()),
            original=data.get("original", {}),
            archive=data.get("archive", ""),
        )


class _Measured(TypedDict):
    mean: float
    repeats: Sequence[float]
    wordings: NotRequired[Sequence[float]]


class _Machine(TypedDict, total=False):
    system: str
    processor: str
    cores: int
    memory_gb: float


class _Read(TypedDict, total=False):
    id: Required[str]
    config: str | None
    split: str | None
    source: str | None
    revision: str | None
    sha256: str | None


class _Provenance(TypedDict, total=False):
    time: str
    command: str
    commit: str
    versions: Mapping[str, str]
    machine: _Machine
    data: Sequence[_Read]


class _Stage(TypedDict, total=False):
    stage: str | None
    loss: Sequence[tuple[float, float]]


class _Training(TypedDict, total=False):
    method: str | None
    backbone: str | None
    budget: int | None
    seed: int | None
    recipe: Mapping[str, Any] | None
    loss: Sequence[tuple[float, float]]
    stages: Sequence[_Stage]


class _Part(TypedDict):
    hf_subset: str
    main_score: float


class _TaskResult(TypedDict):
    task_name: str
    dataset_revision: str
    scores: Mapping[str, Sequence[_Part]]


class _Original(TypedDict):
    instruction: str
    task_result: _TaskResult


class _File(TypedDict):
    """The parts of a results file that are read."""

    spec: RunSpec
    family: str
    metric: str
    scores: Mapping[str, _Measured]
    card: Card
    texts: Mapping[str, float | None]
    cost: Mapping[str, float | None]
    provenance: _Provenance
    samples: NotRequired[Sequence[Mapping[str, str]]]
    original: NotRequired[_Original]
    archive: NotRequired[str]
