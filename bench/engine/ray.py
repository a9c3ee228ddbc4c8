"""The engine on Ray: workers that own a device, on this machine or on the nodes of a cluster.

A worker is an actor with a GPU, a share of one, or some CPU cores. It gets portions of an
encoder's items and gives vectors back, does a whole cell, or trains. It writes nothing but
checkpoints: the process that started the run keeps vectors and results. Portions are
``bench.encoder.windows``, which no batch crosses, so that an encoder gives the same vectors here as
in one process on the same hardware.
"""

import contextlib
import logging
import math
import os
import pickle
import secrets
import signal
import socket
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from bench.embeddings import CachedEncoder, count_characters
from bench.encoder import (
    Encoder,
    Item,
    card,
    fingerprint,
    same_length,
    shortened,
    windows,
)
from bench.engine.work import (
    Encode,
    Failure,
    Job,
    Measure,
    Measured,
    Outcome,
    Portion,
    Train,
    Training,
    do,
    encode,
    join,
    score,
)
from bench.errors import EncodingError, UsageError
from bench.files import temporary_folder
from bench.process import STOP_SIGNALS, environment, raise_if_stopped
from bench.provenance import record_provenance
from bench.task import Task
from bench.vectors import Vectors

log = logging.getLogger(__name__)

_SECONDS = 2.0  # of a portion
_AHEAD = 3  # portions that a worker has: one that it computes, others that it need not wait for
_DEATHS = 3  # workers that a portion may end
_STEP = 0.5  # seconds between two messages of how far a training is
_SAID = 60.0  # seconds between two messages that a worker has no place
_STORE = 512 << 20  # bytes of Ray's memory for what is on its way
_SOCKETS = 30  # characters of a temporary folder's path, in which sockets have room for their names
_FOLDERS = ("BENCH_DATA", "BENCH_CACHE", "BENCH_DOWNLOADS")
_PASSED_ON = ("HF_HUB_OFFLINE", "TRANSFORMERS_VERBOSITY")


class Request(NamedTuple):
    """What a worker takes of a node.

    Attributes:
        cpus: Cores.
        gpus: A GPU, a share of one, or 0.
        threads: Threads that compute.
    """

    cpus: int
    gpus: float
    threads: int

    def __str__(self) -> str:
        return f"{self.gpus:.3g} of a GPU" if self.gpus else f"{self.threads} threads"


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


@dataclass(eq=False)
class _WorkPart:
    """What a worker gets at once: a portion of an ``Encode``, or another job as a whole.

    Attributes:
        state: The job's.
        positions: int64 (n,), which of the items; none for another job than an ``Encode``.
        size: Characters of them.
        deaths: Workers that have ended while they had it; after one it is computed alone.
    """

    state: "_State"
    positions: NDArray[np.int64]
    size: int = 0
    deaths: int = 0

    def items(self) -> list[Item]:
        """Return the items."""
        job = self.state.job
        return [job.items[i] for i in self.positions] if isinstance(job, Encode) else []


@dataclass(eq=False)
class _State:
    """How far a job is.

    Attributes:
        job: The job.
        left: Parts that no worker has, in order.
        size: Characters of them.
        handed_out: How many parts workers have.
        failure: Why the job has no whole outcome.
        dim: Length of its vectors; 0 if not known yet.
        speed: Characters a second of one worker; 0 if not known yet.
    """

    job: Job
    left: deque[_WorkPart] = field(default_factory=deque)
    size: int = 0
    handed_out: int = 0
    failure: Failure | None = None
    dim: int = 0
    speed: float = 0.0

    @property
    def identity(self) -> str:
        """The encoder's fingerprint; "" for a training."""
        return "" if isinstance(self.job, Train) else self.job.encoder.fingerprint


