"""The decoding loop against each prompt alone, and sampling against the probabilities."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from adapters._batching import pad_batch
from adapters._generate import (
    choose_likeliest,
    decode,
    draw_uniform,
    prefill,
    prefill_shared,
    sample_tokens,
    sampler,
)
from tests.tiny import SENTENCES

STEPS = 10
CLOSE = {"atol": 1e-5, "rtol": 1e-5}  # float32 sums in another order
NONE = torch.tensor([], dtype=torch.long)


@pytest.fixture(scope="module", params=["llama", "opt"])
def network(request, networks):
    return networks(request.param)


@pytest.fixture
def prompts(network):
    return network.tokenizer(SENTENCES[:5])["input_ids"]


def alone(network, ids, layer=-1):
    """Return the likeliest continuation and its states, without cache, padding and company."""
    ids = torch.tensor([ids])
    with torch.inference_mode():
        for _ in range(STEPS):
            ids = torch.cat([ids, network.model(ids).logits[:, -1:].argmax(-1)], dim=1)
        return ids[0, -STEPS:], network.hidden_states(ids, torch.ones_like(ids), layer)[0]


@pytest.mark.parametrize("layer", [-1, 1])
def test_tokens_and_states_are_those_of_each_prompt_alone(network, prompts, layer):
    prefix = prefill(network, *pad_batch(prompts, network), STEPS, layer=layer)
    made = decode(network, prefix, choose_likeliest, STEPS, ends=NONE, layer=layer)
    for row, ids in enumerate(prompts):
        tokens, states = alone(network, ids, layer)
        assert made.tokens[row].tolist() == tokens.tolist()
        torch.testing.assert_close(prefix.states[row, : len(ids)], states[: len(ids)], **CLOSE)
        torch.testing.assert_close(made.states[row], states[len(ids) : -1], **CLOSE)
    assert made.computed == sum(map(len, prompts)) + (STEPS - 1) * len(prompts)


def test_prompts_that_begin_alike_are_continued_as_each_alone(network, prompts):
    groups = [[prompts[0] + prompts[k] for k in (1, 2, 3)], [prompts[4]]]
    rows = torch.tensor([3, 0, 0, 2])
    prefix = prefill_shared(network, groups, rows, STEPS)
    made = decode(network, prefix, choose_likeliest, STEPS, ends=NONE)
    every = [*groups[0], *groups[1]]
    assert made.tokens.tolist() == [alone(network, every[row])[0].tolist() for row in rows]
    shared = [len(set(ids)) == 1 for ids in zip(*groups[0], strict=False)]
    common = shared.index(False)
    assert common >= len(prompts[0])
    assert prefix.computed == sum(map(len, every)) - 2 * common


def test_rows_that_end_leave_the_batch_and_the_others_go_on(network, prompts):
    samples = 8
    uniform = draw_uniform(range(len(prompts)), STEPS, samples=samples)
    ends = torch.arange(network.model.config.vocab_size // 4)

    def continued(ends):
        prefix = prefill(network, *pad_batch(prompts, network), STEPS, samples=samples)
        return decode(network, prefix, sampler(uniform), STEPS, ends=ends)

    endless, made = continued(NONE).tokens, continued(ends)
    ended = torch.isin(endless, ends)
    after = ended.cumsum(1) - ended.long() > 0
    width = made.tokens.shape[1]
    assert len(set(ended.long().argmax(1).tolist())) > 3
    assert torch.equal(made.tokens, torch.where(after, -1, endless)[:, :width])
    fed = ((~after & ~ended)[:, : STEPS - 1]).sum()
    assert made.computed == sum(map(len, prompts)) + int(fed)


def test_a_first_token_that_ends_a_row_has_a_state_where_states_are_read(network, prompts):
    everything = torch.arange(network.model.config.vocab_size)
    prefix = prefill(network, *pad_batch(prompts, network), STEPS, layer=-1)
    made = decode(network, prefix, choose_likeliest, STEPS, ends=everything, layer=-1)
    assert made.states.shape[:2] == (len(prompts), 1)
    assert made.tokens[:, 1].tolist() == [-1] * len(prompts)
    prefix = prefill(network, *pad_batch(prompts, network), 1)
    single = decode(network, prefix, choose_likeliest, 1, ends=everything)
    assert single.tokens.tolist() == made.tokens[:, :1].tolist()


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
