"""From texts to clusters: embedding, k-means, a map, and key words.

Source:
    Peng et al., Answer is All You Need (ACL 2024), and zhang-yu-wei/InBedder at 3d95d4fa: k-means
    with ten starts; key words by TF-IDF over the clusters' answers, and by the language-model head
    from cluster mean minus corpus mean. Differences: directions from the corpus mean are clustered,
    answers are the most likely ones, stop words are left out, and of the words of the head only
    those are kept that the cluster's own texts have: the others often belong to spellings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bench.clusters.keywords import find_key_words, keep_own_words, stop_words
from bench.embeddings import CachedEncoder, Progress, silent
from bench.encoder import Embeddings, Encoder, Item
from bench.errors import UsageError

AUTO = 0
"""As a number of clusters: the one with the best mean silhouette."""

TRIED = (4, 5, 6, 8, 10, 12, 15, 20)
"""Numbers of clusters to try, up to a third of the different texts.

The silhouette alone would often choose two or three.
"""

WORDS = 10
"""Key words of a cluster from each source."""

CANDIDATES = 400
"""Words of the language-model head among which those of the cluster's texts are looked for."""

_BATCH = 128  # texts answered between two steps of the progress bar
_FEW = 10  # texts below which t-SNE has no neighbourhoods
_SAMPLE = 2000  # texts on which the silhouette is computed


@runtime_checkable
class AnsweringEncoder(Encoder, Protocol):
    """An encoder that can also answer the instruction in words."""

    def answer(self, texts: Sequence[str], *, instruction: str = "") -> list[str]:
        """Return a short answer to each text, on one line; "" where it has none."""
        ...


@runtime_checkable
class ReadableEncoder(Encoder, Protocol):
    """An encoder whose vectors can be read as words."""

    def read_words(self, vectors: Embeddings, origin: Embeddings, n: int) -> list[list[str]]:
        """Return the words that each vector makes likelier than the origin, the strongest first.

        Args:
            vectors: float32 (m, dim), embeddings or means of embeddings.
            origin: float32 (dim,), what they are compared with, such as the mean of all embeddings.
            n: Most words of a vector.
        """
        ...


@dataclass(frozen=True)
class Cluster:
    """One cluster of texts.

    Attributes:
        members: Indices of its texts, the nearest to its centre first.
        words: Key words by source, the strongest first: "answers" and "head" (where the encoder
            has them), "texts".
    """

    members: tuple[int, ...]
    words: Mapping[str, tuple[str, ...]]

    @property
    def name(self) -> tuple[str, ...]:
        """The key words that name it: those of the answers, then of the texts."""
        return tuple(dict.fromkeys([*self.words.get("answers", ()), *self.words["texts"]]))


@dataclass(frozen=True)
class Grouping:
    """Texts grouped under one instruction.

    Attributes:
        instruction: What the embeddings were for; "" is none.
        clusters: The largest first.
        answers: The encoder's answer to each text; empty where it gives none.
        places: Coordinates of each text on the map, float32 (n, 2).
        silhouettes: Mean silhouette by number of clusters; empty where the number was given.
    """

    instruction: str
    clusters: tuple[Cluster, ...]
    answers: tuple[str, ...]
    places: NDArray[np.float32]
    silhouettes: Mapping[int, float]

    @property
    def assigned(self) -> NDArray[np.int64]:
        """The cluster of each text, counted from 0, int64 (n,)."""
        found = np.empty(len(self.places), np.int64)
        for number, cluster in enumerate(self.clusters):
            found[list(cluster.members)] = number
        return found


def cluster_texts(
    encoder: CachedEncoder,
    texts: Sequence[str],
    instructions: Sequence[str],
    *,
    k: int = AUTO,
    seed: int = 42,
    progress: Progress = silent,
) -> list[Grouping]:
    """Return the texts grouped under each instruction.

    Args:
        encoder: Gives the embeddings; the encoder in it gives answers and words where it can.
        texts: The texts, none blank.
        instructions: One or more; "" is none.
        k: Number of clusters, or AUTO.
        seed: Random seed of k-means and of the map.
        progress: Called in every step.

    Raises:
        UsageError: There are fewer different texts than clusters.
        EncodingError: The encoder gives no embeddings.
    """
    different = len(set(texts))
    if different < max(k, 2):
        needed = f"{max(k, 2)} different texts for {k} clusters" if k else "2 different texts"
        advice = "give more texts or a smaller k" if k > 2 else "give more texts"
        raise UsageError(f"expected at least {needed}, got {different}: {advice}")
    # All together, so that the instructions for a text share its computation.
    asked = product(instructions, texts)
    encoder.add(encoder.missing(Item(text, instruction) for instruction, text in asked))
    return [_group(encoder, texts, instruction, k, seed, progress) for instruction in instructions]


def _group(
    encoder: CachedEncoder,
    texts: Sequence[str],
    instruction: str,
    k: int,
    seed: int,
    progress: Progress,
) -> Grouping:
    vectors = encoder.encode(texts, instruction=instruction)
    points = directions(vectors)
    labels, silhouettes = _run_kmeans(points, k, seed, progress)
    progress("drawing the map", 0, 1)
    places = project(points, seed)
    members = _sort_members(points, labels)
    answers = _collect_answers(encoder.inner, texts, instruction, progress)
    words = _find_words(encoder.inner, vectors, instruction, members, texts, answers)
    clusters = tuple(
        Cluster(tuple(found), named) for found, named in zip(members, words, strict=True)
    )
    return Grouping(instruction, clusters, tuple(answers), places, silhouettes)


