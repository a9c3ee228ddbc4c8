"""What a reader must know beside the numbers: what is mixed, missing, limited, and how everything was made."""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from bench.report.cells import OVERLAP, Cells, Column, named, placeless
from bench.report.table import MISSING, Entry, Table, measure, warned, word
from bench.result import Absence, Result


def of(cells: Cells, labels: Sequence[str]) -> tuple[str, ...]:
    """Return the notes to a table of these encoders' scores."""
    results = [result for label in labels for result in cells.of_encoder(label)]
    found = []
    whole = [cells.results.get((label, column)) for label in labels for column in cells.compared]
    if missing := sum(not results for results in whole):
        found.append(
            f"{MISSING}: no result, {missing} of {len(whole)} cells; not run, or the table of missing cells says why."
        )
    if rare := [
        cells.title(column)
        for column in cells.compared
        if column not in {*cells.common, *cells.superseded}
    ]:
        found.append(
            f"Left out of means, since at most half of the encoders have them: {', '.join(rare)}."
        )
    if cells.superseded:
        less = ", ".join(map(cells.title, cells.superseded))
        found.append(
            f"Left out of means, ranks and wins, since another protocol or limit of the same task counts: {less}."
        )
    if any(not result.card.get("trained", True) for result in results):
        found.append(
            "untrained: the method's format and read-out on a backbone that never saw its recipe."
        )
    if any(column.limit for column in cells.columns):
        found.append(
            "Tasks with a limit read a fixed draw of that many test examples; do not compare them with full ones."
        )
    return (*found, *mixed(results))


def mixed(results: Iterable[Result]) -> tuple[str, ...]:
    """Return a line for each thing in which results of one table should agree and do not."""
    found = list(results)
    seeds: dict[tuple[str, Column], set[str]] = {}
    data: dict[str, set[str]] = {}
    for r in found:
        seeds.setdefault((r.spec.fingerprint, Column.of(r)), set()).add(str(r.spec.seed))
        for used in r.provenance.get("data", ()):
            name = "/".join(
                filter(None, (used["id"], used.get("config"), used.get("split")))
            )  # a split is a file of its own
            data.setdefault(name, set()).add(str(used.get("revision") or used.get("sha256") or ""))
    each = [
        ("code versions", {str(r.provenance.get("commit") or "unknown") for r in found}),
        ("seed sets", {" ".join(sorted(s)) for s in seeds.values()}),
        ("machines", {machine(r.provenance.get("machine") or {}) or "unknown" for r in found}),
        ("number types", {str(r.card.get("dtype")) for r in found if r.card.get("weights")}),
        *((f"revisions of {name}", revisions) for name, revisions in sorted(data.items())),
    ]
    return tuple(
        f"Cells of different {what} are mixed: {'; '.join(sorted(values))}."
        for what, values in each
        if len(values) > 1
    )


def machine(found: Mapping[str, Any]) -> str:
    """Return a machine in words; "" where nothing is known of it."""
    parts = [
        found.get("processor") or found.get("system"),
        f"{found['cores']} cores" if found.get("cores") else "",
    ]
    return ", ".join(
        str(part)
        for part in [*parts, f"{found['memory_gb']} GB" if found.get("memory_gb") else ""]
        if part
    )


def data(cells: Cells) -> Table:
    """Return how many texts each task read, how many of them twice, and how many an encoder had to cut (the most over encoders)."""
    by_column: dict[Column, list[Result]] = {column: [] for column in cells.columns}
    for (_, column), results in cells.results.items():
        by_column[column].extend(results)
    rows = []
    for column, found in by_column.items():
        texts = max(found, key=lambda r: r.texts.get("truncated_share", 0)).texts
        sets = [d for r in found for d in r.provenance.get("data", [])]
        sources = sorted(
            {
                f"{'/'.join(filter(None, (d['id'], d.get('config'))))} ({d.get('source', '?')})"
                for d in sets
            }
        )
        counts = [measure(texts.get(name)) for name in ("asked", "distinct")]
        shares = [
            measure(texts.get(name), scale=100, digits=1, unit=" %")
            for name in ("repeated_share", "truncated_share")
        ]
        rows.append((word(cells.title(column)), *counts, *shares, word("; ".join(sources))))
    return Table(
        "data",
        "Data",
        ("task", "texts", "distinct", "seen before", "cut", "data"),
        tuple(rows),
        words=frozenset({"task", "data"}),
        about="Texts each task read; how many came twice, and how many an encoder had to cut (the most over encoders).",
        notes=mixed(r for results in by_column.values() for r in results),
    )


