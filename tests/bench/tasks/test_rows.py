"""Invalid gold values, labels and texts, and those without a defined score, are errors."""

from dataclasses import replace

import numpy as np
import pytest

from bench.data.columns import BINARY, CLASS, CLASS_NUMBER, NUMBER, TEXT, check_column
from bench.errors import DataError, EncodingError
from bench.tasks.classification import Classification
from bench.tasks.clustering import Clustering
from bench.tasks.ner import NERByQuestions, Tagged
from bench.tasks.paraphrase import SEEDS, BertScore, FewShot, Paraphrase, PickedBertScore
from bench.tasks.probe import LabelledTexts, Probe
from bench.tasks.qa import ExtractiveQA
from bench.tasks.sentiment import ZeroShot, ZeroShotByPrompt, ZeroShotByQuestions
from bench.tasks.sts import STS
from tests.bench.encoders import Constant

NAN = float("nan")
TEXTS = LabelledTexts("org/set")
ON = {"data": "org/set"}
SCORED = {"columns": ("sentence1", "sentence2", "score"), "bounds": (1.0, 2.0)}
TASKS = {
    "sts": STS("toy", **ON),
    "paraphrase": Paraphrase("toy", **ON),
    "stsb-paraphrase": Paraphrase("toy", **ON, **SCORED),
    "bertscore": BertScore("toy", **ON),
    "picked": PickedBertScore("toy", **ON, others=(("org/set", "", "test"),)),
    "fewshot": FewShot("toy", **ON, train="org/set"),
    "zeroshot": ZeroShot("toy", test=TEXTS),
    "question": ZeroShotByQuestions("toy", test=TEXTS),
    "prompt": ZeroShotByPrompt("toy", test=TEXTS),
    "probe": Probe("toy", test=TEXTS, train=(TEXTS,), shots=4),
    "probe-sets": Probe("toy", test=TEXTS, train=(TEXTS,), shots=None),
    "clustering": Clustering("toy", **ON, repeats=2),
}


def rows(**changes):
    """Valid rows of every task, changed in the sixth row, or in all for a list of values."""
    made = []
    for i in range(20):
        texts = {"sentence1": f"s{i}", "sentence2": f"s{i if i % 2 else 0} t"}
        text = f"{'sea' if i % 2 else 'oak'} w{i}"
        made.append({**texts, "text": text, "score": float(i % 4), "label": i % 2})
    for column, value in changes.items():
        if not isinstance(value, tuple):
            made[5][column] = value
            continue
        for i, row in enumerate(made):
            row[column] = value[i % len(value)]
    return made


@pytest.fixture
def run_on(write, encoder):
    def _run(task, found):
        write("org/set", "test", found)
        for seed in SEEDS:
            write(f"org/set/16-{seed}", "train", found)
        return task.evaluate(encoder, seed=0)[task.metric].mean

    return _run


@pytest.mark.parametrize("name", TASKS)
def test_a_task_scores_right_rows_and_names_the_row_that_is_wrong(name, run_on):
    task = TASKS[name]
    assert np.isfinite(run_on(task, rows()))
    text = "text" if hasattr(task, "test") or name == "clustering" else "sentence2"
    label = "score" if "sts" in name else "label"
    for column in (text, label):
        with pytest.raises(DataError, match=rf"'{column}'.*row 6"):
            run_on(task, rows(**{column: None}))
    if name in {"paraphrase", "bertscore", "fewshot", "zeroshot", "question"}:
        with pytest.raises(DataError, match=r"row 6.*0 or 1"):
            run_on(task, rows(label=2))
    if task.family == "sentiment" and "probe" not in name:
        assert run_on(task, rows(label=(1,))) <= 1  # nothing is trained: each text is right or not
    else:
        with pytest.raises(DataError, match=r"at least two classes|scores that differ"):
            run_on(task, rows(**{label: (1,)}))


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        (TEXT, "a", [None, 3, ["a"]]),
        (NUMBER, 2.5, [None, NAN, float("inf"), "2.5", [1]]),
        (CLASS_NUMBER, 2, [None, NAN, [1], {}, -1, 0.5, "1"]),
        (CLASS, 2, [None, NAN, [1], {}, -1, 0.5, "1"]),
        (CLASS, "a", [1]),
        (BINARY, 1, [None, NAN, [1], {}, -1, 0.5, 2, "1"]),
    ],
)
def test_a_column_has_values_of_its_kind_alone(kind, right, wrong):
    check_column([right, right], kind, "here")
    for value in wrong:
        with pytest.raises(DataError, match=r"here.*row 2"):
            check_column([right, value], kind, "here")


