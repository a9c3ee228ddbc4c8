"""Whole runs on tiny models in real layouts: what is shared between models, and what never is."""

import dataclasses
import shutil

import numpy as np
import pytest

from adapters.baseline.pooled import Pooled
from bench.encoder import fingerprint
from bench.registry import load_encoder
from bench.runner import run
from bench.store import Store
from bench.tasks.sts import STS
from bench.vectors import Vectors
from tests.tiny import SENTENCES, tiny_folder


@pytest.fixture
def task(tmp_path, monkeypatch):
    import gzip
    import json

    folder = tmp_path / "data" / "made" / "pairs"
    folder.mkdir(parents=True)
    with gzip.open(folder / "test.jsonl.gz", "wt", encoding="utf-8") as file:
        for i, left in enumerate(SENTENCES):
            for j, right in enumerate(SENTENCES):
                file.write(
                    json.dumps({"sentence1": left, "sentence2": right, "score": (i * j) % 5}) + "\n"
                )
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    return STS("pairs", data="made/pairs")


def on(folder) -> Pooled:
    return Pooled(checkpoint=str(folder), dtype="float32", device="cpu")


def test_two_models_in_folders_of_one_name_share_neither_results_nor_vectors(tmp_path, task):
    store, vectors = Store(tmp_path / "results"), Vectors(tmp_path / "vectors")
    folders = [
        tiny_folder("bert", tmp_path / place / "model", seed=seed)
        for seed, place in enumerate("ab")
    ]
    first, second = (next(run({"model": on(folder)}, [task], store, vectors)) for folder in folders)
    assert (first.status, second.status, len(store)) == ("done", "done", 2)
    assert first.result.main.repeats != second.result.main.repeats
    assert second.result.cost["forward_texts"] == len(SENTENCES)


def test_the_same_weights_in_another_place_are_known(tmp_path, task):
    store, vectors = Store(tmp_path / "results"), Vectors(tmp_path / "vectors")
    here = tiny_folder("bert", tmp_path / "here")
    next(run({"one": on(here)}, [task], store, vectors))
    there = shutil.copytree(here, tmp_path / "there")
    assert next(run({"one": on(there)}, [task], store, vectors)).status == "cached"
    again = next(run({"another name": on(there)}, [task], store, vectors))
    assert (again.status, again.result.cost["forward_texts"]) == ("done", 0)


def test_a_number_type_counts_by_what_it_is_and_not_by_how_it_was_asked_for(tmp_path):
    plain = on(tiny_folder("bert", tmp_path / "bert"))
    automatic = dataclasses.replace(plain, dtype="auto")
    other = "bfloat16" if automatic.card().dtype == "float32" else "float32"
    assert fingerprint(automatic) == fingerprint(
        dataclasses.replace(plain, dtype=automatic.card().dtype)
    )
    assert fingerprint(automatic) != fingerprint(dataclasses.replace(plain, dtype=other))


def test_weights_that_change_in_their_place_are_another_model(tmp_path, task):
    store, vectors, folder = (
        Store(tmp_path / "results"),
        Vectors(tmp_path / "vectors"),
        tmp_path / "model",
    )
    first = next(run({"model": on(tiny_folder("bert", folder))}, [task], store, vectors))
    shutil.rmtree(folder)
    second = next(run({"model": on(tiny_folder("bert", folder, seed=1))}, [task], store, vectors))
    assert second.status == "done"
    assert first.result.main.repeats != second.result.main.repeats


def test_methods_without_their_training_say_so_in_the_result(tmp_path, task):
    methods = {name: load_encoder(name) for name in ("quip", "llm2comp")}
    folder = tiny_folder("llama", tmp_path / "llama")
    encoders = {
        name: dataclasses.replace(e, checkpoint=str(folder), dtype="float32", device="cpu")
        for name, e in methods.items()
    }
    cells = list(run(encoders, [task], Store(tmp_path / "results"), Vectors(None)))
    assert [cell.result.card["trained"] for cell in cells] == [False, False]


def test_the_share_of_cut_and_repeated_texts_is_in_the_result(tmp_path, task):
    short = dataclasses.replace(on(tiny_folder("bert", tmp_path / "bert")), max_length=8)
    counts = next(
        run({"short": short}, [task], Store(tmp_path / "results"), Vectors(None))
    ).result.texts
    assert counts["repeated_share"] == 1 - len(SENTENCES) / (2 * len(SENTENCES) ** 2)
    assert 0 < counts["truncated_share"] < 1  # "no" fits, the others do not


@pytest.mark.parametrize("kind", ["llama", "roberta"])
def test_a_text_of_a_hundred_thousand_words_is_cut(tmp_path, kind):
    encoder = on(tiny_folder(kind, tmp_path / kind))
    long = " ".join(["word"] * 100_000)
    assert np.isfinite(encoder.encode([long, "", "short"])).all()
