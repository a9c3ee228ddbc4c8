"""InBedder's read-outs on tiny random decoders and masked models, against raw forward passes and transformers' own generation."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters._backbone import PACKAGED
from adapters.inbedder.encoder import NEUTRAL_QUESTION, TEMPLATE, InBedder, framed, resolved
from bench.encoder import Item
from bench.errors import UsageError
from tests.tiny import tiny_folder

torch = pytest.importorskip("torch")

TEXTS = ["The cat sat on the mat.", "{instruction} in {input}", "rain", "São Paulo — 9,600 km."]
QUESTION = "Is it good?"
CLOSE = {"atol": 1e-5, "rtol": 1e-5}  # float32 sums in another order


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("inbedder")
    return {
        kind: tiny_folder(kind, place / kind, head=True)
        for kind in ("llama", "opt", "roberta", "bert")
    }


@pytest.fixture
def encoder(folders):
    return lambda kind, **changes: InBedder(
        str(folders[kind]), dtype="float32", device="cpu", **changes
    )


def prompt_of(text, question=QUESTION):
    return f"### Input:\n{text}\n\n### Instruction:\n{question}\n\n### Response:"


def raw(folder, prompt, layer=-1, masked=False, length=None):
    """Return ids and states of one prompt, cut by the tokenizer itself where a length is given."""
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, truncation_side="left")
    ids = tokenizer(prompt, return_tensors="pt", truncation=length is not None, max_length=length)[
        "input_ids"
    ]
    model = (
        (AutoModelForMaskedLM if masked else AutoModelForCausalLM).from_pretrained(folder).eval()
    )
    with torch.no_grad():
        return ids[0], model(input_ids=ids, output_hidden_states=True).hidden_states[layer][0]


def generated(folder, prompt, new_tokens, layer=-1, ends=None, special=None):
    """Return the states of the prompt and the tokens, and those of generated ones that count, from one plain pass a token."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    special = tokenizer.all_special_ids if special is None else special
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    ends = [model.generation_config.eos_token_id] if ends is None else ends
    tokens, states = [], []
    for _ in range(new_tokens):
        with torch.no_grad():
            out = model(ids, output_hidden_states=True)
        states.append(out.hidden_states[layer][0])
        tokens.append(int(out.logits[0, -1].argmax()))
        ids = torch.cat([ids, torch.tensor([tokens[-1:]])], dim=1)
    end = next((i for i, token in enumerate(tokens) if token in ends), new_tokens)
    kept = [states[k][-1] for k in range(1, new_tokens) if k < end and tokens[k] not in special]
    return states[0], tokens, kept or [state[-1] for state in states[1:2]]


def chosen(readout, prompt, kept):
    return {
        "last-gen": [prompt[-1], *kept][-1:],
        "avg-gen": [prompt[-1], *kept],
        "avg-all": [*prompt, *kept],
    }[readout]


@given(text=st.text(), question=st.text(min_size=1))
@settings(max_examples=50)
def test_the_template_is_filled_in_one_pass(text, question):
    made = framed(text, question)
    assert made.before + made.text + made.after == prompt_of(text, question)


def test_a_text_that_holds_a_place_holder_stays_as_it_is():
    made = framed("a {instruction} b", "Why {input}?")
    assert made.before + made.text + made.after == prompt_of("a {instruction} b", "Why {input}?")
    assert TEMPLATE.endswith("### Response:")


@pytest.mark.parametrize("kind", ["llama", "opt"])
@pytest.mark.parametrize("layer", [-1, 0, 2])
def test_a_decoder_is_read_at_the_last_token_of_its_prompt(encoder, folders, kind, layer):
    expected = [raw(folders[kind], prompt_of(text), layer)[1][-1].numpy() for text in TEXTS]
    found = encoder(kind, layer=layer)
    if layer:  # the last prompt token is always the same, and so are its input embeddings
        assert len(
            np.unique(np.round(found.encode(TEXTS, instruction=QUESTION), 4), axis=0)
        ) == len(TEXTS)
    np.testing.assert_allclose(found.encode(TEXTS, instruction=QUESTION), expected, **CLOSE)
    np.testing.assert_allclose(
        found.encode(TEXTS[2:3], instruction=QUESTION)[0], expected[2], **CLOSE
    )


@pytest.mark.parametrize("kind", ["roberta", "bert"])
@pytest.mark.parametrize("masks", [1, 3])
def test_a_masked_model_is_the_mean_of_the_masks_after_the_prompt(encoder, folders, kind, masks):
    from transformers import AutoTokenizer

    token = AutoTokenizer.from_pretrained(folders[kind]).mask_token
    texts = [*TEXTS, f"a {token} in the text"]
    expected = []
    for text in texts:
        ids, states = raw(folders[kind], prompt_of(text) + token * masks, masked=True)
        assert ids[-1 - masks : -1].unique().numel() == 1
        expected.append(states[-1 - masks : -1].mean(0).numpy())
    np.testing.assert_allclose(
        encoder(kind, masks=masks).encode(texts, instruction=QUESTION), expected, **CLOSE
    )


