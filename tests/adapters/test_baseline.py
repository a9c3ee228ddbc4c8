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
from tests.adapters.checks import CPU
from tests.tiny import SENTENCES

TEXTS = [*SENTENCES, "", "🙂", "\ud800 lone", "word " * 400, "  spaces  "]
CLOSE = {"atol": 1e-5}  # float32 sums in another order


@pytest.fixture(scope="module")
def pooled(tiny):
    return lambda **settings: Pooled(str(tiny("llama")), **CPU, **settings)


def test_hashing_distinguishes_texts():
    encoder = Hashing()
    vectors = checked(encoder.encode(TEXTS), TEXTS)
    assert vectors.shape == (len(TEXTS), 1024)
    assert len(np.unique(vectors, axis=0)) == len(TEXTS)
    near, far = vectors[0] @ encoder.encode(["The cat sat on a mat"])[0], vectors[0] @ vectors[3]
    assert near > far
    for wrong in ({"dim": 0}, {"shortest": 0}, {"shortest": 5}, {"longest": 1}):
        with pytest.raises(UsageError):
            Hashing(**wrong)


def test_pooled_mean_is_the_mean_of_the_token_states_of_a_layer(pooled):
    encoder = pooled(layer=2)
    states = encoder.encode_tokens(SENTENCES, layer=2)
    expected = np.stack([tokens.states.mean(0) for tokens in states])
    np.testing.assert_allclose(encoder.encode(SENTENCES), expected, **CLOSE)
    lengths = np.linalg.norm(pooled(normalise=True).encode(SENTENCES), axis=1)
    np.testing.assert_allclose(lengths, 1, **CLOSE)


def test_a_long_text_is_truncated_inside_the_template(pooled):
    encoder = pooled(template='This sentence : "{text}" means in one word:"', max_length=60)
    network = encoder._network()
    long, short = encoder._prepare(network)([Item("rain " * 100), Item("rain")])
    assert (len(long.ids), long.truncated, short.truncated) == (60, True, False)
    prompt = network.tokenizer.decode(long.ids)
    assert prompt.startswith('This sentence : "rain rain')
    assert prompt.endswith('" means in one word:"')
    for wrong in ({"pooling": "median"}, {"template": "no place"}, {"layer": 9}):
        with pytest.raises(UsageError):
            pooled(**wrong).encode(["a"])


def test_the_named_baselines_differ():
    makers = (backbone_mean, backbone_weighted_mean, backbone_last, prompteol)
    encoders = [make() for make in makers]
    assert len({fingerprint(encoder) for encoder in encoders}) == len(encoders)
    assert {card(encoder).licence for encoder in encoders} == {"Apache-2.0"}
