"""Results in mteb's layout: mteb reads them with the scores that it gave itself."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from bench.encoder import settings
from bench.errors import UsageError
from bench.export import _changed, export_mteb
from bench.registry import load_encoder
from bench.reporting import read
from bench.runner import run
from bench.store import Store
from bench.tasks.mteb import MtebTask
from bench.tasks.mteb.names import is_mentioned, list_benchmarks, list_tasks
from bench.vectors import Vectors
from tests.bench.commands import call, rows
from tests.bench.encoders import Noisy
from tests.bench.reporting.made import result

pytest.importorskip("mteb", reason="needs mteb")
pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*superseded.*")


class Dotted(Noisy):
    similarity = "dot"


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A folder of results: a model and a variant of it, on whole tasks of mteb and on others."""
    folder = tmp_path_factory.mktemp("measured")
    for name in ("sts16-sts", "sts17-crosslingual-sts/en-en", "sts17-crosslingual-sts/ko-ko"):
        path = folder / "mteb" / name / "test.jsonl"
        path.parent.mkdir(parents=True)
        with path.open("w") as file:
            for i in range(40):
                row = {"sentence1": f"a {i}", "sentence2": f"b {i % 7}", "score": float(i % 6)}
                file.write(json.dumps(row) + "\n")
    subsets = MtebTask("STS17", subsets=("ko-ko",))
    tasks = [MtebTask("STS16"), MtebTask("STS17"), subsets, MtebTask("STS16", limit=20)]
    store = Store(folder / "results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_HUB_OFFLINE", True)
        patch.setenv("BENCH_DATA", str(folder))
        for seeds, encoder in ((42, 7), Noisy()), ((42,), Noisy(25)):
            cells = list(run({"random": encoder}, tasks, store, Vectors(None), seeds=seeds))
            assert {cell.status for cell in cells} == {"done"}
    own = result("random", "own", 0.5)
    store[own.spec] = own
    return store


def test_what_is_exported_is_read_back_with_the_same_score(measured, tmp_path):
    export_mteb([measured], tmp_path)
    found = read(measured, tasks=["STS16"], mteb=tmp_path).scores.loc["STS16"]
    own = found.drop("bench/random")
    assert np.abs(own - found["bench/random"]).min() < 1e-6  # mteb writes six decimals


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
        ("bench/random", "dim_25"),
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


def test_the_similarity_of_an_export_is_the_encoder_s(measured, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("BENCH_DATA", str(measured.root.parent))
    store = Store(tmp_path / "results")
    list(run({"dotted": Dotted()}, [MtebTask("STS16")], store, Vectors(None), seeds=(42,)))
    export_mteb([store], tmp_path / "out")
    (meta,) = tmp_path.glob("out/results/*/*/model_meta.json")
    assert json.loads(meta.read_text())["similarity_fn_name"] == "dot"


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
    (listed,) = rows(call("list --json", "MTEB(eng, v2)"))
    assert {"STSBenchmark", "ArguAna"} < listed["tasks"].keys()


def test_a_setting_back_at_the_default_of_its_class_is_a_variant_of_the_named_encoder():
    """PromptEOL with the bare text is not PromptEOL, though its class has that template."""
    own = settings(load_encoder("prompteol", {"template": "{text}"}))
    one = replace(result("prompteol", "STS16", 0.5), original={"instruction": ""})
    assert _changed(replace(one, spec=replace(one.spec, settings=own)), "prompteol") == {
        "template": "{text}"
    }
    usual = settings(load_encoder("prompteol"))
    assert not _changed(replace(one, spec=replace(one.spec, settings=usual)), "prompteol")
