"""The same model on the same tasks: sentence-transformers in mteb, and our runner.

    python benchmarks/versus_mteb.py --data DIR    # DIR in the layout of BENCH_DATA

Tasks: STS13, STS14, STS15, STSBenchmark and the intents of CLINC as an mteb classification; model:
all-MiniLM-L6-v2 from PyPI. Every side runs in a new process: ``mteb`` is sentence-transformers in
float32; ``float32`` and ``bfloat16`` are ours, each with an empty cache of embeddings; ``again`` is
the last of these a second time, with its cache and without results. ``--quick`` takes STS13 and a
tenth of CLINC.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import mteb
from datasets import Dataset, DatasetDict
from mteb import TaskMetadata
from mteb.abstasks import AbsTaskClassification
from sentence_transformers import SentenceTransformer

from adapters.baseline.sentence import PACKAGED, SentenceEncoder, folder_of
from bench import data
from bench.runner import run
from bench.store import Store
from bench.tasks.mteb import MtebTask
from bench.vectors import Vectors

SIDES = ("mteb", "float32", "bfloat16", "again")
STS = ("STS13", "STS14", "STS15", "STSBenchmark")


def intents(step: int) -> type:
    """Return an mteb task class on every ``step``-th row of CLINC's 150 intents."""

    class ClincIntents(AbsTaskClassification):
        metadata = TaskMetadata(
            name="ClincIntents",
            description="CLINC150 with its out-of-scope class",
            type="Classification",
            eval_langs=["eng-Latn"],
            eval_splits=["test"],
            main_score="accuracy",
            dataset={"path": "clinc/clinc_oos", "revision": "1"},
        )

        def load_data(self, **_: object) -> None:
            splits = {
                split: data.load("clinc/clinc_oos", split, config="plus")
                for split in ("train", "test")
            }
            cut = {split: rows.take(range(0, len(rows), step)) for split, rows in splits.items()}
            self.dataset = DatasetDict(
                {
                    split: Dataset.from_dict({"text": rows["text"], "label": rows["intent"]})
                    for split, rows in cut.items()
                }
            )
            self.data_loaded = True

    return ClincIntents


def in_mteb(names: Iterable[str], step: int) -> dict[str, Any]:
    """Return scores and token counts of sentence-transformers in mteb."""
    model = SentenceTransformer(str(folder_of(PACKAGED)))
    counts = {"forward_texts": 0, "tokens": 0, "padded_tokens": 0}

    def count(_: Any, inputs: tuple[dict[str, Any], ...]) -> None:  # noqa: ANN401
        mask = inputs[0]["attention_mask"]
        counts["forward_texts"] += len(mask)
        counts["tokens"] += int(mask.sum())
        counts["padded_tokens"] += mask.numel()

    model[0].register_forward_pre_hook(count)
    tasks = [mteb.get_task(name) for name in names]
    for task in tasks:
        rows = data.load(task.metadata.dataset["path"], "test")
        task.dataset = DatasetDict({"test": Dataset.from_dict(dict(rows.data))})
        task.data_loaded = True
    tasks.append(intents(step)())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = mteb.evaluate(model, tasks, cache=None, co2_tracker=False, show_progress_bar=False)
    return {
        "scores": {found.task_name: float(found.get_score()) for found in result.task_results},
        **counts,
    }


def in_bench(side: str, names: Iterable[str], step: int, folder: Path) -> dict[str, Any]:
    """Return scores and token counts of our runner."""
    tasks = [*(MtebTask(name) for name in names), MtebTask("ClincIntents", source=intents(step))]
    dtype = "bfloat16" if side == "again" else side
    cells = list(
        run(
            {"MiniLM": SentenceEncoder(dtype=dtype)},
            tasks,
            Store(folder / side),
            Vectors(folder / "vectors"),
        )
    )
    for cell in cells:
        if cell.result is None:
            sys.exit(f"{cell.task.name}: {cell.status}, {cell.reason}")
    done = [cell.result for cell in cells if cell.result is not None]
    cost = done[-1].cost  # counts what this encoder took in the whole run
    counts = {name: int(cost[name]) for name in ("forward_texts", "tokens", "padded_tokens")}
    return {"scores": {result.spec.task: result.main.mean for result in done}, **counts}


def side(args: argparse.Namespace) -> dict[str, Any]:
    """Run one side in this process."""
    names, step = (STS[:1], 10) if args.quick else (STS, 1)
    found = (
        in_mteb(names, step)
        if args.side == "mteb"
        else in_bench(args.side, names, step, Path(args.folder))
    )
    return {
        **found,
        "peak_mb": round(
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            / (1e6 if sys.platform == "darwin" else 1e3)
        ),
    }


def measured(name: str, args: argparse.Namespace, folder: str) -> dict[str, Any]:
    """Run one side in a fresh process and return what it says with its wall and CPU seconds."""
    call = [
        sys.executable,
        __file__,
        "--side",
        name,
        "--folder",
        folder,
        *(["--quick"] if args.quick else []),
    ]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    answer = subprocess.run(
        call,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "BENCH_DATA": args.data},
    ).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        **json.loads(answer.splitlines()[-1]),
        "wall_s": round(time.perf_counter() - start, 1),
        "cpu_s": round(cpu, 1),
    }


def show(found: dict[str, dict[str, Any]]) -> None:
    """Print a table: our numbers with mteb's as a multiple, scores with their difference."""
    print(f"{'':16}{'mteb':>12}" + "".join(f"{name:>12} {'mteb = ':>9}" for name in SIDES[1:]))
    for row in ("wall_s", "cpu_s", "peak_mb", "forward_texts", "tokens", "padded_tokens"):
        theirs = found["mteb"][row]
        ours = [found[name][row] for name in SIDES[1:]]
        print(
            f"{row:16}{theirs:>12,}"
            + "".join(
                f"{value:>12,} " + (f"{theirs / value:>8.2f}x" if value else f"{'':9}")
                for value in ours
            )
        )
    for task, theirs in found["mteb"]["scores"].items():
        ours = [found[name]["scores"][task] for name in SIDES[1:]]
        print(
            f"{task:16}{theirs:>12.6f}"
            + "".join(f"{value:>12.6f} {value - theirs:>+9.6f}" for value in ours)
        )


def main() -> None:
    """Run the sides and print them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", default=os.environ.get("BENCH_DATA", ""), help="folder of data sets [$BENCH_DATA]"
    )
    parser.add_argument("--quick", action="store_true", help="STS13 and a tenth of CLINC only")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(json.dumps(side(args)))
        return
    if not args.data:
        parser.error(
            "expected --data DIR or BENCH_DATA: a folder with mteb/sts13-sts/test.jsonl.gz"
        )
    with tempfile.TemporaryDirectory() as folder:
        found = {name: measured(name, args, folder) for name in SIDES}
    print(json.dumps(found)) if args.json else show(found)


if __name__ == "__main__":
    main()
