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
WITHOUT_TORCH = """
import sys
class Missing:
    def find_spec(self, name, *_):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
from bench.__main__ import main
main()
"""
STOPPED = "stopped; finished cells are kept, and the same command resumes"

OWN = """
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


def run(*command, env=(), **options):
    env, pipes = {**os.environ, **dict(env)}, {"stderr": subprocess.PIPE, "timeout": 120}
    return subprocess.run(command, env=env, text=True, **pipes, **options)


def test_a_signal_during_imports_ends_in_one_line():
    command = [sys.executable, "-X", "importtime", "-m", "bench", "list"]
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL}
    with subprocess.Popen(command, **pipes, text=True) as process:
        while not re.search(r"\| +typer$", process.stderr.readline()):
            pass
        process.send_signal(signal.SIGINT)
        rest = [line for line in process.stderr if not line.startswith("import time:")]
    assert (process.returncode, rest) == (130, [f"{STOPPED}\n"])


@pytest.mark.parametrize(("number", "swallowed"), [(signal.SIGINT, False), (signal.SIGTERM, True)])
def test_a_signal_ends_a_run_also_where_a_library_swallows_it(tmp_path, number, swallowed):
    (tmp_path / "own.py").write_text(OWN.replace("SWALLOWED", str(swallowed)))
    command = [*BENCH, "run", "-m", "own:Slow", "-t", "own:Task", "--no-cache", "--keep-going"]
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=tmp_path, **pipes, text=True) as process:
        while not (tmp_path / "begun").exists():
            assert process.poll() is None
        process.send_signal(number)
        out, err = process.communicate()
    assert process.returncode == 128 + number
    assert err.splitlines()[-1] == STOPPED
    assert "Traceback" not in err
    assert out == ""
    assert not list(tmp_path.glob("results/*/*"))


def test_a_full_or_closed_stdout_and_a_reader_that_stops():
    bench = " ".join(BENCH)
    for line, code, told in (
        ("--version >/dev/full", 1, "error: cannot write to stdout: "),
        ("list | head -1", 0, ""),
        ("--help 2>&- >&-", 0, ""),
        ("new Not-A-Name 2>/dev/full <&-", 2, ""),
    ):
        done = run("bash", "-c", f"{bench} {line}; exit ${{PIPESTATUS[0]}}", stdout=subprocess.PIPE)
        assert done.returncode == code
        assert done.stderr.startswith(told)
        assert done.stderr.count("\n") == bool(told)


def test_what_the_encoding_of_stdout_lacks_is_written_as_json_escapes_it():
    words = "é → 😀 \ud800"
    code = "import json; from bench.process import prepare; prepare(); "
    code += f"print(json.dumps({words!r}, ensure_ascii=False))"
    for encoding in ("ascii", "utf-8"):
        pipe = {"stdout": subprocess.PIPE, "encoding": encoding}
        done = run(sys.executable, "-c", code, env={"PYTHONIOENCODING": encoding}, **pipe)
        assert json.loads(done.stdout) == words


def test_encoders_of_all_that_cannot_be_imported_are_left_out_and_the_others_run(tmp_path):
    """Without torch, and with entry points of strangers that are broken."""
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "__init__.py").write_text("raise RuntimeError('no such device')\n")
    announced = {"gone": "no_such.module:A", "fails": "broken.part:B", "odd": "???"}
    info = tmp_path / "stranger-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1\n")
    lines = [f"{name} = {value}" for name, value in announced.items()]
    (info / "entry_points.txt").write_text("\n".join(["[bench.encoders.default]", *lines]) + "\n")
    more = {"env": {"PYTHONPATH": str(tmp_path)}, "stdout": subprocess.PIPE}
    done = run(*BENCH, "list", "--json", **more)
    about = {row["name"]: row["about"] for row in map(json.loads, done.stdout.splitlines())}
    assert (done.returncode, done.stderr) == (0, "")
    assert about["hashing"].startswith("Hashed counts")
    assert all(about[name] for name in announced)
    assert "no such device" in about["fails"]
    command = ["run", "-m", "all", "-t", "own:Task", "--no-cache", "--json"]
    done = run(sys.executable, "-c", WITHOUT_TORCH, *command, cwd=tmp_path, **more)
    status = {row["encoder"]: row["status"] for row in map(json.loads, done.stdout.splitlines())}
    assert status.pop("hashing") == "done"
    assert set(status.values()) <= {"skipped"}
    assert all(f"{name} is left out: " in done.stderr for name in announced)
    hint = "torch is not installed: pip install 'encoder-recipes-bench[torch]'"
    assert hint in done.stdout + done.stderr
    assert "bench[train]'" in install_hint(ModuleNotFoundError(name="accelerate"))
    assert install_hint(ModuleNotFoundError(name="no_such_library")) == ""
