"""LLM2Comp's objectives against an independent computation, its data, and the start of stages."""

import itertools
import json

import numpy as np
import pytest
import torch

from adapters import _pooling
from adapters._text import Framed
from adapters._trainable import fork_seed, set_dropout
from adapters._training.budget import TokenCounts
from adapters._training.contrast import find_repeated, info_nce, tokenise
from adapters._training.loop import Training, _step
from adapters._training.processes import launched
from adapters._training.texts import TextSource, list_sentences, read_texts
from adapters.llm2comp import data, train
from adapters.llm2comp.data import INSTRUCTIONS, MARGIN, Split, TextPassage
from adapters.llm2comp.encoder import LLM2Comp, random_memory
from adapters.llm2comp.objective import Compression, MaskedPrediction, find_mask_id, make_student
from adapters.llm2comp.train import Recipe, StagedTraining, restore
from bench.data import load
from bench.encoder import digest
from bench.errors import DataError, UsageError
from bench.trainings import plan_trainings
from benchmarks.llm2comp_memory import measure_memory
from tests.adapters.checks import (
    CPU,
    check_objective,
    draw,
    load_network,
    merge_by_hand,
    read_plain,
    write_rows,
)
from tests.processes import in_two
from tests.tiny import SENTENCES, tiny_folder

K = 3
TARGETS = {"q_proj", "v_proj", "o_proj", "up_proj", "gate_proj", "down_proj"}


@pytest.fixture(scope="module")
def base(networks):
    return networks("llama")


@pytest.fixture(params=["bidirectional", "native"])
def student(request, base):
    made = perturb(make_student(base, K, request.param, rank=2, seed=5))
    assert made.network.causal == (request.param == "native")
    return made


def perturb(student):
    """Return the student with LoRA weights that change something: new ones do not."""
    for i, (name, weight) in enumerate(student.weights().items()):
        if "lora_B" in name:
            weight.data = 0.2 * draw(*weight.shape, seed=i)
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


@pytest.fixture(scope="module")
def triples(tmp_path_factory):
    pairs = itertools.pairwise(SENTENCES)
    rows = [{"query": a, "positive": b, "negative": SENTENCES[0]} for a, b in pairs]
    return write_rows(tmp_path_factory.mktemp("triples") / "nq.jsonl", rows)


# --- independent computation: plain transformers in float64, one text at a time


@pytest.fixture
def plain(tiny, student):
    return make_plain(tiny("llama"), student)


def make_plain(folder, student):
    """Return the frozen decoder, and the encoder with its LoRA weights merged by hand."""
    frozen, encoder = (read_plain(folder, "AutoModelForCausalLM")[1].double() for _ in range(2))
    return frozen, merge_by_hand(encoder, student.weights())


def raw_states(model, inputs, *, causal):
    """Return the last states (t, dim) of input embeddings, with an explicit mask."""
    t = len(inputs)
    mask = torch.full((1, 1, t, t), -1e9, dtype=torch.float64).triu(1) * causal
    return model.model(inputs_embeds=inputs[None], attention_mask=mask).last_hidden_state[0]


def table_rows(model, ids):
    return model.get_input_embeddings().weight[torch.tensor(ids)]


def raw_memory(encoder, student, ids):
    inputs = torch.cat([table_rows(encoder, ids), student.memory.double()])
    return raw_states(encoder, inputs, causal=student.network.causal)[-K:]


def reference_loss(plain, student, split, objective):
    """Return the loss of one split and its weight in the mean over a batch."""
    (frozen, encoder), bos = plain, [student.network.tokenizer.bos_token_id]
    memory = raw_memory(encoder, student, split.read)
    target = split.context if objective == "rc" else split.continuation
    inputs = torch.cat([table_rows(frozen, bos), memory, table_rows(frozen, target)])
    log_q = frozen(inputs_embeds=inputs[None]).logits[0].log_softmax(-1)[K:]
    if objective != "kl":
        return -log_q[torch.arange(len(target)), torch.tensor(target)].sum(), len(target)
    ids = torch.tensor([[*bos, *split.context, *split.continuation]])
    log_p = frozen(ids).logits[0].log_softmax(-1)[len(split.context) :]
    return (log_p.exp() * (log_p - log_q)).sum() / (len(target) + 1), 1


