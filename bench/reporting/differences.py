"""Tables of encoders against each other: ranks, wins and losses, differences, and changes."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import stats
from bench.reporting.comparison import Comparison, mean_score, sampled, seed_of
from bench.reporting.names import strip_folders
from bench.reporting.notes import machine
from bench.reporting.table import Entry, Table, difference, measure, missing, score, warned, word
from bench.store.result import Result
from bench.task import limited

MOST = 30_000
"""Differences that a table shows at most."""

BATCHES = 3e-4
"""About how far a score moves in half precision with the composition of batches."""


def ranks(c: Comparison) -> Table:
    """Return mean rank, Borda points, and wins, ties and losses against all other encoders."""
    scores = c.ranked.to_numpy()
    tasks, m = scores.shape
    mean = c.mean_ranks(c.labels)
    rows = []
    for label, counts in zip(c.labels, c.outcomes.sum(axis=1).tolist(), strict=True):
        rank = mean.get(label)
        points = None if rank is None else tasks * (m - rank)
        row = {
            "encoder": word(c.encoders.at[label, "title"]),
            "mean rank": warned(measure(rank, digits=2), c.overlap_warning(label, c.common)),
            "Borda points": measure(points, digits=1),
        }
        for name, n in zip(("wins", "ties", "losses"), counts, strict=True):
            row[name] = Entry(str(n), float(n))
        rows.append(row)
    rows.sort(key=lambda row: row["mean rank"].value or math.inf)
    about = (
        f"Ranks over the {tasks} tasks that most encoders have, among the encoders that have all "
        "of them. A Borda point is one encoder beaten on one task, half a point an equal score. "
        "Ties: not significantly different."
    )
    if m > 1 and tasks:
        p = stats.friedman(scores)
        about += "" if np.isnan(p) else f" Friedman test that all rank alike: p = {p:.2g}."
    return Table.of_rows("ranks", "Ranks", rows, words={"encoder"}, about=about)


def win_tie_loss(c: Comparison) -> Table:
    """Return on how many tasks each encoder wins, ties and loses against each other one."""
    rows = []
    for i, title in enumerate(c.encoders.title):
        against = [
            Entry("/".join(map(str, counts)), float(counts[0] - counts[2]))
            for counts in c.outcomes[i].tolist()
        ]
        against[i] = Entry("")
        rows.append((word(title), *against))
    return Table(
        "win-tie-loss",
        "Wins, ties, losses",
        ("encoder", *c.encoders.title),
        tuple(rows) if len(rows) > 1 else (),
        frozenset({"encoder"}),
        "Tasks won/tied/lost by the encoder of the row against that of the column; "
        "tie: not significantly different.",
    )


def differences(c: Comparison) -> Table:
    """Return the paired difference of every two encoders on every task.

    Where these are too many, on family means.
    """
    first, second = np.triu_indices(len(c.labels), 1)
    compared = list(c.tasks.index[c.tasks.compared])
    whole = len(first) * len(compared) <= MOST
    found = {title: c.by_task[title] for title in compared} if whole else c.by_family
    p = c.p_tasks if whole else c.p_means
    less = "Family means only; choose encoders or tasks by --model and --task for single tasks."
    columns = [
        ("first", [word(title) for title in c.encoders.title.iloc[first]]),
        ("second", [word(title) for title in c.encoders.title.iloc[second]]),
    ]
    gaps = {
        name: difference_entries(one, p[name], first, second, digits=c.digits)
        for name, one in found.items()
    }
    columns += gaps.items()
    narrow = _narrow(c, list(chain(*gaps.values())), first, second)
    return Table.of_columns(
        "differences",
        "Paired differences",
        columns if found else [],
        words={"first", "second"},
        about="First minus second, x 100, with the 95 % interval; *: significant.",
        notes=(*(() if whole else (less,)), *narrow),
    )


def _narrow(
    c: Comparison,
    entries: Sequence[Entry],
    first: NDArray[np.int64],
    second: NDArray[np.int64],
) -> tuple[str, ...]:
    """Return a note where batches can move a difference by more than its interval says."""
    half = np.array([card.get("dtype") in {"bfloat16", "float16"} for card in c.encoders.card])
    if not half.any():
        return ()
    either = np.resize(half[first] | half[second], len(entries))
    widths = [np.ptp(entry.interval) if entry.interval else np.inf for entry in entries]
    count = int((either & (np.array(widths) / 2 < BATCHES)).sum())
    note = (
        f"{count} intervals in bfloat16 or float16 are narrower than ± {100 * BATCHES:.2f}, about "
        "how far a score moves with the composition of batches, and so with the state of the "
        "cache; `bench run --exact` gives identical bits."
    )
    return (note,) if count else ()


def difference_entries(
    found: stats.Sampled,
    p: stats.Array,
    rows: NDArray[np.int64],
    columns: NDArray[np.int64] | int,
    *,
    digits: int = 1,
) -> list[Entry]:
    """Return the scores of some encoders minus those of others, starred where significant.

    Args:
        found: The score of all encoders.
        p: Corrected p-values of every pair, (m, m).
        rows: Numbers of encoders (n,).
        columns: Numbers of their partners (n,), or the one of all.
        digits: Decimals printed.
    """
    each = stats.differences(found, rows, columns)
    numbers = (each.value.tolist(), each.bounds(), each.p.tolist(), p[rows, columns].tolist())
    return [_difference(*one, digits=digits) for one in zip(*numbers, strict=True)]


def _difference(
    value: float, bounds: tuple[float, float] | None, p: float, corrected: float, *, digits: int
) -> Entry:
    if math.isnan(value):
        return missing("one of the two has no result")
    if bounds is None:
        note = "measured once, or always the same, so its uncertainty is not known"
        return Entry(difference(value, digits=digits), value, note=note)
    text = difference(value, bounds, significant=corrected < 1 - stats.LEVEL, digits=digits)
    return Entry(text, value, bounds, note=f"p = {p:.2g}, corrected {corrected:.2g}")


# ---- two folders of results


def changes(before: Comparison, now: Comparison) -> Table:
    """Return every cell that is new, gone or changed, with the paired difference.

    Args:
        before: The results of before.
        now: The results of now.
    """
    old, new = _by_cell(before, _same_encoders(before, now)), _by_cell(now)
    both = sorted(old.keys() & new.keys())
    moved = [cell for cell in both if _repeats(old[cell]) != _repeats(new[cell])]
    gaps = dict(zip(moved, _now_minus_before(moved, old, new, now.digits), strict=True))
    cells = [(cell, "changed") for cell in moved]
    cells += [(cell, "new") for cell in sorted(new.keys() - old)]
    cells += [(cell, "gone") for cell in sorted(old.keys() - new)]
    rows = [
        _change(
            cell,
            change,
            old.get(cell, ()),
            new.get(cell, ()),
            gaps.get(cell, missing()),
            now.digits,
        )
        for cell, change in cells
    ]
    return Table(
        "changes",
        "What changed",
        ("encoder", "task", "change", "before", "now", "difference", "else"),
        tuple(rows),
        words=frozenset({"encoder", "task", "change", "else"}),
        about="Now minus before, main scores x 100, with the 95 % interval; *: p < 0.05 in a "
        "paired t test, Holm-corrected over the cells that changed.",
        notes=(f"{len(both) - len(moved)} of {len(both)} cells that both have are equal.",),
    )


_Cell = tuple[str, str, str, str, int, str]  # encoder, family, task, read-out, limit, metric


def _same_encoders(before: Comparison, now: Comparison) -> dict[str, str]:
    """Return the present labels of earlier encoders that have another one now.

    A label names the settings in which encoders of one name differ, and so depends on the others.
    """
    present = dict(zip(now.runs.fingerprint, now.runs.encoder, strict=True))
    own = dict(zip(before.runs.encoder, before.runs.fingerprint, strict=True))
    found = {str(label): str(present.get(each, label)) for label, each in own.items()}
    return {label: new for label, new in found.items() if new not in own}


def _by_cell(c: Comparison, names: Mapping[str, str] = {}) -> dict[_Cell, list[Result]]:
    """Return the results of each cell in its highest protocol version, by other names of some."""
    cell = ["encoder", "family", "task", "readout", "limit", "metric"]
    runs = c.runs.assign(encoder=c.runs.encoder.replace(dict(names)))
    highest = runs.groupby(cell).protocol.transform("max")
    newest = runs[runs.protocol == highest]
    found: dict[_Cell, list[Result]] = newest.groupby(cell).result.agg(list).to_dict()
    return found


def _repeats(results: Sequence[Result]) -> list[tuple[float, ...]]:
    return [r.main.repeats for r in sorted(results, key=lambda r: r.spec.seed)]


def _now_minus_before(
    cells: Sequence[_Cell],
    old: Mapping[_Cell, list[Result]],
    new: Mapping[_Cell, list[Result]],
    digits: int,
) -> list[Entry]:
    found = []
    for label, family, task, readout, limit, metric in cells:
        column = {"family": family, "task": task, "readout": readout, "limit": limit}
        seed = seed_of({**column, "protocol": 0, "metric": metric}, label)
        cell = (label, family, task, readout, limit, metric)
        found.append(sampled([new[cell], old[cell]], metric, seed))
    one, ps = np.array([0]), stats.corrected_p(found)
    return [
        difference_entries(each, p, one, 1, digits=digits)[0]
        for each, p in zip(found, ps, strict=True)
    ]


def _change(
    cell: _Cell,
    change: str,
    old: Sequence[Result],
    new: Sequence[Result],
    difference: Entry,
    digits: int,
) -> tuple[Entry, ...]:
    label, _, task, _, limit, _ = cell
    title = limited(task, limit)
    rest = Entry("; ".join(_other_changes(old, new)))
    means = (_mean(old, digits), _mean(new, digits))
    return (word(label), word(title), word(change), *means, difference, rest)


def _mean(results: Sequence[Result], digits: int) -> Entry:
    if not results:
        return missing()
    mean = mean_score(results, results[0].metric)
    return Entry(score(mean, digits=digits), mean, key=results[0].spec.key)


def _other_changes(old: Sequence[Result], new: Sequence[Result]) -> Iterator[str]:
    """Yield the differences between two cells other than their scores."""
    if not old or not new:
        return
    before, now = _facts(old), _facts(new)
    for name in sorted(before.keys() | now.keys()):
        was, is_now = before.get(name, "none"), now.get(name, "none")
        if was != is_now:
            yield f"{name} {was} -> {is_now}"


def _facts(results: Sequence[Result]) -> dict[str, str]:
    first = results[0]
    seeds = sorted(r.spec.seed for r in results)
    made: Mapping[str, Any] = first.provenance
    facts = {
        "commit": made.get("commit") or "unknown",
        "encoder": first.spec.fingerprint,
        "protocol": first.spec.task_version,
        "seeds": " ".join(map(str, seeds)),
        "machine": machine(made.get("machine") or {}) or "unknown",
        "dtype": first.card.get("dtype"),
        **(made.get("versions") or {}),
    }
    for used in made.get("data") or ():
        pin = used.get("revision") or used.get("sha256") or used.get("source")
        facts[f"data {strip_folders(used['id'])}"] = pin
    return {name: str(value) for name, value in facts.items()}