@dataclass(eq=False)
class _WorkerPlace:
    """A worker, as the driver sees it.

    Attributes:
        actor: Ray's handle.
        starting: Until it is there, what it will answer then.
        calls: What it has to do, by the references to its answers; it does the first one now.
        identity: The encoder it has loaded, or loads now, by its fingerprint.
        loaded: Whether it has computed with this encoder.
    """

    actor: Any
    starting: Any
    calls: dict[Any, _WorkPart] = field(default_factory=dict)
    identity: str = ""
    loaded: bool = False

    @property
    def reference(self) -> Any:  # noqa: ANN401 - Ray's
        """What it will answer next; None if it has nothing to do."""
        return self.starting or next(iter(self.calls), None)


class RayEngine:
    """The engine on Ray, which is connected already.

    Args:
        request: What each worker takes.
        workers: How many there are.
        stack: What ends with the engine.
    """

    def __init__(self, request: Request, workers: int, stack: contextlib.ExitStack) -> None:
        self._request, self._stack = request, stack
        self._states: dict[Job, _State] = {}
        self._outcomes: deque[Outcome] = deque()
        self._deadly: dict[tuple[str, Item], Failure] = {}
        self._machines: list[dict[str, Any]] = []
        self._places = [self._start() for _ in range(workers)]
        log.info("Ray: %d workers, each with %s", workers, request)
        self._said, self._failed_starts = time.monotonic(), 0

    @property
    def hungry(self) -> bool:
        """Whether a worker has nothing to do but to help with an encoder that others have."""
        self._hand_out(helping=False)
        resting = [place for place in self._places if not place.calls]
        loaded = {place.identity for place in self._places if place.calls}
        waiting = {state.identity for state in self._states.values() if state.left} - loaded
        return len(resting) > len(waiting)

    @property
    def idle(self) -> bool:
        """Whether there are more workers without work than parts that no worker has."""
        if not self.hungry:
            return False
        resting = sum(not place.calls for place in self._places)
        return resting > sum(len(state.left) for state in self._states.values())

    def submit(self, job: Job) -> None:
        """Take a job."""
        state = self._states[job] = _State(job)
        if not isinstance(job, Encode):
            state.left.append(_WorkPart(state, np.empty(0, np.int64)))
            return
        if self._deadly:
            known = (self._deadly.get((state.identity, item)) for item in job.items)
            state.failure = next(filter(None, known), None)
            self._end_failed(state)
        if state.failure:
            return
        device = "cuda" if self._request.gpus else "cpu"
        for positions in windows(job.encoder.inner, job.items, device):
            size = count_characters(job.items[i] for i in positions)
            state.left.append(_WorkPart(state, positions, size))
            state.size += size

    def wait(self) -> Outcome | None:
        """Return the next outcome; None if no job is left."""
        import ray  # noqa: PLC0415 - an extra

        while not self._outcomes and self._states:
            self._hand_out(helping=True)
            references = {p.reference: p for p in self._places if p.reference is not None}
            done, _ = ray.wait(list(references), timeout=1.0)
            raise_if_stopped()
            for reference in done:
                self._take(references[reference], reference)
            self._say_waiting()
        return self._outcomes.popleft() if self._outcomes else None

    def provenance(self) -> dict[str, Any]:
        """Return the machines of the workers, for the provenance of results."""
        return {"workers": list(self._machines)}

    def close(self) -> None:
        """End all workers, and Ray if it was started here."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> _WorkerPlace:
        """Start a worker; it is there as soon as a node has room for it."""
        import ray  # noqa: PLC0415 - an extra

        cpus, gpus, threads = self._request
        variables = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        folders = {name: os.environ[name] for name in _FOLDERS if os.environ.get(name)}
        variables |= {name: str(Path(folder).absolute()) for name, folder in folders.items()}
        installed = sys.prefix, sys.base_prefix  # all else may have the user's own modules
        own = [path for path in sys.path if path and not path.startswith(installed)]
        variables["PYTHONPATH"] = os.pathsep.join(own)
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
            variables[name] = os.environ.get(name, str(threads))
        actor = (
            ray.remote(Worker)
            .options(
                num_cpus=cpus,
                num_gpus=gpus,
                scheduling_strategy="SPREAD",
                runtime_env={"env_vars": variables},
            )
            .remote()
        )
        return _WorkerPlace(actor, actor.describe.remote())

    def _hand_out(self, *, helping: bool) -> None:
        """Give workers what they can do.

        Args:
            helping: Let a worker without work load an encoder that another one has.
        """
        for place in self._places:
            while part := self._choose(place, helping=helping):
                self._call(place, part)

    def _choose(self, place: _WorkerPlace, *, helping: bool) -> _WorkPart | None:
        """Return what a worker does next; None for nothing yet."""
        if place.starting is not None or len(place.calls) >= _AHEAD:
            return None
        if any(not isinstance(part.state.job, Encode) for part in place.calls.values()):
            return None
        states = [state for state in self._states.values() if state.left]
        if place.calls:  # more of the same, so that it need not wait
            if any(part.deaths for part in place.calls.values()):
                return None
            own = [s for s in states if s.identity == place.identity and isinstance(s.job, Encode)]
            return self._cut(own[0]) if own and not own[0].left[0].deaths else None
        loaded = {other.identity for other in self._places if other.calls}
        own = [s for s in states if s.identity == place.identity]
        new = [s for s in states if s.identity not in loaded]
        most = sorted(states, key=lambda s: -s.size) if helping else []
        chosen = next(iter([*own, *new, *most]), None)
        return self._cut(chosen) if chosen else None

    def _cut(self, state: _State) -> _WorkPart:
        """Return the next part of a job, joined with those after it up to a few seconds of work."""
        part = state.left.popleft()
        state.size -= part.size
        if part.deaths or not isinstance(state.job, Encode):
            return part
        wanted = min(state.speed * _SECONDS, state.size / (2 * len(self._places)))
        windows_, size = [part.positions], part.size
        while state.left and not state.left[0].deaths and size + state.left[0].size <= wanted:
            following = state.left.popleft()
            state.size -= following.size
            windows_.append(following.positions)
            size += following.size
        return _WorkPart(state, np.concatenate(windows_), size)

    def _call(self, place: _WorkerPlace, part: _WorkPart) -> None:
        job, identity = part.state.job, part.state.identity
        try:
            if isinstance(job, Train):
                job.training.out.mkdir(parents=True, exist_ok=True)
                reference = place.actor.train.remote(job.training, Path.cwd())
            elif isinstance(job, Measure):
                encoder, exact = job.encoder.inner, job.encoder.exact
                folder = job.encoder.vectors.root
                reference = place.actor.measure.remote(
                    encoder, job.task, job.seed, identity, exact=exact, folder=folder
                )
            else:
                encoder, exact = job.encoder.inner, job.encoder.exact
                reference = place.actor.encode.remote(encoder, part.items(), identity, exact=exact)
        except (TypeError, pickle.PicklingError) as error:
            self._fail(part.state, _unsendable(error.__cause__ or error))
            return
        if place.identity != identity:
            place.identity, place.loaded = identity, False
        place.calls[reference] = part
        part.state.handed_out += 1

    def _take(self, place: _WorkerPlace, reference: Any) -> None:  # noqa: ANN401 - Ray's
        """Take in what a worker has answered."""
        import ray  # noqa: PLC0415 - an extra

        try:
            streams = isinstance(reference, ray.ObjectRefGenerator)
            answer = ray.get(next(reference) if streams else reference)
        except ray.exceptions.RayTaskError as error:
            answer = Reply(Failure("failed", str(error).strip().splitlines()[-1]))
        except ray.exceptions.RayError as error:
            self._replace(place, error)
            return
        if place.starting is not None:
            place.starting, self._failed_starts = None, 0
            self._know(answer)
            return
        for level, message in answer.messages:
            log.log(level, "%s", message)
        job = place.calls[reference].state.job
        if isinstance(answer.value, Step) and isinstance(job, Train):
            job.progress(*answer.value)
            return
        part = place.calls.pop(reference)
        part.state.handed_out -= 1
        if isinstance(answer.value, Portion) and place.loaded:  # not while it loaded the weights
            part.state.speed = part.size / max(answer.value.cost.encode_seconds, 1e-6)
        place.loaded = True
        self._keep(part, answer)

    def _keep(self, part: _WorkPart, answer: Reply) -> None:
        """Make an outcome of an answer."""
        state, value = part.state, answer.value
        for identity, reference in answer.records:
            self._adopt(state.job, identity, reference)
        if isinstance(value, Failure):
            self._fail(state, value)
            return
        assert not isinstance(value, Step)  # noqa: S101 - for the type checker; _take shows it
        last = True
        if isinstance(value, Portion):
            batch = replace(value.batch, positions=part.positions[value.batch.positions])
            assert isinstance(state.job, Encode)  # noqa: S101 - likewise
            try:  # within a part the worker has checked it
                state.dim = same_length(batch, state.job.items, state.dim)
            except EncodingError as error:
                self._fail(state, Failure.of(error))
                return
            value = replace(value, batch=batch, device=answer.device)
            last = not (state.left or state.handed_out or state.failure)
        elif isinstance(value, Measured):
            value = replace(value, device=answer.device)
        self._outcomes.append(Outcome(state.job, value, last))
        if last:
            del self._states[state.job]
        else:
            self._end_failed(state)

    def _fail(self, state: _State, failure: Failure) -> None:
        """Give up a job, as in one process, where the first failure ends it."""
        state.failure = state.failure or failure
        state.left.clear()
        self._end_failed(state)

    def _end_failed(self, state: _State) -> None:
        """Give the failure of a job as its last outcome, when nothing of it is under way."""
        if state.failure and not state.left and not state.handed_out:
            self._outcomes.append(Outcome(state.job, state.failure, last=True))
            del self._states[state.job]

    def _adopt(self, job: Job, identity: str, reference: Any) -> None:  # noqa: ANN401 - Ray's
        """Keep embeddings that a worker has made for a cell; lost ones are computed again."""
        import ray  # noqa: PLC0415 - an extra

        try:
            data = ray.get(reference)
        except ray.exceptions.RayError as error:
            log.info("embeddings are lost with their worker: %s", type(error).__name__)
        else:
            if isinstance(job, Measure):
                job.encoder.vectors.of(identity).adopt(data)

    def _replace(self, place: _WorkerPlace, error: Exception) -> None:
        """Start another worker for one that has ended; others do what it had to do.

        Raises:
            UsageError: Workers end before they are there.
        """
        self._failed_starts += place.starting is not None
        if place.calls:
            kind = type(error).__name__
            log.warning("a worker has ended, others do what it had to do: %s", kind)
        if self._failed_starts > _DEATHS * len(self._places):
            reason = " ".join(str(error).split())[:300]
            raise UsageError(f"workers do not start; is bench installed on all nodes? {reason}")
        for part in place.calls.values():
            state = part.state
            state.handed_out -= 1
            part.deaths += 1  # which one it was shows when each is computed alone
            if part.deaths >= _DEATHS:
                state.failure = self._give_up(part)
                state.left.clear()
            elif not state.failure:
                state.left.appendleft(part)
                state.size += part.size
            self._end_failed(state)
        self._places[self._places.index(place)] = self._start()

    def _give_up(self, part: _WorkPart) -> Failure:
        """Return the failure of a part that ends its workers; its items are not tried again."""
        items, job = part.items(), part.state.job
        if isinstance(job, Measure):
            what = f"{job.task.name} ended"
        elif isinstance(job, Train):
            what = f"{job.training.out} ended"
        else:
            longest = max(items, key=lambda item: len(item.text)).text
            what = f"{len(items)} texts, the longest of them {shortened(longest)}, ended"
        advice = "has it too little memory? --workers 1 computes in this process"
        failure = Failure(
            "failed", f"{what} the worker that computed it, {_DEATHS} times: {advice}"
        )
        self._deadly.update({(part.state.identity, item): failure for item in items})
        return failure

    def _know(self, machine: Mapping[str, Any]) -> None:
        """Take note of a worker's machine, and warn if its software is not that of this one."""
        own = record_provenance()
        known = {k: machine[k] for k in ("commit", "versions", "machine")}
        if known in self._machines:
            return
        self._machines.append(known)
        versions = {**machine["versions"], "commit": machine["commit"]}
        here = {**own["versions"], "commit": own["commit"]}
        differ = sorted(k for k in versions | here if versions.get(k) != here.get(k))
        if differ:
            pairs = (f"{k} {versions.get(k)} instead of {here.get(k)}" for k in differ)
            log.warning("a worker has other software than this machine: %s", ", ".join(pairs))

    def _say_waiting(self) -> None:
        """Say now and then that no worker has a place, if that is so."""
        if any(place.starting is None for place in self._places):
            self._said = time.monotonic()
        elif time.monotonic() - self._said > _SAID:
            self._said = time.monotonic()
            log.warning("waiting for a node that has room for a worker with %s", self._request)


