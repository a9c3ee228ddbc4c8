"""The results as pandas frames: one row per result, per encoder and per task, with statistics.

Every table of the report is a pivot of these frames and every figure a plot of one.
"""

import zlib
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench import stats
from bench.reporting.names import (
    TASK,
    known_encoder,
    labels,
    marked,
    strip_folders,
    strip_paths,
    titles,
)
from bench.reporting.stale import leave_out_stale
from bench.stats.influence import AGREE, bounds, contributions
from bench.store.result import Absence, Result
from bench.task import APART

OVERLAP = 0.05
"""A score is marked when more than this share of test texts shares an 8-gram with training data."""

MEAN = "mean of families"

METHOD = (
    f"95 % intervals: paired bootstrap ({stats.DRAWS:,} resamples, seed {stats.SEED}) over test "
    "examples, over repeats (seeds, draws, folds), or over both, whichever the task has; "
    "Wilson's where these would leave the range of the metric. In means, examples that "
    "tasks share by the hashes of their texts are resampled together; results without hashes count "
    "as independent."
)
"""How intervals are computed."""

SIGNIFICANT = (
    f"Significant: p < {1 - stats.LEVEL:.2f} in a paired t test on the same values, Holm-corrected "
    "over every pair of encoders and every task of this report (for means: every family mean and "
    "their mean)."
)
"""How significance is decided in every table and figure."""


