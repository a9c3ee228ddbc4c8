"""Training LLM2Comp: compression of contexts into memory tokens, then contrastive learning.

Command: ``bench train llm2comp --budget S`` (an hour and a half on two CPU cores with bfloat16). Zhang et al. (AAAI 2026); the released
code (longtaizi13579/LLM2Comp at c22f4c4) does not run as published, so this is written from its description.
Where it differs from the released code on purpose: of the input embeddings only those of the memory tokens are trained, in every stage, so
that a checkpoint stays small; the learning rate rises for 3 % of the steps, not 10, and falls as a cosine to 0, with no weight decay, and
gradients are clipped at 1; low-rank weights have no dropout; one limit, ``document``, holds for queries and documents of stage 3.
Stage 1 alone is ``bench train llm2comp --budget 100000 --set contrastive=0``, what stage 1 has of budget S: with
``--vary objective=nll,rc,mntp`` it compares pretext tasks, with ``--vary k=1,2,4,16`` memory sizes. ``--set keep=true`` keeps
the checkpoint of each stage, to be compared with the last.
Near to the paper's own form is ``bench train llm2comp --budget L --set words= --set attention=bidirectional --set new_lora=true
--set contrastive=0.3 --set contrastive_batch=128 --set length=512 --set sentence=504 --set continuation=512 --set batch_size=4
--set lr=1e-4``; with ``new_lora`` a checkpoint of two stages is twice as large, and up to three copies of the backbone are in memory when
a stage begins.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from adapters._backbone import ATTENTIONS, PACKAGED, Backbone, Network
from adapters._training.budget import batches
from adapters._training.loop import Optimisation, Training, main_process
from adapters._training.settings import at_least_one, deciding, one_of, positive
from adapters._training.sources import named
from adapters._training.weights import differentiable
from adapters.llm2comp import texts
from adapters.llm2comp.compression import OBJECTIVES, Compression, splits
from adapters.llm2comp.contrastive import Contrast, Triple, tokenised, triples_of, twice
from adapters.llm2comp.mntp import Masking, taken
from adapters.llm2comp.stages import Stage, Stages
from bench.errors import UsageError
from bench.recipe import Load, Progress


@dataclass(frozen=True)
class Recipe:
    """The recipe of LLM2Comp on any decoder.

    Attributes:
        backbone: The packaged backbone, a folder, or a hub id with ``@revision``.
        objective: Of stage 1: "kl" (the paper's best), "nll", "rc", or LLM2Vec's "mntp", which has no memory: then the mean of
            the token states is trained and read.
        k: Number of memory tokens.
        words: What the memory tokens are at first: the first k tokens of these words, over and over if there are fewer; "" for the
            paper's random rows, which at a small budget begin to hold texts only by luck.
        attention: "auto" is the backbone's own under "kl", "nll" and "rc", and "bidirectional" under "mntp", as in LLM2Vec; or
            "native", or the paper's "bidirectional", which a small backbone has to get used to first.
        sources: Names of texts; empty for the open ones listed in ``texts.OPEN``, else ids, ``id:config``, ``id:config:split``,
            JSONL files with a column text, or plain text files, separated by commas.
        triples: JSONL files with columns query, positive and negative, and maybe instruction, separated by commas; for stage 3. Without
            that column a file named like a set of the paper (``instructions.INSTRUCTIONS``), such as ``nq.jsonl``, has that set's.
        corrected: Whether AllNLI's two instructions take turns; a missing comma in the released code makes one of them.
        healing: Share of the budget that goes to masked next-token prediction before stage 1, for a backbone made bidirectional.
        contrastive: Share that goes to stage 2.
        supervised: Share that goes to stage 3; stage 1 has what the three leave.
        length: Longest passage in tokens, and twice the shortest; 512 in the paper, of which a small budget would hold few.
        continuation: Most tokens that are predicted after a context; all in the paper, which takes longer.
        sentence: Longest text of stage 2 in tokens, memory left out.
        document: Longest text of stage 3 in tokens.
        lr: Highest learning rate of stage 1 and of healing; 1e-4 in the paper, for a model fifty times as large.
        contrastive_lr: Of stages 2 and 3; in the paper 3e-5 in stage 2 and 1e-4 in stage 3.
        batch_size: Passages a step; 4 in the paper, of up to 512 tokens.
        contrastive_batch: Examples a step in stages 2 and 3; 128 and 1,024 in the paper, which has many more steps.
        dropout: Share of the attention weights dropped in stage 2: what makes two views of a text differ. Nothing else is dropped.
        temperature: Divides the cosines in stages 2 and 3.
        rank: Of the low-rank weights.
        new_lora: Whether a stage merges the low-rank weights of the one before it and begins new ones, as in the paper. Otherwise
            it goes on with them, so that a checkpoint is half as large.
        keep: Whether the checkpoint after each stage stays, in a folder of the stage's name.
        positions: Token positions computed at once; it changes no result, but for which attention weights are dropped.
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
    corrected: bool = False
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
    keep: bool = field(default=False, compare=False)
    positions: int = field(default=768, compare=False)
    dtype: str = "auto"
    device: str = field(default="auto", compare=False)

    def train(self, out: Path, *, budget: int, seed: int, load: Load, progress: Progress) -> Path:
        """Train, write the checkpoint and its card, and return its folder."""
        self.check()
        main_process()  # each process takes its device before anything is put on one
        progress("reading data", 0, 1)
        base = Backbone(self.backbone, head="lm", dtype=self.dtype, device=self.device).load()
        if not base.causal:
            raise UsageError(
                f"llm2comp compresses for a decoder, got {self.backbone!r}: name a causal language model"
            )
        self._check_lengths(base)
        plain, material = texts.gathered(named(self.sources, texts.Plain) or texts.OPEN, load)
        triples, more = (
            triples_of(_names(self.triples), load, corrected=self.corrected)
            if self.supervised
            else ([], [])
        )
        stages = Stages(
            out=out,
            training=Training(
                "llm2comp", deciding(replace(self, attention=self._attention)), budget, seed
            ),
            material=[*material, *more],
            base=base,
            k=self._memory,
            attention=self._attention,
            words=self.words,
            rank=self.rank,
            new_lora=self.new_lora,
            keep=self.keep,
            progress=progress,
        )
        return stages.run(self._stages(plain, triples, base, budget, seed))

    @property
    def _memory(self) -> int:
        return 0 if self.objective == "mntp" else self.k

    @property
    def _attention(self) -> str:
        """The attention of training: what "auto" stands for, or the one that is named."""
        return (
            self.attention
            if self.attention != "auto"
            else "bidirectional"
            if self.objective == "mntp"
            else "native"
        )

    def check(self) -> None:
        """Raise a UsageError where a setting is off."""
        one_of(self, "objective", OBJECTIVES)
        one_of(self, "attention", ("auto", *ATTENTIONS))
        shares = (self.healing, self.contrastive, self.supervised)
        if min(shares) < 0 or sum(shares) >= 1:
            raise UsageError(
                f"healing, contrastive and supervised are shares of the budget that leave some for stage 1, got {shares}"
            )
        if self.healing and self._attention == "native":
            raise UsageError(
                "healing is for a backbone made bidirectional, got attention native: set attention=bidirectional, or healing=0"
            )
        positive(self, "temperature", "lr", "contrastive_lr")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"dropout is at least 0 and less than 1, got {self.dropout}")
        at_least_one(
            self,
            "k",
            "continuation",
            "sentence",
            "document",
            "batch_size",
            "contrastive_batch",
            "rank",
        )
        if self.length < 2 * texts.MARGIN:
            raise UsageError(f"length is at least {2 * texts.MARGIN}, got {self.length}")
        if self.corrected and not self.triples:
            raise UsageError(
                "corrected is about the instructions of triples, got none: name triples, or leave it out"
            )
        if bool(self.supervised) != bool(self.triples):
            raise UsageError(
                f"supervised and triples belong together, got supervised={self.supervised}, triples={self.triples!r}"
            )

    def _check_lengths(self, base: Network) -> None:
        """Raise a UsageError where texts and memory of a stage can take more positions than the backbone has.

        What the frozen backbone reads is no longer: a continuation is part of a passage, of which ``texts.MARGIN`` tokens or more are not.
        """
        special = base.tokenizer.num_special_tokens_to_add()
        taken = {"length": self.length + special}
        taken |= {"sentence": self.sentence} if self.contrastive else {}
        taken |= {"document": self.document} if self.supervised else {}
        for name, positions in taken.items():
            if positions + self._memory > base.max_length:
                raise UsageError(
                    f"expected {name}={getattr(self, name)} to fit into {base.max_length} positions, got {positions + self._memory} "
                    f"with special tokens and memory: lower {name}"
                )

    def _stages(
        self, plain: Sequence[str], triples: Sequence[Triple], base: Network, budget: int, seed: int
    ) -> list[Stage]:
        passages = texts.long_passages(plain, base.tokenizer, self.length)
        first = round(budget * (1 - self.healing - self.contrastive - self.supervised))
        made = (
            [self._mntp("healing", passages, base, round(budget * self.healing), seed + 1)]
            if self.healing
            else []
        )
        made += [
            self._mntp("mntp", passages, base, first, seed)
            if self.objective == "mntp"
            else self._compression(passages, base, first, seed)
        ]
        if self.contrastive:
            made += [self._unsupervised(plain, base, round(budget * self.contrastive), seed)]
        if self.supervised:
            made += [self._supervised(triples, base, round(budget * self.supervised), seed)]
        return made

    def _compression(
        self, passages: Sequence[texts.Passage], base: Network, budget: int, seed: int
    ) -> Stage:
        around = texts.around(base.tokenizer)
        rows = splits(
            passages, around, positions=budget, k=self.k, continuation=self.continuation, seed=seed
        )
        plan = batches(
            [len(row.read) + self.k for row in rows],
            budget=budget,
            size=self.batch_size,
            seed=seed,
            stage="compression",
        )
        return Stage(
            "compression",
            plan,
            [passages[rows[i].passage].text for i in _used(plan)],
            lambda trainee: Compression(
                trainee, differentiable(base), rows, self.objective, self.positions
            ),
            Optimisation(self.lr),
        )

    def _mntp(
        self, name: str, passages: Sequence[texts.Passage], base: Network, budget: int, seed: int
    ) -> Stage:
        before, after = texts.around(base.tokenizer)
        chosen = taken(passages, positions=budget, seed=seed)
        rows = [[*before, *passages[i].ids, *after] for i in chosen]
        plan = batches(
            [len(row) for row in rows], budget=budget, size=self.batch_size, seed=seed, stage=name
        )
        return Stage(
            name,
            plan,
            [passages[chosen[i]].text for i in _used(plan)],
            lambda trainee: Masking(trainee, base, rows, self.positions, seed),
            Optimisation(self.lr),
        )

    def _unsupervised(self, plain: Sequence[str], base: Network, budget: int, seed: int) -> Stage:
        found = [
            text
            for text in dict.fromkeys(part for text in plain for part in texts.sentences(text))
            if len(text.split()) >= 3
        ]
        order = texts.shuffled(len(found), seed)
        drawn = [
            found[next(order)] for _ in range(min(len(found), budget // 8))
        ]  # a sentence and its view have more than 8 tokens
        rows = twice(drawn, base.tokenizer, self.sentence)
        return self._contrast("contrastive", rows, drawn, budget, seed, self.dropout)

    def _supervised(
        self, triples: Sequence[Triple], base: Network, budget: int, seed: int
    ) -> Stage:
        rows = tokenised(triples, base.tokenizer, self.document)
        return self._contrast(
            "supervised",
            rows,
            [f"{t.query.text} {t.positive} {t.negative}" for t in triples],
            budget,
            seed,
            0.0,
        )

    def _contrast(
        self,
        name: str,
        rows: Sequence[Sequence[list[int]]],
        plain: Sequence[str],
        budget: int,
        seed: int,
        dropout: float,
    ) -> Stage:
        lengths = [sum(len(ids) + self._memory for ids in row) for row in rows]
        plan = batches(lengths, budget=budget, size=self.contrastive_batch, seed=seed, stage=name)
        return Stage(
            name,
            plan,
            [plain[i] for i in _used(plan)],
            lambda trainee: Contrast(trainee, rows, self.temperature, self.positions),
            Optimisation(self.contrastive_lr),
            dropout,
        )


def _used(plan: Sequence[Sequence[int]]) -> list[int]:
    return sorted({i for batch in plan for i in batch})


def _names(files: str) -> list[str]:
    return list(filter(None, map(str.strip, files.split(","))))
