"""What an encoder is: a method that turns texts into vectors, of texts, tokens or questions.

An encoder is a frozen dataclass. Its fields are its settings: plain JSON values; a field that
changes speed but not vectors (device, batch size) is ``field(compare=False)``. Making one is cheap;
weights load on the first call. An ability that one task needs is a protocol beside that task.
"""

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bench.errors import EncodingError, UsageError
from bench.files import digests_in, sha256_of

_CALL_TEXTS = 4096  # in one call of an encoder that does not stream

_CPU_WINDOW, _GPU_WINDOW = 1 << 14, 1 << 20
"""Characters in a window: some seconds of a language model, and many batches."""

_BESIDE = 16  # characters that stand for the template of a text, and for short texts' other work

Embeddings = NDArray[np.float32]
"""Vectors of texts: float32 (n, dim)."""

Positions = NDArray[np.int64]
"""Which of some items: int64 (n,)."""

Side = Literal["query", "document"]
"""The side of a text in retrieval or reranking."""

Similarity = Literal["cosine", "dot", "euclidean"]
"""By what a retrieval ranks documents."""


class Item(NamedTuple):
    """One thing to encode: a text and the instruction that says what its embedding is for."""

    text: str
    instruction: str = ""


@dataclass(frozen=True)
class TokenStates:
    """States of the single tokens of one text.

    Attributes:
        states: float32 (t, dim).
        spans: int32 (t, 2), half-open character spans in the text; empty for special tokens.
        read: Tokens that went through the network for the text, such as those of a template; None
            for as many as there are states.
    """

    states: NDArray[np.float32]
    spans: NDArray[np.int32]
    read: int | None = None


@dataclass(frozen=True)
class QuestionVectors:
    """Vectors of questions in the space of token states.

    Attributes:
        start: float32 (m, dim).
        end: float32 (m, dim).
        read: Tokens that went through the network for all of them; 0 where they are not counted.
    """

    start: NDArray[np.float32]
    end: NDArray[np.float32]
    read: int = 0


@dataclass(frozen=True)
class Batch:
    """Vectors of some of the items given to ``stream``, as soon as they are ready.

    Attributes:
        positions: int64 (b,), where in the given items these vectors belong.
        vectors: float32 (b, dim).
        tokens: int32 (b,), tokens of each item that went through the network.
        truncated: bool (b,), whether a part of the text was cut off.
        padded: Tokens computed for this batch, padding included.
    """

    positions: NDArray[np.int64]
    vectors: Embeddings
    tokens: NDArray[np.int32]
    truncated: NDArray[np.bool_]
    padded: int


@dataclass(frozen=True)
class Card:
    """Model card: the weights and the training of an encoder.

    Attributes:
        weights: Hex digest of everything read from disk that shapes a vector; "" when nothing is.
        dtype: Of the computation, "float32" or "bfloat16".
        backbone: Name of the pretrained model, as tables should print it.
        parameters: Number of weights used; None when not known without loading.
        trained: False while a method runs on a backbone that was never trained by its recipe.
        licence: Licence of the weights.
        training_tokens: Tokens that went through the trained network; None when not known.
        device: Where the network computes, such as "cpu" or "cuda".
        training: The content of the checkpoint's card.json; empty when not known.
        embedding_parameters: Those of the parameters that are looked up, not multiplied with; None
            when not known.
        multiplications: Of a token with a weight in a forward pass: none with looked-up ones and
            experts that it is not sent to, several with one that layers share; None when not known.
        passes: Forward passes of the network that a text takes; None when not known, or when there
            is no network.
        instructed_sides: As the function of this name; filled in by ``bench.encoder.card``.
        transductive: Whether it is fitted to the texts that are evaluated, without their labels.
        distilled: Whether it learnt the vectors of a teacher that was trained on labels.
        changed: Settings other than the defaults of the encoder's class, without its checkpoint;
            filled in by ``bench.encoder.card``.
    """

    weights: str = ""
    dtype: str = "float32"
    backbone: str = ""
    parameters: int | None = None
    trained: bool = True
    licence: str = ""
    training_tokens: int | None = None
    device: str = "cpu"
    training: Mapping[str, Any] = field(default_factory=dict)
    embedding_parameters: int | None = None
    multiplications: int | None = None
    passes: int | None = None
    instructed_sides: tuple[Side, ...] = ()
    transductive: bool = False
    distilled: bool = False
    changed: Mapping[str, Any] = field(default_factory=dict)


