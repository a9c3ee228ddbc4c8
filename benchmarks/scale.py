"""What workers cost and bring: wall time, start of Ray, and memory of the process that drives them.

    python benchmarks/scale.py --model all-MiniLM-L6-v2 --texts 4000
    python benchmarks/scale.py --set dim=128 --texts 10000,100000,1000000 --workers 2

Each line is a run in a process of its own, without a cache on disk: one task that reads one number
of each vector. Texts are short, of some sixty characters.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bench.encoder import Embeddings, Item
from bench.engine import Engine, Inline, Outcome, Portion, ray
from bench.registry import compute_settings, load_encoders
from bench.runner import run
from bench.store import Store
from bench.task import Score, Task
from bench.vectors import Vectors


@dataclass(frozen=True, kw_only=True)
class Many(Task):
    """The mean first number of the vectors of many short texts."""

    count: int = 1000
    family: ClassVar[str] = "diagnostics"
    metric: ClassVar[str] = "first"

    def items(self, *, seed: int) -> list[Item]:  # noqa: ARG002
        """Return the texts."""
        words = ("river", "invoice", "planet", "garden", "engine", "letter", "window")
        return [
            Item(f"text {i} is about a {words[i % 7]} and another {words[i // 7 % 7]} of {i % 89}")
            for i in range(self.count)
        ]

    def score(self, vectors: Embeddings, *, seed: int) -> dict[str, Score]:  # noqa: ARG002
        """Return the mean of the first numbers."""
        return {"first": Score((float(vectors[:, 0].mean()),))}


def count_portions(engine: Engine) -> list[Portion]:
    """Return a list that gets every portion of vectors that the engine gives from now on."""
    portions: list[Portion] = []
    wait = engine.wait

    def listen() -> Outcome | None:
        outcome = wait()
        if outcome and isinstance(outcome.value, Portion):
            portions.append(outcome.value)
        return outcome

    engine.wait = listen  # type: ignore[method-assign]
    return portions


def measure(
    model: str, changes: list[str], texts: int, workers: str, folder: Path
) -> dict[str, float | str]:
    """Return what one run took."""
    encoders = load_encoders([model], compute_settings("cpu", "float32"), changes)
    begun = time.perf_counter()
    with Inline() if workers == "inline" else ray.start(int(workers), "cpu") as engine:
        started = time.perf_counter()
        task = Many(name="many", count=texts)
        portions = count_portions(engine)
        (cell,) = run(encoders, [task], Store(folder), Vectors(None), engine=engine)
        ended = time.perf_counter()
    assert cell.result, cell.reason  # noqa: S101 - a benchmark stops
    cost = cell.result.cost
    return {
        "model": model,
        "texts": texts,
        "workers": workers,
        "start_s": round(started - begun, 2),
        "run_s": round(ended - started, 2),
        "portions": len(portions),
        "ms_per_portion": round(1e3 * (ended - started) / max(len(portions), 1), 2),
        "stop_s": round(time.perf_counter() - ended, 2),
        "tokens_per_s": round(cost["tokens"] / (ended - started)),
        "driver_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3),
        "score": cell.result.main.mean,
    }


def main() -> None:
    """Print one line of JSON for each number of texts and of workers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="hashing")
    parser.add_argument("--texts", default="10000")
    parser.add_argument("--workers", default="inline,1,2")
    parser.add_argument("--set", action="append", default=[], help="a setting of the encoder")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        with tempfile.TemporaryDirectory() as folder:
            found = measure(
                chosen.model, chosen.set, int(chosen.texts), chosen.workers, Path(folder)
            )
            print(json.dumps(found), flush=True)
        return
    for texts in chosen.texts.split(","):
        for workers in chosen.workers.split(","):
            call = [sys.executable, __file__, "--one", "--model", chosen.model]
            call += [f"--set={change}" for change in chosen.set]
            subprocess.run([*call, "--texts", texts, "--workers", workers], check=True)


if __name__ == "__main__":
    main()
