"""QuIP's training data: files, windows of passages, and the use of each."""

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters._backbone import Backbone
from adapters._text import split_sentences
from adapters._training.sources import Source, parse_sources
from adapters.quip.data import (
    Passage,
    Question,
    cut_passages,
    load_passages,
    locate_answer,
    select_data,
    tokenize,
)
from bench.data import load
from bench.errors import DataError, Unavailable, UsageError
from bench.overlap import Ngrams
from tests.tiny import SENTENCES, tiny_folder, tiny_tokenizer

CONTEXT = "Anna lives in Rome. She plays the violin!"
START = CONTEXT.index("Rome")
WHERE = "Where does Anna live?"
EXPECTED = [Passage(CONTEXT, (Question(WHERE, START, START + 4),))]

ANSWERS = {"text": ["Rome"], "answer_start": [START]}
SQUAD = {"context": CONTEXT, "question": WHERE, "answers": ANSWERS}
LISTED = {"question": WHERE, "answers": [{"text": "Rome", "answer_start": START}]}
NESTED = {"data": [{"title": "Anna", "paragraphs": [{"context": CONTEXT, "qas": [LISTED]}]}]}
DETECTED = {"question": WHERE, "detected_answers": [{"char_spans": [[START, START + 3]]}]}
MRQA = {"context": CONTEXT, "qas": [DETECTED | {"answers": ["Rome"]}]}


def lines(*rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read(path, text=None):
    if text is not None:
        path.write_text(text, encoding="utf-8")
    return load_passages(parse_sources(str(path), Source), load)[0]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.jsonl", lines(SQUAD)),
        ("listed.jsonl", lines({"context": CONTEXT, **LISTED})),
        ("squad.json", json.dumps(NESTED)),
        ("mrqa.jsonl", lines({"header": {"dataset": "NewsQA"}}, MRQA)),
    ],
)
def test_every_usual_form_of_a_question_answering_file_gives_the_same_passages(
    tmp_path, name, text
):
    assert read(tmp_path / name, text) == EXPECTED
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
    passages, (material,) = load_passages(parse_sources(str(tmp_path / f"{name}.gz"), Source), load)
    assert passages == EXPECTED
    assert (material.rows, len(material.pin["sha256"])) == (1, 64)


def test_questions_of_one_passage_come_together_and_repeated_ones_once(tmp_path):
    answers = {"text": ["Anna"], "answer_start": [0]}
    other = SQUAD | {"question": "Who lives there?", "answers": answers}
    (tmp_path / "a.jsonl").write_text(lines(SQUAD, other, SQUAD))
    (tmp_path / "b.jsonl").write_text(lines(SQUAD))
    files = parse_sources(f"{tmp_path / 'a.jsonl'},{tmp_path / 'b.jsonl'}", Source)
    passages, material = load_passages(files, load)
    assert [len(passage.questions) for passage in passages] == [2]
    assert [one.rows for one in material] == [3, 1]


def test_only_answers_that_the_passage_has_where_the_row_says_are_read(tmp_path):
    wrong = [
        SQUAD | {"answers": {"text": [], "answer_start": []}},
        {"context": CONTEXT, "is_impossible": True, **LISTED},
        SQUAD | {"answers": {"text": ["x" * 99], "answer_start": [3]}},
        SQUAD | {"answers": {"text": ["Rome"], "answer_start": [3]}},
    ]
    assert read(tmp_path / "a.jsonl", lines(*wrong)) == [Passage(CONTEXT)]
    second = SQUAD | {"answers": {"text": ["Rome", "Rome"], "answer_start": [3, START]}}
    assert read(tmp_path / "a.jsonl", lines(second)) == EXPECTED


def test_texts_keep_their_line_separators_and_plain_text_gives_a_passage_a_paragraph(tmp_path):
    text = CONTEXT + "\u2028And\x85more."
    assert read(tmp_path / "a.jsonl", lines(SQUAD | {"context": text}))[0].text == text
    for name in ("a.txt", "a.md", "a"):
        found = read(tmp_path / name, "First one.\nStill the first.\n\n \nSecond one.\n")
        assert [one.text for one in found] == ["First one.\nStill the first.", "Second one."]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.jsonl", '{"context": "a", "question"\n'),
        ("a.jsonl", '{"sentence": "a"}\n'),
        ("a.jsonl", '{"context": "a", "qas": [{"answers": []}]}\n'),
        ("a.jsonl", "[1, 2]\n"),
        ("a.json", "["),
        ("none.jsonl", None),
    ],
)
def test_files_without_question_answering_are_one_line_errors(tmp_path, name, text):
    with pytest.raises(DataError) as found:
        read(tmp_path / name, text)
    assert "\n" not in str(found.value)


def test_an_unavailable_set_is_skipped_with_a_warning_and_none_at_all_is_an_error(tmp_path, caplog):
    def nothing(id, split, *, config="", columns=()):  # noqa: A002 - the hub's word
        raise Unavailable(f"no {id}")

    (tmp_path / "a.jsonl").write_text(lines(SQUAD))
    sources = [Source("org/set"), *parse_sources(str(tmp_path / "a.jsonl"), Source)]
    assert load_passages(sources, nothing)[0] == EXPECTED
    assert "org/set" in caplog.text
    with pytest.raises(Unavailable):
        load_passages(sources[:1], nothing)
    with pytest.raises(UsageError):
        parse_sources("a/b:c:d:e", Source)


