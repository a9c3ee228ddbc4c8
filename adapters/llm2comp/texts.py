"""What LLM2Comp is trained on: plain English, cut into passages for the compression and into sentences for the contrast."""

import hashlib
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from adapters._training import sources
from adapters._training.card import Material
from adapters._training.sources import Source
from bench.errors import DataError, UsageError
from bench.recipe import Load

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

COLUMNS = ("text", "context", "question")
"""Columns that are taken for the text, the first that is there."""

MARGIN = 10
"""Fewest tokens before and after the point at which a passage is split."""

_UNKNOWN = "<unk>"


@dataclass(frozen=True)
class Plain(Source):
    """A set of texts, or a file of one's own: ``.jsonl``, ``.jsonl.gz``, or plain text with blank lines between texts.

    Attributes:
        tokenised: Whether words and punctuation are apart and rare words replaced, as in WikiText.
    """

    tokenised: bool = False


OPEN: tuple[Plain, ...] = (
    Plain("Salesforce/wikitext", "wikitext-2-v1", "validation", "CC BY-SA 3.0", tokenised=True),
    Plain("Salesforce/wikitext", "wikitext-2-v1", "test", "CC BY-SA 3.0", tokenised=True),
    Plain("ludwigschmidt/squadshifts", "new_wiki", "test", "CC BY 4.0; passages CC BY-SA"),
    Plain("ludwigschmidt/squadshifts", "reddit", "test", "CC BY 4.0; passages by Reddit users"),
    Plain("ludwigschmidt/squadshifts", "amazon", "test", "CC BY 4.0; passages by Amazon reviewers"),
    Plain("cs224n/squad2_dev_part", "", "validation", "CC BY-SA 4.0"),
    Plain("google/xquad", "xquad.en", "validation", "CC BY-SA 4.0"),
    Plain("uberspot/opentriviaqa", "", "train", "CC BY-SA 4.0"),
)
"""Texts with licences that let a model be published, of no set that embeddings are scored on here; trivia questions are too short for
the compression and serve the contrast."""


class Passage(NamedTuple):
    """Whole sentences of one text that follow each other, and their token ids without special tokens."""

    text: str
    ids: list[int]


def gathered(chosen: Sequence[Plain], load: Load) -> tuple[list[str], list[Material]]:
    """Return the distinct texts of all sources, and what they came from.

    Raises:
        Unavailable: No source can be had on this machine; one of several that cannot is left out with a warning.
        DataError: A source holds no text.
    """
    texts: dict[str, None] = {}
    material = []
    for source, (rows, pin) in sources.readable(
        chosen, partial(_read, load=load), what="texts to train on"
    ):
        found = dict.fromkeys(
            text
            for row in rows
            for text in (_known(row) if source.tokenised else [row.strip()])
            if text
        )
        if not found:
            raise DataError(f"expected texts in {source.name}, got none")
        texts |= found
        material.append(Material(source.name, source.licence, len(found), pin))
    return list(texts), material


def _read(source: Plain, load: Load) -> tuple[list[str], dict[str, str]]:
    path = Path(source.id)
    if path.is_file() and not path.name.endswith((".jsonl", ".jsonl.gz")):
        data = path.read_bytes()
        return re.split(r"\n\s*\n", data.decode("utf-8", "replace")), {
            "source": "file",
            "sha256": hashlib.sha256(data).hexdigest(),
        }
    table = load(source.id, source.split, config=source.config)
    column = next((name for name in COLUMNS if name in table.columns), None)
    if column is None:
        raise DataError(
            f"expected one of the columns {', '.join(COLUMNS)} in {source.name}, got {', '.join(table.columns)}"
        )
    return [str(text or "") for text in table[column]], dict(table.pin)


def _known(line: str) -> Iterator[str]:
    """Yield the parts of a line of WikiText that hold no unknown word, as they would be written; nothing of a heading."""
    if line.strip().startswith("="):
        return
    for unknown, group in itertools.groupby(
        sentences(_written(line)), key=lambda sentence: _UNKNOWN in sentence
    ):
        if not unknown:
            yield " ".join(group)


def _written(text: str) -> str:
    """Return tokenised text as it would be written."""
    text = re.sub(r" @([-,.])@ ", r"\1", text)
    text = re.sub(r"\" (.*?) \"", r'"\1"', text)
    text = re.sub(r" ([.,;:!?%)\]])", r"\1", text)
    text = re.sub(r"([(\[$£]) ", r"\1", text)
    return re.sub(r" (n't|'s|'re|'ve|'ll|'d|'m|')(?= |$|[.,;:!?])", r"\1", text).strip()


def sentences(text: str) -> list[str]:
    """Return the sentences of a text."""
    return [text[a:b] for a, b in sources.sentences(text)]


def passages(
    texts: Sequence[str], tokenizer: "PreTrainedTokenizerBase", length: int
) -> list[Passage]:
    """Return the texts as passages: as many sentences that follow each other as fit into ``length`` tokens; a longer one is cut."""
    split = [sentences(text) for text in texts]
    flat = [sentence for parts in split for sentence in parts]
    counts = iter([len(ids) for ids in _ids(flat, tokenizer)])
    packed = [
        " ".join(group)
        for parts in split
        for group in _packed([(part, next(counts)) for part in parts], length)
    ]
    return [
        Passage(text, ids[:length])
        for text, ids in zip(packed, _ids(packed, tokenizer), strict=True)
    ]


def long_passages(
    texts: Sequence[str], tokenizer: "PreTrainedTokenizerBase", length: int
) -> list[Passage]:
    """Return the passages of at least half of ``length`` tokens that can be split.

    Raises:
        DataError: There is none.
    """
    shortest = max(length // 2, 2 * MARGIN)
    found = [
        passage for passage in passages(texts, tokenizer, length) if len(passage.ids) >= shortest
    ]
    if not found:
        raise DataError(
            f"expected passages of {shortest} tokens or more, got none in {len(texts)} texts: lower length, or give longer texts"
        )
    return found


def _packed(counted: Sequence[tuple[str, int]], length: int) -> Iterator[list[str]]:
    group: list[str] = []
    total = 0
    for sentence, count in counted:
        if group and total + count > length:
            yield group
            group, total = [], 0
        group.append(sentence)
        total += count
    if group:
        yield group


def _ids(texts: Sequence[str], tokenizer: "PreTrainedTokenizerBase") -> list[list[int]]:
    return (
        list(tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"])
        if texts
        else []
    )


def shuffled(count: int, seed: int) -> Iterator[int]:
    """Yield the numbers below ``count`` in random order, over and over, each time in another."""
    rng = np.random.default_rng(seed)
    while count:
        yield from rng.permutation(count).tolist()


def around(tokenizer: "PreTrainedTokenizerBase") -> tuple[list[int], list[int]]:
    """Return the special tokens that a tokenizer puts before and after every text.

    Raises:
        UsageError: It writes a text otherwise when special tokens stand around it.
    """
    plain, whole = (
        tokenizer("a", add_special_tokens=special, verbose=False)["input_ids"]
        for special in (False, True)
    )
    start = next((i for i in range(len(whole)) if whole[i : i + len(plain)] == plain), None)
    if start is None:
        raise UsageError(
            f"expected special tokens around a text's own, got {whole} for 'a', which is {plain}: name another backbone"
        )
    return whole[:start], whole[start + len(plain) :]
