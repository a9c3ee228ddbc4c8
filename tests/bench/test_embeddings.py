"""The store of vectors and the encoder that looks into it first."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.embeddings import cached
from bench.encoder import Embeddings, Item, TokenStates, select_side
from bench.errors import EncodingError
from bench.overlap import Ngrams
from bench.vectors import KEY, KeyIndex, Vectors, as_keys, first_places


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


_KEYS = st.lists(st.integers(0, 40).map(lambda i: bytes([i % 7, *([i // 7] * (KEY - 1))])))


@given(st.lists(_KEYS), _KEYS)
def test_an_index_finds_the_latest_number_of_each_key(added, wanted):
    index, expected = KeyIndex(), {}
    for keys in added:
        numbers = np.arange(len(keys), dtype=np.int32) + len(expected)
        index.add(as_keys(b"".join(keys)), numbers)
        expected.update(zip(keys, numbers.tolist(), strict=True))
    found = index.find(as_keys(b"".join(wanted)))
    assert found.tolist() == [expected.get(key, -1) for key in wanted]
    distinct = KeyIndex()
    for keys in [*added, wanted]:
        distinct.add_new(as_keys(b"".join(keys)))
    assert len(distinct) == len({*expected, *wanted})


@given(_KEYS)
def test_repeated_keys_are_found_where_they_first_appear(keys):
    first, equal = first_places(as_keys(b"".join(keys)))
    assert [keys[i] for i in first] == list(dict.fromkeys(keys))
    assert equal.tolist() == [keys.index(key) for key in keys]


@settings(max_examples=30)
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
        select_side(wrapped, side).encode(["a"]) for side in ("query", "document", None)
    )
    select_side(wrapped, "query").encode(["a"])
    assert not (query == document).any()
    assert not (query == text).any()
    assert encoder.asked == [("query", "a"), ("document", "a"), ("", "a")]
    assert (wrapped.tally.asked, wrapped.cost.forward_texts) == (4, 3)
    assert select_side(cached(Counting(), Vectors(None)), "query").encode(["a"]).shape == (1, 8)


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
        return Ngrams.of(["seen"])

    def encode_long(self, texts):
        return self.encode_tokens(texts)


@pytest.mark.parametrize("read", ["encode", "encode_tokens", "encode_long", "count"])
def test_texts_count_for_the_overlap_however_they_are_read(read):
    wrapped = cached(Reading(), Vectors(None))
    assert "overlap_share" not in wrapped.summary()  # nothing was read: not measured
    getattr(wrapped, read)(["seen", "new"])
    assert wrapped.summary()["overlap_share"] == 0.5
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
    for dim in (100, 101, 100, 102):  # each 632 kB, of which the limit holds two
        vectors = Vectors(tmp_path, limit=3 << 19)  # as a new process
        cached(Counting(dim=dim), vectors).encode(texts)
    vectors = Vectors(tmp_path, limit=3 << 19)
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


def _python(code: str, *arguments: object) -> subprocess.Popen:
    """Start another process; it never imports torch."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    code = f"from {__name__} import Counting, Path, Vectors, cached\nimport sys\n{code}"
    call = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(call, env=env, stderr=subprocess.PIPE, text=True)


def _files(folder: Path, suffix: str) -> list[Path]:
    return sorted(path for path in folder.rglob("*.*") if suffix in path.name)


_WRITER = """
folder, limit, dims, first, count = Path(sys.argv[1]), *map(int, sys.argv[2].split(","))
texts = [str(i) for i in range(first, first + count)]
for i in range(0, count, 20):
    for dim in range(dims, dims + 3):
        found = cached(Counting(dim), Vectors(folder, limit=limit)).encode(texts[: i + 20])
        assert (found == Counting(dim).encode(texts[: i + 20])).all()
"""


