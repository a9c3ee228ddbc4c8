"""Training data of QuIP: passages of whole sentences, each with the questions that people asked of it."""

import gzip
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from adapters._training.card import Material
from adapters._training.sources import Source, readable, sentences
from bench.errors import DataError
from bench.recipe import Load, Table

TEXT_COLUMNS = ("context", "text", "passage")
"""Columns that hold passages, the first one that a table has."""


class Question(NamedTuple):
    """A question with the characters of its answer in the passage, half-open; (-1, -1) where they are not known."""

    text: str
    start: int = -1
    end: int = -1


@dataclass(frozen=True)
class Passage:
    """A text and the questions that were asked of it."""

    text: str
    questions: tuple[Question, ...] = ()

    @property
    def whole(self) -> str:
        """The text and the questions, one a line."""
        return "\n".join([self.text, *(question.text for question in self.questions)])


OPEN: tuple[Source, ...] = (
    Source("ludwigschmidt/squadshifts", "new_wiki", "test", "CC BY 4.0; passages CC BY-SA"),
    Source("ludwigschmidt/squadshifts", "reddit", "test", "CC BY 4.0; passages by Reddit users"),
    Source(
        "ludwigschmidt/squadshifts", "amazon", "test", "CC BY 4.0; passages by Amazon reviewers"
    ),
    Source("cs224n/squad2_dev_part", "", "validation", "CC BY-SA 4.0"),
    Source("google/xquad", "xquad.en", "validation", "CC BY-SA 4.0"),
    Source("deepset/covid_qa_excerpts", "", "train", "Apache-2.0"),
)
"""Extractive question answering with licences that let a model be published. Of the tasks here only those on question answering share
passages with it: XQuAD, and SQuAD by its development set, which the table of overlap shows."""


def gathered(sources: Sequence[Source], load: Load) -> tuple[list[Passage], list[Material]]:
    """Return the distinct passages of the sources, with the answerable questions that all of them ask, and where they are from.

    Args:
        sources: Where from.
        load: Gives the sets that are no files.

    Raises:
        Unavailable: No source can be had on this machine; one of several that cannot is left out with a warning.
        DataError: A source is broken, or holds no passage.
    """
    found: dict[str, dict[Question, None]] = {}
    material = []
    for source, (passages, pin) in readable(
        sources, partial(_read, load=load), what="passages to train on"
    ):
        for passage in passages:
            found.setdefault(passage.text, {}).update(dict.fromkeys(passage.questions))
        material.append(Material(source.name, source.licence, len(passages), pin))
    return [Passage(text, tuple(questions)) for text, questions in found.items()], material


def _read(source: Source, load: Load) -> tuple[list[Passage], dict[str, str]]:
    path = Path(source.id)
    if path.is_file() or path.suffix in {".json", ".jsonl", ".txt", ".gz"}:
        data, pin = _bytes(path)
        records: Iterable[Mapping[str, Any]] = _records(data, path)
    else:
        table = load(source.id, source.split, config=source.config)
        records, pin = _rows(table), dict(table.pin)
    try:
        passages = [passage for record in records for passage in _passages(record)]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        form = (
            "SQuAD rows (context, question, answers), SQuAD's or MRQA's nesting, or a text column"
        )
        raise DataError(
            f"expected {form} in {source.name}, got something else ({type(error).__name__}: {error})"
        ) from error
    if not passages:
        raise DataError(
            f"expected passages in {source.name}, got none: it needs a context, passage or text column, or SQuAD's nesting"
        )
    return passages, pin


def _bytes(path: Path) -> tuple[bytes, dict[str, str]]:
    try:
        raw = path.read_bytes()
        data = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (OSError, EOFError) as error:
        raise DataError(
            f"{path} cannot be read ({' '.join(str(error).split())}): expected JSON, JSON lines or text"
        ) from error
    return data, {"source": "file", "sha256": hashlib.sha256(raw).hexdigest()}


def _records(data: bytes, path: Path) -> Iterator[Mapping[str, Any]]:
    kind = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    try:
        text = data.decode()
        if kind == ".json":
            yield json.loads(text)
            return
        if kind == ".txt" or (
            kind not in {".json", ".jsonl"} and not text.lstrip().startswith("{")
        ):
            yield from (
                {"text": part.strip()} for part in re.split(r"\n\s*\n", text) if part.strip()
            )
            return
        yield from (json.loads(line) for line in text.split("\n") if line.strip())
    except ValueError as error:
        raise DataError(
            f"{path} is broken: expected JSON, JSON lines or text by its ending, got {error}"
        ) from error


