"""What the recipes share: the budget, what is trained, and a loop that a kill cannot set back."""

import json
import shlex
import struct
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters._backbone import Backbone, resolve
from adapters._training.budget import Spent, batches, portions
from adapters._training.card import command_of, finished
from adapters._training.loop import Fitted, Optimisation, Selection, Training, fit
from adapters._training.weights import Lora, anywhere, differentiable, save_whole, trained, unfrozen
from bench.errors import EncodingError, UsageError
from tests.tiny import KINDS, tiny_folder

torch = pytest.importorskip("torch")

CLOSE = {"atol": 1e-5, "rtol": 1e-4}  # attention is computed in another order in training

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=60)


@given(LENGTHS, st.integers(40, 2000), st.integers(1, 9), st.integers(0, 5))
def test_batches_spend_the_budget_to_within_one_example(lengths, budget, size, seed):
    plan = batches(lengths, budget=budget, size=size, seed=seed)
    spent = sum(lengths[i] for batch in plan for i in batch)
    assert budget - max(lengths) < spent <= budget
    assert all(1 <= len(batch) <= size for batch in plan)
    counts = np.bincount([i for batch in plan for i in batch], minlength=len(lengths))
    assert counts.max() - counts.min() <= 1  # whole epochs, but for the last
    assert all(len(set(batch)) == len(batch) for batch in plan)
    assert plan == batches(lengths, budget=budget, size=size, seed=seed)


def test_a_budget_that_holds_no_example_is_refused():
    with pytest.raises(UsageError, match="up to 9"):
        batches([9], budget=5, size=2, seed=0)
    with pytest.raises(UsageError):
        batches([], budget=5, size=2, seed=0)


@given(LENGTHS, st.integers(1, 120), st.integers(1, 4))
def test_portions_hold_every_example_once_and_fit_and_leave_no_process_idle(
    lengths, positions, processes
):
    made = portions(lengths, positions, processes=processes)
    assert sorted(i for portion in made for i in portion) == list(range(len(lengths)))
    assert all(len(p) == 1 or max(lengths[i] for i in p) * len(p) <= positions for p in made)
    assert len(made) >= min(processes, len(lengths))


@pytest.mark.parametrize("kind", KINDS)
def test_low_rank_weights_change_nothing_at_first_and_alone_are_trained(kind, tmp_path):
    base = Backbone(
        str(tiny_folder(kind, tmp_path / kind, head=True)), head="lm", dtype="float32", device="cpu"
    ).load()
    before = {name: weight.clone() for name, weight in base.model.named_parameters()}
    network = Lora().attached(base, seed=0)
    network.model.eval()
    ids, mask = torch.tensor([[1, 5, 9, 4]]), torch.ones(1, 4, dtype=torch.int64)
    torch.testing.assert_close(
        network.hidden_states(ids, mask), base.hidden_states(ids, mask), **CLOSE
    )
    assert trained(network)
    assert all(
        "lora_" in name and weight.dtype == torch.float32
        for name, weight in trained(network).items()
    )
    assert not any("head" in name or "cls" in name or "pooler" in name for name in trained(network))
    assert all(torch.equal(weight, before[name]) for name, weight in base.model.named_parameters())


