"""InBedder's answers against transformers' own generation, and their re-encoding."""

import shutil
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from adapters.inbedder.encoder import ANSWER_TOKENS, InBedder
from adapters.inbedder.generate import AnswerSampling, list_words, write_answers
from bench.encoder import Item, card, fingerprint
from bench.errors import UsageError
from bench.registry import load_encoder
from bench.testing import run_checks
from tests.tiny import tiny_folder

torch = pytest.importorskip("torch")

TEXTS = ["The cat sat on the mat.", "rain", "", "São Paulo — 9,600 km.", "rain " * 12]
QUESTION = "Is it good?"
CLOSE = {"atol": 1e-5, "rtol": 1e-5}  # float32 sums in another order


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("generate")
    kinds = ("llama", "opt", "roberta", "bert")
    return {kind: tiny_folder(kind, place / kind, head=True, seed=3) for kind in kinds}


@pytest.fixture
def encoder(folders):
    def make(kind, **changes):
        settings = {"new_tokens": 6, "reencoder": f"backbone-mean:{folders['bert']}", **changes}
        return InBedder(str(folders[kind]), dtype="float32", device="cpu", **settings)

    return make


@pytest.fixture
def other(folders):
    return replace(load_encoder(f"backbone-mean:{folders['bert']}"), dtype="float32", device="cpu")


@cache
def load_raw(folder, *, masked):
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

    auto = AutoModelForMaskedLM if masked else AutoModelForCausalLM
    return AutoTokenizer.from_pretrained(folder), auto.from_pretrained(folder).eval()


def answer_raw(folder, text, *, masked=False, new_tokens):
    tokenizer, model = load_raw(folder, masked=masked)
    prompt = f"### Input:\n{text}\n\n### Instruction:\n{QUESTION}\n\n### Response:"
    ids = tokenizer(prompt + "<mask>" * 3 * masked, return_tensors="pt")["input_ids"]
    if masked:
        with torch.no_grad():
            found = model(ids).logits[0, -4:-1].argmax(-1)
    else:
        options = {"attention_mask": torch.ones_like(ids), "pad_token_id": tokenizer.pad_token_id}
        out = model.generate(ids, max_new_tokens=new_tokens, do_sample=False, **options)
        found = out[0, ids.shape[1] :]
    return tokenizer.decode(found, skip_special_tokens=True).strip()


@pytest.mark.parametrize("kind", ["llama", "opt", "roberta"])
def test_answers_are_the_likeliest_ones_and_are_re_encoded(encoder, folders, other, kind):
    masked = kind == "roberta"
    written = encoder(kind, readout="re-enc", new_tokens=ANSWER_TOKENS)
    options = {"masked": masked, "new_tokens": ANSWER_TOKENS}
    expected = [answer_raw(folders[kind], text, **options) for text in TEXTS]
    assert len(set(expected)) > 1
    vectors = written.encode(TEXTS, instruction=QUESTION)
    np.testing.assert_allclose(vectors, other.encode(expected), **CLOSE)
    lines = [next(iter(answer.splitlines()), "").strip() for answer in expected]
    for texts in (TEXTS, TEXTS[:1], []):
        answers = encoder(kind).answer(texts, instruction=QUESTION)
        assert answers == lines[: len(texts)]


def test_sampled_re_encoding_meets_the_contract(encoder):
    outcomes = run_checks(encoder("opt", readout="re-enc", samples=2, new_tokens=3))
    failed = {outcome.name for outcome in outcomes if outcome.status == "failed"}
    assert failed <= {"distinct"}  # two texts may have one answer


def test_samples_are_averaged_and_do_not_depend_on_the_batch(encoder, other):
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
    alone = [found.encode([text], instruction=QUESTION)[0] for text in TEXTS]
    np.testing.assert_allclose(alone, expected, **CLOSE)


def test_generated_tokens_are_counted(encoder):
    found = encoder("llama", readout="re-enc", samples=2)
    (prompt,) = found._prepare(found._network())([Item("rain", QUESTION)])
    (batch,) = found.stream([Item("rain", QUESTION)])
    # the last of six tokens goes through nothing
    assert batch.tokens.tolist() == [batch.padded] == [len(prompt.ids) + 2 * 5]


def test_the_other_encoder_is_part_of_the_identity_but_not_its_folder(encoder, folders, tmp_path):
    copied = shutil.copytree(folders["bert"], tmp_path / "copy")
    changed = tiny_folder("bert", tmp_path / "changed", seed=1)
    found, plain = encoder("llama", readout="re-enc"), encoder("llama")
    own = fingerprint(found)
    assert fingerprint(replace(found, reencoder=f"backbone-mean:{copied}")) == own
    assert fingerprint(replace(found, reencoder=f"backbone-mean:{changed}")) != own
    assert fingerprint(replace(found, reencoder="hashing")) != own
    assert card(found).weights != card(plain).weights
    assert fingerprint(replace(plain, reencoder="hashing")) == fingerprint(plain)


def test_invalid_re_encoding_is_refused(encoder):
    for changes in ({"reencoder": "hasing"}, {"reencoder": "hashing:folder"}):
        with pytest.raises(UsageError, match="hashing"):
            encoder("llama", readout="re-enc", **changes).encode(TEXTS)
    with pytest.raises(UsageError, match="samples"):
        encoder("roberta", readout="re-enc", samples=2).encode(TEXTS)


def test_words_of_a_decoder_have_the_highest_logits_for_the_difference(encoder, folders):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folders["llama"])
    model = AutoModelForCausalLM.from_pretrained(folders["llama"])
    weights = model.get_output_embeddings().weight.detach().numpy()
    vectors = encoder("llama").encode(TEXTS, instruction=QUESTION)
    origin = vectors.mean(axis=0)
    words = {}
    for i in range(len(weights)):
        token = tokenizer.decode([i])
        if token[:1] == " " and token[1:].isalpha() and len(token) > 3:
            words[i] = token[1:]
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
