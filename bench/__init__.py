"""Compare recipes that turn a language model into a text encoder.

The command line offers the same as these functions. Each function imports what it needs when it is
called, so that ``import bench`` is quick.
"""

import sys

if sys.argv[:1] == ["-m"] and not sys.flags.safe_path:
    # `python -m bench` puts the working folder first, where a json.py would hide the library's.
    del sys.path[0]

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

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
    from bench.arguments import to_json
    from bench.registry import load_encoder as load

    return load(name, {field: to_json(field, value) for field, value in settings.items()})


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
    from bench.arguments import check_limit
    from bench.tasks import load_task as load

    return load(name, limit=check_limit(limit))


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

    from bench.arguments import as_list, check_limit, check_number, check_seeds, encoders_of
    from bench.data import use_folder
    from bench.engine import start_engine
    from bench.errors import UsageError
    from bench.runner import run as run_cells
    from bench.store import Store
    from bench.tasks import load_tasks
    from bench.tasks.reworded import MOST
    from bench.vectors import open_vectors

    encoders = encoders_of(models, device, dtype)
    if data is not None and not Path(data).is_dir():
        raise UsageError(f"expected a folder of data sets, got {str(data)!r}: there is none")
    several = None if wordings is None else check_number("wordings", wordings, 2, MOST)
    each = check_seeds(seeds)
    with (
        use_folder(data),
        start_engine(None if workers is None else str(workers), ray, device) as engine,
    ):
        chosen = load_tasks(
            as_list(tasks),
            as_list(suites),
            exclude=as_list(exclude),
            limit=check_limit(limit),
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
        frame = pd.DataFrame([cell.row() for cell in cells])
        return frame.astype({"score": float, "spread": float, "limit": "Int64"})


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
    from bench.arguments import as_list
    from bench.reporting import read
    from bench.reporting.frame import flat

    return flat(
        read(
            _stores(folders),
            models=as_list(models),
            tasks=as_list(tasks),
            mteb=None if mteb is None else Path(mteb),
            mteb_models=as_list(mteb_models),
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
    from bench.arguments import as_list
    from bench.reporting import build, read

    found = read(
        _stores(folders),
        models=as_list(models),
        tasks=as_list(tasks),
        mteb=None if mteb is None else Path(mteb),
        mteb_models=as_list(mteb_models),
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
    from bench.arguments import as_list
    from bench.reporting import read
    from bench.reporting.study import Study, build

    before = _stores(tried)
    found = read(_stores(folders), models=as_list(models), tasks=as_list(tasks))
    return build(Study(found, read(before) if before else None), Path(out))


def _stores(folders: str | Path | Sequence[str | Path]) -> "list[Store]":
    from bench.store import Store

    each = [folders] if isinstance(folders, str | Path) else folders
    return [Store(folder) for folder in dict.fromkeys(map(Path, each))]
