"""Few-shot protocols that train the encoder's network, or begin a classifier at the vectors of questions.

Source: QuIP, tables 3 and 4: five splits of 16 pairs a class, or of 5 sentences a type; each begins with the encoder's own weights.
A row of ``few-shot-ner/wnut17``: ``tokens`` ["The", "soldier", …], ``ner_tags`` [0, 0, …].
Run: ``bench run --model quip --task wnut17-start-standard,wnut17-start-question``; with a GPU ``wnut17-tuned-question,mrpc-tuned``.
Protocol: a tag's classifier weights start, or are drawn, to the unit vector of the question for its type, or to none. Trained networks are
trained whole, 200 epochs for tags (batches of 8, rate 2e-5 falling to 0, dropout 0.1 of states and attention weights) and 20 for pairs
(batches of 16, rate 1e-5, dropout 0.1 of attention weights alone), and the last epoch counts; each split begins anew. Where a network
is trained for tags, sentences and questions begin with a space, as in the released code; else texts are tokenised as in ``ner``.
Tasks that end in ``-leaking`` go on from split to split with one network, as the released code of pairs does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Literal, cast

import numpy as np
from numpy.typing import NDArray

from bench.data import Rows
from bench.encoder import (
    Encoder,
    Labelled,
    Marked,
    QuestionEncoder,
    TokenEncoder,
    TunableEncoder,
    TunableQuestionEncoder,
)
from bench.errors import UsageError
from bench.task import Score
from bench.tasks.linear import predicted_from
from bench.tasks.ner import (
    FEW_SHOT,
    NER,
    Sentence,
    Tagged,
    WordStates,
    drawn_of,
    entity_scores,
    places,
    questions,
    tagged,
    training,
    word_states,
)
from bench.tasks.paraphrase import FewShot, existing, f1_scores
from bench.tasks.similarity import unit


@dataclass(frozen=True)
class StartedNER(NER):
    """Entity F1 of a linear tagger that starts from questions or from nothing, on frozen token states or on a network trained with it.

    Attributes:
        initial: "question" or "standard".
        epochs: How often the network sees each training sentence; 0 leaves it frozen, and the tagger is drawn to where it starts.
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
        if self.epochs and self.layer != -1:
            raise UsageError(
                f"{self.name} trains the network through its last layer, got layer {self.layer}: leave the layer out"
            )

    @property
    def version(self) -> int:  # type: ignore[override]
        """Raised as of every task, and once more for what trained networks score."""
        return 5 if self.epochs else 3

    @property
    def readout(self) -> str:
        """Which vectors are read, with the layer where it is not the last one."""
        read = "tuned" if self.epochs else "tokens" + (f"@{self.layer}" if self.layer != -1 else "")
        return read + (" from questions" if self.initial == "question" else "")

    @property
    def needs(self) -> type[Encoder]:  # type: ignore[override]
        """The protocol an encoder must satisfy."""
        asking, still = (TunableQuestionEncoder, QuestionEncoder), (TunableEncoder, TokenEncoder)
        return (asking if self.initial == "question" else still)[not self.epochs]

    def evaluate(self, encoder: Encoder, *, seed: int) -> Mapping[str, Score]:
        """Return ``f1``, ``precision`` and ``recall`` of entities, with a repeat for each training set."""
        test, draws = self.sentences(seed)
        tags = sorted(
            {
                tag
                for part in (self.test.load(), *draws)
                for sentence in part
                for tag in sentence.tags
            }
        )
        start = None
        if self.initial == "question":
            kinds = [tag[2:] or "O" for tag in tags]
            texts = [self._lead + text for text in questions(kinds, self.questions)]
            asked = cast("QuestionEncoder", encoder).encode_questions(texts)
            start = unit(asked.start)
        find = self._tuned if self.epochs else self._frozen
        return entity_scores([s.tags for s in test], find(encoder, test, draws, tags, start))

    def _tuned(
        self,
        encoder: Encoder,
        test: Sequence[Sentence],
        draws: Sequence[Sequence[Sentence]],
        tags: list[str],
        start: "_Start",
    ) -> list[list[list[str]]]:
        tunable, number = cast("TunableEncoder", encoder), {tag: i for i, tag in enumerate(tags)}
        asked, made = [self._marked(s) for s in test], []
        for i, draw in enumerate(draws):
            marked = [
                self._marked(s)._replace(classes=[number[tag] for tag in s.tags]) for s in draw
            ]
            find = tunable.tune_classes(
                marked, classes=len(tags), start=start, epochs=self.epochs, seed=i
            )
            made.append(
                [[tags[c] if c >= 0 else "O" for c in found.tolist()] for found in find(asked)]
            )
        return made

    @property
    def _lead(self) -> str:
        """What stands before each text: the space that the released code's tokenizer puts there, whose network is trained."""
        return " " if self.epochs else ""

    def _marked(self, sentence: Sentence) -> Marked:
        n = len(self._lead)
        spans = [(begin + n, end + n) for begin, end in places(sentence.words)]
        return Marked(self._lead + sentence.text, spans)

    def _frozen(
        self,
        encoder: Encoder,
        test: Sequence[Sentence],
        draws: Sequence[Sequence[Sentence]],
        tags: list[str],
        start: "_Start",
    ) -> list[list[list[str]]]:
        sentences = [s for part in (test, *draws) for s in part]
        states = word_states(cast("TokenEncoder", encoder), sentences, layer=self.layer)
        return [tagged(test, states, partial(_tag, draw, states, tags, start)) for draw in draws]


