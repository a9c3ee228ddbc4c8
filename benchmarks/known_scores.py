"""Compare scores of all-MiniLM-L6-v2 in float32 with mteb's published ones, to four decimals.

    python benchmarks/known_scores.py --data DIR    # DIR in the layout of BENCH_DATA

Tasks whose data is not available are named and left out. SciFact, 5,183 abstracts, takes eight
minutes on one core. The intents of CLINC, for which no score is published, are compared with mteb
itself by ``benchmarks/versus_mteb.py``.

Source of the scores: mteb's results of sentence-transformers/all-MiniLM-L6-v2; SciFact has a fifth
decimal.
"""

import argparse
import os
import sys
from pathlib import Path

from adapters.baseline.sentence import SentenceEncoder
from bench.errors import BenchError
from bench.runner import run
from bench.store import Store
from bench.tasks.mteb import MtebTask
from bench.vectors import Vectors

KNOWN = {
    "STS12": 0.7237,
    "STS13": 0.8060,
    "STS14": 0.7559,
    "STS15": 0.8539,
    "STSBenchmark": 0.8203,
    "Banking77Classification": 0.8004,
    "SciFact": 0.64508,
}


def main() -> None:
    """Print a line for each task; end with 1 where a score differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--task", nargs="*", default=list(KNOWN), choices=list(KNOWN))
    asked = parser.parse_args()
    os.environ["BENCH_DATA"] = str(asked.data)
    encoders = {"all-MiniLM-L6-v2": SentenceEncoder(dtype="float32")}
    tasks = [MtebTask(name) for name in asked.task]
    different = 0
    for cell in run(encoders, tasks, Store(asked.results), Vectors(None), keep_going=True):
        name, known = cell.task.name, KNOWN[cell.task.name]
        if cell.result is None:
            print(f"{name:<24} {known:.5f}  {cell.status}: {cell.reason}")
            continue
        score = cell.result.main.mean
        same = abs(score - known) < 5e-5
        different += not same
        print(f"{name:<24} {known:.5f}  {score:.6f}  {'equal' if same else 'DIFFERENT'}")
    sys.exit(bool(different))


if __name__ == "__main__":
    try:
        main()
    except BenchError as error:
        sys.exit(str(error))
