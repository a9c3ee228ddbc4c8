"""Paraphrase: are pairs that mean the same more alike than pairs that do not?

Source: MRPC and QQP (GLUE), PAWS-Wiki and PAWS-QQP (Zhang et al. 2019), as ranked zero-shot in
QuIP, table 2.
A row of ``nyu-mll/glue/mrpc``: ``sentence1`` "He said the foodservice pie business …",
``sentence2`` "The foodservice pie business …", ``label`` 1.
Run: ``bench run --model quip,backbone-mean --task mrpc,mrpc-bertscore``; another layer is
``mrpc-bertscore@20``; ``mrpc-picked`` picks one.
Protocol: AUROC of one similarity a pair, nothing is trained: the cosine of the two vectors, or
BERTScore F over the token states of one layer, special tokens kept. A picked layer is, of the last
24, the one with the highest AUROC on other pairs: 160 training pairs of MRPC, 500 of PAWS-Wiki's
validation split; the paper picks one layer for all sets, on translations of WMT16, and reads
``@20`` of QuIP and ``@17`` of RoBERTa-large. Few-shot: F1 of a classifier on BERTScore F at eight
layers, the encoder frozen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bench.data import Rows, load
from bench.data.columns import BINARY, CLASS, NUMBER, TEXT, Kind, check_classes
from bench.embeddings import CachedEncoder, cached
from bench.encoder import Embeddings, Encoder, Item, TokenEncoder
from bench.errors import DataError, UsageError
from bench.task import PICKING, NetworkTask, Score, Scores, Task, example_ids, sample, split_vectors
from bench.tasks.partition import split_blocks
from bench.tasks.ratios import f1_score, ratio_score
from bench.tasks.similarity import bertscore, cosine

SEEDS = (13, 21, 42, 87, 100)
"""Seeds of LM-BFF's splits, which QuIP reports the mean of."""


@dataclass(frozen=True, kw_only=True)
class Paraphrase(Task):
    """How well the cosine of two vectors separates paraphrases from other pairs.

    Attributes:
        columns: Columns of the first text, the second text and the label, 1 for a paraphrase.
        bounds: Where the third column holds a score instead: pairs at or below the first number
            are no paraphrases, at or above the second they are, those between are left out.
    """

    columns: tuple[str, str, str] = ("sentence1", "sentence2", "label")
    bounds: tuple[float, float] = (0.0, 1.0)
    family: ClassVar[str] = "paraphrase"
    metric: ClassVar[str] = "auroc"

    def items(self, *, seed: int) -> Sequence[Item]:
        """Return both sides of every pair."""
        left, right, _ = self.pairs()
        return [Item(text, self.instruction) for text in [*left, *right]]

    def score(self, vectors: Embeddings, *, seed: int) -> Scores:
        """Return the scores of the cosines; see ``auroc``."""
        return self.auroc(cosine(*np.split(vectors, 2)))

    def auroc(self, similarities: NDArray[np.float64]) -> Scores:
        """Return ``auroc``, with the similarities as examples, and ``ap``, average precision."""
        from sklearn.metrics import average_precision_score, roc_auc_score

        left, right, scores = self.pairs()
        labels, ids = np.asarray(scores, np.float64) >= self.bounds[1], example_ids(left, right)
        area = float(roc_auc_score(labels, similarities))
        examples, gold = similarities.astype(np.float32), labels.astype(np.float32)
        precision = float(average_precision_score(labels, similarities))
        return {"auroc": Score((area,), examples, gold, ids), "ap": Score((precision,))}

    def pairs(self) -> list[list[Any]]:
        """Return the first texts, the second texts and the labels or scores."""
        kind = BINARY if self.bounds == (0.0, 1.0) else NUMBER
        rows = self.all_rows(pair_columns(self.columns, kind))
        scores = np.asarray(rows[self.columns[2]], np.float64)
        clear = np.flatnonzero((scores <= self.bounds[0]) | (scores >= self.bounds[1]))
        rows = rows.take(clear[sample(len(clear), self.limit)])
        check_classes([score >= self.bounds[1] for score in rows[self.columns[2]]], rows.source)
        return [rows[column] for column in self.columns]


