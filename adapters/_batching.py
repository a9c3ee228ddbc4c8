"""From items to vectors: tokenised once, sorted by length, in batches of equal size in tokens."""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adapters._network import Network
from bench.encoder import Batch, Item, TokenStates, length_windows
from bench.errors import EncodingError

log = logging.getLogger(__name__)

CPU_BUDGET, GPU_BUDGET = 1024, 32_768
"""Default tokens in a batch, padding included; larger ones are no faster on CPUs, and pad more."""

_WASTE = 0.02
"""Share of padding at which a batch is closed early, once it is an eighth full."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What goes through the network for one item.

    Attributes:
        ids: Token ids, at least one.
        truncated: Whether the text was truncated.
        spans: int32 (t, 2), where asked for: the half-open character span in the text of each
            token; (0, 0) for a special token, which is kept in token states; (-1, -1) for a token
            of a template or a memory token, which is not.
        pooled: bool (t,): the tokens whose states are pooled, where a pooling is given to
            ``stream``; None for all.
    """

    ids: list[int]
    truncated: bool = False
    spans: NDArray[np.int32] | None = None
    pooled: NDArray[np.bool_] | None = None

    def text_tokens(self) -> tuple[NDArray[np.bool_], NDArray[np.int32]]:
        """Return which tokens are the text's or special ones, bool (t,), and the spans of these.

        Raises:
            EncodingError: There are no spans.
        """
        if self.spans is None:
            raise EncodingError(
                "expected prompts with spans for token states, got one without: "
                "prepare must fill them in"
            )
        kept = self.spans[:, 0] >= 0
        return kept, self.spans[kept]


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence for the network: a prompt, or several after their common prefix.

    Attributes:
        positions: Which items these are.
        prompts: One per item.
        prefix: How many ids at their beginning the prompts share; 0 for a single one.
    """

    positions: Sequence[int]
    prompts: Sequence[Prompt]
    prefix: int = 0

    @property
    def suffixes(self) -> list[int]:
        """How many ids each prompt has after the prefix."""
        return [len(prompt.ids) - self.prefix for prompt in self.prompts]

    @property
    def width(self) -> int:
        """How many tokens go through the network."""
        return self.prefix + sum(self.suffixes)

    def ids(self) -> list[int]:
        """Return the prefix, then the suffix of each prompt."""
        ids = list(self.prompts[0].ids[: self.prefix])
        for prompt in self.prompts:
            ids += prompt.ids[self.prefix :]
        return ids

    def segments(self) -> list[int]:
        """Return the segment of each token: 1 in the prefix, 2, 3, ... in each prompt's suffix.

        All are 1 in the row of a single prompt.
        """
        if len(self.prompts) == 1:
            return [1] * self.width
        segments = [1] * self.prefix
        for number, length in enumerate(self.suffixes, 2):
            segments += [number] * length
        return segments

    def tokens(self) -> list[int]:
        """Return how many tokens are computed for each prompt; the first one's has the prefix."""
        first, *others = self.suffixes
        return [self.prefix + first, *others]

    def within(self, width: int) -> "Iterator[Row]":
        """Yield rows with the same prompts, each no wider or of a single prompt."""
        if len(self.prompts) == 1 or self.width <= width:
            yield self
            return
        start = 0
        while start < len(self.prompts):
            widths = np.cumsum(self.suffixes[start:]) + self.prefix
            end = start + max(int((widths <= width).sum()), 1)
            prefix = self.prefix if end - start > 1 else 0
            yield Row(self.positions[start:end], self.prompts[start:end], prefix)
            start = end


Prepare = Callable[[Sequence[Item]], list[Prompt]]
Forward = Callable[[Tensor, Tensor], Tensor]
Pool = Callable[[Tensor, Tensor], Tensor]
Join = Callable[[Sequence[int], Sequence[Prompt]], list[Row]]


def one_by_one(positions: Sequence[int], prompts: Sequence[Prompt]) -> list[Row]:
    """Return one row per prompt."""
    return [Row([i], [prompt]) for i, prompt in zip(positions, prompts, strict=True)]


