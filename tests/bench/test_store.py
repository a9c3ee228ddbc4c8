"""Results: their file format, their identity, and a store that is whole whatever happens."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.encoder import digest, fingerprint
from bench.errors import ResultError
from bench.store import Store, read
from bench.store.result import SCHEMA, Absence, Result, RunSpec
from bench.task import Score, sample
from tests.bench.commands import run_python
from tests.bench.encoders import Plain

GOLDEN = Path(__file__).parents[1] / "golden" / "result.json"
PLACED = {"layer": -1, "checkpoint": "folder"}
SPEC = RunSpec("quip", "0123456789abcdef", PLACED, "stsb", 1, "embedding", 42, None)
TEXTS = {"asked": 4, "distinct": 3, "repeated_share": 0.25, "truncated_share": 0.0}
TIME = "2030-01-02T03:04:05+00:00"
RESULT = Result(
    SPEC,
    "sts",
    "cosine_spearman",
    {"cosine_spearman": Score((0.5, 0.75)), "max_spearman": Score((0.5,))},
    card={"weights": "ab", "trained": False},
    texts=TEXTS,
    cost={"seconds": 1.5},
    provenance={"time": TIME, "data": [{"id": "mteb/stsbenchmark-sts", "source": "local"}]},
)
VALUES = Score((0.5,), np.array([0.25, 1], np.float32), np.array([3, 5], np.float32))
VALUED = replace(RESULT, scores={"cosine_spearman": VALUES})
ABSENCE = Absence("quip", "sts", "stsb", "embedding", 42, None, "skipped", "no data")


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def examples(store, spec=SPEC):
    return store.examples(store[spec]).main.examples.tolist()


def test_the_file_format_is_the_golden_one():
    """A new format needs a new SCHEMA and golden file: ``python -m tests.bench.test_store``."""
    assert RESULT.to_json() == json.loads(GOLDEN.read_text())
    assert read(GOLDEN) == RESULT


def test_the_key_is_of_whatever_decides_the_scores_and_of_nothing_else():
    code = "from tests.bench.test_store import *; print(SPEC.key, fingerprint(Plain()))"
    assert run_python(code, PYTHONHASHSEED="1").split() == [SPEC.key, fingerprint(Plain())]
    assert replace(SPEC, encoder="other", settings={"checkpoint": "elsewhere"}).key == SPEC.key
    changes = {"seed": 1, "limit": 5, "task": "sts12", "task_version": 2, "readout": "tokens"}
    for name, value in {**changes, "fingerprint": "f" * 16}.items():
        assert replace(SPEC, **{name: value}).key != SPEC.key


REPEATS = st.lists(st.floats(-1e6, 1e6), min_size=1).map(tuple)


@settings(max_examples=25)
@given(st.dictionaries(st.text(min_size=1), REPEATS, min_size=1), st.text())
def test_any_result_comes_back_from_its_file_format(scores, words):
    made = replace(
        RESULT,
        scores={name: Score(repeats) for name, repeats in scores.items()},
        metric=min(scores),
        provenance={"command": words},
    )
    assert Result.from_json(json.loads(json.dumps(made.to_json()))) == made


@settings(max_examples=50)
@given(st.text(min_size=1))
def test_any_encoder_name_is_a_safe_file_name(name):
    path = Store(Path("root")).path(replace(SPEC, encoder=name))
    assert path.parts[0] == "root"
    assert len(path.parts) == 3
    assert ".." not in path.parts


NAMES = ["日本", "中国", "é", "st:a/b", "st:a_b", "st_a_b", "st:/my,texts"]
NAMES += ["x" * 300, "x" * 301]


def test_names_of_any_length_and_script_have_cells_of_their_own(store):
    cells = [replace(SPEC, encoder=name, task=task) for name in NAMES for task in ("日", "t" * 400)]
    for spec in cells:
        assert spec not in store
        store[spec] = replace(RESULT, spec=spec)
        store.leave_out(replace(ABSENCE, encoder=spec.encoder, task=spec.task))
    assert sorted(spec.encoder for spec in store) == sorted(2 * NAMES)
    assert len(store.absences()) == len(cells)
    assert all(store[spec].spec == spec for spec in cells)


def test_results_under_the_shorter_names_of_earlier_versions_are_found_with_their_examples(store):
    mine, other = (replace(SPEC, encoder=name) for name in ("st:a/b", "st:a_b"))
    store[mine] = replace(VALUED, spec=mine)
    old = store.root / "st_a_b"
    old.mkdir()
    for path in list(store.root.glob("st_a_b-*/*")):
        path.rename(old / path.name)
    assert mine in store
    assert other not in store
    assert examples(store, mine) == [0.25, 1]
    store[mine] = replace(RESULT, spec=mine)
    store[other] = replace(RESULT, spec=other)
    assert sorted(spec.encoder for spec in store) == ["st:a/b", "st:a_b"]


def test_what_is_stored_comes_back_with_its_examples(store):
    store[SPEC] = VALUED
    assert SPEC in store
    assert list(store) == [SPEC]
    assert store[SPEC] == VALUED
    assert examples(store) == [0.25, 1]
    assert store.examples(store[SPEC]).main.gold.tolist() == [3, 5]
    with pytest.raises(KeyError):
        store[replace(SPEC, seed=0)]
    path = store.path(SPEC)  # as before there were hashes
    data = json.loads(path.read_text())
    assert len(data.pop("archive")) == len(data.pop("digest")) == 64
    path.write_text(json.dumps(data))
    assert SPEC in store
    assert examples(store) == [0.25, 1]


@pytest.mark.parametrize("harm", [lambda _: b"", lambda _: b"no archive", lambda data: data[:99]])
def test_examples_that_cannot_be_read_are_an_error_of_one_line_that_says_what_to_delete(
    store, harm
):
    store[SPEC] = VALUED
    path = store.path(SPEC).with_suffix(".npz")
    path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(ResultError, match=f"delete it and {store.path(SPEC).name}") as error:
        store.examples(VALUED)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_values_of_another_run_beside_a_result_make_the_cell_count_as_missing(store, caplog):
    for spec in (SPEC, replace(SPEC, seed=1)):
        store[spec] = replace(VALUED, spec=spec)
    path = store.path(SPEC).with_suffix(".npz")
    before = path.read_bytes()
    for harm in (lambda: np.savez(path, cosine_spearman=np.ones(2, np.float32)), path.unlink):
        harm()
        caplog.clear()
        assert SPEC not in store
        assert [result.spec.seed for result in store.results()] == [1]
        assert caplog.text.count(path.name) == 1
        assert path.with_suffix(".json").name in caplog.text
    path.write_bytes(before)
    assert SPEC in store
    assert examples(store) == [0.25, 1]


def test_a_cell_that_cannot_be_written_is_known_before_it_is_run(store):
    (store.root / "file").touch()
    with pytest.raises(ResultError, match="cannot write"):
        Store(store.root / "file").check_writable(SPEC)
    store.check_writable(SPEC)
    assert not [path for path in store.root.rglob("*.*") if path.is_file()]


def test_why_a_cell_has_no_result_is_kept_until_a_result_takes_its_place(store, caplog):
    store.leave_out(replace(ABSENCE, reason="first"))
    (path,) = store.root.glob("*/*.absent")
    store.leave_out(ABSENCE)
    words = {"family": "sts", "task": "stsb", "readout": "embedding", "seed": 42, "limit": None}
    data = {"schema": 1, "encoder": "quip", **words, "status": "skipped", "reason": "no data"}
    assert json.loads(path.read_text()) == {**data, "digest": digest(data)}
    store.leave_out(replace(ABSENCE, seed=7))
    assert sorted(a.seed for a in store.absences()) == [7, 42]
    assert ABSENCE in store.absences()
    assert (len(store), list(store)) == (0, [])
    store[SPEC] = RESULT
    assert [a.seed for a in store.absences()] == [7]
    (path,) = store.root.glob("*/*.absent")
    for content in (path.read_text().replace("no data", "no date"), '{"schema": 1}'):
        caplog.clear()
        path.write_text(content)
        assert store.absences() == []
        assert str(path) in caplog.text


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (json.dumps({**RESULT.to_json(), "schema": SCHEMA + 1}), "upgrade"),
        (json.dumps(RESULT.to_json())[:100], "delete"),
        ("[1, 2]", "no schema number"),
        (json.dumps({"schema": SCHEMA}), "'spec' is missing"),
        ("\xff", "delete"),
    ],
)
def test_a_file_that_is_no_result_is_an_error_of_one_line_that_names_it(store, content, told):
    path = store.path(SPEC)
    path.parent.mkdir()
    path.write_text(content, encoding="latin-1")
    with pytest.raises(ResultError, match=told) as error:
        _ = store[SPEC]
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_score_has_a_mean_and_a_sample_standard_deviation():
    assert (Score((1.0, 2.0, 3.0)).mean, Score((1.0, 2.0, 3.0)).spread) == (2.0, 1.0)
    assert Score((1.0,)).spread is None


@settings(max_examples=50)
@given(st.integers(0, 200), st.none() | st.integers(1, 200))
def test_a_limit_draws_rows_once_in_order_and_always_the_same(n, limit):
    rows = sample(n, limit)
    assert len(rows) == (n if limit is None else min(n, limit))
    assert (np.diff(rows) > 0).all()
    assert rows.tolist() == sample(n, limit).tolist()


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(RESULT.to_json(), indent=1) + "\n")
