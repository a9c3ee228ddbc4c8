"""From last token states to logits, on random models of classes that scale or cap theirs."""

import gc
import weakref
from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from adapters._head import head_of
from bench.errors import UsageError
from tests.tiny import SENTENCES

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
SIZES |= {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2}
SCALED = {
    "gemma2": {"head_dim": 8, "final_logit_softcapping": 2.0},
    "granite": {"logits_scaling": 4.0},
    "cohere": {"logit_scale": 0.25},
    "hyperclovax": {"logits_scaling": 4.0},
    "llama": {},
}


def random_network(network, kind):
    """Return a network with a random model of another kind in it."""
    size = {"vocab_size": len(network.tokenizer), "pad_token_id": 0}
    config = AutoConfig.for_model(kind, **size, **SIZES, **SCALED[kind])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
    return replace(network, model=model.eval().requires_grad_(False))


@pytest.mark.parametrize("kind", ["gemma2", "granite", "cohere", "llama"])
def test_logits_are_those_of_the_model_s_own_class(networks, kind):
    other = random_network(networks("llama"), kind)
    ids = torch.tensor([other.tokenizer(SENTENCES[0])["input_ids"]])
    own = other.model(ids, use_cache=False).logits[0]
    states = other.model.base_model(ids, use_cache=False).last_hidden_state[0]
    torch.testing.assert_close(head_of(other)(states), own, atol=1e-5, rtol=1e-5)
    tokens = torch.tensor([5, 3])
    torch.testing.assert_close(head_of(other)(states, tokens), own[:, tokens], atol=1e-5, rtol=1e-5)
    plain = other.model.get_output_embeddings()(states)
    assert ((plain - own).abs().max() > 0.1) == (kind != "llama")


def test_other_heads_and_models_without_a_decoder_are_refused(networks):
    with pytest.raises(UsageError, match="own class"):
        head_of(random_network(networks("llama"), "hyperclovax"))
    with pytest.raises(UsageError, match="RobertaForMaskedLM"):
        head_of(networks("roberta"))


def test_a_head_leaves_its_network_as_it_was_and_does_not_keep_it_in_memory(networks):
    other = random_network(networks("llama"), "llama")
    other.model.train()
    head_of(other)
    assert other.model.training
    left = weakref.ref(other)
    del other
    gc.collect()
    assert left() is None
