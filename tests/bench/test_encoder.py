"""What an encoder is: its settings, its identity, and the vectors that are let through."""

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
from hypothesis import settings as limit
from hypothesis import strategies as st

from bench.encoder import (
    Batch,
    Card,
    Embeddings,
    Encoder,
    Item,
    card,
    checked,
    digest,
    fingerprint,
    gather,
    location,
    settings,
    shortened,
    stream,
    unwrap,
)
from bench.errors import EncodingError, UsageError, unknown


@dataclass(frozen=True)
class Lengths:
    """A text is its number of letters, and that of its instruction."""

    scale: float = 1.0
    asked: list[tuple[int, str]] = field(default_factory=list, compare=False)
    version: ClassVar[int] = 1
    follows_instructions: ClassVar[bool] = True

    def encode(self, texts: Sequence[str], *, instruction: str = "") -> Embeddings:
        self.asked.append((len(texts), instruction))
        return np.array(
            [[len(text) * self.scale, -1.0 - len(instruction)] for text in texts], np.float32
        ).reshape(-1, 2)


@dataclass(frozen=True)
class Placed(Lengths):
    """One with weights in a place; the card says what they are."""

    checkpoint: str = location("here")
    dtype: str = "auto"

    def card(self) -> Card:
        return Card(
            weights="of " + self.checkpoint.rpartition("/")[2],
            dtype="float32" if self.dtype == "auto" else self.dtype,
        )


class Wrapped:
    """Another encoder with something added."""

    version, follows_instructions = 1, True

    def __init__(self, inner: Encoder) -> None:
        self.inner = inner

    def encode(self, texts: Sequence[str], *, instruction: str = "") -> Embeddings:
        return self.inner.encode(texts, instruction=instruction)


def test_settings_are_the_fields_that_can_change_a_vector():
    assert settings(Lengths(2.0)) == {"scale": 2.0}


@pytest.mark.parametrize("value", [slice(3), float("nan"), {1, 2}, b"raw"])
def test_a_setting_that_is_no_plain_json_is_refused(value):
    with pytest.raises(EncodingError, match="Lengths"):
        settings(Lengths(value))


def test_an_encoder_that_is_no_dataclass_is_refused():
    class Plain:
        version, follows_instructions = 1, False

        def encode(self, texts, *, instruction=""):
            return np.ones((len(texts), 2), np.float32)

    with pytest.raises(EncodingError, match="dataclass"):
        fingerprint(Plain())


def test_a_place_and_the_way_a_number_type_was_asked_for_are_no_part_of_the_identity():
    one = fingerprint(Placed(checkpoint="a/model"))
    assert (
        fingerprint(Placed(checkpoint="b/model"))
        == one
        == fingerprint(Placed(checkpoint="a/model", dtype="float32"))
    )
    others = (
        Placed(checkpoint="a/other"),
        Placed(2.0, checkpoint="a/model"),
        Placed(checkpoint="a/model", dtype="bfloat16"),
    )
    assert one not in {fingerprint(other) for other in others}


def test_a_wrapper_has_the_identity_of_what_it_wraps():
    inner = Placed()
    outer = Wrapped(Wrapped(inner))
    assert unwrap(outer) is inner
    assert (fingerprint(outer), settings(outer), card(outer)) == (
        fingerprint(inner),
        settings(inner),
        card(inner),
    )


def test_an_encoder_without_a_card_has_no_weights():
    assert card(Lengths()) == Card(instructed_sides=("query",))


def test_the_identity_is_the_same_in_every_process():
    code = "from bench.registry import load_encoder; from bench.encoder import fingerprint\n"
    code += "print(fingerprint(load_encoder('hashing')))"
    root = str(Path(__file__).parents[2])
    prints = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": root},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(prints) == 1


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    st.lists,
    max_leaves=4,
)


@limit(max_examples=30)
@given(st.dictionaries(st.text(), PLAIN, min_size=2))
def test_a_digest_does_not_depend_on_the_order_of_keys(value):
    assert digest(dict(reversed(value.items()))) == digest(value)
    assert digest({**value, "one more\0": 1}) != digest(value)


