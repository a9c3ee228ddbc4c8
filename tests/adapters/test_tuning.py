"""A copy of a network trained on a few examples, against an independent computation."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, normalize

from adapters._tuning import PAIRS, TAGS, Schedule
from adapters.baseline.pooled import Pooled
from adapters.llm2comp.encoder import LLM2Comp
from bench.errors import EncodingError, UsageError
from bench.spans import Marked
from bench.tasks import load_task
from bench.tasks.tuned import TunableEncoder
from tests.adapters.checks import CPU, read_plain
from tests.tiny import SENTENCES

LEFT, RIGHT = SENTENCES[:6], [*SENTENCES[:3], *SENTENCES[5:8]]
SIMILAR = list(zip(LEFT, RIGHT, strict=True))
LABELS = [1, 1, 1, 0, 0, 0]


@pytest.fixture(scope="module", params=["roberta", "llama"])
def encoder(request, tiny):
    return Pooled(str(tiny(request.param, head=False)), **CPU)


def find_words(text):
    return [match.span() for match in re.finditer(r"[^ ]+", text)]


def tune(encoder, *learnt, layers=(-2, -1), epochs=3, seed=0):
    learnt = [(pairs, LABELS) for pairs in learnt]
    return encoder.tune_pairs(learnt, layers=layers, epochs=epochs, seed=seed)(SIMILAR)


def test_schedules_are_those_of_the_released_code():
    pairs = Schedule(
        1e-5, 16, (0.9, 0.98), 1e-6, falling=False, clip=0.0, dropout=0.0, attention_dropout=0.1
    )
    tags = Schedule(
        2e-5, 8, (0.9, 0.999), 1e-8, falling=True, clip=1.0, dropout=0.1, attention_dropout=0.1
    )
    assert (pairs, tags) == (PAIRS, TAGS)
    names = ("mrpc-tuned", "wnut17-tuned-standard", "wnut17-tuned-question")
    assert [load_task(name).epochs for name in names] == [20, 200, 200]


def raw_score(left, right):
    """Return BERTScore F of token states (a, dim) and (b, dim)."""
    alike = normalize(left, dim=1) @ normalize(right, dim=1).T
    precision, recall = alike.max(1).values.mean(), alike.max(0).values.mean()
    return 2 * precision * recall / (precision + recall)


def test_pairs_are_trained_and_scored_by_the_formulae(encoder, monkeypatch):
    """Against transformers, one text at a time, with cumulative batch statistics and Adam."""
    monkeypatch.setattr("adapters._tuning.PAIRS", replace(PAIRS, lr=1e-4, attention_dropout=0.0))
    steps = 3
    tokenizer, model = read_plain(encoder.checkpoint)
    weight, bias = torch.zeros(2, requires_grad=True), torch.zeros(1, requires_grad=True)
    trained = [*model.parameters(), weight, bias]
    optimizer = torch.optim.Adam(trained, lr=1e-4, betas=(0.9, 0.98), eps=1e-6)

    def score(pair):
        a, b = (
            model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states
            for text in pair
        )
        return torch.stack([raw_score(a[k][0], b[k][0]) for k in (-2, -1)])

    means, variances = [], []
    for _ in range(steps):
        x = torch.stack([score(pair) for pair in SIMILAR])
        means.append(x.detach().mean(0))
        variances.append(x.detach().var(0))  # what a batch adds to the running variance
        scaled = (x - x.mean(0)) / (x.var(0, correction=0) + 1e-8).sqrt()
        logits = 1000 * (scaled @ weight + bias)
        loss = binary_cross_entropy_with_logits(logits, torch.tensor(LABELS).float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        x, mean = torch.stack([score(pair) for pair in SIMILAR]), torch.stack(means).mean(0)
        scaled = (x - mean) / (torch.stack(variances).mean(0) + 1e-8).sqrt()
        expected = 1000 * (scaled @ weight + bias)
    before = encoder.encode(LEFT)
    assert tune(encoder, SIMILAR, epochs=0).tolist() == [0.0] * 6
    found = tune(encoder, SIMILAR, epochs=steps)
    # Adam makes steps of rounding, too
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-2, atol=1e-3)
    np.testing.assert_array_equal(encoder.encode(LEFT), before)  # the encoder itself stays as it is


def test_pairs_are_compared_by_their_own_tokens_without_template_or_memory(tiny, monkeypatch):
    read = []

    def note(x, a, y, b):
        read.append((x, a, y, b))
        return torch.ones(len(x))

    monkeypatch.setattr("adapters._tuning._bertscore", note)
    encoder = LLM2Comp(str(tiny("llama")), k=4, **CPU)
    tune(encoder, SIMILAR, layers=(-1,), epochs=0)
    for side, texts in ((0, LEFT), (2, RIGHT)):
        both = zip(read[0][side], read[0][side + 1], strict=True)
        own = [states[mask.bool()].numpy() for states, mask in both]
        for found, wanted in zip(own, encoder.encode_tokens(texts), strict=True):
            np.testing.assert_allclose(found, wanted.states, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_pairs_are_learnt_and_a_seed_repeats(encoder, dtype):
    found, again = (tune(replace(encoder, dtype=dtype), SIMILAR, seed=4) for _ in range(2))
    assert ((found > 0) == np.array(LABELS)).all()
    np.testing.assert_array_equal(found, again)


def test_a_network_that_learnt_from_a_set_before_goes_on_from_there_with_a_new_classifier(
    encoder, monkeypatch
):
    monkeypatch.setattr("adapters._tuning.PAIRS", replace(PAIRS, lr=1e-3))
    others = list(zip(RIGHT, SENTENCES[2:8], strict=True))
    after = tune(encoder, others, SIMILAR)
    assert np.abs(after - tune(encoder, SIMILAR)).max() > 0.01
    assert np.abs(after - tune(encoder, SIMILAR, others)).max() > 0.01


def test_classes_of_words_are_learnt_at_their_first_tokens(encoder, monkeypatch):
    schedule = Schedule(5e-3, 4, dropout=0.0, attention_dropout=0.0)
    monkeypatch.setattr("adapters._tuning.TAGS", schedule)
    marked = []
    for text in SENTENCES[:6]:
        spans = find_words(text)
        marked.append(Marked(text, spans, [int(text[a].isupper()) for a, _ in spans]))
    before = encoder.encode(SENTENCES)
    mark = encoder.tune_classes(marked, classes=2, start=None, epochs=40, seed=0)
    found = np.concatenate(mark([Marked(one.text, one.spans) for one in marked]))
    assert (found == np.concatenate([one.classes for one in marked])).mean() > 0.95
    np.testing.assert_array_equal(encoder.encode(SENTENCES), before)


def test_a_classifier_that_is_not_trained_gives_the_classes_of_its_start(encoder):
    text, spans = SENTENCES[0], find_words(SENTENCES[0])
    start = np.random.default_rng(0).normal(size=(3, 32)).astype(np.float32)
    marked = Marked(text, spans, [0] * len(spans))
    mark = encoder.tune_classes([marked], classes=3, start=start, epochs=0, seed=0)
    tokens = encoder.encode_tokens([text])[0]
    inside = [(tokens.spans[:, 1] > a) & (tokens.spans[:, 0] < b) for a, b in spans]
    first = [int(each.argmax()) for each in inside]
    expected = (tokens.states[first] @ start.T).argmax(1)
    assert mark([Marked(text, spans)])[0].tolist() == expected.tolist()


def test_what_cannot_be_trained_on_is_a_one_line_error(encoder):
    assert isinstance(encoder, TunableEncoder)
    options = {"epochs": 1, "seed": 0}
    sets = [([([], [])], "pairs"), ([], "pairs")]
    some = {n: ([("a", "b")] * n, [n % 2] * n) for n in (16, 17)}
    for sizes in ((17,), (16, 17), (17, 16)):
        sets += [([some[n] for n in sizes], "single pair")]
    for learnt, problem in sets:
        with pytest.raises(UsageError, match=problem):
            encoder.tune_pairs(learnt, layers=(-1,), **options)
    marked, start = [Marked("a", [(0, 1)], [0])], np.full((2, 32), np.nan, np.float32)
    with pytest.raises(UsageError, match="shape"):
        encoder.tune_classes(marked, classes=2, start=start[:, :5], **options)
    with pytest.raises(EncodingError, match="not finite"):
        encoder.tune_classes(marked, classes=2, start=start, **options)
