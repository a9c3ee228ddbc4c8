"""Reports: what the tables say, what the figures show, and that the same results give the same bytes."""

import csv
import io
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace

import matplotlib as mpl
import matplotlib.image
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import report
from bench.errors import ResultError, UsageError
from bench.report import figures, page, tables
from bench.report.cells import Cells, Column, placeless
from bench.result import Result, RunSpec
from bench.store import Store
from bench.task import Score


def result(
    encoder, task, *repeats, family="sts", seed=42, limit=None, version=1, print_="", trained=True, readout="embedding", commit="c1"
):
    spec = RunSpec(encoder, print_ or f"{encoder:x<16.16}", {"dim": 3}, task, version, readout, seed, limit)
    return Result(
        spec,
        family,
        "metric",
        {"metric": Score(tuple(repeats))},
        card={"trained": trained, "backbone": "A backbone", "dtype": "float32", "parameters": 2_500_000, "weights": "w", "device": "cpu"},
        texts={"asked": 10, "distinct": 8, "repeated_share": 0.2, "truncated_share": 0.125},
        cost={"seconds": 1.0, "encode_seconds": 2.0, "forward_texts": 8, "tokens": 100, "padded_tokens": 103, "peak_memory_mb": 512.0},
        provenance={"time": "2030-01-02T03:04:05+00:00", "command": "bench run", "commit": commit, "machine": {"cores": 2}, "versions": {}},
    )


@pytest.fixture
def store(tmp_path):
    def _store(*results):
        made = Store(tmp_path / "results")
        for r in results:
            made[r.spec] = r
        return made

    return _store


@pytest.fixture
def usual(store):
    return store(
        result("good", "t1", 0.8),
        result("good", "t2", 0.6, 0.7, family="ner"),
        result("good", "t3", 0.5, family="ner"),
        result("poor", "t1", 0.4, trained=False),
        result("poor", "t2", 0.2, 0.4, family="ner", trained=False),
        result("poor", "t3", 0.1, family="ner", trained=False),
        result("floor", "t1", 0.1),
    )


def rows(text):
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|") and "---" not in line
    ]


def test_scores_stand_with_their_spread_and_the_best_is_bold(usual):
    table = rows(report.table(usual, "md"))
    header, *body = table
    assert header == ["family", "task", "metric", "repeats", "good", "poor (untrained)", "floor"]
    assert body[0] == ["ner", "t2", "metric", "2", "**65.0 ± 7.1**", "30.0 ± 14.1", "—"]
    assert body[2] == ["sts", "t1", "metric", "1", "**80.0**", "40.0", "10.0"]


def test_a_family_mean_is_of_all_its_tasks_or_not_there(usual):
    text = (report.build(usual, usual.root.parent / "out")[0]).read_text()
    overview = {row[0]: row[2:] for row in rows(text)[:4]}
    assert overview["good"] == ["**57.5 ± 3.5**", "**80.0**", "**68.8**"]
    assert overview["floor"] == ["0 of 2 tasks", "10.0", "—"]


def test_a_task_that_few_encoders_can_do_stays_out_of_means_and_is_named(store):
    made = store(result("a", "t", 0.5), result("b", "t", 0.6), result("c", "t", 0.7), result("a", "rare", 0.9, readout="question"))
    cells = Cells.of(made.results())
    assert cells.family("a", "sts")[0] == pytest.approx(0.5)
    assert any("Left out of means" in note and "rare" in note for note in page.notes(cells))


def test_missing_is_missing_in_every_format_and_never_zero(usual):
    by_json = {(r["encoder"], r["task"]): r for r in json.loads(report.table(usual, "json"))}
    by_csv = {(r["encoder"], r["task"]): r for r in csv.DictReader(io.StringIO(report.table(usual, "csv")))}
    assert by_json["floor", "t2"]["score"] is None
    assert (by_csv["floor", "t2"]["score"], by_csv["floor", "t2"]["status"]) == ("", "missing")
    assert float(by_csv["good", "t1"]["score"]) == by_json["good", "t1"]["score"] == 0.8


def test_two_encoders_of_one_name_are_two_rows(store):
    made = store(result("same", "t", 0.5, print_="aaaa" * 4), result("same", "t", 0.6, print_="bbbb" * 4))
    assert Cells.of(made.results()).encoders == ["same #bbbb", "same #aaaa"]


