"""The contract: a sound encoder passes, and its rule finds each planted fault."""

import dataclasses
import logging
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pytest

from bench.encoder import Batch, Card, Embeddings, Item, QuestionVectors, TokenStates, gather
from bench.testing import ContractError, check_encoder, run_checks

DIM = 16


def _word(word: str) -> np.ndarray:
    return np.random.default_rng(list(word.encode())).standard_normal(DIM).astype(np.float32)


@dataclass(frozen=True)
class Sound:
    """Words are random vectors, texts the mean of their first words; has all abilities."""

    words: int = 50
    checkpoint: str = ""
    version: ClassVar[int] = 1
    follows_instructions: ClassVar[bool] = True

    def encode(self, texts: Sequence[str], *, instruction: str = "") -> Embeddings:
        return gather(self.stream([Item(text, instruction) for text in texts]), len(texts))

    def stream(self, items: Sequence[Item]) -> Iterator[Batch]:
        order = sorted(range(len(items)), key=lambda i: -len(items[i].text))
        for i in range(0, len(order), 4):
            chosen = order[i : i + 4]
            states = [
                self._states(f"{items[j].instruction} {items[j].text}".strip()).states
                for j in chosen
            ]
            sizes = np.array([len(s) for s in states], np.int32)
            vectors = np.stack([s.mean(axis=0) for s in states])
            yield Batch(
                np.array(chosen),
                vectors,
                sizes,
                np.zeros(len(chosen), bool),
                int(sizes.max()) * len(chosen),
            )

    def encode_tokens(self, texts: Sequence[str], *, layer: int = -1) -> list[TokenStates]:
        return [self._states(text) for text in texts]

    def encode_questions(self, questions: Sequence[str]) -> QuestionVectors:
        vectors = self.encode(questions)
        return QuestionVectors(vectors, -vectors)

    def answer(self, texts: Sequence[str], *, instruction: str = "") -> list[str]:
        return [text.split()[0] if text.split() else "" for text in texts]

    def read_words(self, vectors: Embeddings, origin: Embeddings, n: int) -> list[list[str]]:
        scores = (vectors - origin) @ np.stack([_word(word) for word in ("cat", "dog", "rain")]).T
        return [[("cat", "dog", "rain")[i] for i in (-row).argsort()][:n] for row in scores]

    def score_words(self, texts: Sequence[str], *, prompt: str, words: Sequence[str]) -> np.ndarray:
        products = (
            self.encode([text + prompt for text in texts])
            @ np.stack([_word(word) for word in words]).T
        )
        return (products - np.logaddexp.reduce(products, axis=1, keepdims=True)).astype(np.float32)

    def _states(self, text: str) -> TokenStates:
        matches = list(re.finditer(r"\S+", text))[: self.words]
        spans = np.array([(0, 0), *(match.span() for match in matches)], np.int32)
        return TokenStates(
            np.stack([_word("<s>"), *(_word(match.group()) for match in matches)]), spans
        )


@dataclass(frozen=True)
class OnlyEncodes(Sound):
    """The same without streaming, so that a fault in ``encode`` stays there."""

    stream = None
    encode_tokens = None
    encode_questions = None

    def encode(self, texts, *, instruction=""):
        return (
            np.stack(
                [
                    self._states(f"{instruction} {text}".strip()).states.mean(axis=0)
                    for text in texts
                ]
            )
            if len(texts)
            else np.empty((0, DIM), np.float32)
        )


def _long(texts):
    if any(len(text.split()) > 512 for text in texts):
        raise IndexError("index out of range in self")
    return texts


def _sort_in_place(texts):
    if isinstance(texts, list):
        texts.sort()
    return texts


def _seed_globally(texts):
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - the fault
    return texts


def _nan_where(rows, wrong):
    rows[wrong] = np.nan
    return rows


def _drop_out(rows):
    return rows * (np.random.default_rng().random(rows.shape) > 0.1).astype(np.float32)


def _add_padding(rows, texts):
    lengths = np.array([len(text.split()) for text in texts], np.float32)
    return rows + 0.01 * (lengths.max(initial=0) - lengths)[:, None]


NAN = np.float32(np.nan)
BEFORE = {
    "drops empty texts": ("shape", lambda texts: [text for text in texts if text.strip()]),
    "drops repeated texts": ("shape", lambda texts: list(dict.fromkeys(texts))),
    "a sort not undone": ("order", lambda texts: sorted(texts, key=len)),
    "refuses long texts": ("long text", _long),
    "sorts the caller's list": ("no side effects", _sort_in_place),
    "seeds globally": ("no side effects", _seed_globally),
}
"""Faults in what is done with the texts before they are encoded, and the rules that find them."""

