"""Training-free changes of any encoder's vectors: renormalisation and whitening.

The mean, and for whitening the covariance, is estimated on texts that are part of the encoder's
identity, never on those that are evaluated unless ``texts=evaluated`` asks for it; tables then say
"transductive". The vectors behind it come from the cache where they are there.

Renormalisation, of unit vectors e with mean mu and u = mu / |mu|, made unit length again:

    direction (R2): e - (e . u) u        point (R1): e - mu

Ren, Sun, Liang. Correcting Mean Bias in Text Embeddings. ICML 2026 (arXiv 2511.11041), which
recommends R2: an error of the estimated mean along itself does not matter to first order. Its
second version claims a gain for classification only.

Whitening, of vectors e with mean mu and covariance U diag(s) U^T, the first k columns of U, made
unit length: (e - mu) U_k diag(s_k)^(-1/2) U_k^T. The last factor is ours: it changes no cosine of
vectors of one map, and without it those of two, such as queries after an instruction and bare
documents, are in unrelated bases. Su, Cao, Liu, Ou. Whitening Sentence Representations for
Better Semantics and Faster Retrieval. 2021 (arXiv 2103.15316); bojone/BERT-whitening.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import chain, product
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from bench import data
from bench.encoder import (
    Card,
    Embeddings,
    Encoder,
    Item,
    Side,
    as_items,
    by_instruction,
    card,
    digest,
    fingerprint,
    instructed_sides,
    location,
    select_side,
)
from bench.errors import BenchError, DataError, EncodingError, Unavailable, UsageError, unknown
from bench.registry import field_names, load_encoder

NEUTRAL = ",".join(
    f"ludwigschmidt/squadshifts:{config}:test" for config in ("new_wiki", "reddit", "amazon")
)
"""Passages of Wikipedia, forums and product reviews, which no task of this benchmark scores."""

EVALUATED = "evaluated"
"""Value of ``texts``: the mean is that of the texts that are evaluated."""

REMOVALS = ("direction", "point")

_COLUMNS = ("text", "context", "sentence", "question")
_SENTENCE_ENDS = re.compile(r"(?<=[.!?])\s+")
_SEED = 0  # of the sample of texts

Embed = Callable[[Sequence[Item]], Embeddings]
"""From items to vectors, float32 (n, dim)."""


@dataclass(frozen=True, kw_only=True)
class PostProcessed(ABC):
    """Another encoder whose vectors are changed by a map that is fitted to some texts.

    Attributes:
        checkpoint: The encoder, as ``--model`` names it, such as "dino" or "st:FOLDER".
        texts: What the map is fitted to: ``id``, ``id:config`` or ``id:config:split`` of data sets,
            or files, separated by commas, whose texts are split into sentences; or "evaluated".
        count: Most sentences, a random sample.
        dtype: Of the encoder, where it has one.
        device: Of the encoder, where it has one.
    """

    checkpoint: str = location("backbone-mean")
    texts: str = location(NEUTRAL)
    count: int = 2000
    dtype: str = "auto"
    device: str = field(default="auto", compare=False)

    version: ClassVar[int] = 1

    @abstractmethod
    def fit(self, vectors: Embeddings) -> Callable[[Embeddings], Embeddings]:
        """Return the map that is fitted to the vectors (n, dim) of the texts."""

    @cached_property
    def base(self) -> Encoder:
        """The encoder whose vectors are changed."""
        wanted = {"dtype": self.dtype, "device": self.device}
        known = field_names(load_encoder(self.checkpoint))
        return load_encoder(self.checkpoint, {k: v for k, v in wanted.items() if k in known})

    @property
    def follows_instructions(self) -> bool:
        """Whether the encoder does; each instruction then has a map of its own."""
        return self.base.follows_instructions

    @property
    def instructed_sides(self) -> tuple[Side, ...]:
        """The sides of a retrieval that get an instruction: the encoder's."""
        return instructed_sides(self.base)

    def for_side(self, side: Side) -> Self:
        """Return the same change of the encoder of one side.

        Raises:
            Unavailable: It is fitted to the texts that are evaluated, and each side would get a map
                of its own.
        """
        if self.texts == EVALUATED:
            raise Unavailable(
                "queries and documents are encoded in two calls, to each of which this encoder "
                "would be fitted anew: --set texts= names other texts than the evaluated ones"
            )
        one = replace(self)
        vars(one)["base"] = select_side(self.base, side)
        return one

    def encode(self, texts: Sequence[str], *, instruction: str = "") -> Embeddings:
        """Return float32 (n, dim), row i for text i, each of length 1."""

        def embed(items: Sequence[Item]) -> Embeddings:
            return self.base.encode([item.text for item in items], instruction=instruction)

        items = as_items(texts, instruction)
        return self.derive(embed(items), items, embed) if items else embed(items)

    def fitting_items(self, instructions: Sequence[str]) -> list[Item]:
        """Return what has to be embedded to fit the maps of some instructions."""
        if self.texts == EVALUATED:
            return []
        wanted = dict.fromkeys(instructions if self.follows_instructions else [""])
        sentences, _ = _read_texts(self.texts, self.count)
        return [Item(text, instruction) for instruction, text in product(wanted, sentences)]

    def derive(self, vectors: Embeddings, items: Sequence[Item], embed: Embed) -> Embeddings:
        """Return the changed vectors of items.

        Args:
            vectors: Those of the encoder itself (n, dim).
            items: The texts with their instructions.
            embed: Gives vectors of the encoder itself, from the cache where it has them.

        Raises:
            EncodingError: A vector has nothing left, or the map cannot be fitted.
            Unavailable: The texts to fit it to are not available.
        """
        one_map = items and not self.follows_instructions
        groups = {"": list(range(len(items)))} if one_map else by_instruction(items)
        out: Embeddings | None = None
        for instruction, rows in groups.items():
            own = vectors[rows]
            known = self.fitting_items([instruction])
            change = self.fit(embed(known) if known else own)
            changed = _unit(change(own))
            if out is None:
                out = np.empty((len(items), changed.shape[1]), np.float32)
            out[rows] = changed
        return vectors if out is None else out

    def card(self) -> Card:
        """Return the encoder's card, with a digest of what the map is fitted to."""
        inner = card(self.base)
        texts: dict[str, Any] = {"texts": self.texts}
        if self.texts != EVALUATED:
            sentences, pins = _read_texts(self.texts, self.count)
            texts |= {"count": len(sentences), "sha256": digest(sentences), "data": pins}
        training = {name: value for name, value in inner.training.items() if name != "recipe"}
        return replace(
            inner,
            weights=digest([fingerprint(self.base), texts.get("sha256", self.texts)]),
            training={**training, "postprocessing": texts},
            transductive=inner.transductive or self.texts == EVALUATED,
        )


