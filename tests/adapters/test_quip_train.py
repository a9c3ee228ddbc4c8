"""QuIP's recipe: each stage against its formula, and all of them together from a file to an encoder."""

import itertools
import json
import random
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters._backbone import Backbone
from adapters._sharing import shareable
from adapters.quip.answering import answered
from adapters.quip.biencoder import Group, Pointing, folded, hard
from adapters.quip.encoder import QuIP, head
from adapters.quip.generator import (
    ASK,
    SEPARATOR,
    Translating,
    Writing,
    prompt_ids,
    targets,
    translations,
)
from adapters.quip.passages import Passage, Question
from adapters.quip.sampling import nucleus, sampled, written
from adapters.quip.selection import selected
from adapters.quip.teacher import Finding, Labels, likeliest, pair, predicted
from adapters.quip.tokens import passage_prompts, place, question_ids
from adapters.quip.train import Recipe
from bench.data import load
from bench.errors import DataError, UsageError
from bench.testing import run_checks
from tests.processes import children_seconds, trained_by_two
from tests.tiny import SENTENCES, tiny_folder

torch = pytest.importorskip("torch")

ASKED = ("What is it?", "Which country won?", "Who plays, and when?")


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    place_ = tmp_path_factory.mktemp("quip-train")
    folders = {
        kind: tiny_folder(kind, place_ / kind, head=True) for kind in ("llama", "opt", "roberta")
    }
    return {
        kind: Backbone(str(folder), head="lm", dtype="float32", device="cpu").load()
        for kind, folder in folders.items()
    }


@pytest.fixture
def questions(tmp_path):
    """Forty people: where they live and what they play."""
    draw, rows = random.Random(0), []
    for i in range(40):
        name, town, thing = (
            draw.choice(["Anna", "Ben", "Cleo"]),
            draw.choice(["Rome", "Oslo", "Lima"]),
            draw.choice(["violin", "piano"]),
        )
        text = f"{name} lives in {town} and plays the {thing}. It was a warm day in {1900 + i}."
        asked = [("Who plays?", name), ("Where is it?", town), ("What is played?", thing)]
        rows += [
            {
                "context": text,
                "question": q,
                "answers": {"text": [a], "answer_start": [text.index(a)]},
            }
            for q, a in asked
        ]
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def alone(network, ids):
    with torch.inference_mode():
        return (
            network.hidden_states(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.int64))[
                0
            ]
            .double()
            .numpy()
        )


def through(module, states):
    with torch.inference_mode():
        return module(torch.from_numpy(states).float()).double().numpy()


def log_softmax(scores):
    return scores - scores.max() - np.log(np.exp(scores - scores.max()).sum())


