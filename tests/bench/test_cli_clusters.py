"""``bench clusters``, as a user types it."""

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.cli import app

FILES = ("clusters.md", "clusters.json", "clusters.png", "clusters.svg", "texts.csv")
TEXTS = [
    f"{thing} number {i}, {place} | the <b>house</b>"
    for thing in ("bread", "milk", "stone")
    for place in ("in", "near")
    for i in range(5)
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("BENCH_DATA", raising=False)
    Path("shop.txt").write_text("\n".join(TEXTS) + "\n\n")
    return tmp_path


def call(*arguments):
    return CliRunner().invoke(app, ["clusters", *arguments])


def hashed(*arguments):
    return call("-m", "hashing", "--texts", "shop.txt", *arguments)


def test_a_file_of_lines_becomes_a_table_and_files():
    result = hashed("--k", "3")
    assert result.exit_code == 0, result.stderr
    assert all(
        word in result.stdout for word in ("bread", "milk", "stone", "nearest to the centre")
    )
    assert result.stdout.splitlines()[-5:] == [
        str(Path("clusters", "shop", name)) for name in FILES
    ]
    assert "30 texts of shop.txt (1 blank one left out); hashing" in result.stderr
    with Path("clusters/shop/texts.csv").open(newline="") as file:
        assert [row["text"] for row in csv.DictReader(file)] == TEXTS


def test_json_is_one_object_a_cluster_and_the_file_holds_every_text():
    result = hashed("--k", "3", "--json", "--out", "there")
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(row["cluster"], row["size"]) for row in found] == [(1, 10), (2, 10), (3, 10)]
    assert all(len(row["examples"]) == 3 and row["words"]["texts"] for row in found)
    record = json.loads(Path("there/clusters.json").read_text())
    assert record["encoder"]["name"] == "hashing"
    assert [row["text"] for row in record["groupings"][0]["texts"]] == TEXTS
    assert {row["cluster"] for row in record["groupings"][0]["texts"]} == {1, 2, 3}


def test_the_page_shows_texts_as_they_are():
    hashed("--k", "3", "--out", "there")
    page = Path("there/clusters.md").read_text()
    assert "\\| the \\<b>house" in page
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in rows} == {5}


def test_the_same_call_writes_the_same_bytes():
    hashed("--out", "one", "--seed", "3")
    hashed("--out", "two", "--seed", "3", "--no-cache")
    assert all(
        (Path("one") / name).read_bytes() == (Path("two") / name).read_bytes() for name in FILES
    )


def test_two_instructions_are_two_groupings_and_one_picture():
    result = hashed("-i", "what?", "-i", "where?", "--k", "3")
    assert result.exit_code == 0, result.stderr
    assert "does not follow instructions" in result.stderr
    assert "agree to 1.00" in result.stdout
    page = Path("clusters/shop/clusters.md").read_text()
    assert "## 1. what?" in page
    assert "## 2. where?" in page
    assert page.count("![") == 1


def test_groups_of_another_file_are_not_overwritten_and_those_of_the_same_are_with_a_word():
    Path("shop.csv").write_text("text\n" + "\n".join(f"{i} other" for i in range(6)))
    assert "replacing" not in hashed("--k", "2").stderr
    other = call("-m", "hashing", "--texts", "shop.csv", "--k", "2")
    assert "clusters/shop-2/texts.csv" in [
        Path(line).as_posix() for line in other.stdout.splitlines()
    ]
    assert (
        json.loads(Path("clusters/shop/clusters.json").read_text())["texts"]["source"] == "shop.txt"
    )
    again = hashed("--k", "3")
    assert f"replacing the files in {Path('clusters', 'shop')}" in again.stderr
    assert (
        len(json.loads(Path("clusters/shop/clusters.json").read_text())["groupings"][0]["clusters"])
        == 3
    )


def test_a_limit_is_told(folder):
    result = hashed("--limit", "12", "--k", "2", "--json")
    assert "12 of 30 texts drawn at random" in result.stderr
    assert sum(json.loads(line)["size"] for line in result.stdout.splitlines()) == 12


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--texts", "shap.txt"], "shap.txt"),
        (["--texts", "shop.txt", "--column", "text"], "lines"),
        (["--texts", "table.csv", "--column", "c"], "a, b"),
        (["--texts", "table.csv"], "--column"),
        (["--texts", "one.txt"], "at least 2 different texts"),
        (
            ["--texts", "shop.txt", "--k", "31"],
            "at least 31 different texts for 31 clusters, got 30",
        ),
        (["--texts", "shop.txt", "--k", "1"], "--k takes auto or"),
        (["--texts", "shop.txt", "--k", "many"], "--k takes auto or"),
        (["--texts", "empty.txt"], "only blanks"),
        (["--texts", "shop.txt", "-m", "hashing,dino"], "one encoder"),
        (["--texts", "shop.txt", "-m", "hasing"], "hashing"),
        (["--texts", "shop.txt", "--out", "one.txt/x"], "--out"),
        ([], "--texts"),
    ],
)
def test_a_call_that_is_off_exits_with_2_and_says_what_is_right(arguments, told):
    Path("table.csv").write_text("a,b\n1,2\n")
    Path("one.txt").write_text("only one\n\n\n")
    Path("empty.txt").write_text("\n\n")
    result = call("-m", "hashing", *arguments)
    assert result.exit_code == 2
    assert told in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_it_explains_itself_with_examples():
    result = call("--help")
    assert result.exit_code == 0
    assert "Example" in result.stdout
