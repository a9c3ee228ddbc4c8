"""DINO on tiny random encoders, plain and as sentence-transformers folders."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from adapters.dino.encoder import DINO, layout_of, pooling_modes
from bench.encoder import fingerprint
from bench.errors import CheckpointError, Unavailable, UsageError
from tests.tiny import tiny_folder

torch = pytest.importorskip("torch")

TEXTS = ["The cat sat on the mat.", "He's playing a flute.", "rain", "São Paulo is far — 9,600 km."]
CLOSE = {"atol": 1e-5, "rtol": 1e-5}  # float32 sums in another order


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_folder("roberta", tmp_path_factory.mktemp("dino") / "plain")


@pytest.fixture
def dino(folder):
    return DINO(str(folder), dtype="float32", device="cpu")


def sentence_folder(plain, place, *, pooling=None, modules=("Transformer", "Pooling"), limit=None):
    """Write a sentence-transformers folder in its old layout, the transformer in a subfolder."""
    shutil.copytree(plain, place / "0_Transformer")
    (place / "1_Pooling").mkdir()
    (place / "1_Pooling" / "config.json").write_text(
        json.dumps(pooling or {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True})
    )
    paths = {
        "Transformer": "0_Transformer",
        "Pooling": "1_Pooling",
        "Normalize": "2_Normalize",
        "Dense": "2_Dense",
    }
    listed = [
        {"idx": i, "name": str(i), "path": paths[m], "type": f"sentence_transformers.models.{m}"}
        for i, m in enumerate(modules)
    ]
    (place / "modules.json").write_text(json.dumps(listed))
    if limit:
        (place / "0_Transformer" / "sentence_bert_config.json").write_text(
            json.dumps({"max_seq_length": limit, "do_lower_case": False})
        )
    return place


def raw_states(folder, text, layer=-1):
    from transformers import AutoModel, AutoTokenizer

    ids = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return (
            AutoModel.from_pretrained(folder)
            .eval()(input_ids=ids, output_hidden_states=True)
            .hidden_states[layer][0]
        )


def test_a_text_is_the_mean_of_its_last_layer(dino, folder):
    np.testing.assert_allclose(
        dino.encode(TEXTS), [raw_states(folder, text).mean(0).numpy() for text in TEXTS], **CLOSE
    )


@pytest.mark.parametrize("kind", ["llama", "opt", "bert", "mpnet"])
def test_every_kind_of_backbone_is_read_alike(kind, tmp_path):
    folder = tiny_folder(kind, tmp_path / "m")
    found = DINO(str(folder), dtype="float32", device="cpu").encode(TEXTS)
    np.testing.assert_allclose(
        found, [raw_states(folder, text).mean(0).numpy() for text in TEXTS], **CLOSE
    )


def test_token_states_of_any_layer_align_with_the_text(dino, folder):
    for layer in (0, 1, -1):
        for text, found in zip(TEXTS, dino.encode_tokens(TEXTS, layer=layer), strict=True):
            np.testing.assert_allclose(
                found.states, raw_states(folder, text, layer).numpy(), **CLOSE
            )
            assert (found.spans <= len(text)).all()


def test_a_sentence_transformers_folder_gives_the_same_vectors_as_its_transformer(
    dino, folder, tmp_path
):
    moved = sentence_folder(folder, tmp_path / "st")
    np.testing.assert_allclose(
        replace(dino, checkpoint=str(moved)).encode(TEXTS), dino.encode(TEXTS), **CLOSE
    )
    assert fingerprint(replace(dino, checkpoint=str(moved))) == fingerprint(dino)


def test_plain_sentence_transformers_gives_the_same_vectors(dino, folder, tmp_path):
    library = pytest.importorskip("sentence_transformers")
    place = sentence_folder(
        folder, tmp_path / "st", modules=("Transformer", "Pooling", "Normalize"), limit=9
    )
    (place / "2_Normalize").mkdir()
    texts = [*TEXTS, "word " * 40]
    expected = library.SentenceTransformer(str(place), device="cpu").encode(texts)
    np.testing.assert_allclose(
        replace(dino, checkpoint=str(place)).encode(texts), expected, **CLOSE
    )


def test_normalisation_and_the_folder_s_own_limit_are_kept(dino, folder, tmp_path):
    place = sentence_folder(
        folder, tmp_path / "st", modules=("Transformer", "Pooling", "Normalize"), limit=6
    )
    encoder = replace(dino, checkpoint=str(place))
    np.testing.assert_allclose(np.linalg.norm(encoder.encode(TEXTS), axis=1), 1, atol=1e-6)
    assert [len(found.states) for found in encoder.encode_tokens(["word " * 40])] == [6]
    assert fingerprint(encoder) != fingerprint(dino)


@pytest.mark.parametrize(
    "pooling",
    [
        {"pooling_mode_cls_token": True},
        {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True},
        {"pooling_mode": "lasttoken"},
    ],
)
def test_another_pooling_is_refused(dino, folder, tmp_path, pooling):
    place = sentence_folder(folder, tmp_path / "st", pooling=pooling)
    with pytest.raises(CheckpointError, match="mean pooling"):
        replace(dino, checkpoint=str(place)).encode(TEXTS)


@pytest.mark.parametrize("modules", [("Transformer", "Pooling", "Dense"), ("Transformer",)])
def test_other_modules_are_refused(folder, tmp_path, modules):
    with pytest.raises(CheckpointError):
        layout_of(str(sentence_folder(folder, tmp_path / "st", modules=modules)))


def test_a_folder_without_its_pooling_config_is_refused(dino, folder, tmp_path):
    place = sentence_folder(folder, tmp_path / "st")
    (place / "1_Pooling" / "config.json").unlink()
    with pytest.raises(CheckpointError):
        replace(dino, checkpoint=str(place)).card()


def test_the_new_form_of_the_pooling_config_is_understood():
    assert pooling_modes(
        {"embedding_dimension": 32, "pooling_mode": "mean", "include_prompt": True}
    ) == {"mean"}


def test_a_folder_counts_as_trained(dino):
    assert dino.card().trained


def test_the_instruction_changes_nothing(dino):
    np.testing.assert_array_equal(dino.encode(TEXTS, instruction="topic"), dino.encode(TEXTS))


@pytest.mark.parametrize("kind", ["roberta", "llama"])
def test_order_batching_and_odd_texts_do_not_matter(kind, tmp_path):
    encoder = DINO(str(tiny_folder(kind, tmp_path / "m")), dtype="float32", device="cpu", budget=64)
    texts = [*TEXTS, "", "🙂🙃", "word " * 20_000]
    together = encoder.encode(texts)
    assert np.isfinite(together).all()
    np.testing.assert_allclose(encoder.encode(texts[::-1])[::-1], together, **CLOSE)
    np.testing.assert_allclose(
        np.vstack([encoder.encode([text]) for text in texts]), together, **CLOSE
    )
    assert [len(found.spans) > 0 for found in encoder.encode_tokens(texts)] == [True] * len(texts)


def test_words_behind_a_prompt_are_scored_by_the_language_model(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place = tiny_folder("llama", tmp_path / "lm", head=True)
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(place).eval(),
        AutoTokenizer.from_pretrained(place),
    )
    words = (" good", " bad")
    ids = [tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in words]
    found = DINO(str(place), dtype="float32", device="cpu").score_words(
        TEXTS, prompt="\nIt is", words=words
    )
    for text, scores in zip(TEXTS, found, strict=True):
        with torch.inference_mode():
            logits = model(**tokenizer(f"{text}\nIt is", return_tensors="pt")).logits[0, -1]
        np.testing.assert_allclose(scores, logits.log_softmax(-1)[ids], **CLOSE)
    long = DINO(str(place), dtype="float32", device="cpu", max_length=16).score_words(
        ["word " * 99], prompt="\nIt is", words=words
    )
    assert np.isfinite(long).all()
    with pytest.raises(UsageError, match="first token"):
        DINO(str(place), dtype="float32", device="cpu").score_words(
            TEXTS, prompt="", words=(" good", " good")
        )


def test_an_encoder_without_a_language_model_cannot_be_asked(dino):
    with pytest.raises(Unavailable, match="decoder"):
        dino.score_words(TEXTS, prompt="", words=(" good", " bad"))
