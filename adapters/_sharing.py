"""One text, many instructions: the text's keys and values are computed once and serve every prompt that begins with it.

Prompts that begin alike go through a causal network as one sequence: what they have in common, then what each of them adds.
Positions of a prompt's own part see the common part and their own, and are numbered as if they followed it directly, so each
state is the one the prompt has alone. That is a cache of keys and values that lives for a single forward pass: nothing is
copied, nothing is padded between prompts, and every layer can be read.
"""

import inspect
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from adapters import _pooling
from adapters._backbone import Network
from adapters._batching import Join, Prepare, Prompt, Row, stream
from bench.encoder import Batch, Item

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

_COMMON = 16
"""Fewest ids that are worth sharing. It also parts prompts of one long text that were cut at different places."""

_OWN = 1024
"""Most positions of own parts in one row: they do not see each other, yet attention computes them against each other."""


def stream_last(
    items: Sequence[Item],
    prepare: Prepare,
    network: Network,
    *,
    layer: int = -1,
    budget: int | None = None,
) -> Iterator[Batch]:
    """Yield the state of the last token of each prompt; prompts of one text share what they have in common, where they can.

    Args:
        items: What to encode.
        prepare: Gives one prompt per item.
        network: Prompts are shared if it is causal and takes them so.
        layer: Hidden layer that is read.
        budget: Token positions per batch, padding included; None for the device's default.

    Raises:
        EncodingError: A single text does not fit into memory.
    """

    def alone(ids: "Tensor", mask: "Tensor") -> "Tensor":
        return _pooling.last(network.hidden_states(ids, mask, layer), mask)

    def together(ids: "Tensor", parts: "Tensor") -> "Tensor":
        return (
            last_of_parts(shared_states(network, ids, parts, layer), parts)
            if bool((parts > 1).any())
            else alone(ids, parts)
        )

    texts = Counter(item.text for item in items)
    if len(texts) == len(items) or not shareable(network):
        return stream(items, prepare, alone, network, budget=budget)
    return stream(items, prepare, together, network, budget=budget, join=joining(items))


def joining(items: Sequence[Item]) -> Join:
    """Return what puts the prompts of one text into one row, as far as they begin alike."""

    def join(positions: Sequence[int], prompts: Sequence[Prompt]) -> list[Row]:
        groups: dict[tuple[str, tuple[int, ...]], list[tuple[int, Prompt]]] = {}
        for i, prompt in zip(positions, prompts, strict=True):
            groups.setdefault((items[i].text, tuple(prompt.ids[:_COMMON])), []).append((i, prompt))
        return [row for group in groups.values() for row in _joined(*zip(*group, strict=True))]

    return join


def _joined(positions: Sequence[int], prompts: Sequence[Prompt]) -> Iterator[Row]:
    common = common_ids(prompts) if len(prompts) > 1 else 0
    return Row(positions, prompts, common).within(common + _OWN)


def common_ids(prompts: Sequence[Prompt]) -> int:
    """Return how many ids at their beginning all prompts share, leaving each at least one of its own.

    Tokens can reach across the end of the text, so this is counted in ids, never in characters.
    """
    first, last = min(prompt.ids for prompt in prompts), max(prompt.ids for prompt in prompts)
    shortest = min(len(prompt.ids) for prompt in prompts) - 1
    return next(
        (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b or i == shortest),
        shortest,
    )


def shareable(network: Network) -> bool:
    """Say whether the network gives prompts that share a row the states they have alone; asked of the network itself."""
    import torch

    if (
        not network.causal
        or "position_ids" not in inspect.signature(network.model.base_model.forward).parameters
    ):
        return False
    tolerance = 1e-3 if network.dtype == "float32" else 5e-2
    n = network.model.get_input_embeddings().num_embeddings
    ids = torch.arange(1, 25, device=network.device)[None] % n  # type: ignore[operator]
    parts = torch.tensor([[1, 2, 3]], device=network.device).repeat_interleave(8, 1)
    second = parts != 2
    try:
        with torch.inference_mode():
            together = shared_states(network, ids, parts)[second].float()
            alone = network.hidden_states(ids[second][None], torch.ones_like(ids[:, :16]))[
                0
            ].float()
        same = bool((together - alone).norm(dim=-1).max() < tolerance * alone.norm(dim=-1).mean())
    except (
        RuntimeError,
        TypeError,
        ValueError,
    ):  # what models raise on a mask or an argument they do not know
        same = False
    if not same:
        log.warning(
            "%s does not let prompts share a beginning: each is computed on its own",
            type(network.model).__name__,
        )
    return same


def shared_states(network: Network, ids: "Tensor", parts: "Tensor", layer: int = -1) -> "Tensor":
    """Return token states (b, t, dim) of rows whose prompts share their beginning.

    Args:
        network: A causal one.
        ids: Token ids, int64 (b, t), padded on the right.
        parts: Part of each position (b, t): 1 common, 2, 3, ... own parts in this order, 0 at padding.
        layer: 0 = input embeddings; -1 = last, after the final norm.
    """
    import torch

    query, key = parts[:, :, None], parts[:, None, :]
    seen = (
        (key == 1) | (key == query)
    ).tril()  # padding sees itself, as a softmax over nothing is no number
    dtype = network.model.dtype
    mask = torch.zeros(seen.shape, dtype=dtype, device=ids.device).masked_fill(
        ~seen, torch.finfo(dtype).min
    )
    return network.hidden_states(ids, mask[:, None], layer, positions=positions_of(parts))


def positions_of(parts: "Tensor") -> "Tensor":
    """Return the position (b, t) each token has in its own prompt, 0 at padding."""
    import torch

    places = torch.arange(parts.shape[1], device=parts.device).expand_as(parts)
    begins = torch.nn.functional.pad(parts[:, 1:] != parts[:, :-1], (1, 0))
    start = torch.where(begins, places, 0).cummax(1).values
    common = (parts == 1).sum(1, keepdim=True)
    return (places - start + common * (parts > 1)) * (parts > 0)


def last_of_parts(states: "Tensor", parts: "Tensor") -> "Tensor":
    """Return the last state of each prompt, float32, in the order of rows and of prompts in them.

    Args:
        states: Token states (b, t, d).
        parts: As for ``shared_states``; a row of a single prompt is all 1.
    """
    import torch

    ends = torch.nn.functional.pad(parts[:, 1:] != parts[:, :-1], (0, 1), value=True)
    owned = (parts > 1) | ((parts == 1) & (parts.amax(1, keepdim=True) == 1))
    return states[ends & owned].float()
