"""Measure a report of 50 encoders by 100 tasks, on made-up results, without and with figures.

    python benchmarks/report_speed.py [--encoders 50] [--tasks 100]

Half of the tasks have values for 200 to 2,000 test examples (accuracy, Spearman, AUROC), the
others five repeats; one cell in fifty is missing. Without figures the time includes reading,
statistics, all tables and their Markdown and CSV; with figures, everything `bench report` writes.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench import reporting as report
from bench.reporting import formats
from bench.reporting.frame import flat
from bench.reporting.tables import tables
from bench.stats.influence import contributions
from bench.store import Store
from bench.store.result import Result, RunSpec
from bench.task import Score

FAMILIES = (
    "sts",
    "paraphrase",
    "sentiment",
    "clustering",
    "ner",
    "retrieval",
    "reranking",
    "classification",
)


def made(encoders: int, tasks: int) -> Iterator[Result]:
    """Yield results of a made-up grid."""
    rng = np.random.default_rng(0)
    skill = rng.uniform(0.3, 1.5, encoders)
    for t in range(tasks):
        n, kind = (
            int(rng.integers(200, 2000)),
            ("accuracy", "cosine_spearman", "auroc", "repeats", "repeats", "repeats")[t % 6],
        )
        gold = rng.normal(size=n)
        for e in range(encoders):
            if rng.random() > 0.02:
                yield _result(
                    f"encoder-{e:02}",
                    f"task-{t:03}",
                    FAMILIES[t % len(FAMILIES)],
                    _score(kind, gold, skill[e], rng),
                )


def _score(
    kind: str, gold: np.ndarray, skill: float, rng: np.random.Generator
) -> tuple[str, Score]:
    noisy = (skill * gold + rng.normal(size=len(gold))).astype(np.float32)
    if kind == "repeats":
        return "v_measure", Score(
            tuple(np.clip(0.4 + 0.3 * skill + 0.02 * rng.normal(size=5), 0, 1).tolist())
        )
    if kind == "accuracy":
        right = (noisy * gold > 0).astype(np.float32)
        return kind, Score((float(right.mean()),), right)
    wanted = (gold if kind == "cosine_spearman" else gold > 0).astype(np.float32)
    return kind, Score((float(contributions(kind, noisy, wanted).mean()),), noisy, wanted)


def _result(encoder: str, task: str, family: str, measured: tuple[str, Score]) -> Result:
    metric, score = measured
    spec = RunSpec(encoder, f"{encoder:x<16.16}", {}, task, 1, "embedding", 42, None)
    card = {
        "backbone": "A backbone",
        "trained": True,
        "dtype": "float32",
        "parameters": 10**8,
        "weights": "w",
        "device": "cpu",
    }
    cost = {
        "seconds": 1.0,
        "encode_seconds": 2.0,
        "forward_texts": 8,
        "tokens": 100,
        "padded_tokens": 103,
        "peak_memory_mb": 512.0,
    }
    texts = {"asked": 10, "distinct": 8, "repeated_share": 0.2, "truncated_share": 0.1}
    return Result(
        spec,
        family,
        metric,
        {metric: score},
        card,
        texts,
        cost,
        {"time": "2030-01-01T00:00:00+00:00", "commit": "c"},
    )


def main() -> None:
    """Make the results, time the report, print the seconds."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--encoders", type=int, default=50)
    options.add_argument("--tasks", type=int, default=100)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "results")
        for result in made(chosen.encoders, chosen.tasks):
            store[result.spec] = result
        print(f"{len(store):,} results of {chosen.encoders} encoders on {chosen.tasks} tasks")
        start = time.perf_counter()
        comparison = report.read(store)
        print(f"reading          {time.perf_counter() - start:6.2f} s")
        middle = time.perf_counter()
        whole = tables(comparison)
        print(f"all tables       {time.perf_counter() - middle:6.2f} s")
        middle = time.perf_counter()
        formats.results_md(whole)
        flat(comparison).to_csv()
        formats.text(whole, "csv")
        print(f"printing         {time.perf_counter() - middle:6.2f} s")
        print(f"without figures  {time.perf_counter() - start:6.2f} s")
        middle = time.perf_counter()
        report.build(report.read(store), Path(folder) / "out")
        print(f"with figures     {time.perf_counter() - middle:6.2f} s")


if __name__ == "__main__":
    main()
