"""Rows of any model from mteb's results repository, beside our results on the same tasks.

Source: https://github.com/embeddings-benchmark/results, whose layout is
``results/<org>__<model>/<revision>/<task>.json``; ``bench export mteb`` writes it, too.
A score is taken where the same splits and subsets were scored by the same main metric on the same
revision of the data, which is also mteb's own rule for which results go together.
"""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from bench.encoder import digest
from bench.errors import UsageError, unknown
from bench.files import read_object
from bench.reporting.names import natural
from bench.store.result import Absence, Result, RunSpec
from bench.task import Score

log = logging.getLogger(__name__)

SOURCE = "mteb results"
"""What rows from the repository are marked with."""

MOST = 10
"""Models that are taken where none is named."""


class _UnfitError(Exception):
    """A score that cannot stand beside ours, with the reason."""


def read_rows(
    folder: Path, names: Sequence[str], results: Sequence[Result]
) -> tuple[list[Result], list[Absence]]:
    """Return the scores of models on the tasks of our results, and why others have none.

    Args:
        folder: A clone of the repository, or its folder ``results``.
        names: Models as "org/model", "model", or with "@revision"; all where there are at most
            ``MOST``. Without a revision, the one with most of the tasks is taken, of several the
            one of the newest mteb.
        results: Ours. Those on whole tasks of mteb say what is compared.

    Raises:
        UsageError: The folder is of another layout, there is no such model, or there are too many.
    """
    tasks = _tasks(results)
    if not tasks:
        raise UsageError(
            "none of these results is of a whole task of mteb, so there is nothing to compare its "
            "models with: run one, such as `bench run --task STSBenchmark` (a cell of an earlier "
            "version with --force)"
        )
    rows: list[Result] = []
    absences: list[Absence] = []
    for place in _choose(folder, names, tasks):
        meta = read_object(place / "model_meta.json")
        for ours in tasks:
            try:
                rows.append(_row(place, meta, ours))
            except _UnfitError as error:
                spec = ours.spec
                cell = (ours.family, spec.task, spec.readout, spec.seed, None)
                absences.append(Absence(_name(place), *cell, "skipped", str(error)))
    return rows, absences


def _name(place: Path) -> str:
    """Return the model whose results at a revision lie in a folder."""
    return place.parent.name.replace("__", "/", 1)


def _tasks(results: Sequence[Result]) -> list[Result]:
    """Return one of our results for each whole task of mteb, protocol and read-out."""
    found = {}
    for result in results:
        spec = result.spec
        if result.original:
            found[(spec.task, spec.readout, spec.task_version)] = result
    return list(found.values())


def _choose(folder: Path, names: Sequence[str], tasks: Sequence[Result]) -> list[Path]:
    """Return the folders of the named models, or of all that have any of the tasks."""
    root = next(
        (path for path in (folder / "results", folder / "remote" / "results") if path.is_dir()),
        folder,
    )
    models: dict[str, list[Path]] = {}
    for place in sorted(root.glob("*__*/*/")):
        models.setdefault(_name(place), []).append(place)
    if not models:
        raise UsageError(
            f"expected mteb's layout in {folder}, results/ORG__MODEL/REVISION/TASK.json, and found "
            "no model: give a clone of its results repository"
        )
    wanted = {name: "" for name in models if _count(models[name], tasks)}
    if names:
        wanted = dict(_find(name, models) for name in names)
    elif len(wanted) > MOST:
        examples = ", ".join(sorted(wanted)[:3])
        raise UsageError(
            f"{len(wanted)} models of {folder} have results on these tasks: choose some with "
            f"--mteb-model, such as {examples}"
        )
    return [_pick(name, revision, models[name], tasks) for name, revision in wanted.items()]


def _find(name: str, models: Iterable[str]) -> tuple[str, str]:
    """Return the model that a name stands for, and the revision after its ``@``."""
    model, _, revision = name.partition("@")
    full = [known for known in models if model in {known, known.partition("/")[2]}]
    if len(full) > 1:
        raise UsageError(f"{model!r} names several models: {', '.join(full)}; give one of them")
    if not full:
        short = [known.partition("/")[2] for known in models]
        raise unknown("model in mteb's results", model, [*models, *short])
    return full[0], revision


