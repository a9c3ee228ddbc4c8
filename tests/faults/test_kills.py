"""Commands that are killed at any file operation: the same command then ends as if nothing had been."""

import os
import time
from pathlib import Path

import pytest

from tests.faults.conftest import Forks, Tally, sampled
from tests.faults.made import folder_with_data, fresh, outcome, unfinished

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
    for n in sampled(range(1, first.operations + 1), 6):
        folder = fresh(tmp_path / "killed", start)
        assert forks.run(folder, *command, die_at=n).code == -9
        aged(folder)
        second = forks.run(folder, *command)
        ok = second.code == 0 and outcome(folder) == wanted
        tally.count(
            "crashed" if second.crashed else "equal" if ok else "differing",
            f"operation {n}: {second.said} {unfinished(folder)}",
        )
    tally.check()
