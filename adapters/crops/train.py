"""Training Crops: two crops of one text are found from each other among those of other texts.

Command: ``bench train crops --budget S`` (one core, bfloat16; minutes are in the card).
González-Márquez et al. (TMLR 2026, arXiv 2508.03453); the released code is
berenslab/text-embed-augm at 09ac529. ``PAPER`` has the paper's settings. It is the control for the
other methods: plain contrastive training without a generator, a teacher or an instruction.

Comparisons: dropout views, one crop twice under different dropout (``--set views=dropout --set
dropout=0.1``), which is SimCSE's idea but not its setting; ``--vary last_layers=2``, ``--vary
attention=bidirectional`` and ``--vary overlap=false``. Intended differences to the paper: LoRA
weights without dropout instead of all weights with it, half the batch, gradients clipped at norm 1;
texts are split into sentences, not at every full stop, and length limits are in tokens. The paper's
bag of words, only input embeddings that are trained, is not implemented.
"""

from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from adapters._backbone import ATTENTIONS, PACKAGED, Backbone
from adapters._checkpoint import RUNS
from adapters._network import Network, save_whole
from adapters._trainable import set_dropout, unfreeze
from adapters._training.card import add_data, begin_training, write_card
from adapters._training.loop import Optimisation, fit
from adapters._training.processes import main_process, wait_for_all
from adapters._training.settings import at_least_one, one_of, positive
from adapters._training.sources import fetch_sources, parse_sources
from adapters._training.texts import TextSource, read_texts
from adapters._training.weights import Lora, freeze_all_but, trainable_weights
from adapters.crops.data import OPEN, plan_pairs, usable_texts
from adapters.crops.objective import check_dropout, make_objective
from bench.errors import UsageError
from bench.overlap import Ngrams
from bench.recipe import Load, Progress

VIEWS = ("crops", "dropout")
"""What a pair is: two crops of a text, or one crop twice."""


