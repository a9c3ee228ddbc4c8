"""InBedder: an instruction is a question about the text, the embedding the state before its answer.

Peng, Zhang, Wang, Srinivasa, Liu, Wang, Shang. Answer is All You Need: Instruction-following Text
Embedding via Answering the Question. ACL 2024. Template, read-outs and lengths are those of
zhang-yu-wei/InBedder at 3d95d4fa; "pair" is on the card of KomeijiForce/inbedder-roberta-large.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from adapters import _batching, _pooling, _sharing
from adapters._backbone import PACKAGED, Backbone
from adapters._checkpoint import locate, runs_of
from adapters._encoder import NetworkEncoder
from adapters._export import TEXT, SentenceLayout, join_template, plain_layer, quote
from adapters._network import Network
from adapters._registered import load_registered
from adapters._text import Framed, make_prompts
from adapters.inbedder.generate import (
    AnsweredBatch,
    AnswerSampling,
    count_generated,
    last_position,
    make_masks,
    mask_positions,
    read_generated,
    read_words,
    reencode,
    transform_states,
    write_answers,
)
from bench.encoder import (
    Batch,
    Card,
    Embeddings,
    Encoder,
    Item,
    Side,
    digest,
    fingerprint,
    location,
)
from bench.errors import UsageError
from bench.overlap import Ngrams

PUBLISHED: Mapping[str, str] = {
    "llama-2-7b-InBedder": "BrandonZYW/llama-2-7b-InBedder",
    "opt-2.7b-InBedder": "BrandonZYW/opt-2.7b-InBedder",
    "opt-1.3b-InBedder": "BrandonZYW/opt-1.3b-InBedder",
    "opt-350m-InBedder": "BrandonZYW/opt-350m-InBedder",
    "roberta-large-InBedder": "BrandonZYW/roberta-large-InBedder",
    "inbedder-roberta-large": "KomeijiForce/inbedder-roberta-large",  # as of revision 51efa829
}
"""Hub ids of the authors' checkpoints, by names that ``checkpoint`` also takes.

