"""The one loop: what it runs, what it leaves alone, and how cells end."""

import json
import random
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from bench.data import load
from bench.embeddings import CachedEncoder
from bench.encoder import Card, Item, TokenEncoder
from bench.engine import score
from bench.errors import EncodingError, Unavailable
from bench.runner import run, survey
from bench.store import Store, provenance
from bench.task import NetworkTask, Score
from bench.vectors import Vectors
from tests.bench.encoders import Norms, Plain, Words


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results")


@pytest.fixture
def run_on(store):
    """Return a function that runs tasks into the store."""

    def _run(*tasks, encoder=None, **options):
        return list(run({"plain": encoder or Plain()}, tasks, store, Vectors(None), **options))

    return _run


def statuses(cells):
    return [cell.status for cell in cells]


def test_cells_are_run_once_in_one_pass_unless_forced_or_of_another_seed_limit_or_version(
    run_on, store
):
    tasks, encoder = (Norms(), Norms(name="other", texts=("a", "zz", "y"))), Plain()
    first, _ = run_on(*tasks, encoder=encoder)
    assert sorted(item.text for item in encoder.asked) == ["a", "bb", "ccc", "y", "zz"]
    assert len(encoder.calls) == 1
    again, _ = run_on(*tasks, encoder=encoder)
    assert (first.status, again.status, len(encoder.calls)) == ("done", "cached", 1)
    assert again.result.main.repeats == first.result.main.repeats
    assert statuses(run_on(Norms(), force=True)) == ["done"]
    cells = run_on(Norms(), Norms(version=2), Norms(limit=3), seeds=(42, 1))
    assert statuses(cells) == ["cached", *["done"] * 5]
    assert len(store) == 7
    keys = []
    for name, dim in (("a", 8), ("b", 8), ("a", 9)):
        (cell,) = survey(name, Plain(dim), [Norms()], store, seeds=[42])
        keys.append(cell.spec.key)
    assert keys[0] == keys[1] != keys[2]  # the content counts, and not its name


def test_a_result_carries_counts_cost_provenance_and_examples_in_words(run_on, store):
    @dataclass(frozen=True, kw_only=True)
    class Explaining(Norms):
        name: str = "explaining"

        def explain(self, encoder, *, seed):
            return [{"text": text, "n": str(len(encoder.encode([text])))} for text in self.texts]

    random.seed(5)
    plain, explained = run_on(Norms(), Explaining())
    assert random.random() == random.Random(5).random()  # the global state is left alone
    counts = {"asked": 4, "distinct": 3, "repeated_share": 0.25, "truncated_share": 0.0}
    assert plain.result.texts == explained.result.texts == counts  # words cost nothing
    assert plain.result.cost["forward_texts"] == 3
    assert plain.result.provenance["versions"]["python"]
    assert explained.result.samples[1] == {"text": "bb", "n": "1"}
    assert "samples" not in plain.result.to_json()
    for cell in (plain, explained):
        kept = store[cell.spec]
        assert kept == cell.result
        assert kept.samples == cell.result.samples
        assert np.allclose(store.examples(kept).main.examples, cell.result.main.examples)


@dataclass(frozen=True, kw_only=True)
class Failing(Norms):
    name: str = "failing"
    error: type[Exception] = EncodingError

    def score(self, vectors, *, seed):
        raise self.error("this is why")


class CannotPlan(Norms):
    def items(self, *, seed):
        raise AttributeError("'NoneType' object has no attribute 'encode'")


@dataclass(frozen=True, kw_only=True)
class Half(Norms):
    examples: object = ()
    name: str = "half"

    def score(self, vectors, *, seed):
        return {"norm": Score((np.float32(0.5),), self.examples)}


class Unequal(Norms):
    def score(self, vectors, *, seed):
        return {"norm": Score((0.5,), np.ones(2, np.float32), np.ones(3, np.float32))}


class Another(Norms):
    def score(self, vectors, *, seed):
        return {"other": Score((0.5,))}


class Undefined(Norms):
    def score(self, vectors, *, seed):
        return {"norm": Score((float("nan"),))}


class NeedsTokens(Norms):
    needs = TokenEncoder


class Picky(Plain):
    """Breaks on one text."""

    def encode(self, texts, *, instruction=""):
        rows = super().encode(texts)
        rows[[text == "poison" for text in texts]] = np.nan
        return rows


@pytest.mark.parametrize(
    ("task", "status", "reason"),
    [
        (Failing(), "failed", "this is why"),
        (Failing(error=ZeroDivisionError), "failed", "this is why"),
        (Failing(error=Unavailable), "skipped", "this is why"),
        (Norms(name="poisoned", texts=("ok", "poison")), "failed", "poison"),
        (CannotPlan(name="broken"), "failed", "'NoneType' object has no attribute"),
        (Norms(name="holes", texts=("a", None, "b")), "failed", "got None in 1 places"),
        (Another(name="another"), "failed", "promises norm, its scores are other"),
        (Unequal(name="unequal"), "failed", "examples, gold and ids of norm alike, got [2, 3]"),
        (Undefined(name="nan"), "failed", "expected at least one, all finite"),
        (NeedsTokens(name="tokens"), "skipped", "the states of single tokens; plain is not one"),
    ],
)
def test_a_task_that_cannot_be_run_fails_its_own_cell_alone_and_leaves_its_reason(
    run_on, store, task, status, reason
):
    cell, other = run_on(task, Norms(), encoder=Picky(), keep_going=True)
    assert (cell.status, other.status) == (status, "done")
    assert reason in cell.reason
    assert len(store) == 1
    assert [(a.status, a.reason) for a in store.absences()] == [(status, cell.reason)]
    if status == "failed":  # and ends a run that is not to keep going
        assert statuses(run_on(task, Norms(limit=3), encoder=Picky())) == ["failed"]


