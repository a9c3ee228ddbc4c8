"""InBedder in words: answers against transformers' own generation, words against scores computed by hand, on tiny random models."""

import numpy as np
import pytest

from adapters.inbedder.answers import ANSWER_TOKENS, whole_words
from adapters.inbedder.encoder import InBedder
from bench.encoder import AnsweringEncoder, ReadableEncoder
from tests.tiny import tiny_folder

torch = pytest.importorskip("torch")

TEXTS = ["The cat sat on the mat.", "", "São Paulo — 9,600 km.", "rain " * 12]
QUESTION = "Is it good?"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("answers")
    return {
        kind: tiny_folder(kind, place / kind, head=True, seed=3)
        for kind in ("llama", "opt", "roberta")
    }


@pytest.fixture
def encoder(folders):
    return lambda kind, **changes: InBedder(
        str(folders[kind]), dtype="float32", device="cpu", **changes
    )


def prompt_of(text):
    return f"### Input:\n{text}\n\n### Instruction:\n{QUESTION}\n\n### Response:"


def first_line(tokenizer, ids):
    kept = []
    for i in ids:
        if i in tokenizer.all_special_ids:
            break
        kept.append(i)
    return tokenizer.decode(kept).strip().partition("\n")[0].strip()


def continued(folder, text):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(prompt_of(text), return_tensors="pt")["input_ids"]
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=ANSWER_TOKENS,
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
    )
    return first_line(tokenizer, out[0, ids.shape[1] :].tolist())


@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_a_decoder_answers_with_the_likeliest_line_alone_and_in_company(encoder, folders, kind):
    expected = [continued(folders[kind], text) for text in TEXTS]
    assert any(expected)
    assert encoder(kind).answer(TEXTS, instruction=QUESTION) == expected
    assert encoder(kind).answer(TEXTS[:1], instruction=QUESTION) == expected[:1]


def test_a_masked_language_model_answers_with_what_stands_behind_its_masks(encoder, folders):
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folders["roberta"])
    model = AutoModelForMaskedLM.from_pretrained(folders["roberta"]).eval()
    expected = []
    for text in TEXTS:
        ids = tokenizer(prompt_of(text) + "<mask>" * 3, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            found = model(ids).logits[0].argmax(-1)[ids[0] == tokenizer.mask_token_id]
        expected.append(
            tokenizer.decode(found, skip_special_tokens=True).strip().partition("\n")[0].strip()
        )
    assert encoder("roberta").answer(TEXTS, instruction=QUESTION) == expected


def test_no_texts_have_no_answers(encoder):
    assert encoder("llama").answer([], instruction=QUESTION) == []


def test_a_decoders_words_are_those_with_the_highest_scores_for_the_difference(encoder, folders):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folders["llama"])
    weights = (
        AutoModelForCausalLM.from_pretrained(folders["llama"])
        .get_output_embeddings()
        .weight.detach()
        .numpy()
    )
    vectors = encoder("llama").encode(TEXTS, instruction=QUESTION)
    origin = vectors.mean(axis=0)
    scores = (vectors - origin) @ weights.T
    every = {i: tokenizer.decode([i]) for i in range(len(weights))}
    words = {
        i: word[1:]
        for i, word in every.items()
        if word[:1] == " " and word[1:].isalpha() and len(word) > 3
    }
    for found, row in zip(encoder("llama").read_words(vectors, origin, 5), scores, strict=True):
        best = dict.fromkeys(words[i].lower() for i in sorted(words, key=lambda i: -row[i]))
        assert [word.lower() for word in found] == list(best)[:5]


@pytest.mark.parametrize(
    ("kind", "settings"), [("opt", {"layer": 1}), ("roberta", {}), ("roberta", {"readout": "pair"})]
)
def test_words_are_whole_different_and_the_opposite_ones_in_the_opposite_direction(
    encoder, kind, settings
):
    found = encoder(kind, **settings)
    vectors = found.encode(TEXTS[:2], instruction=QUESTION)
    known = (
        set(whole_words(found._network()).values()) if settings.get("readout") == "pair" else None
    )
    there, back = (
        found.read_words(vectors[:1], vectors[1], 4)[0],
        found.read_words(vectors[1:], vectors[0], 4)[0],
    )
    assert len({word.lower() for word in there}) == len(there) == 4
    assert not set(there) & set(back)
    assert known is None or set(there) <= known


def test_vectors_of_another_encoder_are_no_words(encoder):
    assert encoder("llama", readout="re-enc").read_words(
        np.ones((2, 384), np.float32), np.zeros(384, np.float32), 3
    ) == [[], []]
    assert encoder("llama").read_words(np.ones((2, 7), np.float32), np.zeros(7, np.float32), 3) == [
        [],
        [],
    ]


def test_it_says_that_it_can():
    assert isinstance(InBedder(), AnsweringEncoder)
    assert isinstance(InBedder(), ReadableEncoder)
