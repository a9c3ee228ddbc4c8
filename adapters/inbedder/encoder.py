"""InBedder: an instruction is read as a question about the text; the state that would answer it is the embedding.

Peng, Zhang, Wang, Srinivasa, Liu, Wang, Shang. Answer is All You Need: Instruction-following Text Embedding via Answering
the Question. ACL 2024.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from adapters import _batching, _pooling
from adapters._backbone import PACKAGED, Backbone, Network
from adapters._encoder import NetworkEncoder
from adapters._text import Framed, prompts
from bench.encoder import Batch, Card, Item, location
from bench.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

PUBLISHED: Mapping[str, str] = {
    "llama-2-7b-InBedder": "BrandonZYW/llama-2-7b-InBedder",
    "opt-2.7b-InBedder": "BrandonZYW/opt-2.7b-InBedder",
    "opt-1.3b-InBedder": "BrandonZYW/opt-1.3b-InBedder",
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

READOUTS = GENERATED | {"1st-gen", "avg-ppt"}
"""Read-outs of decoders; a masked language model has "avg-gen" alone, the mean over its masks."""


@dataclass(frozen=True)
class InBedder(NetworkEncoder):
    """InBedder (Peng et al. 2024): the state where the answer to the instruction would start, given the text.

    Attributes:
        checkpoint: A name in PUBLISHED, a folder that the recipe wrote (taken as trained), or a hub id or the packaged
            backbone, taken as untrained.
        readout: "auto" is "1st-gen" for decoders and "avg-gen" for masked language models. With P the states of the prompt
            and G those of the generated tokens: "1st-gen" last of P; "last-gen" last of G; "avg-gen" mean of the last of P
            and G; "avg-ppt" mean of P without its last; "avg-all" mean of P and G.
        layer: Hidden layer that is read, -1 the last after its norm (the published one), 0 the input embeddings.
        masks: Mask tokens after the prompt of a masked language model; 3 in the published evaluation.
        new_tokens: Tokens generated, greedily, for the read-outs that need it; 3 in the published runs with llama.
        max_length: Longest prompt in tokens, masks included; what is too long is cut from the left, so that instruction and
            answer slot stay.

    Source:
        Template, read-outs and lengths: zhang-yu-wei/InBedder at 3d95d4fa.
    """

    checkpoint: str = location(PACKAGED)
    readout: str = "auto"
    layer: int = -1
    masks: int = 3
    new_tokens: int = 3
    max_length: int = 512

    version: ClassVar[int] = 1
    follows_instructions: ClassVar[bool] = True

    def stream(self, items: Sequence[Item]) -> Iterator[Batch]:
        """Yield the vectors of items, longest first.

        Raises:
            UsageError: The backbone has no such read-out.
        """
        network = self._network()
        return _batching.stream(items, self._prepare(network), self._forward(network), network, budget=self.budget)

    def card(self) -> Card:
        """Return the backbone's card, trained where the checkpoint is a published one or a folder."""
        source = self._backbone().source
        return self._backbone().card(trained=source.partition("@")[0] in PUBLISHED.values() or Path(source).is_dir())

    def _backbone(self) -> Backbone:
        head = "lm" if self.readout in GENERATED else "none"
        return Backbone(PUBLISHED.get(self.checkpoint, self.checkpoint), head=head, dtype=self.dtype, device=self.device)  # type: ignore[arg-type]

    def _network(self) -> Network:
        return self._backbone().load()

    def _prepare(self, network: Network, *, spans: bool = False) -> _batching.Prepare:
        slot = "" if network.decoder else answer_masks(network, self.masks)
        answer = self.new_tokens if self.readout in GENERATED and network.decoder else 0
        limit = min(self.max_length, network.max_length - answer)
        return lambda items: prompts(
            network.tokenizer, [framed(item.text, item.instruction, slot) for item in items], limit=limit, cut="left", spans=spans
        )

    def _forward(self, network: Network) -> "Callable[[Tensor, Tensor], Tensor]":
        readout = resolved(self.readout, decoder=network.decoder)
        if not network.decoder:
            return lambda ids, mask: _pooling.mean(network.hidden_states(ids, mask, self.layer), mask_positions(ids, network, self.masks))
        if readout in GENERATED:
            return lambda ids, mask: generated_readout(network, ids, mask, readout, self.layer, self.new_tokens)
        pool = _pooling.last if readout == "1st-gen" else mean_but_last
        return lambda ids, mask: pool(network.hidden_states(ids, mask, self.layer), mask)


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
    known = READOUTS if decoder else {"avg-gen"}
    name = ("1st-gen" if decoder else "avg-gen") if readout == "auto" else readout
    if name not in known:
        kind = "decoder" if decoder else "masked language model"
        raise UsageError(f"readout of inbedder on a {kind} is one of {', '.join(sorted({'auto', *known}))}, got {readout!r}")
    return name


