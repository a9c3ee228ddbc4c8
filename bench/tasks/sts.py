"""STS: does the similarity of two vectors rank sentence pairs as people do?

Source: SemEval STS 2012 to 2016, STS benchmark, SICK-R.
A row of ``mteb/stsbenchmark-sts``: ``sentence1`` "A girl is styling her hair.", ``sentence2`` "A girl is brushing …", ``score`` 2.5.
Run: ``bench run --model all --task stsb``.
Protocol: Spearman of the cosine with the gold score over all pairs of the split at once, as mteb's ``cosine_spearman``;
beside it the best Spearman of four similarities, chosen on the test pairs themselves, which is what DINO's repository reports.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from bench.columns import NUMBER, TEXT
from bench.data import Rows, load
from bench.encoder import Embeddings, Encoder, Item, gather, stream
from bench.errors import DataError, EncodingError
from bench.task import Score, sample
from bench.tasks.similarity import DECIMALS, cosine


@dataclass(frozen=True)
class STS:
    """Spearman correlation of embedding similarity with gold similarity.

    Attributes:
        name: Name of the task.
        data: Id of the data set.
        config: Its configuration.
        split: Its split.
        columns: Columns of the first sentence, the second sentence and the gold score.
        instructions: Column with an instruction for each pair; "" for none.
        limit: At most this many pairs.
        about: One line for lists.
    """

    name: str
    data: str
    config: str = ""
    split: str = "test"
    columns: tuple[str, str, str] = ("sentence1", "sentence2", "score")
    instructions: str = ""
    limit: int | None = None
    about: str = field(default="", compare=False)
    family: ClassVar[str] = "sts"
    metric: ClassVar[str] = "cosine_spearman"
    readout: ClassVar[str] = "embedding"
    version: ClassVar[int] = 1
    needs: ClassVar[type[Encoder]] = Encoder  # type: ignore[type-abstract]

    def items(self, *, seed: int) -> Iterable[Item]:  # noqa: ARG002 - the pairs do not depend on it
        """Return both sides of every pair."""
        return self._items(self._rows())

    def evaluate(self, encoder: Encoder, *, seed: int) -> Mapping[str, Score]:  # noqa: ARG002 - nothing is random
        """Return ``cosine_spearman``, with the cosines as examples, and ``max_spearman``."""
        rows = self._rows()
        gold = np.asarray(rows[self.columns[2]], np.float64)
        vectors = gather(stream(encoder, self._items(rows)), 2 * len(rows))
        alike = similarities(vectors[: len(rows)], vectors[len(rows) :])
        found = {
            name: spearman(gold, values) for name, values in alike.items() if np.ptp(values) > 0
        }
        if "cosine" not in found:
            raise EncodingError(
                f"{self.name}: all {len(rows)} pairs have the cosine {alike['cosine'][0]:g}, which ranks nothing: are all vectors the same?"
            )
        return {
            "cosine_spearman": Score(
                (found["cosine"],), alike["cosine"].astype(np.float32), gold.astype(np.float32)
            ),
            "max_spearman": Score((max(found.values()),)),
        }

    def _rows(self) -> Rows:
        first, second, gold = self.columns
        texts = filter(None, (first, second, self.instructions))
        columns = {**dict.fromkeys(texts, TEXT), gold: NUMBER}
        rows = load(self.data, self.split, config=self.config, columns=columns)
        rows = rows.take(sample(len(rows), self.limit))
        if len(set(rows[gold])) < 2:
            raise DataError(
                f"{self.name} needs scores that differ, since it ranks pairs by them, got one score in {len(rows)} pairs of "
                f"{rows.source}, column {gold!r}; raise the limit, or look at the data"
            )
        return rows

    def _items(self, rows: Rows) -> list[Item]:
        instructions = rows[self.instructions] if self.instructions else [""] * len(rows)
        sides = (rows[column] for column in self.columns[:2])
        return [
            Item(text, instruction)
            for side in sides
            for text, instruction in zip(side, instructions, strict=True)
        ]


def similarities(left: Embeddings, right: Embeddings) -> dict[str, NDArray[np.float64]]:
    """Return four similarities of the rows of two sets of vectors, float64 (n,) each, rounded relative to the largest."""
    a, b = left.astype(np.float64), right.astype(np.float64)
    others = {
        "manhattan": -np.abs(a - b).sum(axis=1),
        "euclidean": -np.linalg.norm(a - b, axis=1),
        "dot": np.einsum("nd,nd->n", a, b),
    }
    scaled = {
        name: (values / (np.abs(values).max(initial=0) or 1)).round(DECIMALS)
        for name, values in others.items()
    }
    return {"cosine": cosine(left, right), **scaled}


def spearman(gold: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    """Return Spearman's rank correlation of two arrays (n,), neither of them constant."""
    from scipy.stats import spearmanr

    return float(spearmanr(gold, values).statistic)


TASKS = (
    STS(
        "stsb",
        "mteb/stsbenchmark-sts",
        about="STS benchmark, 1,379 test pairs; mteb's STSBenchmark with DINO's best-of-four beside it",
    ),
    STS("sts12", "mteb/sts12-sts", about="SemEval 2012, 3,108 pairs"),
    STS("sts13", "mteb/sts13-sts", about="SemEval 2013 without its SMT part, 1,500 pairs"),
    STS("sts14", "mteb/sts14-sts", about="SemEval 2014, 3,750 pairs"),
    STS("sts15", "mteb/sts15-sts", about="SemEval 2015, 3,000 pairs"),
    STS("sts16", "mteb/sts16-sts", about="SemEval 2016, 1,186 pairs"),
    STS(
        "sickr",
        "mteb/sickr-sts",
        about="SICK-R, all 9,927 pairs as in mteb; papers after SentEval report the 4,927 test pairs alone",
    ),
    STS(
        "sickr-test",
        "senteval/sick-r",
        about="SICK-R, the 4,927 test pairs that SentEval has, as papers report it",
    ),
)
"""The STS tasks, to be asked for by name."""
