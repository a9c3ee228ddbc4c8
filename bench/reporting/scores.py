"""Tables of scores: family means, every task, every score of a family. Scores are shown x 100."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd

from bench import stats
from bench.reporting.comparison import MEAN, Comparison
from bench.reporting.names import natural
from bench.reporting.table import Entry, Mark, Table, measure, missing, score, warned, word
from bench.task import APART, decimal

_BEST = "Bold: best. †: not significantly different from the best."
WITHIN = 0.05
"""Budgets that differ by at most this share count as equal."""


def entries(
    c: Comparison,
    found: stats.Sampled,
    p: stats.Array,
    shown: Sequence[str],
    *,
    tasks: Sequence[str],
    texts: Mapping[str, str],
    absences: Mapping[str, str] = {},
    ranked: bool = True,
) -> list[Entry]:
    """Return the entries of some encoders, with intervals, marks and warnings.

    Args:
        c: The results.
        found: The scores of all encoders (m,).
        p: Their corrected p-values, (m, m).
        shown: Labels of the encoders to return, marked among themselves.
        tasks: The tasks behind the scores, for warnings of overlap.
        texts: What is printed for each encoder.
        absences: Why an encoder has no score, where it is a mean.
        ranked: Whether more is better.
    """
    numbers, bounds = c.numbers(shown), found.intervals.bounds()
    warnings = [c.overlap_warning(label, tasks) for label in shown]
    fair = [ranked and not warning for warning in warnings]
    scores = found.scores[numbers]
    marks = _marks(np.where(fair, scores, np.nan), p[np.ix_(numbers, numbers)], c.digits)
    made = []
    for label, value, mark, warning in zip(shown, scores.tolist(), marks, warnings, strict=True):
        if np.isnan(value):
            made.append(missing(absences.get(label) or _absence(c, label, tasks[0])))
            continue
        key = c.cells[label, tasks[0]][0].spec.key if len(tasks) == 1 else ""
        entry = Entry(texts[label], value, bounds[c.number[label]], mark, key=key)
        made.append(warned(entry, warning))
    return made


def _absence(c: Comparison, label: str, task: str) -> str:
    return "has no such score" if (label, task) in c.cells else c.absence(label, task)


def _marks(scores: stats.Array, p: stats.Array, digits: int) -> list[Mark]:
    """Return which scores are the best, or not significantly different from it.

    Scores that are equal as printed are equally good; NaN is not marked.
    """
    marks: list[Mark] = [""] * len(scores)
    if np.isfinite(scores).sum() < 2:
        return marks
    best = int(np.nanargmax(scores))
    printed = score(scores[best], digits=digits)
    for i in map(int, np.flatnonzero(np.isfinite(scores))):
        if score(scores[i], digits=digits) == printed:
            marks[i] = "best"
        elif p[i, best] >= 1 - stats.LEVEL:
            marks[i] = "tie"
    return marks


def families(
    c: Comparison,
    labels: Sequence[str] | None = None,
    name: str = "families",
    title: str = "Family means",
) -> Table:
    """Return the family means, encoder by family, the mean over families and the mean rank.

    Args:
        c: The results.
        labels: The encoders to show, ranked and marked among themselves; all by default.
        name: The table's name.
        title: Its headline.
    """
    shown = c.labels if labels is None else list(labels)
    columns = [
        ("encoder", [word(title) for title in c.encoders.title[shown]]),
        ("backbone", [word(backbone) for backbone in c.encoders.backbone[shown]]),
    ]
    columns += [(family, _family(c, family, shown)) for family in c.by_family]
    overall = entries(
        c,
        c.overall,
        c.p_means[MEAN],
        shown,
        tasks=c.common,
        texts={label: score(mean, digits=c.digits) for label, mean in c.encoders["mean"].items()},
        absences=dict.fromkeys(shown, "lacks a family"),
    )
    columns += [(MEAN, overall), ("mean rank", _mean_ranks(c, shown))]
    return Table.of_columns(
        name,
        title,
        columns,
        words={"encoder", "backbone"},
        about="Mean main score x 100 over each family's tasks; ± is the standard deviation of that "
        f"mean over repeats. {_BEST}",
    )


def _family(c: Comparison, family: str, shown: Sequence[str]) -> list[Entry]:
    tasks = c.families[family]
    counts = c.scores.loc[tasks].notna().sum()
    found = entries(
        c,
        c.by_family[family],
        c.p_means[family],
        shown,
        tasks=tasks,
        texts=_texts(c, c.family_means.loc[family], c.family_stds.loc[family]),
        absences={label: f"{n} of {len(tasks)} tasks" for label, n in counts.items()},
    )
    return [replace(each, text=each.note) if each.mark == "missing" else each for each in found]


def _texts(c: Comparison, scores: pd.Series, stds: pd.Series) -> dict[str, str]:
    """Return what is printed for each encoder."""
    return {label: score(scores[label], stds[label], digits=c.digits) for label in c.labels}


def _mean_ranks(c: Comparison, shown: Sequence[str]) -> list[Entry]:
    ranks = c.mean_ranks(shown)
    warnings = {label: c.overlap_warning(label, c.common) for label in ranks}
    fair = [rank for label, rank in ranks.items() if not warnings[label]]
    best = min(fair) if len(fair) > 1 else None
    made = []
    for label in shown:
        if label not in ranks:
            made.append(missing("lacks a task that most encoders have"))
            continue
        entry = measure(ranks[label], digits=2)
        entry = replace(entry, mark="best") if entry.value == best else entry
        made.append(warned(entry, warnings[label]))
    return made


def by_task(c: Comparison) -> Table:
    """Return the main score of every task, task by encoder."""
    rows = []
    for title, task in c.tasks[c.tasks.compared].iterrows():
        found = entries(
            c,
            c.by_task[title],
            c.p_tasks[title],
            c.labels,
            tasks=[title],
            texts=_texts(c, c.scores.loc[title], c.stds.loc[title]),
        )
        head = [word(cell) for cell in (task.family, title, task.metric)]
        rows.append((*head, _repeats(c, str(title)), *found))
    words = ("family", "task", "metric")
    return Table(
        "by-task",
        "Every task",
        (*words, "repeats", *c.encoders.title),
        tuple(rows),
        words=frozenset(words),
        about=f"Main scores x 100; ± is the standard deviation over repeats. {_BEST}",
    )


def _repeats(c: Comparison, title: str) -> Entry:
    counts = c.measured.repeats.xs(title, level="title")
    low, high = int(counts.min()), int(counts.max())
    return Entry(f"{low}" if low == high else f"{low} to {high}", float(high))


def by_metric(
    c: Comparison,
    family: str,
    title: str,
    about: str,
    *,
    first: Sequence[str] = (),
    scale: float = 100,
    digits: int | None = None,
) -> Table:
    """Return every score of a family's tasks, score by encoder; no rows without such a task.

    Args:
        c: The results.
        family: The family.
        title: The table's headline.
        about: What its scores mean.
        first: Names of scores to put first, after the main one.
        scale: What scores are multiplied by when printed.
        digits: Decimals printed; those of all scores by default.
    """
    digits = c.digits if digits is None else digits
    names = []
    for task in map(str, c.tasks.index[c.tasks.family == family]):
        names += [(task, name) for name in _score_names(c, task, first)]
    found = [c.sampled(task, name) for task, name in names]
    ps = stats.corrected_p(found)
    rows = []
    for (task, name), each, p in zip(names, found, ps, strict=True):
        printed = [decimal(scale * value, f"z.{digits}f") for value in each.scores]
        shown = entries(
            c,
            each,
            p,
            c.labels,
            tasks=[task],
            texts=dict(zip(c.labels, printed, strict=True)),
            ranked=_more_is_better(family, name),
        )
        rows.append((word(task), word(name.replace("_", " ")), *shown))
    return Table(
        family,
        title,
        ("task", "score", *c.encoders.title),
        tuple(rows),
        words=frozenset({"task", "score"}),
        about=about + (f" Shown x {scale:g}." if scale != 1 else ""),
    )


def _score_names(c: Comparison, task: str, first: Sequence[str]) -> list[str]:
    main = c.tasks.at[task, "metric"]
    names = c.score_names(task)
    return sorted(names, key=lambda name: (name != main, name not in first, natural(name)))


def _more_is_better(family: str, name: str) -> bool:
    """Return False for diagnostics and for scores under a wrong instruction."""
    return family not in APART and " under " not in name and name != "incorrect"


def equal_budget(c: Comparison) -> list[Table]:
    """Return a table per backbone and budget of several methods, and one of all other encoders.

    Encoders without training on that backbone, or without a backbone, are shown beside them.
    """
    groups = budgets(c)
    untrained = c.encoders[c.encoders.tokens.isna()]
    tables, placed = [], set()
    for i, group in enumerate(groups, 1):
        members = c.encoders.loc[group]
        beside = untrained.index[untrained.backbone.isin({"", *members.base, *members.backbone})]
        shown = [label for label in c.labels if label in {*group, *beside}]
        placed |= set(shown)
        name = f"equal-budget{f'-{i}' if len(groups) > 1 else ''}"
        backbone = members.backbone.iloc[0] or members.base.iloc[0]
        table = families(c, shown, name, f"Equal budget on {backbone}")
        low, high = members.tokens.min(), members.tokens.max()
        about = (
            f"{low:,.0f} to {high:,.0f} training tokens (within {100 * WITHIN:.0f} %), beside the "
            f"backbone without training. {table.about}"
        )
        tables.append(replace(table, about=about))
    others = [label for label in c.labels if label not in placed]
    if tables and others:
        tables.append(families(c, others, "other-checkpoints", "Other checkpoints"))
    return tables


def budgets(c: Comparison) -> list[list[str]]:
    """Return the groups of encoders of several methods at one budget, largest budget first."""
    trained = c.encoders[c.encoders.tokens.notna()].sort_index()
    trained = trained.sort_values(["base", "tokens"], ascending=[True, False], kind="stable")
    groups: list[list[str]] = [[label] for label in trained.index[:1]]
    for before, label in pairwise(trained.index):
        most = trained.tokens[groups[-1][0]]
        alike = trained.base[before] == trained.base[label]
        if alike and trained.tokens[label] >= most * (1 - WITHIN):
            groups[-1].append(label)
        else:
            groups.append([label])
    several = [group for group in groups if len({method_of(c, label) for label in group}) > 1]
    return sorted(several, key=lambda group: -trained.tokens[group[0]])


def method_of(c: Comparison, label: str) -> str:
    """Return the method that trained an encoder, or its label."""
    return str(c.encoders.at[label, "training"].get("method") or label)
