"""LLM2Comp on tiny random models, against raw forward passes with an explicit mask and merges."""

import json
from dataclasses import replace

import numpy as np
import pytest

from adapters._backbone import PACKAGED
from adapters.llm2comp.encoder import CONFIG, MEMORY, LLM2Comp, random_memory
from bench.encoder import Item, fingerprint
from bench.errors import CheckpointError, UsageError
from tests.tiny import tiny_folder

torch = pytest.importorskip("torch")

TEXTS = ["The cat sat on the mat.", "Find the scorer", "rain", "São Paulo — 9,600 km."]
K = 4
CLOSE = {"atol": 1e-5, "rtol": 1e-5}  # float32 sums in another order
TARGETS = ("q_proj", "v_proj", "o_proj", "up_proj", "gate_proj", "down_proj")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_folder("llama", tmp_path_factory.mktemp("llm2comp") / "base", head=True)


@pytest.fixture
def untrained(base):
    return LLM2Comp(str(base), k=K, dtype="float32", device="cpu")


def load_raw(folder):
    from transformers import AutoModel

    return AutoModel.from_pretrained(folder, attn_implementation="eager").eval()


def draw_lora(model, seed, rank=3):
    """Return LoRA weights for every target, named as peft names those of a causal model."""
    generator, weights = torch.Generator().manual_seed(seed), {}
    for name, module in model.named_modules():
        if name.endswith(TARGETS):
            high, wide = module.weight.shape
            for side, shape in (("A", (rank, wide)), ("B", (high, rank))):
                weight = 0.3 * torch.randn(shape, generator=generator)
                weights[f"base_model.model.model.{name}.lora_{side}.weight"] = weight
    return weights


def draw_memory(k=K, dim=32):
    return torch.randn(k, dim, generator=torch.Generator().manual_seed(99))


def write_checkpoint(place, folder, **changed):
    from safetensors.torch import save_file

    model = load_raw(folder)
    for n in (1, 2):
        (place / f"stage{n}").mkdir(parents=True)
        save_file(draw_lora(model, n), place / f"stage{n}" / "adapter_model.safetensors")
        adapter = {"peft_type": "LORA", "r": 3, "lora_alpha": 6, "target_modules": TARGETS}
        (place / f"stage{n}" / "adapter_config.json").write_text(json.dumps(adapter))
    save_file({"memory": draw_memory()}, place / MEMORY)
    rows = len(model.get_input_embeddings().weight)
    ids = list(range(rows, rows + K))
    config = {"base": str(folder), "k": K, "attention": "bidirectional", "memory_ids": ids}
    config |= {"stages": ["stage1", "stage2"]} | changed
    (place / CONFIG).write_text(json.dumps(config))
    return LLM2Comp(str(place), dtype="float32", device="cpu")


def raw_states(folder, text, memory, *, model=None, causal=False, layer=-1):
    """Return the states of text and memory; the mask of attention is explicit."""
    from transformers import AutoTokenizer

    model = model or load_raw(folder)
    ids = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")["input_ids"].long()
    inputs = torch.cat([model.get_input_embeddings()(ids)[0], memory])[None]
    t = inputs.shape[1]
    mask = torch.full((t, t), -1e9).triu(1) if causal else torch.zeros(t, t)
    with torch.no_grad():
        out = model(
            inputs_embeds=inputs, attention_mask=mask[None, None], output_hidden_states=True
        )
    return out.hidden_states[layer][0]


def raw_mean(*args, **options):
    return raw_states(*args, **options)[-K:].mean(0).numpy()


def untrained_memory(base):
    return random_memory(load_raw(base).get_input_embeddings().weight.detach(), K)


@pytest.mark.parametrize("attention", ["auto", "native"])
def test_embedding_is_the_mean_of_memory_states(untrained, base, attention):
    memory, causal = untrained_memory(base), attention == "native"
    expected = np.stack([raw_mean(base, text, memory, causal=causal) for text in TEXTS])
    encoder = replace(untrained, attention=attention)
    np.testing.assert_allclose(replace(encoder, normalise=False).encode(TEXTS), expected, **CLOSE)
    unit = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(encoder.encode(TEXTS), unit, **CLOSE)
    states = encoder.encode_memory(TEXTS)
    assert states.shape == (len(TEXTS), K, 32)
    np.testing.assert_allclose(states.mean(1), expected, **CLOSE)
    raw = raw_states(base, TEXTS[0], memory, causal=causal)[-K:].numpy()
    np.testing.assert_allclose(states[0], raw, **CLOSE)


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
        assert {i for a, b in found.spans.tolist() for i in range(a, b)} == set(range(len(text)))


