"""mteb's tasks on our encoders: the same scores as mteb alone, without its traps."""

import dataclasses
import os
import random
import sys
import warnings
import zlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from bench import data
from bench.catalog import CATALOG
from bench.embeddings import cached
from bench.encoder import card, fingerprint, instructed_sides
from bench.errors import DataError, EncodingError, Unavailable, UsageError
from bench.influence import contributions
from bench.registry import load_encoder
from bench.runner import run
from bench.store import Store
from bench.task import sample
from bench.tasks.mteb import MtebTask, _fresh, as_mteb, benchmark, known_task
from bench.vectors import Vectors
from tests.bench.encoders import Constant, Plain

pytest.importorskip("mteb", reason="needs mteb")
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*:DeprecationWarning",
    "ignore:.*superseded.*",
    "ignore::sklearn.exceptions.UndefinedMetricWarning",
)
WORDS = ("river", "stone", "cloud", "needle")


@dataclass(frozen=True)
class Noisy(Plain):
    """A random vector of text and instruction, with a little signal of the last word."""

    def encode(self, texts, *, instruction=""):
        vectors = super().encode(texts, instruction=instruction)
        for row, text in zip(vectors, texts, strict=True):
            row[zlib.crc32(text.split()[-1].encode()) % self.dim] += 2
        return vectors


@dataclass(frozen=True)
class Broken(Plain):
    """Gives a NaN for texts with one word."""

    def encode(self, texts, *, instruction=""):
        vectors = super().encode(texts, instruction=instruction)
        vectors[["needle" in text for text in texts]] = np.nan
        return vectors


def table(columns):
    from datasets import Dataset

    return Dataset.from_dict(columns)


def sentences(n, seed=0):
    labels = np.random.default_rng(seed).integers(len(WORDS), size=n).tolist()
    return [f"text {i} on {WORDS[label]}" for i, label in enumerate(labels)], labels


def intents():
    sets = {"train": sentences(200), "test": sentences(120, seed=1)}
    return {split: {"text": texts, "label": labels} for split, (texts, labels) in sets.items()}


def groups():
    texts, labels = sentences(300)
    return {"test": {"sentences": texts, "labels": labels}}


def group_lists():
    texts, labels = sentences(120)
    return {"test": {"sentences": [texts[:60], texts[60:]], "labels": [labels[:60], labels[60:]]}}


def pairs():
    left, first = sentences(150)
    right, second = sentences(150, seed=1)
    alike = enumerate(zip(first, second, strict=True))
    same = [int(a == b) ^ (i % 5 == 0) for i, (a, b) in alike]  # some wrong: none is perfect
    return {"test": {"sentence1": left, "sentence2": right, "labels": same}}


def library():
    texts, labels = sentences(40)
    ids = [f"d{i}" for i in range(40)]
    relevant = {"q0": {}, "q1": {}}
    for i, label in enumerate(labels):
        if label < 2:
            relevant[f"q{label}"][f"d{i}"] = 1
    part = {
        "corpus": table({"id": ids, "title": ["a title"] * 40, "text": texts}),
        "queries": table({"id": ["q0", "q1"], "text": ["on river", "on stone"]}),
        "relevant_docs": relevant,
        "top_ranked": None,
    }
    return {"default": {"test": part}}


CUTS = {"max_fraction_of_documents_to_embed": 0.5, "max_documents_per_cluster": 512}
KINDS = {
    "Classification": ("AbsTaskClassification", "accuracy", intents, {}),
    "Clustering": ("AbsTaskClustering", "v_measure", groups, CUTS),
    "Legacy": ("AbsTaskClusteringLegacy", "v_measure", group_lists, {}),
    "PairClassification": ("AbsTaskPairClassification", "max_ap", pairs, {}),
    "Retrieval": ("AbsTaskRetrieval", "ndcg_at_10", library, {}),
}
PLANNED = {"Classification": 120, "PairClassification": 300}
"""The kinds whose texts are known before they are encoded, and how many the test sets have."""


