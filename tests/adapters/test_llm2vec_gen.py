"""LLM2Vec-Gen on tiny random models, against plain transformers with left padding."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest

from adapters._backbone import PACKAGED, Backbone
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
from tests.tiny import CHAT, tiny_folder, tiny_tokenizer

torch = pytest.importorskip("torch")

TEXTS = ["The cat sat on the mat.", "Find the scorer", "rain", "São Paulo — 9,600 km."]
TOKENS = tuple(f"<question{i}>" for i in range(1, 11))
OUT = 24  # the teacher's dimension
CLOSE = {"atol": 2e-5, "rtol": 1e-4}  # float32 sums in another order


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_folder("llama", tmp_path_factory.mktemp("gen") / "base", head=True, chat=CHAT)


def draw(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) / 4


def write_published(place, base, *, read=10, **changed):
    """Write tiny weights in the layout of the released code."""
    from safetensors.torch import save_file

    tokenizer = tiny_tokenizer("llama", TOKENS)
    tokenizer.padding_side = "left"
    tokenizer.save_pretrained(place)
    ids = tokenizer.convert_tokens_to_ids(list(TOKENS))
    (place / "encoder").mkdir()
    order = ids[5:] + ids[:5]  # peft keeps the order that it was given
    rows = draw(10, 32, seed=1)[[ids.index(i) for i in order]]
    name = "base_model.model.model.embed_tokens.trainable_tokens_delta"
    save_file({name: rows}, place / "encoder" / "adapter_model.safetensors")
    adapter = {"peft_type": "TRAINABLE_TOKENS", "token_indices": order} | changed.get("adapter", {})
    (place / "encoder" / "adapter_config.json").write_text(json.dumps(adapter))
    config = {"encoding_mode": f"last_{read}_tokens", "save_decoder": False}
    (place / "encoder_decoder_config.json").write_text(json.dumps(config))
    run = f"model_name_or_path: {base}\ntorch_dtype: bfloat16\nspecial_tokens: total_10\n"
    (place / RUN_CONFIG).write_text(changed.get("run", run))
    for seed, (name, out) in enumerate((("reconstruction", 32), ("alignment", OUT)), 2):
        state = {"projection.weight": draw(out, 32, seed=seed)}
        state["projection.bias"] = draw(out, seed=seed + 10)
        config = {"input_dim": 32, "output_dim": out, "dtype": torch.bfloat16, "size": None}
        torch.save({"state_dict": state, "config": config}, place / f"{name}_mlp")
    return LLM2VecGen(str(place), dtype="float32", device="cpu", normalise=False)


@pytest.fixture(scope="module")
def published(base, tmp_path_factory):
    place = tmp_path_factory.mktemp("published") / "LLM2Vec-Gen-tiny"
    place.mkdir()
    return write_published(place, base)


def reference_states(base, made, texts):
    """Return the last ten states of texts in one batch, padded on the left as in their code."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(made.checkpoint)
    model = AutoModelForCausalLM.from_pretrained(base, attn_implementation="eager").eval()
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    ids = tokenizer.convert_tokens_to_ids(list(TOKENS))
    model.get_input_embeddings().weight.data[ids] = draw(10, 32, seed=1)
    batch = tokenizer([text + "".join(TOKENS) for text in texts], padding=True, return_tensors="pt")
    assert batch["input_ids"][:, -10:].tolist() == [ids] * len(texts)
    positions = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        return model, model.model(**batch, position_ids=positions).last_hidden_state[:, -10:]


def project(states):
    prompts = states @ draw(32, 32, seed=2).T + draw(32, seed=12)
    return prompts, prompts @ draw(OUT, 32, seed=3).T + draw(OUT, seed=13)


