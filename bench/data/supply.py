"""What tasks and encoders need: list it, and fetch it."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from bench.data import assets, find_local_file, load, relative_path
from bench.data.assets import ARCHIVES, Archive
from bench.data.catalog import CATALOG, WEIGHTS, DataSet, set_name
from bench.errors import DataError, Unavailable, unknown


@dataclass(frozen=True)
class CatalogRow:
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

    @property
    def name(self) -> str:
        """The id with its configuration."""
        return set_name(self.id, self.config)


def catalog_names() -> list[str]:
    """Return the names of archives and data sets, as ``fetch_all`` takes them."""
    return [*ARCHIVES, *(known.name for known in CATALOG.values())]


def catalog_rows() -> list[CatalogRow]:
    """Return what tasks and encoders need and where it would come from, without a network."""
    entries = []
    for known in CATALOG.values():
        rows = sum(known.splits.values()) if all(known.splits.values()) else None
        package = ARCHIVES[known.archive].licence if known.archive else ""
        terms = package, known.licence, _origin(known)
        entries.append(
            CatalogRow(known.id, known.config, tuple(known.splits), rows, "data", *terms)
        )
    for archive in WEIGHTS:
        terms = archive.licence, "", _archive_origin(archive)
        entries.append(CatalogRow(archive.name, "", (), None, "weights", *terms))
    return entries


def fetch_all(names: Sequence[str] | None = None) -> Iterator[tuple[str, str]]:
    """Fetch archives and data sets.

    Args:
        names: Archives and data sets (``org/name`` or ``org/name/config``, with ``:split`` after
            it for any set of the hub); None or none for all that can be fetched.

    Yields:
        The name of each, with "present", "fetched" or "unavailable: REASON".

    Raises:
        UsageError: A name is not in the catalogue.
    """
    archives, sets = choose(names)
    for archive in archives:
        present = assets.is_available(archive)
        yield archive.name, "present" if present else _try(_fetch, archive)
    for known in sets:
        if names or (known.hub and not known.archive):
            for split in known.splits:
                path = relative_path(known.id, split, known.config)
                yield path.removesuffix(".jsonl.gz"), _try(_load, known, split)


def choose(names: Sequence[str] | None) -> tuple[list[Archive], list[DataSet]]:
    """Return the archives and data sets of some names, as ``fetch_all`` takes them, or all.

    Raises:
        UsageError: A name is not in the catalogue.
    """
    if not names:
        return list(ARCHIVES.values()), list(CATALOG.values())
    archives, sets = [], []
    for name in names:
        found = [known for known in CATALOG.values() if name in {known.id, known.name}]
        found = found or _parse_hub_name(name)
        if not found and name not in ARCHIVES:
            known_names = [*ARCHIVES, *(known.id for known in CATALOG.values())]
            raise unknown("data set or archive", name, known_names, hint="(see `bench data list`)")
        sets += found
        archives += [ARCHIVES[name]] if name in ARCHIVES else []
    return archives, sets


def _parse_hub_name(name: str) -> list[DataSet]:
    """Return the data set of a name such as "org/name:train" or "org/name/config:train", if any."""
    match = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:/([\w.-]+))?:([\w.-]+)", name)
    if not match:
        return []
    id_, config, split = match[1], match[2] or "", match[3]
    known = CATALOG.get((id_, config), DataSet(id_, config))
    return [replace(known, splits={split: known.splits.get(split, 0)})]


def _try(act: Callable[..., str], *args: Any) -> str:  # noqa: ANN401 - passed on
    try:
        return act(*args)
    except (Unavailable, DataError) as error:
        return f"unavailable: {error}"


def _fetch(archive: Archive) -> str:
    assets.fetch(archive)
    return "fetched"


def _load(known: DataSet, split: str) -> str:
    source = load(known.id, split, config=known.config).pin["source"]
    return "present" if source == "local" else "fetched"


def _origin(known: DataSet) -> str:
    local = [s for s in known.splits if find_local_file(known.id, s, config=known.config)]
    if len(local) == len(known.splits):
        return "local"
    if known.archive:
        return _archive_origin(ARCHIVES[known.archive])
    if known.hub:
        return "hub"
    if local:
        return f"local: {', '.join(local)} only"
    return "nowhere: put it into the folder given as --data"


def _archive_origin(archive: Archive) -> str:
    if assets.is_available(archive):
        return "packaged, here"
    return f"packaged, {archive.bytes / 1e6:.1f} MB to fetch"
