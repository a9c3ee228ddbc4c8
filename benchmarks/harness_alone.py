"""Measure the harness without encoding: a classification of the size of IMDb (2 x 25,000 texts).

    python benchmarks/harness_alone.py

Both sides run in new processes and must print the same score.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import mteb
import numpy as np
import sentence_transformers  # noqa: F401 - mteb.evaluate loads it, which is no part of what is measured
from datasets import Dataset, DatasetDict
from mteb import TaskMetadata
from mteb.abstasks import AbsTaskClassification

from bench.encoder import Embeddings
from bench.tasks.mteb import MtebTask, as_mteb

SIDES = ("mteb", "bench")


@dataclass(frozen=True)
class Instant:
    """Random vectors that depend on the number of texts only."""

    dim: int = 768
    version: ClassVar[int] = 1
    follows_instructions: ClassVar[bool] = False

    def encode(self, texts: Sequence[str], *, instruction: str = "") -> Embeddings:  # noqa: ARG002
        """Return float32 (n, dim)."""
        return (
            np.random.default_rng(len(texts)).normal(size=(len(texts), self.dim)).astype(np.float32)
        )


def classification(rows: int) -> type:
    """Return an mteb task class with two classes and this many rows in each of its two splits."""

    class Reviews(AbsTaskClassification):
        metadata = TaskMetadata(
            name="Reviews",
            description="synthetic",
            type="Classification",
            eval_langs=["eng-Latn"],
            eval_splits=["test"],
            main_score="accuracy",
            dataset={"path": "synthetic/reviews", "revision": "1"},
        )

        def load_data(self, **_: object) -> None:
            rng = np.random.default_rng(0)
            columns = {
                s: {"text": [f"{s} {i}" for i in range(rows)], "label": rng.integers(2, size=rows)}
                for s in ("train", "test")
            }
            self.dataset = DatasetDict(
                {split: Dataset.from_dict(data) for split, data in columns.items()}
            )
            self.data_loaded = True

    return Reviews


def score(side: str, rows: int) -> tuple[float, ...]:
    """Return the accuracies of the ten experiments."""
    made = classification(rows)
    if side == "bench":
        return MtebTask("Reviews", source=made).evaluate(Instant(), seed=42)["accuracy"].repeats
    result = mteb.evaluate(
        as_mteb(Instant()), made(), cache=None, co2_tracker=False, show_progress_bar=False
    )
    return tuple(
        run["accuracy"] for run in result.task_results[0].scores["test"][0]["scores_per_experiment"]
    )


def measure(side: str, rows: int) -> dict[str, Any]:
    """Return one side's seconds and scores, the import of the libraries not counted."""
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    repeats = score(side, rows)
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "side": side,
        "wall_s": round(time.perf_counter() - start, 2),
        "cpu_s": round(cpu, 2),
        "repeats": repeats,
    }


def main() -> None:
    """Measure both sides and print them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=25_000, help="rows of each split [25000]")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(json.dumps(measure(args.side, args.rows)))
        return
    found = {}
    for side in SIDES:
        call = [sys.executable, __file__, "--rows", str(args.rows), "--side", side]
        found[side] = json.loads(
            subprocess.run(call, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[
                -1
            ]
        )
    same = found["mteb"]["repeats"] == found["bench"]["repeats"]
    if args.json:
        print(json.dumps({"rows": args.rows, "same_scores": same, **found}))
        return
    for side, numbers in found.items():
        accuracy = np.mean(numbers["repeats"])
        seconds = f"{numbers['wall_s']:8.2f} s wall {numbers['cpu_s']:8.2f} s CPU"
        print(f"{side:6} {seconds}   accuracy {accuracy:.6f}")
    times = found["mteb"]["cpu_s"] / found["bench"]["cpu_s"]
    print(f"{times:.1f} times less CPU; scores {'equal to the last digit' if same else 'DIFFER'}")


if __name__ == "__main__":
    main()
