"""Figures: what they show, what they leave out and why; ``test_report`` compares their bytes."""

import io
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
from bench.reporting.figures.drawing import COLORS, ROLES
from bench.reporting.figures.scores import cliques
from bench.reporting.figures.tradeoff import pareto
from bench.reporting.tables import tables
from tests.bench.reporting.made import on, result, right

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
    markers = [line for line in panel.lines if line.get_marker() != "None"]
    return [(*map(float, line.get_xydata()[0]), line.get_markerfacecolor()) for line in markers]


def legend(drawing):
    return [text.get_text() for text in drawing.figure.legends[0].get_texts()]


def curve(panel, n):
    """The (x, y) pairs of the first line through n points."""
    line = next(line for line in panel.lines if len(line.get_xdata()) == n)
    return np.asarray(line.get_xydata())


def whiskers(panel):
    """The ends of vertical lines, by their x."""
    lines = [line for line in panel.lines if list(np.diff(line.get_xdata())) == [0]]
    return {int(line.get_xdata()[0]): line.get_ydata() for line in lines}


def trained(rate, tokens, *, budget=None, loss=3.0):
    """The card of a training."""
    training = {"method": "m", "budget": budget or tokens, "recipe": {"rate": rate}}
    loss = [[10, 4.0], [tokens, loss]]
    return {"training": {**training, "trained_tokens": tokens, "loss": loss}}


@pytest.fixture(scope="module")
def usual():
    """Two variants of one recipe and their untrained backbone, on tasks of every kind."""
    made, rng = [], np.random.default_rng(0)
    for label, quality, more in (
        ("good", 0.8, {"card": trained(1, 1_000_000, loss=1.5)}),
        ("fair", 0.6, {"card": trained(2, 50_000, budget=1_000_000, loss=2.5)}),
        ("poor", 0.4, {"trained": False}),
    ):
        aware = {"a": quality, "b": quality, "a under b": quality - 0.3, "b under a": quality - 0.1}
        robust = {"implicit": quality - 0.1, "incorrect": quality - 0.2}
        shares = {"share_1": quality / 2, "share_16": quality, "share_256": 1.0}
        for task, family, metric, value, rest in (
            ("i", "instruction", "harmonic_mean", quality, aware),
            ("r", "robustness", "correct", quality, robust),
            ("d", "diagnostics", "effective", 8.0, {**shares, "memory_correlation": 0.7}),
        ):
            found = {name: [number] for name, number in rest.items()}
            if task == "r":
                found["correct"] = [quality, quality + 0.02]
            about = {"family": family, "metric": metric, "scores": found}
            made.append(result(label, task, value, **about, **more))
        made += on("t1", {label: int(400 * quality)}, **more)
        made += on("t2", {label: quality + rng.normal(0, 0.01, 5)}, family="ner", **more)
        for layer, readout in ((0, "@0"), (4, "@4"), (8, "@8"), (0, "")):
            about = {"family": "layers", "readout": f"bertscore{readout}"}
            made.append(result(label, "b", quality + layer / 100, **about, **more))
    return compared(*made)


@pytest.fixture(scope="module")
def drawn(usual):
    return {drawing.name: drawing for drawing in figures.draw(usual)}


def test_every_figure_is_drawn_where_its_data_is_there_beside_one_table(usual, drawn):
    assert {name for name, drawing in drawn.items() if drawing.figure is not None} == DRAWN
    assert all(drawn[name].about and drawn[name].beside for name in DRAWN)
    cards = [{"training_tokens": n} for n in (9, 99)]  # a learning curve, no table of trainings
    plain = compared(*(result(f"e{i}", "t", 0.5, card=card) for i, card in enumerate(cards)))
    for c, drawings in ((usual, drawn.values()), (plain, [curves.learning(plain)])):
        there, made = [d for d in drawings if d.figure is not None], tables(c)
        shown = [each.name for table in made for each in figures.beside(table.name, made, there)]
        assert sorted(shown) == sorted(drawing.name for drawing in there) != []


def test_a_figure_without_its_data_says_why():
    found = {d.name: d for d in figures.draw(compared(result("a", "t", 0.5)))}
    absent = {name for name, drawing in found.items() if drawing.figure is None}
    assert absent == (DRAWN | {"sweep"}) - {"families", "heatmap", "throughput"}
    assert all(found[name].why for name in absent)
    with pytest.raises(UsageError, match="layers"):
        _ = found["layers"].svg
    diagnosed = figures.draw(compared(result("a", "t", 0.5, family="diagnostics")))
    assert not [d.name for d in diagnosed if d.figure is not None]


def test_gains_are_differences_to_the_untrained_backbone_filled_where_significant(drawn):
    shown = points(panels(drawn["gains"])["sts"])
    assert np.allclose([point[:2] for point in shown], [(40, 0), (20, 1)])
    assert {point[2] for point in shown} == {ROLES["method"]}
    assert texts(drawn["gains"]) >= {"good", "fair"}
    assert "poor (untrained)" not in texts(drawn["gains"])
    base = result("base", "t", examples=right(200, first=100), trained=False)
    drawing = scores.forest(compared(*on("t", {"m": 201}, card={"training_tokens": 9}), base))
    (x, _, face), *_ = points(panels(drawing)["sts"])
    assert (round(x, 2), face == ROLES["method"]) == (0.25, False)
    assert legend(drawing) == ["method", "not significantly different"]  # and what is not there
    once = compared(result("m", "t", 0.5), result("base", "t", 0.4, trained=False))
    assert legend(scores.forest(once)) == ["method", "significance not known"]