def stream(
    items: Sequence[Item],
    prepare: Prepare,
    forward: Forward,
    network: Network,
    *,
    budget: int | None = None,
    join: Join = one_by_one,
    pool: Pool | None = None,
) -> Iterator[Batch]:
    """Yield the vectors of all items, longest first.

    Args:
        items: What to encode.
        prepare: Gives one prompt per item; called in another thread.
        forward: From ids and mask, int64 (b, t) each, padded on the right, to vectors, one per
            prompt. The mask is 0 at padding, elsewhere the segment of ``Row.segments``: 1, where
            each row is one prompt.
        network: Says on which device batches are computed and what pads them.
        budget: Tokens per batch, padding included; None for the device's default.
        join: Puts prompts into rows.
        pool: Where given, ``forward`` gives token states (b, t, dim), and this makes vectors of
            them and of a mask, int64 (b, t), that is 1 at the tokens that prompts name as pooled.

    Raises:
        EncodingError: A single text does not fit into memory.
    """
    batches = computed(items, prepare, forward, network, budget=budget, join=join, pool=pool)
    for done in batches:
        positions: list[int] = []
        tokens: list[int] = []
        truncated: list[bool] = []
        for row in done.rows:
            positions += row.positions
            tokens += row.tokens()
            truncated += [prompt.truncated for prompt in row.prompts]
        yield Batch(
            positions=np.asarray(positions, np.int64),
            vectors=done.output.float().cpu().numpy(),
            tokens=np.asarray(tokens, np.int32),
            truncated=np.asarray(truncated, np.bool_),
            padded=done.padded,
        )


def stream_tokens(
    items: Sequence[Item],
    prepare: Prepare,
    forward: Forward,
    network: Network,
    *,
    budget: int | None = None,
) -> list[TokenStates]:
    """Return the token states of each item, without those of templates and memory tokens.

    Args:
        items: What to encode.
        prepare: Gives one prompt with spans per item.
        forward: From ids and mask, int64 (b, t) each, to states (b, t, dim).
        network: Says on which device batches are computed and what pads them.
        budget: Tokens per batch, padding included; None for the device's default.

    Raises:
        EncodingError: A single text does not fit into memory, or a prompt has no spans.
    """
    found: dict[int, TokenStates] = {}
    for done in computed(items, prepare, forward, network, budget=budget):
        for row, states in zip(done.rows, done.output.float().cpu().numpy(), strict=True):
            (position,), (prompt,) = row.positions, row.prompts
            kept, spans = prompt.text_tokens()
            n = len(prompt.ids)
            found[position] = TokenStates(states[:n][kept], spans, read=n)
    return [found[i] for i in range(len(items))]


class Done(NamedTuple):
    """A batch of rows, and what ``forward`` gave for them."""

    rows: list[Row]
    output: Tensor

    @property
    def padded(self) -> int:
        """How many tokens went through the network, padding included."""
        return len(self.rows) * max(row.width for row in self.rows)


def computed(
    items: Sequence[Item],
    prepare: Prepare,
    forward: Forward,
    network: Network,
    *,
    budget: int | None = None,
    join: Join = one_by_one,
    pool: Pool | None = None,
) -> Iterator[Done]:
    """Yield batches one behind the network: a GPU computes the next while the last is copied.

    Arguments and errors are those of ``stream``; ``forward`` may give any tensor.
    """
    waiting: Done | None = None
    for done in _run(items, prepare, forward, network, budget, join, pool):
        if waiting is not None:
            yield waiting
        waiting = done
    if waiting is not None:
        yield waiting


def _run(
    items: Sequence[Item],
    prepare: Prepare,
    forward: Forward,
    network: Network,
    budget: int | None,
    join: Join,
    pool: Pool | None,
) -> Iterator[Done]:
    budget = budget or (CPU_BUDGET if network.device == "cpu" else GPU_BUDGET)
    for positions, prompts in _tokenise(items, prepare, network.device):
        left = _sort(join(positions, prompts), budget)
        while left:
            batch = left[: _count_fitting(left, budget, padded=not network.reads_padding)]
            output = _attempt(forward, pool, batch, network)
            if output is None:
                budget = _halve(budget, batch, network)
                left = _sort(left, budget)
                continue
            yield Done(batch, output)
            del left[: len(batch)]


def _sort(rows: Sequence[Row], budget: int) -> list[Row]:
    fitting = chain(*(row.within(budget) for row in rows))
    return sorted(fitting, key=lambda row: -row.width)


