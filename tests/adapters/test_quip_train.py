"""QuIP's objectives against their formulae, the parsing of questions, and how stages are kept."""

import json
import random
import shutil
from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters._sharing import shareable
from adapters._training.budget import TokenCounts
from adapters.quip.data import Passage, Question, tokenize
from adapters.quip.encoder import QuIP, find_answers, make_head
from adapters.quip.generate import (
    ASK,
    SEPARATOR,
    make_generator_prompts,
    make_generator_rows,
    parse_questions,
    sample_outputs,
)
from adapters.quip.objective import (
    AnswerLabels,
    EncoderObjective,
    EncoderRow,
    GeneratorObjective,
    TeacherObjective,
    fold_scale,
    keep_largest,
    label_known_answers,
    make_teacher_rows,
    predict_answers,
)
from adapters.quip.train import Recipe
from bench.errors import DataError, UsageError
from tests.adapters.checks import CPU, check_objective, read_rows, train, write_rows
from tests.tiny import SENTENCES

ASKED = ("What is it?", "Which country won?", "Who plays, and when?")
PLAIN = [
    f"Anna lives in Oslo and plays the violin. It was a cold day in {2000 + i}." for i in range(9)
]
"""Passages on which nobody asked."""

PASSAGES = [
    Passage(
        "The cat sat on the mat.",
        (Question("What sat?", 4, 7), Question("Where did it sit?", 15, 22), Question("Unknown?")),
    ),
    Passage("Stock prices fell.", (Question("What fell?", 0, 12),)),
    Passage("Nothing is asked of it."),
]


def two_heads(out):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make_head(32, out), make_head(32, out)


def encode(network, ids):
    return network.hidden_states(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.long))[0]


def check(objective, expected, weights):
    spent = TokenCounts(sum(row.tokens for row in objective.rows))
    check_objective(objective, expected, weights, spent, count=len(objective.rows))


@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_the_generators_loss_is_that_of_each_answer_and_question_alone_with_its_passage(
    trainable, kind
):
    network, weights = trainable(kind)
    tokenizer, rows = network.tokenizer, make_generator_rows(network, PASSAGES)
    start = tokenizer("")["input_ids"][:1]
    losses = []
    for passage in PASSAGES:
        for question in passage.questions:
            if question.start < 0:
                continue
            text = f" {passage.text[question.start : question.end]}{SEPARATOR} {question.text}"
            prompt, ask, output = (
                tokenizer(part, add_special_tokens=False)["input_ids"]
                for part in (passage.text, ASK, text)
            )
            output.append(tokenizer.eos_token_id)
            ids = torch.tensor([[*start, *prompt, *ask, *output]])
            log_p = network.model(input_ids=ids).logits[0, -len(output) - 1 : -1].log_softmax(-1)
            losses += [-log_p[k, token] for k, token in enumerate(output)]
    check(GeneratorObjective(network, (), rows, 0), torch.stack(losses).mean(), weights)
    shared = [len(row.outputs) for row in rows]
    assert shared == ([2, 1] if shareable(network, 999) else [1, 1, 1])


def test_the_loss_of_a_generator_with_encoder_and_decoder_is_that_of_transformers(trainable):
    network, weights = trainable("bart")
    rows = make_generator_rows(network, PASSAGES)
    texts = [network.tokenizer.decode(row.outputs[0], skip_special_tokens=True) for row in rows]
    assert texts[0] == "cat\nQuestion: What sat?"
    total = sum(
        network.model(input_ids=torch.tensor([row.prompt]), labels=torch.tensor(row.outputs)).loss
        * row.terms
        for row in rows
    )
    expected = total / sum(row.terms for row in rows)
    check(GeneratorObjective(network, (), rows, 0), expected, weights)


