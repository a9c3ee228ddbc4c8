"""What the tables say, and how they mark it."""

from dataclasses import replace

import numpy as np
import pytest

from bench.influence import contributions
from bench.reporting import read, tables
from bench.reporting.comparison import Comparison
from bench.result import Absence
from tests.bench.reporting.made import result, right


def table(source, name):
    cells = source if isinstance(source, Comparison) else read(source)
    return next(t for t in tables.tables(cells) if t.name == name)


def column(made, heading):
    return [row[made.columns.index(heading)] for row in made.rows]


def marks(made, *headings):
    return [tuple(row[made.columns.index(h)].mark for h in headings) for row in made.rows]


@pytest.fixture
def known():
    """Two encoders: one truly better on two tasks, as good on two others, and not to be told apart on a fifth."""
    rng = np.random.default_rng(0)
    gold = rng.normal(size=400)
    near = gold + rng.normal(size=400)

    def similar(encoder, values):
        score = float(
            contributions("spearman", values.astype(np.float32), gold.astype(np.float32)).mean()
        )
        return result(encoder, "d-ranks", score, metric="spearman", examples=values, gold=gold)

    def accuracy(task, ours, theirs):
        return [
            result("ours", task, examples=ours, family="x"),
            result("theirs", task, examples=theirs, family="x"),
        ]

    return Comparison.of([
        *accuracy("a-better", right(320), right(240)),
        *accuracy("b-equal", right(200), right(200, first=100)),  # as many right, of other examples
        *accuracy("c-near", right(204), right(200, first=100)),
        similar("ours", near),
        similar("theirs", gold + 4 * rng.normal(size=400)),
        result("ours", "e-repeats", 0.51, 0.55, 0.53, 0.54, 0.52, family="x"),
        result("theirs", "e-repeats", 0.51, 0.55, 0.53, 0.54, 0.52, family="x"),
    ])  # fmt: skip


def test_no_interval_leaves_the_range_of_its_metric():
    found = Comparison.of(
        [result("near one", task, examples=[1] * 11 + [0], metric="accuracy") for task in "ab"]
        + [result("near zero", task, examples=[0] * 11 + [1], metric="accuracy") for task in "ab"]
    )
    families, by_task, gaps = (
        column(table(found, name), heading)
        for name, heading in (("families", "sts"), ("by-task", "near one"), ("differences", "a"))
    )
    intervals = [entry.interval for entry in (*families, *by_task) if entry.interval]
    assert len(intervals) == 4
    assert all(0 <= low < high <= 1 for low, high in intervals)
    assert all(-1 <= entry.interval[0] < entry.interval[1] <= 1 for entry in gaps)


def test_the_known_case_has_exactly_the_expected_marks(known):
    by_task = table(known, "by-task")
    assert dict(
        zip(
            [e.text for e in column(by_task, "task")], marks(by_task, "ours", "theirs"), strict=True
        )
    ) == {
        "a-better": ("best", ""),
        "b-equal": ("best", "best"),
        "c-near": ("best", "tie"),
        "d-ranks": ("best", ""),
        "e-repeats": ("best", "best"),
    }
    assert [e.text for e in column(table(known, "win-tie-loss"), "theirs")] == ["2/3/0", ""]
    assert [[e.text for e in row[3:]] for row in table(known, "ranks").rows] == [
        ["2", "3", "0"],
        ["0", "3", "2"],
    ]
    differences = table(known, "differences")
    starred = {
        task for task in differences.columns[2:] if column(differences, task)[0].text.endswith("*")
    }
    assert starred == {"a-better", "d-ranks"}


def test_an_interval_stands_behind_every_number_whose_chance_is_known(known):
    better = next(e for e in column(table(known, "by-task"), "ours") if e.text == "80.0")
    low, high = better.interval
    # Of 400 answers, 80 % right: a standard error of 2 %, so an interval of 7.8 %; 1,000 draws leave 5 % of it to chance.
    assert (better.value, high - low) == (
        pytest.approx(0.8),
        pytest.approx(4 * 0.02 * 0.98, rel=0.15),
    )
    assert low < 0.8 < high


def test_intervals_of_a_pair_use_what_both_get_right_together(store):
    # Both right on the same 320 but for 8: unpaired, 2 % would be nothing.
    made = store(
        result("ours", "t", examples=right(328)), result("theirs", "t", examples=right(320))
    )
    assert marks(table(made, "by-task"), "ours", "theirs") == [("best", "")]


