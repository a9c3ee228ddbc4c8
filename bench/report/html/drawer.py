"""Where a number comes from, in words: what the page shows of a cell when it is asked."""

import shlex
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from bench.report.cells import Cells, Column, named, placeless
from bench.report.notes import machine
from bench.result import Result

Block = tuple[str, tuple[tuple[str, str], ...]]
"""A heading and what stands under it: (what, value) each."""

_COST = {
    "encode_seconds": ("seconds", 1),
    "forward_texts": ("texts through the network", 0),
    "tokens": ("token positions", 0),
    "padded_tokens": ("with padding", 0),
    "peak_memory_mb": ("peak memory of the process, MB", 0),
}
_TEXTS = {
    "asked": "texts",
    "distinct": "distinct texts",
    "repeated_share": "seen before",
    "truncated_share": "cut",
    "overlap_share": "overlap",
}
_CARD = (
    "backbone",
    "parameters",
    "trained",
    "training_tokens",
    "dtype",
    "device",
    "licence",
    "weights",
)


def drawers(cells: Cells, keys: Collection[str]) -> dict[str, Any]:
    """Return what stands behind the cells of these keys, everything that several share once.

    Returns:
        ``shapes``: a heading and what is told under it; ``blocks``: the number of a shape and its values; ``cells``: by key, the
        encoder, the task, and its blocks, or the numbers of those that others have too.
    """
    found = {}
    for (label, column), results in cells.results.items():
        if key := next((r.spec.key for r in results if r.spec.key in keys), ""):
            found[key] = (named(cells, label), cells.title(column), _blocks(cells, label, column))
    often = Counter(block for *_, blocks in found.values() for block in blocks)
    shared = {
        block: i for i, block in enumerate(block for block, count in often.items() if count > 1)
    }
    shapes: dict[tuple[str, ...], int] = {}

    def flat(block: Block) -> list[int | str]:
        heading, pairs = block
        shape = shapes.setdefault((heading, *(what for what, _ in pairs)), len(shapes))
        return [shape, *(value for _, value in pairs)]

    return {
        "blocks": [flat(block) for block in shared],
        "cells": {
            key: [
                encoder,
                task,
                [shared[block] if block in shared else flat(block) for block in blocks],
            ]
            for key, (encoder, task, blocks) in found.items()
        },
        "shapes": [list(shape) for shape in shapes],
    }


def _blocks(cells: Cells, label: str, column: Column) -> list[Block]:
    """Return the blocks of a cell; what all its seeds share is told once."""
    results = sorted(cells.results[label, column], key=lambda r: r.spec.seed)
    blocks: list[Block] = []
    for r in results:
        several = f" with seed {r.spec.seed}" if len(results) > 1 else ""
        blocks.append((f"Score{several}", _scores(r)))
    for r in results:
        blocks += [*_made(r), ("Encoding, up to this cell", _measured(r)), ("Texts", _texts(r))]
    first = results[0]
    card = {name: first.card.get(name) for name in _CARD} | {"fingerprint": first.spec.fingerprint}
    settings = {
        name: placeless(value) if isinstance(value, str) else value
        for name, value in first.spec.settings.items()
    }
    protocol = {
        "family": column.family,
        "read-out": column.readout,
        "protocol": column.version,
        "limit": column.limit or "none",
    }
    blocks += [
        ("Encoder", _pairs(card)),
        ("Settings", _pairs(settings)),
        ("Task", (*_pairs(protocol), ("main score", column.metric))),
    ]
    return [block for block in dict.fromkeys(blocks) if block[1]]


def _scores(result: Result) -> tuple[tuple[str, str], ...]:
    rows = []
    for name, score in sorted(
        result.scores.items(), key=lambda item: (item[0] != result.metric, item[0])
    ):
        spread = (
            f" ± {score.spread:.4f} over {len(score.repeats)} repeats"
            if score.spread is not None
            else ""
        )
        rows.append((name, f"{score.mean:.6f}{spread}"))
    if 1 < len(result.main.repeats) <= 20:
        rows.append(("repeats", ", ".join(f"{value:.4f}" for value in result.main.repeats)))
    seconds, time = result.cost.get("seconds"), result.provenance.get("time")
    rows += [("seconds of this cell", f"{seconds:,.1f}")] if seconds is not None else []
    rows += [("finished", str(time))] if time else []
    return (*rows, ("key", result.spec.key))


def _measured(result: Result) -> tuple[tuple[str, str], ...]:
    return tuple(
        (words, f"{result.cost[name]:,.{digits}f}")
        for name, (words, digits) in _COST.items()
        if result.cost.get(name) is not None
    )


def _texts(result: Result) -> tuple[tuple[str, str], ...]:
    known = [
        (name, words, value)
        for name, words in _TEXTS.items()
        if (value := result.texts.get(name)) is not None
    ]
    return tuple(
        (words, f"{100 * value:.1f} %" if name.endswith("share") else f"{value:,.0f}")
        for name, words, value in known
    )


def _made(result: Result) -> list[Block]:
    """Return how the result was made, and the data it read."""
    source = result.provenance
    command = (
        shlex.join(placeless(part) for part in shlex.split(source["command"]))
        if source.get("command")
        else ""
    )
    rows = (
        ("command", command),
        ("commit", str(source.get("commit") or "")),
        ("seed", str(result.spec.seed)),
        ("machine", machine(source.get("machine") or {})),
        ("device", str(result.card.get("device") or "")),
        (
            "versions",
            ", ".join(
                f"{name} {version}" for name, version in (source.get("versions") or {}).items()
            ),
        ),
    )
    data = tuple(
        ("/".join(filter(None, (d["id"], d.get("config"), d.get("split")))), _origin(d))
        for d in source.get("data", ())
    )
    return [
        ("How it was made", tuple((what, value) for what, value in rows if value)),
        ("Data", data),
    ]


def _origin(data: Mapping[str, Any]) -> str:
    """Return where a data set came from, with what pins its content."""
    pins = [f"{name} {data[name]}" for name in ("revision", "sha256") if data.get(name)]
    return ", ".join([str(data["source"])] * bool(data.get("source")) + pins) or "not recorded"


def _pairs(found: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return plain values in words; what is not known is left out."""
    rows = []
    for name, value in found.items():
        if value is None or value == "":
            continue
        text = (
            {True: "yes", False: "no"}[value]
            if isinstance(value, bool)
            else f"{value:,}"
            if isinstance(value, int)
            else str(value)
        )
        rows.append((name.replace("_", " "), text))
    return tuple(rows)
