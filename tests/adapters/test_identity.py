"""An encoder's identity covers every byte that shapes its vectors."""

import shutil
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from tokenizers import processors

import adapters
from adapters._source import UNREAD
from adapters.baseline.pooled import Pooled
from adapters.dino.encoder import DINO
from adapters.inbedder.encoder import InBedder
from adapters.llm2comp.encoder import LLM2Comp
from adapters.quip.encoder import QuIP
from bench.encoder import fingerprint
from tests.adapters.checks import CPU, load_network, read_plain
from tests.tiny import SENTENCES, tiny_folder, tiny_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.*:FutureWarning")  # peft


def adapter_folder(base: Path, folder: Path, *, seed: int = 0) -> Path:
    """Write LoRA weights that change a tiny model, as peft saves them, without a tokenizer."""
    config = peft.LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        peft.get_peft_model(read_plain(base)[1], config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bert(tiny):
    return tiny("bert", head=False)


def tuned(base: Path, folder: Path) -> Path:
    """Write LoRA weights with a tokenizer of their own."""
    tiny_tokenizer("bert").save_pretrained(adapter_folder(base, folder))
    return folder


LAYOUTS = {"transformers": (Pooled, shutil.copytree), "adapter": (Pooled, tuned)}
LAYOUTS |= {"dino": (DINO, None), "inbedder": (InBedder, None)}
LAYOUTS |= {"llm2comp": (LLM2Comp, None), "quip": (QuIP, None)}
"""The encoder of each layout, and what makes a folder; of the others there are default weights."""

NOT_READ = {"llm2comp": ("card.json",)}
"""Files that the loaders of one layout do not open, besides those that none does."""


def change(data: bytes, suffix: str) -> bytes:
    """Change content and keep it readable: a byte of the weights, or white space of text."""
    binary = suffix in {".safetensors", ".bin", ".npy", ".u64"}
    return data[:-1] + bytes([data[-1] ^ 1]) if binary else data + b"\n"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_file_of_a_layout_changes_the_fingerprint_or_is_read_by_no_loader(
    layout, bert, tmp_path
):
    kind, make = LAYOUTS[layout]
    folder = tmp_path / "model"
    if make is None:
        shutil.copytree(Path(adapters.__path__[0]) / layout / "checkpoint", folder)
    else:
        make(bert, folder)
    (folder / "README.md").write_text("words")
    encoder, unread = kind(str(folder), **CPU), (*UNREAD, *NOT_READ.get(layout, ()))
    before = fingerprint(encoder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    assert len(files) > 3
    for path in files:
        original = path.read_bytes()
        path.write_bytes(change(original, path.suffix))
        same = fingerprint(encoder) == before
        assert same == any(fnmatch(path.name, pattern) for pattern in unread), path
        path.write_bytes(original)
    assert fingerprint(encoder) == before


def test_weights_replaced_in_place_are_read_anew_under_a_new_fingerprint(bert, tmp_path):
    base = shutil.copytree(bert, tmp_path / "base")
    adapted = Pooled(str(adapter_folder(base, tmp_path / "adapter")), **CPU)
    for encoder in (adapted, replace(adapted, checkpoint=str(base))):
        before, vectors = fingerprint(encoder), encoder.encode(SENTENCES)
        tiny_folder("bert", base, seed=1)
        assert fingerprint(encoder) != before
        assert not np.allclose(encoder.encode(SENTENCES), vectors, atol=1e-2)
        tiny_folder("bert", base)


def test_weights_beside_safetensors_that_no_loader_opens_are_part_of_the_identity(bert, tmp_path):
    folder = shutil.copytree(bert, tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "model.fp16.safetensors")
    encoder, found = Pooled(str(folder), **CPU), []
    for seed in (0, 1):
        torch.save(
            read_plain(tiny_folder("bert", tmp_path / "other", seed=seed))[1].state_dict(),
            folder / "pytorch_model.bin",
        )
        found.append((fingerprint(encoder), encoder.encode(SENTENCES)))
    assert found[0][0] != found[1][0]
    assert not np.allclose(found[0][1], found[1][1], atol=1e-2)


def test_an_adapter_is_read_with_its_own_tokenizer(tiny, tmp_path):
    folder = adapter_folder(tiny("llama"), tmp_path / "adapter")
    tokenizer = tiny_tokenizer("llama")
    end = [("<|im_end|>", tokenizer.eos_token_id)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|im_end|>", special_tokens=end
    )
    plain = load_network(folder).tokenizer("no").input_ids
    tokenizer.save_pretrained(folder)
    assert load_network(folder).tokenizer("no").input_ids == [*plain, tokenizer.eos_token_id]