def multiplied_weights(card: Mapping[str, Any]) -> int | None:
    """Return how many weights a token is multiplied with; None where not known.

    Cards without this number may have those of all weights and of the looked-up ones.

    Args:
        card: The fields of a card by name, as results keep them.
    """
    found, every = card.get("multiplications"), card.get("parameters")
    tables = card.get("embedding_parameters")
    if found is None and every is not None and tables is not None:
        found = every - tables
    return None if found is None else int(found)


@runtime_checkable
class Encoder(Protocol):
    """An encoder of texts.

    Nine members are optional:

    - ``stream(items) -> Iterator[Batch]`` takes all items of a run at once and yields batches, in
      any order, that together contain every item exactly once;
    - ``card() -> Card`` returns the model card without loading the network; without it, or without
      a digest of weights in it, the content of files and folders that settings name is part of the
      fingerprint. It raises ``Unavailable`` where the weights are not on this machine and
      ``CheckpointError`` where they are incomplete;
    - ``count_tokens(items) -> int`` returns how many tokens of the items go through the network in
      ``stream``, without loading it; raises as ``card``;
    - ``runs() -> Ngrams | None`` returns the n-grams of the training data, None where not known;
    - ``for_side(side) -> Encoder`` returns the encoder of queries or of documents, with another
      fingerprint wherever its vectors differ;
    - ``derive(vectors, items, embed) -> Embeddings``, of an encoder that changes the vectors of
      another one, ``base``, as ``bench.postprocessing`` does: these come from the cache;
    - ``fitting_items(instructions) -> list[Item]``, beside ``derive``: what it will ``embed``
      besides the items, so that this is encoded in the same pass;
    - ``instructed_sides: ClassVar[tuple[Side, ...]]``, see the function of this name;
    - ``similarity: ClassVar[Similarity]``, by which a retrieval ranks; see ``similarity_of``.
    """

    @property
    def version(self) -> int:
        """Class attribute: raised whenever the same settings and weights give other vectors."""
        ...

    @property
    def follows_instructions(self) -> bool:
        """Class attribute: whether the instruction can change a vector."""
        ...

    def encode(self, texts: Sequence[str], *, instruction: str = "") -> Embeddings:
        """Return float32 (n, dim), row i for text i.

        Args:
            texts: Any strings, also empty ones; texts over the length limit are truncated.
            instruction: What the embeddings are for; "" is no instruction.
        """
        ...


@runtime_checkable
class TokenEncoder(Encoder, Protocol):
    """An encoder that also gives the states of single tokens.

    Three methods are optional:

    - ``layer_count() -> int`` returns the number of the last layer;
    - ``encode_layers(texts, *, layers) -> list[list[TokenStates]]`` returns for each layer what
      ``encode_tokens`` does, from one pass;
    - ``encode_long(texts) -> list[TokenStates]`` returns the last-layer states of all tokens of
      texts of any length.
    """

    def encode_tokens(self, texts: Sequence[str], *, layer: int = -1) -> list[TokenStates]:
        """Return the states of each text's tokens at one layer, without padding.

        Args:
            texts: As for ``encode``.
            layer: 0 for input embeddings, -1 for the last layer.
        """
        ...


@runtime_checkable
class QuestionEncoder(TokenEncoder, Protocol):
    """An encoder that also gives question vectors, in the space of its token states."""

    def encode_questions(self, questions: Sequence[str]) -> QuestionVectors:
        """Return start and end vectors, float32 (m, dim), to be multiplied with token states."""
        ...


def unwrap(encoder: Encoder) -> Any:  # noqa: ANN401 - it may have any of the optional methods
    """Return the encoder behind the cache, or any other wrapper with an attribute ``inner``."""
    while hasattr(encoder, "inner"):
        encoder = encoder.inner
    return encoder


def select_side(encoder: Encoder, side: Side | None) -> Encoder:
    """Return the encoder of one side of a retrieval; the encoder itself where it has no sides."""
    for_side = getattr(encoder, "for_side", None)
    return for_side(side) if side and for_side else encoder


