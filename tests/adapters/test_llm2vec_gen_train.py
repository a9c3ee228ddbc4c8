"""LLM2Vec-Gen's objective against an independent computation, its data, stages and controls."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from adapters._files import tensors
from adapters._trainable import make_differentiable, replace_table
from adapters._training.budget import TokenCounts
from adapters._training.states import embed_rows
from adapters.llm2vec_gen import data
from adapters.llm2vec_gen.data import QUESTIONS, SENTENCES, Sample, draw_queries
from adapters.llm2vec_gen.encoder import CONFIG, WEIGHTS, AnswerLayers, LLM2VecGen
from adapters.llm2vec_gen.generate import Sampling, sample_answers
from adapters.llm2vec_gen.objective import GenerativeAlignment
from adapters.llm2vec_gen.train import SAMPLE, Recipe
from bench.data import load
from bench.errors import BenchError, DataError, UsageError
from bench.tasks import SUITES, load_suite
from tests.adapters.checks import (
    CLOSE,
    CPU,
    check_objective,
    draw,
    load_network,
    load_plain,
    read_plain,
    read_rows,
    train,
)
from tests.tiny import CHAT
from tests.tiny import SENTENCES as TEXTS

K, OUT = 3, 24
WORDS = " ".join(TEXTS).split()


@pytest.fixture(scope="module")
def folder(tiny):
    return tiny("llama", chat=CHAT, num_hidden_layers=2)


@pytest.fixture(scope="module")
def base(folder):
    return load_network(folder)


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """A file of texts of six random words."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("words") / "words.txt"
    path.write_text("\n\n".join(" ".join(rng.choice(WORDS, 6)) for _ in range(120)))
    return path


@pytest.fixture
def objective(base):
    layers = AnswerLayers(draw(K, 32, seed=1) / 4, OUT)
    samples = []
    for i, text in enumerate(TEXTS[:5]):
        ids = base.tokenizer(text)["input_ids"]
        samples.append(Sample(ids[: 4 + i], ids[4 + i : 10 + 3 * i]))
    targets = draw(5, OUT, seed=2) / 4
    return GenerativeAlignment(
        make_differentiable(base), layers, samples, targets, 0.5, 1.5, 0.7, 10_000
    )


def reference_losses(folder, made):
    """Return L_recon and L_align by plain transformers in float64, one sample at a time."""
    model = read_plain(folder, "AutoModelForCausalLM")[1].double()
    table = model.get_input_embeddings().weight.detach()
    layers, log_p, squares = made.layers, [], []
    r, a = layers.reconstruction, layers.alignment
    for (query, answer), target in zip(made.samples, made.targets, strict=True):
        inputs = torch.cat([table[query], layers.tokens.double()])[None]
        states = model.model(inputs_embeds=inputs).last_hidden_state[0, -K:]
        prompts = made.scale * states @ r.weight.double().T + r.bias.double()
        vectors = prompts @ a.weight.double().T + a.bias.double()
        squares.append(((vectors.mean(0) - target.double()) ** 2).mean())
        logits = model(inputs_embeds=torch.cat([prompts, table[answer]])[None]).logits[0]
        for j, token in enumerate(answer):  # y_1 is predicted at the last soft prompt
            log_p.append(logits[K - 1 + j].log_softmax(-1)[token])
    return -torch.stack(log_p).mean(), torch.stack(squares).mean()


def test_losses_gradients_and_tokens_match_the_reference(folder, objective):
    weights = list(objective.layers.parameters())
    reconstruction, alignment = reference_losses(folder, objective)
    encoded = sum(len(query) + K for query, _ in objective.samples)
    spent = TokenCounts(encoded + sum(K + len(answer) - 1 for _, answer in objective.samples))
    check_objective(objective, 1.5 * reconstruction + 0.7 * alignment, weights, spent, count=5)
    assert sum(objective.lengths()) == spent.trained
    alone = replace(objective, reconstruction=0.0)  # does not run the decoder
    check_objective(alone, 0.7 * alignment, weights, TokenCounts(encoded), count=5)


