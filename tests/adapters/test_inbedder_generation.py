"""Answers in words and their re-encoding, against transformers' own generation and against the other encoder on its own."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from adapters.inbedder.encoder import InBedder
from adapters.inbedder.generation import Draws, answered, generate
from bench.encoder import Item, card, fingerprint, gather
from bench.errors import UsageError
from bench.registry import load_encoder
from bench.testing import run_checks
from tests.tiny import tiny_folder

torch = pytest.importorskip("torch")

TEXTS = ["The cat sat on the mat.", "rain", "", "São Paulo — 9,600 km."]
QUESTION = "Is it good?"
CLOSE = {"atol": 1e-5, "rtol": 1e-5}  # float32 sums in another order


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("generation")
    return {
        kind: tiny_folder(kind, place / kind, head=kind != "bert")
        for kind in ("llama", "opt", "roberta", "bert")
    }


@pytest.fixture
def encoder(folders):
    def made(kind, **changes):
        wanted = {
            "readout": "re-enc",
            "new_tokens": 6,
            "reencoder": f"backbone-mean:{folders['bert']}",
            **changes,
        }
        return InBedder(str(folders[kind]), dtype="float32", device="cpu", **wanted)

    return made


@pytest.fixture
def other(folders):
    return replace(load_encoder(f"backbone-mean:{folders['bert']}"), dtype="float32", device="cpu")


def prompt_of(text):
    return f"### Input:\n{text}\n\n### Instruction:\n{QUESTION}\n\n### Response:"


def expected_answer(folder, text, *, masked, new_tokens=6):
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(prompt_of(text) + "<mask>" * 3 * masked, return_tensors="pt")["input_ids"]
    model = (
        (AutoModelForMaskedLM if masked else AutoModelForCausalLM).from_pretrained(folder).eval()
    )
    with torch.no_grad():
        if masked:
            return tokenizer.decode(
                model(ids).logits[0, -4:-1].argmax(-1), skip_special_tokens=True
            ).strip()
        pad = tokenizer.pad_token_id
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            pad_token_id=pad,
            max_new_tokens=new_tokens,
            do_sample=False,
        )
    return tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip()


@pytest.mark.parametrize("kind", ["llama", "opt", "roberta"])
def test_the_answer_in_words_is_embedded_by_the_other_encoder(encoder, folders, other, kind):
    answers = [expected_answer(folders[kind], text, masked=kind == "roberta") for text in TEXTS]
    assert len(set(answers)) > 1
    found = encoder(kind)
    np.testing.assert_allclose(
        found.encode(TEXTS, instruction=QUESTION), other.encode(answers), **CLOSE
    )
    np.testing.assert_allclose(
        found.encode(TEXTS[1:2], instruction=QUESTION), other.encode(answers[1:2]), **CLOSE
    )


@pytest.mark.parametrize(("kind", "samples"), [("llama", 0), ("opt", 4), ("roberta", 0)])
def test_re_encoding_keeps_the_contract(encoder, kind, samples):
    outcomes = run_checks(encoder(kind, samples=samples))
    # Two texts may well have one answer, and so one vector.
    assert [
        (o.name, o.reason) for o in outcomes if o.status == "failed" and o.name != "distinct"
    ] == []


def test_samples_are_the_mean_of_their_re_encodings_and_do_not_depend_on_company(encoder, other):
    found = encoder("llama", samples=3, temperature=2.0)
    network = found._network()
    words = {}
    for batch in answered(
        [Item(t, QUESTION) for t in TEXTS],
        found._prepare(network),
        network,
        6,
        draws=Draws(3, 2.0, 50, 0.9),
    ):
        for row, answers in zip(batch.rows, batch.answers, strict=True):
            words[row.positions[0]] = answers
    assert all(len(words[i]) == 3 for i in range(4))
    assert any(len(set(answers)) > 1 for answers in words.values())
    expected = np.stack([other.encode(words[i]).mean(0) for i in range(4)])
    np.testing.assert_allclose(found.encode(TEXTS, instruction=QUESTION), expected, **CLOSE)
    alone = np.vstack([found.encode([text], instruction=QUESTION) for text in TEXTS[::-1]])[::-1]
    np.testing.assert_allclose(alone, expected, **CLOSE)


def test_cold_samples_are_the_likeliest_answer(encoder):
    greedy, cold = encoder("opt"), encoder("opt", samples=2, temperature=1e-4)
    np.testing.assert_allclose(
        cold.encode(TEXTS, instruction=QUESTION),
        greedy.encode(TEXTS, instruction=QUESTION),
        **CLOSE,
    )


def test_samples_are_drawn_from_the_published_limits(encoder):
    network = encoder("llama")._network()
    assert (InBedder().temperature, InBedder().top_p, InBedder().top_k) == (0.8, 0.9, 50)
    ids = network.tokenizer(prompt_of("rain"), return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        made = generate(network, ids, torch.ones_like(ids), 1, draws=Draws(200, 0.8, 50, 0.9))
        scores = network.model(ids).logits[0, -1] / 0.8
    likely, order = scores.sort(descending=True)
    p = likely[:50].softmax(0)
    nucleus = order[: int((p.cumsum(0) < 0.9).sum()) + 1].tolist()
    drawn = made.tokens[:, 0].unique().tolist()
    assert len(drawn) > 5
    assert set(drawn) <= set(nucleus)
    assert len(nucleus) < 50


def test_generation_ends_when_every_row_has_ended_and_the_first_token_has_a_state(
    encoder, monkeypatch
):
    network = encoder("llama")._network()
    ids = torch.tensor([network.tokenizer(prompt_of("rain"))["input_ids"]])
    everything = list(range(network.model.config.vocab_size))
    monkeypatch.setattr(network.model.generation_config, "eos_token_id", everything)
    with torch.inference_mode():
        made = generate(network, ids, torch.ones_like(ids), 6)
    assert made.tokens.shape == made.alive.shape == (1, 2)
    assert (made.alive.sum(), made.states.shape[1]) == (0, 1)


def test_positions_of_generated_tokens_are_counted(encoder):
    found = encoder("llama", samples=2)
    prompt = len(found._network().tokenizer(prompt_of("rain"))["input_ids"])
    (batch,) = found.stream([Item("rain", QUESTION)])
    assert (
        batch.tokens.tolist() == [batch.padded] == [prompt + 2 * 5]
    )  # the last of six tokens goes through nothing
    assert gather([batch], 1).shape == (1, 32)


def test_the_other_encoder_is_part_of_the_identity_and_its_place_is_not(encoder, folders, tmp_path):
    copied = shutil.copytree(folders["bert"], tmp_path / "copy")
    changed = tiny_folder("bert", tmp_path / "changed", seed=1)
    own = fingerprint(encoder("llama"))
    assert fingerprint(encoder("llama", reencoder=f"backbone-mean:{copied}")) == own
    assert fingerprint(encoder("llama", reencoder=f"backbone-mean:{changed}")) != own
    assert fingerprint(encoder("llama", reencoder="hashing")) != own
    assert card(encoder("llama")).weights != card(encoder("llama", readout="1st-gen")).weights
    plain = encoder("llama", readout="1st-gen")
    assert fingerprint(replace(plain, reencoder="hashing")) == fingerprint(plain)


@pytest.mark.parametrize("name", ["hasing", "hashing:folder"])
def test_a_re_encoder_that_does_not_exist_or_takes_no_checkpoint_is_a_usage_error(encoder, name):
    with pytest.raises(UsageError, match="hashing"):
        encoder("llama", reencoder=name).encode(TEXTS)


def test_samples_of_a_masked_model_are_a_usage_error(encoder):
    with pytest.raises(UsageError, match="samples"):
        encoder("roberta", samples=2).encode(TEXTS)