def test_a_published_layout_gives_the_vectors_of_the_released_code(base, published):
    _, states = reference_states(base, published, TEXTS)
    _, vectors = project(states)
    found = published.encode(TEXTS)
    np.testing.assert_allclose(found, vectors.mean(1).numpy(), **CLOSE)
    np.testing.assert_allclose(published.encode_memory(TEXTS), vectors.numpy(), **CLOSE)
    unit = replace(published, normalise=True).encode(TEXTS)
    expected = found / np.linalg.norm(found, axis=1, keepdims=True)
    np.testing.assert_allclose(unit, expected, **CLOSE)
    assert published.card().trained


def test_the_embedding_is_the_layers_of_the_mean_state(base, published):
    _, states = reference_states(base, published, TEXTS)
    _, vectors = project(states.mean(1))
    np.testing.assert_allclose(published.encode(TEXTS), vectors.numpy(), **CLOSE)


def test_version_1_reads_the_last_of_its_tokens(base, tmp_path):
    made = write_published(tmp_path, base, read=4)
    _, states = reference_states(base, made, TEXTS)
    expected = project(states[:, -4:])[1].mean(1)
    np.testing.assert_allclose(made.encode(TEXTS), expected.numpy(), **CLOSE)


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


def test_padding_and_batch_change_nothing(published):
    network = published._network()
    alone = [replace(published, budget=1).encode([text])[0] for text in TEXTS]
    np.testing.assert_allclose(published.encode(TEXTS), alone, **CLOSE)
    reader = published._reader()
    ids = torch.tensor([[5, 6, *reader.tokens.tolist(), pad] for pad in (0, network.pad_id)])
    mask = torch.ones_like(ids)
    mask[:, -1] = 0
    with torch.inference_mode():
        one, other = reader.soft_prompts(ids, mask)
    assert torch.equal(one, other)


def test_instruction_and_text_are_stripped_and_joined_by_a_space(base, published):
    _, states = reference_states(base, published, ["Find it: The cat"])
    expected = project(states)[1].mean(1).numpy()
    found = published.encode(["  The cat\n"], instruction="Find it: ")
    np.testing.assert_allclose(found, expected, **CLOSE)


def test_a_document_is_asked_for_a_summary_unless_it_has_an_instruction(published):
    document = published.for_side("document")
    asked = published.encode(TEXTS, instruction=PASSAGE)
    np.testing.assert_array_equal(document.encode(TEXTS), asked)
    own = published.encode(TEXTS, instruction="Find it:")
    np.testing.assert_array_equal(document.encode(TEXTS, instruction="Find it:"), own)
    assert fingerprint(document) != fingerprint(published)
    assert published.for_side("query") == published


def test_the_chat_template_is_a_switch(published):
    before, after = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
    assert chat_frame(published._network().tokenizer) == (before, after)
    framed = [f"{before}Find it: {text}{after.rstrip()}" for text in TEXTS]
    chat = replace(published, chat=True).encode(TEXTS, instruction="Find it:")
    # the final line break is stripped from a bare text, and is a token of its own here
    assert not np.allclose(chat, published.encode(framed), atol=1e-3)
    prompt = replace(published, chat=True)._prepare(published._network())([Item("rain")])[0]
    text = published._network().tokenizer.decode(prompt.ids[:-10])
    assert text == f"{before}rain{after}"


def test_a_backbone_without_a_chat_template_is_refused_where_one_is_needed(tmp_path):
    bare = tiny_folder("llama", tmp_path / "bare")
    made = LLM2VecGen(str(bare), dtype="float32", device="cpu")
    assert np.isfinite(made.encode(TEXTS)).all()
    with pytest.raises(UsageError, match="chat template"):
        replace(made, chat=True).encode(TEXTS)


def test_a_truncated_text_keeps_its_tokens(base, published):
    text, tokenizer = "word " * 300, published._network().tokenizer
    cut = tokenizer.decode(tokenizer(text)["input_ids"][:30])
    (batch,) = replace(published, max_length=40).stream([Item(text)])
    assert batch.truncated.all()
    _, states = reference_states(base, published, [cut])
    np.testing.assert_allclose(batch.vectors, project(states)[1].mean(1).numpy(), **CLOSE)
    for length in (10, 0):
        with pytest.raises(UsageError, match="room for text"):
            replace(published, max_length=length).encode(TEXTS)


