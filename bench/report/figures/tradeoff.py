"""Quality against what it costs: every encoder a point, those that nothing beats in both joined by a line."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from bench.report import cost
from bench.report.cells import Cells, named
from bench.report.figures.drawing import (
    INK,
    MUTED,
    RULE,
    SURFACE,
    TRAINED,
    UNTRAINED,
    Drawing,
    blank,
    number,
    settle,
    shortened,
    styled,
    told,
)
from bench.report.pairs import Pairs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SCORE = "mean of family means x 100"
_MOST_NAMES = 60


@styled
def throughput(pairs: Pairs) -> Drawing:
    """Return the mean score against tokens encoded a second."""
    cells = pairs.cells
    speeds = {label: speed for label in cells.encoders if (speed := cost.throughput(cells, label))}
    devices = sorted({str(cells.card(label).get("device") or "unknown") for label in speeds})
    return _tradeoff(
        pairs,
        speeds,
        name="throughput",
        title="Score against encode throughput",
        axis=f"tokens encoded a second, in the encoder's largest run ({' and '.join(devices)})",
        unit="tokens a second",
        better="more",
    )


@styled
def training_tokens(pairs: Pairs) -> Drawing:
    """Return the mean score against training tokens; encoders without a known number stand apart on the left."""
    cells = pairs.cells
    return _tradeoff(
        pairs,
        {label: tokens for label in cells.encoders if (tokens := cells.tokens(label))},
        name="training-tokens",
        title="Score against training tokens",
        axis="token positions through the trained network",
        unit="training tokens",
        better="less",
        apart="untrained,\nor not known",
    )


def pareto(points: Sequence[tuple[float, float]], better: Literal["more", "less"]) -> list[int]:
    """Return the numbers of the points that no other one beats in both, by rising first coordinate.

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


def _tradeoff(
    pairs: Pairs,
    xs: Mapping[str, float],
    *,
    name: str,
    title: str,
    axis: str,
    unit: str,
    better: Literal["more", "less"],
    apart: str = "",
) -> Drawing:
    from matplotlib.ticker import EngFormatter, LogLocator

    cells = pairs.cells
    means = {label: mean for label in cells.encoders if (mean := cells.overall(label)) is not None}
    known = [label for label in means if label in xs]
    if not known:
        why = "no encoder has both a mean over families and a known number of " + unit
        return Drawing(name, title, why=why)
    others = [label for label in means if label not in xs] if apart else []
    left = min(xs[label] for label in known) / 6
    places = {label: (xs.get(label, left), 100 * means[label]) for label in (*known, *others)}
    figure = blank(7.2, 4.6)
    axes = figure.add_subplot()
    axes.set_xscale("log")
    front = [known[i] for i in pareto([places[label] for label in known], better)]
    if len(front) > 1:
        where: Any = "pre" if better == "more" else "post"
        axes.step(
            *zip(*(places[label] for label in front), strict=True),
            where=where,
            color=MUTED,
            linewidth=1,
            linestyle="--",
            zorder=1,
        )
    bounds = dict(zip(cells.encoders, pairs.bounds(pairs.overall), strict=True))
    for label, (x, y) in places.items():
        words = f"{xs[label]:,.0f} {unit}" if label in xs else apart.replace("\n", " ")
        _point(
            axes,
            cells,
            label,
            (x, y),
            bounds[label],
            f"{named(cells, label)}: {number(means[label], bounds[label])}; {words}",
        )
    if others:
        axes.axvline(left * 2.4, color=RULE, linewidth=1)
        axes.text(
            left,
            1.01,
            apart,
            transform=axes.get_xaxis_transform(),
            ha="center",
            va="bottom",
            fontsize=7,
            color=MUTED,
        )
    wide = max(x for x, _ in places.values()) / min(x for x, _ in places.values())
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if wide > 300 else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_formatter("")
    axes.margins(x=0.12, y=0.1)
    axes.set_xlabel(axis)
    axes.set_ylabel(_SCORE)
    axes.grid(color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    _name_points(
        axes,
        {named(cells, label): place for label, place in places.items()},
        {named(cells, label) for label in front},
    )
    lost = [named(cells, label) for label in cells.encoders if label not in places]
    about = f"The dashed line joins the encoders that no other one beats in both ({better} {unit} and a higher mean); whiskers: 95 % interval."  # noqa: E501
    return Drawing(
        name,
        title,
        about + (f" Not shown, since a number is missing: {', '.join(lost)}." if lost else ""),
        figure,
    )


def _point(
    axes: "Axes",
    cells: Cells,
    label: str,
    place: tuple[float, float],
    bounds: tuple[float, float] | None,
    tip: str,
) -> None:
    """Draw an encoder, an untrained method as an orange triangle."""
    untrained = not cells.card(label).get("trained", True)
    color, marker = (UNTRAINED, "^") if untrained else (TRAINED, "o")
    if bounds:
        axes.plot([place[0]] * 2, [100 * end for end in bounds], color=color, linewidth=1, zorder=2)
    (point,) = axes.plot(
        *place, marker, color=color, markersize=7, markeredgecolor=SURFACE, zorder=3
    )
    told(point, tip)


def _name_points(axes: "Axes", places: Mapping[str, tuple[float, float]], first: set[str]) -> None:
    """Write each name beside its point where it covers no other name or point; one that fits nowhere is left to its tip."""
    from matplotlib.transforms import Bbox

    figure = axes.get_figure(root=True)
    if figure is None:
        return
    settle(figure)
    spots = {name: axes.transData.transform(place) for name, place in places.items()}
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in spots.values()]
    for name in sorted(places, key=lambda name: (name not in first, -places[name][1]))[
        :_MOST_NAMES
    ]:
        for dx, dy, side, level in _AROUND:
            text = axes.annotate(
                shortened(name),
                places[name],
                (dx, dy),
                textcoords="offset points",
                ha=side,
                va=level,
                fontsize=7.5,
                color=INK,
            )
            box = text.get_window_extent()
            if (
                axes.bbox.padded(4).containsx(box.x0)
                and axes.bbox.padded(4).containsx(box.x1)
                and not box.count_overlaps(taken)
            ):
                taken.append(box)
                break
            text.remove()


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
