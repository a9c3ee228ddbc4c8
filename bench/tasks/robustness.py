"""Instruction robustness: are paraphrased instructions equivalent, and wrong ones not?

Source: InBedder, section 5.3: ten correct, ten implicit and ten incorrect instructions for each of
six clusterings. Sets and wordings here are our own.
A row of ``clinc/clinc_oos/plus``: ``text`` "how would you say fly in italian", ``intent``
translate.
Run: ``bench run --model inbedder,backbone-mean --task clinc-intent-robustness``.
Protocol: V-measure of k-means on vectors of length 1, k the number of classes, averaged over five
starts, under each wording. Reported are the means of each group, the difference between the means
of correct and incorrect, and the paper's two deltas: the worst correct (or implicit) wording minus
the best incorrect one.
Repeats are the wordings, the same for every encoder, so that two encoders are paired by wording.
"""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import product
from typing import ClassVar

import numpy as np

from bench.encoder import Embeddings, Item
from bench.task import Score, Scores, Task
from bench.tasks.clustering import v_measures
from bench.tasks.labelings import Labelled, ag_news, clinc_fifth, draw_texts, trec

Wordings = Mapping[str, Sequence[str]]
"""Instructions by kind: "correct", and for robustness also "implicit" and "incorrect"."""

WORDINGS: Mapping[str, Wordings] = tomllib.loads(
    files("bench.tasks").joinpath("wordings.toml").read_text(encoding="utf-8")
)
"""The instructions of our tasks, by what they ask for."""


@dataclass(frozen=True, kw_only=True)
class Robustness(Task):
    """V-measure under correct, implicit and incorrect wordings of an instruction.

    Attributes:
        read: Returns the texts with their labelings.
        labeling: The one that the wordings ask for.
        wordings: The instructions.
        size: Number of texts, a fixed draw.
        starts: Number of seeds for k-means under each wording.
    """

    read: Callable[[], Labelled]
    labeling: str
    wordings: Wordings = field(hash=False)
    size: int = 450
    starts: int = 5
    uses_instruction: ClassVar[bool] = False
    family: ClassVar[str] = "robustness"
    metric: ClassVar[str] = "correct"

    def items(self, *, seed: int) -> list[Item]:
        """Return every text under every wording."""
        texts = self._texts().texts
        return [Item(text, words) for (_, words), text in product(self._wordings(), texts)]

    def score(self, vectors: Embeddings, *, seed: int) -> Scores:
        """Return each group with a repeat a wording, their difference, and both deltas."""
        labels = self._texts().labels[self.labeling]
        wordings = self._wordings()
        groups: dict[str, list[float]] = {}
        for (kind, _), part in zip(wordings, np.split(vectors, len(wordings)), strict=True):
            measures = v_measures(part, labels, self.starts, seed=seed)
            groups.setdefault(kind, []).append(float(np.mean(measures)))
        scores = {kind: Score(tuple(measures)) for kind, measures in groups.items()}
        best = max(scores["incorrect"].repeats)
        deltas = {
            "correct_minus_incorrect": scores["correct"].mean - scores["incorrect"].mean,
            "delta_ci": min(scores["correct"].repeats) - best,
            "delta_ii": min(scores["implicit"].repeats) - best,
        }
        return {**scores, **{name: Score((value,)) for name, value in deltas.items()}}

    def _texts(self) -> Labelled:
        return draw_texts(
            self.read(), self.size if self.limit is None else min(self.size, self.limit)
        )

    def _wordings(self) -> list[tuple[str, str]]:
        """Return the group and the words of each instruction."""
        found = []
        for kind, wordings in self.wordings.items():
            found += [(kind, words) for words in wordings]
        return found


TASKS = (
    Robustness(
        "clinc-intent-robustness",
        read=clinc_fifth,
        labeling="intent",
        wordings=WORDINGS["intent"],
        about="450 requests of CLINC150 with 30 intents, asked for in 30 wordings",
    ),
    Robustness(
        "clinc-domain-robustness",
        read=clinc_fifth,
        labeling="domain",
        wordings=WORDINGS["domain"],
        about="450 requests of CLINC150 from 10 domains, asked for in 30 wordings",
    ),
    Robustness(
        "trec-robustness",
        read=trec,
        labeling="coarse",
        wordings=WORDINGS["question_type"],
        about="450 questions of TREC with 6 general types of answers, asked for in 30 wordings",
    ),
    Robustness(
        "ag-news-robustness",
        read=ag_news,
        labeling="topic",
        wordings=WORDINGS["news_topic"],
        about="450 news items of AG News on 4 topics, asked for in 30 wordings",
    ),
)
"""The robustness tests, to be asked for by name."""
