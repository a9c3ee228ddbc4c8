"""Where training data comes from: data sets by name, and files."""

import gzip
import hashlib
import logging
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from bench.errors import DataError, Unavailable, UsageError
from bench.recipe import Load

log = logging.getLogger(__name__)

_TABLES = (".csv", ".tsv", ".parquet")
"""Endings of files of rows, which are read by their columns, beside those of JSON lines."""


@dataclass(frozen=True)
class Source:
    """A data set, or a file.

    Attributes:
        id: Its id, or a file's path.
        config: Its configuration.
        split: Its split.
        licence: Of the data.
    """

    id: str
    config: str = ""
    split: str = "train"
    licence: str = "as its owner says"

    @property
    def name(self) -> str:
        """The set with configuration and split, or the file."""
        if Path(self.id).is_file():
            return self.id
        return "/".join(filter(None, (self.id, self.config, self.split)))


def is_table(path: Path) -> bool:
    """Say whether a path is a file of rows other than JSON lines, compressed or not."""
    return path.name.removesuffix(".gz").endswith(_TABLES) and path.is_file()


def read_text(path: Path) -> tuple[str, dict[str, str]]:
    r"""Return a text file with ``\n`` at the end of lines, and the kind of source with its hash.

    The file may be compressed and begin with a byte order mark.

    Raises:
        DataError: It cannot be read, or is not in UTF-8.
    """
    try:
        raw = path.read_bytes()
        data = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{path} cannot be read ({reason}): expected JSON, JSON lines or text"
        ) from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"expected UTF-8 in {path}, got byte 0x{error.object[error.start]:02x} "
            f"at {error.start}: save it as UTF-8"
        ) from None
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return lines, {"source": "file", "sha256": hashlib.sha256(raw).hexdigest()}


S = TypeVar("S", bound=Source)
T = TypeVar("T")


def parse_sources(sources: str, kind: type[S]) -> list[S]:
    """Return the sources that a setting names, separated by commas.

    Each is a file, ``~`` expanded, ``id``, ``id:config`` or ``id:config:split``.

    Args:
        sources: The setting.
        kind: What to make of each; its other fields keep their defaults.

    Raises:
        UsageError: A name has more than an id, a configuration and a split.
    """
    found = []
    for name in filter(None, map(str.strip, sources.split(","))):
        path = Path(name).expanduser()
        parts = [str(path)] if path.is_file() else name.split(":")
        if len(parts) > 3:
            raise UsageError(
                f"expected a source as file, id, id:config or id:config:split, got {name!r}"
            )
        id_, config, split = [*parts, "", ""][:3]
        found.append(kind(id_, config, split or "train"))
    return found


def fetch_sources(sources: Sequence[Source], load: Load) -> None:
    """Load each source that is no file, and use none: what a mirror needs."""
    for source in sources:
        if not Path(source.id).is_file():
            load(source.id, source.split, config=source.config)


def read_sources(
    sources: Sequence[S], read: Callable[[S], T], *, what: str, setting: str = "sources"
) -> list[tuple[S, T]]:
    """Return the available sources, each with what was read of it; log a warning for others.

    Args:
        sources: Where from.
        read: Reads one of them; raises Unavailable where it is not available.
        what: What is expected, for the error.
        setting: The recipe's setting that names a user's own, for the error.

    Raises:
        Unavailable: None is available.
    """
    found, missing = [], []
    for source in sources:
        try:
            found.append((source, read(source)))
        except Unavailable as error:
            missing.append(f"{source.name}: {error}")
    if not found:
        why = next(iter(missing), "no source is named")
        raise Unavailable(
            f"expected {what}, got none; {why}; or name your own file with --set {setting}="
        )
    for reason in missing:
        log.warning("left out: %s", reason)
    return found
