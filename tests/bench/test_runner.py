"""The one loop: what it runs, what it leaves alone, and how cells end."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from bench.data import load
from bench.encoder import Encoder, Item, TokenEncoder
from bench.errors import EncodingError, Unavailable
from bench.runner import run, survey
from bench.store import Store
from bench.task import Score
from bench.vectors import Vectors
from tests.bench.encoders import Plain


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

    def items(self, *, seed):
        return [Item(text) for text in self.texts]

    def evaluate(self, encoder, *, seed):
        norms = np.linalg.norm(encoder.encode(self.texts), axis=1)
        return {"norm": Score((1 / float(norms.sum()), 1 / (seed + 1)), norms)}


@dataclass(frozen=True)
class Failing(Norms):
    name: str = "failing"
    error: type[Exception] = EncodingError

    def evaluate(self, encoder, *, seed):
        raise self.error("this is why")


@pytest.fixture
def run_on(tmp_path):
    """Return a function that runs tasks into a store in ``results``."""

    def _run(*tasks, encoder=None, **options):
        store = Store(tmp_path / "results")
        return list(run({"plain": encoder or Plain()}, tasks, store, Vectors(None), **options))

    return _run


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results")


def test_a_cell_is_run_once_and_then_read_unless_forced(run_on):
    (first,) = run_on(Norms())
    encoder = Plain()
    (again,) = run_on(Norms(), encoder=encoder)
    assert (first.status, again.status, encoder.asked) == ("done", "cached", [])
    assert again.result.main.repeats == first.result.main.repeats
    assert run_on(Norms(), force=True)[0].status == "done"


def test_examples_in_words_are_kept_with_the_result_and_no_part_of_its_cost(run_on):
    @dataclass(frozen=True)
    class Explaining(Norms):
        name: str = "explaining"

        def explain(self, encoder, *, seed):
            return [{"text": text, "n": str(len(encoder.encode([text])))} for text in self.texts]

    (cell,), (again,) = run_on(Explaining()), run_on(Explaining())
    assert cell.result.samples == again.result.samples
    assert cell.result.samples[1] == {"text": "bb", "n": "1"}
    (plain,) = run_on(Norms())
    assert "samples" not in plain.result.to_json()
    assert cell.result.texts == plain.result.texts


def test_texts_of_all_tasks_are_encoded_in_one_pass(run_on):
    calls = []

    class Counting(Plain):
        def encode(self, texts, *, instruction=""):
            calls.append(len(texts))
            return super().encode(texts)

    run_on(Norms(), Norms(name="other", texts=("a", "zz", "y")), encoder=Counting())
    assert calls == [5]


def test_another_seed_limit_or_task_version_is_another_cell(run_on, store):
    run_on(Norms())
    cells = run_on(Norms(), Norms(version=2), Norms(limit=3), seeds=(42, 1))
    assert [cell.status for cell in cells] == ["cached", *["done"] * 5]
    assert len(store) == 6
    keys = []
    for name, dim in (("a", 8), ("b", 8), ("a", 9)):
        (cell,) = survey(name, Plain(dim), [Norms()], store, seeds=[42])
        keys.append(cell.spec.key)
    assert keys[0] == keys[1] != keys[2]  # the content counts, and not its name


@pytest.mark.parametrize(
    ("error", "status"),
    [(EncodingError, "failed"), (ZeroDivisionError, "failed"), (Unavailable, "skipped")],
)
def test_a_cell_that_cannot_be_done_says_why_and_leaves_only_its_reason(
    run_on, store, error, status
):
    (cell,) = run_on(Failing(error=error))
    assert cell.status == status
    assert "this is why" in cell.reason
    assert len(store) == 0
    assert [(a.status, a.reason) for a in store.absences()] == [(status, cell.reason)]


def test_the_first_failure_ends_the_run_unless_told_to_keep_going(run_on):
    assert [c.status for c in run_on(Failing(), Norms())] == ["failed"]
    cells = run_on(Failing(), Norms(), keep_going=True)
    assert [c.status for c in cells] == ["failed", "done"]


class Picky(Plain):
    """Breaks on one text."""

    def encode(self, texts, *, instruction=""):
        rows = super().encode(texts)
        rows[[text == "poison" for text in texts]] = np.nan
        return rows


class CannotPlan(Norms):
    def items(self, *, seed):
        raise AttributeError("'NoneType' object has no attribute 'encode'")


class NeedsTokens(Norms):
    needs = TokenEncoder


@pytest.mark.parametrize(
    ("task", "status", "reason"),
    [
        (Norms(name="poisoned", texts=("ok", "poison")), "failed", "poison"),
        (CannotPlan(name="broken"), "failed", "'NoneType' object has no attribute"),
        (Norms(name="holes", texts=("a", None, "b")), "failed", "got None in 1 places"),
        (NeedsTokens(name="tokens"), "skipped", "the states of single tokens; plain is not one"),
    ],
)
def test_a_task_that_cannot_be_run_fails_its_own_cells_alone(run_on, task, status, reason):
    cells = run_on(task, Norms(), encoder=Picky(), keep_going=True)
    assert [cell.status for cell in cells] == [status, "done"]
    assert reason in cells[0].reason


class Uneven(Plain):
    """Gives longer vectors with an instruction."""

    def encode(self, texts, *, instruction=""):
        return replace(Plain(), dim=24 + len(instruction)).encode(texts)


class Instructed(Norms):
    def items(self, *, seed):
        return [Item(text, instruction) for text in self.texts for instruction in ("", "why")]

    def evaluate(self, encoder, *, seed):
        encoder.embed(self.items(seed=seed))
        return super().evaluate(encoder, seed=seed)


class Derived(Plain):
    """Doubles the vectors of another encoder."""

    base: ClassVar[Plain] = Plain()

    def derive(self, vectors, items, embed):
        return 2 * vectors


class Unfitted(Derived):
    def fitting_items(self, instructions):
        raise RuntimeError("no texts")


def test_an_encoder_that_breaks_down_fails_its_cells_and_the_next_one_goes_on(store):
    class Breaking(Plain):
        def encode(self, texts, *, instruction=""):
            raise RuntimeError("first line\nsecond line")

    encoders = {"breaking": Breaking(), "plain": Plain()}
    cells = list(run(encoders, [Norms()], store, Vectors(None), keep_going=True))
    line = Breaking.encode.__code__.co_firstlineno + 1
    assert [(cell.status, cell.reason) for cell in cells] == [
        ("failed", f"RuntimeError: first line (at {__file__}:{line})"),
        ("done", ""),
    ]


@pytest.mark.parametrize(
    ("encoder", "task", "reason"),
    [
        (Uneven(), Instructed(), "differ in length"),
        (Unfitted(), Norms(), "RuntimeError: no texts"),
    ],
)
def test_an_encoder_that_breaks_its_contract_fails_its_cells_and_not_the_run(
    run_on, encoder, task, reason
):
    cells = run_on(task, replace(task, name="other"), encoder=encoder, keep_going=True)
    assert [cell.status for cell in cells] == ["failed", "failed"]
    assert all(reason in cell.reason for cell in cells)


def test_an_encoder_may_change_the_vectors_of_another_without_fitting(run_on):
    (plain,), (derived,) = run_on(Norms()), run_on(Norms(), encoder=Derived())
    assert derived.result.main.mean == pytest.approx(
        (1 / (2 / plain.result.scores["norm"].repeats[0]) + 1 / 43) / 2
    )


def test_a_cell_whose_data_has_changed_since_is_run_again_and_that_is_said(
    run_on, tmp_path, monkeypatch, caplog
):
    class Local(Norms):
        def items(self, *, seed):
            return [Item(text) for text in load("org/set", "test")["text"]]

        def evaluate(self, encoder, *, seed):
            encoder.encode(load("org/set", "test")["text"])
            return super().evaluate(encoder, seed=seed)

    path = tmp_path / "data" / "org" / "set" / "test.jsonl"
    path.parent.mkdir(parents=True)
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    for content, said in (('{"text": "one"}\n{"text": "two"}\n', False), ('{"text": "3"}\n', True)):
        path.write_text(content)
        for status in ("done", "cached"):
            caplog.clear()
            assert [cell.status for cell in run_on(Local())] == [status]
            assert (str(path) in caplog.text) == (said and status == "done")


def test_a_result_carries_counts_cost_and_provenance(run_on, store):
    random.seed(5)
    (cell,) = run_on(Norms())
    assert random.random() == random.Random(5).random()  # the global state is left alone
    counts = {"asked": 4, "distinct": 3, "repeated_share": 0.25, "truncated_share": 0.0}
    assert cell.result.texts == counts
    assert cell.result.cost["forward_texts"] == 3
    assert cell.result.provenance["versions"]["python"]
    kept = store[cell.spec]
    assert kept == cell.result
    assert np.allclose(store.examples(kept).main.examples, cell.result.main.examples)


def test_a_results_file_that_cannot_be_read_fails_its_cell_and_is_left_alone(run_on, store):
    (cell,) = run_on(Norms())
    path = store.path(cell.spec)
    path.write_text(json.dumps({"schema": 999}))
    (again,) = run_on(Norms())
    assert (again.status, "999" in again.reason) == ("failed", True)
    assert json.loads(path.read_text()) == {"schema": 999}


SLOW = """
import sys, time
from pathlib import Path
from bench.vectors import Vectors
from bench.runner import run
from bench.store import Store
from tests.bench.test_runner import Norms, Plain

class Slow(Norms):
    def evaluate(self, encoder, *, seed):
        time.sleep(0.2)
        return super().evaluate(encoder, seed=seed)

tasks = [Slow(name=f"t{i}") for i in range(50)]
for cell in run({"plain": Plain()}, tasks, Store(Path(sys.argv[1])), Vectors(None)):
    print(cell.status, flush=True)
"""


def test_a_killed_run_keeps_its_finished_cells_whole(store):
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", SLOW, str(store.root)]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE) as process:
        for _ in range(3):
            assert process.stdout.readline() == b"done\n"
        time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    assert 3 <= len(store) < 50
    assert len(list(store.results())) == len(store)