@dataclass(frozen=True)
class Recipe:
    """The recipe of Crops for any backbone.

    Attributes:
        backbone: The packaged backbone, a folder, or a hub id with ``@revision``.
        sources: Texts: ids, ``id:config``, ``id:config:split``, files with a column text
            (``.jsonl``, ``.csv``, ``.tsv``, ``.parquet``), or plain text files with blank lines
            between texts, separated by commas; empty for ``data.OPEN``.
        views: "crops", or "dropout": one crop twice, under different dropout.
        sentences: Sentences of a crop.
        overlap: Whether the two crops of a text may share a sentence.
        shortest: Fewest tokens of a sentence; others are left out.
        longest: Most tokens of a sentence.
        length: Longest crop in tokens; a longer one is truncated.
        attention: "native", or "bidirectional" for decoders.
        last_layers: How many layers, counted from the last, are trained; 0 for all.
        dropout: Of hidden states, attention weights and inputs of LoRA weights, where the backbone
            has them: SmolLM2 has none of hidden states.
        temperature: Divides the cosine.
        lr: Peak learning rate.
        batch_size: Pairs a step; the crops of the others are the candidates.
        lora: Whether LoRA weights are trained; otherwise all weights are.
        rank: Of the LoRA weights.
        positions: Tokens computed at once; apart from dropout masks it changes no result.
        dtype: "auto", "float32" or "bfloat16".
        device: "auto", "cpu", "cuda", "mps".

    Source:
        Crops, pooling, loss, temperature, batch size, dropout and schedule: the released code.
    """

    backbone: str = PACKAGED
    sources: str = ""
    views: str = "crops"
    sentences: int = 2
    overlap: bool = True
    shortest: int = 5
    longest: int = 40
    length: int = 64
    attention: str = "native"
    last_layers: int = 0
    dropout: float = 0.0
    temperature: float = 0.05
    lr: float = 1e-3
    batch_size: int = 32
    lora: bool = True
    rank: int = 16
    positions: int = field(default=1024, compare=False)
    dtype: str = "auto"
    device: str = field(default="auto", compare=False)

    def check(self) -> None:
        """Raise a UsageError if a setting is invalid."""
        one_of(self, "views", VIEWS)
        one_of(self, "attention", ATTENTIONS)
        at_least_one(self, "sentences", "shortest", "length", "batch_size", "rank")
        positive(self, "temperature", "lr")
        if self.batch_size < 2:
            raise UsageError(
                f"batch_size must be at least 2, since texts are told apart, got {self.batch_size}"
            )
        if self.last_layers < 0:
            raise UsageError(f"last_layers must be at least 0, got {self.last_layers}")
        if self.longest < self.shortest:
            raise UsageError(
                f"longest must be at least shortest={self.shortest}, got longest={self.longest}"
            )
        if not 0 <= self.dropout < 1:
            raise UsageError(f"dropout must be at least 0 and less than 1, got {self.dropout}")
        if self.views == "dropout" and not self.dropout:
            raise UsageError(
                "dropout views differ by dropout alone, got dropout=0: "
                "set dropout=0.1, or views=crops"
            )

    def fetch(self, load: Load) -> None:
        """Fetch what the training reads, and train nothing; see ``bench.recipe.Recipe``."""
        fetch_sources(parse_sources(self.sources, TextSource) or OPEN, load)
        Backbone(self.backbone).load(weights=False)

    def train(self, out: Path, *, budget: int, seed: int, load: Load, progress: Progress) -> Path:
        """Train, write the checkpoint and its card, and return its folder."""
        training = begin_training(self, "crops", out, budget, seed, progress)
        if training is None:
            return out
        base = self._load_backbone()
        found, records = read_texts(parse_sources(self.sources, TextSource) or OPEN, load)
        groups = usable_texts(
            found,
            base.tokenizer,
            tokens=(self.shortest, self.longest),
            sentences=self.sentences,
            overlap=self.overlap,
        )
        plan = plan_pairs(
            groups,
            base.tokenizer,
            views=self.views,
            sentences=self.sentences,
            overlap=self.overlap,
            length=min(self.length, base.max_length),
            budget=budget,
            size=self.batch_size,
            seed=seed,
        )
        network = self._make_trainable(base, seed)
        if self.views == "dropout":
            check_dropout(network, plan.rows[0][0])
        objective = make_objective(
            network, plan.rows, temperature=self.temperature, positions=self.positions
        )
        fitted = fit(
            trainable_weights(network),
            plan.batches,
            objective,
            Optimisation(self.lr, warmup=0.1, decay="linear"),
            network=network,
            state=out / "state.pt",
            training=add_data(training, self.sources, records),
            progress=progress,
        )
        if main_process():
            used = [plan.pairs[i] for i in sorted(chain.from_iterable(plan.batches))]
            self._save(network, out)
            Ngrams.of(chain.from_iterable(used)).write(out / RUNS)
            write_card(
                out,
                training,
                fitted,
                network,
                records,
                {"pairs": len(used), "usable_texts": len(groups)},
            )
            (out / "state.pt").unlink(missing_ok=True)
        wait_for_all()
        return out

    def _load_backbone(self) -> Network:
        return Backbone(
            self.backbone,
            attention=self.attention,
            dtype=self.dtype,
            device=self.device,
        ).load()

    @property
    def _lora(self) -> Lora:
        return Lora(self.rank, 2 * self.rank, self.dropout, self.last_layers)

    def _make_trainable(self, base: Network, seed: int) -> Network:
        """Return the network with what is trained, in training mode and under dropout."""
        if self.lora:
            network = self._lora.attach(base, seed=seed)
        else:
            network = unfreeze(base)
            if self.last_layers:
                freeze_all_but(network, self.last_layers)
        set_dropout(network.model, hidden=self.dropout, attention=self.dropout)
        return network

    def _save(self, network: Network, out: Path) -> None:
        if self.lora:
            self._lora.save(network, out, self.backbone)
        else:
            save_whole(network, out)


PAPER = Recipe(
    backbone="microsoft/mpnet-base",
    shortest=25,
    longest=55,
    length=512,
    dropout=0.1,
    lr=2e-5,
    batch_size=64,
    lora=False,
)
"""The paper's settings: one epoch over the pairs of 23,550 abstracts, 368 steps of 64 pairs.

Its sentences have 100 to 250 characters, about 25 to 55 tokens (estimate). The texts, abstracts of
ICLR submissions, are a file for ``sources``.
"""
