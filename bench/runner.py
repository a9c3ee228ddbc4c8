"""The evaluation loop: for every encoder, embed what its tasks need in one pass, then score."""

import contextlib
import json
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from itertools import chain, compress, product, repeat
from typing import Any, Literal

from bench import data
from bench.embeddings import (
    CachedEncoder,
    NotCached,
    Pending,
    Progress,
    count_characters,
    silent,
)
from bench.encoder import Encoder, Item, card, fingerprint
from bench.engine import (
    Encode,
    Engine,
    Failure,
    Inline,
    Job,
    Measure,
    Measured,
    Outcome,
    Portion,
    score,
)
from bench.errors import DataError, ResultError
from bench.files import hide_home, remove_leftovers
from bench.process import peak_memory_mb
from bench.store import Store
from bench.store.claims import Claims, read_owner
from bench.store.folder import writing
from bench.store.provenance import record_provenance
from bench.store.result import Absence, Result, RunSpec
from bench.task import NetworkTask, Task
from bench.vectors import Vectors

log = logging.getLogger(__name__)

CHUNK = 1_000_000
"""Characters of the cells that a process takes at a time: encoded in one pass, shared in parts."""

_ALL = repeat(True)
_SHORT, _LONG = 0.5, 15.0  # seconds between two looks at the cells of other processes

