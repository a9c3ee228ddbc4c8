"""Tables of encoders against each other: ranks, wins and losses, paired differences, and what changed between runs."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bench import stats
from bench.reporting import notes
from bench.reporting.comparison import METHOD, Comparison, holm, judgement, sampled, seed_of
from bench.reporting.notes import machine
from bench.reporting.table import MISSING, Entry, Table, measure, score, warned, word
from bench.result import Result

MOST = 30_000
"""Differences that a table shows at most."""

BATCHES = 3e-4
"""About how far a score moves in bfloat16 or float16 with which texts share a batch."""


def ranks(c: Comparison) -> Table:
    """Return mean rank, Borda points, and wins, ties and losses over all comparisons, encoder by encoder."""
    scores = c.ranked.to_numpy()
    tasks, m = scores.shape
    mean = (
        dict(zip(c.ranked, stats.mean_ranks(scores).tolist(), strict=True)) if tasks and m else {}
    )
    common = c.tasks.index[c.tasks.common]
    rows = []
    for label, counts in zip(c.labels, c.outcomes.sum(axis=1).tolist(), strict=True):
        rank = mean.get(label)
        points = None if rank is None else tasks * (m - rank)
        rank_entry = warned(measure(rank, digits=2), c.overlap_warning(label, common))
        outcomes = [Entry(str(n), float(n)) for n in counts]
        title = word(c.encoders.at[label, "title"])
        rows.append((title, rank_entry, measure(points, digits=1), *outcomes))
    rows.sort(key=lambda row: math.inf if row[1].value is None else row[1].value)
    about = (
        f"Ranks over the {tasks} tasks that most encoders have, among the encoders that have all of them. "
        "A Borda point is one encoder beaten on one task, half a point an equal score."
    )
    if m > 1 and tasks:
        p, cd = stats.friedman(scores), stats.critical_difference(m, tasks)
        test = "" if np.isnan(p) else f" Friedman test that all rank alike: p = {p:.2g}."
        about += (
            f"{test} Mean ranks that differ by less than {cd:.2f} are not significantly different "
            "(Nemenyi, level 0.05)."
        )
    return Table(
        "ranks",
        "Ranks",
        ("encoder", "mean rank", "Borda points", "wins", "ties", "losses"),
        tuple(rows),
        words=frozenset({"encoder"}),
        about=f"{about} Wins, ties and losses against every other encoder on every task; {judgement()}.",
        notes=notes.of(c, c.labels),
    )


def win_tie_loss(c: Comparison) -> Table:
    """Return on how many tasks each encoder wins, ties and loses against each other one."""
    rows = []
    for i, title in enumerate(c.encoders.title):
        against = [
            Entry("") if i == j else Entry("/".join(map(str, counts)), float(counts[0] - counts[2]))
            for j, counts in enumerate(c.outcomes[i].tolist())
        ]
        rows.append((word(title), *against))
    return Table(
        "win-tie-loss",
        "Wins, ties, losses",
        ("encoder", *c.encoders.title),
        tuple(rows) if len(rows) > 1 else (),
        frozenset({"encoder"}),
        f"Tasks won/tied/lost by the encoder of the row against that of the column; {judgement()}.",
    )


def differences(c: Comparison) -> Table:
    """Return the paired difference of every two encoders on every task; on family means where that is too much."""
    compared = list(c.tasks.index[c.tasks.compared])
    whole = len(c.partners[0]) * len(compared) <= MOST
    found = {title: c.by_task[title] for title in compared} if whole else c.by_family
    over = () if whole else ("every pair of encoders and every family mean",)
    less = "Family means only; choose encoders or tasks by --model and --task for single tasks."
    first, second = ([word(c.encoders.title.iloc[i]) for i in side] for side in c.partners)
    estimates = {name: stats.differences(one, *c.partners) for name, one in found.items()}
    return Table.of_columns(
        "differences",
        "Paired differences",
        [("first", first), ("second", second), *difference_columns(estimates)] if found else [],
        words={"first", "second"},
        about="First minus second, x 100, with the 95 % interval; *: significant. "
        f"{METHOD}; {judgement(*over)}.",
        notes=(
            *(() if whole else (less,)),
            *_narrow(c, estimates.values()),
            *notes.of(c, c.labels),
        ),
    )


def _narrow(c: Comparison, estimates: Iterable[stats.Estimates]) -> tuple[str, ...]:
    """Return a note where batches can move a difference by more than its interval says."""
    half = np.array(
        [card.get("dtype") in {"bfloat16", "float16"} for card in c.encoders.card], bool
    )
    either = half[c.partners[0]] | half[c.partners[1]]
    count = sum(int((either & ((e.high - e.low) / 2 < BATCHES)).sum()) for e in estimates)
    told = (
        f"{count} intervals in bfloat16 or float16 are narrower than ± {100 * BATCHES:.2f}, about as far as a score moves with which "
        "texts share a batch, and so with what the cache held before; `bench run --exact` gives the same bits every time."
    )
    return (told,) if count else ()


def difference_columns(estimates: Mapping[str, stats.Estimates]) -> list[tuple[str, list[Entry]]]:
    """Return a column of entries for each estimate, with p-values corrected over all of them."""
    p = holm({name: each.p for name, each in estimates.items()})
    return [(name, difference_entries(each, p[name])) for name, each in estimates.items()]


def difference_entries(found: stats.Estimates, p: stats.Array) -> list[Entry]:
    """Return an entry for each difference, starred where it is significant."""
    numbers = (found.value, found.low.round(6), found.high.round(6), found.p, p)
    rows = zip(*(array.tolist() for array in numbers), strict=True)
    return [_difference(*row) for row in rows]


def _difference(value: float, low: float, high: float, p: float, corrected: float) -> Entry:
    if math.isnan(value):
        return Entry(MISSING, mark="missing", note="one of the two has no result")
    if math.isnan(p):
        note = "measured once, or always the same, so its uncertainty is not known"
        return Entry(f"{100 * value:+z.1f}", value, note=note)
    star = "*" if corrected < 1 - stats.LEVEL else ""
    text = f"{100 * value:+z.1f} [{100 * low:z.1f}, {100 * high:z.1f}]{star}"
    return Entry(text, value, (low, high), note=f"p = {p:.2g}, corrected {corrected:.2g}")


# ---- two folders of results


def changes(before: Comparison, now: Comparison) -> Table:
    """Return every cell that is new, gone or changed, with the paired difference and what else is different."""
    old, new = _by_cell(before), _by_cell(now)
    both = [cell for cell in sorted(old.keys() | new.keys()) if cell in old and cell in new]
    moved = [cell for cell in both if _repeats(old[cell]) != _repeats(new[cell])]
    rows = [
        _change(cell, "changed", old[cell], new[cell], entry)
        for cell, entry in zip(moved, _now_minus_before(moved, old, new), strict=True)
    ]
    missing = Entry(MISSING, mark="missing")
    rows += [_change(cell, "new", (), new[cell], missing) for cell in sorted(new.keys() - old)]
    rows += [_change(cell, "gone", old[cell], (), missing) for cell in sorted(old.keys() - new)]
    return Table(
        "changes",
        "What changed",
        ("encoder", "task", "change", "before", "now", "difference", "else"),
        tuple(rows),
        words=frozenset({"encoder", "task", "change", "else"}),
        about="Now minus before, main scores x 100; *: significant. "
        f"{METHOD}; {judgement('the cells that changed')}.",
        notes=(f"{len(both) - len(moved)} of {len(both)} cells that both have are equal.",),
    )


_Cell = tuple[str, str, str, str, int, str]  # encoder, family, task, read-out, limit, metric


def _by_cell(c: Comparison) -> dict[_Cell, list[Result]]:
    """Return the results of the highest protocol version of each cell; another version is a change, not another cell."""
    found = {}
    for title, task in c.tasks.sort_values("protocol", kind="stable").iterrows():
        for label in c.labels:
            if results := c.cells.get((label, title)):
                place = (task.family, task.task, task.readout, task.limit, task.metric)
                found[(label, *place)] = results
    return found


def _repeats(results: Sequence[Result]) -> list[tuple[float, ...]]:
    return [r.main.repeats for r in sorted(results, key=lambda r: r.spec.seed)]


def _now_minus_before(
    cells: Sequence[_Cell], old: Mapping[_Cell, list[Result]], new: Mapping[_Cell, list[Result]]
) -> list[Entry]:
    one, other = np.array([0]), np.array([1])
    estimates = {}
    for cell in cells:
        label, family, task, readout, limit, metric = cell
        column = {"family": family, "task": task, "readout": readout, "limit": limit}
        seed = seed_of({**column, "protocol": 0, "metric": metric}, label)
        found = sampled([new[cell], old[cell]], metric, seed)
        estimates[str(cell)] = stats.differences(found, one, other)
    return [entries[0] for _, entries in difference_columns(estimates)]


def _change(
    cell: _Cell, change: str, old: Sequence[Result], new: Sequence[Result], difference: Entry
) -> tuple[Entry, ...]:
    label, _, task, _, limit, _ = cell
    title = f"{task} (limit {limit})" if limit else task
    rest = Entry("; ".join(_other_changes(old, new)))
    return (word(label), word(title), word(change), _mean(old), _mean(new), difference, rest)


def _mean(results: Sequence[Result]) -> Entry:
    if not results:
        return Entry(MISSING, mark="missing")
    mean = float(np.mean([value for r in results for value in r.main.repeats]))
    return Entry(score(mean), mean, key=results[0].spec.key)


def _other_changes(old: Sequence[Result], new: Sequence[Result]) -> Iterator[str]:
    """Yield what differs between two cells beside their scores."""
    if not old or not new:
        return
    before, now = _facts(old), _facts(new)
    for name in sorted(before.keys() | now.keys()):
        was, is_now = before.get(name, "none"), now.get(name, "none")
        if was != is_now:
            yield f"{name} {was} -> {is_now}"


def _facts(results: Sequence[Result]) -> dict[str, str]:
    first = results[0]
    made: Mapping[str, Any] = first.provenance
    facts = {
        "commit": made.get("commit") or "unknown",
        "encoder": first.spec.fingerprint,
        "protocol": first.spec.task_version,
        "seeds": " ".join(str(seed) for seed in sorted(r.spec.seed for r in results)),
        "machine": machine(made.get("machine") or {}) or "unknown",
        "dtype": first.card.get("dtype"),
        **(made.get("versions") or {}),
    }
    for used in made.get("data") or ():
        pin = used.get("revision") or used.get("sha256") or used.get("source")
        facts[f"data {used.get('id')}"] = pin
    return {name: str(value) for name, value in facts.items()}
