"""Trainings whose results are there already, without their checkpoints, are left out of a grid."""

import json
from dataclasses import asdict

import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.data import load
from bench.store import Store
from bench.trainings import plan_trainings, scored_cards
from tests.bench.reporting.made import absence, result
from tests.tiny import SENTENCES, tiny_folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scored")
    tiny_folder("llama", folder / "base", head=True)
    lines = [json.dumps({"text": " ".join(SENTENCES[i:])}) + "\n" for i in range(4)]
    (folder / "texts.jsonl").write_text("".join(lines))
    return folder


def options(place):
    texts = f"sources={place / 'texts.jsonl'}"
    return [f"backbone={place / 'base'}", texts, "rank=2", "batch_size=2", "longest=60"]


def test_a_card_is_that_of_its_own_training_alone(place, tmp_path):
    def plan(budget="300", seed=1, dtype="auto", **more):
        changes = options(place) + [f"{name}={value}" for name, value in more.items()]
        settings = {"device": "cpu", "dtype": dtype}
        args = (["crops"], [budget], [seed])
        return plan_trainings(*args, settings=settings, changes=changes, out=tmp_path / "one")[0]

    plan(dtype="float32").run(load, lambda *_: None)
    card = json.loads((tmp_path / "one" / "card.json").read_text())
    assert plan(dtype="float32").made(card)
    assert plan().made(card)  # which dtype "auto" is depends on the machine
    assert plan(positions=99).made(card)  # changes rounding alone
    for other in (
        plan(budget="301"),
        plan(seed=2),
        plan(lr=0.5),
        plan(dtype="bfloat16"),
    ):
        assert not other.made(card)
    assert not plan().made({**card, "recipe": {}})
    assert not plan().made({**card, "method": "dino"})
    (paper,) = plan_trainings(["adapters.llm2vec_gen.train:PAPER"], ["300"], [1])
    made_by_it = {"method": "llm2vec-gen", "recipe": asdict(paper.recipe), "budget": 300, "seed": 1}
    assert paper.made(made_by_it)


def test_a_training_is_scored_when_it_has_every_task_that_it_can_do(tmp_path):
    store = Store(tmp_path)
    cards = {name: {"training": {"method": name}} for name in ("whole", "part", "unable")}
    for name, tasks in (("whole", "abc"), ("part", "ab"), ("unable", "ab"), ("untrained", "abc")):
        for task in tasks:
            each = result(name, task, 0.5, card=cards.get(name), print_=f"{name:x<16}")
            store[each.spec] = each
    store.leave_out(absence("unable", "c", reason="it has no token states"))
    store.leave_out(absence("part", "c", status="failed", reason="no memory"))
    assert sorted(card["method"] for card in scored_cards(store)) == ["unable", "whole"]
    assert scored_cards(Store(tmp_path / "none")) == []


def test_the_command_leaves_out_what_is_scored(place, tmp_path):
    changes = [word for each in options(place) for word in ("--set", each)]
    command = ["train", "crops", "--budget", "300", "--seed", "1,2", "--device", "cpu", *changes]
    command += ["--out", str(tmp_path / "grid")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    store = Store(tmp_path / "results")
    made = sorted((tmp_path / "grid").glob("*/card.json"))
    assert len(made) == 2
    card = json.loads(made[0].read_text())
    each = result(made[0].parent.name, "t", 0.5, card={"training": card})
    store[each.spec] = each
    left = CliRunner().invoke(
        app, [*command, "--scored", str(store.root), "--dry-run", "--json", "--out", "new"]
    )
    plans = [json.loads(line) for line in left.stdout.splitlines()]
    assert [plan["seed"] for plan in plans] == [2 if card["seed"] == 1 else 1]