_TRIES = 8  # jobs that a cell may have for itself; one for each side of a retrieval, for example
_VANISHED = (
    "embeddings disappear from the cache while they are read, or differ in length: raise "
    "BENCH_CACHE_GB, keep them in memory with --no-cache, or try `bench check` on the encoder"
)

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
    part: Iterable[bool] = _ALL,
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
        part: Which of the encoder's cells, tasks by seeds; see ``bench.shards``.
    """
    pairs = product(tasks, dict.fromkeys(seeds))
    grid = [Cell(name, task, seed, "planned") for task, seed in pairs]
    cells = list(compress(grid, part))
    try:
        fingerprint(encoder)
    except Exception as error:  # noqa: BLE001 - without its weights no cell has a spec
        failure = Failure.of(error)
        return [replace(cell, status=failure.status, reason=failure.reason) for cell in cells]
    return [
        _attempt(_survey, cell, encoder, store, force=force, exact=exact, trial=trial)
        for cell in cells
    ]


def survey_all(
    encoders: Mapping[str, Encoder],
    tasks: Sequence[Task],
    store: Store,
    *,
    seeds: Sequence[int],
    force: bool = False,
    exact: bool = False,
    trial: bool = False,
    part: Mapping[str, Sequence[bool]] | None = None,
) -> Iterator[tuple[str, list[Cell]]]:
    """Yield the name of each encoder with its cells before a run; see ``survey``.

    Args:
        encoders: Encoders by name.
        tasks: As for ``survey``, like what follows.
        store: The results.
        seeds: One cell per seed.
        force: Plan cells that have a result, too.
        exact: Plan for every text in a batch of its own.
        trial: Load the data of tasks without items, too.
        part: Which cells of each encoder; None for all.
    """
    for name, encoder in encoders.items():
        cells = survey(
            name,
            encoder,
            tasks,
            store,
            seeds=seeds,
            force=force,
            exact=exact,
            trial=trial,
            part=part[name] if part else _ALL,
        )
        yield name, cells


def run(  # noqa: PLR0913 - one parameter an option
    encoders: Mapping[str, Encoder],
    tasks: Sequence[Task],
    store: Store,
    vectors: Vectors,
    *,
    engine: Engine | None = None,
    seeds: Sequence[int] = (42,),
    keep_going: bool = False,
    force: bool = False,
    exact: bool = False,
    part: Mapping[str, Sequence[bool]] | None = None,
    wait: bool = True,
    progress: Progress = silent,
) -> Iterator[Cell]:
    """Yield every cell of the grid as it ends.

    Processes on one folder of results share the cells: each takes those that no other one runs
    (``bench.store.claims``), and yields what others did in the end.

    Args:
        encoders: Encoders by name.
        tasks: The tasks.
        store: Results, read and written; a cell that has one is not run again.
        vectors: The embedding cache.
        engine: Who computes; this process by default.
        seeds: Seeds given to the tasks.
        keep_going: Go on after a failed cell; otherwise the failed cell is the last one.
        force: Run cells that have a result, too.
        exact: Encode every text in a batch of its own, for the same bits every time; see
            ``CachedEncoder``.
        part: Only these cells of each encoder, see ``bench.shards``; None for all.
        wait: Wait in the end for cells that other processes run, and run those whose process dies;
            otherwise they are yielded as running.
        progress: Called with what is being done.
    """
    remove_leftovers(store.root)
    engine = engine or Inline()
    with Claims(store.root) as claims:
        new_part = partial(_EncoderPart, engine, store, vectors, claims, progress, exact=exact)
        surveys = survey_all(
            encoders, tasks, store, seeds=seeds, force=force, exact=exact, part=part
        )
        plans = ((new_part(encoders[name]), cells) for name, cells in surveys)
        for cell in _share(plans, engine, progress, wait=wait):
            if cell.status in {"skipped", "failed"}:
                _record_absence(cell, store)
            if cell.spec:
                claims.release(store.claim_path(cell.spec))
            yield cell
            if cell.status == "failed" and not keep_going:
                return


def _share(
    plans: Iterator[tuple["_EncoderPart", list[Cell]]],
    engine: Engine,
    progress: Progress,
    *,
    wait: bool,
) -> Iterator[Cell]:
    """Yield the cells of all encoders as they end, here or in other processes."""
    parts: list[_EncoderPart] = []
    pause = _SHORT
    try:
        while True:
            _show_work(parts, progress)
            free = [part for part in parts if part.free]
            resting = [part for part in free if not part.waiting]
            if engine.hungry and resting:
                yield from resting[0].submit()
            elif engine.hungry and (plan := next(plans, None)):
                part, cells = plan
                parts.append(part)
                yield from part.begin(cells)
            elif engine.idle and free:  # workers without an encoder of their own help
                yield from free[0].submit()
            elif outcome := engine.wait():
                (part,) = [part for part in parts if outcome.job in part.waiting]
                yield from part.take(outcome)
            elif wait and (left := sum(len(part.elsewhere) for part in parts)):
                progress("waiting for cells of other processes", 0, left)
                time.sleep(pause)
                pause = min(2 * pause, _LONG)
                for part in parts:
                    part.look_again()
            else:
                break
        for part in parts:
            yield from part.elsewhere
    finally:
        for part in parts:
            part.flush()


def _show_work(parts: Sequence["_EncoderPart"], progress: Progress) -> None:
    """Show how far the jobs under way are: what all encoders encode, or a cell that computes."""
    encoding = [part for part in parts if part.encoding]
    counts = list(chain(*(part.encoding.values() for part in encoding)))
    if counts:
        names = ", ".join(part.name for part in encoding)
        done = sum(count.done for count in counts)
        progress(f"{names}: encoding (characters)", done, sum(count.total for count in counts))
        return
    for part in parts:
        for cell in chain(*part.waiting.values()):
            part.show(cell.task.name)
            return


@dataclass
class _Encoding:
    """How far a job is that encodes.

    Attributes:
        pending: What takes its vectors.
        done: Characters that are encoded.
        total: Characters that there are.
    """

    pending: Pending
    done: int
    total: int


class _EncoderPart:
    """The part of a run that is one encoder's: its cells, and the jobs that they wait for.

    Attributes:
        name: Name of the encoder.
        free: Planned cells that have no job yet.
        elsewhere: Planned cells that another process runs.
        waiting: The cells that wait for each job.
        encoding: How far each job is that encodes.
    """

    def __init__(
        self,
        engine: Engine,
        store: Store,
        vectors: Vectors,
        claims: Claims,
        progress: Progress,
        encoder: Encoder,
        *,
        exact: bool,
    ) -> None:
        self.name = ""
        self.free, self.elsewhere = deque[Cell](), list[Cell]()
        self.waiting: dict[Job, Sequence[Cell]] = {}
        self.encoding: dict[Encode, _Encoding] = {}
        self._engine, self._store, self._claims = engine, store, claims
        self._make_encoder = partial(CachedEncoder, encoder, vectors, exact=exact)
        self._progress = progress
        self._tries = Counter[str]()  # jobs that a cell has had for itself, by its key
        self._ended = self._total = 0
        self._device = ""  # where workers compute, if that is not here

    @cached_property
    def _reader(self) -> CachedEncoder:
        """The encoder behind the cache: it reads, and the engine computes."""
        return self._make_encoder(computes=False)

    def begin(self, cells: Sequence[Cell]) -> Iterator[Cell]:
        """Take the cells that are planned, and yield the others."""
        for each in cells:
            cell = _attempt(_check_store, each, self._store)
            if cell.status == "planned":
                self.name = cell.encoder
                self.free.append(cell)
            else:
                yield cell
        self._total = len(self.free)

    def look_again(self) -> None:
        """Take the cells that other processes run: they may have ended, or be free."""
        self.free.extend(self.elsewhere)
        self.elsewhere.clear()

    def submit(self) -> Iterator[Cell]:
        """Claim the next cells and submit what they need; yield those that need nothing."""
        chunk: list[Cell] = []
        size = 0
        while self.free and size < CHUNK:
            cell = _attempt(_claim, self.free.popleft(), self._store, self._claims)
            if cell.status == "planned":
                chunk.append(cell)
                size += count_characters(cell.items) or CHUNK
            elif cell.status == "running":
                self.elsewhere.append(replace(cell, items=()))
            else:
                self._ended += 1
                yield cell
        try:
            items = self._reader.missing(chain(*(cell.items for cell in chunk)))
        except Exception as error:  # noqa: BLE001 - whatever an encoder raises
            failure = Failure.of(error)
            yield from (self._end(cell, failure) for cell in chunk)
            return
        reading = [replace(cell, items=()) for cell in chunk if cell.items]
        computing = [cell for cell in chunk if not cell.items]
        del chunk  # frees the items of its cells
        if items:
            count = "1 cell" if len(reading) == 1 else f"{len(reading)} cells"
            log.info("%s: %s, %d texts to encode", self.name, count, len(items))
            self._submit(Encode(self._reader.source, items), reading)
        for cell in computing:
            encoder = self._make_encoder(progress=self._show)
            self._submit(Measure(encoder, cell.task, cell.seed), [cell])
        for cell in [] if items else reading:
            yield from self._read(cell)

    def take(self, outcome: Outcome) -> Iterator[Cell]:
        """Keep what the engine has computed, and yield the cells that end with it."""
        job, value = outcome.job, outcome.value
        cells = self.waiting.pop(job) if outcome.last else self.waiting[job]
        if isinstance(job, Measure):
            assert isinstance(value, Measured | Failure)  # noqa: S101 - for the type checker
            if isinstance(value, Measured):
                self._reader.cost.add(value.cost)
                self._device = value.device
            yield self._end(cells[0], value)
            return
        assert isinstance(job, Encode)  # noqa: S101 - for the type checker
        if isinstance(value, Portion):
            encoded = (job.items[i] for i in value.batch.positions)
            self.encoding[job].done += count_characters(encoded)
            self.encoding[job].pending.add(value.batch)
            job.encoder.cost.add(value.cost)
            self._device = value.device
        if not outcome.last:
            return
        self.encoding.pop(job).pending.flush()
        for cell in cells:
            # The text that made a job fail may be another cell's, unless it was this cell's job.
            if isinstance(value, Failure) and self._tries[_key(cell)]:
                yield self._end(cell, value)
            else:
                yield from self._read(cell)

    def flush(self) -> None:
        """Keep the vectors of jobs that have not ended."""
        for encoding in self.encoding.values():
            encoding.pending.flush()

    def show(self, label: str) -> None:
        """Show how many of the cells have ended."""
        self._show(label, self._ended, self._total)

    def _submit(self, job: Job, cells: Sequence[Cell]) -> None:
        self.waiting[job] = cells
        if isinstance(job, Encode):
            pending = job.encoder.collect(job.items)
            self.encoding[job] = _Encoding(pending, 0, count_characters(job.items))
        self._engine.submit(job)

    def _read(self, cell: Cell) -> Iterator[Cell]:
        """Score a cell from the cache; what is missing there is encoded for this cell alone."""
        self.show(cell.task.name)
        try:
            value: Measured | Failure = score(self._reader, cell.task, cell.seed)
        except NotCached as missing:
            self._tries[_key(cell)] += 1
            if self._tries[_key(cell)] <= _TRIES:
                self._submit(Encode(missing.encoder, missing.items), [cell])
                return
            value = Failure("failed", _VANISHED)
        except Exception as error:  # noqa: BLE001 - whatever a task raises
            value = Failure.of(error)
        yield self._end(cell, value)

    def _end(self, cell: Cell, value: Measured | Failure) -> Cell:
        """Return a cell with its result, which is written, or with the reason why it has none."""
        self._ended += 1
        if isinstance(value, Measured):
            cell = _attempt(self._keep, cell, value)
        else:
            cell = replace(cell, status=value.status, reason=value.reason, items=())
        self.show("scored")
        return cell

    def _keep(self, cell: Cell, measured: Measured) -> Cell:
        """Return a cell with its result, which is written.

        Raises:
            ResultError: The folder cannot be written.
        """
        assert cell.spec is not None  # noqa: S101 - for the type checker; planned cells have one
        cost = asdict(self._reader.cost)
        cost["peak_memory_mb"] = max(cost["peak_memory_mb"], peak_memory_mb())
        own = card(self._reader)
        sources = {"data": list(measured.sources)}
        result = Result(
            spec=cell.spec,
            family=cell.task.family,
            metric=cell.task.metric,
            scores=measured.scores,
            card=_plain(asdict(replace(own, device=self._device or own.device))),
            texts=measured.texts,
            cost={"seconds": measured.seconds, **cost},
            provenance={**record_provenance(), **self._engine.provenance(), **sources},
            samples=measured.samples,
            original=measured.original,
        )
        self._store[cell.spec] = result
        return replace(cell, status="done", result=result, seconds=measured.seconds, items=())

    def _show(self, label: str, done: int, total: int) -> None:
        self._progress(f"{self.name}: {label}", done, total)


def _attempt(
    step: Callable[..., Cell],
    cell: Cell,
    *args: Any,  # noqa: ANN401 - of any step
    **options: Any,  # noqa: ANN401
) -> Cell:
    """Return the cell after a step, or as skipped or failed with the reason in one line."""
    try:
        return step(cell, *args, **options)
    except Exception as error:  # noqa: BLE001 - whatever an encoder or a task raises
        failure = Failure.of(error)
        return replace(cell, status=failure.status, reason=failure.reason, items=())


def _plain(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return a JSON value with lists for tuples, as a file has them."""
    return json.loads(json.dumps(value))


def _key(cell: Cell) -> str:
    assert cell.spec is not None  # noqa: S101 - for the type checker; planned cells have one
    return cell.spec.key


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
    items = plan_items(task, cell.seed)
    if trial and not items and isinstance(task, NetworkTask):
        task.load(cell.seed)
    return replace(cell, spec=spec, items=items)


def plan_items(task: Task, seed: int) -> tuple[Item, ...]:
    """Return what a task will have embedded; nothing for one that needs the network.

    Raises:
        DataError: Something is no text.
        BenchError: Its data cannot be loaded.
    """
    items = tuple(task.items(seed=seed)) if hasattr(task, "items") else ()
    odd = [item.text for item in items if not isinstance(item.text, str)]
    if odd:
        raise DataError(
            f"expected texts in the data of {task.name}, got {odd[0]!r} in {len(odd)} places: "
            "fix or drop these rows"
        )
    return items


def _claim(cell: Cell, store: Store, claims: Claims) -> Cell:
    """Return the cell claimed, or as running, or as another process has ended it since."""
    assert cell.spec is not None  # noqa: S101 - for the type checker; planned cells have one
    path = store.claim_path(cell.spec)
    with writing(path):
        taken = claims.take(path)
    if not taken:
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
