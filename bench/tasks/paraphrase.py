"""Paraphrase: are pairs that mean the same more alike than pairs that do not?

Source: MRPC and QQP (GLUE), PAWS-Wiki and PAWS-QQP (Zhang et al. 2019), as ranked zero-shot in QuIP, table 2.
A row of ``nyu-mll/glue/mrpc``: ``sentence1`` "He said the foodservice pie business …", ``sentence2`` "The foodservice pie business …",
``label`` 1.
Run: ``bench run --model quip,backbone-mean --task mrpc,mrpc-bertscore``; another layer is ``mrpc-bertscore@20``; ``mrpc-picked`` picks one.
Protocol: AUROC of one similarity a pair, nothing is trained: the cosine of the two vectors, or BERTScore F over the token
states of one layer, special tokens kept. A picked layer is, of the last 24, the one with the highest AUROC on other pairs: 160
training pairs of MRPC, 500 of PAWS-Wiki's validation split; the paper picks one layer for all sets, on translations of WMT16, and reads
``@20`` of QuIP and ``@17`` of RoBERTa-large. Few-shot: F1 of a classifier on BERTScore F at eight layers, the encoder frozen.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from bench.columns import BINARY, CLASS, NUMBER, TEXT, Kind, check_classes
from bench.data import Rows, load
from bench.encoder import Encoder, Item, LayeredEncoder, TokenEncoder, TokenStates, gather, stream
from bench.errors import DataError, UsageError
from bench.task import PICKING, Score, sample
from bench.tasks.partition import blocks
from bench.tasks.ratios import f1_score, ratio_score
from bench.tasks.similarity import bertscore, cosine

SEEDS = (13, 21, 42, 87, 100)
"""Seeds of LM-BFF's splits, which QuIP reports the mean of."""


@dataclass(frozen=True)
class Paraphrase:
    """How well the cosine of two vectors tells paraphrases from other pairs.

    Attributes:
        name: Name of the task.
        data: Id of the data set.
        config: Its configuration.
        split: Its split.
        columns: Columns of the first text, the second text and the label, 1 for a paraphrase.
        bounds: Where the third column holds a score instead: pairs at or below the first number are none, at or above
            the second are paraphrases, those between are left out.
        limit: At most this many pairs.
        about: One line for lists.
    """

    name: str
    data: str
    config: str = ""
    split: str = "test"
    columns: tuple[str, str, str] = ("sentence1", "sentence2", "label")
    bounds: tuple[float, float] = (0.0, 1.0)
    limit: int | None = None
    about: str = field(default="", compare=False)
    family: ClassVar[str] = "paraphrase"
    metric: ClassVar[str] = "auroc"
    version: ClassVar[int] = 1

    @property
    def readout(self) -> str:
        """Which vectors are read."""
        return "embedding"

    @property
    def needs(self) -> type[Encoder]:
        """The protocol an encoder must satisfy."""
        return Encoder

    def items(self, *, seed: int) -> Iterable[Item]:  # noqa: ARG002 - the pairs do not depend on it
        """Return both sides of every pair."""
        rows = self._rows()
        return [Item(text) for column in self.columns[:2] for text in rows[column]]

    def evaluate(self, encoder: Encoder, *, seed: int) -> Mapping[str, Score]:  # noqa: ARG002 - nothing is random
        """Return ``auroc``, with the similarities as examples, and ``ap``, the average precision."""
        from sklearn.metrics import average_precision_score, roc_auc_score

        rows = self._rows()
        labels = np.asarray(rows[self.columns[2]], np.float64) >= self.bounds[1]
        alike = self._similarities(encoder, rows[self.columns[0]], rows[self.columns[1]])
        return {
            "auroc": Score(
                (float(roc_auc_score(labels, alike)),),
                alike.astype(np.float32),
                labels.astype(np.float32),
            ),
            "ap": Score((float(average_precision_score(labels, alike)),)),
        }

    def _similarities(
        self, encoder: Encoder, left: list[str], right: list[str]
    ) -> NDArray[np.float64]:
        vectors = gather(stream(encoder, [Item(text) for text in left + right]), 2 * len(left))
        return cosine(vectors[: len(left)], vectors[len(left) :])

    def _rows(self) -> Rows:
        kind = BINARY if self.bounds == (0.0, 1.0) else NUMBER
        rows = load(
            self.data, self.split, config=self.config, columns=pair_columns(self.columns, kind)
        )
        scores = np.asarray(rows[self.columns[2]], np.float64)
        clear = np.flatnonzero((scores <= self.bounds[0]) | (scores >= self.bounds[1]))
        rows = rows.take(clear[sample(len(clear), self.limit)])
        check_classes([score >= self.bounds[1] for score in rows[self.columns[2]]], rows.source)
        return rows