@pytest.mark.parametrize("kind", ["llama", "opt", "roberta"])
def test_saved_low_rank_weights_give_the_vectors_they_were_trained_to_give(kind, tmp_path):
    source = str(tiny_folder(kind, tmp_path / "base", head=True))
    network = Lora(rank=4, alpha=8).attached(
        Backbone(source, head="lm", dtype="float32", device="cpu").load(), seed=0
    )
    for weight in trained(network).values():
        weight.data = (
            torch.randn(weight.shape, generator=torch.Generator().manual_seed(3))
            .mul(0.2)
            .bfloat16()
            .float()
        )  # saved in bfloat16
    network.model.eval()
    Lora(rank=4, alpha=8).save(network, tmp_path / "made", source)
    ids, mask = torch.tensor([[1, 5, 9, 4]]), torch.ones(1, 4, dtype=torch.int64)
    for head in ("lm", "none"):  # with its language model head or without
        again = Backbone(str(tmp_path / "made"), head=head, dtype="float32", device="cpu").load()
        torch.testing.assert_close(
            again.hidden_states(ids, mask), network.hidden_states(ids, mask), atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("kind", ["llama", "opt", "roberta"])
def test_a_network_that_gradients_pass_through_shares_its_weights_and_leaves_the_other_as_it_is(
    kind, tmp_path
):
    base = Backbone(
        str(tiny_folder(kind, tmp_path / kind, head=True)), head="lm", dtype="float32", device="cpu"
    ).load()
    attention = base.model.config._attn_implementation
    network = differentiable(base)
    assert base.model.config._attn_implementation == attention
    own = dict(base.model.named_parameters())
    assert all(weight is own[name] for name, weight in network.model.named_parameters())
    ids, mask = torch.tensor([[1, 5, 9, 4]]), torch.ones(1, 4, dtype=torch.int64)
    torch.testing.assert_close(
        network.hidden_states(ids, mask), base.hidden_states(ids, mask), **CLOSE
    )


def test_saved_low_rank_weights_find_a_folder_that_was_named_from_another_directory(
    tmp_path, monkeypatch
):
    tiny_folder("llama", tmp_path / "base", head=True)
    monkeypatch.chdir(tmp_path)
    Lora().save(
        Lora().attached(Backbone("base", dtype="float32", device="cpu").load(), seed=0),
        tmp_path / "made",
        "base",
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert Backbone(str(tmp_path / "made")).base() == Backbone(str(tmp_path / "base"))
    assert anywhere("owner/model@main") == "owner/model@main"


@pytest.mark.filterwarnings(
    "ignore:.*is_gradient_checkpointing:FutureWarning"
)  # peft asks transformers in its old words
def test_peft_loads_saved_low_rank_weights(tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    source = str(tiny_folder("llama", tmp_path / "base", head=True))
    network = Lora().attached(
        Backbone(source, head="lm", dtype="float32", device="cpu").load(), seed=0
    )
    for weight in trained(network).values():
        weight.data = torch.full_like(weight, 0.03125)
    network.model.eval()
    Lora().save(network, tmp_path / "made", source)
    theirs = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(source), tmp_path / "made"
    ).eval()
    ids, mask = torch.tensor([[1, 5, 9, 4]]), torch.ones(1, 4, dtype=torch.int64)
    states = theirs(input_ids=ids, output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(states, network.hidden_states(ids, mask), atol=1e-5, rtol=1e-5)


def test_whole_weights_are_saved_as_an_ordinary_folder(tmp_path):
    base = Backbone(
        str(tiny_folder("llama", tmp_path / "base", head=True)),
        head="lm",
        dtype="float32",
        device="cpu",
    ).load()
    network = unfrozen(base)
    assert len(trained(network)) == len(list(base.model.parameters()))
    with torch.no_grad():
        next(iter(trained(network).values())).add_(0.1)
    save_whole(network, tmp_path / "made")
    again = Backbone(str(tmp_path / "made"), head="lm", dtype="float32", device="cpu").load()
    ids, mask = torch.tensor([[1, 5, 9, 4]]), torch.ones(1, 4, dtype=torch.int64)
    network.model.eval()
    torch.testing.assert_close(
        again.hidden_states(ids, mask), network.hidden_states(ids, mask), **CLOSE
    )
    assert not torch.allclose(
        again.hidden_states(ids, mask), base.hidden_states(ids, mask), atol=1e-3
    )


def test_a_copy_to_train_of_a_float16_network_computes_in_float32(tmp_path):
    base = Backbone(
        str(tiny_folder("llama", tmp_path / "base")), dtype="float16", device="cpu"
    ).load()
    network = unfrozen(base)
    assert (base.dtype, network.dtype) == ("float16", "float32")
    assert {weight.dtype for weight in trained(network).values()} == {torch.float32}
    assert unfrozen(replace(base, dtype="bfloat16")).dtype == "bfloat16"


def test_training_in_float16_is_refused(tmp_path):
    network = Backbone(
        str(tiny_folder("llama", tmp_path / "base")), dtype="float16", device="cpu"
    ).load()
    weight = torch.tensor([0.0], requires_grad=True)
    with pytest.raises(UsageError, match="bfloat16 or float32"):
        fit(
            {"weight": weight}, [[1]], Slope(weight), Optimisation(0.1), network=network, state=tmp_path / "state.pt",
            training=Training("slope", {}, 1, 0), progress=lambda *_: None,
        )  # fmt: skip


class Slope:
    """Least squares of one weight, in parts of two examples, with noise from torch's random state as dropout has."""

    def __init__(self, weight, stop=None):
        self.weight, self.stop, self.seen = weight, stop, 0

    def parts(self, batch):
        return [batch[i : i + 2] for i in range(0, len(batch), 2)]

    def loss(self, part):
        if self.seen == self.stop:
            raise KeyboardInterrupt
        self.seen += 1
        x = torch.tensor(part, dtype=torch.float32)
        return ((self.weight * x - 2 * x + 0.1 * torch.randn(len(part))) ** 2).sum() / 100, Spent(
            len(part), 1
        )


@pytest.fixture
def descend(tmp_path):
    network = Backbone(
        str(tiny_folder("llama", tmp_path / "base")), dtype="float32", device="cpu"
    ).load()
    plan = [[i % 7, (i + 3) % 7, 5] for i in range(30)]

    def run(name, *, stop=None, seed=1, lr=0.15, start=0.0, wanted=None, noise=0.0):
        weight = torch.tensor([start], requires_grad=True)
        chosen = (
            Selection(lambda: (-abs(float(weight.detach()) - wanted), Spent(inference=1)), noise, 4)
            if wanted is not None
            else None
        )
        training = Training("slope", {"lr": lr}, 90, seed)
        fitted = fit(
            {"weight": weight}, plan, Slope(weight, stop), Optimisation(lr), network=network, state=tmp_path / name, training=training,
            progress=lambda *_: None, selection=chosen,
        )  # fmt: skip
        return float(weight.detach()), fitted

    return run


def test_adamw_decays_matrices_alone_and_takes_its_eps(tmp_path):
    network = Backbone(
        str(tiny_folder("llama", tmp_path / "base")), dtype="float32", device="cpu"
    ).load()
    shapes = {"a.weight": (2, 2), "a.bias": (2,), "norm.weight": (2,)}
    weights = {name: torch.ones(shape, requires_grad=True) for name, shape in shapes.items()}

    class Small:
        def parts(self, batch):
            return [batch]

        def loss(self, part):
            return 1e-6 * sum(weight.sum() for weight in weights.values()), Spent(len(part), 0)

    fit(
        weights, [[0]] * 3, Small(), Optimisation(0.1, 0.0, "constant", 0.5, 1e-6), network=network,
        state=tmp_path / "state.pt", training=Training("small", {}, 1, 0), progress=lambda *_: None,
    )  # fmt: skip
    for name, weight in weights.items():
        expected, m, v = 1.0, 0.0, 0.0
        for step in (1, 2, 3):
            expected *= 1 - 0.1 * 0.5 * (name == "a.weight")
            m, v = 0.9 * m + 0.1 * 1e-6, 0.999 * v + 0.001 * 1e-12
            expected -= 0.1 * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)) ** 0.5 + 1e-6)
        torch.testing.assert_close(weight.detach(), torch.full_like(weight, expected))


