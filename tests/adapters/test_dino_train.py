"""DINO's recipe on tiny models: the loss and its gradient, and whole trainings."""

import json
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import CosineSimilarityLoss
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import AutoModelForCausalLM, AutoTokenizer

from adapters._backbone import Backbone
from adapters._trainable import unfreeze
from adapters.dino import reviews
from adapters.dino.data import SimilarityPair
from adapters.dino.encoder import DINO
from adapters.dino.objective import CosineRegression, tokenize_pairs
from adapters.dino.reviews import Review, generate_reviews, single_label, write_reviews
from adapters.dino.train import PAPER, PAPER_X1X2, Recipe
from bench.data import load
from bench.errors import DataError, UsageError
from bench.registry import load_recipe
from tests.adapters.test_dino_generate import NAMES, SPEC, TASK, quiet
from tests.tiny import SENTENCES, tiny_folder

CLOSE = {"atol": 1e-5, "rtol": 1e-4}  # float32 sums in another order
SUBJECTS = ("The cat", "The dog", "He", "The bank", "She")
X1 = [
    f"{a} {b}" for a in SUBJECTS for b in ("sat on the mat.", "won the final.", "plays.", "fell.")
]
PAIRS = [
    SimilarityPair(a, b, label)
    for (a, b), label in zip(pairwise(SENTENCES), [0.9, 0.5, 0.1, 0.0] * 2, strict=False)
]


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    """A tiny model that has learnt to close its quotes, as its folder."""
    folder = tiny_folder("llama", tmp_path_factory.mktemp("writer") / "m", head=True)
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rng = np.random.default_rng(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        rows = [(rng.choice(list(NAMES)), *rng.choice(X1, 2)) for _ in range(8)]
        texts = [f'{TASK.prompt(str(label), str(a))}{b}"' for label, a, b in rows]
        batch = tokenizer(texts, return_tensors="pt", padding=True)
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        model(**batch, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def recipe(writer, tmp_path):
    (tmp_path / "tiny.json").write_text(json.dumps(SPEC))
    (tmp_path / "x1.txt").write_text("\n".join(X1))
    return Recipe(
        backbone=str(writer),
        generator=str(writer),
        task=str(tmp_path / "tiny.json"),
        x1=str(tmp_path / "x1.txt"),
        least_shared=0.0,
        most_shared=1.0,
        agreeing=False,
        batch=4,
        batch_size=8,
        new_tokens=16,
        lr=5e-3,
        dtype="float32",
        device="cpu",
    )


def train(recipe, out, budget=900, progress=quiet):
    recipe.train(out, budget=budget, seed=1, load=load, progress=progress)
    return json.loads((out / "card.json").read_text())


def encoder(folder):
    return DINO(str(folder), dtype="float32", device="cpu")


def test_the_paper_s_settings():
    assert PAPER.backbone.partition("@")[0] == "FacebookAI/roberta-base"
    assert PAPER.generator.partition("@")[0] == "openai-community/gpt2-xl"
    assert (PAPER.task, PAPER.decay, PAPER.new_tokens, PAPER.samples) == ("sts-x2", 100, 40, 2)
    assert (PAPER.top_k, PAPER.top_p) == (5, 0.9)
    assert (PAPER.smoothing, PAPER.random_pairs) == (0.2, 2)
    assert (PAPER.least_shared, PAPER.most_shared, PAPER.agreeing) == (0, 1, False)
    assert (PAPER.lora, PAPER.lr, PAPER.batch_size, PAPER.attention) == (False, 2e-5, 32, "native")
    assert replace(PAPER, x1="generated") == PAPER_X1X2
    assert PAPER_X1X2.x1_task == "sts-x1"
    assert load_recipe("adapters.dino.train:PAPER", {"lr": "1e-5"}) == replace(PAPER, lr=1e-5)
    PAPER.check()
    PAPER_X1X2.check()


def test_the_loss_and_its_gradient_are_those_of_sentence_transformers(writer):
    network = unfreeze(Backbone(str(writer), dtype="float32", device="cpu").load())
    float32 = {"dtype": torch.float32}
    transformer = Transformer(str(writer), max_seq_length=128, model_kwargs=float32)
    model = SentenceTransformer(modules=[transformer, Pooling(network.dim, "mean")], device="cpu")
    sides = [model.tokenize([pair[side] for pair in PAIRS]) for side in (0, 1)]
    expected = CosineSimilarityLoss(model)(sides, torch.tensor([pair.label for pair in PAIRS]))
    expected.backward()
    weights = dict(network.model.named_parameters())
    own = dict(transformer.auto_model.named_parameters())
    assert weights.keys() == own.keys()
    assert max(weight.grad.abs().max() for weight in own.values()) > 1e-3
    pairs = tokenize_pairs(network, PAIRS)
    for positions in (10_000, 60, 1):
        network.model.zero_grad()
        objective = CosineRegression(network, pairs, positions)
        found, tokens = 0.0, 0
        for part in objective.parts(range(len(pairs))):
            loss, spent = objective.loss(part)
            loss.backward()
            found, tokens = found + loss.item(), tokens + spent.trained
        assert tokens == sum(pair.length for pair in pairs)
        assert found == pytest.approx(expected.item(), rel=1e-5)
        for name, weight in own.items():
            torch.testing.assert_close(weights[name].grad, weight.grad, **CLOSE)


@pytest.mark.parametrize(
    "changes",
    [
        {"smoothing": 1.1},
        {"least_shared": -0.1},
        {"most_shared": 2.0},
        {"decay": -1.0},
        {"top_k": -1},
        {"random_pairs": -1},
        {"inputs": -1},
        {"lr": 0.0},
        {"task": "sts-x1"},
        {"x1": "generated", "x1_task": "sts-x2"},
        {"pairs": "none.jsonl"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_settings_out_of_range_are_refused(changes):
    Recipe().check()
    with pytest.raises(UsageError):
        Recipe(**changes).check()


@pytest.mark.parametrize("labels", [("same", "other"), ("2", "1", "0"), ("1", "nan")])
def test_labels_that_are_no_similarities_are_refused(tmp_path, labels):
    spec = {label: {"instruction": 'A: "<X1>"\nB: "'} for label in labels}
    (tmp_path / "odd.json").write_text(json.dumps({"task_name": "odd", "labels": spec}))
    with pytest.raises(UsageError, match="from 0 to 1"):
        Recipe(task=str(tmp_path / "odd.json")).check()


@pytest.mark.parametrize("lora", [True, False], ids=["lora", "all weights"])
def test_a_training_makes_an_encoder_that_others_can_load(lora, recipe, tmp_path):
    out = tmp_path / "out"
    kind = "llama" if lora else "roberta"
    recipe = replace(recipe, backbone=str(tiny_folder(kind, tmp_path / "base")), lora=lora)
    card = train(recipe, out, budget=2_500)
    assert card["loss"][-1][1] < card["loss"][0][1]
    assert 2_200 < card["trained_tokens"] <= 2_500
    assert card["inference_tokens"] == sum(stage["inference_tokens"] for stage in card["stages"])
    before = sum(stage["flops"] for stage in card["stages"])
    assert 0 < before < card["flops"]
    assert card["dev_spearman"] == dict(card["dev_curve"])[card["kept_step"]]
    assert not (out / "state.pt").exists()
    rows = [json.loads(line) for line in (out / "pairs.sample.jsonl").read_text().splitlines()]
    assert {row["label"] for row in rows} == {0.9, 0.5, 0.1, 0.0}
    dino = encoder(out)
    assert dino.card().trained
    assert dino.card().training_tokens == card["trained_tokens"]
    unseen = "an unseen text with more than eight words in it"
    assert dino.runs().find_overlaps([rows[0]["text_a"], unseen]).tolist() == [True, False]
    texts = [*SENTENCES, "word " * 400]
    vectors = dino.encode(texts)
    folder = tmp_path / "whole"
    dino.export_sentence_transformers(folder)
    exported = SentenceTransformer(str(folder), device="cpu").encode(texts)
    np.testing.assert_allclose(exported, vectors, **CLOSE)
    np.testing.assert_allclose(encoder(folder).encode(texts), vectors, **CLOSE)
    assert np.abs(encoder(recipe.backbone).encode(texts) - vectors).max() > 0.01
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert np.ptp(unit @ unit.T) > 0.1  # no constant vectors


def test_a_bidirectional_student_is_loaded_as_it_was_trained(recipe, tmp_path):
    recipe = replace(recipe, attention="bidirectional", x1="generated", x1_task="sts-x1", inputs=9)
    card = train(recipe, tmp_path / "out")
    assert encoder(tmp_path / "out").backbone().attention == "bidirectional"
    stages = [stage["stage"] for stage in card["stages"]]
    assert stages[:2] == ["generating sts-x1", "generating tiny"]


def test_texts_that_a_neighbouring_checkpoint_has_are_reused(recipe, tmp_path):
    calls = []

    def count(name, **changes):
        calls.clear()
        own = replace(recipe, **changes)
        card = train(own, tmp_path / name, progress=lambda what, *_: calls.append(what))
        return sum("generating" in what for what in calls), card["stages"][0]

    batches, stage = count("base")
    assert batches == 1
    assert count("smoothing=0", smoothing=0.0) == (0, stage)
    assert count("decay=0", decay=0.0)[0] == 1
    assert count("base") == (0, stage)
    assert not calls  # a finished checkpoint is not trained again
    with pytest.raises(UsageError, match="another recipe"):
        count("base", samples=1)


def save_pairs(path, labels):
    rows = [(x1, f"{x1} {label} {k}", label) for x1 in X1 for label in labels for k in range(2)]
    keys = ("text_a", "text_b", "label")
    lines = [json.dumps(dict(zip(keys, row, strict=True))) + "\n" for row in rows]
    path.write_text("".join(lines))
    return str(path)


def test_pairs_of_a_file_replace_generated_ones(recipe, tmp_path):
    smoothed = save_pairs(tmp_path / "postprocessed.jsonl", (0.9, 0.5, 0.1, 0.0))
    recipe = replace(recipe, pairs=smoothed, clean=False, generator="none")
    card = train(recipe, tmp_path / "out")
    assert card["pairs"]["training pairs"] == 8 * len(X1)
    assert not list((tmp_path / "out" / "generated").glob("*dataset*"))
    with pytest.raises(DataError, match="clean=false"):
        train(replace(recipe, clean=True), tmp_path / "other")
    raw = save_pairs(tmp_path / "raw.jsonl", ("1", "0.5", "0"))
    card = train(replace(recipe, pairs=raw, clean=True), tmp_path / "cleaned")
    assert card["pairs"]["random pairs"] == 2 * len(X1)
    assert card["pairs"]["training pairs"] == 8 * len(X1)
    sample = (tmp_path / "cleaned" / "pairs.sample.jsonl").read_text().splitlines()
    assert {json.loads(line)["label"] for line in sample} == {0.9, 0.5, 0.1, 0.0}


def test_reviews_have_both_labels_and_lie_where_the_task_looks(writer, tmp_path, monkeypatch):
    backbone = Backbone(str(writer), head="lm", dtype="float32", device="cpu")
    settings = {"films": 40, "samples": 1, "new_tokens": 16, "seed": 1, "progress": quiet}
    found = generate_reviews(tmp_path / "texts", backbone, **settings)
    assert {review.label for review in found} == {0, 1}
    assert len({review.text for review in found}) == len(found)
    write_reviews(tmp_path, found)
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    rows = load("dino/imdb-generated", "train")
    assert [*zip(rows["text"], rows["label"], strict=True)] == found


def test_a_review_that_was_generated_for_both_labels_is_dropped():
    texts = [("Fine.", 1), ("Fine.", 0), ("Dull.", 0), ("Great.", 1), ("Great.", 1)]
    assert single_label(Review(*text) for text in texts) == [("Dull.", 0), ("Great.", 1)]


def test_errors_of_the_command_are_one_line_and_code_2(tmp_path, monkeypatch, capsys):
    words = [str(tmp_path), "--generator", str(tmp_path / "none")]
    monkeypatch.setattr(sys, "argv", ["reviews", *words])
    with pytest.raises(SystemExit) as ended:
        reviews.main()
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1
