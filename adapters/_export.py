"""Encoders as folders of sentence-transformers: whole models, with LoRA weights merged.

A prompt with words after the text is written as a chat template, since sentence-transformers keeps
what such a template puts at the end when it truncates; its system message is the instruction.
Memory tokens are the end of such a template too, and ``WordWeights`` limits the mean to them.
Linear layers of states are ``Dense`` modules.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from torch import nn

from adapters._files import read_json
from adapters._network import Network, quiet, save_whole
from adapters._trainable import share_weights
from bench.encoder import Embeddings
from bench.errors import CheckpointError, UsageError
from bench.files import temporary_folder

if TYPE_CHECKING:  # slow to import
    from sentence_transformers import SentenceTransformer

Encode = Callable[[Sequence[str]], Embeddings]
"""From texts to their vectors."""

TEXT = "messages[-1]['content']"
"""The text, in a chat template."""

_FORWARD = {"method": "forward", "method_output_name": "last_hidden_state"}
_SAFE = {"trust_remote_code": False}
_SENTENCE = "The cat sat on the mat, and nobody knew why it had not left the house."
_LONG = " ".join([_SENTENCE] * 60)  # no space at its end, which sentence-transformers drops
_TRIED = (_SENTENCE, "x", "Naïve café: 1,234.5 units (in 2021)?", _LONG)


@dataclass(frozen=True)
class SentenceLayout:
    """How an encoder reads a text, in the terms of sentence-transformers.

    Attributes:
        limit: Most tokens of a prompt.
        pooling: Of the last states: "mean", "weightedmean", "lasttoken" or "cls".
        normalise: Whether vectors have length 1.
        prompt: What is put before each text; with a template, the system message.
        document: What documents get instead; "" for the same.
        template: A chat template of text and system message; "" for the bare text.
        cut: The side on which a prompt is truncated.
        memory: Ids of the memory tokens, which end the template; only they are pooled.
        read: How many of them are pooled, the last ones; None for all.
        layers: Linear layers that map each state before the pooling, of a network with weights.
    """

    limit: int
    pooling: str = "mean"
    normalise: bool = False
    prompt: str = ""
    document: str = ""
    template: str = ""
    cut: Literal["left", "right"] = "right"
    memory: Sequence[int] = ()
    read: int | None = None
    layers: Sequence[nn.Linear] = ()


def quote(text: str) -> str:
    """Return a text as a string of a chat template."""
    return json.dumps(text)


def check_layout(network: Network, layout: SentenceLayout) -> None:
    """Check that sentence-transformers has a setting for everything.

    Raises:
        UsageError: It has not; the message says for what.
    """
    if network.decoder and not network.causal:
        raise UsageError(
            "sentence-transformers cannot make a decoder bidirectional: "
            "use an encoder with attention='native'"
        )
    tokenizer = network.tokenizer
    added = tokenizer("").input_ids
    if layout.template and added not in ([], [tokenizer.bos_token_id]):
        raise UsageError(
            "sentence-transformers has no prompt with words after the text for a tokenizer that "
            "adds tokens at the end: use a decoder"
        )


def write_folder(encode: Encode, network: Network, layout: SentenceLayout, folder: Path) -> None:
    """Write a folder that ``SentenceTransformer`` loads with the encoder's vectors.

    It is whole or not there: texts are embedded by both before it gets its name.

    Args:
        encode: Of the encoder that is exported.
        network: Its network, loaded.
        layout: What ``check_layout`` accepts.
        folder: Where to; it must not be there, or be empty.

    Raises:
        UsageError: The folder has files.
        CheckpointError: The exported model gives other vectors.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"expected a new or empty folder, got {folder}: choose another")
    with temporary_folder(folder.absolute().parent) as work, quiet():
        made = work / "made"
        _save(network, layout, work / "transformer", made)
        _compare(encode, network, made)
        if folder.exists():
            folder.rmdir()
        made.replace(folder)


