"""What a run will take: texts and tokens to encode, and seconds by the speed of an earlier run."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from bench.embeddings import CachedEncoder
from bench.encoder import Encoder, Item, card, fingerprint
from bench.errors import BenchError
from bench.runner import Cell
from bench.store.provenance import record_provenance
from bench.store.result import Result
from bench.vectors import Vectors

log = logging.getLogger(__name__)

_SAME = ("backbone", "parameters", "passes", "dtype", "device")
"""Entries of the cards of two encoders that are equally fast."""


@dataclass(frozen=True)
class Speed:
    """How fast an encoder was when it ran on such a machine.

    Attributes:
        texts: Per second.
        tokens: Per second; 0 where it counts none.
    """

    texts: float
    tokens: float


@dataclass(frozen=True)
class Forecast:
    """What a cell will take.

    Attributes:
        texts: Distinct texts that it embeds.
        new: Those that are neither cached nor of an earlier cell of the encoder, so that sums over
            cells are right.
        tokens: Of the new ones; None where the encoder cannot count them.
        seconds: To encode the new ones; None where the encoder never ran here.
    """

    texts: int = 0
    new: int = 0
    tokens: int | None = 0
    seconds: float | None = 0.0


def forecast(
    encoder: Encoder,
    cells: Sequence[Cell],
    vectors: Vectors,
    results: Sequence[Result],
    *,
    exact: bool = False,
) -> list[Forecast | None]:
    """Return what each cell of an encoder will take; None for cells that encode during the task.

    Args:
        encoder: The encoder.
        cells: All its cells, as ``bench.runner.survey`` returns them.
        vectors: The embedding cache.
        results: Of earlier runs, which say how fast the encoder is.
        exact: Whether every text will be in a batch of its own.
    """
    if all(cell.status != "planned" for cell in cells):  # it may be one that cannot be identified
        return [Forecast() for _ in cells]
    cached = CachedEncoder(encoder, vectors, exact=exact)
    speed = known_speed(encoder, results, exact=exact)
    seen: set[Item] = set()

    def distinct(item: Item) -> Item:
        return item if encoder.follows_instructions else Item(item.text)

    found: list[Forecast | None] = []
    for cell in cells:
        items = dict.fromkeys(cell.items)
        if cell.status == "planned" and not items:
            found.append(None)
            continue
        # What a map is fitted to is encoded once, too, for all cells.
        missing = cached.missing(items) if items else []
        new = [item for item in missing if distinct(item) not in seen]
        seen.update(map(distinct, chain(items, new)))
        tokens = _count(cached, new)
        found.append(Forecast(len(items), len(new), tokens, _seconds(speed, len(new), tokens)))
    return found


def known_speed(
    encoder: Encoder, results: Sequence[Result], *, exact: bool = False
) -> Speed | None:
    """Return the speed in the largest run of this network, on this device and machine.

    The time of a run includes loading the weights. In one that encoded a few texts, because the
    others were cached, it is most of it.

    Args:
        encoder: The encoder; one without a backbone is as fast as itself alone.
        results: Of a store.
        exact: Whether every text was in a batch of its own.
    """
    own, identity = card(encoder), fingerprint(encoder, exact=exact)
    machine = record_provenance()["machine"]
    speeds: dict[tuple[float, float, str], Speed] = {}
    for result in results:
        seconds = result.cost.get("encode_seconds", 0)
        same = all(result.card.get(name) == getattr(own, name) for name in _SAME)
        alike = bool(own.backbone) and bool(result.spec.settings.get("exact")) == exact
        same &= alike or result.spec.fingerprint == identity
        there = result.provenance.get("machine") == machine
        if seconds > 0 and same and there:
            texts, tokens = (result.cost.get(what, 0) for what in ("forward_texts", "tokens"))
            run = (tokens, texts, result.provenance.get("time", ""))
            speeds[run] = Speed(texts / seconds, tokens / seconds)
    return speeds[max(speeds)] if speeds else None


def _seconds(speed: Speed | None, texts: int, tokens: int | None) -> float | None:
    if not texts:
        return 0.0
    if speed is None:
        return None
    amount, rate = (tokens, speed.tokens) if tokens and speed.tokens else (texts, speed.texts)
    return amount / rate if rate else None


def _count(encoder: CachedEncoder, items: Sequence[Item]) -> int | None:
    try:
        return encoder.count_tokens(items)
    except BenchError as error:
        log.warning("tokens cannot be counted: %s", error)
        return None
