"""Crops on tiny models: pairs, what is trained, and the views of dropout."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from adapters._training.budget import TokenCounts
from adapters._training.contrast import info_nce
from adapters._training.texts import list_sentences
from adapters._training.weights import name_of_layers, trainable_weights
from adapters.crops.data import draw_crops, plan_pairs, usable_texts
from adapters.crops.encoder import Crops
from adapters.crops.objective import check_dropout, make_objective
from adapters.crops.train import Recipe
from bench.errors import DataError, UsageError
from tests.adapters.checks import CPU, check_objective, draw, train
from tests.tiny import SENTENCES

LIMITS = {"tokens": (3, 60), "sentences": 2}


@pytest.fixture(scope="module")
def base(networks):
    return networks("llama", head="none")


@pytest.mark.parametrize("overlap", [True, False])
def test_crops_are_successive_sentences_and_every_pair_of_them_is_drawn(overlap):
    group = ["a", "b", "c", "d", "e"]
    rng = np.random.default_rng(0)
    drawn = {draw_crops(group, sentences=2, overlap=overlap, rng=rng) for _ in range(300)}
    crops = ["a b", "b c", "c d", "d e"]
    expected = {(one, other) for one in crops for other in crops if one != other}
    if not overlap:
        expected = {pair for pair in expected if not set(pair[0].split()) & set(pair[1].split())}
    assert drawn == expected


def test_a_text_needs_enough_sentences_of_the_right_length(base):
    text = " ".join([*SENTENCES[:3], SENTENCES[0], "No!", "word " * 80])
    usable = usable_texts([text, SENTENCES[0]], base.tokenizer, **LIMITS, overlap=True)
    assert usable == [list_sentences(" ".join(SENTENCES[:3]))]
    with pytest.raises(DataError, match="4 sentences"):
        usable_texts([text], base.tokenizer, **LIMITS, overlap=False)


def test_a_file_with_a_text_a_line_and_no_blank_line_is_one_text_and_refused(tiny, tmp_path):
    (tmp_path / "lines.txt").write_text("\n".join(SENTENCES))
    sources = str(tmp_path / "lines.txt")
    with pytest.raises(DataError, match="a blank line is between two texts"):
        train(Recipe(str(tiny("llama")), sources, longest=60, **CPU), tmp_path / "out", 500)


@pytest.mark.parametrize("views", ["crops", "dropout"])
def test_an_epoch_has_one_pair_of_each_text_and_the_next_one_others(base, views):
    groups = [list(SENTENCES[i : i + 5]) for i in range(3)]
    options = {"sentences": 2, "overlap": True, "length": 60, "budget": 1500, "size": 2}
    plan, again, other = (
        plan_pairs(groups, base.tokenizer, views=views, **options, seed=seed) for seed in (1, 1, 2)
    )
    assert plan == again != other
    used = [i for batch in plan.batches for i in batch]
    assert len(used) == len(set(used)) > 6
    for batch in plan.batches:  # a text is no negative of itself
        assert len({i % len(groups) for i in batch}) == len(batch)
    spent = sum(len(ids) for i in used for ids in plan.rows[i])
    assert 1500 - 130 < spent <= 1500
    assert len(set(plan.pairs)) > len(groups)
    assert all((pair.first == pair.second) == (views == "dropout") for pair in plan.pairs)


def test_the_loss_is_info_nce_of_the_mean_states_of_each_crop_alone(base):
    network = Recipe(rank=2)._make_trainable(base, 1)
    weights = trainable_weights(network)
    for i, (name, weight) in enumerate(weights.items()):
        if "lora_B" in name:
            weight.data = 0.2 * draw(*weight.shape, seed=i)
    texts = zip(SENTENCES[:4], SENTENCES[4:], strict=True)
    rows = [tuple(base.tokenizer(text)["input_ids"] for text in pair) for pair in texts]
    vectors = [
        network.hidden_states(torch.tensor([ids]), torch.ones(1, len(ids)))[0].mean(0)
        for view in zip(*rows, strict=True)
        for ids in view
    ]
    expected = info_nce(torch.stack(vectors).view(2, 4, -1), 0.05)
    step = make_objective(network, rows, temperature=0.05, positions=0)
    tokens = TokenCounts(sum(len(ids) for row in rows for ids in row))
    check_objective(step, expected, list(weights.values()), tokens, count=4)


LAYERED = [(kind, lora) for kind in ("llama", "roberta", "t5") for lora in (True, False)]
LAYERED += [("bloom", False), ("gpt2", False)]


@pytest.mark.parametrize(("kind", "lora"), LAYERED)
def test_the_last_layers_alone_can_be_trained(networks, kind, lora):
    network, recipe = networks(kind, head="none"), Recipe(rank=2, lora=lora)
    every = trainable_weights(recipe._make_trainable(network, 1))
    last = trainable_weights(replace(recipe, last_layers=1)._make_trainable(network, 1))
    place = f"{name_of_layers(network.model)}.{network.layers - 1}."
    own = {name for name in every if name.startswith(place)}
    assert own
    assert own <= last.keys()
    after = last.keys() - own  # weight and bias of the last norm
    assert len(after) <= 2
    assert all("norm" in name or "ln_f" in name for name in after)
    with pytest.raises(UsageError, match=f"{network.layers} layers"):
        replace(recipe, last_layers=network.layers + 1)._make_trainable(network, 1)


@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_dropout_views_need_two_passes_that_differ(networks, kind):
    base = networks(kind, head="none")
    check_dropout(Recipe(dropout=0.1)._make_trainable(base, 1), [1, 2, 3])
    with pytest.raises(UsageError, match="they are equal"):
        check_dropout(Recipe()._make_trainable(base, 1), [1, 2, 3])


def test_vectors_have_length_1_and_a_backbone_counts_as_untrained(tiny):
    encoder = Crops(str(tiny("llama")), **CPU)
    assert not encoder.card().trained
    lengths = np.linalg.norm(encoder.encode(SENTENCES), axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-5)
