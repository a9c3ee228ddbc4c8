"""What a new user does first: own texts, two encoders, a table for a paper, models of mteb's."""

import csv
import json
import re

import pytest

from bench.store import Store
from tests.bench.commands import call
from tests.bench.reporting.test_mteb_rows import ours, parts


def printed(line, *words):
    done = call(line, *words)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The options of a report on own texts: two encoders, run from the command line."""
    folder = tmp_path_factory.mktemp("own")
    kinds = (("a fine", "good"), ("a dull", "bad"))
    texts = (f"{kinds[i % 2][0]} film number {i},{kinds[i % 2][1]}" for i in range(30))
    (folder / "reviews.csv").write_text("\n".join(["review,stars", *texts]))
    task = f"classification:{folder / 'reviews.csv'}:text=review,label=stars"
    results = ("--results", folder / "results")
    run = "run -m hashing,small=hashing --set small.dim=8 --no-cache"
    printed(run, "--task", task, *results)
    return results


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """The options of a report on a model of one's own beside three of mteb's results."""
    folder = tmp_path_factory.mktemp("others")
    store = Store(folder / "results")
    for task, score in (("STS12", 0.5), ("STS16", 0.625)):
        cell = ours("mine", task, score)
        store[cell.spec] = cell
    for i, model in enumerate(("intfloat__e5", "BAAI__bge_small", "sentence-transformers__x")):
        place = folder / "clone/results" / model / "abc"
        place.mkdir(parents=True)
        found = {"dataset_revision": "r1", "scores": {"test": parts(default=0.25 * (i + 1))}}
        for task in ("STS12", "STS16"):
            (place / f"{task}.json").write_text(json.dumps(found))
    return ("--results", store.root, "--mteb", folder / "clone")


def test_own_texts_become_a_table_of_a_paper_and_a_model_stands_beside_mteb_s_results(own, others):
    chosen = "--caption Own --label tab:own --columns task,small --digits 2"
    table = printed(f"report --format tex {chosen}", *own)
    assert r"\caption[Every task]{Own}" in table
    assert r"\label{tab:own}" in table
    assert "small" in table
    assert re.search(r"\d\d\.\d\d", table)
    assert "hashing" not in table
    rows = csv.DictReader(printed("report --format csv", *others).splitlines())
    by_task = {row["task"]: row for row in rows}
    assert float(by_task["STS16"]["mine"]) == pytest.approx(0.625)
    assert float(by_task["STS16"]["BAAI/bge_small (mteb results)"]) == pytest.approx(0.5)