@dataclass(frozen=True, kw_only=True)
class Renormalised(PostProcessed):
    """Another encoder without the mean of its vectors (Ren et al. 2026), nothing trained.

    Attributes:
        removal: "direction" removes the direction of the mean (R2), "point" subtracts it (R1).
    """

    removal: str = "direction"

    def fit(self, vectors: Embeddings) -> Callable[[Embeddings], Embeddings]:
        """Return the map without the mean of the vectors.

        Raises:
            UsageError: No such removal.
        """
        if self.removal not in REMOVALS:
            raise unknown("removal", self.removal, REMOVALS)
        mean = _unit(vectors).mean(axis=0, dtype=np.float64)  # (dim,)
        direction = mean / np.linalg.norm(mean)

        def change(some: Embeddings) -> Embeddings:
            unit = _unit(some)
            along = np.ones(len(unit)) if self.removal == "point" else unit @ direction  # (n,)
            removed = mean if self.removal == "point" else direction
            return np.asarray(unit - along[:, None] * removed, np.float32)

        return change


@dataclass(frozen=True, kw_only=True)
class Whitened(PostProcessed):
    """Another encoder with uncorrelated dimensions (Su et al. 2021), nothing trained.

    Attributes:
        count: Most sentences, a random sample; many more than dimensions.
        components: Rank of the vectors: how many directions are kept, those of the largest
            variance; 0 for all.
    """

    version: ClassVar[int] = 2

    count: int = 10_000
    components: int = 0

    def fit(self, vectors: Embeddings) -> Callable[[Embeddings], Embeddings]:
        """Return the map that whitens the vectors.

        Raises:
            EncodingError: There are not more vectors than dimensions.
            UsageError: There are fewer dimensions than components.
        """
        n, dim = vectors.shape
        if n <= dim:
            raise EncodingError(
                f"expected more texts than the {dim} dimensions to whiten, got {n}: "
                "raise count, or name more texts"
            )
        if not 0 <= self.components <= dim:
            raise UsageError(
                f"components must be from 0 to the {dim} dimensions, got {self.components}"
            )
        mean = vectors.mean(axis=0, dtype=np.float64)
        centred = vectors - mean  # float64
        axes, variances, _ = np.linalg.svd(centred.T @ centred / n)  # (dim, dim), (dim,) falling
        kept = self.components or dim
        scales = np.zeros(dim)
        real = variances > variances[0] * _LEAST_VARIANCE
        scales[real] = variances[real] ** -0.5
        own = axes[:, :kept]
        weights: NDArray[np.float64] = (own * scales[:kept]) @ own.T  # (dim, dim)

        def change(some: Embeddings) -> Embeddings:
            return np.asarray((some - mean) @ weights, np.float32)

        return change


