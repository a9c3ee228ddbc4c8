"""The contracts: a sound encoder and task pass, and their rules find each planted fault."""

import dataclasses
import logging
import os
import random
import re
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pytest

from bench.encoder import Batch, Card, Item, QuestionVectors, TokenStates, gather
from bench.errors import DataError, EncodingError, Unavailable
from bench.task import Score, Task
from bench.testing import ContractError, check_encoder, check_task, run_checks
from tests.bench.encoders import Plain, Words, vector

NAN = np.float32(np.nan)


@dataclass(frozen=True)
class Sound(Words):
    """Has every ability: words are random vectors, texts the mean of their first words."""

    cut: int = 50
    checkpoint: str = ""

    def encode(self, texts, *, instruction=""):
        return gather(self.stream([Item(text, instruction) for text in texts]), len(texts))

    def stream(self, items):
        order = sorted(range(len(items)), key=lambda i: -len(items[i].text))
        for start in range(0, len(order), 4):
            chosen = np.array(order[start : start + 4])
            texts = [f"{items[i].instruction} {items[i].text}".strip() for i in chosen]
            states = [tokens.states for tokens in self.encode_tokens(texts)]
            sizes = np.array([len(s) for s in states], np.int32)
            vectors = np.stack([s.mean(axis=0) for s in states])
            cut = np.zeros(len(chosen), bool)
            yield Batch(chosen, vectors, sizes, cut, int(sizes.max()) * len(chosen))

    def encode_tokens(self, texts, *, layer=-1):
        return super().encode_tokens(texts)

    def encode_questions(self, questions):
        vectors = self.encode(questions)
        return QuestionVectors(vectors, -vectors)

    def answer(self, texts, *, instruction=""):
        return [(text.split() or [""])[0] for text in texts]

    def read_words(self, vectors, origin, n):
        words = np.array(["cat", "dog", "rain"])
        scores = (vectors - origin) @ np.stack([vector(word, self.dim) for word in words]).T
        return [words[(-row).argsort()][:n].tolist() for row in scores]

    def score_words(self, texts, *, prompt, words):
        return super().score_words([text + prompt for text in texts], prompt="", words=words)


@dataclass(frozen=True)
class OnlyEncodes(Sound):
    """The same without streaming, so that a fault in ``encode`` stays there."""

    stream = encode_tokens = encode_questions = score_words = answer = read_words = None

    def encode(self, texts, *, instruction=""):
        texts = [f"{instruction} {text}".strip() for text in texts]
        means = [tokens.states.mean(axis=0) for tokens in Sound(self.dim).encode_tokens(texts)]
        return np.array(means, np.float32).reshape(-1, self.dim)


class Streaming(Sound):
    """The same with a stream of its own, so that a fault in it stays there."""

    encode = OnlyEncodes.encode


def before(change):
    """A fault in what is done with the texts before they are encoded."""

    class Faulty(OnlyEncodes):
        def encode(self, texts, *, instruction=""):
            return super().encode(change(texts), instruction=instruction)

    return Faulty


def after(change, name="encode", base=OnlyEncodes):
    """A fault in what a method returns, from its result, first argument and options."""

    class Faulty(base):
        pass

    def method(self, first, *args, **options):
        return change(getattr(super(Faulty, self), name)(first, *args, **options), first, options)

    setattr(Faulty, name, method)
    return Faulty


def gives(name, change):
    """A fault in what another method gives, from its result and its first argument."""
    return after(lambda found, first, _: change(found, first), name, Sound)


def in_batches(**changes):
    """A fault in a field of the batches of a stream."""

    def change(batch):
        fields = {name: change(getattr(batch, name)) for name, change in changes.items()}
        return dataclasses.replace(batch, **fields)

    return after(lambda batches, *_: map(change, batches), "stream", Streaming)


def of_items(change):
    """A stream that makes something else of its items."""

    class Faulty(Streaming):
        def stream(self, items):
            return super().stream(change(items))

    return Faulty


