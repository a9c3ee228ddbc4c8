"""A folder of results as one zip file, which is read like the folder.

Archives come from others: nothing in one is trusted before its name and size are checked.
"""

import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from bench.errors import ResultError
from bench.files import write_atomic

MOST_FILES = 200_000
"""Files in an archive at most."""

MOST_BYTES = 4 << 30
"""Bytes of its content at most, and of the arrays in it."""

_WORD = r"[A-Za-z0-9_+-][A-Za-z0-9_.+-]*"  # no "..", and no folder within a folder
_OURS = re.compile(rf"{_WORD}/{_WORD}\.(?:json|npz|absent)")
_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that zip files know: equal results, equal bytes


def pack(folder: Path, path: Path) -> None:
    """Write the files of a folder of results into one archive.

    Raises:
        OSError: It cannot be written.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for file in sorted(folder.glob("*/*")):
            name = file.relative_to(folder).as_posix()
            if _OURS.fullmatch(name):
                info = zipfile.ZipInfo(name, _TIME)
                archive.writestr(info, file.read_bytes(), zipfile.ZIP_DEFLATED)
    write_atomic(path, buffer.getvalue())


def unpack(path: Path, folder: Path) -> None:
    """Write the content of an archive into a folder.

    Raises:
        ResultError: It is damaged, too large, or has a file that no results have.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for name, data in _checked(archive, path):
                target = folder / name
                target.parent.mkdir(exist_ok=True)
                target.write_bytes(data)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ResultError(
            f"expected {path} to be a whole archive of results, as `bench export archive` writes "
            f"it, got a damaged file or one of another kind ({error}); name another --results"
        ) from error


def _checked(archive: zipfile.ZipFile, path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and content of every file.

    Raises:
        ResultError: There are too many or too large ones, or one has a name that no results have.
    """
    files = [info for info in archive.infolist() if not info.is_dir()]
    if len(files) > MOST_FILES:
        raise _too_large(path, f"{MOST_FILES:,} files")
    left = MOST_BYTES
    for info in files:
        if not _OURS.fullmatch(info.filename):
            raise ResultError(
                f"expected only results in {path}, got {info.filename!r}: it was not written by "
                "`bench export archive`"
            )
        left -= info.file_size
        data = archive.read(info) if left >= 0 else b""
        left -= _unpacked_bytes(data) if info.filename.endswith(".npz") else 0
        if left < 0:
            raise _too_large(path, f"{MOST_BYTES:,} bytes")
        yield info.filename, data


def _unpacked_bytes(data: bytes) -> int:
    """Return the size of the arrays in a file of per-example values, itself a zip file."""
    if not data:
        return 0
    with zipfile.ZipFile(io.BytesIO(data)) as arrays:
        return sum(info.file_size for info in arrays.infolist())


def _too_large(path: Path, most: str) -> ResultError:
    return ResultError(f"expected at most {most} in {path}, got more: it is no archive of results")
