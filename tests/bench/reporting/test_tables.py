"""What the tables say, and how they mark it; ``test_kept`` has all of them on real results."""

from dataclasses import replace

import numpy as np
import pytest

from bench.reporting import tables
from bench.reporting.comparison import MEAN, Comparison
from bench.reporting.frame import flat
from bench.stats.influence import contributions
from tests.bench.reporting.made import absence, on, result, right, usual_results


class Report:
    """The tables of some results, made once."""

    def __init__(self, *results, absences=()):
        self.compared = Comparison.of(results, absences)
        self.tables = {table.name: table for table in tables.tables(self.compared)}

    def column(self, name, heading):
        """The entries of a column."""
        made = self.tables[name]
        return [row[made.columns.index(heading)] for row in made.rows]

    def texts(self, name, heading=None):
        """The texts of a column, or of all rows."""
        if heading:
            return [entry.text for entry in self.column(name, heading)]
        return [[entry.text for entry in row] for row in self.tables[name].rows]

    def row(self, name, n=0):
        """The texts of a row, by heading."""
        return dict(zip(self.tables[name].columns, self.texts(name)[n], strict=True))

    def marks(self, name, *headings):
        """The marks of each row in some columns."""
        columns = [[entry.mark for entry in self.column(name, h)] for h in headings]
        return list(zip(*columns, strict=True))

    def notes(self):
        """The table of notes as one text."""
        return "\n".join(entry.text for (entry,) in self.tables["notes"].rows)


def both(task, ours, theirs, **more):
    """Two encoders on a task; the answers of the other one are right elsewhere."""
    other = result("theirs", task, examples=right(theirs, first=100), **more)
    return [*on(task, {"ours": ours}, **more), other]


@pytest.fixture(scope="module")
def known():
    """Two encoders: one better on two tasks, equal on two others, and close on a fifth."""
    rng = np.random.default_rng(0)
    gold = rng.normal(size=400)

    def similar(encoder, values):
        parts = contributions("spearman", values.astype(np.float32), gold.astype(np.float32))
        about = {"metric": "spearman", "examples": values, "gold": gold}
        return result(encoder, "d-ranks", float(parts.mean()), **about)

    repeats = (0.51, 0.55, 0.53, 0.54, 0.52)
    return Report(
        *on("a-better", {"ours": 320, "theirs": 240}, family="x"),
        *both("b-equal", 200, 200, family="x"),
        *both("c-near", 204, 200, family="x"),
        similar("ours", gold + rng.normal(size=400)),
        similar("theirs", gold + 4 * rng.normal(size=400)),
        *on("e-repeats", {"ours": repeats, "theirs": repeats}, family="x"),
    )


def test_marks_wins_and_stars_of_a_known_case_follow_one_rule(known):
    tasks = known.texts("by-task", "task")
    assert tasks == ["d-ranks", "a-better", "b-equal", "c-near", "e-repeats"]
    equal = ("best", "best")
    marks = [("best", ""), ("best", ""), equal, ("best", "tie"), equal]
    assert known.marks("by-task", "ours", "theirs") == marks
    assert known.texts("win-tie-loss", "theirs") == ["2/3/0", ""]
    assert [row[3:] for row in known.texts("ranks")] == [["2", "3", "0"], ["0", "3", "2"]]
    starred = {task for task, text in known.row("differences").items() if text.endswith("*")}
    assert starred == {"a-better", "d-ranks"}


def test_a_difference_that_does_not_survive_correction_is_a_tie_everywhere():
    one = on("t", {"ours": 208, "theirs": 200})  # p = 0.005
    others = [each for i in range(12) for each in both(f"u{i}", 201, 200)]
    for cells, mark, outcome in ((one, "", "1/0/0"), ([*one, *others], "tie", "0/13/0")):
        made = Report(*cells)
        assert made.marks("by-task", "theirs")[0] == (mark,)
        gap = made.column("differences", "t")[0]
        assert gap.interval[0] > 0
        assert gap.text.endswith("*") is (mark == "")
        ours = made.compared.number["ours"]
        assert made.tables["win-tie-loss"].rows[ours][2 - ours].text == outcome


