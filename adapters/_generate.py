"""Decoding: prompts are continued token by token, in batches, with a cache of keys and values.

``prefill`` or ``prefill_shared`` computes the prompts, ``decode`` continues them, and a ``Choose``
picks each token: ``choose_likeliest``, ``sampler``, or a method's own.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer

from adapters._head import head_of
from adapters._network import Network
from adapters._sharing import common_prefix

Choose = Callable[[Tensor, Tensor, int], Tensor]
"""From logits, float32 (n, v), the numbers of their rows (n,) and the step, to one token each (n,).

Rows that have ended may still be among them; what is chosen for those is ignored.
"""

_LIKELIEST = 256
"""Tokens that are sorted first; all are where these do not reach ``top_p``."""

_FULL = 7 / 8
"""Ended rows leave the batch once fewer than this share goes on: that copies the cache."""


class Prefix(NamedTuple):
    """The rows that ``decode`` continues.

    Attributes:
        cache: Keys and values, with room for the tokens to come.
        mask: 1 at real positions, 0 at padding, int64 (r, t).
        last: Last token state of each row (r, dim).
        computed: Tokens that went through the network, without padding.
        states: States of the prompts (b, t, dim), if a layer was asked for.
    """

    cache: Cache
    mask: Tensor
    last: Tensor
    computed: int
    states: Tensor | None = None


class Decoded(NamedTuple):
    """The continuation of each row.

    Attributes:
        tokens: int64 (r, n), with the token that ends a row and -1 after it.
        computed: Tokens that went through the network, prompts included, without padding.
        states: States of all tokens but the last (r, n - 1, dim), if a layer was asked for.
    """

    tokens: Tensor
    computed: int
    states: Tensor | None = None


@torch.inference_mode()
def prefill(
    network: Network,
    ids: Tensor,
    mask: Tensor,
    steps: int,
    *,
    samples: int = 1,
    layer: int | None = None,
) -> Prefix:
    """Compute prompts, each once for all of its samples.

    Args:
        network: A decoder.
        ids: Token ids, int64 (b, t), padded on the right; or input embeddings (b, t, dim).
        mask: 1 at real positions, 0 at padding (b, t).
        steps: Most tokens that will be added.
        samples: Rows for each prompt; those of one prompt are neighbours.
        layer: Hidden layer whose states of the prompts are returned; None for none.

    Raises:
        UsageError: The network is no decoder, or has a head or a cache that is not supported.
    """
    head_of(network)
    every = torch.arange(len(ids), device=ids.device)
    more: dict[str, Tensor] = {}
    left = mask.shape[1] + steps > network.window and not bool(mask.all())
    if left:  # padding between a prompt and what is added would take up room in the window
        places = _places_from_the_right(mask)
        ids, mask = ids[every[:, None], places], mask.flip(1)
        more["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    inputs = {"inputs_embeds": ids} if ids.is_floating_point() else {"input_ids": ids}
    out = network.model.base_model(
        **inputs,
        **more,
        attention_mask=mask,
        past_key_values=DynamicCache(),
        use_cache=True,
        output_hidden_states=_needs_layers(layer),
    )
    last = out.last_hidden_state[every, -1 if left else mask.sum(1) - 1]
    rows = every.repeat_interleave(samples)
    layers: list[Any] = [
        _Reserved(each.keys[rows], each.values[rows], steps) for each in out.past_key_values.layers
    ]
    states = None if layer is None else _read(out, layer)
    if states is not None and left:
        states = torch.zeros_like(states).index_put_((every[:, None], places), states)
    return Prefix(Cache(layers=layers), mask[rows], last[rows], int(mask.sum()), states)


@torch.inference_mode()
def prefill_shared(
    network: Network, groups: Sequence[Sequence[Sequence[int]]], rows: Tensor, steps: int
) -> Prefix:
    """Compute prompts in groups that begin alike; each common beginning is computed once.

    Args:
        network: A decoder.
        groups: Token ids of distinct prompts, by group.
        rows: Number of the prompt that each row continues, counted over all groups, int64 (r,).
        steps: Most tokens that will be added.

    Raises:
        UsageError: The network is no decoder, or has a head or a cache that is not supported.
    """
    head_of(network)
    blocks = [_prefill_group(network, prompts, steps) for prompts in groups]
    width = max(block.mask.shape[1] for block in blocks)
    layers: list[Any] = []
    for number in range(len(blocks[0].cache.layers)):
        parts: list[Any] = [block.cache.layers[number] for block in blocks]
        keys = torch.cat([_pad_left(part.keys, width) for part in parts])
        values = torch.cat([_pad_left(part.values, width) for part in parts])
        layers.append(_Reserved(keys[rows], values[rows], steps))
    mask = torch.cat([pad(block.mask, (width - block.mask.shape[1], 0)) for block in blocks])
    last = torch.cat([block.last for block in blocks])
    computed = sum(block.computed for block in blocks)
    return Prefix(Cache(layers=layers), mask[rows], last[rows], computed)


@torch.inference_mode()
def decode(
    network: Network,
    prefix: Prefix,
    choose: Choose,
    steps: int,
    *,
    ends: Tensor,
    layer: int | None = None,
) -> Decoded:
    """Continue rows until each has ended, at most by ``steps`` tokens.

    Args:
        network: A decoder with its language-model head.
        prefix: The rows, from ``prefill`` or ``prefill_shared`` with as many steps.
        choose: Picks the tokens.
        steps: Most tokens of a row, at least 1.
        ends: Ids of the tokens that end a row (e,).
        layer: Hidden layer whose states of the new tokens are returned; None for none. With one, a
            row's first token gets a state even where it ends the row.

    Raises:
        UsageError: As ``prefill``.
    """
    head = head_of(network)
    cache, mask, last, computed, _ = prefix
    rows = torch.arange(len(last), device=last.device)
    alive = torch.ones_like(rows, dtype=torch.bool)
    tokens = torch.full((len(rows), steps), -1, device=last.device)
    states: list[Tensor] = []
    for step in range(steps):
        token = choose(head(last), rows, step)
        tokens[rows[alive], step] = token[alive]
        alive = alive & ~torch.isin(token, ends)
        going = int(alive.sum())
        first_state = layer is not None and step == 0
        if step == steps - 1 or not (going or first_state):
            break
        computed += going
        if layer is None and going <= _FULL * len(rows):
            kept = alive.nonzero()[:, 0]
            cache.batch_select_indices(kept)
            rows, token, mask, alive = rows[kept], token[kept], mask[kept], alive[kept]
        mask = pad(mask, (0, 1), value=1)
        out = network.model.base_model(
            token[:, None],
            attention_mask=mask,
            position_ids=mask.sum(1, keepdim=True) - 1,
            past_key_values=cache,
            use_cache=True,
            output_hidden_states=_needs_layers(layer),
        )
        last = out.last_hidden_state[:, -1]
        states.append(_read(out, layer))
    made = tokens[:, : step + 1]
    if layer is None:
        return Decoded(made, computed)
    none = prefix.last.new_empty(len(made), 0, prefix.last.shape[-1])
    return Decoded(made, computed, torch.cat(states, dim=1) if states else none)


def choose_likeliest(logits: Tensor, _rows: Tensor, _step: int) -> Tensor:
    """Return the likeliest token of each row (n,)."""
    return logits.argmax(-1)


def sampler(
    uniform: Tensor, *, top_k: int = 0, top_p: float = 1.0, temperature: float = 1.0
) -> Choose:
    """Return what samples tokens.

    Args:
        uniform: Random numbers in [0, 1), float32 (r, steps), as from ``draw_uniform``.
        top_k: See ``sample_tokens``.
        top_p: See ``sample_tokens``.
        temperature: What the logits are divided by.
    """

    def choose(logits: Tensor, rows: Tensor, step: int) -> Tensor:
        return sample_tokens(logits / temperature, uniform[rows, step], top_k=top_k, top_p=top_p)

    return choose


def sample_tokens(logits: Tensor, uniform: Tensor, *, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Return one token for each row (n,).

    Args:
        logits: Log-probabilities, up to a constant of each row (n, v).
        uniform: Random numbers in [0, 1), one for each row (n,).
        top_k: Number of the likeliest tokens to sample from; 0 for all.
        top_p: Of these, the fewest likeliest ones that together have at least this probability.
    """
    probabilities, tokens = _likeliest(logits, top_k, top_p)
    before = probabilities.cumsum(-1) - probabilities
    nucleus = probabilities * (before < top_p)
    heights = nucleus.cumsum(-1)
    aimed = (uniform[:, None] * heights[:, -1:]).to(heights.dtype)
    place = torch.searchsorted(heights, aimed, right=True)
    # a number of nearly 1 may round up to the whole height
    place = place.clamp(max=(nucleus > 0).sum(-1, keepdim=True) - 1)
    return tokens.gather(-1, place)[:, 0]


