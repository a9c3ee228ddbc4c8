"""QuIP on tiny random models in the layout of the published archives, against the formulae computed from raw forward passes."""

import os
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from adapters.quip.encoder import HEAD_FILES, QuIP, head, head_files, mean_layer
from bench.encoder import fingerprint
from bench.errors import CheckpointError, UsageError
from bench.tasks.paraphrase import bertscores
from bench.tasks.sentiment import CONTENT_FREE, best_answers
from tests.tiny import tiny_folder

torch = pytest.importorskip("torch")

TEXTS = ["The cat sat on the mat.", "Why is it good?", "rain", "São Paulo is far — 9,600 km."]
CLOSE = {"atol": 1e-5, "rtol": 1e-5}  # float32 sums in another order


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_folder("roberta", tmp_path_factory.mktemp("quip") / "quip-hf")


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    place = tmp_path_factory.mktemp("heads")
    for seed, name in enumerate(HEAD_FILES):
        torch.save(head_state(seed), place / f"{name}.pt")
    return place


@pytest.fixture
def quip(folder, heads):
    return QuIP(str(folder), str(heads), dtype="float32", device="cpu")


def head_state(seed, dim=32):
    draw = torch.Generator().manual_seed(seed)
    shapes = {
        "dense.weight": (dim, dim),
        "dense.bias": (dim,),
        "out_proj.weight": (dim, dim),
        "out_proj.bias": (dim,),
    }
    return {name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}


def raw_states(folder, text, layer=-1, length=None):
    from transformers import AutoModel, AutoTokenizer

    ids = AutoTokenizer.from_pretrained(folder)(
        text, return_tensors="pt", truncation=length is not None, max_length=length
    )
    model = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(input_ids=ids["input_ids"], output_hidden_states=True).hidden_states[layer][0]


def through_head(state, seed):
    made = head_state(seed)
    return (
        torch.tanh(state @ made["dense.weight"].T + made["dense.bias"]) @ made["out_proj.weight"].T
        + made["out_proj.bias"]
    )


def test_a_text_is_the_mean_of_its_states_five_sixths_up_the_layers(quip, folder):
    expected = [raw_states(folder, text, layer=2).mean(0).numpy() for text in TEXTS]
    np.testing.assert_allclose(quip.encode(TEXTS), expected, **CLOSE)
    assert mean_layer(24, decoder=False) == 20


def test_a_decoder_s_text_is_the_mean_of_its_last_states(tmp_path):
    folder = tiny_folder("llama", tmp_path / "m")
    expected = [raw_states(folder, text).mean(0).numpy() for text in TEXTS]
    np.testing.assert_allclose(
        QuIP(str(folder), dtype="float32", device="cpu").encode(TEXTS), expected, **CLOSE
    )


def test_another_layer_can_be_asked_for(quip, folder):
    expected = raw_states(folder, TEXTS[0], layer=1).mean(0).numpy()
    np.testing.assert_allclose(replace(quip, layer=1).encode(TEXTS[:1])[0], expected, **CLOSE)


def test_token_states_are_the_bare_last_layer_alone_and_in_a_batch(quip, folder):
    for text, found in zip(TEXTS, quip.encode_tokens(TEXTS), strict=True):
        np.testing.assert_allclose(found.states, raw_states(folder, text).numpy(), **CLOSE)
        assert found.spans[0].tolist() == found.spans[-1].tolist() == [0, 0]
        assert {i for a, b in found.spans.tolist() for i in range(a, b)} >= {
            i for i, character in enumerate(text) if character != " "
        }


def test_questions_go_through_the_two_heads_at_their_first_token(quip, folder):
    found = quip.encode_questions(TEXTS)
    first = torch.stack([raw_states(folder, text)[0] for text in TEXTS])
    np.testing.assert_allclose(
        found.start, through_head(first, 0).numpy(), atol=1e-4, rtol=1e-5
    )  # sums of numbers near 30
    np.testing.assert_allclose(found.end, through_head(first, 1).numpy(), atol=1e-4, rtol=1e-5)


def test_scores_are_those_of_the_formulae_on_raw_states(quip, folder):
    texts = [*TEXTS, *CONTENT_FREE]
    raw = {text: raw_states(folder, text).double() for text in texts}
    asked = [raw_states(folder, question)[0] for question in ("Why is it good?", "Why is it bad?")]
    ends = [[through_head(state, seed).double() for state in asked] for seed in (0, 1)]
    scores = np.array(
        [[sum(float((raw[t] @ each[y]).max()) for each in ends) for y in (0, 1)] for t in texts]
    )
    vectors = quip.encode_questions(["Why is it good?", "Why is it bad?"])
    np.testing.assert_allclose(
        best_answers(quip, texts, vectors.start, vectors.end),
        scores,
        atol=1e-5 * np.abs(scores).max(),
    )

    def best(a, b):
        return float(
            (torch.nn.functional.normalize(a, dim=-1) @ torch.nn.functional.normalize(b, dim=-1).T)
            .amax(1)
            .mean()
        )

    for layer in (2, -1):
        states = [raw_states(folder, text, layer).double() for text in TEXTS]
        both = [(best(a, b), best(b, a)) for a, b in pairwise(states)]
        found = bertscores(quip, TEXTS[:-1], TEXTS[1:], (layer,))[:, 0]
        np.testing.assert_allclose(found, [2 * p * r / (p + r) for p, r in both], atol=1e-5)


