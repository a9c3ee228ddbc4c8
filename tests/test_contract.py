"""Every registered encoder passes the contract, on tiny random models in real layouts."""

import copy
import dataclasses
from functools import cache

import pytest

from adapters._network import Network
from adapters.baseline.pooled import Pooled
from bench.encoder import Encoder
from bench.registry import encoder_names, load_encoder
from bench.testing import encoders, run_checks
from bench.testing.rules import try_rules
from tests.tiny import tiny_folder

BACKBONES = {
    "quip": ("roberta",),
    "dino": ("roberta",),
    "inbedder": ("llama", "roberta"),
    "llm2comp": ("llama",),
    "crops": ("llama",),
    "llm2vec-gen": ("llama",),
    "backbone-mean": ("llama", "bert", "roberta", "mpnet", "modernbert"),
    "backbone-weighted-mean": ("llama",),
    "backbone-last": ("opt",),
    "prompteol": ("llama",),
}
"""The architectures on which each encoder is tried: all of them for the common code."""

SENTENCE = ("st", "all-MiniLM-L6-v2")  # one class
WITHOUT_WEIGHTS = ("hashing",)
ELSEWHERE = ("echo", "renormalised", "whitened")  # test_echo.py, test_postprocessing.py
KNOWN = {*BACKBONES, *SENTENCE, *WITHOUT_WEIGHTS, *ELSEWHERE}
ON_CPU = {"dtype": "float32", "device": "cpu"}
CASES = [(name, kind, {}) for name, kinds in BACKBONES.items() for kind in kinds]
CASES += [("inbedder", "llama", {"readout": readout}) for readout in ("avg-gen", "avg-all")]
CASES.append(("quip", "llama", {"attention": "bidirectional"}))


def test_every_encoder_that_is_tried_is_registered():
    assert set(encoder_names()) >= KNOWN


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return the folder of a tiny model with its head, made once."""

    @cache
    def _folder(kind: str) -> str:
        return str(tiny_folder(kind, tmp_path_factory.mktemp(kind) / "model", head=True))

    return _folder


def broken_rules(encoder: Encoder) -> dict[str, str]:
    return {o.name: o.reason for o in run_checks(encoder) if o.status == "failed"}


@pytest.mark.parametrize("name", sorted({*encoder_names()} - KNOWN | {*WITHOUT_WEIGHTS}))
def test_an_encoder_without_weights_or_that_was_added_keeps_the_contract_as_it_is(name):
    assert broken_rules(load_encoder(name)) == {}


@pytest.mark.parametrize(
    ("name", "kind", "settings"), CASES, ids=lambda value: str(value).strip("{}")
)
def test_an_encoder_on_a_backbone_keeps_the_contract(name, kind, settings, folder):
    tiny = {"checkpoint": folder(kind), **ON_CPU}
    assert broken_rules(dataclasses.replace(load_encoder(name), **tiny, **settings)) == {}


def test_a_sentence_transformers_folder_keeps_the_contract(folder, tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    transformer = Transformer(folder("bert"))
    pooling = Pooling(transformer.get_embedding_dimension())
    model = SentenceTransformer(modules=[transformer, pooling, Normalize()], device="cpu")
    model.save(str(tmp_path / "st"))
    tiny = {"checkpoint": str(tmp_path / "st"), **ON_CPU}
    assert broken_rules(dataclasses.replace(load_encoder("st"), **tiny)) == {}


class DropoutLeftOn(Pooled):
    def _network(self):
        network = super()._network()
        model = copy.deepcopy(network.model).train()  # the loaded one is shared
        return dataclasses.replace(network, model=model)


class Unmasked(Network):
    def _needed(self, mask):
        return None


class AttentionToPadding(Pooled):
    def _network(self):
        return Unmasked(**vars(super()._network()))


class NoTruncation(Pooled):
    def _network(self):
        return dataclasses.replace(super()._network(), max_length=1 << 30)


@pytest.mark.parametrize(
    ("planted", "rule"),
    [(DropoutLeftOn, "repeatable"), (AttentionToPadding, "batching"), (NoTruncation, "long_text")],
)
def test_a_fault_of_a_real_network_is_larger_than_the_tolerance(planted, rule, folder):
    """The other faults are planted in ``tests/bench/test_testing.py``."""
    settings = {"max_length": 1 << 30} if planted is NoTruncation else {}
    encoder = planted(checkpoint=folder("bert"), **ON_CPU, **settings)
    (outcome,) = try_rules([getattr(encoders, f"check_{rule}")], encoder)
    assert outcome.status == "failed"
