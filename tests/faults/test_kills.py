"""Commands that are killed or have no space left: repeated, they end with the same results."""

import pytest

from tests.faults.campaign import WHOLE, Job, Tally, sample
from tests.faults.commands import (
    AGAIN,
    PAGE,
    RUN,
    TABLES,
    TRAININGS,
    age,
    differences,
    fresh,
    read_outcome,
)

pytestmark = pytest.mark.faults

LIKE_OTHERS = {"crops", "llm2vec-gen"}  # their loops and stages are inbedder's and quip's
SHORT = [TRAININGS[name] for name in TRAININGS if name not in LIKE_OTHERS]
COMMANDS = (RUN, AGAIN, TABLES, *([PAGE, *TRAININGS.values()] if WHOLE else SHORT))
SIZES = (300, 1000, 10_000, 100_000)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_a_killed_command_is_repeated_to_the_same_results(tmp_path, forks, prepared, command):
    start, _, operations, wanted = prepared(command)
    points = sample(operations, operations if WHOLE else command.few)
    tally = Tally(f"`{command.name}` is killed at a file operation")
    folders = [fresh(tmp_path / f"at{n}", start) for n in points]
    kills = [Job(folder, command.words, n) for folder, n in zip(folders, points, strict=True)]
    assert {end.code for end in forks.run_apart(kills)} == {-9}
    for folder in folders:
        age(folder)
    ends = forks.run_apart([Job(folder, command.words) for folder in folders])
    for n, folder, end in zip(points, folders, ends, strict=True):
        changes = differences(read_outcome(folder), wanted)
        tally.add_repeated(end, not changes, f"operation {n}, {changes}")
    tally.check()


@pytest.mark.parametrize(
    "command", COMMANDS if WHOLE else (RUN, TABLES), ids=lambda command: command.name
)
def test_on_a_full_disk_a_command_ends_with_a_line_and_can_be_repeated(
    tmp_path, forks, prepared, command
):
    start, _, _, wanted = prepared(command)
    tally = Tally("a file cannot grow: the disk is full")
    sizes = SIZES if WHOLE else SIZES[1:2]
    folders = [fresh(tmp_path / f"full{size}", start) for size in sizes]
    full = [
        Job(folder, command.words, most=size) for folder, size in zip(folders, sizes, strict=True)
    ]
    first = forks.run_apart(full)
    second = forks.run_apart([Job(folder, command.words) for folder in folders])
    for folder, size, before, after in zip(folders, sizes, first, second, strict=True):
        changes = differences(read_outcome(folder), wanted)
        case = f"{size} bytes, {before.output}, {changes}"
        if before.crashed or before.code not in {0, 1}:
            tally.add("crashed", case)
        else:
            tally.add_repeated(after, not changes, case)
    tally.check()
