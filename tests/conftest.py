"""What every test needs: no surprises from the network, archives kept between runs."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# No time limit an example, since others may share the machine; and the same examples on every run: a failure is no matter of luck.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before any library reads it
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")


@pytest.fixture
def shared_data(monkeypatch) -> Path:
    """The folder of larger data sets that BENCH_DATA names; tests that need it are skipped without."""
    folder = os.environ.get("BENCH_DATA")
    if not folder:
        pytest.skip("needs BENCH_DATA, a folder of data sets in the layout <org>/<name>[/<config>]/<split>.jsonl.gz")
    return Path(folder)
