"""mteb's tasks on our encoders: the same scores as mteb alone, without its traps."""

import dataclasses
import os
import sys
import warnings
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from bench import data
from bench.data.catalog import CATALOG
from bench.embeddings import cached
from bench.encoder import fingerprint, instructed_sides
from bench.errors import DataError, EncodingError, Unavailable, UsageError
from bench.registry import load_encoder
from bench.runner import run
from bench.stats.influence import contributions
from bench.store import Store
from bench.tasks.mteb import MtebTask, _fresh, as_mteb, benchmark, known_task
from bench.tasks.mteb.mirrored import save
from bench.testing import check_task
from bench.testing.randomness import random_states_touched
from bench.vectors import Vectors
from tests.bench.encoders import Constant, Noisy

mteb = pytest.importorskip("mteb", reason="needs mteb")
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*:DeprecationWarning",
    "ignore:.*superseded.*",
    "ignore::sklearn.exceptions.UndefinedMetricWarning",
)
WORDS = ("river", "stone", "cloud", "needle")
QUIET = {"co2_tracker": False, "show_progress_bar": False}


@dataclass(frozen=True)
class Sided(Noisy):
    instructed_sides: ClassVar[tuple[str, ...]] = ("query", "document")


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


def retrieval(texts, titles, queries, judged):
    ids = [f"d{i}" for i in range(len(texts))]
    corpus = table({"id": ids, "title": titles, "text": texts})
    part = {"corpus": corpus, "relevant_docs": judged, "top_ranked": None}
    part["queries"] = table({"id": list(judged), "text": queries})
    return {"default": {"test": part}}


def library():
    texts, labels = sentences(40)
    judged = {f"q{k}": {f"d{i}": 1 for i, j in enumerate(labels) if j == k} for k in (0, 1)}
    return retrieval(texts, ["a title"] * 40, ["on river", "on stone"], judged)


def topics():
    sets = intents()
    for columns in sets.values():
        columns["label"] = [[a, (a + i % 3) % 4] for i, a in enumerate(columns["label"])]
    return sets


def years():
    sets = intents()
    for columns in sets.values():
        columns["value"] = [a + i % 7 / 10 for i, a in enumerate(columns.pop("label"))]
    return sets


def translations():
    texts, labels = sentences(60)
    there = [f"texte {i} de {WORDS[label]}" for i, label in enumerate(labels)]
    return {"test": {"sentence1": texts, "sentence2": there}}


def summaries():
    texts, _ = sentences(12)
    written = [[f"summary {i} {j} on {word}" for j, word in enumerate(WORDS)] for i in range(12)]
    columns = {"text": texts, "human_summaries": written, "machine_summaries": written[::-1]}
    return {
        "test": {
            **columns,
            "relevance": [[(i * j) % 5 + j / 9 for j in range(4)] for i in range(12)],
        }
    }


CUTS = {"max_fraction_of_documents_to_embed": 0.5, "max_documents_per_cluster": 512}
KINDS = {
    "Classification": ("AbsTaskClassification", "accuracy", intents, {}),
    "Clustering": ("AbsTaskClustering", "v_measure", groups, CUTS),
    "Legacy": ("AbsTaskClusteringLegacy", "v_measure", group_lists, {}),
    "PairClassification": ("AbsTaskPairClassification", "max_ap", pairs, {}),
    "Retrieval": ("AbsTaskRetrieval", "ndcg_at_10", library, {}),
    "MultilabelClassification": ("AbsTaskMultilabelClassification", "accuracy", topics, {}),
    "Regression": ("AbsTaskRegression", "kendalltau", years, {}),
    "BitextMining": ("AbsTaskBitextMining", "f1", translations, {}),
    "Summarization": (
        "AbsTaskSummarization",
        "cosine_spearman",
        summaries,
        {"min_score": 0, "max_score": 5},
    ),
}
PLANNED = {"Classification": 120, "PairClassification": 300}
"""The kinds whose texts are known before they are encoded, and how many the test sets have."""
REPEATS = {"Classification": 10, "Clustering": 10, "Legacy": 2}
REPEATS |= {"MultilabelClassification": 10, "Regression": 10}


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


def near(kind, make=None, **changes):
    """Return an mteb task class that reads its data as mteb's own tasks do."""
    task = made(kind, make)
    metadata = task.metadata.model_copy(update=changes)
    return type(kind, (task,), {"load_data": mteb.AbsTask.load_data, "metadata": metadata})


