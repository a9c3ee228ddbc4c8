"""Training a copy of a network on a few labelled examples, for the few-shot protocols.

Source: tables 3 and 4 of QuIP and its released code (facebookresearch/quip at 934c724). Dropout of
hidden states and of attention weights is stated below; the released code sets the former to 0 for
pairs and leaves the latter at the checkpoint's, 0.1 in RoBERTa.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, dropout, normalize
from transformers import get_scheduler

from adapters._batching import Prepare, Prompt, collated, one_by_one
from adapters._network import Network
from adapters._trainable import autocast, fork_seed, set_dropout, unfreeze
from bench.encoder import Item
from bench.errors import EncodingError, UsageError
from bench.spans import Marked, first_tokens

Pair = tuple[str, str]
Labelled = tuple[Sequence[Pair], Sequence[int]]
"""Pairs, and for each 1 for a paraphrase or 0 for none."""
PairScorer = Callable[[Sequence[Pair]], NDArray[np.float32]]
"""Scores pairs, float32 (n,); positive means paraphrase."""
Marker = Callable[[Sequence[Marked]], list[NDArray[np.int64]]]
"""Gives the class of each word of each text; -1 for a word that was truncated."""


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

_FACTOR = 1000.0
"""Of the classifier of pairs, whose weights hardly move in 20 epochs otherwise."""

_EPS = 1e-8
"""Added to the variance of its features."""


def tune_pairs(
    network: Network,
    prepare: Prepare,
    sets: Sequence[Labelled],
    *,
    layers: Sequence[int],
    epochs: int,
    seed: int,
) -> PairScorer:
    """Train a copy of the network to classify pairs by BERTScore F at some layers.

    Args:
        network: Stays as it is.
        prepare: Gives one prompt with spans an item; tokens of templates and memory do not count.
        sets: Training pairs with their labels, 1 or 0. Several sets are trained on one after the
            other, each with a new classifier; the last one's scores.
        layers: Counted from the last, which is -1.
        epochs: How often each pair is seen.
        seed: Random seed, the same for each set.

    Returns:
        Scores pairs, float32 (n,): positive means paraphrase.

    Raises:
        UsageError: There is no pair, not a label for each, or a single pair in the last batch,
            whose features have no variance.
        EncodingError: The loss is not finite.
    """
    for pairs, labels in sets or [((), ())]:
        if not pairs or len(pairs) != len(labels):
            raise UsageError(
                f"expected pairs and a label for each, got {len(pairs)} pairs "
                f"and {len(labels)} labels"
            )
        if len(pairs) % PAIRS.batch == 1:
            raise UsageError(
                f"expected no batch of a single pair, got {len(pairs)} pairs in batches of "
                f"{PAIRS.batch}: give one pair more or less"
            )
    copy = unfreeze(network)
    for some in sets:
        score = _tune_on(copy, prepare, some, layers, epochs, seed)
    return score


def _tune_on(
    copy: Network, prepare: Prepare, some: Labelled, layers: Sequence[int], epochs: int, seed: int
) -> PairScorer:
    """Train the network itself with a new classifier on one set."""
    scale = nn.BatchNorm1d(len(layers), eps=_EPS, momentum=None, affine=False).to(copy.device)
    classifier = nn.Linear(len(layers), 1).to(copy.device)
    nn.init.zeros_(classifier.weight)
    nn.init.zeros_(classifier.bias)
    pairs, labels = some
    targets = torch.tensor(labels, dtype=torch.float32, device=copy.device)

    def make_prompts(several: Sequence[Pair]) -> list[list[Prompt]]:
        return [prepare([Item(left), Item(right)]) for left, right in several]

    def scores(prompts: Sequence[Sequence[Prompt]]) -> Tensor:
        left, a = _text_states(copy, [pair[0] for pair in prompts], layers)
        right, b = _text_states(copy, [pair[1] for pair in prompts], layers)
        alike = [_bertscore(x, a, y, b) for x, y in zip(left, right, strict=True)]
        found: Tensor = _FACTOR * classifier(scale(torch.stack(alike, 1)))[:, 0]
        return found

    prompts = make_prompts(pairs)

    def loss(batch: Sequence[int]) -> Tensor:
        found = scores([prompts[i] for i in batch])
        return binary_cross_entropy_with_logits(found, targets[list(batch)])

    modules = nn.ModuleList([copy.model, scale, classifier])
    _train(copy, modules, loss, len(prompts), PAIRS, epochs=epochs, seed=seed)

    def score(asked: Sequence[Pair]) -> NDArray[np.float32]:
        if not asked:
            return np.empty(0, np.float32)
        starts = range(0, len(asked), PAIRS.batch)
        with _evaluating(modules):
            made = [scores(make_prompts(asked[k : k + PAIRS.batch])) for k in starts]
            return np.asarray(torch.cat(made).float().cpu().numpy())

    return score


def tune_classes(
    network: Network,
    prepare: Prepare,
    marked: Sequence[Marked],
    *,
    classes: int,
    start: NDArray[np.float32] | None,
    epochs: int,
    seed: int,
) -> Marker:
    """Train a copy of the network with a linear classifier of words' first tokens.

    Args:
        network: Stays as it is.
        prepare: Gives one prompt with spans an item.
        marked: Training texts with their words and their classes.
        classes: Number of classes.
        start: The classifier's weights at first (classes, dim); None for random ones.
        epochs: How often each text is seen.
        seed: Random seed.

    Returns:
        Gives the class of each word, int64 (words,) per text; -1 for a truncated word.

    Raises:
        UsageError: There is no text with a word in it, or the weights have another shape.
        EncodingError: The loss is not finite.
    """
    if start is not None and start.shape != (classes, network.dim):
        raise UsageError(
            f"expected weights of shape {(classes, network.dim)}, got {start.shape}: "
            "start from weights of this network"
        )
    copy = unfreeze(network)
    classifier = _make_classifier(network, classes, start, seed)
    examples = _find_words(prepare, marked)

    def scores(prompts: Sequence[Prompt]) -> Tensor:
        (states,), _ = _states(copy, prompts)
        found: Tensor = classifier(dropout(states.float(), TAGS.dropout, classifier.training))
        return found

    def loss(batch: Sequence[int]) -> Tensor:
        found = scores([examples[i][0] for i in batch])
        where = []
        for row, i in enumerate(batch):
            where += [(row, token, c) for token, c in examples[i][1]]
        rows, tokens, wanted = torch.tensor(where, device=found.device).T
        return cross_entropy(found[rows, tokens], wanted)

    modules = nn.ModuleList([copy.model, classifier])
    _train(copy, modules, loss, len(examples), TAGS, epochs=epochs, seed=seed)

    def mark(asked: Sequence[Marked]) -> list[NDArray[np.int64]]:
        made: list[NDArray[np.int64]] = []
        with _evaluating(modules):
            for begin in range(0, len(asked), TAGS.batch):
                prompts, first = _first_tokens(prepare, asked[begin : begin + TAGS.batch])
                best = scores(prompts).argmax(-1).cpu().numpy()
                for row, at in zip(best, first, strict=True):
                    made.append(np.where(at >= 0, row[np.maximum(at, 0)], -1))
        return made

    return mark


def _make_classifier(
    network: Network, classes: int, start: NDArray[np.float32] | None, seed: int
) -> nn.Linear:
    with fork_seed(seed, network.device):
        classifier = nn.Linear(network.dim, classes).to(network.device)
        nn.init.normal_(classifier.weight, std=0.02)
        nn.init.zeros_(classifier.bias)
    if start is not None:
        with torch.no_grad():
            classifier.weight.copy_(torch.from_numpy(start))
    return classifier


def _first_tokens(
    prepare: Prepare, texts: Sequence[Marked]
) -> tuple[list[Prompt], list[NDArray[np.int64]]]:
    """Return prompts, and for each the first token of each word; -1 for a truncated word."""
    prompts = prepare([Item(one.text) for one in texts])
    first = []
    for prompt, one in zip(prompts, texts, strict=True):
        spans = np.empty((0, 2), np.int32) if prompt.spans is None else prompt.spans
        first.append(first_tokens(spans, one.spans))
    return prompts, first


def _find_words(
    prepare: Prepare, marked: Sequence[Marked]
) -> list[tuple[Prompt, list[tuple[int, int]]]]:
    """Return the prompts of texts that have a word left, with first tokens and classes of words."""
    prompts, first = _first_tokens(prepare, marked)
    examples = []
    for prompt, tokens, one in zip(prompts, first, marked, strict=True):
        pairs = zip(tokens, one.classes, strict=True)
        words = [(int(token), int(c)) for token, c in pairs if token >= 0]
        if words:
            examples.append((prompt, words))
    if not examples:
        raise UsageError(
            f"expected a text with a word to learn, got none in {len(marked)}: "
            "give texts with words"
        )
    return examples


def _train(
    copy: Network,
    modules: nn.ModuleList,
    loss: Callable[[Sequence[int]], Tensor],
    n: int,
    by: Schedule,
    *,
    epochs: int,
    seed: int,
) -> None:
    """Train all weights of the modules on shuffled batches of n examples."""
    set_dropout(copy.model, hidden=by.dropout, attention=by.attention_dropout)
    weights = list(modules.parameters())
    optimizer = torch.optim.AdamW(
        weights, lr=by.lr, betas=by.betas, eps=by.eps, weight_decay=0.0, fused=True
    )
    steps = epochs * math.ceil(n / by.batch)
    scheduler = get_scheduler("linear" if by.falling else "constant", optimizer, 0, steps)
    order = np.random.default_rng(seed)
    modules.train()
    with fork_seed(seed, copy.device):
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
                    nn.utils.clip_grad_norm_(weights, by.clip)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()


@contextmanager
def _evaluating(modules: nn.ModuleList) -> Iterator[None]:
    modules.eval()
    with torch.inference_mode():
        yield


def _states(
    network: Network, prompts: Sequence[Prompt], layers: Sequence[int] = (-1,)
) -> tuple[list[Tensor], Tensor]:
    """Return token states (b, t, dim) of each layer in the network's dtype, and the mask (b, t)."""
    ids, mask = collated(one_by_one(range(len(prompts)), prompts), network)
    with autocast(network):
        return network.states_of(ids, mask, layers), mask