def test_seeds_of_a_cell_are_put_together(store):
    made = store(result("a", "t", 0.4, seed=1), result("a", "t", 0.6, seed=2))
    score = Cells.of(made.results()).score("a", Column("sts", "t", "embedding", 0, 1, "metric"))
    assert (score.mean, len(score.repeats)) == (0.5, 2)


def test_other_limits_and_protocols_are_other_columns_and_say_so(store):
    made = store(result("a", "t", 0.4), result("a", "t", 0.6, limit=9), result("a", "t", 0.7, version=2))
    cells = Cells.of(made.results())
    assert sorted(cells.title(c) for c in cells.columns) == ["t (limit 9, protocol 1)", "t (protocol 1)", "t (protocol 2)"]


def test_cells_of_other_code_are_noted(store):
    made = store(result("a", "t", 0.4, commit="c1"), result("b", "t", 0.6, commit="c2"))
    assert any("code versions" in note and "c1, c2" in note for note in page.notes(Cells.of(made.results())))


def test_equal_scores_are_both_best(store):
    made = store(result("a", "t", 0.5), result("b", "t", 0.5), result("c", "t", 0.1))
    assert report.table(made, "md").count("**50.0**") == 2


def test_the_same_results_give_the_same_bytes(usual, tmp_path):
    first = [path.read_bytes() for path in report.build(usual, tmp_path / "one")]
    assert first == [path.read_bytes() for path in report.build(usual, tmp_path / "two")]


def test_figures_name_every_encoder_and_task_and_hold_every_score(usual):
    cells = Cells.of(usual.results())
    heat, bars = figures.heatmap(cells), figures.families(cells)
    texts = {t.get_text() for t in (*heat.axes[0].texts, *heat.axes[0].get_xticklabels(), *heat.axes[0].get_yticklabels())}
    assert texts >= {"80.0", "65.0", "10.0", "t1", "t2", "t3", "good", "poor (untrained)", "floor"}
    assert sorted(round(patch.get_width(), 1) for axes in bars.axes for patch in axes.patches) == [10.0, 20.0, 40.0, 57.5, 80.0]
    assert figures.rendered(heat, "png").startswith(b"\x89PNG")


def test_no_results_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(UsageError, match="bench run"):
        report.build(Store(tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_fifty_encoders_by_a_hundred_tasks_are_quick(store):
    rng = np.random.default_rng(0)
    tasks = [(f"task-{t:02}", f"family-{t % 8}") for t in range(100)]
    cells = Cells.of([result(f"encoder-{e:02}", t, *rng.uniform(0.2, 0.9, 3), family=f) for e in range(50) for t, f in tasks])
    start = time.process_time()
    text = page.page(cells)
    assert time.process_time() - start < 5
    assert text.count("\n| family-") >= 100
    assert figures.rendered(figures.heatmap(cells), "png")


def test_scores_below_zero_are_drawn_and_printed(store):
    made = store(result("a", "t", -0.15), result("b", "t", 0.5))
    cells = Cells.of(made.results())
    assert "-15.0" in report.table(made, "md")
    assert figures.families(cells).axes[0].get_xlim()[0] < -15
    assert replace(made[next(iter(made))], family="x").family == "x"


def test_fingerprints_that_begin_alike_are_told_apart(store):
    made = store(result("same", "t", 0.5, print_="aaaa1" + "0" * 11), result("same", "t", 0.6, print_="aaaa2" + "0" * 11))
    assert Cells.of(made.results()).encoders == ["same #aaaa2", "same #aaaa1"]


def test_one_content_at_two_places_is_measured_once_and_no_place_is_named(store, tmp_path):
    made = store(*(result(f"st:/home/{who}/model", "t", 0.5, print_="c" * 16) for who in ("ann", "bob")))
    cells = Cells.of(made.results())
    assert cells.encoders == ["st:model"]
    assert len(cells.score("st:model", cells.columns[0]).repeats) == 1
    assert "/home" not in page.page(cells)


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
    assert placeless(given_) == shown


def test_commands_are_told_without_the_places_of_files(store):
    r = result("a", "t", 0.5)
    made = store(replace(r, provenance={**r.provenance, "command": "bench run --data '/srv/my data/all' --model dino"}))
    assert "`bench run --data all --model dino`" in page.made(Cells.of(made.results()))


def test_what_was_not_measured_is_a_dash_in_every_table(store):
    made = store(replace(result("a", "t", 0.5), cost={}, texts={}, card={}, provenance={}))
    cells = Cells.of(made.results())
    assert set(tables.cost(cells).iloc[0, 1:]) | set(tables.data(cells).iloc[0, 1:]) == {tables.MISSING}
    assert page.page(cells)


def test_numbers_are_exact_and_whole_ones_stay_whole_in_csv_and_json(store):
    made = store(result("a", "t", 1 / 3, limit=500), result("a", "u", 0.5))
    for read in (json.loads(report.table(made, "json")), list(csv.DictReader(io.StringIO(report.table(made, "csv"))))):
        row = next(r for r in read if r["task"] == "t")
        assert (float(row["score"]), str(row["limit"]), str(row["parameters"])) == (1 / 3, "500", "2500000")


def test_a_bar_in_a_name_does_not_break_the_table(store):
    assert "odd\\|name" in report.table(store(result("odd|name", "t", 0.5), result("b", "t", 0.4)), "md")


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=6))
def test_bold_are_exactly_those_that_print_as_the_highest(values):
    texts = [tables.number(value) for value in values]
    best = max(map(float, texts))
    assert [t.startswith("**") for t in tables.bold(texts, values)] == [float(t) == best for t in texts]


