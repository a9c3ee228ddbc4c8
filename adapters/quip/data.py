"""QuIP's training data: passages of whole sentences, with human-written or generated questions.

Jia, Lewis, Zettlemoyer (Findings of ACL 2022), section 3. Human-written questions (MRQA in the
paper) train the generator and the teacher; further passages, the longest runs of whole sentences
that fill a window of 456 tokens in the paper, get generated questions. At a small budget
human-written questions also train the encoder directly.
"""

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from adapters._network import Network
from adapters._text import Framed, make_prompts, split_sentences
from adapters._training.card import DataSource
from adapters._training.sources import Source, is_table, read_sources, read_text
from adapters.quip.encoder import token_limit
from bench.errors import DataError
from bench.overlap import Ngrams
from bench.recipe import Load

MAX_PASSAGE, MAX_QUESTION = 456, 50
"""Most tokens of a passage and of a question, without special ones (appendix of the paper)."""

TEXT_COLUMNS = ("context", "text", "passage")
"""Columns that hold passages; the first one that a row has counts."""

OPEN_SETS: tuple[Source, ...] = (
    Source("ludwigschmidt/squadshifts", "new_wiki", "test", "CC BY 4.0; passages CC BY-SA"),
    Source("ludwigschmidt/squadshifts", "reddit", "test", "CC BY 4.0; passages by Reddit users"),
    Source(
        "ludwigschmidt/squadshifts", "amazon", "test", "CC BY 4.0; passages by Amazon reviewers"
    ),
    Source("cs224n/squad2_dev_part", "", "validation", "CC BY-SA 4.0"),
    Source("google/xquad", "xquad.en", "validation", "CC BY-SA 4.0"),
    Source("deepset/covid_qa_excerpts", "", "train", "Apache-2.0"),
)
"""Extractive question answering with licences under which a model can be published.

Of the tasks here only question answering shares passages with it: XQuAD, and SQuAD by its
development set. The report's table of overlap shows how many.
"""

_HELD_OUT_SHARE, _MOST_HELD_OUT = 0.05, 100
"""Share and largest number of the passages that are held out."""

_MIN_TOKENS = 24
"""Fewest tokens of a passage that questions are generated for."""

_QUESTION_TOKENS = 13
"""Expected length of a generated question, for counting how many passages fill the budget."""


class Question(NamedTuple):
    """A question with the characters of its answer in the passage, half-open; -1 if unknown."""

    text: str
    start: int = -1
    end: int = -1


class Passage(NamedTuple):
    """A text and the questions that are asked of it."""

    text: str
    questions: tuple[Question, ...] = ()

    @property
    def texts(self) -> list[str]:
        """The text and the questions."""
        return [self.text, *(question.text for question in self.questions)]


def load_passages(sources: Sequence[Source], load: Load) -> tuple[list[Passage], list[DataSource]]:
    """Return the distinct passages of the sources with the questions that all of them ask.

    Args:
        sources: Data sets, or files: SQuAD's JSON or rows, MRQA's JSON lines, or plain text.
        load: Loads the data sets.

    Returns:
        The passages, and for each source what was read of it.

    Raises:
        Unavailable: No source is available; a single missing one is skipped with a warning.
        DataError: A source is broken, or has no passage.
    """
    merged: dict[str, dict[Question, None]] = {}
    material = []
    read = read_sources(sources, partial(_read_source, load=load), what="passages to train on")
    for source, (passages, pin) in read:
        for passage in passages:
            merged.setdefault(passage.text, {}).update(dict.fromkeys(passage.questions))
        material.append(DataSource(source.name, source.licence, len(passages), pin))
    return [Passage(text, tuple(questions)) for text, questions in merged.items()], material


def _read_source(source: Source, load: Load) -> tuple[list[Passage], dict[str, str]]:
    path = Path(source.id)
    own = path.is_file() or path.suffix in {".json", ".jsonl", ".txt", ".gz"}
    if own and not is_table(path):
        text, pin = read_text(path)
        rows: Iterable[Mapping[str, Any]] = _parse_file(text, path)
    else:
        table = load(source.id, source.split, config=source.config)
        wanted = (*TEXT_COLUMNS, "question", "answers")
        names = [name for name in wanted if name in table.columns]
        columns = zip(*(table[name] for name in names), strict=True)
        rows = (dict(zip(names, values, strict=True)) for values in columns)
        pin = dict(table.pin)
    passages: list[Passage] = []
    try:
        for row in rows:
            passages += _parse_row(row)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise DataError(
            "expected SQuAD rows (context, question, answers), SQuAD's or MRQA's nesting, or a "
            f"text column in {source.name}, got {type(error).__name__}: {error}"
        ) from error
    if not passages:
        raise DataError(
            f"expected passages in {source.name}, got none: "
            "it needs a context, passage or text column, or SQuAD's nesting"
        )
    return passages, pin


