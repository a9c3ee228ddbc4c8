import subprocess
import sys

import pytest

from bench.encoder import Encoder
from bench.errors import Unavailable, UsageError
from bench.task import APART, Task
from bench.tasks import (
    SUITES,
    TASKS,
    describe_suite,
    describe_task,
    load_suite,
    load_task,
    task_names,
)
from bench.testing import check_task

FAMILIES = {"sts", "paraphrase", "sentiment", "ner", "clustering", "instruction"}
OTHER_FAMILIES = {
    "robustness",
    "classification",
}  # thirty times the texts: too long for the default suite; no packaged data


@pytest.mark.parametrize("name", task_names())
def test_every_task_keeps_the_protocol_and_says_what_it_is(name):
    task = load_task(name)
    assert isinstance(task, Task)
    assert (task.name, task.limit) == (name, None)
    assert Encoder in task.needs.__mro__
    assert task.family in FAMILIES | OTHER_FAMILIES | APART
    assert describe_task(name)
    assert "\n" not in describe_task(name)


@pytest.mark.parametrize("name", SUITES)
def test_every_suite_can_be_loaded_without_its_data(name):
    assert [task.name for task in load_suite(name)] == list(SUITES[name])
    assert describe_suite(name)


def test_llm2comp_s_suite_has_the_fourteen_tasks_with_llm2vec_s_instructions():
    pytest.importorskip("mteb")
    similar, claim = (
        "Retrieve semantically similar text:",
        "Given a scientific claim, retrieve documents that support or refute the claim:",
    )
    assert {task.name: task.instruction for task in load_suite("llm2comp-paper")} == {
        "BiorxivClusteringS2S": "Identify the main category of Biorxiv papers based on the titles:",
        "MedrxivClusteringS2S": "Identify the main category of Medrxiv papers based on the titles:",
        "TwentyNewsgroupsClustering": "Identify the topic or theme of the given news articles:",
        "SciFact": claim,
        "NFCorpus": "Given a question, retrieve relevant documents that best answer the question:",
        "ArguAna": "Given a claim, find documents that refute the claim:",
        "STS17": similar,
        "SICK-R": similar,
        "STSBenchmark": similar,
        "Banking77Classification": "Given a online banking query, find the corresponding intents:",
        "EmotionClassification": "Classify the emotion expressed in the given Twitter message into one of the six emotions: "
        "anger, fear, joy, love, sadness, and surprise:",
        "SprintDuplicateQuestions": "Retrieve duplicate questions from Sprint forum:",
        "StackOverflowDupQuestions": "Retrieve duplicate questions from StackOverflow forum:",
        "SciDocsRR": "Given a title of a scientific paper, retrieve the titles of other relevant papers:",
    }


def test_the_default_suite_holds_every_family():
    assert {task.family for task in load_suite("quick")} >= FAMILIES


def test_a_limit_bounds_every_task_and_a_lower_one_of_the_suite_stays():
    limits = {task.name: task.limit for task in load_suite("quick", limit=250)}
    assert limits["faq-clustering"] == 250
    assert limits["stsb-paraphrase-bertscore"] == 150
    assert load_task("stsb", limit=7).limit == 7


def test_a_layer_can_be_asked_for_where_token_states_are_read():
    assert load_task("mrpc-bertscore@20").readout == "bertscore@20"
    assert load_task("wnut17@0").readout == "tokens@0"
    for wrong in ("mrpc@20", "mrpc-bertscore@last"):
        with pytest.raises(UsageError):
            load_task(wrong)


def test_an_mteb_task_is_found_by_its_name():
    pytest.importorskip("mteb")
    assert load_task("STSBenchmark", limit=5).limit == 5


def test_unknown_names_are_refused_with_near_ones():
    with pytest.raises(UsageError, match="stsb"):
        load_task("stsbb")
    with pytest.raises(UsageError, match="quick"):
        load_suite("quik")


def test_listing_the_tasks_loads_nothing_heavy():
    code = "import sys, bench.tasks; print(*{m.partition('.')[0] for m in sys.modules})"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {
        "torch",
        "mteb",
        "sklearn",
        "scipy",
        "pandas",
        "matplotlib",
        "datasets",
        "transformers",
        "seqeval",
    } & set(loaded)


def test_names_are_unique_and_in_the_house_style():
    assert len(TASKS) == len(set(TASKS))
    assert all(name == name.lower() and "_" not in name for name in TASKS)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_of_ours_keeps_the_contract(name, encoder):
    try:
        limit = 300 if name.endswith("-awareness") else 60  # folds need texts that share a class
        scores = check_task(load_task(name, limit=limit), encoder)
    except Unavailable as reason:
        pytest.skip(str(reason))
    assert TASKS[name].family in APART or -1 <= scores[TASKS[name].metric].mean <= 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*superseded.*")
def test_a_task_of_mteb_keeps_the_contract_on_packaged_data(encoder, monkeypatch):
    pytest.importorskip("mteb")
    monkeypatch.delenv("BENCH_DATA", raising=False)
    try:
        check_task(load_task("STSBenchmark", limit=60), encoder)
    except Unavailable as reason:
        pytest.skip(str(reason))
