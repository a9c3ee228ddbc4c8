"""Training data of Crops: pairs of crops, each a few successive sentences of one text.

The released code (berenslab/text-embed-augm at 09ac529) splits texts at each full stop and takes
pieces of 100 to 250 characters; here texts are split into sentences, and limits are in tokens.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from adapters._text import Framed
from adapters._training import texts
from adapters._training.budget import batches
from adapters._training.contrast import tokenise
from adapters._training.texts import TextSource, list_sentences
from bench.encoder import digest
from bench.errors import DataError

OPEN: tuple[TextSource, ...] = tuple(
    source for source in texts.OPEN if source.id != "uberspot/opentriviaqa"
)
"""The texts of LLM2Comp but for its trivia questions, which are single sentences."""


class Pair(NamedTuple):
    """Two views of one text: two crops, or with dropout views one crop twice."""

    first: str
    second: str


class Plan(NamedTuple):
    """The examples of a training, and the batches that they are in.

    Attributes:
        pairs: Pairs of all epochs.
        rows: Token ids of each pair.
        batches: Pairs of each step; no text is twice in one.
    """

    pairs: list[Pair]
    rows: list[tuple[list[int], ...]]
    batches: list[list[int]]


def usable_texts(
    found: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    *,
    tokens: tuple[int, int],
    sentences: int,
    overlap: bool,
) -> list[list[str]]:
    """Return the sentences of each text that has enough of them for two crops.

    Sentences of another length are left out, so that a crop may skip one, as in the paper. A
    sentence counts once in a text.

    Args:
        found: The texts.
        tokenizer: Counts tokens.
        tokens: Fewest and most tokens of a sentence.
        sentences: Sentences of a crop.
        overlap: Whether two crops may share a sentence.

    Raises:
        DataError: No text has enough sentences.
    """
    split = [list(dict.fromkeys(list_sentences(text))) for text in found]
    every = list(itertools.chain.from_iterable(split))
    ids = tokenizer(every, add_special_tokens=False, verbose=False)["input_ids"] if every else []
    lengths = map(len, ids)
    fewest, most = tokens
    least = sentences + _least_distance(sentences, overlap=overlap)
    usable = []
    for group in split:
        kept = [text for text in group if fewest <= next(lengths) <= most]
        if len(kept) >= least:
            usable.append(kept)
    if not usable:
        raise DataError(
            f"expected texts with {least} sentences of {fewest} to {most} tokens, "
            f"got none in {len(found)} texts: give longer texts, or change the limits"
        )
    return usable


def draw_crops(
    group: Sequence[str], *, sentences: int, overlap: bool, rng: np.random.Generator
) -> Pair:
    """Return two different crops of a text, each pair of them equally likely.

    Args:
        group: The sentences of the text.
        sentences: Sentences of a crop.
        overlap: Whether the crops may share a sentence.
        rng: Random numbers.
    """
    distance = _least_distance(sentences, overlap=overlap)
    places = len(group) - sentences + 1
    one, other = rng.choice(places - (distance - 1), 2, replace=False).tolist()
    starts = (one, other + distance - 1) if one < other else (one + distance - 1, other)
    first, second = (" ".join(group[start : start + sentences]) for start in starts)
    return Pair(first, second)


def _least_distance(sentences: int, *, overlap: bool) -> int:
    """Return how many sentences the starts of two crops are apart at least."""
    return 1 if overlap else sentences


def plan_pairs(  # noqa: PLR0913 - all but the first two by name
    groups: Sequence[Sequence[str]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    views: str,
    sentences: int,
    overlap: bool,
    length: int,
    budget: int,
    size: int,
    seed: int,
) -> Plan:
    """Draw pairs for a budget: one of each text in an epoch, other ones in each epoch.

    Args:
        groups: The sentences of each text.
        tokenizer: The backbone's.
        views: "crops", or "dropout" for the first crop twice.
        sentences: Sentences of a crop.
        overlap: Whether two crops may share a sentence.
        length: Most tokens of a crop; a longer one is truncated.
        budget: Tokens of all pairs; less than one pair is left over.
        size: Pairs of a step.
        seed: Of crops and order.

    Raises:
        UsageError: The budget is less than the first pair.
        DataError: There is one text alone, which has no other to be told from.
    """
    if len(groups) < 2:
        raise DataError(
            f"expected two texts or more with enough sentences, got {len(groups)}: "
            "give more; in a plain text file a blank line is between two texts"
        )
    plan = Plan([], [], [])
    for epoch in itertools.count():
        own = int(digest([seed, epoch])[:15], 16)
        rng = np.random.default_rng(own)
        pairs = [
            draw_crops(group, sentences=sentences, overlap=overlap, rng=rng) for group in groups
        ]
        if views == "dropout":
            pairs = [Pair(pair.first, pair.first) for pair in pairs]
        framed = [(Framed(pair.first), Framed(pair.second)) for pair in pairs]
        rows = tokenise(framed, tokenizer, length)
        lengths = [sum(map(len, row)) for row in rows]
        if plan.batches and budget < max(lengths):
            break
        epoch_tokens = min(budget, sum(lengths))
        chosen = batches(lengths, budget=epoch_tokens, size=size, seed=own)
        start = len(plan.pairs)
        plan.batches.extend([start + i for i in batch] for batch in chosen)
        plan.pairs.extend(pairs)
        plan.rows.extend(rows)
        budget -= sum(lengths[i] for i in itertools.chain.from_iterable(chosen))
    return plan
