"""The results as a grid: encoder by column, several seeds of one cell put together."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import Any, Self

from bench.result import Absence, Result
from bench.task import APART, Score

OVERLAP = 0.05
"""A score is marked when more than this share of its test texts has a run of 8 words in common with the training data."""


@dataclass(frozen=True)
class Column:
    """One task as it was run: results of other limits, read-outs or protocol versions are other columns.

    Attributes:
        family: The task's family.
        task: Its name.
        readout: Which vectors were read.
        limit: At most this many test examples; 0 for all.
        version: Version of its protocol.
        metric: Name of its main score.
    """

    family: str
    task: str
    readout: str
    limit: int
    version: int
    metric: str

    @classmethod
    def of(cls, result: Result) -> Self:
        """Return the column a result belongs to; a limit of 0 is none."""
        spec = result.spec
        return cls(
            result.family,
            spec.task,
            spec.readout,
            spec.limit or 0,
            spec.task_version,
            result.metric,
        )


@dataclass(frozen=True)
class Cells:
    """All results by encoder and column, several seeds of one cell put together.

    Attributes:
        results: The results of each cell, by the encoder's label and the column.
        absences: Why cells have no result, as far as a run has tried them.
    """

    results: Mapping[tuple[str, Column], Sequence[Result]]
    absences: Sequence[Absence] = ()

    @classmethod
    def of(cls, results: Iterable[Result], absences: Iterable[Absence] = ()) -> Self:
        """Sort results into cells; encoders of one name but another content get a label that says how they differ."""
        found = sorted(
            results, key=lambda r: (r.spec.encoder, r.spec.fingerprint, r.spec.task, r.spec.key)
        )
        settings: dict[str, dict[str, Mapping[str, Any]]] = {}
        for r in found:
            settings.setdefault(placeless(r.spec.encoder), {}).setdefault(
                r.spec.fingerprint, r.spec.settings
            )
        marks = {
            (name, print_): mark
            for name, by_print in settings.items()
            for print_, mark in _marks(by_print).items()
        }
        cells: dict[tuple[str, Column], dict[str, Result]] = {}
        for r in found:
            name = placeless(r.spec.encoder)
            label = name + marks[name, r.spec.fingerprint]
            cells.setdefault((label, Column.of(r)), {}).setdefault(
                r.spec.key, r
            )  # one content at two places is one measurement
        reasons = [
            replace(a, encoder=placeless(a.encoder), reason=without_places(a.reason))
            for a in absences
        ]
        return cls({cell: list(by_key.values()) for cell, by_key in cells.items()}, reasons)

    @cached_property
    def columns(self) -> list[Column]:
        """The columns, by family and task."""
        return sorted({column for _, column in self.results}, key=astuple)

    @cached_property
    def families(self) -> list[str]:
        """The families, in order."""
        return sorted({column.family for column in self.columns})

    @cached_property
    def compared(self) -> list[Column]:
        """The columns whose main score says how good an encoder is."""
        return [column for column in self.columns if column.family not in APART]

    @cached_property
    def encoders(self) -> list[str]:
        """The encoders' labels, best mean over families first, those without one last."""
        labels = sorted({label for label, _ in self.results})
        return sorted(
            labels, key=lambda label: -(m if (m := self.overall(label)) is not None else -math.inf)
        )

    @cached_property
    def common(self) -> list[Column]:
        """The columns that more than half of the encoders have: only these count in means, so that all means are of the same tasks.

        Where no column is that common, all of them. Of one task and read-out only the highest version counts, then the largest limit.
        """
        have = Counter(column for _, column in self.results if column.family not in APART)
        n = len({label for label, _ in self.results})
        often = [column for column, count in have.items() if 2 * count > n] or have
        by_rank = sorted(often, key=lambda c: (c.version, c.limit or math.inf))
        return sorted({(c.task, c.readout): c for c in by_rank}.values(), key=astuple)

    @cached_property
    def superseded(self) -> list[Column]:
        """The columns that count in no mean since another version or limit of the same task and read-out does."""
        counted = {(column.task, column.readout) for column in self.common}
        return [c for c in self.compared if c not in self.common and (c.task, c.readout) in counted]

    @cached_property
    def _common_by_family(self) -> dict[str, list[Column]]:
        found: dict[str, list[Column]] = {}
        for column in self.common:
            found.setdefault(column.family, []).append(column)
        return found

    def common_of(self, family: str) -> list[Column]:
        """Return a family's common columns."""
        return self._common_by_family.get(family, [])

    def score(self, label: str, column: Column) -> Score | None:
        """Return the main score of a cell over all its seeds and repeats, or None."""
        found = self.results.get((label, column))
        return (
            Score(tuple(value for result in found for value in result.main.repeats))
            if found
            else None
        )

    def family(self, label: str, family: str) -> tuple[float, float | None] | None:
        """Return an encoder's mean over a family's common tasks, and the spread of that mean over repeats.

        Returns:
            None if a task is missing. The spread is None if no task was measured more than once.
        """
        scores = [self.score(label, column) for column in self.common_of(family)]
        if not scores or any(score is None for score in scores):
            return None
        whole = [score for score in scores if score is not None]
        spreads = [score.spread for score in whole if score.spread is not None]
        return math.fsum(s.mean for s in whole) / len(whole), math.hypot(*spreads) / len(
            whole
        ) if spreads else None

    def have(self, label: str, family: str) -> tuple[int, int]:
        """Return how many of a family's common tasks an encoder has, and how many there are."""
        tasks = self.common_of(family)
        return sum((label, column) in self.results for column in tasks), len(tasks)

    def overall(self, label: str) -> float | None:
        """Return an encoder's mean over families, or None if it lacks one."""
        means = [self.family(label, family) for family in self._common_by_family]
        return math.fsum(m[0] for m in means if m) / len(means) if means and all(means) else None

    def title(self, column: Column) -> str:
        """Return the column's name, with what sets it apart from others of the same task."""
        others = [column, *(c for c in self.columns if c.task == column.task)]
        marks = [f"limit {column.limit}"] if column.limit else []
        marks += [column.readout] if len({c.readout for c in others}) > 1 else []
        marks += [f"protocol {column.version}"] if len({c.version for c in others}) > 1 else []
        marks += [column.metric] if len({c.metric for c in others}) > 1 else []
        marks += [column.family] if len({c.family for c in others}) > 1 else []
        return column.task + (f" ({', '.join(marks)})" if marks else "")

    def of_encoder(self, label: str) -> list[Result]:
        """Return every result of an encoder."""
        return self._by_encoder[label]

    def name(self, label: str) -> str:
        """Return the name under which an encoder was asked for."""
        return placeless(self.of_encoder(label)[0].spec.encoder)

    def card(self, label: str) -> Mapping[str, Any]:
        """Return the card of an encoder."""
        return self.of_encoder(label)[0].card

    def training(self, label: str) -> Mapping[str, Any]:
        """Return the card of an encoder's training; empty where nothing was trained or it is not known."""
        return self.card(label).get("training") or {}

    def tokens(self, label: str) -> int | None:
        """Return how many token positions an encoder's recipe trained on; None where nothing was trained or it is not known."""
        return (
            self.card(label).get("training_tokens")
            or self.training(label).get("trained_tokens")
            or None
        )

    def base(self, label: str) -> str:
        """Return what an encoder was trained from, as its training calls it, or else its backbone."""
        return str(self.training(label).get("backbone") or self.card(label).get("backbone") or "")

    @cached_property
    def _by_encoder(self) -> dict[str, list[Result]]:
        found: dict[str, list[Result]] = {}
        for (label, _), results in self.results.items():
            found.setdefault(label, []).extend(results)
        return found

    def overlap(self, label: str, column: Column) -> float | None:
        """Return the share of a cell's test texts that share a run of words with the encoder's training data, if it was measured."""
        shares = [
            r.texts["overlap_share"]
            for r in self.results.get((label, column), ())
            if r.texts.get("overlap_share") is not None
        ]
        return max(shares, default=None)

    def overlapping(self, label: str, columns: Iterable[Column]) -> str:
        """Return what is wrong with a number of these tasks: the training data overlaps with the test texts of some; "" for nothing."""
        shares = {self.title(column): self.overlap(label, column) or 0.0 for column in columns}
        over = [
            f"{title} {100 * share:.0f} %" for title, share in shares.items() if share > OVERLAP
        ]
        return (
            f"test texts that share 8 words in a row with the training data: {', '.join(over)}"
            if over
            else ""
        )

    def absence(self, label: str, column: Column) -> str:
        """Return why a cell has no result: "skipped: …", "failed: …", or that it was not run."""
        return self._reasons.get(
            (self.name(label), column.task, column.readout, column.limit), "not run"
        )

    @cached_property
    def _reasons(self) -> dict[tuple[str, str, str, int], str]:
        return {
            (a.encoder, a.task, a.readout, a.limit or 0): f"{a.status}: {a.reason}"
            for a in self.absences
        }