@pytest.mark.parametrize("kind", ["llama", "roberta"])
def test_the_teachers_loss_and_probabilities_are_those_of_its_heads_over_the_passage(
    trainable, kind
):
    network, weights = trainable(kind)
    heads = two_heads(1)
    passages = [
        Passage(text, (Question(ASKED[i % 3], 0, 4),)) for i, text in enumerate(SENTENCES[:4])
    ]
    tokenized = tokenize(network, passages)
    rows = make_teacher_rows(network, tokenized)
    losses = []
    predicted = predict_answers(network, heads, rows, 64)
    for row, passage, found in zip(rows, tokenized, predicted, strict=True):
        assert row.ids[row.begin :] == passage.ids
        states = encode(network, row.ids)[row.begin :]
        for side, head in enumerate(heads):
            log_p = head(states)[:, 0].log_softmax(-1)
            np.testing.assert_allclose(found[side], log_p.exp().detach(), atol=1e-5, rtol=1e-4)
            losses.append(-log_p[passage.answers[0][side]])
    expected = torch.stack(losses).sum() / len(rows)
    check(TeacherObjective(network, heads, rows, 0), expected, weights)


@pytest.mark.parametrize("kind", ["llama", "opt", "roberta"])
def test_the_encoders_loss_is_the_cross_entropy_against_the_labels(trainable, kind):
    network, weights = trainable(kind)
    heads, draw = two_heads(32), np.random.default_rng(3)
    rows, losses = [], []
    for n, text in enumerate(SENTENCES[:5]):
        asked = tuple(Question(question) for question in ASKED[: 1 + n % 3])
        (passage,) = tokenize(network, [Passage(text, asked)])
        shape = (len(asked), 2, 8)
        labels = AnswerLabels(
            draw.integers(len(passage.ids), size=shape), draw.random(shape, np.float32) / 8
        )
        rows.append(EncoderRow(passage.ids, passage.questions, labels, text))
        r_c = encode(network, passage.ids)
        for q, question in enumerate(passage.questions):
            r_q = encode(network, question)[-1 if network.decoder else 0]
            for side, head in enumerate(heads):
                log_p = (0.1 * r_c @ head(r_q)).log_softmax(-1)
                probabilities = torch.from_numpy(labels.probabilities[q, side])
                losses.append(-(probabilities * log_p[labels.tokens[q, side]]).sum())
    expected = torch.stack(losses).sum() / sum(len(row.questions) for row in rows)
    for packed in {False, shareable(network, 999)}:
        objective = EncoderObjective(network, heads, rows, 0, packed=packed, scale=0.1)
        check(objective, expected, [*weights, *heads[1].parameters()])
    before = heads[0](r_q)
    fold_scale(heads, 0.25)
    torch.testing.assert_close(heads[0](r_q), 0.25 * before)


@given(st.integers(0, 2**32), st.integers(1, 20))
@settings(max_examples=40)
def test_the_kept_labels_are_the_largest_probabilities_and_zeros_fill_up(seed, t):
    both = np.random.default_rng(seed).random((2, t), np.float32)
    tokens, probabilities = (part[0] for part in keep_largest(both))
    assert tokens.shape == probabilities.shape == (2, 8)
    k = min(t, 8)
    np.testing.assert_array_equal(probabilities[:, :k], -np.sort(-both, axis=1)[:, :k])
    np.testing.assert_array_equal(np.take_along_axis(both, tokens, 1)[:, :k], probabilities[:, :k])
    assert not probabilities[:, k:].any()


@pytest.mark.parametrize("kind", ["llama", "roberta"])
def test_an_unknown_answer_is_the_first_token_if_that_is_special_else_left_out(networks, kind):
    rows = label_known_answers(tokenize(networks(kind), PASSAGES))
    special = kind == "roberta"
    assert [len(row.questions) for row in rows] == [3 if special else 2, 1]
    np.testing.assert_array_equal(rows[0].labels.probabilities.sum(-1), 1)
    if special:
        assert rows[0].labels.tokens[2, :, 0].tolist() == [0, 0]


