"""Flipped bits and cut files: a damaged file is made again or named, and never used as it is."""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.faults.campaign import WHOLE, Ended, Forks, Job, Tally
from tests.faults.commands import (
    RUN,
    TABLES,
    TRAININGS,
    Command,
    age,
    differences,
    fresh,
    read_outcome,
    scoring,
)

pytestmark = pytest.mark.faults

Read = Callable[[Path, Ended], dict[str, object]]


def flip(data: bytes, rng: random.Random) -> bytes:
    """Flip one bit."""
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def cut(data: bytes, rng: random.Random) -> bytes:
    """Cut the end off."""
    return data[: rng.randrange(len(data))]


def damage(names: Sequence[str], start: Path, times: int) -> Iterator[tuple[str, bytes, str]]:
    """Yield names of files with their damaged content and what was done, several times each."""
    rng = random.Random(7)
    for name in names:
        data = (start / name).read_bytes()
        for n in range(times if data else 0):
            for change in (flip, cut):
                yield name, change(data, rng), f"{change.__name__} {n}"


def run_damaged(
    forks: Forks,
    tally: Tally,
    start: Path,
    names: Sequence[str],
    times: int,
    command: tuple[str, ...],
    read: Read,
    wanted: dict[str, object],
) -> None:
    """Run a command in copies of a folder with a damaged file each, and count the outcomes."""
    assert names
    cases = list(damage(names, start, times))
    folders = [fresh(start.with_name(f"damaged{i}"), start) for i in range(len(cases))]
    for folder, (name, data, _) in zip(folders, cases, strict=True):
        (folder / name).write_bytes(data)
    ends = forks.run_apart([Job(folder, command) for folder in folders])
    for folder, (name, _, case), end in zip(folders, cases, ends, strict=True):
        changes = differences(read(folder, end), wanted)
        tally.add_damaged(end, not changes, folder / name, f"{changes}, {case}")
        fresh(folder).rmdir()
    tally.check()


def names_below(start: Path, *patterns: str) -> list[str]:
    """Return the names of the files that match a pattern; lock and unfinished files do not."""
    paths = {path for pattern in patterns for path in start.glob(pattern)}
    return sorted(
        str(path.relative_to(start))
        for path in paths
        if path.is_file() and not path.name.startswith(".")
    )


def outcome(folder: Path, _: Ended) -> dict[str, object]:
    """Return what a command has left."""
    return read_outcome(folder)


def reported(folder: Path, _: Ended) -> dict[str, object]:
    """Return the tables that a report has written."""
    return {name: data for name, data in read_outcome(folder).items() if name.startswith("reports")}


def scores(_: Path, end: Ended) -> dict[str, object]:
    """Return the scores that a run has printed, and whether their encoder is trained."""
    rows = [json.loads(line) for line in end.output.splitlines() if line.startswith("{")]
    done = [row for row in rows if row["status"] == "done"]
    return {row["task"]: (row["score"], row["trained"]) for row in done}


@pytest.mark.parametrize("suffix", [".json", ".npz", ".absent"])
def test_a_report_names_a_damaged_result(tmp_path, forks, prepared, suffix):
    tally = Tally(f"a `{suffix}` of results is damaged; `bench report`")
    start = fresh(tmp_path / "start", prepared(TABLES).start)
    command = ("report", "--table", "all", "--format", "json", "--out", "reports")
    whole = fresh(tmp_path / "whole", start)
    wanted = reported(whole, forks.run(whole, *command))
    assert wanted
    names = names_below(start, f"results/*/*{suffix}")
    names, times = (names, 10) if WHOLE else (names[:2], 1)
    run_damaged(forks, tally, start, names, times, command, reported, wanted)


@pytest.mark.parametrize("suffix", [".json", ".npz", ".absent"])
def test_a_damaged_result_is_run_again_or_named(tmp_path, forks, prepared, suffix):
    tally = Tally(f"a `{suffix}` of results is damaged; `bench run`")
    start = fresh(tmp_path / "start", prepared(RUN).whole)
    names = names_below(start, f"results/*/*{suffix}")
    wanted = prepared(RUN).wanted
    run_damaged(forks, tally, start, names, 5 if WHOLE else 1, RUN.words, outcome, wanted)


@pytest.mark.parametrize(
    ("kind", "pattern"), [("the cache of embeddings", "cache/**/*"), ("a data set", "data/**/*.gz")]
)
def test_a_damaged_cache_or_data_set_changes_no_score(tmp_path, forks, prepared, kind, pattern):
    tally = Tally(f"a file of {kind} is damaged; `bench run --force`")
    start = fresh(tmp_path / "start", prepared(RUN).whole)
    names, words = names_below(start, pattern), (*RUN.words, "--force")
    wanted = prepared(RUN).wanted
    run_damaged(forks, tally, start, names, 8 if WHOLE else 2, words, outcome, wanted)


@pytest.mark.parametrize("method", TRAININGS if WHOLE else ["inbedder"])
def test_a_damaged_checkpoint_is_refused_or_gives_the_same_scores(
    tmp_path, forks, prepared, method
):
    tally = Tally(f"a file of a checkpoint of {method} is damaged; `bench run`")
    start = fresh(tmp_path / "start", prepared(TRAININGS[method]).whole)
    command = scoring(method)
    wanted = scores(start, forks.run(start, *command))
    assert wanted
    names = names_below(start, "out/*")
    run_damaged(forks, tally, start, names, 2 if WHOLE else 1, command, scores, wanted)


@pytest.mark.parametrize("method", TRAININGS if WHOLE else ["llm2comp"])
def test_a_training_goes_on_from_damaged_files_to_the_same_weights_or_names_them(
    tmp_path, forks, prepared, method
):
    tally = Tally(f"a file of a killed training of {method} is damaged; `bench train`")
    command = TRAININGS[method]
    _, _, operations, wanted = prepared(command)
    tried: set[str] = set()
    for share in (0.95, 0.6) if WHOLE else (0.7,):
        last = round(share * operations)
        start = kill_unfinished(command, tmp_path / "start", forks, prepared, last)
        names = [name for name in names_below(start, "out/**/*") if name not in tried]
        tried.update(names)
        names = names if WHOLE else names[-1:]
        if names:
            run_damaged(forks, tally, start, names, 1, command.words, outcome, wanted)
    assert tried


def kill_unfinished(
    command: Command,
    folder: Path,
    forks: Forks,
    prepared: Callable[[Command], Any],
    last: int,
) -> Path:
    """Return a folder in which a training was killed at a file operation, before it had a card."""
    for operation in range(last, 0, -1):
        fresh(folder, prepared(command).start)
        end = forks.run(folder, *command.words, die_at=operation)
        assert end.code == -9
        if not (folder / "out/card.json").exists():
            break
    age(folder)
    return folder
