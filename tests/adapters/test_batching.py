import logging

import numpy as np
import pytest
import torch

from adapters import _batching
from adapters._batching import Prompt
from bench import encoder
from bench.encoder import Item, gather
from bench.errors import EncodingError


@pytest.fixture(scope="module")
def network(networks):
    return networks("bert")


def prepare(items):
    """One token per character; the id says which."""
    return [
        Prompt([1 + ord(c) % 50 for c in item.text] or [0], len(item.text) > 30) for item in items
    ]


def summed(ids, mask):
    return torch.stack([(ids * mask).sum(1), mask.sum(1)], dim=1).float()


def test_a_batch_stays_within_the_budget_and_says_what_went_through_the_network(network):
    items = [Item("a" * n) for n in range(1, 41)]
    batches = list(_batching.stream(items, prepare, summed, network, budget=100))
    assert batches[0].positions[0] == 39  # the longest first
    for batch in batches:
        assert batch.padded <= 100
        assert batch.padded == len(batch.positions) * batch.tokens.max()
        assert batch.tokens.tolist() == (batch.positions + 1).tolist()
        assert batch.truncated.tolist() == (batch.positions >= 30).tolist()
        assert batch.vectors.dtype == np.float32


def test_more_texts_than_one_window_keep_their_places(network, monkeypatch):
    monkeypatch.setattr(encoder, "_CPU_WINDOW", 40)
    items = [Item("a" * (n % 13)) for n in range(100)]
    assert len(encoder.length_windows(items, "cpu")) > 10
    vectors = gather(_batching.stream(items, prepare, summed, network, budget=20), 100)
    assert vectors[:, 1].tolist() == [max(n % 13, 1) for n in range(100)]


def test_padding_is_at_most_three_percent_on_texts_of_realistic_lengths(network):
    lengths = np.random.default_rng(0).lognormal(3.2, 0.5, 3000).astype(int) + 3
    batches = list(_batching.stream([Item("a" * n) for n in lengths], prepare, summed, network))
    tokens = sum(int(batch.tokens.sum()) for batch in batches)
    assert sum(batch.padded for batch in batches) <= 1.03 * tokens


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: not enough memory"),
    ],
)
def test_the_budget_is_halved_until_batches_fit_into_memory(network, caplog, error):
    def forward(ids, mask):
        if ids.numel() > 60:
            raise error
        return summed(ids, mask)

    items = [Item("a" * 10)] * 50
    with caplog.at_level(logging.WARNING):
        vectors = gather(_batching.stream(items, prepare, forward, network, budget=400), 50)
    assert (vectors[:, 1] == 10).all()
    assert "out of memory" in caplog.text


def test_a_single_text_that_does_not_fit_is_an_error(network):
    def forward(ids, mask):
        raise torch.OutOfMemoryError("out of memory")

    def wrong(ids, mask):
        raise RuntimeError("shapes differ")

    with pytest.raises(EncodingError, match="10 tokens does not fit"):
        list(_batching.stream([Item("a" * 10)] * 4, prepare, forward, network))
    with pytest.raises(RuntimeError, match="shapes differ"):  # not taken for lack of memory
        list(_batching.stream([Item("a")], prepare, wrong, network))


def test_lone_surrogates_reach_the_tokenizer_as_replacement_characters(network):
    seen = []

    def watching(items):
        seen.extend(item.text for item in items)
        return prepare(items)

    list(_batching.stream([Item("a\ud800b\udfff")], watching, summed, network))
    assert seen == ["a\ufffdb\ufffd"]