def _parse_file(text: str, path: Path) -> Iterable[Mapping[str, Any]]:
    kind = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    try:
        if kind == ".json":
            return [json.loads(text)]
        if kind == ".jsonl" or (kind != ".txt" and text.lstrip().startswith("{")):
            return [json.loads(line) for line in text.split("\n") if line.strip()]
    except ValueError as error:
        raise DataError(
            f"cannot parse {path} as the format that its ending names ({error}): correct the file"
        ) from error
    paragraphs = re.split(r"\n\s*\n", text)
    return [{"text": part.strip()} for part in paragraphs if part.strip()]


def _parse_row(row: Mapping[str, Any]) -> Iterator[Passage]:
    """Yield the passages of SQuAD's file, article or paragraph, an MRQA line, a row or a text."""
    if "data" in row or "paragraphs" in row:
        for part in row.get("data", row.get("paragraphs")) or ():
            yield from _parse_row(part)
        return
    text = next((str(row[name]) for name in TEXT_COLUMNS if row.get(name)), "")
    if text.strip():  # MRQA's first line, a header, has none
        asked = row.get("qas", [row] if "question" in row else [])
        questions = (_parse_question(text, one) for one in asked)
        yield Passage(text, tuple(filter(None, questions)))


def _parse_question(text: str, row: Mapping[str, Any]) -> Question | None:
    """Return a question with its first answer that the text has where the row says."""
    question = str(row["question"]).strip()
    for answer, start, end in _parse_answers(row):
        if question and 0 <= start < end <= len(text) and answer in {None, text[start:end]}:
            return Question(question, start, end)
    return None


def _parse_answers(row: Mapping[str, Any]) -> Iterator[tuple[str | None, int, int]]:
    if "detected_answers" in row:  # MRQA's: ends are inclusive, matches ignore case
        for found in row["detected_answers"]:
            for start, end in found["char_spans"]:
                yield None, int(start), int(end) + 1
    answers = row.get("answers") or ()
    pairs: Iterable[tuple[str, int]] = ()
    if isinstance(answers, Mapping):
        pairs = zip(answers["text"], answers["answer_start"], strict=True)
    elif not row.get("is_impossible") and "detected_answers" not in row:
        pairs = [(answer["text"], answer["answer_start"]) for answer in answers]
    for answer, start in pairs:
        yield answer, int(start), int(start) + len(answer)


def cut_passages(
    passages: Sequence[Passage],
    tokenizer: Any,  # noqa: ANN401 - a tokenizer
    *,
    tokens: int,
    longest: int = MAX_PASSAGE,
) -> list[list[Passage]]:
    """Cut each passage into runs of whole sentences, as long as fits into ``tokens``.

    Args:
        passages: Texts of any length; a question stays with the run that holds its answer.
        tokenizer: A fast one.
        tokens: Most tokens of a run, unless a single sentence has more.
        longest: A sentence of more tokens is left out.

    Returns:
        The runs of each passage, in order.
    """
    if not passages:
        return []
    encoded = tokenizer(
        [passage.text for passage in passages],
        add_special_tokens=False,
        return_offsets_mapping=True,
        verbose=False,
    )
    cut = []
    for passage, offsets in zip(passages, encoded["offset_mapping"], strict=True):
        # counted by their ends: many tokenizers start a word's token at the blank before it
        ends = np.asarray([end for _, end in offsets], np.int64)
        cut.append(list(_cut_passage(passage, ends, tokens, longest)))
    return cut


def _cut_passage(
    passage: Passage, ends: NDArray[np.int64], tokens: int, longest: int
) -> Iterator[Passage]:
    def count(start: int, end: int) -> int:
        first, last = np.searchsorted(ends, [start, end], "right")
        return int(last - first)

    runs: list[tuple[int, int]] = []
    for start, end in split_sentences(passage.text):
        if runs and count(runs[-1][0], end) <= tokens:
            runs[-1] = (runs[-1][0], end)
        else:
            runs.append((start, end))
    for start, end in runs:
        if count(start, end) <= longest:
            inside = [q for q in passage.questions if start <= q.start and q.end <= end]
            moved = [Question(q.text, q.start - start, q.end - start) for q in inside]
            yield Passage(passage.text[start:end], tuple(moved))


@dataclass(frozen=True)
class TrainingData:
    """The passages of one training.

    Attributes:
        asked: Passages with human-written questions: generator and teacher learn from them.
        human: Those of them whose questions the encoder is trained on as they are.
        texts: Passages that questions are generated for.
        held_out: Passages with human questions for measuring only, which share no 8-gram with
            the others; empty if there are few.
    """

    asked: list[Passage]
    human: list[Passage]
    texts: list[str]
    held_out: list[Passage]