def instructed_sides(encoder: Encoder) -> tuple[Side, ...]:
    """Return the sides of a retrieval or reranking whose texts get the task's instruction.

    A method says so in its class attribute ``instructed_sides``, and raises its version when that
    changes; the query alone is the default. An encoder that follows no instructions has none. A
    text that is on no side always gets the instruction.

    Raises:
        UsageError: The attribute holds something else than sides.
    """
    if not encoder.follows_instructions:
        return ()
    inner = unwrap(encoder)
    sides: Any = getattr(inner, "instructed_sides", ("query",))
    if not isinstance(sides, tuple | list) or not {*map(str, sides)} <= {*get_args(Side)}:
        raise UsageError(
            f"expected a tuple of {', '.join(get_args(Side))} as instructed_sides of "
            f"{type(inner).__name__}, got {sides!r}"
        )
    return tuple(sides)


def similarity_of(encoder: Encoder) -> Similarity:
    """Return by what a retrieval ranks documents: its attribute ``similarity``, or the cosine.

    Raises:
        UsageError: The attribute holds something else, such as a method of this name.
    """
    inner = unwrap(encoder)
    chosen: Any = getattr(inner, "similarity", "cosine")
    if chosen not in get_args(Similarity):
        raise UsageError(
            f"expected one of {', '.join(get_args(Similarity))} as similarity of "
            f"{type(inner).__name__}, got {chosen!r}: rename what is no name of one"
        )
    return chosen  # type: ignore[no-any-return]


def card(encoder: Encoder) -> Card:
    """Return the encoder's card, or the empty one, with what any encoder's card has."""
    inner = unwrap(encoder)
    own = getattr(inner, "card", None)
    return replace(
        own() if own else Card(), instructed_sides=instructed_sides(encoder), changed=changed(inner)
    )


def changed(encoder: Encoder) -> dict[str, Any]:
    """Return the settings other than the defaults of the encoder's class, without its checkpoint.

    Raises:
        EncodingError: As ``settings``.
    """
    found = settings(encoder)
    usual = {}
    for f in dataclasses.fields(unwrap(encoder)):
        if f.default_factory is not dataclasses.MISSING:
            usual[f.name] = f.default_factory()
        elif f.default is not dataclasses.MISSING:
            usual[f.name] = f.default
    usual = json.loads(json.dumps(usual, default=str))  # with lists for tuples
    differing = {name for name in found if name not in usual or found[name] != usual[name]}
    return {name: found[name] for name in sorted(differing - {"checkpoint"})}


