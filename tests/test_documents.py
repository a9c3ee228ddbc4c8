"""Every block of code in README, CONTRIBUTING and docs runs, or is parsed with a reason why not.

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
from examples.own_texts import compare, plot, write_example_texts

_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[a-z ]+): (?P<why>.+?) -->\n+)?^```(?P<kind>[^\n`]*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_SHELL = {"bash", "console"}
KINDS = {"python", "text", "json", "toml", "latex", *_SHELL}
MARKS = {"", "not run", "file"}


@dataclass(frozen=True)
class Block:
    """A fenced block of code: its language, content, line, mark, and reason or path."""

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
        if not found["kind"].startswith("{"):  # a directive of the documentation
            line = content.count("\n", 0, found.start("text")) + 1
            kind, text, mark, why = found.group("kind", "text", "mark", "why")
            blocks.append(Block(kind, text, line, mark or "", why or ""))
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


ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if page.name != "commands.md"]  # which is generated


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BENCH_DATA", raising=False)  # packaged data only
    for name in ("DIR", "OTHER_RESULTS"):  # what the examples call folders
        (tmp_path / name).mkdir()
    run_page(page)


def test_every_block_that_does_not_run_says_why():
    for page in PAGES:
        for block in read_blocks(page):
            if block.mark == "not run":
                assert len(block.why.split()) > 1, f"{page.name}, line {block.line}"


def test_the_example_goes_from_own_texts_to_a_table_and_a_plot(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_example_texts(tmp_path / "texts.csv")
    scores = compare(tmp_path / "texts.csv", ["hashing"], tmp_path)
    assert scores.task.tolist() == ["classification", "clustering"]
    assert ((scores.low < scores.score) & (scores.score < scores.high)).all()
    plot(scores, tmp_path / "scores.png")
    assert (tmp_path / "scores.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("page", "why"),
    [
        ("```bash\nbench run --model nothing --task mrpc\n```\n", "no encoder named 'nothing'"),
        ("```python\n1 / 0\n```\n", "division by zero"),
        ("```console\n$ bench list hashing\nkind: suite\n```\n", r"expected\s+kind: suite"),
        ("<!-- not run: for a test -->\n```bash\nbench run --modle all\n```\n", "--modle"),
        ("<!-- not run: for a test -->\n```bash\nfor x in\n```\n", "syntax error"),
        ("<!-- not ran: for a test -->\n```bash\nbench list\n```\n", "expected a mark"),
        ("```\nbench list\n```\n", "expected a language"),
    ],
)
def test_a_wrong_block_is_found(page, why, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "page.md").write_text(page)
    with pytest.raises((AssertionError, ZeroDivisionError, pytest.fail.Exception), match=why):
        run_page(tmp_path / "page.md")
