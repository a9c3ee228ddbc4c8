"""The generator itself as a classifier: which of some words goes on a text and a prompt."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from adapters import _batching, _pooling
from adapters._backbone import Network
from adapters._head import head_of
from adapters._text import Framed, prompts
from bench.encoder import Item, gather
from bench.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor


def log_probabilities(
    network: Network,
    texts: Sequence[str],
    prompt: str,
    words: Sequence[str],
    *,
    limit: int,
    budget: int | None,
) -> NDArray[np.float32]:
    """Return the log-probability of each word's first token behind each text and the prompt, float32 (n, m).

    Args:
        network: A decoder with its language-model head.
        texts: Any strings; of long ones the beginning is cut away.
        prompt: What is put behind each text.
        words: With the white space before them.
        limit: Most token positions.
        budget: Token positions per batch, padding included; None for the default.

    Raises:
        UsageError: Two words begin with the same token; or the network is no decoder, or has a head that is not known here.

    Source:
        Prompt and words are the caller's; the classifier of timoschick/dino at 0e4a052 compares " good" with " bad".
    """
    import torch

    ids = [network.tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in words]
    if len(set(ids)) < len(ids):
        raise UsageError(
            f"expected words that differ in their first token, got {', '.join(map(repr, words))}"
        )
    head = head_of(network)
    chosen = torch.tensor(ids, device=network.device)

    def prepare(items: Sequence[Item]) -> list[_batching.Prompt]:
        framed = [Framed(item.text, after=prompt) for item in items]
        return prompts(network.tokenizer, framed, limit=min(limit, network.max_length), cut="left")

    def forward(ids: "Tensor", mask: "Tensor") -> "Tensor":
        last = _pooling.last(network.hidden_states(ids, mask), mask)
        return head(last).log_softmax(-1)[:, chosen]

    return gather(
        _batching.stream([Item(text) for text in texts], prepare, forward, network, budget=budget),
        len(texts),
    )
