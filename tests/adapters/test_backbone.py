"""Backbones: states, layers, heads, damaged folders, cards, GGUF files, folders in the cache."""

import json
import multiprocessing
import shutil

import gguf
import numpy as np
import pytest
import safetensors.torch as safetensors
import torch
import transformers

from adapters import _gguf
from adapters._backbone import PACKAGED, Backbone, resolve
from adapters._batching import pad_batch
from adapters._source import content_digest, make_once
from bench.errors import CheckpointError, Unavailable, UsageError
from tests.adapters.checks import CPU, edit_json, load_network
from tests.tiny import DECODERS, KINDS

TEXT = "The cat watched the rain in 1984."


def padded(network, *texts):
    return pad_batch(network.tokenizer(list(texts))["input_ids"], network)


def states(folder, *inputs):
    return load_network(folder, head="none").hidden_states(*inputs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attention", ["native", "bidirectional"])
def test_states_do_not_depend_on_padding_and_follow_the_attention(networks, kind, attention):
    network = networks(kind, attention=attention)
    assert network.decoder == (kind in DECODERS)
    alone = network.hidden_states(*padded(network, "no rain"))
    ids, mask = padded(network, "no rain", TEXT)
    together = network.hidden_states(ids, mask)
    # float32 sums in another order
    torch.testing.assert_close(together[:1, : alone.shape[1]], alone, atol=1e-5, rtol=1e-5)
    assert alone.shape[2] == network.dim == 32
    for row, before in ((0, together), (1, together[1:])):  # padded, and alone
        changed = ids.clone()
        changed[row, int(mask[row].sum()) - 1] += 1
        after = network.hidden_states(changed[row:], mask[row:])
        causal = network.decoder and attention == "native"
        assert torch.equal(before[0, 0], after[0, 0]) == causal


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_is_there_if_asked_for_and_every_missing_tensor_is_named(
    tiny, networks, tmp_path, kind
):
    network, folder = networks(kind), shutil.copytree(tiny(kind), tmp_path / "head")
    ids, mask = padded(network, TEXT)
    logits = network.model(input_ids=ids, attention_mask=mask).logits
    assert logits.shape[2] == len(network.tokenizer)
    torch.testing.assert_close(network.hidden_states(ids, mask), states(folder, ids, mask))
    state = safetensors.load_file(folder / "model.safetensors")
    lost = next(name for name in state if "layers.1" in name or "layer.1" in name)
    del state[lost]
    safetensors.save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"layers?\.1\."):
        load_network(folder, head="none")
    if kind not in DECODERS:  # whose heads are their embeddings
        with pytest.raises(CheckpointError, match="lacks"):
            load_network(tiny(kind, head=False))


BOTH = "tokenizer.json tokenizer_config.json"  # without both, RoBERTa makes an empty tokenizer


@pytest.mark.parametrize(
    ("kind", "files", "content"),
    [
        ("llama", "config.json", None),
        ("llama", "config.json", b"{"),
        ("llama", "config.json", b"{}"),
        ("llama", "tokenizer.json", None),
        ("llama", "model.safetensors", None),
        ("llama", "model.safetensors", b"cut"),
        ("roberta", BOTH, None),
    ],
)
def test_a_damaged_folder_is_a_one_line_error(tiny, tmp_path, kind, files, content):
    folder = shutil.copytree(tiny(kind), tmp_path / "broken")
    for name in files.split():
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        load_network(folder)
    assert "\n" not in str(caught.value)


def test_a_source_that_is_not_there_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for source in ("no-such/model@main", str(tmp_path / "nothing")):
        with pytest.raises(Unavailable, match=source):
            Backbone(source).folder()


def test_the_digest_is_of_content_not_of_place_or_readme(tiny, tmp_path):
    folder = shutil.copytree(tiny("bert"), tmp_path / "elsewhere")
    (folder / "README.md").write_text("words")
    assert content_digest(folder) == content_digest(tiny("bert"))
    assert content_digest(folder) != content_digest(tiny("bert", seed=1))
    (folder / "tokenizer_config.json").write_text("{}")
    assert content_digest(folder) != content_digest(tiny("bert"))
    with pytest.raises(CheckpointError, match="no file of one"):
        content_digest(tmp_path)


def test_a_card_counts_the_weights_without_loading(tiny, tmp_path, monkeypatch):
    folder = tiny("bert", head=False)
    card, network = (
        Backbone(str(folder), **CPU).card(trained=False),
        load_network(folder, head="none"),
    )
    assert card.parameters == sum(p.numel() for p in network.model.parameters())
    assert (card.trained, card.dtype, card.device) == (False, "float32", "cpu")
    assert card.backbone == folder.name
    monkeypatch.setenv("BENCH_DOWNLOADS", str(tmp_path))  # the packaged card needs no archive
    card = Backbone(PACKAGED, device="cpu").card()
    assert "4-bit" in card.backbone
    assert len(card.weights) == 64
    assert not list(tmp_path.iterdir())


