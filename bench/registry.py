"""Encoders and recipes by name: entry points, so that listing them imports nothing."""

import ast
import importlib.util
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from bench.checkpoints import CARD, checkpoints_in
from bench.encoder import Encoder
from bench.errors import BenchError, UsageError, one_line, unknown
from bench.files import read_object
from bench.importing import import_object, instantiate, module_hint
from bench.recipe import Recipe

log = logging.getLogger(__name__)

_Made = TypeVar("_Made", Encoder, Recipe)

GROUP = "bench.encoders"
"""Group of entry points that name encoders."""

DEFAULT_GROUP = "bench.encoders.default"
"""Group of the encoders that ``all`` stands for."""

TRAINED = "trained"
"""What stands for all checkpoints in a folder: ``trained:FOLDER``."""

RECIPES = "bench.recipes"
"""Group of the recipes, each under its method's name."""

DTYPES = ("auto", "float32", "bfloat16", "float16")
"""Values of ``--dtype``."""

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


def find_registered(name: str) -> str:
    """Return the registered name of ``package.module:Class``; any other name as it is."""
    return next((point.name for point in _points().values() if point.value == name), name)


def describe(name: str) -> str:
    """Return the first line of the registered encoder's docstring, read without importing it."""
    point = _points()[name]
    try:
        spec = importlib.util.find_spec(point.module)
        if spec is None or spec.origin is None:
            return f"cannot be imported: there is no module {point.module}"
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"), spec.origin)
    except Exception as error:  # noqa: BLE001 - a broken package must not hide the others
        return one_line(error)
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == point.attr:
            return (ast.get_docstring(node) or "").partition("\n")[0]
    return ""


