"""The evaluation loop: for every encoder, embed what its tasks need in one pass, then score."""

import contextlib
import json
import logging
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self

import psutil

from bench import data
from bench.claims import Claims, read_owner
from bench.embeddings import CachedEncoder, Progress, silent
from bench.encoder import Encoder, Item, card, fingerprint
from bench.errors import (
    BenchError,
    DataError,
    ResultError,
    Unavailable,
    UsageError,
    install_hint,
    one_line,
)
from bench.files import hide_home, remove_leftovers
from bench.process import raise_if_stopped
from bench.provenance import record_provenance
from bench.result import Absence, Result, RunSpec
from bench.store import Store
from bench.task import NetworkTask, Task, record_original
from bench.vectors import Vectors

log = logging.getLogger(__name__)

CHUNK = 1_000_000
"""Characters of the cells that a process takes at a time: encoded in one pass, shared in parts."""

_SHORT, _LONG = 0.5, 15.0  # seconds between two looks at the cells of other processes

Status = Literal["planned", "running", "done", "cached", "skipped", "failed"]


@dataclass(frozen=True)
class Cell:
    """One cell of the grid and its state.

    Attributes:
        encoder: Name of the encoder.
        task: The task.
        seed: The seed given to it.
        status: planned (not run yet), running (in another process), done, cached (has a result
            already), skipped or failed.
        spec: Description of the cell, the key of its result.
        result: Of done and cached cells.
        reason: Why it was skipped or failed, or that another process has run or runs it.
        seconds: Time of this cell, without the encoding that cells of the encoder share.
        items: What the task will have embedded, for planned cells.
    """

    encoder: str
    task: Task
    seed: int
    status: Status
    spec: RunSpec | None = None
    result: Result | None = None
    reason: str = ""
    seconds: float = 0.0
    items: tuple[Item, ...] = field(default=(), repr=False)

    def row(self) -> dict[str, Any]:
        """Return the cell as one flat record, for tables and for ``--json``."""
        score = self.result.main if self.result else None
        return {
            "encoder": self.encoder,
            "task": self.task.name,
            "family": self.task.family,
            "readout": self.task.readout,
            "metric": self.task.metric,
            "score": score.mean if score else None,
            "spread": score.spread if score else None,
            "repeats": len(score.repeats) if score else 0,
            "seed": self.seed,
            "limit": self.task.limit,
            "trained": self.result.card.get("trained") if self.result else None,
            "seconds": round(self.seconds, 3),
            "status": self.status,
            "reason": self.reason,
        }


def survey(  # noqa: PLR0913 - one parameter an option
    name: str,
    encoder: Encoder,
    tasks: Sequence[Task],
    store: Store,
    *,
    seeds: Sequence[int],
    force: bool = False,
    exact: bool = False,
    trial: bool = False,
    part: slice = slice(None),
) -> list[Cell]:
    """Return the cells of an encoder before a run: cached, skipped, failed, or planned with items.

    Args:
        name: The encoder's name.
        encoder: The encoder; its weights' digest is read, its network is not loaded.
        tasks: The tasks; their data is loaded where they have items.
        store: The results.
        seeds: One cell per seed.
        force: Plan cells that have a result, too.
        exact: Plan for every text in a batch of its own.
        trial: Load the data of tasks without items, too.
        part: Which of the encoder's cells; see ``Shard``.
    """
    cells = [Cell(name, task, seed, "planned") for task in tasks for seed in seeds][part]
    try:
        fingerprint(encoder)
    except Exception as error:  # without its weights no cell has a spec
        raise_if_stopped()
        log.debug("%s cannot be identified", name, exc_info=error)
        status: Status = "skipped" if install_hint(error) else "failed"
        return [replace(cell, status=status, reason=one_line(error)) for cell in cells]
    return [
        _attempt(_survey, cell, encoder, store, force=force, exact=exact, trial=trial)
        for cell in cells
    ]


@dataclass(frozen=True)
class Shard:
    """A fixed part of the grid, for a process that shares it without looking at the others.

    Cells go to the shards in turn, and each encoder begins with the next shard, so that a large
    task is not always in the same one.

    Attributes:
        number: From 1 to ``count``.
        count: Number of shards.
    """

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the shard that a text such as "2/8" names.

        Raises:
            UsageError: It names none.
        """
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        number, count = (int(found[1]), int(found[2])) if found else (0, 0)
        if not 1 <= number <= count:
            raise UsageError(
                f"--shard takes NUMBER/COUNT with a number from 1 to the count, such as 2/8, "
                f"got {text!r}"
            )
        return cls(number, count)

    def of(self, encoder: int) -> slice:
        """Return which cells of an encoder are in the shard, given the encoder's place."""
        return slice((self.number - 1 - encoder) % self.count, None, self.count)

    def size(self, encoders: int, cells: int) -> int:
        """Return the number of cells in the shard, given that of encoders and of cells of each."""
        return sum(len(range(cells)[self.of(encoder)]) for encoder in range(encoders))


