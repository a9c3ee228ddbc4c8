"""Tasks on a user's own files: the same score from every format, or one line that says why not."""

import csv
import gzip
import json
from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from bench.data import load
from bench.errors import DataError, UsageError
from bench.registry import load_encoder
from bench.tasks import load_task, load_tasks

NOUNS = ("roof", "door", "wall", "lamp", "pipe", "tile", "beam", "lock")
WORDS = ("broken", "lovely")
TEXTS = [f"The {noun} is {word} number {i}." for i, noun, word in product(range(4), NOUNS, WORDS)]
LABELS = ["complaint" if "broken" in text else "praise" for text in TEXTS]
SIDES = {"text_a": TEXTS[:20], "text_b": [*TEXTS[:10], *TEXTS[31:41]]}
PAIRS = pd.DataFrame({**SIDES, "similarity": [5.0 - i / 10 for i in range(20)]})
REVIEWS = pd.DataFrame({"review": TEXTS, "stars": LABELS})


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("hashing")


def write(frame: pd.DataFrame, path):
    """Write a table in the format that the name of its file says."""
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        frame.to_parquet(path)
    elif name.endswith(".jsonl"):
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, sep="\t" if ".tsv" in name else ",", index=False, quoting=csv.QUOTE_ALL)
    return path


def score(encoder, name: str) -> float:
    task = load_task(name)
    return task.evaluate(encoder, seed=42)[task.metric].mean


def cosines(encoder, left, right):
    a, b = encoder.encode(list(left)), encoder.encode(list(right))
    found = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return found.round(6)  # equal texts are equally alike


@pytest.mark.parametrize("file", ["a.csv", "a.tsv", "a.csv.gz", "a.jsonl", "a.parquet"])
def test_every_format_gives_the_same_score(encoder, tmp_path, file):
    path, alike = write(PAIRS, tmp_path / file), cosines(encoder, PAIRS.text_a, PAIRS.text_b)
    expected = spearmanr(alike, PAIRS.similarity).statistic
    assert score(encoder, f"sts:{path}") == pytest.approx(expected, abs=1e-9)
    frame = PAIRS[["text_a", "text_b"]].assign(is_duplicate=[1] * 10 + [0] * 10)
    path, expected = write(frame, tmp_path / file), roc_auc_score(frame.is_duplicate, alike)
    assert score(encoder, f"pairs:{path}") == pytest.approx(expected, abs=1e-9)


def test_labels_are_words_and_columns_are_found_or_named(encoder, tmp_path):
    usual = write(REVIEWS, tmp_path / "usual.csv")
    other = write(REVIEWS.set_axis(["wording", "kind"], axis=1), tmp_path / "other.csv")
    found = score(encoder, f"classification:{usual}")
    assert found == score(encoder, f"classification:{other}:text=wording,label=kind")
    assert 0.9 < found <= 1  # one word tells the classes apart
    assert 0 <= score(encoder, f"clustering:{usual}") <= 1


def test_of_several_usual_columns_it_is_told_which_are_read(tmp_path, caplog):
    caplog.set_level("INFO")
    path = write(REVIEWS.assign(topic="roof"), tmp_path / "a.csv")
    load_task(f"clustering:{path}:label=topic")
    assert not caplog.text
    load_task(f"clustering:{path}")
    assert f"clustering:{path}: label is column topic, not stars" in caplog.text


def test_a_label_with_a_leading_zero_is_another_one_than_the_number(encoder, tmp_path):
    folder = tmp_path / "codes"
    folder.mkdir()
    codes = ["01" if label == "praise" else "1" for label in LABELS]
    write(REVIEWS.assign(stars=codes)[:40], folder / "train.csv")
    write(REVIEWS.assign(stars="01")[40:], folder / "test.csv")  # half of them are complaints
    assert 0.4 < score(encoder, f"classification:{folder}") < 0.6


