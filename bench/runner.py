"""The evaluation loop: for every encoder, embed what its tasks need in one pass, then score."""

import contextlib
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import psutil

from bench import data
from bench.embeddings import CachedEncoder, Progress, silent
from bench.encoder import Encoder, Item, card, fingerprint
from bench.errors import BenchError, DataError, ResultError, Unavailable, install_hint, one_line
from bench.files import hide_home, remove_leftovers
from bench.process import raise_if_stopped
from bench.provenance import record_provenance
from bench.result import Absence, Result, RunSpec
from bench.store import Store
from bench.task import NetworkTask, Task
from bench.vectors import Vectors

log = logging.getLogger(__name__)

Status = Literal["planned", "done", "cached", "skipped", "failed"]


@dataclass(frozen=True)
class Cell:
    """One cell of the grid and its state.

    Attributes:
        encoder: Name of the encoder.
        task: The task.
        seed: The seed given to it.
        status: planned (not run yet), done, cached (has a result already), skipped or failed.
        spec: Description of the cell, the key of its result.
        result: Of done and cached cells.
        reason: Why it was skipped or failed.
        seconds: Time of this cell, without the encoding that all cells of the encoder share.
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


def survey(
    name: str,
    encoder: Encoder,
    tasks: Sequence[Task],
    store: Store,
    *,
    seeds: Sequence[int],
    force: bool = False,
    exact: bool = False,
    trial: bool = False,
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
    """
    cells = [Cell(name, task, seed, "planned") for task in tasks for seed in seeds]
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
    progress: Progress = silent,
) -> Iterator[Cell]:
    """Yield every cell of the grid as it ends.

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
        progress: Called with what is being done.
    """
    remove_leftovers(store.root)
    for name, encoder in encoders.items():
        cells = survey(name, encoder, tasks, store, seeds=seeds, force=force, exact=exact)
        cells = [_attempt(_check_store, cell, store) for cell in cells]
        for cell in _run_encoder(name, encoder, cells, store, vectors, progress, exact=exact):
            if cell.status in {"skipped", "failed"}:
                _record_absence(cell, store)
            yield cell
            if cell.status == "failed" and not keep_going:
                return


def _run_encoder(
    name: str,
    encoder: Encoder,
    cells: Sequence[Cell],
    store: Store,
    vectors: Vectors,
    progress: Progress,
    *,
    exact: bool,
) -> Iterator[Cell]:
    planned = [cell for cell in cells if cell.status == "planned"]
    yield from (cell for cell in cells if cell.status != "planned")
    if not planned:
        return

    def report(label: str, done: int, total: int) -> None:
        progress(f"{name}: {label}", done, total)

    cached = CachedEncoder(encoder, vectors, report, exact=exact)
    items = cached.missing(item for cell in planned for item in cell.items)
    cells = planned = [replace(cell, items=()) for cell in planned]  # frees those of all cells
    count = "1 cell" if len(planned) == 1 else f"{len(planned)} cells"
    log.info("%s: %s, %d texts to encode", name, count, len(items))
    with contextlib.suppress(Exception):  # the cells that need the text meet the failure again
        cached.add(items)
    del items
    for i, cell in enumerate(planned):
        report(cell.task.name, i, len(planned))
        yield _attempt(_run_cell, cell, cached, store)
    report("scored", len(planned), len(planned))


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
    with data.record_sources() as sources:
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
