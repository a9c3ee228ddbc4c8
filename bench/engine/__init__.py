"""Who computes: this process (``Inline``), or workers that own a device (``bench.engine.ray``).

The runner hands in jobs and takes their outcomes as they come; it does not know which engine it
has. There are three jobs: vectors of items, a whole cell that needs the network, and a training.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, Self

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
    score,
)
from bench.errors import UsageError

__all__ = [
    "Encode",
    "Engine",
    "Failure",
    "Inline",
    "Job",
    "Measure",
    "Measured",
    "Outcome",
    "Portion",
    "Train",
    "Training",
    "score",
    "start_engine",
]


class Engine(Protocol):
    """What computes jobs."""

    @property
    def hungry(self) -> bool:
        """Whether a worker has nothing to do, unless it loads an encoder that another one has."""
        ...

    @property
    def idle(self) -> bool:
        """Whether a worker has nothing to do, and would have nothing if all else is begun."""
        ...

    def submit(self, job: Job) -> None:
        """Take a job."""
        ...

    def wait(self) -> Outcome | None:
        """Return the next outcome, as soon as there is one; None if no job is left."""
        ...

    def provenance(self) -> Mapping[str, Any]:
        """Return what results should say of the workers."""
        ...

    def close(self) -> None:
        """Give up the jobs that are left, and free what they use."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class Inline:
    """The engine in this process: one job after the other, each while it is waited for."""

    def __init__(self) -> None:
        self._jobs: deque[Iterator[Outcome]] = deque()

    @property
    def hungry(self) -> bool:
        """Whether there is no job."""
        return not self._jobs

    @property
    def idle(self) -> bool:
        """Whether there is no job."""
        return not self._jobs

    def submit(self, job: Job) -> None:
        """Take a job."""
        self._jobs.append(do(job))

    def wait(self) -> Outcome | None:
        """Return the next outcome; None if no job is left."""
        if not self._jobs:
            return None
        outcome = next(self._jobs[0])
        if outcome.last:
            self._jobs.popleft()
        return outcome

    def provenance(self) -> Mapping[str, Any]:
        """Return nothing: the process of the run is described anyway."""
        return {}

    def close(self) -> None:
        """Give up the jobs that are left."""
        self._jobs.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def start_engine(
    workers: str | None = None, address: str | None = None, device: str = "auto"
) -> Engine:
    """Return the engine that the options ask for.

    Args:
        workers: Number of workers, or "auto": one for each GPU. None for "1", or for "auto" where
            there is an address.
        address: Of a cluster of Ray to join; "auto" for that at hand; None for none.
        device: Where encoders compute, as for ``bench run``.

    Raises:
        UsageError: No such number, no such cluster, or too little for the workers.
    """
    workers = workers or ("1" if address is None else "auto")
    if workers != "auto" and not (workers.isdecimal() and 0 < int(workers) < 10_000):
        raise UsageError(f"--workers takes a number from 1, or auto, got {workers!r}")
    if workers == "1" and address is None:
        return Inline()
    from bench.engine import ray  # noqa: PLC0415 - an extra

    n = None if workers == "auto" else int(workers)
    return ray.start(n, device) if address is None else ray.connect(address, n, device)
