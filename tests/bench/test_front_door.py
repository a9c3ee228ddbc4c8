"""The Python front door: its examples run, and it does what the command line does."""

import doctest
import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import bench
from bench.errors import UsageError
from bench.tasks import load_task
from tests.bench.encoders import Plain

TRAINED = Path(__file__).parents[1] / "golden" / "kept" / "results"  # with a trained encoder


@dataclass(frozen=True)
class Typed(Plain):
    dtype: str = "float32"


def test_the_examples_of_every_function_run(tmp_path):
    globs = {"folder": str(tmp_path), "trained": TRAINED}
    order = ("load_encoder", "load_task", "run", "results", "report", "study")  # in this order
    assert set(order) == set(bench.__all__)
    for name in order:
        tests = doctest.DocTestFinder(recurse=False).find(getattr(bench, name), name)
        for test in tests:
            test.globs |= vars(bench) | globs
            outcome = doctest.DocTestRunner().run(test)
            assert outcome.attempted > 0
            assert outcome.failed == 0


def test_encoders_and_tasks_may_be_given_as_objects(tmp_path):
    encoder, task = bench.load_encoder("hashing", dim=32), load_task("stsb-paraphrase", limit=50)
    cells = bench.run({"small": encoder}, task, results=tmp_path)
    assert cells[["encoder", "limit", "status"]].values.tolist() == [["small", 50, "done"]]
    frame = bench.results(tmp_path)
    main = frame[frame.main].iloc[0]
    assert main.score == cells.score[0]
    assert main.low < main.score < main.high
    kept = next(tmp_path.glob("small/*.json"))
    assert json.loads(kept.read_text())["spec"]["settings"]["dim"] == 32


def test_columns_of_numbers_are_numbers_where_none_is_known(tmp_path):
    cells = bench.run("hashing", "stsb-paraphrase", limit=1, results=tmp_path)  # of one class
    assert cells.status.tolist() == ["failed"]
    assert not (cells[["score", "spread"]] > 0).any(axis=None)
    bench.run("hashing", "stsb-paraphrase", limit=50, results=tmp_path)
    texts = ["encoder", "trained", "backbone", "dtype", "device", "licence", "source", "method"]
    texts += ["fingerprint", "family", "task", "readout", "metric", "commit", "key"]
    found = bench.results(tmp_path).drop(columns=[*texts, "status", "reason", "main"])
    assert found.dtypes.map(pd.api.types.is_numeric_dtype).all()


def test_results_on_changed_data_are_the_newer_ones_within_a_second_too(tmp_path):
    path = tmp_path / "data/mteb/stsbenchmark-sts/test.jsonl"
    path.parent.mkdir(parents=True)
    for score, seeds in ((0.0, (1, 2)), (5.0, 1)):
        texts = [{"sentence1": f"a {i}", "sentence2": f"b {i % 7}"} for i in range(30)]
        lines = [json.dumps({**row, "score": score + i % 4}) for i, row in enumerate(texts)]
        path.write_text("\n".join(lines))
        given = {"results": tmp_path / "results", "data": tmp_path / "data"}
        bench.run("hashing", "stsb", seeds=seeds, **given)
    found = bench.results(tmp_path / "results")
    assert found[found.main].seed.tolist() == [1]


@pytest.mark.parametrize("name", ["hashing", "renormalised:hashing"])
def test_one_text_is_no_list_of_characters(name):
    with pytest.raises(UsageError, match="expected a list of texts, got 'a text'"):
        bench.load_encoder(name).encode("a text")


def run(results, *args, **settings):
    cells = bench.run(*args, results=results, **{"limit": 40, **settings})
    return cells[["encoder", "seed", "status"]].values.tolist()


def test_one_name_is_no_list_of_letters_and_numbers_may_be_numpy_s(tmp_path):
    task = "stsb-paraphrase"
    encoder = bench.load_encoder("hashing", dim=np.int64(32))
    assert encoder == bench.load_encoder("hashing", dim=32)
    assert bench.load_encoder("backbone-mean", checkpoint=Path("x")).checkpoint == "x"
    assert run(tmp_path, (n for n in ["hashing"]), task, seeds=np.array([1, 2])) == [
        ["hashing", 1, "done"],
        ["hashing", 2, "done"],
    ]
    again = run(tmp_path, "hashing", [task, "faq-categories"], seeds=2, exclude="faq-categories")
    assert again == [["hashing", 2, "cached"]]
    assert run(tmp_path, "hashing", (t for t in [task]), seeds=range(1, 2), limit=np.int64(40)) == [
        ["hashing", 1, "cached"]
    ]
    frame = bench.results([tmp_path, str(tmp_path)], models="hashing", tasks=(t for t in [task]))
    assert frame[frame.main].seed.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"seeds": "42"}, "got '42'"),
        ({"seeds": [4.5]}, "seeds: expected a whole number from 0 to 4294967295, got 4.5"),
        ({"seeds": -1}, "got -1"),
        ({"seeds": [True]}, "got True"),
        ({"seeds": ()}, "expected at least one seed"),
        ({"limit": 0}, "limit: expected a whole number from 1, got 0"),
        ({"limit": "5"}, "got '5'"),
        ({"wordings": 11}, "from 2 to 10, got 11"),
        ({"data": "no-such-folder"}, "no-such-folder"),
        ({"models": {"mine": "hashing"}}, "expected names of encoders"),
        ({"models": Plain()}, "expected names of encoders"),
        ({"suites": "quik"}, "did you mean 'quick'"),
    ],
)
def test_what_the_command_line_refuses_is_refused_before_anything_is_run(tmp_path, settings, hint):
    given = {"models": "hashing", "tasks": "stsb-paraphrase", **settings}
    with pytest.raises(UsageError, match=re.escape(hint)):
        bench.run(results=tmp_path / "results", **given)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("value", [object(), np.zeros(3)])
def test_a_setting_that_is_no_plain_value_is_refused(value):
    with pytest.raises(UsageError, match="'dim'"):
        bench.load_encoder("hashing", dim=value)


def test_objects_compute_in_the_dtype_that_is_asked_for(tmp_path):
    def settings(dtype):
        run(tmp_path / dtype, {"typed": Typed()}, "stsb-paraphrase", dtype=dtype)
        kept = next((tmp_path / dtype).glob("typed/*.json"))
        return json.loads(kept.read_text())["spec"]["settings"]["dtype"]

    assert [settings(dtype) for dtype in ("auto", "bfloat16")] == ["float32", "bfloat16"]
