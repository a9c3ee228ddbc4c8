"""Coarser classes of two sets, as their authors publish them beside the fine ones."""

import tomllib
from collections.abc import Mapping
from importlib.resources import files

_GROUPS = tomllib.loads(files("bench.tasks").joinpath("groups.toml").read_text(encoding="utf-8"))

DOMAINS: Mapping[str, str] = _GROUPS["domains"]
"""Intents of CLINC150 by domain, with white space between; out-of-scope requests have none."""

SENTIMENTS: Mapping[str, str] = _GROUPS["sentiments"]
"""Emotions of GoEmotions by sentiment, with white space between; neutral is in no group."""


def group_names(groups: Mapping[str, str]) -> dict[str, str]:
    """Return the group of each name, from names by group with white space between."""
    found: dict[str, str] = {}
    for group, names in groups.items():
        found |= dict.fromkeys(names.split(), group)
    return found
