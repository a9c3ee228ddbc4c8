"""Training InBedder: the backbone learns to answer questions about texts in a few telling words.

Command: ``bench train inbedder --budget 1000000`` (82 minutes on two CPU cores with bfloat16).
Peng et al. (ACL 2024); the released training script is zhang-yu-wei/InBedder at 3d95d4fa. One thing differs on purpose: that
script chooses its template by the data file's name, and so trains on another one than it is tested on; here it is TEMPLATE.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from adapters._backbone import PACKAGED, Backbone, Network
from adapters._checkpoint import RUNS
from adapters._head import head_of
from adapters._training.budget import Spent, batches
from adapters._training.card import finished, write_card
from adapters._training.loop import Optimisation, Training, fit, main_process, shared, waited
from adapters._training.settings import at_least_one, deciding
from adapters._training.sources import named
from adapters._training.weights import attached, save_trained, trained
from adapters.inbedder.encoder import TEMPLATE, TEMPLATE_WITHOUT_INPUT
from adapters.inbedder.triples import OPEN, Triple, View, mixed
from bench.overlap import Ngrams
from bench.recipe import Load, Progress

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Recipe:
    """The recipe of InBedder on any backbone.

    Attributes:
        backbone: The packaged backbone, a folder, or a hub id with ``@revision``; a decoder or a masked language model.
        sources: Names of data sets; empty for the open ones listed in ``triples.OPEN``, else ids, ``id:config``,
            ``id:config:split`` or JSONL files, separated by commas, in equal shares, with columns (context, question, answers),
            (input, instruction, output) or (question, answer).
        words: Longest passage in words, whole sentences around the answer; the paper takes whole passages, of which a small
            budget would hold few.
        lr: Highest learning rate; the paper has 2e-5, for all weights, not low-rank ones.
        batch_size: Rows a step; 64 in the paper, which takes a hundred times as many steps.
        lora: Whether low-rank weights are trained; otherwise all weights are.
        max_length: Longest row in tokens.
        positions: Token positions computed at once; it changes no result.
        dtype: "auto", "float32" or "bfloat16".
        device: "auto", "cpu", "cuda", "mps".

    Source:
        Template, loss, schedule and lengths: the released script; the published 198,000 rows are on the hub as
        KomeijiForce/Inbedder-Pretrain-Data (``--set sources=KomeijiForce/Inbedder-Pretrain-Data``).
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
        """Raise a UsageError where a setting is off."""
        at_least_one(self, "words", "batch_size", "max_length")

    def train(self, out: Path, *, budget: int, seed: int, load: Load, progress: Progress) -> Path:
        """Train, write the checkpoint and its card, and return its folder."""
        self.check()
        main_process()  # each process takes its device before anything is put on one
        training = Training("inbedder", deciding(self), budget, seed)
        if finished(out, training):
            return out
        progress("reading data", 0, 1)
        base = Backbone(self.backbone, head="lm", dtype=self.dtype, device=self.device).load()
        triples, material = mixed(
            named(self.sources, View) or OPEN,
            load,
            rows=max(budget // 40, 8),
            words=self.words,
            seed=seed,
        )
        rows = [row for row in encoded(base, triples, self.max_length) if row.answers]
        plan = batches(
            [len(row.ids) for row in rows], budget=budget, size=self.batch_size, seed=seed
        )
        network = attached(base, lora=self.lora, seed=seed)
        fitted = fit(
            trained(network),
            plan,
            Answering(network, rows, self.positions),
            Optimisation(self.lr),
            network=network,
            state=out / "state.pt",
            training=training,
            progress=progress,
        )
        if main_process():
            save_trained(network, out, self.backbone, lora=self.lora)
            used = sorted({i for batch in plan for i in batch})
            Ngrams.of(triples[rows[i].number].input for i in used).write(out / RUNS)
            write_card(
                out, training, fitted, network, material, {"template": TEMPLATE, "rows": len(used)}
            )
            (out / "state.pt").unlink(missing_ok=True)
        waited()
        return out


class Row(NamedTuple):
    """A tokenised training row.

    Attributes:
        number: Of its triple.
        ids: Prompt, answer and, for a decoder, the end of the text.
        answers: Positions of the tokens that are predicted.
    """

    number: int
    ids: list[int]
    answers: list[int]


def encoded(network: Network, triples: Sequence[Triple], limit: int) -> list[Row]:
    """Return the rows as token ids, the prompt and the answer tokenised as one string.

    Of a row that is too long, the longest of its three parts is cut at its end; as in the released script, 20 tokens are left for
    the template, or as many as it has.

    Args:
        network: Says how to tokenise, and whether answers are continued (decoder) or filled in (masked language model).
        triples: The rows.
        limit: Most positions.
    """
    tokenizer = network.tokenizer
    around = max(
        20, len(tokenizer(TEMPLATE, verbose=False)["input_ids"]) + 1
    )  # the template's tokens, and the end
    texts = [_fitted(triple, tokenizer, limit - around) for triple in triples]
    prompts = [
        (TEMPLATE if input_ else TEMPLATE_WITHOUT_INPUT).replace("{instruction}", "\0", 1).replace("{input}", "\1", 1)
        .replace("\0", instruction).replace("\1", input_)
        for input_, instruction, _ in texts
    ]  # fmt: skip
    both = tokenizer(
        [p + t.answer for p, t in zip(prompts, texts, strict=True)],
        return_offsets_mapping=True,
        verbose=False,
    )
    rows = []
    for i, (prompt, ids, offsets) in enumerate(
        zip(prompts, both["input_ids"], both["offset_mapping"], strict=True)
    ):
        answers = [k for k, (a, b) in enumerate(offsets) if b > len(prompt) and b > a]
        if network.decoder:
            if tokenizer.eos_token_id is not None and ids[-1] != tokenizer.eos_token_id:
                ids = [*ids, tokenizer.eos_token_id]  # noqa: PLW2901 - the row with its end
            answers = [*answers, len(ids) - 1] if answers else []
        rows.append(Row(i, ids[:limit], [k for k in answers if k < limit]))
    return rows


def _fitted(triple: Triple, tokenizer: Any, room: int) -> Triple:  # noqa: ANN401 - a tokenizer
    """Cut the longest of the three parts at its end where all together have more than ``room`` tokens."""
    if sum(len(part.encode()) for part in triple) <= room:  # a token has at least one byte
        return triple
    offsets = [
        tokenizer(part, add_special_tokens=False, return_offsets_mapping=True, verbose=False)[
            "offset_mapping"
        ]
        for part in triple
    ]
    lengths = [len(o) for o in offsets]
    excess = sum(lengths) - room
    if excess <= 0:
        return triple
    longest = lengths.index(max(lengths))
    keep = max(lengths[longest] - excess, 1)
    return Triple(
        *(
            part[: offsets[k][keep - 1][1]] if k == longest else part
            for k, part in enumerate(triple)
        )
    )


class Part(NamedTuple):
    """Some rows of a batch, padded, and what their loss is divided by."""

    rows: list[Row]
    predicted: int


@dataclass(frozen=True, eq=False)
class Answering:
    """Cross-entropy of the answers' tokens, the mean over those of the batch.

    A decoder predicts each from what stands before it; a masked language model fills in all of them at once, each replaced by
    a mask.
    """

    network: Network
    rows: Sequence[Row]
    positions: int

    def parts(self, batch: Sequence[int]) -> list[Part]:
        """Cut a batch into portions of at most ``positions`` positions."""
        chosen = [self.rows[i] for i in batch]
        predicted = sum(len(row.answers) for row in chosen)
        return [
            Part([chosen[k] for k in portion], predicted)
            for portion in shared([len(row.ids) for row in chosen], self.positions)
        ]

    def loss(self, part: Part) -> "tuple[Tensor, Spent]":
        """Return the part's share of the batch's loss."""
        import torch
        from torch.nn.functional import cross_entropy

        network = self.network
        width = max(len(row.ids) for row in part.rows)
        ids = torch.tensor(
            [row.ids + [network.pad_id] * (width - len(row.ids)) for row in part.rows],
            device=network.device,
        )
        mask = torch.tensor(
            [[1] * len(row.ids) + [0] * (width - len(row.ids)) for row in part.rows],
            device=network.device,
        )
        places = torch.tensor(
            [(n, k) for n, row in enumerate(part.rows) for k in row.answers], device=network.device
        ).T
        wanted = ids[places[0], places[1]]
        if network.decoder:
            states = network.hidden_states(ids, mask)[places[0], places[1] - 1]
            logits = head_of(network)(states)
        else:
            ids[places[0], places[1]] = network.tokenizer.mask_token_id
            logits = network.model(input_ids=ids, attention_mask=mask).logits[places[0], places[1]]
        loss = cross_entropy(logits.float(), wanted, reduction="sum") / part.predicted
        return loss, Spent(trained=int(mask.sum()))
