"""Encoders whose vectors follow from the words, and a task: what the tests of ``bench`` run on."""

import re
import zlib
from dataclasses import dataclass, field
from functools import cache
from typing import ClassVar

import numpy as np

from bench.encoder import Item, QuestionVectors, TokenStates
from bench.task import Score, Task


@cache
def vector(word: str, dim: int) -> np.ndarray:
    """Return the random vector of a word, float32 (dim,)."""
    seed = zlib.crc32(word.encode("utf-8", "surrogatepass"))
    return np.random.default_rng(seed).normal(size=dim).astype(np.float32)


@dataclass(frozen=True)
class Plain:
    """Only encodes: a random vector for each instruction and text.

    It notes what it is asked, and the instruction of each call.
    """

    dim: int = 24
    asked: list[Item] = field(default_factory=list, compare=False)
    calls: list[str] = field(default_factory=list, compare=False)
    version: ClassVar[int] = 1
    follows_instructions: ClassVar[bool] = True

    def encode(self, texts, *, instruction=""):
        self.calls.append(instruction)
        self.asked.extend(Item(text, instruction) for text in texts)
        rows = [vector(f"{instruction}|{text}", self.dim) for text in texts]
        return np.array(rows, np.float32).reshape(-1, self.dim)


@dataclass(frozen=True)
class Unheeding(Plain):
    """Ignores the instruction."""

    follows_instructions: ClassVar[bool] = False

    def encode(self, texts, *, instruction=""):
        return super().encode(texts)


@dataclass(frozen=True)
class Constant(Plain):
    """Gives vectors of one direction."""

    def encode(self, texts, *, instruction=""):
        return np.outer(np.arange(1, len(texts) + 1), np.arange(4)).astype(np.float32)


@dataclass(frozen=True)
class Noisy(Plain):
    """A random vector of text and instruction, with a little signal of the last word."""

    def encode(self, texts, *, instruction=""):
        vectors = super().encode(texts, instruction=instruction)
        for row, text in zip(vectors, texts, strict=True):
            row[zlib.crc32(text.split()[-1].encode()) % self.dim] += 2
        return vectors


@dataclass(frozen=True)
class Words:
    """A random vector for each word; texts are means of their words, questions sums.

    ``told`` has the arguments of the calls of a method that is no plain encoding.
    """

    dim: int = 64
    cut: int = 10_000
    calls: list[tuple[str, object]] = field(default_factory=list, compare=False)
    version: ClassVar[int] = 1
    follows_instructions: ClassVar[bool] = True

    def encode(self, texts, *, instruction=""):
        prefix = self._states([instruction]) if instruction else np.zeros((1, self.dim), np.float32)
        means = [tokens.states.mean(axis=0) for tokens in self.encode_tokens(texts)]
        return np.stack(means).astype(np.float32) + prefix

    def encode_tokens(self, texts, *, layer=-1):
        found = []
        for text in texts:
            matches = list(re.finditer(r"\S+", text))[: self.cut]
            spans = np.array([(0, 0), *(m.span() for m in matches)], np.int32)
            words = ["<s>", *(m.group() for m in matches)]
            found.append(TokenStates(self._states(words, layer), spans))
        return found

    def told(self, method):
        return [arguments for name, arguments in self.calls if name == method]

    def encode_questions(self, questions):
        self.calls.append(("encode_questions", list(questions)))
        sums = np.stack([self._states(re.findall(r"\w+", q)).sum(axis=0) for q in questions])
        return QuestionVectors(sums, sums)

    def score_words(self, texts, *, prompt, words):
        """A word is as likely as it is like the text."""
        asked = {"texts": list(texts), "prompt": prompt, "words": words}
        self.calls.append(("score_words", asked))
        means = np.stack([tokens.states.mean(axis=0) for tokens in self.encode_tokens(texts)])
        products = means @ self._states([w.strip() for w in words]).T
        return (products - np.logaddexp.reduce(products, axis=1, keepdims=True)).astype(np.float32)

    def tune_pairs(self, sets, *, layers, epochs, seed):
        """Learn between which similarities the classes lie."""
        self.calls.append(("tune_pairs", [list(pairs) for pairs, _ in sets]))
        if not layers or not epochs:
            raise ValueError
        pairs, labels = sets[-1]
        alike = self._alike(pairs)
        middle = (alike[np.array(labels) == 1].mean() + alike[np.array(labels) == 0].mean()) / 2
        return lambda asked: (self._alike(asked) - middle).astype(np.float32)

    def tune_classes(self, marked, *, classes, start, epochs, seed):
        """Learn the mean state of each class."""
        how = {"classes": classes, "start": start, "epochs": epochs, "seed": seed}
        self.calls.append(("tune_classes", {**how, "first": marked[0]}))
        zeros = np.zeros((classes, self.dim), np.float32)
        sums = zeros if start is None else start.astype(np.float32)
        for one in marked:
            for (a, b), kind in zip(one.spans, one.classes, strict=True):
                sums[kind] += self._states([one.text[a:b]])[0]

        def classify(one):
            words = [one.text[a:b] for a, b in one.spans]
            return (self._states(words) @ sums.T).argmax(axis=1)

        return lambda asked: [classify(one) for one in asked]

    def _alike(self, pairs):
        left, right = (self.encode([pair[side] for pair in pairs]) for side in (0, 1))
        norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
        return np.einsum("nd,nd->n", left, right) / norms

    def _states(self, words, layer=-1):
        prefix = layer if layer >= 0 else ""
        return np.stack([vector(f"{prefix}{word.lower()}", self.dim) for word in words])


@dataclass(frozen=True)
class Ended(Words):
    """Gives questions another vector for the end than for the start."""

    def encode_questions(self, questions):
        found = super().encode_questions(questions)
        return QuestionVectors(found.start, -found.start)


@dataclass(frozen=True, kw_only=True)
class Norms(Task):
    """Reads the lengths of some vectors."""

    name: str = "norms"
    texts: tuple[str, ...] = ("a", "bb", "ccc", "a")
    version: int = 1
    family: ClassVar[str] = "made-up"
    metric: ClassVar[str] = "norm"

    def items(self, *, seed):
        return [Item(text) for text in self.texts]

    def score(self, vectors, *, seed):
        norms = np.linalg.norm(vectors, axis=1)
        return {"norm": Score((float(norms.mean()), 1 / (seed + 1)), norms)}
