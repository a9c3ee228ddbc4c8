"""Trainings in several processes, as by ``torchrun``, and the CPU time of commands."""

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adapters._training.processes import launched
from bench.data import load
from bench.recipe import Recipe


def in_two(work: Any, *args: Any) -> None:
    """Call ``work(process, *args)`` in two processes of one group; an error in one is raised."""
    import torch

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_joined, (port, work, args), nprocs=2)


def trained_by_two(recipe: Recipe, out: Path, budget: int) -> None:
    """Train in two processes, each of which finds a whole checkpoint when its own call returns."""
    in_two(_trained, recipe, out, budget)


@contextmanager
def children_seconds(most: float) -> Iterator[None]:
    """Check that the commands run inside take at most so many seconds of CPU time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    yield
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < most


def _joined(process: int, port: int, work: Any, args: tuple[Any, ...]) -> None:
    import torch

    numbers = {
        "RANK": process,
        "LOCAL_RANK": process,
        "WORLD_SIZE": 2,
        "LOCAL_WORLD_SIZE": 2,
        "MASTER_PORT": port,
    }
    os.environ |= {name: str(number) for name, number in numbers.items()} | {
        "MASTER_ADDR": "127.0.0.1",
        "ACCELERATE_USE_CPU": "1",
    }
    torch.set_num_threads(1)
    mine = launched()
    assert (mine.process_index, mine.num_processes) == (process, 2)
    work(process, *args)
    mine.destroy_process_group()


def _trained(_: int, recipe: Recipe, out: Path, budget: int) -> None:
    assert recipe.train(out, budget=budget, seed=1, load=load, progress=lambda *_: None) == out
    assert (out / "card.json").is_file()
    assert not list(out.glob("*.pt"))
