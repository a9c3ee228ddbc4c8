"""Every task says what it is, and every class of tasks keeps the contract and its scores."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench.encoder import Encoder
from bench.errors import Unavailable, UsageError
from bench.task import APART
from bench.tasks import SUITES, TASKS, describe_suite, load_suite, load_task, load_tasks
from bench.testing import check_task
from bench.testing.tasks import TaskTrial, check_description

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


def test_every_task_says_what_it_is(encoder):
    for name, task in TASKS.items():
        check_description(TaskTrial(task, encoder))
        assert (task.name, task.limit) == (name, None)
        assert Encoder in task.needs.__mro__
        assert task.family in FAMILIES | OTHER_FAMILIES | APART
        assert task.about
        assert "\n" not in task.about
        assert name == name.lower().replace("_", "-")


def test_every_suite_can_be_loaded_without_its_data():
    for name in SUITES:
        assert [task.name for task in load_suite(name)] == list(SUITES[name])
        assert describe_suite(name)
    assert {task.family for task in load_suite("quick")} >= FAMILIES
    told = {n for n, task in TASKS.items() if task.family in {"instruction", "robustness"}}
    assert set(SUITES["instruction"]) == told


@pytest.mark.parametrize(
    ("suite", "size", "task", "instruction"),
    [
        ("llm2comp-paper", 14, "STS17", "Retrieve semantically similar text:"),
        (
            "llm2vec-gen-paper",
            13,
            "STS12",
            "Generate text that is semantically similar to this text:",
        ),
    ],
)
def test_the_suite_of_a_paper_has_its_instructions(suite, size, task, instruction):
    pytest.importorskip("mteb")
    instructions = {each.name: each.instruction for each in load_suite(suite)}
    assert (len(instructions), instructions[task]) == (size, instruction)


def test_a_limit_bounds_every_task_and_a_lower_one_of_the_suite_stays():
    limits = {task.name: task.limit for task in load_suite("quick", limit=250)}
    assert (limits["faq-clustering"], limits["stsb-paraphrase-bertscore"]) == (250, 100)
    assert load_task("stsb", limit=7).limit == 7


def test_tasks_of_a_suite_can_be_left_out_by_name():
    every = load_tasks([], ["quick"])
    kept = load_tasks([], ["quick"], exclude=["tweet-ner", "faq-retrieval"])
    assert kept == [task for task in every if task.name not in {"tweet-ner", "faq-retrieval"}]
    with pytest.raises(UsageError, match="did you mean 'faq-retrieval'"):
        load_tasks([], ["quick"], exclude=["faq-retrieve"])
    with pytest.raises(UsageError, match="all of them excluded"):
        load_tasks(["stsb"], exclude=["stsb"])


def test_a_layer_can_be_chosen_where_token_states_are_read_and_near_names_are_told():
    assert load_task("mrpc-bertscore@20").readout == "bertscore@20"
    assert load_task("wnut17@0").readout == "tokens@0"
    for wrong, told in (("mrpc@20", "layer"), ("mrpc-bertscore@last", "layer"), ("stsbb", "stsb")):
        with pytest.raises(UsageError, match=told):
            load_task(wrong)
    with pytest.raises(UsageError, match="quick"):
        load_suite("quik")


def test_the_samples_are_of_every_class():
    assert {type(TASKS[name]) for name in SAMPLES} == {type(task) for task in TASKS.values()}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*superseded.*")
@pytest.mark.parametrize("name", [*SAMPLES, "STSBenchmark"])
def test_every_class_of_tasks_passes_the_contract_with_its_frozen_scores(name, encoder):
    if name == "STSBenchmark":
        pytest.importorskip("mteb")
    try:
        limit = 300 if name.endswith("-awareness") else 60  # folds need texts that share a class
        scores = check_task(load_task(name, limit=limit), encoder)
    except Unavailable as reason:
        pytest.skip(str(reason))
    if name in GOLDEN:
        means = {metric: score.mean for metric, score in scores.items()}
        assert means == pytest.approx(GOLDEN[name], abs=1e-6)


@pytest.mark.parametrize(
    "name", ["mrpc-bertscore", "tweet-ner", "xquad", "faq-awareness", "instruct-stsb"]
)
def test_an_instruction_that_would_change_nothing_is_refused(name):
    with pytest.raises(UsageError, match="instruction"):
        replace(TASKS[name], instruction="Compare")
    assert "Compare" in replace(TASKS["stsb-paraphrase"], instruction="Compare").readout


@pytest.mark.parametrize("suites", [[], ["quick"]])
def test_an_instruction_without_a_named_task_is_refused(suites):
    with pytest.raises(UsageError, match="--task"):
        load_tasks([], suites, instruction="Compare")
