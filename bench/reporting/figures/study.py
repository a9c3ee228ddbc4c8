"""Figures of a study: learning curves, differences from the backbone, and ranks."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, product
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, MaxNLocator, NullLocator

from bench import stats
from bench.reporting.figures.drawing import (
    COLORS,
    INK,
    MARKERS,
    MOST_CURVES,
    MUTED,
    RULE,
    Drawing,
    Sketch,
    add_tip,
    caption,
    dot,
    draw_point,
    draw_wordings,
    line_style,
    name_marks,
    number,
    panels,
    report_figure,
    scaled,
    shifted,
    side_by_side,
)
from bench.reporting.figures.scores import draw_differences, significance_marks
from bench.reporting.study.answer import trained_once
from bench.reporting.study.grid import Number, Study
from bench.reporting.trainings import Method
from bench.stats import Estimates

_WIDE = 3  # largest over smallest number beyond which an axis is logarithmic
_APART = 3.2  # points between the marks of curves at one budget
_LONG = 4  # times the usual length, beyond which an interval is cut
_CUT = f"Intervals more than {_LONG} times as long as most end at the frame; the tables have them."
_DASHES = ((0, (5, 3)), (0, (1, 1.5)), (0, (7, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)))


def draw(study: Study) -> tuple[Drawing, ...]:
    """Return every figure of a study; one without the necessary results says why."""
    return (gains(study), curves(study), curves_of_flops(study), ranks(study), wordings(study))


@dataclass(frozen=True)
class _Axis:
    """What the curves of a figure are drawn over: ``cost`` is as in ``Study.cost``."""

    cost: str
    words: str
    about: str


_TOKENS = _Axis(
    "trained_tokens",
    "training tokens",
    "Tokens that passed through the network being trained.",
)
_FLOPS = _Axis(
    "flops",
    "FLOPs",
    "FLOPs are of everything that a training runs, generators and teachers included.",
)


@report_figure("curves-tokens", "Score over training tokens", beside="study")
def curves(study: Study) -> Sketch:
    """Return the scores over trained tokens, a panel per family and a curve per method."""
    return _curves(study, _TOKENS)


@report_figure("curves-flops", "Score over all FLOPs of a training", beside="study")
def curves_of_flops(study: Study) -> Sketch:
    """Return the scores over all FLOPs of a training."""
    return _curves(study, _FLOPS)


def _curves(study: Study, axis: _Axis) -> Sketch:
    places = {m: spent for m in study.methods if (spent := study.cost(m, axis.cost))}
    known = {}
    for name, own in study.curves.items():
        if placed := [m for m in own if m in places]:
            known[name] = placed
    if not known:
        return f"no card has the {axis.words} of its training"
    drawn = dict(list(known.items())[:MOST_CURVES])
    figure, axes = side_by_side(study.families)
    xs = [places[m] for m in chain(*drawn.values())]
    ticks: Sequence[float] = study.budgets if axis is _TOKENS else _round_ticks(xs)
    apart = _APART if axis is _TOKENS else 0.0
    shown = [*chain(*drawn.values()), *study.beside, *filter(None, [study.baseline])]
    limits: list[tuple[float, float] | None] = []
    for panel, family in zip(axes, study.families, strict=True):
        marks = _draw_beside(panel, study, family)
        for i, own in enumerate(drawn.values()):
            shift = apart * (i - (len(drawn) - 1) / 2)
            _draw_curve(panel, study, family, i, {m: places[m] for m in own}, shift)
        _draw_start(panel, study, family)
        _scale(panel, xs, ticks, axis.words)
        limits.append(_limits([study.level(method, family) for method in shown]))
        panel.autoscale_view()
        if limits[-1]:
            panel.set_ylim(limits[-1])
    for panel in axes[::3]:
        panel.set_ylabel("mean score x 100")
    styles = {name: line_style(i) for i, name in enumerate(drawn)}
    name_marks(figure, {**styles, **marks})
    text = " ".join([axis.about, *_read_curves(study, drawn), *([_CUT] if any(limits) else [])])
    if len(known) > MOST_CURVES:
        text += f" The {MOST_CURVES} best of {len(known)}."
    if lost := [name for name in study.curves if name not in known]:
        text += f" Not shown, since no card has its {axis.words}: {', '.join(lost)}."
    return figure, text


def _read_curves(study: Study, drawn: Mapping[str, Sequence[Method]]) -> Iterator[str]:
    """Yield how to read the marks of curves."""
    counts = [len(m.seeds) for m in chain(*drawn.values())]
    if max(counts) == 1:
        yield "Lines: 95 % interval, without variation between trainings: each was trained once."
    else:
        yield "Lines: 95 % interval; small dots: single trainings."
        if min(counts) == 1:
            yield "Hollow: trained once, so the interval lacks the variation between trainings."
    if len(study.budgets) == 1:
        yield "One budget, so each curve has the untrained backbone and one point."


def _draw_beside(panel: Axes, study: Study, family: str) -> dict[str, dict[str, Any]]:
    """Draw encoders without a training as horizontal lines, and return their styles by name."""
    styles = {}
    for method, dashes in zip(study.beside, _DASHES, strict=False):
        style: Any = {"color": INK, "linestyle": dashes, "linewidth": 0.9}
        value = study.level(method, family).value
        if not math.isnan(value):
            line = panel.axhline(100 * value, zorder=1, **style)
            add_tip(line, f"{method.name}, {family}: {number(value)}")
        styles[method.name] = style
    return styles


def _draw_start(panel: Axes, study: Study, family: str) -> None:
    """Draw the untrained backbone at 0."""
    if study.baseline is not None:
        value = study.level(study.baseline, family).value
        tip = f"{study.baseline.name}, {family}, untrained: {number(value)}"
        draw_point(panel, (0, 100 * value), tip, color=INK, hollow=True)


def _draw_curve(
    panel: Axes, study: Study, family: str, i: int, places: Mapping[Method, float], shift: float
) -> None:
    """Draw a curve from the untrained backbone on, with intervals and single trainings.

    Args:
        panel: Where to draw.
        study: The study.
        family: What is drawn.
        i: Number of the curve, for its colour and marker.
        places: The place of each method of the curve on the axis.
        shift: Points by which it is drawn beside the others.
    """
    style: Any = {"color": COLORS[i], "transform": shifted(panel, shift)}
    start = study.baseline
    xs = [0.0, *places.values()] if start else list(places.values())
    values = [study.level(m, family).value for m in ([start] if start else []) + list(places)]
    panel.plot(xs, [100 * value for value in values], linewidth=1.2, zorder=1.5, **style)
    panel.update_datalim([(x, 100 * value) for x, value in zip(xs, values, strict=True)])
    for method, x in places.items():
        found, n = study.level(method, family), len(method.seeds)
        if n > 1:
            single = 100 * _single_trainings(study, family, method)
            panel.update_datalim([(x, score) for score in single])
            panel.plot([x] * n, single, "o", markersize=2.4, alpha=0.5, markeredgewidth=0, **style)
        # What is drawn beside its place does not count in the limits of the axes by itself.
        panel.update_datalim([(x, end) for end in scaled(found.ends) or ()])
        tip = (
            f"{study.names[method]}, {method.budget:,} tokens, {family}: "
            f"{number(found.value, found.ends)}; {n} training{'s' if n > 1 else ''}"
        )
        draw_point(
            panel,
            (x, 100 * found.value),
            tip,
            bounds=scaled(found.ends),
            color=COLORS[i],
            marker=MARKERS[i],
            hollow=n == 1,
            shift=shift,
        )


def _limits(known: Sequence[Number]) -> tuple[float, float] | None:
    """Return limits of an axis at which an interval of few trainings ends; None where none does."""
    known = [each for each in known if not math.isnan(each.value)]
    spans = np.array([ends for each in known if (ends := scaled(each.ends))])
    if not len(spans):
        return None
    lengths = spans[:, 1] - spans[:, 0]
    usual = spans[lengths <= _LONG * np.median(lengths)]
    if len(usual) == len(spans):
        return None
    places = [*usual.ravel(), *(100 * each.value for each in known)]
    low, high = min(places), max(places)
    return low - 0.05 * (high - low), high + 0.05 * (high - low)


def _single_trainings(study: Study, family: str, method: Method) -> stats.Array:
    """Return the score of each training of a method."""
    labels, means = list(method.encoders), study.c.family_means
    own = means.loc[family] if family in means.index else study.c.encoders["mean"]
    return np.array(own[labels], float)


def _scale(panel: Axes, xs: Sequence[float], ticks: Sequence[float], words: str) -> None:
    """Set an axis that begins at 0 and, for a wide range, is logarithmic from the smallest on."""
    low, high = min(xs), max(xs)
    if high > _WIDE * low:
        panel.set_xscale("symlog", linthresh=low, linscale=0.6)
        panel.xaxis.set_minor_locator(NullLocator())
    panel.set_xticks([0.0, *ticks])
    panel.xaxis.set_major_formatter(EngFormatter(sep=""))
    panel.set_xlabel(words)
    panel.margins(x=0.08)


def _round_ticks(xs: Sequence[float]) -> list[float]:
    """Return up to four round numbers in the range of some."""
    low, high = min(xs), max(xs)
    if high <= _WIDE * low:
        return [float(t) for t in MaxNLocator(4).tick_values(0, high) if 0 < t <= high]
    powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        every = map(float, np.outer(powers, steps).ravel())
        ticks = [tick for tick in every if low <= tick <= high]
        if len(ticks) <= 4:
            break
    return ticks[:: -(-len(ticks) // 4) or 1]


@report_figure("gains", "Difference from the untrained backbone", beside="study")
def gains(study: Study) -> Sketch:
    """Return the differences from the untrained backbone at each budget, a panel per family."""
    base, rows = study.baseline, study.ordered
    if base is None or not rows:
        return "no untrained backbone beside trained encoders"
    several = len(study.budgets) > 1
    names = _row_names(study, rows)
    number_of = {budget: i for i, budget in enumerate(reversed(study.budgets))}
    colors = [COLORS[number_of[m.budget or 0] % len(COLORS)] for m in rows]
    figure, axes = panels(study.families, names, across=4)
    drawn: list[float] = []
    for panel, family in zip(axes, study.families, strict=True):
        found = _estimates([study.gain(m, family) for m in rows])
        for y in _changes([m.budget for m in rows]):
            panel.axhline(y - 0.5, color=RULE, linewidth=0.8)
        tips = [f"{name} minus {base.name}, {family}" for name in names]
        drawn += draw_differences(panel, found, found.p, tips, colors)
    every = (study.gain(m, family) for family, m in product(study.families, rows))
    limits = _limits([gain for gain in every if gain])
    if limits:
        axes[0].set_xlim(limits)
    caption(figure, f"Mean score x 100 minus that of {base.name}; lines: 95 % interval")
    marks = {}
    if several:
        marks = {f"{b:,} tokens": dot(COLORS[i % len(COLORS)]) for b, i in number_of.items()}
    name_marks(figure, {**marks, **significance_marks(drawn, MUTED if several else COLORS[0])})
    return figure, " ".join([*_read_gains(study), *([_CUT] if limits else [])])


def _row_names(study: Study, rows: Sequence[Method]) -> list[str]:
    """Return the names of methods, with their budgets where there are several."""
    names = [study.names[m] for m in rows]
    if len(study.budgets) == 1:
        return names
    count = EngFormatter(sep="")
    return [
        f"{name}, {count(m.budget)}" if m.budget else name
        for name, m in zip(names, rows, strict=True)
    ]


def _read_gains(study: Study) -> Iterator[str]:
    """Yield how to read the intervals of differences."""
    if len(study.budgets) == 1:
        yield f"At {study.budgets[0]:,} training tokens."
    counts = {len(m.seeds) for m in study.methods}
    if counts == {1}:
        yield "Intervals cover repeats and test examples."
        yield "Each was trained once, so they do not cover the variation between trainings."
        return
    yield "Mean over trainings; intervals cover trainings, repeats and test examples."
    if once := trained_once(study):
        yield f"Trained once, so without the variation between trainings: {once}."


def _estimates(gains: Sequence[Number | None]) -> Estimates:
    """Return differences as arrays."""
    known = [gain or Number(np.nan, np.nan, np.nan) for gain in gains]
    rows = [(gain.value, gain.low, gain.high, gain.p) for gain in known]
    return Estimates(*np.array(rows, float).T)


def _changes(values: Sequence[object]) -> list[int]:
    return [i for i in range(1, len(values)) if values[i] != values[i - 1]]


@report_figure("ranks", "Ranks", beside="study")
def ranks(study: Study) -> Sketch:
    """Return the rank of each method at each budget with its interval, a panel per budget."""
    if all(len(study.at(budget)) < 2 for budget in study.budgets):
        return "no two methods at one budget"
    names = list(study.curves)
    headings = [f"{budget:,} tokens" for budget in study.budgets]
    figure, axes = panels(headings, names)
    most = 1
    for panel, budget in zip(axes, study.budgets, strict=True):
        for m in study.at(budget):
            (rank, among), y = study.rank(m), names.index(study.names[m])
            most = max(most, among)
            tip = f"{study.names[m]}: rank {rank.value:.0f}, from {rank.low:.0f} to {rank.high:.0f}"
            draw_point(panel, (rank.value, y), tip, bounds=rank.ends, along="x")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].set_xlim(0.5, most + 0.5)
    also = ", ".join(m.name for m in study.beside if study.has_mean(m))
    about = (
        f"Rank in the {study.mean}, 1 is best, of everything at a budget"
        f"{f', also {also}' if also else ''}. Lines: with 95 % probability they contain every "
        "rank of the budget."
    )
    caption(figure, "Rank, 1 is best; lines: 95 % interval")
    return figure, about


@report_figure("wordings", "Score under each wording of the instruction", beside="wordings")
def wordings(study: Study) -> Sketch:
    """Return a dot per wording, one ring for the task's own, and a bar for the mean."""
    found = study.wordings
    if found.empty:
        return "no task was scored under several wordings of its instruction"
    methods = [m for m in [*study.ordered, *study.beside] if (found.method == m).any()]
    figure, axes = panels(list(found.task.unique()), _row_names(study, methods), across=3)
    ring: Any = {"linestyle": "", "marker": "o", "color": COLORS[1], "fillstyle": "none"}
    for panel, (task, own) in zip(axes, found.groupby("task", sort=False), strict=True):
        for row in own.itertuples():
            y = methods.index(row.method)
            draw_wordings(panel, y, row.means.tolist(), str(task), color=COLORS[0], reach=0.25)
            panel.plot(100 * row.means[0], y, markersize=7, **ring)
    name_marks(figure, {"a wording": dot(COLORS[0]), "the task's own": ring})
    caption(figure, "Score x 100, the mean over trainings; bars: mean over wordings")
    return figure, "Methods that ignore instructions have one score under all wordings."
