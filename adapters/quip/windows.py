"""Passages that are longer than what is read at once: overlapping windows, and how their token states are joined."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from adapters import _batching
from adapters._backbone import Network
from adapters._batching import Prompt
from adapters._text import Framed, prompts
from bench.encoder import Item, TokenStates


class Window(NamedTuple):
    """A part of a passage.

    Attributes:
        prompt: What is read, with spans in the whole passage.
        begin: First of its positions that is kept.
        end: Position after the last that is kept.
    """

    prompt: Prompt
    begin: int
    end: int


def windows(whole: Prompt, size: int, stride: int) -> Iterator[Window]:
    """Yield slices of a passage's one encoding; every position of it is kept in exactly one.

    Special tokens stand at the passage's own ends alone, so that an inner window has none.

    Args:
        whole: The passage with spans, however long.
        size: Tokens in a window, special ones counted.
        stride: Tokens from one window's begin to the next; overlaps are parted in their middle.

    Source:
        facebookresearch/quip at 934c724.
    """
    n, kept = len(whole.ids), 0
    for start in range(0, max(n - size, 0) + stride, stride):
        end = n if start + size >= n else start + (size + stride) // 2
        spans = None if whole.spans is None else whole.spans[start : start + size]
        piece = Prompt(whole.ids[start : start + size], spans=spans)
        yield Window(piece, kept - start, end - start)
        if end == n:
            return
        kept = end


def long_states(
    network: Network, texts: Sequence[str], *, size: int, stride: int, budget: int | None = None
) -> list[TokenStates]:
    """Return the last-layer token states of texts of any length.

    Args:
        network: The encoder.
        texts: What is read.
        size: Tokens in a window, special ones counted; less where the network takes less.
        stride: As for ``windows``, made smaller with the window.
        budget: Token positions per batch, padding included; None for the device's default.
    """
    room = min(size, network.max_length)
    step = max(stride * room // size, 1)
    pieces = [
        list(windows(whole, room, step))
        for whole in prompts(
            network.tokenizer, [Framed(t) for t in texts], limit=1 << 30, spans=True
        )
    ]
    flat = [piece for some in pieces for piece in some]
    items = [
        Item("." * len(piece.prompt.ids), str(i)) for i, piece in enumerate(flat)
    ]  # as long as their tokens: batches are sorted by that

    def prepare(some: Sequence[Item]) -> list[Prompt]:
        return [flat[int(item.instruction)].prompt for item in some]

    states = iter(
        _batching.stream_tokens(items, prepare, network.hidden_states, network, budget=budget)
    )
    return [_joined([(piece, next(states)) for piece in some]) for some in pieces]


def _joined(parts: Sequence[tuple[Window, TokenStates]]) -> TokenStates:
    return TokenStates(
        np.concatenate([tokens.states[piece.begin : piece.end] for piece, tokens in parts]),
        np.concatenate([tokens.spans[piece.begin : piece.end] for piece, tokens in parts]),
    )
