"""Hashed n-grams and pooled backbones; sentence-transformers models are in test_sentence.py."""

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
from bench.encoder import Item, card, checked, fingerprint
from bench.errors import UsageError
from tests.tiny import SENTENCES, tiny_folder

pytest.importorskip("torch")

TEXTS = [*SENTENCES, "", "🙂", "\ud800 lone", "word " * 400, "  spaces  "]
CLOSE = {"atol": 1e-5}  # float32 sums in another order


@pytest.fixture(scope="module")
def pooled(tmp_path_factory):
    folder = str(tiny_folder("llama", tmp_path_factory.mktemp("llama")))
    return lambda **settings: Pooled(folder, dtype="float32", device="cpu", **settings)


def test_hashing_distinguishes_texts_and_ignores_instructions():
    encoder = Hashing()
    vectors = checked(encoder.encode(TEXTS), TEXTS)
    assert vectors.shape == (len(TEXTS), 1024)
    assert len(np.unique(vectors, axis=0)) == len(TEXTS)
    np.testing.assert_array_equal(vectors, encoder.encode(TEXTS, instruction="topic"))
    near, far = vectors[0] @ encoder.encode(["The cat sat on a mat"])[0], vectors[0] @ vectors[3]
    assert near > far
    for wrong in ({"dim": 0}, {"shortest": 0}, {"shortest": 5}, {"longest": 1}):
        with pytest.raises(UsageError):
            Hashing(**wrong)


@pytest.mark.parametrize("pooling", ["mean", "weighted-mean", "last", "first"])
@pytest.mark.parametrize("attention", ["native", "bidirectional"])
def test_pooled_vectors_do_not_depend_on_company_or_order(pooled, pooling, attention):
    encoder = pooled(pooling=pooling, attention=attention, max_length=64)
    together = checked(encoder.encode(TEXTS), TEXTS)
    alone = np.vstack([encoder.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(alone, together, **CLOSE)
    np.testing.assert_allclose(encoder.encode(TEXTS[::-1])[::-1], together, **CLOSE)


def test_pooled_mean_is_the_mean_of_the_token_states_of_a_layer(pooled):
    encoder = pooled(layer=2)
    states = encoder.encode_tokens(SENTENCES, layer=2)
    expected = np.stack([tokens.states.mean(0) for tokens in states])
    np.testing.assert_allclose(encoder.encode(SENTENCES), expected, **CLOSE)
    lengths = np.linalg.norm(pooled(normalise=True).encode(SENTENCES), axis=1)
    np.testing.assert_allclose(lengths, 1, **CLOSE)


def test_token_states_have_the_spans_of_the_bare_text(pooled):
    encoder = pooled(template='This sentence : "{text}" means')
    for text, tokens in zip(SENTENCES, encoder.encode_tokens(SENTENCES), strict=True):
        first = "".join(text[start:end] for start, end in tokens.spans[:3])
        assert first == text[: len(first)]
        assert tokens.spans.max() == len(text)
        assert len(tokens.states) == len(tokens.spans)


def test_a_long_text_is_truncated_inside_the_template(pooled):
    encoder = pooled(template='This sentence : "{text}" means in one word:"', max_length=60)
    network = encoder._network()
    long, short = encoder._prepare(network)([Item("rain " * 100), Item("rain")])
    assert (len(long.ids), long.truncated, short.truncated) == (60, True, False)
    prompt = network.tokenizer.decode(long.ids)
    assert prompt.startswith('This sentence : "rain rain')
    assert prompt.endswith('" means in one word:"')


def test_unknown_settings_are_refused(pooled):
    for wrong in ({"pooling": "median"}, {"template": "no place"}, {"layer": 9}):
        with pytest.raises(UsageError):
            pooled(**wrong).encode(["a"])


def test_the_named_baselines_differ():
    makers = (backbone_mean, backbone_weighted_mean, backbone_last, prompteol)
    encoders = [make() for make in makers]
    assert len({fingerprint(encoder) for encoder in encoders}) == len(encoders)
    assert {card(encoder).licence for encoder in encoders} == {"Apache-2.0"}
