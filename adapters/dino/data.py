"""DINO's data: first sentences x1, and the training pairs (x1, x2, y).

Sources of x1: a file, data sets, or the language model itself (STS-x1x2). Pairs are cleaned,
smoothed and mixed with random pairs, as in section 5 of the fact sheet of the paper's released
code (timoschick/dino at 0e4a052, ``postprocess_dataset.py``).
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from adapters._training.card import DataSource
from adapters._training.sources import Source, read_sources, read_text
from bench.encoder import shortened
from bench.errors import DataError, UsageError
from bench.recipe import Load

T = TypeVar("T")

PER_LABEL = 2
"""Most second texts that are kept for a first text and a label."""

_WORD = re.compile(r"\w+")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]?[A-Z0-9])|\n+")
_SENTENCE = re.compile(r"[A-Z].*[a-z)%0-9][.!?]", re.DOTALL)
_NOT_PROSE = re.compile(
    r"[\"\\\[\]{}<>|@#/_*^~=\u201c\u201d]|\.\.\.|\d{5}|_{2}|[^\x00-\u024f\u2010-\u2019]"
)


class SimilarityPair(NamedTuple):
    """Two texts and their similarity, from 0 to 1."""

    text_a: str
    text_b: str
    label: float


@dataclass(frozen=True)
class TextColumn(Source):
    """A data set whose sentences serve as first texts.

    Attributes:
        column: Column of running text.
        share: Fraction of the first texts that come from it, if it has as many.
    """

    column: str = "text"
    share: float = 1.0


_SHIFTS, _SQUAD = "ludwigschmidt/squadshifts", "cs224n/squad2_dev_part"
_WIKI = "CC BY 4.0; passages CC BY-SA"
_AMAZON = "CC BY 4.0; passages by Amazon reviewers"
_REDDIT = "CC BY 4.0; passages by Reddit users"
OPEN: tuple[TextColumn, ...] = (
    TextColumn(_SHIFTS, "new_wiki", "test", _WIKI, "context", 0.35),
    TextColumn(_SHIFTS, "amazon", "test", _AMAZON, "context", 0.20),
    TextColumn(_SHIFTS, "reddit", "test", _REDDIT, "context", 0.20),
    TextColumn("uberspot/opentriviaqa", "", "train", "CC BY-SA 4.0", "question", 0.18),
    TextColumn(_SQUAD, "", "validation", "CC BY-SA 4.0", "context", 0.07),
)
"""Data sets whose licences allow publishing a model trained on them.

