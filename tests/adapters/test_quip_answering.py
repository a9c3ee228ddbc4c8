"""Answers in passages: against brute force over all spans, and long passages against their windows read alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters._batching import Prompt
from adapters.quip.answering import answered, rationales
from adapters.quip.encoder import HEAD_FILES, QuIP, head
from adapters.quip.windows import windows
from bench.errors import UsageError
from tests.tiny import SENTENCES, tiny_folder

torch = pytest.importorskip("torch")

CLOSE = {"atol": 1e-5, "rtol": 1e-5}  # float32 sums in another order


def with_heads(kind, place):
    from safetensors.torch import save_file

    folder = tiny_folder(kind, place)
    for seed, name in enumerate(HEAD_FILES):
        draw = torch.Generator().manual_seed(seed)
        state = {
            key: torch.randn(tensor.shape, generator=draw)
            for key, tensor in head(32).state_dict().items()
        }
        save_file(state, folder / f"{name}.safetensors")
    return QuIP(str(folder), dtype="float32", device="cpu")


@pytest.fixture(scope="module", params=["roberta", "llama"])
def encoder(request, tmp_path_factory):
    return with_heads(request.param, tmp_path_factory.mktemp("answering") / request.param)


@given(st.integers(1, 60), st.integers(1, 6), st.data())
@settings(max_examples=60)
def test_windows_are_slices_that_hold_every_position_once_each_far_from_their_ends(t, half, data):
    size = 2 * half
    stride = 2 * data.draw(st.integers(1, half))
    ids = list(range(t))
    spans = np.stack([np.arange(t), np.arange(t) + 1], 1).astype(np.int32)
    pieces = list(windows(Prompt(ids, spans=spans), size, stride))
    slices = [ids[j : j + size] for j in range(0, t - size + stride, stride)] if t > size else [ids]
    assert [piece.prompt.ids for piece in pieces] == slices
    assert all((piece.prompt.spans[:, 0] == piece.prompt.ids).all() for piece in pieces)
    kept = [piece.prompt.ids[piece.begin : piece.end] for piece in pieces]
    assert [i for some in kept for i in some] == ids
    low, high = size // 2 - stride // 2, size // 2 + stride // 2
    assert [(piece.begin, piece.end) for piece in pieces[1:-1]] == [(low, high)] * (len(pieces) - 2)


def test_an_answer_is_the_best_span_under_the_softmax_of_products(encoder):
    passage, question = SENTENCES[1], "What jumps?"
    tokens, vectors = encoder.encode_tokens([passage])[0], encoder.encode_questions([question])
    sides = [
        np.exp(tokens.states.astype(np.float64) @ v[0] - np.max(tokens.states @ v[0]))
        for v in (vectors.start, vectors.end)
    ]
    start, end = (side / side.sum() for side in sides)
    spans = [(a, b) for a in range(len(start)) for b in range(a, min(a + 17, len(start)))]
    a, b = max(spans, key=lambda ab: start[ab[0]] * end[ab[1]])
    (found,) = answered(encoder, [passage], [question])
    inside = [(i, j) for i, j in tokens.spans[a : b + 1].tolist() if i < j]
    assert found.probability == pytest.approx(start[a] * end[b], rel=1e-4)
    assert found.text == (passage[inside[0][0] : inside[-1][1]].strip() if inside else "")
    assert passage[found.start : found.end] == found.text


def test_a_rationale_has_at_most_five_tokens(encoder):
    texts = SENTENCES[:6]  # in which no token is a part of a character
    found = rationales(encoder, texts, "Why is it good?")
    for text, answer, tokens in zip(texts, found, encoder.encode_tokens(texts), strict=True):
        inside = (
            (tokens.spans[:, 0] < answer.end)
            & (tokens.spans[:, 1] > answer.start)
            & (tokens.spans[:, 1] > tokens.spans[:, 0])
        )
        assert inside.sum() <= 5
        assert text[answer.start : answer.end] == answer.text


def test_the_states_of_a_short_text_are_those_without_windows(encoder):
    for long, short in zip(
        encoder.encode_long(SENTENCES), encoder.encode_tokens(SENTENCES), strict=True
    ):
        np.testing.assert_allclose(long.states, short.states, **CLOSE)
        np.testing.assert_array_equal(long.spans, short.spans)


def test_the_states_of_a_long_text_are_those_of_slices_of_one_encoding(encoder):
    text = " ".join(SENTENCES[:4])
    network = encoder._network()
    whole = network.tokenizer(text)["input_ids"]
    (found,) = encoder.encode_long([text], window=20, stride=12)
    expected = []
    for begin in range(0, len(whole) - 20 + 12, 12):
        ids = torch.tensor([whole[begin : begin + 20]])
        with torch.no_grad():
            states = network.model(input_ids=ids, attention_mask=torch.ones_like(ids))[0][0]
        last = begin + 20 >= len(whole)
        expected.append(states[4 if begin else 0 : None if last else 16])
    assert len(expected) > 3
    np.testing.assert_allclose(found.states, torch.cat(expected).numpy(), **CLOSE)
    with pytest.raises(UsageError, match="stride"):
        encoder.encode_long([text], window=20, stride=21)


def test_a_passage_far_longer_than_the_network_takes_is_answered(encoder):
    passage = " ".join(SENTENCES * 20)
    (found,) = answered(encoder, [passage], ["Who scored?"])
    assert passage[found.start : found.end] == found.text


def test_a_question_is_asked_of_each_passage():
    with pytest.raises(UsageError):
        answered(QuIP(), ["a"], [])
