import json
import multiprocessing
import shutil

import numpy as np
import pytest

from adapters import _gguf
from adapters._backbone import PACKAGED, Backbone, resolve
from adapters._batching import pad_batch
from adapters._source import content_digest, make_once
from bench.errors import CheckpointError, Unavailable, UsageError
from tests.tiny import DECODERS, KINDS, tiny_folder

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")

TEXT = "The cat watched the rain in 1984."


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {kind: tiny_folder(kind, tmp_path_factory.mktemp(kind)) for kind in KINDS}


def cpu(folder, **settings):
    return Backbone(str(folder), dtype="float32", device="cpu", **settings)


def padded(network, *texts):
    return pad_batch(network.tokenizer(list(texts))["input_ids"], network)


def states(folder, *inputs, **settings):
    return cpu(folder, **settings).load().hidden_states(*inputs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attention", ["native", "bidirectional"])
def test_states_do_not_depend_on_padding_and_follow_the_attention(folders, kind, attention):
    network = cpu(folders[kind], attention=attention).load()
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
def test_layers_count_from_the_input_embeddings_and_the_longest_text_runs(folders, kind):
    network = cpu(folders[kind]).load()
    ids, mask = padded(network, TEXT, "no")
    last = network.hidden_states(ids, mask)
    torch.testing.assert_close(network.hidden_states(ids, mask, network.layers), last)
    earlier = [network.hidden_states(ids, mask, layer) for layer in range(network.layers)]
    assert all(not torch.allclose(a, last) for a in earlier)
    with pytest.raises(UsageError):
        network.hidden_states(ids, mask, network.layers + 1)
    assert network.max_length == 128
    longest = torch.full((2, 128), network.tokenizer.convert_tokens_to_ids("a"))
    mask = torch.ones_like(longest)
    mask[1, 100:] = 0
    assert network.hidden_states(longest, mask).isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_is_there_if_asked_for_and_every_missing_tensor_is_named(folders, tmp_path, kind):
    folder = tiny_folder(kind, tmp_path / "head", head=True)
    network = cpu(folder, head="lm").load()
    ids, mask = padded(network, TEXT)
    logits = network.model(input_ids=ids, attention_mask=mask).logits
    assert logits.shape[2] == len(network.tokenizer)
    torch.testing.assert_close(network.hidden_states(ids, mask), states(folder, ids, mask))
    state = safetensors.load_file(folder / "model.safetensors")
    lost = next(name for name in state if "layers.1" in name or "layer.1" in name)
    del state[lost]
    safetensors.save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"layers?\.1\."):
        cpu(folder).load()
    if kind not in DECODERS:  # whose heads are their embeddings
        with pytest.raises(CheckpointError, match="lacks"):
            cpu(folders[kind], head="lm").load()


DAMAGES = (
    ("llama", ("config.json",), None),
    ("llama", ("config.json",), b"{"),
    ("llama", ("config.json",), b"{}"),
    ("llama", ("tokenizer.json",), None),
    ("llama", ("model.safetensors",), None),
    ("llama", ("model.safetensors",), b"cut"),
    (
        "roberta",
        ("tokenizer.json", "tokenizer_config.json"),
        None,
    ),  # of which it makes an empty one
)


@pytest.mark.parametrize(("kind", "files", "content"), DAMAGES)
def test_a_damaged_folder_is_a_one_line_error(folders, tmp_path, kind, files, content):
    folder = shutil.copytree(folders[kind], tmp_path / "broken")
    for name in files:
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        cpu(folder).load()
    assert "\n" not in str(caught.value)


def test_weights_in_an_old_bin_file_load_too(folders, tmp_path):
    folder = shutil.copytree(folders["llama"], tmp_path / "old")
    state = safetensors.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    inputs = padded(cpu(folder).load(), TEXT)
    assert torch.equal(states(folder, *inputs), states(folders["llama"], *inputs))
    assert cpu(folder).card().parameters is None


def test_a_source_that_is_not_there_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for source in ("no-such/model@main", str(tmp_path / "nothing")):
        with pytest.raises(Unavailable, match=source):
            Backbone(source).folder()


def test_the_digest_is_of_content_not_of_place_or_readme(folders, tmp_path):
    folder = shutil.copytree(folders["bert"], tmp_path / "elsewhere")
    (folder / "README.md").write_text("words")
    assert content_digest(folder) == content_digest(folders["bert"])
    assert content_digest(folder) != content_digest(tiny_folder("bert", tmp_path / "other", seed=1))
    (folder / "tokenizer_config.json").write_text("{}")
    assert content_digest(folder) != content_digest(folders["bert"])
    with pytest.raises(CheckpointError, match="no file of one"):
        content_digest(tmp_path)