def refuse_long(texts):
    if any(len(text.split()) > 512 for text in texts):
        raise IndexError("index out of range in self")
    return texts


def sort_in_place(texts):
    if isinstance(texts, list):
        texts.sort()
    return texts


def seed_globally(texts):
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - the fault
    return texts


def lose_empty(rows, texts, _):
    rows[[not text for text in texts]] = np.nan
    return rows


def lose_instructed(rows, _, options):
    return rows * NAN if options.get("instruction") else rows


def drop_out(rows, *_):
    return rows * (np.random.default_rng().random(rows.shape) > 0.1).astype(np.float32)


def add_padding(rows, texts, _):
    lengths = np.array([len(text.split()) for text in texts], np.float32)
    return rows + 0.01 * (lengths.max(initial=0) - lengths)[:, None]


def shift_spans(found, *_):
    return [TokenStates(t.states, t.spans - (t.spans > 0).astype(np.int32)) for t in found]


def lose_a_state(found, _, options):
    lost = options.get("layer", -1) != -1
    return [TokenStates(t.states[lost:], t.spans[lost:]) for t in found]


def leave_pads(found, *_):
    longest, padded = max(len(t.states) for t in found), []
    for t in found:
        pads = np.zeros((longest - len(t.spans), 2), np.int32)
        states = np.resize(t.states, (longest, t.states.shape[1]))
        padded.append(TokenStates(states, np.concatenate([t.spans, pads])))
    return padded


def widen(found, *_):
    wide = np.repeat(found.start, 2, axis=1)
    return QuestionVectors(wide, wide)


class LeakingTemplate(OnlyEncodes):
    def encode(self, texts, *, instruction=None):
        told = "" if instruction is None else f"Instruct: {instruction}"
        return super().encode(texts, instruction=told)


@dataclass(unsafe_hash=True)
class Unfrozen:
    dim: int = 50
    version: ClassVar[int] = 1
    follows_instructions: ClassVar[bool] = True
    encode = OnlyEncodes.encode


@dataclass(frozen=True)
class UnrecordableSetting(OnlyEncodes):
    words: object = field(default_factory=lambda: slice(50))


class UnstableCard(OnlyEncodes):
    card = staticmethod(lambda: Card(weights=os.urandom(8).hex()))


class LayersInAnotherOrder(Sound):
    def layer_count(self):
        return 2

    def encode_layers(self, texts, *, layers):
        return [self.encode_tokens(texts, layer=layers[0])] * len(layers)

    def encode_tokens(self, texts, *, layer=-1):
        found = super().encode_tokens(texts)
        return [TokenStates(t.states + np.float32(layer), t.spans) for t in found]


