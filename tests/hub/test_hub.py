"""Models and data sets by id, through the hub's own client, from a server on loopback."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr

from adapters.baseline.pooled import Pooled
from tests.hub.server import TOKEN
from tests.tiny import SENTENCES, tiny_folder

PAIRS = "tasks:PAIRS"
CARD = """---
configs:
- config_name: en
  data_files:
  - split: test
    path: en/test.parquet
---
"""


ROWS = {
    "sentence1": SENTENCES[:6],
    "sentence2": [*SENTENCES[1:6], SENTENCES[0]],
    "score": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0],
}


def pairs(folder: Path) -> Path:
    """Write a data set of pairs as Parquet with one configuration, as its repository would be."""
    (folder / "en").mkdir(parents=True)
    pd.DataFrame(ROWS).to_parquet(folder / "en" / "test.parquet")
    (folder / "README.md").write_text(CARD)
    return folder


@pytest.fixture(scope="module")
def data(server, tmp_path_factory):
    return server.push("datasets", "org/pairs", pairs(tmp_path_factory.mktemp("data") / "pairs"))


def cell(folder: Path) -> dict:
    """Return the one result in a folder of results."""
    (path,) = [
        path for path in (folder / "results").rglob("*.json") if path.parent.name != "results"
    ]
    return json.loads(path.read_text())


def expected(folder: Path) -> float:
    """Return the score of a model in a folder on the pairs, computed here."""
    encoder = Pooled(str(folder), dtype="float32", device="cpu")
    left, right = (encoder.encode(list(ROWS[side])) for side in ("sentence1", "sentence2"))
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return pytest.approx(spearmanr((left * right).sum(axis=1) / norms, ROWS["score"]).statistic)


def score(bench, folder: Path, model: str, *options: str, **env: str) -> float:
    """Return the score of the task of pairs."""
    command = ["run", "-m", model, "-t", PAIRS, "--dtype", "float32", *options]
    said = bench(*command, folder=folder, **env)
    assert said.code == 0, said.output
    return cell(folder)["scores"]["cosine_spearman"]["mean"]


def sharded(folder: Path, *, safe: bool) -> Path:
    """Write a tiny model whose weights are in several files."""
    from transformers import AutoModel

    tiny_folder("llama", folder)
    model = AutoModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    if safe:
        model.save_pretrained(folder, max_shard_size="20KB")
        assert len(list(folder.glob("*.safetensors"))) > 1
        return folder
    state = model.state_dict()
    names = sorted(state)
    weight_map = {}
    for part in (0, 1):
        file = f"pytorch_model-{part + 1:05d}-of-00002.bin"
        kept = names[part::2]
        torch.save({name: state[name] for name in kept}, folder / file)
        weight_map |= dict.fromkeys(kept, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return folder


def test_models_and_data_by_id_score_as_the_same_files_in_a_folder(server, bench, data, tmp_path):
    folder = tiny_folder("llama", tmp_path / "tiny")
    commit = server.push("models", "org/tiny", folder)
    assert score(bench, tmp_path / "a", "backbone-mean:org/tiny") == expected(folder)
    found = cell(tmp_path / "a")
    (used,) = found["provenance"]["data"]
    assert (used["id"], used["source"], used["revision"]) == ("org/pairs", "hub", data)
    assert commit[:7] in found["card"]["backbone"]
    assert found["card"]["weights"] == Pooled(str(folder)).card().weights


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
def test_shards_are_downloaded_and_read_and_offline_the_cache_serves_them(
    server, bench, data, tmp_path, safe
):
    name = f"backbone-mean:org/shards-{safe}"
    folder = sharded(tmp_path / "shards", safe=safe)
    server.push("models", f"org/shards-{safe}", folder)
    (folder / "training_args.bin").write_bytes(b"not weights")
    if safe:  # beside safetensors nobody needs other weights
        shutil.copy(folder / "training_args.bin", folder / "pytorch_model.bin")
    server.sent.clear()
    online = score(bench, tmp_path / "a", name)
    assert online == expected(folder)
    assert not {"training_args.bin", "pytorch_model.bin"} & set(server.sent)
    with server.offline():
        assert score(bench, tmp_path / "b", name) == online


def test_a_revision_is_what_it_was_when_the_branch_moves_on(server, bench, data, tmp_path):
    first = server.push("models", "org/moving", tiny_folder("llama", tmp_path / "first", seed=1))
    server.push("models", "org/moving", tiny_folder("llama", tmp_path / "second", seed=2))
    newest = score(bench, tmp_path / "a", "backbone-mean:org/moving")
    pinned = score(bench, tmp_path / "b", f"backbone-mean:org/moving@{first}")
    assert newest == expected(tmp_path / "second")
    assert pinned == expected(tmp_path / "first")
    assert pinned != newest


@pytest.mark.parametrize("kind", ["models", "datasets"])
def test_what_is_private_needs_a_token(server, bench, data, tmp_path, kind):
    name = "org/secret" if kind == "models" else "org/secret-pairs"
    make = tiny_folder if kind == "models" else lambda _, folder: pairs(folder)
    server.push(kind, name, make("llama", tmp_path / "secret"))
    server.repositories[kind, name].private = True
    private = (f"backbone-mean:{name}", PAIRS) if kind == "models" else ("hashing", "tasks:PRIVATE")
    command = ("run", "-m", private[0], "-t", private[1])
    refused = bench(*command)
    assert (refused.code, refused.crashed) == (1, False)
    assert name in refused.output
    assert kind == "datasets" or "HF_TOKEN" in refused.output
    assert bench(*command, HF_TOKEN=TOKEN).code == 0


@pytest.mark.parametrize("name", ["org/nothing", "org/tiny-revisions@no-such-branch"])
def test_what_is_not_there_is_named_in_one_line(server, bench, data, tmp_path, name):
    server.push("models", "org/tiny-revisions", tiny_folder("llama", tmp_path / "model"))
    missing = bench("run", "-m", f"backbone-mean:{name}", "-t", PAIRS)
    assert (missing.code, missing.crashed) == (1, False)
    assert name in missing.output


def test_a_renamed_model_is_followed_a_limit_waited_for_and_a_cut_file_completed(
    server, bench, data, tmp_path
):
    folder = tiny_folder("llama", tmp_path / "model", seed=3)
    server.push("models", "org/new-name", folder)
    server.renamed["org/old-name"] = "org/new-name"
    server.limited = 2
    server.cut.add("model.safetensors")
    assert score(bench, tmp_path / "a", "backbone-mean:org/old-name") == expected(folder)
    assert (server.limited, server.cut) == (0, set())


def test_data_sets_are_fetched_at_their_pinned_revision(server, bench, tmp_path):
    folder = pairs(tmp_path / "pairs")
    (folder / "test.parquet").write_bytes((folder / "en" / "test.parquet").read_bytes())
    shutil.rmtree(folder / "en")
    (folder / "README.md").unlink()
    server.push("datasets", "mteb/sts16-sts", folder)
    repository = server.repositories["datasets", "mteb/sts16-sts"]
    pinned = "4d8694f8f0e0100860b497b999b3dbed754a0513"
    wrong = bench("data", "mirror", str(tmp_path / "one"), "mteb/sts16-sts")
    assert wrong.code == 1
    assert not list((tmp_path / "one").rglob("*.gz"))
    repository.revisions[pinned] = folder
    right = bench("data", "mirror", str(tmp_path / "two"), "mteb/sts16-sts")
    assert right.code == 0, right.output
    assert len(list((tmp_path / "two").rglob("test.jsonl.gz"))) == 1