_LEAST_VARIANCE = 1e-10
"""Directions of less than this share of the largest variance are rounding, and become 0."""


def _unit(vectors: Embeddings) -> Embeddings:
    """Return the vectors scaled to length 1.

    Raises:
        EncodingError: One is zero.
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not lengths.all():
        raise EncodingError(
            f"{int((lengths == 0).sum())} of {len(vectors)} vectors have nothing left after "
            "postprocessing: name other texts"
        )
    return np.asarray(vectors / lengths, np.float32)


def _read_texts(sources: str, count: int) -> tuple[tuple[str, ...], tuple[Mapping[str, str], ...]]:
    """Return a random sample of the distinct sentences of all sources, and where these come from.

    Raises:
        Unavailable: A source is not available.
        DataError: One has no column of texts, or there is none.
        UsageError: No source is named, or count is less than 1.
    """
    names = [name for name in map(str.strip, sources.split(",")) if name]
    if not names or count < 1:
        raise UsageError(
            "expected texts to fit to and a count of at least 1, "
            f"got texts={sources!r}, count={count}"
        )
    texts: list[str] = []
    pins: list[Mapping[str, str]] = []
    for name in names:
        rows = _load(name)
        column = next((each for each in _COLUMNS if each in rows.columns), None)
        if column is None:
            raise DataError(
                f"expected one of the columns {', '.join(_COLUMNS)} in {name}, "
                f"got {', '.join(rows.columns)}: rename one"
            )
        texts += (str(text or "").strip() for text in rows[column])
        pins.append({"id": name, **rows.pin})
    sentences = _sample_sentences(_Pinned(digest(pins), texts), count)
    if not sentences:
        raise DataError(f"expected texts in {sources}, got none: name other texts")
    return sentences, tuple(pins)


@dataclass(frozen=True)
class _Pinned:
    """Texts that are equal where the hashes of their sources are."""

    pin: str
    texts: list[str] = field(compare=False)


@lru_cache(maxsize=8)
def _sample_sentences(pinned: _Pinned, count: int) -> tuple[str, ...]:
    """Return a random sample of the distinct sentences of texts, in the order of the texts."""
    split = map(_SENTENCE_ENDS.split, pinned.texts)
    sentences = list(dict.fromkeys(filter(None, chain.from_iterable(split))))
    order = np.random.default_rng(_SEED).permutation(len(sentences))[:count]
    return tuple(sentences[i] for i in sorted(order))


def _load(name: str) -> data.Rows:
    parts = name.split(":")
    if len(parts) > 3:
        raise UsageError(f"expected a file, id, id:config or id:config:split, got {name!r}")
    id_, config, split = [*parts, "", ""][:3]
    try:
        return data.load(id_, split or "train", config=config)
    except BenchError as error:
        raise type(error)(
            f"{error}; it is what the vectors' mean is estimated on: --set texts= names others"
        ) from error
