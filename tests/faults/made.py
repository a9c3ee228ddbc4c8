"""What the campaign runs on: a folder with small data, and what its results are."""

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from tests.tiny import SENTENCES, tiny_folder

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
    for path in sorted(folder.glob("results/*/[!.]*")):
        try:
            found[path.name] = _measured(path)
        except Exception as error:  # noqa: BLE001 - whatever a damaged file gives, it is not what was measured
            found[path.name] = repr(error)
    return found


def _measured(path: Path) -> object:
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return {name: arrays[name].tolist() for name in arrays}
    data = json.loads(path.read_bytes())
    return (data["scores"], data["spec"]) if path.suffix == ".json" else data


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


def training_of(folder: Path) -> list[str]:
    """Write a tiny backbone and questions into a folder, and return the command that trains on them to ``out``."""
    tiny_folder("llama", folder / "base", head=True)
    words = [text.split() for text in SENTENCES]
    rows = [
        {"question": text, "answer": words[i - 1][1 % len(words[i - 1])]}
        for i, text in enumerate(SENTENCES)
    ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = ("backbone=base", "sources=questions.jsonl", "batch_size=2", "dtype=float32")
    sets = [word for setting in settings for word in ("--set", setting)]
    return ["train", "inbedder", "--budget", "600", "--device", "cpu", "--out", "out", *sets]


def checkpoint(folder: Path) -> dict[str, Any]:
    """Return all files of a checkpoint, the card without times."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found[str(path.relative_to(folder))] = path.read_bytes()
    card = json.loads(found.pop("card.json", "{}"))
    return found | {"card.json": {k: v for k, v in card.items() if k not in {"seconds", "created"}}}
