"""The store of embeddings: files that are written atomically, never changed, and checked when read.

Each encoder has a folder, named by its fingerprint, and each ``put`` writes a new file into it.
Nothing is locked, memory-mapped or changed in place, so any number of processes, on any machines
that share the folder (also by a network file system), can read and write at the same time. A killed
process leaves no partial record. What one process deletes to make room, others encode again.

A file contains ``_HEAD`` (a mark, dim, n), n keys of 16 bytes, n flags of one byte (truncated), n
checksums (uint32, little-endian: CRC-32 of the record's key, flag and vector) and the vectors
(float32, little-endian, (n, dim)).
"""

import contextlib
import io
import logging
import os
import re
import secrets
import struct
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.data.assets import cache_dir
from bench.encoder import Embeddings, shortened
from bench.errors import UsageError
from bench.files import write_atomic

log = logging.getLogger(__name__)

_HEAD, _MARK = struct.Struct("<8sII"), b"vectors1"
KEY = 16
"""Bytes of a key."""

Keys = NDArray[np.void]
"""16-byte keys, dtype V16, shape (n,)."""

_BESIDE = KEY + 1 + 4  # bytes of a record beside its vector
_ROWS = 4096  # records of a file at most
_SUFFIX, _ASIDE = ".vectors", ".damaged"
_STALE = 3600.0  # seconds after which an unfinished file belongs to a process that was killed


class Found(NamedTuple):
    """What is stored of n keys.

    Attributes:
        known: bool (n,), whether there is an undamaged record.
        vectors: float32 (n, dim), undefined where nothing is known; None where no record is known.
        truncated: bool (n,), whether a part of the text was cut away.
    """

    known: NDArray[np.bool_]
    vectors: Embeddings | None
    truncated: NDArray[np.bool_]


def as_keys(data: bytes) -> Keys:
    """Return the 16-byte keys in ``data`` as an array, without a copy."""
    return np.frombuffer(data, np.dtype((np.void, KEY)))


class KeyIndex:
    """A number for each key, in 20 bytes a key: a few sorted arrays, each at least twice the next.

    A key that is added again has its latest number.
    """

    def __init__(self) -> None:
        self._parts: list[tuple[NDArray[np.bytes_], NDArray[np.int32]]] = []

    def __len__(self) -> int:
        """Return how many keys were added, counting one that was added twice as two."""
        return sum(len(keys) for keys, _ in self._parts)

    def find(self, keys: Keys) -> NDArray[np.int32]:
        """Return the number of each key, int32 (n,); -1 where there is none."""
        wanted = _sortable(keys)
        found = np.full(len(keys), -1, np.int32)
        for part, numbers in self._parts:  # from old to new
            at = np.searchsorted(part, wanted, side="right") - 1
            same = part[at] == wanted
            found[same] = numbers[at[same]]
        return found

    def add(self, keys: Keys, numbers: NDArray[np.int32]) -> None:
        """Add n keys with n numbers."""
        part = _sorted(_sortable(keys), numbers)
        while self._parts and len(self._parts[-1][0]) < 2 * len(part[0]):
            older = self._parts.pop()
            joined = np.concatenate([older[0], part[0]])
            part = _sorted(joined, np.concatenate([older[1], part[1]]))
        if len(keys):
            self._parts.append(part)

    def add_new(self, keys: Keys) -> None:
        """Add those keys that are not there yet, each once, with the number 0."""
        new = np.unique(_sortable(keys[self.find(keys) < 0]))
        self.add(new.view(keys.dtype), np.zeros(len(new), np.int32))


def _sortable(keys: Keys) -> NDArray[np.bytes_]:
    return keys.view(np.dtype((np.bytes_, KEY)))


def _sorted(
    keys: NDArray[np.bytes_], numbers: NDArray[np.int32]
) -> tuple[NDArray[np.bytes_], NDArray[np.int32]]:
    """Return both in the order of the keys; equal keys stay in their order."""
    order = np.argsort(keys, kind="stable")
    return keys[order], numbers[order]


