"""What a new user does first: own texts, two encoders, a table for a paper, models of mteb's."""

import csv
import json
import shutil
import subprocess

import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.store import Store
from tests.bench.reporting.test_mteb_rows import ours, parts

PAPER = r"""\documentclass[10pt]{article}
\usepackage{booktabs,graphicx}
\begin{document}
\input{own}
\input{others}
\end{document}
"""


def call(*arguments):
    done = CliRunner().invoke(app, [str(each) for each in arguments])
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
    models = ("-m", "hashing,small=hashing", "--set", "small.dim=8")
    call("run", *models, "--task", task, "--no-cache", *results)
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
    names = ("--caption", "Own", "--label", "tab:own", "--columns", "task,small", "--digits", "2")
    table = call("report", *own, "--format", "tex", *names)
    assert r"\caption[Every task]{Own}" in table
    assert r"\label{tab:own}" in table
    assert "small" in table
    assert "hashing" not in table
    rows = csv.DictReader(call("report", *others, "--format", "csv").splitlines())
    by_task = {row["task"]: row for row in rows}
    assert float(by_task["STS16"]["mine"]) == pytest.approx(0.625)
    assert float(by_task["STS16"]["BAAI/bge_small (mteb results)"]) == pytest.approx(0.5)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex: apt-get install texlive")
def test_both_tables_compile(own, others, tmp_path):
    for name, options in (("own", own), ("others", others)):
        (tmp_path / f"{name}.tex").write_text(call("report", *options, "--format", "tex"))
    (tmp_path / "paper.tex").write_text(PAPER)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