def _text_states(
    network: Network, prompts: Sequence[Prompt], layers: Sequence[int]
) -> tuple[list[Tensor], Tensor]:
    """Return what ``_states`` does, with a mask without the tokens of templates and memory."""
    states, mask = _states(network, prompts, layers)
    text_mask = torch.zeros_like(mask)
    for row, prompt in zip(text_mask, prompts, strict=True):
        row[: len(prompt.ids)] = torch.from_numpy(prompt.text_tokens()[0])
    return states, text_mask


def _bertscore(left: Tensor, a_real: Tensor, right: Tensor, b_real: Tensor) -> Tensor:
    """Return BERTScore F of each pair (b,), from token states (b, t, dim) and masks (b, t).

    It passes gradients and serves padded batches; ``bench.tasks`` scores single pairs in numpy.
    """
    cosines = normalize(left.float(), dim=-1) @ normalize(right.float(), dim=-1).transpose(1, 2)
    both_real = (a_real[:, :, None] & b_real[:, None, :]).bool()
    cosines = cosines.masked_fill(~both_real, -1.0)
    precision = (cosines.amax(2) * a_real).sum(1) / a_real.sum(1).clamp(min=1)
    recall = (cosines.amax(1) * b_real).sum(1) / b_real.sum(1).clamp(min=1)
    return 2 * precision * recall / (precision + recall).clamp(min=1e-6)
