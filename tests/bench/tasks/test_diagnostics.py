"""How many directions embeddings use, and how alike memory vectors are."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import DataError
from bench.tasks.diagnostics import (
    DIRECTIONS,
    Spectrum,
    effective_dimension,
    mean_correlation,
    memory_correlations,
    spectrum,
)


@given(st.integers(1, 12), st.integers(0, 99))
def test_variance_spread_evenly_over_some_directions_is_that_many_dimensions_however_they_lie(
    d, seed
):
    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(16, 16)))[0][:d]
    embeddings = (np.vstack([basis, -basis]) + 3.0).astype(np.float32)
    assert effective_dimension(spectrum(embeddings)) == pytest.approx(
        d, rel=1e-4
    )  # float32 embeddings


def test_embeddings_that_are_all_equal_use_no_dimension():
    assert effective_dimension(spectrum(np.full((5, 8), 0.1, np.float32))) == 0


def test_one_strong_direction_leaves_less_than_even_ones():
    rng = np.random.default_rng(0)
    even = rng.normal(size=(400, 16)).astype(np.float32)
    uneven = even * np.array([30.0] + [1.0] * 15, np.float32)
    assert effective_dimension(spectrum(uneven)) < 2
    assert effective_dimension(spectrum(even)) > 14


def test_memory_vectors_that_say_the_same_have_correlation_one_and_independent_ones_none():
    rng = np.random.default_rng(0)
    same = (
        np.repeat(rng.normal(size=(20, 1, 64)), 4, axis=1) * np.array([1.0, 2.0, 3.0, 4.0])[:, None]
        + 5.0
    )
    assert mean_correlation(same) == pytest.approx(1)
    other = rng.normal(size=(200, 4, 64))
    assert (
        abs(mean_correlation(other)) < 0.02
    )  # a correlation of 64 numbers has deviation 1/8, the mean of 1,200 of them 0.004
    expected = np.mean([np.corrcoef(text) for text in other], axis=0)
    np.testing.assert_allclose(memory_correlations(other), expected, atol=1e-12)


@dataclass(frozen=True)
class Remembering:
    """Random but fixed vectors, with a memory of so many equal parts."""

    k: int
    version: ClassVar[int] = 1
    follows_instructions: ClassVar[bool] = False

    def encode(self, texts, *, instruction=""):
        return np.stack([np.random.default_rng(len(t)).normal(size=8) for t in texts]).astype(
            np.float32
        )

    def encode_memory(self, texts, *, instruction=""):
        return np.repeat(self.encode(texts)[:, None], self.k, axis=1)


@pytest.mark.parametrize("k", [1, 3])
def test_memory_is_measured_where_there_is_more_than_one_vector(k, write):
    write(
        "org/sts",
        "test",
        [{"sentence1": "a", "sentence2": "ccc"}, {"sentence1": "bb", "sentence2": "a"}],
    )
    found = Spectrum("toy", data="org/sts").evaluate(Remembering(k), seed=0)
    assert 1 <= found["effective_dimension"].mean <= 2  # three vectors around their mean
    shares = [found[f"share_{n}"].mean for n in DIRECTIONS]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)  # of eight directions
    assert ("memory_correlation" in found) == (k > 1)
    assert k == 1 or found["memory_correlation"].mean == pytest.approx(1)


def test_a_single_sentence_has_no_spectrum(write, encoder):
    write("org/sts", "test", [{"sentence1": "a", "sentence2": "a"}])
    with pytest.raises(DataError):
        Spectrum("toy", data="org/sts").evaluate(encoder, seed=0)