def test_families_have_points_intervals_and_a_line_at_the_backbone(usual, drawn):
    panel = panels(drawn["families"])["sts"]
    x, _, faces = zip(*points(panel), strict=True)
    assert np.allclose(x, [80, 60, 40])
    assert faces == tuple(ROLES[r] for r in ("method", "method", "untrained"))
    ends = 100 * np.array(usual.by_family["sts"].intervals.bounds()[usual.number["good"]])
    lines = [line.get_xdata() for line in panel.lines if len(line.get_xdata()) == 2]
    assert all(any(np.allclose(line, each) for line in lines) for each in (ends, [40, 40]))
    cells = on("t1", {"a": -0.15, "b": 0.4, "c": 0.1}) + on("t2", {"a": -0.2, "b": 0.3})
    drawing = scores.families(compared(*cells))
    assert "no result" in texts(drawing)  # of c
    assert drawing.figure.axes[0].get_xlim()[0] < -17.5


def test_the_heat_map_has_differences_to_the_backbone_or_scores_without_one():
    card = {"training_tokens": 9}
    cells = [*on("t1", {"m": 320}, card=card), result("m", "t2", -0.15, card=card)]
    cells += on("t1", {"base": 160}, trained=False)
    drawing = scores.heatmap(compared(*cells, result("base", "t2", 0.05, trained=False)))
    assert texts(drawing) >= {"+40.0*", "40.0", "t1", "t2", "m", "base (untrained)"}
    drawing = scores.heatmap(compared(*cells))
    assert texts(drawing) >= {"(-15.0)", "—"}
    assert "base (untrained), t2: not run" in tips(drawing)
    plain = scores.heatmap(compared(*on("t", {"a": 0.8, "b": -0.4})))
    assert texts(plain) >= {"80.0", "-40.0"}


def test_many_cells_are_drawn_without_tips(monkeypatch):
    monkeypatch.setattr(scores, "_MOST_TIPS", 3)
    for names, tipped in (("abc", True), ("abcd", False)):
        drawing = scores.heatmap(compared(*on("t", dict.fromkeys(names, 0.5))))
        assert (b"<title>" in drawing.svg) is tipped


def test_a_spectrum_is_a_curve_of_its_own_colour_per_encoder_beside_memory_correlations(drawn):
    panel, memory = drawn["spectrum"].figure.axes
    found = [line.get_ydata().tolist() for line in panel.lines if len(line.get_ydata()) == 3]
    assert found == [[0.4, 0.8, 1.0], [0.3, 0.6, 1.0], [0.2, 0.4, 1.0]]
    assert [bar.get_height() for bar in memory.patches] == [0.7] * 3
    more = {"family": "diagnostics", "scores": {"share_1": [0.4], "share_2": [1.0]}}
    many = curves.spectrum(compared(*(result(f"e{i}", "d", 8.0, **more) for i in range(9))))
    lines = [line for line in many.figure.axes[0].lines if len(line.get_xdata()) == 2]
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
    assert set(whiskers(panel)) == {0, 2}  # none at the reference
    assert np.allclose(whiskers(panel)[0], [75 + 100 * gap.low[0], 75 + 100 * gap.high[0]])
    assert "c, t: 75.00" in tips(drawing)
    unknown = result("a", "t", 0.5).scores  # a single repeat
    (drawing,) = variants.sweeps(
        compared(*(replace(swept(f"k{k}", "t", 1, k=k), scores=unknown) for k in (1, 2, 4)))
    )
    assert not whiskers(drawing.figure.axes[0])
    assert "Whiskers" not in drawing.about


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


def test_only_a_number_with_three_values_has_a_curve():
    for name, values in (
        ("seed", [1, 2, 3]),
        ("words", ["few", "some", "many"]),
        ("flag", [False, True, None]),
        ("k", [4, float("inf"), float("nan")]),
        ("k", [4, 8]),
    ):
        cells = [swept(f"e{i}", "t", 100 + i, **{name: value}) for i, value in enumerate(values)]
        (drawing,) = variants.sweeps(compared(*cells))
        assert drawing.figure is None


def test_figures_of_one_setting_are_numbered_and_their_names_are_file_names():
    changes = [{"../New <b>Rate</b> $5": k, "budget": b} for k in range(3) for b in (1000, 2000)]
    made = [swept(f"e{i}", "t", 100 + i, **each) for i, each in enumerate(changes)]
    drawings = variants.sweeps(compared(*made))
    assert [d.name for d in drawings] == [f"sweep-new-b-rate-b-5-{i}" for i in (1, 2)]
    ET.fromstring(drawings[0].svg)  # noqa: S314 - our own file


