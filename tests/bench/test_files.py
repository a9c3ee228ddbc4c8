"""Files that are there whole or not at all."""

import json
import os
import signal

import pytest

from bench.files import (
    check_writable,
    escape_surrogates,
    hide_home,
    remove_leftovers,
    temporary_folder,
    write_atomic,
)
from tests.bench.commands import start_python

KILLED = """
import os, signal, sys
from pathlib import Path
import bench.files
os.fsync = lambda _: os.kill(os.getpid(), signal.SIG{name})
bench.files.write_atomic(Path(sys.argv[1]) / "made" / "file", "whole")
"""


def test_half_a_surrogate_pair_is_written_as_json_escapes_it(tmp_path):
    words = "é 😀 \ud800"
    write_atomic(tmp_path / "file", json.dumps(words, ensure_ascii=False))
    assert json.loads((tmp_path / "file").read_text(encoding="utf-8")) == words
    assert escape_surrogates(words) == "é 😀 \\ud800"


@pytest.mark.parametrize("name", ["KILL", "STOP"])
def test_what_a_killed_process_left_is_swept_and_what_is_being_written_stays(tmp_path, name):
    with start_python(KILLED.format(name=name), tmp_path) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WSTOPPED | os.WNOWAIT)
        (part,) = tmp_path.glob("made/.file.*.part")
        others = tmp_path / ".film.mp4.part"
        others.touch()
        for file in (part, others):
            os.utime(file, (0, 0))
        remove_leftovers(tmp_path)
        assert part.exists() == (name == "STOP")
        assert others.exists()
        process.send_signal(signal.SIGCONT)
    assert process.returncode == (0 if name == "STOP" else -signal.SIGKILL)
    assert [path.name for path in tmp_path.glob("made/*")] == ["file"] * (name == "STOP")


@pytest.mark.parametrize("name", ["a" * 300, "a/b"])
def test_what_cannot_be_written_is_known_before_and_names_the_file(tmp_path, name):
    (tmp_path / "a").touch()
    for write in (check_writable, lambda path: write_atomic(path, "")):
        with pytest.raises(OSError, match=name):
            write(tmp_path / name)
    check_writable(tmp_path / "new" / "file")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["a"]


def test_a_temporary_folder_of_a_killed_process_is_removed_and_one_in_use_stays(tmp_path):
    code = "import os, sys; from pathlib import Path; from bench.files import temporary_folder\n"
    code += "with temporary_folder(Path(sys.argv[1])) as work:\n"
    code += "    (work / 'file').touch(); os.kill(os.getpid(), 9)"
    with start_python(code, tmp_path) as process:
        assert process.wait() == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    os.utime(left, (0, 0))
    with temporary_folder(tmp_path) as mine:
        assert not left.exists()
        os.utime(mine, (0, 0))
        with temporary_folder(tmp_path) as other:
            assert mine.is_dir()
            assert other != mine
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("st:/home/me/models/x", "st:~/models/x"),
        ("bench run --results=/home/me/r -m a", "bench run --results=~/r -m a"),
        ("/home/me", "~"),
        ("no config.json in '/home/me'", "no config.json in '~'"),
        ("/home/meera/x /mnt/home/me/x", "/home/meera/x /mnt/home/me/x"),
    ],
)
def test_the_home_folder_is_a_tilde_and_other_folders_stay(monkeypatch, text, shown):
    monkeypatch.setenv("HOME", "/home/me")
    assert hide_home({"a": [text, 1]}) == {"a": [shown, 1]}
    monkeypatch.setenv("HOME", "/")
    assert hide_home(text) == text
