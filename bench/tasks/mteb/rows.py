"""The data of mteb's tasks: read where ours is read, and handed to mteb as plain columns."""

import logging
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import data
from bench.data import hub
from bench.data.catalog import CATALOG
from bench.data.columns import CLASS, NUMBER, TEXT, check_classes, check_column
from bench.errors import Unavailable
from bench.task import sample
from bench.tasks.mteb import mirrored
from bench.tasks.mteb.isolated import without_bars
from bench.tasks.mteb.retrieval import draw, read_local, tell_size

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict
    from mteb import AbsTask

log = logging.getLogger(__name__)

PAIRS = ("STS", "PairClassification")
"""The task types that compare two texts."""

FLAT = (*PAIRS, "Classification", "Clustering")
"""The task types whose data is one row per example."""


@dataclass(frozen=True)
class Columns:
    """The part of ``datasets.Dataset`` that mteb's flat tasks use, on lists in memory."""

    columns: Mapping[str, list[Any]]

    @property
    def column_names(self) -> list[str]:
        """Names of the columns."""
        return list(self.columns)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, key: Any) -> Any:  # noqa: ANN401 - a column by name, a row by number
        return (
            self.columns[key]
            if isinstance(key, str)
            else {name: values[key] for name, values in self.columns.items()}
        )

    def select(self, indices: Iterable[int]) -> "Columns":
        """Return the rows of these numbers, in this order."""
        kept = list(indices)
        columns = {}
        for name, values in self.columns.items():
            columns[name] = [values[i] for i in kept]
        return Columns(columns)

    def select_columns(self, names: str | Iterable[str]) -> "Columns":
        """Return some of the columns."""
        return Columns(
            {name: self.columns[name] for name in ([names] if isinstance(names, str) else names)}
        )

    def rename_columns(self, names: Mapping[str, str]) -> "Columns":
        """Return the columns under other names."""
        return Columns({names.get(name, name): values for name, values in self.columns.items()})


def is_flat(task: "AbsTask") -> bool:
    """Say whether the task's data is one row per example."""
    from mteb.abstasks import AbsTaskClusteringLegacy

    return (
        task.metadata.type in FLAT
        and not task.is_aggregate
        and not isinstance(task, AbsTaskClusteringLegacy)
    )


def _splits(task: "AbsTask") -> Sequence[str]:
    from mteb.abstasks import AbsTaskClassification

    # multilabel classification and regression are of this class, too
    train = [task.train_split] if isinstance(task, AbsTaskClassification) else []
    return list(dict.fromkeys([*task.eval_splits, *train]))


def load(task: "AbsTask", limit: int | None) -> None:
    """Load a task's data from where ``bench.data`` has it at mteb's revision, else as mteb does.

    Args:
        task: Any task; one whose type is flat gets plain columns.
        limit: At most this many test examples, or queries; for tasks that are flat or
            ``retrieval.is_standard`` only.

    Raises:
        Unavailable: The data is not on this machine.
        DataError: A local copy is broken, or a row holds something else than it must.
    """
    parts_of_it = task.metadata.tasks if task.is_aggregate else [task]
    local = [_load_near(part) for part in parts_of_it]
    if not is_flat(task):
        if limit is not None:
            draw(task, limit)
        return
    _flatten(task)
    if local[0] and (task.metadata.dataset["path"], "") not in CATALOG:  # else logged when loaded
        for subset, split, rows in parts(task):
            tell_size(task, subset, split, samples=len(rows))
    _limit(task, limit)
    _check(task)


def _load_near(task: "AbsTask") -> bool:
    """Load a task's data if it is not loaded, and return whether ours has it or a local copy."""
    if task.data_loaded:
        return False
    near = _near(task) or read_local(task)
    if near is None:
        if mirrored.restore(task):
            _record(task)
        else:
            _load_from_hub(task)
            mirrored.note(task)
        return False
    task.dataset = near
    task.dataset_transform()
    task.data_loaded = True
    return True


