"""LoRA weights: what peft computes with the same folder, or one line."""

import json
import shutil
from dataclasses import fields

import peft
import pytest
import torch

from adapters import _lora
from adapters._backbone import Backbone
from adapters._checkpoint import CONFIG, WEIGHTS, recorded_digest
from adapters._lora import read_deltas
from bench.checkpoints import CARD
from bench.errors import CheckpointError, Unavailable
from tests.adapters.checks import edit_json, load_network, load_plain, plain_states, read_plain
from tests.tiny import SENTENCES

pytestmark = pytest.mark.filterwarnings("ignore")  # what peft says of its own options

SAMPLES = {
    "alora_invocation_tokens": [3, 4], "alpha_pattern": {"q_proj": 64},
    "arrow_config": {"top_k": 2}, "auto_mapping": None, "base_model_name_or_path": None,
    "bias": "all", "corda_config": {"corda_method": "ipm"}, "ensure_weight_tying": True,
    "eva_config": {"rho": 2.0}, "exclude_modules": ["v_proj"], "fan_in_fan_out": True,
    "inference_mode": True, "init_lora_weights": "pissa", "kasa_config": {"beta": 0.1},
    "layer_replication": [[0, 3], [1, 3]], "layers_pattern": "layers",
    "layers_to_transform": [1], "loftq_config": {"loftq_bits": 8}, "lora_alpha": 3,
    "lora_bias": True, "lora_dropout": 0.5, "lora_ga_config": {"bsz": 2},
    "megatron_config": {"tensor_model_parallel_size": 1}, "megatron_core": "megatron.core",
    "modules_to_save": ["norm"], "monteclora_config": {"num_samples": 2}, "peft_type": "LOHA",
    "peft_version": "0.1", "qalora_group_size": 8, "r": 2, "rank_pattern": {"q_proj": 2},
    "revision": None, "runtime_config": {"ephemeral_gpu_offload": True},
    "target_modules": ["down_proj"], "target_parameters": ["mlp.up_proj.weight"],
    "task_type": "FEATURE_EXTRACTION", "trainable_token_indices": [5, 6],
    "use_bdlora": {"nblocks": 2}, "use_dora": True, "use_qalora": True, "use_rslora": True,
    "velora_config": {"rank": 1},
}  # fmt: skip
"""A value of every field of peft's configuration, other than its default if that is possible."""

HARMLESS = set(_lora._UNUSED)
UNUSED_BY_PEFT = {"auto_mapping", "eva_config", "inference_mode", "peft_version", "runtime_config"}


@pytest.fixture(scope="module")
def base(tiny):
    return tiny("llama", head=False)


def write_adapter(base, folder, **options):
    """Write an adapter of peft with random weights, and return the folder."""
    config = peft.LoraConfig(**{"target_modules": ["q_proj", "v_proj"], **options})
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = peft.get_peft_model(read_plain(base)[1], config)
        for name, weight in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(weight, std=0.2)
    model.save_pretrained(folder)
    return folder


def check_states(base, folder):
    """Check that the folder gives the states of peft, which are not those of its base."""
    ids = torch.tensor([load_plain(base)[0](SENTENCES[0])["input_ids"]])
    ours = load_network(folder, head="none").hidden_states(ids, torch.ones_like(ids))[0]
    theirs = peft.PeftModel.from_pretrained(read_plain(base)[1], folder).eval()
    with torch.inference_mode():
        expected = theirs(ids).last_hidden_state[0]
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    assert (ours - plain_states(base, SENTENCES[0])).abs().max() > 0.01


def test_every_field_of_peft_has_a_sample():
    assert {field.name for field in fields(peft.LoraConfig)} == set(SAMPLES)


@pytest.mark.parametrize("field", sorted(HARMLESS))
def test_a_field_that_leaves_plain_lora_alone_gives_the_states_of_peft(base, tmp_path, field):
    options = {} if SAMPLES[field] is None else {field: SAMPLES[field]}
    if field in {"layers_pattern", "layers_to_transform"}:
        options |= {"layers_pattern": "layers", "layers_to_transform": [1]}
    used = {} if field in UNUSED_BY_PEFT else options
    folder = write_adapter(base, tmp_path / "adapter", **used)
    edit_json(folder / CONFIG, **options)
    check_states(base, folder)


def test_a_field_beyond_plain_lora_or_unknown_is_refused_by_name(base, tmp_path):
    folder = write_adapter(base, tmp_path / "adapter")
    plain = (folder / CONFIG).read_text()
    for field in (SAMPLES | {"use_tomorrow": True}).keys() - HARMLESS:
        (folder / CONFIG).write_text(plain)
        edit_json(folder / CONFIG, **{field: SAMPLES.get(field, True)})
        with pytest.raises(CheckpointError, match=field):
            read_deltas(folder)


def test_weights_of_a_class_that_is_not_run_are_refused_unless_they_are_read_bidirectionally(
    base, tmp_path
):
    folder = write_adapter(base, tmp_path / "adapter")
    plain = load_network(folder, head="none")
    for library in ("transformers.models.llama.modeling_llama", None):
        mapping = {"base_model_class": "LlamaModel", "parent_library": library}
        edit_json(folder / CONFIG, auto_mapping=mapping)
        assert load_network(folder, head="none").causal == plain.causal
    mapping = {"base_model_class": "LlamaBiModel", "parent_library": "llm2vec.models"}
    edit_json(folder / CONFIG, auto_mapping=mapping)
    with pytest.raises(CheckpointError, match=r"LlamaBiModel of llm2vec\.models"):
        Backbone(str(folder)).load()
    assert not Backbone(str(folder), attention="bidirectional").load().causal


@pytest.mark.parametrize("start", [False, "gaussian", "pissa", "olora", "orthogonal"])
def test_an_initialisation_gives_the_states_of_peft_or_is_refused(base, tmp_path, start):
    folder = write_adapter(base, tmp_path / "adapter", init_lora_weights=start)
    if start in {False, "gaussian"}:
        check_states(base, folder)
    else:
        with pytest.raises(CheckpointError, match="init_lora_weights"):
            read_deltas(folder)


def test_the_base_of_a_checkpoint_may_move_and_nothing_else_may_change(base, tmp_path):
    there, moved = tmp_path / "there", tmp_path / "moved"
    shutil.copytree(base, there)
    folder = write_adapter(there, tmp_path / "adapter")
    edit_json(folder / CONFIG, base_model_name_or_path=str(there))
    recorded = {name: recorded_digest(folder / name) for name in (WEIGHTS, CONFIG)}
    (folder / CARD).write_text(json.dumps({"files": recorded}))
    there.rename(moved)
    with pytest.raises(Unavailable, match=CONFIG):
        Backbone(str(folder)).card()
    edit_json(folder / CONFIG, base_model_name_or_path=str(moved))
    assert Backbone(str(folder)).card().trained
    edit_json(folder / CONFIG, lora_alpha=1)
    with pytest.raises(CheckpointError, match=CONFIG):
        Backbone(str(folder)).card()
