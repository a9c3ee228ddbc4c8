"""``bench new`` and ``bench check``: what is written works as it is, in a checkout and outside."""

import errno
import json
import shutil
import sys
from importlib.metadata import EntryPoint, version
from pathlib import Path

import pytest

import bench.tasks
from bench.cli import scaffold
from bench.files import write_atomic
from bench.testing import write_tiny_backbone
from tests.bench.commands import ROOT, call, refused, rows


@pytest.fixture(autouse=True)
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
    words = ["roof", "permit", "cost", "wall", "window", "tile", "pipe", "floor"]
    questions = [{"question": f"What of the {w}?", "answer": f"The {w} is new."} for w in words]
    scored = [
        {"sentence1": f"a {word}", "sentence2": f"a {word} or {other}", "score": i / 4}
        for i, (word, other) in enumerate(zip(words, words[::-1], strict=True))
    ]
    for place, found in (
        ("pypi/zaragoza-construction-faq/train.jsonl", questions),
        ("mteb/stsbenchmark-sts/test.jsonl", scored),
    ):
        path = folder / "data" / place
        path.parent.mkdir(parents=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in found))
    monkeypatch.setenv("BENCH_DATA", str(folder / "data"))


def check(line, *words):
    """Check what was made, and return the outcomes."""
    done = call(f"check --json {line}", *words)
    assert done.exit_code == 0, done.output
    return rows(done)


def listed(name):
    (row,) = rows(call("list --json", name))
    return row


def test_a_new_method_outside_a_checkout_is_a_language_model_encoder_that_works(folder):
    made = call("new my_method")
    assert made.exit_code == 0, made.stderr
    assert "my_package.my_method:MyMethod" in made.stdout
    tiny = write_tiny_backbone(folder / "tiny")
    found = check("--device cpu -m", f"my_method:MyMethod:{tiny}")
    assert {row["status"] for row in found} <= {"passed", "skipped"}
    assert call("new my_method").exit_code == 2
    about = listed("my_method:MyMethod")
    assert (about["kind"], about["follows_instructions"]) == ("encoder", True)
    assert about["settings"]["max_length"]["about"].startswith("Most tokens")


def test_a_new_recipe_trains_what_its_encoder_reads(pairs):
    assert call("new my_trained --recipe").exit_code == 0
    found = check("--recipe my_trained.train:Recipe --budget 600 --device cpu")
    assert {row["status"] for row in found} == {"passed"}
    about = listed("my_trained.train:Recipe")
    assert (about["kind"], about["settings"]["lr"]["default"]) == ("recipe", 5e-4)


def test_a_new_task_is_checked_with_an_encoder_that_is_able_to_do_it(pairs):
    assert call("new my_task --task").exit_code == 0
    found = check("--task my_task:TASK")
    assert {(row["status"], row["task"]) for row in found} == {("passed", "my-task")}
    about = listed("my_task:TASK")
    assert (about["kind"], about["metric"]) == ("task", "spearman")


@pytest.mark.parametrize(
    ("kind", "path", "text", "line"),
    [
        ("", "adapters/my_thing.py", "class MyThing", 'my-thing = "adapters.my_thing:MyThing"'),
        (
            "--recipe",
            "adapters/my_thing/train.py",
            "from adapters.my_thing.encoder",
            'my-thing = "adapters.my_thing.train:Recipe"',
        ),
        ("--task", "bench/tasks/my_thing.py", 'TASK = MyThing(\n    "my-thing"', ""),
    ],
)
def test_in_a_checkout_new_files_go_into_its_packages(kind, path, text, line):
    for package in ("adapters", "bench/tasks"):
        Path(package).mkdir(parents=True)
    shutil.copy(ROOT / "pyproject.toml", ".")
    made = call(f"new my_thing {kind}")
    assert made.exit_code == 0, made.stderr
    project = Path("pyproject.toml").read_text()
    assert text in Path(path).read_text()
    assert line in project
    if kind == "--recipe":
        assert 'my-thing = "adapters.my_thing.encoder:MyThing"' in project
    assert call(f"new my_thing {kind}").exit_code == 2


@pytest.mark.parametrize(
    "line",
    [
        "new My-Method",
        "new class",
        "new test",  # a module of Python
        "new numpy --task",
        "new true",  # class True
        "new backbone",  # what the template imports
        "new path --recipe",
        "new score --task",
        "new my_task --task --recipe",
        "check",
        "check --recipe crops -m crops,dino",
        "check --task stsb --recipe dino",
        "check --task wnut17 -m hashing",
    ],
)
def test_what_cannot_be_made_or_checked_is_refused_in_one_line(line, folder):
    assert refused(line)
    assert not list(folder.iterdir())


def test_tasks_of_another_package_are_added_and_a_broken_one_is_one_line(
    folder, monkeypatch, caplog
):
    call("new my_task --task")
    Path("my_broken.py").write_text("import no_such_library\n")
    Path("my_double.py").write_text("from my_task import TASK\nTASKS = (TASK, 3)\n")
    monkeypatch.syspath_prepend(str(folder))
    modules = ("my_broken", "my_task", "my_double")
    points = [EntryPoint(name, name, bench.tasks.GROUP) for name in modules]
    monkeypatch.setattr(bench.tasks, "entry_points", lambda group: points)
    assert {"my-task", "stsb"} <= bench.tasks._find_tasks().keys()
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "tasks of my_broken are left out",
        "tasks of my_double are left out",
    ]
    monkeypatch.setattr(bench.tasks, "entry_points", lambda group: points[1:2] * 2)
    caplog.clear()
    bench.tasks._find_tasks()
    assert "my-task is left out" in caplog.text


def test_the_version_is_shown():
    assert call("--version").stdout.split() == [
        "encoder-recipes-bench",
        version("encoder-recipes-bench"),
    ]


def test_a_method_that_cannot_be_written_whole_is_not_written(folder, monkeypatch):
    def fill(path, text):
        if path.name == "train.py":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write_atomic(path, text)

    monkeypatch.setattr(scaffold, "write_atomic", fill)
    assert "No space left on device" in call("new my_method --recipe").stderr
    assert not list(folder.iterdir())
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    assert call("new my_method --recipe").exit_code == 0
