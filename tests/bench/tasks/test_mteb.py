"""mteb's tasks on our encoders: the same scores as mteb alone, without its traps."""

import json
import os
import random
import subprocess
import sys
import warnings
import zlib
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

from bench import data
from bench.encoder import Item, card, fingerprint, instructed_sides
from bench.errors import DataError, EncodingError, Unavailable, UsageError
from bench.export import export_mteb
from bench.influence import contributions
from bench.registry import load_encoder
from bench.runner import run
from bench.store import Store
from bench.task import sample
from bench.tasks.mteb import (
    MtebTask,
    as_mteb,
    benchmark,
    known_task,
    list_benchmarks,
    list_tasks,
)
from bench.tasks.mteb.names import is_mentioned
from bench.vectors import Vectors
from tests.bench.reporting.made import result

pytest.importorskip("mteb", reason="needs mteb")
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*:DeprecationWarning",
    "ignore:.*superseded.*",
    "ignore::sklearn.exceptions.UndefinedMetricWarning",
)


@dataclass(frozen=True)
class Random:
    """A random vector of text and instruction, with a little signal of the first letter."""

    seed: int = 0
    version: ClassVar[int] = 1
    follows_instructions: ClassVar[bool] = True

    def encode(self, texts, *, instruction=""):
        vectors = np.empty((len(texts), 24), np.float32)
        for i, text in enumerate(texts):
            vectors[i] = np.random.default_rng(
                [self.seed, zlib.crc32(f"{instruction}|{text}".encode())]
            ).normal(size=24)
            vectors[i, zlib.crc32(text.split()[-1].encode()) % 24] += 2
        return vectors


@dataclass(frozen=True)
class Broken(Random):
    """Gives a NaN for texts with one word."""

    word: str = "needle"

    def encode(self, texts, *, instruction=""):
        vectors = super().encode(texts, instruction=instruction)
        vectors[[self.word in text for text in texts]] = np.nan
        return vectors


def subject(kind, name, score, **attributes):
    """Return an mteb task class on data of its own."""
    from mteb import TaskMetadata
    from mteb.abstasks import (
        AbsTaskClassification,
        AbsTaskClustering,
        AbsTaskClusteringLegacy,
        AbsTaskPairClassification,
        AbsTaskRetrieval,
    )

    base = {
        "Classification": AbsTaskClassification,
        "Clustering": AbsTaskClustering,
        "Legacy": AbsTaskClusteringLegacy,
        "PairClassification": AbsTaskPairClassification,
        "Retrieval": AbsTaskRetrieval,
    }[kind]
    metadata = TaskMetadata(
        name=name,
        description="made for a test",
        type="Clustering" if kind == "Legacy" else kind,
        eval_langs=["eng-Latn"],
        eval_splits=["test"],
        main_score=score,
        dataset={"path": "made/up", "revision": "1"},
        prompt=attributes.pop("prompt", None),
    )
    make = attributes.pop("make")

    def load_data(self, **kwargs):
        self.dataset = make()
        self.data_loaded = True

    return type(name, (base,), {"metadata": metadata, "load_data": load_data, **attributes})


def table(columns):
    from datasets import Dataset

    return Dataset.from_dict(columns)


WORDS = ("river", "stone", "cloud", "needle")


