"""Ours against published: only what is the same measurement is compared."""

import json
from importlib.resources import files

import pytest

from adapters.baseline.pooled import backbone_mean, prompteol
from adapters.quip.encoder import QuIP
from bench.encoder import settings
from bench.errors import UsageError
from bench.reporting.comparison import Comparison
from bench.reporting.published import UNTRUSTED, listing, matching, printed
from bench.reporting.tables import tables
from bench.tasks import SUITES, load_suite
from tests.bench.reporting.made import result

INBEDDER = {
    "card": {"backbone": "BrandonZYW/llama-2-7b-InBedder@0123456789ab"},
    "settings": {"readout": "auto", "layer": -1},
    "metric": "v_measure",
    "readout": "embedding for 'What is the topic of news?'",
}
HF = {"card": {"backbone": "robinjia/quip-hf"}, "settings": settings(QuIP("quip-hf"))}


def columns_of(*results):
    """The columns of the table by name, or nothing without one."""
    for table in tables(Comparison.of(results)):
        if table.name == "published":
            return dict(zip(table.columns, zip(*table.rows, strict=True), strict=True))
    return {}


def topics(*repeats, **changes):
    return columns_of(result("mine", "nyt-topic", *repeats, **{**INBEDDER, **changes}))


def marks(found, name="difference"):
    return {entry.mark for entry in found[name]}


def test_a_result_of_a_published_checkpoint_stands_beside_the_printed_number():
    found = topics(0.60, 0.61, 0.59, 0.605, 0.595)
    shown = {name: entries[1].text for name, entries in found.items()}
    expected = {"ours": "60.0", "published": "60.4", "difference": "-0.4", "provenance": "raw"}
    expected["variant"] = "1st-gen, 3 new tokens"
    assert expected.items() <= shown.items()
    assert found["difference"][1].mark == ""
    assert len(found["ours"][1].key) == 12


def test_a_difference_beyond_the_noise_is_marked_and_none_where_the_noise_is_not_known():
    assert marks(topics(0.50, 0.51, 0.49, 0.505, 0.495)) == {"warning"}
    unknown = topics(0.10)
    assert marks(unknown) == {""}
    assert all(entry.note for entry in unknown["difference"])
    assert marks(topics(0.60, texts={"overlap_share": 0.4}), "ours") == {"warning"}
    # 0.4 is printed as the standard error: 0.5 is within two of them.
    for score, mark in ((0.814, ""), (0.80, "warning")):
        found = columns_of(result("mine", "mr-question", score, metric="accuracy", **HF))
        assert [entry.text for entry in found["published"]] == ["81.9"]
        assert marks(found) == {mark}


@pytest.mark.parametrize(
    "changes",
    [
        {"limit": 100},
        {"settings": {"readout": "avg-ppt", "layer": -1}},
        {"settings": {"readout": "auto", "layer": 3}},
        {"card": {"backbone": "BrandonZYW/another"}},
        {"card": {**INBEDDER["card"], "training": {"method": "inbedder"}}},  # trained on from it
        {"readout": "embedding for 'Summarise it.'"},
        {"readout": "embedding for 'What is the topic of news?', 10 wordings (abcdef)"},
    ],
)
def test_another_readout_layer_checkpoint_instruction_or_part_of_the_data_is_not_compared(changes):
    assert not topics(0.6, **changes)


@pytest.mark.parametrize(
    ("settings", "compared"),
    [
        ({"prompt": None}, True),
        ({"prompt": "query: "}, False),
        ({"texts": "evaluated"}, False),  # whitened or renormalised
    ],
)
def test_a_model_is_compared_as_it_was_published(settings, compared):
    card = {"backbone": "intfloat/e5-large-v2", "instructed_sides": []}
    about = {"metric": "map_at_1000", "readout": "embedding for 'Retrieve.'", "card": card}
    found = list(matching(result("mine", "SciDocsRR", 0.8, settings=settings, **about)))
    assert bool(found) == compared  # whatever the instruction, which it does not read


def test_instructions_of_the_paper_are_those_of_its_suite():
    text = files("bench.reporting").joinpath("matches.json").read_text(encoding="utf-8")
    asked = {m["task"]: m["instruction"] for m in json.loads(text)["tasks"] if "instruction" in m}
    suite = {task.name: task.instruction for task in load_suite("inbedder-paper")}
    assert asked == {name: instruction for name, instruction in suite.items() if instruction}


def test_the_layer_that_a_task_reads_chooses_the_variant():
    weights = {"card": {"backbone": "roberta-large"}, "settings": {"attention": "native"}}
    for layer, variants in ((17, ["zero-shot, layer 17"]), (16, [])):
        about = {"metric": "auroc", "readout": f"bertscore@{layer}", **weights}
        found = matching(result("mine", "mrpc-bertscore", 0.8, **about))
        assert [number.variant for _, number in found] == variants


def test_token_states_in_a_template_of_ones_own_are_not_compared():
    about = {"metric": "auroc", "readout": "bertscore@17", "card": {"backbone": "roberta-large"}}
    for encoder, compared in ((backbone_mean(), True), (prompteol(), False)):
        own = result("mine", "mrpc-bertscore", 0.8, settings=settings(encoder), **about)
        assert bool(list(matching(own))) == compared


@pytest.mark.parametrize(
    ("task", "score", "number"),
    [
        ("sst2-question", "accuracy", 0.879),
        ("mrpc-fewshot", "f1", 0.826),
        ("wnut17-tuned-question", "f1", 0.496),
        ("squad", "exact_match", 0.852),
    ],
)
def test_the_published_encoder_of_quip_as_it_loads_by_default_is_compared(task, score, number):
    matched = matching(result("mine", task, 0.8, metric=score, **HF))
    assert [round(found.value, 3) for name, found in matched if name == score] == [number]


def test_what_is_matched_are_tasks_of_ours_and_printed_numbers_that_are_trusted():
    text = files("bench.reporting").joinpath("matches.json").read_text(encoding="utf-8")
    matches, numbers = json.loads(text)["tasks"], printed()
    assert {match["task"] for match in matches} <= set().union(*SUITES.values())
    known = set(zip(numbers.task, numbers.metric, strict=True))
    assert {(match["published"], match["metric"]) for match in matches} <= known
    assert {*numbers[numbers.provenance.isin(UNTRUSTED)].method} == {"dino"}  # from memory
    card = {"backbone": "sentence-transformers/bert-base-nli-mean-tokens"}
    found = matching(result("mine", "stsb", 0.7, metric="cosine_spearman", card=card))
    assert all(number.provenance not in UNTRUSTED for _, number in found)


def test_every_published_number_is_read_on_a_scale_where_one_is_best():
    numbers = printed()
    assert len(numbers) == 2653
    assert numbers.value.between(-1, 1).all()
    coarse = numbers.assign(coarse=numbers.rounding > 0.0004)
    assert (
        len(coarse.drop_duplicates(["method", "model", "variant", "task", "metric", "coarse"]))
        > 2400
    )


def test_published_numbers_can_be_looked_up_by_their_names_of_tasks_and_ours():
    def names(*asked):
        return {row[0].text for row in listing([*asked]).rows}

    assert names("MRPC") == {"MRPC"}
    assert len(listing([]).rows) == len(printed())
    assert listing(["sts13"]) == listing(["STS13"])
    intents = {"IntentEmotion", "IntentEmotion-emotion", "IntentEmotion-intent"}
    assert names("intent-emotion") == intents
    for wrong, told in (("STSbenchmark", "STSBenchmark"), ("nothing", "bench report --published")):
        with pytest.raises(UsageError, match=told):
            listing([wrong])
