"""One text, many instructions: a text's keys and values are computed once for all its prompts.

Prompts with a common prefix go through a causal network as one sequence: the prefix, then the
suffix of each. A suffix attends to the prefix and to itself, and its position ids continue the
prefix, so each state is the one that the prompt has alone. It is a cache of keys and values for a
single forward pass: nothing is copied or padded between prompts, and any layer can be read.
"""

import inspect
import logging
from collections import Counter
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from adapters import _pooling
from adapters._batching import Join, Prepare, Prompt, Row, stream
from adapters._network import Network
from bench.encoder import Batch, Item

log = logging.getLogger(__name__)

_PREFIX = 16
"""Fewest ids worth sharing; also separates prompts of a long text cut at different places."""

_SUFFIXES = 1024
"""Most tokens of suffixes in a row: attention computes them against each other, masked or not."""


def stream_last(
    items: Sequence[Item],
    prepare: Prepare,
    network: Network,
    *,
    longest: int,
    layer: int = -1,
    budget: int | None = None,
) -> Iterator[Batch]:
    """Yield the last token's state of each prompt; those of one text share a prefix if they can.

    Args:
        items: What to encode.
        prepare: Gives one prompt per item.
        network: Prompts share a prefix if it is causal and allows it.
        longest: Most tokens of a prompt.
        layer: Hidden layer that is read.
        budget: Tokens per batch, padding included; None for the device's default.

    Raises:
        EncodingError: A single text does not fit into memory.
    """

    def forward_alone(ids: Tensor, mask: Tensor) -> Tensor:
        return _pooling.last(network.hidden_states(ids, mask, layer), mask)

    def forward_joined(ids: Tensor, segments: Tensor) -> Tensor:
        if not bool((segments > 1).any()):
            return forward_alone(ids, segments)
        return last_of_segments(shared_states(network, ids, segments, layer), segments)

    texts = Counter(item.text for item in items)
    if len(texts) == len(items) or not shareable(network, longest_row(longest)):
        return stream(items, prepare, forward_alone, network, budget=budget)
    return stream(items, prepare, forward_joined, network, budget=budget, join=join_by_text(items))


def join_by_text(items: Sequence[Item]) -> Join:
    """Return what joins the prompts of one text in a row, as far as they have a prefix."""

    def join(positions: Sequence[int], prompts: Sequence[Prompt]) -> list[Row]:
        groups: dict[tuple[str, tuple[int, ...]], list[tuple[int, Prompt]]] = {}
        for i, prompt in zip(positions, prompts, strict=True):
            key = items[i].text, tuple(prompt.ids[:_PREFIX])
            groups.setdefault(key, []).append((i, prompt))
        rows: list[Row] = []
        for group in groups.values():
            numbers, several = zip(*group, strict=True)
            prefix = common_prefix([prompt.ids for prompt in several]) if len(group) > 1 else 0
            rows += Row(numbers, several, prefix).within(prefix + _SUFFIXES)
        return rows

    return join


def common_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """Return how many ids all prompts begin with, leaving each at least one of its own.

    Tokens can reach across the end of a text, so this counts ids, never characters.
    """
    first, last = min(prompts, key=list), max(prompts, key=list)
    longest = min(map(len, prompts)) - 1
    for i in range(longest):
        if first[i] != last[i]:
            return i
    return longest


def longest_row(prompt: int) -> int:
    """Return the most tokens of a row of ``join_by_text``, given those of a prompt."""
    return prompt + _SUFFIXES


def shareable(network: Network, longest: int) -> bool:
    """Say whether prompts that share a row have the states they have alone, by trying it.

    A row that is longer than the window of a layer never has: the mask of ``shared_states`` is that
    of all layers, and a suffix is further from the prefix than it would be alone.

    Args:
        network: Any.
        longest: Most tokens of a row.
    """
    accepted = inspect.signature(network.model.base_model.forward).parameters
    if not network.causal or "position_ids" not in accepted or longest > network.window:
        return False
    tolerance = 1e-3 if network.dtype == "float32" else 5e-2
    n = network.model.get_input_embeddings().num_embeddings
    ids = torch.arange(1, 25, device=network.device)[None] % n  # type: ignore[operator]
    segments = torch.tensor([[1, 2, 3]], device=network.device).repeat_interleave(8, 1)
    third = segments != 2
    same = False
    try:
        with torch.inference_mode():
            joined = shared_states(network, ids, segments)[third].float()
            mask = torch.ones_like(ids[:, :16])
            alone = network.hidden_states(ids[third][None], mask)[0].float()
        largest = (joined - alone).norm(dim=-1).max()
        same = bool(largest < tolerance * alone.norm(dim=-1).mean())
    except (RuntimeError, TypeError, ValueError):  # of a mask or an argument that is not known
        pass
    if not same:
        log.warning(
            "%s does not let prompts share a prefix: each is computed on its own",
            type(network.model).__name__,
        )
    return same


def shared_states(network: Network, ids: Tensor, segments: Tensor, layer: int = -1) -> Tensor:
    """Return token states (b, t, dim) of rows whose prompts share a prefix.

    Args:
        network: A causal one.
        ids: Token ids, int64 (b, t), padded on the right.
        segments: Segment of each token (b, t): 1 prefix, 2, 3, ... suffixes in this order, 0
            padding.
        layer: 0 = input embeddings; -1 = last, after the final norm.
    """
    query, key = segments[:, :, None], segments[:, None, :]
    # padding attends to itself, as a softmax over nothing is not a number
    seen = ((key == 1) | (key == query)).tril()
    dtype = network.model.dtype
    mask = torch.zeros(seen.shape, dtype=dtype, device=ids.device)
    mask = mask.masked_fill(~seen, torch.finfo(dtype).min)
    return network.hidden_states(ids, mask[:, None], layer, positions=position_ids(segments))


def position_ids(segments: Tensor) -> Tensor:
    """Return the position (b, t) that each token has in its own prompt, 0 at padding."""
    places = torch.arange(segments.shape[1], device=segments.device).expand_as(segments)
    begins = pad(segments[:, 1:] != segments[:, :-1], (1, 0))
    start = torch.where(begins, places, 0).cummax(1).values
    prefix = (segments == 1).sum(1, keepdim=True)
    return (places - start + prefix * (segments > 1)) * (segments > 0)


def last_of_segments(states: Tensor, segments: Tensor) -> Tensor:
    """Return the last state of each prompt, float32, in the order of rows and of their prompts.

    Args:
        states: Token states (b, t, d).
        segments: As for ``shared_states``; a row of a single prompt is all 1.
    """
    ends = pad(segments[:, 1:] != segments[:, :-1], (0, 1), value=True)
    single = segments.amax(1, keepdim=True) == 1
    is_prompt = (segments > 1) | ((segments == 1) & single)
    return states[ends & is_prompt].float()
