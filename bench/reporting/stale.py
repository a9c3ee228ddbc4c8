"""Results of one task that were made from different data are no comparison: the older ones are left out, and said to be."""

from collections.abc import Iterable, Iterator

from bench.result import Absence, Result

_UNKNOWN = "unknown"


def leave_out_stale(results: Iterable[Result]) -> tuple[list[Result], list[Absence]]:
    """Return the results made from the data that was read last, and why the others are left out.

    Only places of one kind are compared (local files, archives, the hub): their digests say nothing about each other.
    """
    each = list(results)
    newest: dict[tuple[str, ...], str] = {}
    for result in sorted(each, key=lambda r: str(r.provenance.get("time", ""))):
        newest.update(_pins(result))
    kept, stale = [], []
    for result in each:
        other = [place for place, pin in _pins(result) if newest[place] != pin]
        if not other:
            kept.append(result)
            continue
        name = "/".join(filter(None, other[0][-3:]))
        reason = f"made from other data than newer results ({name} has changed); run it again"
        stale.append(_absence(result, reason))
    return kept, stale


def _pins(result: Result) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the task and the place that a split was read from, with a digest or the commit of what was there."""
    spec = result.spec
    task = (spec.task, spec.readout, str(spec.limit), str(spec.task_version), result.metric)
    for entry in result.provenance.get("data", ()):
        kind = entry.get("source", _UNKNOWN)
        kind = kind if kind in {"local", "hub", _UNKNOWN} else "archive"
        for digest in ("sha256", "classes", "revision"):
            pin = str(entry.get(digest, _UNKNOWN))
            if _UNKNOWN not in {kind, pin[: len(_UNKNOWN)]}:
                yield (*task, kind, digest, entry["id"], entry["config"], entry["split"]), pin


def _absence(result: Result, reason: str) -> Absence:
    spec = result.spec
    place = (spec.task, spec.readout, spec.seed, spec.limit)
    return Absence(spec.encoder, result.family, *place, "skipped", reason)
