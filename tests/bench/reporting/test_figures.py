"""Figures: what they show, what they leave out and why, and that their bytes are reproducible."""

import io
import re
from dataclasses import replace
from xml.etree import ElementTree as ET

import matplotlib as mpl
import matplotlib.image
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import stats
from bench.errors import UsageError
from bench.reporting import figures
from bench.reporting.comparison import Comparison
from bench.reporting.context import throughput
from bench.reporting.figures import curves, scores, tradeoff, variants
from bench.reporting.figures.drawing import COLORS, KINDS, ROLES
from bench.reporting.figures.scores import cliques
from bench.reporting.figures.tradeoff import pareto
from bench.reporting.tables import tables
from tests.bench.reporting.made import result, right

RNG = np.random.default_rng(0)
DRAWN = {
    "gains", "families", "heatmap", "ranks", "throughput", "instruction",
    "robustness", "layers", "learning", "loss", "spectrum", "variants",
}  # fmt: skip


def compared(*results):
    return Comparison.of(results)


def texts(drawing):
    found = set()
    for axes in drawing.figure.axes:
        shown = (*axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels())
        found |= {text.get_text() for text in shown}
    return found


def panels(drawing):
    return {a.get_title(loc="left"): a for a in drawing.figure.axes if a.get_visible()}


def tips(drawing):
    svg = ET.fromstring(drawing.svg)  # noqa: S314 - our own file
    return [element.text for element in svg.iter("{http://www.w3.org/2000/svg}title")]


def points(panel):
    """The (x, y) of single markers with their face colours."""
    found = []
    for line in panel.lines:
        if line.get_marker() != "None":
            x, y = line.get_xdata()[0], line.get_ydata()[0]
            found.append((float(x), float(y), line.get_markerfacecolor()))
    return found


def legend(drawing):
    return [text.get_text() for text in drawing.figure.legends[0].get_texts()]


def curve(panel, n):
    """The (x, y) pairs of the first line through n points."""
    line = next(line for line in panel.lines if len(line.get_xdata()) == n)
    return np.asarray(line.get_xydata())


def card(rate, tokens, loss):
    recipe = {"method": "m", "budget": 1_000_000, "recipe": {"rate": rate}}
    return {"training": {**recipe, "trained_tokens": tokens, "loss": [[10, 4.0], [tokens, loss]]}}


@pytest.fixture(scope="module")
def usual():
    """Two variants of one recipe and their untrained backbone, on tasks of every kind."""
    made = []
    for label, quality, more in (
        ("good", 0.8, {"card": card(1, 1_000_000, 1.5)}),
        ("fair", 0.6, {"card": card(2, 50_000, 2.5)}),
        ("poor", 0.4, {"trained": False}),
    ):
        aware = {"a": quality, "b": quality, "a under b": quality - 0.3, "b under a": quality - 0.1}
        robust = {"implicit": quality - 0.1, "incorrect": quality - 0.2}
        shares = {"share_1": quality / 2, "share_16": quality, "share_256": 1.0}
        wordings = [quality, quality + 0.02]
        kinds = {
            "i": ("instruction", "harmonic_mean", quality, aware),
            "r": ("robustness", "correct", quality, robust),
            "d": ("diagnostics", "effective", 8.0, {**shares, "memory_correlation": 0.7}),
        }
        for task, (family, metric, value, rest) in kinds.items():
            scores = {name: [number] for name, number in rest.items()}
            if task == "r":
                scores["correct"] = wordings
            about = {"family": family, "metric": metric, "scores": scores}
            made.append(result(label, task, value, **about, **more))
        made.append(result(label, "t1", examples=right(int(400 * quality)), **more))
        repeats = quality + RNG.normal(0, 0.01, 5)
        made.append(result(label, "t2", *repeats, family="ner", **more))
        for layer, readout in ((0, "@0"), (4, "@4"), (8, "@8"), (0, "")):
            about = {"family": "layers", "readout": f"bertscore{readout}"}
            made.append(result(label, "b", quality + layer / 100, **about, **more))
    return compared(*made)


