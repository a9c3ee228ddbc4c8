"""The one loop: for every encoder, encode what its tasks need in one pass, then score task by task, one file a cell."""

import contextlib
import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, cast

import psutil

from bench import data
from bench.embeddings import CachedEncoder, Progress, cached, silent
from bench.encoder import Encoder, Item, card, fingerprint
from bench.errors import BenchError, DataError, ResultError, Unavailable, install_hint, one_line
from bench.files import hide_home, remove_leftovers
from bench.process import raise_if_stopped
from bench.provenance import record_provenance
from bench.result import Absence, Result, RunSpec
from bench.store import Store
from bench.task import Task
from bench.vectors import Vectors

log = logging.getLogger(__name__)

Status = Literal["planned", "done", "cached", "skipped", "failed"]


@dataclass(frozen=True)
class Cell:
    """One cell of the grid and how it stands.

    Attributes:
        encoder: Name of the encoder.
        task: The task.
        seed: The seed given to it.
        status: planned (not run yet), done, cached (was there already), skipped or failed.
        result: What came out, for done and cached cells.
        reason: Why it was skipped or failed.
        seconds: Time this cell took, without the encoding that all cells of the encoder share.
        items: What the task will have encoded, for planned cells.
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
    """Return how every cell of an encoder stands before a run: cached, skipped, failed, or planned with its items.

    Args:
        name: The encoder's name.
        encoder: The encoder; its weights' digest is read, its network is not loaded.
        tasks: The tasks; their data is loaded where they can plan.
        store: Where results are.
        seeds: One cell per seed.
        force: Plan cells that exist already too.
        exact: Plan for every text in a batch of its own.
        trial: Find out too whether tasks that cannot plan have their data: each is evaluated up to its first question
            to the encoder.
    """
    cells = [Cell(name, task, seed, "planned") for task in tasks for seed in seeds]
    try:
        fingerprint(encoder)
    except Exception as error:  # without its weights no cell can even be named
        raise_if_stopped()
        log.debug("%s cannot be identified", name, exc_info=error)
        status: Status = "skipped" if install_hint(error) else "failed"
        return [replace(cell, status=status, reason=one_line(error)) for cell in cells]
    found = [_surveyed(cell, encoder, store, force=force, exact=exact) for cell in cells]
    return [_tried(cell) for cell in found] if trial else found


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
        store: Where results are read and written; a cell that exists is not run again.
        vectors: Where embeddings are kept.
        seeds: Seeds given to the tasks.
        keep_going: Go on after a cell has failed; otherwise the failed cell is the last one.
        force: Run cells that exist already.
        exact: Encode every text in a batch of its own, for the same bits every time; see ``CachedEncoder``.
        progress: Told what is being done.
    """
    remove_leftovers(store.root)
    for name, encoder in encoders.items():
        for cell in _run_encoder(
            name,
            encoder,
            survey(name, encoder, tasks, store, seeds=seeds, force=force, exact=exact),
            store,
            vectors,
            progress,
            exact=exact,
        ):
            if cell.status in {"skipped", "failed"}:
                _keep_reason(cell, store)
            yield cell
            if cell.status == "failed" and not keep_going:
                return


def _keep_reason(cell: Cell, store: Store) -> None:
    task = cell.task
    with contextlib.suppress(
        ResultError
    ):  # the results folder cannot be written: that is the reason, and it is told already
        store.leave_out(
            Absence(
                hide_home(cell.encoder),
                task.family,
                task.name,
                task.readout,
                cell.seed,
                task.limit,
                cell.status,
                hide_home(cell.reason),
            )
        )


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
    cells = [_ready(cell, store) for cell in cells]
    planned = [cell for cell in cells if cell.status == "planned"]
    yield from (cell for cell in cells if cell.status != "planned")
    if not planned:
        return
    wrapped = cached(
        encoder,
        vectors,
        lambda label, done, total: progress(f"{name}: {label}", done, total),
        exact=exact,
    )
    items = wrapped.missing(item for cell in planned for item in cell.items)
    cells = planned = [replace(cell, items=()) for cell in planned]  # frees those of all cells
    log.info(
        "%s: %d cell%s, %d texts to encode",
        name,
        len(planned),
        "s" * (len(planned) > 1),
        len(items),
    )
    with contextlib.suppress(
        Exception
    ):  # a failure belongs to the cells that need the text: each meets its own again below
        wrapped.add(items)
    del items
    for i, cell in enumerate(planned):
        progress(f"{name}: {cell.task.name}", i, len(planned))
        yield _run_cell(cell, wrapped, store)
    progress(f"{name}: scored", len(planned), len(planned))


