"""``--track``: the numbers of each training step in trackio, wandb or tensorboard.

The trackers are accelerate's, with their usual configuration. What they print goes to stderr, since
stdout is for results.
"""

import importlib.util
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from bench.errors import UsageError, unknown
from bench.recipe import Progress

TRACKERS = ("trackio", "wandb", "tensorboard")
"""Packages that show the numbers of a training."""

_PROJECT = "encoder-recipes-bench"


def check_tracker(name: str) -> None:
    """Check that a tracker is known and installed.

    Raises:
        UsageError: It is not.
    """
    if name not in TRACKERS:
        raise unknown("tracker", name, TRACKERS)
    for package in (name, "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise UsageError(f"--track {name} needs {package}: pip install {package}")


class TrackedProgress:
    """A progress callback that also hands the numbers of training steps to a tracker.

    The tracker starts with the first numbers, when the training has chosen its device.
    """

    def __init__(
        self, show: Progress, tracker: str, out: Path, settings: Mapping[str, Any]
    ) -> None:
        """Wrap a callback.

        Args:
            show: The callback.
            tracker: One of ``TRACKERS``.
            out: Folder of the checkpoint, which names the run; tensorboard's files go into it.
            settings: Of the training.
        """
        self._show, self._name, self._out, self._settings = show, tracker, out, settings
        self._tracker: Any = None

    def __call__(self, label: str, done: int, total: int) -> None:
        """Show how far the training is."""
        self._show(label, done, total)

    def track(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Hand on the numbers of a step."""
        if self._tracker is None:
            with redirect_stdout(sys.stderr):
                self._tracker = self._start()
        named = {f"{stage}/{name}": value for name, value in {**values, "step": step}.items()}
        with redirect_stdout(sys.stderr):
            # Only tensorboard counts the steps of each stage anew.
            self._tracker.log(named, step=step if self._name == "tensorboard" else None)

    def finish(self) -> None:
        """Write what is not written yet."""
        if self._tracker is not None:
            with redirect_stdout(sys.stderr):
                self._finish()

    def _finish(self) -> None:
        if self._name == "trackio":  # accelerate leaves it open, so that it prints again at exit
            import trackio

            trackio.finish()
        else:
            self._tracker.finish()

    def _start(self) -> Any:  # noqa: ANN401 - a tracker of accelerate
        from accelerate import PartialState
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        PartialState()  # which trackers need, also of a recipe that has none
        make = LOGGER_TYPE_TO_CLASS[self._name]
        if self._name == "tensorboard":
            tracker = make("tensorboard", logging_dir=self._out)
        else:
            tracker = make(_PROJECT, name=str(self._out))
        tracker.start()
        plain = bool | int | float | str
        shown = {key: each for key, each in self._settings.items() if isinstance(each, plain)}
        tracker.store_init_configuration(shown)
        return tracker
