"""The command ``bench``, also as ``python -m bench``."""

import sys
from collections.abc import Callable

from bench.process import finish, prepare, report_error


def main() -> None:
    """Run the command line; whatever ends it, stderr says so in a line, and the exit code is a documented one."""
    codes = _code(_command), _code(finish)
    sys.exit(codes[0] or codes[1])


def _command() -> None:
    prepare()
    from bench.cli import app  # noqa: PLC0415 - heavy: signals are met before

    app()


def _code(work: Callable[[], None]) -> int:
    try:
        work()
    except BaseException as error:  # noqa: BLE001 - this is the outermost place
        return report_error(error)
    return 0


if __name__ == "__main__":
    main()
