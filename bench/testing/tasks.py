"""The contract of tasks."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from functools import cached_property, partial
from math import nan
from typing import Any

import numpy as np

from bench.embeddings import CachedEncoder, cached
from bench.encoder import Batch, Encoder, TokenStates
from bench.errors import BenchError, EncodingError
from bench.stats.influence import AGREE, contributions
from bench.task import APART, Score, Task, find_fault, missing_parts
from bench.testing.agreement import ContractError
from bench.testing.randomness import random_states_touched
from bench.testing.rules import CheckOutcome, try_in_turn

_WORDS = "name", "family", "metric", "readout"
_METHODS = "encode", "stream", "encode_tokens", "encode_layers", "encode_long", "score_words"
_TRAINING = "tune_pairs", "tune_classes"


@dataclass(frozen=True)
class TaskTrial:
    """A task, what it is tried with, and what came out.

    Attributes:
        task: Any task whose data is on this machine.
        encoder: Satisfies the task's needs.
        seed: Given to the task.
    """

    task: Task
    encoder: Encoder
    seed: int = 42

    @cached_property
    def wrapped(self) -> CachedEncoder:
        """The encoder behind a cache of its own."""
        return cached(self.encoder)

    @cached_property
    def scores(self) -> Mapping[str, Score]:
        """What the task makes of the encoder, the first time it is asked."""
        return self.task.evaluate(self.wrapped, seed=self.seed)


def check_task(task: Task, encoder: Encoder, *, seed: int = 42) -> Mapping[str, Score]:
    """Check a task against its contract, and return its scores.

    Args:
        task: Any task whose data is on this machine.
        encoder: Satisfies the task's needs.
        seed: Given to the task.

    Raises:
        ContractError: A rule is broken: it says what it is, it can be limited, finite scores with
            the main one among them, examples that average to them, the same for the same seed,
            global random state untouched, what is planned is asked for, broken vectors refused.
        Unavailable: The data is not on this machine.
    """
    trial = TaskTrial(task, encoder, seed)
    for check in TASK_CHECKS:
        check(trial)
    return trial.scores


def run_task_checks(task: Task, encoder: Encoder, *, seed: int = 42) -> Iterator[CheckOutcome]:
    """Yield the outcome of every rule up to the first broken one; arguments as ``check_task``."""
    return try_in_turn(TASK_CHECKS, TaskTrial(task, encoder, seed))


def check_description(trial: TaskTrial) -> None:
    """What a task says of itself fits into a results file."""
    task = trial.task
    if missing := missing_parts(task):
        raise ContractError(f"{type(task).__name__} is no task: it lacks {', '.join(missing)}")
    for name in _WORDS:
        value = getattr(task, name)
        if not isinstance(value, str) or not value:
            raise ContractError(f"the {name} of {type(task).__name__} is {value!r}; expected words")
    if not isinstance(task.version, int):
        raise ContractError(
            f"the version of {task.name} is {task.version!r}; expected a whole number"
        )


def check_limit(trial: TaskTrial) -> None:
    """A copy of the task can be limited."""
    task = trial.task
    try:
        limited = dataclasses.replace(task, limit=7)
    except (TypeError, ValueError) as error:
        raise ContractError(
            f"{task.name} cannot be limited ({error}); "
            "make it a frozen dataclass with a field limit"
        ) from error
    if limited.limit != 7:
        raise ContractError(
            f"{task.name} with the limit 7 has the limit {limited.limit}; "
            "keep the field as it is given"
        )


def check_scores(trial: TaskTrial) -> None:
    """Scores are finite, the main one among them, on a scale with 1 as best; examples agree."""
    task, scores = trial.task, trial.scores
    if fault := find_fault(task, scores):
        raise ContractError(fault)
    for name, score in scores.items():
        mean = (
            contributions(name, score.examples, score.gold).mean() if len(score.examples) else nan
        )
        if abs(mean - score.mean) > AGREE:
            raise ContractError(
                f"{task.name}: the examples of {name} average to {mean}, the score is "
                f"{score.mean}; without examples that average to it, it has no interval"
            )
    if task.family not in APART and np.abs(main := scores[task.metric].repeats).max() > 1:
        raise ContractError(
            f"{task.name}: the main score has the repeats {main}; "
            "expected a scale on which 1 is best"
        )


def check_repeatable(trial: TaskTrial) -> None:
    """The same seed gives the same scores, and the global random state stays as it is."""
    task, scores = trial.task, trial.scores
    again: Mapping[str, Score] = {}

    def repeat() -> None:
        nonlocal again
        again = task.evaluate(trial.wrapped, seed=trial.seed)

    if touched := random_states_touched(repeat):
        raise ContractError(
            f"{task.name} touches the global random state of {', '.join(touched)}; "
            "use the seed it is given"
        )
    if {name: score.repeats for name, score in again.items()} != {
        name: score.repeats for name, score in scores.items()
    }:
        raise ContractError(
            f"{task.name} gives other scores for the same seed; all randomness must come from it"
        )


def check_items(trial: TaskTrial) -> None:
    """What is planned to be embedded is asked for."""
    task = trial.task
    assert trial.scores  # noqa: S101 - of an evaluation, which has asked for its items
    planned = task.items(seed=trial.seed) if hasattr(task, "items") else ()
    if unasked := trial.wrapped.missing(planned):
        raise ContractError(
            f"{task.name} plans {len(unasked)} items that it never asks for, {unasked[0]} for one"
        )


def check_broken_vectors(trial: TaskTrial) -> None:
    """Vectors that are not finite are an EncodingError, never a score."""
    task = trial.task
    try:
        task.evaluate(cached(_break(trial.encoder)), seed=trial.seed)
    except EncodingError:
        return
    except BenchError as error:
        raise ContractError(
            f"{task.name} answers vectors that are not finite with {type(error).__name__} "
            f"({error}); expected the EncodingError as it is"
        ) from error
    raise ContractError(
        f"{task.name} gives a score for vectors that are not finite; "
        "it must not catch what encoding raises"
    )


TASK_CHECKS: tuple[Callable[[TaskTrial], None], ...] = (
    check_description,
    check_limit,
    check_scores,
    check_repeatable,
    check_items,
    check_broken_vectors,
)
"""The rules, in the order in which they are tried."""


def _break(encoder: Encoder) -> Encoder:
    """Return a copy of an encoder every vector, token state and probability of which is NaN."""
    broken = copy(encoder)
    for name in _METHODS:
        if method := getattr(encoder, name, None):
            object.__setattr__(broken, name, partial(_spoil_call, method))
    for name in _TRAINING:
        if getattr(encoder, name, None):
            object.__setattr__(broken, name, _refuse)
    return broken


def _spoil_call(method: Callable[..., object], *args: object, **kwargs: object) -> object:
    return _spoil(method(*args, **kwargs))


def _spoil(value: Any) -> Any:  # noqa: ANN401 - whatever a method of an encoder returns
    """Return vectors, and vectors in batches, token states and lists of these, as NaN."""
    if isinstance(value, np.ndarray):
        return value * np.float32(np.nan)
    if isinstance(value, Batch):
        return dataclasses.replace(value, vectors=_spoil(value.vectors))
    if isinstance(value, TokenStates):
        return dataclasses.replace(value, states=_spoil(value.states))
    if isinstance(value, Iterable):
        return [_spoil(each) for each in value]
    return value


def _refuse(*_: object, **__: object) -> None:
    raise EncodingError("the loss is not finite")
