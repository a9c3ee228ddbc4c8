"""Objects by the name ``package.module:Name``: the user's own encoders, recipes and tasks."""

import importlib
import logging
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from operator import attrgetter
from pathlib import Path
from typing import Any

from bench.errors import Unavailable, UsageError, install_hint, one_line

log = logging.getLogger(__name__)


class _WorkingFolder:
    """Finds modules in the working folder that are found nowhere else.

    It is the last finder and finds no distributions, so that none there can add an entry point.
    """

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, _target: object = None
    ) -> ModuleSpec | None:
        """Return a module's place; None if it is not there or part of a package elsewhere."""
        return PathFinder.find_spec(name, [""]) if path is None else None


def import_object(name: str, *, here: bool = True) -> Any:  # noqa: ANN401 - it may name anything
    """Return the object ``package.module:Name``.

    Args:
        name: The name.
        here: Whether the module, and what it imports, may be in the working folder, which is
            searched last.

    Returns:
        None where the name has another form or there is no such module.

    Raises:
        UsageError: The module cannot be imported, or has no such name.
        Unavailable: It needs a library that is not installed.
    """
    module, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in f"{module}.{attribute}".split(".")):
        return None
    if here and _WorkingFolder not in sys.meta_path:
        sys.meta_path.append(_WorkingFolder)
    try:
        found = importlib.import_module(module)
    except Exception as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{module}.".startswith(f"{missing}."):
            return None
        if hint := install_hint(error):
            raise Unavailable(hint) from error
        log.debug("importing %s failed", module, exc_info=True)
        raise UsageError(f"cannot import {module!r}: {one_line(error)}") from error
    try:
        return attrgetter(attribute)(found)
    except AttributeError as error:
        raise UsageError(f"module {module!r} has no {attribute!r}") from error


def instantiate(make: Callable[[], Any], name: str) -> Any:  # noqa: ANN401 - whatever is made
    """Call a class or function without arguments.

    Raises:
        UsageError: It needs arguments, or rejects its own defaults.
    """
    try:
        return make()
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"{name!r} cannot be called without arguments ({error}); give every setting a default"
        ) from error


def module_hint(name: str, hint: str) -> str:
    """Return the hint for an unknown name; for a ``package.module:Name``, where it was searched."""
    if name.partition(":")[2].isidentifier():
        return f"(no module of this name is found from {Path.cwd()} either)"
    return hint