@dataclass(frozen=True)
class Comparison:
    """Results of several encoders on several tasks.

    Attributes:
        runs: One row per result: ``encoder`` (its label), ``name``, ``fingerprint``, the columns of
            ``TASK``, ``title`` (the task as tables name it), ``seed``, ``key``, and ``result``.
        absences: Why cells have no result, where a run has tried them.
        digits: Decimals of printed scores.
    """

    runs: pd.DataFrame
    absences: Sequence[Absence] = ()
    digits: int = 1

    @classmethod
    def of(
        cls, results: Iterable[Result], absences: Iterable[Absence] = (), *, digits: int = 1
    ) -> Self:
        """Arrange results; encoders of one name but different content get different labels.

        Of results on one task from different data only those from the newest are kept.
        """
        kept, stale = leave_out_stale(results)
        runs = pd.DataFrame([_row(result) for result in kept], columns=_COLUMNS)
        order = ["asked", "fingerprint", "task", "key"]
        runs = runs.sort_values(order, kind="stable", ignore_index=True)
        runs["encoder"] = labels(runs)
        runs = runs.drop_duplicates(["encoder", *TASK, "key"])  # a copied file is no second result
        runs = runs.merge(titles(runs), on=TASK)
        return cls(runs, [_without_folders(a) for a in (*absences, *stale)], digits)

    @cached_property
    def cells(self) -> dict[tuple[str, str], list[Result]]:
        """The results of each (encoder, title), one per seed."""
        by_cell = self.runs.groupby(["encoder", "title"], sort=False)
        found: dict[tuple[str, str], list[Result]] = by_cell.result.agg(list).to_dict()
        return found

    @cached_property
    def tasks(self) -> pd.DataFrame:
        """The tasks by title, sorted by ``TASK``.

        Columns: those of ``TASK``; ``compared``, whether more is better; ``common``, whether it
        counts in means; ``superseded``, whether another protocol version or limit counts instead.

        A task is common when more than half of the encoders that were run have it (where none is
        that common, every task is), so that all means are of the same tasks. Of one task and
        read-out the highest version counts, then the largest limit.
        """
        tasks = self.runs.drop_duplicates("title").set_index("title")[TASK].sort_values(TASK)
        tasks["compared"] = ~tasks.family.isin(APART)
        foreign = np.array([bool(result.card.get("source")) for result in self.runs.result], bool)
        run = self.runs[~foreign]
        have = run.drop_duplicates(["encoder", "title"]).title.value_counts()
        often = tasks.compared & (2 * have.reindex(tasks.index) > run.encoder.nunique())
        often = often if often.any() else tasks.compared
        unlimited = tasks.assign(limit=tasks.limit.where(tasks.limit > 0, np.inf))[often]
        ranked = unlimited.sort_values(["protocol", "limit"], kind="stable")
        counted = ranked.drop_duplicates(["task", "readout"], keep="last")
        tasks["common"] = tasks.index.isin(counted.index)
        same = pd.MultiIndex.from_frame(tasks[["task", "readout"]])
        known = pd.MultiIndex.from_frame(counted[["task", "readout"]])
        tasks["superseded"] = tasks.compared & ~tasks.common & same.isin(known)
        return tasks

    @cached_property
    def common(self) -> list[str]:
        """The titles that count in means."""
        return list(self.tasks.index[self.tasks.common])

    @cached_property
    def measured(self) -> pd.DataFrame:
        """Main scores by (encoder, title): ``score``, ``std`` and ``repeats`` over all seeds."""
        repeats = [list(result.main.repeats) for result in self.runs.result]
        each = self.runs[["encoder", "title"]].assign(value=repeats).explode("value")
        by_cell = each.astype({"value": float}).groupby(["encoder", "title"]).value
        return by_cell.agg(score="mean", std="std", repeats="size")

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Main scores, title by encoder; NaN where there is none."""
        return self._pivot(self.measured.score)

    @cached_property
    def stds(self) -> pd.DataFrame:
        """Standard deviation over repeats, title by encoder; NaN for a single one."""
        return self._pivot(self.measured["std"])

    def _pivot(self, values: "pd.Series[Any]") -> pd.DataFrame:
        return values.unstack("encoder").reindex(index=self.tasks.index, columns=self.labels)

    @cached_property
    def encoders(self) -> pd.DataFrame:
        """The encoders by label, highest mean over families first, those without a mean last.

        Columns: ``name`` (as it was asked for), ``title`` (marked where untrained, transductive
        or distilled from labels), ``trained``, ``backbone``, ``base`` (what it was trained from),
        ``tokens`` (training tokens; None where unknown), ``card``, ``training`` (the card of its
        training), ``mean``, ``role``: "untrained" (a backbone that no recipe has trained),
        "reference" (an encoder known to ``names.known_encoder`` as one) or "method" (anything
        else, such as a new method).
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

    def numbers(self, labels: Iterable[str]) -> NDArray[np.int64]:
        """Return the positions of some encoders in the arrays of ``stats``."""
        return np.array([self.number[label] for label in labels], np.int64)

    @cached_property
    def baseline(self) -> str | None:
        """The untrained backbone of the methods, the mean of its token states if possible.

        Of several backbones that of most methods; None without an untrained one.
        """
        role, backbone = self.encoders.role, self.encoders.backbone
        shared = Counter(name for name in backbone[role == "method"] if name)
        untrained = self.encoders[(role == "untrained") & backbone.isin(list(shared))]
        if untrained.empty:
            return None
        most = max(untrained.backbone, key=shared.__getitem__)
        own = untrained[untrained.backbone == most]
        usual = own.index[own["name"] == "backbone-mean"]
        return str(next(iter([*usual, *own.index])))

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
        means = {f: scores.loc[own].mean(skipna=False) for f, own in self.families.items()}
        return pd.DataFrame(means, index=scores.columns).T

    @cached_property
    def family_stds(self) -> pd.DataFrame:
        """Standard deviation of these means over repeats; NaN where no task has several."""
        stds = {
            family: np.sqrt(self.stds.loc[own].pow(2).sum(min_count=1)) / len(own)
            for family, own in self.families.items()
        }
        return pd.DataFrame(stds, index=self.labels).T

    def of_encoder(self, label: str) -> list[Result]:
        """Return every result of an encoder."""
        return list(self._by_encoder[label])

    @cached_property
    def _by_encoder(self) -> "pd.Series[Any]":
        return self.runs.groupby("encoder").result.agg(list)

    @cached_property
    def overlap(self) -> pd.DataFrame:
        """Share of test texts with an 8-gram of the training data, title by encoder."""
        shares = np.array([r.texts.get("overlap_share") for r in self.runs.result], float)
        each = self.runs[["encoder", "title"]].assign(share=shares)
        return self._pivot(each.groupby(["encoder", "title"]).share.max())

    def overlap_warning(self, label: str, over: Iterable[str]) -> str:
        """Return which of these tasks overlap with the training data; "" for none."""
        shares = self._overlapping.get(label, {})
        found = [f"{title} {100 * shares[title]:.0f} %" for title in over if title in shares]
        words = "test texts that share an 8-gram with the training data: "
        return words + ", ".join(found) if found else ""

    @cached_property
    def _overlapping(self) -> dict[str, dict[str, float]]:
        over = self.overlap.where(self.overlap > OVERLAP)
        return {label: over[label].dropna().to_dict() for label in self.labels}

    def absence(self, label: str, title: str) -> str:
        """Return why a cell has no result: "skipped: ...", "failed: ...", or "not run"."""
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
        """Main scores of each task with their bootstrap, encoders in the order of ``labels``."""
        return {title: self.sampled(title) for title in self.tasks.index}

    @cached_property
    def by_family(self) -> dict[str, stats.Sampled]:
        """Means over each family's common tasks."""
        return {family: self.mean_of(own) for family, own in self.families.items()}

    def mean_of(self, titles: Iterable[str]) -> stats.Sampled:
        """Return the mean of the main scores of some tasks."""
        return stats.mean_of([self.by_task[title] for title in titles])

    @cached_property
    def overall(self) -> stats.Sampled:
        """Mean over families."""
        if not self.by_family:
            return stats.sampled(np.full(len(self.labels), np.nan))
        return stats.mean_of(list(self.by_family.values()))

    def sampled(self, title: str, metric: str = "") -> stats.Sampled:
        """Return a score of a task, the main one by default, with its bootstrap."""
        task = self.tasks.loc[title].to_dict()
        name = metric or task["metric"]
        each = []
        for label in self.labels:
            found = self.cells.get((label, title), [])
            each.append(found if all(name in r.scores for r in found) else [])
        return sampled(each, name, seed_of(task, name))

    def score_names(self, title: str) -> set[str]:
        """Return the names of a task's scores, of any encoder."""
        results = self.runs.result[self.runs.title == title]
        return set(chain(*(result.scores for result in results)))

    @cached_property
    def p_tasks(self) -> dict[str, stats.Array]:
        """p-values of every pair of encoders on every compared task, (m, m), corrected over all."""
        compared = [str(title) for title in self.tasks.index[self.tasks.compared]]
        p = stats.corrected_p([self.by_task[title] for title in compared])
        return dict(zip(compared, p, strict=True))

    @cached_property
    def p_means(self) -> dict[str, stats.Array]:
        """Corrected p-values of every pair on every family mean and on ``MEAN``, (m, m)."""
        p = stats.corrected_p([*self.by_family.values(), self.overall])
        return dict(zip([*self.by_family, MEAN], p, strict=True))

    @cached_property
    def outcomes(self) -> NDArray[np.int64]:
        """How often each encoder wins, ties and loses against each other one, (m, m, 3).

        Cells without a p-value and superseded tasks do not count.
        """
        m = len(self.labels)
        counts = np.zeros((m, m, 3), np.int64)
        for title in self.tasks.index[self.tasks.compared & ~self.tasks.superseded]:
            scores, p = self.by_task[title].scores, self.p_tasks[title]
            gap, significant = scores[:, None] - scores, p < 1 - stats.LEVEL
            counts[..., 0] += significant & (gap > 0)
            counts[..., 1] += np.isfinite(p) & ~significant
            counts[..., 2] += significant & (gap < 0)
        return counts

    @cached_property
    def ranked(self) -> pd.DataFrame:
        """The scores of the encoders that have every common task, title by encoder."""
        return self.scores.loc[self.common].dropna(axis=1)

    def mean_ranks(self, among: Collection[str]) -> dict[str, float]:
        """Return the mean rank over the common tasks of those of some encoders that have all."""
        ranked = self.ranked[[label for label in self.ranked if label in among]]
        if not ranked.size:
            return {}
        return dict(zip(ranked, stats.mean_ranks(ranked.to_numpy()).tolist(), strict=True))


