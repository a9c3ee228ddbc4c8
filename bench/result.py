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
"""Number of the results file format; raised whenever a reader of the old one would misread the new one."""


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
        """Describe the cell of an encoder, under its name, and a task; ``exact``: every text in a batch of its own."""
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
        """12 hex digits of the content, the same on every machine; names and places do not count."""
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
    """Scores of one cell with what it took and where they come from.

    Attributes:
        spec: What was run.
        family: The task's family.
        metric: Name of the main score.
        scores: Scores by metric name.
        card: What stands behind the encoder, ``bench.encoder.Card`` as a mapping.
        texts: Counts: ``asked`` texts, ``distinct`` ones, the ``repeated`` and ``truncated`` shares of the distinct and
            asked texts.
        cost: ``seconds`` of this cell; of all that this run has encoded with the encoder by the end of this cell
            ``encode_seconds``, ``forward_texts``, and token positions as ``tokens`` and, with padding, ``padded_tokens``;
            ``dimension`` of a vector; ``peak_memory_mb``, the most memory the process has held since it began.
        provenance: Time, command, commit, versions, machine, and the revision of every data set read.
        samples: A few examples in words, by column, where the task can show some.
        archive: SHA-256, in hex, of the file of per-example values; "" where there is none, or in older results.
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
    archive: str = field(default="", compare=False)

    @property
    def main(self) -> Score:
        """The main score."""
        return self.scores[self.metric]

    def to_json(self) -> dict[str, Any]:
        """Return the results file as plain JSON values; per-example values are kept beside it by the store."""
        return {
            "schema": SCHEMA,
            "spec": asdict(self.spec),
            "family": self.family,
            "metric": self.metric,
            "scores": {
                name: {"mean": s.mean, "spread": s.spread, "repeats": list(s.repeats)}
                for name, s in self.scores.items()
            },
            "card": dict(self.card),
            "texts": dict(self.texts),
            "cost": dict(self.cost),
            "provenance": dict(self.provenance),
            **({"samples": [dict(sample) for sample in self.samples]} if self.samples else {}),
            **({"archive": self.archive} if self.archive else {}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` wrote.

        Raises:
            ValueError: A part is missing or of another kind, or the numbers do not agree; the words say which.
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
        if data["metric"] not in data["scores"]:
            raise ValueError(f"the main score {data['metric']!r} is not among the scores")
        return cls(
            spec=RunSpec(**data["spec"]),
            family=data["family"],
            metric=data["metric"],
            scores={name: Score(tuple(s["repeats"])) for name, s in data["scores"].items()},
            card=data["card"],
            texts=data["texts"],
            cost=data["cost"],
            provenance=data["provenance"],
            samples=data.get("samples", ()),
            archive=data.get("archive", ""),
        )


class _Measured(TypedDict):
    mean: float
    repeats: Sequence[float]


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


class _File(TypedDict):
    """What a results file holds, as far as somebody reads it."""

    spec: RunSpec
    family: str
    metric: str
    scores: Mapping[str, _Measured]
    card: Card
    texts: Mapping[str, float | None]
    cost: Mapping[str, float | None]
    provenance: _Provenance
    samples: NotRequired[Sequence[Mapping[str, str]]]
    archive: NotRequired[str]
