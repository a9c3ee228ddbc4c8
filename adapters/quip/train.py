"""Training QuIP: token states learn to hold the answers to the questions that could be asked of a text.

Command: ``bench train quip --budget S`` (just under two hours on one CPU core with bfloat16, more than half of them in the last stage).
Jia, Lewis, Zettlemoyer (Findings of ACL 2022). Four stages, each with its artefact in the folder ``stages`` of the checkpoint: a
generator is tuned and writes questions (``generator``), a teacher is tuned (``teacher``) and says where their answers are, and
the bi-encoder learns from it (``biencoder``). Neither code nor data of the training was released; what the paper leaves open
(optimiser, generator and teacher settings) is ours. At a small budget some things differ on purpose: passages are shorter than
456 tokens and have four questions instead of ten, so that there are many; a part of the questions are people's own with
their answers; and low-rank weights are trained, at a higher rate. The paper's own form: ``--set window=456 --set questions=10
--set human=0 --set lora=false --set lr=1e-5``. In both the inner products are divided by the square root of the width while heads are
trained, which their written weights contain, so that a new head does not begin with scores in the hundreds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from adapters._backbone import ATTENTIONS, PACKAGED, Backbone, Network
from adapters._checkpoint import RUNS
from adapters._files import stamp
from adapters._sharing import shareable
from adapters._training.budget import Spent, batches
from adapters._training.card import Material, finished, listed, write_card
from adapters._training.loop import Fitted, Training, main_first, main_process, waited
from adapters._training.settings import at_least_one, deciding, one_of, positive, share
from adapters._training.sources import Source, named
from adapters.quip.answering import answered
from adapters.quip.biencoder import Group, Pointing, folded, grouped, sharpened
from adapters.quip.encoder import QuIP, head_files, load_heads
from adapters.quip.generator import learning
from adapters.quip.passages import OPEN, Passage, Question, gathered
from adapters.quip.sampling import written
from adapters.quip.selection import Selection, selected
from adapters.quip.stages import Tuning, stage_trained, took
from adapters.quip.teacher import Finding, Labels, Pair, pair, predicted, relabelled
from adapters.quip.tokens import passage_prompts, place, question_ids, spans_of
from bench.encoder import digest
from bench.errors import DataError, UsageError
from bench.overlap import Ngrams
from bench.recipe import Load, Progress
from bench.spans import ANSWER_TOKENS, exact_match, extract_span, f1

LABELS = ("soft", "hard", "answers")
_MEASURED = 200
"""Most kept-out questions that teacher and encoder answer."""


@dataclass(frozen=True)
class Recipe:
    """The recipe of QuIP on any backbone.

    Attributes:
        backbone: Of teacher and encoder: the packaged backbone, a folder, or a hub id with ``@revision``.
        generator: What learns to write questions, a decoder or a model like BART; "" is the backbone, or the packaged one where that is no
            decoder.
        sources: Question-answering sets: empty for the open ones listed in ``passages.OPEN``, else ids, ``id:config``,
            ``id:config:split``, or files (SQuAD's JSON or JSON lines, MRQA's JSON lines), separated by commas.
        passages: More passages to write questions on, named alike; also sets with a text column, and plain text files.
        window: Most tokens of a passage, whole sentences; the paper fills 456.
        questions: Questions written on each passage; 10 in the paper.
        top_p: Nucleus they are drawn from.
        labels: "soft" for the teacher's probabilities, "hard" for its likeliest places, "answers" for the generator's own
            answers without a teacher ("QuIP (no teacher)").
        top: Places of the teacher's distribution that are kept.
        human: Share of the budget for passages with people's questions and answers; 0 in the paper, 1 is its "Bi-encoder +
            MRQA", which needs no generator and no teacher.
        together: Passages among whose tokens a question looks for its answer; more than 1 is the paper's "concat".
        attention: "native" or, for decoders, "bidirectional"; of teacher and encoder.
        epochs: Times that a passage is seen, as far as the data allow; 2 in the paper.
        generator_share: Token positions to tune the generator with, as a share of the budget; they count apart from it.
        teacher_share: The same for the teacher.
        lr: Highest learning rate; the paper has 1e-5, for all weights, not low-rank ones.
        batch_size: Passages a step, or questions for the teacher.
        lora: Whether low-rank weights are trained; otherwise all weights are.
        max_length: Longest passage in tokens, without special ones.
        max_question: Longest question.
        positions: Token positions computed at once; it changes no result.
        dtype: "auto", "float32" or "bfloat16".
        device: "auto", "cpu", "cuda", "mps".

    Source:
        Sections 2 and 3 of the paper.
    """

    backbone: str = PACKAGED
    generator: str = ""
    sources: str = ""
    passages: str = ""
    window: int = 100
    questions: int = 4
    top_p: float = 0.6
    labels: str = "soft"
    top: int = 8
    human: float = 0.6
    together: int = 1
    attention: str = "native"
    epochs: int = 2
    generator_share: float = 0.1
    teacher_share: float = 0.25
    lr: float = 5e-4
    batch_size: int = 16
    lora: bool = True
    max_length: int = 456
    max_question: int = 50
    positions: int = field(default=2048, compare=False)
    dtype: str = "auto"
    device: str = field(default="auto", compare=False)

    def train(self, out: Path, *, budget: int, seed: int, load: Load, progress: Progress) -> Path:
        """Train all stages, write the checkpoint and its card, and return its folder."""
        self.check()
        main_process()  # each process takes its device before anything is put on one
        if finished(out, Training("quip", deciding(self), budget, seed)):
            return out
        progress("reading data", 0, 1)
        base = self._backbone(self.backbone).load()
        passages, material = gathered(
            [*(named(self.sources, Source) or OPEN), *named(self.passages, Source)], load
        )
        data = selected(
            passages, base, window=self.window, longest=self.max_length, positions=max(budget // self.epochs, 1), human=self.human,
            questions=self.questions, seed=seed,
        )  # fmt: skip
        run = _Run(self, base, data, out, budget, seed, progress)
        groups, texts = run.groups()
        encoder = run.trained(groups)
        if main_process():
            run.finish(encoder, material, texts)
        waited()
        return out

    def check(self) -> None:
        """Raise a UsageError where a setting is off."""
        one_of(self, "labels", LABELS)
        one_of(self, "attention", ATTENTIONS)
        share(self, "human", "top_p")
        positive(self, "top_p", "lr")
        if self.human < 1:
            positive(
                self, "generator_share", *(() if self.labels == "answers" else ("teacher_share",))
            )
        if self.window > self.max_length:
            raise UsageError(
                f"window is at most max_length, got {self.window} and {self.max_length}: lower it, or raise max_length"
            )
        at_least_one(
            self,
            "window",
            "questions",
            "top",
            "together",
            "epochs",
            "batch_size",
            "max_length",
            "max_question",
        )

    def _backbone(self, source: str, *, head: str = "none") -> Backbone:
        attention = "native" if head == "lm" else self.attention
        return Backbone(
            source,
            attention=attention,  # type: ignore[arg-type]
            head=head,  # type: ignore[arg-type]
            dtype=self.dtype,
            device=self.device,
        )


class _Run:
    """The stages of one training, in order, with what each of them took."""

    def __init__(
        self, recipe: Recipe, base: Network, data: Selection, out: Path, budget: int, seed: int, progress: Progress
    ) -> None:  # fmt: skip
        self.recipe, self.base, self.data, self.out, self.budget, self.seed, self.progress = (
            recipe,
            base,
            data,
            out,
            budget,
            seed,
            progress,
        )
        self.took: dict[str, dict[str, Any]] = {}
        self.measured: dict[str, Any] = {}
        self.settings = deciding(recipe)
        self.data_mark = digest(
            [[[p.text, list(map(list, p.questions))] for p in data.teaching], data.texts]
        )
        self.tuning = Tuning(recipe.backbone, recipe.lora, recipe.lr, recipe.batch_size, seed)

    def groups(self) -> tuple[list[Group], list[str]]:
        """Return the bi-encoder's examples, and the texts in each of them: people's questions first, then generated ones."""
        recipe, data = self.recipe, self.data
        people, texts = self._grouped(data.human)
        if not data.texts:
            return people, texts
        questions = self._written()
        made = [
            Passage(text, tuple(some)) for text, some in zip(data.texts, questions, strict=True)
        ]
        if recipe.labels == "answers":
            groups, more = self._grouped(made)
        else:
            groups, more = self._relabelled(made)
        return [*people, *groups], [*texts, *more]

    def trained(self, groups: Sequence[Group]) -> tuple[Fitted, Training]:
        """Train the bi-encoder and return how that went."""
        recipe, base = self.recipe, self.base
        if not groups:
            raise DataError(
                "expected passages with questions whose answers they hold, got none: name other --set sources="
            )
        plan = batches(
            [group.width for group in groups],
            budget=self.budget,
            size=recipe.batch_size,
            seed=self.seed,
        )
        network = self.tuning.attached(base)
        heads = self.tuning.heads(network, network.dim)
        scale, last = network.dim**-0.5, base.decoder
        objective = Pointing(
            network, heads, groups, recipe.positions, recipe.together, shareable(base), last, scale
        )
        training = Training("quip", self.settings, self.budget, self.seed)
        decided = replace(
            training, recipe={**self.settings, "data": self.data_mark, "before": digest(self.took)}
        )
        fitted = self.tuning.fitted(
            decided, network, heads, objective, plan, self.out / "state.pt", self.progress
        )
        folded(heads, scale)
        if main_process():
            self.tuning.save(network, heads, self.out)
        self.used = sorted({i for batch in plan for i in batch})
        self.examples = {
            "passages": len(self.used),
            "questions": sum(len(groups[i].questions) for i in self.used),
        }
        return fitted, training

    def finish(
        self, done: tuple[Fitted, Training], material: Sequence[Material], texts: Sequence[str]
    ) -> None:
        """Measure the encoder on what was kept out, and write the card and the runs of words that were trained on."""
        fitted, training = done
        self._measure("encoder", self._encoder_answers)
        inference = sum(stage.get("positions", 0) for stage in self.took.values())
        self.took["biencoder"] = took(fitted)
        more = {
            "examples": self.examples,
            "stages": listed(self.took),
            "kept_out": self.measured,
        }
        whole = replace(fitted, spent=fitted.spent + Spent(inference=inference))
        taught = (
            self.data.teaching if self.data.texts else []
        )  # what generator and teacher learn from
        Ngrams.of([*(texts[i] for i in self.used), *(passage.whole for passage in taught)]).write(
            self.out / RUNS
        )
        write_card(self.out, training, whole, self.base, material, more)
        (self.out / "state.pt").unlink(missing_ok=True)

    def _stage(self, name: str, share: float, *uses: str, before: Any = None) -> Training:  # noqa: ANN401 - plain JSON values
        """Return what decides the outcome of a stage: the settings it uses, the data, and what an earlier stage gave it."""
        recipe = {
            use: self.settings[use]
            for use in (*uses, "lora", "lr", "batch_size", "dtype", "max_length", "attention")
        }
        return Training(
            f"quip {name}",
            {**recipe, "data": self.data_mark, "before": digest(before)},
            int(share * self.budget),
            self.seed,
        )

    def _written(self) -> list[list[Question]]:
        recipe, folder = self.recipe, self.out / "stages" / "generator"
        source = recipe.generator or (recipe.backbone if self.base.decoder else PACKAGED)
        base = recipe._backbone(source, head="lm").load()  # noqa: SLF001 - the recipe is this run's own
        if not base.decoder and not base.seq2seq:
            raise UsageError(
                f"a generator of quip has a decoder, got {source}: set generator to one, or to '' for the default"
            )
        lengths, objective = learning(
            base, self.data.teaching, limit=recipe.max_length, positions=recipe.positions
        )
        if not lengths:
            raise DataError(
                "expected people's questions to tune the generator on, got none: name question-answering --set sources="
            )
        training = self._stage("generator", recipe.generator_share, "generator", "backbone")
        self.took["generator"] = stage_trained(
            replace(self.tuning, backbone=source), training, base, lambda network, _: objective(network), lengths, folder, self.progress,
            heads=False,
        )  # fmt: skip
        training = self._stage(
            "questions",
            recipe.generator_share,
            "generator",
            "backbone",
            "questions",
            "top_p",
            before=self.took["generator"],
        )
        tuned = recipe._backbone(str(folder), head="lm").load()  # noqa: SLF001
        with main_first():
            found, self.took["questions"] = written(
                tuned, self.data.texts, folder.parent / "questions.jsonl", training, self.progress
            )
        return found

    def _pairs(self, passages: Sequence[Passage]) -> list[Pair]:
        """Return the pairs of passages and their questions; an answer that is not in the passage is at -1."""
        limit, base = self.recipe.max_length, self.base
        prompts = passage_prompts(base, [p.text for p in passages], limit)
        asked = question_ids(
            base, [q.text for p in passages for q in p.questions], self.recipe.max_question
        )
        rows, ids = [], iter(asked)
        for passage, prompt in zip(passages, prompts, strict=True):
            for question in passage.questions:
                own, found = next(ids), place(spans_of(prompt), question.start, question.end)
                rows.append(pair(base, own, prompt.ids, found or (-1, -1)))
        return rows

    def _teacher(self) -> tuple[Network, Any]:
        recipe, folder = self.recipe, self.out / "stages" / "teacher"
        pairs = [
            row
            for row in self._pairs(self.data.teaching)
            if row.start >= 0 and row.begin + row.end < len(row.ids)
        ]
        if not pairs:
            raise DataError(
                "expected people's questions to teach the teacher, got none: name question-answering --set sources="
            )
        training = self._stage("teacher", recipe.teacher_share, "backbone", "max_question")
        self.took["teacher"] = stage_trained(
            self.tuning, training, self.base, lambda network, heads: Finding(network, heads, pairs, recipe.positions),
            [len(row.ids) for row in pairs], folder, self.progress, heads=True,
        )  # fmt: skip
        network = recipe._backbone(str(folder)).load()  # noqa: SLF001
        files = head_files(folder)
        return network, load_heads(files, network.dim, network.device, stamp(files), out=1)

    def _relabelled(self, made: Sequence[Passage]) -> tuple[list[Group], list[str]]:
        recipe = self.recipe
        network, heads = self._teacher()
        self._measure("teacher", partial(self._teacher_answers, network, heads))
        before = [[[p.text, list(map(list, p.questions))] for p in made], self.took["teacher"]]
        training = self._stage(
            "labels", recipe.teacher_share, "backbone", "top", "max_question", before=before
        )
        rows = self._pairs(made)
        with main_first():
            labels, self.took["labels"] = relabelled(
                network,
                heads,
                rows,
                self.out / "stages" / "labels",
                training,
                recipe.positions,
                self.progress,
            )
        if recipe.labels == "hard":
            labels = sharpened(labels)
        prompts = passage_prompts(self.base, [p.text for p in made], recipe.max_length)
        asked = question_ids(
            self.base, [q.text for p in made for q in p.questions], recipe.max_question
        )
        groups, texts, begin = [], [], 0
        for passage, prompt in zip(made, prompts, strict=True):
            end = begin + len(passage.questions)
            if begin < end:
                groups.append(
                    Group(
                        prompt.ids,
                        asked[begin:end],
                        Labels(labels.places[begin:end], labels.chances[begin:end]),
                    )
                )
                texts.append(passage.whole)
            begin = end
        return groups, texts

    def _grouped(self, passages: Sequence[Passage]) -> tuple[list[Group], list[str]]:
        recipe = self.recipe
        return grouped(
            self.base,
            passages,
            max_length=recipe.max_length,
            max_question=recipe.max_question,
            top=recipe.top,
        )

    def _measure(self, name: str, answers: Callable[[list[str], list[str]], list[str]]) -> None:
        asked = [(p.text, q) for p in self.data.kept_out for q in p.questions][:_MEASURED]
        if asked:
            found = answers([text for text, _ in asked], [q.text for _, q in asked])
            pairs = [
                (answer, [text[q.start : q.end]])
                for answer, (text, q) in zip(found, asked, strict=True)
            ]
            right = {
                what: round(fmean(one(*both) for both in pairs), 4)
                for what, one in (("exact", exact_match), ("f1", f1))
            }
            self.measured |= {"questions": len(asked), name: right}

    def _encoder_answers(self, texts: list[str], questions: list[str]) -> list[str]:
        recipe = self.recipe
        encoder = QuIP(
            str(self.out), attention=recipe.attention, dtype=recipe.dtype, device=recipe.device
        )
        return [answer.text for answer in answered(encoder, texts, questions)]

    def _teacher_answers(
        self,
        network: Network,
        heads: Any,  # noqa: ANN401
        texts: list[str],
        questions: list[str],
    ) -> list[str]:
        prompts = passage_prompts(self.base, texts, self.recipe.max_length)
        asked = question_ids(self.base, questions, self.recipe.max_question)
        pairs = [pair(self.base, q, p.ids) for q, p in zip(asked, prompts, strict=True)]
        both = predicted(network, heads, pairs, self.recipe.positions)
        return [
            extract_span(text, spans_of(p), probabilities, ANSWER_TOKENS).text
            for text, p, probabilities in zip(texts, prompts, both, strict=True)
        ]
