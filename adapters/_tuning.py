"""Training a copy of a network on a handful of labelled examples, for the few-shot protocols.

Source: tables 3 and 4 of QuIP and its released code (facebookresearch/quip at 934c724). Dropout of hidden states and of attention
weights is stated below; the released code sets the former to 0 for pairs and leaves the latter at the checkpoint's, 0.1 in RoBERTa.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from adapters._backbone import Network
from adapters._batching import Prepare, Prompt, collated, one_by_one
from adapters._training.loop import autocast, seeded
from adapters._training.weights import set_dropout, unfrozen
from bench.encoder import Item, Labelled, Marked, Marker, Pair, PairScorer
from bench.errors import EncodingError, UsageError
from bench.spans import first_tokens

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn


@dataclass(frozen=True)
class Schedule:
    """How a network is trained on a few examples.

    Attributes:
        lr: Learning rate.
        batch: Examples a step.
        betas: Of Adam.
        eps: Of Adam.
        falling: Whether the learning rate falls linearly to 0.
        clip: Largest norm of the gradient; 0 for none.
        dropout: Of hidden states.
        attention_dropout: Of attention weights.
    """

    lr: float
    batch: int
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    falling: bool = True
    clip: float = 1.0
    dropout: float = 0.1
    attention_dropout: float = 0.1


PAIRS = Schedule(1e-5, 16, (0.9, 0.98), 1e-6, falling=False, clip=0.0, dropout=0.0)
TAGS = Schedule(2e-5, 8)
_TIMES, _TINY = 1000.0, 1e-8
"""Factor of the classifier of pairs, whose weights hardly move in 20 epochs otherwise; what keeps its features' variance above 0."""


def tuned_pairs(
    network: Network,
    prepare: Prepare,
    sets: Sequence[Labelled],
    *,
    layers: Sequence[int],
    epochs: int,
    seed: int,
) -> PairScorer:
    """Train a copy of the network to tell pairs apart by BERTScore F at some layers; see ``TunableEncoder.tune_pairs``.

    Args:
        network: Stays as it is.
        prepare: Gives one prompt with spans an item; positions of templates and memory do not count.
        sets: Training pairs with their labels, 1 or 0; of several sets each is trained on after the one before it, and the last
            one's classifier scores.
        layers: Counted from the last, which is -1.
        epochs: How often each pair is seen.
        seed: The only source of randomness, the same for each set.

    Raises:
        UsageError: There is no pair, not a label for each, or a single pair in the last batch, whose features have no variance.
        EncodingError: The loss is not finite.
    """
    for pairs, labels in sets or [((), ())]:
        if not pairs or len(pairs) != len(labels):
            raise UsageError(
                f"expected pairs and a label for each, got {len(pairs)} pairs and {len(labels)} labels"
            )
        if len(pairs) % PAIRS.batch == 1:
            raise UsageError(
                f"expected no batch of a single pair, got {len(pairs)} pairs in batches of {PAIRS.batch}: give one pair more or less"
            )
    copy = unfrozen(network)
    for some in sets:
        score = _pairs_learnt(copy, prepare, some, layers, epochs, seed)
    return score


