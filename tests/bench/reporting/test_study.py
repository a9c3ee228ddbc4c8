"""A study of trainings: curves, differences, ranks and costs of methods over their seeds."""

import json
import re

import numpy as np
import pandas as pd
import pytest

import bench
from bench.encoder import digest
from bench.errors import UsageError
from bench.reporting import formats
from bench.reporting.comparison import Comparison
from bench.reporting.figures.study import _limits, draw
from bench.reporting.study import Study, answer, tables
from bench.reporting.study.grid import Number
from bench.store import Store
from tests.bench.reporting.made import result, right

TASKS = {"sts-a": "sts", "sts-b": "sts", "topics": "clustering", "reviews": "sentiment"}


def train_card(method, budget, seed, **recipe):
    flops = {"strong": 2, "weak": 8}.get(method, 4) * 1_000_000_000 * budget
    return {
        "method": method,
        "backbone": "base",
        "budget": budget,
        "seed": seed,
        "recipe": {"backbone": "base", "lr": 0.001, "rank": 16, **recipe},
        "trained_tokens": budget - 7,
        "inference_tokens": 100,
        "flops": flops,
        "seconds": 10.0 + seed,
        "stages": [],
        "device": "cpu",
    }


def score_all(label, share, *, training=None, seed=0, tasks=TASKS, **more):
    """The results of one encoder: about this share of 400 answers is right, with a little luck."""
    rng = np.random.default_rng([seed, *map(ord, label)])
    found = []
    for i, (task, family) in enumerate(tasks.items()):
        count = int(400 * share + 20 * i + rng.integers(-4, 5))
        card = {"backbone": "base", "training": training or {}, **more.get("card", {})}
        settings = {**more, "card": card, "trained": training is not None, "print_": digest(label)}
        made = result(label, task, family=family, examples=right(count), **settings)
        found.append(made)
    return found


def make_grid(budgets=(60_000, 250_000), seeds=(0, 1, 2), shares=None):
    """Two methods and one that learns nothing at each budget, beside backbone and a reference."""
    found = [*score_all("backbone-mean", 0.4), *score_all("hashing", 0.5)]
    for method, gain in (shares or {"strong": 0.2, "weak": 0.08, "none": 0.0}).items():
        for i, budget in enumerate(budgets):
            for seed in seeds:
                share = 0.4 + gain * (1 + i / 2)
                card = train_card(method, budget, seed)
                label = f"{method}-{budget}-seed={seed}"
                found += score_all(label, share, training=card, seed=seed)
    return found


def by_name(found):
    return {table.name: table for table in found}


def as_frame(table):
    return pd.DataFrame([[e.text for e in row] for row in table.rows], columns=table.columns)


@pytest.fixture(scope="module")
def grid():
    return Study(Comparison.of(make_grid()))


def test_the_answer_is_that_of_the_numbers(grid):
    words = " ".join(answer(grid))
    assert grid.budgets == [60_000, 250_000]
    assert "After 250,000 training tokens, 2 of 3 methods score significantly above" in words
    assert "Not significantly different from it: none" in words
    assert "strong has the highest mean, significantly above every other method." in words
    assert "(strong) to 2 (weak)" in words
    assert "the 3 trainings of each method" in words
    gain = grid.gain(grid.at(250_000)[0], grid.mean)
    means = grid.c.encoders["mean"].astype(float)
    own = [label for label in grid.c.labels if label.startswith("strong-250000")]
    assert gain.value == pytest.approx(means[own].mean() - means["backbone-mean"])
    assert gain.low < gain.value < gain.high


def test_what_the_correction_alone_takes_from_a_method_is_told_apart():
    """Two trainings have a variance of one degree of freedom, which no correction leaves much."""
    shares = {"strong": 0.1, "weak": 0.08, "none": 0.0}
    study = Study(Comparison.of(make_grid(budgets=(60_000,), seeds=(0, 1), shares=shares)))
    words = " ".join(answer(study))
    gain = study.gain(study.at(60_000)[0], study.mean)
    assert gain.low > 0
    assert not gain.significant
    assert "but not after correction for all comparisons: strong +" in words
    assert re.search(r"Not significantly different from it: [^.]*none", words)


