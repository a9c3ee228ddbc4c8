"""Checkpoints in the layouts people have: what transformers and peft read, or one line."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch as safetensors
import sentencepiece
import torch
from tokenizers import processors
from transformers import (
    AutoTokenizer,
    Gemma3Config,
    LlamaConfig,
    LlamaForCausalLM,
    NystromformerConfig,
    NystromformerModel,
    T5EncoderModel,
)

import adapters
from adapters._backbone import PACKAGED, Backbone
from adapters._batching import pad_batch
from adapters._source import content_digest
from adapters.baseline.pooled import Pooled
from adapters.crops.encoder import Crops
from adapters.dino.encoder import DINO
from adapters.inbedder.encoder import PUBLISHED, InBedder, frame_question
from bench.checkpoints import CARD
from bench.errors import CheckpointError, EncodingError, UsageError
from tests.adapters.checks import CPU, draw, edit_json, load_network, mirror
from tests.tiny import MORE_DECODERS, SENTENCES, tiny_folder, tiny_tokenizer

TEXT = SENTENCES[0]
NATIVE_ONLY = {"gpt_neo", "mamba", "mpt"}
"""Decoders whose tokens cannot be made to see those after them by a setting."""


def read(folder, attention="native"):
    return load_network(folder, attention, head="none")


def padded(network, *texts):
    return pad_batch(network.tokenizer(list(texts))["input_ids"], network)


def states(folder):
    network = read(folder)
    return network.hidden_states(*padded(network, TEXT))


def check_states(network, *, causal):
    """A text has the states it has alone; a later token changes an earlier state or not."""
    ids, mask = padded(network, "no rain", TEXT)
    together = network.hidden_states(ids, mask)
    alone = network.hidden_states(*padded(network, "no rain"))
    torch.testing.assert_close(together[:1, : alone.shape[1]], alone, atol=1e-5, rtol=1e-5)
    ids[1, -1] += 1
    same = torch.allclose(network.hidden_states(ids, mask)[1, 0], together[1, 0], atol=1e-5)
    assert same == causal  # but for the rounding of a mixture of experts
    assert (network.decoder, network.causal) == (True, causal)


@pytest.mark.parametrize("kind", MORE_DECODERS)
def test_every_decoder_is_one_by_its_behaviour_and_continues_padded_texts_or_is_refused(tiny, kind):
    folder = tiny(kind)
    network = read(folder)
    check_states(network, causal=True)
    longest = torch.full((1, min(network.max_length, 200)), 7)
    assert network.hidden_states(longest, torch.ones_like(longest)).isfinite().all()
    if {"n_positions", "max_seq_len"} & MORE_DECODERS[kind].keys():
        assert network.max_length == 64
    if kind in NATIVE_ONLY:
        with pytest.raises(CheckpointError, match="native"):
            read(folder, "bidirectional")
    else:
        check_states(read(folder, "bidirectional"), causal=False)
    encoder = InBedder(str(folder), readout="avg-all", **CPU)
    if kind in {"mamba", "mpt"}:  # no cache of keys; distances that count padding
        with pytest.raises(UsageError, match="padded"):
            encoder.encode([TEXT])
    else:
        together = encoder.encode([TEXT, "no"])
        np.testing.assert_allclose(together[1:], encoder.encode(["no"]), atol=1e-4)


def test_a_text_has_no_padding_where_a_model_reads_it(tiny):
    encoder = Pooled(str(tiny("convbert")), **CPU)
    alone = [encoder.encode([text])[0] for text in SENTENCES]
    np.testing.assert_allclose(encoder.encode(SENTENCES), alone, atol=1e-5)
    assert not Pooled(str(tiny("bert")), **CPU)._network().reads_padding


@pytest.mark.parametrize("name", ["max_seq_len", "n_ctx", "seq_length", "max_sequence_length"])
def test_a_limit_of_positions_counts_under_any_name(tmp_path, name):
    assert read(tiny_folder("bloom", tmp_path, **{name: 48})).max_length == 48


def test_a_decoder_saved_bidirectional_stays_a_bidirectional_decoder(tmp_path):
    check_states(read(tiny_folder("llama", tmp_path, is_causal=False)), causal=False)


@pytest.mark.parametrize("head", [False, True])
def test_the_encoder_of_t5_gives_the_states_of_transformers(tmp_path, head):
    folder = tiny_folder("t5", tmp_path, head=head)
    if not head:  # as sentence-transformers saves it
        model = T5EncoderModel.from_pretrained(folder)
        (folder / "model.safetensors").unlink()
        model.save_pretrained(folder)
    network = read(folder)
    ids, mask = padded(network, "no rain", TEXT)
    theirs = T5EncoderModel.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        expected = theirs(ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(network.hidden_states(ids, mask), expected, atol=1e-5, rtol=1e-5)
    assert (network.decoder, network.seq2seq, network.layers) == (False, False, 2)


def test_an_encoder_that_does_not_stand_alone_is_refused(tiny):
    with pytest.raises(CheckpointError, match="bart"):
        read(tiny("bart"))


def test_a_model_of_more_than_texts_or_that_fails_on_short_ones_is_refused(tiny, tmp_path):
    folder = Path(shutil.copytree(tiny("bert"), tmp_path / "model"))
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = NystromformerConfig(vocab_size=99, segment_means_seq_len=64, num_landmarks=8, **small)
    NystromformerModel(config).save_pretrained(folder)
    with pytest.raises(CheckpointError, match="NystromformerModel, which fails"):
        read(folder)
    Gemma3Config().save_pretrained(folder)
    with pytest.raises(CheckpointError, match="gemma3, which holds one"):
        read(folder)


def test_a_decoder_with_projected_embeddings_and_norms_last_is_read(tmp_path):
    options = {"word_embed_proj_dim": 16, "do_layer_norm_before": False}
    folder = tiny_folder("opt", tmp_path, head=True, **options)
    check_states(read(folder), causal=True)
    for readout in ("1st-gen", "avg-gen"):
        encoder = InBedder(str(folder), readout=readout, **CPU)
        vectors = encoder.encode([TEXT], instruction="What is it about?")
        assert vectors.shape == (1, 16)
        assert np.isfinite(vectors).all()
    several = encoder.encode_layers([TEXT], layers=(1, -1))
    for layer, (found,) in zip((1, -1), several, strict=True):
        (expected,) = encoder.encode_tokens([TEXT], layer=layer)
        np.testing.assert_array_equal(found.states, expected.states)
    assert PUBLISHED["opt-350m-InBedder"] == "BrandonZYW/opt-350m-InBedder"


def write_pieces(folder, name, **options):
    """Write a sentencepiece model in place of a fast tokenizer, and return it."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 9), model_writer=model, minloglevel=2, **options
    )
    for path in folder.glob("tokenizer*"):
        path.unlink()
    (folder / name).write_bytes(model.getvalue())
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def llama_2_folder(folder, shards):
    """Write a tiny Llama as ``llama-2-7b-InBedder``: ``.bin``, slow tokenizer, added pad token."""
    options = {"byte_fallback": True, "character_coverage": 1.0, "split_digits": True}
    options |= {"remove_extra_whitespaces": False, "normalization_rule_name": "identity"}
    tiny_folder("llama", folder, head=True, vocab_size=309, tie_word_embeddings=False)
    pieces = write_pieces(folder, "tokenizer.model", vocab_size=308, model_type="bpe", **options)
    edit_json(folder / "added_tokens.json", **{"[PAD]": pieces.get_piece_size()})
    specials = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    edit_json(folder / "special_tokens_map.json", **specials, pad_token="[PAD]")  # noqa: S106
    settings = {"add_bos_token": True, "add_eos_token": False, "model_max_length": 512}
    settings |= specials | {"tokenizer_class": "LlamaTokenizer"}
    edit_json(folder / "tokenizer_config.json", **settings)
    state = safetensors.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    if shards == 1:
        torch.save(state, folder / "pytorch_model.bin")
        return folder, pieces, state
    index = {}
    for shard in range(shards):
        file = f"pytorch_model-{shard + 1:05}-of-{shards:05}.bin"
        part = {name: state[name] for name in list(state)[shard::shards]}
        torch.save(part, folder / file)
        index |= dict.fromkeys(part, file)
    edit_json(folder / "pytorch_model.bin.index.json", metadata={}, weight_map=index)
    return folder, pieces, state


