"""The commands of the campaign: what they read, and what they leave."""

import gzip
import io
import json
import os
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.faults.campaign import Forks
from tests.tiny import CHAT, SENTENCES, tiny_folder

WORDS = ["red", "green", "blue", "cat", "dog", "house", "tree", "river", "stone", "cloud", "salt"]
TIMES = {"seconds", "created", "sha256", "size", "files", "before"}  # and hashes of times
LEFT = ("results", "reports", "out")
FIRST_TEXTS = ["The cat sat on the mat.", "The dog plays.", "He won the final.", "She fell."]
RELATIONS = {"1": "Same.", "0": "Other."}


@dataclass(frozen=True)
class Command:
    """A command of the campaign.

    Attributes:
        name: How the figures call it.
        words: What follows ``bench``.
        before: Commands that its folder begins with.
        few: File operations at which it is killed in the short form; all in the whole one.
    """

    name: str
    words: tuple[str, ...]
    before: tuple["Command", ...] = ()
    few: int = 1


class Prepared(NamedTuple):
    """A command that has run.

    Attributes:
        start: Its folder before.
        whole: Its folder afterwards.
        operations: The number of its file operations.
        wanted: Its results.
    """

    start: Path
    whole: Path
    operations: int
    wanted: dict[str, Any]


def _train(method: str, budget: int, **settings: object) -> Command:
    sets = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    words = ("train", method, "--budget", str(budget), "--device", "cpu", "--out", "out")
    everywhere = ("--set", "backbone=base", "--set", "dtype=float32")
    return Command(f"bench train {method}", (*words, *everywhere, *sets))


# A cell with a result and values of each example, and one without its data.
RUN = Command("bench run", ("run", "-m", "hashing", "-t", "stsb,sts12", "--data", "data"), few=3)
AGAIN = Command("bench run --force", (*RUN.words, "--force"), (RUN,), few=2)
TABLES = Command(
    "bench report --table",
    ("report", "--table", "families,by-task,missing", "--format", "json", "--out", "reports"),
    (RUN,),
    few=2,
)
PAGE = Command("bench report", ("report",), (RUN,))
TRAININGS = {
    "inbedder": _train("inbedder", 600, sources="questions.jsonl", batch_size=2),
    "quip": _train(
        "quip",
        1500,
        generator="base",
        sources="people.jsonl",
        lora="false",
        lr=0.01,
        epochs=4,
        batch_size=4,
        questions=2,
        generator_share=6,
        teacher_share=2,
    ),
    "dino": _train(
        "dino",
        600,
        generator="writer",
        task="relations.json",
        x1="first.txt",
        random_pairs=0,
        least_shared=0.0,
        most_shared=1.0,
        agreeing="false",
        batch=2,
        batch_size=4,
        new_tokens=12,
    ),
    "llm2comp": _train(
        "llm2comp",
        1500,
        sources="texts.txt",
        k=2,
        length=20,
        continuation=4,
        batch_size=2,
        contrastive=0.5,
        contrastive_batch=4,
    ),
    "crops": _train("crops", 900, sources="passages.txt", longest=60, batch_size=2, rank=2),
    "llm2vec-gen": _train(
        "llm2vec-gen",
        1000,
        teacher="backbone-mean:base",
        labelled="no",
        sources="texts.txt",
        k=2,
        length=60,
        new_tokens=4,
        batch_size=4,
    ),
}


def scoring(method: str) -> tuple[str, ...]:
    """Return the command that scores a trained checkpoint."""
    options = ("--no-cache", "--json", "--force", "--device", "cpu")
    return ("run", "-m", f"{method}:out", "-t", "stsb", "--data", "data", *options)


def prepare(command: Command, place: Path, forks: Forks) -> Prepared:
    """Write a command's folder, run the command in a copy of it, and read its results."""
    start = write_data(place / "start")
    if command in TRAININGS.values():
        write_sources(start)
    for one in command.before:
        assert forks.run(start, *one.words).code == 0
    whole = fresh(place / "whole", start)
    end = forks.run(whole, *command.words)
    assert end.code == 0, end.output
    return Prepared(start, whole, end.operations, read_outcome(whole))


