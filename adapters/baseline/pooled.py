"""A backbone as it is, with its token states pooled: what a method has to beat."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
from torch import Tensor

from adapters import _pooling
from adapters._backbone import PACKAGED, Backbone
from adapters._batching import Prepare, Prompt, stream
from adapters._encoder import NetworkEncoder
from adapters._export import TEXT, SentenceLayout, join_template, plain_layer, quote
from adapters._network import Network
from adapters._text import Framed, make_prompts
from bench.encoder import Batch, Card, Item, location
from bench.errors import UsageError, unknown

POOLINGS = {
    "mean": _pooling.mean,
    "weighted-mean": _pooling.weighted_mean,
    "last": _pooling.last,
    "first": _pooling.first,
}

SENTENCE_POOLINGS = {
    "mean": "mean",
    "weighted-mean": "weightedmean",
    "last": "lasttoken",
    "first": "cls",
}
"""Names that sentence-transformers has for them."""


@dataclass(frozen=True)
class Pooled(NetworkEncoder):
    """A backbone without training: its token states, pooled. Instructions are ignored.

    Attributes:
        checkpoint: The packaged backbone, a folder, or a hub id.
        pooling: "mean", "weighted-mean" (later positions weigh more), "last" or "first".
        template: What is put round a text, at ``{text}``; a text that is too long is truncated, the
            template is not.
        layer: Whose states are pooled: 0 = input embeddings, -1 = last.
        attention: "native", or "bidirectional" for decoders.
        max_length: Most tokens, template included.
        normalise: Whether vectors have unit length.
    """

    checkpoint: str = location(PACKAGED)
    pooling: str = "mean"
    template: str = "{text}"
    layer: int = -1
    attention: str = "native"
    max_length: int = 512
    normalise: bool = False

    version: ClassVar[int] = 1
    follows_instructions: ClassVar[bool] = False

    def stream(self, items: Sequence[Item]) -> Iterator[Batch]:
        """Yield the vectors of items, longest first.

        Raises:
            UsageError: No such pooling, or a template without ``{text}``.
        """
        if self.pooling not in POOLINGS:
            raise unknown("pooling", self.pooling, POOLINGS)
        pool, network = POOLINGS[self.pooling], self._network()

        def forward(ids: Tensor, mask: Tensor) -> Tensor:
            vectors = pool(network.hidden_states(ids, mask, self.layer), mask)
            return vectors / vectors.norm(dim=1, keepdim=True) if self.normalise else vectors

        return stream(items, self._prepare(network), forward, network, budget=self.budget)

    def card(self) -> Card:
        """Return the backbone's card."""
        return self._backbone().card()

    def _backbone(self) -> Backbone:
        return Backbone(
            self.checkpoint,
            attention=self.attention,
            dtype=self.dtype,
            device=self.device,
        )

    def _sentence_layout(self, network: Network) -> SentenceLayout:
        plain_layer(self.layer, network)
        if self.pooling not in POOLINGS:
            raise unknown("pooling", self.pooling, POOLINGS)
        limit = min(self.max_length, network.max_length)
        before, _, after = self.template.partition("{text}")
        template = join_template([quote(before), TEXT, quote(after)]) if after else ""
        prompt = "" if template else before
        pooling = SENTENCE_POOLINGS[self.pooling]
        return SentenceLayout(limit, pooling, self.normalise, prompt=prompt, template=template)

    def _prepare(self, network: Network, *, spans: bool = False) -> Prepare:
        return lambda items: self._prompts(items, network, spans=spans)

    def _prompts(self, items: Sequence[Item], network: Network, *, spans: bool) -> list[Prompt]:
        before, text, after = self.template.partition("{text}")
        if not text:
            raise UsageError(f"template needs {{text}} where the text goes, got {self.template!r}")
        limit = min(self.max_length, network.max_length)
        framed = [Framed(item.text, before, after) for item in items]
        # a decoder's state at the end of a template is that before the next word
        ends = not (after and self.pooling == "last" and network.decoder)
        make = partial(make_prompts, network.tokenizer, ends=ends)
        made = make(framed, limit=limit, spans=spans)
        cut = [i for i, prompt in enumerate(made) if prompt.truncated] if after else []
        whole = make([framed[i] for i in cut], limit=1 << 30, spans=True)
        for i, prompt in zip(cut, whole, strict=True):
            made[i] = _truncate(prompt, limit)
        return made


def _truncate(prompt: Prompt, limit: int) -> Prompt:
    """Return the prompt without the last tokens of its text, as many as are over the limit."""
    assert prompt.spans is not None  # noqa: S101 - asked for above
    inside = np.flatnonzero(prompt.spans[:, 1] > 0)
    stays = np.ones(len(prompt.ids), bool)
    stays[inside[max(len(inside) - (len(prompt.ids) - limit), 0) :]] = False
    return Prompt(
        [token for token, kept in zip(prompt.ids, stays, strict=True) if kept],
        truncated=True,
        spans=prompt.spans[stays],
    )


def backbone_mean() -> Pooled:
    """The mean of a backbone's last token states, nothing trained."""
    return Pooled()


def backbone_weighted_mean() -> Pooled:
    """The mean of a backbone's last token states, later ones weigh more (SGPT), nothing trained."""
    return Pooled(pooling="weighted-mean")


def backbone_last() -> Pooled:
    """The state of a backbone at the text's last token, nothing trained."""
    return Pooled(pooling="last")


def prompteol() -> Pooled:
    """The state before the text's meaning in one word (PromptEOL, Jiang 2023), nothing trained."""
    return Pooled(pooling="last", template='This sentence : "{text}" means in one word:"')
