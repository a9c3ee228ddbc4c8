"""The report as a whole: what is read and written, and that its bytes are reproducible."""

import csv
import io
import os
import re
import subprocess
import sys
from dataclasses import replace

import matplotlib as mpl
import pytest

from bench import reporting as report
from bench.cli.report import report as print_report
from bench.errors import ResultError, UsageError
from bench.reporting import formats
from bench.reporting.comparison import Comparison
from bench.reporting.frame import flat
from bench.reporting.names import strip_folders, strip_paths
from bench.reporting.tables import tables
from bench.result import Absence
from bench.store import Store
from tests.bench.reporting.made import result, right

BUILD = """
import sys
from pathlib import Path
from bench import reporting, store
reporting.build(reporting.read(store.Store(Path(sys.argv[1]))), Path(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The store of two encoders on a task, and the files of its report."""
    folder = tmp_path_factory.mktemp("built")
    made = Store(folder / "results")
    for name, count, card in (("a", 300, {}), ("b", 320, {"training_tokens": 9})):
        trained = bool(card)
        cell = result(name, "t", examples=right(count), family="x", card=card, trained=trained)
        made[cell.spec] = cell
    with mpl.rc_context({"font.size": 20, "axes.facecolor": "red"}):
        return made, report.build(report.read(made), folder / "out")


def test_bytes_depend_neither_on_hash_seeds_nor_on_the_users_plot_settings(built, tmp_path):
    made, paths = built
    command = [sys.executable, "-c", BUILD, made.root, tmp_path]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": "7"})
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert first == {path.name: path.read_bytes() for path in paths}
    assert {"index.html", "results.md", "results.csv", "results.json"} <= first.keys()
    assert {"gains.png", "heatmap.svg", "families.pdf"} <= first.keys()


def test_the_markdown_has_every_table_and_its_figures(usual):
    made = tables(report.read(usual))
    text = formats.results_md(made, {"by-task": ["heatmap.png"]})
    assert all(f"## {table.title}\n" in text for table in made)
    assert text.index("## Every task") < text.index("![heatmap](heatmap.png)")
    assert text.index("![heatmap](heatmap.png)") < text.index("## Ranks")


def test_a_table_too_large_for_a_page_is_named_with_the_command_that_prints_it(store):
    made = store(*(result(f"e{i:02}", "t", i / 20) for i in range(16)))  # 120 pairs
    text = formats.results_md(tables(report.read(made)))
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
    made.leave_out(Absence("a", "sts", "t", "embedding", 42, 9, "failed", "no weights"))
    paths = report.build(report.read(made), tmp_path / "out")
    built = {path.name: path.read_text() for path in paths}
    assert all("no weights" in built[name] for name in ("index.html", "results.md", "results.json"))
    print_report(results=[made.root], form="csv", out=tmp_path / "csv")
    assert "a,t (limit 9),failed,no weights" in (tmp_path / "csv" / "missing.csv").read_text()
    with pytest.raises(UsageError, match="known: a"):
        report.read(made, models=["b"])


def test_columns_digits_caption_and_label_of_a_table_for_a_paper(usual, capsys):
    wanted = {"table": ["by-task"], "form": "tex", "columns": ["task,good"], "digits": 2}
    print_report(results=[usual.root], caption="Mine", label="tab:own", **wanted)
    printed = capsys.readouterr().out
    assert r"\caption[Every task]{Mine}" in printed
    assert r"\label{tab:own}" in printed
    assert r"t2 & \textbf{65.00 $\pm$ 7.07} \\" in printed
    assert "poor" not in printed


def test_no_results_and_a_folder_that_cannot_be_written_are_one_clear_line(built, tmp_path):
    with pytest.raises(UsageError, match="bench run"):
        report.build(report.read(Store(tmp_path)), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResultError, match="--out"):
        report.write(tmp_path / "file", {"a": "text"})


def test_every_table_is_among_those_that_help_and_completion_name(usual):
    from bench.cli.report import Form, Tables

    assert {re.sub(r"-\d+$", "", table.name) for table in tables(report.read(usual))} <= set(
        report.TABLES
    )
    named, formed = (option.__metadata__[0] for option in (Tables, Form))
    assert all(name in named.help for name in report.TABLES)
    assert named.autocompletion("cost,fam") == ["cost,families"]
    assert formed.autocompletion("c") == ["csv"]


