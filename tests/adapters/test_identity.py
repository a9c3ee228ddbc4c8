"""An encoder's identity covers every byte that shapes its vectors."""

import shutil
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from adapters._backbone import Backbone  # noqa: E402
from adapters._source import UNREAD, make_once  # noqa: E402
from adapters.baseline.pooled import Pooled  # noqa: E402
from adapters.dino.encoder import DINO  # noqa: E402
from adapters.inbedder.encoder import InBedder  # noqa: E402
from adapters.llm2comp.encoder import LLM2Comp  # noqa: E402
from adapters.quip.encoder import QuIP  # noqa: E402
from bench.encoder import fingerprint  # noqa: E402
from tests.tiny import SENTENCES, tiny_folder, tiny_tokenizer  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.*:FutureWarning")  # peft


def adapter_folder(base: Path, folder: Path, *, seed: int = 0) -> Path:
    """Write LoRA weights that change a tiny model, as peft saves them, without a tokenizer."""
    import transformers

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.AutoModel.from_pretrained(base)
        config = peft.LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
        peft.get_peft_model(model, config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return tiny_folder("bert", tmp_path_factory.mktemp("bert"))


def tuned(base: Path, folder: Path) -> Path:
    """Write LoRA weights with a tokenizer of their own."""
    tiny_tokenizer("bert").save_pretrained(adapter_folder(base, folder))
    return folder


def shipped(name: str, _base: Path, folder: Path) -> Path:
    """Copy a method's default weights."""
    import adapters

    return shutil.copytree(Path(adapters.__file__).parent / name / "checkpoint", folder)


LAYOUTS = {
    "transformers": (Pooled, shutil.copytree),
    "adapter": (Pooled, tuned),
    "dino": (DINO, lambda base, folder: shipped("dino", base, folder)),
    "inbedder": (InBedder, lambda base, folder: shipped("inbedder", base, folder)),
    "llm2comp": (LLM2Comp, lambda base, folder: shipped("llm2comp", base, folder)),
    "quip": (QuIP, lambda base, folder: shipped("quip", base, folder)),
}

NOT_READ = {"llm2comp": ("card.json",)}
"""Files that the loaders of one layout do not open, besides those that none does."""


def change(path: Path) -> None:
    """Change a file and keep it readable: a byte of the weights, or white space of text."""
    data = path.read_bytes()
    if path.suffix in {".safetensors", ".bin", ".npy", ".u64"}:
        data = data[:-1] + bytes([data[-1] ^ 1])
    else:
        data += b"\n"
    path.write_bytes(data)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_file_of_a_layout_changes_the_fingerprint_or_is_read_by_no_loader(
    layout, bert, tmp_path
):
    kind, make = LAYOUTS[layout]
    folder = make(bert, tmp_path / "model")
    (folder / "README.md").write_text("words")
    encoder = kind(str(folder), device="cpu", dtype="float32")
    before = fingerprint(encoder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    assert len(files) > 3
    for path in files:
        original = path.read_bytes()
        change(path)
        unread = any(
            fnmatch(path.name, pattern) for pattern in (*UNREAD, *NOT_READ.get(layout, ()))
        )
        assert (fingerprint(encoder) == before) == unread, path
        path.write_bytes(original)
    assert fingerprint(encoder) == before


def test_weights_replaced_in_place_are_read_anew_under_a_new_fingerprint(bert, tmp_path):
    base = shutil.copytree(bert, tmp_path / "base")
    adapted = Pooled(str(adapter_folder(base, tmp_path / "adapter")), device="cpu", dtype="float32")
    for encoder in (adapted, replace(adapted, checkpoint=str(base))):
        before, vectors = fingerprint(encoder), encoder.encode(SENTENCES)
        tiny_folder("bert", base, seed=1)
        assert fingerprint(encoder) != before
        assert not np.allclose(encoder.encode(SENTENCES), vectors, atol=1e-2)
        tiny_folder("bert", base)


def test_an_adapter_is_read_with_its_own_tokenizer(tmp_path):
    from tokenizers import processors

    base = tiny_folder("llama", tmp_path / "base")
    folder = adapter_folder(base, tmp_path / "adapter")
    tokenizer = tiny_tokenizer("llama")
    end = [("<|im_end|>", tokenizer.eos_token_id)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|im_end|>", special_tokens=end
    )
    assert Backbone(str(folder), device="cpu").load().tokenizer("no").input_ids[-1] != end[0][1]
    tokenizer.save_pretrained(folder)
    found = Backbone(str(folder), device="cpu").load()
    assert found.tokenizer("no").input_ids[-1] == end[0][1]
    assert (
        Backbone(str(base), device="cpu").load().tokenizer("no").input_ids
        == found.tokenizer("no").input_ids[:-1]
    )


@pytest.mark.parametrize("fault", ["changed", "added", "removed", "unlisted"])
def test_a_damaged_folder_in_the_cache_is_made_again(fault, tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_DOWNLOADS", str(tmp_path))

    def make(target):
        (target / "1_Dense").mkdir(parents=True)
        (target / "1_Dense" / "weights").write_bytes(b"0123")
        (target / "config").write_text("{}")

    folder = make_once("name", make)
    if fault == "changed":
        (folder / "1_Dense" / "weights").write_bytes(b"0124")
    elif fault == "added":
        (folder / "added_tokens").write_text("{}")
    elif fault == "removed":
        (folder / "config").unlink()
    else:  # as earlier releases left it
        (folder / ".sha256.json").unlink()
        (folder / "config").write_text("{ }")
    assert make_once("name", make) == folder
    assert (folder / "1_Dense" / "weights").read_bytes() == b"0123"
    assert (folder / "config").read_text() == "{}"
    assert {path.name for path in folder.iterdir()} == {"1_Dense", "config", ".sha256.json"}
    assert [path.name for path in folder.parent.iterdir()] == ["name"]