AFTER = {
    "half precision": ("shape", lambda rows, *_: rows.astype(np.float16)),
    "NaN from empty texts": (
        "shape",
        lambda rows, texts, _: _nan_where(rows, [not t for t in texts]),
    ),
    "NaN from an empty text alone": (
        "batching",
        lambda rows, texts, _: rows if any(texts) else rows * NAN,
    ),
    "NaN under an instruction": (
        "instruction",
        lambda rows, _, instruction: rows * NAN if instruction else rows,
    ),
    "constant": ("distinct", lambda rows, *_: np.tile(_word("same"), (len(rows), 1))),
    "dropout": ("repeatable", lambda rows, *_: _drop_out(rows)),
    "unmasked padding": ("batching", lambda rows, texts, _: _add_padding(rows, texts)),
}
"""Faults in the vectors, from vectors, texts and instruction, and the rules that find them."""


def planted_before(change):
    class Faulty(OnlyEncodes):
        def encode(self, texts, *, instruction=""):
            return super().encode(change(texts), instruction=instruction)

    return Faulty


def planted_after(change):
    class Faulty(OnlyEncodes):
        def encode(self, texts, *, instruction=""):
            return change(super().encode(texts, instruction=instruction), texts, instruction)

    return Faulty


class LeakingTemplate(OnlyEncodes):
    def encode(self, texts, *, instruction=None):
        told = "" if instruction is None else f"Instruct: {instruction}"
        return super().encode(texts, instruction=told)


class SaysItFollows(OnlyEncodes):
    def encode(self, texts, *, instruction=""):
        return super().encode(texts)


@dataclass(unsafe_hash=True)
class Unfrozen:
    words: int = 50
    version: ClassVar[int] = 1
    follows_instructions: ClassVar[bool] = True

    def encode(self, texts, *, instruction=""):
        return OnlyEncodes(self.words).encode(texts, instruction=instruction)


@dataclass(frozen=True)
class UnrecordableSetting(OnlyEncodes):
    words: object = field(default_factory=lambda: slice(50))

    def _states(self, text):
        return Sound()._states(text)


class UnstableCard(OnlyEncodes):
    def card(self):
        return Card(weights=str(random.random()))


class StreamDropsAnItem(Sound):
    def encode(self, texts, *, instruction=""):
        return OnlyEncodes().encode(texts, instruction=instruction)

    def stream(self, items):
        return super().stream(items[:-1])


@dataclass(frozen=True)
class StreamsAside(Sound):
    """A stream of its own beside a sound ``encode``, so that a fault in the stream stays there."""

    change: ClassVar[dict] = {}

    def encode(self, texts, *, instruction=""):
        return OnlyEncodes().encode(texts, instruction=instruction)

    def stream(self, items):
        return (
            dataclasses.replace(
                batch, **{name: f(getattr(batch, name)) for name, f in self.change.items()}
            )
            for batch in super().stream(items)
        )


class StreamsNothing(StreamsAside):
    def stream(self, items):
        return iter(())


STREAMS = {
    "doubles": {"vectors": lambda rows: rows.astype(np.float64)},
    "NaN": {"vectors": lambda rows: rows * NAN},
    "too few counts": {"tokens": lambda tokens: tokens[:1]},
    "out of step": {"vectors": lambda rows: rows[::-1]},
}
"""What a faulty stream does to fields of its batches."""


def planted_in_stream(change):
    return type("Faulty", (StreamsAside,), {"change": change})


class FailsAtOtherLayers(Sound):
    def encode_tokens(self, texts, *, layer=-1):
        found = super().encode_tokens(texts)
        return found if layer == -1 else [TokenStates(t.states[1:], t.spans[1:]) for t in found]


class LayersInAnotherOrder(Sound):
    def layer_count(self):
        return 2

    def encode_layers(self, texts, *, layers):
        return [self.encode_tokens(texts, layer=layer) for layer in layers][:1] * len(layers)

    def encode_tokens(self, texts, *, layer=-1):
        return [
            TokenStates(t.states + np.float32(layer), t.spans) for t in super().encode_tokens(texts)
        ]


class SpansOffByOne(Sound):
    def _states(self, text):
        states = super()._states(text)
        return TokenStates(
            states.states,
            np.where(states.spans > 0, states.spans - 1, states.spans).astype(np.int32),
        )


class PadsLeftIn(Sound):
    def encode_tokens(self, texts, *, layer=-1):
        found = super().encode_tokens(texts)
        longest = max(len(tokens.states) for tokens in found)
        return [
            TokenStates(
                np.resize(t.states, (longest, DIM)),
                np.concatenate([t.spans, np.zeros((longest - len(t.spans), 2), np.int32)]),
            )
            for t in found
        ]