def test_the_loop_reaches_the_minimum_and_counts_what_it_took(descend):
    weight, fitted = descend("state.pt")
    assert abs(weight - 2) < 0.2  # noise of 0.1 on 90 examples
    assert fitted.spent == Spent(90, 60)
    assert [tokens for tokens, _ in fitted.curve] == list(range(3, 91, 3))
    assert fitted.curve[-1][1] < fitted.curve[0][1] / 5


def test_a_training_that_was_killed_ends_where_an_unbroken_one_does(descend, monkeypatch):
    monkeypatch.setattr("adapters._training.loop._SAVE_SECONDS", 0.0)  # after every step
    whole, unbroken = descend("whole.pt")
    for stop in (9, 24):
        with pytest.raises(KeyboardInterrupt):
            descend("broken.pt", stop=stop)
    ended, resumed = descend("broken.pt")
    assert ended == whole
    assert list(resumed.curve) == list(unbroken.curve)
    assert resumed.spent == unbroken.spent


def test_the_best_weights_are_kept_where_they_are_scored_also_after_a_kill(descend, monkeypatch):
    monkeypatch.setattr("adapters._training.loop._SAVE_SECONDS", 0.0)  # after every step
    last, unscored = descend("last.pt")
    weight, fitted = descend("whole.pt", wanted=1.0)
    scores = dict(fitted.scores)
    assert list(scores) == [4, 8, 12, 16, 20, 24, 28, 30]  # every fourth step and the last one
    assert abs(weight - 1.0) == pytest.approx(-max(scores.values()))
    assert weight != last
    assert fitted.spent == unscored.spent + Spent(inference=len(scores))
    with pytest.raises(KeyboardInterrupt):
        descend("broken.pt", stop=50, wanted=1.0)
    ended, resumed = descend("broken.pt", wanted=1.0)
    assert (ended, resumed.scores, resumed.kept) == (weight, fitted.scores, fitted.kept)
    assert scores[fitted.kept] == max(scores.values())


