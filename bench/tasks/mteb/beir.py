"""Retrieval from a folder in BEIR's layout, as a task of mteb's.

Source: Thakur et al. 2021, BEIR. ``corpus.jsonl`` has ``_id``, ``text`` and maybe ``title``,
``queries.jsonl`` ``_id`` and ``text``, ``qrels/test.tsv`` ``query-id``, ``corpus-id``, ``score``.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import data
from bench.data import Rows
from bench.data.columns import NUMBER, TEXT, Kind
from bench.errors import DataError

if TYPE_CHECKING:
    from mteb import AbsTask

log = logging.getLogger(__name__)

FILES = ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv")

_ID = Kind("an id, a text or a number", lambda value: isinstance(value, str | int))
_GRADE = Kind("a whole number", lambda value: NUMBER.matches(value) and value == int(value))


def make_task(*, name: str, folder: str, seed: int) -> "AbsTask":
    """Return a retrieval task on a folder, with its data.

    Raises:
        DataError: A file is broken, an id is there twice, or a judgement names a query or document
            that is not there or contradicts another one.
    """
    from mteb import TaskMetadata
    from mteb.abstasks import AbsTaskRetrieval

    class OwnRetrieval(AbsTaskRetrieval):  # type: ignore[misc]  # mteb is not typed
        """Retrieval on a user's files."""

        metadata = TaskMetadata(
            name=name.replace(":", "-"),
            description="Retrieval on own files.",
            type="Retrieval",
            category="t2t",
            modalities=["text"],
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="ndcg_at_10",
            dataset={"path": f"own/{Path(folder).name}", "revision": name.rpartition("-")[2]},
        )

    task = OwnRetrieval(seed=seed)
    task.dataset = {"default": {"test": _read(Path(folder))}}
    task.data_loaded = True
    return task


def _read(folder: Path) -> dict[str, Any]:
    from datasets import Dataset

    corpus, queries, judgements = (str(folder / name) for name in FILES)
    texts = {"_id": _ID, "text": TEXT}
    documents = data.load(corpus, "test", columns=texts)
    asked = data.load(queries, "test", columns=texts)
    judged = data.load(
        judgements, "test", columns={"query-id": _ID, "corpus-id": _ID, "score": _GRADE}
    )
    titles = [""] * len(documents)
    if "title" in documents.columns:
        documents.check("title", TEXT)
        titles = documents["title"]
    relevant: dict[str, dict[str, int]] = {}
    known, queried = _distinct(documents), _distinct(asked)
    triples = zip(judged["query-id"], judged["corpus-id"], judged["score"], strict=True)
    for row, (query, document, score) in enumerate(triples, 2):
        if str(query) not in queried or str(document) not in known:
            raise DataError(
                f"{judgements} line {row}: query {query} or document {document} is not there; "
                "fix or drop the line"
            )
        grade = relevant.setdefault(str(query), {}).setdefault(str(document), int(score))
        if grade != score:
            raise DataError(
                f"{judgements} line {row}: query {query} and document {document} are judged "
                f"{grade} before and {score} here; drop one of the lines"
            )
    if empty := sum(max(grades.values()) <= 0 for grades in relevant.values()):
        log.warning(
            "%s: %d of %d queries have no document judged above 0, and count as 0 whatever is "
            "found: drop their lines",
            judgements,
            empty,
            len(relevant),
        )
    kept = [i for i, query in enumerate(asked["_id"]) if str(query) in relevant]
    return {
        "corpus": Dataset.from_dict(
            {"id": list(known), "title": titles, "text": documents["text"]}
        ),
        "queries": Dataset.from_dict(
            {
                "id": [str(asked["_id"][i]) for i in kept],
                "text": [asked["text"][i] for i in kept],
            }
        ),
        "relevant_docs": relevant,
        "top_ranked": None,
    }


def _distinct(rows: Rows) -> dict[str, int]:
    """Return the ids of some rows, in order, with their row numbers from 1.

    Raises:
        DataError: Two rows have the same one.
    """
    found: dict[str, int] = {}
    for row, i in enumerate(map(str, rows["_id"]), 1):
        if found.setdefault(i, row) != row:
            raise DataError(
                f"{rows.source} row {row}: the id {i} is that of row {found[i]}; "
                "drop one of them, or rename it"
            )
    return found
