"""What recipes share: the budget, what is trained, and a loop that a kill cannot set back."""

import json
import shlex
import struct
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters._backbone import Backbone, resolve
from adapters._network import save_whole
from adapters._trainable import make_differentiable, set_dropout, unfreeze
from adapters._training.budget import TokenCounts, batches, micro_batches
from adapters._training.card import command_of, is_finished
from adapters._training.loop import Fitted, Optimisation, Selection, Training, fit
from adapters._training.settings import key_settings
from adapters._training.weights import Lora, absolute_source, trainable_weights
from adapters.crops.train import Recipe as Crops
from adapters.inbedder.train import Recipe
from bench.errors import EncodingError, UsageError
from tests.adapters.checks import CLOSE, CPU, draw, load_network, read_plain, train
from tests.tiny import KINDS, SENTENCES

IDS, MASK = torch.tensor([[1, 5, 9, 4]]), torch.ones(1, 4, dtype=torch.int64)
LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=60)


@given(LENGTHS, st.integers(40, 2000), st.integers(1, 9), st.integers(0, 5))
@settings(max_examples=50)
def test_batches_spend_the_budget_to_within_one_example(lengths, budget, size, seed):
    plan = batches(lengths, budget=budget, size=size, seed=seed)
    spent = sum(lengths[i] for batch in plan for i in batch)
    assert budget - max(lengths) < spent <= budget
    assert all(len(set(batch)) == len(batch) in range(1, size + 1) for batch in plan)
    counts = np.bincount([i for batch in plan for i in batch], minlength=len(lengths))
    assert counts.max() - counts.min() <= 1  # whole epochs, but for the last
    assert plan == batches(lengths, budget=budget, size=size, seed=seed)
    for too_long in ([budget + 1], []):
        with pytest.raises(UsageError):
            batches(too_long, budget=budget, size=size, seed=seed)


@given(LENGTHS, st.integers(1, 120), st.integers(1, 4))
@settings(max_examples=50)
def test_micro_batches_fit_and_leave_no_process_idle(lengths, tokens, processes):
    made = micro_batches(lengths, tokens, processes=processes)
    assert sorted(i for part in made for i in part) == list(range(len(lengths)))
    assert all(len(p) == 1 or max(lengths[i] for i in p) * len(p) <= tokens for p in made)
    assert len(made) >= min(processes, len(lengths))


@pytest.mark.parametrize("kind", KINDS)
def test_lora_weights_change_nothing_at_first_and_alone_are_trained(kind, networks):
    base = networks(kind)
    before = {name: weight.clone() for name, weight in base.model.named_parameters()}
    network = Lora().attach(base, seed=0)
    network.model.eval()
    states = base.hidden_states(IDS, MASK)
    torch.testing.assert_close(network.hidden_states(IDS, MASK), states, **CLOSE)
    weights = trainable_weights(network)
    assert all("lora_" in name for name in weights)
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    assert not any("head" in name or "cls" in name or "pooler" in name for name in weights)
    assert all(torch.equal(weight, before[name]) for name, weight in base.model.named_parameters())


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft
@pytest.mark.parametrize("kind", ["llama", "opt", "roberta"])
def test_saved_lora_weights_give_the_states_they_were_trained_to_give(
    kind, tiny, networks, tmp_path, monkeypatch
):
    from peft import PeftModel

    monkeypatch.chdir(tiny(kind).parent)  # the base is named from another directory
    lora = Lora(rank=4, alpha=8)
    network = lora.attach(networks(kind), seed=0)
    for i, weight in enumerate(trainable_weights(network).values()):
        weight.data = draw(*weight.shape, seed=i).mul(0.2).bfloat16().float()  # as it is saved
    network.model.eval()
    lora.save(network, tmp_path / "made", tiny(kind).name)
    monkeypatch.chdir(tmp_path)
    expected = network.hidden_states(IDS, MASK)
    for head in ("lm", "none"):
        again = load_network(tmp_path / "made", head=head).hidden_states(IDS, MASK)
        torch.testing.assert_close(again, expected, atol=1e-5, rtol=1e-5)
    assert Backbone(str(tmp_path / "made")).base() == Backbone(str(tiny(kind)))
    assert absolute_source("owner/model@main") == "owner/model@main"
    if kind == "llama":
        model = read_plain(tiny(kind), "AutoModelForCausalLM")[1]
        theirs = PeftModel.from_pretrained(model, tmp_path / "made").eval()
        states = theirs(input_ids=IDS, output_hidden_states=True).hidden_states[-1]
        torch.testing.assert_close(states, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "opt", "roberta"])
