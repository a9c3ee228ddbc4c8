import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench.encoder import Encoder
from bench.errors import Unavailable, UsageError
from bench.task import APART, Task
from bench.tasks import SUITES, TASKS, describe_suite, load_suite, load_task
from bench.testing import check_task

FAMILIES = {
    "sts", "paraphrase", "sentiment", "ner", "clustering", "instruction", "classification",
    "retrieval",
}  # fmt: skip
OTHER_FAMILIES = {"robustness"}  # thirty times the texts
SAMPLES = (
    "stsb", "instruct-stsb", "stsb-paraphrase", "stsb-paraphrase-bertscore", "mrpc-picked",
    "mrpc-fewshot", "mrpc-tuned", "movie-reviews", "movie-reviews-question",
    "movie-reviews-prompt", "movie-reviews-probe", "tweet-ner", "tweet-ner-question",
    "wnut17-start-question", "wnut17-tuned-standard", "faq-clustering", "faq-awareness",
    "trec-robustness", "intent-emotion", "stsb-spectrum", "xquad", "faq-retrieval",
    "faq-categories",
)  # fmt: skip
"""Tasks of every class, on packaged data where there is one."""

GOLDEN = json.loads(Path(__file__).with_name("golden.json").read_bytes())
"""Frozen means of every metric of these tasks on the encoder of the tests, by task."""


def test_every_task_says_what_it_is():
    for name, task in TASKS.items():
        assert isinstance(task, Task)
        assert (task.name, task.limit) == (name, None)
        assert Encoder in task.needs.__mro__
        assert task.family in FAMILIES | OTHER_FAMILIES | APART
        assert task.about
        assert "\n" not in task.about
        assert name == name.lower()
        assert "_" not in name


def test_every_suite_can_be_loaded_without_its_data():
    for name in SUITES:
        assert [task.name for task in load_suite(name)] == list(SUITES[name])
        assert describe_suite(name)


def test_the_suite_of_instructions_has_every_task_that_tests_them():
    families = {"instruction", "robustness"}
    assert set(SUITES["instruction"]) == {n for n, t in TASKS.items() if t.family in families}


def test_the_suite_of_llm2comp_has_fourteen_tasks_with_instructions():
    pytest.importorskip("mteb")
    instructions = {task.name: task.instruction for task in load_suite("llm2comp-paper")}
    assert len(instructions) == 14
    assert instructions["STS17"] == "Retrieve semantically similar text:"


def test_the_suite_of_llm2vec_gen_asks_as_if_the_answer_were_to_be_generated():
    pytest.importorskip("mteb")
    instructions = {task.name: task.instruction for task in load_suite("llm2vec-gen-paper")}
    assert len(instructions) == 13
    assert instructions["STS12"] == "Generate text that is semantically similar to this text:"


def test_the_default_suite_contains_every_family():
    assert {task.family for task in load_suite("quick")} >= FAMILIES


def test_a_limit_bounds_every_task_and_a_lower_one_of_the_suite_stays():
    limits = {task.name: task.limit for task in load_suite("quick", limit=250)}
    assert limits["faq-clustering"] == 250
    assert limits["stsb-paraphrase-bertscore"] == 100
    assert load_task("stsb", limit=7).limit == 7


def test_a_layer_can_be_chosen_where_token_states_are_read():
    assert load_task("mrpc-bertscore@20").readout == "bertscore@20"
    assert load_task("wnut17@0").readout == "tokens@0"
    for wrong in ("mrpc@20", "mrpc-bertscore@last"):
        with pytest.raises(UsageError):
            load_task(wrong)


def test_unknown_names_are_refused_with_near_ones():
    with pytest.raises(UsageError, match="stsb"):
        load_task("stsbb")
    with pytest.raises(UsageError, match="quick"):
        load_suite("quik")


def test_the_samples_are_of_every_class():
    assert {type(TASKS[name]) for name in SAMPLES} == {type(task) for task in TASKS.values()}


@pytest.mark.parametrize("name", SAMPLES)
def test_every_class_of_tasks_passes_the_contract_with_its_frozen_scores(name, encoder):
    try:
        limit = 300 if name.endswith("-awareness") else 60  # folds need texts that share a class
        scores = check_task(load_task(name, limit=limit), encoder)
    except Unavailable as reason:
        pytest.skip(str(reason))
    assert TASKS[name].family in APART or -1 <= scores[TASKS[name].metric].mean <= 1
    if name in GOLDEN:
        means = {metric: score.mean for metric, score in scores.items()}
        assert means == pytest.approx(GOLDEN[name], abs=1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*superseded.*")
def test_a_task_of_mteb_passes_the_contract_on_packaged_data(encoder, monkeypatch):
    pytest.importorskip("mteb")
    monkeypatch.delenv("BENCH_DATA", raising=False)
    try:
        check_task(load_task("STSBenchmark", limit=60), encoder)
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("name", ["mrpc-bertscore", "tweet-ner", "xquad", "faq-awareness"])
def test_an_instruction_that_would_change_nothing_is_refused(name):
    with pytest.raises(UsageError, match="instruction"):
        replace(TASKS[name], instruction="Compare")
    assert "Compare" in replace(TASKS["stsb-paraphrase"], instruction="Compare").readout