def run(  # noqa: PLR0913 - one parameter an option
    encoders: Mapping[str, Encoder],
    tasks: Sequence[Task],
    store: Store,
    vectors: Vectors,
    *,
    seeds: Sequence[int] = (42,),
    keep_going: bool = False,
    force: bool = False,
    exact: bool = False,
    shard: Shard = Shard(),
    wait: bool = True,
    progress: Progress = silent,
) -> Iterator[Cell]:
    """Yield every cell of the grid as it ends.

    Processes on one folder of results share the cells: each takes those that no other one runs
    (``bench.claims``), and yields what others did in the end.

    Args:
        encoders: Encoders by name.
        tasks: The tasks.
        store: Results, read and written; a cell that has one is not run again.
        vectors: The embedding cache.
        seeds: Seeds given to the tasks.
        keep_going: Go on after a failed cell; otherwise the failed cell is the last one.
        force: Run cells that have a result, too.
        exact: Encode every text in a batch of its own, for the same bits every time; see
            ``CachedEncoder``.
        shard: Only this part of the grid.
        wait: Wait in the end for cells that other processes run, and run those whose process dies;
            otherwise they are yielded as running.
        progress: Called with what is being done.
    """
    remove_leftovers(store.root)
    with Claims(store.root) as claims:
        plans = (
            survey(
                name,
                encoder,
                tasks,
                store,
                seeds=seeds,
                force=force,
                exact=exact,
                part=shard.of(place),
            )
            for place, (name, encoder) in enumerate(encoders.items())
        )
        pairs = zip(encoders.values(), plans, strict=True)
        for cell in _share(pairs, store, vectors, claims, progress, exact=exact, wait=wait):
            if cell.status in {"skipped", "failed"}:
                _record_absence(cell, store)
            if cell.spec:
                claims.release(store.claim_path(cell.spec))
            yield cell
            if cell.status == "failed" and not keep_going:
                return


def _share(
    plans: Iterable[tuple[Encoder, list[Cell]]],
    store: Store,
    vectors: Vectors,
    claims: Claims,
    progress: Progress,
    *,
    exact: bool,
    wait: bool,
) -> Iterator[Cell]:
    """Yield the cells of all encoders as they end, here or in other processes."""
    queues: list[_Queue] = []
    for encoder, cells in plans:
        checked = [_attempt(_check_store, cell, store) for cell in cells]
        yield from (cell for cell in checked if cell.status != "planned")
        planned = [cell for cell in checked if cell.status == "planned"]
        if planned:
            report = _labelled(progress, planned[0].encoder)
            cached = CachedEncoder(encoder, vectors, report, exact=exact)
            queues.append(_Queue(cached, planned, store, claims, report))
            yield from queues[-1].run()
    pause = _SHORT
    while wait and (left := sum(len(queue.cells) for queue in queues)):
        progress("waiting for cells of other processes", 0, left)
        time.sleep(pause)
        pause = min(2 * pause, _LONG)
        for queue in queues:
            yield from queue.run()
    for queue in queues:
        yield from queue.cells


def _labelled(progress: Progress, name: str) -> Progress:
    """Return a callback that puts the name of an encoder before its labels."""

    def report(label: str, done: int, total: int) -> None:
        progress(f"{name}: {label}", done, total)

    return report


class _Queue:
    """The planned cells of an encoder that have not ended, here or in another process."""

    def __init__(
        self,
        encoder: CachedEncoder,
        cells: Sequence[Cell],
        store: Store,
        claims: Claims,
        progress: Progress,
    ) -> None:
        self.cells = list(cells)
        self._encoder, self._store, self._claims = encoder, store, claims
        self._progress, self._total = progress, len(cells)

    def run(self) -> Iterator[Cell]:
        """Yield the cells that no other process runs, as they end; the others stay in ``cells``."""
        free, self.cells = deque(self.cells), []
        while free:
            chunk: list[Cell] = []
            size = 0
            while free and size < CHUNK:
                cell = _attempt(_claim, free.popleft(), self._store, self._claims)
                if cell.status == "planned":
                    chunk.append(cell)
                    size += sum(len(item.text) for item in cell.items) or CHUNK
                elif cell.status == "running":
                    self.cells.append(replace(cell, items=()))
                else:
                    yield cell
            yield from self._run_chunk(chunk, len(free))

    def _run_chunk(self, chunk: Sequence[Cell], after: int) -> Iterator[Cell]:
        """Yield cells as they end, given how many come after them."""
        items = self._encoder.missing(item for cell in chunk for item in cell.items)
        chunk = [replace(cell, items=()) for cell in chunk]  # frees those of all cells
        if items:
            count = "1 cell" if len(chunk) == 1 else f"{len(chunk)} cells"
            log.info("%s: %s, %d texts to encode", chunk[0].encoder, count, len(items))
        with contextlib.suppress(Exception):  # the cells that need the text meet the failure again
            self._encoder.add(items)
        del items
        begun = self._total - after - len(chunk)
        for i, cell in enumerate(chunk, begun):
            self._progress(cell.task.name, i, self._total)
            yield _attempt(_run_cell, cell, self._encoder, self._store)
        self._progress("scored", begun + len(chunk), self._total)


