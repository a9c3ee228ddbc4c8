"""LLM2Comp: a text is compressed into k memory tokens; their mean is its embedding.

Zhang, Zhao, Hu, Jiao, Jiang, Miao, Nguyen. Learning to Compress: Unlocking the Potential of Large Language Models for Text
Representation. AAAI 2026.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from adapters import _batching, _checkpoint, _lora, _pooling
from adapters._backbone import ATTENTIONS, PACKAGED, Backbone, Network
from adapters._encoder import NetworkEncoder
from adapters._files import files_digest, read_json, stamp, tensors
from adapters._text import Framed, prompts
from bench.encoder import Batch, Card, Embeddings, Item, Side, digest, gather, location
from bench.errors import CheckpointError, UsageError, unknown
from bench.overlap import Ngrams

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = "llm2comp.json"
"""File that makes a folder a checkpoint: what ``Checkpoint`` holds, as JSON."""

MEMORY = "memory.safetensors"
"""File with the one tensor ``memory`` (k, dim): input embeddings of the memory tokens."""

K, ATTENTION = 8, "bidirectional"
"""The paper's number of memory tokens and attention, for a backbone that was never trained."""

MEMORY_SEED = 0
"""Seed of the random memory rows of a backbone that was never trained."""


@dataclass(frozen=True)
class Checkpoint:
    """What ``llm2comp.json`` says.

    Attributes:
        base: The backbone: the packaged one, a hub id or a folder.
        k: Number of memory tokens; 0 where the embedding is the mean of the token states, as after masked prediction.
        attention: The attention of training, "bidirectional" or "native".
        stages: Folders of low-rank weights in peft's layout, in the order in which they are merged.
        memory_ids: Ids of the memory tokens: the k numbers that follow the base vocabulary.
    """

    base: str
    k: int
    attention: str
    stages: tuple[str, ...]
    memory_ids: tuple[int, ...]


