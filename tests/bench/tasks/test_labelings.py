"""Data sets with several labelings: how they are read, drawn and dealt into folds."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.data import load
from bench.errors import DataError, Unavailable
from bench.tasks import labelings
from bench.tasks.groups import DOMAINS, SENTIMENTS
from bench.tasks.labelings import Labelled, deal_folds, draw_texts, number_classes


def labelled(fine, coarse) -> Labelled:
    texts = [f"text {i}" for i in range(len(fine))]
    return Labelled(texts, {"fine": np.array(fine), "coarse": np.array(coarse)})


def strata(found):
    """The number of texts of each fine (10) and coarse (3) class."""
    counts = np.zeros((10, 3), int)
    np.add.at(counts, (found.labels["fine"], found.labels["coarse"]), 1)
    return counts


SETS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), min_size=1, max_size=80).map(
    lambda rows: labelled(*zip(*rows, strict=True))
)


@settings(max_examples=30)
@given(SETS, st.integers(1, 6), st.integers(0, 99))
def test_folds_are_disjoint_together_all_and_share_out_or_keep_whole_every_class(
    found, folds, seed
):
    fine, everything = found.labels["fine"], list(range(len(found.texts)))
    parts = deal_folds(found, folds, seed=seed)
    assert sorted(np.concatenate(parts).tolist()) == everything
    assert np.ptp([len(part) for part in parts]) <= 1
    both = fine * 10 + found.labels["coarse"]
    counts = [np.bincount(both[part], minlength=100) for part in parts]
    assert np.ptp(counts, axis=0).max() <= 1
    parts = deal_folds(found, folds, seed=seed, whole="fine")
    assert sorted(int(i) for part in parts for i in part) == everything
    seen = [set(fine[part]) for part in parts]
    assert sum(map(len, seen)) == len(set.union(*seen))


def test_whole_classes_are_shared_out_over_the_coarse_ones():
    found = labelled(np.repeat(np.arange(30), 4), np.repeat(np.arange(3), 40))
    for part in deal_folds(found, 5, seed=1, whole="fine"):
        assert np.bincount(found.labels["coarse"][part]).tolist() == [8, 8, 8]


@settings(max_examples=30)
@given(SETS, st.integers(1, 90))
def test_a_draw_keeps_the_share_of_every_class_and_labels_stay_with_their_texts(found, size):
    few = draw_texts(found, size)
    assert few.texts == draw_texts(found, size).texts
    numbers = [int(text.split()[1]) for text in few.texts]
    assert len(numbers) == len({*numbers}) == min(size, len(found.texts))
    assert all((few.labels[name] == found.labels[name][numbers]).all() for name in few.labels)
    shares = strata(found) / len(found.texts)
    # Rounding moves each class by at most half a text, and all together the common share.
    most = 0.5 + shares * (shares > 0).sum() / 2
    assert (abs(strata(few) - shares * len(numbers)) <= most).all()


def test_a_draw_may_go_by_some_labelings_and_rounds_to_the_nearest():
    few = draw_texts(labelled(np.arange(60), np.arange(60) % 3), 30, by=["coarse"])
    assert np.bincount(few.labels["coarse"]).tolist() == [10, 10, 10]
    few = draw_texts(labelled([0] * 30 + [1] * 2, [0] * 32), 4)
    assert few.labels["fine"].tolist() == [0] * 4  # of the other class a quarter of a text


def test_clinc_is_read_without_what_is_out_of_scope_and_its_domains_follow_from_the_intents(write):
    rows = [{"text": f"{i} {j}", "intent": i} for j in range(2) for i in range(3)]
    write("clinc/clinc_oos/plus", "test", rows, names={"intent": ["oos", "translate", "balance"]})
    found = labelings.clinc()
    assert found.texts == ["1 0", "2 0", "1 1", "2 1"]
    assert found.labels["intent"].tolist() == found.labels["domain"].tolist() == [0, 1, 0, 1]


def test_class_numbers_without_names_are_refused(write):
    write("clinc/clinc_oos/plus", "test", [{"text": "a", "intent": 1}])
    with pytest.raises(DataError, match=r"features\.json"):
        labelings.clinc()


def test_comments_with_several_emotions_or_none_are_left_out(write):
    names = [*sorted(e for emotions in SENTIMENTS.values() for e in emotions.split()), "neutral"]
    joy, fear, neutral = (names.index(name) for name in ("joy", "fear", "neutral"))
    labels = [[joy], [joy, fear], [neutral], [fear], []]
    rows = [{"text": str(i), "labels": each} for i, each in enumerate(labels)]
    write("google-research-datasets/go_emotions/simplified", "test", rows)
    found = labelings.go_emotions()
    assert found.texts == ["0", "3"]
    assert found.labels["sentiment"].tolist() == [0, 1]


def test_two_labelings_in_two_files_are_brought_together_by_the_text(write):
    for name, texts in (
        ("topic", {"a": "art", "b": "tax"}),
        ("location", {"b": "Rome", "c": "Oslo"}),
    ):
        rows = [{"text": text, "cluster": label} for text, label in texts.items()]
        write(f"BrandonZYW/NYTClustering/{name}", "test", rows)
    found = labelings.nyt()
    assert found.texts == ["a", "b", "c"]
    assert found.labels["topic"].tolist() == [0, 1, -1]
    assert found.labels["location"].tolist() == [-1, 0, 1]


def test_the_published_groups_are_complete():
    assert [len(intents.split()) for intents in DOMAINS.values()] == [15] * 10
    sizes = {"positive": 12, "negative": 11, "ambiguous": 4}
    assert {name: len(emotions.split()) for name, emotions in SENTIMENTS.items()} == sizes


SIZES = {
    "clinc": (4500, {"intent": 150, "domain": 10}),
    "clinc_fifth": (450, {"intent": 30, "domain": 10}),
    "trec": (5871, {"coarse": 6, "fine": 50}),
    "go_emotions": (2979, {"emotion": 27, "sentiment": 3}),
    "ag_news": (7600, {"topic": 4}),
    "faq": (596, {"category": 14, "language": 2, "id": 300}),
}


@pytest.mark.parametrize("name", SIZES)
def test_the_real_sets_have_their_sizes(name):
    try:
        found = getattr(labelings, name)()
    except Unavailable as reason:
        pytest.skip(str(reason))
    classes = {label: len(np.unique(values)) for label, values in found.labels.items()}
    assert (len(found.texts), classes) == SIZES[name]


def test_the_domains_are_those_of_the_local_copy():
    if not os.environ.get("BENCH_DATA"):
        pytest.skip("needs BENCH_DATA, a folder with the data sets")
    rows = load("clinc/clinc_oos", "test", config="plus")
    if "domain" not in rows.columns:
        pytest.skip("this copy has no column domain")
    intents, domains = rows.names("intent"), rows.names("domain")
    pairs = {(intents[i], domains[d]) for i, d in zip(rows["intent"], rows["domain"], strict=True)}
    expected = {(intent, name) for name, each in DOMAINS.items() for intent in each.split()}
    assert pairs - {("oos", "oos")} == expected


def test_equal_labels_have_one_number_in_all_sets_and_different_ones_never():
    (large,) = number_classes([2**63 + 1, 1, 2**63, 1.0])  # a float has not enough digits
    assert large.tolist() == [2, 0, 1, 0]
    first, second = number_classes([1, 10], ["10", "other", "1"])  # of CSV, where words need texts
    assert (first.tolist(), second.tolist()) == ([0, 1], [1, 2, 0])
    for label, other in (
        ("good", "good "),
        ("Good", "good"),
        ("very good", "very\xa0good"),
        ("caf\xe9", "cafe\u0301"),
    ):
        with pytest.raises(DataError, match="write them alike"):
            number_classes([label, "bad"], [other, "bad"])
