"""results/ as a mapping from RunSpec to Result: one JSON file per cell, written atomically."""

import hashlib
import io
import json
import logging
import re
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from bench.encoder import digest
from bench.errors import ResultError
from bench.files import check_writable, escape_surrogates, hide_home, write_atomic
from bench.shape import find_mismatch
from bench.store import claims
from bench.store.archive import unpack
from bench.store.result import SCHEMA, Absence, Result, RunSpec
from bench.task import Score

log = logging.getLogger(__name__)

_Read = TypeVar("_Read")

_OURS = re.compile(r".+\.([0-9a-f]{12})\.(?:json|absent)", re.DOTALL)  # with the cell's key
_ARRAYS = (("examples", "", np.float32), ("gold", ".gold", np.float32), ("ids", ".ids", np.uint64))
"""The arrays of a score: its field, what stands behind the score's name in a file, the dtype."""


_LONGEST = 80  # bytes of a name in a path component, which may have 255


def slug(name: str) -> str:
    """Return the name as one safe path component; a changed name gets a digest, to stay unique."""
    safe = _safe(name)
    is_safe = safe == name and len(name) <= _LONGEST
    return safe if is_safe else f"{safe[:_LONGEST]}-{digest(name)[:8]}"


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.+-]+", "_", name).strip("._") or "_"


