"""Data sets written in the layout, and a small real encoder."""

import gzip
import json

import pytest

from tests.bench.encoders import Words


@pytest.fixture
def encoder():
    return Words()


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Return a function that writes one split of a data set where the loader looks first."""
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))

    def _write(name, split, rows, *, names=None):
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        with gzip.open(folder / f"{split}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        if names:
            features = {column: {"names": values} for column, values in names.items()}
            (folder / "features.json").write_text(json.dumps(features))

    return _write
