"""InBedder: an instruction is read as a question about the text; the state that would answer it is the embedding.

Peng, Zhang, Wang, Srinivasa, Liu, Wang, Shang. Answer is All You Need: Instruction-following Text Embedding via Answering
the Question. ACL 2024.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from adapters import _batching, _pooling, _sharing
from adapters._backbone import PACKAGED, Backbone, Network
from adapters._checkpoint import located, runs_of
from adapters._encoder import NetworkEncoder
from adapters._text import Framed, prompts
from adapters.inbedder.answers import ANSWER_TOKENS, answers, words_of
from adapters.inbedder.generation import Draws, answered, mean_but_last, state_readout
from adapters.inbedder.masked import answer_masks, mask_positions, pair, pair_readout
from adapters.inbedder.reencoding import reencoded, registered
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

if TYPE_CHECKING:
    from torch import Tensor

PUBLISHED: Mapping[str, str] = {
    "llama-2-7b-InBedder": "BrandonZYW/llama-2-7b-InBedder",
    "opt-2.7b-InBedder": "BrandonZYW/opt-2.7b-InBedder",
    "opt-1.3b-InBedder": "BrandonZYW/opt-1.3b-InBedder",
    "opt-350m-InBedder": "BrandonZYW/opt-350m-InBedder",
    "roberta-large-InBedder": "BrandonZYW/roberta-large-InBedder",
    "inbedder-roberta-large": "KomeijiForce/inbedder-roberta-large",  # described here as of revision 51efa829
}
"""Hub ids of the authors' checkpoints, by names that ``checkpoint`` takes as well; pin one by the id with ``@revision``."""

TEMPLATE = "### Input:\n{input}\n\n### Instruction:\n{instruction}\n\n### Response:"
"""The prompt of training and test, for all sizes; nothing follows the last colon, the answer is glued to it."""

TEMPLATE_WITHOUT_INPUT = "### Instruction:\n{instruction}\n\n### Response:"
"""The prompt of a training row that has no input."""

NEUTRAL_QUESTION = "What is this text about?"
"""What is asked of a text when no instruction is given; ours, the paper always has an instruction."""

GENERATED = frozenset({"last-gen", "avg-gen", "avg-all"})
"""Read-outs that take the states of generated tokens, where the backbone is a decoder."""

READOUTS = GENERATED | {"1st-gen", "avg-ppt", "re-enc"}
"""Read-outs of decoders."""

MASKED_READOUTS = frozenset({"avg-gen", "pair", "re-enc"})
"""Read-outs of masked language models."""


