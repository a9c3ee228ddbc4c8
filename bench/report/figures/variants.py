"""What each change of a recipe's settings adds or takes, with its chance, and how scores go with a setting that has many values."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from bench import stats
from bench.report.figures.drawing import (
    INK,
    MUTED,
    SURFACE,
    TRAINED,
    Drawing,
    number,
    panels,
    shortened,
    side_by_side,
    styled,
    told,
)
from bench.report.pairs import Pairs
from bench.report.variants import Variants, gaps, variants

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAME, _TITLE = "variants", "Variants of recipes"
_MOST_TASKS = 6  # panels; of more tasks the means of their families are drawn
_MOST_TICKS = 7


@styled
def ablations(pairs: Pairs) -> Drawing:
    """Return the difference of each variant of a recipe from its first one, a panel a family, a row a variant."""
    groups = variants(pairs.cells)
    if not groups or not pairs.by_family:
        return Drawing(_NAME, _TITLE, why="no two encoders that one method trained at one budget")
    names = [
        f"{group.method}: {group.changes[label]}" for group in groups for label in group.labels[1:]
    ]
    figure, axes = panels(list(pairs.by_family), names)
    for panel, (family, found) in zip(axes, pairs.by_family.items(), strict=True):
        y = 0
        for group in groups:
            estimates = gaps(pairs, found, group.labels)
            for value, low, high in zip(
                estimates.value.tolist(),
                estimates.low.tolist(),
                estimates.high.tolist(),
                strict=True,
            ):
                if np.isnan(value):
                    panel.text(0, y, "  not measured", va="center", fontsize=7, color=MUTED)
                else:
                    (dot,) = panel.plot(100 * value, y, "o", color=TRAINED, markersize=5)
                    bounds = None if np.isnan(low) else (low, high)
                    told(dot, f"{names[y]}, {family}: {number(value, bounds)}")
                    if bounds:
                        panel.hlines(y, 100 * low, 100 * high, color=TRAINED, linewidth=1.4)
                y += 1
        panel.axvline(0, color=INK, linewidth=0.8)
    firsts = "; ".join(f"{group.method}: {group.labels[0]}" for group in groups)
    figure.suptitle(
        "Difference of family means x 100 when a setting is changed; lines: 95 % interval",
        fontsize=9,
        x=0.01,
        ha="left",
    )
    return Drawing(
        _NAME, _TITLE, f"Each minus the encoder that the changes start from ({firsts}).", figure
    )


def sweeps(pairs: Pairs) -> tuple[Drawing, ...]:
    """Return a figure for each numeric setting of which a group of variants has three values or more; without any, why not."""
    found = [
        (group, setting)
        for group in variants(pairs.cells)
        for setting in group.sweeps
        if _shown(pairs, group, setting)
    ]
    if not found:
        why = "no task on which a method was run with three values of a number among its recipe's settings, all else the same"
        return (Drawing("sweep", "Scores over a setting", why=why),)
    stems = [
        f"sweep-{re.sub('[^a-z0-9]+', '-', setting.lower()).strip('-')[:40]}"
        for _, setting in found
    ]
    names = [
        stem if Counter(stems)[stem] == 1 else f"{stem}-{stems[:i].count(stem) + 1}"
        for i, stem in enumerate(stems)
    ]
    return tuple(
        sweep(pairs, group, setting, name)
        for (group, setting), name in zip(found, names, strict=True)
    )


@styled
def sweep(pairs: Pairs, group: Variants, setting: str, name: str) -> Drawing:
    """Return the scores over the values of a setting, a panel a task, or a family where there are many tasks."""
    shown, labels = _shown(pairs, group, setting), group.sweeps[setting]
    figure, axes = side_by_side(list(shown))
    for panel, (title, (words, found)) in zip(axes, shown.items(), strict=True):
        _draw_sweep(panel, pairs, found, [group.labels[0], *labels.values()], title)
        ticks = range(0, len(labels), -(-len(labels) // _MOST_TICKS))
        panel.set_xticks(ticks, [f"{value:g}" for i, value in enumerate(labels) if i in ticks])
        panel.set(xlabel=shortened(setting), ylabel=words)
    figure.suptitle(
        f"{shortened(group.method)} at {group.budget:,} token positions",
        fontsize=9,
        x=0.01,
        ha="left",
    )
    _tell_marks(figure, group.labels[0], whiskers=any(found.parts for _, found in shown.values()))
    about = (
        f"Main scores x 100 over {setting}, at equal distances; nothing else was changed. Whiskers, where known: 95 % interval of the "
        f"difference to {group.labels[0]} (ring), around its score; one that crosses the dashed line is a difference that may be chance."
    )
    return Drawing(name, f"{group.method}: scores over {setting}", about, figure)


def _shown(pairs: Pairs, group: Variants, setting: str) -> Mapping[str, tuple[str, stats.Sampled]]:
    """Return what is drawn over a setting by title, with the words beside its axis: tasks that were run with all of its values."""
    cells, labels = pairs.cells, group.sweeps[setting].values()
    columns = [
        column
        for column in cells.compared
        if all((label, column) in cells.results for label in labels)
    ]
    if len(columns) <= _MOST_TASKS:
        return {
            cells.title(column): (f"{column.metric} x 100", pairs.by_column[column])
            for column in columns
        }
    counted = [column for column in columns if column not in cells.superseded]
    families = {
        family: [pairs.by_column[column] for column in own]
        for family, own in groupby(counted, key=lambda c: c.family)
    }
    return {
        f"{family} ({len(own)} tasks)": ("mean score x 100", stats.mean_of(own))
        for family, own in families.items()
    }


def _draw_sweep(
    panel: "Axes", pairs: Pairs, found: stats.Sampled, labels: Sequence[str], title: str
) -> None:
    """Draw the scores of all labels but the first one, which is the one they are compared with and among them."""
    base, *shown = labels
    start = float(found.scores[pairs.number[base]])
    estimates = gaps(pairs, found, labels)
    scores = [100 * (start + value) for value in estimates.value.tolist()]
    panel.axhline(100 * start, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
    panel.plot(scores, color=TRAINED, linewidth=1.2)
    for x, (label, score, value) in enumerate(
        zip(shown, scores, estimates.value.tolist(), strict=True)
    ):
        bounds = (
            None
            if np.isnan(estimates.low[x]) or label == base
            else (float(estimates.low[x]), float(estimates.high[x]))
        )
        if bounds:
            panel.plot(
                [x, x], [100 * (start + end) for end in bounds], color=TRAINED, linewidth=0.8
            )
        (dot,) = panel.plot(
            x,
            score,
            "o",
            color=SURFACE if label == base else TRAINED,
            markeredgecolor=TRAINED,
            markersize=5,
        )
        told(
            dot,
            f"{label}, {title}: {score:z.2f}"
            + ("" if label == base else f", minus {base} {number(value, bounds)}"),
        )
    panel.set_xlim(-0.4, len(shown) - 0.6)


def _tell_marks(figure: "Figure", base: str, *, whiskers: bool) -> None:
    from matplotlib.lines import Line2D

    ring = {"marker": "o", "color": SURFACE, "markeredgecolor": TRAINED}
    handles = [
        Line2D([], [], linestyle="", markersize=5, label=shortened(base), **ring),  # type: ignore[arg-type]
        Line2D(
            [],
            [],
            linestyle="",
            marker="|",
            markersize=9,
            color=TRAINED,
            label="difference to it, 95 % interval",
        ),
    ]
    figure.legend(handles=handles[: 1 + whiskers], loc="outside lower left", fontsize=8, ncols=2)
