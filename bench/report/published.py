"""Our numbers beside those that papers printed: only where checkpoint, read-out, task and metric are the same.

``published.csv`` holds the printed numbers with their sources; ``matches.json`` says which results of ours are the same
measurement: checkpoint and settings to a paper's model and variant, task and score to its task and metric. What is in neither
is not compared.
"""

import csv
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from bench.errors import unknown
from bench.report.cells import Column, named
from bench.report.pairs import METHOD, Pairs
from bench.report.table import Entry, Mark, Table, warned, word
from bench.result import Result

UNTRUSTED = frozenset({"memory"})
"""Provenances of numbers that count in no comparison."""

_Z = 1.96  # half a 95 % interval, in standard errors


@dataclass(frozen=True)
class Printed:
    """A published number.

    Attributes:
        method: The paper it belongs to.
        model: What was measured.
        variant: How it was read and run.
        task: On what.
        metric: Name of the metric.
        value: The number, 1 is best.
        stderr: Its standard error on the same scale; None where none was printed.
        rounding: By how much printing may have moved it.
        source: Where it stands.
        provenance: "paper", "code", "raw", "poster", "third_party", or "memory".
    """

    method: str
    model: str
    variant: str
    task: str
    metric: str
    value: float
    stderr: float | None
    rounding: float
    source: str
    provenance: str


@cache
def printed() -> tuple[Printed, ...]:
    """Return every published number, in the order of the file."""
    text = files("bench.report").joinpath("published.csv").read_text(encoding="utf-8")
    return tuple(_read(row) for row in csv.DictReader(text.splitlines()))


def _read(row: Mapping[str, str]) -> Printed:
    scale = 100 if row["unit"] == "x100" else 1
    digits = len(row["value"].partition(".")[2])
    return Printed(
        **{
            name: row[name]
            for name in ("method", "model", "variant", "task", "metric", "source", "provenance")
        },
        value=float(row["value"]) / scale,
        stderr=float(row["stderr"]) / scale if row["stderr"] else None,
        rounding=0.5 / 10**digits / scale,
    )


@cache
def _by_key() -> dict[tuple[str, ...], list[Printed]]:
    found: dict[tuple[str, ...], list[Printed]] = {}
    for number in printed():
        found.setdefault(
            (number.method, number.model, number.variant, number.task, number.metric), []
        ).append(number)
    return found


@cache
def _matches() -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = json.loads(
        files("bench.report").joinpath("matches.json").read_text(encoding="utf-8")
    )
    return found


def matching(result: Result) -> Iterator[tuple[str, Printed]]:
    """Yield the published numbers that a result measured again, each with the name of the score that it is."""
    if result.spec.limit:
        return
    wanted = {
        (encoder["method"], encoder["model"], variant, task["published"], task["metric"]): task[
            "score"
        ]
        for encoder in _matches()["encoders"]
        if _is_checkpoint(encoder, result)
        for task in _matches()["tasks"]
        if task["task"] == result.spec.task
        and encoder["method"] in task["methods"]
        and task["score"] in result.scores
        for variant in _variants(encoder, task, result)
    }
    for key, name in wanted.items():
        for number in _by_key().get(key, ()):
            if number.provenance not in UNTRUSTED:
                yield name, number


def _is_checkpoint(encoder: Mapping[str, Any], result: Result) -> bool:
    """Say whether a result's backbone is the checkpoint, a hub id or a folder of its name, run with the settings asked for."""
    name = str(result.card.get("backbone") or "").partition("@")[0].rpartition("/")[2]
    return name == encoder["checkpoint"] and all(
        result.spec.settings.get(k) in values for k, values in encoder["settings"].items()
    )


def _variants(encoder: Mapping[str, Any], task: Mapping[str, Any], result: Result) -> list[str]:
    templates = [task["variant"]] if "variant" in task else encoder["variants"]
    layer = re.search(r"@(-?\d+)$", result.spec.readout)
    known = {**result.spec.settings, "read_layer": layer[1] if layer else ""}
    return [template.format_map(known) for template in templates]


def table(pairs: Pairs) -> Table:
    """Return ours beside the published number for every result that measured one again."""
    cells, rows = pairs.cells, []
    for (label, column), results in cells.results.items():
        for name, number in matching(results[0]):
            rows.append(_row(pairs, label, column, name, number, results[0].spec.key))
    rows.sort(key=lambda row: tuple(entry.text for entry in row))
    return Table(
        "published",
        "Ours against published",
        (
            "encoder",
            "task",
            "score",
            "ours",
            "published",
            "stderr",
            "difference",
            "variant",
            "provenance",
            "source",
        ),
        tuple(rows),
        words=frozenset({"encoder", "task", "score", "variant", "provenance", "source"}),
        about="x 100, for results whose checkpoint, read-out, task and metric are those of a published number. ‡: they differ by "
        f"more than our interval, the printed standard error and rounding together. {METHOD}.",
        notes=() if rows or not cells.results else ("No result here matches a published row.",),
    )


def _row(
    pairs: Pairs, label: str, column: Column, name: str, number: Printed, key: str
) -> tuple[Entry, ...]:
    found = pairs.sampled(column, name)
    ours, bounds = (
        float(found.scores[pairs.number[label]]),
        pairs.bounds(found)[pairs.number[label]],
    )
    gap = ours - number.value
    half = 0.0 if bounds is None else (bounds[1] - ours if gap < 0 else ours - bounds[0])
    noise = (half**2 + (_Z * (number.stderr or 0.0)) ** 2) ** 0.5 + number.rounding
    known = bounds is not None or number.stderr is not None
    mark: Mark = "warning" if known and abs(gap) > noise else ""
    note = (
        "differ by more than the noise"
        if mark
        else ""
        if known
        else "no interval and no standard error: noise not known"
    )
    return (
        word(named(pairs.cells, label)),
        word(pairs.cells.title(column)),
        word(name),
        warned(
            Entry(f"{100 * ours:z.1f}", ours, bounds, key=key),
            pairs.cells.overlapping(label, [column]),
        ),
        Entry(f"{100 * number.value:z.1f}", number.value),
        word(None) if number.stderr is None else Entry(f"{100 * number.stderr:.1f}", number.stderr),
        Entry(f"{100 * gap:+z.1f}", gap, mark=mark, note=note),
        word(number.variant),
        word(number.provenance),
        word(number.source),
    )


def listing(tasks: Collection[str]) -> Table:
    """Return published numbers, those of some tasks by a paper's name or ours of them, or all.

    Raises:
        UsageError: No published number is on a task of this name.
    """
    known = {number.task: {number.task} for number in printed()}
    for match in _matches()["tasks"]:
        known.setdefault(match["task"], set()).add(match["published"])
    for name in tasks:
        if name not in known:
            raise unknown(
                "published task",
                name,
                known,
                hint="(`bench report --published` prints those of all)",
            )
    wanted = {published for name in tasks for published in known[name]}
    rows = [
        (
            *(
                word(getattr(number, name))
                for name in ("task", "metric", "method", "model", "variant")
            ),
            Entry(f"{100 * number.value:z.2f}", number.value),
            word(None)
            if number.stderr is None
            else Entry(f"{100 * number.stderr:.2f}", number.stderr),
            word(number.provenance),
            word(number.source),
        )
        for number in printed()
        if not tasks or number.task in wanted
    ]
    words = ("task", "metric", "method", "model", "variant", "provenance", "source")
    columns = (*words[:5], "published", "stderr", *words[5:])
    about = "x 100, as printed; rows without a checked source count in no comparison."
    return Table(
        "published-numbers", "Published numbers", columns, tuple(rows), frozenset(words), about
    )
