"""Every recipe: the contract on a tiny backbone, what a training leaves, the paper's settings."""

import importlib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from bench.data import load
from bench.errors import UsageError
from bench.registry import load_encoder, load_recipe
from bench.testing import RecipeTrial, run_recipe_checks
from tests.adapters.checks import CPU, broken_rules, read_rows, write_rows
from tests.faults.commands import TRAININGS, write_sources
from tests.tiny import SENTENCES

UNSEEN = "an unseen text with more than eight words in it"
CROPS = "sources=crops.txt lr=5e-3 temperature=0.2 batch_size=4"
BUDGETS = {
    "crops": (4000, CROPS),
    "dino": (1500, "lr=5e-3"),
    "inbedder": (1500, "lr=5e-3"),
    "llm2comp": (2000, "lr=5e-3 contrastive=0.2 length=40"),
    "llm2vec-gen": (3000, "k=3"),
    "quip": (2500, "questions=3 generator_share=5 passages=plain.txt"),
}
"""Tokens that lower the loss of each recipe, and its settings beside those of the campaign."""

STAGED = (
    "attention=bidirectional new_lora=true healing=0.2 contrastive=0.2 supervised=0.2"
    " triples=nq.jsonl document=100 length=40"
)
VARIANTS = [
    ("crops", "llama", 4000, f"views=dropout dropout=0.2 attention=bidirectional {CROPS}"),
    ("dino", "roberta", 1500, "lora=false lr=5e-3"),
    ("inbedder", "roberta", 1500, "lora=false lr=5e-3"),
    ("llm2comp", "opt", 4000, "objective=mntp contrastive=0.2 lr=5e-3 length=40"),
    ("llm2comp", "qwen2", 3000, f"{STAGED} lr=5e-3"),
    ("quip", "roberta", 1500, "labels=hard lora=true passages=plain.txt"),
    ("quip", "llama", 1500, "attention=bidirectional labels=answers teacher_share=0"),
]


def parse(settings):
    return dict(word.split("=", 1) for word in settings.split())


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """The working folder, with what the trainings read."""
    folder = tmp_path_factory.mktemp("recipes")
    write_sources(folder)
    (folder / "plain.txt").write_text(
        "\n\n".join(
            f"Anna lives in Oslo and plays. It was a cold day in {2000 + i}." for i in range(9)
        )
    )
    distinct = [  # no crop is in two of them
        f"{who} sat on the mat. {who} won the final. {who} plays the violin. {who} is moving."
        for who in ("Anna", "Zürich", "The country")
    ]
    (folder / "crops.txt").write_text("\n\n".join([" ".join(SENTENCES[:4]), *distinct]))
    triples = [
        {"query": a, "positive": b, "negative": SENTENCES[0]} for a, b in pairwise(SENTENCES)
    ]
    write_rows(folder / "nq.jsonl", triples)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("adapters.quip.train._PASSAGES", 2)  # so that a kill costs few of them
        patch.setattr("adapters.quip.train._QUESTIONS", 2)
        yield folder


def make_trial(method, folder, budget, settings):
    words = TRAININGS[method].words
    settings = parse(" ".join(word for word in words if "=" in word)) | parse(settings)

    def make_encoder(place):
        return load_encoder(f"{method}:{place}", CPU)

    recipe = load_recipe(method, {**settings, "device": "cpu"})
    return RecipeTrial(recipe, folder, load, make_encoder, budget, seed=1)


@pytest.fixture(scope="module", params=BUDGETS)
def trial(request, here, tmp_path_factory):
    return make_trial(request.param, tmp_path_factory.mktemp("t"), *BUDGETS[request.param])


def test_a_recipe_keeps_the_contract(trial):
    assert [outcome for outcome in run_recipe_checks(trial) if outcome.status != "passed"] == []
    assert not list(trial.checkpoint.rglob("*.pt"))


EASY = {"contrastive", "supervised"}
"""Stages whose loss begins near 0 on these texts, as that of two dropout views of one text does."""


