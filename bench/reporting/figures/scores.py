"""The scores themselves: every cell as a colour, every family as bars, and mean ranks."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from bench import stats
from bench.reporting.comparison import Comparison
from bench.reporting.figures.drawing import (
    INK,
    LETTER,
    MUTED,
    SURFACE,
    TRAINED,
    UNTRAINED,
    Bounds,
    Drawing,
    add_tip,
    blank,
    caption,
    number,
    panels,
    shortened,
    styled,
)
from bench.reporting.table import MISSING

_MOST_NUMBERS = 14  # encoders; beyond that numbers would be too small to read
_MOST_TIPS = 1500  # cells; beyond that the file would be mostly tips
_NO_SCORE = "no task whose score says how good an encoder is"


@styled
def heatmap(c: Comparison) -> Drawing:
    """Return the scores of every cell as colours, task by encoder; a missing cell is white with a dash."""
    tasks = c.tasks[c.tasks.compared]
    if tasks.empty:
        return Drawing("heatmap", "Every task", why=_NO_SCORE)
    scores = 100 * c.scores.loc[tasks.index].to_numpy()
    titles = [shortened(title) for title in tasks.index]
    names = [shortened(title) for title in c.encoders.title]
    numbers = len(names) <= _MOST_NUMBERS
    height = 0.26 * max(len(titles), 4)
    width = max(len(names), 4) * (0.62 if numbers else 0.2)
    figure = blank(
        2.2 + LETTER * max(map(len, titles)) + width,
        0.9 + (0.65 if numbers else 1) * LETTER * max(map(len, names)) + height,
    )
    axes = figure.add_subplot()
    low = min(0.0, float(np.nanmin(scores)))
    image = axes.imshow(
        scores, cmap="cividis", aspect="auto", vmin=low, vmax=100, interpolation="none"
    )
    _write_numbers(axes, scores, low, numbers=numbers)
    slant: Any = {"rotation": 40} if numbers else {"rotation": 90, "va": "center"}
    axes.set_xticks(range(len(names)), names, ha="right", rotation_mode="anchor", **slant)
    axes.set_yticks(range(len(titles)), titles)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    _separate_families(axes, tasks.family.value_counts(sort=False).to_dict(), len(names))
    if scores.size <= _MOST_TIPS:
        _add_tips(axes, c, list(tasks.index))
    shrink, aspect = min(1.0, 4 / height), min(4.0, height) / 0.15
    bar = figure.colorbar(image, ax=axes, pad=0.02, anchor=(0, 1), shrink=shrink, aspect=aspect)
    bar.outline.set_visible(False)
    axes.set_title("Main score of every task x 100", loc="left")
    about = "Main score x 100 by colour; a cell without a result has a dash."
    return Drawing("heatmap", "Every task", about, figure)


def _write_numbers(axes: Axes, scores: Any, low: float, *, numbers: bool) -> None:  # noqa: ANN401 - an array
    for y, x in np.ndindex(*scores.shape):
        value = scores[y, x]
        if np.isnan(value):
            axes.text(x, y, MISSING, ha="center", va="center", color=MUTED)
        elif numbers:
            color = "#fafafa" if value < (low + 100) / 2 else "#111111"
            axes.text(x, y, f"{value:z.1f}", ha="center", va="center", fontsize=7.5, color=color)


def _separate_families(axes: Axes, counts: dict[str, int], width: int) -> None:
    """Set the families apart by white lines, and name each to the right of its rows."""
    top = 0
    for family, count in counts.items():
        if top:
            axes.axhline(top - 0.5, color=SURFACE, linewidth=3)
        middle = top + (count - 1) / 2
        axes.text(width - 0.4, middle, shortened(family), va="center", fontsize=8)
        top += count


def _add_tips(axes: Axes, c: Comparison, titles: list[str]) -> None:
    """Lay an invisible tile over every cell that tells its number, or why there is none."""
    for y, title in enumerate(titles):
        found = c.by_task[title]
        for x, (label, bounds) in enumerate(zip(c.labels, c.bounds(found), strict=True)):
            value = found.scores[x]
            words = c.absence(label, title) if np.isnan(value) else number(value, bounds)
            tile = Rectangle((x - 0.5, y - 0.5), 1, 1, color=SURFACE, alpha=0, linewidth=0)
            add_tip(tile, f"{c.encoders.at[label, 'title']}, {title}: {words}")
            axes.add_patch(tile)


@styled
def families(c: Comparison) -> Drawing:
    """Return the family means as bars with their intervals, one panel per family."""
    if not c.by_family:
        return Drawing("families", "Family means", why=_NO_SCORE)
    figure, axes = panels(list(c.by_family), list(c.encoders.title))
    for panel, (family, found) in zip(axes, c.by_family.items(), strict=True):
        for y, (label, bounds) in enumerate(zip(c.labels, c.bounds(found), strict=True)):
            value, encoder = float(found.scores[y]), c.encoders.loc[label]
            if np.isnan(value):
                have = c.have(label, family)
                panel.text(1, y, have, va="center", fontsize=7, color=MUTED)
            else:
                color = TRAINED if encoder.trained else UNTRAINED
                bar = _draw_bar(panel, y, value, bounds, color)
                add_tip(bar, f"{encoder.title}, {family}: {number(value, bounds)}")
    axes[0].set_xlim(min(0.0, *(panel.get_xlim()[0] for panel in axes), 0.0), 114)
    caption(figure, "Mean of main scores x 100; whiskers: 95 % interval")
    if not c.encoders.trained.all():
        kinds = {"trained, or nothing to train": TRAINED, "method, untrained": UNTRAINED}
        handles = [Patch(color=color, label=words) for words, color in kinds.items()]
        figure.legend(handles=handles, loc="outside lower right", fontsize=8, ncols=2)
    about = "Mean of each family's main scores x 100, with its 95 % interval where it is known."
    return Drawing("families", "Family means", about, figure)


def _draw_bar(panel: Axes, y: int, value: float, bounds: Bounds, color: str) -> Any:  # noqa: ANN401 - a patch
    low, high = (100 * end for end in bounds or (value, value))
    (bar,) = panel.barh(y, 100 * value, color=color, height=0.7)
    if bounds:
        middle, half = (low + high) / 2, (high - low) / 2
        panel.errorbar(middle, y, xerr=half, fmt="none", ecolor=INK, elinewidth=1, capsize=2)
    panel.text(max(high, 0) + 1.5, y, f"{100 * value:z.1f}", va="center", fontsize=7)
    return bar


@styled
def critical_difference(c: Comparison) -> Drawing:
    """Return the critical-difference diagram of Demšar (2006): bars join mean ranks that are not significantly different."""
    name, title = "critical-difference", "Critical difference of mean ranks"
    tasks, m = c.ranked.shape
    if m < 3 or tasks < 2:
        why = "it takes at least three encoders that have all of at least two common tasks"
        return Drawing(name, title, why=why)
    means = stats.mean_ranks(c.ranked.to_numpy())
    order = np.argsort(means, kind="stable")
    ranks = means[order].tolist()
    encoders = c.encoders.loc[c.ranked.columns[order]]
    names = [shortened(encoder) for encoder in encoders.title]
    colors = [TRAINED if trained else UNTRAINED for trained in encoders.trained]
    critical = stats.critical_difference(m, tasks)
    joined = cliques(ranks, critical)
    half, bars = (m + 1) // 2, 0.16 * len(joined)
    down = 0.5 + bars + 0.24 * half  # inches from the axis to the lowest name
    figure = blank(2 * LETTER * (max(map(len, names)) + 6) + 3.6, 1.0 + down)
    axes = figure.add_subplot()
    _draw_scale(axes, m, critical)
    for y, (first, last) in enumerate(joined):
        ends, height = [ranks[first] - 0.03, ranks[last] + 0.03], 0.22 + 0.16 * y
        axes.plot(ends, [height] * 2, color=INK, linewidth=3.5, solid_capstyle="butt")
    for i, (rank, encoder) in enumerate(zip(ranks, names, strict=True)):
        left = i < half
        height = 0.4 + bars + 0.24 * (i if left else m - 1 - i)
        end = 0.7 if left else m + 0.3
        (line,) = axes.plot([rank, rank, end], [0, height, height], color=colors[i], linewidth=1.2)
        add_tip(line, f"{encoder}: mean rank {rank:.3f} over {tasks} tasks")
        words = f"{encoder}  {rank:.2f} " if left else f" {rank:.2f}  {encoder}"
        axes.text(end, height, words, ha="right" if left else "left", va="center", fontsize=8)
    axes.set(ylim=(down, -0.75), xlim=(0.7, m + 0.3))
    about = (
        f"Mean rank over {tasks} tasks, 1 is best, among the {m} encoders that have all of them. Bars join "
        f"ranks that differ by less than the critical difference {critical:.2f} (Nemenyi, level 0.05): they "
        "are not significantly different."
    )
    return Drawing(name, title, about, figure)


def cliques(ranks: list[float], critical: float) -> list[tuple[int, int]]:
    """Return first and last index of every maximal run of sorted ranks within the critical difference."""
    found: list[tuple[int, int]] = []
    for first, rank in enumerate(ranks):
        within = [i for i, other in enumerate(ranks) if other - rank < critical or i == first]
        last = max(within)
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found


def _draw_scale(axes: Axes, most: int, critical: float) -> None:
    """Draw the axis of ranks on top, and the length of the critical difference above it."""
    axes.spines[["left", "bottom", "top"]].set_visible(False)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.plot([1, most], [0, 0], color=INK, linewidth=1, clip_on=False)
    for tick in MaxNLocator(10, integer=True).tick_values(1, most):
        if 1 <= tick <= most:
            axes.plot([tick, tick], [0, -0.07], color=INK, linewidth=1)
            axes.text(tick, -0.1, f"{tick:.0f}", ha="center", va="bottom", fontsize=8)
    ends = [1, 1 + critical]
    axes.plot(ends, [-0.48] * 2, color=INK, linewidth=1.5, marker="|", markersize=6, clip_on=False)
    axes.text(1 + critical / 2, -0.53, f"CD = {critical:.2f}", ha="center", va="bottom", fontsize=8)