def draw_uniform(seeds: Iterable[int | Sequence[int]], steps: int, *, samples: int = 1) -> Tensor:
    """Return random numbers in [0, 1), float32 (r * samples, steps), each seed's rows together.

    Rows depend on their seed alone, so a text does not depend on the batch it is written in.
    """
    drawn = [
        np.random.default_rng(seed).random((samples, steps), dtype=np.float32) for seed in seeds
    ]
    return torch.from_numpy(np.concatenate(drawn))


def end_ids(network: Network) -> list[int]:
    """Return the ids that end the model's own generation; its tokenizer's where it names none."""
    named = network.model.generation_config.eos_token_id
    ends = network.tokenizer.eos_token_id if named is None else named
    if isinstance(ends, list):
        return ends
    return [] if ends is None else [ends]


def _likeliest(logits: Tensor, top_k: int, top_p: float) -> tuple[Tensor, Tensor]:
    """Return probabilities and ids of tokens, likeliest first (n, k): all that may be sampled."""
    size = logits.shape[-1]
    if top_k:
        top = logits.topk(min(top_k, size))
        return top.values.softmax(-1), top.indices
    probabilities = logits.softmax(-1)
    likeliest, tokens = probabilities.topk(min(_LIKELIEST, size))
    if bool((likeliest.sum(-1) < top_p).any()):
        likeliest, tokens = probabilities.sort(descending=True)
    return likeliest, tokens


