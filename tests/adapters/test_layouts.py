"""Checkpoints in the layouts people have: what transformers and peft read, or one line."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import adapters
from adapters._backbone import PACKAGED, Backbone
from adapters._batching import pad_batch
from adapters._source import content_digest
from adapters.baseline.pooled import Pooled
from adapters.inbedder.encoder import PUBLISHED, InBedder, frame_question
from bench.errors import CheckpointError, EncodingError, UsageError
from tests.tiny import MORE_DECODERS, SENTENCES, tiny_folder

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")

TEXT = SENTENCES[0]
NATIVE_ONLY = {"gpt_neo", "mamba", "mpt"}
"""Decoders whose tokens cannot be made to see those after them by a setting."""


def cpu(folder, **settings):
    return Backbone(str(folder), dtype="float32", device="cpu", **settings)


def padded(network, *texts):
    return pad_batch(network.tokenizer(list(texts))["input_ids"], network)


def check_states(network, *, causal):
    """A text has the states it has alone; a later token changes an earlier state or not."""
    ids, mask = padded(network, "no rain", TEXT)
    together = network.hidden_states(ids, mask)
    alone = network.hidden_states(*padded(network, "no rain"))
    torch.testing.assert_close(together[:1, : alone.shape[1]], alone, atol=1e-5, rtol=1e-5)
    changed = ids.clone()
    changed[1, -1] += 1
    after = network.hidden_states(changed, mask)
    assert torch.equal(after[1, 0], together[1, 0]) == causal
    assert (network.decoder, network.causal) == (True, causal)


@pytest.mark.parametrize("kind", MORE_DECODERS)
def test_every_decoder_is_one_by_its_behaviour_and_continues_padded_texts_or_is_refused(
    tmp_path, kind
):
    folder = tiny_folder(kind, tmp_path)
    network = cpu(folder).load()
    check_states(network, causal=True)
    longest = torch.full((1, min(network.max_length, 200)), 7)
    assert network.hidden_states(longest, torch.ones_like(longest)).isfinite().all()
    if {"n_positions", "max_seq_len"} & MORE_DECODERS[kind].keys():
        assert network.max_length == 64
    if kind in NATIVE_ONLY:
        with pytest.raises(CheckpointError, match="native"):
            cpu(folder, attention="bidirectional").load()
    else:
        check_states(cpu(folder, attention="bidirectional").load(), causal=False)
    head = str(tiny_folder(kind, tmp_path / "head", head=True))
    encoder = InBedder(head, readout="avg-all", dtype="float32", device="cpu")
    if kind in {"mamba", "mpt"}:  # no cache of keys; distances that count padding
        with pytest.raises(UsageError, match="padded"):
            encoder.encode([TEXT])
    else:
        together = encoder.encode([TEXT, "no"])
        np.testing.assert_allclose(together[1:], encoder.encode(["no"]), atol=1e-4)


@pytest.mark.parametrize("name", ["max_seq_len", "n_ctx", "seq_length", "max_sequence_length"])
def test_a_limit_of_positions_counts_under_any_name(tmp_path, name):
    folder = tiny_folder("bloom", tmp_path, **{name: 48})
    assert cpu(folder).load().max_length == 48


def test_a_decoder_saved_bidirectional_stays_a_bidirectional_decoder(tmp_path):
    check_states(cpu(tiny_folder("llama", tmp_path, is_causal=False)).load(), causal=False)


@pytest.mark.parametrize("head", [False, True])
def test_the_encoder_of_t5_gives_the_states_of_transformers(tmp_path, head):
    from transformers import T5EncoderModel

    folder = tiny_folder("t5", tmp_path, head=head)
    if not head:  # as sentence-transformers saves it
        model = T5EncoderModel.from_pretrained(folder)
        (folder / "model.safetensors").unlink()
        model.save_pretrained(folder)
    network = cpu(folder).load()
    ids, mask = padded(network, "no rain", TEXT)
    theirs = T5EncoderModel.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        states = theirs(ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(network.hidden_states(ids, mask), states, atol=1e-5, rtol=1e-5)
    assert not network.decoder
    assert not network.seq2seq
    assert network.layers == 2


def test_an_encoder_that_does_not_stand_alone_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="bart"):
        cpu(tiny_folder("bart", tmp_path, head=True)).load()


def test_a_decoder_with_projected_embeddings_and_norms_last_is_read(tmp_path):
    folder = tiny_folder(
        "opt", tmp_path, head=True, word_embed_proj_dim=16, do_layer_norm_before=False
    )
    check_states(cpu(folder).load(), causal=True)
    for readout in ("1st-gen", "avg-gen"):
        encoder = InBedder(str(folder), readout=readout, dtype="float32", device="cpu")
        vectors = encoder.encode([TEXT], instruction="What is it about?")
        assert vectors.shape == (1, 16)
        assert np.isfinite(vectors).all()
    assert PUBLISHED["opt-350m-InBedder"] == "BrandonZYW/opt-350m-InBedder"


def llama_2_folder(folder, shards):
    """Write a tiny Llama as ``llama-2-7b-InBedder``: ``.bin``, slow tokenizer, added pad token."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 9),
        model_writer=model,
        vocab_size=308,
        model_type="bpe",
        byte_fallback=True,
        character_coverage=1.0,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        split_digits=True,
        minloglevel=2,
    )
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    size = pieces.get_piece_size()
    tiny_folder("llama", folder, head=True, vocab_size=size + 1, tie_word_embeddings=False)
    for path in folder.glob("tokenizer*"):
        path.unlink()
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    _write(folder / "added_tokens.json", {"[PAD]": size})
    specials = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    _write(folder / "special_tokens_map.json", specials | {"pad_token": "[PAD]"})
    settings = {"add_bos_token": True, "add_eos_token": False, "model_max_length": 512}
    settings |= specials | {"tokenizer_class": "LlamaTokenizer"}
    _write(folder / "tokenizer_config.json", settings)
    state = safetensors.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    _save_bin(state, folder, shards)
    return folder, pieces, state


