"""LLM2Comp's contrastive stages on several processes, as ``accelerate launch`` starts them: the gradient is that of one process."""

import itertools

import pytest

from adapters._backbone import Backbone
from adapters._training.loop import _step, launched
from adapters.llm2comp.contrastive import Contrast, Triple, framed, tokenised, twice
from adapters.llm2comp.trainee import prepared
from tests.processes import in_two
from tests.tiny import SENTENCES, tiny_folder

torch = pytest.importorskip("torch")


def write_gradients(process, name, place):
    """Write the loss and the gradient of one step of both stages, with batches in portions and whole."""
    mine = launched()
    network = Backbone(str(place / "base"), head="lm", dtype="float32", device="cpu").load()
    triples = [Triple(framed(a, "Find"), b, SENTENCES[0]) for a, b in itertools.pairwise(SENTENCES)]
    examples = {
        "unsupervised": twice(SENTENCES, network.tokenizer, 40),
        "supervised": tokenised(triples, network.tokenizer, 60),
    }
    found = {}
    for stage, positions in (("unsupervised", 60), ("supervised", 60), ("supervised", 10_000)):
        trainee = prepared(network, 3, "bidirectional", rank=2, seed=5)
        weights, draw = trainee.weights(), torch.Generator().manual_seed(3)
        for weight in weights.values():
            weight.data += 0.2 * torch.randn(weight.shape, generator=draw)
        loss, spent = _step(
            weights,
            range(5),
            Contrast(trainee, examples[stage], 0.5, positions),
            mine,
            network,
            seed=1,
        )
        gradients = {key: weight.grad for key, weight in weights.items()}
        found[f"{stage} {positions}"] = {
            "loss": torch.tensor(loss),
            "spent": torch.tensor(spent.trained),
        } | gradients
    torch.save(found, place / f"{name} {process}.pt")


def test_two_processes_have_the_gradient_of_one(tmp_path):
    tiny_folder("llama", tmp_path / "base", head=True)
    in_two(write_gradients, "of two", tmp_path)
    write_gradients(0, "alone", tmp_path)
    alone, *both = (
        torch.load(tmp_path / f"{name}.pt", weights_only=True)
        for name in ("alone 0", "of two 0", "of two 1")
    )
    assert min(float(found["memory"].abs().max()) for found in alone.values()) > 1e-3
    for found in both:
        torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-3)