def select_data(
    passages: Sequence[Passage],
    network: Network,
    *,
    window: int,
    tokens: int,
    human: float,
    questions: int,
    seed: int,
) -> TrainingData:
    """Return the passages that fill an epoch.

    Args:
        passages: Texts of any length; whole ones are held out, not parts of them.
        network: Says what a token is.
        window: Most tokens of a passage after cutting, see ``cut_passages``.
        tokens: Tokens of passages and questions in an epoch.
        human: Share of these tokens for passages with human-written questions.
        questions: Questions that are generated for a passage.
        seed: Random seed of the selection.
    """
    rng = np.random.default_rng(seed)
    passages = [passages[i] for i in rng.permutation(len(passages))]
    held_out = [passage for passage in passages if passage.questions]
    del held_out[min(int(_HELD_OUT_SHARE * len(held_out)), _MOST_HELD_OUT) :]
    aside = set(held_out)
    rest = [passage for passage in passages if passage not in aside]
    cut = partial(cut_passages, tokenizer=network.tokenizer, tokens=window)
    pool = list(itertools.chain(*cut(rest)))
    pool = [pool[i] for i in rng.permutation(len(pool))]

    asked = [passage for passage in pool if passage.questions]
    sizes = [_count_tokens(network, passage.texts) for passage in asked]
    people = asked[: _count_to_fill(sizes, human * tokens)]
    used = {passage.text for passage in people}
    pool.sort(key=lambda passage: passage.text in used)  # stable: those used already come last
    texts = _choose_texts(
        [passage.text for passage in pool], network, questions, (1 - human) * tokens
    )

    seen = Ngrams.of([*(passage.text for passage in asked), *texts])
    unseen = [passage for passage in itertools.chain(*cut(held_out)) if passage.questions]
    return TrainingData(asked, people, texts, _drop_seen(unseen, seen))


def _drop_seen(passages: Sequence[Passage], seen: Ngrams) -> list[Passage]:
    """Return the passages that share no 8-gram with those that were seen."""
    shared = seen.find_overlaps([passage.text for passage in passages])
    return list(itertools.compress(passages, ~shared))


def _choose_texts(
    texts: Sequence[str], network: Network, questions: int, tokens: float
) -> list[str]:
    """Return as many of the texts as fill the tokens with their generated questions."""
    lengths = [_count_tokens(network, [text]) for text in texts]
    shortest = _MIN_TOKENS if max(lengths, default=0) >= _MIN_TOKENS else 0
    long = [length >= shortest for length in lengths]
    sizes = [length + _QUESTION_TOKENS * questions for length in itertools.compress(lengths, long)]
    return list(itertools.compress(texts, long))[: _count_to_fill(sizes, tokens)]


def _count_tokens(network: Network, texts: Iterable[str]) -> int:
    return sum(len(network.tokenizer(text, verbose=False)["input_ids"]) for text in texts)


def _count_to_fill(sizes: Sequence[int], tokens: float) -> int:
    """Return how many of the sizes, from the first on, it takes to fill the tokens; or all."""
    if tokens < 1:
        return 0
    return min(int(np.searchsorted(np.cumsum(sizes), tokens - 1e-6)) + 1, len(sizes))


class TokenizedPassage(NamedTuple):
    """A passage and its questions as the encoder reads them.

    Attributes:
        passage: Its text and questions.
        ids: Token ids of the text, special ones included.
        spans: int32 (t, 2), the characters of each token; empty for special ones.
        questions: Token ids of each question.
        answers: First and last token of each answer; None if the tokens do not hold it.
    """

    passage: Passage
    ids: list[int]
    spans: NDArray[np.int32]
    questions: list[list[int]]
    answers: list[tuple[int, int] | None]


def tokenize(network: Network, passages: Sequence[Passage]) -> list[TokenizedPassage]:
    """Return passages in tokens, texts cut at ``MAX_PASSAGE``, questions at ``MAX_QUESTION``."""
    every_question = itertools.chain.from_iterable(passage.questions for passage in passages)
    asked = [Framed(question.text) for question in every_question]
    limit = token_limit(network, MAX_QUESTION)
    questions = iter(make_prompts(network.tokenizer, asked, limit=limit))
    texts = [Framed(passage.text) for passage in passages]
    limit = token_limit(network, MAX_PASSAGE)
    made = []
    for passage, prompt in zip(
        passages, make_prompts(network.tokenizer, texts, limit=limit, spans=True), strict=True
    ):
        _, spans = prompt.text_tokens()
        ids = [next(questions).ids for _ in passage.questions]
        answers = [locate_answer(spans, q.start, q.end) for q in passage.questions]
        made.append(TokenizedPassage(passage, prompt.ids, spans, ids, answers))
    return made


def locate_answer(spans: NDArray[np.int32], start: int, end: int) -> tuple[int, int] | None:
    """Return the first and the last token that hold characters from start to end.

    Args:
        spans: int32 (t, 2), the characters of each token; empty for special ones.
        start: First character; -1 if unknown.
        end: Character after the last.

    Returns:
        None if the tokens, which may be cut, do not hold all of the characters.
    """
    overlapping = (spans[:, 0] < end) & (spans[:, 1] > start)
    inside = np.flatnonzero(overlapping & (spans[:, 0] < spans[:, 1]))
    if start < 0 or len(inside) == 0 or spans[inside[-1], 1] < end:
        return None
    return int(inside[0]), int(inside[-1])
