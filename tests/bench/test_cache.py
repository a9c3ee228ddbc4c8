"""The store of vectors and the encoder that looks into it first."""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.cache import cached
from bench.encoder import Embeddings, Item, Marked, TokenStates, one_side
from bench.errors import EncodingError
from bench.overlap import Runs
from bench.vectors import Vectors


def _row(text: str, dim: int) -> np.ndarray:
    return (
        np.random.default_rng(list(text.encode("utf-8", "surrogatepass")))
        .standard_normal(dim)
        .astype(np.float32)
    )


@dataclass(frozen=True)
class Counting:
    """Gives every text its own random vector and remembers what it was asked."""

    dim: int = 8
    asked: list[tuple[str, str]] = field(default_factory=list, compare=False)
    version: ClassVar[int] = 1
    follows_instructions: ClassVar[bool] = True

    def encode(self, texts: Sequence[str], *, instruction: str = "") -> Embeddings:
        self.asked.extend((instruction, text) for text in texts)
        return np.stack([_row(instruction + "\0" + text, self.dim) for text in texts])


@dataclass(frozen=True)
class Deaf(Counting):
    """Ignores the instruction."""

    follows_instructions: ClassVar[bool] = False

    def encode(self, texts: Sequence[str], *, instruction: str = "") -> Embeddings:
        return super().encode(texts)


@dataclass(frozen=True)
class TwoSided(Counting):
    """Reads queries and documents in different ways."""

    side: str = ""

    def for_side(self, side: str) -> "TwoSided":
        return replace(self, side=side)

    def encode(self, texts: Sequence[str], *, instruction: str = "") -> Embeddings:
        self.asked.extend((self.side, text) for text in texts)
        return np.stack([_row(self.side + "\0" + text, self.dim) for text in texts])


@dataclass(frozen=True)
class WithTokens(Deaf):
    def encode_tokens(self, texts: Sequence[str], *, layer: int = -1) -> list[TokenStates]:
        return [
            TokenStates(
                np.full((1, 2), np.nan if "bad" in t else 1.0, np.float32),
                np.array([[0, 3]], np.int32),
            )
            for t in texts
        ]


@given(st.lists(st.text(max_size=20), max_size=30), st.text(max_size=5))
def test_any_texts_come_back_as_the_encoder_gives_them(texts, instruction):
    plain, store = Counting(), Vectors(None)
    texts = [*texts, "one", "two"]
    assert np.array_equal(
        cached(Counting(), store).encode(texts, instruction=instruction),
        plain.encode(texts, instruction=instruction),
    )


def test_equal_texts_are_encoded_once_and_a_second_process_encodes_nothing(tmp_path):
    first = Counting()
    vectors = Vectors(tmp_path)
    expected = cached(first, vectors).encode(["a", "b", "a"], instruction="i")
    vectors.close()
    assert sorted(first.asked) == [("i", "a"), ("i", "b")]
    second = Counting()
    assert np.array_equal(
        cached(second, Vectors(tmp_path)).encode(["a", "b", "a"], instruction="i"), expected
    )
    assert second.asked == []


def test_instruction_and_text_are_kept_apart():
    encoder = Counting()
    wrapped = cached(encoder, Vectors(None))
    wrapped.encode(["bc", "x"], instruction="a")
    wrapped.encode(["c", "x"], instruction="ab")
    assert len(encoder.asked) == 4


def test_an_encoder_that_ignores_instructions_encodes_a_text_once_for_all_of_them():
    encoder = Deaf()
    wrapped = cached(encoder, Vectors(None))
    wrapped.encode(["a", "b"], instruction="one")
    wrapped.encode(["a", "b"], instruction="two")
    assert len(encoder.asked) == 2


def test_encoders_with_other_settings_never_share_a_vector():
    vectors = Vectors(None)
    cached(Counting(dim=8), vectors).encode(["a", "b"])
    other = Counting(dim=9)
    assert cached(other, vectors).encode(["a", "b"]).shape == (2, 9)
    assert len(other.asked) == 2


def test_queries_and_documents_never_share_a_vector_and_count_for_one_task():
    encoder = TwoSided()
    wrapped = cached(encoder, Vectors(None))
    query, document, text = (
        one_side(wrapped, side).encode(["a"]) for side in ("query", "document", None)
    )
    one_side(wrapped, "query").encode(["a"])
    assert not (query == document).any()
    assert not (query == text).any()
    assert encoder.asked == [("query", "a"), ("document", "a"), ("", "a")]
    assert (wrapped.tally.asked, wrapped.cost.forward_texts) == (4, 3)
    assert one_side(cached(Counting(), Vectors(None)), "query").encode(["a"]).shape == (1, 8)


def test_the_plan_is_encoded_in_one_call_and_then_read():
    encoder = Counting()
    wrapped = cached(encoder, Vectors(None))
    wrapped.add(wrapped.missing([Item("a"), Item("b"), Item("a"), Item("c")]))
    wrapped.encode(["c", "a"])
    assert [text for _, text in encoder.asked] == ["a", "b", "c"]


def test_what_a_task_asked_for_is_tallied():
    wrapped = cached(Counting(), Vectors(None))
    wrapped.encode(["a", "b", "a", "c"])
    assert wrapped.tally.summary() == {
        "asked": 4,
        "distinct": 3,
        "repeated_share": 0.25,
        "truncated_share": 0.0,
    }
    wrapped.begin()
    assert wrapped.tally.summary()["asked"] == 0