def directions(vectors: Embeddings) -> NDArray[np.float64]:
    """Return unit vectors from the mean to each vector, float64 (n, dim); 0 at the mean itself."""
    away = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    lengths = np.linalg.norm(away, axis=1, keepdims=True)
    return away / np.where(lengths > 0, lengths, 1)  # type: ignore[no-any-return]


def _run_kmeans(
    points: NDArray[np.float64], k: int, seed: int, progress: Progress
) -> tuple[NDArray[np.int64], dict[int, float]]:
    """Return the cluster of each point, and the silhouettes of the numbers of clusters tried."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    different = len(np.unique(points, axis=0))
    tried = [k] if k else [n for n in TRIED if n <= different // 3] or [max(2, different // 3)]
    found: dict[int, NDArray[np.int64]] = {}
    silhouettes: dict[int, float] = {}
    for done, number in enumerate(tried):
        progress("clustering", done, len(tried))
        with threadpool_limits(1):  # sums depend on the number of threads
            found[number] = KMeans(
                min(number, different), n_init=10, random_state=seed
            ).fit_predict(points)
        if len(tried) > 1:
            value = _silhouette(points, found[number], seed)
            silhouettes |= {} if value is None else {number: value}
    best = max(silhouettes, key=lambda number: silhouettes[number]) if silhouettes else tried[0]
    return found[best], silhouettes


def _silhouette(points: NDArray[np.float64], labels: NDArray[np.int64], seed: int) -> float | None:
    """Return the mean silhouette of at most 2,000 points; None if they are in one cluster."""
    from sklearn.metrics import silhouette_score
    from threadpoolctl import threadpool_limits

    rows = np.random.default_rng(seed).permutation(len(points))[:_SAMPLE]
    if len(np.unique(labels[rows])) < 2:
        return None
    with threadpool_limits(1):
        return float(silhouette_score(points[rows], labels[rows]))


def project(points: NDArray[np.float64], seed: int) -> NDArray[np.float32]:
    """Return coordinates on a map, float32 (n, 2), by t-SNE; by PCA for fewer than 10 points."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    n, width = len(points), min(50, *points.shape)
    with threadpool_limits(1):
        if width < 2:
            return np.asarray(np.hstack([points, np.zeros_like(points)])[:, :2], np.float32)
        main = PCA(width, svd_solver="full").fit_transform(points)
        if n < _FEW:
            return np.asarray(main[:, :2], np.float32)
        drawn = TSNE(
            perplexity=min(30, (n - 1) / 3),
            metric="cosine",
            init="pca",
            random_state=seed,
            n_jobs=1,
        ).fit_transform(main)
        return np.asarray(drawn, np.float32)


def _sort_members(points: NDArray[np.float64], labels: NDArray[np.int64]) -> list[list[int]]:
    """Return the members of each cluster by distance to its centre; the largest cluster first."""
    members = []
    for label in np.unique(labels):
        inside = np.flatnonzero(labels == label)
        distances = np.linalg.norm(points[inside] - points[inside].mean(axis=0), axis=1).round(9)
        members.append([int(i) for i in inside[distances.argsort(kind="stable")]])
    return sorted(members, key=lambda found: (-len(found), min(found)))


def _collect_answers(
    encoder: Encoder, texts: Sequence[str], instruction: str, progress: Progress
) -> list[str]:
    """Return the answer to each text; each different text is answered once, the longest first."""
    if not isinstance(encoder, AnsweringEncoder):
        return []
    different = sorted(dict.fromkeys(texts), key=lambda text: -len(text))
    found: dict[str, str] = {}
    for start in range(0, len(different), _BATCH):
        progress("answering", start, len(different))
        some = different[start : start + _BATCH]
        found |= zip(some, encoder.answer(some, instruction=instruction), strict=True)
    return [found[text] for text in texts]


def _find_words(
    encoder: Encoder,
    vectors: Embeddings,
    instruction: str,
    groups: Sequence[Sequence[int]],
    texts: Sequence[str],
    answers: Sequence[str],
) -> list[dict[str, tuple[str, ...]]]:
    """Return the key words of each group by source, without the words of the instruction."""
    stops = stop_words(instruction)
    members = [_take(texts, group) for group in groups]
    found: dict[str, list[tuple[str, ...]]] = {}
    if answers:
        own_answers = [_take(answers, group) for group in groups]
        found["answers"] = find_key_words(own_answers, WORDS, stops)
    if isinstance(encoder, ReadableEncoder):
        means = np.stack([vectors[list(group)].mean(axis=0) for group in groups])
        read = encoder.read_words(means, vectors.mean(axis=0), CANDIDATES)
        found["head"] = []
        for own_texts, words in zip(members, read, strict=True):
            found["head"].append(keep_own_words(words, own_texts, stops)[:WORDS])
    found["texts"] = find_key_words(members, WORDS, stop_words())
    return [dict(zip(found, own, strict=True)) for own in zip(*found.values(), strict=True)]


def _take(texts: Sequence[str], rows: Sequence[int]) -> list[str]:
    return [texts[i] for i in rows]


def agreement(one: Grouping, other: Grouping) -> float:
    """Return the adjusted mutual information of two groupings: 1 if equal, about 0 by chance."""
    from sklearn.metrics import adjusted_mutual_info_score

    return float(adjusted_mutual_info_score(one.assigned, other.assigned))
