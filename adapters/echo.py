"""Echo embeddings: a text twice in one prompt, so that its second copy attends to all of the first.

Springer, Kotha, Fried, Neubig, Raghunathan: Repetition Improves Language Model Embeddings (2024).
This file is also the example of a whole adapter: a template, what is pooled, and a pooling.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from adapters import _pooling
from adapters._backbone import PACKAGED, Backbone
from adapters._batching import Prepare, Prompt, stream
from adapters._encoder import NetworkEncoder
from adapters._export import SentenceLayout
from adapters._network import Network
from adapters._text import Framed, make_prompts
from bench.encoder import Batch, Card, Item, location
from bench.errors import UsageError


@dataclass(frozen=True)
class Echo(NetworkEncoder):
    """The mean state of the second copy of a text, nothing trained. Instructions are ignored.

    Attributes:
        checkpoint: The packaged backbone, a folder, or a hub id.
        layer: Hidden layer that is read: 0 = input embeddings, -1 = last.
        max_length: Most tokens of a prompt; of a longer one both copies are truncated alike.

    Source:
        Section 3: the zero-shot prompt, and mean pooling over the second occurrence.
    """

    checkpoint: str = location(PACKAGED)
    layer: int = -1
    max_length: int = 512

    version: ClassVar[int] = 1
    follows_instructions: ClassVar[bool] = False

    def stream(self, items: Sequence[Item]) -> Iterator[Batch]:
        """Yield the vectors of items, longest first."""
        network = self._network()
        return stream(
            items,
            self._prepare(network),
            lambda ids, mask: network.hidden_states(ids, mask, self.layer),
            network,
            budget=self.budget,
            pool=_pooling.mean,
        )

    def card(self) -> Card:
        """Return the backbone's card."""
        return self._backbone().card()

    def _backbone(self) -> Backbone:
        return Backbone(self.checkpoint, dtype=self.dtype, device=self.device)

    def _sentence_layout(self, network: Network) -> SentenceLayout:  # noqa: ARG002
        raise UsageError("sentence-transformers cannot pool the second copy of a text alone")

    def _prepare(self, network: Network, *, spans: bool = True) -> Prepare:  # noqa: ARG002 - always
        limit = min(self.max_length, network.max_length)
        return lambda items: [_make_prompt(item.text, network, limit) for item in items]


def _make_prompt(text: str, network: Network, limit: int) -> Prompt:
    """Return the prompt of a text, truncated until both copies fit into ``limit`` tokens."""
    framed = Framed(text, f"Rewrite the sentence: {text}, rewritten sentence: ")
    (prompt,) = make_prompts(network.tokenizer, [framed], limit=1 << 30, spans=True)
    assert prompt.spans is not None  # noqa: S101 - asked for above
    second_copy = prompt.spans[:, 1] > 0
    ends = prompt.spans[second_copy, 1]
    excess = len(prompt.ids) - limit
    if excess <= 0 or not text:
        return replace(prompt, pooled=second_copy if len(ends) else None)
    kept = len(ends) - (excess + 1) // 2
    shorter = min(int(ends[kept - 1]), len(text) - 1) if kept > 0 else 0
    return replace(_make_prompt(text[:shorter], network, limit), truncated=True)