def test_the_prompt_average_leaves_out_its_last_token(encoder, folders):
    expected = [raw(folders["llama"], prompt_of(text))[1][:-1].mean(0).numpy() for text in TEXTS]
    np.testing.assert_allclose(
        encoder("llama", readout="avg-ppt").encode(TEXTS, instruction=QUESTION), expected, **CLOSE
    )


@pytest.mark.parametrize("kind", ["llama", "opt"])
@pytest.mark.parametrize("readout", ["last-gen", "avg-gen", "avg-all"])
@pytest.mark.parametrize("new_tokens", [1, 5])
def test_generated_read_outs_follow_plain_greedy_generation(
    encoder, folders, kind, readout, new_tokens
):
    expected = []
    for text in TEXTS:
        prompt, _, kept = generated(folders[kind], prompt_of(text), new_tokens)
        expected.append(torch.stack(chosen(readout, prompt, kept)).mean(0).numpy())
    found = encoder(kind, readout=readout, new_tokens=new_tokens)
    np.testing.assert_allclose(found.encode(TEXTS, instruction=QUESTION), expected, **CLOSE)


@pytest.mark.parametrize("readout", ["last-gen", "avg-gen", "avg-all"])
@pytest.mark.parametrize(("ending", "place"), [(True, 0), (True, 1), (True, 3), (False, 2)])
def test_a_state_counts_unless_the_token_that_it_predicts_is_special(
    encoder, folders, monkeypatch, readout, ending, place
):
    text = TEXTS[0]
    _, tokens, plain = generated(folders["llama"], prompt_of(text), 6, ends=[], special=[])
    rare = [token for token in tokens if tokens.count(token) == 1]
    assert tokens[place] in rare
    ends = [tokens[place]] if ending else []
    found = encoder("llama", readout=readout, new_tokens=6)
    network = found._backbone().load()
    special = [*network.tokenizer.all_special_ids, tokens[place]]
    monkeypatch.setattr(type(network.tokenizer), "all_special_ids", special)
    monkeypatch.setattr(network.model.generation_config, "eos_token_id", ends)
    prompt, _, kept = generated(folders["llama"], prompt_of(text), 6, ends=ends, special=special)
    assert len(kept) == ({0: 1, 1: 1, 3: 2}[place] if ending else len(plain) - 1)
    expected = torch.stack(chosen(readout, prompt, kept)).mean(0).numpy()
    together = found.encode([text, *TEXTS[1:]], instruction=QUESTION)
    np.testing.assert_allclose(together[0], expected, **CLOSE)
    np.testing.assert_allclose(found.encode([text], instruction=QUESTION)[0], expected, **CLOSE)


def test_generated_tokens_come_beyond_the_longest_prompt(encoder, folders, tmp_path):
    folder = shutil.copytree(folders["llama"], tmp_path / "short")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "model_max_length": 60}))
    text = "word " * 100
    prompt = "### Input:\n" + text + f"\n\n### Instruction:\n{QUESTION}\n\n### Response:"
    ids, _ = raw(folder, prompt, length=60)
    assert len(ids) == 60
    network = InBedder(str(folder), dtype="float32", device="cpu")._backbone().load()
    found = InBedder(str(folder), readout="last-gen", new_tokens=5, dtype="float32", device="cpu")
    (batch,) = found.stream([Item(text, QUESTION)])
    assert (batch.tokens.tolist(), network.positions) == ([60], 128)
    longest = replace(found, max_length=512, checkpoint=str(folders["llama"]))
    (batch,) = longest.stream([Item(text * 2, QUESTION)])
    assert batch.tokens.tolist() == [128 - 5]  # what the model has no positions for is cut


@pytest.mark.parametrize("kind", ["llama", "roberta"])
def test_a_long_text_is_cut_on_its_left_so_that_question_and_slot_stay(encoder, folders, kind):
    text, masked = "word " * 400 + "the end", kind == "roberta"
    prompt = prompt_of(text) + ("<mask>" * 3 if masked else "")
    _, states = raw(folders[kind], prompt, masked=masked, length=90)
    expected = states[-4:-1].mean(0) if masked else states[-1]
    found = encoder(kind, max_length=90)
    np.testing.assert_allclose(
        found.encode([text], instruction=QUESTION)[0], expected.numpy(), **CLOSE
    )
    (batch,) = found.stream([Item(text, QUESTION)])
    assert batch.truncated.all()


