"""The contract of tasks."""

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np

from bench.cache import cached
from bench.encoder import Embeddings, Encoder, QuestionEncoder, QuestionVectors, TokenEncoder, TokenStates
from bench.errors import BenchError
from bench.task import PlannedTask, Score, Task
from bench.testing.encoders import ContractError
from bench.testing.randomness import random_states_touched
from bench.vectors import Vectors


def check_task(task: Task, encoder: Encoder, *, seed: int = 42) -> Mapping[str, Score]:
    """Hold a task against its contract, and return the scores it gives.

    Args:
        task: Any task whose data is on this machine.
        encoder: Satisfies the task's needs.
        seed: Given to the task.

    Raises:
        ContractError: A rule is broken: finite scores with the main one among them, the same for the same seed, global random
            state untouched, what is planned is asked for, broken vectors refused.
    """
    wrapped = cached(encoder, Vectors(None))
    scores = task.evaluate(wrapped, seed=seed)
    _check_scores(task, scores)
    again: Mapping[str, Score] = {}

    def repeat() -> None:
        nonlocal again
        again = task.evaluate(wrapped, seed=seed)

    if touched := random_states_touched(repeat):
        raise ContractError(f"{task.name} touches the global random state of {', '.join(touched)}; use the seed it is given")
    if {name: score.repeats for name, score in again.items()} != {name: score.repeats for name, score in scores.items()}:
        raise ContractError(f"{task.name} gives other scores for the same seed; all randomness must come from it")
    if isinstance(task, PlannedTask) and (unasked := wrapped.missing(task.items(seed=seed))):
        raise ContractError(f"{task.name} plans {len(unasked)} items that it never asks for, {unasked[0]} for one")
    try:
        task.evaluate(cached(_Broken(encoder), Vectors(None)), seed=seed)
    except BenchError:
        return scores
    raise ContractError(f"{task.name} gives a score for vectors that are not finite; it must not catch what encoding raises")


def _check_scores(task: Task, scores: Mapping[str, Score]) -> None:
    if task.metric not in scores:
        raise ContractError(f"{task.name} promises {task.metric}, its scores are {', '.join(scores)}")
    for name, score in scores.items():
        if not score.repeats or not np.isfinite(score.repeats).all():
            raise ContractError(f"{task.name}: {name} has the repeats {score.repeats}; expected at least one, all finite")
    if abs(scores[task.metric].mean) > 1:
        raise ContractError(f"{task.name}: the main score is {scores[task.metric].mean}; expected a scale on which 1 is best")


class _Broken:
    """An encoder whose every vector holds a NaN."""

    def __init__(self, inner: Encoder) -> None:
        self.inner, self.version, self.follows_instructions = inner, inner.version, inner.follows_instructions

    def encode(self, texts: Sequence[str], *, instruction: str = "") -> Embeddings:
        return self.inner.encode(texts, instruction=instruction) * np.float32(np.nan)

    def encode_tokens(self, texts: Sequence[str], *, layer: int = -1) -> list[TokenStates]:
        found = cast("TokenEncoder", self.inner).encode_tokens(texts, layer=layer)
        return [TokenStates(tokens.states * np.float32(np.nan), tokens.spans) for tokens in found]

    def encode_questions(self, questions: Sequence[str]) -> QuestionVectors:
        return cast("QuestionEncoder", self.inner).encode_questions(questions)
