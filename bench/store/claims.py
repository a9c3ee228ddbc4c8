"""Claims: processes on one folder of results share its cells, so that each is run once.

A claim is a small file beside the place of a cell's result. The process that creates it runs the
cell, and removes it when the cell has ended. Creating a file exclusively needs no lock, so this
works between machines, too, on any file system that they share.

The claim of a process that is gone is taken over. On the same machine the process is looked up. A
process on another machine touches its claims every ``HEARTBEAT`` seconds; one that was not touched
for ``EXPIRY`` seconds, by the clock of the file system, is dead. If a process that only slept wakes
up after that, the cell is run twice, with the same result.
"""

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Self

import psutil

from bench.files import file_time

SUFFIX = ".claim"
"""Suffix of a claim's file."""

HEARTBEAT = 30.0
"""Seconds between two touches of a claim."""

EXPIRY = 300.0
"""Seconds without a touch after which a claim of another machine counts no more."""

_CLOCK = 2.0  # seconds by which two readings of the time at which a process began may differ


@dataclass(frozen=True)
class Owner:
    """The process that holds a claim.

    Attributes:
        host: Its machine; on Linux with the number of its process namespace, since containers on
            one machine may share a name.
        pid: Its process id.
        began: When it began, in seconds since 1970: process ids are used again.
    """

    host: str
    pid: int
    began: float

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host.partition('/')[0]}"

    @classmethod
    def here(cls) -> Self:
        """Return this process."""
        return cls(_host(), os.getpid(), psutil.Process().create_time())

    def is_gone(self) -> bool:
        """Say whether the process has ended; False where it ran on another machine."""
        if self.host != _host():
            return False
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.began) < _CLOCK
            return not same or process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True


class Claims:
    """The claims of this process on cells of one folder of results; a context manager.

    Attributes:
        root: The folder of results.
        began: When the run began, by the clock of the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.began = root, time.time()
        self._owner = Owner.here()
        self._held: set[Path] = set()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._touch, daemon=True)

    def __enter__(self) -> Self:
        """Remove the claims of dead processes."""
        with contextlib.suppress(OSError):  # where nothing can be written, nothing is claimed
            self.root.mkdir(parents=True, exist_ok=True)
            self.began = file_time(self.root)
            while file_time(self.root) == self.began:  # else what is written now has that time
                time.sleep(0.002)
        for path in self.root.glob(f"*/*{SUFFIX}"):
            self._remove_dead(path)
        return self

    def __exit__(self, *_: object) -> None:
        """Give back all claims."""
        self._closed.set()
        for path in list(self._held):
            self.release(path)

    def take(self, path: Path) -> bool:
        """Claim a cell; return whether it is this process's now.

        Args:
            path: The claim's file, as ``Store.claim_path`` names it.

        Raises:
            OSError: The file cannot be written.
        """
        if not self._create(path) and not (self._remove_dead(path) and self._create(path)):
            return False
        self._held.add(path)
        if not self._thread.is_alive():
            self._thread.start()
        return True

    def release(self, path: Path) -> None:
        """Give back a claim; one that is not this process's is left alone."""
        if path in self._held:
            self._held.discard(path)
            if read_owner(path) == self._owner:  # else it was taken over while this one slept
                with contextlib.suppress(OSError):
                    path.unlink()

    def _create(self, path: Path) -> bool:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("x", encoding="utf-8") as file:
                json.dump(asdict(self._owner), file)
        except FileExistsError:
            return read_owner(path) == self._owner  # of an earlier run that was never closed
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return True

    def _remove_dead(self, path: Path) -> bool:
        """Remove a claim whose owner is gone; return whether there is none now."""
        owner = read_owner(path)
        if not is_dead(path, owner):
            return not path.exists()
        aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        try:
            path.rename(aside)  # of several processes that saw the dead claim, one gets it
        except FileNotFoundError:
            return True
        if read_owner(aside) != owner:  # another process had taken the cell over in between
            with contextlib.suppress(OSError):
                path.hardlink_to(aside)
        aside.unlink(missing_ok=True)
        return not path.exists()

    def _touch(self) -> None:
        while not self._closed.wait(HEARTBEAT):
            for path in list(self._held):
                with contextlib.suppress(OSError):
                    os.utime(path)


def read_owner(path: Path) -> Owner | None:
    """Return who holds a claim; None where there is none, or it is still being written."""
    try:
        return Owner(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def is_dead(path: Path, owner: Owner | None) -> bool:
    """Say whether the owner of a claim is gone, or has not touched it for too long."""
    if owner is not None and owner.host == _host():
        return owner.is_gone()
    try:
        return file_time(path.parent) - path.stat().st_mtime > EXPIRY
    except OSError:
        return False


@cache
def _host() -> str:
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        namespace = ""
    return f"{socket.gethostname()}/{namespace}"