def test_a_card_counts_the_weights_without_loading(folders):
    card = cpu(folders["bert"]).card(trained=False)
    assert card.parameters == sum(p.numel() for p in cpu(folders["bert"]).load().model.parameters())
    assert (card.trained, card.dtype, card.device) == (False, "float32", "cpu")
    assert card.backbone == folders["bert"].name


def test_the_packaged_card_needs_no_archive(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_DOWNLOADS", str(tmp_path))
    card = Backbone(PACKAGED, device="cpu").card()
    assert "4-bit" in card.backbone
    assert len(card.weights) == 64
    assert not list(tmp_path.iterdir())


def test_an_unknown_device_or_dtype_is_refused():
    with pytest.raises(Unavailable, match="tpu"):
        resolve("tpu")
    with pytest.raises(UsageError, match="float8"):
        resolve("cpu", "float8")
    assert resolve("cpu", "bfloat16") == ("cpu", "bfloat16")


def test_loading_leaves_the_global_random_state_alone(folders):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    cpu(folders["roberta"], attention="bidirectional").load()
    assert torch.equal(before, torch.get_rng_state())


def write_gguf(folder, path):
    """Write the tiny llama as llama.cpp would: 4-bit matrices, rope rows interleaved."""
    import gguf

    network = cpu(folder, head="lm").load()
    config, tokenizer = network.model.config, network.tokenizer
    tokens = [tokenizer.convert_ids_to_tokens(i) for i in range(len(tokenizer))]
    special = set(tokenizer.all_special_tokens)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(10_000.0)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    merges = json.loads((folder / "tokenizer.json").read_text())["model"]["merges"]
    writer.add_token_merges([" ".join(merge) for merge in merges])
    for name in ("bos", "eos", "unk", "pad"):
        getattr(writer, f"add_{name}_token_id")(getattr(tokenizer, f"{name}_token_id"))
    back = {long: short for short, long in _gguf._LAYER.items()}
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for name, tensor in network.model.state_dict().items():
        if name == "lm_head.weight":
            continue
        parts, weights = name.removesuffix(".weight").split("."), tensor.numpy()
        if parts[1] == "layers":
            short = back[".".join(parts[3:])]
            if short in heads:
                rows, width = weights.shape
                weights = (
                    weights.reshape(heads[short], 2, rows // heads[short] // 2, width)
                    .swapaxes(1, 2)
                    .reshape(rows, width)
                )
            packed = f"blk.{parts[2]}.{short}.weight"
        else:
            packed = {"embed_tokens": "token_embd.weight", "norm": "output_norm.weight"}[parts[1]]
        if weights.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q4_1
            writer.add_tensor(
                packed, gguf.quantize(np.ascontiguousarray(weights), kind), raw_dtype=kind
            )
        else:
            writer.add_tensor(packed, weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_converted_gguf_gives_the_logits_of_transformers_and_keeps_the_tokenizer(
    folders, tmp_path
):
    import transformers

    write_gguf(folders["llama"], tmp_path / "tiny.gguf")
    _gguf.convert(tmp_path / "tiny.gguf", tmp_path / "made")
    network = Backbone(str(tmp_path / "made"), head="lm", dtype="bfloat16", device="cpu").load()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="tiny.gguf", dtype=torch.bfloat16
    ).eval()
    ids, _ = padded(network, TEXT)
    assert torch.equal(network.model(ids).logits, theirs(ids).logits)
    made, original = network.tokenizer, cpu(folders["llama"]).load().tokenizer
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


def test_two_processes_that_make_a_folder_at_once_leave_one_whole_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_DOWNLOADS", str(tmp_path))
    workers = [
        multiprocessing.get_context("fork").Process(target=_fill, args=("same", "text" * 1000))
        for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert [path.name for path in (tmp_path / "backbones").iterdir()] == ["same"]
    assert (tmp_path / "backbones" / "same" / "file").read_text() == "text" * 1000


def test_a_folder_whose_making_fails_is_not_there(tmp_path, monkeypatch):
    def failing(target):
        target.mkdir()
        (target / "half").write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("BENCH_DOWNLOADS", str(tmp_path))
    with pytest.raises(Unavailable, match="No space left"):
        make_once("name", failing)
    assert not list((tmp_path / "backbones").iterdir())


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


def test_low_rank_weights_that_are_their_own_base_are_refused(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    for folder, base in ((one, other), (other, one), (tmp_path, tmp_path)):
        folder.mkdir(exist_ok=True)
        (folder / "adapter_config.json").write_text(
            json.dumps({"base_model_name_or_path": str(base)})
        )
    for folder in (one, tmp_path):
        with pytest.raises(CheckpointError, match="leads back") as error:
            cpu(folder).card()
        assert str(folder) in str(error.value)