def _tokenise(
    items: Sequence[Item], prepare: Prepare, device: str
) -> Iterator[tuple[list[int], list[Prompt]]]:
    """Yield windows of prompts with their positions; the next is tokenised in the meantime."""
    clean = [Item(_encodable(item.text), _encodable(item.instruction)) for item in items]
    windows = [window.tolist() for window in length_windows(items, device)]
    with ThreadPoolExecutor(1, thread_name_prefix="tokenise") as worker:

        def begin(window: list[int]) -> Future[list[Prompt]]:
            return worker.submit(prepare, [clean[i] for i in window])

        ahead = [begin(window) for window in windows[:1]]
        for number, window in enumerate(windows):
            prompts = ahead.pop().result()
            ahead = [begin(following) for following in windows[number + 1 : number + 2]]
            yield window, prompts


def _encodable(text: str) -> str:
    """Replace lone surrogates, which tokenizers refuse, one by one, so that spans stay right."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)
    return text


def _count_fitting(rows: Sequence[Row], budget: int, *, padded: bool = True) -> int:
    """Return how many rows make the next batch: within budget, and with little padding or none."""
    width, real = rows[0].width, 0
    for count, row in enumerate(rows):
        size = width * (count + 1)
        real += row.width
        ragged = size - real > _WASTE * size and width * count >= budget // 8
        if count and (size > budget or ragged or (row.width < width and not padded)):
            return count
    return len(rows)


def collated(rows: Sequence[Row], network: Network) -> tuple[Tensor, Tensor]:
    """Return ids and segments of rows, int64 (b, t) each on the network's device.

    Padded on the right; the segment of padding is 0.
    """
    _check_ids(rows, network)
    ids = pad([row.ids() for row in rows], network.pad_id, network.device)
    return ids, pad([row.segments() for row in rows], 0, network.device)


def pad_batch(rows: Sequence[Sequence[int]], network: Network) -> tuple[Tensor, Tensor]:
    """Return ids and mask, int64 (b, t) each; the mask is 1 at real positions.

    Args:
        rows: Token ids of each text.
        network: Says on which device they go, and what pads them.
    """
    ids = pad(rows, network.pad_id, network.device)
    return ids, pad([[1] * len(row) for row in rows], 0, network.device)


def pad(rows: Sequence[Sequence[int]], fill: int, device: str) -> Tensor:
    """Return rows of numbers as int64 (b, t), filled up on the right, on a device."""
    lengths = np.asarray([len(row) for row in rows])
    real = np.arange(lengths.max()) < lengths[:, None]
    filled = np.full(real.shape, fill, np.int64)
    filled[real] = np.concatenate([np.asarray(row, np.int64) for row in rows])
    padded = torch.from_numpy(filled)
    if device.startswith("cuda"):
        return padded.pin_memory().to(device, non_blocking=True)
    return padded.to(device)


def _check_ids(rows: Sequence[Row], network: Network) -> None:
    """Refuse tokens without an embedding, such as those that were added to a tokenizer alone."""
    known = int(network.model.get_input_embeddings().num_embeddings)  # type: ignore[arg-type]
    prompts = chain(*(row.prompts for row in rows))
    largest = max(max(prompt.ids) for prompt in prompts)
    if largest >= known:
        token = network.tokenizer.convert_ids_to_tokens(largest)
        raise EncodingError(
            f"expected tokens below {known}, as many as the model has embeddings, "
            f"got {largest} ({token!r}): use the model's own tokenizer"
        )


def _attempt(
    forward: Forward, pool: Pool | None, rows: Sequence[Row], network: Network
) -> Tensor | None:
    """Return the output; None when memory ran out: the failed tensors go with this frame."""
    ids, mask = collated(rows, network)
    try:
        with torch.inference_mode():
            output = forward(ids, mask)
            return output if pool is None else pool(output, _pooled_mask(rows, network.device))
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


def _pooled_mask(rows: Sequence[Row], device: str) -> Tensor:
    masks = []
    for row in rows:
        (prompt,) = row.prompts
        masks.append([1] * row.width if prompt.pooled is None else prompt.pooled.tolist())
    return pad(masks, 0, device)


def _halve(budget: int, rows: Sequence[Row], network: Network) -> int:
    longest = rows[0].width
    if len(rows) == len(rows[0].prompts) == 1:
        raise EncodingError(
            f"a text of {longest} tokens does not fit into the memory of {network.device}: "
            "lower max_length"
        )
    if network.device.startswith("cuda"):
        torch.cuda.empty_cache()
    smaller = max(longest * len(rows) // 2, 1)
    log.warning(
        "out of memory on %s with %d tokens per batch: continuing with %d",
        network.device,
        budget,
        smaller,
    )
    return smaller
