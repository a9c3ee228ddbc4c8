"""Checks and independent computations that tests of several adapters share."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
import transformers

from adapters._backbone import Backbone
from adapters._training.budget import TokenCounts
from bench.data import load
from bench.testing import run_checks

CLOSE = {"atol": 1e-5, "rtol": 1e-4}  # float32 sums in another order
CPU = {"dtype": "float32", "device": "cpu"}


def load_network(folder, attention="native", *, head="lm"):
    return Backbone(str(folder), attention, head=head, **CPU).load()


def draw(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def write_rows(path, rows):
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def read_rows(path):
    return [json.loads(line) for line in path.read_text().split("\n") if line]


def edit_json(path, **values):
    """Set values of a JSON file."""
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(known | values))


def broken_rules(encoder):
    return [(o.name, o.reason) for o in run_checks(encoder) if o.status == "failed"]


def mirror(source, home, monkeypatch):
    """Return the folder that a hub id stands for, in a mirror."""
    monkeypatch.setenv("BENCH_DATA", str(home))
    commit = home / "models" / source / "0123456789"
    commit.mkdir(parents=True)
    edit_json(commit.parent / "revisions.json", main=commit.name)
    return commit


def read_plain(folder, auto="AutoModel"):
    """Return tokenizer and model of transformers."""
    model = getattr(transformers, auto).from_pretrained(folder, attn_implementation="eager")
    return transformers.AutoTokenizer.from_pretrained(folder), model.eval()


load_plain = cache(read_plain)


def plain_states(folder, text, layer=-1, *, auto="AutoModel", **options):
    """Return the states (t, dim) that transformers gives a text alone; options truncate it."""
    tokenizer, model = load_plain(folder, auto)
    ids = tokenizer(text, return_tensors="pt", **options)["input_ids"].long()
    with torch.no_grad():
        return model(input_ids=ids, output_hidden_states=True).hidden_states[layer][0]


def merge_by_hand(model, weights, scale=2.0):
    """Add LoRA weights, named as in the model, to the weights of a model of transformers."""
    for name, low in weights.items():
        if "lora_A" in name:
            target = model.get_submodule(name.partition(".lora_A")[0])
            high = weights[name.replace("lora_A", "lora_B")]
            target.weight.data += (scale * high @ low).detach()
    return model


def check_objective(objective, expected, weights, spent, *, count):
    """Compare loss, gradients and token counts with an independent loss, however it is cut."""
    wanted = torch.autograd.grad(expected, weights, retain_graph=True)
    assert all(float(gradient.abs().max()) > 1e-4 for gradient in wanted)
    for positions in (10_000, 60, 1):
        cut = replace(objective, positions=positions)
        parts = [cut.loss(part) for part in cut.parts(range(count))]
        loss = sum(loss for loss, _ in parts)
        assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
        for ours, theirs in zip(torch.autograd.grad(loss, weights), wanted, strict=True):
            torch.testing.assert_close(ours, theirs.to(ours.dtype), rtol=1e-3, atol=1e-5)
        total = sum((tokens for _, tokens in parts), TokenCounts())
        assert replace(total, repeated=0) == spent


def train(recipe, out, budget, progress=lambda *_: None):
    """Train to the end, and return the card."""
    recipe.train(Path(out), budget=budget, seed=1, load=load, progress=progress)
    return json.loads((Path(out) / "card.json").read_text())
