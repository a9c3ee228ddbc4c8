"""Finding encoders and recipes by name. They are announced as entry points; listing imports nothing."""

import ast
import importlib
import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeVar

from bench.encoder import Encoder
from bench.errors import UsageError, unknown
from bench.recipe import Recipe

_Made = TypeVar("_Made", Encoder, Recipe)

GROUP = "bench.encoders"
DEFAULT_GROUP = "bench.encoders.default"
"""Entry points of this second group are what ``all`` stands for."""
RECIPES = "bench.recipes"
"""Entry points of the recipes, each under its method's name."""


def encoder_names() -> tuple[str, ...]:
    """Return the names of the registered encoders, sorted."""
    return tuple(sorted(_points()))


def describe(name: str) -> str:
    """Return the first line of the registered encoder's docstring, read without importing it."""
    point = _points()[name]
    spec = importlib.util.find_spec(point.module)
    if spec is None or spec.origin is None:
        return ""
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == point.attr:
            return (ast.get_docstring(node) or "").partition("\n")[0]
    return ""


def expand(names: Sequence[str]) -> tuple[str, ...]:
    """Return encoder names with ``all`` replaced by the default encoders, each once, in order."""
    every = [point.name for point in entry_points(group=DEFAULT_GROUP)]
    return tuple(dict.fromkeys(n for name in names for n in (every if name == "all" else [name])))


def load_encoder(name: str, overrides: Mapping[str, str] | None = None) -> Encoder:
    """Return the encoder called by a name.

    Args:
        name: A registered name; ``name:PATH_OR_ID`` for another checkpoint; or ``package.module:Class``.
        overrides: Settings to change, by field name, as text: JSON where it parses, a plain string otherwise.

    Raises:
        UsageError: No such encoder or field, or a value of the wrong kind.
    """
    head, _, rest = name.partition(":")
    points = _points()
    if head in points:
        encoder = _make(points[head].load(), name)
        if rest:
            encoder = _with(encoder, {"checkpoint": rest}, name)
    elif rest.isidentifier() and _importable(head):
        target = getattr(importlib.import_module(head), rest, None)
        if target is None:
            raise UsageError(f"module {head!r} has no {rest!r}")
        encoder = _make(target, name)
    else:
        raise unknown("encoder", head, [*points, "all"], hint="(see `bench list`, or give package.module:Class)")
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
        UsageError: No such recipe or field, or a value of the wrong kind.
    """
    points = {point.name: point for point in entry_points(group=RECIPES)}
    module, _, attribute = name.partition(":")
    if name in points:
        recipe = points[name].load()()
    elif attribute.isidentifier() and _importable(module) and hasattr(importlib.import_module(module), attribute):
        recipe = getattr(importlib.import_module(module), attribute)()
    else:
        raise unknown("recipe", name, points, hint="(or give package.module:Class)")
    if not is_dataclass(recipe) or not isinstance(recipe, Recipe):
        raise UsageError(f"{name!r} gives a {type(recipe).__name__}, which is no recipe: expected a frozen dataclass with train")
    return _with(recipe, {k: _parsed(v) for k, v in (overrides or {}).items()}, f"recipe {name}")


def has_field(encoder: Encoder, field: str) -> bool:
    """Say whether the encoder has a setting of this name."""
    return any(f.name == field for f in fields(encoder))  # type: ignore[arg-type]


def _points() -> dict[str, EntryPoint]:
    return {point.name: point for group in (DEFAULT_GROUP, GROUP) for point in entry_points(group=group)}


def _make(target: Callable[[], Any], name: str) -> Encoder:
    try:
        encoder = target()
    except TypeError as error:
        raise UsageError(f"{name!r} cannot be made without arguments ({error}); give every setting a default") from error
    if not is_dataclass(encoder) or not isinstance(encoder, Encoder):
        raise UsageError(
            f"{name!r} gives a {type(encoder).__name__}, which is no encoder: "
            "expected a frozen dataclass with version, follows_instructions and encode (see `bench new`)"
        )
    return encoder


def _with(encoder: _Made, values: Mapping[str, Any], name: str) -> _Made:
    present = {f.name: getattr(encoder, f.name) for f in fields(encoder) if f.init}  # type: ignore[arg-type]
    for field in values:
        if field not in present:
            raise unknown(f"setting of {name}", field, present)
    checked = {field: _fitting(value, present[field], f"{field!r} of {name}") for field, value in values.items()}
    return replace(encoder, **checked)  # type: ignore[type-var]


def _fitting(value: Any, present: Any, what: str) -> Any:  # noqa: ANN401 - any JSON value
    """Return the value in the kind of the present one; a setting that is None now takes anything."""
    if isinstance(present, str):
        return value if isinstance(value, str) else json.dumps(value)
    kind = type(present)
    if present is None or value is None or isinstance(value, kind) or (kind is float and isinstance(value, int)):
        return value
    raise UsageError(f"setting {what} takes a {kind.__name__}, got {value!r}")


def _parsed(text: str) -> Any:  # noqa: ANN401 - any JSON value
    try:
        return json.loads(text)
    except ValueError:
        return text


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
