"""Tasks on a user's own files, without code: ``KIND:PATH``, such as ``classification:reviews.csv``.

A file is CSV or TSV with a header, JSON lines or Parquet. Columns are found by their usual names,
or named: ``classification:reviews.csv:text=review,label=stars``. A folder has ``test`` and
``train`` files; for ``ner`` they are ``test.conll`` and ``train.conll`` (``bench.data.conll``), and
optionally ``questions.json``, a question for each type; for ``retrieval`` it is in BEIR's layout:
``corpus.jsonl``, ``queries.jsonl``, ``qrels/test.tsv``.
Run: ``bench run --model quip --task ner:FOLDER,classification:reviews.csv,sts:pairs.tsv``.
Protocol: that of the tasks of the same kinds. NER draws 5 training sentences a type, five times;
retrieval is mteb's.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

from bench.data import load
from bench.encoder import digest
from bench.errors import UsageError, unknown
from bench.task import Task
from bench.tasks.classification import Classification
from bench.tasks.clustering import Clustering
from bench.tasks.ner import NER, NERByQuestions, Tagged
from bench.tasks.paraphrase import Paraphrase
from bench.tasks.sts import STS
from bench.tasks.tuned import StartedNER

log = logging.getLogger(__name__)

_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet", ".csv.gz", ".tsv.gz", ".jsonl.gz")

_FIRST = ("sentence1", "text1", "text_a", "question1", "premise", "first", "left", "s1", "a")
_SECOND = ("sentence2", "text2", "text_b", "question2", "hypothesis", "second", "right", "s2", "b")
_USUAL: Mapping[str, tuple[str, ...]] = {
    "text": ("text", "sentence", "content", "review", "comment", "message", "question", "query",
             "document", "body", "tweet", "utterance", "title"),
    "label": ("label", "class", "category", "target", "intent", "topic", "sentiment", "stars",
              "rating", "is_duplicate", "duplicate", "paraphrase"),
    "score": ("score", "similarity", "similarity_score", "relatedness", "relatedness_score",
              "gold", "label"),
    "first": _FIRST,
    "second": _SECOND,
}  # fmt: skip
"""Usual names of columns, the likeliest first."""


@dataclass(frozen=True)
class _Source:
    """What a name such as ``sts:pairs.csv:score=gold`` refers to.

    Attributes:
        name: For tables, with a hash of the content and the columns that are not the usual ones.
        test: The file of the test rows.
        train: The file of the training rows; None where there is one file.
        columns: The column of each part that the kind of task needs, in the order of ``_TABLES``.
    """

    name: str
    test: Path
    train: Path | None
    columns: tuple[str, ...]


def _classification(source: _Source) -> Task:
    train = str(source.train) if source.train else ""
    text, label = source.columns
    return Classification(source.name, data=str(source.test), train=train, text=text, label=label)


def _clustering(source: _Source) -> Task:
    text, label = source.columns
    return Clustering(source.name, data=str(source.test), text=text, label=label)


def _sts(source: _Source) -> Task:
    first, second, score = source.columns
    return STS(source.name, data=str(source.test), columns=(first, second, score))


def _pairs(source: _Source) -> Task:
    first, second, label = source.columns
    return Paraphrase(source.name, data=str(source.test), columns=(first, second, label))


_TABLES: Mapping[str, tuple[tuple[str, ...], Callable[[_Source], Task]]] = {
    "classification": (("text", "label"), _classification),
    "clustering": (("text", "label"), _clustering),
    "sts": (("first", "second", "score"), _sts),
    "pairs": (("first", "second", "label"), _pairs),
}
"""The parts that a kind of task needs of a row, and what makes the task."""

ENTITIES: Mapping[str, tuple[type[Task], dict[str, Any]]] = {
    "ner": (NER, {}),
    "ner-prototype": (NER, {"tagger": "prototype"}),
    "ner-question": (NERByQuestions, {}),
    "ner-start-question": (StartedNER, {}),
    "ner-start-standard": (StartedNER, {"initial": "standard"}),
    "ner-tuned-question": (StartedNER, {"epochs": 200}),
    "ner-tuned-standard": (StartedNER, {"initial": "standard", "epochs": 200}),
}
"""The class and the settings of a task on named entities."""

KINDS = (*_TABLES, "retrieval", *ENTITIES)
"""What stands before the colon."""


def own_task(kind: str, place: str) -> Task:
    """Return the task of a file or folder; its name tells content and columns apart.

    Args:
        kind: One of ``KINDS``.
        place: The file or folder, with columns after a colon where their names are not usual.

    Raises:
        UsageError: A file is missing or cannot be read, or a column is not known.
    """
    if kind in ENTITIES:
        return _entities(kind, Path(place).expanduser())
    if kind == "retrieval":
        return _retrieval(Path(place).expanduser())
    path, named = _split_columns(place)
    test, train = _find_files(kind, path)
    parts, make = _TABLES[kind]
    usual, columns = _choose_columns(f"{kind}:{path}", parts, named, test)
    name = _name(kind, path, [test, *([train] if train else [])])
    chosen = zip(parts, usual, columns, strict=True)
    other = [f"{part}={column}" for part, likely, column in chosen if column != likely]
    if other:  # a cell is known by the name of its task
        name += f":{','.join(other)}"
    return make(_Source(name, test, train, columns))


def _name(kind: str, path: Path, files: list[Path]) -> str:
    hashed = digest([file.read_bytes().hex() for file in files])[:6]
    return f"{kind}:{path.resolve().name}-{hashed}"


def _split_columns(place: str) -> tuple[Path, dict[str, str]]:
    """Return the path, and the columns that are named after it."""
    path = Path(place).expanduser()
    head, colon, tail = place.rpartition(":")
    if path.exists() or not colon or "=" not in tail:
        return path, {}
    pairs = [each.partition("=") for each in tail.split(",")]
    return Path(head).expanduser(), {part.strip(): column.strip() for part, _, column in pairs}


def _find_files(kind: str, path: Path) -> tuple[Path, Path | None]:
    """Return the test file, and the training file of a folder that has one."""
    if path.is_file():
        if not path.name.endswith(_SUFFIXES):
            raise UsageError(
                f"expected a file of rows ({', '.join(_SUFFIXES[:4])}), got {path}: "
                "save it as one of these"
            )
        return path.resolve(), None
    test, train = _find_split(path, "test"), _find_split(path, "train")
    if test is None:
        raise UsageError(
            f"expected a file for {kind}, or a folder with test.csv (.tsv, .jsonl, .parquet), "
            f"got {path}"
        )
    return test, train


def _find_split(folder: Path, split: str) -> Path | None:
    places = [folder / f"{split}{suffix}" for suffix in _SUFFIXES]
    files = [place.resolve() for place in places if place.is_file()]
    if len(files) > 1:
        raise UsageError(f"expected one file of {split} rows in {folder}, got {len(files)}")
    return files[0] if files else None


def _choose_columns(
    place: str, parts: tuple[str, ...], named: Mapping[str, str], test: Path
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the likeliest column of each part, "" for none, and the chosen one: as named, or it.

    Raises:
        UsageError: A part or a column is not known.
    """
    for part in named:
        if part not in parts:
            raise unknown(f"part of {place}", part, parts)
    columns = load(str(test), "test").columns
    usual = tuple(next((name for name in _USUAL[part] if name in columns), "") for part in parts)
    chosen = []
    for part, likely in zip(parts, usual, strict=True):
        column = named.get(part) or likely
        if column not in columns:
            what = f"no column {column!r}" if column else f"no column of a usual name for {part}"
            raise UsageError(
                f"{test.name} has {what}; it has {', '.join(columns)}: "
                f"name it, as in {place}:{part}={columns[0]}"
            )
        others = [name for name in _USUAL[part] if name in columns and name != column]
        if others and part not in named:
            log.info("%s: %s is column %s, not %s", place, part, column, ", ".join(others))
        chosen.append(column)
    return usual, tuple(chosen)


