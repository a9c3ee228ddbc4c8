"""Spans as answers: against brute force over all spans, and measured as SQuAD's evaluation does."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.spans import best_span, exact_match, extract_span, f1, normalize_words, token_f1


@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(1, 15))
def test_the_best_span_is_the_best_of_all_spans(seed, t, longest):
    rng = np.random.default_rng(seed)
    start, end = rng.random((2, t), np.float32)
    i, j, product = best_span(start, end, longest)
    every = {(a, b): start[a] * end[b] for a in range(t) for b in range(a, min(a + longest, t))}
    assert product == max(every.values()) == every[i, j]


@pytest.mark.parametrize(
    ("first", "last", "said"),
    [
        (1, 2, "abc def"), (2, 2, "def"), (0, 1, "abc"), (0, 2, "abc def"),
        (2, 3, "def"), (0, 3, "abc def"), (0, 0, ""), (3, 3, ""),
    ],
)  # fmt: skip
def test_special_tokens_in_a_span_add_no_words(first, last, said):
    spans = np.array([[0, 0], [0, 3], [3, 7], [0, 0]], np.int32)  # <s> abc def </s>
    both = np.zeros((2, 4), np.float32)
    both[0, first], both[1, last] = 0.5, 0.5
    found = extract_span("abc def", spans, both, 4)
    assert (found.text, found.probability) == (said, 0.25)
    assert "abc def"[found.start : found.end] == said


def test_answers_are_measured_as_in_squad():
    assert normalize_words("The Cat, sat!") == ["cat", "sat"]
    assert token_f1("the cat sat", "a cat") == pytest.approx(2 / 3)
    assert token_f1("the", "an") == 1.0
    asked = [
        ("Rome", ["rome.", "Italy"]),
        ("the violin", ["a big violin"]),
        ("x", ["y"]),
        ("x", []),
    ]
    assert [exact_match(*pair) for pair in asked] == [1.0, 0.0, 0.0, 0.0]
    assert [f1(*pair) for pair in asked] == pytest.approx([1, 2 / 3, 0, 0])
