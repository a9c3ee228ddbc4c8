"""Keys and values of prompts that are continued; imported only where a network is, since it builds on transformers' own cache."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer

from adapters._backbone import Network
from adapters._batching import Prompt
from adapters._sharing import common_ids


class Reserved(DynamicLayer):  # type: ignore[no-untyped-call]  # of its __init_subclass__
    """A layer with room for all steps to come: a step writes its own keys and values, and copies none of the earlier ones."""

    def __init__(self, keys: Tensor, values: Tensor, steps: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lazy_initialization(keys, values)
        self._rooms, self._used = (
            [pad(part, (0, 0, 0, steps)) for part in (keys, values)],
            keys.shape[-2],
        )
        self._show()

    def update(
        self, key_states: Tensor, value_states: Tensor, *_args: object, **_more: object
    ) -> tuple[Tensor, Tensor]:
        """Add keys and values, and return those of all positions."""
        start, self._used = self._used, self._used + key_states.shape[-2]
        for room, new in zip(self._rooms, (key_states, value_states), strict=True):
            room[:, :, start : self._used] = new
        return self._show()

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows."""
        self._rooms = [room[indices] for room in self._rooms]
        self._show()

    def _show(self) -> tuple[Tensor, Tensor]:
        self.keys, self.values = (room[:, :, : self._used] for room in self._rooms)
        return self.keys, self.values


def prefilled(
    network: Network, groups: Sequence[Sequence[Sequence[int]]], rows: Tensor, steps: int
) -> tuple[Cache, Tensor, Tensor, int]:
    """Return the cache of the rows, padded on the left, with its mask (r, t), the rows' last states (r, dim), and positions it took.

    Args:
        network: A decoder.
        groups: Token ids of distinct prompts, those that begin alike together.
        rows: Number of the prompt that each row continues, counted over all groups (r,).
        steps: Positions that will be added.
    """
    blocks = [_block(network, prompts) for prompts in groups]
    width = max(mask.shape[1] for _, mask, _, _ in blocks)
    layers: list[Any] = []
    for i in range(len(blocks[0][0].layers)):
        sides = zip(*(_keys_and_values(cache, i) for cache, _, _, _ in blocks), strict=True)
        keys, values = (
            torch.cat([pad(part, (0, 0, width - part.shape[-2], 0)) for part in side])[rows]
            for side in sides
        )
        layers.append(Reserved(keys, values, steps))
    mask = torch.cat([pad(mask, (width - mask.shape[1], 0)) for _, mask, _, _ in blocks])
    last = torch.cat([last for _, _, last, _ in blocks])
    return Cache(layers=layers), mask[rows], last[rows], sum(cost for _, _, _, cost in blocks)


def _keys_and_values(cache: Any, layer: int) -> tuple[Tensor, Tensor]:  # noqa: ANN401 - its layers are of several classes
    return cache.layers[layer].keys, cache.layers[layer].values


def _block(
    network: Network, prompts: Sequence[Sequence[int]]
) -> tuple[DynamicCache, Tensor, Tensor, int]:
    """Return the same for prompts that begin alike, one row each; what they have in common is computed once."""
    cache = DynamicCache()
    common = common_ids([Prompt(list(ids)) for ids in prompts]) if len(prompts) > 1 else 0
    if common:
        network.model.base_model(
            torch.tensor([prompts[0][:common]], device=network.device),
            past_key_values=cache,
            use_cache=True,
        )
        cache.batch_repeat_interleave(len(prompts))
    width = max(map(len, prompts)) - common
    own = [[network.pad_id] * (width - len(ids) + common) + list(ids[common:]) for ids in prompts]
    real = [
        [1] * common + [0] * (width - len(ids) + common) + [1] * (len(ids) - common)
        for ids in prompts
    ]
    mask = torch.tensor(real, device=network.device)
    places = (mask.cumsum(1) - 1).clamp(min=0)[:, common:]
    ids = torch.tensor(own, device=network.device)
    out = network.model.base_model(
        ids, attention_mask=mask, position_ids=places, past_key_values=cache, use_cache=True
    )
    return cache, mask, out.last_hidden_state[:, -1], common + int(mask[:, common:].sum())