def test_one_cosine_for_all_pairs_ranks_nothing(write):
    write("org/set", "test", rows())
    with pytest.raises(EncodingError, match="cosine 1"):
        TASKS["sts"].evaluate(Constant(), seed=0)


def test_texts_that_are_each_a_class_of_their_own_have_no_clustering(run_on):
    with pytest.raises(DataError, match="20 classes of 20 texts"):
        run_on(TASKS["clustering"], rows(label=tuple(range(20))))
    with pytest.raises(DataError, match="20 classes of 20 texts"):  # before anything is encoded
        TASKS["clustering"].items(seed=0)


def test_classes_that_no_training_text_has_are_told(write, encoder):
    write("org/set", "test", rows())
    write("org/set", "train", rows(label=(3, 4)))
    task = Probe("toy", test=TEXTS, train=(LabelledTexts("org/set", "train"),), shots=4)
    with pytest.raises(DataError, match=r"\[0, 1\].*\[3, 4\]"):
        task.evaluate(encoder, seed=0)


TAGGED = NERByQuestions("toy", test=Tagged("org/set"))
ASKED = ExtractiveQA("toy", data="org/set", split="test")
ANSWERED = {"context": "a b", "question": "a?", "answers": {"text": ["a"]}}


@pytest.mark.parametrize(
    ("task", "right", "change", "told"),
    [
        (TASKS["clustering"], {}, {"label": [0, 1, 2]}, r"row 2.*2 texts and 3 labels"),
        (TASKS["clustering"], {}, {"text": "ab"}, r"row 2.*a list"),
        (TASKS["clustering"], {}, {"label": [0, None]}, r"row 2.*None"),
        (TAGGED, {"tokens": ["a", "b"]}, {"ner_tags": [0, 2]}, "one of 2 classes"),
        (TAGGED, {"tokens": ["a", "b"]}, {"ner_tags": [0, -100]}, "row 2"),
        (TAGGED, {"tokens": ["a", "b"]}, {"ner_tags": [0, None]}, "row 2"),
        (ASKED, ANSWERED, {"answers": {"text": []}}, r"row 2.*text"),
        (ASKED, ANSWERED, {"answers": None}, r"row 2.*text"),
        (ASKED, ANSWERED, {"answers": {"text": [None]}}, r"row 2.*text"),
    ],
)
def test_lists_have_the_values_that_they_must_have(task, right, change, told, write, encoder):
    usual = {"text": ["a", "b"], "label": [0, 1], "ner_tags": [0, 1], **right}
    write("org/set", "test", [usual, {**usual, **change}], names={"ner_tags": ["O", "B-PER"]})
    with pytest.raises(DataError, match=told):
        task.evaluate(encoder, seed=0)


@pytest.mark.parametrize(
    "task",
    [
        STS("toy", **ON, columns=("text", "sentence1", "score")),
        Paraphrase("toy", **ON, columns=("text", "sentence1", "label")),
        Classification("toy", **ON, label="word"),
        Clustering("toy", **ON, label="word"),
    ],
    ids=["sts", "paraphrase", "classification", "clustering"],
)
def test_texts_of_other_splits_are_left_out_whatever_the_labels_are_called(task, write):
    found = rows(word=("yes", "no"))
    write("org/set", "test", found)
    write("org/other", "train", found[:5])
    texts = {
        item.text for item in replace(task, apart_from=(("org/other", "", "train"),)).items(seed=0)
    }
    assert {row["text"] for row in found} - texts == {row["text"] for row in found[:5]}
