"""Tasks by name: our own, and any of mteb's; and suites, which name the tasks of one purpose."""

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from bench.errors import UsageError, unknown
from bench.importing import import_object, instantiate, module_hint
from bench.task import Task
from bench.tasks import (
    awareness,
    clustering,
    diagnostics,
    ner,
    paraphrase,
    probe,
    qa,
    robustness,
    sentiment,
    sts,
    triplets,
    tuned,
)
from bench.tasks.awareness import Awareness
from bench.tasks.clustering import Clustering
from bench.tasks.diagnostics import Spectrum
from bench.tasks.ner import NER, NERByQuestions
from bench.tasks.own import KINDS, own_task
from bench.tasks.paraphrase import BertScore, FewShot, Paraphrase
from bench.tasks.probe import Probe
from bench.tasks.qa import ExtractiveQA
from bench.tasks.robustness import Robustness
from bench.tasks.sentiment import ZeroShot, ZeroShotByPrompt, ZeroShotByQuestions
from bench.tasks.sts import STS
from bench.tasks.triplets import Triplets
from bench.tasks.tuned import StartedNER, TunedFewShot

Own = (
    STS
    | Paraphrase
    | FewShot
    | ZeroShot
    | ZeroShotByQuestions
    | ZeroShotByPrompt
    | Probe
    | NER
    | NERByQuestions
    | Clustering
    | Awareness
    | Triplets
    | Robustness
    | Spectrum
    | ExtractiveQA
    | StartedNER
    | TunedFewShot
)
"""The classes of our own tasks."""

_MODULES = (
    sts,
    paraphrase,
    sentiment,
    ner,
    clustering,
    probe,
    awareness,
    triplets,
    robustness,
    diagnostics,
    qa,
    tuned,
)

TASKS: Mapping[str, Own] = {task.name: task for module in _MODULES for task in module.TASKS}
"""Our own tasks by name; mteb's are not listed."""

_LLM2COMP = {
    "BiorxivClusteringS2S": "Identify the main category of Biorxiv papers based on the titles:",
    "MedrxivClusteringS2S": "Identify the main category of Medrxiv papers based on the titles:",
    "TwentyNewsgroupsClustering": "Identify the topic or theme of the given news articles:",
    "SciFact": "Given a scientific claim, retrieve documents that support or refute the claim:",
    "NFCorpus": "Given a question, retrieve relevant documents that best answer the question:",
    "ArguAna": "Given a claim, find documents that refute the claim:",
    "STS17": "Retrieve semantically similar text:",
    "SICK-R": "Retrieve semantically similar text:",
    "STSBenchmark": "Retrieve semantically similar text:",
    "Banking77Classification": "Given a online banking query, find the corresponding intents:",
    "EmotionClassification": "Classify the emotion expressed in the given Twitter message into one of the six emotions: "
    "anger, fear, joy, love, sadness, and surprise:",
    "SprintDuplicateQuestions": "Retrieve duplicate questions from Sprint forum:",
    "StackOverflowDupQuestions": "Retrieve duplicate questions from StackOverflow forum:",
    "SciDocsRR": "Given a title of a scientific paper, retrieve the titles of other relevant papers:",
}

SUITES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    # Packaged data only: some 73,000 tokens of text an encoder, half of them STSBenchmark, which stays whole to be comparable.
    "quick": {
        "STSBenchmark": {},
        "stsb-paraphrase": {},
        "stsb-paraphrase-bertscore": {"limit": 150},
        "movie-reviews": {"limit": 250},
        "movie-reviews-question": {"limit": 250},
        "movie-reviews-probe": {"limit": 250},
        "tweet-ner": {"limit": 150},
        "faq-clustering": {},
        "dialogue-topics": {"limit": 1000},
        "stsb-spectrum": {},  # sentences that are encoded anyway
        "faq-awareness": {"limit": 400},  # an encoder that follows instructions encodes each twice
    },
    "quip-paper": {
        name: {}
        for name in (
            *(
                "mrpc-bertscore",
                "qqp-bertscore",
                "paws-wiki-bertscore",
                "paws-qqp-bertscore",
            ),
            *("mrpc-picked", "qqp-picked", "paws-wiki-picked", "paws-qqp-picked"),
            *("mrpc-fewshot", "qqp-fewshot", "paws-wiki-fewshot", "paws-qqp-fewshot"),
            *("sst2-question", "mr-question", "cr-question", "sst2", "mr", "cr"),
            "squad",
            *(
                "wnut17",
                "wnut17-prototype",
                "wnut17-question",
                "conll2003",
                "conll2003-prototype",
                "conll2003-question",
            ),
            *(
                "wnut17-start-standard",
                "wnut17-start-question",
                "conll2003-start-standard",
                "conll2003-start-question",
            ),
        )
    },
    "quip-finetuned": {
        name: {}
        for name in (
            *("mrpc-tuned", "qqp-tuned", "paws-wiki-tuned", "paws-qqp-tuned"),
            *(
                "mrpc-tuned-leaking",
                "qqp-tuned-leaking",
                "paws-wiki-tuned-leaking",
                "paws-qqp-tuned-leaking",
            ),
            *(
                "wnut17-tuned-standard",
                "wnut17-tuned-question",
                "conll2003-tuned-standard",
                "conll2003-tuned-question",
            ),
        )
    },
    "dino-paper": {
        **{
            name: {}
            for name in ("sts12", "sts13", "sts14", "sts15", "sts16", "stsb", "sickr", "sickr-test")
        },
        **{name: {"limit": 1000} for name in ("imdb-prompt", "imdb-generated")},
    },
    "instruction": {
        task.name: {} for module in (awareness, triplets, robustness) for task in module.TASKS
    },
    "inbedder-paper": {
        **{
            name: {}
            for name in (
                *("instruct-stsb", "intent-emotion", "nyt-awareness", "nyt-topic", "nyt-location"),
                *(
                    "rate-my-prof",
                    "feedbacks",
                    "few-rel",
                    "few-nerd",
                    "few-event",
                    "twenty-newsgroups",
                ),
            )
        },
        "AskUbuntuDupQuestions": {"instruction": "What does the user want?"},
        "StackOverflowDupQuestions": {"instruction": "What does the user want?"},
        "SciDocsRR": {"instruction": "What is the paper about based on the title?"},
        "TwentyNewsgroupsClustering": {"instruction": "Categorize the topic of the news article."},
    },
    "llm2comp-paper": {
        name: {"instruction": instruction} for name, instruction in _LLM2COMP.items()
    },
}
"""Suites by name: for each of its tasks, by name, the fields in which it differs from the task of that name."""

