"""Sentence-transformers models of every layout give the vectors of sentence-transformers."""

import json
import shutil
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import peft
import pytest
import safetensors.torch as safetensors
import torch
import transformers
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules as st

from adapters._source import UNREAD, looked_up_parameters_of, parameters_of
from adapters.baseline.sentence import SentenceEncoder, all_minilm_l6_v2, folder_of
from bench.encoder import card, fingerprint, select_side
from bench.errors import CheckpointError, Unavailable, UsageError
from bench.tasks.mteb import as_mteb
from tests.adapters.checks import CPU, edit_json
from tests.tiny import SENTENCES, tiny_tokenizer

pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.*:FutureWarning"),  # peft
    pytest.mark.filterwarnings("ignore:.*deprecated.*:FutureWarning"),  # paths of earlier releases
    pytest.mark.filterwarnings("ignore:.*deprecated.*:DeprecationWarning"),
]
TEXTS = [*SENTENCES, "LOUD and Clear", "word " * 400, "🙂"]
SETTINGS = "config_sentence_transformers.json"
PROMPTS = {"query": "the cat: ", "document": "A fox. ", "topic": "film: "}
TOPICS = {"query": "Which country: ", "topic": "Stock prices in "}


def first_release(folder):
    """The transformer in a folder of its own, with PyTorch's weights and the lengths beside it."""
    inner = folder / "0_Transformer"
    inner.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.move(folder / name, inner / name)
    torch.save(safetensors.load_file(folder / "model.safetensors"), inner / "pytorch_model.bin")
    for name in ("model.safetensors", "sentence_bert_config.json", SETTINGS):
        (folder / name).unlink()
    edit_json(inner / "sentence_bert_config.json", max_seq_length=20, do_lower_case=False)
    modules = json.loads((folder / "modules.json").read_text())
    for module in modules:
        module["type"] = f"sentence_transformers.models.{module['type'].rpartition('.')[2]}"
    modules[0]["path"] = "0_Transformer"
    (folder / "modules.json").write_text(json.dumps(modules))


def old_name_of_settings(folder):
    (folder / "sentence_bert_config.json").unlink()
    edit_json(folder / "sentence_roberta_config.json", max_seq_length=12)


def longer_than_its_tokenizer_says(folder):
    edit_json(folder / "tokenizer_config.json", model_max_length=30)
    edit_json(folder / "sentence_bert_config.json", max_seq_length=100)


def words():
    vocabulary = ["PADDING_TOKEN", *{w for text in SENTENCES for w in text.lower().split()}]
    splitter = st.word_embeddings.WhitespaceTokenizer
    table = np.random.default_rng(0).normal(size=(len(vocabulary), 8)).astype(np.float32)
    return st.WordEmbeddings(splitter(vocabulary, stop_words=set(), do_lower_case=True), table)


def static(dim):
    return st.StaticEmbedding(tiny_tokenizer("bert"), embedding_dim=dim)


def on(kind, pooling="mean", dim=32, **options):
    """Return what makes the modules of a tiny transformer and its pooling."""
    own = {name: options.pop(name) for name in ["include_prompt"] if name in options}
    return lambda at: [st.Transformer(at(kind), **options), st.Pooling(dim, pooling, **own)]


def then(make, *further):
    return lambda at: [*make(at), *(module() for module in further)]


PROJECTED = then(on("bert"), lambda: st.Dense(32, 16))
DENSE = then(PROJECTED, st.Normalize)
T5 = then(
    on("t5"),
    lambda: st.Dense(32, 24, bias=False, activation_function=torch.nn.Identity()),
    st.Normalize,
)
LAYERS = {"output_hidden_states": True}
LAYOUTS = {
    "dense": (DENSE, {}),
    "adapted": (PROJECTED, {}),
    "first release": (DENSE, {}, first_release),
    "old name of settings": (on("roberta"), {}, old_name_of_settings),
    "t5": (T5, {}),
    "static": (lambda at: [static(16)], {}),
    "words": (lambda at: [words(), st.LSTM(8, 12), st.Pooling(24)], {}),
    "routed": (
        lambda at: [
            st.Router.for_query_document(
                query_modules=[static(32)], document_modules=on("bert")(at)
            ),
            st.Normalize(),
        ],
        {},
    ),
    "layers": (
        lambda at: [
            st.Transformer(at("bert"), config_kwargs=LAYERS),
            st.WeightedLayerPooling(32, num_hidden_layers=3, layer_start=1),
            st.Pooling(32),
        ],
        {},
    ),
    "lower case": (on("roberta", do_lower_case=True), {}),
    "cut from the left": (
        on("roberta", max_seq_length=16),
        {},
        lambda folder: edit_json(folder / "tokenizer_config.json", truncation_side="left"),
    ),
    "longer than its tokenizer says": (on("bert"), {}, longer_than_its_tokenizer_says),
    "shorter queries": (on("bert", query_length=6, document_length=9), {}),
    "shortened vectors": (on("bert"), {"truncate_dim": 10}),
    "prompted": (on("bert"), {"prompts": PROMPTS, "default_prompt_name": "topic"}),
    "prompt left out": (
        on("bert", include_prompt=False),
        {"prompts": TOPICS, "default_prompt_name": "topic"},
    ),
    "last token": (
        then(on("llama", "lasttoken"), st.Normalize),
        {"prompts": {"query": "Instruct: find\nQuery: "}},
    ),
    "convolved": (lambda at: [st.Transformer(at("bert")), st.CNN(32, 8), st.Pooling(24)], {}),
}
"""Modules, settings, and what is changed after the model was saved."""


