"""The contract of tasks."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from bench.cache import cached
from bench.encoder import (
    Embeddings,
    Encoder,
    LayeredEncoder,
    Marker,
    PairScorer,
    PromptedEncoder,
    QuestionEncoder,
    QuestionVectors,
    TokenEncoder,
    TokenStates,
    TunableEncoder,
)
from bench.errors import BenchError, EncodingError
from bench.task import APART, PlannedTask, Score, Task
from bench.testing.agreement import ContractError
from bench.testing.randomness import random_states_touched
from bench.vectors import Vectors

_WORDS = "name", "family", "metric", "readout"


def check_task(task: Task, encoder: Encoder, *, seed: int = 42) -> Mapping[str, Score]:
    """Hold a task against its contract, and return the scores it gives.

    Args:
        task: Any task whose data is on this machine.
        encoder: Satisfies the task's needs.
        seed: Given to the task.

    Raises:
        ContractError: A rule is broken: it says what it is, it can be limited, finite scores with the main one among them, the
            same for the same seed, global random state untouched, what is planned is asked for, broken vectors refused.
        Unavailable: The data cannot be had on this machine.
    """
    _check_description(task)
    wrapped = cached(encoder, Vectors(None))
    scores = task.evaluate(wrapped, seed=seed)
    _check_scores(task, scores)
    _check_repeat(task, wrapped, scores, seed)
    if isinstance(task, PlannedTask) and (unasked := wrapped.missing(task.items(seed=seed))):
        raise ContractError(
            f"{task.name} plans {len(unasked)} items that it never asks for, {unasked[0]} for one"
        )
    _check_refusal(task, encoder, seed)
    return scores


def _check_description(task: Task) -> None:
    """What a task says of itself fits into a results file, and a copy of it can be limited."""
    if not isinstance(task, Task):
        missing = sorted(
            name
            for name in (*_WORDS, "version", "limit", "needs", "evaluate")
            if name not in dir(task)
        )
        raise ContractError(f"{type(task).__name__} is no task: it lacks {', '.join(missing)}")
    for name, value in ((name, getattr(task, name)) for name in _WORDS):
        if not isinstance(value, str) or not value:
            raise ContractError(f"the {name} of {type(task).__name__} is {value!r}; expected words")
    if not isinstance(task.version, int):
        raise ContractError(
            f"the version of {task.name} is {task.version!r}; expected a whole number"
        )
    copy: Any = task
    try:
        limited = dataclasses.replace(copy, limit=7)
    except (TypeError, ValueError) as error:
        raise ContractError(
            f"{task.name} cannot be limited ({error}); make it a frozen dataclass with a field limit"
        ) from error
    if limited.limit != 7:
        raise ContractError(
            f"{task.name} with the limit 7 has the limit {limited.limit}; keep the field as it is given"
        )


def _check_repeat(task: Task, encoder: Encoder, scores: Mapping[str, Score], seed: int) -> None:
    again: Mapping[str, Score] = {}

    def repeat() -> None:
        nonlocal again
        again = task.evaluate(encoder, seed=seed)

    if touched := random_states_touched(repeat):
        raise ContractError(
            f"{task.name} touches the global random state of {', '.join(touched)}; use the seed it is given"
        )
    if {name: score.repeats for name, score in again.items()} != {
        name: score.repeats for name, score in scores.items()
    }:
        raise ContractError(
            f"{task.name} gives other scores for the same seed; all randomness must come from it"
        )


def _check_refusal(task: Task, encoder: Encoder, seed: int) -> None:
    try:
        task.evaluate(cached(_broken(encoder), Vectors(None)), seed=seed)
    except EncodingError:
        return
    except BenchError as error:
        raise ContractError(
            f"{task.name} answers vectors that are not finite with {type(error).__name__} ({error}); expected the EncodingError as it is"
        ) from error
    raise ContractError(
        f"{task.name} gives a score for vectors that are not finite; it must not catch what encoding raises"
    )


def _check_scores(task: Task, scores: Mapping[str, Score]) -> None:
    if task.metric not in scores:
        raise ContractError(
            f"{task.name} promises {task.metric}, its scores are {', '.join(scores)}"
        )
    for name, score in scores.items():
        if not score.repeats or not np.isfinite(score.repeats).all():
            raise ContractError(
                f"{task.name}: {name} has the repeats {score.repeats}; expected at least one, all finite"
            )
    if task.family not in APART and np.abs(main := scores[task.metric].repeats).max() > 1:
        raise ContractError(
            f"{task.name}: the main score has the repeats {main}; expected a scale on which 1 is best"
        )


class _Broken:
    """An encoder whose every vector holds a NaN."""

    def __init__(self, inner: Encoder) -> None:
        self.inner, self.version, self.follows_instructions = (
            inner,
            inner.version,
            inner.follows_instructions,
        )

    def encode(self, texts: Sequence[str], *, instruction: str = "") -> Embeddings:
        return self.inner.encode(texts, instruction=instruction) * np.float32(np.nan)

    def encode_tokens(self, texts: Sequence[str], *, layer: int = -1) -> list[TokenStates]:
        found = cast("TokenEncoder", self.inner).encode_tokens(texts, layer=layer)
        return [TokenStates(tokens.states * np.float32(np.nan), tokens.spans) for tokens in found]


class _BrokenLayers(_Broken):
    """The same of an encoder that gives several layers at once."""

    def layer_count(self) -> int:
        return cast("LayeredEncoder", self.inner).layer_count()

    def encode_layers(
        self, texts: Sequence[str], *, layers: Sequence[int]
    ) -> list[list[TokenStates]]:
        return [self.encode_tokens(texts, layer=layer) for layer in layers]


class _BrokenAsked(_Broken):
    """The same of an encoder of questions, which are whole."""

    def encode_questions(self, questions: Sequence[str]) -> QuestionVectors:
        return cast("QuestionEncoder", self.inner).encode_questions(questions)


class _BrokenPrompted(_Broken):
    """The same of an encoder with a language model."""

    def score_words(
        self, texts: Sequence[str], *, prompt: str, words: Sequence[str]
    ) -> NDArray[np.float32]:
        return cast("PromptedEncoder", self.inner).score_words(
            texts, prompt=prompt, words=words
        ) * np.float32(np.nan)


class _BrokenTunable(_Broken):
    """The same of an encoder that can be trained, which its states do not let it."""

    def tune_pairs(self, *_: Any, **__: Any) -> PairScorer:  # noqa: ANN401 - whatever it is asked
        raise EncodingError("the loss is not finite")

    def tune_classes(self, *_: Any, **__: Any) -> Marker:  # noqa: ANN401 - whatever it is asked
        raise EncodingError("the loss is not finite")


_ABLE = (
    (LayeredEncoder, _BrokenLayers),
    (QuestionEncoder, _BrokenAsked),
    (PromptedEncoder, _BrokenPrompted),
    (TunableEncoder, _BrokenTunable),
)


def _broken(encoder: Encoder) -> Encoder:
    able = [broken for protocol, broken in _ABLE if isinstance(encoder, protocol)]
    made: Encoder = type("Broken", (*able, _Broken), {})(encoder)
    return made
