"""All results as one flat DataFrame, for pandas users and results.csv."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from bench import stats
from bench.reporting.comparison import Comparison
from bench.reporting.names import TASK
from bench.store.result import Result

_CARD = (
    "trained",
    "backbone",
    "parameters",
    "embedding_parameters",
    "passes",
    "dtype",
    "device",
    "licence",
    "source",
)
_TEXTS = ("asked", "distinct", "repeated_share", "truncated_share", "overlap_share")
_COST = (
    "seconds",
    "encode_seconds",
    "forward_texts",
    "tokens",
    "padded_tokens",
    "dimension",
    "peak_memory_mb",
)
_COUNTS = (
    "parameters",
    "embedding_parameters",
    "training_tokens",
    "budget",
    "limit",
    "seed",
    "asked",
    "distinct",
    "forward_texts",
    "tokens",
    "padded_tokens",
    "dimension",
)
_MEASURES = (
    "passes",
    "wording_std",
    "repeated_share",
    "truncated_share",
    "overlap_share",
    "std",
    "stderr",
    "seconds",
    "encode_seconds",
    "peak_memory_mb",
)


def flat(c: Comparison) -> pd.DataFrame:
    """Return one row per encoder, task, seed and metric, with intervals, card and cost.

    Scores are not x 100. ``low`` and ``high`` are the 95 % interval of the encoder's score over all
    seeds. ``main`` marks the main metric of a task. A cell without a result has one row, of its
    main metric, whose ``status`` and ``reason`` say why.
    """
    encoders = {label: _encoder(c, label) for label in c.labels}
    rows = []
    for title in map(str, c.tasks.index):
        rows += [encoders[label] | row for label, row in _task(c, title)]
    frame = pd.DataFrame(rows)
    counts = [name for name in _COUNTS if name in frame]
    frame[counts] = frame[counts].astype("Int64")  # which, unlike int, may be missing
    measures = [name for name in _MEASURES if name in frame]
    frame[measures] = frame[measures].apply(pd.to_numeric)  # where all are missing they are None
    if frame.empty:
        return frame
    order = np.argsort(frame.encoder.map(c.number), kind="stable")
    return frame.iloc[order].reset_index(drop=True)


def _encoder(c: Comparison, label: str) -> dict[str, Any]:
    encoder = c.encoders.loc[label]
    return {
        "encoder": label,
        "fingerprint": c.of_encoder(label)[0].spec.fingerprint,
        **{name: encoder.card.get(name) for name in _CARD},
        "method": encoder.training.get("method"),
        "budget": encoder.training.get("budget"),
        "training_tokens": encoder.tokens,
    }


def _task(c: Comparison, title: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of a task, each with the encoder's label."""
    task = c.tasks.loc[title].to_dict()
    head = {name: task[name] for name in TASK} | {"limit": task["limit"] or None, "main": True}
    found: dict[str, stats.Estimates] = {task["metric"]: c.by_task[title].intervals}
    for i, label in enumerate(c.labels):
        results = c.cells.get((label, title), [])
        if not results:
            status, _, reason = c.absence(label, title).partition(": ")
            yield label, {**head, "repeats": 0, "status": status, "reason": reason}
        for result in results:
            for name in result.scores:
                if name not in found:
                    found[name] = c.sampled(title, name).intervals
                ends = {"low": found[name].low[i], "high": found[name].high[i]}
                yield label, head | _score(result, name) | ends


def _score(r: Result, name: str) -> dict[str, Any]:
    score = r.scores[name]
    return {
        "metric": name,
        "main": name == r.metric,
        "seed": r.spec.seed,
        "score": score.mean,
        "low": None,
        "high": None,
        "std": score.spread,
        "stderr": score.stderr,
        "repeats": len(score.repeats),
        "device": r.card.get("device"),
        "wording_std": np.std(score.wordings, ddof=1) if score.wordings else None,
        **{column: r.texts.get(column) for column in _TEXTS},
        **{column: r.cost.get(column) for column in _COST},
        "commit": r.provenance.get("commit"),
        "key": r.spec.key,
        "status": "done",
        "reason": "",
    }
