"""Tasks by name: our own, and any of mteb's; and suites, which name the tasks of one purpose.

A module of this package that has a tuple ``TASKS`` adds these tasks: nothing else lists them; a
module of another package does so by an entry point of the group ``bench.tasks``. Suites are in
``suites.toml``.
"""

import importlib
import logging
import pkgutil
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from importlib.resources import files
from typing import Any

from bench.errors import UsageError, one_line, unknown
from bench.importing import import_object, instantiate, module_hint
from bench.task import Task, missing_parts

log = logging.getLogger(__name__)

GROUP = "bench.tasks"
"""Group of entry points that name modules of other packages with a tuple ``TASKS``."""


def _find_tasks() -> dict[str, Task]:
    found: dict[str, Task] = {}
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        tasks = getattr(importlib.import_module(module.name), "TASKS", ())
        found |= {task.name: task for task in tasks}
    for point in entry_points(group=GROUP):
        for task in _load_tasks_of(point):
            if task.name in found:
                log.warning("%s is left out: %s names an existing task", task.name, point.value)
            found.setdefault(task.name, task)
    return found


def _load_tasks_of(point: EntryPoint) -> list[Task]:
    """Return the tasks of another package's module; none, with a warning, where it is broken."""
    try:
        tasks = [_check_task(task, point.value) for task in point.load().TASKS]
    except Exception as error:  # noqa: BLE001 - a broken package must not hide the others
        log.warning("tasks of %s are left out: %s", point.value, one_line(error))
        return []
    return tasks


def _check_task(target: Any, name: str) -> Task:  # noqa: ANN401 - whatever the name stands for
    """Return a task, or what a class or function without arguments makes of one.

    Raises:
        UsageError: It is no task.
    """
    is_task = not isinstance(target, type) and not missing_parts(target)
    task: Any = target if is_task else instantiate(target, name)
    missing = missing_parts(task)
    if not is_dataclass(task) or missing or "limit" not in {f.name for f in fields(task) if f.init}:
        raise UsageError(
            f"{name!r} gives a {type(task).__name__}, which is no task: expected a frozen "
            "dataclass of bench.task.Task, or with its attributes, limit among the fields"
        )
    return task  # type: ignore[return-value]


TASKS: Mapping[str, Task] = _find_tasks()
"""Our own tasks by name; mteb's are not listed."""

_SUITES = tomllib.loads(files(__name__).joinpath("suites.toml").read_text(encoding="utf-8"))

SUITES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    name: suite["tasks"] for name, suite in _SUITES.items()
}
"""Suites by name: for each of its tasks, by name, the fields that differ from that task's."""


def task_names() -> tuple[str, ...]:
    """Return the names of our own tasks."""
    return tuple(TASKS)


def describe_task(name: str) -> str:
    """Return one line about one of our own tasks."""
    return TASKS[name].about


def describe_suite(name: str) -> str:
    """Return one line about a suite."""
    return str(_SUITES[name]["about"])


def load_task(name: str, *, limit: int | None = None) -> Task:
    """Return the task called by a name.

    Args:
        name: One of our own, with ``@LAYER`` after it for another layer of token states;
            ``ner:FOLDER`` and the like for files of one's own (``bench.tasks.own``);
            ``package.module:TASK``, a task or what makes one; or a task of mteb.
        limit: At most this many test examples.

    Raises:
        UsageError: There is no such task, it reads no layer, or its module cannot be imported.
    """
    from bench.tasks.own import KINDS, own_task

    kind, _, folder = name.partition(":")
    if kind in KINDS and folder:
        return replace(own_task(kind, folder), limit=limit)
    if (target := import_object(name)) is not None:
        return _limit(_check_task(target, name), limit)
    head, at, layer = name.partition("@")
    if head not in TASKS:
        return _load_mteb(name, limit)
    task: Any = replace(TASKS[head], limit=limit)
    if not at:
        return task  # type: ignore[no-any-return]
    if not hasattr(task, "layer") or not layer.removeprefix("-").isdecimal():
        raise UsageError(
            "expected a task on token states and a layer number, such as mrpc-bertscore@20, "
            f"got {name!r}"
        )
    return replace(task, layer=int(layer))  # type: ignore[no-any-return]


