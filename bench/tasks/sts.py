"""STS: does the similarity of two vectors rank sentence pairs as people do?

Source: SemEval STS 2012 to 2016, STS benchmark, SICK-R.
A row of ``mteb/stsbenchmark-sts``: ``sentence1`` "A girl is styling her hair.", ``sentence2`` "A
girl is brushing …", ``score`` 2.5.
Run: ``bench run --model all --task stsb``.
Protocol: Spearman of the cosine with the gold score over all pairs of the split at once, as mteb's
``cosine_spearman``; beside it the best Spearman of four similarities, chosen on the test pairs
themselves, which is what DINO's repository reports.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from bench.data import Rows
from bench.data.columns import NUMBER, TEXT
from bench.encoder import Embeddings, Item
from bench.errors import DataError, EncodingError
from bench.task import Score, Scores, Task, example_ids
from bench.tasks.similarity import DECIMALS, cosine


@dataclass(frozen=True, kw_only=True)
class STS(Task):
    """Spearman correlation of embedding similarity with gold similarity.

    Attributes:
        columns: Columns of the first sentence, the second sentence and the gold score.
        instructions: Column with an instruction for each pair; "" for one instruction for all.
    """

    columns: tuple[str, str, str] = ("sentence1", "sentence2", "score")
    instructions: str = ""
    family: ClassVar[str] = "sts"
    metric: ClassVar[str] = "cosine_spearman"

    def items(self, *, seed: int) -> list[Item]:
        """Return both sides of every pair."""
        rows = self._pairs()
        same = [self.instruction] * len(rows)
        instructions = rows[self.instructions] if self.instructions else same
        items: list[Item] = []
        for column in self.columns[:2]:
            items += map(Item, rows[column], instructions)
        return items

    def score(self, vectors: Embeddings, *, seed: int) -> Scores:
        """Return ``cosine_spearman``, with the cosines as examples, and ``max_spearman``."""
        pairs = self._pairs()
        left, right, scores = (pairs[column] for column in self.columns)
        gold, ids = np.asarray(scores, np.float64), example_ids(left, right)
        measures = similarities(*np.split(vectors, 2))
        ranked = {
            name: spearman(gold, values) for name, values in measures.items() if np.ptp(values) > 0
        }
        cosines = measures["cosine"].astype(np.float32)
        if "cosine" not in ranked:
            raise EncodingError(
                f"{self.name}: all {len(gold)} pairs have the cosine {cosines[0]:g}, "
                "which ranks nothing: are all vectors the same?"
            )
        return {
            "cosine_spearman": Score((ranked["cosine"],), cosines, gold.astype(np.float32), ids),
            "max_spearman": Score((max(ranked.values()),)),
        }

    def _pairs(self) -> Rows:
        *texts, gold = self.columns
        texts += [self.instructions] if self.instructions else []
        rows = self.rows({**dict.fromkeys(texts, TEXT), gold: NUMBER})
        if len(set(rows[gold])) < 2:
            raise DataError(
                f"{self.name} needs scores that differ, since it ranks pairs by them, got one "
                f"score in {len(rows)} pairs of {rows.source}, column {gold!r}; raise the limit, "
                "or check the data"
            )
        return rows


def similarities(left: Embeddings, right: Embeddings) -> dict[str, NDArray[np.float64]]:
    """Return four similarities of the rows of two sets of vectors, float64 (n,) each.

    They are rounded relative to the largest.
    """
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
        data="mteb/stsbenchmark-sts",
        about="STS benchmark, 1,379 test pairs; mteb's STSBenchmark with DINO's best of four",
    ),
    STS("sts12", data="mteb/sts12-sts", about="SemEval 2012, 3,108 pairs"),
    STS("sts13", data="mteb/sts13-sts", about="SemEval 2013 without its SMT part, 1,500 pairs"),
    STS("sts14", data="mteb/sts14-sts", about="SemEval 2014, 3,750 pairs"),
    STS("sts15", data="mteb/sts15-sts", about="SemEval 2015, 3,000 pairs"),
    STS("sts16", data="mteb/sts16-sts", about="SemEval 2016, 1,186 pairs"),
    STS("sickr", data="mteb/sickr-sts", about="SICK-R, all 9,927 pairs as in mteb"),
    STS(
        "sickr-test",
        data="senteval/sick-r",
        about="SICK-R, the 4,927 test pairs that SentEval has, as papers report it",
    ),
)
"""The STS tasks, to be asked for by name."""
