"""Training DINO: a language model writes pairs of sentences from instructions, and a bi-encoder learns how similar they are.

Command: ``bench train dino --budget S`` (with ``--set inputs=1600`` for the weights that come with this package); how long generating
and training took for them, and on what, says ``checkpoint/card.json``. The paper's own form: ``--set task=sts-x2 --set least_shared=0
--set most_shared=1 --set agreeing=false --set lora=false --set lr=2e-5``; on the released pairs: ``--set pairs=FILE``, with
``--set clean=false`` for those that are post-processed, and the same of the rest. Its ablations:
``bench train dino --budget 100000 --vary decay=0,200 --vary smoothing=0 --vary random_pairs=0``; texts that a checkpoint in the folder
beside has generated with the same settings are taken over.
Schick, Schuetze (EMNLP 2021); the released code is timoschick/dino at 0e4a052.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from adapters._backbone import ATTENTIONS, PACKAGED, Backbone
from adapters._checkpoint import RUNS
from adapters._training.budget import Spent, batches
from adapters._training.card import Material, finished, listed, write_card
from adapters._training.loop import (
    Optimisation,
    Selection,
    Training,
    fit,
    main_first,
    main_process,
    waited,
)
from adapters._training.settings import at_least_one, deciding, one_of, positive, share
from adapters._training.weights import attached, save_trained, trained
from adapters.dino.dataset import Dataset, Order, adopt, generated, generator_of
from adapters.dino.debiasing import Sampling
from adapters.dino.generation import Writing
from adapters.dino.inputs import OPEN, column_of, from_sets, is_file, of_file, read_pairs
from adapters.dino.objective import Similarity, agreement, tokenised
from adapters.dino.postprocess import Cleaning, Pair, cleaned, page
from adapters.dino.specification import read
from bench.encoder import digest
from bench.errors import DataError, UsageError
from bench.files import write_atomic
from bench.overlap import Ngrams
from bench.recipe import Load, Progress

GENERATED = "generated"
"""Folder of the generated texts, inside the checkpoint's."""

SAMPLE = "pairs.sample.jsonl"
"""File of some of the training pairs, beside the weights."""

_DEV, _SAMPLED = 0.1, 100
_SCORED = 512
"""At most so many held-out pairs choose the weights; a CPU scores them in the time of a few steps."""
_PER_INPUT = 400
"""Token positions of the budget for each first text: about seven pairs of twenty-seven, so two epochs."""


