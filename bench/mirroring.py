"""Mirrors: a folder with everything that runs and trainings read, for machines without internet.

What is needed is found by reading it as a run or a training does, so no list of it can be wrong.
``mirror.json`` in the folder has the sha256 of every file, by what was written together.
"""

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from bench import data
from bench.data import hub
from bench.data.assets import Archive, Need, note_archive, watch_needs
from bench.data.catalog import DataSet
from bench.data.supply import choose
from bench.encoder import Encoder, read_files
from bench.errors import DataError, UsageError, one_line
from bench.files import sha256_of, write_atomic
from bench.process import environment, raise_if_stopped
from bench.recipe import Recipe
from bench.task import NetworkTask, Task

log = logging.getLogger(__name__)

_MANIFEST = "mirror.json"
_BESIDE = ("features.json", "revisions.json")  # files that belong to all of their folder

MirrorOutcome = tuple[str, str]
"""A file, folder or name, and what became of it."""


@dataclass(frozen=True)
class Wanted:
    """What is to work without a network.

    Attributes:
        encoders: Encoders by name.
        tasks: Tasks.
        recipes: Recipes by name.
        data: Names of archives and data sets, as ``bench.data.supply.fetch_all`` takes them.
    """

    encoders: Mapping[str, Encoder] = field(default_factory=dict)
    tasks: Sequence[Task] = ()
    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    data: Sequence[str] = ()

    def readings(self) -> "Iterator[tuple[str, Callable[[], list[str]]]]":
        """Yield names with functions that read all that is needed, and return what is missing.

        Raises:
            UsageError: A name of data is not in the catalogue.
        """
        archives, sets = choose(self.data) if self.data else ([], [])
        for archive in archives:
            yield archive.name, partial(_read_archive, archive)
        for known in sets:
            for split in known.splits:
                yield f"{known.name}:{split}", partial(_read_split, known, split)
        for task in self.tasks:
            yield task.name, partial(_read_task, task)
        for name, encoder in self.encoders.items():
            yield name, partial(_read_encoder, encoder)
        for name, recipe in self.recipes.items():
            yield f"recipe {name}", partial(_read_recipe, recipe)


def mirror(target: Path, wanted: Wanted) -> Iterator[MirrorOutcome]:
    """Write all that encoders, tasks and recipes read into a folder for ``--data``.

    An interrupted call leaves no partial file; the same call goes on where it was.

    Args:
        target: The folder; it is created.
        wanted: What is to work with it.

    Yields:
        Each file or folder with "written" or "present", and the names of what cannot be read with
        "unavailable: REASON".

    Raises:
        UsageError: The folder cannot be written, or a name of data is not in the catalogue.
        DataError: Its list of files is broken.
    """
    hashes = _read_manifest(target)
    for path, file in _find_damaged(target, hashes):
        log.warning("%s is damaged or gone, and is made again", target / file)
        _remove(target / path)
        hashes.pop(path, None)

    def keep(need: Need) -> str:
        if _is_inside(need.place, target):
            return "present"
        try:
            need.write(target / need.path)
            hashes.update(_hash_files(target, need.path))
            write_atomic(target / _MANIFEST, json.dumps(hashes, indent=1, sort_keys=True) + "\n")
        except OSError as error:
            raise UsageError(
                f"cannot write {target / need.path}: {error.strerror}; choose another folder"
            ) from error
        return "written"

    with data.use_folder(os.environ.get("BENCH_DATA") or target):
        yield from _read_all(wanted, keep)


def check(folder: Path, wanted: Wanted) -> Iterator[MirrorOutcome]:
    """Say what encoders, tasks and recipes read and a mirror lacks, without a network.

    Args:
        folder: The mirror.
        wanted: What is to work with it.

    Yields:
        Each file or folder with "present" or "missing", the names of what cannot be read with
        "unavailable: REASON", and the files that are not as they were written with "damaged".

    Raises:
        DataError: The mirror's list of files is broken.
        UsageError: Nothing is wanted, and the folder has no such list.
    """
    hashes = _read_manifest(folder)
    if not hashes and wanted == Wanted():
        raise UsageError(
            f"expected what to check, or a mirror with its list of files, got {folder} without "
            f"{_MANIFEST}: name what it is for with --model, --suite, --task or --recipe"
        )
    for _, file in _find_damaged(folder, hashes):
        yield file, "damaged: make it again with `bench data mirror`"
    no_index = environment({"PIP_NO_INDEX": "1"})  # pip asks none
    with data.use_folder(folder), hub.offline(), no_index:
        yield from _read_all(
            wanted, lambda need: "present" if _is_inside(need.place, folder) else "missing"
        )