@given(
    st.lists(
        st.builds(Item, st.text(max_size=9), st.sampled_from(["", "i", "another"])),
        min_size=1,
        max_size=30,
    )
)
def test_an_encoder_without_a_stream_is_asked_once_per_instruction_and_rows_come_back_in_place(
    items,
):
    encoder = Lengths()
    batches = list(stream(encoder, items))
    assert sorted(instruction for _, instruction in encoder.asked) == sorted(
        {item.instruction for item in items}
    )
    expected = [[len(item.text), -1 - len(item.instruction)] for item in items]
    assert gather(batches, len(items)).tolist() == expected


def test_nothing_to_encode_gives_no_rows():
    assert len(gather(stream(Lengths(), []), 0)) == 0


def test_an_item_that_a_stream_leaves_out_is_an_error_that_names_it():
    class LeavesOut(Lengths):
        def stream(self, items):
            yield from stream(Lengths(), items[:-1])

    with pytest.raises(EncodingError, match="forgotten"):
        list(stream(LeavesOut(), [Item("here"), Item("there"), Item("forgotten")]))
    assert np.isnan(gather(LeavesOut().stream([Item("here"), Item("there")]), 2)[1]).all()


def test_what_an_encoder_streams_is_checked_too():
    class Streams(Lengths):
        def stream(self, items):
            yield Batch(
                np.array([1]),
                np.array([[np.nan, 1]], np.float32),
                np.ones(1, np.int32),
                np.zeros(1, bool),
                1,
            )

    with pytest.raises(EncodingError, match="'second'"):
        list(stream(Streams(), [Item("first"), Item("second")]))


GOOD = np.array([[1, 2, 3], [3, 2, 1]], np.float32)


@pytest.mark.parametrize(
    "vectors",
    [
        GOOD.astype(np.float16),
        GOOD.astype(np.float64),
        GOOD[:1],
        GOOD[0],
        GOOD[None],
        GOOD.tolist(),
        None,
        GOOD[:, :0],
    ],
    ids=[
        "half",
        "double",
        "a row short",
        "one vector",
        "three axes",
        "a list",
        "nothing",
        "no numbers",
    ],
)
def test_what_is_no_set_of_embeddings_is_refused_in_one_line(vectors):
    with pytest.raises(EncodingError) as error:
        checked(vectors, ["a", "b"])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("fault", "told"), [(np.nan, "finite"), (-np.inf, "finite"), (0, "constant"), (0.5, "constant")]
)
def test_the_text_whose_vector_is_at_fault_is_named(fault, told):
    rows = GOOD.copy()
    rows[1] = fault
    with pytest.raises(EncodingError, match=f"'the\\\\n culprit'.*{told}"):
        checked(rows, ["fine", "the\n culprit"])


def test_embeddings_pass_as_they_are_and_a_single_number_is_enough():
    assert checked(GOOD, ["a", "b"]) is GOOD
    assert len(checked(np.array([[0.5], [0.5]], np.float32), ["a", "b"])) == 2
    with pytest.raises(EncodingError, match="constant"):
        checked(np.array([[0.5], [0.0]], np.float32), ["a", "b"])


@given(st.text(), st.integers(2, 80))
def test_a_text_in_a_message_stays_on_one_line(text, width):
    assert len(shortened(text, width).splitlines()) == 1


def test_a_copy_with_another_setting_is_another_encoder():
    assert replace(Lengths(), scale=2.0) != Lengths() == replace(Lengths(), asked=[(1, "")])


def test_an_unknown_name_comes_with_near_ones_or_with_all_or_with_their_number():
    assert isinstance(unknown("task", "stsbb", ["stsb", "mrpc"]), UsageError)
    assert "'stsb'" in str(unknown("task", "stsbb", ["stsb", "mrpc"]))
    assert "mrpc, stsb" in str(unknown("task", "qqqq", ["stsb", "mrpc"]))
    many = str(unknown("task", "qqqq", [f"a{i}" for i in range(30)], hint="(see the list)"))
    assert "30 names are known" in many
    assert many.endswith("(see the list)")
