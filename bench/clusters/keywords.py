"""What sets a group of texts apart, in words."""

import re
from collections.abc import Collection, Iterable, Sequence

import numpy as np

_CONTENT = "bill call computer cry describe detail fill find fire interest mill mine move show sincere system thick thin"
"""Words on scikit-learn's list of stop words that say what a text is about."""

_FRAGMENTS = "ain aren couldn didn doesn don hadn hasn haven isn let ll ma mustn shan shouldn ve wasn weren won wouldn"
"""What is left of "don't", "we'll" and the like once they are cut into words."""


def stop_words(instruction: str = "") -> frozenset[str]:
    """Return English words that say nothing about a text, and those of an instruction, in lower case."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    asked = re.findall(r"\w\w+", instruction.lower())
    return (ENGLISH_STOP_WORDS | set(_FRAGMENTS.split())) - set(_CONTENT.split()) | set(asked)  # type: ignore[no-any-return]


def telling(
    groups: Sequence[Sequence[str]], n: int, stops: Collection[str]
) -> list[tuple[str, ...]]:
    """Return the words that tell each group from the others, at most n, the strongest first.

    All texts of a group make one document; a word's weight is its TF-IDF there minus its mean over the groups. Of words that
    many groups share, at most the strongest is taken, where a group has no other.

    Args:
        groups: Texts of each group.
        n: Most words of a group.
        stops: Words that are never key words, in lower case.

    Source:
        Naming of clusters in zhang-yu-wei/InBedder at 3d95d4fa, there with stop words and shared words.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(stop_words=sorted(stops))
    cut = vectorizer.build_analyzer()
    documents = [" ".join(texts) for texts in groups]
    if not any(cut(document) for document in documents):
        return [() for _ in groups]
    weights = vectorizer.fit_transform(documents).toarray()
    names = vectorizer.get_feature_names_out()
    mean = weights.mean(axis=0) if len(groups) > 1 else np.zeros(len(names))
    order = (mean - weights).argsort(axis=1, kind="stable")
    # A word all groups share alike lies at the mean, one that only one group has at len(groups) times the mean.
    own, more = weights > mean * np.sqrt(len(groups)), weights > mean
    chosen = [
        [str(names[i]) for i in best if mine[i]] for best, mine in zip(order, own, strict=True)
    ]
    strongest = [
        [str(names[i]) for i in best[:1] if above[i]]
        for best, above in zip(order, more, strict=True)
    ]
    return [_once(words or one, n) for words, one in zip(chosen, strongest, strict=True)]


def _once(words: Iterable[str], n: int) -> tuple[str, ...]:
    """Return the first n words, of a word and its plural only the first."""
    first: dict[str, str] = {}
    for word in words:
        first.setdefault(word.removesuffix("s"), word)
    return tuple(first.values())[:n]
