"""InBedder's answers in words: written by a decoder, or filled into the masks of a masked model.

Read-outs of generated tokens take their states (section 3 of Peng et al. 2024); "re-enc" embeds the
answers with another encoder; ``read_words`` names the words that a vector predicts.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, product
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import gelu, pad

from adapters import _batching, _pooling
from adapters._generate import (
    Choose,
    choose_likeliest,
    decode,
    draw_uniform,
    end_ids,
    prefill,
    sampler,
)
from adapters._network import Network
from bench.encoder import Batch, Embeddings, Encoder, Item, checked
from bench.errors import CheckpointError

_WORD_STARTS = "Ġ▁"
"""First character of a token that starts a word: byte-level and sentencepiece vocabularies."""

_SHORTEST = 3
"""Fewest letters of a word that ``read_words`` returns."""


class AnswerSampling(NamedTuple):
    """How the answers to a prompt are sampled.

    Attributes:
        samples: Answers of each prompt; 0 for the likeliest one, without sampling.
        temperature: Divides the logits.
        top_k: Number of the likeliest tokens to sample from; 0 for all.
        top_p: Of these, the fewest likeliest ones that together have at least this probability.
    """

    samples: int = 0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0


class AnsweredBatch(NamedTuple):
    """Answers to a batch of prompts.

    Attributes:
        rows: The prompts, one a row.
        answers: Answers of each prompt, one where they are not sampled.
        generated: Tokens that went through the network for each prompt beyond its own, until its
            answers ended.
        padded: Tokens in all, padding included.
    """

    rows: list[_batching.Row]
    answers: list[list[str]]
    generated: list[int]
    padded: int


def read_generated(
    network: Network, ids: Tensor, mask: Tensor, readout: str, layer: int, new_tokens: int
) -> tuple[Tensor, Tensor]:
    """Return the vectors (b, dim) of a read-out of generated tokens, and how many were read (b,).

    A state counts unless the token that it predicts is special or ends the text; if none is left,
    the first one counts. Without any, as with one new token, the last state of the prompt is read.

    Args:
        network: A decoder with its language-model head.
        ids: Token ids of the prompts (b, t), padded on the right.
        mask: 1 at real positions, 0 at padding (b, t).
        readout: "last-gen", "avg-gen" or "avg-all".
        layer: Hidden layer that is read.
        new_tokens: Most tokens generated for each prompt.

    Source:
        zhang-yu-wei/InBedder at 3d95d4fa.
    """
    ends = torch.tensor(end_ids(network), device=ids.device)
    prefix = prefill(network, ids, mask, new_tokens, layer=layer)
    made = decode(network, prefix, choose_likeliest, new_tokens, ends=ends, layer=layer)
    excluded = torch.tensor(network.tokenizer.all_special_ids, device=ids.device)
    predicted = made.tokens[:, 1:]
    special = torch.isin(predicted, excluded) | torch.isin(predicted, ends)
    counted = ((predicted >= 0) & ~special).to(mask.dtype)  # (b, n - 1)
    counted[:, :1] += counted.sum(1, keepdim=True) == 0
    prompt = mask if readout == "avg-all" else last_position(mask)
    chosen = torch.cat([prompt, counted], dim=1)
    if readout == "last-gen":
        chosen = chosen * (chosen.cumsum(1) == chosen.sum(1, keepdim=True))
    assert prefix.states is not None  # noqa: S101 - a layer was asked for
    assert made.states is not None  # noqa: S101
    vectors = _pooling.mean(torch.cat([prefix.states, made.states], dim=1), chosen)
    return vectors, ((made.tokens >= 0) & ~torch.isin(made.tokens, ends))[:, :-1].sum(1)


def count_generated(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Yield batches with the generated tokens counted, whose numbers end the vectors (b, dim + 1).

    Like this they stay with their rows, whichever batch is ready.
    """
    for batch in batches:
        vectors, made = batch.vectors[:, :-1], batch.vectors[:, -1].astype(np.int32)
        padded = batch.padded + len(made) * int(made.max())
        vectors = np.ascontiguousarray(vectors)
        yield replace(batch, vectors=vectors, tokens=batch.tokens + made, padded=padded)


