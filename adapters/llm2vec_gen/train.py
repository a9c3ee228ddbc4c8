"""Training LLM2Vec-Gen: new tokens learn to hold the frozen backbone's own answer to a text.

Command: ``bench train llm2vec-gen --budget S``.
BehnamGhader et al. (arXiv 2603.10913, version 2); the released code is McGill-NLP/llm2vec-gen at
fdec758. In ``stages`` of the checkpoint:

1. The backbone answers each query in its chat template (``answers.jsonl``).
2. A teacher, another encoder, embeds the bare answers (``teacher.safetensors``).
3. New tokens are words, R is the identity, A a ridge regression (``start``, itself a checkpoint).

Then the new tokens, R and A are trained. ``PAPER`` has the paper's settings. Intended differences
in all settings: trained weights are float32, where the released code has bfloat16; the end of an
answer is the backbone's own end token, on finished answers only; answers are seeded; the rate
decays to 0. Those of the default are for a small budget: short texts and answers, a start that is
close to the goal, and the teacher's vectors centred and scaled to a mean square of 1, so that 1 is
the alignment loss of a constant prediction, their mean.

``--vary reconstruction=0`` trains the alignment alone. ``--vary answers=own,shuffled,text`` are
controls: answers to other queries, and the text itself in place of an answer.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from adapters._backbone import PACKAGED, Backbone
from adapters._checkpoint import RUNS
from adapters._files import tensors
from adapters._generate import end_ids
from adapters._network import Network
from adapters._registered import load_registered
from adapters._text import Framed, make_prompts
from adapters._trainable import make_differentiable
from adapters._training.budget import TokenCounts, batches
from adapters._training.card import DataSource, begin_training, list_stages, sum_flops, write_card
from adapters._training.cost import count_flops, forward_flops, forward_flops_of
from adapters._training.loop import Fitted, Optimisation, Training, fit
from adapters._training.processes import main_first, main_process, wait_for_all
from adapters._training.settings import at_least_one, one_of, positive, share
from adapters._training.sources import fetch_sources, parse_sources
from adapters._training.stage import Stage, compute_chunks
from adapters._training.texts import OPEN, TextSource, read_texts
from adapters._training.weights import absolute_source
from adapters.llm2vec_gen.data import (
    Query,
    Sample,
    Target,
    draw_queries,
    embed_answers,
    standardise,
)
from adapters.llm2vec_gen.encoder import CONFIG, TOKENS, WEIGHTS, WORDS
from adapters.llm2vec_gen.generate import Sampling, chat_frame, sample_answers
from adapters.llm2vec_gen.measure import measure
from adapters.llm2vec_gen.objective import GenerativeAlignment
from adapters.llm2vec_gen.start import fit_start, random_layers
from bench.checkpoints import CARD
from bench.encoder import Encoder, card, digest, fingerprint, read_files
from bench.errors import DataError, UsageError
from bench.files import hide_home, write_atomic
from bench.overlap import Ngrams
from bench.recipe import Load, Progress

ANSWERS = ("own", "shuffled", "text")
"""What stands for the answer: the backbone's own, one to another query, or the text itself."""

LABELLED = ("auto", "yes", "no")

LABEL_FREE = frozenset(
    {"llm2comp", "crops", "dino", "backbone-mean", "backbone-weighted-mean", "backbone-last"}
    | {"prompteol", "echo", "hashing"}
)
"""Encoders whose default weights have seen no label."""

SAMPLE = "answers.sample.jsonl"

_SAMPLED = 100
_CHUNK = 64
"""Queries that are answered at once."""
_HELD_OUT, _MOST_HELD_OUT = 0.1, 64
"""Fraction of the queries, and most of them, that measure the training."""
_TOKENS_PER_SAMPLE = 80
"""Tokens of the budget for each query: about one epoch."""


