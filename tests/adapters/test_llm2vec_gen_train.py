"""LLM2Vec-Gen's recipe on tiny models: losses and gradients against an independent computation."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from adapters._backbone import Backbone
from adapters._files import tensors
from adapters._trainable import make_differentiable
from adapters._training.budget import TokenCounts
from adapters.llm2vec_gen import data
from adapters.llm2vec_gen.data import QUESTIONS, SENTENCES, Sample, draw_queries
from adapters.llm2vec_gen.encoder import CONFIG, WEIGHTS, AnswerLayers, LLM2VecGen
from adapters.llm2vec_gen.generate import Sampling, sample_answers
from adapters.llm2vec_gen.objective import GenerativeAlignment
from adapters.llm2vec_gen.train import PAPER, SAMPLE, Recipe
from bench.data import load
from bench.errors import BenchError, DataError, UsageError
from bench.tasks import SUITES, load_suite
from tests.tiny import CHAT, tiny_folder
from tests.tiny import SENTENCES as TEXTS

torch = pytest.importorskip("torch")

K, OUT = 3, 24
WORDS = " ".join(TEXTS).split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("gen-train") / "base"
    return tiny_folder("llama", place, head=True, chat=CHAT, num_hidden_layers=2)


@pytest.fixture(scope="module")
def base(folder):
    return Backbone(str(folder), head="lm", dtype="float32", device="cpu").load()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, 6)) for _ in range(120)]
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    path.write_text("\n\n".join(texts))
    return path


def draw(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) / 4


@pytest.fixture
def objective(base):
    layers = AnswerLayers(draw(K, 32, seed=1), OUT)
    samples = []
    for i, text in enumerate(TEXTS[:5]):
        ids = base.tokenizer(text)["input_ids"]
        samples.append(Sample(ids[: 4 + i], ids[4 + i : 10 + 3 * i]))
    targets = draw(5, OUT, seed=2)
    return GenerativeAlignment(
        make_differentiable(base), layers, samples, targets, 0.5, 1.5, 0.7, 10_000
    )


# --- independent computation: plain transformers in float64, one sample at a time


def reference_loss(folder, made):
    """Return 1.5 L_recon + 0.7 L_align of all samples."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").double()
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
    return -1.5 * torch.stack(log_p).mean() + 0.7 * torch.stack(squares).mean()


def test_losses_and_gradients_match_the_reference(folder, objective):
    weights = list(objective.layers.parameters())
    expected = reference_loss(folder, objective)
    gradients = torch.autograd.grad(expected, weights)
    encoded = sum(len(query) + K for query, _ in objective.samples)
    decoded = sum(K + len(answer) - 1 for _, answer in objective.samples)
    for positions in (10_000, 40, 1):
        step = replace(objective, positions=positions)
        parts = [step.loss(part) for part in step.parts(range(5))]
        loss = sum(loss for loss, _ in parts)
        assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
        for ours, wanted in zip(torch.autograd.grad(loss, weights), gradients, strict=True):
            torch.testing.assert_close(ours, wanted.float(), atol=1e-6, rtol=1e-3)
        spent = sum((spent for _, spent in parts), TokenCounts())
        assert spent == TokenCounts(encoded + decoded)
    assert sum(objective.lengths()) == encoded + decoded


def test_the_alignment_alone_does_not_run_the_decoder(objective):
    step = replace(objective, reconstruction=0.0)
    (part,) = step.parts(range(5))
    loss, spent = step.loss(part)
    assert spent.trained == sum(len(query) + K for query, _ in objective.samples)
    states = step.read([sample.query for sample in objective.samples])
    vectors = step.layers.vectors(step.layers.soft_prompts(states * 0.5))
    expected = 0.7 * (vectors.mean(1) - step.targets).square().mean()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_only_the_new_tokens_and_two_layers_get_gradients(base, objective):
    (part,) = objective.parts(range(5))
    objective.loss(part)[0].backward()
    assert all(float(w.grad.abs().max()) > 0 for w in objective.layers.parameters())
    for network in (base, objective.frozen):
        assert all(w.grad is None for w in network.model.parameters())
        assert not any(w.requires_grad for w in network.model.parameters())
    with torch.device("meta"):  # the figure published for a backbone of four billion weights
        layers = AnswerLayers(torch.empty(10, 2560), 2560)
    assert sum(w.numel() for w in layers.parameters()) == 13_137_920


