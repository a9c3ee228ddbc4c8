"""Finding encoders and recipes by name. They are announced as entry points; listing imports nothing."""

import ast
import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeVar

from bench.encoder import Encoder
from bench.errors import UsageError, one_line, unknown
from bench.importing import import_object, instantiate, otherwise
from bench.recipe import Recipe

_Made = TypeVar("_Made", Encoder, Recipe)

GROUP = "bench.encoders"
DEFAULT_GROUP = "bench.encoders.default"
"""Entry points of this second group are what ``all`` stands for."""
RECIPES = "bench.recipes"
"""Entry points of the recipes, each under its method's name."""

_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "an object",
}


def encoder_names() -> tuple[str, ...]:
    """Return the names of the registered encoders, sorted."""
    return tuple(sorted(_points()))


def describe(name: str) -> str:
    """Return the first line of the registered encoder's docstring, read without importing it."""
    point = _points()[name]
    try:
        spec = importlib.util.find_spec(point.module)
        if spec is None or spec.origin is None:
            return f"cannot be imported: there is no module {point.module}"
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"), spec.origin)
    except Exception as error:  # noqa: BLE001 - of somebody's package: the others are listed all the same
        return one_line(error)
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == point.attr:
            return (ast.get_docstring(node) or "").partition("\n")[0]
    return ""


def expand_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return encoder names with ``all`` replaced by the default encoders, each once, in order."""
    every = [point.name for point in entry_points(group=DEFAULT_GROUP)]
    return tuple(dict.fromkeys(n for name in names for n in (every if name == "all" else [name])))


def load_encoder(name: str, overrides: Mapping[str, str] | None = None) -> Encoder:
    """Return the encoder called by a name.

    Args:
        name: A registered name; ``name:PATH_OR_ID`` for another checkpoint; or ``package.module:Class``.
        overrides: Settings to change, by field name, as text: JSON where it parses, a plain string otherwise.

    Raises:
        UsageError: No such encoder or field, a value of the wrong kind, or a module that cannot be imported.
    """
    head, _, rest = name.partition(":")
    points = _points()
    known = head in points
    target = import_object(points[head].value if known else name, here=not known)
    if target is None:
        raise unknown(
            "encoder",
            head,
            [*points, "all"],
            hint=otherwise(name, "(see `bench list`, or give package.module:Class)"),
        )
    encoder = instantiate(target, name)
    if not is_dataclass(encoder) or not isinstance(encoder, Encoder):
        raise UsageError(
            f"{name!r} gives a {type(encoder).__name__}, which is no encoder: "
            "expected a frozen dataclass with version, follows_instructions and encode (see `bench new`)"
        )
    if head in points and rest:
        encoder = _with(encoder, {"checkpoint": rest}, name)
    return _with(encoder, {k: _parsed(v) for k, v in (overrides or {}).items()}, name)


def recipe_names() -> tuple[str, ...]:
    """Return the names of the methods that have a recipe, sorted."""
    return tuple(sorted(point.name for point in entry_points(group=RECIPES)))


def load_recipe(name: str, overrides: Mapping[str, str] | None = None) -> Recipe:
    """Return the recipe of a method.

    Args:
        name: A registered name, or ``package.module:Class``.
        overrides: Settings to change, by field name, as text: JSON where it parses, a plain string otherwise.

    Raises:
        UsageError: No such recipe or field, a value of the wrong kind, or a module that cannot be imported.
    """
    points = {point.name: point.value for point in entry_points(group=RECIPES)}
    target = import_object(points.get(name, name), here=name not in points)
    if target is None:
        raise unknown(
            "recipe", name, points, hint=otherwise(name, "(or give package.module:Class)")
        )
    recipe = instantiate(target, name)
    if not is_dataclass(recipe) or not isinstance(recipe, Recipe):
        raise UsageError(
            f"{name!r} gives a {type(recipe).__name__}, which is no recipe: expected a frozen dataclass with check and train"
        )
    return _with(recipe, {k: _parsed(v) for k, v in (overrides or {}).items()}, f"recipe {name}")


def field_names(encoder: Encoder) -> tuple[str, ...]:
    """Return the names of the encoder's settings, those that only change speed included."""
    return tuple(f.name for f in fields(encoder) if f.init)  # type: ignore[arg-type]


@cache
def _points() -> dict[str, EntryPoint]:
    return {
        point.name: point for group in (DEFAULT_GROUP, GROUP) for point in entry_points(group=group)
    }


def _with(encoder: _Made, values: Mapping[str, Any], name: str) -> _Made:
    present = {f.name: getattr(encoder, f.name) for f in fields(encoder) if f.init}  # type: ignore[arg-type]
    for field in values:
        if field not in present:
            raise unknown(f"setting of {name}", field, present)
    checked = {
        field: _fitting(value, present[field], f"{field!r} of {name}")
        for field, value in values.items()
    }
    try:
        return replace(encoder, **checked)  # type: ignore[type-var]
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name!r} refuses {checked}: {error}") from error


def _fitting(value: Any, present: Any, what: str) -> Any:  # noqa: ANN401 - any JSON value
    """Return the value in the kind of the present one; a setting that is None now takes anything."""
    if isinstance(present, str):
        return value if isinstance(value, str) else json.dumps(value)
    kind = type(present)
    if (
        present is None
        or value is None
        or type(value) is kind
        or (kind is float and type(value) is int)
    ):
        return value
    raise UsageError(f"setting {what} takes {_KINDS.get(kind, kind.__name__)}, got {value!r}")


def _parsed(text: str) -> Any:  # noqa: ANN401 - any JSON value
    try:
        return json.loads(text)
    except ValueError:
        return text
