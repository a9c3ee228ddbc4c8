"""A loaded language model with its tokenizer, and what it is asked: the states of tokens."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers.utils import logging as transformers_logging

from bench.errors import CheckpointError, UsageError

if TYPE_CHECKING:  # slow to import, and a run whose embeddings are all cached needs none of it
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

_LIMITS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "max_sequence_length",
    "n_ctx",
    "seq_length",
)
"""Names that configurations have for the most positions; the first one that is there counts."""

_WINDOWS = ("sliding_window", "window_size", "attention_chunk_size", "attention_window_size")
"""Names that configurations have for how far back the tokens of some layers see."""

_PADDING = 8
"""Positions of padding after a text, to see whether they change its states."""

_POSITION_TABLES = ("position_embeddings", "embed_positions", "positions_embed", "wpe")
"""Names of learned tables of positions."""


@dataclass(frozen=True, eq=False)
class Network:
    """A loaded backbone.

    Attributes:
        model: In evaluation mode, on the device.
        tokenizer: A fast tokenizer.
        device: Such as "cpu" or "cuda".
        dtype: "float32", "bfloat16" or "float16".
        decoder: Whether it was trained with causal attention.
        causal: Whether its attention still is causal.
        max_length: Most tokens it takes, special ones included.
        layers: Number of layers; hidden states are numbered from 0, the input embeddings, to this.
        dim: Size of a token state of the last layer.
        pad_id: What fills up a batch.
        reads_padding: Whether padding changes a text's states, masked or not, as in ConvBERT.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    device: str
    dtype: str
    decoder: bool
    causal: bool
    max_length: int
    layers: int
    dim: int
    pad_id: int
    reads_padding: bool = False

    @property
    def empty(self) -> bool:
        """Whether it has no weights, so that it can make prompts and nothing else."""
        return self.device == "meta"

    @property
    def seq2seq(self) -> bool:
        """Whether it is an encoder with a decoder; such a model can only generate."""
        return bool(self.model.config.is_encoder_decoder)

    @property
    def positions(self) -> int:
        """Most positions that the model itself can number, whatever its tokenizer cuts at."""
        return max_positions(self.model)

    @property
    def window(self) -> int:
        """Most tokens that a token sees in each layer, itself included; 1 << 30 for all.

        It is counted in places of a row: what lies between two tokens takes up room.
        """
        config = self.model.config.get_text_config()
        named = [getattr(config, name, None) for name in _WINDOWS]
        return min((size for size in named if isinstance(size, int) and size > 0), default=1 << 30)

    def hidden_states(
        self, ids: Tensor, mask: Tensor, layer: int = -1, *, positions: Tensor | None = None
    ) -> Tensor:
        """Return token states (b, t, dim) in the network's dtype.

        Args:
            ids: Token ids, int64 (b, t), padded on the right.
            mask: 1 at real positions, 0 at padding (b, t); or what is added to attention scores
                (b, 1, t, t).
            layer: 0 = input embeddings; -1 = last, after the final norm; -2 = the one before it.
            positions: Position ids (b, t), where they are not simply 0, 1, 2, ...

        Raises:
            UsageError: No such layer.
        """
        return self.states_of(ids, mask, (layer,), positions=positions)[0]

    def states_of(
        self,
        ids: Tensor,
        mask: Tensor,
        layers: Sequence[int],
        *,
        positions: Tensor | None = None,
    ) -> list[Tensor]:
        """Return the token states of several layers, from one pass; see ``hidden_states``."""
        lowest = -self.layers - 1
        for layer in layers:
            if not lowest <= layer <= self.layers:
                raise UsageError(
                    f"expected a layer from {lowest} to {self.layers} of this backbone, got {layer}"
                )
        earlier = any(layer not in (-1, self.layers) for layer in layers)
        more: dict[str, Any] = {"use_cache": False} if self.decoder else {}
        if positions is not None:
            more["position_ids"] = positions
        out = self.model.base_model(
            ids, attention_mask=self._needed(mask), output_hidden_states=earlier, **more
        )
        if not earlier:
            return [out.last_hidden_state for _ in layers]
        return [out.hidden_states[layer] for layer in layers]

    def _needed(self, mask: Tensor) -> Tensor | None:
        """Return the mask; None where attention is the same without it: padding is on the right."""
        if mask.dim() == 4:
            return mask
        return None if self.causal or bool(mask.all()) else mask


