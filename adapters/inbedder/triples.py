"""Training rows of InBedder: (input, instruction, answer) from question-answering sets of several forms."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from adapters._training.card import Material
from adapters._training.sources import Source, readable, sentences
from bench.errors import DataError
from bench.recipe import Load, Table

FUNCTION_WORDS = frozenset(
    """
    a an the this that these those some any each every all both either neither such i me my mine myself we us our ours ourselves
    you your yours yourself yourselves he him his himself she her hers herself it its itself they them their theirs themselves
    one who whom whose which what am is are was were be been being do does did doing done have has had having will would shall
    should can could may might must about above across after against along among around as at before behind below beneath beside
    between beyond by down during for from in inside into near of off on onto out outside over past since through throughout till
    to toward towards under until up upon with within without via per and or but nor so yet if because although though while
    whereas unless than then there here when where why how also just only very too quite rather s t
    """.split()  # noqa: SIM905 - easier to read without two hundred pairs of quotes
)
"""Words of the closed classes, negations left out: what is stripped from answers, so that a first word says something."""


class Triple(NamedTuple):
    """One training row; the input may be empty."""

    input: str
    instruction: str
    answer: str


Form = Literal["squad", "alpaca", "pairs", "label"]

FORMS: Mapping[Form, tuple[str, ...]] = {
    "squad": ("context", "question", "answers"),
    "alpaca": ("input", "instruction", "output"),
    "pairs": ("question", "answer"),
}
"""The columns that tell a form."""


@dataclass(frozen=True)
class View(Source):
    """A data set, or one view of it.

    Attributes:
        form: None to tell from the columns; "squad" (context, question, answers), "alpaca" (input, instruction, output),
            "pairs" (question, answer: the question is the input, and what is asked of it is its answer), or "label" (a column
            is the answer to a question about a text).
        share: Share of the training rows that come from it, as far as it has that many.
        text: Column of the text, for "label".
        label: Column of the answer, for "label".
        questions: Wordings of the question, one drawn per row, for "pairs" and "label".
    """

    form: Form | None = None
    share: float = 1.0
    text: str = "question"
    label: str = ""
    questions: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The set with configuration, split and the column that answers, or the file."""
        return super().name + (f" ({self.label})" if self.label else "")


_TOPIC = (
    "What is the topic?",
    "What is this text about?",
    "What is the subject of the text?",
    "Which area does it belong to?",
    "Categorize the topic of the text.",
)
_ANSWER = ("What is the answer?", "Answer the question.", "What is asked for?")
_KIND = (
    "What does the person want to know?",
    "What kind of question is it?",
    "What is the intention of the question?",
    "What does the user want?",
)
_FOCUS = ("Which condition is it about?", "What is the text about?", "Which thing is asked about?")

OPEN: tuple[View, ...] = (
    View(
        "ludwigschmidt/squadshifts",
        "new_wiki",
        "test",
        "CC BY 4.0; passages CC BY-SA",
        "squad",
        0.13,
    ),
    View(
        "ludwigschmidt/squadshifts",
        "reddit",
        "test",
        "CC BY 4.0; passages by Reddit users",
        "squad",
        0.13,
    ),
    View(
        "ludwigschmidt/squadshifts",
        "amazon",
        "test",
        "CC BY 4.0; passages by Amazon reviewers",
        "squad",
        0.13,
    ),
    View("cs224n/squad2_dev_part", "", "validation", "CC BY-SA 4.0", "squad", 0.05),
    View(
        "cs224n/squad2_dev_part",
        "",
        "validation",
        "CC BY-SA 4.0",
        "label",
        0.04,
        text="context",
        label="title",
        questions=_TOPIC,
    ),
    View(
        "uberspot/opentriviaqa",
        "",
        "train",
        "CC BY-SA 4.0",
        "label",
        0.18,
        label="topic",
        questions=_TOPIC,
    ),
    View("uberspot/opentriviaqa", "", "train", "CC BY-SA 4.0", "pairs", 0.14, questions=_ANSWER),
    View(
        "abachaa/medquad",
        "",
        "train",
        "CC BY 4.0",
        "label",
        0.1,
        label="question_type",
        questions=_KIND,
    ),
    View(
        "abachaa/medquad", "", "train", "CC BY 4.0", "label", 0.08, label="focus", questions=_FOCUS
    ),
    View("deepset/covid_qa_excerpts", "", "train", "Apache-2.0", "squad", 0.02),
)
"""Question-answering sets with licences that let a model be published. Of the tasks here only those on question answering share passages
with them, which InBedder does not take part in."""


def stripped(answer: str) -> str:
    """Return the answer without function words; one that is nothing else stays as it is."""
    kept = [
        word for word in answer.split() if word.strip(".,;:!?\"'()").lower() not in FUNCTION_WORDS
    ]
    return " ".join(kept) or answer.strip()


