"""LLM2Comp's recipe on tiny random models: every loss and gradient against an independent computation, and trainings that are killed."""

import itertools
import json
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from adapters._backbone import Backbone
from adapters._head import head_of
from adapters._training.budget import Spent
from adapters._training.loop import seeded
from adapters._training.sources import named
from adapters._training.weights import set_dropout
from adapters.llm2comp.compression import Compression, Split, splits
from adapters.llm2comp.contrastive import Contrast, contrast, tokenised, triples_of, twice
from adapters.llm2comp.encoder import CONFIG, MEMORY, LLM2Comp, random_memory
from adapters.llm2comp.gradients import in_portions
from adapters.llm2comp.held import held
from adapters.llm2comp.instructions import INSTRUCTIONS
from adapters.llm2comp.mntp import Masking, mask_id
from adapters.llm2comp.stages import Stages, restore
from adapters.llm2comp.texts import MARGIN, Passage, Plain, around, gathered, passages, sentences
from adapters.llm2comp.train import Recipe
from adapters.llm2comp.trainee import lora, prepared
from bench.data import load
from bench.errors import DataError, Unavailable, UsageError
from bench.testing import run_checks
from tests.processes import children_seconds, trained_by_two
from tests.tiny import LLAMA_LIKE, SENTENCES, tiny_folder

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
def trainee(request, base):
    made = stirred(prepared(base, K, request.param, rank=2, seed=5))
    assert attention_of(made) == request.param
    return made


def attention_of(made):
    return "native" if made.network.causal else "bidirectional"


def stirred(made):
    """Return the trainee with low-rank weights that change something: fresh ones change nothing yet."""
    draw = torch.Generator().manual_seed(3)
    for name, weight in made.weights().items():
        if "lora_B" in name:
            weight.data = 0.2 * torch.randn(weight.shape, generator=draw)
    return made


@pytest.fixture(scope="module")
def rows(base):
    ids = [
        base.tokenizer(f"{a} {b}", add_special_tokens=False)["input_ids"]
        for a, b in itertools.pairwise(SENTENCES)
    ]
    return [
        Split(i, row[: 8 + i], row[: 8 + i], row[8 + i : 20 + 2 * i]) for i, row in enumerate(ids)
    ]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A file of texts, each of several sentences in another order."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    drawn = [" ".join(SENTENCES[i] for i in rng.permutation(7)[:5]) for _ in range(30)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in drawn))
    return path


def merged_model(folder, made):
    """Return the plain model of transformers with the low-rank weights added by hand."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    state = made.weights()
    for name, module in model.named_modules():
        if name.endswith(TARGETS):
            low, high = (state[f"{name}.lora_{side}.default.weight"].detach() for side in "AB")
            module.weight.data += 2.0 * high @ low
    return model


def mask_of(t, *, causal):
    """Return what is added to the attention (1, 1, t, t): every token sees every other, or those before it alone."""
    mask = torch.full((1, 1, t, t), torch.finfo(torch.float32).min).triu(1)
    return mask if causal else torch.zeros_like(mask)


def states_of(model, inputs, *, causal=False):
    """Return the last states of one text's input embeddings (t, dim)."""
    return model.model(
        inputs_embeds=inputs[None], attention_mask=mask_of(len(inputs), causal=causal)
    ).last_hidden_state[0]


def embedded(model, ids):
    return model.get_input_embeddings().weight[torch.tensor(ids)]


def test_states_are_those_of_its_attention_and_the_memory_follows_the_text(folder, trainee, rows):
    model = merged_model(folder, trainee)
    texts_ = [row.read for row in rows]
    with torch.no_grad():
        states, mask = trainee.states(texts_)
        slots, means = trainee.slots(texts_), trainee.embeddings(texts_)
        for i, ids in enumerate(texts_):
            expected = states_of(
                model,
                torch.cat([embedded(model, ids), trainee.memory]),
                causal=trainee.network.causal,
            )
            assert int(mask[i].sum()) == len(ids) + K
            torch.testing.assert_close(states[i, : len(expected)], expected, **CLOSE)
            torch.testing.assert_close(slots[i], expected[-K:], **CLOSE)
            torch.testing.assert_close(means[i], expected[-K:].mean(0), **CLOSE)


def test_padding_on_the_left_would_give_the_same_embedding(folder, trainee, rows):
    model = merged_model(folder, trainee)
    ids, pads = rows[1].read, 5
    inputs = torch.cat([torch.randn(pads, 32), embedded(model, ids), trainee.memory.detach()])[None]
    mask = mask_of(inputs.shape[1], causal=trainee.network.causal)
    mask[..., :pads] = torch.finfo(torch.float32).min
    places = (torch.arange(inputs.shape[1]) - pads).clamp(min=0)[None]
    with torch.no_grad():
        left = (
            model.model(inputs_embeds=inputs, attention_mask=mask, position_ids=places)
            .last_hidden_state[0, -K:]
            .mean(0)
        )
        right = trainee.embeddings([row.read for row in rows])[1]
    torch.testing.assert_close(right, left, **CLOSE)