def check_learning(trial):
    """Check that the loss falls, and that the encoder knows what it has read."""
    card, encoder = trial.card, trial.make_encoder(trial.checkpoint)
    for stage in [each for each in card.get("stages", ()) if "loss" in each] or [card]:
        losses = [loss for _, loss in stage["loss"]]
        quarter = -(-len(losses) // 4)
        if stage.get("stage") not in EASY and card["recipe"].get("views") != "dropout":
            assert np.mean(losses[-quarter:]) < np.mean(losses[:quarter])
    assert 0.85 * trial.budget < card["trained_tokens"] <= trial.budget
    assert encoder.card().trained
    samples = [*trial.checkpoint.glob("*.sample.jsonl")]
    row = read_rows(samples[0])[0] if samples else {"text": " ".join(SENTENCES[:4])}
    seen = row.get("text_a") or row["text"]
    if card["method"] == "quip":
        seen = read_rows(Path("people.jsonl"))[0]["context"]
    assert encoder.runs().find_overlaps([seen, UNSEEN]).tolist() == [True, False]
    return card, encoder


def test_a_training_learns_and_its_card_counts_every_stage(trial):
    card, encoder = check_learning(trial)
    stages = card.get("stages", ())
    assert card["flops"] > 4000 * card["trained_tokens"]
    flops = sum(stage.get("flops", 0) for stage in stages)
    if card["method"] == "dino":  # whose last stage is the card's own
        assert 0 < flops < card["flops"]
    elif stages:
        assert card["flops"] == flops
        trained = sum(stage.get("trained_tokens", 0) for stage in stages)
        assert trained in {0, card["trained_tokens"]}
    assert broken_rules(encoder) == []


@pytest.mark.parametrize(("method", "kind", "budget", "settings"), VARIANTS)
def test_every_variant_learns(method, kind, budget, settings, here, tiny, tmp_path):
    trial = make_trial(method, tmp_path, budget, f"{settings} backbone={tiny(kind)}")
    card, encoder = check_learning(trial)
    if "objective=mntp" in settings:
        assert broken_rules(encoder) == []
    if card["method"] in {"crops", "quip"}:
        native = kind == "llama" and card["recipe"]["attention"] == "native"
        assert encoder._network().causal == native


INVALID = {
    "crops": "views=words views=dropout dropout=1 longest=4 sentences=0 last_layers=-1"
    " temperature=0 batch_size=1",
    "dino": "smoothing=1.1 least_shared=-0.1 most_shared=2 decay=-1 top_k=-1 random_pairs=-1"
    " inputs=-1 lr=0 task=sts-x1 x1=generated,x1_task=sts-x2 pairs=none.jsonl",
    "llm2comp": "objective=no attention=no contrastive=1 healing=-0.1 k=0 length=19"
    " supervised=0.1 healing=0.1,attention=auto temperature=0 dropout=1 contrastive_lr=NaN"
    " contrastive_batch=1",
    "llm2vec-gen": "answers=no labelled=maybe decay=none k=0 new_tokens=0 lr=0 top_p=0"
    " instructed=1.5 temperature=-1 reconstruction=0,alignment=0 reconstruction=NaN"
    " teacher=all-MiniLM-L6-v2 teacher=llm2comp:FOLDER teacher=inbedder",
    "quip": "labels=sof human=1.5 top_p=0 questions=0 window=457 generator_share=0 teacher_share=0",
}


@pytest.mark.parametrize("method", INVALID)
def test_invalid_settings_are_refused(method):
    load_recipe(method, {}).check()
    for settings in INVALID[method].split():
        recipe = load_recipe(method, parse(settings.replace(",", " ")))
        with pytest.raises(UsageError):
            recipe.check()


PAPERS = {
    "crops": "batch_size=64 lr=2e-5 temperature=0.05 sentences=2 dropout=0.1 overlap=true"
    " lora=false",
    "dino": "task=sts-x2 decay=100 new_tokens=40 samples=2 top_k=5 top_p=0.9 smoothing=0.2"
    " random_pairs=2 least_shared=0 most_shared=1 agreeing=false lora=false lr=2e-5 batch_size=32"
    " attention=native",
    "inbedder": "backbone=meta-llama/Llama-2-7b-hf sources=KomeijiForce/Inbedder-Pretrain-Data"
    " lr=2e-5 batch_size=64 max_length=512 lora=false",
    "llm2comp": "backbone=meta-llama/Llama-2-7b-chat-hf objective=kl k=8 attention=bidirectional"
    " rank=16 new_lora=true batch_size=4 lr=1e-4 length=512 contrastive_batch=128"
    " contrastive_lr=3e-5 dropout=0.2 sentence=504 temperature=0.05 words=",
    "llm2vec-gen": "k=10 words= chat=false standardise=false batch_size=32 samples=160000 lr=3e-4"
    " decay=linear reconstruction=1 alignment=1 length=512 new_tokens=500 warmup=0.02 labelled=no",
    "quip": "window=456 questions=10 top_p=0.6 labels=soft human=0 epochs=2 lr=1e-5 lora=false",
}


@pytest.mark.parametrize("method", PAPERS)
def test_paper_has_the_published_settings(method):
    name = f"adapters.{method.replace('-', '_')}.train"
    published = load_recipe(f"{name}:PAPER", parse(PAPERS[method]))
    assert published == importlib.import_module(name).PAPER
    published.check()


def test_further_settings_of_papers_are_the_published_ones():
    names = ("dino", "llm2comp", "quip")
    dino, llm2comp, quip = (importlib.import_module(f"adapters.{name}.train") for name in names)
    assert dino.PAPER.backbone.partition("@")[0] == "FacebookAI/roberta-base"
    assert dino.PAPER.generator.partition("@")[0] == "openai-community/gpt2-xl"
    assert replace(dino.PAPER, x1="generated") == dino.PAPER_X1X2
    assert dino.PAPER_X1X2.x1_task == "sts-x1"
    stage_3 = llm2comp.PAPER_SUPERVISED
    assert (stage_3.contrastive_batch, stage_3.contrastive_lr) == (1024, 1e-4)
    assert stage_3.document + stage_3.k == 1024
    assert "roberta-large" in quip.PAPER.backbone
    assert "bart-large" in quip.PAPER.generator
    for recipe in (dino.PAPER_X1X2, stage_3):
        recipe.check()
