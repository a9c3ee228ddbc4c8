"""Few-shot protocols that train the network, or start a classifier at question vectors.

Source: QuIP, tables 3 and 4: five splits of 16 pairs a class, or of 5 sentences a type; each begins
with the encoder's own weights.
A row of ``few-shot-ner/wnut17``: ``tokens`` ["The", "soldier", …], ``ner_tags`` [0, 0, …].
Run: ``bench run --model quip --task wnut17-start-standard,wnut17-start-question``; with a GPU
``wnut17-tuned-question,mrpc-tuned``.
Protocol: a tag's classifier weights start, or are drawn, to the unit vector of the question for its
type, or to none. Trained networks are trained whole, 200 epochs for tags (batches of 8, rate 2e-5
falling to 0, dropout 0.1 of states and attention weights) and 20 for pairs (batches of 16, rate
1e-5, dropout 0.1 of attention weights alone), and the last epoch counts; each split begins anew.
Where a network is trained for tags, sentences and questions begin with a space, as in the released
code; else texts are tokenised as in ``ner``.
Tasks that end in ``-leaking`` go on from split to split with one network, as the released code of
pairs does.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any, ClassVar, Literal, Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bench.data import Rows
from bench.embeddings import CachedEncoder
from bench.encoder import Encoder, QuestionEncoder, TokenEncoder
from bench.errors import UsageError
from bench.spans import Marked
from bench.task import NetworkTask, Scores
from bench.tasks.linear import classify_towards
from bench.tasks.ner import (
    FEW_SHOT,
    NER,
    Sentence,
    WordStates,
    entity_scores,
    questions,
    tag_sentences,
    training_states,
    word_spans,
    word_states,
)
from bench.tasks.paraphrase import ABOUT, SETS, SHOTS, FewShot, existing_layers, f1_scores
from bench.tasks.similarity import unit

Pair = tuple[str, str]
Labelled = tuple[Sequence[Pair], Sequence[int]]
"""Pairs, and for each 1 for a paraphrase or 0 for none."""
PairScorer = Callable[[Sequence[Pair]], NDArray[np.float32]]
"""Scores pairs, float32 (n,); positive means paraphrase."""
Marker = Callable[[Sequence[Marked]], list[NDArray[np.int64]]]
"""Gives the class of each word of each text; -1 for a word that was truncated."""


@runtime_checkable
class TunableEncoder(TokenEncoder, Protocol):
    """A token encoder that can be fine-tuned on a few examples.

    What is trained is a copy: the encoder stays as it is.
    """

    def tune_pairs(
        self, sets: Sequence[Labelled], *, layers: Sequence[int], epochs: int, seed: int
    ) -> PairScorer:
        """Train a copy of the network to separate pairs by BERTScore, and return what scores pairs.

        Args:
            sets: Training pairs. Several sets follow one another on one copy, each with a
                classifier of its own; the last one's scores.
            layers: Layers whose BERTScore is a feature each, counted from the last, which is -1.
            epochs: How often each pair is seen.
            seed: Random seed.
        """
        ...

    def tune_classes(
        self,
        marked: Sequence[Marked],
        *,
        classes: int,
        start: NDArray[np.float32] | None,
        epochs: int,
        seed: int,
    ) -> Marker:
        """Train a copy of the network with a linear classifier of words, and return both.

        Args:
            marked: Training texts with their words and their classes.
            classes: Number of classes.
            start: The classifier's weights at first, float32 (classes, dim); None for random ones.
            epochs: How often each text is seen.
            seed: Random seed.
        """
        ...


@runtime_checkable
class TunableQuestionEncoder(TunableEncoder, QuestionEncoder, Protocol):
    """A question encoder that can be fine-tuned on a few examples."""


_Start = NDArray[np.float32] | None

Draws = tuple[list[Sentence], list[list[Sentence]]]
"""Test sentences, and training sets."""


@dataclass(frozen=True, kw_only=True)
class StartedNER(NER):
    """Entity F1 of a linear tagger that starts from questions or from nothing.

    Attributes:
        initial: "question" or "standard".
        epochs: How often the network sees each training sentence; 0 leaves it frozen, and the
            tagger is drawn to where it starts.
        questions: JSON file with a question for each type, where the usual ones do not do.
    """

    initial: Literal["question", "standard"] = "question"
    epochs: int = 0
    questions: str = ""

    def __post_init__(self) -> None:
        """Refuse a layer for a network that is trained.

        Raises:
            UsageError: There are epochs, and a layer that is not the last one.
        """
        super().__post_init__()
        if self.epochs and self.layer != -1:
            raise UsageError(
                f"{self.name} trains the network through its last layer, got layer {self.layer}: "
                "leave the layer out"
            )

    @property
    def version(self) -> int:  # type: ignore[override]
        """Raised as of every task, and once more for what trained networks score."""
        return 5 if self.epochs else 3

    @property
    def readout(self) -> str:
        """Which vectors are read, with the layer where it is not the last one."""
        vectors = "tuned" if self.epochs else super().readout
        return vectors + (" from questions" if self.initial == "question" else "")

    @property
    def needs(self) -> type[Encoder]:  # type: ignore[override]
        """The protocol an encoder must satisfy."""
        if self.initial == "question":
            return TunableQuestionEncoder if self.epochs else QuestionEncoder
        return TunableEncoder if self.epochs else TokenEncoder

    def measure(self, encoder: CachedEncoder, *, seed: int) -> Scores:
        """Return ``f1``, ``precision`` and ``recall``, with a repeat for each training set."""
        test, draws = self.load(seed)
        sentences = [*self.test.load(), *chain(*draws)]
        tags = sorted(set(chain.from_iterable(sentence.tags for sentence in sentences)))
        start = None
        if self.initial == "question":
            asked = questions([tag[2:] or "O" for tag in tags], self.questions)
            vectors = encoder.encode_questions([self._lead + text for text in asked])
            start = unit(vectors.start)
        tag = self._tag_tuned if self.epochs else self._tag_frozen
        return entity_scores([s.tags for s in test], tag(encoder, (test, draws), tags, start))

    def _tag_tuned(
        self, encoder: CachedEncoder, sets: Draws, tags: list[str], start: _Start
    ) -> list[list[list[str]]]:
        test, draws = sets
        tunable = cast("TunableEncoder", encoder.inner)
        number = {tag: i for i, tag in enumerate(tags)}
        asked = [self._mark(sentence) for sentence in test]
        repeats = []
        for i, draw in enumerate(draws):
            marked = []
            for sentence in draw:
                classes = [number[tag] for tag in sentence.tags]
                marked.append(self._mark(sentence)._replace(classes=classes))
            find = tunable.tune_classes(
                marked, classes=len(tags), start=start, epochs=self.epochs, seed=i
            )
            encoder.count([one.text for one in (*marked, *asked)])
            repeats.append([_names(tags, classes) for classes in find(asked)])
        return repeats

    def _tag_frozen(
        self, encoder: CachedEncoder, sets: Draws, tags: list[str], start: _Start
    ) -> list[list[list[str]]]:
        test, draws = sets
        states = word_states(encoder, chain(test, *draws), layer=self.layer)
        return [
            tag_sentences(test, states, partial(_tag, draw, states, tags, start)) for draw in draws
        ]

    @property
    def _lead(self) -> str:
        """What is put before each text: a space, as the released code does where it trains."""
        return " " if self.epochs else ""

    def _mark(self, sentence: Sentence) -> Marked:
        n = len(self._lead)
        spans = [(begin + n, end + n) for begin, end in word_spans(sentence.words)]
        return Marked(self._lead + sentence.text, spans)


def _names(tags: list[str], classes: NDArray[np.int64]) -> list[str]:
    return [tags[number] if number >= 0 else "O" for number in classes.tolist()]


def _tag(
    draw: Sequence[Sentence],
    states: WordStates,
    tags: list[str],
    start: _Start,
    x: NDArray[np.float32],
) -> NDArray[np.str_]:
    seen, names = training_states(draw, states)
    origin = np.zeros((len(tags), x.shape[1]), np.float32) if start is None else start
    return np.array(tags)[classify_towards(seen, np.searchsorted(tags, names), x, origin)]


@dataclass(frozen=True, kw_only=True)
class TunedFewShot(FewShot):
    """F1 of paraphrases after training the network with a classifier on BERTScore F.

    Attributes:
        epochs: How often each training pair is seen.
        leaking: Whether each split goes on with the network of the one before it, so that it has
            also learnt from other splits' pairs.

    Source:
        QuIP, table 3: 20 epochs, the last one counts; random numbers begin anew with each split,
        at the run's seed, 0 in the released code. That code leaks, so the paper's numbers may.
    """

    epochs: int = 20
    leaking: bool = False
    version: ClassVar[int] = 3
    readout: ClassVar[str] = "tuned"
    needs: ClassVar[type[Encoder]] = TunableEncoder  # type: ignore[type-abstract]

    def measure(self, encoder: CachedEncoder, *, seed: int) -> Scores:
        """Return ``f1`` of the positive class and ``accuracy``, a repeat for each split."""
        tunable = cast("TunableEncoder", encoder.inner)
        (pairs, gold), *sets = (self._labelled(rows) for rows in self.load(seed))
        layers, answers = existing_layers(encoder, self.layers), []
        for i in range(len(sets)):
            some = sets[0 if self.leaking else i : i + 1]
            score = tunable.tune_pairs(some, layers=layers, epochs=self.epochs, seed=seed)
            for asked, _ in (*some, (pairs, gold)):
                encoder.count(list(chain(*asked)))
            answers.append(score(pairs) > 0)
        return f1_scores(np.asarray(gold), answers)

    def _labelled(self, rows: Rows) -> Labelled:
        left, right, labels = (rows[column] for column in self.columns)
        return list(zip(left, right, strict=True)), [int(label) for label in labels]


def _tuned_pairs(name: str) -> tuple[NetworkTask, ...]:
    task = TunedFewShot(
        f"{name}-tuned",
        **SETS[name],
        **SHOTS[name],
        about=f"{ABOUT[name]}; the network trained on 16 a class",
    )
    about = f"{task.about}, split after split"
    return task, replace(task, name=f"{task.name}-leaking", leaking=True, about=about)


def _started(name: str, *, about: str, **sets: Any) -> list[NetworkTask]:  # noqa: ANN401
    tasks: list[NetworkTask] = []
    for what, epochs, how in (("start", 0, "frozen"), ("tuned", 200, "trained whole")):
        for initial, origin in _INITIAL:
            weights = f"{about}; {how}, the tagger's weights from {origin}"
            label = f"{name}-{what}-{initial}"
            tasks.append(StartedNER(label, **sets, initial=initial, epochs=epochs, about=weights))
    return tasks


_INITIAL: tuple[tuple[Literal["question", "standard"], str], ...] = (
    ("question", "questions"),
    ("standard", "nothing"),
)

TASKS = (
    *chain(*map(_tuned_pairs, SHOTS)),
    *chain(*(_started(name, **sets) for name, sets in FEW_SHOT.items())),
)
"""The few-shot tasks that train or start a classifier, to be asked for by name."""
