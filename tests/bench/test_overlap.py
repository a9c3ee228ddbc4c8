"""Runs of words that test texts share with training data."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import CheckpointError
from bench.overlap import RUN, Runs, runs

TRAINED = "the quick brown fox jumps over the lazy dog near the river bank"


def test_a_text_that_repeats_eight_words_is_touched_whatever_its_case_and_punctuation():
    found = Runs.of([TRAINED]).touch(
        [
            "So: The QUICK brown fox jumps, over the lazy cat!",
            "the quick brown fox jumps over a lazy dog",
        ]
    )
    assert found.tolist() == [True, False]


def test_a_text_of_fewer_words_is_touched_only_by_the_whole_of_itself():
    assert Runs.of(["what is that", TRAINED]).touch(
        ["What is that?", "what is", "the quick brown"]
    ).tolist() == [True, False, False]


def test_an_empty_text_is_never_touched():
    assert Runs.of(["", "..."]).touch(["", "..."]).tolist() == [False, False]
    assert len(Runs.of([]).hashes) == 0


@given(st.lists(st.sampled_from("abcdefghij"), max_size=30))
def test_every_window_of_a_trained_text_is_touched(letters):
    text = " ".join(letters)
    trained = Runs.of([text])
    for i in range(max(len(letters) - RUN + 1, 0)):
        assert trained.touch([" ".join(letters[i : i + RUN])]).all()
    assert len(runs(text)) == (max(len(letters) - RUN, 0) + 1 if letters else 0)


def test_a_large_body_of_text_does_not_touch_texts_it_shares_nothing_with():
    rng = np.random.default_rng(0)
    trained = Runs.of([" ".join(f"w{i}" for i in rng.integers(20_000, size=2_000_000))])
    texts = [" ".join(f"v{i}" for i in rng.integers(20_000, size=230)) for _ in range(200)]
    assert not trained.touch(texts).any()  # at 32 bits every tenth would be, by chance


def test_runs_survive_a_file(tmp_path):
    made = Runs.of([TRAINED, "another text of a few words only"])
    made.write(tmp_path / "runs.u64")
    assert np.array_equal(Runs.read(tmp_path / "runs.u64").hashes, made.hashes)
    assert (tmp_path / "runs.u64").stat().st_size == 8 * len(made.hashes)


@pytest.mark.parametrize(
    "data", [b"abc", np.array([3, 2], "<u8").tobytes(), np.array([2, 2], "<u8").tobytes()]
)
def test_a_file_of_something_else_is_refused(tmp_path, data):
    (tmp_path / "runs.u64").write_bytes(data)
    with pytest.raises(CheckpointError):
        Runs.read(tmp_path / "runs.u64")
