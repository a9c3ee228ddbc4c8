"""From your own texts to a table and a plot: which encoder separates your classes, and is it sure?

Run: ``python examples/own_texts.py``, on packaged questions about building that stand for your
texts, or with a CSV file that has columns ``text`` and ``label``: ``python examples/own_texts.py
FILE.csv``. It takes a minute on two cores; a second run computes nothing.
"""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

import bench
from bench.data import load

MODELS = ("hashing", "backbone-mean", "dino", "all-MiniLM-L6-v2")


def write_example_texts(path: Path) -> None:
    """Write packaged questions with the eight commonest of their categories as a CSV file."""
    rows = pd.DataFrame(dict(load("pypi/zaragoza-construction-faq", "train").data))
    common = rows.category.value_counts().index[:8]
    rows = rows[rows.category.isin(common)]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(zip(rows.question, rows.category, strict=True))


def compare(texts: Path, models: Sequence[str], out: Path) -> pd.DataFrame:
    """Classify and cluster the texts with each encoder, and return the main scores.

    Args:
        texts: CSV file with columns ``text`` and ``label``.
        models: Names of encoders.
        out: Folder for results, table, plot and report.

    Returns:
        One row per encoder and task: ``score``, and ``low`` and ``high`` of its 95 % interval.
    """
    # Step 1: a file is a task, without code. Each cell (encoder, task) is computed once.
    tasks = [f"classification:{texts}", f"clustering:{texts}"]
    cells = bench.run(models, tasks, results=out / "results")
    print(cells[["encoder", "task", "status", "score"]].to_string(index=False))

    # Step 2: all results as a DataFrame; the main score of each cell, with its interval.
    frame = bench.results(out / "results")
    scores = frame[frame.main][["encoder", "task", "score", "low", "high"]]
    scores["task"] = scores.task.str.partition(":")[0]
    return scores.sort_values(["task", "score"], ascending=[True, False], ignore_index=True)


def plot(scores: pd.DataFrame, path: Path) -> None:
    """Draw the scores with their intervals, a panel per task."""
    tasks = scores.task.unique()
    figure = Figure(figsize=(5 * len(tasks), 3), layout="constrained")
    panels = figure.subplots(1, len(tasks), squeeze=False)[0]
    for panel, task in zip(panels, tasks, strict=True):
        own = scores[scores.task == task].iloc[::-1]
        panel.hlines(own.encoder, own.low, own.high)
        panel.plot(own.score, own.encoder, "o")
        panel.set(title=task, xlabel="score, 95 % interval")
    figure.savefig(path, dpi=160)


def main(arguments: Sequence[str], models: Sequence[str] = MODELS) -> None:
    """Run all steps in the folder ``own-texts``."""
    out = Path("own-texts")
    out.mkdir(exist_ok=True)
    if arguments:
        texts = Path(arguments[0])
    else:
        texts = out / "questions.csv"
        write_example_texts(texts)
    scores = compare(texts, models, out)
    scores.to_csv(out / "scores.csv", index=False)
    plot(scores, out / "scores.png")
    # Step 3: the whole report, with significance tests; open own-texts/report/index.html.
    bench.report(out / "results", out / "report")
    print(f"\n{scores.to_string(index=False)}\n\nwritten to {out}")


if __name__ == "__main__":
    main(sys.argv[1:])