@pytest.mark.parametrize("shards", [1, 2])
def test_inbedders_flagship_layout_gives_the_state_of_its_own_pieces(tmp_path, shards):
    folder, pieces, state = llama_2_folder(tmp_path / "flagship", shards)
    encoder = InBedder(str(folder), **CPU)
    (vector,) = encoder.encode([TEXT], instruction="What is it about?")
    theirs = LlamaForCausalLM(LlamaConfig.from_pretrained(folder)).eval()
    theirs.load_state_dict(state)
    text, before, after = frame_question(TEXT, "What is it about?")
    ids = torch.tensor([[1, *pieces.encode(before + text + after)]])
    with torch.inference_mode():
        expected = theirs.model(ids).last_hidden_state[0, -1]
    np.testing.assert_allclose(vector, expected.numpy(), atol=1e-5)
    assert encoder.card().parameters is None
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
    state = {}
    for layer in range(3):
        name = f"base_model.model.layers.{layer}.self_attn.q_proj"
        state[f"{name}.lora_A.weight"] = draw(4, 32, seed=layer)
        state[f"{name}.lora_B.weight"] = draw(32, 4, seed=layer + 3)
    safetensors.save_file(state, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "base_model_name_or_path": str(base), "r": 4, "lora_alpha": 4}
    edit_json(folder / "adapter_config.json", **config)
    return state