@dataclass(frozen=True)
class InBedder(NetworkEncoder):
    """InBedder (Peng et al. 2024): the state where the answer to the instruction would start, given the text.

    Attributes:
        checkpoint: "default" for the weights that come with this package, a name in PUBLISHED, a folder that the recipe wrote
            (taken as trained), or a hub id or the packaged backbone, taken as untrained.
        readout: "auto" is "1st-gen" for decoders and "avg-gen" for masked language models. With P the states of the prompt
            and G those of the generated tokens that predict another one, special tokens not counted: "1st-gen" last of P;
            "last-gen" last of G; "avg-gen" mean of the last of P and G; "avg-ppt" mean of P without its last; "avg-all" mean of P
            and G; "re-enc" the answer in words, embedded by another encoder. A masked language model has "avg-gen", the mean of its
            masks; "re-enc"; and "pair": text and instruction as a pair without template, masks through the head's dense layer, mean,
            standardised.
        layer: Hidden layer that is read, -1 the last after its norm (the published one), 0 the input embeddings.
        masks: Mask tokens after the prompt of a masked language model; 3 in the published evaluation.
        new_tokens: Most tokens generated for the read-outs that need it; 3 in the published runs with llama, 20 with OPT. What is
            generated here is the likeliest token each time; the published runs with llama draw it (temperature 0.6, top-p 0.9).
        samples: Answers re-encoded for each text: 0 is the likeliest one, 10 the published "10 samples", their mean.
        temperature: Of the samples.
        top_k: Number of the likeliest tokens that samples are drawn from; 0 for all.
        top_p: Least probability that these hold together.
        reencoder: Name of the registered encoder that embeds answers, such as "st:FOLDER"; it computes in the same dtype. The
            published re-encoders are intfloat/e5-large-v2 (llama, flan-t5) and komninos word vectors (OPT, RoBERTa, Alpaca).
        max_length: Longest prompt in tokens, masks included and generated tokens not; what is too long is cut from the left, so
            that instruction and answer slot stay.

    Source:
        Template, read-outs and lengths: zhang-yu-wei/InBedder at 3d95d4fa; "pair": card of KomeijiForce/inbedder-roberta-large.
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
        """Yield the vectors of items, longest first; in "1st-gen" the instructions asked of a text share its computation.

        Raises:
            UsageError: The backbone has no such read-out.
        """
        network = self._network()
        readout, prepare = resolved(self.readout, decoder=network.decoder), self._prepare(network)
        if readout == "1st-gen":
            return _sharing.stream_last(
                items, prepare, network, layer=self.layer, budget=self.budget
            )
        if readout == "re-enc":
            return self._reencoded(items, prepare, network)
        return _batching.stream(
            items, prepare, self._forward(network, readout), network, budget=self.budget
        )

    def card(self) -> Card:
        """Return the backbone's card, trained where the checkpoint is a published one or a folder.

        Where answers are re-encoded, what stands behind the other encoder is part of the weights.
        """
        source = self._backbone().source
        card = self._backbone().card(
            trained=source.partition("@")[0] in PUBLISHED.values() or Path(source).is_dir()
        )
        if self.readout in GENERATED | {
            "re-enc"
        }:  # a pass for each token, whose number depends on the text
            card = replace(card, passes=None)
        return (
            replace(card, weights=digest([card.weights, fingerprint(self._reencoder())]))
            if self.readout == "re-enc"
            else card
        )

    def runs(self) -> Ngrams | None:
        """Return the runs of words that default weights, or those of a recipe's folder, were trained on; None for others."""
        return runs_of(self._backbone().source)

    def answer(self, texts: Sequence[str], *, instruction: str = "") -> list[str]:
        """Return the likeliest answer to each text: that of "re-enc", else at most ``ANSWER_TOKENS`` tokens, or all masks."""
        if self.readout not in {"re-enc", "pair"}:
            return replace(self, readout="re-enc", new_tokens=ANSWER_TOKENS).answer(
                texts, instruction=instruction
            )
        network = self._network()
        tokens = self.new_tokens if network.decoder else self.masks
        return answers(
            [Item(text, instruction) for text in texts],
            self._prepare(network),
            network,
            tokens,
            budget=self.budget,
        )

    def read_words(self, vectors: Embeddings, origin: Embeddings, n: int) -> list[list[str]]:
        """Return the words whose scores rise most from the origin to each vector; none where another encoder gives the vectors."""
        if self.readout == "re-enc":
            return [[] for _ in vectors]
        network = replace(self._backbone(), head="lm").load()
        return words_of(
            vectors, origin, n, network, transform=not network.decoder and self.readout != "pair"
        )

    def _backbone(self) -> Backbone:
        head = "lm" if self.readout in GENERATED | {"re-enc", "pair"} else "none"
        source = located(PUBLISHED.get(self.checkpoint, self.checkpoint), __file__, PACKAGED)
        return Backbone(source, head=head, dtype=self.dtype, device=self.device)  # type: ignore[arg-type]

    def _network(self) -> Network:
        return self._backbone().load()

    def _reencoder(self) -> Encoder:
        return registered(self.reencoder, dtype=self.dtype, device=self.device)

    def _prepare(self, network: Network, *, spans: bool = False) -> _batching.Prepare:
        slot = "" if network.decoder else answer_masks(network, self.masks)
        answer = (
            self.new_tokens if self.readout in GENERATED | {"re-enc"} and network.decoder else 0
        )
        limit = min(self.max_length, network.max_length, network.positions - answer)

        def frame(item: Item) -> Framed:
            if self.readout == "pair":
                return pair(item.text, item.instruction or NEUTRAL_QUESTION, slot, network)
            return framed(item.text, item.instruction, slot)

        return lambda items: prompts(
            network.tokenizer, [frame(item) for item in items], limit=limit, cut="left", spans=spans
        )

    def _forward(self, network: Network, readout: str) -> "Callable[[Tensor, Tensor], Tensor]":
        if readout == "pair":
            return lambda ids, mask: pair_readout(network, ids, mask, self.layer, self.masks)
        if not network.decoder:
            return lambda ids, mask: _pooling.mean(
                network.hidden_states(ids, mask, self.layer),
                mask_positions(ids, network, self.masks),
            )
        if readout in GENERATED:
            return lambda ids, mask: state_readout(
                network, ids, mask, readout, self.layer, self.new_tokens
            )
        return lambda ids, mask: mean_but_last(network.hidden_states(ids, mask, self.layer), mask)

    def _reencoded(
        self, items: Sequence[Item], prepare: _batching.Prepare, network: Network
    ) -> Iterator[Batch]:
        if self.samples and not network.decoder:
            raise UsageError(
                f"samples of inbedder are drawn by decoders only, got samples={self.samples} on a masked language model: use 0"
            )
        tokens = self.new_tokens if network.decoder else self.masks
        draws = Draws(self.samples, self.temperature, self.top_k, self.top_p)
        answers = answered(items, prepare, network, tokens, draws=draws, budget=self.budget)
        return reencoded(answers, self._reencoder())


def framed(text: str, instruction: str, slot: str = "") -> Framed:
    """Return the text in its prompt; braces in a text or an instruction mean nothing.

    Args:
        text: Any string.
        instruction: The question; "" asks the neutral one.
        slot: What stands where the answer would start, such as masks.
    """
    before, after = TEMPLATE.split("{input}")
    opening, closing = after.split("{instruction}")
    return Framed(text, before, opening + (instruction or NEUTRAL_QUESTION) + closing + slot)


def resolved(readout: str, *, decoder: bool) -> str:
    """Return the read-out that a setting means for a kind of backbone.

    Raises:
        UsageError: No such read-out, or not for this kind.
    """
    known = READOUTS if decoder else MASKED_READOUTS
    name = ("1st-gen" if decoder else "avg-gen") if readout == "auto" else readout
    if name not in known:
        kind = "decoder" if decoder else "masked language model"
        raise UsageError(
            f"readout of inbedder on a {kind} is one of {', '.join(sorted({'auto', *known}))}, got {readout!r}"
        )
    return name
