"""InBedder's recipe: its rows, which tokens have a loss, and trainings on tiny models."""

import json
import os

import pytest

from adapters._backbone import PACKAGED, Backbone
from adapters._training.sources import parse_sources
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
from adapters.inbedder.train import PAPER, Recipe
from bench.data import load
from bench.errors import DataError, Unavailable
from bench.testing import run_checks
from tests.tiny import SENTENCES, tiny_folder

torch = pytest.importorskip("torch")

EXAMPLES = [
    AnswerExample("The cat sat on the mat.", "What sat?", "cat"),
    AnswerExample("Stock prices fell.", "What fell, and when?", "prices fell sharply"),
    AnswerExample("", "Which country won?", "Zürich"),
]


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    place, options = tmp_path_factory.mktemp("inbedder-train"), {"dtype": "float32"}
    found = {}
    for kind in ("llama", "opt", "roberta"):
        folder = tiny_folder(kind, place / kind, head=True)
        found[kind] = Backbone(str(folder), head="lm", device="cpu", **options).load()
    return found


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def questions(tmp_path):
    answers = [SENTENCES[i - 1].split()[-1] for i in range(len(SENTENCES))]
    pairs = zip(SENTENCES, answers, strict=True)
    rows = [{"question": text, "answer": answer} for text, answer in pairs]
    return write_rows(tmp_path / "questions.jsonl", rows)


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


@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_a_decoder_predicts_the_answer_and_the_end_only(networks, kind):
    tokenizer = networks[kind].tokenizer
    rows = tokenise_examples(networks[kind], EXAMPLES, 128)
    for row, example in zip(rows, EXAMPLES, strict=True):
        assert tokenizer.decode([row.ids[k] for k in row.answers[:-1]]) == example.answer
        assert row.answers[-1] == len(row.ids) - 1
        assert row.ids[-1] == tokenizer.eos_token_id
        text = tokenizer.decode(row.ids[: row.answers[0]], skip_special_tokens=True)
        head = f"### Input:\n{example.input}\n\n" if example.input else ""
        assert text == f"{head}### Instruction:\n{example.instruction}\n\n### Response:"


def test_a_masked_model_predicts_the_tokens_of_the_answer_only(networks):
    network = networks["roberta"]
    rows = tokenise_examples(network, EXAMPLES, 128)
    for row, example in zip(rows, EXAMPLES, strict=True):
        assert network.tokenizer.decode([row.ids[k] for k in row.answers]) == example.answer
        assert row.answers[-1] == len(row.ids) - 2  # the last </s> is not predicted


def test_long_rows_lose_the_end_of_their_longest_part_and_braces_are_text(networks):
    network = networks["llama"]
    long = AnswerExample("the cat " * 200, "What sat?", "cat")
    braces = AnswerExample("a {instruction} b", "Is {input} it?", "no")
    row, other = tokenise_examples(network, [long, braces], 128)
    assert 100 < len(row.ids) <= 128
    assert network.tokenizer.decode(row.ids).endswith(
        "\n\n### Instruction:\nWhat sat?\n\n### Response:cat<|im_end|>"
    )
    text = "a {instruction} b\n\n### Instruction:\nIs {input} it?"
    assert text in network.tokenizer.decode(other.ids)


@pytest.mark.parametrize("kind", ["llama", "roberta"])
def test_the_loss_and_gradient_are_those_of_each_row_alone(networks, kind):
    network = networks[kind]
    rows = tokenise_examples(network, EXAMPLES, 128)
    weight = network.model.base_model.get_input_embeddings().weight.requires_grad_()
    losses, count = [], 0
    for row in rows:
        ids = torch.tensor([row.ids])
        if kind == "roberta":
            ids[0, row.answers] = network.tokenizer.mask_token_id
        logits = network.model(input_ids=ids).logits[0].log_softmax(-1)
        places = row.answers if kind == "roberta" else [k - 1 for k in row.answers]
        losses.append(-logits[places, [row.ids[k] for k in row.answers]].sum())
        count += len(row.answers)
    expected = sum(losses) / count
    gradient = torch.autograd.grad(expected, weight)[0]
    for positions in (10_000, 60, 1):
        objective = AnswerPrediction(network, rows, positions)
        parts = [objective.loss(part) for part in objective.parts([0, 1, 2])]
        loss = sum(loss for loss, _ in parts)
        assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
        assert sum(spent.trained for _, spent in parts) == sum(len(row.ids) for row in rows)
        ours = torch.autograd.grad(loss, weight)[0]
        torch.testing.assert_close(ours, gradient, atol=1e-6, rtol=1e-3)
    weight.requires_grad_(requires_grad=False)


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
        AnswerSource(write_rows(tmp_path / "a.jsonl", squad), share=3.0),
        AnswerSource(write_rows(tmp_path / "b.jsonl", alpaca)),
    ]
    options = {"rows": 40, "words": 60}
    examples, records = read_examples(sources, load, **options, seed=7)
    assert [record.rows for record in records] == [30, 10]
    assert examples[0].input == f"It is {examples[0].answer}."
    assert examples == read_examples(sources, load, **options, seed=7)[0]
    assert examples != read_examples(sources, load, **options, seed=8)[0]