def test_one_file_is_cross_validated_and_a_folder_says_what_to_train_on(encoder, tmp_path):
    shuffled = REVIEWS.assign(stars=np.random.default_rng(0).permutation(LABELS))
    task = load_task(f"classification:{write(shuffled, tmp_path / 'all.csv')}")
    found = task.evaluate(encoder, seed=1)["accuracy"]
    assert "5-fold" in task.readout
    assert len(found.repeats) == 5
    assert found.examples.mean() == pytest.approx(found.mean, abs=1e-6)  # folds of 13 and 12
    assert abs(found.mean - 0.5) < 0.25  # labels that say nothing are not learnt
    folder = tmp_path / "split"
    folder.mkdir()
    write(REVIEWS[:40], folder / "train.tsv")
    write(REVIEWS[40:], folder / "test.jsonl")
    task = load_task(f"classification:{folder}")
    found = task.evaluate(encoder, seed=1)["accuracy"]
    assert "fold" not in task.readout
    assert (len(found.repeats), len(found.examples)) == (1, 24)


def test_a_text_that_is_there_again_is_not_tested_on_what_was_learnt_of_it(
    encoder, tmp_path, caplog
):
    texts = [f"entry {i}" for i in range(30)]  # whose classes can only be remembered
    labels = np.random.default_rng(0).permutation(["a"] * 15 + ["b"] * 15)
    rows = pd.DataFrame({"text": texts, "label": labels})
    task = load_task(f"classification:{write(pd.concat([rows] * 4), tmp_path / 'all.csv')}")
    found = [task.evaluate(encoder, seed=seed)["accuracy"].mean for seed in range(5)]
    assert np.mean(found) < 0.65  # with copies in other folds it is 1
    write(rows, tmp_path / "train.csv")
    write(rows[:20], tmp_path / "test.csv")
    score(encoder, f"classification:{tmp_path}")
    assert "20 of 20 test texts are in the training file" in caplog.text
    assert "lacks" not in caplog.text
    write(rows[:20].assign(label=["c"] * 5 + ["a"] * 15), tmp_path / "test.csv")
    score(encoder, f"classification:{tmp_path}")
    assert "5 of 20 test texts have a class that the training file lacks" in caplog.text
    few = write(pd.concat([rows[:9]] * 9), tmp_path / "few.csv")
    with pytest.raises(DataError, match="10 different texts"):
        score(encoder, f"classification:{few}")


def test_a_class_of_the_training_file_is_told_from_one_of_which_it_is_a_longer_name(
    encoder, tmp_path
):
    found = {}
    for good, bad in (("fine", "fine, but not"), ("b", "a"), ("1", "0"), ("1", "10")):
        labels = [good if label == "praise" else bad for label in LABELS]
        folder = tmp_path / good / bad
        folder.mkdir(parents=True)
        write(REVIEWS.assign(stars=labels)[:40], folder / "train.csv")
        write(REVIEWS.assign(stars=good)[40:], folder / "test.csv")  # half of them are complaints
        found[good, bad] = score(encoder, f"classification:{folder}")
    assert 0.4 < found["b", "a"] < 0.6
    assert set(found.values()) == {found["b", "a"]}


def test_the_name_tells_content_and_columns_apart_and_an_instruction_is_for_the_tasks_named(
    tmp_path,
):
    path = tmp_path / "a.csv"
    first, second = (
        load_task(f"clustering:{write(frame, path)}").name for frame in (REVIEWS, REVIEWS[1:])
    )
    assert first.startswith("clustering:a.csv-")
    assert first != second
    assert load_task(f"clustering:{path}:text=review,label=stars").name == second
    other = load_task(f"clustering:{path}:text=stars,label=review").name
    assert other == f"{second}:text=stars,label=review"
    (task,) = load_tasks([f"classification:{path}"], instruction="What is wrong?")
    assert {item.instruction for item in task.items(seed=0)} == {"What is wrong?"}