@dataclass(frozen=True)
class LLM2Comp(NetworkEncoder):
    """LLM2Comp (Zhang et al. 2026): mean state of k memory tokens after the text, which they were trained to compress.

    Attributes:
        checkpoint: "default" for the weights that come with this package; a folder that the recipe wrote (see ``Checkpoint``); or a
            backbone: then the memory rows are random numbers of the embedding table's size, and the encoder is untrained.
        k: Number of memory tokens; None for the checkpoint's, or the paper's 8; 0 reads the mean of all token states but that of
            a beginning-of-text token, as LLM2Vec does, and those of an instruction, which LLM2Vec leaves out, as in training.
        attention: "bidirectional", "native", or "auto" for the checkpoint's, or the paper's, which is bidirectional.
        normalise: Whether vectors get length one, as in the loss of the contrastive stages; off is the released code's bare mean.
        max_length: Longest text in tokens, memory included, so more than k; the text is cut at its end, the memory stays last.

    Source:
        Ids, cut, attention and read-out as in the released code.
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
            CheckpointError: The checkpoint is incomplete, or belongs to other settings or another backbone.
            UsageError: There is no such attention, k is negative, or ``max_length`` leaves no text beside the memory.
        """
        from torch.nn.functional import normalize

        network, k = self._network(), self._form()[0]
        bos = network.tokenizer.bos_token_id

        def forward(ids: "Tensor", mask: "Tensor") -> "Tensor":
            states = network.hidden_states(ids, mask)
            vectors = (
                _pooling.slots(states, mask, k)
                if k
                else _pooling.mean(states, _pooling.without_first(ids, mask, bos))
            )
            return normalize(vectors, dim=-1) if self.normalise else vectors

        return _batching.stream(items, self._prepare(network), forward, network, budget=self.budget)

    def encode_memory(self, texts: Sequence[str], *, instruction: str = "") -> Embeddings:
        """Return the single memory states, whose mean is the embedding: float32 (n, k, dim), of any length; errors as for ``stream``."""
        network, k = self._network(), self._form()[0]
        shape = len(texts), k, network.dim
        if not k:
            return np.empty(shape, np.float32)

        def forward(ids: "Tensor", mask: "Tensor") -> "Tensor":
            return memory_states(network.hidden_states(ids, mask), mask, k).flatten(1)

        items = [Item(text, instruction) for text in texts]
        return gather(
            _batching.stream(items, self._prepare(network), forward, network, budget=self.budget),
            len(items),
        ).reshape(shape)

    def card(self) -> Card:
        """Return the backbone's card with the checkpoint's digest mixed in; trained where there is a checkpoint."""
        made = self._checkpoint()
        card = self._backbone(made).card(trained=made is not None)
        if made is None:
            return card
        training = _checkpoint.card_of(self._folder)
        files = (self._folder / CONFIG, *checkpoint_files(self._folder, made))
        return replace(
            card,
            weights=digest([card.weights, files_digest(files)]),
            training=training,
            training_tokens=training.get("trained_tokens"),
        )

    def runs(self) -> Ngrams | None:
        """Return the runs of words that default weights, or those of a recipe's folder, were trained on; None for others."""
        return _checkpoint.runs_of(self._folder) if self._checkpoint() else None

    @property
    def _folder(self) -> Path:
        return Path(_checkpoint.located(self.checkpoint, __file__, PACKAGED))

    def _checkpoint(self) -> Checkpoint | None:
        if self.attention not in {"auto", *ATTENTIONS}:
            raise unknown("attention", self.attention, ("auto", *ATTENTIONS))
        if not (self._folder / CONFIG).is_file():
            return None
        made = read_checkpoint(self._folder)
        for name, ours, auto, theirs in (
            ("k", self.k, None, made.k),
            ("attention", self.attention, "auto", made.attention),
        ):
            if ours not in {auto, theirs}:
                raise CheckpointError(
                    f"expected a checkpoint with {name}={ours}, {self._folder} was trained with {theirs}: use --set {name}={theirs}"
                )
        return made

    def _form(self) -> tuple[int, str]:
        """Return the number of memory tokens and the attention."""
        made = self._checkpoint()
        k, attention = (made.k, made.attention) if made else (K, ATTENTION)
        return (
            k if self.k is None else self.k,
            attention if self.attention == "auto" else self.attention,
        )

    def _backbone(self, made: Checkpoint | None) -> Backbone:
        source = (
            made.base if made else PACKAGED if self.checkpoint == "default" else self.checkpoint
        )
        return Backbone(source, attention=self._form()[1], dtype=self.dtype, device=self.device)  # type: ignore[arg-type]

    def _network(self) -> Network:
        made, (k, _) = self._checkpoint(), self._form()
        if k < 0:
            raise UsageError(f"llm2comp takes a number of memory tokens, got k={k}")
        files = checkpoint_files(self._folder, made) if made else ()
        return _prepared(
            self._backbone(made).load(), k, str(self._folder) if made else "", stamp(files)
        )

    def _prepare(self, network: Network, *, spans: bool = False) -> _batching.Prepare:
        limit, ids = min(self.max_length, network.max_length), memory_ids(network, self._form()[0])
        if limit <= len(ids):
            raise UsageError(
                f"expected room for text beside k={len(ids)} memory tokens, got max_length={limit}: raise it, or lower k"
            )
        return lambda items: prompts(
            network.tokenizer,
            [framed(item.text, item.instruction) for item in items],
            limit=limit,
            tail=ids,
            spans=spans,
        )


def framed(text: str, instruction: str) -> Framed:
    """Return ``{instruction}:{text}`` and a newline, or the bare text without an instruction.

    An instruction that ends in a colon, as those of the evaluation do, gets no second one.
    """
    return Framed(text, f"{instruction.removesuffix(':')}:", "\n") if instruction else Framed(text)


def memory_states(states: "Tensor", mask: "Tensor", k: int) -> "Tensor":
    """Return the states at the last k real positions (b, k, dim), those of the memory.

    Args:
        states: Token states (b, t, dim), padded on the right.
        mask: 1 at real positions, 0 at padding (b, t).
        k: Number of memory tokens.
    """
    import torch

    places = mask.sum(1, keepdim=True) + torch.arange(-k, 0, device=mask.device)
    return states[torch.arange(len(states), device=mask.device)[:, None], places]


def memory_ids(network: Network, k: int) -> range:
    """Return the ids of the last k rows of the input embeddings, which are the memory's."""
    rows = len(embedding_table(network))
    return range(rows - k, rows)