def write_data(folder: Path, texts: Sequence[str] = ()) -> Path:
    """Write pairs of the texts under ``data/`` of a folder; without texts, 40 random pairs."""
    rng = np.random.default_rng(1)
    texts = texts or [" ".join(rng.choice(WORDS, 6)) for _ in range(80)]
    place = folder / "data/mteb/stsbenchmark-sts"
    place.mkdir(parents=True)
    pairs = zip(texts[::2], texts[1::2], strict=True)
    rows = [
        {"sentence1": one, "sentence2": two, "score": i % 6} for i, (one, two) in enumerate(pairs)
    ]
    with gzip.open(place / "test.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(_as_lines(rows))
    return folder


def write_sources(folder: Path) -> None:
    """Write a tiny backbone, a tiny writer and the data that the trainings read."""
    tiny_folder("llama", folder / "base", head=True, chat=CHAT)
    write_writer(folder / "writer")
    words = [text.split() for text in SENTENCES]
    answers = [words[i - 1][1 % len(words[i - 1])] for i in range(len(words))]
    rows = [
        {"question": text, "answer": answer}
        for text, answer in zip(SENTENCES, answers, strict=True)
    ]
    (folder / "questions.jsonl").write_text(_as_lines(rows))
    (folder / "people.jsonl").write_text(_as_lines(_people()))
    (folder / "texts.txt").write_text("\n".join(SENTENCES * 3))
    passages = [" ".join(SENTENCES[i : i + 4]) for i in range(4)]
    (folder / "passages.txt").write_text("\n\n".join(passages))
    (folder / "first.txt").write_text("\n".join(FIRST_TEXTS))
    labels = {
        label: {
            "instruction": f'{name}\nA: "<X1>"\nB: "',
            "counter_labels": ["1"] if label == "0" else [],
        }
        for label, name in RELATIONS.items()
    }
    (folder / "relations.json").write_text(json.dumps({"task_name": "tiny", "labels": labels}))


def _people() -> list[dict[str, Any]]:
    """Return questions about twelve people in SQuAD's format."""
    rows, rng = [], np.random.default_rng(0)
    for i in range(12):
        name = str(rng.choice(["Anna", "Ben", "Cleo"]))
        town = str(rng.choice(["Rome", "Oslo", "Lima"]))
        text = f"{name} lives in {town} and plays. It was a warm day in {1900 + i}."
        for question, answer in (("Who plays?", name), ("Where is it?", town)):
            answers = {"text": [answer], "answer_start": [text.index(answer)]}
            rows.append({"context": text, "question": question, "answers": answers})
    return rows


def write_writer(folder: Path, texts: Sequence[str] = (), *, steps: int = 30) -> None:
    """Write a tiny decoder that has learnt the texts: by default, to end with a quote."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tiny_folder("llama", folder, head=True)
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = texts or [
        f'{name}\nA: "{a}"\nB: "{b}"'
        for name in RELATIONS.values()
        for a, b in zip(FIRST_TEXTS, FIRST_TEXTS[1:] + FIRST_TEXTS[:1], strict=True)
    ]
    batch = tokenizer([*texts], return_tensors="pt", padding=True)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(steps):
        model(**batch, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)


def _as_lines(rows: Sequence[object]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def read_outcome(folder: Path) -> dict[str, Any]:
    """Return what commands have left by the names of the files: no times and no places."""
    return {
        str(path.relative_to(folder)): _read(path, folder)
        for top in LEFT
        for path in sorted((folder / top).rglob("*"))
        if path.is_file()
    }


def _read(path: Path, folder: Path) -> object:
    try:
        if path.suffix == ".npz":
            with np.load(io.BytesIO(path.read_bytes())) as arrays:
                return {name: arrays[name].tolist() for name in arrays}
        place = re.escape(str(folder.parent)).encode() + rb"/[^/\"]+"  # or a copy beside it
        data = re.sub(place, b".", path.read_bytes())
        if path.suffix == ".md":  # a model card says how long the training took, and when it was
            data = re.sub(rb"(?m)^- (seconds|created): .*$", b"", data)
        if path.suffix == ".jsonl":
            return [without_times(json.loads(line)) for line in data.splitlines()]
        if path.suffix != ".json":
            return data
        if path.parts[-3] == "results":
            return json.loads(data)["scores"], json.loads(data)["spec"]
        return without_times(json.loads(data))
    except Exception as error:  # noqa: BLE001 - of a damaged file, which equals no whole one
        return repr(error)


def without_times(value: Any) -> Any:
    """Return a JSON value without the times in it."""
    if isinstance(value, dict):
        return {key: without_times(part) for key, part in value.items() if key not in TIMES}
    return [without_times(part) for part in value] if isinstance(value, list) else value


def age(folder: Path) -> None:
    """Make unfinished files as old as they are when somebody repeats a command by hand."""
    for path in folder.rglob(".*.part*"):
        os.utime(path, times=(time.time() - 60, time.time() - 60))


def fresh(folder: Path, *like: Path) -> Path:
    """Return an empty folder, or a copy of one."""
    shutil.rmtree(folder, ignore_errors=True)
    if like:
        shutil.copytree(like[0], folder)
    else:
        folder.mkdir(parents=True)
    return folder


def differences(found: dict[str, object], wanted: dict[str, object]) -> list[str]:
    """Return the names of the files in which two outcomes differ."""
    return sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
