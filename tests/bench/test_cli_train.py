"""``bench train``: its options, before anything is trained."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.errors import UsageError
from bench.trainings import folder_name


@dataclass(frozen=True)
class Copying:
    """A recipe that writes down its options; it rejects the text z."""

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
        written = json.dumps([self.text, self.rate, self.device, budget, seed])
        (out / "asked.json").write_text(written)
        return out


class NoRecipe:
    pass


COPYING = f"{__name__}:Copying"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def train(options: str = "", recipe: str = COPYING):
    return CliRunner().invoke(app, ["train", recipe, *options.split()])


def plan(options: str = "") -> dict:
    return json.loads(train(f"{options} --dry-run --json").stdout)


def test_a_recipe_gets_what_the_command_line_says():
    options = "--budget 20_000 --seed 7 --device cpu --set text=b --set rate=2 --out made"
    done = train(options)
    assert (done.exit_code, done.stdout) == (0, "made\n"), done.output
    assert json.loads(Path("made/asked.json").read_text()) == ["b", 2, "cpu", 20_000, 7]


def test_of_several_processes_only_the_first_one_prints(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    for options in ("", "--json", "--dry-run"):
        done = train(f"--out made {options}")
        assert (done.exit_code, done.output) == (0, "")
    assert Path("made/asked.json").is_file()
    monkeypatch.setenv("RANK", "0")
    assert train("--out made").stdout == "made\n"


def test_variants_differ_in_one_setting_and_are_beside_their_base():
    done = train("--set text=b --vary rate=0.5,1 --vary text=c --out made --json")
    assert done.exit_code == 0, done.output
    for line in done.stdout.splitlines():
        made = json.loads(line)
        asked = json.loads(Path(made["out"], "asked.json").read_text())
        assert asked[:2] == [made["recipe"]["text"], made["recipe"]["rate"]]
    found = {
        path.parent.name: json.loads(path.read_text())[:2] for path in Path("made").glob("*/*")
    }
    assert found == {"base": ["b", 0.5], "rate=1": ["b", 1], "text=c": ["c", 0.5]}


def test_budgets_have_names_and_a_dry_run_writes_nothing():
    for budget, tokens in (("S", 1_000_000), ("l", 50_000_000), ("1_234", 1234)):
        assert plan(f"--budget {budget}")["budget"] == tokens
    assert not list(Path.cwd().iterdir())


def test_a_dry_run_says_what_the_folder_contains():
    assert plan("--out made")["there"] == "nothing"
    Path("made").mkdir()
    Path("made/state.pt").touch()
    assert plan("--out made")["there"] == "a training to resume"
    Path("made/card.json").touch()
    assert plan("--out made")["there"] == "a finished checkpoint"


def test_the_hint_names_the_encoder_that_reads_the_checkpoint(caplog, monkeypatch):
    caplog.set_level("INFO", "bench")
    train("--out made")
    assert "--model ENCODER:made,ENCODER --suite" in caplog.text
    monkeypatch.setattr(Copying, "encoder", "my_package.my_file:Reader", raising=False)
    train("--out made")
    assert "--model my_package.my_file:Reader:made,my_package.my_file:Reader " in caplog.text


def test_settings_that_a_recipe_rejects_are_an_error_before_anything_is_trained():
    for options in ("--set text=z --dry-run", "--set text=z", "--vary text=b,z --out made"):
        done = train(options)
        assert (done.exit_code, done.stderr) == (2, "error: text is not z, got 'z'\n")
    assert not list(Path.cwd().iterdir())


def test_trainings_with_other_settings_or_seeds_are_in_other_folders():
    given = ("", "--set text=b", "--set text=a/b", "--set text=b --seed 7", "--budget 20000")
    folders = {Path(plan(options)["out"]) for options in given}
    assert len(folders) == len(given)
    assert {folder.parent for folder in folders} == {Path("checkpoints")}


def test_the_folder_of_a_checkpoint_has_a_valid_name():
    assert folder_name("dino", "S", ["decay=0"]) == "dino-S-decay=0"
    changes = [[f"x1=/{'long' * 100}/{n}"] for n in range(2)]
    one, other = (folder_name("dino", "S", change) for change in changes)
    assert one != other
    assert max(len(one.encode()), len(other.encode())) <= 200


@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        ("inbeder", ""),
        (f"{__name__}:Missing", ""),
        (f"{__name__}:NoRecipe", ""),
        ("json:JSONDecodeError", ""),
        (COPYING, "--budget 0"),
        (COPYING, "--budget many"),
        (COPYING, "--budget 1,234"),
        (COPYING, "--seed one"),
        (COPYING, "--set other.text=b"),
        (COPYING, "--set text"),
        (COPYING, "--vary text"),
        (COPYING, "--vary colour=1,2"),
        (COPYING, "--set colour=1"),
        (COPYING, '--set rate="fast"'),
        (COPYING, "--device gpu"),
        (COPYING, "--out file/folder"),
        (COPYING, "--dtype float23"),
    ],
)
def test_an_invalid_call_ends_with_one_line(recipe, options):
    Path("file").touch()
    done = train(options, recipe)
    assert (done.exit_code in {1, 2}, done.stderr.count("\n")) == (True, 1)
    assert done.stderr.startswith("error: ")
