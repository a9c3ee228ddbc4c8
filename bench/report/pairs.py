"""Which differences between encoders are more than chance: every task's results, paired by test example and by repeat."""

import math
import zlib
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bench import stats
from bench.influence import contributions
from bench.report import notes
from bench.report.cells import Cells, Column
from bench.result import Result

_AGREE = 1e-4  # examples make up a score if their contributions average to it this well: they are kept in single precision

Key = TypeVar("Key")

_DIGITS = 6  # of what is drawn in single precision

METHOD = (
    f"95 % intervals: paired bootstrap ({stats.DRAWS:,} resamples, seed {stats.SEED}) over test examples, over repeats (seeds, draws, "
    "folds), or both, whichever the task has"
)
"""How intervals are made, for the words beside a table."""


def judged(over: str = "every pair of encoders and every task of this report") -> str:
    """Return how differences are judged, for the words beside a table: over which comparisons p-values are corrected."""
    return f"p-values: paired t test on the same values, corrected over {over} (Holm); told apart is p < 0.05"


@dataclass(frozen=True)
class Pairs:
    """Every pair of encoders on every task.

    Attributes:
        cells: The results, with their per-example values where they were kept.
    """

    cells: Cells

    @cached_property
    def number(self) -> dict[str, int]:
        """The place of each encoder in every array."""
        return {label: i for i, label in enumerate(self.cells.encoders)}

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know beside a table of all encoders."""
        return notes.of(self.cells, self.cells.encoders)

    @cached_property
    def by_column(self) -> dict[Column, stats.Sampled]:
        """Main scores by column, encoders in the order of ``cells.encoders``."""
        return {column: self.sampled(column, column.metric) for column in self.cells.columns}

    @cached_property
    def by_family(self) -> dict[str, stats.Sampled]:
        """Means over each family's common tasks."""
        families = {family: self.cells.common_of(family) for family in self.cells.families}
        return {
            f: stats.mean_of([self.by_column[column] for column in columns])
            for f, columns in families.items()
            if columns
        }

    @cached_property
    def overall(self) -> stats.Sampled:
        """Mean over families."""
        nothing = np.full(len(self.cells.encoders), np.nan)
        return (
            stats.mean_of(list(self.by_family.values()))
            if self.by_family
            else stats.sampled(nothing)
        )

    @cached_property
    def partners(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Every pair of encoders once: the numbers of the first and of the second."""
        first, second = np.triu_indices(len(self.cells.encoders), 1)
        return first, second

    @cached_property
    def corrected(self) -> dict[Column, stats.Array]:
        """The p-value of every pair on every column, corrected over all of them."""
        each = {
            column: stats.p_values(self.by_column[column], *self.partners)
            for column in self.cells.compared
        }
        return corrected(each)

    @cached_property
    def outcomes(self) -> NDArray[np.int64]:
        """How often each encoder wins, ties and loses against each other one, (m, m, 3).

        What cannot be compared does not count, nor does a task that another version or limit of it supersedes.
        """
        m = len(self.cells.encoders)
        counts = np.zeros((m, m, 3), np.int64)
        first, second = self.partners
        for column, p in self.corrected.items():
            if column in self.cells.superseded:
                continue
            gap = self.by_column[column].scores[first] - self.by_column[column].scores[second]
            known, apart = np.isfinite(p), p < 1 - stats.LEVEL
            for outcome, is_so in (
                (0, apart & (gap > 0)),
                (1, known & ~apart),
                (2, apart & (gap < 0)),
            ):
                counts[first, second, outcome] += is_so
                counts[second, first, 2 - outcome] += is_so
        return counts

    @cached_property
    def ranked(self) -> tuple[list[str], stats.Array]:
        """The encoders that have every common task, and their scores (tasks, encoders)."""
        if not self.cells.common:
            return [], np.empty((0, 0))
        scores = np.array([self.by_column[column].scores for column in self.cells.common])
        whole = np.isfinite(scores).all(axis=0)
        return [
            label for label, has in zip(self.cells.encoders, whole, strict=True) if has
        ], scores[:, whole]

    def bounds(self, found: stats.Sampled) -> list[tuple[float, float] | None]:
        """Return the interval of every encoder's number, None where nothing is known of its chance."""
        of = stats.intervals(found)
        ends = zip(of.low.round(_DIGITS).tolist(), of.high.round(_DIGITS).tolist(), strict=True)
        return [None if math.isnan(low) else (low, high) for low, high in ends]

    def sampled(self, column: Column, name: str) -> stats.Sampled:
        """Return any score of a column, with the chance that is in it."""
        found = [self.cells.results.get((label, column), ()) for label in self.cells.encoders]
        return sampled(
            [results if all(name in r.scores for r in results) else () for results in found],
            name,
            f"{column}{name}",
        )


def corrected(p: Mapping[Key, stats.Array]) -> dict[Key, stats.Array]:
    """Return p-values corrected over all of them together."""
    whole = stats.holm(np.concatenate(list(p.values()) or [np.empty(0)]))
    ends = np.cumsum([len(values) for values in p.values()])[:-1]
    return dict(zip(p, np.split(whole, ends), strict=True)) if p else {}


def sampled(results: Sequence[Sequence[Result]], name: str, what: str) -> stats.Sampled:
    """Return a score of several encoders on one task, with the chance that is in it.

    Args:
        results: The results of each encoder, one a seed; none where it has none.
        name: Name of the score.
        what: What is drawn for; other words give other draws.
    """
    repeats, examples = [_repeats(r, name) for r in results], [_examples(r, name) for r in results]
    scores = np.array(
        [
            np.mean([v for one in r for v in one.scores[name].repeats]) if r else np.nan
            for r in results
        ]
    )
    sources = [
        s
        for s in (_together(examples), _together(repeats))
        if len(s) > 1 and (np.ptp(s, axis=0) > 0).any()
    ]
    return stats.sampled(scores, *sources, seed=zlib.crc32(f"{what}{stats.SEED}".encode()))


def _repeats(results: Sequence[Result], name: str) -> tuple[Hashable, stats.Array]:
    """Return what must be equal for the repeats of two encoders to be pairs, and every repeat's mean over the seeds.

    The repeats of two seeds may be the same draws, so seeds make no further ones; only where each has a single one they are the repeats.
    """
    ordered = sorted(results, key=lambda r: r.spec.seed)
    each = [r.scores[name].repeats for r in ordered]
    if len(set(map(len, each))) != 1:
        return 0, np.empty(0)
    return (*(r.spec.seed for r in ordered), len(each[0])), np.mean(
        each, axis=0 if len(each[0]) > 1 else 1
    )


def _examples(results: Sequence[Result], name: str) -> tuple[Hashable, stats.Array]:
    """Return how many test examples there are and what each contributes to the score; none where they do not make it up."""
    scores = [r.scores[name] for r in results]
    if not scores or len({len(s.examples) for s in scores}) > 1:
        return 0, np.empty(0)
    each = [contributions(name, s.examples, s.gold) for s in scores]
    if any(
        not len(c) or not abs(c.mean() - s.mean) < _AGREE for c, s in zip(each, scores, strict=True)
    ):
        return 0, np.empty(0)
    return len(each[0]), np.mean(each, axis=0)


def _together(each: Sequence[tuple[Hashable, stats.Array]]) -> stats.Array:
    """Return the values of those encoders that can be paired, (n, m); NaN columns for the few that differ from most."""
    kinds = Counter(kind for kind, values in each if len(values) > 1)
    if not kinds:
        return np.empty((0, len(each)))
    usual = max(kinds, key=lambda kind: (kinds[kind], repr(kind)))
    n = next(len(values) for kind, values in each if kind == usual)
    return np.array([values if kind == usual else np.full(n, np.nan) for kind, values in each]).T
