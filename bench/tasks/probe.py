"""Linear probes: how well does a linear classifier on a few labelled embeddings predict classes?

Source: the probes of sentence encoders (SentEval, mteb's classification), with as few texts a class
as few-shot papers take.
A row of ``CogComp/trec``: ``text`` "How far is it from Denver to Aspen ?", ``coarse_label`` 5 (a
number).
Run: ``bench run --model llm2comp,backbone-mean --task trec-probe,clinc-probe --data DIR``.
Protocol: accuracy of a logistic regression on frozen embeddings of 16 texts a class, five draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bench.data import load
from bench.data.columns import CLASS_NUMBER, TEXT, Kind, check_classes
from bench.encoder import Embeddings, Item
from bench.errors import DataError
from bench.task import Score, Scores, Task, example_ids, sample, split_vectors
from bench.tasks.linear import classify
from bench.tasks.partition import Half, half_rows

Labelled = tuple[list[str], NDArray[np.int64]]
"""Texts and their classes (n,)."""


@dataclass(frozen=True)
class LabelledTexts:
    """Where texts with labels are read from.

    Attributes:
        data: Id of the data set.
        split: Its split.
        config: Its configuration.
        text: Column of the texts.
        label: Column of the classes, whole numbers.
        half: "test" or "train" for one half of a set that comes undivided; "" for all of it.
    """

    data: str
    split: str = "test"
    config: str = ""
    text: str = "text"
    label: str = "label"
    half: Half = ""

    def load(self, limit: int | None = None, *, kind: Kind = CLASS_NUMBER) -> Labelled:
        """Return the texts and their labels, which are of a kind; at most ``limit``, a fixed draw.

        Raises:
            DataError: A row has another label, or no text.
        """
        columns = {self.text: TEXT, self.label: kind}
        rows = load(self.data, self.split, config=self.config, columns=columns)
        rows = rows.take(half_rows(rows[self.text], self.half))
        rows = rows.take(sample(len(rows), limit))
        return list(rows[self.text]), np.asarray(rows[self.label], np.int64)


@dataclass(frozen=True, kw_only=True)
class Probe(Task):
    """Accuracy of a logistic regression on frozen embeddings of a few labelled texts.

    Attributes:
        test: The texts to classify.
        train: The training sets, each used whole as one repeat; or a single one to draw from.
        family: What the task is reported under.
        shots: Texts per class in a draw; None where training sets are used whole.
        repeats: Number of draws.
    """

    test: LabelledTexts
    train: tuple[LabelledTexts, ...]
    family: str = "classification"
    shots: int | None = 16
    repeats: int = 5
    metric: ClassVar[str] = "accuracy"

    def items(self, *, seed: int) -> list[Item]:
        """Return the test texts and those of every training draw."""
        texts = chain(*(texts for texts, _ in self._sets(seed)))
        return [Item(text, self.instruction) for text in texts]

    def score(self, vectors: Embeddings, *, seed: int) -> Scores:
        """Return ``accuracy`` with a repeat for each draw.

        The examples are the fraction of draws that are right.
        """
        sets = self._sets(seed)
        test, *train = split_vectors(vectors, [len(texts) for texts, _ in sets])
        labels, *draws = (classes for _, classes in sets)
        ids = example_ids(sets[0][0])
        right = [classify(x, y, test) == labels for x, y in zip(train, draws, strict=True)]
        means = tuple(float(each.mean()) for each in right)
        return {"accuracy": Score(means, np.mean(right, axis=0, dtype=np.float32), ids=ids)}

    def _sets(self, seed: int) -> list[Labelled]:
        """Return the test set, then each draw."""
        test, draws = self.test.load(self.limit), self._draws(seed)
        if not any(np.isin(test[1], known).any() for _, known in draws):
            raise DataError(
                f"{self.name}: expected classes that are in both sets, got "
                f"{np.unique(test[1]).tolist()[:5]} in {self.test.data} and "
                f"{np.unique(draws[0][1]).tolist()[:5]} in {self.train[0].data}; number them alike"
            )
        return [test, *draws]

    def _draws(self, seed: int) -> list[Labelled]:
        sets = [source.load() for source in self.train]
        for source, (_, labels) in zip(self.train, sets, strict=True):
            check_classes(labels.tolist(), f"{source.data} {source.split}")
        if self.shots is None:
            return sets
        texts, labels = sets[0]
        rng = np.random.default_rng(seed)
        classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        fewest = min(map(len, classes), default=0)
        if fewest < self.shots:
            raise DataError(
                f"{self.name} needs {self.shots} training texts a class, got {fewest} "
                f"in {self.train[0].data}"
            )
        draws = []
        for _ in range(self.repeats):
            rows = np.concatenate([rng.choice(c, self.shots, replace=False) for c in classes])
            draws.append(([texts[i] for i in rows], labels[rows]))
        return draws


def accuracy(right: NDArray[np.bool_], texts: Sequence[str]) -> Score:
    """Return the fraction of right answers as a score of one repeat, the answers its examples."""
    return Score((float(right.mean()),), right.astype(np.float32), ids=example_ids(texts))


def _probe(name: str, instruction: str, about: str, **where: Any) -> Probe:  # noqa: ANN401
    return Probe(
        name,
        test=LabelledTexts(**where),
        train=(LabelledTexts(split="train", **where),),
        instruction=instruction,
        about=f"{about}; probe on 16 texts a class",
    )


TASKS = (
    _probe(
        "trec-probe",
        "What general kind of answer is expected?",
        "TREC, 500 questions, 6 types of answers",
        data="CogComp/trec",
        label="coarse_label",
    ),
    _probe(
        "clinc-probe",
        "What does the user want to do?",
        "CLINC150, 5,500 requests, 150 intents and out of scope",
        data="clinc/clinc_oos",
        config="plus",
        label="intent",
    ),
)
"""The probes that belong to no other family, to be asked for by name."""