def test_of_equally_good_weights_the_last_are_kept(descend):
    _, best = descend("best.pt", wanted=1.0)
    weight, fitted = descend("noisy.pt", wanted=1.0, noise=0.5)
    scores = dict(fitted.scores)
    assert (
        fitted.kept
        == max(step for step, score in scores.items() if score >= max(scores.values()) - 0.5)
        > best.kept
    )
    assert abs(weight - 1.0) == pytest.approx(-scores[fitted.kept])


def test_the_state_of_another_training_is_refused(descend):
    descend("state.pt")
    with pytest.raises(UsageError, match="other settings"):
        descend("state.pt", seed=2)


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
    assert not finished(tmp_path, training)
    assert all(state.exists() for state in states)
    (tmp_path / "card.json").write_text(json.dumps(asdict(training)))
    assert finished(tmp_path, training)
    assert not any(state.exists() for state in states)


def test_a_loss_that_is_not_finite_is_an_error(descend):
    with pytest.raises(EncodingError, match="lower the learning rate"):
        descend("state.pt", start=float("nan"))


def test_training_leaves_the_global_random_state_alone(descend):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    descend("state.pt")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_number_type_counts_as_what_it_stands_for_on_the_device():
    from adapters._training.settings import deciding
    from adapters.inbedder.train import Recipe

    assert deciding(Recipe(dtype="auto", device="cpu")) == deciding(
        Recipe(dtype=resolve("cpu", "auto")[1], device="cpu")
    )
    assert deciding(Recipe(dtype="float32", device="cpu"))["dtype"] == "float32"


def test_a_curve_is_thinned_to_means():
    curve = Fitted(Spent(10, 0), 1.0, [(i, float(i)) for i in range(1, 11)]).thinned(5)
    assert curve == [[2, 1.5], [4, 3.5], [6, 5.5], [8, 7.5], [10, 9.5]]
    assert json.loads(json.dumps(curve)) == curve


@given(
    st.permutations(
        [["--out", "/home/me/x"], ["--data=/y"], ["--set", "lr=1e-3"], ["--vary", "k=1,2"]]
    )
)
def test_a_card_tells_the_command_without_the_machine_s_folders(parts):
    told = shlex.split(
        command_of(["train", "dino", "--budget", "S", *(word for part in parts for word in part)])
    )
    assert told[:5] == ["bench", "train", "dino", "--budget", "S"]
    assert sorted(told[5:]) == ["--set", "--vary", "k=1,2", "lr=1e-3"]
