"""Trainings as a grid, on tiny models: what is planned, resumed and skipped, and found again."""

import json
from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest
from typer.testing import CliRunner

from bench.checkpoints import checkpoints_in, training_seconds
from bench.cli import app
from bench.data import load
from bench.errors import UsageError
from bench.registry import load_encoders
from bench.trainings import plan_trainings, split_budgets
from tests.tiny import SENTENCES, tiny_folder

BUDGETS, SEEDS = ("500", "900"), (0, 42)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grid")
    tiny_folder("llama", folder / "base", head=True)
    rng = np.random.default_rng(0)
    texts = [" ".join(SENTENCES[i] for i in rng.permutation(7)[:5]) for _ in range(6)]
    lines = [json.dumps({"text": text}) + "\n" for text in texts]
    (folder / "texts.jsonl").write_text("".join(lines))
    return folder


def make_plan(place, out, methods=("crops",), budgets=BUDGETS, seeds=SEEDS, **more):
    changes = [f"backbone={place / 'base'}", f"sources={place / 'texts.jsonl'}"]
    changes += ["rank=2", "crops.batch_size=3", "crops.longest=60"]
    settings = {"device": "cpu", "dtype": "float32"}
    return plan_trainings(
        methods, budgets, seeds, settings=settings, changes=changes, out=out, **more
    )


def weights(folder):
    return (folder / "adapter_model.safetensors").read_bytes()


def quiet(*_):
    pass


def test_a_grid_is_trained_resumed_and_skipped_and_every_checkpoint_is_found(place, tmp_path):
    trainings = make_plan(place, tmp_path / "grid")
    assert [(t.budget, t.seed) for t in trainings] == [*product((500, 900), (0, 42))]
    assert len({t.out for t in trainings}) == 4
    assert {t.state() for t in trainings} == {"new"}

    def stop(label, done, _total):
        if label == "crops: training" and done == 1:
            raise KeyboardInterrupt

    trainings[0].run(load, quiet)
    with pytest.raises(KeyboardInterrupt):
        trainings[1].run(load, stop)
    assert [t.state() for t in trainings] == ["finished", "started", "new", "new"]
    before = (trainings[0].out / "card.json").stat().st_mtime_ns
    for training in trainings:
        training.run(load, quiet)
    assert {t.state() for t in trainings} == {"finished"}
    assert (trainings[0].out / "card.json").stat().st_mtime_ns == before
    assert len({weights(t.out) for t in trainings}) == 4  # seed and budget matter

    whole = make_plan(place, tmp_path / "whole", budgets=["500"], seeds=[42])[0]
    assert whole.out == tmp_path / "whole"  # a single one has the folder itself
    whole.run(load, quiet)
    assert weights(whole.out) == weights(trainings[1].out)  # interrupted or not

    encoders = load_encoders([f"trained:{tmp_path / 'grid'}"])
    assert {encoder.checkpoint for encoder in encoders.values()} == {str(t.out) for t in trainings}
    for training in trainings:
        card = json.loads((training.out / "card.json").read_text())
        assert (card["method"], card["budget"], card["seed"]) == (
            "crops",
            training.budget,
            training.seed,
        )


def test_settings_and_variants_go_to_the_methods_that_have_them(place, tmp_path):
    more = {"vary": ["crops.lr=1e-4,2e-4", "temperature=0.1"]}
    plan = make_plan(place, tmp_path, ("crops", "llm2comp"), ["500"], [1], **more)
    found = {str(t.out.relative_to(tmp_path)).partition("/")[2]: t for t in plan[:4]}
    assert list(found) == ["base", "lr=1e-4", "lr=2e-4", "temperature=0.1"]
    assert {t.method for t in found.values()} == {"crops"}
    assert [t.out.name for t in plan[4:]] == ["base", "temperature=0.1"]
    assert {t.recipe.rank for t in plan} == {2}
    assert found["lr=1e-4"].recipe.lr == 1e-4
    assert found["base"].recipe.batch_size == 3
    assert plan[4].method == "llm2comp"
    assert plan[4].recipe.batch_size == 8
    for wrong in ({"vary": ["dino.lr=1"]}, {"vary": ["colour=1"]}):
        with pytest.raises(UsageError):
            make_plan(place, tmp_path, **wrong)


def test_the_time_is_that_of_the_most_similar_earlier_training(place, tmp_path):
    training = make_plan(place, tmp_path)[0]
    near = {"method": "crops", "trained_tokens": 1000, "seconds": 50, "recipe": {"rank": 2}}
    other = {**near, "seconds": 10, "recipe": {"rank": 16}}
    assert training.seconds([other, near, {**near, "method": "dino", "seconds": 1}]) == 25
    assert training.seconds([]) is training.seconds([{"method": "crops"}]) is None


@pytest.mark.parametrize(
    ("own", "stages", "total"),
    [(5, [], 5), (5, [2, 5], 7), (7, [2, 5], 7), (5, [2, None], 7)],
)
def test_the_time_of_a_training_has_each_stage_once(own, stages, total):
    card = {"seconds": own, "stages": [{"seconds": seconds} for seconds in stages]}
    assert training_seconds(card) == total


def test_lists_of_budgets_are_not_numbers_with_commas():
    assert split_budgets("60000,250000, S") == ["60000", "250000", "S"]
    assert split_budgets("1_000_000") == ["1_000_000"]
    for text in ("1,000", "250,000,000"):
        with pytest.raises(UsageError, match="_000"):
            split_budgets(text)


def test_a_folder_without_a_finished_training_is_refused(tmp_path):
    (tmp_path / "stages" / "one").mkdir(parents=True)
    (tmp_path / "stages" / "one" / "card.json").write_text('{"method": "crops"}')
    (tmp_path / "card.json").write_text("{")
    with pytest.raises(UsageError, match="finished trainings"):
        checkpoints_in(tmp_path)


def test_two_checkpoints_of_one_label_are_refused(tmp_path):
    for place in ("a/b", "a-b"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "card.json").write_text('{"method": "crops"}')
    with pytest.raises(UsageError, match="one checkpoint for the label a-b"):
        checkpoints_in(tmp_path)


@dataclass(frozen=True)
class Failing:
    """A recipe that fails with the seed 0."""

    def check(self):
        pass

    def train(self, out, *, budget, seed, load, progress):
        if not seed:
            raise UsageError("expected a seed, got 0")
        out.mkdir(parents=True, exist_ok=True)
        (out / "card.json").write_text('{"method": "failing"}')
        return out


@pytest.mark.parametrize("keep_going", [True, False])
def test_a_failed_training_ends_the_grid_unless_it_is_to_keep_going(
    tmp_path, monkeypatch, keep_going
):
    monkeypatch.chdir(tmp_path)
    options = ["--budget", "10,20", "--seed", "0,1", "--out", "made", "--device", "cpu"]
    command = ["train", f"{__name__}:Failing", *options, *(["--keep-going"] if keep_going else [])]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == (1 if keep_going else 2)
    assert len(done.stdout.split()) == len(list(tmp_path.glob("made/*/card.json")))
    assert len(done.stdout.split()) == (2 if keep_going else 0)
    plan = CliRunner().invoke(app, [*command, "--dry-run", "--json"])
    states = [json.loads(line)["there"] for line in plan.stdout.splitlines()]
    assert states.count("a finished checkpoint") == (2 if keep_going else 0)
