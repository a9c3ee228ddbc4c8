"""Ours against published: only what is the same measurement is compared."""

import json
from importlib.resources import files

import pytest

from adapters.quip.encoder import QuIP
from bench.encoder import settings
from bench.errors import UsageError
from bench.reporting import read
from bench.reporting.published import UNTRUSTED, listing, matching, printed
from bench.reporting.tables import tables
from bench.tasks import SUITES
from tests.bench.reporting.made import result

INBEDDER = {
    "card": {"backbone": "BrandonZYW/llama-2-7b-InBedder@0123456789ab"},
    "settings": {"readout": "auto", "layer": -1},
}


def published(store, *results):
    return next(t for t in tables(read(store(*results))) if t.name == "published")


def topics(*repeats, **changes):
    return result(
        "mine",
        "nyt-topic",
        *repeats,
        metric="v_measure",
        readout="embedding for 'x'",
        **{**INBEDDER, **changes},
    )


def test_a_result_of_a_published_checkpoint_stands_beside_the_printed_number(store):
    made = published(store, topics(0.60, 0.61, 0.59, 0.605, 0.595))
    shown = dict(zip(made.columns, made.rows[1], strict=True))
    assert [shown[c].text for c in ("ours", "published", "difference")] == ["60.0", "60.4", "-0.4"]
    assert (shown["variant"].text, shown["provenance"].text) == ("1st-gen, 3 new tokens", "raw")
    assert shown["difference"].mark == ""
    assert len(shown["ours"].key) == 12


def test_a_difference_beyond_the_noise_is_marked(store):
    made = published(store, topics(0.50, 0.51, 0.49, 0.505, 0.495))
    assert {row[made.columns.index("difference")].mark for row in made.rows} == {"warning"}


def test_where_the_noise_is_not_known_nothing_is_marked(store):
    made = published(store, topics(0.10))
    assert {
        (e.mark, bool(e.note)) for row in made.rows for e in [row[made.columns.index("difference")]]
    } == {("", True)}


def test_a_printed_standard_error_counts_as_noise(store):
    def shown(score):
        r = result(
            "mine",
            "mr-question",
            score,
            metric="accuracy",
            card={"backbone": "quip-hf"},
            settings=settings(QuIP("quip-hf")),
        )
        made = published(store, r)
        return [
            (row[made.columns.index("published")].text, row[made.columns.index("difference")].mark)
            for row in made.rows
        ]

    assert shown(0.814) == [("81.9", "")]  # 0.4 printed: 0.5 is within two of them
    assert shown(0.80) == [("81.9", "warning")]


@pytest.mark.parametrize(
    "changes",
    [
        {"limit": 100},
        {"settings": {"readout": "avg-ppt", "layer": -1}},
        {"settings": {"readout": "auto", "layer": 3}},
        {"card": {"backbone": "BrandonZYW/another"}},
    ],
)
def test_another_read_out_layer_checkpoint_or_part_of_the_data_is_not_compared(store, changes):
    found = tables(read(store(topics(0.6, **changes))))
    assert "published" not in {table.name for table in found}


def test_the_layer_that_a_task_reads_chooses_the_variant():
    def variants(layer):
        weights = {"card": {"backbone": "roberta-large"}, "settings": {"attention": "native"}}
        r = result(
            "mine", "mrpc-bertscore", 0.8, metric="auroc", readout=f"bertscore@{layer}", **weights
        )
        return [number.variant for _, number in matching(r)]

    assert (variants(17), variants(16)) == (["zero-shot, layer 17"], [])


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
    weights = {"card": {"backbone": "robinjia/quip-hf"}, "settings": settings(QuIP("quip-hf"))}
    found = [
        printed
        for name, printed in matching(result("mine", task, 0.8, metric=score, **weights))
        if name == score
    ]
    assert [round(printed.value, 3) for printed in found] == [number]


def test_what_is_matched_are_tasks_of_ours_and_printed_numbers():
    matches = json.loads(
        files("bench.reporting").joinpath("matches.json").read_text(encoding="utf-8")
    )
    assert {match["task"] for match in matches["tasks"]} <= {
        name for suite in SUITES.values() for name in suite
    }
    known = {(number.task, number.metric) for number in printed().itertuples()}
    assert {(match["published"], match["metric"]) for match in matches["tasks"]} <= known


def test_numbers_from_memory_match_nothing():
    unsure = [n for n in printed().itertuples() if n.provenance in UNTRUSTED]
    assert unsure
    assert all(n.method == "dino" for n in unsure)
    r = result(
        "mine",
        "stsb",
        0.7,
        metric="cosine_spearman",
        card={"backbone": "sentence-transformers/bert-base-nli-mean-tokens"},
    )
    assert all(number.provenance not in UNTRUSTED for _, number in matching(r))


def test_every_published_number_is_read_on_a_scale_where_one_is_best():
    assert len(printed()) == 2615
    assert (
        len(
            {
                (n.method, n.model, n.variant, n.task, n.metric, n.rounding > 0.0004)
                for n in printed().itertuples()
            }
        )
        > 2400
    )
    assert all(-1 <= n.value <= 1 for n in printed().itertuples())


def test_published_numbers_can_be_looked_up_by_task():
    assert {row[0].text for row in listing(["MRPC"]).rows} == {"MRPC"}
    assert len(listing([]).rows) == len(printed())
    with pytest.raises(UsageError, match="STSBenchmark"):
        listing(["STSbenchmark"])
    with pytest.raises(UsageError, match="bench report --published"):
        listing(["nothing like it"])


def test_published_numbers_can_be_looked_up_by_our_names_of_tasks():
    assert listing(["sts13"]) == listing(["STS13"])
    assert {row[0].text for row in listing(["intent-emotion"]).rows} == {
        "IntentEmotion",
        "IntentEmotion-emotion",
        "IntentEmotion-intent",
    }


def test_our_number_on_texts_the_encoder_was_trained_on_is_warned_of(store):
    made = published(store, topics(0.60, texts={"overlap_share": 0.4}))
    assert {row[made.columns.index("ours")].mark for row in made.rows} == {"warning"}