def expand_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return encoder names, each once, in order, with those that stand for several replaced.

    ``all`` stands for the default encoders, ``trained:FOLDER`` for the finished trainings in it.

    Raises:
        UsageError: The folder has no finished training.
    """
    expanded: list[str] = []
    for name in names:
        kind, _, folder = name.partition(":")
        if kind == TRAINED and folder:
            found = checkpoints_in(Path(folder).expanduser())
            expanded += [f"{label}={target}" for label, target in found.items()]
            continue
        default = entry_points(group=DEFAULT_GROUP) if name == "all" else ()
        expanded += [point.name for point in default] or [name]
    return tuple(dict.fromkeys(expanded))


def load_encoder(name: str, overrides: Mapping[str, str] | None = None) -> Encoder:
    """Return the encoder with a name.

    Args:
        name: A registered name or ``package.module:Class``; with ``:PATH_OR_ID`` behind it for
            another checkpoint.
        overrides: Settings to change, by field name: JSON where it parses, else plain strings.

    Raises:
        UsageError: No such encoder or field, a value of the wrong kind, or a module that cannot
            be imported.
    """
    points = {known: point.value for known, point in _points().items()}
    head = name.partition(":")[0]
    known = head in points
    named = head if known else ":".join(name.split(":")[:2])
    checkpoint = name[len(named) + 1 :]
    target = import_object(points.get(named, named), here=not known)
    if target is None and Path(name).expanduser().is_dir():
        raise UsageError(
            f"{name!r} is a folder: say what reads it, such as st:{name} for a model of "
            f"sentence-transformers or backbone-mean:{name} for a language model"
        )
    if target is None:
        hint = module_hint(name, "(see `bench list`, or give package.module:Class)")
        raise unknown("encoder", head, [*points, "all"], hint=hint)
    encoder = instantiate(target, name)
    if not is_dataclass(encoder) or not isinstance(encoder, Encoder):
        raise UsageError(
            f"{name!r} is a {type(encoder).__name__}, not an encoder: expected a frozen dataclass "
            "with version, follows_instructions and encode (see `bench new`)"
        )
    if checkpoint:
        encoder = _override(encoder, {"checkpoint": checkpoint}, name)
    return _override(encoder, _parse_all(overrides), name)


def load_encoders(
    names: Sequence[str], settings: Mapping[str, str] | None = None, changes: Sequence[str] = ()
) -> dict[str, Encoder]:
    """Return encoders by name.

    Args:
        names: Names as for ``load_encoder``, or ``LABEL=NAME`` to have it called LABEL in every
            table; ``all`` stands for the default encoders, of which those that cannot be imported
            are left out with a warning; ``trained:FOLDER`` for the checkpoints in a folder.
            Without a label, a registered encoder has its registered
            name, and a folder its last part.
        settings: Values by field, for the encoders that have the field.
        changes: ``field=value`` for the encoders that have the field, ``encoder.field=value``
            for one.

    Raises:
        UsageError: No name at all, one label for two encoders, or no such encoder or setting.
    """
    targets = _split_labels(expand_names(names))
    encoders = _load_defaults(targets, names)
    if not encoders:
        raise UsageError("--model names no encoder; give names separated by commas, or all")
    overrides: dict[str, dict[str, str]] = {}
    for name, encoder in encoders.items():
        known = field_names(encoder)
        overrides[name] = {f: value for f, value in (settings or {}).items() if f in known}
    for change in changes:
        target, value = split_setting(change)
        owner, _, field = target.rpartition(".")
        for name in _find_owners(find_registered(owner), field, encoders):
            overrides[name][field] = value
    return {name: load_encoder(targets[name], overrides[name]) for name in encoders}


def load_one(
    name: str, settings: Mapping[str, str] | None = None, changes: Sequence[str] = ()
) -> tuple[str, Encoder]:
    """Return one encoder and its name; arguments are as for ``load_encoders``.

    The folder of a training stands for its method with this checkpoint.

    Raises:
        UsageError: The name stands for several, or there is no such encoder or setting.
    """
    method = read_object(Path(name).expanduser() / CARD).get("method")
    target = f"{method}:{name}" if method in _points() else name
    found = load_encoders([target], settings, changes)
    if len(found) > 1:
        raise UsageError(f"expected one encoder, got {', '.join(found)}: name one of them")
    return next(iter(found.items()))


def _split_labels(names: Sequence[str]) -> dict[str, str]:
    """Return the name of each encoder by its label: a short name where there is no label."""
    targets: dict[str, str] = {}
    for name in names:
        label, equals, target = name.partition("=")
        if not equals or re.search(r"[:/\\]", label):  # an equals sign in a path
            target = find_registered(name)
            label = _cut_folder(target)
            if targets.get(label, target) != target:
                label = target  # another folder of this name
        if targets.setdefault(label, target) != target or not label or not target:
            raise UsageError(
                f"expected one encoder for each label, as in mine=st:FOLDER, got {name!r}"
            )
    return targets


def _cut_folder(name: str) -> str:
    """Return the name of an encoder, ``name:FOLDER`` without the way to the folder."""
    head, _, place = name.partition(":")
    try:
        folder = Path(place).expanduser().resolve()
        return f"{head}:{folder.name}" if place and folder.is_dir() else name
    except (OSError, RuntimeError):  # too long for a path, or no such user
        return name


def _load_defaults(targets: Mapping[str, str], names: Sequence[str]) -> dict[str, Encoder]:
    """Return the encoders in their default settings, by label.

    One that is not among ``names`` stems from ``all``, and may be missing.
    """
    encoders = {}
    for label, target in targets.items():
        try:
            encoders[label] = load_encoder(target)
        except BenchError as error:
            if label != target or label in map(find_registered, names):
                raise
            log.warning("%s is left out: %s", label, error)
    return encoders


def _find_owners(owner: str, field: str, encoders: Mapping[str, Encoder]) -> list[str]:
    """Return the names of the encoders whose setting ``owner.field`` or ``field`` changes."""
    if owner and owner not in encoders:
        raise unknown("chosen encoder", owner, encoders)
    fields_of = {name: field_names(encoder) for name, encoder in encoders.items()}
    owners = [owner] if owner else [name for name in encoders if field in fields_of[name]]
    if not owners:
        known = set(chain(*fields_of.values()))
        what = f"setting of {', '.join(encoders)}"
        raise unknown(what, field, known, hint="(see `bench list ENCODER`)")
    return owners


def split_setting(text: str) -> tuple[str, str]:
    """Return field and value of ``field=value``.

    Raises:
        UsageError: There is no equals sign.
    """
    field, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"expected a setting as field=value, got {text!r}")
    return field, value


def compute_settings(device: str, dtype: str, *, exact: bool = False) -> dict[str, str]:
    """Return the settings that say where and in which dtype an encoder computes.

    Raises:
        UsageError: No machine has such a device or dtype, or the dtype is not exact.
    """
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", device):
        raise UsageError(f"--device takes auto, cpu, cuda, cuda:NUMBER, mps, got {device!r}")
    if dtype not in DTYPES:
        raise UsageError(f"--dtype takes {', '.join(DTYPES)}, got {dtype!r}")
    if exact and dtype not in {"auto", "float32"}:
        raise UsageError(f"--exact computes in float32, got --dtype {dtype}: leave out one of them")
    return {"device": device, "dtype": "float32" if exact else dtype}


def recipe_names() -> tuple[str, ...]:
    """Return the names of the methods that have a recipe, sorted."""
    return tuple(sorted(point.name for point in entry_points(group=RECIPES)))


def load_recipe(name: str, overrides: Mapping[str, str] | None = None) -> Recipe:
    """Return the recipe of a method.

    Args:
        name: A registered name, or ``package.module:Class``.
        overrides: Settings to change, by field name: JSON where it parses, else plain strings.

    Raises:
        UsageError: No such recipe or field, a value of the wrong kind, or a module that cannot
            be imported.
    """
    points = {point.name: point.value for point in entry_points(group=RECIPES)}
    target = import_object(points.get(name, name), here=name not in points)
    if target is None:
        hint = module_hint(name, "(or give package.module:Class)")
        raise unknown("recipe", name, points, hint=hint)
    is_value = isinstance(target, Recipe) and not isinstance(target, type)
    recipe = target if is_value else instantiate(target, name)
    if not is_dataclass(recipe) or not isinstance(recipe, Recipe):
        raise UsageError(
            f"{name!r} is a {type(recipe).__name__}, not a recipe: "
            "expected a frozen dataclass with check and train"
        )
    return _override(recipe, _parse_all(overrides), f"recipe {name}")


def encoder_of(name: str, recipe: Recipe) -> str:
    """Return the name of the encoder that reads a recipe's checkpoints; "" where none is known.

    Args:
        name: Under which the recipe was asked for.
        recipe: Says so in its class attribute ``encoder``, or is of the class of a registered one,
            whose name is its encoder's.
    """
    kind = f"{type(recipe).__module__}:{type(recipe).__qualname__}"
    points = entry_points(group=RECIPES)
    registered = [point.name for point in points if kind == point.value or point.name == name]
    return str(getattr(recipe, "encoder", next(iter(registered), "")))


def field_names(encoder: Encoder) -> tuple[str, ...]:
    """Return the names of the encoder's settings, those that only change speed included."""
    return tuple(f.name for f in fields(encoder) if f.init)  # type: ignore[arg-type]


