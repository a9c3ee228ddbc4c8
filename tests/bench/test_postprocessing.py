"""Renormalised and whitened encoders: the maps, what they are fitted to, and the cache."""

import json
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

from bench.embeddings import CachedEncoder
from bench.encoder import Item, card, fingerprint, read_files, settings
from bench.errors import DataError, EncodingError, Unavailable, UsageError
from bench.postprocessing import EVALUATED, Renormalised, Whitened
from bench.registry import load_encoder
from bench.tasks.mteb import as_mteb
from bench.testing import run_checks
from bench.vectors import Vectors

DIM = 6
RNG = np.random.default_rng(0)
VECTORS = RNG.standard_normal((200, DIM)) @ RNG.standard_normal((DIM, DIM)) + 3.0
VECTORS = VECTORS.astype(np.float32)
LETTERS = f"{__name__}:Letters"


@dataclass(frozen=True)
class Letters:
    """Counts of letters, squared by an instruction; it notes what it was asked for."""

    asked: ClassVar[list[tuple[str, str]]] = []
    version: ClassVar[int] = 1
    follows_instructions: ClassVar[bool] = True

    def count_tokens(self, items):
        return sum(len(item.text) for item in items)

    def encode(self, texts, *, instruction=""):
        self.asked.extend((text, instruction) for text in texts)
        rows = []
        for text in texts:
            counts = [text.count(letter) for letter in "abcdef"]
            rows.append((np.arange(1, DIM + 1) / 10 + counts) ** (2 if instruction else 1))
        return np.array(rows, np.float32).reshape(-1, DIM)


def over(kind, **settings):
    """Return an encoder that changes the vectors of ``Letters``."""
    return kind(checkpoint=LETTERS, **settings)


def words(count, seed=0):
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list("abcdef"), 9)) for _ in range(count)]


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": f"{word}. {word}!"}) + "\n" for word in words(60)))
    return str(path)


@pytest.fixture(autouse=True)
def asked():
    Letters.asked.clear()
    return Letters.asked


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_removing_leaves_nothing_along_the_mean_direction_or_centres_the_texts():
    change, mean = Renormalised().fit(VECTORS), unit(VECTORS).mean(axis=0)
    changed = change(VECTORS)
    assert np.abs(changed @ (mean / np.linalg.norm(mean))).max() < 1e-5
    assert np.allclose(unit(change(unit(changed))), unit(changed), atol=1e-5)  # twice is once
    centred = Renormalised(removal="point").fit(VECTORS)(VECTORS)
    assert np.abs(centred.mean(axis=0)).max() < 1e-6


@pytest.mark.parametrize("components", [0, 3])
def test_whitened_directions_are_uncorrelated_with_variance_1(components):
    changed = Whitened(components=components).fit(VECTORS)(VECTORS)
    variances = np.linalg.eigvalsh(np.cov(changed.T, bias=True))
    rank = components or DIM
    assert np.allclose(variances, [0] * (DIM - rank) + [1] * rank, atol=1e-4)
    axes, scales, _ = np.linalg.svd(np.cov(VECTORS.T, bias=True))
    published = (VECTORS - VECTORS.mean(0)) @ axes[:, :rank] / np.sqrt(scales[:rank])
    assert np.allclose(
        unit(changed) @ unit(changed).T, unit(published) @ unit(published).T, atol=1e-4
    )


def test_whitened_queries_and_documents_are_compared_in_one_basis():
    """Each instruction has a map of its own, fitted to vectors that differ a little."""
    rng = np.random.default_rng(3)
    bare = rng.standard_normal((400, DIM)) + 3
    instructed = bare + 0.1 * rng.standard_normal((400, DIM)) + 1
    one, other = (unit(Whitened().fit(each)(each)) for each in (bare, instructed))
    assert (one * other).sum(1).min() > 0.5


@pytest.mark.parametrize("kind", [Renormalised(), Renormalised(removal="point"), Whitened()])
def test_a_rotation_of_the_vectors_changes_no_cosine(kind):
    turn, _ = np.linalg.qr(RNG.standard_normal((DIM, DIM)))
    turned = (VECTORS @ turn).astype(np.float32)
    one, other = (unit(kind.fit(each)(each)) for each in (VECTORS, turned))
    assert np.allclose(one @ one.T, other @ other.T, atol=1e-3)


def test_whitening_refuses_too_few_texts_and_too_many_components():
    with pytest.raises(EncodingError, match="more texts than the 6 dimensions"):
        Whitened().fit(VECTORS[:6])
    with pytest.raises(UsageError, match="components"):
        Whitened(components=7).fit(VECTORS)
    with pytest.raises(UsageError, match="removal"):
        Renormalised(removal="all").fit(VECTORS)


@pytest.mark.parametrize("name", ["renormalised", "whitened"])
def test_a_postprocessed_encoder_keeps_the_contract(name, source):
    encoder = load_encoder(f"{name}:{LETTERS}", {"texts": source})
    assert [each.reason for each in run_checks(encoder) if each.status == "failed"] == []


