"""Tasks of mteb, scored by mteb itself on our vectors; and our encoders as models of mteb.

Source: Muennighoff et al. 2023, MTEB; the package ``mteb`` 2.20 or newer (extra ``mteb``), whose
protocols are used as they are.
Run: ``bench run --model all --task STS13`` or ``--suite "MTEB(eng, v2)"``.
Protocol: mteb's, with three choices of ours. The split is ``test`` where there is one, else every
evaluation split; of a task in many languages the purely English subsets are taken, or all where
there is none; a benchmark's own choice of splits and subsets goes before both, and the read-out
names it; the instruction is the task's own prompt where mteb has one (mteb's generic prompts are
not used). Texts without a side all get it; of queries and documents those that the encoder names
(``bench.encoder.instructed_sides``): queries alone by default, both for InBedder. The number of the
protocol holds mteb's own version: 1002026 is our protocol 1 on mteb 2.26. Labels are handed to mteb
as plain lists: its lazy columns are decoded row by row, which takes minutes on a set like IMDb.
"""

import functools
import importlib.metadata
import json
import math
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, product
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bench.embeddings import CachedEncoder
from bench.encoder import Item, similarity_of
from bench.errors import EncodingError, Unavailable, UsageError
from bench.stats.influence import AGREE, contributions
from bench.task import NetworkTask, Score, Scores, example_ids, keep_original
from bench.tasks.mteb.bridge import MtebEncoder, as_mteb, instruction_for
from bench.tasks.mteb.isolated import installed, loaded_mteb, undisturbed, without_bars
from bench.tasks.mteb.names import is_mentioned
from bench.tasks.mteb.retrieval import OTHERS, is_standard
from bench.tasks.mteb.rows import (
    FLAT,
    PAIRS,
    inputs,
    is_flat,
    load,
    parts,
    trains_on_test,
)

if TYPE_CHECKING:
    from mteb import AbsTask, TaskMetadata

__all__ = ["MtebEncoder", "MtebTask", "as_mteb", "benchmark", "known_task"]

_FAMILIES = {"STS": "sts", "PairClassification": "paraphrase"}