def test_a_decoder_reads_a_question_at_its_last_token(tmp_path):
    folder = tiny_folder("llama", tmp_path / "m")
    quip = QuIP(str(folder), dtype="float32", device="cpu")
    expected = [raw_states(folder, text)[-1].numpy() for text in TEXTS]
    np.testing.assert_allclose(quip.encode_questions(TEXTS).start, expected, **CLOSE)
    np.testing.assert_allclose(
        replace(quip, question_token="first").encode_questions(TEXTS).start,  # noqa: S106 - a token of text
        [raw_states(folder, text)[0].numpy() for text in TEXTS],
        **CLOSE,
    )


def test_the_question_readout_puts_start_and_end_of_the_text_side_by_side(quip):
    both = quip.encode_questions(TEXTS)
    np.testing.assert_allclose(
        replace(quip, readout="question").encode(TEXTS), np.hstack([both.start, both.end]), **CLOSE
    )


def test_without_heads_a_question_is_its_bare_state_and_the_card_says_untrained(quip, folder):
    bare = replace(quip, heads="")
    assert not bare.card().trained
    assert quip.card().trained
    np.testing.assert_allclose(
        bare.encode_questions(TEXTS[:1]).end[0], raw_states(folder, TEXTS[0])[0].numpy(), **CLOSE
    )


def test_a_checkpoint_in_the_home_directory_is_found_by_its_short_name(
    quip, folder, heads, monkeypatch
):
    monkeypatch.setenv("HOME", str(folder.parent))
    short = replace(
        quip, checkpoint=f"~/{folder.name}", heads=f"~/{os.path.relpath(heads, folder.parent)}"
    )
    assert fingerprint(short) == fingerprint(quip)


def test_other_heads_give_another_fingerprint_and_a_moved_folder_the_same(quip, heads, tmp_path):
    for place, seeds in (("same", (0, 1)), ("swapped", (1, 0))):
        (tmp_path / place).mkdir()
        for seed, name in zip(seeds, HEAD_FILES, strict=True):
            torch.save(head_state(seed), tmp_path / place / f"{name}.pt")
    assert fingerprint(replace(quip, heads=str(tmp_path / "swapped"))) != fingerprint(quip)
    assert fingerprint(replace(quip, heads=str(tmp_path / "same"))) == fingerprint(quip)


def test_heads_are_found_beside_the_encoder_and_in_safetensors_too(quip, tmp_path):
    from safetensors.torch import save_file

    folder = tiny_folder("roberta", tmp_path / "one")
    for seed, name in enumerate(HEAD_FILES):
        save_file(head_state(seed), folder / f"{name}.safetensors")
    found = replace(quip, checkpoint=str(folder), heads="").encode_questions(TEXTS)
    np.testing.assert_allclose(found.start, quip.encode_questions(TEXTS).start, **CLOSE)


def test_texts_and_questions_are_cut_at_their_own_limits(quip, folder):
    long = "word " * 300
    kept = raw_states(folder, long, length=7)
    assert len(replace(quip, max_length=5).encode_tokens([long])[0].states) == 7
    found = replace(quip, max_question=5, heads="").encode_questions([long]).start[0]
    np.testing.assert_allclose(found, kept[0].numpy(), **CLOSE)


def test_a_head_without_a_tensor_is_refused(quip, heads, tmp_path):
    state = head_state(0)
    del state["out_proj.bias"]
    for name in HEAD_FILES:
        torch.save(state, tmp_path / f"{name}.pt")
    with pytest.raises(CheckpointError, match="out_proj"):
        replace(quip, heads=str(tmp_path)).encode_questions(TEXTS)


@pytest.mark.parametrize("fault", ["width", "garbage", "object"])
def test_heads_of_another_kind_are_refused(quip, tmp_path, fault):
    for name in HEAD_FILES:
        path = tmp_path / f"{name}.pt"
        if fault == "garbage":
            path.write_bytes(b"no tensors here")
        else:
            torch.save(head_state(0, dim=16) if fault == "width" else ["a list"], path)
    with pytest.raises(CheckpointError):
        replace(quip, heads=str(tmp_path)).encode_questions(TEXTS)


def test_one_head_alone_or_an_empty_folder_is_refused(quip, tmp_path):
    with pytest.raises(CheckpointError, match="missing"):
        replace(quip, heads=str(tmp_path)).card()
    torch.save(head_state(0), tmp_path / f"{HEAD_FILES[0]}.pt")
    with pytest.raises(CheckpointError, match=HEAD_FILES[1]):
        head_files(tmp_path, required=False)


def test_a_new_head_has_the_published_tensor_names():
    assert head(8).state_dict().keys() == head_state(0).keys()


@pytest.mark.parametrize("setting", [{"readout": "cls"}, {"question_token": "middle"}])
def test_an_unknown_word_for_a_setting_is_a_usage_error(quip, setting):
    with pytest.raises(UsageError):
        replace(quip, **({"readout": "question"} | setting)).encode(TEXTS)


@pytest.mark.parametrize("readout", ["mean", "question"])
def test_order_batching_and_odd_texts_do_not_matter(quip, readout):
    encoder = replace(quip, readout=readout)
    texts = [*TEXTS, "", "🙂🙃", "word " * 20_000]
    torch.manual_seed(5)
    together = encoder.encode(texts)
    assert torch.rand(1) == torch.rand(1, generator=torch.Generator().manual_seed(5))
    assert np.isfinite(together).all()
    np.testing.assert_allclose(encoder.encode(texts[::-1])[::-1], together, atol=1e-4)
    np.testing.assert_allclose(
        np.vstack([encoder.encode([text]) for text in texts]), together, atol=1e-4
    )
    assert encoder.encode([]).shape[0] == 0