def test_scores_stand_with_their_spread_and_untrained_is_said(usual):
    by_task = table(usual, "by-task")
    assert by_task.columns == (
        "family",
        "task",
        "metric",
        "repeats",
        "good",
        "poor (untrained)",
        "floor",
    )
    assert [e.text for e in by_task.rows[0]] == [
        "ner",
        "t2",
        "metric",
        "2",
        "65.0 ± 7.1",
        "30.0 ± 14.1",
        "—",
    ]
    assert [e.text for e in by_task.rows[2]] == ["sts", "t1", "metric", "1", "80.0", "40.0", "10.0"]


def test_a_family_mean_is_of_all_its_tasks_or_not_there(usual):
    rows = {row[0].text: [e.text for e in row[2:]] for row in table(usual, "families").rows}
    assert rows["good"] == ["57.5 ± 3.5", "80.0", "68.8", "1.00"]
    assert rows["floor"] == ["0 of 2 tasks", "10.0", "—", "—"]


def test_a_task_that_few_encoders_can_do_stays_out_of_means_and_is_named(store):
    made = store(
        result("a", "t", 0.5),
        result("b", "t", 0.6),
        result("c", "t", 0.7),
        result("a", "rare", 0.9, readout="question"),
    )
    cells = read(made)
    assert cells.family_means.at["sts", "a"] == pytest.approx(0.5)
    assert any(
        "Excluded from means" in note and "rare" in note for note in table(cells, "families").notes
    )
    alone = next(row for row in table(cells, "by-task").rows if row[1].text == "rare")
    assert not any(e.mark == "best" for e in alone)  # the best of one says nothing


def test_of_one_task_only_the_newest_protocol_and_then_the_largest_part_counts(store):
    made = store(*(
        result(encoder, task, examples=right(count), version=version, limit=limit)
        for task, version, limit, counts in (
            ("t", 1, None, (300, 200)), ("t", 2, 9, (200, 300)), ("t", 2, None, (320, 240)),
            ("u", 1, 9, (200, 300)), ("u", 1, 50, (320, 240)),
        )
        for encoder, count in zip("ab", counts, strict=True)
    ))  # fmt: skip
    families = table(made, "families")
    assert [[e.text for e in row[2:]] for row in families.rows] == [
        ["80.0", "80.0", "1.00"],
        ["60.0", "60.0", "2.00"],
    ]
    told = "another protocol or limit of the same task counts: t (protocol 1), t (limit 9, protocol 2), u (limit 9)."
    assert any(told in note for note in families.notes)
    assert [e.text for e in column(table(made, "win-tie-loss"), "b")] == ["2/0/0", ""]


def test_an_old_protocol_counts_while_few_encoders_have_the_new_one(store):
    made = store(
        *(result(encoder, "t", 0.5) for encoder in "abc"), result("a", "t", 0.9, version=2)
    )
    assert [e.text for e in column(table(made, "families"), "sts")] == ["50.0"] * 3


def test_a_missing_cell_says_why_it_is_missing(store):
    made = store(result("a", "t", 0.5), result("b", "u", 0.6))
    made.leave_out(
        Absence(
            "b",
            "sts",
            "t",
            "embedding",
            42,
            None,
            "skipped",
            "t: not in /home/ann/data/t.gz, get it",
        )
    )
    cells = read(made)
    missing = {
        (row[0].text, row[1].text): (row[2].text, row[3].text)
        for row in table(cells, "missing").rows
    }
    assert missing == {
        ("a", "u"): ("not run", ""),
        ("b", "t"): ("skipped", "t: not in t.gz, get it"),
    }
    entry = column(table(cells, "by-task"), "b")[0]
    assert (entry.text, entry.mark, entry.note) == (
        "—",
        "missing",
        "skipped: t: not in t.gz, get it",
    )


def test_a_missing_cell_is_told_with_its_own_limit_and_read_out(store):
    made = store(
        *(result("a", "t", 0.5, limit=limit) for limit in (9, 50)), result("b", "t", 0.5, limit=50)
    )
    made.leave_out(Absence("b", "sts", "t", "embedding", 42, 9, "failed", "broken"))
    made.leave_out(Absence("c", "sts", "t", "embedding", 42, 9, "failed", "no weights"))
    made.leave_out(Absence("c", "sts", "t", "tokens", 42, 7, "skipped", "no tokens"))
    shown = [[e.text for e in row] for row in table(made, "missing").rows]
    assert shown == [
        ["b", "t (limit 9)", "failed", "broken"],
        ["c", "t (limit 7, tokens)", "skipped", "no tokens"],
        ["c", "t (limit 9)", "failed", "no weights"],
    ]


