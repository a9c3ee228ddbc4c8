"""The command ``bench``, also as ``python -m bench``."""

import sys
from collections.abc import Callable

from bench.process import finish, prepare, report_error


def main() -> None:
    """Run the command line; any error is one line on stderr and a documented exit code."""
    codes = _code(_command), _code(finish)
    sys.exit(codes[0] or codes[1])


def _command() -> None:
    prepare()
    from bench.cli import app  # noqa: PLC0415 - heavy: after the signals are set

    app()


def _code(work: Callable[[], None]) -> int:
    try:
        work()
    except BaseException as error:  # noqa: BLE001 - this is the outermost place
        return report_error(error)
    return 0


if __name__ == "__main__":
    main()