@pytest.fixture(scope="module")
def originals(tiny, tmp_path_factory):
    """Return the folder of a layout, saved once."""
    root = tmp_path_factory.mktemp("layouts")
    t5_folder = root / "t5-base"
    tokenizer = tiny_tokenizer("bert")
    config = transformers.T5Config(
        vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4
    )
    transformers.T5ForConditionalGeneration(config).save_pretrained(t5_folder)
    tokenizer.save_pretrained(t5_folder)

    def at(kind):
        return str(t5_folder if kind == "t5" else tiny(kind, head=False))

    def save(layout):
        folder, (modules, settings, *edits) = root / layout, LAYOUTS[layout]
        if folder.exists():
            return folder
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = SentenceTransformer(modules=modules(at), device="cpu", **settings)
            if layout == "adapted":
                options = {"target_modules": "all-linear", "init_lora_weights": False}
                model.add_adapter(peft.LoraConfig(r=4, lora_alpha=64, **options))
            model.save(str(folder))
        for edit in edits:
            edit(folder)
        return folder

    return save


@pytest.fixture
def copied(originals, tmp_path):
    return lambda layout: Path(shutil.copytree(originals(layout), tmp_path / layout))


def on_cpu(folder, **settings):
    return SentenceEncoder(str(folder), **CPU, **settings)


def theirs(folder):
    return SentenceTransformer(str(folder), device="cpu")


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "convolved"])
def test_every_layout_and_side_gives_the_vectors_of_sentence_transformers(layout, originals):
    folder = originals(layout)
    model, ours = theirs(folder), on_cpu(folder)
    texts = TEXTS[:-2] if layout == "words" else TEXTS
    sides = {None: model.encode, "query": model.encode_query, "document": model.encode_document}
    for side, encode in sides.items():
        found = select_side(ours, side).encode(texts)
        np.testing.assert_allclose(found, encode(texts), atol=1e-5)
    assert len(np.unique(found, axis=0)) > 3
    beside = ours.encode([*texts[:1], "half \ud800"])[:1]
    np.testing.assert_allclose(beside, ours.encode(texts)[:1], atol=1e-5)


@pytest.mark.parametrize("layout", ["adapted", "first release", "words", "routed"])
def test_every_file_changes_the_fingerprint_or_is_read_by_no_loader(layout, copied):
    encoder = on_cpu(folder := copied(layout))
    assert (layout == "adapted") == (folder / "adapter_config.json").exists()
    before, unread = fingerprint(encoder), []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        original = path.read_bytes()
        binary = path.suffix in {".safetensors", ".bin"}
        path.write_bytes(original[:-1] + bytes([original[-1] ^ 1]) if binary else original + b"\n")
        if fingerprint(encoder) == before:
            unread.append(path)
        assert (path in unread) == any(fnmatch(path.name, pattern) for pattern in UNREAD), path
        path.write_bytes(original)
    for path in unread:
        path.write_bytes(b"")
    np.testing.assert_allclose(
        encoder.encode(SENTENCES), theirs(folder).encode([*SENTENCES]), atol=1e-5
    )


def test_weights_in_a_second_format_are_neither_read_nor_part_of_the_identity(copied):
    encoder = on_cpu(folder := copied("dense"))
    before, vectors = fingerprint(encoder), encoder.encode(SENTENCES)
    for place in (folder, folder / "2_Dense"):
        (place / "pytorch_model.bin").write_bytes(b"not read")
    assert fingerprint(encoder) == before
    np.testing.assert_allclose(on_cpu(folder).encode(SENTENCES), vectors, atol=1e-5)


def test_prompts_are_chosen_by_name_or_in_words_and_are_part_of_the_identity(originals):
    folder = originals("prompted")
    model, texts = theirs(folder), list(SENTENCES)
    asked = on_cpu(folder, query_prompt="Say: ")
    named = on_cpu(folder, prompt="query")
    cases = [
        (on_cpu(folder), model.encode(texts)),
        (on_cpu(folder, prompt=""), model.encode(texts, prompt="")),
        (named, model.encode_query(texts)),
        (on_cpu(folder, prompt="Say: "), model.encode(texts, prompt="Say: ")),
    ]
    for encoder, expected in [*cases, (select_side(asked, "query"), cases[-1][1])]:
        np.testing.assert_allclose(encoder.encode(texts), expected, atol=1e-5)
    assert len({fingerprint(e) for e in (asked, *(encoder for encoder, _ in cases))}) == 5
    assert fingerprint(on_cpu(folder, prompt="the cat: ")) == fingerprint(named)
    assert fingerprint(select_side(cases[0][0], "query")) == fingerprint(named)
    with pytest.raises(UsageError, match="document, query, topic"):
        on_cpu(folder, prompt="web search").encode(texts)


