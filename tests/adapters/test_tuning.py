"""A copy of a network trained on a few examples, against an independent computation."""

from dataclasses import replace

import numpy as np
import pytest

from adapters._tuning import PAIRS, TAGS, Schedule
from adapters.baseline.pooled import Pooled
from bench.errors import EncodingError, UsageError
from bench.spans import Marked
from bench.tasks import load_task
from bench.tasks.tuned import TunableEncoder
from tests.tiny import SENTENCES, tiny_folder

torch = pytest.importorskip("torch")

LEFT, RIGHT = SENTENCES[:6], [*SENTENCES[:3], *SENTENCES[5:8]]
LABELS = [1, 1, 1, 0, 0, 0]


@pytest.fixture(scope="module", params=["roberta", "llama"])
def encoder(request, tmp_path_factory):
    return Pooled(
        str(tiny_folder(request.param, tmp_path_factory.mktemp("tuning") / request.param)),
        dtype="float32",
        device="cpu",
    )


def words(text):
    starts = [i for i, c in enumerate(text) if c != " " and (i == 0 or text[i - 1] == " ")]
    return [(i, i + len(text[i:].split(" ")[0])) for i in starts]


def test_schedules_are_those_of_the_released_code():
    assert (
        Schedule(
            1e-5, 16, (0.9, 0.98), 1e-6, falling=False, clip=0.0, dropout=0.0, attention_dropout=0.1
        )
        == PAIRS
    )
    assert (
        Schedule(
            2e-5, 8, (0.9, 0.999), 1e-8, falling=True, clip=1.0, dropout=0.1, attention_dropout=0.1
        )
        == TAGS
    )
    assert [
        load_task(name).epochs
        for name in ("mrpc-tuned", "wnut17-tuned-standard", "wnut17-tuned-question")
    ] == [20, 200, 200]


def raw_score(left, right):
    """Return BERTScore F of token states (a, dim) and (b, dim)."""
    alike = (
        torch.nn.functional.normalize(left, dim=1) @ torch.nn.functional.normalize(right, dim=1).T
    )
    precision, recall = alike.max(1).values.mean(), alike.max(0).values.mean()
    return 2 * precision * recall / (precision + recall)


def test_pairs_are_trained_and_scored_by_the_formulae(encoder, monkeypatch):
    """Against transformers, one text at a time, with cumulative batch statistics and Adam."""
    from transformers import AutoModel, AutoTokenizer

    monkeypatch.setattr("adapters._tuning.PAIRS", replace(PAIRS, lr=1e-4, attention_dropout=0.0))
    pairs, steps = list(zip(LEFT, RIGHT, strict=True)), 3
    tokenizer, model = (
        AutoTokenizer.from_pretrained(encoder.checkpoint),
        AutoModel.from_pretrained(encoder.checkpoint).eval(),
    )
    weight, bias = torch.zeros(2, requires_grad=True), torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.Adam(
        [*model.parameters(), weight, bias], lr=1e-4, betas=(0.9, 0.98), eps=1e-6
    )

    def features():
        def states(text):
            return model(
                **tokenizer(text, return_tensors="pt"), output_hidden_states=True
            ).hidden_states

        found = [(states(a), states(b)) for a, b in pairs]
        return torch.stack(
            [torch.stack([raw_score(a[k][0], b[k][0]) for k in (-2, -1)]) for a, b in found]
        )

    means, variances = [], []
    for _ in range(steps):
        x = features()
        means.append(x.detach().mean(0))
        variances.append(
            x.detach().var(0, correction=1)
        )  # what a batch adds to the running variance
        scaled = (x - x.mean(0)) / (x.var(0, correction=0) + 1e-8).sqrt()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            1000 * (scaled @ weight + bias), torch.tensor(LABELS).float()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        scaled = (features() - torch.stack(means).mean(0)) / (
            torch.stack(variances).mean(0) + 1e-8
        ).sqrt()
        expected = 1000 * (scaled @ weight + bias)
    before = encoder.encode(LEFT)
    untrained, found = (
        encoder.tune_pairs([(pairs, LABELS)], layers=(-2, -1), epochs=epochs, seed=0)(pairs)
        for epochs in (0, steps)
    )
    assert untrained.tolist() == [0.0] * 6
    np.testing.assert_allclose(
        found, expected.numpy(), rtol=1e-2, atol=1e-3
    )  # Adam makes steps of rounding, too
    np.testing.assert_array_equal(encoder.encode(LEFT), before)  # the encoder itself stays as it is