@pytest.fixture(scope="module")
def drawn(usual):
    return {drawing.name: drawing for drawing in figures.draw(usual)}


def test_every_figure_is_drawn_where_its_data_is_there(drawn):
    assert {name for name, drawing in drawn.items() if drawing.figure is not None} == DRAWN
    assert all(drawn[name].about and drawn[name].beside for name in DRAWN)
    starts = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    assert all(drawn["heatmap"].rendered(kind).startswith(starts[kind]) for kind in KINDS)


def test_every_figure_that_is_drawn_is_beside_one_table(usual, drawn):
    unsaid = [
        result(label, "t", 0.5, card={"training_tokens": n}) for label, n in (("a", 9), ("b", 99))
    ]  # a learning curve, and no table of trainings
    c = compared(*unsaid)
    for made, drawings in (
        (tables(usual), drawn.values()),
        (tables(c), [curves.learning(c)]),
    ):
        there = [drawing for drawing in drawings if drawing.figure is not None]
        shown = [each.name for table in made for each in figures.beside(table.name, made, there)]
        assert there
        assert sorted(shown) == sorted(drawing.name for drawing in there)


def test_a_figure_without_its_data_says_why():
    found = {d.name: d for d in figures.draw(compared(result("a", "t", 0.5)))}
    absent = {name for name, drawing in found.items() if drawing.figure is None}
    assert absent == (DRAWN | {"sweep"}) - {"families", "heatmap", "throughput"}
    assert all(found[name].why and "\n" not in found[name].why for name in absent)
    with pytest.raises(UsageError, match="layers"):
        _ = found["layers"].svg
    diagnosed = figures.draw(compared(result("a", "t", 0.5, family="diagnostics")))
    assert {d.name for d in diagnosed if d.figure is not None} == set()


def test_letters_are_shapes_and_files_have_no_date_or_version(drawn):
    svg = drawn["gains"].svg
    assert b"<text" not in svg
    assert not re.search(rb"\d{4}-\d\d-\d\dT|Matplotlib v", svg)
    assert b"CreationDate" not in drawn["gains"].rendered("pdf")


def test_gains_are_differences_to_the_untrained_backbone_filled_where_significant(usual, drawn):
    panel = panels(drawn["gains"])["sts"]
    assert texts(drawn["gains"]) >= {"good", "fair"}
    assert "poor (untrained)" not in texts(drawn["gains"])
    gains = [point[:2] for point in points(panel)]
    assert np.allclose(gains, [(40, 0), (20, 1)])
    assert {point[2] for point in points(panel)} == {ROLES["method"]}
    near = compared(
        result("m", "t", examples=right(201), card={"training_tokens": 9}),
        result("base", "t", examples=right(200, first=100), trained=False),
    )
    drawing = scores.forest(near)
    ((x, _, face), *_) = points(panels(drawing)["sts"])
    assert (round(x, 2), face == ROLES["method"]) == (0.25, False)
    assert legend(drawing) == ["method", "not significantly different"]  # and what is not there
    once = compared(result("m", "t", 0.5), result("base", "t", 0.4, trained=False))
    assert legend(scores.forest(once)) == ["method", "significance not known"]


def test_families_have_points_intervals_and_a_line_at_the_backbone(usual, drawn):
    panel = panels(drawn["families"])["sts"]
    shown = points(panel)
    assert np.allclose([point[0] for point in shown], [80, 60, 40])
    assert [point[2] for point in shown] == [ROLES[r] for r in ("method", "method", "untrained")]
    ends = 100 * np.array(usual.by_family["sts"].intervals.bounds()[usual.number["good"]])
    lines = [line.get_xdata() for line in panel.lines]
    assert any(len(x) == 2 and np.allclose(x, ends) for x in lines)
    assert any(np.allclose(x, [40, 40]) for x in lines)


