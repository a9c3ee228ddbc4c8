"""Figures: what they show, what they leave out and why, and that the same results give the same bytes."""

import io
import re
from dataclasses import replace
from xml.etree import ElementTree as ET

import matplotlib as mpl
import matplotlib.image
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import stats
from bench.errors import UsageError
from bench.reporting import figures
from bench.reporting.comparison import Comparison
from bench.reporting.context import throughput
from bench.reporting.figures import scores, tradeoff, variants
from bench.reporting.figures.scores import cliques
from bench.reporting.figures.tradeoff import pareto
from tests.bench.reporting.made import result, right

RNG = np.random.default_rng(0)


def pairs_of(*results):
    return Comparison.of(results)


def texts(drawing):
    return {
        text.get_text()
        for axes in drawing.figure.axes
        for text in (*axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels())
    }


def tips(drawing):
    svg = ET.fromstring(drawing.svg)  # noqa: S314 - our own file
    return [element.text for element in svg.iter("{http://www.w3.org/2000/svg}title")]


@pytest.fixture(scope="module")
def usual():
    """Three encoders on tasks of every kind, two of them variants of one recipe trained with two budgets."""
    made = []
    recipe = {"method": "m", "budget": 1_000_000}
    for label, quality, card in (
        (
            "good",
            0.8,
            {
                "training": {
                    **recipe,
                    "recipe": {"rate": 1},
                    "trained_tokens": 1_000_000,
                    "loss": [[10, 4.0], [1_000_000, 1.5]],
                }
            },
        ),
        (
            "fair",
            0.6,
            {
                "training": {
                    **recipe,
                    "recipe": {"rate": 2},
                    "trained_tokens": 50_000,
                    "loss": [[10, 4.0], [50_000, 2.5]],
                }
            },
        ),
        ("poor", 0.4, {}),
    ):
        more = {"card": card, "trained": label != "poor"}
        made += [
            result(label, "t1", examples=right(int(400 * quality)), **more),
            result(label, "t2", *(quality + RNG.normal(0, 0.01, 5)), family="ner", **more),
            *(result(label, "b", quality + layer / 100, family="layers", readout=f"bertscore@{layer}", **more) for layer in (0, 4, 8)),
            result(label, "b", quality, family="layers", readout="bertscore", **more),
            result(
                label, "i", quality, family="instruction", metric="harmonic_mean",
                scores={"a": [quality], "b": [quality], "a under b": [quality - 0.3], "b under a": [quality - 0.1]}, **more,
            ),
            result(
                label, "r", quality, family="robustness", metric="correct",
                scores={"correct": [quality, quality + 0.02], "implicit": [quality - 0.1], "incorrect": [quality - 0.2]}, **more,
            ),
            result(
                label, "d", 8.0, family="diagnostics", metric="effective_dimension",
                scores={"share_1": [quality / 2], "share_16": [quality], "share_256": [1.0], "memory_correlation": [0.7]}, **more,
            ),
        ]  # fmt: skip
    return pairs_of(*made)


@pytest.fixture(scope="module")
def drawn(usual):
    return {drawing.name: drawing for drawing in figures.draw(usual)}


def test_every_figure_is_drawn_where_its_data_is_there(drawn):
    assert [name for name, drawing in drawn.items() if drawing.figure is None] == [
        "sweep"
    ]  # it takes three variants
    assert all(
        d.png.startswith(b"\x89PNG") and d.title and d.about
        for d in drawn.values()
        if d.figure is not None
    )


def test_a_figure_without_its_data_is_not_drawn_and_says_why():
    found = {drawing.name: drawing for drawing in figures.draw(pairs_of(result("a", "t", 0.5)))}
    absent = {name for name, drawing in found.items() if drawing.figure is None}
    assert absent == {
        "critical-difference",
        "training-tokens",
        "instruction",
        "robustness",
        "layers",
        "learning",
        "loss",
        "spectrum",
        "sweep",
        "variants",
    }
    assert all(found[name].why and "\n" not in found[name].why for name in absent)
    with pytest.raises(UsageError, match="layers"):
        _ = found["layers"].svg


