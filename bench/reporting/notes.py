"""What a reader must know beside the numbers: what is mixed, missing or limited."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.reporting.comparison import Comparison
from bench.reporting.table import MISSING
from bench.result import Result


def of(c: Comparison, labels: Sequence[str]) -> tuple[str, ...]:
    """Return the notes to a table of these encoders' scores."""
    compared = c.tasks[c.tasks.compared]
    rare = list(compared.index[~compared.common & ~compared.superseded])
    superseded = list(compared.index[compared.superseded])
    missing = int(c.scores.loc[compared.index, list(labels)].isna().to_numpy().sum())
    whole = len(compared) * len(labels)
    facts = [
        (
            missing,
            f"{MISSING}: no result, {missing} of {whole} cells; the table of missing cells says why.",
        ),
        (
            rare,
            f"Excluded from means, since at most half of the encoders have them: {', '.join(rare)}.",
        ),
        (
            superseded,
            (
                "Excluded from means, ranks and wins, since another protocol or limit of the same task "
                f"counts: {', '.join(superseded)}."
            ),
        ),
        (
            not c.encoders.trained[list(labels)].all(),
            "untrained: the method's template and pooling on a backbone that its recipe never trained.",
        ),
        (
            (c.tasks.limit > 0).any(),
            "Tasks with a limit read a fixed draw of that many test examples; do not compare them with full ones.",
        ),
    ]
    results = [result for label in labels for result in c.of_encoder(label)]
    return (*(note for holds, note in facts if holds), *mixed(results))


def mixed(results: Iterable[Result]) -> tuple[str, ...]:
    """Return a line for each thing in which results of one table should agree and do not."""
    found = list(results)
    seeds: dict[tuple[object, ...], set[str]] = {}
    each: dict[str, set[str]] = {
        "code versions": set(),
        "seed sets": set(),
        "machines": set(),
        "dtypes": set(),
    }
    data: dict[str, set[str]] = {}
    for r in found:
        spec, made = r.spec, r.provenance
        cell = (spec.fingerprint, spec.task, spec.readout, spec.limit, spec.task_version, r.metric)
        seeds.setdefault(cell, set()).add(str(spec.seed))
        each["code versions"].add(str(made.get("commit") or "unknown"))
        each["machines"].add(machine(made.get("machine") or {}) or "unknown")
        if r.card.get("weights"):
            each["dtypes"].add(str(r.card.get("dtype")))
        for used in made.get("data", ()):
            split = "/".join(filter(None, (used["id"], used.get("config"), used.get("split"))))
            pin = used.get("revision") or used.get("sha256") or ""
            data.setdefault(f"revisions of {split}", set()).add(str(pin))
    each["seed sets"] = {" ".join(sorted(found)) for found in seeds.values()}
    return tuple(
        f"Cells of different {what} are mixed: {'; '.join(sorted(values))}."
        for what, values in (*each.items(), *sorted(data.items()))
        if len(values) > 1
    )


def machine(found: Mapping[str, Any]) -> str:
    """Return a machine in words; "" where nothing is known of it."""
    parts = [
        found.get("processor") or found.get("system"),
        f"{found['cores']} cores" if found.get("cores") else "",
        f"{found['memory_gb']} GB" if found.get("memory_gb") else "",
    ]
    return ", ".join(str(part) for part in parts if part)
