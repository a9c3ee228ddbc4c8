"""``bench new``: a new method, with or without a recipe, or a new task, which work as written."""

import keyword
import re
import sys
from dataclasses import dataclass
from importlib.machinery import PathFinder
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Literal

from bench.errors import UsageError
from bench.files import temporary_folder, write_atomic
from bench.registry import DEFAULT_GROUP, GROUP, RECIPES
from bench.tasks import GROUP as TASKS

Kind = Literal["encoder", "recipe", "task"]
"""What is new: an encoder, an encoder with the recipe that trains it, or a task."""


@dataclass(frozen=True)
class _Destination:
    """Where new files go.

    Attributes:
        folder: The folder.
        package: Its name in imports, with a dot; "" for the working folder.
        project: The ``pyproject.toml`` that gets entry points; None outside a checkout.
    """

    folder: Path
    package: str
    project: Path | None


def write_new(name: str, root: Path, kind: Kind = "encoder") -> list[str]:
    """Write the files of a new method or task, and return what to do next.

    In a checkout of this project they go into its packages, with the entry points of a method;
    elsewhere into the folder itself.

    Args:
        name: Of the method or task, a Python name in lower case.
        root: The working folder.
        kind: What is new.

    Raises:
        UsageError: The name is not a Python name, or it is taken, also by a module of Python.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise UsageError(
            "expected a name of lower-case letters, digits and underscores that begins with a "
            f"letter and is no keyword, got {name!r}"
        )
    place = _find_place(root, kind)
    target = place.folder / f"{name}.py"
    public = name.replace("_", "-")
    if target.exists() or target.with_suffix("").exists() or _is_registered(public, place):
        raise UsageError(f"there is already a {_what(kind)} named {name!r}; choose another name")
    title = "".join(part.capitalize() for part in name.split("_"))
    module = f"{place.package}{name}"
    if not place.package and _is_module(name):
        raise UsageError(
            f"there is a Python module {name!r}, which would be imported instead: choose another "
            f"name, such as my_{name}"
        )
    if kind == "task":
        return _write_task(target, module, title, public, in_checkout=bool(place.project))
    return _write_method(target, module, title, public, place, trained=kind == "recipe")


def _what(kind: Kind) -> str:
    return "task" if kind == "task" else "method"


def _find_place(root: Path, kind: Kind) -> _Destination:
    project = root / "pyproject.toml"
    text = project.read_text(encoding="utf-8") if project.is_file() else ""
    if _heading(GROUP) not in text or not (root / "adapters").is_dir():
        return _Destination(root, "", None)
    if kind == "task":
        return _Destination(root / "bench" / "tasks", "bench.tasks.", project)
    return _Destination(root / "adapters", "adapters.", project)


def _heading(group: str) -> str:
    return f'[project.entry-points."{group}"]'


def _is_module(name: str) -> bool:
    """Say whether a module of this name would be imported instead of a new one."""
    return PathFinder.find_spec(name) is not None or name in sys.builtin_module_names


def _is_registered(public: str, place: _Destination) -> bool:
    text = place.project.read_text(encoding="utf-8") if place.project else ""
    return bool(re.search(rf"^{public} =", text, re.MULTILINE))


def _write_task(
    target: Path, module: str, title: str, public: str, *, in_checkout: bool
) -> list[str]:
    task = public if in_checkout else f"{module}:TASK"
    write_atomic(target, _fill("task", title=title, public=public, task=task))
    lines = [
        f"wrote {target}",
        f"try it now:        bench check --task {module}:TASK",
        f"run it:            bench run --model hashing --task {task}",
    ]
    if in_checkout:
        return lines
    entry = f'{public} = "my_package.{module}"'
    return [*lines, f"to name it, add to your package under {_heading(TASKS)}: {entry}"]


def _write_method(
    target: Path, module: str, title: str, public: str, place: _Destination, *, trained: bool
) -> list[str]:
    if trained:
        target = target.with_suffix("")
        entries = {GROUP: f"{module}.encoder:{title}", RECIPES: f"{module}.train:Recipe"}
        made = _make_folder(module, title, public, in_checkout=place.project is not None)
        with temporary_folder(target.parent) as folder:  # half a method would take the name
            for name, text in made.items():
                write_atomic(folder / target.name / name, text)
            (folder / target.name).replace(target)
    else:
        entries = {GROUP: f"{module}:{title}"}
        write_atomic(target, _fill("encoder", title=title, imports="", trained=""))
    encoder = entries[GROUP]
    lines = [f"wrote {target}", f"try it now:        bench check --model {encoder}"]
    if trained:
        lines.append(f"try its recipe:    bench check --recipe {entries[RECIPES]}")
        lines.append(f"train it:          bench train {entries[RECIPES]} --budget 20000")
    if place.project is None:
        lines.append(f"run it:            bench run --model {encoder} --suite quick")
        for group, value in entries.items():
            entry = f'{public} = "my_package.{value}"'
            lines.append(f"to name it, add to your package under {_heading(group)}: {entry}")
        return lines
    _register(place.project, public, entries)
    lines.append(f"register its name: pip install --no-deps -e .   (then `--model {public}` works)")
    lines.append(f"to have it in `--model all`, move its line to {_heading(DEFAULT_GROUP)} first")
    return lines


def _make_folder(module: str, title: str, public: str, *, in_checkout: bool) -> dict[str, str]:
    """Return the files of a method with a recipe, by name."""
    imported = f"from {module}.encoder import frame, pool\n"
    encoder = _fill(
        "encoder",
        title=title,
        imports="from pathlib import Path\n",
        trained="trained=Path(self.checkpoint).is_dir()",
    )
    train = _fill(
        "train",
        title=title,
        public=public,
        package=module,
        encoder=f"{module}.encoder:{title}",
        inside=imported if in_checkout else "",  # where isort puts it
        outside="" if in_checkout else f"\n{imported}",
    )
    about = f'"""{title}: its encoder, and its training."""\n'
    return {"__init__.py": about, "encoder.py": encoder, "train.py": train}


def _register(project: Path, public: str, entries: dict[str, str]) -> None:
    """Add an entry point to each group of a ``pyproject.toml``."""
    text = project.read_text(encoding="utf-8")
    for group, value in entries.items():
        text = text.replace(_heading(group), f'{_heading(group)}\n{public} = "{value}"', 1)
    write_atomic(project, text)


def _fill(template: str, **words: str) -> str:
    """Return a template with its words filled in.

    Raises:
        UsageError: The class has the name of a constant, or of what the file imports.
    """
    text = files("bench.cli").joinpath("templates", f"{template}.txt").read_text(encoding="utf-8")
    filled = Template(text).substitute(words)
    title, imports = words["title"], re.findall(r"^from \S+ import (.+)$", filled, re.MULTILINE)
    if keyword.iskeyword(title) or title in ", ".join(imports).split(", "):
        raise UsageError(
            f"a class {title} would hide what the new file uses: choose another name, such as "
            f"my_{title.lower()}"
        )
    return filled
