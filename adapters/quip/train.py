"""Training QuIP: token states learn to hold the answers to the questions one could ask of a text.

Command: ``bench train quip --budget S`` (two hours on one CPU core in bfloat16 for 1M tokens).
Jia, Lewis, Zettlemoyer (Findings of ACL 2022), sections 2 and 3. In ``stages`` of the checkpoint:

1. A generator is tuned on human-written questions (``generator``) and generates more on further
   passages (``questions.jsonl``).
2. A teacher is tuned on human-written questions (``teacher``) and answers the generated ones
   (``labels.jsonl``).
3. The encoder learns from the teacher's distributions, and at a small budget from human-written
   questions and answers, too.

``PAPER`` holds the paper's settings. The defaults are for a small budget: shorter passages with
fewer questions, so that there are many, LoRA weights at a higher rate, and human questions for
60 % of the tokens. Neither code nor data of the training was released; what the paper leaves open
(optimiser, batch size, how generator and teacher are tuned) is ours. In training the inner
products are divided by the square root of the dimension; the saved heads contain this factor.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors.torch import save
from torch import nn

from adapters._backbone import ATTENTIONS, PACKAGED, Backbone
from adapters._checkpoint import RUNS
from adapters._files import files_digest
from adapters._network import Network
from adapters._sharing import shareable
from adapters._trainable import fork_seed
from adapters._training.budget import TokenCounts, batches
from adapters._training.card import DataSource, begin_training, list_stages, sum_flops, write_card
from adapters._training.cost import count_flops, forward_flops
from adapters._training.loop import Fitted, Optimisation, Training, fit
from adapters._training.processes import main_process, wait_for_all
from adapters._training.settings import at_least_one, one_of, positive, share
from adapters._training.sources import Source, fetch_sources, parse_sources
from adapters._training.stage import Stage, compute_chunks
from adapters._training.weights import make_trainable, save_trained, trainable_weights
from adapters.quip.data import (
    MAX_PASSAGE,
    OPEN_SETS,
    Passage,
    TokenizedPassage,
    TrainingData,
    load_passages,
    select_data,
    tokenize,
)
from adapters.quip.encoder import HEAD_FILES, QuIP, find_answers, find_heads, load_heads, make_head
from adapters.quip.generate import (
    make_generator_prompts,
    make_generator_rows,
    parse_questions,
    sample_outputs,
)
from adapters.quip.objective import (
    AnswerLabels,
    CrossEntropy,
    EncoderObjective,
    EncoderRow,
    GeneratorObjective,
    TeacherObjective,
    concatenate,
    fold_scale,
    keep_largest,
    label_by_teacher,
    label_known_answers,
    make_certain,
    make_teacher_rows,
    predict_answers,
)
from bench.encoder import digest
from bench.errors import DataError, UsageError
from bench.files import write_atomic
from bench.overlap import Ngrams
from bench.recipe import Load, Progress
from bench.spans import ANSWER_TOKENS, exact_match, extract_span, f1

log = logging.getLogger(__name__)

LABELS = ("soft", "hard", "answers")

_MEASURED = 200
"""Most held-out questions that teacher and encoder answer."""

_PASSAGES, _QUESTIONS = 16, 512
"""Passages that are written on at once, and questions labelled at once: what a kill can cost."""


@dataclass(frozen=True)
class Recipe:
    """The recipe of QuIP on any backbone.

    Attributes:
        backbone: Of teacher and encoder: the packaged backbone, a folder, or a hub id with
            ``@revision``.
        generator: What learns to write questions, a decoder or a model like BART; "" is the
            backbone, or the packaged one if that is no decoder.
        sources: Question-answering sets: "" for ``data.OPEN_SETS``, else ids, ``id:config``,
            ``id:config:split`` or files (SQuAD's JSON or JSON lines, MRQA's JSON lines), separated
            by commas.
        passages: Further passages to write questions on, named alike; also sets with a text column
            and plain text files.
        window: Most tokens of a passage, whole sentences.
        questions: Questions written on each passage.
        top_p: Probability of the nucleus that they are sampled from.
        labels: "soft" for the teacher's probabilities, "hard" for its most probable tokens,
            "answers" for the generator's own answers (the paper's "no teacher").
        human: Share of the budget for human questions with their answers; 1 is the paper's
            "Bi-encoder + MRQA", which needs neither generator nor teacher.
        attention: "native" or, for decoders, "bidirectional"; of teacher and encoder.
        epochs: Times that a passage is seen, if there is enough data.
        generator_share: Tokens for tuning the generator, as a share of the budget; they are not
            part of it.
        teacher_share: The same for the teacher.
        lr: Highest learning rate.
        batch_size: Passages a step; for the teacher questions.
        lora: Whether LoRA weights are trained; otherwise all weights are.
        positions: Most tokens of a micro-batch; changes no result.
        dtype: "auto", "float32" or "bfloat16".
        device: "auto", "cpu", "cuda", "mps".
    """

    backbone: str = PACKAGED
    generator: str = ""
    sources: str = ""
    passages: str = ""
    window: int = 100
    questions: int = 4
    top_p: float = 0.6
    labels: str = "soft"
    human: float = 0.6
    attention: str = "native"
    epochs: int = 2
    generator_share: float = 0.1
    teacher_share: float = 0.25
    lr: float = 5e-4
    batch_size: int = 16
    lora: bool = True
    positions: int = field(default=2048, compare=False)
    dtype: str = "auto"
    device: str = field(default="auto", compare=False)

    def fetch(self, load: Load) -> None:
        """Fetch what the training reads, and train nothing; see ``bench.recipe.Recipe``."""
        fetch_sources(self._sources(), load)
        base = Backbone(self.backbone).load(weights=False)
        source = self.generator or (self.backbone if base.decoder else PACKAGED)
        Backbone(source, head="lm").load(weights=False)

    def train(self, out: Path, *, budget: int, seed: int, load: Load, progress: Progress) -> Path:
        """Train all stages, write the checkpoint and its card, and return its folder."""
        training = begin_training(self, "quip", out, budget, seed, progress)
        if training is None:
            return out
        base = self.load_network(self.backbone)
        passages, material = load_passages(self._sources(), load)
        data = select_data(
            passages,
            base,
            window=self.window,
            tokens=max(budget // self.epochs, 1),
            human=self.human,
            questions=self.questions,
            seed=seed,
        )
        _Stages(self, training, base, data, out, progress).train(material)
        return out

    def check(self) -> None:
        """Raise a UsageError if a setting is invalid."""
        one_of(self, "labels", LABELS)
        one_of(self, "attention", ATTENTIONS)
        share(self, "human", "top_p")
        positive(self, "top_p", "lr")
        if self.human < 1:
            positive(self, "generator_share")
            if self.labels != "answers":
                positive(self, "teacher_share")
        at_least_one(self, "window", "questions", "epochs", "batch_size")
        if self.window > MAX_PASSAGE:
            raise UsageError(f"window must be at most {MAX_PASSAGE}, got {self.window}")

    def _sources(self) -> list[Source]:
        return [
            *(parse_sources(self.sources, Source) or OPEN_SETS),
            *parse_sources(self.passages, Source),
        ]

    def load_network(self, source: str) -> Network:
        """Return the network that teacher or encoder start from or have become."""
        return Backbone(
            source,
            attention=self.attention,
            dtype=self.dtype,
            device=self.device,
        ).load()

    def load_generator(self, source: str) -> Network:
        """Return the generator with its language-model head."""
        return Backbone(source, head="lm", dtype=self.dtype, device=self.device).load()


PAPER = Recipe(
    backbone="FacebookAI/roberta-large",
    generator="facebook/bart-large",
    window=456,
    questions=10,
    top_p=0.6,
    labels="soft",
    human=0.0,
    epochs=2,
    lr=1e-5,
    lora=False,
)
"""The paper's settings, as far as it states them (section 3 and appendix).