@dataclass(frozen=True)
class Reading(WithTokens):
    """Reads texts in every way there is, and was trained on one."""

    def runs(self):
        return Runs.of(["seen"])

    def encode_long(self, texts):
        return self.encode_tokens(texts)

    def score_words(self, texts, *, prompt, words):
        return np.zeros((len(texts), len(words)), np.float32)

    def tune_pairs(self, sets, *, layers, epochs, seed):
        return lambda asked: np.zeros(len(asked), np.float32)

    def tune_classes(self, marked, *, classes, start, epochs, seed):
        return lambda asked: [np.zeros(len(one.spans), np.int64) for one in asked]


@pytest.mark.parametrize(
    ("read", "share"),
    [
        (lambda e: e.encode(["seen", "new"]), 0.5),
        (lambda e: e.encode_tokens(["seen", "new"]), 0.5),
        (lambda e: e.encode_long(["seen", "new"]), 0.5),
        (lambda e: e.score_words(["seen", "new"], prompt="", words=["a"]), 0.5),
        (
            lambda e: e.tune_pairs([([("a", "b")], [1])], layers=(-1,), epochs=1, seed=0)(
                [("seen", "new")]
            ),
            0.25,
        ),
        (
            lambda e: e.tune_pairs(
                [([("seen", "b")], [1]), ([("a", "c")], [1])], layers=(-1,), epochs=1, seed=0
            ),
            0.25,
        ),
        (
            lambda e: e.tune_classes([Marked("seen", [])], classes=2, start=None, epochs=1, seed=0)(
                [Marked("new", [])]
            ),
            0.5,
        ),
    ],
)
def test_texts_count_for_the_overlap_however_they_are_read(read, share):
    wrapped = cached(Reading(), Vectors(None))
    assert "overlap_share" not in wrapped.summary()  # nothing was read: not measured
    read(wrapped)
    assert wrapped.summary()["overlap_share"] == share
    assert "overlap_share" not in cached(Counting(), Vectors(None)).summary()


@pytest.mark.parametrize(
    ("fault", "word"),
    [(np.nan, "finite"), (np.inf, "finite"), (0.0, "constant"), (3.0, "constant")],
)
def test_a_broken_vector_is_an_error_that_names_the_text(fault, word):
    class Broken(Counting):
        def encode(self, texts, *, instruction=""):
            rows = super().encode(texts)
            rows[texts.index("culprit")] = fault
            return rows

    with pytest.raises(EncodingError, match="culprit") as error:
        cached(Broken(), Vectors(None)).encode(["fine", "culprit", "good"])
    assert word in str(error.value)


def test_one_vector_for_different_texts_is_an_error_that_names_two():
    class Collapsed(Counting):
        def encode(self, texts, *, instruction=""):
            return np.tile(np.arange(4, dtype=np.float32), (len(texts), 1))

    wrapped = cached(Collapsed(), Vectors(None))
    assert wrapped.encode(["same", "same"]).shape == (2, 4)
    with pytest.raises(EncodingError, match=r"'left' and 'right'"):
        wrapped.encode(["left", "right"])


def test_a_broken_token_state_is_an_error_that_names_the_text():
    wrapped = cached(WithTokens(), Vectors(None))
    assert len(wrapped.encode_tokens(["fine"])) == 1
    with pytest.raises(EncodingError, match="bad one"):
        wrapped.encode_tokens(["fine", "bad one"])


def test_the_encoder_unused_for_longest_makes_room(tmp_path):
    texts = [str(i) for i in range(1500)]
    for dim in (100, 101, 100, 102):  # each about 1 MB, of which the limit holds two
        vectors = Vectors(tmp_path, limit=5 << 19)  # as a new process
        cached(Counting(dim=dim), vectors).encode(texts)
        vectors.close()
    vectors = Vectors(tmp_path, limit=5 << 19)
    kept, gone = Counting(dim=100), Counting(dim=101)
    cached(kept, vectors).encode(texts)
    cached(gone, vectors).encode(texts)
    assert kept.asked == []  # written first, and read since
    assert len(gone.asked) == len(texts)


def test_an_encoder_larger_than_the_limit_is_kept_in_memory_and_right(tmp_path, caplog):
    encoder = Counting(dim=300)
    wrapped = cached(encoder, Vectors(tmp_path, limit=1 << 16))
    texts = [str(i) for i in range(200)]
    assert np.array_equal(wrapped.encode(texts), Counting(dim=300).encode(texts))
    assert "memory" in caplog.text


def test_a_cache_that_cannot_be_written_warns_and_the_vectors_are_right(tmp_path, caplog):
    (tmp_path / "file").write_text("not a folder")
    assert cached(Counting(), Vectors(tmp_path / "file" / "cache")).encode(["a", "b"]).shape == (
        2,
        8,
    )
    assert "cannot be written" in caplog.text


def _write(folder: Path, start: int) -> None:
    vectors = Vectors(folder)
    for i in range(start, start + 400, 20):
        cached(Counting(), vectors).encode([str(j) for j in range(i, i + 20)])


def test_two_processes_may_write_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_write, args=(tmp_path, start)) for start in (0, 200)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    wrapped = cached(Counting(), Vectors(tmp_path))
    texts = [str(i) for i in range(600)]
    assert wrapped.missing([Item(text) for text in texts]) == []
    assert np.array_equal(wrapped.encode(texts), Counting().encode(texts))


_FULL_DISK = """
import resource, sys
from pathlib import Path
from bench.cache import cached
from bench.vectors import Vectors
from tests.bench.test_cache import Counting
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 17, 1 << 17))  # every write past 128 kB fails, as on a full disk
texts = [str(i) for i in range(500)]
assert cached(Counting(dim=200), Vectors(Path(sys.argv[1]))).encode(texts).shape == (500, 200)
"""


def test_a_full_disk_warns_and_the_vectors_are_right(tmp_path):
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", _FULL_DISK, str(tmp_path)],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "in memory only" in done.stderr
