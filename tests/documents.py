"""Blocks of code in Markdown files, and what runs them: what a reader types is what is tested.

A comment before a block says how it is treated, and why:

- none: it runs, in the order of the page, in one folder and one Python namespace a page;
- ``<!-- not run: REASON -->``: the program parses the options, Python compiles, ``bash -n`` reads;
- ``<!-- file: PATH -->``: it is the content of a file, which later blocks use.
"""

import doctest
import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from bench.cli import app

_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[a-z ]+): (?P<why>.+?) -->\n+)?^```(?P<kind>[^\n`]*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_SHELL = {"bash", "console"}
KINDS = {"python", "text", "json", "toml", "latex", *_SHELL}
MARKS = {"", "not run", "file"}


@dataclass(frozen=True)
class Block:
    """A fenced block of code.

    Attributes:
        kind: Its language.
        text: What is between the fences.
        line: Where it begins, from 1.
        mark: How it is treated.
        why: The reason; of a file its path.
    """

    kind: str
    text: str
    line: int
    mark: str
    why: str


def read_blocks(page: Path) -> list[Block]:
    """Return the blocks of a page in order."""
    content = page.read_text(encoding="utf-8")
    blocks = []
    for found in _BLOCK.finditer(content):
        if found["kind"].startswith("{"):  # a directive of the documentation
            continue
        line = content.count("\n", 0, found.start("text")) + 1
        mark, why = found["mark"] or "", found["why"] or ""
        blocks.append(Block(found["kind"], found["text"], line, mark, why))
    return blocks


def run_page(page: Path) -> None:
    """Run the blocks of a page in the working folder."""
    names = {"__name__": "__main__"}
    for block in read_blocks(page):
        place = f"{page.name}, line {block.line}"
        assert block.kind in KINDS, f"{place}: expected a language of {KINDS}, got {block.kind!r}"
        assert block.mark in MARKS, f"{place}: expected a mark of {MARKS}, got {block.mark!r}"
        if block.mark == "file":
            path = Path(block.why)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        elif block.kind == "python":
            code = compile(block.text, place, "exec")
            if not block.mark:
                exec(code, names)  # noqa: S102 - our own documents
        elif block.kind in _SHELL:
            for command, expected in _commands(block):
                _run(command, expected, block.mark, place)


def _commands(block: Block) -> list[tuple[str, str]]:
    """Return each command of a block with the output that a console shows."""
    text = re.sub(r"\\\n\s*", "", block.text)
    if block.kind == "bash":
        lines = [re.sub(r"\s+# .*", "", line) for line in text.splitlines()]
        return [(line, "") for line in lines if line and not line.startswith("#")]
    parts = re.split(r"^\$ ", text, flags=re.MULTILINE)
    return [tuple(part.partition("\n")[::2]) for part in parts if part.strip()]


def _run(command: str, expected: str, mark: str, place: str) -> None:
    """Run a command, or parse it where the mark says so."""
    simple = command.startswith("bench ") and not re.search(r"[|;&<>]", command)
    if not simple:
        done = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True)
        assert done.returncode == 0, f"{place}: {done.stderr}"
        assert mark == "not run", f"{place}: only `bench` commands are run, got {command!r}"
        for part in re.findall(r"bench [^|;&<>]*", command):
            _parse(shlex.split(part)[1:], place)
        return
    arguments = shlex.split(command)[1:]
    if mark == "not run":
        _parse(arguments, place)
        return
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, f"{place}: {command}\n{done.output}\n{done.exception!r}"
    checker, flags = doctest.OutputChecker(), doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    wanted = expected.replace("…", "...")
    if wanted.strip():
        right = checker.check_output(wanted.strip() + "\n", done.stdout.strip() + "\n", flags)
        assert right, f"{place}: expected\n{expected}\ngot\n{done.stdout}"


def _parse(arguments: list[str], place: str) -> None:
    """Parse a command as the program does, without running it."""
    command = typer.main.get_command(app)
    context = command.make_context("bench", arguments[:0], resilient_parsing=True)
    rest = list(arguments)
    try:
        while rest and rest[0] in getattr(command, "commands", {}):
            name, *rest = rest
            command = command.commands[name]
        command.make_context(arguments[0], rest, parent=context)
    except Exception as error:  # noqa: BLE001 - whatever the parser raises is a wrong example
        if type(error).__name__ != "Exit":  # --help
            pytest.fail(f"{place}: bench {shlex.join(arguments)}: {error}")
