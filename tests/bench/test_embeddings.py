"""The store of vectors and the encoder that looks into it first."""

import json
import subprocess
import sys
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.embeddings import cached
from bench.encoder import Item, TokenStates, select_side
from bench.errors import EncodingError
from bench.overlap import Ngrams
from bench.vectors import KEY, KeyIndex, Vectors, as_keys, first_places
from tests.bench.commands import ROOT, start_python
from tests.bench.encoders import Constant, Plain, Unheeding, Words

KEYS = st.lists(st.integers(0, 40).map(lambda i: bytes([i % 7, *([i // 7] * (KEY - 1))])))


def test_equal_texts_are_encoded_once_for_all_processes_and_a_plan_in_one_call(tmp_path):
    first, second = Plain(), Plain()
    expected = cached(first, Vectors(tmp_path)).encode(["a", "b", "a"], instruction="i")
    assert np.array_equal(expected, Plain().encode(["a", "b", "a"], instruction="i"))
    assert sorted(first.asked) == [("a", "i"), ("b", "i")]
    found = cached(second, Vectors(tmp_path)).encode(["a", "b", "a"], instruction="i")
    assert np.array_equal(found, expected)
    assert second.asked == []
    planned = Plain()
    wrapped = cached(planned, Vectors(None))
    wrapped.add(wrapped.missing([Item("a"), Item("b"), Item("a"), Item("c")]))
    wrapped.encode(["c", "a"])
    assert [item.text for item in planned.asked] == ["a", "b", "c"]


def test_progress_says_that_it_counts_characters():
    told = []
    cached(Plain(), Vectors(None), lambda *step: told.append(step)).encode(["ab", "c"])
    assert told[-1] == ("encoding (characters)", 5, 5)


@settings(max_examples=30)
@given(st.lists(KEYS), KEYS)
def test_an_index_finds_the_latest_number_of_each_key_and_where_keys_first_appear(added, wanted):
    index, distinct, expected = KeyIndex(), KeyIndex(), {}
    for keys in added:
        numbers = np.arange(len(keys), dtype=np.int32) + len(expected)
        index.add(as_keys(b"".join(keys)), numbers)
        distinct.add_new(as_keys(b"".join(keys)))
        expected.update(zip(keys, numbers.tolist(), strict=True))
    distinct.add_new(as_keys(b"".join(wanted)))
    assert len(distinct) == len({*expected, *wanted})
    found = index.find(as_keys(b"".join(wanted)))
    assert found.tolist() == [expected.get(key, -1) for key in wanted]
    first, equal = first_places(as_keys(b"".join(wanted)))
    assert [wanted[i] for i in first] == list(dict.fromkeys(wanted))
    assert equal.tolist() == [wanted.index(key) for key in wanted]


@settings(max_examples=30)
@given(st.lists(st.text(max_size=20), max_size=30), st.text(max_size=5))
def test_any_texts_come_back_as_the_encoder_gives_them(texts, instruction):
    texts = [*texts, "one", "two"]
    found = cached(Plain(), Vectors(None)).encode(texts, instruction=instruction)
    assert np.array_equal(found, Plain().encode(texts, instruction=instruction))


@pytest.mark.parametrize(("encoder", "texts"), [(Plain(), 4), (Unheeding(), 3)])
def test_instruction_and_text_are_kept_apart_where_the_encoder_heeds_them(encoder, texts):
    wrapped = cached(encoder, Vectors(None))
    wrapped.encode(["bc", "x"], instruction="a")
    wrapped.encode(["c", "x"], instruction="ab")
    assert len(encoder.asked) == texts


@dataclass(frozen=True)
class TwoSided(Plain):
    """Reads queries and documents in different ways."""

    side: str = ""

    def for_side(self, side):
        return replace(self, side=side)

    def encode(self, texts, *, instruction=""):
        return super().encode(texts, instruction=self.side)


def test_other_settings_and_the_two_sides_never_share_a_vector():
    vectors = Vectors(None)
    cached(Plain(8), vectors).encode(["a", "b"])
    assert cached(Plain(9), vectors).encode(["a", "b"]).shape == (2, 9)
    encoder = TwoSided()
    wrapped = cached(encoder, vectors)
    sides = ("query", "document", None)
    query, document, text = (select_side(wrapped, side).encode(["a"]) for side in sides)
    select_side(wrapped, "query").encode(["a"])
    assert not (query == document).any()
    assert not (query == text).any()
    assert encoder.asked == [("a", "query"), ("a", "document"), ("a", "")]
    assert (wrapped.tally.asked, wrapped.cost.forward_texts) == (4, 3)
    assert select_side(cached(Plain(8), vectors), "query").encode(["a"]).shape == (1, 8)


class Reading(Words):
    """Reads texts in every way there is, and was trained on one."""

    def runs(self):
        return Ngrams.of(["seen"])

    def encode_tokens(self, texts, *, layer=-1):
        found = super().encode_tokens(texts, layer=layer)
        return [
            TokenStates(t.states * np.float32("nan" if "bad" in text else 1), t.spans)
            for t, text in zip(found, texts, strict=True)
        ]

    def encode_long(self, texts):
        return self.encode_tokens(texts)


@pytest.mark.parametrize("read", ["encode", "encode_tokens", "encode_long", "count"])
def test_texts_count_for_the_overlap_however_they_are_read(read):
    wrapped = cached(Reading(), Vectors(None))
    assert "overlap_share" not in wrapped.summary()  # nothing was read: not measured
    getattr(wrapped, read)(["seen", "new"])
    assert wrapped.summary()["overlap_share"] == 0.5
    wrapped.begin()
    assert wrapped.tally.summary()["asked"] == 0


def test_one_vector_for_different_texts_and_a_broken_state_are_errors_that_name_them():
    class Collapsed(Constant):
        def encode(self, texts, *, instruction=""):
            return np.tile(np.arange(4, dtype=np.float32), (len(texts), 1))

    wrapped = cached(Collapsed(), Vectors(None))
    assert wrapped.encode(["same", "same"]).shape == (2, 4)
    with pytest.raises(EncodingError, match=r"'left' and 'right'"):
        wrapped.encode(["left", "right"])
    wrapped = cached(Reading(), Vectors(None))
    assert len(wrapped.encode_tokens(["fine"])) == 1
    with pytest.raises(EncodingError, match="bad one"):
        wrapped.encode_tokens(["fine", "bad one"])


def size_of(folder):
    return sum(path.stat().st_size for path in folder.rglob("*.*"))


def test_the_encoder_unused_for_longest_makes_room(tmp_path):
    texts = [str(i) for i in range(1500)]
    for dim in (100, 101, 100, 102):  # each 632 kB, of which the limit holds two
        vectors = Vectors(tmp_path, limit=3 << 19)  # as a new process
        cached(Plain(dim), vectors).encode(texts)
    vectors = Vectors(tmp_path, limit=3 << 19)
    kept, gone = Plain(100), Plain(101)
    cached(kept, vectors).encode(texts)
    cached(gone, vectors).encode(texts)
    assert kept.asked == []  # written first, and read since
    assert len(gone.asked) == len(texts)


def test_what_is_too_large_for_the_limit_or_cannot_be_written_is_in_memory_and_right(
    tmp_path, caplog
):
    (tmp_path / "file").write_text("not a folder")
    for vectors, dim, told in (
        (Vectors(tmp_path / "small", limit=1 << 16), 300, "memory"),
        (Vectors(tmp_path / "file" / "cache"), 8, "cannot be written"),
    ):
        texts = [str(i) for i in range(200)]
        found = cached(Plain(dim), vectors).encode(texts)
        assert np.array_equal(found, Plain(dim).encode(texts))
        assert told in caplog.text


def test_what_is_dropped_between_planning_and_reading_is_encoded_again(tmp_path):
    texts, encoder = [str(i) for i in range(50)], Plain(100)
    wrapped = cached(encoder, Vectors(tmp_path))
    wrapped.add(wrapped.missing([Item(text) for text in texts]))
    cached(Plain(99), Vectors(tmp_path, limit=25_000)).encode(texts)
    for _ in range(2):
        assert np.array_equal(wrapped.encode(texts), Plain(100).encode(texts))
        assert len(encoder.asked) == 2 * len(texts)


def test_the_limit_holds_after_every_write(tmp_path):
    vectors = Vectors(tmp_path, limit=200_000)
    for i in range(20):
        cached(Plain(100 + i % 7), vectors).encode([f"{i} {j}" for j in range(100)])
        assert size_of(tmp_path) <= 200_000


WRITER = """
import sys
from pathlib import Path
from bench.embeddings import cached
from bench.vectors import Vectors
from tests.bench.encoders import Plain
folder, (limit, first) = Path(sys.argv[1]), map(int, sys.argv[2:])
texts = [str(i) for i in range(first, first + 60)]
for i in range(20, 80, 20):
    for dim in (40, 41, 42):
        found = cached(Plain(dim), Vectors(folder, limit=limit)).encode(texts[:i])
        assert (found == Plain(dim).encode(texts[:i])).all()
"""


def test_two_processes_may_write_at_once_and_the_smaller_limit_holds(tmp_path):
    """The limit is small, so that each process drops what the other one reads."""
    limits = ((30_000, 0), (20_000, 30))
    both = [start_python(WRITER, tmp_path, *limit) for limit in limits]
    for process in both:
        _, told = process.communicate(timeout=60)
        assert process.returncode == 0, told
    cached(Plain(), Vectors(tmp_path, limit=20_000)).encode(["one", "more"])
    assert size_of(tmp_path) <= 20_000


TEXTS = ["a", "b", "c", "d", "e"]


@pytest.fixture
def damage(tmp_path):
    """Return what writes a store with the file of five texts as changed, and reads it."""
    cached(Plain(4), Vectors(tmp_path)).encode(TEXTS)
    (path,) = tmp_path.rglob("*.vectors")
    whole, expected = path.read_bytes(), Plain(4).encode(TEXTS)

    def read(change):
        for other in tmp_path.rglob("*.*"):
            other.unlink()
        path.write_bytes(change(whole))
        encoder, again = Plain(4), Plain(4)
        for each in (encoder, again):
            assert np.array_equal(cached(each, Vectors(tmp_path)).encode(TEXTS), expected)
        assert again.asked == []
        return len(encoder.asked)

    read.size = len(whole)
    return read


def test_a_flipped_bit_costs_one_record_and_a_cut_or_longer_file_is_set_aside_with_one_line(
    damage, tmp_path, caplog
):
    def flip(data, place):
        return data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :]

    for place in range(0, damage.size, 7):
        asked = damage(lambda whole, place=place: flip(whole, place))
        assert asked == (1 if place >= 16 else len(TEXTS))
    for size in range(0, damage.size, 11):
        caplog.clear()
        assert damage(lambda whole, size=size: whole[:size]) == len(TEXTS)
        assert len(list(tmp_path.rglob("*.damaged*"))) == len(caplog.records) == 1
    assert damage(lambda whole: whole + b"more") == len(TEXTS)


def test_damaged_records_are_logged_once(tmp_path, caplog):
    cached(Plain(4), Vectors(tmp_path)).encode(TEXTS)
    (path,) = tmp_path.rglob("*.vectors")
    path.write_bytes(path.read_bytes()[:-40] + b"x" * 40)  # the last three of them
    encoder = Plain(4)
    wrapped = cached(encoder, Vectors(tmp_path))
    for text in TEXTS:
        assert np.array_equal(wrapped.encode([text]), Plain(4).encode([text]))
    assert len(caplog.records) == 1
    assert len(encoder.asked) == 3


def test_an_encoder_that_gives_another_dimension_than_the_cache_has_is_an_error(tmp_path):
    @dataclass(frozen=True)
    class Changed(Plain):
        dim: int = field(default=8, compare=False)

    cached(Changed(8), Vectors(tmp_path)).encode(["a", "b"])
    with pytest.raises(EncodingError, match="raise its version"):
        cached(Changed(9), Vectors(tmp_path)).encode(["a", "c"])
    assert cached(Changed(9), Vectors(tmp_path)).encode(["a", "c"]).shape == (2, 9)


def test_exact_vectors_do_not_depend_on_what_the_store_had_before(tmp_path):
    class Rounding(Plain):
        def encode(self, texts, *, instruction=""):
            return super().encode(texts) + np.float32(1e-4 * len(texts))

    texts, vectors = ["a", "b", "c"], Vectors(tmp_path)
    expected = cached(Rounding(), Vectors(None), exact=True).encode(texts)
    for exact in (True, False):
        wrapped = cached(Rounding(), vectors, exact=exact)
        wrapped.encode(["c", "x"])
        assert np.array_equal(wrapped.encode(texts), expected) is exact


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_and_disk_stay_near_the_size_of_the_vectors():
    script = ROOT / "benchmarks" / "embedding_store.py"
    call = [sys.executable, script, "--encoder", "instant", "--texts", "40000", "--json"]
    done = subprocess.run(call, capture_output=True, text=True, timeout=60, check=True)
    for step in map(json.loads, done.stdout.splitlines()):
        assert step["disk_mb"] <= 1.3 * step["vectors_mb"]
        beside = 40  # MB: copies of the file that is written, keys
        assert step["memory_mb"] <= step["vectors_mb"] + step["texts_mb"] + beside


def test_in_memory_planned_vectors_are_handed_out_in_place_and_read_only():
    wrapped = cached(Plain(), Vectors(None))
    items = [Item(text) for text in ("a", "bb", "c", "dd")]
    wrapped.add(wrapped.missing(items))
    vectors = wrapped.embed(items[1:])
    assert np.shares_memory(vectors, wrapped.embed(items))
    np.testing.assert_array_equal(vectors, Plain().encode(["bb", "c", "dd"]))
    with pytest.raises(ValueError, match="read-only"):
        vectors[0] = 0
    backwards = wrapped.embed(items[::-1])  # in another order they are copied
    np.testing.assert_array_equal(backwards[::-1], wrapped.embed(items))