def answer_masks(network: Network, masks: int) -> str:
    """Return the mask tokens that stand for the answer in the prompt of a masked language model.

    Raises:
        CheckpointError: The tokenizer knows no mask.
    """
    token = network.tokenizer.mask_token
    if token is None:
        raise CheckpointError(
            f"expected a tokenizer with a mask token, got {type(network.tokenizer).__name__} without: name a masked language model"
        )
    return str(token) * masks


def mask_positions(ids: "Tensor", network: Network, masks: int) -> "Tensor":
    """Return (b, t) with 1 at the last ``masks`` mask tokens of each row: a mask that a text holds is not one of them."""
    found: Tensor = ids == network.tokenizer.mask_token_id
    from_the_end = found.flip(1).cumsum(1).flip(1)
    return (found & (from_the_end <= masks)).long()


def last_position(mask: "Tensor") -> "Tensor":
    """Return (b, t) with 1 at the last real position of each row of a right-padded mask."""
    from torch.nn.functional import pad

    return mask - pad(mask[:, 1:], (0, 1))


def mean_but_last(states: "Tensor", mask: "Tensor") -> "Tensor":
    """Return the mean state (b, dim) of the real positions without the last one of each row."""
    return _pooling.mean(states, mask - last_position(mask))


def generated_readout(network: Network, ids: "Tensor", mask: "Tensor", readout: str, layer: int, new_tokens: int) -> "Tensor":
    """Return the vectors (b, dim) of a read-out that takes generated tokens.

    Args:
        network: A decoder with its language-model head.
        ids: Prompts (b, t), right-padded.
        mask: 1 for real positions, (b, t).
        readout: "last-gen", "avg-gen" or "avg-all".
        layer: Hidden layer that is read.
        new_tokens: Most tokens generated per prompt. Where the first one already ends the text there is no G, and the last
            state of the prompt stands in for it.
    """
    import torch

    prompt, generated, alive = generate(network, ids, mask, layer, new_tokens)
    states = torch.cat([prompt, generated], dim=1)
    chosen = torch.cat([mask if readout == "avg-all" else last_position(mask), alive], dim=1)
    if readout == "last-gen":
        chosen = chosen * (chosen.cumsum(1) == chosen.sum(1, keepdim=True))
    return _pooling.mean(states, chosen)


def generate(network: Network, ids: "Tensor", mask: "Tensor", layer: int, new_tokens: int) -> "tuple[Tensor, Tensor, Tensor]":
    """Continue prompts greedily, with a key-value cache, and return the states on the way.

    Returns:
        States of the prompt (b, t, dim); states of the generated tokens (b, new_tokens - 1, dim), the last token having none
        since nothing is predicted from it; and (b, new_tokens - 1) with 1 up to the first special token of each row.
    """
    import torch

    trunk, head = network.model.base_model, network.model.get_output_embeddings()  # type: ignore[no-untyped-call]
    special = torch.tensor(network.tokenizer.all_special_ids, device=ids.device)
    lengths = mask.sum(1)
    out = trunk(input_ids=ids, attention_mask=mask, use_cache=True, output_hidden_states=True)
    prompt, last = out.hidden_states[layer], out.last_hidden_state[torch.arange(len(ids), device=ids.device), lengths - 1]
    states, alive = [prompt[:, :0]], [mask[:, :1]]
    for step in range(new_tokens - 1):
        token = head(last).argmax(-1, keepdim=True)
        alive.append(alive[-1] * ~torch.isin(token, special))
        mask = torch.cat([mask, torch.ones_like(token)], dim=1)
        out = trunk(
            input_ids=token,
            attention_mask=mask,
            position_ids=(lengths + step)[:, None],
            past_key_values=out.past_key_values,
            use_cache=True,
            output_hidden_states=True,
        )
        states.append(out.hidden_states[layer])
        last = out.last_hidden_state[:, -1]
    return prompt, torch.cat(states, dim=1), torch.cat(alive, dim=1)[:, 1:]
