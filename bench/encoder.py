"""What an encoder is: one method that turns texts into vectors, and small protocols for those that can do more.

An encoder is a frozen dataclass. Its fields are its settings: plain JSON values; a field that changes speed but not
vectors (device, batch size) is ``field(compare=False)``. Making one is cheap; weights load on the first call.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bench.errors import EncodingError
from bench.overlap import Ngrams

_CALL_TEXTS = 4096  # in one call of an encoder that does not stream

Embeddings = NDArray[np.float32]
"""Vectors of texts: float32 (n, dim)."""


class Item(NamedTuple):
    """One thing to encode: a text and the instruction that says what its embedding is for."""

    text: str
    instruction: str = ""


@dataclass(frozen=True)
class TokenStates:
    """States of the single tokens of one text.

    Attributes:
        states: float32 (t, dim).
        spans: int32 (t, 2), half-open character spans in the text; special tokens have an empty span.
    """

    states: NDArray[np.float32]
    spans: NDArray[np.int32]


@dataclass(frozen=True)
class QuestionVectors:
    """Vectors of questions in the space of token states: ``start`` and ``end``, float32 (m, dim) each."""

    start: NDArray[np.float32]
    end: NDArray[np.float32]


class Marked(NamedTuple):
    """A text and words of it.

    Attributes:
        text: The text.
        spans: First character of each word, and the one after its last, int (words, 2), in order.
        classes: Class of each word (words,); empty where they are to be found.
    """

    text: str
    spans: Sequence[tuple[int, int]]
    classes: Sequence[int] = ()


Side = Literal["query", "document"]
"""The side of a text in retrieval or reranking."""

Pair = tuple[str, str]
Labelled = tuple[Sequence[Pair], Sequence[int]]
"""Pairs, and for each 1 for a paraphrase or 0 for none."""
PairScorer = Callable[[Sequence[Pair]], NDArray[np.float32]]
"""Scores pairs, float32 (n,); above 0 means that two texts say the same."""

Marker = Callable[[Sequence[Marked]], list[NDArray[np.int64]]]
"""Gives the class of each word of each text; -1 for a word that the length limit cut away."""


@dataclass(frozen=True)
class Batch:
    """Vectors of some of the items given to ``stream``, as soon as they are ready.

    Attributes:
        positions: int64 (b,), where in the given items these vectors belong.
        vectors: float32 (b, dim).
        tokens: int32 (b,), token positions of each item that went through the network.
        truncated: bool (b,), whether a part of the text was cut away.
        padded: Token positions computed for this batch, padding included.
    """

    positions: NDArray[np.int64]
    vectors: Embeddings
    tokens: NDArray[np.int32]
    truncated: NDArray[np.bool_]
    padded: int


@dataclass(frozen=True)
class Card:
    """What stands behind an encoder.

    Attributes:
        weights: Hex digest of everything read from disk that shapes a vector; "" when nothing is.
        dtype: Number type of the computation, "float32" or "bfloat16".
        backbone: Name of the pretrained model, as tables should print it.
        parameters: Number of weights used; None when not known without loading.
        trained: False while a method runs on a backbone that was never trained by its recipe.
        licence: Licence of the weights.
        training_tokens: Token positions that went through the trained network; None when not known.
        device: Where the network computes, such as "cpu" or "cuda".
        training: How the weights were trained, the content of the checkpoint's card.json; empty when not known.
        embedding_parameters: Those of the parameters that are looked up, not multiplied with; None when not known.
        passes: Forward passes of the network that a text takes; None when not known, or when there is no network.
        instructed_sides: As the function of this name; filled in by ``bench.encoder.card``.
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
    passes: int | None = None
    instructed_sides: tuple[Side, ...] = ()


@runtime_checkable
class Encoder(Protocol):
    """Turns texts into vectors.

    Two class attributes say what no call can tell: ``version: ClassVar[int]`` and ``follows_instructions: ClassVar[bool]``.
    A third may: ``instructed_sides: ClassVar[tuple[Side, ...]]``, see the function of this name.
    """

    @property
    def version(self) -> int:
        """Raised whenever the same settings and weights begin to give other vectors."""
        ...

    @property
    def follows_instructions(self) -> bool:
        """Whether the instruction can change a vector; if not, one vector per text serves every task."""
        ...

    def encode(self, texts: Sequence[str], *, instruction: str = "") -> Embeddings:
        """Return float32 (n, dim), row i for text i.

        Args:
            texts: Any strings, the empty one included; texts over the length limit are cut.
            instruction: What the embeddings are for; "" is no instruction.
        """
        ...


@runtime_checkable
class StreamingEncoder(Encoder, Protocol):
    """An encoder that takes a whole plan at once and hands out vectors batch by batch, in the order it likes."""

    def stream(self, items: Sequence[Item]) -> Iterator[Batch]:
        """Yield batches that together cover every item exactly once."""
        ...


@runtime_checkable
class TokenEncoder(Encoder, Protocol):
    """An encoder that also gives the states of single tokens."""

    def encode_tokens(self, texts: Sequence[str], *, layer: int = -1) -> list[TokenStates]:
        """Return the states of each text's tokens at one layer (0 = input embeddings, -1 = last), pads removed."""
        ...