def made(kind, make=None, *, prompt=None):
    """Return an mteb task class on data of its own."""
    import mteb.abstasks
    from datasets import DatasetDict

    base, score, usual, attributes = KINDS[kind]
    metadata = mteb.TaskMetadata(
        name=f"MadeUp{kind}",
        description="made for a test",
        type="Clustering" if kind == "Legacy" else kind,
        eval_langs=["eng-Latn"],
        eval_splits=["test"],
        main_score=score,
        dataset={"path": "made/up", "revision": "1"},
        prompt=prompt,
    )

    def load_data(self, **kwargs):
        sets = (make or usual)()
        if kind != "Retrieval":
            sets = DatasetDict({split: table(columns) for split, columns in sets.items()})
        self.dataset, self.data_loaded = sets, True

    attributes = {**attributes, "metadata": metadata, "load_data": load_data}
    return type(metadata.name, (getattr(mteb.abstasks, base),), attributes)


def on(kind, make=None, *, prompt=None, **changes):
    """Return our task on mteb's one."""
    return MtebTask("made up", source=made(kind, make, prompt=prompt), **changes)


def plain(model, task):
    """Return what mteb alone says."""
    import mteb

    with warnings.catch_warnings():  # not ours to mend
        warnings.simplefilter("ignore")
        result = mteb.evaluate(model, task, cache=None, co2_tracker=False, show_progress_bar=False)
    return result.task_results[0].scores["test"][0]


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.mark.parametrize("kind", KINDS)
def test_every_metric_equals_that_of_mteb_alone_and_planned_texts_are_encoded(kind):
    encoder, made_up = Noisy(), made(kind, prompt="Which thing?")
    task = MtebTask("made up", source=made_up)
    scores = task.evaluate(encoder, seed=42)
    alone = plain(as_mteb(Noisy()), made_up())
    assert scores[task.metric].mean == pytest.approx(alone["main_score"], abs=1e-12)
    for name, score in scores.items():
        assert score.mean == pytest.approx(alone[name], abs=1e-12)
    items = list(task.items(seed=42))
    assert len(items) == PLANNED.get(kind, 0)
    assert {*items} <= {*encoder.asked}
    if kind != "Retrieval":
        assert {item.instruction for item in encoder.asked} == {"Which thing?"}


def test_repeats_are_the_experiments_of_mteb_and_follow_the_seed(tmp_path, monkeypatch):
    monkeypatch.setenv("MTEB_CACHE", str(tmp_path))
    task = on("Classification")
    score = task.evaluate(Noisy(), seed=42)["accuracy"]
    assert len(score.repeats) == 10
    assert score.repeats != task.evaluate(Noisy(), seed=1)["accuracy"].repeats
    assert score.examples.mean() == pytest.approx(score.mean)
    assert len(on("Clustering").evaluate(Noisy(), seed=42)["v_measure"].repeats) == 10
    assert not list(tmp_path.rglob("*.json"))  # nothing in mteb's own cache


def test_vectors_that_have_no_score_are_errors(write):
    with pytest.raises(EncodingError, match="not finite"):
        on("Retrieval").evaluate(Broken(), seed=42)
    rows = [{"sentence1": f"a {i}", "sentence2": "b", "score": i % 6} for i in range(40)]
    write("mteb/sts16-sts", "test", rows)
    with pytest.raises(EncodingError, match="not a number"):
        MtebTask("STS16").evaluate(Constant(), seed=42)


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
    found = KINDS[kind][2]()
    for columns in found.values():
        if isinstance(value, list):
            columns[column] = value * len(columns[column])
        else:
            columns[column][5] = value
    with pytest.raises(DataError, match=told):
        on(kind, lambda: found).evaluate(Noisy(), seed=42)


