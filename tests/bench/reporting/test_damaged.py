"""Results folders in which files are damaged, or somebody else's."""

import json
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import adapters.quip
from bench import reporting
from bench.encoder import Card
from bench.provenance import record_provenance
from bench.reporting import html
from bench.reporting.tables import tables
from bench.result import Result, RunSpec
from bench.store import Store
from bench.task import Score

OTHERS = (None, True, 7, -0.5, 10**400, float("nan"), "text", "\ud800", [], ["a"], {}, {"a": {}})


def result(seed: int) -> Result:
    training = json.loads(
        (Path(adapters.quip.__file__).parent / "checkpoint/card.json").read_text()
    )
    spec = RunSpec("quip", "0" * 16, {"layer": -1}, "stsb", 1, "embedding", seed, None)
    values = np.linspace(0, 1, 20, dtype=np.float32)
    read = {"id": "org/name", "config": "", "split": "test", "source": "local", "sha256": "ab"}
    return Result(
        spec,
        "sts",
        "spearman",
        {"spearman": Score((0.5,), values, values[::-1]), "pearson": Score((0.25, 0.75))},
        asdict(Card(weights="ab", backbone="b", parameters=10, training=training)),
        {"asked": 4, "distinct": 3, "repeated_share": 0.25, "overlap_share": None},
        {"seconds": 1.5, "dimension": 4, "peak_memory_mb": 100.0},
        {**record_provenance(), "data": [read]},
        [{"text": "a", "answer": "b"}],
    )


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to every value inside, but only to the first two of a list."""
    inner = value.items() if isinstance(value, dict) else ()
    for key, each in enumerate(value[:2]) if isinstance(value, list) else inner:
        yield (*at, key)
        yield from places(each, (*at, key))


def changed(data: Any, at: tuple[Any, ...], value: Any) -> Any:
    copy = inner = json.loads(json.dumps(data))
    for key in at[:-1]:
        inner = inner[key]
    if value is Ellipsis:
        del inner[at[-1]]
    else:
        inner[at[-1]] = value
    return copy


def harms(data: Any, *, removed: bool) -> Iterator[Callable[[bytes], bytes]]:
    """Yield what cuts a file, flips a bit, and removes or replaces a value."""
    rng = random.Random(1)
    for _ in range(5):
        yield itemgetter(slice(rng.randrange(4000)))
    for made in (b"", b"[" * 100_000, b"1" * 5000, b"\xff", b"null"):
        yield lambda _, made=made: made
    for _ in range(20):
        yield partial(flipped, rng.random(), rng.randrange(8))
    for at in places(data):
        yield partial(replaced, at, Ellipsis if removed else rng.choice(OTHERS))


def flipped(share: float, bit: int, content: bytes) -> bytes:
    place = int(share * len(content))
    return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]


def replaced(at: tuple[Any, ...], value: Any, content: bytes) -> bytes:
    return json.dumps(changed(json.loads(content), at, value)).encode()


@pytest.mark.parametrize("with_digest", [True, False])
def test_damaged_results_are_named_and_whatever_is_read_makes_tables(tmp_path, caplog, with_digest):
    store = Store(tmp_path)
    changes = [*harms(result(0).to_json(), removed=not with_digest)]
    store[result(0).spec] = result(0)
    whole = {store.path(result(0).spec)}
    for seed, harm in enumerate(changes, 1):
        store[result(seed).spec] = result(seed)
        path = store.path(result(seed).spec)
        data = json.loads(path.read_bytes())
        if not with_digest:  # as before there were digests: a change that fits is not seen
            del data["digest"]
        path.write_bytes(harm(json.dumps(data).encode()))
        whole |= {path} if same(path.read_bytes(), data) else set()
    comparison = reporting.read(store)
    named = [record.getMessage() for record in caplog.records]
    files = sorted(tmp_path.glob("*/*.json"))
    read = {store.path(spec) for spec in comparison.runs.result.map(lambda r: r.spec)}
    left_out = {path for path in files if any(str(path) in line for line in named)}
    assert len(named) == len(left_out)
    assert left_out.isdisjoint(read)
    assert left_out | read == set(files)
    assert whole == read if with_digest else whole < read
    made = tables(comparison)
    assert html.page(comparison, made)
    assert reporting.text(made, "json")


def same(content: bytes, data: Any) -> bool:
    try:
        return bool(json.loads(content) == data)
    except (ValueError, RecursionError):
        return False


def test_json_of_others_is_named_and_nobody_is_told_to_delete_it(tmp_path, caplog):
    store = Store(tmp_path)
    store[result(0).spec] = result(0)
    (tmp_path / "reports").mkdir()
    contents = {"clusters": {"schema": 1, "groupings": []}, "results": [{"name": "by-task"}]}
    for name, content in contents.items():
        (tmp_path / "reports" / f"{name}.json").write_text(json.dumps(content))
    os.mkfifo(tmp_path / "reports" / "pipe.json")
    assert len(reporting.read(store).runs) == 1
    for name in (*contents, "pipe"):
        assert f"reports/{name}.json" in caplog.text
    assert "delete" not in caplog.text
