"""Tiny random models in the layouts of real ones: what the tests of every torch adapter run on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from adapters._network import quiet

Kind = str
DECODERS: tuple[Kind, ...] = ("llama", "opt")
KINDS: tuple[Kind, ...] = (*DECODERS, "bert", "roberta", "mpnet", "modernbert")

_SIZE = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
    "max_position_embeddings": 128, "initializer_range": 0.2,
}  # fmt: skip
_WIDE = _SIZE | {"intermediate_size": 64}
_GROUPED = _WIDE | {"num_key_value_heads": 2}
_SEQ2SEQ = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "init_std": 0.2,
    "max_position_embeddings": 128, "forced_eos_token_id": None,
}  # fmt: skip
_SHALLOW = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.2,
}  # fmt: skip
_OPENAI = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.2}
MORE_DECODERS: Mapping[Kind, Mapping[str, Any]] = {
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.2},
    "falcon": _SHALLOW | {"alibi": True, "new_decoder_architecture": False},
    "gemma": _SHALLOW | {"num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 64},
    "gpt2": _OPENAI,
    "gpt_neo": {
        "hidden_size": 32, "num_layers": 2, "num_heads": 4, "initializer_range": 0.2,
        "attention_types": [[["global", "local"], 1]],
    },
    "gpt_neox": _SHALLOW | {"intermediate_size": 64, "max_position_embeddings": 64},
    "gptj": _OPENAI | {"rotary_dim": 4},
    "mamba": _SHALLOW | {"state_size": 4},
    "mixtral": _SHALLOW | {
        "num_key_value_heads": 2, "intermediate_size": 64, "num_local_experts": 4,
        "max_position_embeddings": 128,
    },
    "mpt": {
        "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64, "expansion_ratio": 2,
        "initializer_range": 0.2,
    },
    "phi": _SHALLOW | {"intermediate_size": 64},
}  # fmt: skip
"""Settings of further decoders with llama's tokenizer here; not in ``KINDS``, for time."""
_CONFIGS: Mapping[Kind, Mapping[str, Any]] = {
    "llama": _GROUPED | {"tie_word_embeddings": True},
    "mistral": _GROUPED,
    "qwen2": _GROUPED | {"tie_word_embeddings": True},
    "opt": {name: value for name, value in _SIZE.items() if name != "initializer_range"}
    | {"ffn_dim": 64, "word_embed_proj_dim": 32, "init_std": 0.2, "dropout": 0.1},
    "bert": _WIDE,
    "convbert": _WIDE,
    "roberta": _WIDE | {"max_position_embeddings": 130, "type_vocab_size": 1},
    "mpnet": _WIDE | {"max_position_embeddings": 130},
    "bart": _SEQ2SEQ,
    "albert": _WIDE | {"embedding_size": 16},
    "t5": {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4},
    "modernbert": _WIDE,
    **MORE_DECODERS,
}
_WITHOUT_ENDS = {"albert", "bert", "convbert", "mpnet", "t5", "modernbert"}
"""Kinds whose configuration keeps its own ids of the first and the last token."""
_HEADS = {"bart": "Seq2SeqLM", "t5": "Seq2SeqLM"}
_MASKED = ("albert", "bert", "convbert", "roberta", "mpnet", "modernbert")
_HEADS |= dict.fromkeys(_MASKED, "MaskedLM")

CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""ChatML, as of SmolLM2 and Qwen."""

SENTENCES = (
    "The cat sat on the mat and watched the rain.",
    "A quick brown fox jumps over the lazy dog in 1984.",
    "Which country won the final, and who scored the goal?",
    "Stock prices fell sharply after the bank raised its rates.",
    "It was a warm, funny and surprisingly moving film.",
    "She plays the violin while he is cooking dinner for seven.",
    "Zürich and São Paulo are far apart — 9,600 km or so.",
    "no",
)


def _tokens(**tokens: str) -> dict[str, str]:
    return {f"{name}_token": token for name, token in tokens.items()}


_ROBERTA = _tokens(bos="<s>", pad="<pad>", eos="</s>", unk="<unk>", cls="<s>", sep="</s>")
_BERT = _tokens(unk="[UNK]", cls="[CLS]", sep="[SEP]", pad="[PAD]", mask="[MASK]")
_LLAMA = _tokens(bos="<|im_start|>", eos="<|im_end|>", pad="<|im_end|>", unk="<|endoftext|>")
_SPECIALS: dict[Kind, dict[str, str]] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", *MORE_DECODERS), _LLAMA),
    "opt": _tokens(pad="<pad>", bos="</s>", eos="</s>", unk="</s>"),
    "albert": {"pad_token": "[PAD]", **_BERT},
    "bert": {"pad_token": "[PAD]", **_BERT},
    "convbert": {"pad_token": "[PAD]", **_BERT},
    "roberta": {**_ROBERTA, **_tokens(mask="<mask>")},
    "mpnet": {**_ROBERTA, **_tokens(unk="[UNK]", mask="<mask>")},
    "bart": _tokens(bos="<s>", pad="<pad>", eos="</s>", unk="<unk>"),
    "modernbert": _BERT,
    "t5": _tokens(eos="</s>", pad="<pad>", unk="<unk>"),
}
_ADDED = {"opt": ("", "</s>"), "t5": ("</s>", "")}
_ADDED |= dict.fromkeys(("albert", "bert", "convbert", "modernbert"), ("[SEP]", "[CLS]"))
_ADDED |= dict.fromkeys(("roberta", "mpnet", "bart"), ("</s>", "<s>"))


def tiny_folder(
    kind: Kind,
    path: Path,
    *,
    seed: int = 0,
    head: bool = False,
    extra_tokens: Sequence[str] = (),
    chat: str = "",
    **config: Any,
) -> Path:
    """Write a tiny random model with a real fast tokenizer, and return its folder.

    Args:
        kind: The architecture ("bart" only generates, with its head; "t5" has an encoder and a
            decoder). Hidden size 32, 2 or 3 layers, at most 128 positions by default.
        path: The folder, made when needed.
        seed: Of the weights; global random state stays as it is.
        head: Whether the checkpoint has its language modelling head (causal or masked).
        extra_tokens: Special tokens added to the vocabulary.
        chat: The tokenizer's chat template, such as ``CHAT``.
        config: Settings of the model that differ.
    """
    import torch

    tokenizer = tiny_tokenizer(kind, extra_tokens)
    tokenizer.chat_template = chat or None
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = _model(kind, head, tokenizer, config)
    with quiet():
        model.eval().save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def tiny_tokenizer(kind: Kind, extra_tokens: Sequence[str] = ()) -> Any:
    """Return a fast tokenizer of the kind's family that knows the words of ``SENTENCES``.

    Llama's adds no special tokens, as SmolLM2's.
    """
    from transformers import PreTrainedTokenizerFast

    core = (
        _word_pieces(_SPECIALS[kind])
        if kind in ("albert", "bert", "convbert", "mpnet")
        else _byte_pairs(_SPECIALS[kind], digits=kind in {"llama", "mistral", "qwen2"})
    )
    if kind in _ADDED:
        end, start = _ADDED[kind]
        core.post_processor = processors.TemplateProcessing(
            single=f"{start} $A {end}".strip(),
            special_tokens=[(t, core.token_to_id(t)) for t in (start, end) if t],
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, model_max_length=128, padding_side="right", **_SPECIALS[kind]
    )
    if extra_tokens:
        tokenizer.add_special_tokens({"additional_special_tokens": list(extra_tokens)})
    return tokenizer


def _word_pieces(special: dict[str, str]) -> Tokenizer:
    """Return a tokenizer that knows the words of ``SENTENCES`` and spells all others.

    A trained one would break ties at random.
    """
    splitter = pre_tokenizers.BertPreTokenizer()
    normal = normalizers.BertNormalizer()
    words = [
        word
        for text in SENTENCES
        for word, _ in splitter.pre_tokenize_str(normal.normalize_str(text))
    ]
    letters = sorted(set("".join(words)))
    tokens = dict.fromkeys(
        [*special.values(), *letters, *(f"##{letter}" for letter in letters), *words]
    )
    core = Tokenizer(
        models.WordPiece(
            {token: i for i, token in enumerate(tokens)}, unk_token=special["unk_token"]
        )
    )
    core.normalizer, core.pre_tokenizer, core.decoder = normal, splitter, decoders.WordPiece()
    return core


def _byte_pairs(special: dict[str, str], *, digits: bool) -> Tokenizer:
    """Return a byte-level tokenizer whose merges build the words of ``SENTENCES``."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    splitter = pre_tokenizers.Sequence(
        [*([pre_tokenizers.Digits(individual_digits=True)] if digits else []), byte_level]
    )
    words = [word for text in SENTENCES for word, _ in splitter.pre_tokenize_str(text)]
    merges = dict.fromkeys((word[:i], word[i]) for word in words for i in range(1, len(word)))
    tokens = dict.fromkeys(
        [*special.values(), *sorted(byte_level.alphabet()), *(a + b for a, b in merges)]
    )
    core = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, list(merges)))
    core.pre_tokenizer, core.decoder = splitter, decoders.ByteLevel()
    return core


def _model(kind: Kind, head: bool, tokenizer: Any, config: dict[str, Any]) -> Any:
    import transformers

    own = dict(_CONFIGS[kind]) | {"vocab_size": len(tokenizer)}
    ends = ["pad"] if kind in _WITHOUT_ENDS else ["pad", "bos", "eos"]
    ends += ["cls", "sep"] if kind == "modernbert" else []
    for name in ends:
        own[f"{name}_token_id"] = getattr(tokenizer, f"{name}_token_id")
    if kind in {"bart", "t5"}:
        start = tokenizer.eos_token_id if kind == "bart" else tokenizer.pad_token_id
        own["decoder_start_token_id"] = start
    made = transformers.AutoConfig.for_model(kind, **(own | config))
    auto = f"AutoModelFor{_HEADS.get(kind, 'CausalLM')}" if head else "AutoModel"
    return getattr(transformers, auto).from_config(made)
