"""Passages and questions as token ids, and answers as positions among a passage's tokens."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from adapters._backbone import Network
from adapters._batching import Prompt
from adapters._text import Framed, prompts
from bench.errors import EncodingError


def passage_prompts(network: Network, texts: Sequence[str], limit: int) -> list[Prompt]:
    """Return the passages as the encoder reads them, with character spans; ``limit`` does not count special tokens."""
    room = min(limit + network.tokenizer.num_special_tokens_to_add(), network.max_length)
    return prompts(network.tokenizer, [Framed(text) for text in texts], limit=room, spans=True)


def question_ids(network: Network, texts: Sequence[str], limit: int) -> list[list[int]]:
    """Return the questions as the encoder reads them; ``limit`` does not count special tokens."""
    room = min(limit + network.tokenizer.num_special_tokens_to_add(), network.max_length)
    return [
        prompt.ids
        for prompt in prompts(network.tokenizer, [Framed(text) for text in texts], limit=room)
    ]


def spans_of(prompt: Prompt) -> NDArray[np.int32]:
    """Return the characters (t, 2) of each token of a passage.

    Raises:
        EncodingError: The prompt was made without spans.
    """
    if prompt.spans is None:
        raise EncodingError(
            "expected a passage with character spans, got one without: make it with passage_prompts"
        )
    return prompt.spans


def place(spans: NDArray[np.int32], start: int, end: int) -> tuple[int, int] | None:
    """Return the first and the last token that hold some of the characters from start to end; None where not all are there.

    Args:
        spans: int32 (t, 2), the characters of each token; special tokens have none.
        start: First character.
        end: Character after the last.
    """
    inside = np.flatnonzero(
        (spans[:, 0] < end) & (spans[:, 1] > start) & (spans[:, 0] < spans[:, 1])
    )
    if start < 0 or len(inside) == 0 or spans[inside[-1], 1] < end:
        return None
    return int(inside[0]), int(inside[-1])
