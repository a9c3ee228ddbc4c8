"""Every registered encoder keeps the contract, on tiny random models in the layouts of real ones."""

import dataclasses

import pytest

from bench.encoder import Encoder
from bench.registry import encoder_names, load_encoder
from bench.testing import run_checks
from tests.tiny import tiny_folder

DECODERS, ENCODERS = ("llama", "opt"), ("bert", "roberta", "mpnet", "modernbert")
BACKBONES = {
    "quip": ("llama", "roberta"),
    "dino": ("llama", "roberta"),
    "inbedder": ("llama", "opt", "roberta"),
    "llm2comp": ("llama", "opt"),
    "backbone-mean": (*DECODERS, *ENCODERS),
    "backbone-weighted-mean": ("llama",),
    "backbone-last": ("llama", "opt"),
    "prompteol": ("llama",),
}
"""The architectures on which each encoder that reads a backbone is tried."""

SENTENCE = ("st", "all-MiniLM-L6-v2")
WITHOUT_WEIGHTS = ("hashing",)


def test_every_registered_encoder_is_tried():
    assert {*BACKBONES, *SENTENCE, *WITHOUT_WEIGHTS} == set(encoder_names())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = {}

    def _folder(kind: str, *, head: bool = False):
        if (kind, head) not in made:
            made[kind, head] = tiny_folder(kind, tmp_path_factory.mktemp(kind) / "model", head=head)
        return made[kind, head]

    return _folder


def on(name: str, checkpoint) -> Encoder:
    encoder = load_encoder(name)
    return dataclasses.replace(encoder, checkpoint=str(checkpoint), dtype="float32", device="cpu")


def broken_rules(encoder: Encoder) -> list[tuple[str, str]]:
    return [(outcome.name, outcome.reason) for outcome in run_checks(encoder) if outcome.status == "failed"]


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, kinds in BACKBONES.items() for kind in kinds])
def test_an_encoder_on_a_backbone_keeps_the_contract(name, kind, folder):
    assert broken_rules(on(name, folder(kind))) == []


@pytest.mark.parametrize("readout", ["last-gen", "avg-gen", "avg-ppt", "avg-all"])
def test_every_readout_of_inbedder_keeps_the_contract(readout, folder):
    assert broken_rules(dataclasses.replace(on("inbedder", folder("llama", head=True)), readout=readout)) == []


@pytest.mark.parametrize("name", ["quip", "dino", "backbone-mean"])
def test_bidirectional_attention_keeps_the_contract(name, folder):
    assert broken_rules(dataclasses.replace(on(name, folder("llama")), attention="bidirectional")) == []


@pytest.mark.parametrize("name", SENTENCE)
def test_a_sentence_transformers_folder_keeps_the_contract(name, folder, tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    transformer = Transformer(str(folder("bert")))
    model = SentenceTransformer(modules=[transformer, Pooling(transformer.get_embedding_dimension()), Normalize()], device="cpu")
    model.save(str(tmp_path / "st"))
    assert broken_rules(on(name, tmp_path / "st")) == []


@pytest.mark.parametrize("name", WITHOUT_WEIGHTS)
def test_an_encoder_without_weights_keeps_the_contract(name):
    assert broken_rules(load_encoder(name)) == []
