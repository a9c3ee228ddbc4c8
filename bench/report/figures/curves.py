"""Curves: scores over the layers of a network, loss and scores over training."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bench.report.cells import Cells, Column, named
from bench.report.figures.drawing import (
    COLORS,
    MARKERS,
    SURFACE,
    Drawing,
    number,
    shortened,
    side_by_side,
    styled,
    told,
)
from bench.report.pairs import Pairs
from bench.task import PICKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LAYER = re.compile(r"@(\d+)$")
_MOST = 14  # encoders: colours and line styles do not tell more apart
_LINES = ("-", "--")


@styled
def layers(pairs: Pairs) -> Drawing:
    """Return the score of every task that was read at several layers, or that picked one, a curve an encoder."""
    name, title = "layers", "Scores over layers"
    tasks = {task: by for task, by in _by_layer(pairs.cells).items() if len(by) > 1}
    picking = {c: found for c in pairs.cells.columns if (found := _picking(pairs.cells, c))}
    if not tasks and not picking:
        return Drawing(
            name,
            title,
            why="no task was read at more than one layer (a read-out such as bertscore@12, or mrpc-picked)",
        )
    read = [column for by in tasks.values() for column in by.values()]
    encoders = [
        label
        for label in pairs.cells.encoders
        if any((label, c) in pairs.cells.results for c in [*read, *picking])
    ]
    titles = [task.task + (f" (limit {task.limit})" if task.limit else "") for task in tasks]
    figure, axes = side_by_side([*titles, *(f"{column.task}: other pairs" for column in picking)])
    for panel, (column, curves) in zip(axes[len(tasks) :], picking.items(), strict=True):
        for i, label in enumerate(encoders[:_MOST]):
            points = curves.get(label, {})
            panel.plot(
                list(points), [100 * value for value in points.values()], linewidth=1.2, **_line(i)
            )
            for layer, value in points.items():
                _mark(
                    panel,
                    (layer, 100 * value),
                    i,
                    f"{named(pairs.cells, label)}, layer {layer} on other pairs: {100 * value:.1f}",
                )
        panel.set(xlabel="layer, counted from the last (-1)", ylabel=f"{column.metric} x 100")
    for panel, by in zip(axes, tasks.values(), strict=False):
        numbers = sorted(layer for layer in by if layer is not None)
        places: dict[int | None, float] = {layer: layer for layer in numbers}
        if None in by:
            places[None] = numbers[-1] + max(1, (numbers[-1] - numbers[0]) / 8)
        for i, label in enumerate(encoders[:_MOST]):
            _draw_curve(
                panel, pairs, label, {places[layer]: (_said(layer), by[layer]) for layer in by}, i
            )
        panel.set_xticks([*_thinned(numbers), *([places[None]] if None in by else [])])
        panel.set_xticklabels([*map(str, _thinned(numbers)), *(["last"] if None in by else [])])
        panel.set(xlabel="layer", ylabel=f"{next(iter(by.values())).metric} x 100")
    _name_curves(figure, [named(pairs.cells, label) for label in encoders[:_MOST]])
    more = f" The {_MOST} best of {len(encoders)} encoders." if len(encoders) > _MOST else ""
    about = (
        "Main score x 100 over the layer that is read, 0 being the input embeddings; whiskers: 95 % interval. Where a task picks a layer, "
        f"the score on the pairs that it picks on.{more}"
    )
    return Drawing(name, title, about, figure)


def _picking(cells: Cells, column: Column) -> dict[str, dict[int, float]]:
    """Return by encoder and layer what a task that picks a layer scored where it picked; nothing for other tasks."""
    found = {}
    for label in cells.encoders:
        scores = [r.scores for r in cells.results.get((label, column), ())][:1]
        by_layer = {
            int(name.removeprefix(PICKING)): score.mean
            for one in scores
            for name, score in one.items()
            if name.startswith(PICKING)
        }
        if by_layer:
            found[label] = dict(sorted(by_layer.items()))
    return found


def _by_layer(cells: Cells) -> dict[Column, dict[int | None, Column]]:
    """Return the columns that differ in their layer only, by layer; None is the last one, which a read-out does not name."""
    found: dict[Column, dict[int | None, Column]] = {}
    for column in cells.columns:
        layer = _LAYER.search(column.readout)
        stem = replace(
            column, task=_LAYER.sub("", column.task), readout=_LAYER.sub("", column.readout)
        )
        found.setdefault(stem, {})[int(layer[1]) if layer else None] = column
    return found


def _draw_curve(
    panel: "Axes", pairs: Pairs, label: str, by: Mapping[float, tuple[str, Column]], i: int
) -> None:
    at = pairs.number[label]
    points = [
        (x, words, pairs.by_column[column])
        for x, (words, column) in sorted(by.items())
        if (label, column) in pairs.cells.results
    ]
    style = _line(i)
    panel.plot(
        [x for x, *_ in points],
        [100 * found.scores[at] for *_, found in points],
        linewidth=1.2,
        **style,
    )
    for x, words, found in points:
        value, bounds = float(found.scores[at]), pairs.bounds(found)[at]
        if bounds:
            panel.plot([x, x], [100 * end for end in bounds], color=style["color"], linewidth=0.8)
        _mark(
            panel,
            (x, 100 * value),
            i,
            f"{named(pairs.cells, label)}, {words}: {number(value, bounds)}",
        )


@styled
def spectrum(pairs: Pairs) -> Drawing:
    """Return the share of the variance that the first principal directions hold, a curve an encoder, and how alike memory vectors are."""
    name, title, cells = "spectrum", "Directions that embeddings use", pairs.cells
    found = {label: scores for label in cells.encoders if (scores := _diagnosed(cells, label))}
    if not found:
        return Drawing(name, title, why="no diagnostics were run (stsb-spectrum)")
    shown = list(found)[:_MOST]
    memories = {
        label: found[label]["memory_correlation"]
        for label in shown
        if "memory_correlation" in found[label]
    }
    figure, axes = side_by_side(
        [
            "variance in the first directions",
            *(["correlation of a text's memory vectors"] if memories else []),
        ]
    )
    for i, label in enumerate(shown):
        points = sorted(
            (int(score.removeprefix("share_")), value)
            for score, value in found[label].items()
            if score.startswith("share_")
        )
        axes[0].plot(*zip(*points, strict=True), linewidth=1.2, **_line(i))
        for n, value in points:
            _mark(
                axes[0],
                (n, value),
                i,
                f"{named(cells, label)}: {100 * value:.1f} % of the variance in {n} directions",
            )
    axes[0].set_xscale("log", base=2)
    axes[0].xaxis.set_major_formatter("{x:g}")
    axes[0].set(xlabel="principal directions", ylabel="share of the variance", ylim=(0, 1.02))
    if memories:
        colors = [_line(shown.index(label))["color"] for label in memories]
        bars = axes[1].bar(range(len(memories)), list(memories.values()), width=0.5, color=colors)
        for bar, (label, value) in zip(bars, memories.items(), strict=True):
            told(bar, f"{named(cells, label)}: mean correlation {value:.3f}")
        axes[1].bar_label(bars, fmt="{:.2f}", fontsize=8)
        axes[1].set(
            ylim=(min(0.0, *memories.values()), 1.02),
            xlim=(-0.6, max(len(memories), 4) - 0.4),
            xticks=[],
        )
    _name_curves(figure, [named(cells, label) for label in shown])
    about = "The sooner a curve reaches 1, the fewer directions carry the embeddings; memory vectors that correlate fully say all the same."
    return Drawing(name, title, about, figure)


def _diagnosed(cells: Cells, label: str) -> dict[str, float]:
    scores = [r.scores for r in cells.of_encoder(label) if "share_1" in r.scores]
    return {name: score.mean for name, score in scores[0].items()} if scores else {}


@styled
def learning(pairs: Pairs) -> Drawing:
    """Return the mean score over training tokens, a curve a method that was trained with several budgets."""
    name, title, cells = "learning", "Score over training", pairs.cells
    means = {
        label: mean
        for label in cells.encoders
        if cells.tokens(label) and (mean := cells.overall(label)) is not None
    }
    curves: dict[str, list[str]] = {}
    for label in means:
        training = cells.training(label)
        curves.setdefault(
            f"{training.get('method') or cells.name(label)} on {cells.base(label) or 'its backbone'}",
            [],
        ).append(label)
    curves = {
        method: found
        for method, found in sorted(curves.items())
        if len({cells.tokens(label) for label in found}) > 1
    }
    if not curves:
        return Drawing(
            name, title, why="no method was trained with more than one budget on one backbone"
        )
    bounds = dict(zip(cells.encoders, pairs.bounds(pairs.overall), strict=True))
    figure, (axes,) = side_by_side([""])
    for i, found in enumerate(list(curves.values())[:_MOST]):
        points = sorted((cells.tokens(label) or 0, label) for label in found)
        axes.plot(
            [x for x, _ in points],
            [100 * means[label] for _, label in points],
            linewidth=1.2,
            **_line(i),
        )
        for x, label in points:
            if ends := bounds[label]:
                axes.plot(
                    [x, x], [100 * end for end in ends], color=_line(i)["color"], linewidth=0.8
                )
            _mark(
                axes,
                (x, 100 * means[label]),
                i,
                f"{named(cells, label)}, {x:,} training tokens: {number(means[label], ends)}",
            )
    axes.set_xscale("log")
    _count_tokens(axes, "token positions through the trained network")
    axes.set_ylabel("mean of family means x 100")
    _name_curves(figure, list(curves)[:_MOST])
    return Drawing(
        name, title, "Each point is a checkpoint of its own; whiskers: 95 % interval.", figure
    )


@styled
def loss(pairs: Pairs) -> Drawing:
    """Return the training loss over tokens, a panel a method and stage, since the losses of two of them measure different things."""
    name, title, cells = "loss", "Loss over training", pairs.cells
    curves: dict[str, list[tuple[str, Sequence[Sequence[float]]]]] = {}
    for label in cells.encoders:
        training = cells.training(label)
        method = str(training.get("method") or label)
        for stage, points in _losses(training):
            curves.setdefault(f"{method}: {stage}" if stage else method, []).append((label, points))
    if not curves:
        return Drawing(name, title, why="no encoder's card holds the losses of its training")
    figure, axes = side_by_side(list(curves))
    for panel, found in zip(axes, curves.values(), strict=True):
        for i, (label, points) in enumerate(found[:_MOST]):
            (line,) = panel.plot(
                *zip(*points, strict=True), linewidth=1.2, label=shortened(label), **_line(i)
            )
            told(
                line,
                f"{label}: loss {points[0][1]:.3f} at {points[0][0]:,.0f} tokens, {points[-1][1]:.3f} at {points[-1][0]:,.0f}",
            )
        if len(found) > 1 or found[0][0] != panel.get_title(loc="left").split(":")[0]:
            panel.legend(fontsize=7)
        _count_tokens(panel, "token positions trained")
        panel.set_ylabel("loss")
    return Drawing(
        name,
        title,
        "Losses of different methods and stages measure different things: compare shapes, not heights.",
        figure,
    )


def _losses(card: Mapping[str, Any]) -> "list[tuple[str, Sequence[Sequence[float]]]]":
    """Return the loss curves of a card by stage, or the one that it has under no stage's name."""
    stages = [stage for stage in card.get("stages") or () if isinstance(stage, Mapping)]
    found = [
        (str(stage.get("stage")), points)
        for stage in stages
        if len(points := stage.get("loss") or ()) > 1
    ]
    own = card.get("loss") or ()
    return found or ([("", own)] if len(own) > 1 else [])


def _line(i: int) -> dict[str, Any]:
    return {"color": COLORS[i % len(COLORS)], "linestyle": _LINES[i // len(COLORS) % len(_LINES)]}


def _mark(panel: "Axes", place: tuple[float, float], i: int, tip: str) -> None:
    color, marker = COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)]
    (point,) = panel.plot(
        *place, marker, color=color, markersize=4.5, markeredgecolor=SURFACE, markeredgewidth=0.5
    )
    told(point, tip)


def _name_curves(figure: "Figure", names: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [],
            [],
            marker=MARKERS[i % len(MARKERS)],
            markersize=4.5,
            label=shortened(name),
            **_line(i),
        )
        for i, name in enumerate(names)
    ]
    figure.legend(handles=handles, loc="outside lower left", fontsize=8, ncols=min(len(names), 3))


def _count_tokens(axes: "Axes", words: str) -> None:
    from matplotlib.ticker import EngFormatter, NullFormatter

    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(words)


def _said(layer: int | None) -> str:
    return "last layer" if layer is None else f"layer {layer}"


def _thinned(numbers: Sequence[int]) -> list[int]:
    return list(numbers[:: max(1, -(-len(numbers) // 8))])