def test_two_processes_may_write_at_once(tmp_path):
    both = [_python(_WRITER, tmp_path, f"{1 << 30},8,{first},60") for first in (0, 60)]
    for process in both:
        _, told = process.communicate(timeout=60)
        assert process.returncode == 0, told
    wrapped = cached(Counting(), Vectors(tmp_path))
    texts = [str(i) for i in range(180)]
    assert len(wrapped.missing([Item(text) for text in texts])) == 60
    assert np.array_equal(wrapped.encode(texts), Counting().encode(texts))


def test_processes_with_different_limits_share_a_cache_and_the_smaller_limit_holds(tmp_path):
    limits = (
        60_000,
        30_000,
    )  # three encoders need 77 kB, so that each process drops what the other reads
    both = [_python(_WRITER, tmp_path, f"{limit},40,0,140") for limit in limits]
    for process in both:
        _, told = process.communicate(timeout=60)
        assert process.returncode == 0, told
    cached(Counting(), Vectors(tmp_path, limit=30_000)).encode(["one", "more"])
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.*")) <= 30_000


def test_what_is_dropped_between_planning_and_reading_is_encoded_again(tmp_path):
    texts = [str(i) for i in range(50)]
    encoder = Counting(dim=100)
    wrapped = cached(encoder, Vectors(tmp_path))
    wrapped.add(wrapped.missing([Item(text) for text in texts]))
    cached(Counting(dim=99), Vectors(tmp_path, limit=25_000)).encode(texts)
    assert np.array_equal(wrapped.encode(texts), Counting(dim=100).encode(texts))
    assert len(encoder.asked) == 2 * len(texts)
    assert np.array_equal(wrapped.encode(texts), Counting(dim=100).encode(texts))
    assert len(encoder.asked) == 2 * len(texts)


def test_the_limit_holds_after_every_write(tmp_path):
    vectors = Vectors(tmp_path, limit=200_000)
    for i in range(20):
        cached(Counting(dim=100 + i % 7), vectors).encode([f"{i} {j}" for j in range(100)])
        assert sum(path.stat().st_size for path in tmp_path.rglob("*.*")) <= 200_000


def test_a_process_killed_while_it_writes_leaves_whole_records_only(tmp_path):
    for seconds in (0.0, 0.03):
        process = _python(_WRITER, tmp_path, f"{1 << 30},8,0,100000")
        known = len(_files(tmp_path, ".vectors"))
        while len(_files(tmp_path, ".vectors")) < known + 3:
            assert process.poll() is None, process.stderr.read()
        time.sleep(seconds)
        process.kill()
        process.communicate()
        texts = [str(i) for i in range(100)]
        encoder = Counting()
        assert np.array_equal(
            cached(encoder, Vectors(tmp_path)).encode(texts), Counting().encode(texts)
        )
        assert len(encoder.asked) < len(texts)


TEXTS = ["a", "b", "c", "d", "e"]


@pytest.fixture
def damage(tmp_path):
    """Return what writes a store with the file of five texts as changed, and reads it."""
    cached(Counting(dim=4), Vectors(tmp_path)).encode(TEXTS)
    (path,) = _files(tmp_path, ".vectors")
    whole = path.read_bytes()

    def read(change) -> Counting:
        for other in _files(tmp_path, ""):
            other.unlink()
        path.write_bytes(change(whole))
        encoder = Counting(dim=4)
        expected = Counting(dim=4).encode(TEXTS)
        assert np.array_equal(cached(encoder, Vectors(tmp_path)).encode(TEXTS), expected)
        again = Counting(dim=4)
        assert np.array_equal(cached(again, Vectors(tmp_path)).encode(TEXTS), expected)
        assert again.asked == []
        return encoder

    read.size = len(whole)
    return read


def test_a_flipped_bit_anywhere_is_noticed_and_costs_at_most_its_file(damage):
    def flip(data: bytes, place: int) -> bytes:
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        return bytes(changed)

    for place in range(0, damage.size, 3):
        encoder = damage(lambda whole, place=place: flip(whole, place))
        assert len(encoder.asked) == (1 if place >= 16 else len(TEXTS))


