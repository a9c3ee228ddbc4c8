"""Tasks under several wordings of their instruction, which are a variance component.

Source: arXiv 2605.22544, where one wording can put any of six models first. The wordings are our
own (``wordings.toml``); the first is the task's.
Run: ``bench run --model inbedder,backbone-mean --task faq-clustering --wordings 10``.
Protocol: the task's own under each wording; scores are means over the wordings. An instruction of
each labeling is changed where a task has several.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np

from bench.embeddings import cached
from bench.encoder import Encoder, Item, digest
from bench.stats.influence import contributions
from bench.task import Score, Scores, Task, record_original
from bench.tasks.robustness import WORDINGS

log = logging.getLogger(__name__)

MOST = 10
"""Most wordings of an instruction."""

KNOWN: Mapping[str, Sequence[str]] = {
    group["correct"][0]: group["correct"] for group in WORDINGS.values()
}
"""The wordings of each instruction, which is the first of them."""


@dataclass(frozen=True, kw_only=True)
class Reworded(Task):
    """A task under several wordings of its instruction.

    Attributes:
        task: The task.
        wordings: How many of its wordings.
    """

    task: Task
    wordings: int = MOST

    @property
    def family(self) -> str:
        """That of the task."""
        return self.task.family

    @property
    def metric(self) -> str:
        """That of the task."""
        return self.task.metric

    @property
    def version(self) -> int:
        """That of the task."""
        return self.task.version

    @property
    def needs(self) -> type[Encoder]:
        """What the task needs."""
        return self.task.needs

    @property
    def readout(self) -> str:
        """That of the task, with the number of wordings and a hash of them."""
        hashed = digest([_instructions(each) for each in self.each()])[:6]
        return f"{self.task.readout}, {self.wordings} wordings ({hashed})"

    def each(self) -> list[Task]:
        """Return the task under each wording."""
        return [_reword(replace(self.task, limit=self.limit), i) for i in range(self.wordings)]

    def items(self, *, seed: int) -> list[Item]:
        """Return what the task has embedded under all wordings, to be encoded in one pass."""
        return list(chain(*(task.items(seed=seed) for task in self.each())))

    def evaluate(self, encoder: Encoder, *, seed: int) -> Scores:
        """Return the means of the scores over the wordings, with the value under each wording."""
        own = cached(encoder)
        with record_original():  # what mteb returns is of a single wording
            found = [task.evaluate(own, seed=seed) for task in self.each()]
        shared = [name for name in found[0] if all(name in scores for scores in found)]
        return {name: join_scores(name, [each[name] for each in found]) for name in shared}


def reword(task: Task, wordings: int) -> Task:
    """Return a task under so many wordings; as it is where it has no instruction.

    So it is, with a warning, where the wordings of an instruction are not known.

    Args:
        task: The task.
        wordings: How many, at most ``MOST``.
    """
    instructions = _instructions(task)
    unknown = [each for each in instructions if each not in KNOWN]
    if unknown:
        log.warning("%s is run under one wording: no others of %r are known", task.name, unknown[0])
    if unknown or not instructions:
        return task
    return Reworded(
        task.name, task=task, wordings=wordings, limit=task.limit, about=getattr(task, "about", "")
    )


def join_scores(name: str, each: Sequence[Score]) -> Score:
    """Return the mean of a score over wordings.

    Repeats and the contributions of test examples are averaged one by one; where wordings differ in
    the number of repeats, there is one.

    Args:
        name: Of the score.
        each: The score under each wording.
    """
    means = tuple(score.mean for score in each)
    alike = len({len(score.repeats) for score in each}) == 1
    repeats = np.mean([score.repeats for score in each], axis=0) if alike else [np.mean(means)]
    parts = [contributions(name, score.examples, score.gold) for score in each]
    same = len({len(part) for part in parts}) == 1
    examples = np.asarray(np.mean(parts, axis=0) if same else (), np.float32)
    known = examples if np.isfinite(examples).all() else examples[:0]
    ids = each[0].ids
    alike = len(ids) == len(known) and all(np.array_equal(ids, score.ids) for score in each)
    return Score(tuple(map(float, repeats)), known, ids=ids if alike else ids[:0], wordings=means)


def _instructions(task: Task) -> list[str]:
    """Return the instructions of a task: its own, or one of each labeling."""
    own = getattr(task, "instruction", "")
    return [own] if own else [each.instruction for each in getattr(task, "labelings", ())]


def _reword(task: Any, number: int) -> Task:  # noqa: ANN401 - its fields depend on its class
    if task.instruction:
        changed = {"instruction": KNOWN[task.instruction][number]}
        return replace(task, **changed)  # type: ignore[no-any-return]
    labelings = [
        each._replace(instruction=KNOWN[each.instruction][number]) for each in task.labelings
    ]
    return replace(task, labelings=tuple(labelings))  # type: ignore[no-any-return]
