"""Encoders and recipes by name."""

import pytest

from bench.encoder import Encoder
from bench.errors import UsageError
from bench.recipe import Recipe
from bench.registry import (
    describe,
    encoder_names,
    encoder_of,
    expand_names,
    field_names,
    load_encoder,
    load_encoders,
    load_recipe,
    recipe_names,
)


def test_all_stands_for_the_methods_and_the_default_baselines():
    methods = {"quip", "dino", "inbedder", "llm2comp", "llm2vec-gen", "crops"}
    assert set(expand_names(["all"])) == {*methods, "hashing", "backbone-mean", "all-MiniLM-L6-v2"}
    assert expand_names(["dino", "all", "dino"])[0] == "dino"
    assert len(expand_names(["all", "dino"])) == 9


@pytest.mark.parametrize("name", encoder_names())
def test_every_registered_encoder_is_made_without_loading_and_described_in_a_line(name):
    assert isinstance(load_encoder(name), Encoder)
    assert describe(name).endswith(".")


def test_every_registered_recipe_can_be_made():
    assert set(recipe_names()) == {"quip", "dino", "inbedder", "llm2comp", "llm2vec-gen", "crops"}
    assert all(isinstance(load_recipe(name), Recipe) for name in recipe_names())
    with pytest.raises(UsageError, match="did you mean 'inbedder'"):
        load_recipe("inbeder")
    for name in ("dino", "adapters.dino.train:PAPER", "adapters.dino.train:Recipe"):
        assert encoder_of(name, load_recipe(name)) == "dino"


def test_another_checkpoint_and_other_settings_are_named():
    encoder = load_encoder("inbedder:some/folder", {"layer": "7", "readout": "last-gen"})
    assert (encoder.checkpoint, encoder.layer) == ("some/folder", 7)
    assert encoder.readout == "last-gen"


def test_a_label_before_an_encoder_is_its_name_everywhere():
    found = load_encoders(["small=hashing", "hashing"], changes=["small.dim=64"])
    assert {label: encoder.dim for label, encoder in found.items()} == {
        "small": 64,
        "hashing": 1024,
    }
    assert list(load_encoders(["st:a=b"])) == ["st:a=b"]  # an equals sign in a path
    for names in (["=hashing"], ["a="], ["a=hashing", "a=dino"]):
        with pytest.raises(UsageError, match="label"):
            load_encoders(names)


def test_names_are_short_where_no_label_is_given(tmp_path, monkeypatch):
    first, second = (tmp_path / name / "model" for name in "ab")
    for folder in (first, second):
        folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    names = ["quip", "adapters.quip.encoder:QuIP", "echo:a/model/", f"echo:{second}", "st:org/id"]
    found = load_encoders(
        names, changes=["echo:model.dtype=float16", "adapters.quip.encoder:QuIP.dtype=float32"]
    )
    assert list(found) == ["quip", "echo:model", f"echo:{second}", "st:org/id"]
    assert found["echo:model"].checkpoint == "a/model/"
    assert [each.dtype for each in found.values()] == ["float32", "float16", "auto", "auto"]


def test_a_folder_is_asked_for_what_reads_it(tmp_path):
    with pytest.raises(UsageError, match="st:"):
        load_encoder(str(tmp_path))


def test_an_own_encoder_is_named_by_module_and_class():
    encoder = load_encoder("adapters.baseline.hashing:Hashing")
    assert field_names(encoder) == ("dim", "shortest", "longest")
    assert load_encoder("adapters.baseline.pooled:Pooled:some/folder").checkpoint == "some/folder"


@pytest.mark.parametrize(
    ("name", "settings", "hint"),
    [
        ("qip", {}, "'quip'"),
        ("adapters.baseline.hashing:Hasing", {}, "Hasing"),
        ("hashing", {"dmi": "3"}, "'dim'"),
        ("hashing", {"dim": "wide"}, "a whole number"),
        ("hashing", {"dim": "true"}, "a whole number"),
        ("hashing", {"dim": "null"}, "dim"),
        ("nope.module:Class", {}, "no module of this name"),
        ("hashing:folder", {}, "checkpoint"),
        ("json:dumps", {}, "without arguments"),
        ("json:JSONDecoder", {}, "encoder"),
    ],
)
def test_a_name_or_setting_that_does_not_exist_is_an_error_with_what_does(name, settings, hint):
    with pytest.raises(UsageError, match=hint):
        load_encoder(name, settings)
