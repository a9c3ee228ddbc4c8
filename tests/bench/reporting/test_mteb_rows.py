"""Models of mteb's results repository: the same score of the same thing, or a reason."""

import json
from dataclasses import replace

import pytest

import bench
from bench.errors import UsageError
from bench.reporting import read, tables
from bench.store import Store
from tests.bench.reporting.made import result, right

METRIC = "cosine_spearman"


def parts(**scores):
    return [
        {"hf_subset": subset, METRIC: score, "main_score": score, "languages": []}
        for subset, score in scores.items()
    ]


def original(task, revision="r1", **splits):
    return {
        "instruction": "",
        "task_result": {"task_name": task, "dataset_revision": revision, "scores": splits},
    }


def ours(encoder, task, score=0.5, **more):
    made = result(encoder, task, score, metric=METRIC, version=1_002_026, **more)
    return replace(made, original=original(task, test=parts(default=score)))


@pytest.fixture
def folder(tmp_path):
    """A folder of results with two tasks of mteb and one that is not its."""
    store = Store(tmp_path / "results")
    for encoder in ("a", "b"):
        for each in (ours(encoder, "STS16"), ours(encoder, "STS12"), result(encoder, "own", 0.3)):
            store[each.spec] = each
    return store


@pytest.fixture
def clone(tmp_path):
    def _clone(model, task, *, revision="r0", **content):
        place = tmp_path / "clone/results" / model.replace("/", "__") / revision
        place.mkdir(parents=True, exist_ok=True)
        whole = {"dataset_revision": "r1", "mteb_version": "2.1.0", "task_name": task, **content}
        (place / f"{task}.json").write_text(json.dumps(whole))
        meta = {"name": model, "n_parameters": 1000, "license": "mit"}
        (place / "model_meta.json").write_text(json.dumps(meta))
        return tmp_path / "clone"

    return _clone


def test_a_model_s_score_is_a_row_that_says_where_it_is_from(folder, clone):
    where = clone("org/big", "STS16", scores={"test": parts(default=0.75)})
    frame = bench.results(folder.root, mteb=where, mteb_models=["big"])
    row = frame[(frame.encoder == "org/big") & (frame.status == "done")].iloc[0]
    assert (row.task, row.score, row.source) == ("STS16", 0.75, "mteb results")
    assert row[["low", "high"]].isna().all()
    assert (row.parameters, row.licence) == (1000, "mit")
    assert frame[(frame.encoder == "a") & (frame.task == "own")].score.item() == 0.3
    c = read(folder, mteb=where)
    shown = [table for table in tables.tables(c) if table.name == "by-task"]
    assert "org/big (mteb results)" in str(shown[0])
    assert c.common == read(folder).common  # means are of the tasks that were run


def test_the_score_is_of_the_splits_and_subsets_that_ours_is_of(tmp_path, clone):
    store = Store(tmp_path / "one")
    own = ours("a", "STS17")
    own = replace(own, original=original("STS17", test=parts(en=0.4, fr=0.6)))
    store[own.spec] = own
    where = clone(
        "org/m",
        "STS17",
        scores={"test": parts(en=0.5, fr=0.75, de=0.0), "validation": parts(en=0.0)},
    )
    assert read(store, mteb=where).scores.loc["STS17", "org/m"] == 0.625


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"scores": {"test": parts(default=0.7)}, "dataset_revision": "r2"}, "other data"),
        ({"scores": {"test": parts(fr=0.7)}}, "no cosine_spearman on split test, subset default"),
        ({"scores": {"test": [{"hf_subset": "default", "main_score": 0.7}]}}, "no cosine_spearman"),
        (
            {"scores": {"test": [{"hf_subset": "default", METRIC: 0.7, "main_score": 0.8}]}},
            "another main metric",
        ),
        ({"scores": {"test": parts(default=float("nan"))}}, "no cosine_spearman"),
        ({"test": {METRIC: 0.7}}, "none of mteb 1.11"),
        ({"scores": [1]}, "none of mteb 1.11"),
    ],
)
def test_a_score_of_something_else_is_left_out_with_the_reason(folder, clone, content, reason):
    where = clone("org/m", "STS16", **content)
    clone("org/m", "STS12", scores={"test": parts(default=0.25)})
    c = read(folder, mteb=where)
    assert c.scores["org/m"].dropna().to_dict() == {"STS12": 0.25}
    assert reason in c.absence("org/m", "STS16")


def test_of_revisions_the_one_with_most_tasks_is_taken_or_the_named_one(folder, clone):
    scores = {"test": parts(default=0.25)}
    where = clone("org/m", "STS16", revision="abc", scores=scores)
    clone("org/m", "STS12", revision="abc", scores=scores)
    clone("org/m", "STS16", revision="zzz", scores={"test": parts(default=0.75)})
    assert read(folder, mteb=where).scores.loc["STS16", "org/m"] == 0.25
    named = read(folder, mteb=where, mteb_models=["org/m@z"])
    assert named.scores.loc["STS16", "org/m"] == 0.75


def test_models_are_chosen_where_there_are_many_and_near_names_suggested(folder, clone):
    for i in range(11):
        where = clone(f"org/model-{i}", "STS16", scores={"test": parts(default=0.5)})
    clone("org/elsewhere", "Other", scores={"test": parts(default=0.5)})
    with pytest.raises(UsageError, match=r"11 models .* --mteb-model"):
        read(folder, mteb=where)
    assert "org/model-7" in read(folder, mteb=where, mteb_models=["model-7"]).labels
    with pytest.raises(UsageError, match="did you mean 'model-7'"):
        read(folder, mteb=where, mteb_models=["modle-7"])
    with pytest.raises(UsageError, match="--mteb DIR"):
        read(folder, mteb_models=["model-7"])


def test_a_folder_of_another_layout_and_results_without_mteb_are_told(folder, clone, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="layout"):
        read(folder, mteb=tmp_path / "empty")
    where = clone("org/m", "STS16", scores={"test": parts(default=0.5)})
    with pytest.raises(UsageError, match="bench run --task"):
        read(folder, tasks=["own"], mteb=where)


def test_without_examples_there_is_no_test_against_a_row_and_ours_are_still_paired(clone, tmp_path):
    store = Store(tmp_path / "two")
    for encoder, count in (("a", 300), ("b", 200)):
        made = result(encoder, "Bank", examples=right(count), metric="accuracy", version=1_002_026)
        scores = {"test": [{"hf_subset": "default", "main_score": 0.5}]}
        made = replace(made, original=original("Bank", **scores))
        store[made.spec] = made
    part = {"hf_subset": "default", "accuracy": 0.9, "main_score": 0.9}
    where = clone("org/m", "Bank", scores={"test": [part]})
    c = read(store, mteb=where)
    p, number = c.p_tasks["Bank"], c.number
    assert p[number["a"], number["b"]] < 0.05
    assert p[number["a"], number["org/m"]] != p[number["a"], number["org/m"]]  # NaN