def test_results_of_which_none_says_how_good_an_encoder_is_draw_no_figure():
    assert not [
        d.name
        for d in figures.draw(pairs_of(result("a", "t", 0.5, family="diagnostics")))
        if d.figure is not None
    ]


def test_the_same_results_give_the_same_bytes_whatever_the_user_has_set(usual, drawn):
    with mpl.rc_context({"font.size": 30, "svg.fonttype": "none", "axes.facecolor": "red"}):
        again = {drawing.name: drawing for drawing in figures.draw(usual)}
        assert all(
            again[name].svg == drawing.svg
            for name, drawing in drawn.items()
            if drawing.figure is not None
        )
        assert again["families"].png == drawn["families"].png


def test_letters_are_shapes_and_nothing_tells_a_date_or_a_version(drawn):
    for drawing in (d for d in drawn.values() if d.figure is not None):
        assert b"<text" not in drawing.svg
        assert not re.search(rb"\d{4}-\d\d-\d\dT|Matplotlib v", drawing.svg)


def test_heat_map_names_every_encoder_and_task_and_holds_every_score():
    drawing = scores.heatmap(
        pairs_of(
            result("a", "t1", 0.8), result("b", "t1", 0.4, trained=False), result("a", "t2", -0.15)
        )
    )
    assert texts(drawing) >= {"80.0", "40.0", "-15.0", "—", "t1", "t2", "a", "b (untrained)"}
    assert "b (untrained), t2: not run" in tips(drawing)


def test_bars_are_means_and_whiskers_are_intervals(usual, drawn):
    panel = drawn["families"].figure.axes[list(usual.by_family).index("sts")]
    assert sorted(round(bar.get_width(), 1) for bar in panel.patches) == [40.0, 60.0, 80.0]
    low, high = usual.bounds(usual.by_family["sts"])[usual.number["good"]]
    ends = [
        segment[:, 0] for collection in panel.collections for segment in collection.get_segments()
    ]
    assert any(np.allclose(sorted(pair), [100 * low, 100 * high]) for pair in ends)


def test_a_spectrum_is_a_curve_an_encoder_beside_how_alike_memories_are(drawn):
    panel, memory = drawn["spectrum"].figure.axes
    curves = [line.get_ydata().tolist() for line in panel.lines if len(line.get_ydata()) == 3]
    assert curves == [[0.4, 0.8, 1.0], [0.3, 0.6, 1.0], [0.2, 0.4, 1.0]]
    assert [bar.get_height() for bar in memory.patches] == [0.7] * 3


def test_a_changed_setting_is_shown_as_a_difference_from_what_it_was_changed_in(usual, drawn):
    panel = drawn["variants"].figure.axes[list(usual.by_family).index("sts")]
    assert "m: rate 1" in texts(drawn["variants"])  # "fair" comes first by name
    assert [
        round(float(line.get_xdata()[0]), 1) for line in panel.lines if line.get_marker() == "o"
    ] == [20.0]
    assert any(
        tip.startswith("m: rate 1, sts: 20.00, 95 % interval") for tip in tips(drawn["variants"])
    )


def swept(label, task, right_, *, budget=1000, seed=1, stage="last", family="sts", **settings):
    recipe = {"k": 4, "rate": 0.5, "flag": False, "words": "few", **settings}
    training = {
        "method": "m",
        "budget": budget,
        "seed": seed,
        "recipe": recipe,
        "stages": [{"stage": stage}],
    }
    return result(label, task, examples=right(right_), family=family, card={"training": training})