@dataclass(frozen=True, kw_only=True)
class MtebTask(NetworkTask):
    """A task of mteb, made afresh for every evaluation.

    Attributes:
        name: mteb's name of the task; a label where ``source`` is given.
        source: A class of mteb's kind, or what makes such a task when called with ``seed=``, for
            tasks that mteb does not list.
        instruction: Replaces the task's own prompt.
        limit: At most this many test examples; for clustering, at most this many embedded texts;
            for retrieval and reranking, at most this many queries
            (``bench.tasks.mteb.retrieval.draw``).
        subsets: mteb's subsets to take instead of our choice; () for ours.
        splits: Its evaluation splits, likewise.
    """

    source: Callable[..., Any] | None = None
    subsets: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    uses_instruction: ClassVar[bool] = True

    @property
    def family(self) -> str:
        """The group of mteb's task type, in our words; "mteb" where mteb is not installed."""
        if not installed():
            return "mteb"
        kind = self._metadata.type
        return _FAMILIES.get(kind) or re.sub(r"(?<=[a-z])(?=[A-Z])", "-", kind).lower()

    @property
    def metric(self) -> str:
        """The main score of mteb's; "main_score" where mteb is not installed."""
        return str(self._metadata.main_score) if installed() else "main_score"

    @property
    def version(self) -> int:
        """Number of our protocol and of mteb's release."""
        release = importlib.metadata.version("mteb") if installed() else "0.0"
        major, minor = (int(part) for part in release.split(".")[:2])
        return 1_000_000 + 1_000 * major + minor

    @property
    def readout(self) -> str:
        """The embedding, with the instruction, subsets and splits that replace the default ones.

        So are the documents beside the judged ones where a limit cuts a retrieval task, and the
        rows for training where it cuts the split that they are drawn from.
        """
        chosen = ", ".join((*self.subsets, *self.splits))
        cut = self._metadata.type if self.limit is not None and installed() else ""
        same = cut == "Classification" and _trains_on_test(self.name, self.source)
        return (
            super().readout
            + f" on {chosen}" * bool(chosen)
            + f" among {OTHERS} documents besides the judged ones" * (cut == "Retrieval")
            + " trained on the whole split" * same
        )

    def items(self, *, seed: int) -> list[Item]:
        """Return the texts of pairs and of classification; others are encoded when mteb asks."""
        if not installed() or self._metadata.type not in (*PAIRS, "Classification"):
            return []
        task = self.load(seed)
        if not is_flat(task):  # an aggregate, whose tasks have the data
            return []
        # the instruction of a text on a side is the encoder's choice
        columns = [column for column, side in inputs(task) if side is None]
        asked = instruction_for(task.metadata, None, self.instruction)
        items = []
        for (_, _, rows), column in product(parts(task), columns):
            items += [Item(text, asked) for text in rows[column]]
        return items

    def measure(self, encoder: CachedEncoder, *, seed: int) -> Scores:
        """Return what mteb returns, its repeats kept apart; global random state stays as it was.

        Args:
            encoder: Any encoder.
            seed: 42 is mteb's own protocol.

        Raises:
            Unavailable: mteb is not installed, the data is not available, or the task cannot be
                limited.
            EncodingError: The vectors are no embeddings, or have no score.
        """
        with undisturbed(), without_bars(), tempfile.TemporaryDirectory() as folder:
            mteb, task = loaded_mteb(), self.load(seed)
            result = mteb.evaluate(
                as_mteb(encoder, instruction=self.instruction),
                task,
                cache=None,
                co2_tracker=False,
                show_progress_bar=False,
                prediction_folder=Path(folder) if task.metadata.type in FLAT else None,
            )
            found = result.task_results[0]
            scores = _scores(list(chain(*found.scores.values())))
            if self.metric not in scores:
                raise EncodingError(
                    f"mteb's {self.metric} on {self.name} is not a number: "
                    "are all vectors the same?"
                )
            for metric, arrays in _examples(task, Path(folder), scores).items():
                scores[metric] = Score(scores[metric].repeats, *arrays)
        if self.limit is None and self.source is None:
            original = found.model_dump(mode="json")
            keep_original(
                {
                    "instruction": self.instruction,
                    "similarity": similarity_of(encoder),
                    "task_result": original,
                }
            )
        return scores

    @property
    def _metadata(self) -> "TaskMetadata":
        return _metadata(self.name, self.source)

    @undisturbed()
    def load(self, seed: int) -> "AbsTask":
        """Return mteb's task with its data, cut to ``limit``."""
        loaded_mteb()
        task = _fresh(self.name, self.source, seed)
        task.hf_subsets = list(self.subsets) or task.hf_subsets
        if self.splits:
            task = task.filter_eval_splits(list(self.splits))
        if set(task.metadata.modalities) != {"text"}:
            raise Unavailable(
                f"{self.name} reads {', '.join(task.metadata.modalities)}; "
                "only tasks on text can be run"
            )
        if self.limit is not None and not (is_flat(task) or is_standard(task)):
            raise Unavailable(
                f"{self.name}: a limit is not defined for {task.metadata.type} tasks of this kind; "
                "run it without one"
            )
        load(task, self.limit)
        return task


def known_task(name: str) -> bool:
    """Say whether mteb is installed and has a task of this name."""
    try:
        return installed() and is_mentioned(name) and bool(_registered(name))
    except UsageError:
        return False


def benchmark(name: str) -> tuple[MtebTask, ...]:
    """Return the tasks of an mteb benchmark; none where there is no such benchmark."""
    if not installed() or not is_mentioned(name):
        return ()
    try:
        with undisturbed():
            return tuple(map(_chosen, loaded_mteb().get_benchmark(name).tasks))
    except KeyError:
        return ()


def _chosen(task: "AbsTask") -> MtebTask:
    """Return a task of a benchmark, with its subsets and splits where they are not the default."""
    ours = _fresh(task.metadata.name, None, 42)
    subsets = task.hf_subsets if set(task.hf_subsets or ()) != set(ours.hf_subsets or ()) else ()
    splits = task.eval_splits if set(task.eval_splits) != set(ours.eval_splits) else ()
    return MtebTask(task.metadata.name, subsets=tuple(subsets), splits=tuple(splits))


@functools.cache
def _registered(name: str) -> "type[AbsTask]":
    """Return mteb's class of this name.

    Raises:
        UsageError: There is none; mteb's words name a similar one.
    """
    try:
        with undisturbed():
            return type(loaded_mteb().get_task(name))
    except KeyError as error:
        hint = error.args[0].removeprefix("KeyError: ")
        raise UsageError(f"no mteb task named {name!r}: {hint}") from error


@functools.cache
def _metadata(name: str, source: Callable[..., Any] | None) -> "TaskMetadata":
    with undisturbed():
        return _fresh(name, source, 42).metadata


@functools.cache
def _trains_on_test(name: str, source: Callable[..., Any] | None) -> bool:
    with undisturbed():
        return trains_on_test(_fresh(name, source, 42))


