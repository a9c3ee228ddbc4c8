"""Echo embeddings against a plain computation, one text at a time."""

import json
from dataclasses import replace

import numpy as np
import pytest

from adapters.echo import Echo
from bench.encoder import Item
from bench.testing import run_checks
from tests.tiny import SENTENCES, tiny_folder

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module", params=["llama", "opt"])
def folder(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("echo") / request.param
    folder = tiny_folder(request.param, path, max_position_embeddings=512)
    settings = folder / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"model_max_length": 512}))
    return folder


@pytest.fixture(scope="module")
def encoder(folder):
    return Echo(str(folder), dtype="float32", device="cpu")


@pytest.mark.parametrize("layer", [-1, 1])
def test_the_vector_is_the_mean_over_the_second_copy(folder, layer):
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    expected = []
    for text in SENTENCES:
        prompt = f"Rewrite the sentence: {text}, rewritten sentence: {text}"
        encoded = tokenizer(prompt, return_tensors="pt", return_offsets_mapping=True)
        start, end = len(prompt) - len(text), len(prompt)
        offsets = encoded.pop("offset_mapping")[0]
        second = (offsets[:, 1] > start) & (offsets[:, 0] < end)
        with torch.inference_mode():
            states = model(**encoded, output_hidden_states=True).hidden_states[layer][0]
        expected.append(states[second].mean(0).numpy())
    found = Echo(str(folder), layer=layer, dtype="float32", device="cpu").encode(SENTENCES)
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
    assert [check.reason for check in run_checks(encoder) if check.status == "failed"] == []
