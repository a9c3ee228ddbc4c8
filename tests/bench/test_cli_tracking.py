"""``bench train --track``: the numbers of each step, in a real tracker."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.recipe import track


@dataclass(frozen=True)
class Counting:
    """A recipe that tells the numbers of three steps."""

    lr: float = 0.5

    def check(self):
        pass

    def train(self, out, *, budget, seed, load, progress):
        for step in range(1, 4):
            progress("counting", step, 3)
            track(progress, "counting", step, loss=1 / step, lr=self.lr)
        (out / "card.json").write_text(json.dumps({"method": "counting"}))
        return out


COUNTING = f"{__name__}:Counting"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def train(*options: str):
    return CliRunner().invoke(app, ["train", COUNTING, "--out", "made", *options])


def test_tensorboard_shows_the_numbers_of_each_step():
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    pytest.importorskip("accelerate")
    done = train("--track", "tensorboard")
    assert (done.exit_code, done.stdout) == (0, "made\n"), done.output
    events = accumulator.EventAccumulator(str(Path("made", "tensorboard"))).Reload()
    found = [(event.step, round(event.value, 3)) for event in events.Scalars("counting/loss")]
    assert found == [(1, 1.0), (2, 0.5), (3, 0.333)]


def test_without_a_tracker_nothing_is_tracked():
    assert train().exit_code == 0
    assert [path.name for path in Path("made").iterdir()] == ["card.json"]


def test_a_tracker_that_is_unknown_or_not_installed_is_one_line_before_the_training(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for tracker, told in (("wandb", "pip install wandb"), ("paper", "tensorboard")):
        done = train("--track", tracker)
        assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
        assert told in done.stderr
    assert not Path("made").exists()
