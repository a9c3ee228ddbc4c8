"""QuIP's recipe: each objective against its formula, and all stages from a file to an encoder."""

import json
import random
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters._backbone import Backbone
from adapters._sharing import shareable
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
from adapters.quip.train import PAPER, Recipe
from bench.data import load
from bench.errors import DataError, UsageError
from bench.testing import run_checks
from tests.tiny import SENTENCES, tiny_folder

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


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    place = tmp_path_factory.mktemp("quip-networks")
    found = {}
    for kind in ("llama", "opt", "roberta", "bart"):
        folder = str(tiny_folder(kind, place / kind, head=True))
        found[kind] = Backbone(folder, head="lm", dtype="float32", device="cpu").load()
    return found


def two_heads(out):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make_head(32, out), make_head(32, out)


def encode(network, ids):
    return network.hidden_states(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.long))[0]


def check_objective(objective, expected, weights):
    """Compare loss, gradients and counted tokens with an independent loss, however it is cut."""
    wanted = torch.autograd.grad(expected, weights, retain_graph=True)
    for positions in (10_000, 60, 1):
        cut = replace(objective, positions=positions)
        parts = [cut.loss(part) for part in cut.parts(range(len(cut.rows)))]
        loss = sum(loss for loss, _ in parts)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
        for ours, theirs in zip(torch.autograd.grad(loss, weights), wanted, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
        tokens = sum(spent.trained for _, spent in parts)
        assert tokens == sum(row.tokens for row in objective.rows)


@pytest.fixture
def trainable(networks):
    """Return a network with the weights of its first layer to take gradients of."""

    def prepare(kind):
        network = networks[kind]
        network.model.requires_grad_()
        names = [name for name, _ in network.model.named_parameters() if "0." in name]
        weights = [network.model.get_parameter(n) for n in names if "bias" not in n][:3]
        return network, weights

    yield prepare
    for network in networks.values():
        network.model.requires_grad_(requires_grad=False)


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
    check_objective(GeneratorObjective(network, (), rows, 0), torch.stack(losses).mean(), weights)
    shared = [len(row.outputs) for row in rows]
    assert shared == ([2, 1] if shareable(network) else [1, 1, 1])


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
    check_objective(GeneratorObjective(network, (), rows, 0), expected, weights)


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
    check_objective(TeacherObjective(network, heads, rows, 0), expected, weights)


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
    for packed in {False, shareable(network)}:
        objective = EncoderObjective(network, heads, rows, 0, packed=packed, scale=0.1)
        check_objective(objective, expected, [*weights, *heads[1].parameters()])
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
    rows = label_known_answers(tokenize(networks[kind], PASSAGES))
    special = kind == "roberta"
    assert [len(row.questions) for row in rows] == [3 if special else 2, 1]
    np.testing.assert_array_equal(rows[0].labels.probabilities.sum(-1), 1)
    if special:
        assert rows[0].labels.tokens[2, :, 0].tolist() == [0, 0]


@pytest.mark.parametrize("kind", ["llama", "bart"])
def test_written_questions_depend_on_seed_and_prompt(networks, kind):
    network = networks[kind]
    prompts = make_generator_prompts(network, SENTENCES[:3])

    def draw(seed, some=slice(None)):
        numbers = range(3)[some]
        return sample_outputs(network, prompts[some], numbers, samples=3, top_p=0.9, seed=seed)

    drawn = draw(5)
    if kind == "bart":  # the settings that BART is published with do not change what is sampled
        network.model.generation_config.num_beams = 2
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


def test_paper_has_the_papers_settings():
    stated = {
        "window": 456, "questions": 10, "top_p": 0.6, "labels": "soft", "human": 0.0,
        "epochs": 2, "lr": 1e-5, "lora": False,
    }  # fmt: skip
    assert {name: getattr(PAPER, name) for name in stated} == stated
    assert "roberta-large" in PAPER.backbone
    assert "bart-large" in PAPER.generator
    PAPER.check()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with tiny backbones and forty people: where they live and what they play."""
    folder, draw, rows = tmp_path_factory.mktemp("quip-train"), random.Random(0), []
    for kind in ("llama", "roberta", "bart"):
        tiny_folder(kind, folder / kind, head=True)
    for i in range(40):
        name, town = draw.choice(["Anna", "Ben", "Cleo"]), draw.choice(["Rome", "Oslo", "Lima"])
        thing = draw.choice(["violin", "piano"])
        text = f"{name} lives in {town} and plays the {thing}. It was a warm day in {1900 + i}."
        for question, answer in (
            ("Who plays?", name), ("Where is it?", town), ("What is played?", thing),
        ):  # fmt: skip
            answers = {"text": [answer], "answer_start": [text.index(answer)]}
            rows.append({"context": text, "question": question, "answers": answers})
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "plain.txt").write_text("\n\n".join(PLAIN))
    return folder


def small(place, kind="llama", **changes):
    """Return a recipe for a tiny backbone, which learns within a second or two."""
    settings = {
        "generator": str(place / "llama"), "sources": str(place / "questions.jsonl"),
        "passages": str(place / "plain.txt"), "lr": 1e-2, "lora": False, "batch_size": 4,
        "questions": 3, "generator_share": 3.0, "teacher_share": 2.0, "epochs": 4,
    }  # fmt: skip
    settings |= changes
    return Recipe(str(place / kind), device="cpu", dtype="float32", **settings)


def train(out, recipe, progress=lambda *_: None, budget=4_000):
    recipe.train(out, budget=budget, seed=1, load=load, progress=progress)
    return json.loads((out / "card.json").read_text())


def stages(card):
    """Return what each stage took, by its name."""
    return {stage["stage"]: stage for stage in card["stages"]}


def weights_in(out):
    return {path.name: path.read_bytes() for path in sorted(out.glob("*.safetensors"))}


def encoder_in(out):
    return QuIP(str(out), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def chunked():
    """Let a kill cost few passages and questions, so that it falls between two chunks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("adapters.quip.train._PASSAGES", 2)
        patch.setattr("adapters.quip.train._QUESTIONS", 2)
        yield


@pytest.fixture(scope="module")
def whole(place, chunked):
    train(place / "whole", small(place))
    return place / "whole"


def test_all_stages_make_an_encoder_that_keeps_the_contract(whole, place):
    card = json.loads((whole / "card.json").read_text())
    took = stages(card)
    assert list(took) == ["generator", "questions", "teacher", "labels", "biencoder"]
    assert 3_500 < card["trained_tokens"] == took["biencoder"]["positions"] <= 4_000
    before = sum(stage["positions"] for name, stage in took.items() if name != "biencoder")
    assert card["inference_tokens"] == before > 15_000
    assert card["flops"] == sum(stage["flops"] for stage in took.values())
    assert all(stage["flops"] > 1000 * stage["positions"] for stage in took.values())
    assert took["labels"]["questions"] == took["questions"]["questions"] > 5  # it learnt the form
    assert card["loss"][-1][1] < card["loss"][0][1] - 1
    assert not list(whole.rglob("state.pt"))
    encoder = encoder_in(whole)
    assert encoder.card().trained
    assert encoder.card().training_tokens == card["trained_tokens"]
    lines = (place / "questions.jsonl").read_text().splitlines()
    contexts = [json.loads(line)["context"] for line in lines]
    assert np.mean(encoder.runs().find_overlaps(contexts)) > 0.9
    assert not encoder.runs().find_overlaps(["a text that shares no eight words with any other"])[0]
    assert [outcome for outcome in run_checks(encoder) if outcome.status == "failed"] == []


def test_labels_are_the_teachers_largest_probabilities_question_by_question(whole):
    lines = [json.loads(line) for line in (whole / "stages/labels.jsonl").read_text().splitlines()]
    numbers = sorted(number for line in lines for number in line["questions"])
    assert len(lines) > 2
    assert numbers == list(range(len(numbers)))
    for line in lines:
        assert np.shape(line["tokens"]) == (len(line["questions"]), 2, 8)
        sums = np.sum(line["probabilities"], axis=-1)
        assert ((sums > 0) & (sums < 1.01)).all()


STAGES = (
    "quip generator: training", "quip: questions", "quip teacher: training", "quip: labels",
    "quip: training",
)  # fmt: skip


def test_killed_at_any_stage_it_goes_on_to_the_same_weights(whole, place, tmp_path):
    out = tmp_path / "out"
    for stage in STAGES:
        calls = []

        def stop(what, done, total, stage=stage, calls=calls):
            calls.append(what)
            if what == stage and calls.count(stage) == 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(out, small(place), stop)
        if stage == STAGES[1]:
            with (out / "stages/questions.jsonl").open("ab") as file:
                file.write(b'{"passages": [1, 2')  # a line that a kill cut off
            with pytest.raises(UsageError, match="other settings"):
                train(out, small(place, top_p=0.9))
    train(out, small(place))
    assert weights_in(out) == weights_in(whole)
    for name in ("questions.jsonl", "labels.jsonl"):
        assert (out / "stages" / name).read_bytes() == (whole / "stages" / name).read_bytes()
    with pytest.raises(UsageError, match="another recipe"):
        train(out, small(place, questions=2))


def test_a_killed_last_stage_does_not_go_on_with_other_data_of_the_same_lengths(place, tmp_path):
    def stop(what, done, total):
        if what == "quip: training" and done:
            raise KeyboardInterrupt

    file = tmp_path / "questions.jsonl"
    file.write_text((place / "questions.jsonl").read_text())
    recipe = small(place, human=1.0, sources=str(file))
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "out", recipe, stop)
    file.write_text(file.read_text().replace(" in 1901.", " in 1910."))
    with pytest.raises(UsageError, match="other settings or data"):
        train(tmp_path / "out", recipe)


