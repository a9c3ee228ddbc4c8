"""Crops on tiny models: pairs, the gradient of micro-batches, what is trained, and the recipe."""

import json
from dataclasses import replace

import numpy as np
import pytest

from adapters._backbone import Backbone
from adapters._training.contrast import info_nce
from adapters._training.texts import list_sentences
from adapters._training.weights import trainable_weights
from adapters.crops.data import draw_crops, plan_pairs, usable_texts
from adapters.crops.encoder import Crops
from adapters.crops.objective import check_dropout, make_objective
from adapters.crops.train import PAPER, Recipe
from bench.data import load
from bench.errors import DataError, UsageError
from bench.testing import run_checks
from tests.tiny import SENTENCES, tiny_folder

torch = pytest.importorskip("torch")

LIMITS = {"tokens": (3, 60), "sentences": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_folder("llama", tmp_path_factory.mktemp("crops") / "base")


@pytest.fixture(scope="module")
def base(folder):
    return Backbone(str(folder), dtype="float32", device="cpu").load()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    rng = np.random.default_rng(0)
    texts = [" ".join(SENTENCES[i] for i in rng.permutation(7)[:5]) for _ in range(12)]
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def tiny_recipe(folder, corpus, **settings):
    defaults = {"lr": 5e-3, "batch_size": 4, "rank": 2, "longest": 60, "dtype": "float32"}
    paths = {"backbone": str(folder), "sources": str(corpus)}
    return Recipe(**paths, **(defaults | {"device": "cpu"} | settings))


def run(recipe, out, budget=2000, progress=lambda *_: None):
    return recipe.train(out, budget=budget, seed=7, load=load, progress=progress)


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


@pytest.mark.parametrize("views", ["crops", "dropout"])
def test_an_epoch_has_one_pair_of_each_text_and_the_next_one_others(base, views):
    groups = [list(SENTENCES[i : i + 5]) for i in range(3)]
    options = {"sentences": 2, "overlap": True, "length": 60, "budget": 1500, "size": 2}
    plan = plan_pairs(groups, base.tokenizer, views=views, **options, seed=1)
    again = plan_pairs(groups, base.tokenizer, views=views, **options, seed=1)
    other = plan_pairs(groups, base.tokenizer, views=views, **options, seed=2)
    assert plan == again != other
    used = [i for batch in plan.batches for i in batch]
    assert len(used) == len(set(used)) > 6
    for batch in plan.batches:  # a text is no negative of itself
        assert len({i % len(groups) for i in batch}) == len(batch)
    spent = sum(len(ids) for i in used for ids in plan.rows[i])
    assert 1500 - 130 < spent <= 1500
    assert len(set(plan.pairs)) > len(groups)
    assert all((pair.first == pair.second) == (views == "dropout") for pair in plan.pairs)


def test_micro_batches_have_the_loss_and_gradient_of_the_whole_batch(base, corpus):
    network = Recipe(rank=2)._make_trainable(base, 1)
    for name, weight in trainable_weights(network).items():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
    groups = [list(SENTENCES[i : i + 4]) for i in range(4)]
    rows = plan_pairs(
        groups,
        base.tokenizer,
        views="crops",
        sentences=2,
        overlap=True,
        length=60,
        budget=500,
        size=4,
        seed=1,
    ).rows[:4]
    weights = list(trainable_weights(network).values())
    found = []
    for positions in (70, 10_000):
        step = make_objective(network, rows, temperature=0.05, positions=positions)
        parts = step.parts(range(4))
        losses, spent = zip(*map(step.loss, parts), strict=True)
        assert sum(each.trained for each in spent) == sum(len(ids) for row in rows for ids in row)
        loss = sum(losses)
        found.append((len(parts), loss.detach(), torch.autograd.grad(loss, weights)))
    (several, cached, gradients), (one, plain, expected) = found
    assert several > 2
    assert one == 1
    torch.testing.assert_close(cached, plain, atol=1e-5, rtol=1e-5)
    for ours, wanted in zip(gradients, expected, strict=True):
        assert float(wanted.abs().max()) > 0
        torch.testing.assert_close(ours, wanted, atol=1e-5, rtol=1e-4)


def test_pairs_that_fit_cost_less_than_chance_and_shuffled_ones_more():
    vectors = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    chance = float(torch.tensor(6.0).log())
    assert float(info_nce(torch.stack([vectors, vectors]), 0.05)) < 0.01
    assert float(info_nce(torch.stack([vectors, vectors.roll(1, 0)]), 0.05)) > chance
    assert float(info_nce(torch.stack([vectors, vectors.roll(1, 0)]), 1e6)) == pytest.approx(chance)


@pytest.mark.parametrize("lora", [True, False])
@pytest.mark.parametrize("kind", ["llama", "roberta"])
def test_the_last_layers_alone_can_be_trained(tmp_path, kind, lora):
    source = tiny_folder(kind, tmp_path / "base")
    network = Backbone(str(source), dtype="float32", device="cpu").load()
    recipe = Recipe(rank=2, lora=lora)
    every = trainable_weights(recipe._make_trainable(network, 1))
    last = trainable_weights(replace(recipe, last_layers=2)._make_trainable(network, 1))
    below = [name for name in every if ".0." in name or "embed" in name]
    assert below
    assert set(below) & set(last) == set()
    assert {name for name in every if ".2." in name} <= set(last)
    with pytest.raises(UsageError, match="3 layers"):
        replace(recipe, last_layers=4)._make_trainable(network, 1)


def test_dropout_views_need_two_passes_that_differ(base):
    check_dropout(Recipe(dropout=0.1)._make_trainable(base, 1), [1, 2, 3])
    with pytest.raises(UsageError, match="they are equal"):
        check_dropout(Recipe()._make_trainable(base, 1), [1, 2, 3])


@pytest.mark.parametrize(
    "settings",
    [{"overlap": False}, {"views": "dropout", "dropout": 0.2, "attention": "bidirectional"}],
)
def test_training_lowers_the_loss_and_its_checkpoint_meets_the_contract(
    folder, corpus, tmp_path, settings
):
    out = run(tiny_recipe(folder, corpus, temperature=0.2, **settings), tmp_path / "out", 3000)
    card = json.loads((out / "card.json").read_text())
    losses = [loss for _, loss in card["loss"]]
    assert np.mean(losses[-4:]) < np.mean(losses[:4])
    assert 3000 - 130 < card["trained_tokens"] <= 3000
    encoder = Crops(str(out), dtype="float32", device="cpu")
    assert encoder._network().causal == (card["recipe"]["attention"] == "native")
    assert encoder.card().trained
    assert encoder.runs().find_overlaps([" ".join(SENTENCES[:2])]).shape == (1,)
    vectors = encoder.encode(SENTENCES)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    if "views" not in settings:
        assert [each.reason for each in run_checks(encoder) if each.status == "failed"] == []
        untrained = Crops(str(folder), dtype="float32", device="cpu")
        assert not untrained.card().trained
        assert not np.allclose(untrained.encode(SENTENCES), vectors, atol=1e-3)


def test_an_interrupted_training_resumes_to_the_same_weights(folder, corpus, tmp_path):
    recipe = tiny_recipe(folder, corpus, views="dropout", dropout=0.1, last_layers=1)

    def stop(label, done, _total):
        if label == "crops: training" and done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(recipe, tmp_path / "out", progress=stop)
    assert (tmp_path / "out" / "state.pt").is_file()
    resumed, whole = run(recipe, tmp_path / "out"), run(recipe, tmp_path / "whole")
    for name in ("adapter_model.safetensors", "adapter_config.json", "runs.u64"):
        assert (resumed / name).read_bytes() == (whole / name).read_bytes()
    assert not (resumed / "state.pt").exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"views": "words"},
        {"views": "dropout"},
        {"dropout": 1.0},
        {"longest": 4},
        {"sentences": 0},
        {"last_layers": -1},
        {"temperature": 0.0},
    ],
)
def test_invalid_settings_are_refused(settings):
    with pytest.raises(UsageError):
        Recipe(**settings).check()


def test_the_paper_s_settings_are_those_of_the_released_code():
    PAPER.check()
    assert (PAPER.batch_size, PAPER.lr, PAPER.temperature) == (64, 2e-5, 0.05)
    assert (PAPER.sentences, PAPER.dropout, PAPER.overlap) == (2, 0.1, True)
    assert not PAPER.lora
