"""Trainings as a grid, on tiny models: what is planned, resumed and skipped, and found again."""

import json
from itertools import product

import numpy as np
import pytest

from bench.checkpoints import checkpoints_in, training_seconds
from bench.data import load
from bench.errors import UsageError
from bench.registry import load_encoders
from bench.trainings import plan_trainings, split_budgets
from tests.tiny import SENTENCES, tiny_folder


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    """A function that plans trainings on a tiny backbone and a few texts."""
    place = tmp_path_factory.mktemp("grid")
    tiny_folder("llama", place / "base", head=True)
    rng = np.random.default_rng(0)
    texts = [" ".join(SENTENCES[i] for i in rng.permutation(7)[:5]) for _ in range(6)]
    lines = [json.dumps({"text": text}) + "\n" for text in texts]
    (place / "texts.jsonl").write_text("".join(lines))
    changes = [f"backbone={place / 'base'}", f"sources={place / 'texts.jsonl'}"]
    changes += ["rank=2", "crops.batch_size=3", "crops.longest=60"]
    common = {"settings": {"device": "cpu", "dtype": "float32"}, "changes": changes}

    def _plan(out, methods=("crops",), budgets=("500", "900"), seeds=(0, 42), **more):
        return plan_trainings(methods, budgets, seeds, out=out, **common, **more)

    return _plan


def weights(folder):
    return (folder / "adapter_model.safetensors").read_bytes()


def quiet(*_):
    pass


def test_a_grid_is_trained_resumed_and_skipped_and_every_checkpoint_is_found(plan, tmp_path):
    trainings = plan(tmp_path / "grid")
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
    for training in trainings:
        card = json.loads((training.out / "card.json").read_text())
        found = (card["method"], card["budget"], card["seed"])
        assert found == ("crops", training.budget, training.seed)
    encoders = load_encoders([f"trained:{tmp_path / 'grid'}"])
    assert {encoder.checkpoint for encoder in encoders.values()} == {str(t.out) for t in trainings}

    (whole,) = plan(tmp_path / "whole", budgets=["500"], seeds=[42])
    assert whole.out == tmp_path / "whole"  # a single one has the folder itself
    whole.run(load, quiet)
    assert weights(whole.out) == weights(trainings[1].out)  # interrupted or not


def test_settings_and_variants_go_to_the_methods_that_have_them(plan, tmp_path):
    more = {"vary": ["crops.lr=1e-4,2e-4", "temperature=0.1"]}
    planned = plan(tmp_path, ("crops", "llm2comp"), ["500"], [1], **more)
    crops = {t.out.name: t.recipe for t in planned if t.method == "crops"}
    comp = {t.out.name: t.recipe for t in planned if t.method == "llm2comp"}
    assert list(crops) == ["base", "lr=1e-4", "lr=2e-4", "temperature=0.1"]
    assert list(comp) == ["base", "temperature=0.1"]
    assert {t.recipe.rank for t in planned} == {2}
    assert crops["lr=1e-4"].lr == 1e-4
    assert (crops["base"].batch_size, comp["base"].batch_size) == (3, 8)
    for wrong in ("dino.lr=1", "colour=1"):
        with pytest.raises(UsageError):
            plan(tmp_path, vary=[wrong])


def test_the_time_is_that_of_the_most_similar_earlier_training(plan, tmp_path):
    training = plan(tmp_path)[0]
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


@pytest.mark.parametrize(
    ("cards", "message"),
    [
        ({".": "{", "stages/one": '{"method": "crops"}'}, "finished trainings"),
        (dict.fromkeys(("a/b", "a-b"), '{"method": "crops"}'), "one checkpoint for the label a-b"),
    ],
)
def test_a_folder_without_a_finished_training_or_with_one_label_twice_is_refused(
    tmp_path, cards, message
):
    for place, card in cards.items():
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        (tmp_path / place / "card.json").write_text(card)
    with pytest.raises(UsageError, match=message):
        checkpoints_in(tmp_path)
