"""``bench train --track``: trackio and wandb, where they are installed."""

import json
import sqlite3

import pytest

from tests.bench.commands import run_python
from tests.bench.recipes import NOTING

MAIN = "from bench.__main__ import main; main()"


def test_trackio_and_wandb_get_the_numbers_of_each_step_and_print_no_result(tmp_path, monkeypatch):
    """In programs of their own: both also print and write when one ends."""
    for name in ("trackio", "wandb", "accelerate"):
        pytest.importorskip(name, reason=f"pip install {name}")
    monkeypatch.chdir(tmp_path)
    env = {"TRACKIO_DIR": "trackio", "WANDB_DIR": ".", "WANDB_MODE": "offline"}
    for tracker in ("trackio", "wandb"):
        out = f"with-{tracker}"
        words = ("train", NOTING, "--out", out, "--track", tracker)
        assert run_python(MAIN, *words, **env) == f"{out}\n"
    with sqlite3.connect(tmp_path / "trackio" / "encoder-recipes-bench.db") as database:
        rows = database.execute("select metrics from metrics order by step").fetchall()
    losses = [round(json.loads(row)["noting/loss"], 3) for (row,) in rows]
    assert losses == [1.0, 0.5, 0.333]
    (written,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert written.read_bytes().count(b"noting/loss") >= 3