def sampled(results: Sequence[Sequence[Result]], name: str, seed: int) -> stats.Sampled:
    """Return a score of several encoders on one task with its bootstrap.

    Args:
        results: The results of each encoder, one per seed; none where it has none.
        name: Name of the score.
        seed: Seed of the resamples.
    """
    scores = np.array([mean_score(found, name) for found in results])
    examples = _paired([_examples(found, name) for found in results])
    ids = _ids(results, name, len(examples))
    repeats_ = _paired([_repeats(found, name) for found in results])
    wordings = _paired([_over_seeds([r.scores[name].wordings for r in found]) for found in results])
    each = examples, repeats_, wordings
    sources = [source for source in each if _varies(source)]
    known = ids if sources and sources[0] is examples else None
    return stats.sampled(scores, *sources, ids=known, seed=seed, bounds=bounds(name, scores))


def _varies(source: stats.Array) -> bool:
    return len(source) > 1 and bool((np.ptp(source, axis=0) > 0).any())


def mean_score(results: Sequence[Result], name: str) -> float:
    """Return the mean of a score over the repeats of all results; NaN for no results."""
    repeats = [r.scores[name].repeats for r in results]
    return float(np.mean(np.concatenate(repeats))) if results else np.nan


def seed_of(task: Mapping[str, Any], name: str) -> int:
    """Return the seed of the resamples of a score: fixed, and different for every score."""
    family, title, readout, limit, version, metric = (task[column] for column in TASK)
    words = f"{family=}, task={title!r}, {readout=}, {limit=}, {version=}, {metric=}"
    return zlib.crc32(f"Column({words}){name}{stats.SEED}".encode())


