"""Whole runs on tiny models in real layouts: what is shared between models, and what never is."""

import dataclasses
import gzip
import itertools
import json
import shutil

import pytest

from adapters.baseline.pooled import Pooled
from bench.registry import load_encoder
from bench.runner import run
from bench.store import Store
from bench.tasks.sts import STS
from bench.vectors import Vectors
from tests.tiny import SENTENCES, tiny_folder

TASK = STS("pairs", data="made/pairs")
N = len(SENTENCES)


@pytest.fixture
def run_on(tmp_path, monkeypatch):
    """Return a function that runs the task on encoders, with one store and one cache."""
    path = tmp_path / "data/made/pairs/test.jsonl.gz"
    path.parent.mkdir(parents=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        for i, (left, right) in enumerate(itertools.product(SENTENCES, repeat=2)):
            row = {"sentence1": left, "sentence2": right, "score": (i * i) % 5}
            file.write(json.dumps(row) + "\n")
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))

    def _run(folder, *, name="model", encoder=None, **settings):
        settings = {"dtype": "float32", "device": "cpu", "checkpoint": str(folder), **settings}
        encoder = dataclasses.replace(encoder or Pooled(), **settings)
        store, vectors = Store(tmp_path / "results"), Vectors(tmp_path / "vectors")
        (cell,) = run({name: encoder}, [TASK], store, vectors)
        return cell

    return _run


def test_other_weights_under_one_name_share_nothing_and_the_same_in_another_place_all(
    tmp_path, run_on
):
    one, two = (
        tiny_folder("bert", tmp_path / place / "model", seed=i) for i, place in enumerate("ab")
    )
    first, second = (run_on(folder) for folder in (one, two))
    assert (first.status, second.status) == ("done", "done")
    assert first.result.main.repeats != second.result.main.repeats
    assert second.result.cost["forward_texts"] == N
    there = shutil.copytree(one, tmp_path / "there")
    assert run_on(there).status == "cached"
    again = run_on(there, name="another name")
    assert (again.status, again.result.cost["forward_texts"]) == ("done", 0)
    shutil.rmtree(one)  # weights that change in their place
    shutil.copytree(two, one)
    assert run_on(one).result.main.repeats == second.result.main.repeats


def test_methods_without_their_training_say_so_in_the_result(tmp_path, run_on):
    folder = tiny_folder("llama", tmp_path / "llama")
    for name in ("quip", "llm2comp"):
        assert run_on(folder, name=name, encoder=load_encoder(name)).result.card["trained"] is False


def test_the_share_of_cut_and_repeated_texts_is_in_the_result(tmp_path, run_on):
    counts = run_on(tiny_folder("bert", tmp_path / "bert"), max_length=8).result.texts
    assert counts["repeated_share"] == 1 - N / (2 * N**2)
    assert 0 < counts["truncated_share"] < 1  # "no" fits, the others do not