@pytest.mark.parametrize("objective", ["kl", "nll", "rc"])
def test_compression_loss_and_gradient_match_the_reference(plain, base, student, splits, objective):
    found = [reference_loss(plain, student, split, objective) for split in splits]
    expected = sum(loss for loss, _ in found) / sum(weight for _, weight in found)
    contexts = sum(len(split.context) for split in splits)
    targets = contexts if objective == "rc" else sum(len(s.continuation) for s in splits)
    inference = passed = (1 + K) * len(splits) + targets
    if objective == "kl":
        inference += len(splits) + contexts + targets
    spent = TokenCounts(contexts + K * len(splits), inference, differentiated=passed)
    step = Compression(student, base, splits, objective, 0)
    check_objective(step, expected, [student.memory], spent, count=len(splits))


def test_only_lora_and_memory_are_trained_and_frozen_weights_are_shared(base, student, splits):
    step = Compression(student, base, splits, "kl", 1000)
    (part,) = step.parts(range(len(splits)))
    step.loss(part)[0].backward()
    assert all(float(weight.grad.abs().max()) > 0 for weight in student.weights().values())
    parameters = dict(student.network.model.named_parameters())
    reached = {name for name, weight in parameters.items() if weight.grad is not None}
    assert reached == student.weights().keys() - {"memory"}
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in reached} == TARGETS  # not on k
    frozen = {weight.data_ptr() for name, weight in parameters.items() if ".lora_" not in name}
    assert frozen == {weight.data_ptr() for weight in base.model.parameters()}
    assert all(weight.grad is None for weight in base.model.parameters())


def test_masked_tokens_are_predicted_from_the_state_before(tiny, base, splits):
    student = perturb(make_student(base, 0, "bidirectional", rank=2, seed=5))
    _, model = make_plain(tiny("llama"), student)
    mask, total, count = find_mask_id(base.tokenizer), 0, 0
    rows = [split.context + split.continuation for split in splits]
    step = MaskedPrediction(student, base, rows, 10_000, seed=1)
    (part,) = step.parts(range(len(rows)))
    for ids, places in zip(part.ids, part.places, strict=True):
        assert 0 not in places
        assert len(places) == max(round(0.2 * len(ids)), 1)
        masked = [mask if i in places else token for i, token in enumerate(ids)]
        logits = model.lm_head(raw_states(model, table_rows(model, masked), causal=False))
        total -= sum(logits.log_softmax(-1)[i - 1, ids[i]] for i in places)
        count += len(places)
    loss, spent = step.loss(part)
    assert float(loss.detach()) == pytest.approx(float(total.detach()) / count, rel=1e-4)
    assert spent.trained == sum(map(len, rows))
    weights = list(student.weights().values())[1:]
    check_objective(step, loss, weights, spent, count=len(rows))


@pytest.mark.parametrize("views", [2, 3])
def test_info_nce_is_the_cross_entropy_over_all_candidates(views):
    vectors = np.random.default_rng(1).standard_normal((views, 4, 6))
    unit = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    losses = []
    for i in range(4):
        scores = [unit[0, i] @ unit[view, j] / 0.05 for view in range(1, views) for j in range(4)]
        losses.append(np.log(np.exp(scores).sum()) - scores[i])
    assert float(info_nce(torch.tensor(vectors), 0.05)) == pytest.approx(np.mean(losses), rel=1e-4)


