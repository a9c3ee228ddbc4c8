"""DINO's encoder on tiny random models, plain and as sentence-transformers folders."""

import json
import shutil

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from adapters.dino.encoder import DINO, pooling_modes
from bench.encoder import fingerprint
from bench.errors import CheckpointError, Unavailable, UsageError
from tests.tiny import tiny_folder

TEXTS = ["The cat sat on the mat.", "He's playing a flute.", "rain", "São Paulo is far — 9,600 km."]
LONG = "word " * 40
CLOSE = {"atol": 1e-5, "rtol": 1e-5}  # float32 sums in another order
MODULES = ("Transformer", "Pooling", "Normalize")


def load(folder, **settings):
    return DINO(str(folder), dtype="float32", device="cpu", **settings)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_folder("roberta", tmp_path_factory.mktemp("dino") / "plain")


@pytest.fixture
def save(folder, tmp_path):
    """Return what writes a sentence-transformers folder in the old layout."""

    def write(modules=MODULES[:2], limit=None, **pooling):
        place = tmp_path / "st"
        shutil.copytree(folder, place / "Transformer")
        (place / "Pooling").mkdir()
        config = pooling or {"pooling_mode_mean_tokens": True}
        config = json.dumps({"word_embedding_dimension": 32} | config)
        (place / "Pooling" / "config.json").write_text(config)
        (place / "Normalize").mkdir()
        kind = "sentence_transformers.models."
        listed = [
            {"idx": i, "name": str(i), "path": name, "type": kind + name}
            for i, name in enumerate(modules)
        ]
        (place / "modules.json").write_text(json.dumps(listed))
        if limit:
            own = {"max_seq_length": limit, "do_lower_case": False}
            (place / "Transformer" / "sentence_bert_config.json").write_text(json.dumps(own))
        return place

    return write


def states(folder, text, layer=-1):
    ids = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")["input_ids"]
    model = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(input_ids=ids, output_hidden_states=True).hidden_states[layer][0].numpy()


@pytest.mark.parametrize("kind", ["roberta", "llama", "bert"])
def test_a_text_is_the_mean_of_its_last_layer(kind, tmp_path):
    folder = tiny_folder(kind, tmp_path / "m")
    expected = [states(folder, text).mean(0) for text in TEXTS]
    np.testing.assert_allclose(load(folder).encode(TEXTS), expected, **CLOSE)


def test_token_states_are_those_of_the_layer(folder):
    for layer in (0, -1):
        for text, found in zip(TEXTS, load(folder).encode_tokens(TEXTS, layer=layer), strict=True):
            np.testing.assert_allclose(found.states, states(folder, text, layer), **CLOSE)


def test_a_sentence_transformers_folder_gives_the_vectors_it_gives_there(folder, save):
    place = save(MODULES, limit=9)
    encoder, texts = load(place), [*TEXTS, LONG]
    expected = SentenceTransformer(str(place), device="cpu").encode(texts)
    np.testing.assert_allclose(encoder.encode(texts), expected, **CLOSE)
    assert [len(found.states) for found in encoder.encode_tokens([LONG])] == [9]
    assert fingerprint(encoder) != fingerprint(load(folder))
    assert encoder.card().trained


def test_a_sentence_transformers_folder_is_the_same_encoder_as_its_transformer(folder, save):
    assert fingerprint(load(save())) == fingerprint(load(folder))


@pytest.mark.parametrize(
    "layout",
    [
        {"pooling_mode_cls_token": True},
        {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True},
        {"pooling_mode": "lasttoken"},
        {"modules": ("Transformer", "Pooling", "Dense")},
        {"modules": ("Transformer",)},
    ],
)
def test_other_layouts_are_refused(save, layout):
    with pytest.raises(CheckpointError, match="st:PATH"):
        load(save(**layout)).card()


def test_a_folder_without_its_pooling_config_is_refused(save):
    place = save()
    (place / "Pooling" / "config.json").unlink()
    with pytest.raises(CheckpointError):
        load(place).card()


def test_the_new_form_of_the_pooling_config_is_read():
    config = {"embedding_dimension": 32, "pooling_mode": "mean", "include_prompt": True}
    assert pooling_modes(config) == {"mean"}


def test_words_after_a_prompt_are_scored_by_the_language_model(tmp_path):
    place = tiny_folder("llama", tmp_path / "lm", head=True)
    model = AutoModelForCausalLM.from_pretrained(place).eval()
    tokenizer = AutoTokenizer.from_pretrained(place)
    words = (" good", " bad")
    ids = [tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in words]
    found = load(place).score_words(TEXTS, prompt="\nIt is", words=words)
    for text, scores in zip(TEXTS, found, strict=True):
        with torch.no_grad():
            logits = model(**tokenizer(f"{text}\nIt is", return_tensors="pt")).logits[0, -1]
        np.testing.assert_allclose(scores, logits.log_softmax(-1)[ids], **CLOSE)
    short = load(place, max_length=16)  # the prompt stays where a text is cut
    tail = tokenizer.decode(tokenizer(f"{LONG}\nIt is")["input_ids"][-16:])
    np.testing.assert_allclose(
        short.score_words([LONG], prompt="\nIt is", words=words),
        short.score_words([tail.removesuffix("\nIt is")], prompt="\nIt is", words=words),
        **CLOSE,
    )
    with pytest.raises(UsageError, match="first token"):
        short.score_words(TEXTS, prompt="", words=(" good", " good"))


def test_an_encoder_without_a_language_model_scores_no_words(folder):
    with pytest.raises(Unavailable, match="decoder"):
        load(folder).score_words(TEXTS, prompt="", words=(" good", " bad"))


def test_a_bidirectional_decoder_is_not_exported(tmp_path):
    encoder = load(tiny_folder("llama", tmp_path / "m"), attention="bidirectional")
    with pytest.raises(UsageError, match="bidirectional"):
        encoder.export_sentence_transformers(tmp_path / "whole")