def _pairs_learnt(
    copy: Network, prepare: Prepare, some: Labelled, layers: Sequence[int], epochs: int, seed: int
) -> PairScorer:
    """Train the network itself with a new classifier on one set."""
    import torch
    from torch import nn

    scale = nn.BatchNorm1d(len(layers), eps=_TINY, momentum=None, affine=False).to(copy.device)
    classifier = nn.Linear(len(layers), 1).to(copy.device)
    nn.init.zeros_(classifier.weight)
    nn.init.zeros_(classifier.bias)
    pairs, labels = some
    prompts = [prepare([Item(text) for text in pair]) for pair in pairs]
    targets = torch.tensor(labels, dtype=torch.float32, device=copy.device)

    def scores(few: Sequence[Sequence[Prompt]]) -> "Tensor":
        (left, a), (right, b) = (
            _own_states(copy, [pair[side] for pair in few], layers) for side in (0, 1)
        )
        features = torch.stack(
            [_bertscore(x, a, y, b) for x, y in zip(left, right, strict=True)], 1
        )
        found: Tensor = _TIMES * classifier(scale(features))[:, 0]
        return found

    def loss(batch: Sequence[int]) -> "Tensor":
        return nn.functional.binary_cross_entropy_with_logits(
            scores([prompts[i] for i in batch]), targets[list(batch)]
        )

    modules = [copy.model, scale, classifier]
    _train(copy, modules, loss, len(prompts), PAIRS, epochs=epochs, seed=seed)

    def score(asked: Sequence[Pair]) -> NDArray[np.float32]:
        with _still(modules):
            made = [
                scores(
                    [
                        prepare([Item(text) for text in pair])
                        for pair in asked[start : start + PAIRS.batch]
                    ]
                )
                for start in range(0, len(asked), PAIRS.batch)
            ]
            return np.asarray(
                torch.cat(made).float().cpu().numpy() if made else np.empty(0, np.float32)
            )

    return score


def tuned_classes(
    network: Network,
    prepare: Prepare,
    marked: Sequence[Marked],
    *,
    classes: int,
    start: NDArray[np.float32] | None,
    epochs: int,
    seed: int,
) -> Marker:
    """Train a copy of the network with a linear classifier of words' first tokens; see ``TunableEncoder.tune_classes``.

    Args:
        network: Stays as it is.
        prepare: Gives one prompt with spans an item.
        marked: Training texts with their words and their classes.
        classes: Number of classes.
        start: The classifier's weights at first (classes, dim); None for random ones.
        epochs: How often each text is seen.
        seed: The only source of randomness.

    Raises:
        UsageError: There is no text with a word in it, or the weights have another shape.
        EncodingError: The loss is not finite.
    """
    import torch
    from torch import nn

    if not marked or (start is not None and start.shape != (classes, network.dim)):
        got = "no text" if not marked else f"weights {start.shape}" if start is not None else ""
        raise UsageError(
            f"expected texts, and weights of shape {(classes, network.dim)}, got {got}"
        )
    copy = unfrozen(network)
    with seeded(seed, network.device):
        classifier = nn.Linear(network.dim, classes).to(network.device)
        nn.init.normal_(classifier.weight, std=0.02)
        nn.init.zeros_(classifier.bias)
    if start is not None:
        with torch.no_grad():
            classifier.weight.copy_(torch.from_numpy(start))

    learnt = _learnt(prepare, marked)

    def scores(some: Sequence[Prompt]) -> "Tensor":
        (states,), _ = _states(copy, some)
        found: Tensor = classifier(
            nn.functional.dropout(states.float(), TAGS.dropout, training=classifier.training)
        )
        return found

    def loss(batch: Sequence[int]) -> "Tensor":
        found = scores([learnt[i][0] for i in batch])
        where = [(row, at, c) for row, i in enumerate(batch) for at, c in learnt[i][1]]
        rows, places, wanted = torch.tensor(where, device=found.device).T
        return nn.functional.cross_entropy(found[rows, places], wanted)

    modules = [copy.model, classifier]
    _train(copy, modules, loss, len(learnt), TAGS, epochs=epochs, seed=seed)

    def mark(asked: Sequence[Marked]) -> list[NDArray[np.int64]]:
        made: list[NDArray[np.int64]] = []
        with _still(modules):
            for begin in range(0, len(asked), TAGS.batch):
                some, first = _placed(prepare, asked[begin : begin + TAGS.batch])
                best = scores(some).argmax(-1).cpu().numpy()
                made += [
                    np.where(at >= 0, row[np.maximum(at, 0)], -1)
                    for row, at in zip(best, first, strict=True)
                ]
        return made

    return mark


def _placed(
    prepare: Prepare, some: Sequence[Marked]
) -> tuple[list[Prompt], list[NDArray[np.int64]]]:
    """Return the prompts of texts, and of each the places of its words' first tokens, -1 for a word that was cut away."""
    made = prepare([Item(one.text) for one in some])
    spans = [
        np.empty((0, 2), np.int32) if prompt.spans is None else prompt.spans for prompt in made
    ]
    return made, [first_tokens(span, one.spans) for span, one in zip(spans, some, strict=True)]