def test_only_the_new_tokens_and_two_layers_get_gradients(base, objective):
    (part,) = objective.parts(range(5))
    objective.loss(part)[0].backward()
    for network in (base, objective.frozen):
        assert all(w.grad is None for w in network.model.parameters())
        assert not any(w.requires_grad for w in network.model.parameters())
    with torch.device("meta"):  # the figure published for a backbone of four billion weights
        layers = AnswerLayers(torch.empty(10, 2560), 2560)
    assert sum(w.numel() for w in layers.parameters()) == 13_137_920


# --- data


def test_answers_depend_on_their_seed_alone_and_keep_the_token_that_ended_them(base, monkeypatch):
    prompts = [base.tokenizer(text)["input_ids"] for text in TEXTS]
    seeds = [[7, i] for i in range(len(prompts))]
    sampling = Sampling(12, 0.7, 0, 0.9)
    found, tokens = sample_answers(base, prompts, sampling, seeds)
    alone = [
        sample_answers(base, [p], sampling, [s])[0][0] for p, s in zip(prompts, seeds, strict=True)
    ]
    assert found == alone
    assert tokens >= sum(map(len, prompts[1:])) / 2
    greedy, _ = sample_answers(base, prompts, Sampling(12, 0.0, 0, 0.9), seeds)
    logits = base.model(torch.tensor([prompts[0]])).logits[0, -1]
    assert greedy[0][0] == int(logits.argmax())
    end = greedy[0][2]
    monkeypatch.setattr(base.model.generation_config, "eos_token_id", end)
    cut, _ = sample_answers(base, prompts, Sampling(12, 0.0, 0, 0.9), seeds)
    assert cut[0] == greedy[0][: greedy[0].index(end) + 1]


OPTIONS = {"count": 40, "most": 200, "around": ("", ""), "sentences": True, "seed": 3}


def test_half_of_the_queries_follow_an_instruction_that_fits_the_text(base):
    texts = [f"Who is number {i}? She is {i}. Too short." for i in range(40)]

    def draw_some(instructed=0.0, **options):
        return draw_queries(texts, base.tokenizer, instructed=instructed, **OPTIONS | options)

    queries = draw_some(0.5)
    assert len({query.text for query in queries}) == 40
    assert 10 < sum(bool(query.instruction) for query in queries) < 30
    for text, instruction, ids in queries:
        assert instruction in ("", *(QUESTIONS if text.endswith("?") else SENTENCES))
        assert base.tokenizer.decode(ids) == f"{instruction} {text}".strip()
    assert draw_some(0.5) == queries
    chat = draw_some(around=("<", ">"))
    assert all(base.tokenizer.decode(ids) == f"<{text}>" for text, _, ids in chat)
    assert {query.text for query in draw_some(sentences=False)} == set(texts)
    with pytest.raises(DataError, match="at most 3 tokens"):
        draw_some(most=3)


def test_no_instruction_of_the_training_is_one_that_embeddings_are_scored_with():
    scored = {task.instruction for name in SUITES for task in load_suite(name)}
    assert not scored & {*QUESTIONS, *SENTENCES}


def test_standardised_vectors_have_mean_zero_and_the_mean_vector_a_loss_of_one():
    vectors = np.random.default_rng(0).normal(3, 5, (50, 8)).astype(np.float32)
    target = data.standardise(vectors, 40)
    assert float(target.vectors[:40].square().mean()) == pytest.approx(1, rel=1e-5)
    assert float(target.vectors[:40].mean(0).abs().max()) < 1e-5
    restored = target.vectors * target.scale + target.mean
    np.testing.assert_allclose(restored.numpy(), vectors, rtol=1e-4, atol=1e-4)


def test_the_ridge_recovers_a_linear_map():
    inputs, weight = draw(300, 6, seed=1) / 4, draw(4, 6, seed=2) / 4
    found, bias, _ = data.fit_ridge(inputs, inputs @ weight.T + 2)
    torch.testing.assert_close(found, weight, atol=1e-3, rtol=1e-2)
    torch.testing.assert_close(bias, torch.full((4,), 2.0), atol=1e-3, rtol=1e-3)


