"""What changed between two folders of results: cells that are new, gone, or other than before."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from bench import stats
from bench.report.cells import Cells, Column
from bench.report.comparisons import difference_entries
from bench.report.notes import machine
from bench.report.pairs import METHOD, judged, sampled
from bench.report.table import MISSING, Entry, Table, score, word
from bench.result import Result

Found = dict[tuple[str, Column], Sequence[Result]]


def changes(before: Cells, now: Cells) -> Table:
    """Return every cell that is new, gone or changed, with the paired difference of its score and what else is different."""
    old, new = _versionless(before), _versionless(now)
    both = [
        cell for cell in sorted(old.keys() | new.keys(), key=str) if cell in old and cell in new
    ]
    moved = [cell for cell in both if _scores(old[cell]) != _scores(new[cell])]
    entries = _differences([(f"{cell}", new[cell], old[cell]) for cell in moved])
    rows = [
        *(
            _row(cell, "changed", old[cell], new[cell], entry)
            for cell, entry in zip(moved, entries, strict=True)
        ),
        *(
            _row(cell, "new", (), new[cell], Entry(MISSING, mark="missing"))
            for cell in sorted(new.keys() - old.keys(), key=str)
        ),
        *(
            _row(cell, "gone", old[cell], (), Entry(MISSING, mark="missing"))
            for cell in sorted(old.keys() - new.keys(), key=str)
        ),
    ]
    return Table(
        "changes",
        "What changed",
        ("encoder", "task", "change", "before", "now", "difference", "else"),
        tuple(rows),
        words=frozenset({"encoder", "task", "change", "else"}),
        about=f"Now minus before, main scores x 100; * is more than chance. {METHOD}. {judged('the cells that changed')}.",
        notes=(f"{len(both) - len(moved)} of {len(both)} cells that both have are equal.",),
    )


def _versionless(cells: Cells) -> Found:
    """Return the results of the highest version by encoder and column, the version set aside: another one is a change, not another cell."""
    by_version = sorted(cells.results.items(), key=lambda cell: cell[0][1].version)
    return {(label, replace(column, version=0)): results for (label, column), results in by_version}


def _scores(results: Sequence[Result]) -> list[tuple[float, ...]]:
    return [r.main.repeats for r in sorted(results, key=lambda r: r.spec.seed)]


def _differences(cells: Sequence[tuple[str, Sequence[Result], Sequence[Result]]]) -> list[Entry]:
    """Return the entries of now minus before, corrected over all of them."""
    one, other = np.array([0]), np.array([1])
    each = [
        stats.differences(sampled([new, old], new[0].metric, what), one, other)
        for what, new, old in cells
    ]
    corrected = stats.holm(np.array([e.p[0] for e in each]))
    return [difference_entries(e, corrected[i : i + 1])[0] for i, e in enumerate(each)]


def _row(
    cell: tuple[str, Column],
    change: str,
    old: Sequence[Result],
    new: Sequence[Result],
    entry: Entry,
) -> tuple[Entry, ...]:
    label, column = cell
    limit = f" (limit {column.limit})" if column.limit else ""
    return (
        word(label),
        word(column.task + limit),
        word(change),
        _mean(old),
        _mean(new),
        entry,
        Entry("; ".join(_other(old, new))),
    )


def _mean(results: Sequence[Result]) -> Entry:
    values = [value for r in results for value in r.main.repeats]
    mean = sum(values) / len(values) if values else None
    return Entry(
        score(mean),
        mean,
        key=results[0].spec.key if results else "",
        mark="" if results else "missing",
    )


def _other(old: Sequence[Result], new: Sequence[Result]) -> Iterator[str]:
    """Yield what is not the same about two cells, beside their scores."""
    if not old or not new:
        return
    before, now = (_facts(results) for results in (old, new))
    for name in sorted(before.keys() | now.keys()):
        if (was := before.get(name, "none")) != (is_ := now.get(name, "none")):
            yield f"{name} {was} -> {is_}"


def _facts(results: Sequence[Result]) -> dict[str, str]:
    first = results[0]
    made = first.provenance
    return {
        "commit": str(made.get("commit") or "unknown"),
        "encoder": first.spec.fingerprint,
        "protocol": str(first.spec.task_version),
        "seeds": " ".join(str(r.spec.seed) for r in sorted(results, key=lambda r: r.spec.seed)),
        "machine": machine(made.get("machine") or {}) or "unknown",
        "dtype": str(first.card.get("dtype")),
        **{str(name): str(version) for name, version in (made.get("versions") or {}).items()},
        **{
            f"data {used.get('id')}": str(
                used.get("revision") or used.get("sha256") or used.get("source")
            )
            for used in made.get("data") or ()
        },
    }