def test_repeats_that_agree_have_a_spread_of_zero_and_a_single_one_has_none(store):
    table = rows(report.table(store(result("a", "t", 0.5, 0.5), result("b", "t", 0.4)), "md"))
    assert table[1][3:] == ["1 to 2", "**50.0 ± 0.0**", "40.0"]


def test_encoders_without_a_common_task_are_shown_without_means(store):
    cells = Cells.of(store(result("a", "t", 0.5), result("b", "u", 0.4)).results())
    assert [row[2:] for row in tables.overview(cells).to_numpy().tolist()] == [["1 of 2 tasks", "—"]] * 2
    assert "1 of 2 tasks" in {text.get_text() for text in figures.families(cells).axes[0].texts}


def test_svg_files_hold_the_labels_as_shapes_named_in_comments(usual, tmp_path):
    svg = next(path for path in report.build(usual, tmp_path / "out") if path.name == "heatmap.svg").read_text(encoding="utf-8")
    assert {c.strip() for c in re.findall(r"<!--(.*?)-->", svg)} >= {"t1", "t2", "t3", "good", "poor (untrained)", "floor", "ner", "sts"}
    assert "<text" not in svg


def test_bytes_depend_neither_on_hash_seeds_nor_on_the_users_plot_settings(usual, tmp_path):
    code = "import sys, pathlib; from bench import report, store; report.build(*map(lambda f, a: f(a), "
    code += "(lambda a: store.Store(pathlib.Path(a)), pathlib.Path), sys.argv[1:]))"
    subprocess.run([sys.executable, "-c", code, usual.root, tmp_path / "one"], check=True, env={**os.environ, "PYTHONHASHSEED": "7"})
    with mpl.rc_context({"font.size": 20, "axes.facecolor": "red"}):
        built = report.build(usual, tmp_path / "two")
    assert [path.read_bytes() for path in built] == [(tmp_path / "one" / path.name).read_bytes() for path in built]


def test_a_folder_that_cannot_be_written_is_one_clear_line(usual, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResultError, match="--out"):
        report.build(usual, tmp_path / "file")


def test_importing_the_room_loads_neither_pandas_nor_matplotlib():
    code = "import sys, bench.report; sys.exit(bool({'pandas', 'matplotlib', 'tabulate'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("encoders", "families"), [(1, 1), (4, 2), (20, 7)])
def test_every_label_of_a_figure_is_inside_it(store, encoders, families):
    made = [
        result(f"encoder-with-a-long-name-{e}", f"A-task-with-a-long-name-{f}", 0.5, 0.6, family=f"f{f}", trained=e > 0)
        for e in range(encoders)
        for f in range(families)
    ]
    cells = Cells.of(made)
    for figure in (figures.heatmap(cells), figures.families(cells)):
        pixels = mpl.image.imread(io.BytesIO(figures.rendered(figure, "png")))[..., :3]
        edges = (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1])
        assert all((edge == 1).all() for edge in edges)  # ink on an edge would be a label cut off
