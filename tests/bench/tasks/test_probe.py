import numpy as np
import pytest

from bench.errors import DataError
from bench.tasks.probe import LabelledTexts, Probe

TEST = LabelledTexts("org/mood")


def _reviews(n=80, seed=0, words=("terrible", "great")):
    rng = np.random.default_rng(seed)
    filler = [f"w{i}" for i in range(40)]
    return [
        {
            "text": " ".join(rng.permutation([*rng.choice(filler, 3), words[i % len(words)]])),
            "label": i % len(words),
        }
        for i in range(n)
    ]


def test_a_class_that_is_no_number_from_zero_is_one_too(write, encoder):
    moods = "terrible", "great", "dull"
    for split, seed in (("test", 0), ("train", 1)):
        rows = [{**row, "kind": 3 * row["label"] + 2} for row in _reviews(90, seed, moods)]
        write("org/moods", split, rows)
    test, train = (LabelledTexts("org/moods", split, label="kind") for split in ("test", "train"))
    task = Probe("toy", test=test, train=(train,), instruction="What is the mood?")
    assert task.evaluate(encoder, seed=0)["accuracy"].mean > 0.8
    assert {item.instruction for item in task.items(seed=0)} == {"What is the mood?"}
    assert "mood" in task.readout


def test_a_probe_learns_from_a_few_texts_and_repeats_with_its_seed(write, encoder):
    write("org/mood", "test", _reviews())
    write("org/mood", "train", _reviews(100, seed=1))
    task = Probe("toy", test=TEST, train=(LabelledTexts("org/mood", "train"),))
    score = task.evaluate(encoder, seed=1)["accuracy"]
    assert len(score.repeats) == 5
    assert min(score.repeats) > 0.8
    assert score == task.evaluate(encoder, seed=1)["accuracy"]
    assert list(task.items(seed=1)) != list(task.items(seed=2))


def test_given_training_sets_are_each_used_whole(write, encoder):
    write("org/mood", "test", _reviews())
    for seed in (13, 21):
        write(f"org/mood/16-{seed}", "train", _reviews(32, seed=seed))
    task = Probe(
        "toy",
        test=TEST,
        train=tuple(LabelledTexts("org/mood", "train", f"16-{seed}") for seed in (13, 21)),
        shots=None,
    )
    assert len(list(task.items(seed=0))) == 80 + 2 * 32
    score = task.evaluate(encoder, seed=0)["accuracy"]
    assert len(score.repeats) == 2
    assert score.examples.mean() == pytest.approx(score.mean)  # over both draws


def test_too_few_texts_of_a_class_are_an_error(write, encoder):
    write("org/mood", "test", _reviews())
    write("org/mood", "train", _reviews(20))
    with pytest.raises(DataError):
        Probe("toy", test=TEST, train=(LabelledTexts("org/mood", "train"),)).evaluate(
            encoder, seed=0
        )


def test_the_halves_of_a_set_cover_it_and_share_no_text(write):
    write("org/mood", "test", _reviews(200) * 2)
    halves = [LabelledTexts("org/mood", half=half).load()[0] for half in ("train", "test")]
    assert len(halves[0]) + len(halves[1]) == 400
    assert not set(halves[0]) & set(halves[1])
    assert min(map(len, halves)) > 120
