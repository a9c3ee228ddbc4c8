"""Sentence-transformers models of every layout give the vectors of sentence-transformers."""

import json
import shutil
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
safetensors = pytest.importorskip("safetensors.torch")
sentence_transformers = pytest.importorskip("sentence_transformers")

from adapters._source import UNREAD, looked_up_parameters_of, parameters_of  # noqa: E402
from adapters.baseline.sentence import (  # noqa: E402
    SentenceEncoder,
    all_minilm_l6_v2,
    folder_of,
)
from bench.encoder import card, fingerprint, select_side  # noqa: E402
from bench.errors import CheckpointError, Unavailable, UsageError  # noqa: E402
from tests.tiny import SENTENCES, tiny_folder, tiny_tokenizer  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.*:FutureWarning"),  # peft
    pytest.mark.filterwarnings("ignore:.*deprecated.*:FutureWarning"),  # paths of earlier releases
    pytest.mark.filterwarnings("ignore:.*deprecated.*:DeprecationWarning"),
]
st = sentence_transformers.sentence_transformer.modules
TEXTS = [*SENTENCES, "LOUD and Clear", "word " * 400, "🙂"]


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Folders of tiny transformers by kind, random modules always the same."""
    root = tmp_path_factory.mktemp("parts")
    return {kind: tiny_folder(kind, root / kind) for kind in ("bert", "roberta", "llama")}


def saved(folder: Path, *modules, prompts=None, default=None, **settings) -> Path:
    """Save a model of these modules."""
    model = sentence_transformers.SentenceTransformer(
        modules=list(modules),
        device="cpu",
        prompts=prompts,
        default_prompt_name=default,
        **settings,
    )
    model.save(str(folder))
    return folder


def edited(path: Path, **values) -> None:
    """Set values of a JSON file."""
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(known | values))


def dense(parts, folder):
    return saved(
        folder, st.Transformer(str(parts["bert"])), st.Pooling(32), st.Dense(32, 16), st.Normalize()
    )


def adapted(parts, folder):
    transformer = st.Transformer(str(parts["bert"]))
    model = sentence_transformers.SentenceTransformer(
        modules=[transformer, st.Pooling(32), st.Dense(32, 16)], device="cpu"
    )
    model.add_adapter(
        peft.LoraConfig(r=4, lora_alpha=64, target_modules="all-linear", init_lora_weights=False)
    )
    model.save(str(folder))
    assert not (folder / "config.json").exists()
    return folder


def first_release(parts, folder):
    """The transformer in a folder of its own, with PyTorch's weights and the lengths beside it."""
    dense(parts, folder)
    inner = folder / "0_Transformer"
    inner.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.move(folder / name, inner / name)
    torch.save(safetensors.load_file(folder / "model.safetensors"), inner / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    (folder / "sentence_bert_config.json").unlink()
    (folder / "config_sentence_transformers.json").unlink()
    edited(inner / "sentence_bert_config.json", max_seq_length=20, do_lower_case=False)
    modules = json.loads((folder / "modules.json").read_text())
    for module in modules:
        kind = module["type"].rpartition(".")[2]
        module["type"] = f"sentence_transformers.models.{kind}"
    modules[0]["path"] = "0_Transformer"
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


def old_name_of_settings(parts, folder):
    saved(folder, st.Transformer(str(parts["roberta"])), st.Pooling(32))
    (folder / "sentence_bert_config.json").unlink()
    edited(folder / "sentence_roberta_config.json", max_seq_length=12)
    return folder


def t5(parts, folder):
    import transformers

    base, tokenizer = folder.with_name("t5"), tiny_tokenizer("bert")
    config = transformers.T5Config(
        vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4
    )
    transformers.T5ForConditionalGeneration(config).save_pretrained(base)
    tokenizer.save_pretrained(base)
    project = st.Dense(32, 24, bias=False, activation_function=torch.nn.Identity())
    return saved(folder, st.Transformer(str(base)), st.Pooling(32), project, st.Normalize())


def static(parts, folder):
    return saved(folder, st.StaticEmbedding(tiny_tokenizer("bert"), embedding_dim=16))


def words(parts, folder):
    vocabulary = ["PADDING_TOKEN", *{w for text in SENTENCES for w in text.lower().split()}]
    tokenizer = st.word_embeddings.WhitespaceTokenizer(
        vocabulary, stop_words=set(), do_lower_case=True
    )
    table = np.random.default_rng(0).normal(size=(len(vocabulary), 8)).astype(np.float32)
    embeddings = st.WordEmbeddings(tokenizer, table)
    return saved(folder, embeddings, st.LSTM(8, 12), st.Pooling(24))


def routed(parts, folder):
    router = st.Router.for_query_document(
        query_modules=[st.StaticEmbedding(tiny_tokenizer("bert"), embedding_dim=32)],
        document_modules=[st.Transformer(str(parts["bert"])), st.Pooling(32)],
    )
    return saved(folder, router, st.Normalize())


def convolved(parts, folder):
    return saved(folder, st.Transformer(str(parts["bert"])), st.CNN(32, 8), st.Pooling(24))


def layers(parts, folder):
    config = {"output_hidden_states": True}
    transformer = st.Transformer(str(parts["bert"]), config_kwargs=config)
    weighted = st.WeightedLayerPooling(32, num_hidden_layers=3, layer_start=1)
    return saved(folder, transformer, weighted, st.Pooling(32))


def lower_case(parts, folder):
    return saved(folder, st.Transformer(str(parts["roberta"]), do_lower_case=True), st.Pooling(32))


def cut_from_the_left(parts, folder):
    saved(folder, st.Transformer(str(parts["roberta"]), max_seq_length=16), st.Pooling(32))
    edited(folder / "tokenizer_config.json", truncation_side="left")
    return folder


def longer_than_its_tokenizer_says(parts, folder):
    saved(folder, st.Transformer(str(parts["bert"])), st.Pooling(32))
    edited(folder / "tokenizer_config.json", model_max_length=30)
    edited(folder / "sentence_bert_config.json", max_seq_length=100)
    return folder


def shorter_queries(parts, folder):
    transformer = st.Transformer(str(parts["bert"]), query_length=6, document_length=9)
    return saved(folder, transformer, st.Pooling(32))


def shortened_vectors(parts, folder):
    modules = st.Transformer(str(parts["bert"])), st.Pooling(32)
    return saved(folder, *modules, truncate_dim=10)


def prompted(parts, folder):
    prompts = {"query": "the cat: ", "document": "A fox. ", "topic": "film: "}
    modules = st.Transformer(str(parts["bert"])), st.Pooling(32)
    return saved(folder, *modules, prompts=prompts, default="topic")


def prompt_left_out(parts, folder):
    prompts = {"query": "Which country: ", "topic": "Stock prices in "}
    modules = st.Transformer(str(parts["bert"])), st.Pooling(32, include_prompt=False)
    return saved(folder, *modules, prompts=prompts, default="topic")


def last_token(parts, folder):
    prompts = {"query": "Instruct: find\nQuery: "}
    modules = st.Transformer(str(parts["llama"])), st.Pooling(32, "lasttoken"), st.Normalize()
    return saved(folder, *modules, prompts=prompts)


LAYOUTS = (
    dense,
    adapted,
    first_release,
    old_name_of_settings,
    t5,
    static,
    words,
    routed,
    layers,
    lower_case,
    cut_from_the_left,
    longer_than_its_tokenizer_says,
    shorter_queries,
    shortened_vectors,
    prompted,
    prompt_left_out,
    last_token,
)


def made(layout, parts, folder):
    """Copy a model of the layout, which is made once."""
    original = parts["bert"].with_name(layout.__name__) / "model"
    if not original.exists():
        original.parent.mkdir()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            layout(parts, original)
    return Path(shutil.copytree(original, folder))


def on_cpu(folder, **settings):
    return SentenceEncoder(str(folder), dtype="float32", device="cpu", **settings)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_and_side_gives_the_vectors_of_sentence_transformers(layout, parts, tmp_path):
    folder = made(layout, parts, tmp_path / "model")
    theirs = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    ours, texts = on_cpu(folder), TEXTS[:-2] if layout is words else TEXTS
    for side, expected in (
        (None, theirs.encode),
        ("query", theirs.encode_query),
        ("document", theirs.encode_document),
    ):
        found = select_side(ours, side).encode(texts)
        np.testing.assert_allclose(found, expected(list(texts)), atol=1e-5)
    assert len(np.unique(found, axis=0)) > 3


@pytest.mark.parametrize("layout", [adapted, first_release, words, routed])
def test_every_file_changes_the_fingerprint_or_is_read_by_no_loader(layout, parts, tmp_path):
    encoder = on_cpu(folder := made(layout, parts, tmp_path / "model"))
    before = fingerprint(encoder)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        original = path.read_bytes()
        binary = path.suffix in {".safetensors", ".bin"}
        path.write_bytes(original[:-1] + bytes([original[-1] ^ 1]) if binary else original + b"\n")
        unread = any(fnmatch(path.name, pattern) for pattern in UNREAD)
        assert (fingerprint(encoder) == before) == unread, path
        path.write_bytes(original)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if any(fnmatch(path.name, pattern) for pattern in UNREAD):
            path.write_bytes(b"")
    expected = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    texts = list(SENTENCES)
    np.testing.assert_allclose(encoder.encode(texts), expected.encode(texts), atol=1e-5)


def test_weights_in_a_second_format_are_neither_read_nor_part_of_the_identity(parts, tmp_path):
    encoder = on_cpu(folder := made(dense, parts, tmp_path / "model"))
    before = fingerprint(encoder)
    for place in (folder, folder / "2_Dense"):
        (place / "pytorch_model.bin").write_bytes(b"not read")
    assert fingerprint(encoder) == before
    theirs = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    texts = list(SENTENCES)
    np.testing.assert_allclose(encoder.encode(texts), theirs.encode(texts), atol=1e-5)


def test_prompts_are_chosen_by_name_or_in_words_and_are_part_of_the_identity(parts, tmp_path):
    folder = made(prompted, parts, tmp_path / "model")
    theirs = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    texts = list(SENTENCES)
    by_default, none, named, words = (
        on_cpu(folder, prompt=prompt) for prompt in (None, "", "query", "Say: ")
    )
    np.testing.assert_allclose(by_default.encode(texts), theirs.encode(texts), atol=1e-5)
    np.testing.assert_allclose(none.encode(texts), theirs.encode(texts, prompt=""), atol=1e-5)
    np.testing.assert_allclose(named.encode(texts), theirs.encode_query(texts), atol=1e-5)
    np.testing.assert_allclose(words.encode(texts), theirs.encode(texts, prompt="Say: "), atol=1e-5)
    asked = on_cpu(folder, query_prompt="Say: ")
    np.testing.assert_allclose(
        select_side(asked, "query").encode(texts), theirs.encode(texts, prompt="Say: "), atol=1e-5
    )
    assert len({fingerprint(e) for e in (by_default, none, named, words, asked)}) == 5
    assert fingerprint(on_cpu(folder, prompt="the cat: ")) == fingerprint(named)
    assert fingerprint(select_side(by_default, "query")) == fingerprint(named)
    with pytest.raises(UsageError, match="document, query, topic"):
        on_cpu(folder, prompt="web search").encode(texts)


def test_the_packaged_model_has_no_prompts_and_is_known_without_its_files(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_DOWNLOADS", str(tmp_path))
    encoder = SentenceEncoder(dtype="float32", device="cpu")
    assert fingerprint(encoder) == fingerprint(select_side(encoder, "query")) == "5c4f8783778f6344"
    assert (
        fingerprint(SentenceEncoder(dtype="float32", device="cpu", prompt="a: "))
        != "5c4f8783778f6344"
    )
    assert not list(tmp_path.iterdir())


def test_a_tuned_model_has_the_card_of_all_its_weights(parts, tmp_path):
    untouched = made(dense, parts, tmp_path / "untouched")
    folder = made(adapted, parts, tmp_path / "tuned")
    assert card(on_cpu(folder)).parameters > card(on_cpu(untouched)).parameters
    assert card(on_cpu(folder)).backbone == "tuned"
    assert fingerprint(on_cpu(folder)) != fingerprint(on_cpu(untouched))
    assert len(on_cpu(folder).encode_tokens(["no rain"])[0].states) == 4


def test_a_text_is_encoded_in_the_same_way_in_any_company(parts, tmp_path):
    for layout in (routed, static, t5):
        encoder = on_cpu(made(layout, parts, tmp_path / layout.__name__))
        together = encoder.encode([*TEXTS, "half \ud800"])
        alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
        np.testing.assert_allclose(together[:-1], alone, atol=1e-5)


def test_token_states_keep_special_tokens_as_empty_spans_where_there_are_any(parts, tmp_path):
    [tokens] = on_cpu(made(dense, parts, tmp_path / "dense")).encode_tokens(["no rain"])
    assert tokens.spans.tolist() == [[0, 0], [0, 2], [3, 7], [0, 0]]
    assert tokens.states.shape == (4, 32)
    with pytest.raises(Unavailable, match="no token states"):
        on_cpu(made(static, parts, tmp_path / "model")).encode_tokens(["a"])


def without_a_tensor(path):
    state = safetensors.load_file(path)
    del state["encoder.layer.1.output.dense.weight"]
    safetensors.save_file(state, path, metadata={"format": "pt"})


def of_foreign_code(folder):
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["type"] = "modeling_evil.Pooling"
    (folder / "modules.json").write_text(json.dumps(modules))


SETTINGS = "config_sentence_transformers.json"
SPOILT = (
    (dense, lambda folder: (folder / "2_Dense" / "model.safetensors").unlink(), "cannot load"),
    (
        dense,
        lambda folder: without_a_tensor(folder / "model.safetensors"),
        r"output\.dense\.weight",
    ),
    (
        routed,
        lambda folder: without_a_tensor(folder / "document_0_Transformer" / "model.safetensors"),
        r"output\.dense\.weight",
    ),
    (convolved, lambda folder: None, "CNN"),
    (dense, lambda folder: edited(folder / SETTINGS, model_type="SparseEncoder"), "SparseEncoder"),
    (prompted, lambda folder: edited(folder / SETTINGS, default_prompt_name="none such"), "none"),
    (dense, lambda folder: shutil.rmtree(folder / "1_Pooling"), "cannot load"),
    (dense, lambda folder: (folder / "modules.json").unlink(), r"modules\.json"),
    (dense, of_foreign_code, "never run"),
)


@pytest.mark.parametrize(("layout", "spoil", "words"), SPOILT)
def test_what_is_incomplete_or_of_another_kind_is_one_line(layout, spoil, words, parts, tmp_path):
    folder = made(layout, parts, tmp_path / "model")
    spoil(folder)
    with pytest.raises(CheckpointError, match=words):
        on_cpu(folder).encode(["a"])


def test_the_packaged_model_equals_sentence_transformers_and_its_pinned_card():
    try:
        folder = folder_of("all-MiniLM-L6-v2")
    except Unavailable as error:
        pytest.skip(str(error))
    encoder, texts = all_minilm_l6_v2(), list(TEXTS)
    theirs = sentence_transformers.SentenceTransformer(str(folder), device="cpu").encode(texts)
    found = replace(encoder, dtype="float32", device="cpu").encode(texts)
    np.testing.assert_allclose(found, theirs, atol=1e-5)
    # bfloat16 keeps 8 bits: a cosine moves by less than a thousandth
    half = replace(encoder, dtype="bfloat16", device="cpu").encode(texts)
    assert (half * theirs).sum(1).min() > 0.999
    assert encoder.card().parameters == parameters_of(folder)
    assert encoder.card().embedding_parameters == looked_up_parameters_of(folder)
