"""DINO's recipe on tiny models: generated, killed, gone on with, cleaned, trained, encoded and exported."""

import gzip
import importlib
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from adapters._backbone import Backbone
from adapters._training.weights import unfrozen
from adapters.dino.dataset import Order, generated
from adapters.dino.debiasing import Sampling
from adapters.dino.encoder import DINO
from adapters.dino.export import export
from adapters.dino.generation import Writing
from adapters.dino.objective import Similarity, contrasted, pooled, tokenised
from adapters.dino.postprocess import Pair
from adapters.dino.reviews import reviews, write
from adapters.dino.specification import parsed
from adapters.dino.train import Recipe, parted
from bench.data import load
from bench.errors import DataError, UsageError
from bench.tasks.sts import STS
from bench.testing import run_checks
from tests.adapters.test_dino_generation import NAMES, SPEC, TASK
from tests.processes import trained_by_two
from tests.tiny import SENTENCES, tiny_folder

torch = pytest.importorskip("torch")

CLOSE = {"atol": 1e-5, "rtol": 1e-4}  # float32 sums in another order
X1 = [
    f"{a} {b}"
    for a in ("The cat", "The dog", "He", "The bank", "She")
    for b in ("sat on the mat.", "won the final.", "plays.", "fell.")
]


def quiet(*_):
    """Take progress, and say nothing."""


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    """A tiny model that has learnt to close its quotes, as its folder."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tiny_folder("llama", tmp_path_factory.mktemp("writer") / "m", head=True)
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
    )
    rng = np.random.default_rng(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        rows = [(rng.choice(list(NAMES)), *rng.choice(X1, 2)) for _ in range(8)]
        batch = tokenizer(
            [f'{TASK.prompt(str(label), str(a))}{b}"' for label, a, b in rows],
            return_tensors="pt",
            padding=True,
        )
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        model(**batch, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def settings(writer, tmp_path):
    (tmp_path / "tiny.json").write_text(json.dumps(SPEC))
    (tmp_path / "x1.txt").write_text("\n".join(X1))
    return {
        "backbone": str(writer), "generator": str(writer), "task": str(tmp_path / "tiny.json"), "x1": str(tmp_path / "x1.txt"),
        "least_shared": 0.0, "most_shared": 1.0, "agreeing": False, "batch": 4, "batch_size": 8, "dtype": "float32", "new_tokens": 16,
    }  # fmt: skip


def order(**changes):
    return replace(Order(TASK, X1, 2, Writing(new_tokens=16), "m" * 64, batch=4), **changes)


def backbone(folder):
    return Backbone(str(folder), head="lm", dtype="float32", device="cpu")


def test_what_was_generated_goes_on_where_it_was_stopped(writer, tmp_path):
    whole = generated(order(), backbone(writer), tmp_path / "whole", quiet)
    assert len(list(whole.rows())) == whole.counts["kept"] > 30
    assert (
        whole.counts["asked"]
        == sum(n for name, n in whole.counts.items() if name != "asked")
        == 120
    )

    def stop(_, done, __):
        if done > 60:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generated(order(), backbone(writer), tmp_path / "cut", stop)
    data = tmp_path / "cut" / "tiny-dataset.jsonl"
    data.write_bytes(
        data.read_bytes() + b'{"text_a": "The cat sat on'
    )  # a line that was being written
    again = generated(order(), backbone(writer), tmp_path / "cut", quiet)
    assert data.read_bytes() == whole.path.read_bytes()
    assert again.counts == whole.counts
    assert again.positions == whole.positions
    for (
        line
    ) in data.read_text().splitlines():  # the original's reader takes these three and no others
        text_a, text_b, label = (json.loads(line).pop(key) for key in ("text_a", "text_b", "label"))
        assert len(json.loads(line)) == 3
        assert text_a in X1
        assert isinstance(text_b, str)
        assert label in TASK.labels
    with pytest.raises(UsageError, match="other settings"):
        generated(order(samples=1), backbone(writer), tmp_path / "cut", quiet)
    data.write_bytes(data.read_bytes()[:-5])
    with pytest.raises(DataError, match="delete"):
        list(again.rows())
    for fault in (
        lambda: None,
        data.unlink,
    ):  # shorter than was noted, then gone: nothing is filled up
        fault()
        with pytest.raises(DataError, match="delete"):
            generated(order(), backbone(writer), tmp_path / "cut", quiet)


def test_the_generator_s_name_is_noted_and_decides_nothing(writer, tmp_path):
    generated(order(), backbone(writer), tmp_path, quiet)
    args = tmp_path / "tiny-args.json"
    noted = json.loads(args.read_text())
    assert noted.pop("generator") == backbone(writer).card().backbone
    args.write_text(json.dumps(noted))  # as it was before names were noted
    assert generated(order(), backbone(writer), tmp_path, quiet).counts["asked"] == 120


def test_texts_that_nothing_tells_the_settings_of_are_not_written_over(writer, tmp_path):
    made = generated(order(), backbone(writer), tmp_path, quiet)
    texts = made.path.read_bytes()
    (tmp_path / "tiny-args.json").unlink()
    with pytest.raises(DataError, match=r"tiny-args\.json"):
        generated(order(), backbone(writer), tmp_path, quiet)
    assert made.path.read_bytes() == texts


def test_rows_may_hold_any_character_but_the_end_of_a_line(writer, tmp_path):
    texts = ["One line\u2028and another.", "A next\x85line."]
    made = generated(order(x1=texts, samples=4), backbone(writer), tmp_path, quiet)
    assert {row["text_a"] for row in made.rows()} == set(texts)
    assert len(list(made.rows())) == made.counts["kept"]


def test_without_debiasing_no_counter_label_is_computed(writer, tmp_path):
    wanted = {
        decay: order(writing=Writing(Sampling(decay=decay), new_tokens=16))
        for decay in (0.0, 100.0)
    }
    made = {
        decay: generated(one, backbone(writer), tmp_path / str(decay), quiet)
        for decay, one in wanted.items()
    }
    assert (
        made[0.0].positions < 0.75 * made[100.0].positions
    )  # one row a text instead of one to three


def test_a_first_text_that_leaves_no_room_is_named_before_anything_is_computed(writer, tmp_path):
    told = []
    for seed in range(4):  # whichever batch it is in
        wanted = order(
            x1=["Short.", "so " * 2_000], batch=1, writing=Writing(new_tokens=16, seed=seed)
        )
        with pytest.raises(DataError, match="first text 'so so so"):
            generated(wanted, backbone(writer), tmp_path / str(seed), lambda *_: told.append(_))
    assert not told


@pytest.mark.parametrize("labels", [("same", "other"), ("2", "1", "0"), ("1", "nan")])
def test_labels_that_are_no_shares_are_refused_before_anything_is_generated(
    settings, tmp_path, labels
):
    spec = {
        "task_name": "odd",
        "labels": {
            k: {"instruction": f'{k}\nA: "<X1>"\nB: "', "counter_labels": []} for k in labels
        },
    }
    (tmp_path / "odd.json").write_text(json.dumps(spec))
    with pytest.raises(UsageError, match="from 0 to 1"):
        Recipe(**settings | {"task": str(tmp_path / "odd.json")}).check()


@pytest.mark.parametrize(
    "changes",
    [
        {"smoothing": 1.1}, {"least_shared": -0.1}, {"most_shared": 2.0}, {"decay": -1.0}, {"top_k": -1}, {"random_pairs": -1},
        {"inputs": -1}, {"lr": 0.0}, {"shortest": 9, "longest": 8}, {"x1": "generated", "x1_task": "sts-x2"},
    ],
    ids=lambda changes: next(iter(changes)),
)  # fmt: skip
def test_settings_out_of_range_are_refused(changes):
    Recipe().check()
    with pytest.raises(UsageError):
        Recipe(**changes).check()


def test_a_file_of_more_first_texts_than_the_budget_needs_is_drawn_from(settings, tmp_path):
    (tmp_path / "many.txt").write_text("\n".join(f"This is sentence {i}." for i in range(50)))
    texts, _, _ = Recipe(**settings | {"x1": str(tmp_path / "many.txt")})._x1(
        None, Writing(seed=1), tmp_path, 8, None, quiet
    )
    assert len(texts) == len(set(texts)) == 8
    assert texts != [f"This is sentence {i}." for i in range(8)]


def test_texts_that_a_checkpoint_beside_has_are_not_generated_again(settings, tmp_path):
    told = []

    def train(name, **changes):
        recipe = Recipe(**settings | changes, lr=5e-3, device="cpu")
        return recipe.train(
            tmp_path / name,
            budget=1_500,
            seed=1,
            load=load,
            progress=lambda what, *_: told.append(what),
        )

    base = train("base")
    assert any("generating" in what for what in told)
    told.clear()
    other = train("smoothing=0", smoothing=0.0)
    assert not any("generating" in what for what in told)
    one, same = (json.loads((out / "card.json").read_text())["stages"] for out in (base, other))
    assert one == same
    train("decay=0", decay=0.0)
    assert any("generating" in what for what in told)
    told.clear()
    assert train("base") == base
    assert not told  # a checkpoint that is there is not trained again
    with pytest.raises(UsageError, match="another recipe"):
        train("base", samples=1)


_SCRIPT = """
import sys
from pathlib import Path
from tests.adapters.test_dino_train import backbone, generated, order, quiet
generated(order(samples=4), backbone(sys.argv[1]), Path(sys.argv[2]), quiet)
"""


def process(writer, out, seed):
    environment = {
        **os.environ,
        "PYTHONHASHSEED": seed,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    return subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, str(writer), str(out)],
        env=environment,
        stderr=subprocess.PIPE,
    )


def test_a_killed_process_leaves_no_duplicate_and_hash_seeds_change_nothing(writer, tmp_path):
    with (
        process(writer, tmp_path / "whole", "1") as whole,
        process(writer, tmp_path / "killed", "2") as killed,
    ):
        data = tmp_path / "killed" / "tiny-dataset.jsonl"
        while not (data.exists() and data.stat().st_size) and killed.poll() is None:
            time.sleep(0.005)
        killed.kill()
        assert whole.wait(120) == 0
    with process(writer, tmp_path / "killed", "3") as again:
        assert again.wait(120) == 0
    assert data.read_bytes() == (tmp_path / "whole" / "tiny-dataset.jsonl").read_bytes()


def test_first_texts_can_be_generated(writer, tmp_path):
    task = parsed(
        {"task_name": "x1", "labels": {"1": {"instruction": 'Same.\nA: "', "counter_labels": []}}},
        "x1",
    )
    made = generated(order(task=task, x1=[""], samples=12), backbone(writer), tmp_path, quiet)
    rows = list(made.rows())
    assert 3 < len(rows) == made.counts["kept"]
    assert all(row["text_b"] is None and row["text_a"] for row in rows)


def test_the_loss_is_the_squared_error_of_the_cosine_however_a_batch_is_cut(writer):
    network = Backbone(str(writer), dtype="float32", device="cpu").load()
    pairs = [
        Pair(a, b, y)
        for a, b, y in zip(SENTENCES, SENTENCES[1:], [0.9, 0.5, 0.1, 0.0] * 2, strict=False)
    ]
    vectors = DINO(str(writer), dtype="float32", device="cpu").encode(SENTENCES)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = np.mean(
        [((unit[i] @ unit[i + 1]) - pair.label) ** 2 for i, pair in enumerate(pairs)]
    )
    rows = tokenised(network, pairs, 128)
    for positions in (10_000, 60, 1):
        objective = Similarity(network, rows, positions)
        found = [objective.loss(part) for part in objective.parts(range(len(rows)))]
        assert sum(float(loss) for loss, _ in found) == pytest.approx(expected, rel=1e-4)
        assert sum(spent.trained for _, spent in found) == sum(row.length for row in rows)


def test_the_loss_and_its_gradient_are_those_of_sentence_transformers(writer):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import CosineSimilarityLoss
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    pairs = [
        Pair(a, b, y)
        for a, b, y in zip(SENTENCES, SENTENCES[1:], [0.9, 0.5, 0.1, 0.0] * 2, strict=False)
    ]
    network = unfrozen(Backbone(str(writer), dtype="float32", device="cpu").load())
    objective = Similarity(network, tokenised(network, pairs, 128), 60)
    ours = torch.zeros(())
    for part in objective.parts(range(len(pairs))):
        loss, _ = objective.loss(part)
        loss.backward()
        ours += loss.detach()
    transformer = Transformer(
        str(writer), max_seq_length=128, model_kwargs={"dtype": torch.float32}
    )
    model = SentenceTransformer(modules=[transformer, Pooling(network.dim, "mean")], device="cpu")
    sides = [model.tokenize([pair[side] for pair in pairs]) for side in (0, 1)]
    theirs = CosineSimilarityLoss(model)(sides, torch.tensor([pair.label for pair in pairs]))
    theirs.backward()
    torch.testing.assert_close(ours, theirs.detach(), **CLOSE)
    gradients = {name: weight.grad for name, weight in transformer.auto_model.named_parameters()}
    found = {name: weight.grad for name, weight in network.model.named_parameters()}
    assert found.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(found[name], gradient, **CLOSE)
    assert max(float(gradient.abs().max()) for gradient in gradients.values()) > 1e-3


def test_a_second_text_that_equals_the_own_one_is_no_negative(writer):
    network = Backbone(str(writer), dtype="float32", device="cpu").load()
    pairs = [Pair("a", "b", 0.9), Pair("d", "e", 0.9), Pair("c", "b", 0.0), Pair("c", "b", 0.9)]
    rows = tokenised(network, pairs, 128)
    a, b = (
        torch.nn.functional.normalize(pooled(network, [row[side] for row in rows]), dim=-1)
        for side in (0, 1)
    )
    labels = torch.tensor([pair.label for pair in pairs])
    found = contrasted(a, b, labels, rows)
    scores = (a @ b.T / 0.05).exp()
    seen = {0: [0, 1], 1: [0, 1, 2, 3], 3: [1, 3]}
    expected = -np.mean(
        [float((scores[i, i] / scores[i, columns].sum()).log()) for i, columns in seen.items()]
    )
    assert float(found) == pytest.approx(expected, rel=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        assert float(contrasted(a, b, labels, rows)) == float(found)


def test_the_contrastive_loss_ranks_the_own_second_text_among_others_and_hard_negatives(writer):
    network = Backbone(str(writer), dtype="float32", device="cpu").load()
    pairs = [
        Pair("a", "b", 0.9),
        Pair("a", "c", 0.9),
        Pair("d", "e", 0.9),
        Pair("a", "f", 0.1),
        Pair("a", "g", 0.5),
    ]
    rows = tokenised(network, pairs, 128)
    a, b = (
        torch.nn.functional.normalize(pooled(network, [row[side] for row in rows]), dim=-1)
        for side in (0, 1)
    )
    found = contrasted(a, b, torch.tensor([pair.label for pair in pairs]), rows)
    scores = (a @ b.T / 0.05).exp()
    seen = [
        [0, 2, 3],
        [1, 2, 3],
        [0, 1, 2, 3],
    ]  # not the other second text of the same first one, not the middling pair
    expected = -np.mean([float((scores[i, i] / scores[i, seen[i]].sum()).log()) for i in range(3)])
    assert float(found) == pytest.approx(expected, rel=1e-4)
    assert len(Similarity(network, rows, 1, contrastive=1.0).parts(range(5))) == 1


def released(path, labels):
    rows = [
        {"text_a": x1, "text_b": f"{x1} {label} {k}", "label": label}
        for x1 in X1
        for label in labels
        for k in range(2)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_pairs_of_a_file_are_trained_on_instead_of_generated_ones(settings, tmp_path):
    smooth = released(tmp_path / "sts-dino-x2-postprocessed.jsonl", (0.9, 0.5, 0.1, 0.0))
    recipe = Recipe(**settings | {"pairs": str(smooth), "clean": False, "generator": "none"})
    out = recipe.train(tmp_path / "out", budget=2_000, seed=1, load=load, progress=quiet)
    card = json.loads((out / "card.json").read_text())
    assert card["pairs"]["training pairs"] == 8 * len(X1)
    assert not list((out / "generated").glob("*dataset*"))
    sample = [json.loads(line) for line in (out / "pairs.sample.jsonl").read_text().splitlines()]
    assert {row["label"] for row in sample} == {0.9, 0.5, 0.1, 0.0}
    assert {row["text_a"] for row in sample} <= set(X1)
    with pytest.raises(DataError, match="clean=false"):
        replace(recipe, clean=True)._given(tmp_path / "g", 1)


def test_pairs_of_a_file_as_they_were_generated_are_cleaned(settings, tmp_path):
    raw = released(tmp_path / "sts-dino-x2.jsonl", ("1", "0.5", "0"))
    made = Recipe(**settings | {"pairs": str(raw), "task": "sts-x2"})._given(tmp_path / "g", 1)
    assert {pair.label for pair in made.pairs} == {0.9, 0.5, 0.1, 0.0}
    assert made.x1 == X1
    with pytest.raises(UsageError, match="pairs"):
        Recipe(**settings | {"pairs": str(tmp_path / "none.jsonl")}).check()
    for line in ('{"text_a": "a", "text_b": null, "label": "1"}', "{", '{"text_a": "a"}', "[1]"):
        raw.write_text(line)
        with pytest.raises(DataError, match=r"jsonl:1"):
            Recipe(**settings | {"pairs": str(raw)})._given(tmp_path / "g", 1)


def test_held_out_first_texts_are_not_trained_on():
    pairs = [
        Pair(f"a{i % 30}", f"b{i}", label) for i, label in enumerate([0.9, 0.5, 0.1, 0.0] * 60)
    ]
    learnt, held = parted(pairs, seed=1)
    assert len(learnt) + len(held) == len(pairs)
    assert len({pair.text_a for pair in held}) == 3
    assert not {pair.text_a for pair in held} & {pair.text_a for pair in learnt}


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("llama", {}),
        ("roberta", {"lora": False}),
        ("llama", {"attention": "bidirectional", "contrastive": 0.1}),
    ],
    ids=["lora", "all weights", "options"],
)
def test_the_whole_recipe_makes_an_encoder_that_keeps_the_contract(
    kind, changes, settings, tmp_path, monkeypatch
):
    recipe = Recipe(
        **settings | {"backbone": str(tiny_folder(kind, tmp_path / "base"))} | changes,
        lr=5e-3,
        device="cpu",
    )
    out = recipe.train(tmp_path / "out", budget=6_000, seed=1, load=load, progress=quiet)
    card = json.loads((out / "card.json").read_text())
    assert card["loss"][-1][1] < card["loss"][0][1]
    assert 5_700 < card["trained_tokens"] <= 6_000
    assert card["inference_tokens"] == sum(stage["inference_tokens"] for stage in card["stages"])
    assert card["dev_spearman"] == dict(card["dev_curve"])[card["kept_step"]]
    assert not (out / "state.pt").exists()
    rows = [json.loads(line) for line in (out / "pairs.sample.jsonl").read_text().splitlines()]
    assert {row["label"] for row in rows} == {0.9, 0.5, 0.1, 0.0}
    assert "## 0.9" in (out / "generated" / "samples.md").read_text()
    encoder = DINO(str(out), device="cpu", dtype="float32")
    assert encoder.card().trained
    assert encoder.card().training_tokens == card["trained_tokens"]
    assert encoder.backbone().attention == changes.get("attention", "native")
    assert [outcome for outcome in run_checks(encoder) if outcome.status == "failed"] == []
    own = tmp_path / "data" / "own" / "sts" / "test.jsonl.gz"
    own.parent.mkdir(parents=True)
    judged = [
        {"sentence1": a, "sentence2": b, "score": i / 2} for i, (a, b) in enumerate(pairwise(X1))
    ]
    own.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in judged).encode()))
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    score = STS("own-sts", data="own/sts").evaluate(encoder, seed=0)["cosine_spearman"]
    assert len(score.examples) == len(judged)
    assert np.isfinite(score.mean)
    assert score.mean != 0  # 0 stands for constant vectors
    if kind == "llama":
        assert encoder.runs().find_overlaps(
            [X1[0], "an unseen text with more than eight words in it"]
        ).tolist() == [True, False]


def test_two_processes_take_turns_and_return_when_the_checkpoint_is_whole(settings, tmp_path):
    recipe = Recipe(**settings, lr=5e-3, device="cpu")
    trained_by_two(recipe, tmp_path / "of two" / "both", 1_000)
    recipe.train(tmp_path / "alone", budget=1_000, seed=1, load=load, progress=quiet)
    alone, both = (
        json.loads((tmp_path / name / "card.json").read_text()) for name in ("alone", "of two/both")
    )
    assert both["pairs"] == alone["pairs"]
    assert both["trained_tokens"] == alone["trained_tokens"]
    assert both["loss"][0][1] == pytest.approx(
        alone["loss"][0][1], rel=1e-3
    )  # sums in another order


@pytest.mark.parametrize("lora", [True, False])
def test_an_exported_encoder_gives_the_same_vectors_in_plain_sentence_transformers(
    lora, settings, tmp_path
):
    from sentence_transformers import SentenceTransformer

    out = Recipe(**settings, lora=lora, lr=5e-3, device="cpu").train(
        tmp_path / "out", budget=1_500, seed=1, load=load, progress=quiet
    )
    encoder = DINO(str(out), device="cpu", dtype="float32")
    folder = export(encoder, tmp_path / "whole")
    texts = [*SENTENCES, "word " * 400]
    vectors = encoder.encode(texts)
    np.testing.assert_allclose(
        SentenceTransformer(str(folder), device="cpu").encode(texts), vectors, **CLOSE
    )
    np.testing.assert_allclose(
        DINO(str(folder), device="cpu", dtype="float32").encode(texts), vectors, **CLOSE
    )
    assert (
        np.abs(
            DINO(settings["backbone"], device="cpu", dtype="float32").encode(texts) - vectors
        ).max()
        > 0.01
    )


def test_a_bidirectional_decoder_is_not_exported(writer, tmp_path):
    with pytest.raises(UsageError, match="bidirectional"):
        export(
            DINO(str(writer), attention="bidirectional", device="cpu", dtype="float32"),
            tmp_path / "whole",
        )


def test_training_leaves_the_generator_as_it_was(writer):
    network = backbone(writer).load()
    assert not any(weight.requires_grad for weight in network.model.parameters())
    assert unfrozen(network).model is not network.model


def test_reviews_are_written_for_both_labels_where_the_task_looks_for_them(
    writer, tmp_path, monkeypatch
):
    found = reviews(
        tmp_path / "texts",
        backbone(writer),
        films=40,
        samples=1,
        new_tokens=16,
        seed=1,
        report=quiet,
    )
    assert {review.label for review in found} == {0, 1}
    assert len({review.text for review in found}) == len(found)
    assert (
        reviews(
            tmp_path / "texts",
            backbone(writer),
            films=40,
            samples=1,
            new_tokens=16,
            seed=1,
            report=quiet,
        )
        == found
    )
    write(tmp_path, found)
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    rows = load("dino/imdb-generated", "train")
    assert list(zip(rows["text"], rows["label"], strict=True)) == [
        tuple(review) for review in found
    ]


def test_a_review_that_was_written_for_both_labels_is_dropped(tmp_path, monkeypatch):
    texts = [("Fine.", "1"), ("Fine.", "0"), ("Dull.", "0"), ("Great.", "1"), ("Great.", "1")]

    class Made:
        def rows(self):
            return iter(
                [{"text_a": "A film", "text_b": text, "label": label} for text, label in texts]
            )

    monkeypatch.setattr("adapters.dino.reviews.generated", lambda *_: Made())
    monkeypatch.setattr("adapters.dino.reviews.generator_of", lambda _: "m")
    assert reviews(tmp_path, None, films=2, samples=1, new_tokens=4, seed=1, report=quiet) == [
        ("Dull.", 0),
        ("Great.", 1),
    ]


@pytest.mark.parametrize("module", ["reviews", "export"])
def test_our_errors_are_one_line_and_code_2(module, tmp_path, monkeypatch, capsys):
    words = {
        "reviews": [str(tmp_path), "--generator", str(tmp_path / "none")],
        "export": [str(tmp_path), str(tmp_path / "out")],
    }
    monkeypatch.setattr(sys, "argv", [module, *words[module]])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"adapters.dino.{module}").main()
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert told.count("\n") == 1
