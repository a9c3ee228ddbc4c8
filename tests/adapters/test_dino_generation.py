"""DINO's texts: self-debiasing against the formulae, and texts written together against those written alone."""

import gc
import json
import weakref
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from adapters._backbone import Backbone
from adapters._drawing import draw_tokens
from adapters._head import head_of
from adapters.dino.debiasing import Sampling, debiased
from adapters.dino.generation import Wish, Writing, continued, framed, planned, written
from adapters.dino.prompting import log_probabilities
from adapters.dino.specification import built_in, parsed, read
from bench.errors import DataError, UsageError
from tests.tiny import SENTENCES, tiny_folder

torch = pytest.importorskip("torch")
from transformers import AutoConfig, AutoModelForCausalLM  # noqa: E402 - only with torch

NAMES = {"1": "Same.", "0.5": "Like.", "0": "Other."}
COUNTERS = {"1": [], "0.5": ["1"], "0": ["1", "0.5"]}
SPEC = {
    "task_name": "tiny",
    "labels": {
        k: {"instruction": f'{NAMES[k]}\nA: "<X1>"\nB: "', "counter_labels": COUNTERS[k]}
        for k in NAMES
    },
}
TASK = parsed(SPEC, "SPEC")
WISHES = [
    Wish(x1, label, k)
    for x1 in ("The cat sat.", "It was a warm, funny and moving film.")
    for label in NAMES
    for k in range(2)
]


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    place = tmp_path_factory.mktemp("dino-generation")
    kinds = ("llama", "opt")
    folders = {kind: tiny_folder(kind, place / kind, head=True) for kind in kinds}
    return {
        kind: Backbone(str(folders[kind]), head="lm", dtype="float32", device="cpu").load()
        for kind in kinds
    }


SCALED = {
    "gemma2": {
        "head_dim": 8,
        "num_key_value_heads": 2,
        "final_logit_softcapping": 2.0,
        "intermediate_size": 64,
    },
    "granite": {"num_key_value_heads": 2, "logits_scaling": 4.0, "intermediate_size": 64},
    "cohere": {"num_key_value_heads": 2, "logit_scale": 0.25, "intermediate_size": 64},
    "hyperclovax": {"num_key_value_heads": 2, "logits_scaling": 4.0, "intermediate_size": 64},
    "llama": {"num_key_value_heads": 2, "intermediate_size": 64},
}