@dataclass(frozen=True)
class Recipe:
    """The recipe of LLM2Vec-Gen for any instruction-tuned decoder.

    Attributes:
        backbone: The packaged backbone, a folder, or a hub id with ``@revision``.
        teacher: Name of the registered encoder that embeds answers, such as "llm2comp:FOLDER";
            vectors are taken before they are made of length 1, where the encoder has that setting.
        labelled: Whether the teacher was trained on labels, "yes" or "no": the card and every table
            say so. "auto" is "no" for the default weights of encoders in LABEL_FREE; for others it
            must be said.
        answers: "own", or a control: "shuffled" among the queries, or "text", the query's text.
        sources: Texts: ids, ``id:config``, ``id:config:split``, files with a column text
            (``.jsonl``, ``.csv``, ``.tsv``, ``.parquet``), or plain text files with blank lines
            between texts, separated by commas; empty for ``texts.OPEN``.
        sentences: Whether texts are split into sentences; otherwise each is a query as it is.
        instructed: Share of the queries that follow an instruction.
        samples: Most queries; 0 for as many as the budget needs for about one epoch.
        k: Number of new tokens.
        words: Initial new tokens: the first k tokens of these words, repeated if fewer, with R the
            identity and A a ridge regression; "" for the paper's, all drawn at random.
        chat: Whether the encoder reads queries in the chat template; the paper's reads them bare.
        length: Longest query in tokens, without template and new tokens.
        new_tokens: Most tokens of an answer.
        temperature: Of the answers; 0 takes the likeliest token.
        top_k: Number of the likeliest tokens to sample from; 0 for all.
        top_p: Of these, the fewest likeliest ones with at least this probability together.
        standardise: Whether the teacher's vectors are centred and scaled.
        reconstruction: Weight of the reconstruction loss; with 0 the decoder is not run.
        alignment: Weight of the alignment loss.
        lr: Peak learning rate.
        warmup: Fraction of the steps of linear warm-up.
        decay: "cosine" or "linear", to 0 at the end.
        batch_size: Samples a step.
        positions: Tokens computed at once; it changes no result.
        dtype: "auto", "float32" or "bfloat16".
        device: "auto", "cpu", "cuda", "mps".

    Source:
        The released code for k, losses, their weights and the template of answers.
    """

    backbone: str = PACKAGED
    teacher: str = "llm2comp"
    labelled: str = "auto"
    answers: str = "own"
    sources: str = ""
    sentences: bool = True
    instructed: float = 0.5
    samples: int = 0
    k: int = TOKENS
    words: str = WORDS
    chat: bool = False
    length: int = 48
    new_tokens: int = 48
    temperature: float = 0.7
    top_k: int = 0
    top_p: float = 0.9
    standardise: bool = True
    reconstruction: float = 1.0
    alignment: float = 1.0
    lr: float = 1e-3
    warmup: float = 0.05
    decay: str = "cosine"
    batch_size: int = 16
    positions: int = field(default=1536, compare=False)
    dtype: str = "auto"
    device: str = field(default="auto", compare=False)

    def check(self) -> None:
        """Raise a UsageError if a setting is invalid."""
        one_of(self, "answers", ANSWERS)
        one_of(self, "labelled", LABELLED)
        one_of(self, "decay", ("cosine", "linear"))
        at_least_one(self, "k", "length", "new_tokens", "batch_size")
        positive(self, "lr", "top_p")
        share(self, "top_p", "instructed", "warmup")
        for name in ("samples", "temperature", "top_k", "reconstruction", "alignment"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name} must be at least 0, got {getattr(self, name)}")
        if not self.reconstruction and not self.alignment:
            raise UsageError(
                "expected a weight above 0, got reconstruction=0 and alignment=0: raise one of them"
            )
        if self.labelled == "auto" and self.teacher not in LABEL_FREE:
            raise UsageError(
                f"expected labelled=yes or labelled=no for the teacher {self.teacher!r}, got auto: "
                "yes if it was trained on labels, which marks the results"
            )

    @property
    def saw_labels(self) -> bool:
        """Whether the teacher was trained on labels."""
        return self.labelled == "yes"

    def fetch(self, load: Load) -> None:
        """Fetch what the training reads, and train nothing; see ``bench.recipe.Recipe``."""
        fetch_sources(parse_sources(self.sources, TextSource) or OPEN, load)
        Backbone(self.backbone, head="lm").load(weights=False)
        read_files(load_registered(self.teacher, "teacher"))

    def train(self, out: Path, *, budget: int, seed: int, load: Load, progress: Progress) -> Path:
        """Answer, teach, train, write the checkpoint and its card, and return its folder."""
        training = begin_training(self, "llm2vec-gen", out, budget, seed, progress)
        if training is None:
            return out
        base = Backbone(self.backbone, head="lm", dtype=self.dtype, device=self.device).load()
        self._check_backbone(base)
        texts, records = read_texts(parse_sources(self.sources, TextSource) or OPEN, load)
        count = self.samples or max(budget // _TOKENS_PER_SAMPLE, 8)
        queries = draw_queries(
            texts,
            base.tokenizer,
            count=count,
            most=self.length,
            around=chat_frame(base.tokenizer) if self.chat else ("", ""),
            instructed=self.instructed,
            sentences=self.sentences,
            seed=seed,
        )
        GenerativeTraining(self, out, training, records, base, progress).run(queries)
        return out

    def _check_backbone(self, base: Network) -> None:
        """Raise a UsageError unless the backbone is a decoder with room and a chat template."""
        if not base.causal:
            raise UsageError(
                f"llm2vec-gen requires a decoder, got {self.backbone!r}: "
                "name a causal language model"
            )
        frame = "".join(chat_frame(base.tokenizer))
        template = len(base.tokenizer(frame)["input_ids"])
        most = self.length + template + max(self.new_tokens, self.k)
        if most > base.max_length:
            raise UsageError(
                f"expected queries and answers to fit into {base.max_length} positions, got {most} "
                "with the chat template: lower length or new_tokens"
            )


PAPER = Recipe(
    backbone="Qwen/Qwen3-4B",
    teacher="llm2comp:teacher",
    labelled="no",
    sources="McGill-NLP/llm2vec-gen-tulu::Qwen3_4B",
    sentences=False,
    instructed=0.0,
    samples=160_000,
    words="",
    length=512,
    new_tokens=500,
    temperature=0.6,
    top_k=20,
    top_p=0.95,
    standardise=False,
    lr=3e-4,
    warmup=0.02,
    decay="linear",
    batch_size=32,
)
"""The paper's settings for Qwen3-4B: 5,000 steps of 32 queries, all of which the budget must cover.

Its teacher is LLM2Vec of the same model, without labels: ``bench train llm2comp --set
backbone=Qwen/Qwen3-4B --set objective=mntp --out teacher`` trains one. Answers are sampled as
Qwen3's own generation settings say, which the released script leaves to the model. The released
rate falls by a quarter only, over 20,000 steps of which 5,000 are made.
"""


@dataclass(eq=False)
class GenerativeTraining:
    """One training: stages that are done once, then the loop.

    Attributes:
        recipe: The settings.
        out: Folder of the checkpoint, with a folder ``stages``.
        training: What determines the outcome.
        data: Records of the data sources.
        base: The backbone with its head.
        progress: Called in every stage.
        took: Tokens and time of each stage.
    """

    recipe: Recipe
    out: Path
    training: Training
    data: Sequence[DataSource]
    base: Network
    progress: Progress
    took: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def stages(self) -> Path:
        """The folder of the stages."""
        return self.out / "stages"

    def run(self, queries: Sequence[Query]) -> None:
        """Run the stages that are not finished, train, and write the checkpoint."""
        recipe = self.recipe
        queries, answers = self.answer(queries)
        kept_out = min(round(_HELD_OUT * len(queries)), _MOST_HELD_OUT)
        trained = len(queries) - kept_out
        if trained < 2:
            raise DataError(
                f"expected at least 2 queries with an answer to train on, got {trained}: "
                "raise the budget, or give more texts"
            )
        teacher = self.load_teacher()
        target = self.teach(teacher, answers, trained)
        samples = []
        for query, answer in zip(queries, answers, strict=True):
            samples.append(Sample(query.ids, answer))
        objective = self.start(samples, target, trained)
        plan = batches(
            objective.lengths()[:trained],
            budget=self.training.budget,
            size=recipe.batch_size,
            seed=self.training.seed,
        )
        key = {"answers": digest([list(sample) for sample in samples])}
        key |= {"teacher": fingerprint(teacher)}
        fitted = fit(
            dict(objective.layers.named_parameters()),
            plan,
            objective,
            Optimisation(recipe.lr, warmup=recipe.warmup, decay=recipe.decay),
            network=objective.frozen,
            state=self.out / "state.pt",
            training=replace(self.training, recipe={**self.training.recipe, **key}),
            progress=self.progress,
        )
        if main_process():
            measured, tokens = measure(objective, range(trained, len(samples)))
            self.took["measuring"] = {"inference_tokens": tokens}
            self.save(self.out, objective, target)
            used = sorted(set(chain.from_iterable(plan)))
            Ngrams.of(queries[i].text for i in used).write(self.out / RUNS)
            self.write_sample(queries, answers)
            self.write_card(fitted, teacher, target, measured, len(used))
            (self.out / "state.pt").unlink(missing_ok=True)
        wait_for_all()

    def answer(self, queries: Sequence[Query]) -> tuple[list[Query], list[list[int]]]:
        """Return the queries that have an answer, and the token ids of the answers.

        An answer that is empty or white space is left out.
        """
        recipe, tokenizer, seed = self.recipe, self.base.tokenizer, self.training.seed
        if recipe.answers == "text":
            ids = tokenizer([query.text for query in queries], add_special_tokens=False)
            end = tokenizer.eos_token_id
            found = [[*row, end] for row in ids["input_ids"]]
        else:
            found = self.sample(queries)
        if recipe.answers == "shuffled":
            order = np.random.default_rng([seed, 2]).permutation(len(found))
            found = [found[i] for i in order]
        words = self.decode(found)
        kept = [i for i, answer in enumerate(words) if answer]
        if "answers" in self.took:
            self.took["answers"]["empty"] = len(words) - len(kept)
        return [queries[i] for i in kept], [found[i] for i in kept]

    def sample(self, queries: Sequence[Query]) -> list[list[int]]:
        """Return the backbone's own answer to each query, sampled once and kept."""
        recipe, network, seed = self.recipe, self.base, self.training.seed
        sampling = Sampling(recipe.new_tokens, recipe.temperature, recipe.top_k, recipe.top_p)
        before, after = chat_frame(network.tokenizer)
        asked = [Framed(query.words, before, after) for query in queries]
        made = make_prompts(network.tokenizer, asked, limit=1 << 30, ends=False)
        prompts = [prompt.ids for prompt in made]
        key = {"prompts": digest(prompts), "sampling": list(sampling), "seed": seed}
        key |= {"model": self.generator_digest(), "chunk": _CHUNK}

        def write(chunk: list[int]) -> tuple[dict[str, Any], int]:
            some = [prompts[i] for i in chunk]
            found, tokens = sample_answers(network, some, sampling, [[seed, i] for i in chunk])
            return {"queries": chunk, "answers": found, "words": self.decode(found)}, tokens

        lines, took = compute_chunks(
            Stage(self.stages / "answers.json", key),
            self.stages / "answers.jsonl",
            list(map(len, prompts)),
            _CHUNK,
            write,
            label="llm2vec-gen: answers",
            progress=self.progress,
        )
        answers: list[list[int]] = [[] for _ in queries]
        for line in lines:
            for i, answer in zip(line["queries"], line["answers"], strict=True):
                answers[i] = answer
        ends = end_ids(network)
        finished = sum(answer[-1] in ends for answer in answers)
        self.took["answers"] = {
            "inference_tokens": took["positions"],
            "seconds": took["seconds"],
            "queries": len(queries),
            "finished": finished,
        }
        return answers

    def generator_digest(self) -> str:
        """Return the digest of the weights and dtype that answer."""
        model = Backbone(self.recipe.backbone, dtype=self.base.dtype, device=self.base.device)
        return digest([model.card().weights, self.base.dtype])

    def decode(self, answers: list[list[int]]) -> list[str]:
        """Return answers in words, without surrounding white space."""
        words = self.base.tokenizer.batch_decode(answers, skip_special_tokens=True)
        return [text.strip() for text in words]

    def load_teacher(self) -> Encoder:
        """Return the teacher."""
        recipe = self.recipe
        settings = {"dtype": self.base.dtype, "device": recipe.device, "normalise": False}
        return load_registered(recipe.teacher, "teacher", **settings)

    def teach(self, teacher: Encoder, answers: list[list[int]], trained: int) -> Target:
        """Return the teacher's vectors of the answers, standardised by those trained on."""
        words = self.decode(answers)
        key = {"teacher": fingerprint(teacher), "answers": digest(words)}
        stage = Stage(self.stages / "teacher.json", key)
        file = self.stages / "teacher.safetensors"
        with main_first():
            took = stage.begin()
            if took is None:
                self.progress("llm2vec-gen: teacher", 0, len(words))
                start = time.perf_counter()
                vectors, tokens = embed_answers(teacher, words)
                write_atomic(file, save({"vectors": torch.from_numpy(vectors)}))
                seconds = round(time.perf_counter() - start, 1)
                took = stage.finish(file, inference_tokens=tokens, seconds=seconds)
        self.took["teacher"] = took
        vectors = tensors(file)["vectors"].numpy()
        if self.recipe.standardise:
            return standardise(vectors, trained)
        return Target(torch.from_numpy(vectors), torch.zeros(vectors.shape[1]), 1.0)

    def start(self, samples: Sequence[Sample], target: Target, trained: int) -> GenerativeAlignment:
        """Return the objective with its layers as training begins."""
        recipe, network = self.recipe, make_differentiable(self.base)
        out = target.vectors.shape[1]
        layers = random_layers(network, recipe.k, out, self.training.seed)
        objective = GenerativeAlignment(
            network,
            layers,
            samples,
            target.vectors,
            1.0,
            recipe.reconstruction,
            recipe.alignment,
            recipe.positions,
        )
        if not recipe.words:
            return objective
        key = {"training": asdict(self.training), "model": self.generator_digest()}
        key |= {"samples": digest([list(sample) for sample in samples])}
        key |= {"target": digest(target.vectors.sum(1).tolist())}
        folder = self.stages / "start"
        stage = Stage(folder / "stage.json", key)
        with main_first():
            took = stage.begin()
            if took is None:
                self.progress("llm2vec-gen: start", 0, 1)
                began = time.perf_counter()
                objective, ridge, tokens = fit_start(objective, target, recipe.words, trained)
                measured, more = measure(objective, range(trained, len(samples)))
                files = self.save(folder, objective, target)
                took = stage.finish(
                    *files,
                    self.write_start_card(folder),
                    inference_tokens=tokens + more,
                    seconds=round(time.perf_counter() - began, 1),
                    ridge=ridge,
                    scale=objective.scale,
                    held_out=measured,
                )
        self.took["start"] = took
        state, scale = tensors(folder / WEIGHTS), took["scale"]
        state["reconstruction.weight"] /= scale
        layers.load_state_dict({name: state[name] for name in layers.state_dict()})
        return replace(objective, layers=layers, scale=scale)

    def save(self, folder: Path, objective: GenerativeAlignment, target: Target) -> list[Path]:
        """Write what is trained, with the scale folded into R, and return the files."""
        state = {}
        for name, tensor in objective.layers.state_dict().items():
            state[name] = tensor.detach().cpu().contiguous()
        state["reconstruction.weight"] = state["reconstruction.weight"] * objective.scale
        state["teacher.mean"] = target.mean
        state["teacher.scale"] = torch.tensor([target.scale])
        config = {
            "base": absolute_source(self.recipe.backbone),
            "k": self.recipe.k,
            "chat": self.recipe.chat,
        }
        write_atomic(folder / WEIGHTS, save(state, metadata={"format": "pt"}))
        write_atomic(folder / CONFIG, json.dumps(config, indent=1) + "\n")
        return [folder / CONFIG, folder / WEIGHTS]

    def write_sample(self, queries: Sequence[Query], answers: Sequence[list[int]]) -> None:
        """Write some queries with their answers, for people."""
        chosen = np.random.default_rng(self.training.seed).permutation(len(queries))[:_SAMPLED]
        words = self.decode([answers[i] for i in chosen])
        lines = []
        for i, answer in zip(chosen, words, strict=True):
            row = {"instruction": queries[i].instruction, "text": queries[i].text, "answer": answer}
            lines.append(json.dumps(row, ensure_ascii=False) + "\n")
        write_atomic(self.out / SAMPLE, "".join(lines))

    def write_start_card(self, folder: Path) -> Path:
        """Write what tables say of the start, and return the file: it knows the teacher, too."""
        card = {
            **asdict(self.training),
            "backbone": self.recipe.backbone,
            "trained_tokens": 0,
            "stages": [{"stage": "start"}],
            "teacher": self.teacher_entry,
        }
        write_atomic(folder / CARD, json.dumps(hide_home(card), indent=1) + "\n")
        return folder / CARD

    @property
    def teacher_entry(self) -> dict[str, Any]:
        """The teacher's name and whether it saw labels, as cards say it."""
        return {"name": self.recipe.teacher, "labels": self.recipe.saw_labels}

    def write_card(
        self,
        fitted: Fitted,
        teacher: Encoder,
        target: Target,
        measured: Mapping[str, float],
        used: int,
    ) -> None:
        """Write the card; totals of tokens include all stages."""
        inference = sum(stage.get("inference_tokens", 0) for stage in self.took.values())
        whole = replace(fitted, spent=fitted.spent + TokenCounts(inference=inference))
        stages = self.add_flops(teacher, fitted)
        more = {
            "stages": list_stages(stages),
            "flops": sum_flops(stages.values()),
            "teacher": {
                **self.teacher_entry,
                "fingerprint": fingerprint(teacher),
                "scale": target.scale,
                "trained_tokens": card(teacher).training_tokens,
            },
            "samples": used,
            "held_out": measured,
        }
        write_card(self.out, self.training, whole, self.base, self.data, more)

    def add_flops(self, teacher: Encoder, fitted: Fitted) -> dict[str, dict[str, Any]]:
        """Return what each stage took, with its FLOPs; None for a teacher of unknown cost."""
        forward = forward_flops(self.base)
        found = {}
        for name, took in self.took.items():
            found[name] = {**took, "flops": took["inference_tokens"] * forward}
        read, of_teacher = self.took["teacher"]["inference_tokens"], forward_flops_of(card(teacher))
        # a teacher may count no tokens
        found["teacher"]["flops"] = of_teacher * read if of_teacher is not None and read else None
        tokens = fitted.spent.trained
        # gradients pass back through a network that is frozen
        spent = TokenCounts(tokens, differentiated=tokens)
        found["training"] = {
            "trained_tokens": tokens,
            "seconds": round(fitted.seconds, 1),
            "flops": count_flops(self.base, spent),
        }
        return found