def test_scores_have_their_deviation_and_a_family_mean_is_of_all_its_tasks_or_missing():
    made = Report(*usual_results())
    assert made.tables["by-task"].columns[4:] == ("good", "poor (untrained)", "floor")
    row = ["ner", "t2", "metric", "2", "65.0 ± 7.1", "30.0 ± 14.1", "—"]
    assert made.texts("by-task")[0] == row
    families = {name: rest for name, _, *rest in made.texts("families")}
    assert families["good"] == ["57.5 ± 3.5", "80.0", "68.8", "1.00"]
    assert families["floor"] == ["0 of 2 tasks", "10.0", "—", "—"]


def test_one_score_is_printed_and_marked_alike_however_it_was_summed():
    """A mean of 66.25 may be a bit more or less in floats, which must not decide its last digit."""
    ours, theirs = (0.67, 0.655), (0.66, 0.6625, 0.665)
    report = Report(*on("t", {"ours": ours, "theirs": theirs, "low": 0.1}))
    row = report.row("by-task")
    assert [row["ours"][:4], row["theirs"][:4]] == ["66.3", "66.3"]
    assert report.marks("by-task", "ours", "theirs") == [("best", "best")]
    for table in ("families", "summary", "cost"):
        shown = dict(zip(report.texts(table, "encoder"), report.texts(table, MEAN), strict=True))
        assert shown == {"ours": "66.3", "theirs": "66.3", "low": "10.0"}


def test_a_task_of_few_encoders_is_excluded_from_means_and_has_no_best():
    cells = on("t", {"a": 0.5, "b": 0.6, "c": 0.7})
    made = Report(*cells, result("a", "rare", 0.9, readout="question"))
    assert made.compared.family_means.at["sts", "a"] == pytest.approx(0.5)
    assert "rare" in made.notes()
    alone = made.texts("by-task", "task").index("rare")
    assert "best" not in {e.mark for e in made.tables["by-task"].rows[alone]}


def test_the_newest_protocol_of_most_encoders_counts_and_then_the_largest_limit():
    wrong, better = {"a": 200, "b": 300}, {"a": 320, "b": 240}
    made = Report(
        *on("t", {"a": 300, "b": 200}, version=1),
        *on("t", wrong, version=2, limit=9),
        *on("t", better, version=2),
        *on("u", wrong, limit=9),
        *on("u", better, limit=50),
    )
    means = [row[2:] for row in made.texts("families")]
    assert means == [["80.0", "80.0", "1.00"], ["60.0", "60.0", "2.00"]]
    assert "t (protocol 1), t (limit 9, protocol 2), u (limit 9)" in made.notes()
    assert made.texts("win-tie-loss", "b") == ["2/0/0", ""]
    old = on("t", {"a": 0.5, "b": 0.5, "c": 0.5})
    assert Report(*old, result("a", "t", 0.9, version=2)).texts("families", "sts") == ["50.0"] * 3


def test_missing_cells_have_their_own_reasons():
    cells = on("t", {"a": 0.5}, limit=9) + on("t", {"a": 0.5, "b": 0.5}, limit=50)
    reasons = [
        absence("b", "t", limit=9, reason="not in /home/ann/data/t.gz, get it"),
        absence("c", "t", limit=9, status="failed", reason="no weights"),
        absence("c", "t", limit=7, readout="tokens", reason="no tokens"),
    ]
    made = Report(*cells, result("b", "u", 0.5), absences=reasons)
    assert made.texts("missing") == [
        ["a", "u", "not run", ""],
        ["b", "t (limit 9)", "skipped", "not in t.gz, get it"],
        ["c", "t (limit 7, tokens)", "skipped", "no tokens"],
        ["c", "t (limit 9)", "failed", "no weights"],
    ]
    entry = made.column("by-task", "b")[0]
    assert (entry.text, entry.mark, entry.note) == ("—", "missing", "skipped: not in t.gz, get it")


