"""QuIP's training data: files, windows of passages, and the use of each."""

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from bench.errors import DataError
from bench.overlap import Ngrams
from tests.adapters.checks import write_rows
from tests.tiny import SENTENCES, tiny_tokenizer

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


def read(path, *rows):
    if rows:
        write_rows(path, rows)
    return load_passages(parse_sources(str(path), Source), load)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("rows.jsonl", [SQUAD]),
        ("listed.jsonl", [{"context": CONTEXT, **LISTED}]),
        ("squad.json", [NESTED]),
        ("mrqa.jsonl", [{"header": {"dataset": "NewsQA"}}, MRQA]),
    ],
)
def test_every_usual_form_of_a_question_answering_file_gives_the_same_passages(
    tmp_path, name, rows
):
    assert read(tmp_path / name, *rows)[0] == EXPECTED
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    passages, (material,) = read(tmp_path / f"{name}.gz")
    assert passages == EXPECTED
    assert (material.rows, len(material.pin["sha256"])) == (1, 64)


def test_questions_of_one_passage_come_together_and_repeated_ones_once(tmp_path):
    answers = {"text": ["Anna"], "answer_start": [0]}
    other = SQUAD | {"question": "Who lives there?", "answers": answers}
    first = write_rows(tmp_path / "a.jsonl", [SQUAD, other, SQUAD])
    second = write_rows(tmp_path / "b.jsonl", [SQUAD])
    passages, material = read(f"{first},{second}")
    assert [len(passage.questions) for passage in passages] == [2]
    assert [one.rows for one in material] == [3, 1]


def test_only_answers_that_the_passage_has_where_the_row_says_are_read(tmp_path):
    wrong = [
        SQUAD | {"answers": {"text": [], "answer_start": []}},
        {"context": CONTEXT, "is_impossible": True, **LISTED},
        SQUAD | {"answers": {"text": ["x" * 99], "answer_start": [3]}},
        SQUAD | {"answers": {"text": ["Rome"], "answer_start": [3]}},
    ]
    assert read(tmp_path / "a.jsonl", *wrong)[0] == [Passage(CONTEXT)]
    second = SQUAD | {"answers": {"text": ["Rome", "Rome"], "answer_start": [3, START]}}
    assert read(tmp_path / "a.jsonl", second)[0] == EXPECTED


def test_texts_keep_their_line_separators_and_plain_text_gives_a_passage_a_paragraph(tmp_path):
    text = CONTEXT + "\u2028And\x85more."
    assert read(tmp_path / "a.jsonl", SQUAD | {"context": text})[0][0].text == text
    for name in ("a.txt", "a.md", "a"):
        (tmp_path / name).write_text("First one.\nStill the first.\n\n \nSecond one.\n")
        found = [one.text for one in read(tmp_path / name)[0]]
        assert found == ["First one.\nStill the first.", "Second one."]


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
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as found:
        read(tmp_path / name)
    assert "\n" not in str(found.value)


def test_a_passage_is_cut_into_runs_of_whole_sentences_and_answers_stay_in_place():
    tokenizer = tiny_tokenizer("llama")
    text = "The cat sat. The dog jumps. It was warm. The film was funny."
    first = len(tokenizer("The cat sat. The dog jumps.")["input_ids"])
    dog, across = text.index("dog"), text.index("jumps")
    warm = Question("How?", text.index("warm"), text.index("warm") + 4)
    asked = (Question("Who?", dog, dog + 3), Question("Across?", across, text.index("was")), warm)
    (runs,) = cut_passages([Passage(text, asked)], tokenizer, tokens=first)
    assert runs[0] == Passage("The cat sat. The dog jumps.", asked[:1])
    ((found,),) = [run.questions for run in runs[1:] if run.questions]  # that across two is lost
    assert (found.start, found.end) == (runs[1].text.index("warm"), runs[1].text.index("warm") + 4)
    assert cut_passages([Passage(text, asked)], tokenizer, tokens=100) == [[Passage(text, asked)]]
    for empty in ("A " * 50, ""):
        assert cut_passages([Passage(empty)], tokenizer, tokens=10, longest=20) == [[]]
    assert cut_passages([], tokenizer, tokens=10) == []
    text = "It was warm. Paulo sat. Paulo sat. Paulo sat."  # " Paulo", " sat" and "." are three
    (runs,) = cut_passages([Passage(text)], tokenizer, tokens=5)
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


@pytest.mark.parametrize("kind", ["llama", "roberta"])
def test_an_answer_is_located_at_the_tokens_that_hold_it(networks, kind):
    words = ("rain", "1984", "final", "bank", "São")
    for text in SENTENCES[:7]:
        starts = [(text.find(word), word) for word in words]
        asked = [Question("What?", start, start + len(word)) for start, word in starts]
        (found,) = tokenize(networks(kind), [Passage(text, tuple(asked))])
        for (start, word), answer in zip(starts, found.answers, strict=True):
            assert (answer is None) == (start < 0)
            if answer is not None:
                first, last = found.spans[answer[0], 0], found.spans[answer[1], 1]
                assert text[first:last].strip() == word
    cut = found.spans[:3]
    assert locate_answer(cut, int(cut[-1, 1]) - 1, int(cut[-1, 1]) + 2) is None


@pytest.fixture(scope="module")
def select(networks):
    """Return what decides how each passage is used, by default in windows of 99 tokens."""
    options = {"window": 99, "human": 0.5, "questions": 1, "seed": 0}
    return lambda some, **changes: select_data(some, networks("llama"), **(options | changes))


def test_passages_are_held_out_whole_and_shares_are_kept(networks, select):
    asked = (Question("Who?", 4, 7),)
    passages = [
        Passage(f"The cat {i} sat on the mat. The dog {i} jumps over it.", asked) for i in range(60)
    ]
    words = "Nobody asked about the warm and funny film number {}, which was surprisingly moving."
    passages += [Passage(words.format(i)) for i in range(60)]
    data = select(passages, window=15, tokens=900, questions=2, seed=4)
    held_out = {passage.text.split()[2] for passage in data.held_out}
    assert len(held_out) == 3
    assert not held_out & {passage.text.split()[2] for passage in data.asked}

    def count(texts):
        return sum(len(networks("llama").tokenizer(text)["input_ids"]) for text in texts)

    assert 440 < sum(count(passage.texts) for passage in data.human) < 480
    assert 440 < count(data.texts) + 2 * 13 * len(data.texts) < 510
    assert not {passage.text for passage in data.human} & set(data.texts)


def test_few_passages_are_all_for_training(select):
    few = [Passage(text, (Question("What?", 0, 3),)) for text in SENTENCES[:3]]
    data = select(few, tokens=999, human=1.0)
    assert {passage.text for passage in data.human} == set(SENTENCES[:3])
    assert data.texts == data.held_out == []


def test_held_out_passages_share_no_8_gram_with_the_others(select):
    shared = "Every excerpt here ends in the very same sentence of more than eight words."
    texts = []
    for i in range(40):
        texts.append(f"Excerpt {i} says that {i} is it. {shared}")
        texts.append(f"Passage {i} stands {' '.join('i' * i)}.")
    passages = [Passage(text, (Question("Which?", 8, 9),)) for text in texts]
    data = select(passages, window=200, tokens=9_000)
    seen = Ngrams.of([*(passage.text for passage in data.asked), *data.texts])
    assert data.held_out
    assert not seen.find_overlaps([passage.text for passage in data.held_out]).any()
