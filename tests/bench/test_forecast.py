"""What a dry run says is what the run then takes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest

from bench.encoder import Batch, Item, fingerprint
from bench.forecast import Speed, forecast, known_speed
from bench.postprocessing import Renormalised
from bench.runner import run, survey
from bench.store import Store
from bench.vectors import Vectors
from tests.bench.encoders import Norms, Plain


@dataclass(frozen=True)
class Counted(Plain):
    """One whose texts go through in batches of one, a token a letter."""

    def stream(self, items: Sequence[Item]) -> Iterator[Batch]:
        for i, item in enumerate(items):
            size = np.array([len(item.text)], np.int32)
            vectors = self.encode([item.text])
            yield Batch(np.array([i]), vectors, size, np.zeros(1, bool), len(item.text))

    def count_tokens(self, items: Sequence[Item]) -> int:
        return sum(len(item.text) for item in items)


TASKS = [Norms(), Norms(name="other", texts=("a", "zz", "yyyy"))]


def plan(folder, tasks, vectors, encoder=None, results=()):
    encoder = encoder or Counted()
    cells = survey("letters", encoder, tasks, Store(folder), seeds=[42])
    return forecast(encoder, cells, vectors, results)


def test_the_tokens_of_a_forecast_are_those_of_the_run(tmp_path):
    vectors = Vectors(None)
    expected = plan(tmp_path, TASKS, vectors)
    assert [(each.texts, each.new, each.tokens) for each in expected] == [(3, 3, 6), (3, 2, 6)]
    assert [each.seconds for each in expected] == [None, None]
    cells = list(run({"letters": Counted()}, TASKS, Store(tmp_path), vectors))
    assert cells[-1].result.cost["tokens"] == sum(each.tokens for each in expected)
    assert [each.tokens for each in plan(tmp_path, TASKS, vectors)] == [0, 0]  # nothing to do
    (known,) = plan(tmp_path / "new", TASKS[:1], vectors)
    assert (known.texts, known.new, known.tokens, known.seconds) == (3, 0, 0, 0.0)  # all cached


def test_what_a_map_is_fitted_to_is_counted_once(tmp_path):
    source = tmp_path / "texts.jsonl"
    source.write_text("".join(f'{{"text": "{"x" * n}"}}\n' for n in range(1, 9)))
    encoder = Renormalised(checkpoint=f"{__name__}:Counted", texts=str(source))
    expected = plan(tmp_path, TASKS, Vectors(None), encoder)
    assert [(each.texts, each.new) for each in expected] == [(3, 11), (3, 2)]
    cells = list(run({"letters": encoder}, TASKS, Store(tmp_path), Vectors(None)))
    assert cells[-1].result.cost["forward_texts"] == 13


def test_the_time_is_that_of_the_largest_run_of_this_network_on_this_device(tmp_path):
    list(run({"letters": Counted()}, TASKS[:1], Store(tmp_path), Vectors(None)))
    (result,) = Store(tmp_path).results()
    slow = replace(
        result,
        cost={"encode_seconds": 2.0, "tokens": 12, "forward_texts": 4},
        provenance={**result.provenance, "time": "2999-01-01T00:00:00+00:00"},
    )
    elsewhere = replace(
        slow, card={**result.card, "device": "cuda"}, provenance={**slow.provenance, "time": "3"}
    )
    loading = {"encode_seconds": 9.0, "tokens": 1, "forward_texts": 1}  # all but one were cached
    later = {**slow.provenance, "time": "2999-01-02T00:00:00+00:00"}
    small = replace(slow, cost=loading, provenance=later)
    found = known_speed(Counted(), [slow, result, elsewhere, small])
    assert found == Speed(texts=2.0, tokens=6.0)
    assert known_speed(Counted(), [elsewhere]) is None
    (cell,) = plan(tmp_path / "new", TASKS[1:], Vectors(None), results=[slow])
    assert cell.seconds == pytest.approx(7 / 6)
    (cell,) = plan(tmp_path / "new", TASKS[1:], Vectors(None), Plain(), [slow])
    assert (cell.tokens, cell.seconds) == (None, None)  # of another class, and without a network
    own = replace(slow, spec=replace(slow.spec, fingerprint=fingerprint(Plain())))
    (cell,) = plan(tmp_path / "new", TASKS[1:], Vectors(None), Plain(), [own])
    assert (cell.tokens, cell.seconds) == (None, pytest.approx(3 / 2))


def test_the_time_is_not_that_of_a_read_out_that_generates_or_of_texts_that_share_a_batch(tmp_path):
    list(run({"letters": Counted()}, TASKS[:1], Store(tmp_path), Vectors(None)))
    (result,) = Store(tmp_path).results()
    assert known_speed(Counted(), [result])
    assert known_speed(Counted(), [result], exact=True) is None
    assert known_speed(Counted(), [replace(result, card={**result.card, "passes": 1})]) is None
