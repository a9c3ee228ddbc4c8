"""The map of the texts: a dot a text, a colour and a shape a cluster, and its key words where it lies."""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.clusters.grouping import Cluster, Grouping
from bench.reporting.figures.drawing import (
    COLORS,
    INK,
    MARKERS,
    MUTED,
    RULE,
    SURFACE,
    Drawing,
    blank,
    settle,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

_SIDE = 5.6  # inches of a panel
_ACROSS = 3  # panels side by side
_LABELLED = 24  # clusters; more names would not find room
_MARGIN = 6  # dots round a label's letters: its padding, its line, and a gap
_STEPS = 400

Boxes = NDArray[np.float64]
"""Middle and half size of labels in dots: (m, 4) as x, y, half width, half height."""


def picture(groupings: Sequence[Grouping]) -> Drawing:
    """Return the map of each grouping, side by side, one below the other beyond three."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Glyph .* missing"
        )  # a box stands for letters that the font does not have
        drawing = _drawn(groupings)
        assert drawing.png  # noqa: S101 - rendered while the warnings are off, and kept
    return drawing


@styled
def _drawn(groupings: Sequence[Grouping]) -> Drawing:
    across = min(len(groupings), _ACROSS)
    down = -(-len(groupings) // across)
    figure = blank(_SIDE * across, (_SIDE + 0.2) * down)
    grid = figure.subplots(down, across, squeeze=False)
    labels = [_draw(axes, grouping) for axes, grouping in zip(grid.flat, groupings, strict=False)]
    for axes in grid.flat[len(groupings) :]:
        axes.set_visible(False)
    settle(figure)
    for axes, grouping, texts in zip(grid.flat, groupings, labels, strict=False):
        _spread(figure, axes, grouping, texts)
    return Drawing(
        "clusters", "Map of the texts", "A dot is a text; near ones were told to be alike.", figure
    )


def _draw(axes: "Axes", grouping: Grouping) -> "list[Text]":
    """Draw the dots of a grouping, and return the labels, each in the middle of its cluster."""
    size = float(np.clip(4000 / len(grouping.places), 5, 36))
    labels = []
    for number, cluster in enumerate(grouping.clusters):
        places = grouping.places[list(cluster.members)]
        color, marker = COLORS[number % len(COLORS)], MARKERS[number // len(COLORS) % len(MARKERS)]
        axes.scatter(
            places[:, 0], places[:, 1], s=size, color=color, marker=marker, alpha=0.75, linewidths=0
        )
        if number < _LABELLED:
            labels.append(_label(axes, number, cluster, _middle(grouping, cluster), color))
    axes.set_title(
        _wrapped(grouping.instruction or "No instruction", 52), loc="left", fontsize=10.5
    )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color(RULE)
    axes.margins(0.06)
    return labels


def _label(
    axes: "Axes", number: int, cluster: Cluster, place: tuple[float, float], color: str
) -> "Text":
    words = ", ".join(cluster.name[:3]) or "no words"
    box = {
        "boxstyle": "round,pad=0.25",
        "facecolor": SURFACE,
        "edgecolor": color,
        "linewidth": 1.2,
        "alpha": 0.93,
    }
    return axes.text(
        *place,
        f"{number + 1}  {_wrapped(words, 22)}",
        ha="center",
        va="center",
        fontsize=7.5,
        color=INK,
        bbox=box,
        zorder=5,
    )


def _middle(grouping: Grouping, cluster: Cluster) -> tuple[float, float]:
    """Return the text of a cluster that lies nearest to the others on the map: a cluster in two parts is named at one of them."""
    places = grouping.places[list(cluster.members)].astype(np.float64)
    far = np.abs(places - np.median(places, axis=0)).sum(axis=1)
    x, y = places[int(far.argmin())]
    return float(x), float(y)


def _wrapped(text: str, width: int) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width, max_lines=3, placeholder=" …"))


def _spread(figure: "Figure", axes: "Axes", grouping: Grouping, labels: "Sequence[Text]") -> None:
    """Move labels that lie on each other apart, within the panel, and tie each to the middle of its cluster."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    extents = [label.get_bbox_patch().get_window_extent(renderer) for label in labels]  # type: ignore[union-attr]
    boxes = np.array(
        [
            [(e.x0 + e.x1) / 2, (e.y0 + e.y1) / 2, e.width / 2 + _MARGIN, e.height / 2 + _MARGIN]
            for e in extents
        ]
    )
    frame = axes.get_window_extent(renderer)
    moved = spread(boxes, (frame.x0, frame.y0, frame.x1, frame.y1))
    back = axes.transData.inverted()
    axes.autoscale(enable=False)
    for label, box, old, cluster in zip(labels, moved, boxes, grouping.clusters, strict=False):
        middle = _middle(grouping, cluster)
        x, y = back.transform(box[:2])
        label.set_position((x, y))
        if np.abs(box[:2] - old[:2]).max() > 4:
            axes.plot([middle[0], x], [middle[1], y], color=MUTED, linewidth=0.8, zorder=4)


def spread(boxes: Boxes, frame: tuple[float, float, float, float]) -> Boxes:
    """Return the boxes pushed apart until none lies on another, as far as the frame has room.

    Args:
        boxes: As they would like to be.
        frame: Left, bottom, right and top that none crosses.
    """
    left, bottom, right, top = frame
    made = boxes.copy()
    for _ in range(_STEPS):
        gaps = made[:, None, :2] - made[None, :, :2]
        over = (
            made[:, None, 2:] + made[None, :, 2:] - np.abs(gaps)
        )  # how far two boxes reach into each other, in x and y
        hit = (over > 0).all(axis=2) & ~np.eye(len(made), dtype=bool)
        if not hit.any():
            break
        order = np.arange(len(made))
        sign = np.where(
            gaps == 0, np.sign(order[:, None] - order[None, :])[..., None], np.sign(gaps)
        )
        across = over[..., 0] < over[..., 1]  # apart the shorter way
        push = (
            np.stack([np.where(across, over[..., 0], 0), np.where(across, 0, over[..., 1])], axis=2)
            * sign
            * hit[..., None]
        )
        made[:, :2] += push.sum(axis=1) * 0.5
        made[:, 0] = np.clip(
            made[:, 0], left + made[:, 2], np.maximum(right - made[:, 2], left + made[:, 2])
        )
        made[:, 1] = np.clip(
            made[:, 1], bottom + made[:, 3], np.maximum(top - made[:, 3], bottom + made[:, 3])
        )
    return made