def test_damaged_stages_are_done_again(whole, place, chunked, tmp_path):
    out = shutil.copytree(whole, tmp_path / "out")
    (out / "card.json").unlink()
    names = ("questions.jsonl", "labels.jsonl", "teacher/model.safetensors")
    before = {name: (out / "stages" / name).read_bytes() for name in names}
    for name, content in before.items():
        (out / "stages" / name).write_bytes(content[:-40] + content[-20:])
    train(out, small(place))
    for name, content in before.items():
        assert (out / "stages" / name).read_bytes() == content
    assert weights_in(out) == weights_in(whole)


VARIANTS = {
    "encoder": {"kind": "roberta", "labels": "hard", "lora": True},
    "answers": {"attention": "bidirectional", "labels": "answers", "teacher_share": 0.0},
    "bart": {"generator": "bart", "generator_share": 6.0, "human": 0.0, "epochs": 1},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_trains(place, tmp_path, name):
    changes = dict(VARIANTS[name])
    if "generator" in changes:
        changes["generator"] = str(place / changes["generator"])
    card = train(tmp_path, small(place, **changes), budget=2_000)
    took = stages(card)
    assert ("teacher" in took) == ("labels" in took) == (name != "answers")
    network = encoder_in(tmp_path)._network()
    assert network.causal == (name == "bart")  # "auto" reads the card
    if name == "bart":
        assert encoder_in(tmp_path).runs().find_overlaps(PLAIN).any()
        assert took["questions"]["questions"] > 5  # the tiny generator has learnt the form


def test_people_alone_need_neither_generator_nor_teacher_and_teach_to_answer(place, tmp_path):
    recipe = small(place, human=1.0, generator_share=0.0, teacher_share=0.0)
    card = train(tmp_path, recipe, budget=25_000)
    assert list(stages(card)) == ["biencoder"]
    assert card["inference_tokens"] == 0
    passage = "Cleo lives in Oslo and plays the piano. It was a warm day in 1950."
    asked = ["Who plays?", "Where is it?", "What is played?"]
    found = find_answers(encoder_in(tmp_path), [passage] * 3, asked)
    assert [answer.text for answer in found] == ["Cleo", "Oslo", "piano"]


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": "sof"},
        {"human": 1.5},
        {"top_p": 0.0},
        {"questions": 0},
        {"window": 457},
        {"generator_share": 0.0},
        {"teacher_share": 0.0},
    ],
)
def test_invalid_settings_are_usage_errors(changes):
    with pytest.raises(UsageError):
        Recipe(**changes).check()