def _attempt(
    step: Callable[..., Cell],
    cell: Cell,
    *args: Any,  # noqa: ANN401 - of any step
    **options: Any,  # noqa: ANN401
) -> Cell:
    """Return the cell after a step, or as skipped or failed with the reason in one line."""
    try:
        return step(cell, *args, **options)
    except Exception as error:
        raise_if_stopped()  # a failure that a signal caused is no fault of the cell
        status: Status = "failed"
        if isinstance(error, BenchError):
            reason = str(error)
            status = "skipped" if isinstance(error, Unavailable) else "failed"
        elif hint := install_hint(error):
            status, reason = "skipped", hint
        else:
            reason = one_line(error)
            log.debug("%s on %s failed", cell.encoder, cell.task.name, exc_info=error)
        return replace(cell, status=status, reason=reason, items=())


def _survey(
    cell: Cell, encoder: Encoder, store: Store, *, force: bool, exact: bool, trial: bool
) -> Cell:
    task = cell.task
    if not isinstance(encoder, task.needs):
        needed = (task.needs.__doc__ or task.needs.__name__).strip().partition("\n")[0].rstrip(".")
        reason = f"{task.name} requires {needed[0].lower()}{needed[1:]}; {cell.encoder} is not one"
        return replace(cell, status="skipped", reason=reason)
    spec = RunSpec.of(cell.encoder, encoder, task, cell.seed, exact=exact)
    if spec in store and not force:
        result = store[spec]
        changed = data.find_changed(result.provenance.get("data", ()))
        if not changed:
            return replace(cell, status="cached", spec=spec, result=result)
        names = ", ".join(changed)
        log.warning("%s on %s runs again: %s has changed", cell.encoder, task.name, names)
    items = _plan(task, cell.seed)
    if trial and not items and isinstance(task, NetworkTask):
        task.load(cell.seed)
    return replace(cell, spec=spec, items=items)


def _plan(task: Task, seed: int) -> tuple[Item, ...]:
    items = tuple(task.items(seed=seed)) if hasattr(task, "items") else ()
    odd = [item.text for item in items if not isinstance(item.text, str)]
    if odd:
        raise DataError(
            f"expected texts in the data of {task.name}, got {odd[0]!r} in {len(odd)} places: "
            "mend or drop these rows"
        )
    return items


def _claim(cell: Cell, store: Store, claims: Claims) -> Cell:
    """Return the cell claimed, or as running, or as another process has ended it since."""
    assert cell.spec is not None  # noqa: S101 - for the type checker; planned cells have one
    path = store.claim_path(cell.spec)
    if not claims.take(path):
        owner = read_owner(path) or "another process"
        return replace(cell, status="running", reason=f"{owner} runs it")
    ended = store.written_since(cell.spec, claims.began)
    if isinstance(ended, Result):
        reason = "another process has run it"
        return replace(cell, status="cached", result=ended, reason=reason, items=())
    if ended is not None:
        status: Status = "skipped" if ended.status == "skipped" else "failed"
        return replace(cell, status=status, reason=ended.reason, items=())
    return replace(cell, status="planned", reason="")


def _check_store(cell: Cell, store: Store) -> Cell:
    """Return the cell; it fails where its result could not be written: better before it is run."""
    if cell.status == "planned" and cell.spec:
        store.check_writable(cell.spec)
    return cell


def _run_cell(cell: Cell, encoder: CachedEncoder, store: Store) -> Cell:
    start = time.perf_counter()
    task = cell.task
    assert cell.spec is not None  # noqa: S101 - for the type checker; planned cells have one
    encoder.begin()
    with data.record_sources() as sources, record_original() as original:
        scores = task.evaluate(encoder, seed=cell.seed)
        seconds = time.perf_counter() - start
        texts, cost = encoder.summary(), asdict(encoder.cost)  # without those of the samples
        explain = getattr(task, "explain", None)
        samples = explain(encoder, seed=cell.seed) if explain else ()
    result = Result(
        spec=cell.spec,
        family=task.family,
        metric=task.metric,
        scores=scores,
        card=json.loads(json.dumps(asdict(card(encoder)))),  # with lists, as a file has them
        texts=texts,
        cost={"seconds": seconds, **cost, "peak_memory_mb": _peak_memory()},
        provenance={**record_provenance(), "data": sources},
        samples=samples,
        original=original,
    )
    store[cell.spec] = result
    seconds = time.perf_counter() - start
    return replace(cell, status="done", result=result, seconds=seconds, items=())


def _record_absence(cell: Cell, store: Store) -> None:
    task = cell.task
    absence = Absence(
        hide_home(cell.encoder),
        task.family,
        task.name,
        task.readout,
        cell.seed,
        task.limit,
        cell.status,
        hide_home(cell.reason),
    )
    with contextlib.suppress(ResultError):  # a folder that cannot be written is the reason already
        store.leave_out(absence)


def _peak_memory() -> float:
    """Return the peak memory of this process, in MB."""
    if sys.platform == "win32":
        return float(psutil.Process().memory_info().peak_wset) / 1e6
    import resource  # noqa: PLC0415 - absent on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3
