"""Atomic writes, and escaping of texts for the formats that are written."""

import codecs
import contextlib
import csv
import hashlib
import json
import os
import re
import secrets
import shutil
import struct
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

try:
    import fcntl
except ImportError:  # on Windows, where a file that is open cannot be removed anyway
    fcntl = None  # type: ignore[assignment]

ESCAPED = "bench.escaped"
"""Error handler of encodings: writes characters an encoding lacks as JSON does: ``\\ud800``."""

_PART, _WORK = ".part", ".part-"  # suffix of unfinished files, prefix of folders
_LINES = re.compile(r"[\t\n\v\f\r\x1c-\x1f\x85\u2028\u2029]+")
_MARKUP = re.compile(
    # Only where the character has a meaning, so that texts stay readable.
    r"[\\`*~\[\]|]|(?<!\w)_|_(?!\w)|^#|<(?=[A-Za-z/!?])|&(?=#?\w+;)"
)
_FORMULA = re.compile(r"[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_FRESH = 1.0  # seconds in which a file that is being written gets its lock


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    data = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    units = struct.unpack(f">{len(data) // 2}H", data)
    return "".join(f"\\u{unit:04x}" for unit in units), error.end


codecs.register_error(ESCAPED, _escape)


def escape_surrogates(text: str) -> str:
    """Return a text with lone surrogates as escapes, so that any library can write it."""
    return text.encode("utf-8", ESCAPED).decode()


def escape_markdown(text: str) -> str:
    """Return a text as one line of Markdown that shows it literally."""
    return _MARKUP.sub(r"\\\g<0>", _LINES.sub(" ", text))


def quoting_for(texts: Iterable[object]) -> Literal[0, 2]:
    """Return how ``csv`` must quote texts: it leaves a carriage return bare, which ends a row."""
    bare = any("\r" in text for text in texts if isinstance(text, str))
    return csv.QUOTE_NONNUMERIC if bare else csv.QUOTE_MINIMAL


def escape_formula(value: object) -> object:
    """Return a value for a CSV file; a text that a spreadsheet would run gets a leading ``'``.

    Source:
        OWASP, CSV Injection.
    """
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def hide_home(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return a JSON value with ``~`` for the user's home folder in its texts, for privacy."""
    if isinstance(value, str):
        return _home().sub("~", value)
    if isinstance(value, Mapping):
        return {key: hide_home(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(hide_home(part) for part in value)
    return value


def _home() -> re.Pattern[str]:
    """Return a pattern of the home folder at the start of a path; of nothing if it is the root."""
    home = Path("~").expanduser()
    places = {str(place) for place in (home, home.resolve()) if place != Path(place.anchor)}
    names = "|".join(map(re.escape, sorted(places))) or r"(?!)"
    return re.compile(rf"(?<![\w./\\-])(?:{names})(?![\w.-])")


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a file completely or not at all, even if the disk fills up or the process is killed.

    Args:
        path: The file; its folder is created.
        data: Its content; text is written in UTF-8.

    Raises:
        OSError: It could not be written; an earlier file is unchanged.
    """
    content = data.encode("utf-8", ESCAPED) if isinstance(data, str) else data
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = _new_part(path)
        try:
            with _lock(part):
                with part.open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    except OSError as error:
        error.filename = str(path)  # instead of the temporary file's
        raise


def _new_part(path: Path) -> Path:
    """Return a new empty file in the same folder, to be renamed when it is complete."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_PART}")
    part.touch(exist_ok=False)
    return part


def check_writable(path: Path) -> None:
    """Check that a file can be written, before the work whose result it will contain.

    Raises:
        OSError: It cannot, because of the folder, the name or a full disk.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = _new_part(path)
        try:
            part.write_bytes(b"\0")
        finally:
            part.unlink()
    except OSError as error:
        error.filename = str(path)
        raise


def copy_file(source: Path, target: Path) -> None:
    """Copy a file completely or not at all.

    Raises:
        OSError: It could not be written; an earlier file is unchanged.
    """
    with temporary_folder(target.parent) as work:
        shutil.copyfile(source, work / "copy")
        (work / "copy").replace(target)


def copy_folder(source: Path, target: Path) -> None:
    """Copy a folder completely or not at all, with files in the place of links.

    Raises:
        OSError: It could not be written.
    """
    with temporary_folder(target.parent) as work:
        shutil.copytree(source, work / "copy")
        if target.is_dir():
            target.replace(work / "old")
        (work / "copy").replace(target)


def sha256_of(path: Path) -> str:
    """Return the sha256, in hex, of a file; it is read again when its size or a time changes.

    Raises:
        OSError: It cannot be read.
    """
    return _sha256(path, stamp([path]))


@lru_cache(maxsize=4096)
def _sha256(path: Path, _stamp: object) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digests_in(folder: Path, counts: Callable[[Path], bool]) -> dict[str, str]:
    """Return the sha256, in hex, of files in a folder and below, by their path in it.

    Args:
        folder: Where they are.
        counts: Whether a file does, by its path in the folder; others are not read.

    Raises:
        OSError: One cannot be read.
    """
    inner = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix(): sha256_of(folder / path) for path in sorted(filter(counts, inner))}


def stamp(files: Iterable[Path]) -> tuple[tuple[int, int, int], ...]:
    """Return size and times of each file: a cheap key that changes when one is replaced."""
    stats = [path.stat() for path in files]
    return tuple((stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for stat in stats)


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; an empty one where there is no such file or no object."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def file_time(folder: Path) -> float:
    """Return the time by the clock that stamps the files of a folder, in seconds since 1970.

    On a network file system that is the server's, so that times of several machines compare.

    Raises:
        OSError: The folder cannot be written.
    """
    part = _new_part(folder / "time")
    try:
        return part.stat().st_mtime
    finally:
        part.unlink()


def remove_leftovers(folder: Path) -> None:
    """Remove unfinished files of killed processes, in a folder and its subfolders.

    Files that are being written are locked and stay.
    """
    ours = f".*.{'[0-9a-f]' * 8}{_PART}"  # other programs have hidden files of this suffix, too
    for part in folder.rglob(ours):
        if _is_abandoned(part):
            with contextlib.suppress(OSError):
                part.unlink()


@contextlib.contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """Yield a temporary folder inside the parent, whose files can be moved there in one step.

    Folders of killed processes are removed first.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for old in parent.glob(f"{_WORK}*"):
        if _is_abandoned(old):
            shutil.rmtree(old, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=_WORK) as name, _lock(Path(name)):
        yield Path(name).resolve()


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Lock a file, which is created, and wait while another process has locked it.

    Where the file system has no locks, nobody waits: what is done meanwhile must bear to be done
    twice.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        with contextlib.suppress(OSError):
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _is_abandoned(path: Path) -> bool:
    """Say whether no process works on an unfinished file or folder any more."""
    with contextlib.suppress(OSError):
        old = time.time() - path.stat().st_mtime > _FRESH
        with _lock(path) as free:
            return old and free
    return False


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[bool]:
    """Lock a file or folder, and yield whether no other process has locked it."""
    if fcntl is None:
        yield True
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        free = True
    except OSError:  # it is locked, or this file system has no locks
        free = False
    try:
        yield free
    finally:
        os.close(handle)
