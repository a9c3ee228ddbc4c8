"""The report as a whole: what is read and written, and that its bytes are reproducible."""

import os
import re
import subprocess
import sys
from dataclasses import replace

import matplotlib as mpl
import pytest

from bench import reporting as report
from bench.cli.report import Form, Tables
from bench.cli.report import report as print_report
from bench.errors import ResultError, UsageError
from bench.reporting import formats
from bench.reporting.comparison import Comparison
from bench.reporting.names import strip_folders, strip_paths
from bench.reporting.table import Table
from bench.reporting.tables import tables
from bench.store import Store
from tests.bench.reporting.made import absence, on, result

BUILD = """
import sys
from pathlib import Path
from bench import reporting, store
reporting.build(reporting.read(store.Store(Path(sys.argv[1]))), Path(sys.argv[2]))
"""


def test_bytes_depend_neither_on_hash_seeds_nor_on_the_users_plot_settings(store, tmp_path):
    cells = on("t", {"a": 300}, trained=False)
    made = store(*cells, *on("t", {"b": 320}, card={"training_tokens": 9}))
    with mpl.rc_context({"font.size": 20, "axes.facecolor": "red"}):
        paths = report.build(report.read(made), tmp_path / "one")
    command = [sys.executable, "-c", BUILD, made.root, tmp_path / "two"]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": "7"})
    first = {path.name: path.read_bytes() for path in (tmp_path / "two").iterdir()}
    assert first == {path.name: path.read_bytes() for path in paths}
    assert {"index.html", "results.md", "results.csv", "results.json"} <= first.keys()
    assert {"gains.png", "heatmap.svg", "families.pdf"} <= first.keys()


def test_the_markdown_has_every_table_and_its_figures_and_large_ones_by_their_command(store):
    made = tables(report.read(store(*(result(f"e{i:02}", "t", i / 20) for i in range(16)))))
    text = formats.results_md(made, {"by-task": ["heatmap.png"]})
    assert all(f"## {table.title}\n" in text for table in made)
    found = ("## Every task", "![heatmap](heatmap.png)", "## Ranks")
    assert sorted(found, key=text.index) == [*found]
    assert "120 rows by 3 columns: `bench report --table differences --format csv`" in text


def test_only_the_encoders_and_tasks_asked_for_are_reported(usual):
    cells = report.read(usual, models=["good", "floor"], tasks=["t1"])
    assert (set(cells.labels), list(cells.tasks.index)) == ({"good", "floor"}, ["t1"])
    for chosen, told in (
        ({"models": ["god"]}, "good"),
        ({"tasks": ["t4"]}, "t1"),
        ({"models": ["floor"], "tasks": ["t2"]}, "bench run"),
    ):
        with pytest.raises(UsageError, match=told):
            report.read(usual, **chosen)


def test_a_folder_of_failures_alone_is_reported_with_their_reasons(store, tmp_path):
    made = store()
    made.leave_out(absence("a", "t", limit=9, status="failed", reason="no weights"))
    paths = report.build(report.read(made), tmp_path / "out")
    built = {path.name: path.read_text() for path in paths}
    assert all("no weights" in built[name] for name in ("index.html", "results.md", "results.json"))
    print_report(results=[made.root], form="csv", out=tmp_path / "csv")
    assert "a,t (limit 9),failed,no weights" in (tmp_path / "csv" / "missing.csv").read_text()
    with pytest.raises(UsageError, match="known: a"):
        report.read(made, models=["b"])


def test_no_results_and_a_folder_that_cannot_be_written_are_errors(tmp_path):
    with pytest.raises(UsageError, match="bench run"):
        report.build(report.read(Store(tmp_path)), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResultError, match="--out"):
        report.write(tmp_path / "file", {"a": "text"})


def test_every_table_is_among_those_that_help_and_completion_name(usual):
    made = {re.sub(r"-\d+$", "", table.name) for table in tables(report.read(usual))}
    assert made <= set(report.TABLES)
    named, formed = (option.__metadata__[0] for option in (Tables, Form))
    assert all(name in named.help for name in report.TABLES)
    assert named.autocompletion("cost,fam") == ["cost,families"]
    assert formed.autocompletion("c") == ["csv"]


def test_a_table_that_is_asked_for_may_be_several_or_have_no_rows(caplog):
    made = tuple(Table(name, "", (), ()) for name in ("cost", "variants-1", "variants-2"))
    names = [table.name for table in report.chosen(made, ["variants", "missing", "cost"])]
    assert names == ["variants-1", "variants-2", "cost"]
    assert "the table missing has no rows" in caplog.text
    with pytest.raises(UsageError, match="did you mean 'cost'"):
        report.chosen(made, ["costs"])


@pytest.mark.parametrize(
    ("prints", "dims", "labels"),
    [
        ("ab", (3, 3), ["same #aaaa", "same #bbbb"]),
        (("aaaa1", "aaaa2"), (3, 3), ["same #aaaa1", "same #aaaa2"]),
        ("ab", (64, 256), ["same dim=64", "same dim=256"]),
        ("abd", (64, 256, 256), ["same dim=64", "same dim=256 #bbbb", "same dim=256 #dddd"]),
    ],
)
def test_encoders_of_one_name_are_told_apart_by_what_differs(prints, dims, labels):
    made = []
    for i, (print_, dim) in enumerate(zip(prints, dims, strict=True)):
        settings = {"dim": dim, "pooling": "mean"}
        about = {"print_": f"{print_:{print_[-1]}<16}", "settings": settings}
        made.append(result("same", "t", 0.9 - i / 10, **about))
    assert Comparison.of(made).labels == labels


def test_why_a_cell_is_missing_is_known_of_encoders_with_settings_in_their_label(store):
    one, two = (
        result("a", "t", 0.5, print_=str(dim) * 16, settings={"dim": dim}) for dim in (1, 2)
    )
    made = store(one, two, replace(one, spec=replace(one.spec, task="u")))
    made.leave_out(absence("a", "u", status="failed", reason="too small"))
    shown = next(table for table in tables(report.read(made)) if table.name == "missing")
    assert [[e.text for e in row] for row in shown.rows] == [
        ["a dim=2", "u", "failed", "too small"]
    ]


@pytest.mark.parametrize(
    ("strip", "given_", "shown"),
    [
        (strip_folders, "--data=/srv/a b/data", "--data=data"),
        (strip_folders, "quip,st:/srv/one/,st:/srv/two", "quip,st:one,st:two"),
        (strip_folders, "C:\\models\\mine", "mine"),
        (strip_folders, "~/mine", "mine"),
        (strip_folders, "../shared/data", "../shared/data"),
        (strip_folders, "st:org/model", "st:org/model"),
        (strip_folders, "/", "/"),
        (strip_paths, "not in /home/ann/data/t.gz, get it", "not in t.gz, get it"),
        (strip_paths, "neither '/srv/x/y' nor org/set", "neither 'y' nor org/set"),
        (strip_paths, "see https://example.org/a/b", "see https://example.org/a/b"),
        (strip_paths, "C:\\data\\set is no folder", "set is no folder"),
        (strip_paths, "yes/no", "yes/no"),
    ],
)
def test_no_place_of_a_file_is_told(strip, given_, shown):
    assert strip(given_) == shown