def first_places(keys: Keys) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find repeated keys.

    Returns:
        The places of the m distinct keys, in order of appearance, int64 (m,), and for each of the
        n keys the place of the first that equals it, int64 (n,).
    """
    _, first, group = np.unique(_sortable(keys), return_index=True, return_inverse=True)
    return np.sort(first), first[group]


class Vectors:
    """Embeddings by encoder: on disk, or in memory without a folder that can be written.

    Args:
        root: Folder of the store, created when needed; None keeps everything in memory.
        limit: Maximum size of its files in bytes; the least recently used encoders are deleted
            first. Files being written are not counted: one per process, of at most 4,096
            embeddings.
    """

    def __init__(self, root: Path | None, *, limit: int = 8 << 30) -> None:
        self.root, self.limit = root, limit
        self._encoders: dict[str, Records] = {}
        self._warned = False

    def of(self, encoder: str) -> "Records":
        """Return the records of the encoder with this fingerprint."""
        if encoder not in self._encoders:
            self._encoders[encoder] = Records(self, encoder)
        return self._encoders[encoder]

    def save(self, encoder: str, data: bytes) -> Path | None:
        """Write a file of records of an encoder; return its path, or None if it cannot be done."""
        if self.root is None:
            return None
        path = self.root / encoder / f"{time.time_ns():020d}-{secrets.token_hex(4)}{_SUFFIX}"
        try:
            self._make_room(len(data), keep=encoder)
            write_atomic(path, data)
        except OSError as error:
            if not self._warned:
                log.warning(
                    "embeddings are kept in memory only, the cache cannot be written: %s", error
                )
            self._warned = True
            return None
        return path

    def _make_room(self, size: int, *, keep: str) -> None:
        """Delete files of the least recently used encoders until ``size`` bytes fit the limit.

        Raises:
            OSError: They do not fit with those of the encoder to keep, or a file cannot be deleted.
        """
        assert self.root is not None  # noqa: S101 - for the type checker; save asks first
        folders = [path for path in self.root.glob("*") if path.is_dir()]
        files = {folder: dict(_sized(folder)) for folder in folders}
        total = sum(sum(sizes.values()) for sizes in files.values())
        if sum(files.get(self.root / keep, {}).values()) + size > self.limit:
            raise OSError(f"one encoder alone needs more than the limit of {self.limit} bytes")
        for folder in sorted(folders, key=_used):
            if total + size <= self.limit:
                return
            if folder.name == keep or not files[folder]:
                continue
            for path, bytes_ in files[folder].items():
                with contextlib.suppress(OSError):
                    path.unlink()
                    total -= bytes_
            log.info("dropped the embeddings of encoder %s to make room", folder.name)
        if total + size > self.limit:
            raise OSError("older embeddings cannot be deleted to make room")


def open_vectors(*, on_disk: bool = True) -> Vectors:
    """Return the store of embeddings in the cache folder, within ``BENCH_CACHE_GB``; or in memory.

    Raises:
        UsageError: BENCH_CACHE_GB is not a number of gigabytes.
    """
    size = os.environ.get("BENCH_CACHE_GB") or "8"
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,9})?", size):
        raise UsageError(
            "BENCH_CACHE_GB takes a number of gigabytes from 0 to 999999, such as 20 or 0.5, "
            f"got {shortened(size)}"
        )
    folder = cache_dir() / "embeddings" if on_disk else None
    return Vectors(folder, limit=int(float(size) * 2**30))


@dataclass(frozen=True)
class _FileBlock:
    """The records of one file.

    Attributes:
        path: The file.
        offset: Where in it the vectors begin.
        first: Number of its first record among all of the encoder.
        dim: Numbers in a vector.
        flags: uint8 (n,), 1 where a part of the text was cut away.
        checksums: uint32 (n,).
    """

    path: Path
    offset: int
    first: int
    dim: int
    flags: NDArray[np.uint8]
    checksums: NDArray[np.uint32]

    def read(
        self, rows: NDArray[np.int32], places: NDArray[np.int64], keys: Keys, found: Found
    ) -> int:
        """Read records into their places; return how many of them are damaged."""
        read = 0
        assert found.vectors is not None  # noqa: S101 - for the type checker; its caller made room
        try:
            with self.path.open("rb", buffering=0) as file:
                for place, row in zip(places.tolist(), rows.tolist(), strict=True):
                    vector = found.vectors[place]
                    found.known[place] = self._read(row, file, keys[place], vector)
                    read += 1
        except OSError as error:  # another process has made room, or the disk fails
            log.info("embeddings are encoded again, since the cache cannot be read: %s", error)
        return read - int(found.known[places].sum())

    def _read(self, row: int, file: io.FileIO, key: np.void, out: Embeddings) -> bool:
        """Read the vector of a record into ``out``, float32 (dim,); return whether it is valid."""
        if len(out) != self.dim:
            return False
        file.seek(self.offset + row * out.nbytes)
        file.readinto(out.data)
        return _checksum(key.tobytes(), int(self.flags[row]), out) == int(self.checksums[row])


@dataclass(frozen=True)
class _MemoryBlock:
    """Records in memory; the attributes are those of ``_FileBlock``, with the vectors, (n, dim)."""

    first: int
    flags: NDArray[np.uint8]
    vectors: Embeddings

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])

    def read(
        self,
        rows: NDArray[np.int32],
        places: NDArray[np.int64],
        keys: Keys,  # noqa: ARG002 - as in a file
        found: Found,
    ) -> int:
        """Copy records into their places; none is damaged."""
        assert found.vectors is not None  # noqa: S101 - for the type checker; its caller made room
        same = self.dim == found.vectors.shape[1]
        found.known[places] = same
        if same:
            found.vectors[places] = self.vectors[rows]
        return 0 if same else len(places)

    def view(self, numbers: NDArray[np.int32]) -> Found | None:
        """Return records, of which the first is here, as a view if the others follow it."""
        rows = numbers - self.first
        if rows[-1] >= len(self.flags) or (np.diff(rows) != 1).any():
            return None
        part = slice(rows[0], rows[-1] + 1)
        return Found(np.ones(len(rows), bool), self.vectors[part], self.flags[part] > 0)


class Records:
    """The embeddings of one encoder, by keys of 16 bytes; made by ``Vectors.of``."""

    def __init__(self, store: Vectors, encoder: str) -> None:
        self._store, self._encoder = store, encoder
        self._folder = store.root / encoder if store.root is not None else None
        self._index = KeyIndex()
        self._blocks: list[_FileBlock | _MemoryBlock] = []
        self._seen: set[str] = set()
        self._warned = False
        if self._folder is not None:
            with contextlib.suppress(OSError):  # a cache that is not there yet, or read only
                os.utime(self._folder, ns=(time.time_ns(), time.time_ns()))  # in use

    @property
    def in_memory(self) -> bool:
        """Whether there is no folder."""
        return self._folder is None

    def has(self, keys: Keys) -> NDArray[np.bool_]:
        """Return for each key whether it has a record, which may be damaged."""
        return self._find(keys) >= 0

    def read(self, keys: Keys) -> Found:
        """Return the records of the keys; damaged ones and those deleted meanwhile are missing.

        Vectors that are in memory in the order of the keys are a view, which is read only.
        """
        numbers = self._find(keys)
        if (view := self._view(numbers)) is not None:
            return view
        n = len(keys)
        known, truncated = np.zeros(n, bool), np.zeros(n, bool)
        if not self._blocks:
            return Found(known, None, truncated)
        # The dimension last written: records of another one are of an earlier encoder.
        found = Found(known, np.empty((n, self._blocks[-1].dim), np.float32), truncated)
        order = np.argsort(numbers, kind="stable")
        starts = np.searchsorted(numbers[order], [block.first for block in self._blocks])
        damaged = 0
        for block, places in zip(self._blocks, np.split(order, starts)[1:], strict=True):
            damaged += self._read_block(block, places, keys, numbers, found)
        if damaged and not self._warned:
            self._warned = True
            log.warning(
                "embeddings in %s do not match their checksum or dimension, %d of those just read: "
                "all such are encoded again",
                self._folder,
                damaged,
            )
        return found if known.any() else found._replace(vectors=None)

    def put(self, keys: Keys, vectors: Embeddings, truncated: NDArray[np.bool_]) -> None:
        """Keep records, in memory where they cannot be written.

        Args:
            keys: n keys.
            vectors: float32 (n, dim); in memory they are kept without a copy, read only.
            truncated: bool (n,).
        """
        if self._folder is None:
            self._keep(keys, vectors, truncated)
            return
        for start in range(0, len(keys), _ROWS):
            part = slice(start, start + _ROWS)
            data = _packed(keys[part], vectors[part], truncated[part])
            path = self._store.save(self._encoder, data)
            if path is None:
                self._keep(keys[part], vectors[part], truncated[part])
            else:
                self._add([path])

    def adopt(self, data: bytes) -> None:
        """Write records that another process has packed; what cannot be written is dropped."""
        path = self._store.save(self._encoder, data)
        if path is not None:
            self._add([path])

    def _keep(self, keys: Keys, vectors: Embeddings, truncated: NDArray[np.bool_]) -> None:
        vectors.flags.writeable = False
        self._append(keys, _MemoryBlock(self._next, truncated.astype(np.uint8), vectors))

    def _append(self, keys: Keys, block: _FileBlock | _MemoryBlock) -> None:
        numbers = np.arange(block.first, block.first + len(keys), dtype=np.int32)
        self._index.add(keys, numbers)
        self._blocks.append(block)

    @property
    def _next(self) -> int:
        """The number of the next record."""
        return self._blocks[-1].first + len(self._blocks[-1].flags) if self._blocks else 0

    def _view(self, numbers: NDArray[np.int32]) -> Found | None:
        """Return records as a view, if they lie in memory one after the other."""
        if not len(numbers):
            return None
        for block in self._blocks:
            first, n = block.first, len(block.flags)
            if isinstance(block, _MemoryBlock) and first <= numbers[0] < first + n:
                return block.view(numbers)
        return None

    def _read_block(
        self,
        block: _FileBlock | _MemoryBlock,
        places: NDArray[np.int64],
        keys: Keys,
        numbers: NDArray[np.int32],
        found: Found,
    ) -> int:
        """Read the records at these places, all of one block; return how many are damaged."""
        if not len(places):
            return 0
        rows = numbers[places] - block.first
        damaged = block.read(rows, places, keys, found)
        found.truncated[places] = block.flags[rows] > 0
        lost = places[~found.known[places]]
        self._index.add(keys[lost], np.full(len(lost), -1, np.int32))
        return damaged

    def _find(self, keys: Keys) -> NDArray[np.int32]:
        """Return the number of each key's record, or -1, after a look for new files."""
        numbers = self._index.find(keys)
        if self._folder is None or (numbers >= 0).all():
            return numbers
        new = [path for path in self._folder.glob(f"*{_SUFFIX}") if path.name not in self._seen]
        self._add(sorted(new))  # the later ones count, if a record was written again
        return self._index.find(keys) if new else numbers

    def _add(self, paths: Sequence[Path]) -> None:
        """Take in the records of files; a damaged one gets a name under which it is not read."""
        damaged = 0
        for path in paths:
            self._seen.add(path.name)
            try:
                keys, block = _parsed(path, self._next)
            except OSError as error:  # another process has made room, or the disk fails
                log.info("a file of the cache is skipped, since it cannot be read: %s", error)
            except ValueError:
                damaged += 1
                _set_aside(path)
            else:
                self._append(keys, block)
        if damaged:
            log.warning(
                "%d damaged files in %s are set aside as *%s: what was in them is encoded again",
                damaged,
                self._folder,
                _ASIDE,
            )


