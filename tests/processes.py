"""Work in two processes of one group, as by ``torchrun``."""

import multiprocessing
import os
import socket
from typing import Any

from adapters._training.processes import launched


def in_two(work: Any, *args: Any) -> None:
    """Call ``work(process, *args)`` in two processes of one group; an error in one is raised."""
    import torch

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.set_forkserver_preload(["adapters._training.loop"])  # imported once for both
    torch.multiprocessing.start_processes(
        _joined, (port, work, args), nprocs=2, start_method="forkserver"
    )


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
