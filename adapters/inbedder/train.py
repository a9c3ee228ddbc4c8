"""Training InBedder: the backbone learns to answer questions about texts in few words.

Command: ``bench train inbedder --budget 1000000`` (82 minutes on two CPU cores with bfloat16).
Peng et al. (ACL 2024); the released training script is zhang-yu-wei/InBedder at 3d95d4fa. ``PAPER``
has the paper's settings. One difference is intended: that script chooses the template by the name
of the data file, and so trains with another one than it is tested with; here it is TEMPLATE.
"""

from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from adapters._backbone import PACKAGED, Backbone
from adapters._checkpoint import RUNS
from adapters._training.budget import batches
from adapters._training.card import add_data, begin_training, write_card
from adapters._training.loop import Optimisation, fit
from adapters._training.processes import main_process, wait_for_all
from adapters._training.settings import at_least_one
from adapters._training.sources import fetch_sources, parse_sources
from adapters._training.weights import make_trainable, save_trained, trainable_weights
from adapters.inbedder.data import OPEN, AnswerSource, read_examples, tokenise_examples
from adapters.inbedder.encoder import TEMPLATE
from adapters.inbedder.objective import AnswerPrediction
from bench.errors import UsageError
from bench.overlap import Ngrams
from bench.recipe import Load, Progress


@dataclass(frozen=True)
class Recipe:
    """The recipe of InBedder for any backbone.

    Attributes:
        backbone: The packaged backbone, a folder, or a hub id with ``@revision``; a decoder or a
            masked language model.
        sources: Data sets: ids, ``id:config``, ``id:config:split`` or JSONL files, separated by
            commas, in equal shares, with columns (context, question, answers), (input, instruction,
            output) or (question, answer); empty for ``data.OPEN``.
        words: Longest passage in words, whole sentences around the answer.
        lr: Peak learning rate.
        batch_size: Rows a step.
        lora: Whether LoRA weights are trained; otherwise all weights are.
        max_length: Longest row in tokens; less if the backbone takes less.
        positions: Tokens computed at once; it changes no result.
        dtype: "auto", "float32" or "bfloat16".
        device: "auto", "cpu", "cuda", "mps".

    Source:
        Template, loss, schedule and lengths: the released script.
    """

    backbone: str = PACKAGED
    sources: str = ""
    words: int = 60
    lr: float = 5e-4
    batch_size: int = 32
    lora: bool = True
    max_length: int = 512
    positions: int = field(default=1536, compare=False)
    dtype: str = "auto"
    device: str = field(default="auto", compare=False)

    def check(self) -> None:
        """Raise a UsageError if a setting is invalid."""
        at_least_one(self, "words", "batch_size", "max_length")

    def fetch(self, load: Load) -> None:
        """Fetch what the training reads, and train nothing; see ``bench.recipe.Recipe``."""
        fetch_sources(parse_sources(self.sources, AnswerSource) or OPEN, load)
        Backbone(self.backbone, head="lm").load(weights=False)

    def train(self, out: Path, *, budget: int, seed: int, load: Load, progress: Progress) -> Path:
        """Train, write the checkpoint and its card, and return its folder."""
        training = begin_training(self, "inbedder", out, budget, seed, progress)
        if training is None:
            return out
        base = Backbone(self.backbone, head="lm", dtype=self.dtype, device=self.device).load()
        if base.seq2seq:
            raise UsageError(
                "inbedder requires a decoder or a masked language model, "
                f"got {self.backbone!r} with both an encoder and a decoder: name another backbone"
            )
        sources = parse_sources(self.sources, AnswerSource) or OPEN
        count = max(budget // 40, 8)
        examples, records = read_examples(sources, load, rows=count, words=self.words, seed=seed)
        rows = tokenise_examples(base, examples, min(self.max_length, base.max_length))
        lengths = [len(row.ids) for row in rows]
        plan = batches(lengths, budget=budget, size=self.batch_size, seed=seed)
        network = make_trainable(base, lora=self.lora, seed=seed)
        fitted = fit(
            trainable_weights(network),
            plan,
            AnswerPrediction(network, rows, self.positions),
            Optimisation(self.lr),
            network=network,
            state=out / "state.pt",
            training=add_data(training, self.sources, records),
            progress=progress,
        )
        if main_process():
            save_trained(network, out, self.backbone, lora=self.lora)
            used = sorted(set(chain.from_iterable(plan)))
            # an instruction may be all that is read, and the answer is learnt
            texts = ("\n".join(examples[rows[i].number]) for i in used)
            Ngrams.of(texts).write(out / RUNS)
            more = {"template": TEMPLATE, "rows": len(used)}
            write_card(out, training, fitted, network, records, more)
            (out / "state.pt").unlink(missing_ok=True)
        wait_for_all()
        return out


PAPER = Recipe(
    backbone="meta-llama/Llama-2-7b-hf",
    sources="KomeijiForce/Inbedder-Pretrain-Data",
    lr=2e-5,
    batch_size=64,
    lora=False,
    max_length=512,
)
"""The paper's settings for its best model, one epoch of 198,000 rows; all but T5 have this lr.

Its rows have their own (input, instruction, output), which ``words`` does not shorten.
"""
