"""``bench list``: all encoders, suites and tasks, or the details of one."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from importlib import import_module
from inspect import getdoc
from shutil import get_terminal_size
from textwrap import fill
from types import FunctionType
from typing import Annotated, Any

import typer

from bench.cli import console
from bench.cli.options import Json, complete, encoder_names, suite_names, task_names
from bench.errors import UsageError, unknown
from bench.importing import import_object, instantiate

Row = dict[str, Any]
"""An encoder, suite or task as plain JSON values."""

_NOTES = {
    "encoder": "* = in `--model all`",
    "suite": "* = default; any benchmark of mteb works too",
    "task": "any task of mteb works too",
}
_OTHER_NAMES = {
    "encoder": {
        "NAME:PATH_OR_ID": "another checkpoint of that method",
        "package.module:Class": "your own encoder",
        "LABEL=NAME": "the same encoder under another name",
    },
    "suite": {},
    "task": {
        "NAME@LAYER": "another layer of token states, such as mrpc-bertscore@20 or wnut17@0",
        "KIND:FILE_OR_FOLDER": "your own data; kinds: {kinds}",
        "package.module:TASK": "your own task",
    },
}

Name = Annotated[
    str,
    typer.Argument(
        help="Encoder, suite or task to show in detail. [default: one line each]",
        autocompletion=complete(lambda: [*encoder_names(), *suite_names(), *task_names()]),
        show_default=False,
    ),
]


def list_(name: Name = "", as_json: Json = False) -> None:
    """Show encoders, suites and tasks, or one in detail: settings, tasks, requirements."""
    rows = [_describe(name)] if name else _describe_all()
    if as_json:
        for row in rows:
            console.print_json(row)
    elif name:
        _show(rows[0])
    else:
        _show_all(rows)


def _describe_all() -> list[Row]:
    from bench.registry import describe, encoder_names, expand_names
    from bench.tasks import SUITES, describe_suite, describe_task, task_names

    default = {*expand_names(["all"]), "quick"}
    rows: list[Row] = []
    for kind, names, about in (
        ("encoder", encoder_names(), describe),
        ("suite", SUITES, describe_suite),
        ("task", task_names(), describe_task),
    ):
        for name in names:
            rows.append({"kind": kind, "name": name, "about": about(name)})
            if kind != "task":
                rows[-1]["default"] = name in default
    return rows


def _describe(name: str) -> Row:
    """Return the details of one encoder, suite or task; neither weights nor data are loaded.

    Raises:
        UsageError: There is none of this name.
    """
    from bench.registry import describe, encoder_names
    from bench.tasks import SUITES, TASKS, describe_suite
    from bench.tasks.mteb import benchmark, known_task
    from bench.tasks.mteb.names import list_benchmarks, list_tasks

    head = name.partition(":")[0]
    if head in encoder_names():
        return {"kind": "encoder", "name": name, "about": describe(head), **_abilities(name)}
    if (target := import_object(":".join(name.split(":")[:2]))) is not None:
        return _describe_object(name, target)
    if name in SUITES:
        return {"kind": "suite", "name": name, "about": describe_suite(name), "tasks": SUITES[name]}
    if head != name or name.partition("@")[0] in TASKS or known_task(name):
        return _describe_task(name)
    if tasks := benchmark(name):
        parts = {task.name: _name_parts(task) for task in tasks}
        return {"kind": "suite", "name": name, "about": "a benchmark of mteb", "tasks": parts}
    known = {*encoder_names(), *SUITES, *TASKS, *list_tasks(), *list_benchmarks()}
    raise unknown("encoder, suite or task", name, known, hint="(see `bench list`)")


def _describe_object(name: str, target: Any) -> Row:  # noqa: ANN401 - whatever the name stands for
    """Return the details of what ``package.module:Name`` stands for.

    Raises:
        UsageError: It is no encoder, recipe or task.
    """
    from bench.encoder import Encoder
    from bench.recipe import Recipe
    from bench.registry import load_recipe
    from bench.task import missing_parts

    made = instantiate(target, name) if isinstance(target, type | FunctionType) else target
    about = (getdoc(target) or "").partition("\n")[0]
    if isinstance(made, Encoder):
        return {"kind": "encoder", "name": name, "about": about, **_abilities(name)}
    if isinstance(made, Recipe):
        recipe = load_recipe(name)
        return {"kind": "recipe", "name": name, "about": about, "settings": _settings(recipe)}
    if not missing_parts(made):
        return _describe_task(name)
    raise UsageError(
        f"{name!r} gives a {type(made).__name__}, which is no encoder, recipe or task "
        "(see `bench new`)"
    )


def _name_parts(task: Any) -> dict[str, str]:  # noqa: ANN401 - a task of mteb
    """Return the subsets and splits that a task of mteb is limited to."""
    parts = {"subsets": task.subsets, "splits": task.splits}
    return {name: ", ".join(values) for name, values in parts.items() if values}


def _describe_task(name: str) -> Row:
    from bench.tasks import load_task

    task: Any = load_task(name)
    row = {"kind": "task", "name": task.name, "about": getattr(task, "about", "")}
    for field in ("family", "metric", "readout", "version", "limit"):
        row[field] = getattr(task, field)
    return row | {"needs": task.needs.__name__}


def _abilities(name: str) -> Row:
    """Return the protocols that an encoder satisfies, and its settings with their descriptions."""
    from bench import encoder
    from bench.registry import load_encoder

    made = load_encoder(name)
    for module in (
        "bench.tasks",
        "bench.clusters.grouping",
        "bench.exportable",
    ):  # protocols are beside their use
        import_module(module)
    protocols = list(_list_protocols(encoder.Encoder))
    return {
        "follows_instructions": made.follows_instructions,
        "instructed_sides": list(encoder.instructed_sides(made)),
        "offers": sorted({each.__name__ for each in protocols if isinstance(made, each)}),
        "settings": _settings(made),
    }


def _settings(made: Any) -> dict[str, Row]:  # noqa: ANN401 - an encoder or a recipe
    """Return the settings with their defaults and descriptions, from the docstrings."""
    docs = "\n".join(getdoc(each) or "" for each in reversed(type(made).__mro__))
    described = dict(re.findall(r"^ {4}(\w+): (.+(?:\n {6,}.+)*)", docs, re.MULTILINE))
    settings = {}
    for each in fields(made):
        if each.init:
            about = " ".join(described.get(each.name, "").split())
            settings[each.name] = {"default": getattr(made, each.name), "about": about}
    return settings


def _list_protocols(protocol: Any) -> Iterator[Any]:  # noqa: ANN401 - any protocol
    """Yield the protocols of encoders beyond one, as the loaded modules define them."""
    for each in protocol.__subclasses__():
        if getattr(each, "_is_protocol", False):
            yield each
            yield from _list_protocols(each)


def _show(row: Row) -> None:
    settings, tasks = row.pop("settings", {}), row.pop("tasks", {})
    for key, value in row.items():
        if value not in ("", None, []):
            print(f"{key.replace('_', ' ')}: {_format(value)}")
    for name, setting in settings.items():
        print(f"  {name} = {json.dumps(setting['default'], ensure_ascii=False)}")
        if setting["about"]:
            width, indent = get_terminal_size().columns, " " * 6
            print(fill(setting["about"], width, initial_indent=indent, subsequent_indent=indent))
    for name, changes in tasks.items():
        changed = ", ".join(f"{field}={value}" for field, value in changes.items())
        print(f"  {name:<{max(map(len, tasks))}}  {changed}".rstrip())


def _format(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(value)
    return value if isinstance(value, str) else json.dumps(value)


def _show_all(rows: list[Row]) -> None:
    from bench.tasks.own import KINDS

    width = max(len(row["name"]) for row in rows)
    kinds = ", ".join(KINDS)
    for kind, note in _NOTES.items():
        print(f"{kind}s ({note}; details: bench list NAME)")
        for row in rows:
            if row["kind"] == kind:
                star = "*" if row.get("default") else " "
                print(f"  {star} {row['name']:<{width}}  {row['about']}")
        names: Mapping[str, str] = _OTHER_NAMES[kind]
        for name, about in names.items():
            print(f"    {name:<{width}}  {about.format(kinds=kinds)}")