def named(cells: Cells, label: str) -> str:
    """Return the encoder's label, marked when its method was never trained."""
    return label if cells.of_encoder(label)[0].card.get("trained", True) else f"{label} (untrained)"


def grouped(columns: Sequence[Column]) -> list[tuple[str, int]]:
    """Return the families in the order of sorted columns, with the number of columns of each."""
    return [
        (family, len(list(group))) for family, group in groupby(columns, key=lambda c: c.family)
    ]


def placeless(text: str) -> str:
    """Return a name or an argument with absolute paths cut to their last part: where things lay says nothing to a reader."""
    return re.sub(
        r"(?:(?<=[=:,])|^)(?:~|[A-Za-z]:)?[\\/][^,]*?([^\\/,]+)[\\/]*(?=,|$)", r"\1", text
    )


def without_places(text: str) -> str:
    """Return a sentence with absolute paths cut to their last part."""
    return re.sub(
        r"(?<![\w.:/\\])(?:~|[A-Za-z]:)?[\\/](?:[^\s\\/,;:'\"()]+[\\/])+(?=[^\s\\/,;:'\"()])",
        "",
        text,
    )


def _marks(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return what tells encoders of one name apart, by fingerprint: the settings in which they differ, as ``--set`` takes them.

    Where settings do not tell them apart, the first digits of the fingerprint, at least four; nothing for a single one.
    """
    plain = {
        print_: {
            name: placeless(json.dumps(value, ensure_ascii=False).strip('"'))
            for name, value in own.items()
        }
        for print_, own in settings.items()
    }
    names = dict.fromkeys(name for own in plain.values() for name in own)
    differing = [name for name in names if len({own.get(name) for own in plain.values()}) > 1]
    words = {
        print_: "".join(f" {name}={own[name]}" for name in differing if name in own)
        for print_, own in plain.items()
    }
    alike = Counter(words.values())
    digits = next(
        n
        for n in range(4, 1 + max(map(len, settings)))
        if len({p[:n] for p in settings}) == len(settings)
    )
    return {
        print_: told + (f" #{print_[:digits]}" if alike[told] > 1 else "")
        for print_, told in words.items()
    }