def last_position(mask: Tensor) -> Tensor:
    """Return (b, t) with 1 at the last real position of each row of a right-padded mask."""
    return mask - pad(mask[:, 1:], (0, 1))


def write_answers(
    items: Sequence[Item],
    prepare: _batching.Prepare,
    network: Network,
    new_tokens: int,
    sampling: AnswerSampling,
    *,
    budget: int | None = None,
) -> Iterator[AnsweredBatch]:
    """Yield the answers to all items, longest prompts first, without surrounding white space.

    Args:
        items: Texts with their questions.
        prepare: Gives one prompt per item.
        network: With its language-model head; a masked one fills the last ``new_tokens`` masks.
        new_tokens: Most tokens of an answer.
        sampling: Of decoders only; answers are seeded by the ids of the prompt.
        budget: Tokens per batch, padding included; None for the device's default.
    """
    samples = max(sampling.samples, 1)

    def forward(ids: Tensor, mask: Tensor) -> Tensor:
        if network.decoder:
            return write_tokens(network, ids, mask, new_tokens, sampling)
        return fill_masks(network, ids, mask, new_tokens)

    for done in _batching.computed(items, prepare, forward, network, budget=budget):
        tokens = [row[row >= 0].tolist() for row in done.output]
        decoded = network.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        words = [answer.strip() for answer in decoded]
        answers = [words[i : i + samples] for i in range(0, len(words), samples)]
        read = done.output.shape[1] - 1 if network.decoder else 0  # the last goes nowhere
        made = [min(len(row), read) for row in tokens]
        generated = [sum(made[i : i + samples]) for i in range(0, len(made), samples)]
        padded = done.padded + read * len(made)
        yield AnsweredBatch(done.rows, answers, generated, padded)


def write_tokens(
    network: Network, ids: Tensor, mask: Tensor, new_tokens: int, sampling: AnswerSampling
) -> Tensor:
    """Return the tokens of answers (b * samples, n), -1 from the end of each on.

    Random numbers depend on the ids of each prompt alone, not on its batch.
    """
    ends = torch.tensor(end_ids(network), device=ids.device)
    prefix = prefill(network, ids, mask, new_tokens, samples=max(sampling.samples, 1))
    choose: Choose = choose_likeliest
    if sampling.samples:
        lengths = mask.sum(1).tolist()
        prompts = [row[:n] for row, n in zip(ids.tolist(), lengths, strict=True)]
        seeds = [[*row, k] for row, k in product(prompts, range(sampling.samples))]
        uniform = draw_uniform(seeds, new_tokens).to(ids.device)
        temperature, top_k, top_p = sampling[1:]
        choose = sampler(uniform, top_k=top_k, top_p=top_p, temperature=temperature)
    tokens = decode(network, prefix, choose, new_tokens, ends=ends).tokens
    return torch.where(torch.isin(tokens, ends), -1, tokens)


def reencode(batches: Iterable[AnsweredBatch], encoder: Encoder) -> Iterator[Batch]:
    """Yield the vectors of answers, the mean of several to one prompt.

    Args:
        batches: Answers, as many to each prompt.
        encoder: Embeds them, without instruction. Its tokens are not counted.

    Raises:
        EncodingError: The encoder returns no valid embeddings.
    """
    for batch in batches:
        answers = list(chain.from_iterable(batch.answers))
        distinct = list(dict.fromkeys(answers))
        vectors = checked(encoder.encode(distinct), distinct)
        number = {answer: i for i, answer in enumerate(distinct)}
        every = vectors[[number[answer] for answer in answers]]
        by_prompt = every.reshape(len(batch.rows), -1, vectors.shape[1])
        prompts = [row.prompts[0] for row in batch.rows]
        made = zip(prompts, batch.generated, strict=True)
        tokens = [len(prompt.ids) + generated for prompt, generated in made]
        yield Batch(
            positions=np.asarray([row.positions[0] for row in batch.rows], np.int64),
            vectors=by_prompt.mean(axis=1),
            tokens=np.asarray(tokens, np.int32),
            truncated=np.asarray([prompt.truncated for prompt in prompts], np.bool_),
            padded=batch.padded,
        )


