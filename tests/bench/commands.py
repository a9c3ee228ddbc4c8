"""The command line in this process, and programs in others."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from bench.cli import app

ROOT = Path(__file__).parents[2]


def call(line: str, *words: object) -> Any:
    """Call ``bench`` with the words of a line and with further words as they are."""
    return CliRunner().invoke(app, [*line.split(), *map(str, words)])


def rows(done: Any) -> list[dict[str, Any]]:
    """Return the JSON objects that a call has printed."""
    return [json.loads(line) for line in done.stdout.splitlines()]


def refused(line: str, *words: object) -> str:
    """Return the one line with which an invalid call is refused."""
    done = call(line, *words)
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.output
    return done.stderr


def start_python(code: str, *arguments: object, **env: str) -> subprocess.Popen[str]:
    """Start a program that can import the project and its tests."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=variables, text=True, **pipes)


def run_python(code: str, *arguments: object, **env: str) -> str:
    """Return what a program that can import the project and its tests prints."""
    with start_python(code, *arguments, **env) as process:
        printed, messages = process.communicate(timeout=120)
    assert process.returncode == 0, messages
    return printed