def test_a_family_without_all_its_tasks_is_a_dash_and_scores_below_zero_are_inside():
    cells = [result("a", "t1", -0.15), result("a", "t2", -0.2), result("b", "t1", 0.4)]
    drawing = scores.families(compared(*cells, result("b", "t2", 0.3), result("c", "t1", 0.1)))
    assert "no result" in texts(drawing)
    assert drawing.figure.axes[0].get_xlim()[0] < -17.5


def test_the_heat_map_has_differences_to_the_backbone_or_scores_without_one():
    trained = {"card": {"training_tokens": 9}}
    cells = [
        result("m", "t1", examples=right(320), **trained),
        result("base", "t1", examples=right(160), trained=False),
        result("m", "t2", -0.15, **trained),
    ]
    drawing = scores.heatmap(compared(*cells, result("base", "t2", 0.05, trained=False)))
    assert texts(drawing) >= {"+40.0*", "40.0", "t1", "t2", "m", "base (untrained)"}
    assert drawing.about.endswith("others minus it; *: significant.")
    drawing = scores.heatmap(compared(*cells))
    assert texts(drawing) >= {"(-15.0)", "—"}
    assert "—: no result" in drawing.about
    assert "base (untrained), t2: not run" in tips(drawing)
    plain = scores.heatmap(compared(result("a", "t1", 0.8), result("b", "t1", -0.4)))
    assert texts(plain) >= {"80.0", "-40.0"}


def test_many_cells_are_drawn_without_tips():
    cells = [result(f"e{i % 39:02}", f"t{i // 39:02}", 0.5) for i in range(39 * 39)]
    drawing = scores.heatmap(compared(*cells))
    assert "<title>" not in drawing.svg.decode()
    assert len(drawing.svg) < 400_000


def test_a_spectrum_is_a_curve_per_encoder_beside_memory_correlations(drawn):
    panel, memory = drawn["spectrum"].figure.axes
    found = [line.get_ydata().tolist() for line in panel.lines if len(line.get_ydata()) == 3]
    assert found == [[0.4, 0.8, 1.0], [0.3, 0.6, 1.0], [0.2, 0.4, 1.0]]
    assert drawn["spectrum"].title == "Spectrum of embeddings"
    assert [bar.get_height() for bar in memory.patches] == [0.7] * 3


def test_no_colour_is_used_for_two_curves():
    shares = {"share_1": [0.4], "share_2": [1.0]}
    more = {"family": "diagnostics", "metric": "effective", "scores": shares}
    drawing = curves.spectrum(compared(*(result(f"e{i}", "d", 8.0, **more) for i in range(9))))
    lines = [line for line in drawing.figure.axes[0].lines if len(line.get_xdata()) == 2]
    assert len({line.get_color() for line in lines}) == len(lines) == len(COLORS)


def test_a_changed_setting_is_a_difference_from_its_reference(drawn):
    panel = panels(drawn["variants"])["sts"]
    assert "m: rate 1" in texts(drawn["variants"])  # "fair" comes first by name
    assert [round(x, 1) for x, *_ in points(panel)] == [20.0]
    start = "m: rate 1, sts: 20.00, 95 % interval"
    assert any(tip.startswith(start) for tip in tips(drawn["variants"]))


def swept(label, task, count, *, budget=1000, seed=1, stage="last", family="sts", **settings):
    recipe = {"k": 4, "rate": 0.5, "flag": False, "words": "few", **settings}
    training = {"method": "m", "budget": budget, "seed": seed, "recipe": recipe}
    training["stages"] = [{"stage": stage}]
    return result(label, task, examples=right(count), family=family, card={"training": training})