@runtime_checkable
class LayeredEncoder(TokenEncoder, Protocol):
    """A token encoder that says how many layers it has, and gives the states of several from one pass."""

    def layer_count(self) -> int:
        """Return the number of the last layer; 0 is below the first."""
        ...

    def encode_layers(
        self, texts: Sequence[str], *, layers: Sequence[int]
    ) -> list[list[TokenStates]]:
        """Return for each layer what ``encode_tokens`` would."""
        ...


@runtime_checkable
class LongTokenEncoder(TokenEncoder, Protocol):
    """A token encoder that reads texts of any length in windows."""

    def encode_long(self, texts: Sequence[str]) -> list[TokenStates]:
        """Return the last-layer states of all tokens of each text."""
        ...


@runtime_checkable
class QuestionEncoder(TokenEncoder, Protocol):
    """A token encoder whose questions live in the space of its token states."""

    def encode_questions(self, questions: Sequence[str]) -> QuestionVectors:
        """Return start and end vectors, float32 (m, dim) each, to be multiplied with token states."""
        ...


@runtime_checkable
class PromptedEncoder(TokenEncoder, Protocol):
    """A token encoder whose language model can also be asked how a text goes on."""

    def score_words(
        self, texts: Sequence[str], *, prompt: str, words: Sequence[str]
    ) -> NDArray[np.float32]:
        """Return the log-probability of each word behind each text and the prompt, float32 (n, m).

        Args:
            texts: Any strings; long ones are cut, the prompt is not.
            prompt: What is put behind each text.
            words: With the white space before them; they differ in their first token, which is what is scored.

        Raises:
            Unavailable: There is no language model behind this encoder.
        """
        ...


@runtime_checkable
class TunableEncoder(TokenEncoder, Protocol):
    """A token encoder whose network can be trained further on a few examples; the encoder itself stays as it is."""

    def tune_pairs(
        self, sets: Sequence[Labelled], *, layers: Sequence[int], epochs: int, seed: int
    ) -> PairScorer:
        """Train a copy of the network to tell pairs apart by BERTScore at some layers, and return what scores pairs.

        Args:
            sets: Training pairs. Several sets follow one another on one copy, each with a classifier of its own; the last one's scores.
            layers: Layers whose BERTScore is a feature each, counted from the last, which is -1.
            epochs: How often each pair is seen.
            seed: The only source of randomness.
        """
        ...

    def tune_classes(
        self,
        marked: Sequence[Marked],
        *,
        classes: int,
        start: NDArray[np.float32] | None,
        epochs: int,
        seed: int,
    ) -> Marker:
        """Train a copy of the network with a linear classifier of words, and return what classifies words.

        Args:
            marked: Training texts with their words and their classes.
            classes: Number of classes.
            start: The classifier's weights at first, float32 (classes, dim); None for random ones.
            epochs: How often each text is seen.
            seed: The only source of randomness.
        """
        ...


@runtime_checkable
class TunableQuestionEncoder(TunableEncoder, QuestionEncoder, Protocol):
    """A question encoder whose network can be trained further on a few examples."""


@runtime_checkable
class SidedEncoder(Encoder, Protocol):
    """An encoder that reads queries and documents in different ways."""

    def for_side(self, side: Side) -> Encoder:
        """Return the encoder of one side; it has another fingerprint wherever its vectors differ."""
        ...


@runtime_checkable
class CardedEncoder(Encoder, Protocol):
    """An encoder that can tell what stands behind it; one without a card has no weights and no backbone."""

    def card(self) -> Card:
        """Return the card, without loading the network.

        Raises:
            Unavailable: The weights cannot be had on this machine.
            CheckpointError: They are there but incomplete.
        """
        ...


@runtime_checkable
class TrainedEncoder(Encoder, Protocol):
    """An encoder that can tell whether a text was trained on."""

    def runs(self) -> Ngrams | None:
        """Return the runs of words of its training data; None where they are not known."""
        ...


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
        """Return the words that each vector makes likelier than the origin does, at most n a vector, the strongest first.

        Args:
            vectors: float32 (m, dim), embeddings or means of embeddings.
            origin: float32 (dim,), what they are compared with, such as the mean of all embeddings.
            n: Most words of a vector.
        """
        ...


@runtime_checkable
class MemoryEncoder(Encoder, Protocol):
    """An encoder that compresses a text into several vectors before they become one."""

    def encode_memory(self, texts: Sequence[str], *, instruction: str = "") -> NDArray[np.float32]:
        """Return the single vectors, float32 (n, k, dim)."""
        ...


@runtime_checkable
class WrappedEncoder(Encoder, Protocol):
    """An encoder that adds something to another and gives the same vectors, so the other's identity is its own."""

    @property
    def inner(self) -> Encoder:
        """The encoder that is wrapped."""
        ...


def unwrapped(encoder: Encoder) -> Encoder:
    """Return the encoder under all wrappers."""
    while isinstance(encoder, WrappedEncoder):
        encoder = encoder.inner
    return encoder


