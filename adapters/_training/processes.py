"""Several processes, started by ``accelerate launch`` or ``torchrun``, and their main one."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

_TIMEOUT = timedelta(days=30)
"""Collective timeout: rank 0 may generate for hours."""


def launched() -> Any:  # noqa: ANN401 - accelerate's PartialState
    """Return the rank of this process and the number of processes, also on CPUs."""
    cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.cuda.is_available()
    return PartialState(cpu=cpu, timeout=_TIMEOUT)


def main_process() -> bool:
    """Say whether this is the process that writes files."""
    return bool(launched().is_main_process)


@contextmanager
def main_first() -> Iterator[None]:
    """Let the main process run the body before the others, which then find it done."""
    with launched().main_process_first():
        yield


def wait_for_all() -> None:
    """Wait until every process has come here."""
    launched().wait_for_everyone()
