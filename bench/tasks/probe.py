"""Linear probes: how well do frozen embeddings of a few labelled texts tell the classes of others?

Source: the probes of sentence encoders (SentEval, mteb's classification), with as few texts a class as few-shot papers take.
A row of ``CogComp/trec``: ``text`` "How far is it from Denver to Aspen ?", ``coarse_label`` 5 (a number).
Run: ``bench run --model llm2comp,backbone-mean --task trec-probe,clinc-probe --data DIR``.
Protocol: accuracy of a logistic regression on frozen embeddings of 16 texts a class, five draws.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from bench.columns import CLASS_NUMBER, TEXT, Kind, check_classes
from bench.data import Rows, load
from bench.encoder import Encoder, Item, gather, stream
from bench.errors import DataError
from bench.task import Score, embedding_for, sample
from bench.tasks.linear import predicted
from bench.tasks.partition import Half, members


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

    def load(
        self, limit: int | None = None, *, kind: Kind = CLASS_NUMBER
    ) -> tuple[list[str], NDArray[np.int64]]:
        """Return the texts and their labels (n,), which are of a kind; at most ``limit``, a fixed draw.

        Raises:
            DataError: A row has another label, or no text.
        """
        columns = {self.text: TEXT, self.label: kind}
        rows: Rows = load(self.data, self.split, config=self.config, columns=columns)
        rows = rows.take(members(rows[self.text], self.half))
        rows = rows.take(sample(len(rows), limit))
        return list(rows[self.text]), np.asarray(rows[self.label], np.int64)


@dataclass(frozen=True)
class Probe:
    """Accuracy of a logistic regression on frozen embeddings of a few labelled texts.

    Attributes:
        name: Name of the task.
        test: The texts to classify.
        train: The training sets, each used whole as one repeat; or a single one to draw from.
        family: What the task is reported under.
        instruction: What the embeddings are for.
        shots: Texts per class in a draw; None where training sets are used whole.
        repeats: Number of draws.
        limit: At most this many test texts.
        about: One line for lists.
    """

    name: str
    test: LabelledTexts
    train: tuple[LabelledTexts, ...]
    family: str = "classification"
    instruction: str = ""
    shots: int | None = 16
    repeats: int = 5
    limit: int | None = None
    about: str = field(default="", compare=False)
    metric: ClassVar[str] = "accuracy"
    version: ClassVar[int] = 1
    needs: ClassVar[type[Encoder]] = Encoder  # type: ignore[type-abstract]

    @property
    def readout(self) -> str:
        """The embedding, with its instruction."""
        return embedding_for(self.instruction)

    def items(self, *, seed: int) -> Iterable[Item]:
        """Return the test texts and those of every training draw."""
        test, *draws = self._parts(seed)
        return [Item(text, self.instruction) for texts, _ in (test, *draws) for text in texts]

    def evaluate(self, encoder: Encoder, *, seed: int) -> Mapping[str, Score]:
        """Return ``accuracy`` with a repeat for each draw; the examples are the share of draws that had it right."""
        (texts, labels), *draws = self._parts(seed)
        items = [
            Item(text, self.instruction)
            for part in (texts, *(drawn for drawn, _ in draws))
            for text in part
        ]
        vectors = gather(stream(encoder, items), len(items))
        ends = np.cumsum([len(texts), *(len(drawn) for drawn, _ in draws)])
        test, *train = np.split(vectors, ends[:-1])
        right = [predicted(x, y, test) == labels for x, (_, y) in zip(train, draws, strict=True)]
        return {
            "accuracy": Score(
                tuple(float(r.mean()) for r in right), np.mean(right, axis=0, dtype=np.float32)
            )
        }

    def _parts(self, seed: int) -> list[tuple[list[str], NDArray[np.int64]]]:
        """Return texts and labels of the test set, then of each draw."""
        (_, labels), *draws = parts = [self.test.load(self.limit), *self._draws(seed)]
        if not any(np.isin(labels, known).any() for _, known in draws):
            raise DataError(
                f"{self.name}: expected classes that are in both sets, got {np.unique(labels).tolist()[:5]} in {self.test.data} "
                f"and {np.unique(draws[0][1]).tolist()[:5]} in {self.train[0].data}; number them alike"
            )
        return parts

    def _draws(self, seed: int) -> list[tuple[list[str], NDArray[np.int64]]]:
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
                f"{self.name} needs {self.shots} training texts a class, got {fewest} in {self.train[0].data}"
            )
        rows = [
            np.concatenate([rng.choice(c, self.shots, replace=False) for c in classes])
            for _ in range(self.repeats)
        ]
        return [([texts[i] for i in draw], labels[draw]) for draw in rows]


def accuracy(right: NDArray[np.bool_]) -> Score:
    """Return the share of right answers as a score of one repeat, with the answers as its examples."""
    return Score((float(right.mean()),), right.astype(np.float32))


TASKS = (
    Probe(
        "trec-probe",
        LabelledTexts("CogComp/trec", label="coarse_label"),
        (LabelledTexts("CogComp/trec", "train", label="coarse_label"),),
        instruction="What general kind of answer is expected?",
        about="TREC, 500 questions, 6 types of answers; probe on 16 texts a class",
    ),
    Probe(
        "clinc-probe",
        LabelledTexts("clinc/clinc_oos", config="plus", label="intent"),
        (LabelledTexts("clinc/clinc_oos", "train", "plus", label="intent"),),
        instruction="What does the user want to do?",
        about="CLINC150, 5,500 requests, 150 intents and out of scope; probe on 16 texts a class",
    ),
)
"""The probes that belong to no other family, to be asked for by name."""
