"""Clustering: do the groups k-means finds among the vectors agree with the classes people gave?

Source: intent, question and topic sets with class labels; InBedder's clusterings (section 5.2) with
its instructions.
A row of ``clinc/clinc_oos/plus``: ``text`` "how would you say fly in italian", ``intent`` 61
(translate).
Run: ``bench run --model inbedder,backbone-mean --task clinc-intent,clinc-domain``.
Protocol: V-measure of k-means on vectors of length 1, k the number of classes, one start with each
of ten seeds; InBedder's sets as its code does it, MiniBatchKMeans with batches of 500 on the
vectors as they are. The other algorithm's score is reported, too. Rows that hold whole lists of
texts and labels are clustered one by one and averaged.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import chain
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from bench.data import Rows
from bench.data.columns import LABEL, TEXT
from bench.encoder import Embeddings, Item
from bench.errors import DataError
from bench.task import Score, Scores, Task, sample, split_vectors
from bench.tasks.groups import DOMAINS, group_names
from bench.tasks.labelings import class_names, number_classes
from bench.tasks.similarity import unit

Algorithm = Literal["kmeans", "minibatch"]
"""k-means on vectors of length 1, or mini-batch k-means on the vectors as they are."""


@dataclass(frozen=True, kw_only=True)
class Clustering(Task):
    """V-measure of k-means clusters against classes.

    Attributes:
        text: Column of the texts, or of lists of texts.
        label: Column of the classes, or of lists of them.
        groups: Coarser classes to cluster by: for each the names of its classes, with spaces
            between; empty for the classes themselves.
        algorithm: The one of the main score.
        repeats: Number of seeds.
    """

    text: str = "text"
    label: str = "label"
    groups: Mapping[str, str] = field(default_factory=dict, hash=False)
    algorithm: Algorithm = "kmeans"
    repeats: int = 10
    family: ClassVar[str] = "clustering"
    metric: ClassVar[str] = "v_measure"
    version: ClassVar[int] = 2

    def items(self, *, seed: int) -> list[Item]:
        """Return the texts of every set."""
        texts = chain(*(texts for texts, _ in self._sets()))
        return [Item(text, self.instruction) for text in texts]

    def score(self, vectors: Embeddings, *, seed: int) -> Scores:
        """Return ``v_measure`` and that of the other algorithm, a repeat for each seed from seed.

        Several sets are averaged seed by seed.
        """
        sets = self._sets()
        parts = split_vectors(vectors, [len(texts) for texts, _ in sets])
        scores = {}
        for algorithm in get_args(Algorithm):
            measures = [
                v_measures(part, labels, self.repeats, seed=seed, algorithm=algorithm)
                for part, (_, labels) in zip(parts, sets, strict=True)
            ]
            name = "" if algorithm == self.algorithm else f"_{algorithm}"
            scores[f"v_measure{name}"] = Score(tuple(np.mean(measures, axis=0).tolist()))
        return dict(sorted(scores.items()))  # the main score first

    def _sets(self) -> list[tuple[list[str], NDArray[np.int64]]]:
        rows = self.all_rows((self.text, self.label), texts=(self.text,))
        nested = isinstance(next(iter(rows[self.text]), ""), list | tuple)
        for column, kind in ((self.text, TEXT), (self.label, LABEL)):
            rows.check(column, kind.lists() if nested else kind)
        texts, labels = rows[self.text], self._classes(rows)
        sets = list(zip(texts, labels, strict=True)) if nested else [(texts, labels)]
        for i, (found, classes) in enumerate(sets, 1):
            if len(found) != len(classes):
                raise DataError(
                    f"{rows.source} row {i}: expected one label a text, got {len(found)} texts "
                    f"and {len(classes)} labels"
                )
        drawn = []
        for found, classes in sets:
            kept = sample(len(found), self.limit)
            numbers = number_classes(classes)[0][kept]
            _check_groups(numbers)
            drawn.append(([found[i] for i in kept], numbers))
        return drawn

    def _classes(self, rows: Rows) -> list[Any]:
        if not self.groups:
            return rows[self.label]
        group = group_names(self.groups)
        return [group.get(name, name) for name in class_names(rows, self.label)]


def v_measures(
    vectors: Embeddings,
    labels: NDArray[np.int64],
    starts: int,
    *,
    seed: int,
    algorithm: Algorithm = "kmeans",
) -> list[float]:
    """Return the V-measure of the clusters from each start of k-means, k the number of classes.

    Args:
        vectors: float32 (n, dim).
        labels: int64 (n,); texts with -1 are left out.
        starts: Number of seeds, counting up from ``seed``.
        seed: The first seed.
        algorithm: How to cluster.

    Raises:
        DataError: All texts are of one class, or each of its own: every clustering into so many
            groups is then right.
    """
    from sklearn.metrics import v_measure_score

    vectors, labels = vectors[labels >= 0], labels[labels >= 0]
    k = _check_groups(labels)
    return [
        float(v_measure_score(labels, clusters(vectors, k, seed=seed + i, algorithm=algorithm)))
        for i in range(starts)
    ]


def _check_groups(labels: NDArray[np.int64]) -> int:
    """Return the number of classes, of which there are more than one and fewer than texts."""
    k = len(np.unique(labels))
    if not 1 < k < len(labels):
        raise DataError(
            f"expected texts of at least two classes, some of them of the same, got {k} classes of "
            f"{len(labels)} texts; raise the limit, or check the labels"
        )
    return k


def clusters(
    vectors: Embeddings, k: int, *, seed: int, algorithm: Algorithm = "kmeans"
) -> NDArray[np.int32]:
    """Return the cluster of each vector: int32 (n,).

    Args:
        vectors: float32 (n, dim).
        k: Number of clusters.
        seed: Seed of the starting points.
        algorithm: How to cluster.
    """
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # the clusters would depend on the number of threads
        if algorithm == "minibatch":
            minibatch = MiniBatchKMeans(k, batch_size=500, n_init="auto", random_state=seed)
            return np.asarray(minibatch.fit_predict(vectors))
        return np.asarray(KMeans(k, n_init=1, random_state=seed).fit_predict(unit(vectors)))


_TASKS = tomllib.loads(files("bench.tasks").joinpath("clustering.toml").read_text(encoding="utf-8"))

TASKS = (
    *(Clustering(name, **settings) for name, settings in _TASKS.items()),
    Clustering(
        "clinc-domain",
        data="clinc/clinc_oos",
        config="plus",
        label="intent",
        groups=DOMAINS,
        instruction="What area of life is the request about?",
        about="5,500 requests, 10 domains and out of scope",
    ),
)
"""The clustering tasks, to be asked for by name."""
