"""What instructions do: the right one against the wrong one, and one instruction in many wordings."""

import re
from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from bench.reporting.comparison import Comparison
from bench.reporting.figures.drawing import (
    COLORS,
    INK,
    MUTED,
    RULE,
    SURFACE,
    Drawing,
    add_tip,
    caption,
    number,
    panels,
    styled,
)

_GROUPS: Mapping[str, tuple[str, str]] = {
    "correct": ("o", COLORS[0]),
    "implicit": ("D", COLORS[2]),
    "incorrect": ("X", COLORS[1]),
}


@styled
def instruction(c: Comparison) -> Drawing:
    """Return every score under its own instruction and under another one, as two dots joined by a line."""
    name, title = "instruction", "Right and wrong instruction"
    shown = [
        (task, labeling, others)
        for task in c.tasks.index[c.tasks.family == "instruction"]
        for labeling, others in _labelings(c, task).items()
    ]
    if not shown:
        why = "no task of the family instruction scored a labeling under another one's instruction"
        return Drawing(name, title, why=why)
    has = c.scores.loc[[task for task, *_ in shown]].notna().any()
    encoders = [label for label in c.labels if has[label]]
    headings = [f"{task}: {labeling}" for task, labeling, _ in shown]
    figure, axes = panels(headings, list(c.encoders.title[encoders]))
    for panel, (task, labeling, others) in zip(axes, shown, strict=True):
        _draw_labeling(panel, c, encoders, task, labeling, others)
    _name_marks(
        axes[0],
        {
            "its own instruction": ("o", COLORS[0], COLORS[0]),
            "another one's": ("o", SURFACE, COLORS[1]),
        },
    )
    caption(figure, "Score x 100 of each labeling")
    about = (
        "An encoder that follows instructions scores a labeling higher under its own instruction (filled) "
        "than under another one's (ring)."
    )
    return Drawing(name, title, about, figure)


def _labelings(c: Comparison, task: str) -> dict[str, list[str]]:
    """Return the labelings of a task with the other instructions they were scored under."""
    results = [r for label in c.labels for r in c.cells.get((label, task), ())]
    names = {name for result in results for name in result.scores}
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        parts = re.fullmatch("(.+) under (.+)", name)
        if parts and parts[1] in names:
            found.setdefault(parts[1], []).append(parts[2])
    return found


def _draw_labeling(
    panel: Axes, c: Comparison, encoders: list[str], task: str, labeling: str, others: list[str]
) -> None:
    own = c.sampled(task, labeling)
    under = {words: c.sampled(task, f"{labeling} under {words}") for words in others}
    ring = {"color": SURFACE, "markeredgecolor": COLORS[1], "markeredgewidth": 1.4, "markersize": 6}
    for y, label in enumerate(encoders):
        i, title = c.number[label], c.encoders.at[label, "title"]
        right = float(own.scores[i])
        for words, found in under.items():
            wrong = float(found.scores[i])
            panel.plot([100 * wrong, 100 * right], [y, y], color=MUTED, linewidth=1.5, zorder=1)
            (dot,) = panel.plot(100 * wrong, y, "o", **ring)  # type: ignore[arg-type]
            add_tip(dot, f"{title}, {labeling} under {words}: {number(wrong, c.bounds(found)[i])}")
        (dot,) = panel.plot(100 * right, y, "o", color=COLORS[0], markersize=6)
        told = number(right, c.bounds(own)[i])
        add_tip(dot, f"{title}, {labeling} under its own instruction: {told}")


@styled
def robustness(c: Comparison) -> Drawing:
    """Return the scores under correct, implicit and incorrect wordings, a dot per wording and a bar for their mean."""
    name, title = "robustness", "Robustness to wording"
    wordings = {
        (label, task): found
        for task in c.tasks.index[c.tasks.family == "robustness"]
        for label in c.labels
        if (found := _wordings(c, label, task))
    }
    if not wordings:
        why = "no task of the family robustness scored correct, implicit and incorrect wordings"
        return Drawing(name, title, why=why)
    tasks = list(dict.fromkeys(task for _, task in wordings))
    measured = {label for label, _ in wordings}
    encoders = [label for label in c.labels if label in measured]
    figure, axes = panels(tasks, list(c.encoders.title[encoders]), row=0.42)
    for panel, task in zip(axes, tasks, strict=True):
        for y, label in enumerate(encoders):
            panel.axhline(y - 0.5, color=RULE, linewidth=0.6)
            title_ = c.encoders.at[label, "title"]
            for group, repeats in wordings.get((label, task), {}).items():
                _draw_wordings(panel, y, title_, group, repeats)
    marks = {group: (marker, color, color) for group, (marker, color) in _GROUPS.items()}
    _name_marks(axes[0], marks)
    caption(figure, "Score x 100, a dot per wording; bars: means")
    about = (
        "Scores under correct, implicit and incorrect wordings of one instruction: dots are wordings, bars "
        "their means."
    )
    return Drawing(name, title, about, figure)


def _wordings(c: Comparison, label: str, task: str) -> dict[str, list[float]]:
    """Return an encoder's scores by group of wordings, over all seeds; groups that were not measured are absent."""
    found: dict[str, list[float]] = {}
    for result in c.cells.get((label, task), ()):
        for group in _GROUPS:
            if group in result.scores:
                found.setdefault(group, []).extend(result.scores[group].repeats)
    return {group: found[group] for group in _GROUPS if group in found}


def _draw_wordings(panel: Axes, y: int, title: str, group: str, repeats: list[float]) -> None:
    marker, color = _GROUPS[group]
    height = y + 0.25 * (list(_GROUPS).index(group) - 1)
    xs = [100 * value for value in repeats]
    style = {"color": color, "markersize": 3.5, "alpha": 0.6, "markeredgewidth": 0}
    panel.plot(xs, [height] * len(xs), marker, **style)  # type: ignore[arg-type]
    mean = sum(repeats) / len(repeats)
    (bar,) = panel.plot([100 * mean] * 2, [height - 0.12, height + 0.12], color=INK, linewidth=1.6)
    spread = f"{min(xs):z.1f} to {max(xs):z.1f} over {len(xs)} wordings"
    add_tip(bar, f"{title}, {group} wordings: {number(mean)} on average, {spread}")


def _name_marks(panel: Axes, marks: Mapping[str, tuple[str, str, str]]) -> None:
    """Write below the panels what each (marker, colour, edge) stands for."""
    handles = [
        Line2D([], [], linestyle="", marker=marker, color=color, markeredgecolor=edge, label=words)
        for words, (marker, color, edge) in marks.items()
    ]
    figure = panel.get_figure(root=True)
    assert figure is not None  # noqa: S101 - for the type checker; a panel is drawn on a figure
    figure.legend(handles=handles, loc="outside lower left", fontsize=8, ncols=len(marks))
