"""Models of mteb's results repository: the same score of the same thing, or a reason."""

import json
from dataclasses import replace

import pytest

import bench
from bench.errors import UsageError
from bench.reporting import read, tables
from tests.bench.reporting.made import on

METRIC = "cosine_spearman"


def parts(metric=METRIC, **scores):
    return [
        {"hf_subset": subset, metric: score, "main_score": score, "languages": []}
        for subset, score in scores.items()
    ]


def ours(encoder, task, score=0.5, found=None, metric=METRIC):
    """A cell with what mteb itself said of it."""
    (made,) = on(task, {encoder: score}, metric=metric, version=1_002_026)
    scores = {"test": found or parts(metric, default=made.main.mean)}
    told = {"task_name": task, "dataset_revision": "r1", "scores": scores}
    return replace(made, original={"instruction": "", "task_result": told})


@pytest.fixture
def folder(store):
    """A folder of results with two tasks of mteb and one that is not its."""
    cells = [ours(encoder, task) for encoder in "ab" for task in ("STS16", "STS12")]
    return store(*cells, *on("own", {"a": 0.3, "b": 0.3}))


@pytest.fixture
def clone(tmp_path):
    def _clone(model, task, score=0.5, *, revision="r0", **content):
        place = tmp_path / "clone/results" / model.replace("/", "__") / revision
        place.mkdir(parents=True, exist_ok=True)
        whole = {"dataset_revision": "r1", "mteb_version": "2.1.0", "task_name": task}
        whole["scores"] = {"test": parts(default=score)}
        (place / f"{task}.json").write_text(json.dumps({**whole, **content}))
        meta = {"name": model, "n_parameters": 1000, "license": "mit"}
        (place / "model_meta.json").write_text(json.dumps(meta))
        return tmp_path / "clone"

    return _clone


def test_a_model_s_score_is_a_row_that_says_where_it_is_from(folder, clone):
    where = clone("org/big", "STS16", 0.75)
    frame = bench.results(folder.root, mteb=where, mteb_models=["big"])
    row = frame[(frame.encoder == "org/big") & (frame.status == "done")].iloc[0]
    assert (row.task, row.score, row.source) == ("STS16", 0.75, "mteb results")
    assert row[["low", "high"]].isna().all()
    assert (row.parameters, row.licence) == (1000, "mit")
    assert frame[(frame.encoder == "a") & (frame.task == "own")].score.item() == 0.3
    c = read(folder, mteb=where)
    (shown,) = (table for table in tables.tables(c) if table.name == "by-task")
    assert "org/big (mteb results)" in str(shown)
    assert c.common == read(folder).common  # means are of the tasks that were run


def test_the_score_is_of_the_splits_and_subsets_that_ours_is_of(store, clone):
    made = store(ours("a", "STS17", found=parts(en=0.4, fr=0.6)))
    scores = {"test": parts(en=0.5, fr=0.75, de=0.0), "validation": parts(en=0.0)}
    where = clone("org/m", "STS17", scores=scores)
    assert read(made, mteb=where).scores.loc["STS17", "org/m"] == 0.625


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"dataset_revision": "r2"}, "other data"),
        ({"scores": {"test": parts(fr=0.7)}}, "no cosine_spearman on split test, subset default"),
        ({"scores": {"test": parts("other", default=0.7)}}, "no cosine_spearman"),
        ({"scores": {"test": [{**parts(default=0.7)[0], "main_score": 0.8}]}}, "another main"),
        ({"scores": {"test": parts(default=float("nan"))}}, "no cosine_spearman"),
        ({"scores": [1]}, "none of mteb 1.11"),
    ],
)
def test_a_score_of_something_else_is_left_out_with_the_reason(folder, clone, content, reason):
    where = clone("org/m", "STS16", **content)
    clone("org/m", "STS12", 0.25)
    c = read(folder, mteb=where)
    assert c.scores["org/m"].dropna().to_dict() == {"STS12": 0.25}
    assert reason in c.absence("org/m", "STS16")


def test_of_revisions_the_one_with_most_tasks_is_taken_or_the_named_one(folder, clone):
    clone("org/m", "STS16", 0.25, revision="abc")
    clone("org/m", "STS12", 0.25, revision="abc")
    where = clone("org/m", "STS16", 0.75, revision="zzz")
    assert read(folder, mteb=where).scores.loc["STS16", "org/m"] == 0.25
    named = read(folder, mteb=where, mteb_models=["org/m@z"])
    assert named.scores.loc["STS16", "org/m"] == 0.75


def test_models_are_chosen_where_there_are_many_and_wrong_choices_are_told(folder, clone, tmp_path):
    for i in range(11):
        where = clone(f"org/model-{i}", "STS16")
    clone("org/elsewhere", "Other")
    assert "org/model-7" in read(folder, mteb=where, mteb_models=["model-7"]).labels
    (tmp_path / "empty").mkdir()
    for chosen, told in (
        ({"mteb": where}, r"11 models .* --mteb-model"),
        ({"mteb": where, "mteb_models": ["modle-7"]}, "did you mean 'model-7'"),
        ({"mteb_models": ["model-7"]}, "--mteb DIR"),
        ({"mteb": tmp_path / "empty"}, "layout"),
        ({"mteb": where, "tasks": ["own"]}, "bench run --task"),
    ):
        with pytest.raises(UsageError, match=told):
            read(folder, **chosen)


def test_without_examples_there_is_no_test_against_a_row_and_ours_are_still_paired(store, clone):
    made = store(
        ours("a", "Bank", 300, metric="accuracy"), ours("b", "Bank", 200, metric="accuracy")
    )
    where = clone("org/m", "Bank", scores={"test": parts("accuracy", default=0.9)})
    c = read(made, mteb=where)
    p, number = c.p_tasks["Bank"], c.number
    assert p[number["a"], number["b"]] < 0.05
    assert p[number["a"], number["org/m"]] != p[number["a"], number["org/m"]]  # NaN
