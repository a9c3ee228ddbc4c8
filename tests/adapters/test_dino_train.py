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

from adapters._backbone import Backbone
from adapters._trainable import unfreeze
from adapters._training.budget import TokenCounts
from adapters.dino import reviews
from adapters.dino.data import SimilarityPair
from adapters.dino.encoder import DINO
from adapters.dino.objective import CosineRegression, score_pairs, tokenize_pairs
from adapters.dino.reviews import Review, generate_reviews, single_label, write_reviews
from adapters.dino.train import Recipe
from bench.data import load
from bench.errors import DataError, UsageError
from tests.adapters.checks import (
    CLOSE,
    CPU,
    check_objective,
    load_network,
    read_rows,
    train,
    write_rows,
)
from tests.adapters.test_dino_generate import NAMES, SPEC, TASK, quiet
from tests.faults.commands import write_writer
from tests.tiny import SENTENCES

PAIRS = [
    SimilarityPair(a, b, label)
    for (a, b), label in zip(pairwise(SENTENCES), [0.9, 0.5, 0.1, 0.0] * 2, strict=False)
]
SUBJECTS = ("The cat", "The dog", "He", "The bank", "She")
X1 = [
    f"{a} {b}" for a in SUBJECTS for b in ("sat on the mat.", "won the final.", "plays.", "fell.")
]


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    """A tiny model that has learnt to close its quotes, as its folder."""
    folder = tmp_path_factory.mktemp("writer") / "m"
    texts = [f'{TASK.prompt(label, a)}{b}"' for label in NAMES for a, b in pairwise(X1)]
    write_writer(folder, texts[::2], steps=60)
    return folder


@pytest.fixture
def recipe(writer, tmp_path):
    (tmp_path / "tiny.json").write_text(json.dumps(SPEC))
    (tmp_path / "x1.txt").write_text("\n".join(X1))
    paths = {"task": str(tmp_path / "tiny.json"), "x1": str(tmp_path / "x1.txt")}
    unfiltered = {"least_shared": 0.0, "most_shared": 1.0, "agreeing": False}
    sizes = {"batch": 4, "batch_size": 8, "new_tokens": 16, "lr": 5e-3}
    return Recipe(str(writer), str(writer), **paths, **unfiltered, **sizes, **CPU)


def encoder(folder):
    return DINO(str(folder), **CPU)


def test_the_loss_and_its_gradient_are_those_of_sentence_transformers(tiny):
    network = unfreeze(load_network(tiny("llama"), head="none"))
    transformer = Transformer(str(tiny("llama")), model_kwargs={"dtype": torch.float32})
    model = SentenceTransformer(modules=[transformer, Pooling(network.dim, "mean")], device="cpu")
    theirs = dict(transformer.auto_model.named_parameters())
    assert theirs.keys() == {name for name, _ in network.model.named_parameters()}
    for name, weight in network.model.named_parameters():  # so that gradients are of one tensor
        owner, _, last = name.rpartition(".")
        setattr(transformer.auto_model.get_submodule(owner), last, weight)
    sides = [model.tokenize([pair[side] for pair in PAIRS]) for side in (0, 1)]
    expected = CosineSimilarityLoss(model)(sides, torch.tensor([pair.label for pair in PAIRS]))
    pairs = tokenize_pairs(network, PAIRS)
    spent = TokenCounts(sum(pair.length for pair in pairs))
    weights = list(network.model.parameters())
    check_objective(CosineRegression(network, pairs, 0), expected, weights, spent, count=len(pairs))


@pytest.mark.parametrize("count", [0, 1, 4])
def test_held_out_pairs_of_one_label_rank_nothing_and_warn_of_nothing(networks, count):
    network = unfreeze(networks("bert"))  # a copy, since scoring ends in training mode
    pairs = [pair._replace(label=0.5) for pair in PAIRS[:count]]
    score, spent = score_pairs(network, tokenize_pairs(network, pairs))
    assert score == 0
    assert (spent.inference > 0) == (count > 0)


@pytest.mark.parametrize("labels", [("same", "other"), ("2", "1", "0"), ("1", "nan")])
def test_labels_that_are_no_similarities_are_refused(tmp_path, labels):
    spec = {label: {"instruction": 'A: "<X1>"\nB: "'} for label in labels}
    (tmp_path / "odd.json").write_text(json.dumps({"task_name": "odd", "labels": spec}))
    with pytest.raises(UsageError, match="from 0 to 1"):
        Recipe(task=str(tmp_path / "odd.json")).check()


