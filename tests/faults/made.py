"""What the campaign runs on: a folder with small data, and what its results are."""

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

WORDS = ["red", "green", "blue", "cat", "dog", "house", "tree", "river", "stone", "cloud", "salt"]


def folder_with_data(folder: Path, texts: list[str] | None = None) -> Path:
    """Write pairs of sentences under ``data/`` of a folder: those given, two at a time, or 40 made ones."""
    rng, place = np.random.default_rng(1), folder / "data/mteb/stsbenchmark-sts"
    place.mkdir(parents=True)
    made = [" ".join(rng.choice(WORDS, 6)) for _ in range(80)]
    texts = made if texts is None else texts
    with gzip.open(place / "test.jsonl.gz", "wt", encoding="utf-8") as file:
        for i in range(0, len(texts) - 1, 2):
            row = {"sentence1": texts[i], "sentence2": texts[i + 1], "score": i % 6}
            file.write(json.dumps(row) + "\n")
    return folder


def outcome(folder: Path) -> dict[str, Any]:
    """Return what a run has measured: scores and values of each example, by the names of the files; no times and no places."""
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("results/*/*")):
        if path.suffix == ".json":
            data = json.loads(path.read_bytes())
            found[path.name] = data["scores"], data["spec"]
        elif path.suffix == ".npz":
            with np.load(path) as arrays:
                found[path.name] = {name: arrays[name].tolist() for name in arrays}
        elif path.suffix == ".absent":
            found[path.name] = json.loads(path.read_bytes())
    return found


def unfinished(folder: Path) -> list[str]:
    """Return the files that were being written."""
    return [str(path.relative_to(folder)) for path in folder.rglob(".*.part*")]


def fresh(folder: Path, *like: Path) -> Path:
    """Return an empty folder, or a copy of one."""
    shutil.rmtree(folder, ignore_errors=True)
    if like:
        shutil.copytree(like[0], folder)
    else:
        folder.mkdir(parents=True)
    return folder