@dataclass(frozen=True)
class Recipe:
    """The recipe of DINO on any backbone.

    Attributes:
        backbone: What is trained: the packaged backbone, a folder, or a hub id with ``@revision``.
        generator: What writes the pairs: a decoder, named like ``backbone``.
        task: Name of a task specification that comes with the package, or a JSON file in the original's format.
        x1: First texts: empty for sentences of the open data sets listed in ``inputs.OPEN``; a file; ``id:column``,
            ``id:config:column`` or ``id:config:split:column`` of a data set; or "generated", written by ``x1_task``.
        x1_task: Task specification of generated first texts.
        pairs: File of pairs to train on instead of generating any, JSON lines in the original's format.
        clean: Whether such pairs are cleaned as generated ones are; no for a file that is post-processed, whose labels are smoothed.
        inputs: How many first texts, where there are more; 0 for as many as the budget needs.
        shortest: Fewest words of a first text from a data set.
        longest: Most words of one.
        samples: Second texts drawn for each first text and label.
        chat: Whether instructions go through the generator's chat template.
        decay: Of self-debiasing; 0 switches it off.
        top_k: So many of the likeliest tokens are drawn from; generated first texts are drawn by ``top_p`` alone.
        top_p: Least probability that these hold together.
        new_tokens: Most tokens of a text.
        smoothing: Of the labels; 0 switches it off.
        random_pairs: Random pairs with label 0 for each first text; 0 switches them off.
        least_shared: Least share of common words, of all words of both, in a generated pair of label 1; 0 for none, as in the paper.
        most_shared: Largest one in those of lower labels; 1 for no limit, as in the paper.
        agreeing: Whether a pair written for several labels is dropped.
        contrastive: Weight of an in-batch contrastive loss on the pairs of the highest label, with those of the lowest as hard
            negatives; 0 leaves it out, as the paper does.
        attention: "bidirectional" lets a decoder's tokens see all others.
        lr: Highest learning rate; the paper has 2e-5, for all weights, not low-rank ones.
        batch_size: Pairs a step.
        lora: Whether low-rank weights are trained; otherwise all weights are.
        max_length: Longest text in tokens.
        batch: First texts written at once.
        positions: Token positions computed at once in training; it changes no result.
        dtype: "auto", "float32" or "bfloat16".
        device: "auto", "cpu", "cuda", "mps".

    Source:
        Defaults of generating, cleaning and training, those of AdamW included: the released code, unless said otherwise; as there,
        every 100 steps are scored on held-out generated pairs. Two things differ: held out are the pairs of a tenth of the first
        texts, all labels of a text together, where the original takes a tenth of the pairs, stratified by label; and of all weights
        within a standard error of the best the last are kept, where the original keeps the best.
    """

    backbone: str = PACKAGED
    generator: str = PACKAGED
    task: str = "sts-x2-shots"
    x1: str = ""
    x1_task: str = "sts-x1"
    pairs: str = ""
    clean: bool = True
    inputs: int = 0
    shortest: int = 6
    longest: int = 18
    samples: int = 2
    chat: bool = False
    decay: float = 100.0
    top_k: int = 5
    top_p: float = 0.9
    new_tokens: int = 40
    smoothing: float = 0.2
    random_pairs: int = 2
    least_shared: float = 0.2
    most_shared: float = 0.6
    agreeing: bool = True
    contrastive: float = 0.0
    attention: str = "native"
    lr: float = 1e-3
    batch_size: int = 32
    lora: bool = True
    max_length: int = 128
    batch: int = 32
    positions: int = field(default=1536, compare=False)
    dtype: str = "auto"
    device: str = field(default="auto", compare=False)

    def check(self) -> None:
        """Raise a UsageError where a setting is off."""
        one_of(self, "attention", ATTENTIONS)
        share(self, "top_p", "smoothing", "least_shared", "most_shared")
        for name in ("inputs", "decay", "top_k", "random_pairs"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name} is at least 0, got {getattr(self, name)}")
        positive(self, "lr", "top_p")
        at_least_one(self, "samples", "new_tokens", "shortest", "batch_size", "batch", "max_length")
        if self.shortest > self.longest:
            raise UsageError(f"shortest is at most longest, got {self.shortest} and {self.longest}")
        task = read(self.task)
        if not task.takes_input:
            raise UsageError(
                f"expected a task with first texts to train on pairs, got {self.task!r}: use it as x1_task"
            )
        if not all(map(_is_share, task.labels)):
            raise UsageError(
                f"expected labels from 0 to 1 to train similarity on, got {', '.join(task.labels)} in {self.task!r}"
            )
        if self.pairs and not Path(self.pairs).expanduser().is_file():
            raise UsageError(f"pairs is a file of JSON lines, got {self.pairs!r}, which is none")
        if self.x1 == "generated" and read(self.x1_task).takes_input:
            raise UsageError(
                f"expected an x1_task without first texts to write them, got {self.x1_task!r}: use it as task"
            )

    def train(self, out: Path, *, budget: int, seed: int, load: Load, progress: Progress) -> Path:
        """Generate, train, write the checkpoint and its card, and return its folder."""
        self.check()
        training = Training("dino", deciding(self), budget, seed)
        if finished(out, training):
            return out
        with main_first():  # one process generates, the others read
            made = (
                self._given(out / GENERATED, seed)
                if self.pairs
                else self._generated(out / GENERATED, budget, seed, load, progress)
            )
        base = Backbone(
            self.backbone,
            attention=self.attention,  # type: ignore[arg-type]
            dtype=self.dtype,
            device=self.device,
        ).load()
        learnt, held = parted(made.pairs, seed=seed)
        held = held[:: max(-(-len(held) // _SCORED), 1)]  # the random pairs come last
        rows, dev = (tokenised(base, pairs, self.max_length) for pairs in (learnt, held))
        plan = batches([row.length for row in rows], budget=budget, size=self.batch_size, seed=seed)
        network = attached(base, lora=self.lora, seed=seed)
        fitted = fit(
            trained(network),
            plan,
            Similarity(network, rows, self.positions, self.contrastive),
            Optimisation(self.lr, warmup=0.1, decay="linear", weight_decay=0.01, eps=1e-6),
            network=network,
            state=out / "state.pt",
            training=training,
            progress=progress,
            selection=Selection(
                lambda: agreement(network, dev), noise=len(dev) ** -0.5 / 2 if dev else 0.0
            ),
        )
        if main_process():
            more = {
                "stages": listed(
                    made.stages | {"choosing weights": {"inference_tokens": fitted.spent.inference}}
                ),
                "pairs": made.counts
                | {"trained on": len({i for batch in plan for i in batch}), "held out": len(dev)},
                "dev": "Spearman of cosine on generated pairs of a tenth of the first texts; kept is the last step that none beats clearly",
                "dev_spearman": round(dict(fitted.scores)[fitted.kept], 4),
                "dev_curve": [[step, round(score, 4)] for step, score in fitted.scores],
                "kept_step": fitted.kept,
            }
            save_trained(network, out, self.backbone, lora=self.lora)
            made.write(out, seed)
            total = fitted.spent + Spent(inference=made.positions)
            write_card(out, training, replace(fitted, spent=total), network, made.material, more)
            (out / "state.pt").unlink(missing_ok=True)
        waited()
        return out

    def _cleaning(self) -> Cleaning:
        return Cleaning(
            2, self.random_pairs, self.smoothing, self.least_shared, self.most_shared, self.agreeing
        )

    def _given(self, folder: Path, seed: int) -> "Made":
        """Return the training pairs of a file.

        Raises:
            DataError: Labels of pairs that are to be cleaned are none of the task's.
        """
        path = Path(self.pairs).expanduser()
        pairs = read_pairs(path)
        known = sorted(map(float, read(self.task).labels))
        if self.clean and (other := sorted({pair.label for pair in pairs} - set(known))):
            raise DataError(
                f"expected the labels {known} in {path}, got {other} too: use --set clean=false for pairs with smoothed labels"
            )
        x1, n = list(dict.fromkeys(pair.text_a for pair in pairs)), len(pairs)
        pin = {"kind": "file", "sha256": digest([list(pair) for pair in pairs])}
        counts = {"training pairs": n}
        if self.clean:
            pairs, counts = cleaned(pairs, self._cleaning(), seed=seed)
        write_atomic(folder / "samples.md", page(pairs, counts))
        return Made(x1, pairs, counts, [Material(path.name, "as its owner says", n, pin)], {}, 0)

    def _generated(
        self, folder: Path, budget: int, seed: int, load: Load, progress: Progress
    ) -> "Made":
        """Return the training pairs; what an earlier call generated is not generated again."""
        backbone = Backbone(self.generator, head="lm", dtype=self.dtype, device=self.device)
        sampling = Sampling(self.decay, top_k=self.top_k, top_p=self.top_p)
        writing = Writing(sampling, self.new_tokens, self.chat, seed)
        progress("reading data", 0, 1)
        x1, material, first = self._x1(
            backbone, writing, folder, max(self.inputs or budget // _PER_INPUT, 2), load, progress
        )
        order = Order(
            read(self.task), x1, self.samples, writing, generator_of(backbone), self.batch
        )
        adopt(order, folder, sorted(folder.parent.parent.glob(f"*/{folder.name}")))
        second = generated(order, backbone, folder, progress)
        pairs, counts = cleaned(second.pairs(), self._cleaning(), seed=seed)
        write_atomic(folder / "samples.md", page(pairs, counts))
        stages = {
            f"generating {data.path.stem}": data.summary() for data in (first, second) if data
        }
        return Made(
            x1,
            pairs,
            counts,
            material,
            stages,
            sum(data.positions for data in (first, second) if data),
        )

    def _x1(
        self,
        backbone: Backbone,
        writing: Writing,
        folder: Path,
        count: int,
        load: Load,
        progress: Progress,
    ) -> tuple[list[str], list[Material], Dataset | None]:
        """Return the first texts, what they came from, and, where they were generated, the file they are in."""
        if self.x1 == "generated":
            task = read(self.x1_task)
            own = replace(writing, sampling=replace(writing.sampling, top_k=0))
            made = generated(
                Order(
                    task,
                    [""],
                    -(-count // len(task.labels)),
                    own,
                    generator_of(backbone),
                    self.batch,
                ),
                backbone,
                folder,
                progress,
            )
            return list(dict.fromkeys(row["text_a"] for row in made.rows())), [], made
        if is_file(self.x1):
            return *of_file(self.x1, count=count, seed=writing.seed), None
        sources = [column_of(self.x1)] if self.x1 else OPEN
        return *from_sets(
            sources, load, count=count, words=(self.shortest, self.longest), seed=writing.seed
        ), None


def _is_share(label: str) -> bool:
    try:
        return 0 <= float(label) <= 1
    except ValueError:
        return False


class Made(NamedTuple):
    """What the stages before training gave: first texts, training pairs, their counts, what they came from, and what it took."""

    x1: list[str]
    pairs: list[Pair]
    counts: dict[str, int]
    material: list[Material]
    stages: dict[str, Any]
    positions: int

    def write(self, out: Path, seed: int) -> None:
        """Write what goes with the weights: the runs of words of the first texts, and a sample of the pairs."""
        Ngrams.of(self.x1).write(out / RUNS)
        chosen = np.random.default_rng(seed).permutation(len(self.pairs))[:_SAMPLED]
        rows = (
            json.dumps(self.pairs[i]._asdict(), ensure_ascii=False) + "\n" for i in sorted(chosen)
        )
        write_atomic(out / SAMPLE, "".join(rows))


def parted(pairs: Sequence[Pair], *, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Return the pairs to train on, and those of a tenth of the first texts, so that no held-out first text is trained on.

    All labels of a first text go together, which leaves both sides the same labels.
    """
    texts = list(dict.fromkeys(pair.text_a for pair in pairs))
    held = {
        texts[i]
        for i in np.random.default_rng(seed).permutation(len(texts))[: round(_DEV * len(texts))]
    }
    return [p for p in pairs if p.text_a not in held], [p for p in pairs if p.text_a in held]