def test_retrieval_ranks_by_the_similarity_in_the_settings(copied):
    folder = copied("prompted")
    assert on_cpu(folder).similarity == theirs(folder).similarity_fn_name == "cosine"
    edit_json(folder / SETTINGS, similarity_fn_name="dot")
    left, right = on_cpu(folder).encode(["a b", "c"]), on_cpu(folder).encode(["the cat"])
    model = theirs(folder)
    found = as_mteb(on_cpu(folder))
    torch.testing.assert_close(found.similarity(left, right), model.similarity(left, right))
    torch.testing.assert_close(
        found.similarity_pairwise(left, left), model.similarity_pairwise(left, left)
    )
    edit_json(folder / SETTINGS, similarity_fn_name="manhattan")
    with pytest.raises(CheckpointError, match="manhattan"):
        on_cpu(folder).similarity  # noqa: B018


def test_the_packaged_model_has_no_prompts_and_is_known_without_its_files(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_DOWNLOADS", str(tmp_path))
    encoder = SentenceEncoder(**CPU)
    assert fingerprint(encoder) == fingerprint(select_side(encoder, "query")) == "5c4f8783778f6344"
    assert fingerprint(replace(encoder, prompt="a: ")) != "5c4f8783778f6344"
    assert not list(tmp_path.iterdir())


def test_a_tuned_model_has_the_card_of_all_its_weights(originals):
    tuned, untouched = on_cpu(originals("adapted")), on_cpu(originals("dense"))
    assert card(tuned).parameters > card(untouched).parameters
    assert card(tuned).backbone == "adapted"
    assert fingerprint(tuned) != fingerprint(untouched)
    layers = card(untouched).multiplications - 32 * 16 - 16  # without the module after them
    assert card(tuned).multiplications == layers
    found = card(on_cpu(originals("t5")))
    tables = found.parameters - found.multiplications
    assert found.embedding_parameters == tables > 32 * 100
    assert card(on_cpu(originals("static"))).embedding_parameters is None  # and none is known


def test_token_states_keep_special_tokens_as_empty_spans_where_there_are_any(originals):
    for layout in ("dense", "adapted"):
        [tokens] = on_cpu(originals(layout)).encode_tokens(["no rain"])
        assert tokens.spans.tolist() == [[0, 0], [0, 2], [3, 7], [0, 0]]
        assert tokens.states.shape == (4, 32)
    with pytest.raises(Unavailable, match="no token states"):
        on_cpu(originals("static")).encode_tokens(["a"])


def drop_a_tensor(path):
    state = safetensors.load_file(path)
    del state["encoder.layer.1.output.dense.weight"]
    safetensors.save_file(state, path, metadata={"format": "pt"})


def use_foreign_code(folder):
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["type"] = "modeling_evil.Pooling"
    (folder / "modules.json").write_text(json.dumps(modules))


INNER = "document_0_Transformer/model.safetensors"
LOST = r"output\.dense\.weight"
SPOILT = (
    ("dense", lambda folder: (folder / "2_Dense/model.safetensors").unlink(), "cannot load"),
    ("dense", lambda folder: drop_a_tensor(folder / "model.safetensors"), LOST),
    ("routed", lambda folder: drop_a_tensor(folder / INNER), LOST),
    ("convolved", lambda folder: None, "CNN"),
    ("dense", lambda folder: edit_json(folder / SETTINGS, model_type="SparseEncoder"), "Sparse"),
    ("prompted", lambda folder: edit_json(folder / SETTINGS, default_prompt_name="none"), "none"),
    ("dense", lambda folder: shutil.rmtree(folder / "1_Pooling"), "cannot load"),
    ("dense", lambda folder: (folder / "modules.json").unlink(), r"modules\.json"),
    ("dense", use_foreign_code, "never run"),
)


@pytest.mark.parametrize(("layout", "spoil", "problem"), SPOILT)
def test_what_is_incomplete_or_of_another_kind_is_one_line(layout, spoil, problem, copied):
    folder = copied(layout)
    spoil(folder)
    with pytest.raises(CheckpointError, match=problem):
        on_cpu(folder).encode(["a"])


def test_the_packaged_model_equals_sentence_transformers_and_its_pinned_card():
    try:
        folder = folder_of("all-MiniLM-L6-v2")
    except Unavailable as error:
        pytest.skip(str(error))
    encoder = all_minilm_l6_v2()
    expected = theirs(folder).encode(TEXTS)
    np.testing.assert_allclose(replace(encoder, **CPU).encode(TEXTS), expected, atol=1e-5)
    # bfloat16 keeps 8 bits: a cosine moves by less than a thousandth
    half = replace(encoder, dtype="bfloat16", device="cpu").encode(TEXTS)
    assert (half * expected).sum(1).min() > 0.999
    assert encoder.card().parameters == parameters_of(folder)
    assert encoder.card().embedding_parameters == looked_up_parameters_of(folder)
