"""Encoders by their registered name, for methods that build on another one."""

from dataclasses import fields, replace
from importlib.metadata import entry_points
from typing import Any

from bench.encoder import Encoder
from bench.errors import UsageError, unknown

GROUPS = ("bench.encoders.default", "bench.encoders")
"""Groups of entry points that name encoders."""


def load_registered(name: str, setting: str, **settings: object) -> Encoder:
    """Return the encoder with a name such as "all-MiniLM-L6-v2" or "st:FOLDER".

    Args:
        name: A registered name, with ``:PATH_OR_ID`` for another checkpoint.
        setting: The setting that names it, for the errors.
        settings: Values of fields, ignored where the encoder does not have them.

    Raises:
        UsageError: No encoder has this name, or it has no checkpoint.
    """
    head, _, checkpoint = name.partition(":")
    points: dict[str, Any] = {}
    for group in GROUPS:
        points |= {point.name: point for point in entry_points(group=group)}
    if head not in points:
        raise unknown("encoder", head, points, hint=f"({setting} is a registered name)")
    encoder: Any = points[head].load()()
    known = {field.name for field in fields(encoder)}
    if checkpoint:
        if "checkpoint" not in known:
            raise UsageError(f"{setting} {head!r} takes no checkpoint, got {checkpoint!r}")
        settings["checkpoint"] = checkpoint
    wanted = {key: value for key, value in settings.items() if key in known}
    return replace(encoder, **wanted)  # type: ignore[no-any-return]
