"""First texts: from a file, from data sets, or written by the language model."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adapters._training.card import Material
from adapters._training.sources import Source, readable
from adapters.dino.postprocess import Pair
from bench.encoder import digest
from bench.errors import DataError, UsageError
from bench.recipe import Load

FORMS = ("plain", "jsonl", "stsb", "sentences")
"""Forms of files: a text per line; a ``text_a`` per object; both sentences of each row of STS-B's official TSV; running text."""

_SUFFIXES = {".jsonl": "jsonl", ".tsv": "stsb"}
_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]?[A-Z0-9])|\n+")
_ODD = re.compile(
    r"[\"\\\[\]{}<>|@#/_*^~=\u201c\u201d]|\.\.\.|\d{5}|_{2}|[^\x00-\u024f\u2010-\u2019]"
)
_CLOSED = re.compile(r"[A-Z].*[a-z)%0-9][.!?]", re.DOTALL)


@dataclass(frozen=True)
class Column(Source):
    """A data set whose sentences are first texts.

    Attributes:
        column: Column of running text.
        share: Share of the first texts that come from it, as far as it has that many.
    """

    column: str = "text"
    share: float = 1.0


OPEN: tuple[Column, ...] = (
    Column(
        "ludwigschmidt/squadshifts",
        "new_wiki",
        "test",
        "CC BY 4.0; passages CC BY-SA",
        "context",
        0.35,
    ),
    Column(
        "ludwigschmidt/squadshifts",
        "amazon",
        "test",
        "CC BY 4.0; passages by Amazon reviewers",
        "context",
        0.20,
    ),
    Column(
        "ludwigschmidt/squadshifts",
        "reddit",
        "test",
        "CC BY 4.0; passages by Reddit users",
        "context",
        0.20,
    ),
    Column("uberspot/opentriviaqa", "", "train", "CC BY-SA 4.0", "question", 0.18),
    Column("cs224n/squad2_dev_part", "", "validation", "CC BY-SA 4.0", "context", 0.07),
)
"""Sets with licences that let a model be published.

Three of them are splits named "test" and one is named "validation": SQuADShifts has only test splits, and cs224n/squad2_dev_part holds
passages of SQuAD 2's development set. All are question-answering or trivia sets, and no STS, sentiment, NER or clustering task here is
made of one. Tasks on question answering share passages with squad2_dev_part: xquad's and squad's are from the same development set.
"""


def sentences(text: str) -> list[str]:
    """Return the sentences of running text; white space inside them is single blanks."""
    return [" ".join(part.split()) for part in _END.split(text) if part.strip()]


def usable(text: str, shortest: int, longest: int) -> bool:
    """Say whether a sentence is plain and whole, of so many words, without a quote or signs that are no prose."""
    return (
        shortest <= len(text.split()) <= longest
        and bool(_CLOSED.fullmatch(text))
        and not _ODD.search(text)
    )


def from_file(source: str) -> list[str]:
    """Return the texts of a file, in order, repetitions left out.

    Args:
        source: Its path, with one of FORMS before a colon where the suffix does not tell: ``.jsonl`` and ``.tsv`` do, other files
            have a text per line.

    Raises:
        DataError: It is not in UTF-8, or a line is not of the form.
        OSError: It cannot be read.
    """
    form, path = _form(source)
    lines = _lines(path)
    if form == "sentences":
        found: Iterable[str] = sentences("\n".join(lines))
    elif form == "jsonl":
        found = (_text_a(line, f"{path}:{n}") for n, line in enumerate(lines, 1) if line.strip())
    elif form == "stsb":
        found = (
            text
            for n, line in enumerate(lines, 1)
            if line.strip()
            for text in _pair(line, f"{path}:{n}")
        )
    else:
        found = lines
    return list(dict.fromkeys(text.strip() for text in found if text.strip()))


def read_pairs(path: Path) -> list[Pair]:
    """Return the pairs of a file in the original's format: ``text_a``, ``text_b`` and ``label``, from 0 to 1, in each line.

    Raises:
        DataError: It is not in UTF-8, has no pairs, or a line is not of the form.
        OSError: It cannot be read.
    """
    pairs = [
        _read_pair(line, f"{path}:{n}") for n, line in enumerate(_lines(path), 1) if line.strip()
    ]
    if not pairs:
        raise DataError(f"expected pairs in {path}, got none: name another file")
    return pairs