def test_a_network_for_gradients_shares_its_weights_and_leaves_the_other_as_it_is(kind, networks):
    base = networks(kind)
    attention = base.model.config._attn_implementation
    network = make_differentiable(base)
    assert base.model.config._attn_implementation == attention
    own = dict(base.model.named_parameters())
    assert all(weight is own[name] for name, weight in network.model.named_parameters())
    states = base.hidden_states(IDS, MASK)
    torch.testing.assert_close(network.hidden_states(IDS, MASK), states, **CLOSE)


def test_whole_weights_are_saved_as_an_ordinary_folder(networks, tmp_path):
    base = networks("llama")
    network = unfreeze(base)
    weights = trainable_weights(network)
    assert len(weights) == len(list(base.model.parameters()))
    with torch.no_grad():
        next(iter(weights.values())).add_(0.1)
    save_whole(network, tmp_path / "made")
    network.model.eval()
    again = load_network(tmp_path / "made").hidden_states(IDS, MASK)
    torch.testing.assert_close(again, network.hidden_states(IDS, MASK), **CLOSE)
    assert not torch.allclose(again, base.hidden_states(IDS, MASK), atol=1e-3)


def test_a_float16_network_is_trained_in_float32_or_refused(tiny, tmp_path):
    base = Backbone(str(tiny("llama")), dtype="float16", device="cpu").load()
    network = unfreeze(base)
    assert (base.dtype, network.dtype) == ("float16", "float32")
    assert {weight.dtype for weight in trainable_weights(network).values()} == {torch.float32}
    assert unfreeze(replace(base, dtype="bfloat16")).dtype == "bfloat16"
    weight = torch.tensor([0.0], requires_grad=True)
    with pytest.raises(UsageError, match="bfloat16 or float32"):
        run_fit({"weight": weight}, [[1]], Slope(weight), base, tmp_path / "state.pt")


def run_fit(weights, plan, objective, network, state, optimisation=None, **more):
    more = {"training": Training("test", {}, 1, 0), "progress": lambda *_: None} | more
    optimisation = optimisation or Optimisation(0.1)
    return fit(weights, plan, objective, optimisation, network=network, state=state, **more)


class Slope:
    """Least squares of one weight, two examples at a time, with noise as dropout has."""

    def __init__(self, weight, stop=None):
        self.weight, self.stop, self.seen = weight, stop, 0

    def parts(self, batch):
        return [batch[i : i + 2] for i in range(0, len(batch), 2)]

    def loss(self, part):
        if self.seen == self.stop:
            raise KeyboardInterrupt
        self.seen += 1
        x = torch.tensor(part, dtype=torch.float32)
        errors = self.weight * x - 2 * x + 0.1 * torch.randn(len(part))
        return (errors**2).sum() / 100, TokenCounts(len(part), 1)


@pytest.fixture
def descend(tmp_path, networks):
    plan = [[i % 7, (i + 3) % 7, 5] for i in range(30)]

    def run(name, *, stop=None, seed=1, start=0.0, wanted=None, noise=0.0):
        weight = torch.tensor([start], requires_grad=True)

        def score():
            return -abs(float(weight.detach()) - wanted), TokenCounts(inference=1)

        selection = None if wanted is None else Selection(score, noise, 4)
        options = {"training": Training("slope", {}, 90, seed), "selection": selection}
        where = (networks("llama"), tmp_path / name, Optimisation(0.15))
        fitted = run_fit({"weight": weight}, plan, Slope(weight, stop), *where, **options)
        return float(weight.detach()), fitted

    return run