def test_a_config_beside_lora_weights_and_bin_ones_change_nothing(tiny, tmp_path):
    base = tiny("llama")
    state = adapter_folder(base, tmp_path / "adapter")
    expected = states(tmp_path / "adapter")
    assert not torch.allclose(expected, states(base))
    both = shutil.copytree(tmp_path / "adapter", tmp_path / "both")
    shutil.copy(base / "config.json", both)
    old = shutil.copytree(tmp_path / "adapter", tmp_path / "old")
    (old / "adapter_model.safetensors").unlink()
    torch.save(state, old / "adapter_model.bin")
    for folder in (both, old):
        assert torch.equal(states(folder), expected)
    folders = (base, tmp_path / "adapter", both, old)
    assert len({Backbone(str(folder), **CPU).card().weights for folder in folders}) == 4
    shutil.copy(base / "model.safetensors", both)
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        read(both)


def test_a_bias_that_the_configuration_turns_off_is_not_left_out(tiny, tmp_path):
    for head in (False, True):
        folder = shutil.copytree(tiny("llama", head=head), tmp_path / f"head-{head}")
        state = safetensors.load_file(folder / "model.safetensors")
        name = next(name for name in state if name.endswith("q_proj.weight"))
        state[name.replace("weight", "bias")] = draw(32, seed=0)
        safetensors.save_file(state, folder / "model.safetensors", {"format": "pt"})
        for loaded in ("none", "lm") if head else ("none",):
            with pytest.raises(CheckpointError, match=r"q_proj\.bias"):
                load_network(folder, head=loaded)


