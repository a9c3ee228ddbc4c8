"""LLM2Comp's recipe on tiny models: losses and gradients against an independent computation."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch as safetensors
from typer.testing import CliRunner

from adapters._backbone import Backbone
from adapters._text import Framed
from adapters._trainable import fork_seed, set_dropout
from adapters._training.budget import TokenCounts
from adapters._training.contrast import info_nce, tokenise
from adapters._training.loop import Training, _step
from adapters._training.processes import launched
from adapters._training.sources import parse_sources
from adapters._training.states import embed_ids
from adapters._training.texts import TextSource, list_sentences, read_texts
from adapters.llm2comp import data, train
from adapters.llm2comp.data import INSTRUCTIONS, MARGIN, Split, TextPassage
from adapters.llm2comp.encoder import CONFIG, LLM2Comp, random_memory
from adapters.llm2comp.objective import (
    Compression,
    MaskedPrediction,
    find_mask_id,
    make_student,
)
from adapters.llm2comp.train import PAPER, PAPER_SUPERVISED, Recipe, StagedTraining, restore
from bench.cli import app
from bench.data import load
from bench.errors import DataError, Unavailable, UsageError
from bench.testing import run_checks
from benchmarks.llm2comp_memory import measure_memory
from tests.processes import in_two
from tests.tiny import SENTENCES, tiny_folder

torch = pytest.importorskip("torch")

K = 3
CLOSE = {"atol": 1e-5, "rtol": 1e-4}  # float32 sums in another order
TARGETS = ("q_proj", "v_proj", "o_proj", "up_proj", "gate_proj", "down_proj")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_folder("llama", tmp_path_factory.mktemp("llm2comp-train") / "base", head=True)


@pytest.fixture(scope="module")
def base(folder):
    return Backbone(str(folder), head="lm", dtype="float32", device="cpu").load()


@pytest.fixture(params=["bidirectional", "native"])
def student(request, base):
    made = perturb(make_student(base, K, request.param, rank=2, seed=5))
    assert made.network.causal == (request.param == "native")
    return made


def perturb(student):
    """Return the student with LoRA weights that change something: new ones do not."""
    generator = torch.Generator().manual_seed(3)
    for name, weight in student.weights().items():
        if "lora_B" in name:
            weight.data = 0.2 * torch.randn(weight.shape, generator=generator)
    return student


def tokenise_views(texts, network):
    return tokenise([(Framed(text), Framed(text)) for text in texts], network.tokenizer, 60)


@pytest.fixture(scope="module")
def splits(base):
    made = []
    for i, pair in enumerate(itertools.pairwise(SENTENCES)):
        ids = base.tokenizer(" ".join(pair), add_special_tokens=False)["input_ids"]
        made.append(Split(i, ids[: 8 + i], ids[: 8 + i], ids[8 + i : 20 + 2 * i]))
    return made


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    rng = np.random.default_rng(0)
    texts = [" ".join(SENTENCES[i] for i in rng.permutation(7)[:5]) for _ in range(30)]
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    return write_rows(path, [{"text": text} for text in texts])


@pytest.fixture(scope="module")
def triples(tmp_path_factory):
    pairs = itertools.pairwise(SENTENCES)
    rows = [{"query": a, "positive": b, "negative": SENTENCES[0]} for a, b in pairs]
    return write_rows(tmp_path_factory.mktemp("triples") / "nq.jsonl", rows)


# --- independent computation: plain transformers, LoRA merged by hand, one text at a time


def merge_by_hand(folder, student):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    state = student.weights()
    for name, module in model.named_modules():
        if name.endswith(TARGETS):
            low, high = (state[f"{name}.lora_{side}.default.weight"].detach() for side in "AB")
            module.weight.data += 2.0 * high @ low
    return model


def raw_states(model, inputs, *, causal):
    """Return the last states (t, dim) of input embeddings, with an explicit mask."""
    t = len(inputs)
    mask = torch.full((1, 1, t, t), torch.finfo(torch.float32).min).triu(1) * causal
    return model.model(inputs_embeds=inputs[None], attention_mask=mask).last_hidden_state[0]


def table_rows(model, ids):
    return model.get_input_embeddings().weight[torch.tensor(ids)]


def reference_models(folder, student):
    """Return decoder and encoder in float64."""
    from transformers import AutoModelForCausalLM

    frozen = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    return frozen.double(), merge_by_hand(folder, student).double()


def reference_loss(models, student, split, objective):
    """Return the loss of one split and its weight in the mean over a batch."""
    (frozen, encoder), bos = models, [student.network.tokenizer.bos_token_id]
    inputs = torch.cat([table_rows(encoder, split.read), student.memory.double()])
    memory = raw_states(encoder, inputs, causal=student.network.causal)[-K:]
    target = split.context if objective == "rc" else split.continuation
    inputs = torch.cat([table_rows(frozen, bos), memory, table_rows(frozen, target)])
    log_q = frozen(inputs_embeds=inputs[None]).logits[0].log_softmax(-1)[K:]
    if objective != "kl":
        return -log_q[torch.arange(len(target)), torch.tensor(target)].sum(), len(target)
    ids = torch.tensor([[*bos, *split.context, *split.continuation]])
    log_p = frozen(ids).logits[0].log_softmax(-1)[len(split.context) :]
    return (log_p.exp() * (log_p - log_q)).sum() / (len(target) + 1), 1


# --- objectives


def test_student_reads_the_memory_after_each_text(folder, student, splits):
    model, rows = merge_by_hand(folder, student), [split.read for split in splits]
    with torch.no_grad():
        memory, vectors = student.compress(rows), student.embed(rows)
        for i, ids in enumerate(rows):
            inputs = torch.cat([table_rows(model, ids), student.memory])
            expected = raw_states(model, inputs, causal=student.network.causal)[-K:]
            torch.testing.assert_close(memory[i], expected, **CLOSE)
            torch.testing.assert_close(vectors[i], expected.mean(0), **CLOSE)


@pytest.mark.parametrize("objective", ["kl", "nll", "rc"])
def test_compression_loss_and_gradient_match_the_reference(
    folder, base, student, splits, objective
):
    models = reference_models(folder, student)
    found = [reference_loss(models, student, split, objective) for split in splits]
    expected = sum(loss for loss, _ in found) / sum(weight for _, weight in found)
    gradient = torch.autograd.grad(expected, student.memory)[0].float()
    contexts = sum(len(split.context) for split in splits)
    targets = contexts if objective == "rc" else sum(len(s.continuation) for s in splits)
    inference = passed = (1 + K) * len(splits) + targets
    if objective == "kl":
        inference += len(splits) + contexts + targets
    for positions in (10_000, 90, 1):
        step = Compression(student, base, splits, objective, positions)
        parts = [step.loss(part) for part in step.parts(range(len(splits)))]
        loss = sum(loss for loss, _ in parts)
        assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
        ours = torch.autograd.grad(loss, student.memory)[0]
        torch.testing.assert_close(ours, gradient, atol=1e-6, rtol=1e-3)
        spent = sum((spent for _, spent in parts), TokenCounts())
        assert spent == TokenCounts(contexts + K * len(splits), inference, differentiated=passed)


def test_the_context_itself_as_memory_gives_no_divergence(base, student, splits):
    step = Compression(student, base, splits, "kl", 1000)
    bos, head = base.tokenizer.bos_token_id, base.model.get_output_embeddings()
    for split in splits:
        with torch.no_grad():
            embedded = embed_ids(base, split.context)
            states, _ = step.decode([embedded], [split.continuation])
            log_q = head(states).log_softmax(-1)
            ids = torch.tensor([[bos, *split.context, *split.continuation]])
            log_p = base.model(ids).logits[0, len(split.context) :].log_softmax(-1)
        assert log_q.shape == log_p.shape == (len(split.continuation) + 1, log_p.shape[1])
        assert float((log_p.exp() * (log_p - log_q)).sum(-1).abs().max()) < 1e-5


def test_only_lora_and_memory_are_trained_and_frozen_weights_are_shared(base, student, splits):
    step = Compression(student, base, splits, "kl", 1000)
    (part,) = step.parts(range(len(splits)))
    step.loss(part)[0].backward()
    assert all(float(weight.grad.abs().max()) > 0 for weight in student.weights().values())
    parameters = dict(student.network.model.named_parameters())
    reached = {name for name, weight in parameters.items() if weight.grad is not None}
    assert reached == student.weights().keys() - {"memory"}
    layers = {name.partition(".lora_")[0].rpartition(".")[2] for name in reached}
    assert layers == set(TARGETS)  # not on k
    frozen = {weight.data_ptr() for name, weight in parameters.items() if ".lora_" not in name}
    assert frozen == {weight.data_ptr() for weight in base.model.parameters()}
    assert all(weight.grad is None for weight in base.model.parameters())


@pytest.mark.parametrize("positions", [10_000, 40])
def test_masked_tokens_are_predicted_from_the_state_before(folder, base, positions, splits):
    student = perturb(make_student(base, 0, "bidirectional", rank=2, seed=5))
    model, mask = merge_by_hand(folder, student), find_mask_id(base.tokenizer)
    rows = [split.context + split.continuation for split in splits]
    step = MaskedPrediction(student, base, rows, positions, seed=1)
    total = count = 0
    for part in step.parts([0, 2, 3]):
        for ids, places in zip(part.ids, part.places, strict=True):
            assert 0 not in places
            assert len(places) == max(round(0.2 * len(ids)), 1)
            masked = [mask if i in places else token for i, token in enumerate(ids)]
            with torch.no_grad():
                states = raw_states(model, table_rows(model, masked), causal=False)
                logits = model.lm_head(states).log_softmax(-1)
            total -= sum(float(logits[i - 1, ids[i]]) for i in places)
            count += len(places)
    found = [step.loss(part) for part in step.parts([0, 2, 3])]
    assert sum(float(loss.detach()) for loss, _ in found) == pytest.approx(total / count, rel=1e-4)
    assert sum(spent.trained for _, spent in found) == sum(len(rows[i]) for i in (0, 2, 3))


@pytest.mark.parametrize("views", [2, 3])
def test_info_nce_is_the_cross_entropy_over_all_candidates(views):
    vectors = np.random.default_rng(1).standard_normal((views, 4, 6))
    unit = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    losses = []
    for i in range(4):
        scores = [unit[0, i] @ unit[view, j] / 0.05 for view in range(1, views) for j in range(4)]
        losses.append(np.log(np.exp(scores).sum()) - scores[i])
    assert float(info_nce(torch.tensor(vectors), 0.05)) == pytest.approx(np.mean(losses), rel=1e-4)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_micro_batches_of_a_contrast_have_the_gradient_of_the_whole(base, student, dropout):
    set_dropout(student.network.model, hidden=0.0, attention=dropout)
    student.network.model.train()
    step = student.contrast(tokenise_views(SENTENCES[:5], base), temperature=0.05, positions=60)
    weights = list(student.weights().values())
    with fork_seed(1, "cpu"):
        parts = step.parts(range(5))
        found = [step.loss(part)[0] for part in parts]
    assert len(parts) > 2
    vectors = torch.zeros(10, 32)
    for part in parts:  # all in memory at once, under the same dropout
        with fork_seed(part.seed, "cpu"):
            rows = student.embed(part.rows)
        vectors = vectors.index_put((torch.tensor(part.order),), rows)
    expected = info_nce(vectors.view(2, 5, -1), 0.05)
    losses = [(expected, torch.autograd.grad(expected, weights, retain_graph=True))]
    if not dropout:
        direct = replace(step, positions=10_000)
        (alone,) = direct.parts(range(5))
        loss = direct.loss(alone)[0]
        losses.append((loss, torch.autograd.grad(loss, weights)))
    ours = torch.autograd.grad(sum(found), weights)
    for loss, gradients in losses:
        assert float(sum(found).detach()) == pytest.approx(float(loss.detach()), rel=1e-4)
        for one, other in zip(ours, gradients, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-3)


def write_gradient(process, name, place):
    """Write loss and gradient of one supervised step; both processes give micro-batches."""
    network = Backbone(str(place / "base"), head="lm", dtype="float32", device="cpu").load()
    pairs = itertools.pairwise(SENTENCES)
    triples = [tuple(map(Framed, (*pair, SENTENCES[0]))) for pair in pairs]
    rows = tokenise(triples, network.tokenizer, 60)
    student = perturb(make_student(network, K, "bidirectional", rank=2, seed=5))
    step = student.contrast(rows, temperature=0.5, positions=60)
    loss, spent = _step(student.weights(), range(5), step, launched(), network, seed=1)
    found = {key: weight.grad for key, weight in student.weights().items()}
    found |= {"loss": torch.tensor(loss), "spent": torch.tensor(spent.trained)}
    torch.save(found, place / f"{name} {process}.pt")


def test_two_processes_share_the_candidates_of_a_contrast(tmp_path):
    tiny_folder("llama", tmp_path / "base", head=True)
    in_two(write_gradient, "two", tmp_path)
    write_gradient(0, "one", tmp_path)
    names = ("one 0", "two 0", "two 1")
    one, *both = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in names)
    assert float(one["memory"].abs().max()) > 1e-3
    for found in both:
        torch.testing.assert_close(found, one, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_dropout_makes_two_views_differ(kind, tmp_path):
    place = tiny_folder(kind, tmp_path / kind, head=True)
    network = Backbone(str(place), head="lm", dtype="float32", device="cpu").load()
    student = make_student(network, K, "native", rank=2, seed=5)
    (views,) = tokenise_views(SENTENCES[:1], network)
    for dropout in (0.0, 0.2):
        set_dropout(student.network.model, hidden=0.0, attention=dropout)
        student.network.model.train()
        with torch.no_grad(), fork_seed(1, "cpu"):
            one, other = student.embed(views)
        assert torch.allclose(one, other, atol=1e-5) == (dropout == 0)


def test_memory_starts_as_words_or_as_fixed_random_rows(base):
    ids = base.tokenizer("the cat sat", add_special_tokens=False)["input_ids"]
    table = base.model.get_input_embeddings().weight.detach()
    options = {"rank": 2, "seed": 0}
    student = make_student(base, len(ids) + 2, "native", words="the cat sat", **options)
    torch.testing.assert_close(student.memory.data, table[[*ids, *ids[:2]]])
    student = make_student(base, 3, "native", **options)
    torch.testing.assert_close(student.memory.data, random_memory(table, 3))


# --- data


def test_passages_are_split_uniformly_between_the_margins():
    passages = [TextPassage(str(i), list(range(30))) for i in range(50)]
    options = {"budget": 20_000, "k": K, "continuation": 7}
    splits = data.draw_splits(passages, ([1], []), **options, seed=3)
    points = [len(split.context) for split in splits]
    assert set(points) == set(range(MARGIN, 30 - MARGIN + 1))
    counts = np.bincount(points)[MARGIN:]
    assert counts.max() < 1.6 * counts.min()  # about 80 draws a point
    for split in splits:
        assert split.read == [1, *split.context]
        assert split.context + split.continuation == list(range(len(split.context) + 7))
    assert 0 < sum(len(split.read) + K for split in splits) - 20_000 < 30 + K + 1
    assert sorted(split.passage for split in splits[:50]) == list(range(50))
    assert splits == data.draw_splits(passages, ([1], []), **options, seed=3)
    assert splits != data.draw_splits(passages, ([1], []), **options, seed=4)


def test_passages_are_whole_sentences_that_fit(base):
    text = " ".join(SENTENCES)
    passages = data.make_passages([text, "no", "word " * 200], base.tokenizer, 40)
    assert all(20 <= len(passage.ids) <= 40 for passage in passages)
    found = [part for p in passages[:-1] for part in list_sentences(p.text)]
    assert [part for part in list_sentences(text) if part in found] == found
    assert len(passages[-1].ids) == 40  # a long sentence is truncated
    with pytest.raises(DataError, match="longer texts"):
        data.make_passages(["no", "yes"], base.tokenizer, 40)


def test_wikitext_is_detokenised_without_unknown_words(tmp_path):
    line = (
        ' The 3 @-@ 2 win ( his first ) was " big " , he said . <unk> went home .'
        " It did n't rain .\n"
    )
    path = write_rows(tmp_path / "wiki.jsonl", [{"text": " = Title = \n"}, {"text": line}])
    source = replace(parse_sources(str(path), TextSource)[0], tokenised=True)
    found, records = read_texts([source], load)
    assert found == ['The 3-2 win (his first) was "big", he said.', "It didn't rain."]
    assert records[0].rows == 2


def test_texts_come_from_files(tmp_path, caplog):
    (tmp_path / "a.txt").write_text("One text\nof two lines.\n\nAnother one.\n")
    sources = parse_sources(f"{tmp_path / 'a.txt'},no/such-set", TextSource)
    found, records = read_texts(sources, load)
    assert found == ["One text\nof two lines.", "Another one."]
    assert len(records[0].pin["sha256"]) == 64
    assert "no/such-set" in caplog.text
    with pytest.raises(Unavailable, match="--set sources="):
        read_texts(sources[1:], load)
    other = write_rows(tmp_path / "b.jsonl", [{"label": 1}])
    with pytest.raises(DataError, match="text"):
        read_texts(parse_sources(str(other), TextSource), load)


def test_special_tokens_are_the_tokenizer_s(base, tmp_path):
    assert data.find_special_tokens(base.tokenizer) == ([], [])
    place = tiny_folder("roberta", tmp_path / "r")
    tokenizer = Backbone(str(place), dtype="float32", device="cpu").load().tokenizer
    expected = [tokenizer.bos_token_id], [tokenizer.eos_token_id]
    assert data.find_special_tokens(tokenizer) == expected


WIKIPEDIA = "Given a question, retrieve Wikipedia passages that answer the question"
CHINESE = "Given a Chinese search query, retrieve web passages that answer the question"
ENTAILED = "Given a premise, retrieve a hypothesis that is entailed by the premise"
EQUIVALENT = (
    "Given a question, retrieve questions that are semantically equivalent to the given question"
)
RELEASED = {
    "allnli": f"{ENTAILED} Retrieve semantically similar text",
    "dureader": CHINESE,
    "eli5_question_answer": (
        "Provided a user question, retrieve the highest voted answers on Reddit ELI5 forum"
    ),
    "fever": "Given a claim, retrieve documents that support or refute the claim",
    "hotpot_qa": "Given a multi-hop question, retrieve documents that can help answer the question",
    "miracl": WIKIPEDIA,
    "mrtydi": WIKIPEDIA,
    "msmarco_document": (
        "Given a web search query, retrieve relevant documents that answer the query"
    ),
    "msmarco_passage": "Given a web search query, retrieve relevant passages that answer the query",
    "nq": WIKIPEDIA,
    "quora_duplicates": EQUIVALENT,
    "squad": "Retrieve Wikipedia passages that answer the question",
    "t2ranking": CHINESE,
    "trivia_qa": "Retrieve Wikipedia passages that answer the question",
}


def test_instructions_of_stage_3_are_the_released_ones():
    assert {name: each[0] for name, each in INSTRUCTIONS.items()} == RELEASED
    more = {name: each[1:] for name, each in INSTRUCTIONS.items() if len(each) > 1}
    same = "Find questions that have the same meaning as the input question"
    assert more == {"quora_duplicates": (same,)}


@pytest.mark.parametrize(
    ("name", "column", "asked"),
    [
        ("trivia_qa", None, [f"{RELEASED['trivia_qa']}:who?\n"] * 3),
        ("mine", None, ["who?"] * 3),
        ("mine", "Find it:", ["Find it:who?\n"] * 3),
        ("quora_duplicates", None, [f"{EQUIVALENT}:who?\n", None, f"{EQUIVALENT}:who?\n"]),
    ],
)
def test_queries_have_the_instruction_of_their_row_or_set(base, tmp_path, name, column, asked):
    row = {"query": "who?", "positive": "she", "negative": "rain"}
    if column:
        row["instruction"] = column
    path = write_rows(tmp_path / f"{name}.jsonl", [row] * 3)
    triples, _ = data.read_triples([str(path)], load)
    ids = tokenise(triples, base.tokenizer, 120)
    for texts, prompt in zip(ids, asked, strict=True):
        query, *others = map(base.tokenizer.decode, texts)
        assert prompt in {None, query}
        assert others == ["she", "rain"]


def test_a_triple_without_one_of_its_texts_is_refused_with_its_line(tmp_path):
    texts = {"query": "who?", "positive": "she"}
    rows = [{**texts, "negative": negative} for negative in ("rain", None)]
    path = write_rows(tmp_path / "t.jsonl", rows)
    with pytest.raises(DataError, match=r"t\.jsonl line 2"):
        data.read_triples([str(path)], load)


# --- recipe


def tiny_recipe(folder, corpus, **changes):
    options = {"attention": "bidirectional", "sources": str(corpus), "k": K, "length": 40}
    options |= {"batch_size": 4, "contrastive": 0.3, "contrastive_batch": 6, "rank": 2}
    return Recipe(str(folder), device="cpu", dtype="float32", **(options | changes))


def run(recipe, out, budget=1000, progress=lambda *_: None):
    return recipe.train(out, budget=budget, seed=1, load=load, progress=progress)


def test_paper_has_the_figures_of_the_released_configuration():
    assert PAPER.backbone == "meta-llama/Llama-2-7b-chat-hf"
    assert (PAPER.objective, PAPER.k, PAPER.words) == ("kl", 8, "")
    assert (PAPER.attention, PAPER.rank, PAPER.new_lora) == ("bidirectional", 16, True)
    assert (PAPER.batch_size, PAPER.lr, PAPER.length) == (4, 1e-4, 512)
    assert (PAPER.contrastive_batch, PAPER.contrastive_lr, PAPER.dropout) == (128, 3e-5, 0.2)
    assert PAPER.sentence + PAPER.k == 512
    assert PAPER.temperature == 0.05
    stage_3 = PAPER_SUPERVISED
    assert (stage_3.contrastive_batch, stage_3.contrastive_lr) == (1024, 1e-4)
    assert stage_3.document + stage_3.k == 1024
    for recipe in (PAPER, PAPER_SUPERVISED, Recipe()):
        recipe.check()


class InterruptedTrainingError(Exception):
    """Stands for a signal."""


def test_an_interrupted_training_resumes_to_the_same_files(folder, corpus, triples, tmp_path):
    shares = {"healing": 0.2, "contrastive": 0.2, "supervised": 0.2, "document": 100}
    recipe = tiny_recipe(folder, corpus, triples=str(triples), new_lora=True, **shares)
    whole = run(recipe, tmp_path / "whole", 3000)

    def interrupt(what, done, _):
        if what == "llm2comp contrastive: training" and done == 2:
            raise InterruptedTrainingError

    with pytest.raises(InterruptedTrainingError):
        run(recipe, tmp_path / "resumed", 3000, interrupt)
    assert not (tmp_path / "resumed" / "card.json").exists()
    seen = []
    resumed = run(
        recipe, tmp_path / "resumed", 3000, lambda what, done, _: seen.append((what, done))
    )
    started = {what for what, done in seen if done == 0}
    assert started == {"reading data", "llm2comp supervised: training"}
    files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    found = sorted(path.relative_to(resumed) for path in resumed.rglob("*") if path.is_file())
    assert files == found
    for name in files:
        if name.name not in {"card.json", "stage.json"}:  # they have seconds
            assert (whole / name).read_bytes() == (resumed / name).read_bytes()
    config = json.loads((whole / CONFIG).read_text())
    names = ("healing", "compression", "contrastive", "supervised")
    assert config["stages"] == [f"stages/{name}" for name in names]
    last, top = (
        LLM2Comp(str(place), device="cpu", dtype="float32").encode(SENTENCES)
        for place in (whole / "stages" / "supervised", whole)
    )
    np.testing.assert_array_equal(last, top)
    seen.clear()
    run(recipe, resumed, 3000, lambda *what: seen.append(what))
    assert not seen  # a finished training is not repeated
    with pytest.raises(UsageError, match="another budget"):
        run(recipe, resumed, 3001)


@pytest.mark.parametrize("new_lora", [False, True])
def test_the_next_stage_starts_with_the_vectors_of_the_one_before(
    folder, base, student, tmp_path, new_lora
):
    attention = "native" if student.network.causal else "bidirectional"
    recipe = Recipe(str(folder), k=K, attention=attention, rank=2, new_lora=new_lora)
    training = Training("llm2comp", {"backbone": str(folder)}, 1, 0)
    stages = StagedTraining(recipe, tmp_path, training, [], base, print)
    stages.write_checkpoint(tmp_path / "first", student, [])
    rows = [ids for ids, _ in tokenise_views(SENTENCES, base)]
    saved = make_student(base, K, attention, rank=2, seed=0)
    restore(saved, tmp_path / "first", lora=True)  # rounded to bfloat16
    encoder = LLM2Comp(
        str(tmp_path / "first"), dtype="float32", device="cpu", normalise=False
    ).encode(SENTENCES)
    begun = stages.start([tmp_path / "first"])
    with torch.no_grad():
        expected = saved.embed(rows)
        torch.testing.assert_close(begun.embed(rows), expected, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(encoder, expected.numpy(), atol=1e-5)
    new = [w for name, w in begun.weights().items() if "lora_B" in name]
    assert all((float(weight.detach().abs().max()) == 0) == new_lora for weight in new)


@pytest.mark.parametrize(("kind", "objective"), [("qwen2", "kl"), ("opt", "mntp")])
def test_training_lowers_the_loss_and_its_checkpoint_meets_the_contract(
    corpus, tmp_path, kind, objective
):
    base = tiny_folder(kind, tmp_path / "base", head=True)
    recipe = tiny_recipe(base, corpus, objective=objective, lr=5e-3, contrastive=0.2)
    out = run(recipe, tmp_path / "out", 4000)
    card = json.loads((out / "card.json").read_text())
    first, second = card["stages"]
    losses = np.asarray(first["loss"])[:, 1]
    quarter = len(losses) // 4
    assert losses[-quarter:].mean() < losses[:quarter].mean()
    assert 3600 < card["trained_tokens"] <= 4000
    assert card["trained_tokens"] == first["trained_tokens"] + second["trained_tokens"]
    assert card["flops"] == first["flops"] + second["flops"] > 4000 * card["trained_tokens"]
    assert (card["inference_tokens"] == 0) == (objective == "mntp")
    encoder = LLM2Comp(str(out), device="cpu", dtype="float32")
    assert encoder.card().trained
    assert encoder.card().training_tokens == card["trained_tokens"]
    unseen = "an unseen text with more than eight words in it"
    assert encoder.runs().find_overlaps([SENTENCES[0], unseen]).tolist() == [True, False]
    assert [outcome for outcome in run_checks(encoder) if outcome.status == "failed"] == []


def test_each_stage_has_its_own_learning_rate_dropout_and_temperature(
    folder, corpus, triples, tmp_path, monkeypatch
):
    seen, fit = {}, train.fit

    def note(weights, plan, objective, optimisation, *, network, training, **options):
        modules = [module for module in network.model.modules() if module.training]
        dropout = {float(m.attention_dropout) for m in modules if hasattr(m, "attention_dropout")}
        temperature = getattr(objective, "temperature", None)
        seen[training.method] = optimisation.lr, dropout, temperature
        options |= {"network": network, "training": training}
        return fit(weights, plan, objective, optimisation, **options)

    monkeypatch.setattr(train, "fit", note)
    settings = {"lr": 2e-3, "contrastive_lr": 3e-4, "temperature": 0.1, "dropout": 0.25}
    shares = {"contrastive": 0.3, "supervised": 0.3, "triples": str(triples), "document": 100}
    run(tiny_recipe(folder, corpus, **settings, **shares), tmp_path / "out", 1500)
    assert seen == {
        "llm2comp compression": (2e-3, {0.0}, None),
        "llm2comp contrastive": (3e-4, {0.25}, 0.1),
        "llm2comp supervised": (3e-4, {0.0}, 0.1),
    }


@pytest.mark.parametrize(
    ("objective", "attention", "expected"),
    [("kl", "auto", "native"), ("mntp", "auto", "bidirectional"), ("mntp", "native", "native")],
)
def test_auto_attention_depends_on_the_objective(
    folder, corpus, tmp_path, objective, attention, expected
):
    settings = {"objective": objective, "attention": attention, "contrastive": 0.0}
    out = run(tiny_recipe(folder, corpus, **settings), tmp_path / "out", 150)
    assert json.loads((out / CONFIG).read_text())["attention"] == expected
    settings["attention"] = expected
    run(tiny_recipe(folder, corpus, **settings), out, 150)  # the same training


@pytest.mark.parametrize(
    "setting",
    [
        {"objective": "no"},
        {"attention": "no"},
        {"contrastive": 1.0},
        {"healing": -0.1},
        {"k": 0},
        {"length": 19},
        {"supervised": 0.1},
        {"healing": 0.1, "attention": "auto"},
        {"temperature": 0.0},
        {"dropout": 1.0},
        {"contrastive_lr": float("nan")},
    ],
)
def test_invalid_settings_are_refused(folder, corpus, setting):
    with pytest.raises(UsageError):
        tiny_recipe(folder, corpus, **setting).check()


@pytest.mark.parametrize("setting", [{"length": 126}, {"sentence": 126}, {"document": 126}])
def test_lengths_beyond_the_positions_of_the_backbone_are_refused(
    folder, corpus, triples, tmp_path, setting
):
    setting = {"triples": str(triples), "supervised": 0.1, "document": 100, **setting}
    with pytest.raises(UsageError, match="128 positions"):
        run(tiny_recipe(folder, corpus, **setting), tmp_path / "out")


def test_the_packaged_backbone_goes_through_both_stages_on_the_command_line(corpus, tmp_path):
    out = tmp_path / "out"
    command = ["train", "llm2comp", "--out", str(out), "--device", "cpu", "--budget", "200"]
    settings = {"sources": corpus, "contrastive": 0.3, "length": 30, "k": 2, "batch_size": 2}
    for name, value in settings.items():
        command += ["--set", f"{name}={value}"]
    made = CliRunner().invoke(app, command)
    assert made.exit_code == 0, made.output
    card = json.loads((out / "card.json").read_text())
    assert [stage["stage"] for stage in card["stages"]] == ["compression", "contrastive"]
    assert 100 < card["trained_tokens"] <= 200
    assert sum(file.stat().st_size for file in out.glob("*.safetensors")) < 12e6
    state = safetensors.load_file(out / "adapter_model.safetensors")
    assert all(float(w.abs().max()) > 0 for name, w in state.items() if "lora_B" in name)
    vectors = LLM2Comp(str(out), device="cpu").encode(SENTENCES[:2])
    assert np.isfinite(vectors).all()
    assert not np.allclose(*vectors, atol=1e-2)


# --- benchmarks/llm2comp_memory.py


def test_measured_memory_is_the_kl_after_its_own_text_and_after_another(
    folder, base, corpus, tmp_path
):
    out = run(tiny_recipe(folder, corpus, lr=2e-2), tmp_path / "out", 2000)
    texts, _ = read_texts([TextSource(str(corpus))], load)
    options = {"length": 40, "continuation": 12, "dtype": "float32", "device": "cpu"}
    found = measure_memory(out, texts, limit=3, **options)
    passages = data.make_passages(texts, base.tokenizer, 40)
    splits = data.draw_splits(
        passages, ([], []), budget=3 * (40 + K), k=K, continuation=12, seed=0
    )[:3]
    encoder = LLM2Comp(str(out), device="cpu", dtype="float32")
    table, bos = base.model.get_input_embeddings(), base.tokenizer.bos_token_id

    def predict(before, split):
        rows = [table(torch.tensor(ids)) for ids in ([bos], split.continuation)]
        inputs = torch.cat([rows[0], before, rows[1]])[None]
        with torch.no_grad():
            logits = base.model(inputs_embeds=inputs).logits[0]
        return logits[-len(split.continuation) - 1 :].log_softmax(-1)

    for i, split in enumerate(splits):
        log_p = predict(table(torch.tensor(split.context)), split)
        for column, source in enumerate((split, splits[i - 1])):
            text = base.tokenizer.decode(source.context)
            log_q = predict(torch.from_numpy(encoder.encode_memory([text])[0]), split)
            expected = (log_p.exp() * (log_p - log_q)).sum(-1).mean()
            assert found[i, column] == pytest.approx(float(expected.detach()), rel=1e-4)
    with pytest.raises(UsageError, match="at least 2"):
        measure_memory(out, texts, limit=1, length=40)