@cache
def _points() -> dict[str, EntryPoint]:
    points = [*entry_points(group=DEFAULT_GROUP), *entry_points(group=GROUP)]
    return {point.name: point for point in points}


def _override(made: _Made, values: Mapping[str, Any], name: str) -> _Made:
    """Return an encoder or recipe with other values of some fields."""
    present = {f.name: getattr(made, f.name) for f in fields(made) if f.init}  # type: ignore[arg-type]
    for field, value in values.items():
        if field not in present:
            raise unknown(f"setting of {name}", field, present)
        present[field] = _check_kind(value, present[field], f"{field!r} of {name}")
    try:
        return replace(made, **present)  # type: ignore[type-var]
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name!r} rejects {dict(values)}: {error}") from error


def _check_kind(value: Any, present: Any, what: str) -> Any:  # noqa: ANN401 - any JSON value
    """Return a value of the same kind as the present one; a setting that is None takes any."""
    kind = type(present)
    if kind is str:
        return value if isinstance(value, str) else json.dumps(value)
    free = present is None or value is None
    if free or type(value) is kind or (kind is float and type(value) is int):
        return value
    raise UsageError(f"setting {what} takes {_KINDS.get(kind, kind.__name__)}, got {value!r}")


def _parse_all(overrides: Mapping[str, str] | None) -> dict[str, Any]:
    return {field: _parse(text) for field, text in (overrides or {}).items()}


def _parse(text: str) -> Any:  # noqa: ANN401 - any JSON value
    try:
        return json.loads(text)
    except ValueError:
        return text
