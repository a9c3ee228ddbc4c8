"""The contract of encoders, one rule a function. Nothing here needs a test framework."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.encoder import (
    Batch,
    Encoder,
    Item,
    QuestionEncoder,
    TokenEncoder,
    TokenStates,
    card,
    fingerprint,
    gather,
    settings,
    shortened,
)
from bench.errors import EncodingError, Unavailable
from bench.testing.agreement import ContractError, agree, distance, embeddings, tolerance
from bench.testing.randomness import random_states_touched
from bench.testing.rules import CheckOutcome, SkippedRule, check_frozen, try_rules

_LONG = (
    "The cat sat on the mat while the dog, who had never liked the cat very much, "
    "looked out of the window and waited for rain."
)

TEXTS = (
    "A man is playing a flute.",
    "",
    _LONG,
    "x",
    "Emoji \U0001f642 \U0001f469\u200d\U0001f467, naïve café, 中文, שלום.",
    " ",
    "first line\n\nsecond line\ttab",
    "In 2021, 1,234.5 units were sold.",
    "Somebody is making music.",
    "A man is playing a flute.",
)
"""Texts that every encoder takes: short, long, empty, in several scripts, one of them twice."""

INSTRUCTION = "What is the text about?"


def check_encoder(encoder: Encoder) -> None:
    """Check an encoder against every rule.

    Raises:
        ContractError: Some are broken; all of them are named.
    """
    broken = [
        f"{outcome.name}: {outcome.reason}"
        for outcome in run_checks(encoder)
        if outcome.status == "failed"
    ]
    if broken:
        raise ContractError("\n".join(broken))


def run_checks(encoder: Encoder) -> Iterator[CheckOutcome]:
    """Yield the outcome of every rule."""
    return try_rules(CHECKS, encoder)


def check_shape(encoder: Encoder) -> None:
    """Vectors are finite, varied float32 (n, dim), one a text, an empty text included."""
    embeddings(
        encoder.encode(TEXTS), TEXTS, "half precision, a dropped row, or no token in an empty text"
    )
    if len(none := encoder.encode([])) != 0:
        raise ContractError(f"no texts give {len(none)} rows, expected none")


def check_distinct(encoder: Encoder) -> None:
    """Texts that say different things have different vectors."""
    vectors = encoder.encode([TEXTS[0], TEXTS[2]])
    a, b = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    if np.allclose(a, b, atol=1e-6):
        raise ContractError(
            f"{shortened(TEXTS[0])} and {shortened(TEXTS[2])} have one vector; "
            "the text does not reach the network"
        )


def check_repeatable(encoder: Encoder) -> None:
    """Two equal calls agree."""
    agree(
        encoder,
        encoder.encode(TEXTS),
        encoder.encode(TEXTS),
        TEXTS,
        "a second call gives",
        "dropout left on, or unseeded randomness",
    )


def check_batching(encoder: Encoder) -> None:
    """A text alone has the vector it has among others."""
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    agree(
        encoder,
        encoder.encode(TEXTS),
        alone,
        TEXTS,
        "alone gives",
        "padding not masked, padded on the wrong side, or position ids off",
    )


def check_order(encoder: Encoder) -> None:
    """Rows come in the order of the texts."""
    forward, backward = encoder.encode(TEXTS), encoder.encode(TEXTS[::-1])[::-1]
    agree(
        encoder, forward, backward, TEXTS, "the reversed list gives", "a sort by length not undone"
    )


def check_instruction(encoder: Encoder) -> None:
    """The empty instruction is none; another changes vectors only where they are followed."""
    plain = encoder.encode(TEXTS)
    spaced = embeddings(
        encoder.encode(TEXTS, instruction=INSTRUCTION),
        TEXTS,
        "a template without room for the text",
    )
    agree(
        encoder,
        plain,
        encoder.encode(TEXTS, instruction=""),
        TEXTS,
        "instruction='' gives",
        "a template that leaks into plain use",
    )
    if plain.shape != spaced.shape:
        raise ContractError(
            f"with an instruction the shape is {spaced.shape}, without {plain.shape}; "
            "expected the same"
        )
    changed = float(distance(plain, spaced).max()) > tolerance(encoder)
    if changed != encoder.follows_instructions:
        got = "changes vectors" if changed else "changes nothing"
        raise ContractError(
            f"follows_instructions is {encoder.follows_instructions}, yet an instruction {got}; "
            "set it right"
        )


def check_long_text(encoder: Encoder) -> None:
    """A text of 20,000 words is cut, not refused, and does not change the others."""
    long = " ".join(["word", "another", "third"] * 6_667)
    both = embeddings(encoder.encode([TEXTS[0], long]), [TEXTS[0], long], "missing truncation")
    agree(
        encoder,
        encoder.encode([TEXTS[0]]),
        both[:1],
        TEXTS[:1],
        "beside a long text gives",
        "padding not masked",
    )


def check_settings(encoder: Encoder) -> None:
    """The settings are frozen, plain JSON, and make an equal encoder again."""
    try:
        plain = settings(encoder)
        again = type(encoder)(**json.loads(json.dumps(plain)))
    except (EncodingError, TypeError) as error:
        raise ContractError(f"settings do not survive a round trip: {error}") from error
    if (
        again != encoder
        or hash(again) != hash(encoder)
        or fingerprint(again) != fingerprint(encoder)
    ):
        raise ContractError(
            f"an encoder made from the settings {plain} is another one; "
            "a setting is not kept as it was given"
        )
    check_frozen(encoder, "encoder")


def check_card(encoder: Encoder) -> None:
    """The card is plain JSON and, like the fingerprint, the same each time it is asked for."""
    first, second = (json.dumps(dataclasses.asdict(card(encoder))) for _ in range(2))
    if first != second:
        raise ContractError(f"the card is not the same plain JSON twice: {first}")
    prints = {fingerprint(encoder) for _ in range(2)}
    if len(prints) != 1 or len(prints.pop()) != 16:
        raise ContractError(
            "the fingerprint is not stable; the digest of the weights must be one of their content"
        )


def check_no_side_effects(encoder: Encoder) -> None:
    """Encoding leaves the global random state alone, and the list of texts that it is given."""
    encoder.encode(TEXTS[:1])  # weights load now, and so does torch
    texts = list(TEXTS)

    def use() -> None:
        encoder.encode(texts)
        if isinstance(encoder, TokenEncoder):
            encoder.encode_tokens(TEXTS)

    if touched := random_states_touched(use):
        raise ContractError(
            f"encoding touches the global random state of {', '.join(touched)}; pass a generator, "
            "never seed globally"
        )
    if texts != list(TEXTS):
        raise ContractError("encoding changes the list of texts it is given; sort or clean a copy")


def check_streaming(encoder: Encoder) -> None:
    """A stream gives every item once, with the vector of ``encode``, and counts tokens."""
    stream = _method(encoder, "stream", "no stream")
    items = [Item(text) for text in TEXTS] + [Item(text, INSTRUCTION) for text in TEXTS]
    batches = list(stream(items))
    positions = sorted(map(int, chain(*(batch.positions for batch in batches))))
    if positions != list(range(len(items))):
        raise ContractError(
            f"a stream of {len(items)} items gives positions {positions}; expected each once"
        )
    for batch in batches:
        _check_batch(items, batch)
    whole = np.concatenate([encoder.encode(TEXTS), encoder.encode(TEXTS, instruction=INSTRUCTION)])
    agree(
        encoder,
        whole,
        gather(batches, len(items)),
        [i.text for i in items],
        "a stream gives",
        "positions that do not fit the vectors",
    )


def check_tokens(encoder: Encoder) -> None:
    """Token states are finite float32 without padding; their spans cover the text in order."""
    if not isinstance(encoder, TokenEncoder):
        raise SkippedRule("no token states")
    together = encoder.encode_tokens(TEXTS)
    alone = [encoder.encode_tokens([text])[0] for text in TEXTS]
    if len(together) != len(TEXTS):
        raise ContractError(f"{len(TEXTS)} texts give {len(together)} sets of token states")
    for text, one, many in zip(TEXTS, alone, together, strict=True):
        _check_spans(text, many)
        if one.states.shape != many.states.shape:
            raise ContractError(
                f"{shortened(text)} has {len(many.states)} token states among others and "
                f"{len(one.states)} alone; pads left in"
            )
        agree(
            encoder,
            many.states,
            one.states,
            [text] * len(many.states),
            "token states alone give",
            "padding not masked",
        )
    if not np.array_equal(encoder.encode_tokens(TEXTS[:1], layer=0)[0].spans, together[0].spans):
        raise ContractError(
            f"layer 0 has other spans than the last layer for {shortened(TEXTS[0])}; "
            "expected the same tokens at all layers"
        )
    if getattr(encoder, "encode_layers", None):
        _check_layers(encoder)


def _check_layers(encoder: Any) -> None:  # noqa: ANN401 - has two of the optional methods
    layers = (0, encoder.layer_count())
    found = encoder.encode_layers(TEXTS, layers=layers)
    if len(found) != len(layers):
        raise ContractError(
            f"{len(layers)} layers give {len(found)} lists of token states; expected one a layer"
        )
    for layer, states in zip((0, -1), found, strict=True):
        for text, one, many in zip(
            TEXTS, encoder.encode_tokens(TEXTS, layer=layer), states, strict=True
        ):
            agree(
                encoder,
                many.states,
                one.states,
                [text] * len(one.states),
                f"layer {layer} among others gives",
                "layers in another order",
            )


def check_questions(encoder: Encoder) -> None:
    """Question vectors are finite float32 (m, dim) as wide as token states, in any batch."""
    if not isinstance(encoder, QuestionEncoder):
        raise SkippedRule("no question vectors")
    questions = [
        "Who plays?",
        "What is the reason this movie is good, and why would anybody want to see it twice?",
        "",
    ]
    found = encoder.encode_questions(questions)
    width = encoder.encode_tokens(TEXTS[:1])[0].states.shape[1]
    for name, vectors in (("start", found.start), ("end", found.end)):
        embeddings(vectors, questions, "half precision, or a dropped row")
        if vectors.shape[1] != width:
            raise ContractError(
                f"{name} vectors have {vectors.shape[1]} numbers, token states {width}; "
                "expected the same space"
            )
        alone = np.concatenate(
            [getattr(encoder.encode_questions([question]), name) for question in questions]
        )
        agree(
            encoder, vectors, alone, questions, f"{name} vectors alone give", "padding not masked"
        )


def check_answers(encoder: Encoder) -> None:
    """Each text has one answer, on one line, the same in every call."""
    answer = _method(encoder, "answer", "no answers")
    found = answer(TEXTS, instruction=INSTRUCTION)
    if len(found) != len(TEXTS) or not all(
        isinstance(text, str) and len(text.splitlines()) <= 1 for text in found
    ):
        raise ContractError(
            f"{len(TEXTS)} texts have the answers {found}; expected a string of one line for each"
        )
    if found != answer(TEXTS, instruction=INSTRUCTION):
        raise ContractError(
            "two equal calls give other answers; sampled without a seed, or dropout left on"
        )


def check_words(encoder: Encoder) -> None:
    """Vectors are read as at most n different words each."""
    read_words = _method(encoder, "read_words", "no words")
    vectors = encoder.encode(TEXTS[:3], instruction=INSTRUCTION)
    found = read_words(vectors, vectors.mean(axis=0), 4)
    if len(found) != len(vectors) or any(
        len(words) > 4 or len(set(words)) < len(words) for words in found
    ):
        raise ContractError(
            f"{len(vectors)} vectors are read as {found}; "
            "expected at most 4 different words for each"
        )


def check_prompted(encoder: Encoder) -> None:
    """Words have finite log-probabilities, float32 (n, m), the same in any batch."""
    score_words = _method(encoder, "score_words", "no language model to ask")
    prompt, words = "\nQuestion: Is this good or bad?\nAnswer: It is", (" good", " bad")
    try:
        found = score_words(TEXTS, prompt=prompt, words=words)
    except Unavailable as error:
        raise SkippedRule(str(error)) from error
    if (
        found.dtype != np.float32
        or found.shape != (len(TEXTS), 2)
        or not np.isfinite(found).all()
        or (found > 0).any()
    ):
        raise ContractError(
            f"words have the scores {found.dtype} {found.shape}; "
            f"expected finite float32 ({len(TEXTS)}, 2), none above 0"
        )
    alone = np.concatenate([score_words([text], prompt=prompt, words=words) for text in TEXTS])
    agree(encoder, found, alone, TEXTS, "scores of words alone give", "padding not masked")


CHECKS: tuple[Callable[[Encoder], None], ...] = (
    check_shape,
    check_distinct,
    check_repeatable,
    check_batching,
    check_order,
    check_instruction,
    check_long_text,
    check_settings,
    check_card,
    check_no_side_effects,
    check_streaming,
    check_tokens,
    check_questions,
    check_answers,
    check_words,
    check_prompted,
)
"""The rules, in the order in which they are tried."""


def _method(encoder: Encoder, name: str, lack: str) -> Callable[..., Any]:
    method: Callable[..., Any] | None = getattr(encoder, name, None)
    if method is None:
        raise SkippedRule(lack)
    return method


def _check_batch(items: Sequence[Item], batch: Batch) -> None:
    embeddings(
        batch.vectors,
        [items[i].text for i in batch.positions],
        "vectors of a stream must be embeddings like those of encode",
    )
    counts = len(batch.positions), len(batch.tokens), len(batch.truncated)
    if len(set(counts)) > 1:
        raise ContractError(
            f"a batch has (positions, tokens, truncated) of lengths {counts}; "
            "expected one of each an item"
        )
    if batch.padded < batch.tokens.sum() or (batch.tokens < 1).any():
        raise ContractError(
            "a batch counts fewer padded positions than tokens, or an item without a token"
        )


def _check_spans(text: str, tokens: TokenStates) -> None:
    states, spans, where = tokens.states, tokens.spans, shortened(text)
    if (
        states.dtype != np.float32
        or states.ndim != 2
        or (text.strip() and not len(states))
        or not np.isfinite(states).all()
    ):
        raise ContractError(
            f"token states of {where} are {states.dtype} {states.shape}; "
            "expected finite float32 (t, dim), one a word at least"
        )
    if (
        spans.shape != (len(states), 2)
        or (spans < 0).any()
        or (spans > len(text)).any()
        or (spans[:, 0] > spans[:, 1]).any()
    ):
        raise ContractError(
            f"spans of {where} are {spans.tolist()}; expected one (start, "
            "end) inside the text for each state"
        )
    real = spans[spans[:, 1] > spans[:, 0]]
    covered: NDArray[np.bool_] = np.zeros(len(text), bool)
    for start, end in real:
        covered[start:end] = True
    if (np.diff(real[:, 0]) < 0).any() or any(
        not c and not character.isspace() for c, character in zip(covered, text, strict=True)
    ):
        raise ContractError(
            f"spans of {where} are {real.tolist()}; expected them to cover it in order: "
            "off by one, or special tokens counted"
        )
