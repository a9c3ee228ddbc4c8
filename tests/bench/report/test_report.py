"""Reports: what the tables say, what the figures show, and that the same results give the same bytes."""

import csv
import io
import json
import time
from dataclasses import replace

import numpy as np
import pytest

from bench import report
from bench.errors import UsageError
from bench.report import figures, tables
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
        card={"trained": trained, "backbone": "A backbone", "dtype": "float32", "parameters": 2_500_000, "weights": "w"},
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
    assert header == ["family", "task", "metric", "good", "poor (untrained)", "floor"]
    assert body[0] == ["ner", "t2", "metric", "**65.0 ± 7.1**", "30.0 ± 14.1", "—"]
    assert body[2] == ["sts", "t1", "metric", "**80.0**", "40.0", "10.0"]


def test_a_family_mean_is_of_all_its_tasks_or_not_there(usual):
    page = (report.build(usual, usual.root.parent / "out")[0]).read_text()
    overview = {row[0]: row[1:] for row in rows(page)[:4]}
    assert overview["good"] == ["**57.5 ± 3.5**", "**80.0**", "**68.8**"]
    assert overview["floor"] == ["0 of 2 tasks", "10.0", "—"]


def test_a_task_that_few_encoders_can_do_stays_out_of_means_and_is_named(store):
    made = store(result("a", "t", 0.5), result("b", "t", 0.6), result("c", "t", 0.7), result("a", "rare", 0.9, readout="question"))
    cells = tables.Cells.of(made.results())
    assert cells.family("a", "sts")[0] == pytest.approx(0.5)
    assert any("Left out of means" in note and "rare" in note for note in tables.notes(cells))


def test_missing_is_missing_in_every_format_and_never_zero(usual):
    by_json = {(r["encoder"], r["task"]): r for r in json.loads(report.table(usual, "json"))}
    by_csv = {(r["encoder"], r["task"]): r for r in csv.DictReader(io.StringIO(report.table(usual, "csv")))}
    assert by_json["floor", "t2"]["score"] is None
    assert (by_csv["floor", "t2"]["score"], by_csv["floor", "t2"]["status"]) == ("", "missing")
    assert float(by_csv["good", "t1"]["score"]) == by_json["good", "t1"]["score"] == 0.8


def test_two_encoders_of_one_name_are_two_rows(store):
    made = store(result("same", "t", 0.5, print_="aaaa" * 4), result("same", "t", 0.6, print_="bbbb" * 4))
    assert tables.Cells.of(made.results()).encoders == ["same #bbbb", "same #aaaa"]


def test_seeds_of_a_cell_are_put_together(store):
    made = store(result("a", "t", 0.4, seed=1), result("a", "t", 0.6, seed=2))
    score = tables.Cells.of(made.results()).score("a", tables.Column("sts", "t", "metric", "embedding", 0, 1))
    assert (score.mean, len(score.repeats)) == (0.5, 2)


def test_other_limits_and_protocols_are_other_columns_and_say_so(store):
    made = store(result("a", "t", 0.4), result("a", "t", 0.6, limit=9), result("a", "t", 0.7, version=2))
    cells = tables.Cells.of(made.results())
    assert sorted(cells.title(c) for c in cells.columns) == ["t (limit 9, protocol 1)", "t (protocol 1)", "t (protocol 2)"]


def test_cells_of_other_code_are_noted(store):
    made = store(result("a", "t", 0.4, commit="c1"), result("b", "t", 0.6, commit="c2"))
    assert any("code versions" in note and "c1, c2" in note for note in tables.notes(tables.Cells.of(made.results())))


def test_equal_scores_are_both_best(store):
    made = store(result("a", "t", 0.5), result("b", "t", 0.5), result("c", "t", 0.1))
    assert report.table(made, "md").count("**50.0**") == 2


def test_the_same_results_give_the_same_bytes(usual, tmp_path):
    first = [path.read_bytes() for path in report.build(usual, tmp_path / "one")]
    assert first == [path.read_bytes() for path in report.build(usual, tmp_path / "two")]


def test_figures_name_every_encoder_and_task_and_hold_every_score(usual):
    cells = tables.Cells.of(usual.results())
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
    cells = tables.Cells.of([result(f"encoder-{e:02}", t, *rng.uniform(0.2, 0.9, 3), family=f) for e in range(50) for t, f in tasks])
    start = time.process_time()
    page = tables.page(cells)
    assert time.process_time() - start < 5
    assert page.count("\n| family-") >= 100
    assert figures.rendered(figures.heatmap(cells), "png")


def test_scores_below_zero_are_drawn_and_printed(store):
    made = store(result("a", "t", -0.15), result("b", "t", 0.5))
    cells = tables.Cells.of(made.results())
    assert "-15.0" in report.table(made, "md")
    assert figures.families(cells).axes[0].get_xlim()[0] < -15
    assert replace(made[next(iter(made))], family="x").family == "x"