class _Reserved(DynamicLayer):  # type: ignore[no-untyped-call]  # of its __init_subclass__
    """Keys and values with room for all steps: a step writes its own and copies none before it."""

    def __init__(self, keys: Tensor, values: Tensor, steps: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lazy_initialization(keys, values)
        self._buffers = [pad(part, (0, 0, 0, steps)) for part in (keys, values)]
        self._used = keys.shape[-2]
        self._show()

    def update(
        self, key_states: Tensor, value_states: Tensor, *_args: object, **_more: object
    ) -> tuple[Tensor, Tensor]:
        """Add keys and values, and return those of all positions."""
        start, self._used = self._used, self._used + key_states.shape[-2]
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, start : self._used] = new
        return self._show()

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows."""
        self._buffers = [buffer[indices] for buffer in self._buffers]
        self._show()

    def _show(self) -> tuple[Tensor, Tensor]:
        self.keys, self.values = (buffer[:, :, : self._used] for buffer in self._buffers)
        return self.keys, self.values


def _places_from_the_right(mask: Tensor) -> Tensor:
    """Return where each token of rows that are padded on the left is in those of the mask (b, t).

    Padding keeps its order, so that each place is there once.
    """
    width = mask.shape[1]
    places = torch.arange(width, device=mask.device) + mask.sum(1, keepdim=True)
    return places % width


def _prefill_group(network: Network, prompts: Sequence[Sequence[int]], steps: int) -> Prefix:
    """Compute prompts that begin alike, padded on the left after their common beginning.

    Where a layer's window is shorter than a row, before it: padding would take up room there.
    """
    cache, trunk, device = DynamicCache(), network.model.base_model, network.device
    whole = max(map(len, prompts)) + steps <= network.window
    common = common_prefix(prompts) if len(prompts) > 1 and whole else 0
    if common:
        beginning = torch.tensor([prompts[0][:common]], device=device)
        trunk(beginning, past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(len(prompts))
    width = max(map(len, prompts)) - common
    own, real = [], []
    for ids in prompts:
        missing = width + common - len(ids)
        own.append([network.pad_id] * missing + list(ids[common:]))
        real.append([1] * common + [0] * missing + [1] * (len(ids) - common))
    mask = torch.tensor(real, device=device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)[:, common:]
    out = trunk(
        torch.tensor(own, device=device),
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
    )
    computed = common + int(mask[:, common:].sum())
    return Prefix(cache, mask, out.last_hidden_state[:, -1], computed)


def _pad_left(part: Tensor, width: int) -> Tensor:
    return pad(part, (0, 0, width - part.shape[-2], 0))


def _needs_layers(layer: int | None) -> bool:
    return layer not in (None, -1)  # all layers take much memory


def _read(out: Any, layer: int | None) -> Tensor:  # noqa: ANN401 - what transformers returns
    states: Tensor = out.hidden_states[layer] if _needs_layers(layer) else out.last_hidden_state
    return states
