"""LLM2Vec-Gen on tiny random models, against plain transformers with left padding."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer

from adapters._backbone import PACKAGED
from adapters.llm2vec_gen import encoder
from adapters.llm2vec_gen.encoder import (
    PASSAGE,
    RUN_CONFIG,
    WEIGHTS,
    WORDS,
    LLM2VecGen,
    states_at,
)
from adapters.llm2vec_gen.generate import chat_frame
from bench.encoder import Item, fingerprint
from bench.errors import BenchError, CheckpointError, EncodingError, UsageError
from bench.testing import ContractError
from bench.testing.encoders import check_batching
from tests.adapters.checks import CPU, draw, load_plain, read_plain
from tests.tiny import CHAT, tiny_tokenizer

TEXTS = ["The cat sat on the mat.", "Find the scorer", "rain", "São Paulo — 9,600 km."]
TOKENS = tuple(f"<question{i}>" for i in range(1, 11))
OUT = 24  # the teacher's dimension
CLOSE = {"atol": 2e-5, "rtol": 1e-4}  # float32 sums in another order


@pytest.fixture(scope="module")
def base(tiny):
    return tiny("llama", chat=CHAT)


def on_cpu(folder, **settings):
    return LLM2VecGen(str(folder), **CPU, **settings)


def write_published(place, base, *, read=10, **changed):
    """Write tiny weights in the layout of the released code."""
    tokenizer = tiny_tokenizer("llama", TOKENS)
    tokenizer.padding_side = "left"
    tokenizer.save_pretrained(place)
    ids = tokenizer.convert_tokens_to_ids(list(TOKENS))
    (place / "encoder").mkdir()
    order = ids[5:] + ids[:5]  # peft keeps the order that it was given
    rows = new_tokens()[[ids.index(i) for i in order]]
    name = "base_model.model.model.embed_tokens.trainable_tokens_delta"
    save_file({name: rows}, place / "encoder" / "adapter_model.safetensors")
    adapter = {"peft_type": "TRAINABLE_TOKENS", "token_indices": order} | changed.get("adapter", {})
    (place / "encoder" / "adapter_config.json").write_text(json.dumps(adapter))
    config = {"encoding_mode": f"last_{read}_tokens", "save_decoder": False}
    (place / "encoder_decoder_config.json").write_text(json.dumps(config))
    run = f"model_name_or_path: {base}\ntorch_dtype: bfloat16\nspecial_tokens: total_10\n"
    (place / RUN_CONFIG).write_text(changed.get("run", run))
    for name, (weight, bias) in projections().items():
        state = {"projection.weight": weight, "projection.bias": bias}
        config = {"input_dim": 32, "output_dim": len(bias), "dtype": torch.bfloat16, "size": None}
        torch.save({"state_dict": state, "config": config}, place / f"{name}_mlp")
    return on_cpu(place, normalise=False)


def new_tokens():
    return draw(10, 32, seed=1) / 4


def projections():
    sizes = {"reconstruction": 32, "alignment": OUT}
    return {
        name: (draw(out, 32, seed=out) / 4, draw(out, seed=out + 1) / 4)
        for name, out in sizes.items()
    }


@pytest.fixture(scope="module")
def published(base, tmp_path_factory):
    place = tmp_path_factory.mktemp("published") / "LLM2Vec-Gen-tiny"
    place.mkdir()
    return write_published(place, base)


def reference_states(base, made, texts):
    """Return the last ten states of texts in one batch, padded on the left as in their code."""
    tokenizer = AutoTokenizer.from_pretrained(made.checkpoint)
    model = read_plain(base, "AutoModelForCausalLM")[1]
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    ids = tokenizer.convert_tokens_to_ids(list(TOKENS))
    model.get_input_embeddings().weight.data[ids] = new_tokens()
    batch = tokenizer([text + "".join(TOKENS) for text in texts], padding=True, return_tensors="pt")
    assert batch["input_ids"][:, -10:].tolist() == [ids] * len(texts)
    positions = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        return model, model.model(**batch, position_ids=positions).last_hidden_state[:, -10:]


def project(states):
    """Return soft prompts and vectors of states."""
    (r, r_bias), (a, a_bias) = projections().values()
    prompts = states @ r.T + r_bias
    return prompts, prompts @ a.T + a_bias


def reference_vectors(base, made, texts, read=10):
    return project(reference_states(base, made, texts)[1][:, -read:])[1].numpy()


def test_a_published_layout_gives_the_vectors_of_the_released_code(base, published):
    vectors = reference_vectors(base, published, TEXTS)
    found = published.encode(TEXTS)
    np.testing.assert_allclose(found, vectors.mean(1), **CLOSE)
    np.testing.assert_allclose(published.encode_memory(TEXTS), vectors, **CLOSE)
    unit = replace(published, normalise=True).encode(TEXTS)
    expected = found / np.linalg.norm(found, axis=1, keepdims=True)
    np.testing.assert_allclose(unit, expected, **CLOSE)
    assert published.card().trained


def test_version_1_reads_the_last_of_its_tokens(base, tmp_path):
    made = write_published(tmp_path, base, read=4)
    expected = reference_vectors(base, made, TEXTS, read=4).mean(1)
    np.testing.assert_allclose(made.encode(TEXTS), expected, **CLOSE)


def test_an_exported_checkpoint_gives_the_vectors_of_texts_and_of_documents(base, tmp_path):
    from sentence_transformers import SentenceTransformer

    made = write_published(tmp_path / "made", base, read=4)
    made.export_sentence_transformers(tmp_path / "whole")
    model = SentenceTransformer(str(tmp_path / "whole"), device="cpu", trust_remote_code=False)
    sides = {
        "query": (model.encode, model.encode_query),
        "document": (model.encode_document,),
    }
    for side, functions in sides.items():
        for encode in functions:
            np.testing.assert_allclose(encode(TEXTS), made.for_side(side).encode(TEXTS), **CLOSE)
    assert np.abs(made.encode(TEXTS) - made.for_side("document").encode(TEXTS)).max() > 1e-3


def test_states_are_found_by_id_on_either_side_of_padding():
    states, tokens = draw(2, 6, 3, seed=0), torch.tensor([7, 8])
    for ids in ([[1, 2, 7, 8, 0, 0], [1, 2, 3, 7, 8, 0]], [[0, 0, 1, 2, 7, 8], [0, 1, 2, 3, 7, 8]]):
        rows = torch.tensor(ids)
        found = states_at(states, rows, tokens)
        for k, token in enumerate((7, 8)):
            places = (rows == token).nonzero()[:, 1]
            assert torch.equal(found[:, k], states[[0, 1], places])
    with pytest.raises(EncodingError, match="once"):
        states_at(states, torch.tensor([[7, 8, 7, 0, 0, 0], [7, 8, 0, 0, 0, 0]]), tokens)


def test_the_contract_catches_the_released_read_out_of_the_last_places(published, monkeypatch):
    check_batching(published)
    monkeypatch.setattr(encoder, "states_at", lambda states, _, tokens: states[:, -len(tokens) :])
    with pytest.raises(ContractError):
        check_batching(published)


def test_instruction_and_text_are_stripped_and_joined_by_a_space(base, published):
    expected = reference_vectors(base, published, ["Find it: The cat"]).mean(1)
    found = published.encode(["  The cat\n"], instruction="Find it: ")
    np.testing.assert_allclose(found, expected, **CLOSE)


def test_a_document_is_asked_for_a_summary_unless_it_has_an_instruction(published):
    document = published.for_side("document")
    for given, used in (("", PASSAGE), ("Find it:", "Find it:")):
        found = document.encode(TEXTS, instruction=given)
        np.testing.assert_array_equal(found, published.encode(TEXTS, instruction=used))
    assert fingerprint(document) != fingerprint(published)
    assert published.for_side("query") == published


def test_the_chat_template_is_a_switch(published, tiny):
    before, after = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
    network = published._network()
    assert chat_frame(network.tokenizer) == (before, after)
    framed = [f"{before}Find it: {text}{after.rstrip()}" for text in TEXTS]
    chat = replace(published, chat=True)
    # the final line break is stripped from a bare text, and is a token of its own here
    found = chat.encode(TEXTS, instruction="Find it:")
    assert not np.allclose(found, published.encode(framed), atol=1e-3)
    (prompt,) = chat._prepare(network)([Item("rain")])
    assert network.tokenizer.decode(prompt.ids[:-10]) == f"{before}rain{after}"
    bare = on_cpu(tiny("llama"))
    assert np.isfinite(bare.encode(TEXTS)).all()
    with pytest.raises(UsageError, match="chat template"):
        replace(bare, chat=True).encode(TEXTS)


def test_a_chat_template_with_a_date_gives_the_same_prompt_every_day(base):
    tokenizer = tiny_tokenizer("llama")
    tokenizer.chat_template = "Today: {{ strftime_now('%d %b %Y') }}\n{{ messages[0]['content'] }}"
    assert chat_frame(tokenizer) == ("Today: 26 Jul 2024\n", "")


def test_a_truncated_text_keeps_its_tokens(base, published):
    text, tokenizer = "word " * 300, published._network().tokenizer
    cut = tokenizer.decode(tokenizer(text)["input_ids"][:30])
    (batch,) = replace(published, max_length=40).stream([Item(text)])
    assert batch.truncated.all()
    expected = reference_vectors(base, published, [cut]).mean(1)
    np.testing.assert_allclose(batch.vectors, expected, **CLOSE)
    for length in (10, 0):
        with pytest.raises(UsageError, match="room for text"):
            replace(published, max_length=length).encode(TEXTS)


def test_an_answer_is_decoded_greedily_from_the_soft_prompts_alone(base, published, monkeypatch):
    monkeypatch.setattr(encoder, "ANSWER_TOKENS", 8)
    model, states = reference_states(base, published, TEXTS[:2])
    tokenizer = published._network().tokenizer
    found = published.answer(TEXTS)
    for answer, row in zip(found[:2], states, strict=True):
        ids: list[int] = []
        prompts = project(row)[0]
        for _ in range(8):  # without a cache
            table = model.get_input_embeddings().weight[torch.tensor(ids, dtype=torch.long)]
            with torch.no_grad():
                logits = model(inputs_embeds=torch.cat([prompts, table])[None]).logits[0, -1]
            ids.append(int(logits[: len(tokenizer)].argmax()))
            if ids[-1] == tokenizer.eos_token_id:
                break
        assert answer == " ".join(tokenizer.decode(ids, skip_special_tokens=True).split())


def test_an_untrained_backbone_reads_the_states_of_words(base):
    made, (tokenizer, model) = on_cpu(base, normalise=False), load_plain(base)
    ids = [*tokenizer(TEXTS[0])["input_ids"], *tokenizer(WORDS)["input_ids"][:10]]
    with torch.no_grad():
        states = model(torch.tensor([ids])).last_hidden_state[0, -10:]
    np.testing.assert_allclose(made.encode(TEXTS[:1])[0], states.mean(0), **CLOSE)
    assert not made.card().trained
    assert not LLM2VecGen(PACKAGED).card().trained


def test_every_file_that_shapes_a_vector_is_part_of_the_identity(base, tmp_path):
    made = write_published(tmp_path, base)
    own = fingerprint(made)
    for name in made._checkpoint().files:
        path = tmp_path / name
        content = path.read_bytes()
        path.write_bytes(content + b"\n")
        assert fingerprint(made) != own, name
        path.unlink()
        with pytest.raises(BenchError):  # without run_config.yml it is no checkpoint at all
            made.encode(TEXTS)
        path.write_bytes(content)
    assert fingerprint(made) == own


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"adapter": {"peft_type": "LORA"}}, "new tokens"),
        ({"adapter": {"token_indices": None}}, "token_indices"),
        ({"adapter": {"token_indices": list(range(10))}}, "another backbone"),
        ({"adapter": {"token_indices": list(range(900, 911))}}, "a row for each"),
        ({"run": "a: [1"}, "YAML"),
        ({"run": "- a\n"}, "model_name_or_path"),
        ({"run": "!!python/object/apply:builtins.open [executed, w]"}, "YAML"),
        ({"read": 11}, "last_N_tokens"),
        ({"read": 0}, "last_N_tokens"),
    ],
)
def test_an_inconsistent_checkpoint_is_refused(base, tmp_path, changed, words, monkeypatch):
    made = write_published(tmp_path, base, **changed)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=words):
        made.encode(TEXTS)
    assert not (tmp_path / "executed").exists()


class Evil:
    def __reduce__(self):
        return (open, ("executed", "w"))


def test_layers_of_other_shapes_or_with_code_are_refused(base, tmp_path, monkeypatch):
    made = write_published(tmp_path, base)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "alignment_mlp"
    state = torch.load(path, weights_only=True)["state_dict"]
    two = {"state_dict": state | {"second.weight": draw(2, 2, seed=0)}}
    narrow = {"state_dict": state | {"projection.weight": draw(OUT, 16, seed=0)}}
    for content, words in ((two, "one linear layer"), (narrow, "another backbone"), ([], "state_")):
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=words):
            made.encode(TEXTS)
    path.write_bytes(pickle.dumps(Evil(), protocol=2))
    with pytest.raises(CheckpointError, match="alignment_mlp"):
        made.encode(TEXTS)
    assert not (tmp_path / "executed").exists()


def test_default_weights_load_and_name_a_label_free_teacher():
    made = LLM2VecGen(device="cpu")
    folder = made._checkpoint().folder
    if folder is None:
        pytest.skip("there are no default weights")
    card = made.card()
    assert card.trained
    assert card.training["teacher"]["labels"] is False
    assert (folder / WEIGHTS).stat().st_size < 4e6
    assert np.isfinite(made.encode(TEXTS[:2])).all()