def settings(encoder: Encoder) -> dict[str, Any]:
    """Return the fields that can change a vector, by name, as plain JSON values.

    Raises:
        EncodingError: The encoder is no dataclass, or a field is no plain JSON value.
    """
    encoder = unwrap(encoder)
    if not dataclasses.is_dataclass(encoder) or isinstance(encoder, type):
        raise EncodingError(
            f"an encoder must be a dataclass instance, got {type(encoder).__name__}: "
            "add @dataclass(frozen=True)"
        )
    fields = {f.name: getattr(encoder, f.name) for f in dataclasses.fields(encoder) if f.compare}
    try:
        plain = json.loads(json.dumps(fields, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise EncodingError(
            f"settings of {type(encoder).__name__} must be plain JSON values: {error}"
        ) from error
    return dict(plain)


def location(default: str | None) -> Any:  # noqa: ANN401 - dataclasses.field itself is typed Any
    """Return a dataclass field whose content is in the card's digest, such as a path."""
    return dataclasses.field(default=default, metadata={"location": True})


def fingerprint(encoder: Encoder, *, exact: bool = False) -> str:
    """Return 16 hex digits that are equal exactly when class, version, settings, weights are equal.

    Names and places do not count: two folders with the same weights give the same digits, two
    models under one name give different ones.

    Args:
        encoder: Any encoder, behind the cache or not.
        exact: Whether each text is encoded in a batch of its own.

    Raises:
        EncodingError: As ``settings``.
        OSError: A file that a setting names cannot be read.
    """
    encoder = unwrap(encoder)
    own, model_card = settings(encoder), card(encoder)
    if getattr(
        encoder, "card", None
    ):  # which has the digest of what is in a place, and the real dtype
        fields = dataclasses.fields(encoder)  # type: ignore[arg-type]
        places = {f.name for f in fields if f.metadata.get("location")}
        own = {name: value for name, value in own.items() if name not in places | {"dtype"}}
    identity = {
        "class": f"{type(encoder).__module__}.{type(encoder).__qualname__}",
        "version": encoder.version,
        "settings": own,
        "weights": model_card.weights,
        "dtype": model_card.dtype,
    }
    if files := {} if model_card.weights else _named_files(encoder):
        identity["files"] = files
    return digest(identity | ({"exact": True} if exact else {}))[:16]


def _named_files(encoder: Encoder) -> dict[str, dict[str, str]]:
    """Return the sha256 of each file that a setting names, or that lies in a folder it names.

    By what the setting says, and by the path in the folder; hidden files do not count.
    """
    found = {}
    for value in settings(encoder).values():
        for text in value if isinstance(value, list) else [value]:
            if not isinstance(text, str) or not re.search(r"\w", text):  # such as a slash
                continue
            place = os.path.expanduser(text)  # noqa: PTH111 - a Path refuses some texts
            if os.path.isfile(place):  # noqa: PTH113
                found[text] = {"": sha256_of(Path(place))}
            elif os.path.isdir(place):  # noqa: PTH112
                found[text] = digests_in(Path(place), _is_shown)
    return found


def _is_shown(path: Path) -> bool:
    return not any(part.startswith(".") for part in path.parts)


def read_files(encoder: Encoder) -> None:
    """Read all files of an encoder, a tokenizer and a packaged model too, so that they are fetched.

    Raises:
        BenchError: One is not available.
    """
    fingerprint(encoder)
    source: Any = unwrap(encoder)
    while hasattr(source, "derive"):
        source = source.base
    if hasattr(source, "count_tokens"):
        source.count_tokens([Item("a")])


def as_items(texts: Sequence[str], instruction: str = "") -> list[Item]:
    """Return each text with the instruction.

    Raises:
        UsageError: One text is given, which would be a sequence of its characters.
    """
    if isinstance(texts, str):
        raise UsageError(f"expected a list of texts, got {shortened(texts)}: put it in a list")
    return [Item(text, instruction) for text in texts]


def digest(value: object) -> str:
    """Return the sha256, in hex, of a plain JSON value in canonical form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def gather(batches: Iterable[Batch], n: int) -> Embeddings:
    """Return the vectors of streamed batches in the order of the items, float32 (n, dim).

    Items that the batches leave out are NaN.
    """
    out: Embeddings | None = None
    for batch in batches:
        if out is None:
            out = np.full((n, batch.vectors.shape[1]), np.nan, dtype=np.float32)
        out[batch.positions] = batch.vectors
    return np.empty((0, 0), dtype=np.float32) if out is None else out


def stream(encoder: Encoder, items: Sequence[Item], *, exact: bool = False) -> Iterator[Batch]:
    """Yield the vectors of items from any encoder, checked.

    An encoder without ``stream`` gets the texts of one instruction after another, at most 4,096
    in a call, so that the vectors of all of them need not fit into memory twice.

    Args:
        encoder: Any encoder.
        items: What to encode.
        exact: Encode every text in a batch of its own.

    Raises:
        EncodingError: As ``checked``, an item is left out, or vectors differ in length.
    """
    if exact:
        for i, item in enumerate(items):
            for batch in stream(encoder, [item]):
                yield replace(batch, positions=batch.positions + i)
        return
    left = np.ones(len(items), np.bool_)
    own, dim = getattr(encoder, "stream", None), 0
    for batch in own(items) if own else _calls(encoder, items):
        checked(batch.vectors, [items[i].text for i in batch.positions])
        dim = same_length(batch, items, dim)
        left[batch.positions] = False
        yield batch
    if left.any():
        example = shortened(items[int(left.argmax())].text)
        raise EncodingError(
            f"the stream left out {left.sum()} of {len(items)} items, {example} for one"
        )


def same_length(batch: Batch, items: Sequence[Item], dim: int) -> int:
    """Return the length of a batch's vectors.

    Args:
        batch: The batch.
        items: The items of its positions.
        dim: Length of the vectors of earlier batches; 0 if there are none.

    Raises:
        EncodingError: It is not that of earlier ones.
    """
    found = int(batch.vectors.shape[1])
    if dim and found != dim:
        raise EncodingError(
            f"expected vectors of one length, got {dim} numbers and {found}, "
            f"for {shortened(items[batch.positions[0]].text)}"
        )
    return found


def _calls(encoder: Encoder, items: Sequence[Item]) -> Iterator[Batch]:
    """Yield the vectors of items, instruction by instruction."""
    for some in _call_windows(items):
        texts = [items[i].text for i in some]
        vectors, n = encoder.encode(texts, instruction=items[some[0]].instruction), len(some)
        yield Batch(some, vectors, np.zeros(n, np.int32), np.zeros(n, bool), 0)


def windows(encoder: Encoder, items: Sequence[Item], device: str) -> list[Positions]:
    """Return the windows of items, which ``stream`` encodes one after the other.

    No batch crosses a window, so that some consecutive windows have the same vectors alone.

    Args:
        encoder: Any encoder.
        items: What to encode.
        device: Where it computes, such as "cpu" or "cuda".
    """
    streams = getattr(encoder, "stream", None)
    return length_windows(items, device) if streams else _call_windows(items)


def length_windows(items: Sequence[Item], device: str) -> list[Positions]:
    """Return windows of items that are tokenised at once: longest first, those of a text together.

    Args:
        items: What to encode.
        device: A GPU has larger windows.
    """
    limit = _CPU_WINDOW if device == "cpu" else _GPU_WINDOW
    first: dict[str, int] = {}
    for i, item in enumerate(items):
        first.setdefault(item.text, i)

    def longest_first(i: int) -> tuple[int, int]:
        return -len(items[i].text), first[items[i].text]

    order = sorted(range(len(items)), key=longest_first)
    found: list[list[int]] = []
    size, text = limit, None
    for i in order:
        if size >= limit and items[i].text != text:
            found.append([])
            size = 0
        found[-1].append(i)
        text = items[i].text
        size += len(text) + len(items[i].instruction) + _BESIDE
    return [np.asarray(window, np.int64) for window in found]


def by_instruction(items: Sequence[Item]) -> dict[str, list[int]]:
    """Return the positions of the items of each instruction, in order."""
    groups: dict[str, list[int]] = {}
    for i, item in enumerate(items):
        groups.setdefault(item.instruction, []).append(i)
    return groups


def _call_windows(items: Sequence[Item]) -> list[Positions]:
    """Return the items of one instruction after another, at most 4,096 at once."""
    found = []
    for positions in by_instruction(items).values():
        starts = range(0, len(positions), _CALL_TEXTS)
        found += [np.asarray(positions[i : i + _CALL_TEXTS], np.int64) for i in starts]
    return found


def checked(vectors: Embeddings, texts: Sequence[str]) -> Embeddings:
    """Return the vectors if they are embeddings of the texts.

    Args:
        vectors: What an encoder gave for the texts.
        texts: One text per row, named in the message when its vector is at fault.

    Raises:
        EncodingError: Wrong shape or dtype, a NaN or infinite number, or a vector whose numbers are
            all the same.
    """
    if (
        not isinstance(vectors, np.ndarray)
        or vectors.dtype != np.float32
        or vectors.ndim != 2
        or len(vectors) != len(texts)
    ):
        got = (
            f"{vectors.dtype} {vectors.shape}"
            if isinstance(vectors, np.ndarray)
            else type(vectors).__name__
        )
        raise EncodingError(f"expected a float32 numpy array ({len(texts)}, dim), got {got}")
    if not len(texts):
        return vectors
    same = (
        vectors[:, :1] if vectors.shape[1] > 1 else np.zeros((1, 1), np.float32)
    )  # a single number is constant when it is 0
    faults: Mapping[str, Any] = {
        "is not finite": np.logical_not(np.isfinite(vectors)).any(axis=1),
        "is constant (all its numbers are the same)": np.equal(vectors, same).all(axis=1),
    }
    for fault, rows in faults.items():
        if rows.any():
            first = shortened(texts[int(np.argmax(rows))])
            raise EncodingError(
                f"the embedding of {first} {fault} ({int(rows.sum())} of {len(texts)} texts)"
            )
    return vectors


def shortened(text: str, width: int = 60) -> str:
    """Return the text quoted, on one line, and cut to at most ``width`` characters."""
    return repr(text if len(text) <= width else text[: width - 1] + "…")
