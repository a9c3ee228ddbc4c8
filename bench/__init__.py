"""Compare recipes that turn a language model into a text encoder.

The command line offers the same as these functions. Each function imports what it needs when it is
called, so that ``import bench`` is quick.
"""

import sys

if sys.argv[:1] == ["-m"] and not sys.flags.safe_path:
    # `python -m bench` puts the working folder first, where a json.py would hide the library's.
    del sys.path[0]

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from bench.encoder import Encoder
    from bench.store import Store
    from bench.task import Task

__all__ = ["load_encoder", "load_task", "report", "results", "run", "study"]


def load_encoder(name: str, **settings: object) -> "Encoder":
    """Return the encoder with a name; its weights load on the first call of ``encode``.

    Args:
        name: A registered name (``bench list``); ``name:PATH_OR_ID`` for another checkpoint; or
            ``package.module:Class``.
        settings: Settings to change, by field name; plain values, also those of numpy, or a path.

    Raises:
        UsageError: There is no such encoder or setting, or a value is not plain.

    >>> encoder = load_encoder("hashing", dim=64)
    >>> encoder.encode(["How do I reset my PIN?", "My card was declined."]).shape
    (2, 64)
    """
    from bench.registry import load_encoder as load

    return load(name, {field: _to_json(field, value) for field, value in settings.items()})


def load_task(name: str, *, limit: int | None = None) -> "Task":
    """Return the task with a name.

    Args:
        name: A registered name (``bench list``), a task of mteb, ``sts:pairs.csv`` and the like for
            your own files (``bench.tasks.own``), or ``package.module:TASK``.
        limit: At most this many test examples, from 1.

    Raises:
        UsageError: There is no such task, or the limit is less than 1.

    >>> task = load_task("STSBenchmark", limit=100)
    >>> task.family, task.metric
    ('sts', 'cosine_spearman')
    """
    from bench.tasks import load_task as load

    return load(name, limit=_check_limit(limit))


def run(  # noqa: PLR0913 - one parameter per option
    models: "str | Iterable[str] | Mapping[str, Encoder]" = "all",
    tasks: "str | Task | Iterable[str | Task]" = (),
    *,
    suites: str | Iterable[str] = (),
    exclude: str | Iterable[str] = (),
    limit: int | None = None,
    wordings: int | None = None,
    seeds: int | Iterable[int] = (42,),
    results: str | Path = "results",
    data: str | Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
    force: bool = False,
    workers: int | str | None = None,
    ray: str | None = None,
) -> "pd.DataFrame":
    """Run tasks on encoders and return one row per cell: encoder, task, score, status, reason.

    A cell that failed or was skipped has a row with the reason. Cells that are in the results
    folder are not run again.

    Args:
        models: Names of encoders, or encoders by name.
        tasks: Names of tasks, or tasks.
        suites: Names of suites; "quick" where neither tasks nor suites are given.
        exclude: Names of tasks among these to leave out.
        limit: At most this many test examples per named task, from 1.
        wordings: Score tasks with an instruction under so many wordings of it, 2 to 10.
        seeds: A seed, or several: one cell per seed.
        results: Folder of results.
        data: Folder with data sets; see ``bench data mirror``.
        device: "auto", "cpu", "cuda", "cuda:1", "mps"; with "auto" encoders that are given as
            objects keep their own.
        dtype: "auto", "float32", "bfloat16" or "float16"; "auto" as for ``device``.
        force: Run finished cells again.
        workers: Processes that compute, on Ray; "auto" for one for each GPU, which is the default
            with ``ray``.
        ray: Address of a cluster of Ray to compute on; "auto" for the one at hand.

    Raises:
        UsageError: A name is unknown, a number is out of range, the folder of data is not there,
            or there is too little for so many workers.

    >>> cells = run("hashing", "stsb-paraphrase", results=folder)
    >>> cells[["encoder", "task", "status"]].values.tolist()
    [['hashing', 'stsb-paraphrase', 'done']]
    """
    import pandas as pd

    from bench.data import use_folder
    from bench.engine import start_engine
    from bench.errors import UsageError
    from bench.runner import run as run_cells
    from bench.store import Store
    from bench.tasks import load_tasks
    from bench.vectors import open_vectors

    encoders = _load_encoders(models, device, dtype)
    if data is not None and not Path(data).is_dir():
        raise UsageError(f"expected a folder of data sets, got {str(data)!r}: there is none")
    several = None if wordings is None else _check_number("wordings", wordings, 2, 10)
    each = _check_seeds(seeds)
    with (
        use_folder(data),
        start_engine(None if workers is None else str(workers), ray, device) as engine,
    ):
        chosen = load_tasks(
            _split(tasks),
            _split(suites),
            exclude=_split(exclude),
            limit=_check_limit(limit),
            wordings=several,
        )
        cells = run_cells(
            encoders,
            chosen,
            Store(Path(results)),
            open_vectors(),
            engine=engine,
            seeds=each,
            force=force,
            keep_going=True,
        )
        return pd.DataFrame([cell.row() for cell in cells])


