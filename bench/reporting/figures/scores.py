"""The scores: differences to the backbone, family means, every task, and mean ranks."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter, MaxNLocator
from numpy.typing import NDArray

from bench import stats
from bench.reporting.comparison import MEAN, Comparison
from bench.reporting.figures.drawing import (
    INK,
    LETTER,
    MUTED,
    ROLES,
    RULE,
    SURFACE,
    Sketch,
    add_tip,
    blank,
    caption,
    dot,
    draw_rows,
    name_marks,
    number,
    panels,
    report_figure,
    shortened,
)
from bench.reporting.scores import budgets
from bench.reporting.summary import ROLES as ROLE_NAMES
from bench.reporting.summary import by_role
from bench.reporting.table import MISSING, score
from bench.task import decimal

_MOST_NUMBERS = 14  # encoders; beyond that numbers would be too small to read
_MOST_TIPS = 1500  # cells; beyond that the file would be mostly tips
_NO_SCORE = "no task whose score says how good an encoder is"
_FILLED = "significant"
_HOLLOW = "not significantly different"
_UNKNOWN = "significance not known"
_LEGEND = {MISSING: "no result", "*": _FILLED, "(": "the score, where the backbone has none"}


@report_figure("gains", "Difference to the untrained backbone", beside="summary")
def forest(c: Comparison) -> Sketch:
    """Return how much each encoder differs from the untrained backbone, a panel per family."""
    others = [label for label in by_role(c) if label != c.baseline]
    if c.baseline is None or not c.by_family or not others:
        return "no untrained backbone beside methods on it"
    rows, base = c.numbers(others), c.number[c.baseline]
    numbers = {MEAN: c.overall, **c.by_family}
    figure, axes = panels(list(numbers), _with_budgets(c, others), across=4)
    colors = [ROLES[role] for role in c.encoders.role[others]]
    drawn: list[float] = []
    for panel, (family, found) in zip(axes, numbers.items(), strict=True):
        _separate_roles(panel, c, others)
        gaps, p = stats.differences(found, rows, base), c.p_means[family][rows, base]
        tips = [f"{label} minus {c.baseline}, {family}" for label in others]
        drawn += draw_differences(panel, gaps, p, tips, colors)
    caption(figure, f"Mean score x 100 minus that of {c.baseline}; lines: 95 % interval")
    name_marks(figure, {**role_marks(c.encoders.role[others]), **significance_marks(drawn, MUTED)})
    about = f"Each encoder minus {c.baseline}, with the 95 % interval of the paired difference."
    return figure, about


def draw_differences(
    panel: Axes, gaps: stats.Estimates, p: stats.Array, tips: Sequence[str], colors: Sequence[str]
) -> list[float]:
    """Draw differences x 100, one per row, filled where they are significant.

    Args:
        panel: Where to draw.
        gaps: The differences (n,).
        p: Their corrected p-values (n,).
        tips: What each one is.
        colors: The colour of each.

    Returns:
        The p-values of those that are drawn, for ``significance_marks``.
    """
    panel.axvline(0, color=INK, linewidth=0.8)
    draw_rows(panel, gaps, tips, colors, hollow=(~(p < 1 - stats.LEVEL)).tolist())
    drawn: list[float] = p[np.isfinite(gaps.value)].tolist()
    return drawn


def _with_budgets(c: Comparison, labels: list[str]) -> list[str]:
    """Return the titles of encoders; trained ones of another budget than most with their own."""
    usual = next(iter(budgets(c)), [])
    count = EngFormatter(sep="", places=1)
    names = []
    for label in labels:
        encoder = c.encoders.loc[label]
        odd = usual and label not in usual and not pd.isna(encoder.tokens)
        names.append(f"{encoder.title} ({count(encoder.tokens)} tokens)" if odd else encoder.title)
    return names


def _separate_roles(panel: Axes, c: Comparison, labels: list[str]) -> None:
    for y in _changes(c, labels):
        panel.axhline(y - 0.5, color=RULE, linewidth=0.8)


def _changes(c: Comparison, labels: list[str]) -> list[int]:
    """Return the places at which the role changes."""
    roles = list(c.encoders.role[labels])
    return [i for i in range(1, len(roles)) if roles[i] != roles[i - 1]]


def role_marks(
    roles: Iterable[str], style: Callable[[str], dict[str, Any]] = dot
) -> dict[str, dict[str, Any]]:
    """Return the marks of roles of encoders, for a legend."""
    shown = set(roles)
    return {ROLE_NAMES[role]: style(color) for role, color in ROLES.items() if role in shown}


def significance_marks(p: Sequence[float], color: str) -> dict[str, dict[str, Any]]:
    """Return what filled and hollow markers stand for, of those that are drawn.

    Args:
        p: Corrected p-values of the differences that are drawn; NaN where none is known.
        color: Of the markers.
    """
    found = np.array(p)
    hollow = [_HOLLOW] * bool((found >= 1 - stats.LEVEL).any())
    hollow += [_UNKNOWN] * bool(np.isnan(found).any())
    marks = {_FILLED: dot(color)} if (found < 1 - stats.LEVEL).any() else {}
    return marks | ({", or ".join(hollow): dot(color, hollow=True)} if hollow else {})


@report_figure("families", "Family means", beside="families")
def families(c: Comparison) -> Sketch:
    """Return the family means with their intervals, a panel per family."""
    if not c.by_family:
        return _NO_SCORE
    labels = by_role(c)
    figure, axes = panels(list(c.by_family), list(c.encoders.title[labels]))
    colors = [ROLES[role] for role in c.encoders.role[labels]]
    numbers = c.numbers(labels)
    dashed: Any = {"color": ROLES["untrained"], "linewidth": 0.9, "linestyle": (0, (4, 3))}
    for panel, (family, found) in zip(axes, c.by_family.items(), strict=True):
        _separate_roles(panel, c, labels)
        if c.baseline is not None:
            panel.axvline(100 * found.scores[c.number[c.baseline]], **dashed)
        tips = [f"{title}, {family}" for title in c.encoders.title[labels]]
        draw_rows(panel, found.intervals.take(numbers), tips, colors)
        place: Any = {"transform": panel.get_yaxis_transform(), "va": "center", "fontsize": 7}
        for y, value in enumerate(found.scores[numbers].tolist()):
            panel.text(1.02, y, "" if np.isnan(value) else score(value), color=MUTED, **place)
        panel.margins(x=0.08)
    caption(figure, "Mean of main scores x 100; lines: 95 % interval")
    marks = role_marks(c.encoders.role[labels])
    line = ""
    if c.baseline is not None:
        marks[c.baseline] = dashed
        line = f" Dashed: {c.baseline}."
    name_marks(figure, marks)
    about = f"Mean of each family's main scores x 100, with its 95 % interval where known.{line}"
    return figure, about


@report_figure("heatmap", "Every task", beside="by-task")
def heatmap(c: Comparison) -> Sketch:
    """Return every task by encoder as colours: differences to the backbone, or scores without one.

    Stars are significant differences.
    """
    tasks = c.tasks[c.tasks.compared]
    if tasks.empty:
        return _NO_SCORE
    others = [label for label in by_role(c) if label != c.baseline]
    labels = others if c.baseline is None else [c.baseline, *others]
    shown = 100 * c.scores.loc[tasks.index, labels]
    texts = shown.map(lambda value: MISSING if np.isnan(value) else decimal(value, "z.1f"))
    if c.baseline is not None and others:
        texts, shown = _minus_baseline(c, shown, texts)
    wide = len(labels) > _MOST_NUMBERS
    norm, cmap, about = _scale(c, shown)
    height = 0.26 * max(len(tasks), 4)
    figure, axes = _empty_map(list(tasks.index), list(c.encoders.title[labels]), wide=wide)
    image = axes.imshow(shown, cmap=cmap, norm=norm, aspect="auto", interpolation="none")
    if not wide:
        _write_numbers(axes, image, shown, texts)
    _separate_families(axes, tasks.family.value_counts(sort=False).to_dict(), len(labels))
    for x in _changes(c, labels):
        axes.axvline(x - 0.5, color=SURFACE, linewidth=3)
    if shown.size <= _MOST_TIPS:
        _add_tips(axes, c, shown)
    shrink, aspect = min(1.0, 4 / height), min(4.0, height) / 0.15
    bar = figure.colorbar(image, ax=axes, pad=0.02, anchor=(0, 1), shrink=shrink, aspect=aspect)
    bar.outline.set_visible(False)
    axes.set_title(about, loc="left")
    written = "".join(texts.to_numpy().ravel()) if not wide else ""
    legend = [f"{mark}: {words}" for mark, words in _LEGEND.items() if mark in written]
    return figure, "; ".join([about, *legend]) + "."


def _empty_map(tasks: list[str], encoders: list[str], *, wide: bool) -> tuple[Figure, Axes]:
    """Return a figure with a row per task and a column per encoder; narrow columns of many."""
    rows, names = list(map(shortened, tasks)), list(map(shortened, encoders))
    column, turn = (0.2, 1.0) if wide else (0.62, 0.65)
    width = 2.2 + LETTER * max(map(len, rows)) + column * max(len(names), 4)
    height = 1.1 + LETTER * max(map(len, names)) * turn + 0.26 * max(len(rows), 4)
    figure = blank(width, height)
    axes = figure.add_subplot()
    slant: Any = {"rotation": 90, "va": "center"} if wide else {"rotation": 40}
    axes.set_xticks(range(len(names)), names, ha="right", rotation_mode="anchor", **slant)
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure, axes


def _minus_baseline(
    c: Comparison, scores: pd.DataFrame, texts: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return texts and values of differences; the baseline's own column has its scores in text."""
    base = scores[c.baseline]
    gaps = scores.sub(base, axis=0)
    i = c.number[str(c.baseline)]
    for label in gaps.columns[1:]:
        for title, gap in gaps[label].items():
            if not np.isnan(gap):
                p = c.p_tasks[str(title)][i, c.number[label]]
                texts.at[title, label] = decimal(gap, "+z.1f") + "*" * bool(p < 1 - stats.LEVEL)
            elif not np.isnan(scores.at[title, label]):
                texts.at[title, label] = f"({texts.at[title, label]})"
    return texts, gaps