``sources`` are the training sets of MRQA 2019, ``passages`` 8M from RoBERTa's corpus; name your own
copies. Batch size and the shares of generator and teacher are not stated. Of its ablations,
``labels="answers"`` is "no teacher" and ``human=1`` is "Bi-encoder + MRQA".
"""


ObjectiveT = TypeVar("ObjectiveT", bound=CrossEntropy[Any])


@dataclass(frozen=True, eq=False)
class _Stages:
    """The stages of one training, with what each took and scored."""

    recipe: Recipe
    training: Training
    base: Network
    data: TrainingData
    out: Path
    progress: Progress
    took: dict[str, dict[str, Any]] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)

    @property
    def stages(self) -> Path:
        return self.out / "stages"

    def train(self, material: Sequence[DataSource]) -> None:
        """Train the encoder, measure it, and write it with its card and 8-grams."""
        recipe, base = self.recipe, self.base
        rows = label_known_answers(tokenize(base, self.data.human))
        if self.data.texts:
            rows += self.write_and_label()
        if not rows:
            raise DataError(
                "expected passages that contain the answers to their questions, got none: "
                "name other data with --set sources="
            )
        longest = max(sum(map(len, (row.passage, *row.questions))) for row in rows)
        objective = EncoderObjective(
            base,
            self.make_heads(base.dim),
            rows,
            recipe.positions,
            packed=shareable(base, longest),
            scale=base.dim**-0.5,
        )
        key = self.key("", 1, sorted(self.stages.glob("*.jsonl")))
        objective, fitted = self.fit(key, objective, self.out)
        fold_scale(objective.heads, objective.scale)
        if main_process():
            self.save(objective, recipe.backbone, self.out)
            self.measure("encoder", self.ask_encoder)
            used = set(concatenate(self.plan(key, objective)))
            self.finish(fitted, objective.network, [rows[i] for i in sorted(used)], material)
        wait_for_all()

    def write_and_label(self) -> list[EncoderRow]:
        """Return passages with generated questions, and where their answers are."""
        passages = tokenize(self.base, self.write_questions())
        if self.recipe.labels == "answers":
            return label_known_answers(passages)
        labels = self.relabel(passages)
        if self.recipe.labels == "hard":
            labels = make_certain(labels.tokens[:, :, 0])
        return label_by_teacher(passages, labels)

    def tune_generator(self) -> Path:
        """Return the folder of the tuned generator."""
        recipe = self.recipe
        source = recipe.generator or (recipe.backbone if self.base.decoder else PACKAGED)
        base = recipe.load_generator(source)
        if not base.decoder and not base.seq2seq:
            raise UsageError(
                f"expected a generator with a decoder, got {source}: "
                "set generator to one, or to '' for the default"
            )
        rows = make_generator_rows(base, self.data.asked)
        objective = GeneratorObjective(base, (), rows, recipe.positions)
        return self.train_stage("generator", recipe.generator_share, source, objective)

    def write_questions(self) -> list[Passage]:
        """Return the passages with the questions that the generator writes on them."""
        recipe, texts = self.recipe, self.data.texts
        folder = self.tune_generator()
        network = recipe.load_generator(str(folder))
        prompts = make_generator_prompts(network, texts)
        decode = partial(network.tokenizer.batch_decode, skip_special_tokens=True)

        def write(chunk: list[int]) -> tuple[dict[str, Any], int]:
            some = [prompts[i] for i in chunk]
            outputs = sample_outputs(
                network,
                some,
                chunk,
                samples=recipe.questions,
                top_p=recipe.top_p,
                seed=self.training.seed,
            )
            tokens = len(concatenate(some)) + len(concatenate(concatenate(outputs)))
            return {"passages": chunk, "written": list(map(decode, outputs))}, tokens

        sizes = list(map(len, prompts))
        lines = self.compute_chunks("questions", sizes, _PASSAGES, write, folder, network)
        passages = [Passage(text) for text in texts]
        for line in lines:
            for i, written in zip(line["passages"], line["written"], strict=True):
                passages[i] = Passage(texts[i], tuple(parse_questions(texts[i], written)))
        questions = concatenate(passage.questions for passage in passages)
        self.took["questions"] |= {
            "passages": len(texts),
            "questions": len(questions),
            "malformed": len(texts) * recipe.questions - len(questions),
            "answer_in_passage": sum(question.start >= 0 for question in questions),
        }
        if not questions:
            log.warning(
                "quip: no generated question can be parsed; raise generator_share or the budget"
            )
        return passages

    def relabel(self, passages: Sequence[TokenizedPassage]) -> AnswerLabels:
        """Train the teacher, and return where it finds the answers to the passages' questions."""
        recipe, base = self.recipe, self.base
        asked = make_teacher_rows(base, tokenize(base, self.data.asked))
        known = [row for row in asked if row.answer]
        objective = TeacherObjective(base, self.make_heads(1), known, recipe.positions)
        share = recipe.teacher_share
        folder = self.train_stage("teacher", share, recipe.backbone, objective)
        network = recipe.load_network(str(folder))
        heads = load_heads(find_heads(folder), network, out=1)
        teacher = replace(objective, network=network, heads=heads)
        self.measure("teacher", partial(self.ask_teacher, teacher))
        rows = make_teacher_rows(base, passages)

        def label(chunk: Sequence[int]) -> tuple[dict[str, Any], int]:
            some = [rows[i] for i in chunk]
            found = predict_answers(network, heads, some, recipe.positions)
            labels = [keep_largest(both) for both in found]
            tokens = np.concatenate([own.tokens for own in labels])
            probabilities = np.concatenate([own.probabilities for own in labels])
            line = {
                "questions": chunk,
                "tokens": tokens.tolist(),
                "probabilities": probabilities.astype(np.float16).tolist(),  # precise enough
            }
            return line, sum(row.tokens for row in some)

        sizes = [row.tokens for row in rows]
        lines = self.compute_chunks("labels", sizes, _QUESTIONS, label, folder, network)
        self.took["labels"]["questions"] = len(rows)
        labels = make_certain(np.zeros((len(rows), 2), np.int64))
        for line in lines:
            labels.tokens[line["questions"]] = line["tokens"]
            labels.probabilities[line["questions"]] = line["probabilities"]
        return labels

    def key(self, stage: str, share: float, before: Sequence[Path] = ()) -> Training:
        """Return what decides the outcome of a stage: settings, data, and files of earlier ones."""
        asked = [[p.text, list(map(list, p.questions))] for p in self.data.asked]
        settings = {
            **self.training.recipe,
            "data": digest([asked, self.data.texts]),
            "before": files_digest(before),
        }
        return replace(
            self.training,
            method=f"quip {stage}".strip(),
            recipe=settings,
            budget=int(share * self.training.budget),
        )

    def make_heads(self, size: int) -> list[nn.Sequential]:
        """Return a new start and a new end head that return ``size`` numbers."""
        with fork_seed(self.training.seed, "cpu"):
            heads = [make_head(self.base.dim, size) for _ in HEAD_FILES]
        return [head.to(self.base.device) for head in heads]

    def plan(self, key: Training, objective: CrossEntropy[Any]) -> list[list[int]]:
        """Return the numbers of the examples of each step."""
        return batches(
            [row.tokens for row in objective.rows],
            budget=key.budget,
            size=self.recipe.batch_size,
            seed=key.seed,
            stage=key.method.removeprefix("quip"),
        )

    def fit(self, key: Training, objective: ObjectiveT, folder: Path) -> tuple[ObjectiveT, Fitted]:
        """Return the objective with a trained copy of its network, and how that went."""
        network = make_trainable(objective.network, lora=self.recipe.lora, seed=key.seed)
        objective = replace(objective, network=network)
        weights = dict(trainable_weights(network))
        for name, head in zip(HEAD_FILES, objective.heads, strict=False):
            weights |= {f"{name}.{part}": weight for part, weight in head.named_parameters()}
        fitted = fit(
            weights,
            self.plan(key, objective),
            objective,
            Optimisation(self.recipe.lr),
            network=network,
            state=folder / "state.pt",
            training=key,
            progress=self.progress,
        )
        return objective, fitted

    def save(self, objective: CrossEntropy[Any], backbone: str, folder: Path) -> None:
        """Write what was trained; heads in bfloat16, under the names of the published files."""
        save_trained(objective.network, folder, backbone, lora=self.recipe.lora)
        for name, head in zip(HEAD_FILES, objective.heads, strict=False):
            state = {}
            for part, tensor in head.state_dict().items():
                state[part] = tensor.to("cpu", torch.bfloat16).contiguous()
            write_atomic(folder / f"{name}.safetensors", save(state, metadata={"format": "pt"}))

    def train_stage(
        self, name: str, share: float, backbone: str, objective: CrossEntropy[Any]
    ) -> Path:
        """Train a model that only serves later stages, unless it was done; return its folder."""
        if not objective.rows:
            raise DataError(
                f"expected human-written questions to tune the {name} on, got none: "
                "name question-answering data with --set sources="
            )
        folder, key = self.stages / name, self.key(name, share)
        stage = Stage(folder / "stage.json", asdict(key))
        took = stage.begin()
        if took is None:
            objective, fitted = self.fit(key, objective, folder)
            took = describe(fitted, objective.network)
            if main_process():
                self.save(objective, backbone, folder)
                others = {stage.note, folder / "state.pt"}
                stage.finish(*sorted(set(folder.iterdir()) - others), **took)
            wait_for_all()
        if main_process():  # also what a kill left behind after the stage was finished
            (folder / "state.pt").unlink(missing_ok=True)
        self.took[name] = took
        return folder

    def compute_chunks(
        self,
        name: str,
        sizes: Sequence[int],
        chunk: int,
        compute: Callable[[list[int]], tuple[dict[str, Any], int]],
        before: Path,
        network: Network,
    ) -> list[dict[str, Any]]:
        """Return what a computation gives for each chunk of examples, the longest first.

        Each result is a line of ``stages/NAME.jsonl``, and is not computed again after a kill.

        Args:
            name: Of the stage.
            sizes: Tokens of each example, by which they are sorted.
            chunk: Examples at once.
            compute: From numbers of examples to plain JSON values and the tokens that it took.
            before: Folder of the model that computes.
            network: That model.
        """
        key = self.key(name, 0, sorted(before.glob("*.safetensors")))
        stage = Stage(self.stages / f"{name}.json", asdict(key))
        file, label = self.stages / f"{name}.jsonl", f"quip: {name}"
        lines, took = compute_chunks(
            stage, file, sizes, chunk, compute, label=label, progress=self.progress
        )
        self.took[name] = {**took, "flops": took["positions"] * forward_flops(network)}
        return lines

    def measure(self, name: str, find: Callable[[Sequence[Passage]], list[str]]) -> None:
        """Score a model's answers to held-out questions, each the only one of its passage."""
        held_out: list[Passage] = []
        for text, questions in self.data.held_out:
            held_out += [Passage(text, (question,)) for question in questions]
        held_out = held_out[:_MEASURED]
        if not held_out:
            return
        scores = []
        for (text, (question,)), answer in zip(held_out, find(held_out), strict=True):
            right = [text[question.start : question.end]]
            scores.append((exact_match(answer, right), f1(answer, right)))
        exact, overlap = np.mean(scores, axis=0).tolist()
        self.scores["questions"] = len(held_out)
        self.scores[name] = {"exact": round(exact, 4), "f1": round(overlap, 4)}

    def ask_teacher(self, teacher: TeacherObjective, passages: Sequence[Passage]) -> list[str]:
        """Return the teacher's answers to the question of each passage."""
        tokenized = tokenize(self.base, passages)
        rows = make_teacher_rows(self.base, tokenized)
        found = predict_answers(teacher.network, teacher.heads, rows, teacher.positions)
        return [
            extract_span(own.passage.text, own.spans, both, ANSWER_TOKENS).text
            for own, both in zip(tokenized, found, strict=True)
        ]

    def ask_encoder(self, passages: Sequence[Passage]) -> list[str]:
        """Return the written encoder's answers to the question of each passage."""
        recipe, out = self.recipe, str(self.out)
        encoder = QuIP(out, attention=recipe.attention, dtype=recipe.dtype, device=recipe.device)
        texts = [passage.text for passage in passages]
        questions = [passage.questions[0].text for passage in passages]
        return [answer.text for answer in find_answers(encoder, texts, questions)]

    def finish(
        self,
        fitted: Fitted,
        network: Network,
        used: Sequence[EncoderRow],
        material: Sequence[DataSource],
    ) -> None:
        """Write the 8-grams that were trained on and the card."""
        tuned_on = self.data.asked if self.data.texts else []  # by generator and teacher
        texts = [*(row.text for row in used), *("\n".join(passage.texts) for passage in tuned_on)]
        Ngrams.of(texts).write(self.out / RUNS)
        inference = sum(stage["positions"] for stage in self.took.values())
        whole = replace(fitted, spent=fitted.spent + TokenCounts(inference=inference))
        questions = sum(len(row.questions) for row in used)
        took = {**self.took, "biencoder": describe(fitted, network)}
        more = {
            "examples": {"passages": len(used), "questions": questions},
            "stages": list_stages(took),
            "flops": sum_flops(took.values()),
            "kept_out": self.scores,
        }
        write_card(self.out, self.training, whole, network, material, more)
        (self.out / "state.pt").unlink(missing_ok=True)


def describe(fitted: Fitted, network: Network) -> dict[str, Any]:
    """Return what training a stage took, plain JSON values."""
    return {
        "positions": fitted.spent.trained,
        "flops": count_flops(network, fitted.spent),
        "seconds": round(fitted.seconds, 1),
        "steps": len(fitted.curve),
        "loss": fitted.thinned(),
    }