def test_scores_over_the_values_of_a_setting_are_in_order_with_differences_as_whiskers():
    values = (("c", 300, 4), ("b", 340, 16), ("d", 200, 1), ("e", 100, 4.0))
    c = compared(
        *(swept(label, "t", n, k=k) for label, n, k in values),
        swept("f", "t", 10, k=2, rate=1),  # changes two settings
        swept("g", "t", 10, k=8, stage="first"),
        swept("h", "t", 10, rate=1),  # of the rate there are only two values
    )
    (drawing,) = variants.sweeps(c)
    (panel,) = drawing.figure.axes
    assert drawing.name == "sweep-k"
    assert [label.get_text() for label in panel.get_xticklabels()] == ["1", "4", "16"]
    assert np.allclose(curve(panel, 3), [(0, 50), (1, 75), (2, 85)])
    pair = np.array([c.number["d"]]), np.array([c.number["c"]])
    gap = stats.differences(c.by_task["t"], *pair)
    lines = [line for line in panel.lines if list(np.diff(line.get_xdata())) == [0]]
    whiskers = {int(line.get_xdata()[0]): line.get_ydata() for line in lines}
    assert set(whiskers) == {0, 2}  # none at the reference
    assert np.allclose(whiskers[0], [75 + 100 * gap.low[0], 75 + 100 * gap.high[0]])
    assert "c, t: 75.00" in tips(drawing)


def test_of_more_than_six_tasks_the_means_of_families_go_over_a_setting():
    made = []
    for k in (1, 2, 4):
        for t in range(7):
            family = "ner" if t > 4 else "sts"
            made.append(swept(f"k{k}", f"t{t}", 100 + 10 * k + 4 * t, k=k, family=family))
    others = [result(f"other{i}", "u", 0.5) for i in range(4)]  # no task is common
    (six,) = variants.sweeps(compared(*(one for one in made if one.spec.task != "t6")))
    (seven,) = variants.sweeps(compared(*made, *others))
    assert len(six.figure.axes) == 6
    assert set(panels(seven)) == {"ner (2 tasks)", "sts (5 tasks)"}
    assert np.allclose(curve(panels(seven)["ner (2 tasks)"], 3)[:, 1], [33, 35.5, 40.5])


@pytest.mark.parametrize(
    ("name", "values", "has"),
    [
        ("seed", [1, 2, 3], False),
        ("words", ["few", "some", "many"], False),
        ("flag", [False, True, None], False),
        ("k", [4, float("inf"), float("nan")], False),
        ("k", [4, 8], False),
        ("k", [4, 8, 0], True),
    ],
)
def test_only_a_number_with_three_values_has_a_curve(name, values, has):
    cells = [swept(f"e{i}", "t", 100 + i, **{name: value}) for i, value in enumerate(values)]
    (drawing,) = variants.sweeps(compared(*cells))
    assert (drawing.figure is not None) is has


def test_figures_of_one_setting_are_numbered_and_their_names_are_file_names():
    made = []
    for k in range(12):
        for budget in (1000, 2000):
            changed = {"../New <b>Rate</b> $5": k, "budget": budget}
            made.append(swept(f"e{k} {budget}", "t", 100 + k, **changed))
    drawings = variants.sweeps(compared(*made))
    assert [d.name for d in drawings] == [f"sweep-new-b-rate-b-5-{i}" for i in (1, 2)]
    ET.fromstring(drawings[0].svg)  # noqa: S314 - our own file
    assert len(drawings[0].figure.axes[0].get_xticks()) <= 7


def test_a_sweep_without_known_intervals_has_and_names_no_whiskers():
    made = [
        replace(swept(f"k{k}", "t", 1, k=k), scores=result("a", "t", k / 10).scores)
        for k in (1, 2, 4)
    ]
    (drawing,) = variants.sweeps(compared(*made))
    lines = drawing.figure.axes[0].lines
    assert not [line for line in lines if list(np.diff(line.get_xdata())) == [0]]
    assert legend(drawing) == ["k1"]
    assert "Whiskers" not in drawing.about


PLACES = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=12)


@settings(max_examples=50)
@given(PLACES)
def test_the_pareto_front_is_what_nothing_beats_in_both(places):
    front = {places[int(i)] for i in pareto({str(i): p for i, p in enumerate(places)})}
    beaten = {p for p in places for q in places if q[0] >= p[0] and q[1] >= p[1] and q != p}
    assert front == set(places) - beaten


