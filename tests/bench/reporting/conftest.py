"""A folder of results made up for a test."""

import pytest

from bench.store import Store
from tests.bench.reporting.made import usual_results


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
    return store(*usual_results())