def test_adamw_decays_matrices_alone_and_takes_its_eps(tmp_path, networks):
    shapes = {"a.weight": (2, 2), "a.bias": (2,), "norm.weight": (2,)}
    weights = {name: torch.ones(shape, requires_grad=True) for name, shape in shapes.items()}

    class Small:
        def parts(self, batch):
            return [batch]

        def loss(self, part):
            return 1e-6 * sum(weight.sum() for weight in weights.values()), TokenCounts(1)

    optimisation = Optimisation(0.1, 0.0, "constant", 0.5, 1e-6)
    where = (networks("llama"), tmp_path / "state.pt", optimisation)
    run_fit(weights, [[0]] * 3, Small(), *where)
    for name, weight in weights.items():
        expected, m, v = 1.0, 0.0, 0.0
        for step in (1, 2, 3):
            expected *= 1 - 0.1 * 0.5 * (name == "a.weight")
            m, v = 0.9 * m + 0.1 * 1e-6, 0.999 * v + 0.001 * 1e-12
            expected -= 0.1 * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)) ** 0.5 + 1e-6)
        torch.testing.assert_close(weight.detach(), torch.full_like(weight, expected))


def test_a_training_of_one_step_trains(tmp_path, networks):
    weight = torch.tensor([0.0], requires_grad=True)
    where = (networks("llama"), tmp_path / "state.pt", Optimisation(0.1, warmup=0.1))
    run_fit({"weight": weight}, [[1, 2]], Slope(weight), *where)
    assert float(weight.detach()) == pytest.approx(0.1)  # Adam's first step is the rate


DROPPED = {
    "bert": ("encoder.layer.0.attention.self.dropout", "encoder.layer.0.attention.output.dropout"),
    "bloom": ("h.0.self_attention.attention_dropout", "h.0.mlp:hidden_dropout"),
    "gpt_neox": ("layers.0.attention:attention_dropout", "layers.0.post_attention_dropout"),
    "gpt2": ("h.0.attn.attn_dropout", "h.0.attn.resid_dropout"),
    "llama": ("layers.0.self_attn:attention_dropout",),
    "mpt": ("blocks.0.attn:attn_dropout_p", "blocks.0.resid_attn_dropout"),
    "mpnet": ("encoder.layer.0.attention.attn.dropout", "encoder.layer.0.attention.dropout"),
    "opt": ("decoder.layers.0.self_attn:dropout", "decoder.layers.0:dropout"),
    "t5": ("encoder.block.0.layer.0.SelfAttention:dropout", "encoder.block.0.layer.0.dropout"),
}
"""Modules that drop attention weights and hidden states, or those that have their probability."""


@pytest.mark.parametrize("kind", DROPPED)
def test_dropout_is_set_where_attention_weights_and_hidden_states_are_dropped(kind, networks):
    model = unfreeze(networks(kind, head="none")).model
    set_dropout(model, hidden=0.25, attention=0.5)
    for place, expected in zip(DROPPED[kind], (0.5, 0.25), strict=False):
        name, _, number = place.partition(":")
        assert getattr(model.get_submodule(name), number or "p") == expected


def test_the_loop_reaches_the_minimum_and_counts_what_it_took(descend):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    weight, fitted = descend("state.pt")
    assert torch.equal(torch.get_rng_state(), before)
    assert abs(weight - 2) < 0.2  # noise of 0.1 on 90 examples
    assert fitted.spent == TokenCounts(90, 60)
    assert [tokens for tokens, _ in fitted.curve] == list(range(3, 91, 3))
    assert fitted.curve[-1][1] < fitted.curve[0][1] / 5
    with pytest.raises(UsageError, match="other settings"):
        descend("state.pt", seed=2)
    with pytest.raises(EncodingError, match="lower the learning rate"):
        descend("other.pt", start=float("nan"))


def test_a_killed_training_ends_where_an_uninterrupted_one_does(descend, monkeypatch):
    monkeypatch.setattr("adapters._training.loop._SAVE_SECONDS", 0.0)  # after every step
    whole, unbroken = descend("whole.pt", wanted=1.0)
    for stop in (9, 24, 20):
        with pytest.raises(KeyboardInterrupt):
            descend("broken.pt", stop=stop, wanted=1.0)
    ended, resumed = descend("broken.pt", wanted=1.0)
    assert ended == whole
    assert replace(resumed, seconds=0.0) == replace(unbroken, seconds=0.0)


