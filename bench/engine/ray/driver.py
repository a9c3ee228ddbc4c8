"""The driver: the engine in the process that started the run, which hands out the work."""

import contextlib
import logging
import os
import pickle
import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from bench.embeddings import count_characters
from bench.encoder import Item, same_length, shortened, windows
from bench.engine.ray.worker import Reply, Step, Worker
from bench.engine.work import Encode, Failure, Job, Measure, Measured, Outcome, Portion, Train
from bench.errors import EncodingError, UsageError
from bench.process import raise_if_stopped
from bench.store.provenance import record_provenance

log = logging.getLogger(__name__)

_SECONDS = 2.0  # of a portion
_AHEAD = 3  # portions that a worker has: one that it computes, others that it need not wait for
_DEATHS = 3  # workers that a portion may end
_SAID = 60.0  # seconds between two messages that a worker has no place
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
            log.warning("a worker has died, others take over its work: %s", kind)
        if self._failed_starts > _DEATHS * len(self._places):
            reason = " ".join(str(error).split())[:300]
            raise UsageError(
                f"workers do not start ({reason}): is this version installed on all nodes?"
            )
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
            log.warning("a worker has other versions than this machine: %s", ", ".join(pairs))

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
