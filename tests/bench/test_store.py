"""Results: their file format, their identity, and a store that is whole whatever happens."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.encoder import Card, digest, fingerprint
from bench.errors import ResultError
from bench.result import SCHEMA, Absence, Result, RunSpec
from bench.store import Store, read
from bench.task import Score, sample

GOLDEN = Path(__file__).parents[1] / "golden" / "result.json"
SPEC = RunSpec(
    "quip",
    "0123456789abcdef",
    {"layer": -1, "checkpoint": "folder"},
    "stsb",
    1,
    "embedding",
    42,
    None,
)
RESULT = Result(
    SPEC,
    "sts",
    "cosine_spearman",
    {"cosine_spearman": Score((0.5, 0.75)), "max_spearman": Score((0.5,))},
    card={"weights": "ab", "trained": False},
    texts={"asked": 4, "distinct": 3, "repeated_share": 0.25, "truncated_share": 0.0},
    cost={"seconds": 1.5},
    provenance={
        "time": "2030-01-02T03:04:05+00:00",
        "data": [{"id": "mteb/stsbenchmark-sts", "source": "local"}],
    },
)


def test_the_file_format_is_the_golden_one():
    """A new format needs a new SCHEMA and golden file: ``python -m tests.bench.test_store``."""
    assert RESULT.to_json() == json.loads(GOLDEN.read_text())
    assert read(GOLDEN) == RESULT


def test_the_key_does_not_depend_on_the_hash_seed():
    code = "from tests.bench.test_store import SPEC; print(SPEC.key)"
    environment = {
        **os.environ,
        "PYTHONHASHSEED": "1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == SPEC.key + "\n"


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"limit": 5},
        {"task": "sts12"},
        {"task_version": 2},
        {"readout": "tokens"},
        {"fingerprint": "f" * 16},
    ],
)
def test_whatever_decides_the_scores_changes_the_key(change):
    assert replace(SPEC, **change).key != SPEC.key


def test_names_and_places_do_not_change_the_key():
    assert replace(SPEC, encoder="other", settings={"checkpoint": "elsewhere"}).key == SPEC.key


@settings(max_examples=25)
@given(
    st.dictionaries(
        st.text(min_size=1), st.lists(st.floats(-1e6, 1e6), min_size=1).map(tuple), min_size=1
    ),
    st.text(),
)
def test_any_result_comes_back_from_its_file_format(scores, words):
    made = replace(
        RESULT,
        scores={name: Score(repeats) for name, repeats in scores.items()},
        metric=min(scores),
        provenance={"command": words},
    )
    assert Result.from_json(json.loads(json.dumps(made.to_json()))) == made


@given(st.text(min_size=1))
def test_any_encoder_name_is_a_safe_file_name(name):
    path = Store(Path("root")).path(replace(SPEC, encoder=name))
    assert path.parts[0] == "root"
    assert len(path.parts) == 3
    assert ".." not in path.parts


def test_names_of_any_length_and_script_have_cells_of_their_own(tmp_path):
    store = Store(tmp_path)
    names = [
        "日本",
        "中国",
        "é",
        "st:a/b",
        "st:a_b",
        "st_a_b",
        "x" * 300,
        "x" * 301,
        "st:/my,texts",
    ]
    cells = [replace(SPEC, encoder=name, task=task) for name in names for task in ("日", "t" * 400)]
    for spec in cells:
        assert spec not in store
        store[spec] = replace(RESULT, spec=spec)
        store.leave_out(replace(ABSENCE, encoder=spec.encoder, task=spec.task))
    assert sorted(spec.encoder for spec in store) == sorted(2 * names)
    assert len(store.absences()) == len(cells)
    assert all(store[spec].spec == spec for spec in cells)


def test_results_under_the_shorter_names_of_earlier_versions_are_found_with_their_examples(
    tmp_path,
):
    mine, other = (replace(SPEC, encoder=name) for name in ("st:a/b", "st:a_b"))
    score = Score((0.5,), np.array([0.25, 1], np.float32))
    store = Store(tmp_path)
    store[mine] = replace(RESULT, spec=mine, scores={"cosine_spearman": score})
    (tmp_path / "st_a_b").mkdir()
    for path in list(tmp_path.glob("st_a_b-*/*")):
        path.rename(tmp_path / "st_a_b" / path.name)
    assert mine in store
    assert other not in store
    assert store.examples(store[mine]).main.examples.tolist() == [0.25, 1]
    store[mine] = replace(RESULT, spec=mine)
    store[other] = replace(RESULT, spec=other)
    assert sorted(spec.encoder for spec in store) == ["st:a/b", "st:a_b"]


def test_what_is_stored_comes_back_with_its_examples(tmp_path):
    store = Store(tmp_path)
    made = replace(
        RESULT, scores={"cosine_spearman": Score((0.5,), np.array([0.25, 1], np.float32))}
    )
    store[SPEC] = made
    assert SPEC in store
    assert list(store) == [SPEC]
    assert store[SPEC] == made
    assert store.examples(store[SPEC]).main.examples.tolist() == [0.25, 1]
    with pytest.raises(KeyError):
        store[replace(SPEC, seed=0)]


@pytest.mark.parametrize(
    "harm",
    [
        lambda _: b"",
        lambda _: b"no archive",
        lambda data: data[: len(data) // 2],
        lambda data: data[:70] + b"?" * 20 + data[90:],
    ],
)
def test_examples_that_cannot_be_read_are_an_error_of_one_line_that_says_what_to_delete(
    tmp_path, harm
):
    store = Store(tmp_path)
    made = replace(
        RESULT,
        scores={"cosine_spearman": Score((0.5,), np.random.default_rng(0).random(50, np.float32))},
    )
    store[SPEC] = made
    path = store.path(SPEC).with_suffix(".npz")
    path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(ResultError, match=f"delete it and {store.path(SPEC).name}") as error:
        store.examples(made)
    assert str(path) in str(error.value)
    assert "pickle" not in str(error.value)
    assert "\n" not in str(error.value)


def test_values_of_another_run_beside_a_result_make_the_cell_count_as_missing(tmp_path, caplog):
    store = Store(tmp_path)
    score = Score((0.5,), np.array([0.25, 1], np.float32))
    for spec in (SPEC, replace(SPEC, seed=1)):
        store[spec] = replace(RESULT, spec=spec, scores={"cosine_spearman": score})
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
    assert store.examples(store[SPEC]).main.examples.tolist() == [0.25, 1]


def test_results_of_before_there_were_hashes_are_read_with_their_values(tmp_path):
    store = Store(tmp_path)
    score = Score((0.5,), np.array([0.25, 1], np.float32))
    store[SPEC] = replace(RESULT, scores={"cosine_spearman": score})
    path = store.path(SPEC)
    data = json.loads(path.read_text())
    assert len(data.pop("archive")) == len(data.pop("digest")) == 64
    path.write_text(json.dumps(data))
    assert SPEC in store
    assert store.examples(store[SPEC]).main.examples.tolist() == [0.25, 1]


def test_a_cell_that_cannot_be_written_is_known_before_it_is_run(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ResultError, match="cannot write"):
        Store(tmp_path / "file").check_writable(SPEC)
    Store(tmp_path).check_writable(SPEC)
    assert not [path for path in tmp_path.rglob("*.*") if path.is_file()]


def test_what_examples_are_compared_with_comes_back_beside_them(tmp_path):
    store = Store(tmp_path)
    score = Score((0.5,), np.array([0.25, 1], np.float32), np.array([3, 5], np.float32))
    store[SPEC] = replace(RESULT, scores={"cosine_spearman": score})
    assert store.examples(store[SPEC]).main.gold.tolist() == [3, 5]


ABSENCE = Absence(
    SPEC.encoder, "sts", SPEC.task, SPEC.readout, SPEC.seed, SPEC.limit, "skipped", "no data"
)


def test_why_a_cell_has_no_result_is_kept_until_a_result_takes_its_place(tmp_path):
    store = Store(tmp_path)
    store.leave_out(replace(ABSENCE, reason="first"))
    store.leave_out(ABSENCE)
    store.leave_out(replace(ABSENCE, seed=7))
    assert sorted(a.seed for a in store.absences()) == [7, 42]
    assert ABSENCE in store.absences()
    assert (len(store), list(store)) == (0, [])
    store[SPEC] = RESULT
    assert [a.seed for a in store.absences()] == [7]


def test_the_file_format_of_reasons_is_this_one(tmp_path, caplog):
    Store(tmp_path).leave_out(ABSENCE)
    (path,) = tmp_path.glob("*/*.absent")
    words = {
        "family": "sts",
        "task": "stsb",
        "readout": "embedding",
        "seed": 42,
        "limit": None,
        "status": "skipped",
        "reason": "no data",
    }
    data = {"schema": 1, "encoder": "quip", **words}
    assert json.loads(path.read_text()) == {**data, "digest": digest(data)}
    path.write_text(path.read_text().replace("no data", "no date"))
    assert Store(tmp_path).absences() == []
    assert "not hold what was written" in caplog.text
    path.write_text('{"schema": 1, "encoder": "quip"}')
    assert Store(tmp_path).absences() == []
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
def test_a_file_that_is_no_result_is_an_error_of_one_line_that_names_it(tmp_path, content, told):
    path = Store(tmp_path).path(SPEC)
    path.parent.mkdir()
    path.write_text(content, encoding="latin-1")
    with pytest.raises(ResultError, match=told) as error:
        Store(tmp_path)[SPEC]
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


_FULL_DISK = """
import resource, sys
from dataclasses import replace
from pathlib import Path
from bench.store import Store
from tests.bench.test_store import RESULT, SPEC
store = Store(Path(sys.argv[1]))
store[SPEC] = RESULT
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))  # as a disk with 100 bytes left
try:
    store[SPEC] = replace(RESULT, family="changed")
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_full_disk_is_an_error_that_leaves_what_was_there(tmp_path):
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", _FULL_DISK, str(tmp_path)],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.startswith("ResultError cannot write"), done.stderr
    assert Store(tmp_path)[SPEC] == RESULT
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [
        Store(tmp_path).path(SPEC).name
    ]


