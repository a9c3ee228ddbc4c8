"""The process of a command: signals, standard streams and exit codes.

Nothing heavy is imported, so that Ctrl-C works from the first moment on.
"""

import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Signals that stop a command, with exit code 128 plus the signal's number, as in shells."""

_received: list[int] = []  # signals
_write_errors: list[OSError] = []  # of stdout


def prepare() -> None:
    """Make Ctrl-C and SIGTERM raise KeyboardInterrupt, and stdout and stderr take any text."""
    for number in STOP_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # set by a shell for a job with `&`
            signal.signal(number, _stop)
    sys.unraisablehook = _hook
    _prepare_streams()


def raise_if_stopped() -> None:
    """Raise KeyboardInterrupt again if a library has caught that of a signal."""
    if _received:
        raise KeyboardInterrupt


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables of the environment for as long as the context lasts."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def peak_memory_mb() -> float:
    """Return the peak memory of this process."""
    if sys.platform == "win32":
        import psutil  # noqa: PLC0415 - after ``prepare``

        return float(psutil.Process().memory_info().peak_wset) / 1e6
    import resource  # noqa: PLC0415 - absent on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3


def report_error(error: BaseException) -> int:
    """Print an exception in one line to stderr, and return the exit code.

    2 for an invalid call, 0 if stdout has no reader any more, 128 plus the number of a signal,
    else 1.
    """
    from bench.errors import BenchError, UsageError, one_line  # noqa: PLC0415 - after ``prepare``

    if _received or isinstance(error, KeyboardInterrupt):
        _print("stopped; finished cells are kept, and the same command resumes")
        return 128 + (_received or [signal.SIGINT])[0]
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(bool(error.code))
    if isinstance(error, OSError) and error in _write_errors:
        return _report_write_error(error)
    _print(f"error: {one_line(error)}")
    if not isinstance(error, BenchError):
        import logging  # noqa: PLC0415 - after ``prepare``

        logging.getLogger("bench").debug("", exc_info=error)  # the traceback, which `-v` shows
    return 1 + isinstance(error, UsageError)


def _report_write_error(error: OSError) -> int:
    """Print that stdout cannot be written, drop all later output, and return the exit code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):  # the reader, such as `head`, has finished
        return 0
    _print(f"error: cannot write to stdout: {error.strerror}")
    return 1


def finish() -> None:
    """Flush stdout; a signal from now on ends the process silently.

    Raises:
        OSError: stdout cannot be written.
    """
    for number in STOP_SIGNALS:
        if signal.getsignal(number) is _stop:
            signal.signal(number, signal.SIG_DFL)
    sys.stdout.flush()


def _print(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _stop(number: int, _frame: object) -> None:
    if _received:  # the second signal: what the first one stops takes too long
        os._exit(128 + number)
    _received.append(number)
    raise KeyboardInterrupt


def _hook(unraisable: "sys.UnraisableHookArgs") -> None:
    """Print no traceback for a signal in a destructor; ``raise_if_stopped`` raises it again."""
    if not isinstance(unraisable.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)


def _prepare_streams() -> None:
    from io import TextIOWrapper  # noqa: PLC0415 - after the signals are set

    from bench.files import ESCAPED  # noqa: PLC0415

    class Stream(TextIOWrapper):
        """A standard stream that records errors of stdout and ignores those of stderr."""

        def write(self, text: str) -> int:
            try:
                return super().write(text)
            except OSError as error:
                self._handle(error)
                return len(text)

        def flush(self) -> None:
            try:
                super().flush()
            except OSError as error:
                self._handle(error)

        def _handle(self, error: OSError) -> None:
            if self is sys.stdout:
                _write_errors.append(error)
                raise error

    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: the next file to be opened would get its number
            os.open(os.devnull, os.O_RDWR)
    for number, name in ((1, "stdout"), (2, "stderr")):
        old = getattr(sys, name) or os.fdopen(number, "w", encoding="utf-8")
        how = old.encoding, ESCAPED, None, old.line_buffering, old.write_through
        stream = Stream(old.detach(), *how)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
