"""From generated texts to training pairs: cleaned, smoothed, at most a few a label, and random pairs beside them."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bench.encoder import shortened
from bench.errors import DataError

_WORD = re.compile(r"\w+")


class Pair(NamedTuple):
    """Two texts, and how similar they are, from 0 to 1."""

    text_a: str
    text_b: str
    label: float


@dataclass(frozen=True)
class Cleaning:
    """What is kept of generated pairs.

    Attributes:
        per_label: Most second texts of a first text and label.
        random_pairs: Random second texts added to each first text, with the label 0.
        smoothing: A label y becomes (1 - smoothing) y + smoothing / 2; that of random pairs does not.
        least_shared: Least share of common words, of all words of both texts, in a pair of label 1; 0 for none, as in the original.
        most_shared: Largest one in pairs of lower labels; 1 for no limit, as in the original.
        agreeing: Whether a pair that was written for several labels is dropped.

    Source:
        All but the last three: timoschick/dino at 0e4a052, with the choices that make it depend on the seed alone.
    """

    per_label: int = 2
    random_pairs: int = 2
    smoothing: float = 0.2
    least_shared: float = 0.0
    most_shared: float = 1.0
    agreeing: bool = False


def cleaned(
    pairs: Sequence[Pair], cleaning: Cleaning, *, seed: int
) -> tuple[list[Pair], dict[str, int]]:
    """Return training pairs, and how many were dropped, by reason, and added.

    Args:
        pairs: What was generated.
        cleaning: What is kept.
        seed: Of the order and of the random pairs.

    Raises:
        DataError: Random pairs are asked for, and some first text is in all pairs that are left.
    """
    rng = np.random.default_rng(seed)
    shuffled = [pairs[i] for i in rng.permutation(len(pairs))]
    steps = [("repeated", list(dict.fromkeys(shuffled)))]
    steps.append(
        ("both texts alike", [pair for pair in steps[-1][1] if pair.text_a != pair.text_b])
    )
    if cleaning.agreeing:
        steps.append(("written for several labels", list(_agreeing(steps[-1][1]))))
    steps.append(
        (
            "same meaning, yet other words",
            [p for p in steps[-1][1] if p.label < 1 or shared(*p[:2]) >= cleaning.least_shared],
        )
    )
    steps.append(
        (
            "lower label, yet the same words",
            [p for p in steps[-1][1] if p.label == 1 or shared(*p[:2]) <= cleaning.most_shared],
        )
    )
    steps.append(
        ("more than enough of the label", list(_limited(steps[-1][1], cleaning.per_label)))
    )
    sizes = [len(shuffled), *(len(kept) for _, kept in steps)]
    counts = {
        name: before - after
        for (name, _), before, after in zip(steps, sizes, sizes[1:], strict=False)
    }
    smooth = [
        p._replace(label=round((1 - cleaning.smoothing) * p.label + cleaning.smoothing / 2, 6))
        for p in steps[-1][1]
    ]
    added = list(_random(smooth, cleaning.random_pairs, rng))
    return smooth + added, {
        "generated": len(pairs),
        **counts,
        "random pairs": len(added),
        "training pairs": len(smooth) + len(added),
    }


def shared(a: str, b: str) -> float:
    """Return the share of words that two texts have in common, of all words of both; case does not count."""
    first, second = (set(_WORD.findall(text.lower())) for text in (a, b))
    return len(first & second) / max(len(first | second), 1)


def page(pairs: Iterable[Pair], counts: Mapping[str, int], *, rows: int = 20) -> str:
    """Return a page in Markdown: the counts, and the first pairs of each label."""
    lines = [
        "# Generated pairs",
        "",
        "| | pairs |",
        "| --- | ---: |",
        *(f"| {name} | {n:,} |" for name, n in counts.items()),
    ]
    by_label: dict[float, list[Pair]] = defaultdict(list)
    for pair in pairs:
        by_label[pair.label].append(pair)
    for label in sorted(by_label, reverse=True):
        lines += [
            "",
            f"## {label:g}: {len(by_label[label]):,} pairs",
            "",
            "| first text | second text |",
            "| --- | --- |",
        ]
        lines += [
            f"| {_cell(pair.text_a)} | {_cell(pair.text_b)} |" for pair in by_label[label][:rows]
        ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _agreeing(pairs: Sequence[Pair]) -> Iterator[Pair]:
    labels = Counter((pair.text_a, pair.text_b) for pair in pairs)
    return (pair for pair in pairs if labels[pair.text_a, pair.text_b] == 1)


def _limited(pairs: Iterable[Pair], most: int) -> Iterator[Pair]:
    seen: Counter[tuple[str, float]] = Counter()
    for pair in pairs:
        seen[pair.text_a, pair.label] += 1
        if seen[pair.text_a, pair.label] <= most:
            yield pair


def _random(pairs: Sequence[Pair], each: int, rng: np.random.Generator) -> Iterator[Pair]:
    """Yield for every first text pairs with second texts of others."""
    texts = list(dict.fromkeys(pair.text_a for pair in pairs))
    if each and len(texts) < 2:
        raise DataError(
            f"expected pairs of two first texts or more to make random pairs of, got {len(texts)}: generate more"
        )
    for text in texts if each else []:
        if all(text in pair[:2] for pair in pairs):
            raise DataError(
                f"expected a pair without {shortened(text)} to make random pairs of, got it in all: generate more"
            )
        taken = 0
        while taken < each:
            other = pairs[int(rng.integers(len(pairs)))]
            if text not in (other.text_a, other.text_b):
                yield Pair(text, other.text_b, 0.0)
                taken += 1
