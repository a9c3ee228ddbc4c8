"""From items to vectors, fast: tokenised once, sorted by length over the whole plan, in batches of equal size in tokens."""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.encoder import Batch, Item, TokenStates
from bench.errors import EncodingError

if TYPE_CHECKING:
    from torch import Tensor

    from adapters._backbone import Network

log = logging.getLogger(__name__)

CPU_BUDGET, GPU_BUDGET = 1024, 32_768
"""Token positions in one batch, padding included, where none is asked for. On CPUs larger batches are no faster, and pad more."""

_WINDOW_TEXTS, _WINDOW_CHARACTERS = 32_768, 1 << 24  # tokenised at once; long documents bound the memory ids take
_WASTE = 0.02  # a batch that would hold a larger share of padding is closed early, once it is an eighth full


@dataclass(frozen=True, slots=True)
class Prompt:
    """What goes through the network for one item.

    Attributes:
        ids: Token ids, at least one.
        truncated: Whether a part of the text was cut away.
        spans: int32 (t, 2), where asked for: the half-open character span in the text of each position; (0, 0) for a special
            token, which is kept in token states; (-1, -1) for a position of a template or a memory token, which is not.
    """

    ids: list[int]
    truncated: bool = False
    spans: NDArray[np.int32] | None = None


Prepare = Callable[[Sequence[Item]], list[Prompt]]
Forward = Callable[["Tensor", "Tensor"], "Tensor"]


def stream(items: Sequence[Item], prepare: Prepare, forward: Forward, network: "Network", *, budget: int | None = None) -> Iterator[Batch]:
    """Yield the vectors of all items, longest first.

    Args:
        items: What to encode.
        prepare: Gives one prompt per item; called in another thread.
        forward: From ids and mask, int64 (b, t) each, padded on the right, to vectors (b, dim).
        network: Says where batches belong and what pads them.
        budget: Token positions per batch, padding included; None for the device's default.

    Raises:
        EncodingError: A single text does not fit into memory.
    """
    for done in _computed(items, prepare, forward, network, budget):
        prompts = done.prompts
        yield Batch(
            positions=np.asarray(done.positions, np.int64),
            vectors=done.output.float().cpu().numpy(),
            tokens=np.asarray([len(p.ids) for p in prompts], np.int32),
            truncated=np.asarray([p.truncated for p in prompts], np.bool_),
            padded=len(prompts) * max(len(p.ids) for p in prompts),
        )


def stream_tokens(
    items: Sequence[Item], prepare: Prepare, forward: Forward, network: "Network", *, budget: int | None = None
) -> list[TokenStates]:
    """Return the token states of each item; positions of templates and memory are left out.

    Args:
        items: What to encode.
        prepare: Gives one prompt with spans per item.
        forward: From ids and mask, int64 (b, t) each, to states (b, t, dim).
        network: Says where batches belong and what pads them.
        budget: Token positions per batch, padding included; None for the device's default.

    Raises:
        EncodingError: A single text does not fit into memory, or a prompt has no spans.
    """
    found: dict[int, TokenStates] = {}
    for done in _computed(items, prepare, forward, network, budget):
        states = done.output.float().cpu().numpy()
        for position, prompt, row in zip(done.positions, done.prompts, states, strict=True):
            if prompt.spans is None:
                raise EncodingError("expected prompts with spans for token states, got one without: prepare must fill them in")
            kept = prompt.spans[:, 0] >= 0
            found[position] = TokenStates(row[: len(prompt.ids)][kept], prompt.spans[kept])
    return [found[i] for i in range(len(items))]


class _Done(NamedTuple):
    positions: list[int]
    prompts: list[Prompt]
    output: "Tensor"


def _computed(items: Sequence[Item], prepare: Prepare, forward: Forward, network: "Network", budget: int | None) -> Iterator[_Done]:
    """Yield batches one behind the network: on a GPU the next one is under way while the last is copied."""
    waiting: _Done | None = None
    for current in _forwarded(items, prepare, forward, network, budget or (CPU_BUDGET if network.device == "cpu" else GPU_BUDGET)):
        if waiting is not None:
            yield waiting
        waiting = current
    if waiting is not None:
        yield waiting


