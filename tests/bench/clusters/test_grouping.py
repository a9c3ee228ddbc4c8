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


def test_texts_that_occur_many_times_count_as_often_and_make_no_extra_cluster():
    (found,) = groupings(Hashing(), ["a"] * 30 + ["b"] * 20, k=2)
    assert [len(cluster.members) for cluster in found.clusters] == [30, 20]
    assert np.isfinite(found.places).all()


@pytest.mark.parametrize(
    ("texts", "k"), [(["one"], 0), (["one"] * 5, 0), (["one", "two"], 3), (TEXTS, 49)]
)
def test_more_clusters_than_different_texts_are_an_error(texts, k):
    with pytest.raises(UsageError, match="different texts"):
        groupings(Hashing(), texts, k=k)


def test_vectors_that_coincide_make_fewer_clusters_without_a_warning():
    @dataclass(frozen=True)
    class Coarse(Hashing):
        def encode(self, texts, *, instruction=""):
            return np.array([[1, 2 + len(text) % 2] for text in texts], np.float32)

    (found,) = groupings(Coarse(), [str(10**i) for i in range(12)], k=4)
    assert len(found.clusters) == 2


def test_key_words_tell_a_group_from_the_others_and_leave_out_what_says_nothing():
    groups = [["the user wants a bill", "a bill"], ["the user wants to fly", "don't fly away"]]
    found = find_key_words(groups, 3, stop_words())
    assert [words[0] for words in found] == ["bill", "fly"]
    assert not {"the", "don", "to"} & {*found[0], *found[1]}
    groups = [["the user wants a bill"], ["the user flies"]]
    asked = find_key_words(groups, 3, stop_words("What does the user want?"))
    assert "user" not in asked[1]


def test_a_word_that_most_groups_share_and_a_second_form_of_a_word_are_no_key_words():
    shared = ["information"]
    groups = [[*shared * 9, "permit", "permits"], [*shared, "roof"], [*shared, "heating"]]
    groups.append(["garden", "walls"])
    expected = [("permit",), ("roof",), ("heating",), ("garden", "walls")]
    assert find_key_words(groups, 3, stop_words()) == expected
    groups = [["yes"], ["yes"], ["yes", "garden"], ["fence"]]
    expected = [("yes",), ("yes",), ("garden",), ("fence",)]
    assert find_key_words(groups, 3, stop_words()) == expected


def test_words_of_the_head_are_kept_where_the_texts_have_them():
    head = ["rotations", "Raspberries", "Roof", "roofs", "deduction", "the", "permits", "whats"]
    texts = ["What is the ROT deduction?", "Is a permit needed for roofs?"]
    assert keep_own_words(head, texts, {"the", "what"}) == ("roof", "deduction", "permits")


def test_groups_without_words_have_no_key_words():
    assert find_key_words([["!"], ["the"]], 3, stop_words()) == [(), ()]
    assert find_key_words([["alone in a group"]], 3, stop_words("Alone?")) == [("group",)]
