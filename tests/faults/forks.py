"""A server that forks a process for each command, so that no command imports anything twice.

It imports the modules that its arguments name. Then it reads a line of JSON from stdin, a list of
jobs; runs them side by side; and answers with a line: the exit code and the number of file
operations of each. What a command still had to import is imported here before the next fork. A job
may ask to be killed at one of its file operations.
"""

import contextlib
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
    """Counts the changes that this process makes below a folder.

    Args:
        root: The folder.
        die_at: Number of the change before which the process gets SIGKILL; 0 for none.
    """

    def __init__(self, root: str, die_at: int) -> None:
        self.root, self.die_at, self.count = os.path.realpath(root), die_at, 0
        sync = os.fsync

        def fsync(file: Any) -> None:
            self.add()
            sync(file)
            self.add()  # written, and not yet under its name

        os.fsync = fsync
        sys.addaudithook(self.hear)

    def hear(self, event: str, args: tuple[Any, ...]) -> None:
        writes = event == "open" and args[2] & WRITING
        if (writes or event in CHANGES) and any(map(self.is_below, args)):
            self.add()

    def is_below(self, path: object) -> bool:
        if not isinstance(path, str | os.PathLike):
            return False
        return os.path.abspath(path).startswith(self.root)  # noqa: PTH100 - of a link, not its target

    def add(self) -> None:
        self.count += 1
        if self.count == self.die_at:
            os.kill(os.getpid(), signal.SIGKILL)


def start(job: dict[str, Any]) -> tuple[int, int]:
    """Fork a command; return its process and the pipe through which it reports."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        return pid, reader
    try:
        os.close(reader)
        log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        for number, file in ((0, os.open(os.devnull, os.O_RDONLY)), (1, log), (2, log)):
            os.dup2(file, number)
        os.chdir(job["folder"])
        os.environ.update(job["env"])
        if job["most"]:  # bytes in a file, as if the disk were full
            resource.setrlimit(resource.RLIMIT_FSIZE, (job["most"], job["most"]))
        known = set(sys.modules)
        watch = Watch(job["folder"], job["die_at"])
        code = run(job["command"])
        report = {"operations": watch.count, "modules": sorted(set(sys.modules) - known)}
        with os.fdopen(writer, "w") as pipe:
            json.dump(report, pipe)
        os._exit(code)
    finally:  # whatever happens, this process does not go on as its parent
        os._exit(70)


def run(command: list[str]) -> int:
    """Run a command as the script ``bench`` does, and return its exit code."""
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
    except BaseException:  # noqa: BLE001 - printed as the interpreter would
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def wait(pid: int, reader: int) -> tuple[int, int, list[str]]:
    """Wait for a command.

    Returns:
        Its exit code, minus the signal's number where one ended it; the number of its file
        operations, 0 where it was killed; and the modules that it imported.
    """
    with os.fdopen(reader) as pipe:
        report = json.loads(pipe.read() or '{"operations": 0, "modules": []}')
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code, report["operations"], report["modules"]


def serve(modules: list[str]) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints while it is imported is no answer
    for name in modules:
        importlib.import_module(name)
    for line in sys.stdin:
        started = [start(job) for job in json.loads(line)]
        ends = [wait(*one) for one in started]
        answers.write(json.dumps([end[:2] for end in ends]) + "\n")
        answers.flush()
        for name in ends[0][2]:
            with contextlib.suppress(Exception):  # a part of a module, which comes with the whole
                importlib.import_module(name)
    os._exit(0)  # no need to tidy up


if __name__ == "__main__":
    serve(sys.argv[1:])
