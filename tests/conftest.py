"""What every test needs: no surprises from the network, archives kept between runs."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before any library reads it
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")


@pytest.fixture
def shared_data(monkeypatch) -> Path:
    """The folder of larger data sets that BENCH_DATA names; tests that need it are skipped without."""
    folder = os.environ.get("BENCH_DATA")
    if not folder:
        pytest.skip("needs BENCH_DATA, a folder of data sets in the layout <org>/<name>[/<config>]/<split>.jsonl.gz")
    return Path(folder)
