"""A folder of results made up for a test."""

import pytest

from bench.store import Store
from tests.bench.reporting.made import result


@pytest.fixture
def store(tmp_path):
    def _store(*results):
        made = Store(tmp_path / "results")
        for r in results:
            made[r.spec] = r
        return made

    return _store


@pytest.fixture
def usual(store):
    return store(
        result("good", "t1", 0.8),
        result("good", "t2", 0.6, 0.7, family="ner"),
        result("good", "t3", 0.5, family="ner"),
        result("poor", "t1", 0.4, trained=False),
        result("poor", "t2", 0.2, 0.4, family="ner", trained=False),
        result("poor", "t3", 0.1, family="ner", trained=False),
        result("floor", "t1", 0.1),
    )
