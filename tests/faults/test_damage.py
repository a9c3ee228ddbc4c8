"""Flipped bits and cut files: what was damaged is done again or told with the file's name, and never served as it is."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.conftest import WHOLE, Ended, Forks, Tally
from tests.faults.made import checkpoint, folder_with_data, fresh, outcome, training_of
from tests.faults.test_kills import RUN

pytestmark = pytest.mark.faults

TABLES = ("report", "--table", "all", "--format", "json")
Damage = Callable[[bytes, random.Random], bytes]


def flipped(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def judged(tally: Tally, end: Ended, path: Path, same: bool, case: str) -> None:
    """Count what came of a damaged file: the same results, or a line with its name."""
    case = f"{case} of {path.name}: {end.said[:1500]}"
    if end.crashed:
        tally.count("crashed", case)
    elif same:
        tally.count("equal", case)
    else:
        tally.count("told" if path.name in end.said else "differing", case)


def damaged(paths: list[Path], times: int):
    """Yield each file damaged in several ways, one at a time, and what was done to it; it is whole again afterwards."""
    rng = random.Random(7)
    for path in paths:
        data = path.read_bytes()
        for n in range(times):
            for damage in (flipped, cut):
                path.write_bytes(damage(data, rng))
                yield path, f"{damage.__name__} {n}"
        path.write_bytes(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, forks: Forks):
    folder = folder_with_data(tmp_path_factory.mktemp("damaged") / "folder")
    assert forks.run(folder, *RUN).code == 0
    return folder


def numbers(said: str) -> object:
    """Return the tables that a report has printed; None where it printed none."""
    start = said.find("[\n")
    try:
        return json.JSONDecoder().raw_decode(said[start:])[0] if start >= 0 else None
    except ValueError:
        return None


@pytest.mark.parametrize("suffix", [".json", ".npz", ".absent"])
def test_a_damaged_result_is_left_out_of_the_report_with_a_line(folder, forks: Forks, suffix):
    tally = Tally(f"a bit of a `{suffix}` of results is flipped, or its end cut; `bench report`")
    wanted = numbers(forks.run(folder, *TABLES).said)
    for path, case in damaged(sorted(folder.glob(f"results/*/*{suffix}")), 20 if WHOLE else 2):
        end = forks.run(folder, *TABLES)
        judged(tally, end, path, numbers(end.said) == wanted, case)
    tally.check()


@pytest.mark.parametrize("suffix", [".json", ".npz", ".absent"])
def test_a_damaged_result_is_run_again_or_told(folder, tmp_path, forks: Forks, suffix):
    tally = Tally(f"a bit of a `{suffix}` of results is flipped, or its end cut; `bench run`")
    wanted = outcome(folder)
    for path, case in damaged(sorted(folder.glob(f"results/*/*{suffix}")), 10 if WHOLE else 1):
        copy = fresh(tmp_path / "copy", folder)
        end = forks.run(copy, *RUN)
        judged(tally, end, path, outcome(copy) == wanted, case)
    tally.check()


def test_a_damaged_store_of_embeddings_changes_no_score(folder, tmp_path, forks: Forks):
    tally = Tally("a bit of the store of embeddings is flipped, or its end cut; `bench run`")
    wanted = outcome(folder)
    kept = [path for path in sorted((folder / "cache").rglob("*")) if path.is_file()]
    assert kept
    for path, case in damaged(kept, 15 if WHOLE else 2):
        copy = fresh(tmp_path / "copy", folder)
        end = forks.run(copy, *RUN, "--force")
        judged(tally, end, path, outcome(copy) == wanted, case)
    tally.check()


@pytest.fixture(scope="module")
def trained(tmp_path_factory, torch_forks: Forks):
    """A folder with a finished checkpoint, one with a training that was killed after its last step, and the command."""
    folder = folder_with_data(tmp_path_factory.mktemp("trained") / "folder")
    command = training_of(folder)
    assert torch_forks.run(folder, *command).code == 0
    return folder, command


def test_a_damaged_checkpoint_is_refused_or_gives_the_same_scores(trained, torch_forks: Forks):
    folder, _ = trained
    tally = Tally("a bit of a file of a checkpoint is flipped, or its end cut; `bench run`")
    command = (
        "run",
        "-m",
        "inbedder:out",
        "-t",
        "stsb",
        "--data",
        "data",
        "--no-cache",
        "--json",
        "--force",
        "--device",
        "cpu",
    )
    names = ("adapter_model.safetensors", "adapter_config.json", "card.json", "runs.u64")
    wanted = scored(torch_forks.run(folder, *command))
    assert wanted
    for path, case in damaged([folder / "out" / name for name in names], 8 if WHOLE else 1):
        end = torch_forks.run(folder, *command)
        judged(tally, end, path, scored(end) == wanted, case)
    tally.check()


def scored(end: Ended) -> list[object]:
    """Return the scores that a run has printed, and what they say of the encoder."""
    rows = [json.loads(line) for line in end.said.splitlines() if line.startswith("{")]
    return [(row["score"], row["trained"]) for row in rows if row["status"] == "done"]


def test_a_damaged_state_is_refused_or_trained_from_to_the_same_weights(
    trained, tmp_path, torch_forks: Forks
):
    folder, command = trained
    tally = Tally("a bit of a training's `state.pt` is flipped, or its end cut; `bench train`")
    wanted = checkpoint(folder / "out")
    start = fresh(tmp_path / "start", folder)
    fresh(start / "out")
    operations = torch_forks.run(start, *command).operations
    for die_at in range(operations, 0, -1):
        fresh(start / "out")
        torch_forks.run(start, *command, die_at=die_at)
        if (start / "out/state.pt").exists() and not (start / "out/card.json").exists():
            break
    for path, case in damaged([start / "out/state.pt"], 15 if WHOLE else 2):
        copy = fresh(folder.with_name("copy"), start)
        end = torch_forks.run(copy, *command)
        made = checkpoint(copy / "out")
        same = (
            made["adapter_model.safetensors"] == wanted["adapter_model.safetensors"]
            if "adapter_model.safetensors" in made
            else False
        )
        judged(tally, end, path, same, case)
    tally.check()
