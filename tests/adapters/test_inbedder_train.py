"""InBedder's recipe: which rows it makes, which tokens carry the loss, and a training from a file to an encoder."""

import json
import os
import subprocess
import sys
import time

import pytest

from adapters._backbone import PACKAGED, Backbone
from adapters._training.sources import named
from adapters.inbedder.encoder import InBedder
from adapters.inbedder.train import Answering, Recipe, encoded
from adapters.inbedder.triples import OPEN, Triple, View, around, mixed, stripped
from bench.data import load
from bench.errors import DataError, Unavailable, UsageError
from bench.testing import run_checks
from tests.processes import trained_by_two
from tests.tiny import SENTENCES, tiny_folder

torch = pytest.importorskip("torch")

TRIPLES = [
    Triple("The cat sat on the mat.", "What sat?", "cat"),
    Triple("Stock prices fell.", "What fell, and when?", "prices fell sharply"),
    Triple("", "Which country won?", "Zürich"),
]


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    place = tmp_path_factory.mktemp("inbedder-train")
    folders = {
        kind: tiny_folder(kind, place / kind, head=True) for kind in ("llama", "opt", "roberta")
    }
    return {
        kind: Backbone(str(folder), head="lm", dtype="float32", device="cpu").load()
        for kind, folder in folders.items()
    }


@pytest.fixture
def questions(tmp_path):
    rows = [
        {"question": text, "answer": SENTENCES[i - 1].split()[1 % len(SENTENCES[i - 1].split())]}
        for i, text in enumerate(SENTENCES)
    ]
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_function_words_are_stripped_and_negations_stay():
    assert stripped("in the 10th and 11th centuries") == "10th 11th centuries"
    assert (
        stripped("I would not recommend it.") == "not recommend it."
        or stripped("I would not recommend it.") == "not recommend"
    )
    assert stripped("the") == "the"  # an answer of nothing else stays as it is


def test_a_passage_is_cut_to_whole_sentences_around_the_answer():
    passage = "First one here. The answer is blue. A third follows now. And a fourth one ends it."
    start = passage.index("blue")
    assert around(passage, start, start + 4, 4) == "The answer is blue."
    assert around(passage, start, start + 4, 7) == "First one here. The answer is blue."
    assert around(passage, start, start + 4, 1000) == passage
    assert around("", 0, 0, 5) == ""


@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_a_decoder_predicts_the_answer_and_the_end_and_nothing_else(networks, kind):
    tokenizer = networks[kind].tokenizer
    for row, triple in zip(encoded(networks[kind], TRIPLES, 128), TRIPLES, strict=True):
        assert tokenizer.decode([row.ids[k] for k in row.answers[:-1]]) == triple.answer
        assert row.answers[-1] == len(row.ids) - 1
        assert row.ids[-1] == tokenizer.eos_token_id
        text = tokenizer.decode(row.ids[: row.answers[0]], skip_special_tokens=True)
        head = f"### Input:\n{triple.input}\n\n" if triple.input else ""
        assert text == f"{head}### Instruction:\n{triple.instruction}\n\n### Response:"


@pytest.mark.parametrize("kind", ["llama", "roberta"])
def test_the_loss_is_the_cross_entropy_of_the_answers_however_a_batch_is_cut(networks, kind):
    network = networks[kind]
    rows = encoded(network, TRIPLES, 128)
    logs, count = 0.0, 0
    for row in rows:
        ids = torch.tensor([row.ids])
        if kind == "roberta":
            ids[0, row.answers] = network.tokenizer.mask_token_id
        logits = network.model(input_ids=ids).logits[0].log_softmax(-1)
        for k in row.answers:
            logs -= float(logits[k if kind == "roberta" else k - 1, row.ids[k]])
            count += 1
    for positions in (10_000, 60, 1):
        objective = Answering(network, rows, positions)
        parts = [objective.loss(part) for part in objective.parts([0, 1, 2])]
        assert sum(float(loss) for loss, _ in parts) == pytest.approx(logs / count, rel=1e-5)
        assert sum(spent.trained for _, spent in parts) == sum(len(row.ids) for row in rows)


def test_roberta_has_as_many_masks_as_answer_tokens(networks):
    network = networks["roberta"]
    for row, triple in zip(encoded(network, TRIPLES, 128), TRIPLES, strict=True):
        assert network.tokenizer.decode([row.ids[k] for k in row.answers]) == triple.answer
        assert row.answers[-1] == len(row.ids) - 2  # the last </s> is not predicted


def test_of_a_row_that_is_too_long_the_longest_part_is_cut(networks):
    tokenizer = networks["llama"].tokenizer
    (row,) = encoded(networks["llama"], [Triple("the cat " * 200, "What sat?", "cat")], 128)
    text = tokenizer.decode(row.ids)
    assert 100 < len(row.ids) <= 128
    assert "What sat?" in text
    assert text.endswith("cat<|im_end|>")


def test_braces_in_a_text_mean_nothing(networks):
    (row,) = encoded(networks["llama"], [Triple("a {instruction} b", "Is {input} it?", "no")], 128)
    assert "a {instruction} b\n\n### Instruction:\nIs {input} it?" in networks[
        "llama"
    ].tokenizer.decode(row.ids)


def test_sources_are_mixed_by_their_shares_and_the_seed_decides(tmp_path):
    def write(name, rows):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

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
    sources = [View(write("a.jsonl", squad), share=3.0), View(write("b.jsonl", alpaca))]
    made, material = mixed(sources, load, rows=40, words=60, seed=7)
    assert [m.rows for m in material] == [30, 10]
    assert made[0].input == f"It is {made[0].answer}."
    assert made == mixed(sources, load, rows=40, words=60, seed=7)[0]
    assert made != mixed(sources, load, rows=40, words=60, seed=8)[0]


