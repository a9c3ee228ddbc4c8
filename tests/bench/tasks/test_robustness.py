import dataclasses

import pytest

from bench.errors import DataError
from bench.tasks.robustness import WORDINGS, Robustness
from bench.testing import check_task
from tests.bench.tasks.asking import Deaf, Hearing, two_sides

SAID = {
    "correct": [f"Name the colour, version {i}" for i in range(3)],
    "implicit": [f"Which colour would a painter take, version {i}?" for i in range(3)],
    "incorrect": [f"Name the place, version {i}" for i in range(3)],
}
TASK = Robustness("toy", read=two_sides, labeling="colour", wordings=SAID, size=90, starts=1)


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
    assert scores["correct"].repeats == scores["implicit"].repeats == pytest.approx([1.0] * 3)
    assert scores["incorrect"].repeats == pytest.approx([0.0] * 3, abs=1e-9)
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


def test_texts_of_a_single_class_are_refused():
    with pytest.raises(DataError, match="limit"):
        dataclasses.replace(TASK, limit=1).evaluate(Deaf(), seed=0)


def test_there_are_ten_wordings_of_each_kind_and_no_two_are_equal():
    for groups in WORDINGS.values():
        assert {kind: len(group) for kind, group in groups.items()} == dict.fromkeys(SAID, 10)
        every = {words.lower() for group in groups.values() for words in group}
        assert len(every) == 30