def _ready(cell: Cell, store: Store) -> Cell:
    """Return the cell, failed where its result could not be written: better known before it is run."""
    try:
        if cell.status == "planned" and cell.spec:
            store.check_writable(cell.spec)
    except ResultError as error:
        return _ended(cell, error)
    return cell


def _run_cell(cell: Cell, encoder: CachedEncoder, store: Store) -> Cell:
    start = time.perf_counter()
    encoder.begin()
    assert cell.spec is not None  # noqa: S101 - for the type checker; planned cells have one
    try:
        with data.record_sources() as sets:
            scores = cell.task.evaluate(encoder, seed=cell.seed)
            texts, seconds, cost = (
                encoder.summary(),
                time.perf_counter() - start,
                asdict(encoder.cost),
            )  # samples are no part of them
            explain = getattr(cell.task, "explain", None)
            samples = explain(encoder, seed=cell.seed) if explain else ()
        result = Result(
            spec=cell.spec,
            family=cell.task.family,
            metric=cell.task.metric,
            scores=scores,
            card=json.loads(json.dumps(asdict(card(encoder)))),  # as a file gives it back: lists
            texts=texts,
            cost={"seconds": seconds, **cost, "peak_memory_mb": _peak_memory()},
            provenance={**record_provenance(), "data": sets},
            samples=samples,
        )
        store[cell.spec] = result
    except Exception as error:  # noqa: BLE001 - any fault of a task or an encoder is this cell's alone
        return _ended(cell, error)
    return replace(
        cell, status="done", result=result, seconds=time.perf_counter() - start, items=()
    )


def _surveyed(cell: Cell, encoder: Encoder, store: Store, *, force: bool, exact: bool) -> Cell:
    task = cell.task
    try:
        if not isinstance(encoder, task.needs):
            return replace(
                cell,
                status="skipped",
                reason=f"{task.name} needs {_wanted(task.needs)}, which {cell.encoder} is not",
            )
        spec = RunSpec.of(cell.encoder, encoder, task, cell.seed, exact=exact)
        if spec in store and not force:
            kept = store[spec]
            if not (changed := data.find_changed(kept.provenance.get("data", ()))):
                return replace(cell, status="cached", spec=spec, result=kept)
            log.warning(
                "%s on %s is run again: %s has changed since it was kept",
                cell.encoder,
                task.name,
                ", ".join(changed),
            )
        items = _planned(task, cell.seed)
    except Exception as error:  # noqa: BLE001 - any fault of a task or an encoder is this cell's alone
        return _ended(cell, error)
    return replace(cell, spec=spec, items=items)


class _Reached(BaseException):
    """A task asks something of its encoder; no task that catches exceptions catches this."""


class _Untouchable:
    """Stands where an encoder is expected."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever is asked for
        raise _Reached


def _tried(cell: Cell) -> Cell:
    """Return a planned cell, or why it cannot be run as far as that shows before anything is encoded."""
    if cell.status != "planned" or cell.items:
        return cell
    try:
        cell.task.evaluate(cast("Encoder", _Untouchable()), seed=cell.seed)
    except _Reached:
        return cell
    except Exception as error:  # noqa: BLE001 - any fault of a task is this cell's alone
        return _ended(cell, error)
    return cell


def _planned(task: Task, seed: int) -> tuple[Item, ...]:
    items = tuple(task.items(seed=seed)) if hasattr(task, "items") else ()
    if odd := [item.text for item in items if not isinstance(item.text, str)]:
        raise DataError(
            f"expected texts in the data of {task.name}, got {odd[0]!r} in {len(odd)} places: mend or drop these rows"
        )
    return items


def _wanted(needs: type[Encoder]) -> str:
    """Return which encoder a task needs, as the first line of the protocol's docstring has it."""
    line = (needs.__doc__ or needs.__name__).strip().partition("\n")[0].rstrip(".")
    return line[0].lower() + line[1:]


def _ended(cell: Cell, error: Exception) -> Cell:
    """Return the cell as skipped or failed, with the reason in one line; what a signal brought about is no fault of the cell."""
    raise_if_stopped()
    if isinstance(error, BenchError):
        return replace(
            cell,
            status="skipped" if isinstance(error, Unavailable) else "failed",
            reason=str(error),
            items=(),
        )
    if lack := install_hint(error):
        return replace(cell, status="skipped", reason=lack, items=())
    log.debug("%s on %s failed", cell.encoder, cell.task.name, exc_info=error)
    return replace(cell, status="failed", reason=one_line(error), items=())


def _peak_memory() -> float:
    """Return the most memory this process has held so far, in MB."""
    if sys.platform == "win32":
        return float(psutil.Process().memory_info().peak_wset) / 1e6
    import resource  # noqa: PLC0415 - absent on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3