def two_heads(out, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return head(32, out), head(32, out)


def some_groups(network, rng):
    groups = []
    for n, text in enumerate(SENTENCES[:5]):
        (passage,), questions_ = (
            passage_prompts(network, [text], 456),
            question_ids(network, ASKED[: 1 + n % 3], 50),
        )
        places = rng.integers(len(passage.ids), size=(len(questions_), 2, 8))
        groups.append(
            Group(
                passage.ids,
                questions_,
                Labels(places, rng.random((len(questions_), 2, 8), np.float32) / 8),
            )
        )
    return groups


@pytest.mark.parametrize("kind", ["llama", "opt", "roberta"])
@pytest.mark.parametrize("together", [1, 2])
def test_the_encoders_loss_is_the_cross_entropy_against_the_labels_however_a_batch_is_cut(
    networks, kind, together
):
    network, (start, end) = networks[kind], two_heads(32)
    groups = some_groups(network, np.random.default_rng(3))
    total, asked = 0.0, 0
    for first in range(0, len(groups), together):
        unit = groups[first : first + together]
        tokens = [alone(network, group.passage) for group in unit]
        begins = np.cumsum([0, *map(len, tokens)])
        for k, group in enumerate(unit):
            for q, question in enumerate(group.questions):
                state = alone(network, question)[-1 if network.decoder else 0]
                for side, module in enumerate((start, end)):
                    logs = log_softmax(np.concatenate(tokens) @ through(module, state) * 0.1)
                    total -= (
                        group.labels.chances[q, side]
                        * logs[begins[k] + group.labels.places[q, side]]
                    ).sum()
                asked += 1
    for positions in (10_000, 60, 1):
        for packed in {False, shareable(network)}:
            objective = Pointing(
                network, (start, end), groups, positions, together, packed, network.decoder, 0.1
            )
            parts = [objective.loss(part) for part in objective.parts(range(5))]
            assert sum(loss.item() for loss, _ in parts) == pytest.approx(
                total / asked, rel=1e-4
            )  # float32 sums in another order
            assert sum(spent.trained for _, spent in parts) == sum(group.width for group in groups)


def test_folding_a_scale_into_the_heads_gives_the_scaled_vectors():
    heads, x = two_heads(32), torch.randn(4, 32, generator=torch.Generator().manual_seed(1))
    expected = [0.25 * module(x) for module in heads]
    folded(heads, 0.25)
    for module, wanted in zip(heads, expected, strict=True):
        torch.testing.assert_close(module(x), wanted)


@pytest.mark.parametrize("kind", ["llama", "roberta"])
def test_the_teachers_loss_and_probabilities_are_those_of_its_heads_over_the_passage(
    networks, kind
):
    network, heads = networks[kind], two_heads(1)
    prompts = passage_prompts(network, SENTENCES[:4], 456)
    asked = question_ids(network, [ASKED[i % 3] for i in range(4)], 50)
    rows = [
        pair(network, q, p.ids, (i, i + 1))
        for i, (q, p) in enumerate(zip(asked, prompts, strict=True))
    ]
    total = 0.0
    for row, prompt, found in zip(rows, prompts, predicted(network, heads, rows, 64), strict=True):
        assert row.ids[row.begin :] == prompt.ids
        states = alone(network, row.ids)[row.begin :]
        logs = np.stack([log_softmax(through(module, states)[:, 0]) for module in heads])
        np.testing.assert_allclose(found, np.exp(logs), atol=1e-5, rtol=1e-4)
        total -= logs[0, row.start] + logs[1, row.end]
    for positions in (10_000, 1):
        objective = Finding(network, heads, rows, positions)
        parts = [objective.loss(part) for part in objective.parts(range(4))]
        assert sum(loss.item() for loss, _ in parts) == pytest.approx(total / 4, rel=1e-4)
        assert sum(spent.trained for _, spent in parts) == sum(len(row.ids) for row in rows)


@given(st.integers(0, 2**32), st.integers(1, 20))
def test_the_likeliest_places_are_the_largest_probabilities_and_zeros_fill_up(seed, t):
    both = np.random.default_rng(seed).random((2, t), np.float32)
    places, chances = likeliest(both, 8)
    assert places.shape == chances.shape == (2, 8)
    k = min(t, 8)
    np.testing.assert_array_equal(chances[:, :k], -np.sort(-both, axis=1)[:, :k])
    np.testing.assert_array_equal(np.take_along_axis(both, places, 1)[:, :k], chances[:, :k])
    assert not chances[:, k:].any()


def test_labels_come_back_from_their_files_question_by_question(networks, tmp_path, monkeypatch):
    from adapters._training.loop import Training
    from adapters.quip import teacher

    network, heads = networks["llama"], two_heads(1)
    prompts = passage_prompts(network, SENTENCES, 456)
    rows = [
        pair(network, q, p.ids)
        for q, p in zip(question_ids(network, ["Who?"] * len(prompts), 50), prompts, strict=True)
    ]
    monkeypatch.setattr(teacher, "_SHARD", 3)
    settings = Training("quip labels", {"top": 4}, 10, 0)
    labels, took = teacher.relabelled(
        network, heads, rows, tmp_path / "labels", settings, 64, lambda *_: None
    )
    assert took["questions"] == len(rows) > 2 * 3  # several files, the longest rows first
    for n, both in enumerate(predicted(network, heads, rows, 64)):
        places, chances = likeliest(both, 4)
        np.testing.assert_array_equal(labels.places[n], places)
        np.testing.assert_allclose(labels.chances[n], chances, rtol=1e-3)  # kept as float16


def test_hard_labels_are_certain_of_one_place():
    labels = hard([(3, 5), (0, 0)], 8)
    np.testing.assert_array_equal(labels.places[:, :, 0], [[3, 5], [0, 0]])
    np.testing.assert_array_equal(labels.chances.sum(-1), 1)


@pytest.mark.parametrize("kind", ["llama", "roberta"])
def test_an_answer_is_placed_on_the_tokens_that_hold_it(networks, kind):
    network = networks[kind]
    for text in SENTENCES[:7]:
        (prompt,) = passage_prompts(network, [text], 456)
        for word in ("rain", "1984", "final", "bank", "São"):
            if (start := text.find(word)) >= 0:
                a, b = place(prompt.spans, start, start + len(word))
                assert text[prompt.spans[a, 0] : prompt.spans[b, 1]].strip() == word
        assert place(prompt.spans, -1, -1) is None
    (cut,) = passage_prompts(network, ["the cat sat on the mat"], 2)
    assert place(cut.spans, 15, 18) is None  # behind what was cut


PASSAGES = [
    Passage(
        "The cat sat on the mat.",
        (Question("What sat?", 4, 7), Question("Where did it sit?", 15, 22), Question("Unknown?")),
    ),
    Passage("Stock prices fell.", (Question("What fell?", 0, 12),)),
    Passage("Nothing is asked of it."),
]


@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_the_generators_loss_is_that_of_answers_and_questions_each_alone_with_its_passage(
    networks, kind
):
    network = networks[kind]
    tokenizer, rows = network.tokenizer, targets(networks[kind], PASSAGES, limit=456)
    start = tokenizer("")["input_ids"]
    logs, count = 0.0, 0
    for passage in PASSAGES:
        for question in passage.questions:
            if question.start < 0:
                continue
            text = f" {passage.text[question.start : question.end]}{SEPARATOR} {question.text}"
            parts = [
                tokenizer(part, add_special_tokens=False)["input_ids"]
                for part in (passage.text, ASK, text)
            ]
            own = [*parts[2], tokenizer.eos_token_id]
            ids = [*start[:1], *parts[0], *parts[1], *own]
            with torch.inference_mode():
                found = network.model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
            logs -= sum(float(found[k - 1, ids[k]]) for k in range(len(ids) - len(own), len(ids)))
            count += len(own)
    for positions in (10_000, 1):
        objective = Writing(network, rows, positions)
        parts = [objective.loss(part) for part in objective.parts(range(len(rows)))]
        assert sum(loss.item() for loss, _ in parts) == pytest.approx(logs / count, rel=1e-4)
    assert sum(len(row.targets) for row in rows) == count


def test_the_questions_of_a_passage_share_it_where_the_network_lets_them(networks):
    rows = targets(networks["llama"], PASSAGES, limit=456)
    assert len(rows) == 2
    ids = networks["llama"].tokenizer(PASSAGES[0].text)["input_ids"]
    assert rows[0].row.ids[: len(ids)] == ids
    assert max(rows[0].row.parts) == 3


@given(st.integers(0, 2**32), st.sampled_from([0.01, 0.6, 0.95, 1.0]), st.sampled_from([3, 400]))
def test_the_nucleus_is_the_fewest_likeliest_tokens_that_reach_its_probability(seed, top_p, v):
    rng = np.random.default_rng(seed)
    scores = torch.from_numpy(rng.normal(size=(1, v)).astype(np.float32)) * float(
        rng.choice([0.1, 3.0])
    )
    chances = scores[0].softmax(-1).numpy()
    order = np.argsort(-chances, kind="stable")
    number = int((np.cumsum(chances[order]) < top_p - 1e-5).sum()) + 1
    drawn = {
        int(nucleus(scores, torch.tensor([chance]), top_p))
        for chance in np.linspace(0, 0.9999, 50, dtype=np.float32)
    }
    assert drawn <= set(order[: number + 1].tolist())
    assert int(order[0]) in drawn


def test_samples_of_a_tiny_nucleus_are_the_likeliest_continuation_and_do_not_depend_on_company(
    networks,
):
    network = networks["llama"]
    prompts = prompt_ids(network, SENTENCES[:4], limit=456)
    together = sampled(network, prompts, range(4), samples=2, top_p=1e-6, seed=0)
    for prompt, (one, two) in zip(prompts, together, strict=True):
        ids = list(prompt)
        with torch.inference_mode():
            while len(ids) - len(prompt) < 56:
                ids.append(int(network.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
                if ids[-1] in network.tokenizer.all_special_ids:
                    ids.pop()
                    break
        assert one == two == ids[len(prompt) :]
    drawn = sampled(network, prompts, range(4), samples=3, top_p=0.9, seed=5)
    assert drawn[2:3] == sampled(network, prompts[2:3], [2], samples=3, top_p=0.9, seed=5)
    assert drawn != sampled(network, prompts, range(4), samples=3, top_p=0.9, seed=6)
    assert len({tuple(ids) for ids in drawn[0]}) == 3


def test_passages_that_are_kept_out_are_kept_out_whole_and_shares_are_kept(networks):
    passages = [
        Passage(
            f"The cat {i} sat on the mat. The dog {i} jumps over it.", (Question("Who?", 4, 7),)
        )
        for i in range(60)
    ]
    rest = [
        Passage(
            f"Nobody asked about the warm and funny film number {i}, which was surprisingly moving."
        )
        for i in range(60)
    ]
    data = selected(
        [*passages, *rest],
        networks["llama"],
        window=15,
        longest=99,
        positions=900,
        human=0.5,
        questions=2,
        seed=4,
    )
    assert len({p.text.split()[2] for p in data.kept_out}) == 3
    numbers = {p.text.split()[2] for p in data.kept_out}
    assert not numbers & {p.text.split()[2] for p in data.teaching}
    count = lambda texts: sum(len(networks["llama"].tokenizer(text)["input_ids"]) for text in texts)  # noqa: E731
    assert (
        440
        < count([p.text for p in data.human])
        + count([q.text for p in data.human for q in p.questions])
        < 480
    )
    assert 440 < count(data.texts) + 2 * 13 * len(data.texts) < 510
    assert not {p.text for p in data.human} & set(data.texts)


def recipe(file, place_, **changes):
    base = place_ / "base"
    if not base.exists():
        tiny_folder(changes.pop("kind", "llama"), base, head=True)
        tiny_folder("llama", place_ / "generator", head=True)
    changes = {
        "generator": str(place_ / "generator"),
        "lr": 1e-2,
        "lora": False,
        "batch_size": 4,
        "questions": 3,
        **changes,
    }
    changes = {"generator_share": 3.0, "teacher_share": 2.0, "epochs": 4, **changes}
    return Recipe(str(base), sources=str(file), device="cpu", dtype="float32", **changes)


def trained(out, made, progress=lambda *_: None, budget=15_000):
    made.train(out, budget=budget, seed=1, load=load, progress=progress)
    return json.loads((out / "card.json").read_text())


def stages(card):
    """Return what each stage took, by its name."""
    return {stage["stage"]: stage for stage in card["stages"]}


def weights(out):
    return {path.name: path.read_bytes() for path in sorted(out.glob("*.safetensors"))}


@pytest.mark.parametrize("kind", ["llama", "roberta"])
def test_all_stages_make_an_encoder_that_answers_and_keeps_the_contract(kind, tmp_path, questions):
    plain = [f"{a} {b}" for a, b in itertools.pairwise(SENTENCES)]  # on which nobody asked
    (tmp_path / "plain.txt").write_text("\n\n".join(plain))
    card = trained(
        tmp_path / "out",
        recipe(questions, tmp_path, kind=kind, passages=str(tmp_path / "plain.txt")),
    )
    assert 14_500 < card["trained_tokens"] <= 15_000
    took = stages(card)
    assert list(took) == ["generator", "questions", "teacher", "labels", "biencoder"]
    assert (
        card["inference_tokens"]
        == sum(stage["positions"] for name, stage in took.items() if name != "biencoder")
        > 10_000
    )
    assert (took["biencoder"]["positions"], took["biencoder"]["loss"]) == (
        card["trained_tokens"],
        card["loss"],
    )
    assert took["questions"]["questions"] > 20  # the tiny generator has learnt the form
    assert took["labels"]["questions"] == took["questions"]["questions"]
    assert card["loss"][-1][1] < card["loss"][0][1] - 2
    assert not (tmp_path / "out" / "state.pt").exists()
    encoder = QuIP(str(tmp_path / "out"), device="cpu", dtype="float32")
    assert encoder.card().trained
    assert encoder.card().training_tokens == card["trained_tokens"]
    assert encoder.runs().find_overlaps(plain).any()
    assert [outcome for outcome in run_checks(encoder) if outcome.status == "failed"] == []


@pytest.mark.parametrize("lora", [False, True])
def test_a_generator_may_read_with_an_encoder_and_write_with_a_decoder(tmp_path, questions, lora):
    generator = str(tiny_folder("bart", tmp_path / "bart", head=True))
    card = trained(
        tmp_path / "out",
        recipe(questions, tmp_path, generator=generator, generator_share=8.0, lora=lora),
        budget=6_000,
    )
    took = stages(card)
    assert took["generator"]["positions"] > 45_000
    if not lora:
        assert took["questions"]["questions"] > 10  # the tiny generator has learnt the form


def test_the_loss_of_a_generator_with_encoder_and_decoder_is_that_of_transformers(tmp_path):
    from transformers import GenerationConfig

    network = Backbone(
        str(tiny_folder("bart", tmp_path / "bart", head=True)),
        head="lm",
        dtype="float32",
        device="cpu",
    ).load()
    assert network.seq2seq
    passages = [
        Passage(
            "The cat sat on the mat.", (Question("Who sat?", 0, 7), Question("Where?", 11, 22))
        ),
        Passage("Rain."),
    ]
    rows = translations(network, passages, limit=4)
    texts = [network.tokenizer.decode(row.written, skip_special_tokens=True) for row in rows]
    assert texts == ["The cat\nQuestion: Who sat?", "on the mat\nQuestion: Where?"]
    assert [len(row.read) for row in rows] == [6, 6]  # four tokens between the special ones
    expected = sum(
        float(
            network.model(
                input_ids=torch.tensor([row.read]), labels=torch.tensor([row.written])
            ).loss
        )
        * len(row.written)
        for row in rows
    )
    for positions in (1_000, 1):
        objective = Translating(network, rows, positions)
        found = sum(float(objective.loss(part)[0]) for part in objective.parts([0, 1]))
        assert found == pytest.approx(expected / sum(len(row.written) for row in rows), rel=1e-5)
    drawn = sampled(network, [row.read for row in rows], [0, 1], samples=3, top_p=0.9, seed=1)
    assert drawn == sampled(
        network, [row.read for row in rows], [0, 1], samples=3, top_p=0.9, seed=1
    )
    assert drawn != sampled(
        network, [row.read for row in rows], [0, 1], samples=3, top_p=0.9, seed=2
    )
    assert [len(some) for some in drawn] == [3, 3]
    network.model.generation_config = GenerationConfig(
        num_beams=2, no_repeat_ngram_size=2
    )  # such as BART is published with
    assert drawn == sampled(
        network, [row.read for row in rows], [0, 1], samples=3, top_p=0.9, seed=1
    )


@pytest.mark.parametrize(
    ("changes", "budget"),
    [
        ({"lora": False}, 20_000),
        ({"lora": True}, 20_000),
        ({"human": 0.1}, 2_000),
        ({"human": 0.0, "epochs": 4}, 15_000),
    ],
    ids=["all", "lora", "taught", "paper"],
)
def test_weights_carry_the_runs_of_words_that_they_and_the_stages_before_them_learn_from(
    tmp_path, questions, changes, budget
):
    trained(
        tmp_path / "out",
        recipe(questions, tmp_path, **{"human": 1.0, "epochs": 1} | changes),
        budget=budget,
    )
    encoder = QuIP(str(tmp_path / "out"), device="cpu", dtype="float32")
    seen = [
        encoder.runs().find_overlaps([json.loads(line)["context"]])[0]
        for line in questions.read_text().splitlines()
    ]
    assert np.mean(seen) > 0.9
    assert not encoder.runs().find_overlaps(
        ["a text that was never seen and shares no run of eight words"]
    )[0]
    assert {"model_qa_head_start.safetensors", "model_qa_head_end.safetensors"} <= {
        p.name for p in (tmp_path / "out").iterdir()
    }


def test_people_alone_need_neither_generator_nor_teacher_and_teach_to_answer(tmp_path, questions):
    card = trained(tmp_path / "out", recipe(questions, tmp_path, human=1.0), budget=40_000)
    assert list(stages(card)) == ["biencoder"]
    assert card["inference_tokens"] == 0
    encoder = QuIP(str(tmp_path / "out"), device="cpu", dtype="float32")
    passage = "Cleo lives in Oslo and plays the piano. It was a warm day in 1950."
    found = answered(encoder, [passage] * 3, ["Who plays?", "Where is it?", "What is played?"])
    assert [answer.text for answer in found] == ["Cleo", "Oslo", "piano"]


@pytest.mark.parametrize(
    "changes",
    [{"labels": "hard"}, {"labels": "answers"}, {"together": 3}, {"attention": "bidirectional"}],
)
def test_every_variant_trains(tmp_path, questions, changes):
    card = trained(tmp_path / "out", recipe(questions, tmp_path, **changes), budget=6_000)
    assert card["recipe"] | changes == card["recipe"]
    assert ("teacher" in stages(card)) == (changes.get("labels") != "answers")
    network = QuIP(str(tmp_path / "out"), device="cpu", dtype="float32")._network()
    assert network.causal == (changes.get("attention") != "bidirectional")  # "auto" reads the card


STAGES = (
    "quip generator: training",
    "quip: writing questions",
    "quip teacher: training",
    "quip: relabelling",
    "quip: training",
)


def test_killed_at_any_stage_it_goes_on_to_the_same_weights(tmp_path, questions, monkeypatch):
    monkeypatch.setattr("adapters.quip.teacher._SHARD", 4)
    monkeypatch.setattr("adapters.quip.sampling._PASSAGES", 3)
    made = recipe(questions, tmp_path)
    trained(tmp_path / "whole", made, budget=6_000)
    out = tmp_path / "broken"
    for stage in STAGES:
        calls = []

        def stop(what, done, total, stage=stage, calls=calls):
            calls.append(what)
            if what == stage and calls.count(stage) == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            made.train(out, budget=6_000, seed=1, load=load, progress=stop)
        assert not (out / "card.json").exists()
        if stage == STAGES[1]:
            with (out / "stages" / "questions.jsonl").open("ab") as file:
                file.write(b'{"passages": [1, 2')  # a line that a kill cut off
    card = trained(out, made, budget=6_000)
    assert weights(out) == weights(tmp_path / "whole")
    ours, theirs = (
        (folder / "stages" / "questions.jsonl").read_text().splitlines()
        for folder in (out, tmp_path / "whole")
    )
    assert [json.loads(line)["written"] for line in ours] == [
        json.loads(line)["written"] for line in theirs
    ]
    assert stages(card)["labels"]["positions"] > 0


def test_labels_are_a_table_and_a_broken_one_is_named(tmp_path, questions):
    card = trained(tmp_path / "out", recipe(questions, tmp_path), budget=6_000)
    file = tmp_path / "out" / "stages" / "labels" / "00000.parquet"
    table = pd.read_parquet(file)
    assert sorted(table["question"]) == list(range(stages(card)["labels"]["questions"]))
    assert {len(row) for row in (*table["places"], *table["chances"])} == {
        2 * 8
    }  # eight starts, eight ends
    sums = np.stack(table["chances"]).astype(float).reshape(-1, 2, 8).sum(-1)
    assert ((sums > 0) & (sums < 1.01)).all()
    (tmp_path / "out" / "card.json").unlink()
    file.write_bytes(b"PAR1")
    with pytest.raises(DataError, match="delete the file"):
        trained(tmp_path / "out", recipe(questions, tmp_path), budget=6_000)


def test_stages_of_other_settings_are_refused(tmp_path, questions):
    trained(tmp_path / "out", recipe(questions, tmp_path), budget=6_000)
    with pytest.raises(UsageError, match="another recipe"):
        trained(tmp_path / "out", recipe(questions, tmp_path, questions=2), budget=6_000)
    (tmp_path / "out" / "card.json").unlink()
    with pytest.raises(UsageError, match="other settings"):
        trained(tmp_path / "out", recipe(questions, tmp_path, questions=2), budget=6_000)


def test_a_stage_that_was_killed_does_not_go_on_with_other_settings(
    tmp_path, questions, monkeypatch
):
    from adapters.quip import sampling

    drawn = sampling.sampled

    def killed(*args, **settings):
        if (tmp_path / "out" / "stages" / "questions.jsonl").stat().st_size:
            raise KeyboardInterrupt
        return drawn(*args, **settings)

    monkeypatch.setattr(sampling, "sampled", killed)
    monkeypatch.setattr(sampling, "_PASSAGES", 2)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "out", recipe(questions, tmp_path), budget=6_000)
    with pytest.raises(UsageError, match="other settings"):
        trained(tmp_path / "out", recipe(questions, tmp_path, top_p=0.9), budget=6_000)


def test_a_last_stage_that_was_killed_does_not_go_on_with_other_data_of_the_same_lengths(
    tmp_path, questions
):
    def stop(what, done, total):
        if what == "quip: training" and done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "out", recipe(questions, tmp_path, human=1.0), stop)
    questions.write_text(questions.read_text().replace(" in 1901.", " in 1910."))
    with pytest.raises(UsageError, match="other settings, data"):
        trained(tmp_path / "out", recipe(questions, tmp_path, human=1.0))


def test_questions_that_are_lost_are_written_again_and_broken_ones_are_named(tmp_path, questions):
    out, file = tmp_path / "out", tmp_path / "out" / "stages" / "questions.jsonl"
    trained(out, recipe(questions, tmp_path), budget=6_000)
    before = weights(out), [json.loads(line)["written"] for line in file.read_text().splitlines()]
    (out / "card.json").unlink()
    file.unlink()
    trained(out, recipe(questions, tmp_path), budget=6_000)
    assert (
        weights(out),
        [json.loads(line)["written"] for line in file.read_text().splitlines()],
    ) == before
    (out / "card.json").unlink()
    file.write_text("no JSON\n")
    with pytest.raises(DataError, match="delete the file"):
        trained(out, recipe(questions, tmp_path), budget=6_000)


def test_what_is_kept_out_shares_no_run_of_words_with_what_is_trained_on(networks):
    from adapters.quip.passages import Passage, Question
    from adapters.quip.selection import selected
    from bench.overlap import Ngrams

    shared = "Every excerpt here ends in the very same sentence of more than eight words."
    own = [
        Passage(
            f"Excerpt number {i} says that {i} is a number. {shared}", (Question("Which?", 15, 16),)
        )
        for i in range(40)
    ]
    apart = [
        Passage(
            f"Passage {i} stands {i} times {i} {i} {i} {i} {i} quite alone.",
            (Question("Which?", 8, 9),),
        )
        for i in range(40)
    ]
    made = selected(
        [*own, *apart],
        networks["llama"],
        window=200,
        longest=200,
        positions=9_000,
        human=0.5,
        questions=1,
        seed=0,
    )
    assert made.kept_out
    assert (
        not Ngrams.of([*(p.text for p in made.teaching), *made.texts])
        .find_overlaps([p.text for p in made.kept_out])
        .any()
    )
    assert not [p for p in made.kept_out if shared in p.text]


def test_a_generators_file_of_another_number_of_passages_is_not_mixed_in(
    tmp_path, questions, networks
):
    from adapters._training.loop import Training

    settings = {"questions": 2, "top_p": 0.6, "max_length": 100}
    one, two = (Training("quip questions", {**settings, "data": data}, 10, 0) for data in "ab")
    written(networks["llama"], SENTENCES[:2], tmp_path / "q.jsonl", one, lambda *_: None)
    with pytest.raises(UsageError):
        written(networks["llama"], SENTENCES[:2], tmp_path / "q.jsonl", two, lambda *_: None)


def test_settings_that_make_no_sense_are_one_line_errors(tmp_path, questions):
    wrong = (
        {"labels": "sof"},
        {"human": 1.5},
        {"top_p": 0.0},
        {"questions": 0},
        {"generator_share": 0.0},
        {"teacher_share": 0.0},
    )
    for changes in wrong:
        with pytest.raises(UsageError):
            trained(tmp_path / "out", recipe(questions, tmp_path, **changes))
    (tmp_path / "plain.txt").write_text(
        "Nobody asked anything about this passage, which is long enough to be written on by anyone.\n\nB.\n"
    )
    with pytest.raises(DataError, match="people's questions"):
        trained(tmp_path / "out", recipe(tmp_path / "plain.txt", tmp_path))
    with pytest.raises(DataError, match="got none"):
        trained(tmp_path / "out", recipe(tmp_path / "plain.txt", tmp_path, human=1.0))
    with pytest.raises(UsageError, match="has a decoder"):
        trained(
            tmp_path / "out",
            recipe(
                questions,
                tmp_path,
                generator=str(tiny_folder("roberta", tmp_path / "masked", head=True)),
            ),
        )


@pytest.mark.parametrize(
    "changes",
    [
        {"human": 1.0, "generator_share": 0.0, "teacher_share": 0.0},
        {"labels": "answers", "teacher_share": 0.0},
    ],
)
def test_what_a_training_has_no_use_for_may_have_no_share(changes):
    Recipe(**changes).check()


def test_two_processes_take_turns_and_return_when_the_checkpoint_is_whole(tmp_path, questions):
    made = recipe(questions, tmp_path, human=0.5)
    trained_by_two(made, tmp_path / "both", 3_000)
    alone, both = (
        trained(tmp_path / "alone", made, budget=3_000),
        json.loads((tmp_path / "both" / "card.json").read_text()),
    )
    assert both["trained_tokens"] == alone["trained_tokens"]
    assert stages(both)["questions"]["questions"] > 0
    assert both["loss"][0][1] == pytest.approx(
        alone["loss"][0][1], rel=0.02
    )  # rounding may change a written question


def command(out, *options):
    return [
        sys.executable,
        "-m",
        "bench",
        "train",
        "quip",
        "--out",
        str(out),
        "--device",
        "cpu",
        "--json",
        *options,
    ]


def test_a_training_killed_on_the_command_line_goes_on_to_the_same_weights(tmp_path, questions):
    made = recipe(questions, tmp_path)
    names = (
        "backbone",
        "generator",
        "sources",
        "lora",
        "batch_size",
        "generator_share",
        "teacher_share",
        "dtype",
    )
    settings = [
        f"{name}={json.dumps(value) if isinstance(value, bool) else value}"
        for name in names
        for value in [getattr(made, name)]
    ]
    options = ["--budget", "6000", *(part for text in settings for part in ("--set", text))]
    done = subprocess.run(
        command(tmp_path / "whole", *options), capture_output=True, text=True, timeout=170
    )
    assert done.returncode == 0, done.stderr
    for sign in ("stages/questions.jsonl", "state.pt"):
        with subprocess.Popen(
            command(tmp_path / "broken", *options),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as broken:
            while not (tmp_path / "broken" / sign).exists():
                assert broken.poll() is None
                time.sleep(0.005)
            broken.kill()
    assert not (tmp_path / "broken" / "card.json").exists()
    again = subprocess.run(
        command(tmp_path / "broken", *options), capture_output=True, text=True, timeout=170
    )
    assert again.returncode == 0, again.stderr
    assert weights(tmp_path / "broken") == weights(tmp_path / "whole")


def test_the_packaged_backbone_goes_through_all_stages_with_twenty_thousand_tokens_in_three_minutes_of_two_cores(
    tmp_path,
):
    rows = []
    for i in range(40):  # no run of eight words is in two of them, so that some can be kept out
        name, town = ("Anna", "Ben", "Cleo")[i % 3], ("Rome", "Oslo", "Lima")[i // 3 % 3]
        text = f"{name} of house {i} lives in {town} since {1900 + i} and plays the violin number {i} every day."
        asked = [("Who plays?", name), ("Where is the house?", town)]
        rows += [
            {
                "context": text,
                "question": q,
                "answers": {"text": [a], "answer_start": [text.index(a)]},
            }
            for q, a in asked
        ]
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ("--budget", "20000", "--set", f"sources={questions}")
    with children_seconds(2 * 180):
        made = subprocess.run(
            command(tmp_path / "out", *options), capture_output=True, text=True, timeout=900
        )  # a busy machine
    assert made.returncode == 0, made.stderr
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["trained_tokens"] > 19_000
    assert list(stages(card)) == ["generator", "questions", "teacher", "labels", "biencoder"]
    assert set(card["kept_out"]) == {"questions", "teacher", "encoder"}
    files = ("adapter_model", "model_qa_head_start", "model_qa_head_end")
    assert sum((tmp_path / "out" / f"{name}.safetensors").stat().st_size for name in files) < 12e6
    assert [
        outcome for outcome in run_checks(QuIP(str(tmp_path / "out"))) if outcome.status == "failed"
    ] == []
