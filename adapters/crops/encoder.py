"""Crops: the mean of the last token states, trained so that two crops of one text agree.

González-Márquez, Berens, Kobak. Cropping outperforms dropout as an augmentation strategy for
self-supervised training of text embeddings. TMLR 2026. As in the released code
(berenslab/text-embed-augm at 09ac529), a text is read whole, and special tokens are in the mean.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import normalize

from adapters import _batching, _pooling
from adapters._backbone import PACKAGED, Backbone
from adapters._checkpoint import locate, runs_of
from adapters._encoder import NetworkEncoder
from adapters._export import SentenceLayout
from adapters._network import Network
from adapters._text import prepare_bare
from bench.encoder import Batch, Card, Item, location
from bench.overlap import Ngrams


@dataclass(frozen=True)
class Crops(NetworkEncoder):
    """Crops (González-Márquez et al. 2026): mean of last-layer states, trained on pairs of crops.

    Attributes:
        checkpoint: "default" for the packaged weights, or a folder; one without the card of the
            recipe, a hub id or the packaged backbone counts as untrained.
        attention: "auto" for that of the training where the folder has a card, else "native"; or
            "bidirectional", for decoders.
        normalise: Whether vectors have length 1, as in the loss.
        max_length: Longest text in tokens, special tokens included.
    """

    checkpoint: str = location("default")
    attention: str = "auto"
    normalise: bool = True
    max_length: int = 512

    version: ClassVar[int] = 1
    follows_instructions: ClassVar[bool] = False

    def stream(self, items: Sequence[Item]) -> Iterator[Batch]:
        """Yield the vectors of items, longest first."""
        network = self._network()

        def forward(ids: Tensor, mask: Tensor) -> Tensor:
            vectors = pool(network, ids, mask)
            return normalize(vectors, dim=-1) if self.normalise else vectors

        return _batching.stream(items, self._prepare(network), forward, network, budget=self.budget)

    def card(self) -> Card:
        """Return the card of the transformer, trained where the recipe wrote it."""
        return self._backbone().card(trained=False)

    def runs(self) -> Ngrams | None:
        """Return the 8-grams of the training texts; None for weights of another origin."""
        return runs_of(self._source())

    def _source(self) -> str:
        return locate(self.checkpoint, __file__, PACKAGED)

    def _backbone(self) -> Backbone:
        return Backbone.of_checkpoint(
            self._source(), self.attention, dtype=self.dtype, device=self.device
        )

    def _sentence_layout(self, network: Network) -> SentenceLayout:
        limit = min(self.max_length, network.max_length)
        return SentenceLayout(limit, normalise=self.normalise)

    def _prepare(self, network: Network, *, spans: bool = False) -> _batching.Prepare:
        limit = min(self.max_length, network.max_length)
        return prepare_bare(network.tokenizer, limit=limit, spans=spans)


def pool(network: Network, ids: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of the last states of all real tokens, float32 (b, dim).

    Args:
        network: The network.
        ids: Token ids (b, t), padded on the right.
        mask: 1 at real positions, 0 at padding (b, t).
    """
    return _pooling.mean(network.hidden_states(ids, mask), mask)
