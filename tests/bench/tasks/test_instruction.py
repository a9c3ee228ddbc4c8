"""Whether embeddings follow the instruction: awareness, triplets, robustness to its words."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from bench.errors import DataError
from bench.stats.influence import contributions
from bench.tasks.awareness import Awareness, Labeling, awareness_means
from bench.tasks.labelings import Labelled
from bench.tasks.robustness import WORDINGS, Robustness
from bench.tasks.triplets import Triplets
from bench.testing import check_task
from tests.bench.encoders import Plain

SIDES = (("sea", "wood", "town"), ("red", "green", "blue"))
LABELINGS = (Labeling("place", "Where is it?"), Labeling("colour", "Which colour is it?"))


def two_sides(each: int = 20) -> Labelled:
    """``each`` texts of every place and colour: nine groups with independent places and colours."""
    place, colour = np.tile(np.arange(9), each) // 3, np.tile(np.arange(9), each) % 3
    sides = zip(place, colour, np.repeat(np.arange(each), 9), strict=True)
    texts = [f"{SIDES[0][p]} {SIDES[1][c]} {i}" for p, c, i in sides]
    return Labelled(texts, {"place": place, "colour": colour})


@dataclass(frozen=True)
class Hearing:
    """The place one-hot, or the colour where the instruction asks for it."""

    version: ClassVar[int] = 1
    follows_instructions: ClassVar[bool] = True

    def encode(self, texts, *, instruction=""):
        side = int("colour" in instruction)
        names = [text.split()[side] for text in texts]
        return np.eye(4, dtype=np.float32)[[SIDES[side].index(name) for name in names]]


@dataclass(frozen=True)
class Deaf:
    """Place and colour together with something of the text itself, whatever the instruction."""

    version: ClassVar[int] = 1
    follows_instructions: ClassVar[bool] = False

    def encode(self, texts, *, instruction=""):
        rows = np.zeros((len(texts), 11), np.float32)
        for row, text in zip(rows, texts, strict=True):
            place, colour, number = text.split()[:3]
            row[[SIDES[0].index(place), 3 + SIDES[1].index(colour), 6 + int(number) % 5]] = 1
        return rows * np.linspace(1, 2, 11, dtype=np.float32)


AWARE = Awareness("toy", read=two_sides, labelings=LABELINGS, folds=4, size=45, starts=2)
TRIPLETS = Triplets("toy", data="org/triplets", labelings=LABELINGS)
SAID = {
    "correct": [f"Name the colour, version {i}" for i in range(3)],
    "implicit": [f"Which colour would a painter take, version {i}?" for i in range(3)],
    "incorrect": [f"Name the place, version {i}" for i in range(3)],
}
ROBUST = Robustness("toy", read=two_sides, labeling="colour", wordings=SAID, size=90, starts=1)
RIGHT = ("harmonic_mean", "gap", "place", "colour")
WRONG = ("place under colour", "colour under place")
DIFFERENCES = ("correct_minus_incorrect", "delta_ci", "delta_ii")


@pytest.fixture
def mirrored(write):
    """Triplets of which the positive for one instruction is the negative for the other."""
    texts, rng = two_sides(4).texts, np.random.default_rng(0)
    sides = {"place": [], "colour": []}
    while len(sides["place"]) < 150:
        anchor, near, far = (texts[i] for i in rng.choice(len(texts), 3, replace=False))
        (p, c, _), (p1, c1, _), (p2, c2, _) = (text.split() for text in (anchor, near, far))
        if p == p1 != p2 and c == c2 != c1:
            for side, (yes, no) in (("place", (near, far)), ("colour", (far, near))):
                sides[side].append({"anchor": anchor, "positive": yes, "negative": no})
    for side, rows in sides.items():
        write(f"org/triplets/{side}", "test", rows)


@pytest.mark.usefixtures("mirrored")
@pytest.mark.parametrize("task", [AWARE, TRIPLETS], ids=["awareness", "triplets"])
def test_awareness_is_full_or_none(task):
    repeats = 4 if task is AWARE else 1
    scores = task.evaluate(Hearing(), seed=0)
    assert list(scores) == [*RIGHT, *WRONG]
    for name, score in scores.items():  # the nine groups are equally large in every fold
        expected = [float(name in RIGHT)] * repeats
        assert score.repeats == pytest.approx(expected, abs=1e-9), name
    scores = task.evaluate(Deaf(), seed=0) if task is AWARE else check_task(task, Deaf())
    assert scores["gap"].repeats == (0.0,) * repeats
    assert scores["place"] == scores["place under colour"]
    assert scores["colour"] == scores["colour under place"]
    assert 0 < scores["harmonic_mean"].mean < 1
    if task is TRIPLETS:
        assert scores["place"].mean + scores["colour"].mean == pytest.approx(1, abs=1e-12)


def test_every_text_is_planned_under_both_instructions_and_another_seed_deals_other_folds():
    items = list(dataclasses.replace(AWARE, limit=50).items(seed=0))
    assert len(items) == len(set(items)) == 100
    assert {item.instruction for item in items} == {each.instruction for each in LABELINGS}
    assert list(AWARE.items(seed=0)) == list(AWARE.items(seed=1))
    first, second = (AWARE.evaluate(Deaf(), seed=seed)["place"] for seed in (0, 1))
    assert first != second
    for task, limit in ((AWARE, 4), (ROBUST, 1)):
        with pytest.raises(DataError, match="limit"):
            dataclasses.replace(task, limit=limit).evaluate(Hearing(), seed=0)


def test_with_a_single_fold_every_start_is_a_repeat():
    task = dataclasses.replace(AWARE, folds=1, size=180, starts=3, algorithm="minibatch")
    scores = task.evaluate(Hearing(), seed=0)
    assert len(scores["harmonic_mean"].repeats) == 3
    assert max(scores["place"].repeats) == pytest.approx(1.0)


def test_a_text_that_one_labeling_leaves_out_still_counts_for_the_other():
    found = two_sides()
    place = np.where(np.arange(180) % 2, found.labels["place"], -1)
    half = Labelled(found.texts, {**found.labels, "place": place})
    scores = dataclasses.replace(AWARE, read=lambda: half).evaluate(Hearing(), seed=0)
    assert scores["harmonic_mean"].mean == pytest.approx(1.0)


def test_the_means_follow_from_the_four_numbers():
    mean, gap = awareness_means(np.array([[0.5, 0.3], [0.2, 0.25]]))
    assert (mean, gap) == pytest.approx((1 / 3, (0.2 + 0.05) / 2))
    assert awareness_means(np.array([[0.0, 0.0], [0.0, 0.9]]))[0] == pytest.approx(0, abs=1e-7)


@pytest.mark.usefixtures("mirrored")
def test_what_triplets_contribute_averages_to_the_score_and_agrees_with_leaving_one_out(encoder):
    scores = TRIPLETS.evaluate(encoder, seed=0)
    for name, score in scores.items():
        each = contributions(name, score.examples, score.gold)
        assert (len(each), each.mean()) == (150, pytest.approx(score.mean, abs=1e-6)), name
    a, b = (scores[name].examples.astype(float) for name in ("place", "colour"))
    assert 0 < a.mean() < 1
    whole = scores["harmonic_mean"]
    without = [2 / (1 / np.delete(a, i).mean() + 1 / np.delete(b, i).mean()) for i in range(150)]
    jackknife = whole.mean + 149 * (whole.mean - np.array(without))
    # Equal to first order in 1 / n.
    np.testing.assert_allclose(whole.examples, jackknife, atol=0.02)


def test_robustness_is_full_or_none_and_takes_the_worst_right_and_the_best_wrong_wording():
    scores = check_task(ROBUST, Hearing())
    assert list(scores) == [*SAID, *DIFFERENCES]
    for kind in SAID:
        assert scores[kind].repeats == pytest.approx([float(kind != "incorrect")] * 3, abs=1e-9)
    assert [scores[name].mean for name in DIFFERENCES] == pytest.approx([1.0] * 3)
    scores = ROBUST.evaluate(Deaf(), seed=0)
    assert scores["correct"] == scores["implicit"] == scores["incorrect"]
    assert [scores[name].mean for name in DIFFERENCES] == [0.0] * 3
    scores = ROBUST.evaluate(Plain(), seed=0)  # other vectors for every wording
    best = max(scores["incorrect"].repeats)
    assert scores["delta_ci"].mean == min(scores["correct"].repeats) - best
    assert scores["delta_ii"].mean == min(scores["implicit"].repeats) - best


def test_there_are_ten_wordings_of_each_kind_and_no_two_are_equal():
    for groups in WORDINGS.values():
        assert set(groups) in ({"correct"}, set(SAID))
        assert {len(group) for group in groups.values()} == {10}
        every = {words.lower() for group in groups.values() for words in group}
        assert len(every) == 10 * len(groups)