def test_a_cut_or_longer_file_is_set_aside_with_one_line(damage, tmp_path, caplog):
    for size in range(0, damage.size, 5):
        caplog.clear()
        assert len(damage(lambda whole, size=size: whole[:size]).asked) == len(TEXTS)
        assert len(_files(tmp_path, ".damaged")) == len(caplog.records) == 1
    assert len(damage(lambda whole: whole + b"more").asked) == len(TEXTS)


def test_damaged_records_are_logged_once(tmp_path, caplog):
    cached(Counting(dim=4), Vectors(tmp_path)).encode(TEXTS)
    (path,) = _files(tmp_path, ".vectors")
    path.write_bytes(path.read_bytes()[:-40] + b"x" * 40)  # the last three of them
    wrapped = cached(Counting(dim=4), Vectors(tmp_path))
    for text in TEXTS:
        assert np.array_equal(wrapped.encode([text]), Counting(dim=4).encode([text]))
    assert len(caplog.records) == 1
    assert len(wrapped.inner.asked) == 3


def test_an_encoder_that_gives_another_dimension_than_the_cache_holds_is_an_error(tmp_path):
    @dataclass(frozen=True)
    class Changed(Counting):
        dim: int = field(default=8, compare=False)

    cached(Changed(8), Vectors(tmp_path)).encode(["a", "b"])
    with pytest.raises(EncodingError, match="raise its version"):
        cached(Changed(9), Vectors(tmp_path)).encode(["a", "c"])
    assert cached(Changed(9), Vectors(tmp_path)).encode(["a", "c"]).shape == (2, 9)


def test_exact_vectors_do_not_depend_on_what_the_store_held_before(tmp_path):
    class Rounding(Counting):
        def encode(self, texts, *, instruction=""):
            return super().encode(texts) + np.float32(1e-4 * len(texts))

    texts = ["a", "b", "c"]
    vectors = Vectors(tmp_path)
    expected = cached(Rounding(), Vectors(None), exact=True).encode(texts)
    for exact in (True, False):
        wrapped = cached(Rounding(), vectors, exact=exact)
        wrapped.encode(["c", "x"])
        assert np.array_equal(wrapped.encode(texts), expected) is exact


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_and_disk_stay_near_the_size_of_the_vectors():
    script = Path(__file__).parents[2] / "benchmarks" / "embedding_store.py"
    call = [sys.executable, script, "--encoder", "instant", "--texts", "40000", "--json"]
    done = subprocess.run(call, capture_output=True, text=True, timeout=60, check=True)
    for step in map(json.loads, done.stdout.splitlines()):
        assert step["disk_mb"] <= 1.3 * step["vectors_mb"]
        beside = 40  # MB: copies of the file that is written, keys
        assert step["memory_mb"] <= step["vectors_mb"] + step["texts_mb"] + beside


def test_in_memory_planned_vectors_are_handed_out_in_place_and_read_only():
    wrapped = cached(Counting(), Vectors(None))
    items = [Item(text) for text in ("a", "bb", "c", "dd")]
    wrapped.add(wrapped.missing(items))
    vectors = wrapped.embed(items[1:])
    assert np.shares_memory(vectors, wrapped.embed(items))
    np.testing.assert_array_equal(vectors, Counting().encode(["bb", "c", "dd"]))
    with pytest.raises(ValueError, match="read-only"):
        vectors[0] = 0
    backwards = wrapped.embed(items[::-1])  # in another order they are copied
    np.testing.assert_array_equal(backwards[::-1], wrapped.embed(items))


_FULL_DISK = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 17, 1 << 17))  # as a disk with 128 kB left
texts = [str(i) for i in range(500)]
assert cached(Counting(dim=200), Vectors(Path(sys.argv[1]))).encode(texts).shape == (500, 200)
"""


def test_a_full_disk_warns_and_the_vectors_are_right(tmp_path):
    process = _python(_FULL_DISK, tmp_path)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 0, told
    assert told.count("in memory only") == 1
