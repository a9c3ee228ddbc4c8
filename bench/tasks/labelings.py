"""Sets whose texts carry two labelings, and how to cut them into folds that are alike."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data import Rows, load
from bench.data.columns import CLASS, TEXT
from bench.errors import DataError
from bench.tasks.groups import DOMAINS, SENTIMENTS, group_names

Labels = NDArray[np.int64]
"""Class of each text under one labeling, (n,); -1 where it has none."""


@dataclass(frozen=True)
class Labelled:
    """Distinct texts with the classes that several labelings give them.

    Attributes:
        texts: The n texts.
        labels: Classes by name of the labeling.
    """

    texts: list[str]
    labels: Mapping[str, Labels]

    def take(self, rows: NDArray[np.int64]) -> "Labelled":
        """Return the texts of these numbers, in this order."""
        return Labelled(
            [self.texts[i] for i in rows],
            {name: values[rows] for name, values in self.labels.items()},
        )


def class_names(rows: Rows, column: str) -> list[str]:
    """Return the class names of an integer column, row by row.

    Raises:
        DataError: The names of the classes are not known.
    """
    if (names := rows.names(column)) is None:
        raise DataError(
            f"{rows.source}: expected class names of the column {column}; "
            "a local copy has them in features.json"
        )
    return [names[int(i)] for i in rows[column]]


def number_classes(*sets: Sequence[Any]) -> list[Labels]:
    """Return the number of the class of each label, the same in all sets: int64 (n,) each.

    Args:
        sets: Labels, texts or whole numbers of any size; beside texts a number is its digits.

    Raises:
        DataError: Two texts differ in case, spaces or the encoding of accents alone.
    """
    texts = any(isinstance(label, str) for label in chain(*sets))
    plain = [list(map(str, labels)) if texts else labels for labels in sets]
    number = {label: i for i, label in enumerate(sorted(set(chain(*plain))))}
    first: dict[str, str] = {}
    for label in number if texts else ():
        words = unicodedata.normalize("NFC", " ".join(label.casefold().split()))
        if (other := first.setdefault(words, label)) != label:
            raise DataError(
                "expected classes that differ in more than case, spaces and the encoding of "
                f"accents, got {other!a} and {label!a}; write them alike"
            )
    return [np.array([number[label] for label in labels], np.int64) for labels in plain]


def clinc() -> Labelled:
    """Return the requests of CLINC150 in scope: ``intent`` (150 classes) and ``domain`` (10)."""
    rows = load("clinc/clinc_oos", "test", config="plus", columns={"text": TEXT, "intent": CLASS})
    domain = group_names(DOMAINS)
    intents = class_names(rows, "intent")
    return _labelled(
        (text, {"intent": i, "domain": domain[i]})
        for text, i in zip(rows["text"], intents, strict=True)
        if i in domain
    )


def clinc_fifth() -> Labelled:
    """Return 450 requests of CLINC150: 30 of its intents, three of each domain."""
    found = draw_texts(clinc(), 2250)
    return found.take(deal_folds(found, 5, seed=0, whole="intent")[0])


def trec() -> Labelled:
    """Return the questions of TREC, both splits: ``coarse`` (6 classes) and ``fine`` (50)."""
    columns = {"text": TEXT, "coarse_label": CLASS, "fine_label": CLASS}
    questions: list[tuple[str, Mapping[str, object]]] = []
    for split in ("test", "train"):
        rows = load("CogComp/trec", split, columns=columns)
        for text, coarse, fine in zip(*(rows[column] for column in columns), strict=True):
            questions.append((text, {"coarse": coarse, "fine": fine}))
    return _labelled(questions)


def go_emotions() -> Labelled:
    """Return comments with one emotion: ``emotion`` (27 classes) and ``sentiment`` (3)."""
    rows = load(
        "google-research-datasets/go_emotions",
        "test",
        config="simplified",
        columns={"text": TEXT, "labels": CLASS.lists()},
    )
    group = group_names(SENTIMENTS)
    names = rows.names("labels") or [
        *sorted(group),
        "neutral",
    ]  # the order of the published class numbers
    single = [
        (text, names[labels[0]])
        for text, labels in zip(rows["text"], rows["labels"], strict=True)
        if len(labels) == 1
    ]
    return _labelled(
        (text, {"emotion": emotion, "sentiment": group[emotion]})
        for text, emotion in single
        if emotion in group
    )


def ag_news() -> Labelled:
    """Return the news items of AG News: ``topic`` (4 classes)."""
    rows = load("fancyzhx/ag_news", "test", columns={"text": TEXT, "label": CLASS})
    return _labelled(
        (text, {"topic": label}) for text, label in zip(rows["text"], rows["label"], strict=True)
    )


def faq() -> Labelled:
    """Return questions about building in two languages: ``category``, ``language``, ``id``.

    Categories have 15 questions or more.
    """
    columns = {"question": TEXT, "category": CLASS, "language": CLASS, "id": CLASS}
    rows = load("pypi/zaragoza-construction-faq", "train", config="bilingual", columns=columns)
    count = Counter(rows["category"])
    quads = zip(*(rows[column] for column in columns), strict=True)
    return _labelled(
        (text, {"category": c, "language": spoken, "id": i})
        for text, c, spoken, i in quads
        if count[c] >= 30
    )


def nyt() -> Labelled:
    """Return the articles of the New York Times: ``topic`` (9 classes) and ``location`` (10)."""
    parts = {
        name: load(
            "BrandonZYW/NYTClustering",
            "test",
            config=name,
            columns={"text": TEXT, "cluster": CLASS},
        )
        for name in ("topic", "location")
    }
    found: dict[str, dict[str, object]] = {}
    for name, rows in parts.items():
        for text, label in zip(rows["text"], rows["cluster"], strict=True):
            found.setdefault(text, {}).setdefault(name, label)
    return _labelled(found.items(), tuple(parts))


def _labelled(
    pairs: Iterable[tuple[str, Mapping[str, object]]], names: tuple[str, ...] = ()
) -> Labelled:
    """Return distinct texts with their first classes, numbered in the order of occurrence."""
    first: dict[str, Mapping[str, object]] = {}
    for text, classes in pairs:
        first.setdefault(text, classes)
    if not first:
        raise DataError("expected texts with labels, got none; check the columns of the data set")
    labels = {}
    for name in names or tuple(next(iter(first.values()))):
        number: dict[object, int] = {}
        numbers = []
        for classes in first.values():
            known = name in classes
            numbers.append(number.setdefault(classes[name], len(number)) if known else -1)
        labels[name] = np.array(numbers, np.int64)
    return Labelled(list(first), labels)


def draw_texts(found: Labelled, size: int, *, by: Sequence[str] = ()) -> Labelled:
    """Return at most ``size`` of the texts, a fixed draw that keeps the proportions of classes.

    Args:
        found: The texts.
        size: Most texts.
        by: The labelings whose proportions are kept; all of them by default.
    """
    rng = np.random.default_rng(0)
    strata = _strata(Labelled([], {name: found.labels[name] for name in by or found.labels}))
    order = _grouped(strata, rng)
    counts = np.bincount(strata)
    place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    share = (place + 0.5) / counts[strata[order]]  # how much of its class lies before a text
    return found.take(np.sort(order[np.lexsort((rng.random(len(order)), share))[:size]]))


def deal_folds(
    found: Labelled, folds: int, *, seed: int, whole: str = ""
) -> list[NDArray[np.int64]]:
    """Return the row numbers of each fold: disjoint, together all, stratified by class.

    Args:
        found: The texts.
        folds: Number of folds.
        seed: Decides which text goes where.
        whole: A labeling whose classes are each kept in one fold, shared out evenly over the
            classes of the other labelings.
    """
    rng = np.random.default_rng(seed)
    if not whole:
        order = _grouped(_strata(found), rng)
        return [np.sort(order[i::folds]) for i in range(folds)]
    classes, first, inverse = np.unique(found.labels[whole], return_index=True, return_inverse=True)
    others = Labelled(
        [], {name: values[first] for name, values in found.labels.items() if name != whole}
    )
    fold = np.empty(len(classes), np.int64)
    fold[_grouped(_strata(others), rng)] = np.arange(len(classes)) % folds
    return [np.flatnonzero(fold[inverse] == i) for i in range(folds)]


def _strata(found: Labelled) -> Labels:
    """Return a number for each text, equal where all labelings agree: (n,)."""
    labels = np.stack(list(found.labels.values()), axis=1)
    return np.unique(labels, axis=0, return_inverse=True)[1].reshape(-1)


def _grouped(strata: Labels, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the numbers of the texts, stratum by stratum, in random order within each."""
    order = rng.permutation(len(strata))
    return order[np.argsort(strata[order], kind="stable")]
