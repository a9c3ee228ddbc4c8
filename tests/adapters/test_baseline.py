import json
import shutil

import numpy as np
import pytest

from adapters.baseline.hashing import Hashing
from adapters.baseline.pooled import (
    Pooled,
    backbone_last,
    backbone_mean,
    backbone_weighted_mean,
    prompteol,
)
from adapters.baseline.sentence import SentenceEncoder, all_minilm_l6_v2
from adapters.baseline.sentence import folder_of as packaged_folder
from bench.encoder import Encoder, StreamingEncoder, TokenEncoder, card, checked, fingerprint
from bench.errors import CheckpointError, Unavailable, UsageError
from tests.tiny import SENTENCES, tiny_folder

torch = pytest.importorskip("torch")
sentence_transformers = pytest.importorskip("sentence_transformers")

TEXTS = [*SENTENCES, "", "🙂", "\ud800 lone", "word " * 400, "  spaces  "]


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return str(tiny_folder("llama", tmp_path_factory.mktemp("llama")))


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return tiny_folder("bert", tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def sentence_folder(bert, tmp_path_factory):
    """A sentence-transformers model with one module of each usual kind."""
    folder = tmp_path_factory.mktemp("st") / "model"
    modules = sentence_transformers.sentence_transformer.modules
    first = modules.Transformer(str(bert), max_seq_length=50)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        dense = modules.Dense(32, 16)
    model = sentence_transformers.SentenceTransformer(
        modules=[first, modules.Pooling(32), dense, modules.Normalize()], device="cpu"
    )
    model.save(str(folder))
    return folder


def on_cpu(checkpoint, **settings):
    return SentenceEncoder(str(checkpoint), dtype="float32", device="cpu", **settings)


def test_hashing_tells_texts_apart_and_ignores_instructions():
    encoder = Hashing()
    vectors = checked(encoder.encode(TEXTS), TEXTS)
    assert vectors.shape == (len(TEXTS), 1024)
    assert len(np.unique(vectors, axis=0)) == len(TEXTS)
    np.testing.assert_array_equal(vectors, encoder.encode(TEXTS, instruction="topic"))
    near, far = vectors[0] @ encoder.encode(["The cat sat on a mat"])[0], vectors[0] @ vectors[3]
    assert near > far


@pytest.mark.parametrize(
    "wrong", [{"dim": 0}, {"dim": -3}, {"shortest": 0}, {"shortest": 5}, {"longest": 1}]
)
def test_hashing_refuses_what_makes_no_vectors(wrong):
    with pytest.raises(UsageError, match="at least 1"):
        Hashing(**wrong)


@pytest.mark.parametrize("pooling", ["mean", "weighted-mean", "last", "first"])
@pytest.mark.parametrize("attention", ["native", "bidirectional"])
def test_pooled_vectors_do_not_depend_on_company_or_order(llama, pooling, attention):
    encoder = Pooled(
        llama, pooling=pooling, attention=attention, dtype="float32", device="cpu", max_length=64
    )
    together = checked(encoder.encode(TEXTS), TEXTS)
    for text, vector in zip(TEXTS, together, strict=True):
        np.testing.assert_allclose(
            encoder.encode([text])[0], vector, atol=1e-5
        )  # float32 sums in another order
    np.testing.assert_allclose(encoder.encode(TEXTS[::-1])[::-1], together, atol=1e-5)


def test_pooled_mean_is_the_mean_of_the_token_states(llama):
    encoder = Pooled(llama, dtype="float32", device="cpu", layer=2)
    states = encoder.encode_tokens(SENTENCES, layer=2)
    expected = np.stack([tokens.states.mean(0) for tokens in states])
    np.testing.assert_allclose(encoder.encode(SENTENCES), expected, atol=1e-5)


def test_token_states_carry_the_spans_of_the_bare_text(llama):
    encoder = Pooled(
        llama, template='This sentence : "{text}" means', dtype="float32", device="cpu"
    )
    for text, tokens in zip(SENTENCES, encoder.encode_tokens(SENTENCES), strict=True):
        pieces = [text[start:end] for start, end in tokens.spans]
        assert "".join(pieces[:3]) == text[: len("".join(pieces[:3]))]
        assert tokens.spans.max() == len(text)
        assert len(tokens.states) == len(tokens.spans)


def test_a_long_text_is_cut_inside_the_template(llama):
    encoder = Pooled(
        llama,
        pooling="last",
        template='This sentence : "{text}" means in one word:"',
        max_length=60,
        dtype="float32",
        device="cpu",
    )
    network = encoder._backbone().load()
    from bench.encoder import Item

    long, short = encoder._prepare(network)([Item("rain " * 100), Item("rain")])
    assert (len(long.ids), long.truncated, short.truncated) == (60, True, False)
    said = network.tokenizer.decode(long.ids)
    assert said.startswith('This sentence : "rain rain')
    assert said.endswith('" means in one word:"')


def test_normalised_vectors_have_unit_length(llama):
    vectors = Pooled(llama, normalise=True, device="cpu").encode(SENTENCES)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_unknown_settings_are_refused(llama):
    for wrong in ({"pooling": "median"}, {"template": "no place"}, {"layer": 9}):
        with pytest.raises(UsageError):
            Pooled(llama, device="cpu", **wrong).encode(["a"])


def test_the_named_baselines_differ_and_are_encoders():
    made = [
        make()
        for make in (
            backbone_mean,
            backbone_weighted_mean,
            backbone_last,
            prompteol,
            all_minilm_l6_v2,
        )
    ]
    assert all(isinstance(encoder, Encoder | StreamingEncoder | TokenEncoder) for encoder in made)
    assert len({fingerprint(encoder) for encoder in made}) == len(made)
    assert all(card(encoder).licence == "Apache-2.0" for encoder in made)


def test_sentence_vectors_equal_those_of_sentence_transformers(sentence_folder):
    theirs = sentence_transformers.SentenceTransformer(str(sentence_folder), device="cpu")
    texts = [text for text in TEXTS if "\ud800" not in text]
    np.testing.assert_allclose(
        on_cpu(sentence_folder).encode(texts), theirs.encode(texts), atol=1e-5
    )


def test_a_default_prompt_goes_in_front_of_every_text(sentence_folder, tmp_path):
    folder = shutil.copytree(sentence_folder, tmp_path / "prompted")
    path = folder / "config_sentence_transformers.json"
    path.write_text(
        json.dumps(
            json.loads(path.read_text())
            | {"prompts": {"query": "the cat: "}, "default_prompt_name": "query"}
        )
    )
    theirs = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    np.testing.assert_allclose(
        on_cpu(folder).encode(SENTENCES), theirs.encode(list(SENTENCES)), atol=1e-5
    )
    assert not np.allclose(
        on_cpu(folder).encode(SENTENCES), on_cpu(sentence_folder).encode(SENTENCES), atol=1e-3
    )


def test_sentence_token_states_keep_special_tokens_as_empty_spans(sentence_folder):
    [tokens] = on_cpu(sentence_folder).encode_tokens(["no rain"])
    assert tokens.spans.tolist() == [[0, 0], [0, 2], [3, 7], [0, 0]]
    assert tokens.states.shape == (4, 32)


def test_the_same_weights_elsewhere_are_the_same_encoder(sentence_folder, tmp_path):
    copy = shutil.copytree(sentence_folder, tmp_path / "copy")
    assert fingerprint(on_cpu(copy)) == fingerprint(on_cpu(sentence_folder))
    (copy / "1_Pooling" / "config.json").write_text("{}")
    assert fingerprint(on_cpu(copy)) != fingerprint(on_cpu(sentence_folder))


def test_a_plain_folder_or_foreign_code_is_refused(bert, sentence_folder, tmp_path):
    with pytest.raises(CheckpointError, match=r"modules\.json"):
        on_cpu(bert).encode(["a"])
    folder = shutil.copytree(sentence_folder, tmp_path / "foreign")
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["type"] = "modeling_evil.Pooling"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(CheckpointError, match="never run"):
        on_cpu(folder).encode(["a"])


def test_a_missing_tensor_of_a_sentence_model_is_named(sentence_folder, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(sentence_folder, tmp_path / "broken")
    state = load_file(folder / "model.safetensors")
    del state["encoder.layer.1.output.dense.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"output\.dense\.weight"):
        on_cpu(folder).encode(["a"])


def test_packaged_minilm_equals_sentence_transformers_and_its_pinned_card():
    from adapters._source import looked_up_parameters_of, parameters_of

    try:
        folder = packaged_folder("all-MiniLM-L6-v2")
    except Unavailable as error:
        pytest.skip(str(error))
    texts = [text for text in TEXTS if "\ud800" not in text]
    encoder = SentenceEncoder(dtype="float32", device="cpu")
    theirs = sentence_transformers.SentenceTransformer(str(folder), device="cpu").encode(texts)
    np.testing.assert_allclose(encoder.encode(texts), theirs, atol=1e-5)
    # bfloat16 keeps 8 bits: a cosine moves by less than a thousandth
    half = SentenceEncoder(dtype="bfloat16", device="cpu").encode(texts)
    assert (half * theirs).sum(1).min() > 0.999
    assert encoder.card().parameters == parameters_of(folder)
    assert encoder.card().embedding_parameters == looked_up_parameters_of(folder)