def _scale(c: Comparison, shown: pd.DataFrame) -> tuple[Normalize, str, str]:
    """Return the colour scale, its map, and what is shown."""
    values = shown.to_numpy()
    if c.baseline is None or shown.shape[1] == 1:
        low = min(0.0, float(np.nanmin(values)))
        return Normalize(low, 100), "cividis", "Main score x 100"
    known = np.abs(values[np.isfinite(values)])
    widest = float(known.max(initial=1.0))
    norm = TwoSlopeNorm(0, -widest, widest)
    return norm, "RdBu", f"Main score x 100 of {c.baseline}, others minus it"


def _write_numbers(axes: Axes, image: AxesImage, shown: pd.DataFrame, texts: pd.DataFrame) -> None:
    for y, x in np.ndindex(*shown.shape):
        value = shown.iat[y, x]
        light = 1.0
        if np.isfinite(value):
            red, green, blue, _ = image.cmap(image.norm(value))
            light = 0.3 * red + 0.6 * green + 0.1 * blue
        color = "#111111" if light > 0.5 else "#fafafa"
        axes.text(x, y, texts.iat[y, x], ha="center", va="center", fontsize=7.5, color=color)


def _separate_families(axes: Axes, counts: dict[str, int], width: int) -> None:
    """Separate the families by white lines, and name each to the right of its rows."""
    top = 0
    for family, count in counts.items():
        if top:
            axes.axhline(top - 0.5, color=SURFACE, linewidth=3)
        middle = top + (count - 1) / 2
        axes.text(width - 0.4, middle, shortened(family), va="center", fontsize=8)
        top += count