def test_a_source_that_cannot_be_had_is_left_out_with_a_warning_and_none_at_all_is_an_error(
    questions, monkeypatch, caplog
):
    def only_the_file(id, split, *, config="", columns=()):  # noqa: A002 - the hub's word
        if not id.endswith(".jsonl"):
            raise Unavailable(f"no {id}")
        return load(id, split, config=config, columns=columns)

    made, material = mixed(
        [OPEN[0], *named(str(questions), View)], only_the_file, rows=8, words=60, seed=0
    )
    assert len(made) == 8
    assert [m.id for m in material] == [str(questions)]
    assert OPEN[0].id in caplog.text
    with pytest.raises(Unavailable, match="--set sources="):
        mixed(OPEN, only_the_file, rows=8, words=60, seed=0)


def test_a_file_without_question_answering_columns_is_an_error(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(DataError, match="question-answering columns"):
        mixed(named(str(tmp_path / "x.jsonl"), View), load, rows=8, words=60, seed=0)
    with pytest.raises(UsageError):
        named("a/b:c:d:e", View)


@pytest.mark.parametrize("kind", ["llama", "roberta"])
@pytest.mark.parametrize("lora", [True, False])
def test_training_lowers_the_loss_and_its_checkpoint_keeps_the_contract(
    kind, lora, tmp_path, questions
):
    base = tiny_folder(kind, tmp_path / "base", head=True)
    recipe = Recipe(
        str(base),
        sources=str(questions),
        lora=lora,
        lr=5e-3,
        batch_size=4,
        device="cpu",
        dtype="float32",
    )
    recipe.train(tmp_path / "out", budget=6_000, seed=1, load=load, progress=lambda *_: None)
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["loss"][-1][1] < card["loss"][0][1] - 1
    assert 5_800 < card["trained_tokens"] <= 6_000
    assert not (tmp_path / "out" / "state.pt").exists()
    encoder = InBedder(str(tmp_path / "out"), device="cpu", dtype="float32")
    assert encoder.card().trained
    assert encoder.card().training_tokens == card["trained_tokens"]
    assert [outcome for outcome in run_checks(encoder) if outcome.status == "failed"] == []
    if lora:
        assert encoder.runs().find_overlaps(
            [SENTENCES[1], "an unseen text with more than eight words in it"]
        ).tolist() == [True, False]


def test_two_processes_take_turns_and_return_when_the_checkpoint_is_whole(tmp_path, questions):
    base = tiny_folder("llama", tmp_path / "base", head=True)
    recipe = Recipe(
        str(base), sources=str(questions), lr=5e-3, batch_size=4, device="cpu", dtype="float32"
    )
    trained_by_two(recipe, tmp_path / "both", 1_000)
    recipe.train(tmp_path / "alone", budget=1_000, seed=1, load=load, progress=lambda *_: None)
    alone, both = (
        json.loads((tmp_path / name / "card.json").read_text()) for name in ("alone", "both")
    )
    assert both["trained_tokens"] == alone["trained_tokens"]
    assert [loss for _, loss in both["loss"]] == pytest.approx(
        [loss for _, loss in alone["loss"]], rel=1e-3
    )  # sums in another order


def command(out, *options):
    return [
        sys.executable,
        "-m",
        "bench",
        "train",
        "inbedder",
        "--out",
        str(out),
        "--device",
        "cpu",
        "--json",
        *options,
    ]


def test_a_training_killed_on_the_command_line_goes_on_to_the_same_weights(tmp_path, questions):
    base = tiny_folder("llama", tmp_path / "base", head=True)
    settings = [f"backbone={base}", f"sources={questions}", "batch_size=2", "dtype=float32"]
    options = ["--budget", "20000", *(part for text in settings for part in ("--set", text))]
    made = subprocess.run(
        command(tmp_path / "whole", *options), capture_output=True, text=True, timeout=170
    )
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["out"] == str(tmp_path / "whole")
    with subprocess.Popen(
        command(tmp_path / "broken", *options), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as broken:
        while not (
            tmp_path / "broken" / "state.pt"
        ).exists():  # there after the first of many steps
            assert broken.poll() is None
            time.sleep(0.01)
        broken.kill()
    assert not (tmp_path / "broken" / "card.json").exists()
    again = subprocess.run(
        command(tmp_path / "broken", *options), capture_output=True, text=True, timeout=170
    )
    assert again.returncode == 0, again.stderr
    ours, theirs = (
        (tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("whole", "broken")
    )
    assert ours == theirs


@pytest.mark.skipif(
    "BENCH_DATA" not in os.environ, reason="needs the question-answering sets in BENCH_DATA"
)
def test_the_packaged_backbone_learns_from_twenty_thousand_tokens(tmp_path):
    made = subprocess.run(
        command(tmp_path / "out", "--budget", "20000"), capture_output=True, text=True, timeout=900
    )  # a busy machine
    assert made.returncode == 0, made.stderr
    assert json.loads((tmp_path / "out" / "card.json").read_text())["trained_tokens"] > 19_000
    encoder = InBedder(str(tmp_path / "out"))
    assert encoder.card().backbone == Backbone(PACKAGED).card().backbone
    assert [outcome for outcome in run_checks(encoder) if outcome.status == "failed"] == []
