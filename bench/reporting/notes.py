"""What a reader must know beside the numbers: what is mixed, missing or limited."""

from collections.abc import Iterable, Mapping
from typing import Any

from bench.reporting.comparison import METHOD, SIGNIFICANT, Comparison
from bench.reporting.mteb import SOURCE
from bench.reporting.names import source_name
from bench.reporting.table import MISSING, Table, word
from bench.store.result import Result


def notes(c: Comparison) -> Table:
    """Return how numbers were computed and what limits them, once for all tables."""
    compared = c.tasks[c.tasks.compared]
    rare = list(compared.index[~compared.common & ~compared.superseded])
    superseded = list(compared.index[compared.superseded])
    missing = int(c.scores.loc[compared.index].isna().to_numpy().sum())
    whole = len(compared) * len(c.labels)
    lines = [METHOD, SIGNIFICANT] if len(compared) else []
    if missing:
        lines.append(
            f"{MISSING}: no result, {missing} of {whole} cells; "
            "the table of missing cells gives the reasons."
        )
    if rare:
        lines.append(
            f"Excluded from means, since at most half of the encoders have them: {', '.join(rare)}."
        )
    if superseded:
        lines.append(
            "Excluded from means, ranks and wins, since another protocol or limit of the same task "
            f"counts: {', '.join(superseded)}."
        )
    if not c.encoders.trained.all():
        lines.append(
            "untrained: the method's template and pooling on a backbone that its recipe never "
            "trained."
        )
    if any(card.get("source") for card in c.encoders.card):
        lines.append(
            f"{SOURCE}: scores from mteb's results repository, of the same task, splits, subsets "
            "and data (a local copy is taken for mteb's revision); without intervals and tests, "
            "since it has no per-example values."
        )
    if (c.tasks.limit > 0).any():
        lines.append(
            "Tasks with a limit use a fixed sample of that many test examples; do not compare "
            "them with full ones."
        )
    lines += mixed(c.runs.result)
    columns = [("note", [word(line) for line in lines])]
    return Table.of_columns("notes", "Notes", columns, words={"note"})


def mixed(results: Iterable[Result]) -> list[str]:
    """Return a line for each property in which the results should agree and do not.

    Data need only agree within a task: own files of one name are data of different ones.
    """
    found: dict[tuple[str, str], set[str]] = {}
    seeds: dict[tuple[object, ...], set[int]] = {}
    for r in results:
        if r.card.get("source"):
            continue  # of which nothing else is known
        spec, made = r.spec, r.provenance
        cell = (spec.fingerprint, spec.task, spec.readout, spec.limit, spec.task_version, r.metric)
        seeds.setdefault(cell, set()).add(spec.seed)
        facts = {
            ("code versions", ""): made.get("commit") or "unknown",
            ("machines", ""): machine(made.get("machine") or {}) or "unknown",
        }
        if r.card.get("weights"):
            facts["dtypes", ""] = str(r.card.get("dtype"))
        for used in made.get("data", ()):
            pin = used.get("revision") or used.get("sha256") or ""
            facts[f"revisions of {source_name(used)}", spec.task] = pin
        for what, value in facts.items():
            found.setdefault(what, set()).add(value)
    found["seed sets", ""] = {" ".join(map(str, sorted(each))) for each in seeds.values()}
    lines = [
        f"Results of different {what} are mixed: {'; '.join(sorted(values))}."
        for (what, _), values in sorted(found.items())
        if len(values) > 1
    ]
    return list(dict.fromkeys(lines))


def machine(found: Mapping[str, Any]) -> str:
    """Return a machine in words; "" where nothing is known of it."""
    parts = [
        found.get("processor") or found.get("system"),
        f"{found['cores']} cores" if found.get("cores") else "",
        f"{found['memory_gb']} GB" if found.get("memory_gb") else "",
    ]
    return ", ".join(str(part) for part in parts if part)