def test_scores_go_over_the_values_of_a_setting_in_their_order():
    pairs = pairs_of(
        *(
            swept(label, "t", n, k=k)
            for label, n, k in (("c", 300, 4), ("b", 340, 16), ("d", 200, 1), ("e", 100, 4.0))
        ),
        swept("f", "t", 10, k=2, rate=1),
        swept("g", "t", 10, k=8, stage="first"),
        swept("h", "t", 10, rate=1),
    )  # "c" is the nearest to all: "e" has its settings, "f" and "g" change two, and of the rate there are only two values
    (drawing,) = variants.sweeps(pairs)
    (panel,) = drawing.figure.axes
    assert drawing.name == "sweep-k"
    assert [label.get_text() for label in panel.get_xticklabels()] == ["1", "4", "16"]
    curve = next(line for line in panel.lines if len(line.get_xdata()) == 3)
    assert np.allclose(curve.get_xydata(), [(0, 50), (1, 75), (2, 85)])
    gap = stats.differences(
        pairs.by_task[pairs.tasks.index[0]],
        np.array([pairs.number["d"]]),
        np.array([pairs.number["c"]]),
    )
    whiskers = {
        int(line.get_xdata()[0]): line.get_ydata()
        for line in panel.lines
        if list(np.diff(line.get_xdata())) == [0]
    }
    assert set(whiskers) == {0, 2}  # none at the one they are compared with
    assert np.allclose(whiskers[0], [75 + 100 * gap.low[0], 75 + 100 * gap.high[0]])
    assert "c, t: 75.00" in tips(drawing)
    assert any(
        tip.startswith("d, t: 50.00, minus c -25.00, 95 % interval") for tip in tips(drawing)
    )


def test_of_more_than_six_tasks_the_means_of_families_go_over_a_setting():
    made = [
        swept(f"k{k}", f"t{t}", 100 + 10 * k + 4 * t, k=k, family="ner" if t > 4 else "sts")
        for k in (1, 2, 4)
        for t in range(7)
    ]
    others = [
        result(f"other{i}", "u", 0.5) for i in range(4)
    ]  # so that no task of the variants is common to most encoders
    (six,) = variants.sweeps(pairs_of(*(one for one in made if one.spec.task != "t6")))
    (seven,) = variants.sweeps(pairs_of(*made, *others))
    assert len(six.figure.axes) == 6
    panels = {axes.get_title(loc="left"): axes for axes in seven.figure.axes if axes.get_visible()}
    assert set(panels) == {"ner (2 tasks)", "sts (5 tasks)"}
    curve = next(line for line in panels["ner (2 tasks)"].lines if len(line.get_xdata()) == 3)
    assert np.allclose(curve.get_ydata(), [33, 35.5, 40.5])


def test_a_setting_that_is_no_number_has_no_curve():
    def none(**values):
        (drawing,) = variants.sweeps(
            pairs_of(
                *(swept(f"e{i}", "t", 100 + i, **each) for i, each in enumerate(_cross(values)))
            )
        )
        return drawing.figure is None and drawing.why

    assert none(seed=[1, 2, 3])
    assert none(words=["few", "some", "many"])
    assert none(flag=[False, True, None])
    assert none(k=[4, float("inf"), float("nan")])
    assert none(k=[4, 8])
    assert not none(k=[4, 8, 0])


def _cross(values):
    return [{name: value} for name, each in values.items() for value in each]


def test_figures_of_one_setting_are_numbered_and_their_names_are_those_of_files():
    odd = "../New <b>Rate</b> $5"
    drawings = variants.sweeps(
        pairs_of(
            *(
                swept(f"e{k} {budget}", "t", 100 + k, budget=budget, **{odd: k})
                for k in range(12)
                for budget in (1000, 2000)
            )
        )
    )
    assert [drawing.name for drawing in drawings] == [
        "sweep-new-b-rate-b-5-1",
        "sweep-new-b-rate-b-5-2",
    ]
    for drawing in drawings:
        ET.fromstring(drawing.svg)  # noqa: S314 - our own file
        assert len(drawing.figure.axes[0].get_xticks()) <= 7


def test_scores_whose_chance_is_not_known_go_over_a_setting_without_whiskers():
    made = [
        replace(swept(f"k{k}", "t", 1, k=k), scores=result("a", "t", k / 10).scores)
        for k in (1, 2, 4)
    ]
    (drawing,) = variants.sweeps(pairs_of(*made))
    assert not [
        line for line in drawing.figure.axes[0].lines if list(np.diff(line.get_xdata())) == [0]
    ]
    assert [text.get_text() for text in drawing.figure.legends[0].get_texts()] == ["k1"]