def results(
    folders: str | Path | Sequence[str | Path] = "results",
    *,
    models: str | Iterable[str] = (),
    tasks: str | Iterable[str] = (),
    mteb: str | Path | None = None,
    mteb_models: str | Iterable[str] = (),
) -> "pd.DataFrame":
    """Return all results as a DataFrame: one row per encoder, task, seed and metric.

    Its columns are the score with its 95 % interval (``low``, ``high``), standard deviation and
    standard error over repeats, the model card (``backbone``, ``parameters``,
    ``training_tokens``, ...), the cost of encoding (``tokens``, ``encode_seconds``, ...), and
    ``main``, which marks the main metric of a task. Missing cells have one row with ``status``
    and ``reason``.

    Args:
        folders: Folder of results, or several to join: of a cell that differs between them the
            newest result counts.
        models: Names of encoders; all by default.
        tasks: Names of tasks; all by default.
        mteb: Clone of mteb's results repository, whose models' scores on the same tasks are added.
        mteb_models: Names of its models; all where there are at most 10.

    Raises:
        UsageError: There are no such results.

    >>> frame = results(folder)
    >>> main = frame[frame.main]
    >>> list(main.pivot(index="encoder", columns="task", values="score").columns)
    ['stsb-paraphrase']
    """
    from bench.reporting import read
    from bench.reporting.frame import flat

    return flat(
        read(
            _stores(folders),
            models=_split(models),
            tasks=_split(tasks),
            mteb=None if mteb is None else Path(mteb),
            mteb_models=_split(mteb_models),
        )
    )


def report(
    folders: str | Path | Sequence[str | Path] = "results",
    out: str | Path = "reports",
    *,
    models: str | Iterable[str] = (),
    tasks: str | Iterable[str] = (),
    mteb: str | Path | None = None,
    mteb_models: str | Iterable[str] = (),
) -> list[Path]:
    """Write tables, figures and a page from results, and return the paths of the files.

    Args:
        folders: Folder of results, or several to join.
        out: Folder to write into.
        models: Names of encoders; all by default.
        tasks: Names of tasks; all by default.
        mteb: Clone of mteb's results repository, whose models' scores on the same tasks are added.
        mteb_models: Names of its models; all where there are at most 10.

    Raises:
        UsageError: There are no such results.
        ResultError: The folder cannot be written.

    >>> [path.name for path in report(folder, out=folder + "/report")][:2]
    ['index.html', 'results.md']
    """
    from bench.reporting import build, read

    found = read(
        _stores(folders),
        models=_split(models),
        tasks=_split(tasks),
        mteb=None if mteb is None else Path(mteb),
        mteb_models=_split(mteb_models),
    )
    return build(found, Path(out))