def one_side(encoder: Encoder, side: Side | None) -> Encoder:
    """Return the encoder of one side of a retrieval; the encoder itself where it has no sides, or the text is on none."""
    return encoder.for_side(side) if side and isinstance(encoder, SidedEncoder) else encoder


def instructed_sides(encoder: Encoder) -> tuple[Side, ...]:
    """Return the sides of a retrieval or reranking whose texts get the task's instruction.

    A method says so in its class attribute ``instructed_sides``, and raises its version when that changes; the query alone
    is the default. An encoder that follows no instructions has none. A text that is on no side always gets the instruction.
    """
    encoder = unwrapped(encoder)
    if not encoder.follows_instructions:
        return ()
    sides: tuple[Side, ...] = getattr(encoder, "instructed_sides", ("query",))
    return sides


def card(encoder: Encoder) -> Card:
    """Return the encoder's card, or the empty one, with the sides that get an instruction."""
    encoder = unwrapped(encoder)
    made = encoder.card() if isinstance(encoder, CardedEncoder) else Card()
    return dataclasses.replace(made, instructed_sides=instructed_sides(encoder))


def settings(encoder: Encoder) -> dict[str, Any]:
    """Return the fields that can change a vector, by name, as plain JSON values.

    Raises:
        EncodingError: The encoder is no dataclass, or a field is no plain JSON value.
    """
    encoder = unwrapped(encoder)
    if not dataclasses.is_dataclass(encoder) or isinstance(encoder, type):
        raise EncodingError(
            f"an encoder must be a dataclass instance, got {type(encoder).__name__}: add @dataclass(frozen=True)"
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
    """Return a dataclass field whose identity is in the card's digest, such as the place of weights or the name of a prompt."""
    return dataclasses.field(default=default, metadata={"location": True})


def fingerprint(encoder: Encoder, *, exact: bool = False) -> str:
    """Return 16 hex digits that are equal exactly when class, version, settings and weights are equal.

    Names and places do not count: two folders with the same weights give the same digits, two models under one name
    give different ones. With ``exact`` they stand for the encoder given each text in a batch of its own.
    """
    encoder = unwrapped(encoder)
    own, behind = settings(encoder), card(encoder)
    if isinstance(
        encoder, CardedEncoder
    ):  # the card knows better: what lies in a place, and what dtype "auto" stands for
        places = {f.name for f in dataclasses.fields(encoder) if f.metadata.get("location")}  # type: ignore[arg-type]
        own = {name: value for name, value in own.items() if name not in places | {"dtype"}}
    return digest(
        {
            "class": f"{type(encoder).__module__}.{type(encoder).__qualname__}",
            "version": encoder.version,
            "settings": own,
            "weights": behind.weights,
            "dtype": behind.dtype,
            **({"exact": True} if exact else {}),
        }
    )[:16]


def digest(value: object) -> str:
    """Return the sha256, in hex, of a plain JSON value in canonical form."""
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    ).hexdigest()


def gather(batches: Iterable[Batch], n: int) -> Embeddings:
    """Put streamed batches back in the order of the items: float32 (n, dim), NaN where the batches leave an item out."""
    out: Embeddings | None = None
    for batch in batches:
        if out is None:
            out = np.full((n, batch.vectors.shape[1]), np.nan, dtype=np.float32)
        out[batch.positions] = batch.vectors
    return np.empty((0, 0), dtype=np.float32) if out is None else out


def stream(encoder: Encoder, items: Sequence[Item]) -> Iterator[Batch]:
    """Yield the vectors of items from any encoder, checked.

    An encoder without ``stream`` gets the texts of one instruction after another, at most 4,096
    in a call, so that the vectors of all of them need not fit into memory twice.

    Raises:
        EncodingError: As ``checked``, or an item is left out.
    """
    if isinstance(encoder, StreamingEncoder):
        left = np.ones(len(items), np.bool_)
        for batch in encoder.stream(items):
            checked(batch.vectors, [items[i].text for i in batch.positions])
            left[batch.positions] = False
            yield batch
        if left.any():
            example = shortened(items[int(left.argmax())].text)
            raise EncodingError(
                f"the stream left out {left.sum()} of {len(items)} items, {example} for one"
            )
        return
    groups: dict[str, list[int]] = {}
    for i, item in enumerate(items):
        groups.setdefault(item.instruction, []).append(i)
    for instruction, positions in groups.items():
        for start in range(0, len(positions), _CALL_TEXTS):
            some = positions[start : start + _CALL_TEXTS]
            texts = [items[i].text for i in some]
            vectors = checked(encoder.encode(texts, instruction=instruction), texts)
            n = len(some)
            yield Batch(np.asarray(some), vectors, np.zeros(n, np.int32), np.zeros(n, bool), 0)


def checked(vectors: Embeddings, texts: Sequence[str]) -> Embeddings:
    """Return the vectors if they are embeddings of the texts.

    Args:
        vectors: What an encoder gave for the texts.
        texts: One text per row, named in the message when its vector is at fault.

    Raises:
        EncodingError: Wrong shape or dtype, a NaN or infinite number, or a vector whose numbers are all the same.
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
