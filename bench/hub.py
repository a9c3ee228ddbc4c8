"""Data sets from the Hugging Face hub, by the ``datasets`` library (extra ``mteb``); no script of a data set is ever run."""

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from bench.catalog import CONVERTED, Columns
from bench.errors import DataError, Unavailable

log = logging.getLogger(__name__)

PAUSE = 300.0
"""Seconds for which an answer of the hub, also a failure, is taken as still true."""

_SECONDS = 5.0
"""How long the hub may take to answer at all."""

_BUSY = frozenset({429, 500, 502, 503, 504})
"""Status codes of a hub that answers again later."""

_RETRIES = 4
_LONGEST_WAIT = 300.0
"""Seconds; the hub counts requests in windows of five minutes."""

T = TypeVar("T")


def read(
    id: str,  # noqa: A002 - the hub's word
    split: str,
    *,
    config: str,
    revision: str,
) -> tuple[Columns, dict[str, list[str]], str]:
    """Return the columns of a split, the class names of its integer columns, and the commit ("" when offline and not pinned).

    Args:
        id: Of the data set on the hub.
        split: Its split.
        config: Its configuration; "" for the only one.
        revision: A commit or its first digits; CONVERTED; "" for the newest.

    Raises:
        Unavailable: ``datasets`` is not installed, the hub is out of reach, or it does not have or give the set.
        DataError: The set has no such split or configuration.
    """
    try:
        import datasets  # noqa: PLC0415 - heavy
        from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # noqa: PLC0415 - heavy
    except ImportError as error:
        raise Unavailable(
            f"no {error.name} installed; pip install 'encoder-recipes-bench[mteb]'"
        ) from error
    home = f"hf://datasets/{id}"  # never a folder of this name in the working directory
    try:
        with offline_if_unreachable():
            commit = retry_while_busy(lambda: _commit(id, revision))
            if revision == CONVERTED:
                files = f"{home}@{commit}/{config or '*'}/{split}/*.parquet"
                what: dict[str, Any] = {"path": "parquet", "data_files": {split: files}}
            else:
                what = {"path": home, "name": config or None, "revision": commit or None}
            rows = retry_while_busy(lambda: datasets.load_dataset(split=split, **what))
    except (OSError, RuntimeError, HTTPError) as error:
        raise Unavailable(_line(error)) from error
    except (ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"{id} on the hub has no split {split!r} of configuration {config!r}, or is broken: {_line(error)}"
        ) from error
    found = find_cached_commit(rows)
    wanted = commit or revision  # offline, the first digits of a commit cannot be completed
    if found and wanted != CONVERTED and not found.startswith(wanted):
        raise Unavailable(f"the cache of the hub holds {id} at {found}, not at {wanted}")
    return rows.to_dict(), read_class_names(rows.features), commit or found


def retry_while_busy(call: Callable[[], T]) -> T:
    """Return what a call to the hub returns; while the hub limits requests or is overloaded, wait and repeat it.

    The wait is as long as the hub's ``Retry-After`` says, else 1, 2, 4 and 8 seconds.

    Args:
        call: Asks the hub by its client; its exceptions are raised, that of a busy hub after four retries.
    """
    for attempt in range(_RETRIES):
        try:
            return call()
        except Exception as error:
            seconds = _busy_seconds(error, 2.0**attempt)
            if seconds is None:
                raise
            log.warning("the hub is busy (%s): next try in %.0f s", _line(error), seconds)
            time.sleep(seconds)
    return call()


def _busy_seconds(error: BaseException, default: float) -> float | None:
    """Return how long a busy hub asks to wait; None where an error has another cause."""
    cause: BaseException | None = error
    while cause is not None:
        response = getattr(cause, "response", None)
        if getattr(response, "status_code", None) in _BUSY:
            asked = response.headers.get("Retry-After", "")
            return min(float(asked) if asked.isdecimal() else default, _LONGEST_WAIT)
        cause = cause.__cause__ or cause.__context__
    return None


@contextmanager
def offline_if_unreachable() -> Iterator[None]:
    """Have the hub's libraries read nothing but their caches while the hub cannot be reached, instead of asking it many times."""
    import datasets  # noqa: PLC0415 - heavy
    from huggingface_hub import constants  # noqa: PLC0415 - heavy

    offline = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    if not any(offline) and not _answers(constants.ENDPOINT, int(time.monotonic() / PAUSE)):
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = offline


@lru_cache(maxsize=1)
def _answers(address: str, period: int) -> bool:  # noqa: ARG001 - asked again in the next period
    from huggingface_hub import get_session  # noqa: PLC0415 - heavy
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # noqa: PLC0415 - heavy

    try:
        get_session().head(address, timeout=_SECONDS)
    except (OSError, RuntimeError, HTTPError) as error:
        log.warning(
            "%s cannot be reached (%s): only its cache on this machine is read",
            address,
            _line(error),
        )
        return False
    return True


def find_cached_commit(rows: Any) -> str:  # noqa: ANN401 - a type of the optional library
    """Return the commit whose rows these are, "" if unknown: offline, ``datasets`` takes whatever it has in its cache."""
    names = [part for file in rows.cache_files for part in Path(file["filename"]).parts]
    return next((name for name in names if re.fullmatch("[0-9a-f]{40}", name)), "")


def read_class_names(features: Any) -> dict[str, list[str]]:  # noqa: ANN401 - a type of the optional library
    """Return the class names of the columns that have some, from the features of a set of the ``datasets`` library."""
    from datasets import ClassLabel, List  # noqa: PLC0415 - heavy

    inner = {
        name: feature.feature if isinstance(feature, List) else feature
        for name, feature in features.items()
    }
    return {
        name: list(feature.names)
        for name, feature in inner.items()
        if isinstance(feature, ClassLabel)
    }


def _commit(id: str, revision: str) -> str:  # noqa: A002 - the hub's word - the hub's word
    """Return the full commit; asking for it is also a quick test of whether the hub can be reached."""
    from huggingface_hub import HfApi, constants  # noqa: PLC0415 - heavy

    full = len(revision) == 40
    if constants.HF_HUB_OFFLINE:
        if revision == CONVERTED:
            raise Unavailable(
                "the hub is switched off, and its conversion of a scripted set is not kept on this machine"
            )
        return revision if full else ""
    api = HfApi()
    info = api.dataset_info(
        id, revision=revision if full or revision == CONVERTED else None, timeout=10
    )
    if full or revision in {"", CONVERTED}:
        return str(info.sha)
    found = [
        c.commit_id
        for c in api.list_repo_commits(id, repo_type="dataset")
        if c.commit_id.startswith(revision)
    ]
    if len(found) != 1:
        raise Unavailable(f"the hub's {id} has {len(found)} commits that start with {revision}")
    return found[0]


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