def test_throughput_is_of_the_largest_run_and_names_only_what_is_drawn():
    c = compared(result("a", "t", 0.5))
    assert throughput(c, "a") == 50.0
    assert "Pareto front" not in legend(tradeoff.throughput(c))
    uncounted = replace(result("a", "t", 0.5), cost={"tokens": 0, "encode_seconds": 1.0})
    assert throughput(compared(uncounted), "a") is None
    cells = [result("a", "t", 0.5), result("b", "t", 0.5), result("c", "t", 0.4)]
    cells += [result("a", "u", 0.5, family="ner"), result("b", "u", 0.3, family="ner")]
    assert "a number is missing: c." in tradeoff.throughput(compared(*cells)).about


def test_names_of_points_cover_no_whisker_or_other_name():
    cells = [result(f"encoder {i}", "t", examples=right(200 + 9 * i)) for i in range(6)]
    drawing = tradeoff.throughput(compared(*cells))
    (panel,) = drawing.figure.axes
    drawing.figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in panel.texts]
    assert boxes
    for i, box in enumerate(boxes):
        assert not box.count_overlaps(boxes[:i])


@settings(max_examples=50)
@given(st.integers(1, 9), st.randoms(use_true_random=False))
def test_cliques_are_the_largest_runs_in_which_all_pairs_are_the_same(m, random):
    upper = np.zeros((m, m), bool)
    for i, j in zip(*np.triu_indices(m, 1), strict=True):
        upper[i, j] = random.random() < 0.7
    same = upper | upper.T | np.eye(m, dtype=bool)
    runs = [(i, j) for i in range(m) for j in range(i + 1, m) if same[i : j + 1, i : j + 1].all()]

    def is_inside(i, j):
        return any((a, b) != (i, j) and a <= i and j <= b for a, b in runs)

    assert cliques(same) == [(i, j) for i, j in runs if not is_inside(i, j)]


def test_mean_ranks_are_joined_where_the_tables_find_no_significant_difference(drawn):
    shown = texts(drawn["ranks"])
    assert {"good  1.00 ", "fair  2.00 ", " 3.00  poor (untrained)"} <= shown
    assert "Bars" not in drawn["ranks"].about  # nothing is known of the significance of its mean
    answers = {"a": right(60), "b": right(201, first=100), "c": right(200)}
    cells = [result(e, t, examples=each) for e, each in answers.items() for t in ("t", "u")]
    drawing = scores.mean_ranks(compared(*cells))
    bars = [line for line in drawing.figure.axes[0].lines if line.get_linewidth() == 3.5]
    assert [np.round(bar.get_xdata(), 2).tolist() for bar in bars] == [[0.97, 2.03]]
    assert "Bars join encoders without a significant difference" in drawing.about


def test_layer_curves_are_of_one_task_with_the_unnamed_layer_last(drawn):
    panel = panels(drawn["layers"])["b"]
    assert [label.get_text() for label in panel.get_xticklabels()] == ["0", "4", "8", "last"]
    assert np.allclose(curve(panel, 3)[:, 1], [80, 84, 88])  # the last layer is not joined to them
    assert [round(y) for x, y, _ in points(panel) if x > 8] == [80, 60, 40]


def test_scores_that_a_layer_was_picked_by_are_drawn():
    made = []
    for label, quality in (("a", 0.7), ("b", 0.6)):
        picking = {"picking at -2": [quality - 0.1], "picking at -1": [quality]}
        made.append(result(label, "p", quality, metric="auroc", scores=picking))
    drawing = figures.layers(compared(*made))
    assert set(panels(drawing)) == {"p: validation pairs"}
    assert {"a, layer -2: 60.0", "b, layer -1: 60.0"} <= set(tips(drawing))


