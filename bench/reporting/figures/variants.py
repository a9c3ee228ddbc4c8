"""Ablations: what each changed setting of a recipe does, and scores over the values of one setting."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench import stats
from bench.reporting.comparison import Comparison
from bench.reporting.figures.drawing import (
    INK,
    MUTED,
    SURFACE,
    TRAINED,
    Bounds,
    Drawing,
    add_tip,
    caption,
    number,
    panels,
    shortened,
    side_by_side,
    styled,
)
from bench.reporting.variants import Variants, gaps, groups

_MOST_TASKS = 6  # panels; of more tasks the means of their families are drawn
_MOST_TICKS = 7


@styled
def ablations(c: Comparison) -> Drawing:
    """Return the difference of each variant of a recipe from the reference, a panel per family, a row per variant."""
    name, title = "variants", "Variants of recipes"
    found = groups(c)
    if not found or not c.by_family:
        why = "no two encoders that one method trained at one budget"
        return Drawing(name, title, why=why)
    names = [
        f"{group.method}: {change}"
        for group in found
        for change in list(group.changes.values())[1:]
    ]
    figure, axes = panels(list(c.by_family), names)
    for panel, (family, scores) in zip(axes, c.by_family.items(), strict=True):
        estimates = [gaps(c, scores, group.labels) for group in found]
        values = np.concatenate([each.value for each in estimates])
        bounds = [ends for each in estimates for ends in _bounds(each)]
        for y, (value, ends) in enumerate(zip(values.tolist(), bounds, strict=True)):
            if np.isnan(value):
                panel.text(0, y, "  not measured", va="center", fontsize=7, color=MUTED)
                continue
            (dot,) = panel.plot(100 * value, y, "o", color=TRAINED, markersize=5)
            add_tip(dot, f"{names[y]}, {family}: {number(value, ends)}")
            if ends:
                panel.hlines(y, 100 * ends[0], 100 * ends[1], color=TRAINED, linewidth=1.4)
        panel.axvline(0, color=INK, linewidth=0.8)
    caption(figure, "Ablation effects on family means x 100; lines: 95 % interval")
    references = "; ".join(f"{group.method}: {group.labels[0]}" for group in found)
    return Drawing(name, title, f"Each minus its reference ({references}).", figure)


def _bounds(estimates: stats.Estimates) -> list[Bounds]:
    ends = zip(estimates.low.tolist(), estimates.high.tolist(), strict=True)
    return [None if np.isnan(low) else (low, high) for low, high in ends]


def sweeps(c: Comparison) -> tuple[Drawing, ...]:
    """Return a figure for each numeric setting of which a group of variants has at least three values."""
    found = [
        (group, setting)
        for group in groups(c)
        for setting in group.sweeps
        if _shown(c, group, setting)
    ]
    if not found:
        why = (
            "no task on which a method was run with three values of a number among its recipe's settings, "
            "all else the same"
        )
        return (Drawing("sweep", "Scores over a setting", why=why),)
    stems = [re.sub("[^a-z0-9]+", "-", setting.lower()).strip("-")[:40] for _, setting in found]
    counts, drawings = Counter(stems), []
    for i, (group, setting) in enumerate(found):
        name = f"sweep-{stems[i]}"
        if counts[stems[i]] > 1:
            name += f"-{stems[:i].count(stems[i]) + 1}"
        drawings.append(sweep(c, group, setting, name))
    return tuple(drawings)


@styled
def sweep(c: Comparison, group: Variants, setting: str, name: str) -> Drawing:
    """Return the scores over the values of a setting, a panel per task, or per family where there are many tasks."""
    shown, labels = _shown(c, group, setting), group.sweeps[setting]
    reference = group.labels[0]
    figure, axes = side_by_side(list(shown))
    for panel, (title, (words, found)) in zip(axes, shown.items(), strict=True):
        _draw_sweep(panel, c, found, reference, list(labels.values()), title)
        ticks = range(0, len(labels), -(-len(labels) // _MOST_TICKS))
        values = list(labels)
        panel.set_xticks(ticks, [f"{values[i]:g}" for i in ticks])
        panel.set(xlabel=shortened(setting), ylabel=words)
    caption(figure, f"{shortened(group.method)} at {group.budget:,} training tokens")
    whiskers = any(found.parts for _, found in shown.values())
    _name_marks(figure, reference, whiskers=whiskers)
    about = (
        f"Main scores x 100 over {setting}, at equal distances; nothing else was changed. Whiskers, where known: "
        f"95 % interval of the difference from {reference} (ring), around its score; one that crosses the dashed "
        "line is not significant."
    )
    return Drawing(name, f"{group.method}: scores over {setting}", about, figure)


def _shown(c: Comparison, group: Variants, setting: str) -> Mapping[str, tuple[str, stats.Sampled]]:
    """Return by title what is drawn over a setting, with the words beside its axis: tasks run with all values."""
    labels = list(group.sweeps[setting].values())
    scores = c.scores.loc[c.tasks.compared, labels].dropna()
    tasks = c.tasks.loc[scores.index]
    if len(tasks) <= _MOST_TASKS:
        return {
            str(title): (f"{metric} x 100", c.by_task[str(title)])
            for title, metric in tasks.metric.items()
        }
    counted = tasks[~tasks.superseded]
    return {
        f"{family} ({len(own)} tasks)": (
            "mean score x 100",
            stats.mean_of([c.by_task[title] for title in own.index]),
        )
        for family, own in counted.groupby("family")
    }


def _draw_sweep(
    panel: Axes,
    c: Comparison,
    found: stats.Sampled,
    reference: str,
    labels: Sequence[str],
    title: str,
) -> None:
    start = float(found.scores[c.number[reference]])
    estimates = gaps(c, found, [reference, *labels])
    values = estimates.value.tolist()
    panel.axhline(100 * start, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
    panel.plot([100 * (start + value) for value in values], color=TRAINED, linewidth=1.2)
    for x, (label, value, ends) in enumerate(zip(labels, values, _bounds(estimates), strict=True)):
        score, words = 100 * (start + value), ""
        if label != reference:
            words = f", minus {reference} {number(value, ends)}"
            if ends:
                whisker = [100 * (start + end) for end in ends]
                panel.plot([x, x], whisker, color=TRAINED, linewidth=0.8)
        color = SURFACE if label == reference else TRAINED
        (dot,) = panel.plot(x, score, "o", color=color, markeredgecolor=TRAINED, markersize=5)
        add_tip(dot, f"{label}, {title}: {score:z.2f}{words}")
    panel.set_xlim(-0.4, len(labels) - 0.6)


def _name_marks(figure: Figure, reference: str, *, whiskers: bool) -> None:
    ring = Line2D([], [], linestyle="", marker="o", color=SURFACE, markeredgecolor=TRAINED)
    ring.set(markersize=5, label=shortened(reference))
    whisker = Line2D([], [], linestyle="", marker="|", markersize=9, color=TRAINED)
    whisker.set_label("difference from it, 95 % interval")
    handles = [ring, whisker][: 1 + whiskers]
    figure.legend(handles=handles, loc="outside lower left", fontsize=8, ncols=2)
