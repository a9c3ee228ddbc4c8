"""Quality and cost: every encoder a point, and the Pareto front."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, LogLocator
from matplotlib.transforms import Bbox

from bench.reporting import context
from bench.reporting.comparison import Comparison
from bench.reporting.figures.drawing import (
    INK,
    MUTED,
    RULE,
    SURFACE,
    TRAINED,
    UNTRAINED,
    Bounds,
    Drawing,
    add_tip,
    blank,
    number,
    settle,
    shortened,
    styled,
)

_MOST_NAMES = 60
_AROUND: tuple[tuple[int, int, Any, Any], ...] = (
    (7, 0, "left", "center"),
    (-7, 0, "right", "center"),
    (0, 7, "center", "bottom"),
    (0, -7, "center", "top"),
    (6, 6, "left", "bottom"),
    (6, -6, "left", "top"),
    (-6, 6, "right", "bottom"),
    (-6, -6, "right", "top"),
)


@dataclass(frozen=True)
class _Axis:
    """What stands on the horizontal axis."""

    name: str
    title: str
    label: str
    unit: str
    better: Literal["more", "less"]
    unknown: str = ""
    """Where encoders without a number stand apart: the words above them."""


@styled
def throughput(c: Comparison) -> Drawing:
    """Return the mean score against tokens encoded per second."""
    speeds = {label: speed for label in c.labels if (speed := context.throughput(c, label))}
    devices = sorted(
        {str(c.encoders.at[label, "card"].get("device") or "unknown") for label in speeds}
    )
    label = f"tokens encoded per second, in the encoder's largest run ({' and '.join(devices)})"
    title = "Score and encoding throughput"
    return _tradeoff(c, speeds, _Axis("throughput", title, label, "tokens per second", "more"))


@styled
def training_tokens(c: Comparison) -> Drawing:
    """Return the mean score against training tokens; encoders without a known number stand apart on the left."""
    tokens = c.encoders.tokens.dropna().to_dict()
    axis = _Axis(
        "training-tokens",
        "Score and training tokens",
        "tokens through the trained network",
        "training tokens",
        "less",
        unknown="untrained,\nor not known",
    )
    return _tradeoff(c, tokens, axis)


def pareto(points: Sequence[tuple[float, float]], better: Literal["more", "less"]) -> list[int]:
    """Return the indices of the Pareto front, by rising first coordinate.

    Args:
        points: (cost or speed, score) each; more score is better.
        better: Whether more or less of the first coordinate is better.
    """
    sign = 1 if better == "less" else -1
    front: list[int] = []
    for i in sorted(range(len(points)), key=lambda i: (sign * points[i][0], -points[i][1])):
        if not front or points[i][1] > points[front[-1]][1]:
            front.append(i)
    return sorted(front, key=lambda i: points[i][0])


def _tradeoff(c: Comparison, xs: Mapping[str, float], axis: _Axis) -> Drawing:
    means = c.encoders["mean"].dropna()
    known = [label for label in means.index if label in xs]
    if not known:
        why = f"no encoder has both a mean over families and a known number of {axis.unit}"
        return Drawing(axis.name, axis.title, why=why)
    others = [label for label in means.index if label not in xs and axis.unknown]
    left = min(xs[label] for label in known) / 6
    places = {label: (xs.get(label, left), 100 * means[label]) for label in (*known, *others)}
    figure = blank(7.2, 4.6)
    axes = figure.add_subplot()
    axes.set_xscale("log")
    front = [known[i] for i in pareto([places[label] for label in known], axis.better)]
    if len(front) > 1:
        where: Any = "pre" if axis.better == "more" else "post"
        line: Any = {"color": MUTED, "linewidth": 1, "linestyle": "--", "zorder": 1}
        axes.step(*zip(*(places[label] for label in front), strict=True), where=where, **line)
    bounds = c.bounds(c.overall)
    for label, place in places.items():
        words = f"{xs[label]:,.0f} {axis.unit}" if label in xs else axis.unknown.replace("\n", " ")
        _draw_encoder(axes, c.encoders.loc[label], place, bounds[c.number[label]], words)
    if others:
        axes.axvline(left * 2.4, color=RULE, linewidth=1)
        above: Any = {"transform": axes.get_xaxis_transform(), "ha": "center", "va": "bottom"}
        axes.text(left, 1.01, axis.unknown, fontsize=7, color=MUTED, **above)
    _scale(axes, [x for x, _ in places.values()], axis.label)
    titles = c.encoders.title
    _name_points(axes, {titles[each]: places[each] for each in places}, set(titles[front]))
    lost = [titles[label] for label in c.labels if label not in places]
    missing = f" Not shown, since a number is missing: {', '.join(lost)}." if lost else ""
    about = (
        f"Dashed: Pareto front ({axis.better} {axis.unit}, higher mean); whiskers: 95 % interval."
    )
    return Drawing(axis.name, axis.title, about + missing, figure)


def _draw_encoder(
    axes: Axes, encoder: pd.Series, place: tuple[float, float], bounds: Bounds, words: str
) -> None:
    """Draw an encoder; an untrained method is an orange triangle."""
    color, marker = (TRAINED, "o") if encoder.trained else (UNTRAINED, "^")
    if bounds:
        ends = [100 * end for end in bounds]
        axes.plot([place[0]] * 2, ends, color=color, linewidth=1, zorder=2)
    style: Any = {"markersize": 7, "markeredgecolor": SURFACE, "zorder": 3}
    (point,) = axes.plot(*place, marker, color=color, **style)
    add_tip(point, f"{encoder.title}: {number(encoder['mean'], bounds)}; {words}")


def _scale(axes: Axes, xs: Sequence[float], label: str) -> None:
    wide = max(xs) / min(xs) > 300
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_formatter("")
    axes.margins(x=0.12, y=0.1)
    axes.set_xlabel(label)
    axes.set_ylabel("mean of family means x 100")
    axes.grid(color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)


def _name_points(axes: Axes, places: Mapping[str, tuple[float, float]], first: set[str]) -> None:
    """Write each name where it covers no other name or point; one that fits nowhere is left to its tip."""
    figure = axes.get_figure(root=True)
    if figure is None:
        return
    settle(figure)
    spots = [axes.transData.transform(place) for place in places.values()]
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in spots]
    inside = axes.bbox.padded(4)
    by_rank = sorted(places, key=lambda name: (name not in first, -places[name][1]))
    for name in by_rank[:_MOST_NAMES]:
        for dx, dy, side, level in _AROUND:
            style: Any = {"textcoords": "offset points", "fontsize": 7.5, "color": INK}
            text = axes.annotate(
                shortened(name), places[name], (dx, dy), ha=side, va=level, **style
            )
            box = text.get_window_extent()
            fits = inside.containsx(box.x0) and inside.containsx(box.x1)
            if fits and not box.count_overlaps(taken):
                taken.append(box)
                break
            text.remove()
