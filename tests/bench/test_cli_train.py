"""``bench train``: its options, before anything is trained, and what a tracker shows."""

import logging
from pathlib import Path

import pytest

from bench.trainings import folder_name
from tests.bench.commands import call, refused, rows
from tests.bench.recipes import NOTING, Noting, read_notes


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def train(options="", recipe=NOTING):
    return call(f"train {recipe} {options}")


def plan(options=""):
    return rows(train(f"{options} --dry-run --json"))[0]


def test_a_recipe_gets_what_the_command_line_says():
    options = "--budget 20_000 --seed 7 --device cpu --set text=b --set rate=2 --out made"
    done = train(options)
    assert (done.exit_code, done.stdout) == (0, "made\n"), done.output
    assert read_notes(Path("made")) == {"made": ["b", 2, "cpu", 20_000, 7]}
    assert [path.name for path in Path("made").iterdir()] == ["card.json"]  # nothing is tracked


def test_of_several_processes_only_the_first_one_prints(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    for options in ("", "--json", "--dry-run"):
        done = train(f"--out made {options}")
        assert (done.exit_code, done.output) == (0, "")
    assert read_notes(Path("made"))
    monkeypatch.setenv("RANK", "0")
    assert train("--out made").stdout == "made\n"


def test_variants_differ_in_one_setting_and_are_beside_their_base():
    done = train("--set text=b --vary rate=0.5,1 --vary text=c --out made --json")
    assert done.exit_code == 0, done.output
    noted = {name: note[:2] for name, note in read_notes(Path("made")).items()}
    assert noted == {"base": ["b", 0.5], "rate=1": ["b", 1], "text=c": ["c", 0.5]}
    for made in rows(done):
        assert noted[Path(made["out"]).name] == [made["recipe"]["text"], made["recipe"]["rate"]]


@pytest.mark.parametrize(
    ("budget", "tokens"), [("S", 1_000_000), ("l", 50_000_000), ("1_234", 1234)]
)
def test_budgets_have_names_and_a_dry_run_writes_nothing(budget, tokens):
    assert plan(f"--budget {budget}")["budget"] == tokens
    assert not list(Path.cwd().iterdir())


def test_a_dry_run_says_what_the_folder_contains():
    assert plan("--out made")["there"] == "nothing"
    for name, there in (("state.pt", "a training to resume"), ("card.json", "a finished checkp")):
        Path("made").mkdir(exist_ok=True)
        Path("made", name).touch()
        assert plan("--out made")["there"].startswith(there)


def test_the_hint_names_the_encoder_that_reads_the_checkpoint(caplog, monkeypatch):
    caplog.set_level(logging.INFO, "bench")
    train("--out made")
    assert "--model ENCODER:made,ENCODER --suite" in caplog.text
    monkeypatch.setattr(Noting, "encoder", "my_package.my_file:Reader", raising=False)
    train("--out made")
    assert "--model my_package.my_file:Reader:made,my_package.my_file:Reader " in caplog.text


def test_trainings_with_other_settings_or_seeds_are_in_other_folders():
    given = ("", "--set text=b", "--set text=a/b", "--set text=b --seed 7", "--budget 20000")
    folders = {Path(plan(options)["out"]) for options in given}
    assert len(folders) == len(given)
    assert {folder.parent for folder in folders} == {Path("checkpoints")}
    assert folder_name("dino", "S", ["decay=0"]) == "dino-S-decay=0"
    one, other = (folder_name("dino", "S", [f"x1=/{'long' * 100}/{n}"]) for n in range(2))
    assert one != other
    assert max(len(one.encode()), len(other.encode())) <= 200


@pytest.mark.parametrize("keep_going", [True, False])
def test_a_failed_training_ends_the_grid_unless_it_is_to_keep_going(keep_going):
    options = "--seed 0,1 --vary text=failing --out made " + "--keep-going" * keep_going
    done = train(options)
    assert done.exit_code == (1 if keep_going else 2)
    states = [row["there"] for row in rows(train(f"{options} --dry-run --json"))]
    finished = states.count("a finished checkpoint")
    assert len(done.stdout.split()) == finished == (2 if keep_going else 1)


@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        ("inbeder", ""),
        (f"{__name__}:Missing", ""),
        (f"{__name__}:Path", ""),
        ("json:JSONDecodeError", ""),
        (NOTING, "--budget 0"),
        (NOTING, "--budget many"),
        (NOTING, "--budget 1,234"),
        (NOTING, "--seed one"),
        (NOTING, "--set other.text=b"),
        (NOTING, "--set text"),
        (NOTING, "--vary text"),
        (NOTING, "--vary colour=1,2"),
        (NOTING, "--set colour=1"),
        (NOTING, '--set rate="fast"'),
        (NOTING, "--set text=wrong --dry-run"),
        (NOTING, "--vary text=b,wrong --out made"),
        (NOTING, "--device gpu"),
        (NOTING, "--dtype float23"),
        (NOTING, "--track paper"),
    ],
)
def test_an_invalid_call_ends_with_one_line_before_anything_is_trained(recipe, options):
    assert refused(f"train {recipe} {options}").startswith("error: ")
    assert not list(Path.cwd().iterdir())


def test_a_folder_that_cannot_be_written_or_a_tracker_that_is_not_installed_is_one_line(
    monkeypatch,
):
    Path("file").touch()
    done = train("--out file/folder")
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install wandb" in refused(f"train {NOTING} --track wandb")


def test_tensorboard_shows_the_numbers_of_each_step():
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    pytest.importorskip("accelerate")
    done = train("--out made --track tensorboard")
    assert (done.exit_code, done.stdout) == (0, "made\n"), done.output
    events = accumulator.EventAccumulator(str(Path("made", "tensorboard"))).Reload()
    found = [(event.step, round(event.value, 3)) for event in events.Scalars("noting/loss")]
    assert found == [(1, 1.0), (2, 0.5), (3, 0.333)]