def _entities(kind: str, folder: Path) -> Task:
    names = ["test.conll", *([] if kind == "ner-question" else ["train.conll"])]
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise UsageError(
            f"expected {' and '.join(missing)} in {folder} for {kind}: a word and its tag a line, "
            "an empty line after a sentence"
        )
    questions = folder / "questions.json"
    files = [folder / name for name in names] + ([questions] if questions.is_file() else [])
    make, settings = ENTITIES[kind]
    given = {field.name for field in fields(make)}
    sources: dict[str, Any] = {
        "test": Tagged(str(folder / "test.conll")),
        "train": (Tagged(str(folder / "train.conll")),),
        "questions": str(questions) if questions.is_file() else "",
    }
    taken = {field: value for field, value in sources.items() if field in given}
    return make(_name(kind, folder, files), **taken, **settings)


def _retrieval(folder: Path) -> Task:
    from bench.tasks.mteb import MtebTask
    from bench.tasks.mteb.beir import FILES, make_task
    from bench.tasks.mteb.isolated import installed

    files = [folder / name for name in FILES]
    if missing := [str(file.relative_to(folder)) for file in files if not file.is_file()]:
        raise UsageError(f"expected {' and '.join(missing)} in {folder} for retrieval (BEIR)")
    if not installed():
        raise UsageError("retrieval needs mteb; pip install 'encoder-recipes-bench[mteb]'")
    name = _name("retrieval", folder, files)
    return MtebTask(name, source=partial(make_task, name=name, folder=str(folder.resolve())))
