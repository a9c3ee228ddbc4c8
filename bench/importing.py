"""Objects by the name ``package.module:Name``: an encoder, a recipe or a task of one's own."""

import importlib
import logging
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from operator import attrgetter
from pathlib import Path
from typing import Any

from bench.errors import UsageError, one_line

log = logging.getLogger(__name__)


class _WorkingFolder:
    """Finds modules in the working folder, where nothing else has them.

    It stands last among the finders, and says nothing of distributions, so that none there announces an entry point.
    """

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, _target: object = None
    ) -> ModuleSpec | None:
        """Return where a module is; None where it is not there, or belongs to a package found elsewhere."""
        return PathFinder.find_spec(name, [""]) if path is None else None


def import_object(name: str, *, here: bool = True) -> Any:  # noqa: ANN401 - it may name anything
    """Return what ``package.module:Name`` names; None where the name is of another form, or no module of it is found.

    Args:
        name: The name.
        here: Whether its module may lie in the working folder, which is looked into last, and then for what it imports too.

    Raises:
        UsageError: The module cannot be imported, told with file and line, or has no such name.
    """
    module, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in f"{module}.{attribute}".split(".")):
        return None
    if here and _WorkingFolder not in sys.meta_path:
        sys.meta_path.append(_WorkingFolder)
    try:
        found = importlib.import_module(module)
    except Exception as error:
        if (
            isinstance(error, ModuleNotFoundError)
            and error.name
            and f"{module}.".startswith(f"{error.name}.")
        ):
            return None
        log.debug("importing %s failed", module, exc_info=True)
        raise UsageError(f"cannot import {module!r}: {one_line(error)}") from error
    try:
        return attrgetter(attribute)(found)
    except AttributeError as error:
        raise UsageError(f"module {module!r} has no {attribute!r}") from error


def instantiate(make: Callable[[], Any], name: str) -> Any:  # noqa: ANN401 - whatever is made
    """Return what a class or function of a name makes without arguments.

    Raises:
        UsageError: It needs some, or refuses its own defaults.
    """
    try:
        return make()
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"{name!r} cannot be made without arguments ({error}); give every setting a default"
        ) from error


def otherwise(name: str, hint: str) -> str:
    """Return what to add where a name is not known: the hint, or that no module of it is found where it would name one."""
    return (
        f"(no module of this name is found from {Path.cwd()} either)"
        if name.partition(":")[2].isidentifier()
        else hint
    )