@dataclass(frozen=True)
class Store:
    """The folder of results: ``<encoder>/<task>.<key>.json``, with per-example values in ``.npz``.

    ``<encoder>/<task>.<digits>.absent`` says why a cell has no result, until it has one.

    Attributes:
        root: The folder, made on the first write; or an archive of one
            (``bench.store.archive``), of which all results and absences can be read.
    """

    root: Path

    def path(self, spec: RunSpec) -> Path:
        """Return where the cell's file is or would be.

        Raises:
            ResultError: A file that may be the cell's is unreadable, or of a newer format.
        """
        path = self.root / slug(spec.encoder) / f"{slug(spec.task)}.{spec.key}.json"
        if path.exists():
            return path
        # Earlier versions gave two names one file, which is the cell's if it names the encoder.
        task = f"{_safe(spec.task)[:200]}.{spec.key}.json"
        written = spec.encoder.replace("~", str(Path.home()), 1)  # as they wrote it
        for encoder in (spec.encoder, written):
            old = self.root / _safe(encoder)[:200] / task
            if old.exists() and read(old).spec.encoder in {spec.encoder, written}:
                return old
        return path

    def __contains__(self, spec: RunSpec) -> bool:
        """Return whether the cell has a result; not one whose per-example values are another run's.

        A killed process may leave such a result.
        """
        path = self.path(spec)
        if not path.exists():
            return False
        try:
            result = read(path)
        except ResultError:  # raised again when the result is read
            return True
        if _is_whole(_archive(path), result):
            return True
        log.warning(
            "%s and its per-example values are from two runs; the cell counts as missing", path
        )
        return False

    def __getitem__(self, spec: RunSpec) -> Result:
        """Return a cell's result.

        Raises:
            KeyError: There is none.
            ResultError: The file is unreadable, or of a newer format.
        """
        path = self.path(spec)
        if not path.exists():
            raise KeyError(spec)
        return read(path)

    def __setitem__(self, spec: RunSpec, result: Result) -> None:
        """Write a cell's result; the JSON file comes last, so a cell that exists is whole.

        Raises:
            ResultError: The folder cannot be written, or the result could not be read again, such
                as one whose model card has a value of another type.
        """
        path = self.path(spec)
        arrays = {}
        for (part, ending, dtype), (name, scores) in product(_ARRAYS, result.scores.items()):
            if len(values := getattr(scores, part)):
                arrays[name + ending] = np.asarray(values, dtype)
        buffer = io.BytesIO()
        if arrays:
            np.savez_compressed(buffer, allow_pickle=False, **arrays)
        archive = buffer.getvalue()
        kept = replace(result, archive=hashlib.sha256(archive).hexdigest() if archive else "")
        text = _text(kept.to_json())
        try:
            Result.from_json(_intact(json.loads(text)))
        except ValueError as error:
            raise ResultError(
                f"{spec.encoder} on {spec.task}: expected a result that can be read, but {error}"
            ) from error
        with writing(path):
            if archive:
                write_atomic(path.with_suffix(".npz"), archive)
            else:
                path.with_suffix(".npz").unlink(missing_ok=True)
            write_atomic(path, text)
            self._absent_path(spec).unlink(missing_ok=True)

    def claim_path(self, spec: RunSpec) -> Path:
        """Return the file by which a process claims the cell; see ``bench.store.claims``."""
        return self.path(spec).with_suffix(claims.SUFFIX)

    def written_since(self, spec: RunSpec, time: float) -> Result | Absence | None:
        """Return a cell's result, or why it has none, if it was written after a time.

        Args:
            spec: The cell.
            time: By the clock of the folder (``bench.files.file_time``).

        Raises:
            ResultError: The file is unreadable, or of a newer format.
        """
        path, absent = self.path(spec), self._absent_path(spec)
        if _changed(path) > time and spec in self:
            return read(path)
        return _absence(absent) if _changed(absent) > time else None

    def check_writable(self, spec: RunSpec) -> None:
        """Make sure that a cell's result can be written.

        Raises:
            ResultError: The folder cannot be written, or the names are too long for it.
        """
        with writing(self.path(spec)):
            check_writable(self.path(spec).with_suffix(".absent"))  # the longest of its names

    def __iter__(self) -> Iterator[RunSpec]:
        return (result.spec for result in self.results())

    def __len__(self) -> int:
        with self._opened() as root:
            return len(_files(root))

    def results(self, *, examples: bool = True) -> Iterator[Result]:
        """Yield every result by file name; log unreadable files.

        Args:
            examples: With the per-example values.

        Raises:
            ResultError: The archive is damaged.
        """
        reading = read_whole if examples else read
        with self._opened() as root:
            yield from _readable(_files(root), reading)

    def examples(self, result: Result) -> Result:
        """Return the result with its per-example values, where they were kept.

        Raises:
            ResultError: Their file is unreadable, or that of another run.
        """
        return _with_examples(self.path(result.spec), result)

    def leave_out(self, absence: Absence) -> None:
        """Keep why a cell has no result, until it has one.

        Raises:
            ResultError: The folder cannot be written.
        """
        path = self._absent_path(absence)
        with writing(path):
            write_atomic(path, _text({"schema": SCHEMA, **asdict(absence)}))

    def absences(self) -> list[Absence]:
        """Return why cells have no result, by file name; log unreadable files.

        Raises:
            ResultError: The archive is damaged.
        """
        with self._opened() as root:
            return list(_readable(sorted(root.glob("*/*.absent")), _absence))

    @contextmanager
    def _opened(self) -> Iterator[Path]:
        """Yield the folder, which for an archive is a temporary one."""
        if not self.root.is_file():
            yield self.root
            return
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            unpack(self.root, Path(folder))
            yield Path(folder)

    def _absent_path(self, cell: RunSpec | Absence) -> Path:
        # Without weights there is no fingerprint, and so no key.
        key = digest([cell.encoder, cell.task, cell.readout, cell.seed, cell.limit])[:12]
        return self.root / slug(cell.encoder) / f"{slug(cell.task)}.{key}.absent"


def _files(root: Path) -> list[Path]:
    return sorted(root.glob("*/*.json"))