def test_encoders_that_never_gave_a_result_are_named_with_the_reason(store):
    made = store(result("a", "t", 0.5))
    made.leave_out(Absence("b", "sts", "t", "embedding", 42, None, "failed", "no weights"))
    assert [[e.text for e in row] for row in table(made, "missing").rows] == [
        ["b", "t", "failed", "no weights"]
    ]


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        ({"commit": "c1"}, {"commit": "c2"}, "code versions are mixed: c1; c2"),
        (
            {"machine": {"cores": 2}},
            {"machine": {"cores": 4}},
            "machines are mixed: 2 cores; 4 cores",
        ),
        ({"seed": 1}, {"seed": 2}, "seed sets are mixed: 1; 2"),
        ({"card": {"dtype": "float32"}}, {"card": {"dtype": "bfloat16"}}, "dtypes"),
        (
            {"data": [{"id": "org/set", "revision": "r1"}]},
            {"data": [{"id": "org/set", "revision": "r2"}]},
            "revisions of org/set",
        ),
    ],
)
def test_a_table_of_cells_that_do_not_agree_says_so(store, one, other, told):
    made = store(result("a", "t", 0.4, **one), result("b", "t", 0.6, **other))
    assert any(told in note for note in table(made, "by-task").notes)
    same = store(result("a", "t", 0.4, **one), result("b", "t", 0.6, **one))
    assert not any(told in note for note in table(same, "by-task").notes)


def test_a_score_on_texts_the_encoder_was_trained_on_is_warned_of_everywhere_and_competes_for_no_best(
    store,
):
    seen = {"texts": {"overlap_share": 0.4}}
    made = store(
        result("a", "t", 0.9, **seen),
        result("b", "t", 0.5),
        result("c", "t", 0.4, texts={"overlap_share": 0.01}),
    )
    cells = read(made)
    assert marks(table(cells, "by-task"), "a", "b", "c") == [("warning", "best", "")]
    families, ranks, cost = (table(cells, name) for name in ("families", "ranks", "cost"))
    for made, heading in (
        (families, "sts"),
        (families, "mean of families"),
        (families, "mean rank"),
    ):
        assert [e.mark for e in column(made, heading)] == ["warning", "best", ""]
    for made, heading in ((ranks, "mean rank"), (cost, "mean of families")):
        assert [e.mark for e in column(made, heading)] == ["warning", "", ""]
    assert "t 40 %" in column(table(cells, "by-task"), "a")[0].note
    assert [e.text for e in table(cells, "overlap").rows[0]] == ["t", "40.0 %", "—", "1.0 %"]
    assert [e.mark for e in table(cells, "overlap").rows[0]] == ["", "warning", "missing", ""]


def test_overlap_that_was_never_measured_has_no_table(usual):
    assert "overlap" not in {t.name for t in tables.tables(read(usual))}


def trained(name, tokens, score, backbone="A backbone", **card):
    return result(
        name,
        "t",
        score,
        card={
            "training_tokens": tokens,
            "backbone": backbone,
            "training": {"trained_tokens": tokens},
            **card,
        },
    )


def test_equal_budget_holds_those_within_five_percent_beside_the_untrained_backbone_and_baselines(
    store,
):
    made = store(
        trained("one", 1_000_000, 0.6),
        trained("two", 960_000, 0.7),
        trained("longer", 2_000_000, 0.9),
        trained("larger", 1_000_000, 0.9, backbone="Another"),
        result("raw", "t", 0.3, trained=False),
        result("floor", "t", 0.1, card={"backbone": ""}),
        result("famous", "t", 0.95, card={"backbone": "famous"}),
    )
    cells = read(made)
    equal, others = table(cells, "equal-budget"), table(cells, "other-checkpoints")
    assert [(row[0].text, row[2].mark) for row in equal.rows] == [
        ("two", "best"),
        ("one", ""),
        ("raw (untrained)", ""),
        ("floor", ""),
    ]
    assert "960,000 to 1,000,000 training tokens" in equal.about
    assert {row[0].text for row in others.rows} == {"longer", "larger", "famous"}


