"""Training DINO: a language model generates sentence pairs, and a bi-encoder learns their labels.

Schick, Schuetze. Generating Datasets with Pretrained Language Models. EMNLP 2021. The steps, as in
the released code (timoschick/dino at 0e4a052): first texts x1 (``data.py``), second texts x2 by
instruction (``generate.py``), post-processing (``data.py``), cosine regression (``objective.py``).

``bench train dino --budget S --set inputs=1600`` makes the packaged weights; their time and machine
are in ``checkpoint/card.json``. ``bench train adapters.dino.train:PAPER --set x1=sts-train.csv``
has the paper's settings. With ``--set pairs=FILE`` released pairs are trained on instead of
generated ones (``--set clean=false`` where they are post-processed). The paper's ablations:
``bench train dino --budget 100000 --vary decay=0,200 --vary smoothing=0 --vary random_pairs=0``;
texts that a checkpoint in a neighbouring folder has generated with the same settings are reused.
"""

import json
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from adapters._backbone import ATTENTIONS, PACKAGED, Backbone
from adapters._checkpoint import RUNS
from adapters._training.budget import TokenCounts, batches
from adapters._training.card import (
    DataSource,
    add_data,
    begin_training,
    list_stages,
    sum_flops,
    write_card,
)
from adapters._training.cost import count_flops
from adapters._training.loop import Optimisation, Selection, fit
from adapters._training.processes import main_first, main_process, wait_for_all
from adapters._training.settings import at_least_one, one_of, positive, share
from adapters._training.sources import fetch_sources
from adapters._training.weights import make_trainable, save_trained, trainable_weights
from adapters.dino.data import (
    OPEN,
    SimilarityPair,
    clean_pairs,
    draw_first_texts,
    hold_out,
    parse_column,
    read_first_texts,
    read_pairs,
)
from adapters.dino.generate import (
    Generation,
    Job,
    copy_finished,
    generate,
    generator_digest,
    read_task,
)
from adapters.dino.objective import CosineRegression, score_pairs, tokenize_pairs
from bench.errors import DataError, UsageError
from bench.files import write_atomic
from bench.overlap import Ngrams
from bench.recipe import Load, Progress

GENERATED = "generated"
"""Folder of the generated texts, in the checkpoint's."""

SAMPLE = "pairs.sample.jsonl"
"""File of some training pairs, beside the weights."""

_WORDS = (6, 18)
"""Fewest and most words of a first text from a data set."""
_HELD_OUT, _MOST_HELD_OUT = 0.1, 512
"""Fraction of the first texts, and most pairs, that choose the weights."""
_SAMPLED = 100
_TOKENS_PER_INPUT = 400
"""Tokens of the budget for each first text: about seven pairs of 27 tokens, so two epochs."""