Three of these splits are named "test" and one "validation": SQuADShifts has only test splits, and
cs224n/squad2_dev_part holds passages of SQuAD 2's development set. All are sets of question
answering or trivia, and no task of STS, sentiment, NER or clustering here is made from one. The
question answering tasks xquad and squad share passages with squad2_dev_part.
"""


def split_sentences(text: str) -> list[str]:
    """Return the sentences of running text, each run of white space replaced by one space."""
    return [" ".join(part.split()) for part in _SENTENCE_END.split(text) if part.strip()]


def is_plain_sentence(text: str, words: tuple[int, int]) -> bool:
    """Say whether a text is one whole sentence of prose without quotes.

    Args:
        text: The text.
        words: Fewest and most words.
    """
    fewest, most = words
    fits = fewest <= len(text.split()) <= most
    return fits and bool(_SENTENCE.fullmatch(text)) and not _NOT_PROSE.search(text)


def parse_column(source: str) -> TextColumn:
    """Return the data set that ``id[:config[:split]]:column`` names; the split is "train" if none.

    Raises:
        UsageError: The name has another form.
    """
    id_, *inner = source.split(":")
    if not 1 <= len(inner) <= 3:
        raise UsageError(
            "expected x1 as file, id:column, id:config:column or id:config:split:column, "
            f"got {source!r}"
        )
    config, split = [*inner[:-1], "", ""][:2]
    return TextColumn(id_, config, split or "train", column=inner[-1])


def draw_first_texts(
    sources: Sequence[TextColumn], load: Load, *, count: int, words: tuple[int, int], seed: int
) -> tuple[list[str], list[DataSource]]:
    """Return sentences of data sets by their shares, shuffled, and where they come from.

    Args:
        sources: The data sets.
        load: Loads one.
        count: Number of sentences; a set with fewer than its share gives all it has.
        words: Fewest and most words of a sentence.
        seed: Random seed.

    Raises:
        Unavailable: No set is available; one of several is left out with a warning.
    """
    tables = read_sources(
        sources,
        lambda source: load(source.id, source.split, config=source.config, columns=[source.column]),
        what="texts to start from",
        setting="x1",
    )
    total = sum(source.share for source, _ in tables)
    chosen: dict[str, None] = {}
    used = []
    for number, (source, table) in enumerate(tables):
        passages = dict.fromkeys(map(str, table[source.column]))
        sentences = dict.fromkeys(chain(*map(split_sentences, passages)))
        usable = [s for s in sentences if is_plain_sentence(s, words) and s not in chosen]
        order = np.random.default_rng([seed, number]).permutation(len(usable))
        drawn = sorted(order[: round(count * source.share / total)])
        chosen |= dict.fromkeys(usable[i] for i in drawn)
        used.append(DataSource(source.name, source.licence, len(drawn), dict(table.pin)))
    texts = list(chosen)
    return [texts[i] for i in np.random.default_rng(seed).permutation(len(texts))], used


def read_first_texts(path: Path, *, count: int, seed: int) -> tuple[list[str], list[DataSource]]:
    """Return distinct texts of a file, in its order, and where they come from.

    Args:
        path: ``.jsonl`` with ``text_a`` in each object; ``.tsv`` or ``.csv`` in the layout of the
            STS benchmark (tabs, sentences in columns 6 and 7); else a text per line.
        count: Number of texts; of a file with more, a random sample.
        seed: Random seed.

    Raises:
        DataError: The file cannot be read or is not in UTF-8, or a line has another form.
    """
    parse = dict.fromkeys((".jsonl", ".json"), _parse_text_a)
    parse |= dict.fromkeys((".tsv", ".csv"), _parse_stsb)
    kind = Path(path.name.removesuffix(".gz")).suffix
    lines, pin = _parse_lines(path, parse.get(kind, lambda line: [line]))
    stripped = [text.strip() for text in chain(*lines)]
    texts = list(dict.fromkeys(text for text in stripped if text))
    drawn = sorted(np.random.default_rng(seed).permutation(len(texts))[:count])
    texts = [texts[i] for i in drawn]
    return texts, [_file_source(path, len(texts), pin)]


def read_pairs(path: Path) -> tuple[list[SimilarityPair], list[DataSource]]:
    """Return the pairs of a file in the format of the released data, and where they come from.

    Args:
        path: JSON lines with ``text_a``, ``text_b`` and ``label``, from 0 to 1 or as a string.

    Raises:
        DataError: The file cannot be read, is not in UTF-8 or has no pairs, or a line has another
            form.
    """
    pairs, pin = _parse_lines(path, _parse_pair)
    if not pairs:
        raise DataError(f"expected pairs in {path}, got none: name another file")
    return pairs, [_file_source(path, len(pairs), pin)]


def clean_pairs(
    pairs: Sequence[SimilarityPair],
    *,
    seed: int,
    smoothing: float = 0.2,
    random_pairs: int = 2,
    least_shared: float = 0.0,
    most_shared: float = 1.0,
    agreeing: bool = False,
) -> tuple[list[SimilarityPair], dict[str, int]]:
    """Return training pairs, and the number of pairs dropped, by reason, and added.

    Args:
        pairs: Generated pairs with the labels of the task.
        seed: Random seed of the order and of the random pairs.
        smoothing: A label y becomes (1 - smoothing) y + smoothing / 2.
        random_pairs: Random second texts added to each first text, with the label 0, not smoothed.
        least_shared: Least word overlap of a pair with label 1.
        most_shared: Largest word overlap of a pair with a lower label.
        agreeing: Whether a pair that was generated for several labels is dropped.

    Raises:
        DataError: Random pairs are asked for, and some first text is in every pair.

    Source:
        Defaults and order: the released code, made to depend on the seed alone. The last three
        arguments are ours.
    """
    rng = np.random.default_rng(seed)
    shuffled = [pairs[i] for i in rng.permutation(len(pairs))]
    kept = list(dict.fromkeys(shuffled))
    labels = Counter(pair[:2] for pair in kept)
    rules: dict[str, Callable[[SimilarityPair], bool]] = {
        "identical texts": lambda pair: pair.text_a != pair.text_b,
        "conflicting labels": lambda pair: not agreeing or labels[pair[:2]] == 1,
        "too little overlap": lambda pair: (
            pair.label < 1 or word_overlap(*pair[:2]) >= least_shared
        ),
        "too much overlap": lambda pair: pair.label == 1 or word_overlap(*pair[:2]) <= most_shared,
    }
    counts = {"generated": len(pairs), "duplicates": len(pairs) - len(kept)}
    for reason, keeps in rules.items():
        before, kept = kept, [pair for pair in kept if keeps(pair)]
        counts[reason] = len(before) - len(kept)
    limited = list(_limit_per_label(kept))
    counts["more than two of a label"] = len(kept) - len(limited)
    smoothed = [
        pair._replace(label=round((1 - smoothing) * pair.label + smoothing / 2, 6))
        for pair in limited
    ]
    added = list(_draw_random_pairs(smoothed, random_pairs, rng)) if random_pairs else []
    counts |= {"random pairs": len(added), "training pairs": len(smoothed) + len(added)}
    return smoothed + added, counts


def word_overlap(a: str, b: str) -> float:
    """Return the Jaccard index of the words of two texts, case ignored; 0 if neither has any."""
    first, second = (set(_WORD.findall(text.lower())) for text in (a, b))
    return len(first & second) / max(len(first | second), 1)


def hold_out(
    pairs: Sequence[SimilarityPair], *, fraction: float, seed: int
) -> tuple[list[SimilarityPair], list[SimilarityPair]]:
    """Return the pairs to train on, and those of a fraction of the first texts.

    All pairs of a first text go together, so that both parts have the same labels.
    """
    texts = list(dict.fromkeys(pair.text_a for pair in pairs))
    order = np.random.default_rng(seed).permutation(len(texts))
    held_out = {texts[i] for i in order[: round(fraction * len(texts))]}
    train = [pair for pair in pairs if pair.text_a not in held_out]
    return train, [pair for pair in pairs if pair.text_a in held_out]


def _limit_per_label(pairs: Iterable[SimilarityPair]) -> Iterator[SimilarityPair]:
    seen: Counter[tuple[str, float]] = Counter()
    for pair in pairs:
        seen[pair.text_a, pair.label] += 1
        if seen[pair.text_a, pair.label] <= PER_LABEL:
            yield pair


def _draw_random_pairs(
    pairs: Sequence[SimilarityPair], each: int, rng: np.random.Generator
) -> Iterator[SimilarityPair]:
    """Yield for every first text pairs with second texts of others."""
    for text in dict.fromkeys(pair.text_a for pair in pairs):
        if all(text in pair[:2] for pair in pairs):
            raise DataError(
                f"expected a pair without {shortened(text)} to make random pairs of, "
                "got it in all: generate more"
            )
        taken = 0
        while taken < each:
            other = pairs[int(rng.integers(len(pairs)))]
            if text not in other[:2]:
                yield SimilarityPair(text, other.text_b, 0.0)
                taken += 1


def _parse_lines(path: Path, parse: Callable[[str], T]) -> tuple[list[T], dict[str, str]]:
    """Return what ``parse`` makes of each line that is not blank, and the hash of the file."""
    text, pin = read_text(path)
    made = []
    for number, line in enumerate(text.split("\n"), 1):  # JSON may hold other line ends
        try:
            if line.strip():
                made.append(parse(line))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"cannot read the line at {path}:{number}, got {line[:60]!r} "
                f"({type(error).__name__}: {error}): correct the line"
            ) from None
    return made, pin


def _parse_text_a(line: str) -> list[str]:
    return [_text(json.loads(line)["text_a"])]


def _parse_stsb(line: str) -> list[str]:
    cells = line.split("\t")
    if len(cells) < 7:
        raise ValueError(f"expected at least 7 columns, got {len(cells)}")
    return cells[5:7]


def _parse_pair(line: str) -> SimilarityPair:
    row = json.loads(line)
    label = float(row["label"])
    if not 0 <= label <= 1:
        raise ValueError(f"expected a label from 0 to 1, got {label}")
    return SimilarityPair(_text(row["text_a"]), _text(row["text_b"]), label)


def _text(value: Any) -> str:  # noqa: ANN401 - any JSON value
    if not isinstance(value, str):
        raise TypeError(f"expected a text, got {value!r}")
    return value


def _file_source(path: Path, rows: int, pin: dict[str, str]) -> DataSource:
    return DataSource(str(path), "as its owner says", rows, pin)