def test_a_seed_without_a_result_is_missing_also_where_others_have_one():
    failed = [replace(absence("a", "t", reason="no memory"), seed=seed) for seed in (1, 2)]
    made = Report(result("a", "t", 0.5, seed=1), absences=failed)
    assert made.texts("missing") == [["a", "t, seed 2", "skipped", "no memory"]]


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("commit", ("c1", "c2"), "code versions are mixed: c1; c2"),
        ("machine", ({"cores": 2}, {"cores": 4}), "mixed: 2 cores; 4 cores"),
        ("seed", (1, 2), "seed sets are mixed: 1; 2"),
        ("card", ({"dtype": "float32"}, {"dtype": "bfloat16"}), "dtypes"),
        ("data", [[{"id": "org/set", "revision": r}] for r in "12"], "revisions of org/set"),
    ],
)
def test_results_that_do_not_agree_are_noted(name, values, expected):
    one, other, same = (
        result(encoder, "t", 0.5, **{name: value})
        for encoder, value in zip("abb", (*values, values[0]), strict=True)
    )
    assert expected in Report(one, other).notes()
    assert expected not in Report(one, same).notes()


def test_own_files_of_one_name_are_no_mixed_data_and_are_named_without_their_folder():
    used = [[{"id": "/home/ann/own.csv", "split": "test", "sha256": each}] for each in "12"]
    one, two = (result("a", f"sts:own.csv-{data[0]['sha256']}", 0.5, data=data) for data in used)
    assert "revisions" not in Report(one, two).notes()
    hub = result("b", one.spec.task, 0.5, data=[{**used[0][0], "source": "hub", "sha256": "3"}])
    assert "revisions of own.csv/test are mixed: 1; 3" in Report(one, hub).notes()


def test_a_score_on_training_texts_is_marked_everywhere_and_never_the_best():
    cells = on("t", {"a": 0.9}, texts={"overlap_share": 0.4}) + on("t", {"b": 0.5})
    made = Report(*cells, *on("t", {"c": 0.4}, texts={"overlap_share": 0.01}))
    assert made.marks("by-task", "a", "b", "c") == [("warning", "best", "")]
    for name, heading, best in (
        ("families", "sts", "best"),
        ("families", "mean of families", "best"),
        ("families", "mean rank", "best"),
        ("ranks", "mean rank", ""),
        ("cost", "mean of families", ""),
        ("summary", "mean of families", ""),
    ):
        assert made.marks(name, heading) == [("warning",), (best,), ("",)]
    assert "t 40 %" in made.column("by-task", "a")[0].note
    assert made.texts("overlap") == [["t", "40.0 %", "—", "1.0 %"]]


def trained(name, tokens, score, backbone="A backbone"):
    training = {"trained_tokens": tokens}
    card = {"training_tokens": tokens, "backbone": backbone, "training": training}
    return result(name, "t", score, card=card)


@pytest.fixture(scope="module")
def budgets():
    return Report(
        trained("one", 1_000_000, 0.6),
        trained("two", 960_000, 0.7),
        trained("longer", 2_000_000, 0.9),
        trained("larger", 1_000_000, 0.9, backbone="Another"),
        result("raw", "t", 0.3, trained=False),
        *on("t", {"floor": 0.1, "new": 0.05}, card={"backbone": ""}),
        result("st:famous", "t", 0.95, card={"backbone": "famous"}),
    )


def test_equal_budgets_are_within_five_percent_beside_what_is_untrained(budgets):
    equal, others = budgets.tables["equal-budget"], budgets.tables["other-checkpoints"]
    shown = {row[0].text: row[2].mark for row in equal.rows}
    assert list(shown) == ["two", "one", "raw (untrained)", "floor", "new"]
    assert {name for name, mark in shown.items() if mark} == {"two"}
    assert "960,000 to 1,000,000 training tokens" in equal.about
    assert {row[0].text for row in others.rows} == {"longer", "larger", "st:famous"}
    alone = Report(trained("one", 1_000_000, 0.6), trained("longer", 2_000_000, 0.6))
    absent = {"equal-budget", "other-checkpoints", "overlap", "diagnostics", "variants"}
    assert not absent & alone.tables.keys()