def test_the_answer_is_easier_from_its_own_beginning_than_from_soft_prompts_of_others(base):
    """With a backbone that repeats, so that what it reads matters."""
    layers = AnswerLayers(draw(K, 32, seed=1), OUT)
    ids = base.tokenizer(TEXTS[0])["input_ids"][:8]
    made = GenerativeAlignment(base, layers, [], torch.zeros(0), 1.0, 1.0, 1.0, 1000)
    table = base.model.get_input_embeddings().weight
    with torch.no_grad():
        written = base.model(torch.tensor([ids])).logits[0, -1].argmax()
        own = made.surprise(table[ids][None], [[int(written)]])
        other = made.surprise(table[ids[::-1]][None], [[int(written)]])
    assert float(own) < float(other)


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
    queries = draw_queries(texts, base.tokenizer, instructed=0.5, **OPTIONS)
    assert len({query.text for query in queries}) == 40
    assert 10 < sum(bool(query.instruction) for query in queries) < 30
    for text, instruction, ids in queries:
        assert instruction in ("", *(QUESTIONS if text.endswith("?") else SENTENCES))
        assert base.tokenizer.decode(ids) == f"{instruction} {text}".strip()
    again = draw_queries(texts, base.tokenizer, instructed=0.5, **OPTIONS)
    assert again == queries
    chat = draw_queries(texts, base.tokenizer, instructed=0.0, **OPTIONS | {"around": ("<", ">")})
    assert all(base.tokenizer.decode(ids) == f"<{text}>" for text, _, ids in chat)
    whole = draw_queries(texts, base.tokenizer, instructed=0.0, **OPTIONS | {"sentences": False})
    assert {query.text for query in whole} == set(texts)
    with pytest.raises(DataError, match="at most 3 tokens"):
        draw_queries(texts, base.tokenizer, instructed=0.0, **OPTIONS | {"most": 3})


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
    inputs, weight = draw(300, 6, seed=1), draw(4, 6, seed=2)
    found, bias, _ = data.fit_ridge(inputs, inputs @ weight.T + 2)
    torch.testing.assert_close(found, weight, atol=1e-3, rtol=1e-2)
    torch.testing.assert_close(bias, torch.full((4,), 2.0), atol=1e-3, rtol=1e-3)


# --- recipe


def tiny_recipe(folder, corpus, **changes):
    options = {"teacher": f"backbone-mean:{folder}", "labelled": "no", "sources": str(corpus)}
    options |= {"k": K, "length": 40, "new_tokens": 8, "batch_size": 8, "samples": 60}
    return Recipe(str(folder), dtype="float32", device="cpu", **(options | changes))


def run(recipe, out, budget=4000, progress=lambda *_: None):
    return recipe.train(out, budget=budget, seed=1, load=load, progress=progress)


class InterruptedTrainingError(Exception):
    """Stands for a signal."""


@pytest.fixture(scope="module")
def whole(folder, corpus, tmp_path_factory):
    return run(tiny_recipe(folder, corpus), tmp_path_factory.mktemp("whole") / "out")


@pytest.mark.parametrize("stage", ["answers", "training"])
def test_an_interrupted_training_resumes_to_the_same_files(folder, corpus, whole, tmp_path, stage):
    def interrupt(what, done, _):
        if what == f"llm2vec-gen: {stage}" and done == (2 if stage == "training" else 0):
            raise InterruptedTrainingError

    recipe, out = tiny_recipe(folder, corpus), tmp_path / "out"
    with pytest.raises(InterruptedTrainingError):
        run(recipe, out, progress=interrupt)
    assert not (out / "card.json").exists()
    seen = []
    run(recipe, out, progress=lambda what, *_: seen.append(what))
    assert ("llm2vec-gen: answers" in seen) == (stage == "answers")
    assert ("llm2vec-gen: teacher" in seen) == (stage != "training")
    for name in (
        CONFIG,
        WEIGHTS,
        "runs.u64",
        SAMPLE,
        f"stages/start/{WEIGHTS}",
        "stages/answers.jsonl",
    ):
        assert (whole / name).read_bytes() == (out / name).read_bytes(), name
    assert not list(out.rglob("*.pt"))
    seen.clear()
    run(recipe, out, progress=lambda *what: seen.append(what))
    assert not seen
    with pytest.raises(UsageError, match="another budget"):
        run(recipe, out, 4001)


