"""Ablations: the effect of each changed setting, and scores over the values of one setting."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from bench import stats
from bench.reporting.comparison import Comparison
from bench.reporting.figures.drawing import (
    COLORS,
    MUTED,
    Drawing,
    Sketch,
    caption,
    dot,
    draw_point,
    name_marks,
    number,
    panels,
    report_figure,
    shortened,
    side_by_side,
    styled,
)
from bench.reporting.figures.scores import draw_differences, significance_marks
from bench.reporting.variants import Variants, groups

_MOST_TASKS = 6  # panels; of more tasks the means of their families are drawn
_MOST_TICKS = 7


@report_figure("variants", "Ablation effects", beside="variants")
def ablations(c: Comparison) -> Sketch:
    """Return the difference of each variant from its reference, a panel per family."""
    found = groups(c)
    if not found or not c.by_family:
        return "no two encoders that one method trained at one budget"
    names, changed, references = [], [], []
    for group in found:
        reference, *others = group.labels
        names += [f"{group.method}: {group.changes[label]}" for label in others]
        changed += others
        references += [reference] * len(others)
    rows, base = c.numbers(changed), c.numbers(references)
    figure, axes = panels(list(c.by_family), names)
    drawn: list[float] = []
    for panel, (family, scores) in zip(axes, c.by_family.items(), strict=True):
        gaps, p = stats.differences(scores, rows, base), c.p_means[family][rows, base]
        tips = [f"{name}, {family}" for name in names]
        drawn += draw_differences(panel, gaps, p, tips, COLORS[:1] * len(names))
    caption(figure, "Ablation effects on family means x 100; lines: 95 % interval")
    name_marks(figure, significance_marks(drawn, COLORS[0]))
    listed = "; ".join(f"{group.method}: {group.labels[0]}" for group in found)
    return figure, f"Each minus its reference ({listed})."


def sweeps(c: Comparison) -> tuple[Drawing, ...]:
    """Return a figure for each numeric setting with at least three values in a group."""
    found = []
    for group in groups(c):
        found += [(group, setting) for setting in group.sweeps if _shown(c, group, setting)]
    if not found:
        why = "no task on which three values of a numeric setting were run, all else the same"
        return (Drawing("sweep", "Scores over a setting", why=why, beside="variants"),)
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
    """Return the scores over the values of a setting, a panel per task, or per family of many."""
    shown, labels = _shown(c, group, setting), group.sweeps[setting]
    reference = group.labels[0]
    figure, axes = side_by_side(list(shown))
    for panel, (title, (words, found)) in zip(axes, shown.items(), strict=True):
        _draw_sweep(panel, c, found, [reference, *labels.values()], title)
        ticks = range(0, len(labels), -(-len(labels) // _MOST_TICKS))
        values = list(labels)
        panel.set_xticks(ticks, [f"{values[i]:g}" for i in ticks])
        panel.set(xlabel=shortened(setting), ylabel=words)
    caption(figure, f"{shortened(group.method)} at {group.budget:,} training tokens")
    marks = {reference: dot(COLORS[0], hollow=True)}
    known = any(found.components for _, found in shown.values())
    if known:
        whisker = {"linestyle": "", "marker": "|", "markersize": 9, "color": COLORS[0]}
        marks["difference from it, 95 % interval"] = whisker
    name_marks(figure, marks)
    about = f"Main scores x 100 over {setting}, at equal distances; all else the same."
    if known:
        about += f" Whiskers: 95 % interval of the difference from {reference}."
    title = f"{group.method}: scores over {setting}"
    return Drawing(name, title, about, figure, beside="variants")


def _shown(c: Comparison, group: Variants, setting: str) -> Mapping[str, tuple[str, stats.Sampled]]:
    """Return by title what is drawn over a setting, with the label of its axis.

    Only tasks that were run with all values are drawn.
    """
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
        f"{family} ({len(own)} tasks)": ("mean score x 100", c.mean_of(own.index))
        for family, own in counted.groupby("family")
    }


def _draw_sweep(
    panel: Axes, c: Comparison, found: stats.Sampled, labels: Sequence[str], title: str
) -> None:
    """Draw the scores of encoders; the first label is the reference, the others are drawn."""
    reference, *shown = labels
    start = float(found.scores[c.number[reference]])
    each = stats.differences(found, c.numbers(shown), c.number[reference])
    scores = 100 * (start + each.value)
    panel.axhline(100 * start, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
    panel.plot(scores, color=COLORS[0], linewidth=1.2)
    for x, (label, gap, ends) in enumerate(zip(shown, each.value, each.bounds(), strict=True)):
        tip, around = f"{label}, {title}: {number(start + gap)}", None
        if label != reference:
            tip += f", minus {reference} {number(gap, ends)}"
            around = ends and (100 * (start + ends[0]), 100 * (start + ends[1]))
        draw_point(panel, (x, scores[x]), tip, bounds=around, hollow=label == reference)
    panel.set_xlim(-0.4, len(shown) - 0.6)
