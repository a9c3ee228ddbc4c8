"""Curves: scores over layers, scores and loss over training, and the spectrum of embeddings."""

import json
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, MaxNLocator, NullFormatter

from bench.reporting.comparison import MEAN, Comparison
from bench.reporting.figures.drawing import (
    COLORS,
    INK,
    MOST_CURVES,
    RULE,
    Sketch,
    add_tip,
    draw_curve,
    line_style,
    name_curves,
    name_marks,
    number,
    report_figure,
    scaled,
    shortened,
    side_by_side,
)
from bench.reporting.names import TASK
from bench.reporting.scores import WITHIN, method_of
from bench.reporting.table import score
from bench.store.result import Result
from bench.task import PICKING, limited

_LAYER = r"@(\d+)$"


@report_figure("layers", "Scores over layers", beside="by-task")
def layers(c: Comparison) -> Sketch:
    """Return the scores of tasks read at several layers, or that pick one, a curve per encoder."""
    groups = [group for _, group in _by_layer(c) if len(group) > 1]
    picking = {str(t): curves for t in c.tasks.index if (curves := _picking(c, str(t)))}
    if not groups and not picking:
        return (
            "no task was read at several layers (a read-out such as bertscore@12, or mrpc-picked)"
        )
    titles = list(chain(*(group.index for group in groups)))
    has = c.scores.loc[[*titles, *picking]].notna().any()
    encoders = [label for label in c.labels if has[label]]
    shown = encoders[:MOST_CURVES]
    first = [group.iloc[0] for group in groups]
    headings = [limited(task.task, task.limit) for task in first]
    headings += [f"{c.tasks.at[title, 'task']}: validation pairs" for title in picking]
    figure, axes = side_by_side(headings)
    for panel, group in zip(axes, groups, strict=False):
        _draw_layers(panel, c, group, shown)
    for panel, (task, curves) in zip(axes[len(groups) :], picking.items(), strict=True):
        _draw_picking(panel, c, curves, shown)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.set(xlabel="layer from the last (-1)", ylabel=f"{c.tasks.at[task, 'metric']} x 100")
    name_curves(figure, c.encoders.title[shown])
    about = []
    if groups:
        about.append("Main score x 100 by layer, 0 being the input embeddings.")
    if any(any(c.by_task[title].intervals.bounds()) for title in titles):
        about.append("Bars: 95 % interval.")
    if any(group.layer.isna().any() for group in groups):
        about.append("last: each encoder's own last layer, whose number is not known here.")
    if picking:
        about.append("Where a task picks a layer: the scores on the pairs that it picks on.")
    text = " ".join(about) + _left_out(shown, encoders)
    return figure, text


def _left_out(shown: Sequence[str], encoders: Sequence[str]) -> str:
    """Say that some encoders have no curve, for want of colours."""
    if len(shown) == len(encoders):
        return ""
    return f" The {len(shown)} best of {len(encoders)} encoders."


def _by_layer(c: Comparison) -> Any:  # noqa: ANN401 - a groupby of pandas
    """Return the tasks grouped by everything but their layer, which is NaN for the last one."""
    layer = c.tasks.readout.str.extract(_LAYER)[0]
    tasks = c.tasks[TASK].assign(layer=layer.astype(float))
    for column in ("task", "readout"):
        tasks[column] = tasks[column].str.replace(_LAYER, "", regex=True)
    return tasks.groupby(TASK)