def test_an_answer_is_decoded_greedily_from_the_soft_prompts_alone(base, published, monkeypatch):
    monkeypatch.setattr(encoder, "ANSWER_TOKENS", 8)
    model, states = reference_states(base, published, TEXTS[:2])
    tokenizer = published._network().tokenizer
    for text, row in zip(TEXTS, states, strict=False):
        ids: list[int] = []
        prompts = project(row)[0]
        for _ in range(8):  # without a cache
            table = model.get_input_embeddings().weight[torch.tensor(ids, dtype=torch.long)]
            with torch.no_grad():
                logits = model(inputs_embeds=torch.cat([prompts, table])[None]).logits[0, -1]
            ids.append(int(logits[: len(tokenizer)].argmax()))
            if ids[-1] == tokenizer.eos_token_id:
                break
        expected = " ".join(tokenizer.decode(ids, skip_special_tokens=True).split())
        assert published.answer([text])[0] == expected
    assert published.answer(TEXTS)[0] == published.answer(TEXTS[:1])[0]


def test_an_untrained_backbone_reads_the_states_of_words(base):
    made = LLM2VecGen(str(base), dtype="float32", device="cpu", normalise=False)
    network = Backbone(str(base), dtype="float32", device="cpu").load()
    words = network.tokenizer(WORDS)["input_ids"][:10]
    ids = [*network.tokenizer(TEXTS[0])["input_ids"], *words]
    with torch.no_grad():
        states = network.hidden_states(torch.tensor([ids]), torch.ones(1, len(ids)))
    np.testing.assert_allclose(made.encode(TEXTS[:1]), states[:, -10:].mean(1), **CLOSE)
    assert not made.card().trained
    assert not LLM2VecGen(PACKAGED).card().trained


def test_every_file_that_shapes_a_vector_is_part_of_the_identity(base, tmp_path):
    made = write_published(tmp_path, base)
    own = fingerprint(made)
    for name in made._checkpoint().files:
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content + b"\n")
        try:
            assert fingerprint(made) != own, name
        finally:
            (tmp_path / name).write_bytes(content)
        (tmp_path / name).rename(tmp_path / "away")
        with pytest.raises(BenchError):
            # without run_config.yml it is no checkpoint at all
            made.encode(TEXTS)
        (tmp_path / "away").rename(tmp_path / name)
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
        ({"read": 11}, "last_N_tokens"),
        ({"read": 0}, "last_N_tokens"),
    ],
)
def test_an_inconsistent_checkpoint_is_refused(base, tmp_path, changed, words):
    with pytest.raises(CheckpointError, match=words):
        write_published(tmp_path, base, **changed).encode(TEXTS)


def test_layers_of_other_shapes_are_refused(base, tmp_path):
    made = write_published(tmp_path, base)
    path = tmp_path / "alignment_mlp"
    saved = torch.load(path, weights_only=True)
    two = {"state_dict": saved["state_dict"] | {"second.weight": draw(2, 2, seed=0)}}
    narrow = {"state_dict": saved["state_dict"] | {"projection.weight": draw(OUT, 16, seed=0)}}
    for content, words in ((two, "one linear layer"), (narrow, "another backbone"), ([], "state_")):
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=words):
            made.encode(TEXTS)


class Evil:
    def __reduce__(self):
        return (open, ("executed", "w"))


def test_nothing_of_a_checkpoint_is_executed(base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "published"
    place.mkdir()
    made = write_published(place, base)
    (place / "alignment_mlp").write_bytes(pickle.dumps(Evil(), protocol=2))
    with pytest.raises(CheckpointError, match="alignment_mlp"):
        made.encode(TEXTS)
    (place / RUN_CONFIG).write_text("!!python/object/apply:builtins.open [executed, w]")
    with pytest.raises(CheckpointError, match="YAML"):
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
