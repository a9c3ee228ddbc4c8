"""``bench list``: what there is, and what is known of one encoder, suite or task."""

import json
import re
from inspect import getdoc, getmembers
from shutil import get_terminal_size
from textwrap import fill
from typing import Annotated, Any

import typer

from bench.cli.options import Json, completed, errors, start
from bench.errors import unknown

Row = dict[str, Any]
"""What is known of an encoder, suite or task, as plain JSON values."""


def _known(incomplete: str) -> list[str]:
    from bench.registry import encoder_names
    from bench.tasks import SUITES, task_names

    return completed(incomplete, [*encoder_names(), *SUITES, *task_names()])


Name = Annotated[
    str,
    typer.Argument(
        help="Encoder, suite or task to tell more of. [default: all, a line each]",
        autocompletion=_known,
        show_default=False,
    ),
]


def list_(name: Name = "", as_json: Json = False) -> None:
    """Show encoders, suites and tasks, a line each; or an encoder's settings, a suite's tasks, what a task reads and needs."""
    with errors():
        start(None, verbose=False)
        rows = [_detail(name)] if name else _rows()
        if as_json:
            for row in rows:
                print(json.dumps(row, ensure_ascii=False))
        elif name:
            _show(rows[0])
        else:
            _show_all(rows)


def _rows() -> list[Row]:
    from bench.registry import describe, encoder_names, expand_names
    from bench.tasks import SUITES, describe_suite, describe_task, task_names

    default = expand_names(["all"])
    rows: list[Row] = [
        {"kind": "encoder", "name": n, "about": describe(n), "default": n in default}
        for n in encoder_names()
    ]
    rows += [
        {"kind": "suite", "name": n, "about": describe_suite(n), "default": n == "quick"}
        for n in SUITES
    ]
    return rows + [{"kind": "task", "name": n, "about": describe_task(n)} for n in task_names()]


def _detail(name: str) -> Row:
    """Return what is known of one encoder, suite or task without loading weights or data.

    Raises:
        UsageError: There is none of this name.
    """
    from bench.registry import describe, encoder_names, load_encoder
    from bench.tasks import SUITES, TASKS, describe_suite, load_task
    from bench.tasks.mteb import benchmark, known_task

    head = name.partition(":")[0]
    if head in encoder_names():
        return {
            "kind": "encoder",
            "name": name,
            "about": describe(head),
            **_abilities(load_encoder(name)),
        }
    if name in SUITES:
        return {"kind": "suite", "name": name, "about": describe_suite(name), "tasks": SUITES[name]}
    if head == name and name.partition("@")[0] not in TASKS and not known_task(name):
        if tasks := benchmark(name):
            parts = {
                t.name: {
                    word: ", ".join(getattr(t, word))
                    for word in ("subsets", "splits")
                    if getattr(t, word)
                }
                for t in tasks
            }
            return {"kind": "suite", "name": name, "about": "a benchmark of mteb", "tasks": parts}
        raise unknown(
            "encoder, suite or task",
            name,
            [*encoder_names(), *SUITES, *TASKS],
            hint="(see `bench list`)",
        )
    task: Any = load_task(name)
    plain = {
        word: getattr(task, word) for word in ("family", "metric", "readout", "version", "limit")
    }
    return {
        "kind": "task",
        "name": task.name,
        "about": getattr(task, "about", ""),
        **plain,
        "needs": task.needs.__name__,
    }


def _abilities(made: Any) -> Row:  # noqa: ANN401 - any encoder
    """Return an encoder's settings, with what its class says of each, and the protocols beyond ``Encoder`` that it satisfies."""
    from bench import encoder
    from bench.registry import field_names

    docs = "\n".join(getdoc(each) or "" for each in reversed(type(made).__mro__))
    said = dict(re.findall(r"^ {4}(\w+): (.+(?:\n {6,}.+)*)", docs, re.MULTILINE))
    protocols = getmembers(
        encoder, lambda each: encoder.Encoder in getattr(each, "__mro__", ())[1:]
    )
    return {
        "follows_instructions": made.follows_instructions,
        "instructed_sides": list(encoder.instructed_sides(made)),
        "offers": [name for name, protocol in protocols if isinstance(made, protocol)],
        "settings": {
            n: {"default": getattr(made, n), "about": " ".join(said.get(n, "").split())}
            for n in field_names(made)
        },
    }


def _show(row: Row) -> None:
    settings, tasks = row.pop("settings", {}), row.pop("tasks", {})
    for key, value in row.items():
        words = (
            ", ".join(value)
            if isinstance(value, list)
            else value
            if isinstance(value, str)
            else json.dumps(value)
        )
        if words not in {"", "null"}:
            print(f"{key.replace('_', ' ')}: {words}")
    for name, setting in settings.items():
        print(f"  {name} = {json.dumps(setting['default'], ensure_ascii=False)}")
        if setting["about"]:
            print(
                fill(
                    setting["about"],
                    get_terminal_size().columns,
                    initial_indent=" " * 6,
                    subsequent_indent=" " * 6,
                )
            )
    for name, changes in tasks.items():
        print(
            f"  {name:<{max(map(len, tasks))}}  {', '.join(f'{field}={value}' for field, value in changes.items())}".rstrip()
        )


def _show_all(rows: list[Row]) -> None:
    from bench.tasks.own import KINDS

    further = {
        "encoder": {
            "NAME:PATH_OR_ID": "another checkpoint of a method",
            "package.module:Class": "an encoder of your own",
        },
        "suite": {},
        "task": {
            "NAME@LAYER": "another layer of token states, such as mrpc-bertscore@20 or wnut17@0",
            "ner:FOLDER": f"your own entities in CoNLL files; so are {', '.join(kind for kind in KINDS if kind != 'ner')}",
            "package.module:TASK": "a task of your own",
        },
    }
    notes = {
        "encoder": "* = in `--model all`",
        "suite": "* = default; any benchmark of mteb works by its name too",
        "task": "so does any task of mteb",
    }
    width = max(len(row["name"]) for row in rows)
    for kind, note in notes.items():
        print(f"{kind}s ({note}; more on one: bench list NAME)")
        for row in rows:
            if row["kind"] == kind:
                print(
                    f"  {'*' if row.get('default') else ' '} {row['name']:<{width}}  {row['about']}"
                )
        for name, about in further[kind].items():
            print(f"    {name:<{width}}  {about}")