def as_rows(columns):
    """Return the rows of columns, as a file has them."""
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def on(kind, make=None, *, prompt=None, **changes):
    """Return our task on mteb's one."""
    return MtebTask("made up", source=made(kind, make, prompt=prompt), **changes)


def alone(model, task):
    """Return what mteb alone says."""
    with warnings.catch_warnings():  # not ours to mend
        warnings.simplefilter("ignore")
        result = mteb.evaluate(model, task, cache=None, **QUIET)
    return result.task_results[0].scores["test"][0]


def scored(n, *gold):
    """Rows of n pairs with these gold scores in turn."""
    return [
        {"sentence1": f"a {i}", "sentence2": f"b {i % 7}", "score": gold[i % len(gold)]}
        for i in range(n)
    ]


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.mark.parametrize("kind", KINDS)
def test_every_metric_equals_that_of_mteb_alone_under_the_contract(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("MTEB_CACHE", str(tmp_path))
    encoder, task = Noisy(), on(kind, prompt="Which thing?")
    scores = check_task(task, encoder)
    theirs = alone(as_mteb(Noisy()), task.source())
    assert scores[task.metric].mean == pytest.approx(theirs["main_score"], abs=1e-12)
    for name, score in scores.items():
        assert score.mean == pytest.approx(theirs[name], abs=1e-12)
    main = scores[task.metric]
    assert len(main.repeats) == REPEATS.get(kind, 1)
    if kind == "Classification":
        assert main.examples.mean() == pytest.approx(main.mean)
    assert len(task.items(seed=42)) == PLANNED.get(kind, 0)
    if kind != "Retrieval":
        assert {item.instruction for item in encoder.asked} == {"Which thing?"}
    assert not list(tmp_path.rglob("*.json"))  # nothing in mteb's own cache


def test_another_seed_gives_other_repeats_and_planning_leaves_random_state_alone():
    task = on("Classification")
    one, two = (task.evaluate(Noisy(), seed=seed)["accuracy"].repeats for seed in (42, 1))
    assert one != two
    assert not random_states_touched(lambda: (task.items(seed=42), known_task("STS13")))


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


def test_one_cosine_for_all_pairs_has_no_score(write):
    write("mteb/sts16-sts", "test", scored(40, *range(6)))
    with pytest.raises(EncodingError, match="not a number"):
        MtebTask("STS16").evaluate(Constant(), seed=42)


def test_a_limit_cuts_examples_or_embedded_texts_and_is_refused_where_it_is_not_defined():
    for kind, planned in (("Classification", 30), ("PairClassification", 60), ("Clustering", 0)):
        encoder, task = Noisy(), on(kind, limit=30)
        score = task.evaluate(encoder, seed=42)[task.metric]
        assert len(score.examples) == (30 if planned else 0)
        assert len(task.items(seed=42)) == planned
    assert len(encoder.asked) == 30  # of the clustering
    with pytest.raises(Unavailable, match="limit is not defined"):
        on("Legacy", limit=40).evaluate(Noisy(), seed=42)


def test_a_limit_draws_queries_with_what_is_judged_and_a_thousand_other_documents():
    def large():
        texts, _ = sentences(1500)
        judged = {f"q{i}": {f"d{i}": 1, f"d{1499 - i}": 1} for i in range(30)}
        return retrieval(texts, [f"d{i}" for i in range(1500)], texts[:30], judged)

    encoder, task = Noisy(), on("Retrieval", large, limit=5)
    assert "1000 documents" in task.readout
    scores = task.evaluate(encoder, seed=42)
    documents = {int(item.text.split()[0][1:]) for item in encoder.asked if item.text[0] == "d"}
    queries = {int(item.text.split()[1]) for item in encoder.asked if item.text[0] == "t"}
    assert (len(queries), len(documents)) == (5, 1010)
    assert queries | {1499 - n for n in queries} <= documents
    assert task.evaluate(Noisy(), seed=42) == scores


@pytest.mark.parametrize("name", ["SciFact", "AskUbuntuDupQuestions"])
@pytest.mark.usefixtures("offline")
def test_a_local_copy_of_retrieval_or_reranking_is_read_in_the_hub_s_layout(name, write, caplog):
    theirs, (part,) = mteb.get_task(name), library()["default"].values()
    path, judged = theirs.metadata.dataset["path"], part["relevant_docs"]
    candidates = {query: list(part["corpus"]["id"][:20]) for query in judged}
    corpus = [{"_id": d.pop("id"), **d} for d in part["corpus"]]
    queries = [{"_id": q["id"], "text": q["text"]} for q in part["queries"]]
    queries.append({"_id": "unjudged", "text": "nobody judged this"})
    found = ((q, d) for q, documents in judged.items() for d in documents)
    write(f"{path}/corpus", "corpus", corpus)
    write(
        f"{path}/default", "test", [{"query-id": q, "corpus-id": d, "score": 1} for q, d in found]
    )
    with pytest.raises(DataError, match=r"no queries/test.jsonl.gz"):
        MtebTask(name).evaluate(Noisy(), seed=42)
    write(f"{path}/queries", "queries", [{"_id": "q0", "words": "on river"}])
    with pytest.raises(DataError, match="'text'"):
        MtebTask(name).evaluate(Noisy(), seed=42)
    write(f"{path}/queries", "queries", queries)
    if name != "SciFact":
        with pytest.raises(DataError, match=r"no top_ranked/test.jsonl.gz"):
            MtebTask(name).evaluate(Noisy(), seed=42)
        ranked = [{"query-id": query, "corpus-ids": ids} for query, ids in candidates.items()]
        write(f"{path}/top_ranked", "test", ranked)
        part["top_ranked"] = candidates
    theirs.dataset, theirs.data_loaded = {"default": {"test": part}}, True
    task = MtebTask(name)
    with data.record_sources() as sets:
        score = task.evaluate(Noisy(), seed=42)[task.metric].mean
    assert score == pytest.approx(alone(as_mteb(Noisy()), theirs)["main_score"], abs=1e-12)
    assert {entry["source"] for entry in sets} == {"local"}
    assert {entry["config"] for entry in sets} >= {"corpus", "queries", "default"}
    assert "40 documents" in caplog.text  # far from mteb's number of them
    assert task.metric in MtebTask(name, limit=1).evaluate(Noisy(), seed=42)


@pytest.mark.usefixtures("offline")
def test_a_local_copy_is_read_and_recorded_and_one_of_another_size_is_told(write, caplog):
    for name in ("mteb/biosses-sts", "mteb/sts16-sts"):
        write(name, "test", scored(40, *range(6)))
    assert len(MtebTask("BIOSSES").items(seed=42)) == 80
    with data.record_sources() as sets:
        score = MtebTask("STS16").evaluate(Noisy(), seed=42)["cosine_spearman"]
    assert [entry["id"] for entry in sets] == ["mteb/sts16-sts"]
    each = contributions("cosine_spearman", score.examples, score.gold)
    assert (len(each), each.mean()) == (40, pytest.approx(score.mean, abs=1e-6))
    assert "BIOSSES default test: the local copy has 40 samples, mteb's set has 100" in caplog.text
    assert caplog.text.count("not comparable") == 2  # the other by its file


@pytest.mark.usefixtures("offline")
def test_what_is_not_there_at_its_revision_is_unavailable(write, monkeypatch, tmp_path):
    with pytest.raises(Unavailable, match="Banking77Classification"):
        MtebTask("Banking77Classification").evaluate(Noisy(), seed=42)
    write("mteb/sts16-sts", "test", scored(9, *range(9)))
    key = ("mteb/sts16-sts", "")
    other = dataclasses.replace(CATALOG[key], revision="0" * 40)
    monkeypatch.setitem(CATALOG, key, other)
    with pytest.raises(Unavailable, match="STS16"):
        MtebTask("STS16").evaluate(Noisy(), seed=42)
    # A folder of the working directory is not taken for the hub's.
    (tmp_path / "mteb/biosses-sts").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BENCH_DATA")
    with pytest.raises(Unavailable, match="the folder mteb/biosses-sts"):
        MtebTask("BIOSSES").evaluate(Noisy(), seed=42)


BOTH = {"query": "Find it", "document": "Keep it"}


@pytest.mark.parametrize(
    ("encoder", "prompt", "own", "queries", "documents"),
    [
        (Noisy(), None, "", "", ""),
        (Noisy(), "Find it", "Mine", "Mine", ""),
        (Noisy(), BOTH, "", "Find it", "Keep it"),
        (Sided(), {"query": "Find it"}, "", "Find it", "Find it"),
        (Sided(), BOTH, "", "Find it", "Keep it"),
        (Sided(), "Find it", "Mine", "Mine", "Mine"),
    ],
)
def test_sides_get_the_instruction_that_is_theirs(encoder, prompt, own, queries, documents):
    on("Retrieval", prompt=prompt, instruction=own).evaluate(encoder, seed=42)
    asked = dict(encoder.asked)
    assert asked.pop("on river") == asked.pop("on stone") == queries
    assert {*asked.values()} == {documents}


def test_queries_alone_get_the_instruction_of_a_method_that_names_no_side():
    sides = {"llm2comp": ("query",), "inbedder": ("query", "document"), "hashing": ()}
    assert {name: instructed_sides(load_encoder(name)) for name in sides} == sides


def test_pairs_that_lie_in_one_row_are_read_as_rows():
    one_row = {"test": {name: [values] for name, values in pairs()["test"].items()}}
    expected = on("PairClassification").evaluate(Noisy(), seed=42)
    assert on("PairClassification", lambda: one_row).evaluate(Noisy(), seed=42) == expected


def test_the_whole_column_and_the_batches_hold_the_same_texts():
    from mteb._create_dataloaders import create_dataloader  # as mteb itself makes them

    from bench.tasks.mteb.bridge import texts_of

    (part,) = library()["default"].values()
    for rows, kind, more in (
        (part["corpus"], "Retrieval", {"prompt_type": "document"}),
        (part["queries"], "Retrieval", {"prompt_type": "query"}),
        (table(intents()["test"]), "Classification", {"input_column": "text"}),
    ):
        loader = create_dataloader(rows, task_metadata=made(kind).metadata, **more)
        batched = [text for batch in loader for text in batch["text"]]
        assert texts_of(loader) == batched != []


def test_the_runner_and_mteb_s_own_cache_keep_encoders_and_instructions_apart(tmp_path):
    task, cache = on("PairClassification"), mteb.ResultCache(tmp_path / "mteb")
    found = []
    for encoder in (Noisy(24), Noisy(25)):
        result = mteb.evaluate(as_mteb(encoder), task.source(), cache=cache, **QUIET)
        assert (result.model_name, result.model_revision) == ("bench/Noisy", fingerprint(encoder))
        found.append(result.task_results[0].get_score())
        for vectors in (Vectors(tmp_path / "vectors"), Vectors(None)):
            store = Store(tmp_path / "results")
            (cell,) = run({"noisy": encoder}, [task], store, vectors, force=True)
            assert cell.result.main.mean == pytest.approx(found[-1], abs=1e-9)
    for instruction in ("Mine", "Yours"):
        model = as_mteb(Noisy(24), instruction=instruction)
        result = mteb.evaluate(model, task.source(), cache=cache, **QUIET)
        found.append(result.task_results[0].get_score())
    assert len(set(found)) == 4


def test_names_families_instructions_and_subsets():
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
    german = {task.name: task for task in benchmark("MTEB(deu, v1)")}
    assert german["STS22"] == MtebTask("STS22", subsets=("de",))
    assert german["MTOPIntentClassification"].readout == "embedding on de, validation, test"
    assert german["BlurbsClusteringP2P"] == MtebTask("BlurbsClusteringP2P")  # its choice is ours
    assert benchmark("no such benchmark") == ()


@pytest.mark.usefixtures("offline")
def test_the_subsets_that_are_asked_for_are_the_ones_that_are_scored(write):
    sizes = {"en-en": 60, "ko-ko": 30}
    for subset, n in sizes.items():
        write(f"mteb/sts17-crosslingual-sts/{subset}", "test", scored(n, *range(6)))
    for subsets in ((), ("en-en",), ("ko-ko",)):
        scores = MtebTask("STS17", subsets=subsets).evaluate(Noisy(), seed=42)
        assert len(scores["cosine_spearman"].examples) == sizes[(*subsets, "en-en")[0]]


def drawn(n):
    """Return a task on a tenth of its texts, of 12 classes, drawn by its seed."""
    base, rows = made("Classification"), sentences(n)[0]
    names = [f"class {i:02}" for i in range(12)]

    def draw(self):
        self.dataset = self.stratified_subsampling(self.dataset, self.seed, n_samples=n // 10)

    class Drawn(base):
        load_data, _draw = mteb.AbsTask.load_data, draw

        def dataset_transform(self, **kwargs):
            self._draw()

    return Drawn, {"text": rows, "label": [i % 12 for i in range(n)]}, names


@pytest.mark.usefixtures("offline")
def test_from_a_local_copy_the_same_texts_are_drawn_as_from_the_hub(write):
    from datasets import ClassLabel, DatasetDict

    kind, columns, names = drawn(600)
    for split in ("train", "test"):
        write("made/up", split, as_rows(columns), names={"label": names})
    theirs = kind(seed=42)
    hub = table(columns).cast_column("label", ClassLabel(names=names))
    theirs.dataset = DatasetDict(test=hub)
    theirs.dataset_transform()
    ours = MtebTask("made up", source=kind).load(42).dataset["default"]["test"]
    assert (ours["text"], ours["label"]) == tuple(theirs.dataset["test"][c][:] for c in columns)


@pytest.mark.usefixtures("offline")
def test_a_mirror_has_the_draw_of_mteb_s_own_seed_alone(tmp_path, monkeypatch):
    from datasets import DatasetDict

    kind, columns, _ = drawn(600)
    one = kind(seed=42)
    one.dataset = DatasetDict(train=table(columns), test=table(columns))
    one.dataset_transform()
    save(one, tmp_path / "mteb-tasks/MadeUpClassification/1")
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    task = MtebTask("made up", source=kind)
    assert len(task.load(42).dataset["default"]["test"]) == 60
    with pytest.raises(Unavailable, match="seed 42"):
        task.load(1)


def test_where_mteb_is_not_installed_a_task_can_be_named_and_is_unavailable(monkeypatch):
    monkeypatch.setitem(sys.modules, "mteb", None)
    task = MtebTask("BIOSSES")
    assert (task.family, task.metric, task.version) == ("mteb", "main_score", 1_000_000)
    assert not known_task("BIOSSES")
    assert not benchmark("MTEB(eng, v2)")
    assert not task.items(seed=42)
    with pytest.raises(Unavailable, match="pip install"):
        task.evaluate(Noisy(), seed=42)


@pytest.mark.parametrize("kind", ["MultilabelClassification", "Regression"])
@pytest.mark.usefixtures("offline")
def test_the_rows_to_train_on_are_read_from_a_local_copy(kind, write):
    for split, columns in KINDS[kind][2]().items():
        write("made/up", split, as_rows(columns))
    ours = MtebTask("made up", source=near(kind)).evaluate(Noisy(), seed=42)
    assert ours == on(kind).evaluate(Noisy(), seed=42)


@pytest.mark.usefixtures("offline")
def test_the_tasks_of_an_aggregate_are_made_anew_with_the_seed_of_the_run(write):
    from mteb.abstasks.aggregate_task_metadata import AggregateTaskMetadata
    from mteb.abstasks.aggregated_task import AbsTaskAggregate

    for split, columns in intents().items():
        write("made/up", split, as_rows(columns))
    parts = [near("Classification"), near("Classification", name="MadeUpToo")]
    metadata = AggregateTaskMetadata(
        name="MadeUpTogether",
        description="made for a test",
        tasks=[part() for part in parts],
        main_score="accuracy",
        type="Classification",
        eval_splits=["test"],
    )
    together = type("Together", (AbsTaskAggregate,), {"metadata": metadata})
    for seed in (42, 1):
        with data.record_sources() as sets:
            ours = MtebTask("all", source=together).evaluate(Noisy(), seed=seed)["accuracy"]
        each = [MtebTask("one", source=part).evaluate(Noisy(), seed=seed) for part in parts]
        assert ours.mean == pytest.approx(np.mean([scores["accuracy"].mean for scores in each]))
        assert {entry["id"] for entry in sets} == {"made/up"}
    assert not any(part.data_loaded for part in metadata.tasks)


def test_a_task_that_keeps_no_predictions_has_a_score_and_no_examples():
    class Silent(made("PairClassification")):
        def _save_task_predictions(self, *args, **kwargs):
            pass

    ours = MtebTask("made up", source=Silent).evaluate(Noisy(), seed=42)["max_ap"]
    assert not len(ours.examples)
    assert ours.mean == on("PairClassification").evaluate(Noisy(), seed=42)["max_ap"].mean


def test_a_limit_is_refused_where_the_score_is_of_pairs_of_queries():
    with pytest.raises(Unavailable, match="limit is not defined"):
        MtebTask("NevIR", limit=3).load(42)


def test_a_limit_leaves_the_rows_to_train_on_where_they_are_those_that_are_evaluated():
    class Same(made("Classification")):
        metadata = made("Classification").metadata.model_copy(update={"eval_splits": ["train"]})

    task, encoder = MtebTask("made up", source=Same, limit=20), Noisy()
    assert len(task.items(seed=42)) == 20
    score = task.evaluate(encoder, seed=42)["accuracy"]
    assert len(score.examples) == 20
    assert len({item.text for item in encoder.asked}) > 20 + 8  # 32 of all 200 rows
    assert "trained on the whole split" in task.readout


@pytest.mark.usefixtures("offline")
def test_a_mirror_has_the_parallel_texts_of_many_languages(tmp_path, monkeypatch):
    from datasets import DatasetDict

    texts, there = translations()["test"].values()
    theirs = _fresh("NTREXBitextMining", None, 42)
    columns = {"deu_Latn": there, "eng_Latn": texts, "fra_Latn": texts}
    theirs.dataset = DatasetDict(test=table(columns))
    save(theirs, tmp_path / "mteb-tasks/NTREXBitextMining" / theirs.metadata.dataset["revision"])
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    task = MtebTask("NTREXBitextMining", subsets=("eng_Latn-fra_Latn",))
    assert task.evaluate(Noisy(), seed=42)["f1"].mean == 1


@pytest.mark.usefixtures("offline")
def test_a_mirror_has_data_that_is_no_table(tmp_path, monkeypatch):
    texts, there = translations()["test"].values()
    theirs = _fresh("BUCC", None, 42)
    lists = {"sentence1": texts[:30], "sentence2": there, "gold": [(i, i) for i in range(30)]}
    theirs.dataset = {"de-en": {"test": lists}}
    folder = tmp_path / "mteb-tasks/BUCC" / theirs.metadata.dataset["revision"]
    for _ in range(2):
        save(theirs, folder)
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    ours = MtebTask("BUCC", subsets=("de-en",)).evaluate(Noisy(), seed=42)["f1"]
    theirs.data_loaded, theirs.hf_subsets = True, ["de-en"]
    assert ours.mean == alone(as_mteb(Noisy()), theirs)["main_score"]


@pytest.mark.parametrize(
    ("revision", "fits"),
    [("ab12cd3", True), ("main", True), ("ab12cd3" + "0" * 33, True), ("ab12cd4", False)],
)
def test_a_revision_is_a_commit_its_first_digits_or_a_branch(revision, fits, tmp_path):
    from datasets import Dataset, DatasetDict

    cache = tmp_path / ("ab12cd3" + "0" * 33)
    table(pairs()["test"]).save_to_disk(cache)
    (file,) = cache.glob("*.arrow")
    base = made("PairClassification")

    class Short(base):
        metadata = base.metadata.model_copy(
            update={"dataset": {"path": "made/up", "revision": revision}}
        )

        def load_data(self, **kwargs):
            self.dataset, self.data_loaded = DatasetDict(test=Dataset.from_file(str(file))), True

    task = MtebTask("made up", source=Short)
    if fits:
        assert len(task.items(seed=42)) == 300
    else:
        with pytest.raises(Unavailable, match="not at ab12cd4"):
            task.load(42)


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


PUBLISHED = {
    "STSBenchmark": 0.8203,
    "STS12": 0.7237,
    "STS13": 0.8060,
    "STS14": 0.7559,
    "STS15": 0.8539,
    "Banking77Classification": 0.8004,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_known_model_has_its_published_score(name, minilm):
    task = MtebTask(name)
    try:
        score = task.evaluate(minilm, seed=42)[task.metric]
    except Unavailable as error:
        pytest.skip(str(error))
    assert score.mean == pytest.approx(PUBLISHED[name], abs=5e-5)


def test_half_precision_moves_a_score_by_less_than_a_thousandth(minilm):
    task = MtebTask("STS13", limit=500)
    half = dataclasses.replace(minilm.inner, dtype="bfloat16")
    scores = [task.evaluate(encoder, seed=42)["cosine_spearman"].mean for encoder in (half, minilm)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)
