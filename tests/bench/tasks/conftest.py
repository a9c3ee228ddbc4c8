"""Data sets written in the layout, and a small real encoder whose vectors follow from the words."""

import gzip
import json
import re
import zlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from bench.encoder import QuestionVectors, TokenStates


@dataclass(frozen=True)
class Words:
    """A random vector for each word; texts are means of their words, questions sums."""

    dim: int = 64
    cut: int = 10_000
    version: ClassVar[int] = 1
    follows_instructions: ClassVar[bool] = True

    def encode(self, texts, *, instruction=""):
        prefix = self._states([instruction]) if instruction else np.zeros((1, self.dim), np.float32)
        return (
            np.stack([t.states.mean(axis=0) for t in self.encode_tokens(texts)]).astype(np.float32)
            + prefix
        )

    def encode_tokens(self, texts, *, layer=-1):
        found = []
        for text in texts:
            matches = list(re.finditer(r"\S+", text))[: self.cut]
            spans = np.array([(0, 0), *(m.span() for m in matches)], np.int32)
            found.append(
                TokenStates(self._states(["<s>", *(m.group() for m in matches)], layer), spans)
            )
        return found

    def encode_questions(self, questions):
        sums = np.stack([self._states(re.findall(r"\w+", q)).sum(axis=0) for q in questions])
        return QuestionVectors(sums, sums)

    def score_words(self, texts, *, prompt, words):
        """A word is as likely as it is like the text."""
        products = (
            np.stack([t.states.mean(axis=0) for t in self.encode_tokens(texts)])
            @ self._states([w.strip() for w in words]).T
        )
        return (products - np.logaddexp.reduce(products, axis=1, keepdims=True)).astype(np.float32)

    def tune_pairs(self, sets, *, layers, epochs, seed):
        """Learn between which similarities the classes lie."""
        if not layers or not epochs:
            raise ValueError
        pairs, labels = sets[-1]
        alike = self._alike(pairs)
        middle = (alike[np.array(labels) == 1].mean() + alike[np.array(labels) == 0].mean()) / 2
        return lambda asked: (self._alike(asked) - middle).astype(np.float32)

    def tune_classes(self, marked, *, classes, start, epochs, seed):
        """Learn the mean state of each class."""
        sums = (
            np.zeros((classes, self.dim), np.float32) if start is None else start.astype(np.float32)
        )
        for one in marked:
            for (a, b), kind in zip(one.spans, one.classes, strict=True):
                sums[kind] += self._states([one.text[a:b]])[0]
        return lambda asked: [
            np.array(
                [int((sums @ self._states([one.text[a:b]])[0]).argmax()) for a, b in one.spans]
            )
            for one in asked
        ]

    def _alike(self, pairs):
        left, right = (self.encode([pair[side] for pair in pairs]) for side in (0, 1))
        return (
            np.einsum("nd,nd->n", left, right)
            / np.linalg.norm(left, axis=1)
            / np.linalg.norm(right, axis=1)
        )

    def _states(self, words, layer=-1):
        seeds = (
            zlib.crc32(f"{layer if layer >= 0 else ''}{word.lower()}".encode()) for word in words
        )
        return np.stack(
            [np.random.default_rng(seed).normal(size=self.dim) for seed in seeds]
        ).astype(np.float32)


@pytest.fixture
def encoder():
    return Words()


@pytest.fixture
def make_encoder():
    return Words


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Return a function that writes one split of a data set where the loader looks first."""
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))

    def _write(name, split, rows, *, names=None):
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        with gzip.open(folder / f"{split}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        if names:
            (folder / "features.json").write_text(
                json.dumps({column: {"names": values} for column, values in names.items()})
            )

    return _write