# --- recipe


@pytest.fixture(scope="module")
def tiny_recipe(folder, words):
    options = {"teacher": f"backbone-mean:{folder}", "labelled": "no", "sources": str(words)}
    options |= {"k": K, "length": 40, "new_tokens": 8, "batch_size": 8, "samples": 60}
    return Recipe(str(folder), **CPU, **options)


@pytest.fixture(scope="module")
def whole(tiny_recipe, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "out"
    train(tiny_recipe, out, 4000)
    return out


def read_card(out):
    """Return the card, and its stages by name."""
    card = json.loads((out / "card.json").read_text())
    return card, {stage["stage"]: stage for stage in card["stages"]}


def test_answers_are_finished_where_their_last_token_ends_them(
    tiny_recipe, base, tmp_path, monkeypatch
):
    ends = list(range(0, len(base.tokenizer), 8))
    monkeypatch.setattr(base.model.generation_config, "eos_token_id", ends)
    train(tiny_recipe, tmp_path, 800)
    lines = read_rows(tmp_path / "stages/answers.jsonl")
    answers = [answer for line in lines for answer in line["answers"]]
    ended = [answer for answer in answers if answer[-1] in ends]
    assert {len(answer) for answer in ended} == set(range(1, 9))  # at the last one, too
    assert read_card(tmp_path)[1]["answers"]["finished"] == len(ended) < len(answers)


def test_the_card_counts_every_stage_and_measures_held_out_losses(whole):
    card, stages = read_card(whole)
    assert list(stages) == ["answers", "teacher", "start", "measuring", "training"]
    earlier = [stage for name, stage in stages.items() if name != "training"]
    assert card["inference_tokens"] == sum(stage["inference_tokens"] for stage in earlier)
    per_token = stages["answers"]["flops"] / stages["answers"]["inference_tokens"]
    assert stages["training"]["flops"] == 2 * per_token * card["trained_tokens"]
    assert card["teacher"]["labels"] is False
    started, ended = stages["start"]["held_out"], card["held_out"]
    assert ended["reconstruction"] < started["reconstruction"]
    assert started["alignment"] > 0
    assert set(ended) == {"alignment", "no_skill", "reconstruction", "from_another", "from_itself"}
    start = LLM2VecGen(str(whole / "stages/start"), **CPU, normalise=False)
    end = replace(start, checkpoint=str(whole))
    assert start.card().trained
    assert not np.allclose(start.encode(TEXTS), end.encode(TEXTS), atol=1e-3)


def test_the_written_layers_give_the_states_of_training(whole, folder):
    """The factor of the states is folded into R."""
    state = tensors(whole / WEIGHTS)
    tokenizer, model = load_plain(folder)
    table = model.get_input_embeddings().weight.detach()
    inputs = torch.cat([table[tokenizer(TEXTS[0])["input_ids"]], state["tokens"]])
    with torch.no_grad():
        states = model(inputs_embeds=inputs[None]).last_hidden_state[0, -K:]
        prompts = states @ state["reconstruction.weight"].T + state["reconstruction.bias"]
        expected = (prompts @ state["alignment.weight"].T + state["alignment.bias"]).mean(0)
    (found,) = LLM2VecGen(str(whole), **CPU, normalise=False).encode(TEXTS[:1])
    np.testing.assert_allclose(found, expected, **CLOSE)
    ratio = float(prompts.square().mean().sqrt() / table.square().mean().sqrt())
    assert 0.5 < ratio < 2  # soft prompts are as large as input embeddings


def test_a_backbone_that_scales_its_embeddings_gives_the_vectors_of_training(tiny):
    base = load_network(tiny("gemma"))
    table = base.model.get_input_embeddings()
    assert float(table(torch.tensor([5])).norm()) > 2 * float(table.weight[5].norm())
    ids, layers = base.tokenizer(TEXTS[0])["input_ids"], AnswerLayers(draw(K, 32, seed=1), OUT)
    made = GenerativeAlignment(base, layers, [], torch.empty(0), 1.0, 1.0, 1.0, 100)
    rows = range(len(table.weight), len(table.weight) + K)
    grown = replace_table(base, torch.cat([table.weight, layers.tokens.detach()]))
    whole = torch.tensor([[*ids, *rows]])
    expected = grown.hidden_states(whole, torch.ones_like(whole))[:, -K:]
    torch.testing.assert_close(made.read([ids]), expected, **CLOSE)
    first = draw(1, 32, seed=2).requires_grad_()  # in place of the padding token, which has none
    embed_rows(base, first).sum().backward()
    assert float(first.grad.abs().min()) > 1


@pytest.mark.parametrize("answers", ["shuffled", "text"])
def test_controls_have_other_answers(tiny_recipe, whole, tmp_path, answers):
    out = tmp_path / "out"
    if answers == "shuffled":  # of the same ones
        names = ("answers.json", "answers.jsonl")
        (out / "stages").mkdir(parents=True)
        for name in names:
            shutil.copy(whole / "stages" / name, out / "stages")
    train(replace(tiny_recipe, answers=answers), out, 800)
    own, other = (
        {row["text"]: row["answer"] for row in read_rows(place / SAMPLE)} for place in (whole, out)
    )
    assert own.keys() == other.keys()
    if answers == "text":
        assert all(text == answer for text, answer in other.items())
        assert not (out / "stages/answers.jsonl").exists()
    else:
        assert sorted(own.values()) == sorted(other.values())
        assert sum(own[text] == other[text] for text in own) < len(own) / 4


@pytest.mark.parametrize("changes", [{"k": K + 1}, {"lr": 1e-2}])
def test_a_start_of_other_settings_is_refused(tiny_recipe, whole, tmp_path, changes):
    shutil.copytree(whole / "stages", tmp_path / "stages")
    with pytest.raises(UsageError, match="other settings"):
        train(replace(tiny_recipe, **changes), tmp_path, 4000)


def test_random_layers_are_the_paper_s_start(tiny_recipe, tmp_path):
    train(replace(tiny_recipe, words="", standardise=False, chat=True), tmp_path, 800)
    assert not (tmp_path / "stages/start").exists()
    card, _ = read_card(tmp_path)
    assert card["teacher"]["scale"] == 1.0
    vectors = tensors(tmp_path / "stages/teacher.safetensors")["vectors"]
    trained = len(vectors) - round(0.1 * len(vectors))
    of_the_mean = (vectors[trained:] - vectors[:trained].mean(0)).square().mean()
    assert card["held_out"]["no_skill"] == pytest.approx(float(of_the_mean), abs=1e-4)
    assert json.loads((tmp_path / CONFIG).read_text())["chat"] is True


def test_a_teacher_that_saw_labels_marks_the_results(tiny_recipe, tmp_path):
    train(replace(tiny_recipe, labelled="yes", answers="text"), tmp_path / "out", 500)
    for place in ("out", "out/stages/start"):
        card = LLM2VecGen(str(tmp_path / place), device="cpu").card()
        assert card.distilled
    assert (card.training["method"], card.training_tokens) == ("llm2vec-gen", 0)
    for teacher in ("all-MiniLM-L6-v2", "llm2comp:FOLDER", "inbedder"):
        Recipe(teacher=teacher, labelled="yes").check()


def test_a_backbone_without_room_or_template_or_causal_attention_is_refused(
    tiny_recipe, tiny, tmp_path
):
    for changes, problem in (
        ({"length": 125}, "128 positions"),
        ({"backbone": str(tiny("llama"))}, "chat template"),
        ({"backbone": str(tiny("bert"))}, "decoder"),
        ({"teacher": "hasing"}, "teacher is a registered name"),
    ):
        with pytest.raises(UsageError, match=problem):
            train(replace(tiny_recipe, **changes), tmp_path / "out", 500)


def test_what_a_training_reads_includes_its_teacher(tiny_recipe, tmp_path):
    tiny_recipe.fetch(load)
    with pytest.raises(BenchError, match="gone"):
        replace(tiny_recipe, teacher=f"backbone-mean:{tmp_path / 'gone'}").fetch(load)
