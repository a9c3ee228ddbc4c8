"""Quality and cost: every encoder a point, and the Pareto front."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, LogLocator
from matplotlib.transforms import Bbox

from bench.reporting import context
from bench.reporting.comparison import MEAN, Comparison
from bench.reporting.figures.drawing import (
    INK,
    MUTED,
    ROLES,
    RULE,
    Bounds,
    Sketch,
    blank,
    draw_point,
    name_marks,
    number,
    report_figure,
    scaled,
    settle,
    shortened,
)
from bench.reporting.figures.scores import role_marks

_MOST_NAMES = 60
Around = tuple[int, int, Any, Any]
"""Where text is beside a place: points to the right, points up, and which side of it is there."""

_AROUND: tuple[Around, ...] = (
    (7, 0, "left", "center"),
    (-7, 0, "right", "center"),
    (0, 7, "center", "bottom"),
    (0, -7, "center", "top"),
    (6, 6, "left", "bottom"),
    (6, -6, "left", "top"),
    (-6, 6, "right", "bottom"),
    (-6, -6, "right", "top"),
)


@report_figure("throughput", "Score and encoding throughput", beside="cost")
def throughput(c: Comparison) -> Sketch:
    """Return the mean score against tokens encoded per second."""
    means = c.encoders["mean"].dropna()
    speeds = {label: speed for label in means.index if (speed := context.throughput(c, str(label)))}
    if not speeds:
        return "no encoder has both a mean over families and a known number of tokens per second"
    shown = c.encoders.loc[list(speeds)]
    figure = blank(7.2, 4.6)
    axes = figure.add_subplot()
    axes.set_xscale("log")
    bounds = c.overall.intervals.bounds()
    places, whiskers = {}, {}
    for label, encoder in shown.iterrows():
        ends, title = bounds[c.number[str(label)]], encoder.title
        places[title] = speeds[label], 100 * encoder["mean"]
        whiskers[title] = scaled(ends)
        tip = f"{title}: {number(encoder['mean'], ends)}; {speeds[label]:,.0f} tokens per second"
        draw_point(axes, places[title], tip, bounds=whiskers[title], color=ROLES[encoder.role])
    marks = role_marks(shown.role)
    front = pareto(places)
    if len(front) > 1:
        style: Any = {"color": MUTED, "linewidth": 1, "linestyle": "--"}
        xs, ys = zip(*(places[title] for title in front), strict=True)
        axes.step(xs, ys, where="pre", zorder=1, **style)
        marks["Pareto front"] = style
    cards = [context.largest_run(c, str(label)).card for label in shown.index]
    devices = sorted({str(card.get("device") or "unknown") for card in cards})
    _scale(axes, list(speeds.values()), f"tokens encoded per second ({' and '.join(devices)})")
    name_marks(figure, marks)
    _name_points(axes, places, whiskers, set(front))
    about = "Throughput in the encoder's largest run."
    if any(whiskers.values()):
        about += " Lines: 95 % interval."
    if lost := [title for title in c.encoders.title if title not in places]:
        about += f" Not shown, since a number is missing: {', '.join(lost)}."
    return figure, about


def pareto(places: Mapping[str, tuple[float, float]]) -> list[str]:
    """Return the names of the Pareto front, by rising throughput.

    Args:
        places: (throughput, score) by name; more is better of both.
    """
    front: list[str] = []
    for name in sorted(places, key=lambda name: (-places[name][0], -places[name][1])):
        if not front or places[name][1] > places[front[-1]][1]:
            front.append(name)
    return front[::-1]


def _scale(axes: Axes, xs: Sequence[float], label: str) -> None:
    wide = max(xs) / min(xs) > 300
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_formatter("")
    axes.margins(x=0.12, y=0.1)
    axes.set_xlabel(label)
    axes.set_ylabel(f"{MEAN} x 100")
    axes.grid(color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)


def _name_points(
    axes: Axes,
    places: Mapping[str, tuple[float, float]],
    whiskers: Mapping[str, Bounds],
    first: set[str],
) -> None:
    """Write each name where it covers no other name, point or whisker, if there is such a place.

    Args:
        axes: Where to write.
        places: Of the points, by name.
        whiskers: Ends of their intervals, by name.
        first: Names to place first.
    """
    figure = axes.get_figure(root=True)
    if figure is None:
        return
    settle(figure)
    taken = []
    for name, (x, y) in places.items():
        low, high = whiskers[name] or (y, y)
        corners = axes.transData.transform([(x, low), (x, y), (x, high)])
        taken.append(Bbox(corners[[0, 2]]).padded(2))
        taken.append(Bbox([corners[1], corners[1]]).padded(5))
    inside = axes.bbox.padded(4)
    by_rank = sorted(places, key=lambda name: (name not in first, -places[name][1]))
    style: Any = {"textcoords": "offset points", "fontsize": 7.5, "color": INK}
    for name in by_rank[:_MOST_NAMES]:
        for (x, y), (dx, dy, side, level) in _tries(places[name], whiskers[name]):
            offset = {"xytext": (dx, dy), "ha": side, "va": level}
            text = axes.annotate(shortened(name), (x, y), **offset, **style)
            box = text.get_window_extent()
            fits = inside.containsx(box.x0) and inside.containsx(box.x1)
            if fits and not box.count_overlaps(taken):
                taken.append(box)
                break
            text.remove()


def _tries(place: tuple[float, float], bounds: Bounds) -> list[tuple[tuple[float, float], Around]]:
    """Return where a name may be: around its point, then beyond the ends of its whisker."""
    x, y = place
    low, high = bounds or (y, y)
    beyond: list[tuple[tuple[float, float], Around]] = [
        ((x, high), (0, 3, "center", "bottom")),
        ((x, low), (0, -3, "center", "top")),
    ]
    return [(place, around) for around in _AROUND] + beyond
