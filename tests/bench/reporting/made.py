"""Results made up for tests of reports."""

import numpy as np

from bench.store.result import Absence, Result, RunSpec
from bench.task import Score

TEXTS = {"asked": 10, "distinct": 8, "repeated_share": 0.2, "truncated_share": 0.125}
CARD = {"backbone": "A backbone", "dtype": "float32", "parameters": 2_500_000, "weights": "w"}
COST = {"seconds": 1.0, "encode_seconds": 2.0, "forward_texts": 8, "peak_memory_mb": 512.0}
PROVENANCE = {"time": "2030-01-02T03:04:05+00:00", "command": "bench run", "commit": "c1"}


def result(
    encoder,
    task,
    *repeats,
    family="sts",
    seed=42,
    limit=None,
    version=1,
    print_="",
    trained=True,
    readout="embedding",
    examples=(),
    gold=(),
    metric="metric",
    scores=None,
    card=None,
    texts=None,
    settings=None,
    samples=(),
    wordings=(),
    **provenance,
):
    """A result of one cell; the score is the mean of the examples where no repeats are given."""
    examples, gold = np.asarray(examples, np.float32), np.asarray(gold, np.float32)
    mean = float(np.mean(wordings if len(wordings) else examples)) if not repeats else None
    main = Score(tuple(repeats or (mean,)), examples, gold, wordings=tuple(wordings))
    others = {name: Score(tuple(values)) for name, values in (scores or {}).items()}
    fingerprint = print_ or f"{encoder:x<16.16}"
    changed = settings or {"dim": 3}
    return Result(
        RunSpec(encoder, fingerprint, changed, task, version, readout, seed, limit),
        family,
        metric,
        {metric: main, **others},
        card={**CARD, "trained": trained, "device": "cpu", **(card or {})},
        texts={**TEXTS, **(texts or {})},
        cost={**COST, "tokens": 100, "padded_tokens": 103},
        provenance={**PROVENANCE, "machine": {"cores": 2}, "versions": {}, **provenance},
        samples=samples,
    )


def on(task, scores, **more):
    """Results of encoders on a task: a score, repeats, or how many of 400 answers are right."""
    made = []
    for encoder, score in scores.items():
        if isinstance(score, int):
            made.append(result(encoder, task, examples=right(score), **more))
        else:
            made.append(result(encoder, task, *np.atleast_1d(score).tolist(), **more))
    return made


def right(count, n=400, *, first=0):
    """Whether each of n answers is right: ``count`` of them are, beginning at one of them."""
    answers = np.zeros(n)
    answers[(first + np.arange(count)) % n] = 1
    return answers


def absence(encoder, task, *, limit=None, readout="embedding", status="skipped", reason=""):
    """Why a cell has no result."""
    return Absence(encoder, "sts", task, readout, 42, limit, status, reason)


def usual_results():
    """Two encoders on three tasks of two families, and one on the first task."""
    made = on("t1", {"good": 0.8, "floor": 0.1})
    made += on("t2", {"good": (0.6, 0.7)}, family="ner") + on("t3", {"good": 0.5}, family="ner")
    made += on("t1", {"poor": 0.4}, trained=False)
    made += on("t2", {"poor": (0.2, 0.4)}, family="ner", trained=False)
    return made + on("t3", {"poor": 0.1}, family="ner", trained=False)