def _fresh(name: str, source: Callable[..., Any] | None, seed: int) -> "AbsTask":
    make = source or _registered(name)
    task = make(seed=seed)
    if task.is_aggregate:
        task.tasks = [_again(part, seed) for part in task.metadata.tasks]
        task.metadata = task.metadata.model_copy(update={"tasks": task.tasks})
    if task.metadata.is_multilingual and not task.is_aggregate:
        subsets = task.metadata.hf_subsets_to_langscripts.items()
        english = [subset for subset, languages in subsets if _is_english(languages)]
        task.hf_subsets = english or task.hf_subsets
    return task.filter_eval_splits(["test"]) if "test" in task.eval_splits else task


def _again(part: "AbsTask", seed: int) -> "AbsTask":
    """Return a task of an aggregate anew: mteb makes it once, with its own seed, and keeps it."""
    task = type(part)(seed=seed).filter_eval_splits(list(part.eval_splits))
    task.hf_subsets = part.hf_subsets
    return task


def _is_english(languages: Sequence[str]) -> bool:
    return all(language.startswith("eng-") for language in languages)


def _scores(measured: Sequence[Mapping[str, Any]]) -> dict[str, Score]:
    """Return the scores of the splits and subsets, averaged over them repeat by repeat."""
    first, *others = each = [_repeats(part) for part in measured]
    shared = set(first).intersection(*others)
    scores = {}
    for name in first:
        if name in shared:
            scores[name] = _average([repeats[name] for repeats in each])
    return scores


def _average(each: Sequence[Sequence[float]]) -> Score:
    if len({len(repeats) for repeats in each}) == 1:
        return Score(tuple(map(_mean, zip(*each, strict=True))))
    return Score((_mean([_mean(repeats) for repeats in each]),))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _repeats(part: Mapping[str, Any]) -> dict[str, tuple[float, ...]]:
    """Return the repeats of every metric of one split and subset that is a number."""
    repeats = {}
    for name, value in part.items():
        if not isinstance(value, float | int) or name == "main_score" or name.endswith("_std"):
            continue
        runs = [float(run) for run in _runs(part, name, value) if run is not None]
        if runs and all(map(math.isfinite, runs)):
            repeats[name] = tuple(runs)
    return repeats


def _runs(part: Mapping[str, Any], name: str, value: float) -> Sequence[float | None]:
    runs = part.get("v_measures" if name == "v_measure" else f"{name}_scores")
    if isinstance(runs, Mapping):  # by level of a hierarchy
        return [_mean(levels) for levels in zip(*runs.values(), strict=True)]
    if "scores_per_experiment" in part:
        return [run.get(name) for run in part["scores_per_experiment"]]
    return runs or [value]


def _similarities(
    predictions: Mapping[str, Any], metric: str, gold: NDArray[np.float32], score: float
) -> NDArray[np.float32] | None:
    """Return the similarities that a score is of, cosines if they are; None where none is.

    The main score of pair classification is the best over mteb's similarities and distances.
    """
    names = [name for name in predictions if name.endswith(("scores", "distances"))]
    for name in sorted(names, key=lambda name: (name != "cosine_scores", name)):
        sign = -1 if name.endswith("distances") else 1
        values = sign * np.asarray(predictions[name], np.float32)
        if abs(contributions(metric, values, gold).mean() - score) < AGREE:
            return values
    return None


def _examples(
    task: "AbsTask", folder: Path, scores: Scores
) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint64]]]:
    """Return examples, gold values and ids of the examples by metric.

    Examples are the similarities of pairs, or the fraction of classifiers that are right on a text.
    """
    kind = task.metadata.type
    if not is_flat(task) or kind == "Clustering" or len(evaluated := list(parts(task))) != 1:
        return {}
    subset, split, rows = evaluated[0]
    file = folder / task.prediction_file_name
    if not file.is_file():  # a task that scores in its own way need not write one
        return {}
    predictions = json.loads(file.read_bytes())[subset][split]
    ids = example_ids(*(rows[column] for column, _ in inputs(task)))
    if kind in PAIRS:
        metric = task.metadata.main_score
        gold = rows["score" if kind == "STS" else task.label_column_name]
        golds = np.asarray(gold, np.float32)
        values = _similarities(predictions, metric, golds, scores[metric].mean)
        return {} if values is None else {metric: (values, golds, ids)}
    if task.is_cross_validation:
        return {}
    right = np.asarray(predictions) == np.asarray(rows[task.label_column_name])  # (experiments, n)
    return {"accuracy": (right.mean(axis=0, dtype=np.float32), np.empty(0, np.float32), ids)}