class QuestionsOfAnotherWidth(Sound):
    def encode_questions(self, questions):
        wide = np.repeat(self.encode(questions), 2, axis=1)
        return QuestionVectors(wide, wide)


class AnswersOnLines(Sound):
    def answer(self, texts, *, instruction=""):
        return ["yes\nno" for _ in texts]


class AnswersByChance(Sound):
    def answer(self, texts, *, instruction=""):
        return [str(np.random.default_rng().integers(10**9)) for _ in texts]


class ReadsWordsTwice(Sound):
    def read_words(self, vectors, origin, n):
        return [["word"] * n for _ in vectors]


class ScoresThatAreNoLogarithms(Sound):
    def score_words(self, texts, *, prompt, words):
        return np.exp(super().score_words(texts, prompt=prompt, words=words))


class ScoresByCompany(Sound):
    def score_words(self, texts, *, prompt, words):
        return super().score_words(texts, prompt=prompt, words=words) - np.float32(len(texts))


FAULTS = {
    **{name: (planted_before(change), rule) for name, (rule, change) in BEFORE.items()},
    **{name: (planted_after(change), rule) for name, (rule, change) in AFTER.items()},
    **{f"streams {name}": (planted_in_stream(c), "streaming") for name, c in STREAMS.items()},
    "a leaking template": (LeakingTemplate, "instruction"),
    "says it follows": (SaysItFollows, "instruction"),
    "unfrozen": (Unfrozen, "settings"),
    "an unrecordable setting": (UnrecordableSetting, "settings"),
    "an unstable card": (UnstableCard, "card"),
    "a stream drops an item": (StreamDropsAnItem, "streaming"),
    "streams nothing": (StreamsNothing, "streaming"),
    "fails at other layers": (FailsAtOtherLayers, "tokens"),
    "layers in another order": (LayersInAnotherOrder, "tokens"),
    "spans off by one": (SpansOffByOne, "tokens"),
    "pads left in": (PadsLeftIn, "tokens"),
    "questions of another width": (QuestionsOfAnotherWidth, "questions"),
    "answers on lines": (AnswersOnLines, "answers"),
    "answers by chance": (AnswersByChance, "answers"),
    "reads words twice": (ReadsWordsTwice, "words"),
    "scores that are no logarithms": (ScoresThatAreNoLogarithms, "prompted"),
    "scores by company": (ScoresByCompany, "prompted"),
}


def test_a_sound_encoder_passes_every_rule():
    assert [(o.name, o.reason) for o in run_checks(Sound()) if o.status != "passed"] == []
    check_encoder(Sound())


def test_rules_about_what_an_encoder_does_not_offer_are_skipped():
    @dataclass(frozen=True)
    class Plain:
        version: ClassVar[int] = 1
        follows_instructions: ClassVar[bool] = True

        def encode(self, texts, *, instruction=""):
            return OnlyEncodes().encode(texts, instruction=instruction)

    assert {o.name for o in run_checks(Plain()) if o.status == "skipped"} == {
        *("streaming", "tokens", "questions", "answers", "words", "prompted"),
    }
    check_encoder(Plain())


@pytest.mark.parametrize("name", FAULTS)
def test_each_planted_fault_is_caught_by_the_rule_named_for_it(name):
    faulty, rule = FAULTS[name]
    broken = {o.name: o.reason for o in run_checks(faulty()) if o.status == "failed"}
    assert broken[rule]
    assert not broken[rule].startswith("raised") or name == "refuses long texts"


def test_a_faulty_encoder_is_refused_with_the_names_of_all_broken_rules():
    with pytest.raises(ContractError, match=r"(?s)shape.*instruction.*long text"):
        check_encoder(FAULTS["half precision"][0]())


def test_a_setting_that_only_changes_speed_is_not_part_of_the_identity():
    @dataclass(frozen=True)
    class Batched(Sound):
        batch: int = field(default=8, compare=False)

    assert dataclasses.replace(Batched(), batch=1) == Batched()
    check_encoder(Batched(batch=3))


def test_a_crash_is_told_with_its_place_and_logged_with_its_traceback(caplog):
    with caplog.at_level(logging.DEBUG, logger="bench"):
        outcomes = list(run_checks(FAULTS["refuses long texts"][0]()))
    broken = {o.name: o.reason for o in outcomes if o.status == "failed"}
    assert re.search(
        r"IndexError: index out of range in self \(at .*test_testing\.py:\d+\)", broken["long text"]
    )
    assert any(record.exc_info for record in caplog.records)
