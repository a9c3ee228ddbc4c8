"""LLM2Comp on tiny random models, against raw forward passes with an explicit mask and merges written out."""

import json
from dataclasses import replace

import numpy as np
import pytest

from adapters._backbone import PACKAGED
from adapters.llm2comp.encoder import CONFIG, MEMORY, LLM2Comp, framed, random_memory
from adapters.llm2comp.trainee import Trainee
from bench.encoder import Item, fingerprint
from bench.errors import CheckpointError, UsageError
from tests.tiny import tiny_folder

torch = pytest.importorskip("torch")

TEXTS = ["The cat sat on the mat.", "Find the scorer", "rain", "São Paulo — 9,600 km."]
QUESTION = "Identify the topic"
K = 4
CLOSE = {"atol": 1e-5, "rtol": 1e-5}  # float32 sums in another order
TARGETS = (
    "self_attn.q_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.up_proj",
    "mlp.gate_proj",
    "mlp.down_proj",
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_folder("llama", tmp_path_factory.mktemp("llm2comp") / "base", head=True)


@pytest.fixture
def untrained(base):
    return LLM2Comp(str(base), k=K, dtype="float32", device="cpu")


def model_of(folder):
    from transformers import AutoModel

    return AutoModel.from_pretrained(folder, attn_implementation="eager").eval()


def lora(model, seed, rank=3):
    """Return low-rank weights for every target of a trunk, named as peft names those of a whole causal model."""
    draw, out = torch.Generator().manual_seed(seed), {}
    for name, module in model.named_modules():
        if name.endswith(TARGETS):
            wide, high = module.weight.shape[1], module.weight.shape[0]
            out[f"base_model.model.model.{name}.lora_A.weight"] = 0.3 * torch.randn(
                rank, wide, generator=draw
            )
            out[f"base_model.model.model.{name}.lora_B.weight"] = 0.3 * torch.randn(
                high, rank, generator=draw
            )
    return out


def checkpoint(place, base, *, stages=2, said=None):
    from safetensors.torch import save_file

    model = model_of(base)
    place.mkdir()
    for n in range(stages):
        (place / f"stage{n + 1}").mkdir()
        save_file(lora(model, n), place / f"stage{n + 1}" / "adapter_model.safetensors")
        config = {
            "peft_type": "LORA",
            "r": 3,
            "lora_alpha": 6,
            "bias": "none",
            "use_dora": False,
            "target_modules": [t.split(".")[1] for t in TARGETS],
        }
        (place / f"stage{n + 1}" / "adapter_config.json").write_text(json.dumps(config))
    save_file({"memory": memory_rows()}, place / MEMORY)
    rows = model.get_input_embeddings().weight.shape[0]
    config = {
        "base": str(base),
        "k": K,
        "attention": "bidirectional",
        "stages": [f"stage{n + 1}" for n in range(stages)],
    }
    (place / CONFIG).write_text(
        json.dumps(config | {"memory_ids": list(range(rows, rows + K))} | (said or {}))
    )
    return place


def memory_rows(k=K, dim=32):
    return torch.randn(k, dim, generator=torch.Generator().manual_seed(99))


def raw_states(folder, text, rows, *, model=None, causal=False, layer=-1):
    """Return the states of text and memory; attention is a mask written out in full."""
    from transformers import AutoTokenizer

    model = model or model_of(folder)
    ids = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")["input_ids"].long()
    inputs = torch.cat([model.get_input_embeddings()(ids)[0], rows])[None]
    t = inputs.shape[1]
    mask = torch.zeros(1, 1, t, t) if not causal else torch.full((t, t), -1e9).triu(1)[None, None]
    with torch.no_grad():
        return model(
            inputs_embeds=inputs, attention_mask=mask, output_hidden_states=True
        ).hidden_states[layer][0]


def pooled(states):
    vector = states[-K:].mean(0)
    return (vector / vector.norm()).numpy()


def untrained_rows(base):
    return random_memory(model_of(base).get_input_embeddings().weight.detach(), K)


def test_a_text_is_the_normalised_mean_of_its_memory_states(untrained, base):
    expected = [pooled(raw_states(base, text, untrained_rows(base))) for text in TEXTS]
    np.testing.assert_allclose(untrained.encode(TEXTS), expected, **CLOSE)
    np.testing.assert_allclose(untrained.encode(TEXTS[1:2])[0], expected[1], **CLOSE)


def test_the_bare_mean_is_a_switch(untrained, base):
    expected = [raw_states(base, text, untrained_rows(base))[-K:].mean(0).numpy() for text in TEXTS]
    np.testing.assert_allclose(replace(untrained, normalise=False).encode(TEXTS), expected, **CLOSE)


def test_native_attention_is_causal_and_the_default_is_not(untrained, base):
    causal = replace(untrained, attention="native")
    expected = [pooled(raw_states(base, text, untrained_rows(base), causal=True)) for text in TEXTS]
    np.testing.assert_allclose(causal.encode(TEXTS), expected, **CLOSE)
    assert not np.allclose(causal.encode(TEXTS), untrained.encode(TEXTS), atol=1e-3)


def test_the_last_token_changes_the_state_of_the_first_only_when_bidirectional(untrained):
    for encoder, moved in ((untrained, True), (replace(untrained, attention="native"), False)):
        one, other = encoder.encode_tokens(["The cat sat on the mat", "The cat sat on the dog"])
        assert (np.abs(one.states[0] - other.states[0]).max() > 1e-3) == moved


def test_the_instruction_stands_in_front_with_one_colon_and_a_newline_behind(untrained, base):
    prompt = f"{QUESTION}:{TEXTS[0]}\n"
    expected = pooled(raw_states(base, prompt, untrained_rows(base)))
    for instruction in (QUESTION, f"{QUESTION}:"):
        np.testing.assert_allclose(
            untrained.encode(TEXTS[:1], instruction=instruction)[0], expected, **CLOSE
        )
    assert framed("x", "") == ("x", "", "")


def test_token_states_are_the_text_s_own_without_the_memory(untrained, base):
    for text, found in zip(TEXTS, untrained.encode_tokens(TEXTS, layer=2), strict=True):
        np.testing.assert_allclose(
            found.states,
            raw_states(base, text, untrained_rows(base), layer=2)[:-K].numpy(),
            **CLOSE,
        )
        assert sorted({i for a, b in found.spans.tolist() for i in range(a, b)}) == list(
            range(len(text))
        )


def test_a_long_text_keeps_its_memory(untrained, base):
    from transformers import AutoTokenizer

    text = "word " * 300
    tokenizer = AutoTokenizer.from_pretrained(base)
    cut = tokenizer.decode(tokenizer(text)["input_ids"][: 40 - K])
    encoder = replace(untrained, max_length=40)
    (batch,) = encoder.stream([Item(text)])
    assert batch.truncated.all()
    assert batch.tokens.tolist() == [40]
    np.testing.assert_allclose(
        batch.vectors[0], pooled(raw_states(base, cut, untrained_rows(base))), **CLOSE
    )


def test_untrained_memory_is_the_same_every_time_and_has_the_table_s_size(base):
    table = model_of(base).get_input_embeddings().weight.detach()
    rows = random_memory(table, 512)
    torch.manual_seed(123)
    assert torch.equal(rows, random_memory(table, 512))
    assert rows.std().item() == pytest.approx(table.std().item(), rel=0.05)  # 16,384 draws


def test_other_encoders_on_the_same_backbone_see_neither_memory_nor_merges(
    untrained, base, tmp_path
):
    plain = untrained._backbone(None).load()
    before = {name: tensor.clone() for name, tensor in plain.model.state_dict().items()}
    untrained.encode(TEXTS)
    LLM2Comp(str(checkpoint(tmp_path / "c", base)), k=K, dtype="float32", device="cpu").encode(
        TEXTS
    )
    after = untrained._backbone(None).load().model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_checkpoint_s_stages_are_added_in_order_and_its_memory_rows_used(base, tmp_path):
    encoder = LLM2Comp(str(checkpoint(tmp_path / "c", base)), k=K, dtype="float32", device="cpu")
    model = model_of(base)
    for stage in (lora(model, 0), lora(model, 1)):
        for name, module in model.named_modules():
            if name.endswith(TARGETS):
                low, high = (
                    stage[f"base_model.model.model.{name}.lora_{side}.weight"] for side in "AB"
                )
                module.weight.data += 2.0 * high @ low
    expected = [pooled(raw_states(base, text, memory_rows(), model=model)) for text in TEXTS]
    np.testing.assert_allclose(
        encoder.encode(TEXTS), expected, atol=1e-4, rtol=1e-4
    )  # the merged weights are some tens large
    assert encoder.card().trained


def test_a_checkpoint_in_the_home_directory_is_found_by_its_short_name(base, tmp_path, monkeypatch):
    place = checkpoint(tmp_path / "c", base)
    monkeypatch.setenv("HOME", str(tmp_path))
    short, long = (
        LLM2Comp(name, k=K, dtype="float32", device="cpu") for name in ("~/c", str(place))
    )
    assert fingerprint(short) == fingerprint(long)
    np.testing.assert_array_equal(short.encode(TEXTS), long.encode(TEXTS))


@pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing`:FutureWarning"
)  # peft asks transformers by an old name
def test_peft_reads_the_same_folder_to_the_same_vectors(base, tmp_path):
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    place = checkpoint(tmp_path / "c", base, stages=1)
    whole = peft.PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base, attn_implementation="eager"),
        str(place / "stage1"),
    )
    model = whole.merge_and_unload().model.eval()
    expected = [pooled(raw_states(base, text, memory_rows(), model=model)) for text in TEXTS]
    found = LLM2Comp(str(place), k=K, dtype="float32", device="cpu").encode(TEXTS)
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)


def test_a_checkpoint_written_anew_in_its_place_is_read_anew(base, tmp_path):
    from safetensors.torch import save_file

    place = checkpoint(tmp_path / "c", base)
    encoder = LLM2Comp(str(place), k=K, dtype="float32", device="cpu")
    vectors, digits = encoder.encode(TEXTS), fingerprint(encoder)
    (place / MEMORY).unlink()
    save_file({"memory": 2 * memory_rows()}, place / MEMORY)
    assert fingerprint(encoder) != digits
    assert not np.allclose(encoder.encode(TEXTS), vectors, atol=1e-3)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"k": 5, "memory_ids": [1, 2, 3, 4, 5]}, "k=5"),
        ({"attention": "native"}, "attention=bidirectional"),
        ({"memory_ids": [0, 1, 2, 3]}, "follow the vocabulary"),
        ({"stages": ["stage1", "stage3"]}, "stage3"),
        ({"base": None}, "base"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(base, tmp_path, said, words):
    encoder = LLM2Comp(
        str(checkpoint(tmp_path / "c", base, said=said)),
        k=K,
        attention="bidirectional",
        dtype="float32",
        device="cpu",
    )
    with pytest.raises(CheckpointError, match=words):
        encoder.encode(TEXTS)


@pytest.mark.parametrize(("k", "dim"), [(K, 16), (3, 32)])
def test_memory_rows_of_another_number_or_width_are_refused(base, tmp_path, k, dim):
    from safetensors.torch import save_file

    place = checkpoint(tmp_path / "c", base)
    save_file({"memory": memory_rows(k, dim)}, place / MEMORY)
    with pytest.raises(CheckpointError, match="memory"):
        LLM2Comp(str(place), k=K, dtype="float32", device="cpu").encode(TEXTS)


@pytest.mark.parametrize("fault", ["dora", "one side", "another module", "another shape"])
def test_low_rank_weights_that_do_not_fit_are_refused(base, tmp_path, fault):
    from safetensors.torch import load_file, save_file

    place = checkpoint(tmp_path / "c", base)
    weights, config = (
        place / "stage1" / "adapter_model.safetensors",
        place / "stage1" / "adapter_config.json",
    )
    state = load_file(weights)
    key = next(name for name in state if name.endswith("lora_B.weight"))
    if fault == "dora":
        config.write_text(json.dumps(json.loads(config.read_text()) | {"use_dora": True}))
    elif fault == "another shape":
        state[key] = torch.ones(7, 3)
    else:
        taken = state.pop(key)
        if fault == "another module":
            state[key.replace("layers.0", "layers.70")] = taken
            low = key.replace("lora_B", "lora_A")
            state[low.replace("layers.0", "layers.70")] = state.pop(low)
    save_file(state, weights)
    with pytest.raises(CheckpointError):
        LLM2Comp(str(place), k=K, dtype="float32", device="cpu").encode(TEXTS)


def test_no_memory_at_all_is_the_mean_of_the_text_s_own_states(untrained, base):
    bare = replace(untrained, k=0, normalise=False)
    expected = [raw_states(base, text, torch.zeros(0, 32)).mean(0).numpy() for text in TEXTS]
    np.testing.assert_allclose(bare.encode(TEXTS), expected, **CLOSE)
    assert bare.encode_memory(TEXTS).shape == (len(TEXTS), 0, 32)
    with pytest.raises(UsageError):
        replace(untrained, k=-1).encode(TEXTS)


def test_without_memory_the_mean_leaves_out_the_beginning_of_the_text(tmp_path):
    from transformers import AutoTokenizer

    folder = tiny_folder("opt", tmp_path / "opt")
    tokenizer, model, expected = AutoTokenizer.from_pretrained(folder), model_of(folder), []
    texts = [*TEXTS, ""]
    for text in texts:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        assert int(ids[0, 0]) == tokenizer.bos_token_id
        with torch.no_grad():
            states = model(ids)[0][0]
        expected.append((states[1:] if text else states).mean(0).numpy())
    bare = LLM2Comp(
        str(folder), k=0, attention="native", normalise=False, dtype="float32", device="cpu"
    )
    np.testing.assert_allclose(bare.encode(texts), expected, **CLOSE)
    network = bare._network()
    trainee = Trainee(network, torch.nn.Parameter(torch.empty(0, 32)))
    rows = tokenizer(texts)["input_ids"]
    with torch.no_grad():
        np.testing.assert_allclose(trainee.embeddings(rows).numpy(), expected, **CLOSE)


def test_an_attention_that_does_not_exist_is_refused(untrained, base, tmp_path):
    with pytest.raises(UsageError, match="bidirectional"):
        replace(untrained, attention="bidirectonal").encode(TEXTS)
    place = checkpoint(tmp_path / "c", base, said={"attention": "bidirectonal"})
    with pytest.raises(CheckpointError, match="bidirectonal"):
        LLM2Comp(str(place), dtype="float32", device="cpu").encode(TEXTS)


def test_a_length_that_leaves_no_text_beside_the_memory_is_refused(untrained):
    with pytest.raises(UsageError, match="max_length"):
        replace(untrained, max_length=K).encode(TEXTS)
    with pytest.raises(UsageError, match="max_length"):
        replace(untrained, k=128).encode(TEXTS)  # as many as the network has positions
    assert np.isfinite(replace(untrained, max_length=K + 1).encode(TEXTS)).all()


def test_memory_states_are_one_by_one_and_their_mean_is_the_embedding(untrained, base):
    expected = [raw_states(base, text, untrained_rows(base))[-K:].numpy() for text in TEXTS]
    np.testing.assert_allclose(untrained.encode_memory(TEXTS), expected, **CLOSE)
    np.testing.assert_allclose(
        untrained.encode_memory(TEXTS).mean(1),
        replace(untrained, normalise=False).encode(TEXTS),
        **CLOSE,
    )


def test_number_of_memory_tokens_and_attention_are_the_checkpoint_s_unless_given(base, tmp_path):
    place = str(checkpoint(tmp_path / "c", base))
    told, given = (
        LLM2Comp(place, dtype="float32", device="cpu", **more)
        for more in ({}, {"k": K, "attention": "bidirectional"})
    )
    np.testing.assert_array_equal(told.encode(TEXTS), given.encode(TEXTS))
    causal = LLM2Comp(
        str(checkpoint(tmp_path / "d", base, said={"attention": "native"})),
        dtype="float32",
        device="cpu",
    )
    assert causal.card().weights != told.card().weights
    assert not np.allclose(causal.encode(TEXTS), told.encode(TEXTS), atol=1e-3)


def test_a_bare_backbone_counts_as_untrained(untrained):
    assert not untrained.card().trained
    assert not LLM2Comp(PACKAGED).card().trained


@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_order_batching_and_odd_texts_do_not_matter(kind, tmp_path):
    encoder = LLM2Comp(
        str(tiny_folder(kind, tmp_path / "m")), k=K, dtype="float32", device="cpu", budget=256
    )
    texts = [*TEXTS, "", "🙂🙃", "word " * 20_000]
    together = encoder.encode(texts)
    assert np.isfinite(together).all()
    np.testing.assert_allclose(encoder.encode(texts[::-1])[::-1], together, **CLOSE)
    np.testing.assert_allclose(
        np.vstack([encoder.encode([text]) for text in texts]), together, **CLOSE
    )
