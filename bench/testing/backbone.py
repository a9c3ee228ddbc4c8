"""A tiny language model with random weights, for checks that need the network and not its quality.

It is written without torch, in the layout of a Llama of Hugging Face's transformers, and takes a
quarter of a megabyte.
"""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_WIDTH, _HEADS, _KEY_HEADS, _INNER, _LAYERS, _LENGTH = 32, 4, 2, 64, 2, 2048
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_CHAT = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)


def write_tiny_backbone(folder: Path, *, seed: int = 0) -> Path:
    """Write a decoder of 2 layers and 32 dimensions whose tokens are bytes, and return its folder.

    Args:
        folder: Where to; made when needed.
        seed: Of the weights.
    """
    from safetensors.numpy import save_file  # noqa: PLC0415 - of an extra
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers  # noqa: PLC0415 - likewise

    folder.mkdir(parents=True, exist_ok=True)
    tokens = [*_SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    core = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(list(_SPECIAL))
    core.save(str(folder / "tokenizer.json"))
    tokenizer = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": _LENGTH,
        "unk_token": _SPECIAL[0],
        "bos_token": _SPECIAL[1],
        "eos_token": _SPECIAL[2],
        "pad_token": _SPECIAL[2],
        "chat_template": _CHAT,
    }
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(tokens),
        "hidden_size": _WIDTH,
        "intermediate_size": _INNER,
        "num_hidden_layers": _LAYERS,
        "num_attention_heads": _HEADS,
        "num_key_value_heads": _KEY_HEADS,
        "max_position_embeddings": _LENGTH,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "dtype": "float32",
    }
    _write_json(folder / "tokenizer_config.json", tokenizer)
    _write_json(folder / "config.json", config)
    weights = _draw_weights(len(tokens), np.random.default_rng(seed))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _draw_weights(tokens: int, rng: np.random.Generator) -> dict[str, NDArray[np.float32]]:
    """Return the weights by name; vectors are the gains of norms, which are 1."""
    keys = _WIDTH * _KEY_HEADS // _HEADS
    shapes: dict[str, tuple[int, ...]] = {
        "self_attn.q_proj": (_WIDTH, _WIDTH),
        "self_attn.k_proj": (keys, _WIDTH),
        "self_attn.v_proj": (keys, _WIDTH),
        "self_attn.o_proj": (_WIDTH, _WIDTH),
        "mlp.gate_proj": (_INNER, _WIDTH),
        "mlp.up_proj": (_INNER, _WIDTH),
        "mlp.down_proj": (_WIDTH, _INNER),
        "input_layernorm": (_WIDTH,),
        "post_attention_layernorm": (_WIDTH,),
    }
    named = {"embed_tokens": (tokens, _WIDTH), "norm": (_WIDTH,)}
    for layer in range(_LAYERS):
        named |= {f"layers.{layer}.{name}": shape for name, shape in shapes.items()}
    weights = {}
    for name, shape in named.items():
        drawn = rng.normal(0, 0.2, shape) if len(shape) > 1 else np.ones(shape)
        weights[f"model.{name}.weight"] = drawn.astype(np.float32)
    return weights


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