def test_a_row_of_the_table_is_a_method_at_a_budget(grid):
    frame = as_frame(by_name(tables(grid))["study"])
    assert list(frame.method) == [*["strong", "weak", "none"] * 2, "hashing", "backbone-mean"]
    assert list(frame.budget) == [*["250,000"] * 3, *["60,000"] * 3, "—", "—"]
    assert list(frame.trainings[:6]) == ["3"] * 6
    stars = [text.endswith("*") for text in frame["minus backbone-mean"][:6]]
    assert stars == [True, True, False, True, True, False]
    assert frame["rank"][0].startswith("1 [1, 1] of 5")
    cost = as_frame(by_name(tables(grid))["cost"])
    assert list(cost["trained tokens"]) == ["249,993"] * 3 + ["59,993"] * 3
    assert list(cost.seconds) == ["11"] * 6
    assert cost.PFLOP[0] == "0.500"
    trainings = as_frame(by_name(tables(grid))["trainings"])
    assert len(trainings) == 18
    assert all(json.loads(formats.text([table], "json")) for table in tables(grid))


def test_costs_that_are_not_known_are_left_out_of_a_range_and_this_is_said():
    found = make_grid(budgets=(60_000,), seeds=(0,))
    card = {**train_card("costly", 60_000, 0), "flops": None}
    found += score_all("costly", 0.5, training=card)
    words = " ".join(answer(Study(Comparison.of(found))))
    assert "Of the 3 of 4 methods at 60,000 tokens whose FLOPs are known, a training takes" in words
    known = train_card("costly", 60_000, 1)
    study = Study(Comparison.of([*found, *score_all("costly-1", 0.5, training=known)]))
    (costly,) = (m for m in study.methods if m.name == "costly")
    assert study.cost(costly, "flops") == known["flops"]
    assert study.cost(costly, "seconds") == 10.5


def test_methods_on_another_backbone_are_not_compared():
    """One of them has the name of a method that is as good as the best one."""
    found = []
    for backbone, share in (("base", 0.5), ("small", 0.1)):
        card = {"backbone": backbone}
        found += score_all(f"untrained {backbone}", share, card=card)
        for method, gain in (("one", 0.2), ("two", 0.19)):
            for seed in (0, 1, 2):
                training = {**train_card(method, 60_000, seed), "backbone": backbone}
                label = f"{method}-{backbone}-{seed}"
                found += score_all(label, share + gain, training=training, seed=seed, card=card)
    study = Study(Comparison.of(found))
    words = " ".join(answer(study))
    assert "After 60,000 training tokens, 2 of 2 methods score significantly above" in words
    assert "Not compared with it, since on another backbone: one on small, two on small." in words
    assert "one on base has the highest mean of those on base" in words
    assert [study.names[m] for m in study.same(60_000)] == ["one on base", "two on base"]


def test_one_budget_and_one_training_are_said_to_be_so(tmp_path):
    study = Study(Comparison.of(make_grid(budgets=(60_000,), seeds=(0,))))
    once = "Each was trained once: intervals do not cover the variation between trainings."
    assert once in answer(study)
    frame = as_frame(by_name(tables(study))["study"])
    assert set(frame.trainings[:3]) == {"1"}


def test_what_was_trained_once_is_named_with_its_budget():
    found = make_grid(budgets=(60_000,), shares={"strong": 0.2, "weak": 0.08})
    card = train_card("none", 60_000, 0)
    found += score_all("none", 0.4, training=card)
    found += make_grid(budgets=(250_000,), seeds=(0,), shares={"strong": 0.2, "weak": 0.08})[8:]
    words = " ".join(answer(Study(Comparison.of(found))))
    assert "up to 3 trainings; trained once" in words
    assert ": none at 60,000 tokens; all at 250,000 tokens." in words


def test_what_a_teacher_was_trained_on_before_is_told(grid):
    teacher = {"name": "strong", "trained_tokens": 1_000_000}
    card = {**train_card("taught", 60_000, 0), "teacher": teacher}
    study = Study(Comparison.of([*make_grid(), *score_all("taught", 0.5, training=card)]))
    assert "the training of a teacher before: taught (strong, 1,000,000 tokens)." in " ".join(
        answer(study)
    )
    assert "teacher before" not in " ".join(answer(grid))


def test_settings_of_one_budget_are_curves_of_their_own_and_those_of_budgets_are_not():
    found = score_all("backbone-mean", 0.4)
    for budget, inputs in ((60_000, 100), (250_000, 400)):
        card = train_card("writes", budget, 0, inputs=inputs)
        found += score_all(f"writes-{budget}", 0.5, training=card)
        for objective in ("kl", "mntp"):
            card = train_card("compresses", budget, 0, objective=objective)
            found += score_all(f"{objective}-{budget}", 0.6, training=card)
    curves = Study(Comparison.of(found)).curves
    assert {name: len(own) for name, own in curves.items()} == {
        "writes": 2,
        "compresses objective=kl": 2,
        "compresses objective=mntp": 2,
    }


