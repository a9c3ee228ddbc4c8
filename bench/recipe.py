"""What a recipe is: a frozen dataclass that trains a checkpoint its method's encoder can load."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""


class Table(Protocol):
    """Rows of a data set, by columns."""

    def __getitem__(self, column: str) -> list[Any]:
        """Return a column; raises DataError where there is none."""
        ...

    def __len__(self) -> int: ...

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        ...

    @property
    def pin(self) -> Mapping[str, str]:
        """What kind of place the rows come from, and the hash or commit of their content."""
        ...


class Load(Protocol):
    """Gives a split of a data set, such as ``bench.data.load``."""

    def __call__(
        self,
        id: str,  # noqa: A002 - the hub's word
        split: str,
        *,
        config: str = "",
        columns: Sequence[str] = (),
    ) -> Table:
        """Return the split; raises Unavailable where it cannot be had."""
        ...


@runtime_checkable
class Recipe(Protocol):
    """Trains a checkpoint. A frozen dataclass: its fields are its settings, plain JSON values, each with its source as default."""

    def check(self) -> None:
        """Return when the settings are right; nothing is read for it but files that they name.

        Raises:
            UsageError: A setting is off.
        """
        ...

    def train(self, out: Path, *, budget: int, seed: int, load: Load, progress: Progress) -> Path:
        """Train to the end of the budget and return the checkpoint's folder, ``out``; go on where an earlier call was killed.

        Args:
            out: Folder of the checkpoint; what is needed to go on lies in it until the end.
            budget: Token positions through the network that is trained, padding not counted.
            seed: The only source of randomness.
            load: Where data comes from.
            progress: Told about every stage.

        Raises:
            Unavailable: Weights or data cannot be had on this machine.
            UsageError: A setting is off, or ``out`` holds a training with other settings.
        """
        ...
