"""QuIP's training data: what files are understood, how passages are cut, and who gets which."""

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters._training.sources import Source, named, sentences
from adapters.quip.passages import Passage, Question, gathered, windowed
from bench.data import load
from bench.errors import DataError, Unavailable, UsageError
from tests.tiny import SENTENCES, tiny_tokenizer

CONTEXT = "Anna lives in Rome. She plays the violin!"
ANSWER = CONTEXT.index("Rome")
EXPECTED = [Passage(CONTEXT, (Question("Where does Anna live?", ANSWER, ANSWER + 4),))]

SQUAD = {
    "context": CONTEXT,
    "question": "Where does Anna live?",
    "answers": {"text": ["Rome"], "answer_start": [ANSWER]},
}
ASKED = {"question": "Where does Anna live?", "answers": [{"text": "Rome", "answer_start": ANSWER}]}
NESTED = {
    "version": "1.1",
    "data": [{"title": "Anna", "paragraphs": [{"context": CONTEXT, "qas": [ASKED]}]}],
}
MRQA = {
    "context": CONTEXT,
    "qas": [
        {
            "question": "Where does Anna live?",
            "answers": ["Rome"],
            "detected_answers": [{"char_spans": [[ANSWER, ANSWER + 3]]}],
        }
    ],
}


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.jsonl", lines(SQUAD)),
        ("listed.jsonl", lines({"context": CONTEXT, **ASKED})),
        ("squad.json", json.dumps(NESTED)),
        ("mrqa.jsonl", lines({"header": {"dataset": "NewsQA"}}, MRQA)),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_every_usual_form_of_a_question_answering_file_gives_the_same_passages(
    tmp_path, name, text, zipped
):
    path = tmp_path / (name + (".gz" if zipped else ""))
    path.write_bytes(gzip.compress(text.encode()) if zipped else text.encode())
    passages, (material,) = gathered(named(str(path), Source), load)
    assert passages == EXPECTED
    assert material.rows == 1
    assert len(material.pin["sha256"]) == 64


def test_questions_of_one_passage_come_together_and_repeated_ones_once(tmp_path):
    other = {
        **SQUAD,
        "question": "Who lives there?",
        "answers": {"text": ["Anna"], "answer_start": [0]},
    }
    (tmp_path / "a.jsonl").write_text(lines(SQUAD, other, SQUAD))
    (tmp_path / "b.jsonl").write_text(lines(SQUAD))
    passages, material = gathered(
        named(f"{tmp_path / 'a.jsonl'},{tmp_path / 'b.jsonl'}", Source), load
    )
    assert [len(p.questions) for p in passages] == [2]
    assert [m.rows for m in material] == [3, 1]


def test_unanswerable_questions_and_answers_outside_the_passage_are_left_out(tmp_path):
    rows = [
        {**SQUAD, "answers": {"text": [], "answer_start": []}},
        {
            "context": CONTEXT,
            "question": "q",
            "is_impossible": True,
            "answers": [{"text": "Rome", "answer_start": ANSWER}],
        },
        {**SQUAD, "answers": {"text": ["x" * 99], "answer_start": [3]}},
    ]
    (tmp_path / "a.jsonl").write_text(lines(*rows))
    assert gathered(named(str(tmp_path / "a.jsonl"), Source), load)[0] == [Passage(CONTEXT)]


def test_an_answer_that_does_not_stand_where_the_row_says_is_left_out(tmp_path):
    row = {
        "context": "Anna lives in Rome.",
        "question": "Where?",
        "answers": {"text": ["Rome", "Rome"], "answer_start": [3, 14]},
    }
    (tmp_path / "moved.jsonl").write_text(json.dumps(row) + "\n")
    ((passage,), _) = gathered([Source(str(tmp_path / "moved.jsonl"))], None)
    assert [(q.start, q.end) for q in passage.questions] == [(14, 18)]


def test_a_line_of_json_may_hold_any_separator_of_lines(tmp_path):
    row = {**SQUAD, "context": CONTEXT + "\u2028And\x85more."}
    (tmp_path / "a.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    ((passage,), _) = gathered(named(str(tmp_path / "a.jsonl"), Source), load)
    assert passage.text == row["context"]


def test_plain_text_gives_a_passage_a_paragraph(tmp_path):
    for name in ("a.txt", "a.md", "a"):
        (tmp_path / name).write_text("First one.\nStill the first.\n\n \nSecond one.\n")
        assert [p.text for p in gathered(named(str(tmp_path / name), Source), load)[0]] == [
            "First one.\nStill the first.",
            "Second one.",
        ]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.jsonl", '{"context": "a", "question"\n', "is broken"),
        ("a.jsonl", '{"sentence": "a"}\n', "expected passages"),
        ("a.jsonl", '{"context": "a", "qas": [{"answers": []}]}\n', "expected SQuAD rows"),
        ("a.jsonl", "[1, 2]\n", "expected SQuAD rows"),
        ("a.json", "[", "is broken"),
    ],
)
def test_what_is_no_question_answering_is_a_one_line_error(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=words) as found:
        gathered(named(str(tmp_path / name), Source), load)
    assert "\n" not in str(found.value)