def made_up(networks, kind):
    """Return a network with a random model of another kind in it."""
    network, sizes = (
        networks["llama"],
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "initializer_range": 0.2,
        },
    )
    config = AutoConfig.for_model(
        kind, vocab_size=len(network.tokenizer), pad_token_id=0, **sizes, **SCALED[kind]
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return replace(
            network, model=AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
        )


def by_the_formulae(own, others, decay, floor):
    """Compute the new distribution from probabilities, as the paper writes it."""
    gap = np.maximum(0, np.max(others, axis=0) - own) if len(others) else np.zeros_like(own)
    weighed = own * np.maximum(np.exp(-decay * gap), floor)
    return weighed / weighed.sum()


def alone(network, prompt, tokens):
    """Return the next-token distribution after a prompt and tokens: no padding, no company, no cache, no special tokens drawn."""
    ids = network.tokenizer(prompt)["input_ids"] + tokens
    with torch.no_grad():
        logits = network.model(torch.tensor([ids]), use_cache=False).logits[0, -1].double().numpy()
    logits[network.tokenizer.all_special_ids] = -np.inf
    p = np.exp(logits - logits.max())
    return p / p.sum()


def test_debiasing_by_hand():
    own, other = (torch.tensor([p]).log() for p in ((0.5, 0.3, 0.2), (0.2, 0.5, 0.3)))
    np.testing.assert_allclose(
        debiased(own, [other], 100, 0.01).softmax(-1), [[0.9901, 0.0059, 0.0040]], atol=5e-5
    )


@given(
    arrays(np.float64, (3, 4, 6), elements=st.floats(0.001, 1)),
    st.integers(0, 2),
    st.floats(0, 200),
    st.sampled_from([0.0, 0.01, 0.5]),
)
def test_debiasing_is_the_formula_on_any_distributions(raw, counters, decay, floor):
    p = raw / raw.sum(-1, keepdims=True)
    logp = torch.from_numpy(np.log(p))
    found = debiased(logp[0], list(logp[1 : 1 + counters]), decay, floor).softmax(-1).numpy()
    expected = [by_the_formulae(p[0, i], p[1 : 1 + counters, i], decay, floor) for i in range(4)]
    np.testing.assert_allclose(found, expected, atol=1e-9)  # float64, another order of operations


def test_without_counter_labels_or_decay_nothing_changes():
    own, other = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    assert debiased(own, [], 100, 0.01) is own
    torch.testing.assert_close(debiased(own, [other], 0, 0.01), own, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["llama", "opt", "gemma2"])
@pytest.mark.parametrize(
    "wishes",
    [WISHES, WISHES[5:6], WISHES[2:4], WISHES[:1]],
    ids=["together", "alone", "two samples", "no counter"],
)
def test_every_step_s_distribution_is_that_of_the_formulae_however_texts_are_batched(
    networks, kind, wishes
):
    network, sampling = networks[kind] if kind in networks else made_up(networks, kind), Sampling()
    history = [[] for _ in wishes]
    generator = torch.Generator().manual_seed(1)
    largest = 0.0

    def draw(scores, units, step):
        nonlocal largest
        for unit, found in zip(units.tolist(), scores.softmax(-1).numpy(), strict=True):
            wish = wishes[unit]
            own = alone(network, TASK.prompt(wish.label, wish.x1), history[unit])
            others = [
                alone(network, TASK.prompt(label, wish.x1), history[unit])
                for label in TASK.labels[wish.label].counter_labels
            ]
            largest = max(
                largest,
                np.abs(found - by_the_formulae(own, others, sampling.decay, sampling.floor)).max(),
            )
        token = torch.multinomial(scores.softmax(-1), 1, generator=generator)[
            :, 0
        ]  # wide, so that texts end at different steps
        for unit, i in zip(units.tolist(), token.tolist(), strict=True):
            history[unit].append(i)
        return token

    writing = Writing(sampling, new_tokens=12)
    with torch.inference_mode():
        tokens, _ = continued(network, planned(network, TASK, wishes, writing), draw, writing)
    assert largest < 1e-6
    assert [[i for i in row if i >= 0] for row in tokens.tolist()] == history


@pytest.mark.parametrize("kind", ["gemma2", "granite", "cohere", "llama"])
def test_logits_are_those_of_the_model_s_own_class(networks, kind):
    network = made_up(networks, kind)
    ids = torch.tensor([network.tokenizer(SENTENCES[0])["input_ids"]])
    own = network.model(ids, use_cache=False).logits[0]
    plain = network.model.get_output_embeddings()(
        network.model.base_model(ids, use_cache=False).last_hidden_state[0]
    )
    found = head_of(network)(network.model.base_model(ids, use_cache=False).last_hidden_state[0])
    torch.testing.assert_close(found, own, atol=1e-5, rtol=1e-5)
    assert ((plain - own).abs().max() > 0.1) == (kind != "llama")
    words = [" cat", " dog"]
    scores = log_probabilities(network, [SENTENCES[0]], " It is a", words, limit=128, budget=None)
    ids = torch.tensor([network.tokenizer(SENTENCES[0] + " It is a")["input_ids"]])
    expected = network.model(ids, use_cache=False).logits[0, -1].log_softmax(-1)
    first = [network.tokenizer(word)["input_ids"][0] for word in words]
    np.testing.assert_allclose(scores[0], expected[first], atol=1e-4)


def test_a_model_that_changes_logits_in_a_way_not_known_and_one_that_is_no_decoder_are_refused(
    networks, tmp_path
):
    encoder = Backbone(
        str(tiny_folder("roberta", tmp_path / "m", head=True)),
        head="lm",
        dtype="float32",
        device="cpu",
    ).load()
    for network, told in (
        (made_up(networks, "hyperclovax"), "own class"),
        (encoder, "RobertaForMaskedLM"),
    ):
        with pytest.raises(UsageError, match=told):
            written(network, TASK, WISHES[:1], Writing(new_tokens=2))


def test_a_text_does_not_depend_on_what_it_is_written_with(networks):
    writing = Writing(Sampling(top_k=0, top_p=1.0), new_tokens=10)
    together = written(networks["llama"], TASK, WISHES, writing).written
    assert [
        written(networks["llama"], TASK, [wish], writing).written[0].text for wish in WISHES
    ] == [text.text for text in together]
    other = written(
        networks["llama"], TASK, WISHES, Writing(writing.sampling, new_tokens=10, seed=43)
    ).written
    assert other != together


def test_what_is_kept_has_neither_quotes_nor_line_breaks(networks):
    writing = Writing(Sampling(top_k=0, top_p=1.0), new_tokens=30)
    wishes = [Wish(x1, "1", k) for x1 in SENTENCES for k in range(12)]
    made = written(networks["llama"], TASK, wishes, writing).written
    assert {text.dropped for text in made} == {"", "no quote", "line break"} or {
        text.dropped for text in made
    } > {"", "no quote"}
    for text in made:
        assert not set('"\n') & set(text.text)
        assert bool(text.dropped) != bool(text.text)


def test_the_end_of_the_text_is_never_drawn(networks):
    network = networks["llama"]
    special = set(network.tokenizer.all_special_ids)
    drawn_ids = []

    def draw(scores, units, step):
        token = scores.argmin(-1)  # the least likely there is
        drawn_ids.extend(
            i for i, row in zip(token.tolist(), scores, strict=True) if torch.isfinite(row[i])
        )
        assert torch.isinf(scores[:, sorted(special)]).all()
        return scores.argmax(-1)

    continued(
        network,
        planned(network, TASK, WISHES[:4], Writing(new_tokens=3)),
        draw,
        Writing(new_tokens=3),
    )
    assert not special & set(drawn_ids)


@given(
    arrays(np.float64, (1, 9), elements=st.floats(-5, 5)),
    st.integers(0, 9),
    st.floats(0.05, 1),
    st.floats(0, 0.999),
)
def test_only_the_likeliest_tokens_that_both_limits_leave_are_drawn(scores, top_k, top_p, chance):
    token = int(
        draw_tokens(torch.from_numpy(scores), torch.tensor([chance]), top_k=top_k, top_p=top_p)[0]
    )
    order = np.argsort(-scores[0], kind="stable")[: top_k or 9]
    p = np.exp(scores[0][order]) / np.exp(scores[0][order]).sum()
    enough = int(np.searchsorted(p.cumsum(), top_p - 1e-6)) + 1
    assert scores[0][token] >= scores[0][order[min(enough, len(order)) - 1]]


def test_more_likeliest_tokens_than_there_are_leave_all():
    scores, chance = (
        torch.randn(5, 9, generator=torch.Generator().manual_seed(0)),
        torch.linspace(0, 0.9, 5),
    )
    assert (
        draw_tokens(scores, chance, top_k=10).tolist()
        == draw_tokens(scores, chance, top_k=0).tolist()
    )


def test_tokens_are_drawn_as_often_as_their_probability_says():
    scores = torch.tensor([[0.5, 0.25, 0.15, 0.1]]).log().expand(10_000, -1)
    chance = (torch.arange(10_000) + 0.5) / 10_000
    counts = draw_tokens(scores, chance, top_k=3, top_p=0.9).bincount(minlength=4)
    np.testing.assert_allclose(counts / 10_000, [0.5 / 0.9, 0.25 / 0.9, 0.15 / 0.9, 0], atol=1e-3)


def test_a_chat_puts_the_first_line_into_a_message_and_the_rest_into_the_answer(networks):
    tokenizer = networks["llama"].tokenizer
    tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
    assert (
        framed('Task: Do it.\nA: "x"\nB: "', tokenizer, chat=True)
        == '[user]Do it.[assistant]A: "x"\nB: "'
    )
    assert (
        written(networks["llama"], TASK, WISHES[:3], Writing(chat=True, new_tokens=2)).positions > 0
    )
    shots = framed(read("sts-x2-shots").prompt("1", "So it is."), tokenizer, chat=True)
    message, answer = shots.split("[assistant]")
    assert answer == 'Sentence 1: "So it is."\nSentence 2: "'
    assert message.startswith("[user]Write two sentences that mean the same thing.\nSentence 1:")
    assert message.endswith("\n\nWrite two sentences that mean the same thing.")
    assert message.count("Write") == 5
    tokenizer.chat_template = None
    with pytest.raises(UsageError, match="chat template"):
        framed("Do it.", tokenizer, chat=True)


@pytest.mark.parametrize("name", built_in())
def test_the_specifications_that_come_along_keep_the_rules(name):
    task = read(name)
    assert all(task.prompt(label, "A man sings.").endswith('"') for label in task.labels)
    assert task.takes_input == (
        "A man sings." in task.prompt(next(iter(task.labels)), "A man sings.")
    )


def test_the_plain_specification_is_the_original_s():
    labels = read("sts-x2").labels
    assert {label: entry.counter_labels for label, entry in labels.items()} == {
        "1": (),
        "0.5": ("1",),
        "0": ("1", "0.5"),
    }
    assert (
        labels["0.5"].instruction
        == 'Task: Write two sentences that are somewhat similar.\nSentence 1: "<X1>"\nSentence 2: "'
    )


def changed(**changes):
    return json.loads(json.dumps(SPEC)) | changes


@pytest.mark.parametrize(
    "value",
    [
        [],
        changed(task_name="a b"),
        changed(labels={}),
        changed(more=1),
        changed(labels={"1": {"instruction": 'A "<X1>"', "counter_labels": ["2"]}}),
        changed(labels={"1": {"instruction": "A <X1>", "counter_labels": []}}),
        changed(labels={"1": {"instruction": '<X1> <X1> "', "counter_labels": []}}),
        changed(
            labels={
                "1": {"instruction": '<X1> "', "counter_labels": []},
                "0": {"instruction": '"', "counter_labels": []},
            }
        ),
        changed(labels={"1": {"counter_labels": []}}),
        changed(labels={"1": {"instruction": '"', "counter_label": []}}),
    ],
)
def test_a_specification_that_breaks_a_rule_is_refused(value):
    with pytest.raises(DataError):
        parsed(value, "value")


def test_counter_labels_may_be_left_out_as_in_the_original():
    labels = {"1": {"instruction": 'Alike: "<X1>" and "'}}
    labels["0"] = {"instruction": 'Other: "<X1>" and "', "counter_labels": ["1"]}
    found = parsed({"task_name": "few", "labels": labels}, "value").labels
    assert (found["1"].counter_labels, found["0"].counter_labels) == ((), ("1",))


def test_an_unknown_specification_is_refused():
    with pytest.raises(UsageError, match="sts-x2"):
        read("sts-x3")


def test_the_head_of_a_network_does_not_keep_the_network_in_memory(networks):
    network = made_up(networks, "llama")
    network.model.train()
    head_of(network)
    assert network.model.training
    left = weakref.ref(network)
    del network
    gc.collect()
    assert left() is None
