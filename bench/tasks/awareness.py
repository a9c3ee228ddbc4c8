"""Instruction awareness: does an embedding show the side of a text that the instruction asks for?

Source: InBedder, section 5.1, and its repository at 3d95d4fa. Sets whose texts carry two labelings,
one instruction each.
A row of ``clinc/clinc_oos/plus``: ``text`` "how would you say fly in italian", ``intent``
translate, ``domain`` travel.
Run: ``bench run --model inbedder,backbone-mean --task clinc-awareness,trec-awareness``.
Protocol: the texts are clustered under either instruction, by k-means on vectors of length 1 with k
the number of classes, and V-measure is taken of either labeling under its own and under the other
instruction. The harmonic mean of the two labelings under their own instructions is what the paper
reports; the gap is what the right instruction adds to the wrong one, 0 for an encoder that ignores
instructions.
Repeats: disjoint folds of the texts, alike in their classes, each clustered on its own and averaged
over several starts of k-means. Starts alone say nothing of other texts, and parts of one clustering
share their clusters; clusterings of disjoint texts are independent given the encoder, so an
interval over them holds for texts like these. It is paired, since a seed gives every encoder the
same folds. Another seed splits the same texts again, so its repeats are not independent.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.encoder import Embeddings, Item
from bench.task import Score, Scores, Task
from bench.tasks.clustering import Algorithm, v_measures
from bench.tasks.labelings import (
    Labelled,
    Labels,
    clinc,
    deal_folds,
    draw_texts,
    faq,
    go_emotions,
    nyt,
    trec,
)
from bench.tasks.sts import STS

_EPSILON = 1e-8  # as in the paper's code: a score of 0 gives a mean of 0


class Labeling(NamedTuple):
    """One way to label the texts, and the instruction that asks for it."""

    name: str
    instruction: str


@dataclass(frozen=True, kw_only=True)
class Awareness(Task):
    """V-measure of two labelings of the same texts, each under its own and the other instruction.

    Attributes:
        read: Returns the texts with both labelings.
        labelings: The two, with their instructions.
        folds: Number of disjoint folds of the texts, one repeat each; with a single one every
            start is a repeat.
        size: Texts of a fold.
        whole: Labeling whose classes are each kept in one fold, which is then clustered into few
            classes with many texts instead of many with few.
        starts: Number of seeds for k-means on each fold.
        algorithm: As of a clustering.
    """

    read: Callable[[], Labelled]
    labelings: tuple[Labeling, Labeling]
    folds: int = 5
    size: int = 450
    whole: str = ""
    starts: int = 5
    algorithm: Algorithm = "kmeans"
    uses_instruction: ClassVar[bool] = False
    family: ClassVar[str] = "instruction"
    metric: ClassVar[str] = "harmonic_mean"
    version: ClassVar[int] = 2

    def items(self, *, seed: int) -> list[Item]:
        """Return every text under both instructions."""
        texts = self._texts().texts
        asked = product(self.labelings, texts)
        return [Item(text, labeling.instruction) for labeling, text in asked]

    def score(self, vectors: Embeddings, *, seed: int) -> Scores:
        """Return ``harmonic_mean``, ``gap``, and each labeling's score under each instruction."""
        texts = self._texts()
        folds = deal_folds(texts, self.folds, seed=seed, whole=self.whole)
        names = [labeling.name for labeling in self.labelings]
        measures = []
        for name in names:
            for part in np.split(vectors, 2):  # one an instruction
                labels = texts.labels[name]
                pairs = [(part[rows], labels[rows]) for rows in folds]
                measures.append(self._repeats(pairs, seed))
        return awareness_scores(names, np.array(measures).reshape(2, 2, -1))

    def _texts(self) -> Labelled:
        names = [labeling.name for labeling in self.labelings]
        size = self.folds * self.size
        return draw_texts(
            self.read(), size if self.limit is None else min(size, self.limit), by=names
        )

    def _repeats(self, folds: Sequence[tuple[Embeddings, Labels]], seed: int) -> NDArray[Any]:
        measures = [
            v_measures(vectors, labels, self.starts, seed=seed, algorithm=self.algorithm)
            for vectors, labels in folds
        ]
        return np.mean(measures, axis=1) if self.folds > 1 else np.array(measures[0])


