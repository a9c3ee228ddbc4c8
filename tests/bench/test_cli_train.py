"""``bench train``: what it is asked for, before anything is trained."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.errors import UsageError
from bench.recipe import Recipe
from bench.registry import load_recipe, recipe_names


@dataclass(frozen=True)
class Copying:
    """A recipe that writes down what it was asked for; it takes any text but z."""

    text: str = "a"
    rate: float = 0.5
    device: str = field(default="auto", compare=False)
    dtype: str = field(default="auto", compare=False)

    def check(self):
        if self.text == "z":
            raise UsageError(f"text is not z, got {self.text!r}")

    def train(self, out, *, budget, seed, load, progress):
        progress("copying", 1, 1)
        out.mkdir(parents=True, exist_ok=True)
        (out / "asked.json").write_text(
            json.dumps([self.text, self.rate, self.device, budget, seed])
        )
        return out


class NoRecipe:
    pass


COPYING = f"{__name__}:Copying"


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *options: CliRunner().invoke(app, ["train", *options])


def test_a_recipe_gets_what_the_command_line_says(bench):
    done = bench(
        COPYING,
        "--budget",
        "20_000",
        "--seed",
        "7",
        "--device",
        "cpu",
        "--set",
        "text=b",
        "--set",
        "rate=2",
        "--out",
        "made",
    )
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == "made"
    assert json.loads(Path("made/asked.json").read_text()) == ["b", 2, "cpu", 20_000, 7]


def test_of_several_processes_only_the_first_one_speaks(bench, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    for options in ((), ("--json",), ("--dry-run",)):
        done = bench(COPYING, "--out", "made", *options)
        assert (done.exit_code, done.output) == (0, "")
    assert Path("made/asked.json").is_file()
    monkeypatch.setenv("RANK", "0")
    assert bench(COPYING, "--out", "made").stdout.strip() == "made"


def test_variants_differ_in_one_setting_and_lie_beside_the_one_they_start_from(bench):
    done = bench(
        COPYING,
        "--set",
        "text=b",
        "--vary",
        "rate=0.5,1",
        "--vary",
        "text=c",
        "--out",
        "made",
        "--json",
    )
    assert done.exit_code == 0, done.output
    made = {
        Path(plan["out"]).name: plan["recipe"] for plan in map(json.loads, done.stdout.splitlines())
    }
    assert {name: (recipe["text"], recipe["rate"]) for name, recipe in made.items()} == {
        "base": ("b", 0.5),
        "rate=1": ("b", 1),
        "text=c": ("c", 0.5),
    }
    assert {
        name: json.loads(Path("made", name, "asked.json").read_text())[:2] for name in made
    } == {
        "base": ["b", 0.5],
        "rate=1": ["b", 1],
        "text=c": ["c", 0.5],
    }


@pytest.mark.parametrize(
    ("budget", "tokens"), [("S", 1_000_000), ("l", 50_000_000), ("1,234", 1234)]
)
def test_budgets_have_names(bench, budget, tokens):
    plan = json.loads(bench(COPYING, "--budget", budget, "--dry-run", "--json").stdout)
    assert plan["budget"] == tokens
    assert plan["recipe"]["text"] == "a"
    assert not list(Path.cwd().iterdir())  # a dry run writes nothing


def test_a_dry_run_says_what_the_folder_holds(bench):
    def there():
        return json.loads(bench(COPYING, "--out", "made", "--dry-run", "--json").stdout)["there"]

    assert there() == "nothing"
    Path("made").mkdir()
    Path("made/state.pt").touch()
    assert there() == "a training to resume"
    Path("made/card.json").touch()
    assert there() == "a finished checkpoint"


def test_settings_that_a_recipe_refuses_are_told_before_anything_is_trained(bench):
    assert bench(COPYING, "--dry-run").exit_code == 0
    for options in (
        ["--set", "text=z", "--dry-run"],
        ["--set", "text=z"],
        ["--vary", "text=b,z", "--out", "made"],
    ):
        done = bench(COPYING, *options)
        assert (done.exit_code, done.stderr) == (2, "error: text is not z, got 'z'\n")
    assert not list(Path.cwd().iterdir())


def test_trainings_with_other_settings_or_seeds_lie_in_other_folders(bench):
    def folder(*options):
        return json.loads(bench(COPYING, *options, "--dry-run", "--json").stdout)["out"]

    given = [
        (),
        ("--set", "text=b"),
        ("--set", "text=a/b"),
        ("--set", "text=b", "--seed", "7"),
        ("--budget", "20000"),
    ]
    assert len({folder(*options) for options in given}) == len(given)
    assert all(Path(folder(*options)).parent == Path("checkpoints") for options in given)


@pytest.mark.parametrize(
    "options",
    [
        ("inbeder",),
        (f"{__name__}:Missing",),
        (f"{__name__}:NoRecipe",),
        (COPYING, "--budget", "0"),
        (COPYING, "--budget", "many"),
        (COPYING, "--set", "text"),
        (COPYING, "--vary", "text"),
        (COPYING, "--vary", "colour=1,2"),
        (COPYING, "--set", "colour=1"),
        (COPYING, "--set", 'rate="fast"'),
        (COPYING, "--device", "gpu"),
        (COPYING, "--dtype", "float23"),
        ("json:JSONDecodeError",),
    ],
)
def test_a_call_that_is_off_ends_with_one_line_and_code_2(bench, options):
    done = bench(*options)
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.strip().count("\n") == 0


def test_every_registered_recipe_can_be_made():
    assert recipe_names()
    for name in recipe_names():
        assert isinstance(load_recipe(name), Recipe)
    with pytest.raises(UsageError, match="did you mean 'inbedder'"):
        load_recipe("inbeder")


def test_a_checkpoint_s_folder_has_a_name_that_a_file_system_takes():
    from bench.cli.train import _default_folder

    names = [_default_folder("dino", "S", [f"x1=/{'long' * 100}/{n}"]).name for n in range(2)]
    assert len(set(names)) == 2
    assert all(len(name.encode()) <= 200 for name in names)
    assert _default_folder("dino", "S", ["decay=0"]).name == "dino-S-decay=0"
