"""How many directions embeddings use, and how alike memory vectors are."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
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
from tests.bench.encoders import Plain


@settings(max_examples=30)
@given(st.integers(1, 12), st.integers(0, 99))
def test_variance_spread_evenly_over_some_directions_is_that_many_dimensions_however_they_lie(
    d, seed
):
    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(16, 16)))[0][:d]
    embeddings = (np.vstack([basis, -basis]) + 3.0).astype(np.float32)
    assert effective_dimension(spectrum(embeddings)) == pytest.approx(d, rel=1e-4)  # of float32


def test_equal_embeddings_use_no_dimension_and_a_strong_direction_leaves_less_than_even_ones():
    assert effective_dimension(spectrum(np.full((5, 8), 0.1, np.float32))) == 0
    even = np.random.default_rng(0).normal(size=(400, 16)).astype(np.float32)
    uneven = even * np.array([30.0] + [1.0] * 15, np.float32)
    assert effective_dimension(spectrum(uneven)) < 2


def test_memory_vectors_that_say_the_same_have_correlation_one_and_others_numpy_s():
    rng = np.random.default_rng(0)
    scale = np.arange(1.0, 5.0)[:, None]
    same = np.repeat(rng.normal(size=(20, 1, 64)), 4, axis=1) * scale + 5.0
    assert mean_correlation(same) == pytest.approx(1)
    other = rng.normal(size=(200, 4, 64))
    expected = np.mean([np.corrcoef(text) for text in other], axis=0)
    np.testing.assert_allclose(memory_correlations(other), expected, atol=1e-12)
    assert mean_correlation(other) == pytest.approx((expected.sum() - 4) / 12)


@dataclass(frozen=True)
class Remembering(Plain):
    """Has a memory of so many equal parts."""

    k: int = 1

    def encode_memory(self, texts, *, instruction=""):
        return np.repeat(self.encode(texts)[:, None], self.k, axis=1)


@pytest.mark.parametrize("k", [1, 3])
def test_memory_is_measured_where_there_is_more_than_one_vector(k, write):
    rows = [{"sentence1": "a", "sentence2": "ccc"}, {"sentence1": "bb", "sentence2": "a"}]
    write("org/sts", "test", rows)
    found = Spectrum("toy", data="org/sts").evaluate(Remembering(8, k=k), seed=0)
    assert 1 <= found["effective_dimension"].mean <= 2  # three vectors around their mean
    shares = [found[f"share_{n}"].mean for n in DIRECTIONS]
    assert (shares, shares[-1]) == (sorted(shares), pytest.approx(1))  # of eight directions
    memory = [score.mean for name, score in found.items() if name == "memory_correlation"]
    assert memory == pytest.approx([1] * (k > 1))
    write("org/sts", "test", [{"sentence1": "a", "sentence2": "a"}])
    with pytest.raises(DataError):  # a single sentence has no spectrum
        Spectrum("toy", data="org/sts").evaluate(Remembering(8, k=k), seed=0)


def test_memory_is_read_under_the_instruction_of_the_embeddings(write):
    asked = []

    class Asked(Remembering):
        def encode_memory(self, texts, *, instruction=""):
            asked.append(instruction)
            return super().encode_memory(texts)

    write("org/sts", "test", [{"sentence1": "a", "sentence2": "ccc"}])
    Spectrum("toy", data="org/sts", instruction="What is it?").evaluate(Asked(8, k=2), seed=0)
    assert asked == ["What is it?"]