def awareness_scores(names: Sequence[str], measures: NDArray[Any]) -> dict[str, Score]:
    """Return the scores of an awareness test.

    Args:
        names: Names of the two labelings.
        measures: (2, 2, repeats), of each labeling under the instruction of each.
    """
    means, gaps = awareness_means(measures)
    (first, first_wrong), (second_wrong, second) = measures
    a, b = names
    found = {
        "harmonic_mean": means,
        "gap": gaps,
        a: first,
        b: second,
        f"{a} under {b}": first_wrong,
        f"{b} under {a}": second_wrong,
    }
    return {name: Score(tuple(values.tolist())) for name, values in found.items()}


def awareness_means(measures: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return harmonic means of two scores under their own instructions, and their gaps.

    A gap is the mean difference of the right instruction to the wrong one.

    Args:
        measures: (2, 2, ...), of each labeling under the instruction of each.

    Returns:
        Two arrays (...).
    """
    (first, first_wrong), (second_wrong, second) = measures
    means = 2 / (1 / (first + _EPSILON) + 1 / (second + _EPSILON))
    gaps = ((first - first_wrong) + (second - second_wrong)) / 2
    return np.minimum(means, 1.0), gaps  # the epsilon lifts 1 above 1


@dataclass(frozen=True, kw_only=True)
class InstructSTS(STS):
    """Spearman correlation where every pair comes twice: an instruction makes one copy alike.

    An encoder that ignores instructions gives both copies the same similarity, and so scores 0.
    """

    uses_instruction: ClassVar[bool] = False  # each pair has its own
    family: ClassVar[str] = "instruction"


TASKS: tuple[Task, ...] = (
    Awareness(
        "faq-awareness",
        read=faq,
        labelings=(
            Labeling("category", "What is the question about?"),
            Labeling("language", "Which language is the question written in?"),
        ),
        size=120,
        whole="id",
        about="596 packaged questions on building in two languages: 14 categories against language",
    ),
    Awareness(
        "clinc-awareness",
        read=clinc,
        labelings=(
            Labeling("intent", "What does the user want to do?"),
            Labeling("domain", "What area of life is the request about?"),
        ),
        whole="intent",
        about="2,250 requests of CLINC150: intents against domains, 30 of 10 in each of five folds",
    ),
    Awareness(
        "trec-awareness",
        read=trec,
        labelings=(
            Labeling("coarse", "What general kind of answer is expected?"),
            Labeling("fine", "What specific type of thing is asked for?"),
        ),
        about="2,250 questions of TREC: 6 general against 50 fine types of answers",
    ),
    Awareness(
        "go-emotions-awareness",
        read=go_emotions,
        labelings=(
            Labeling("emotion", "Which emotion does the writer feel?"),
            Labeling("sentiment", "Is the feeling positive or negative?"),
        ),
        about="2,250 comments of GoEmotions: 27 emotions against positive, negative and ambiguous",
    ),
    Awareness(
        "nyt-awareness",
        read=nyt,
        labelings=(
            Labeling("topic", "What is the topic of news?"),
            Labeling("location", "Where did the news happen?"),
        ),
        folds=1,
        size=4320,
        starts=10,
        algorithm="minibatch",
        about="New York Times articles: 9 topics against 10 places; clustered whole, as published",
    ),
    InstructSTS(
        "instruct-stsb",
        data="BrandonZYW/InstructSTSB",
        instructions="instruction",
        about="STS-B pairs twice, under an instruction that makes them alike and one that does not",
    ),
)
"""The awareness tests, to be asked for by name."""