def _draw_layers(panel: Axes, c: Comparison, group: pd.DataFrame, encoders: Sequence[str]) -> None:
    numbers = sorted(group.layer.dropna().astype(int))
    last = numbers[-1] + max(1, (numbers[-1] - numbers[0]) / 8)
    places = group.layer.fillna(last).sort_values()
    if group.layer.isna().any():  # beside the axis of numbers, since its own is not known
        panel.axvline((numbers[-1] + last) / 2, color=RULE, linewidth=1.2)
    bounds = {title: c.by_task[title].intervals.bounds() for title in places.index}
    for i, label in enumerate(encoders):
        scores = c.scores.loc[places.index, label].dropna()
        ends = [bounds[title][c.number[label]] for title in scores.index]
        tips = [
            f"{c.encoders.at[label, 'title']}, {_where(group.layer[title])}: {number(value, end)}"
            for (title, value), end in zip(scores.items(), ends, strict=True)
        ]
        xs, values = places[scores.index].tolist(), (100 * scores).tolist()
        joined = int(group.layer[scores.index].notna().sum())
        draw_curve(panel, i, xs, values, tips, [scaled(end) for end in ends], joined=joined)
    ticks = {number: str(number) for number in numbers[:: max(1, -(-len(numbers) // 8))]}
    if group.layer.isna().any():
        ticks[last] = "last"
    panel.set_xticks(list(ticks), list(ticks.values()))
    panel.set(xlabel="layer", ylabel=f"{c.tasks.at[group.index[0], 'metric']} x 100")


def _where(layer: float) -> str:
    return "last layer" if pd.isna(layer) else f"layer {layer:.0f}"


def _picking(c: Comparison, title: str) -> dict[str, dict[int, float]]:
    """Return the scores that a task picked a layer by, by encoder and layer; {} for other tasks."""
    found = {}
    for label in c.labels:
        for result in c.cells.get((label, title), [])[:1]:
            if layers := _numbered(result, PICKING):
                found[label] = layers
    return found


def _numbered(result: Result, prefix: str) -> dict[int, float]:
    """Return the scores whose names are a prefix and a number, by this number."""
    names = [name for name in result.scores if name.startswith(prefix)]
    found = {int(name.removeprefix(prefix)): result.scores[name].mean for name in names}
    return dict(sorted(found.items()))


def _draw_picking(
    panel: Axes, c: Comparison, curves: Mapping[str, dict[int, float]], encoders: Sequence[str]
) -> None:
    for i, label in enumerate(encoders):
        points = curves.get(label, {})
        values = [100 * value for value in points.values()]
        title = c.encoders.at[label, "title"]
        tips = [f"{title}, layer {n}: {score(value)}" for n, value in points.items()]
        draw_curve(panel, i, list(points), values, tips)


@report_figure("spectrum", "Spectrum of embeddings", beside="diagnostics")
def spectrum(c: Comparison) -> Sketch:
    """Return the variance in the first principal directions, and correlations of memory states."""
    found = {label: result for label in c.labels if (result := _diagnosed(c, label))}
    if not found:
        return "no diagnostics were run (stsb-spectrum)"
    shown = list(found)[:MOST_CURVES]
    titles = c.encoders.title
    key = "memory_correlation"
    measured = [label for label in shown if key in found[label].scores]
    memories = {label: found[label].scores[key].mean for label in measured}
    second = ["correlation of a text's memory states"] if memories else []
    figure, axes = side_by_side(["variance in the first directions", *second])
    for i, label in enumerate(shown):
        points = _numbered(found[label], "share_")
        tips = [
            f"{titles[label]}: {score(v)} % of variance in {n} directions"
            for n, v in points.items()
        ]
        draw_curve(axes[0], i, list(points), list(points.values()), tips)
    axes[0].set_xscale("log", base=2)
    axes[0].xaxis.set_major_formatter("{x:g}")
    axes[0].set(xlabel="principal directions", ylabel="share of variance", ylim=(0, 1.02))
    text = "The earlier a curve reaches 1, the fewer directions carry the embeddings."
    if memories:
        colors = [COLORS[shown.index(label)] for label in memories]
        _draw_memories(axes[1], c, memories, colors)
        text += " Memory states with correlation 1 have collapsed."
    name_curves(figure, titles[shown])
    text += _left_out(shown, list(found))
    return figure, text


def _draw_memories(
    panel: Axes, c: Comparison, memories: Mapping[str, float], colors: Sequence[str]
) -> None:
    values = list(memories.values())
    bars = panel.bar(range(len(values)), values, width=0.5, color=colors)
    for bar, (label, value) in zip(bars, memories.items(), strict=True):
        add_tip(bar, f"{c.encoders.at[label, 'title']}: mean correlation {value:.3f}")
    panel.bar_label(bars, fmt="{:.2f}", fontsize=8)
    panel.set_ylim(min(0.0, *values), 1.08)
    panel.set_xlim(-0.6, max(len(values), 4) - 0.4)
    panel.set_xticks([])


def _diagnosed(c: Comparison, label: str) -> Result | None:
    return next((r for r in c.of_encoder(label) if "share_1" in r.scores), None)


@report_figure("learning", "Score over training tokens", beside="training")
def learning(c: Comparison) -> Sketch:
    """Return the mean score over training tokens, a curve per set of settings."""
    trained = c.encoders[c.encoders.tokens.notna() & c.encoders["mean"].notna()]
    if trained.empty or trained.tokens.max() < (1 + WITHIN) * trained.tokens.min():
        return "no two encoders with a mean over families that were trained on different budgets"
    same = [_all_but_budget(c, str(label)) for label in trained.index]
    bounds = c.overall.intervals.bounds()
    figure, (axes,) = side_by_side([""])
    marks = {}
    groups = [group for _, group in trained.groupby(pd.Series(same, index=trained.index))]
    for i, group in enumerate(groups[:MOST_CURVES]):
        curve = group.sort_values("tokens")
        marks[curve.title.iloc[-1]] = line_style(i)
        ends = [bounds[c.number[str(label)]] for label in curve.index]
        tips = [
            f"{row.title}, {row.tokens:,} training tokens: {number(row.mean, end)}"
            for row, end in zip(curve.itertuples(), ends, strict=True)
        ]
        values = (100 * curve["mean"].astype(float)).tolist()
        draw_curve(axes, i, curve.tokens.tolist(), values, tips, [scaled(end) for end in ends])
    about = "Each point is a checkpoint."
    if any(len(group) > 1 for group in groups[:MOST_CURVES]):
        about += " Lines join those that differ in budget alone."
    if any(bounds[c.number[str(label)]] for label in trained.index):
        about += " Bars: 95 % interval."
    if len(groups) > MOST_CURVES:
        about += f" The first {MOST_CURVES} of {len(groups)} sets of settings."
    if c.baseline is not None and not pd.isna(c.encoders.at[c.baseline, "mean"]):
        style: Any = {"color": INK, "linestyle": (0, (4, 3)), "linewidth": 0.9}
        axes.axhline(100 * c.encoders.at[c.baseline, "mean"], **style)
        marks[c.baseline] = style
    axes.set_xscale("log")
    _count_tokens(axes, "training tokens")
    axes.set_ylabel(f"{MEAN} x 100")
    name_marks(figure, marks)
    return figure, about


def _all_but_budget(c: Comparison, label: str) -> str:
    """Return what distinguishes an encoder from others, except its budget and its checkpoint.

    One whose card does not say how it was trained is like no other.
    """
    encoder = c.encoders.loc[label]
    training = encoder.training
    if not isinstance(training.get("recipe"), Mapping):
        return label
    settings = dict(c.of_encoder(label)[0].spec.settings)
    settings.pop("checkpoint", None)
    stages = [s.get("stage") for s in training.get("stages") or () if isinstance(s, Mapping)]
    data = [used.get("id") for used in training.get("data") or () if isinstance(used, Mapping)]
    same = [method_of(c, label), encoder.base, training["recipe"], training.get("seed")]
    return json.dumps([*same, stages, data, settings], sort_keys=True, default=str)


@report_figure("loss", "Training loss", beside="training")
def loss(c: Comparison) -> Sketch:
    """Return the training loss over tokens, a panel per method and stage."""
    curves: dict[str, list[tuple[str, Sequence[Sequence[float]]]]] = {}
    for label, training in c.encoders.training.items():
        method = method_of(c, str(label))
        for stage, points in _losses(training):
            heading = f"{method}: {stage}" if stage else method
            curves.setdefault(heading, []).append((str(label), points))
    if not curves:
        return "no card has the losses of its training"
    figure, axes = side_by_side(list(curves))
    for panel, (heading, found) in zip(axes, curves.items(), strict=True):
        for color, (label, points) in zip(COLORS, found, strict=False):
            style: Any = {"linewidth": 1.2, "label": shortened(label), "color": color}
            (line,) = panel.plot(*zip(*points, strict=True), **style)
            (start, first), (end, last) = points[0], points[-1]
            ends = f"{first:.3f} at {start:,.0f} tokens, {last:.3f} at {end:,.0f}"
            add_tip(line, f"{label}: loss {ends}")
        if len(found) > 1 or found[0][0] != heading.split(":")[0]:
            panel.legend(fontsize=7)
        _count_tokens(panel, "tokens trained")
        panel.set_ylabel("loss")
    about = "Losses of different methods and stages are not comparable in height."
    most = max(map(len, curves.values()))
    if most > MOST_CURVES:
        about += f" The first {MOST_CURVES} encoders of each panel."
    return figure, about


def _losses(card: Mapping[str, Any]) -> list[tuple[str, Sequence[Sequence[float]]]]:
    """Return the loss curves of a card by stage, or its single one without a stage's name."""
    stages = [stage for stage in card.get("stages") or () if isinstance(stage, Mapping)]
    curves = [(str(stage.get("stage")), stage.get("loss") or ()) for stage in stages]
    found = [(stage, points) for stage, points in curves if len(points) > 1]
    own = card.get("loss") or ()
    return found or ([("", own)] if len(own) > 1 else [])


def _count_tokens(axes: Axes, words: str) -> None:
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(words)
