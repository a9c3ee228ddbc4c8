"""LLM2Comp: a text is compressed into k memory tokens; the mean of their states is its embedding.

Zhang, Zhao, Hu, Jiao, Jiang, Miao, Nguyen. Learning to Compress: Unlocking the Potential of Large
Language Models for Text Representation. AAAI 2026. The ids of the memory tokens, truncation,
attention and pooling are those of the released code (longtaizi13579/LLM2Comp at c22f4c4).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from adapters import _batching, _checkpoint, _lora, _pooling
from adapters._backbone import ATTENTIONS, PACKAGED, Backbone
from adapters._encoder import NetworkEncoder
from adapters._export import TEXT, SentenceLayout
from adapters._files import files_digest, read_json, tensors
from adapters._network import Network, added_ids, embedding_table
from adapters._source import folder_of
from adapters._text import Framed, make_prompts
from adapters._trainable import replace_table
from bench.encoder import Batch, Card, Embeddings, Item, Side, digest, gather, location
from bench.errors import CheckpointError, UsageError, unknown
from bench.files import stamp
from bench.overlap import Ngrams

CONFIG = "llm2comp.json"
"""File that makes a folder a checkpoint: the fields of ``Checkpoint``, as JSON."""

MEMORY = "memory.safetensors"
"""File with one tensor, ``memory`` (k, dim): the input embeddings of the memory tokens."""

MEMORY_SEED = 0
"""Seed of the random memory embeddings of an untrained backbone."""


@dataclass(frozen=True)
class Checkpoint:
    """A folder that the recipe wrote, or a backbone with the paper's settings.

    Attributes:
        base: The backbone: the packaged one, a hub id or a folder.
        k: Number of memory tokens; 0 where the embedding is the mean of the token states.
        attention: "bidirectional" or "native".
        stages: Folders of LoRA weights in peft's layout, in the order in which they are merged.
        memory_ids: Ids of the memory tokens: the k numbers after the vocabulary of the base.
        folder: Where it is; None for an untrained backbone.
    """

    base: str
    k: int = 8
    attention: str = "bidirectional"
    stages: tuple[str, ...] = ()
    memory_ids: tuple[int, ...] = ()
    folder: Path | None = None

    def files(self) -> list[Path]:
        """Return the files that determine vectors: memory, then the LoRA weights of each stage.

        Raises:
            CheckpointError: One is missing.
        """
        if self.folder is None:
            return []
        files = [self.folder / MEMORY]
        for stage in self.stages:
            adapter = self.folder / stage
            files += [adapter / _checkpoint.CONFIG, adapter / _checkpoint.WEIGHTS]
        _checkpoint.check_present(files)
        return files


@dataclass(frozen=True)
class LLM2Comp(NetworkEncoder):
    """LLM2Comp (Zhang et al. 2026): the mean state of k memory tokens after the text.

    Attributes:
        checkpoint: "default" for the weights that come with this package; a folder that the recipe
            wrote; or a backbone, which is then untrained and has random memory embeddings.
        k: Number of memory tokens; None for the checkpoint's, or the paper's 8. 0 pools the mean of
            all token states except a beginning-of-text token, as LLM2Vec does. Tokens of an
            instruction are included, as in training; LLM2Vec excludes them.
        attention: "bidirectional", "native", or "auto" for the checkpoint's, or the paper's, which
            is bidirectional.
        normalise: Whether vectors have length 1, as in the loss of the contrastive stages; False is
            the plain mean of the released code.
        max_length: Longest text in tokens, memory included. The end of the text is truncated; the
            memory tokens stay last.
    """

    checkpoint: str = location("default")
    k: int | None = None
    attention: str = "auto"
    normalise: bool = True
    max_length: int = 512

    version: ClassVar[int] = 2
    follows_instructions: ClassVar[bool] = True
    instructed_sides: ClassVar[tuple[Side, ...]] = ("query",)

    def stream(self, items: Sequence[Item]) -> Iterator[Batch]:
        """Yield the vectors of items, longest first.

        Raises:
            CheckpointError: The checkpoint is incomplete or damaged, has other settings, or belongs
                to another backbone.
            UsageError: The attention is unknown, k is negative, or ``max_length`` leaves no room
                for text.
        """
        network, k = self._network(), self._checkpoint().k
        bos = network.tokenizer.bos_token_id

        def forward(ids: Tensor, mask: Tensor) -> Tensor:
            states = network.hidden_states(ids, mask)
            vectors = pool_states(states, ids, mask, k, bos)
            return normalize(vectors, dim=-1) if self.normalise else vectors

        return _batching.stream(items, self._prepare(network), forward, network, budget=self.budget)

    def encode_memory(self, texts: Sequence[str], *, instruction: str = "") -> Embeddings:
        """Return the memory states, whose mean is the embedding before normalisation.

        Returns:
            float32 (n, k, dim).

        Raises:
            BenchError: As for ``stream``.
        """
        network, k = self._network(), self._checkpoint().k
        if not k:
            return np.empty((len(texts), 0, network.dim), np.float32)

        def forward(ids: Tensor, mask: Tensor) -> Tensor:
            return memory_states(network.hidden_states(ids, mask), mask, k).flatten(1)

        items = [Item(text, instruction) for text in texts]
        prepare = self._prepare(network)
        batches = _batching.stream(items, prepare, forward, network, budget=self.budget)
        return gather(batches, len(items)).reshape(len(items), k, network.dim)

    def card(self) -> Card:
        """Return the backbone's card with the digest of the checkpoint's files mixed in."""
        made = self._checkpoint()
        card = self._base(made).card(trained=made.folder is not None)
        if made.folder is None:
            return card
        training = _checkpoint.read_card(made.folder)
        files = [made.folder / CONFIG, *made.files()]
        return replace(
            card,
            weights=digest([card.weights, files_digest(files)]),
            training=training,
            training_tokens=training.get("trained_tokens"),
        )

    def runs(self) -> Ngrams | None:
        """Return the 8-grams of the training texts; None for an untrained backbone."""
        folder = self._checkpoint().folder
        return _checkpoint.runs_of(folder) if folder else None

    def _checkpoint(self) -> Checkpoint:
        """Return the checkpoint, or for an untrained backbone the settings in use."""
        if self.attention not in {"auto", *ATTENTIONS}:
            raise unknown("attention", self.attention, ("auto", *ATTENTIONS))
        if self.k is not None and self.k < 0:
            raise UsageError(f"k, the number of memory tokens, must be at least 0, got {self.k}")
        made = load_checkpoint(_checkpoint.locate(self.checkpoint, __file__, PACKAGED))
        k = made.k if self.k is None else self.k
        attention = made.attention if self.attention == "auto" else self.attention
        wanted = replace(made, k=k, attention=attention)
        if made.folder and wanted != made:
            raise CheckpointError(
                f"expected a checkpoint with k={k} and attention={attention}, {made.folder} "
                f"has k={made.k} and attention={made.attention}: leave these settings out"
            )
        return wanted

    def _base(self, made: Checkpoint) -> Backbone:
        return Backbone(made.base, attention=made.attention, dtype=self.dtype, device=self.device)

    def _network(self, *, weights: bool = True) -> Network:
        made = self._checkpoint()
        if not weights:
            return self._base(made).load(weights=False)
        return _load_network(self._base(made).load(), made, stamp(made.files()))

    def _sentence_layout(self, network: Network) -> SentenceLayout:
        k = self._checkpoint().k
        if not k:
            raise UsageError(
                "sentence-transformers cannot leave one token out of a mean, as k=0 does"
            )
        limit = min(self.max_length, network.max_length)
        return SentenceLayout(
            limit,
            normalise=self.normalise,
            template=CHAT_TEMPLATE,
            memory=added_ids(network, k),
        )

    def _prepare(self, network: Network, *, spans: bool = False) -> _batching.Prepare:
        k = self._checkpoint().k
        limit = min(self.max_length, network.max_length)
        if limit <= k:
            raise UsageError(
                f"expected room for text beside k={k} memory tokens, got max_length={limit}: "
                "raise it, or lower k"
            )

        def prepare(items: Sequence[Item]) -> list[_batching.Prompt]:
            framed = [frame_query(item.text, item.instruction) for item in items]
            tail = added_ids(network, k)
            return make_prompts(network.tokenizer, framed, limit=limit, tail=tail, spans=spans)

        return prepare


CHAT_TEMPLATE = (
    "{%- if messages[0]['role'] == 'system' -%}"
    f"{{{{ messages[0]['content'].removesuffix(':') + ':' + {TEXT} + '\\n' }}}}"
    f"{{%- else -%}}{{{{ {TEXT} }}}}{{%- endif -%}}"
)
"""What ``frame_query`` does, for sentence-transformers; the system message is the instruction."""


def frame_query(text: str, instruction: str) -> Framed:
    """Return ``{instruction}:{text}`` and a newline, or the bare text without an instruction.

    An instruction that ends in a colon, as those of the evaluation do, gets no second one.
    """
    if not instruction:
        return Framed(text)
    return Framed(text, f"{instruction.removesuffix(':')}:", "\n")


def pool_states(states: Tensor, ids: Tensor, mask: Tensor, k: int, bos: int | None) -> Tensor:
    """Return the mean of the memory states, or with k = 0 that of the text's own tokens.

    Args:
        states: Token states (b, t, dim), padded on the right.
        ids: Token ids (b, t).
        mask: 1 at real positions, 0 at padding (b, t).
        k: Number of memory tokens.
        bos: Id of the beginning-of-text token, excluded from the mean of k = 0; None without one.

    Returns:
        float32 (b, dim).
    """
    if k:
        return memory_states(states, mask, k).float().mean(1)
    return _pooling.mean(states, _pooling.without_first(ids, mask, bos))


def memory_states(states: Tensor, mask: Tensor, k: int) -> Tensor:
    """Return the states (b, k, dim) at the last k real positions; arguments as ``pool_states``."""
    places = mask.sum(1, keepdim=True) + torch.arange(-k, 0, device=mask.device)
    return states[torch.arange(len(states), device=mask.device)[:, None], places]


def random_memory(table: Tensor, k: int) -> Tensor:
    """Return k random rows with the standard deviation of an embedding table, float32 (k, dim)."""
    generator = torch.Generator().manual_seed(MEMORY_SEED)
    return torch.randn(k, table.shape[1], generator=generator) * table.float().std().cpu()


def load_checkpoint(source: str) -> Checkpoint:
    """Return the checkpoint in a folder, or the settings of an untrained backbone.

    Args:
        source: A folder, a hub id or the packaged backbone.

    Raises:
        Unavailable: The hub does not have it.
        CheckpointError: A field of ``llm2comp.json`` is missing, of another type or unknown.
    """
    if source == PACKAGED:
        return Checkpoint(source)
    path = folder_of(source) / CONFIG
    if not path.is_file():
        return Checkpoint(source)
    found = read_json(path)
    types = {"base": str, "k": int, "attention": str, "stages": list, "memory_ids": list}
    valid = isinstance(found, dict) and all(
        isinstance(found.get(name), kind) for name, kind in types.items()
    )
    if not valid or found["attention"] not in ATTENTIONS:
        wanted = ", ".join(f"{name}: {kind.__name__}" for name, kind in types.items())
        raise CheckpointError(
            f"expected {wanted} in {path}, attention {' or '.join(ATTENTIONS)}, got {found!r}: "
            "write the checkpoint again"
        )
    return Checkpoint(
        found["base"],
        found["k"],
        found["attention"],
        tuple(found["stages"]),
        tuple(found["memory_ids"]),
        path.parent,
    )


@lru_cache(maxsize=1)
def _load_network(network: Network, made: Checkpoint, _stamp: object) -> Network:
    """Return the network of a checkpoint with memory embeddings after its vocabulary.

    All other weights are shared with the given network. ``_stamp`` changes with the files.
    """
    table = embedding_table(network)
    if made.folder is None:
        merged, memory = network, random_memory(table, made.k)
    else:
        merged, memory = merge_checkpoint(network, made)
    return replace_table(merged, torch.cat([table, memory.to(table)]))


def merge_checkpoint(network: Network, made: Checkpoint) -> tuple[Network, Tensor]:
    """Return a backbone with the LoRA weights of a checkpoint merged, and the memory (k, dim).

    Raises:
        CheckpointError: A file is missing or damaged, or the checkpoint has another backbone.
    """
    if made.folder is None:
        raise CheckpointError(
            f"expected a folder with {CONFIG}, got {made.base}: name a checkpoint"
        )
    table, state = embedding_table(network), tensors(made.folder / MEMORY)
    wanted = {"memory": (made.k, table.shape[1])}
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if shapes != wanted:
        raise CheckpointError(
            f"expected {wanted} in {made.folder / MEMORY}, got {shapes}: "
            "it belongs to another backbone or k"
        )
    if made.memory_ids != tuple(range(len(table), len(table) + made.k)):
        raise CheckpointError(
            f"expected memory ids that follow the vocabulary of {len(table)}, "
            f"got {made.memory_ids} in {made.folder / CONFIG}"
        )
    folders = [made.folder / stage for stage in made.stages]
    return _lora.merge_lora(network, folders), state["memory"]
