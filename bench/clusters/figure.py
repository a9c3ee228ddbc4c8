"""The map of the texts: a dot per text, a colour and shape per cluster, and its key words."""

import warnings
from collections.abc import Sequence
from itertools import product
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

_PALETTE = (*COLORS, "#882255", "#117733", "#999933", "#332288", "#aa4499")
"""A colour per cluster: those of other figures, then Tol's muted ones; beyond them, shapes."""

_SIDE = 5.6  # inches of a panel
_ACROSS = 3  # panels side by side
_LABELLED = 24  # clusters with a label; there is no room for more
_MARGIN = 6  # pixels around a label: its padding, its line, and a gap
_STEPS = 400

Boxes = NDArray[np.float64]
"""Centre and half size of labels in pixels: (m, 4) as x, y, half width, half height."""


def picture(groupings: Sequence[Grouping]) -> Drawing:
    """Return the map of each grouping, three in a row."""
    with warnings.catch_warnings():
        # Letters that the font lacks are drawn as a box.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        drawing = _draw_all(groupings)
        _ = drawing.png, drawing.svg  # rendered and cached while the warnings are off
    return drawing


@styled
def _draw_all(groupings: Sequence[Grouping]) -> Drawing:
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
    about = "Each dot is a text; nearby dots have similar embeddings."
    return Drawing("clusters", "Map of the texts", about, figure)


def _draw(axes: "Axes", grouping: Grouping) -> "list[Text]":
    """Draw the dots of a grouping, and return the labels, each at the centre of its cluster."""
    size = float(np.clip(4000 / len(grouping.places), 5, 36))
    labels = []
    for number, cluster in enumerate(grouping.clusters):
        places = grouping.places[list(cluster.members)]
        turn, place = divmod(number, len(_PALETTE))
        color, marker = _PALETTE[place], MARKERS[turn % len(MARKERS)]
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
    """Return the place of the text nearest to the median, so that the label is on a dot."""
    places = grouping.places[list(cluster.members)].astype(np.float64)
    far = np.abs(places - np.median(places, axis=0)).sum(axis=1)
    x, y = places[int(far.argmin())]
    return float(x), float(y)


def _wrapped(text: str, width: int) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width, max_lines=3, placeholder=" …"))


def _spread(figure: "Figure", axes: "Axes", grouping: Grouping, labels: "Sequence[Text]") -> None:
    """Move overlapping labels apart, and connect each to its cluster."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    extents = [label.get_bbox_patch().get_window_extent(renderer) for label in labels]  # type: ignore[union-attr]
    corners = np.array([extent.get_points() for extent in extents])  # (n, low and high, x and y)
    centres = corners.mean(axis=1)
    sizes = np.ptp(corners, axis=1) / 2 + _MARGIN
    boxes = np.hstack([centres, sizes])
    frame = axes.get_window_extent(renderer)
    dots = axes.transData.transform(grouping.places)
    edges = (frame.x0, frame.y0, frame.x1, frame.y1)
    moved = spread(avoid(boxes, dots, edges), edges)
    back = axes.transData.inverted()
    axes.autoscale(enable=False)
    for label, box, old, cluster in zip(labels, moved, boxes, grouping.clusters, strict=False):
        middle = _middle(grouping, cluster)
        x, y = back.transform(box[:2])
        label.set_position((x, y))
        if np.abs(box[:2] - old[:2]).max() > 4:
            axes.plot([middle[0], x], [middle[1], y], color=MUTED, linewidth=0.8, zorder=4)


def avoid(
    boxes: Boxes, dots: NDArray[np.float64], frame: tuple[float, float, float, float]
) -> Boxes:
    """Return each box at the near place within the frame where it covers fewest dots and labels.

    Args:
        boxes: Their preferred places.
        dots: What they should not cover, (n, 2).
        frame: Left, bottom, right and top of the panel.
    """
    left, bottom, right, top = frame
    steps = np.array(list(product((0, -1, 1, -2, 2), (0, -1, 1, -2, 2, -3, 3))))
    made = boxes.copy()
    for i, box in enumerate(boxes):
        size = box[2:]
        low, high = np.array([left, bottom]) + size, np.array([right, top]) - size
        centres = np.clip(box[:2] + steps * size, low, np.maximum(high, low))
        covered = (np.abs(dots - centres[:, None]) < size).all(axis=2).sum(axis=1)
        near = np.abs(made[:i, None, :2] - centres) < made[:i, None, 2:] + size
        covered += len(dots) * near.all(axis=2).sum(axis=0)
        far = np.abs(centres - box[:2]).sum(axis=1) / size.sum()
        made[i, :2] = centres[int((covered + 0.5 * far).argmin())]
    return made


def spread(boxes: Boxes, frame: tuple[float, float, float, float]) -> Boxes:
    """Return the boxes pushed apart until none overlaps, as far as the frame has room.

    Args:
        boxes: Their preferred places.
        frame: Left, bottom, right and top of the panel.
    """
    left, bottom, right, top = frame
    made = boxes.copy()
    for _ in range(_STEPS):
        gaps = made[:, None, :2] - made[None, :, :2]
        over = made[:, None, 2:] + made[None, :, 2:] - np.abs(gaps)  # overlap in x and y
        hit = (over > 0).all(axis=2) & ~np.eye(len(made), dtype=bool)
        if not hit.any():
            break
        order = np.arange(len(made))
        sign = np.where(
            gaps == 0, np.sign(order[:, None] - order[None, :])[..., None], np.sign(gaps)
        )
        shorter = over == over.min(axis=2, keepdims=True)  # push in the direction of less overlap
        shorter[..., 0] &= ~shorter[..., 1]
        push = over * shorter * sign * hit[..., None]
        made[:, :2] += push.sum(axis=1) * 0.5
        low = np.array([left, bottom]) + made[:, 2:]
        high = np.array([right, top]) - made[:, 2:]
        made[:, :2] = np.clip(made[:, :2], low, np.maximum(high, low))
    return made