def test_a_training_of_all_weights_is_on_the_backbone_that_it_began_with(tiny, tmp_path):
    base = tiny("llama")
    names = {str(base): base.name, "org/made-up@main": "org/made-up", "/gone/made-up": "made-up"}
    names[PACKAGED] = Backbone(PACKAGED).card().backbone
    for i, (backbone, name) in enumerate(names.items()):
        made = shutil.copytree(base, tmp_path / str(i))
        (made / "card.json").write_text(json.dumps({"method": "crops", "backbone": backbone}))
        card = Backbone(str(made), **CPU).card(trained=False)
        assert (card.backbone, card.trained) == (name, True)


def test_an_unknown_device_or_dtype_is_refused():
    with pytest.raises(Unavailable, match="tpu"):
        resolve("tpu")
    with pytest.raises(UsageError, match="float8"):
        resolve("cpu", "float8")
    assert resolve("cpu", "bfloat16") == ("cpu", "bfloat16")


def test_a_missing_pooler_is_drawn_alike_whatever_was_drawn_before(tiny, tmp_path):
    poolers = []
    for seed in (1, 2):
        folder = shutil.copytree(tiny("bert"), tmp_path / str(seed))
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            poolers.append(load_network(folder, head="none").model.pooler.dense.weight)
    torch.testing.assert_close(*poolers, rtol=0, atol=0)


def test_loading_leaves_the_global_random_state_alone(tiny):
    folder = tiny("roberta", seed=2)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    load_network(folder, "bidirectional", head="none")
    assert torch.equal(before, torch.get_rng_state())


def write_gguf(network, folder, path):
    """Write the tiny llama as llama.cpp would: 4-bit matrices, rope rows interleaved."""
    config, tokenizer = network.model.config, network.tokenizer
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    merges = json.loads((folder / "tokenizer.json").read_text())["model"]["merges"]
    special = set(tokenizer.all_special_tokens)
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    about = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "head_count": heads["attn_q"],
        "head_count_kv": heads["attn_k"],
        "rope_freq_base": 10_000.0,
        "rope_dimension_count": config.hidden_size // heads["attn_q"],
        "layer_norm_rms_eps": config.rms_norm_eps,
        "vocab_size": len(tokens),
        "tokenizer_model": "gpt2",
        "tokenizer_pre": "smollm",
        "token_list": tokens,
        "token_types": [3 if token in special else 1 for token in tokens],
        "token_merges": [" ".join(merge) for merge in merges],
    }
    for name in ("bos", "eos", "unk", "pad"):
        about[f"{name}_token_id"] = getattr(tokenizer, f"{name}_token_id")
    writer = gguf.GGUFWriter(path, "llama")
    for name, value in about.items():
        getattr(writer, f"add_{name}")(value)
    short = {long: short for short, long in _gguf._LAYER.items()}
    outside = {"embed_tokens": "token_embd.weight", "norm": "output_norm.weight"}
    for name, tensor in network.model.model.state_dict().items():
        parts, weights = name.removesuffix(".weight").split("."), tensor.numpy()
        packed = outside.get(parts[0])
        if packed is None:
            own = short[".".join(parts[2:])]
            packed = f"blk.{parts[1]}.{own}.weight"
            if own in heads:
                halves = weights.reshape(heads[own], 2, -1, weights.shape[1])
                weights = halves.swapaxes(1, 2).reshape(weights.shape)
        kind = None
        if weights.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q4_1
            weights = gguf.quantize(np.ascontiguousarray(weights), kind)
        writer.add_tensor(packed, weights, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_converted_gguf_gives_the_logits_of_transformers_and_keeps_the_tokenizer(
    tiny, networks, tmp_path
):
    write_gguf(networks("llama"), tiny("llama"), tmp_path / "tiny.gguf")
    _gguf.convert(tmp_path / "tiny.gguf", tmp_path / "made")
    network = Backbone(str(tmp_path / "made"), head="lm", dtype="bfloat16", device="cpu").load()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="tiny.gguf", dtype=torch.bfloat16
    ).eval()
    ids, _ = padded(network, TEXT)
    assert torch.equal(network.model(ids).logits, theirs(ids).logits)
    made, original = network.tokenizer, networks("llama").tokenizer
    for text in ("In 1984,\n 25 cats <|im_end|> sat.", "", "über — ok"):
        assert made(text)["input_ids"] == original(text)["input_ids"]
    assert made.tokenize("a 19") == ["a", "Ġ", "1", "9"]
    assert (made.pad_token_id, made.eos_token_id) == (original.pad_token_id, original.eos_token_id)


def _fill(name, text):
    def make(target):
        target.mkdir()
        (target / "file").write_text(text)

    make_once(name, make)


def test_a_folder_that_an_earlier_version_made_in_the_cache_is_still_read(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_DOWNLOADS", str(tmp_path / "old"))
    _fill("same", "text")
    monkeypatch.setenv("BENCH_DOWNLOADS", str(tmp_path / "new"))
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "old"))
    _fill("same", "another text")
    assert not (tmp_path / "new").exists()