def embedding_table(network: Network) -> Tensor:
    """Return the input embeddings (rows, dim)."""
    return network.model.get_input_embeddings().get_parameter("weight").detach()


def added_ids(network: Network, count: int) -> range:
    """Return the ids of tokens that a method adds after the vocabulary.

    They are the last rows of the table; a network without weights has the vocabulary's rows alone.
    """
    rows = len(embedding_table(network))
    first = rows if network.empty else rows - count
    return range(first, first + count)


def make_bidirectional(model: PreTrainedModel) -> None:
    """Give a causal model bidirectional attention, in the mask (config) and the kernel (modules).

    Raises:
        CheckpointError: Its attention is still causal afterwards.
    """
    model.config.is_causal = False
    for module in model.modules():
        if vars(module).get("is_causal") is True:
            module.is_causal = False  # type: ignore[assignment]  # no tensor and no module
    try:
        bidirectional = is_bidirectional(model)
    except (AttributeError, RuntimeError, TypeError, ValueError):  # some expect a causal mask
        bidirectional = False
    if not bidirectional:
        raise CheckpointError(
            f"attention of {type(model).__name__} cannot be made bidirectional: "
            "use attention='native'"
        )


def is_bidirectional(model: PreTrainedModel) -> bool:
    """Say whether a later token changes an earlier state; no attribute tells it of all models.

    In a mixture of experts it changes the rounding, by the tokens that it shares an expert with.
    """
    with torch.inference_mode(), quiet():
        ids = torch.tensor([[3, 4, 3], [3, 4, 4]], device=model.device)
        one, other = (model.base_model(row[None]).last_hidden_state[0, :2] for row in ids)
    one, other = one.nan_to_num().float(), other.nan_to_num().float()
    rounding = 1e-4 if model.dtype == torch.float32 else 3e-2
    return bool(((one - other).norm(dim=-1) > rounding * one.norm(dim=-1)).any())


def reads_padding(model: PreTrainedModel, pad_id: int) -> bool:
    """Say whether masked padding after a text changes its states, as convolutions let it."""
    ids = torch.tensor([[3, 4, 3]], device=model.device)
    padded = pad(ids, (0, _PADDING), value=pad_id)
    try:
        with torch.inference_mode(), quiet():
            alone = model.base_model(ids).last_hidden_state[0].float()
            mask = pad(torch.ones_like(ids), (0, _PADDING))
            out = model.base_model(padded, attention_mask=mask).last_hidden_state[0, :3].float()
    except (IndexError, RuntimeError, TypeError, ValueError):  # of a mask that is not taken
        return False
    tolerance = 1e-3 if model.dtype == torch.float32 else 5e-2
    return bool((out - alone).norm() > tolerance * alone.norm())


def max_positions(model: PreTrainedModel) -> int:
    """Return the most positions a model takes; tables with a padding row lose those up to it."""
    config = model.config.get_text_config()
    named = [getattr(config, name, None) for name in _LIMITS]
    limits = [size for size in named if isinstance(size, int) and size > 0][:1]
    for name, table in model.named_modules():
        if name.rpartition(".")[2] in _POSITION_TABLES and isinstance(table, nn.Embedding):
            unused = 0 if table.padding_idx is None else table.padding_idx + 1
            limits.append(table.num_embeddings - max(unused, getattr(table, "offset", 0)))
    return min(limits, default=1 << 30)


def save_whole(network: Network, folder: Path) -> None:
    """Write a whole model in the dtype of the computation, as an ordinary transformers folder.

    Raises:
        OSError: The folder cannot be written.
    """
    with quiet():
        network.model.to(getattr(torch, network.dtype)).save_pretrained(folder)
    network.tokenizer.save_pretrained(folder)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers while it loads weights: what matters of it is raised as an error."""
    level = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