def embedding_table(network: Network) -> "Tensor":
    """Return the input embeddings (rows, dim)."""
    return network.model.get_input_embeddings().get_parameter("weight").detach()


def random_memory(table: "Tensor", k: int) -> "Tensor":
    """Return k rows of random numbers with the spread of an embedding table: float32 (k, dim), the same on every machine."""
    import torch

    rows = torch.randn(k, table.shape[1], generator=torch.Generator().manual_seed(MEMORY_SEED))
    return rows * table.float().std().cpu()


def with_memory(network: Network, rows: "Tensor") -> Network:
    """Return the network with memory rows (k, dim) after its vocabulary; all other weights are shared with the given one."""
    import torch

    out, table = _lora.sharing(network), embedding_table(network)
    grown = torch.cat([table, rows.to(table)])
    out.model.set_input_embeddings(
        torch.nn.Embedding(grown.shape[0], grown.shape[1], _weight=grown, _freeze=True)
    )
    return out


def read_checkpoint(folder: Path) -> Checkpoint:
    """Return what a checkpoint folder's ``llm2comp.json`` says.

    Raises:
        CheckpointError: A field is missing or of another kind, or there is no such attention.
    """
    found = read_json(folder / CONFIG)
    kinds = {"base": str, "k": int, "attention": str, "stages": list, "memory_ids": list}
    if not isinstance(found, dict) or not all(
        isinstance(found.get(name), kind) for name, kind in kinds.items()
    ):
        wanted = ", ".join(f"{name}: {kind.__name__}" for name, kind in kinds.items())
        raise CheckpointError(
            f"expected {wanted} in {folder / CONFIG}, got {found!r}: write the checkpoint again"
        )
    if found["attention"] not in ATTENTIONS:
        raise CheckpointError(
            f"expected attention {' or '.join(ATTENTIONS)} in {folder / CONFIG}, got {found['attention']!r}: correct it"
        )
    return Checkpoint(
        found["base"],
        found["k"],
        found["attention"],
        tuple(found["stages"]),
        tuple(found["memory_ids"]),
    )


def checkpoint_files(folder: Path, made: Checkpoint) -> tuple[Path, ...]:
    """Return the files that shape vectors: memory rows, then the low-rank weights of each stage.

    Raises:
        CheckpointError: One is missing.
    """
    files = (
        folder / MEMORY,
        *(
            folder / stage / name
            for stage in made.stages
            for name in (_checkpoint.CONFIG, _checkpoint.WEIGHTS)
        ),
    )
    for path in files:
        if not path.is_file():
            raise CheckpointError(
                f"expected {path}, it is missing: the checkpoint is incomplete, write or copy it again"
            )
    return files


@lru_cache(maxsize=1)
def _prepared(network: Network, k: int, checkpoint: str, _stamp: object) -> Network:
    """Return the network with memory rows, and with low-rank weights merged where there is a checkpoint."""
    if not checkpoint:
        return with_memory(network, random_memory(embedding_table(network), k))
    folder = Path(checkpoint)
    trained, rows = restored(network, folder, read_checkpoint(folder))
    return with_memory(trained, rows)


def restored(network: Network, folder: Path, made: Checkpoint) -> "tuple[Network, Tensor]":
    """Return a backbone with the low-rank weights of a checkpoint merged, and the memory rows (k, dim).

    Raises:
        CheckpointError: A file is missing or broken, or the checkpoint belongs to another backbone.
    """
    table, rows = embedding_table(network), tensors(folder / MEMORY)
    wanted = (made.k, table.shape[1])
    if rows.keys() != {"memory"} or tuple(rows["memory"].shape) != wanted:
        got = {name: tuple(tensor.shape) for name, tensor in rows.items()}
        raise CheckpointError(
            f"expected the tensor memory {wanted} in {folder / MEMORY}, got {got}: it belongs to another backbone or k"
        )
    if made.memory_ids != tuple(range(len(table), len(table) + made.k)):
        raise CheckpointError(
            f"expected memory ids that follow the vocabulary of {len(table)}, got {made.memory_ids} in {folder / CONFIG}"
        )
    return _lora.merged(network, [folder / stage for stage in made.stages]), rows["memory"]
