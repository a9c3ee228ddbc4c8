import os

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics.pairwise import paired_cosine_distances

from bench.errors import DataError, Unavailable
from bench.influence import contributions
from bench.tasks import TASKS
from bench.tasks.sts import STS

TASK = STS("toy", data="org/sts")


def _pairs(n=300, seed=0):
    rng = np.random.default_rng(seed)
    words = [f"w{i}" for i in range(60)]
    rows = []
    for _ in range(n):
        shared = int(rng.integers(0, 6))
        a = list(rng.choice(words, 5))
        b = a[:shared] + list(rng.choice(words, 5 - shared))
        rows.append(
            {
                "sentence1": " ".join(a),
                "sentence2": " ".join(b),
                "score": shared + float(rng.normal(0, 0.3)),
            }
        )
    return rows


def test_it_gives_the_cosine_spearman_of_mteb_to_four_decimals(write, encoder):
    rows = _pairs()
    write("org/sts", "test", rows)
    left, right = (encoder.encode([row[c] for row in rows]) for c in ("sentence1", "sentence2"))
    expected = spearmanr(
        [row["score"] for row in rows], 1 - paired_cosine_distances(left, right)
    ).statistic
    assert TASK.evaluate(encoder, seed=0)["cosine_spearman"].mean == pytest.approx(
        expected, abs=5e-5
    )


def test_the_best_of_four_is_never_below_the_cosine(write, encoder):
    write("org/sts", "test", _pairs())
    scores = TASK.evaluate(encoder, seed=0)
    assert scores["max_spearman"].mean >= scores["cosine_spearman"].mean > 0.5


def test_every_pair_has_its_cosine_among_the_examples(write, encoder):
    rows = [*_pairs(20), {"sentence1": "same words", "sentence2": "same words", "score": 5.0}]
    write("org/sts", "test", rows)
    examples = TASK.evaluate(encoder, seed=0)["cosine_spearman"].examples
    assert examples.shape == (21,)
    assert examples[-1] == 1.0


def test_the_examples_make_up_the_score(write, encoder):
    write("org/sts", "test", _pairs(20))
    score = TASK.evaluate(encoder, seed=0)["cosine_spearman"]
    assert contributions("cosine_spearman", score.examples, score.gold).mean() == pytest.approx(
        score.mean, abs=1e-6
    )


def test_a_planned_task_names_both_sides_under_their_instructions(write):
    rows = [
        {"sentence1": a, "sentence2": "", "score": i, "instruction": "why?"}
        for i, a in enumerate("ab")
    ]
    write("org/sts", "test", rows)
    task = STS("toy", data="org/sts", instructions="instruction")
    texts = ["a", "b", "", ""]
    assert list(task.items(seed=0)) == [(text, "why?") for text in texts]


def test_instructions_that_are_not_followed_give_exactly_zero(write, encoder, make_encoder):
    rows = [
        {
            "sentence1": p["sentence1"],
            "sentence2": p["sentence2"],
            "score": s,
            "instruction": f"q{s}",
        }
        for p in _pairs(30)
        for s in (1, 0)
    ]
    write("org/sts", "test", rows)
    deaf = STS("toy", data="org/sts").evaluate(encoder, seed=0)["cosine_spearman"].mean
    hearing = (
        STS("toy", data="org/sts", instructions="instruction")
        .evaluate(encoder, seed=0)["cosine_spearman"]
        .mean
    )
    assert deaf == pytest.approx(0, abs=1e-12)  # both copies of a pair share one rank
    assert abs(hearing) > 0.01


def test_the_limit_draws_the_same_pairs_every_time(write, encoder):
    write("org/sts", "test", _pairs())
    small = STS("toy", data="org/sts", limit=40)
    first, second = (small.evaluate(encoder, seed=s)["cosine_spearman"].examples for s in (0, 1))
    assert len(first) == 40
    assert first.tolist() == second.tolist()


def test_an_absent_set_is_unavailable_and_an_absent_column_an_error(write, encoder):
    with pytest.raises(Unavailable):
        STS("toy", data="org/absent").evaluate(encoder, seed=0)
    write("org/sts", "test", [{"sentence1": "a", "sentence2": "b"}])
    with pytest.raises(DataError):
        TASK.evaluate(encoder, seed=0)


@pytest.mark.parametrize(
    ("name", "pairs"), [("stsb", 1379), ("sts13", 1500), ("sts14", 3750), ("sts15", 3000)]
)
def test_the_real_sets_have_their_published_sizes_and_reward_shared_words(name, pairs, encoder):
    if not os.environ.get("BENCH_DATA"):
        pytest.skip("needs BENCH_DATA, a folder with the data sets")
    try:
        scores = TASKS[name].evaluate(encoder, seed=0)
    except Unavailable as reason:
        pytest.skip(str(reason))
    assert len(scores["cosine_spearman"].examples) == pairs
    assert scores["cosine_spearman"].mean > 0.3
