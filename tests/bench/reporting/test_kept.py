"""A kept folder of results: it stays readable, and its numbers and tables stay the same.

Made by real runs of 40 test examples a task (150 of faq-awareness), of which the results of dino,
hashing and backbone-mean were kept without the folders in their commands::

    bench run -m hashing,backbone-mean,dino --limit 40 --dtype float32 --device cpu --keep-going \
        -t stsb,stsb-paraphrase,movie-reviews,movie-reviews-question,tweet-ner \
        -t faq-clustering,stsb-spectrum

A change of the tables that is meant is written down by ``python -m
tests.bench.reporting.test_kept``; look at its difference.
"""

import io
from pathlib import Path

import pandas as pd
import pytest

import bench
from bench import reporting
from bench.reporting import formats
from bench.reporting.tables import tables
from bench.store import Store

KEPT = Path(__file__).parents[2] / "golden" / "kept"


def make_tables():
    """Return every table and all results of the folder as CSV, by name."""
    compared = reporting.read(Store(KEPT / "results"))
    made = {table.name: formats.csv(table) for table in tables(compared)}
    return {**made, "results": formats.csv_of(bench.results(KEPT / "results"))}


@pytest.fixture(scope="module")
def made():
    return make_tables()


@pytest.mark.parametrize("path", sorted(KEPT.glob("*.csv")), ids=lambda path: path.stem)
def test_a_table_of_the_kept_results_is_the_kept_one(path, made):
    """Tables and columns may be added."""
    kept, found = pd.read_csv(path), pd.read_csv(io.StringIO(made[path.stem]))
    pd.testing.assert_frame_equal(found[list(kept)], kept, rtol=1e-6)


if __name__ == "__main__":
    for name, text in make_tables().items():
        (KEPT / f"{name}.csv").write_text(text)
