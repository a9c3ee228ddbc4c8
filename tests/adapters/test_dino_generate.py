"""DINO's generator: self-debiasing against its formulae, specifications, files of texts."""

import json
import logging
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
from tests.adapters.test_head import load_lm, random_network
from tests.tiny import SENTENCES, tiny_folder

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
def folder(tmp_path_factory):
    return tiny_folder("llama", tmp_path_factory.mktemp("generate") / "m", head=True)


@pytest.fixture(scope="module")
def network(folder):
    return load_lm(folder)


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
    network, kind, requests, tmp_path, monkeypatch
):
    if kind == "opt":
        network = load_lm(tiny_folder("opt", tmp_path / "m", head=True))
    elif kind == "gemma2":
        network = random_network(network, "gemma2")
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
    off = replace(WIDE, decay=0.0, new_tokens=1)
    tokens = [complete(network, TASK, REQUESTS, each)[1] for each in (off, replace(off, decay=1.0))]
    assert tokens[0] == tokens[1]  # all prompts are some text's own
    last = [request for request in REQUESTS if request.label == "0"]
    tokens = [complete(network, TASK, last, each)[1] for each in (off, replace(off, decay=1.0))]
    assert tokens[0] < 0.5 * tokens[1]


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


def test_an_unknown_specification_is_refused():
    with pytest.raises(UsageError, match="sts-x2"):
        read_task("sts-x3")


def job(**changes):
    texts = [f"{sentence} {i}" for sentence in SENTENCES[:4] for i in range(2)]
    return replace(Job(TASK, texts, 2, replace(WIDE, new_tokens=32), "m", batch=4), **changes)


@pytest.fixture(scope="module")
def backbone(folder):
    return Backbone(str(folder), head="lm", dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def whole(backbone, tmp_path_factory):
    """The folder of the job's finished file, and what ``generate`` returned."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, generate(job(), backbone, folder, quiet)


@pytest.fixture
def copied(whole, tmp_path):
    """A copy of that folder."""
    return Path(shutil.copytree(whole[0], tmp_path / "copy"))


def test_the_file_has_the_keys_of_the_released_data(whole):
    rows, took = whole[1]
    dropped = sum(took.get(reason, 0) for reason in ("no quote", "empty", "line break"))
    assert took["asked"] == took["kept"] + dropped == 48
    assert len(rows) == took["kept"] > 1
    for row in rows:  # the original's reader takes these keys and no others
        assert row.keys() == {"text_a", "text_b", "label"}
        assert row["text_a"] in job().x1
        assert row["label"] in NAMES


def test_an_interrupted_file_resumes(backbone, whole, tmp_path):
    def stop(_, done, __):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(job(), backbone, tmp_path, stop)
    data = tmp_path / "tiny-dataset.jsonl"
    data.write_bytes(data.read_bytes() + b'{"text_a": "The cat')  # was being written
    rows, took = generate(job(), backbone, tmp_path, quiet)
    assert data.read_bytes() == (whole[0] / data.name).read_bytes()
    assert (rows, took | {"seconds": 0}) == (whole[1][0], whole[1][1] | {"seconds": 0})


def test_a_file_of_other_settings_is_refused(backbone, copied):
    with pytest.raises(UsageError, match="other settings"):
        generate(job(samples=1), backbone, copied, quiet)


def test_a_damaged_file_is_generated_again(backbone, whole, copied, caplog):
    data = copied / "tiny-dataset.jsonl"
    data.write_bytes(data.read_bytes()[:-5])
    with caplog.at_level(logging.WARNING):
        assert generate(job(), backbone, copied, quiet)[0] == whole[1][0]
    assert "damaged" in caplog.text


def test_texts_of_unknown_settings_are_not_overwritten(backbone, copied):
    (copied / "tiny-args.json").unlink()
    data = (copied / "tiny-dataset.jsonl").read_bytes()
    with pytest.raises(DataError, match=r"tiny-args\.json"):
        generate(job(), backbone, copied, quiet)
    assert (copied / "tiny-dataset.jsonl").read_bytes() == data


def test_a_file_of_an_earlier_version_is_read(backbone, whole, copied):
    args = copied / "tiny-args.json"
    note = json.loads(args.read_text())["note"]
    progress = note["progress"] | {"size": note["size"]}
    del progress["generator"]
    args.write_text(json.dumps(note["of"] | {"generator": "m", "done": progress}))
    calls = []
    copy_finished(job(), copied.parent / "new", [copied])
    for folder in (copied.parent / "new", copied):
        assert generate(job(), backbone, folder, lambda *_: calls.append(_)) == whole[1]
    assert not calls


def test_rows_may_hold_any_character_but_a_line_feed(backbone, tmp_path):
    texts = ["One line\u2028and another.", "A next\x85line."]
    rows, _ = generate(job(x1=texts, samples=8), backbone, tmp_path, quiet)
    assert {row["text_a"] for row in rows} == set(texts)


def test_a_first_text_without_room_is_named_before_anything_is_generated(backbone, tmp_path):
    calls = []
    long = job(x1=["Short.", "so " * 2_000], batch=1)
    for seed in range(4):  # whichever batch it is in
        generation = replace(WIDE, seed=seed)
        with pytest.raises(DataError, match="first text 'so so so"):
            generate(replace(long, generation=generation), backbone, tmp_path, calls.append)
    assert not calls


def test_first_texts_are_generated_by_a_task_without_them(backbone, tmp_path):
    task = parse_task({"task_name": "x1", "labels": {"1": {"instruction": 'Same.\nA: "'}}}, "x1")
    rows, took = generate(job(task=task, x1=[""], samples=40), backbone, tmp_path, quiet)
    assert took["asked"] == 40
    assert rows
    assert all(row["text_b"] is None and row["text_a"] for row in rows)
