"""Encoders as folders of sentence-transformers: the same vectors, or a reason in one line."""

from dataclasses import replace

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from typer.testing import CliRunner

from bench.cli import app
from bench.errors import UsageError
from bench.registry import load_encoder
from tests.adapters.checks import CPU
from tests.tiny import SENTENCES

TEXTS = [*SENTENCES, 'He said "no."', " spaces \n", "word, " * 300]


def on(name, checkpoint, **settings):
    return replace(load_encoder(name), checkpoint=str(checkpoint), **CPU, **settings)


def exported(encoder, place):
    encoder.check_export()
    encoder.export_sentence_transformers(place)
    return SentenceTransformer(str(place), device="cpu", trust_remote_code=False)


@pytest.mark.parametrize(
    ("name", "kind", "settings"),
    [
        ("backbone-mean", "bert", {"template": "query: {text}", "normalise": True}),
        ("backbone-weighted-mean", "llama", {}),
        ("backbone-last", "opt", {}),
        ("dino", "roberta", {}),
        ("crops", "mpnet", {}),
        ("quip", "llama", {}),
        ("llm2comp", "llama", {"attention": "native", "k": 3}),
        ("llm2vec-gen", "llama", {"passage": ""}),
        ("prompteol", "llama", {}),
        ("inbedder", "llama", {}),
    ],
)
def test_an_exported_encoder_gives_the_same_vectors(name, kind, settings, tiny, tmp_path):
    encoder = on(name, tiny(kind), **settings)
    model = exported(encoder, tmp_path / "made")
    wanted = encoder.encode(TEXTS)
    for encode in (model.encode, model.encode_query, model.encode_document):
        np.testing.assert_allclose(encode(TEXTS), wanted, atol=1e-5, rtol=1e-4)
    assert np.abs(wanted - wanted.mean(0)).max() > 0.01
    read = on("st", tmp_path / "made")
    np.testing.assert_allclose(read.encode(TEXTS), wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "settings"),
    [("inbedder", {}), ("llm2comp", {"attention": "native", "k": 2}), ("llm2vec-gen", {})],
)
def test_the_prompt_of_an_exported_encoder_is_the_instruction(name, settings, tiny, tmp_path):
    encoder = on(name, tiny("llama"), **settings)
    model = exported(encoder, tmp_path / "made")
    question, texts = "Which animal is it?", TEXTS[:-1]
    wanted = encoder.encode(texts, instruction=question)
    np.testing.assert_allclose(model.encode(texts, prompt=question), wanted, atol=1e-5, rtol=1e-4)
    assert np.abs(wanted - encoder.encode(texts)).max() > 1e-3


@pytest.mark.parametrize(
    ("name", "kind", "settings", "why"),
    [
        ("echo", "llama", {}, "second copy"),
        ("backbone-mean", "llama", {"layer": 1}, "layer 1"),
        ("backbone-mean", "llama", {"attention": "bidirectional"}, "bidirectional"),
        ("dino", "llama", {"attention": "bidirectional"}, "bidirectional"),
        ("quip", "roberta", {}, "last layer"),
        ("quip", "llama", {"readout": "question"}, "heads"),
        ("llm2comp", "llama", {"k": 0}, "k=0"),
        ("llm2vec-gen", "llama", {"chat": True}, "chat=true"),
        ("inbedder", "llama", {"readout": "avg-gen"}, "avg-gen"),
    ],
)
def test_what_cannot_be_exported_says_why(name, kind, settings, why, tiny, tmp_path):
    encoder = on(name, tiny(kind), **settings)
    with pytest.raises(UsageError, match=why) as error:
        exported(encoder, tmp_path / "made")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "made").exists()


def test_the_command_writes_a_folder_once(tiny, tmp_path):
    words = ["export", "sentence-transformers", f"backbone-mean:{tiny('bert')}"]
    for code in (0, 2):
        done = CliRunner().invoke(app, [*words, str(tmp_path / "made"), "--device", "cpu"])
        assert done.exit_code == code, done.stderr
    assert done.stderr.startswith("error: expected a new or empty folder")
    refused = CliRunner().invoke(app, [*words[:2], "hashing", str(tmp_path / "other")])
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
