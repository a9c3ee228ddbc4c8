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
from bench.embeddings import cached
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


@pytest.mark.parametrize("make", [InBedder, LLM2Comp])
def test_the_cost_of_token_states_includes_what_a_template_or_memory_adds(tiny, make):
    encoder = make(str(tiny("llama")), **CPU)
    own = cached(encoder)
    read = own.encode_layers(SENTENCES, layers=(1, -1))
    assert own.cost.tokens == encoder.count_tokens([Item(text) for text in SENTENCES])
    assert own.cost.tokens > sum(len(tokens.states) for tokens in read[0])
    assert own.cost.padded_tokens >= own.cost.tokens


def test_the_cost_of_token_states_includes_all_windows_of_a_long_text(tiny):
    own = cached(QuIP(str(tiny("llama")), **CPU))
    (tokens,) = own.encode_long(["word " * 300])  # of at most 128 tokens at once
    assert own.cost.tokens > 1.2 * len(tokens.states)


def test_the_cost_includes_questions(tiny):
    encoder = QuIP(str(tiny("llama")), **CPU)
    own = cached(encoder)
    vectors = own.encode_questions(["Who is it?", "Where?"])
    assert vectors.start.shape == vectors.end.shape == (2, 32)
    read = encoder.count_tokens([Item("Who is it?"), Item("Where?")])
    assert (own.cost.forward_texts, own.cost.tokens) == (2, read)
    assert own.cost.encode_seconds > 0