def test_without_two_encoders_of_one_budget_there_is_no_such_table(usual):
    assert not {"equal-budget", "other-checkpoints"} & {t.name for t in tables.tables(read(usual))}


def variant(name, seed, *, stages=(), **settings):
    training = {
        "trained_tokens": 1000,
        "method": "m",
        "budget": 1000,
        "seed": seed,
        "recipe": {"decay": 100, "smooth": 0.2, **settings},
    }
    training["stages"] = stages
    right_ = {"base": 300, "none": 200, "rough": 299, "seeded": 310}.get(name, 250)
    return result(
        name,
        "t",
        examples=right(right_),
        card={"training_tokens": 1000, "backbone": "B", "training": training},
    )


def test_variants_of_one_recipe_stand_beside_the_one_that_they_start_from(store):
    made = [
        variant("none", 1, decay=0),
        variant("base", 1),
        variant("rough", 1, smooth=0),
        variant("seeded", 2),
    ]
    cells = read(store(*made, trained("other", 1000, 0.9, backbone="B")))
    found = table(cells, "variants")
    assert found.title == "Variants of m at 1,000 training tokens"
    assert [(row[0].text, row[1].text) for row in found.rows] == [
        ("none", "decay 0"),
        ("rough", "smooth 0"),
        ("seeded", "seed 2"),
    ]
    assert [round(400 * row[2].value) for row in found.rows] == [-100, -1, 10]
    assert [row[2].text.endswith("*") for row in found.rows] == [True, False, True]
    assert "Each minus base (t 75.0)" in found.about
    assert "corrected over all of this table" in found.about
    assert {row[0].text for row in table(cells, "equal-budget").rows} >= {
        "other",
        "base",
    }  # two methods at one budget
    assert "variants" not in {t.name for t in tables.tables(Comparison.of(made[:1]))}


def test_checkpoints_of_one_trainings_stages_differ_in_their_stage():
    first, last = {"stage": "compression", "steps": 3}, {"stage": "contrastive"}
    made = [
        variant(
            "base", 1, stages=[first, last, {"seconds": 3}, "a note"]
        ),  # the last one that has a name
        variant("same", 1, stages=[first, last]),
        variant("early", 1, stages=[first]),
        variant("lower", 1, stages=[first], decay=0),
        variant("unknown", 1, stages={"written by": "something else"}),
        variant("unnamed", 1, stages=["compression"]),
    ]
    changes = {row[0].text: row[1].text for row in table(Comparison.of(made), "variants").rows}
    alike = ("same", "unknown", "unnamed")
    assert changes == {
        "early": "stage compression",
        "lower": "decay 0, stage compression",
        **dict.fromkeys(alike, "the same settings"),
    }


def test_variants_are_in_the_order_of_their_numbers():
    cells = Comparison.of([variant(f"k{k}", 1, k=k) for k in (16, 8, 2, 1)])
    assert [row[0].text for row in table(cells, "variants").rows] == ["k2", "k8", "k16"]


def test_variants_of_one_method_are_no_comparison_of_methods():
    cells = Comparison.of([variant("none", 1, decay=0), variant("base", 1)])
    assert "equal-budget" not in {t.name for t in tables.tables(cells)}


def test_examples_of_tasks_are_shown_in_words():
    shown = replace(result("a", "t", 0.5), samples=({"text": "A fine film.", "answer": "fine"},))
    found = table(Comparison.of([shown, result("b", "t", 0.4)]), "samples")
    assert found.columns == ("encoder", "task", "text", "answer")
    assert [[entry.text for entry in row] for row in found.rows] == [
        ["a", "t", "A fine film.", "fine"]
    ]


def test_cost_stands_beside_quality_and_what_is_not_known_is_missing(store):
    card = {"parameters": 3_000_000, "embedding_parameters": 1_000_000}
    cost = table(store(result("a", "t", 0.5, card=card)), "cost")
    shown = dict(zip(cost.columns, cost.rows[0], strict=True))
    # 100 tokens of 8 texts in 2 seconds; 2 x 2 million parameters x 12.5 tokens a text.
    assert [
        shown[c].text for c in ("mean of families", "tokens / text", "tokens / s", "GFLOP / text")
    ] == ["50.0", "12.5", "50", "0.05"]
    assert "those of earlier ones count too" in cost.about  # the peak of memory
    assert [shown[c].mark for c in ("passes / text", "dimension", "training tokens")] == [
        "missing"
    ] * 3
    nothing = column(
        table(store(result("b", "t", 0.1, card={"parameters": None})), "cost"), "GFLOP / text"
    )
    assert nothing[1].mark == "missing"


