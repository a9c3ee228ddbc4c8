"""Shards of a grid: every cell once, equally many tokens, the same in every process."""

from dataclasses import dataclass
from itertools import chain

import pytest

from bench.errors import UsageError
from bench.runner import run
from bench.shards import Shard, balance
from bench.store import Store
from bench.vectors import Vectors
from tests.bench.encoders import Norms, Plain
from tests.bench.test_forecast import Counted
from tests.bench.test_runner import CannotPlan

SIZES = (9000, 800, 700, 600, 500, 400)
TASKS = [Norms(name=f"norms{size}", texts=("a" * size, "b", "cc")) for size in SIZES]


@dataclass(frozen=True)
class NoWeights(Counted):
    """Cannot be loaded."""

    def count_tokens(self, items):
        raise OSError


ENCODERS = {"counted": Counted(), "characters": Plain(), "broken": NoWeights()}


def start(folder, shard, encoders=ENCODERS):
    part = shard.choose(encoders, TASKS, (42,))
    return list(run(encoders, TASKS, Store(folder), Vectors(None), part=part, keep_going=True))


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_the_runs_of_all_shards_do_every_cell_once(count, tmp_path):
    cells = [start(tmp_path, Shard(number + 1, count)) for number in range(count)]
    names = [(cell.encoder, cell.task.name) for cell in chain(*cells)]
    assert sorted(names) == sorted((e, task.name) for e in ENCODERS for task in TASKS)
    assert {cell.status for cell in chain(*cells)} == {"done"}


def test_shards_have_equally_many_tokens_where_the_cells_allow_it():
    encoders = {"counted": Counted()}
    found = [Shard(number, 2).choose(encoders, TASKS, (42,))["counted"] for number in (1, 2)]
    assert found == [[True] + [False] * 5, [False] + [True] * 5]
    assert balance([3, 3, 2, 2, 2], 2) == [0, 1, 0, 1, 0]
    assert balance([0, 0, 0, 0], 2) == [0, 1, 0, 1]


def test_what_is_skipped_counts_nothing_and_what_cannot_be_counted_has_a_place():
    shards = [Shard(number, 2) for number in (1, 2)]
    tasks = [*TASKS[:1], CannotPlan(name="fails")]
    both = [shard.choose(ENCODERS, tasks, (1, 2)) for shard in shards]
    for name in ENCODERS:
        assert [a + b for a, b in zip(both[0][name], both[1][name], strict=True)] == [1] * 4


@pytest.mark.parametrize("text", ["", "3", "0/2", "3/2", "1/0", "-1/2", "1/2/3"])
def test_a_shard_that_does_not_exist_is_refused(text):
    with pytest.raises(UsageError, match="such as 2/8"):
        Shard.parse(text)
