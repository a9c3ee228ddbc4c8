"""Tokens are counted without weights, and are those that then go through the network."""

import shutil

import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

from adapters.baseline.pooled import Pooled
from adapters.baseline.sentence import SentenceEncoder
from adapters.dino.encoder import DINO
from adapters.inbedder.encoder import InBedder
from adapters.llm2comp.encoder import LLM2Comp
from adapters.quip.encoder import QuIP
from bench.encoder import Item, stream
from tests.adapters.checks import CPU
from tests.tiny import SENTENCES

ITEMS = [
    *(Item(text) for text in ["", *SENTENCES[:3], " ".join(SENTENCES) * 9]),
    *(Item(SENTENCES[0], asked) for asked in ("What is it?", "Where is it?", "Who is it?")),
]


def count_streamed(encoder):
    return sum(int(batch.tokens.sum()) for batch in stream(encoder, ITEMS))


@pytest.mark.parametrize("kind", ["llama", "bert"])
@pytest.mark.parametrize("make", [Pooled, DINO, InBedder, LLM2Comp, QuIP])
def test_the_count_is_that_of_the_run(tiny, make, kind):
    if (make, kind) == (LLM2Comp, "bert"):
        pytest.skip("compresses with decoders alone")
    encoder = make(str(tiny(kind)), **CPU, max_length=64)
    assert encoder.count_tokens([]) == 0
    assert encoder.count_tokens(ITEMS) == count_streamed(encoder)


def test_weights_are_not_read(tiny, tmp_path):
    folder = shutil.copytree(tiny("llama"), tmp_path / "tiny")
    encoder = Pooled(str(folder), **CPU)
    whole = encoder.count_tokens(ITEMS)
    (folder / "model.safetensors").write_bytes(b"")
    assert encoder.count_tokens(ITEMS) == whole


def test_a_model_of_sentence_transformers_counts_with_its_own_limit(tiny, tmp_path):
    transformer = Transformer(str(tiny("bert")), max_seq_length=16)
    pooling = Pooling(transformer.get_embedding_dimension())
    SentenceTransformer(modules=[transformer, pooling], device="cpu").save(str(tmp_path))
    encoder = SentenceEncoder(str(tmp_path), **CPU, prompt="query: ")
    assert encoder.count_tokens(ITEMS) == count_streamed(encoder)