@dataclass(frozen=True)
class BertScore(Paraphrase):
    """How well BERTScore F over token states tells paraphrases from other pairs.

    Attributes:
        layer: Layer of the token states: 0 are the input embeddings, -1 is the last one.
    """

    layer: int = -1

    @property
    def readout(self) -> str:
        """Which vectors are read, with the layer where it is not the last one."""
        return "bertscore" if self.layer == -1 else f"bertscore@{self.layer}"

    @property
    def needs(self) -> type[Encoder]:
        """The protocol an encoder must satisfy."""
        return TokenEncoder

    def items(self, *, seed: int) -> Iterable[Item]:  # noqa: ARG002 - the pairs do not depend on it
        """Return nothing, since token states are not planned for; a set that cannot be had is known now all the same."""
        self._rows()
        return ()

    def _similarities(
        self, encoder: Encoder, left: list[str], right: list[str]
    ) -> NDArray[np.float64]:
        return bertscores(cast("TokenEncoder", encoder), left, right, (self.layer,))[:, 0]


@dataclass(frozen=True)
class PickedBertScore(BertScore):
    """How well BERTScore F over the token states of a layer does that was picked on other pairs.

    Attributes:
        others: Ids, configurations and splits of the pairs that the layer is picked on.
        pairs: At most this many of each.
        layers: Layers to pick from, counted from the last, which is -1; those that an encoder lacks are left out.

    Source:
        QuIP picks on data that is no test set, too, but one layer for all sets, on translations; here each set has its own.
    """

    others: tuple[tuple[str, str, str], ...] = ()
    pairs: int = 500
    layers: tuple[int, ...] = tuple(range(-24, 0))
    version: ClassVar[int] = 2

    def __post_init__(self) -> None:
        """Refuse a layer.

        Raises:
            UsageError: One is given.
        """
        if self.layer != -1:
            raise UsageError(
                f"{self.name} picks its layer, got layer {self.layer}: leave it out, or name a task ending in -bertscore"
            )

    @property
    def readout(self) -> str:
        """Which vectors are read."""
        return "bertscore, layer picked"

    def items(self, *, seed: int) -> Iterable[Item]:
        """Return nothing, since token states are not planned for; a set that cannot be had is known now all the same."""
        self._pairs()
        return super().items(seed=seed)

    def evaluate(self, encoder: Encoder, *, seed: int) -> Mapping[str, Score]:
        """Return what the picked layer scores, ``layer``, which that is, and ``picking at LAYER``, the AUROC on the other pairs."""
        from sklearn.metrics import roc_auc_score

        left, right, labels = self._pairs()
        layers = existing(encoder, self.layers)
        alike = bertscores(cast("TokenEncoder", encoder), left, right, layers)
        found = [float(roc_auc_score(np.asarray(labels) >= self.bounds[1], one)) for one in alike.T]
        best = layers[int(np.argmax(found))]
        scores = replace(
            BertScore(**{f.name: getattr(self, f.name) for f in fields(BertScore)}), layer=best
        ).evaluate(encoder, seed=seed)
        picking = {
            f"{PICKING}{layer}": Score((value,)) for layer, value in zip(layers, found, strict=True)
        }
        return {**scores, "layer": Score((float(best),)), **picking}

    def _pairs(self) -> tuple[list[Any], ...]:
        """Return first texts, second texts and labels of the other pairs."""
        sets = [
            load(name, split, config=config, columns=pair_columns(self.columns, BINARY))
            for name, config, split in self.others
        ]
        parts = [rows.take(sample(len(rows), self.pairs)) for rows in sets]
        check_classes([y for rows in parts for y in rows[self.columns[2]]], self.others[0][0])
        return tuple([value for rows in parts for value in rows[column]] for column in self.columns)


