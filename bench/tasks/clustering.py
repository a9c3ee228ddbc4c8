"""Clustering: do the groups k-means finds among the vectors agree with the classes people gave?

Source: intent, question and topic sets with class labels; InBedder's clusterings (section 5.2) with
its instructions.
A row of ``clinc/clinc_oos/plus``: ``text`` "how would you say fly in italian", ``intent`` 61
(translate).
Run: ``bench run --model inbedder,backbone-mean --task clinc-intent,clinc-domain``.
Protocol: V-measure of k-means on vectors of length 1, k the number of classes, one start with each
of ten seeds; InBedder's sets as its code does it, MiniBatchKMeans with batches of 500 on the
vectors as they are. The other of the two stands beside it. Rows that hold whole lists of texts and
labels are clustered one by one and averaged.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from bench.columns import CLASS, TEXT
from bench.data import Rows, load
from bench.encoder import Embeddings, Item
from bench.errors import DataError
from bench.task import Score, Scores, Task, sample, split_vectors
from bench.tasks.groups import DOMAINS
from bench.tasks.labelings import class_names
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
        return [Item(text, self.instruction) for texts, _ in self._sets() for text in texts]

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
        rows = load(self.data, self.split, config=self.config, columns=(self.text, self.label))
        nested = isinstance(next(iter(rows[self.text]), ""), list | tuple)
        for column, kind in ((self.text, TEXT), (self.label, CLASS)):
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
            numbers = np.unique(classes, return_inverse=True)[1][kept]
            _check_groups(numbers)
            drawn.append(([found[i] for i in kept], numbers))
        return drawn

    def _classes(self, rows: Rows) -> list[Any]:
        if not self.groups:
            return rows[self.label]
        group = {
            name: coarse for coarse, members in self.groups.items() for name in members.split()
        }
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
            f"{len(labels)} texts; raise the limit, or look at the labels"
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


def _inbedder(name: str, data: str, instruction: str, about: str, config: str = "") -> Clustering:
    return Clustering(
        name,
        data=f"BrandonZYW/{data}Clustering",
        config=config,
        label="cluster",
        instruction=instruction,
        algorithm="minibatch",
        about=about,
    )


TASKS = (
    Clustering(
        "faq-clustering",
        data="pypi/zaragoza-construction-faq",
        split="train",
        text="question",
        label="category",
        instruction="What is the question about?",
        about="503 questions about building, 39 categories",
    ),
    Clustering(
        "dialogue-topics",
        data="pypi/chatterbot-corpus",
        split="train",
        text="question",
        label="topic",
        instruction="What is the topic of the conversation?",
        about="2,306 turns of small talk, 21 topics",
    ),
    Clustering(
        "clinc-intent",
        data="clinc/clinc_oos",
        config="plus",
        label="intent",
        instruction="What does the user want to do?",
        about="5,500 requests, 150 intents and out of scope",
    ),
    Clustering(
        "clinc-domain",
        data="clinc/clinc_oos",
        config="plus",
        label="intent",
        groups=DOMAINS,
        instruction="What area of life is the request about?",
        about="5,500 requests, 10 domains and out of scope",
    ),
    Clustering(
        "trec-coarse",
        data="CogComp/trec",
        label="coarse_label",
        instruction="What general kind of answer is expected?",
        about="500 questions, 6 types of answers",
    ),
    Clustering(
        "trec-fine",
        data="CogComp/trec",
        label="fine_label",
        instruction="What specific type of thing is asked for?",
        about="500 questions, up to 50 types of answers",
    ),
    Clustering(
        "ag-news",
        data="fancyzhx/ag_news",
        instruction="What is the topic of the news?",
        about="7,600 news items, 4 topics",
    ),
    Clustering(
        "snips",
        data="few-shot-intent/snips",
        instruction="What does the user want to do?",
        about="700 requests, 7 intents",
    ),
    Clustering(
        "search-snippets",
        data="short-text-clustering/search_snippets",
        instruction="What is the topic of the web page?",
        about="12,340 search results without stop words, 8 topics",
    ),
    Clustering(
        "biomedical",
        data="short-text-clustering/biomedical",
        instruction="What is the medical topic of the paper?",
        about="20,000 titles of papers without stop words, 20 topics",
    ),
    Clustering(
        "tweet",
        data="short-text-clustering/tweet",
        instruction="Which event is the tweet about?",
        about="2,472 tweets without stop words, 89 events",
    ),
    Clustering(
        "twenty-newsgroups",
        data="mteb/twentynewsgroups-clustering",
        text="sentences",
        label="labels",
        instruction="Categorize the topic of the news article.",
        algorithm="minibatch",
        about="ten sets of subject lines from Usenet, 20 groups, clustered as InBedder does",
    ),
    _inbedder(
        "nyt-topic",
        "NYT",
        "What is the topic of news?",
        "2,160 New York Times articles, 9 topics",
        config="topic",
    ),
    _inbedder(
        "nyt-location",
        "NYT",
        "Where did the news happen?",
        "the same 2,160 New York Times articles, 10 places",
        config="location",
    ),
    _inbedder(
        "rate-my-prof",
        "RateMyProf",
        "Here is a student review on the course and the professor. "
        "Categorize the aspect the student is discussing about.",
        "2,296 reviews of professors, 4 aspects",
    ),
    _inbedder(
        "feedbacks",
        "Feedbacks",
        "Here is a human feedback on machine-generated text. "
        "Categorize the type of reason why the human like or dislike it.",
        "756 comments on generated text, 3 kinds of reasons",
    ),
    _inbedder(
        "few-rel",
        "FewRel",
        "Here is a sentence. Please tell me the relation type between two specified entities "
        "appended after the sentence.",
        "4,480 sentences with two entities, 64 relations",
    ),
    _inbedder(
        "few-nerd",
        "FewNerd",
        "Here is a sentence. Please tell me the type of the specified entity appended after "
        "the sentence.",
        "3,789 sentences with an entity, 58 types",
    ),
    _inbedder(
        "few-event",
        "FewEvent",
        "Here is a sentence. Please tell me the type of the specified event according to the "
        "trigger words appended after the sentence.",
        "4,742 sentences with an event, 34 types",
    ),
)
"""The clustering tasks, to be asked for by name."""
