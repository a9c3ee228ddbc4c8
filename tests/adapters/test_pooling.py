import pytest
import torch

from adapters import _pooling

STATES = torch.tensor(
    [[[1.0, 2.0], [3.0, 6.0], [99.0, 99.0]], [[4.0, 4.0], [1.0, 1.0], [1.0, 7.0]]]
)
MASK = torch.tensor([[1, 1, 0], [1, 1, 1]])


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        (_pooling.mean, [[2.0, 4.0], [2.0, 4.0]]),
        (
            _pooling.weighted_mean,
            [[(1 + 6) / 3, (2 + 12) / 3], [(4 + 2 + 3) / 6, (4 + 2 + 21) / 6]],
        ),
        (_pooling.last, [[3.0, 6.0], [1.0, 7.0]]),
        (_pooling.first, [[1.0, 2.0], [4.0, 4.0]]),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_pooling_reads_real_positions_only_and_gives_float32(pool, expected, dtype):
    got = pool(STATES.to(dtype), MASK)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, torch.tensor(expected))


def test_last_k_is_the_mean_of_the_last_real_positions():
    torch.testing.assert_close(
        _pooling.last_k(STATES, MASK, 2), torch.tensor([[2.0, 4.0], [1.0, 4.0]])
    )