@dataclass(frozen=True)
class FewShot:
    """F1 of paraphrases by a logistic regression on BERTScore F at eight layers, trained on 16 pairs a class: QuIP's frozen protocol.

    Attributes:
        name: Name of the task.
        data: Id of the test set.
        config: Its configuration.
        split: Its split.
        train: Id of the set with a configuration ``16-SEED`` for each split; or, where ``numbered``, with the columns seed and id,
            which name rows of the test set's own split ``train`` by their column id.
        columns: Columns of the first text, the second text and the label, 1 for a paraphrase.
        layers: Layers that give a feature each, counted from the last, which is -1; those that an encoder lacks are left out.
        numbered: Whether ``train`` names rows by their numbers.
        limit: At most this many test pairs.
        about: One line for lists.

    Source:
        QuIP, table 3, and its released code: StandardScaler fitted on the 32 rows, then LogisticRegression(C=1, liblinear).
    """

    name: str
    data: str
    config: str
    split: str
    train: str
    columns: tuple[str, str, str] = ("sentence1", "sentence2", "label")
    layers: tuple[int, ...] = (-8, -7, -6, -5, -4, -3, -2, -1)
    numbered: bool = False
    limit: int | None = None
    about: str = field(default="", compare=False)
    family: ClassVar[str] = "paraphrase"
    metric: ClassVar[str] = "f1"
    version: ClassVar[int] = 2
    readout: ClassVar[str] = "bertscore"
    needs: ClassVar[type[Encoder]] = TokenEncoder  # type: ignore[type-abstract]

    def items(self, *, seed: int) -> Iterable[Item]:  # noqa: ARG002 - the splits do not depend on it
        """Return nothing, since token states are not planned for; a set that cannot be had is known now all the same."""
        self.splits()
        return ()

    def evaluate(self, encoder: Encoder, *, seed: int) -> Mapping[str, Score]:  # noqa: ARG002 - the splits have the paper's seeds
        """Return ``f1`` of the positive class and ``accuracy``, a repeat for each split."""
        parts = self.splits()
        left, right = (
            [text for rows in parts for text in rows[column]] for column in self.columns[:2]
        )
        tokens = cast("TokenEncoder", encoder)
        features = bertscores(tokens, left, right, existing(encoder, self.layers))
        test, *train = np.split(features, np.cumsum([len(rows) for rows in parts])[:-1])
        gold, *labels = (np.asarray(rows[self.columns[2]], int) for rows in parts)
        return f1_scores(gold, [_positive(x, y, test) for x, y in zip(train, labels, strict=True)])

    def splits(self) -> list[Rows]:
        """Return the test pairs, then the training pairs of each split."""
        columns = pair_columns(self.columns, BINARY)
        test = load(self.data, self.split, config=self.config, columns=columns)
        train = self._numbered() if self.numbered else self._given()
        parts = [test.take(sample(len(test), self.limit)), *train]
        for rows in parts:
            check_classes(rows[self.columns[2]], rows.source)
        return parts

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
                f"{self.train} names the row {missing[0]} of {self.data}, which has no such id in {whole.source}; copy it again"
            )
        pairs = list(zip(named["seed"], named["id"], strict=True))
        return [
            whole.take(place[number] for seed, number in pairs if seed == wanted)
            for wanted in SEEDS
        ]


def pair_columns(columns: tuple[str, str, str], label: Kind) -> dict[str, Kind]:
    """Return what the columns of pairs must hold."""
    first, second, third = columns
    return {first: TEXT, second: TEXT, third: label}


def f1_scores(gold: NDArray[Any], answers: Sequence[NDArray[Any]]) -> dict[str, Score]:
    """Return ``f1`` of the positive class and ``accuracy``, one repeat for each set of answers (n,), 1 for a paraphrase."""
    wanted, found = (gold > 0).astype(int), [(positive > 0).astype(int) for positive in answers]
    scores = {
        "f1": f1_score([(one * wanted, one, wanted) for one in found]),
        "accuracy": ratio_score([(one == wanted, np.ones(len(wanted))) for one in found]),
    }
    return {name: score for name, score in scores.items() if score is not None}


def _positive(
    x: NDArray[np.float64], y: NDArray[Any], test: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return 1 for each test row that a classifier trained on the rows x with labels y takes for a paraphrase."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    fitted = make_pipeline(
        StandardScaler(), LogisticRegression(C=1.0, solver="liblinear", random_state=0)
    ).fit(x, y)
    return np.asarray(fitted.predict(test), np.int64)


