"""The results as pandas frames: one row per result, one per encoder, one per task, and what pivots of them say.

Every table of the report is a pivot of these frames and every figure a plot of one.
"""

import json
import re
import zlib
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench import stats
from bench.influence import bounds, contributions
from bench.reporting.stale import leave_out_stale
from bench.result import Absence, Result
from bench.task import APART

OVERLAP = 0.05
"""A score is marked when more than this share of its test texts shares an 8-gram with the training data."""

TASK = ["family", "task", "readout", "limit", "protocol", "metric"]
"""What makes one task of the report: results that differ in any of these are not compared."""

METHOD = (
    f"95 % intervals: paired bootstrap ({stats.DRAWS:,} resamples, seed {stats.SEED}) over test "
    "examples, over repeats (seeds, draws, folds), or over both, whichever the task has; "
    "Wilson's where these would leave the range of the metric"
)
"""How intervals are computed, for captions."""

_AGREE = (
    1e-4  # examples were stored in float32: their contributions must average to the score this well
)
_DIGITS = 6


@dataclass(frozen=True)
class Comparison:
    """Results of several encoders on several tasks.

    Attributes:
        runs: One row per result: ``encoder`` (its label), ``name``, ``fingerprint``, the columns of ``TASK``,
            ``title`` (the task as tables name it), ``seed``, ``key``, and the ``result`` itself.
        absences: Why cells have no result, where a run has tried them.
    """

    runs: pd.DataFrame
    absences: Sequence[Absence] = ()

    @classmethod
    def of(cls, results: Iterable[Result], absences: Iterable[Absence] = ()) -> Self:
        """Arrange results; encoders of one name but different content get labels that say how they differ.

        Of results on one task from different data only those from the newest are kept.
        """
        results, stale = leave_out_stale(results)
        runs = pd.DataFrame([_row(result) for result in results], columns=_COLUMNS)
        order = ["asked", "fingerprint", "task", "key"]
        runs = runs.sort_values(order, kind="stable", ignore_index=True)
        runs["encoder"] = _labels(runs)
        runs = runs.drop_duplicates(["encoder", *TASK, "key"])  # a copied file is no second result
        runs = runs.merge(_titles(runs), on=TASK)
        return cls(runs, [_without_folders(absence) for absence in (*absences, *stale)])

    @cached_property
    def cells(self) -> dict[tuple[str, str], list[Result]]:
        """The results of each (encoder, title), one per seed."""
        found: dict[tuple[str, str], list[Result]] = {}
        for encoder, title, result in zip(
            self.runs.encoder, self.runs.title, self.runs.result, strict=True
        ):
            found.setdefault((encoder, title), []).append(result)
        return found

    @cached_property
    def tasks(self) -> pd.DataFrame:
        """The tasks by title, sorted by ``TASK``.

        Columns: those of ``TASK``; ``compared``, whether the score says how good an encoder is; ``common``, whether
        it counts in means; ``superseded``, whether another protocol version or limit of the task counts instead.

        A task is common when more than half of the encoders have it (where none is that common, every task is),
        so that all means are of the same tasks. Of one task and read-out the highest version counts, then the
        largest limit.
        """
        tasks = self.runs.drop_duplicates("title").set_index("title")[TASK].sort_values(TASK)
        tasks["compared"] = ~tasks.family.isin(APART)
        have = self.runs.drop_duplicates(["encoder", "title"]).title.value_counts()
        often = tasks.compared & (2 * have.reindex(tasks.index) > self.runs.encoder.nunique())
        often = often if often.any() else tasks.compared
        unlimited = tasks.limit.where(tasks.limit > 0, np.inf)
        rank = tasks.assign(limit=unlimited)[often].sort_values(
            ["protocol", "limit"], kind="stable"
        )
        counted = rank.drop_duplicates(["task", "readout"], keep="last")
        tasks["common"] = tasks.index.isin(counted.index)
        same = pd.MultiIndex.from_frame(tasks[["task", "readout"]])
        known = pd.MultiIndex.from_frame(counted[["task", "readout"]])
        tasks["superseded"] = tasks.compared & ~tasks.common & same.isin(known)
        return tasks

    @cached_property
    def measured(self) -> pd.DataFrame:
        """Every cell, by (encoder, title): ``score``, ``std`` and ``repeats`` of the main score over all seeds."""
        repeats = [list(result.main.repeats) for result in self.runs.result]
        each = self.runs[["encoder", "title"]].assign(value=repeats).explode("value")
        by_cell = each.astype({"value": float}).groupby(["encoder", "title"]).value
        return by_cell.agg(score="mean", std="std", repeats="size")

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Main scores, title by encoder, in the order of ``tasks`` and ``encoders``; NaN where there is none."""
        return self._pivot("score")

    @cached_property
    def stds(self) -> pd.DataFrame:
        """Standard deviation over repeats, title by encoder; NaN for a single one."""
        return self._pivot("std")

    def _pivot(self, value: str) -> pd.DataFrame:
        wide = self.measured[value].unstack("encoder")
        return wide.reindex(index=self.tasks.index, columns=self.labels)

    @cached_property
    def encoders(self) -> pd.DataFrame:
        """The encoders by label, highest mean over families first, those without a mean last.

        Columns: ``name`` (as it was asked for), ``title`` (marked where untrained), ``trained``, ``backbone``,
        ``base`` (what it was trained from), ``tokens`` (training tokens; None where unknown), ``card``,
        ``training`` (the card of its training), ``mean``.
        """
        first = self.runs.drop_duplicates("encoder").set_index("encoder").sort_index()
        rows = [_encoder(label, row) for label, row in first.iterrows()]
        encoders = pd.DataFrame(rows, index=first.index, columns=_ENCODER, dtype=object)
        score = self.measured.score.unstack("encoder")
        encoders["mean"] = self._family_means(score).mean(skipna=False)
        return encoders.sort_values("mean", ascending=False, kind="stable")

    @cached_property
    def labels(self) -> list[str]:
        """The encoders' labels, in the order of ``encoders``."""
        return list(self.encoders.index)

    @cached_property
    def number(self) -> dict[str, int]:
        """The position of each encoder in the arrays of ``stats``."""
        return {label: i for i, label in enumerate(self.labels)}

    @cached_property
    def families(self) -> dict[str, list[str]]:
        """The titles that count in the mean of each family."""
        common = self.tasks[self.tasks.common]
        return {str(family): list(group.index) for family, group in common.groupby("family")}

    @cached_property
    def family_means(self) -> pd.DataFrame:
        """Mean of each family's common tasks, family by encoder; NaN where a task is missing."""
        return self._family_means(self.scores)

    def _family_means(self, scores: pd.DataFrame) -> pd.DataFrame:
        means = {f: scores.loc[titles].mean(skipna=False) for f, titles in self.families.items()}
        return pd.DataFrame(means, index=scores.columns).T

    @cached_property
    def family_stds(self) -> pd.DataFrame:
        """Standard deviation of these means over repeats; NaN where no task was measured more than once."""
        stds = {
            family: np.sqrt(self.stds.loc[titles].pow(2).sum(min_count=1)) / len(titles)
            for family, titles in self.families.items()
        }
        return pd.DataFrame(stds, index=self.labels).T

    def have(self, label: str, family: str) -> str:
        """Return on how many of a family's common tasks an encoder has a result."""
        titles = self.families[family]
        return f"{self.scores.loc[titles, label].notna().sum()} of {len(titles)} tasks"

    def of_encoder(self, label: str) -> list[Result]:
        """Return every result of an encoder."""
        return self._by_encoder[label]

    @cached_property
    def _by_encoder(self) -> dict[str, list[Result]]:
        found: dict[str, list[Result]] = {}
        for (label, _), results in self.cells.items():
            found.setdefault(label, []).extend(results)
        return found

    @cached_property
    def overlap(self) -> pd.DataFrame:
        """Share of test texts that share an 8-gram with the training data, title by encoder; NaN: not measured."""
        shares = [result.texts.get("overlap_share") for result in self.runs.result]
        each = self.runs[["encoder", "title"]].assign(share=pd.Series(shares, dtype=float).values)
        wide = each.groupby(["encoder", "title"]).share.max().unstack("encoder")
        return wide.reindex(index=self.tasks.index, columns=self.labels)

    def overlap_warning(self, label: str, titles: Iterable[str]) -> str:
        """Return which of these tasks have test texts that overlap with the training data; "" for none."""
        shares = self._overlapping.get(label, {})
        over = [f"{title} {100 * shares[title]:.0f} %" for title in titles if title in shares]
        words = "test texts that share 8 words in a row with the training data: "
        return words + ", ".join(over) if over else ""

    @cached_property
    def _overlapping(self) -> dict[str, dict[str, float]]:
        over = self.overlap.where(self.overlap > OVERLAP)
        return {label: over[label].dropna().to_dict() for label in self.labels}

    def absence(self, label: str, title: str) -> str:
        """Return why a cell has no result: "skipped: ...", "failed: ...", or that it was not run."""
        task = self.tasks.loc[title]
        cell = (self.encoders.at[label, "name"], task.task, task.readout, task.limit)
        return self._reasons.get(cell, "not run")

    @cached_property
    def _reasons(self) -> dict[tuple[str, str, str, int], str]:
        return {
            (a.encoder, a.task, a.readout, a.limit or 0): f"{a.status}: {a.reason}"
            for a in self.absences
        }

    # ---- uncertainty

    @cached_property
    def by_task(self) -> dict[str, stats.Sampled]:
        """Main scores of each task with their bootstrap draws, encoders in the order of ``labels``."""
        return {title: self.sampled(title) for title in self.tasks.index}

    @cached_property
    def by_family(self) -> dict[str, stats.Sampled]:
        """Means over each family's common tasks."""
        return {
            family: stats.mean_of([self.by_task[title] for title in titles])
            for family, titles in self.families.items()
        }

    @cached_property
    def overall(self) -> stats.Sampled:
        """Mean over families."""
        if not self.by_family:
            return stats.sampled(np.full(len(self.labels), np.nan))
        return stats.mean_of(list(self.by_family.values()))

    def sampled(self, title: str, metric: str = "") -> stats.Sampled:
        """Return a score of a task, the main one by default, with its bootstrap draws."""
        task = self.tasks.loc[title].to_dict()
        name = metric or task["metric"]
        each = [self.cells.get((label, title), []) for label in self.labels]
        each = [found if all(name in r.scores for r in found) else [] for found in each]
        return sampled(each, name, seed_of(task, name))

    def bounds(self, found: stats.Sampled) -> list[tuple[float, float] | None]:
        """Return the interval of each encoder's number; None where it was measured once."""
        estimates = stats.intervals(found)
        ends = zip(estimates.low.round(_DIGITS), estimates.high.round(_DIGITS), strict=True)
        return [None if np.isnan(low) else (float(low), float(high)) for low, high in ends]

    @cached_property
    def partners(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Every pair of encoders once: the numbers of the first and of the second."""
        first, second = np.triu_indices(len(self.labels), 1)
        return first, second

    @cached_property
    def adjusted(self) -> dict[str, stats.Array]:
        """The p-value of every pair on every compared task, Holm-corrected over all of them."""
        compared = self.tasks.index[self.tasks.compared]
        return holm({t: stats.p_values(self.by_task[t], *self.partners) for t in compared})

    @cached_property
    def outcomes(self) -> NDArray[np.int64]:
        """How often each encoder wins, ties and loses against each other one, (m, m, 3).

        Cells without a p-value and superseded tasks do not count.
        """
        m = len(self.labels)
        counts = np.zeros((m, m, 3), np.int64)
        first, second = self.partners
        for title, p in self.adjusted.items():
            if self.tasks.at[title, "superseded"]:
                continue
            scores = self.by_task[title].scores
            gap, significant = scores[first] - scores[second], p < 1 - stats.LEVEL
            outcome = np.where(significant, np.where(gap > 0, 0, 2), 1)
            known = np.isfinite(p) & ~(significant & (gap == 0))
            i, j, outcome = first[known], second[known], outcome[known]
            counts[i, j, outcome] += 1
            counts[j, i, 2 - outcome] += 1
        return counts

    @cached_property
    def ranked(self) -> pd.DataFrame:
        """The scores of the encoders that have every common task, title by encoder."""
        return self.scores[self.tasks.common].dropna(axis=1)


def judgement(over: str = "every pair of encoders and every task of this report") -> str:
    """Return how significance is decided, for captions: over which comparisons p-values are corrected."""
    return (
        "p-values: paired t test on the same values, Holm-corrected over "
        f"{over}; significant: p < {1 - stats.LEVEL:.2f}"
    )


def holm(p: Mapping[str, stats.Array]) -> dict[str, stats.Array]:
    """Return p-values corrected over all of them together (Holm 1979)."""
    if not p:
        return {}
    corrected = stats.holm(np.concatenate(list(p.values())))
    ends = np.cumsum([len(values) for values in p.values()])[:-1]
    return dict(zip(p, np.split(corrected, ends), strict=True))


def sampled(results: Sequence[Sequence[Result]], name: str, seed: int) -> stats.Sampled:
    """Return a score of several encoders on one task with its bootstrap draws.

    Args:
        results: The results of each encoder, one per seed; none where it has none.
        name: Name of the score.
        seed: Seed of the draws.
    """
    means = [
        np.mean([value for r in found for value in r.scores[name].repeats]) if found else np.nan
        for found in results
    ]
    scores = np.array(means)
    examples = _paired([_examples(found, name) for found in results])
    repeats = _paired([_repeats(found, name) for found in results])
    sources = [s for s in (examples, repeats) if len(s) > 1 and (np.ptp(s, axis=0) > 0).any()]
    return stats.sampled(scores, *sources, seed=seed, bounds=bounds(name, scores))


def seed_of(task: Mapping[str, Any], name: str) -> int:
    """Return the seed of the draws for a score of a task: fixed, and different for every score."""
    family, title, readout, limit, version, metric = (task[column] for column in TASK)
    words = f"{family=}, task={title!r}, {readout=}, {limit=}, {version=}, {metric=}"
    return zlib.crc32(f"Column({words}){name}{stats.SEED}".encode())


def _repeats(results: Sequence[Result], name: str) -> tuple[Hashable, stats.Array]:
    """Return what two encoders must share for their repeats to be paired, and the repeats, averaged over seeds.

    Two seeds may draw the same repeats, so seeds add none; only where each seed has a single one are they the repeats.
    """
    ordered = sorted(results, key=lambda r: r.spec.seed)
    each = [r.scores[name].repeats for r in ordered]
    if len({len(repeats) for repeats in each}) != 1:
        return 0, np.empty(0)
    kind = (*(r.spec.seed for r in ordered), len(each[0]))
    return kind, np.mean(each, axis=0 if len(each[0]) > 1 else 1)


def _examples(results: Sequence[Result], name: str) -> tuple[Hashable, stats.Array]:
    """Return the number of test examples and what each contributes to the score; none where that is not known."""
    scores = [r.scores[name] for r in results]
    if len({len(s.examples) for s in scores}) != 1:
        return 0, np.empty(0)
    each = [contributions(name, s.examples, s.gold) for s in scores]
    pairs = zip(each, scores, strict=True)
    if not all(len(c) and abs(c.mean() - s.mean) < _AGREE for c, s in pairs):
        return 0, np.empty(0)
    return len(each[0]), np.mean(each, axis=0)


def _paired(each: Sequence[tuple[Hashable, stats.Array]]) -> stats.Array:
    """Return the values of the encoders that can be paired, (n, m); NaN columns for those that cannot."""
    kinds = Counter(kind for kind, values in each if len(values) > 1)
    if not kinds:
        return np.empty((0, len(each)))
    usual = max(kinds, key=lambda kind: (kinds[kind], repr(kind)))
    n = next(len(values) for kind, values in each if kind == usual)
    nothing = np.full(n, np.nan)
    return np.array([values if kind == usual else nothing for kind, values in each]).T


# ---- rows and names

_ENCODER = ["name", "title", "trained", "backbone", "base", "tokens", "card", "training"]
_COLUMNS = ["asked", "name", "fingerprint", *TASK, "seed", "key", "result"]


def _row(result: Result) -> dict[str, Any]:
    spec = result.spec
    return {
        "asked": spec.encoder,
        "name": strip_folders(spec.encoder),
        "fingerprint": spec.fingerprint,
        "family": result.family,
        "task": spec.task,
        "readout": spec.readout,
        "limit": spec.limit or 0,
        "protocol": spec.task_version,
        "metric": result.metric,
        "seed": spec.seed,
        "key": spec.key,
        "result": result,
    }


def _encoder(label: str, run: pd.Series) -> dict[str, Any]:
    card = run.result.card
    training = card.get("training") or {}
    trained = bool(card.get("trained", True))
    return {
        "name": run["name"],
        "title": label if trained else f"{label} (untrained)",
        "trained": trained,
        "backbone": card.get("backbone") or "",
        "base": str(training.get("backbone") or card.get("backbone") or ""),
        "tokens": card.get("training_tokens") or training.get("trained_tokens") or None,
        "card": card,
        "training": training,
    }


def _titles(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the tasks with a ``title`` each: the name, and what sets it apart from others of the same name."""
    tasks = runs[TASK].drop_duplicates()
    apart = ["readout", "protocol", "metric", "family"]
    several = tasks.groupby("task")[apart].transform("nunique") > 1
    titles = []
    for (_, task), differs in zip(tasks.iterrows(), several.itertuples(index=False), strict=True):
        marks = [f"limit {task.limit}"] if task.limit else []
        marks += [task.readout] * differs.readout
        marks += [f"protocol {task.protocol}"] * differs.protocol
        marks += [task.metric] * differs.metric
        marks += [task.family] * differs.family
        titles.append(task.task + (f" ({', '.join(marks)})" if marks else ""))
    return tasks.assign(title=titles)


def _labels(runs: pd.DataFrame) -> pd.Series:
    """Return the encoders' names, with the settings in which encoders of one name differ, as ``--set`` takes them.

    Encoders of the same settings get the first digits of their fingerprints, at least four.
    """
    labels = runs["name"].copy()
    for _, group in runs.groupby("name"):
        first = group.drop_duplicates("fingerprint").set_index("fingerprint").result
        if len(first) > 1:
            labels[group.index] += group.fingerprint.map(_differences(first))
    return labels


def _differences(results: "pd.Series[Any]") -> dict[str, str]:
    """Return what tells results of one encoder name apart, by fingerprint."""
    plain = [
        {name: _plain(value) for name, value in result.spec.settings.items()} for result in results
    ]
    names = dict.fromkeys(name for settings in plain for name in settings)
    differing = [name for name in names if len({settings.get(name) for settings in plain}) > 1]
    words = [
        "".join(f" {name}={settings[name]}" for name in differing if name in settings)
        for settings in plain
    ]
    alike = Counter(words)
    longest = max(map(len, results.index))
    digits = next(
        n for n in range(4, longest + 1) if results.index.str[:n].nunique() == len(results)
    )
    return {
        fingerprint: said + (f" #{fingerprint[:digits]}" if alike[said] > 1 else "")
        for fingerprint, said in zip(results.index, words, strict=True)
    }


def _plain(value: object) -> str:
    return strip_folders(json.dumps(value, ensure_ascii=False).strip('"'))


def _without_folders(absence: Absence) -> Absence:
    reason = strip_paths(absence.reason)
    return Absence(**vars(absence) | {"encoder": strip_folders(absence.encoder), "reason": reason})


def strip_folders(text: str) -> str:
    """Return a name or an argument with absolute paths cut to their last part."""
    path = r"(?:(?<=[=:,])|^)(?:~|[A-Za-z]:)?[\\/][^,]*?([^\\/,]+)[\\/]*(?=,|$)"
    return re.sub(path, r"\1", text)


def strip_paths(text: str) -> str:
    """Return a sentence with absolute paths cut to their last part."""
    folder = r"(?<![\w.:/\\])(?:~|[A-Za-z]:)?[\\/](?:[^\s\\/,;:'\"()]+[\\/])+(?=[^\s\\/,;:'\"()])"
    return re.sub(folder, "", text)


def select(
    results: Sequence[Result],
    absences: Sequence[Absence],
    models: Collection[str],
    tasks: Collection[str],
) -> tuple[list[Result], list[Absence]]:
    """Return the results and absences of some encoders and tasks; all where none are named."""

    def wanted(encoder: str, task: str) -> bool:
        return (not models or strip_folders(encoder) in models) and (not tasks or task in tasks)

    return (
        [r for r in results if wanted(r.spec.encoder, r.spec.task)],
        [a for a in absences if wanted(a.encoder, a.task)],
    )
