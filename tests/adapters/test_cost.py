"""FLOPs of trainings: by hand for a tiny model, and of everything that ran in every card."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from adapters._backbone import Backbone
from adapters._trainable import unfreeze
from adapters._training.budget import TokenCounts
from adapters._training.card import sum_flops
from adapters._training.cost import count_flops, forward_flops, forward_flops_of
from adapters._training.weights import Lora, freeze_all_but
from bench.encoder import Card
from tests.adapters.checks import CPU

# of a layer of the tiny llama: q and o, k and v, gate, up and down
LAYER = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64


@pytest.fixture(scope="module")
def network(networks):
    return networks("llama")


def test_a_forward_pass_multiplies_each_token_with_each_weight_but_tables_and_head(network):
    assert forward_flops(network) == 2 * 3 * LAYER
    ids = torch.tensor([[3, 4, 5, 6]])
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.model.base_model(ids)
    attention = 3 * 4 * 2 * (4 * 4 * 8) * 2  # layers, heads, products of scores and of values
    counted = counter.get_total_flops()
    assert counted - 4 * forward_flops(network) in {0, attention}


def test_of_experts_those_count_that_a_token_is_sent_to(networks):
    attention, gate = 2 * 32 * 32 + 2 * 32 * 16, 4 * 32
    expert = 3 * 32 * 64
    assert forward_flops(networks("mixtral")) == 2 * 2 * (attention + gate + 2 * expert)


def test_of_an_encoder_decoder_both_halves_count_and_no_head(networks):
    attention, wide = 4 * 32 * 32, 2 * 32 * 64
    halves = 2 * (attention + wide) + 2 * (2 * attention + wide)
    assert forward_flops(networks("t5")) == 2 * halves


def test_weights_that_layers_share_count_in_each(networks):
    network = networks("albert")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.model.base_model(torch.tensor([[3, 4, 5, 6]]))
    assert counter.get_total_flops() / 4 == pytest.approx(forward_flops(network), rel=0.1)


@pytest.mark.parametrize(
    "kind",
    ["albert", "convbert", "gpt_neox", "llama", "mamba", "mixtral", "modernbert", "opt", "t5"],
)
def test_a_card_knows_the_flops_of_a_token_without_loading_the_network(kind, tiny):
    backbone = Backbone(str(tiny(kind)), **CPU)
    counted = forward_flops(backbone.load())
    assert counted <= forward_flops_of(backbone.card()) <= 1.07 * counted  # with biases and norms


def test_the_flops_of_an_encoder_whose_tables_are_not_known_are_not_known():
    assert forward_flops_of(Card(parameters=5, embedding_parameters=2)) == 6
    assert forward_flops_of(Card(parameters=5)) is None
    assert forward_flops_of(Card()) is None


def test_a_trained_token_takes_what_autograd_computes(network):
    whole = unfreeze(network)
    for trained in (whole, Lora(rank=2).attach(network, seed=1), last_layers(network, 2)):
        ids = torch.tensor([[3, 4, 5, 6]])
        with FlopCounterMode(display=False) as counter:
            trained.model.base_model(ids).last_hidden_state.sum().backward()
        estimated = count_flops(trained, TokenCounts(trained=4))
        # autograd needs no gradient of the input of the lowest trained layer
        assert estimated == pytest.approx(counter.get_total_flops(), rel=0.2)


def last_layers(network, count):
    copy = unfreeze(network)
    freeze_all_but(copy, count)
    return copy


def test_what_is_computed_twice_or_frozen_counts_and_fewer_trained_layers_take_less(network):
    lora = Lora(rank=2).attach(network, seed=1)
    forward = forward_flops(lora)
    plain = count_flops(lora, TokenCounts(10))
    assert count_flops(lora, TokenCounts(10, repeated=10)) == plain + 10 * forward
    more = TokenCounts(10, inference=6, differentiated=4)
    assert count_flops(lora, more) == plain + 10 * forward
    last = replace(Lora(rank=2), last_layers=1).attach(network, seed=1)
    assert count_flops(last, TokenCounts(10)) < 0.7 * plain


def test_the_sum_is_unknown_where_a_stage_is():
    assert sum_flops([{"flops": 1}, {"flops": 2}]) == 3
    assert sum_flops([{"flops": 1}, {"seconds": 2}]) is None