def test_the_texts_are_part_of_the_identity_and_the_card_says_which(source, tmp_path):
    encoder = over(Renormalised, texts=source)
    copied = tmp_path / "copy.jsonl"
    copied.write_bytes((tmp_path / "texts.jsonl").read_bytes())
    assert fingerprint(encoder) == fingerprint(replace(encoder, texts=str(copied)))
    copied.write_text('{"text": "a fee. a bed."}\n')
    others = [
        replace(encoder, texts=str(copied)),
        replace(encoder, removal="point"),
        replace(encoder, count=5),
        replace(encoder, texts=EVALUATED),
        over(Whitened, texts=source),
    ]
    prints = {fingerprint(each) for each in (encoder, *others)}
    assert len(prints) == 6
    known = card(encoder).training["postprocessing"]
    assert known["count"] == 120
    assert len(known["sha256"]) == 64
    assert not card(encoder).transductive
    assert card(replace(encoder, texts=EVALUATED)).transductive
    assert settings(encoder)["removal"] == "direction"


def test_vectors_come_from_the_cache_and_each_text_is_encoded_once(source, tmp_path, asked):
    vectors = Vectors(tmp_path / "cache")
    base = CachedEncoder(Letters(), vectors)
    items = [Item(text, "why") for text in words(10, seed=1)]
    own = base.embed(items)
    encoder = over(Renormalised, texts=source, count=40)
    cached = CachedEncoder(encoder, vectors)
    assert {item.instruction for item in cached.missing(items)} == {"why"}
    assert len(cached.missing(items)) == 40
    assert cached.count_tokens(items) == 90
    cached.add(cached.missing(items))
    assert not cached.missing(items)
    found = cached.embed(items)
    whitened = CachedEncoder(over(Whitened, texts=source, count=40), vectors)
    whitened.embed(items)
    assert len(asked) == len(set(asked)) == 50
    texts = [each.text for each in encoder.fitting_items(["why"])]
    fitted = Letters().encode(texts, instruction="why")
    alone = encoder.encode([each.text for each in items], instruction="why")
    for expected in (unit(encoder.fit(fitted)(own)), alone):
        assert np.allclose(found, expected, atol=1e-6)
    assert cached.summary()["asked"] == 10  # without the texts that the map is fitted to


def test_a_mirror_reads_what_the_encoder_behind_reads(source, monkeypatch):
    read = []
    monkeypatch.setattr(Letters, "count_tokens", lambda _, items: read.append(items) or 1)
    read_files(over(Whitened, texts=source))
    assert read == [[Item("a")]]


def test_texts_of_both_sides_of_a_retrieval_are_counted(source):
    cached = CachedEncoder(over(Renormalised, texts=source, count=40), Vectors(None))
    for side, count in (("query", 3), ("document", 5)):
        cached.for_side(side).encode(words(count, seed=count))
    assert cached.summary()["asked"] == 8
    assert cached.cost.forward_texts == 48


def test_each_instruction_has_a_mean_of_its_own(source):
    encoder = over(Renormalised, texts=source)
    items = [Item(text, instruction) for text in words(4, 1) for instruction in ("", "why")]
    found = CachedEncoder(encoder, Vectors(None)).embed(items)
    for i, instruction in enumerate(("", "why")):
        alone = encoder.encode(words(4, 1), instruction=instruction)
        assert np.allclose(found[i::2], alone, atol=1e-6)


def test_evaluated_texts_are_used_only_when_asked_for(source, asked):
    items = [Item(text) for text in words(9, 1)]
    encoder = over(Renormalised, texts=EVALUATED, removal="point")
    found = CachedEncoder(encoder, Vectors(None)).embed(items)
    assert {text for text, _ in asked} == {item.text for item in items}
    own = unit(Letters().encode([item.text for item in items]))
    assert np.allclose(found, unit(own - own.mean(axis=0)), atol=1e-5)


@pytest.mark.parametrize("kind", [Renormalised, Whitened])
def test_tasks_whose_calls_would_each_get_a_map_of_their_own_get_none(kind, source):
    encoder = over(kind, texts=EVALUATED)
    texts = words(40, 1)
    apart = np.concatenate([encoder.encode(texts[:20]), encoder.encode(texts[20:])])
    assert not np.allclose(encoder.encode(texts), apart, atol=1e-3)
    one = CachedEncoder(encoder, Vectors(None))
    for select in (as_mteb, lambda encoder: encoder.for_side("query")):
        with pytest.raises(Unavailable, match="texts="):
            select(one)
        select(replace(encoder, texts=source))


def test_texts_that_are_missing_or_of_another_layout_are_named(tmp_path):
    encoder = over(Renormalised, texts="no/such-set")
    with pytest.raises(Unavailable, match="texts="):
        card(encoder)
    path = tmp_path / "rows.jsonl"
    path.write_text('{"label": 1}\n')
    with pytest.raises(DataError, match="sentence"):
        card(replace(encoder, texts=str(path)))
    for wrong in ({"texts": ","}, {"count": 0}):
        with pytest.raises(UsageError):
            card(replace(encoder, **wrong))