def test_retrieval_reads_a_folder_in_beir_s_layout(encoder, tmp_path, caplog):
    pytest.importorskip("mteb")
    asked = [text.replace("The", "A") for text in TEXTS[:4]]
    documents = [{"_id": f"0{i}", "title": "", "text": text} for i, text in enumerate(TEXTS[:12])]
    queries = [{"_id": f"q{i}", "text": text} for i, text in enumerate(asked)]
    for name, rows in (("corpus", documents), ("queries", queries)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    judged = tmp_path / "qrels/test.tsv"
    judged.parent.mkdir()
    lines = ["query-id\tcorpus-id\tscore", *(f"q{i}\t0{i}\t1" for i in range(4))]
    judged.write_text("\n".join(lines) + "\n")
    alike = [cosines(encoder, [query] * 12, TEXTS[:12]) for query in asked]
    ranks = [(each > each[i]).sum() for i, each in enumerate(alike)]
    expected = np.mean([1 / np.log2(rank + 2) if rank < 10 else 0 for rank in ranks])
    assert score(encoder, f"retrieval:{tmp_path}") == pytest.approx(expected, abs=1e-4)
    judged.write_text("\n".join([*lines[:-1], "q3\t03\t0"]) + "\n")
    task = load_task(f"retrieval:{tmp_path}")
    with caplog.at_level("WARNING"):
        assert task.evaluate(encoder, seed=0)["ndcg_at_10"].mean <= 0.75
    assert "1 of 4 queries have no document judged above 0" in caplog.text
    for broken, words in (
        ("q0\tnothing\t1\n", "nothing"),
        ("q0\t00\t1\nq1\t01\t0.5\n", "row 2: expected a whole number, got '0.5'"),
        ("q0\t00\t1\nq0\t00\t0\n", "line 3: query q0 and document 00 are judged 1 before and 0"),
    ):
        judged.write_text(f"query-id\tcorpus-id\tscore\n{broken}")
        with pytest.raises(DataError, match=words):
            load_task(f"retrieval:{tmp_path}").evaluate(encoder, seed=0)
    judged.write_text("\n".join(lines) + "\n")
    for name, rows in (("queries", queries), ("corpus", documents)):
        file = tmp_path / f"{name}.jsonl"
        whole = file.read_text()
        file.write_text(whole + json.dumps({**rows[0], "text": "Something else."}) + "\n")
        with pytest.raises(DataError, match=rf"{name}\.jsonl row {len(rows) + 1}: the id .0 is"):
            load_task(f"retrieval:{tmp_path}").evaluate(encoder, seed=0)
        file.write_text(whole)
    untitled = [{**row, "title": None} for row in documents]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in untitled))
    with pytest.raises(DataError, match="column 'title', row 1: expected a text"):
        load_task(f"retrieval:{tmp_path}").evaluate(encoder, seed=0)


def test_ids_of_judgements_are_words_even_where_all_of_them_look_like_numbers(tmp_path):
    path = tmp_path / "test.tsv"
    path.write_text("query-id\tcorpus-id\tscore\n1\t1.10\t1\n1\t1.1\t2\n2\t1e5\t1\n")
    rows = load(str(path), "test")
    assert rows["corpus-id"] == ["1.10", "1.1", "1e5"]
    assert rows["query-id"] == ["1", "1", "2"]
    assert rows["score"] == [1, 2, 1]


@pytest.mark.parametrize(
    ("frame", "name", "words"),
    [
        (REVIEWS.set_axis(["wording", "kind"], axis=1), "classification:{}", "wording"),
        (REVIEWS, "classification:{}:text=nothing", "nothing"),
        (REVIEWS, "classification:{}:words=review", "words"),
        (REVIEWS, "sts:{}", "first"),
        (PAIRS.assign(similarity=["high", *PAIRS.similarity[1:]]), "sts:{}", "row 1"),
        (REVIEWS.assign(stars=["", *LABELS[1:]]), "classification:{}", "row 1: expected a class"),
        (REVIEWS.assign(stars=[*LABELS[1:], " "]), "clustering:{}", "row 64: expected a class"),
        (REVIEWS.assign(stars=["NA", *range(63)]), "classification:{}", "row 1: expected a class"),
        (PAIRS.assign(similarity=["9" * 400, *range(19)]), "sts:{}", "row 1: expected a finite"),
    ],
)
def test_a_column_or_value_that_is_not_there_is_named(encoder, tmp_path, frame, name, words):
    path = write(frame, tmp_path / "a.csv")
    with pytest.raises((DataError, UsageError), match=words):
        score(encoder, name.format(path))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.parquet", b"PAR1 no", "Parquet"),
        ("b.csv", b"text,label\ncaf\xe9,1\n", "UTF-8"),
        ("c.txt", b"text", "file of rows"),
        ("d.csv.gz", gzip.compress(b"text,label\n", mtime=0)[:-4], r"d\.csv\.gz"),
        ("", b"", r"test\.csv"),  # a folder with another file
    ],
)
def test_files_that_cannot_be_read_are_named(tmp_path, name, content, words):
    (tmp_path / (name or "other")).write_bytes(content)
    with pytest.raises((DataError, UsageError), match=words):
        load_task(f"clustering:{tmp_path / name}")
