"""Instruction robustness: is a wish understood in any words, and is it the wish that counts?

Source: InBedder, section 5.3: ten correct, ten implicit and ten incorrect instructions for each of six clusterings. Sets and
wordings here are our own.
A row of ``clinc/clinc_oos/plus``: ``text`` "how would you say fly in italian", ``intent`` translate.
Run: ``bench run --model inbedder,backbone-mean --task clinc-intent-robustness``.
Protocol: V-measure of k-means on vectors of length 1, k the number of classes, averaged over five starts, under each wording.
Reported are the means of each group, the difference between the means of correct and incorrect, and the paper's two deltas:
the worst correct (or implicit) wording minus the best incorrect one.
Repeats are the wordings, the same for every encoder, so that two encoders are paired by wording.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import ClassVar

import numpy as np

from bench.encoder import Encoder, Item, gather, stream
from bench.task import Score
from bench.tasks.clustering import v_measures
from bench.tasks.labelings import Labelled, ag_news, clinc_fifth, drawn, trec
from bench.tasks.wordings import DOMAIN, INTENT, NEWS_TOPIC, QUESTION_TYPE, Wordings


@dataclass(frozen=True)
class Robustness:
    """V-measure under correct, implicit and incorrect wordings of an instruction.

    Attributes:
        name: Name of the task.
        read: Returns the texts with their labelings.
        labeling: The one that the wordings ask for.
        wordings: The instructions.
        size: Number of texts, a fixed draw.
        starts: Number of seeds for k-means under each wording.
        limit: At most this many texts.
        about: One line for lists.
    """

    name: str
    read: Callable[[], Labelled]
    labeling: str
    wordings: Wordings
    size: int = 450
    starts: int = 5
    limit: int | None = None
    about: str = field(default="", compare=False)
    family: ClassVar[str] = "robustness"
    metric: ClassVar[str] = "correct"
    readout: ClassVar[str] = "embedding"
    version: ClassVar[int] = 1
    needs: ClassVar[type[Encoder]] = Encoder  # type: ignore[type-abstract]

    def items(self, *, seed: int) -> Iterable[Item]:  # noqa: ARG002 - the texts do not depend on it
        """Return every text under every wording."""
        texts = self._texts().texts
        return [
            Item(text, words)
            for kind in fields(Wordings)
            for words in getattr(self.wordings, kind.name)
            for text in texts
        ]

    def evaluate(self, encoder: Encoder, *, seed: int) -> Mapping[str, Score]:
        """Return the three groups with a repeat for each wording, the difference of their means, and both deltas."""
        found = self._texts()
        labels = found.labels[self.labeling]
        scores = {}
        for kind in fields(Wordings):
            measures = []
            for words in getattr(self.wordings, kind.name):
                vectors = gather(
                    stream(encoder, [Item(text, words) for text in found.texts]), len(labels)
                )
                measures.append(float(np.mean(v_measures(vectors, labels, self.starts, seed=seed))))
            scores[kind.name] = Score(tuple(measures))
        best = max(scores["incorrect"].repeats)
        deltas = {
            "correct_minus_incorrect": scores["correct"].mean - scores["incorrect"].mean,
            "delta_ci": min(scores["correct"].repeats) - best,
            "delta_ii": min(scores["implicit"].repeats) - best,
        }
        return {**scores, **{name: Score((value,)) for name, value in deltas.items()}}

    def _texts(self) -> Labelled:
        return drawn(self.read(), self.size if self.limit is None else min(self.size, self.limit))


TASKS = (
    Robustness(
        "clinc-intent-robustness",
        clinc_fifth,
        "intent",
        INTENT,
        about="450 requests of CLINC150 with 30 intents, asked for in 30 wordings",
    ),
    Robustness(
        "clinc-domain-robustness",
        clinc_fifth,
        "domain",
        DOMAIN,
        about="450 requests of CLINC150 from 10 domains, asked for in 30 wordings",
    ),
    Robustness(
        "trec-robustness",
        trec,
        "coarse",
        QUESTION_TYPE,
        about="450 questions of TREC with 6 general types of answers, asked for in 30 wordings",
    ),
    Robustness(
        "ag-news-robustness",
        ag_news,
        "topic",
        NEWS_TOPIC,
        about="450 news items of AG News on 4 topics, asked for in 30 wordings",
    ),
)
"""The robustness tests, to be asked for by name."""