@dataclass(frozen=True, kw_only=True)
class BertScore(NetworkTask, Paraphrase):
    """How well BERTScore F over token states separates paraphrases from other pairs.

    Attributes:
        layer: Layer of the token states: 0 are the input embeddings, -1 is the last one.
    """

    layer: int = -1
    needs: ClassVar[type[Encoder]] = TokenEncoder  # type: ignore[type-abstract]

    @property
    def readout(self) -> str:
        """Which vectors are read, with the layer where it is not the last one."""
        return "bertscore" if self.layer == -1 else f"bertscore@{self.layer}"

    def load(self, seed: int) -> list[list[Any]]:
        """Return the first texts, the second texts and the labels or scores."""
        return self.pairs()

    def measure(self, encoder: CachedEncoder, *, seed: int) -> Scores:
        """Return the scores of BERTScore F; see ``auroc``."""
        return self._at_layer(encoder, self.layer)

    def _at_layer(self, encoder: CachedEncoder, layer: int) -> Scores:
        left, right, _ = self.pairs()
        return self.auroc(bertscores(encoder, left, right, (layer,))[:, 0])


@dataclass(frozen=True, kw_only=True)
class PickedBertScore(BertScore):
    """How well BERTScore F does over the token states of a layer that was picked on other pairs.

    Attributes:
        others: Ids, configurations and splits of the pairs that the layer is picked on.
        most: At most this many of each.
        layers: Layers to pick from, counted from the last, which is -1; those that an encoder
            lacks are left out.

    Source:
        QuIP picks on data that is no test set, too, but one layer for all sets, on translations;
        here each set has its own.
    """

    others: tuple[tuple[str, str, str], ...] = ()
    most: int = 500
    layers: tuple[int, ...] = tuple(range(-24, 0))
    version: ClassVar[int] = 2
    readout: ClassVar[str] = "bertscore, layer picked"

    def __post_init__(self) -> None:
        """Refuse a layer.

        Raises:
            UsageError: One is given.
        """
        super().__post_init__()
        if self.layer != -1:
            raise UsageError(
                f"{self.name} picks its layer, got layer {self.layer}: leave it out, "
                "or name a task ending in -bertscore"
            )

    def load(self, seed: int) -> list[list[Any]]:
        """Return the pairs that the layer is picked on, after the test pairs were loaded."""
        self.pairs()
        columns = pair_columns(self.columns, BINARY)
        sets = [
            load(name, split, config=config, columns=columns) for name, config, split in self.others
        ]
        parts = [rows.take(sample(len(rows), self.most)) for rows in sets]
        merged = [_join(parts, column) for column in self.columns]
        check_classes(merged[2], self.others[0][0])
        return merged

    def measure(self, encoder: CachedEncoder, *, seed: int) -> Scores:
        """Return what the picked layer scores.

        ``layer`` is that layer, and ``picking at LAYER`` the AUROC of each on the other pairs.
        """
        from sklearn.metrics import roc_auc_score

        left, right, labels = self.load(seed)
        layers = existing_layers(encoder, self.layers)
        similarities = bertscores(encoder, left, right, layers)
        positive = np.asarray(labels) >= self.bounds[1]
        areas = [float(roc_auc_score(positive, values)) for values in similarities.T]
        best = layers[int(np.argmax(areas))]
        picking = {
            f"{PICKING}{layer}": Score((area,)) for layer, area in zip(layers, areas, strict=True)
        }
        return {**self._at_layer(encoder, best), "layer": Score((float(best),)), **picking}