def _read_all(wanted: Wanted, handle: Callable[[Need], str]) -> Iterator[MirrorOutcome]:
    """Yield each need, once, with what a function makes of it, and what cannot be read."""
    outcomes: dict[str, str] = {}

    def hear(need: Need) -> None:
        if need.path not in outcomes:
            outcomes[need.path] = handle(need)

    for name, read in wanted.readings():
        told = len(outcomes)
        with watch_needs(hear):
            try:
                missing = read()
            except UsageError:
                raise
            except Exception as error:  # noqa: BLE001 - the others are read all the same
                raise_if_stopped()
                missing = [one_line(error)]
        yield from list(outcomes.items())[told:]
        for reason in missing:
            yield name, f"unavailable: {reason}"


def _read_archive(archive: Archive) -> list[str]:
    note_archive(archive)
    return []


def _read_split(known: DataSet, split: str) -> list[str]:
    data.load(known.id, split, config=known.config)
    return []


def _read_task(task: Task) -> list[str]:
    items = list(task.items(seed=42)) if hasattr(task, "items") else []
    if not items and isinstance(task, NetworkTask):
        task.load(42)
    return []


def _read_encoder(encoder: Encoder) -> list[str]:
    read_files(encoder)
    return []


def _read_recipe(recipe: Recipe) -> list[str]:
    missing: list[str] = []

    def load(name: str, split: str, **options: Any) -> Any:  # noqa: ANN401 - as data.load
        try:
            return data.load(name, split, **options)
        except Exception as error:  # noqa: BLE001 - the other sets are read all the same
            raise_if_stopped()
            missing.append(one_line(error))
            return None

    fetch = getattr(recipe, "fetch", None)
    if fetch is None:
        return [f"{type(recipe).__name__} has no method fetch, which reads what it needs"]
    try:
        fetch(load)
    except Exception as error:  # noqa: BLE001 - so are those that were missing before
        raise_if_stopped()
        missing.append(one_line(error))
    return missing


def _is_inside(place: Path | None, folder: Path) -> bool:
    return place is not None and place.resolve().is_relative_to(folder.resolve())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def _read_manifest(folder: Path) -> dict[str, dict[str, str]]:
    path = folder / _MANIFEST
    if not path.is_file():
        return {}
    try:
        hashes = json.loads(path.read_bytes())
    except (OSError, ValueError):
        hashes = None
    if not isinstance(hashes, dict) or not all(map(_is_entry, hashes, hashes.values())):
        raise DataError(f"{path} is no list of files: delete it, and make the mirror again")
    return hashes


def _is_entry(path: str, files: object) -> bool:
    """Say whether a path and its files are in the folder: damaged ones are removed."""
    if not isinstance(files, dict):
        return False
    places = [PurePosixPath(each) for each in (path, *files)]
    return not any(p.is_absolute() or ".." in p.parts or not p.parts for p in places)


def _find_damaged(folder: Path, hashes: Mapping[str, Mapping[str, str]]) -> list[tuple[str, str]]:
    """Return files that are gone or have another content, each after what it was written with."""
    found = []
    for path, files in hashes.items():
        damaged = [file for file, sha256 in files.items() if _sha256(folder / file) != sha256]
        found += [(path, file) for file in damaged]
    return found


def _hash_files(root: Path, path: str) -> dict[str, dict[str, str]]:
    """Return the hashes of what was written at a path, and of files that it shares with others."""
    place = root / path
    files = [each for each in place.rglob("*") if each.is_file()] if place.is_dir() else [place]
    hashes = {path: {each.relative_to(root).as_posix(): _sha256(each) for each in files}}
    for name in _BESIDE:
        if (beside := place.with_name(name)).is_file():
            shared = beside.relative_to(root).as_posix()
            hashes[shared] = {shared: _sha256(beside)}
    return hashes


def _sha256(path: Path) -> str:
    """Return the sha256 of a file, in hex; "" where there is none."""
    try:
        return sha256_of(path)
    except OSError:
        return ""