def _learnt(
    prepare: Prepare, marked: Sequence[Marked]
) -> list[tuple[Prompt, list[tuple[int, int]]]]:
    """Return the prompts of texts that have a word left, with the places and classes of their words."""
    rows = [
        (prompt, [(int(at), int(c)) for at, c in zip(first, one.classes, strict=True) if at >= 0])
        for prompt, first, one in zip(*_placed(prepare, marked), marked, strict=True)
    ]
    if not any(right for _, right in rows):
        raise UsageError(
            f"expected a text with a word to learn, got none in {len(marked)}: give texts with words"
        )
    return [row for row in rows if row[1]]


def _train(
    copy: Network,
    modules: "Sequence[nn.Module]",
    loss: "Callable[[Sequence[int]], Tensor]",
    n: int,
    by: Schedule,
    *,
    epochs: int,
    seed: int,
) -> None:
    """Train all weights of the modules on shuffled batches of n examples."""
    import torch
    from transformers import get_scheduler

    set_dropout(copy.model, hidden=by.dropout, attention=by.attention_dropout)
    weights = [weight for module in modules for weight in module.parameters()]
    optimizer = torch.optim.AdamW(
        weights, lr=by.lr, betas=by.betas, eps=by.eps, weight_decay=0.0, fused=True
    )
    steps = epochs * math.ceil(n / by.batch)
    scheduler = get_scheduler("linear" if by.falling else "constant", optimizer, 0, steps)
    order = np.random.default_rng(seed)
    for module in modules:
        module.train()
    with seeded(seed, copy.device):
        for _ in range(epochs):
            shuffled = order.permutation(n).tolist()
            for start in range(0, n, by.batch):
                value = loss(shuffled[start : start + by.batch])
                if not bool(value.isfinite()):
                    raise EncodingError(
                        "the loss is not finite: compute in float32, or train on other examples"
                    )
                value.backward()  # type: ignore[no-untyped-call]
                if by.clip:
                    torch.nn.utils.clip_grad_norm_(weights, by.clip)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()


@contextmanager
def _still(modules: "Sequence[nn.Module]") -> "Iterator[None]":
    import torch

    for module in modules:
        module.eval()
    with torch.inference_mode():
        yield


def _states(
    network: Network, prompts: Sequence[Prompt], layers: Sequence[int] = (-1,)
) -> "tuple[list[Tensor], Tensor]":
    """Return token states (b, t, dim) of each layer, computed in the network's number type, and the mask (b, t)."""
    ids, mask = collated(one_by_one(range(len(prompts)), prompts), network)
    with autocast(network):
        return network.states_of(ids, mask, layers), mask


def _own_states(
    network: Network, prompts: Sequence[Prompt], layers: Sequence[int]
) -> "tuple[list[Tensor], Tensor]":
    """Return what ``_states`` does, with a mask that leaves out the positions of templates and memory."""
    import torch

    states, mask = _states(network, prompts, layers)
    own = torch.zeros_like(mask)
    for row, prompt in zip(own, prompts, strict=True):
        row[: len(prompt.ids)] = torch.from_numpy(prompt.own()[0])
    return states, own


def _bertscore(left: "Tensor", a_real: "Tensor", right: "Tensor", b_real: "Tensor") -> "Tensor":
    """Return BERTScore F of each pair (b,), from token states (b, t, dim) and masks (b, t)."""
    from torch.nn.functional import normalize

    cosines = normalize(left.float(), dim=-1) @ normalize(right.float(), dim=-1).transpose(1, 2)
    cosines = cosines.masked_fill(~(a_real[:, :, None] & b_real[:, None, :]).bool(), -1.0)
    precision = (cosines.amax(2) * a_real).sum(1) / a_real.sum(1).clamp(min=1)
    recall = (cosines.amax(1) * b_real).sum(1) / b_real.sum(1).clamp(min=1)
    return 2 * precision * recall / (precision + recall).clamp(min=1e-6)
