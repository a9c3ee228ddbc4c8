"""DINO's data: first texts, the file of generated texts, and training pairs."""

import json
from collections import Counter
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.dino.inputs import OPEN, column_of, from_file, from_sets, sentences, usable
from adapters.dino.postprocess import Cleaning, Pair, cleaned, page, shared
from bench.errors import DataError, Unavailable, UsageError

TEXTS = st.text("ab ", min_size=1, max_size=3)
PAIRS = st.lists(st.builds(Pair, TEXTS, TEXTS, st.sampled_from([1.0, 0.5, 0.0])), max_size=40)


@given(PAIRS, st.integers(0, 3))
def test_training_pairs_keep_the_rules_of_the_original(pairs, seed):
    if len({pair.text_a for pair in pairs if pair.text_a != pair.text_b}) < 3:
        return
    try:
        made, counts = cleaned(pairs, Cleaning(), seed=seed)
    except DataError:  # some first text has no other's second text to take
        kept, _ = cleaned(pairs, Cleaning(random_pairs=0), seed=seed)
        assert any(
            all(text in pair[:2] for pair in kept) for text in {pair.text_a for pair in kept}
        )
        return
    assert cleaned(pairs, Cleaning(), seed=seed) == (made, counts)
    assert {pair.label for pair in made} <= {0.9, 0.5, 0.1, 0.0}
    assert all(pair.text_a != pair.text_b for pair in made)
    assert max(Counter((pair.text_a, pair.label) for pair in made).values()) <= 2
    zeros = Counter(pair.text_a for pair in made if pair.label == 0)
    assert zeros == dict.fromkeys({pair.text_a for pair in made}, 2)
    assert (
        counts["generated"] - sum(list(counts.values())[1:-2]) + counts["random pairs"]
        == counts["training pairs"]
        == len(made)
    )


def test_random_pairs_take_the_second_texts_of_others():
    pairs = [Pair(f"a{i}", f"b{i} {k}", 1.0) for i in range(5) for k in range(2)]
    made, _ = cleaned(pairs, Cleaning(), seed=0)
    assert all(pair.text_b[1] != pair.text_a[1] for pair in made if pair.label == 0)
    with pytest.raises(DataError):
        cleaned(pairs[:2], Cleaning(), seed=0)


def test_a_first_text_that_is_in_every_pair_is_an_error_and_no_endless_search():
    with pytest.raises(DataError, match="'a'"):
        cleaned([Pair("a", "b", 1.0), Pair("b", "a", 1.0)], Cleaning(), seed=0)


def test_smoothing_and_random_pairs_can_be_switched_off():
    pairs = [Pair("a", "b", 1.0), Pair("a", "c", 0.0)]
    assert sorted(
        pair.label for pair in cleaned(pairs, Cleaning(smoothing=0, random_pairs=0), seed=0)[0]
    ) == [0, 1]


def test_pairs_whose_words_belie_their_label_are_dropped_where_asked_for_and_counted():
    pairs = [
        Pair("the cat sat", "the cat sat down", 1.0),
        Pair("the cat sat", "prices fell", 1.0),
        Pair("the cat sat", "The cat sat!", 0.0),
        Pair("the cat sat", "a dog ran", 0.5),
        Pair("the cat sat", "a dog ran", 0.0),
        Pair("prices fell", "stocks fell", 0.5),
    ]
    made, counts = cleaned(
        pairs, Cleaning(random_pairs=0, least_shared=0.2, most_shared=0.6, agreeing=True), seed=0
    )
    assert {pair[:2] for pair in made} == {
        ("the cat sat", "the cat sat down"),
        ("prices fell", "stocks fell"),
    }
    assert counts["written for several labels"] == 2
    assert counts["same meaning, yet other words"] == counts["lower label, yet the same words"] == 1
    assert "| generated | 6 |" in page(made, counts)


def test_shared_words_are_a_share_of_all():
    assert shared("The cat sat", "the cat ran") == 0.5
    assert shared("", "") == 0