def test_global_random_state_is_left_alone():
    torch = pytest.importorskip("torch")

    def states():
        numbers = np.random.get_state()[1].tolist()  # noqa: NPY002
        return random.getstate(), numbers, torch.get_rng_state().tolist()

    random.seed(7)
    np.random.seed(7)  # noqa: NPY002
    torch.manual_seed(7)
    before = states()
    task = on("Clustering")
    assert (task.family, task.metric) == ("clustering", "v_measure")
    list(task.items(seed=42))
    task.evaluate(Noisy(), seed=42)
    assert known_task("STS13")
    assert states() == before


@pytest.mark.parametrize(("kind", "planned"), [("Classification", 40), ("PairClassification", 80)])
def test_a_limit_cuts_flat_tasks(kind, planned):
    task = on(kind, limit=40)
    assert len(task.evaluate(Noisy(), seed=42)[task.metric].examples) == 40
    assert len(list(task.items(seed=42))) == planned


def test_a_limit_cuts_a_clustering_and_is_refused_where_it_is_not_defined():
    encoder = Noisy()
    on("Clustering", limit=30).evaluate(encoder, seed=42)
    assert len(encoder.asked) == 30
    with pytest.raises(Unavailable, match="limit is not defined"):
        on("Legacy", limit=40).evaluate(Noisy(), seed=42)


def test_a_limit_draws_queries_with_what_is_judged_and_a_thousand_other_documents():
    def large():
        texts, _ = sentences(1500)
        ids = [f"d{i}" for i in range(1500)]
        relevant = {f"q{i}": {f"d{i}": 1, f"d{1499 - i}": 1} for i in range(30)}
        queries = table({"id": list(relevant), "text": texts[:30]})
        corpus = table({"id": ids, "title": ids, "text": texts})
        part = {"corpus": corpus, "top_ranked": None, "queries": queries, "relevant_docs": relevant}
        return {"default": {"test": part}}

    encoder, task = Noisy(), on("Retrieval", large, limit=5)
    assert "1000 documents" in task.readout
    scores = task.evaluate(encoder, seed=42)
    documents = {int(item.text.split()[0][1:]) for item in encoder.asked if item.text[0] == "d"}
    queries = {int(item.text.split()[1]) for item in encoder.asked if item.text[0] == "t"}
    assert (len(queries), len(documents)) == (5, 1010)
    assert queries | {1499 - n for n in queries} <= documents
    assert task.evaluate(Noisy(), seed=42) == scores


def library_rows():
    """Return corpus, queries, judgements and candidates as the hub has them."""
    texts, labels = sentences(40)
    corpus = [{"_id": f"d{i}", "title": "a title", "text": text} for i, text in enumerate(texts)]
    asked = ("on river", "on stone", "nobody judged this")
    queries = [{"_id": str(i), "text": text} for i, text in enumerate(asked, 1)]
    judged = [
        {"query-id": str(label + 1), "corpus-id": f"d{i}", "score": 1.0}
        for i, label in enumerate(labels)
        if label < 2
    ]
    ids = [document["_id"] for document in corpus]
    return corpus, queries, judged, {"1": ids[:20], "2": ids[:20]}


@pytest.mark.parametrize("name", ["SciFact", "AskUbuntuDupQuestions"])
@pytest.mark.usefixtures("offline")
def test_retrieval_and_reranking_are_read_from_a_local_copy_in_the_hub_s_layout(
    name, write, caplog
):
    import mteb

    corpus, queries, judged, candidates = library_rows()
    alone = mteb.get_task(name)
    path = alone.metadata.dataset["path"]
    write(f"{path}/corpus", "corpus", corpus)
    write(f"{path}/queries", "queries", queries)
    write(f"{path}/default", "test", judged)
    if name != "SciFact":
        ranked = [{"query-id": query, "corpus-ids": ids} for query, ids in candidates.items()]
        write(f"{path}/top_ranked", "test", ranked)
    part = library()["default"]["test"]
    part["queries"] = table({"id": ["1", "2"], "text": ["on river", "on stone"]})
    part["relevant_docs"] = {"1": part["relevant_docs"]["q0"], "2": part["relevant_docs"]["q1"]}
    part["top_ranked"] = None if name == "SciFact" else candidates
    alone.dataset, alone.data_loaded = {"default": {"test": part}}, True
    task = MtebTask(name)
    with data.record_sources() as sets:
        scores = task.evaluate(Noisy(), seed=42)
    expected = plain(as_mteb(Noisy()), alone)["main_score"]
    assert scores[task.metric].mean == pytest.approx(expected, abs=1e-12)
    assert {entry["source"] for entry in sets} == {"local"}
    assert {entry["config"] for entry in sets} >= {"corpus", "queries", "default"}
    assert "40 documents" in caplog.text  # far from mteb's number of them
    assert task.metric in MtebTask(name, limit=1).evaluate(Noisy(), seed=42)