def test_records_hold_every_cell_exactly_and_missing_ones_with_the_reason(store):
    made = store(
        result("a", "t", 1 / 3, limit=500),
        result("a", "u", 0.5),
        result("b", "u", 0.4, 0.5, 0.5, 0.6),
    )
    written = csv.DictReader(io.StringIO(flat(report.read(made)).to_csv()))
    rows = {(row["encoder"], row["task"]): row for row in written}
    first = rows["a", "t"]
    assert float(first["score"]) == 1 / 3
    assert (first["limit"], first["parameters"]) == ("500", "2500000")
    assert (rows["b", "t"]["score"], rows["b", "t"]["status"]) == ("", "not run")
    assert rows["a", "u"]["status"] == "done"
    assert float(rows["b", "u"]["stderr"]) == pytest.approx(float(rows["b", "u"]["std"]) / 2)
    assert (rows["a", "u"]["std"], rows["a", "u"]["stderr"]) == ("", "")


@pytest.mark.parametrize("prints", [("aaaa" * 4, "bbbb" * 4), ("aaaa1" + "0" * 11, "aaaa2" * 3)])
def test_two_encoders_of_one_name_are_two_rows(prints):
    made = [result("same", "t", 0.5 + i / 10, print_=p) for i, p in enumerate(prints)]
    length = 5 if prints[0][4] == "1" else 4
    expected = [f"same #{p[:length]}" for p in prints[::-1]]
    assert Comparison.of(made).labels == expected


def test_encoders_of_one_name_are_told_apart_by_the_settings_in_which_they_differ():
    made = []
    for score, print_, dim, words in (
        (0.9, "aaaa", 64, True),
        (0.8, "bbbb", 256, True),
        (0.7, "cccc", 256, False),
    ):
        settings = {"dim": dim, "words": words, "pooling": "mean"}
        made.append(result("hashing", "t", score, print_=print_ * 4, settings=settings))
    assert Comparison.of(made).labels == [
        "hashing dim=64 words=true",
        "hashing dim=256 words=true",
        "hashing dim=256 words=false",
    ]
    other = replace(made[1], spec=replace(made[1].spec, fingerprint="dddd" * 4))
    assert Comparison.of([made[0], made[1], other]).labels == [
        "hashing dim=64",
        "hashing dim=256 #bbbb",
        "hashing dim=256 #dddd",
    ]


def test_why_a_cell_is_missing_is_known_of_encoders_with_settings_in_their_label(store):
    made = store(
        *(result("a", "t", 0.5, print_=str(dim) * 16, settings={"dim": dim}) for dim in (1, 2)),
        result("a", "u", 0.5, print_="1" * 16, settings={"dim": 1}),
    )
    made.leave_out(Absence("a", "sts", "u", "embedding", 42, None, "failed", "too small"))
    shown = next(table for table in tables(report.read(made)) if table.name == "missing")
    assert [[e.text for e in row] for row in shown.rows] == [
        ["a dim=2", "u", "failed", "too small"]
    ]


def test_seeds_of_a_cell_are_put_together():
    made = [result("a", "t", 0.4, seed=1), result("a", "t", 0.6, seed=2)]
    cell = Comparison.of(made).measured.loc["a", "t"]
    assert (cell.score, cell.repeats) == (0.5, 2)


def test_other_limits_and_protocols_are_other_columns_and_say_so(store):
    made = store(
        result("a", "t", 0.4), result("a", "t", 0.6, limit=9), result("a", "t", 0.7, version=2)
    )
    cells = Comparison.of(made.results())
    assert sorted(cells.tasks.index) == [
        "t (limit 9, protocol 1)",
        "t (protocol 1)",
        "t (protocol 2)",
    ]


def test_one_content_at_two_places_is_measured_once_and_no_place_is_named(store):
    made = store(
        *(result(f"st:/home/{who}/model", "t", 0.5, print_="c" * 16) for who in ("ann", "bob"))
    )
    cells = Comparison.of(made.results())
    assert cells.labels == ["st:model"]
    assert cells.measured.loc["st:model", "t"].repeats == 1
    assert "/home" not in formats.results_md(tables(cells))


@pytest.mark.parametrize(
    ("given_", "shown"),
    [
        ("--data=/srv/a b/data", "--data=data"),
        ("quip,st:/srv/one/,st:/srv/two", "quip,st:one,st:two"),
        ("C:\\models\\mine", "mine"),
        ("~/mine", "mine"),
        ("../shared/data", "../shared/data"),
        ("st:org/model", "st:org/model"),
        ("/", "/"),
    ],
)
def test_absolute_paths_are_cut_to_their_last_part(given_, shown):
    assert strip_folders(given_) == shown


@pytest.mark.parametrize(
    ("given_", "shown"),
    [
        ("not in /home/ann/data/t.gz, get it", "not in t.gz, get it"),
        ("neither '/srv/x/y' nor org/set on the hub", "neither 'y' nor org/set on the hub"),
        ("see https://example.org/a/b", "see https://example.org/a/b"),
        ("C:\\data\\set is no folder", "set is no folder"),
        ("yes/no", "yes/no"),
    ],
)
def test_reasons_are_told_without_the_places_of_files(given_, shown):
    assert strip_paths(given_) == shown
