"""The critical-difference diagram of Demšar (2006): mean ranks, and which of them cannot be told apart."""

from typing import TYPE_CHECKING

from bench import stats
from bench.report.cells import named
from bench.report.figures.drawing import (
    INK,
    LETTER,
    TRAINED,
    UNTRAINED,
    Drawing,
    blank,
    shortened,
    styled,
    told,
)
from bench.report.pairs import Pairs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAME, _TITLE = "critical-difference", "Critical difference of mean ranks"


@styled
def critical_difference(pairs: Pairs) -> Drawing:
    """Return the mean ranks on a line, bars joining those that differ by less than the critical difference."""
    labels, scores = pairs.ranked
    tasks = len(scores)
    if len(labels) < 3 or tasks < 2:
        return Drawing(
            _NAME,
            _TITLE,
            why="it takes at least three encoders that have all of at least two common tasks",
        )
    ranks = stats.mean_ranks(scores).tolist()
    order = sorted(range(len(labels)), key=lambda i: ranks[i])
    names = [shortened(named(pairs.cells, labels[i])) for i in order]
    untrained = [not pairs.cells.card(labels[i]).get("trained", True) for i in order]
    sorted_ranks = [ranks[i] for i in order]
    critical = stats.critical_difference(len(labels), tasks)
    groups = cliques(sorted_ranks, critical)
    half = (len(names) + 1) // 2
    letters = LETTER * (max(map(len, names)) + 6)
    down = 0.5 + 0.16 * len(groups) + 0.24 * half  # inches from the axis to the lowest name
    figure = blank(2 * letters + 3.6, 1.0 + down)
    axes = figure.add_subplot()
    _draw_scale(axes, len(labels), critical)
    for y, (first, last) in enumerate(groups):
        height = 0.22 + 0.16 * y
        axes.plot(
            [sorted_ranks[first] - 0.03, sorted_ranks[last] + 0.03],
            [height] * 2,
            color=INK,
            linewidth=3.5,
            solid_capstyle="butt",
        )
    for i, (rank, name) in enumerate(zip(sorted_ranks, names, strict=True)):
        left = i < half
        height = 0.4 + 0.16 * len(groups) + 0.24 * (i if left else len(names) - 1 - i)
        end = 0.7 if left else len(labels) + 0.3
        (line,) = axes.plot(
            [rank, rank, end],
            [0, height, height],
            color=UNTRAINED if untrained[i] else TRAINED,
            linewidth=1.2,
        )
        told(line, f"{name}: mean rank {rank:.3f} over {tasks} tasks")
        words = f"{name}  {rank:.2f} " if left else f" {rank:.2f}  {name}"
        axes.text(end, height, words, ha="right" if left else "left", va="center", fontsize=8)
    axes.set(ylim=(down, -0.75), xlim=(0.7, len(labels) + 0.3))
    about = (
        f"Mean rank over {tasks} tasks, 1 is best, among the {len(labels)} encoders that have all of them. A bar joins encoders whose "
        f"ranks differ by less than the critical difference {critical:.2f} (Nemenyi, level 0.05): they are not told apart."
    )
    return Drawing(_NAME, _TITLE, about, figure)


def cliques(ranks: list[float], critical: float) -> list[tuple[int, int]]:
    """Return the first and last number of every largest run of sorted ranks that differ by less than the critical difference."""
    found: list[tuple[int, int]] = []
    for first, rank in enumerate(ranks):
        last = max(i for i, other in enumerate(ranks) if other - rank < critical or i == first)
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found


def _draw_scale(axes: "Axes", most: int, critical: float) -> None:
    """Draw the axis of ranks on top, and the length of the critical difference above it."""
    from matplotlib.ticker import MaxNLocator

    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_yticks([])
    axes.xaxis.tick_top()
    axes.plot([1, most], [0, 0], color=INK, linewidth=1, clip_on=False)
    axes.set_xticks(
        [tick for tick in MaxNLocator(10, integer=True).tick_values(1, most) if 1 <= tick <= most]
    )
    axes.spines["top"].set(visible=False)
    axes.tick_params(axis="x", direction="out", pad=1)
    axes.xaxis.set_ticks_position("none")
    for tick in axes.get_xticks():
        axes.plot([tick, tick], [0, -0.07], color=INK, linewidth=1)
        axes.text(tick, -0.1, f"{tick:.0f}", ha="center", va="bottom", fontsize=8)
    axes.set_xticks([])
    axes.plot(
        [1, 1 + critical],
        [-0.48, -0.48],
        color=INK,
        linewidth=1.5,
        marker="|",
        markersize=6,
        clip_on=False,
    )
    axes.text(1 + critical / 2, -0.53, f"CD = {critical:.2f}", ha="center", va="bottom", fontsize=8)
