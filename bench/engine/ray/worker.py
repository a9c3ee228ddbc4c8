"""What a worker does, in a process of its own: an actor that owns a device."""

import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from bench.embeddings import CachedEncoder
from bench.encoder import Encoder, Item, card, fingerprint
from bench.engine.work import Failure, Measured, Portion, Train, Training, do, encode, join, score
from bench.errors import EncodingError
from bench.store.provenance import record_provenance
from bench.task import Task
from bench.vectors import Vectors

_STEP = 0.5  # seconds between two messages of how far a training is


class Step(NamedTuple):
    """How far a training is, as ``bench.recipe.Progress`` takes it."""

    label: str
    done: int
    total: int


@dataclass(frozen=True)
class Reply:
    """What a worker answers.

    Attributes:
        value: What it computed.
        device: Where, such as "cuda".
        messages: What it logged, as level and text.
        records: New embeddings: an encoder's fingerprint, and a reference to what
            ``Vectors.save`` takes.
    """

    value: Portion | Measured | Path | Failure | Step
    device: str = ""
    messages: Sequence[tuple[int, str]] = ()
    records: Sequence[tuple[str, Any]] = ()


class Worker:
    """What an actor does; the weights of an encoder stay loaded from call to call."""

    def __init__(self) -> None:
        self._encoder: Encoder | None = None
        self._device = ""
        self._messages = _Messages()
        logging.getLogger("bench").addHandler(self._messages)
        logging.getLogger("adapters").addHandler(self._messages)

    def describe(self) -> dict[str, Any]:
        """Return the machine, versions and commit, as in the provenance of results."""
        return record_provenance()

    def encode(
        self, encoder: Encoder, items: Sequence[Item], identity: str, *, exact: bool
    ) -> Reply:
        """Return the vectors of items."""
        try:
            self._check(encoder, identity, exact=exact)
            return self._reply(join(encode(encoder, items, exact=exact)))
        except Exception as error:  # noqa: BLE001 - whatever an encoder raises
            return self._reply(Failure.of(error))

    def measure(
        self,
        encoder: Encoder,
        task: Task,
        seed: int,
        identity: str,
        *,
        exact: bool,
        folder: Path | None,
    ) -> Reply:
        """Return the scores of a cell.

        Args:
            encoder: The encoder.
            task: The task.
            seed: Its seed.
            identity: The encoder's fingerprint.
            exact: Whether every text is encoded in a batch of its own.
            folder: Of the embedding cache, which is read if this machine has it.
        """
        vectors = _Lent(folder)
        try:
            self._check(encoder, identity, exact=exact)
            value = score(CachedEncoder(encoder, vectors, exact=exact), task, seed)
        except Exception as error:  # noqa: BLE001 - whatever an encoder or a task raises
            return self._reply(Failure.of(error))
        return replace(self._reply(value), records=vectors.new)

    def train(self, training: Training, folder: Path) -> Iterator[Reply]:
        """Yield how far a training is, and in the end the folder of its checkpoint.

        Args:
            training: The training.
            folder: The working folder of the process that started it, for relative paths.
        """
        try:
            os.chdir(folder)
        except OSError as error:
            yield self._reply(Failure("failed", _not_shared(folder, error)))
            return
        if not training.out.is_dir():
            yield self._reply(Failure("failed", _not_shared(training.out)))
            return
        now, reported = Step("starting", 0, 0), None

        def show(label: str, done: int, total: int) -> None:
            nonlocal now
            now = Step(label, done, total)

        with ThreadPoolExecutor(1) as pool:  # a step may take minutes, and all of them count
            future = pool.submit(lambda: [each.value for each in do(Train(training, show))])
            while not future.done():
                if now != reported:
                    reported = now
                    yield self._reply(reported)
                wait([future], timeout=_STEP)
            yield self._reply(future.result()[-1])

    def _check(self, encoder: Encoder, identity: str, *, exact: bool) -> None:
        """Refuse an encoder that is another one here.

        Raises:
            EncodingError: Its weights, version or dtype differ.
        """
        if encoder == self._encoder:
            return
        found, own = card(encoder), fingerprint(encoder, exact=exact)
        if own != identity:
            raise EncodingError(
                f"expected the encoder {identity} of the machine that started the run, got {own} "
                f"on {os.uname().nodename}, in {found.dtype} on {found.device}: "
                "give --dtype, and have the same weights and versions everywhere"
            )
        self._encoder, self._device = encoder, found.device

    def _reply(self, value: Portion | Measured | Path | Failure | Step) -> Reply:
        return Reply(value, self._device, self._messages.take())


def _not_shared(folder: Path, error: OSError | None = None) -> str:
    """Return the reason why a training cannot write where the one who started it looks for it."""
    reason = f": {error.strerror}" if error else ""
    return (
        f"expected {folder.absolute()} on {os.uname().nodename}, as on the machine that started "
        f"the training{reason}: use a folder that all nodes see"
    )


class _Messages(logging.Handler):
    """Log messages, to be passed on."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._kept: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._kept.append((record.levelno, record.getMessage()))

    def take(self) -> list[tuple[int, str]]:
        kept, self._kept = self._kept, []
        return kept


class _Lent(Vectors):
    """The embedding cache as a worker has it: it reads, and what is new is not written."""

    def __init__(self, root: Path | None) -> None:
        super().__init__(root)
        self.new: list[tuple[str, Any]] = []

    def save(self, encoder: str, data: bytes) -> None:
        import ray  # noqa: PLC0415 - an extra

        self.new.append((encoder, ray.put(data)))