def test_a_larger_budget_goes_on_the_curve_of_the_usual_settings():
    found = score_all("backbone-mean", 0.4)
    for budget, changed in ((60_000, {}), (60_000, {"objective": "mntp"}), (250_000, {"lr": 0.1})):
        card = train_card("compresses", budget, 0, **{"objective": "kl", **changed})
        found += score_all(f"{budget} {changed}", 0.5, training=card)
    curves = Study(Comparison.of(found)).curves
    assert {name: [m.budget for m in own] for name, own in curves.items()} == {
        "compresses": [60_000, 250_000],
        "compresses objective=mntp": [60_000],
    }


def test_a_curve_is_named_by_what_is_special_about_it():
    found = score_all("backbone-mean", 0.4)
    for change in ({}, {"lr": 0.1}, {"rank": 2}):
        found += score_all(f"{change}", 0.5, training=train_card("crops", 60_000, 0, **change))
    curves = Study(Comparison.of(found)).curves
    assert {*curves} == {"crops", "crops lr=0.1", "crops rank=2"}


def test_a_curve_s_name_has_no_more_settings_than_tell_it_apart():
    found = score_all("backbone-mean", 0.4)
    settings = [("a", "x", 1), ("b", "y", 1), ("c", "y", 2), ("c", "z", 2), ("a", "x", 3)]
    for lr, objective, rank in settings:
        card = train_card("reads", 60_000, 0, lr=lr, objective=objective, rank=rank)
        found += score_all(f"{lr}{objective}{rank}", 0.5, training=card)
    curves = Study(Comparison.of(found)).curves
    expected = {"lr=a, rank=1", "lr=b", "lr=c, rank=2, objective=y", "lr=c, rank=2, objective=z"}
    assert {*curves} == {f"reads {name}" for name in expected | {"lr=a, rank=3"}}


def test_a_setting_of_the_training_is_named_though_the_encoder_has_one_of_that_name():
    found = score_all("backbone-mean", 0.4)
    for attention in ("native", "bidirectional"):
        card = train_card("reads", 60_000, 0, attention=attention)
        settings = {"attention": "native", "checkpoint": attention}
        found += score_all(attention, 0.5, training=card, settings=settings)
    curves = Study(Comparison.of(found)).curves
    assert {*curves} == {"reads attention=native", "reads attention=bidirectional"}


def test_the_settings_that_the_study_uses_are_marked_among_those_that_were_tried(grid):
    tasks = {"dev-a": "sts", "dev-b": "clustering"}
    found = []
    changes = ({"lr": 0.01}, {"rank": 2}, {})
    for change, share in zip(changes, (0.55, 0.5, 0.45), strict=True):
        card = train_card("strong", 60_000, 7, **change)
        found += score_all(f"tried {change}", share, training=card, tasks=tasks)
    study = Study(grid.c, Comparison.of(found))
    table = by_name(tables(study))["tried"]
    frame = as_frame(table)
    assert list(frame["what is changed"]) == ["lr=0.01", "rank=2", "nothing"]
    assert list(frame["used here"]) == ["", "", "yes"]
    marks = [row[table.columns.index("development")].mark for row in table.rows]
    assert marks == ["", "", "best"]
    assert "dev-b, dev-a" in table.about


def test_a_reference_without_token_states_is_shown_in_the_families_that_it_has():
    whitened = "whitened:backbone-mean"
    found = make_grid(budgets=(60_000,))
    some = {task: family for task, family in TASKS.items() if family != "sentiment"}
    found += score_all(whitened, 0.55, tasks=some)
    study = Study(Comparison.of(found))
    assert [m.name for m in study.beside] == ["hashing", "backbone-mean", whitened]
    frame = as_frame(by_name(tables(study))["study"]).set_index("method")
    assert list(frame.loc[whitened])[1:] == ["—"] * (frame.shape[1] - 1)
    families = as_frame(by_name(tables(study))["families"]).set_index("method")
    assert "backbone-mean" not in families.index
    assert families.loc[whitened, "sts"].startswith("+1")
    assert families.loc[whitened, "sentiment"] == "—"
    notes = " ".join(row[0].text for row in by_name(tables(study))["notes"].rows)
    assert f"Without a mean, since they lack a task that most have: {whitened}." in notes
    panels = {panel.get_title(loc="left"): panel for panel in draw(study)[1].figure.axes[:4]}
    drawn = {name: len(horizontal(panel)) for name, panel in panels.items()}
    assert drawn == {"mean of families": 2, "clustering": 3, "sentiment": 2, "sts": 3}


