"""DINO's generator: self-debiasing against its formulae, specifications, files of texts."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from adapters._backbone import Backbone
from adapters._generate import draw_uniform, sample_tokens
from adapters.dino import generate as module
from adapters.dino.generate import (
    Generation,
    Job,
    Request,
    complete,
    copy_finished,
    debias,
    generate,
    parse_task,
    read_task,
    spec_names,
)
from bench.encoder import digest
from bench.errors import DataError, UsageError
from tests.adapters.checks import CPU
from tests.adapters.test_head import random_network
from tests.tiny import SENTENCES

NAMES = {"1": "Same.", "0.5": "Like.", "0": "Other."}
COUNTERS = {"1": [], "0.5": ["1"], "0": ["1", "0.5"]}
SPEC = {
    "task_name": "tiny",
    "labels": {
        label: {"instruction": f'{name}\nA: "<X1>"\nB: "', "counter_labels": COUNTERS[label]}
        for label, name in NAMES.items()
    },
}
TASK = parse_task(SPEC, "SPEC")
X1 = ["The cat sat.", "It was a warm, funny and moving film."]
REQUESTS = [Request(x1, label, k) for x1 in X1 for label in NAMES for k in range(2)]
WIDE = Generation(top_k=0, top_p=1.0, new_tokens=10)


def quiet(*_):
    """Report no progress."""


@pytest.fixture(scope="module")
def network(networks):
    return networks("llama")


def by_the_formulae(own, others, decay):
    """Return the debiased distribution from probabilities, as the paper writes it."""
    gap = np.maximum(0, np.max([own, *others], axis=0) - own)
    weighed = own * np.maximum(np.exp(-decay * gap), 0.01)
    return weighed / weighed.sum()


def alone(network, prompt, tokens):
    """Return the next-token distribution: no batch, no padding, no cache, no special tokens."""
    ids = network.tokenizer(prompt)["input_ids"] + tokens
    with torch.no_grad():
        logits = network.model(torch.tensor([ids]), use_cache=False).logits[0, -1].double()
    logits[network.tokenizer.all_special_ids] = -torch.inf
    return logits.softmax(-1).numpy()


def test_debiasing_by_hand():
    own, other = torch.tensor([[[0.5, 0.3, 0.2]], [[0.2, 0.5, 0.3]]]).log()
    found = debias(own, torch.maximum(own, other), 100).softmax(-1)
    np.testing.assert_allclose(found, [[0.9901, 0.0059, 0.0040]], atol=5e-5)


@given(
    arrays(np.float64, (3, 6), elements=st.floats(0.001, 1)), st.integers(0, 2), st.floats(0, 200)
)
@settings(max_examples=40)
def test_debiasing_is_the_formula_on_any_distributions(raw, counters, decay):
    own, *others = (raw / raw.sum(-1, keepdims=True))[: 1 + counters]
    highest = np.max([own, *others], axis=0)
    found = debias(torch.from_numpy(own).log(), torch.from_numpy(highest).log(), decay).softmax(-1)
    np.testing.assert_allclose(found, by_the_formulae(own, others, decay), atol=1e-9)


@pytest.mark.parametrize("requests", [REQUESTS, REQUESTS[4:5]], ids=["together", "alone"])
@pytest.mark.parametrize("kind", ["llama", "opt", "gemma2"])
def test_each_token_is_sampled_from_the_distribution_of_the_formulae(
    networks, kind, requests, monkeypatch
):
    llama = networks("llama")
    network = random_network(llama, kind) if kind == "gemma2" else networks(kind)
    calls = []

    def sample(scores, uniform, **limits):
        token = sample_tokens(scores, uniform, **limits)
        calls.append((scores.softmax(-1).numpy(), uniform, token.tolist()))
        return token

    monkeypatch.setattr(module, "sample_tokens", sample)
    few = replace(WIDE, new_tokens=6)
    made, _ = complete(network, TASK, requests, few)
    seeds = [int(digest([few.seed, *request])[:32], 16) for request in requests]
    uniform = draw_uniform(seeds, few.new_tokens)
    histories = [[] for _ in requests]
    for step, (found, drawn, tokens) in enumerate(calls):
        for p, u, token in zip(found, drawn, tokens, strict=True):
            number = int((uniform[:, step] == u).nonzero())  # which request this row is of
            history, request = histories[number], requests[number]
            if len(history) < step:
                continue  # has ended
            labels = [request.label, *COUNTERS[request.label]]
            prompts = [TASK.prompt(label, request.x1) for label in labels]
            own, *others = [alone(network, prompt, history) for prompt in prompts]
            expected = by_the_formulae(own, others, few.decay)
            np.testing.assert_allclose(p, expected, atol=1e-6)
            ended = set('"\n') & set(network.tokenizer.decode(history))
            if not ended:
                history.append(token)
    for completion, history in zip(made, histories, strict=True):
        text, quote, _ = network.tokenizer.decode(history).partition('"')
        kept = quote and text.strip() and "\n" not in text
        assert completion.text == (text.strip() if kept else "")


def test_a_text_does_not_depend_on_its_batch_but_on_the_seed(network):
    together, _ = complete(network, TASK, REQUESTS, WIDE)
    assert [complete(network, TASK, [each], WIDE)[0][0] for each in REQUESTS] == together
    assert complete(network, TASK, REQUESTS, replace(WIDE, seed=43))[0] != together


def test_texts_have_neither_quotes_nor_line_breaks(network):
    requests = [Request(x1, "1", k) for x1 in SENTENCES for k in range(12)]
    made, _ = complete(network, TASK, requests, replace(WIDE, new_tokens=30))
    assert {"", "no quote", "line break"} <= {completion.dropped for completion in made}
    for completion in made:
        assert not set('"\n') & set(completion.text)
        assert bool(completion.dropped) != bool(completion.text)


def test_without_debiasing_no_counter_label_is_computed(network):
    def count(requests, decay):
        return complete(network, TASK, requests, replace(WIDE, decay=decay, new_tokens=1))[1]

    assert count(REQUESTS, 0.0) == count(REQUESTS, 1.0)  # all prompts are some text's own
    last = [request for request in REQUESTS if request.label == "0"]
    assert count(last, 0.0) < 0.5 * count(last, 1.0)


@pytest.mark.parametrize("name", spec_names())
def test_packaged_specifications_keep_the_rules(name):
    task = read_task(name)
    prompts = [task.prompt(label, "A man sings.") for label in task.labels]
    assert all(prompt.endswith('"') for prompt in prompts)
    assert task.takes_input == ("A man sings." in prompts[0])


def test_the_plain_specification_is_the_paper_s():
    same = "mean the same thing", "are somewhat similar", "are on completely different topics"
    found = read_task("sts-x2").labels
    for (label, spec), words in zip(found.items(), same, strict=True):
        task = f'Task: Write two sentences that {words}.\nSentence 1: "<X1>"\nSentence 2: "'
        assert (spec.instruction, spec.counter_labels) == (task, COUNTERS[label])
    with pytest.raises(UsageError, match="sts-x2"):
        read_task("sts-x3")


def one_label(**label):
    return SPEC | {"labels": {"1": label}}


@pytest.mark.parametrize(
    "value",
    [
        [],
        SPEC | {"task_name": "a b"},
        SPEC | {"task_name": 1},
        SPEC | {"labels": {}},
        SPEC | {"more": 1},
        one_label(instruction='A "<X1>"', counter_labels=["2"]),
        one_label(instruction="A <X1>", counter_labels=[]),
        one_label(instruction='<X1> <X1> "', counter_labels=[]),
        one_label(instruction=1),
        one_label(counter_labels=[]),
        one_label(instruction='"', counter_label=[]),
        {"task_name": "a", "labels": {"1": {"instruction": '<X1> "'}, "0": {"instruction": '"'}}},
    ],
)
def test_a_specification_that_breaks_a_rule_is_refused(value):
    with pytest.raises(DataError):
        parse_task(value, "value")


def test_counter_labels_may_be_left_out():
    found = parse_task(one_label(instruction='Alike: "<X1>" and "'), "value")
    assert not found.labels["1"].counter_labels


@pytest.fixture(scope="module")
def write(tiny):
    """Return what generates the texts of a job with these changes, and returns rows and costs."""
    backbone = Backbone(str(tiny("llama")), head="lm", **CPU)
    texts = [f"{sentence} {i}" for sentence in SENTENCES[:4] for i in range(2)]
    job = Job(TASK, texts, 2, replace(WIDE, new_tokens=32), "m", batch=4)

    def _write(folder, progress=quiet, **changes):
        return generate(replace(job, **changes), backbone, folder, progress)

    _write.job = job
    return _write


@pytest.fixture(scope="module")
def whole(write, tmp_path_factory):
    """The folder of the job's finished file, and what ``generate`` returned."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, write(folder)


