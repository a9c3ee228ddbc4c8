"""The Python front door: its examples run, and it does what the command line does."""

import doctest
import json
from pathlib import Path

import bench
from bench.tasks import load_task

TRAINED = Path(__file__).parents[1] / "golden" / "kept" / "results"  # with a trained encoder


def test_the_examples_of_every_function_run(tmp_path):
    globs = {"folder": str(tmp_path), "trained": TRAINED}
    order = ("load_encoder", "load_task", "run", "results", "report", "study")  # in this order
    assert set(order) == set(bench.__all__)
    for name in order:
        tests = doctest.DocTestFinder(recurse=False).find(getattr(bench, name), name)
        for test in tests:
            test.globs |= vars(bench) | globs
            outcome = doctest.DocTestRunner().run(test)
            assert outcome.attempted > 0
            assert outcome.failed == 0


def test_encoders_and_tasks_may_be_given_as_objects(tmp_path):
    encoder, task = bench.load_encoder("hashing", dim=32), load_task("stsb-paraphrase", limit=50)
    cells = bench.run({"small": encoder}, task, results=tmp_path)
    assert cells[["encoder", "limit", "status"]].values.tolist() == [["small", 50, "done"]]
    frame = bench.results(tmp_path)
    main = frame[frame.main].iloc[0]
    assert main.score == cells.score[0]
    assert main.low < main.score < main.high
    kept = next(tmp_path.glob("small/*.json"))
    assert json.loads(kept.read_text())["spec"]["settings"]["dim"] == 32