class PairCorpus(NamedTuple):
    """Training pairs, and how they were made.

    Attributes:
        texts: First texts, and with a file of pairs the second ones, too: what was not generated.
        pairs: Training pairs.
        counts: Number of pairs by step of post-processing.
        sources: Data sources.
        stages: Tokens, time and counts by stage.
    """

    texts: list[str]
    pairs: list[SimilarityPair]
    counts: dict[str, int]
    sources: list[DataSource]
    stages: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Recipe:
    """Trains DINO on any backbone.

    Attributes:
        backbone: The student: the packaged backbone, a folder, or a hub id with ``@revision``.
        generator: The decoder that generates pairs, named like ``backbone``.
        task: Name of a packaged task specification, or a JSON file in the original's format.
        x1: First texts: empty for sentences of the open data sets ``data.OPEN``; a file;
            ``id:column``, ``id:config:column`` or ``id:config:split:column`` of a data set; or
            "generated", by ``x1_task``.
        x1_task: Task specification of generated first texts.
        pairs: File of pairs to train on instead of generated ones, JSON lines in the original's
            format.
        clean: Whether such pairs are post-processed as generated ones are; false where they
            already are, with smoothed labels.
        inputs: Most first texts; 0 for as many as the budget needs.
        samples: Second texts for each first text and label.
        decay: Decay constant of self-debiasing; 0 turns it off.
        top_k: Number of the likeliest tokens to sample from; first texts are sampled by ``top_p``
            alone.
        top_p: Least probability of the tokens to sample from.
        new_tokens: Most tokens of a text.
        smoothing: Label smoothing; 0 turns it off.
        random_pairs: Random pairs with label 0 for each first text.
        least_shared: Least word overlap (Jaccard) of a generated pair of label 1.
        most_shared: Largest word overlap of a generated pair of a lower label.
        agreeing: Whether a pair generated for several labels is dropped.
        attention: "bidirectional" lets a decoder's tokens attend to all others.
        lr: Peak learning rate.
        batch_size: Pairs in a step.
        lora: Whether LoRA weights are trained; otherwise all weights are.
        batch: First texts in a batch of the generator.
        positions: Tokens computed at once in training; changes no result.
        dtype: "auto", "float32" or "bfloat16".
        device: "auto", "cpu", "cuda", "mps".

    Source:
        Defaults of generation, post-processing and training, AdamW's included: the released code,
        but for what ``PAPER`` sets. As there, pairs held out are scored every 100 steps. Two things
        differ: all pairs of a tenth of the first texts are held out, where the original takes a
        tenth of the pairs, stratified by label; and of the weights within a standard error of the
        best the last are kept, where the original keeps the best.
    """

    backbone: str = PACKAGED
    generator: str = PACKAGED
    task: str = "sts-x2-shots"
    x1: str = ""
    x1_task: str = "sts-x1"
    pairs: str = ""
    clean: bool = True
    inputs: int = 0
    samples: int = 2
    decay: float = 100.0
    top_k: int = 5
    top_p: float = 0.9
    new_tokens: int = 40
    smoothing: float = 0.2
    random_pairs: int = 2
    least_shared: float = 0.2
    most_shared: float = 0.6
    agreeing: bool = True
    attention: str = "native"
    lr: float = 1e-3
    batch_size: int = 32
    lora: bool = True
    batch: int = 32
    positions: int = field(default=1536, compare=False)
    dtype: str = "auto"
    device: str = field(default="auto", compare=False)

    def check(self) -> None:
        """Check the settings.

        Raises:
            UsageError: A setting is out of range, or the task has other labels than similarities.
        """
        one_of(self, "attention", ATTENTIONS)
        share(self, "top_p", "smoothing", "least_shared", "most_shared")
        positive(self, "lr", "top_p")
        at_least_one(self, "samples", "new_tokens", "batch_size", "batch")
        for name in ("inputs", "decay", "top_k", "random_pairs"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name} must be at least 0, got {getattr(self, name)}")
        task = read_task(self.task)
        if not task.takes_input:
            raise UsageError(
                f"expected a task with first texts to train on pairs, got {self.task!r}: "
                "use it as x1_task"
            )
        if not all(map(_is_similarity, task.labels)):
            raise UsageError(
                "expected labels from 0 to 1 to train similarity on, "
                f"got {', '.join(task.labels)} in {self.task!r}: use another task"
            )
        if self.pairs and not Path(self.pairs).expanduser().is_file():
            raise UsageError(
                f"expected a file of JSON lines as pairs, got {self.pairs!r}, which is no file"
            )
        if self.x1 == "generated" and read_task(self.x1_task).takes_input:
            raise UsageError(
                f"expected an x1_task without first texts, got {self.x1_task!r}: use it as task"
            )

    def fetch(self, load: Load) -> None:
        """Fetch what the training reads, and train nothing; see ``bench.recipe.Recipe``."""
        if not self.pairs and self.x1 != "generated" and not Path(self.x1).expanduser().is_file():
            fetch_sources([parse_column(self.x1)] if self.x1 else OPEN, load)
        for source in {self.backbone} | ({self.generator} if not self.pairs else set()):
            Backbone(source, head="lm").load(weights=False)

    def train(self, out: Path, *, budget: int, seed: int, load: Load, progress: Progress) -> Path:
        """Generate, train, write the checkpoint and its card, and return its folder."""
        training = begin_training(self, "dino", out, budget, seed, progress)
        if training is None:
            return out
        with main_first():  # one process generates, the others read
            data = self._make_pairs(out / GENERATED, budget, seed, load, progress)
        student = Backbone(
            self.backbone,
            attention=self.attention,
            dtype=self.dtype,
            device=self.device,
        ).load()
        train_pairs, dev_pairs = hold_out(data.pairs, fraction=_HELD_OUT, seed=seed)
        every = max(-(-len(dev_pairs) // _MOST_HELD_OUT), 1)  # the random pairs come last
        pairs = tokenize_pairs(student, train_pairs)
        dev = tokenize_pairs(student, dev_pairs[::every])
        lengths = [pair.length for pair in pairs]
        plan = batches(lengths, budget=budget, size=self.batch_size, seed=seed)
        network = make_trainable(student, lora=self.lora, seed=seed)
        noise = len(dev) ** -0.5 / 2 if dev else 0.0
        fitted = fit(
            trainable_weights(network),
            plan,
            CosineRegression(network, pairs, self.positions),
            Optimisation(self.lr, warmup=0.1, decay="linear", weight_decay=0.01, eps=1e-6),
            network=network,
            state=out / "state.pt",
            training=add_data(training, self.pairs or self.x1, data.sources),
            progress=progress,
            selection=Selection(lambda: score_pairs(network, dev), noise=noise),
        )
        if main_process():
            used = set(chain(*plan))
            generating = sum(stage["inference_tokens"] for stage in data.stages.values())
            scored = TokenCounts(inference=fitted.spent.inference)
            choosing = {
                "choosing weights": {
                    "inference_tokens": scored.inference,
                    "flops": count_flops(network, scored),
                }
            }
            trained = {"flops": count_flops(network, replace(fitted.spent, inference=0))}
            more = {
                "stages": list_stages(data.stages | choosing),
                "flops": sum_flops([trained, *(data.stages | choosing).values()]),
                "pairs": data.counts | {"trained on": len(used), "held out": len(dev)},
                "dev": "Spearman of cosine and label, on pairs of held-out first texts; the last "
                "weights within a standard error of the best are kept",
                "dev_spearman": round(dict(fitted.scores)[fitted.kept], 4),
                "dev_curve": [[step, round(score, 4)] for step, score in fitted.scores],
                "kept_step": fitted.kept,
            }
            save_trained(network, out, self.backbone, lora=self.lora)
            Ngrams.of(data.texts).write(out / RUNS)
            write_atomic(out / SAMPLE, _sample_lines(data.pairs, seed))
            total = replace(fitted, spent=fitted.spent + TokenCounts(inference=generating))
            write_card(out, training, total, network, data.sources, more)
            (out / "state.pt").unlink(missing_ok=True)
        wait_for_all()
        return out

    def _clean(
        self, pairs: list[SimilarityPair], seed: int
    ) -> tuple[list[SimilarityPair], dict[str, int]]:
        return clean_pairs(
            pairs,
            seed=seed,
            smoothing=self.smoothing,
            random_pairs=self.random_pairs,
            least_shared=self.least_shared,
            most_shared=self.most_shared,
            agreeing=self.agreeing,
        )

    def _read(self, seed: int) -> PairCorpus:
        """Return the pairs of a file.

        Raises:
            DataError: Pairs to be post-processed have labels that the task has not.
        """
        path = Path(self.pairs).expanduser()
        pairs, sources = read_pairs(path)
        known = sorted(map(float, read_task(self.task).labels))
        other = sorted({pair.label for pair in pairs} - set(known))
        if self.clean and other:
            raise DataError(
                f"expected the labels {known} in {path}, got {other} too: "
                "use --set clean=false for pairs with smoothed labels"
            )
        texts = list(dict.fromkeys(chain.from_iterable(pair[:2] for pair in pairs)))
        counts = {"training pairs": len(pairs)}
        if self.clean:
            pairs, counts = self._clean(pairs, seed)
        return PairCorpus(texts, pairs, counts, sources, {})

    def _make_pairs(
        self, folder: Path, budget: int, seed: int, load: Load, progress: Progress
    ) -> PairCorpus:
        """Return the training pairs; texts that an earlier call generated are reused."""
        if self.pairs:
            return self._read(seed)
        backbone = Backbone(self.generator, head="lm", dtype=self.dtype, device=self.device)
        model = generator_digest(backbone)
        generation = Generation(self.decay, self.top_k, self.top_p, self.new_tokens, seed)
        count = max(self.inputs or budget // _TOKENS_PER_INPUT, 2)
        sources: list[DataSource] = []
        stages: dict[str, dict[str, Any]] = {}
        if self.x1 == "generated":
            task = read_task(self.x1_task)
            samples = -(-count // len(task.labels))
            job = Job(task, [""], samples, replace(generation, top_k=0), model, self.batch)
            rows, stages[f"generating {task.task_name}"] = generate(job, backbone, folder, progress)
            x1 = list(dict.fromkeys(row["text_a"] for row in rows))
        elif Path(self.x1).expanduser().is_file():
            x1, sources = read_first_texts(Path(self.x1).expanduser(), count=count, seed=seed)
        else:
            columns = [parse_column(self.x1)] if self.x1 else OPEN
            x1, sources = draw_first_texts(columns, load, count=count, words=_WORDS, seed=seed)
        task = read_task(self.task)
        job = Job(task, x1, self.samples, generation, model, self.batch)
        copy_finished(job, folder, sorted(folder.parent.parent.glob(f"*/{folder.name}")))
        rows, stages[f"generating {task.task_name}"] = generate(job, backbone, folder, progress)
        raw = [SimilarityPair(row["text_a"], row["text_b"], float(row["label"])) for row in rows]
        pairs, counts = self._clean(raw, seed)
        return PairCorpus(x1, pairs, counts, sources, stages)


PAPER = Recipe(
    backbone="FacebookAI/roberta-base@e2da8e2f811d1448a5b465c236feacd80ffbac7b",
    generator="openai-community/gpt2-xl@15ea56dee5df4983c59b2538573817e1667135e2",
    task="sts-x2",
    least_shared=0.0,
    most_shared=1.0,
    agreeing=False,
    lr=2e-5,
    lora=False,
)
"""The paper's STS-x2; its first texts are the sentences of the STS benchmark, a file for ``x1``.

A budget of one epoch over all pairs is the paper's: ``--budget`` their tokens.
"""

PAPER_X1X2 = replace(PAPER, x1="generated")
"""The paper's STS-x1x2, which generates its first texts too."""


def _is_similarity(label: str) -> bool:
    try:
        return 0 <= float(label) <= 1
    except ValueError:
        return False


def _sample_lines(pairs: list[SimilarityPair], seed: int) -> str:
    """Return a random sample of pairs as JSON lines."""
    chosen = sorted(np.random.default_rng(seed).permutation(len(pairs))[:_SAMPLED])
    lines = [json.dumps(pairs[i]._asdict(), ensure_ascii=False) for i in chosen]
    return "".join(f"{line}\n" for line in lines)
