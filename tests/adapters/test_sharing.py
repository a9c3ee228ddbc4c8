"""Prompts that share a prefix give the states they have alone, in any layer, order and budget."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from adapters import _batching, _sharing
from adapters._batching import Prompt, Row
from adapters.inbedder.encoder import InBedder
from bench.embeddings import cached
from bench.encoder import Item, gather
from bench.vectors import Vectors
from tests.adapters.checks import CPU

CLOSE = {"atol": 1e-4, "rtol": 0}  # promised in float32; the numbers here are at most about 3

TEXTS = ["", " ", "\n\n", " rain", "rain \n", "🙂🙃", "👩\u200d👧 é", "### Instruction:\n"]
TEXTS += ["word " * 60, "The cat sat. " * 30]
QUESTIONS = ["", " Who?", "Who?", "\nWho?", "What is it?", "What is it about?"]
texts = st.one_of(st.text(max_size=60), st.sampled_from(TEXTS))
questions = st.lists(
    st.one_of(st.sampled_from(QUESTIONS), st.text(max_size=20)), min_size=1, max_size=4, unique=True
)


@pytest.fixture(scope="module")
def encoders(tiny):
    return {kind: InBedder(str(tiny(kind)), **CPU) for kind in ("llama", "opt")}


def cross(texts, questions):
    return [Item(text, question) for text in texts for question in questions]


def count_tokens(encoder, items):
    return sum(int(batch.tokens.sum()) for batch in encoder.stream(items))


@pytest.mark.parametrize("kind", ["llama", "opt"])
@given(
    asked=st.lists(st.tuples(texts, questions), min_size=1, max_size=4),
    layer=st.integers(-1, 3),
    budget=st.sampled_from([None, 40, 200, 5000]),
    seed=st.integers(0, 99),
)
@settings(max_examples=8)
def test_a_text_asked_many_things_gives_what_each_prompt_gives_alone(
    encoders, kind, asked, layer, budget, seed
):
    encoder = replace(encoders[kind], layer=layer, budget=budget)
    items = [item for text, several in asked for item in cross([text], several)]
    random.Random(seed).shuffle(items)
    alone = [encoder.encode([item.text], instruction=item.instruction)[0] for item in items]
    np.testing.assert_allclose(gather(encoder.stream(items), len(items)), alone, **CLOSE)


@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_what_prompts_have_in_common_is_computed_and_counted_once(encoders, kind):
    encoder = encoders[kind]
    items = cross(("The cat sat.", "rain"), ("Who sat?", "What is it?", "Where?"))
    prepared = [prompt.ids for prompt in encoder._prepare(encoder._network())(items)]
    (batch,) = encoder.stream(items)  # both rows fit into one batch, and are alike enough
    common = [_sharing.common_prefix(prepared[i : i + 3]) for i in (0, 3)]
    whole = [sum(map(len, prepared[i : i + 3])) for i in (0, 3)]
    widths = [w - 2 * c for w, c in zip(whole, common, strict=True)]
    assert batch.tokens.sum() == sum(widths) < 0.6 * sum(whole)
    assert batch.padded == 2 * max(widths)
    own = np.array([len(ids) for ids in prepared]) - np.repeat(common, 3)
    extra = np.zeros(6, int)
    extra[batch.positions] = batch.tokens - own[batch.positions]
    assert [sorted(extra[:3]), sorted(extra[3:])] == [[0, 0, n] for n in common]


def test_texts_cut_at_different_places_share_nothing_and_those_cut_alike_share_all(encoders):
    text = " ".join(f"{i} cats" for i in range(90))
    for other, shares in (("What is it about, please?", False), ("Why?", True)):
        batches = list(encoders["llama"].stream(cross([text], ["Who?", other])))
        assert all(batch.truncated.all() for batch in batches)
        assert (sum(int(batch.tokens.sum()) for batch in batches) < 256) is shares


def test_a_plan_with_several_instructions_reaches_the_network_in_rows_that_are_shared(
    encoders, tmp_path
):
    items = cross(("The cat sat.", "rain", "no"), ("Who?", "Where?", "What is it about?"))
    encoder = cached(encoders["llama"], Vectors(tmp_path))
    encoder.add(encoder.missing(items[::3] + items[1::3] + items[2::3]))
    assert encoder.cost.forward_texts == 9
    alone = sum(count_tokens(encoders["llama"], [item]) for item in items)
    assert encoder.cost.tokens == count_tokens(encoders["llama"], items) < 0.6 * alone


prompt_ids = st.lists(st.integers(0, 3), min_size=1, max_size=12)
groups = st.lists(st.lists(prompt_ids, min_size=1, max_size=5), min_size=1, max_size=5)


def rows_of(groups):
    """Return a row per group, whatever it has in common, with items numbered through."""
    rows, n = [], 0
    for group in groups:
        prefix = _sharing.common_prefix(group) if len(group) > 1 else 0
        rows.append(Row(range(n, n + len(group)), [Prompt(ids) for ids in group], prefix))
        n += len(group)
    return rows


@given(groups, st.integers(8, 60), st.integers(12, 60))
@settings(max_examples=25)
def test_every_prompt_is_read_at_its_end_though_memory_runs_out(encoders, groups, budget, memory):
    flat = [ids for group in groups for ids in group]
    network = encoders["llama"]._network()

    def forward(ids, segments):
        if ids.numel() > memory:
            raise torch.OutOfMemoryError("CUDA out of memory")
        counted = torch.stack([ids, _sharing.position_ids(segments)], dim=-1)
        return _sharing.last_of_segments(counted, segments)

    def join(positions, prompts):
        where = dict(zip(positions, prompts, strict=True))
        return [replace(row, prompts=[where[i] for i in row.positions]) for row in rows_of(groups)]

    def prepare(items):
        return [Prompt(flat[int(item.text)]) for item in items]

    items = [Item(str(i)) for i in range(len(flat))]
    stream = _batching.stream(items, prepare, forward, network, budget=budget, join=join)
    assert gather(stream, len(flat)).tolist() == [[ids[-1], len(ids) - 1] for ids in flat]


HEADS = {"num_hidden_layers": 2, "num_attention_heads": 4}
UNABLE = {
    "bloom": {"n_layer": 2, "n_head": 4},
    "falcon": HEADS | {"alibi": True},
    "lfm2": HEADS
    | {"num_key_value_heads": 2, "intermediate_size": 64}
    | {"layer_types": ["conv", "full_attention"]},
}
"""Positions by the place in the row, not by their ids; and states that pass any mask."""


@pytest.mark.parametrize("kind", UNABLE)
def test_a_network_that_cannot_share_is_found_out(networks, kind):
    network, size = networks("llama"), {"vocab_size": 64, "hidden_size": 32}
    assert _sharing.shareable(network, 999)
    assert not _sharing.shareable(networks("llama", attention="bidirectional"), 999)
    config = AutoConfig.for_model(kind, **size, initializer_range=0.5, **UNABLE[kind])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
    assert not _sharing.shareable(replace(network, model=model), 999)


WINDOWS = {"mistral": {"sliding_window": 40}, "gpt_neo": {"window_size": 40}}


@pytest.mark.parametrize("kind", WINDOWS)
def test_prompts_share_no_row_that_is_longer_than_a_window(tiny, kind):
    encoder = InBedder(str(tiny(kind, **WINDOWS[kind])), max_length=100, **CPU)
    items = cross(["The cat sat. " * 9, "rain"], ["Who?", "What is it?", "What is it about?"])
    alone = [encoder.encode([item.text], instruction=item.instruction)[0] for item in items]
    np.testing.assert_allclose(gather(encoder.stream(items), len(items)), alone, **CLOSE)
    prompts = encoder._prepare(encoder._network())(items)
    assert (
        encoder.count_tokens(items)
        == count_tokens(encoder, items)
        == sum(len(prompt.ids) for prompt in prompts)
    )


@pytest.mark.parametrize("kind", WINDOWS)
def test_generated_states_do_not_depend_on_padding_beyond_a_window(tiny, kind):
    encoder = InBedder(str(tiny(kind, **WINDOWS[kind])), readout="avg-all", **CPU)
    texts = ["The cat sat. " * 9, "rain", "The cat sat. " * 4]
    alone = [encoder.encode([text])[0] for text in texts]
    np.testing.assert_allclose(encoder.encode(texts), alone, **CLOSE)


def test_exact_embeddings_have_the_same_bits_whatever_was_asked_before(encoders, tmp_path):
    texts = ["The cat sat.", "rain", "no", "The cat sat on a long red mat, and it rained."]
    fresh, used = (
        cached(encoders["llama"], Vectors(tmp_path / name), exact=True) for name in ("a", "b")
    )
    used.encode(texts[2:], instruction="Who?")
    used.add(cross(texts[:1], ("Where?", "Why?")))
    for question in ("Who?", "Where?"):
        both = [encoder.encode(texts, instruction=question) for encoder in (fresh, used)]
        assert both[0].tobytes() == both[1].tobytes()
