"""Every registered encoder passes the contract, on tiny random models in real layouts."""

import copy
import dataclasses

import numpy as np
import pytest

from adapters import _batching
from adapters._network import Network
from adapters.baseline.pooled import Pooled
from bench.encoder import Encoder
from bench.registry import encoder_names, load_encoder
from bench.testing import run_checks
from tests.tiny import tiny_folder

DECODERS, ENCODERS = ("llama", "opt"), ("bert", "roberta", "mpnet", "modernbert")
BACKBONES = {
    "quip": ("roberta",),
    "dino": ("roberta",),
    "inbedder": ("llama", "roberta"),
    "llm2comp": ("llama",),
    "crops": ("llama",),
    "backbone-mean": (*DECODERS, *ENCODERS),
    "backbone-weighted-mean": ("llama",),
    "backbone-last": ("opt",),
    "prompteol": ("llama",),
}
"""The architectures on which each encoder is tried: all of them for the common code."""

SENTENCE = ("st", "all-MiniLM-L6-v2")  # one class
WITHOUT_WEIGHTS = ("hashing",)
ELSEWHERE = ("echo", "renormalised", "whitened")  # test_echo.py, test_postprocessing.py
ANSWERING = ("inbedder",)  # in words, with the head of a language model


KNOWN = {*BACKBONES, *SENTENCE, *WITHOUT_WEIGHTS, *ELSEWHERE}


def test_every_encoder_that_is_tried_is_registered():
    assert set(encoder_names()) >= KNOWN


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
    return [
        (outcome.name, outcome.reason)
        for outcome in run_checks(encoder)
        if outcome.status == "failed"
    ]


@pytest.mark.parametrize("name", sorted({*encoder_names()} - KNOWN))
def test_an_encoder_that_was_added_keeps_the_contract_as_it_is(name):
    assert broken_rules(load_encoder(name)) == []


@pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name, kinds in BACKBONES.items() for kind in kinds]
)
def test_an_encoder_on_a_backbone_keeps_the_contract(name, kind, folder):
    assert broken_rules(on(name, folder(kind, head=name in ANSWERING))) == []


@pytest.mark.parametrize("readout", ["avg-gen", "avg-all"])
def test_every_readout_of_inbedder_keeps_the_contract(readout, folder):
    encoder = dataclasses.replace(on("inbedder", folder("llama", head=True)), readout=readout)
    assert broken_rules(encoder) == []


def test_bidirectional_attention_keeps_the_contract(folder):
    encoder = dataclasses.replace(on("quip", folder("llama")), attention="bidirectional")
    assert broken_rules(encoder) == []


def test_a_sentence_transformers_folder_keeps_the_contract(folder, tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    transformer = Transformer(str(folder("bert")))
    model = SentenceTransformer(
        modules=[transformer, Pooling(transformer.get_embedding_dimension()), Normalize()],
        device="cpu",
    )
    model.save(str(tmp_path / "st"))
    assert broken_rules(on("st", tmp_path / "st")) == []


def test_an_encoder_without_weights_keeps_the_contract():
    assert broken_rules(load_encoder("hashing")) == []


class DropoutLeftOn(Pooled):
    def _network(self):
        network = super()._network()
        return dataclasses.replace(
            network, model=copy.deepcopy(network.model).train()
        )  # the loaded one is shared


class Unmasked(Network):
    def _needed(self, mask):
        return None


class AttentionToPadding(Pooled):
    def _network(self):
        return Unmasked(**vars(super()._network()))


class OwnForward(Pooled):
    """A backbone with a faulty way from ids to vectors."""

    def stream(self, items):
        network = self._network()
        return _batching.stream(
            items,
            self._prepare(network),
            lambda ids, mask: self.forward(network, ids, mask),
            network,
        )


class MeanOverPadding(OwnForward):
    def forward(self, network, ids, mask):
        return network.hidden_states(ids, mask).mean(dim=1)


class LastPositionWhateverItIs(OwnForward):
    def forward(self, network, ids, mask):
        return network.hidden_states(ids, mask)[:, -1]


class PaddedOnTheLeftWithPositionsFromTheRight(OwnForward):
    def forward(self, network, ids, mask):
        import torch

        shifted = (torch.arange(ids.shape[1]) + mask.sum(1, keepdim=True)) % ids.shape[1]
        ids, mask = ids.gather(1, shifted), mask.gather(1, shifted)
        states = network.model.base_model(ids, attention_mask=mask).last_hidden_state
        return (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


class SeedsTheNetworkGlobally(OwnForward):
    def forward(self, network, ids, mask):
        import torch

        torch.manual_seed(0)
        return network.hidden_states(ids, mask)[:, 0]


class HalfPrecision(Pooled):
    def encode(self, texts, *, instruction=""):
        return super().encode(texts).astype(np.float16)


class NoTruncation(Pooled):
    def _network(self):
        return dataclasses.replace(super()._network(), max_length=1 << 30)


PLANTED = {
    (DropoutLeftOn, "bert"): "repeatable",
    (AttentionToPadding, "bert"): "batching",
    (MeanOverPadding, "bert"): "batching",
    (LastPositionWhateverItIs, "llama"): "batching",
    (PaddedOnTheLeftWithPositionsFromTheRight, "bert"): "batching",
    (SeedsTheNetworkGlobally, "bert"): "no side effects",
    (HalfPrecision, "bert"): "shape",
    (NoTruncation, "bert"): "long text",
}
"""Faults planted one by one in a sound adapter, and the rule that finds each."""


@pytest.mark.parametrize(
    ("planted", "rule"),
    PLANTED.items(),
    ids=lambda x: x if isinstance(x, str) else f"{x[0].__name__}-{x[1]}",
)
def test_a_fault_on_a_real_network_is_caught_by_the_rule_named_for_it(planted, rule, folder):
    faulty, kind = planted
    length = {"max_length": 1 << 30} if faulty is NoTruncation else {}
    encoder = faulty(checkpoint=str(folder(kind)), dtype="float32", device="cpu", **length)
    broken = dict(broken_rules(encoder))
    assert rule in broken
    assert not broken[rule].startswith("raised") or faulty is NoTruncation


def test_a_planted_fault_leaves_the_sound_encoder_as_it_was(folder):
    DropoutLeftOn(checkpoint=str(folder("bert")), dtype="float32", device="cpu").encode(["a"])
    assert broken_rules(on("backbone-mean", folder("bert"))) == []