def test_a_truncated_text_keeps_its_memory(untrained, base):
    from transformers import AutoTokenizer

    text, tokenizer = "word " * 300, AutoTokenizer.from_pretrained(base)
    cut = tokenizer.decode(tokenizer(text)["input_ids"][: 40 - K])
    encoder = replace(untrained, max_length=40, normalise=False)
    (batch,) = encoder.stream([Item(text)])
    assert batch.truncated.all()
    assert batch.tokens.tolist() == [40]
    expected = raw_mean(base, cut, untrained_memory(base))
    np.testing.assert_allclose(batch.vectors[0], expected, **CLOSE)


def test_untrained_memory_is_fixed_and_scaled_like_the_table(base):
    table = load_raw(base).get_input_embeddings().weight.detach()
    rows = random_memory(table, 512)
    torch.manual_seed(123)
    assert torch.equal(rows, random_memory(table, 512))
    assert rows.std().item() == pytest.approx(table.std().item(), rel=0.05)  # 16,384 draws


def test_no_memory_pools_the_text_without_its_first_special_token(tmp_path):
    from transformers import AutoTokenizer

    folder = tiny_folder("opt", tmp_path / "opt")
    tokenizer, model, expected = AutoTokenizer.from_pretrained(folder), load_raw(folder), []
    texts = [*TEXTS, ""]
    for text in texts:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        assert int(ids[0, 0]) == tokenizer.bos_token_id
        with torch.no_grad():
            states = model(ids)[0][0]
        expected.append((states[1:] if text else states).mean(0).numpy())
    options = {"attention": "native", "normalise": False, "dtype": "float32", "device": "cpu"}
    encoder = LLM2Comp(str(folder), k=0, **options)
    np.testing.assert_allclose(encoder.encode(texts), expected, **CLOSE)
    assert encoder.encode_memory(texts).shape == (len(texts), 0, 32)


def test_stages_are_merged_in_order_and_the_shared_backbone_is_unchanged(base, tmp_path):
    encoder = replace(write_checkpoint(tmp_path / "c", base), normalise=False)
    shared = encoder._backbone(encoder._checkpoint()).load().model.state_dict()
    before = {name: tensor.clone() for name, tensor in shared.items()}
    model = load_raw(base)
    for stage in (draw_lora(model, 1), draw_lora(model, 2)):
        for name, module in model.named_modules():
            if name.endswith(TARGETS):
                prefix = f"base_model.model.model.{name}.lora_"
                low, high = stage[f"{prefix}A.weight"], stage[f"{prefix}B.weight"]
                module.weight.data += 2.0 * high @ low
    expected = [raw_mean(base, text, draw_memory(), model=model) for text in TEXTS]
    # merged weights are some tens large
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=2e-4, rtol=1e-4)
    assert encoder.card().trained
    assert before.keys() == shared.keys()
    assert all(torch.equal(before[name], shared[name]) for name in before)


def test_a_rewritten_checkpoint_is_read_again(base, tmp_path):
    from safetensors.torch import save_file

    encoder = write_checkpoint(tmp_path / "c", base)
    vectors, identity = encoder.encode(TEXTS), fingerprint(encoder)
    (tmp_path / "c" / MEMORY).unlink()
    save_file({"memory": 2 * draw_memory()}, tmp_path / "c" / MEMORY)
    assert fingerprint(encoder) != identity
    assert not np.allclose(encoder.encode(TEXTS), vectors, atol=1e-3)


def test_k_and_attention_are_the_checkpoint_s(base, tmp_path):
    encoder = write_checkpoint(tmp_path / "a", base)
    vectors = encoder.encode(TEXTS)
    explicit = replace(encoder, k=K, attention="bidirectional")
    np.testing.assert_array_equal(explicit.encode(TEXTS), vectors)
    causal = write_checkpoint(tmp_path / "b", base, attention="native")
    assert causal.card().weights != encoder.card().weights
    assert not np.allclose(causal.encode(TEXTS), vectors, atol=1e-3)
    for other in ({"k": 5}, {"attention": "native"}):
        with pytest.raises(CheckpointError, match="leave these settings out"):
            replace(encoder, **other).encode(TEXTS)


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


def test_a_backbone_counts_as_untrained(untrained):
    assert not untrained.card().trained
    assert not LLM2Comp(PACKAGED).card().trained
