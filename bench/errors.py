"""The exceptions, and how they are shown.

    BenchError
    ├── UsageError           invalid call: an unknown name, field or option
    ├── Unavailable          something is not available on this machine: the task is skipped
    ├── DataError            invalid data set or archive
    ├── CheckpointError      incomplete checkpoint, or one of another layout
    ├── EncodingError        an encoder returned something other than embeddings
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
    """Invalid call: an unknown name, field or option."""


class Unavailable(BenchError):  # noqa: N818 - an outcome with a reason, not a defect
    """Something is not available on this machine; tasks that need it are skipped."""


class DataError(BenchError):
    """Invalid data set or archive."""


class CheckpointError(BenchError):
    """Incomplete checkpoint, or one of another layout."""


class EncodingError(BenchError):
    """An encoder returned something other than embeddings."""


class ResultError(BenchError):
    """A results file cannot be read."""


def unknown(kind: str, name: str, known: Iterable[str], *, hint: str = "") -> UsageError:
    """Return the error for a name that does not exist, with similar names or all names.

    Args:
        kind: What the name should have named, such as "encoder".
        name: What was got.
        known: The names that exist.
        hint: What to do instead.
    """
    names = sorted(known)
    if near := _near(name, names):
        advice = f"did you mean {' or '.join(map(repr, near))}?"
    elif len(names) <= 20:
        advice = f"known: {', '.join(names)}"
    else:
        advice = f"{len(names)} names are known"
    return UsageError(f"no {kind} named {name!r}; {advice} {hint}".rstrip())


def _near(name: str, names: Iterable[str]) -> list[str]:
    """Return up to three names that begin like it, are similar or contain it, in any case."""
    folded, wanted = {known.casefold(): known for known in names}, name.casefold()
    inside = [known for known in folded if len(wanted) > 2 and wanted in known]
    first = [known for known in inside if known.startswith(wanted)]
    similar = get_close_matches(wanted, folded, n=3, cutoff=0.6)
    return [folded[each] for each in dict.fromkeys([*first, *similar, *inside])][:3]


def install_hint(error: BaseException) -> str:
    """Return how to install the library that an import did not find; "" for other errors."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return ""
    from importlib.metadata import PackageNotFoundError, requires  # noqa: PLC0415 - for this alone

    package = error.name.partition(".")[0].replace("_", "-")
    try:
        listed = requires(_DISTRIBUTION) or []
    except PackageNotFoundError:  # run from a folder of the source, not installed
        return ""
    for line in listed:
        if match := re.fullmatch(rf"{package}\b.*extra == \"(\w+)\"", line):
            return f"{package} is not installed: pip install '{_DISTRIBUTION}[{match[1]}]'"
    return ""


def one_line(error: BaseException) -> str:
    """Return an exception on one line; an unexpected one with its type, file and line."""
    if isinstance(error, BenchError):
        return str(error)
    if hint := install_hint(error):
        return hint
    if isinstance(error, OSError) and error.filename and error.strerror:
        reason = f"cannot read or write {error.filename}: {error.strerror}"
        return f"{reason}; free space, or choose another folder"
    message, place = str(error), ""
    for frame in traceback.extract_tb(error.__traceback__):
        if not frame.filename.startswith("<"):
            place = f" (at {frame.filename}:{frame.lineno})"
    if isinstance(error, SyntaxError) and error.filename:  # the file was read, not run
        message, place = error.msg, f" (at {error.filename}:{error.lineno})"
    return f"{type(error).__name__}: {message}".partition("\n")[0] + place
