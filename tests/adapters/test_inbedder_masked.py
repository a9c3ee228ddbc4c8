"""The pair form of a masked language model, computed once more by hand from the raw model."""

import numpy as np
import pytest

from adapters.inbedder.encoder import NEUTRAL_QUESTION, InBedder
from bench.errors import CheckpointError
from bench.testing import run_checks
from tests.tiny import tiny_folder

torch = pytest.importorskip("torch")

TEXTS = ["The cat sat on the mat.", "", "a <mask> in the text", "São Paulo — 9,600 km. " * 6]
QUESTION = "Is it good?"
CLOSE = {
    "atol": 1e-5,
    "rtol": 1e-4,
}  # division by a small deviation enlarges what float32 sums lose


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("masked")
    return {kind: tiny_folder(kind, place / kind, head=True) for kind in ("roberta", "bert")}


@pytest.fixture
def encoder(folders):
    return lambda kind, **changes: InBedder(
        str(folders[kind]), readout="pair", dtype="float32", device="cpu", **changes
    )


def by_hand(folder, text, question, masks, room=128):
    """Return the read-out of <s> text </s></s> question <mask>... </s>, the text cut on its left to what room is left."""
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    tokenizer, model = (
        AutoTokenizer.from_pretrained(folder),
        AutoModelForMaskedLM.from_pretrained(folder).eval(),
    )
    first, second = (
        tokenizer(part, add_special_tokens=False)["input_ids"] for part in (text, question)
    )
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    second = [end, end, *second, *[tokenizer.mask_token_id] * masks, end]
    ids = torch.tensor([[start, *first[max(len(first) + len(second) + 1 - room, 0) :], *second]])
    with torch.no_grad():
        states = model.roberta(ids).last_hidden_state[0, -1 - masks : -1]
        vector = (
            model.lm_head.layer_norm(torch.nn.functional.gelu(model.lm_head.dense(states)))
            .mean(0)
            .numpy()
        )
    return (vector - vector.mean()) / vector.std(ddof=1)


@pytest.mark.parametrize("masks", [1, 3])
def test_the_pair_form_is_the_standardised_mean_behind_the_head(encoder, folders, masks):
    expected = np.stack([by_hand(folders["roberta"], text, QUESTION, masks) for text in TEXTS])
    found = encoder("roberta", masks=masks)
    np.testing.assert_allclose(found.encode(TEXTS, instruction=QUESTION), expected, **CLOSE)
    np.testing.assert_allclose(
        found.encode(TEXTS[2:3], instruction=QUESTION), expected[2:3], **CLOSE
    )


def test_a_long_text_is_cut_and_the_question_is_not(encoder, folders):
    expected = by_hand(folders["roberta"], "word " * 400 + "the end", QUESTION, 3, room=60)
    found = encoder("roberta", max_length=60).encode(
        ["word " * 400 + "the end"], instruction=QUESTION
    )
    np.testing.assert_allclose(found[0], expected, **CLOSE)


def test_without_an_instruction_the_pair_asks_the_neutral_question(encoder):
    found = encoder("roberta")
    np.testing.assert_array_equal(
        found.encode(TEXTS), found.encode(TEXTS, instruction=NEUTRAL_QUESTION)
    )


def test_the_pair_form_keeps_the_contract(encoder):
    assert [
        (o.name, o.reason) for o in run_checks(encoder("roberta")) if o.status == "failed"
    ] == []


def test_a_head_of_another_layout_is_said_so(encoder):
    with pytest.raises(CheckpointError, match="RoBERTa"):
        encoder("bert").encode(TEXTS)
