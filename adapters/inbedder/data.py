"""Training data of InBedder: (input, instruction, answer) from question answering sets.

The paper fine-tunes on 198,000 rows of 11 sets whose answers had their stopwords removed, so that
the first word of an answer is informative; sets and procedure are unpublished. The rows are on the
hub as KomeijiForce/Inbedder-Pretrain-Data (``--set sources=KomeijiForce/Inbedder-Pretrain-Data``).
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from adapters._network import Network
from adapters._text import count_words, split_sentences
from adapters._training.card import DataSource
from adapters._training.sources import Source, read_sources
from adapters.inbedder.encoder import TEMPLATE, TEMPLATE_WITHOUT_INPUT
from bench.errors import DataError
from bench.recipe import Load, TrainingRows

FUNCTION_WORDS = frozenset(
    """
    a an the this that these those some any each every all both either neither such i me my mine
    myself we us our ours ourselves you your yours yourself yourselves he him his himself she her
    hers herself it its itself they them their theirs themselves one who whom whose which what am is
    are was were be been being do does did doing done have has had having will would shall should
    can could may might must about above across after against along among around as at before behind
    below beneath beside between beyond by down during for from in inside into near of off on onto
    out outside over past since through throughout till to toward towards under until up upon with
    within without via per and or but nor so yet if because although though while whereas unless
    than then there here when where why how also just only very too quite rather s t
    """.split()  # noqa: SIM905 - easier to read without two hundred pairs of quotes
)
"""Words of the closed classes, without negations; they are removed from answers."""

COLUMNS = (
    ("context", "question", "answers"),
    ("input", "instruction", "output"),
    ("question", "answer"),
)
"""The columns of SQuAD, of Alpaca, and of questions with their answers."""

TEMPLATE_TOKENS = 20
"""Fewest tokens that are left for the template, as in the released script."""


class AnswerExample(NamedTuple):
    """One training row; the input may be empty."""

    input: str
    instruction: str
    answer: str


class AnswerTokens(NamedTuple):
    """A tokenised training row.

    Attributes:
        number: Of its example.
        ids: Prompt, answer and, for a decoder, the end-of-text token.
        answers: Positions of the tokens that are predicted.
    """

    number: int
    ids: list[int]
    answers: list[int]


@dataclass(frozen=True)
class AnswerSource(Source):
    """A data set, or one view of it.

    Attributes:
        share: Share of the training rows, as far as the set has that many.
        label: Column that is the answer to a question about the column ``text``; "" for sets whose
            columns are those of ``COLUMNS``. Of (question, answer), the question is the input, and
            the instruction asks for its answer.
        text: Column of the text.
        questions: Wordings of the instruction, one drawn per row, unless the set has its own.
    """

    share: float = 1.0
    label: str = ""
    text: str = "question"
    questions: tuple[str, ...] = (
        "What is the answer?",
        "Answer the question.",
        "What is asked for?",
    )

    @property
    def name(self) -> str:
        """The set with configuration, split and the column of the answer, or the file."""
        return super().name + (f" ({self.label})" if self.label else "")


_TOPIC = (
    "What is the topic?",
    "What is this text about?",
    "What is the subject of the text?",
    "Which area does it belong to?",
    "Categorize the topic of the text.",
)
_KIND = (
    "What does the person want to know?",
    "What kind of question is it?",
    "What is the intention of the question?",
    "What does the user want?",
)
_FOCUS = ("Which condition is it about?", "What is the text about?", "Which thing is asked about?")

_SHIFTS, _SQUAD = "ludwigschmidt/squadshifts", "cs224n/squad2_dev_part"
_TRIVIA, _MEDICINE = "uberspot/opentriviaqa", "abachaa/medquad"
_WIKI = "CC BY 4.0; passages CC BY-SA"
_REDDIT = "CC BY 4.0; passages by Reddit users"
_AMAZON = "CC BY 4.0; passages by Amazon reviewers"
_SHARE_ALIKE = "CC BY-SA 4.0"

OPEN: tuple[AnswerSource, ...] = (
    AnswerSource(_SHIFTS, "new_wiki", "test", _WIKI, 0.13),
    AnswerSource(_SHIFTS, "reddit", "test", _REDDIT, 0.13),
    AnswerSource(_SHIFTS, "amazon", "test", _AMAZON, 0.13),
    AnswerSource(_SQUAD, "", "validation", _SHARE_ALIKE, 0.05),
    AnswerSource(_SQUAD, "", "validation", _SHARE_ALIKE, 0.04, "title", "context", _TOPIC),
    AnswerSource(_TRIVIA, "", "train", _SHARE_ALIKE, 0.18, "topic", questions=_TOPIC),
    AnswerSource(_TRIVIA, "", "train", _SHARE_ALIKE, 0.14),
    AnswerSource(_MEDICINE, "", "train", "CC BY 4.0", 0.1, "question_type", questions=_KIND),
    AnswerSource(_MEDICINE, "", "train", "CC BY 4.0", 0.08, "focus", questions=_FOCUS),
    AnswerSource("deepset/covid_qa_excerpts", "", "train", "Apache-2.0", 0.02),
)
"""Question answering sets whose licences allow a model to be published.