def is_file(source: str) -> bool:
    """Say whether a source names a file."""
    return _form(source)[1].is_file()


def from_sets(
    sources: Sequence[Column], load: Load, *, count: int, words: tuple[int, int], seed: int
) -> tuple[list[str], list[Material]]:
    """Return sentences of data sets by their shares, shuffled, and what they came from.

    Args:
        sources: Where from.
        load: Gives the data.
        count: How many; a set with fewer than its share gives all it has.
        words: Fewest and most words of a sentence.
        seed: Of the drawing.

    Raises:
        Unavailable: No set can be had on this machine; one of several that cannot is left out with a warning.
    """
    tables = readable(
        sources,
        lambda source: load(source.id, source.split, config=source.config, columns=[source.column]),
        what="texts to start from",
        setting="x1",
    )
    whole, chosen, material = sum(source.share for source, _ in tables), dict[str, None](), []
    for k, (source, table) in enumerate(tables):
        passages = dict.fromkeys(map(str, table[source.column]))
        found = list(
            dict.fromkeys(
                s
                for passage in passages
                for s in sentences(passage)
                if usable(s, *words) and s not in chosen
            )
        )
        order = np.random.default_rng([seed, k]).permutation(len(found))[
            : round(count * source.share / whole)
        ]
        chosen |= dict.fromkeys(found[i] for i in sorted(order))
        material.append(Material(source.name, source.licence, len(order), dict(table.pin)))
    texts = list(chosen)
    return [texts[i] for i in np.random.default_rng(seed).permutation(len(texts))], material


def of_file(source: str, *, count: int, seed: int) -> tuple[list[str], list[Material]]:
    """Return texts of a file, and what they came from; raises as ``from_file``.

    Args:
        source: As for ``from_file``.
        count: How many; a file with more is drawn from, its order kept.
        seed: Of the drawing.
    """
    texts = from_file(source)
    texts = [texts[i] for i in sorted(np.random.default_rng(seed).permutation(len(texts))[:count])]
    return texts, [
        Material(
            _form(source)[1].name,
            "as its owner says",
            len(texts),
            {"kind": "file", "sha256": digest(texts)},
        )
    ]


def column_of(source: str) -> Column:
    """Return the data set that ``id:column``, ``id:config:column`` or ``id:config:split:column`` names; the split is "train" if not given.

    Raises:
        UsageError: The name has another form.
    """
    parts = source.split(":")
    if not 2 <= len(parts) <= 4:
        raise UsageError(
            f"x1 is a file, id:column, id:config:column or id:config:split:column, got {source!r}"
        )
    config, split = [*parts[1:-1], "", ""][:2]
    return Column(parts[0], config, split or "train", column=parts[-1])


def _form(source: str) -> tuple[str, Path]:
    form, colon, path = source.partition(":")
    if colon and form in FORMS:
        return form, Path(path)
    return _SUFFIXES.get(Path(source).suffix, "plain"), Path(source)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split("\n")  # JSON may hold other ends of lines
    except UnicodeDecodeError as error:
        raise DataError(
            f"expected UTF-8 in {path}, got byte 0x{error.object[error.start]:02x} at {error.start}: save it as UTF-8"
        ) from None


def _read_pair(line: str, place: str) -> Pair:
    try:
        row = json.loads(line)
        made = Pair(row["text_a"], row["text_b"], float(row["label"]))
    except (ValueError, KeyError, TypeError):
        made = Pair("", "", -1)
    if not (isinstance(made.text_a, str) and isinstance(made.text_b, str) and 0 <= made.label <= 1):
        raise DataError(
            f"expected the strings text_a and text_b and a label from 0 to 1 at {place}, got {line[:60]!r}: mend the line"
        )
    return made


def _text_a(line: str, place: str) -> str:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"expected a JSON object at {place}, got {error}: mend the line") from None
    if not isinstance(value, dict) or not isinstance(value.get("text_a"), str):
        raise DataError(f"expected a string text_a at {place}, got {line[:60]!r}: mend the line")
    return str(value["text_a"])


def _pair(line: str, place: str) -> Iterator[str]:
    cells = line.split("\t")
    if len(cells) < 7:
        raise DataError(
            f"expected at least 7 columns of STS-B at {place}, got {len(cells)}: mend the line"
        )
    yield from cells[5:7]
