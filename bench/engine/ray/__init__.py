"""The engine on Ray: workers that own a device, on this machine or on the nodes of a cluster.

A worker is an actor with a GPU, a share of one, or some CPU cores. It gets portions of an
encoder's items and returns vectors, runs a whole cell, or trains. It writes nothing but
checkpoints: the process that started the run keeps vectors and results. Portions are
``bench.encoder.windows``, which no batch crosses, so that an encoder gives the same vectors here as
in one process on the same hardware.
"""

import contextlib
import math
import os
import secrets
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from bench.engine.ray.driver import RayEngine, Request
from bench.errors import UsageError
from bench.files import temporary_folder
from bench.process import STOP_SIGNALS, environment

_STORE = 512 << 20  # bytes of Ray's memory for what is on its way
_SOCKETS = 30  # characters of a temporary folder's path, in which sockets have room for their names


def start(workers: int | None, device: str = "auto") -> RayEngine:
    """Start Ray on this machine, reachable from it alone, and return its engine.

    Args:
        workers: How many; None for one for each GPU.
        device: Where encoders compute, as for ``bench run``.

    Raises:
        UsageError: The machine has too little for the workers.
    """
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(temporary_folder(_short_folder()))
        stack.enter_context(environment(_safe_settings()))
        address = _connect(
            stack,
            address="local",
            num_cpus=1,
            include_dashboard=False,
            object_store_memory=_STORE,
            _temp_dir=str(folder),
        )
        if not address.startswith("127."):
            raise UsageError(f"expected Ray on 127.0.0.1 alone, got {address}: unset RAY_ADDRESS")
        nodes = _nodes()
        gpus = _count_gpus(nodes, device)
        n = workers or max(gpus, 1)
        if not gpus and n > cores:
            raise UsageError(
                f"expected at most one worker per core, got {n}: there are {cores} cores"
            )
        # No cores are reserved: on this machine nothing else is placed.
        request = Request(0, _gpu_share(gpus, n), max(cores // n, 1))
        return RayEngine(request, n, stack.pop_all())


def connect(address: str, workers: int | None, device: str = "auto") -> RayEngine:
    """Join a cluster of Ray and return its engine.

    Args:
        address: Of the cluster; "auto" for that at hand.
        workers: How many; None for one for each GPU, or without one for each node with cores.
        device: Where encoders compute, as for ``bench run``.

    Raises:
        UsageError: There is no such cluster, or it has too little for the workers.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(environment({"RAY_USAGE_STATS_ENABLED": "0"}))
        _connect(stack, address=address)
        nodes = _nodes()
        gpus = _count_gpus(nodes, device)
        computing = sum(node.get("CPU", 0) >= 1 for node in nodes)  # a head may have no cores
        n = workers or gpus or max(computing, 1)
        if gpus:
            return RayEngine(Request(1, _gpu_share(gpus, n), 1), n, stack.pop_all())
        cpus = _cpu_share([int(node.get("CPU", 0)) for node in nodes], n)
        if not cpus:
            found = _describe_nodes(nodes)
            raise UsageError(
                f"expected at most one worker per core, got {n}: the cluster has {found}"
            )
        return RayEngine(Request(cpus, 0.0, cpus), n, stack.pop_all())


@cache
def _safe_settings() -> dict[str, str]:
    """Return the variables with which Ray listens on the loopback alone, and asks for a token.

    They are the same for all of the process, since Ray reads them once.

    Raises:
        UsageError: Ray was imported already, without them.
    """
    if "ray" in sys.modules and os.environ.get("RAY_AUTH_MODE") != "token":
        raise UsageError(
            "expected to import Ray here, with safe settings, but it was imported before: "
            "use the cluster that is connected (ray='auto'), or another process"
        )
    return {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # which also makes it listen on 127.0.0.1
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def _connect(stack: contextlib.ExitStack, **options: Any) -> str:  # noqa: ANN401 - of Ray
    """Connect this process to Ray, until the stack ends, and return the address of its node.

    Raises:
        UsageError: There is no such cluster, or one is to be started beside another.
    """
    import ray  # noqa: PLC0415 - an extra

    # Ray has no option against the messages that it prints to stdout, where results go.
    if hasattr(ray._private.worker, "listen_error_messages"):  # noqa: SLF001
        ray._private.worker.listen_error_messages = _ignore  # noqa: SLF001
    if options["address"] not in {"local", "auto"}:
        _check_address(options["address"])
    if ray.is_initialized():
        if options["address"] == "local":
            raise UsageError(
                "expected to start Ray here, but this process is connected to it already: "
                "compute there (ray='auto'), or call ray.shutdown() before"
            )
        return str(ray.util.get_node_ip_address())
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    stack.callback(ray.shutdown)
    stopped = False
    try:
        context = ray.init(log_to_driver=False, logging_level="ERROR", **options)
    except SystemExit:  # Ray's own answer to SIGTERM, until its handler is gone
        stopped = True
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"cannot connect to Ray at {options['address']}: {reason}") from error
    finally:
        for number, handler in handlers.items():  # Ray has its own for SIGTERM
            with contextlib.suppress(ValueError):  # in another thread
                signal.signal(number, handler)
    if stopped:
        signal.raise_signal(signal.SIGTERM)
    return str(context.address_info["node_ip_address"])


def _ignore(*_: object) -> None:
    """Do nothing."""


def _check_address(address: str) -> None:
    """Check that somebody listens at HOST:PORT: Ray itself tries for minutes.

    Raises:
        UsageError: Nobody does, or the address is of another form.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or "/" in address:
        raise UsageError(f"--ray takes HOST:PORT of a cluster's head, or auto, got {address!r}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise UsageError(f"cannot connect to Ray at {address}: {error}") from error


def _nodes() -> list[dict[str, float]]:
    """Return the resources of each node that is there."""
    import ray  # noqa: PLC0415 - an extra

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _count_gpus(nodes: Sequence[Mapping[str, float]], device: str) -> int:
    """Return how many GPUs workers may use.

    Raises:
        UsageError: There are none, and they are asked for.
    """
    gpus = 0 if device == "cpu" else int(sum(node.get("GPU", 0) for node in nodes))
    if device.startswith("cuda:"):
        raise UsageError(
            f"expected --device cuda with several workers, got {device}: each gets a GPU of its own"
        )
    if device == "cuda" and not gpus:
        raise UsageError(f"expected a GPU for --device cuda: there are {_describe_nodes(nodes)}")
    return gpus


def _gpu_share(gpus: int, workers: int) -> float:
    """Return how much of a GPU each worker has: one, or an equal share; 0 where there is none."""
    if not gpus:
        return 0.0
    return 1.0 if workers <= gpus else math.floor(1e4 / math.ceil(workers / gpus)) / 1e4


def _cpu_share(cores: Sequence[int], workers: int) -> int:
    """Return the most cores that each worker can have, on nodes with these; 0 for too many."""
    shares = range(max(cores, default=0), 0, -1)
    return next((k for k in shares if np.floor_divide(cores, k).sum() >= workers), 0)


def _describe_nodes(nodes: Sequence[Mapping[str, float]]) -> str:
    each = (f"{node.get('CPU', 0):g} cores and {node.get('GPU', 0):g} GPUs" for node in nodes)
    return f"{len(nodes)} nodes with " + "; ".join(each)


def _short_folder() -> Path:
    """Return a folder of this user's for temporary folders, with a short path.

    Raises:
        UsageError: It belongs to another user.
    """
    root = Path(tempfile.gettempdir())
    if len(str(root)) > _SOCKETS:
        root = Path("/tmp")  # noqa: S108 - the folder in it is this user's
    folder = root / f"bench-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise UsageError(f"expected {folder} to be yours: remove it, or set TMPDIR")
    return folder
