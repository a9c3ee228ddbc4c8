"""Spans as answers: against brute force over all spans, and measured as SQuAD's evaluation does."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.spans import best_span, exact, f1, overlap, words


@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(1, 15))
def test_the_best_span_is_the_best_of_all_spans(seed, t, longest):
    rng = np.random.default_rng(seed)
    start, end = rng.random((2, t), np.float32)
    i, j, product = best_span(start, end, longest)
    every = {(a, b): start[a] * end[b] for a in range(t) for b in range(a, min(a + longest, t))}
    assert product == max(every.values()) == every[i, j]


def test_answers_are_measured_as_in_squad():
    assert words("The Cat, sat!") == ["cat", "sat"]
    assert overlap("the cat sat", "a cat") == pytest.approx(2 / 3)
    assert overlap("the", "an") == 1.0
    asked = [("Rome", ["rome.", "Italy"]), ("the violin", ["a big violin"]), ("x", ["y"]), ("x", [])]
    assert [exact(*pair) for pair in asked] == [1.0, 0.0, 0.0, 0.0]
    assert [f1(*pair) for pair in asked] == pytest.approx([1, 2 / 3, 0, 0])