def test_a_training_makes_an_encoder_that_others_can_load(recipe, tiny, tmp_path):
    out, folder, base = tmp_path / "out", tmp_path / "whole", tiny("llama")
    card = train(replace(recipe, backbone=str(base)), out, 1_500)
    assert card["inference_tokens"] == sum(stage["inference_tokens"] for stage in card["stages"])
    assert card["dev_spearman"] == dict(card["dev_curve"])[card["kept_step"]]
    assert {row["label"] for row in read_rows(out / "pairs.sample.jsonl")} == {0.9, 0.5, 0.1, 0.0}
    texts = [*SENTENCES, "word " * 400]
    vectors = encoder(out).encode(texts)
    encoder(out).export_sentence_transformers(folder)
    exported = SentenceTransformer(str(folder), device="cpu").encode(texts)
    np.testing.assert_allclose(exported, vectors, **CLOSE)
    np.testing.assert_allclose(encoder(folder).encode(texts), vectors, **CLOSE)
    assert np.abs(encoder(base).encode(texts) - vectors).max() > 0.01
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert np.ptp(unit @ unit.T) > 0.1  # no constant vectors


def test_a_bidirectional_student_is_loaded_as_it_was_trained(recipe, tmp_path):
    recipe = replace(recipe, attention="bidirectional", x1="generated", x1_task="sts-x1", inputs=9)
    card = train(recipe, tmp_path / "out", 900)
    assert encoder(tmp_path / "out")._backbone().attention == "bidirectional"
    stages = [stage["stage"] for stage in card["stages"]]
    assert stages[:2] == ["generating sts-x1", "generating tiny"]


def test_texts_that_a_neighbouring_checkpoint_has_are_reused(recipe, tmp_path):
    def count(name, **changes):
        calls = []
        own = replace(recipe, **changes)
        card = train(own, tmp_path / name, 300, lambda what, *_: calls.append(what))
        return sum("generating" in what for what in calls), card["stages"][0]

    batches, stage = count("base")
    assert batches == 1
    assert count("smoothing=0", smoothing=0.0) == (0, stage)
    assert count("decay=0", decay=0.0)[0] == 1


def save_pairs(path, labels):
    rows = [
        {"text_a": x1, "text_b": f"{x1} {label} {k}", "label": label}
        for x1 in X1
        for label in labels
        for k in range(2)
    ]
    return str(write_rows(path, rows))


def test_pairs_of_a_file_replace_generated_ones(recipe, tmp_path):
    smoothed = save_pairs(tmp_path / "postprocessed.jsonl", (0.9, 0.5, 0.1, 0.0))
    recipe = replace(recipe, pairs=smoothed, clean=False, generator="none")
    card = train(recipe, tmp_path / "out", 300)
    assert card["pairs"]["training pairs"] == 8 * len(X1)
    assert not list((tmp_path / "out" / "generated").glob("*dataset*"))
    with pytest.raises(DataError, match="clean=false"):
        train(replace(recipe, clean=True), tmp_path / "other", 300)
    raw = save_pairs(tmp_path / "raw.jsonl", ("1", "0.5", "0"))
    card = train(replace(recipe, pairs=raw, clean=True), tmp_path / "cleaned", 300)
    second = "The cat sat on the mat. 0.5 1"
    assert encoder(tmp_path / "cleaned").runs().find_overlaps([second]).all()
    assert card["pairs"]["random pairs"] == 2 * len(X1)
    save_pairs(tmp_path / "raw.jsonl", ("1", "0"))
    with pytest.raises(UsageError, match="another content"):
        train(replace(recipe, pairs=raw, clean=True), tmp_path / "cleaned", 300)
    assert card["pairs"]["training pairs"] == 8 * len(X1)


def test_reviews_have_both_labels_and_lie_where_the_task_looks(writer, tmp_path, monkeypatch):
    backbone = Backbone(str(writer), head="lm", **CPU)
    settings = {"films": 40, "samples": 1, "new_tokens": 16, "seed": 1, "progress": quiet}
    found = generate_reviews(tmp_path / "texts", backbone, **settings)
    assert {review.label for review in found} == {0, 1}
    assert len({review.text for review in found}) == len(found)
    write_reviews(tmp_path, found)
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    rows = load("dino/imdb-generated", "train")
    assert [*zip(rows["text"], rows["label"], strict=True)] == found
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