def test_the_summary_has_methods_first_as_differences_to_the_untrained_backbone(budgets):
    shown = {row[0]: (row[1], row[-1]) for row in budgets.texts("summary")}
    methods = ["larger", "longer", "two", "one", "floor", "new"]
    assert list(shown) == [*methods, "raw (untrained)", "st:famous"]
    assert shown["two"] == ("+40.0", "method")
    assert shown["raw (untrained)"] == ("—", "untrained backbone")
    assert shown["st:famous"] == ("+65.0", "reference model")
    assert shown["new"] == ("-25.0", "method")  # a new method needs neither backbone nor training
    made = Report(*(trained(name, 10, 0.5) for name in ("mine", "quip:folder")))
    mine, quip = made.column("summary", "paper")
    assert (mine.mark, quip.link) == ("missing", "https://arxiv.org/abs/2106.08190")


def test_the_weights_of_a_training_are_no_untrained_backbone_whoever_pools_them():
    training = {"method": "crops", "trained_tokens": 10}
    card = {"training": training, "training_tokens": 10}
    pooled = result("backbone-mean:crops-S", "t", 0.7, card=card)
    assert Report(result("crops", "t", 0.8, card=card), pooled).compared.baseline is None
    made = Report(result("crops", "t", 0.8, card=card), pooled, result("backbone-mean", "t", 0.3))
    assert made.compared.baseline == "backbone-mean"
    assert made.texts("summary", "role") == ["method", "method", "untrained backbone"]
    assert len(set(made.texts("summary", "what it is")[:2])) == 1


def variant(name, count=250, seed=1, *, stages=(), **settings):
    recipe = {"decay": 100, "smooth": 0.2, **settings}
    training = {"method": "m", "budget": 1000, "seed": seed, "recipe": recipe, "stages": stages}
    card = {"training_tokens": 1000, "backbone": "B", "training": training}
    return result(name, "t", examples=right(count), card=card)


def test_variants_are_compared_with_the_one_closest_to_all():
    cells = [variant("none", 200, decay=0), variant("base", 300)]
    cells += [variant("rough", 299, smooth=0), variant("seeded", 310, 2)]
    made = Report(*cells, trained("other", 1000, 0.9, backbone="B"))
    found = made.tables["variants"]
    assert found.title == "Variants of m at 1,000 training tokens"
    changes = [["none", "decay 0"], ["rough", "smooth 0"], ["seeded", "seed 2"]]
    assert [row[:2] for row in made.texts("variants")] == changes
    assert [round(400 * row[2].value) for row in found.rows] == [-100, -1, 10]
    assert [row[2].text.endswith("*") for row in found.rows] == [True, False, True]
    assert "Each minus base (t 75.0)" in found.about
    assert {"other", "base"} <= {row[0] for row in made.texts("equal-budget")}
    assert "equal-budget" not in Report(*cells).tables  # one method is no comparison
    ordered = Report(*(variant(f"k{k}", k=k) for k in (16, 8, 2, 1)))
    assert [row[0] for row in ordered.texts("variants")] == ["k2", "k8", "k16"]


def test_checkpoints_of_the_stages_of_one_training_differ_in_their_stage():
    first, last = {"stage": "compression", "steps": 3}, {"stage": "contrastive"}
    made = Report(
        variant("base", stages=[first, last, {"seconds": 3}, "a note"]),  # the last with a name
        variant("same", stages=[first, last]),
        variant("early", stages=[first]),
        variant("lower", stages=[first], decay=0),
        variant("unknown", stages={"written by": "something else"}),
        variant("unnamed", stages=["compression"]),
    )
    changes = {row[0]: row[1] for row in made.texts("variants")}
    alike = dict.fromkeys(("same", "unknown", "unnamed"), "the same settings")
    expected = {"early": "stage compression", "lower": "decay 0, stage compression"}
    assert changes == {**expected, **alike}


