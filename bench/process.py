"""The process that a command runs in: signals that stop it, and streams that take whatever is written.

Nothing heavy is imported, so that a Ctrl-C is met from the first moment on.
"""

import os
import signal
import sys

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""What stops a command; it ends with 128 and the signal's number, as shells have it."""

_received: list[int] = []
_faults: list[OSError] = []  # of stdout


def prepare() -> None:
    """Have Ctrl-C and SIGTERM raise KeyboardInterrupt, and stdout and stderr never fail for what a text holds."""
    for number in STOP_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as a shell sets it for a job with `&`
            signal.signal(number, _stop)
    sys.unraisablehook = _hook
    _prepare_streams()


def raise_if_stopped() -> None:
    """Raise KeyboardInterrupt where a library has swallowed that of a signal."""
    if _received:
        raise KeyboardInterrupt


def report_error(error: BaseException) -> int:
    """Return the exit code of a command that an exception ends, and tell why in one line on stderr.

    2 where the call is off, 0 where nobody reads stdout any more, 128 and the signal's number for one that was stopped, else 1.
    """
    from bench.errors import BenchError, UsageError, one_line  # noqa: PLC0415 - after signals are met

    if _received or isinstance(error, KeyboardInterrupt):
        _tell("stopped; finished cells are kept, and the same command goes on from here")
        return 128 + (_received or [signal.SIGINT])[0]
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(bool(error.code))
    if isinstance(error, OSError) and error in _faults:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still to come
        if isinstance(error, BrokenPipeError):  # the reader, such as `head`, has had enough
            return 0
        _tell(f"error: cannot write to stdout: {error.strerror}")
        return 1
    if isinstance(error, OSError) and error.filename and error.strerror:
        _tell(
            f"error: cannot read or write {error.filename}: {error.strerror}; "
            "free space, or name a place that can be used"
        )
    else:
        _tell(f"error: {one_line(error)}")
    if not isinstance(error, BenchError):
        _trace(error)
    return 1 + isinstance(error, UsageError)


def finish() -> None:
    """Write out what stdout holds; a signal from now on ends the process in silence.

    Raises:
        OSError: It cannot be written.
    """
    for number in STOP_SIGNALS:
        if signal.getsignal(number) is _stop:
            signal.signal(number, signal.SIG_DFL)
    sys.stdout.flush()


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _trace(error: BaseException) -> None:
    """Log the traceback, which `-v` shows."""
    import logging  # noqa: PLC0415 - as above

    logging.getLogger("bench").debug("", exc_info=error)


def _stop(number: int, _frame: object) -> None:
    if _received:  # a second one: the first is on its way, but something takes too long
        os._exit(128 + number)
    _received.append(number)
    raise KeyboardInterrupt


def _hook(unraisable: "sys.UnraisableHookArgs") -> None:
    """Keep the traceback to itself where a signal came in a destructor; ``raise_if_stopped`` raises it again."""
    if not isinstance(unraisable.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)


def _prepare_streams() -> None:
    from io import TextIOWrapper  # noqa: PLC0415 - after signals are met

    from bench.files import ESCAPED  # noqa: PLC0415 - as above

    class Stream(TextIOWrapper):
        """A standard stream that notes its failures; those of stderr end nothing, since what is told there is no result."""

        def write(self, text: str) -> int:
            try:
                return super().write(text)
            except OSError as error:
                self._failed(error)
                return len(text)

        def flush(self) -> None:
            try:
                super().flush()
            except OSError as error:
                self._failed(error)

        def _failed(self, error: OSError) -> None:
            if self is sys.stdout:
                _faults.append(error)
                raise error

    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: without this, the next file that is opened would be taken for it
            os.open(os.devnull, os.O_RDWR)
    for number, name in ((1, "stdout"), (2, "stderr")):
        old = getattr(sys, name) or os.fdopen(number, "w", encoding="utf-8")
        how = old.encoding, ESCAPED, None, old.line_buffering, old.write_through
        stream = Stream(old.detach(), *how)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