def _changed(path: Path) -> float:
    """Return when a file got its name, which is after it was written; 0 where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return 0.0
    return max(stat.st_mtime, stat.st_ctime)  # renaming changes the second alone


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Write a file of the folder of results within the block.

    Raises:
        ResultError: It cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise ResultError(
            f"cannot write {path}: {error.strerror}; free space or choose another --results"
        ) from error


def _readable(paths: Iterable[Path], reading: Callable[[Path], _Read]) -> Iterator[_Read]:
    for path in paths:
        try:
            yield reading(path)
        except ResultError as error:
            log.warning("left out: %s", error)


def _archive(path: Path) -> bytes:
    """Return the file of per-example values beside a results file; nothing where there is none."""
    try:
        return path.with_suffix(".npz").read_bytes()
    except OSError:
        return b""


def _is_whole(archive: bytes, result: Result) -> bool:
    """Return whether per-example values were written with a result; older ones hold no hash."""
    return not result.archive or result.archive == hashlib.sha256(archive).hexdigest()


def _with_examples(path: Path, result: Result) -> Result:
    data, archive = _archive(path), path.with_suffix(".npz")
    both = f"delete it and {path.name}, and run the cell again"
    if not _is_whole(data, result):
        raise ResultError(f"{archive} is not what was written with {path}: {both}")
    if not data and not archive.exists():
        return result
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            scores = {name: _measured(score, name, arrays) for name, score in result.scores.items()}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise ResultError(f"{archive} is no whole archive of per-example values; {both}") from error
    return replace(result, scores=scores)


def _measured(score: Score, name: str, arrays: Any) -> Score:  # noqa: ANN401 - numpy's archive
    """Return a score with its arrays.

    Raises:
        ValueError: They are no lists of numbers of one length.
    """
    if name not in arrays:
        return score
    n = arrays[name].shape[:1]
    found = {}
    for part, ending, dtype in _ARRAYS:
        if name + ending in arrays:
            found[part] = arrays[name + ending]
            if found[part].dtype != dtype or found[part].shape != n:
                raise ValueError(name)
    return replace(score, **found)


def read(path: Path) -> Result:
    """Return the result in a file.

    Raises:
        ResultError: It is no whole results file, or of a newer format.
    """
    data = _parsed(path)
    try:
        result = Result.from_json(_intact(data))
    except (ValueError, RecursionError) as error:
        raise ResultError(f"{path} is damaged: {error}; {_advice(path)}") from error
    named = _OURS.fullmatch(path.name)
    if named and named[1] != result.spec.key:
        raise ResultError(f"{path} describes another cell than its name; {_advice(path)}")
    return result


def read_whole(path: Path) -> Result:
    """Return the result in a file with its per-example values, where they were kept.

    Raises:
        ResultError: As ``read``, or their file is unreadable, or that of another run.
    """
    return _with_examples(path, read(path))


def _text(data: dict[str, Any]) -> str:
    """Return the text of a file: the data with its digest."""
    clean = _clean(json.loads(json.dumps(hide_home(data), allow_nan=False)))
    return json.dumps({**clean, "digest": digest(clean)}, indent=1, ensure_ascii=False) + "\n"


def _intact(data: dict[str, Any]) -> dict[str, Any]:
    """Return the data of a results file without its digest; older ones have none.

    Raises:
        ValueError: The digest is that of something else.
    """
    kept = {name: value for name, value in data.items() if name != "digest"}
    if data.get("digest", "") not in ("", digest(kept)):  # a tuple: a list may stand there
        raise ValueError("its digest does not match its content")
    return kept


def _absence(path: Path) -> Absence:
    data = _parsed(path)
    try:
        data = _intact(data)
    except (ValueError, RecursionError) as error:
        raise ResultError(f"{path} is damaged: {error}; {_advice(path)}") from error
    if wrong := find_mismatch(data, Absence):
        raise ResultError(
            f"{path} is damaged: {wrong!r} is missing or of another kind; {_advice(path)}"
        )
    return Absence(**{field.name: data[field.name] for field in fields(Absence)})


def _parsed(path: Path) -> dict[str, Any]:
    """Return the content of a file, with nothing in it that cannot be written again.

    Raises:
        ResultError: It is no whole file of ours, or of a newer format.
    """
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else ""  # a pipe has no end
        data = json.loads(text)
        if "\\u" in text:  # only an escape can be half of a surrogate pair
            data = _clean(data)
    except (OSError, ValueError, RecursionError) as error:
        raise ResultError(f"{path} is no whole results file ({error}); {_advice(path)}") from error
    schema = data.get("schema") if isinstance(data, dict) else None
    if type(schema) is not int:
        raise ResultError(f"{path} has no schema number, so it is no results file; {_advice(path)}")
    if schema > SCHEMA:
        raise ResultError(
            f"{path} has schema {schema}, this version reads up to {SCHEMA}; "
            "upgrade, or choose another --results"
        )
    return dict(data)


def _clean(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return a JSON value in which every half of a surrogate pair is escaped."""
    if isinstance(value, str):
        return escape_surrogates(value)
    if isinstance(value, list):
        return [_clean(each) for each in value]
    if isinstance(value, dict):
        return {escape_surrogates(name): _clean(each) for name, each in value.items()}
    return value


def _advice(path: Path) -> str:
    """Return what to do with an unreadable file: delete it only if a run has named it."""
    if _OURS.fullmatch(path.name):
        return "delete it and run its cell again"
    return (
        "no run has written it: leave it where it is, and name the folder of results with --results"
    )
