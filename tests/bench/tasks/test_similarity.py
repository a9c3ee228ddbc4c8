import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.encoder import TokenStates
from bench.tasks.similarity import bertscore, cosine, unit


def _states(lengths, seed):
    rng = np.random.default_rng(seed)
    return [
        TokenStates(rng.normal(size=(n, 5)).astype(np.float32), np.zeros((n, 2), np.int32))
        for n in lengths
    ]


def _one_by_one(a, b):
    cosines = unit(a.states.astype(np.float64)) @ unit(b.states.astype(np.float64)).T
    p, r = cosines.max(axis=1).mean(), cosines.max(axis=0).mean()
    return 2 * p * r / (p + r) if p > 0 and r > 0 else 0.0


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=150),
    st.integers(0, 99),
)
def test_bertscore_equals_the_formula_in_double_precision(lengths, seed):
    left, right = (
        _states([a for a, _ in lengths], seed),
        _states([b for _, b in lengths], seed + 100),
    )
    # Scores are rounded to 6 decimals; float32 products add about as much.
    assert bertscore(left, right) == pytest.approx(
        [_one_by_one(a, b) for a, b in zip(left, right, strict=True)], abs=5e-6
    )


def test_bertscore_of_a_text_with_itself_is_one_and_order_does_not_matter():
    left, right = _states([3, 7, 1], 0), _states([4, 2, 6], 1)
    assert bertscore(left, left) == pytest.approx([1.0] * 3)
    assert bertscore(left, right) == pytest.approx(bertscore(right, left))


def test_bertscore_is_zero_for_opposite_and_for_absent_tokens():
    states = _states([2], 0)[0].states
    empty = TokenStates(np.zeros((0, 5), np.float32), np.zeros((0, 2), np.int32))
    one = TokenStates(states[:1], np.zeros((1, 2), np.int32))
    opposite = TokenStates(-states[:1], np.zeros((1, 2), np.int32))
    assert bertscore([one, one], [opposite, empty]).tolist() == [0.0, 0.0]


def test_a_state_of_zeros_is_like_no_other_in_bertscore():
    states = _states([2], 0)[0].states
    spans = np.zeros((2, 2), np.int32)
    whole, half = (
        TokenStates(states, spans),
        TokenStates(np.stack([states[0], 0 * states[1]]), spans),
    )
    assert bertscore([whole, half], [half, half]) == pytest.approx(
        [_one_by_one(whole, half), 0.5], abs=5e-6
    )


def test_the_cosines_of_equal_vectors_tie_whatever_their_length():
    vectors = np.random.default_rng(0).normal(size=(50, 384)).astype(np.float32)
    assert set(cosine(vectors, 3 * vectors)) == {1.0}


def test_a_vector_of_zeros_has_no_direction_and_stays_zero():
    assert unit(np.array([[0.0, 0.0], [3.0, 4.0]])).tolist() == [[0.0, 0.0], [0.6, 0.8]]
