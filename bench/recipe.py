"""The recipe protocol: a frozen dataclass that trains a checkpoint for its method's encoder."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

Progress = Callable[[str, int, int], None]
"""A callback: takes a label, the number of steps done, and their total."""


def track(progress: Progress, stage: str, step: int, **values: float) -> None:
    """Hand the numbers of a training step, such as its loss, to whoever tracks a training.

    Args:
        progress: The callback of the training; one with a method ``track`` takes the numbers.
        stage: Name of the training, or of its stage.
        step: Number of the step in the stage, from 1.
        values: Numbers by name.
    """
    tracked = getattr(progress, "track", None)
    if tracked:
        tracked(stage, step, values)


class TrainingRows(Protocol):
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
        """The kind of source, and the hash or commit of the content."""
        ...


class Load(Protocol):
    """Returns a split of a data set, such as ``bench.data.load``."""

    def __call__(
        self,
        id: str,  # noqa: A002 - the hub's word
        split: str,
        *,
        config: str = "",
        columns: Sequence[str] = (),
    ) -> TrainingRows:
        """Return the split; raises Unavailable where it is not available."""
        ...


@runtime_checkable
class Recipe(Protocol):
    """Trains a checkpoint.

    A frozen dataclass. Its fields are its settings: plain JSON values, each with its source.
    ``bench check --recipe`` tries what is promised here.

    Three members are optional: ``encoder: ClassVar[str]`` names the encoder that reads its
    checkpoints, as ``--model`` takes it; a registered recipe has the name of its encoder. The
    method ``fetch(load)`` loads every data set of the training with ``load`` and fetches its
    backbones, so that they can be mirrored; raises Unavailable where one is not available. The
    method ``settled()`` returns the recipe with the values that "auto" stands for where other
    settings decide it, as its cards have them.
    """

    def check(self) -> None:
        """Check the settings, and the files that they name.

        Raises:
            UsageError: A setting is invalid.
        """
        ...

    def train(self, out: Path, *, budget: int, seed: int, load: Load, progress: Progress) -> Path:
        """Train to the end of the budget and return ``out``; resume an interrupted training.

        Args:
            out: Folder of the checkpoint; until the end, it has what resuming needs.
            budget: Tokens that pass through the network being trained, without padding.
            seed: Random seed.
            load: Loads data sets.
            progress: Called in every stage.

        Raises:
            Unavailable: Weights or data are not available on this machine.
            UsageError: A setting is invalid, or ``out`` has a training with other settings.
        """
        ...
