"""Echo embeddings against a plain computation, one text at a time."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from adapters.echo import Echo
from bench.encoder import Item
from tests.adapters.checks import CPU, broken_rules, edit_json, load_plain
from tests.tiny import SENTENCES, tiny_folder


@pytest.fixture(scope="module", params=["llama", "opt"])
def folder(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("echo") / request.param
    folder = tiny_folder(request.param, path, max_position_embeddings=512)
    edit_json(folder / "tokenizer_config.json", model_max_length=512)
    return folder


@pytest.fixture(scope="module")
def encoder(folder):
    return Echo(str(folder), **CPU)


@pytest.mark.parametrize("layer", [-1, 1])
def test_the_vector_is_the_mean_over_the_second_copy(folder, layer):
    (tokenizer, model), expected = load_plain(folder), []
    for text in SENTENCES:
        prompt = f"Rewrite the sentence: {text}, rewritten sentence: {text}"
        encoded = tokenizer(prompt, return_tensors="pt", return_offsets_mapping=True)
        start, end = len(prompt) - len(text), len(prompt)
        offsets = encoded.pop("offset_mapping")[0]
        second = (offsets[:, 1] > start) & (offsets[:, 0] < end)
        with torch.inference_mode():
            states = model(**encoded, output_hidden_states=True).hidden_states[layer][0]
        expected.append(states[second].mean(0).numpy())
    found = Echo(str(folder), layer=layer, **CPU).encode(SENTENCES)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_both_copies_of_a_long_text_are_truncated_alike(encoder):
    text = " ".join(f"cat {i} sat" for i in range(50))
    network = encoder._network()
    (prompt,) = replace(encoder, max_length=128)._prepare(network)([Item(text)])
    assert prompt.truncated
    assert 126 <= len(prompt.ids) <= 128
    kept = text[: prompt.spans[:, 1].max()]
    decoded = network.tokenizer.decode(prompt.ids, skip_special_tokens=True)
    assert decoded == f"Rewrite the sentence: {kept}, rewritten sentence: {kept}"
    pooled = network.tokenizer.decode(np.array(prompt.ids)[prompt.pooled])
    assert pooled.strip() == kept.strip()


def test_it_keeps_the_contract_of_encoders(encoder):
    assert broken_rules(encoder) == []