def _pick(name: str, asked: str, places: Sequence[Path], tasks: Sequence[Result]) -> Path:
    """Return the revision that is asked for, or the one that is used without one."""
    found = [place for place in places if place.name.startswith(asked)]
    if not found:
        raise unknown(f"revision of {name}", asked, [place.name for place in places])
    best = max(found, key=lambda place: (_count([place], tasks), _newest(place, tasks)))
    if len(found) > 1:
        log.info(
            "%s: revision %s of %d, which has most of the tasks; another one by %s@REVISION",
            name,
            best.name,
            len(found),
            name,
        )
    return best


def _count(places: Sequence[Path], tasks: Sequence[Result]) -> int:
    names = {ours.spec.task for ours in tasks}
    files = [place / f"{name}.json" for place, name in product(places, names)]
    return sum(file.is_file() for file in files)


def _newest(place: Path, tasks: Sequence[Result]) -> list[Any]:
    """Return the newest version of mteb in a folder, in a form that can be compared."""
    files = [read_object(place / f"{ours.spec.task}.json") for ours in tasks]
    return max((natural(str(file.get("mteb_version") or "")) for file in files), default=[])


def _row(place: Path, meta: Mapping[str, Any], ours: Result) -> Result:
    """Return a model's score on one of our tasks.

    Raises:
        _UnfitError: There is none, or it is of something else.
    """
    spec = ours.spec
    file = place / f"{spec.task}.json"
    if not file.is_file():
        raise _UnfitError(f"mteb's results have none at revision {place.name}")
    theirs = read_object(file)
    score = _score(theirs, ours)
    parameters = meta.get("n_parameters")
    card = {
        "source": SOURCE,
        "trained": True,
        "parameters": parameters if isinstance(parameters, int) else None,
        "licence": str(meta.get("license") or ""),
    }
    return Result(
        RunSpec(
            encoder=_name(place),
            fingerprint=digest([_name(place), place.name])[:16],
            settings={"revision": place.name},
            task=spec.task,
            task_version=spec.task_version,
            readout=spec.readout,
            seed=spec.seed,
            limit=None,
        ),
        ours.family,
        ours.metric,
        {ours.metric: Score((score,))},
        card=card,
        provenance={"versions": {"mteb": str(theirs.get("mteb_version") or "")}},
    )


def _score(theirs: Mapping[str, Any], ours: Result) -> float:
    """Return the mean of the main metric over the splits and subsets that ours is the mean of."""
    own = ours.original["task_result"]
    scores, revision = theirs.get("scores"), theirs.get("dataset_revision")
    if not isinstance(scores, dict):
        raise _UnfitError("the file is none of mteb 1.11 or newer")
    if revision not in {own["dataset_revision"], data_revision(ours)}:
        raise _UnfitError(f"other data: revision {revision}, ours is {own['dataset_revision']}")
    values = []
    for split, parts in own["scores"].items():
        subsets = [part["hf_subset"] for part in parts]
        values += [_value(scores.get(split), split, subset, ours.metric) for subset in subsets]
    return math.fsum(values) / len(values)


def data_revision(result: Result) -> str:
    """Return the revision of the data as it is exported.

    That of a local copy, of which only its owner knows the revision, is its hash.
    """
    used = result.provenance.get("data") or ()
    local = next((each.get("sha256") for each in used if each.get("source") == "local"), "")
    revision = str(result.original["task_result"]["dataset_revision"])
    return f"local copy, sha256 {local}" if local else revision


def _value(parts: Any, split: str, subset: str, metric: str) -> float:  # noqa: ANN401 - any JSON
    """Return the main score of a split and subset.

    Raises:
        _UnfitError: There is none, or it is another metric's.
    """
    where = f"split {split}, subset {subset}"
    known = {part.get("hf_subset"): part for part in parts or () if isinstance(part, dict)}
    own = known.get(subset, {})
    value, main = own.get(metric), own.get("main_score")
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise _UnfitError(f"no {metric} on {where}")
    if main != value:
        raise _UnfitError(f"another main metric than {metric}, {value}: {main} on {where}")
    return float(value)
