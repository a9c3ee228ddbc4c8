"""Random numbers, and sampling against the probabilities; the loop is in the methods' tests."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from adapters._generate import draw_uniform, sample_tokens


def test_random_numbers_depend_on_their_seed_alone():
    both = draw_uniform([3, [4, 5]], 7, samples=2)
    assert torch.equal(both[2:], draw_uniform([[4, 5]], 7, samples=2))
    expected = np.random.default_rng(3).random((2, 7), dtype=np.float32)
    np.testing.assert_array_equal(both[:2], expected)


@given(
    arrays(np.float64, (1, 9), elements=st.floats(-5, 5)),
    st.integers(0, 9),
    st.floats(0.05, 1),
    st.floats(0, 0.999),
)
def test_only_the_likeliest_tokens_that_both_limits_leave_are_sampled(scores, top_k, top_p, u):
    uniform = torch.tensor([u])
    token = int(sample_tokens(torch.from_numpy(scores), uniform, top_k=top_k, top_p=top_p)[0])
    order = np.argsort(-scores[0], kind="stable")[: top_k or 9]
    p = np.exp(scores[0][order]) / np.exp(scores[0][order]).sum()
    enough = int(np.searchsorted(p.cumsum(), top_p - 1e-6)) + 1
    least = scores[0][order[min(enough, len(order)) - 1]]
    assert scores[0][token] >= least - 1e-12  # scores this close have one probability


@pytest.mark.parametrize("size", [4, 1000])
@pytest.mark.parametrize(("top_k", "top_p"), [(3, 0.9), (0, 0.85), (0, 0.9999), (3, 1.0)])
def test_tokens_are_sampled_as_often_as_their_probability_says(size, top_k, top_p):
    p = np.full(size, 1e-3 / size)
    p[:4] = (0.5, 0.25, 0.15, 0.1)
    p /= p.sum()
    kept = np.where(np.arange(size) < (top_k or size), p, 0)
    kept /= kept.sum()
    kept = np.where(kept.cumsum() - kept < top_p, kept, 0)
    logits = torch.from_numpy(p).log().expand(10_000, -1)
    uniform = (torch.arange(10_000) + 0.5) / 10_000
    counts = sample_tokens(logits, uniform, top_k=top_k, top_p=top_p).bincount(minlength=size)
    np.testing.assert_allclose(counts / 10_000, kept / kept.sum(), atol=1e-3)