def test_a_missing_file_and_a_name_of_too_many_parts_are_errors(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        gathered([Source(str(tmp_path / "none.jsonl"))], load)
    with pytest.raises(UsageError):
        named("a/b:c:d:e", Source)


def test_a_set_that_cannot_be_had_is_left_out_with_a_warning_and_none_at_all_is_an_error(
    tmp_path, caplog
):
    def nothing(id, split, *, config="", columns=()):  # noqa: A002 - the hub's word
        raise Unavailable(f"no {id}")

    (tmp_path / "a.jsonl").write_text(lines(SQUAD))
    assert (
        gathered([Source("org/set"), *named(str(tmp_path / "a.jsonl"), Source)], nothing)[0]
        == EXPECTED
    )
    assert "org/set" in caplog.text
    with pytest.raises(Unavailable, match="--set sources="):
        gathered([Source("org/set")], nothing)


def test_sentences_are_found_and_their_spaces_left_out():
    text = '  One is here.  "Two!" 3 follows? yes\nLast line '
    assert [text[a:b] for a, b in sentences(text)] == [
        "One is here.",
        '"Two!"',
        "3 follows? yes",
        "Last line",
    ]
    assert sentences(" \n ") == []


def test_a_passage_is_cut_into_the_longest_runs_of_whole_sentences_and_answers_stay_in_place():
    tokenizer = tiny_tokenizer("llama")
    text = "The cat sat. The dog jumps. It was warm. The film was funny."
    size = [len(tokenizer(part)["input_ids"]) for part in ("The cat sat. The dog jumps.", text)]
    asked = (
        Question("Who jumps?", text.index("dog"), text.index("dog") + 3),
        Question("Across?", text.index("jumps"), text.index("was")),
    )
    (runs,) = windowed([Passage(text, asked)], tokenizer, tokens=size[0], longest=100)
    assert runs[0].text == "The cat sat. The dog jumps."
    assert " ".join(run.text for run in runs) == text
    ((question,),) = (
        run.questions for run in runs if run.questions
    )  # the answer that two runs hold a part of is lost
    assert runs[0].text[question.start : question.end] == "dog"
    assert windowed([Passage(text, asked)], tokenizer, tokens=size[1], longest=100) == [
        [Passage(text, asked)]
    ]
    assert windowed([Passage("A " * 50)], tokenizer, tokens=10, longest=20) == [[]]
    assert windowed([Passage("")], tokenizer, tokens=10, longest=20) == [[]]


def test_a_word_whose_token_begins_at_the_blank_before_it_counts_in_its_run():
    text = "It was warm. Paulo sat. Paulo sat. Paulo sat."  # three tokens each but the first: " Paulo", " sat", "."
    (runs,) = windowed([Passage(text)], tiny_tokenizer("llama"), tokens=5, longest=100)
    assert [run.text for run in runs] == ["It was warm.", "Paulo sat.", "Paulo sat.", "Paulo sat."]


@pytest.mark.parametrize("kind", ["llama", "bert"])
@given(
    order=st.lists(st.sampled_from(SENTENCES), min_size=1, max_size=12), tokens=st.integers(4, 40)
)
def test_runs_have_no_more_tokens_than_asked_and_would_have_with_the_next_sentence(
    kind, order, tokens
):
    tokenizer = tiny_tokenizer(kind)
    text = " ".join(order)
    (runs,) = windowed([Passage(text)], tokenizer, tokens=tokens, longest=1000)

    def count(part):
        return len(tokenizer(part, add_special_tokens=False)["input_ids"])

    assert " ".join(run.text for run in runs) == text
    for run, after in zip(runs, [*runs[1:], None], strict=True):
        assert count(run.text) <= tokens or len(sentences(run.text)) == 1
        if after is not None:
            first, last = sentences(after.text)[0]
            assert count(f"{run.text} {after.text[first:last]}") > tokens
