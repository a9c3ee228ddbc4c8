"""A process that imports everything once and then forks a command at a time, which may be killed at any of its file operations.

It reads a list of jobs a line from stdin, runs those of a line side by side, and answers with a line of their ends.
"""

import importlib
import json
import os
import resource
import signal
import sys
from typing import Any

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Watch:
    """Counts what a process changes below a folder, and kills it with SIGKILL just before one of these operations."""

    def __init__(self, root: str, die_at: int) -> None:
        self.root, self.die_at, self.count = os.path.realpath(root), die_at, 0
        sync = os.fsync

        def fsync(file: Any) -> None:
            self.counted()
            sync(file)
            self.counted()  # written, and not yet under its name

        os.fsync = fsync
        sys.addaudithook(self.heard)

    def heard(self, event: str, args: tuple[Any, ...]) -> None:
        written = event == "open" and args[2] & WRITING
        if (written or event in CHANGES) and any(map(self.below, args)):
            self.counted()

    def below(self, path: object) -> bool:
        if not isinstance(path, str | os.PathLike):
            return False
        return os.path.abspath(path).startswith(self.root)  # noqa: PTH100 - of a link, not its target

    def counted(self) -> None:
        self.count += 1
        if self.count == self.die_at:
            os.kill(os.getpid(), signal.SIGKILL)


def forked(job: dict[str, Any]) -> tuple[int, int]:
    """Start a command, and return its process and the pipe in which it tells how many operations it took."""
    heard, told = os.pipe()
    pid = os.fork()
    if pid:
        os.close(told)
        return pid, heard
    try:
        os.close(heard)
        log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        for number, file in ((0, os.open(os.devnull, os.O_RDONLY)), (1, log), (2, log)):
            os.dup2(file, number)
        os.chdir(job["folder"])
        os.environ.update(job["env"])
        if job["most"]:  # bytes in a file, as if the disk were full
            resource.setrlimit(resource.RLIMIT_FSIZE, (job["most"], job["most"]))
        if job["seconds"]:
            signal.setitimer(signal.ITIMER_REAL, job["seconds"])
        watch = Watch(job["folder"], job["die_at"])
        code = commanded(job["command"])
        os.write(told, str(watch.count).encode())
        os._exit(code)
    finally:  # whatever happens, this process does not go on as its parent
        os._exit(70)


def commanded(command: list[str]) -> int:
    """Run a command of ours as its script does, and return its exit code."""
    from bench.__main__ import main

    sys.argv = ["bench", *command]
    try:
        try:
            main()
        finally:  # as the interpreter does when it ends
            sys.stdout.flush()
            sys.stderr.flush()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:  # noqa: BLE001 - told as the interpreter would
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def ended(pid: int, heard: int) -> tuple[int, int]:
    """Wait for a command, and return its exit code, minus the signal's number where one ended it, and its operations."""
    with os.fdopen(heard) as pipe:
        count = int(pipe.read() or 0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), count


def serve(modules: list[str]) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints while it is imported is no answer
    for name in modules:
        importlib.import_module(name)
    for line in sys.stdin:
        started = [forked(job) for job in json.loads(line)]
        answers.write(json.dumps([ended(*one) for one in started]) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve(sys.argv[1:])
