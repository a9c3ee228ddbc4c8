"""Names of mteb's tasks and benchmarks from its files: importing mteb takes seconds."""

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_NAMED = re.compile(r'\bname="([^"\n]+)"')


def is_mentioned(name: str) -> bool:
    """Say whether mteb may have a task or benchmark of this name: whether it writes it anywhere."""
    quoted = f'"{name}"'
    return name in _measured() or quoted in _source("tasks") or quoted in _source("benchmarks")


def list_tasks() -> set[str]:
    """Return the names of mteb's tasks, and a few others; none where mteb is not installed."""
    return {*_measured(), *_NAMED.findall(_source("tasks"))}


def list_benchmarks() -> set[str]:
    """Return the names of mteb's benchmarks; none where it is not installed."""
    return set(_NAMED.findall(_source("benchmarks")))


def _root() -> Path | None:
    spec = find_spec("mteb")
    places = spec.submodule_search_locations if spec else None
    return Path(places[0]) if places else None


@cache
def _measured() -> frozenset[str]:
    """Return the names of the tasks whose sizes mteb states, one file each."""
    root = _root()
    files = root.glob("descriptive_stats/**/*.json") if root else ()
    return frozenset(path.stem for path in files)


@cache
def _source(folder: str) -> str:
    """Return the source of a package of mteb's and of how it finds tasks."""
    root = _root()
    if root is None:
        return ""
    files = [*sorted((root / folder).rglob("*.py")), root / "get_tasks.py"]
    return "\n".join(file.read_text(encoding="utf-8") for file in files)
