"""Folders of trainings: which checkpoints are in them, and what their cards say."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.errors import UsageError
from bench.files import read_object

CARD = "card.json"
"""What a training writes last, into the folder of its checkpoint."""


def checkpoints_in(folder: Path) -> dict[str, str]:
    """Return the finished checkpoints in a folder, ``METHOD:FOLDER`` by label.

    Stages of a training are not listed.

    Raises:
        UsageError: There is none, or two would have one label.
    """
    found: dict[str, str] = {}
    for path in sorted(folder.rglob(CARD)):
        place = path.parent
        inside = place.relative_to(folder)
        card = read_object(path)
        if "stages" in inside.parts or not isinstance(card.get("method"), str):
            continue
        label = re.sub(r"[^\w.+,-]+", "-", str(inside)) if inside.parts else place.name
        target = f"{card['method']}:{place}"
        if found.setdefault(label, target) != target:
            raise UsageError(
                f"expected one checkpoint for the label {label}, got {found[label]} and {target}: "
                "rename one of the folders"
            )
    if not found:
        raise UsageError(
            f"expected finished trainings in {folder}, got none: name the --out of `bench train`"
        )
    return found


def training_seconds(card: Mapping[str, Any]) -> float:
    """Return how long a whole training took, all of its stages included.

    Cards of some methods count the training itself among the stages, others do not.
    """
    own = float(card.get("seconds") or 0.0)
    stages = [float(stage.get("seconds") or 0.0) for stage in card.get("stages") or ()]
    counted = own in stages or abs(sum(stages) - own) < 1.0
    return sum(stages) if counted else sum(stages) + own
