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
TEXTS = [f"{sound} {animal} {i}" for i in range(6) for animal in ANIMALS for sound in SOUNDS]


@dataclass(frozen=True)
class Knowing:
    """Answers with the word that the instruction asks for; each direction is a word."""

    version: ClassVar[int] = 1
    follows_instructions: ClassVar[bool] = True

    def answer(self, texts, *, instruction=""):
        return [text.split()[0 if instruction == "sound?" else 1] for text in texts]

    def encode(self, texts, *, instruction=""):
        noise = np.array([[int(text.split()[2]) / 100] for text in texts], np.float32)
        known = np.array(
            [
                [word == answer for word in ANIMALS + SOUNDS]
                for answer in self.answer(texts, instruction=instruction)
            ]
        )
        return np.hstack([known.astype(np.float32), noise])

    def read_words(self, vectors, origin, n):
        return [
            ["the", *((ANIMALS + SOUNDS)[i] for i in (-row[:6]).argsort(kind="stable"))][:n]
            for row in vectors - origin
        ]


def groupings(encoder, texts=TEXTS, instructions=("",), **settings):
    return cluster_texts(cached(encoder, Vectors(None)), texts, instructions, **settings)


def test_each_instruction_gives_its_own_groups_named_by_its_answers_and_directions():
    assert isinstance(Knowing(), AnsweringEncoder)
    assert isinstance(Knowing(), ReadableEncoder)
    animals, sounds = groupings(Knowing(), instructions=("animal?", "sound?"))
    assert sorted(cluster.name[0] for cluster in animals.clusters) == ["cat", "cow", "dog", "owl"]
    assert sorted(cluster.words["head"][0] for cluster in animals.clusters) == [
        "cat",
        "cow",
        "dog",
        "owl",
    ]
    assert {cluster.words["texts"][0] for cluster in animals.clusters} == set(ANIMALS)
    assert agreement(animals, sounds) < 0.7
    assert agreement(animals, animals) == pytest.approx(1)
    (sounds,) = groupings(Knowing(), instructions=("sound?",), k=2)
    assert sorted(cluster.name[0] for cluster in sounds.clusters) == ["loud", "soft"]


def test_the_number_of_clusters_is_the_one_with_the_best_silhouette():
    (found,) = groupings(Knowing(), instructions=("animal?",))
    assert len(found.clusters) == 4 == max(found.silhouettes, key=found.silhouettes.get)
    assert groupings(Knowing(), k=5)[0].silhouettes == {}


def test_every_text_is_in_one_cluster_and_the_largest_comes_first():
    (found,) = groupings(Hashing(), k=5)
    assert sorted(i for cluster in found.clusters for i in cluster.members) == list(
        range(len(TEXTS))
    )
    sizes = [len(cluster.members) for cluster in found.clusters]
    assert sizes == sorted(sizes, reverse=True)
    assert all(
        found.assigned[i] == number
        for number, cluster in enumerate(found.clusters)
        for i in cluster.members
    )


def test_an_encoder_that_cannot_answer_has_key_words_of_the_texts():
    (found,) = groupings(Hashing(), k=4)
    assert found.answers == ()
    assert all(set(cluster.words) == {"texts"} for cluster in found.clusters)
    assert {cluster.name[0] for cluster in found.clusters} <= {*ANIMALS, *SOUNDS}


def test_members_come_nearest_to_the_centre_first():
    (found,) = groupings(Hashing(), k=3)
    points = directions(Hashing().encode(TEXTS))
    for cluster in found.clusters:
        inside = points[list(cluster.members)]
        distances = np.linalg.norm(inside - inside.mean(axis=0), axis=1)
        assert (np.diff(distances) > -1e-6).all()


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
    found = find_key_words(
        [["the user wants a bill", "a bill"], ["the user wants to fly", "don't fly away"]],
        3,
        stop_words(),
    )
    assert [words[0] for words in found] == ["bill", "fly"]
    assert (
        "user"
        not in find_key_words(
            [["the user wants a bill"], ["the user flies"]],
            3,
            stop_words("What does the user want?"),
        )[1]
    )
    assert not {"the", "don", "to"} & {word for words in found for word in words}


def test_a_word_that_most_groups_share_and_a_second_form_of_a_word_are_no_key_words():
    groups = [
        [*["information"] * 9, "permit", "permits"],
        ["information", "roof"],
        ["information", "heating"],
        ["garden", "walls"],
    ]
    assert find_key_words(groups, 3, stop_words()) == [
        ("permit",),
        ("roof",),
        ("heating",),
        ("garden", "walls"),
    ]
    assert find_key_words([["yes"], ["yes"], ["yes", "garden"], ["fence"]], 3, stop_words()) == [
        ("yes",),
        ("yes",),
        ("garden",),
        ("fence",),
    ]


def test_words_of_the_head_are_kept_where_the_texts_have_them():
    head = ["rotations", "Raspberries", "Roof", "roofs", "deduction", "the", "permits"]
    texts = ["What is the ROT deduction?", "Is a permit needed for roofs?"]
    assert keep_own_words(head, texts, {"the"}) == ("roof", "deduction", "permits")


def test_groups_without_words_have_no_key_words():
    assert find_key_words([["!"], ["the"]], 3, stop_words()) == [(), ()]
    assert find_key_words([["alone in a group"]], 3, stop_words("Alone?")) == [("group",)]