def _set_aside(path: Path) -> None:
    with contextlib.suppress(OSError):  # the cache may be read only
        path.rename(path.with_name(path.name + _ASIDE))


def _packed(keys: Keys, vectors: Embeddings, truncated: NDArray[np.bool_]) -> bytes:
    rows = np.ascontiguousarray(vectors, "<f4")
    flags = truncated.astype(np.uint8)
    checksums = [
        _checksum(key.tobytes(), flag, row)
        for key, flag, row in zip(keys, flags.tolist(), rows, strict=True)
    ]
    return b"".join(
        (
            _HEAD.pack(_MARK, rows.shape[1], len(rows)),
            keys.data,
            flags.data,
            np.array(checksums, "<u4").data,
            rows.data,
        )
    )


def _parsed(path: Path, first: int) -> tuple[Keys, _FileBlock]:
    """Return the keys of a file and where its vectors are.

    Raises:
        OSError: It cannot be read.
        ValueError: It is damaged.
    """
    with path.open("rb", buffering=0) as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        head = file.read(_HEAD.size)
        mark, dim, n = _HEAD.unpack(head) if len(head) == _HEAD.size else (b"", 0, 0)
        if mark != _MARK or size != _HEAD.size + n * (_BESIDE + 4 * dim):
            raise ValueError
        keys, rest = file.read(n * KEY), file.read(n * (_BESIDE - KEY))
        offset = file.tell()
    flags = np.frombuffer(rest, np.uint8, n)
    checksums = np.frombuffer(rest, "<u4", n, offset=n)
    return as_keys(keys), _FileBlock(path, offset, first, dim, flags, checksums)


def _checksum(key: bytes, flag: int, vector: Embeddings) -> int:
    return zlib.crc32(vector.data, zlib.crc32(key + bytes((flag,))))


def _sized(folder: Path) -> Iterator[tuple[Path, int]]:
    """Yield the files of a folder and their sizes; delete unfinished ones of killed processes."""
    for entry in os.scandir(folder):
        with contextlib.suppress(OSError):  # another process deletes too
            found = entry.stat()
            if not entry.name.endswith(".part"):
                yield Path(entry), found.st_size
            elif time.time() - found.st_mtime > _STALE:
                Path(entry).unlink()


def _used(folder: Path) -> float:
    """Return when a folder was last written to or marked as in use."""
    return folder.stat().st_mtime