@pytest.mark.parametrize("kind", ["llama", "roberta"])
def test_no_instruction_asks_the_neutral_question(encoder, kind):
    found = encoder(kind)
    np.testing.assert_array_equal(
        found.encode(TEXTS), found.encode(TEXTS, instruction=NEUTRAL_QUESTION)
    )
    np.testing.assert_array_equal(found.encode(TEXTS), found.encode(TEXTS, instruction=""))
    assert not np.allclose(found.encode(TEXTS), found.encode(TEXTS, instruction=QUESTION))


@pytest.mark.parametrize("kind", ["llama", "roberta"])
def test_token_states_are_those_of_the_text_inside_its_prompt(encoder, folders, kind):
    masked = kind == "roberta"
    for text, found in zip(TEXTS, encoder(kind).encode_tokens(TEXTS, layer=2), strict=True):
        _, states = raw(
            folders[kind],
            prompt_of(text, NEUTRAL_QUESTION) + ("<mask>" * 3 if masked else ""),
            layer=2,
            masked=masked,
        )
        own = found.spans[:, 1] > found.spans[:, 0]
        assert (~own).sum() == (2 if masked else 0)
        assert {i for a, b in found.spans.tolist() for i in range(a, b)} >= {
            i for i, c in enumerate(text) if c != " "
        }
        rows = [np.abs(states.numpy() - state).max(1).argmin() for state in found.states]
        np.testing.assert_allclose(found.states, states.numpy()[rows], **CLOSE)
        assert rows == sorted(rows)


def test_auto_is_the_published_read_out_of_each_kind():
    assert (resolved("auto", decoder=True), resolved("auto", decoder=False)) == (
        "1st-gen",
        "avg-gen",
    )


@pytest.mark.parametrize(
    ("kind", "readout"), [("roberta", "1st-gen"), ("roberta", "last-gen"), ("llama", "cls")]
)
def test_a_read_out_that_the_backbone_does_not_have_is_a_usage_error(encoder, kind, readout):
    with pytest.raises(UsageError):
        encoder(kind, readout=readout).encode(TEXTS)


def test_published_names_stand_for_their_hub_ids_and_count_as_trained(encoder):
    assert (
        InBedder("roberta-large-InBedder")._backbone().source == "BrandonZYW/roberta-large-InBedder"
    )
    assert encoder("llama").card().trained
    assert not InBedder(PACKAGED).card().trained


@pytest.mark.parametrize(
    ("kind", "readout"), [("llama", "auto"), ("opt", "avg-gen"), ("roberta", "auto")]
)
def test_order_batching_and_odd_texts_do_not_matter(encoder, kind, readout):
    found = replace(encoder(kind, readout=readout), budget=512)
    texts = [*TEXTS, "", "🙂🙃", "word " * 20_000]
    together = found.encode(texts, instruction=QUESTION)
    assert np.isfinite(together).all()
    np.testing.assert_allclose(
        found.encode(texts[::-1], instruction=QUESTION)[::-1], together, **CLOSE
    )
    np.testing.assert_allclose(
        np.vstack([found.encode([text], instruction=QUESTION) for text in texts]), together, **CLOSE
    )


@pytest.mark.parametrize(
    ("kind", "readout"),
    [("llama", "auto"), ("opt", "auto"), ("opt", "avg-all"), ("roberta", "auto")],
)
def test_the_padding_side_of_the_checkpoint_does_not_matter(
    encoder, folders, tmp_path, kind, readout
):
    expected = encoder(kind, readout=readout).encode(TEXTS, instruction=QUESTION)
    for side in ("left", "right"):
        folder = shutil.copytree(folders[kind], tmp_path / side)
        config = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / "tokenizer_config.json").write_text(
            json.dumps({**config, "padding_side": side, "truncation_side": side})
        )
        found = InBedder(str(folder), readout=readout, dtype="float32", device="cpu").encode(
            TEXTS, instruction=QUESTION
        )
        np.testing.assert_allclose(found, expected, **CLOSE)


@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_it_equals_a_left_padded_batch_read_at_its_last_column(encoder, folders, kind):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folders[kind], padding_side="left")
    batch = tokenizer([prompt_of(text) for text in TEXTS], padding=True, return_tensors="pt")
    positions = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        model = AutoModelForCausalLM.from_pretrained(folders[kind]).eval()
        asked = {
            "attention_mask": batch["attention_mask"],
            "position_ids": positions,
            "output_hidden_states": True,
        }
        states = model(batch["input_ids"], **asked).hidden_states[-1]
    np.testing.assert_allclose(
        encoder(kind).encode(TEXTS, instruction=QUESTION), states[:, -1].numpy(), **CLOSE
    )