_ABOUT = {
    "quick": "packaged data, seven families, minutes on two cores; the default",
    "quip-paper": "the zero-shot and few-shot tasks of QuIP that leave the encoder as it is",
    "quip-finetuned": "the few-shot tasks of QuIP that train a copy of it; hours on a CPU",
    "dino-paper": "the STS tasks of DINO, with its best-of-four score beside mteb's, and its two classifiers of reviews",
    "instruction": "instruction awareness and robustness: own sets, and InBedder's awareness tests",
    "inbedder-paper": "InBedder's instruction awareness tests, clusterings and general tasks",
    "llm2comp-paper": "the 14 mteb tasks of LLM2Comp with LLM2Vec's instructions",
}


def task_names() -> tuple[str, ...]:
    """Return the names of our own tasks, in the order of their families."""
    return tuple(TASKS)


def describe_task(name: str) -> str:
    """Return one line about one of our own tasks."""
    return TASKS[name].about


def describe_suite(name: str) -> str:
    """Return one line about a suite."""
    return _ABOUT[name]


def load_task(name: str, *, limit: int | None = None) -> Task:
    """Return the task called by a name.

    Args:
        name: One of our own, with ``@LAYER`` behind it for another layer of token states; ``ner:FOLDER`` and the like for files
            of one's own (``bench.tasks.own``); ``package.module:TASK``, a task or what makes one; or a task of mteb.
        limit: At most this many test examples.

    Raises:
        UsageError: There is no such task, it reads no layer, or its module cannot be imported.
    """
    kind, _, folder = name.partition(":")
    if kind in KINDS and folder:
        return _changed(own_task(kind, folder), {}, limit)
    if (target := import_object(name)) is not None:
        return _task(target, name, limit)
    head, at, layer = name.partition("@")
    if head not in TASKS:
        from bench.tasks.mteb import MtebTask, known_task

        if not known_task(name):
            hint = "(see `bench list`, or give package.module:TASK; any mteb task works where mteb is installed)"
            raise unknown("task", name, TASKS, hint=module_hint(name, hint))
        return MtebTask(name, limit=limit)
    task = replace(TASKS[head], limit=limit)
    if not at:
        return task
    if not isinstance(task, BertScore | NER) or not layer.removeprefix("-").isdecimal():
        raise UsageError(
            f"expected a task on token states and a layer number, such as mrpc-bertscore@20, got {name!r}"
        )
    return replace(task, layer=int(layer))


def load_suite(name: str, *, limit: int | None = None) -> tuple[Task, ...]:
    """Return the tasks of a suite.

    Args:
        name: One of ours, or a benchmark of mteb such as "MTEB(eng, v2)".
        limit: At most this many test examples of each task; a lower limit of the suite's own stays.

    Raises:
        UsageError: There is no such suite.
    """
    from bench.tasks.mteb import MtebTask, benchmark

    if name not in SUITES:
        tasks = benchmark(name)
        if not tasks:
            raise unknown(
                "suite", name, SUITES, hint="(any mteb benchmark works where mteb is installed)"
            )
        return tuple(replace(task, limit=limit) for task in tasks)
    return tuple(
        _changed(TASKS.get(task) or MtebTask(task), changes, limit)
        for task, changes in SUITES[name].items()
    )


def load_tasks(
    tasks: Iterable[str | Task], suites: Iterable[str] = (), *, limit: int | None = None
) -> list[Task]:
    """Return tasks and the tasks of suites, each once; those of "quick" where none are named.

    Args:
        tasks: Tasks, or names as for ``load_task``.
        suites: Names as for ``load_suite``.
        limit: At most this many test examples of each task that is named.

    Raises:
        UsageError: There is no such task or suite.
    """
    found = [load_task(task, limit=limit) if isinstance(task, str) else task for task in tasks]
    for suite in suites or (() if found else ("quick",)):
        found += load_suite(suite, limit=limit)
    return [task for i, task in enumerate(found) if task not in found[:i]]


def _task(target: Any, name: str, limit: int | None) -> Task:  # noqa: ANN401 - whatever the name stands for
    task = (
        instantiate(target, name)
        if isinstance(target, type) or not isinstance(target, Task)
        else target
    )
    if (
        not is_dataclass(task)
        or not isinstance(task, Task)
        or "limit" not in {f.name for f in fields(task) if f.init}
    ):
        raise UsageError(
            f"{name!r} gives a {type(task).__name__}, which is no task: "
            "expected a frozen dataclass with the attributes of bench.task.Task, limit among its fields"
        )
    return _changed(task, {"limit": task.limit}, limit)


def _changed(task: Any, changes: Mapping[str, Any], limit: int | None) -> Task:  # noqa: ANN401 - any task that is a dataclass
    limits = [n for n in (limit, changes.get("limit")) if n is not None]
    changed: Task = replace(task, **{**changes, "limit": min(limits, default=None)})
    return changed
