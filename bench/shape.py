"""Type checks of JSON values: files may be damaged, or of another program."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints, is_typeddict

_ABSENT = object()  # of no type
_PLAIN: dict[Any, Callable[[Any], bool]] = {
    str: lambda value: isinstance(value, str),
    bool: lambda value: isinstance(value, bool),
    int: lambda value: type(value) is int and abs(value) < 2**63,
    float: lambda value: type(value) in {int, float} and abs(value) < 1e300,
    NoneType: lambda value: value is None,
}


def find_mismatch(value: Any, hint: Any, place: str = "") -> str:  # noqa: ANN401 - any JSON value, any type
    """Return the first place in a JSON value that does not match a type; "" if all match.

    Args:
        value: A value from ``json.loads``.
        hint: A type of plain values, mappings, sequences, dataclasses and typed dictionaries.
        place: Of the value, as names between dots.
    """
    if hint is Any:
        return ""
    if get_origin(hint) is UnionType:
        faults = [find_mismatch(value, one, place) for one in get_args(hint)]
        return "" if "" in faults else faults[0]
    parts = _parts(value, hint)
    if parts is None:
        return place or "the whole"
    for name, part, part_hint in parts:
        if mismatch := find_mismatch(part, part_hint, f"{place}.{name}".lstrip(".")):
            return mismatch
    return ""


def _parts(value: Any, hint: Any) -> list[tuple[str, Any, Any]] | None:  # noqa: ANN401 - likewise
    """Return the parts of a value with names and types; None where the value does not match."""
    if is_dataclass(hint) or is_typeddict(hint):
        return _fields(value, hint)
    kind, of = get_origin(hint), get_args(hint)
    if kind is Mapping:
        return [(n, v, of[1]) for n, v in value.items()] if isinstance(value, dict) else None
    if kind in {Sequence, tuple}:
        return _elements(value, of if kind is tuple else (*of, Ellipsis))
    if kind is Literal:
        return [] if value in of else None
    return [] if _PLAIN[hint](value) else None


def _elements(value: Any, of: Sequence[Any]) -> list[tuple[str, Any, Any]] | None:  # noqa: ANN401 - likewise
    if not isinstance(value, list | tuple):
        return None
    types = [of[0]] * len(value) if of[-1] is Ellipsis else of
    if len(types) != len(value):
        return None
    return [(str(i), each, types[i]) for i, each in enumerate(value)]


def _fields(value: Any, hint: Any) -> list[tuple[str, Any, Any]] | None:  # noqa: ANN401 - likewise
    if not isinstance(value, dict):
        return None
    return [
        (name, value.get(name, _ABSENT), one)
        for name, (one, needed) in _hints(hint).items()
        if needed or name in value
    ]


@cache
def _hints(kind: Any) -> dict[str, tuple[Any, bool]]:  # noqa: ANN401 - a type
    """Return the type of each field, and whether a value must have it."""
    if is_dataclass(kind):
        free = (MISSING, MISSING)
        needed = {f.name for f in fields(kind) if (f.default, f.default_factory) == free}
    else:
        needed = kind.__required_keys__
    return {name: (one, name in needed) for name, one in get_type_hints(kind).items()}