@pytest.mark.usefixtures("offline")
def test_a_local_copy_is_read_and_recorded_and_one_of_another_size_is_told(write, caplog):
    rows = [{"sentence1": f"a {i}", "sentence2": f"b {i % 7}", "score": i % 6} for i in range(40)]
    write("mteb/biosses-sts", "test", rows)
    write("mteb/sts16-sts", "test", rows)
    assert len(list(MtebTask("BIOSSES").items(seed=42))) == 80
    with data.record_sources() as sets:
        score = MtebTask("STS16").evaluate(Noisy(), seed=42)["cosine_spearman"]
    assert [entry["id"] for entry in sets] == ["mteb/sts16-sts"]
    assert len(score.examples) == 40
    each = contributions("cosine_spearman", score.examples, score.gold)
    assert each.mean() == pytest.approx(score.mean, abs=1e-6)
    assert "BIOSSES default test: the local copy has 40 samples, mteb's set has 100" in caplog.text
    assert caplog.text.count("not comparable") == 2  # the other by its file


def test_a_part_that_a_local_copy_lacks_is_named(write):
    corpus, _, judged, _ = library_rows()
    write("mteb/scifact/corpus", "corpus", corpus)
    write("mteb/scifact/default", "test", judged)
    with pytest.raises(DataError, match=r"no queries/test.jsonl.gz"):
        MtebTask("SciFact").evaluate(Noisy(), seed=42)
    write("mteb/scifact/queries", "queries", [{"_id": "1", "words": "on river"}])
    with pytest.raises(DataError, match="'text'"):
        MtebTask("SciFact").evaluate(Noisy(), seed=42)


def test_a_folder_in_the_working_directory_is_not_taken_for_the_hub(tmp_path, monkeypatch):
    folder = tmp_path / "mteb" / "biosses-sts"
    folder.mkdir(parents=True)
    (folder / "test.jsonl").write_text('{"sentence1": "a", "sentence2": "b", "score": 1.0}\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BENCH_DATA", raising=False)
    with pytest.raises(Unavailable, match="the folder mteb/biosses-sts"):
        MtebTask("BIOSSES").evaluate(Noisy(), seed=42)


@pytest.mark.usefixtures("offline")
def test_what_is_not_there_at_its_revision_is_unavailable_in_one_line(write, monkeypatch):
    with pytest.raises(Unavailable, match="Banking77Classification") as raised:
        MtebTask("Banking77Classification").evaluate(Noisy(), seed=42)
    assert "\n" not in str(raised.value)
    rows = [{"sentence1": f"a {i}", "sentence2": f"b {i}", "score": float(i)} for i in range(9)]
    write("mteb/sts16-sts", "test", rows)
    key = ("mteb/sts16-sts", "")
    other = dataclasses.replace(CATALOG[key], revision="0" * 40)
    monkeypatch.setitem(CATALOG, key, other)
    with pytest.raises(Unavailable, match="STS16"):
        MtebTask("STS16").evaluate(Noisy(), seed=42)


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
)
def test_the_sides_that_a_method_names_get_the_instruction(sides, prompt, own, queries, documents):
    @dataclass(frozen=True)
    class Sided(Noisy):
        instructed_sides: ClassVar[tuple[str, ...]] = sides

    encoder = Sided()
    on("Retrieval", prompt=prompt, instruction=own).evaluate(encoder, seed=42)
    asked = dict(encoder.asked)
    assert asked.pop("on river") == asked.pop("on stone") == queries
    assert {*asked.values()} == {documents}
    assert card(encoder).instructed_sides == sides


