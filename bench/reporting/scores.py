"""Tables of scores: family means, every task, every score of a family. Scores are shown x 100."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np

from bench import stats
from bench.reporting import notes
from bench.reporting.comparison import METHOD, Comparison
from bench.reporting.table import MISSING, Entry, Mark, Table, score, warned, word
from bench.task import APART

_BEST = (
    "Bold: best. †: not significantly different from the best "
    "(95 % interval of the paired difference includes 0)."
)
_WITHIN = 0.05  # budgets this close count as equal


def families(
    comparison: Comparison,
    labels: Sequence[str] | None = None,
    name: str = "families",
    title: str = "Family means",
) -> Table:
    """Return the family means, encoder by family, the mean over families and the mean rank.

    Args:
        comparison: The results.
        labels: The encoders to show, ranked and marked among themselves; all of them by default.
        name: The table's name.
        title: Its headline.
    """
    c = comparison
    shown = c.labels if labels is None else list(labels)
    columns = [
        ("encoder", [word(c.encoders.at[label, "title"]) for label in shown]),
        ("backbone", [word(c.encoders.at[label, "backbone"]) for label in shown]),
    ]
    columns += [(family, _family(c, family, shown)) for family in c.by_family]
    common = list(c.tasks.index[c.tasks.common])
    overall = _entries(c, c.overall, common, shown, why=lambda _: "lacks a family")
    columns += [("mean of families", overall), ("mean rank", _mean_ranks(c, shown))]
    return Table.of_columns(
        name,
        title,
        columns,
        words={"encoder", "backbone"},
        about=f"Main scores x 100, mean over each family's tasks; ± is the standard deviation of that mean "
        f"over repeats. {_BEST} {METHOD}. Intervals of means assume independent tasks: they are too narrow "
        "for tasks on the same texts.",
        notes=notes.of(c, shown),
    )


def _family(c: Comparison, family: str, shown: Sequence[str]) -> list[Entry]:
    def text(label: str) -> str:
        return score(c.family_means.at[family, label], c.family_stds.at[family, label])

    have = partial(c.have, family=family)
    entries = _entries(c, c.by_family[family], c.families[family], shown, why=have, text=text)
    return [replace(e, text=e.note) if e.mark == "missing" else e for e in entries]


def _entries(
    c: Comparison,
    found: stats.Sampled,
    titles: Sequence[str],
    shown: Sequence[str],
    *,
    why: Callable[[str], str],
    text: Callable[[str], str] | None = None,
) -> list[Entry]:
    """Return the entries of encoders for one number, with intervals, marks and warnings.

    Args:
        c: The results.
        found: The number for all encoders.
        titles: The tasks behind it, for warnings.
        shown: The encoders to show.
        why: Says why an encoder has no number.
        text: Says how a number is printed; x 100 with one digit by default.
    """
    warnings = [c.overlap_warning(label, titles) for label in shown]
    numbers = [c.number[label] for label in shown]
    marks = _marks(found, numbers, [not warning for warning in warnings])
    bounds = c.bounds(found)
    entries = []
    for label, i, mark, warning in zip(shown, numbers, marks, warnings, strict=True):
        value = float(found.scores[i])
        if np.isnan(value):
            entries.append(Entry(MISSING, mark="missing", note=why(label)))
            continue
        key = c.cells[label, titles[0]][0].spec.key if len(titles) == 1 else ""
        printed = text(label) if text else score(value)
        entries.append(warned(Entry(printed, value, bounds[i], mark, key=key), warning))
    return entries


def _marks(found: stats.Sampled, numbers: Sequence[int], fair: Sequence[bool]) -> list[Mark]:
    """Return which encoders are best among the fair ones or tie with the best; equal as printed is equally good."""
    scores = np.where(fair, found.scores[numbers], np.nan)
    marks: list[Mark] = [""] * len(numbers)
    if np.isfinite(scores).sum() < 2:
        return marks
    best = int(np.nanargmax(scores))
    gap = stats.differences(found, np.full(len(numbers), numbers[best]), np.array(numbers))
    for i in np.flatnonzero(np.isfinite(scores)):
        if score(scores[i]) == score(scores[best]):
            marks[i] = "best"
        elif gap.low[i] <= 0 <= gap.high[i]:
            marks[i] = "tie"
    return marks


def _mean_ranks(c: Comparison, shown: Sequence[str]) -> list[Entry]:
    ranked = c.ranked[[label for label in c.ranked if label in set(shown)]]
    ranks = (
        dict(zip(ranked, stats.mean_ranks(ranked.to_numpy()), strict=True)) if len(ranked) else {}
    )
    common = c.tasks.index[c.tasks.common]
    warnings = {label: c.overlap_warning(label, common) for label in ranks}
    fair = [rank for label, rank in ranks.items() if not warnings[label]]
    best = min(fair) if len(fair) > 1 else None
    entries = []
    for label in shown:
        if label in ranks:
            rank = float(ranks[label])
            entry = Entry(f"{rank:.2f}", rank, mark="best" if rank == best else "")
            entries.append(warned(entry, warnings[label]))
        else:
            note = "lacks a task that most encoders have"
            entries.append(Entry(MISSING, mark="missing", note=note))
    return entries


def by_task(c: Comparison) -> Table:
    """Return the main score of every task, task by encoder."""
    rows = []
    for title, task in c.tasks[c.tasks.compared].iterrows():

        def text(label: str, title: str = title) -> str:
            return score(c.scores.at[title, label], c.stds.at[title, label])

        why = partial(c.absence, title=title)
        entries = _entries(c, c.by_task[title], [title], c.labels, why=why, text=text)
        rows.append(
            (
                *(word(cell) for cell in (task.family, title, task.metric)),
                _repeats(c, title),
                *entries,
            )
        )
    return Table(
        "by-task",
        "Every task",
        ("family", "task", "metric", "repeats", *c.encoders.title),
        tuple(rows),
        words=frozenset({"family", "task", "metric"}),
        about=f"Main scores x 100; ± is the standard deviation over repeats. {_BEST} {METHOD}.",
        notes=notes.of(c, c.labels),
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
    digits: int = 1,
) -> Table:
    """Return every score of a family's tasks, score by encoder; no rows where there is no such task.

    Args:
        c: The results.
        family: The family.
        title: The table's headline.
        about: What its scores mean.
        first: Names of scores to put first, after the main one.
        scale: What scores are multiplied with when printed.
        digits: Decimals printed.
    """
    rows = []
    for task in c.tasks.index[c.tasks.family == family]:
        main = c.tasks.at[task, "metric"]
        results = [r for label in c.labels for r in c.cells.get((label, task), ())]
        names = {name for r in results for name in r.scores}
        for name in sorted(names, key=lambda n: (n != main, n not in first, n)):
            found = c.sampled(task, name)

            def text(label: str, found: stats.Sampled = found) -> str:
                return f"{scale * found.scores[c.number[label]]:z.{digits}f}"

            def why(label: str, task: str = task) -> str:
                has = (label, task) in c.cells
                return "has no such score" if has else c.absence(label, task)

            entries = _entries(c, found, [task], c.labels, why=why, text=text)
            if family in APART:  # no direction of a diagnostic is better
                entries = [
                    e if e.mark in {"missing", "warning"} else replace(e, mark="") for e in entries
                ]
            rows.append((word(task), word(name.replace("_", " ")), *entries))
    return Table(
        family,
        title,
        ("task", "score", *c.encoders.title),
        tuple(rows),
        words=frozenset({"task", "score"}),
        about=f"{about}{f' Shown x {scale:g}.' if scale != 1 else ''} {METHOD}.",
        notes=notes.of(c, c.labels),
    )


def equal_budget(c: Comparison) -> list[Table]:
    """Return one table for each backbone and budget that several methods were trained at, and one of all others.

    Encoders without training on that backbone, or on none, stand beside them.
    """
    groups = _budgets(c)
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
            f"{low:,.0f} to {high:,.0f} training tokens (within {100 * _WITHIN:.0f} %), beside the backbone "
            f"without training. {table.about}"
        )
        tables.append(replace(table, about=about))
    others = [label for label in c.labels if label not in placed]
    if tables and others:
        tables.append(families(c, others, "other-checkpoints", "Other checkpoints"))
    return tables


def _budgets(c: Comparison) -> list[list[str]]:
    """Return the groups of encoders of at least two methods that share backbone and budget, largest budget first."""
    trained = c.encoders[c.encoders.tokens.notna()].sort_index()
    trained = trained.sort_values(["base", "tokens"], ascending=[True, False], kind="stable")
    groups: list[list[str]] = [[label] for label in trained.index[:1]]
    for before, label in pairwise(trained.index):
        most = trained.tokens[groups[-1][0]]
        alike = trained.base[before] == trained.base[label]
        if alike and trained.tokens[label] >= most * (1 - _WITHIN):
            groups[-1].append(label)
        else:
            groups.append([label])
    several = [group for group in groups if len({_method(c, label) for label in group}) > 1]
    return sorted(several, key=lambda group: -trained.tokens[group[0]])


def _method(c: Comparison, label: str) -> str:
    return str(c.encoders.at[label, "training"].get("method") or label)
