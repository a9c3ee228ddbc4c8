"""One cell of the grid: its description (RunSpec) and what came out (Result)."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any, Self

from bench.encoder import Encoder, digest, fingerprint, settings
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
            name,
            fingerprint(encoder, exact=exact),
            settings(encoder) | ({"exact": True} if exact else {}),
            task.name,
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
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` wrote.

        Raises:
            KeyError, TypeError: A part is missing or of another type.
        """
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
        )
