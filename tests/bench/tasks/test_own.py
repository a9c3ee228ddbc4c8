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

from bench.errors import DataError, UsageError
from bench.registry import load_encoder
from bench.tasks import load_task, load_tasks

NOUNS = ("roof", "door", "wall", "lamp", "pipe", "tile", "beam", "lock")
WORDS = ("broken", "lovely")
TEXTS = [f"The {noun} is {word} number {i}." for i, noun, word in product(range(4), NOUNS, WORDS)]
LABELS = ["complaint" if "broken" in text else "praise" for text in TEXTS]
PAIRS = pd.DataFrame(
    {
        "text_a": TEXTS[:20],
        "text_b": [*TEXTS[:10], *TEXTS[31:41]],
        "similarity": [5.0 - i / 10 for i in range(20)],
    }
)


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


def reviews(column: str = "review", label: str = "stars") -> pd.DataFrame:
    return pd.DataFrame({column: TEXTS, label: LABELS})


def score(encoder, name: str, metric: str = "") -> float:
    task = load_task(name)
    return task.evaluate(encoder, seed=42)[metric or task.metric].mean


def cosines(encoder, left, right):
    a, b = encoder.encode(list(left)), encoder.encode(list(right))
    found = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return found.round(6)  # equal texts are equally alike


@pytest.mark.parametrize("file", ["a.csv", "a.tsv", "a.csv.gz", "a.jsonl", "a.parquet"])
def test_every_format_gives_the_same_score(encoder, tmp_path, file):
    path = write(PAIRS, tmp_path / file)
    expected = spearmanr(cosines(encoder, PAIRS.text_a, PAIRS.text_b), PAIRS.similarity).statistic
    assert score(encoder, f"sts:{path}") == pytest.approx(expected, abs=1e-9)


def test_pairs_are_ranked_by_their_cosine(encoder, tmp_path):
    frame = PAIRS[["text_a", "text_b"]].assign(is_duplicate=[1] * 10 + [0] * 10)
    expected = roc_auc_score(frame.is_duplicate, cosines(encoder, frame.text_a, frame.text_b))
    path = write(frame, tmp_path / "pairs.csv")
    assert score(encoder, f"pairs:{path}") == pytest.approx(expected, abs=1e-9)


def test_labels_are_words_and_columns_are_found_or_named(encoder, tmp_path):
    usual = write(reviews(), tmp_path / "usual.csv")
    other = write(reviews("wording", "kind"), tmp_path / "other.csv")
    found = score(encoder, f"classification:{usual}")
    assert found == score(encoder, f"classification:{other}:text=wording,label=kind")
    assert 0.9 < found <= 1  # one word tells the classes apart
    assert 0 <= score(encoder, f"clustering:{usual}") <= 1


def test_one_file_is_cross_validated_and_a_folder_says_what_to_train_on(encoder, tmp_path):
    task = load_task(f"classification:{write(reviews(), tmp_path / 'all.csv')}")
    scores = task.evaluate(encoder, seed=1)
    assert "5-fold" in task.readout
    assert len(scores["accuracy"].repeats) == 5
    assert scores["accuracy"].examples.mean() == pytest.approx(scores["accuracy"].mean, abs=0.02)
    shuffled = reviews().assign(stars=np.random.default_rng(0).permutation(LABELS))
    chance = score(encoder, f"classification:{write(shuffled, tmp_path / 'shuffled.csv')}")
    assert abs(chance - 0.5) < 0.25  # labels that say nothing are not learnt

    folder = tmp_path / "split"
    folder.mkdir()
    write(reviews()[:40], folder / "train.tsv")
    write(reviews()[40:], folder / "test.jsonl")
    task = load_task(f"classification:{folder}")
    scores = task.evaluate(encoder, seed=1)
    assert "fold" not in task.readout
    assert (len(scores["accuracy"].repeats), len(scores["accuracy"].examples)) == (1, 24)


def test_the_name_has_a_hash_of_the_content_and_an_instruction_is_for_the_tasks_named(tmp_path):
    first = load_task(f"clustering:{write(reviews(), tmp_path / 'a.csv')}").name
    second = load_task(f"clustering:{write(reviews()[1:], tmp_path / 'a.csv')}").name
    assert first.startswith("clustering:a.csv-")
    assert first != second
    path = tmp_path / "a.csv"
    (task,) = load_tasks([f"classification:{path}"], instruction="What is wrong?")
    assert {item.instruction for item in task.items(seed=0)} == {"What is wrong?"}


def beir(folder):
    (folder / "qrels").mkdir(parents=True)
    documents = [{"_id": f"d{i}", "title": "", "text": text} for i, text in enumerate(TEXTS[:12])]
    queries = [{"_id": f"q{i}", "text": TEXTS[i].replace("The", "A")} for i in range(4)]
    for name, rows in (("corpus", documents), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = ["query-id\tcorpus-id\tscore", *(f"q{i}\td{i}\t1" for i in range(4))]
    (folder / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n")
    return folder


def test_retrieval_reads_a_folder_in_beir_s_layout(encoder, tmp_path):
    pytest.importorskip("mteb")
    folder = beir(tmp_path / "faq")
    asked = [TEXTS[i].replace("The", "A") for i in range(4)]
    alike = [cosines(encoder, [query] * 12, TEXTS[:12]) for query in asked]
    ranks = [(each > each[i]).sum() for i, each in enumerate(alike)]
    expected = np.mean([1 / np.log2(rank + 2) if rank < 10 else 0 for rank in ranks])
    assert score(encoder, f"retrieval:{folder}") == pytest.approx(expected, abs=1e-4)
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq0\tnothing\t1\n")
    with pytest.raises(DataError, match="nothing"):
        load_task(f"retrieval:{folder}").evaluate(encoder, seed=0)


GOLD = PAIRS.similarity[1:]


@pytest.mark.parametrize(
    ("frame", "name", "words"),
    [
        (reviews("wording", "kind"), "classification:{}", "wording"),
        (reviews(), "classification:{}:text=nothing", "nothing"),
        (reviews(), "classification:{}:words=review", "words"),
        (reviews(), "sts:{}", "first"),
        (PAIRS.assign(similarity=[None, *GOLD]), "sts:{}", "row 1"),
        (PAIRS.assign(similarity=["high", *GOLD]), "sts:{}", "row 1"),
        (PAIRS.assign(similarity=1.0), "sts:{}", "differ"),
    ],
)
def test_a_column_or_value_that_is_not_there_is_named(encoder, tmp_path, frame, name, words):
    path = write(frame, tmp_path / "a.csv")
    with pytest.raises((DataError, UsageError), match=words):
        score(encoder, name.format(path))


def test_files_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "b.csv").write_bytes("text,label\ncaf\xe9,1\n".encode("latin-1"))
    (tmp_path / "c.txt").write_text("text")
    for name, words in (("a.parquet", "Parquet"), ("b.csv", "UTF-8"), ("c.txt", "heading")):
        with pytest.raises((DataError, UsageError), match=words):
            load_task(f"clustering:{tmp_path / name}")
    with pytest.raises(UsageError, match=r"test\.csv"):
        load_task(f"clustering:{tmp_path}")
    packed = tmp_path / "d.csv.gz"
    packed.write_bytes(gzip.compress(b"text,label\n")[:-4])
    with pytest.raises(DataError, match=r"d\.csv\.gz"):
        load_task(f"clustering:{packed}")
