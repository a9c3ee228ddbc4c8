"""Tiny models and texts that the tests of several adapters read."""

import numpy as np
import pytest

from tests.adapters.checks import load_network, write_rows
from tests.tiny import SENTENCES, tiny_folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Return the folder of a tiny model with its head, made once; nobody may change it."""
    made = {}

    def write(kind, *, head=True, **options):
        key = (kind, head, *options.items())
        if key not in made:
            place = tmp_path_factory.mktemp(kind) / f"{kind}-hf"
            made[key] = tiny_folder(kind, place, head=head, **options)
        return made[key]

    return write


@pytest.fixture(scope="session")
def networks(tiny):
    """Return the network of a tiny model, loaded once; nobody may change it."""
    made = {}

    def load(kind, *, head="lm", attention="native"):
        if (kind, head, attention) not in made:
            made[kind, head, attention] = load_network(tiny(kind), attention, head=head)
        return made[kind, head, attention]

    return load


@pytest.fixture
def trainable(networks):
    """Return a network, and three weights of its first layer to take gradients of."""
    used = []

    def prepare(kind):
        network = networks(kind)
        used.append(network)
        network.model.requires_grad_()
        names = [name for name, _ in network.model.named_parameters() if "0." in name]
        return network, [network.model.get_parameter(n) for n in names if "bias" not in n][:3]

    yield prepare
    for network in used:
        network.model.requires_grad_(requires_grad=False)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """A file of thirty texts, each of five of the tiny models' sentences."""
    rng = np.random.default_rng(0)
    texts = [" ".join(SENTENCES[i] for i in rng.permutation(7)[:5]) for _ in range(30)]
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    return write_rows(path, [{"text": text} for text in texts])