def test_a_family_without_all_its_tasks_says_how_many_there_are():
    drawing = scores.families(
        pairs_of(
            result("a", "t1", 0.8),
            result("a", "t2", 0.6),
            result("b", "t1", 0.4),
            result("b", "t2", 0.3),
            result("c", "t1", 0.1),
        )
    )
    assert "1 of 2 tasks" in texts(drawing)


def test_bars_below_zero_are_inside_the_picture():
    assert (
        scores.families(pairs_of(result("a", "t", -0.15), result("b", "t", 0.5)))
        .figure.axes[0]
        .get_xlim()[0]
        < -15
    )


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=12),
    st.sampled_from(["more", "less"]),
)
def test_the_front_is_what_nothing_beats_in_both(points, better):
    sign = 1 if better == "more" else -1
    front = {points[i] for i in pareto(points, better)}
    beaten = {
        p
        for p in points
        if any(sign * q[0] >= sign * p[0] and q[1] >= p[1] and q != p for q in points)
    }
    assert front == set(points) - beaten


def test_throughput_is_that_of_the_largest_run_and_not_there_where_nothing_was_counted():
    cells = Comparison.of([result("a", "t", 0.5)])
    assert throughput(cells, "a") == 50.0
    assert (
        throughput(
            Comparison.of(
                [replace(result("a", "t", 0.5), cost={"tokens": 0, "encode_seconds": 1.0})]
            ),
            "a",
        )
        is None
    )


def test_encoders_that_a_trade_off_cannot_show_are_named(drawn):
    pairs = pairs_of(
        result("a", "t", 0.5),
        result("b", "t", 0.5),
        result("a", "u", 0.5, family="ner"),
        result("c", "t", 0.4),
        result("b", "u", 0.3, family="ner"),
    )
    assert "a number is missing: c." in tradeoff.throughput(pairs).about
    assert "Not shown" not in drawn["throughput"].about


def test_points_tell_their_numbers_and_untrained_ones_stand_apart_from_training_tokens():
    card = {"training_tokens": 1_000_000}
    pairs = pairs_of(
        result("good", "t", examples=right(320), card=card),
        result("poor", "t", examples=right(160), trained=False),
    )
    told = tips(tradeoff.training_tokens(pairs))
    assert any(
        t.startswith("good: ") and "1,000,000 training tokens" in t and "95 % interval" in t
        for t in told
    )
    assert any(t.startswith("poor (untrained): ") and "untrained, or not known" in t for t in told)


@given(st.lists(st.floats(1, 20, allow_nan=False), min_size=1, max_size=15), st.floats(0.1, 5))
def test_cliques_are_the_largest_runs_of_ranks_nearer_than_the_critical_difference(
    values, critical
):
    ranks = sorted(values)
    found = cliques(ranks, critical)
    assert all(ranks[last] - ranks[first] < critical for first, last in found)
    together = {
        (i, j)
        for first, last in found
        for i in range(first, last + 1)
        for j in range(i + 1, last + 1)
    }
    assert together == {
        (i, j)
        for i in range(len(ranks))
        for j in range(i + 1, len(ranks))
        if ranks[j] - ranks[i] < critical
    }


def test_critical_difference_shows_every_mean_rank(drawn):
    assert {"good  1.00 ", "fair  2.00 ", " 3.00  poor (untrained)"} <= texts(
        drawn["critical-difference"]
    )


def test_layer_curves_are_of_one_task_with_the_unnamed_layer_last(drawn):
    (panel,) = (axes for axes in drawn["layers"].figure.axes if axes.get_title(loc="left") == "b")
    assert [label.get_text() for label in panel.get_xticklabels()] == ["0", "4", "8", "last"]
    curve = next(line for line in panel.lines if len(line.get_xdata()) == 4)
    assert np.allclose(curve.get_ydata(), [80, 84, 88, 80])


def test_learning_joins_the_budgets_of_a_method(drawn):
    curve = next(
        line for line in drawn["learning"].figure.axes[0].lines if len(line.get_xdata()) == 2
    )
    assert list(curve.get_xdata()) == [50_000, 1_000_000]