def test_the_training_card_is_shown_with_the_two_ends_of_its_loss(store):
    training = {
        "method": "recipe",
        "trained_tokens": 1_000_000,
        "seconds": 500,
        "steps": 20,
        "data": [{"id": "org/set", "licence": "MIT", "rows": 1200}],
        "loss": [[i, 4 - i / 10] for i in range(20)],
    }
    made = table(store(result("a", "t", 0.5, card={"training": training})), "training")
    shown = {name: entry.text for name, entry in zip(made.columns, made.rows[0], strict=True)}
    assert (shown["loss at first"], shown["loss at last"]) == ("3.950", "2.150")
    assert (shown["tokens / s"], shown["data"], shown["seed"]) == (
        "2,000",
        "org/set (1,200 rows, MIT)",
        "—",
    )


def test_instruction_scores_stand_with_harmonic_mean_and_gap_first(store):
    scores = {"gap": (0.2,), "topic": (0.6,), "topic under place": (0.4,)}
    made = store(
        *(
            result(e, "news", v, family="instruction", metric="harmonic_mean", scores=scores)
            for e, v in (("a", 0.5), ("b", 0.4))
        )
    )
    shown = table(made, "instruction")
    assert [row[1].text for row in shown.rows] == [
        "harmonic mean",
        "gap",
        "topic",
        "topic under place",
    ]
    assert marks(shown, "a", "b")[0] == ("best", "")


def test_a_score_that_an_encoder_does_not_have_is_told_from_a_cell_that_was_not_run(store):
    made = store(
        result("a", "news", 0.5, family="instruction", scores={"gap": (0.2,)}),
        result("b", "news", 0.4, family="instruction"),
        result("c", "other", 0.3),
    )
    gaps = next(row for row in table(made, "instruction").rows if row[1].text == "gap")
    assert {e.note for e in gaps if e.mark == "missing"} == {"has no such score", "not run"}


def test_robustness_shows_its_groups_with_intervals_over_wordings(store):
    scores = {
        "implicit": (0.5, 0.6, 0.4),
        "incorrect": (0.1, 0.2, 0.3),
        "delta_ci": (0.2,),
        "delta_ii": (0.1,),
    }
    made = table(
        store(
            result("a", "news", 0.5, 0.6, 0.7, family="robustness", metric="correct", scores=scores)
        ),
        "robustness",
    )
    assert [row[1].text for row in made.rows] == [
        "correct",
        "delta ci",
        "delta ii",
        "implicit",
        "incorrect",
    ]
    assert [e.interval is not None for e in column(made, "a")] == [True, False, False, True, True]


def test_diagnostics_are_shown_with_all_their_scores_and_count_in_no_mean(store):
    made = store(
        result("a", "t", 0.5), result("a", "slots", 0.123, family="diagnostics", scores={"rank": (7.5,)}), result("b", "t", 0.4)
    )  # fmt: skip
    cells = read(made)
    shown = table(cells, "diagnostics")
    assert [(row[1].text, row[2].text, row[2].mark) for row in shown.rows] == [
        ("metric", "0.123", ""),
        ("rank", "7.500", ""),
    ]
    assert cells.encoders.at["a", "mean"] == 0.5
    assert "slots" not in {row[1].text for row in table(cells, "by-task").rows}


def test_what_was_not_measured_is_missing_in_every_table(store):
    made = store(replace(result("a", "t", 0.5), cost={}, texts={}, card={}, provenance={}))
    cells = read(made)
    assert {e.text for e in table(cells, "cost").rows[0][1:]} == {"—", "50.0"}
    assert {e.text for e in table(cells, "data").rows[0][1:]} == {"—"}


def test_commands_are_told_without_the_places_of_files(store):
    made = store(result("a", "t", 0.5, command="bench run --data '/srv/my data/all' --model dino"))
    assert "bench run --data all --model dino" in {row[1].text for row in table(made, "made").rows}


def test_scores_of_one_seed_and_another_are_not_paired(store):
    made = store(
        result("a", "t", 0.5, 0.6, 0.55, seed=1),
        result("b", "t", 0.3, 0.4, 0.35, seed=1),
        result("c", "t", 0.1, 0.2, 0.1, seed=2),
    )
    pairs = {(row[0].text, row[1].text): row[2] for row in table(made, "differences").rows}
    assert pairs["a", "b"].interval is not None
    assert (pairs["a", "c"].interval, pairs["a", "c"].value) == (
        None,
        pytest.approx(0.4167, abs=1e-4),
    )


