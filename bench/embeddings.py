"""The embedding cache: each (encoder, instruction, text) is encoded once.

Tasks embed through ``CachedEncoder``. The key of a vector is content: the encoder's
fingerprint (class, version, settings, weights) and a hash of instruction and text, never a name.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, compress
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.encoder import (
    Batch,
    Embeddings,
    Encoder,
    Item,
    QuestionVectors,
    Side,
    TokenStates,
    as_items,
    checked,
    fingerprint,
    shortened,
    stream,
)
from bench.errors import EncodingError
from bench.process import peak_memory_mb
from bench.vectors import KEY, KeyIndex, Keys, Records, Vectors, as_keys, first_places

_FLUSH_VECTORS, _FLUSH_SECONDS = 4096, 30.0  # a killed run loses at most this much encoding

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


def silent(label: str, done: int, total: int) -> None:
    """Show no progress."""


class Tally:
    """Counts of the texts that one task embeds: all, distinct and truncated ones.

    Args:
        keep_texts: Keep the texts themselves as well.
    """

    def __init__(self, *, keep_texts: bool) -> None:
        self.asked = 0
        self.texts: set[str] = set()
        self.distinct, self.truncated = KeyIndex(), KeyIndex()
        self._keep_texts = keep_texts

    def add(self, keys: Keys, texts: Iterable[str]) -> None:
        """Count n texts, given their keys."""
        self.asked += len(keys)
        self.distinct.add_new(keys)
        if self._keep_texts:
            self.texts.update(texts)

    def summary(self) -> dict[str, float]:
        """Return the counts, and the fractions of duplicates and of truncated distinct texts."""
        n = len(self.distinct)
        return {
            "asked": self.asked,
            "distinct": n,
            "repeated_share": 1 - n / self.asked if self.asked else 0.0,
            "truncated_share": len(self.truncated) / n if n else 0.0,
        }


@dataclass
class Cost:
    """What encoding took.

    Attributes:
        encode_seconds: Of all workers together.
        forward_texts: Texts that were encoded.
        tokens: Their tokens.
        padded_tokens: Tokens computed, padding included.
        dimension: Of a vector.
        peak_memory_mb: Peak memory of the process that took most.
    """

    encode_seconds: float = 0.0
    forward_texts: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    dimension: int = 0
    peak_memory_mb: float = 0.0

    @classmethod
    def of(cls, batch: Batch, seconds: float = 0.0) -> "Cost":
        """Return what a batch took in this process."""
        return cls(
            seconds,
            len(batch.positions),
            int(batch.tokens.sum()),
            batch.padded,
            batch.vectors.shape[1],
            peak_memory_mb(),
        )

    def add(self, other: "Cost") -> None:
        """Add what something else took."""
        self.encode_seconds += other.encode_seconds
        self.forward_texts += other.forward_texts
        self.tokens += other.tokens
        self.padded_tokens += other.padded_tokens
        self.dimension = other.dimension or self.dimension
        self.peak_memory_mb = max(self.peak_memory_mb, other.peak_memory_mb)


class NotCached(Exception):  # noqa: N818 - a request, not a defect
    """Vectors are wanted that only an engine can compute.

    Attributes:
        encoder: Whose cache lacks them.
        items: What to encode, each once.
    """

    def __init__(self, encoder: "CachedEncoder", items: Sequence[Item]) -> None:
        super().__init__(f"{len(items)} embeddings are not in the cache")
        self.encoder, self.items = encoder, items


class CachedEncoder:
    """An encoder behind the cache: equal items are encoded once, and vectors are checked.

    Args:
        inner: The encoder that is asked for what the store lacks.
        vectors: The store.
        progress: Told about characters encoded, while encoding.
        exact: Encode every text in a batch of its own. The last bits of a vector depend on its
            batch, and the batches on what is cached already; alone, a text has the same bits every
            time. Such vectors are kept apart from others.
        computes: Encode what the store lacks; otherwise ``NotCached`` is raised, and ``collect``
            takes what an engine has encoded.
    """

    def __init__(
        self,
        inner: Encoder,
        vectors: Vectors,
        progress: Progress = silent,
        *,
        exact: bool = False,
        computes: bool = True,
    ) -> None:
        self.inner: Any = inner  # may have the optional methods of ``bench.encoder``
        self.vectors, self.exact, self.fingerprint = vectors, exact, fingerprint(inner, exact=exact)
        self._progress, self._computes = progress, computes
        self._prefix, self._records = self.fingerprint.encode(), vectors.of(self.fingerprint)
        self._base: CachedEncoder | None = None
        self.cost = Cost()
        derives = getattr(inner, "derive", None) is not None
        base: Encoder | None = getattr(inner, "base", None) if derives else None
        if base is not None:
            self._base = CachedEncoder(base, vectors, progress, exact=exact, computes=computes)
            self.cost = self._base.cost
        self.begin()

    @property
    def source(self) -> "CachedEncoder":
        """The encoder that computes: what this one derives its vectors from, or this one."""
        return self._base.source if self._base else self

    def begin(self) -> None:
        """Begin a new tally, for the next task."""
        if self._base:
            self._base.begin()
        self.tally = Tally(keep_texts=bool(getattr(self.inner, "runs", None)))

    def summary(self) -> dict[str, float]:
        """Return the counts of a task, with the overlap with the training data where known.

        ``overlap_share`` is the fraction of its texts that share an 8-gram with it.
        """
        if self._base:
            return self._base.summary()
        ngrams = self.inner.runs() if self.tally.texts else None
        shared = {}
        if ngrams is not None:
            shared["overlap_share"] = float(ngrams.find_overlaps(list(self.tally.texts)).mean())
        return {**self.tally.summary(), **shared}

    @property
    def version(self) -> int:
        """The wrapped encoder's version."""
        return int(self.inner.version)

    @property
    def follows_instructions(self) -> bool:
        """Whether the wrapped encoder follows instructions."""
        return bool(self.inner.follows_instructions)

    def encode(self, texts: Sequence[str], *, instruction: str = "") -> Embeddings:
        """Return float32 (n, dim), row i for text i; as ``embed``."""
        return self.embed(as_items(texts, instruction))

    def embed(self, items: Sequence[Item]) -> Embeddings:
        """Return float32 (n, dim), row i for item i: from the cache, or encoded now in one pass.

        Raises:
            EncodingError: A vector is not finite or constant, or all texts of an instruction have
                the same vector.
            NotCached: The cache lacks some, and this encoder does not compute.
        """
        if self._base:
            return self._derive(self._base, items)
        keys = self._keys(items)
        # Counted before there are vectors, since it takes memory for a moment.
        self.tally.add(keys, (item.text for item in items))
        vectors, truncated = self._read(keys, items)
        self.tally.truncated.add_new(keys[truncated])
        check_distinct(vectors, items)
        return vectors

    def look_up(self, items: Sequence[Item]) -> Embeddings:
        """Return what ``embed`` does, of items that are not counted as texts of the task."""
        return self._read(self._keys(items), items)[0]

    def _derive(self, base: "CachedEncoder", items: Sequence[Item]) -> Embeddings:
        """Return what the encoder makes of the vectors of another one."""
        own = base.embed(items)
        if not items:
            return own

        vectors: Embeddings = self.inner.derive(own, items, base.look_up)
        self.cost.dimension = vectors.shape[1]
        check_distinct(checked(vectors, [item.text for item in items]), items)
        return vectors

    def _read(self, keys: Keys, items: Sequence[Item]) -> tuple[Embeddings, NDArray[np.bool_]]:
        """Return the vectors of items (n, dim), and which were truncated (n,)."""
        known, vectors, truncated = self._records.read(keys)
        unknown = np.flatnonzero(~known)
        first, equal = first_places(keys[unknown])
        todo = unknown[first]
        for batch in self._compute(keys[todo], [items[i] for i in todo]):
            if vectors is None:
                vectors = np.empty((len(keys), batch.vectors.shape[1]), np.float32)
            if batch.vectors.shape[1] != vectors.shape[1]:
                raise EncodingError(
                    f"expected vectors of {vectors.shape[1]} numbers, as the cache has of this "
                    f"encoder, got {batch.vectors.shape[1]}: raise its version"
                )
            places = todo[batch.positions]
            vectors[places], truncated[places] = batch.vectors, batch.truncated
        if vectors is None:
            return np.empty((0, 0), np.float32), truncated
        repeats = np.flatnonzero(equal != np.arange(len(equal)))
        for place, source in zip(unknown[repeats], unknown[equal[repeats]], strict=True):
            vectors[place], truncated[place] = vectors[source], truncated[source]
        self.cost.dimension = vectors.shape[1]
        return vectors, truncated

    def encode_tokens(self, texts: Sequence[str], *, layer: int = -1) -> list[TokenStates]:
        """Return the states of each text's tokens; they are too large to be kept.

        Raises:
            EncodingError: A state is not finite.
        """
        return self._read_tokens(texts, lambda: [self.inner.encode_tokens(texts, layer=layer)])[0]

    def encode_layers(
        self, texts: Sequence[str], *, layers: Sequence[int]
    ) -> list[list[TokenStates]]:
        """Return for each layer what ``encode_tokens`` would, from one pass where that is offered.

        Raises:
            EncodingError: A state is not finite.
        """
        if not getattr(self.inner, "encode_layers", None):
            return [self.encode_tokens(texts, layer=layer) for layer in layers]
        return self._read_tokens(texts, lambda: self.inner.encode_layers(texts, layers=layers))

    def encode_long(self, texts: Sequence[str]) -> list[TokenStates]:
        """Return the states of all tokens of each text, or of those that one pass takes.

        Raises:
            EncodingError: A state is not finite.
        """
        if not getattr(self.inner, "encode_long", None):
            return self.encode_tokens(texts)
        return self._read_tokens(texts, lambda: [self.inner.encode_long(texts)])[0]

    def encode_questions(self, questions: Sequence[str]) -> QuestionVectors:
        """Return the start and end vectors of questions."""
        start = time.perf_counter()
        found: QuestionVectors = self.inner.encode_questions(questions)
        self.cost.encode_seconds += time.perf_counter() - start
        self.cost.forward_texts += len(questions)
        self.cost.tokens += found.read
        self.cost.padded_tokens += found.read
        return found

    def for_side(self, side: Side) -> "CachedEncoder":
        """Return the encoder of one side of a retrieval, behind the same cache and counts."""
        if not getattr(self.inner, "for_side", None):
            return self
        inner = self.inner.for_side(side)
        one = CachedEncoder(
            inner, self.vectors, self._progress, exact=self.exact, computes=self._computes
        )
        one.source.tally, one.source.cost = self.source.tally, self.source.cost
        one.cost = self.cost
        return one

    def count(self, texts: Sequence[str]) -> None:
        """Count texts that a task gives to ``inner`` for something else than vectors."""
        self.tally.add(self._keys(Item(text) for text in texts), texts)

    def _read_tokens(
        self, texts: Sequence[str], read: Callable[[], list[list[TokenStates]]]
    ) -> list[list[TokenStates]]:
        """Return the states of one pass by layer, checked, and count what it took."""
        start = time.perf_counter()
        layers = read()
        for text, tokens in zip(list(texts) * len(layers), chain(*layers), strict=True):
            if not np.isfinite(tokens.states).all():
                raise EncodingError(f"a token state of {shortened(text)} is not finite")
        self.cost.encode_seconds += time.perf_counter() - start
        n = sum(len(t.states) if t.read is None else t.read for t in layers[0])
        self.cost.forward_texts += len(texts)
        self.cost.tokens += n
        self.cost.padded_tokens += n
        self.count(texts)
        truncated = [_is_truncated(*pair) for pair in zip(texts, layers[0], strict=True)]
        cut = compress(texts, truncated)
        self.tally.truncated.add_new(self._keys(Item(text) for text in cut))
        return layers

    def missing(self, items: Iterable[Item]) -> list[Item]:
        """Return the distinct items the store lacks, those that a derived encoder fits included."""
        items = list(items)
        if self._base:
            instructions = list(dict.fromkeys(item.instruction for item in items))
            fitting = getattr(self.inner, "fitting_items", None)
            return self._base.missing([*items, *(fitting(instructions) if fitting else ())])
        keys = self._keys(items)
        first, _ = first_places(keys)
        missing = first[~self._records.has(keys[first])]
        return [items[i] for i in missing]

    def count_tokens(self, items: Sequence[Item]) -> int | None:
        """Return how many tokens of items go through the network; None where not known."""
        count = getattr(self.source.inner, "count_tokens", None)
        return int(count(items)) if count else None

    def add(self, todo: Sequence[Item]) -> None:
        """Encode items, each of them once, in one pass, and keep their vectors.

        Args:
            todo: What ``missing`` gave.

        Raises:
            EncodingError: A vector is not finite or constant; the finished ones are kept.
        """
        if self._base:
            self._base.add(todo)
            return
        for _ in self._compute(self._keys(todo), todo):
            pass

    def collect(self, items: Sequence[Item]) -> "Pending":
        """Return what takes the vectors of these items, each once, as an engine computes them."""
        return self._pending(self._keys(items))

    def _pending(self, keys: Keys) -> "Pending":
        return (_InMemory if self._records.in_memory else _Pending)(self._records, keys)

    def _compute(self, keys: Keys, items: Sequence[Item]) -> Iterator[Batch]:
        """Yield batches of new vectors, which are kept.

        Raises:
            NotCached: There are some, and this encoder does not compute.
        """
        if not items:
            return
        if not self._computes:
            raise NotCached(self, items)
        start, done, total = time.perf_counter(), 0, count_characters(items)
        pending = self._pending(keys)
        try:
            for batch in stream(self.inner, items, exact=self.exact):
                pending.add(batch)
                self.cost.add(Cost.of(batch))
                done += count_characters(items[i] for i in batch.positions)
                self._progress("encoding (characters)", done, total)
                yield batch
        finally:
            self.cost.encode_seconds += time.perf_counter() - start
            pending.flush()

    def _keys(self, items: Iterable[Item]) -> Keys:
        follows = self.follows_instructions
        digests = (
            _digest(self._prefix, item.instruction if follows else "", item.text) for item in items
        )
        return as_keys(b"".join(digests))


