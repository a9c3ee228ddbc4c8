"""Results folders in which files are damaged, or somebody else's."""

import json
import os
import random
from dataclasses import asdict
from functools import partial
from operator import itemgetter

import numpy as np

from bench import reporting
from bench.encoder import Card
from bench.reporting import html
from bench.reporting.tables import tables
from bench.store import Store
from tests.bench.reporting.made import result

OTHERS = (None, True, 7, -0.5, 10**400, float("nan"), "text", "\ud800", [], ["a"], {}, {"a": {}})


def whole(seed):
    """A result with a value in every field."""
    recipe = {"rate": 0.1, "words": "few", "flag": True}
    stages = [{"stage": "one", "loss": [[1, 2.0], [3, 1.0]], "seconds": 2.0}]
    training = {"method": "m", "budget": 9, "seed": 1, "recipe": recipe, "stages": stages}
    training |= {"loss": [[1, 2.0], [3, 1.0]], "trained_tokens": 9, "seconds": 1.0}
    training["data"] = [{"id": "org/set", "rows": 10, "licence": "MIT"}]
    values = np.linspace(0, 1, 20, dtype=np.float32)
    return result(
        "quip", "stsb", 0.5, seed=seed, metric="spearman", examples=values, gold=values[::-1],
        scores={"pearson": (0.25, 0.75)},
        card=asdict(Card(weights="ab", backbone="b", parameters=10, training=training)),
        texts={"overlap_share": None},
        data=[{"id": "org/name", "config": "", "split": "test", "source": "local", "sha256": "a"}],
        versions={"numpy": "2"},
        samples=({"text": "a", "answer": "b"},),
    )  # fmt: skip


def places(value, at=()):
    """Yield the way to every value inside, but only to the first two of a list."""
    inner = value.items() if isinstance(value, dict) else ()
    for key, each in enumerate(value[:2]) if isinstance(value, list) else inner:
        yield (*at, key)
        yield from places(each, (*at, key))


def change(content, at, value):
    """Put a value at a place; ``...`` removes what is there."""
    data = inner = json.loads(content)
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = value
    if value is ...:
        del inner[at[-1]]
    return json.dumps(data).encode()


def flip(content, at, bit):
    return content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]


def harms(data):
    """Yield functions that cut a file, flip a bit, and remove or replace a value."""
    rng, size = random.Random(1), len(json.dumps(data))
    for made in (b"", b"[" * 100_000, b"1" * 5000, b"\xff", b"null"):
        yield lambda _, made=made: made
    for _ in range(10):
        yield itemgetter(slice(rng.randrange(size)))
        yield partial(flip, at=rng.randrange(size - 10), bit=rng.randrange(8))
    for number, at in enumerate(places(data)):
        for value in (..., OTHERS[number % len(OTHERS)]):
            yield partial(change, at=at, value=value)


def same(content, data):
    try:
        return json.dumps(json.loads(content)) == json.dumps(data)  # of which 1 and true differ
    except (ValueError, RecursionError):
        return False


def test_damaged_results_without_a_digest_are_named_or_make_tables(tmp_path, caplog):
    """As before there were digests: a change that fits is not seen."""
    store = Store(tmp_path)
    store[whole(0).spec] = whole(0)
    unharmed = {store.path(whole(0).spec)}
    for seed, harm in enumerate(harms(whole(0).to_json()), 1):
        store[whole(seed).spec] = whole(seed)
        path = store.path(whole(seed).spec)
        data = json.loads(path.read_bytes())
        del data["digest"]
        path.write_bytes(harm(json.dumps(data).encode()))
        unharmed |= {path} if same(path.read_bytes(), data) else set()
    comparison = reporting.read(store)
    named = [record.getMessage() for record in caplog.records]
    files = set(tmp_path.glob("*/*.json"))
    read = {store.path(result.spec) for result in comparison.runs.result}
    left_out = {path for path in files if any(str(path) in line for line in named)}
    assert len(named) == len(left_out)
    assert (left_out & read, left_out | read) == (set(), files)
    assert unharmed < read
    made = tables(comparison)
    assert html.page(comparison, made)
    assert reporting.text(made, "json")


def test_json_of_others_is_named_and_nobody_is_told_to_delete_it(tmp_path, caplog):
    store = Store(tmp_path)
    store[whole(0).spec] = whole(0)
    (tmp_path / "reports").mkdir()
    contents = {"clusters": {"schema": 1, "groupings": []}, "results": [{"name": "by-task"}]}
    for name, content in contents.items():
        (tmp_path / "reports" / f"{name}.json").write_text(json.dumps(content))
    os.mkfifo(tmp_path / "reports" / "pipe.json")
    assert len(reporting.read(store).runs) == 1
    for name in (*contents, "pipe"):
        assert f"reports/{name}.json" in caplog.text
    assert "delete" not in caplog.text