def _add_tips(axes: Axes, c: Comparison, shown: pd.DataFrame) -> None:
    """Lay an invisible tile with a tip over every cell: its score, or why there is none."""
    for y, title in enumerate(map(str, shown.index)):
        found = c.by_task[title]
        bounds = found.intervals.bounds()
        for x, label in enumerate(shown.columns):
            i = c.number[label]
            value = found.scores[i]
            words = c.absence(label, title) if np.isnan(value) else number(value, bounds[i])
            tile = Rectangle((x - 0.5, y - 0.5), 1, 1, color=SURFACE, alpha=0, linewidth=0)
            add_tip(tile, f"{c.encoders.at[label, 'title']}, {title}: {words}")
            axes.add_patch(tile)


@report_figure("ranks", "Mean ranks", beside="ranks")
def mean_ranks(c: Comparison) -> Sketch:
    """Return the mean ranks on an axis; bars join neighbours of which no two differ significantly.

    Drawn like the critical-difference diagram of Demšar (2006), but with the report's own test in
    place of Nemenyi's, so that no figure contradicts a table.
    """
    tasks, m = c.ranked.shape
    if m < 3 or tasks < 2:
        return "it takes at least three encoders that have all of at least two common tasks"
    by_label = c.mean_ranks(c.labels)
    encoders = c.encoders.loc[sorted(by_label, key=by_label.__getitem__)]
    ranks = [by_label[label] for label in encoders.index]
    numbers = c.numbers(encoders.index)
    names = [shortened(title) for title in encoders.title]
    joined = cliques(c.p_means[MEAN][np.ix_(numbers, numbers)] >= 1 - stats.LEVEL)
    half, bars = (m + 1) // 2, 0.16 * len(joined)
    down = 0.5 + bars + 0.24 * half  # inches from the axis to the lowest name
    figure = blank(2 * LETTER * (max(map(len, names)) + 6) + 3.6, 0.5 + down)
    axes = figure.add_subplot()
    _draw_ranks(axes, m)
    for y, (first, last) in enumerate(joined):
        ends, height = [ranks[first] - 0.03, ranks[last] + 0.03], 0.22 + 0.16 * y
        axes.plot(ends, [height] * 2, color=INK, linewidth=3.5, solid_capstyle="butt")
    for i, (rank, encoder) in enumerate(zip(ranks, names, strict=True)):
        left = i < half
        height = 0.4 + bars + 0.24 * (i if left else m - 1 - i)
        end = 0.7 if left else m + 0.3
        color = ROLES[encoders.role.iloc[i]]
        (line,) = axes.plot([rank, rank, end], [0, height, height], color=color, linewidth=1.2)
        add_tip(line, f"{encoder}: mean rank {decimal(rank, '.3f')} over {tasks} tasks")
        shown = decimal(rank, ".2f")
        words = f"{encoder}  {shown} " if left else f" {shown}  {encoder}"
        axes.text(end, height, words, ha="right" if left else "left", va="center", fontsize=8)
    axes.set(ylim=(down, -0.3), xlim=(0.7, m + 0.3))
    name_marks(figure, role_marks(encoders.role, lambda color: {"color": color}))
    about = f"Mean rank over {tasks} tasks, 1 is best, of the {m} encoders that have all of them."
    if joined:
        about += f" Bars join neighbours of which no two differ significantly in the {MEAN}."
    return figure, about


def cliques(same: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return the ends of every maximal run of neighbours of which all pairs are the same.

    Args:
        same: Whether two encoders do not differ significantly, (m, m), in the order of their ranks.
    """
    found: list[tuple[int, int]] = []
    for first in range(len(same)):
        last = first
        while last + 1 < len(same) and same[first : last + 1, last + 1].all():
            last += 1
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found


def _draw_ranks(axes: Axes, most: int) -> None:
    """Draw the axis of ranks on top."""
    axes.spines[["left", "bottom", "top"]].set_visible(False)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.plot([1, most], [0, 0], color=INK, linewidth=1, clip_on=False)
    for tick in MaxNLocator(10, integer=True).tick_values(1, most):
        if 1 <= tick <= most:
            axes.plot([tick, tick], [0, -0.07], color=INK, linewidth=1)
            axes.text(tick, -0.1, f"{tick:.0f}", ha="center", va="bottom", fontsize=8)