def count_characters(items: Iterable[Item]) -> int:
    """Return how much there is to encode: characters, and one more for each text."""
    return sum(len(item.text) + 1 for item in items)


def cached(
    encoder: Encoder,
    vectors: Vectors | None = None,
    progress: Progress = silent,
    *,
    exact: bool = False,
) -> CachedEncoder:
    """Return the encoder behind the cache; one that is behind it already is returned as it is.

    The arguments are those of ``CachedEncoder``; without vectors the cache is in memory.
    """
    if isinstance(encoder, CachedEncoder):
        return encoder
    return CachedEncoder(encoder, vectors or Vectors(None), progress, exact=exact)


def check_distinct(vectors: Embeddings, items: Sequence[Item]) -> None:
    """Check that the different texts of each instruction do not all have the same vector.

    Raises:
        EncodingError: They do.
    """
    first: dict[str, int] = {}
    varied: set[str] = set()
    for i, item in enumerate(items):
        start = first.setdefault(item.instruction, i)
        if item.instruction not in varied and not np.array_equal(vectors[i], vectors[start]):
            varied.add(item.instruction)
    for instruction in first.keys() - varied:
        texts = list(dict.fromkeys(item.text for item in items if item.instruction == instruction))
        if len(texts) > 1:
            raise EncodingError(
                f"{len(texts)} different texts have one and the same embedding, "
                f"{shortened(texts[0])} and {shortened(texts[1])} for example"
            )


