"""Plain texts to train on: open data sets and files, and their sentences."""

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from adapters._text import split_sentences
from adapters._training import sources
from adapters._training.card import DataSource
from adapters._training.sources import Source, is_table, read_text
from bench.errors import DataError
from bench.recipe import Load

COLUMNS = ("text", "context", "question")
"""Columns that may contain the text; the first that exists is read."""


@dataclass(frozen=True)
class TextSource(Source):
    """A set of texts, or a file: rows with a column of texts, or texts with blank lines between.

    Attributes:
        tokenised: Whether punctuation is separated and rare words are replaced, as in WikiText.
    """

    tokenised: bool = False


OPEN: tuple[TextSource, ...] = (
    TextSource(
        "Salesforce/wikitext", "wikitext-2-v1", "validation", "CC BY-SA 3.0", tokenised=True
    ),
    TextSource("Salesforce/wikitext", "wikitext-2-v1", "test", "CC BY-SA 3.0", tokenised=True),
    TextSource("ludwigschmidt/squadshifts", "new_wiki", "test", "CC BY 4.0; passages CC BY-SA"),
    TextSource(
        "ludwigschmidt/squadshifts", "reddit", "test", "CC BY 4.0; passages by Reddit users"
    ),
    TextSource(
        "ludwigschmidt/squadshifts", "amazon", "test", "CC BY 4.0; passages by Amazon reviewers"
    ),
    TextSource("cs224n/squad2_dev_part", "", "validation", "CC BY-SA 4.0"),
    TextSource("google/xquad", "xquad.en", "validation", "CC BY-SA 4.0"),
    TextSource("uberspot/opentriviaqa", "", "train", "CC BY-SA 4.0"),
)
"""Texts whose licences allow a model to be published, from no set that embeddings are scored on.

Trivia questions are single sentences: too short to compress or to crop.
"""


def read_texts(chosen: Sequence[TextSource], load: Load) -> tuple[list[str], list[DataSource]]:
    """Return the distinct texts of all sources, and a record of each source.

    Raises:
        Unavailable: No source is available; if only some are not, they are skipped with a warning.
        DataError: A source has no text.
    """
    texts: dict[str, None] = {}
    records = []
    read = partial(_read_rows, load=load)
    for source, (rows, pin) in sources.read_sources(chosen, read, what="texts to train on"):
        clean = _detokenised_rows(rows) if source.tokenised else map(str.strip, rows)
        found = dict.fromkeys(filter(None, clean))
        if not found:
            raise DataError(f"expected texts in {source.name}, got none")
        texts |= found
        records.append(DataSource(source.name, source.licence, len(found), pin))
    return list(texts), records


def _read_rows(source: TextSource, load: Load) -> tuple[list[str], dict[str, str]]:
    path = Path(source.id)
    rows = path.name.endswith((".jsonl", ".jsonl.gz")) or is_table(path)
    if path.is_file() and not rows:
        text, pin = read_text(path)
        if path.name.removesuffix(".gz").endswith((".json", ".ndjson")):
            raise DataError(
                f"expected JSON lines that end in .jsonl, or plain text, got {path}: "
                "save it with an object a line as .jsonl"
            )
        return re.split(r"\n\s*\n", text), pin
    table = load(source.id, source.split, config=source.config)
    column = next((name for name in COLUMNS if name in table.columns), None)
    if column is None:
        raise DataError(
            f"expected one of the columns {', '.join(COLUMNS)} in {source.name}, "
            f"got {', '.join(table.columns)}: rename one"
        )
    return [str(text or "") for text in table[column]], dict(table.pin)


def _detokenised_rows(rows: Iterable[str]) -> Iterator[str]:
    """Yield the parts of WikiText's lines that have no unknown word; headings are skipped."""
    for line in rows:
        if line.strip().startswith("="):
            continue
        sentences = list_sentences(_detokenise(line))
        for unknown, group in itertools.groupby(sentences, key=lambda part: "<unk>" in part):
            if not unknown:
                yield " ".join(group)


def _detokenise(text: str) -> str:
    text = re.sub(r" @([-,.])@ ", r"\1", text)
    text = re.sub(r"\" (.*?) \"", r'"\1"', text)
    text = re.sub(r" ([.,;:!?%)\]])", r"\1", text)
    text = re.sub(r"([(\[$£]) ", r"\1", text)
    return re.sub(r" (n't|'s|'re|'ve|'ll|'d|'m|')(?= |$|[.,;:!?])", r"\1", text).strip()


def list_sentences(text: str) -> list[str]:
    """Return the sentences of a text."""
    return [text[start:end] for start, end in split_sentences(text)]


def shuffle_repeatedly(count: int, seed: int) -> Iterator[int]:
    """Yield the numbers below ``count`` in random order, in another order after each pass."""
    rng = np.random.default_rng(seed)
    while count:
        yield from rng.permutation(count).tolist()