def test_another_seed_makes_no_more_repeats_of_a_task_that_has_several(store):
    repeats = (0.5, 0.6, 0.55, 0.52)
    one, two = (
        column(
            table(store(*(result("a", "t", *repeats, seed=seed) for seed in seeds)), "by-task"), "a"
        )[0]
        for seeds in ((1,), (1, 2))
    )
    assert two.interval == one.interval != None  # noqa: E711 - both, and known


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("noise", [1e-5, 1e-1])
def test_an_interval_narrower_than_the_effect_of_batches_is_noted(store, dtype, noise):
    rows = np.random.default_rng(0).random(100)
    made = store(
        result("a", "t", examples=rows, card={"dtype": dtype}),
        result("b", "t", examples=rows + noise * np.sin(np.arange(100)) + 0.1),
    )
    told = any("--exact" in note for note in table(made, "differences").notes)
    assert told is (dtype == "bfloat16" and noise < 1e-4)


def test_seeds_of_one_repeat_each_are_the_repeats(store):
    made = store(
        *(result("a", "t", value, seed=seed) for seed, value in enumerate((0.5, 0.6, 0.55)))
    )
    low, high = column(table(made, "by-task"), "a")[0].interval
    assert low < 0.55 < high


@pytest.mark.parametrize("seeds", [1, 3])
def test_repeats_that_never_vary_tell_nothing_of_chance(store, seeds):
    made = store(
        *(
            result(e, "t", *[value] * 5, seed=seed)
            for e, value in (("a", 0.8), ("b", 0.7))
            for seed in range(seeds)
        )
    )
    by_task = table(made, "by-task")
    assert [e.interval for e in by_task.rows[0][-2:]] == [None, None]
    assert table(made, "differences").rows[0][2].text == "+10.0"


def test_examples_that_do_not_make_up_the_score_are_not_used(store):
    made = store(
        result("a", "t", 0.9, examples=right(100)), result("b", "t", 0.5, examples=right(200))
    )
    entry = column(table(made, "by-task"), "a")[0]
    assert entry.interval is None


@pytest.mark.parametrize("family", ["diagnostics", "sts"])
def test_a_single_result_of_any_family_has_its_tables(store, family):
    names = {t.name for t in tables.tables(read(store(result("a", "t", 0.5, family=family))))}
    assert ("diagnostics" in names) == (family == "diagnostics")
    assert names >= {"cost", "data", "made"}


def test_too_many_differences_for_a_table_are_those_of_family_means_and_it_says_how_to_see_the_others(
    store, monkeypatch
):
    monkeypatch.setattr("bench.reporting.differences.MOST", 5)
    made = store(
        *(
            result(e, t, examples=right(n))
            for e, n in (("a", 300), ("b", 200), ("c", 250))
            for t in ("t1", "t2")
        )
    )
    shown = table(made, "differences")
    assert (shown.columns, len(shown.rows)) == (("first", "second", "sts"), 3)
    assert "--task" in shown.notes[0]
    assert "every family mean" in shown.about
    assert [e.text for e in table(made, "win-tie-loss").rows[0]] == [
        "a",
        "",
        "2/0/0",
        "2/0/0",
    ]  # of single tasks all the same


def test_results_from_data_that_has_changed_since_are_left_out_and_said_to_be():
    def made(encoder, content, hour, source="local"):
        place = {"id": "org/set", "config": "", "split": "test", "source": source}
        pin = {"revision": content} if source == "hub" else {"sha256": content}
        time = f"2030-01-02T{hour:02}:00:00+00:00"
        return result(encoder, "task", 0.5, time=time, data=[{**place, **pin}])

    old, new = made("old", "a", 1), made("new", "b", 2)
    elsewhere = made("elsewhere", "c", 0, source="hub")
    cells = Comparison.of([old, new, elsewhere])
    assert set(cells.runs.name) == {"new", "elsewhere"}  # what the hub had says nothing of files
    (row,) = table(cells, "missing").rows
    assert row[0].mark or row[0].text == "old"
    assert "org/set/test has changed" in row[3].text
    assert set(Comparison.of([old, made("same", "a", 3)]).runs.name) == {"old", "same"}