@dataclass(frozen=True, kw_only=True)
class FewShot(NetworkTask):
    """F1 of a classifier on BERTScore F at eight layers, trained on 16 pairs a class, frozen.

    Attributes:
        train: Id of the set with a configuration ``16-SEED`` for each split; or, where
            ``numbered``, with the columns seed and id, which name rows of the test set's own split
            ``train`` by their column id.
        columns: Columns of the first text, the second text and the label, 1 for a paraphrase.
        layers: Layers that give a feature each, counted from the last, which is -1; those that an
            encoder lacks are left out.
        numbered: Whether ``train`` names rows by their numbers.

    Source:
        QuIP, table 3, and its released code: StandardScaler fitted on the 32 rows, then
        LogisticRegression(C=1, liblinear).
    """

    train: str
    columns: tuple[str, str, str] = ("sentence1", "sentence2", "label")
    layers: tuple[int, ...] = (-8, -7, -6, -5, -4, -3, -2, -1)
    numbered: bool = False
    family: ClassVar[str] = "paraphrase"
    metric: ClassVar[str] = "f1"
    version: ClassVar[int] = 2
    readout: ClassVar[str] = "bertscore"
    needs: ClassVar[type[Encoder]] = TokenEncoder  # type: ignore[type-abstract]

    def load(self, seed: int) -> list[Rows]:
        """Return the test pairs, then the training pairs of each split."""
        test = self.rows(pair_columns(self.columns, BINARY))
        parts = [test, *(self._numbered() if self.numbered else self._given())]
        for rows in parts:
            check_classes(rows[self.columns[2]], rows.source)
        return parts

    def measure(self, encoder: CachedEncoder, *, seed: int) -> Scores:
        """Return ``f1`` of the positive class and ``accuracy``, a repeat for each split."""
        parts = self.load(seed)
        left, right = (_join(parts, column) for column in self.columns[:2])
        features = bertscores(encoder, left, right, existing_layers(encoder, self.layers))
        test, *train = split_vectors(features, [len(rows) for rows in parts])
        gold, *labels = (np.asarray(rows[self.columns[2]], int) for rows in parts)
        answers = [_classify(x, y, test) for x, y in zip(train, labels, strict=True)]
        return f1_scores(gold, answers)

    def _given(self) -> list[Rows]:
        columns = pair_columns(self.columns, BINARY)
        return [load(self.train, "train", config=f"16-{seed}", columns=columns) for seed in SEEDS]

    def _numbered(self) -> list[Rows]:
        named = load(self.train, "train", columns=("seed", "id"))
        columns = {"id": CLASS, **pair_columns(self.columns, BINARY)}
        whole = load(self.data, "train", config=self.config, columns=columns)
        place = {number: i for i, number in enumerate(whole["id"])}
        if missing := [number for number in named["id"] if number not in place]:
            raise DataError(
                f"{self.train} names the row {missing[0]} of {self.data}, which has no such id in "
                f"{whole.source}; copy it again"
            )
        drawn: dict[Any, list[int]] = {seed: [] for seed in SEEDS}
        for seed, number in zip(named["seed"], named["id"], strict=True):
            if seed in drawn:
                drawn[seed].append(place[number])
        return [whole.take(rows) for rows in drawn.values()]


def _join(parts: Sequence[Rows], column: str) -> list[Any]:
    """Return a column of several tables, one after another."""
    return list(chain.from_iterable(rows[column] for rows in parts))


def pair_columns(columns: tuple[str, str, str], label: Kind) -> dict[str, Kind]:
    """Return what the columns of pairs must hold."""
    first, second, third = columns
    return {first: TEXT, second: TEXT, third: label}


def f1_scores(gold: NDArray[Any], answers: Sequence[NDArray[Any]]) -> dict[str, Score]:
    """Return ``f1`` of the positive class and ``accuracy``, one repeat for each set of answers.

    Args:
        gold: (n,), 1 for a paraphrase.
        answers: (n,) each, likewise.
    """
    wanted = (gold > 0).astype(int)
    given = [(positive > 0).astype(int) for positive in answers]
    scores = {
        "f1": f1_score([(one * wanted, one, wanted) for one in given]),
        "accuracy": ratio_score([(one == wanted, np.ones(len(wanted))) for one in given]),
    }
    return {name: score for name, score in scores.items() if score is not None}


