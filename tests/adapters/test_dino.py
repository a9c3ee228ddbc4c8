"""DINO's encoder on tiny random models, plain and as sentence-transformers folders."""

import json
import shutil

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from adapters.dino.encoder import DINO, pooling_modes
from bench.encoder import fingerprint
from bench.errors import CheckpointError, Unavailable, UsageError
from tests.adapters.checks import CLOSE, CPU, load_plain, plain_states

TEXTS = ["The cat sat on the mat.", "He's playing a flute.", "rain", "São Paulo is far — 9,600 km."]
LONG = "word " * 40
MODULES = ("Transformer", "Pooling", "Normalize")


def load(folder, **settings):
    return DINO(str(folder), **CPU, **settings)


@pytest.fixture
def save(tiny, tmp_path):
    """Return what writes a sentence-transformers folder in the old layout."""

    def write(modules=MODULES[:2], limit=None, **pooling):
        place = tmp_path / "st"
        shutil.copytree(tiny("roberta"), place / "Transformer")
        (place / "Pooling").mkdir()
        config = {"word_embedding_dimension": 32} | (pooling or {"pooling_mode_mean_tokens": True})
        (place / "Pooling" / "config.json").write_text(json.dumps(config))
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


@pytest.mark.parametrize("kind", ["roberta", "llama", "bert"])
def test_a_text_is_the_mean_of_its_last_layer(kind, tiny):
    encoder = load(tiny(kind))
    expected = [plain_states(tiny(kind), text).mean(0) for text in TEXTS]
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, **CLOSE)
    for layer in (0, -1):
        for text, found in zip(TEXTS, encoder.encode_tokens(TEXTS, layer=layer), strict=True):
            expected = plain_states(tiny(kind), text, layer)
            np.testing.assert_allclose(found.states, expected, **CLOSE)


def test_a_sentence_transformers_folder_gives_the_vectors_it_gives_there(tiny, save):
    place = save(MODULES, limit=9)
    encoder, texts = load(place), [*TEXTS, LONG]
    expected = SentenceTransformer(str(place), device="cpu").encode(texts)
    np.testing.assert_allclose(encoder.encode(texts), expected, **CLOSE)
    assert [len(found.states) for found in encoder.encode_tokens([LONG])] == [9]
    assert fingerprint(encoder) != fingerprint(load(tiny("roberta")))
    assert encoder.card().trained


def test_a_sentence_transformers_folder_is_the_same_encoder_as_its_transformer(tiny, save):
    place = save()
    assert fingerprint(load(place)) == fingerprint(load(tiny("roberta")))
    (place / "Pooling" / "config.json").unlink()
    with pytest.raises(CheckpointError):
        load(place).card()
    assert pooling_modes({"embedding_dimension": 32, "pooling_mode": "mean"}) == {"mean"}


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


def test_words_after_a_prompt_are_scored_by_the_language_model(tiny):
    tokenizer, model = load_plain(tiny("llama"), "AutoModelForCausalLM")
    asked = {"prompt": "\nIt is", "words": (" good", " bad")}
    ids = [tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in asked["words"]]
    found = load(tiny("llama")).score_words(TEXTS, **asked)
    for text, scores in zip(TEXTS, found, strict=True):
        with torch.no_grad():
            logits = model(**tokenizer(f"{text}\nIt is", return_tensors="pt")).logits[0, -1]
        np.testing.assert_allclose(scores, logits.log_softmax(-1)[ids], **CLOSE)
    short = load(tiny("llama"), max_length=16)  # the prompt stays where a text is cut
    tail = tokenizer.decode(tokenizer(f"{LONG}\nIt is")["input_ids"][-16:])
    whole = short.score_words([tail.removesuffix("\nIt is")], **asked)
    np.testing.assert_allclose(short.score_words([LONG], **asked), whole, **CLOSE)
    with pytest.raises(UsageError, match="first token"):
        short.score_words(TEXTS, prompt="", words=(" good", " good"))
    with pytest.raises(Unavailable, match="decoder"):
        load(tiny("roberta")).score_words(TEXTS, **asked)


def test_words_are_told_apart_where_the_head_computes_in_half_precision(tiny):
    texts = [f"Film {i} is {what}." for i in range(60) for what in ("long", "not so long")]
    encoder = DINO(str(tiny("llama")), device="cpu", dtype="bfloat16")
    good, bad = encoder.score_words(texts, prompt="\nIt is", words=(" good", " bad")).T
    assert len(set((good - bad).tolist())) == len(texts)  # rounded logits have equal differences