@pytest.fixture
def copied(whole, tmp_path):
    """A copy of that folder."""
    return Path(shutil.copytree(whole[0], tmp_path / "copy"))


def test_the_file_has_the_keys_of_the_released_data(write, whole):
    rows, took = whole[1]
    dropped = sum(took.get(reason, 0) for reason in ("no quote", "empty", "line break"))
    assert took["asked"] == took["kept"] + dropped == 48
    assert len(rows) == took["kept"] > 1
    for row in rows:  # the original's reader takes these keys and no others
        assert row.keys() == {"text_a", "text_b", "label"}
        assert row["text_a"] in write.job.x1
        assert row["label"] in NAMES


def test_a_file_of_an_earlier_version_is_read(write, whole, copied):
    args = copied / "tiny-args.json"
    note = json.loads(args.read_text())["note"]
    progress = note["progress"] | {"size": note["size"]}
    del progress["generator"]
    args.write_text(json.dumps(note["of"] | {"generator": "m", "done": progress}))
    calls = []
    copy_finished(write.job, copied.parent / "new", [copied])
    for folder in (copied.parent / "new", copied):
        assert write(folder, lambda *_: calls.append(_)) == whole[1]
    assert not calls


def test_rows_may_hold_any_character_but_a_line_feed(write, tmp_path):
    texts = ["One line\u2028and another.", "A next\x85line."]
    rows, _ = write(tmp_path, x1=texts, samples=8)
    assert {row["text_a"] for row in rows} == set(texts)


def test_a_first_text_without_room_is_named_before_anything_is_generated(write, tmp_path):
    calls = []
    for seed in range(4):  # whichever batch it is in
        changes = {"x1": ["Short.", "so " * 2_000], "batch": 1}
        with pytest.raises(DataError, match="first text 'so so so"):
            write(tmp_path, calls.append, generation=replace(WIDE, seed=seed), **changes)
    assert not calls


def test_first_texts_are_generated_by_a_task_without_them(write, tmp_path):
    task = parse_task({"task_name": "x1", "labels": {"1": {"instruction": 'Same.\nA: "'}}}, "x1")
    rows, took = write(tmp_path, task=task, x1=[""], samples=40)
    assert took["asked"] == 40
    assert rows
    assert all(row["text_b"] is None and row["text_a"] for row in rows)