def test_queries_alone_get_the_instruction_of_a_method_that_names_no_side():
    assert instructed_sides(Noisy()) == ("query",)
    assert instructed_sides(load_encoder("llm2comp")) == ("query",)
    assert instructed_sides(load_encoder("inbedder")) == ("query", "document")
    assert instructed_sides(load_encoder("hashing")) == ()


def test_pairs_that_lie_in_one_row_are_read_as_rows():
    def one_row():
        return {"test": {name: [values] for name, values in pairs()["test"].items()}}

    expected = on("PairClassification").evaluate(Noisy(), seed=42)
    assert on("PairClassification", one_row).evaluate(Noisy(), seed=42) == expected


def test_the_whole_column_and_the_batches_hold_the_same_texts():
    from mteb._create_dataloaders import create_dataloader  # as mteb itself makes them

    from bench.tasks.mteb.bridge import texts_of

    part = library()["default"]["test"]
    retrieval, classification = made("Retrieval").metadata, made("Classification").metadata
    for rows, metadata, more in (
        (part["corpus"], retrieval, {"prompt_type": "document"}),
        (part["queries"], retrieval, {"prompt_type": "query"}),
        (table(intents()["test"]), classification, {"input_column": "text"}),
    ):
        loader = create_dataloader(rows, task_metadata=metadata, **more)
        batched = [text for batch in loader for text in batch["text"]]
        assert texts_of(loader) == batched
        assert len(batched) > 1


def test_the_runner_mteb_and_the_cache_give_the_same_numbers_and_mteb_takes_two_models(tmp_path):
    import mteb

    made_up = made("PairClassification")
    task, cache = MtebTask("made up", source=made_up), mteb.ResultCache(tmp_path / "mteb")
    found = []
    for encoder in (Noisy(24), Noisy(25)):
        model = as_mteb(encoder)
        result = mteb.evaluate(
            model, made_up(), cache=cache, co2_tracker=False, show_progress_bar=False
        )
        assert (result.model_name, result.model_revision) == ("bench/Noisy", fingerprint(encoder))
        found.append(result.task_results[0].get_score())
        for vectors in (Vectors(tmp_path / "vectors"), Vectors(None)):
            store = Store(tmp_path / "results")
            (cell,) = run({"noisy": encoder}, [task], store, vectors, force=True)
            assert cell.result.main.mean == pytest.approx(found[-1], abs=1e-9)
    assert found[0] != found[1]


def test_names_families_instructions_and_subsets():
    assert known_task("STS13")
    assert not known_task("STS133")
    with pytest.raises(UsageError, match="STS13"):
        MtebTask("STS133").evaluate(Noisy(), seed=42)
    families = {"STS13": "sts", "SciFact": "retrieval", "TwitterURLCorpus": "paraphrase"}
    families["SummEvalSummarization.v2"] = "summarization"
    assert {name: MtebTask(name).family for name in families} == families
    assert MtebTask("STS13").readout == "embedding"
    assert "Compare" in MtebTask("STS13", instruction="Compare").readout
    assert MtebTask("STS13").version > 1_000_000
    for name, subsets in (("STS17", ["en-en"]), ("MassiveIntentClassification", ["en"])):
        assert _fresh(name, None, 42).hf_subsets == subsets  # of many languages, only English


def test_a_benchmark_s_own_subsets_and_splits_are_taken_and_named():
    german, english = (
        {task.name: task for task in benchmark(name)} for name in ("MTEB(deu, v1)", "MTEB(eng, v2)")
    )
    assert german["STS22"] == MtebTask("STS22", subsets=("de",))
    assert german["MTOPIntentClassification"].readout == "embedding on de, validation, test"
    assert english["AmazonCounterfactualClassification"].subsets == ("en",)
    assert english["STSBenchmark"] == MtebTask("STSBenchmark")  # its choice is ours
    assert benchmark("no such benchmark") == ()


