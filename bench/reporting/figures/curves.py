"""Curves: scores over the layers of a network, loss and scores over training, and the spectrum of embeddings."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, NullFormatter

from bench.reporting.comparison import TASK, Comparison
from bench.reporting.figures.drawing import (
    Drawing,
    add_tip,
    draw_point,
    line_style,
    name_curves,
    number,
    shortened,
    side_by_side,
    styled,
)
from bench.task import PICKING

_MOST = 14  # encoders: colours and dashes do not tell more apart
_LAYER = r"@(\d+)$"


@styled
def layers(c: Comparison) -> Drawing:
    """Return the score of every task that was read at several layers, or that picked one, a curve per encoder."""
    name, title = "layers", "Scores over layers"
    groups = [group for _, group in _by_layer(c) if len(group) > 1]
    picking = {t: curves for t in c.tasks.index if (curves := _picking(c, str(t)))}
    if not groups and not picking:
        why = "no task was read at more than one layer (a read-out such as bertscore@12, or mrpc-picked)"
        return Drawing(name, title, why=why)
    titles = [title for group in groups for title in group.index]
    has = c.scores.loc[[*titles, *picking]].notna().any()
    encoders = [label for label in c.labels if has[label]]
    headings = [_stem(group.iloc[0]) for group in groups]
    headings += [f"{c.tasks.at[title, 'task']}: other pairs" for title in picking]
    figure, axes = side_by_side(headings)
    for panel, group in zip(axes, groups, strict=False):
        _draw_layers(panel, c, group, encoders[:_MOST])
    for panel, (title_, curves) in zip(axes[len(groups) :], picking.items(), strict=True):
        _draw_picking(panel, c, curves, encoders[:_MOST])
        metric = c.tasks.at[title_, "metric"]
        panel.set(xlabel="layer, counted from the last (-1)", ylabel=f"{metric} x 100")
    name_curves(figure, list(c.encoders.title[encoders[:_MOST]]))
    more = f" The {_MOST} best of {len(encoders)} encoders." if len(encoders) > _MOST else ""
    about = (
        "Main score x 100 over the layer that is read, 0 being the input embeddings; whiskers: 95 % interval. "
        f"Where a task picks a layer, the score on the pairs that it picks on.{more}"
    )
    return Drawing(name, title, about, figure)


def _by_layer(c: Comparison) -> Any:  # noqa: ANN401 - a groupby of pandas
    """Return the tasks grouped by everything but their layer; the layer is NaN for the last one, which has no name."""
    tasks = c.tasks[TASK].assign(layer=c.tasks.readout.str.extract(_LAYER)[0].astype(float))
    for column in ("task", "readout"):
        tasks[column] = tasks[column].str.replace(_LAYER, "", regex=True)
    return tasks.groupby(TASK)


def _stem(task: pd.Series) -> str:
    return f"{task.task} (limit {task.limit})" if task.limit else str(task.task)


def _draw_layers(panel: Axes, c: Comparison, group: pd.DataFrame, encoders: Sequence[str]) -> None:
    numbers = sorted(group.layer.dropna().astype(int))
    last = numbers[-1] + max(1, (numbers[-1] - numbers[0]) / 8)
    places = group.layer.fillna(last).sort_values()
    for i, label in enumerate(encoders):
        scores = 100 * c.scores.loc[places.index, label].dropna()
        panel.plot(places[scores.index], scores, linewidth=1.2, **line_style(i))
        for title in scores.index:
            found = c.by_task[title]
            value, bounds = float(found.scores[c.number[label]]), c.bounds(found)[c.number[label]]
            layer = group.layer[title]
            words = "last layer" if pd.isna(layer) else f"layer {layer:.0f}"
            words = f"{c.encoders.at[label, 'title']}, {words}: {number(value, bounds)}"
            draw_point(panel, places[title], value, bounds, i, words)
    ticks = numbers[:: max(1, -(-len(numbers) // 8))]
    unnamed = group.layer.isna().any()
    panel.set_xticks([*ticks, *([last] if unnamed else [])])
    panel.set_xticklabels([*map(str, ticks), *(["last"] if unnamed else [])])
    panel.set(xlabel="layer", ylabel=f"{c.tasks.at[group.index[0], 'metric']} x 100")


def _picking(c: Comparison, title: str) -> dict[str, dict[int, float]]:
    """Return by encoder and layer what a task that picks a layer scored where it picked; nothing for other tasks."""
    found = {}
    for label in c.labels:
        for result in c.cells.get((label, title), [])[:1]:
            names = [name for name in result.scores if name.startswith(PICKING)]
            layers = {int(name.removeprefix(PICKING)): result.scores[name].mean for name in names}
            if layers:
                found[label] = dict(sorted(layers.items()))
    return found


def _draw_picking(
    panel: Axes, c: Comparison, curves: Mapping[str, dict[int, float]], encoders: Sequence[str]
) -> None:
    for i, label in enumerate(encoders):
        points = curves.get(label, {})
        values = [100 * value for value in points.values()]
        panel.plot(list(points), values, linewidth=1.2, **line_style(i))
        for layer, value in points.items():
            words = (
                f"{c.encoders.at[label, 'title']}, layer {layer} on other pairs: {100 * value:.1f}"
            )
            draw_point(panel, layer, value, None, i, words)


@styled
def spectrum(c: Comparison) -> Drawing:
    """Return the share of variance in the first principal directions, and the correlation of memory states."""
    name, title = "spectrum", "Directions that embeddings use"
    found = {label: scores for label in c.labels if (scores := _diagnosed(c, label))}
    if not found:
        return Drawing(name, title, why="no diagnostics were run (stsb-spectrum)")
    shown = list(found)[:_MOST]
    key = "memory_correlation"
    memories = {label: found[label][key] for label in shown if key in found[label]}
    second = ["correlation of a text's memory states"] if memories else []
    figure, axes = side_by_side(["variance in the first directions", *second])
    for i, label in enumerate(shown):
        shares = [name for name in found[label] if name.startswith("share_")]
        points = sorted(
            (int(share.removeprefix("share_")), found[label][share]) for share in shares
        )
        axes[0].plot(*zip(*points, strict=True), linewidth=1.2, **line_style(i))
        for n, value in points:
            words = f"{c.encoders.at[label, 'title']}: {100 * value:.1f} % of the variance in {n} directions"
            draw_point(axes[0], n, value, None, i, words, scale=1)
    axes[0].set_xscale("log", base=2)
    axes[0].xaxis.set_major_formatter("{x:g}")
    axes[0].set(xlabel="principal directions", ylabel="share of the variance", ylim=(0, 1.02))
    if memories:
        _draw_memories(
            axes[1], c, memories, [line_style(shown.index(m))["color"] for m in memories]
        )
    name_curves(figure, list(c.encoders.title[shown]))
    about = (
        "The sooner a curve reaches 1, the fewer directions carry the embeddings; memory states with "
        "correlation 1 have collapsed."
    )
    return Drawing(name, title, about, figure)


def _draw_memories(
    panel: Axes, c: Comparison, memories: Mapping[str, float], colors: Sequence[str]
) -> None:
    values = list(memories.values())
    bars = panel.bar(range(len(values)), values, width=0.5, color=colors)
    for bar, (label, value) in zip(bars, memories.items(), strict=True):
        add_tip(bar, f"{c.encoders.at[label, 'title']}: mean correlation {value:.3f}")
    panel.bar_label(bars, fmt="{:.2f}", fontsize=8)
    panel.set(ylim=(min(0.0, *values), 1.02), xlim=(-0.6, max(len(values), 4) - 0.4), xticks=[])


def _diagnosed(c: Comparison, label: str) -> dict[str, float]:
    for result in c.of_encoder(label):
        if "share_1" in result.scores:
            return {name: score.mean for name, score in result.scores.items()}
    return {}


@styled
def learning(c: Comparison) -> Drawing:
    """Return the mean score over training tokens, a curve per method that was trained with several budgets."""
    name, title = "learning", "Score over training"
    trained = c.encoders[c.encoders.tokens.notna() & c.encoders["mean"].notna()]
    methods = [
        f"{encoder.training.get('method') or encoder['name']} on {encoder.base or 'its backbone'}"
        for _, encoder in trained.iterrows()
    ]
    groups = [
        (method, group.sort_values("tokens"))
        for method, group in trained.groupby(pd.Series(methods, index=trained.index, dtype=object))
        if group.tokens.nunique() > 1
    ]
    if not groups:
        why = "no method was trained with more than one budget on one backbone"
        return Drawing(name, title, why=why)
    bounds = c.bounds(c.overall)
    figure, (axes,) = side_by_side([""])
    for i, (_, group) in enumerate(groups[:_MOST]):
        axes.plot(group.tokens, 100 * group["mean"], linewidth=1.2, **line_style(i))
        for label, encoder in group.iterrows():
            ends = bounds[c.number[str(label)]]
            words = f"{encoder.title}, {encoder.tokens:,} training tokens: {number(encoder['mean'], ends)}"
            draw_point(axes, encoder.tokens, encoder["mean"], ends, i, words)
    axes.set_xscale("log")
    _count_tokens(axes, "tokens through the trained network")
    axes.set_ylabel("mean of family means x 100")
    name_curves(figure, [str(method) for method, _ in groups[:_MOST]])
    about = "Each point is a checkpoint of its own; whiskers: 95 % interval."
    return Drawing(name, title, about, figure)


@styled
def loss(c: Comparison) -> Drawing:
    """Return the training loss over tokens, a panel per method and stage."""
    name, title = "loss", "Loss over training"
    curves: dict[str, list[tuple[str, Sequence[Sequence[float]]]]] = {}
    for label, training in c.encoders.training.items():
        method = str(training.get("method") or label)
        for stage, points in _losses(training):
            heading = f"{method}: {stage}" if stage else method
            curves.setdefault(heading, []).append((str(label), points))
    if not curves:
        return Drawing(name, title, why="no encoder's card holds the losses of its training")
    figure, axes = side_by_side(list(curves))
    for panel, (heading, found) in zip(axes, curves.items(), strict=True):
        for i, (label, points) in enumerate(found[:_MOST]):
            style = {"linewidth": 1.2, "label": shortened(label), **line_style(i)}
            (line,) = panel.plot(*zip(*points, strict=True), **style)
            (start, first), (end, last) = points[0], points[-1]
            add_tip(
                line, f"{label}: loss {first:.3f} at {start:,.0f} tokens, {last:.3f} at {end:,.0f}"
            )
        if len(found) > 1 or found[0][0] != heading.split(":")[0]:
            panel.legend(fontsize=7)
        _count_tokens(panel, "tokens trained")
        panel.set_ylabel("loss")
    about = "Losses of different methods and stages measure different things: compare shapes, not heights."
    return Drawing(name, title, about, figure)


def _losses(card: Mapping[str, Any]) -> list[tuple[str, Sequence[Sequence[float]]]]:
    """Return the loss curves of a card by stage, or its single one under no stage's name."""
    stages = [stage for stage in card.get("stages") or () if isinstance(stage, Mapping)]
    curves = [(str(stage.get("stage")), stage.get("loss") or ()) for stage in stages]
    found = [(stage, points) for stage, points in curves if len(points) > 1]
    own = card.get("loss") or ()
    return found or ([("", own)] if len(own) > 1 else [])


def _count_tokens(axes: Axes, words: str) -> None:
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(words)
