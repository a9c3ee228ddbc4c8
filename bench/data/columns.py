"""Kinds of columns of a data set, and checks that name the first row of another kind."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import nan
from numbers import Integral, Real
from typing import Any

from bench.errors import DataError


@dataclass(frozen=True)
class Kind:
    """What each value of a column must be.

    Attributes:
        description: The kind in words, for messages.
        matches: Returns whether a value is of this kind.
        listed: Whether each row is a list of such values.
    """

    description: str
    matches: Callable[[Any], bool]
    listed: bool = False

    def lists(self) -> "Kind":
        """Return the kind of columns whose rows are lists of such values."""
        return replace(self, listed=True)


def _is_number(value: Any) -> bool:  # noqa: ANN401 - any value of a row
    number: Any = value if isinstance(value, Real) else nan
    return bool(abs(number) <= sys.float_info.max)  # an int may be larger than any float


def _is_class_number(value: Any) -> bool:  # noqa: ANN401 - -1 is how the hub writes a hidden label
    return _is_number(value) and value >= 0 and value == int(value)


def _has_answers(value: Any) -> bool:  # noqa: ANN401
    texts = value.get("text") if isinstance(value, Mapping) else None
    return (
        isinstance(texts, Sequence)
        and len(texts) > 0
        and all(isinstance(text, str) for text in texts)
    )


TEXT = Kind("a text", lambda value: isinstance(value, str))
NUMBER = Kind("a finite number", _is_number)
CLASS_NUMBER = Kind("the number of a class, from 0", _is_class_number)
CLASS = Kind(
    "a class, texts or else whole numbers from 0",
    lambda value: isinstance(value, str) or _is_class_number(value),
)
LABEL = Kind(
    "a class, texts that are not empty or else whole numbers from 0",
    lambda value: bool(value.strip()) if isinstance(value, str) else _is_class_number(value),
)
BINARY = Kind("0 or 1", lambda value: isinstance(value, Integral | float) and value in {0, 1})
ANSWERS = Kind("an object with at least one text in its list text", _has_answers)


def check_column(
    values: Sequence[Any], kind: Kind, where: str, classes: Sequence[str] | None = None
) -> None:
    """Check that every row of a column is of a kind.

    Args:
        values: The rows.
        kind: What each must be; texts and numbers together are not of one kind.
        where: Source and column, for messages.
        classes: Names of the classes of an integer column.

    Raises:
        DataError: A row is of another kind.
    """
    first = None
    for row, value in enumerate(values, 1):
        if kind.listed and not isinstance(value, list | tuple):
            raise _error(where, row, f"a list of {kind.description}", value)
        for one in value if kind.listed else [value]:
            first = one if first is None else first
            if not kind.matches(one) or isinstance(one, str) != isinstance(first, str):
                raise _error(where, row, kind.description, one)
            if _is_beyond(one, classes):
                raise _error(where, row, f"the number of one of {len(classes or ())} classes", one)


def _is_beyond(value: Any, classes: Sequence[str] | None) -> bool:  # noqa: ANN401
    return classes is not None and not isinstance(value, str) and value >= len(classes)


def _error(where: str, row: int, expected: str, got: object) -> DataError:
    shown = repr(str(got)[:40])
    return DataError(f"{where}, row {row}: expected {expected}, got {shown}; fix or drop the row")


def check_classes(labels: Iterable[object], source: str) -> None:
    """Check that there are at least two classes, without which no score is defined.

    Raises:
        DataError: There are fewer.
    """
    if len(found := set(labels)) < 2:
        raise DataError(
            f"{source}: expected texts of at least two classes, got {len(found)}; "
            "raise the limit, or check the labels"
        )