def _rows(table: Table) -> Iterator[dict[str, Any]]:
    columns = [name for name in (*TEXT_COLUMNS, "question", "answers") if name in table.columns]
    return (
        dict(zip(columns, values, strict=True))
        for values in zip(*(table[name] for name in columns), strict=True)
    )


def _passages(record: Mapping[str, Any]) -> Iterator[Passage]:
    """Yield what a record holds: SQuAD's file, its articles, its paragraphs or MRQA's lines, a row of one question, or a text."""
    if "data" in record or "paragraphs" in record:
        for part in record.get("data", record.get("paragraphs")) or ():
            yield from _passages(part)
        return
    text = next((str(record[name]) for name in TEXT_COLUMNS if record.get(name)), "")
    if text.strip():  # MRQA's first line is a header
        asked = record.get("qas", [record] if "question" in record else [])
        yield Passage(
            text, tuple(found for row in asked if (found := _question(text, row)) is not None)
        )


def _question(text: str, row: Mapping[str, Any]) -> Question | None:
    """Return a question with the first of its answers that stands in the text where the row says."""
    question = str(row["question"]).strip()
    for answer, start, end in _answers(row):
        if question and 0 <= start < end <= len(text) and answer in {None, text[start:end]}:
            return Question(question, start, end)
    return None


def _answers(row: Mapping[str, Any]) -> Iterator[tuple[str | None, int, int]]:
    for answer in row.get(
        "detected_answers", ()
    ):  # MRQA's: ends are included, and the words were found whatever their case
        yield from ((None, int(start), int(end) + 1) for start, end in answer["char_spans"])
    answers = row.get("answers") or ()
    if isinstance(answers, Mapping):
        yield from (
            (t, int(a), int(a) + len(t))
            for t, a in zip(answers["text"], answers["answer_start"], strict=True)
        )
    elif not row.get("is_impossible") and "detected_answers" not in row:
        yield from (
            (a["text"], int(a["answer_start"]), int(a["answer_start"]) + len(a["text"]))
            for a in answers
        )


def windowed(
    passages: Sequence[Passage],
    tokenizer: Any,  # noqa: ANN401 - a tokenizer
    *,
    tokens: int,
    longest: int,
) -> list[list[Passage]]:
    """Cut each passage into runs of whole sentences, as long as fits into ``tokens``; a question stays where its answer is.

    Args:
        passages: Texts of any length.
        tokenizer: A fast one.
        tokens: Most tokens of a run, unless a single sentence has more.
        longest: A sentence of more tokens is left out.

    Returns:
        The runs of each passage, in order.
    """
    encoded = tokenizer(
        [p.text for p in passages],
        add_special_tokens=False,
        return_offsets_mapping=True,
        verbose=False,
    )
    return [
        list(_cut(passage, np.asarray([b for _, b in offsets], np.int64), tokens, longest))
        for passage, offsets in zip(passages, encoded["offset_mapping"], strict=True)
    ]


def _cut(passage: Passage, ends: Any, tokens: int, longest: int) -> Iterator[Passage]:  # noqa: ANN401 - an array
    """Yield the runs; tokens are counted by their ends, since many tokenizers let a word's token begin at the blank before it."""
    run: list[tuple[int, int]] = []

    def between(begin: int, end: int) -> int:
        return int(np.searchsorted(ends, end, "right") - np.searchsorted(ends, begin, "right"))

    for begin, end in [*sentences(passage.text), (len(passage.text), len(passage.text))]:
        first = run[0][0] if run else begin
        last = begin == end
        if run and (last or between(first, end) > tokens):
            if between(first, run[-1][1]) <= longest:
                yield _part(passage, first, run[-1][1])
            run = []
        run.append((begin, end))


def _part(passage: Passage, a: int, b: int) -> Passage:
    inside = (
        Question(q.text, q.start - a, q.end - a)
        for q in passage.questions
        if a <= q.start and q.end <= b
    )
    return Passage(passage.text[a:b], tuple(inside))
