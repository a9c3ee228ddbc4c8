"""What an encoder is: its settings, its identity, and the vectors that are let through."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as limit
from hypothesis import strategies as st

from bench.encoder import (
    Batch,
    Card,
    Item,
    card,
    checked,
    digest,
    fingerprint,
    gather,
    instructed_sides,
    length_windows,
    location,
    settings,
    shortened,
    similarity_of,
    stream,
    unwrap,
)
from bench.errors import EncodingError, UsageError, unknown
from tests.bench.encoders import Plain


@dataclass(frozen=True)
class Placed(Plain):
    """One with weights in a place; the card says what they are."""

    checkpoint: str = location("here")
    dtype: str = "auto"
    scale: object = 1.0

    def card(self) -> Card:
        dtype = "float32" if self.dtype == "auto" else self.dtype
        return Card(weights="of " + self.checkpoint.rpartition("/")[2], dtype=dtype)


class Wrapped:
    """Another encoder with something added."""

    version, follows_instructions = 1, True

    def __init__(self, inner):
        self.inner = inner

    def encode(self, texts, *, instruction=""):
        return self.inner.encode(texts, instruction=instruction)


def test_settings_are_the_fields_that_can_change_a_vector():
    assert settings(Plain(2)) == {"dim": 2}
    assert replace(Plain(), dim=2) != Plain() == replace(Plain(), asked=[Item("a")])


@pytest.mark.parametrize("value", [slice(3), float("nan"), {1, 2}, b"raw"])
def test_a_setting_that_is_no_plain_json_or_a_class_without_settings_is_refused(value):
    with pytest.raises(EncodingError, match="Placed"):
        settings(Placed(scale=value))
    with pytest.raises(EncodingError, match="dataclass"):
        fingerprint(Wrapped.__new__(Wrapped))


def test_the_identity_is_of_class_version_settings_and_weights_and_neither_of_place_nor_wish():
    class Newer(Placed):
        version: ClassVar[int] = 2

    one = fingerprint(Placed(checkpoint="a/model"))
    assert fingerprint(Placed(checkpoint="b/model")) == one
    assert fingerprint(Placed(checkpoint="a/model", dtype="float32")) == one
    others = [
        Placed(checkpoint="a/other"),
        Placed(scale=2.0, checkpoint="a/model"),
        Placed(checkpoint="a/model", dtype="bfloat16"),
        Newer(checkpoint="a/model"),
    ]
    assert len({one, *map(fingerprint, others)}) == 5


@dataclass(frozen=True)
class Reading(Plain):
    """One without a card that reads what a setting names."""

    checkpoint: str = ""
    joined_by: str = "/"
    members: tuple[str, ...] = ()


def test_without_a_digest_of_weights_the_files_that_settings_name_are_in_the_identity(
    tmp_path, monkeypatch
):
    class Described(Reading):
        def card(self) -> Card:
            return Card(backbone="mine")

    folder = tmp_path / "model"
    (folder / "1_Pooling").mkdir(parents=True)
    weights, pooling = folder / "weights.bin", folder / "1_Pooling" / "config.json"
    monkeypatch.chdir(tmp_path)
    for kind in (Reading, Described):
        found = []
        for each in ("one", "two"):
            weights.write_text(each)
            pooling.write_text("{}")
            found += [fingerprint(kind(checkpoint=name)) for name in ("model", str(weights))]
            pooling.write_text(each)
            found.append(fingerprint(kind(members=("model", "none"))))
            found.append(fingerprint(kind(checkpoint="model")))
        assert len(set(found)) == 8
        assert fingerprint(kind(checkpoint="model")) == found[-1]
    (folder / ".lock").write_text("hidden")
    assert fingerprint(Described(checkpoint="model")) == found[-1]
    assert fingerprint(Reading(checkpoint="none")) == fingerprint(Reading(checkpoint="none"))


def test_a_wrapper_has_the_identity_of_what_it_wraps():
    inner = Placed()
    outer = Wrapped(Wrapped(inner))
    assert unwrap(outer) is inner
    for read in (fingerprint, settings, card):
        assert read(outer) == read(inner)
    assert card(Plain()) == Card(instructed_sides=("query",))  # without a card, no weights


def test_sides_and_similarities_that_there_are_not_are_refused():
    class Own(Plain):
        instructed_sides = ("queries",)

        def similarity(self, one, other):
            """As sentence-transformers has it, but here it is a name."""

    for read, words in ((instructed_sides, "query, document"), (similarity_of, "cosine, dot")):
        with pytest.raises(UsageError, match=f"expected .*{words}.* of Own"):
            read(Own())
    Own.instructed_sides, Own.similarity = ("document",), "dot"
    assert (instructed_sides(Own()), similarity_of(Own())) == (("document",), "dot")
    Own.instructed_sides = "document"  # every letter of it would be a side
    with pytest.raises(UsageError):
        instructed_sides(Own())


FLOATS = st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.none() | st.booleans() | st.integers() | FLOATS | st.text()
NESTED = st.recursive(PLAIN, st.lists, max_leaves=4)


@limit(max_examples=30)
@given(st.dictionaries(st.text(), NESTED, min_size=2))
def test_a_digest_does_not_depend_on_the_order_of_keys(value):
    assert digest(dict(reversed(value.items()))) == digest(value)
    assert digest({**value, "one more\0": 1}) != digest(value)


ITEMS = st.builds(Item, st.text(max_size=9), st.sampled_from(["", "i", "another"]))


@limit(max_examples=50)
@given(st.lists(ITEMS, max_size=30))
def test_an_encoder_without_a_stream_is_asked_once_per_instruction_and_rows_are_in_place(items):
    encoder = Plain()
    found = gather(stream(encoder, items), len(items))
    assert sorted(encoder.calls) == sorted({item.instruction for item in items})
    for row, item in zip(found, items, strict=True):
        assert np.array_equal(row, Plain().encode([item.text], instruction=item.instruction)[0])


def test_an_item_that_a_stream_leaves_out_and_a_broken_vector_are_errors_that_name_them():
    class LeavesOut(Plain):
        def stream(self, items):
            yield from stream(Plain(), items[:-1])

    class Broken(Plain):
        def stream(self, items):
            rows = np.array([[np.nan, 1]], np.float32)
            yield Batch(np.array([1]), rows, np.ones(1, np.int32), np.zeros(1, bool), 1)

    items = [Item("here"), Item("there"), Item("forgotten")]
    with pytest.raises(EncodingError, match="forgotten"):
        list(stream(LeavesOut(), items))
    assert np.isnan(gather(LeavesOut().stream(items), 3)[2]).all()
    with pytest.raises(EncodingError, match="'there'"):
        list(stream(Broken(), items))


GOOD = np.array([[1, 2, 3], [3, 2, 1]], np.float32)
HALF, DOUBLE = GOOD.astype(np.float16), GOOD.astype(np.float64)


@pytest.mark.parametrize(
    "vectors", [HALF, DOUBLE, GOOD[:1], GOOD[0], GOOD[None], GOOD.tolist(), None, GOOD[:, :0]]
)
def test_what_is_no_set_of_embeddings_is_refused_in_one_line(vectors):
    with pytest.raises(EncodingError) as error:
        checked(vectors, ["a", "b"])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("fault", "told"), [(np.nan, "finite"), (-np.inf, "finite"), (0, "constant"), (0.5, "constant")]
)
def test_embeddings_pass_as_they_are_or_the_text_at_fault_is_named(fault, told):
    assert checked(GOOD, ["a", "b"]) is GOOD
    rows = GOOD.copy()
    rows[1] = fault
    with pytest.raises(EncodingError, match=f"'the\\\\n culprit'.*{told}"):
        checked(rows, ["fine", "the\n culprit"])


def test_a_single_number_is_enough_for_a_vector_unless_it_is_zero():
    assert len(checked(np.array([[0.5], [0.5]], np.float32), ["a", "b"])) == 2
    with pytest.raises(EncodingError, match="constant"):
        checked(np.array([[0.5], [0.0]], np.float32), ["a", "b"])


@given(st.text(), st.integers(2, 80))
def test_a_text_in_a_message_stays_on_one_line(text, width):
    assert len(shortened(text, width).splitlines()) == 1


def test_an_unknown_name_comes_with_near_ones_or_with_all_or_with_their_number():
    names = ["stsb", "mrpc", "Banking77Classification", "T2Reranking"]
    assert isinstance(unknown("task", "stsbb", names), UsageError)
    for name, near in (("stsbb", "stsb"), ("banking77", "Banking77Classification")):
        assert f"did you mean '{near}'" in str(unknown("task", name, names))
    assert str(unknown("task", "qqqq", ["stsb", "mrpc"])).endswith("known: mrpc, stsb")
    many = str(unknown("task", "qqqq", [f"a{i}" for i in range(30)], hint="(see the list)"))
    assert "30 names are known" in many
    assert many.endswith("(see the list)")


@pytest.mark.parametrize("instructions", [("",), ("", "Is it long?", "Who wrote it?")])
def test_consecutive_windows_are_the_same_alone(instructions):
    texts = [f"text {i} " + "and more " * (i % 90) for i in range(400)]
    items = [Item(text, instruction) for instruction in instructions for text in texts]
    found = length_windows(items, "cpu")
    assert sorted(np.concatenate(found).tolist()) == list(range(len(items)))
    some = np.concatenate(found[2:5])
    alone = length_windows([items[i] for i in some], "cpu")
    assert [some[window].tolist() for window in alone] == [window.tolist() for window in found[2:5]]
    for text in texts:  # the instructions on a text share its computation
        assert sum(any(items[i].text == text for i in window) for window in found) == 1