def sentences(n, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(len(WORDS), size=n).tolist()
    return [f"text {i} on {WORDS[label]}" for i, label in enumerate(labels)], labels


def intents():
    from datasets import DatasetDict

    train, test = sentences(200), sentences(120, seed=1)
    return DatasetDict(
        {
            split: table({"text": text, "label": label})
            for split, (text, label) in (("train", train), ("test", test))
        }
    )


def groups():
    from datasets import DatasetDict

    texts, labels = sentences(300)
    return DatasetDict({"test": table({"sentences": texts, "labels": labels})})


def group_lists():
    from datasets import DatasetDict

    texts, labels = sentences(120)
    return DatasetDict(
        {
            "test": table(
                {"sentences": [texts[:60], texts[60:]], "labels": [labels[:60], labels[60:]]}
            )
        }
    )


def pairs():
    from datasets import DatasetDict

    left, first = sentences(150)
    right, second = sentences(150, seed=1)
    same = [
        int(a == b) ^ (i % 5 == 0) for i, (a, b) in enumerate(zip(first, second, strict=True))
    ]  # some wrong, so that none is perfect
    return DatasetDict({"test": table({"sentence1": left, "sentence2": right, "labels": same})})


def library():
    texts, labels = sentences(40)
    corpus = table({"id": [f"d{i}" for i in range(40)], "title": ["a title"] * 40, "text": texts})
    queries = table({"id": ["q0", "q1"], "text": ["on river", "on stone"]})
    relevant = {
        f"q{word}": {f"d{i}": 1 for i, label in enumerate(labels) if label == word}
        for word in range(2)
    }
    return {
        "default": {
            "test": {
                "corpus": corpus,
                "queries": queries,
                "relevant_docs": relevant,
                "top_ranked": None,
            }
        }
    }


def made(kind, **attributes):
    score = {
        "Classification": "accuracy",
        "PairClassification": "max_ap",
        "Retrieval": "ndcg_at_10",
    }.get(kind, "v_measure")
    make = {
        "Classification": intents,
        "Clustering": groups,
        "Legacy": group_lists,
        "PairClassification": pairs,
        "Retrieval": library,
    }[kind]
    if kind == "Clustering":
        attributes = {
            "max_fraction_of_documents_to_embed": 0.5,
            "max_documents_per_cluster": 512,
            **attributes,
        }
    return subject(kind, f"MadeUp{kind}", score, make=make, **attributes)


def plain(model, task):
    """Return what mteb alone says."""
    import mteb

    with warnings.catch_warnings():  # not ours to mend
        warnings.simplefilter("ignore")
        result = mteb.evaluate(model, task, cache=None, co2_tracker=False, show_progress_bar=False)
    return result.task_results[0].scores["test"][0]


KINDS = ("Classification", "Clustering", "Legacy", "PairClassification", "Retrieval")


@pytest.mark.parametrize("kind", KINDS)
def test_every_metric_equals_that_of_mteb_alone(kind):
    made_up = made(kind)
    scores = MtebTask("made up", source=made_up).evaluate(Random(), seed=42)
    alone = plain(as_mteb(Random()), made_up())
    assert scores[MtebTask("made up", source=made_up).metric].mean == pytest.approx(
        alone["main_score"], abs=1e-12
    )  # sums in another order
    for name, score in scores.items():
        assert score.mean == pytest.approx(alone[name], abs=1e-12)


def test_repeats_are_the_experiments_of_mteb_and_follow_the_seed():
    task = MtebTask("made up", source=made("Classification"))
    scores = task.evaluate(Random(), seed=42)
    assert len(scores["accuracy"].repeats) == 10
    assert scores["accuracy"].repeats != task.evaluate(Random(), seed=1)["accuracy"].repeats
    assert scores["accuracy"].examples.mean() == pytest.approx(scores["accuracy"].mean)
    assert (
        len(
            MtebTask("made up", source=made("Clustering"))
            .evaluate(Random(), seed=42)["v_measure"]
            .repeats
        )
        == 10
    )


def test_a_vector_that_is_not_finite_is_an_error():
    with pytest.raises(EncodingError, match="not finite"):
        MtebTask("made up", source=made("Retrieval")).evaluate(Broken(), seed=42)


def test_vectors_that_are_all_the_same_have_no_score_and_say_so(write):
    @dataclass(frozen=True)
    class Same(Random):
        def encode(self, texts, *, instruction=""):
            return np.outer(np.arange(1, len(texts) + 1), np.arange(4)).astype(np.float32)

    write(
        "mteb/sts16-sts",
        "test",
        [{"sentence1": f"a {i}", "sentence2": "b", "score": i % 6} for i in range(40)],
    )
    with pytest.raises(EncodingError, match="not a number"):
        MtebTask("STS16").evaluate(Same(), seed=42)


@pytest.mark.parametrize(
    ("kind", "column", "value", "told"),
    [
        ("Classification", "label", None, "'label', row 6"),
        ("Classification", "text", None, "'text', row 6"),
        ("PairClassification", "labels", float("nan"), "'labels', row 6"),
        ("Clustering", "labels", None, "'labels', row 6"),
        ("Classification", "label", [1], "at least two classes"),
        ("PairClassification", "labels", [1], "at least two classes"),
        ("Clustering", "labels", [1], "at least two classes"),
    ],
)
def test_rows_that_have_no_score_are_told(kind, column, value, told):
    from datasets import DatasetDict

    found = {"Classification": intents, "PairClassification": pairs, "Clustering": groups}[kind]()
    for split, rows in found.items():
        values = list(rows[column])
        values = (
            value * len(values) if isinstance(value, list) else [*values[:5], value, *values[6:]]
        )
        others = {name: list(rows[name]) for name in rows.column_names if name != column}
        found[split] = table({**others, column: values})
    task = MtebTask(
        "made up", source=subject(kind, "Odd", "accuracy", make=lambda: DatasetDict(found))
    )
    with pytest.raises(DataError, match=told):
        task.evaluate(Random(), seed=42)


def test_global_random_state_is_left_alone():
    torch = pytest.importorskip("torch")
    random.seed(7)
    np.random.seed(7)  # noqa: NPY002
    torch.manual_seed(7)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    task = MtebTask("made up", source=made("Clustering"))
    assert (task.family, task.metric) == ("clustering", "v_measure")
    list(task.items(seed=42))
    task.evaluate(Random(), seed=42)
    assert known_task("STS13")
    assert (
        random.getstate(),
        np.random.get_state()[1].tolist(),  # noqa: NPY002
        torch.get_rng_state().tolist(),
    ) == before


def test_a_limit_cuts_flat_tasks_and_is_refused_where_it_is_not_defined():
    for kind in ("Classification", "PairClassification"):
        task = MtebTask("made up", source=made(kind), limit=40)
        assert (
            len(
                task.evaluate(Random(), seed=42)[
                    "accuracy" if kind == "Classification" else "max_ap"
                ].examples
            )
            == 40
        )
        assert len(list(task.items(seed=42))) == (40 if kind == "Classification" else 80)
    seen = []

    @dataclass(frozen=True)
    class Counting(Random):
        def encode(self, texts, *, instruction=""):
            seen.append(len(texts))
            return super().encode(texts, instruction=instruction)

    MtebTask("made up", source=made("Clustering"), limit=30).evaluate(Counting(), seed=42)
    assert seen == [30]
    with pytest.raises(Unavailable, match="limit is not defined"):
        MtebTask("made up", source=made("Legacy"), limit=40).evaluate(Random(), seed=42)


def test_a_limit_draws_queries_with_what_is_judged_and_a_thousand_other_documents():
    def large():
        texts, _ = sentences(1500)
        ids = [f"d{i}" for i in range(1500)]
        relevant = {f"q{i}": {f"d{i}": 1, f"d{1499 - i}": 1} for i in range(30)}
        queries = {"id": list(relevant), "text": texts[:30]}
        part = {"corpus": table({"id": ids, "title": ids, "text": texts}), "top_ranked": None}
        return {"default": {"test": {**part, "queries": table(queries), "relevant_docs": relevant}}}

    seen = []

    @dataclass(frozen=True)
    class Noting(Random):
        def encode(self, texts, *, instruction=""):
            seen.append(list(texts))
            return super().encode(texts, instruction=instruction)

    task = MtebTask(
        "made up", source=subject("Retrieval", "Large", "ndcg_at_10", make=large), limit=5
    )
    assert "1000 documents" in task.readout
    scores = task.evaluate(Noting(), seed=42)
    queries, documents = sorted(seen, key=len)
    assert (len(queries), len(documents)) == (5, 1010)
    numbers = {int(text.split()[1]) for text in queries}
    assert numbers | {1499 - n for n in numbers} <= {int(d.split()[0][1:]) for d in documents}
    assert task.evaluate(Random(), seed=42) == scores


RERANKED = (
    {"_id": "1", "text": "on river"},
    {"_id": "2", "text": "on stone"},
    {"_id": "3", "text": "nobody judged this"},
)


def library_rows():
    """Return corpus, queries, judgements and candidates as the hub has them."""
    texts, labels = sentences(40)
    corpus = [{"_id": f"d{i}", "title": "a title", "text": text} for i, text in enumerate(texts)]
    judged = [
        {"query-id": query, "corpus-id": f"d{i}", "score": 1.0}
        for query, word in (("1", 0), ("2", 1))
        for i, label in enumerate(labels)
        if label == word
    ]
    ids = [document["_id"] for document in corpus]
    ranked = [{"query-id": query, "corpus-ids": ids[:20]} for query in ("1", "2")]
    return corpus, RERANKED, judged, ranked


@pytest.mark.parametrize("name", ["SciFact", "AskUbuntuDupQuestions"])
def test_retrieval_and_reranking_are_read_from_a_local_copy_in_the_hub_s_layout(
    name, write, monkeypatch, caplog
):
    import mteb

    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    corpus, queries, judged, ranked = library_rows()
    alone = mteb.get_task(name)
    path = alone.metadata.dataset["path"]
    write(f"{path}/corpus", "corpus", corpus)
    write(f"{path}/queries", "queries", queries)
    write(f"{path}/default", "test", judged)
    candidates = None
    if name != "SciFact":
        write(f"{path}/top_ranked", "test", ranked)
        candidates = {row["query-id"]: row["corpus-ids"] for row in ranked}
    relevant = {q: {r["corpus-id"]: 1 for r in judged if r["query-id"] == q} for q in ("1", "2")}
    part = {
        "corpus": table({"id" if k == "_id" else k: [d[k] for d in corpus] for k in corpus[0]}),
        "queries": table({"id": ["1", "2"], "text": ["on river", "on stone"]}),
        "relevant_docs": relevant,
        "top_ranked": candidates,
    }
    alone.dataset, alone.data_loaded = {"default": {"test": part}}, True
    with data.record_sources() as sets:
        scores = MtebTask(name).evaluate(Random(), seed=42)
    expected = plain(as_mteb(Random()), alone)["main_score"]
    assert scores[MtebTask(name).metric].mean == pytest.approx(expected, abs=1e-12)
    assert {entry["source"] for entry in sets} == {"local"}
    assert {entry["config"] for entry in sets} >= {"corpus", "queries", "default"}
    assert "40 documents" in caplog.text  # far from mteb's number of them
    assert MtebTask(name, limit=1).metric in MtebTask(name, limit=1).evaluate(Random(), seed=42)


def test_a_local_copy_of_another_size_than_mteb_states_is_told(write, monkeypatch, caplog):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    rows = [{"sentence1": f"a {i}", "sentence2": f"b {i}", "score": i % 6} for i in range(9)]
    write("mteb/biosses-sts", "test", rows)
    write("mteb/sts16-sts", "test", rows)
    for name in ("BIOSSES", "STS16"):
        list(MtebTask(name).items(seed=42))
    assert "BIOSSES default test: the local copy has 9 samples, mteb's set has 100" in caplog.text
    assert caplog.text.count("not comparable") == 2  # the other by its file


def test_a_part_that_a_local_copy_lacks_is_named(write):
    corpus, _, judged, _ = library_rows()
    write("mteb/scifact/corpus", "corpus", corpus)
    write("mteb/scifact/default", "test", judged)
    with pytest.raises(DataError, match=r"no queries/test.jsonl.gz"):
        MtebTask("SciFact").evaluate(Random(), seed=42)
    write("mteb/scifact/queries", "queries", [{"_id": "1", "words": "on river"}])
    with pytest.raises(DataError, match="'text'"):
        MtebTask("SciFact").evaluate(Random(), seed=42)


def test_a_folder_in_the_working_directory_is_not_taken_for_the_hub(tmp_path, monkeypatch):
    folder = tmp_path / "mteb" / "biosses-sts"
    folder.mkdir(parents=True)
    (folder / "test.jsonl").write_text('{"sentence1": "a", "sentence2": "b", "score": 1.0}\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BENCH_DATA", raising=False)
    with pytest.raises(Unavailable, match="the folder mteb/biosses-sts"):
        MtebTask("BIOSSES").evaluate(Random(), seed=42)


@pytest.mark.parametrize("kind", ["Classification", "PairClassification", "Clustering"])
def test_items_are_among_what_is_encoded(kind):
    asked = set()

    @dataclass(frozen=True)
    class Noting(Random):
        def encode(self, texts, *, instruction=""):
            asked.update(Item(text, instruction) for text in texts)
            return super().encode(texts, instruction=instruction)

    task = MtebTask("made up", source=made(kind, prompt="Which thing?"))
    task.evaluate(Noting(), seed=42)
    items = set(task.items(seed=42))
    assert items <= asked
    assert bool(items) == (kind != "Clustering")
    assert {item.instruction for item in asked} == {"Which thing?"}


@pytest.mark.parametrize(
    ("sides", "prompt", "own", "queries", "documents"),
    [
        (("query",), None, "", "", ""),
        (("query",), "Find it", "", "Find it", ""),
        (("query",), {"query": "Find it", "document": "Keep it"}, "", "Find it", "Keep it"),
        (("query",), "Find it", "Mine", "Mine", ""),
        (("query", "document"), "Find it", "", "Find it", "Find it"),
        (("query", "document"), {"query": "Find it"}, "", "Find it", "Find it"),
        (("query", "document"), {"query": "Find it", "document": "Keep"}, "", "Find it", "Keep"),
        (("query", "document"), "Find it", "Mine", "Mine", "Mine"),
    ],
)  # fmt: skip
def test_the_sides_that_a_method_names_get_the_instruction(sides, prompt, own, queries, documents):
    asked = {}

    @dataclass(frozen=True)
    class Noting(Random):
        instructed_sides: ClassVar[tuple[str, ...]] = sides

        def encode(self, texts, *, instruction=""):
            asked.update(dict.fromkeys(texts, instruction))
            return super().encode(texts, instruction=instruction)

    MtebTask("made up", source=made("Retrieval", prompt=prompt), instruction=own).evaluate(
        Noting(), seed=42
    )
    assert asked["on river"] == queries
    assert {instruction for text, instruction in asked.items() if text.startswith("a title")} == {
        documents
    }
    assert card(Noting()).instructed_sides == sides


def test_queries_alone_get_the_instruction_of_a_method_that_names_no_side():
    assert instructed_sides(Random()) == ("query",)
    assert instructed_sides(load_encoder("llm2comp")) == ("query",)
    assert instructed_sides(load_encoder("inbedder")) == ("query", "document")
    assert instructed_sides(load_encoder("hashing")) == ()


def test_an_instruction_of_ones_own_is_part_of_the_identity():
    assert MtebTask("STS13").readout == "embedding"
    assert "Compare" in MtebTask("STS13", instruction="Compare").readout
    assert MtebTask("STS13").version > 1_000_000


def test_pairs_that_lie_in_one_row_are_read_as_rows():
    from datasets import DatasetDict

    flat = pairs()["test"]
    one_row = made("PairClassification")

    def load_data(self, **kwargs):
        self.dataset = DatasetDict(
            {"test": table({name: [flat[name][:]] for name in flat.column_names})}
        )
        self.data_loaded = True

    one_row.load_data = load_data
    expected = MtebTask("made up", source=made("PairClassification")).evaluate(Random(), seed=42)
    assert MtebTask("made up", source=one_row).evaluate(Random(), seed=42) == expected


def test_the_whole_column_and_the_batches_hold_the_same_texts():
    from mteb._create_dataloaders import create_dataloader  # as mteb itself makes them

    from bench.tasks.mteb.bridge import texts_of

    retrieval, classification = made("Retrieval")(), made("Classification")()
    loaders = [
        create_dataloader(
            library()["default"]["test"]["corpus"],
            task_metadata=retrieval.metadata,
            prompt_type="document",
        ),
        create_dataloader(
            library()["default"]["test"]["queries"],
            task_metadata=retrieval.metadata,
            prompt_type="query",
        ),
        create_dataloader(
            intents()["test"], task_metadata=classification.metadata, input_column="text"
        ),
    ]
    for loader in loaders:
        texts = texts_of(loader)
        assert texts == [text for batch in loader for text in batch["text"]]
        assert len(texts) > 1


def test_mteb_takes_two_encoders_for_two_models(tmp_path):
    import mteb

    cache = mteb.ResultCache(tmp_path)
    found = []
    for encoder in (Random(0), Random(1)):
        result = mteb.evaluate(
            as_mteb(encoder),
            made("Classification")(),
            cache=cache,
            co2_tracker=False,
            show_progress_bar=False,
        )
        assert (result.model_name, result.model_revision) == ("bench/Random", fingerprint(encoder))
        found.append(result.task_results[0].get_score())
    assert found[0] != found[1]


def test_nothing_is_written_to_the_caches_of_mteb(tmp_path, monkeypatch):
    monkeypatch.setenv("MTEB_CACHE", str(tmp_path))
    MtebTask("made up", source=made("Classification")).evaluate(Random(), seed=42)
    assert not list(tmp_path.rglob("*.json"))


def test_names_are_found_families_named_and_unknown_names_refused():
    assert known_task("STS13")
    assert not known_task("STS133")
    assert (MtebTask("STS13").family, MtebTask("SciFact").family) == ("sts", "retrieval")
    assert (MtebTask("TwitterURLCorpus").family, MtebTask("SummEvalSummarization.v2").family) == (
        "paraphrase",
        "summarization",
    )
    assert MtebTask("STSBenchmark") in benchmark("MTEB(eng, v2)")
    assert benchmark("no such benchmark") == ()
    with pytest.raises(UsageError, match="STS13"):
        MtebTask("STS133").evaluate(Random(), seed=42)


def test_only_english_subsets_of_a_multilingual_task_are_taken():
    from bench.tasks.mteb import _fresh

    assert _fresh("STS17", None, 42).hf_subsets == ["en-en"]
    assert _fresh("MassiveIntentClassification", None, 42).hf_subsets == ["en"]
    assert _fresh("MassiveIntentClassification", None, 42).eval_splits == ["test"]


def test_a_benchmark_s_own_subsets_and_splits_are_taken_and_named():
    german, english = (
        {task.name: task for task in benchmark(name)} for name in ("MTEB(deu, v1)", "MTEB(eng, v2)")
    )
    assert german["STS22"] == MtebTask("STS22", subsets=("de",))
    assert german["MTOPIntentClassification"].readout == "embedding on de, validation, test"
    assert english["AmazonCounterfactualClassification"].subsets == ("en",)
    assert (
        english["STSBenchmark"].readout == MtebTask("STSBenchmark").readout == "embedding"
    )  # its choice is ours


def test_the_subsets_that_are_asked_for_are_the_ones_that_are_scored(write, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    rng = np.random.default_rng(0)
    for subset, texts in (("en-en", 60), ("ko-ko", 30)):
        rows = [
            {"sentence1": f"a {i}", "sentence2": f"b {i % 7}", "score": float(rng.integers(6))}
            for i in range(texts)
        ]
        write(f"mteb/sts17-crosslingual-sts/{subset}", "test", rows)
    found = {
        len(MtebTask("STS17", subsets=s).evaluate(Random(), seed=42)["cosine_spearman"].examples)
        for s in ((), ("en-en",), ("ko-ko",))
    }
    assert found == {60, 30}


def test_a_set_that_is_known_at_another_revision_is_not_taken_for_it(write, monkeypatch):
    from dataclasses import replace as changed

    from bench.catalog import CATALOG

    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    write(
        "mteb/sts16-sts",
        "test",
        [{"sentence1": f"a {i}", "sentence2": f"b {i}", "score": float(i)} for i in range(9)],
    )
    key = ("mteb/sts16-sts", "")
    monkeypatch.setitem(CATALOG, key, changed(CATALOG[key], revision="0" * 40))
    with pytest.raises(Unavailable, match="STS16"):
        MtebTask("STS16").evaluate(Random(), seed=42)


def test_without_data_and_hub_a_task_is_unavailable_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(Unavailable, match="Banking77Classification") as raised:
        MtebTask("Banking77Classification").evaluate(Random(), seed=42)
    assert "\n" not in str(raised.value)


def test_a_local_copy_is_read_without_the_hub_and_recorded(write, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    rows = [
        {"sentence1": f"a {i}", "sentence2": f"b {i % 7}", "score": float(i % 6)} for i in range(40)
    ]
    write("mteb/sts16-sts", "test", rows)
    task = MtebTask("STS16")
    with data.record_sources() as sets:
        scores = task.evaluate(Random(), seed=42)
    assert [entry["id"] for entry in sets] == ["mteb/sts16-sts"]
    score = scores["cosine_spearman"]
    assert len(score.examples) == 40
    assert contributions("cosine_spearman", score.examples, score.gold).mean() == pytest.approx(
        score.mean, abs=1e-6
    )
    assert len(list(task.items(seed=42))) == 80


def needs_data():
    if "BENCH_DATA" not in os.environ:
        pytest.skip("needs BENCH_DATA, the folder with local copies of data sets")


@pytest.fixture(scope="module")
def minilm():
    pytest.importorskip("sentence_transformers")
    needs_data()
    from adapters.baseline.sentence import SentenceEncoder

    encoder = SentenceEncoder(dtype="float32")
    try:
        encoder.encode(["warm"])
    except Unavailable as error:
        pytest.skip(str(error))
    return encoder


@pytest.fixture(scope="module")
def theirs(minilm):
    """The same weights as sentence-transformers loads them."""
    from sentence_transformers import SentenceTransformer

    from adapters.baseline.sentence import folder_of

    return SentenceTransformer(str(folder_of(minilm.checkpoint)), device="cpu")


KNOWN = {
    "STSBenchmark": 0.8203,
    "STS12": 0.7237,
    "STS13": 0.8060,
    "STS14": 0.7559,
    "STS15": 0.8539,
    "Banking77Classification": 0.8004,
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_model_has_its_known_score(name, minilm):
    task = MtebTask(name)
    try:
        scores = task.evaluate(minilm, seed=42)
    except Unavailable as error:
        pytest.skip(str(error))
    assert scores[task.metric].mean == pytest.approx(KNOWN[name], abs=5e-5)  # as published


def test_half_precision_moves_a_score_by_less_than_a_thousandth(minilm):
    half = replace(minilm, dtype="bfloat16")
    assert MtebTask("STS13").evaluate(half, seed=42)["cosine_spearman"].mean == pytest.approx(
        KNOWN["STS13"], abs=1e-3
    )


def real_intents(limit):
    """Return an mteb task class on every so many rows of a real data set."""

    def make():
        from datasets import DatasetDict

        tables = {}
        for split in ("train", "test"):
            rows = data.load("clinc/clinc_oos", split, config="plus")
            rows = rows.take(range(0, len(rows), len(rows) // limit))
            tables[split] = table({"text": rows["text"], "label": rows["intent"]})
        return DatasetDict(tables)

    return subject("Classification", "RealClassification", "accuracy", make=make)


@pytest.mark.parametrize("name", ["STS13", "Classification"])
def test_on_real_data_the_score_is_that_of_sentence_transformers_in_mteb_alone(
    name, minilm, theirs
):
    import mteb

    if name in KNOWN:
        ours, alone = MtebTask(name), mteb.get_task(name)
        alone.dataset, alone.data_loaded = (
            {"test": table(dict(data.load("mteb/sts13-sts", "test").data))},
            True,
        )
    else:
        made_up = real_intents(300)
        ours, alone = MtebTask(name, source=made_up), made_up()
    # The last bits of vectors depend on the batch, which may move one or two of 300 texts.
    tolerance = 2 / 3000 if name == "Classification" else 5e-5
    assert ours.evaluate(minilm, seed=42)[ours.metric].mean == pytest.approx(
        plain(theirs, alone)["main_score"], abs=tolerance
    )


def test_the_runner_mteb_and_the_cache_give_the_same_numbers(minilm, tmp_path):
    import mteb

    task = MtebTask("STS13", limit=300)
    direct = task.evaluate(minilm, seed=42)["cosine_spearman"].mean
    runs = [
        next(
            run(
                {"minilm": minilm},
                [task],
                Store(tmp_path / n),
                Vectors(tmp_path / "vectors" if n == "on" else None),
            )
        )
        for n in ("on", "off")
    ]
    alone = mteb.get_task("STS13")
    rows = data.load("mteb/sts13-sts", "test")
    alone.dataset, alone.data_loaded = (
        {"test": table(dict(rows.take(sample(len(rows), 300)).data))},
        True,
    )
    numbers = [
        direct,
        *(cell.result.main.mean for cell in runs),
        plain(as_mteb(minilm), alone)["cosine_spearman"],
    ]
    assert numbers == pytest.approx([direct] * 4, abs=1e-4)  # other batches, other rounding


def test_a_heavy_library_is_loaded_only_when_a_task_is_used():
    code = "import sys, bench.tasks.mteb as m; m.MtebTask('STS13').version; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"mteb", "torch", "datasets"} & set(loaded)


def test_where_mteb_is_not_installed_a_task_can_be_named_and_is_unavailable(monkeypatch):
    monkeypatch.setitem(sys.modules, "mteb", None)
    task = MtebTask("BIOSSES")
    assert (task.family, task.metric, task.version) == ("mteb", "main_score", 1_000_000)
    assert not known_task("BIOSSES")
    assert not benchmark("MTEB(eng, v2)")
    assert not list(task.items(seed=42))
    with pytest.raises(Unavailable, match="pip install"):
        task.evaluate(Random(), seed=42)


# ---- results in mteb's layout


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A folder of results: a model and a variant of it, on whole tasks of mteb and on others."""
    folder = tmp_path_factory.mktemp("measured")
    for name in ("sts16-sts", "sts17-crosslingual-sts/en-en", "sts17-crosslingual-sts/ko-ko"):
        rows = (
            {"sentence1": f"a {i}", "sentence2": f"b {i % 7}", "score": float(i % 6)}
            for i in range(40)
        )
        (folder / "mteb" / name).mkdir(parents=True)
        (folder / "mteb" / name / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    subsets = MtebTask("STS17", subsets=("ko-ko",))
    tasks = [MtebTask("STS16"), MtebTask("STS17"), subsets, MtebTask("STS16", limit=20)]
    store = Store(folder / "results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_HUB_OFFLINE", True)
        patch.setenv("BENCH_DATA", str(folder))
        for seeds, encoder in ((42, 7), Random()), ((42,), Random(seed=1)):
            cells = list(run({"random": encoder}, tasks, store, Vectors(None), seeds=seeds))
            assert {cell.status for cell in cells} == {"done"}
    own = result("random", "own", 0.5)
    store[own.spec] = own
    return store


def test_mteb_reads_what_is_exported_with_the_scores_that_it_gave_itself(measured, tmp_path):
    from mteb.cache import ResultCache

    done = export_mteb([measured], tmp_path / "out")
    reasons = sorted({outcome.reason for outcome in done.outcomes if outcome.reason})
    assert [reason.partition(",")[0] for reason in reasons] == [
        "not a task of mteb",
        "run with --limit",
        "run with another seed than mteb's",
    ]
    read = ResultCache(tmp_path / "out").load_results(load_experiments="match_name")
    assert {(model.model_name, model.experiment_name) for model in read.model_results} == {
        ("bench/random", None),
        ("bench/random", "seed_1"),
    }
    results = [r for r in measured.results() if r.original and r.spec.seed == 42]
    for model in read.model_results:
        own = [r for r in results if bool(r.card["changed"]) == bool(model.experiment_name)]
        expected = {(r.spec.task, r.spec.readout): r.main.mean for r in own}
        scores = {each.task_name: each.scores["test"] for each in model.task_results}
        assert scores["STS16"][0]["main_score"] == pytest.approx(
            expected["STS16", "embedding"], abs=1e-6
        )
        assert {part["hf_subset"]: part["main_score"] for part in scores["STS17"]} == {
            "en-en": pytest.approx(expected["STS17", "embedding"], abs=1e-6),
            "ko-ko": pytest.approx(expected["STS17", "embedding on ko-ko"], abs=1e-6),
        }
    whole = ResultCache(tmp_path / "out").load_results()  # without variants, as by default
    assert len(whole.model_results) == 1
    assert len(whole.to_dataframe()) == 2


def test_what_is_not_known_is_empty_and_named(measured, tmp_path):
    done = export_mteb([measured], tmp_path / "out", tasks=["STS17"])
    (meta,) = tmp_path.glob("out/results/bench__random/no_revision_available/model_meta.json")
    found = json.loads(meta.read_text())
    assert found["embed_dim"] == 24
    assert found["similarity_fn_name"] == "cosine"
    assert found["use_instructions"]
    assert {"release_date", "n_parameters", "license", "training_datasets"} <= set(done.unknown)
    assert not any(found[name] for name in done.unknown)
    lines = (meta.parent / "run_settings.jsonl").read_text().splitlines()
    settings = [json.loads(line) for line in lines]
    assert [(each["task"], each["splits"], each["subsets"]) for each in settings] == [
        ("STS17", ["test"], ["en-en", "ko-ko"])
    ]
    assert settings[0]["version"]["mteb"]
    task = json.loads((meta.parent / "STS17.json").read_text())
    assert task["dataset_revision"].startswith("local copy, sha256 ")  # nobody knows which it is
    assert task["evaluation_time"] is None


def test_a_model_that_mteb_knows_gets_a_model_card_from_an_export(measured, tmp_path, monkeypatch):
    from mteb.cli import main

    name = "sentence-transformers/all-MiniLM-L6-v2"
    names = {"random": f"{name}@8b3219a92973c328a8e22fadcfa821b5dc75636a"}
    export_mteb([measured], tmp_path / "out", names=names)
    assert (tmp_path / "out/results" / name.replace("/", "__") / names["random"][-40:]).is_dir()
    card = tmp_path / "card.md"
    wanted = ["--model-name", name, "--results-folder", str(tmp_path / "out")]
    arguments = ["mteb", "create-model-results", *wanted, "--output-path", str(card)]
    monkeypatch.setattr(sys, "argv", arguments)
    main()
    assert "mteb" in card.read_text()
    with pytest.raises(UsageError, match="org/model"):
        export_mteb([measured], tmp_path / "out", names={"random": "mine"})


def test_an_export_replaces_nothing_unless_it_is_told_to(measured, tmp_path):
    first = export_mteb([measured], tmp_path / "out")
    assert export_mteb([measured], tmp_path / "out") == first
    first.paths[-1].write_text("something else")
    with pytest.raises(UsageError, match="--force"):
        export_mteb([measured], tmp_path / "out")
    export_mteb([measured], tmp_path / "out", force=True)
    assert first.paths[-1].read_text() != "something else"


def test_of_several_dtypes_all_but_float32_are_variants(measured, tmp_path):
    store = Store(tmp_path / "two")
    one = next(r for r in measured.results() if r.original and r.spec.seed == 42)
    for dtype in ("float32", "bfloat16"):
        spec = replace(one.spec, fingerprint=f"{dtype:x<16}"[:16])
        store[spec] = replace(one, spec=spec, card={**one.card, "dtype": dtype})
    export_mteb([store], tmp_path / "out")
    found = {
        str(path.parent.relative_to(tmp_path / "out/results/bench__random")): path
        for path in tmp_path.glob("out/**/model_meta.json")
    }
    _, half = sorted(found, key=len)
    assert "dtype_bfloat16" in half
    assert json.loads(found[half].read_text())["output_dtypes"] == "bfloat16"


def test_names_of_tasks_and_benchmarks_are_listed_without_importing_mteb():
    import mteb
    from mteb.get_tasks import _TASKS_REGISTRY

    assert set(_TASKS_REGISTRY) <= list_tasks() | {"BrightLongRetrieval"}
    assert all(map(is_mentioned, _TASKS_REGISTRY))
    for each in mteb.get_benchmarks():
        assert each.name in list_benchmarks()
        assert all(map(is_mentioned, (each.name, *each.aliases)))
    assert not is_mentioned("STS133")