@dataclass(frozen=True)
class Placed:
    """An encoder whose weights are a digest."""

    checkpoint: str = ""
    layer: int = -1
    version: ClassVar[int] = 1
    follows_instructions: ClassVar[bool] = False
    weights: ClassVar[str] = "w"

    def encode(self, texts, *, instruction=""):
        return np.ones((len(texts), 2), np.float32)

    def card(self):
        return Card(weights=self.weights)


def test_fingerprints_differ_exactly_with_class_version_settings_and_weights():
    class Other(Placed):
        weights = "other"

    class Newer(Placed):
        version = 2

    prints = [fingerprint(e) for e in (Placed(), Placed(layer=3), Other(), Newer())]
    assert len(set(prints)) == 4
    assert fingerprint(Placed()) == prints[0]


def test_a_score_has_a_mean_and_a_sample_standard_deviation():
    assert (Score((1.0, 2.0, 3.0)).mean, Score((1.0, 2.0, 3.0)).spread) == (2.0, 1.0)
    assert Score((1.0,)).spread is None


@given(st.integers(0, 200), st.none() | st.integers(1, 200))
def test_a_limit_draws_rows_once_in_order_and_always_the_same(n, limit):
    rows = sample(n, limit)
    assert len(rows) == (n if limit is None else min(n, limit))
    assert (np.diff(rows) > 0).all()
    assert rows.tolist() == sample(n, limit).tolist()


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(RESULT.to_json(), indent=1) + "\n")