def test_cost_is_of_the_largest_run_and_what_was_not_measured_is_missing():
    small, large = (result("a", task, 0.5) for task in "tu")
    large = replace(large, cost={**large.cost, "tokens": 400, "encode_seconds": 4.0})
    assert Report(small, large).row("cost")["tokens / s"] == "100"
    on_gpu = replace(large, card={**large.card, "device": "cuda"})
    assert Report(small, on_gpu).row("cost")["device"] == "cuda"
    devices = flat(Comparison.of([small, on_gpu])).set_index("task").device
    assert devices.to_dict() == {"t": "cpu", "u": "cuda"}
    bare = Report(replace(result("b", "t", 0.4), cost={}, texts={}, card={}, provenance={}))
    assert set(bare.texts("cost")[0][1:]) == {"—", "40.0"}
    assert set(bare.texts("data")[0][1:]) == {"—"}


def test_examples_of_tasks_are_shown():
    made = Report(result("a", "t", 0.5, samples=({"text": "A fine film.", "answer": "fine"},)))
    assert made.tables["samples"].columns == ("encoder", "task", "text", "answer")
    assert made.texts("samples") == [["a", "t", "A fine film.", "fine"]]


def test_a_score_under_a_wrong_instruction_is_never_the_best():
    more = {"family": "instruction", "metric": "harmonic_mean"}
    one = {"gap": (0.2,), "topic": (0.8,), "topic under mood": (0.9,)}
    two = {"topic": (0.7,), "topic under mood": (0.95,)}
    cells = [result("a", "news", 0.5, **more, scores=one)]
    cells += [result("b", "news", 0.4, **more, scores=two), result("c", "other", 0.3)]
    rows = Report(*cells).tables["instruction"].rows
    assert [row[1].text for row in rows] == ["harmonic mean", "gap", "topic", "topic under mood"]
    assert ["best" in {entry.mark for entry in row} for row in rows[2:]] == [True, False]
    reasons = {entry.note for entry in rows[1] if entry.mark == "missing"}
    assert reasons == {"has no such score", "not run"}


def test_scores_of_instructions_are_marked_by_what_is_printed():
    made = on("t", {"near": 0.594, "best": 0.586}, family="instruction")
    for digits, texts, marks in (
        (0, ["59", "59"], ["best"] * 2),
        (2, ["59.40", "58.60"], ["best", ""]),
    ):
        compared = Comparison.of(made, digits=digits)
        found = {table.name: table for table in tables.tables(compared)}
        for name in ("by-task", "instruction"):
            shown = found[name].rows[0][-2:]
            assert [entry.text for entry in shown] == texts
            assert [entry.mark for entry in shown] == marks
        cost = found["cost"]
        assert [row[cost.columns.index(MEAN)].text for row in cost.rows] == texts


def test_robustness_has_intervals_over_wordings():
    scores = {"implicit": (0.5, 0.6, 0.4), "incorrect": (0.1, 0.2, 0.3), "delta_ci": (0.2,)}
    more = {"family": "robustness", "metric": "correct", "scores": scores}
    rows = Report(result("a", "news", 0.5, 0.6, 0.7, **more)).tables["robustness"].rows
    shown = {row[1].text: row[2].interval is not None for row in rows}
    assert shown == {"correct": True, "delta ci": False, "implicit": True, "incorrect": True}


def test_scores_of_different_seeds_are_not_paired():
    cells = on("t", {"a": (0.5, 0.6, 0.55), "b": (0.3, 0.4, 0.35)}, seed=1)
    made = Report(*cells, result("c", "t", 0.1, 0.2, 0.1, seed=2))
    pairs = {(row[0].text, row[1].text): row[2] for row in made.tables["differences"].rows}
    assert pairs["a", "b"].interval is not None
    assert pairs["a", "c"].interval is None
    assert pairs["a", "c"].value == pytest.approx(0.4167, abs=1e-4)