def _forwarded(items: Sequence[Item], prepare: Prepare, forward: Forward, network: "Network", budget: int) -> Iterator[_Done]:
    for positions, prompts in _tokenised(items, prepare):
        lengths = [len(prompt.ids) for prompt in prompts]
        order = sorted(range(len(prompts)), key=lambda i: -lengths[i])
        start = 0
        while start < len(order):
            end = start + _fitting(lengths, order, start, budget)
            chosen = [prompts[i] for i in order[start:end]]
            output = _attempt(forward, *_collated(chosen, network))
            if output is None:
                budget = _halved(budget, chosen, network)
                continue
            yield _Done([positions[i] for i in order[start:end]], chosen, output)
            start = end


def _tokenised(items: Sequence[Item], prepare: Prepare) -> Iterator[tuple[list[int], list[Prompt]]]:
    """Yield windows of prompts with their positions; the next window is tokenised while the caller computes."""
    clean = [Item(_encodable(item.text), _encodable(item.instruction)) for item in items]
    windows = list(_windows([len(item.text) + len(item.instruction) for item in clean]))
    with ThreadPoolExecutor(1, thread_name_prefix="tokenise") as worker:
        ahead = [worker.submit(prepare, [clean[i] for i in window]) for window in windows[:1]]
        for n, window in enumerate(windows):
            prompts = ahead.pop().result()
            ahead = [worker.submit(prepare, [clean[i] for i in following]) for following in windows[n + 1 : n + 2]]
            yield window, prompts


def _windows(characters: list[int]) -> Iterator[list[int]]:
    """Yield positions of items, longest first, in portions to be tokenised at once."""
    window: list[int] = []
    size = 0
    for i in sorted(range(len(characters)), key=lambda i: -characters[i]):
        if window and (len(window) == _WINDOW_TEXTS or size + characters[i] > _WINDOW_CHARACTERS):
            yield window
            window, size = [], 0
        window.append(i)
        size += characters[i]
    if window:
        yield window


def _encodable(text: str) -> str:
    """Replace lone surrogates, which tokenizers refuse, by the replacement character, so that spans stay right."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)
    return text


def _fitting(lengths: list[int], order: list[int], start: int, budget: int) -> int:
    """Return how many texts, from the longest on, make the next batch: within budget, and with little padding."""
    width, real, count = lengths[order[start]], 0, 0
    for i in order[start:]:
        padded = width * (count + 1)
        full = padded > budget
        ragged = padded - real - lengths[i] > _WASTE * padded and width * count >= budget // 8
        if count and (full or ragged):
            break
        real += lengths[i]
        count += 1
    return count


def _collated(prompts: Sequence[Prompt], network: "Network") -> tuple["Tensor", "Tensor"]:
    import torch

    lengths = np.asarray([len(prompt.ids) for prompt in prompts])
    mask = np.arange(lengths.max()) < lengths[:, None]
    ids = np.full(mask.shape, network.pad_id, np.int64)
    ids[mask] = np.concatenate([prompt.ids for prompt in prompts])
    pair = torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64))
    if network.device.startswith("cuda"):
        return pair[0].pin_memory().to(network.device, non_blocking=True), pair[1].pin_memory().to(network.device, non_blocking=True)
    return pair[0].to(network.device), pair[1].to(network.device)


def _attempt(forward: Forward, ids: "Tensor", mask: "Tensor") -> "Tensor | None":
    """Return the output, or None when memory ran out; the failed computation is released with this frame."""
    import torch

    try:
        with torch.inference_mode():
            return forward(ids, mask)
    except torch.OutOfMemoryError:
        return None
    except RuntimeError as error:  # the CPU's allocator has no exception of its own
        if "not enough memory" in str(error) or "can't allocate memory" in str(error):
            return None
        raise


def _halved(budget: int, prompts: Sequence[Prompt], network: "Network") -> int:
    import torch

    longest = len(prompts[0].ids)
    if len(prompts) == 1:
        raise EncodingError(f"a text of {longest} tokens does not fit into the memory of {network.device}: lower max_length")
    if network.device.startswith("cuda"):
        torch.cuda.empty_cache()
    smaller = max(longest * len(prompts) // 2, 1)
    log.warning("out of memory on %s with %d token positions per batch: going on with %d", network.device, budget, smaller)
    return smaller
