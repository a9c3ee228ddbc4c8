"""DINO's data: first texts and training pairs."""

import json
from collections import Counter
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.dino.data import (
    OPEN,
    SimilarityPair,
    clean_pairs,
    draw_first_texts,
    hold_out,
    is_plain_sentence,
    parse_column,
    read_first_texts,
    read_pairs,
    split_sentences,
    word_overlap,
)
from bench.errors import DataError, Unavailable, UsageError

TEXTS = st.text("ab ", min_size=1, max_size=3)
PAIRS = st.lists(
    st.builds(SimilarityPair, TEXTS, TEXTS, st.sampled_from([1.0, 0.5, 0.0])), max_size=40
)


@given(PAIRS, st.integers(0, 3))
def test_training_pairs_keep_the_rules_of_the_original(pairs, seed):
    try:
        made, counts = clean_pairs(pairs, seed=seed)
    except DataError:  # some first text has no other's second text to take
        kept, _ = clean_pairs(pairs, seed=seed, random_pairs=0)
        alone = {pair.text_a for pair in kept if all(pair.text_a in other[:2] for other in kept)}
        assert alone
        return
    assert clean_pairs(pairs, seed=seed) == (made, counts)
    assert {pair.label for pair in made} <= {0.9, 0.5, 0.1, 0.0}
    assert all(pair.text_a != pair.text_b for pair in made)
    per_label = Counter((pair.text_a, pair.label) for pair in made)
    assert max(per_label.values(), default=0) <= 2
    zeros = Counter(pair.text_a for pair in made if pair.label == 0)
    assert zeros == dict.fromkeys({pair.text_a for pair in made}, 2)
    generated, *dropped, added, kept = counts.values()
    assert (generated - sum(dropped) + added, kept) == (len(made), len(made))


def test_random_pairs_take_the_second_texts_of_others_and_can_be_turned_off():
    pairs = [SimilarityPair(f"a{i}", f"b{i}", 1.0) for i in range(5)]
    zeros = [pair for pair in clean_pairs(pairs, seed=0)[0] if pair.label == 0]
    assert len(zeros) == 10
    assert all(pair.text_b[1] != pair.text_a[1] for pair in zeros)
    pairs = [SimilarityPair("a", "b", 1.0), SimilarityPair("a", "c", 0.0)]
    made, _ = clean_pairs(pairs, seed=0, smoothing=0, random_pairs=0)
    assert sorted(pair.label for pair in made) == [0, 1]


def test_pairs_whose_words_contradict_their_label_are_dropped_on_request():
    cat, prices = "the cat sat", "prices fell"
    rows = [
        (cat, "the cat sat down", 1.0),
        (cat, prices, 1.0),
        (cat, "The cat sat!", 0.0),
        (cat, "a dog ran", 0.5),
        (cat, "a dog ran", 0.0),
        (prices, "stocks fell", 0.5),
    ]
    limits = {"least_shared": 0.2, "most_shared": 0.6, "agreeing": True, "random_pairs": 0}
    made, counts = clean_pairs([SimilarityPair(*row) for row in rows], seed=0, **limits)
    assert {pair[:2] for pair in made} == {rows[0][:2], rows[5][:2]}
    assert counts["conflicting labels"] == 2
    assert counts["too little overlap"] == counts["too much overlap"] == 1


def test_word_overlap_is_the_jaccard_index():
    assert word_overlap("The cat sat", "the cat ran") == 0.5
    assert word_overlap("", "") == 0


def test_held_out_first_texts_are_not_trained_on():
    labels = [0.9, 0.5, 0.1, 0.0] * 60
    pairs = [SimilarityPair(f"a{i % 30}", f"b{i}", label) for i, label in enumerate(labels)]
    train, held_out = hold_out(pairs, fraction=0.1, seed=1)
    assert len(train) + len(held_out) == len(pairs)
    texts = {pair.text_a for pair in held_out}
    assert len(texts) == 3
    assert not texts & {pair.text_a for pair in train}