def horizontal(panel):
    """The lines across the whole of a panel."""
    return [line for line in panel.lines if list(line.get_xdata()) == [0, 1]]


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("backbone-mean", "untrained"),
        ("prompteol", "untrained"),
        ("whitened:backbone-mean", "untrained"),
        ("renormalised:whitened:hashing", "reference"),
        ("whitened:dino", "method"),
        ("dino:hashing", "method"),
        ("mine", "method"),
    ],
)
def test_a_change_of_vectors_is_in_the_role_of_the_encoder_in_it(name, role):
    found = result(name, "t", 0.5, card={"training": {"postprocessing": {}}})
    assert Comparison.of([found]).encoders.role.item() == role


def test_what_the_wording_of_an_instruction_moves_is_shown_of_those_that_follow_it(tmp_path):
    """Each training scores 2 points more than the one before under every wording."""
    moved = np.array([0.6, 0.5, 0.7])
    found = [result("backbone-mean", "t", wordings=[0.4] * 3, card={"backbone": "base"})]
    for method, wordings in (("follows", moved), ("ignores", np.full(3, 0.5))):
        for seed in (0, 1, 2):
            card = {"backbone": "base", "training": train_card(method, 60_000, seed)}
            label, own = f"{method}-{seed}", (wordings + 0.02 * seed).tolist()
            found.append(result(label, "t", wordings=own, card=card, print_=digest(label)))
    study = Study(Comparison.of(found))
    frame = as_frame(by_name(tables(study))["wordings"])
    assert frame.to_dict("records") == [
        {
            "task": "t",
            "method": "follows",
            "budget": "60,000",
            "its own": "62.0",
            "mean": "62.0",
            "lowest": "52.0",
            "highest": "72.0",
            "std over wordings": "10.0",
            "std over trainings": "2.0",
        }
    ]
    # 4.30: Student's t for three; the variances of three trainings and of three wordings
    half = 4.30265 * np.hypot(0.02, 0.1) / np.sqrt(3)
    assert study.level(study.methods[0], "sts").ends == pytest.approx(
        (0.62 - half, 0.62 + half), rel=1e-5
    )
    words = " ".join(answer(study))
    assert "in 3 wordings" in words
    assert "moves the score of a task by 10.0 points" in words
    assert "at most by 10.0 (follows in t)" in words
    (panel,) = draw(study)[-1].figure.axes
    assert panel.lines[0].get_xdata().tolist() == pytest.approx([62, 52, 72])
    store = Store(tmp_path / "results")
    for each in found:
        store[each.spec] = each
    assert bench.study(store.root, tmp_path / "study")
    assert "What another wording moves" in (tmp_path / "study/study.md").read_text()


def test_a_study_is_written_from_a_folder_with_everything_as_csv(tmp_path):
    store = Store(tmp_path / "results")
    for each in make_grid(budgets=(250_000,), shares={"strong": 0.2, "none": 0.0}):
        store[each.spec] = each
    paths = bench.study(store.root, tmp_path / "study", tasks=["sts-a", "topics"])
    names = {path.name for path in paths}
    assert {"index.html", "study.md", "study.csv", "families.csv", "cost.csv"} <= names
    assert {"curves-tokens.png", "curves-flops.svg", "gains.png", "ranks.png"} <= names
    assert all(path.stat().st_size for path in paths)
    page = (tmp_path / "study" / "index.html").read_text()
    assert "After 250,000 training tokens" in page
    assert not re.findall(r"(?:src|href)=\"?(?:https?:|//)", page)
    table = pd.read_csv(tmp_path / "study" / "study.csv")
    assert table["minus backbone-mean low"].notna().sum() == 3


def test_results_without_a_training_are_no_study(tmp_path):
    store = Store(tmp_path / "results")
    for each in score_all("backbone-mean", 0.4):
        store[each.spec] = each
    with pytest.raises(UsageError, match="trained encoders"):
        bench.study(store.root, tmp_path / "study")


def test_settings_that_differ_between_budgets_are_told():
    found = make_grid(seeds=(0,))
    card = train_card("weak", 1_000_000, 0, lr=0.01)
    found += score_all("weak-1000000", 0.6, training=card)
    study = Study(Comparison.of(found))
    assert "Settings differ between the budgets of weak; see the notes." in answer(study)
    (note,) = [n for n in as_frame(by_name(tables(study))["notes"]).note if "budgets of weak" in n]
    assert "lr=0.001 at 60,000" in note
    assert "lr=0.01 at 1,000,000" in note


def test_an_interval_of_two_trainings_does_not_set_the_scale_of_a_figure():
    usual = [Number(0.5, 0.45, 0.55), Number(0.6, 0.55, 0.65), Number(float("nan"), 0.0, 0.0)]
    assert _limits(usual) is None
    low, high = _limits([*usual, Number(0.7, -0.9, 2.3)])
    assert (low, high) == pytest.approx((43.75, 71.25))