def test_a_text_per_line_an_object_per_line_and_sts_b_are_read(tmp_path):
    (tmp_path / "a.txt").write_text("One.\n\nTwo.\nOne.\n")
    (tmp_path / "a.jsonl").write_text(
        '{"text_a": "One."}\n{"text_a": "Two.", "label": "1", "note": "a\u2028b"}\n',
        encoding="utf-8",
    )
    (tmp_path / "a.tsv").write_text(
        'g\tf\t2012\t1\t5.0\tOne.\tTwo.\ng\tf\t2012\t2\t1.0\tOne.\tThree "quoted".\textra\n'
    )
    (tmp_path / "a.md").write_text("One of\nthese days. And another! Is it so?")
    assert (
        from_file(str(tmp_path / "a.txt"))
        == from_file(str(tmp_path / "a.jsonl"))
        == ["One.", "Two."]
    )
    assert from_file(str(tmp_path / "a.tsv")) == ["One.", "Two.", 'Three "quoted".']
    assert from_file(f"sentences:{tmp_path / 'a.md'}") == [
        "One of",
        "these days.",
        "And another!",
        "Is it so?",
    ]


@pytest.mark.parametrize(
    ("name", "line"), [("x.jsonl", '{"text": "a"}'), ("x.jsonl", "{"), ("x.tsv", "a\tb")]
)
def test_a_line_of_another_form_is_an_error_that_names_it(tmp_path, name, line):
    (tmp_path / name).write_text(line + "\n")
    with pytest.raises(DataError, match=f"{name}:1"):
        from_file(str(tmp_path / name))


def test_a_file_of_another_encoding_is_an_error_that_names_it(tmp_path):
    (tmp_path / "x.txt").write_bytes("Ein Fl\u00fcgel.".encode("latin-1"))
    with pytest.raises(DataError, match=r"UTF-8 in .*x\.txt, got byte 0xfc at 6"):
        from_file(str(tmp_path / "x.txt"))


def test_only_plain_whole_sentences_are_used():
    assert usable("The bridge was built in 1932 by two brothers.", 6, 18)
    for text in (
        "Too short.",
        "no capital at the start of this one.",
        'He said "no" to all of us.',
        "See https://a.b for more about this.",
    ):
        assert not usable(text, 6, 18)
    assert sentences("It is 3.5 m high. Dr. who? Yes.") == ["It is 3.5 m high.", "Dr. who?", "Yes."]


class Rows(dict):
    pin: ClassVar = {"kind": "test"}
    columns = ("context", "question")


def test_data_sets_give_their_shares_and_the_seed_decides():
    def load(id, split, *, config="", columns=()):  # noqa: A002 - the hub's word
        if config == "reddit":
            raise Unavailable("no reddit")
        return Rows(
            {
                c: [
                    f"Number {(config or id)[:3]} {i} is a sentence about nothing."
                    for i in range(500)
                ]
                for c in ("context", "question")
            }
        )

    texts, material = from_sets(OPEN, load, count=80, words=(6, 18), seed=3)
    assert texts == from_sets(OPEN, load, count=80, words=(6, 18), seed=3)[0]
    assert texts != from_sets(OPEN, load, count=80, words=(6, 18), seed=4)[0]
    assert (
        len(set(texts)) == len(texts) == sum(m.rows for m in material) == pytest.approx(80, abs=2)
    )
    with pytest.raises(Unavailable, match="--set x1="):
        from_sets([s for s in OPEN if s.config == "reddit"], load, count=8, words=(6, 18), seed=3)


def test_a_data_set_is_named_with_its_column():
    assert (column_of("a/b:text").split, column_of("a/b:text").column) == ("train", "text")
    assert (column_of("a/b:c:test:text").config, column_of("a/b:c:test:text").split) == (
        "c",
        "test",
    )
    with pytest.raises(UsageError):
        column_of("a/b")


def test_the_sample_s_rows_are_plain_json():
    assert json.loads(json.dumps(Pair("a", "b", 0.9)._asdict())) == {
        "text_a": "a",
        "text_b": "b",
        "label": 0.9,
    }