def read_words(
    vectors: Embeddings, origin: Embeddings, n: int, network: Network, *, transform: bool
) -> list[list[str]]:
    """Return the whole words whose logits rise most from the origin to each vector.

    Args:
        vectors: float32 (m, dim); of another dim than the head's they have no words.
        origin: float32 (dim,).
        n: Most words of a vector, each in its likeliest spelling.
        network: With its language-model head.
        transform: Whether vectors pass all of a masked model's head, or its last layer only.
    """
    head: Any = network.model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if vectors.shape[1] != head.weight.shape[1]:
        return [[] for _ in vectors]
    words = list_words(network)
    spelling = list(words.values())
    with torch.inference_mode():
        states = torch.from_numpy(np.vstack([vectors, origin[None]])).to(network.device)
        if transform:
            states = transform_states(network, states.to(network.model.dtype)).float()
        rows = torch.tensor(list(words), dtype=torch.long, device=network.device)
        # a bias adds the same to both logits
        rise = (states[:-1] - states[-1:]) @ head.weight[rows].float().T  # (m, words)
        order = rise.argsort(dim=1, descending=True, stable=True)
    found = []
    for row in order[:, : 4 * n].tolist():
        distinct: dict[str, str] = {}
        for i in row:
            distinct.setdefault(spelling[i].lower(), spelling[i])
        found.append(list(distinct.values())[:n])
    return found


def list_words(network: Network) -> dict[int, str]:
    """Return the tokens that are a whole word of three letters or more, by id."""
    tokenizer: Any = network.tokenizer
    size = network.model.get_output_embeddings().weight.shape[0]  # type: ignore[no-untyped-call]
    found = {}
    for token, i in sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1]):
        if i < size and token[:1] in _WORD_STARTS:
            word = tokenizer.convert_tokens_to_string([token]).strip()
            if len(word) >= _SHORTEST and word.isalpha():
                found[i] = word
    return found


def make_masks(network: Network, masks: int) -> str:
    """Return the mask tokens that stand for the answer in a prompt.

    Raises:
        CheckpointError: The tokenizer has no mask token.
    """
    token = network.tokenizer.mask_token
    if token is None:
        raise CheckpointError(
            f"expected a tokenizer with a mask token, got {type(network.tokenizer).__name__}: "
            "name a masked language model"
        )
    return str(token) * masks


def mask_positions(ids: Tensor, network: Network, masks: int) -> Tensor:
    """Return (b, t) with 1 at the last ``masks`` mask tokens of each row, not at a text's own."""
    found: Tensor = ids == network.tokenizer.mask_token_id
    from_the_end = found.flip(1).cumsum(1).flip(1)
    return (found & (from_the_end <= masks)).long()


def fill_masks(network: Network, ids: Tensor, mask: Tensor, masks: int) -> Tensor:
    """Return the likeliest token for each of the last masks of a prompt (b, masks)."""
    states = network.hidden_states(ids, mask)[mask_positions(ids, network, masks).bool()]
    tokens: Tensor = _masked_head(network).decoder(transform_states(network, states)).argmax(-1)
    return tokens.reshape(len(ids), masks)


def transform_states(network: Network, states: Tensor) -> Tensor:
    """Return states (..., dim) after dense layer, GELU and layer norm of a masked model's head.

    Raises:
        CheckpointError: The head is not in RoBERTa's layout.
    """
    head = _masked_head(network)
    return head.layer_norm(gelu(head.dense(states)))  # type: ignore[no-any-return]


def _masked_head(network: Network) -> Any:  # noqa: ANN401 - a module of transformers
    head = getattr(network.model, "lm_head", None)
    if any(getattr(head, part, None) is None for part in ("dense", "layer_norm", "decoder")):
        raise CheckpointError(
            f"expected a masked language model with RoBERTa's head, "
            f"got {type(network.model).__name__}: use the read-out avg-gen"
        )
    return head
