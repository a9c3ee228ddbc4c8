"""What encoders on a network share: where and how they compute, and vectors by streaming."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adapters._backbone import Backbone
from adapters._batching import Prepare, stream_tokens
from adapters._export import SentenceLayout, check_layout, write_folder
from adapters._network import Network
from adapters._tuning import Labelled, Marker, PairScorer, tune_classes, tune_pairs
from bench.encoder import Batch, Embeddings, Item, TokenStates, as_items, gather
from bench.errors import UsageError
from bench.spans import Marked


@dataclass(frozen=True, kw_only=True)
class NetworkEncoder(ABC):
    """An encoder that streams prompts through a network.

    A method says which network, which prompts and which states.

    Attributes:
        dtype: Of the computation: "auto", "float32", "bfloat16" or "float16".
        device: Where to compute: "auto", "cpu", "cuda", "cuda:1", "mps".
        budget: Tokens per batch, padding included; None for the device's default.
    """

    dtype: str = "auto"
    device: str = field(default="auto", compare=False)
    budget: int | None = field(default=None, compare=False)

    @abstractmethod
    def stream(self, items: Sequence[Item]) -> Iterator[Batch]:
        """Yield the vectors of items, longest first."""

    def _backbone(self) -> Backbone:
        """Return what the network is loaded from."""
        raise NotImplementedError

    def _network(self, *, weights: bool = True) -> Network:
        """Return the loaded network; see ``Backbone.load``."""
        return self._backbone().load(weights=weights)

    @abstractmethod
    def _prepare(self, network: Network, *, spans: bool = False) -> Prepare:
        """Return what makes the prompts of items, with character spans where asked for."""

    def encode(self, texts: Sequence[str], *, instruction: str = "") -> Embeddings:
        """Return float32 (n, dim), row i for text i."""
        return gather(self.stream(as_items(texts, instruction)), len(texts))

    def check_export(self) -> None:
        """Check that it can be a folder of sentence-transformers; no weights are loaded.

        Raises:
            UsageError: It cannot; the message says why.
        """
        network = self._network(weights=False)
        check_layout(network, self._sentence_layout(network))

    def export_sentence_transformers(self, folder: Path) -> None:
        """Write a folder that ``SentenceTransformer`` loads with the vectors of ``encode``.

        Raises:
            UsageError: It cannot be one, or the folder has files.
            CheckpointError: The exported model gives other vectors.
        """
        network = self._network()
        layout = self._sentence_layout(network)
        check_layout(network, layout)
        write_folder(self.encode, network, layout, folder)

    def _sentence_layout(self, network: Network) -> SentenceLayout:  # noqa: ARG002
        """Return how sentence-transformers reads a text as this method does.

        Raises:
            UsageError: It cannot.
        """
        raise UsageError(
            f"{type(self).__name__} does not say what it is in sentence-transformers: "
            "define _sentence_layout"
        )

    def count_tokens(self, items: Sequence[Item]) -> int:
        """Return how many tokens of the items go through the network; weights are not loaded."""
        if not items:
            return 0
        prompts = self._prepare(self._network(weights=False))(items)
        return sum(len(prompt.ids) for prompt in prompts)

    def encode_tokens(self, texts: Sequence[str], *, layer: int = -1) -> list[TokenStates]:
        """Return the states of each text's tokens at a layer, special ones kept; no instruction."""
        return self.encode_layers(texts, layers=(layer,))[0]

    def layer_count(self) -> int:
        """Return the number of the last layer; 0 is below the first."""
        return self._network().layers

    def encode_layers(
        self, texts: Sequence[str], *, layers: Sequence[int]
    ) -> list[list[TokenStates]]:
        """Return for each layer what ``encode_tokens`` would, from one pass."""
        network = self._network()
        dims: list[int] = []  # the last layer's may be another, as in OPT-350m

        def forward(ids: Tensor, mask: Tensor) -> Tensor:
            states = network.states_of(ids, mask, layers)
            dims[:] = [each.shape[-1] for each in states]
            return torch.cat(states, dim=-1)

        items, prepare = [Item(text) for text in texts], self._prepare(network, spans=True)
        found: list[list[TokenStates]] = [[] for _ in layers]
        for tokens in stream_tokens(items, prepare, forward, network, budget=self.budget):
            parts = np.split(tokens.states, np.cumsum(dims)[:-1], axis=1)
            for states, of_layer in zip(parts, found, strict=True):
                of_layer.append(replace(tokens, states=states))
        return found

    def tune_pairs(
        self, sets: Sequence[Labelled], *, layers: Sequence[int], epochs: int, seed: int
    ) -> PairScorer:
        """Train a copy of the network on pairs, by BERTScore F at some layers; return a scorer."""
        network = self._network()
        prepare = self._prepare(network, spans=True)
        return tune_pairs(network, prepare, sets, layers=layers, epochs=epochs, seed=seed)

    def tune_classes(
        self,
        marked: Sequence[Marked],
        *,
        classes: int,
        start: NDArray[np.float32] | None,
        epochs: int,
        seed: int,
    ) -> Marker:
        """Train a copy of the network with a linear classifier of words, and return it."""
        network = self._network()
        prepare = self._prepare(network, spans=True)
        return tune_classes(
            network, prepare, marked, classes=classes, start=start, epochs=epochs, seed=seed
        )
