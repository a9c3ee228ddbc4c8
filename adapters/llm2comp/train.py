"""Training LLM2Comp: compression of contexts into memory tokens, then contrastive learning.

Command: ``bench train llm2comp --budget S`` (90 minutes on two CPU cores with bfloat16).
Zhang et al. (AAAI 2026). The released code (longtaizi13579/LLM2Comp at c22f4c4) does not run as
published, so this is written from its description. ``PAPER`` has the paper's settings. Intended
differences, in every stage: of the input embeddings only those of the memory tokens are trained, so
that a checkpoint stays small; the learning rate warms up for 3 % of the steps, not 10 %, and decays
as a cosine to 0, without weight decay; gradients are clipped at norm 1; LoRA has no dropout; one
limit, ``document``, is for queries and documents of stage 3.

Stage 1 alone is ``--budget 100000 --set contrastive=0``, its share of budget S. With it,
``--vary objective=nll,rc,mntp`` compares pretext tasks and ``--vary k=1,2,4,16`` memory sizes.
Each stage is a checkpoint of its own, such as ``OUT/stages/compression``.
"""

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from adapters._backbone import ATTENTIONS, PACKAGED, Backbone
from adapters._checkpoint import CONFIG as LORA_CONFIG
from adapters._checkpoint import RUNS, WEIGHTS
from adapters._files import read_json, tensors
from adapters._lora import merge_lora
from adapters._network import Network, embedding_table
from adapters._text import Framed
from adapters._trainable import make_differentiable, set_dropout
from adapters._training.budget import batches
from adapters._training.card import (
    DataSource,
    begin_training,
    record_files,
    sum_flops,
    write_card,
)
from adapters._training.contrast import Contrast, tokenise
from adapters._training.cost import count_flops
from adapters._training.loop import Fitted, Objective, Optimisation, Training, fit
from adapters._training.processes import main_process, wait_for_all
from adapters._training.settings import at_least_one, one_of, positive
from adapters._training.sources import fetch_sources, parse_sources
from adapters._training.stage import Stage
from adapters._training.texts import OPEN, TextSource, read_texts
from adapters._training.weights import absolute_source, trainable_weights
from adapters.llm2comp import data
from adapters.llm2comp.data import Ids, RetrievalTriple, TextPassage
from adapters.llm2comp.encoder import CONFIG, MEMORY
from adapters.llm2comp.objective import (
    OBJECTIVES,
    Compression,
    MaskedPrediction,
    Student,
    make_lora,
    make_student,
)
from bench.checkpoints import CARD
from bench.errors import DataError, UsageError
from bench.files import write_atomic
from bench.overlap import Ngrams
from bench.recipe import Load, Progress

log = logging.getLogger(__name__)

ADAPTER = (LORA_CONFIG, WEIGHTS)
"""Files of LoRA weights."""


