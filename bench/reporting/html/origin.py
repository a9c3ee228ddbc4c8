"""Where a number comes from, in words: what the page shows of a cell when it is asked."""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from bench.reporting.comparison import Comparison, strip_folders
from bench.reporting.context import command_of
from bench.reporting.notes import machine
from bench.result import Result

Block = tuple[str, tuple[tuple[str, str], ...]]
"""A heading with (what, value) pairs under it."""

_COST = {
    "encode_seconds": ("seconds", 1),
    "forward_texts": ("texts through the network", 0),
    "tokens": ("tokens", 0),
    "padded_tokens": ("with padding", 0),
    "peak_memory_mb": ("peak memory of the process, MB", 0),
}
_TEXTS = {
    "asked": "texts",
    "distinct": "distinct texts",
    "repeated_share": "duplicates",
    "truncated_share": "truncated",
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


def origins(c: Comparison, keys: Collection[str]) -> dict[str, Any]:
    """Return the origin of the cells of these keys; what several cells share is stored once.

    Returns:
        ``shapes``: a heading and the names under it; ``blocks``: number of a shape and its values; ``cells``: by key
        the encoder, the task, and its blocks, or their numbers where others have them too.
    """
    found = {}
    for (label, title), results in c.cells.items():
        if key := next((r.spec.key for r in results if r.spec.key in keys), ""):
            found[key] = (c.encoders.at[label, "title"], title, _blocks(c, label, title))
    counts = Counter(block for *_, blocks in found.values() for block in blocks)
    shared = {block: i for i, block in enumerate(b for b, count in counts.items() if count > 1)}
    shapes: dict[tuple[str, ...], int] = {}

    def flat(block: Block) -> list[int | str]:
        heading, pairs = block
        shape = (heading, *(name for name, _ in pairs))
        return [shapes.setdefault(shape, len(shapes)), *(value for _, value in pairs)]

    blocks = [flat(block) for block in shared]
    cells = {
        key: [encoder, task, [shared.get(block, flat(block)) for block in own]]
        for key, (encoder, task, own) in found.items()
    }
    return {"blocks": blocks, "cells": cells, "shapes": [list(shape) for shape in shapes]}


def _blocks(c: Comparison, label: str, title: str) -> list[Block]:
    """Return the blocks of a cell; what all its seeds share appears once."""
    results = sorted(c.cells[label, title], key=lambda r: r.spec.seed)
    several = len(results) > 1
    blocks: list[Block] = [
        (f"Score with seed {r.spec.seed}" if several else "Score", _scores(r)) for r in results
    ]
    for r in results:
        blocks += [
            ("How it was made", _made(r)),
            ("Data", _data(r)),
            ("Encoding, up to this cell", _cost(r)),
            ("Texts", _texts(r)),
        ]
    first, task = results[0], c.tasks.loc[title]
    card = {name: first.card.get(name) for name in _CARD}
    sides = " and ".join(first.card.get("instructed_sides", ()))
    settings = {
        name: strip_folders(value) if isinstance(value, str) else value
        for name, value in first.spec.settings.items()
    }
    protocol = {
        "family": task.family,
        "read-out": task.readout,
        "protocol": task.protocol,
        "limit": task.limit or "none",
        "main score": task.metric,
    }
    blocks += [
        (
            "Encoder",
            _words({**card, "instructed sides": sides, "fingerprint": first.spec.fingerprint}),
        ),
        ("Settings", _words(settings)),
        ("Task", _words(protocol)),
    ]
    return [block for block in dict.fromkeys(blocks) if block[1]]


def _scores(result: Result) -> tuple[tuple[str, str], ...]:
    rows = []
    for name in sorted(result.scores, key=lambda name: (name != result.metric, name)):
        score = result.scores[name]
        text = f"{score.mean:.6f}"
        if score.spread is not None:
            text += f" ± {score.spread:.4f} over {len(score.repeats)} repeats"
        rows.append((name, text))
    if 1 < len(result.main.repeats) <= 20:
        rows.append(("repeats", ", ".join(f"{value:.4f}" for value in result.main.repeats)))
    if (seconds := result.cost.get("seconds")) is not None:
        rows.append(("seconds of this cell", f"{seconds:,.1f}"))
    if time := result.provenance.get("time"):
        rows.append(("finished", str(time)))
    return (*rows, ("key", result.spec.key))


def _cost(result: Result) -> tuple[tuple[str, str], ...]:
    known = {name: value for name in _COST if (value := result.cost.get(name)) is not None}
    return tuple((_COST[name][0], f"{known[name]:,.{_COST[name][1]}f}") for name in known)


def _texts(result: Result) -> tuple[tuple[str, str], ...]:
    rows = []
    for name, words in _TEXTS.items():
        if (value := result.texts.get(name)) is not None:
            is_share = name.endswith("share")
            rows.append((words, f"{100 * value:.1f} %" if is_share else f"{value:,.0f}"))
    return tuple(rows)


def _made(result: Result) -> tuple[tuple[str, str], ...]:
    made = result.provenance
    versions = [f"{name} {version}" for name, version in (made.get("versions") or {}).items()]
    return _words(
        {
            "command": command_of(made),
            "commit": made.get("commit"),
            "seed": str(result.spec.seed),
            "machine": machine(made.get("machine") or {}),
            "device": result.card.get("device"),
            "versions": ", ".join(versions),
        }
    )


def _data(result: Result) -> tuple[tuple[str, str], ...]:
    rows = []
    for used in result.provenance.get("data", ()):
        pins = [f"{name} {used[name]}" for name in ("revision", "sha256") if used.get(name)]
        source = ", ".join(filter(None, (str(used.get("source") or ""), *pins)))
        split = "/".join(filter(None, (used["id"], used.get("config"), used.get("split"))))
        rows.append((split, source or "not recorded"))
    return tuple(rows)


def _words(found: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return plain values in words; what is not known is left out."""
    known = {name: value for name, value in found.items() if value not in (None, "")}
    return tuple((name.replace("_", " "), _word(value)) for name, value in known.items())


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)
