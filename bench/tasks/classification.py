"""Classification of labelled texts: a logistic regression on frozen embeddings of all of them.

Source: 503 packaged questions about building with their categories; files of one's own.
A row of ``pypi/zaragoza-construction-faq``: ``question`` "How long is a building permit valid?",
``category`` "bbr-pbl".
Run: ``bench run --model all --task faq-categories``, or ``--task classification:reviews.csv``
(``bench.tasks.own``).
Protocol: accuracy and macro F1 of a logistic regression on standardised embeddings, trained on the
training file, or on the other folds of the one file (stratified, five folds, drawn by the seed;
copies of a text are in the same fold).
"""

import logging
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from bench.data import load
from bench.data.columns import LABEL, TEXT, check_classes
from bench.encoder import Embeddings, Item
from bench.errors import DataError
from bench.task import Score, Scores, Task, example_ids, sample, split_vectors
from bench.tasks.labelings import Labels, number_classes
from bench.tasks.linear import classify

log = logging.getLogger(__name__)

FOLDS = 5
"""Folds of the cross-validation where there is one file."""


@dataclass(frozen=True, kw_only=True)
class Classification(Task):
    """Accuracy of a logistic regression on frozen embeddings.

    Attributes:
        train: Data set of the training texts; "" to cross-validate on the test texts.
        text: Column of the texts.
        label: Column of the classes, words or whole numbers.
        grouped: Cross-validate with copies of a text in the same fold, so that no probe is tested
            on a text that it was trained on.
    """

    train: str = ""
    text: str = "text"
    label: str = "label"
    grouped: bool = True
    family: ClassVar[str] = "classification"
    metric: ClassVar[str] = "accuracy"

    @property
    def version(self) -> int:
        """Raised as of every task; 1 only where copies of a text may be in several folds."""
        return 2 if self.train or self.grouped else 1

    @property
    def readout(self) -> str:
        """Which vectors are read, and how they are divided."""
        divided = "" if self.train else f", {FOLDS}-fold cross-validation"
        return super().readout + divided

    def items(self, *, seed: int) -> list[Item]:
        """Return the test texts, then the training texts."""
        texts = chain(*(texts for texts, _ in self._sets()))
        return [Item(text, self.instruction) for text in texts]

    def score(self, vectors: Embeddings, *, seed: int) -> Scores:
        """Return ``accuracy`` and ``f1``, macro-averaged; with cross-validation a repeat is a fold.

        The examples of accuracy are 1 for a right answer, divided by how large the fold is compared
        with the mean fold: so their mean is that of the folds, which may differ in size by one.
        """
        from sklearn.metrics import f1_score

        sets = self._sets()
        parts = split_vectors(vectors, [len(texts) for texts, _ in sets])
        texts, labels = sets[0]
        found = np.empty_like(labels)
        weights = np.empty(len(labels))
        tested = [np.arange(len(labels))] if self.train else self._folds(texts, labels, seed)
        if self.train:
            self._warn(sets)
        for rows in tested:
            others = np.setdiff1d(np.arange(len(labels)), rows)
            x, y = (parts[1], sets[1][1]) if self.train else (parts[0][others], labels[others])
            found[rows] = classify(x, y, parts[0][rows])
            weights[rows] = len(labels) / len(tested) / len(rows)
        right = found == labels
        f1 = [f1_score(labels[rows], found[rows], average="macro") for rows in tested]
        return {
            "accuracy": Score(
                tuple(float(right[rows].mean()) for rows in tested),
                (right * weights).astype(np.float32),
                ids=example_ids(texts),
            ),
            "f1": Score(tuple(map(float, f1))),
        }

    def _folds(self, texts: list[str], labels: Labels, seed: int) -> list[NDArray[np.int64]]:
        """Return the rows of each fold: every class is spread evenly over the folds."""
        first = np.arange(len(texts))  # the row of each text's first copy
        if self.grouped:
            rows: dict[str, int] = {}
            first = np.array([rows.setdefault(text, row) for row, text in enumerate(texts)])
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(labels))
        order = order[np.argsort(labels[order], kind="stable")]
        dealt = order[first[order] == order]
        return [np.flatnonzero(np.isin(first, dealt[fold::FOLDS])) for fold in range(FOLDS)]

    def _warn(self, sets: list[tuple[list[str], Labels]]) -> None:
        """Warn of test texts that are in the training file, and of those whose class is not."""
        (texts, labels), (trained, known) = sets
        seen = set(trained)
        counts = {
            "are in the training file, too, which raises the score: drop them from one of the "
            "files": sum(text in seen for text in texts),
            "have a class that the training file lacks, so that no answer is right: name classes "
            "alike": int(np.isin(labels, known, invert=True).sum()),
        }
        for what, count in counts.items():
            if count:
                log.warning("%s: %d of %d test texts %s", self.name, count, len(texts), what)

    def _sets(self) -> list[tuple[list[str], Labels]]:
        """Return texts and classes of the test rows, then of the training rows if there are."""
        columns = {self.text: TEXT, self.label: LABEL}
        rows = self.all_rows(columns)
        tested = rows.take(sample(len(rows), self.limit))
        parts = [tested]
        if self.train:
            parts.append(load(self.train, "train", config=self.config, columns=columns))
        labels = [part[self.label] for part in parts]
        check_classes(labels[-1], self.train or self.data)
        different = len(set(tested[self.text]))
        if different < 2 * FOLDS and not self.train:
            raise DataError(
                f"{self.data}: expected at least {2 * FOLDS} different texts for {FOLDS} folds, "
                f"got {different}; raise the limit, or give a file of training texts"
            )
        numbers = number_classes(*labels)
        if not np.isin(numbers[0], numbers[-1]).any():
            raise DataError(
                f"{self.name}: expected classes that are in both files, got "
                f"{labels[0][0]} in {self.data} and {labels[1][0]} in {self.train}; "
                "name them alike"
            )
        return [(part[self.text], each) for part, each in zip(parts, numbers, strict=True)]


TASKS = (
    Classification(
        "faq-categories",
        data="pypi/zaragoza-construction-faq",
        split="train",
        text="question",
        label="category",
        grouped=False,  # six questions are there twice; the shipped trainings were scored so
        instruction="What is the question about?",
        about="503 questions about building, 39 categories; five-fold cross-validation",
    ),
)
"""The classifications that belong to no other family, to be asked for by name."""