def test_unavailable_sources_are_skipped_unless_all_are(questions, caplog, tmp_path):
    def load_files(id, split, *, config="", columns=()):  # noqa: A002 - the hub's word
        if not id.endswith(".jsonl"):
            raise Unavailable(f"no {id}")
        return load(id, split, config=config, columns=columns)

    options = {"rows": 8, "words": 60, "seed": 0}
    sources = [OPEN[0], *parse_sources(questions, AnswerSource)]
    examples, records = read_examples(sources, load_files, **options)
    assert len(examples) == 8
    assert [record.id for record in records] == [questions]
    assert OPEN[0].id in caplog.text
    with pytest.raises(Unavailable, match="--set sources="):
        read_examples(OPEN, load_files, **options)
    other = write_rows(tmp_path / "x.jsonl", [{"text": "a"}])
    with pytest.raises(DataError, match="question-answering columns"):
        read_examples(parse_sources(other, AnswerSource), load, **options)


def test_paper_has_the_figures_of_the_released_script():
    assert PAPER.backbone == "meta-llama/Llama-2-7b-hf"
    assert PAPER.sources == "KomeijiForce/Inbedder-Pretrain-Data"
    assert (PAPER.lr, PAPER.batch_size, PAPER.max_length, PAPER.lora) == (2e-5, 64, 512, False)
    PAPER.check()
    encoder = InBedder()
    assert (encoder.masks, encoder.new_tokens, encoder.layer, encoder.max_length) == (3, 3, -1, 512)
    assert (encoder.temperature, encoder.top_p, encoder.top_k) == (0.8, 0.9, 50)


def make_recipe(base, questions, **changes):
    options = {"lr": 5e-3, "batch_size": 4, "device": "cpu", "dtype": "float32"}
    return Recipe(str(base), sources=questions, **options, **changes)


def run(recipe, out, budget, progress=lambda *_: None):
    return recipe.train(out, budget=budget, seed=1, load=load, progress=progress)


@pytest.mark.parametrize(("kind", "lora"), [("llama", True), ("roberta", False)])
def test_training_lowers_the_loss_and_its_checkpoint_meets_the_contract(
    kind, lora, tmp_path, questions
):
    base = tiny_folder(kind, tmp_path / "base", head=True)
    out = run(make_recipe(base, questions, lora=lora), tmp_path / "out", 2000)
    card = json.loads((out / "card.json").read_text())
    assert card["loss"][-1][1] < card["loss"][0][1] - 1
    assert 1800 < card["trained_tokens"] <= 2000
    assert not (out / "state.pt").exists()
    encoder = InBedder(str(out), device="cpu", dtype="float32")
    assert encoder.card().trained
    assert card["flops"] > 4000 * card["trained_tokens"]
    assert encoder.card().training_tokens == card["trained_tokens"]
    assert [outcome for outcome in run_checks(encoder) if outcome.status == "failed"] == []
    unseen = "an unseen text with more than eight words in it"
    assert encoder.runs().find_overlaps([SENTENCES[1], unseen]).tolist() == [True, False]


class InterruptedTrainingError(Exception):
    """Stands for a signal."""


def test_an_interrupted_training_resumes_to_the_same_weights(tmp_path, questions):
    recipe = make_recipe(tiny_folder("llama", tmp_path / "base", head=True), questions)

    def interrupt(_, done, __):
        if done == 3:
            raise InterruptedTrainingError

    whole = run(recipe, tmp_path / "whole", 1500)
    with pytest.raises(InterruptedTrainingError):
        run(recipe, tmp_path / "resumed", 1500, interrupt)
    steps = []
    resumed = run(recipe, tmp_path / "resumed", 1500, lambda what, done, _: steps.append(done))
    assert steps[:2] == [0, 1]  # the data is read, then the second step is next
    weights = "adapter_model.safetensors"
    assert (whole / weights).read_bytes() == (resumed / weights).read_bytes()


@pytest.mark.skipif(
    "BENCH_DATA" not in os.environ, reason="requires the question answering sets in BENCH_DATA"
)
def test_the_packaged_backbone_learns_from_the_default_sources(tmp_path):
    out = run(Recipe(device="cpu"), tmp_path / "out", 4000)
    card = json.loads((out / "card.json").read_text())
    assert card["trained_tokens"] > 3000
    assert len(card["data"]) == len(OPEN)
    assert InBedder(str(out)).card().backbone == Backbone(PACKAGED).card().backbone
