import dataclasses

import numpy as np
import pytest

from bench.errors import DataError
from bench.tasks import TASKS
from bench.tasks.awareness import Awareness, Labeling, awareness_means
from bench.tasks.labelings import Labelled
from bench.testing import check_task
from tests.bench.tasks.asking import COLOUR, PLACE, Deaf, Hearing, two_sides

TASK = Awareness(
    "toy",
    read=two_sides,
    labelings=(Labeling("place", PLACE), Labeling("colour", COLOUR)),
    folds=4,
    size=45,
    starts=2,
)
NAMES = ["harmonic_mean", "gap", "place", "colour", "place under colour", "colour under place"]


def test_an_encoder_that_shows_what_it_is_asked_for_is_fully_aware():
    scores = check_task(TASK, Hearing())
    assert list(scores) == NAMES
    for name in ("harmonic_mean", "gap", "place", "colour"):
        assert scores[name].repeats == pytest.approx([1.0] * 4), name
    for name in (
        "place under colour",
        "colour under place",
    ):  # the nine groups are equally large in every fold
        assert scores[name].repeats == pytest.approx([0.0] * 4, abs=1e-9), name


def test_an_encoder_that_ignores_instructions_has_no_gap_at_all():
    scores = check_task(TASK, Deaf())
    assert scores["gap"].repeats == (0.0,) * 4
    assert scores["place"] == scores["place under colour"]
    assert scores["colour"] == scores["colour under place"]
    assert 0 < scores["harmonic_mean"].mean < 1


def test_another_seed_deals_other_folds_of_the_same_texts():
    assert list(TASK.items(seed=0)) == list(TASK.items(seed=1))
    assert TASK.evaluate(Deaf(), seed=0)["place"] != TASK.evaluate(Deaf(), seed=1)["place"]


def test_every_text_is_planned_under_both_instructions_and_the_limit_bounds_the_texts():
    items = list(dataclasses.replace(TASK, limit=50).items(seed=0))
    assert len(items) == len(set(items)) == 100
    assert {item.instruction for item in items} == {PLACE, COLOUR}


def test_with_a_single_fold_every_start_is_a_repeat():
    scores = dataclasses.replace(TASK, folds=1, size=180, starts=3, algorithm="minibatch").evaluate(
        Hearing(), seed=0
    )
    assert len(scores["harmonic_mean"].repeats) == 3
    assert max(scores["place"].repeats) == pytest.approx(1.0)


def test_a_text_that_one_labeling_leaves_out_still_counts_for_the_other():
    def half() -> Labelled:
        found = two_sides()
        place = np.where(np.arange(180) % 2, found.labels["place"], -1)
        return Labelled(found.texts, {**found.labels, "place": place})

    scores = dataclasses.replace(TASK, read=half).evaluate(Hearing(), seed=0)
    assert scores["harmonic_mean"].mean == pytest.approx(1.0)


def test_the_means_follow_from_the_four_numbers():
    mean, gap = awareness_means(np.array([[0.5, 0.3], [0.2, 0.25]]))
    assert mean == pytest.approx(1 / 3)
    assert gap == pytest.approx((0.2 + 0.05) / 2)
    assert awareness_means(np.array([[0.0, 0.0], [0.0, 0.9]]))[0] == pytest.approx(0, abs=1e-7)


def test_folds_of_a_single_class_are_refused():
    with pytest.raises(DataError, match="limit"):
        dataclasses.replace(TASK, limit=4).evaluate(Hearing(), seed=0)


def test_sts_under_instructions_belongs_to_the_family_and_is_zero_for_an_encoder_that_ignores_them(
    write,
):
    rows = [
        {"sentence1": a, "sentence2": b, "score": score, "instruction": f"Is it {score}?"}
        for a, b in (
            ("sea red 1", "sea red 2"),
            ("sea red 1", "wood blue 3"),
            ("town blue 0", "wood blue 0"),
        )
        for score in (1, 0)
    ]
    write("BrandonZYW/InstructSTSB", "test", rows)
    task = TASKS["instruct-stsb"]
    assert task.family == "instruction"
    assert task.evaluate(Deaf(), seed=0)["cosine_spearman"].mean == pytest.approx(0, abs=1e-12)
