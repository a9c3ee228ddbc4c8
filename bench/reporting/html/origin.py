"""The origin of a number: what the page shows of a cell on request."""

from collections.abc import Collection, Mapping
from typing import Any

from bench.reporting.comparison import Comparison
from bench.reporting.context import command_of
from bench.reporting.names import source_name, strip_folders
from bench.reporting.notes import machine
from bench.reporting.table import MISSING, measure, share
from bench.store.result import Result

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
    """Return the origin of the cells of these keys; equal blocks are stored once.

    Returns:
        ``blocks``: a heading and (what, value) pairs each; ``cells``: by key the encoder, the task,
        and the numbers of its blocks.
    """
    numbers: dict[Block, int] = {}
    cells = {}
    for (label, title), results in c.cells.items():
        if key := next((r.spec.key for r in results if r.spec.key in keys), ""):
            blocks = [block for block in dict.fromkeys(_blocks(c, label, title)) if block[1]]
            places = [numbers.setdefault(block, len(numbers)) for block in blocks]
            cells[key] = [c.encoders.at[label, "title"], title, places]
    return {"blocks": list(numbers), "cells": cells}


def _blocks(c: Comparison, label: str, title: str) -> list[Block]:
    """Return the blocks of a cell, scores first."""
    results = sorted(c.cells[label, title], key=lambda r: r.spec.seed)
    several = len(results) > 1
    blocks: list[Block] = [
        (f"Score with seed {r.spec.seed}" if several else "Score", _scores(r)) for r in results
    ]
    for r in results:
        cost = {
            what: measure(r.cost.get(name), digits=digits).text
            for name, (what, digits) in _COST.items()
        }
        texts = {
            what: (share if name.endswith("share") else measure)(r.texts.get(name)).text
            for name, what in _TEXTS.items()
        }
        blocks += [
            ("Provenance", _made(r)),
            ("Data", _data(r)),
            ("Encoding, up to this cell", _words(cost)),
            ("Texts", _words(texts)),
        ]
    first, task = results[0], c.tasks.loc[title]
    card = {name: first.card.get(name) for name in _CARD}
    card["instructed sides"] = " and ".join(first.card.get("instructed_sides", ()))
    card["fingerprint"] = first.spec.fingerprint
    settings = {
        name: strip_folders(value) if isinstance(value, str) else value
        for name, value in first.spec.settings.items()
    }
    protocol = {
        "family": task.family,
        "read-out": task.readout,
        "protocol": str(task.protocol),
        "limit": task.limit or "none",
        "main score": task.metric,
    }
    blocks += [("Encoder", _words(card)), ("Settings", _words(settings))]
    return [*blocks, ("Task", _words(protocol))]


def _scores(result: Result) -> tuple[tuple[str, str], ...]:
    rows = {}
    for name in sorted(result.scores, key=lambda name: (name != result.metric, name)):
        score = result.scores[name]
        more = ""
        if score.spread is not None:
            more = f" ± {score.spread:.4f} over {len(score.repeats)} repeats"
        rows[name] = f"{score.mean:.6f}{more}"
    if 1 < len(result.main.repeats) <= 20:
        rows["repeats"] = ", ".join(f"{value:.4f}" for value in result.main.repeats)
    rest = {
        "seconds of this cell": measure(result.cost.get("seconds"), digits=1).text,
        "finished": result.provenance.get("time"),
        "key": result.spec.key,
    }
    return (*rows.items(), *_words(rest))


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
        rows.append((source_name(used), source or "not recorded"))
    return tuple(rows)


def _words(found: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return plain values in words; unknown ones are left out."""
    known = {name: value for name, value in found.items() if value not in (None, "", MISSING)}
    return tuple((name.replace("_", " "), _word(value)) for name, value in known.items())


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)
