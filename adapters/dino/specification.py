"""Tasks in words: what a language model is told to write for each label, in the JSON format of the original."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters._files import read_json
from bench.errors import DataError, unknown

X1 = "<X1>"
"""Where the first text goes in an instruction."""

_FOLDER = Path(__file__).parent / "specs"
_NAME = re.compile(r"[A-Za-z0-9\-_.]+")


@dataclass(frozen=True)
class Label:
    """What is written for one label.

    Attributes:
        instruction: Ends in the quote that opens the text to be written.
        counter_labels: The labels whose texts it should not be; a file may leave them out.
    """

    instruction: str
    counter_labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Specification:
    """A task.

    Attributes:
        task_name: What its files are called.
        labels: By their names, which are strings.

    Source:
        Format and the specifications that come with this package: timoschick/dino at 0e4a052, ``task_specs``.
    """

    task_name: str
    labels: Mapping[str, Label]

    @property
    def takes_input(self) -> bool:
        """Whether a first text is given."""
        return any(X1 in label.instruction for label in self.labels.values())

    def prompt(self, label: str, x1: str = "") -> str:
        """Return the instruction of a label with the first text in its place."""
        return self.labels[label].instruction.replace(X1, x1)


def built_in() -> tuple[str, ...]:
    """Return the names of the specifications that come with this package."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.json")))


def read(source: str) -> Specification:
    """Return a specification that comes with this package, by its name, or the one in a JSON file.

    Raises:
        UsageError: No such name or file.
        DataError: The file is no specification.
    """
    path = Path(source) if source.endswith(".json") else _FOLDER / f"{source}.json"
    if not path.is_file():
        raise unknown("task specification", source, built_in(), hint="(or give a .json file)")
    return parsed(read_json(path), str(path))


def parsed(value: object, origin: str) -> Specification:
    """Return the specification that a JSON value holds.

    Args:
        value: What was read.
        origin: Where from, for messages.

    Raises:
        DataError: A rule of the format is broken.
    """
    table = _keyed(value, {"task_name", "labels"}, origin)
    name, labels = table["task_name"], table["labels"]
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise DataError(
            f"expected a task_name of letters, digits, '-', '_' and '.' in {origin}, got {name!r}"
        )
    if not isinstance(labels, dict) or not labels:
        raise DataError(f"expected an object of labels in {origin}, got {labels!r}")
    made = {
        key: _label(entry, f"label {key!r} of {origin}", labels) for key, entry in labels.items()
    }
    found = {key: label.instruction.count(X1) for key, label in made.items()}
    if set(found.values()) not in ({0}, {1}):
        raise DataError(
            f"expected {X1} once in every instruction of {origin}, or in none, got {found}"
        )
    return Specification(name, made)


def _label(value: object, origin: str, known: Mapping[str, object]) -> Label:
    full = {"counter_labels": []} | value if isinstance(value, dict) else value
    table = _keyed(full, {"instruction", "counter_labels"}, origin)
    instruction, counters = table["instruction"], table["counter_labels"]
    if not isinstance(instruction, str) or not instruction.endswith('"'):
        raise DataError(
            f"expected an instruction that ends in a quote for {origin}, got {instruction!r}"
        )
    if not isinstance(counters, list) or not all(
        isinstance(c, str) and c in known for c in counters
    ):
        raise DataError(
            f"expected counter_labels among {', '.join(known)} for {origin}, got {counters!r}"
        )
    return Label(instruction, tuple(counters))


def _keyed(value: object, keys: set[str], origin: str) -> dict[str, Any]:
    if not isinstance(value, dict) or value.keys() != keys:
        got = sorted(value) if isinstance(value, dict) else type(value).__name__
        raise DataError(
            f"expected the keys {', '.join(sorted(keys))} and no others in {origin}, got {got}"
        )
    return value