def around(context: str, start: int, end: int, words: int) -> str:
    """Return the whole sentences of a passage around an answer, as many as fit into ``words`` words, at least the answer's own.

    Args:
        context: The passage.
        start: First character of the answer.
        end: Character after its last.
        words: Most words, unless the answer's own sentences have more.
    """
    spans = sentences(context)
    inside = [i for i, (a, b) in enumerate(spans) if a < max(end, start + 1) and b > start]
    if not inside:
        return context.strip()
    low, high = inside[0], inside[-1]
    counts = [len(context[a:b].split()) for a, b in spans]
    total = sum(counts[low : high + 1])
    while True:
        before = counts[low - 1] if low else None
        after = counts[high + 1] if high + 1 < len(spans) else None
        if before is not None and total + before <= words and (after is None or before <= after):
            low, total = low - 1, total + before
        elif after is not None and total + after <= words:
            high, total = high + 1, total + after
        elif before is not None and total + before <= words:
            low, total = low - 1, total + before
        else:
            return context[spans[low][0] : spans[high][1]]


def mixed(
    sources: Sequence[View], load: Load, *, rows: int, words: int, seed: int
) -> tuple[list[Triple], list[Material]]:
    """Return training rows drawn from the sources by their shares, and what they came from.

    Views of one data set draw the same rows of it, so that texts come back under other instructions with other answers.

    Args:
        sources: Where from.
        load: Gives the data.
        rows: About how many rows; a source that has fewer than its share gives all it has.
        words: Longest part of a passage, see ``around``.
        seed: Of the drawing.

    Raises:
        Unavailable: No set can be had on this machine; one of several that cannot is left out with a warning.
        DataError: A set is not of the form its source says, or holds no row.
    """
    tables = readable(
        sources,
        lambda source: load(source.id, source.split, config=source.config),
        what="question-answering sets to train on",
    )
    whole = sum(source.share for source, _ in tables)
    made: list[Triple] = []
    material = []
    for k, (source, table) in enumerate(tables):
        found = list(_triples(source, table, words, np.random.default_rng([seed, k])))
        usable = [
            i
            for i in np.random.default_rng(seed).permutation(len(found))
            if found[i].answer and found[i].instruction
        ]
        if not usable:
            raise DataError(
                f"expected question-answering rows of the form {source.form!r} in {source.name}, got none"
            )
        drawn = [found[i] for i in sorted(usable[: round(rows * source.share / whole)])]
        made += drawn
        material.append(Material(source.name, source.licence, len(drawn), dict(table.pin)))
    return made, material


def form_of(columns: Sequence[str], name: str) -> Form:
    """Return the form that a table's columns tell.

    Raises:
        DataError: They tell none.
    """
    for form, needed in FORMS.items():
        if set(needed) <= set(columns):
            return form
    known = "; ".join(", ".join(needed) for needed in FORMS.values())
    raise DataError(
        f"expected question-answering columns in {name} ({known}), got {', '.join(columns)}: rename them"
    )


def _triples(source: View, table: Table, words: int, rng: np.random.Generator) -> Iterator[Triple]:
    form = source.form or form_of(table.columns, source.name)
    if form == "squad":
        return _squad(table, words)
    if form == "alpaca":
        return (Triple(*row) for row in _zipped(table, "input", "instruction", "output"))
    questions = source.questions or _ANSWER
    asked = rng.integers(len(questions), size=len(table))
    drop = (
        table["needs_choices"]
        if form == "pairs" and "needs_choices" in table.columns
        else [False] * len(table)
    )
    rows = zip(_zipped(table, source.text, source.label or "answer"), asked, drop, strict=True)
    return (
        Triple(_shortened(text, words), questions[i], "" if no else _plain(answer or ""))
        for (text, answer), i, no in rows
    )


def _squad(table: Table, words: int) -> Iterator[Triple]:
    for context, question, answers in _zipped(table, "context", "question", "answers"):
        known = isinstance(answers, Mapping) and answers.get("text")
        answer, start = (
            (str(answers["text"][0]), int(answers["answer_start"][0])) if known else ("", 0)
        )
        yield Triple(
            around(context, start, start + len(answer), words), question.strip(), stripped(answer)
        )


def _zipped(table: Table, *columns: str) -> Iterable[tuple[Any, ...]]:
    return zip(*(table[column] for column in columns), strict=True)


def _shortened(text: str, words: int) -> str:
    return around(text, 0, 1, words)


def _plain(answer: str) -> str:
    """Return a label or a title as words."""
    return stripped(re.sub(r"[_-]+", " ", answer))
