"""What the Python interface takes, checked as the command line checks it."""

import json
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import is_dataclass, replace
from operator import index
from pathlib import PurePath
from typing import Any

from bench.encoder import Encoder
from bench.errors import UsageError
from bench.registry import compute_settings, field_names, load_encoders


def encoders_of(
    models: str | Iterable[str] | Mapping[str, Encoder], device: str, dtype: str
) -> dict[str, Encoder]:
    """Return encoders by name; those given as objects on the device and in the dtype asked for.

    Raises:
        UsageError: A name is unknown, or an encoder has no name.
    """
    settings = compute_settings(device, dtype)
    by_name = dict(models) if isinstance(models, Mapping) else {}
    names = [] if isinstance(models, Mapping) else as_list(models)
    wrong = [each for each in by_name.values() if isinstance(each, str)]
    wrong += [each for each in names if not isinstance(each, str)]
    if wrong:
        raise UsageError(
            'expected names of encoders, or encoders by name as in {"mine": encoder}, '
            f"got {wrong[0]!r}"
        )
    if names or not by_name:
        return load_encoders(names, settings)
    chosen = {field: value for field, value in settings.items() if value != "auto"}
    for name, encoder in by_name.items():
        known = field_names(encoder) if is_dataclass(encoder) else ()  # type: ignore[arg-type]
        if own := {field: value for field, value in chosen.items() if field in known}:
            by_name[name] = replace(encoder, **own)
    return by_name


def as_list(given: Any) -> list[Any]:  # noqa: ANN401 - names, numbers or tasks
    """Return what was given as a list; a string, or what has no parts, is one of its kind."""
    one = isinstance(given, str) or not isinstance(given, Iterable)
    return [given] if one else list(given)


def check_seeds(seeds: int | Iterable[int]) -> list[int]:
    """Return the seeds, of which there is one at least.

    Raises:
        UsageError: There is none, or one is no whole number from 0 to 2**32 - 1.
    """
    found = [check_number("seeds", seed, 0, 2**32 - 1) for seed in as_list(seeds)]
    if not found:
        raise UsageError("expected at least one seed, got none: leave seeds out for 42")
    return found


def check_limit(limit: int | None) -> int | None:
    """Return a limit of examples; None is no limit.

    Raises:
        UsageError: It is no whole number from 1.
    """
    return None if limit is None else check_number("limit", limit, 1)


def check_number(what: str, value: object, least: int, most: int = sys.maxsize) -> int:
    """Return a whole number, also one of numpy, that is in a range.

    Raises:
        UsageError: It is none.
    """
    with suppress(TypeError):
        if not isinstance(value, bool) and least <= index(value) <= most:  # type: ignore[arg-type]
            return index(value)  # type: ignore[arg-type]
    upper = "" if most == sys.maxsize else f" to {most}"
    raise UsageError(f"{what}: expected a whole number from {least}{upper}, got {value!r}")


def to_json(field: str, value: object) -> str:
    """Return a setting as JSON; a number of numpy or a path is a plain value, too.

    Raises:
        UsageError: It is another object.
    """

    def plain(part: Any) -> object:  # noqa: ANN401 - of any type that JSON lacks
        if isinstance(part, PurePath):
            return str(part)
        if callable(item := getattr(part, "item", None)):  # of numpy
            return item()
        raise TypeError

    try:
        return json.dumps(value, default=plain)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"setting {field!r} takes a number, a text or a list, got {value!r}"
        ) from error
