"""InBedder in words: short answers to the instruction, and vectors read through the language-model head."""

from collections.abc import Sequence

import numpy as np

from adapters import _batching
from adapters._backbone import Network
from adapters.inbedder.generation import answered
from adapters.inbedder.masked import transformed
from bench.encoder import Embeddings, Item

ANSWER_TOKENS = 12
"""Most tokens of an answer that people read; the read-outs have a length of their own."""

_BUDGET = 32_768
"""Token positions per batch where none is asked for: each step of generating costs much the same for one prompt and for fifty."""

_MARKS = "Ġ▁"
"""How tokens of byte-level and of sentencepiece vocabularies begin where a word begins."""

_SHORTEST = 3


def answers(
    items: Sequence[Item],
    prepare: _batching.Prepare,
    network: Network,
    tokens: int,
    *,
    budget: int | None = None,
) -> list[str]:
    """Return the likeliest answer to each item, up to the end of its first line.

    Args:
        items: Texts with their questions.
        prepare: Gives one prompt per item.
        network: With its language-model head.
        tokens: Most tokens of an answer; of a masked language model, the number of masks.
        budget: Token positions per batch, padding included; None for the default of answers.
    """
    found = [""] * len(items)
    for batch in answered(items, prepare, network, tokens, budget=budget or _BUDGET):
        for row, (answer,) in zip(batch.rows, batch.answers, strict=True):
            found[row.positions[0]] = next(iter(answer.splitlines()), "").strip()
    return found


def words_of(
    vectors: Embeddings, origin: Embeddings, n: int, network: Network, *, transform: bool
) -> list[list[str]]:
    """Return the whole words whose scores rise most from the origin to each vector, at most n, each in its likeliest spelling.

    Args:
        vectors: float32 (m, dim); where dim is not what the head takes there are no words.
        origin: float32 (dim,).
        n: Most words of a vector.
        network: With its language-model head.
        transform: Whether the vectors go through all of a masked language model's head, or through its last layer only.
    """
    import torch

    head = network.model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if vectors.shape[1] != head.weight.shape[1]:
        return [[] for _ in vectors]
    with torch.inference_mode():
        states = torch.from_numpy(np.vstack([vectors, origin[None]])).to(network.device)
        if transform:
            states = transformed(network, states.to(network.model.dtype)).float()
        spelt = whole_words(network)
        weights = head.weight[
            torch.tensor(list(spelt), device=network.device, dtype=torch.long)
        ].float()
        risen = (
            states[:-1] - states[-1:]
        ) @ weights.T  # a bias adds the same to both, and falls away
        order = risen.argsort(dim=1, descending=True, stable=True)
    return [_distinct([list(spelt.values())[i] for i in row[: 4 * n].tolist()], n) for row in order]


def whole_words(network: Network) -> dict[int, str]:
    """Return the tokens that are a word of at least three letters with the white space before it, by id."""
    tokenizer = network.tokenizer
    size = network.model.get_output_embeddings().weight.shape[0]  # type: ignore[no-untyped-call]
    ids = {
        i: token
        for token, i in sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
        if i < size and token[:1] in _MARKS
    }
    spelt = {i: tokenizer.convert_tokens_to_string([token]).strip() for i, token in ids.items()}
    return {i: word for i, word in spelt.items() if len(word) >= _SHORTEST and word.isalpha()}


def _distinct(found: Sequence[str], n: int) -> list[str]:
    first: dict[str, str] = {}
    for word in found:
        first.setdefault(word.lower(), word)
    return list(first.values())[:n]