To pin one, use the id with ``@revision``.
"""

TEMPLATE = "### Input:\n{input}\n\n### Instruction:\n{instruction}\n\n### Response:"
"""The prompt of training and test, for all sizes; the answer follows the colon without a space."""

TEMPLATE_WITHOUT_INPUT = "### Instruction:\n{instruction}\n\n### Response:"
"""The prompt of a training row without input."""

NEUTRAL_QUESTION = "What is this text about?"
"""The question without an instruction; ours, the paper always has an instruction."""

ANSWER_TOKENS = 12
"""Most tokens of an answer for people; read-outs have their own ``new_tokens``."""

ANSWER_BUDGET = 32_768
"""Default tokens of a batch of such answers: a step costs much the same for 1 and 50 prompts."""

GENERATED = frozenset({"last-gen", "avg-gen", "avg-all"})
"""Read-outs that generate tokens, if the backbone is a decoder."""

READOUTS = GENERATED | {"1st-gen", "avg-ppt", "re-enc"}
"""Read-outs of decoders."""

MASKED_READOUTS = frozenset({"avg-gen", "pair", "re-enc"})
"""Read-outs of masked language models."""


@dataclass(frozen=True)
class InBedder(NetworkEncoder):
    """InBedder (Peng et al. 2024): the state where the answer to the instruction would start.

    With P the states of the prompt, and G those of generated tokens that predict another one,
    special tokens not counted, the read-outs of a decoder are: "1st-gen" the last of P (the paper's
    best); "last-gen" the last of G; "avg-gen" the mean of the last of P and G; "avg-ppt" the mean
    of P without its last; "avg-all" the mean of P and G; "re-enc" the written answer, embedded by
    another encoder. Those of a masked language model: "avg-gen" the mean of its masks; "re-enc";
    "pair": text and instruction as a pair without template, masks through the head's dense layer,
    mean, standardised.

    Attributes:
        checkpoint: "default" for the weights that come with this package, a name in PUBLISHED, a
            folder that the recipe wrote (counts as trained), or a hub id or the packaged backbone
            (counts as untrained).
        readout: "auto" is "1st-gen" for decoders and "avg-gen" for masked language models.
        layer: Hidden layer that is read: -1 the last after its norm (the published one), 0 the
            input embeddings.
        masks: Mask tokens after the prompt of a masked language model; 3 in the published runs.
        new_tokens: Most tokens generated for a read-out; 3 in the published runs with llama, 20
            with OPT. Here the likeliest token is taken; the published runs with llama sample it
            (temperature 0.6, top-p 0.9).
        samples: Answers re-encoded for each text: 0 is the likeliest one, 10 the published
            "10 samples", their mean.
        temperature: Of the samples.
        top_k: Number of the likeliest tokens to sample from; 0 for all.
        top_p: Of these, the fewest likeliest ones with at least this probability together.
        reencoder: Name of the registered encoder that embeds answers, such as "st:FOLDER"; it
            computes in the same dtype. The published ones are intfloat/e5-large-v2 (llama, flan-t5)
            and komninos word vectors (OPT, RoBERTa, Alpaca).
        max_length: Longest prompt in tokens, masks included and generated tokens not. Prompts are
            truncated on the left, so that instruction and answer slot stay.
    """

    checkpoint: str = location("default")
    readout: str = "auto"
    layer: int = -1
    masks: int = 3
    new_tokens: int = 3
    samples: int = 0
    temperature: float = 0.8
    top_k: int = 50
    top_p: float = 0.9
    reencoder: str = location("all-MiniLM-L6-v2")
    max_length: int = 512

    version: ClassVar[int] = 2
    follows_instructions: ClassVar[bool] = True
    instructed_sides: ClassVar[tuple[Side, ...]] = ("query", "document")

    def stream(self, items: Sequence[Item]) -> Iterator[Batch]:
        """Yield the vectors of items, longest first.

        For "1st-gen", several instructions for one text share its computation.

        Raises:
            UsageError: The backbone has no such read-out.
        """
        network = self._network()
        readout = resolve_readout(self.readout, decoder=network.decoder)
        prepare, budget = self._prepare(network), self.budget
        if readout == "1st-gen":
            limit = self._limit(network)
            return _sharing.stream_last(
                items, prepare, network, longest=limit, layer=self.layer, budget=budget
            )
        if readout == "re-enc":
            sampling = AnswerSampling(self.samples, self.temperature, self.top_k, self.top_p)
            return reencode(self._write(items, sampling, budget), self._reencoder())

        generates = readout in GENERATED and network.decoder

        def forward(ids: Tensor, mask: Tensor) -> Tensor:
            if generates:
                steps = self.new_tokens
                vectors, made = read_generated(network, ids, mask, readout, self.layer, steps)
                return torch.cat([vectors, made[:, None]], dim=1)
            states = network.hidden_states(ids, mask, self.layer)
            if network.decoder:  # avg-ppt
                return _pooling.mean(states, mask - last_position(mask))
            masked = mask_positions(ids, network, self.masks)
            if readout == "avg-gen":
                return _pooling.mean(states, masked)
            vectors = _pooling.mean(transform_states(network, states), masked)
            return (vectors - vectors.mean(1, keepdim=True)) / vectors.std(1, keepdim=True)

        batches = _batching.stream(items, prepare, forward, network, budget=budget)
        return count_generated(batches) if generates else batches

    def count_tokens(self, items: Sequence[Item]) -> int:
        """Return how many tokens of the items go through the network, without generated ones.

        What several instructions on one text share is counted once, as it is computed.
        """
        network = self._network(weights=False)
        shares = network.decoder and resolve_readout(self.readout, decoder=True) == "1st-gen"
        longest = _sharing.longest_row(self._limit(network))
        if not shares or not items or longest > network.window:
            return super().count_tokens(items)
        rows = _sharing.join_by_text(items)(range(len(items)), self._prepare(network)(items))
        return sum(row.width for row in rows)

    def card(self) -> Card:
        """Return the backbone's card; it counts as trained if published, or a recipe's folder.

        For "re-enc", the identity of the other encoder is part of the weights.
        """
        backbone = self._backbone()
        published = backbone.source.partition("@")[0] in PUBLISHED.values()
        card = backbone.card(trained=published or Path(backbone.source).is_dir())
        if self.readout in GENERATED | {"re-enc"}:
            card = replace(card, passes=None)  # one for each token, which depends on the text
        if self.readout == "re-enc":
            weights = digest([card.weights, fingerprint(self._reencoder())])
            card = replace(card, weights=weights)
        return card

    def runs(self) -> Ngrams | None:
        """Return the 8-grams of the training texts; None for weights that do not list them."""
        return runs_of(self._backbone().source)

    def answer(self, texts: Sequence[str], *, instruction: str = "") -> list[str]:
        """Return the likeliest answer to each text.

        It is the first line of that of "re-enc" or "pair", else one of at most ``ANSWER_TOKENS``
        tokens or all masks.
        """
        if self.readout not in {"re-enc", "pair"}:
            written = replace(self, readout="re-enc", new_tokens=ANSWER_TOKENS)
            return written.answer(texts, instruction=instruction)
        items = [Item(text, instruction) for text in texts]
        found = [""] * len(texts)
        for batch in self._write(items, AnswerSampling(), self.budget or ANSWER_BUDGET):
            for row, (answer,) in zip(batch.rows, batch.answers, strict=True):
                found[row.positions[0]] = next(iter(answer.splitlines()), "").strip()
        return found

    def read_words(self, vectors: Embeddings, origin: Embeddings, n: int) -> list[list[str]]:
        """Return the words whose logits rise most from the origin to each vector.

        For "re-enc" there are none: vectors are those of another encoder.
        """
        if self.readout == "re-enc":
            return [[] for _ in vectors]
        network = replace(self._backbone(), head="lm").load()
        transform = not network.decoder and self.readout != "pair"
        return read_words(vectors, origin, n, network, transform=transform)

    def _backbone(self) -> Backbone:
        head = "lm" if self.readout in GENERATED | {"re-enc", "pair"} else "none"
        source = locate(PUBLISHED.get(self.checkpoint, self.checkpoint), __file__, PACKAGED)
        return Backbone(source, head=head, dtype=self.dtype, device=self.device)

    def _reencoder(self) -> Encoder:
        return load_registered(self.reencoder, "reencoder", dtype=self.dtype, device=self.device)

    def _sentence_layout(self, network: Network) -> SentenceLayout:
        readout = resolve_readout(self.readout, decoder=network.decoder)
        if readout != "1st-gen":
            raise UsageError(f"sentence-transformers has no read-out like {readout}: use 1st-gen")
        plain_layer(self.layer, network)
        limit = min(self.max_length, network.max_length)
        template = CHAT_TEMPLATE
        return SentenceLayout(limit, "lasttoken", template=template, cut="left")

    def _limit(self, network: Network) -> int:
        """Return the most tokens of a prompt."""
        generates = network.decoder and self.readout in GENERATED | {"re-enc"}
        room = network.positions - (self.new_tokens if generates else 0)
        return min(self.max_length, network.max_length, room)

    def _prepare(self, network: Network, *, spans: bool = False) -> _batching.Prepare:
        slot = "" if network.decoder else make_masks(network, self.masks)
        limit = self._limit(network)
        ends = not network.decoder  # which is read where the answer would start

        def frame(item: Item) -> Framed:
            if self.readout != "pair":
                return frame_question(item.text, item.instruction, slot)
            separator = f"{network.tokenizer.sep_token}" * 2  # RoBERTa's layout of a pair
            question = item.instruction or NEUTRAL_QUESTION
            return Framed(item.text, "", separator + question + slot)

        def prepare(items: Sequence[Item]) -> list[_batching.Prompt]:
            framed = [frame(item) for item in items]
            return make_prompts(
                network.tokenizer, framed, limit=limit, cut="left", ends=ends, spans=spans
            )

        return prepare

    def _write(
        self, items: Sequence[Item], sampling: AnswerSampling, budget: int | None
    ) -> Iterator[AnsweredBatch]:
        network = self._network()
        if sampling.samples and not network.decoder:
            raise UsageError(
                f"only decoders sample answers, got samples={self.samples} for a masked language "
                "model: use 0"
            )
        tokens, prepare = self.new_tokens if network.decoder else self.masks, self._prepare(network)
        return write_answers(items, prepare, network, tokens, sampling, budget=budget)


_BEFORE, _BETWEEN, _AFTER = re.split(r"\{\w+\}", TEMPLATE)
_SYSTEM = "messages[0]['content'] if messages[0]['role'] == 'system' else "
CHAT_TEMPLATE = join_template(
    [quote(_BEFORE), TEXT, quote(_BETWEEN), _SYSTEM + quote(NEUTRAL_QUESTION), quote(_AFTER)]
)
"""What ``frame_question`` does, for sentence-transformers; the system message is the question."""


def frame_question(text: str, instruction: str, slot: str = "") -> Framed:
    """Return the text in its prompt; braces in a text or an instruction are plain text.

    Args:
        text: Any string.
        instruction: The question; "" asks the neutral one.
        slot: What follows the prompt, such as masks.
    """
    before, after = TEMPLATE.split("{input}")
    return Framed(text, before, after.format(instruction=instruction or NEUTRAL_QUESTION) + slot)


def resolve_readout(readout: str, *, decoder: bool) -> str:
    """Return the read-out that a setting means for a kind of backbone.

    Raises:
        UsageError: This kind of backbone has no such read-out.
    """
    known = READOUTS if decoder else MASKED_READOUTS
    if readout == "auto":
        return "1st-gen" if decoder else "avg-gen"
    if readout not in known:
        kind = "decoder" if decoder else "masked language model"
        names = ", ".join(sorted({"auto", *known}))
        raise UsageError(f"readout of inbedder on a {kind} must be one of {names}, got {readout!r}")
    return readout
