"""Tokens are counted without weights, and are those that then go through the network."""

import pytest

from adapters.baseline.pooled import Pooled
from adapters.baseline.sentence import SentenceEncoder
from adapters.dino.encoder import DINO
from adapters.inbedder.encoder import InBedder
from adapters.llm2comp.encoder import LLM2Comp
from adapters.quip.encoder import QuIP
from bench.encoder import Item, stream
from tests.tiny import SENTENCES, tiny_folder

ITEMS = [
    *(Item(text) for text in ["", *SENTENCES[:3], " ".join(SENTENCES) * 9]),
    *(Item(SENTENCES[0], asked) for asked in ("What is it?", "Where is it?", "Who is it?")),
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    home = tmp_path_factory.mktemp("models")
    return {name: str(tiny_folder(name, home / name)) for name in ("llama", "bert")}


@pytest.mark.parametrize("kind", ["llama", "bert"])
@pytest.mark.parametrize("make", [Pooled, DINO, InBedder, LLM2Comp, QuIP])
def test_the_count_is_that_of_the_run(folders, make, kind):
    if (make, kind) == (LLM2Comp, "bert"):
        pytest.skip("compresses with decoders alone")
    encoder = make(folders[kind], dtype="float32", device="cpu", max_length=64)
    assert encoder.count_tokens([]) == 0
    assert encoder.count_tokens(ITEMS) == sum(int(b.tokens.sum()) for b in stream(encoder, ITEMS))


def test_weights_are_not_read(tmp_path):
    folder = tiny_folder("llama", tmp_path / "tiny")
    encoder = Pooled(str(folder), dtype="float32", device="cpu")
    whole = encoder.count_tokens(ITEMS)
    (folder / "model.safetensors").write_bytes(b"")
    assert encoder.count_tokens(ITEMS) == whole


def test_a_model_of_sentence_transformers_counts_with_its_own_limit(folders, tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    transformer = Transformer(folders["bert"], max_seq_length=16)
    pooling = Pooling(transformer.get_embedding_dimension())
    SentenceTransformer(modules=[transformer, pooling], device="cpu").save(str(tmp_path))
    encoder = SentenceEncoder(str(tmp_path), dtype="float32", device="cpu", prompt="query: ")
    assert encoder.count_tokens(ITEMS) == sum(int(b.tokens.sum()) for b in stream(encoder, ITEMS))
