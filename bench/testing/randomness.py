"""Catching code that touches global random state."""

import random
import sys
from collections.abc import Callable

import numpy as np


def random_states_touched(action: Callable[[], object]) -> list[str]:
    """Return the libraries whose global random state an action changes, and restore it."""
    # Each is advanced first: code that seeds with a constant would leave it as it was.
    torch = sys.modules.get("torch")
    kept = random.getstate(), np.random.get_state()  # noqa: NPY002
    tensors = torch.get_rng_state() if torch else None
    random.random(), np.random.random(), torch.rand(1) if torch else None  # noqa: NPY002, S311
    before = _random_states()
    try:
        action()
        return [
            name for name, state in _random_states().items() if state != before.get(name, state)
        ]
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])  # noqa: NPY002
        if torch:
            torch.set_rng_state(tensors)


def _random_states() -> dict[str, object]:
    found: dict[str, object] = {
        "random": random.getstate(),
        "numpy": repr(np.random.get_state(legacy=False)),  # noqa: NPY002
    }
    if (torch := sys.modules.get("torch")) is not None:
        found["torch"] = torch.get_rng_state().numpy().tobytes()
    return found
