"""The data of mteb's retrieval and reranking tasks: local copies, and draws of queries."""

import logging
import re
from itertools import chain, product
from typing import TYPE_CHECKING, Any

from bench import data
from bench.errors import DataError
from bench.task import sample

if TYPE_CHECKING:
    from datasets import Dataset
    from mteb import AbsTask
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData

log = logging.getLogger(__name__)

OTHERS = 1000
"""Documents that nobody judged, drawn beside the judged ones where a retrieval task is cut."""

_OF_QUERIES = re.compile(r"(ndcg|map|mrr|recall|precision|hit_rate)_at_\d+|accuracy")
"""Scores that are means over queries; others are of pairs or groups of them, which a draw cuts."""

_JUDGED = ("query-id", "corpus-id", "score")
_COLUMNS = {
    "corpus": ("text",),
    "queries": ("text",),
    "query": ("text",),
    "top_ranked": ("query-id", "corpus-ids"),
    "instruction": ("query-id", "instruction"),
}


def is_standard(task: "AbsTask") -> bool:
    """Say whether a task retrieves or reranks by the standard protocol, a score for each query."""
    return (
        task.metadata.type in {"Retrieval", "Reranking"}
        and not task.is_aggregate
        and _OF_QUERIES.fullmatch(task.metadata.main_score) is not None
    )


def read_local(task: "AbsTask") -> "dict[str, dict[str, RetrievalSplitData]] | None":
    """Return the corpus, queries, judgements and candidates from a local copy, if there is one.

    The copy has the hub's configurations as folders: ``corpus``, ``queries`` and ``default``, or
    ``qrels``, for the judgements, and ``top_ranked`` for reranking; those of a subset begin with
    its name.

    Raises:
        DataError: A part of the copy is missing or broken.
    """
    from mteb.abstasks import AbsTaskRetrieval
    from mteb.abstasks.text.reranking import AbsTaskReranking

    where = task.metadata.dataset["path"]
    if type(task).load_data not in {AbsTaskRetrieval.load_data, AbsTaskReranking.load_data}:
        return None
    if not (found := data.list_local_splits(where)):
        return None
    subsets = task.hf_subsets if task.metadata.is_multilingual else ["default"]
    loader = _local_loader(where, found)
    try:
        loaded: dict[str, dict[str, RetrievalSplitData]] = {subset: {} for subset in subsets}
        for subset, split in product(subsets, task.eval_splits):
            loaded[subset][split] = loader(subset, split).load()
    except (ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"the local copy of {where} is no set for retrieval: {reason}") from error
    log.info(
        "%s is read from the local copy, which is not known to be mteb's revision %s",
        where,
        task.metadata.dataset.get("revision"),
    )
    for subset, splits in loaded.items():
        for split, part in splits.items():
            if "Reranking" in task.metadata.type and part["top_ranked"] is None:
                # mteb would rank the whole corpus, which is another task
                folder = "top_ranked" if subset == "default" else f"{subset}-top_ranked"
                wanted = f"{folder}/{split}.jsonl.gz"
                raise DataError(f"the local copy of {where} has no {wanted}; copy it again")
            _tell(task, subset, split, part)
    return loaded


def _local_loader(where: str, found: dict[str, list[str]]) -> Any:  # noqa: ANN401
    from datasets import Dataset
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalDatasetLoader

    class Loader(RetrievalDatasetLoader):  # type: ignore[misc]  # mteb is not typed
        """mteb's own reader of the layout, with files of the local copy in the hub's place."""

        def __init__(self, subset: str, split: str) -> None:
            self.config = None if subset == "default" else subset
            self.split = split
            self.dataset_configs = list(found)

        def _load_dataset_split(self, config: str, num_proc: int | None) -> "Dataset":
            splits = found.get(config, [])
            if self.split not in splits and len(splits) != 1:
                wanted = f"{config}/{self.split}.jsonl.gz"
                raise DataError(f"the local copy of {where} has no {wanted}; copy it again")
            split = self.split if self.split in splits else splits[0]
            part = config.removeprefix(f"{self.config}-")
            folder = "" if data.find_local_file(where, split, config=config) is None else config
            rows = data.load(where, split, config=folder, columns=_COLUMNS.get(part, _JUDGED))
            return Dataset.from_dict(dict(rows.data))

    return Loader


def tell_size(task: "AbsTask", subset: str, split: str, **sizes: int) -> None:
    """Warn where a local copy has not the size that mteb states.

    Args:
        task: The task.
        subset: One of its subsets.
        split: One of its splits.
        sizes: Number of ``samples``, ``documents`` or ``queries`` in the copy.
    """
    stated = (task.metadata.descriptive_stats or {}).get(split, {})
    stated = stated.get("hf_subset_descriptive_stats", {}).get(subset, stated)
    for kind, size in sizes.items():
        expected = stated.get(f"num_{kind}")
        if expected not in {None, size}:
            log.warning(
                "%s %s %s: the local copy has %d %s, mteb's set has %d: scores are not comparable",
                task.metadata.name,
                subset,
                split,
                size,
                kind,
                expected,
            )


def _tell(task: "AbsTask", subset: str, split: str, part: "RetrievalSplitData") -> None:
    """Warn where a copy has not the size that mteb states, or judges what it does not hold."""
    name = f"{task.metadata.name} {subset} {split}"
    tell_size(task, subset, split, documents=len(part["corpus"]), queries=len(part["queries"]))
    if "Instruction" in task.metadata.type and "instruction" not in part["queries"].column_names:
        log.warning(
            "%s: the local copy has no instructions; if the hub has them, copy them too", name
        )
    judged = set(chain(*part["relevant_docs"].values()))
    for kind, absent in (
        ("documents", judged - set(part["corpus"]["id"])),
        ("queries", set(part["relevant_docs"]) - set(part["queries"]["id"])),
    ):
        if absent:
            log.warning("%s: %d judged %s are not in the local copy", name, len(absent), kind)


def draw(task: "AbsTask", limit: int) -> None:
    """Cut every split to a fixed draw of queries, with their judged and candidate documents.

    Where there are no candidates, ``OTHERS`` further documents are drawn too, however many queries
    there are.

    Args:
        task: A task for which ``is_standard`` holds; changed.
        limit: At most this many queries.
    """
    task.convert_v1_dataset_format_to_v2(num_proc=None)
    for splits in task.dataset.values():
        for part in splits.values():
            _draw_part(part, limit)


def _draw_part(part: "RetrievalSplitData", limit: int) -> None:
    judged, candidates = part["relevant_docs"], part["top_ranked"] or {}
    ids = list(part["queries"]["id"][:])
    answered = [i for i, query in enumerate(ids) if judged.get(query)]
    kept = [answered[i] for i in sample(len(answered), limit)]
    wanted: set[str] = set()
    for i in kept:
        wanted.update(judged[ids[i]], candidates.get(ids[i], ()))
    documents = list(part["corpus"]["id"][:])
    others = [i for i, document in enumerate(documents) if document not in wanted]
    drawn = [] if candidates else [others[i] for i in sample(len(others), OTHERS)]
    needed = [i for i, document in enumerate(documents) if document in wanted]
    part["queries"] = part["queries"].select(kept)
    part["corpus"] = part["corpus"].select(sorted([*needed, *drawn]))
    part["relevant_docs"] = {ids[i]: judged[ids[i]] for i in kept}