def test_learning_joins_only_checkpoints_that_differ_in_budget_alone():
    def trained(label, score, tokens, **recipe):
        training = {"method": "m", "budget": tokens, "trained_tokens": tokens, "recipe": recipe}
        return result(label, "t", score, card={"training": training})

    same = [trained("short", 0.4, 1000, rate=1), trained("long", 0.6, 9000, rate=1)]
    base = result("base", "t", 0.3, trained=False)
    drawing = curves.learning(compared(*same, trained("other", 0.5, 5000, rate=2), base))
    panel = drawing.figure.axes[0]
    joined = [line.get_xydata() for line in panel.lines if line.get_marker() == "None"]
    assert np.allclose(joined[0], [(1000, 40), (9000, 60)])
    assert sorted(x for x, *_ in points(panel)) == [1000, 5000, 9000]  # none without a number
    assert any(np.allclose(line[:, 1], 30) for line in joined)
    assert "Lines join" in drawing.about
    dashes = [line.get_color() for line in panel.lines if line.get_linestyle() == "--"]
    assert not {line.get_color() for line in panel.lines if line.get_color() in COLORS} & {*dashes}
    apart = [trained("short", 0.4, 1000, rate=1), trained("other", 0.5, 5000, rate=2)]
    assert "Lines join" not in curves.learning(compared(*apart)).about
    unsaid = [
        result(label, "t", 0.5, card={"training_tokens": n}) for label, n in (("a", 9), ("b", 99))
    ]
    assert "Lines join" not in curves.learning(compared(*unsaid)).about
    near = [trained("one", 0.4, 1000, rate=1), trained("two", 0.6, 1001, rate=2)]
    assert curves.learning(compared(*near)).figure is None


def test_losses_have_a_panel_per_method_and_stage():
    line, last = [[10, 3.0], [1_000, 1.0]], [[9, 2.0], [500, 0.5]]
    stages = [{"stage": "compression", "loss": line}, {"stage": "labels", "seconds": 3.0}]
    stages.append({"stage": "contrastive", "loss": last})
    staged = {"method": "m", "loss": last, "stages": stages}
    plain = {"method": "n", "loss": line, "stages": {"written by": "something else"}}
    cards = {"a": staged, "b": staged, "c": plain, "d": {"method": "o"}}
    cells = [result(label, "t", 0.5, card={"training": each}) for label, each in cards.items()]
    drawing = figures.loss(compared(*cells))
    assert list(panels(drawing)) == ["m: compression", "m: contrastive", "n"]
    first, last = "loss 3.000 at 10 tokens", "loss 2.000 at 9 tokens"
    expected = {f"a: {first}", f"a: {last}", f"b: {first}", f"b: {last}", f"c: {first}"}
    assert {tip.split(",")[0] for tip in tips(drawing)} == expected


def test_instruction_joins_the_right_and_the_wrong_score(drawn):
    found = tips(drawn["instruction"])
    assert "good, a under its own instruction: 80.00" in found
    assert "good, a under b: 50.00" in found
    assert len(found) == 2 * 2 * 3


def test_robustness_shows_every_wording(drawn):
    (panel,) = drawn["robustness"].figure.axes
    dots = [x for line in panel.lines if line.get_marker() != "None" for x in line.get_xdata()]
    assert len(dots) == 3 * 4
    expected = "good, correct wordings: 81.00 on average, 80.0 to 82.0 over 2 wordings"
    assert expected in tips(drawn["robustness"])


def test_any_name_is_drawn_within_the_picture():
    names = ["a" * 200, "<script>alert(1)</script>", '"quoted" & $5 {x}', "x\ny\tz", "--><!--"]
    cells = [result("base", task, 0.4) for task in ("t", *names)]
    cells += [result(name, "t", 0.5, card={"training_tokens": 9}) for name in names]
    for drawing in figures.draw(compared(*cells)):
        if drawing.figure is not None:
            ET.fromstring(drawing.svg)  # noqa: S314 - our own file
            pixels = mpl.image.imread(io.BytesIO(drawing.png))
            assert pixels[:, :2, :3].min() == pixels[:, -2:, :3].min() == 1
