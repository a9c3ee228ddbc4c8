"""What instructions do: the right one against the wrong one, and one instruction in many wordings."""

import re
from collections.abc import Mapping

from bench.report.cells import Cells, Column, named
from bench.report.figures.drawing import (
    COLORS,
    INK,
    MUTED,
    RULE,
    SURFACE,
    Drawing,
    number,
    panels,
    styled,
    told,
)
from bench.report.pairs import Pairs

_UNDER = re.compile(r"(.+) under (.+)")
_GROUPS: Mapping[str, tuple[str, str]] = {
    "correct": ("o", COLORS[0]),
    "implicit": ("D", COLORS[2]),
    "incorrect": ("X", COLORS[1]),
}


@styled
def instruction(pairs: Pairs) -> Drawing:
    """Return every score under its own instruction and under another one, as two dots joined by a line."""
    name, title, cells = "instruction", "Right and wrong instruction", pairs.cells
    shown = [
        (column, labeling, under)
        for column in _of(cells, "instruction")
        for labeling, under in _labelings(cells, column).items()
    ]
    encoders = [
        label
        for label in cells.encoders
        if any((label, column) in cells.results for column, *_ in shown)
    ]
    if not shown:
        return Drawing(
            name,
            title,
            why="no task of the family instruction scored a labeling under another one's instruction",
        )
    figure, axes = panels(
        [f"{cells.title(c)}: {labeling}" for c, labeling, _ in shown],
        [named(cells, label) for label in encoders],
    )
    for panel, (column, labeling, under) in zip(axes, shown, strict=True):
        own, others = (
            pairs.sampled(column, labeling),
            [(words, pairs.sampled(column, f"{labeling} under {words}")) for words in under],
        )
        bounds = pairs.bounds(own)
        for y, label in enumerate(encoders):
            at = pairs.number[label]
            right = float(own.scores[at])
            for words, found in others:
                wrong = float(found.scores[at])
                panel.plot([100 * wrong, 100 * right], [y, y], color=MUTED, linewidth=1.5, zorder=1)
                (dot,) = panel.plot(
                    100 * wrong,
                    y,
                    "o",
                    color=SURFACE,
                    markeredgecolor=COLORS[1],
                    markeredgewidth=1.4,
                    markersize=6,
                )
                told(
                    dot,
                    f"{named(cells, label)}, {labeling} under {words}: {number(wrong, pairs.bounds(found)[at])}",
                )
            (dot,) = panel.plot(100 * right, y, "o", color=COLORS[0], markersize=6)
            told(
                dot,
                f"{named(cells, label)}, {labeling} under its own instruction: {number(right, bounds[at])}",
            )
    handles = _handles(
        {
            "its own instruction": ("o", COLORS[0], COLORS[0]),
            "another one's": ("o", SURFACE, COLORS[1]),
        }
    )
    figure.legend(handles=handles, loc="outside lower left", fontsize=8, ncols=2)
    figure.suptitle("Score x 100 of each labeling", fontsize=9, x=0.01, ha="left")
    about = "An encoder that follows instructions scores a labeling higher under its own instruction (filled) than under another one's (ring)."  # noqa: E501
    return Drawing(name, title, about, figure)


def _labelings(cells: Cells, column: Column) -> dict[str, list[str]]:
    """Return the labelings of a task with the other instructions they were scored under."""
    names = {
        name
        for (_, other), results in cells.results.items()
        if other == column
        for result in results
        for name in result.scores
    }
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        if (parts := _UNDER.fullmatch(name)) and parts[1] in names:
            found.setdefault(parts[1], []).append(parts[2])
    return found


@styled
def robustness(pairs: Pairs) -> Drawing:
    """Return the scores under correct, implicit and incorrect wordings, a dot a wording and a bar for their mean."""
    name, title, cells = "robustness", "Robustness to wording", pairs.cells
    columns = [
        c
        for c in _of(cells, "robustness")
        if any(_wordings(cells, label, c) for label in cells.encoders)
    ]
    if not columns:
        return Drawing(
            name,
            title,
            why="no task of the family robustness scored correct, implicit and incorrect wordings",
        )
    encoders = [
        label
        for label in cells.encoders
        if any(_wordings(cells, label, column) for column in columns)
    ]
    figure, axes = panels(
        [cells.title(column) for column in columns],
        [named(cells, label) for label in encoders],
        row=0.42,
    )
    for panel, column in zip(axes, columns, strict=True):
        for y, label in enumerate(encoders):
            panel.axhline(y - 0.5, color=RULE, linewidth=0.6)
            for group, repeats in _wordings(cells, label, column).items():
                marker, color = _GROUPS[group]
                height, mean = (
                    y + 0.25 * (list(_GROUPS).index(group) - 1),
                    sum(repeats) / len(repeats),
                )
                xs = [100 * value for value in repeats]
                panel.plot(
                    xs,
                    [height] * len(xs),
                    marker,
                    color=color,
                    markersize=3.5,
                    alpha=0.6,
                    markeredgewidth=0,
                )
                (bar,) = panel.plot(
                    [100 * mean] * 2, [height - 0.12, height + 0.12], color=INK, linewidth=1.6
                )
                words = f"{number(mean)} on average, {100 * min(repeats):z.1f} to {100 * max(repeats):z.1f} over {len(repeats)} wordings"
                told(bar, f"{named(cells, label)}, {group} wordings: {words}")
    handles = _handles(
        {group: (marker, color, color) for group, (marker, color) in _GROUPS.items()}
    )
    figure.legend(handles=handles, loc="outside lower left", fontsize=8, ncols=3)
    figure.suptitle("Score x 100, a dot a wording; bars: means", fontsize=9, x=0.01, ha="left")
    return Drawing(
        name,
        title,
        "Scores under correct, implicit and incorrect wordings of one instruction: dots are wordings, bars their means.",
        figure,
    )


def _of(cells: Cells, family: str) -> list[Column]:
    return [column for column in cells.columns if column.family == family]


def _wordings(cells: Cells, label: str, column: Column) -> dict[str, list[float]]:
    """Return an encoder's scores by group of wordings, over all seeds; groups that were not measured are not there."""
    results = cells.results.get((label, column), ())
    found = {
        group: [v for r in results if group in r.scores for v in r.scores[group].repeats]
        for group in _GROUPS
    }
    return {group: repeats for group, repeats in found.items() if repeats}


def _handles(kinds: Mapping[str, tuple[str, str, str]]) -> list[object]:
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], linestyle="", marker=marker, color=color, markeredgecolor=edge, label=words)
        for words, (marker, color, edge) in kinds.items()
    ]