def test_processes_that_make_a_folder_at_once_leave_one_whole_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_DOWNLOADS", str(tmp_path))
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=_fill, args=("same", "text" * 1000)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert [path.name for path in (tmp_path / "backbones").iterdir()] == ["same"]
    assert (tmp_path / "backbones" / "same" / "file").read_text() == "text" * 1000


def test_a_folder_whose_making_fails_is_not_there(tmp_path, monkeypatch):
    def fail(target):
        target.mkdir()
        (target / "half").write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("BENCH_DOWNLOADS", str(tmp_path))
    with pytest.raises(Unavailable, match="No space left"):
        make_once("name", fail)
    assert not list((tmp_path / "backbones").iterdir())


HARMS = {
    "changed": lambda folder: (folder / "1_Dense" / "weights").write_bytes(b"0124"),
    "added": lambda folder: (folder / "added_tokens").write_text("{}"),
    "removed": lambda folder: (folder / "config").unlink(),
    "unlisted": lambda folder: (folder / ".sha256.json").unlink(),  # as earlier releases left it
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_folder_in_the_cache_is_made_again(harm, tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_DOWNLOADS", str(tmp_path))
    expected = {"1_Dense/weights": b"0123", "config": b"{}"}

    def make(target):
        (target / "1_Dense").mkdir(parents=True)
        for name, content in expected.items():
            (target / name).write_bytes(content)

    folder = make_once("name", make)
    HARMS[harm](folder)
    if harm == "unlisted":
        (folder / "config").write_text("{ }")
    assert make_once("name", make) == folder
    assert {name: (folder / name).read_bytes() for name in expected} == expected
    assert {path.name for path in folder.iterdir()} == {"1_Dense", "config", ".sha256.json"}
    assert [path.name for path in folder.parent.iterdir()] == ["name"]


def test_the_packaged_backbone_knows_english_and_splits_numbers_into_digits():
    try:
        network = Backbone(PACKAGED, head="lm", device="cpu").load()
    except Unavailable as error:
        pytest.skip(str(error))
    prose = (
        "Water is one of the most important substances on Earth. All plants and animals need "
        "water to live. If there was no water there would be no life on Earth. People use water "
        "for many things, such as drinking, cooking, cleaning and growing food."
    )
    ids, _ = padded(network, prose)
    with torch.inference_mode():
        logits = network.model(ids).logits.float()
    # A wrong order of rope rows, or a wrong tokenizer, gives thousands.
    assert torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:]).exp() < 40
    assert network.tokenizer.tokenize("in 1953") == ["in", "Ġ", "1", "9", "5", "3"]
    card, embeddings = Backbone(PACKAGED).card(), network.model.get_input_embeddings().weight
    assert sum(p.numel() for p in network.model.parameters()) == card.parameters
    assert embeddings.numel() == card.embedding_parameters


def test_a_card_counts_no_decoder_of_an_encoder_and_no_masks_that_were_saved(tiny, tmp_path):
    both = tiny("t5", head=False)
    used = sum(p.numel() for p in load_network(both, head="none").model.parameters())
    assert Backbone(str(both), **CPU).card().parameters == used
    folder = shutil.copytree(tiny("gpt2", head=False), tmp_path / "gpt2")
    before = Backbone(str(folder), **CPU).card()
    state = safetensors.load_file(folder / "model.safetensors")
    state |= {f"h.{layer}.attn.bias": torch.ones(1, 1, 64, 64) for layer in range(2)}
    safetensors.save_file(state, folder / "model.safetensors")  # as of openai-community/gpt2
    after = Backbone(str(folder), **CPU).card()
    assert after.parameters == before.parameters
    assert after.multiplications == before.multiplications


@pytest.mark.parametrize("shards", [1, 3])
def test_a_card_counts_the_weights_that_are_loaded_and_no_second_copy(tiny, tmp_path, shards):
    folder = shutil.copytree(tiny("mistral"), tmp_path / "mistral")
    before = Backbone(str(folder), **CPU).card()
    state = safetensors.load_file(folder / "model.safetensors")
    if shards > 1:
        (folder / "model.safetensors").unlink()
        model = transformers.AutoModelForCausalLM.from_pretrained(tiny("mistral"))
        model.save_pretrained(folder, max_shard_size="60KB")
        assert len(list(folder.glob("model-*.safetensors"))) > 1
    for name in ("consolidated", "model.fp16"):  # as of mistralai and stabilityai
        safetensors.save_file(state, folder / f"{name}.safetensors")
    after = Backbone(str(folder), **CPU).card()
    assert after.parameters == before.parameters
    assert after.multiplications == before.multiplications


def test_low_rank_weights_that_are_their_own_base_are_refused(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    for folder, base in ((one, other), (other, one), (tmp_path, tmp_path)):
        folder.mkdir(exist_ok=True)
        edit_json(folder / "adapter_config.json", base_model_name_or_path=str(base))
    for folder in (one, tmp_path):
        with pytest.raises(CheckpointError, match="leads back") as error:
            Backbone(str(folder), **CPU).card()
        assert str(folder) in str(error.value)