class Pending(Protocol):
    """What takes the vectors of some items, batch by batch."""

    def add(self, batch: Batch) -> None:
        """Take a batch; its positions are those in the items."""
        ...

    def flush(self) -> None:
        """Bring what was taken into the store."""
        ...


class _Pending:
    """Vectors on their way to the store, a few thousand at a time.

    They are copies, since an encoder may use its memory again.
    """

    def __init__(self, records: Records, keys: Keys) -> None:
        self._records, self._all = records, keys
        self._keys: list[Keys] = []
        self._batches: list[Batch] = []
        self._flushed = time.perf_counter()

    def add(self, batch: Batch) -> None:
        self._keys.append(self._all[batch.positions])
        self._batches.append(replace(batch, vectors=batch.vectors.copy()))
        waited = time.perf_counter() - self._flushed
        if sum(map(len, self._keys)) >= _FLUSH_VECTORS or waited > _FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        keys, batches = self._keys, self._batches
        self._keys, self._batches, self._flushed = [], [], time.perf_counter()
        if keys:
            vectors = np.concatenate([batch.vectors for batch in batches])
            truncated = np.concatenate([batch.truncated for batch in batches])
            batches.clear()  # frees the copies
            self._records.put(np.concatenate(keys), vectors, truncated)


class _InMemory:
    """Vectors for a store in memory, in the order of the keys: a task then reads them in place."""

    def __init__(self, records: Records, keys: Keys) -> None:
        self._records, self._keys = records, keys
        self._vectors = np.empty((0, 0), np.float32)
        self._done, self._truncated = np.zeros(len(keys), bool), np.zeros(len(keys), bool)

    def add(self, batch: Batch) -> None:
        if not len(self._vectors):
            self._vectors = np.empty((len(self._keys), batch.vectors.shape[1]), np.float32)
        self._vectors[batch.positions] = batch.vectors
        self._truncated[batch.positions] = batch.truncated
        self._done[batch.positions] = True

    def flush(self) -> None:
        done = slice(None) if self._done.all() else self._done
        if self._done.any():
            self._records.put(self._keys[done], self._vectors[done], self._truncated[done])


def _is_truncated(text: str, tokens: TokenStates) -> bool:
    """Say whether the tokens of a text end before it does."""
    return bool(len(tokens.spans)) and tokens.spans.max(initial=0) < len(text.rstrip())


def _digest(encoder: bytes, instruction: str, text: str) -> bytes:
    # The length keeps ("ab", "c") and ("a", "bc") apart; lone surrogates are legal in a str.
    data = instruction.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(
        len(data).to_bytes(8, "little") + data + text.encode("utf-8", "surrogatepass"),
        digest_size=KEY,
        key=encoder,
    ).digest()
