"""The one loop: what it runs, what it leaves alone, and how cells end."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from bench.data import load
from bench.encoder import Embeddings, Encoder, Item, TokenEncoder
from bench.errors import EncodingError, Unavailable
from bench.result import Result
from bench.runner import Cell, run, survey
from bench.store import Store
from bench.task import Score
from bench.vectors import Vectors


@dataclass(frozen=True)
class Letters:
    """Counts letters; remembers how often it was called and for how many texts."""

    dim: int = 32
    calls: list[int] = field(default_factory=list, compare=False)
    version: ClassVar[int] = 1
    follows_instructions: ClassVar[bool] = False

    def encode(self, texts: Sequence[str], *, instruction: str = "") -> Embeddings:
        self.calls.append(len(texts))
        rows = np.zeros((len(texts), self.dim), np.float32)
        for row, text in zip(rows, texts, strict=True):
            row[0] = 1
            for letter in text:
                row[ord(letter) % self.dim] += 1
        return rows


@dataclass(frozen=True)
class Norms:
    """A task that reads the length of some vectors."""

    name: str = "norms"
    texts: tuple[str, ...] = ("a", "bb", "ccc", "a")
    limit: int | None = None
    version: int = 1
    family: ClassVar[str] = "made-up"
    metric: ClassVar[str] = "norm"
    readout: ClassVar[str] = "embedding"
    needs: ClassVar[type] = Encoder

    def items(self, *, seed: int) -> Iterable[Item]:
        return [Item(text) for text in self.texts]

    def evaluate(self, encoder: Encoder, *, seed: int) -> Mapping[str, Score]:
        vectors = encoder.encode(self.texts)
        return {
            "norm": Score(
                (1 / float(np.linalg.norm(vectors)), 1 / (seed + 1)),
                np.linalg.norm(vectors, axis=1),
            )
        }


@dataclass(frozen=True)
class Failing(Norms):
    name: str = "failing"
    error: type[Exception] = EncodingError

    def evaluate(self, encoder, *, seed):
        raise self.error("this is why")


def _run(tasks, folder, *, encoder=None, **options) -> list[Cell]:
    return list(
        run(
            {"letters": encoder or Letters()},
            tasks,
            Store(folder),
            options.pop("vectors", None) or Vectors(None),
            **options,
        )
    )


def test_a_cell_is_run_once_and_then_read(tmp_path):
    first = _run([Norms()], tmp_path)
    encoder = Letters()
    again = _run([Norms()], tmp_path, encoder=encoder)
    assert [cell.status for cell in first + again] == ["done", "cached"]
    assert encoder.calls == []
    assert again[0].result.main.repeats == first[0].result.main.repeats


@dataclass(frozen=True)
class Explaining(Norms):
    name: str = "explaining"

    def explain(self, encoder: Encoder, *, seed: int) -> Sequence[Mapping[str, str]]:
        return [
            {"text": text, "norm": f"{np.linalg.norm(encoder.encode([text])):.1f}"}
            for text in self.texts[:2]
        ]


def test_examples_in_words_are_kept_with_the_result(tmp_path):
    (cell,) = _run([Explaining()], tmp_path)
    (again,) = _run([Explaining()], tmp_path)
    assert (
        cell.result.samples
        == again.result.samples
        == [{"text": "a", "norm": "1.4"}, {"text": "bb", "norm": "2.2"}]
    )
    (plain,) = _run([Norms()], tmp_path)
    assert "samples" not in plain.result.to_json()
    assert (
        cell.result.texts == plain.result.texts
    )  # what is only shown is no part of the score's cost


def test_texts_of_all_tasks_are_encoded_in_one_pass(tmp_path):
    encoder = Letters()
    _run([Norms(), Norms(name="other", texts=("a", "zz", "y"))], tmp_path, encoder=encoder)
    assert encoder.calls == [5]


def test_another_seed_limit_or_task_version_is_another_cell(tmp_path):
    _run([Norms()], tmp_path)
    assert [
        c.status for c in _run([Norms(), Norms(version=2), Norms(limit=3)], tmp_path, seeds=(42, 1))
    ] == ["cached"] + ["done"] * 5
    assert len(Store(tmp_path)) == 6


def test_force_runs_a_cell_again(tmp_path):
    _run([Norms()], tmp_path)
    assert _run([Norms()], tmp_path, force=True)[0].status == "done"


@pytest.mark.parametrize(
    ("error", "status"),
    [(EncodingError, "failed"), (ZeroDivisionError, "failed"), (Unavailable, "skipped")],
)
def test_a_cell_that_cannot_be_done_says_why_and_leaves_only_its_reason(tmp_path, error, status):
    (cell,) = _run([Failing(error=error)], tmp_path)
    assert cell.status == status
    assert "this is why" in cell.reason
    assert len(Store(tmp_path)) == 0
    assert [(a.status, a.reason) for a in Store(tmp_path).absences()] == [(status, cell.reason)]


def test_the_first_failure_ends_the_run_unless_told_to_keep_going(tmp_path):
    tasks = [Failing(), Norms()]
    assert [c.status for c in _run(tasks, tmp_path / "stop")] == ["failed"]
    assert [c.status for c in _run(tasks, tmp_path / "go", keep_going=True)] == ["failed", "done"]


def test_a_text_that_breaks_an_encoder_fails_only_the_tasks_that_need_it(tmp_path):
    class Picky(Letters):
        def encode(self, texts, *, instruction=""):
            rows = super().encode(texts)
            rows[[text == "poison" for text in texts]] = np.nan
            return rows

    cells = _run(
        [Norms(), Norms(name="poisoned", texts=("ok", "poison"))],
        tmp_path,
        encoder=Picky(),
        keep_going=True,
    )
    assert [(c.status, "poison" in c.reason) for c in cells] == [("done", False), ("failed", True)]


def test_an_encoder_that_breaks_down_fails_its_cells_and_the_next_one_goes_on(tmp_path):
    class Breaking(Letters):
        def encode(self, texts, *, instruction=""):
            raise RuntimeError("first line\nsecond line")

    encoders = {"breaking": Breaking(), "letters": Letters()}
    cells = list(run(encoders, [Norms()], Store(tmp_path), Vectors(None), keep_going=True))
    line = Breaking.encode.__code__.co_firstlineno + 1
    assert [(c.status, c.reason) for c in cells] == [
        ("failed", f"RuntimeError: first line (at {__file__}:{line})"),
        ("done", ""),
    ]


@pytest.mark.parametrize(
    "fault",
    [
        ValueError("no such configuration"),
        AttributeError("'NoneType' object has no attribute 'encode'"),
    ],
)
def test_a_task_that_cannot_plan_fails_its_own_cells_alone(tmp_path, fault):
    class Broken(Norms):
        def items(self, *, seed):
            raise fault

    cells = _run([Broken(name="broken"), Norms()], tmp_path, keep_going=True)
    assert [c.status for c in cells] == ["failed", "done"]
    assert str(fault) in cells[0].reason


def test_a_row_without_a_text_fails_the_cells_of_its_task_alone(tmp_path):
    cells = _run([Norms(name="holes", texts=("a", None, "b")), Norms()], tmp_path, keep_going=True)
    assert [c.status for c in cells] == ["failed", "done"]
    assert (
        cells[0].reason
        == "expected texts in the data of holes, got None in 1 places: mend or drop these rows"
    )


def test_a_cell_whose_data_has_changed_since_is_run_again_and_that_is_said(
    tmp_path, monkeypatch, caplog
):
    class Local(Norms):
        def items(self, *, seed):
            return [Item(text) for text in load("org/set", "test")["text"]]

        def evaluate(self, encoder, *, seed):
            encoder.encode(load("org/set", "test")["text"])
            return super().evaluate(encoder, seed=seed)

    path = tmp_path / "data" / "org" / "set" / "test.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text('{"text": "one"}\n{"text": "two"}\n')
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    for content, status, said in (
        (None, "done", False),
        (None, "cached", False),
        ('{"text": "three"}\n', "done", True),
        (None, "cached", False),
    ):
        if content:
            path.write_text(content)
        caplog.clear()
        assert [cell.status for cell in _run([Local()], tmp_path / "results")] == [status]
        assert (str(path) in caplog.text) == said


def test_an_encoder_without_the_needed_protocol_is_skipped_and_what_is_needed_is_said(tmp_path):
    class NeedsTokens(Norms):
        needs = TokenEncoder

    (cell,) = _run([NeedsTokens()], tmp_path)
    assert cell.status == "skipped"
    assert (
        cell.reason == "norms requires an encoder that also gives the states of single tokens; "
        "letters is not one"
    )


def test_a_result_carries_counts_cost_and_provenance(tmp_path):
    result: Result = _run([Norms()], tmp_path)[0].result
    assert result.texts == {
        "asked": 4,
        "distinct": 3,
        "repeated_share": 0.25,
        "truncated_share": 0.0,
    }
    assert result.cost["forward_texts"] == 3
    assert result.provenance["versions"]["python"]
    kept = Store(tmp_path)[result.spec]
    assert kept == result
    assert np.allclose(Store(tmp_path).examples(kept).main.examples, result.main.examples)


def test_the_same_content_under_another_name_has_the_same_key(tmp_path):
    store = Store(tmp_path)
    specs = [
        survey(name, Letters(dim=dim), [Norms()], store, seeds=[42])[0].spec
        for name, dim in (("a", 8), ("b", 8), ("a", 9))
    ]
    assert specs[0].key == specs[1].key != specs[2].key


def test_a_results_file_that_cannot_be_read_fails_its_cell_and_is_left_alone(tmp_path):
    (cell,) = _run([Norms()], tmp_path)
    path = Store(tmp_path).path(cell.spec)
    path.write_text(json.dumps({"schema": 999}))
    (again,) = _run([Norms()], tmp_path)
    assert (again.status, "999" in again.reason) == ("failed", True)
    assert json.loads(path.read_text()) == {"schema": 999}


def test_a_run_leaves_the_global_random_state_alone(tmp_path):
    random.seed(5)
    expected = random.Random(5).random()
    _run([Norms()], tmp_path)
    assert random.random() == expected


_SLOW = """
import sys, time
from pathlib import Path
from bench.vectors import Vectors
from bench.runner import run
from bench.store import Store
from tests.bench.test_runner import Letters, Norms

class Slow(Norms):
    def evaluate(self, encoder, *, seed):
        time.sleep(0.2)
        return super().evaluate(encoder, seed=seed)

tasks = [Slow(name=f"t{i}") for i in range(50)]
for cell in run({"letters": Letters()}, tasks, Store(Path(sys.argv[1])), Vectors(None)):
    print(cell.status, flush=True)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_keeps_its_finished_cells_whole(tmp_path, how):
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, "-c", _SLOW, str(tmp_path)],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        for _ in range(3):
            assert process.stdout.readline() == b"done\n"
        time.sleep(0.05)
        process.send_signal(how)
        process.wait(30)
    store = Store(tmp_path)
    assert 3 <= len(store) < 50
    assert len(list(store.results())) == len(store)
