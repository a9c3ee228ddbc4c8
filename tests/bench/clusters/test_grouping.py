"""Clusters of made texts whose groups are known."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from adapters.baseline.hashing import Hashing
from bench.clusters import agreement, cluster_texts
from bench.clusters.grouping import AnsweringEncoder, ReadableEncoder, directions
from bench.clusters.keywords import find_key_words, keep_own_words, stop_words
from bench.embeddings import cached
from bench.errors import UsageError
from bench.vectors import Vectors

ANIMALS, SOUNDS = ("cat", "dog", "cow", "owl"), ("loud", "soft")
WORDS = ANIMALS + SOUNDS
TEXTS = [f"{sound} {animal} {i}" for i in range(6) for animal in ANIMALS for sound in SOUNDS]


@dataclass(frozen=True)
class Knowing:
    """Answers with the word that the instruction asks for; each direction is a word."""

    version: ClassVar[int] = 1
    follows_instructions: ClassVar[bool] = True

    def answer(self, texts, *, instruction=""):
        return [text.split()[0 if instruction == "sound?" else 1] for text in texts]

    def encode(self, texts, *, instruction=""):
        rows = np.zeros((len(texts), 7), np.float32)
        answers = self.answer(texts, instruction=instruction)
        for row, text, answer in zip(rows, texts, answers, strict=True):
            row[WORDS.index(answer)] = 1
            row[6] = int(text.split()[2]) / 100
        return rows

    def read_words(self, vectors, origin, n):
        orders = (origin - vectors)[:, :6].argsort(kind="stable")
        return [["the", *(WORDS[i] for i in order)][:n] for order in orders]


@dataclass(frozen=True)
class Coarse(Hashing):
    """Two vectors for all texts."""

    def encode(self, texts, *, instruction=""):
        return np.array([[1, 2 + len(text) % 2] for text in texts], np.float32)


def groupings(encoder, texts=TEXTS, instructions=("",), **settings):
    return cluster_texts(cached(encoder, Vectors(None)), texts, instructions, **settings)


def test_each_instruction_gives_its_own_groups_named_by_its_answers_and_directions():
    assert isinstance(Knowing(), AnsweringEncoder)
    assert isinstance(Knowing(), ReadableEncoder)
    animals, sounds = groupings(Knowing(), instructions=("animal?", "sound?"))
    assert len(animals.clusters) == 4 == max(animals.silhouettes, key=animals.silhouettes.get)
    assert sorted(cluster.name[0] for cluster in animals.clusters) == sorted(ANIMALS)
    for words in ("head", "texts"):
        assert {cluster.words[words][0] for cluster in animals.clusters} == {*ANIMALS}
    assert agreement(animals, sounds) < 0.7
    assert agreement(animals, animals) == pytest.approx(1)
    (sounds,) = groupings(Knowing(), instructions=("sound?",), k=2)
    assert sorted(cluster.name[0] for cluster in sounds.clusters) == ["loud", "soft"]
    assert sounds.silhouettes == {}


def test_every_text_is_in_one_cluster_the_largest_first_and_members_nearest_first():
    (found,) = groupings(Hashing(), k=5)
    assert found.answers == ()  # this encoder cannot answer: it has key words of the texts
    points, seen = directions(Hashing().encode(TEXTS)), []
    for number, cluster in enumerate(found.clusters):
        members = list(cluster.members)
        assert {*found.assigned[members]} == {number}
        inside = points[members]
        distances = np.linalg.norm(inside - inside.mean(axis=0), axis=1)
        assert (np.diff(distances) > -1e-6).all()
        assert set(cluster.words) == {"texts"}
        assert cluster.name[0] in WORDS
        seen += members
    assert sorted(seen) == list(range(len(TEXTS)))
    sizes = [len(cluster.members) for cluster in found.clusters]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("n", [2, 3, 9, 10])
def test_few_texts_are_grouped_too(n):
    (found,) = groupings(Hashing(), TEXTS[:n])
    assert found.places.shape == (n, 2)
    assert np.isfinite(found.places).all()
    assert len(found.clusters) >= 2


@pytest.mark.parametrize(
    ("encoder", "texts", "k", "sizes"),
    [
        (Hashing(), ["a"] * 30 + ["b"] * 20, 2, [30, 20]),  # texts that occur many times
        (Coarse(), [str(10**i) for i in range(12)], 4, [6, 6]),  # vectors that coincide
    ],
)
def test_equal_texts_and_vectors_make_no_extra_cluster(encoder, texts, k, sizes):
    (found,) = groupings(encoder, texts, k=k)
    assert [len(cluster.members) for cluster in found.clusters] == sizes
    assert np.isfinite(found.places).all()


@pytest.mark.parametrize(
    ("texts", "k"), [(["one"], 0), (["one"] * 5, 0), (["one", "two"], 3), (TEXTS, 49)]
)
def test_more_clusters_than_different_texts_are_an_error(texts, k):
    with pytest.raises(UsageError, match="different texts"):
        groupings(Hashing(), texts, k=k)


@pytest.mark.parametrize(
    ("groups", "question", "expected"),
    [
        ("the user wants a bill; a bill | the user wants to fly; don't fly", "", "bill | fly"),
        (
            "the user wants a bill | the user flies",
            "What does the user want?",
            "bill wants | flies",
        ),
        # Neither what most groups share, nor a second form of a word.
        (
            "x; x; x; permit; permits | x; roof | x; heat | walls",
            "",
            "permit | roof | heat | walls",
        ),
        ("yes | yes | yes; garden | fence", "", "yes | yes | garden | fence"),
        ("! | the", "", " | "),
        ("alone in a group", "Alone?", "group"),
        ("किताब पढ़ो; किताब लाओ | पानी पियो; पानी लाओ", "", "किताब पढ़ो | पानी पियो"),
        ("İstanbul 1️⃣ | Ankara 2️⃣", "", "i̇stanbul | ankara"),
    ],
)
def test_key_words_tell_a_group_from_the_others(groups, question, expected):
    texts = [group.replace("x", "information").split("; ") for group in groups.split(" | ")]
    found = find_key_words(texts, 3, stop_words(question))
    assert [" ".join(words) for words in found] == expected.split(" | ")


def test_words_of_the_head_are_kept_where_the_texts_have_them():
    head = ["rotations", "Raspberries", "Roof", "roofs", "deduction", "the", "permits", "whats"]
    texts = ["What is the ROT deduction?", "Is a permit needed for roofs?"]
    assert keep_own_words(head, texts, {"the", "what"}) == ("roof", "deduction", "permits")
