"""What can go wrong, and whose move it is.

    BenchError
    ├── UsageError           the call is off: an unknown name, field or option
    ├── Unavailable          something cannot be had on this machine: the task is skipped, with this as its reason
    ├── DataError            a data set or archive is there but not as it should be
    ├── CheckpointError      a checkpoint is there but incomplete or of another layout
    ├── EncodingError        an encoder gave something that is not a set of embeddings
    └── ResultError          a results file cannot be read

Every message is one line that says what was expected, what was got and what to do.
"""

import re
import traceback
from collections.abc import Iterable
from difflib import get_close_matches

_DISTRIBUTION = "encoder-recipes-bench"


class BenchError(Exception):
    """Any failure that has a one-line explanation for the user."""


class UsageError(BenchError):
    """The call is off: an unknown name, field or option."""


class Unavailable(BenchError):  # noqa: N818 - an outcome with a reason, not a defect
    """Something a task needs cannot be had on this machine; the task is skipped with this reason."""


class DataError(BenchError):
    """A data set or archive is there but not as it should be."""


class CheckpointError(BenchError):
    """A checkpoint is there but incomplete or of another layout."""


class EncodingError(BenchError):
    """An encoder gave something that is not a set of embeddings."""


class ResultError(BenchError):
    """A results file cannot be read."""


def unknown(kind: str, name: str, known: Iterable[str], *, hint: str = "") -> UsageError:
    """Return the error for a name that does not exist, with near names or the whole list.

    Args:
        kind: What the name should have named, such as "encoder".
        name: What was got.
        known: The names that exist.
        hint: What to do instead, added at the end.
    """
    names = sorted(known)
    near = get_close_matches(name, names, n=3, cutoff=0.6)
    if near:
        advice = "did you mean " + " or ".join(repr(n) for n in near) + "?"
    else:
        advice = (
            f"known: {', '.join(names)}" if len(names) <= 20 else f"{len(names)} names are known"
        )
    return UsageError(f"no {kind} named {name!r}; {advice}{' ' + hint if hint else ''}")


def install_hint(error: BaseException) -> str:
    """Return which library an import has not found and how to install it; "" where the error is another, or no extra has it."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return ""
    from importlib.metadata import PackageNotFoundError, requires  # noqa: PLC0415 - for this alone

    package = error.name.partition(".")[0].replace("_", "-")
    try:
        listed = requires(_DISTRIBUTION) or []
    except PackageNotFoundError:  # run from a folder of the source, not installed
        return ""
    found = (re.fullmatch(rf"{package}\b.*extra == \"(\w+)\"", line) for line in listed)
    extra = next((match[1] for match in found if match), "")
    return f"{package} is not installed: pip install '{_DISTRIBUTION}[{extra}]'" if extra else ""


def one_line(error: BaseException) -> str:
    """Return an exception on one line: ours, or one that nobody foresaw, such as of somebody's adapter: kind, words, file and line."""
    if isinstance(error, BenchError):
        return str(error)
    if lack := install_hint(error):
        return lack
    words, frames = str(error), traceback.extract_tb(error.__traceback__)
    places = [
        f"{frame.filename}:{frame.lineno}" for frame in frames if not frame.filename.startswith("<")
    ]
    if isinstance(error, SyntaxError) and error.filename:  # the file at fault was read, not run
        words, places = error.msg, [f"{error.filename}:{error.lineno}"]
    return f"{type(error).__name__}: {words}".partition("\n")[0] + (
        f" (at {places[-1]})" if places else ""
    )