def test_a_text_that_is_twice_in_a_batch_is_no_negative_of_itself():
    q, r, s, p, o, n = ([i] for i in range(6))  # n and r are negatives, too
    examples = [(q, p, n), (r, p, n), (q, o, n), (s, r, p), (o, s, r)]
    left_out = [  # places among the second texts, then among the third ones
        [0, 1, 1, 0, 0, 0, 0, 0, 1, 0],  # q: p of r; o, which is q's, too; p as a negative
        [1, 0, 0, 1, 0, 0, 0, 0, 1, 1],
        [1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 1, 0, 0, 0, 0, 1],
        [0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
    ]
    repeated = find_repeated(examples)
    assert repeated.int().tolist() == left_out
    vectors = draw(3, 5, 6, seed=0)
    unit = vectors / vectors.norm(dim=-1, keepdim=True)
    scores = (unit[0] @ unit[1:].reshape(10, 6).T / 0.5).exp() * ~repeated
    expected = -(scores.diagonal() / scores.sum(1)).log().mean()
    assert float(info_nce(vectors, 0.5, repeated)) == pytest.approx(float(expected), rel=1e-5)
    distinct = [([i], [i + 10], [i + 20]) for i in range(4)]
    assert not find_repeated(distinct).any()


def test_cosines_and_means_are_not_rounded_under_mixed_precision():
    states, mask = draw(6, 5, 32, seed=0), torch.tensor([[1, 1, 1, 1, 0]] * 6)
    vectors = _pooling.mean(states, mask)
    loss = info_nce(vectors.view(2, 3, -1), 0.05)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(_pooling.mean(states, mask), vectors)
        assert torch.equal(info_nce(vectors.view(2, 3, -1), 0.05), loss)


def test_micro_batches_of_a_contrast_have_the_gradient_of_the_whole_under_dropout(base, student):
    set_dropout(student.network.model, hidden=0.0, attention=0.3)
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
    assert float(sum(found).detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    wanted = torch.autograd.grad(expected, weights)
    for one, other in zip(torch.autograd.grad(sum(found), weights), wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-3)


def write_gradient(process, name, place):
    """Write loss and gradient of one supervised step; both processes give micro-batches."""
    network = load_network(place / "base")
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


def test_special_tokens_are_the_tokenizer_s(networks):
    assert data.find_special_tokens(networks("llama").tokenizer) == ([], [])
    tokenizer = networks("roberta").tokenizer
    expected = [tokenizer.bos_token_id], [tokenizer.eos_token_id]
    assert data.find_special_tokens(tokenizer) == expected


RELEASED = "0e359ebec5091c8ab7ce649bf1bcd58395c1bbc6a9927985c1fb3021bbf678e2"
"""Digest of the released instructions of 14 data sets."""


def test_instructions_of_stage_3_are_the_released_ones():
    assert digest({name: list(each) for name, each in INSTRUCTIONS.items()}) == RELEASED


QUORA = INSTRUCTIONS["quora_duplicates"][0]


@pytest.mark.parametrize(
    ("name", "column", "asked"),
    [
        ("trivia_qa", {}, ["Retrieve Wikipedia passages that answer the question:who?\n"] * 3),
        ("mine", {}, ["who?"] * 3),
        ("mine", {"instruction": "Find it:"}, ["Find it:who?\n"] * 3),
        ("quora_duplicates", {}, [f"{QUORA}:who?\n", None, f"{QUORA}:who?\n"]),
    ],
)
def test_queries_have_the_instruction_of_their_row_or_set(base, tmp_path, name, column, asked):
    row = {"query": "who?", "positive": "she", "negative": "rain", **column}
    path = write_rows(tmp_path / f"{name}.jsonl", [row] * 3)
    triples, _ = data.read_triples([str(path)], load)
    for texts, prompt in zip(tokenise(triples, base.tokenizer, 120), asked, strict=True):
        query, *others = map(base.tokenizer.decode, texts)
        assert prompt in {None, query}
        assert others == ["she", "rain"]
    write_rows(path, [row, row | {"negative": None}])
    with pytest.raises(DataError, match=rf"{name}\.jsonl line 2"):
        data.read_triples([str(path)], load)


# --- stages


def tiny_recipe(folder, corpus, **changes):
    options = {"attention": "bidirectional", "sources": str(corpus), "k": K, "length": 40}
    options |= {"batch_size": 4, "contrastive": 0.3, "contrastive_batch": 6, "rank": 2}
    return Recipe(str(folder), **CPU, **(options | changes))


def run(recipe, out, budget=1000):
    return recipe.train(out, budget=budget, seed=1, load=load, progress=lambda *_: None)


@pytest.mark.parametrize("new_lora", [False, True])
def test_the_next_stage_starts_with_the_vectors_of_the_one_before(
    tiny, base, student, tmp_path, new_lora
):
    attention = "native" if student.network.causal else "bidirectional"
    recipe = Recipe(str(tiny("llama")), k=K, attention=attention, rank=2, new_lora=new_lora)
    training = Training("llm2comp", {"backbone": recipe.backbone}, 1, 0)
    stages = StagedTraining(recipe, tmp_path, training, [], base, print)
    stages.write_checkpoint(tmp_path / "first", student, [])
    rows = [ids for ids, _ in tokenise_views(SENTENCES, base)]
    saved = make_student(base, K, attention, rank=2, seed=0)
    restore(saved, tmp_path / "first", lora=True)  # rounded to bfloat16
    encoder = LLM2Comp(str(tmp_path / "first"), **CPU, normalise=False).encode(SENTENCES)
    begun = stages.start([tmp_path / "first"])
    with torch.no_grad():
        expected = saved.embed(rows)
        torch.testing.assert_close(begun.embed(rows), expected, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(encoder, expected.numpy(), atol=1e-5)
    new = [w for name, w in begun.weights().items() if "lora_B" in name]
    assert all((float(weight.detach().abs().max()) == 0) == new_lora for weight in new)


def test_each_stage_has_its_own_learning_rate_dropout_and_temperature(
    tiny, corpus, triples, tmp_path, monkeypatch
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
    out = run(tiny_recipe(tiny("llama"), corpus, **settings, **shares), tmp_path / "out", 1500)
    assert seen == {
        "llm2comp compression": (2e-3, {0.0}, None),
        "llm2comp contrastive": (3e-4, {0.25}, 0.1),
        "llm2comp supervised": (3e-4, {0.0}, 0.1),
    }
    places = (out / "stages/supervised", out)
    last, top = (LLM2Comp(str(place), **CPU).encode(SENTENCES) for place in places)
    np.testing.assert_array_equal(last, top)


def test_auto_attention_depends_on_the_objective(tiny, corpus, tmp_path):
    for objective, attention in (("kl", "native"), ("mntp", "bidirectional")):
        settings = {"objective": objective, "contrastive": 0.0}
        out = tmp_path / objective
        run(tiny_recipe(tiny("llama"), corpus, **settings, attention="auto"), out, 150)
        assert LLM2Comp(str(out))._checkpoint().attention == attention
        card = json.loads((out / "card.json").read_text())
        values = {name: json.dumps(value).strip('"') for name, value in card["recipe"].items()}
        changes = [f"{name}={value}" for name, value in values.items()]
        changes += ["objective=rc", "attention=auto"]  # of which --vary changes the first again
        seeds = [card["seed"]]
        planned = plan_trainings(
            ["llm2comp"], ["150"], seeds, changes=changes, vary=[f"objective={objective}"]
        )
        assert [training.made(card) for training in planned] == [False, True]
        run(
            tiny_recipe(tiny("llama"), corpus, **settings, attention=attention), out, 150
        )  # the same


@pytest.mark.parametrize("setting", [{"length": 126}, {"sentence": 126}, {"document": 126}])
def test_lengths_beyond_the_positions_of_the_backbone_are_refused(
    tiny, corpus, triples, tmp_path, setting
):
    setting = {"triples": str(triples), "supervised": 0.1, "document": 100, **setting}
    with pytest.raises(UsageError, match="128 positions"):
        run(tiny_recipe(tiny("llama"), corpus, **setting), tmp_path / "out")


# --- benchmarks/llm2comp_memory.py


def test_measured_memory_is_the_kl_after_its_own_text_and_after_another(
    tiny, base, corpus, tmp_path
):
    out = run(tiny_recipe(tiny("llama"), corpus, lr=2e-2), tmp_path / "out", 2000)
    texts, _ = read_texts([TextSource(str(corpus))], load)
    found = measure_memory(out, texts, limit=3, length=40, continuation=12, **CPU)
    passages = data.make_passages(texts, base.tokenizer, 40)
    splits = data.draw_splits(
        passages, ([], []), budget=3 * (40 + K), k=K, continuation=12, seed=0
    )[:3]
    encoder, table = LLM2Comp(str(out), **CPU), base.model.get_input_embeddings()

    def predict(before, split):
        rows = [
            table(torch.tensor(ids)) for ids in ([base.tokenizer.bos_token_id], split.continuation)
        ]
        with torch.no_grad():
            logits = base.model(inputs_embeds=torch.cat([rows[0], before, rows[1]])[None]).logits[0]
        return logits[-len(split.continuation) - 1 :].log_softmax(-1)

    for i, split in enumerate(splits):
        log_p = predict(table(torch.tensor(split.context)), split)
        for column, source in enumerate((split, splits[i - 1])):
            memory = encoder.encode_memory([base.tokenizer.decode(source.context)])
            log_q = predict(torch.from_numpy(memory[0]), split)
            expected = (log_p.exp() * (log_p - log_q)).sum(-1).mean()
            assert found[i, column] == pytest.approx(float(expected.detach()), rel=1e-4)
    with pytest.raises(UsageError, match="at least 2"):
        measure_memory(out, texts, limit=1, length=40)
