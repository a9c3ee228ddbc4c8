"""The same model on the same tasks: sentence-transformers in mteb, and our runner with mteb's own scoring.

Tasks: STS13, STS14, STS15, STSBenchmark and the intents of CLINC as an mteb classification; model: all-MiniLM-L6-v2 from PyPI.
Run: ``python benchmarks/versus_mteb.py --data DIR``, DIR in the layout of BENCH_DATA. Every side runs in a fresh process;
``again`` is ours a second time, with new results on the same cache of vectors. ``--quick`` takes STS13 and a tenth of CLINC.
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
import torch
from datasets import Dataset, DatasetDict
from mteb import TaskMetadata
from mteb.abstasks import AbsTaskClassification
from sentence_transformers import SentenceTransformer

from adapters.baseline.sentence import PACKAGED, SentenceEncoder, _folder
from bench import data
from bench.cache import Vectors
from bench.runner import run
from bench.store import Store
from bench.tasks.mteb import MtebTask

SIDES = ("mteb", "bench", "again")
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
            splits = {split: data.load("clinc/clinc_oos", split, config="plus") for split in ("train", "test")}
            cut = {split: rows.take(range(0, len(rows), step)) for split, rows in splits.items()}
            self.dataset = DatasetDict(
                {split: Dataset.from_dict({"text": rows["text"], "label": rows["intent"]}) for split, rows in cut.items()}
            )
            self.data_loaded = True

    return ClincIntents


def in_mteb(dtype: str, names: Iterable[str], step: int) -> dict[str, Any]:
    """Return scores and token counts of sentence-transformers in mteb."""
    model = SentenceTransformer(str(_folder(PACKAGED)), model_kwargs={"dtype": getattr(torch, dtype)})
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
    return {"scores": {found.task_name: float(found.get_score()) for found in result.task_results}, **counts}


def in_bench(dtype: str, names: Iterable[str], step: int, folder: Path, results: str) -> dict[str, Any]:
    """Return scores and token counts of our runner."""
    tasks = [*(MtebTask(name) for name in names), MtebTask("ClincIntents", intents(step))]
    cells = list(run({"MiniLM": SentenceEncoder(dtype=dtype)}, tasks, Store(folder / results), Vectors(folder / "vectors")))
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
    ours = args.side != "mteb"
    found = in_bench(args.dtype, names, step, Path(args.folder), args.side) if ours else in_mteb(args.dtype, names, step)
    return {**found, "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3))}


def measured(name: str, args: argparse.Namespace, folder: str) -> dict[str, Any]:
    """Run one side in a fresh process and return what it says with its wall and CPU seconds."""
    call = [sys.executable, __file__, "--side", name, "--folder", folder, "--dtype", args.dtype, *(["--quick"] if args.quick else [])]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    answer = subprocess.run(call, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, "BENCH_DATA": args.data}).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {**json.loads(answer.splitlines()[-1]), "wall_s": round(time.perf_counter() - start, 1), "cpu_s": round(cpu, 1)}


def show(found: dict[str, dict[str, Any]]) -> None:
    """Print a table of the sides and the ratio of mteb to ours."""
    print(f"{'':16}" + "".join(f"{name:>14}" for name in SIDES) + f"{'mteb / bench':>14}")
    for row in ("wall_s", "cpu_s", "peak_mb", "forward_texts", "tokens", "padded_tokens"):
        values = [found[name][row] for name in SIDES]
        print(f"{row:16}" + "".join(f"{value:>14,}" for value in values) + f"{values[0] / values[1]:>14.2f}")
    for task in found["mteb"]["scores"]:
        values = [found[name]["scores"][task] for name in SIDES]
        print(f"{task:16}" + "".join(f"{value:>14.6f}" for value in values) + f"{values[1] - values[0]:>+14.6f}")


def main() -> None:
    """Run the sides and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("BENCH_DATA", ""), help="folder of data sets [$BENCH_DATA]")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="number type of the network [float32]")
    parser.add_argument("--quick", action="store_true", help="STS13 and a tenth of CLINC only")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(json.dumps(side(args)))
        return
    if not args.data:
        parser.error("expected --data DIR or BENCH_DATA: a folder with mteb/sts13-sts/test.jsonl.gz and the like")
    with tempfile.TemporaryDirectory() as folder:
        found = {name: measured(name, args, folder) for name in SIDES}
    print(json.dumps({"dtype": args.dtype, **found})) if args.json else show(found)


if __name__ == "__main__":
    main()