def _repeats(results: Sequence[Result], name: str) -> tuple[Hashable, stats.Array]:
    """Return what two encoders must share for their repeats to be paired, and the repeats.

    Repeats are averaged over seeds, which may draw the same ones; only where each seed has a
    single repeat, the seeds are the repeats.
    """
    ordered = sorted(results, key=lambda r: r.spec.seed)
    each = [r.scores[name].repeats for r in ordered]
    n, means = _over_seeds(each)
    kind = (*(r.spec.seed for r in ordered), n)
    return kind, means if n != 1 else np.concatenate(each)


def _examples(results: Sequence[Result], name: str) -> tuple[int, stats.Array]:
    """Return the number of test examples and the contribution of each; none where unknown."""
    each = []
    for score in (r.scores[name] for r in results):
        found = contributions(name, score.examples, score.gold)
        if not len(found) or not abs(found.mean() - score.mean) < AGREE:
            return 0, np.empty(0)
        each.append(found)
    return _over_seeds(each)


def _over_seeds(each: Sequence[Sequence[float] | stats.Array]) -> tuple[int, stats.Array]:
    """Return the number of values of each seed and their means; none where it differs."""
    if len({len(values) for values in each}) != 1:
        return 0, np.empty(0)
    return len(each[0]), np.array(each, np.float64).mean(axis=0)


def _ids(results: Sequence[Sequence[Result]], name: str, n: int) -> NDArray[np.uint64] | None:
    """Return the ids of the n examples; None where they are not known or differ."""
    every = [result.scores[name].ids for result in chain(*results)]
    known = [ids for ids in every if len(ids) == n > 0]
    alike = bool(known) and all(np.array_equal(ids, known[0]) for ids in known)
    return known[0] if alike else None


def _paired(each: Sequence[tuple[Hashable, stats.Array]]) -> stats.Array:
    """Return the values of the encoders that can be paired, (n, m); NaN columns for others."""
    kinds = Counter(kind for kind, values in each if len(values) > 1)
    if not kinds:
        return np.empty((0, len(each)))
    usual = max(kinds, key=lambda kind: (kinds[kind], repr(kind)))
    n = next(len(values) for kind, values in each if kind == usual)
    nothing = np.full(n, np.nan)
    return np.array([values if kind == usual else nothing for kind, values in each]).T


# ---- rows

_ENCODER = ["name", "title", "trained", "backbone", "base", "tokens", "card", "training", "role"]
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


def _title(label: str, card: Mapping[str, Any]) -> str:
    """Return the label with what a reader has to know of the encoder."""
    return marked(
        label,
        card.get("source") or "",
        "" if card.get("trained", True) else "untrained",
        "transductive" if card.get("transductive") else "",
        "distilled from labels" if card.get("distilled") else "",
    )


def _encoder(label: str, run: pd.Series) -> dict[str, Any]:
    card = run.result.card
    training = card.get("training") or {}
    trained = bool(card.get("trained", True))
    known = known_encoder(str(run["name"]))
    return {
        "name": run["name"],
        "title": _title(label, card),
        "trained": trained,
        "backbone": card.get("backbone") or "",
        "base": str(training.get("backbone") or card.get("backbone") or ""),
        "tokens": card.get("training_tokens") or training.get("trained_tokens") or None,
        "card": card,
        "training": training,
        "role": _role(known.get("role", ""), card),
    }


def _role(known: str, card: Mapping[str, Any]) -> str:
    """Return the role of an encoder: that of its name, but for the weights of a training."""
    if known and not (known == "untrained" and "method" in (card.get("training") or {})):
        return known
    if card.get("source"):
        return "reference"
    return "method" if card.get("trained", True) else "untrained"


def _without_folders(absence: Absence) -> Absence:
    encoder, reason = strip_folders(absence.encoder), strip_paths(absence.reason)
    return replace(absence, encoder=encoder, reason=reason)
