"""InBedder's training data: its rows, which tokens have a loss, and the mix of sources."""

import copy
import os
from dataclasses import replace

import pytest
import torch
from tokenizers import processors

from adapters._backbone import PACKAGED, Backbone
from adapters._training.budget import TokenCounts
from adapters.inbedder.data import (
    OPEN,
    AnswerExample,
    AnswerSource,
    read_examples,
    shorten_passage,
    strip_function_words,
    tokenise_examples,
)
from adapters.inbedder.encoder import InBedder
from adapters.inbedder.objective import AnswerPrediction
from adapters.inbedder.train import Recipe
from bench.data import load
from bench.errors import UsageError
from tests.adapters.checks import CPU, check_objective, train, write_rows

EXAMPLES = [
    AnswerExample("The cat sat on the mat.", "What sat?", "cat"),
    AnswerExample("Stock prices fell.", "What fell, and when?", "prices fell sharply"),
    AnswerExample("", "Which country won?", "Zürich"),
]


def test_function_words_are_removed_except_negations():
    assert strip_function_words("in the 10th and 11th centuries") == "10th 11th centuries"
    assert strip_function_words("I would not recommend it.") == "not recommend"
    assert strip_function_words("the") == "the"  # an answer of nothing else stays


def test_a_passage_is_shortened_to_whole_sentences_around_the_answer():
    passage = "First one here. The answer is blue. A third follows now. And a fourth one ends it."
    start = passage.index("blue")
    expected = {
        4: "The answer is blue.",
        7: "First one here. The answer is blue.",
        11: "First one here. The answer is blue. A third follows now.",
        1000: passage,
    }
    for words, text in expected.items():
        assert shorten_passage(passage, start, start + 4, words) == text
    assert shorten_passage("", 0, 0, 5) == ""


@pytest.mark.parametrize("kind", ["llama", "opt", "roberta"])
def test_the_answer_alone_is_predicted_and_by_a_decoder_its_end(networks, kind):
    tokenizer, masked = networks(kind).tokenizer, kind == "roberta"
    rows = tokenise_examples(networks(kind), EXAMPLES, 128)
    for row, example in zip(rows, EXAMPLES, strict=True):
        answers = row.answers if masked else row.answers[:-1]
        assert tokenizer.decode([row.ids[k] for k in answers]) == example.answer
        assert row.answers[-1] == len(row.ids) - 1 - masked  # the last </s> is not predicted
        assert row.ids[-1] == tokenizer.eos_token_id
        text = tokenizer.decode(row.ids[: row.answers[0]], skip_special_tokens=True)
        head = f"### Input:\n{example.input}\n\n" if example.input else ""
        assert text == f"{head}### Instruction:\n{example.instruction}\n\n### Response:"


def test_without_an_end_of_text_token_each_token_of_an_answer_is_predicted_once(networks):
    tokenizer = copy.deepcopy(networks("llama").tokenizer)
    tokenizer.eos_token = None
    rows = tokenise_examples(replace(networks("llama"), tokenizer=tokenizer), EXAMPLES, 128)
    for row, example in zip(rows, EXAMPLES, strict=True):
        assert row.answers == list(range(row.answers[0], len(row.ids)))
        assert tokenizer.decode([row.ids[k] for k in row.answers]) == example.answer


def test_an_answer_ends_right_after_its_words_where_a_tokenizer_adds_another_end(networks):
    tokenizer = copy.deepcopy(networks("llama").tokenizer)
    added = [("<|endoftext|>", tokenizer.convert_tokens_to_ids("<|endoftext|>"))]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|endoftext|>", special_tokens=added
    )
    expected = tokenise_examples(networks("llama"), EXAMPLES, 128)
    assert tokenise_examples(replace(networks("llama"), tokenizer=tokenizer), EXAMPLES, 128) == (
        expected
    )


def test_instructions_and_answers_are_in_the_overlap_with_test_texts(tiny, tmp_path):
    rows = []
    for i in range(8):
        text = f"Name {i} things that a person should eat every single day."
        rows.append({"input": "", "instruction": text, "output": f"{i} apples"})
    sources = str(write_rows(tmp_path / "alpaca.jsonl", rows))
    train(Recipe(str(tiny("llama")), sources, batch_size=2, **CPU), tmp_path / "out", 600)
    runs = InBedder(str(tmp_path / "out"), **CPU).runs()
    assert runs.find_overlaps([row["instruction"] for row in rows]).any()