FAULTS = {
    "drops empty texts": ("shape", before(lambda texts: [t for t in texts if t.strip()])),
    "drops repeated texts": ("shape", before(lambda texts: list(dict.fromkeys(texts)))),
    "a sort not undone": ("order", before(lambda texts: sorted(texts, key=len))),
    "refuses long texts": ("long text", before(refuse_long)),
    "sorts the caller's list": ("no side effects", before(sort_in_place)),
    "seeds globally": ("no side effects", before(seed_globally)),
    "half precision": ("shape", after(lambda rows, *_: rows.astype(np.float16))),
    "NaN from empty texts": ("shape", after(lose_empty)),
    "NaN from an empty text alone": (
        "batching",
        after(lambda rows, texts, _: rows if any(texts) else rows * NAN),
    ),
    "NaN under an instruction": ("instruction", after(lose_instructed)),
    "constant": ("distinct", after(lambda rows, *_: np.tile(vector("same", 64), (len(rows), 1)))),
    "dropout": ("repeatable", after(drop_out)),
    "unmasked padding": ("batching", after(add_padding)),
    "streams doubles": ("streaming", in_batches(vectors=lambda rows: rows.astype(np.float64))),
    "streams NaN": ("streaming", in_batches(vectors=lambda rows: rows * NAN)),
    "streams too few counts": ("streaming", in_batches(tokens=lambda counts: counts[:1])),
    "streams out of step": ("streaming", in_batches(vectors=lambda rows: rows[::-1])),
    "a stream drops an item": ("streaming", of_items(lambda items: items[:-1])),
    "streams nothing": ("streaming", of_items(lambda _: [])),
    "a leaking template": ("instruction", LeakingTemplate),
    "says it follows": ("instruction", after(lambda _, texts, __: OnlyEncodes().encode(texts))),
    "unfrozen": ("settings", Unfrozen),
    "an unrecordable setting": ("settings", UnrecordableSetting),
    "an unstable card": ("card", UnstableCard),
    "fails at other layers": ("tokens", after(lose_a_state, "encode_tokens", Sound)),
    "layers in another order": ("tokens", LayersInAnotherOrder),
    "spans off by one": ("tokens", gives("encode_tokens", shift_spans)),
    "pads left in": ("tokens", gives("encode_tokens", leave_pads)),
    "questions of another width": ("questions", gives("encode_questions", widen)),
    "answers on lines": ("answers", gives("answer", lambda found, _: ["a\nb"] * len(found))),
    "answers by chance": ("answers", gives("answer", lambda f, _: [str(os.urandom(8)) for _ in f])),
    "reads words twice": ("words", gives("read_words", lambda found, _: [["a", "a"]] * len(found))),
    "scores that are no logarithms": ("prompted", gives("score_words", lambda s, _: np.exp(s))),
    "scores by company": ("prompted", gives("score_words", lambda s, t: s - np.float32(len(t)))),
}
"""Faults of encoders, and the rules that find them."""


def broken_rules(encoder):
    return {o.name: o.reason for o in run_checks(encoder) if o.status == "failed"}


def test_a_sound_encoder_passes_every_rule_and_what_it_does_not_offer_is_skipped():
    assert [(o.name, o.reason) for o in run_checks(Sound()) if o.status != "passed"] == []
    outcomes = list(run_checks(Plain()))
    skipped = {"streaming", "tokens", "questions", "answers", "words", "prompted"}
    assert {o.name for o in outcomes if o.status == "skipped"} == skipped
    assert {o.name for o in outcomes if o.status == "passed"} >= {"shape", "settings"}


@pytest.mark.parametrize("name", FAULTS)
def test_each_planted_fault_is_caught_by_the_rule_named_for_it(name):
    rule, faulty = FAULTS[name]
    broken = broken_rules(faulty())
    assert broken[rule]
    assert not broken[rule].startswith("raised") or name == "refuses long texts"


def test_a_faulty_encoder_is_refused_with_the_names_of_all_broken_rules():
    with pytest.raises(ContractError, match=r"(?s)shape.*instruction.*long text"):
        check_encoder(FAULTS["half precision"][1]())


def test_a_setting_that_only_changes_speed_is_not_part_of_the_identity():
    @dataclass(frozen=True)
    class Batched(Sound):
        batch: int = field(default=8, compare=False)

    assert dataclasses.replace(Batched(), batch=1) == Batched()
    check_encoder(Batched(batch=3))


def test_a_crash_is_told_with_its_place_and_logged_with_its_traceback(caplog):
    with caplog.at_level(logging.DEBUG, logger="bench"):
        broken = broken_rules(FAULTS["refuses long texts"][1]())
    place = r"IndexError: index out of range in self \(at .*test_testing\.py:\d+\)"
    assert re.search(place, broken["long text"])
    assert any(record.exc_info for record in caplog.records)


@dataclass(frozen=True)
class FirstNumber(Task):
    """A sound task: how often the first number of a vector is positive, on a random draw."""

    name: str = "first-number"
    family: ClassVar[str] = "made-up"
    metric: ClassVar[str] = "share"

    def items(self, *, seed):
        numbers = np.random.default_rng(seed).integers(0, 1000, 20)
        return [Item(str(n)) for n in numbers][: self.limit]

    def score(self, vectors, *, seed):
        return share(float((vectors[:, 0] > 0).mean()))


