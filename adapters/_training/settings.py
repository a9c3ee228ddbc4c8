"""The settings of recipes: which decide the outcome of a training, and whether they are valid."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from adapters._backbone import resolve
from bench.errors import UsageError, unknown

_INDIFFERENT = frozenset({"positions", "device", "keep"})
"""Fields that change rounding and dropout masks alone: micro-batches, device, kept stages."""


def key_settings(recipe: Any) -> dict[str, Any]:  # noqa: ANN401 - any recipe, a dataclass
    """Return the settings of a recipe that decide the outcome of its training, by name."""
    found = {name: value for name, value in asdict(recipe).items() if name not in _INDIFFERENT}
    return {**found, "dtype": resolve(recipe.device, recipe.dtype)[1]}


def one_of(recipe: Any, name: str, known: Sequence[str]) -> None:  # noqa: ANN401 - any recipe
    """Check that a setting of a recipe is one of the known words.

    Raises:
        UsageError: It is not.
    """
    if getattr(recipe, name) not in known:
        raise unknown(name, getattr(recipe, name), known)


def at_least_one(recipe: Any, *names: str) -> None:  # noqa: ANN401 - any recipe
    """Check that settings of a recipe are at least 1.

    Raises:
        UsageError: One is not.
    """
    for name in names:
        if getattr(recipe, name) < 1:
            raise UsageError(f"{name} must be at least 1, got {getattr(recipe, name)}")


def positive(recipe: Any, *names: str) -> None:  # noqa: ANN401 - any recipe
    """Check that settings of a recipe are more than 0.

    Raises:
        UsageError: One is not.
    """
    for name in names:
        if not getattr(recipe, name) > 0:
            raise UsageError(f"{name} must be more than 0, got {getattr(recipe, name)}")


def share(recipe: Any, *names: str) -> None:  # noqa: ANN401 - any recipe
    """Check that settings of a recipe are from 0 to 1.

    Raises:
        UsageError: One is not.
    """
    for name in names:
        if not 0 <= getattr(recipe, name) <= 1:
            raise UsageError(f"{name} must be from 0 to 1, got {getattr(recipe, name)}")
