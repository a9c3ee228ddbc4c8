"""The scores themselves: every cell as a colour, every family as bars."""

from typing import TYPE_CHECKING, Any

import numpy as np

from bench.report.cells import Cells, grouped, named
from bench.report.figures.drawing import (
    INK,
    LETTER,
    MUTED,
    SURFACE,
    TRAINED,
    UNTRAINED,
    Drawing,
    blank,
    number,
    panels,
    shortened,
    styled,
    told,
)
from bench.report.pairs import Pairs
from bench.report.table import MISSING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_NUMBERS = 14  # encoders; beyond that numbers would be too small to read
_MOST_TIPS = 1500  # cells; beyond that the file would be mostly tips


@styled
def heatmap(pairs: Pairs) -> Drawing:
    """Return the scores of every cell as colours, task by encoder; a missing cell is left white with a dash."""
    cells = pairs.cells
    if not cells.compared:
        return Drawing(
            "heatmap", "Every task", why="no task whose score says how good an encoder is"
        )
    columns, encoders = cells.compared, cells.encoders
    scores = np.array([pairs.by_column[column].scores for column in columns]) * 100
    titles, names = (
        [shortened(cells.title(c)) for c in columns],
        [shortened(named(cells, label)) for label in encoders],
    )
    numbers = len(encoders) <= _MOST_NUMBERS
    height = 0.26 * max(len(columns), 4)
    figure = blank(
        2.2 + LETTER * max(map(len, titles)) + max(len(encoders), 4) * (0.62 if numbers else 0.2),
        0.9 + (0.65 if numbers else 1) * LETTER * max(map(len, names)) + height,
    )
    axes = figure.add_subplot()
    low = min(0.0, float(np.nanmin(scores)))
    image = axes.imshow(
        scores, cmap="cividis", aspect="auto", vmin=low, vmax=100, interpolation="none"
    )
    _write_numbers(axes, scores, low, numbers=numbers)
    slant: Any = {"rotation": 40} if numbers else {"rotation": 90, "va": "center"}
    axes.set_xticks(range(len(encoders)), names, ha="right", rotation_mode="anchor", **slant)
    axes.set_yticks(range(len(columns)), titles)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    _bracket_families(axes, cells)
    if scores.size <= _MOST_TIPS:
        _tell(axes, pairs)
    bar = figure.colorbar(
        image,
        ax=axes,
        pad=0.02,
        anchor=(0, 1),
        shrink=min(1.0, 4 / height),
        aspect=min(4.0, height) / 0.15,
    )
    bar.outline.set_visible(False)
    axes.set_title("Main score of every task x 100", loc="left")
    return Drawing(
        "heatmap",
        "Every task",
        "Main score x 100 by colour; a cell without a result has a dash.",
        figure,
    )


def _write_numbers(
    axes: "Axes", scores: np.ndarray[Any, Any], low: float, *, numbers: bool
) -> None:
    for y, x in np.ndindex(*scores.shape):
        if np.isnan(scores[y, x]):
            axes.text(x, y, MISSING, ha="center", va="center", color=MUTED)
        elif numbers:
            color = "#fafafa" if scores[y, x] < (low + 100) / 2 else "#111111"
            axes.text(
                x, y, f"{scores[y, x]:z.1f}", ha="center", va="center", fontsize=7.5, color=color
            )


def _bracket_families(axes: "Axes", cells: Cells) -> None:
    """Set the families apart by lines of the ground's colour, and name each to the right of its rows."""
    top = 0
    for family, count in grouped(cells.compared):
        if top:
            axes.axhline(top - 0.5, color=SURFACE, linewidth=3)
        axes.text(
            len(cells.encoders) - 0.4,
            top + (count - 1) / 2,
            shortened(family),
            va="center",
            fontsize=8,
        )
        top += count


def _tell(axes: "Axes", pairs: Pairs) -> None:
    """Lay an invisible tile over every cell that tells its number, or why there is none."""
    from matplotlib.patches import Rectangle

    cells = pairs.cells
    for y, column in enumerate(cells.compared):
        found = pairs.by_column[column]
        for x, (label, value, bounds) in enumerate(
            zip(cells.encoders, found.scores.tolist(), pairs.bounds(found), strict=True)
        ):
            tile = Rectangle((x - 0.5, y - 0.5), 1, 1, color=SURFACE, alpha=0, linewidth=0)
            words = cells.absence(label, column) if np.isnan(value) else number(value, bounds)
            told(tile, f"{named(cells, label)}, {cells.title(column)}: {words}")
            axes.add_patch(tile)


@styled
def families(pairs: Pairs) -> Drawing:
    """Return the family means as bars with their intervals, a panel a family."""
    cells = pairs.cells
    if not pairs.by_family:
        return Drawing(
            "families", "Family means", why="no task whose score says how good an encoder is"
        )
    untrained = [not cells.card(label).get("trained", True) for label in cells.encoders]
    figure, axes = panels(list(pairs.by_family), [named(cells, label) for label in cells.encoders])
    for panel, (family, found) in zip(axes, pairs.by_family.items(), strict=True):
        for y, (value, bounds) in enumerate(
            zip(found.scores.tolist(), pairs.bounds(found), strict=True)
        ):
            label = cells.encoders[y]
            if np.isnan(value):
                panel.text(
                    1,
                    y,
                    "{} of {} tasks".format(*cells.have(label, family)),
                    va="center",
                    fontsize=7,
                    color=MUTED,
                )
            else:
                tip = f"{named(cells, label)}, {family}: {number(value, bounds)}"
                _bar(panel, y, value, bounds, color=UNTRAINED if untrained[y] else TRAINED, tip=tip)
    axes[0].set_xlim(min(0.0, *(panel.get_xlim()[0] for panel in axes), 0.0), 114)
    figure.suptitle(
        "Mean of main scores x 100; whiskers: 95 % interval", fontsize=9, x=0.01, ha="left"
    )
    if any(untrained):
        _tell_colors(figure)
    about = "Mean of each family's main scores x 100, with its 95 % interval where tasks were measured so that one is known."
    return Drawing("families", "Family means", about, figure)


def _tell_colors(figure: "Figure") -> None:
    from matplotlib.patches import Patch

    handles = [
        Patch(color=TRAINED, label="trained, or nothing to train"),
        Patch(color=UNTRAINED, label="method, untrained"),
    ]
    figure.legend(handles=handles, loc="outside lower right", fontsize=8, ncols=2)


def _bar(
    panel: "Axes", y: int, value: float, bounds: tuple[float, float] | None, *, color: str, tip: str
) -> None:
    """Draw a mean with its interval and its number."""
    low, high = (100 * end for end in bounds or (value, value))
    (bar,) = panel.barh(y, 100 * value, color=color, height=0.7)
    told(bar, tip)
    if bounds:
        panel.errorbar(
            (low + high) / 2,
            y,
            xerr=(high - low) / 2,
            fmt="none",
            ecolor=INK,
            elinewidth=1,
            capsize=2,
        )
    panel.text(max(high, 0) + 1.5, y, f"{100 * value:z.1f}", va="center", fontsize=7)