def _save_bin(state, folder, shards):
    if shards == 1:
        torch.save(state, folder / "pytorch_model.bin")
        return
    files = {
        name: f"pytorch_model-{i % shards + 1:05}-of-{shards:05}.bin"
        for i, name in enumerate(state)
    }
    for file in set(files.values()):
        torch.save({name: state[name] for name in state if files[name] == file}, folder / file)
    _write(folder / "pytorch_model.bin.index.json", {"metadata": {}, "weight_map": files})


def _write(path, value):
    path.write_text(json.dumps(value))


@pytest.mark.parametrize("shards", [1, 2])
def test_inbedders_flagship_layout_gives_the_state_of_its_own_pieces(tmp_path, shards):
    from transformers import LlamaConfig, LlamaForCausalLM

    folder, pieces, state = llama_2_folder(tmp_path / "flagship", shards)
    encoder = InBedder(str(folder), dtype="float32", device="cpu")
    (vector,) = encoder.encode([TEXT], instruction="What is it about?")
    theirs = LlamaForCausalLM(LlamaConfig.from_pretrained(folder)).eval()
    theirs.load_state_dict(state)
    text, before, after = frame_question(TEXT, "What is it about?")
    ids = torch.tensor([[1, *pieces.encode(before + text + after)]])
    with torch.inference_mode():
        expected = theirs.model(ids).last_hidden_state[0, -1]
    np.testing.assert_allclose(vector, expected.numpy(), atol=1e-5)
    network = encoder._network()
    assert network.pad_id == network.tokenizer.pad_token_id == pieces.get_piece_size()
    before = content_digest(folder)
    for path in folder.iterdir():
        original = path.read_bytes()
        path.write_bytes(original + b" ")
        assert content_digest(folder) != before or path.name == "generation_config.json"
        path.write_bytes(original)


