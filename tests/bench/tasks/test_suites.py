"""The suites on real data: nothing is missing, and settings are chosen on other texts."""

import os
from functools import cache
from pathlib import Path

import pytest

from bench.data import record_sources
from bench.data.catalog import CATALOG
from bench.embeddings import cached
from bench.store import Store
from bench.tasks import load_suite
from tests.bench.encoders import Words

pytestmark = [
    pytest.mark.skipif(not os.environ.get("BENCH_DATA"), reason="needs real data in BENCH_DATA"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*superseded.*"),
]


class Remembering(Words):
    """Has texts remembered, as an encoder does whose training texts are known."""

    def runs(self):
        return None


@cache
def evaluate(suite):
    """Return the texts that the tasks have encoded, in letters and digits, and what was read."""
    texts = set()
    with record_sources() as sources:
        for task in load_suite(suite):
            encoder = cached(Remembering())
            assert isinstance(encoder.inner, task.needs)
            assert task.metric in task.evaluate(encoder, seed=42)
            texts |= encoder.tally.texts
    return {"".join(filter(str.isalnum, text.lower())) for text in texts}, sources


@pytest.mark.parametrize("suite", ["quick", "standard"])
def test_no_reported_text_is_one_that_settings_are_chosen_on(suite):
    chosen_on, reported = evaluate("development")[0], evaluate(suite)[0]
    assert min(len(chosen_on), len(reported)) > 500
    assert sorted(chosen_on & reported) == []


def test_everybody_with_a_network_gets_the_data_of_the_standard_suite():
    for source in evaluate("standard")[1]:
        known = CATALOG.get((source["id"], source["config"]))
        assert source["id"].startswith("mteb/") or known.hub or known.archive


def test_the_shipped_trials_are_of_the_tasks_of_today():
    results = Store(Path(__file__).parents[3] / "results" / "tried.zip").results()
    theirs = {(result.spec.task, result.spec.task_version) for result in results}
    assert theirs == {(task.name, task.version) for task in load_suite("development")}
