"""QuIP on tiny random models in the published layout, against raw forward passes."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from adapters.quip.encoder import (
    HEAD_FILES,
    QuIP,
    find_answers,
    find_heads,
    make_head,
    mean_layer,
    split_windows,
)
from bench.encoder import fingerprint
from bench.errors import CheckpointError, UsageError
from tests.adapters.checks import CPU, draw, mirror, plain_states
from tests.tiny import SENTENCES

TEXTS = ["The cat sat on the mat.", "Why is it good?", "rain", "São Paulo is far — 9,600 km."]
CLOSE = {"atol": 1e-5, "rtol": 1e-5}  # float32 sums in another order
HEADS_CLOSE = {"atol": 1e-4, "rtol": 1e-5}  # sums of numbers near 30


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    return write_heads(tmp_path_factory.mktemp("heads"), head_state(0), head_state(1))


@pytest.fixture(params=["roberta", "llama"])
def encoder(request, tiny, heads):
    return QuIP(str(tiny(request.param)), str(heads), **CPU)


@pytest.fixture
def quip(tiny, heads):
    return QuIP(str(tiny("roberta")), str(heads), **CPU)


def head_state(seed, dim=32):
    shapes = {"dense.weight": (dim, dim), "dense.bias": (dim,)}
    shapes |= {"out_proj.weight": (dim, dim), "out_proj.bias": (dim,)}
    return {name: draw(*shape, seed=4 * seed + i) for i, (name, shape) in enumerate(shapes.items())}


def write_heads(place, *states):
    place.mkdir(exist_ok=True)
    for name, state in zip(HEAD_FILES, states, strict=True):
        torch.save(state, place / f"{name}.pt")
    return place


def raw_states(encoder, text, layer=-1, **options):
    return plain_states(encoder.checkpoint, text, layer, **options)


def apply_head(state, seed):
    head = head_state(seed)
    hidden = torch.tanh(state @ head["dense.weight"].T + head["dense.bias"])
    return (hidden @ head["out_proj.weight"].T + head["out_proj.bias"]).numpy()


@pytest.mark.parametrize("layer", [None, 1])
def test_a_text_is_the_mean_of_one_layer_and_token_states_are_the_bare_last_one(encoder, layer):
    expected_layer = layer or (2 if "roberta" in encoder.checkpoint else -1)  # 2 of 3 is 5/6 up
    expected = [raw_states(encoder, text, expected_layer).mean(0).numpy() for text in TEXTS]
    np.testing.assert_allclose(replace(encoder, layer=layer).encode(TEXTS), expected, **CLOSE)
    assert mean_layer(24) == 20
    for text, found in zip(TEXTS, encoder.encode_tokens(TEXTS), strict=True):
        np.testing.assert_allclose(found.states, raw_states(encoder, text).numpy(), **CLOSE)


def test_a_question_goes_through_both_heads_at_its_first_token_and_a_decoders_last(encoder):
    at = 0 if "roberta" in encoder.checkpoint else -1
    states = torch.stack([raw_states(encoder, text)[at] for text in TEXTS])
    found = encoder.encode_questions(TEXTS)
    np.testing.assert_allclose(found.start, apply_head(states, 0), **HEADS_CLOSE)
    np.testing.assert_allclose(found.end, apply_head(states, 1), **HEADS_CLOSE)
    both = replace(encoder, readout="question").encode(TEXTS)
    np.testing.assert_allclose(both, np.hstack([found.start, found.end]), **CLOSE)


def test_without_heads_a_question_is_its_bare_state_and_the_card_says_untrained(quip):
    bare = replace(quip, heads="", question_token="last")  # noqa: S106 - a token of text
    assert quip.card().trained
    assert not bare.card().trained
    found = bare.encode_questions(TEXTS[:1]).end[0]
    np.testing.assert_allclose(found, raw_states(quip, TEXTS[0])[-1].numpy(), **CLOSE)


def test_the_identity_is_of_the_heads_content_wherever_they_are(quip, tmp_path, monkeypatch):
    same = write_heads(tmp_path / "same", head_state(0), head_state(1))
    swapped = write_heads(tmp_path / "swapped", head_state(1), head_state(0))
    assert fingerprint(replace(quip, heads=str(same))) == fingerprint(quip)
    assert fingerprint(replace(quip, heads=str(swapped))) != fingerprint(quip)
    folder = Path(quip.checkpoint)
    monkeypatch.setenv("HOME", str(folder.parent))
    relative = f"~/{os.path.relpath(same, folder.parent)}"
    short = replace(quip, checkpoint=f"~/{folder.name}", heads=relative)
    assert fingerprint(short) == fingerprint(quip)


def test_heads_are_found_beside_the_encoder_and_in_safetensors_too(quip, tmp_path):
    folder = shutil.copytree(quip.checkpoint, tmp_path / "one")
    for seed, name in enumerate(HEAD_FILES):
        save_file(head_state(seed), folder / f"{name}.safetensors")
    found = replace(quip, checkpoint=str(folder), heads="").encode_questions(TEXTS)
    np.testing.assert_allclose(found.start, quip.encode_questions(TEXTS).start, **CLOSE)
    assert make_head(8, 8).state_dict().keys() == head_state(0).keys()


def test_a_hub_id_stands_for_the_encoder_with_its_heads(quip, tmp_path, monkeypatch):
    folder = mirror("org/name", tmp_path, monkeypatch)
    shutil.copytree(quip.checkpoint, folder, dirs_exist_ok=True)
    write_heads(folder, head_state(0), head_state(1))
    found = replace(quip, checkpoint="org/name", heads="").encode_questions(TEXTS)
    np.testing.assert_array_equal(found.start, quip.encode_questions(TEXTS).start)


def test_texts_and_questions_are_cut_at_their_own_limits(quip):
    long = "word " * 300
    assert len(replace(quip, max_length=5).encode_tokens([long])[0].states) == 7
    found = replace(quip, max_question=5, heads="").encode_questions([long]).start[0]
    expected = raw_states(quip, long, truncation=True, max_length=7)[0]
    np.testing.assert_allclose(found, expected.numpy(), **CLOSE)


FAULTS = {
    "width": head_state(0, dim=16),
    "object": ["a list"],
    "tensor": {name: value for name, value in head_state(0).items() if name != "out_proj.bias"},
}


@pytest.mark.parametrize("fault", [*FAULTS, "garbage", "empty", "one"])
def test_heads_of_another_kind_are_refused(quip, tmp_path, fault):
    if fault in FAULTS:
        write_heads(tmp_path, FAULTS[fault], FAULTS[fault])
    elif fault == "one":
        torch.save(head_state(0), tmp_path / f"{HEAD_FILES[0]}.pt")
        with pytest.raises(CheckpointError, match=HEAD_FILES[1]):
            find_heads(tmp_path, required=False)
    elif fault == "garbage":
        for name in HEAD_FILES:
            (tmp_path / f"{name}.pt").write_bytes(b"no tensors here")
    with pytest.raises(CheckpointError):
        replace(quip, heads=str(tmp_path)).encode_questions(TEXTS)


def test_an_unknown_value_of_a_setting_is_a_usage_error(quip):
    for setting in ({"readout": "cls"}, {"question_token": "middle"}):
        with pytest.raises(UsageError):
            replace(quip, **({"readout": "question"} | setting)).encode(TEXTS)


@given(st.integers(1, 60), st.integers(1, 6), st.data())
@settings(max_examples=60)
def test_windows_keep_every_token_once_far_from_their_ends(n, half, data):
    size, stride = 2 * half, 2 * data.draw(st.integers(1, half))
    ids = np.arange(n)
    windows = split_windows(n, size, stride)
    starts = range(0, n - size + stride, stride) if n > size else [0]
    expected = [ids[start : start + size].tolist() for start in starts]
    assert [ids[window].tolist() for window, _ in windows] == expected
    kept = [ids[window][inner] for window, inner in windows]
    assert np.concatenate(kept).tolist() == ids.tolist()
    middle = slice(half - stride // 2, half + stride // 2)
    assert [inner for _, inner in windows[1:-1]] == [middle] * (len(windows) - 2)


def test_a_long_text_is_read_in_slices_of_one_encoding(encoder):
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
    short = encoder.encode_tokens(SENTENCES)
    for ours, theirs in zip(encoder.encode_long(SENTENCES), short, strict=True):
        np.testing.assert_allclose(ours.states, theirs.states, **CLOSE)
        np.testing.assert_array_equal(ours.spans, theirs.spans)
    with pytest.raises(UsageError, match="stride"):
        encoder.encode_long([text], window=20, stride=21)


def test_an_answer_is_the_best_span_under_the_softmax_of_products(encoder):
    passage, question = SENTENCES[1], "What jumps?"
    tokens, vectors = encoder.encode_tokens([passage])[0], encoder.encode_questions([question])
    states = torch.from_numpy(tokens.states).double()
    start, end = (
        (states @ torch.from_numpy(vector[0]).double()).softmax(0).numpy()
        for vector in (vectors.start, vectors.end)
    )
    spans = [(a, b) for a in range(len(start)) for b in range(a, min(a + 17, len(start)))]
    a, b = max(spans, key=lambda ab: start[ab[0]] * end[ab[1]])
    (found,) = find_answers(encoder, [passage], [question])
    inside = [(i, j) for i, j in tokens.spans[a : b + 1].tolist() if i < j]
    assert found.probability == pytest.approx(start[a] * end[b], rel=1e-4)
    assert found.text == (passage[inside[0][0] : inside[-1][1]].strip() if inside else "")
    long = " ".join(SENTENCES * 20)  # far longer than the network takes
    (found,) = find_answers(encoder, [long], ["Who scored?"])
    assert long[found.start : found.end] == found.text
    with pytest.raises(UsageError):
        find_answers(encoder, [passage], [])