def test_data_without_questions_and_a_generator_without_a_decoder_are_refused(place, tmp_path):
    text = "Nobody asked anything about this passage, which is long enough to be written on."
    (tmp_path / "plain.txt").write_text(text)
    for changes in ({}, {"human": 1.0}):
        plain = small(place, sources=str(tmp_path / "plain.txt"), passages="", **changes)
        with pytest.raises(DataError, match="got none"):
            train(tmp_path / "out", plain)
    with pytest.raises(UsageError, match="decoder"):
        train(tmp_path / "out", small(place, generator=str(place / "roberta")))


def test_the_default_weights_are_of_the_default_recipe():
    recipe = QuIP().card().training["recipe"]
    stated = {name: value for name, value in asdict(Recipe()).items() if name in recipe}
    del stated["dtype"]  # "auto", which was bfloat16 on that machine
    assert {name: recipe[name] for name in stated} == stated


def test_teacher_and_encoder_answer_held_out_questions(tmp_path, place):
    rows = []
    for i in range(40):  # no two share eight words, so that some can be held out
        name, town = ("Anna", "Ben", "Cleo")[i % 3], ("Rome", "Oslo", "Lima")[i // 3 % 3]
        text = f"{name} of house {i} lives in {town} since {1900 + i} and plays number {i} daily."
        answers = {"text": [town], "answer_start": [text.index(town)]}
        rows.append({"context": text, "question": "Where is the house?", "answers": answers})
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sources = {"sources": str(tmp_path / "questions.jsonl"), "passages": ""}
    shares = {"questions": 1, "generator_share": 0.3, "teacher_share": 0.3}
    card = train(tmp_path / "out", small(place, **sources, **shares), budget=800)
    assert set(card["kept_out"]) == {"questions", "teacher", "encoder"}