@pytest.mark.parametrize("kind", ["llama", "bart"])
def test_written_questions_depend_on_seed_and_prompt(networks, kind, monkeypatch):
    network = networks(kind)
    prompts = make_generator_prompts(network, SENTENCES[:3])

    def draw(seed, some=slice(None)):
        numbers = range(3)[some]
        return sample_outputs(network, prompts[some], numbers, samples=3, top_p=0.9, seed=seed)

    drawn = draw(5)
    if kind == "bart":  # the settings that BART is published with do not change what is sampled
        monkeypatch.setattr(network.model.generation_config, "num_beams", 2)
    assert drawn == draw(5)
    assert drawn != draw(6)
    assert len({tuple(ids) for ids in drawn[0]}) == 3
    if kind == "llama":
        assert drawn[2:] == draw(5, slice(2, 3))
    specials = network.tokenizer.all_special_ids
    assert not any(set(ids) & set(specials) for some in drawn for ids in some)


def test_questions_are_parsed_with_the_place_of_their_answer():
    texts = ["cat\nQuestion: What  sat?", "dog\nQuestion: Who?", "cat", "cat\nQuestion: "]
    found = list(parse_questions("The cat sat.", texts))
    assert found == [Question("What sat?", 4, 7), Question("Who?", -1, -1)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with questions on forty people: where they live and what they play."""
    folder, draw, rows = tmp_path_factory.mktemp("quip-train"), random.Random(0), []
    for i in range(40):
        name, town = draw.choice(["Anna", "Ben", "Cleo"]), draw.choice(["Rome", "Oslo", "Lima"])
        thing = draw.choice(["violin", "piano"])
        text = f"{name} lives in {town} and plays the {thing}. It was a warm day in {1900 + i}."
        asked = {"Who plays?": name, "Where is it?": town, "What is played?": thing}
        for question, answer in asked.items():
            answers = {"text": [answer], "answer_start": [text.index(answer)]}
            rows.append({"context": text, "question": question, "answers": answers})
    write_rows(folder / "questions.jsonl", rows)
    (folder / "plain.txt").write_text("\n\n".join(PLAIN))
    return folder


@pytest.fixture(scope="module")
def small(place, tiny):
    """Return a recipe for a tiny backbone, which learns within a second or two."""

    def make(**changes):
        settings = {
            "generator": str(tiny("llama")), "sources": str(place / "questions.jsonl"),
            "passages": str(place / "plain.txt"), "lr": 1e-2, "lora": False, "batch_size": 4,
            "questions": 3, "generator_share": 3.0, "teacher_share": 2.0, "epochs": 4,
        }  # fmt: skip
        return Recipe(str(tiny("llama")), **CPU, **(settings | changes))

    return make


@pytest.fixture(scope="module")
def whole(place, small):
    train(small(), place / "whole", 4_000)
    return place / "whole"


def test_labels_are_the_teachers_largest_probabilities_question_by_question(whole):
    lines = read_rows(whole / "stages/labels.jsonl")
    numbers = sorted(number for line in lines for number in line["questions"])
    assert numbers == list(range(len(numbers)))
    for line in lines:
        assert np.shape(line["tokens"]) == (len(line["questions"]), 2, 8)
        sums = np.sum(line["probabilities"], axis=-1)
        assert ((sums > 0) & (sums < 1.01)).all()
    stages = {
        stage["stage"]: stage for stage in json.loads((whole / "card.json").read_text())["stages"]
    }
    assert list(stages) == ["generator", "questions", "teacher", "labels", "biencoder"]
    assert stages["labels"]["questions"] == stages["questions"]["questions"] == len(numbers) > 5


def test_damaged_stages_are_done_again(whole, small, tmp_path):
    out = shutil.copytree(whole, tmp_path / "out")
    (out / "card.json").unlink()
    names = ("stages/questions.jsonl", "stages/labels.jsonl", "stages/teacher/model.safetensors")
    names += tuple(path.name for path in out.glob("*.safetensors"))
    before = {name: (out / name).read_bytes() for name in names}
    for name, content in before.items():
        (out / name).write_bytes(content[:-40] + content[-20:])
    with pytest.raises(UsageError, match="other settings"):
        train(small(top_p=0.9), out, 4_000)
    train(small(), out, 4_000)
    assert {name: (out / name).read_bytes() for name in names} == before


def test_a_killed_last_stage_does_not_go_on_with_other_data_of_the_same_lengths(
    place, small, tmp_path
):
    def stop(what, done, total):
        if what == "quip: training" and done:
            raise KeyboardInterrupt

    file = tmp_path / "questions.jsonl"
    file.write_text((place / "questions.jsonl").read_text())
    recipe = small(human=1.0, sources=str(file))
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "out", 2_000, stop)
    file.write_text(file.read_text().replace(" in 1901.", " in 1910."))
    with pytest.raises(UsageError, match="other settings or data"):
        train(recipe, tmp_path / "out", 2_000)


def test_a_generator_with_an_encoder_writes_questions_on_plain_passages(small, tiny, tmp_path):
    changes = {"generator": str(tiny("bart")), "generator_share": 6.0, "human": 0.0, "epochs": 1}
    card = train(small(**changes), tmp_path, 2_000)
    encoder = QuIP(str(tmp_path), **CPU)
    assert encoder.runs().find_overlaps(PLAIN).any()
    questions = {stage["stage"]: stage for stage in card["stages"]}["questions"]
    assert questions["questions"] > 5  # the tiny generator has learnt the form


def test_people_alone_need_neither_generator_nor_teacher_and_teach_to_answer(small, tmp_path):
    card = train(small(human=1.0, generator_share=0.0, teacher_share=0.0), tmp_path, 16_000)
    assert [stage["stage"] for stage in card["stages"]] == ["biencoder"]
    assert card["inference_tokens"] == 0
    passage = "Cleo lives in Oslo and plays the piano. It was a warm day in 1950."
    asked = ["Who plays?", "Where is it?", "What is played?"]
    found = find_answers(QuIP(str(tmp_path), **CPU), [passage] * 3, asked)
    assert [answer.text for answer in found] == ["Cleo", "Oslo", "piano"]


def test_data_without_questions_and_a_generator_without_a_decoder_are_refused(
    small, tiny, tmp_path
):
    text = "Nobody asked anything about this passage, which is long enough to be written on."
    (tmp_path / "plain.txt").write_text(text)
    for changes in ({}, {"human": 1.0}):
        plain = small(sources=str(tmp_path / "plain.txt"), passages="", **changes)
        with pytest.raises(DataError, match="got none"):
            train(plain, tmp_path / "out", 4_000)
    with pytest.raises(UsageError, match="decoder"):
        train(small(generator=str(tiny("roberta"))), tmp_path / "out", 4_000)


def test_the_default_weights_are_of_the_default_recipe():
    recipe = QuIP().card().training["recipe"]
    stated = {name: value for name, value in asdict(Recipe()).items() if name in recipe}
    del stated["dtype"]  # "auto", which was bfloat16 on that machine
    assert {name: recipe[name] for name in stated} == stated


def test_teacher_and_encoder_answer_held_out_questions(small, tmp_path):
    rows = []
    for i in range(40):  # no two share eight words, so that some can be held out
        name, town = ("Anna", "Ben", "Cleo")[i % 3], ("Rome", "Oslo", "Lima")[i // 3 % 3]
        text = f"{name} of house {i} lives in {town} since {1900 + i} and plays number {i} daily."
        answers = {"text": [town], "answer_start": [text.index(town)]}
        rows.append({"context": text, "question": "Where is the house?", "answers": answers})
    sources = str(write_rows(tmp_path / "questions.jsonl", rows))
    shares = {"questions": 1, "generator_share": 0.3, "teacher_share": 0.3}
    card = train(small(sources=sources, passages="", **shares), tmp_path / "out", 800)
    assert set(card["kept_out"]) == {"questions", "teacher", "encoder"}
