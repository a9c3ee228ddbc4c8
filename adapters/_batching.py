"""From items to vectors, fast: tokenised once, sorted by length over the whole plan, in batches of equal size in tokens."""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.encoder import Batch, Item, TokenStates
from bench.errors import EncodingError

if TYPE_CHECKING:
    from adapters._backbone import Network

log = logging.getLogger(__name__)

CPU_BUDGET, GPU_BUDGET = 1024, 32_768
"""Token positions in one batch, padding included, where none is asked for. On CPUs larger batches are no faster, and pad more."""

_WINDOW_TEXTS, _WINDOW_CHARACTERS = (
    32_768,
    1 << 24,
)  # tokenised at once; long documents bound the memory ids take
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

    def own(self) -> tuple[NDArray[np.bool_], NDArray[np.int32]]:
        """Return which positions are the text's or special tokens, bool (t,), not a template's or memory's; and the spans of these.

        Raises:
            EncodingError: There are no spans.
        """
        if self.spans is None:
            raise EncodingError(
                "expected prompts with spans for token states, got one without: prepare must fill them in"
            )
        kept = self.spans[:, 0] >= 0
        return kept, self.spans[kept]


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence for the network: a prompt, or several that begin alike, what they have in common first and once.

    Attributes:
        positions: Which items these are.
        prompts: One per item.
        common: How many ids at their beginning the prompts share; 0 for a single one.
    """

    positions: Sequence[int]
    prompts: Sequence[Prompt]
    common: int = 0

    @property
    def own(self) -> list[int]:
        """How many ids each prompt has beyond the common ones."""
        return [len(prompt.ids) - self.common for prompt in self.prompts]

    @property
    def width(self) -> int:
        """How many positions go through the network."""
        return self.common + sum(self.own)

    def ids(self) -> list[int]:
        """Return the common ids, then the own ones of each prompt."""
        return [
            *self.prompts[0].ids[: self.common],
            *(i for prompt in self.prompts for i in prompt.ids[self.common :]),
        ]

    def parts(self) -> list[int]:
        """Return the part of each position: 1 for the common ones, then 2, 3, ... for each prompt; all 1 for a single one."""
        if len(self.prompts) == 1:
            return [1] * self.width
        return [1] * self.common + [k for k, n in enumerate(self.own, 2) for _ in range(n)]

    def tokens(self) -> list[int]:
        """Return how many positions are computed for each prompt; the common ones count for the first."""
        return [n + self.common * (i == 0) for i, n in enumerate(self.own)]

    def within(self, width: int) -> "Iterator[Row]":
        """Yield rows with the same prompts, each no wider or of a single prompt."""
        if len(self.prompts) == 1 or self.width <= width:
            yield self
            return
        start = 0
        while start < len(self.prompts):
            end = start + max(int((np.cumsum(self.own[start:]) + self.common <= width).sum()), 1)
            yield Row(
                self.positions[start:end],
                self.prompts[start:end],
                self.common if end - start > 1 else 0,
            )
            start = end


Prepare = Callable[[Sequence[Item]], list[Prompt]]
Forward = Callable[[Tensor, Tensor], Tensor]
Join = Callable[[Sequence[int], Sequence[Prompt]], list[Row]]


def one_by_one(positions: Sequence[int], prompts: Sequence[Prompt]) -> list[Row]:
    """Return one row per prompt."""
    return [Row([i], [prompt]) for i, prompt in zip(positions, prompts, strict=True)]


def stream(
    items: Sequence[Item],
    prepare: Prepare,
    forward: Forward,
    network: "Network",
    *,
    budget: int | None = None,
    join: Join = one_by_one,
) -> Iterator[Batch]:
    """Yield the vectors of all items, longest first.

    Args:
        items: What to encode.
        prepare: Gives one prompt per item; called in another thread.
        forward: From ids and mask, int64 (b, t) each, padded on the right, to vectors, one per prompt. The mask is 0 at
            padding, elsewhere the part of ``Row.parts``: 1, where each row is one prompt.
        network: Says where batches belong and what pads them.
        budget: Token positions per batch, padding included; None for the device's default.
        join: Puts prompts into rows.

    Raises:
        EncodingError: A single text does not fit into memory.
    """
    for done in computed(items, prepare, forward, network, budget=budget, join=join):
        yield Batch(
            positions=np.asarray([i for row in done.rows for i in row.positions], np.int64),
            vectors=done.output.float().cpu().numpy(),
            tokens=np.asarray([n for row in done.rows for n in row.tokens()], np.int32),
            truncated=np.asarray(
                [prompt.truncated for row in done.rows for prompt in row.prompts], np.bool_
            ),
            padded=done.padded,
        )


def stream_tokens(
    items: Sequence[Item],
    prepare: Prepare,
    forward: Forward,
    network: "Network",
    *,
    budget: int | None = None,
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
    for done in computed(items, prepare, forward, network, budget=budget):
        for row, states in zip(done.rows, done.output.float().cpu().numpy(), strict=True):
            (position,), (prompt,) = row.positions, row.prompts
            kept, spans = prompt.own()
            found[position] = TokenStates(states[: len(prompt.ids)][kept], spans)
    return [found[i] for i in range(len(items))]


class Done(NamedTuple):
    """A batch of rows, and what ``forward`` gave for them."""

    rows: list[Row]
    output: Tensor

    @property
    def padded(self) -> int:
        """How many positions went through the network, padding included."""
        return len(self.rows) * max(row.width for row in self.rows)


def computed(
    items: Sequence[Item],
    prepare: Prepare,
    forward: Forward,
    network: "Network",
    *,
    budget: int | None = None,
    join: Join = one_by_one,
) -> Iterator[Done]:
    """Yield batches one behind the network: on a GPU the next one is under way while the last is copied.

    Arguments and errors are those of ``stream``; here ``forward`` may return anything that is a tensor.
    """
    waiting: Done | None = None
    for current in _forwarded(
        items,
        prepare,
        forward,
        network,
        budget or (CPU_BUDGET if network.device == "cpu" else GPU_BUDGET),
        join,
    ):
        if waiting is not None:
            yield waiting
        waiting = current
    if waiting is not None:
        yield waiting


def _forwarded(
    items: Sequence[Item],
    prepare: Prepare,
    forward: Forward,
    network: "Network",
    budget: int,
    join: Join,
) -> Iterator[Done]:
    for positions, prompts in _tokenised(items, prepare):
        rows = _longest_first(join(positions, prompts), budget)
        start = 0
        while start < len(rows):
            chosen = rows[start : start + _fitting(rows, start, budget)]
            output = _attempt(forward, *collated(chosen, network))
            if output is None:
                budget = _halved(budget, chosen, network)
                rows, start = _longest_first(rows[start:], budget), 0
                continue
            yield Done(chosen, output)
            start += len(chosen)


def _longest_first(rows: Sequence[Row], budget: int) -> list[Row]:
    return sorted((part for row in rows for part in row.within(budget)), key=lambda row: -row.width)


def _tokenised(items: Sequence[Item], prepare: Prepare) -> Iterator[tuple[list[int], list[Prompt]]]:
    """Yield windows of prompts with their positions; the next window is tokenised while the caller computes."""
    clean = [Item(_encodable(item.text), _encodable(item.instruction)) for item in items]
    windows = list(_windows([len(item.text) + len(item.instruction) for item in clean]))
    with ThreadPoolExecutor(1, thread_name_prefix="tokenise") as worker:
        ahead = [worker.submit(prepare, [clean[i] for i in window]) for window in windows[:1]]
        for n, window in enumerate(windows):
            prompts = ahead.pop().result()
            ahead = [
                worker.submit(prepare, [clean[i] for i in following])
                for following in windows[n + 1 : n + 2]
            ]
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


def _fitting(rows: Sequence[Row], start: int, budget: int) -> int:
    """Return how many rows, from the longest on, make the next batch: within budget, and with little padding."""
    width, real, count = rows[start].width, 0, 0
    while start + count < len(rows):
        padded = width * (count + 1)
        real += rows[start + count].width
        ragged = padded - real > _WASTE * padded and width * count >= budget // 8
        if count and (padded > budget or ragged):
            break
        count += 1
    return count


def collated(rows: Sequence[Row], network: "Network") -> tuple[Tensor, Tensor]:
    """Return ids and parts of rows, int64 (b, t) each on the network's device.

    Padded on the right; the part of padding is 0.
    """
    _check_ids(rows, network)
    ids = pad([row.ids() for row in rows], network.pad_id, network.device)
    return ids, pad([row.parts() for row in rows], 0, network.device)


def pad_batch(
    rows: Sequence[Sequence[int]], network: "Network", *, more: int = 0
) -> tuple[Tensor, Tensor]:
    """Return ids and mask, int64 (b, t + more) each; the mask is 1 at real positions.

    Args:
        rows: Token ids of each text.
        network: Says on which device they go, and what pads them.
        more: Further positions of padding, such as for memory tokens.
    """
    ids = pad(rows, network.pad_id, network.device, more=more)
    return ids, pad([[1] * len(row) for row in rows], 0, network.device, more=more)


def pad(rows: Sequence[Sequence[int]], fill: int, device: str, *, more: int = 0) -> Tensor:
    """Return rows of numbers as int64 (b, t + more), filled up on the right, on a device."""
    lengths = np.asarray([len(row) for row in rows])
    real = np.arange(lengths.max() + more) < lengths[:, None]
    filled = np.full(real.shape, fill, np.int64)
    filled[real] = np.concatenate([np.asarray(row, np.int64) for row in rows])
    padded = torch.from_numpy(filled)
    if device.startswith("cuda"):
        return padded.pin_memory().to(device, non_blocking=True)
    return padded.to(device)


def _check_ids(rows: Sequence[Row], network: "Network") -> None:
    """Refuse tokens without an embedding, such as those that were added to a tokenizer alone."""
    known = int(network.model.get_input_embeddings().num_embeddings)  # type: ignore[arg-type]
    largest = max(max(prompt.ids) for row in rows for prompt in row.prompts)
    if largest >= known:
        raise EncodingError(
            f"expected tokens below {known}, as many as the model has embeddings, got "
            f"{largest} ({network.tokenizer.convert_ids_to_tokens(largest)!r}): use the model's own tokenizer"
        )


def _attempt(forward: Forward, ids: Tensor, mask: Tensor) -> Tensor | None:
    """Return the output, or None when memory ran out; the failed computation is released with this frame."""
    try:
        with torch.inference_mode():
            return forward(ids, mask)
    except torch.OutOfMemoryError:
        return None
    except IndexError as error:
        raise EncodingError(
            f"a text of {ids.shape[1]} tokens is longer than the model takes: lower max_length"
        ) from error
    except RuntimeError as error:  # the CPU's allocator has no exception of its own
        if "not enough memory" in str(error) or "can't allocate memory" in str(error):
            return None
        raise


def _halved(budget: int, rows: Sequence[Row], network: "Network") -> int:
    longest = rows[0].width
    if len(rows) == len(rows[0].prompts) == 1:
        raise EncodingError(
            f"a text of {longest} tokens does not fit into the memory of {network.device}: lower max_length"
        )
    if network.device.startswith("cuda"):
        torch.cuda.empty_cache()
    smaller = max(longest * len(rows) // 2, 1)
    log.warning(
        "out of memory on %s with %d token positions per batch: going on with %d",
        network.device,
        budget,
        smaller,
    )
    return smaller