def _unsendable(error: BaseException) -> Failure:
    """Return the failure of a job that cannot be pickled."""
    return Failure(
        "failed",
        f"expected encoders, tasks and recipes that can be pickled, got: {error}: "
        "keep all but settings out of their fields, or compute in this process with --workers 1",
    )


def start(workers: int | None, device: str = "auto") -> RayEngine:
    """Start Ray on this machine, reachable from it alone, and return its engine.

    Args:
        workers: How many; None for one for each GPU.
        device: Where encoders compute, as for ``bench run``.

    Raises:
        UsageError: The machine has too little for the workers.
    """
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(temporary_folder(_short_folder()))
        stack.enter_context(environment(_safe_settings()))
        address = _connect(
            stack,
            address="local",
            num_cpus=1,
            include_dashboard=False,
            object_store_memory=_STORE,
            _temp_dir=str(folder),
        )
        if not address.startswith("127."):
            raise UsageError(f"expected Ray on 127.0.0.1 alone, got {address}: unset RAY_ADDRESS")
        nodes = _nodes()
        gpus = _count_gpus(nodes, device)
        n = workers or max(gpus, 1)
        if not gpus and n > cores:
            raise UsageError(f"expected at most a worker a core, got {n}: there are {cores} cores")
        # No cores are reserved: on this machine nothing else is placed.
        request = Request(0, _gpu_share(gpus, n), max(cores // n, 1))
        return RayEngine(request, n, stack.pop_all())


def connect(address: str, workers: int | None, device: str = "auto") -> RayEngine:
    """Join a cluster of Ray and return its engine.

    Args:
        address: Of the cluster; "auto" for that at hand.
        workers: How many; None for one for each GPU, or without one for each node with cores.
        device: Where encoders compute, as for ``bench run``.

    Raises:
        UsageError: There is no such cluster, or it has too little for the workers.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(environment({"RAY_USAGE_STATS_ENABLED": "0"}))
        _connect(stack, address=address)
        nodes = _nodes()
        gpus = _count_gpus(nodes, device)
        computing = sum(node.get("CPU", 0) >= 1 for node in nodes)  # a head may have no cores
        n = workers or gpus or max(computing, 1)
        if gpus:
            return RayEngine(Request(1, _gpu_share(gpus, n), 1), n, stack.pop_all())
        cpus = _cpu_share([int(node.get("CPU", 0)) for node in nodes], n)
        if not cpus:
            found = _describe_nodes(nodes)
            raise UsageError(f"expected at most a worker a core, got {n}: the cluster has {found}")
        return RayEngine(Request(cpus, 0.0, cpus), n, stack.pop_all())


@cache
def _safe_settings() -> dict[str, str]:
    """Return the variables with which Ray listens on the loopback alone, and asks for a token.

    They are the same for all of the process, since Ray reads them once.

    Raises:
        UsageError: Ray was imported already, without them.
    """
    if "ray" in sys.modules and os.environ.get("RAY_AUTH_MODE") != "token":
        raise UsageError(
            "expected to import Ray here, with safe settings, but it was imported before: "
            "use the cluster that is connected (ray='auto'), or another process"
        )
    return {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # which also makes it listen on 127.0.0.1
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def _connect(stack: contextlib.ExitStack, **options: Any) -> str:  # noqa: ANN401 - of Ray
    """Connect this process to Ray, until the stack ends, and return the address of its node.

    Raises:
        UsageError: There is no such cluster, or one is to be started beside another.
    """
    import ray  # noqa: PLC0415 - an extra

    # Ray has no option against the messages that it prints to stdout, where results go.
    if hasattr(ray._private.worker, "listen_error_messages"):  # noqa: SLF001
        ray._private.worker.listen_error_messages = _ignore  # noqa: SLF001
    if options["address"] not in {"local", "auto"}:
        _check_address(options["address"])
    if ray.is_initialized():
        if options["address"] == "local":
            raise UsageError(
                "expected to start Ray here, but this process is connected to it already: "
                "compute there (ray='auto'), or call ray.shutdown() before"
            )
        return str(ray.util.get_node_ip_address())
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    stack.callback(ray.shutdown)
    stopped = False
    try:
        context = ray.init(log_to_driver=False, logging_level="ERROR", **options)
    except SystemExit:  # Ray's own answer to SIGTERM, until its handler is gone
        stopped = True
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"cannot connect to Ray at {options['address']}: {reason}") from error
    finally:
        for number, handler in handlers.items():  # Ray has its own for SIGTERM
            with contextlib.suppress(ValueError):  # in another thread
                signal.signal(number, handler)
    if stopped:
        signal.raise_signal(signal.SIGTERM)
    return str(context.address_info["node_ip_address"])


def _ignore(*_: object) -> None:
    """Do nothing."""


def _check_address(address: str) -> None:
    """Check that somebody listens at HOST:PORT: Ray itself tries for minutes.

    Raises:
        UsageError: Nobody does, or the address is of another form.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or "/" in address:
        raise UsageError(f"--ray takes HOST:PORT of a cluster's head, or auto, got {address!r}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise UsageError(f"cannot connect to Ray at {address}: {error}") from error


def _nodes() -> list[dict[str, float]]:
    """Return the resources of each node that is there."""
    import ray  # noqa: PLC0415 - an extra

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _count_gpus(nodes: Sequence[Mapping[str, float]], device: str) -> int:
    """Return how many GPUs workers may use.

    Raises:
        UsageError: There are none, and they are asked for.
    """
    gpus = 0 if device == "cpu" else int(sum(node.get("GPU", 0) for node in nodes))
    if device.startswith("cuda:"):
        raise UsageError(f"expected --device cuda with several workers, got {device}: each has one")
    if device == "cuda" and not gpus:
        raise UsageError(f"expected a GPU, as --device says: there are {_describe_nodes(nodes)}")
    return gpus


def _gpu_share(gpus: int, workers: int) -> float:
    """Return how much of a GPU each worker has: one, or an equal share; 0 where there is none."""
    if not gpus:
        return 0.0
    return 1.0 if workers <= gpus else math.floor(1e4 / math.ceil(workers / gpus)) / 1e4


def _cpu_share(cores: Sequence[int], workers: int) -> int:
    """Return the most cores that each worker can have, on nodes with these; 0 for too many."""
    shares = range(max(cores, default=0), 0, -1)
    return next((k for k in shares if sum(n // k for n in cores) >= workers), 0)


def _describe_nodes(nodes: Sequence[Mapping[str, float]]) -> str:
    each = (f"{node.get('CPU', 0):g} cores and {node.get('GPU', 0):g} GPUs" for node in nodes)
    return f"{len(nodes)} nodes with " + "; ".join(each)


def _short_folder() -> Path:
    """Return a folder of this user's for temporary folders, with a short path.

    Raises:
        UsageError: It belongs to another user.
    """
    root = Path(tempfile.gettempdir())
    if len(str(root)) > _SOCKETS:
        root = Path("/tmp")  # noqa: S108 - the folder in it is this user's
    folder = root / f"bench-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise UsageError(f"expected {folder} to be yours: remove it, or set TMPDIR")
    return folder