def test_first_texts_are_read_from_lines_objects_and_the_sts_benchmark(tmp_path):
    row = '{"text_a": "Two.", "label": "1", "note": "a\u2028b"}\n'
    stsb = 'g\tf\t2012\t1\t5.0\tOne.\tTwo.\ng\tf\t2012\t2\t1.0\tOne.\tThree "quoted".\textra\n'
    files = {
        "a.txt": "One.\n\nTwo.\nOne.\n",
        "a.jsonl": '{"text_a": "One."}\n' + row,
        "a.tsv": stsb,
    }
    expected = {"a.tsv": ["One.", "Two.", 'Three "quoted".']}
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        found, (material,) = first_texts(tmp_path / name)
        assert found == expected.get(name, ["One.", "Two."])
        assert material.rows == len(found)


def test_of_more_first_texts_than_needed_a_sample_is_drawn(tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(f"Sentence {i}." for i in range(50)))
    found, _ = read_first_texts(tmp_path / "a.txt", count=8, seed=1)
    assert len(set(found)) == 8
    assert found != [f"Sentence {i}." for i in range(8)]


def first_texts(path):
    return read_first_texts(path, count=9, seed=0)


@pytest.mark.parametrize(
    ("read", "name", "line"),
    [
        (first_texts, "x.jsonl", '{"text": "a"}'),
        (first_texts, "x.jsonl", "{"),
        (first_texts, "x.tsv", "a\tb"),
        (read_pairs, "x", '{"text_a": "a", "text_b": null, "label": "1"}'),
        (read_pairs, "x", '{"text_a": "a"}'),
        (read_pairs, "x", '{"text_a": "a", "text_b": "b", "label": 1.5}'),
        (read_pairs, "x", "[1]"),
    ],
)
def test_a_line_of_another_form_is_an_error_that_names_it(tmp_path, read, name, line):
    (tmp_path / name).write_text("\n" + line + "\n")
    with pytest.raises(DataError, match=f"{name}:2"):
        read(tmp_path / name)


def test_files_are_read_as_utf_8_and_rows_of_released_ones_are_pairs(tmp_path):
    row = {"text_a": "a", "text_b": "b", "label": "0.5"}
    (tmp_path / "pairs").write_text(json.dumps(row))
    assert read_pairs(tmp_path / "pairs")[0] == [("a", "b", 0.5)]
    (tmp_path / "x.txt").write_bytes("Ein Fl\u00fcgel.".encode("latin-1"))
    with pytest.raises(DataError, match=r"UTF-8 in .*x\.txt, got byte 0xfc at 6"):
        first_texts(tmp_path / "x.txt")


def test_only_whole_sentences_of_prose_are_used():
    assert is_plain_sentence("The bridge was built in 1932 by two brothers.", (6, 18))
    for text in (
        "Too short.",
        "no capital at the start of this one.",
        'He said "no" to all of us.',
        "See https://a.b for more about this.",
    ):
        assert not is_plain_sentence(text, (6, 18))


def test_sentences_are_split_as_for_the_packaged_weights():
    text = 'It is 3.5  m high. He said "Hi." Dr. who? (Yes.) No'
    expected = ["It is 3.5 m high.", 'He said "Hi.', "Dr. who?", "(Yes.", "No"]
    assert split_sentences(text) == expected


class Rows(dict):
    pin: ClassVar = {"kind": "test"}


def test_data_sets_give_their_shares_and_the_seed_decides():
    def load(id, split, *, config="", columns=()):  # noqa: A002 - the hub's word
        if config == "reddit":
            raise Unavailable("no reddit")
        name = (config or id)[:3]
        texts = [f"Number {name} {i} is a sentence about nothing." for i in range(500)]
        return Rows(dict.fromkeys(columns, texts))

    def draw(seed, sources=OPEN):
        return draw_first_texts(sources, load, count=80, words=(6, 18), seed=seed)

    texts, material = draw(3)
    assert len(set(texts)) == len(texts) == sum(each.rows for each in material)
    assert [each.rows for each in material] == [35, 20, 18, 7]
    assert texts == draw(3)[0] != draw(4)[0]
    with pytest.raises(Unavailable, match="--set x1="):
        draw(3, [source for source in OPEN if source.config == "reddit"])


def test_a_data_set_is_named_with_its_column():
    for name, expected in {
        "a/b:text": ("a/b", "", "train", "text"),
        "a/b:c:text": ("a/b", "c", "train", "text"),
        "a/b:c:test:text": ("a/b", "c", "test", "text"),
    }.items():
        found = parse_column(name)
        assert (found.id, found.config, found.split, found.column) == expected
    for name in ("a/b", "a/b:c:test:text:more"):
        with pytest.raises(UsageError):
            parse_column(name)
