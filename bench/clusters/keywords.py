"""Key words of groups of texts."""

import re
import sys
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from functools import cache

import numpy as np

_CONTENT = (
    "bill call computer cry describe detail fill find fire interest mill mine move show sincere "
    "system thick thin"
)
"""Stop words of scikit-learn that can be the topic of a text."""

_FRAGMENTS = (
    "ain aren couldn didn doesn don hadn hasn haven isn let ll ma mustn shan shouldn ve wasn weren "
    "won wouldn"
)
"""What tokenization leaves of "don't", "we'll" and the like."""


_MARKS = ("Mn", "Mc")
"""Categories of combining marks that are part of a word."""

_EMOJI_STYLE = "\N{VARIATION SELECTOR-16}"


@cache
def _letters() -> str:
    r"""Return what a word has after its first letter, as a character class.

    Beside ``\w`` these are combining marks, which are vowels in Hindi or Thai, and the dot of a
    Turkish I in small letters.
    """
    kept = [c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(c) in _MARKS]
    return r"[\w" + "".join(kept).replace(_EMOJI_STYLE, "") + "]"


def _split_words(text: str) -> list[str]:
    """Return the words of a text, of one letter or more."""
    return re.findall(rf"\w{_letters()}*", text)


def stop_words(instruction: str = "") -> frozenset[str]:
    """Return English stop words and the words of an instruction, in lower case."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    asked = _split_words(instruction.lower())
    return (ENGLISH_STOP_WORDS | set(_FRAGMENTS.split())) - set(_CONTENT.split()) | set(asked)  # type: ignore[no-any-return]


def find_key_words(
    groups: Sequence[Sequence[str]], n: int, stops: Collection[str]
) -> list[tuple[str, ...]]:
    """Return at most n key words of each group, the strongest first.

    A group is one document; a word's weight is its TF-IDF there minus its mean over the groups.
    A group without words of its own gets its strongest shared word.

    Args:
        groups: Texts of each group.
        n: Maximum number of words of a group.
        stops: Words to leave out, in lower case.

    Source:
        Naming of clusters in zhang-yu-wei/InBedder at 3d95d4fa, there with stop words and shared
        words.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = rf"\w{_letters()}+"  # of two letters or more
    vectorizer = TfidfVectorizer(stop_words=sorted(stops), token_pattern=words)
    documents = [" ".join(texts) for texts in groups]
    if not any(map(vectorizer.build_analyzer(), documents)):
        return [() for _ in groups]
    weights = vectorizer.fit_transform(documents).toarray()
    names = vectorizer.get_feature_names_out()
    mean = weights.mean(axis=0) if len(groups) > 1 else np.zeros(len(names))
    order = (mean - weights).argsort(axis=1, kind="stable")
    # A word of all groups alike has the mean weight, one of a single group len(groups) times that.
    threshold = mean * np.sqrt(len(groups))
    found = []
    for weight, best in zip(weights, order, strict=True):
        own = [i for i in best if weight[i] > threshold[i]]
        shared = [i for i in best[:1] if weight[i] > mean[i]]
        found.append(_drop_plurals([str(names[i]) for i in own or shared])[:n])
    return found


def keep_own_words(
    words: Iterable[str], texts: Iterable[str], stops: Collection[str]
) -> tuple[str, ...]:
    """Return the words that are in the texts, in the order given, each in one spelling.

    Args:
        words: Candidates, such as the words that a language-model head finds likeliest. Of a word
            that the texts have in another form only its plural counts as the same.
        texts: Of one group.
        stops: Words to leave out, in lower case.
    """
    found = _split_words("\n".join(texts).lower())
    own = set(map(_singular, found)) - set(stops)
    lower = (word.lower() for word in words)
    return _drop_plurals(word for word in lower if word not in stops and _singular(word) in own)


def _singular(word: str) -> str:
    return word.removesuffix("s")


def _drop_plurals(words: Iterable[str]) -> tuple[str, ...]:
    """Return the words, of a word and its plural only the first."""
    first: dict[str, str] = {}
    for word in words:
        first.setdefault(_singular(word), word)
    return tuple(first.values())