def share(*repeats):
    return {"share": Score(repeats)}


def scores(change):
    """A task with a fault in its scores, from the right one and the seed."""

    class Faulty(FirstNumber):
        def score(self, vectors, *, seed):
            return change(super().score(vectors, seed=seed)["share"].mean, seed)

    return Faulty


def seed_and_score(mean, seed):
    random.seed(seed)
    return share(mean)


def where(**attributes):
    return type("Faulty", (FirstNumber,), attributes)


class PlansTooMuch(FirstNumber):
    def items(self, *, seed):
        return [*super().items(seed=seed), Item("never asked")]

    def evaluate(self, encoder, *, seed):
        return FirstNumber(limit=self.limit).evaluate(encoder, seed=seed)


class SwallowsErrors(FirstNumber):
    def evaluate(self, encoder, *, seed):
        try:
            return super().evaluate(encoder, seed=seed)
        except Exception:  # noqa: BLE001 - the fault
            return share(0.0)


class CallsItADataError(FirstNumber):
    def evaluate(self, encoder, *, seed):
        try:
            return super().evaluate(encoder, seed=seed)
        except EncodingError as error:
            raise DataError("the data must be at fault") from error


@dataclass(frozen=True)
class CannotBeLimited(FirstNumber):
    limit: int | None = field(default=None, init=False)


@dataclass(frozen=True)
class ForgetsItsLimit(FirstNumber):
    def __post_init__(self):
        object.__setattr__(self, "limit", None)


class NoTask:
    name = "first-number"

    def evaluate(self, encoder, *, seed):
        return FirstNumber().evaluate(encoder, seed=seed)


TASK_FAULTS = {
    "no main score": (where(metric="another"), "promises another"),
    "not finite": (
        scores(lambda mean, _: {**share(mean), "ratio": Score((float("nan"),))}),
        "ratio has the repeats",
    ),
    "no repeats": (scores(lambda *_: share()), "share has the repeats"),
    "another scale": (scores(lambda mean, _: share(100 * mean + 2)), "scale"),
    "examples of folds that differ in size": (
        scores(lambda *_: {"share": Score((1.0, 0.5), np.array([1, 1, 1, 0, 1], np.float32))}),
        "the examples of share average to 0.8",
    ),
    "one repeat off the scale": (scores(lambda mean, _: share(3.0, -3.0, mean)), "scale"),
    "unrepeatable": (scores(lambda *_: share(random.SystemRandom().random())), "same seed"),
    "seeds globally": (scores(seed_and_score), "global random state"),
    "plans too much": (PlansTooMuch, "never asked"),
    "swallows errors": (SwallowsErrors, "not finite"),
    "calls it a data error": (CallsItADataError, "DataError"),
    "cannot be limited": (CannotBeLimited, "limit"),
    "forgets its limit": (ForgetsItsLimit, "limit"),
    "no family": (where(family=""), "family"),
    "a version in words": (where(version="1.0"), "version"),
    "no task": (NoTask, "lacks family, limit, metric, needs, readout, version"),
}
"""Faults of tasks, and what is said of them."""


def test_a_sound_task_passes_and_data_that_is_not_available_is_no_fault_of_it():
    assert 0 < check_task(FirstNumber(), Plain())["share"].mean < 1

    def missing(*_):
        raise Unavailable("no such data here")

    with pytest.raises(Unavailable):
        check_task(scores(missing)(), Plain())


@pytest.mark.parametrize("name", TASK_FAULTS)
def test_each_fault_planted_in_a_task_is_caught_and_named(name):
    faulty, told = TASK_FAULTS[name]
    with pytest.raises(ContractError, match=told) as error:
        check_task(faulty(), Plain())
    assert "\n" not in str(error.value)