VARIED = (0.5, 0.6, 0.55, 0.52)


@pytest.mark.parametrize(
    ("repeats", "is_known"), [([VARIED], True), ([0.5, 0.5], False), ([0.4, 0.5, 0.6], True)]
)
def test_repeats_or_seeds_that_vary_give_an_interval(repeats, is_known):
    cells = [result("a", "t", *np.atleast_1d(r), seed=s) for s, r in enumerate(repeats)]
    entry = Report(*cells).column("by-task", "a")[0]
    assert entry.value == pytest.approx(np.mean(repeats))
    assert (entry.interval is not None) is is_known


def test_another_seed_adds_no_repeats_to_a_task_that_has_several():
    cells = [result("a", "t", *VARIED, seed=seed) for seed in (1, 2)]
    one, two = (Report(*some).column("by-task", "a")[0].interval for some in (cells[:1], cells))
    assert one == two


def test_examples_that_do_not_make_up_the_score_are_not_used():
    made = Report(result("a", "t", 0.9, examples=right(100)), *on("t", {"b": 200}))
    assert made.column("by-task", "a")[0].interval is None


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("noise", [1e-5, 1e-1])
def test_an_interval_narrower_than_the_effect_of_batches_is_noted(dtype, noise):
    rows = np.random.default_rng(0).random(100)
    other = rows + noise * np.sin(np.arange(100)) + 0.1
    one = result("a", "t", examples=rows, card={"dtype": dtype})
    made = Report(one, result("b", "t", examples=other))
    assert bool(made.tables["differences"].notes) is (dtype == "bfloat16" and noise < 1e-4)


def test_differences_of_too_many_pairs_are_those_of_family_means(monkeypatch):
    monkeypatch.setattr("bench.reporting.differences.MOST", 5)
    counts = {"a": 300, "b": 200, "c": 250}
    shown = Report(*on("t1", counts), *on("t2", counts)).tables["differences"]
    assert (shown.columns, len(shown.rows)) == (("first", "second", "sts"), 3)
    assert "--task" in shown.notes[0]


def test_results_from_data_that_has_changed_since_are_left_out():
    def made(encoder, content, hour, **pin):
        place = {"id": "org/set", "config": "", "split": "test", "source": "local"}
        time = f"2030-01-02T{hour:02}:00:00+00:00"
        return result(encoder, "t", 0.5, time=time, data=[{**place, "sha256": content, **pin}])

    old, new = made("old", "a", 1), made("new", "b", 2)
    # Digests of files say nothing of the hub.
    report = Report(old, new, made("elsewhere", None, 0, source="hub", revision="c"))
    assert set(report.compared.runs.name) == {"new", "elsewhere"}
    (row,) = report.texts("missing")
    assert row[0] == "old"
    assert "org/set/test has changed" in row[3]
    assert set(Report(old, made("same", "a", 3)).compared.runs.name) == {"old", "same"}


def test_an_encoder_whose_teacher_saw_labels_or_that_saw_the_evaluated_texts_is_marked():
    fitted = {"transductive": True}
    made = Report(
        result("seen", "a", 0.5, card=fitted),
        result("raw", "a", 0.4, trained=False, card=fitted),
        result("fair", "a", 0.3),
        result("taught", "a", 0.2, card={"distilled": True}),
    )
    seen = {"seen (transductive)", "raw (untrained, transductive)"}
    assert {*made.compared.encoders.title} == {*seen, "taught (distilled from labels)", "fair"}


def test_data_is_named_without_the_folder_that_it_is_in():
    used = {"id": "/somewhere/secret/own.csv", "config": "", "source": "local", "rows": 3}
    card = {"training": {"data": [used]}}
    report = Report(result("a", "t", 0.5, card=card, data=[used]))
    assert report.row("data")["data"] == "own.csv (local)"
    assert report.row("training")["data"] == "own.csv (3 rows)"