def test_a_card_that_could_not_be_read_again_fails_the_cell(run_on, store):
    class Counted(Plain):
        def card(self):
            return Card(parameters=1.1e8)

    (cell,) = run_on(Norms(), encoder=Counted())
    assert cell.status == "failed"
    assert "'card.parameters' is missing or of another kind" in cell.reason
    assert not len(store)


@dataclass(frozen=True)
class States(NetworkTask):
    """Reads token states alone, which no cache keeps."""

    name: str = "states"
    family: ClassVar[str] = "made-up"
    metric: ClassVar[str] = "tokens"

    def load(self, seed):
        return ["a b", "c"]

    def measure(self, encoder, *, seed):
        found = encoder.encode_tokens(self.load(seed))
        return {"tokens": Score((float(sum(len(each.states) for each in found)),))}


def test_the_memory_of_a_cell_is_that_of_the_process_that_reads_its_token_states():
    measured = score(CachedEncoder(Words(), Vectors(None)), States(), 1)
    assert measured.cost.tokens > 0
    assert measured.cost.peak_memory_mb > 1


def test_the_command_of_a_result_can_be_run_where_it_was_a_module(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/place/bench/__main__.py", "run", "-m", "a b"])
    made = provenance._describe_process.__wrapped__()
    assert made["command"] == "python -m bench run -m 'a b'"


@pytest.mark.parametrize("examples", [[1, 0], [True, False], np.array([1.0, 0.0])])
def test_scores_and_examples_may_be_of_any_type_of_number(run_on, store, examples):
    first, again = (*run_on(Half(examples=examples)), *run_on(Half(examples=examples)))
    assert (first.status, again.status, again.result.main.repeats) == ("done", "cached", (0.5,))
    (kept,) = store.results()
    assert kept.main.examples.tolist() == [1, 0]


class Breaking(Plain):
    def encode(self, texts, *, instruction=""):
        raise RuntimeError("first line\nsecond line")


BREAKS = Breaking.encode.__code__.co_firstlineno + 1  # the line


class Uneven(Plain):
    """Gives longer vectors with an instruction."""

    def encode(self, texts, *, instruction=""):
        return Plain(dim=24 + len(instruction)).encode(texts)


class Derived(Plain):
    """Doubles the vectors of another encoder."""

    base: ClassVar[Plain] = Plain()

    def derive(self, vectors, items, embed):
        return 2 * vectors


class Unfitted(Derived):
    def fitting_items(self, instructions):
        raise RuntimeError("no texts")


class Instructed(Norms):
    def items(self, *, seed):
        return [Item(text, instruction) for text in self.texts for instruction in ("", "why")]


@pytest.mark.parametrize(
    ("encoder", "reason"),
    [
        (Breaking(), f"RuntimeError: first line (at {__file__}:{BREAKS})"),
        (Uneven(), "differ in length"),
        (Unfitted(), "RuntimeError: no texts"),
    ],
)
def test_an_encoder_that_breaks_down_fails_its_cells_and_the_next_one_goes_on(
    store, encoder, reason
):
    encoders, tasks = {"broken": encoder, "plain": Plain()}, [Instructed(), Instructed(name="b")]
    cells = list(run(encoders, tasks, store, Vectors(None), keep_going=True))
    assert statuses(cells) == ["failed", "failed", "done", "done"]
    assert all(reason in cell.reason and "\n" not in cell.reason for cell in cells[:2])


def test_the_cells_of_an_encoder_that_is_not_available_are_skipped(run_on):
    class Absent(Plain):
        def card(self):
            raise Unavailable("the hub does not have it")

    (cell,) = run_on(Norms(), encoder=Absent())
    assert (cell.status, cell.reason) == ("skipped", "the hub does not have it")


def test_a_seed_that_is_named_twice_is_one_cell(run_on):
    assert [cell.seed for cell in run_on(Norms(), seeds=(1, 2, 1))] == [1, 2]


def test_an_encoder_may_change_the_vectors_of_another_without_fitting(run_on):
    (plain,), (derived,) = run_on(Norms()), run_on(Norms(), encoder=Derived())
    expected = 2 * plain.result.main.repeats[0]
    assert derived.result.main.repeats == pytest.approx((expected, 1 / 43))


def test_a_cell_whose_data_has_changed_since_is_run_again_and_that_is_said(
    run_on, tmp_path, monkeypatch, caplog
):
    class Local(Norms):
        def items(self, *, seed):
            return [Item(text) for text in load("org/set", "test")["text"]]

    path = tmp_path / "data" / "org" / "set" / "test.jsonl"
    path.parent.mkdir(parents=True)
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    for text, noted in (("one", False), ("3", True)):
        path.write_text(json.dumps({"text": text}) + "\n")
        for status in ("done", "cached"):
            caplog.clear()
            assert statuses(run_on(Local())) == [status]
            assert (str(path) in caplog.text) == (noted and status == "done")


def test_a_results_file_that_cannot_be_read_fails_its_cell_and_is_left_alone(run_on, store):
    (cell,) = run_on(Norms())
    path = store.path(cell.spec)
    path.write_text(json.dumps({"schema": 999}))
    (again,) = run_on(Norms())
    assert (again.status, "999" in again.reason) == ("failed", True)
    assert json.loads(path.read_text()) == {"schema": 999}
