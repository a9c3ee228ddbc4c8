"""InBedder's answers against transformers' own generation, and their re-encoding."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from adapters.inbedder.encoder import ANSWER_TOKENS, InBedder
from adapters.inbedder.generate import AnswerSampling, list_words, write_answers
from bench.encoder import Item, card, fingerprint
from bench.errors import UsageError
from bench.registry import load_encoder
from tests.adapters.checks import CPU, load_plain

TEXTS = ["The cat sat on the mat.", "rain", "", "São Paulo — 9,600 km.", "rain " * 12]
QUESTION = "Is it good?"
CLOSE = {"atol": 1e-5, "rtol": 1e-5}  # float32 sums in another order


@pytest.fixture
def folder(tiny):
    return lambda kind: tiny(kind, seed=3)


@pytest.fixture
def encoder(folder):
    def make(kind, **changes):
        settings = {"new_tokens": 6, "reencoder": f"backbone-mean:{folder('bert')}", **changes}
        return InBedder(str(folder(kind)), **CPU, **settings)

    return make


@pytest.fixture
def other(folder):
    return replace(load_encoder(f"backbone-mean:{folder('bert')}"), **CPU)


def answer_raw(folder, text, *, masked):
    auto = "AutoModelForMaskedLM" if masked else "AutoModelForCausalLM"
    tokenizer, model = load_plain(folder, auto)
    prompt = f"### Input:\n{text}\n\n### Instruction:\n{QUESTION}\n\n### Response:"
    ids = tokenizer(prompt + "<mask>" * 3 * masked, return_tensors="pt")["input_ids"]
    if masked:
        with torch.no_grad():
            found = model(ids).logits[0, -4:-1].argmax(-1)
    else:
        options = {"attention_mask": torch.ones_like(ids), "pad_token_id": tokenizer.pad_token_id}
        out = model.generate(ids, max_new_tokens=ANSWER_TOKENS, do_sample=False, **options)
        found = out[0, ids.shape[1] :]
    return tokenizer.decode(found, skip_special_tokens=True).strip()


@pytest.mark.parametrize("kind", ["llama", "opt", "roberta"])
def test_answers_are_the_likeliest_ones_and_are_re_encoded(encoder, folder, other, kind):
    written = encoder(kind, readout="re-enc", new_tokens=ANSWER_TOKENS)
    expected = [answer_raw(folder(kind), text, masked=kind == "roberta") for text in TEXTS]
    assert len(set(expected)) > 1
    vectors = written.encode(TEXTS, instruction=QUESTION)
    np.testing.assert_allclose(vectors, other.encode(expected), **CLOSE)
    lines = [next(iter(answer.splitlines()), "").strip() for answer in expected]
    for texts in (TEXTS, TEXTS[:1], []):
        answers = encoder(kind).answer(texts, instruction=QUESTION)
        assert answers == lines[: len(texts)]


def test_samples_are_averaged_and_their_tokens_counted(encoder, other):
    found = encoder("llama", readout="re-enc", samples=3, temperature=2.0)
    network, words = found._network(), {}
    items, sampling = [Item(text, QUESTION) for text in TEXTS], AnswerSampling(3, 2.0, 50, 0.9)
    prepare = found._prepare(network)
    for batch in write_answers(items, prepare, network, 6, sampling):
        for row, answers in zip(batch.rows, batch.answers, strict=True):
            words[row.positions[0]] = answers
    assert all(len(answers) == 3 for answers in words.values())
    assert any(len(set(answers)) > 1 for answers in words.values())
    expected = [other.encode(words[i]).mean(0) for i in range(len(TEXTS))]
    np.testing.assert_allclose(found.encode(TEXTS, instruction=QUESTION), expected, **CLOSE)
    (prompt,) = prepare(items[1:2])
    (batch,) = found.stream(items[1:2])
    np.testing.assert_allclose(batch.vectors[0], expected[1], **CLOSE)
    # the last of six tokens goes through nothing
    assert batch.tokens.tolist() == [batch.padded] == [len(prompt.ids) + 3 * 5]


def test_the_other_encoder_is_part_of_the_identity_but_not_its_folder(
    encoder, folder, tiny, tmp_path
):
    copied = shutil.copytree(folder("bert"), tmp_path / "copy")
    found, plain = encoder("llama", readout="re-enc"), encoder("llama")
    own = fingerprint(found)
    assert fingerprint(replace(found, reencoder=f"backbone-mean:{copied}")) == own
    assert fingerprint(replace(found, reencoder=f"backbone-mean:{tiny('bert')}")) != own
    assert fingerprint(replace(found, reencoder="hashing")) != own
    assert card(found).weights != card(plain).weights
    assert fingerprint(replace(plain, reencoder="hashing")) == fingerprint(plain)


def test_invalid_re_encoding_is_refused(encoder):
    for changes in ({"reencoder": "hasing"}, {"reencoder": "hashing:folder"}):
        with pytest.raises(UsageError, match="hashing"):
            encoder("llama", readout="re-enc", **changes).encode(TEXTS)
    with pytest.raises(UsageError, match="samples"):
        encoder("roberta", readout="re-enc", samples=2).encode(TEXTS)


def test_words_of_a_decoder_have_the_highest_logits_for_the_difference(encoder, folder):
    tokenizer, model = load_plain(folder("llama"), "AutoModelForCausalLM")
    weights = model.get_output_embeddings().weight.detach().numpy()
    vectors = encoder("llama").encode(TEXTS, instruction=QUESTION)
    origin = vectors.mean(axis=0)
    tokens = [tokenizer.decode([i]) for i in range(len(weights))]
    words = {i: t[1:] for i, t in enumerate(tokens) if t[:1] == " " and t[1:].isalpha()}
    words = {i: word for i, word in words.items() if len(word) > 2}
    found = encoder("llama").read_words(vectors, origin, 5)
    for named, logits in zip(found, (vectors - origin) @ weights.T, strict=True):
        best = dict.fromkeys(words[i].lower() for i in sorted(words, key=lambda i: -logits[i]))
        assert [word.lower() for word in named] == list(best)[:5]


@pytest.mark.parametrize(
    ("kind", "settings"), [("opt", {"layer": 1}), ("roberta", {}), ("roberta", {"readout": "pair"})]
)
def test_words_are_distinct_and_differ_in_the_opposite_direction(encoder, kind, settings):
    found = encoder(kind, **settings)
    vectors = found.encode(TEXTS[:2], instruction=QUESTION)
    there = found.read_words(vectors[:1], vectors[1], 4)[0]
    back = found.read_words(vectors[1:], vectors[0], 4)[0]
    assert len({word.lower() for word in there}) == len(there) == 4
    assert not set(there) & set(back)
    network = replace(found._backbone(), head="lm").load()
    assert set(there) <= set(list_words(network).values())


def test_vectors_of_another_encoder_have_no_words(encoder):
    wide, narrow = np.ones((2, 384), np.float32), np.ones((2, 7), np.float32)
    assert encoder("llama", readout="re-enc").read_words(wide, wide[0], 3) == [[], []]
    assert encoder("llama").read_words(narrow, narrow[0], 3) == [[], []]
