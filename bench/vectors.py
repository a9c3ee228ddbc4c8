"""The store of vectors: LMDB, one file, safe for many processes, readable while another writes."""

import contextlib
import logging
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import lmdb

log = logging.getLogger(__name__)


class Vectors:
    """Encoded records by key: on disk in a folder, in memory where there is no folder or it cannot be written.

    Args:
        root: Folder of the store, made when needed; None keeps everything in memory.
        limit: Bytes on disk above which the encoders unused for longest are dropped.
    """

    def __init__(self, root: Path | None, *, limit: int = 8 << 30) -> None:
        self.limit = limit
        self._memory: dict[bytes, bytes] = {}
        self._stamped: set[bytes] = set()
        self._disk = _opened(root, limit) if root is not None else None

    def get(self, keys: Iterable[bytes]) -> Iterator[bytes | None]:
        """Yield the record of each key, or None."""
        if self._disk is None:
            yield from map(self._memory.get, keys)
            return
        asked = list(keys)
        self._stamp(asked)
        with self._disk.begin() as read:
            for key in asked:
                yield self._memory.get(key) or read.get(key)

    def put(self, records: dict[bytes, bytes]) -> None:
        """Keep the records, all of one encoder; when the disk refuses, in memory until the process ends."""
        if self._disk is not None:
            try:
                self._make_room(sum(map(len, records.values())), keep=next(iter(records))[:8])
                with self._disk.begin(write=True) as write:
                    write.cursor().putmulti(records.items())
                    write.put(b"used" + next(iter(records))[:8], struct.pack(">d", time.time()))
            except lmdb.Error as error:
                log.warning(
                    "embeddings are kept in memory only, the cache cannot be written: %s", error
                )
            else:
                return
        self._memory.update(records)

    def _stamp(self, keys: Sequence[bytes]) -> None:
        """Note, once a process, that the encoders of these keys are in use."""
        new = {key[:8] for key in keys} - self._stamped
        self._stamped |= new
        if self._disk is not None and new:
            with (
                contextlib.suppress(lmdb.Error),
                self._disk.begin(write=True) as write,
            ):  # a cache that is read only has no ages
                write.cursor().putmulti(
                    [(b"used" + name, struct.pack(">d", time.time())) for name in new]
                )

    def close(self) -> None:
        """Close the file; the records on disk stay."""
        if self._disk is not None:
            self._disk.close()

    def _make_room(self, size: int, *, keep: bytes) -> None:
        disk = self._disk
        assert disk is not None  # noqa: S101 - for the type checker; put asks first
        while _used(disk) + size > self.limit:
            with disk.begin(write=True) as write:
                cursor = write.cursor()
                ages = sorted(
                    (when, name[4:])
                    for name, when in _prefixed(cursor, b"used")
                    if name[4:] != keep
                )  # big-endian: bytes sort as times
                if not ages:
                    raise lmdb.MapFullError(
                        f"one encoder alone needs more than the limit of {self.limit} bytes"
                    )
                oldest = ages[0][1]
                for key in [k for k, _ in _prefixed(cursor, oldest)]:
                    write.delete(key)
                write.delete(b"used" + oldest)
            log.info(
                "dropped the embeddings of encoder %s from the cache to make room", oldest.hex()
            )


def _opened(root: Path, limit: int) -> lmdb.Environment | None:
    for readonly in (False, True):
        try:
            if not readonly:
                root.mkdir(parents=True, exist_ok=True)
            # Twice the limit: deleting needs free pages too. The file is sparse, so the map costs nothing until used.
            return lmdb.open(
                str(root),
                map_size=2 * limit + (64 << 20),
                readonly=readonly,
                metasync=False,
                lock=not readonly,
                max_readers=512,
            )
        except (lmdb.Error, OSError) as error:
            log.warning(
                "the cache at %s cannot be %s: %s", root, "read" if readonly else "written", error
            )
    return None


def _used(disk: lmdb.Environment) -> int:
    stat = disk.stat()
    return int(stat["psize"] * (stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]))


def _prefixed(cursor: lmdb.Cursor, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
    found = cursor.set_range(prefix)
    while found and bytes(cursor.key()).startswith(prefix):
        yield bytes(cursor.key()), bytes(cursor.value())
        found = cursor.next()