def test_answers_are_finished_where_their_last_token_ends_them(
    folder, corpus, base, tmp_path, monkeypatch
):
    ends = list(range(0, len(base.tokenizer), 8))
    monkeypatch.setattr(base.model.generation_config, "eos_token_id", ends)
    out = run(tiny_recipe(folder, corpus), tmp_path, 800)
    lines = (out / "stages/answers.jsonl").read_text().splitlines()
    answers = [answer for line in map(json.loads, lines) for answer in line["answers"]]
    ended = [answer for answer in answers if answer[-1] in ends]
    assert {len(answer) for answer in ended} == set(range(1, 9))  # at the last one, too
    stages = {s["stage"]: s for s in json.loads((out / "card.json").read_text())["stages"]}
    assert stages["answers"]["finished"] == len(ended) < len(answers)


def test_training_lowers_the_loss_and_its_card_counts_every_stage(whole, folder):
    card = json.loads((whole / "card.json").read_text())
    losses = np.asarray(card["loss"])[:, 1]
    quarter = len(losses) // 4
    assert losses[-quarter:].mean() < losses[:quarter].mean()
    assert 3800 < card["trained_tokens"] <= 4000
    stages = {stage["stage"]: stage for stage in card["stages"]}
    assert list(stages) == ["answers", "teacher", "start", "measuring", "training"]
    names = ("answers", "teacher", "start", "measuring")
    assert card["inference_tokens"] == sum(stages[name]["inference_tokens"] for name in names)
    per_token = stages["answers"]["flops"] / stages["answers"]["inference_tokens"]
    assert stages["training"]["flops"] == 2 * per_token * card["trained_tokens"]
    assert card["flops"] == sum(stage["flops"] for stage in stages.values())
    assert card["teacher"]["labels"] is False
    started, ended = stages["start"]["held_out"], card["held_out"]
    assert ended["reconstruction"] < started["reconstruction"]
    assert set(ended) == {"alignment", "no_skill", "reconstruction", "from_another", "from_itself"}
    encoder = LLM2VecGen(str(whole), device="cpu", dtype="float32")
    assert encoder.card().training_tokens == card["trained_tokens"]
    assert encoder.encode(TEXTS).shape == (len(TEXTS), 32)
    rows = [json.loads(line) for line in (whole / SAMPLE).read_text().splitlines()]
    known = encoder.runs().find_overlaps(
        [rows[0]["text"], "eight words that are not in any training text"]
    )
    assert not known[1]


def test_the_start_is_a_checkpoint_whose_alignment_is_the_one_measured(whole):
    stages = {s["stage"]: s for s in json.loads((whole / "card.json").read_text())["stages"]}
    start = LLM2VecGen(str(whole / "stages/start"), device="cpu", dtype="float32", normalise=False)
    end = replace(start, checkpoint=str(whole))
    assert start.card().trained
    assert not np.allclose(start.encode(TEXTS), end.encode(TEXTS), atol=1e-3)
    assert stages["start"]["held_out"]["alignment"] > 0


def test_the_written_layers_give_the_states_of_training(whole, base, folder, corpus):
    """The factor of the states is folded into R."""
    from safetensors.torch import load_file

    encoder = LLM2VecGen(str(whole), device="cpu", dtype="float32", normalise=False)
    state = load_file(whole / WEIGHTS)
    ids = base.tokenizer(TEXTS[0])["input_ids"]
    inputs = torch.cat([base.model.get_input_embeddings()(torch.tensor(ids)), state["tokens"]])
    with torch.no_grad():
        states = base.model.model(inputs_embeds=inputs[None]).last_hidden_state[0, -K:]
        prompts = states @ state["reconstruction.weight"].T + state["reconstruction.bias"]
        expected = (prompts @ state["alignment.weight"].T + state["alignment.bias"]).mean(0)
    np.testing.assert_allclose(encoder.encode(TEXTS[:1])[0], expected, atol=1e-5, rtol=1e-4)
    table = base.model.get_input_embeddings().weight
    ratio = float(prompts.square().mean().sqrt() / table.square().mean().sqrt())
    assert 0.5 < ratio < 2  # soft prompts are as large as input embeddings


