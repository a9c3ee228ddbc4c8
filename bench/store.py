"""results/ as a mapping from RunSpec to Result: one small JSON file a cell, written whole or not at all."""

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bench.errors import ResultError
from bench.files import write_whole
from bench.result import SCHEMA, Result, RunSpec
from bench.task import Score


def slug(name: str) -> str:
    """Return the name as one safe path component."""
    return re.sub(r"[^A-Za-z0-9.+-]+", "_", name).strip("._") or "_"


@dataclass(frozen=True)
class Store:
    """The folder of results: ``<encoder>/<task>.<key>.json``, and ``….npz`` beside it with per-example values.

    Attributes:
        root: The folder; made on the first write.
    """

    root: Path

    def path(self, spec: RunSpec) -> Path:
        """Return where the cell's file is or would be."""
        return self.root / slug(spec.encoder) / f"{slug(spec.task)}.{spec.key}.json"

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
        try:
            if examples:
                buffer = io.BytesIO()
                np.savez_compressed(buffer, allow_pickle=False, **examples)
                write_whole(path.with_suffix(".npz"), buffer.getvalue())
            text = json.dumps(result.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
            write_whole(path, text.encode())
        except OSError as error:
            raise ResultError(f"cannot write {path}: {error.strerror}; free space or choose another --results") from error

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
        """Return the result with its per-example values, where they were kept."""
        path = self.path(result.spec).with_suffix(".npz")
        if not path.exists():
            return result
        with np.load(path, allow_pickle=False) as arrays:
            scores = {n: Score(s.repeats, arrays[n]) if n in arrays else s for n, s in result.scores.items()}
        return replace(result, scores=scores)

    def _files(self) -> list[Path]:
        return sorted(self.root.glob("*/*.json"))


def read(path: Path) -> Result:
    """Return the result in a file.

    Raises:
        ResultError: It is no whole results file, or of a newer format.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultError(f"{path} is no whole results file ({error}); delete it and run its cell again") from error
    schema = data.get("schema") if isinstance(data, dict) else None
    if not isinstance(schema, int):
        raise ResultError(f"{path} has no schema number, so it is no results file; move it out of the results folder")
    if schema > SCHEMA:
        raise ResultError(f"{path} has schema {schema}, this version reads up to {SCHEMA}; upgrade, or choose another --results")
    try:
        return Result.from_json(data)
    except (KeyError, TypeError, AttributeError) as error:
        raise ResultError(f"{path} lacks a part of schema {schema} ({error}); delete it and run its cell again") from error