PLACES = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=12)


@settings(max_examples=20)
@given(PLACES)
def test_the_pareto_front_is_what_nothing_beats_in_both(places):
    front = {places[int(i)] for i in pareto({str(i): p for i, p in enumerate(places)})}
    beaten = {p for p in places for q in places if q[0] >= p[0] and q[1] >= p[1] and q != p}
    assert front == set(places) - beaten


def test_throughput_is_of_the_largest_run_and_names_only_what_is_drawn():
    c = compared(result("a", "t", 0.5))
    assert throughput(c, "a") == 50.0
    assert "Pareto front" not in legend(tradeoff.throughput(c))
    small, large = (result("a", task, 0.5, card={"device": task}) for task in ("cpu", "gpu"))
    large = replace(large, cost={**large.cost, "tokens": 400})
    (panel,) = tradeoff.throughput(compared(small, large)).figure.axes
    assert panel.get_xlabel() == "tokens encoded per second (gpu)"
    uncounted = replace(result("a", "t", 0.5), cost={"tokens": 0, "encode_seconds": 1.0})
    assert throughput(compared(uncounted), "a") is None
    cells = on("t", {"a": 0.5, "b": 0.5, "c": 0.4}) + on("u", {"a": 0.5, "b": 0.3}, family="ner")
    assert "a number is missing: c." in tradeoff.throughput(compared(*cells)).about


def test_names_of_points_cover_no_other_name():
    drawing = tradeoff.throughput(
        compared(*on("t", {f"encoder {i}": 200 + 9 * i for i in range(6)}))
    )
    (panel,) = drawing.figure.axes
    drawing.figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in panel.texts]
    assert len(boxes) >= 6
    assert not any(box.count_overlaps(boxes[:i]) for i, box in enumerate(boxes))


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
    shown = {"good  1.00 ", "fair  2.00 ", " 3.00  poor (untrained)"}
    assert shown <= texts(drawn["ranks"])
    assert "Bars" not in drawn["ranks"].about  # nothing is known of the significance of its mean
    answers = {"a": right(60), "b": right(201, first=100), "c": right(200)}
    cells = [result(e, t, examples=each) for e, each in answers.items() for t in ("t", "u")]
    drawing = scores.mean_ranks(compared(*cells))
    bars = [line for line in drawing.figure.axes[0].lines if line.get_linewidth() == 3.5]
    assert [np.round(bar.get_xdata(), 2).tolist() for bar in bars] == [[0.97, 2.03]]
    words = "Bars join neighbours of which no two differ significantly"
    assert words in drawing.about  # others that do not differ may be apart


def test_layer_curves_are_of_one_task_with_the_unnamed_layer_last(drawn):
    panel = panels(drawn["layers"])["b"]
    assert [label.get_text() for label in panel.get_xticklabels()] == ["0", "4", "8", "last"]
    assert np.allclose(curve(panel, 3)[:, 1], [80, 84, 88])  # the last layer is not joined to them
    assert [round(y) for x, y, _ in points(panel) if x > 8] == [80, 60, 40]
    picked = {"picking at -2": [0.6], "picking at -1": [0.7]}
    drawing = figures.layers(compared(result("a", "p", 0.7, metric="auroc", scores=picked)))
    assert set(panels(drawing)) == {"p: validation pairs"}
    assert {"a, layer -2: 60.0", "a, layer -1: 70.0"} <= set(tips(drawing))


def test_learning_joins_only_checkpoints_that_differ_in_budget_alone():
    def learning(*cells):
        return curves.learning(compared(*(result(e, "t", s, card=card) for e, s, card in cells)))

    short, other = ("short", 0.4, trained(1, 1000)), ("other", 0.5, trained(2, 5000))
    drawing = learning(short, ("long", 0.6, trained(1, 9000)), other, ("base", 0.3, {"trained": 0}))
    panel = drawing.figure.axes[0]
    joined = [line.get_xydata() for line in panel.lines if line.get_marker() == "None"]
    assert np.allclose(joined[0], [(1000, 40), (9000, 60)])
    assert sorted(x for x, *_ in points(panel)) == [1000, 5000, 9000]  # none without a number
    assert any(np.allclose(line[:, 1], 30) for line in joined)
    unsaid = [(name, 0.5, {"training_tokens": n}) for name, n in (("a", 9), ("b", 99))]
    for cells in ([short, other], unsaid):
        assert "Lines join" in drawing.about
        assert "Lines join" not in learning(*cells).about
    assert learning(short, ("two", 0.6, trained(2, 1001))).figure is None  # equal budgets


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


def test_instruction_and_robustness_show_every_score(drawn):
    found = tips(drawn["instruction"])
    assert {"good, a under its own instruction: 80.00", "good, a under b: 50.00"} < {*found}
    assert len(found) == 2 * 2 * 3
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
            assert b"<text" not in drawing.svg  # letters are shapes: no font is needed
            pixels = mpl.image.imread(io.BytesIO(drawing.png))
            assert pixels[:, :2, :3].min() == pixels[:, -2:, :3].min() == 1
