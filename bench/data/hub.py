"""Data sets from the Hugging Face hub, by the ``datasets`` library (extra ``mteb``).

Scripts of data sets are never run.
"""

import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from bench.data.catalog import CONVERTED, Classes, Columns
from bench.errors import DataError, Unavailable
from bench.process import environment

log = logging.getLogger(__name__)

PAUSE = 300.0
"""Seconds until the hub is asked again, also after a failure."""

_TIMEOUT = 5.0  # seconds in which the hub must answer at all
_BUSY = frozenset({429, 500, 502, 503, 504})  # status codes of a hub that answers again later
_RETRIES = 4
_LONGEST_WAIT = 300.0  # seconds; the hub counts requests in windows of five minutes

_OFFLINE = "HF_HUB_OFFLINE"  # of the environment, and of the modules that read it
_CONFIGS = ("huggingface_hub.constants", "datasets.config")

T = TypeVar("T")


def read(
    id: str,  # noqa: A002 - the hub's word
    split: str,
    *,
    config: str,
    revision: str,
) -> tuple[Columns, Classes, str]:
    """Return the columns of a split, the class names of its integer columns, and the commit.

    The commit is "" when offline and not pinned.

    Args:
        id: Of the data set on the hub.
        split: Its split.
        config: Its configuration; "" for the only one.
        revision: A commit or its first digits; CONVERTED; "" for the newest.

    Raises:
        Unavailable: ``datasets`` is not installed, the hub cannot be reached, or it does not have
            the data set.
        DataError: The data set has no such split or configuration.
    """
    try:
        import datasets  # noqa: PLC0415 - heavy
        from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # noqa: PLC0415
    except ImportError as error:
        raise Unavailable(
            f"no {error.name} installed; pip install 'encoder-recipes-bench[mteb]'"
        ) from error
    home = f"hf://datasets/{id}"  # never a folder of this name in the working directory
    try:
        with offline_if_unreachable():
            commit = retry_while_busy(lambda: _find_commit(id, revision))
            if revision == CONVERTED:
                files = f"{home}@{commit}/{config or '*'}/{split}/*.parquet"
                source: dict[str, Any] = {"path": "parquet", "data_files": {split: files}}
            else:
                source = {"path": home, "name": config or None, "revision": commit or None}
            rows = retry_while_busy(lambda: datasets.load_dataset(split=split, **source))
    except (OSError, RuntimeError, HTTPError) as error:
        raise Unavailable(_line(error)) from error
    except (ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"{id} on the hub has no split {split!r} of configuration {config!r}, "
            f"or is broken: {_line(error)}"
        ) from error
    found = find_cached_commit(rows)
    wanted = commit or revision  # offline, the first digits of a commit cannot be completed
    if found and wanted != CONVERTED and not found.startswith(wanted):
        raise Unavailable(f"the cache of the hub has {id} at {found}, not at {wanted}")
    return rows.to_dict(), read_class_names(rows.features), commit or found


def retry_while_busy(call: Callable[[], T]) -> T:
    """Call a function, and repeat it up to four times while the hub limits requests.

    It waits as long as the hub's ``Retry-After`` says, else 1, 2, 4 and 8 seconds.

    Args:
        call: Asks the hub by its client; its exceptions are raised.
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
        status = getattr(response, "status_code", None)
        if response is not None and status in _BUSY:
            asked = response.headers.get("Retry-After", "")
            return min(float(asked) if asked.isdecimal() else default, _LONGEST_WAIT)
        cause = cause.__cause__ or cause.__context__
    return None


@contextmanager
def offline_if_unreachable() -> Iterator[None]:
    """Make the hub's libraries read only their caches while the hub cannot be reached."""
    import datasets  # noqa: PLC0415 - heavy
    from huggingface_hub import constants  # noqa: PLC0415 - heavy

    offline = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    if not any(offline) and not _is_reachable(constants.ENDPOINT, int(time.monotonic() / PAUSE)):
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = offline


@contextmanager
def offline() -> Iterator[None]:
    """Make the hub's libraries read only their caches for as long as the context lasts."""
    before = os.environ.get(_OFFLINE)
    asked = before is not None and before.upper() in {"1", "ON", "YES", "TRUE"}
    loaded = {name: sys.modules[name] for name in _CONFIGS if name in sys.modules}
    states = {name: getattr(module, _OFFLINE) for name, module in loaded.items()}
    for module in loaded.values():
        setattr(module, _OFFLINE, True)
    try:
        with environment({_OFFLINE: "1"}):  # for those that are imported meanwhile
            yield
    finally:
        for name in _CONFIGS:
            if name in sys.modules:
                setattr(sys.modules[name], _OFFLINE, states.get(name, asked))


@lru_cache(maxsize=1)
def _is_reachable(address: str, period: int) -> bool:  # noqa: ARG001 - asked again in the next period
    from huggingface_hub import get_session  # noqa: PLC0415 - heavy
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # noqa: PLC0415

    try:
        get_session().head(address, timeout=_TIMEOUT)
    except (OSError, RuntimeError, HTTPError) as error:
        log.warning(
            "%s cannot be reached (%s): only its local cache is read", address, _line(error)
        )
        return False
    return True


def find_cached_commit(rows: Any) -> str:  # noqa: ANN401 - a type of the optional library
    """Return the commit of rows from the cache, "" if unknown.

    Offline, ``datasets`` takes any commit that is in its cache.
    """
    for file in rows.cache_files:
        for part in Path(file["filename"]).parts:
            if re.fullmatch("[0-9a-f]{40}", part):
                return part
    return ""


def read_class_names(features: Any) -> Classes:  # noqa: ANN401 - a type of the optional library
    """Return the class names by column, from the features of a data set of ``datasets``."""
    from datasets import ClassLabel, List  # noqa: PLC0415 - heavy

    names = {}
    for column, feature in features.items():
        inner = feature.feature if isinstance(feature, List) else feature
        if isinstance(inner, ClassLabel):
            names[column] = list(inner.names)
    return names


def _find_commit(id: str, revision: str) -> str:  # noqa: A002 - the hub's word
    """Return the full commit of a revision; "" when offline and not known."""
    from huggingface_hub import HfApi, constants  # noqa: PLC0415 - heavy

    full = len(revision) == 40
    if constants.HF_HUB_OFFLINE:
        if revision == CONVERTED:
            raise Unavailable("the hub is offline, and its conversion of the set is not cached")
        return revision if full else ""
    api = HfApi()
    if full or revision in {"", CONVERTED}:
        return str(api.dataset_info(id, revision=revision or None, timeout=10).sha)
    api.dataset_info(id, timeout=10)  # fails quickly where the hub cannot be reached
    commits = [commit.commit_id for commit in api.list_repo_commits(id, repo_type="dataset")]
    found = [commit for commit in commits if commit.startswith(revision)]
    if len(found) != 1:
        raise Unavailable(f"the hub's {id} has {len(found)} commits that start with {revision}")
    return found[0]


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