def reference(folder, made, row, objective):
    """Return the loss of one example, in float64, with every pass made alone and every position computed."""
    from transformers import AutoModelForCausalLM

    frozen = (
        AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval().double()
    )
    encoder = merged_model(folder, made).double()
    bos = [made.network.tokenizer.bos_token_id]
    memory = states_of(
        encoder,
        torch.cat([embedded(encoder, row.read), made.memory.double()]),
        causal=made.network.causal,
    )[-K:]
    target = row.context if objective == "rc" else row.continuation
    inputs = torch.cat([embedded(frozen, bos), memory, embedded(frozen, target)])
    student = (
        frozen(inputs_embeds=inputs[None]).logits[0].log_softmax(-1)[K:]
    )  # from the last memory vector on
    if objective != "kl":
        return -student[torch.arange(len(target)), torch.tensor(target)].sum(), len(target)
    teacher = (
        frozen(torch.tensor([[*bos, *row.context, *row.continuation]]))
        .logits[0]
        .log_softmax(-1)[len(row.context) :]
    )
    assert len(teacher) == len(student) == len(target) + 1
    return (teacher.exp() * (teacher - student)).sum() / (len(target) + 1), 1


@pytest.mark.parametrize("objective", ["kl", "nll", "rc"])
def test_the_loss_is_that_of_each_example_alone_however_a_batch_is_cut(
    folder, base, trainee, rows, objective
):
    with torch.no_grad():
        found = [reference(folder, trainee, row, objective) for row in rows]
    expected = float(sum(loss for loss, _ in found)) / sum(weight for _, weight in found)
    gradients = []
    for positions in (10_000, 90, 1):
        made = Compression(trainee, base, rows, objective, positions)
        parts = [made.loss(part) for part in made.parts(range(len(rows)))]
        total = sum(loss for loss, _ in parts)
        assert float(total.detach()) == pytest.approx(expected, rel=1e-5)
        gradients.append(torch.autograd.grad(total, trainee.memory)[0])
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0], atol=1e-6, rtol=1e-3)


def test_the_gradient_is_that_of_the_whole_computation(folder, base, trainee, rows):
    row = rows[2]
    loss, _ = reference(folder, trainee, row, "kl")
    expected = torch.autograd.grad(loss, trainee.memory)[0]
    made = Compression(trainee, base, rows, "kl", 1000)
    (part,) = made.parts([2])
    torch.testing.assert_close(
        torch.autograd.grad(made.loss(part)[0], trainee.memory)[0],
        expected.float(),
        atol=1e-6,
        rtol=1e-3,
    )


def test_the_context_s_own_embeddings_in_place_of_the_memory_leave_no_divergence(
    base, trainee, rows
):
    made = Compression(trainee, base, rows, "kl", 1000)
    table, head = base.model.get_input_embeddings().weight, base.model.get_output_embeddings()
    for row in rows:
        with torch.no_grad():
            student = head(
                made.after(table[torch.tensor([row.context])], [row.continuation])
            ).log_softmax(-1)
            teacher = head(made.after(None, [row.continuation], [row.context])).log_softmax(-1)
        assert student.shape[0] == len(row.continuation) + 1
        assert float((teacher.exp() * (teacher - student)).sum(-1).abs().max()) < 1e-5


def test_scores_of_the_vocabulary_are_float32_where_the_network_computes_in_bfloat16(folder):
    network = Backbone(str(folder), head="lm", dtype="bfloat16", device="cpu").load()
    assert head_of(network)(torch.ones(2, 32, dtype=torch.bfloat16)).dtype == torch.float32


def test_only_the_encoder_s_positions_count_as_trained(base, trainee, rows):
    contexts, targets = (
        sum(len(row.context) for row in rows),
        sum(len(row.continuation) for row in rows),
    )
    for objective, inference in (
        ("kl", (1 + K) * len(rows) + targets + len(rows) + contexts + targets),
        ("nll", (1 + K) * len(rows) + targets),
        ("rc", (1 + K) * len(rows) + contexts),
    ):
        made = Compression(trainee, base, rows, objective, 100)
        spent = sum((made.loss(part)[1] for part in made.parts(range(len(rows)))), Spent())
        assert spent == Spent(contexts + K * len(rows), inference)


def test_gradients_reach_low_rank_weights_and_memory_and_nothing_else(base, trainee, rows):
    made = Compression(trainee, base, rows, "kl", 1000)
    (part,) = made.parts(range(len(rows)))
    made.loss(part)[0].backward()
    weights = trainee.weights()
    assert all(float(weight.grad.abs().max()) > 0 for weight in weights.values())
    reached = {
        name for name, weight in trainee.network.model.named_parameters() if weight.grad is not None
    }
    assert reached == weights.keys() - {"memory"}
    assert all(".lora_" in name for name in reached)
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in reached} == set(
        TARGETS
    )  # not on k
    assert all(weight.grad is None for weight in base.model.parameters())


def test_the_frozen_backbone_and_the_encoder_share_their_weights(base, trainee):
    ours = {
        weight.data_ptr()
        for name, weight in trainee.network.model.named_parameters()
        if ".lora_" not in name
    }
    assert ours == {weight.data_ptr() for weight in base.model.parameters()}
    assert base.causal