def study(
    folders: str | Path | Sequence[str | Path] = "results",
    out: str | Path = "reports/study",
    *,
    models: str | Iterable[str] = (),
    tasks: str | Iterable[str] = (),
    tried: str | Path | Sequence[str | Path] = (),
) -> list[Path]:
    """Write a study of training budgets, and return the paths of the files.

    Encoders that differ only in the seed of their training are one method: its learning curve over
    tokens and FLOPs, differences from the untrained backbone, ranks and costs, over its trainings.

    Args:
        folders: Folder of results, or several to join; trainings beside the untrained backbone.
        out: Folder to write into.
        models: Names of encoders; all by default.
        tasks: Names of tasks; all by default.
        tried: Results of the settings that were tried, on tasks for development.

    Raises:
        UsageError: There are no such results, or none of a training.
        ResultError: The folder cannot be written, or an archive is damaged.

    >>> [path.name for path in study(trained, folder + "/study", tasks=["stsb"])][:2]
    ['index.html', 'study.md']
    """
    from bench.reporting import read
    from bench.reporting.study import Study, build

    before = _stores(tried)
    found = read(_stores(folders), models=_split(models), tasks=_split(tasks))
    return build(Study(found, read(before) if before else None), Path(out))


def _stores(folders: str | Path | Sequence[str | Path]) -> "list[Store]":
    from bench.store import Store

    each = [folders] if isinstance(folders, str | Path) else folders
    return [Store(folder) for folder in dict.fromkeys(map(Path, each))]


def _load_encoders(
    models: "str | Iterable[str] | Mapping[str, Encoder]", device: str, dtype: str
) -> "dict[str, Encoder]":
    """Return encoders by name; those given as objects on the device and in the dtype asked for."""
    from dataclasses import replace

    from bench.errors import UsageError
    from bench.registry import compute_settings, load_encoders

    settings = compute_settings(device, dtype)
    by_name = dict(models) if isinstance(models, Mapping) else {}
    names = [] if isinstance(models, Mapping) else _split(models)
    wrong = [each for each in by_name.values() if isinstance(each, str)]
    wrong += [each for each in names if not isinstance(each, str)]
    if wrong:
        raise UsageError(
            'expected names of encoders, or encoders by name as in {"mine": encoder}, '
            f"got {wrong[0]!r}"
        )
    if names or not by_name:
        return load_encoders(names, settings)
    chosen = {field: value for field, value in settings.items() if value != "auto"}
    for name, encoder in by_name.items():
        known = getattr(encoder, "__dataclass_fields__", {})
        if own := {field: value for field, value in chosen.items() if field in known}:
            by_name[name] = replace(encoder, **own)
    return by_name


def _split(given: Any) -> list[Any]:  # noqa: ANN401 - names, numbers or tasks
    """Return what was given as a list; a string, or what has no parts, is one of its kind."""
    one = isinstance(given, str) or not isinstance(given, Iterable)
    return [given] if one else list(given)


def _check_seeds(seeds: int | Iterable[int]) -> list[int]:
    """Return the seeds, of which there is one at least."""
    from bench.errors import UsageError

    found = [_check_number("seeds", seed, 0, 2**32 - 1) for seed in _split(seeds)]
    if not found:
        raise UsageError("expected at least one seed, got none: leave seeds out for 42")
    return found


def _check_limit(limit: int | None) -> int | None:
    return None if limit is None else _check_number("limit", limit, 1)


def _check_number(what: str, value: object, least: int, most: int = sys.maxsize) -> int:
    """Return a whole number, also one of numpy, that is in a range."""
    from operator import index

    from bench.errors import UsageError

    with suppress(TypeError):
        if not isinstance(value, bool) and least <= index(value) <= most:  # type: ignore[arg-type]
            return index(value)  # type: ignore[arg-type]
    upper = "" if most == sys.maxsize else f" to {most}"
    raise UsageError(f"{what}: expected a whole number from {least}{upper}, got {value!r}")


def _to_json(field: str, value: object) -> str:
    """Return a setting as JSON; a number of numpy or a path is a plain value, too."""
    import json

    from bench.errors import UsageError

    def plain(part: Any) -> object:  # noqa: ANN401 - of any type that JSON lacks
        if isinstance(part, PurePath):
            return str(part)
        if callable(item := getattr(part, "item", None)):  # of numpy
            return item()
        raise TypeError

    try:
        return json.dumps(value, default=plain)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"setting {field!r} takes a number, a text or a list, got {value!r}"
        ) from error
