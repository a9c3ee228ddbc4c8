"""Triplets: which of two texts an anchor is nearer to depends on what the instruction asks for.

Source: IntentEmotion (InBedder, section 5.1): requests to a bank, with triplets about what the customer needs and about how the
customer feels; what is the positive for one is the negative for the other.
A row of ``BrandonZYW/IntentEmotion``: ``anchor``, ``positive``, ``negative``, each a request.
Run: ``bench run --model inbedder,backbone-mean --task intent-emotion``.
Protocol: the share of triplets whose anchor is nearer to the positive by cosine, for both sets under both instructions; their
harmonic mean under the right ones is what the paper reports. An encoder that ignores instructions has shares that add to 1.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bench.columns import TEXT
from bench.data import load
from bench.encoder import Embeddings, Encoder, Item, gather, stream
from bench.task import Score, sample
from bench.tasks.awareness import Labeling, awareness_means
from bench.tasks.similarity import unit

_SIDES = "anchor", "positive", "negative"


@dataclass(frozen=True)
class Triplets:
    """Success rates on two sets of triplets, each under its own and under the other instruction.

    Attributes:
        name: Name of the task.
        data: Id of the data set; each labeling is a configuration.
        labelings: The two, with their instructions.
        split: Split of the data set.
        limit: At most this many triplets of each set.
        about: One line for lists.
    """

    name: str
    data: str
    labelings: tuple[Labeling, Labeling]
    split: str = "test"
    limit: int | None = None
    about: str = field(default="", compare=False)
    family: ClassVar[str] = "instruction"
    metric: ClassVar[str] = "harmonic_mean"
    readout: ClassVar[str] = "embedding"
    version: ClassVar[int] = 1
    needs: ClassVar[type[Encoder]] = Encoder  # type: ignore[type-abstract]

    def items(self, *, seed: int) -> Iterable[Item]:  # noqa: ARG002 - the triplets do not depend on it
        """Return all sides of all triplets, under both instructions."""
        return [
            item
            for texts in self._sets()
            for labeling in self.labelings
            for item in _items(texts, labeling)
        ]

    def evaluate(self, encoder: Encoder, *, seed: int) -> Mapping[str, Score]:  # noqa: ARG002 - nothing is random
        """Return ``harmonic_mean``, ``gap`` and the four rates, with what each triplet contributes as examples."""
        items = list(self.items(seed=0))
        vectors = iter(np.split(gather(stream(encoder, items), len(items)), self._ends()))
        first, first_wrong, second_wrong, second = (_nearer(next(vectors)) for _ in range(4))
        a, b = (labeling.name for labeling in self.labelings)
        found = {a: first, b: second, f"{a} under {b}": first_wrong, f"{b} under {a}": second_wrong}
        rates = {
            name: Score((float(right.mean()),), right.astype(np.float32))
            for name, right in found.items()
        }
        return {**_overall(first, first_wrong, second_wrong, second), **rates}

    def _sets(self) -> list[list[str]]:
        """Return for each labeling its anchors, then its positives, then its negatives."""
        found = []
        for labeling in self.labelings:
            rows = load(
                self.data, self.split, config=labeling.name, columns=dict.fromkeys(_SIDES, TEXT)
            )
            rows = rows.take(sample(len(rows), self.limit))
            found.append([text for side in _SIDES for text in rows[side]])
        return found

    def _ends(self) -> NDArray[np.int64]:
        return np.cumsum([len(texts) for texts in self._sets() for _ in self.labelings])[:-1]


def _items(texts: Iterable[str], labeling: Labeling) -> list[Item]:
    return [Item(text, labeling.instruction) for text in texts]


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
    """Return harmonic mean and gap; their examples are the score plus the influence of the triplets of one number."""
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
        "BrandonZYW/IntentEmotion",
        (
            Labeling("intent", "What does the customer need?"),
            Labeling("emotion", "How does the customer feel?"),
        ),
        about="2 x 6,160 triplets of requests to a bank: what the customer needs against how the customer feels",
    ),
)
"""The triplet tests, to be asked for by name."""
