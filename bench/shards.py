"""``--shard``: a fixed part of the grid, for a process that runs independently of the others."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Self

from bench.embeddings import count_characters
from bench.encoder import Encoder, Item
from bench.errors import UsageError, one_line
from bench.process import raise_if_stopped
from bench.runner import CHUNK, plan_items
from bench.task import Task

log = logging.getLogger(__name__)

_CHARACTERS = 4  # of a token, where an encoder does not count them


@dataclass(frozen=True)
class Shard:
    """A part of the grid, by the tokens of its cells.

    Attributes:
        number: From 1 to ``count``.
        count: Number of shards.
    """

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the shard that a text such as "2/8" names.

        Raises:
            UsageError: It names none.
        """
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        number, count = (int(found[1]), int(found[2])) if found else (0, 0)
        if not 1 <= number <= count:
            raise UsageError(
                f"--shard takes NUMBER/COUNT with a number from 1 to the count, such as 2/8, "
                f"got {text!r}"
            )
        return cls(number, count)

    def choose(
        self, encoders: Mapping[str, Encoder], tasks: Sequence[Task], seeds: Sequence[int]
    ) -> dict[str, list[bool]]:
        """Return for each encoder which of its cells, tasks by seeds, are in the shard.

        The shards are equal in every process with the same weights, data and versions, whatever
        has results or cached vectors.
        """
        if self.count == 1:
            return {name: [True] * (len(tasks) * len(seeds)) for name in encoders}
        rows = _count_tokens(encoders, tasks, seeds)
        shards = iter(balance(list(chain(*rows)), self.count))
        own = self.number - 1
        chosen = {}
        for name, row in zip(encoders, rows, strict=True):
            chosen[name] = [shard == own for shard in islice(shards, len(row))]
        return chosen


def balance(sizes: Sequence[int], count: int) -> list[int]:
    """Return a shard for each size: the largest first, each to the shard with the least so far.

    Source:
        Graham 1969: no shard has more than 4/3 of what the best division has.
    """
    loads = [(0, 0, shard) for shard in range(count)]  # of equal ones that with fewer cells
    shards = [0] * len(sizes)
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        load, cells, shard = min(loads)
        loads[shard] = (load + sizes[i], cells + 1, shard)
        shards[i] = shard
    return shards


def _count_tokens(
    encoders: Mapping[str, Encoder], tasks: Sequence[Task], seeds: Sequence[int]
) -> list[list[int]]:
    """Return the tokens of all texts of each cell, encoder by encoder."""
    columns = []
    for task in tasks:
        for seed in seeds:
            items = _plan(task, seed)
            columns.append([_estimate(encoder, task, items) for encoder in encoders.values()])
    return [list(row) for row in zip(*columns, strict=True)]


def _plan(task: Task, seed: int) -> list[Item] | None:
    """Return the distinct items of a cell; None where its data is not available."""
    try:
        return list(dict.fromkeys(plan_items(task, seed)))
    except Exception as error:  # noqa: BLE001 - whatever a task raises; the run says it again
        raise_if_stopped()
        log.debug("%s has no texts: %s", task.name, one_line(error))
        return None


def _estimate(encoder: Encoder, task: Task, items: Sequence[Item] | None) -> int:
    """Return the tokens of a cell; one that encodes during the task counts as a whole chunk."""
    if items is None or not isinstance(encoder, task.needs):
        return 0  # it will be skipped
    if not items:
        return CHUNK // _CHARACTERS
    count = getattr(encoder, "count_tokens", None)
    try:
        return int(count(items)) if count else count_characters(items) // _CHARACTERS
    except Exception as error:  # noqa: BLE001 - whatever an encoder raises; so does this
        raise_if_stopped()
        log.debug("tokens cannot be counted: %s", one_line(error))
        return 0