def adapter_folder(base, folder):
    """Write plain LoRA weights of all layers."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    state = {}
    for layer in range(3):
        name = f"base_model.model.layers.{layer}.self_attn.q_proj"
        state[f"{name}.lora_A.weight"] = torch.randn(4, 32, generator=generator)
        state[f"{name}.lora_B.weight"] = torch.randn(32, 4, generator=generator)
    safetensors.save_file(state, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "base_model_name_or_path": str(base), "r": 4, "lora_alpha": 4}
    _write(folder / "adapter_config.json", config)
    return state


def test_a_config_beside_lora_weights_and_bin_ones_change_nothing(tmp_path):
    base = tiny_folder("llama", tmp_path / "base")
    state = adapter_folder(base, tmp_path / "adapter")
    network = cpu(tmp_path / "adapter").load()
    ids, mask = padded(network, TEXT)
    expected = network.hidden_states(ids, mask)
    assert not torch.allclose(expected, cpu(base).load().hidden_states(ids, mask))

    both = shutil.copytree(tmp_path / "adapter", tmp_path / "both")
    shutil.copy(base / "config.json", both)
    assert torch.equal(cpu(both).load().hidden_states(ids, mask), expected)

    old = shutil.copytree(tmp_path / "adapter", tmp_path / "old")
    (old / "adapter_model.safetensors").unlink()
    torch.save(state, old / "adapter_model.bin")
    assert torch.equal(cpu(old).load().hidden_states(ids, mask), expected)
    cards = [cpu(folder).card().weights for folder in (base, tmp_path / "adapter", both, old)]
    assert len(set(cards)) == 4

    shutil.copy(base / "model.safetensors", both)
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        cpu(both).load()


def test_lora_weights_name_the_revision_of_their_base(tmp_path):
    adapter_folder("org/name", tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_config.json"
    _write(path, json.loads(path.read_text()) | {"revision": "abc"})
    assert cpu(tmp_path / "adapter").base().source == "org/name@abc"


def test_a_pad_token_without_an_embedding_pads_and_is_refused_in_a_text(tmp_path):
    from transformers import AutoTokenizer

    folder = tiny_folder("llama", tmp_path / "model")
    plain = Pooled(str(folder), dtype="float32", device="cpu").encode(list(SENTENCES))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder)
    encoder = Pooled(str(folder), dtype="float32", device="cpu")
    np.testing.assert_allclose(encoder.encode(list(SENTENCES)), plain, atol=1e-5)
    with pytest.raises(EncodingError, match=r"\[PAD\]"):
        encoder.encode(["a [PAD] b"])


def test_an_empty_text_without_any_special_token_is_one_line(tmp_path):
    folder = tiny_folder("llama", tmp_path / "model")
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    _write(path, {name: value for name, value in settings.items() if not name.endswith("_token")})
    encoder = Pooled(str(folder), dtype="float32", device="cpu")
    assert np.isfinite(encoder.encode([TEXT])).all()
    with pytest.raises(EncodingError, match="empty"):
        encoder.encode(["", TEXT])


def test_t5_is_read_with_a_sentencepiece_model_alone(tmp_path):
    import sentencepiece

    folder, pieces = tiny_folder("t5", tmp_path, vocab_size=400), io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 9), model_writer=pieces, vocab_size=90,
        model_type="unigram", pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    for path in folder.glob("tokenizer*"):
        path.unlink()
    (folder / "spiece.model").write_bytes(pieces.getvalue())
    settings = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "model_max_length": 64}
    _write(folder / "tokenizer_config.json", settings)
    ids = sentencepiece.SentencePieceProcessor(model_proto=pieces.getvalue()).encode(TEXT)
    assert cpu(folder).load().tokenizer(TEXT)["input_ids"] == [*ids, 1]


@pytest.mark.parametrize("method", ["dino", "inbedder", "llm2comp", "quip"])
def test_default_weights_are_lora_weights_whatever_lies_beside_them(method):
    folder = Path(adapters.__path__[0], method, "checkpoint")
    assert Backbone(str(folder)).adapted == folder
    assert Backbone(str(folder)).base().source == PACKAGED