def samples(cells: Cells) -> Table:
    """Return what tasks show of their examples, in words."""
    found = [
        (label, column, sample)
        for (label, column), results in cells.results.items()
        for sample in results[0].samples
    ]
    columns = list(dict.fromkeys(name for _, _, sample in found for name in sample))
    rows = [
        (
            word(named(cells, label)),
            word(cells.title(task)),
            *(word(one.get(name, "")) for name in columns),
        )
        for label, task, one in found
    ]
    return Table(
        "samples",
        "Examples",
        ("encoder", "task", *columns),
        tuple(rows),
        words=frozenset({"encoder", "task", *columns}),
        about="What an encoder found in a few texts of a task, such as the words that answer why a review is good or bad.",
    )


def missing(cells: Cells) -> Table:
    """Return every cell without a result and why; what was asked for and never gave a result is listed too."""
    grid = [(label, column) for label in cells.encoders for column in cells.columns]
    told = {
        (cells.name(label), column.task, column.readout, column.limit) for label, column in grid
    }
    rows = {
        (label, column): cells.absence(label, column)
        for label, column in grid
        if (label, column) not in cells.results
    }
    rows |= {
        (a.encoder, _asked(cells, a)): f"{a.status}: {a.reason}"
        for a in cells.absences
        if (a.encoder, a.task, a.readout, a.limit or 0) not in told
    }
    whole = sorted(
        (encoder, cells.title(column), *_cut(reason)) for (encoder, column), reason in rows.items()
    )
    return Table(
        "missing",
        "Cells without a result",
        ("encoder", "task", "status", "reason"),
        tuple(
            (word(encoder), word(task), Entry(status), Entry(reason))
            for encoder, task, status, reason in whole
        ),
        words=frozenset({"encoder", "task", "status", "reason"}),
        about="Why `bench run` left a cell without a result; a missing cell is missing, not zero.",
    )


def _asked(cells: Cells, absence: Absence) -> Column:
    """Return the column that a cell without a result would stand in, its version and metric those of the task's results if it has any."""
    own = Column(absence.family, absence.task, absence.readout, absence.limit or 0, 0, "")
    known = max(
        (c for c in cells.columns if c.task == absence.task), key=lambda c: c.version, default=own
    )
    return replace(known, readout=own.readout, limit=own.limit)


def _cut(reason: str) -> tuple[str, str]:
    status, _, rest = reason.partition(": ")
    return status, rest


def provenance(cells: Cells) -> Table:
    """Return how the results were made: commands, code, versions, machines and days; no place on a disk."""
    sources = [result.provenance for results in cells.results.values() for result in results]
    commands = {
        shlex.join(placeless(part) for part in shlex.split(s["command"]))
        for s in sources
        if s.get("command")
    }
    lines = [("command", command) for command in sorted(commands)]
    lines += [
        ("commit", commit) for commit in sorted({s["commit"] for s in sources if s.get("commit")})
    ]
    for name in ("machine", "versions"):
        kinds = sorted({json.dumps(s.get(name) or {}, sort_keys=True) for s in sources})
        lines += [
            (name, ", ".join(f"{k} {v}" for k, v in json.loads(kind).items()))
            for kind in kinds
            if kind != "{}"
        ]
    days = sorted({s["time"][:10] for s in sources if s.get("time")})
    lines += [("run", " to ".join(dict.fromkeys((days[0], days[-1]))))] if days else []
    return Table(
        "made",
        "How this was made",
        ("what", "value"),
        tuple((word(what), word(value)) for what, value in lines),
        words=frozenset({"what", "value"}),
    )


def overlap(cells: Cells) -> Table:
    """Return the share of each task's test texts that share words with the encoder's training data; no rows if never measured."""
    rows = []
    for column in cells.columns:
        shares = [cells.overlap(label, column) for label in cells.encoders]
        if any(share is not None for share in shares):
            rows.append((word(cells.title(column)), *(_share(share) for share in shares)))
    return Table(
        "overlap",
        "Overlap with training data",
        ("task", *(named(cells, label) for label in cells.encoders)),
        tuple(rows),
        words=frozenset({"task"}),
        about="Share of test texts in which a run of 8 words is also in the encoder's training data; a score over "
        f"{100 * OVERLAP:.0f} %, and every mean and mean rank with it, is marked in every table and competes for no best.",
    )


def _share(share: float | None) -> Entry:
    over = share is not None and share > OVERLAP
    return warned(
        measure(share, scale=100, digits=1, unit=" %"),
        f"over {100 * OVERLAP:.0f} %" if over else "",
    )
