"""InBedder's read-outs on tiny models, against raw forward passes and greedy generation."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters._backbone import PACKAGED
from adapters.inbedder.encoder import NEUTRAL_QUESTION, InBedder, frame_question
from bench.encoder import Item
from bench.errors import CheckpointError, UsageError
from tests.adapters.checks import CPU, edit_json, load_plain, plain_states

TEXTS = ["The cat sat on the mat.", "{instruction} in {input}", "rain", "São Paulo — 9,600 km."]
QUESTION = "Is it good?"
CLOSE = {"atol": 1e-5, "rtol": 1e-5}  # float32 sums in another order
CAUSAL, MASKED = {"auto": "AutoModelForCausalLM"}, {"auto": "AutoModelForMaskedLM"}


@pytest.fixture
def encoder(tiny):
    return lambda kind, **changes: InBedder(str(tiny(kind)), **CPU, **changes)


def make_prompt(text, question=QUESTION):
    return f"### Input:\n{text}\n\n### Instruction:\n{question}\n\n### Response:"


def generate_raw(folder, prompt, new_tokens, ends=None, special=None):
    """Return states of the prompt, tokens, and states that count, with one full pass a token."""
    tokenizer, model = load_plain(folder, **CAUSAL)
    special = tokenizer.all_special_ids if special is None else special
    ends = [model.generation_config.eos_token_id] if ends is None else ends
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    tokens, states = [], []
    for _ in range(new_tokens):
        with torch.no_grad():
            out = model(ids, output_hidden_states=True)
        states.append(out.hidden_states[-1][0])
        tokens.append(int(out.logits[0, -1].argmax()))
        ids = torch.cat([ids, torch.tensor([tokens[-1:]])], dim=1)
    end = next((i for i, token in enumerate(tokens) if token in ends), new_tokens)
    counted = [i for i in range(1, new_tokens) if i < end and tokens[i] not in special]
    kept = [states[i][-1] for i in counted]
    return states[0], tokens, kept or [state[-1] for state in states[1:2]]


def pool_raw(readout, prompt, kept):
    chosen = {"last-gen": [prompt[-1], *kept][-1:], "avg-gen": [prompt[-1], *kept]}
    return torch.stack(chosen.get(readout, [*prompt, *kept])).mean(0).numpy()


@given(text=st.text(), question=st.text(min_size=1))
@settings(max_examples=25)
def test_the_template_is_filled_in_one_pass(text, question):
    made = frame_question(text, question)
    assert made.before + made.text + made.after == make_prompt(text, question)


@pytest.mark.parametrize("kind", ["llama", "opt"])
@pytest.mark.parametrize("layer", [-1, 0, 2])
def test_a_decoder_is_read_at_the_last_token_of_its_prompt(encoder, tiny, kind, layer):
    prompts = [plain_states(tiny(kind), make_prompt(text), layer, **CAUSAL) for text in TEXTS]
    found = encoder(kind, layer=layer).encode(TEXTS, instruction=QUESTION)
    np.testing.assert_allclose(found, [states[-1].numpy() for states in prompts], **CLOSE)
    if layer == -1:
        average = encoder(kind, readout="avg-ppt").encode(TEXTS, instruction=QUESTION)
        without_last = [states[:-1].mean(0).numpy() for states in prompts]
        np.testing.assert_allclose(average, without_last, **CLOSE)


@pytest.mark.parametrize("kind", ["roberta", "bert"])
@pytest.mark.parametrize("masks", [1, 3])
def test_a_masked_model_is_the_mean_of_the_masks_after_the_prompt(encoder, tiny, kind, masks):
    token = load_plain(tiny(kind), **MASKED)[0].mask_token
    texts = [*TEXTS, f"a {token} in the text"]
    expected = []
    for text in texts:
        states = plain_states(tiny(kind), make_prompt(text) + token * masks, **MASKED)
        expected.append(states[-1 - masks : -1].mean(0).numpy())
    found = encoder(kind, masks=masks).encode(texts, instruction=QUESTION)
    np.testing.assert_allclose(found, expected, **CLOSE)


GENERATED = ("last-gen", "avg-gen", "avg-all")


@pytest.mark.parametrize("kind", ["llama", "opt"])
@pytest.mark.parametrize("new_tokens", [1, 5])
def test_generated_read_outs_match_greedy_generation(encoder, tiny, kind, new_tokens):
    written = [generate_raw(tiny(kind), make_prompt(text), new_tokens) for text in TEXTS]
    for readout in GENERATED:
        expected = [pool_raw(readout, prompt, kept) for prompt, _, kept in written]
        found = encoder(kind, readout=readout, new_tokens=new_tokens)
        np.testing.assert_allclose(found.encode(TEXTS, instruction=QUESTION), expected, **CLOSE)


@pytest.mark.parametrize(
    ("ending", "place", "count"), [(True, 0, 1), (True, 1, 1), (True, 3, 2), (False, 2, 4)]
)
def test_a_state_counts_unless_it_predicts_a_special_token(
    encoder, tiny, monkeypatch, ending, place, count
):
    prompt_text = make_prompt(TEXTS[0])
    _, tokens, _ = generate_raw(tiny("llama"), prompt_text, 6, ends=[], special=[])
    assert tokens.count(tokens[place]) == 1
    ends = [tokens[place]] if ending else []
    network = encoder("llama", readout="avg-all", new_tokens=6)._backbone().load()
    special = [*network.tokenizer.all_special_ids, tokens[place]]
    monkeypatch.setattr(type(network.tokenizer), "all_special_ids", special)
    monkeypatch.setattr(network.model.generation_config, "eos_token_id", ends)
    prompt, _, kept = generate_raw(tiny("llama"), prompt_text, 6, ends=ends, special=special)
    assert len(kept) == count
    for readout in GENERATED:
        expected = pool_raw(readout, prompt, kept)
        for texts in (TEXTS, TEXTS[:1]):
            found = encoder("llama", readout=readout, new_tokens=6)
            vectors = found.encode(texts, instruction=QUESTION)
            np.testing.assert_allclose(vectors[0], expected, **CLOSE)


def copy_with(folder, place, **changes):
    """Copy a model and change the configuration of its tokenizer."""
    edit_json(shutil.copytree(folder, place) / "tokenizer_config.json", **changes)
    return str(place)


def test_generated_tokens_come_beyond_the_longest_prompt(encoder, tiny, tmp_path):
    found = encoder("llama", readout="last-gen", new_tokens=5)
    short = copy_with(tiny("llama"), tmp_path / "short", model_max_length=60)
    for checkpoint, expected in ((short, 60), (found.checkpoint, 128 - 5)):  # of 128 positions
        cut = replace(found, checkpoint=checkpoint)
        items = [Item("word " * 200, QUESTION)]
        assert cut.count_tokens(items) == expected
        (batch,) = cut.stream(items)
        assert batch.tokens.tolist() == [batch.padded] == [expected + 4]  # the last goes nowhere


@pytest.mark.parametrize("readout", ["avg-gen", "re-enc"])
def test_generated_tokens_are_counted_until_a_text_ends(encoder, tiny, monkeypatch, readout):
    changes = {"reencoder": f"backbone-mean:{tiny('bert')}"} if readout == "re-enc" else {}
    found = encoder("llama", readout=readout, new_tokens=6, **changes)
    network, items = found._network(), [Item(text, QUESTION) for text in TEXTS]
    written = [generate_raw(tiny("llama"), make_prompt(text), 6, ends=[])[1] for text in TEXTS]
    end = next(token for token in written[0][1:5] if token not in written[1])
    monkeypatch.setattr(network.model.generation_config, "eos_token_id", [end])
    expected = []
    for item, tokens in zip(items, written, strict=True):
        made = tokens.index(end) if end in tokens[:5] else 5
        expected.append(found.count_tokens([item]) + made)
    assert expected[0] < found.count_tokens(items[:1]) + 5
    counted = dict.fromkeys(range(len(items)), 0)
    for batch in found.stream(items):
        counted |= dict(zip(batch.positions.tolist(), batch.tokens.tolist(), strict=True))
        assert batch.padded >= batch.tokens.sum()
    assert list(counted.values()) == expected


@pytest.mark.parametrize(("kind", "readout"), [("opt", "avg-all"), ("roberta", "auto")])
def test_the_padding_side_of_the_tokenizer_has_no_effect(encoder, tiny, tmp_path, kind, readout):
    found = encoder(kind, readout=readout)
    sides = {"padding_side": "left", "truncation_side": "left"}
    copied = copy_with(tiny(kind), tmp_path / "left", **sides)
    vectors = replace(found, checkpoint=copied).encode(TEXTS, instruction=QUESTION)
    np.testing.assert_allclose(vectors, found.encode(TEXTS, instruction=QUESTION), **CLOSE)


@pytest.mark.parametrize("kind", ["llama", "roberta"])
def test_a_long_text_is_truncated_on_its_left(encoder, tiny, tmp_path, kind):
    text, masked = "word " * 400 + "the end", kind == "roberta"
    left = copy_with(tiny(kind), tmp_path / "left", truncation_side="left")
    prompt, auto = make_prompt(text) + "<mask>" * 3 * masked, MASKED if masked else CAUSAL
    states = plain_states(left, prompt, truncation=True, max_length=90, **auto)
    expected = states[-4:-1].mean(0) if masked else states[-1]
    (batch,) = encoder(kind, max_length=90).stream([Item(text, QUESTION)])
    assert batch.truncated.all()
    np.testing.assert_allclose(batch.vectors[0], expected.numpy(), **CLOSE)


@pytest.mark.parametrize(
    ("kind", "readout"), [("llama", "auto"), ("roberta", "auto"), ("roberta", "pair")]
)
def test_no_instruction_asks_the_neutral_question(encoder, kind, readout):
    found = encoder(kind, readout=readout)
    neutral = found.encode(TEXTS, instruction=NEUTRAL_QUESTION)
    np.testing.assert_array_equal(found.encode(TEXTS), neutral)


@pytest.mark.parametrize("kind", ["llama", "roberta"])
def test_token_states_are_those_of_the_text_inside_its_prompt(encoder, tiny, kind):
    masked = kind == "roberta"
    for text, found in zip(TEXTS, encoder(kind).encode_tokens(TEXTS, layer=2), strict=True):
        prompt = make_prompt(text, NEUTRAL_QUESTION) + "<mask>" * 3 * masked
        auto = MASKED if masked else CAUSAL
        states = plain_states(tiny(kind), prompt, 2, **auto).numpy()
        special = found.spans[:, 1] == found.spans[:, 0]
        assert special.sum() == 2 * masked
        places = [np.abs(states - state).max(1).argmin() for state in found.states]
        np.testing.assert_allclose(found.states, states[places], **CLOSE)
        assert places == sorted(places)


def pair_by_hand(folder, text, masks, room=128):
    """Return the read-out of <s> text </s></s> question <mask>... </s>, truncated on the left."""
    tokenizer, model = load_plain(folder, **MASKED)
    first, second = (
        tokenizer(part, add_special_tokens=False)["input_ids"] for part in (text, QUESTION)
    )
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    second = [end, end, *second, *[tokenizer.mask_token_id] * masks, end]
    excess = max(len(first) + len(second) + 1 - room, 0)
    with torch.no_grad():
        out = model.roberta(torch.tensor([[start, *first[excess:], *second]]))
        states = model.lm_head.dense(out.last_hidden_state[0, -1 - masks : -1])
        vectors = model.lm_head.layer_norm(torch.nn.functional.gelu(states))
    vector = vectors.mean(0).numpy()
    return (vector - vector.mean()) / vector.std(ddof=1)


@pytest.mark.parametrize("masks", [1, 3])
def test_the_pair_read_out_is_the_standardised_mean_after_the_head(encoder, tiny, masks):
    texts = ["The cat sat on the mat.", "", "a <mask> in the text", "word " * 400 + "the end"]
    found = encoder("roberta", readout="pair", masks=masks, max_length=60)
    expected = [pair_by_hand(tiny("roberta"), text, masks, room=60) for text in texts]
    vectors = found.encode(texts, instruction=QUESTION)
    # division by a small deviation enlarges rounding
    np.testing.assert_allclose(vectors, expected, atol=1e-5, rtol=1e-4)
    with pytest.raises(CheckpointError, match="RoBERTa"):
        encoder("bert", readout="pair").encode(texts)


def test_a_read_out_that_the_backbone_does_not_have_is_refused(encoder):
    for kind, readout in (("roberta", "1st-gen"), ("roberta", "last-gen"), ("llama", "cls")):
        with pytest.raises(UsageError):
            encoder(kind, readout=readout).encode(TEXTS)


def test_published_names_stand_for_hub_ids_and_count_as_trained(encoder):
    made = InBedder("roberta-large-InBedder")
    assert made._backbone().source == "BrandonZYW/roberta-large-InBedder"
    published = (made.masks, made.new_tokens, made.layer, made.max_length)
    assert published == (3, 3, -1, 512)
    assert (made.temperature, made.top_p, made.top_k) == (0.8, 0.9, 50)
    assert encoder("llama").card().trained
    assert not InBedder(PACKAGED).card().trained
