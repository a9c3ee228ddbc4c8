"""``bench new`` and ``bench check``: what is written works as it is, in a checkout and outside."""

import json
import shutil
import sys
from dataclasses import replace
from importlib.metadata import EntryPoint, version
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.registry import load_encoder, load_recipe
from bench.testing import write_tiny_backbone


def call(*words: object):
    return CliRunner().invoke(app, [str(word) for word in words])


def rows(result) -> list[dict]:
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    modules = set(sys.modules)
    yield tmp_path
    for name in sys.modules.keys() - modules:
        if name.startswith("my_"):
            del sys.modules[name]


@pytest.fixture
def pairs(folder, monkeypatch):
    """Data of the template's recipe and task."""
    faq = folder / "data" / "pypi" / "zaragoza-construction-faq" / "train.jsonl"
    stsb = folder / "data" / "mteb" / "stsbenchmark-sts" / "test.jsonl"
    for path in (faq, stsb):
        path.parent.mkdir(parents=True)
    words = ["roof", "permit", "cost", "wall", "window", "tile", "pipe", "floor"]
    questions = [{"question": f"What of the {w}?", "answer": f"The {w} is new."} for w in words]
    faq.write_text("".join(json.dumps(row) + "\n" for row in questions))
    scored = [
        {"sentence1": f"a {word}", "sentence2": f"a {word} or {other}", "score": i / 4}
        for i, (word, other) in enumerate(zip(words, words[::-1], strict=True))
    ]
    stsb.write_text("".join(json.dumps(row) + "\n" for row in scored))
    monkeypatch.setenv("BENCH_DATA", str(folder / "data"))


def test_a_new_method_outside_a_checkout_is_a_language_model_encoder_that_works(folder):
    made = call("new", "my_method")
    assert made.exit_code == 0, made.stderr
    assert "my_package.my_method:MyMethod" in made.stdout
    tiny = write_tiny_backbone(folder / "tiny")
    checked = call("check", "-m", f"my_method:MyMethod:{tiny}", "--device", "cpu", "--json")
    assert checked.exit_code == 0, checked.stdout + checked.stderr
    assert {row["status"] for row in rows(checked)} <= {"passed", "skipped"}
    assert call("new", "my_method").exit_code == 2
    (listed,) = rows(call("list", "my_method:MyMethod", "--json"))
    assert (listed["kind"], listed["follows_instructions"]) == ("encoder", True)
    assert listed["settings"]["max_length"]["about"].startswith("Most tokens")


def test_a_new_recipe_trains_what_its_encoder_reads(folder, pairs):
    assert call("new", "my_trained", "--recipe").exit_code == 0
    recipe = "my_trained.train:Recipe"
    checked = call("check", "--recipe", recipe, "--budget", 600, "--device", "cpu", "--json")
    assert checked.exit_code == 0, checked.stdout + checked.stderr
    assert {row["status"] for row in rows(checked)} == {"passed"}
    (listed,) = rows(call("list", recipe, "--json"))
    assert (listed["kind"], listed["settings"]["lr"]["default"]) == ("recipe", 5e-4)


def test_a_recipe_is_checked_with_one_encoder():
    checked = call("check", "--recipe", "crops", "-m", "crops,dino")
    assert checked.exit_code == 2
    assert "got crops, dino" in checked.stderr


def test_a_new_task_is_checked_with_an_encoder_that_is_able_to_do_it(folder, pairs):
    assert call("new", "my_task", "--task").exit_code == 0
    checked = call("check", "--task", "my_task:TASK", "--json")
    assert checked.exit_code == 0, checked.stdout + checked.stderr
    assert {row["status"] for row in rows(checked)} == {"passed"}
    assert {row["task"] for row in rows(checked)} == {"my-task"}
    (listed,) = rows(call("list", "my_task:TASK", "--json"))
    assert (listed["kind"], listed["metric"]) == ("task", "spearman")


@pytest.mark.parametrize("kind", ["encoder", "recipe", "task"])
def test_in_a_checkout_new_files_go_into_its_packages(kind, folder):
    for package in ("adapters", "bench/tasks"):
        Path(package).mkdir(parents=True)
    shutil.copy(Path(__file__).parents[2] / "pyproject.toml", ".")
    made = call("new", "my_thing", *[f"--{kind}"] * (kind != "encoder"))
    assert made.exit_code == 0, made.stderr
    project = Path("pyproject.toml").read_text()
    if kind == "task":
        assert 'TASK = MyThing(\n    "my-thing"' in Path("bench/tasks/my_thing.py").read_text()
    elif kind == "recipe":
        assert 'my-thing = "adapters.my_thing.encoder:MyThing"' in project
        assert 'my-thing = "adapters.my_thing.train:Recipe"' in project
        assert "from adapters.my_thing.encoder" in Path("adapters/my_thing/train.py").read_text()
    else:
        assert 'my-thing = "adapters.my_thing:MyThing"' in project
        assert "bench.encoders.default" in made.stdout
    assert call("new", "my_thing", *[f"--{kind}"] * (kind != "encoder")).exit_code == 2


@pytest.mark.parametrize("words", [("My-Method",), ("class",), ("my_task", "--task", "--recipe")])
def test_a_name_or_kind_that_cannot_be_is_refused(words, folder):
    refused = call("new", *words)
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    "words", [(), ("--task", "stsb", "--recipe", "dino"), ("--task", "wnut17", "-m", "hashing")]
)
def test_a_check_says_what_it_lacks(words):
    refused = call("check", *words)
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1), refused.stderr


def test_tasks_of_another_package_are_added_and_a_broken_one_is_one_line(
    folder, monkeypatch, caplog
):
    import bench.tasks

    call("new", "my_task", "--task")
    Path("my_broken.py").write_text("import no_such_library\n")
    Path("my_double.py").write_text("from my_task import TASK\nTASKS = (TASK, 3)\n")
    monkeypatch.syspath_prepend(str(folder))
    modules = ("my_broken", "my_task", "my_double")
    points = [EntryPoint(name, name, bench.tasks.GROUP) for name in modules]
    monkeypatch.setattr(bench.tasks, "entry_points", lambda group: points)
    found = bench.tasks._find_tasks()
    assert {"my-task", "stsb"} <= found.keys()
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "tasks of my_broken are left out",
        "tasks of my_double are left out",
    ]
    monkeypatch.setattr(bench.tasks, "entry_points", lambda group: points[1:2] * 2)
    caplog.clear()
    bench.tasks._find_tasks()
    assert "my-task is left out" in caplog.text


def test_another_checkpoint_of_an_own_encoder_follows_its_name():
    encoder = load_encoder("adapters.baseline.pooled:Pooled:some/folder")
    assert encoder == replace(encoder, checkpoint="some/folder")


def test_every_recipe_names_the_encoder_of_its_checkpoints():
    from bench.registry import encoder_of

    for name in ("dino", "adapters.dino.train:PAPER", "adapters.dino.train:Recipe"):
        assert encoder_of(name, load_recipe(name)) == "dino"


def test_the_version_is_shown():
    shown = call("--version")
    assert shown.stdout == f"encoder-recipes-bench {version('encoder-recipes-bench')}\n"
