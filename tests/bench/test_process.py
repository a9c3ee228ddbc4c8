"""How a command ends: by a signal, at a full or closed stdout, without a library."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest

from bench.errors import install_hint

BENCH = (sys.executable, "-m", "bench")
WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, *_):
        if name.partition(".")[0] == {!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
from bench.__main__ import main
main()
"""
STOPPED = "stopped; finished cells are kept, and the same command resumes"

SLOW = """
import time
from dataclasses import dataclass
from pathlib import Path
import numpy as np
from bench.encoder import Encoder
from bench.task import Score

@dataclass(frozen=True)
class Slow:
    version = 1
    follows_instructions = False
    def encode(self, texts, *, instruction=""):
        try:
            Path("begun").touch()
            time.sleep(60)
        except BaseException:
            if SWALLOWED:
                raise ValueError("some library's own") from None
            raise
        return np.eye(len(texts), 4, dtype=np.float32)

@dataclass(frozen=True)
class Task:
    limit: int | None = None
    name, family, metric, version, readout, needs = "t", "f", "m", 1, "embedding", Encoder
    def evaluate(self, encoder, *, seed):
        encoder.encode(["a"])
        return {"m": Score((0.5,))}
"""

RECIPE = """
from dataclasses import dataclass
from bench.files import write_atomic

@dataclass(frozen=True)
class Recipe:
    device: str = "cpu"
    dtype: str = "auto"
    def check(self):
        pass
    def train(self, out, *, budget, seed, load, progress):
        write_atomic(out / "state.pt", bytes(1000))
"""


def run(*command, env=(), **options):
    env = {**os.environ, **dict(env)}
    return subprocess.run(
        command, env=env, text=True, stderr=subprocess.PIPE, timeout=120, **options
    )