def test_a_passage_is_cut_into_runs_of_whole_sentences_and_answers_stay_in_place():
    tokenizer = tiny_tokenizer("llama")
    text = "The cat sat. The dog jumps. It was warm. The film was funny."
    first = len(tokenizer("The cat sat. The dog jumps.")["input_ids"])
    dog, across = text.index("dog"), text.index("jumps")
    asked = (Question("Who?", dog, dog + 3), Question("Across?", across, text.index("was")))
    (runs,) = cut_passages([Passage(text, asked)], tokenizer, tokens=first)
    assert runs[0] == Passage("The cat sat. The dog jumps.", asked[:1])
    assert " ".join(run.text for run in runs) == text
    assert not any(run.questions for run in runs[1:])  # an answer across two runs is lost
    assert cut_passages([Passage(text, asked)], tokenizer, tokens=100) == [[Passage(text, asked)]]
    for empty in ("A " * 50, ""):
        assert cut_passages([Passage(empty)], tokenizer, tokens=10, longest=20) == [[]]
    assert cut_passages([], tokenizer, tokens=10) == []


def test_a_word_whose_token_begins_at_the_blank_before_it_counts_in_its_run():
    text = "It was warm. Paulo sat. Paulo sat. Paulo sat."  # " Paulo", " sat" and "." are three
    (runs,) = cut_passages([Passage(text)], tiny_tokenizer("llama"), tokens=5)
    assert [run.text for run in runs] == ["It was warm.", "Paulo sat.", "Paulo sat.", "Paulo sat."]


TOKENIZERS = {kind: tiny_tokenizer(kind) for kind in ("llama", "bert")}


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(
    order=st.lists(st.sampled_from(SENTENCES), min_size=1, max_size=12), tokens=st.integers(4, 40)
)
def test_runs_are_the_longest_that_fit(kind, order, tokens):
    tokenizer = TOKENIZERS[kind]
    text = " ".join(order)
    (runs,) = cut_passages([Passage(text)], tokenizer, tokens=tokens)

    def count(part):
        return len(tokenizer(part, add_special_tokens=False)["input_ids"])

    assert " ".join(run.text for run in runs) == text
    for run, after in zip(runs, [*runs[1:], None], strict=True):
        assert count(run.text) <= tokens or len(split_sentences(run.text)) == 1
        if after is not None:
            first, last = split_sentences(after.text)[0]
            assert count(f"{run.text} {after.text[first:last]}") > tokens


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    place = tmp_path_factory.mktemp("quip-data")
    folders = {kind: tiny_folder(kind, place / kind) for kind in ("llama", "roberta")}
    return {
        kind: Backbone(str(folder), dtype="float32", device="cpu").load()
        for kind, folder in folders.items()
    }


@pytest.mark.parametrize("kind", ["llama", "roberta"])
def test_an_answer_is_located_at_the_tokens_that_hold_it(networks, kind):
    words = ("rain", "1984", "final", "bank", "São")
    for text in SENTENCES[:7]:
        starts = [(text.find(word), word) for word in words]
        asked = [Question("What?", start, start + len(word)) for start, word in starts]
        (found,) = tokenize(networks[kind], [Passage(text, tuple(asked))])
        for (start, word), answer in zip(starts, found.answers, strict=True):
            if start < 0:
                assert answer is None
                continue
            first, last = found.spans[answer[0], 0], found.spans[answer[1], 1]
            assert text[first:last].strip() == word
    cut = found.spans[:3]
    assert locate_answer(cut, int(cut[-1, 1]) - 1, int(cut[-1, 1]) + 2) is None


def count_tokens(network, texts):
    return sum(len(network.tokenizer(text)["input_ids"]) for text in texts)


def test_passages_are_held_out_whole_and_shares_are_kept(networks):
    network, asked = networks["llama"], (Question("Who?", 4, 7),)
    passages = [
        Passage(f"The cat {i} sat on the mat. The dog {i} jumps over it.", asked) for i in range(60)
    ]
    words = "Nobody asked about the warm and funny film number {}, which was surprisingly moving."
    passages += [Passage(words.format(i)) for i in range(60)]
    data = select_data(passages, network, window=15, tokens=900, human=0.5, questions=2, seed=4)
    held_out = {passage.text.split()[2] for passage in data.held_out}
    assert len(held_out) == 3
    assert not held_out & {passage.text.split()[2] for passage in data.asked}
    people = sum(count_tokens(network, passage.texts) for passage in data.human)
    assert 440 < people < 480
    assert 440 < count_tokens(network, data.texts) + 2 * 13 * len(data.texts) < 510
    assert not {passage.text for passage in data.human} & set(data.texts)


def test_few_passages_are_all_for_training(networks):
    few = [Passage(text, (Question("What?", 0, 3),)) for text in SENTENCES[:3]]
    data = select_data(
        few, networks["llama"], window=99, tokens=999, human=1.0, questions=1, seed=0
    )
    assert {passage.text for passage in data.human} == set(SENTENCES[:3])
    assert data.texts == data.held_out == []


def test_held_out_passages_share_no_8_gram_with_the_others(networks):
    shared = "Every excerpt here ends in the very same sentence of more than eight words."
    passages = []
    for i in range(40):
        texts = (
            f"Excerpt {i} says that {i} is it. {shared}",
            f"Passage {i} stands {' '.join('i' * i)}.",
        )
        passages += [Passage(text, (Question("Which?", 8, 9),)) for text in texts]
    data = select_data(
        passages, networks["llama"], window=200, tokens=9_000, human=0.5, questions=1, seed=0
    )
    seen = Ngrams.of([*(passage.text for passage in data.asked), *data.texts])
    assert data.held_out
    assert not seen.find_overlaps([passage.text for passage in data.held_out]).any()
