"""Results folders in which files are damaged, or somebody else's."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import adapters.quip
from bench.encoder import Card
from bench.provenance import record_provenance
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


def harms(data: Any) -> Iterator[Callable[[bytes], bytes]]:
    """Yield what cuts a file, flips a bit of it, and takes a value out or puts one of another kind in its place."""
    rng = random.Random(1)
    for _ in range(10):
        yield itemgetter(slice(rng.randrange(4000)))
    yield from (
        lambda _, made=made: made for made in (b"", b"[" * 100_000, b"1" * 5000, b"\xff", b"null")
    )
    for _ in range(40):
        yield partial(flipped, rng.random(), rng.randrange(8))
    for at in places(data):
        for value in (Ellipsis, *rng.sample(OTHERS, 1)):
            yield lambda content, at=at, value=value: json.dumps(
                changed(json.loads(content), at, value)
            ).encode()


def flipped(share: float, bit: int, content: bytes) -> bytes:
    place = int(share * len(content))
    return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]


def report(folder: Path, out: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "bench", "report", "--results", folder, "--out", out]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_damaged_results_are_named_and_left_out_and_whatever_is_read_makes_a_report(tmp_path):
    store = Store(tmp_path / "results")
    changes = [*harms(result(0).to_json())]
    whole = []
    for seed, harm in enumerate(changes, 1):
        store[result(seed).spec] = result(seed)
        path = store.path(result(seed).spec)
        data = json.loads(path.read_bytes())
        if seed % 2:  # as before there were digests: changes that fit are not seen
            del data["digest"]
        path.write_bytes(harm(json.dumps(data, indent=1).encode()))
        whole += [path] if seed % 2 == 0 and same(path.read_bytes(), data) else []
    done = report(tmp_path / "results", tmp_path / "out")
    assert done.returncode == 0, done.stderr[-2000:]
    told = [line for line in done.stderr.splitlines() if line.startswith("left out: ")]
    assert len(done.stderr.splitlines()) == len(told)
    files = sorted(tmp_path.glob("results/*/*.json"))
    left = {path for path in files if any(str(path) in line for line in told)}
    assert len(left) == len(told)
    assert len(left) + len(list(store.results())) == len(files) == len(changes)
    read = [path for path in files if path not in left]
    assert [path for path in read if b'"digest"' in path.read_bytes()] == sorted(whole)


def same(content: bytes, data: Any) -> bool:
    try:
        return bool(json.loads(content) == data)
    except (ValueError, RecursionError):
        return False


@pytest.mark.parametrize("name", ["results", "clusters"])
def test_json_that_no_run_has_written_is_named_and_nobody_is_told_to_delete_it(tmp_path, name):
    store = Store(tmp_path)
    store[result(0).spec] = result(0)
    (tmp_path / "reports").mkdir()
    content = {"schema": 1, "groupings": []} if name == "clusters" else [{"name": "by-task"}]
    (tmp_path / "reports" / f"{name}.json").write_text(json.dumps(content))
    os.mkfifo(tmp_path / "reports" / "pipe.json")
    done = report(tmp_path, tmp_path / "reports")
    assert done.returncode == 0
    for file in (f"reports/{name}.json", "reports/pipe.json"):
        assert file in done.stderr
    assert "delete" not in done.stderr