@pytest.mark.parametrize("module", ["typer", "bench.tasks"])
def test_a_signal_during_imports_ends_in_one_line(module):
    command = [sys.executable, "-X", "importtime", "-m", "bench", "list"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        while not re.search(rf"\| +{re.escape(module)}$", process.stderr.readline()):
            pass
        process.send_signal(signal.SIGINT)
        rest = [line for line in process.stderr if not line.startswith("import time:")]
    assert (process.returncode, rest) == (130, [f"{STOPPED}\n"])


@pytest.mark.parametrize(
    ("number", "swallowed"), [(signal.SIGINT, False), (signal.SIGINT, True), (signal.SIGTERM, True)]
)
def test_a_signal_ends_a_run_also_where_a_library_swallows_it(tmp_path, number, swallowed):
    (tmp_path / "slow.py").write_text(SLOW.replace("SWALLOWED", str(swallowed)))
    command = [*BENCH, "run", "-m", "slow:Slow", "-t", "slow:Task", "--no-cache", "--keep-going"]
    with subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        while not (tmp_path / "begun").exists():
            assert process.poll() is None
        process.send_signal(number)
        out, err = process.communicate()
    assert process.returncode == 128 + number
    assert err.splitlines()[-1] == STOPPED
    assert "Traceback" not in err
    assert out == ""
    assert not list(tmp_path.glob("results/*/*"))


def test_stdout_on_a_full_disk_is_one_line():
    with open("/dev/full", "w") as full:  # noqa: PTH123 - no file
        for command in ("list", "--help"):
            done = run(*BENCH, command, stdout=full)
            assert done.returncode == 1
            assert done.stderr.startswith("error: cannot write to stdout: ")
            assert done.stderr.count("\n") == 1


def test_a_reader_that_stops_reading_is_no_error():
    done = run("bash", "-c", f"{' '.join(BENCH)} list | head -1; exit ${{PIPESTATUS[0]}}")
    assert (done.returncode, done.stderr) == (0, "")


def test_closed_streams_and_a_stderr_on_a_full_disk_change_no_exit_code():
    for closed in (">&-", "2>&- >&-", "2>/dev/full <&-"):
        for command, code in (("--help", 0), ("new Not-A-Name", 2)):
            done = run("bash", "-c", f"{' '.join(BENCH)} {command} {closed}")
            assert (done.returncode, "Traceback" in done.stderr) == (code, False)


def test_what_the_encoding_of_stdout_lacks_is_written_as_json_escapes_it():
    words = "é → 😀 \ud800"
    code = "import json; from bench.process import prepare; prepare(); "
    code += f"print(json.dumps({words!r}, ensure_ascii=False))"
    for encoding in ("ascii", "latin-1", "utf-8"):
        done = run(
            sys.executable,
            "-c",
            code,
            env={"PYTHONIOENCODING": encoding},
            stdout=subprocess.PIPE,
            encoding=encoding,
        )
        assert json.loads(done.stdout) == words


def test_a_missing_library_is_one_line_with_the_command_that_installs_it(tmp_path):
    command = ["train", "inbedder", "--budget", "1000", "--out", str(tmp_path / "out")]
    done = run(sys.executable, "-c", WITHOUT.format("torch"), *command, cwd=tmp_path)
    assert done.returncode == 1
    assert "pip install 'encoder-recipes-bench[torch]'" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert "bench[train]'" in install_hint(ModuleNotFoundError(name="accelerate"))
    assert install_hint(ModuleNotFoundError(name="no_such_library")) == ""


def test_a_disk_that_fills_up_in_a_training_is_one_line_that_names_the_file(tmp_path):
    (tmp_path / "recipes.py").write_text(RECIPE)
    code = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)); "
    code += "from bench.__main__ import main; main()"
    command = ["train", "recipes:Recipe", "--out", "made"]
    done = run(sys.executable, "-c", code, *command, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot read or write made/state.pt: ")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.glob("made/*"))


def test_encoders_of_all_that_cannot_be_imported_are_left_out_and_the_others_run(tmp_path):
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "__init__.py").write_text("raise RuntimeError('no such device')\n")
    announced = {"gone": "no_such.module:A", "fails": "broken.part:B", "odd": "???"}
    info = tmp_path / "stranger-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1\n")
    lines = [f"{name} = {value}" for name, value in announced.items()]
    (info / "entry_points.txt").write_text("\n".join(["[bench.encoders.default]", *lines]) + "\n")
    env = {"PYTHONPATH": str(tmp_path)}
    done = run(*BENCH, "list", "--json", env=env, stdout=subprocess.PIPE)
    about = {row["name"]: row["about"] for row in map(json.loads, done.stdout.splitlines())}
    assert (done.returncode, done.stderr) == (0, "")
    assert about["hashing"].startswith("Hashed counts")
    assert all(about[name] for name in announced)
    assert "no such device" in about["fails"]
    command = ["run", "-m", "all", "-t", "slow:Task", "--no-cache", "--json"]
    code = WITHOUT.format("torch")
    done = run(sys.executable, "-c", code, *command, cwd=tmp_path, env=env, stdout=subprocess.PIPE)
    status = {row["encoder"]: row["status"] for row in map(json.loads, done.stdout.splitlines())}
    assert status.pop("hashing") == "done"
    assert set(status.values()) <= {"skipped"}
    assert all(f"{name} is left out: " in done.stderr for name in announced)
    hint = "torch is not installed: pip install 'encoder-recipes-bench[torch]'"
    assert hint in done.stdout + done.stderr


def test_half_a_surrogate_pair_in_a_text_loses_no_clusters(tmp_path):
    texts = [f"{word} {i} \ud83d" for word in ("bread", "stone") for i in range(6)]
    lines = [json.dumps({"text": text}) for text in texts]
    (tmp_path / "texts.jsonl").write_text("\n".join(lines))
    done = run(
        *(*BENCH, "clusters", "-m", "hashing", "--texts", "texts.jsonl", "--k", "2", "--no-cache"),
        *(b"-i", b"what \xff?"),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    made = tmp_path / "clusters" / "texts"
    found = json.loads((made / "clusters.json").read_text(encoding="utf-8"))
    assert [row["text"] for row in found["groupings"][0]["texts"]] == texts
    assert "\\ud83d" in (made / "texts.csv").read_text(encoding="utf-8")
    assert "\\ud83d" in done.stdout


def test_a_folder_that_cannot_be_written_is_one_line_before_any_work(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "recipes.py").write_text(RECIPE)
    (tmp_path / "texts.txt").write_text("red\ngreen\nblue\n")
    place = str(tmp_path / "file" / "folder")
    for command in (
        ["train", "recipes:Recipe", "--out", place],
        ["clusters", "-m", "hashing", "--texts", "texts.txt", "--k", "2", "--out", place],
    ):
        done = run(*BENCH, *command, cwd=tmp_path)
        assert done.returncode in {1, 2}
        assert done.stderr.startswith("error: cannot ")
        assert place in done.stderr
        assert done.stderr.count("\n") == 1
