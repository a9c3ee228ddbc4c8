"""Which passages are kept out, which bring the questions that people asked, and which get generated ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from adapters._backbone import Network
from adapters.quip.passages import Passage, windowed
from bench.overlap import Ngrams

_KEPT_OUT, _MOST_KEPT_OUT = 0.05, 100
"""Share and most of the passages that nothing is trained on."""

_SHORTEST = 24
"""Fewest tokens of a passage that questions are written on."""

_QUESTION = 13
"""Tokens that a generated question is taken to have when passages are counted out."""


@dataclass(frozen=True)
class Selection:
    """The training data, cut to size.

    Attributes:
        teaching: Passages with people's questions: generator and teacher learn from them.
        human: Those of them whose questions the encoder is trained on as they are.
        texts: Passages that questions are written on.
        kept_out: Passages with people's questions that are for measuring only, none of whose runs of words is in the others; empty
            where there are few.
    """

    teaching: list[Passage]
    human: list[Passage]
    texts: list[str]
    kept_out: list[Passage]


def selected(
    passages: Sequence[Passage],
    network: Network,
    *,
    window: int,
    longest: int,
    positions: int,
    human: float,
    questions: int,
    seed: int,
) -> Selection:
    """Return what is trained on.

    Args:
        passages: Texts of any length; whole ones are kept out, not parts of them.
        network: Says what a token is.
        window: Passages are cut into runs of whole sentences of at most so many tokens.
        longest: Most tokens of a single sentence.
        positions: Token positions that passages and questions fill in an epoch.
        human: Share of the positions for passages with people's questions.
        questions: How many a passage gets written.
        seed: Of the choice.
    """
    rng = np.random.default_rng(seed)
    passages = [passages[i] for i in rng.permutation(len(passages))]
    asked = [i for i, p in enumerate(passages) if p.questions]
    out = set(asked[: min(int(_KEPT_OUT * len(asked)), _MOST_KEPT_OUT)])
    cut = windowed(passages, network.tokenizer, tokens=window, longest=longest)
    windows = [w for i, some in enumerate(cut) if i not in out for w in some]
    windows = [windows[i] for i in rng.permutation(len(windows))]
    teaching = [w for w in windows if w.questions]
    lengths = [_positions(w, network) for w in teaching]
    people = teaching[: _filling(lengths, human * positions)]
    used = {w.text for w in people}
    rest = sorted(
        windows, key=lambda w: w.text in used
    )  # stable: the passages that people's questions use come last
    sizes = [(w, n) for w in rest if (n := len(_ids(w.text, network))) >= _SHORTEST] or [
        (w, len(_ids(w.text, network))) for w in rest
    ]
    number = _filling([n + _QUESTION * questions for _, n in sizes], (1 - human) * positions)
    texts = [w.text for w, _ in sizes[:number]]
    unseen = [w for i in sorted(out) for w in cut[i] if w.questions]
    touched = Ngrams.of([*(w.text for w in teaching), *texts]).find_overlaps(
        [w.text for w in unseen]
    )
    return Selection(
        teaching, people, texts, [w for w, known in zip(unseen, touched, strict=True) if not known]
    )


def _filling(lengths: Sequence[int], positions: float) -> int:
    """Return how many of the lengths, from the first on, it takes to fill the positions; all where they are too few."""
    return (
        min(int(np.searchsorted(np.cumsum(lengths), positions - 1e-6)) + 1, len(lengths))
        if positions >= 1
        else 0
    )


def _positions(passage: Passage, network: Network) -> int:
    return len(_ids(passage.text, network)) + sum(
        len(_ids(q.text, network)) for q in passage.questions
    )


def _ids(text: str, network: Network) -> list[int]:
    return network.tokenizer(text, verbose=False)["input_ids"]  # type: ignore[no-any-return]