def test_the_best_weights_are_kept_and_of_equally_good_ones_the_last(descend):
    last, unscored = descend("last.pt")
    weight, fitted = descend("whole.pt", wanted=1.0)
    scores = dict(fitted.scores)
    assert list(scores) == [4, 8, 12, 16, 20, 24, 28, 30]  # every fourth step and the last one
    assert abs(weight - 1.0) == pytest.approx(-max(scores.values()))
    assert scores[fitted.kept] == max(scores.values())
    assert weight != last
    assert descend("equal.pt", wanted=float("inf"))[1].kept == 30
    assert fitted.spent == unscored.spent + TokenCounts(inference=len(scores))
    weight, noisy = descend("noisy.pt", wanted=1.0, noise=0.5)
    ties = [step for step, score in noisy.scores if score >= max(scores.values()) - 0.5]
    assert noisy.kept == max(ties) > fitted.kept
    assert abs(weight - 1.0) == pytest.approx(-dict(noisy.scores)[noisy.kept])


def test_a_damaged_state_is_reported_and_the_training_begins_anew(descend, tmp_path, caplog):
    whole, _ = descend("state.pt")
    path = tmp_path / "state.pt"
    content = path.read_bytes()
    number = struct.pack("<f", float(torch.load(path, weights_only=True)["weights"]["weight"][0]))
    flipped = content.replace(number, bytes([number[0] ^ 1]) + number[1:], 1)
    for harm in (content[: len(content) // 2], b"", b"text", flipped):
        path.write_bytes(harm)
        caplog.clear()
        assert descend("state.pt")[0] == whole
        assert f"{path} is damaged" in caplog.text


def test_what_a_kill_left_beside_a_finished_checkpoint_is_removed(tmp_path):
    training = Training("slope", {}, 90, 1)
    states = [tmp_path / "state.pt", tmp_path / "stages" / "teacher" / "state.pt"]
    states[1].parent.mkdir(parents=True)
    for state in states:
        state.touch()
    assert not is_finished(tmp_path, training)
    assert all(state.exists() for state in states)
    (tmp_path / "card.json").write_text(json.dumps(asdict(training)))
    assert is_finished(tmp_path, training)
    assert not any(state.exists() for state in states)


def test_a_training_is_not_resumed_or_finished_with_a_file_that_has_changed(tiny, tmp_path):
    texts, out = tmp_path / "texts.txt", tmp_path / "out"
    texts.write_text("\n\n".join([" ".join(SENTENCES[i:]) for i in range(3)]))
    recipe = Crops(str(tiny("llama")), str(texts), rank=2, longest=60, **CPU)

    def stop(what, done, _total):
        if what == "crops: training" and done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, out, 900, stop)
    content = texts.read_text()
    texts.write_text(content.replace("cat", "cut"))  # as many tokens
    with pytest.raises(UsageError, match="other settings or data"):
        train(recipe, out, 900)
    texts.write_text(content)
    card = train(recipe, out, 900)
    assert train(recipe, out, 900) == card
    texts.write_text(content + "\n\nA new text.")
    with pytest.raises(UsageError, match="another content of"):
        train(recipe, out, 900)
    texts.unlink()
    assert train(recipe, out, 900) == card


def test_a_dtype_counts_as_what_it_stands_for_on_the_device():
    auto, named, other = (
        key_settings(Recipe(dtype=dtype, device="cpu"))
        for dtype in ("auto", resolve("cpu")[1], "float32")
    )
    assert auto == named
    assert other["dtype"] == "float32"


def test_a_curve_is_thinned_to_means():
    curve = Fitted(TokenCounts(10), 1.0, [(i, float(i)) for i in range(1, 11)]).thinned(5)
    assert json.loads(json.dumps(curve)) == [[2, 1.5], [4, 3.5], [6, 5.5], [8, 7.5], [10, 9.5]]


@given(
    st.permutations(
        [["--out", "/home/me/x"], ["--data=/y"], ["--set", "lr=1e-3"], ["--vary", "k=1,2"]]
    )
)
def test_a_card_has_the_command_without_folders(parts):
    words = ["train", "dino", "--budget", "S", *(word for part in parts for word in part)]
    command = shlex.split(command_of(words))
    assert command[:5] == ["bench", "train", "dino", "--budget", "S"]
    assert sorted(command[5:]) == ["--set", "--vary", "k=1,2", "lr=1e-3"]
