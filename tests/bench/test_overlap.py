"""Runs of words that test texts share with training data."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import CheckpointError
from bench.overlap import NGRAM, Ngrams, hash_ngrams

TRAINED = "the quick brown fox jumps over the lazy dog near the river bank"


def test_a_text_that_repeats_eight_words_or_is_short_and_repeated_whole_is_an_overlap():
    found = Ngrams.of(["what is that", TRAINED]).find_overlaps([
        "So: The QUICK brown fox jumps, over the lazy cat!",
        "the quick brown fox jumps over a lazy dog",
        "What is that?",
        "what is",
        "the quick brown",
    ])  # fmt: skip
    assert found.tolist() == [True, False, True, False, False]
    assert Ngrams.of(["", "..."]).find_overlaps(["", "..."]).tolist() == [False, False]
    assert len(Ngrams.of([]).hashes) == 0


def test_letters_of_scripts_without_spaces_are_words():
    trained = ["今天的天气非常好。我们一起去公园散步。", "ประเทศไทยมีประชากรมาก"]
    texts = ["一起去公园散步。", "们一起去公园散步", "天气。非常好我们一起", "ประเทศไทยมีประชา"]
    found = Ngrams.of(trained).find_overlaps(texts)
    assert found.tolist() == [False, True, True, True]  # the first has seven


@given(st.lists(st.sampled_from("abcdefghij"), max_size=30))
def test_every_window_of_a_trained_text_is_touched(letters):
    text = " ".join(letters)
    trained = Ngrams.of([text])
    for i in range(max(len(letters) - NGRAM + 1, 0)):
        assert trained.find_overlaps([" ".join(letters[i : i + NGRAM])]).all()
    assert len(hash_ngrams(text)) == (max(len(letters) - NGRAM, 0) + 1 if letters else 0)


def test_a_large_body_of_text_does_not_touch_texts_it_shares_nothing_with():
    rng = np.random.default_rng(0)
    trained = Ngrams.of([" ".join(f"w{i}" for i in rng.integers(20_000, size=400_000))])
    texts = np.array_split([f"v{i}" for i in rng.integers(20_000, size=46_000)], 200)
    # At 32 bits four of them would be, by chance.
    assert not trained.find_overlaps(map(" ".join, texts)).any()


def test_runs_survive_a_file(tmp_path):
    made = Ngrams.of([TRAINED, "another text of a few words only"])
    made.write(tmp_path / "runs.u64")
    assert np.array_equal(Ngrams.read(tmp_path / "runs.u64").hashes, made.hashes)
    assert (tmp_path / "runs.u64").stat().st_size == 8 * len(made.hashes)


@pytest.mark.parametrize(
    "data", [b"abc", np.array([3, 2], "<u8").tobytes(), np.array([2, 2], "<u8").tobytes()]
)
def test_a_file_of_something_else_is_refused(tmp_path, data):
    (tmp_path / "runs.u64").write_bytes(data)
    with pytest.raises(CheckpointError):
        Ngrams.read(tmp_path / "runs.u64")