def test_a_quantised_checkpoint_without_its_library_is_one_line(tiny, tmp_path):
    folder = shutil.copytree(tiny("llama"), tmp_path / "model")
    edit_json(folder / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(CheckpointError, match="GPTQ"):
        read(folder)


def test_lora_weights_name_the_revision_of_their_base(tmp_path):
    adapter_folder("org/name", tmp_path / "adapter")
    edit_json(tmp_path / "adapter" / "adapter_config.json", revision="abc")
    assert Backbone(str(tmp_path / "adapter")).base().source == "org/name@abc"


def test_a_hub_id_has_the_attention_of_its_training(tiny, tmp_path, monkeypatch):
    folder = mirror("org/name", tmp_path, monkeypatch)
    shutil.copytree(tiny("llama"), folder, dirs_exist_ok=True)
    edit_json(folder / CARD, recipe={"attention": "bidirectional"})
    expected = Crops(str(folder), attention="bidirectional", **CPU).encode([TEXT])
    assert not np.allclose(expected, Crops(str(tiny("llama")), **CPU).encode([TEXT]), atol=1e-2)
    for source in (str(folder), "org/name"):
        np.testing.assert_array_equal(Crops(source, **CPU).encode([TEXT]), expected)


def test_a_prompt_that_is_to_be_continued_ends_without_an_added_token(tiny, tmp_path):
    folder = shutil.copytree(tiny("llama"), tmp_path / "model")
    tokenizer = tiny_tokenizer("llama")
    ends = [("<|im_end|>", tokenizer.eos_token_id)]
    template = processors.TemplateProcessing(single="$A <|im_end|>", special_tokens=ends)
    tokenizer.backend_tokenizer.post_processor = template
    tokenizer.save_pretrained(folder)

    def both(encode):
        return [encode(str(source)) for source in (tiny("llama"), folder)]

    def score(source):
        words = (" good", " bad")
        return DINO(source, **CPU).score_words([TEXT], prompt="\nIt is", words=words)

    texts = [TEXT, "", "word " * 200]
    encoders = [InBedder(readout=readout, max_length=60) for readout in ("1st-gen", "avg-ppt")]
    encoders += [InBedder(readout="avg-gen", max_length=60)]
    encoders += [Pooled(pooling="last", template='It: "{text}" in one word:"')]
    for made in encoders:
        one, other = both(lambda at, made=made: replace(made, checkpoint=at, **CPU).encode(texts))
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(*both(score))
    one, other = both(lambda at: Pooled(at, pooling="last", **CPU).encode([TEXT]))
    assert not np.allclose(one, other, atol=1e-2)


def test_a_pad_token_without_an_embedding_pads_and_is_refused_in_a_text(tiny, tmp_path):
    folder = shutil.copytree(tiny("llama"), tmp_path / "model")
    plain = Pooled(str(folder), **CPU).encode(SENTENCES)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder)
    encoder = Pooled(str(folder), **CPU)
    np.testing.assert_allclose(encoder.encode(SENTENCES), plain, atol=1e-5)
    with pytest.raises(EncodingError, match=r"\[PAD\]"):
        encoder.encode(["a [PAD] b"])


def test_an_empty_text_without_any_special_token_is_one_line(tiny, tmp_path):
    folder = shutil.copytree(tiny("llama"), tmp_path / "model")
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    kept = {name: value for name, value in settings.items() if not name.endswith("_token")}
    path.write_text(json.dumps(kept))
    encoder = Pooled(str(folder), **CPU)
    assert np.isfinite(encoder.encode([TEXT])).all()
    with pytest.raises(EncodingError, match="empty"):
        encoder.encode(["", TEXT])


def test_t5_is_read_with_a_sentencepiece_model_alone(tmp_path):
    folder = tiny_folder("t5", tmp_path, vocab_size=400)
    options = {"vocab_size": 90, "pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    pieces = write_pieces(folder, "spiece.model", model_type="unigram", **options)
    settings = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "model_max_length": 64}
    edit_json(folder / "tokenizer_config.json", **settings)
    assert read(folder).tokenizer(TEXT)["input_ids"] == [*pieces.encode(TEXT), 1]


@pytest.mark.parametrize("method", ["dino", "inbedder", "llm2comp", "quip"])
def test_default_weights_are_lora_weights_whatever_lies_beside_them(method):
    folder = Path(adapters.__path__[0], method, "checkpoint")
    assert Backbone(str(folder)).adapted == folder
    assert Backbone(str(folder)).base().source == PACKAGED