_Start = NDArray[np.float32] | None


def _tag(
    draw: Sequence[Sentence],
    states: WordStates,
    tags: list[str],
    start: _Start,
    x: NDArray[np.float32],
) -> NDArray[np.str_]:
    seen, names = training(draw, states)
    origin = np.zeros((len(tags), x.shape[1]), np.float32) if start is None else start
    return np.array(tags)[predicted_from(seen, np.searchsorted(tags, names), x, origin)]


@dataclass(frozen=True)
class TunedFewShot(FewShot):
    """F1 of paraphrases after training the network with a classifier on BERTScore F at eight layers, for each split anew.

    Attributes:
        epochs: How often each training pair is seen.
        leaking: Whether each split goes on with the network of the one before it, so that it has also learnt from other splits' pairs.

    Source:
        QuIP, table 3: 20 epochs, the last one counts; random numbers begin anew with each split, at the run's seed, 0 in the released
        code. That code leaks, so the paper's numbers may.
    """

    epochs: int = 20
    leaking: bool = False
    version: ClassVar[int] = 3
    readout: ClassVar[str] = "tuned"
    needs: ClassVar[type[Encoder]] = TunableEncoder  # type: ignore[type-abstract]

    def evaluate(self, encoder: Encoder, *, seed: int) -> Mapping[str, Score]:
        """Return ``f1`` of the positive class and ``accuracy``, a repeat for each split."""
        tunable, (test, *train) = cast("TunableEncoder", encoder), self.splits()
        (pairs, gold), *sets = (self._labelled(rows) for rows in (test, *train))
        layers, found = existing(encoder, self.layers), []
        for i in range(len(sets)):
            score = tunable.tune_pairs(
                sets[0 if self.leaking else i : i + 1], layers=layers, epochs=self.epochs, seed=seed
            )
            found.append(score(pairs) > 0)
        return f1_scores(np.asarray(gold), found)

    def _labelled(self, rows: Rows) -> Labelled:
        left, right, labels = (rows[column] for column in self.columns)
        return list(zip(left, right, strict=True)), [int(label) for label in labels]


def _named(name: str, test: Tagged, sets: tuple[Tagged, ...], about: str) -> tuple[StartedNER, ...]:
    return tuple(
        StartedNER(
            f"{name}-{what}-{initial}", test, sets, drawn_of(sets), initial=initial, epochs=epochs,
            about=f"{about}; {words}, the tagger's weights from {'questions' if initial == 'question' else 'nothing'}",
        )
        for what, epochs, words in (("start", 0, "frozen"), ("tuned", 200, "trained whole"))
        for initial in _INITIAL
    )  # fmt: skip


_INITIAL: tuple[Literal["question"], Literal["standard"]] = ("question", "standard")

_PAIRS = (
    TunedFewShot(
        "mrpc-tuned", "nyu-mll/glue", "mrpc", "validation", "lm-bff/mrpc",
        about="MRPC, 408 pairs; the network trained on 16 a class",
    ),
    TunedFewShot(
        "qqp-tuned", "nyu-mll/glue", "qqp", "validation", "lm-bff/qqp", ("question1", "question2", "label"),
        about="QQP, 40,430 pairs; the network trained on 16 a class",
    ),
    TunedFewShot(
        "paws-wiki-tuned", "google-research-datasets/paws", "labeled_final", "test", "quip/paws-wiki-16shot-ids", numbered=True,
        about="PAWS-Wiki, 8,000 pairs; the network trained on 16 a class",
    ),
    TunedFewShot(
        "paws-qqp-tuned", "quip/paws-qqp", "", "dev_and_test", "quip/paws-qqp-16shot-ids", numbered=True,
        about="PAWS-QQP; the network trained on 16 a class",
    ),
)  # fmt: skip

TASKS = (
    *_PAIRS,
    *(
        replace(
            task,
            name=f"{task.name}-leaking",
            leaking=True,
            about=f"{task.about}, split after split",
        )
        for task in _PAIRS
    ),
    *(task for family in FEW_SHOT for task in _named(*family)),
)
"""The few-shot tasks that train or start a classifier, to be asked for by name."""