@pytest.mark.usefixtures("offline")
def test_the_subsets_that_are_asked_for_are_the_ones_that_are_scored(write):
    rng = np.random.default_rng(0)
    for subset, count in (("en-en", 60), ("ko-ko", 30)):
        gold = rng.integers(6, size=count).astype(float)
        rows = [
            {"sentence1": f"a {i}", "sentence2": f"b {i % 7}", "score": score}
            for i, score in enumerate(gold)
        ]
        write(f"mteb/sts17-crosslingual-sts/{subset}", "test", rows)
    for subsets, count in (((), 60), (("en-en",), 60), (("ko-ko",), 30)):
        scores = MtebTask("STS17", subsets=subsets).evaluate(Noisy(), seed=42)
        assert len(scores["cosine_spearman"].examples) == count


def test_where_mteb_is_not_installed_a_task_can_be_named_and_is_unavailable(monkeypatch):
    monkeypatch.setitem(sys.modules, "mteb", None)
    task = MtebTask("BIOSSES")
    assert (task.family, task.metric, task.version) == ("mteb", "main_score", 1_000_000)
    assert not known_task("BIOSSES")
    assert not benchmark("MTEB(eng, v2)")
    assert not list(task.items(seed=42))
    with pytest.raises(Unavailable, match="pip install"):
        task.evaluate(Noisy(), seed=42)


@pytest.fixture(scope="module")
def minilm():
    """all-MiniLM-L6-v2, which embeds a text once for all tests."""
    pytest.importorskip("sentence_transformers")
    if "BENCH_DATA" not in os.environ:
        pytest.skip("needs BENCH_DATA, the folder with local copies of data sets")
    from adapters.baseline.sentence import SentenceEncoder

    encoder = SentenceEncoder(dtype="float32")
    try:
        encoder.encode(["warm"])
    except Unavailable as error:
        pytest.skip(str(error))
    return cached(encoder, Vectors(None))


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


def real_intents():
    """Return every so many rows of a real data set."""
    found = {}
    for split in ("train", "test"):
        rows = data.load("clinc/clinc_oos", split, config="plus")
        rows = rows.take(range(0, len(rows), len(rows) // 100))
        found[split] = {"text": rows["text"], "label": rows["intent"]}
    return found


@pytest.mark.parametrize("kind", ["STS", "Classification"])
def test_on_real_data_the_score_is_that_of_sentence_transformers_in_mteb_alone(kind, minilm):
    import mteb
    from sentence_transformers import SentenceTransformer

    from adapters.baseline.sentence import folder_of

    theirs = SentenceTransformer(str(folder_of(minilm.inner.checkpoint)), device="cpu")
    if kind == "STS":
        ours, alone = MtebTask("STS13", limit=300), mteb.get_task("STS13")
        rows = data.load("mteb/sts13-sts", "test")
        rows = rows.take(sample(len(rows), 300))
        alone.dataset, alone.data_loaded = {"test": table(dict(rows.data))}, True
    else:
        made_up = made(kind, real_intents)
        ours, alone = MtebTask("made up", source=made_up), made_up()
    # The last bits of vectors depend on the batch, which may move one or two of 100 texts.
    tolerance = 2 / 1000 if kind == "Classification" else 5e-5
    found = ours.evaluate(minilm, seed=42)[ours.metric].mean
    assert found == pytest.approx(plain(theirs, alone)["main_score"], abs=tolerance)


def test_half_precision_moves_a_score_by_less_than_a_thousandth(minilm):
    task = MtebTask("STS13", limit=500)
    half = dataclasses.replace(minilm.inner, dtype="bfloat16")
    scores = [task.evaluate(encoder, seed=42)["cosine_spearman"].mean for encoder in (half, minilm)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)
