"""LLM2Comp on tiny random models, against raw forward passes with an explicit mask and merges."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer

from adapters._backbone import PACKAGED
from adapters.llm2comp.encoder import CONFIG, MEMORY, LLM2Comp, random_memory
from bench.encoder import Item, fingerprint
from bench.errors import CheckpointError, EncodingError, UsageError
from tests.adapters.checks import (
    CPU,
    draw,
    load_plain,
    merge_by_hand,
    mirror,
    plain_states,
    read_plain,
)

TEXTS = ["The cat sat on the mat.", "Find the scorer", "rain", "São Paulo — 9,600 km."]
K = 4
CLOSE = {"atol": 1e-5, "rtol": 1e-5}  # float32 sums in another order
TARGETS = ("q_proj", "v_proj", "o_proj", "up_proj", "gate_proj", "down_proj")


@pytest.fixture(scope="module")
def base(tiny):
    return tiny("llama")


@pytest.fixture
def untrained(base):
    return LLM2Comp(str(base), k=K, **CPU)


def draw_lora(model, seed, rank=3):
    """Return LoRA weights for every target, named as in the model."""
    weights = {}
    for i, (name, module) in enumerate(model.named_modules()):
        if name.endswith(TARGETS):
            high, wide = module.weight.shape
            for side, shape in (("A", (rank, wide)), ("B", (high, rank))):
                weight = 0.3 * draw(*shape, seed=1000 * seed + 2 * i + (side == "A"))
                weights[f"{name}.lora_{side}.weight"] = weight
    return weights


def draw_memory():
    return draw(K, 32, seed=99)


def write_checkpoint(place, folder, **changed):
    _, model = load_plain(folder)
    for n in (1, 2):
        stage = place / f"stage{n}"
        stage.mkdir(parents=True)
        lora = {f"base_model.model.model.{name}": w for name, w in draw_lora(model, n).items()}
        save_file(lora, stage / "adapter_model.safetensors")
        adapter = {"peft_type": "LORA", "r": 3, "lora_alpha": 6, "target_modules": TARGETS}
        (stage / "adapter_config.json").write_text(json.dumps(adapter))
    save_file({"memory": draw_memory()}, place / MEMORY)
    rows = len(model.get_input_embeddings().weight)
    ids = list(range(rows, rows + K))
    config = {"base": str(folder), "k": K, "attention": "bidirectional", "memory_ids": ids}
    config |= {"stages": ["stage1", "stage2"]} | changed
    (place / CONFIG).write_text(json.dumps(config))
    return LLM2Comp(str(place), **CPU)


def raw_states(folder, text, memory, *, model=None, causal=False, layer=-1):
    """Return the states of text and memory; the mask of attention is explicit."""
    tokenizer, plain = load_plain(folder)
    model = model or plain
    ids = tokenizer(text, return_tensors="pt")["input_ids"].long()
    inputs = torch.cat([model.get_input_embeddings()(ids)[0], memory])[None]
    t = inputs.shape[1]
    mask = torch.full((t, t), -1e9).triu(1) if causal else torch.zeros(t, t)
    options = {"attention_mask": mask[None, None], "output_hidden_states": True}
    with torch.no_grad():
        return model(inputs_embeds=inputs, **options).hidden_states[layer][0]


def raw_mean(*args, **options):
    return raw_states(*args, **options)[-K:].mean(0).numpy()


def untrained_memory(base):
    return random_memory(load_plain(base)[1].get_input_embeddings().weight.detach(), K)


@pytest.mark.parametrize("attention", ["auto", "native"])
def test_embedding_is_the_mean_of_memory_states(untrained, base, attention):
    memory, causal = untrained_memory(base), attention == "native"
    raw = np.stack([raw_states(base, text, memory, causal=causal)[-K:] for text in TEXTS])
    encoder, expected = replace(untrained, attention=attention), raw.mean(1)
    np.testing.assert_allclose(replace(encoder, normalise=False).encode(TEXTS), expected, **CLOSE)
    unit = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(encoder.encode(TEXTS), unit, **CLOSE)
    np.testing.assert_allclose(encoder.encode_memory(TEXTS), raw, **CLOSE)
    assert not encoder.card().trained
    assert not LLM2Comp(PACKAGED).card().trained


def test_instruction_precedes_the_text_with_one_colon(untrained, base):
    prompt = f"Identify the topic:{TEXTS[0]}\n"
    expected = raw_mean(base, prompt, untrained_memory(base))
    bare = replace(untrained, normalise=False)
    for instruction in ("Identify the topic", "Identify the topic:"):
        found = bare.encode(TEXTS[:1], instruction=instruction)[0]
        np.testing.assert_allclose(found, expected, **CLOSE)


def test_token_states_exclude_the_memory(untrained, base):
    for text, found in zip(TEXTS, untrained.encode_tokens(TEXTS, layer=2), strict=True):
        expected = raw_states(base, text, untrained_memory(base), layer=2)[:-K].numpy()
        np.testing.assert_allclose(found.states, expected, **CLOSE)


def test_a_truncated_text_keeps_its_memory(untrained, base):
    text, tokenizer = "word " * 300, load_plain(base)[0]
    cut = tokenizer.decode(tokenizer(text)["input_ids"][: 40 - K])
    encoder = replace(untrained, max_length=40, normalise=False)
    (batch,) = encoder.stream([Item(text)])
    assert batch.truncated.all()
    assert batch.tokens.tolist() == [40]
    expected = raw_mean(base, cut, untrained_memory(base))
    np.testing.assert_allclose(batch.vectors[0], expected, **CLOSE)


def test_untrained_memory_is_fixed_and_scaled_like_the_table(base):
    table = load_plain(base)[1].get_input_embeddings().weight.detach()
    rows = random_memory(table, 512)
    torch.manual_seed(123)
    assert torch.equal(rows, random_memory(table, 512))
    assert rows.std().item() == pytest.approx(table.std().item(), rel=0.05)  # 16,384 draws


def test_memory_is_looked_up_as_tokens_are_by_a_model_that_scales_what_it_looks_up(tiny):
    tokenizer, model = read_plain(tiny("gemma"))
    table = model.get_input_embeddings().weight
    rows, memory = len(table), random_memory(table.detach(), K)
    model.resize_token_embeddings(rows + K, mean_resizing=False)
    ids = torch.tensor([[*tokenizer(TEXTS[0])["input_ids"], *range(rows, rows + K)]])
    with torch.no_grad():
        model.get_input_embeddings().weight[rows:] = memory
        expected = model(ids).last_hidden_state[:, -K:]
    encoder = LLM2Comp(str(tiny("gemma")), k=K, attention="native", **CPU)
    np.testing.assert_allclose(encoder.encode_memory(TEXTS[:1]), expected, **CLOSE)


def test_a_text_with_the_id_of_a_memory_token_is_refused(untrained, base, tmp_path):
    folder = shutil.copytree(base, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder)
    encoder = replace(untrained, checkpoint=str(folder))
    np.testing.assert_array_equal(encoder.encode(TEXTS), untrained.encode(TEXTS))
    with pytest.raises(EncodingError, match=r"\[PAD\]"):
        encoder.encode(["a [PAD] b"])


def test_no_memory_pools_the_text_without_its_first_special_token(tiny):
    texts, folder = [*TEXTS, ""], tiny("opt")
    states = [plain_states(folder, text) for text in texts]
    expected = [(rows[1:] if len(rows) > 1 else rows).mean(0).numpy() for rows in states]
    encoder = LLM2Comp(str(folder), k=0, attention="native", normalise=False, **CPU)
    np.testing.assert_allclose(encoder.encode(texts), expected, **CLOSE)
    assert encoder.encode_memory(texts).shape == (len(texts), 0, 32)


def test_stages_are_merged_in_order_and_the_shared_backbone_is_unchanged(base, tmp_path):
    encoder = replace(write_checkpoint(tmp_path / "c", base), normalise=False)
    shared = encoder._base(encoder._checkpoint()).load().model.state_dict()
    before = {name: tensor.clone() for name, tensor in shared.items()}
    model = read_plain(base)[1]
    for stage in (1, 2):
        merge_by_hand(model, draw_lora(model, stage))
    expected = [raw_mean(base, text, draw_memory(), model=model) for text in TEXTS]
    # merged weights are some tens large
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=2e-4, rtol=1e-4)
    assert encoder.card().trained
    assert all(torch.equal(before[name], shared[name]) for name in before)


def test_a_hub_id_stands_for_the_checkpoint_with_its_memory(base, tmp_path, monkeypatch):
    encoder = write_checkpoint(mirror("org/name", tmp_path, monkeypatch), base)
    published = replace(encoder, checkpoint="org/name")
    np.testing.assert_array_equal(published.encode(TEXTS), encoder.encode(TEXTS))
    assert published.card().trained
    assert fingerprint(published) == fingerprint(encoder)


def test_k_and_attention_are_the_checkpoint_s_which_is_read_again_when_rewritten(base, tmp_path):
    encoder = write_checkpoint(tmp_path / "a", base)
    vectors, identity = encoder.encode(TEXTS), fingerprint(encoder)
    explicit = replace(encoder, k=K, attention="bidirectional")
    np.testing.assert_array_equal(explicit.encode(TEXTS), vectors)
    causal = write_checkpoint(tmp_path / "b", base, attention="native")
    assert causal.card().weights != encoder.card().weights
    assert not np.allclose(causal.encode(TEXTS), vectors, atol=1e-3)
    for other in ({"k": 5}, {"attention": "native"}):
        with pytest.raises(CheckpointError, match="leave these settings out"):
            replace(encoder, **other).encode(TEXTS)
    (tmp_path / "a" / MEMORY).unlink()
    save_file({"memory": 2 * draw_memory()}, tmp_path / "a" / MEMORY)
    assert fingerprint(encoder) != identity
    assert not np.allclose(encoder.encode(TEXTS), vectors, atol=1e-3)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"k": 5, "memory_ids": [1, 2, 3, 4, 5]}, "another backbone or k"),
        ({"memory_ids": [0, 1, 2, 3]}, "follow the vocabulary"),
        ({"stages": ["stage1", "stage3"]}, "stage3"),
        ({"base": None}, "base"),
        ({"attention": "bidirectonal"}, "bidirectonal"),
    ],
)
def test_an_inconsistent_checkpoint_is_refused(base, tmp_path, changed, words):
    with pytest.raises(CheckpointError, match=words):
        write_checkpoint(tmp_path / "c", base, **changed).encode(TEXTS)


def test_invalid_settings_are_refused(untrained):
    invalid = ({"attention": "no"}, {"k": -1}, {"max_length": K}, {"k": 128})  # of 128 positions
    for changes in invalid:
        with pytest.raises(UsageError):
            replace(untrained, **changes).encode(TEXTS)
    assert np.isfinite(replace(untrained, max_length=K + 1).encode(TEXTS)).all()
