"""LoRA weights: what peft computes with the same folder, or one line."""

import json
import shutil
from dataclasses import fields

import pytest

from adapters import _lora
from adapters._backbone import Backbone
from adapters._checkpoint import CONFIG, WEIGHTS, recorded_digest
from adapters._lora import read_deltas
from adapters._network import quiet
from bench.checkpoints import CARD
from bench.errors import CheckpointError, Unavailable
from tests.tiny import SENTENCES, tiny_folder

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

pytestmark = pytest.mark.filterwarnings("ignore")  # what peft says of its own options

SAMPLES = {
    "alora_invocation_tokens": [3, 4],
    "alpha_pattern": {"q_proj": 64},
    "arrow_config": {"top_k": 2},
    "auto_mapping": None,
    "base_model_name_or_path": None,
    "bias": "all",
    "corda_config": {"corda_method": "ipm"},
    "ensure_weight_tying": True,
    "eva_config": {"rho": 2.0},
    "exclude_modules": ["v_proj"],
    "fan_in_fan_out": True,
    "inference_mode": True,
    "init_lora_weights": "pissa",
    "kasa_config": {"beta": 0.1},
    "layer_replication": [[0, 3], [1, 3]],
    "layers_pattern": "layers",
    "layers_to_transform": [1],
    "loftq_config": {"loftq_bits": 8},
    "lora_alpha": 3,
    "lora_bias": True,
    "lora_dropout": 0.5,
    "lora_ga_config": {"bsz": 2},
    "megatron_config": {"tensor_model_parallel_size": 1},
    "megatron_core": "megatron.core",
    "modules_to_save": ["norm"],
    "monteclora_config": {"num_samples": 2},
    "peft_type": "LOHA",
    "peft_version": "0.1",
    "qalora_group_size": 8,
    "r": 2,
    "rank_pattern": {"q_proj": 2},
    "revision": None,
    "runtime_config": {"ephemeral_gpu_offload": True},
    "target_modules": ["down_proj"],
    "target_parameters": ["mlp.up_proj.weight"],
    "task_type": "FEATURE_EXTRACTION",
    "trainable_token_indices": [5, 6],
    "use_bdlora": {"nblocks": 2},
    "use_dora": True,
    "use_qalora": True,
    "use_rslora": True,
    "velora_config": {"rank": 1},
}
"""A value of every field of peft's configuration, other than its default if that is possible."""

HARMLESS = set(_lora._UNUSED)
UNUSED_BY_PEFT = {"auto_mapping", "eva_config", "inference_mode", "peft_version", "runtime_config"}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_folder("llama", tmp_path_factory.mktemp("base"))


def bare(base):
    from transformers import AutoModel

    with quiet():
        return AutoModel.from_pretrained(base, dtype=torch.float32)


def adapter(base, folder, **options):
    """Write an adapter of peft with random weights, and return the folder."""
    config = peft.LoraConfig(**{"target_modules": ["q_proj", "v_proj"], **options})
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = peft.get_peft_model(bare(base), config)
        for name, weight in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(weight, std=0.2)
    model.save_pretrained(folder)
    return folder


def states(model, ids):
    with torch.inference_mode():
        return model(ids).last_hidden_state


def ours_and_theirs(base, folder):
    network = Backbone(str(folder), dtype="float32", device="cpu").load()
    ids = torch.tensor([network.tokenizer(SENTENCES[0])["input_ids"]])
    theirs = peft.PeftModel.from_pretrained(bare(base), folder).eval()
    return network.hidden_states(ids, torch.ones_like(ids)), states(theirs, ids)


def test_every_field_of_peft_has_a_sample():
    assert {field.name for field in fields(peft.LoraConfig)} == set(SAMPLES)


@pytest.mark.parametrize("field", sorted(HARMLESS))
def test_a_field_that_leaves_plain_lora_alone_gives_the_states_of_peft(base, tmp_path, field):
    options = {} if SAMPLES[field] is None else {field: SAMPLES[field]}
    if field in {"layers_pattern", "layers_to_transform"}:
        options |= {"layers_pattern": "layers", "layers_to_transform": [1]}
    folder = adapter(base, tmp_path / "adapter", **({} if field in UNUSED_BY_PEFT else options))
    _rewritten(folder, **options)
    ours, theirs = ours_and_theirs(base, folder)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert (ours - states(bare(base), _ids(base))).abs().max() > 0.01


def test_a_field_beyond_plain_lora_or_unknown_is_refused_by_name(base, tmp_path):
    folder = adapter(base, tmp_path / "adapter")
    plain = (folder / CONFIG).read_text()
    for field in (SAMPLES | {"use_tomorrow": True}).keys() - HARMLESS:
        (folder / CONFIG).write_text(plain)
        _rewritten(folder, **{field: SAMPLES.get(field, True)})
        with pytest.raises(CheckpointError, match=field):
            read_deltas(folder)


@pytest.mark.parametrize("start", [False, "gaussian", "pissa", "olora", "orthogonal"])
def test_an_initialisation_gives_the_states_of_peft_or_is_refused(base, tmp_path, start):
    folder = adapter(base, tmp_path / "adapter", init_lora_weights=start)
    if start in {False, "gaussian"}:
        ours, theirs = ours_and_theirs(base, folder)
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    else:
        with pytest.raises(CheckpointError, match="init_lora_weights"):
            read_deltas(folder)


def _rewritten(folder, **options):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | options))


def _ids(base):
    tokenizer = Backbone(str(base), dtype="float32", device="cpu").load().tokenizer
    return torch.tensor([tokenizer(SENTENCES[0])["input_ids"]])


def test_the_base_of_a_checkpoint_may_move_and_nothing_else_may_change(base, tmp_path):
    there, moved = tmp_path / "there", tmp_path / "moved"
    shutil.copytree(base, there)
    folder = adapter(there, tmp_path / "adapter")
    config = json.loads((folder / CONFIG).read_text()) | {"base_model_name_or_path": str(there)}
    _rewritten(folder, **config)
    recorded = {name: recorded_digest(folder / name) for name in (WEIGHTS, CONFIG)}
    (folder / CARD).write_text(json.dumps({"files": recorded}))
    there.rename(moved)
    with pytest.raises(Unavailable, match=CONFIG):
        Backbone(str(folder)).card()
    _rewritten(folder, base_model_name_or_path=str(moved))
    assert Backbone(str(folder)).card().trained
    _rewritten(folder, lora_alpha=1)
    with pytest.raises(CheckpointError, match=CONFIG):
        Backbone(str(folder)).card()
