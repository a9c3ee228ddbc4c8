"""results/ as a mapping from RunSpec to Result: one small JSON file a cell, written whole or not at all."""

import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.encoder import digest
from bench.errors import ResultError
from bench.files import write_whole
from bench.result import SCHEMA, Absence, Result, RunSpec
from bench.task import Score

_GOLD = ".gold"  # behind a score's name, the array its examples are compared with


_LONGEST = 80  # bytes of a name in a path component, which may have 255


def slug(name: str) -> str:
    """Return the name as one safe path component; one that had to be changed gets digits of its own, so that no two share it."""
    safe = _safe(name)
    return (
        safe if safe == name and len(name) <= _LONGEST else f"{safe[:_LONGEST]}-{digest(name)[:8]}"
    )


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.+-]+", "_", name).strip("._") or "_"


@dataclass(frozen=True)
class Store:
    """The folder of results: ``<encoder>/<task>.<key>.json``, and ``….npz`` beside it with per-example values.

    ``<encoder>/<task>.<digits>.absent`` says why a cell has no result; a result that comes later takes its place.

    Attributes:
        root: The folder; made on the first write.
    """

    root: Path

    def path(self, spec: RunSpec) -> Path:
        """Return where the cell's file is or would be.

        Raises:
            ResultError: A file that may be the cell's is unreadable, or of a newer format.
        """
        path = self.root / slug(spec.encoder) / f"{slug(spec.task)}.{spec.key}.json"
        old = self.root / _safe(spec.encoder)[:200] / f"{_safe(spec.task)[:200]}.{spec.key}.json"
        # Earlier versions gave two names one file; it is the cell's where it has the encoder's name.
        mine = not path.exists() and old.exists() and read(old).spec.encoder == spec.encoder
        return old if mine else path

    def __contains__(self, spec: RunSpec) -> bool:
        return self.path(spec).exists()

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
            ResultError: The folder cannot be written.
        """
        path = self.path(spec)
        examples = {name: s.examples for name, s in result.scores.items() if len(s.examples)}
        examples |= {f"{name}{_GOLD}": s.gold for name, s in result.scores.items() if len(s.gold)}
        try:
            if examples:
                buffer = io.BytesIO()
                np.savez_compressed(buffer, allow_pickle=False, **examples)
                write_whole(path.with_suffix(".npz"), buffer.getvalue())
            text = (
                json.dumps(result.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
            )
            write_whole(path, text)
            self._absent_path(spec).unlink(missing_ok=True)
        except OSError as error:
            raise ResultError(
                f"cannot write {path}: {error.strerror}; free space or choose another --results"
            ) from error

    def __iter__(self) -> Iterator[RunSpec]:
        return (result.spec for result in self.results())

    def __len__(self) -> int:
        return sum(1 for _ in self._files())

    def results(self) -> Iterator[Result]:
        """Yield every result, in the order of the file names.

        Raises:
            ResultError: A file is unreadable, or of a newer format.
        """
        return (read(path) for path in self._files())

    def examples(self, result: Result) -> Result:
        """Return the result with its per-example values, where they were kept.

        Raises:
            ResultError: Their file is unreadable.
        """
        path = self.path(result.spec).with_suffix(".npz")
        if not path.exists():
            return result
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
                scores = {
                    n: Score(
                        s.repeats, arrays[n], *([arrays[n + _GOLD]] if n + _GOLD in arrays else [])
                    )
                    if n in arrays
                    else s
                    for n, s in result.scores.items()
                }
        except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            both = f"it and {path.with_suffix('.json').name}"
            raise ResultError(
                f"{path} is no whole archive of per-example values; delete {both}, and run the cell again"
            ) from error
        return replace(result, scores=scores)

    def leave_out(self, absence: Absence) -> None:
        """Keep why a cell has no result, until it has one.

        Raises:
            ResultError: The folder cannot be written.
        """
        path = self._absent_path(absence)
        try:
            write_whole(
                path,
                json.dumps({"schema": SCHEMA, **asdict(absence)}, indent=1, ensure_ascii=False)
                + "\n",
            )
        except OSError as error:
            raise ResultError(
                f"cannot write {path}: {error.strerror}; free space or choose another --results"
            ) from error

    def absences(self) -> list[Absence]:
        """Return why cells have no result, in the order of the file names.

        Raises:
            ResultError: A file is unreadable, or of a newer format.
        """
        return [_absence(path) for path in sorted(self.root.glob("*/*.absent"))]

    def _absent_path(self, cell: RunSpec | Absence) -> Path:
        # Named by what was asked for: where weights are missing, no fingerprint and so no key is known.
        key = digest([cell.encoder, cell.task, cell.readout, cell.seed, cell.limit])[:12]
        return self.root / slug(cell.encoder) / f"{slug(cell.task)}.{key}.absent"

    def _files(self) -> list[Path]:
        return sorted(self.root.glob("*/*.json"))


def read(path: Path) -> Result:
    """Return the result in a file.

    Raises:
        ResultError: It is no whole results file, or of a newer format.
    """
    schema, data = _parsed(path)
    try:
        return Result.from_json(data)
    except (KeyError, TypeError, AttributeError) as error:
        raise ResultError(
            f"{path} lacks a part of schema {schema} ({error}); delete it and run its cell again"
        ) from error


def _absence(path: Path) -> Absence:
    schema, data = _parsed(path)
    try:
        return Absence(**{name: value for name, value in data.items() if name != "schema"})
    except TypeError as error:
        raise ResultError(
            f"{path} lacks a part of schema {schema} ({error}); delete it and run its cell again"
        ) from error


def _parsed(path: Path) -> tuple[int, dict[str, Any]]:
    """Return the schema number and the content of a file.

    Raises:
        ResultError: It is no whole file of ours, or of a newer format.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultError(
            f"{path} is no whole results file ({error}); delete it and run its cell again"
        ) from error
    schema = data.get("schema") if isinstance(data, dict) else None
    if not isinstance(schema, int):
        raise ResultError(
            f"{path} has no schema number, so it is no results file; move it out of the results folder"
        )
    if schema > SCHEMA:
        raise ResultError(
            f"{path} has schema {schema}, this version reads up to {SCHEMA}; upgrade, or choose another --results"
        )
    return schema, data
