"""Answers in words: prompts continued in batches, with a key-value cache, and the read-outs that take what came out."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from adapters import _batching, _pooling
from adapters._backbone import Network
from adapters._drawing import draw_tokens
from adapters._head import head_of
from adapters.inbedder.masked import filled
from bench.encoder import Item

if TYPE_CHECKING:
    from torch import Tensor


class Draws(NamedTuple):
    """How the answers to a prompt are sampled.

    Attributes:
        samples: Answers of each prompt; 0 takes the likeliest token each time, and what follows does not matter.
        temperature: What scores are divided by.
        top_k: Number of the likeliest tokens that are drawn from; 0 for all.
        top_p: Least probability that these hold together.
    """

    samples: int = 0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0


GREEDY = Draws()


class Generated(NamedTuple):
    """What came out of continuing prompts.

    Attributes:
        prompt: States of the prompts (b, t, dim).
        states: States of the generated tokens (b, n - 1, dim); the last token has none, since nothing is predicted from it.
        tokens: The tokens (b, n).
        alive: 1 before the end of each row's text, 0 from it on (b, n).
    """

    prompt: "Tensor"
    states: "Tensor"
    tokens: "Tensor"
    alive: "Tensor"


def generate(
    network: Network,
    ids: "Tensor",
    mask: "Tensor",
    new_tokens: int,
    *,
    layer: int = -1,
    draws: Draws = GREEDY,
) -> Generated:
    """Continue prompts until every row has ended, or to ``new_tokens``; the first token has a state in any case, if it is not the last.

    Args:
        network: A decoder with its language-model head.
        ids: Prompts (b, t), right-padded.
        mask: 1 for real positions, (b, t).
        new_tokens: Most tokens per prompt, at least one.
        layer: Hidden layer of the states.
        draws: How tokens are chosen. A prompt is computed once for all its samples, so that all but ``prompt`` have b * samples
            rows; they depend on the prompt alone, not on its company.
    """
    import torch

    head = head_of(network)
    trunk = partial(
        network.model.base_model, use_cache=True, output_hidden_states=layer != -1
    )  # all layers are much to keep
    samples = draws.samples
    ends = torch.tensor(end_ids(network), device=ids.device)
    lengths, chance = mask.sum(1), uniform(ids, mask, samples, new_tokens)
    out = trunk(input_ids=ids, attention_mask=mask)
    prompt, last = (
        _read(out, layer),
        out.last_hidden_state[torch.arange(len(ids), device=ids.device), lengths - 1],
    )
    if samples > 1:
        out.past_key_values.batch_repeat_interleave(samples)
        last, mask, lengths = (x.repeat_interleave(samples, 0) for x in (last, mask, lengths))
    states, tokens, alive = (
        [prompt.new_empty(len(last), 0, prompt.shape[-1])],
        [],
        [torch.ones_like(mask[:, :1])],
    )
    for step in range(new_tokens):
        scores = head(last)
        token = (
            draw_tokens(
                scores / draws.temperature, chance[:, step], top_k=draws.top_k, top_p=draws.top_p
            )
            if samples
            else scores.argmax(-1)
        )
        tokens.append(token[:, None])
        alive.append(alive[-1] * ~torch.isin(tokens[-1], ends))
        if step == new_tokens - 1 or (step and not alive[-1].any()):
            break
        mask = torch.cat([mask, torch.ones_like(tokens[-1])], dim=1)
        places = (lengths + step)[:, None]
        out = trunk(
            input_ids=tokens[-1],
            attention_mask=mask,
            position_ids=places,
            past_key_values=out.past_key_values,
        )
        states.append(_read(out, layer))
        last = out.last_hidden_state[:, -1]
    return Generated(
        prompt, torch.cat(states, dim=1), torch.cat(tokens, dim=1), torch.cat(alive[1:], dim=1)
    )


def _read(out: Any, layer: int) -> "Tensor":  # noqa: ANN401 - what transformers returns
    return out.last_hidden_state if layer == -1 else out.hidden_states[layer]  # type: ignore[no-any-return]


def end_ids(network: Network) -> list[int]:
    """Return the ids at which the model's own generation ends; those of its tokenizer where the model names none."""
    named = network.model.generation_config.eos_token_id
    ends = network.tokenizer.eos_token_id if named is None else named
    return ends if isinstance(ends, list) else [] if ends is None else [ends]


