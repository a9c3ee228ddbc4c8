"""Names in the report: labels of encoders, titles of tasks, and no folder of anyone's disk."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import pandas as pd

from bench.data.catalog import set_name

TASK = ["family", "task", "readout", "limit", "protocol", "metric"]
"""What makes one task of the report: results that differ in any of these are not compared."""

_CHANGES = {"renormalised", "whitened"}
_FOLDER = r"(?:(?<=[=:,])|^)(?:~|[A-Za-z]:)?[\\/][^,]*?([^\\/,]+)[\\/]*(?=,|$)"
_PATH = r"(?<![\w.:/\\])(?:~|[A-Za-z]:)?[\\/](?:[^\s\\/,;:'\"()]+[\\/])+(?=[^\s\\/,;:'\"()])"


@cache
def _known_encoders() -> dict[str, dict[str, str]]:
    """Return what is known of encoders by name.

    ``idea`` says what each is, ``paper`` and ``link`` where it comes from; ``role`` is there for
    those that are no method.
    """
    text = files("bench.reporting").joinpath("methods.json").read_text(encoding="utf-8")
    found: dict[str, dict[str, str]] = json.loads(text)
    return found


def known_encoder(name: str) -> dict[str, str]:
    """Return what is known of an encoder by its name; {} if nothing is.

    One whose vectors are changed, such as whitened:dino, has the role of the encoder in it.
    """
    head, _, rest = name.partition(":")
    own = _known_encoders().get(head, {})
    return {**known_encoder(rest), **own} if head in _CHANGES else own


def strip_folders(text: str) -> str:
    """Return a name or an argument with absolute paths cut to their last part."""
    return re.sub(_FOLDER, r"\1", text)


def strip_paths(text: str) -> str:
    """Return a sentence with absolute paths cut to their last part."""
    return re.sub(_PATH, "", text)


def source_name(used: Mapping[str, Any]) -> str:
    """Return the name of a split that a result has read, of an own file without its folder."""
    return set_name(strip_folders(used["id"]), used.get("config"), used.get("split"))


def marked(name: str, *marks: str) -> str:
    """Return a name with its marks in brackets; "" is none."""
    words = ", ".join(filter(None, marks))
    return f"{name} ({words})" if words else name


def natural(text: str) -> list[Any]:
    """Return a sort key by which m2 comes before m16."""
    parts = re.split(r"(\d+)", text)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]


def titles(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the tasks with a ``title`` each: the name, and what distinguishes it from others."""
    tasks = runs[TASK].drop_duplicates()
    distinct = tasks.groupby("task")[["readout", "protocol", "metric", "family"]]
    several = distinct.transform("nunique") > 1
    found = []
    for (_, task), differs in zip(tasks.iterrows(), several.itertuples(index=False), strict=True):
        marks = [
            f"limit {task.limit}" if task.limit else "",
            task.readout if differs.readout else "",
            f"protocol {task.protocol}" if differs.protocol else "",
            task.metric if differs.metric else "",
            task.family if differs.family else "",
        ]
        found.append(marked(task.task, *marks))
    return tasks.assign(title=found)


def labels(runs: pd.DataFrame) -> pd.Series:
    """Return the encoders' names; those of one name with the settings in which they differ.

    Settings are written as ``--set`` takes them. Encoders of the same settings get the first digits
    of their fingerprints, at least four.
    """
    found = runs["name"].copy()
    for _, group in runs.groupby("name"):
        first = group.drop_duplicates("fingerprint").set_index("fingerprint").result
        if len(first) > 1:
            found[group.index] += group.fingerprint.map(_differences(first))
    return found


def _differences(results: "pd.Series[Any]") -> dict[str, str]:
    """Return by fingerprint how results of one encoder name differ."""
    each = [_settings(result) for result in results]
    table = pd.DataFrame(each, dtype=object)
    differing = table.columns[table.nunique(dropna=False) > 1]
    marks = []
    for settings in each:
        own = [f" {name}={settings[name]}" for name in differing if name in settings]
        marks.append("".join(own))
    counts, digits = Counter(marks), _digits(results.index)
    return {
        fingerprint: mark + (f" #{fingerprint[:digits]}" if counts[mark] > 1 else "")
        for fingerprint, mark in zip(results.index, marks, strict=True)
    }


def _settings(result: Any) -> dict[str, str]:  # noqa: ANN401 - a Result
    """Return the settings as ``--set`` takes them, with the dtype that "auto" stands for."""
    settings = dict(result.spec.settings)
    if result.card.get("dtype"):
        settings["dtype"] = result.card["dtype"]
    return {
        name: strip_folders(json.dumps(value, ensure_ascii=False).strip('"'))
        for name, value in settings.items()
    }


def _digits(fingerprints: "pd.Index[str]") -> int:
    """Return how many first digits distinguish the fingerprints, at least four."""
    digits = 4
    while fingerprints.str[:digits].nunique() < len(fingerprints):
        digits += 1
    return digits