def _classify(
    x: NDArray[np.float64], y: NDArray[Any], test: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return 1 for each test row that a classifier trained on rows x, labels y calls positive."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = LogisticRegression(C=1.0, solver="liblinear", random_state=0)
    fitted = make_pipeline(StandardScaler(), classifier).fit(x, y)
    return np.asarray(fitted.predict(test), np.int64)


def bertscores(
    encoder: TokenEncoder, left: Sequence[str], right: Sequence[str], layers: Sequence[int]
) -> NDArray[np.float64]:
    """Return BERTScore F of each pair of texts at each layer: (n, layers)."""
    reader = cached(encoder)
    similarities = np.empty((len(left), len(layers)))
    # Sorted, so that pairs that share a text are mostly in one block and the text is encoded once.
    order = np.array(sorted(range(len(left)), key=lambda i: (left[i], right[i])))
    sizes = [len(layers) * (len(left[i]) + len(right[i])) for i in order]
    for members in split_blocks(sizes):
        block = order[members]
        firsts = [left[i] for i in block]
        seconds = [right[i] for i in block]
        distinct = list(dict.fromkeys(firsts + seconds))
        for k, tokens in enumerate(reader.encode_layers(distinct, layers=layers)):
            states = dict(zip(distinct, tokens, strict=True))
            similarities[block, k] = bertscore(
                [states[text] for text in firsts], [states[text] for text in seconds]
            )
    return similarities


def existing_layers(encoder: CachedEncoder, layers: Sequence[int]) -> tuple[int, ...]:
    """Return those of the layers, counted from the last, that the encoder has.

    All of them, where the encoder has no ``layer_count``.
    """
    count = getattr(encoder.inner, "layer_count", None)
    least = -count() - 1 if count else min(layers)
    return tuple(layer for layer in layers if layer >= least)


SETS: dict[str, dict[str, Any]] = {
    "mrpc": {"data": "nyu-mll/glue", "config": "mrpc", "split": "validation"},
    "qqp": {
        "data": "nyu-mll/glue",
        "config": "qqp",
        "split": "validation",
        "columns": ("question1", "question2", "label"),
    },
    "paws-wiki": {"data": "google-research-datasets/paws", "config": "labeled_final"},
    "paws-qqp": {"data": "quip/paws-qqp", "split": "dev_and_test"},
    "stsb-paraphrase": {
        "data": "mteb/stsbenchmark-sts",
        "columns": ("sentence1", "sentence2", "score"),
        "bounds": (2.0, 4.0),
    },
}
"""Where the test pairs are, by the name of the set."""

SHOTS: dict[str, dict[str, Any]] = {
    "mrpc": {"train": "lm-bff/mrpc"},
    "qqp": {"train": "lm-bff/qqp"},
    "paws-wiki": {"train": "quip/paws-wiki-16shot-ids", "numbered": True},
    "paws-qqp": {"train": "quip/paws-qqp-16shot-ids", "numbered": True},
}
"""Where the training pairs of few-shot tasks are, by the name of the set."""

_OTHERS = {
    "mrpc": tuple(("lm-bff/mrpc", f"16-{seed}", "train") for seed in SEEDS),
    "qqp": tuple(("lm-bff/qqp", f"16-{seed}", "train") for seed in SEEDS),
    "paws-wiki": (("google-research-datasets/paws", "labeled_final", "validation"),),
    "paws-qqp": (("quip/paws-qqp", "", "train"),),
}

ABOUT = {
    "mrpc": "MRPC, 408 pairs of news sentences",
    "qqp": "QQP, 40,430 pairs of Quora questions",
    "paws-wiki": "PAWS-Wiki, 8,000 pairs with the same words in another order",
    "paws-qqp": "PAWS-QQP, to be made from the Quora file and put under quip/paws-qqp",
    "stsb-paraphrase": "STS-B test pairs scored 4 or more against 2 or less",
}
"""What the pairs are, by the name of the set."""

TASKS: tuple[Task, ...] = (
    *(Paraphrase(name, **where, about=ABOUT[name]) for name, where in SETS.items()),
    *(
        BertScore(f"{name}-bertscore", **where, about=f"{ABOUT[name]}; by BERTScore")
        for name, where in SETS.items()
    ),
    *(
        PickedBertScore(
            f"{name}-picked",
            **SETS[name],
            others=others,
            about=f"{ABOUT[name]}; by BERTScore at a layer picked on other pairs",
        )
        for name, others in _OTHERS.items()
    ),
    *(
        FewShot(
            f"{name}-fewshot",
            **SETS[name],
            **train,
            about=f"{ABOUT[name]}; frozen classifier on eight layers' BERTScore, 16 a class",
        )
        for name, train in SHOTS.items()
    ),
)
"""The paraphrase tasks, to be asked for by name."""