def _load_from_hub(task: "AbsTask") -> None:
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    name, where = task.metadata.name, task.metadata.dataset
    revision = str(where.get("revision"))
    is_commit = re.fullmatch("[0-9a-f]+", revision)  # some tasks name its first digits, or a branch
    if Path(where["path"]).exists():  # mteb would read it and take it for the hub's
        raise Unavailable(
            f"{name}: the folder {where['path']} of the working directory has the name of a set "
            "of the hub; run in another folder, or give its files with --data"
        )
    try:
        with hub.offline_if_unreachable():
            task.load_data()
    except (OSError, RuntimeError, ValueError, HTTPError, DatasetsError) as error:
        reason = " ".join(str(error).split())
        raise Unavailable(
            f"{name}: no local copy, and not from the hub ({reason}); {_advise(name)}"
        ) from error
    found = {hub.find_cached_commit(rows) for rows in _tables(task.dataset)} - {""}
    if other := {commit for commit in found if is_commit and not commit.startswith(revision)}:
        raise Unavailable(
            f"{name}: the cache of the hub has {where['path']} at {min(other)}, not at {revision}; "
            f"{_advise(name)}"
        )
    _record(task)


def _advise(name: str) -> str:
    return (
        f"run `bench data mirror DIR --task {shlex.quote(name)}` on a machine with a network "
        "and give DIR as --data"
    )


def _record(task: "AbsTask") -> None:
    where = task.metadata.dataset
    for split in task.eval_splits:
        pin = {"source": "hub", "revision": str(where.get("revision"))}
        data.record_source(where["path"], split, where.get("name") or "", pin)


def _tables(tree: object) -> "Iterator[Dataset]":
    """Yield the tables in nested mappings."""
    from datasets import Dataset

    if isinstance(tree, Dataset):
        yield tree
    for branch in tree.values() if isinstance(tree, Mapping) else ():
        yield from _tables(branch)


def _check(task: "AbsTask") -> None:
    """Check texts and gold values of a flat task, which mteb scores whatever they are.

    Raises:
        DataError: A row holds something else than it must, or there is one gold value alone.
    """
    kind = task.metadata.type
    ranked = [task.train_split] if kind == "Classification" else task.eval_splits
    for subset, splits in task.dataset.items():
        for split, rows in splits.items():
            where = f"{task.metadata.name} {subset} {split}"
            _check_rows(task, rows, where, varied=split in ranked)


def _check_rows(task: "AbsTask", rows: Columns, where: str, *, varied: bool) -> None:
    """Check one table; where it is ``varied``, its gold values must differ."""
    kind = task.metadata.type
    gold = "score" if kind == "STS" else task.label_column_name
    texts = [task.input_column_name] if kind == "Clustering" else [name for name, _ in inputs(task)]
    nested = isinstance(rows[gold][0], list)  # the levels of a hierarchy
    label = NUMBER if kind in PAIRS else CLASS
    columns = {**dict.fromkeys(texts, TEXT), gold: label.lists() if nested else label}
    for column, wanted in columns.items():
        check_column(rows[column], wanted, f"{where}, column {column!r}")
    if varied and not nested:
        check_classes(rows[gold], where)


def _near(task: "AbsTask") -> "dict[str, DatasetDict] | DatasetDict | None":
    """Return the data where ours has it; None where mteb has to load it."""
    from datasets import DatasetDict
    from mteb import AbsTask

    if type(task).load_data is not AbsTask.load_data:
        return None
    where = task.metadata.dataset
    subsets = task.hf_subsets if task.metadata.is_multilingual else [where.get("name") or ""]
    if not all(_is_near(where, *names) for names in product(subsets, _splits(task))):
        return None
    loaded = {config: DatasetDict() for config in subsets}
    for config, split in product(subsets, _splits(task)):
        rows = data.load(where["path"], split, config=config)
        loaded[config][split] = _as_dataset(rows)
    return loaded if task.metadata.is_multilingual else loaded[subsets[0]]