def _save(network: Network, layout: SentenceLayout, parts: Path, folder: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import (
        Dense,
        Normalize,
        Pooling,
        Transformer,
        WordWeights,
    )

    tokens = _save_transformer(network, layout, parts)
    chat = {"message": {**_FORWARD, "format": "flat"}} if layout.template else {}
    transformer = Transformer(
        str(parts),
        max_seq_length=layout.limit,
        modality_config={"text": _FORWARD, **chat},
        module_output_name="token_embeddings",
        model_kwargs={"dtype": network.dtype, **_SAFE},
        processor_kwargs=dict(_SAFE),
        config_kwargs=dict(_SAFE),
    )
    modules: list[Any] = [transformer]
    dim = network.dim
    for layer in layout.layers:  # before the pooling, where all modules have one dtype
        states = {"module_input_name": "token_embeddings"}
        dense = Dense(dim, layer.out_features, activation_function=None, **states)
        dense.linear.load_state_dict(layer.state_dict())
        modules.append(dense)
        dim = layer.out_features
    if layout.memory:
        pooled = layout.memory[-(layout.read or len(layout.memory)) :]
        weights = {tokens[i]: 1.0 for i in pooled}
        modules.append(WordWeights(tokens, weights, unknown_word_weight=0.0))
    modules.append(Pooling(dim, layout.pooling))
    if layout.normalise:
        modules.append(Normalize())
    # without one of their own, sentence-transformers gives queries and documents none
    names = ("text", "query", "document") if layout.prompt else ()
    prompts = dict.fromkeys(names, layout.prompt)
    model = SentenceTransformer(
        modules=modules,
        device="cpu",
        prompts=prompts | ({"document": layout.document} if layout.document else {}),
        default_prompt_name=next(iter(prompts), None),
        **_SAFE,
    )
    model.save(str(folder), create_model_card=False)
    path = folder / "tokenizer_config.json"  # to which no library writes the side
    settings = {**read_json(path), "truncation_side": layout.cut}
    path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _save_transformer(network: Network, layout: SentenceLayout, folder: Path) -> list[str]:
    """Write model and tokenizer, and return the tokens by id, if there are memory tokens."""
    shared = share_weights(network)
    tokenizer: Any = copy.deepcopy(network.tokenizer)
    rows = len(shared.model.get_input_embeddings().get_parameter("weight"))
    shared.model.config.vocab_size = rows
    memory = {token: f"<|memory_{i}|>" for i, token in enumerate(layout.memory)}
    if memory:
        names = [memory.get(i, f"<|unused_{i}|>") for i in range(len(tokenizer), rows)]
        tokenizer.add_special_tokens({"additional_special_tokens": names})
    first = tokenizer.decode(tokenizer("").input_ids)
    tokenizer.chat_template = None
    if layout.template:
        start = join_template([quote(first)] if first else [])
        tokenizer.chat_template = start + layout.template + "".join(memory.values())
    save_whole(replace(shared, tokenizer=tokenizer), folder)
    return [str(token) for token in tokenizer.convert_ids_to_tokens(range(rows))] if memory else []


def _compare(encode: Encode, network: Network, folder: Path) -> None:
    """Check that the folder gives the encoder's vectors, of short texts and a long one."""
    from sentence_transformers import SentenceTransformer

    model: SentenceTransformer = SentenceTransformer(str(folder), device="cpu", **_SAFE)
    found = np.asarray(model.encode(list(_TRIED), convert_to_numpy=True), np.float64)
    wanted = encode(_TRIED).astype(np.float64)
    apart = np.linalg.norm(found - wanted, axis=1) / np.linalg.norm(wanted, axis=1)
    allowed = 1e-4 if network.dtype == "float32" else 5e-2
    if not (apart <= allowed).all():
        worst = _TRIED[int(apart.argmax())]
        raise CheckpointError(
            f"expected the encoder's vectors from the exported model, got others for "
            f"{worst[:40]!r} ({apart.max():.2g} off): this checkpoint cannot be exported"
        )


def plain_layer(layer: int, network: Network) -> None:
    """Check that a layer is the last one.

    Raises:
        UsageError: It is another.
    """
    if layer not in (-1, network.layers):
        raise UsageError(
            f"sentence-transformers reads the last layer, and this encoder layer {layer}: "
            "set layer=-1 for other vectors that can be exported"
        )


def join_template(parts: Sequence[str]) -> str:
    """Return a chat template that prints expressions one after another."""
    return "".join(f"{{{{ {part} }}}}" for part in parts)