def test_long_rows_lose_the_end_of_their_longest_part_and_braces_are_text(networks):
    network = networks("llama")
    long = AnswerExample("the cat " * 200, "What sat?", "cat")
    braces = AnswerExample("a {instruction} b", "Is {input} it?", "no")
    row, other = tokenise_examples(network, [long, braces], 128)
    assert 100 < len(row.ids) <= 128
    assert network.tokenizer.decode(row.ids).endswith(
        "\n\n### Instruction:\nWhat sat?\n\n### Response:cat<|im_end|>"
    )
    text = "a {instruction} b\n\n### Instruction:\nIs {input} it?"
    assert text in network.tokenizer.decode(other.ids)


@pytest.mark.parametrize("kind", ["opt", "roberta"])
def test_long_rows_are_cut_to_what_the_backbone_takes(tiny, tmp_path, kind):
    rows = [
        {"input": "the cat " * 100, "instruction": f"What sat {i} times?", "output": "cat"}
        for i in range(8)
    ]
    sources = str(write_rows(tmp_path / "long.jsonl", rows))
    card = train(Recipe(str(tiny(kind)), sources, batch_size=2, **CPU), tmp_path / "out", 600)
    assert card["rows"] == 5


def test_a_backbone_with_encoder_and_decoder_is_refused(tiny, tmp_path):
    sources = str(write_rows(tmp_path / "rows.jsonl", [{"question": "a b c", "answer": "d"}]))
    with pytest.raises(UsageError, match="inbedder requires a decoder or a masked"):
        train(Recipe(str(tiny("t5")), sources, **CPU), tmp_path / "out", 600)


@pytest.mark.parametrize("kind", ["llama", "roberta"])
def test_the_loss_and_gradient_are_those_of_each_row_alone(trainable, kind):
    network, weights = trainable(kind)
    rows = tokenise_examples(network, EXAMPLES, 128)
    losses = []
    for row in rows:
        ids = torch.tensor([row.ids])
        if kind == "roberta":
            ids[0, row.answers] = network.tokenizer.mask_token_id
        logits = network.model(input_ids=ids).logits[0].log_softmax(-1)
        places = row.answers if kind == "roberta" else [k - 1 for k in row.answers]
        losses += list(-logits[places, [row.ids[k] for k in row.answers]])
    spent = TokenCounts(sum(len(row.ids) for row in rows))
    objective = AnswerPrediction(network, rows, 0)
    check_objective(objective, torch.stack(losses).mean(), weights, spent, count=len(rows))


def test_sources_are_mixed_by_their_shares(tmp_path):
    squad = [
        {
            "context": f"It is {i}.",
            "question": f"What {i}?",
            "answers": {"text": [str(i)], "answer_start": [6]},
        }
        for i in range(100)
    ]
    alpaca = [
        {"input": f"text {i}", "instruction": "Say it.", "output": f"word{i}"} for i in range(100)
    ]
    sources = [
        AnswerSource(str(write_rows(tmp_path / "a.jsonl", squad)), share=3.0),
        AnswerSource(str(write_rows(tmp_path / "b.jsonl", alpaca))),
    ]
    options = {"rows": 40, "words": 60}
    examples, records = read_examples(sources, load, **options, seed=7)
    assert [record.rows for record in records] == [30, 10]
    assert examples[0].input == f"It is {examples[0].answer}."
    assert examples == read_examples(sources, load, **options, seed=7)[0]
    assert examples != read_examples(sources, load, **options, seed=8)[0]


@pytest.mark.skipif(
    "BENCH_DATA" not in os.environ, reason="requires the question answering sets in BENCH_DATA"
)
def test_the_packaged_backbone_learns_from_the_default_sources(tmp_path):
    card = train(Recipe(device="cpu"), tmp_path / "out", 4000)
    assert card["trained_tokens"] > 3000
    assert len(card["data"]) == len(OPEN)
    out = InBedder(str(tmp_path / "out"))
    assert out.card().backbone == Backbone(PACKAGED).card().backbone
