"""Commands that are killed at any file operation: the same command then ends as if nothing had been."""

import os
import time
from pathlib import Path

import pytest

from tests.faults.conftest import WHOLE, Forks, Tally, sampled
from tests.faults.made import (
    checkpoint,
    folder_with_data,
    fresh,
    outcome,
    training_of,
    unfinished,
)

pytestmark = pytest.mark.faults

RUN = ("run", "-m", "hashing", "-t", "stsb,sts12", "--data", "data")
"""A cell with a result and values of each example, and one without its data."""


def aged(folder: Path) -> None:
    """Let unfinished files look as old as they are when somebody repeats a command by hand."""
    for name in unfinished(folder):
        os.utime(folder / name, times=(time.time() - 60, time.time() - 60))


@pytest.mark.parametrize("again", [False, True], ids=["new", "force"])
def test_a_killed_run_is_repeated_to_the_same_results(tmp_path, forks: Forks, again):
    start, tally = (
        folder_with_data(tmp_path / "start"),
        Tally(f"`bench run{' --force' * again}` is killed at a file operation"),
    )
    whole = fresh(tmp_path / "whole", start)
    first = forks.run(whole, *RUN)
    assert first.code == 0, first.said
    wanted = outcome(whole)
    assert len(wanted) == 3
    command = RUN
    if again:
        start, command = whole, (*RUN, "--force")
        first = forks.run(fresh(tmp_path / "counted", start), *command)
    for n in sampled(range(1, first.operations + 1), 4):
        folder = fresh(tmp_path / "killed", start)
        assert forks.run(folder, *command, die_at=n).code == -9
        aged(folder)
        second = forks.run(folder, *command)
        ok = second.code == 0 and outcome(folder) == wanted and not unfinished(folder / "results")
        tally.count(
            "crashed" if second.crashed else "equal" if ok else "differing",
            f"operation {n}: {second.said} {unfinished(folder)}",
        )
    tally.check()


def test_a_killed_training_is_repeated_to_the_same_checkpoint(tmp_path, torch_forks: Forks):
    start, tally = fresh(tmp_path / "start"), Tally("`bench train` is killed at a file operation")
    command = training_of(start)
    first = torch_forks.run(fresh(tmp_path / "killed", start), *command)
    assert first.code == 0, first.said
    wanted = checkpoint(tmp_path / "killed/out")
    assert "state.pt" not in wanted
    for n in sampled(range(1, first.operations + 1), 3):
        folder = fresh(tmp_path / "killed", start)
        assert torch_forks.run(folder, *command, die_at=n).code == -9
        aged(folder)
        second = torch_forks.run(folder, *command)
        left = checkpoint(folder / "out")
        ok = second.code == 0 and left == wanted
        said = f"operation {n}: {second.said} {sorted(left)}"
        tally.count("crashed" if second.crashed else "equal" if ok else "differing", said)
    tally.check()


REPORT = ("report", "--table", "families,by-task,missing", "--format", "json", "--out", "reports")


def test_a_killed_report_is_repeated_to_the_same_files(tmp_path, forks: Forks):
    start, tally = (
        folder_with_data(tmp_path / "start"),
        Tally("`bench report` is killed at a file operation"),
    )
    assert forks.run(start, *RUN).code == 0
    first = forks.run(fresh(tmp_path / "whole", start), *REPORT)
    assert first.code == 0, first.said
    wanted = checkpoint(tmp_path / "whole/reports")
    for n in sampled(range(1, first.operations + 1), 3):
        folder = fresh(tmp_path / "killed", start)
        assert forks.run(folder, *REPORT, die_at=n).code == -9
        aged(folder)
        second = forks.run(folder, *REPORT)
        left = checkpoint(folder / "reports")
        ok = second.code == 0 and {name: left.get(name) for name in wanted} == wanted
        said = f"operation {n}: {second.said} {sorted(left)}"
        tally.count("crashed" if second.crashed else "equal" if ok else "differing", said)
    tally.check()


SIZES = (300, 1000, 3000, 10_000, 30_000)


@pytest.mark.parametrize("command", [RUN, REPORT], ids=["run", "report"])
def test_a_full_disk_is_told_in_a_line_and_the_next_call_ends_the_same(
    tmp_path, forks: Forks, command
):
    start, tally = (
        folder_with_data(tmp_path / "start"),
        Tally("a file cannot grow: the disk is full"),
    )
    if command is not RUN:
        assert forks.run(start, *RUN).code == 0
    assert forks.run(fresh(tmp_path / "whole", start), *command).code == 0
    wanted = found(tmp_path / "whole")
    for size in SIZES if WHOLE else SIZES[1:2]:
        folder = fresh(tmp_path / "full", start)
        first = forks.run(folder, *command, most=size)
        second = forks.run(folder, *command)
        ok = first.code in {0, 1} and second.code == 0 and found(folder) == wanted
        crashed = first.crashed or second.crashed
        tally.count(
            "crashed" if crashed else "equal" if ok else "differing",
            f"{size} bytes: {first.said} {second.said}",
        )
    tally.check()


def test_a_training_on_a_full_disk_says_so_in_a_line_and_goes_on(tmp_path, torch_forks: Forks):
    start, tally = fresh(tmp_path / "start"), Tally("a file cannot grow: the disk is full")
    command = training_of(start)
    assert torch_forks.run(fresh(tmp_path / "full", start), *command).code == 0
    wanted = checkpoint(tmp_path / "full/out")
    for size in (1000, 30_000, 100_000) if WHOLE else (1000,):
        folder = fresh(tmp_path / "full", start)
        first = torch_forks.run(folder, *command, most=size)
        second = torch_forks.run(folder, *command)
        ok = first.code in {0, 1} and second.code == 0 and checkpoint(folder / "out") == wanted
        crashed = first.crashed or second.crashed
        tally.count(
            "crashed" if crashed else "equal" if ok else "differing",
            f"{size} bytes: {first.said} {second.said}",
        )
    tally.check()


def found(folder: Path) -> dict[str, object]:
    """Return what a folder holds of results and reports."""
    return outcome(folder) | checkpoint(folder / "reports")
