"""Stages of a training: each is done once, resumes after a kill, and belongs to one training.

A note beside a stage's files names what decides its outcome, and the hash of each file. A stage of
other settings is refused; a damaged file is reported in the log and made again.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters._training.processes import main_first, main_process
from bench.encoder import digest
from bench.errors import DataError, UsageError
from bench.files import ESCAPED, sha256_of, write_atomic
from bench.recipe import Progress

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """A part of a training that is done once.

    Attributes:
        note: JSON file that describes it: ``of``, the key; ``files``, the hashes of its files; and
            once it is finished, what it took. With its own hash.
        key: What decides its outcome, plain JSON values.
    """

    note: Path
    key: Mapping[str, Any]

    def begin(self) -> dict[str, Any] | None:
        """Return what the stage took where it is finished; else mark it as begun and return None.

        Raises:
            UsageError: It was begun with other settings or data.
        """
        note = self.read()
        if not note:
            self.write({})
        files, took = note.pop("files", {}), note
        damaged = [name for name in files if not self.has(self.note.parent / name)]
        return None if damaged else took or None

    def has(self, file: Path) -> bool:
        """Say whether a file of the stage is there as it was written; a damaged one is removed."""
        wanted = self.read().get("files", {}).get(file.name)
        if wanted is None or not file.is_file():
            return False
        if sha256_of(file) == wanted:
            return True
        log.warning("%s is damaged: it is written again", file)
        if main_process():
            file.unlink(missing_ok=True)
        return False

    def add(self, *files: Path) -> None:
        """Note that files beside the note, of this stage, are whole."""
        note = self.read()
        hashes = {file.name: sha256_of(file) for file in files}
        self.write({**note, "files": {**note.get("files", {}), **hashes}})

    def finish(self, *files: Path, **took: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON values
        """Note that the stage is finished, and return what it took: at least one value."""
        self.add(*files)
        self.write({"files": self.read()["files"], **took})
        return took

    def read(self) -> dict[str, Any]:
        """Return what the note says besides the key; nothing where there is none or it is damaged.

        Raises:
            UsageError: It belongs to other settings or data.
        """
        if not self.note.is_file():
            return {}
        try:
            note = read_note(self.note)
            key = note.pop("of")
        except (ValueError, TypeError, KeyError):
            log.warning("%s is damaged: this stage runs again", self.note)
            return {}
        check_key(self.note, key, self.key)
        return note

    def write(self, note: Mapping[str, Any]) -> None:
        """Write the note with the key and a checksum, in the main process."""
        if main_process():
            whole = json.loads(json.dumps({"of": self.key, **note}))
            checked = {"sha256": digest(whole), "note": whole}
            write_atomic(self.note, json.dumps(checked, indent=1) + "\n")


class Journal:
    """A file that a stage adds to batch by batch, so that a kill costs one batch.

    Attributes:
        path: The file.
        progress: What the last batch noted; nothing at the beginning.
    """

    def __init__(self, stage: Stage, path: Path) -> None:
        """Go on where the file ends; a damaged file begins anew.

        Raises:
            UsageError: It was begun with other settings or data.
            DataError: There is such a file, and no note on it.
        """
        self.path, self._stage = path, stage
        note = stage.read()
        data = path.read_bytes() if path.is_file() else b""
        if data and not stage.note.is_file():
            raise DataError(
                f"expected {stage.note.name} beside {path}, got a file of unknown settings: "
                "move it, or choose another --out"
            )
        self._size = int(note.get("size", 0))
        self._hash = hashlib.sha256(data[: self._size])
        wanted = note.get("sha256", self._hash.hexdigest())  # older notes have none
        self.progress: dict[str, Any] = note.get("progress", {})
        unknown = bool(data) and not self._size
        if unknown or len(data) < self._size or self._hash.hexdigest() != wanted:
            log.warning("%s is damaged: it starts again", path)
            self._size, self._hash, self.progress = 0, hashlib.sha256(), {}

    def append(self, data: bytes, **progress: Any) -> None:  # noqa: ANN401 - plain JSON values
        """Add a batch, on the disk when this returns, and note the progress so far."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self._size:
            self._note()  # a file without a note is not this stage's
        with self.path.open("ab") as file:
            file.truncate(self._size)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self._size += len(data)
        self._hash.update(data)
        self.progress = progress
        self._note()

    def read(self) -> bytes:
        """Return all batches."""
        return self.path.read_bytes()[: self._size] if self._size else b""

    def _note(self) -> None:
        size, digest = self._size, self._hash.hexdigest()
        self._stage.write({"size": size, "sha256": digest, "progress": self.progress})


def compute_chunks(
    stage: Stage,
    file: Path,
    sizes: Sequence[int],
    chunk: int,
    compute: Callable[[list[int]], tuple[dict[str, Any], int]],
    *,
    label: str,
    progress: Progress,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return what a computation gives for each chunk of examples, and the tokens and time it took.

    The main process computes. Each result is a line of a file, and is not computed again.

    Args:
        stage: What decides the outcome.
        file: Where to.
        sizes: Tokens of each example; the longest are computed first.
        chunk: Examples at once.
        compute: From numbers of examples to plain JSON values and the tokens that it took.
        label: Of the progress.
        progress: Called with the number of examples.
    """
    order = sorted(range(len(sizes)), key=lambda i: -sizes[i])
    chunks = [order[i : i + chunk] for i in range(0, len(order), chunk)]
    with main_first():
        journal = Journal(stage, file)
        done = journal.progress or {"chunks": 0, "positions": 0, "seconds": 0.0}
        for some in chunks[done["chunks"] :]:
            progress(label, done["chunks"] * chunk, len(order))
            start = time.perf_counter()
            values, tokens = compute(some)
            line = json.dumps(values, ensure_ascii=False).encode("utf-8", ESCAPED) + b"\n"
            done = {
                "chunks": done["chunks"] + 1,
                "positions": done["positions"] + tokens,
                "seconds": round(done["seconds"] + time.perf_counter() - start, 3),
            }
            journal.append(line, **done)
    took = {"positions": done["positions"], "seconds": round(done["seconds"], 1)}
    return [json.loads(line) for line in journal.read().splitlines()], took


def read_note(path: Path) -> dict[str, Any]:
    """Return a stage's note as it was written; notes of earlier versions have no checksum.

    Raises:
        OSError: There is none.
        ValueError, TypeError, KeyError: It is damaged.
    """
    found = dict(json.loads(path.read_bytes()))
    if "note" not in found:
        return found
    note = dict(found["note"])
    if digest(note) != found["sha256"]:
        raise ValueError(f"{path} is not as it was written")
    return note


def check_key(path: Path, found: object, wanted: object) -> None:
    """Check that a file belongs to a training, by what decides the outcome: plain JSON values.

    Raises:
        UsageError: It belongs to another.
    """
    if found != json.loads(json.dumps(wanted)):
        raise UsageError(
            f"{path} belongs to a training with other settings or data: "
            "delete its folder, or choose another --out"
        )