def uniform(ids: "Tensor", mask: "Tensor", samples: int, new_tokens: int) -> "Tensor":
    """Return numbers in [0, 1), float32 (b * samples, new_tokens), seeded by each prompt's ids and the number of the sample."""
    import torch

    rows = (
        [row[: int(n)].tolist() for row, n in zip(ids.cpu(), mask.sum(1), strict=True)]
        if samples
        else []
    )
    made = [
        np.random.default_rng([*row, k]).random(new_tokens, np.float32)
        for row in rows
        for k in range(samples)
    ]
    return torch.from_numpy(np.asarray(made, np.float32)).to(ids.device)


def state_readout(
    network: Network, ids: "Tensor", mask: "Tensor", readout: str, layer: int, new_tokens: int
) -> "Tensor":
    """Return the vectors (b, dim) of a read-out that takes the states of generated tokens.

    Args:
        network: A decoder with its language-model head.
        ids: Prompts (b, t), right-padded.
        mask: 1 for real positions, (b, t).
        readout: "last-gen", "avg-gen" or "avg-all".
        layer: Hidden layer that is read.
        new_tokens: Most tokens generated per prompt. Of a single one there is no G, and the last state of the prompt stands in.

    Source:
        A state counts unless the token that it predicts is special; where none is left, the first one counts: as in the released code.
    """
    import torch

    made = generate(network, ids, mask, new_tokens, layer=layer)
    special = torch.tensor(network.tokenizer.all_special_ids, device=ids.device)
    kept = made.alive[:, 1:] * ~torch.isin(made.tokens[:, 1:], special)
    kept[:, :1] += (kept.sum(1, keepdim=True) == 0).to(kept.dtype)
    chosen = torch.cat([mask if readout == "avg-all" else last_position(mask), kept], dim=1)
    if readout == "last-gen":
        chosen = chosen * (chosen.cumsum(1) == chosen.sum(1, keepdim=True))
    return _pooling.mean(torch.cat([made.prompt, made.states], dim=1), chosen)


def last_position(mask: "Tensor") -> "Tensor":
    """Return (b, t) with 1 at the last real position of each row of a right-padded mask."""
    from torch.nn.functional import pad

    return mask - pad(mask[:, 1:], (0, 1))


def mean_but_last(states: "Tensor", mask: "Tensor") -> "Tensor":
    """Return the mean state (b, dim) of the real positions without the last one of each row."""
    return _pooling.mean(states, mask - last_position(mask))


class Answered(NamedTuple):
    """Answers to a batch of prompts.

    Attributes:
        rows: The prompts, one a row.
        answers: Answers of each prompt, one where they are not sampled.
        generated: Positions that went through the network for each prompt, beyond its own.
        padded: Positions in all, padding included.
    """

    rows: list[_batching.Row]
    answers: list[list[str]]
    generated: int
    padded: int


def answered(
    items: Sequence[Item],
    prepare: _batching.Prepare,
    network: Network,
    new_tokens: int,
    *,
    draws: Draws = GREEDY,
    budget: int | None = None,
) -> Iterator[Answered]:
    """Yield the answers of all items in words, longest prompts first, surrounding white space removed.

    Args:
        items: Texts with their questions.
        prepare: Gives one prompt per item.
        network: With its language-model head; a masked one fills the last ``new_tokens`` masks of each prompt.
        new_tokens: Most tokens of an answer.
        draws: How they are sampled, of decoders only.
        budget: Token positions per batch, padding included; None for the device's default.
    """
    import torch

    def forward(ids: "Tensor", mask: "Tensor") -> "Tensor":
        if not network.decoder:
            return filled(network, ids, mask, new_tokens)
        made = generate(network, ids, mask, new_tokens, draws=draws)
        return torch.where(made.alive > 0, made.tokens, -1)

    each = max(draws.samples, 1)
    for done in _batching.computed(items, prepare, forward, network, budget=budget):
        tokens = [[i for i in row if i >= 0] for row in done.output.tolist()]
        words = [
            answer.strip()
            for answer in network.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        ]
        generated = (done.output.shape[1] - 1) * each if network.decoder else 0
        answers = [words[i : i + each] for i in range(0, len(words), each)]
        yield Answered(done.rows, answers, generated, done.padded + generated * len(done.rows))