def test_pairs_are_compared_by_their_own_tokens_without_template_or_memory(tmp_path, monkeypatch):
    from adapters.llm2comp.encoder import LLM2Comp

    read = []
    monkeypatch.setattr(
        "adapters._tuning._bertscore",
        lambda x, a, y, b: read.append((x, a, y, b)) or torch.ones(len(x)),
    )
    encoder = LLM2Comp(
        str(tiny_folder("llama", tmp_path / "llama")), k=4, dtype="float32", device="cpu"
    )
    pairs = list(zip(LEFT, RIGHT, strict=True))
    encoder.tune_pairs([(pairs, LABELS)], layers=(-1,), epochs=0, seed=0)(pairs)
    for side, texts in ((0, LEFT), (2, RIGHT)):
        own = [
            states[mask.bool()].numpy()
            for states, mask in zip(read[0][side], read[0][side + 1], strict=True)
        ]
        for found, wanted in zip(own, encoder.encode_tokens(texts), strict=True):
            np.testing.assert_allclose(found, wanted.states, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_pairs_are_learnt_and_a_seed_repeats(encoder, dtype):
    encoder = replace(encoder, dtype=dtype)
    pairs = list(zip(LEFT, RIGHT, strict=True))
    found, again = (
        encoder.tune_pairs([(pairs, LABELS)], layers=(-2, -1), epochs=3, seed=4)(pairs)
        for _ in range(2)
    )
    assert ((found > 0) == np.array(LABELS)).all()
    np.testing.assert_array_equal(found, again)


def test_a_network_that_learnt_from_a_set_before_goes_on_from_there_with_a_new_classifier(
    encoder, monkeypatch
):
    monkeypatch.setattr("adapters._tuning.PAIRS", replace(PAIRS, lr=1e-3))
    pairs, others = (
        list(zip(LEFT, RIGHT, strict=True)),
        list(zip(RIGHT, SENTENCES[2:8], strict=True)),
    )

    def scores(*learnt):
        return encoder.tune_pairs(
            [(some, LABELS) for some in learnt], layers=(-2, -1), epochs=3, seed=0
        )(pairs)

    after = scores(others, pairs)
    assert np.abs(after - scores(pairs)).max() > 0.01
    assert np.abs(after - scores(pairs, others)).max() > 0.01
    np.testing.assert_array_equal(scores(others, pairs), after)


def test_classes_of_words_are_learnt_at_their_first_tokens(encoder, monkeypatch):
    monkeypatch.setattr(
        "adapters._tuning.TAGS", TAGS.__class__(5e-3, 4, dropout=0.0, attention_dropout=0.0)
    )
    texts = [" ".join(text.split()) for text in SENTENCES[:6]]
    marked = [
        Marked(text, words(text), [int(text[a].isupper()) for a, _ in words(text)])
        for text in texts
    ]
    before = encoder.encode(texts)
    mark = encoder.tune_classes(marked, classes=2, start=None, epochs=40, seed=0)
    found = mark([Marked(one.text, one.spans) for one in marked])
    assert (
        np.mean(
            [(got == np.array(one.classes)).mean() for got, one in zip(found, marked, strict=True)]
        )
        > 0.95
    )
    np.testing.assert_array_equal(encoder.encode(texts), before)


def test_a_classifier_that_is_not_trained_gives_the_classes_of_its_start(encoder):
    text = " ".join(SENTENCES[0].split())
    start = np.random.default_rng(0).normal(size=(3, 32)).astype(np.float32)
    (found,) = encoder.tune_classes(
        [Marked(text, words(text), [0] * len(words(text)))],
        classes=3,
        start=start,
        epochs=0,
        seed=0,
    )([Marked(text, words(text))])
    tokens = encoder.encode_tokens([text])[0]
    first = [
        int(np.flatnonzero((tokens.spans[:, 1] > a) & (tokens.spans[:, 0] < b))[0])
        for a, b in words(text)
    ]
    assert found.tolist() == (tokens.states[first] @ start.T).argmax(1).tolist()


def test_what_cannot_be_trained_on_is_a_one_line_error(encoder):
    assert isinstance(encoder, TunableEncoder)
    with pytest.raises(UsageError, match="pairs"):
        encoder.tune_pairs([([], [])], layers=(-1,), epochs=1, seed=0)
    with pytest.raises(UsageError, match="pairs"):
        encoder.tune_pairs([], layers=(-1,), epochs=1, seed=0)
    for sizes in ((17,), (16, 17), (17, 16)):
        with pytest.raises(UsageError, match="single pair"):
            encoder.tune_pairs(
                [([("a", "b")] * n, [n % 2] * n) for n in sizes], layers=(-1,), epochs=1, seed=0
            )
    with pytest.raises(UsageError, match="shape"):
        encoder.tune_classes(
            [Marked("a", [(0, 1)], [0])],
            classes=2,
            start=np.zeros((2, 5), np.float32),
            epochs=1,
            seed=0,
        )
    with pytest.raises(EncodingError, match="not finite"):
        encoder.tune_classes(
            [Marked("a", [(0, 1)], [0])],
            classes=2,
            start=np.full((2, 32), np.nan, np.float32),
            epochs=1,
            seed=0,
        )
