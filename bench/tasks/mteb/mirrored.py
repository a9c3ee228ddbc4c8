"""The data of mteb's tasks in a mirror: as mteb has loaded it, at its revision.

A task is a folder ``mteb-tasks/<name>/<revision>`` with a file for each subset and split: tables as
Parquet, judgements and candidates as JSON. So a task whose class loads its data in its own way is
mirrored, too.
"""

import inspect
import json
import os
import re
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.data.assets import note_need
from bench.errors import DataError, Unavailable
from bench.files import temporary_folder
from bench.tasks.mteb.isolated import without_bars

if TYPE_CHECKING:
    from mteb import AbsTask

SEED = 42
"""mteb's own, with which a mirror is made."""

_TABLE, _VALUE = ".parquet", ".json"
_RANDOM = {"seed", "rng_state", "np_rng"}  # of a task


def note(task: "AbsTask", place: Path | None = None) -> None:
    """Note that a task's data is needed, read from a folder of a mirror or from the hub."""
    note_need(_path(task), place, lambda target: save(task, target))


def save(task: "AbsTask", target: Path) -> None:
    """Write the loaded data of a task as a folder, whole or not at all.

    Raises:
        OSError: It cannot be written.
    """
    if not isinstance(task.dataset, Mapping):  # the layout of earlier releases
        task.convert_v1_dataset_format_to_v2(num_proc=None)
    with without_bars(), temporary_folder(target.parent) as work:
        _write(task.dataset, work / "data")
        _add(target, work / "data")
        if target.is_dir():
            target.replace(work / "old")
        (work / "data").replace(target)


def restore(task: "AbsTask") -> bool:
    """Load a task's data from the mirror under ``$BENCH_DATA``; return whether it has all of it.

    Raises:
        DataError: A file is broken.
        Unavailable: The mirror has what another seed has drawn.
    """
    folder = Path(os.environ.get("BENCH_DATA") or os.devnull) / _path(task)
    single = "default" if (folder / "default").is_dir() else ""  # retrieval has one more level
    # parallel texts are one table for all pairs of languages
    by_subset = task.metadata.is_multilingual and not getattr(task, "parallel_subsets", False)
    subsets = task.hf_subsets if by_subset else [single]
    needed = product(subsets, task.eval_splits)
    wanted = [folder / _name(subset) / _name(split) for subset, split in needed]
    if not wanted or not all(_is_there(path) for path in wanted):
        return False
    if task.seed != SEED and _draws_by_seed(task):
        raise Unavailable(
            f"{task.metadata.name}: the mirror has the data that seed {SEED} draws, not that of "
            f"seed {task.seed}: run it with --seed {SEED}, or without the mirror"
        )
    try:
        with without_bars():
            task.dataset = _read(folder)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{folder} is damaged ({reason}): copy the mirror again, or make it again with "
            f"`bench data mirror DIR --task {task.metadata.name}`"
        ) from error
    if by_subset:
        task.dataset = {subset: task.dataset[subset] for subset in subsets}
    task.data_loaded = True
    note(task, folder)
    return True


def _draws_by_seed(task: "AbsTask") -> bool:
    """Say whether the code of a task, without that of its kind, names its seed."""
    own = [vars(c) for c in type(task).__mro__ if not c.__module__.startswith("mteb.abstasks")]
    functions = [f for names in own for f in names.values() if inspect.isfunction(f)]
    return any(_RANDOM.intersection(function.__code__.co_names) for function in functions)


def _path(task: "AbsTask") -> str:
    revision = task.metadata.dataset.get("revision") or "none"
    return f"mteb-tasks/{_name(task.metadata.name)}/{_name(str(revision))}"


def _name(key: str) -> str:
    """Return a key as the name of a file; mteb's names of subsets and splits are plain."""
    return re.sub(r"[^\w.+ ()-]", "_", key)


def _is_there(path: Path) -> bool:
    files = [path.with_name(path.name + ending) for ending in (_TABLE, _VALUE)]
    return path.is_dir() or any(file.is_file() for file in files)


def _write(tree: Any, path: Path, levels: int = 2) -> None:  # noqa: ANN401 - tables and values
    """Write nested mappings, of which the first levels, subsets and splits, are folders."""
    from datasets import Dataset

    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(tree, Dataset):
        tree.to_parquet(str(path.with_name(path.name + _TABLE)))
    elif isinstance(tree, Mapping) and (levels or any(map(_is_branch, tree.values()))):
        path.mkdir(exist_ok=True)
        for key, branch in tree.items():
            _write(branch, path / _name(str(key)), max(0, levels - 1))
    else:
        text = json.dumps(tree, ensure_ascii=False)
        path.with_name(path.name + _VALUE).write_text(text, encoding="utf-8")


def _is_branch(value: object) -> bool:
    """Say whether a value is a table, or a mapping that has one somewhere below."""
    from datasets import Dataset

    below = isinstance(value, Mapping) and any(map(_is_branch, value.values()))
    return isinstance(value, Dataset) or below


def _read(folder: Path) -> Any:  # noqa: ANN401 - as ``_write`` took it
    from datasets import Dataset, DatasetDict

    tree: dict[str, Any] = {}
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            tree[path.name] = _read(path)
        elif path.suffix == _TABLE:
            tree[path.name.removesuffix(_TABLE)] = Dataset.from_parquet(
                str(path), cache_dir=None, keep_in_memory=True
            )
        elif path.suffix == _VALUE:
            value = json.loads(path.read_text(encoding="utf-8"))
            tree[path.name.removesuffix(_VALUE)] = value
    tables = all(isinstance(branch, Dataset) for branch in tree.values())
    return DatasetDict(tree) if tables else tree


def _add(before: Path, work: Path) -> None:
    """Add the subsets and splits that a mirror has already and the loaded data has not."""
    for path in sorted(before.rglob("*")) if before.is_dir() else ():
        target = work / path.relative_to(before)
        if path.is_file() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.hardlink_to(path)
