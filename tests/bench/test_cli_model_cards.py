"""``bench train`` and ``bench export`` write a model card with what the hub reads."""

import json

import pytest
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from bench.cli import app
from bench.testing import write_tiny_backbone
from tests.tiny import SENTENCES


def call(*words):
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == 0, done.output


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint of a few steps."""
    place = tmp_path_factory.mktemp("trained")
    base = write_tiny_backbone(place / "base")
    texts = [" ".join(SENTENCES[i : i + 4]) for i in range(3)]
    (place / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    settings = {"backbone": base, "sources": place / "texts.jsonl", "longest": 60, "rank": 2}
    changes = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    call("train", "crops", "--budget", 1000, "--device", "cpu", "--out", place / "made", *changes)
    return place / "made"


def test_a_training_and_an_export_of_it_say_on_their_cards_what_they_are(trained, tmp_path):
    call("export", "sentence-transformers", trained, tmp_path / "whole", "--device", "cpu")
    for folder, library in ((trained, "peft"), (tmp_path / "whole", "sentence-transformers")):
        card = ModelCard.load(folder / "README.md")
        assert card.data.library_name == library
        assert {"crops", "encoder-recipes-bench"} <= set(card.data.tags)
        assert "- budget: `1,000`" in card.text
