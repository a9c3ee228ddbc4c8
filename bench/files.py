"""Files that are there whole or not at all, and hold whatever a text holds."""

import codecs
import contextlib
import os
import re
import secrets
import shutil
import struct
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # on Windows, where a file that is open cannot be removed anyway
    fcntl = None  # type: ignore[assignment]

ESCAPED = "bench.escaped"
"""Name of the handler of errors that writes what an encoding lacks, such as half a surrogate pair, as JSON escapes it: ``\\ud800``."""

_PART, _WORK = ".part", ".part-"  # at the end of a file's name, at the begin of a folder's
_LINES = re.compile(r"[\t\n\v\f\r\x1c-\x1f\x85\u2028\u2029]+")
_MARKUP = re.compile(
    r"[\\`*~\[\]|]|(?<!\w)_|_(?!\w)|^#|<(?=[A-Za-z/!?])|&(?=#?\w+;)"  # what means nothing stays readable
)
_FORMULA = re.compile(r"[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_FRESH = 1.0  # seconds after which a file that is being written is locked


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    data = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    units = struct.unpack(f">{len(data) // 2}H", data)
    return "".join(f"\\u{unit:04x}" for unit in units), error.end


codecs.register_error(ESCAPED, _escape)


def escape_surrogates(text: str) -> str:
    """Return the text with every half of a surrogate pair as an escape, so that any library can write and draw it."""
    return text.encode("utf-8", ESCAPED).decode()


def escape_markdown(text: str) -> str:
    """Return a text as a line of Markdown that shows it, with nothing that Markdown or HTML would take as theirs."""
    return _MARKUP.sub(r"\\\g<0>", _LINES.sub(" ", text))


def escape_formula(value: object) -> object:
    """Return a value for a CSV file: a text that a spreadsheet would compute has a ``'`` before it; a number stays one.

    Source:
        OWASP, CSV Injection.
    """
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def hide_home(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return a JSON value in whose texts the user's home folder is ``~``: who made a file is nobody's business."""
    if isinstance(value, str):
        return _home().sub("~", value)
    if isinstance(value, Mapping):
        return {key: hide_home(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(hide_home(part) for part in value)
    return value


def _home() -> re.Pattern[str]:
    """Return what matches the home folder where a path begins with it; nothing where it is the root of all paths."""
    home = Path("~").expanduser()
    places = {str(place) for place in (home, home.resolve()) if place != Path(place.anchor)}
    names = "|".join(map(re.escape, sorted(places))) or r"(?!)"
    return re.compile(rf"(?<![\w./\\-])(?:{names})(?![\w.-])")


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a file so that it is there whole or not at all, also when the disk fills up or the process is killed.

    Args:
        path: The file; its folder is made.
        data: Its content; text is written in UTF-8. Who may read it follows the umask.

    Raises:
        OSError: It could not be written; what was there before is untouched.
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
        error.filename = str(
            path
        )  # that of the unfinished file says nothing, and a full disk names none
        raise


def _new_part(path: Path) -> Path:
    """Return a new empty file beside one, for what it is to hold."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_PART}")
    part.touch(exist_ok=False)
    return part


def check_writable(path: Path) -> None:
    """Make sure that a file can be written, before the work that it is to hold.

    Raises:
        OSError: It cannot: the folder or the name will not do, or the disk is full.
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


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left of the files that they were writing, in a folder and those in it.

    A file that is being written is locked, and stays; so does one whose lock cannot be asked for.
    """
    for part in folder.rglob(f".*{_PART}"):
        if _is_left(part):
            with contextlib.suppress(OSError):
                part.unlink()


@contextlib.contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """Yield a private folder in which something is made that is then moved beside it in one step; removed afterwards.

    Those that killed processes left are removed first.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for old in parent.glob(f"{_WORK}*"):
        if _is_left(old):
            shutil.rmtree(old, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=_WORK) as name, _lock(Path(name)):
        yield Path(name).resolve()


def _is_left(path: Path) -> bool:
    """Say whether nobody works on an unfinished file or folder any more."""
    with contextlib.suppress(OSError):
        old = time.time() - path.stat().st_mtime > _FRESH
        with _lock(path) as free:
            return old and free
    return False


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[bool]:
    """Lock a file or folder inside, and say whether no other process holds it."""
    if fcntl is None:
        yield True
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        free = True
    except OSError:  # it is held, or this file system has no locks
        free = False
    try:
        yield free
    finally:
        os.close(handle)
