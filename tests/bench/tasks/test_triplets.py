import numpy as np
import pytest

from bench.influence import contributions
from bench.tasks.awareness import Labeling
from bench.tasks.triplets import Triplets
from bench.testing import check_task
from tests.bench.tasks.asking import COLOUR, PLACE, Deaf, Hearing, two_sides

TASK = Triplets(
    "toy", data="org/triplets", labelings=(Labeling("place", PLACE), Labeling("colour", COLOUR))
)


@pytest.fixture
def mirrored(write):
    """Triplets of which the positive for one instruction is the negative for the other."""
    texts = two_sides(4).texts
    rng = np.random.default_rng(0)
    rows = []
    while len(rows) < 150:
        a, b, c = (texts[i].split() for i in rng.choice(len(texts), 3, replace=False))
        if a[0] == b[0] != c[0] and a[1] == c[1] != b[1]:
            rows.append(tuple(map(" ".join, (a, b, c))))
    columns = "anchor", "positive", "negative"
    write("org/triplets/place", "test", [dict(zip(columns, row, strict=True)) for row in rows])
    write(
        "org/triplets/colour",
        "test",
        [dict(zip(columns, (a, c, b), strict=True)) for a, b, c in rows],
    )
    return rows


@pytest.mark.usefixtures("mirrored")
def test_an_encoder_that_shows_what_it_is_asked_for_is_right_every_time():
    scores = check_task(TASK, Hearing())
    means = {name: score.mean for name, score in scores.items()}
    expected = {
        "harmonic_mean": 1,
        "gap": 1,
        "place": 1,
        "colour": 1,
        "place under colour": 0,
        "colour under place": 0,
    }
    assert means == pytest.approx(expected)


@pytest.mark.usefixtures("mirrored")
def test_rates_add_to_one_for_an_encoder_that_ignores_instructions():
    scores = check_task(TASK, Deaf())
    assert scores["place"].mean + scores["colour"].mean == pytest.approx(1, abs=1e-12)
    assert scores["gap"].repeats == (0.0,)
    assert scores["place under colour"] == scores["place"]


@pytest.mark.usefixtures("mirrored")
def test_what_the_triplets_contribute_averages_to_the_score_and_agrees_with_leaving_one_out(
    encoder,
):
    scores = TASK.evaluate(encoder, seed=0)
    for name, score in scores.items():
        each = contributions(name, score.examples, score.gold)
        assert len(each) == 150
        assert each.mean() == pytest.approx(score.mean, abs=1e-6), name
    a, b = (scores[name].examples.astype(float) for name in ("place", "colour"))
    assert 0 < a.mean() < 1
    without = np.array(
        [2 / (1 / np.delete(a, i).mean() + 1 / np.delete(b, i).mean()) for i in range(150)]
    )
    jackknife = scores["harmonic_mean"].mean + 149 * (scores["harmonic_mean"].mean - without)
    np.testing.assert_allclose(
        scores["harmonic_mean"].examples, jackknife, atol=0.02
    )  # equal to first order in 1 / n
