"""Our numbers beside published ones: only of the same checkpoint, pooling, task and metric.

``published.csv`` has the published numbers with their sources; ``matches.json`` maps checkpoint and
settings to a paper's model and variant, and task, instruction and score to its task and metric.
What is in neither is not compared.
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import pandas as pd

from bench.errors import unknown
from bench.reporting.comparison import Comparison
from bench.reporting.table import Entry, Mark, Table, difference, measure, score, warned, word
from bench.store.result import Result

UNTRUSTED = frozenset({"memory"})
"""Provenances of numbers that count in no comparison."""

_KEY = ["method", "model", "variant", "task", "metric"]
_Z = 1.96  # half a 95 % interval, in standard errors


@cache
def printed() -> pd.DataFrame:
    """Return every published number: the columns of the file, and ``rounding``.

    Value and stderr are on a scale where 1 is best; ``rounding`` is half of the last printed digit.
    """
    with files("bench.reporting").joinpath("published.csv").open(encoding="utf-8") as file:
        numbers = pd.read_csv(file, dtype=str, keep_default_na=False)
    scale = numbers.unit.map({"x100": 100.0}).fillna(1.0)
    decimals = numbers.value.str.partition(".")[2].str.len()
    numbers["rounding"] = 0.5 / 10**decimals / scale
    numbers["value"] = numbers.value.astype(float) / scale
    numbers["stderr"] = pd.to_numeric(numbers.stderr) / scale
    return numbers


@cache
def _trusted() -> Mapping[tuple[str, ...], list[Any]]:
    numbers = printed()
    trusted = numbers[~numbers.provenance.isin(UNTRUSTED)]
    return {key: list(rows.itertuples()) for key, rows in trusted.groupby(_KEY)}


@cache
def _matches() -> dict[str, list[dict[str, Any]]]:
    text = files("bench.reporting").joinpath("matches.json").read_text(encoding="utf-8")
    matches: dict[str, list[dict[str, Any]]] = json.loads(text)
    return matches


def matching(result: Result) -> Iterator[tuple[str, Any]]:
    """Yield the published numbers (rows of ``printed``) that a result reproduces.

    Each is preceded by the name of our score.
    """
    if result.spec.limit:
        return
    wanted: dict[tuple[str, ...], str] = {}
    for encoder in _matches()["encoders"]:
        if not _is_checkpoint(encoder, result):
            continue
        for task in _matches()["tasks"]:
            same = task["task"] == result.spec.task and encoder["method"] in task["methods"]
            if not same or task["score"] not in result.scores or not _is_asked(task, result):
                continue
            for variant in _variants(encoder, task, result):
                model = (encoder["method"], encoder["model"], variant)
                wanted[(*model, task["published"], task["metric"])] = task["score"]
    for key, name in wanted.items():
        for number in _trusted().get(key, ()):
            yield name, number


def _is_checkpoint(encoder: Mapping[str, Any], result: Result) -> bool:
    """Return whether a result is of the checkpoint (a hub id, or a folder of its name).

    What was trained from it has its name as the backbone, and is another one.
    """
    name = str(result.card.get("backbone") or "").partition("@")[0].rpartition("/")[2]
    settings, trained_on = result.spec.settings, bool(result.card.get("training"))
    return (name == encoder["checkpoint"] and not trained_on) and all(
        settings.get(k) in values for k, values in encoder["settings"].items()
    )


def _is_asked(task: Mapping[str, Any], result: Result) -> bool:
    """Return whether an encoder that follows instructions got the paper's, and it alone."""
    follows = result.card.get("instructed_sides", True)
    asked = f"embedding for {task.get('instruction')!r}"
    return not follows or "instruction" not in task or result.spec.readout == asked


def _variants(encoder: Mapping[str, Any], task: Mapping[str, Any], result: Result) -> list[str]:
    templates = [task["variant"]] if "variant" in task else encoder["variants"]
    layer = re.search(r"@(-?\d+)$", result.spec.readout)
    known = {**result.spec.settings, "read_layer": layer[1] if layer else ""}
    return [template.format_map(known) for template in templates]


def table(c: Comparison) -> Table:
    """Return our score beside the published one for every result that reproduces one."""
    rows = []
    for (label, title), results in c.cells.items():
        rows += [_row(c, label, title, name, number) for name, number in matching(results[0])]
    rows.sort(key=lambda row: [entry.text for entry in row.values()])
    return Table.of_rows(
        "published",
        "Reproduced against published scores",
        rows,
        words={"encoder", "task", "score", "variant", "provenance", "source"},
        about="x 100: same checkpoint, pooling, task, instruction and metric. ‡: they differ by "
        "more than our interval, the published standard error and rounding together.",
    )


def _row(
    c: Comparison,
    label: str,
    title: str,
    name: str,
    number: Any,  # noqa: ANN401 - a row of ``printed``
) -> dict[str, Entry]:
    found, i = c.sampled(title, name), c.number[label]
    ours, bounds = float(found.scores[i]), found.intervals.bounds()[i]
    gap = ours - number.value
    half = 0.0 if bounds is None else (bounds[1] - ours if gap < 0 else ours - bounds[0])
    stderr = 0.0 if pd.isna(number.stderr) else number.stderr
    noise = (half**2 + (_Z * stderr) ** 2) ** 0.5 + number.rounding
    known = bounds is not None or not pd.isna(number.stderr)
    mark: Mark = "warning" if known and abs(gap) > noise else ""
    note = "" if known else "no interval and no standard error: uncertainty not known"
    note = "they differ by more than the uncertainty" if mark else note
    key = c.cells[label, title][0].spec.key
    entry = Entry(score(ours), ours, bounds, key=key)
    return {
        "encoder": word(c.encoders.at[label, "title"]),
        "task": word(title),
        "score": word(name),
        "ours": warned(entry, c.overlap_warning(label, [title])),
        "published": measure(number.value, scale=100, digits=1),
        "stderr": measure(number.stderr, scale=100, digits=1),
        "difference": Entry(difference(gap), gap, mark=mark, note=note),
        "variant": word(number.variant),
        "provenance": word(number.provenance),
        "source": word(number.source),
    }


def listing(tasks: Collection[str]) -> Table:
    """Return published numbers: those of some tasks, by a paper's name or ours of them, or all.

    Raises:
        UsageError: No published number is on a task of this name.
    """
    numbers = printed()
    known = {name: {name} for name in numbers.task}
    for match in _matches()["tasks"]:
        known.setdefault(match["task"], set()).add(match["published"])
    for name in tasks:
        if name not in known:
            hint = "(`bench report --published` prints those of all)"
            raise unknown("published task", name, known, hint=hint)
    wanted = set().union(*(known[name] for name in tasks))
    shown = numbers[numbers.task.isin(wanted)] if tasks else numbers
    words = ["task", "metric", "method", "model", "variant", "provenance", "source"]
    columns = [(name, list(map(word, shown[name]))) for name in words]
    for heading, name in (("published", "value"), ("stderr", "stderr")):
        entries = [measure(value, scale=100, digits=2) for value in shown[name]]
        columns.insert(-2, (heading, entries))
    about = "x 100, as printed; rows without a checked source count in no comparison."
    return Table.of_columns(
        "published-numbers", "Published numbers", columns, words=words, about=about
    )