def load_suite(name: str, *, limit: int | None = None) -> tuple[Task, ...]:
    """Return the tasks of a suite.

    Args:
        name: One of ours, or a benchmark of mteb such as "MTEB(eng, v2)".
        limit: At most this many test examples of each task; a lower limit of the suite's own stays.

    Raises:
        UsageError: There is no such suite.
    """
    from bench.tasks.mteb import MtebTask, benchmark

    if name in SUITES:
        chosen = SUITES[name].items()
        tasks = [replace(TASKS.get(task) or MtebTask(task), **diff) for task, diff in chosen]
    elif not (tasks := list(benchmark(name))):
        raise _unknown_suite(name)
    return tuple(_limit(task, limit) for task in tasks)


def check_names(tasks: Iterable[str], suites: Iterable[str] = ()) -> None:
    """Refuse names that are of no task or suite, without importing anything slow.

    Args:
        tasks: Names as for ``load_task``.
        suites: Names as for ``load_suite``.

    Raises:
        UsageError: There is no such task or suite.
    """
    from bench.tasks.mteb.names import is_mentioned

    for name in tasks:
        if ":" not in name and name.partition("@")[0] not in TASKS and not is_mentioned(name):
            raise _unknown_task(name)
    for name in suites:
        if name not in SUITES and not is_mentioned(name):
            raise _unknown_suite(name)


def load_tasks(
    tasks: Sequence[str | Task],
    suites: Iterable[str] = (),
    *,
    exclude: Iterable[str] = (),
    limit: int | None = None,
    instruction: str = "",
    wordings: int | None = None,
) -> list[Task]:
    """Return tasks and the tasks of suites, each once; those of "quick" where none are named.

    Args:
        tasks: Tasks, or names as for ``load_task``.
        suites: Names as for ``load_suite``.
        exclude: Names of tasks among them to leave out.
        limit: At most this many test examples of each task that is named.
        instruction: Replaces the instruction of each task in ``tasks``; "" leaves it.
        wordings: Score tasks with an instruction under so many wordings of it; None for one.

    Raises:
        UsageError: There is no such task or suite, or none is left; or a task takes no instruction,
            or no task is named for it.
    """
    from bench.tasks.reworded import reword

    if instruction and not tasks:
        raise UsageError(
            "--instruction replaces that of the tasks named by --task, got none: name them"
        )
    found = [load_task(task, limit=limit) if isinstance(task, str) else task for task in tasks]
    if instruction:
        found = [_instruct(task, instruction) for task in found]
    for suite in suites or (() if found else ("quick",)):
        found += load_suite(suite, limit=limit)
    found = _without(found, set(exclude))
    if wordings:
        found = [reword(task, wordings) for task in found]
    return [task for i, task in enumerate(found) if task not in found[:i]]


def _without(tasks: Sequence[Task], excluded: set[str]) -> list[Task]:
    names = {task.name for task in tasks}
    for name in excluded - names:
        raise unknown("task in this run", name, names)
    if names and names == excluded:
        raise UsageError("expected a task to be left, got all of them excluded: name fewer")
    return [task for task in tasks if task.name not in excluded]


def _load_mteb(name: str, limit: int | None) -> Task:
    from bench.tasks.mteb import MtebTask, known_task

    if not known_task(name):
        raise _unknown_task(name)
    return MtebTask(name, limit=limit)


def _unknown_task(name: str) -> UsageError:
    from bench.tasks.mteb.names import list_tasks

    hint = (
        "(see `bench list`, or give package.module:TASK; any mteb task works where mteb is "
        "installed)"
    )
    return unknown("task", name, {*TASKS, *list_tasks()}, hint=module_hint(name, hint))


def _unknown_suite(name: str) -> UsageError:
    from bench.tasks.mteb.names import list_benchmarks

    hint = "(any mteb benchmark works where mteb is installed)"
    return unknown("suite", name, {*SUITES, *list_benchmarks()}, hint=hint)


def _instruct(task: Task, instruction: str) -> Task:
    if "instruction" not in {f.name for f in fields(task) if f.init}:
        raise UsageError(f"{task.name} takes no instruction: leave out --instruction")
    return replace(task, instruction=instruction)


def _limit(task: Task, limit: int | None) -> Task:
    """Return the task with a limit, its own where that is lower."""
    limits = [n for n in (limit, task.limit) if n is not None]
    return replace(task, limit=min(limits, default=None))
