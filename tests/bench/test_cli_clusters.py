"""``bench clusters``, as a user types it."""

import csv
import itertools
import json
from pathlib import Path

import pytest

from tests.bench.commands import call, rows

FILES = ("clusters.md", "clusters.json", "clusters.png", "clusters.svg", "texts.csv")
THINGS = ("bread", "milk", "stone")
PLACED = itertools.product(THINGS, ("in", "near"), range(5))
TEXTS = [f"{thing} number {i}, {place} | the <b>house</b>" for thing, place, i in PLACED]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with texts in shop.txt, in which they have been grouped under two instructions."""
    folder = tmp_path_factory.mktemp("clusters")
    (folder / "shop.txt").write_text("\n".join(TEXTS) + "\n\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("BENCH_CACHE", str(folder / "cache"))
        result = group("--k 3 -i what? -i where?")
    assert result.exit_code == 0, result.stderr
    return folder, result


@pytest.fixture(autouse=True)
def folder(made, monkeypatch):
    monkeypatch.chdir(made[0])
    monkeypatch.setenv("BENCH_CACHE", str(made[0] / "cache"))
    monkeypatch.delenv("BENCH_DATA", raising=False)


def group(line):
    return call(f"clusters -m hashing --texts shop.txt {line}")


def test_a_file_of_lines_becomes_a_table_and_files(made):
    shown = made[1].stdout
    assert all(word in shown for word in (*THINGS, "nearest to the centre", "agree to 1.00"))
    paths = [str(Path("clusters", "shop", name)) for name in FILES]
    assert shown.splitlines()[-5:] == paths
    assert "30 texts of shop.txt (1 blank one left out); hashing" in made[1].stderr
    assert "does not follow instructions" in made[1].stderr
    with Path("clusters/shop/texts.csv").open(newline="") as file:
        assert [row["text"] for row in csv.DictReader(file)] == TEXTS


def test_the_json_file_has_every_text_and_the_page_shows_them_literally():
    record = json.loads(Path("clusters/shop/clusters.json").read_text())
    assert record["encoder"]["name"] == "hashing"
    assert [grouping["instruction"] for grouping in record["groupings"]] == ["what?", "where?"]
    assert [row["text"] for row in record["groupings"][0]["texts"]] == TEXTS
    assert {row["cluster"] for row in record["groupings"][0]["texts"]} == {1, 2, 3}
    page = Path("clusters/shop/clusters.md").read_text()
    assert all(part in page for part in ("\\| the \\<b>house", "## 1. what?", "## 2. where?"))
    assert page.count("![") == 1
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in rows} == {5}


def test_the_same_call_writes_the_same_bytes():
    result = group("--k 3 -i what? -i where? --out two --no-cache")
    assert result.exit_code == 0, result.stderr
    for name in FILES:
        assert Path("clusters/shop", name).read_bytes() == Path("two", name).read_bytes()


def test_json_is_one_object_a_cluster_of_as_many_texts_as_the_limit_says():
    result = group("--limit 12 --k 2 --json --out part")
    assert "12 of 30 texts drawn at random" in result.stderr
    found = rows(result)
    assert ([row["cluster"] for row in found], sum(row["size"] for row in found)) == ([1, 2], 12)
    assert all(len(row["examples"]) == 3 and row["words"]["texts"] for row in found)


def test_clusters_of_the_same_file_are_replaced_with_a_note_and_those_of_another_are_not():
    Path("shop.csv").write_text("text\n" + "\n".join(f"{i} other" for i in range(6)))
    other = call("clusters -m hashing --texts shop.csv --k 2")
    assert str(Path("clusters/shop-2/texts.csv")) in other.stdout.splitlines()
    assert "replacing" not in other.stderr
    shop = Path("clusters/shop/clusters.json")
    assert json.loads(shop.read_text())["texts"]["source"] == "shop.txt"
    assert f"replacing the files in {shop.parent}" in group("--k 2").stderr
    assert len(json.loads(shop.read_text())["groupings"][0]["clusters"]) == 2


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ("--texts shap.txt", "shap.txt"),
        ("--texts one.txt", "at least 2 different texts"),
        ("--texts shop.txt --k 31", "at least 31 different texts"),
        ("--texts shop.txt --k 1", "--k takes auto"),
        ("--texts shop.txt --k many", "--k takes auto"),
        ("--texts shop.txt -m hashing,backbone-mean", "one encoder"),
        ("--texts shop.txt --out one.txt/x", "--out"),
        ("", "--texts"),
    ],
)
def test_an_invalid_call_exits_with_2_and_says_what_is_valid(arguments, hint):
    Path("one.txt").write_text("only one\n\n\n")
    result = call(f"clusters -m hashing {arguments}")
    assert result.exit_code == 2
    assert hint in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_a_carriage_return_is_part_of_its_text_in_every_file():
    texts = ["one\rtwo", "three four", "five\r\nsix", "seven, eight"]
    Path("odd.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    assert call("clusters -m hashing --texts odd.jsonl --k 2 --out odd").exit_code == 0
    with Path("odd/texts.csv").open(newline="") as file:
        found = [(row["text"], int(row["cluster 1"])) for row in csv.DictReader(file)]
    (grouping,) = json.loads(Path("odd/clusters.json").read_text())["groupings"]
    assert found == [(row["text"], row["cluster"]) for row in grouping["texts"]]
    assert [text for text, _ in found] == texts


def test_fewer_clusters_than_asked_for_are_said_to_be_so():
    Path("same.txt").write_text("Hello\nHELLO\nhello\nhello!\nother thing\n")
    made = call("clusters -m hashing --texts same.txt --k 4 --out same")
    assert "3 clusters instead of 4" in made.stderr
    assert "instead" not in group("--k 3 --out same").stderr
