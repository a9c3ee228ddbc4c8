"""The contract of tasks: a sound one passes, and each planted fault is caught by name."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pytest

from bench.encoder import Embeddings, Encoder, Item
from bench.errors import DataError, EncodingError, Unavailable
from bench.task import Score
from bench.testing import ContractError, check_task


@dataclass(frozen=True)
class Words:
    """A text is a random vector."""

    version: ClassVar[int] = 1
    follows_instructions: ClassVar[bool] = False

    def encode(self, texts: Sequence[str], *, instruction: str = "") -> Embeddings:
        return np.stack(
            [np.random.default_rng(list(text.encode())).standard_normal(8) for text in texts]
        ).astype(np.float32)


@dataclass(frozen=True)
class FirstNumber:
    """A sound task: how often the first number of a vector is positive, on a random draw."""

    name: str = "first-number"
    limit: int | None = None
    family: ClassVar[str] = "made-up"
    metric: ClassVar[str] = "share"
    version: ClassVar[int] = 1
    readout: ClassVar[str] = "embedding"
    needs: ClassVar[type] = Encoder

    def items(self, *, seed: int) -> list[Item]:
        return [Item(str(n)) for n in np.random.default_rng(seed).integers(0, 1000, 20)][
            : self.limit
        ]

    def evaluate(self, encoder, *, seed: int) -> Mapping[str, Score]:
        return {
            "share": Score(
                (float((encoder.encode([i.text for i in self.items(seed=seed)])[:, 0] > 0).mean()),)
            )
        }


class NoMainScore(FirstNumber):
    metric = "another"


class NotFinite(FirstNumber):
    def evaluate(self, encoder, *, seed):
        return {**super().evaluate(encoder, seed=seed), "ratio": Score((float("nan"),))}


class AnotherScale(FirstNumber):
    def evaluate(self, encoder, *, seed):
        return {"share": Score((100 * super().evaluate(encoder, seed=seed)["share"].mean + 2,))}


class OneRepeatOffTheScale(FirstNumber):
    def evaluate(self, encoder, *, seed):
        return {"share": Score((3.0, -3.0, super().evaluate(encoder, seed=seed)["share"].mean))}


class NoRepeats(FirstNumber):
    def evaluate(self, encoder, *, seed):
        super().evaluate(encoder, seed=seed)
        return {"share": Score(())}


class Unrepeatable(FirstNumber):
    def evaluate(self, encoder, *, seed):
        super().evaluate(encoder, seed=seed)
        return {"share": Score((random.SystemRandom().random(),))}


class TaskSeedsGlobally(FirstNumber):
    def evaluate(self, encoder, *, seed):
        random.seed(seed)
        return super().evaluate(encoder, seed=seed)


class PlansTooMuch(FirstNumber):
    def items(self, *, seed):
        return [*super().items(seed=seed), Item("never asked")]

    def evaluate(self, encoder, *, seed):
        return {
            "share": Score(
                (
                    float(
                        (
                            encoder.encode([i.text for i in FirstNumber.items(self, seed=seed)])[
                                :, 0
                            ]
                            > 0
                        ).mean()
                    ),
                )
            )
        }


class SwallowsErrors(FirstNumber):
    def evaluate(self, encoder, *, seed):
        try:
            return super().evaluate(encoder, seed=seed)
        except Exception:  # noqa: BLE001 - the fault
            return {"share": Score((0.0,))}


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


class NoFamily(FirstNumber):
    family = ""


class VersionInWords(FirstNumber):
    version = "1.0"


class NoTask:
    name = "first-number"

    def evaluate(self, encoder, *, seed):
        return FirstNumber().evaluate(encoder, seed=seed)


def test_a_sound_task_passes_and_its_scores_come_back():
    assert 0 < check_task(FirstNumber(), Words())["share"].mean < 1


FAULTS = {
    NoMainScore: "promises another",
    NotFinite: "ratio has the repeats",
    NoRepeats: "share has the repeats",
    AnotherScale: "scale",
    OneRepeatOffTheScale: "scale",
    Unrepeatable: "same seed",
    TaskSeedsGlobally: "global random state",
    PlansTooMuch: "never asked",
    SwallowsErrors: "not finite",
    CallsItADataError: "DataError",
    CannotBeLimited: "limit",
    ForgetsItsLimit: "limit",
    NoFamily: "family",
    VersionInWords: "version",
    NoTask: "lacks family, limit, metric, needs, readout, version",
}


@pytest.mark.parametrize(
    ("faulty", "told"), FAULTS.items(), ids=lambda x: x if isinstance(x, str) else x.__name__
)
def test_each_fault_planted_in_a_task_is_caught_and_named(faulty, told):
    with pytest.raises(ContractError, match=told) as error:
        check_task(faulty(), Words())
    assert "\n" not in str(error.value)


def test_data_that_cannot_be_had_is_no_fault_of_the_task():
    class Elsewhere(FirstNumber):
        def evaluate(self, encoder, *, seed):
            raise Unavailable("no such data here")

    with pytest.raises(Unavailable):
        check_task(Elsewhere(), Words())
