"""Triplets: which of two texts an anchor is nearer to depends on what the instruction asks for.

Source: IntentEmotion (InBedder, section 5.1): requests to a bank, with triplets about what the
customer needs and about how the customer feels; what is the positive for one is the negative for
the other.
A row of ``BrandonZYW/IntentEmotion``: ``anchor``, ``positive``, ``negative``, each a request.
Run: ``bench run --model inbedder,backbone-mean --task intent-emotion``.
Protocol: the share of triplets whose anchor is nearer to the positive by cosine, for both sets
under both instructions; their harmonic mean under the right ones is what the paper reports. An
encoder that ignores instructions has shares that add to 1.
"""

from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bench.data import load
from bench.data.columns import TEXT
from bench.encoder import Embeddings, Item
from bench.task import Score, Scores, Task, sample, split_vectors
from bench.tasks.awareness import Labeling, awareness_means
from bench.tasks.similarity import unit

_SIDES = "anchor", "positive", "negative"


@dataclass(frozen=True, kw_only=True)
class Triplets(Task):
    """Success rates on two sets of triplets, each under its own and under the other instruction.

    Attributes:
        labelings: The two, with their instructions; each name is a configuration of the data set.
    """

    labelings: tuple[Labeling, Labeling]
    uses_instruction: ClassVar[bool] = False
    family: ClassVar[str] = "instruction"
    metric: ClassVar[str] = "harmonic_mean"

    def items(self, *, seed: int) -> list[Item]:
        """Return all sides of all triplets, under both instructions."""
        items = []
        for texts in self._sets():
            for labeling in self.labelings:
                items += [Item(text, labeling.instruction) for text in texts]
        return items

    def score(self, vectors: Embeddings, *, seed: int) -> Scores:
        """Return ``harmonic_mean``, ``gap`` and the four rates, with each triplet as example."""
        first, second = (len(texts) for texts in self._sets())
        parts = split_vectors(vectors, [first, first, second, second])
        right = [_nearer(part) for part in parts]
        a, b = (labeling.name for labeling in self.labelings)
        names = a, f"{a} under {b}", f"{b} under {a}", b
        rates = {
            name: Score((float(each.mean()),), each.astype(np.float32))
            for name, each in zip(names, right, strict=True)
        }
        order = a, b, f"{a} under {b}", f"{b} under {a}"
        return {**_overall(*right), **{name: rates[name] for name in order}}

    def _sets(self) -> list[list[str]]:
        """Return for each labeling its anchors, then its positives, then its negatives."""
        sets = []
        columns = dict.fromkeys(_SIDES, TEXT)
        for labeling in self.labelings:
            rows = load(self.data, self.split, config=labeling.name, columns=columns)
            rows = rows.take(sample(len(rows), self.limit))
            sets.append(list(chain(*(rows[side] for side in _SIDES))))
        return sets


def _nearer(vectors: Embeddings) -> NDArray[np.bool_]:
    """Return for each triplet whether the anchor is nearer to the positive: bool (n,).

    Args:
        vectors: float32 (3 n, dim), anchors, positives and negatives.
    """
    anchor, positive, negative = np.split(unit(vectors.astype(np.float64)), 3)
    return np.asarray(
        np.einsum("nd,nd->n", anchor, positive) > np.einsum("nd,nd->n", anchor, negative)
    )


def _overall(
    first: NDArray[Any], first_wrong: NDArray[Any], second_wrong: NDArray[Any], second: NDArray[Any]
) -> dict[str, Score]:
    """Return harmonic mean and gap.

    Examples are the score plus the influence of the triplets of one row number.
    """
    a, b = first.mean(), second.mean()
    mean, gap = (
        float(v)
        for v in awareness_means(np.array([[a, first_wrong.mean()], [second_wrong.mean(), b]]))
    )
    if len(first) != len(second):
        return {"harmonic_mean": Score((mean,)), "gap": Score((gap,))}
    # The harmonic mean h of a and b changes with a by h^2 / (2 a^2); it is flat where a rate is 0.
    slopes = [mean**2 / (2 * rate**2) if rate else 0.0 for rate in (a, b)]
    means = mean + slopes[0] * (first - a) + slopes[1] * (second - b)
    gaps = ((first * 1.0 - first_wrong) + (second * 1.0 - second_wrong)) / 2
    return {
        "harmonic_mean": Score((mean,), means.astype(np.float32)),
        "gap": Score((gap,), gaps.astype(np.float32)),
    }


TASKS = (
    Triplets(
        "intent-emotion",
        data="BrandonZYW/IntentEmotion",
        labelings=(
            Labeling("intent", "What does the customer need?"),
            Labeling("emotion", "How does the customer feel?"),
        ),
        about="2 x 6,160 triplets of requests to a bank: need against feeling",
    ),
)
"""The triplet tests, to be asked for by name."""
