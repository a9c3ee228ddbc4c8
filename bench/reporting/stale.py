"""Results of one task on different versions of its data: the older ones are left out."""

from collections.abc import Iterable, Iterator

from bench.data.catalog import set_name
from bench.store.result import Absence, Result

_UNKNOWN = "unknown"


def leave_out_stale(results: Iterable[Result]) -> tuple[list[Result], list[Absence]]:
    """Return the results on the newest data, and why the others are left out.

    Digests are only comparable between sources of one kind: local files, archives, or the hub.
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
        name = set_name(*other[0][-3:])
        reason = f"made from other data than newer results ({name} has changed); run it again"
        spec = result.spec
        place = (spec.task, spec.readout, spec.seed, spec.limit)
        stale.append(Absence(spec.encoder, result.family, *place, "skipped", reason))
    return kept, stale


def _pins(result: Result) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the task and source of each split, with a digest or the commit of its content."""
    spec = result.spec
    task = (spec.task, spec.readout, str(spec.limit), str(spec.task_version), result.metric)
    for entry in result.provenance.get("data", ()):
        kind = entry.get("source", _UNKNOWN)
        kind = kind if kind in {"local", "hub", _UNKNOWN} else "archive"
        for digest in ("sha256", "classes", "revision"):
            pin = str(entry.get(digest, _UNKNOWN))
            if _UNKNOWN not in {kind, pin[: len(_UNKNOWN)]}:
                place = (entry.get(name) or "" for name in ("id", "config", "split"))
                yield (*task, kind, digest, *place), pin