def test_losses_of_one_method_share_a_panel(drawn):
    (panel,) = drawn["loss"].figure.axes
    assert {line.get_label() for line in panel.lines} == {"good", "fair"}


def test_instruction_joins_the_right_and_the_wrong_score(drawn):
    told = tips(drawn["instruction"])
    assert "good, a under its own instruction: 80.00" in told
    assert "good, a under b: 50.00" in told
    assert len(told) == 2 * 2 * 3


def test_robustness_shows_every_wording(drawn):
    (panel,) = drawn["robustness"].figure.axes
    dots = [x for line in panel.lines if line.get_marker() != "None" for x in line.get_xdata()]
    assert len(dots) == 3 * 4
    assert "good, correct wordings: 81.00 on average, 80.0 to 82.0 over 2 wordings" in tips(
        drawn["robustness"]
    )


@pytest.mark.parametrize(
    "name", ["a" * 200, "<script>alert(1)</script>", '"quoted" & $5 {x}', "x\ny\tz", "--><!--"]
)
def test_any_name_is_drawn_and_the_file_is_whole(name):
    for drawing in figures.draw(pairs_of(result(name, "t", 0.5), result("b", name, 0.5))):
        if drawing.figure is not None:
            ET.fromstring(drawing.svg)  # noqa: S314 - our own file
            pixels = mpl.image.imread(io.BytesIO(drawing.png))
            assert (
                pixels[:, :2, :3].min() == pixels[:, -2:, :3].min() == 1
            )  # nothing runs over the edge


def test_many_encoders_are_drawn_without_a_tip_for_each_of_thousands_of_cells():
    drawing = scores.heatmap(
        pairs_of(*(result(f"e{e:02}", f"t{t:02}", 0.5) for e in range(40) for t in range(40)))
    )
    assert "<title>" not in drawing.svg.decode()
    assert len(drawing.svg) < 400_000


def test_losses_of_different_stages_are_drawn_apart_and_no_loss_is_no_panel():
    curve = [[10, 3.0], [1_000, 1.0]]
    stages = [
        {"stage": "compression", "loss": curve},
        {"stage": "labels", "seconds": 3.0},
        {"stage": "contrastive", "loss": [[9, 2.0], [500, 0.5]]},
    ]
    staged = {"method": "m", "loss": [[9, 2.0], [500, 0.5]], "stages": stages}
    plain = {"method": "n", "loss": curve, "stages": {"written by": "something else"}}
    cards = {"a": staged, "b": staged, "c": plain, "d": {"method": "o"}}
    drawing = figures.loss(
        pairs_of(
            *(
                result(label, "t", 0.5, card={"training": card}, trained=True)
                for label, card in cards.items()
            )
        )
    )
    assert [axes.get_title(loc="left") for axes in drawing.figure.axes if axes.get_visible()] == [
        "m: compression",
        "m: contrastive",
        "n",
    ]
    assert {tip.split(",")[0] for tip in tips(drawing)} == {
        f"{label}: loss {value} at {tokens} tokens"
        for label, value, tokens in (
            ("a", "3.000", 10),
            ("a", "2.000", 9),
            ("b", "3.000", 10),
            ("b", "2.000", 9),
            ("c", "3.000", 10),
        )
    }


def test_where_a_layer_was_picked_the_scores_it_was_picked_by_are_drawn():
    made = [
        result(
            label,
            "p",
            quality,
            scores={
                "auroc": [quality],
                "picking at -2": [quality - 0.1],
                "picking at -1": [quality],
            },
            metric="auroc",
        )
        for label, quality in (("a", 0.7), ("b", 0.6))
    ]
    drawing = figures.layers(pairs_of(*made))
    assert [axes.get_title(loc="left") for axes in drawing.figure.axes if axes.get_visible()] == [
        "p: other pairs"
    ]
    assert {"a, layer -2 on other pairs: 60.0", "b, layer -1 on other pairs: 60.0"} <= set(
        tips(drawing)
    )