def bertscores(
    encoder: TokenEncoder, left: Sequence[str], right: Sequence[str], layers: Sequence[int]
) -> NDArray[np.float64]:
    """Return BERTScore F of each pair of texts at each layer: (n, layers)."""
    alike = np.empty((len(left), len(layers)))
    # Sorted, so that pairs that share a text are mostly in one block and the text is encoded once.
    order = np.array(sorted(range(len(left)), key=lambda i: (left[i], right[i])))
    for members in blocks([len(layers) * (len(left[i]) + len(right[i])) for i in order]):
        block = order[members]
        sides = [[texts[i] for i in block] for texts in (left, right)]
        distinct = list(dict.fromkeys(sides[0] + sides[1]))
        for k, found in enumerate(_at_layers(encoder, distinct, layers)):
            states = dict(zip(distinct, found, strict=True))
            alike[block, k] = bertscore(*([states[text] for text in side] for side in sides))
    return alike


def existing(encoder: Encoder, layers: Sequence[int]) -> tuple[int, ...]:
    """Return those of the layers, counted from the last, that the encoder has; all where it does not say how many it has."""
    least = -encoder.layer_count() - 1 if isinstance(encoder, LayeredEncoder) else min(layers)
    return tuple(layer for layer in layers if layer >= least)


def _at_layers(
    encoder: TokenEncoder, texts: Sequence[str], layers: Sequence[int]
) -> list[list[TokenStates]]:
    if isinstance(encoder, LayeredEncoder):
        return encoder.encode_layers(texts, layers=layers)
    return [encoder.encode_tokens(texts, layer=layer) for layer in layers]


def _by_tokens(task: Paraphrase) -> BertScore:
    return BertScore(
        **{
            **vars(task),
            "name": f"{task.name}-bertscore",
            "about": f"{task.about}; by BERTScore of token states",
        }
    )


def _picked(task: Paraphrase, *others: tuple[str, str, str]) -> PickedBertScore:
    about = f"{task.about}; by BERTScore at a layer picked on other pairs"
    return PickedBertScore(
        **{**vars(task), "name": f"{task.name}-picked", "about": about}, others=others
    )


_BY_VECTORS = (
    Paraphrase(
        "mrpc", "nyu-mll/glue", "mrpc", "validation", about="MRPC, 408 pairs of news sentences"
    ),
    Paraphrase(
        "qqp",
        "nyu-mll/glue",
        "qqp",
        "validation",
        ("question1", "question2", "label"),
        about="QQP, 40,430 pairs of Quora questions",
    ),
    Paraphrase(
        "paws-wiki",
        "google-research-datasets/paws",
        "labeled_final",
        about="PAWS-Wiki, 8,000 pairs with the same words in another order",
    ),
    Paraphrase(
        "paws-qqp",
        "quip/paws-qqp",
        split="dev_and_test",
        about="PAWS-QQP; no hub set holds it: make it from the Quora file and put it under quip/paws-qqp",
    ),
    Paraphrase(
        "stsb-paraphrase",
        "mteb/stsbenchmark-sts",
        columns=("sentence1", "sentence2", "score"),
        bounds=(2.0, 4.0),
        about="STS-B test pairs scored 4 or more against 2 or less; stands in for a paraphrase set",
    ),
)
TASKS: tuple[Paraphrase | FewShot, ...] = (
    *_BY_VECTORS,
    *map(_by_tokens, _BY_VECTORS),
    _picked(_BY_VECTORS[0], *(("lm-bff/mrpc", f"16-{seed}", "train") for seed in SEEDS)),
    _picked(_BY_VECTORS[1], *(("lm-bff/qqp", f"16-{seed}", "train") for seed in SEEDS)),
    _picked(_BY_VECTORS[2], ("google-research-datasets/paws", "labeled_final", "validation")),
    _picked(_BY_VECTORS[3], ("quip/paws-qqp", "", "train")),
    FewShot(
        "mrpc-fewshot", "nyu-mll/glue", "mrpc", "validation", "lm-bff/mrpc",
        about="MRPC, 408 pairs; frozen classifier on BERTScore at eight layers, 16 pairs a class, five splits",
    ),
    FewShot("qqp-fewshot", "nyu-mll/glue", "qqp", "validation", "lm-bff/qqp", ("question1", "question2", "label"),
            about="QQP, 40,430 pairs; the same"),
    FewShot("paws-wiki-fewshot", "google-research-datasets/paws", "labeled_final", "test", "quip/paws-wiki-16shot-ids", numbered=True,
            about="PAWS-Wiki, 8,000 pairs; the same"),
    FewShot("paws-qqp-fewshot", "quip/paws-qqp", "", "dev_and_test", "quip/paws-qqp-16shot-ids", numbered=True,
            about="PAWS-QQP; the same"),
)  # fmt: skip
"""The paraphrase tasks, to be asked for by name."""
