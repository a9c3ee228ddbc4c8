"""Every block of code in README, CONTRIBUTING and docs runs, or is parsed with a reason why not."""

from pathlib import Path

import pytest

from examples.own_texts import compare, plot, write_example_texts
from tests.documents import read_blocks, run_page

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
GENERATED = {"commands.md"}


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page.name not in GENERATED],
    ids=lambda page: str(page.relative_to(ROOT)),
)
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
    assert (scores.low < scores.score).all()
    assert (scores.score < scores.high).all()
    plot(scores, tmp_path / "scores.png")
    assert (tmp_path / "scores.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("page", "why"),
    [
        ("```bash\nbench run --model nothing --task mrpc\n```\n", "no encoder named 'nothing'"),
        ("```python\n1 / 0\n```\n", "division by zero"),
        ("```console\n$ bench list hashing\nkind: suite\n```\n", "expected\nkind: suite"),
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
