"""Results of several folders as those of one: each cell once, each encoder under one name."""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache

from bench.errors import UsageError, unknown
from bench.registry import find_registered
from bench.reporting.names import strip_folders
from bench.store import Store
from bench.store.result import Absence, Result, RunSpec

log = logging.getLogger(__name__)


def find(
    stores: Sequence[Store], models: Collection[str] = (), tasks: Collection[str] = ()
) -> tuple[list[Result], list[Absence]]:
    """Return the results of some encoders and tasks, and why others have none.

    Args:
        stores: The folders, joined.
        models: Names of encoders, any under which they were run; all by default.
        tasks: Names of tasks; all by default.

    Raises:
        UsageError: A folder has no results, or there are none under one of the names.
    """
    found, absences, names = join(stores)
    on = {*(result.spec.task for result in found), *(absence.task for absence in absences)}
    for kind, wanted, known in (("encoder", models, names), ("task", tasks, on)):
        for name in wanted:
            if name not in known:
                raise unknown(f"{kind} in these results", name, known)
    chosen = {names[name] for name in models}

    def is_wanted(cell: RunSpec | Absence) -> bool:
        return (not models or cell.encoder in chosen) and (not tasks or cell.task in tasks)

    kept = [result for result in found if is_wanted(result.spec)]
    reasons = [absence for absence in absences if is_wanted(absence)]
    if not kept and not reasons:
        raise UsageError(
            "none of these encoders has a result on these tasks in "
            f"{', '.join(str(store.root) for store in stores)}; run them with `bench run`"
        )
    return kept, reasons


def join(stores: Sequence[Store]) -> tuple[list[Result], list[Absence], dict[str, str]]:
    """Return the results of all folders, why others have none, and the encoders' names.

    An encoder is its fingerprint: weights that were run under several names have one. Of results
    of one cell that differ the newest counts, and a warning says so.

    Returns:
        The third part maps every name under which an encoder was run to the one that it has here.

    Raises:
        UsageError: A folder has no results.
    """
    found: list[Result] = []
    absences: list[Absence] = []
    for store in stores:
        own, reasons = list(store.results()), store.absences()
        if not own and not reasons:
            raise UsageError(
                f"no results in {store.root}; run `bench run`, or name another folder with "
                "--results"
            )
        found += own
        absences += reasons
    found.sort(key=_time)  # stable: of results of one time the later folder's is the newer one
    names = _choose_names(found)
    kept = _newest([_rename(result, names) for result in found])
    aliases = {_short(r.spec.encoder): names[r.spec.fingerprint] for r in found}
    for absence in absences:
        aliases.setdefault(_short(absence.encoder), _short(absence.encoder))
    renamed = [replace(each, encoder=aliases[_short(each.encoder)]) for each in absences]
    return kept, renamed, aliases | {name: name for name in names.values()}


def _time(result: Result) -> str:
    return str(result.provenance.get("time", ""))


@cache
def _short(name: str) -> str:
    return find_registered(strip_folders(name))


def _choose_names(results: Sequence[Result]) -> dict[str, str]:
    """Return a name for each fingerprint: the newest one, of no place or module if possible."""
    names: dict[str, str] = {}
    for result in results:
        fingerprint, name = result.spec.fingerprint, _short(result.spec.encoder)
        if ":" not in name or ":" in names.get(fingerprint, ":"):
            names[fingerprint] = name
    return names


def _rename(result: Result, names: Mapping[str, str]) -> Result:
    return replace(result, spec=replace(result.spec, encoder=names[result.spec.fingerprint]))


def _newest(results: Iterable[Result]) -> list[Result]:
    """Return the last result of each cell, and warn where an earlier one has other scores."""
    kept: dict[str, Result] = {}
    gaps: dict[str, float] = {}
    for result in results:
        before = kept.get(result.spec.key)
        if before is not None and before.scores != result.scores:
            gaps[result.spec.key] = abs(result.main.mean - before.main.mean)
        kept[result.spec.key] = result
    if gaps:
        key, gap = max(gaps.items(), key=lambda item: item[1])
        spec = kept[key].spec
        log.warning(
            "%d cells have several results that differ, the newest counts; the largest difference "
            "of main scores is %.2g (%s on %s)",
            len(gaps),
            gap,
            spec.encoder,
            spec.task,
        )
    return list(kept.values())
