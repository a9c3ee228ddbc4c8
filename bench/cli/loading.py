"""What commands that encode load: encoders by name with their settings, and the store of vectors."""

import logging
import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bench.errors import BenchError, UsageError, unknown

if TYPE_CHECKING:
    from bench.encoder import Encoder
    from bench.vectors import Vectors

log = logging.getLogger(__name__)


def load_encoders(
    names: Sequence[str], defaults: Mapping[str, str], sets: Sequence[str]
) -> "dict[str, Encoder]":
    """Return the encoders that ``--model`` names, with the settings that ``--set`` changes.

    Args:
        names: Names of encoders, ``all`` among them.
        defaults: Values of settings by field, for encoders that have them.
        sets: ``field=value`` or ``encoder.field=value``.

    Raises:
        UsageError: No such encoder or setting.
    """
    from bench.registry import field_names, load_encoder

    encoders = load_named(names)
    if not encoders:
        raise UsageError("--model names no encoder; give names separated by commas, or all")
    known = {name: field_names(encoder) for name, encoder in encoders.items()}
    changes = {
        name: {field: value for field, value in defaults.items() if field in known[name]}
        for name in encoders
    }
    for text in sets:
        target, equals, value = text.partition("=")
        owner, _, field = target.rpartition(".")
        if not equals:
            raise UsageError(f"--set takes field=value or encoder.field=value, got {text!r}")
        if owner and owner not in encoders:
            raise unknown("chosen encoder", owner, encoders)
        chosen = [owner] if owner else [name for name in encoders if field in known[name]]
        if not chosen:
            every = {name for each in known.values() for name in each}
            raise unknown(
                f"setting of {', '.join(encoders)}", field, every, hint="(see `bench list ENCODER`)"
            )
        for name in chosen:
            changes[name][field] = value
    return {name: load_encoder(name, changes[name]) for name in encoders}


def load_named(names: Sequence[str]) -> "dict[str, Encoder]":
    """Return the encoders of these names; one that only ``all`` stands for is left out, and told, where it cannot be imported.

    Raises:
        UsageError: No such encoder.
    """
    from bench.registry import expand_names, load_encoder

    encoders = {}
    for name in expand_names(names):
        try:
            encoders[name] = load_encoder(name)
        except BenchError as error:
            if name in names:
                raise
            log.warning("%s is left out: %s", name, error)
    return encoders


def vector_store(*, disk: bool) -> "Vectors":
    """Return the store of vectors, of the size that BENCH_CACHE_GB allows; in memory where it is not to be on disk.

    Raises:
        UsageError: BENCH_CACHE_GB is no size of a disk.
    """
    from bench.assets import cache_dir
    from bench.encoder import shortened
    from bench.vectors import Vectors

    size = os.environ.get("BENCH_CACHE_GB") or "8"
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,9})?", size):
        raise UsageError(
            f"BENCH_CACHE_GB takes a number of gigabytes from 0 to 999999, such as 20 or 0.5, got {shortened(size)}"
        )
    return Vectors(cache_dir() / "embeddings" if disk else None, limit=int(float(size) * 2**30))