Only this benchmark's question answering tasks, in which InBedder takes no part, share passages with
them.
"""


def strip_function_words(answer: str) -> str:
    """Return the answer without function words, or as it is if it has no other word."""
    kept = [
        word for word in answer.split() if word.strip(".,;:!?\"'()").lower() not in FUNCTION_WORDS
    ]
    return " ".join(kept) or answer.strip()


def shorten_passage(context: str, start: int, end: int, words: int) -> str:
    """Return the sentences around an answer, as many as fit into ``words`` words.

    The answer's own sentences are always included; the shorter neighbour is added first.

    Args:
        context: The passage.
        start: First character of the answer.
        end: Character after its last.
        words: Most words.
    """
    spans = split_sentences(context)
    inside = [i for i, (a, b) in enumerate(spans) if a < max(end, start + 1) and b > start]
    if not inside:
        return context.strip()
    counts = [count_words(context[a:b]) for a, b in spans]
    low, high = inside[0], inside[-1] + 1
    room = words - sum(counts[low:high])
    while True:
        neighbours = [(counts[i], i) for i in (low - 1, high) if 0 <= i < len(spans)]
        if not neighbours or min(neighbours)[0] > room:
            return context[spans[low][0] : spans[high - 1][1]]
        count, i = min(neighbours)
        room -= count
        low, high = min(low, i), max(high, i + 1)


def read_examples(
    sources: Sequence[AnswerSource], load: Load, *, rows: int, words: int, seed: int
) -> tuple[list[AnswerExample], list[DataSource]]:
    """Return training rows drawn from the sources by their shares, and a record of each source.

    Views of one data set draw the same rows, so that texts return under other instructions.

    Args:
        sources: Data sets.
        load: Reads them.
        rows: Approximate number of rows; a source with fewer than its share gives all it has.
        words: Longest passage, see ``shorten_passage``.
        seed: Of the drawing.

    Raises:
        Unavailable: No set is available; if only some are not, they are skipped with a warning.
        DataError: A set has none of the expected columns, or no row with an answer.
    """

    def read(source: AnswerSource) -> TrainingRows:
        return load(source.id, source.split, config=source.config)

    tables = read_sources(sources, read, what="question-answering sets to train on")
    total = sum(source.share for source, _ in tables)
    examples: list[AnswerExample] = []
    records = []
    for k, (source, table) in enumerate(tables):
        found = list(_parse(source, table, words, np.random.default_rng([seed, k])))
        order = np.random.default_rng(seed).permutation(len(found))
        usable = [i for i in order if found[i].answer and found[i].instruction]
        if not usable:
            raise DataError(f"expected rows with instruction and answer in {source.name}, got none")
        drawn = sorted(usable[: round(rows * source.share / total)])
        examples += [found[i] for i in drawn]
        records.append(DataSource(source.name, source.licence, len(drawn), dict(table.pin)))
    return examples, records


def _parse(
    source: AnswerSource, table: TrainingRows, words: int, rng: np.random.Generator
) -> Iterator[AnswerExample]:
    matching = [columns for columns in COLUMNS if set(columns) <= set(table.columns)]
    if not (source.label or matching):
        known = "; ".join(map(", ".join, COLUMNS))
        raise DataError(
            f"expected question-answering columns in {source.name} ({known}), "
            f"got {', '.join(table.columns)}: rename them"
        )
    if source.label or matching[0] == COLUMNS[2]:
        return _parse_labels(source, table, words, rng)
    if matching[0] == COLUMNS[1]:
        return (AnswerExample(*row) for row in _rows(table, *COLUMNS[1]))
    return _parse_squad(table, words)


def _parse_labels(
    source: AnswerSource, table: TrainingRows, words: int, rng: np.random.Generator
) -> Iterator[AnswerExample]:
    drawn = rng.integers(len(source.questions), size=len(table))
    skipped = [False] * len(table)
    if not source.label and "needs_choices" in table.columns:
        skipped = table["needs_choices"]
    rows = _rows(table, source.text, source.label or "answer")
    for (text, label), i, skip in zip(rows, drawn, skipped, strict=True):
        answer = re.sub(r"[_-]+", " ", label or "")
        kept = "" if skip else strip_function_words(answer)
        yield AnswerExample(shorten_passage(text, 0, 1, words), source.questions[i], kept)


def _parse_squad(table: TrainingRows, words: int) -> Iterator[AnswerExample]:
    for context, question, answers in _rows(table, *COLUMNS[0]):
        answer, start = "", 0
        if isinstance(answers, Mapping) and answers.get("text"):
            answer, start = str(answers["text"][0]), int(answers["answer_start"][0])
        passage = shorten_passage(context, start, start + len(answer), words)
        yield AnswerExample(passage, question.strip(), strip_function_words(answer))


def _rows(table: TrainingRows, *columns: str) -> Iterable[tuple[Any, ...]]:
    return zip(*(table[column] for column in columns), strict=True)


def tokenise_examples(
    network: Network, examples: Sequence[AnswerExample], limit: int
) -> list[AnswerTokens]:
    """Return the rows as token ids, prompt and answer tokenised as one string.

    If a row is too long, the end of the longest of its three parts is truncated; as in the released
    script, 20 tokens are left for the template, or as many as it has. Rows whose answer has no
    token left are omitted.

    Args:
        network: Tokenises; a decoder also predicts the end-of-text token, where there is one.
        examples: The rows.
        limit: Most tokens.
    """
    tokenizer: Any = network.tokenizer
    around = len(tokenizer(TEMPLATE, verbose=False)["input_ids"]) + 1  # and the end
    room = limit - max(TEMPLATE_TOKENS, around)
    prompts, texts = [], []
    for example in examples:
        text, instruction, answer = _truncate(example, tokenizer, room)
        template = TEMPLATE if text else TEMPLATE_WITHOUT_INPUT
        prompts.append(template.format(input=text, instruction=instruction))
        texts.append(prompts[-1] + answer)
    encoded = tokenizer(texts, return_offsets_mapping=True, verbose=False)
    rows = zip(prompts, encoded["input_ids"], encoded["offset_mapping"], strict=True)
    made = []
    for number, (prompt, ids, offsets) in enumerate(rows):
        answers = [k for k, (a, b) in enumerate(offsets) if b > max(a, len(prompt))]
        if network.decoder and answers and tokenizer.eos_token_id is not None:
            end = answers[-1] + 1  # a tokenizer may end every text with another token
            ids[end:] = [tokenizer.eos_token_id]
            answers.append(end)
        kept = [k for k in answers if k < limit]
        if kept:
            made.append(AnswerTokens(number, ids[:limit], kept))
    return made


def _truncate(example: AnswerExample, tokenizer: Any, room: int) -> AnswerExample:  # noqa: ANN401
    """Truncate the longest part at its end if all together have more than ``room`` tokens."""
    if sum(len(part.encode()) for part in example) <= room:  # a token has at least one byte
        return example
    options = {"add_special_tokens": False, "return_offsets_mapping": True, "verbose": False}
    offsets = [tokenizer(part, **options)["offset_mapping"] for part in example]
    lengths = [len(spans) for spans in offsets]
    excess = sum(lengths) - room
    if excess <= 0:
        return example
    longest = lengths.index(max(lengths))
    kept = max(lengths[longest] - excess, 1)
    end = offsets[longest][kept - 1][1]
    name = example._fields[longest]
    return example._replace(**{name: example[longest][:end]})
