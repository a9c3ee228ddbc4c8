import dataclasses
from dataclasses import astuple

import pytest

from bench.errors import DataError
from bench.tasks import load_suite, robustness
from bench.tasks.robustness import Robustness
from bench.tasks.wordings import Wordings
from bench.testing import check_task
from tests.bench.tasks.asking import Deaf, Hearing, two_sides

WORDINGS = Wordings(
    tuple(f"Name the colour, version {i}" for i in range(10)),
    tuple(f"Which colour would a painter take, version {i}?" for i in range(10)),
    tuple(f"Name the place, version {i}" for i in range(10)),
)
TASK = Robustness("toy", read=two_sides, labeling="colour", wordings=WORDINGS, size=90)


def test_an_encoder_that_hears_the_wish_in_any_words_is_robust():
    scores = check_task(TASK, Hearing())
    assert list(scores) == [
        "correct",
        "implicit",
        "incorrect",
        "correct_minus_incorrect",
        "delta_ci",
        "delta_ii",
    ]
    assert scores["correct"].repeats == scores["implicit"].repeats == pytest.approx([1.0] * 10)
    assert scores["incorrect"].repeats == pytest.approx([0.0] * 10, abs=1e-9)
    for name in ("correct_minus_incorrect", "delta_ci", "delta_ii"):
        assert scores[name].repeats == pytest.approx([1.0])


def test_words_make_no_difference_to_an_encoder_that_ignores_instructions():
    scores = check_task(TASK, Deaf())
    assert scores["correct"] == scores["implicit"] == scores["incorrect"]
    assert [scores[name].mean for name in ("correct_minus_incorrect", "delta_ci", "delta_ii")] == [
        0.0
    ] * 3


def test_the_deltas_take_the_worst_right_wording_and_the_best_wrong_one(encoder):
    scores = TASK.evaluate(encoder, seed=0)
    worst = min(scores["correct"].repeats)
    assert scores["delta_ci"].mean == worst - max(scores["incorrect"].repeats)
    assert scores["delta_ii"].mean == min(scores["implicit"].repeats) - max(
        scores["incorrect"].repeats
    )


def test_every_text_is_planned_under_every_wording():
    items = list(dataclasses.replace(TASK, limit=12).items(seed=0))
    assert len(set(items)) == 30 * 12


def test_texts_of_a_single_class_are_refused():
    with pytest.raises(DataError, match="limit"):
        dataclasses.replace(TASK, limit=1).evaluate(Deaf(), seed=0)


@pytest.mark.parametrize("task", robustness.TASKS, ids=lambda task: task.name)
def test_there_are_ten_wordings_of_each_kind_and_no_two_are_equal(task):
    groups = astuple(task.wordings)
    assert [len(group) for group in groups] == [10, 10, 10]
    every = [words for group in groups for words in group]
    assert len({words.lower() for words in every}) == 30
    assert all(words[0].isupper() and words[-1] in ".?" for words in every)


def test_the_suite_of_instructions_holds_both_families():
    assert {task.family for task in load_suite("instruction")} == {"instruction", "robustness"}
