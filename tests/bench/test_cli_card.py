"""``bench card``: a README whose metadata the hub reads, with nothing that is not known."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from bench.encoder import card, fingerprint, settings
from bench.registry import load_encoder
from bench.reporting.modelcard import model_card, results_of, write_model_card
from bench.store import Store
from bench.store.result import Result
from bench.task import Score
from bench.testing import write_tiny_backbone
from tests.bench.commands import ROOT, call, refused

GOLDEN = ROOT / "tests/golden/result.json"


@pytest.fixture
def encoder(tmp_path):
    folder = write_tiny_backbone(tmp_path / "my-model")
    made = {
        "method": "dino", "backbone": "org/base@1234abcd", "budget": 1000, "seed": 7,
        "trained_tokens": 990, "seconds": 12.5, "command": "bench train dino --budget 1000",
        "data": [
            {"id": "rajpurkar/squad/train", "licence": "CC BY-SA 4.0", "rows": 8,
             "pin": {"source": "hub"}},
            {"id": str(Path.home() / "secret" / "texts.jsonl"), "licence": "", "rows": 3,
             "pin": {"source": "file"}},
        ],
    }  # fmt: skip
    (folder / "card.json").write_text(json.dumps(made))
    return load_encoder(f"dino:{folder}", {"dtype": "float32", "device": "cpu"})


def result(encoder, **changes) -> Result:
    golden = Result.from_json(json.loads(GOLDEN.read_text()))
    spec = replace(
        golden.spec, settings=settings(encoder), fingerprint=fingerprint(encoder), **changes
    )
    own = {"weights": card(encoder).weights, "dtype": "float32"}
    scores = {"cosine_spearman": Score((0.625,))}
    return replace(golden, spec=spec, card=own, scores=scores)


def test_the_metadata_is_read_by_the_hub_s_library(encoder):
    found = [result(encoder), result(encoder, limit=50)]
    text = model_card("dino", encoder, found, library="peft", folder="my-model")
    data = ModelCard(text).data
    assert (data.base_model, data.datasets) == ("org/base", ["rajpurkar/squad"])
    assert (data.library_name, data.license) == ("peft", None)
    (measured,) = data.eval_results  # the limited score is not one of the data set
    assert (measured.dataset_type, measured.task_type) == ("mteb/stsbenchmark-sts", "STS")
    assert (measured.metric_type, measured.metric_value) == ("cosine_spearman", 0.625)
    assert "at most 50" in text
    assert "bench train dino --budget 1000" in text
    assert str(Path.home()) not in text
    assert "secret" not in text
    assert "bench export sentence-transformers dino:my-model" in text


def test_the_settings_that_the_scores_belong_to_are_named_and_in_the_example(encoder, tmp_path):
    changed = replace(encoder, max_length=64, attention="bidirectional", dtype="bfloat16")
    text = model_card("dino", changed, [result(changed)], folder="my-model")
    code = text.partition("```python")[2].partition("```")[0]
    assert "load_encoder(\"dino:my-model\", attention='bidirectional', max_length=64)" in code
    facts = text.partition("## Use")[0].replace("\\", "")
    assert "- Settings: attention='bidirectional', max_length=64\n" in facts
    other = load_encoder(f"inbedder:{encoder.checkpoint}", {"reencoder": f"st:{tmp_path}/mine"})
    assert "reencoder='st:mine'" in model_card("inbedder", other, folder="my-model")
    assert "- Settings" not in model_card("dino", encoder, folder="my-model")


def test_results_on_one_data_set_are_told_apart_by_task_and_readout(encoder):
    asked = ("stsb", "embedding"), ("stsb", "embedding for 'x'"), ("stsb-other", "embedding")
    found = [result(encoder, task=task, readout=readout) for task, readout in asked]
    text = model_card("dino", encoder, found)
    measured = ModelCard(text).data.eval_results
    expected = [(f"cosine_spearman of {task}", readout) for task, readout in asked]
    assert [(each.metric_name, each.metric_args["readout"]) for each in measured] == expected
    assert {each.dataset_name for each in measured} == {"mteb/stsbenchmark-sts"}
    assert "| stsb | embedding for 'x' | cosine_spearman |" in text.replace("\\", "")


def test_the_example_loads_the_encoder_that_was_scored_and_not_the_method_of_the_folder(encoder):
    other = load_encoder(f"backbone-mean:{encoder.checkpoint}")
    text = model_card("backbone-mean:my-model", other, [result(other)], folder="my-model")
    assert 'bench.load_encoder("backbone-mean:my-model").encode' in text
    text = model_card("mine", encoder, [result(encoder)], folder="my-model")  # a label
    assert 'bench.load_encoder("dino:my-model").encode' in text


def test_results_in_several_dtypes_are_told_apart(encoder):
    one = result(encoder)
    found = [replace(one, card={**one.card, "dtype": dtype}) for dtype in "ab"]
    measured = ModelCard(model_card("dino", encoder, found)).data.eval_results
    assert [each.metric_args["dtype"] for each in measured] == ["a", "b"]
    exact = {**settings(encoder), "exact": True}
    alone = replace(one, spec=replace(one.spec, settings=exact))
    text = model_card("dino", encoder, [one, alone])
    measured = ModelCard(text).data.eval_results
    assert [each.metric_args["exact"] for each in measured] == [False, True]
    assert "| float32, exact |" in text


def test_a_mean_over_several_configurations_is_of_none_of_them(encoder):
    one = result(encoder)
    (read,) = one.provenance["data"]
    several = [{**read, "config": config} for config in ("en", "fr")]
    for data, config in ((several[:1], "en"), (several, None)):
        found = replace(one, provenance={**one.provenance, "data": data})
        (measured,) = ModelCard(model_card("dino", encoder, [found])).data.eval_results
        assert measured.dataset_config == config


def test_without_results_and_training_a_card_claims_nothing():
    text = model_card("hashing", load_encoder("hashing"))
    data = ModelCard(text).data
    assert (data.base_model, data.datasets, data.eval_results) == (None, None, None)
    assert "## Results" not in text
    assert "## Training" not in text
    assert "cannot be exported to sentence-transformers" in text


def test_results_are_those_of_the_same_version_weights_and_settings(encoder):
    own = result(encoder)
    other = replace(own, spec=replace(own.spec, fingerprint="of an older version"))
    earlier = result(encoder, task_version=own.spec.task_version - 1)
    foreign = replace(own, card={**own.card, "weights": "others", "dtype": "int8"})
    assert results_of(encoder, [own, other, earlier, foreign]) == [own]
    assert results_of(replace(encoder, max_length=64), [own]) == []
    assert results_of(replace(encoder, dtype="bfloat16"), [own]) == [own]


def test_the_command_writes_beside_the_weights_and_replaces_no_other_readme(encoder, tmp_path):
    store, folder = Store(tmp_path / "results"), Path(encoder.checkpoint)
    store[result(encoder).spec] = result(encoder)
    words = ("card --results", tmp_path / "results", folder)
    for _ in range(2):
        done = call(*words)
        assert (done.exit_code, done.stdout) == (0, f"{folder / 'README.md'}\n"), done.stderr
    text = (folder / "README.md").read_text()
    assert ModelCard(text).data.eval_results[0].metric_value == 0.625
    (folder / "README.md").write_text("mine")
    assert refused(*words)
    assert (folder / "README.md").read_text() == "mine"
    write_model_card(tmp_path / "card.md", text)
    printed = call("card hashing --results", tmp_path / "none")
    assert (printed.exit_code, printed.stdout[:4]) == (0, "---\n")
    assert 'bench.load_encoder("hashing").encode' in printed.stdout
    untrained = call("card backbone-mean --results", tmp_path / "none").stdout
    assert 'bench.load_encoder("backbone-mean").encode' in untrained
    assert "bench export sentence-transformers backbone-mean NEW_FOLDER" in untrained
