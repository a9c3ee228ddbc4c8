"""The contract of recipes: a sound one passes, and each planted fault is caught by its rule."""

import contextlib
import json
import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from bench.encoder import Card
from bench.errors import UsageError
from bench.testing import ContractError, RecipeTrial, check_recipe, run_recipe_checks

STEPS = 6


@dataclass(frozen=True)
class Sums:
    """A sound recipe: its weights are a sum of random vectors, one a step."""

    scale: float = 1.0
    backbone: str = "none"

    def check(self):
        if self.scale <= 0:
            raise UsageError(f"scale must be more than 0, got {self.scale}")

    def train(self, out, *, budget, seed, load, progress):
        self.check()
        if (out / "card.json").is_file():
            if json.loads((out / "card.json").read_text())["seed"] != seed:
                raise UsageError("another training: choose another --out")
            return out
        load("texts", "train")
        out.mkdir(parents=True, exist_ok=True)
        state = out / "state.json"
        step, weights = json.loads(state.read_text()) if state.is_file() else (0, [0.0] * 4)
        while step < STEPS:
            progress("summing", step, STEPS)
            weights = [w + float(x) for w, x in zip(weights, self.draw(seed, step), strict=True)]
            step += 1
            state.write_text(json.dumps([step, weights]))
        np.asarray(weights, np.float32).tofile(out / "weights.bin")
        state.unlink()
        (out / "card.json").write_text(json.dumps(self.card(budget, seed)))
        return out

    def draw(self, seed, step):
        return np.random.default_rng([seed, step]).normal(0, self.scale, 4)

    def card(self, budget, seed):
        return {
            "method": "sums", "recipe": {"scale": self.scale}, "budget": budget, "seed": seed,
            "backbone": "none", "trained_tokens": budget - 1, "data": [{"id": "texts"}],
        }  # fmt: skip


@dataclass(frozen=True)
class Reader:
    """Reads a checkpoint of ``Sums``: a text is its weights, moved by its letters."""

    checkpoint: str = ""
    version: ClassVar[int] = 1
    follows_instructions: ClassVar[bool] = False

    def encode(self, texts, *, instruction=""):
        weights = np.fromfile(Path(self.checkpoint, "weights.bin"), np.float32)
        return np.stack([weights + len(text) * np.arange(4, dtype=np.float32) for text in texts])

    def card(self):
        card = json.loads(Path(self.checkpoint, "card.json").read_text())
        return Card(training=card, training_tokens=card["trained_tokens"])


class Unfrozen(Sums):
    def __setattr__(self, name, value):
        object.__setattr__(self, name, value)


class CrashesInItsCheck(Sums):
    def check(self):
        if self.scale <= 0:
            raise ZeroDivisionError


class ChecksTooLate(Sums):
    def train(self, out, *, budget, seed, load, progress):
        load("texts", "train")
        return super().train(out, budget=budget, seed=seed, load=load, progress=progress)


class WritesTooEarly(Sums):
    def train(self, out, **options):
        out.mkdir(exist_ok=True)
        return super().train(out, **options)


class SeedsGlobally(Sums):
    def draw(self, seed, step):
        random.seed(seed)
        return super().draw(seed, step)


class SaysNothing(Sums):
    def train(self, out, **options):
        return super().train(out, **options | {"progress": lambda *_: None})


def with_card(change):
    """A recipe whose card differs, by its budget."""

    class Faulty(Sums):
        def card(self, budget, seed):
            return super().card(budget, seed) | change(budget)

    return Faulty


class AnotherStreamWhenResumed(Sums):
    def train(self, out, *, seed, **options):
        object.__setattr__(self, "stream", np.random.default_rng(seed))
        return super().train(out, seed=seed, **options)

    def draw(self, seed, step):
        return self.stream.normal(0, self.scale, 4)


class CannotBeStopped(Sums):
    def train(self, out, *, progress, **options):
        def careless(*call):
            with contextlib.suppress(KeyboardInterrupt):
                progress(*call)

        return super().train(out, progress=careless, **options)


class ReadsWhenFinished(Sums):
    def train(self, out, *, load, **options):
        self.check()
        load("texts", "train")
        return super().train(out, load=load, **options)


class TakesAnyFolder(Sums):
    def train(self, out, *, seed, **options):
        if (out / "card.json").is_file():
            return out
        return super().train(out, seed=seed, **options)


FAULTS = {
    "unfrozen": ("settings", Unfrozen),
    "crashes in its check": ("rejection", CrashesInItsCheck),
    "checks too late": ("rejection", ChecksTooLate),
    "writes too early": ("rejection", WritesTooEarly),
    "seeds globally": ("training", SeedsGlobally),
    "says nothing": ("training", SaysNothing),
    "card without tokens": ("card", with_card(lambda _: {"trained_tokens": None})),
    "more than the budget": ("card", with_card(lambda budget: {"trained_tokens": budget + 1})),
    "names the home": ("card", with_card(lambda _: {"command": f"train {Path.home()}/texts"})),
    "another stream when resumed": ("resumption", AnotherStreamWhenResumed),
    "cannot be stopped": ("resumption", CannotBeStopped),
    "reads when finished": ("finished", ReadsWhenFinished),
    "takes any folder": ("other training", TakesAnyFolder),
}
"""Faults planted one by one in a sound recipe, and the rule that finds each."""


@pytest.fixture
def trial(tmp_path):
    def make_encoder(folder):
        return Reader(str(folder))

    return RecipeTrial(Sums(), tmp_path, lambda *_, **__: [], make_encoder, budget=100)


def test_a_sound_recipe_passes_every_rule(trial):
    assert {outcome.status for outcome in run_recipe_checks(trial)} == {"passed"}
    check_recipe(replace(trial, folder=trial.folder / "again"))


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_planted_in_a_recipe_is_caught_by_the_rule_named_for_it(name, trial):
    rule, faulty = FAULTS[name]
    *passed, last = run_recipe_checks(replace(trial, recipe=faulty()))
    assert (last.name, last.status) == (rule, "failed"), last
    assert not last.reason.startswith("raised")
    assert {outcome.status for outcome in passed} <= {"passed", "skipped"}


def test_an_encoder_that_shows_another_card_is_caught(trial):
    class Forgetful(Reader):
        def card(self):
            return Card()

    faulty = replace(trial, make_encoder=lambda folder: Forgetful(str(folder)))
    with pytest.raises(ContractError, match=r"Card\.training"):
        check_recipe(faulty)