def _as_dataset(rows: data.Rows) -> "Dataset":
    """Return rows as the hub has them: mteb draws from classes in their order, not by name."""
    from datasets import ClassLabel, Dataset, Value

    table = Dataset.from_dict(dict(rows.data))
    for column, names in rows.classes.items():
        feature = table.features.get(column)
        if isinstance(feature, Value) and feature.dtype.startswith("int"):
            with without_bars():
                table = table.cast_column(column, ClassLabel(names=names))
    return table


def _is_near(where: Mapping[str, Any], config: str, split: str) -> bool:
    known = CATALOG.get((where["path"], config))
    if known is not None and known.revision and known.revision != where.get("revision"):
        return False
    if data.find_local_file(where["path"], split, config=config):
        if known is None:
            log.info(
                "%s is read from the local copy, which is not known to be mteb's revision %s",
                where["path"],
                where.get("revision"),
            )
        return True
    return known is not None and bool(known.revision) and split in known.splits


def _flatten(task: "AbsTask") -> None:
    default = not task.metadata.is_multilingual and "default" not in task.dataset
    subsets = (
        {"default": task.dataset}
        if default
        else {subset: task.dataset[subset] for subset in task.hf_subsets}
    )
    kind = task.metadata.type
    flat: dict[str, dict[str, Columns]] = {subset: {} for subset in subsets}
    for subset, split in product(subsets, _splits(task)):
        flat[subset][split] = _columns(subsets[subset][split], kind)
    task.dataset = flat


def _columns(rows: "Dataset", kind: str) -> Columns:
    columns = {name: list(rows[name][:]) for name in rows.column_names}
    if (
        kind == "PairClassification" and len(rows) == 1
    ):  # the first release of some sets: everything in one row
        columns = {
            name: values[0] for name, values in columns.items() if isinstance(values[0], list)
        }
    return Columns(columns)


def _limit(task: "AbsTask", limit: int | None) -> None:
    if limit is None:
        return
    if task.metadata.type != "Clustering":
        if trains_on_test(task):
            _set_training_rows_apart(task)
        for subset, split, rows in list(parts(task)):
            task.dataset[subset][split] = rows.select(sample(len(rows), limit).tolist())
        return
    # mteb draws the texts to embed, mostly 4 %: of rows that are cut first next to none are left.
    embedded, share = task.max_document_to_embed, task.max_fraction_of_documents_to_embed
    if share is not None:
        embedded = int(share * max(len(rows) for _, _, rows in parts(task)))
    task.max_fraction_of_documents_to_embed, task.max_document_to_embed = (
        None,
        min(limit, embedded or limit),
    )


def trains_on_test(task: "AbsTask") -> bool:
    """Say whether a task draws what it trains on from the split that it evaluates."""
    train = getattr(task, "train_split", None)
    return train in task.eval_splits and not task.is_cross_validation


def _set_training_rows_apart(task: "AbsTask") -> None:
    """Keep all rows for training before those of the same split are cut."""
    name = f"all of {task.train_split}"
    for splits in task.dataset.values():
        splits[name] = splits[task.train_split]
    task.train_split = name


def parts(task: "AbsTask") -> Iterator[tuple[str, str, Columns]]:
    """Yield subset, split and rows of what is evaluated of a flat task."""
    for split in task.eval_splits:
        for subset, splits in task.dataset.items():
            yield subset, split, splits[split]


def inputs(task: "AbsTask") -> list[tuple[str, str | None]]:
    """Return the columns of texts of a flat task that compares or classifies, with their sides."""
    if task.metadata.type == "Classification":
        return [(task.input_column_name, None)]
    first, second = (
        task.column_names
        if task.metadata.type == "STS"
        else (task.input1_column_name, task.input2_column_name)
    )
    return [(first, task.input1_prompt_type), (second, task.input2_prompt_type)]
