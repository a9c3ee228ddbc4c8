"""The first table: what was compared, and how much each encoder gains over the backbone."""

import pandas as pd

from bench.reporting.comparison import MEAN, Comparison
from bench.reporting.differences import difference_entries
from bench.reporting.names import known_encoder
from bench.reporting.scores import method_of
from bench.reporting.table import Entry, Table, measure, missing, score, warned, word

ROLES = {
    "method": "method",
    "untrained": "untrained backbone",
    "reference": "reference model",
}
"""Roles of encoders, in the order in which they are listed."""


def by_role(c: Comparison) -> list[str]:
    """Return the labels: methods first, then the untrained backbone, then reference models."""
    places = c.encoders.role.map(list(ROLES).index)
    return list(places.sort_values(kind="stable").index)


def summary(c: Comparison) -> Table:
    """Return a row per encoder: what it is, its mean, and the difference to the backbone."""
    labels = by_role(c)
    encoders = c.encoders.loc[labels]
    about = [_about(c, label) for label in labels]
    papers = [word(each.get("paper"), each.get("link", "")) for each in about]
    text = "Mean of family means x 100"
    gains = []
    if c.baseline is not None:
        gains = [(f"minus {c.baseline}", _gains(c, c.baseline, labels))]
        text += f", and the difference to {c.baseline} with its 95 % interval; *: significant"
    columns = [
        ("encoder", [word(title) for title in encoders.title]),
        *gains,
        (MEAN, [_mean(c, label) for label in labels]),
        ("training tokens", [measure(tokens) for tokens in encoders.tokens]),
        ("what it is", [word(each.get("idea")) for each in about]),
        ("paper", papers),
        ("role", [word(ROLES[role]) for role in encoders.role]),
    ]
    return Table.of_columns(
        "summary",
        "What was compared",
        columns if len(labels) > 1 else [],
        words={"encoder", "role", "what it is", "paper"},
        about=f"{text}.",
    )


def _gains(c: Comparison, baseline: str, labels: list[str]) -> list[Entry]:
    rows, base = c.numbers(labels), c.number[baseline]
    found = difference_entries(c.overall, c.p_means[MEAN], rows, base, digits=c.digits)
    found[labels.index(baseline)] = missing()
    return found


def _about(c: Comparison, label: str) -> dict[str, str]:
    """Return what is known of an encoder, under its own name or the method that trained it."""
    own = known_encoder(str(c.encoders.at[label, "name"]))
    trained = known_encoder(method_of(c, label))
    if own.get("role") == "untrained" and c.encoders.at[label, "role"] == "method":
        return trained  # it pools the weights of a training
    return own or trained


def _mean(c: Comparison, label: str) -> Entry:
    mean = c.encoders.at[label, "mean"]
    if pd.isna(mean):
        return missing("lacks a family")
    bounds = c.overall.intervals.bounds()[c.number[label]]
    entry = Entry(score(mean, digits=c.digits), float(mean), bounds)
    return warned(entry, c.overlap_warning(label, c.common))
