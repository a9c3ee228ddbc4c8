"""Instructions: the right one against a wrong one, and one instruction in many wordings."""

import re
from collections.abc import Mapping
from itertools import product

from matplotlib.axes import Axes

from bench.reporting.comparison import Comparison
from bench.reporting.figures.drawing import (
    COLORS,
    MUTED,
    RULE,
    Sketch,
    caption,
    dot,
    draw_rows,
    draw_wordings,
    name_marks,
    panels,
    report_figure,
)

_GROUPS: Mapping[str, tuple[str, str]] = {
    "correct": ("o", COLORS[0]),
    "implicit": ("D", COLORS[2]),
    "incorrect": ("X", COLORS[1]),
}


@report_figure("instruction", "Right and wrong instruction", beside="instruction")
def instruction(c: Comparison) -> Sketch:
    """Return every score under its own instruction and under another one, joined by a line."""
    shown = []
    for task in map(str, c.tasks.index[c.tasks.family == "instruction"]):
        shown += [(task, labeling, others) for labeling, others in _labelings(c, task).items()]
    if not shown:
        return "no task of the family instruction scored labels under another instruction"
    has = c.scores.loc[[task for task, *_ in shown]].notna().any()
    encoders = [label for label in c.labels if has[label]]
    headings = [f"{task}: {labeling}" for task, labeling, _ in shown]
    figure, axes = panels(headings, list(c.encoders.title[encoders]))
    for panel, (task, labeling, others) in zip(axes, shown, strict=True):
        for other in others:
            _draw_pairs(panel, c, encoders, (task, labeling, other))
    right, wrong = dot(COLORS[0]), dot(COLORS[1], hollow=True)
    name_marks(figure, {"its own instruction": right, "another instruction": wrong})
    caption(figure, "Score x 100 on each set of labels")
    about = (
        "An encoder that follows instructions scores higher under the instruction of the labels "
        "(filled) than under another one (hollow)."
    )
    return figure, about


def _labelings(c: Comparison, task: str) -> dict[str, list[str]]:
    """Return the sets of labels of a task with the other instructions they were scored under."""
    names = c.score_names(task)
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        parts = re.fullmatch("(.+) under (.+)", name)
        if parts and parts[1] in names:
            found.setdefault(parts[1], []).append(parts[2])
    return found


def _draw_pairs(
    panel: Axes, c: Comparison, encoders: list[str], names: tuple[str, str, str]
) -> None:
    """Draw each encoder's score under the right and under another instruction."""
    task, labeling, other = names
    numbers = c.numbers(encoders)
    own = c.sampled(task, labeling).intervals.take(numbers)
    under = c.sampled(task, f"{labeling} under {other}").intervals.take(numbers)
    for y, ends in enumerate(zip(under.value, own.value, strict=True)):
        panel.plot([100 * end for end in ends], [y, y], color=MUTED, linewidth=1.5, zorder=1)
    titles, n = c.encoders.title[encoders], len(encoders)
    tips = [f"{title}, {labeling} under {other}" for title in titles]
    draw_rows(panel, under, tips, COLORS[1:2] * n, hollow=[True] * n)
    tips = [f"{title}, {labeling} under its own instruction" for title in titles]
    draw_rows(panel, own, tips, COLORS[:1] * n)


@report_figure("robustness", "Robustness to wording", beside="robustness")
def robustness(c: Comparison) -> Sketch:
    """Return a dot per wording, correct, implicit and incorrect, and a bar for each mean."""
    tested = map(str, c.tasks.index[c.tasks.family == "robustness"])
    wordings = {}
    for task, label in product(tested, c.labels):
        if found := _wordings(c, label, task):
            wordings[label, task] = found
    if not wordings:
        return "no task of the family robustness scored correct, implicit and incorrect wordings"
    tasks = list(dict.fromkeys(task for _, task in wordings))
    measured = {label for label, _ in wordings}
    encoders = [label for label in c.labels if label in measured]
    figure, axes = panels(tasks, list(c.encoders.title[encoders]), row=0.42)
    for panel, task in zip(axes, tasks, strict=True):
        for y, label in enumerate(encoders):
            panel.axhline(y - 0.5, color=RULE, linewidth=0.6)
            for group, repeats in wordings.get((label, task), {}).items():
                _draw_group(panel, y, c.encoders.at[label, "title"], group, repeats)
    name_marks(figure, {group: dot(color, marker) for group, (marker, color) in _GROUPS.items()})
    caption(figure, "Score x 100, a dot per wording; bars: means")
    about = "Scores under correct, implicit and incorrect wordings of one instruction."
    return figure, about


def _wordings(c: Comparison, label: str, task: str) -> dict[str, list[float]]:
    """Return an encoder's scores by group of wordings, over all seeds."""
    found: dict[str, list[float]] = {}
    for result in c.cells.get((label, task), ()):
        for group in _GROUPS:
            if group in result.scores:
                found.setdefault(group, []).extend(result.scores[group].repeats)
    return {group: found[group] for group in _GROUPS if group in found}


def _draw_group(panel: Axes, y: int, title: str, group: str, repeats: list[float]) -> None:
    marker, color = _GROUPS[group]
    height, tip = y + 0.25 * (list(_GROUPS).index(group) - 1), f"{title}, {group} wordings"
    draw_wordings(panel, height, repeats, tip, color=color, marker=marker, reach=0.12)