def test_portions_of_a_loss_add_up_to_its_value_and_gradient():
    states = torch.randn(11, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
    doubled = 2 * states
    whole = (doubled**3).sum()
    for size in (1, 4, 100):
        value = in_portions(lambda part, where: (part**3).sum(), 2 * states, size)
        assert float(value.detach()) == pytest.approx(float(whole.detach()), rel=1e-5)
        torch.testing.assert_close(
            torch.autograd.grad(value, states)[0],
            torch.autograd.grad(whole, states, retain_graph=True)[0],
        )


def test_passages_are_split_uniformly_between_the_margins_and_the_seed_decides():
    long = [Passage(str(i), list(range(30))) for i in range(50)]
    options = {"positions": 20_000, "k": K, "continuation": 7}
    made = splits(long, ([1], []), **options, seed=3)
    points = [len(split.context) for split in made]
    assert set(points) == set(range(MARGIN, 30 - MARGIN + 1))
    counts = np.bincount(points)[MARGIN:]
    assert counts.max() < 1.6 * counts.min()  # some 80 draws a point
    assert all(split.read == [1, *split.context] for split in made)
    assert all(
        split.context + split.continuation == list(range(len(split.context) + 7)) for split in made
    )
    assert 0 < sum(len(split.read) + K for split in made) - 20_000 < 30 + K + 1
    assert sorted(split.passage for split in made[:50]) == list(range(50))
    assert (
        made
        == splits(long, ([1], []), **options, seed=3)
        != splits(long, ([1], []), **options, seed=4)
    )


@pytest.mark.parametrize("positions", [10_000, 40])
def test_masked_tokens_are_predicted_from_the_state_before_them(folder, base, positions, rows):
    made = stirred(prepared(base, 0, "bidirectional", rank=2, seed=5))
    model, blank = merged_model(folder, made), mask_id(base.tokenizer)
    ids = [row.context + row.continuation for row in rows]
    objective = Masking(made, base, ids, positions, seed=1)
    parts = objective.parts([0, 2, 3])
    total = count = 0
    for part in parts:
        for row, places in zip(part.ids, part.places, strict=True):
            assert 0 not in places
            assert len(places) == max(round(0.2 * len(row)), 1)
            with torch.no_grad():
                hidden = [blank if i in places else id_ for i, id_ in enumerate(row)]
                logits = model.lm_head(states_of(model, embedded(model, hidden))).log_softmax(-1)
            total -= sum(float(logits[i - 1, row[i]]) for i in places)
            count += len(places)
    found = [objective.loss(part) for part in parts]
    assert sum(float(loss.detach()) for loss, _ in found) == pytest.approx(total / count, rel=1e-4)
    assert sum(spent.trained for _, spent in found) == sum(len(ids[i]) for i in (0, 2, 3))


@pytest.mark.parametrize("views", [2, 3])
def test_contrast_is_the_cross_entropy_over_second_and_third_texts(views):
    vectors = np.random.default_rng(1).standard_normal((views, 4, 6))
    unit = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    losses = []
    for i in range(4):
        scores = [unit[0, i] @ unit[view, j] / 0.05 for view in range(1, views) for j in range(4)]
        losses.append(np.log(np.exp(scores).sum()) - scores[i])
    assert float(contrast(torch.tensor(vectors), 0.05)) == pytest.approx(np.mean(losses), rel=1e-4)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_batch_computed_in_portions_gives_the_gradient_of_the_whole(base, trainee, dropout):
    set_dropout(trainee.network.model, hidden=0.0, attention=dropout)
    trainee.network.model.train()
    made = Contrast(trainee, twice(SENTENCES[:5], base.tokenizer, 40), 0.05, 60)
    weights = list(trainee.weights().values())
    with seeded(1, "cpu"):
        parts = made.parts(range(5))
        found = [made.loss(part) for part in parts]
    assert len(parts) > 2
    ours = torch.autograd.grad(sum(loss for loss, _ in found), weights)
    vectors = torch.zeros(10, 32)
    for part in parts:  # all of them in memory at once, under the same dropout
        with seeded(part.seed, "cpu"):
            vectors = vectors.index_put((torch.tensor(part.order),), trainee.embeddings(part.rows))
    whole = contrast(vectors.view(2, 5, -1), 0.05)
    assert sum(float(loss.detach()) for loss, _ in found) == pytest.approx(
        float(whole.detach()), rel=1e-4
    )
    for one, other in zip(ours, torch.autograd.grad(whole, weights), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-3)
    if not dropout:
        (alone,) = (direct := replace(made, positions=10_000)).parts(range(5))
        for one, other in zip(
            ours, torch.autograd.grad(direct.loss(alone)[0], weights), strict=True
        ):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_dropout_makes_two_views_of_a_text_differ_and_none_makes_them_equal(kind, tmp_path):
    network = Backbone(
        str(tiny_folder(kind, tmp_path / kind, head=True)), head="lm", dtype="float32", device="cpu"
    ).load()
    made = prepared(network, K, "native", rank=2, seed=5)
    (ids, again), *_ = twice(SENTENCES[:1], network.tokenizer, 40)
    for dropout in (0.0, 0.2):
        set_dropout(made.network.model, hidden=0.0, attention=dropout)
        made.network.model.train()
        with torch.no_grad(), seeded(1, "cpu"):
            one, other = made.embeddings([ids, again])
        assert torch.allclose(one, other, atol=1e-5) == (dropout == 0)


def test_what_is_saved_and_merged_gives_the_vectors_of_what_was_trained(
    folder, base, trainee, tmp_path
):
    place, attention = tmp_path / "out", attention_of(trainee)
    plan = Recipe(str(folder), k=K, attention=attention, rank=2)
    written(trainee, plan_of(plan, base, place), place, str(folder))
    kept = prepared(base, K, attention, rank=2, seed=0)
    restore(kept, place, low_rank=True)
    encoder = LLM2Comp(str(place), dtype="float32", device="cpu", normalise=False)
    with torch.no_grad():
        expected = kept.embeddings([ids for ids, _ in twice(SENTENCES, base.tokenizer, 120)])
    assert np.abs(encoder.encode(SENTENCES) - expected.numpy()).max() < 1e-5
    memory = encoder.encode_memory(SENTENCES)
    assert memory.shape == (len(SENTENCES), K, 32)
    np.testing.assert_allclose(memory.mean(1), expected.numpy(), atol=1e-5)
    assert json.loads((place / CONFIG).read_text())["memory_ids"] == list(
        range(len(base.tokenizer), len(base.tokenizer) + K)
    )


def test_memory_begins_as_words_over_and_over_or_as_random_rows(base):
    ids = base.tokenizer("the cat sat", add_special_tokens=False)["input_ids"]
    table = base.model.get_input_embeddings().weight
    made = prepared(base, len(ids) + 2, "native", rank=2, seed=0, words="the cat sat")
    torch.testing.assert_close(made.memory.data, table[[*ids, *ids[:2]]].float())
    first, second = (prepared(base, 3, "native", rank=2, seed=seed).memory for seed in (0, 1))
    assert torch.equal(first, second)
    torch.testing.assert_close(
        first.data, random_memory(table, 3)
    )  # the rows of an encoder that was never trained


def written(made, stages, place, source):
    lora(2).save(made.network, place, source)
    stages._describe(place, made, [place])


def plan_of(recipe, base, out, *, new_lora=False):
    from adapters._training.loop import Training

    training = Training("llm2comp", {"backbone": recipe.backbone}, 1, 0)
    return Stages(
        out,
        training,
        [],
        base,
        recipe.k,
        recipe.attention,
        recipe.words,
        recipe.rank,
        new_lora,
        keep=False,
        progress=print,
    )


def test_a_stage_with_new_low_rank_weights_begins_with_the_vectors_of_the_one_before(
    folder, base, trainee, tmp_path
):
    attention = attention_of(trainee)
    stages = plan_of(
        Recipe(str(folder), k=K, attention=attention, rank=2), base, tmp_path, new_lora=True
    )
    written(trainee, stages, tmp_path / "first", str(folder))
    before = prepared(base, K, attention, rank=2, seed=0)
    restore(before, tmp_path / "first", low_rank=True)
    begun = stages._started([tmp_path / "first"], seed=0)
    ids = [ids for ids, _ in twice(SENTENCES, base.tokenizer, 120)]
    with torch.no_grad():
        expected = before.embeddings(ids)
        torch.testing.assert_close(begun.embeddings(ids), expected, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(
            prepared(base, K, attention, rank=2, seed=0).embeddings(ids), expected, atol=1e-3
        )
    assert all(
        float(weight.detach().abs().max()) == 0
        for name, weight in begun.weights().items()
        if "lora_B" in name
    )


def test_wikitext_is_written_as_people_write_and_unknown_words_are_left_out(tmp_path):
    line = ' The 3 @-@ 2 win ( his first ) was " big " , he said . <unk> went home . It did n\'t rain .\n'
    path = tmp_path / "wiki.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in (" = Title = \n", line)))
    found, material = gathered([replace(named(str(path), Plain)[0], tokenised=True)], load)
    assert found == ['The 3-2 win (his first) was "big", he said.', "It didn't rain."]
    assert material[0].rows == 2


def test_sentences_end_where_a_new_one_begins_and_keep_their_quotes():
    text = 'He said "Go." Then (in 1984) it rained, e.g. here. 7 came!\nno end'
    assert sentences(text) == [
        'He said "Go."',
        "Then (in 1984) it rained, e.g. here.",
        "7 came!",
        "no end",
    ]


def test_passages_are_whole_sentences_and_fit(base):
    text = " ".join(SENTENCES)
    made = passages([text, "no"], base.tokenizer, 40)
    assert max(len(passage.ids) for passage in made) <= 40
    assert [part for passage in made[:-1] for part in sentences(passage.text)] == sentences(text)
    assert made[-1].text == "no"
    assert len(made) < len(SENTENCES)
    (cut,) = passages(["word " * 200], base.tokenizer, 40)
    assert len(cut.ids) == 40


def test_special_tokens_around_a_text_are_those_of_the_tokenizer(base, tmp_path):
    assert around(base.tokenizer) == ([], [])
    roberta = (
        Backbone(str(tiny_folder("roberta", tmp_path / "r")), dtype="float32", device="cpu")
        .load()
        .tokenizer
    )
    assert around(roberta) == ([roberta.bos_token_id], [roberta.eos_token_id])


def test_texts_come_from_files_of_one_s_own(tmp_path, caplog):
    (tmp_path / "a.txt").write_text("One text\nof two lines.\n\nAnother one.\n")
    (tmp_path / "b.jsonl").write_text('{"label": 1}\n')
    found, material = gathered(named(f"{tmp_path / 'a.txt'},no/such-set", Plain), load)
    assert found == ["One text\nof two lines.", "Another one."]
    assert len(material[0].pin["sha256"]) == 64
    assert "no/such-set" in caplog.text
    with pytest.raises(Unavailable, match="--set sources="):
        gathered(named("no/such-set", Plain), load)
    with pytest.raises(DataError, match="text"):
        gathered(named(str(tmp_path / "b.jsonl"), Plain), load)
    with pytest.raises(UsageError):
        named("a/b:c:d:e", Plain)


def test_triples_put_the_instruction_before_the_query_only(base, tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text(
        json.dumps(
            {
                "query": "who?",
                "positive": "she",
                "negative": "rain",
                "instruction": "Find the answer:",
            }
        )
        + "\n"
    )
    (triple,), _ = triples_of([str(path)], load)
    assert [base.tokenizer.decode(ids) for ids in tokenised([triple], base.tokenizer, 60)[0]] == [
        "Find the answer:who?\n",
        "she",
        "rain",
    ]


ENTAILED, SIMILAR = (
    "Given a premise, retrieve a hypothesis that is entailed by the premise",
    "Retrieve semantically similar text",
)


@pytest.mark.parametrize(
    ("name", "corrected", "asked"),
    [
        (
            "trivia_qa.jsonl",
            False,
            ["Retrieve Wikipedia passages that answer the question:who?\n"] * 3,
        ),
        ("mine.jsonl", False, ["who?"] * 3),
        ("allnli.jsonl", False, [f"{ENTAILED} {SIMILAR}:who?\n"] * 3),
        ("allnli.jsonl", True, [f"{told}:who?\n" for told in (ENTAILED, SIMILAR, ENTAILED)]),
    ],
)
def test_queries_of_a_set_of_the_paper_have_its_instruction(tmp_path, name, corrected, asked):
    row = json.dumps({"query": "who?", "positive": "she", "negative": "rain"}) + "\n"
    (tmp_path / name).write_text(row * len(asked))
    triples, _ = triples_of([str(tmp_path / name)], load, corrected=corrected)
    assert [f"{query.before}{query.text}{query.after}" for query, _, _ in triples] == asked


PAPER = {
    "allnli": f"{ENTAILED} {SIMILAR}",
    "dureader": "Given a Chinese search query, retrieve web passages that answer the question",
    "eli5_question_answer": "Provided a user question, retrieve the highest voted answers on Reddit ELI5 forum",
    "fever": "Given a claim, retrieve documents that support or refute the claim",
    "hotpot_qa": "Given a multi-hop question, retrieve documents that can help answer the question",
    "miracl": "Given a question, retrieve Wikipedia passages that answer the question",
    "mrtydi": "Given a question, retrieve Wikipedia passages that answer the question",
    "msmarco_document": "Given a web search query, retrieve relevant documents that answer the query",
    "msmarco_passage": "Given a web search query, retrieve relevant passages that answer the query",
    "nq": "Given a question, retrieve Wikipedia passages that answer the question",
    "squad": "Retrieve Wikipedia passages that answer the question",
    "t2ranking": "Given a Chinese search query, retrieve web passages that answer the question",
    "trivia_qa": "Retrieve Wikipedia passages that answer the question",
}


def test_instructions_of_stage_3_are_the_published_ones():
    asked = (
        "Given a question, retrieve questions that are semantically equivalent to the given question",
        "Find questions that have the same meaning as the input question",
    )
    assert {name: (told,) for name, told in PAPER.items()} | {"quora_duplicates": asked} == dict(
        INSTRUCTIONS
    )


def test_a_triple_without_one_of_its_texts_is_refused_with_its_line(tmp_path):
    path = tmp_path / "t.jsonl"
    rows = [
        {"query": "who?", "positive": "she", "negative": negative} for negative in ("rain", None)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=r"t\.jsonl line 2"):
        triples_of([str(path)], load)


class KilledError(Exception):
    """Stands for a signal."""


def tiny_recipe(folder, corpus, **more):
    options = {
        "attention": "bidirectional",
        "sources": str(corpus),
        "k": K,
        "length": 40,
        "batch_size": 4,
    }
    options |= {"contrastive": 0.3, "contrastive_batch": 6}
    return Recipe(str(folder), rank=2, device="cpu", dtype="float32", **(options | more))


def quiet(*_):
    return None


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    path = tmp_path_factory.mktemp("answers") / "triples.jsonl"
    rows = [
        {"query": a, "positive": b, "negative": SENTENCES[0]}
        for a, b in itertools.pairwise(SENTENCES)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def staged(folder, corpus, answers, tmp_path_factory):
    """Return recipes of four stages and what they give when nothing comes between, with new low-rank weights or without."""
    shares = {
        "healing": 0.2,
        "contrastive": 0.2,
        "supervised": 0.2,
        "triples": str(answers),
        "document": 100,
    }
    recipes = {new: tiny_recipe(folder, corpus, new_lora=new, **shares) for new in (False, True)}
    return {
        new: (recipe, trained(recipe, tmp_path_factory.mktemp("staged") / "out", quiet))
        for new, recipe in recipes.items()
    }


def trained(recipe, out, progress):
    return recipe.train(out, budget=4000, seed=1, load=load, progress=progress)


@pytest.mark.parametrize(
    ("stage", "new_lora"),
    [
        ("healing", False),
        ("compression", False),
        ("contrastive", False),
        ("supervised", False),
        ("contrastive", True),
    ],
)
def test_a_training_killed_at_any_stage_goes_on_to_the_same_weights(
    staged, tmp_path, stage, new_lora
):
    recipe, whole = staged[new_lora]
    broken = tmp_path / "broken"

    def killing(what, done, total):
        if what == f"llm2comp {stage}: training" and done == 2:
            raise KilledError

    with pytest.raises(KilledError):
        trained(recipe, broken, killing)
    assert not (broken / "card.json").exists()
    seen = []
    trained(recipe, broken, lambda what, done, total: seen.append((what, done)))
    assert (f"llm2comp {stage}: training", 0) not in seen  # it went on
    names = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(broken) for path in broken.rglob("*") if path.is_file())
    for name in (name for name in names if name.name != "card.json"):
        assert (whole / name).read_bytes() == (broken / name).read_bytes()


def test_a_state_that_a_kill_left_behind_goes_and_kept_stages_stay(folder, corpus, tmp_path):
    recipe, out = tiny_recipe(folder, corpus), tmp_path / "out"

    def killing(what, *_):
        if what == "llm2comp contrastive: training":
            raise KilledError

    with pytest.raises(KilledError):
        recipe.train(out, budget=1000, seed=1, load=load, progress=killing)
    (out / "compression.pt").write_bytes(
        b"what a kill between the stage's card and its removal leaves"
    )
    replace(recipe, keep=True).train(out, budget=1000, seed=1, load=load, progress=quiet)
    assert {path.name for path in out.iterdir() if path.is_dir()} == {"compression", "contrastive"}
    assert not list(out.glob("*.pt"))
    recipe.train(out, budget=1000, seed=1, load=load, progress=quiet)
    assert (out / "contrastive").is_dir()  # what was asked to be kept stays


def test_stages_that_a_kill_left_beside_a_finished_checkpoint_go(
    folder, corpus, tmp_path, monkeypatch
):
    def kill(*_):
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(Stages, "_clear", kill)
        with pytest.raises(KilledError):
            tiny_recipe(folder, corpus).train(
                tmp_path, budget=1000, seed=1, load=load, progress=quiet
            )
    assert (tmp_path / "contrastive").is_dir()
    tiny_recipe(folder, corpus).train(tmp_path, budget=1000, seed=1, load=load, progress=quiet)
    assert not [path.name for path in tmp_path.iterdir() if path.is_dir()]


def test_two_processes_take_turns_and_return_when_the_checkpoint_is_whole(folder, corpus, tmp_path):
    recipe = tiny_recipe(folder, corpus)
    trained_by_two(recipe, tmp_path / "both", 4000)
    alone, both = (
        json.loads((out / "card.json").read_text())
        for out in (trained(recipe, tmp_path / "alone", quiet), tmp_path / "both")
    )
    for ours, theirs in zip(alone["stages"], both["stages"], strict=True):
        assert theirs["trained_tokens"] == ours["trained_tokens"]
    first = [card["stages"][0]["loss"][0][1] for card in (alone, both)]
    assert first[1] == pytest.approx(first[0], rel=1e-4)  # sums in another order


@pytest.mark.parametrize(
    ("objective", "named", "expected"),
    [
        ("kl", "auto", "native"),
        ("mntp", "auto", "bidirectional"),
        ("mntp", "native", "native"),
        ("kl", "bidirectional", "bidirectional"),
    ],
)
def test_attention_is_that_of_the_objective_unless_named(
    folder, corpus, tmp_path, objective, named, expected
):
    recipe = tiny_recipe(folder, corpus, objective=objective, attention=named, contrastive=0.0)
    out = recipe.train(tmp_path / "out", budget=300, seed=1, load=load, progress=quiet)
    assert json.loads((out / CONFIG).read_text())["attention"] == expected
    replace(recipe, attention=expected).train(
        out, budget=300, seed=1, load=load, progress=quiet
    )  # the same training


@pytest.mark.parametrize("kind", [*LLAMA_LIKE, "opt"])
def test_other_decoders_see_both_ways_and_are_trained(kind, corpus, tmp_path):
    source = tiny_folder(kind, tmp_path / "base", head=True)
    out = tiny_recipe(source, corpus, lr=5e-3).train(
        tmp_path / "out", budget=1500, seed=1, load=load, progress=quiet
    )
    first, second = ("The cat sat on the mat and watched", "The cat sat on the mat and rain")
    for encoder, moved in (
        (LLM2Comp(str(out), device="cpu"), True),
        (LLM2Comp(str(source), attention="native", device="cpu"), False),
    ):
        one, other = replace(encoder, dtype="float32").encode_tokens([first, second])
        assert (np.abs(one.states[:6] - other.states[:6]).max(1) > 1e-4).all() == moved
    assert all(
        stage["steps"] > 1 and np.isfinite(stage["loss"]).all()
        for stage in json.loads((out / "card.json").read_text())["stages"]
    )


@pytest.mark.parametrize("objective", ["kl", "nll", "rc", "mntp"])
def test_each_objective_is_learnt_and_its_checkpoint_keeps_the_contract(
    folder, corpus, tmp_path, objective
):
    recipe = tiny_recipe(folder, corpus, objective=objective, lr=5e-3, contrastive=0.2, keep=True)
    out = recipe.train(tmp_path / "out", budget=12_000, seed=1, load=load, progress=quiet)
    card = json.loads((out / "card.json").read_text())
    first, second = card["stages"]
    losses = np.asarray(first["loss"])[:, 1]
    quarter = len(losses) // 4
    assert (
        losses[-quarter:].mean() < losses[:quarter].mean()
    )  # single steps of four texts say little
    assert 11_500 < card["trained_tokens"] <= 12_000
    assert card["trained_tokens"] == first["trained_tokens"] + second["trained_tokens"]
    assert card["inference_tokens"] == first["inference_tokens"]
    assert (first["inference_tokens"] == 0) == (objective == "mntp")
    encoder = LLM2Comp(str(out), device="cpu", dtype="float32")
    assert encoder.card().trained
    assert encoder.card().training_tokens == card["trained_tokens"]
    assert encoder.runs().find_overlaps(
        [*SENTENCES[:2], "an unseen text with more than eight words in it"]
    ).tolist() == [True, True, False]
    assert [outcome for outcome in run_checks(encoder) if outcome.status == "failed"] == []
    earlier = LLM2Comp(
        str(out / ("mntp" if objective == "mntp" else "compression")), device="cpu", dtype="float32"
    )
    assert earlier.card().training_tokens == first["trained_tokens"]
    assert not np.allclose(earlier.encode(SENTENCES), encoder.encode(SENTENCES), atol=1e-3)


@pytest.mark.parametrize("new_lora", [False, True])
def test_what_memory_holds_is_the_kl_with_its_own_text_and_with_the_one_before(
    folder, base, corpus, tmp_path, new_lora
):
    recipe = tiny_recipe(folder, corpus, lr=2e-2, new_lora=new_lora)
    out = recipe.train(tmp_path / "out", budget=3000, seed=1, load=load, progress=quiet)
    plain, _ = gathered([Plain(str(corpus))], load)
    found = held(out, plain, limit=3, length=40, continuation=12, dtype="float32", device="cpu")
    long = [passage for passage in passages(plain, base.tokenizer, 40) if len(passage.ids) >= 20]
    rows = splits(
        long, around(base.tokenizer), positions=3 * (40 + K + 2), k=K, continuation=12, seed=0
    )[:3]
    encoder, table = (
        LLM2Comp(str(out), device="cpu", dtype="float32"),
        base.model.get_input_embeddings(),
    )
    start = [base.tokenizer.bos_token_id]

    def following(inputs, row):
        with torch.no_grad():
            return (
                base.model(inputs_embeds=inputs)
                .logits[0, -len(row.continuation) - 1 :]
                .log_softmax(-1)
            )

    for i, row in enumerate(rows):
        teacher = following(table(torch.tensor([[*start, *row.context, *row.continuation]])), row)
        for column, source in enumerate((row, rows[i - 1])):
            memory = torch.from_numpy(
                encoder.encode_memory([base.tokenizer.decode(source.context)])
            )
            inputs = torch.cat(
                [table(torch.tensor([start])), memory, table(torch.tensor([row.continuation]))], 1
            )
            expected = (teacher.exp() * (teacher - following(inputs, row))).sum(-1).mean()
            assert found[i, column] == pytest.approx(float(expected), rel=1e-4)
    assert (np.abs(found[:, 0] - found[:, 1]) > 1e-3 * found[:, 0]).all()  # ten times the tolerance


def test_what_memory_holds_needs_two_texts_and_a_memory(folder, corpus, tmp_path):
    out = tiny_recipe(folder, corpus, contrastive=0.0).train(
        tmp_path / "out", budget=300, seed=1, load=load, progress=quiet
    )
    plain, _ = gathered([Plain(str(corpus))], load)
    with pytest.raises(UsageError, match=r"at least 2, .* got 1"):
        held(out, plain, limit=1, length=40)
    with pytest.raises(DataError, match="more texts"):
        held(out, ["The cat sat on the mat. " * 6], length=40)
    with pytest.raises(DataError, match="longer texts"):
        held(out, ["The cat sat."], length=40)
    recipe = tiny_recipe(folder, corpus, contrastive=0.0, objective="mntp")
    without = recipe.train(tmp_path / "mntp", budget=300, seed=1, load=load, progress=quiet)
    with pytest.raises(UsageError, match="memory"):
        held(without, plain, length=40)


def test_new_low_rank_weights_are_added_to_those_of_the_stage_before(folder, corpus, tmp_path):
    out = tiny_recipe(folder, corpus, new_lora=True).train(
        tmp_path / "out", budget=3000, seed=1, load=load, progress=quiet
    )
    assert json.loads((out / CONFIG).read_text())["stages"] == ["compression", "contrastive"]
    encoder = LLM2Comp(str(out), device="cpu", dtype="float32")
    assert np.isfinite(encoder.encode(SENTENCES)).all()
    last = LLM2Comp(str(out / "contrastive"), device="cpu", dtype="float32")
    np.testing.assert_array_equal(last.encode(SENTENCES), encoder.encode(SENTENCES))


def test_without_new_low_rank_weights_the_folder_holds_one_set(folder, corpus, tmp_path):
    out = tiny_recipe(folder, corpus).train(
        tmp_path / "out", budget=3000, seed=1, load=load, progress=quiet
    )
    kept = {path.relative_to(out).as_posix() for path in out.rglob("*")}
    assert kept == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "card.json",
        CONFIG,
        MEMORY,
        "runs.u64",
    }


def test_each_stage_has_its_own_rate_dropout_and_temperature(
    folder, corpus, answers, tmp_path, monkeypatch
):
    from adapters.llm2comp import stages

    seen, fit = {}, stages.fit

    def noting(weights, plan, objective, optimisation, *, network, training, **how):
        layers = [layer for layer in network.model.modules() if hasattr(layer, "attention_dropout")]
        dropped = {float(layer.attention_dropout) for layer in layers if layer.training}
        seen[training.method] = optimisation.lr, dropped, getattr(objective, "temperature", None)
        return fit(
            weights, plan, objective, optimisation, network=network, training=training, **how
        )

    monkeypatch.setattr(stages, "fit", noting)
    shares = {"contrastive": 0.3, "supervised": 0.3, "triples": str(answers), "document": 100}
    recipe = tiny_recipe(
        folder, corpus, lr=2e-3, contrastive_lr=3e-4, temperature=0.1, dropout=0.25, **shares
    )
    recipe.train(tmp_path / "out", budget=1500, seed=1, load=load, progress=quiet)
    assert seen == {
        "llm2comp compression": (2e-3, {0.0}, None),
        "llm2comp contrastive": (3e-4, {0.25}, 0.1),
        "llm2comp supervised": (3e-4, {0.0}, 0.1),
    }


def test_rank_memory_dropout_and_temperature_are_those_of_the_paper():
    made = Recipe()
    assert (made.objective, made.k, made.rank, made.dropout, made.temperature) == (
        "kl",
        8,
        16,
        0.2,
        0.05,
    )


def test_a_finished_training_is_not_repeated_and_another_one_is_refused(folder, corpus, tmp_path):
    recipe = tiny_recipe(folder, corpus, contrastive=0.0)
    out = recipe.train(tmp_path / "out", budget=1000, seed=1, load=load, progress=quiet)
    seen = []
    recipe.train(out, budget=1000, seed=1, load=load, progress=lambda what, *_: seen.append(what))
    assert seen == ["reading data"]
    with pytest.raises(UsageError, match="other settings"):
        recipe.train(out, budget=1000, seed=2, load=load, progress=quiet)


@pytest.mark.parametrize(
    "setting",
    [
        {"objective": "no"}, {"attention": "no"}, {"contrastive": 1.0}, {"healing": -0.1}, {"k": 0}, {"length": 19}, {"supervised": 0.1},
        {"healing": 0.1, "attention": "auto"}, {"temperature": 0.0}, {"dropout": 1.0}, {"dropout": -0.1}, {"lr": 0.0},
        {"contrastive_lr": float("nan")}, {"corrected": True},
    ],
)  # fmt: skip
def test_settings_that_are_off_are_refused(folder, corpus, tmp_path, setting):
    with pytest.raises(UsageError):
        tiny_recipe(folder, corpus, **setting).train(
            tmp_path / "out", budget=1000, seed=1, load=load, progress=quiet
        )


@pytest.mark.parametrize(
    "setting",
    [{"length": 126}, {"sentence": 126}, {"k": 100}, {"document": 126, "supervised": 0.1}],
)
def test_lengths_beyond_the_backbone_s_positions_are_refused(
    folder, corpus, answers, tmp_path, setting
):
    recipe = tiny_recipe(
        folder, corpus, triples=str(answers) if "supervised" in setting else "", **setting
    )
    with pytest.raises(UsageError, match="128 positions"):
        recipe.train(tmp_path / "out", budget=1000, seed=1, load=load, progress=quiet)


def test_texts_too_short_to_be_split_are_an_error_that_says_so(folder, tmp_path):
    (tmp_path / "short.txt").write_text("no\n\nyes\n")
    with pytest.raises(DataError, match="longer texts"):
        tiny_recipe(folder, tmp_path / "short.txt").train(
            tmp_path / "out", budget=1000, seed=1, load=load, progress=quiet
        )


def test_a_training_killed_on_the_command_line_goes_on_and_its_encoder_keeps_the_contract(
    folder, corpus, tmp_path
):
    settings = [
        f"backbone={folder}",
        f"sources={corpus}",
        "length=40",
        "batch_size=2",
        "contrastive_batch=4",
        "contrastive=0.3",
        "rank=2",
    ]
    command = [
        sys.executable,
        "-m",
        "bench",
        "train",
        "llm2comp",
        "--device",
        "cpu",
        "--dtype",
        "float32",
        "--json",
        "--budget",
        "20000",
    ]
    command += [
        "--out",
        str(tmp_path / "out"),
        *(part for text in settings for part in ("--set", text)),
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as broken:
        while not (
            tmp_path / "out" / "compression.pt"
        ).exists():  # there after the first of many steps
            assert broken.poll() is None
            time.sleep(0.01)
        broken.kill()
    again = subprocess.run(command, capture_output=True, text=True, timeout=170)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["out"] == str(tmp_path / "out")
    encoder = LLM2Comp(str(tmp_path / "out"), device="cpu", dtype="float32")
    assert encoder.card().training_tokens > 19_000
    assert [outcome for outcome in run_checks(encoder) if outcome.status == "failed"] == []


def test_the_packaged_backbone_goes_through_all_stages_with_twenty_thousand_tokens_in_three_minutes_of_two_cores(
    tmp_path,
):
    names, towns = ("Anna", "Ben", "Cleo", "Dora"), ("Rome", "Oslo", "Lima")
    told = [
        f"{names[i % 4]} of house {i} lives in {towns[i % 3]} since {1900 + i % 99} and plays the violin number {i} every day."
        for i in range(600)
    ]
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n\n".join(" ".join(told[i : i + 4]) for i in range(0, len(told), 4)))
    command = [
        sys.executable,
        "-m",
        "bench",
        "train",
        "llm2comp",
        "--budget",
        "20000",
        "--device",
        "cpu",
        "--out",
        str(tmp_path / "out"),
    ]
    with children_seconds(2 * 180):
        made = subprocess.run(
            [*command, "--set", f"sources={corpus}"], capture_output=True, text=True, timeout=900
        )  # a busy machine
    assert made.returncode == 0, made.stderr
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["trained_tokens"] > 19_000
    assert [stage["stage"] for stage in card["stages"]] == ["compression", "contrastive"]
    assert sum(file.stat().st_size for file in (tmp_path / "out").glob("*.safetensors")) < 12e6
    assert [
        outcome
        for outcome in run_checks(LLM2Comp(str(tmp_path / "out")))
        if outcome.status == "failed"
    ] == []