@dataclass(frozen=True, eq=False)
class StagePlan:
    """One stage of a training.

    Attributes:
        name: Of the stage and its folder.
        plan: Example numbers of each step.
        texts: The text of each example, for the overlap with test texts.
        objective: From the student to what is minimised.
        lr: Peak learning rate.
        dropout: Of attention weights; nothing else is dropped.
    """

    name: str
    plan: Sequence[Sequence[int]]
    texts: Sequence[str]
    objective: Callable[[Student], Objective[Any]]
    lr: float
    dropout: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """The recipe of LLM2Comp for any decoder.

    Attributes:
        backbone: The packaged backbone, a folder, or a hub id with ``@revision``.
        objective: Of stage 1: "kl" (the paper's best), "nll", "rc", or LLM2Vec's "mntp", which has
            no memory: the mean of the token states is the embedding.
        k: Number of memory tokens.
        words: Initial memory embeddings: the first k tokens of these words, repeated if fewer; ""
            for the paper's random rows, which rarely learn to compress within a small budget.
        attention: "auto" is the backbone's own for "kl", "nll" and "rc", and "bidirectional" for
            "mntp", as in LLM2Vec; or "native", or "bidirectional", which is the paper's.
        sources: Texts: ids, ``id:config``, ``id:config:split``, files with a column text
            (``.jsonl``, ``.csv``, ``.tsv``, ``.parquet``), or plain text files with blank lines
            between texts, separated by commas; empty for ``texts.OPEN``.
        triples: JSONL files with columns query, positive, negative and maybe instruction, separated
            by commas, for stage 3. Without that column a file named like a set in
            ``data.INSTRUCTIONS``, such as ``nq.jsonl``, gets the instruction of that set.
        healing: Share of the budget for masked next-token prediction before stage 1, which adapts a
            backbone to bidirectional attention.
        contrastive: Share for stage 2.
        supervised: Share for stage 3; stage 1 gets what the three leave.
        length: Longest passage in tokens, and twice the shortest.
        continuation: Most tokens that are predicted after a context.
        sentence: Longest text of stage 2 in tokens, without memory.
        document: Longest text of stage 3 in tokens, without memory.
        lr: Peak learning rate of stage 1 and of healing.
        contrastive_lr: Peak learning rate of stages 2 and 3.
        batch_size: Passages a step.
        contrastive_batch: Examples a step in stages 2 and 3.
        dropout: Of attention weights in stage 2, where it makes the two views differ.
        temperature: Divides the cosines in stages 2 and 3.
        rank: Of the LoRA weights.
        new_lora: Whether each stage merges the LoRA weights before it and starts new ones, as in
            the paper. Otherwise it continues with them, and a checkpoint is smaller.
        positions: Tokens computed at once; apart from dropout masks it changes no result.
        dtype: "auto", "float32" or "bfloat16".
        device: "auto", "cpu", "cuda", "mps".

    Source:
        The released configurations for rank, scale, targets, dropout and temperature.
    """

    backbone: str = PACKAGED
    objective: str = "kl"
    k: int = 8
    words: str = " the of and to in is that it"
    attention: str = "auto"
    sources: str = ""
    triples: str = ""
    healing: float = 0.0
    contrastive: float = 0.9
    supervised: float = 0.0
    length: int = 128
    continuation: int = 24
    sentence: int = 40
    document: int = 256
    lr: float = 1.5e-3
    contrastive_lr: float = 3e-5
    batch_size: int = 8
    contrastive_batch: int = 64
    dropout: float = 0.2
    temperature: float = 0.05
    rank: int = 16
    new_lora: bool = False
    positions: int = field(default=768, compare=False)
    dtype: str = "auto"
    device: str = field(default="auto", compare=False)

    def check(self) -> None:
        """Raise a UsageError if a setting is invalid."""
        one_of(self, "objective", OBJECTIVES)
        one_of(self, "attention", ("auto", *ATTENTIONS))
        shares = (self.healing, self.contrastive, self.supervised)
        if min(shares) < 0 or sum(shares) >= 1:
            raise UsageError(
                "expected healing, contrastive and supervised to be shares of the budget that "
                f"leave some for stage 1, got {shares}"
            )
        if self.healing and self._attention == "native":
            raise UsageError(
                "healing adapts a backbone to bidirectional attention, got attention native: "
                "set attention=bidirectional, or healing=0"
            )
        positive(self, "temperature", "lr", "contrastive_lr")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"dropout must be at least 0 and less than 1, got {self.dropout}")
        counts = ("k", "continuation", "sentence", "document", "batch_size", "contrastive_batch")
        at_least_one(self, *counts, "rank")
        if self.length < 2 * data.MARGIN:
            raise UsageError(f"length must be at least {2 * data.MARGIN}, got {self.length}")
        if self.contrastive and self.contrastive_batch < 2:
            raise UsageError(
                "contrastive_batch must be at least 2, since sentences are told apart, "
                f"got {self.contrastive_batch}"
            )
        if bool(self.supervised) != bool(self.triples):
            raise UsageError(
                "supervised and triples require each other, "
                f"got supervised={self.supervised}, triples={self.triples!r}"
            )

    def settled(self) -> "Recipe":
        """Return the recipe with the attention that "auto" stands for; see ``bench.recipe``."""
        return replace(self, attention=self._attention)

    def fetch(self, load: Load) -> None:
        """Fetch what the training reads, and train nothing; see ``bench.recipe.Recipe``."""
        fetch_sources(parse_sources(self.sources, TextSource) or OPEN, load)
        if self.supervised:
            fetch_sources([TextSource(name) for name in self._triple_files], load)
        Backbone(self.backbone, head="lm").load(weights=False)

    def train(self, out: Path, *, budget: int, seed: int, load: Load, progress: Progress) -> Path:
        """Train, write the checkpoint and its card, and return its folder."""
        recipe = self.settled()
        training = begin_training(recipe, "llm2comp", out, budget, seed, progress)
        if training is None:
            return out
        base = Backbone(self.backbone, head="lm", dtype=self.dtype, device=self.device).load()
        self._check_backbone(base)
        texts, records = read_texts(parse_sources(self.sources, TextSource) or OPEN, load)
        triples: list[RetrievalTriple] = []
        if self.supervised:
            triples, more = data.read_triples(self._triple_files, load)
            records += more
        stages = self._stages(texts, triples, base, budget, seed)
        StagedTraining(recipe, out, training, records, base, progress).run(stages)
        return out

    @property
    def memory_size(self) -> int:
        """The number of memory tokens; "mntp" has none."""
        return 0 if self.objective == "mntp" else self.k

    @property
    def _triple_files(self) -> list[str]:
        names = filter(None, map(str.strip, self.triples.split(",")))
        return [os.path.expanduser(name) for name in names]  # noqa: PTH111 - may be a hub id

    @property
    def _attention(self) -> str:
        if self.attention != "auto":
            return self.attention
        return "bidirectional" if self.objective == "mntp" else "native"

    def _check_backbone(self, base: Network) -> None:
        """Raise a UsageError unless the backbone is a decoder with room for texts and memory."""
        if not base.causal:
            raise UsageError(
                f"llm2comp requires a decoder, got {self.backbone!r}: name a causal language model"
            )
        special = base.tokenizer.num_special_tokens_to_add()
        lengths = {"length": self.length + special}
        if self.contrastive:
            lengths["sentence"] = self.sentence
        if self.supervised:
            lengths["document"] = self.document
        for name, length in lengths.items():
            if length + self.memory_size > base.max_length:
                raise UsageError(
                    f"expected {name}={getattr(self, name)} to fit into {base.max_length} "
                    f"positions, got {length + self.memory_size} with special tokens and memory: "
                    f"lower {name}"
                )

    def _stages(
        self,
        texts: Sequence[str],
        triples: Sequence[RetrievalTriple],
        base: Network,
        budget: int,
        seed: int,
    ) -> list[StagePlan]:
        passages = data.make_passages(texts, base.tokenizer, self.length)
        first = round(budget * (1 - self.healing - self.contrastive - self.supervised))
        stages = []
        if self.healing:
            share = round(budget * self.healing)
            stages.append(self._plan_masked("healing", passages, base, share, seed + 1))
        if self.objective == "mntp":
            stages.append(self._plan_masked("mntp", passages, base, first, seed))
        else:
            stages.append(self._plan_compression(passages, base, first, seed))
        tokenizer = base.tokenizer
        if self.contrastive:
            share = round(budget * self.contrastive)
            # a sentence and its second view have more than 8 tokens
            sentences = data.draw_sentences(texts, count=max(2, share // 8), seed=seed)
            if len(sentences) < 2:
                raise DataError(
                    "expected two sentences or more of three words or more to tell apart, "
                    f"got {len(sentences)}: give more texts, or set contrastive=0"
                )
            views = [(Framed(text), Framed(text)) for text in sentences]
            rows = tokenise(views, tokenizer, self.sentence)
            stages.append(
                self._plan_contrast("contrastive", rows, sentences, share, seed, self.dropout)
            )
        if self.supervised:
            share = round(budget * self.supervised)
            rows = tokenise(triples, tokenizer, self.document)
            read = [f"{t.query.text} {t.positive.text} {t.negative.text}" for t in triples]
            stages.append(self._plan_contrast("supervised", rows, read, share, seed))
        return stages

    def _plan_masked(
        self, name: str, passages: Sequence[TextPassage], base: Network, budget: int, seed: int
    ) -> StagePlan:
        before, after = data.find_special_tokens(base.tokenizer)
        drawn = data.draw_passages(passages, budget=budget, seed=seed)
        rows = [[*before, *passage.ids, *after] for passage in drawn]
        lengths = list(map(len, rows))
        plan = batches(lengths, budget=budget, size=self.batch_size, seed=seed, stage=name)

        def objective(student: Student) -> MaskedPrediction:
            return MaskedPrediction(student, base, rows, self.positions, seed)

        return StagePlan(name, plan, [passage.text for passage in drawn], objective, self.lr)

    def _plan_compression(
        self, passages: Sequence[TextPassage], base: Network, budget: int, seed: int
    ) -> StagePlan:
        name, around = "compression", data.find_special_tokens(base.tokenizer)
        splits = data.draw_splits(
            passages, around, budget=budget, k=self.k, continuation=self.continuation, seed=seed
        )
        lengths = [len(split.read) + self.k for split in splits]
        plan = batches(lengths, budget=budget, size=self.batch_size, seed=seed, stage=name)
        texts, frozen = (
            [passages[split.passage].text for split in splits],
            make_differentiable(base),
        )

        def objective(student: Student) -> Compression:
            return Compression(student, frozen, splits, self.objective, self.positions)

        return StagePlan(name, plan, texts, objective, self.lr)

    def _plan_contrast(
        self,
        name: str,
        rows: Sequence[tuple[Ids, ...]],
        texts: Sequence[str],
        budget: int,
        seed: int,
        dropout: float = 0.0,
    ) -> StagePlan:
        lengths = [sum(map(len, views)) + len(views) * self.memory_size for views in rows]
        size, lr = self.contrastive_batch, self.contrastive_lr
        plan = batches(lengths, budget=budget, size=size, seed=seed, stage=name)

        def objective(student: Student) -> Contrast:
            return student.contrast(rows, temperature=self.temperature, positions=self.positions)

        return StagePlan(name, plan, texts, objective, lr, dropout)


PAPER = Recipe(
    backbone="meta-llama/Llama-2-7b-chat-hf",
    words="",
    attention="bidirectional",
    sources="Salesforce/wikitext:wikitext-103-raw-v1",
    contrastive=0.65,
    length=512,
    continuation=512,
    sentence=504,
    lr=1e-4,
    contrastive_lr=3e-5,
    batch_size=4,
    contrastive_batch=128,
    new_lora=True,
)
"""Stages 1 and 2 of the paper: 32,000 passages, then 1,000 steps of 128 sentences.

Passages of about 350 tokens and sentences of about 34 take about 17 million tokens (estimate), of
which stage 2 has the share ``contrastive``. The paper takes these sentences from SimCSE's file.
"""

PAPER_SUPERVISED = replace(
    PAPER,
    triples=",".join(f"{name}.jsonl" for name in data.INSTRUCTIONS),
    contrastive=0.14,
    supervised=0.78,
    document=1016,
    contrastive_lr=1e-4,
    contrastive_batch=1024,
)
"""The paper's settings of stage 3: 200 steps of 1,024 triples, about 60 million tokens (estimate).

``contrastive_lr`` and ``contrastive_batch`` are those of stage 3 here; queries are truncated at
``document`` too, at 512 in the paper.
"""


@dataclass(frozen=True, eq=False)
class StagedTraining:
    """Stages, each a checkpoint; finished ones are skipped, an interrupted one is resumed.

    Attributes:
        recipe: The settings.
        out: Folder of the checkpoint; each stage has a folder in ``stages`` inside.
        training: What determines the outcome.
        data: Records of the data sources.
        base: The backbone under its own attention.
        progress: Called with the number of steps.
    """

    recipe: Recipe
    out: Path
    training: Training
    data: Sequence[DataSource]
    base: Network
    progress: Progress

    def run(self, stages: Sequence[StagePlan]) -> None:
        """Run the stages that are not finished, and write the checkpoint.

        Raises:
            UsageError: The folder has a training with other settings or data.
        """
        key = asdict(self.training) | {"data": [asdict(record) for record in self.data]}
        done: list[Path] = []
        took: list[dict[str, Any]] = []
        for stage in stages:
            folder = self.out / "stages" / stage.name
            if (self.out / stage.name / CARD).is_file():
                log.warning(
                    "%s was written by an earlier version: this stage runs again",
                    self.out / stage.name,
                )
            note = Stage(folder / "stage.json", key)
            entry = note.begin()
            if entry is None:
                student = self.start(done)
                fitted = self._fit(stage, student, folder / "state.pt")
                entry = _describe(stage.name, fitted, student.network)
                if main_process():
                    files = self.write_checkpoint(folder, student, done)
                    self._write_card(folder, [*took, entry], fitted, student.network)
                    note.finish(*files, folder / CARD, **entry)
                wait_for_all()
            took.append(entry)
            done.append(folder)
        if main_process():
            self._finish(done, stages)
            for folder in done:
                (folder / "state.pt").unlink(missing_ok=True)
        wait_for_all()

    def start(self, done: Sequence[Path]) -> Student:
        """Return the student of the next stage, with what the stage before it wrote."""
        recipe = self.recipe
        base, seed = self.base, self.training.seed
        if recipe.new_lora and done:
            base, seed = merge_lora(base, done), seed + len(done)
        student = make_student(
            base,
            recipe.memory_size,
            recipe.attention,
            rank=recipe.rank,
            seed=seed,
            words=recipe.words,
        )
        if done:
            restore(student, done[-1], lora=not recipe.new_lora)
        return student

    def _fit(self, stage: StagePlan, student: Student, state: Path) -> Fitted:
        set_dropout(student.network.model, hidden=0.0, attention=stage.dropout)
        student.network.model.train()
        return fit(
            student.weights(),
            stage.plan,
            stage.objective(student),
            Optimisation(stage.lr),
            network=student.network,
            state=state,
            training=replace(self.training, method=f"{self.training.method} {stage.name}"),
            progress=self.progress,
        )

    def write_checkpoint(self, folder: Path, student: Student, done: Sequence[Path]) -> list[Path]:
        """Write the checkpoint of a stage after the finished ones, and return its files."""
        backbone = self.recipe.backbone
        make_lora(self.recipe.rank).save(student.network, folder, backbone)
        memory = student.memory.detach().to("cpu", torch.bfloat16).contiguous()
        write_atomic(folder / MEMORY, save({"memory": memory}, metadata={"format": "pt"}))
        adapters = [*done, folder] if self.recipe.new_lora else [folder]
        rows, k = len(embedding_table(student.network)), len(memory)
        config = {
            "base": absolute_source(backbone),
            "k": k,
            "attention": self.recipe.attention,
            "stages": [Path(os.path.relpath(each, folder)).as_posix() for each in adapters],
            "memory_ids": list(range(rows, rows + k)),
        }
        write_atomic(folder / CONFIG, json.dumps(config, indent=1) + "\n")
        return [folder / name for name in (CONFIG, MEMORY, *ADAPTER)]

    def _write_card(
        self, folder: Path, took: Sequence[Mapping[str, Any]], last: Fitted, network: Network
    ) -> None:
        """Write a card whose totals include earlier stages."""
        more: dict[str, Any] = {"stages": took, "flops": sum_flops(took)}
        for name in ("trained_tokens", "inference_tokens", "steps", "seconds"):
            more[name] = sum(entry[name] for entry in took)
        write_card(folder, self.training, last, network, self.data, more)

    def _finish(self, done: Sequence[Path], stages: Sequence[StagePlan]) -> None:
        """Make ``out`` itself a checkpoint, that of the last stage; the card comes last."""
        last, new_lora = done[-1], self.recipe.new_lora
        adapters = [folder.relative_to(self.out).as_posix() for folder in done]
        config = read_json(last / CONFIG) | {"stages": adapters if new_lora else ["."]}
        write_atomic(self.out / CONFIG, json.dumps(config, indent=1) + "\n")
        for name in [MEMORY] if new_lora else [MEMORY, *ADAPTER]:
            write_atomic(self.out / name, (last / name).read_bytes())
        texts: list[str] = []
        for stage in stages:
            used = set(chain.from_iterable(stage.plan))
            texts += [stage.texts[i] for i in sorted(used)]
        Ngrams.of(texts).write(self.out / RUNS)
        card = read_json(last / CARD) | {"files": record_files(self.out)}
        write_atomic(self.out / CARD, json.dumps(card, indent=1, ensure_ascii=False) + "\n")


def _describe(name: str, fitted: Fitted, network: Network) -> dict[str, Any]:
    return {
        "stage": name,
        "trained_tokens": fitted.spent.trained,
        "inference_tokens": fitted.spent.inference,
        "flops": count_flops(network, fitted.spent),
        "steps": len(fitted.curve),
        "seconds": round(fitted.seconds, 1),
        "loss": fitted.thinned(),
    }


def restore(student: Student, folder: Path, *, lora: bool) -> None:
    """Set the memory, and with ``lora`` the LoRA weights, of a student to those of a stage."""
    state = tensors(folder / WEIGHTS)
    with torch.no_grad():
        student.memory.copy_(tensors(folder / MEMORY)["memory"])
        if lora:
            for name, weight in trainable_weights(student.network).items():
                weight.copy_(state[f"base_model.model.{name.replace('.default.', '.')}"])
