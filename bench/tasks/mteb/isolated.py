"""mteb, imported and kept from changing what is not its own."""

import importlib.util
import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from bench.errors import Unavailable


def installed() -> bool:
    """Say whether mteb is installed; it is not imported."""
    return importlib.util.find_spec("mteb") is not None


def loaded_mteb() -> Any:  # noqa: ANN401 - an optional module
    """Return mteb, imported.

    Raises:
        Unavailable: It is not installed.
    """
    try:
        import mteb
    except ImportError as error:
        raise Unavailable(
            "mteb is not installed; run `pip install 'encoder-recipes-bench[mteb,torch]'`"
        ) from error
    return mteb


@contextmanager
def undisturbed() -> Iterator[None]:
    """Restore global random state and warning filters: mteb seeds when it makes an object."""
    torch = sys.modules.get("torch")
    plain, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002 - to put it back
    tensors = torch.get_rng_state() if torch else None
    devices = torch.cuda.get_rng_state_all() if torch and torch.cuda.is_initialized() else []
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(mteb|sklearn|datasets|scipy)\b")
            yield
    finally:
        random.setstate(plain)
        np.random.set_state(numbers)  # noqa: NPY002 - as above
        if torch:
            torch.set_rng_state(tensors)
            torch.cuda.set_rng_state_all(devices)


@contextmanager
def without_bars() -> Iterator[None]:
    """Keep ``datasets`` from drawing progress bars: they belong to the caller."""
    try:
        import datasets
    except ImportError as error:
        raise Unavailable(
            "datasets is not installed; run `pip install 'encoder-recipes-bench[mteb,torch]'`"
        ) from error
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()