@pytest.mark.parametrize("answers", ["shuffled", "text"])
def test_controls_have_other_answers(folder, corpus, whole, tmp_path, answers):
    out = tmp_path / "out"
    if answers == "shuffled":  # of the same ones
        shutil.copytree(whole / "stages", out / "stages")
        shutil.rmtree(out / "stages/start")
        for path in (out / "stages").glob("teacher*"):
            path.unlink()
    run(tiny_recipe(folder, corpus, answers=answers), out, 800)
    own, other = (
        {
            row["text"]: row["answer"]
            for row in map(json.loads, (place / SAMPLE).read_text().splitlines())
        }
        for place in (whole, out)
    )
    assert own.keys() == other.keys()
    if answers == "text":
        assert all(text == answer for text, answer in other.items())
        assert not (out / "stages/answers.jsonl").exists()
    else:
        assert sorted(own.values()) == sorted(other.values())
        assert sum(own[text] == other[text] for text in own) < len(own) / 4


def test_random_layers_are_the_paper_s_start(folder, corpus, tmp_path):
    out = run(tiny_recipe(folder, corpus, words="", standardise=False, chat=True), tmp_path, 800)
    assert not (out / "stages/start").exists()
    card = json.loads((out / "card.json").read_text())
    assert card["teacher"]["scale"] == 1.0
    vectors = tensors(out / "stages/teacher.safetensors")["vectors"]
    trained = len(vectors) - round(0.1 * len(vectors))
    of_the_mean = (vectors[trained:] - vectors[:trained].mean(0)).square().mean()
    assert card["held_out"]["no_skill"] == pytest.approx(float(of_the_mean), abs=1e-4)
    assert json.loads((out / CONFIG).read_text())["chat"] is True


def test_a_teacher_that_saw_labels_marks_the_results(folder, corpus, tmp_path):
    recipe = tiny_recipe(folder, corpus, labelled="yes", answers="text")
    encoder = LLM2VecGen(str(run(recipe, tmp_path / "out", 500)), device="cpu")
    start = replace(encoder, checkpoint=str(tmp_path / "out/stages/start"))
    for each in (encoder, start):
        assert each.card().distilled
    assert (start.card().training["method"], start.card().training_tokens) == ("llm2vec-gen", 0)
    for teacher in ("all-MiniLM-L6-v2", "llm2comp:FOLDER", "inbedder"):
        with pytest.raises(UsageError, match="labelled=yes"):
            Recipe(teacher=teacher).check()
        Recipe(teacher=teacher, labelled="yes").check()
    Recipe().check()


@pytest.mark.parametrize(
    "setting",
    [
        {"answers": "no"},
        {"labelled": "maybe"},
        {"decay": "none"},
        {"k": 0},
        {"new_tokens": 0},
        {"lr": 0.0},
        {"top_p": 0.0},
        {"instructed": 1.5},
        {"temperature": -1.0},
        {"reconstruction": 0.0, "alignment": 0.0},
        {"reconstruction": float("nan")},
    ],
)
def test_invalid_settings_are_refused(folder, corpus, setting):
    with pytest.raises(UsageError):
        tiny_recipe(folder, corpus, **setting).check()


def test_a_backbone_without_room_or_template_or_causal_attention_is_refused(
    folder, corpus, tmp_path
):
    bare, bert = (tiny_folder(kind, tmp_path / kind, head=True) for kind in ("llama", "bert"))
    for changes, words in (
        ({"length": 125}, "128 positions"),
        ({"backbone": str(bare)}, "chat template"),
        ({"backbone": str(bert)}, "decoder"),
        ({"teacher": "hasing"}, "teacher is a registered name"),
    ):
        with pytest.raises(UsageError, match=words):
            run(replace(tiny_recipe(folder, corpus), **changes), tmp_path / "out", 500)


def test_what_a_training_reads_includes_its_teacher(folder, corpus, tmp_path):
    recipe = tiny_recipe(folder, corpus)
    recipe.fetch(load)
    with pytest.raises(BenchError, match="gone"):
        replace(recipe, teacher=f"backbone-mean:{tmp_path / 'gone'}").fetch(load)


def test_paper_has_the_figures_of_the_released_configuration():
    assert (PAPER.k, PAPER.words, PAPER.chat, PAPER.standardise) == (10, "", False, False)
    assert (PAPER.batch_size, PAPER.samples) == (32, 5_000 * 32)
    assert (PAPER.lr, PAPER.decay, PAPER.reconstruction, PAPER.alignment) == (3e-4, "linear", 1, 1)
    assert (PAPER.length, PAPER.new_tokens) == (512, 500)
    assert round(PAPER.warmup * 5_000) == 100
    assert not PAPER.saw_labels
    PAPER.check()
